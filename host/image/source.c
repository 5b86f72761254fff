/* The file that a picture is read from, and what every format checks. */
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/file.h"
#include "image/formats.h"

vae_status vae_picture_open(vae_picture_file *f, const char *path, vae_error *err)
{
    struct stat info;
    vae_status status = VAE_OK;
    f->path = path;
    /* O_NONBLOCK: a pipe without a writer must be refused, not waited for */
    const int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    if (fd < 0) {
        return vae_fail(err, VAE_ERR_IO, "%s: cannot open: %s", path, strerror(errno));
    }
    TRY(vae_file_inspect(&info, fd, path, err));
    f->bytes = (uint64_t)info.st_size;
    f->file = fdopen(fd, "rb");
    if (f->file == NULL) {
        TRY(errno == ENOMEM
                ? vae_fail_memory(err, BUFSIZ, path)
                : vae_fail(err, VAE_ERR_IO, "%s: cannot open: %s", path, strerror(errno)));
    }
done:
    if (f->file == NULL) {
        close(fd);
    }
    return status;
}

vae_status vae_picture_bytes(const vae_picture_file *f, void *to, size_t n, uint64_t offset,
                             size_t *got, vae_error *err)
{
    const ssize_t read = offset > f->bytes ? 0 : vae_read_at(fileno(f->file), to, n, offset);
    *got = read > 0 ? (size_t)read : 0;
    return read >= 0 ? VAE_OK
                     : vae_fail(err, VAE_ERR_IO, "%s: cannot read: %s", f->path, strerror(errno));
}

vae_status vae_picture_check_fit(const vae_picture_file *f, uint64_t width, uint64_t height,
                                 uint64_t needs, vae_error *err)
{
    if (needs <= f->bytes) {
        return VAE_OK;
    }
    return vae_fail(err, VAE_ERR_DATA,
                    "%s: header says %llu x %llu pixels, but %llu bytes cannot hold them", f->path,
                    (unsigned long long)width, (unsigned long long)height,
                    (unsigned long long)f->bytes);
}

vae_status vae_picture_check_sides(const vae_picture_file *f, uint64_t width, uint64_t height,
                                   vae_error *err)
{
    /* What is all of one colour is packed into some bytes, whatever its sides: a blank page, but
     * none of more pixels than these. Else no format packs more than a bit a pixel by deflate. */
    enum { BLANK = 1 << 26, A_BYTE = 8 * 1032 };
    const uint64_t pixels = width * height;
    if (width < 1 || width > VAE_PNG_SIDE || height < 1 || height > VAE_PNG_SIDE) {
        return vae_fail(err, VAE_ERR_DATA,
                        "%s: picture of %llu x %llu pixels: expected 1 to %d a side", f->path,
                        (unsigned long long)width, (unsigned long long)height, VAE_PNG_SIDE);
    }
    return vae_picture_check_fit(f, width, height, pixels > BLANK ? pixels / A_BYTE : 0, err);
}
