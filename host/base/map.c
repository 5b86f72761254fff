/* Files mapped read-only, and what is known of them when reading one fails. */
#include "base/map.h"

#include <errno.h>
#include <fcntl.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "base/file.h"
#include "base/text.h"

enum { KNOWN = 64, NAME = 512 };

struct vae_map {
    int fd;
    char *name;
    uint8_t *bytes;
    size_t size;
    struct timespec written;
    struct known *known; /* or NULL */
};

/* What a signal handler may look at: never freed, and `begin` is 0 while the others change. */
static struct known {
    _Atomic bool taken;
    _Atomic uintptr_t begin;
    _Atomic size_t size;
    _Atomic int fd;
    char name[NAME];
} all_known[KNOWN];

static void make_known(vae_map *m)
{
    for (size_t i = 0; i < KNOWN && m->known == NULL; i++) {
        bool free = false;
        if (atomic_compare_exchange_strong(&all_known[i].taken, &free, true)) {
            m->known = &all_known[i];
        }
    }
    if (m->known != NULL) {
        snprintf(m->known->name, NAME, "%s", m->name);
        vae_escape(m->known->name, NAME);
        m->known->fd = m->fd;
        m->known->size = m->size;
        m->known->begin = (uintptr_t)m->bytes;
    }
}

void vae_map_close(vae_map *m)
{
    if (m == NULL) {
        return;
    }
    if (m->known != NULL) {
        m->known->begin = 0;
        m->known->taken = false;
    }
    if (m->bytes != NULL) {
        munmap(m->bytes, m->size);
    }
    if (m->fd >= 0) {
        close(m->fd);
    }
    free(m->name);
    free(m);
}

/* Maps what m->fd is open for; *mappable: false where the file system cannot. */
static vae_status take_bytes(vae_map *m, bool *mappable, vae_error *err)
{
    struct stat info;
    vae_status status = VAE_OK;
    *mappable = true;
    TRY(vae_file_inspect(&info, m->fd, m->name, err));
    if ((uint64_t)info.st_size > SIZE_MAX / 2) {
        TRY(vae_fail(err, VAE_ERR_DATA, "%s: %llu bytes, more than this machine can address",
                     m->name, (unsigned long long)info.st_size));
    }
    m->size = (size_t)info.st_size;
    m->written = info.st_mtim;
    if (m->size == 0) {
        return VAE_OK;
    }
    void *bytes = mmap(NULL, m->size, PROT_READ, MAP_PRIVATE, m->fd, 0);
    if (bytes == MAP_FAILED) {
        *mappable = errno != ENODEV;
        TRY(vae_fail(err, VAE_ERR_RUNTIME, "%s: cannot map its %zu bytes: %s", m->name, m->size,
                     strerror(errno)));
    }
    m->bytes = bytes;
    make_known(m);
done:
    return status;
}

/* Takes fd over. */
static vae_status map_fd(vae_map **out, int fd, const char *name, bool *mappable, vae_error *err)
{
    vae_status status = VAE_OK;
    vae_map *m = calloc(1, sizeof *m);
    *mappable = true;
    if (m == NULL) {
        close(fd);
        return vae_fail_memory(err, sizeof *m, "a mapped file");
    }
    m->fd = fd;
    m->name = strdup(name);
    if (m->name == NULL) {
        TRY(vae_fail_memory(err, strlen(name), "a file's name"));
    }
    TRY(take_bytes(m, mappable, err));
    *out = m;
    m = NULL;
done:
    vae_map_close(m);
    return status;
}

vae_status vae_map_open(vae_map **out, const char *path, vae_error *err)
{
    bool mappable;
    *out = NULL;
    /* O_NONBLOCK: a pipe without a writer must be refused, not waited for. */
    const int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    if (fd < 0) {
        return vae_fail(err, VAE_ERR_IO, "%s: cannot open: %s", path, strerror(errno));
    }
    return map_fd(out, fd, path, &mappable, err);
}

vae_status vae_map_open_fd(vae_map **out, int fd, const char *name, vae_error *err)
{
    bool mappable;
    vae_error why = {0};
    *out = NULL;
    const int own = fcntl(fd, F_DUPFD_CLOEXEC, 0);
    if (own < 0) {
        return vae_fail(err, VAE_ERR_IO, "%s: cannot open: %s", name, strerror(errno));
    }
    const vae_status status = map_fd(out, own, name, &mappable, &why);
    return status == VAE_OK || !mappable ? VAE_OK : vae_fail(err, status, "%s", why.text);
}

const char *vae_map_name(const vae_map *m)
{
    return m->name;
}

const uint8_t *vae_map_bytes(const vae_map *m)
{
    return m->bytes;
}

size_t vae_map_size(const vae_map *m)
{
    return m->size;
}

vae_status vae_map_check(const vae_map *m, vae_error *err)
{
    struct stat info;
    if (fstat(m->fd, &info) != 0) {
        return vae_fail(err, VAE_ERR_IO, "%s: cannot inspect: %s", m->name, strerror(errno));
    }
    if ((uint64_t)info.st_size != m->size) {
        return vae_fail(err, VAE_ERR_IO,
                        "%s: has %llu bytes, but had %zu when it was opened: it was changed while "
                        "it was in use",
                        m->name, (unsigned long long)info.st_size, m->size);
    }
    return info.st_mtim.tv_sec == m->written.tv_sec && info.st_mtim.tv_nsec == m->written.tv_nsec
               ? VAE_OK
               : vae_fail(err, VAE_ERR_IO, "%s: was written to while it was in use", m->name);
}

/* ---- advice ---- */

static void advise(const vae_map *m, size_t offset, size_t n, int what)
{
    const size_t page = (size_t)sysconf(_SC_PAGESIZE), before = offset % page;
    if (m->bytes != NULL && offset < m->size) {
        n = n < m->size - offset ? n : m->size - offset;
        madvise(m->bytes + offset - before, n + before, what); /* advice: it may fail */
    }
}

void vae_map_in_order(const vae_map *m)
{
    advise(m, 0, m->size, MADV_SEQUENTIAL);
}

void vae_map_at_random(const vae_map *m)
{
    advise(m, 0, m->size, MADV_RANDOM);
}

void vae_map_fetch(const vae_map *m, size_t offset, size_t n)
{
    enum { AT_ONCE = 128 << 10 }; /* of more, some kernels fetch only the beginning */
    for (size_t i = 0; i < n; i += AT_ONCE) {
        advise(m, offset + i, n - i < AT_ONCE ? n - i : AT_ONCE, MADV_WILLNEED);
    }
}

bool vae_map_disk_was_read(uint64_t *seen)
{
    struct rusage usage;
    uint64_t before = *seen;
    if (getrusage(RUSAGE_SELF, &usage) == 0) {
        /* waited for, or fetched: some file systems count one, some the other */
        *seen = (uint64_t)usage.ru_majflt + (uint64_t)usage.ru_inblock;
    }
    return *seen > before;
}

void vae_map_drop(const vae_map *m, size_t offset, size_t n)
{
    advise(m, offset, n,
           MADV_DONTNEED); /* of a private map that nobody wrote: read anew if need be */
}

/* ---- blame ---- */

typedef struct {
    char text[NAME + 256];
    size_t n;
} line;

static void say(line *l, const char *text)
{
    for (; *text != '\0' && l->n < sizeof l->text; text++) {
        l->text[l->n++] = *text;
    }
}

static void say_number(line *l, uint64_t number)
{
    char digits[24];
    size_t at = sizeof digits;
    digits[--at] = '\0';
    do {
        digits[--at] = (char)('0' + number % 10);
        number /= 10;
    } while (number > 0);
    say(l, digits + at);
}

bool vae_map_blame(const void *address, int fd, const char *before)
{
    const uintptr_t at = (uintptr_t)address;
    for (size_t i = 0; i < KNOWN; i++) {
        const struct known *k = &all_known[i];
        const uintptr_t begin = k->begin;
        const size_t size = k->size;
        struct stat info;
        line l = {.n = 0};
        if (begin == 0 || at < begin || at - begin >= size) {
            continue;
        }
        say(&l, before);
        say(&l, k->name);
        if (fstat(k->fd, &info) == 0 && (uint64_t)info.st_size < size) {
            say(&l, ": was cut short while it was in use: it has ");
            say_number(&l, (uint64_t)info.st_size);
            say(&l, " bytes, and had ");
            say_number(&l, size);
        } else {
            say(&l, ": cannot read at offset ");
            say_number(&l, at - begin);
            say(&l, ": the disk, or the way to it, fails");
        }
        say(&l, "\n");
        (void)!write(fd, l.text, l.n);
        return true;
    }
    return false;
}
