/* What a file's metadata say of the data: shape, standardization, names of columns and of
 * classes. */
#include <jansson.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/json.h"
#include "base/text.h"
#include "exchange/exchange.h"
#include "exchange/import_weights.h"

const char *vae_metadata_text(const json_t *metadata, const char *key)
{
    return json_string_value(json_object_get(metadata, key));
}

/* ---- shape of the data ---- */

static size_t root_of(size_t n)
{
    size_t side = (size_t)sqrt((double)n);
    return side * side == n ? side : 0;
}

vae_status vae_import_shape(vae_checkpoint *c, const vae_weights *w, const json_t *metadata,
                            const vae_import_options *options, vae_error *err)
{
    const char *text = vae_metadata_text(metadata, "data_shape");
    size_t h = options->height, width = options->width, channels = options->channels, product;
    const bool given = h > 0;
    if (!given && text != NULL && sscanf(text, "[%zu,%zu,%zu]", &h, &width, &channels) != 3) {
        return vae_fail(err, VAE_ERR_DATA,
                        "%s: metadata: data_shape: expected [height,width,channels], found %.60s",
                        w->path, text);
    }
    if (h == 0) { /* a guess: a square in grey, or in colour, or a row */
        const size_t grey = root_of(c->d), colour = c->d % 3 == 0 ? root_of(c->d / 3) : 0;
        h = grey >= 8 ? grey : colour;
        channels = grey < 8 && colour >= 8 ? 3 : 1;
        h = h >= 8 ? h : 1;
        width = c->d / h / channels;
    }
    const bool fits = !__builtin_mul_overflow(h, width, &product) &&
                      !__builtin_mul_overflow(product, channels, &product) && product == c->d;
    if (!fits && given) {
        return vae_fail(err, VAE_ERR_USAGE,
                        "a shape of %zux%zux%zu is not %zu values, which the tensors of %s take", h,
                        width, channels, c->d, w->path);
    }
    if (!fits) {
        return vae_fail(err, VAE_ERR_DATA,
                        "%s: metadata says data_shape %.60s, but the tensors take %zu values",
                        w->path, text, c->d);
    }
    c->height = h;
    c->width = width;
    c->channels = channels;
    return VAE_OK;
}

vae_status vae_metadata_json(json_t **out, const json_t *metadata, const char *key, vae_error *err)
{
    const char *text = vae_metadata_text(metadata, key);
    *out = NULL;
    return text != NULL && vae_json_read(out, text, strlen(text), 0, NULL) == VAE_ERR_RUNTIME
               ? vae_fail(err, VAE_ERR_RUNTIME, "out of memory for the metadata '%s'", key)
               : VAE_OK;
}

/* ---- standardization ---- */

static vae_status read_row(double *row, size_t d, const json_t *metadata, bool above_zero,
                           const vae_weights *w, const char *key, vae_error *err)
{
    json_t *array = NULL;
    vae_status status = vae_metadata_json(&array, metadata, key, err);
    if (status != VAE_OK) {
        return status;
    }
    bool good = json_array_size(array) == d;
    for (size_t i = 0; good && i < d; i++) {
        const json_t *value = json_array_get(array, i);
        row[i] = json_number_value(value);
        good = json_is_number(value) && isfinite(row[i]) && (!above_zero || row[i] > 0);
    }
    json_decref(array);
    return good ? VAE_OK
                : vae_fail(err, VAE_ERR_DATA, "%s: metadata: %s: expected an array of %zu %s",
                           w->path, key, d, above_zero ? "numbers above 0" : "numbers");
}

static vae_status standard(vae_checkpoint *c, const vae_weights *w, const json_t *metadata,
                           vae_error *err)
{
    const char *shift = vae_metadata_text(metadata, "data_shift");
    const char *scale = vae_metadata_text(metadata, "data_scale");
    vae_status status = VAE_OK;
    if (shift == NULL && scale == NULL) {
        return VAE_OK;
    }
    c->standard = malloc(2 * c->d * sizeof *c->standard);
    if (c->standard == NULL) {
        TRY(vae_fail_memory(err, 2 * c->d * sizeof *c->standard, "shift and scale"));
    }
    TRY(read_row(c->standard, c->d, metadata, false, w, "data_shift", err));
    TRY(read_row(c->standard + c->d, c->d, metadata, true, w, "data_scale", err));
done:
    return status;
}

/* ---- names of columns ---- */

static vae_status columns(vae_checkpoint *c, const vae_weights *w, const json_t *metadata,
                          vae_error *err)
{
    const char *text = vae_metadata_text(metadata, "columns");
    json_t *names = NULL;
    const char **list = NULL;
    vae_status status = VAE_OK;
    if (text == NULL) {
        return VAE_OK;
    }
    TRY(vae_metadata_json(&names, metadata, "columns", err));
    bool good = json_array_size(names) == c->d;
    list = calloc(c->d, sizeof *list);
    if (list == NULL) {
        TRY(vae_fail_memory(err, c->d * sizeof *list, "the names of columns"));
    }
    for (size_t i = 0; good && i < c->d; i++) {
        list[i] = json_string_value(json_array_get(names, i));
        good = list[i] != NULL;
    }
    if (!good) {
        TRY(vae_fail(err, VAE_ERR_DATA, "%s: metadata: columns: expected an array of %zu names",
                     w->path, c->d));
    }
    c->columns = vae_join_names(list, c->d);
    if (c->columns == NULL) {
        TRY(vae_fail_memory(err, c->d, "the names of columns"));
    }
done:
    free(list);
    json_decref(names);
    return status;
}

/* ---- names of classes ---- */

static vae_status class_rows(vae_checkpoint *c, const vae_weights *w, const json_t *metadata,
                             vae_error *err)
{
    json_t *array;
    vae_status status = VAE_OK;
    TRY(vae_metadata_json(&array, metadata, "class_rows", err));
    bool good = json_array_size(array) == c->classes.n;
    c->class_rows = calloc(c->classes.n, sizeof *c->class_rows);
    if (c->class_rows == NULL) {
        TRY(vae_fail_memory(err, c->classes.n * sizeof *c->class_rows, "the rows of classes"));
    }
    for (size_t i = 0; good && i < c->classes.n; i++) {
        const json_t *value = json_array_get(array, i);
        good = json_is_integer(value) && json_integer_value(value) >= 0;
        c->class_rows[i] = good ? (uint64_t)json_integer_value(value) : 0;
    }
    if (!good) {
        TRY(vae_fail(err, VAE_ERR_DATA,
                     "%s: metadata: class_rows: expected an array of %zu numbers of rows", w->path,
                     c->classes.n));
    }
done:
    json_decref(array);
    return status;
}

static vae_status classes(vae_checkpoint *c, const vae_weights *w, const json_t *metadata,
                          vae_error *err)
{
    const char *text = vae_metadata_text(metadata, "classes");
    const char *rows = vae_metadata_text(metadata, "class_rows");
    json_t *names;
    vae_labeller l = {0};
    vae_error why = {0};
    vae_status status = VAE_OK;
    TRY(vae_metadata_json(&names, metadata, "classes", err));
    bool good = json_array_size(names) > 0;
    for (size_t i = 0; good && i < json_array_size(names); i++) {
        const char *name = json_string_value(json_array_get(names, i));
        uint32_t label;
        good = name != NULL && vae_class_fault(name) == NULL;
        if (good) {
            TRY(vae_labeller_take(&l, name, &label, err));
            good = label == i;
        }
    }
    if (text != NULL && !good) {
        TRY(vae_fail(err, VAE_ERR_DATA,
                     "%s: metadata: classes: expected an array of names, no two "
                     "alike",
                     w->path));
    }
    c->classes = l.seen;
    c->classes_known = text != NULL;
    l.seen = (vae_classes){0};
    if (vae_checkpoint_settle_classes(c, &why) != VAE_OK) {
        TRY(vae_fail(err, why.status, "%s: metadata: %.900s", w->path, why.text));
    }
    if (rows != NULL && c->classes_known) {
        TRY(class_rows(c, w, metadata, err));
    }
done:
    vae_labeller_clear(&l);
    json_decref(names);
    return status;
}

vae_status vae_import_data(vae_checkpoint *c, const vae_weights *w, const json_t *metadata,
                           vae_error *err)
{
    vae_status status = VAE_OK;
    TRY(standard(c, w, metadata, err));
    TRY(columns(c, w, metadata, err));
    TRY(classes(c, w, metadata, err));
done:
    return status;
}
