#include "dataset.h"

#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "dataset_internal.h"
#include "sha256.h"

#if __BYTE_ORDER__ != __ORDER_LITTLE_ENDIAN__
#error "npy data and content hashes are read as little-endian; this machine is not"
#endif

static void hash_u64(vae_sha256 *state, uint64_t value)
{
    uint8_t bytes[8];
    for (size_t i = 0; i < 8; i++) {
        bytes[i] = (uint8_t)(value >> 8 * i);
    }
    vae_sha256_update(state, bytes, sizeof bytes);
}

size_t vae_row_bytes(vae_dtype dtype, size_t d)
{
    return dtype == VAE_BITS ? (d + 7) / 8
                             : d * (dtype == VAE_U8 ? sizeof(uint8_t) : sizeof(float));
}

/* Bytes mean value/255. A set whose largest byte is 1 is binary data stored as 0 and 1, which
 * would be learned as near-black without a word. */
static vae_status refuse_binary_bytes(const vae_dataset *set, vae_error *err)
{
    if (set->dtype != VAE_U8) {
        return VAE_OK;
    }
    const uint8_t *bytes = set->rows;
    uint8_t largest = 0;
    for (size_t i = 0; i < set->n * set->d; i++) {
        largest = bytes[i] > largest ? bytes[i] : largest;
    }
    if (largest == 1) {
        return vae_fail(err, VAE_ERR_DATA,
                        "%s: the largest byte is 1, but bytes are read as value/255; store 0 and "
                        "255, floats 0.0 and 1.0, or array.astype(bool)",
                        set->source);
    }
    return VAE_OK;
}

/* Fills what follows from the rows and labels. */
static void complete_set(vae_dataset *set)
{
    set->n_classes = 0;
    if (set->labels != NULL) {
        for (size_t i = 0; i < set->n; i++) {
            size_t classes = (size_t)set->labels[i] + 1;
            set->n_classes = classes > set->n_classes ? classes : set->n_classes;
        }
    }
    vae_sha256 state;
    vae_sha256_init(&state);
    hash_u64(&state, set->n);
    hash_u64(&state, set->d);
    hash_u64(&state, (uint64_t)set->dtype);
    vae_sha256_update(&state, set->rows, set->n * vae_row_bytes(set->dtype, set->d));
    vae_sha256_final(&state, set->sha256);
}

/* A single file: NPY or IDX by its first bytes, whatever its name. */
static vae_status load_file(vae_dataset *set, const char *path, vae_split split, size_t limit,
                            vae_error *err)
{
    if (split == VAE_SPLIT_TEST) {
        return vae_fail(err, VAE_ERR_DATA,
                        "%s: a single file has no test split; use --split train, or name a folder "
                        "that holds both",
                        path);
    }
    vae_stream *s;
    vae_status status = vae_stream_open(&s, path, err);
    if (status != VAE_OK) {
        return status;
    }
    uint8_t first[2] = {0};
    size_t got;
    status = vae_stream_read(s, first, sizeof first, &got, err);
    vae_stream_close(s);
    if (status != VAE_OK) {
        return status;
    }
    if (got == 2 && first[0] == 0x93 && first[1] == 'N') {
        status = vae_stream_open(&s, path, err);
        if (status == VAE_OK) {
            status = vae_npy_load_stream(set, s, limit, err);
            vae_stream_close(s);
        }
        return status;
    }
    if (got == 2 && first[0] == 0 && first[1] == 0) {
        return vae_idx_load_file(set, path, limit, err);
    }
    return got == 0 ? vae_fail(err, VAE_ERR_DATA, "%s: is empty; expected an NPY or IDX file", path)
                    : vae_fail(err, VAE_ERR_DATA,
                               "%s: not a data set: expected an NPY file (93 4e ...) or an IDX "
                               "file (00 00 ...), found %02x %02x",
                               path, first[0], first[1]);
}

static vae_status load_named(vae_dataset *set, const char *name, vae_split split, size_t limit,
                             vae_error *err)
{
    if (strcmp(name, "digits") == 0) {
        return vae_digits_draw(set, split, limit, err);
    }
    if (strcmp(name, "sprites") == 0) {
        return vae_sprites_draw(set, split, limit, err);
    }
    struct stat info;
    if (stat(name, &info) != 0) {
        return vae_fail(err, VAE_ERR_IO,
                        "%s: cannot open: %s; name a folder of IDX files, an .npy file or a "
                        "built-in set, `digits` or `sprites`",
                        name, strerror(errno));
    }
    vae_status status = S_ISDIR(info.st_mode) ? vae_idx_load_folder(set, name, split, limit, err)
                                              : load_file(set, name, split, limit, err);
    return status == VAE_OK ? refuse_binary_bytes(set, err) : status;
}

vae_status vae_dataset_open(vae_dataset **out, const char *name, vae_split split, size_t limit,
                            vae_error *err)
{
    *out = NULL;
    vae_dataset *set = calloc(1, sizeof *set);
    if (set == NULL) {
        return vae_fail_memory(err, sizeof *set, "a data set");
    }
    snprintf(set->source, sizeof set->source, "%s", name);
    vae_status status = load_named(set, name, split, limit, err);
    if (status != VAE_OK) {
        vae_dataset_free(set);
        return status;
    }
    complete_set(set);
    *out = set;
    return VAE_OK;
}

void vae_dataset_free(vae_dataset *set)
{
    if (set == NULL) {
        return;
    }
    free(set->rows);
    free(set->labels);
    free(set->factors);
    free(set);
}

bool vae_dataset_has_test(const char *name)
{
    return strcmp(name, "digits") == 0 || vae_idx_folder_has(name, VAE_SPLIT_TEST);
}

vae_status vae_dataset_check_range(const vae_dataset *set, bool finite_only, vae_error *err)
{
    if (set->dtype != VAE_F32) {
        return VAE_OK;
    }
    const float *values = set->rows;
    for (size_t i = 0; i < set->n * set->d; i++) {
        float value = values[i];
        if (finite_only ? isfinite(value) : value >= 0.0f && value <= 1.0f) {
            continue;
        }
        if (!isfinite(value)) {
            return vae_fail(err, VAE_ERR_DATA,
                            "%s: row %zu, column %zu: value %g is not a finite number; clean the "
                            "data",
                            set->source, i / set->d, i % set->d, (double)value);
        }
        return vae_fail(err, VAE_ERR_DATA,
                        "%s: row %zu, column %zu: value %.9g is outside [0,1], which the Bernoulli "
                        "likelihood needs; scale the data or use --likelihood gaussian",
                        set->source, i / set->d, i % set->d, (double)value);
    }
    return VAE_OK;
}

float vae_dataset_value(const vae_dataset *set, size_t row, size_t col)
{
    if (set->dtype == VAE_BITS) {
        const uint8_t *bits = (const uint8_t *)set->rows + row * vae_row_bytes(VAE_BITS, set->d);
        return (float)(bits[col / 8] >> col % 8 & 1);
    }
    size_t i = row * set->d + col;
    return set->dtype == VAE_U8 ? (float)((const uint8_t *)set->rows)[i] / 255.0f
                                : ((const float *)set->rows)[i];
}

size_t vae_grid_row(const size_t *sizes, size_t n_factors, const size_t *level)
{
    size_t row = 0;
    for (size_t k = 0; k < n_factors; k++) {
        row = row * sizes[k] + level[k];
    }
    return row;
}

void vae_grid_levels(size_t *level, const size_t *sizes, size_t n_factors, size_t row)
{
    for (size_t k = n_factors; k-- > 0; row /= sizes[k]) {
        level[k] = row % sizes[k];
    }
}
