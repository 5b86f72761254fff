/* Reading NPZ. npz_write.c writes. */
#include "format/npz.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include <zip.h>

#include "base/half.h"
#include "base/text.h"

enum {
    DEFLATE_MAX_RATIO = 1032, /* zlib's documentation */
    CHUNK_ITEMS = 4096,
    MOST_AT_ONCE = 1 << 30, /* bytes */
};

/* ---- opening ---- */

/* Whose fault an error of libzip's is: memory's, the disk's, or the archive's. */
static vae_status blame(int code)
{
    switch (code) {
    case ZIP_ER_MEMORY:
        return VAE_ERR_RUNTIME;
    case ZIP_ER_OPEN:
    case ZIP_ER_READ:
    case ZIP_ER_SEEK:
        return VAE_ERR_IO;
    default:
        return VAE_ERR_DATA;
    }
}

/* In words; libzip's are "Malloc failure". */
static const char *reason(int code, const char *words)
{
    return code == ZIP_ER_MEMORY ? "out of memory" : words;
}

static vae_status fail_zip(const char *path, int code, vae_error *err)
{
    zip_error_t why;
    if (code == ZIP_ER_OPEN && errno == ENOMEM) { /* of fdopen() */
        code = ZIP_ER_MEMORY;
    }
    zip_error_init_with_code(&why, code);
    const vae_status status = blame(code);
    if (status == VAE_ERR_DATA) {
        vae_fail(err, status,
                 "%s: not a sound npz (zip) archive: %s; save it again with numpy.savez", path,
                 zip_error_strerror(&why));
    } else {
        vae_fail(err, status, "%s: cannot read: %s", path, reason(code, zip_error_strerror(&why)));
    }
    zip_error_fini(&why);
    return status;
}

static vae_status fail_file(zip_file_t *file, vae_error *err)
{
    const int code = zip_error_code_zip(zip_file_get_error(file));
    return vae_fail(err, blame(code), "%s", reason(code, zip_file_strerror(file)));
}

/* The header of member `index`, from its first bytes. The rest of it is not read. */
static vae_status read_header(zip_t *zip, const zip_stat_t *stat, npy_header *header,
                              vae_error *err)
{
    uint8_t prefix[VAE_NPY_PREFIX], *bytes = NULL;
    zip_file_t *file = zip_fopen_index(zip, stat->index, 0);
    if (file == NULL) {
        const int code = zip_error_code_zip(zip_get_error(zip));
        return vae_fail(err, blame(code), "%s", reason(code, zip_strerror(zip)));
    }
    vae_status status = VAE_OK;
    size_t size = 0;
    const zip_int64_t got = zip_fread(file, prefix, sizeof prefix);
    if (got < 0) {
        TRY(fail_file(file, err));
    }
    TRY(vae_npy_header_size(prefix, (size_t)got, &size, err));
    if (size < (size_t)got || (uint64_t)size > stat->size) {
        TRY(vae_fail(err, VAE_ERR_DATA, "npy header: says %zu bytes, the member has %llu", size,
                     (unsigned long long)stat->size));
    }
    bytes = malloc(size);
    if (bytes == NULL) {
        TRY(vae_fail_memory(err, size, "an npy header"));
    }
    memcpy(bytes, prefix, (size_t)got);
    const zip_int64_t rest = zip_fread(file, bytes + got, size - (size_t)got);
    if (rest < 0) {
        TRY(fail_file(file, err));
    }
    const zip_int64_t all = got + rest;
    if ((size_t)all < size) {
        TRY(vae_fail(err, VAE_ERR_DATA, "npy header: expected %zu bytes, found %lld", size,
                     (long long)all));
    }
    TRY(vae_npy_parse_header(bytes, size, header, err));
done:
    free(bytes);
    zip_fclose(file);
    return status;
}

/* A member's size must be what its header says and what its packed bytes can hold. */
static vae_status check_sizes(const zip_stat_t *stat, const npy_header *header, vae_error *err)
{
    uint64_t data = (uint64_t)header->n_items * header->item_bytes;
    if (stat->size - header->header_bytes != data) {
        return vae_fail(err, VAE_ERR_DATA, "header says %llu bytes, %llu remain",
                        (unsigned long long)data,
                        (unsigned long long)(stat->size - header->header_bytes));
    }
    if (stat->comp_size < UINT64_MAX / DEFLATE_MAX_RATIO &&
        stat->size > stat->comp_size * DEFLATE_MAX_RATIO) {
        return vae_fail(err, VAE_ERR_DATA,
                        "declares %llu bytes, but its %llu packed bytes cannot hold so many",
                        (unsigned long long)stat->size, (unsigned long long)stat->comp_size);
    }
    return VAE_OK;
}

/* Archives made on a Mac have a ._x.npy beside x.npy, which is no array. */
static bool is_array(const char *name)
{
    const char *slash = strrchr(name, '/'), *base = slash != NULL ? slash + 1 : name;
    return vae_ends_with(name, ".npy") && strncmp(base, "._", 2) != 0 &&
           strncmp(name, "__MACOSX/", 9) != 0;
}

static vae_npz_member *find(const vae_npz *npz, const char *name)
{
    for (size_t i = 0; i < npz->n; i++) {
        if (strcmp(npz->members[i].name, name) == 0) {
            return &npz->members[i];
        }
    }
    return NULL;
}

static vae_status set_fault(vae_npz_member *m, const char *why, vae_error *err)
{
    m->header = (npy_header){.ndim = 0};
    m->fault = strdup(why);
    return m->fault != NULL ? VAE_OK : vae_fail_memory(err, strlen(why), "a message");
}

static vae_status read_member(vae_npz *npz, zip_uint64_t index, vae_error *err)
{
    zip_stat_t stat;
    const zip_uint64_t want =
        ZIP_STAT_NAME | ZIP_STAT_SIZE | ZIP_STAT_COMP_SIZE | ZIP_STAT_ENCRYPTION_METHOD;
    if (zip_stat_index(npz->zip, index, 0, &stat) != 0 || (stat.valid & want) != want) {
        return vae_fail(err, VAE_ERR_DATA, "%s: member %llu cannot be read", npz->path,
                        (unsigned long long)index);
    }
    if (!is_array(stat.name)) {
        return VAE_OK;
    }
    vae_npz_member *m = &npz->members[npz->n];
    snprintf(m->name, sizeof m->name, "%.*s", (int)strlen(stat.name) - 4, stat.name);
    m->index = index;
    vae_npz_member *twin = find(npz, m->name);
    vae_error why = {0};
    vae_status status = VAE_OK;
    if (twin != NULL) {
        free(twin->fault);
        return set_fault(twin, "is there twice", err);
    }
    npz->n++;
    if (strlen(stat.name) - 4 >= sizeof m->name) {
        TRY(vae_fail(&why, VAE_ERR_DATA, "its name is longer than %zu bytes", sizeof m->name - 1));
    }
    if (stat.encryption_method != ZIP_EM_NONE) {
        TRY(vae_fail(&why, VAE_ERR_DATA, "is encrypted"));
    }
    TRY(read_header(npz->zip, &stat, &m->header, &why));
    TRY(check_sizes(&stat, &m->header, &why));
done:
    if (status == VAE_ERR_DATA) {
        return set_fault(m, why.text, err);
    }
    return status == VAE_OK ? VAE_OK : vae_fail(err, status, "%s: %s", npz->path, why.text);
}

static vae_status read_directory(vae_npz *npz, vae_error *err)
{
    zip_int64_t n = zip_get_num_entries(npz->zip, 0);
    if (n <= 0 || n > VAE_NPZ_MAX_MEMBERS) {
        return vae_fail(err, VAE_ERR_DATA, "%s: expected 1 to %d arrays, found %lld", npz->path,
                        VAE_NPZ_MAX_MEMBERS, (long long)n);
    }
    npz->members = calloc((size_t)n, sizeof *npz->members);
    if (npz->members == NULL) {
        return vae_fail_memory(err, (size_t)n * sizeof *npz->members, "a table of arrays");
    }
    vae_status status = VAE_OK;
    for (zip_int64_t i = 0; i < n && status == VAE_OK; i++) {
        status = read_member(npz, (zip_uint64_t)i, err);
    }
    return status;
}

vae_status vae_npz_open_fd(vae_npz *out, int fd, const char *name, vae_error *err)
{
    vae_status status = VAE_OK;
    int code, own = fcntl(fd, F_DUPFD_CLOEXEC, 0);
    *out = (vae_npz){.path = strdup(name)};
    if (out->path == NULL) {
        TRY(vae_fail_memory(err, strlen(name), "a file name"));
    }
    if (own < 0 || lseek(own, 0, SEEK_SET) != 0) {
        TRY(vae_fail(err, VAE_ERR_IO, "%s: cannot read: %s", name, strerror(errno)));
    }
    out->zip = zip_fdopen(own, ZIP_CHECKCONS, &code);
    if (out->zip == NULL && blame(code) == VAE_ERR_DATA && lseek(own, 0, SEEK_SET) == 0) {
        /* libzip (1.7.3) calls an archive none when it has no memory for an entry: once more */
        out->zip = zip_fdopen(own, ZIP_CHECKCONS, &code);
    }
    if (out->zip == NULL) {
        TRY(fail_zip(name, code, err));
    }
    own = -1; /* the archive's now */
    TRY(read_directory(out, err));
done:
    if (own >= 0) {
        close(own);
    }
    if (status != VAE_OK) {
        vae_npz_close(out);
    }
    return status;
}

vae_status vae_npz_open(vae_npz *out, const char *path, vae_error *err)
{
    *out = (vae_npz){0};
    struct stat info;
    /* O_NONBLOCK: a pipe without a writer must be refused, not waited for. */
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    if (fd < 0) {
        return vae_fail(err, VAE_ERR_IO, "%s: cannot open: %s", path, strerror(errno));
    }
    vae_status status = VAE_OK;
    if (fstat(fd, &info) != 0) {
        TRY(vae_fail(err, VAE_ERR_IO, "%s: cannot read: %s", path, strerror(errno)));
    }
    if (!S_ISREG(info.st_mode)) {
        TRY(vae_fail(err, VAE_ERR_DATA, "%s: not a regular file; expected an npz file", path));
    }
    TRY(vae_npz_open_fd(out, fd, path, err));
done:
    close(fd);
    return status;
}

void vae_npz_close(vae_npz *npz)
{
    if (npz->zip != NULL) {
        zip_discard(npz->zip);
    }
    for (size_t i = 0; i < npz->n; i++) {
        free(npz->members[i].fault);
    }
    free(npz->members);
    free(npz->path);
    *npz = (vae_npz){0};
}

const vae_npz_member *vae_npz_find(const vae_npz *npz, const char *name)
{
    return find(npz, name);
}

const char *vae_npz_names(const vae_npz *npz, char text[VAE_NPZ_NAMES])
{
    size_t used = 0;
    text[0] = '\0';
    for (size_t i = 0; i < npz->n; i++) {
        const char *name = npz->members[i].name;
        if (used + strlen(name) + sizeof ", ... and 4096 more" >= VAE_NPZ_NAMES) {
            snprintf(text + used, VAE_NPZ_NAMES - used, ", ... and %zu more", npz->n - i);
            return text;
        }
        used +=
            (size_t)snprintf(text + used, VAE_NPZ_NAMES - used, "%s%s", i > 0 ? ", " : "", name);
    }
    return text;
}

/* ---- data ---- */

static vae_status fail_data(const vae_npz *npz, const vae_npz_member *m, const char *why,
                            vae_error *err)
{
    return vae_fail(err, VAE_ERR_DATA, "%s: %.100s.npy: %s; get the file again", npz->path, m->name,
                    why);
}

vae_status vae_npz_check(const vae_npz *npz, const vae_npz_member *m, vae_error *err)
{
    return m->fault == NULL
               ? VAE_OK
               : vae_fail(err, VAE_ERR_DATA, "%s: %.100s.npy: %s", npz->path, m->name, m->fault);
}

/* After a failed call on an open member. */
static vae_status fail_read(const vae_npz *npz, const vae_npz_member *m, zip_file_t *file,
                            vae_error *err)
{
    vae_error why = {0};
    const vae_status status = fail_file(file, &why);
    return status == VAE_ERR_DATA ? fail_data(npz, m, why.text, err)
                                  : vae_fail(err, status, "%s: %.100s.npy: cannot read: %s",
                                             npz->path, m->name, why.text);
}

/* Reads exactly n bytes of an open member, in pieces: libzip hands zlib no more than 2^32 - 1. */
static vae_status read_exact(const vae_npz *npz, const vae_npz_member *m, zip_file_t *file,
                             void *to, size_t n, vae_error *err)
{
    for (size_t done = 0; done < n;) {
        const size_t piece = n - done < MOST_AT_ONCE ? n - done : MOST_AT_ONCE;
        const zip_int64_t got = zip_fread(file, (char *)to + done, piece);
        if (got <= 0) {
            return got < 0 ? fail_read(npz, m, file, err)
                           : fail_data(npz, m, "its data is cut short", err);
        }
        done += (size_t)got;
    }
    return VAE_OK;
}

/* libzip compares the CRC when it meets the end. */
static vae_status expect_end(const vae_npz *npz, const vae_npz_member *m, zip_file_t *file,
                             vae_error *err)
{
    char extra;
    const zip_int64_t got = zip_fread(file, &extra, 1);
    if (got < 0) {
        return fail_read(npz, m, file, err);
    }
    return got == 0 ? VAE_OK : fail_data(npz, m, "it goes on past its end", err);
}

/* At its data. *file is to be closed (close_member) in any case. */
static vae_status open_member(const vae_npz *npz, const vae_npz_member *m, zip_file_t **file,
                              vae_error *err)
{
    uint8_t skipped[512];
    vae_status status = VAE_OK;
    *file = NULL;
    TRY(vae_npz_check(npz, m, err));
    *file = zip_fopen_index(npz->zip, m->index, 0);
    if (*file == NULL) {
        const int code = zip_error_code_zip(zip_get_error(npz->zip));
        TRY(blame(code) == VAE_ERR_DATA
                ? fail_data(npz, m, zip_strerror(npz->zip), err)
                : vae_fail(err, blame(code), "%s: %.100s.npy: cannot read: %s", npz->path, m->name,
                           reason(code, zip_strerror(npz->zip))));
    }
    for (size_t left = m->header.header_bytes, n; left > 0; left -= n) {
        n = left < sizeof skipped ? left : sizeof skipped;
        TRY(read_exact(npz, m, *file, skipped, n, err));
    }
done:
    return status;
}

static void close_member(zip_file_t *file)
{
    if (file != NULL) {
        zip_fclose(file);
    }
}

vae_status vae_npz_read(const vae_npz *npz, const vae_npz_member *member, void *data,
                        vae_error *err)
{
    const size_t n = member->header.n_items * member->header.item_bytes;
    vae_status status = VAE_OK;
    zip_file_t *file;
    TRY(open_member(npz, member, &file, err));
    TRY(read_exact(npz, member, file, data, n, err));
    TRY(expect_end(npz, member, file, err));
done:
    close_member(file);
    return status;
}

static void widen(float *to, const uint8_t *from, size_t n, size_t item_bytes)
{
    for (size_t i = 0; i < n; i++) {
        double wide;
        uint16_t half;
        switch (item_bytes) {
        case 8:
            memcpy(&wide, from + 8 * i, sizeof wide);
            to[i] = (float)wide;
            break;
        case 2:
            memcpy(&half, from + 2 * i, sizeof half);
            to[i] = vae_half_to_float(half);
            break;
        default:
            memcpy(&to[i], from + 4 * i, sizeof *to);
        }
    }
}

vae_status vae_npz_read_chunks(const vae_npz *npz, const vae_npz_member *member,
                               vae_npz_chunk_fn *fn, void *ctx, vae_error *err)
{
    const npy_header *h = &member->header;
    uint8_t chunk[CHUNK_ITEMS * 8];
    vae_status status = VAE_OK;
    zip_file_t *file = NULL;
    if (h->item_bytes > sizeof chunk / CHUNK_ITEMS) {
        TRY(vae_fail(err, VAE_ERR_DATA, "%s: %.100s.npy: type %s: expected numbers", npz->path,
                     member->name, h->descr));
    }
    TRY(open_member(npz, member, &file, err));
    for (size_t i = 0, n; i < h->n_items; i += n) {
        n = h->n_items - i < CHUNK_ITEMS ? h->n_items - i : CHUNK_ITEMS;
        TRY(read_exact(npz, member, file, chunk, n * h->item_bytes, err));
        TRY(fn(ctx, chunk, n, err));
    }
    TRY(expect_end(npz, member, file, err));
done:
    close_member(file);
    return status;
}

/* Floats in the making. */
typedef struct {
    float *to;
    size_t item_bytes;
} widening;

static vae_status widen_chunk(void *ctx, const uint8_t *items, size_t n, vae_error *err)
{
    widening *w = ctx;
    (void)err;
    widen(w->to, items, n, w->item_bytes);
    w->to += n;
    return VAE_OK;
}

vae_status vae_npz_read_floats(const vae_npz *npz, const vae_npz_member *member, float *values,
                               vae_error *err)
{
    const npy_header *h = &member->header;
    if (member->fault != NULL) {
        return vae_npz_check(npz, member, err);
    }
    if (strcmp(h->descr, "<f4") != 0 && strcmp(h->descr, "<f8") != 0 &&
        strcmp(h->descr, "<f2") != 0) {
        return vae_fail(err, VAE_ERR_DATA,
                        "%s: %.100s.npy: expected type <f4, <f8 or <f2, found %s; save "
                        "array.astype('float32')",
                        npz->path, member->name, h->descr);
    }
    if (h->fortran_order && h->ndim > 1) {
        return vae_fail(err, VAE_ERR_DATA,
                        "%s: %.100s.npy: is in Fortran order; expected C order: save "
                        "numpy.ascontiguousarray(array)",
                        npz->path, member->name);
    }
    widening w = {values, h->item_bytes};
    return vae_npz_read_chunks(npz, member, widen_chunk, &w, err);
}
