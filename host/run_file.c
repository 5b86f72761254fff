/* Files written and read whole. */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "run_folder.h"

bool vae_write_all(int fd, const void *bytes, size_t n)
{
    const char *at = bytes;
    while (n > 0) {
        /* Linux writes at most 2^31 - 4096 bytes at a time anyway */
        ssize_t wrote = write(fd, at, n < ((size_t)1 << 30) ? n : (size_t)1 << 30);
        if (wrote < 0 && errno == EINTR) {
            continue;
        }
        if (wrote <= 0) {
            errno = wrote == 0 ? EIO : errno;
            return false;
        }
        at += wrote;
        n -= (size_t)wrote;
    }
    return true;
}

/* Opens a new file beside `path`; its name goes to `temp`. */
static int open_temp(const char *path, char *temp, size_t size)
{
    for (int i = 0; i < 100; i++) {
        if ((size_t)snprintf(temp, size, "%s.%ld-%d.tmp", path, (long)getpid(), i) >= size) {
            errno = ENAMETOOLONG;
            return -1;
        }
        int fd = open(temp, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0666);
        if (fd >= 0 || errno != EEXIST) {
            return fd;
        }
    }
    return -1;
}

/* A rename is durable once its folder is. */
static bool sync_folder_of(const char *path)
{
    char folder[VAE_RUN_PATH + 64];
    const char *slash = strrchr(path, '/');
    int length = slash == NULL ? 1 : slash == path ? 1 : (int)(slash - path);
    snprintf(folder, sizeof folder, "%.*s", length, slash == NULL ? "." : path);
    int fd = open(folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd < 0) {
        return false;
    }
    /* some file systems cannot sync a folder and say EINVAL; there is nothing better to do there */
    bool ok = fsync(fd) == 0 || errno == EINVAL;
    int kept = errno;
    close(fd);
    errno = kept;
    return ok;
}

/* All of the temp file, down to the disk; it is closed either way. After a failed fsync the pages
 * may be lost yet marked clean: never retried, the file is given up. */
static bool fill_and_close(int fd, const struct iovec *parts, size_t n)
{
    bool ok = true;
    for (size_t i = 0; i < n && ok; i++) {
        ok = vae_write_all(fd, parts[i].iov_base, parts[i].iov_len);
    }
    ok = ok && fsync(fd) == 0;
    int kept = errno;
    if (close(fd) != 0 && ok) {
        return false;
    }
    errno = kept;
    return ok;
}

vae_status vae_file_replace(const char *path, const struct iovec *parts, size_t n, vae_error *err)
{
    char temp[VAE_RUN_PATH + 64];
    int fd = open_temp(path, temp, sizeof temp);
    if (fd < 0) {
        return vae_fail(err, VAE_ERR_IO, "%s: cannot write: %s", path, strerror(errno));
    }
    if (!fill_and_close(fd, parts, n) || rename(temp, path) != 0) {
        int kept = errno;
        unlink(temp);
        return vae_fail(err, VAE_ERR_IO, "%s: cannot write: %s; %s", path, strerror(kept),
                        kept == ENOSPC || kept == EDQUOT
                            ? "free some space and try again"
                            : "the file that was there before is untouched");
    }
    if (!sync_folder_of(path)) {
        return vae_fail(err, VAE_ERR_IO, "%s: written, but its folder cannot be synced: %s", path,
                        strerror(errno));
    }
    return VAE_OK;
}

vae_status vae_file_read(char **text, const char *path, size_t most, vae_error *err)
{
    *text = NULL;
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    struct stat info;
    if (fd < 0 || fstat(fd, &info) != 0) {
        vae_fail(err, VAE_ERR_IO, "%s: cannot open: %s", path, strerror(errno));
        if (fd >= 0) {
            close(fd);
        }
        return VAE_ERR_IO;
    }
    vae_status status = VAE_OK;
    size_t size = (size_t)info.st_size, done = 0;
    if (!S_ISREG(info.st_mode)) {
        status = vae_fail(err, VAE_ERR_IO, "%s: not a file", path);
    } else if (size > most) {
        status = vae_fail(err, VAE_ERR_DATA, "%s: %zu bytes; at most %zu are expected", path, size,
                          most);
    } else if ((*text = malloc(size + 1)) == NULL) {
        status = vae_fail_memory(err, size + 1, path);
    }
    while (status == VAE_OK && done < size) {
        ssize_t got = read(fd, *text + done, size - done);
        if (got < 0 && errno != EINTR) {
            status = vae_fail(err, VAE_ERR_IO, "%s: cannot read: %s", path, strerror(errno));
        } else if (got == 0) {
            size = done; /* it shrank */
        } else if (got > 0) {
            done += (size_t)got;
        }
    }
    close(fd);
    if (status == VAE_OK) {
        (*text)[done] = '\0';
    } else {
        free(*text);
        *text = NULL;
    }
    return status;
}
