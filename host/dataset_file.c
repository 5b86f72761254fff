/* Files for the user: pictures and arrays. */
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "dataset_internal.h"
#include "run_folder.h"

static vae_status write_into(const char *path, const struct iovec *parts, size_t n, vae_error *err)
{
    int fd = open(path, O_WRONLY | O_CLOEXEC);
    bool ok = fd >= 0;
    for (size_t i = 0; i < n && ok; i++) {
        ok = vae_write_all(fd, parts[i].iov_base, parts[i].iov_len);
    }
    int reason = errno;
    if (fd >= 0 && close(fd) != 0 && ok) {
        ok = false;
        reason = errno;
    }
    return ok ? VAE_OK : vae_fail(err, VAE_ERR_IO, "%s: cannot write: %s", path, strerror(reason));
}

vae_status vae_file_put(const char *path, const struct iovec *parts, size_t n, vae_error *err)
{
    struct stat info;
    if (stat(path, &info) != 0 || S_ISREG(info.st_mode)) {
        return vae_file_replace(path, parts, n, err);
    }
    if (S_ISDIR(info.st_mode)) {
        return vae_fail(err, VAE_ERR_IO, "%s: is a folder; name a file", path);
    }
    return write_into(path, parts, n, err);
}
