/* NPY files as data sets. */
#include <stdlib.h>
#include <string.h>

#include "base/text.h"
#include "dataset/readers.h"
#include "format/npy.h"

/* Reads and parses the header; messages get the file's name in front. */
static vae_status read_header(vae_stream *s, npy_header *header, vae_error *err)
{
    uint8_t prefix[VAE_NPY_PREFIX], *bytes = NULL;
    size_t got, size = 0;
    vae_error why = {0};
    vae_status status = VAE_OK;
    TRY(vae_stream_read(s, prefix, sizeof prefix, &got, err));
    TRY(vae_npy_header_size(prefix, got, &size, &why));
    if (size < got) {
        TRY(vae_fail(&why, VAE_ERR_DATA, "npy header: says it is empty"));
    }
    bytes = malloc(size);
    if (bytes == NULL) {
        TRY(vae_fail_memory(err, size, "an npy header"));
    }
    memcpy(bytes, prefix, got);
    TRY(vae_stream_read_exact(s, bytes + got, size - got, "npy header", err));
    TRY(vae_npy_parse_header(bytes, size, header, &why));
done:
    free(bytes);
    if (why.status != VAE_OK) {
        vae_fail(err, why.status, "%s: %s", vae_stream_name(s), why.text);
    }
    return status;
}

/* A type that is not read: says which and what to do. */
static vae_status fail_type(const char *name, const char *descr, vae_error *err)
{
    static const struct {
        const char *holds, *means;
    } kinds[] = {{"O", "Python objects"},
                 {">", "big-endian"},
                 {"iu", "integers other than bytes"},
                 {"c", "complex numbers"},
                 {"f", "floats of another size"}};
    const char *why = "no numbers";
    for (size_t i = sizeof kinds / sizeof kinds[0]; i-- > 0;) {
        why = strpbrk(descr, kinds[i].holds) != NULL ? kinds[i].means : why;
    }
    return vae_fail(err, VAE_ERR_DATA,
                    "%s: type '%s' (%s): expected u1, b1, <f4 or <f8; save "
                    "array.astype('float32')",
                    name, descr, why);
}

vae_status vae_npy_shape_set(vae_dataset *set, const npy_header *h, const char *name,
                             vae_error *err)
{
    const char *type = h->descr + (strchr("|<>", h->descr[0]) != NULL);
    const bool bytes = strcmp(type, "u1") == 0, bools = strcmp(type, "b1") == 0;
    if (!bytes && !bools && strcmp(h->descr, "<f4") != 0 && strcmp(h->descr, "<f8") != 0) {
        return fail_type(name, h->descr, err);
    }
    set->dtype = VAE_F32;
    if (bytes || bools) {
        set->dtype = bytes ? VAE_U8 : VAE_BITS;
    }
    if (h->fortran_order) {
        return vae_fail(err, VAE_ERR_DATA,
                        "%s: is in Fortran order; expected C order: save "
                        "numpy.ascontiguousarray(array)",
                        name);
    }
    if (h->ndim < 2 || h->ndim > 4) {
        return vae_fail(err, VAE_ERR_DATA,
                        "%s: expected shape (n,d), (n,h,w) or (n,h,w,c), found %zu dimension%s",
                        name, h->ndim, vae_s(h->ndim));
    }
    if (h->n_items == 0) {
        return vae_fail(err, VAE_ERR_DATA, "%s: a dimension is 0: there is no data", name);
    }
    set->channels = h->ndim == 4 ? h->shape[3] : 1;
    if (set->channels != 1 && set->channels != 3) {
        return vae_fail(err, VAE_ERR_DATA,
                        "%s: expected 1 or 3 channels in the last of 4 dimensions, found %zu%s",
                        name, set->channels,
                        h->shape[1] == 1 || h->shape[1] == 3
                            ? "; is it (n,c,h,w)? save array.transpose(0, 2, 3, 1)"
                            : "");
    }
    set->n = h->shape[0];
    set->d = h->n_items / h->shape[0];
    set->height = h->ndim == 2 ? 1 : h->shape[1];
    set->width = h->ndim == 2 ? h->shape[1] : h->shape[2];
    return VAE_OK;
}

static vae_status read_doubles_as_floats(vae_stream *s, vae_dataset *set, bool keep, vae_error *err)
{
    enum { CHUNK = 4096 };
    double chunk[CHUNK];
    uint8_t *bytes = NULL;
    const size_t n = set->n * set->d, n_bytes = n * sizeof(double);
    size_t kept = 0, capacity = 0;
    float *values = NULL;
    vae_narrowing narrowing = {0};
    vae_status status = VAE_OK;
    if (n_bytes > vae_stream_bound(s)) {
        /* the failure that reading as many bytes would give */
        return vae_stream_read_new(s, &bytes, n_bytes, "npy data", err);
    }
    TRY(vae_narrow_begin(&narrowing, set->d, keep, err));
    while (kept < n) {
        size_t piece = n - kept < CHUNK ? n - kept : CHUNK;
        if (kept + piece > capacity) {
            /* Packed data may fall short of its bound: grow with what is there. */
            capacity = capacity == 0 ? 1 << 18 : 2 * capacity;
            capacity = capacity < n ? capacity : n;
            float *grown = realloc(values, capacity * sizeof *values);
            if (grown == NULL) {
                TRY(vae_fail_memory(err, capacity * sizeof *values, "npy data"));
            }
            values = grown;
        }
        TRY(vae_stream_read_exact(s, chunk, piece * sizeof *chunk, "npy data", err));
        TRY(vae_narrow(&narrowing, values + kept, chunk, piece, err));
        kept += piece;
    }
    vae_narrow_end(&narrowing, set, err);
done:
    vae_narrow_close(&narrowing);
    set->rows = values;
    return status;
}

vae_status vae_map_rows(vae_map **map, const void **data, const vae_stream *s, size_t bytes,
                        size_t align, const vae_data_options *options, vae_error *err)
{
    const size_t most = options->in_memory > 0 ? options->in_memory : VAE_IN_MEMORY;
    const uint64_t at = vae_stream_offset(s);
    vae_status status = VAE_OK;
    *map = NULL;
    if (bytes > most && at % align == 0) {
        TRY(vae_stream_map(s, map, err));
        const size_t size = *map != NULL ? vae_map_size(*map) : SIZE_MAX;
        if (size < at || size - at < bytes) { /* its header had been read when it was cut */
            TRY(vae_fail(err, VAE_ERR_IO,
                         "%s: was cut short while it was opened: expected %zu bytes of rows at "
                         "offset %llu, found %zu bytes in all",
                         vae_stream_name(s), bytes, (unsigned long long)at, size));
        }
        *data = *map != NULL ? vae_map_bytes(*map) + at : NULL;
    }
done:
    if (status != VAE_OK) {
        vae_map_close(*map);
        *map = NULL;
    }
    return status;
}

vae_status vae_fail_boolean(vae_error *err, const char *name, size_t row, size_t column,
                            uint8_t found)
{
    return vae_fail(err, VAE_ERR_DATA,
                    "%s: row %zu, column %zu: expected a boolean, 0 or 1, found byte %u", name, row,
                    column, found);
}

/* Packs row by row; numpy stores a boolean as the byte 0 or 1. */
static vae_status read_bools_as_bits(vae_stream *s, vae_dataset *set, vae_error *err)
{
    const size_t d = set->d, width = vae_row_bytes(VAE_BITS, d);
    uint8_t *row = NULL, *rows = NULL;
    size_t capacity = 0;
    vae_status status = VAE_OK;
    if (set->n * d > vae_stream_bound(s)) {
        /* the failure that reading as many bytes would give */
        return vae_stream_read_new(s, &rows, set->n * d, "npy data", err);
    }
    row = malloc(d);
    if (row == NULL) {
        return vae_fail_memory(err, d, "a row of npy data");
    }
    for (size_t i = 0; i < set->n; i++) {
        if (i == capacity) {
            /* Packed data may fall short of its bound: grow with what is there. */
            capacity = capacity == 0 ? 1 + (1 << 18) / width : 2 * capacity;
            capacity = capacity < set->n ? capacity : set->n;
            uint8_t *grown = realloc(rows, capacity * width);
            if (grown == NULL) {
                TRY(vae_fail_memory(err, capacity * width, "npy data"));
            }
            rows = grown;
        }
        TRY(vae_stream_read_exact(s, row, d, "npy data", err));
        memset(rows + i * width, 0, width);
        for (size_t j = 0; j < d; j++) {
            if (row[j] > 1) {
                TRY(vae_fail_boolean(err, vae_stream_name(s), i, j, row[j]));
            }
            rows[i * width + j / 8] |= (uint8_t)(row[j] << j % 8);
        }
    }
done:
    free(row);
    set->rows = rows;
    return status;
}

/* set->n rows of n_total, in memory or, where they are many and stored as they are wanted,
 * mapped. */
static vae_status take_rows(vae_dataset *set, vae_stream *s, const npy_header *header,
                            size_t n_total, const vae_data_options *options, vae_error *err)
{
    const size_t row = set->d * header->item_bytes;
    const bool bits = set->dtype == VAE_BITS, doubles = header->item_bytes == sizeof(double);
    const bool in_place = !doubles && !(set->dtype == VAE_F32 && options->exact);
    const void *data = NULL;
    uint8_t *bytes = NULL;
    vae_status status = VAE_OK;
    if (in_place && n_total * row <= vae_stream_bound(s)) {
        TRY(vae_map_rows(&set->map, &data, s, set->n * vae_dataset_row_bytes(set),
                         header->item_bytes, options, err));
    }
    if (set->map != NULL) {
        set->rows = (void *)(uintptr_t)data; /* only read */
        set->loose = bits;
        TRY(vae_stream_skip(s, set->n * row, "npy data", err));
    } else if (bits) {
        TRY(read_bools_as_bits(s, set, err));
    } else if (doubles) {
        TRY(read_doubles_as_floats(s, set, options->exact, err));
    } else {
        TRY(vae_stream_read_new(s, &bytes, set->n * row, "npy data", err));
        set->rows = bytes;
    }
    TRY(vae_stream_skip(s, (n_total - set->n) * row, "npy data", err));
    TRY(vae_stream_expect_end(s, err));
done:
    return status;
}

static vae_status load(vae_dataset *set, vae_stream *s, const vae_data_options *options,
                       vae_error *err)
{
    npy_header header;
    vae_status status = VAE_OK;
    TRY(read_header(s, &header, err));
    TRY(vae_npy_shape_set(set, &header, vae_stream_name(s), err));
    const size_t n_total = set->n, limit = options->limit;
    set->n = limit > 0 && limit < n_total ? limit : n_total;
    TRY(take_rows(set, s, &header, n_total, options, err));
done:
    return status;
}

static const uint8_t magic[2] = {0x93, 'N'};

const vae_reader vae_npy_reader = {.name = "NPY",
                                   .source = VAE_SOURCE_FILE,
                                   .endings = {".npy"},
                                   .magic = magic,
                                   .load_stream = load};
