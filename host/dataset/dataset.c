/* The data set: what readers and users of its rows share. */
#include "dataset/dataset.h"

#include <float.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/stream.h"
#include "dataset/readers.h"

#if __BYTE_ORDER__ != __ORDER_LITTLE_ENDIAN__
#error "npy data and content hashes are read as little-endian; this machine is not"
#endif

size_t vae_row_bytes(vae_dtype dtype, size_t d)
{
    if (dtype == VAE_BITS) {
        return (d + 7) / 8;
    }
    return dtype == VAE_U8 ? d : d * sizeof(float);
}

/* Eight booleans at once: the product brings bit 0 of byte j to bit 56 + j. */
void vae_pack_bools(uint8_t *bits, const uint8_t *bools, size_t n)
{
    for (size_t j = 0; j < n; j += 8) {
        uint64_t eight = 0;
        memcpy(&eight, bools + j, n - j < 8 ? n - j : 8);
        bits[j / 8] = (uint8_t)(eight * 0x0102040810204080u >> 56);
    }
}

vae_status vae_dataset_check_file(const vae_dataset *set, vae_error *err)
{
    return set->map != NULL ? vae_map_check(set->map, err) : VAE_OK;
}

void vae_dataset_in_order(const vae_dataset *set, bool in_order)
{
    if (set->map != NULL) {
        (in_order ? vae_map_in_order : vae_map_at_random)(set->map);
    }
}

void vae_dataset_fetch(const vae_dataset *set, const uint32_t *rows, size_t n)
{
    enum { NEAR = 32 << 10 }; /* bytes between rows that are brought together */
    const size_t stride = vae_dataset_stride(set);
    size_t begin = 0, end = 0;
    if (set->map == NULL) {
        return;
    }
    const size_t base = (size_t)((const uint8_t *)set->rows - vae_map_bytes(set->map));
    for (size_t i = 0; i < n; i++) {
        const size_t at = base + rows[i] * stride;
        if (end == 0 || at < begin || at > end + NEAR) {
            vae_map_fetch(set->map, begin, end - begin);
            begin = at;
            end = at;
        }
        end = at + stride > end ? at + stride : end;
    }
    vae_map_fetch(set->map, begin, end - begin);
}

/* Rows that lie in a map come into memory. */
static vae_status own_rows(vae_dataset *set, vae_error *err)
{
    const size_t width = vae_dataset_row_bytes(set);
    uint8_t *rows = NULL;
    vae_status status = VAE_OK;
    if (set->map == NULL) {
        return VAE_OK;
    }
    TRY(vae_check_memory(set->n * width, set->source, err));
    rows = malloc(set->n * width);
    if (rows == NULL) {
        TRY(vae_fail_memory(err, set->n * width, "rows"));
    }
    vae_dataset_in_order(set, true);
    for (size_t i = 0; i < set->n; i++) {
        const void *row = vae_dataset_row(set, i, rows + i * width);
        if (!set->loose) {
            memcpy(rows + i * width, row, width);
        }
    }
    TRY(vae_map_check(set->map, err));
    vae_map_close(set->map);
    set->map = NULL;
    set->loose = false;
    set->rows = rows;
    rows = NULL;
done:
    free(rows);
    return status;
}

vae_status vae_dataset_take_rows(vae_dataset *set, void **rows, vae_error *err)
{
    const vae_status status = own_rows(set, err);
    *rows = status == VAE_OK ? set->rows : NULL;
    set->rows = status == VAE_OK ? NULL : set->rows;
    return status;
}

vae_status vae_labels_from_numbers(vae_dataset *set, const double *values, double below,
                                   const char *name, vae_error *err)
{
    enum { RECENT = 1024 }; /* values whose place is known without looking it up */
    struct {
        double value;
        uint32_t label;
    } *recent = calloc(RECENT, sizeof *recent);
    vae_labeller l = {0};
    vae_status status = VAE_OK;
    set->labels = malloc(set->n * sizeof *set->labels);
    if (recent == NULL || set->labels == NULL) {
        TRY(vae_fail_memory(err, set->n * sizeof *set->labels, "labels"));
    }
    for (size_t i = 0; i < RECENT; i++) {
        recent[i].value = NAN;
    }
    for (size_t i = 0; i < set->n; i++) {
        char text[32];
        if (isnan(values[i])) { /* how arrays of floats say that there is none */
            set->labels[i] = VAE_NO_LABEL;
            continue;
        }
        if (!(fabs(values[i]) < below) || values[i] != floor(values[i])) {
            TRY(vae_fail(err, VAE_ERR_DATA,
                         "%s: label of row %zu: expected a whole number, found %.17g", name, i,
                         values[i]));
        }
        const size_t at = (size_t)(int64_t)values[i] % RECENT;
        if (recent[at].value != values[i]) {
            snprintf(text, sizeof text, "%.0f", values[i] + 0.0);
            recent[at].value = values[i];
            TRY(vae_labeller_take(&l, text, &recent[at].label, err));
        }
        set->labels[i] = recent[at].label;
        if (set->labels[i] == VAE_NO_LABEL) {
            TRY(vae_fail(err, VAE_ERR_DATA, "%s: label of row %zu: more than %d classes", name, i,
                         VAE_MAX_CLASSES));
        }
    }
    TRY(vae_labeller_finish(&l, &set->classes, set->labels, set->n, err));
done:
    vae_labeller_clear(&l);
    free(recent);
    return status;
}

vae_status vae_dataset_map_classes(vae_dataset *set, const vae_classes *known, vae_error *err)
{
    vae_labeller l = {0};
    uint32_t *place = NULL;
    vae_status status = VAE_OK;
    if (set->labels == NULL || known->n == 0) {
        return VAE_OK;
    }
    place = malloc((known->n + set->classes.n) * sizeof *place);
    if (place == NULL) {
        TRY(vae_fail_memory(err, set->classes.n * sizeof *place, "names of classes"));
    }
    for (size_t i = 0; i < known->n; i++) { /* in their order: each gets its own place */
        TRY(vae_labeller_take(&l, known->name[i], &place[i], err));
    }
    for (size_t i = 0; i < set->classes.n; i++) {
        TRY(vae_labeller_take(&l, set->classes.name[i], &place[i], err));
    }
    for (size_t i = 0; i < set->n; i++) {
        set->labels[i] = set->labels[i] != VAE_NO_LABEL ? place[set->labels[i]] : VAE_NO_LABEL;
    }
    vae_classes_clear(&set->classes);
    set->classes = l.seen;
    l.seen = (vae_classes){0};
done:
    vae_labeller_clear(&l);
    free(place);
    return status;
}

static void free_rows(vae_dataset *set)
{
    if (set->map != NULL) {
        vae_map_close(set->map);
    } else {
        free(set->rows);
    }
    free(set->sums);
    free(set->wide);
    free(set->labels);
    free(set->factors);
    free(set->picked);
    free(set->place);
    if (set->whole != NULL) {
        free_rows(set->whole);
        free(set->whole);
    }
}

void vae_left_out_free(vae_left_out *files, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        free(files[i].file);
        free(files[i].why);
    }
    free(files);
}

void vae_dataset_free(vae_dataset *set)
{
    if (set == NULL) {
        return;
    }
    free_rows(set);
    vae_left_out_free(set->left_out, set->n_left_out);
    vae_classes_clear(&set->classes);
    for (size_t i = 0; set->column_names != NULL && i < set->d; i++) {
        free(set->column_names[i]);
    }
    free(set->column_names);
    free(set);
}

static vae_status need_floats(const vae_dataset *set, vae_error *err)
{
    return set->dtype == VAE_F32
               ? VAE_OK
               : vae_fail(err, VAE_ERR_DATA,
                          "%s: holds bytes; columns of floats can be standardized, bytes are "
                          "value/255 already",
                          set->source);
}

const char *vae_dataset_column(const vae_dataset *set, size_t column, char text[64])
{
    if (set->column_names != NULL) {
        snprintf(text, 64, "'%.40s'", set->column_names[column]);
    } else {
        snprintf(text, 64, "%zu", column);
    }
    return text;
}

/* A value before standardization. */
static double value_of(const vae_dataset *set, size_t i)
{
    return set->wide != NULL ? set->wide[i] : (double)((const float *)set->rows)[i];
}

/* Sums of (x - around)^2; without `around`, of x - the first x: columns may lie far from 0. */
static void sum_columns(const vae_dataset *set, const uint32_t *index, size_t n,
                        const double *around, double *sum)
{
    const size_t d = set->d, first = index != NULL ? index[0] : 0;
    for (size_t col = 0; col < d; col++) {
        sum[col] = 0;
    }
    for (size_t i = 0; i < n; i++) {
        const size_t row = index != NULL ? index[i] : i;
        for (size_t col = 0; col < d; col++) {
            const double from = around != NULL ? around[col] : value_of(set, first * d + col);
            const double v = value_of(set, row * d + col) - from;
            sum[col] += around != NULL ? v * v : v;
        }
    }
}

vae_status vae_dataset_moments(const vae_dataset *set, const uint32_t *index, size_t n,
                               double *shift, double *scale, vae_error *err)
{
    /* a spread that rounding alone could make is none */
    const double grain = set->wide != NULL ? DBL_EPSILON : FLT_EPSILON;
    const size_t first = index != NULL ? index[0] : 0;
    char name[64];
    vae_status status = VAE_OK;
    TRY(need_floats(set, err));
    sum_columns(set, index, n, NULL, shift);
    for (size_t col = 0; col < set->d; col++) {
        shift[col] = value_of(set, first * set->d + col) + shift[col] / (double)n;
    }
    sum_columns(set, index, n, shift, scale);
    for (size_t col = 0; col < set->d; col++) {
        const double sd = sqrt(scale[col] / (double)n);
        scale[col] = sd > grain * fabs(shift[col]) ? sd : 1;
        if (scale[col] != sd && sd > DBL_EPSILON * fabs(shift[col])) {
            vae_note(err != NULL ? err->notes : NULL,
                     "warning: %s: column %s varies by no more than the rounding of its values, "
                     "%g around %.9g, and is taken as constant: subtract a number near them first",
                     set->source, vae_dataset_column(set, col, name), sd, shift[col]);
        }
    }
done:
    return status;
}

/* What was known of the rows is no longer so. */
static void forget_values(vae_dataset *set)
{
    set->facts = (vae_facts){0};
    free(set->sums);
    set->sums = NULL;
}

vae_status vae_dataset_standardize(vae_dataset *set, const double *shift, const double *scale,
                                   vae_error *err)
{
    vae_status status = VAE_OK;
    TRY(need_floats(set, err));
    TRY(own_rows(set, err));
    float *rows = set->rows;
    for (size_t i = 0; i < set->n * set->d; i += set->d) {
        for (size_t col = 0; col < set->d; col++) {
            rows[i + col] = (float)((value_of(set, i + col) - shift[col]) / scale[col]);
        }
    }
    forget_values(set);
    free(set->wide);
    set->wide = NULL;
done:
    return status;
}

/* The items, `bytes` each, that index names, malloc'ed; NULL: there are none, or no memory. */
static void *pick(const void *items, size_t bytes, const uint32_t *index, size_t n)
{
    uint8_t *to = items != NULL ? malloc(n * bytes) : NULL;
    for (size_t i = 0; to != NULL && i < n; i++) {
        memcpy(to + i * bytes, (const uint8_t *)items + index[i] * bytes, bytes);
    }
    return to;
}

/* The same of the rows. */
static void *pick_rows(const vae_dataset *set, const uint32_t *index, size_t n)
{
    const size_t width = vae_dataset_row_bytes(set);
    uint8_t *to = malloc(n * width);
    for (size_t i = 0; to != NULL && i < n; i++) {
        const void *row = vae_dataset_row(set, index[i], to + i * width);
        if (!set->loose) {
            memcpy(to + i * width, row, width);
        }
    }
    return to;
}

vae_status vae_dataset_pick(vae_dataset *set, const uint32_t *index, size_t n, vae_error *err)
{
    const size_t row = vae_dataset_row_bytes(set), label = sizeof *set->labels;
    const size_t factors = set->n_factors * sizeof *set->factors, wide = set->d * sizeof *set->wide;
    vae_dataset now = *set;
    now.n = n;
    now.map = NULL;
    now.loose = false;
    now.sums = NULL;
    now.facts = (vae_facts){0};
    now.rows = pick_rows(set, index, n);
    now.wide = pick(set->wide, wide, index, n);
    now.labels = pick(set->labels, label, index, n);
    now.factors = pick(set->factors, factors, index, n);
    now.factor_sizes = NULL; /* no whole grid any more */
    now.picked = malloc(n * sizeof *now.picked);
    now.place = malloc(n * sizeof *now.place);
    now.whole = malloc(sizeof *now.whole);
    const bool room = now.picked != NULL && now.place != NULL && now.whole != NULL;
    for (size_t i = 0; room && i < n; i++) {
        now.picked[i] = (uint32_t)vae_dataset_number(set, index[i]);
        now.place[i] = set->place != NULL ? set->place[index[i]] : index[i];
    }
    const bool ok = now.rows != NULL && room && (now.wide != NULL) == (set->wide != NULL) &&
                    (now.labels != NULL) == (set->labels != NULL) &&
                    (now.factors != NULL) == (set->factors != NULL);
    if (!ok) {
        free(now.whole);
        now.whole = NULL;
        free_rows(&now);
        return vae_fail_memory(err, n * (row + label + factors), "a part of the rows");
    }
    const vae_status unchanged = vae_dataset_check_file(set, err); /* of which this is a copy */
    if (unchanged != VAE_OK) {
        free(now.whole);
        now.whole = NULL;
        free_rows(&now);
        return unchanged;
    }
    if (set->whole != NULL) { /* picked again: from the same */
        free(now.whole);
        now.whole = set->whole;
        set->whole = NULL;
        free_rows(set);
    } else {
        *now.whole = *set;
    }
    *set = now;
    return VAE_OK;
}

float vae_dataset_value(const vae_dataset *set, size_t row, size_t col)
{
    if (set->loose) {
        return (float)((const uint8_t *)set->rows)[row * set->d + col];
    }
    if (set->dtype == VAE_BITS) {
        const uint8_t *bits = (const uint8_t *)set->rows + row * vae_row_bytes(VAE_BITS, set->d);
        return (float)(bits[col / 8] >> col % 8 & 1);
    }
    size_t i = row * vae_dataset_width(set) + col;
    return set->dtype == VAE_U8 ? (float)((const uint8_t *)set->rows)[i] / 255.0f
                                : ((const float *)set->rows)[i];
}

vae_status vae_dataset_check_labels(const vae_dataset *set, size_t n_classes, bool all,
                                    vae_error *err)
{
    char text[VAE_CLASSES_TEXT];
    if (set->labels == NULL) {
        return vae_fail(err, VAE_ERR_DATA, "%s: no labels; the model needs the class of each row",
                        set->source);
    }
    for (size_t i = 0; i < set->n; i++) {
        const vae_classes known = {set->classes.name,
                                   n_classes < set->classes.n ? n_classes : set->classes.n};
        if (set->labels[i] == VAE_NO_LABEL && all) {
            return vae_fail(err, VAE_ERR_DATA,
                            "%s: row %zu: no label; the model needs the class of each row",
                            set->source, i);
        }
        if (set->labels[i] != VAE_NO_LABEL && set->labels[i] >= n_classes) {
            return vae_fail(err, VAE_ERR_DATA,
                            "%s: row %zu: class '%.40s' is none of the model's %zu: %s",
                            set->source, i, set->classes.name[set->labels[i]], n_classes,
                            vae_classes_text(text, &known));
        }
    }
    return VAE_OK;
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
