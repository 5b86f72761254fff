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

/* Opens a file for reading; *file is the caller's to close where *fd is not -1. */
static vae_status open_source(vae_checkpoint_source *source, file_source *file, const char *path,
                              vae_error *err)
{
    struct stat info;
    /* not blocking: opening a FIFO would wait for a writer */
    *file = (file_source){open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK), path};
    if (file->fd < 0) {
        return vae_fail(err, VAE_ERR_IO, "%s: cannot open: %s", path, strerror(errno));
    }
    if (fstat(file->fd, &info) != 0) {
        return vae_fail(err, VAE_ERR_IO, "%s: cannot read: %s", path, strerror(errno));
    }
    if (!S_ISREG(info.st_mode)) {
        return vae_fail(err, VAE_ERR_DATA, "%s: %s, expected a checkpoint file", path,
                        S_ISDIR(info.st_mode) ? "a folder" : "not a regular file");
    }
    *source = (vae_checkpoint_source){file, (uint64_t)info.st_size, path, read_file};
    return VAE_OK;
}

static void close_source(file_source *file)
{
    if (file->fd >= 0) {
        close(file->fd);
    }
}

vae_status vae_checkpoint_read(vae_checkpoint **out, const char *path, bool moments, vae_error *err)
{
    vae_checkpoint_source source;
    file_source file;
    vae_status status = VAE_OK;
    *out = NULL;
    TRY(open_source(&source, &file, path, err));
    TRY(vae_checkpoint_parse(out, &source, moments, err));
done:
    close_source(&file);
    return status;
}

static bool is_whole(const char *path)
{
    vae_checkpoint_source source;
    file_source file;
    vae_error ignored = {0};
    const bool whole = open_source(&source, &file, path, &ignored) == VAE_OK &&
                       vae_checkpoint_peek(&source, &ignored) == VAE_OK;
    close_source(&file);
    return whole;
}

void vae_checkpoint_rotate(const char *run, uint64_t step, size_t keep)
{
    char **names;
    size_t n, whole = 0;
    vae_error ignored = {0};
    if (vae_run_list(&names, &n, run, &ignored) != VAE_OK) {
        return;
    }
    for (size_t i = 0; i < n; i++) {
        char path[VAE_RUN_PATH + 64];
        const int length = snprintf(path, sizeof path, "%s/checkpoints/%s", run, names[i]);
        if ((size_t)length < sizeof path && vae_run_step_of(names[i]) <= step && is_whole(path) &&
            ++whole > keep) {
            unlink(path);
        }
    }
    vae_run_list_free(names, n);
}

/* The newest good one of n names. VAE_ERR_DATA: none is good; another error: the first that is not
 * about a file's content. *gone: it is that a file is there no more, as a training run beside us
 * removes old ones. */
static vae_status open_newest(vae_checkpoint **out, const char *run, char *const *names, size_t n,
                              bool moments, char path[VAE_PATH], bool *gone, vae_error *err)
{
    vae_error first = {0};
    *gone = false;
    vae_fail(&first, VAE_ERR_DATA, "%s: no checkpoints here (checkpoints/step-*.vae)", run);
    for (size_t i = 0; i < n; i++) {
        vae_error why = {0};
        if (snprintf(path, VAE_PATH, "%s/checkpoints/%s", run, names[i]) >= VAE_PATH) {
            return vae_fail(err, VAE_ERR_USAGE, "%s: the path is too long", run);
        }
        if (vae_checkpoint_read(out, path, moments, &why) == VAE_OK) {
            return VAE_OK;
        }
        if (why.status != VAE_ERR_DATA) {
            bool there = true;
            *gone = vae_path_exists(&there, path, NULL) == VAE_OK && !there;
            return vae_fail(err, why.status, "%s", why.text);
        }
        vae_note(err != NULL ? err->notes : NULL, "warning: %s%s", why.text,
                 i + 1 < n ? "; taking the checkpoint before it" : "");
        first = i == 0 ? why : first;
    }
    return vae_fail(err, first.status, "%s", first.text);
}

vae_status vae_checkpoint_open_run(vae_checkpoint **out, const char *run, bool best, bool moments,
                                   char path[VAE_PATH], vae_error *err)
{
    enum { TRIES = 10 };
    struct stat info;
    char **names = NULL;
    size_t n = 0;
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
    vae_status status = VAE_OK;
    bool gone = true;
    vae_error why = {0};
    for (int i = 0; i < TRIES && gone; i++) {
        why = (vae_error){.notes = err != NULL ? err->notes : NULL};
        TRY(vae_run_list(&names, &n, run, err));
        status = open_newest(out, run, names, n, moments, path, &gone, &why);
        vae_run_list_free(names, n);
    }
    if (status != VAE_OK) {
        vae_fail(err, status, "%s", why.text);
    }
done:
    return status;
}
