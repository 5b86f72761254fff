/* Checkpoints in files and run folders; the bytes are checkpoint_read.c's. */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/file.h"
#include "run/checkpoint_format.h"
#include "run/folder.h"

typedef struct {
    int fd;
    const char *path;
} file_source;

static vae_status read_file(void *ctx, void *to, uint64_t offset, size_t n, vae_error *err)
{
    const file_source *file = ctx;
    const ssize_t got = vae_read_at(file->fd, to, n, offset);
    if (got < 0) {
        return vae_fail(err, VAE_ERR_IO, "%s: cannot read: %s", file->path, strerror(errno));
    }
    return (size_t)got == n
               ? VAE_OK
               : vae_fail(err, VAE_ERR_DATA, "%s: it shrank while it was read", file->path);
}

vae_status vae_checkpoint_read(vae_checkpoint **out, const char *path, bool moments, vae_error *err)
{
    *out = NULL;
    /* not blocking: opening a FIFO would wait for a writer */
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    struct stat info;
    vae_status status = VAE_OK;
    if (fd < 0) {
        return vae_fail(err, VAE_ERR_IO, "%s: cannot open: %s", path, strerror(errno));
    }
    if (fstat(fd, &info) != 0) {
        TRY(vae_fail(err, VAE_ERR_IO, "%s: cannot read: %s", path, strerror(errno)));
    }
    if (!S_ISREG(info.st_mode)) {
        TRY(vae_fail(err, VAE_ERR_DATA, "%s: %s, expected a checkpoint file", path,
                     S_ISDIR(info.st_mode) ? "a folder" : "not a regular file"));
    }
    file_source file = {fd, path};
    const vae_checkpoint_source source = {&file, (uint64_t)info.st_size, path, read_file};
    TRY(vae_checkpoint_parse(out, &source, moments, err));
done:
    close(fd);
    return status;
}

vae_status vae_checkpoint_open_run(vae_checkpoint **out, const char *run, bool best, bool moments,
                                   char path[VAE_PATH], vae_error *err)
{
    struct stat info;
    char **names = NULL;
    size_t n = 0;
    vae_error first = {0};
    vae_status status = VAE_OK;
    *out = NULL;
    if (stat(run, &info) != 0) {
        return vae_fail(err, VAE_ERR_IO, "%s: cannot open: %s", run, strerror(errno));
    }
    if (!S_ISDIR(info.st_mode)) {
        snprintf(path, VAE_PATH, "%s", run);
        return vae_checkpoint_read(out, run, moments, err);
    }
    if (best) {
        if (snprintf(path, VAE_PATH, "%s/checkpoints/best.vae", run) >= VAE_PATH) {
            return vae_fail(err, VAE_ERR_USAGE, "%s: the path is too long", run);
        }
        return vae_checkpoint_read(out, path, moments, err);
    }
    TRY(vae_run_list(&names, &n, run, err));
    vae_fail(&first, VAE_ERR_DATA, "%s: no checkpoints here (checkpoints/step-*.vae)", run);
    for (size_t i = 0; i < n && *out == NULL; i++) {
        vae_error why = {0};
        if (snprintf(path, VAE_PATH, "%s/checkpoints/%s", run, names[i]) < VAE_PATH &&
            vae_checkpoint_read(out, path, moments, &why) != VAE_OK) {
            vae_note(err != NULL ? err->notes : NULL, "warning: %s%s", why.text,
                     i + 1 < n ? "; taking the checkpoint before it" : "");
            if (i == 0) {
                first = why;
            }
        }
    }
    if (*out == NULL) {
        TRY(vae_fail(err, first.status, "%s", first.text));
    }
done:
    vae_run_list_free(names, n);
    return status;
}
