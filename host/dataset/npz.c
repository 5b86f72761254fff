/* NPZ archives as data sets. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "dataset/readers.h"
#include "format/npz.h"

enum { NAME = 700 }; /* of a message: a path and an array */

static const char *const label_names[] = {"labels", "label", "y"};

static const vae_npz_member *find_any(const vae_npz *npz, const char *const *names, size_t n)
{
    const vae_npz_member *found = NULL;
    for (size_t i = 0; i < n && found == NULL; i++) {
        found = vae_npz_find(npz, names[i]);
    }
    return found;
}

/* The array of rows and that of labels (NULL: none) for a split. */
static vae_status choose(const vae_npz *npz, vae_split split, const vae_npz_member **rows,
                         const vae_npz_member **labels, vae_error *err)
{
    static const char *const data_names[] = {"data", "x", "X"};
    const bool test = split == VAE_SPLIT_TEST;
    char there[VAE_NPZ_NAMES];
    *rows = vae_npz_find(npz, test ? "x_test" : "x_train");
    *labels = vae_npz_find(npz, test ? "y_test" : "y_train");
    if (*rows != NULL) {
        return VAE_OK;
    }
    if (test) {
        return vae_fail(err, VAE_ERR_DATA,
                        "%s: has no test split, an array x_test; it has %s; leave --split out",
                        npz->path, vae_npz_names(npz, there));
    }
    *rows = find_any(npz, data_names, sizeof data_names / sizeof data_names[0]);
    *labels = find_any(npz, label_names, sizeof label_names / sizeof label_names[0]);
    size_t others = 0;
    for (size_t i = 0; *rows == NULL && i < npz->n; i++) {
        others += &npz->members[i] != *labels;
    }
    for (size_t i = 0; *rows == NULL && others == 1 && i < npz->n; i++) {
        *rows = &npz->members[i] != *labels ? &npz->members[i] : NULL;
    }
    return *rows != NULL
               ? VAE_OK
               : vae_fail(
                     err, VAE_ERR_DATA,
                     "%s: which of its %zu arrays are the rows? expected one called data, x or "
                     "x_train, or only one array; it has %s",
                     npz->path, npz->n, vae_npz_names(npz, there));
}

/* Rows that are kept, as they come; what follows them is read, for the archive's CRC, and
 * dropped. */
typedef struct {
    vae_dataset *set;
    size_t item, n; /* bytes a value, values that are kept */
    size_t done;
    const char *name;
} kept_rows;

static vae_status copy_chunk(void *ctx, const uint8_t *items, size_t n, vae_error *err)
{
    kept_rows *to = ctx;
    (void)err;
    n = n < to->n - to->done ? n : to->n - to->done;
    memcpy((uint8_t *)to->set->rows + to->done * to->item, items, n * to->item);
    to->done += n;
    return VAE_OK;
}

/* Bytes 0 and 1 to rows of bits; a byte of another value is named. */
static vae_status pack_chunk(void *ctx, const uint8_t *items, size_t n, vae_error *err)
{
    kept_rows *to = ctx;
    const size_t d = to->set->d, stride = vae_row_bytes(VAE_BITS, d);
    n = n < to->n - to->done ? n : to->n - to->done;
    for (size_t k = 0; k < n; k++, to->done++) {
        const size_t i = to->done / d, j = to->done % d;
        if (items[k] > 1) {
            return vae_fail_boolean(err, to->name, i, j, items[k]);
        }
        ((uint8_t *)to->set->rows)[i * stride + j / 8] |= (uint8_t)(items[k] << j % 8);
    }
    return VAE_OK;
}

/* Doubles to floats, those of the rows that are kept. */
typedef struct {
    vae_narrowing narrowing;
    float *rows;
    size_t n; /* values that are kept */
} doubles;

static vae_status narrow_chunk(void *ctx, const uint8_t *items, size_t n, vae_error *err)
{
    enum { PIECE = 512 };
    doubles *to = ctx;
    double values[PIECE];
    vae_status status = VAE_OK;
    for (size_t i = 0, piece; i < n && to->narrowing.n < to->n; i += piece) {
        const size_t left = to->n - to->narrowing.n;
        piece = n - i < PIECE ? n - i : PIECE;
        piece = piece < left ? piece : left;
        memcpy(values, items + i * sizeof *values, piece * sizeof *values);
        TRY(vae_narrow(&to->narrowing, to->rows + to->narrowing.n, values, piece, err));
    }
done:
    return status;
}

static vae_status read_doubles(vae_dataset *set, const vae_npz *npz, const vae_npz_member *m,
                               const vae_data_options *options, vae_error *err)
{
    doubles to = {.rows = set->rows, .n = set->n * set->d};
    vae_status status = VAE_OK;
    TRY(vae_narrow_begin(&to.narrowing, set->d, options->exact, err));
    TRY(vae_npz_read_chunks(npz, m, narrow_chunk, &to, err));
    vae_narrow_end(&to.narrowing, set, err);
done:
    vae_narrow_close(&to.narrowing);
    return status;
}

static vae_status read_rows(vae_dataset *set, const vae_npz *npz, const vae_npz_member *m,
                            const vae_data_options *options, vae_error *err)
{
    char name[NAME];
    vae_status status = VAE_OK;
    snprintf(name, sizeof name, "%s: %s", npz->path, m->name);
    TRY(vae_npz_check(npz, m, err));
    TRY(vae_npy_shape_set(set, &m->header, name, err));
    set->n = options->limit > 0 && options->limit < set->n ? options->limit : set->n;
    const size_t bytes = set->n * vae_row_bytes(set->dtype, set->d);
    TRY(vae_check_memory(bytes, name, err));
    set->rows = calloc(bytes, 1);
    if (set->rows == NULL) {
        TRY(vae_fail_memory(err, bytes, name));
    }
    kept_rows kept = {.set = set, .item = m->header.item_bytes, .n = set->n * set->d, .name = name};
    if (m->header.item_bytes == sizeof(double)) {
        TRY(read_doubles(set, npz, m, options, err));
    } else {
        TRY(vae_npz_read_chunks(npz, m, set->dtype == VAE_BITS ? pack_chunk : copy_chunk, &kept,
                                err));
    }
done:
    return status;
}

/* Is it a type that labels have: little-endian whole numbers, floats, booleans? */
static bool holds_labels(const npy_header *h)
{
    const char *type = h->descr + (strchr("|<>=", h->descr[0]) != NULL);
    return h->descr[0] != '>' && h->item_bytes <= 8 && strchr("iufb", type[0]) != NULL &&
           (type[0] != 'f' || h->item_bytes >= 4);
}

/* A value of such an array. */
static double label_value(const uint8_t *p, const npy_header *h)
{
    const char *type = h->descr + (strchr("|<>=", h->descr[0]) != NULL);
    uint64_t bits = 0;
    double wide;
    float narrow;
    memcpy(&bits, p, h->item_bytes);
    if (type[0] == 'f' && h->item_bytes == 8) {
        memcpy(&wide, p, sizeof wide);
        return wide;
    }
    if (type[0] == 'f') {
        memcpy(&narrow, p, sizeof narrow);
        return (double)narrow;
    }
    const unsigned unused = 64 - 8 * (unsigned)h->item_bytes;
    return type[0] == 'i' ? (double)((int64_t)(bits << unused) >> unused) : (double)bits;
}

/* Labels of the rows that are kept, as they come; those that follow are read, for the archive's
 * CRC, and dropped. */
typedef struct {
    const npy_header *header;
    double *values; /* (n) */
    size_t n, done;
} kept_labels;

static vae_status take_labels(void *ctx, const uint8_t *items, size_t n, vae_error *err)
{
    kept_labels *to = ctx;
    (void)err;
    n = n < to->n - to->done ? n : to->n - to->done;
    for (size_t i = 0; i < n; i++, to->done++) {
        to->values[to->done] = label_value(items + i * to->header->item_bytes, to->header);
    }
    return VAE_OK;
}

/* n_rows: of the file; the set may keep fewer. */
static vae_status read_labels(vae_dataset *set, const vae_npz *npz, const vae_npz_member *m,
                              size_t n_rows, vae_error *err)
{
    const npy_header *h = &m->header;
    char name[NAME];
    vae_status status = vae_npz_check(npz, m, err);
    if (status != VAE_OK) {
        return status;
    }
    snprintf(name, sizeof name, "%s: %s", npz->path, m->name);
    if (h->n_items != n_rows || h->ndim == 0 || h->shape[0] != n_rows) {
        return vae_fail(err, VAE_ERR_DATA, "%s: expected %zu labels, one a row, found %zu", name,
                        n_rows, h->n_items);
    }
    if (!holds_labels(h)) {
        return vae_fail(err, VAE_ERR_DATA, "%s: type '%s': expected whole numbers", name, h->descr);
    }
    kept_labels kept = {.header = h, .n = set->n};
    TRY(vae_check_memory(set->n * sizeof *kept.values, name, err));
    kept.values = malloc(set->n * sizeof *kept.values);
    if (kept.values == NULL) {
        TRY(vae_fail_memory(err, set->n * sizeof *kept.values, name));
    }
    TRY(vae_npz_read_chunks(npz, m, take_labels, &kept, err));
    TRY(vae_labels_from_numbers(
        set, kept.values,
        strchr(h->descr, 'f') != NULL && h->item_bytes == 4 ? VAE_LABELS_F32 : VAE_LABELS_F64, name,
        err));
done:
    free(kept.values);
    return status;
}

static vae_status load(vae_dataset *set, const char *path, vae_split split,
                       const vae_data_options *options, vae_error *err)
{
    vae_npz npz = {0};
    const vae_npz_member *rows, *labels;
    vae_status status = VAE_OK;
    TRY(vae_npz_open(&npz, path, err));
    TRY(choose(&npz, split, &rows, &labels, err));
    TRY(read_rows(set, &npz, rows, options, err));
    if (labels != NULL) {
        TRY(read_labels(set, &npz, labels, rows->header.shape[0], err));
    }
done:
    vae_npz_close(&npz);
    return status;
}

static vae_status has(bool *has, const char *path, vae_split split, vae_error *err)
{
    vae_npz npz;
    vae_status status = VAE_OK;
    *has = false;
    TRY(vae_npz_open(&npz, path, err));
    *has = split == VAE_SPLIT_TRAIN || vae_npz_find(&npz, "x_test") != NULL;
    vae_npz_close(&npz);
done:
    return status;
}

const vae_reader vae_npz_reader = {
    .name = "NPZ", .source = VAE_SOURCE_FILE, .endings = {".npz"}, .has = has, .load = load};
