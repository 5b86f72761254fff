/* Files of tensors, safetensors and npz, behind one face. */
#include "exchange/import_weights.h"

#include <errno.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/file.h"
#include "base/half.h"
#include "run/checkpoint_format.h"

enum { FIRST_BYTES = 16, MAX_METADATA = 1 << 25 }; /* many classes have long lists of names */

static bool is_zip(const unsigned char *first, size_t n)
{
    return n >= 4 && first[0] == 'P' && first[1] == 'K' &&
           ((first[2] == 3 && first[3] == 4) || (first[2] == 5 && first[3] == 6));
}

/* The length of a safetensors header is below 2^32, and an object follows. */
static bool is_safetensors(const unsigned char *first, size_t n)
{
    static const unsigned char zeros[4];
    return n >= 10 && memcmp(first + 4, zeros, sizeof zeros) == 0 &&
           memchr("{ \t\r\n", first[8], 5) != NULL;
}

static vae_status fail_kind(const char *name, const unsigned char *first, size_t n, vae_error *err)
{
    const char *found = "neither; save weights with safetensors.torch.save_file or numpy.savez";
    if (n >= sizeof vae_checkpoint_magic &&
        memcmp(first, vae_checkpoint_magic, sizeof vae_checkpoint_magic) == 0) {
        found = "a checkpoint of this program: use it as RUN, or export it first";
    } else if (n >= 2 && first[0] == 0x80 && first[1] >= 2 && first[1] <= 5) {
        found = "a pickle, which can run code: save with safetensors.torch.save_file instead";
    } else if (n == 0) {
        found = "an empty file";
    }
    return vae_fail(err, VAE_ERR_DATA, "%s: expected a safetensors or npz file, found %s", name,
                    found);
}

static bool is_dtype(const char *dtype, const char *const *types)
{
    for (; *types != NULL; types++) {
        if (strcmp(dtype, *types) == 0) {
            return true;
        }
    }
    return false;
}

static vae_status list_safetensors(vae_weights *w, vae_error *err)
{
    static const char *const floats[] = {"F32", "F64", "F16", "BF16", NULL};
    w->tensors = calloc(w->st.n + 1, sizeof *w->tensors);
    if (w->tensors == NULL) {
        return vae_fail_memory(err, w->st.n * sizeof *w->tensors, "a table of tensors");
    }
    for (size_t i = 0; i < w->st.n; i++) {
        const vae_st_tensor *t = &w->st.tensors[i];
        w->tensors[w->n++] = (vae_weight){
            t->name, t->dtype, is_dtype(t->dtype, floats), t->ndim, t->shape, t->n_items, i};
    }
    w->metadata = w->st.metadata;
    w->st.metadata = NULL;
    return VAE_OK;
}

/* The metadata member is no tensor; anything but bytes under that name is ignored. */
static vae_status read_metadata(vae_weights *w, const vae_npz_member *m, vae_error *err)
{
    if (strcmp(m->header.descr, "|u1") != 0 || m->header.n_items > MAX_METADATA) {
        return VAE_OK;
    }
    w->metadata = malloc(m->header.n_items + 1);
    if (w->metadata == NULL) {
        return vae_fail_memory(err, m->header.n_items + 1, "metadata");
    }
    w->metadata[m->header.n_items] = '\0';
    return vae_npz_read(&w->npz, m, w->metadata, err);
}

static vae_status list_npz(vae_weights *w, vae_error *err)
{
    static const char *const floats[] = {"<f4", "<f8", "<f2", NULL};
    vae_status status = VAE_OK;
    w->tensors = calloc(w->npz.n + 1, sizeof *w->tensors);
    if (w->tensors == NULL) {
        return vae_fail_memory(err, w->npz.n * sizeof *w->tensors, "a table of tensors");
    }
    if (w->npz.n == 0) {
        return vae_fail(err, VAE_ERR_DATA,
                        "%s: a zip archive without .npy arrays (torch.save writes such); save "
                        "with safetensors.torch.save_file or numpy.savez",
                        w->path);
    }
    for (size_t i = 0; i < w->npz.n; i++) {
        const vae_npz_member *m = &w->npz.members[i];
        TRY(vae_npz_check(&w->npz, m, err));
        if (strcmp(m->name, "metadata") == 0) {
            TRY(read_metadata(w, m, err));
            continue;
        }
        w->tensors[w->n++] = (vae_weight){m->name,
                                          m->header.descr,
                                          is_dtype(m->header.descr, floats),
                                          m->header.ndim,
                                          m->header.shape,
                                          m->header.n_items,
                                          i};
    }
done:
    return status;
}

static vae_status open_kind(vae_weights *w, vae_error *err)
{
    unsigned char first[FIRST_BYTES];
    struct stat info;
    if (fstat(w->fd, &info) != 0) {
        return vae_fail(err, VAE_ERR_IO, "%s: cannot read: %s", w->path, strerror(errno));
    }
    if (!S_ISREG(info.st_mode)) {
        return vae_fail(err, VAE_ERR_DATA, "%s: not a regular file; expected safetensors or npz",
                        w->path);
    }
    const ssize_t got = vae_read_at(w->fd, first, sizeof first, 0);
    if (got < 0) {
        return vae_fail(err, VAE_ERR_IO, "%s: cannot read: %s", w->path, strerror(errno));
    }
    vae_status status = VAE_OK;
    w->is_npz = is_zip(first, (size_t)got);
    if (w->is_npz) {
        TRY(vae_npz_open_fd(&w->npz, w->fd, w->path, err));
        TRY(list_npz(w, err));
    } else if (is_safetensors(first, (size_t)got)) {
        TRY(vae_safetensors_read(&w->st, w->fd, (uint64_t)info.st_size, w->path, err));
        TRY(list_safetensors(w, err));
    } else {
        TRY(fail_kind(w->path, first, (size_t)got, err));
    }
done:
    return status;
}

vae_status vae_weights_open_fd(vae_weights *out, int fd, const char *name, vae_error *err)
{
    *out = (vae_weights){.path = strdup(name), .fd = fcntl(fd, F_DUPFD_CLOEXEC, 0)};
    vae_status status = VAE_OK;
    if (out->path == NULL) {
        TRY(vae_fail_memory(err, strlen(name), "a file name"));
    }
    if (out->fd < 0) {
        TRY(vae_fail(err, VAE_ERR_IO, "%s: cannot read: %s", name, strerror(errno)));
    }
    TRY(open_kind(out, err));
done:
    if (status != VAE_OK) {
        vae_weights_close(out);
    }
    return status;
}

vae_status vae_weights_open(vae_weights *out, const char *path, vae_error *err)
{
    *out = (vae_weights){.fd = -1};
    /* O_NONBLOCK: a pipe without a writer must be refused, not waited for. */
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    if (fd < 0) {
        return vae_fail(err, VAE_ERR_IO, "%s: cannot open: %s", path, strerror(errno));
    }
    vae_status status = vae_weights_open_fd(out, fd, path, err);
    close(fd);
    return status;
}

void vae_weights_close(vae_weights *w)
{
    vae_safetensors_clear(&w->st);
    vae_npz_close(&w->npz);
    if (w->fd >= 0) {
        close(w->fd);
    }
    free(w->tensors);
    free(w->metadata);
    free(w->path);
    *w = (vae_weights){.fd = -1};
}

const vae_weight *vae_weights_find(const vae_weights *w, const char *name)
{
    for (size_t i = 0; i < w->n; i++) {
        if (strcmp(w->tensors[i].name, name) == 0) {
            return &w->tensors[i];
        }
    }
    return NULL;
}

static float widen(const uint8_t *from, const char *dtype)
{
    double wide;
    float value;
    uint16_t half;
    uint32_t word;
    if (strcmp(dtype, "F64") == 0) {
        memcpy(&wide, from, sizeof wide);
        return (float)wide;
    }
    if (strcmp(dtype, "F32") == 0) {
        memcpy(&value, from, sizeof value);
        return value;
    }
    memcpy(&half, from, sizeof half);
    if (strcmp(dtype, "F16") == 0) {
        return vae_half_to_float(half);
    }
    word = (uint32_t)half << 16; /* BF16 is float's upper half */
    memcpy(&value, &word, sizeof value);
    return value;
}

static vae_status read_safetensors(const vae_weights *w, const vae_weight *t, float *values,
                                   vae_error *err)
{
    const vae_st_tensor *st = &w->st.tensors[t->source];
    uint8_t chunk[1 << 15];
    const size_t per_chunk = sizeof chunk / st->item_bytes;
    for (size_t i = 0, n; i < st->n_items; i += n) {
        n = st->n_items - i < per_chunk ? st->n_items - i : per_chunk;
        const uint64_t at = w->st.data_offset + st->begin + i * st->item_bytes;
        const ssize_t got = vae_read_at(w->fd, chunk, n * st->item_bytes, at);
        if (got != (ssize_t)(n * st->item_bytes)) {
            return vae_fail(err, VAE_ERR_IO, "%s: cannot read '%.100s' at offset %llu: %s", w->path,
                            t->name, (unsigned long long)at,
                            got < 0 ? strerror(errno) : "the file has become shorter");
        }
        for (size_t j = 0; j < n; j++) {
            values[i + j] = widen(chunk + j * st->item_bytes, st->dtype);
        }
    }
    return VAE_OK;
}

vae_status vae_weights_read(const vae_weights *w, const vae_weight *t, float *values,
                            vae_error *err)
{
    if (!t->is_float) {
        return vae_fail(err, VAE_ERR_DATA,
                        "%s: tensor '%.100s': expected float32 (or float64, float16%s), found %s",
                        w->path, t->name, w->is_npz ? "" : ", bfloat16", t->dtype);
    }
    return w->is_npz ? vae_npz_read_floats(&w->npz, &w->npz.members[t->source], values, err)
                     : read_safetensors(w, t, values, err);
}

vae_status vae_weights_is_file(bool *is, const char *path, vae_error *err)
{
    unsigned char first[16];
    vae_status status = VAE_OK;
    *is = false;
    /* O_NONBLOCK: a pipe without a writer must not be waited for */
    const int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    if (fd < 0) {
        return errno == ENOENT || errno == ENOTDIR
                   ? VAE_OK
                   : vae_fail(err, VAE_ERR_IO, "%s: cannot open: %s", path, strerror(errno));
    }
    const ssize_t got = vae_read_at(fd, first, sizeof first, 0);
    if (got < 0 && errno != EISDIR && errno != ESPIPE) { /* of a folder or a pipe: none */
        TRY(vae_fail(err, VAE_ERR_IO, "%s: cannot read: %s", path, strerror(errno)));
    }
    *is = got > 0 && (is_zip(first, (size_t)got) || is_safetensors(first, (size_t)got));
done:
    close(fd);
    return status;
}
