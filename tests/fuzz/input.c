/* Inputs as files, and what is asked of whatever reads them. */
#include "input.h"

#include <fcntl.h>
#include <ftw.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

const char *__asan_default_options(void);
const char *__ubsan_default_options(void);

/* Freed memory is watched within an input, not for 256 MB: that is twice as fast. A finding can be
 * run again with ASAN_OPTIONS=malloc_context_size=30. */
const char *__asan_default_options(void)
{
    return "quarantine_size_mb=1:malloc_context_size=3:max_malloc_fill_size=64:"
           "allocator_may_return_null=1:detect_leaks=1";
}

const char *__ubsan_default_options(void)
{
    return "print_stacktrace=1";
}

/* No threads: they would only make an input slower and a finding harder to repeat. */
__attribute__((constructor)) static void run_alone(void)
{
    setenv("OMP_NUM_THREADS", "1", 1);
}

void fuzz_must(bool holds)
{
    if (!holds) {
        abort();
    }
}

bool fuzz_judge(vae_status status, const vae_error *err)
{
    fuzz_must(status == err->status && (status == VAE_OK) == (err->text[0] == '\0'));
    fuzz_must(status == VAE_OK || status == VAE_ERR_RUNTIME || status == VAE_ERR_USAGE ||
              status == VAE_ERR_DATA || status == VAE_ERR_IO);
    for (const char *c = err->text; *c != '\0'; c++) {
        fuzz_must((unsigned char)*c >= ' ' && *c != 0x7f);
    }
    return status == VAE_OK;
}

static char folder[64];
static int file = -1;

static int remove_one(const char *path, const struct stat *info, int kind, struct FTW *where)
{
    (void)info;
    (void)kind;
    (void)where;
    return remove(path);
}

static void remove_folder(void)
{
    nftw(folder, remove_one, 8, FTW_DEPTH | FTW_PHYS);
}

const char *fuzz_folder(void)
{
    if (folder[0] == '\0') {
        snprintf(folder, sizeof folder, "%s/vae-fuzz-XXXXXX",
                 access("/dev/shm", W_OK) == 0 ? "/dev/shm" : "/tmp");
        fuzz_must(mkdtemp(folder) != NULL);
        atexit(remove_folder);
    }
    return folder;
}

static void fill(int fd, const void *bytes, size_t n)
{
    fuzz_must(fd >= 0 && pwrite(fd, bytes, n, 0) == (ssize_t)n && ftruncate(fd, (off_t)n) == 0);
}

int fuzz_fd(const uint8_t *data, size_t size)
{
    if (file < 0) {
        file = memfd_create("fuzz", MFD_CLOEXEC);
    }
    fill(file, data, size);
    const int fd = dup(file); /* with one offset for both */
    fuzz_must(fd >= 0 && lseek(fd, 0, SEEK_SET) == 0);
    return fd;
}

const char *fuzz_file(const uint8_t *data, size_t size, const char *ending)
{
    static char path[96];
    char target[64];
    close(fuzz_fd(data, size));
    snprintf(path, sizeof path, "%s/input%s", fuzz_folder(), ending);
    if (access(path, F_OK) != 0) {
        snprintf(target, sizeof target, "/proc/self/fd/%d", file);
        fuzz_must(symlink(target, path) == 0);
    }
    return path;
}

const char *fuzz_write(const char *name, const void *bytes, size_t n)
{
    static char path[96];
    snprintf(path, sizeof path, "%s/%s", fuzz_folder(), name);
    const int fd = open(path, O_WRONLY | O_CREAT | O_CLOEXEC, 0600);
    fill(fd, bytes, n);
    close(fd);
    return path;
}

char *fuzz_text(const uint8_t *data, size_t size)
{
    char *text = malloc(size + 1);
    fuzz_must(text != NULL);
    memcpy(text, size > 0 ? (const void *)data : "", size);
    text[size] = '\0';
    return text;
}
