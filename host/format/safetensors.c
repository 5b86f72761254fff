/* safetensors: headers parsed, checked and written. */
#include "format/safetensors.h"

#include <errno.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/file.h"
#include "base/json.h"
#include "base/stream.h"

/* Bytes of an item; 0 = a type that safetensors does not have, or one of less than a byte. */
static size_t dtype_bytes(const char *dtype)
{
    static const struct {
        const char *name;
        size_t bytes;
    } types[] = {{"F32", 4}, {"F64", 8},     {"F16", 2},     {"BF16", 2}, {"I64", 8},    {"I32", 4},
                 {"I16", 2}, {"I8", 1},      {"U8", 1},      {"U16", 2},  {"U32", 4},    {"U64", 8},
                 {"C64", 8}, {"F8_E4M3", 1}, {"F8_E5M2", 1}, {"BOOL", 1}, {"F8_E8M0", 1}};
    for (size_t i = 0; i < sizeof types / sizeof types[0]; i++) {
        if (strcmp(dtype, types[i].name) == 0) {
            return types[i].bytes;
        }
    }
    return 0;
}

/* ---- reading ---- */

/* A number of bytes or items: an integer, not negative. */
static bool read_size(const json_t *value, uint64_t *out)
{
    if (!json_is_integer(value) || json_integer_value(value) < 0) {
        return false;
    }
    *out = (uint64_t)json_integer_value(value);
    return true;
}

static vae_status read_shape(vae_st_tensor *t, const json_t *shape, vae_error *err)
{
    if (!json_is_array(shape)) {
        return vae_fail(err, VAE_ERR_DATA, "tensor '%.100s': expected a list as its shape",
                        t->name);
    }
    if (json_array_size(shape) > VAE_ST_MAX_DIMS) {
        return vae_fail(err, VAE_ERR_DATA,
                        "tensor '%.100s': expected at most %d dimensions, found %zu", t->name,
                        VAE_ST_MAX_DIMS, json_array_size(shape));
    }
    t->n_items = 1;
    t->ndim = json_array_size(shape);
    for (size_t i = 0; i < t->ndim; i++) {
        uint64_t size;
        if (!read_size(json_array_get(shape, i), &size)) {
            return vae_fail(err, VAE_ERR_DATA,
                            "tensor '%.100s': dimension %zu is not a whole number from 0", t->name,
                            i);
        }
        t->shape[i] = (size_t)size;
        if (!vae_checked_mul(t->n_items, t->shape[i], &t->n_items)) {
            return vae_fail(err, VAE_ERR_DATA, "tensor '%.100s': its shape overflows", t->name);
        }
    }
    return VAE_OK;
}

static vae_status read_offsets(vae_st_tensor *t, const json_t *offsets, uint64_t data_bytes,
                               vae_error *err)
{
    size_t bytes;
    if (!json_is_array(offsets) || json_array_size(offsets) != 2 ||
        !read_size(json_array_get(offsets, 0), &t->begin) ||
        !read_size(json_array_get(offsets, 1), &t->end)) {
        return vae_fail(err, VAE_ERR_DATA,
                        "tensor '%.100s': expected data_offsets [begin, end] in whole numbers",
                        t->name);
    }
    if (t->begin > t->end || t->end > data_bytes) {
        return vae_fail(err, VAE_ERR_DATA,
                        "tensor '%.100s': data_offsets [%llu, %llu] are outside the %llu bytes of "
                        "data; the file is cut short or damaged",
                        t->name, (unsigned long long)t->begin, (unsigned long long)t->end,
                        (unsigned long long)data_bytes);
    }
    if (!vae_checked_mul(t->n_items, t->item_bytes, &bytes) || bytes != t->end - t->begin) {
        return vae_fail(err, VAE_ERR_DATA,
                        "tensor '%.100s': its shape and %s need %zu items of %zu bytes, its "
                        "data_offsets span %llu bytes",
                        t->name, t->dtype, t->n_items, t->item_bytes,
                        (unsigned long long)(t->end - t->begin));
    }
    return VAE_OK;
}

static vae_status read_entry(vae_st_tensor *t, const char *name, const json_t *entry,
                             uint64_t data_bytes, vae_error *err)
{
    t->name = strdup(name);
    if (t->name == NULL) {
        return vae_fail_memory(err, strlen(name), "a tensor's name");
    }
    const char *dtype = json_string_value(json_object_get(entry, "dtype"));
    if (!json_is_object(entry) || dtype == NULL) {
        return vae_fail(err, VAE_ERR_DATA,
                        "tensor '%.100s': expected {\"dtype\", \"shape\", \"data_offsets\"}", name);
    }
    t->item_bytes = dtype_bytes(dtype);
    if (t->item_bytes == 0) {
        return vae_fail(err, VAE_ERR_DATA, "tensor '%.100s': unknown dtype '%.40s'; expected F32",
                        name, dtype);
    }
    snprintf(t->dtype, sizeof t->dtype, "%s", dtype);
    vae_status status = VAE_OK;
    TRY(read_shape(t, json_object_get(entry, "shape"), err));
    TRY(read_offsets(t, json_object_get(entry, "data_offsets"), data_bytes, err));
done:
    return status;
}

static vae_status read_metadata(vae_safetensors *st, const json_t *metadata, vae_error *err)
{
    const char *key;
    json_t *value;
    if (!json_is_object(metadata)) {
        return vae_fail(err, VAE_ERR_DATA, "__metadata__: expected an object of strings");
    }
    json_object_foreach((json_t *)(uintptr_t)metadata, key, value)
    {
        if (!json_is_string(value)) {
            return vae_fail(err, VAE_ERR_DATA, "__metadata__: '%.100s' is not a string", key);
        }
    }
    st->metadata = json_dumps(metadata, JSON_COMPACT);
    return st->metadata != NULL ? VAE_OK : vae_fail_memory(err, 0, "a file's metadata");
}

static int by_offset(const void *a, const void *b)
{
    const vae_st_tensor *x = a, *y = b;
    if (x->begin != y->begin) {
        return x->begin < y->begin ? -1 : 1;
    }
    if (x->end != y->end) {
        return x->end < y->end ? -1 : 1;
    }
    return strcmp(x->name, y->name);
}

/* The data must be used up, each byte once. */
static vae_status check_cover(vae_safetensors *st, uint64_t data_bytes, vae_error *err)
{
    uint64_t at = 0;
    if (st->n > 0) {
        qsort(st->tensors, st->n, sizeof *st->tensors, by_offset);
    }
    for (size_t i = 0; i < st->n; i++) {
        const vae_st_tensor *t = &st->tensors[i];
        if (t->begin != at) {
            return vae_fail(err, VAE_ERR_DATA,
                            "tensor '%.100s': expected its data at offset %llu, found %llu: the "
                            "data %s",
                            t->name, (unsigned long long)at, (unsigned long long)t->begin,
                            t->begin > at ? "has a hole" : "overlaps");
        }
        at = t->end;
    }
    if (at != data_bytes) {
        return vae_fail(err, VAE_ERR_DATA,
                        "the header describes %llu bytes of data, the file has %llu",
                        (unsigned long long)at, (unsigned long long)data_bytes);
    }
    return VAE_OK;
}

static vae_status read_root(vae_safetensors *out, const json_t *root, uint64_t data_bytes,
                            vae_error *err)
{
    const char *key;
    json_t *value;
    if (!json_is_object(root)) {
        return vae_fail(err, VAE_ERR_DATA, "safetensors header: expected a JSON object");
    }
    out->tensors = calloc(json_object_size(root) + 1, sizeof *out->tensors);
    if (out->tensors == NULL) {
        return vae_fail_memory(err, json_object_size(root) * sizeof *out->tensors,
                               "a table of tensors");
    }
    vae_status status = VAE_OK;
    json_object_foreach((json_t *)(uintptr_t)root, key, value)
    {
        TRY(strcmp(key, "__metadata__") == 0
                ? read_metadata(out, value, err)
                : read_entry(&out->tensors[out->n++], key, value, data_bytes, err));
    }
    TRY(check_cover(out, data_bytes, err));
done:
    return status;
}

vae_status vae_safetensors_parse(vae_safetensors *out, const char *json, size_t n,
                                 uint64_t data_bytes, vae_error *err)
{
    *out = (vae_safetensors){.data_offset = 8 + (uint64_t)n};
    json_error_t why;
    json_t *root;
    vae_status status = vae_json_read(&root, json, n, JSON_REJECT_DUPLICATES, &why);
    if (status == VAE_ERR_RUNTIME) {
        return vae_fail(err, status, "out of memory for a safetensors header");
    }
    if (status != VAE_OK) {
        return vae_fail(err, status, "safetensors header: %s at byte %d", why.text, why.position);
    }
    status = read_root(out, root, data_bytes, err);
    json_decref(root);
    if (status != VAE_OK) {
        vae_safetensors_clear(out);
    }
    return status;
}

vae_status vae_safetensors_read(vae_safetensors *out, int fd, uint64_t file_bytes, const char *name,
                                vae_error *err)
{
    *out = (vae_safetensors){0};
    uint8_t prefix[8];
    uint64_t n = 0;
    const ssize_t got = vae_read_at(fd, prefix, sizeof prefix, 0);
    if (got < 0) {
        return vae_fail(err, VAE_ERR_IO, "%s: cannot read: %s", name, strerror(errno));
    }
    if (file_bytes < sizeof prefix || got != sizeof prefix) {
        return vae_fail(err, VAE_ERR_DATA,
                        "%s: expected a safetensors file (at least 10 bytes), found %llu bytes",
                        name, (unsigned long long)file_bytes);
    }
    for (size_t i = 8; i-- > 0;) {
        n = n << 8 | prefix[i];
    }
    if (n > VAE_ST_MAX_HEADER || n > file_bytes - sizeof prefix) {
        return vae_fail(err, VAE_ERR_DATA,
                        "%s: says its header is %llu bytes long; expected at most %llu: it is cut "
                        "short or not a safetensors file",
                        name, (unsigned long long)n,
                        (unsigned long long)(file_bytes - sizeof prefix));
    }
    char *json = malloc((size_t)n + 1);
    if (json == NULL) {
        return vae_fail_memory(err, n, "a safetensors header");
    }
    vae_error why = {0};
    vae_status status = VAE_OK;
    const ssize_t held = vae_read_at(fd, json, (size_t)n, sizeof prefix);
    if (held != (ssize_t)n) {
        status = vae_fail(&why, VAE_ERR_IO, "cannot read the header: %s",
                          held < 0 ? strerror(errno) : "the file has become shorter");
    } else {
        status = vae_safetensors_parse(out, json, (size_t)n, file_bytes - sizeof prefix - n, &why);
    }
    free(json);
    return status == VAE_OK ? VAE_OK : vae_fail(err, status, "%s: %s", name, why.text);
}

void vae_safetensors_clear(vae_safetensors *st)
{
    for (size_t i = 0; i < st->n; i++) {
        free(st->tensors[i].name);
    }
    free(st->tensors);
    free(st->metadata);
    *st = (vae_safetensors){0};
}

/* ---- writing ---- */

static int by_name(const void *a, const void *b)
{
    const vae_named_tensor *const *x = a, *const *y = b;
    return strcmp((*x)->name, (*y)->name);
}

static json_t *make_entry(const vae_named_tensor *t, uint64_t begin)
{
    json_t *shape = json_array();
    for (size_t i = 0; i < t->ndim; i++) {
        if (json_array_append_new(shape, json_integer((json_int_t)t->shape[i])) != 0) {
            json_decref(shape);
            return NULL;
        }
    }
    return json_pack("{s:s, s:o, s:[I,I]}", "dtype", "F32", "shape", shape, "data_offsets",
                     (json_int_t)begin, (json_int_t)(begin + t->n * sizeof(float)));
}

/* The header's text, malloc'ed; NULL out of memory. */
static char *make_header(const vae_named_tensor *const *sorted, size_t n,
                         const vae_metadata *metadata)
{
    json_t *root = json_object(), *texts = json_object();
    bool ok = json_object_set_new(texts, "format", json_string("pt")) == 0;
    for (size_t i = 0; i < metadata->n && ok; i++) {
        const vae_metadata_pair *p = &metadata->pairs[i];
        ok = json_object_set_new(texts, p->key, json_string(p->value)) == 0;
    }
    ok = ok && json_object_set(root, "__metadata__", texts) == 0;
    uint64_t begin = 0;
    for (size_t i = 0; i < n && ok; i++) {
        ok = json_object_set_new(root, sorted[i]->name, make_entry(sorted[i], begin)) == 0;
        begin += sorted[i]->n * sizeof(float);
    }
    char *text = ok ? json_dumps(root, JSON_COMPACT) : NULL;
    json_decref(texts);
    json_decref(root);
    return text;
}

void vae_safetensors_build(vae_parts *out, const vae_named_tensor *tensors, size_t n,
                           const float *packed, const vae_metadata *metadata)
{
    const vae_named_tensor **sorted = malloc((n + 1) * sizeof *sorted);
    char *header = NULL;
    if (sorted != NULL) {
        for (size_t i = 0; i < n; i++) {
            sorted[i] = &tensors[i];
        }
        qsort(sorted, n, sizeof *sorted, by_name);
        header = make_header(sorted, n, metadata);
    }
    if (header == NULL) {
        out->failed = true;
        free(sorted);
        return;
    }
    const uint64_t length = strlen(header), padded = (length + 7) / 8 * 8;
    uint8_t prefix[8];
    for (size_t i = 0; i < sizeof prefix; i++) {
        prefix[i] = (uint8_t)(padded >> 8 * i);
    }
    vae_parts_copy(out, prefix, sizeof prefix);
    vae_parts_own(out, header, length);
    vae_parts_borrow(out, "       ", padded - length);
    for (size_t i = 0; i < n; i++) {
        vae_parts_borrow(out, packed + sorted[i]->offset, sorted[i]->n * sizeof(float));
    }
    free(sorted);
}
