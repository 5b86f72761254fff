/* Opening a data set by its name: which reader it is for, and what all sets get. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/stat.h>

#include "dataset/readers.h"

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

static bool ends_with(const char *name, const char *end)
{
    size_t n = strlen(name), m = strlen(end);
    return n >= m && strcasecmp(name + n - m, end) == 0;
}

static bool is_csv(const char *path)
{
    return ends_with(path, ".csv") || ends_with(path, ".csv.gz");
}

static vae_status load_stream(vae_dataset *set, const char *path, const vae_data_options *options,
                              vae_error *err)
{
    vae_stream *s;
    vae_status status = vae_stream_open(&s, path, err);
    if (status == VAE_OK) {
        status = is_csv(path) ? vae_csv_load_stream(set, s, options, err)
                              : vae_npy_load_stream(set, s, options->limit, err);
        vae_stream_close(s);
    }
    return status;
}

/* A single file: NPZ, NPY or IDX by its first bytes, whatever its name; CSV by its name. */
static vae_status load_file(vae_dataset *set, const char *path, vae_split split,
                            const vae_data_options *options, vae_error *err)
{
    const bool zip = ends_with(path, ".npz");
    if (zip) {
        return vae_npz_load(set, path, split, options->limit, err);
    }
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
    if (got == 0) {
        return vae_fail(err, VAE_ERR_DATA, "%s: is empty; expected a data set", path);
    }
    if (is_csv(path) || (got == 2 && first[0] == 0x93 && first[1] == 'N')) {
        return load_stream(set, path, options, err);
    }
    if (got == 2 && first[0] == 0 && first[1] == 0) {
        return vae_idx_load_file(set, path, options->limit, err);
    }
    return vae_fail(
        err, VAE_ERR_DATA,
        "%s: not a data set: expected an NPY file (93 4e ...), an IDX file (00 00 ...), "
        "or a name that ends in .npz or .csv; found %02x %02x",
        path, first[0], first[1]);
}

/* IDX files, if there are any of either split; pictures, if there are any; else what is missing. */
static vae_status load_folder(vae_dataset *set, const char *name, vae_split split,
                              const vae_data_options *options, vae_error *err)
{
    const bool idx =
        vae_idx_folder_has(name, VAE_SPLIT_TRAIN) || vae_idx_folder_has(name, VAE_SPLIT_TEST);
    if (!idx &&
        (vae_pictures_has(name, VAE_SPLIT_TRAIN) || vae_pictures_has(name, VAE_SPLIT_TEST))) {
        return vae_pictures_load(set, name, split, options, err);
    }
    return vae_idx_load_folder(set, name, split, options->limit, err);
}

static vae_status load_named(vae_dataset *set, const char *name, vae_split split,
                             const vae_data_options *options, vae_error *err)
{
    if (strcmp(name, "digits") == 0) {
        return vae_digits_draw(set, split, options->limit, err);
    }
    if (strcmp(name, "sprites") == 0) {
        return vae_sprites_draw(set, split, options->limit, err);
    }
    struct stat info;
    if (stat(name, &info) != 0) {
        return vae_fail(
            err, VAE_ERR_IO,
            "%s: cannot open: %s; name an .npy, .npz, .csv or IDX file, a folder of IDX "
            "or picture files, or a built-in set, `digits` or `sprites`",
            name, strerror(errno));
    }
    vae_status status = S_ISDIR(info.st_mode) ? load_folder(set, name, split, options, err)
                                              : load_file(set, name, split, options, err);
    return status == VAE_OK && set->kind == VAE_KIND_ARRAY ? refuse_binary_bytes(set, err) : status;
}

vae_status vae_dataset_open(vae_dataset **out, const char *name, vae_split split,
                            const vae_data_options *options, vae_error *err)
{
    static const vae_data_options none;
    *out = NULL;
    vae_dataset *set = calloc(1, sizeof *set);
    if (set == NULL) {
        return vae_fail_memory(err, sizeof *set, "a data set");
    }
    snprintf(set->source, sizeof set->source, "%s", name);
    vae_status status = VAE_OK;
    TRY(load_named(set, name, split, options != NULL ? options : &none, err));
    for (size_t i = 0; set->labels != NULL && i < set->n; i++) {
        const size_t classes = (size_t)set->labels[i] + 1;
        set->n_classes = classes > set->n_classes ? classes : set->n_classes;
    }
    TRY(vae_dataset_hash(set, err));
    *out = set;
    set = NULL;
done:
    vae_dataset_free(set);
    return status;
}

bool vae_dataset_has_test(const char *name)
{
    return strcmp(name, "digits") == 0 || vae_idx_folder_has(name, VAE_SPLIT_TEST) ||
           (ends_with(name, ".npz") && vae_npz_has_test(name)) ||
           vae_pictures_has(name, VAE_SPLIT_TEST);
}
