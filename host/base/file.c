/* Files written and read whole. */
#include "base/file.h"

#include <assert.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

void vae_make_way(const char *path)
{
    struct stat info;
    if (lstat(path, &info) == 0 && !S_ISREG(info.st_mode) && !S_ISDIR(info.st_mode)) {
        unlink(path);
    }
}

static vae_status look_at(bool *there, struct stat *info, const char *path, vae_error *err)
{
    *there = stat(path, info) == 0;
    return *there || errno == ENOENT || errno == ENOTDIR
               ? VAE_OK
               : vae_fail(err, VAE_ERR_IO, "%s: cannot look at it: %s", path, strerror(errno));
}

vae_status vae_path_exists(bool *there, const char *path, vae_error *err)
{
    struct stat info;
    return look_at(there, &info, path, err);
}

vae_status vae_is_folder(bool *is, const char *path, vae_error *err)
{
    struct stat info;
    const vae_status status = look_at(is, &info, path, err);
    *is = *is && S_ISDIR(info.st_mode);
    return status;
}

void vae_names_free(char **names, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        free(names[i]);
    }
    free(names);
}

static int by_bytes(const void *a, const void *b)
{
    return strcmp(*(const char *const *)a, *(const char *const *)b);
}

static vae_status add_name(char ***names, size_t *n, const char *name, vae_error *err)
{
    if ((*n & (*n - 1)) == 0) { /* full: the room is the next power of two */
        char **more = realloc(*names, (*n > 0 ? 2 * *n : 1) * sizeof *more);
        if (more == NULL) {
            return vae_fail_memory(err, 2 * *n * sizeof *more, "names of files");
        }
        *names = more;
    }
    char *copy = strdup(name);
    if (copy == NULL) {
        return vae_fail_memory(err, strlen(name), "names of files");
    }
    (*names)[(*n)++] = copy;
    return VAE_OK;
}

vae_status vae_folder_names(char ***names, size_t *n, const char *path, vae_error *err)
{
    vae_status status = VAE_OK;
    *names = NULL;
    *n = 0;
    DIR *dir = opendir(path);
    if (dir == NULL && errno == ENOENT) {
        return VAE_OK;
    }
    if (dir == NULL) { /* opendir() allocates */
        return errno == ENOMEM
                   ? vae_fail(err, VAE_ERR_RUNTIME, "%s: out of memory for the folder", path)
                   : vae_fail(err, VAE_ERR_IO, "%s: cannot open: %s", path, strerror(errno));
    }
    for (const struct dirent *entry; errno = 0, (entry = readdir(dir)) != NULL;) {
        if (strcmp(entry->d_name, ".") != 0 && strcmp(entry->d_name, "..") != 0) {
            TRY(add_name(names, n, entry->d_name, err));
        }
    }
    if (errno != 0) {
        TRY(vae_fail(err, VAE_ERR_IO, "%s: cannot read the folder: %s", path, strerror(errno)));
    }
    if (*n > 0) {
        qsort(*names, *n, sizeof **names, by_bytes);
    }
done:
    closedir(dir);
    if (status != VAE_OK) {
        vae_names_free(*names, *n);
        *names = NULL;
        *n = 0;
    }
    return status;
}

ssize_t vae_read_at(int fd, void *to, size_t n, uint64_t offset)
{
    size_t done = 0;
    while (done < n) {
        const ssize_t got = pread(fd, (char *)to + done, n - done, (off_t)(offset + done));
        if (got < 0 && errno != EINTR) {
            return -1;
        }
        if (got == 0) {
            break;
        }
        done += got > 0 ? (size_t)got : 0;
    }
    return (ssize_t)done;
}

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
    char folder[VAE_PATH + 128];
    const char *slash = strrchr(path, '/');
    const int length = slash != NULL && slash != path ? (int)(slash - path) : 1;
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

vae_status vae_file_begin_new(vae_file *f, const char *path, vae_error *err)
{
    *f = (vae_file){.replaces = true, .name = path, .path = path};
    f->fd = open_temp(path, f->temp, sizeof f->temp);
    f->open = f->fd >= 0;
    return f->open ? VAE_OK
                   : vae_fail(err, VAE_ERR_IO, "%s: cannot write: %s", path, strerror(errno));
}

vae_status vae_file_begin(vae_file *f, const char *path, vae_error *err)
{
    struct stat info;
    bool there;
    vae_status status = VAE_OK;
    *f = (vae_file){.name = path, .path = path, .fd = -1};
    if (strcmp(path, "-") == 0) {
        f->name = "standard output";
        f->fd = dup(STDOUT_FILENO);
    } else {
        TRY(look_at(&there, &info, path, err)); /* it may be a device */
        if (!there || S_ISREG(info.st_mode)) {
            return vae_file_begin_new(f, path, err);
        }
        if (S_ISDIR(info.st_mode)) {
            TRY(vae_fail(err, VAE_ERR_IO, "%s: is a folder; name a file", path));
        }
        f->fd = open(path, O_WRONLY | O_CLOEXEC);
    }
    f->open = f->fd >= 0;
    if (!f->open) {
        TRY(vae_fail(err, VAE_ERR_IO, "%s: cannot write: %s", f->name, strerror(errno)));
    }
done:
    return status;
}

static vae_status write_failed(const vae_file *f, int reason, vae_error *err)
{
    const char *then = reason == ENOSPC || reason == EDQUOT
                           ? "; free some space and try again"
                           : "; the file that was there before is untouched";
    return vae_fail(err, VAE_ERR_IO, "%s: cannot write: %s%s", f->name, strerror(reason),
                    f->replaces ? then : "");
}

vae_status vae_file_expect(const vae_file *f, uint64_t bytes, vae_error *err)
{
    struct statvfs info;
    uint64_t room;
    /* a file system without blocks has no limit of its own */
    if (!f->replaces || fstatvfs(f->fd, &info) != 0 || info.f_blocks == 0 ||
        __builtin_mul_overflow((uint64_t)info.f_bavail, (uint64_t)info.f_frsize, &room) ||
        bytes <= room) {
        return VAE_OK;
    }
    return vae_fail(err, VAE_ERR_IO,
                    "%s: cannot write %llu bytes: %llu are free; free some space, or ask for less",
                    f->name, (unsigned long long)bytes, (unsigned long long)room);
}

vae_status vae_file_add(vae_file *f, const void *bytes, size_t n, vae_error *err)
{
    if (f->failed == 0 && !vae_write_all(f->fd, bytes, n)) {
        f->failed = errno;
    }
    return f->failed == 0 ? VAE_OK : write_failed(f, f->failed, err);
}

/* Writes out what is to be kept and closes; errno, or 0. After a failed fsync the pages may be lost
 * yet marked clean: never retried, the file is given up. */
static int close_file(vae_file *f, bool keep)
{
    int reason = keep ? f->failed : 0;
    if (reason == 0 && keep && f->replaces && !f->hasty && fsync(f->fd) != 0) {
        reason = errno;
    }
    if (close(f->fd) != 0 && reason == 0) {
        reason = errno;
    }
    f->open = false;
    return reason;
}

/* Puts the temp file in its place, and what was there, if anything, in the temp file's. Where a
 * file system cannot exchange two names, in two steps. */
static bool trade_places(const vae_file *f, bool *old)
{
    char aside[sizeof f->temp + 4];
    *old = renameat2(AT_FDCWD, f->temp, AT_FDCWD, f->path, RENAME_EXCHANGE) == 0;
    if (*old || errno == ENOENT) {
        return *old || rename(f->temp, f->path) == 0;
    }
    if (errno != EINVAL && errno != ENOSYS) {
        return false;
    }
    snprintf(aside, sizeof aside, "%s.old", f->temp);
    *old = rename(f->path, aside) == 0;
    if (!*old && errno != ENOENT) {
        return false;
    }
    if (rename(f->temp, f->path) != 0) {
        const int reason = errno;
        if (*old) {
            rename(aside, f->path);
        }
        errno = reason;
        return false;
    }
    return !*old || rename(aside, f->temp) == 0;
}

/* errno, or 0. One after the other; if one cannot (*at), those before it are taken back. */
static int place_all(vae_file *const *files, size_t n, size_t *at)
{
    bool old[VAE_FILES];
    for (*at = 0; *at < n; (*at)++) {
        const vae_file *f = files[*at];
        if (n == 1 ? rename(f->temp, f->path) != 0 : !trade_places(f, &old[*at])) {
            const int reason = errno;
            for (size_t i = *at; i-- > 0;) {
                if (old[i]) {
                    rename(files[i]->temp, files[i]->path);
                } else {
                    unlink(files[i]->path);
                }
            }
            return reason;
        }
    }
    return 0;
}

vae_status vae_files_end(vae_file *files, size_t n, bool keep, vae_error *err)
{
    assert(n <= VAE_FILES);
    vae_file *temps[VAE_FILES];
    size_t n_temps = 0, at;
    vae_status status = VAE_OK;
    for (size_t i = 0; i < n; i++) {
        vae_file *f = &files[i];
        if (f->open && f->replaces) {
            temps[n_temps++] = f;
        }
        const int reason = f->open ? close_file(f, keep) : 0;
        if (reason != 0 && status == VAE_OK) {
            status = write_failed(f, reason, err);
        }
    }
    if (keep && status == VAE_OK) {
        const int reason = place_all(temps, n_temps, &at);
        status = reason != 0 ? write_failed(temps[at], reason, err) : VAE_OK;
    }
    for (size_t i = 0; i < n_temps; i++) {
        unlink(temps[i]->temp); /* what was not kept, or was there before */
    }
    for (size_t i = 0; i < n_temps && keep && status == VAE_OK; i++) {
        if (!temps[i]->hasty && !sync_folder_of(temps[i]->path)) {
            status = vae_fail(err, VAE_ERR_IO, "%s: written, but its folder cannot be synced: %s",
                              temps[i]->path, strerror(errno));
        }
    }
    return status;
}

vae_status vae_file_end(vae_file *f, bool keep, vae_error *err)
{
    return vae_files_end(f, 1, keep, err);
}

static vae_status fill_and_end(vae_file *f, const struct iovec *parts, size_t n, vae_error *err)
{
    vae_status status = VAE_OK;
    for (size_t i = 0; i < n; i++) {
        TRY(vae_file_add(f, parts[i].iov_base, parts[i].iov_len, err));
    }
    return vae_file_end(f, true, err);
done:
    vae_file_end(f, false, err);
    return status;
}

vae_status vae_file_replace(const char *path, const struct iovec *parts, size_t n, vae_error *err)
{
    vae_file f;
    vae_status status = vae_file_begin_new(&f, path, err);
    return status == VAE_OK ? fill_and_end(&f, parts, n, err) : status;
}

vae_status vae_file_put(const char *path, const struct iovec *parts, size_t n, vae_error *err)
{
    vae_file f;
    vae_status status = vae_file_begin(&f, path, err);
    return status == VAE_OK ? fill_and_end(&f, parts, n, err) : status;
}

vae_status vae_file_inspect(struct stat *info, int fd, const char *name, vae_error *err)
{
    if (fstat(fd, info) != 0) {
        return vae_fail(err, VAE_ERR_IO, "%s: cannot inspect: %s", name, strerror(errno));
    }
    return S_ISREG(info->st_mode)
               ? VAE_OK
               : vae_fail(err, VAE_ERR_DATA, "%s: is %s; expected a file", name,
                          S_ISDIR(info->st_mode) ? "a folder" : "not a regular file");
}

vae_status vae_file_bytes(char **out, size_t *n_out, const char *path, size_t most, vae_error *err)
{
    vae_status status = VAE_OK;
    char *bytes = NULL;
    struct stat info;
    *out = NULL;
    *n_out = 0;
    /* not blocking: opening a FIFO would wait for a writer */
    const int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    if (fd < 0 || fstat(fd, &info) != 0) {
        TRY(vae_fail(err, VAE_ERR_IO, "%s: cannot open: %s", path, strerror(errno)));
    }
    if (!S_ISREG(info.st_mode)) {
        TRY(vae_fail(err, VAE_ERR_DATA, "%s: %s; expected a file", path,
                     S_ISDIR(info.st_mode) ? "a folder" : "a pipe or a device"));
    }
    size_t size = (size_t)info.st_size, n = 0;
    if (size > most) {
        TRY(vae_fail(err, VAE_ERR_DATA, "%s: %zu bytes; at most %zu are expected", path, size,
                     most));
    }
    bytes = malloc(size + 1);
    if (bytes == NULL) {
        TRY(vae_fail_memory(err, size + 1, path));
    }
    while (n < size) {
        const ssize_t got = read(fd, bytes + n, size - n);
        if (got < 0 && errno != EINTR) {
            TRY(vae_fail(err, VAE_ERR_IO, "%s: cannot read: %s", path, strerror(errno)));
        }
        size = got == 0 ? n : size; /* it shrank */
        n += got > 0 ? (size_t)got : 0;
    }
    bytes[n] = '\0';
    *out = bytes;
    *n_out = n;
    bytes = NULL;
done:
    free(bytes);
    if (fd >= 0) {
        close(fd);
    }
    return status;
}

vae_status vae_file_read(char **text, const char *path, size_t most, vae_error *err)
{
    size_t n;
    return vae_file_bytes(text, &n, path, most, err);
}
