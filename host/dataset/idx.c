/* IDX, the file format of MNIST: 0, 0, type, number of dimensions, big-endian u32 dimensions, then
 * the items, row-major and big-endian. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/file.h"
#include "dataset/readers.h"

enum { PATH_BYTES = 4096 };

/* By the type byte: bytes of an item, 0 = no type. */
static size_t item_size(uint8_t type)
{
    static const uint8_t sizes[] = {1, 1, 0, 2, 4, 4, 8}; /* u8, i8, -, i16, i32, f32, f64 */
    return type >= 0x08 && type <= 0x0e ? sizes[type - 0x08] : 0;
}

static vae_status check_magic(const vae_stream *s, const uint8_t magic[4], vae_error *err)
{
    const char *name = vae_stream_name(s);
    if (magic[0] != 0 || magic[1] != 0) {
        return vae_fail(err, VAE_ERR_DATA,
                        "%s: not an IDX file: expected 00 00 at its beginning, found %02x %02x",
                        name, magic[0], magic[1]);
    }
    if (item_size(magic[2]) == 0) {
        return vae_fail(err, VAE_ERR_DATA,
                        "%s: IDX type at offset 2: expected 0x08, 0x09 or 0x0b to 0x0e, found "
                        "0x%02x",
                        name, magic[2]);
    }
    if (magic[3] < 1 || magic[3] > VAE_IDX_MAX_DIMS) {
        return vae_fail(err, VAE_ERR_DATA,
                        "%s: IDX dimensions at offset 3: expected 1 to %d, found %u", name,
                        VAE_IDX_MAX_DIMS, magic[3]);
    }
    return VAE_OK;
}

/* Reads the header, and *n_bytes of data that it promises. */
static vae_status read_header(vae_stream *s, vae_idx *out, uint8_t *type, size_t *n_bytes,
                              vae_error *err)
{
    uint8_t head[4], dims[4 * VAE_IDX_MAX_DIMS];
    vae_status status = VAE_OK;
    TRY(vae_stream_read_exact(s, head, sizeof head, "IDX header", err));
    TRY(check_magic(s, head, err));
    *type = head[2];
    out->dtype = *type == 0x08 ? VAE_U8 : VAE_F32;
    out->ndim = head[3];
    TRY(vae_stream_read_exact(s, dims, 4 * out->ndim, "IDX dimensions", err));
    const size_t item_bytes = item_size(*type);
    bool fits = true;
    out->row_items = 1;
    for (size_t i = 0; i < out->ndim; i++) {
        const uint8_t *p = dims + 4 * i;
        out->dims[i] = (size_t)p[0] << 24 | (size_t)p[1] << 16 | (size_t)p[2] << 8 | p[3];
        if (out->dims[i] == 0) {
            TRY(vae_fail(err, VAE_ERR_DATA, "%s: IDX dimension %zu is 0: there is no data",
                         vae_stream_name(s), i));
        }
        if (i > 0) {
            fits = fits && vae_checked_mul(out->row_items, out->dims[i], &out->row_items);
        }
    }
    fits = fits && vae_checked_mul(out->row_items, item_bytes, n_bytes) &&
           vae_checked_mul(*n_bytes, out->dims[0], n_bytes);
    if (!fits || *n_bytes > vae_stream_bound(s)) {
        double claim = (double)item_bytes; /* a double, as the product need not fit */
        for (size_t i = 0; i < out->ndim; i++) {
            claim *= (double)out->dims[i];
        }
        TRY(vae_fail(err, VAE_ERR_DATA,
                     "%s: IDX header promises %zu rows, %.10g bytes in all, more than the file "
                     "can hold: at most %llu bytes follow it; it is cut short or damaged",
                     vae_stream_name(s), out->dims[0], claim,
                     (unsigned long long)vae_stream_bound(s)));
    }
done:
    return status;
}

/* One big-endian item of a type. */
static double item_value(const uint8_t *p, uint8_t type)
{
    const size_t size = item_size(type);
    uint64_t bits = 0;
    float f;
    double d;
    for (size_t i = 0; i < size; i++) {
        bits = bits << 8 | p[i];
    }
    switch (type) {
    case 0x09:
        return (int8_t)bits;
    case 0x0b:
        return (int16_t)bits;
    case 0x0c:
        return (int32_t)bits;
    case 0x0d: {
        const uint32_t half = (uint32_t)bits;
        memcpy(&f, &half, sizeof f);
        return (double)f;
    }
    default:
        memcpy(&d, &bits, sizeof d);
        return d;
    }
}

/* Items of any type but bytes to floats: the data are replaced. */
static vae_status to_floats(vae_idx *idx, uint8_t type, bool keep, vae_error *err)
{
    enum { PIECE = 512 };
    const size_t n = idx->n_kept * idx->row_items, size = item_size(type);
    double piece[PIECE];
    vae_status status = VAE_OK;
    float *values = malloc(n * sizeof *values);
    if (values == NULL) {
        return vae_fail_memory(err, n * sizeof *values, "IDX data");
    }
    TRY(vae_narrow_begin(&idx->narrowing, idx->row_items, keep, err));
    for (size_t i = 0, m; i < n; i += m) {
        m = n - i < PIECE ? n - i : PIECE;
        for (size_t k = 0; k < m; k++) {
            piece[k] = item_value(idx->data + (i + k) * size, type);
        }
        TRY(vae_narrow(&idx->narrowing, values + i, piece, m, err));
    }
    free(idx->data);
    idx->data = (uint8_t *)values;
    values = NULL;
done:
    free(values);
    return status;
}

vae_status vae_idx_read(vae_stream *s, const vae_data_options *options, vae_idx *out,
                        vae_error *err)
{
    const size_t limit = options->limit;
    const void *data = NULL;
    vae_status status = VAE_OK;
    size_t n_bytes = 0;
    uint8_t type = 0;
    *out = (vae_idx){0};
    TRY(read_header(s, out, &type, &n_bytes, err));
    out->n_kept = limit > 0 && limit < out->dims[0] ? limit : out->dims[0];
    const size_t kept_bytes = n_bytes / out->dims[0] * out->n_kept;
    if (out->dtype == VAE_U8) {
        TRY(vae_map_rows(&out->map, &data, s, kept_bytes, 1, options, err));
    }
    if (out->map != NULL) {
        out->data = (uint8_t *)(uintptr_t)data; /* only read */
        TRY(vae_stream_skip(s, kept_bytes, "IDX data", err));
    } else {
        TRY(vae_stream_read_new(s, &out->data, kept_bytes, "IDX data", err));
    }
    TRY(vae_stream_skip(s, n_bytes - kept_bytes, "IDX data", err));
    TRY(vae_stream_expect_end(s, err));
    if (out->dtype == VAE_F32) {
        TRY(to_floats(out, type, options->exact, err));
    }
done:
    if (status != VAE_OK) {
        vae_idx_clear(out);
    }
    return status;
}

void vae_idx_clear(vae_idx *idx)
{
    vae_narrow_close(&idx->narrowing);
    if (idx->map != NULL) {
        vae_map_close(idx->map);
    } else {
        free(idx->data);
    }
    idx->map = NULL;
    idx->data = NULL;
}

static vae_status read_path(const char *path, const vae_data_options *options, vae_idx *out,
                            vae_error *err)
{
    *out = (vae_idx){0};
    vae_stream *s;
    vae_status status = vae_stream_open(&s, path, err);
    if (status == VAE_OK) {
        status = vae_idx_read(s, options, out, err);
        vae_stream_close(s);
    }
    return status;
}

/* Reads images into the set, *n_total rows in the file of which the set may keep fewer. */
static vae_status load_images(vae_dataset *set, const char *path, const vae_data_options *options,
                              size_t *n_total, vae_error *err)
{
    vae_idx idx;
    vae_status status = VAE_OK;
    TRY(read_path(path, options, &idx, err));
    if (idx.ndim < 2) {
        TRY(vae_fail(err, VAE_ERR_DATA,
                     "%s: IDX dimensions: expected 2 (rows, values), 3 (images) or 4 (images with "
                     "channels), found 1; is it a labels file?",
                     path));
    }
    const size_t channels = idx.ndim == 4 ? idx.dims[3] : 1;
    if (channels != 1 && channels != 3) {
        TRY(vae_fail(err, VAE_ERR_DATA, "%s: IDX channels: expected 1 or 3, found %zu", path,
                     channels));
    }
    set->n = idx.n_kept;
    set->d = idx.row_items;
    set->height = idx.ndim == 2 ? 1 : idx.dims[1];
    set->width = idx.ndim == 2 ? idx.dims[1] : idx.dims[2];
    set->channels = channels;
    set->dtype = idx.dtype;
    set->rows = idx.data;
    set->map = idx.map;
    idx.data = NULL;
    idx.map = NULL;
    if (idx.dtype == VAE_F32) {
        vae_narrow_end(&idx.narrowing, set, err);
    }
    *n_total = idx.dims[0];
done:
    vae_idx_clear(&idx);
    return status;
}

static vae_status load_labels(vae_dataset *set, const char *path, size_t limit, size_t n_total,
                              vae_error *err)
{
    vae_idx idx;
    double *values = NULL;
    vae_status status = VAE_OK;
    TRY(read_path(path, &(vae_data_options){.limit = limit}, &idx, err));
    if (idx.ndim != 1) {
        TRY(vae_fail(err, VAE_ERR_DATA, "%s: labels: expected one dimension, found %zu", path,
                     idx.ndim));
    }
    if (idx.dims[0] != n_total) {
        TRY(vae_fail(err, VAE_ERR_DATA,
                     "%s: labels: expected %zu, one an image, found %zu; the two files do not "
                     "belong together",
                     path, n_total, idx.dims[0]));
    }
    values = malloc(idx.n_kept * sizeof *values);
    if (values == NULL) {
        TRY(vae_fail_memory(err, idx.n_kept * sizeof *values, "labels"));
    }
    for (size_t i = 0; i < idx.n_kept; i++) {
        values[i] = idx.dtype == VAE_F32 ? (double)((const float *)(const void *)idx.data)[i]
                                         : (double)idx.data[i];
    }
    TRY(vae_labels_from_numbers(set, values, VAE_LABELS_F32, path, err));
done:
    vae_idx_clear(&idx);
    free(values);
    return status;
}

/* Finds <folder>/<stem>{-,.}<kind>{,.gz} into path. A name that exists in any form counts, so that
 * an unreadable file is reported, not skipped. VAE_ERR_IO: it cannot be known whether it exists. */
static vae_status find_file(bool *found, const char *folder, const char *stem, const char *kind,
                            char path[PATH_BYTES], vae_error *err)
{
    static const char separators[] = {'-', '.'};
    static const char *const endings[] = {"", ".gz"};
    vae_status status = VAE_OK;
    *found = false;
    for (size_t i = 0; i < 4 && !*found; i++) {
        int n = snprintf(path, PATH_BYTES, "%s/%s%c%s%s", folder, stem, separators[i / 2], kind,
                         endings[i % 2]);
        if (n > 0 && n < PATH_BYTES) {
            TRY(vae_path_exists(found, path, err));
        }
    }
done:
    return status;
}

static vae_status find_split_file(bool *found, const char *folder, vae_split split, bool labels,
                                  char path[PATH_BYTES], vae_error *err)
{
    static const char *const stems[2][2] = {{"train-images", "train-labels"},
                                            {"t10k-images", "t10k-labels"}};
    return find_file(found, folder, stems[split == VAE_SPLIT_TEST][labels],
                     labels ? "idx1-ubyte" : "idx3-ubyte", path, err);
}

/* Where torchvision puts the raw files of its data sets, below the folder the user names. */
static const char *const layouts[] = {"", "/raw", "/MNIST/raw", "/FashionMNIST/raw", "/KMNIST/raw"};
enum { N_LAYOUTS = sizeof layouts / sizeof layouts[0] };

/* Finds the one sub-folder with images of the split, into raw. *n_found: how many there are; the
 * folder itself settles the matter. */
static vae_status find_raw_folder(size_t *n_found, const char *folder, vae_split split,
                                  char raw[PATH_BYTES], vae_error *err)
{
    vae_status status = VAE_OK;
    *n_found = 0;
    for (size_t i = 0; i < N_LAYOUTS && (*n_found == 0 || i > 1); i++) {
        char candidate[PATH_BYTES], file[PATH_BYTES];
        bool found = false;
        int n = snprintf(candidate, sizeof candidate, "%s%s", folder, layouts[i]);
        if (n > 0 && n < PATH_BYTES) {
            TRY(find_split_file(&found, candidate, split, false, file, err));
        }
        if (found) {
            if ((*n_found)++ == 0) {
                memcpy(raw, candidate, sizeof candidate);
            }
            if (i == 0) {
                break;
            }
        }
    }
done:
    return status;
}

static vae_status folder_has(bool *has, const char *folder, vae_split split, vae_error *err)
{
    char raw[PATH_BYTES];
    size_t n_found;
    const vae_status status = find_raw_folder(&n_found, folder, split, raw, err);
    *has = n_found > 0; /* several: load says so */
    return status;
}

static vae_status load_folder(vae_dataset *set, const char *folder, vae_split split,
                              const vae_data_options *options, vae_error *err)
{
    char raw[PATH_BYTES], path[PATH_BYTES];
    const bool test = split == VAE_SPLIT_TEST;
    const char *which = test ? "t10k" : "train";
    size_t n_found, n_total = 0;
    bool found = false;
    vae_status status = VAE_OK;
    TRY(find_raw_folder(&n_found, folder, split, raw, err));
    if (n_found > 1) {
        TRY(vae_fail(err, VAE_ERR_DATA,
                     "%s: holds several data sets; name one of them, for example %s", folder, raw));
    }
    if (n_found == 0 && test) {
        TRY(folder_has(&found, folder, VAE_SPLIT_TRAIN, err));
    }
    if (found) {
        TRY(vae_fail(err, VAE_ERR_DATA,
                     "%s: has train images but no test split: expected t10k-images-idx3-"
                     "ubyte or t10k-images-idx3-ubyte.gz beside them; or leave --split out",
                     folder));
    }
    if (n_found == 0) {
        TRY(vae_fail(err, VAE_ERR_DATA,
                     "%s: expected %s-images-idx3-ubyte or %s-images-idx3-ubyte.gz in it, in "
                     "raw/, MNIST/raw/, FashionMNIST/raw/ or KMNIST/raw/, found none",
                     folder, which, which));
    }
    TRY(find_split_file(&found, raw, split, false, path, err));
    TRY(load_images(set, path, options, &n_total, err));
    TRY(find_split_file(&found, raw, split, true, path, err));
    if (found) {
        TRY(load_labels(set, path, options->limit, n_total, err));
    }
done:
    return status;
}

/* The labels file that belongs to an images file by its name: images -> labels, idx3 -> idx1. */
static vae_status find_labels_beside(bool *found, const char *images, char path[PATH_BYTES],
                                     vae_error *err)
{
    const char *slash = strrchr(images, '/');
    const char *base = slash != NULL ? slash + 1 : images;
    const char *word = strstr(base, "images"), *kind = strstr(base, "idx3-ubyte");
    *found = false;
    if (word == NULL || kind == NULL || kind < word) {
        return VAE_OK;
    }
    char folder[PATH_BYTES], stem[PATH_BYTES];
    int n = snprintf(folder, sizeof folder, "%.*s", (int)(base - images), images);
    int m = snprintf(stem, sizeof stem, "%.*slabels", (int)(word - base), base);
    if (n < 0 || n >= PATH_BYTES || m < 0 || m >= PATH_BYTES) {
        return VAE_OK;
    }
    return find_file(found, n > 0 ? folder : ".", stem, "idx1-ubyte", path, err);
}

static vae_status load_file(vae_dataset *set, const char *path, vae_split split,
                            const vae_data_options *options, vae_error *err)
{
    (void)split;
    size_t n_total = 0;
    char labels[PATH_BYTES];
    bool found;
    vae_status status = VAE_OK;
    TRY(load_images(set, path, options, &n_total, err));
    TRY(find_labels_beside(&found, path, labels, err));
    if (found) {
        TRY(load_labels(set, labels, options->limit, n_total, err));
    }
done:
    return status;
}

static const uint8_t magic[2] = {0, 0};

const vae_reader vae_idx_file_reader = {
    .name = "IDX", .source = VAE_SOURCE_FILE, .magic = magic, .load = load_file};
const vae_reader vae_idx_folder_reader = {
    .name = "IDX", .source = VAE_SOURCE_FOLDER, .has = folder_has, .load = load_folder};
