/* Which rows train, which keep their label and which validate; what they look like on average. */
#include "train/rows.h"

#include <stdlib.h>
#include <string.h>

#include "base/text.h"
#include "philox.h"
#include "train/schedule.h"

/* ---- data that suit the options ---- */

vae_status vae_train_check_set(const vae_config *config, const vae_dataset *set, vae_error *err)
{
    if (set->dtype == VAE_BITS && config->binarize != VAE_BINARIZE_NONE) {
        return vae_fail(
            err, VAE_ERR_USAGE,
            "--binarize has no effect: the values of %s are bits, 0 or 1 already; leave "
            "it out",
            set->source);
    }
    return vae_dataset_check_range(set, config->likelihood, config->mean, err);
}

vae_status vae_loop_check_data(const vae_loop *l, vae_error *err)
{
    const vae_dataset *train = l->train_set, *test = l->test_set;
    vae_status status = VAE_OK;
    TRY(vae_train_check_set(l->config, train, err));
    if (test == NULL) {
        return VAE_OK;
    }
    TRY(vae_train_check_set(l->config, test, err));
    if (test->d != train->d) {
        TRY(vae_fail(err, VAE_ERR_DATA,
                     "%s: %zu column%s (%zu x %zu x %zu) for testing; %s has %zu (%zu x %zu x %zu)",
                     test->source, test->d, vae_s(test->d), test->height, test->width,
                     test->channels, train->source, train->d, train->height, train->width,
                     train->channels));
    }
done:
    return status;
}

/* --classes speaks of more than the data have: where these are numbers below it, all such. */
static vae_status add_classes(vae_dataset *set, size_t n, vae_error *err)
{
    char text[VAE_CLASSES_TEXT];
    vae_classes numbers = {0};
    vae_status status = VAE_OK;
    TRY(vae_classes_number(&numbers, n, err));
    for (size_t i = 0; i < set->classes.n; i++) {
        if (vae_class_find(&numbers, set->classes.name[i]) == SIZE_MAX) {
            TRY(vae_fail(err, VAE_ERR_USAGE,
                         "--classes %zu: %s has %zu, and what the others are called is not known "
                         "(%s): leave --classes out",
                         n, set->source, set->classes.n, vae_classes_text(text, &set->classes)));
        }
    }
    TRY(vae_dataset_map_classes(set, &numbers, err));
done:
    vae_classes_clear(&numbers);
    return status;
}

vae_status vae_loop_resolve_classes(vae_loop *l, const vae_checkpoint *from, vae_error *err)
{
    vae_config *c = &l->now->config;
    vae_dataset *set = l->train_set;
    const bool all = c->condition == VAE_CONDITION_LABELS;
    vae_status status = VAE_OK;
    if (from != NULL && from->classes_known) {
        TRY(vae_dataset_map_classes(set, &from->classes, err));
    }
    if (vae_config_has_classes(c)) {
        if (set->labels != NULL && c->classes > set->classes.n) {
            TRY(add_classes(set, c->classes, err));
        }
        c->classes = c->classes > 0 ? c->classes : set->classes.n;
        TRY(vae_dataset_check_labels(set, c->classes, all, err));
        if (c->classes < set->classes.n) { /* none of these rows is of the others */
            TRY(vae_fail(err, VAE_ERR_USAGE, "--classes %zu: %s has %zu: leave --classes out",
                         c->classes, set->source, set->classes.n));
        }
        if (c->classes < 2) {
            TRY(vae_fail(err, VAE_ERR_DATA, "%s: all rows have the same label; classes need two",
                         set->source));
        }
    }
    TRY(vae_classes_copy(&l->now->classes, &set->classes, err));
    l->now->classes_known = set->classes.n > 0;
    if (l->test_set != NULL) {
        TRY(vae_dataset_map_classes(l->test_set, &set->classes, err));
        if (all) {
            TRY(vae_dataset_check_labels(l->test_set, c->classes, true, err));
        }
    }
done:
    return status;
}

vae_status vae_loop_count_classes(vae_loop *l, vae_error *err)
{
    const vae_dataset *set = l->train_set;
    const bool semi = l->config->semi_supervised; /* in the others' classes it does not look */
    const uint32_t *rows = l->rows + (semi ? l->n_train : 0);
    if (set->labels == NULL) {
        return VAE_OK;
    }
    l->now->class_rows = calloc(set->classes.n, sizeof *l->now->class_rows);
    if (l->now->class_rows == NULL) {
        return vae_fail_memory(err, set->classes.n * sizeof(uint64_t), "the rows of classes");
    }
    for (size_t i = 0; i < (semi ? l->n_labelled : l->n_train); i++) {
        if (set->labels[rows[i]] != VAE_NO_LABEL) {
            l->now->class_rows[set->labels[rows[i]]]++;
        }
    }
    return VAE_OK;
}

/* ---- training and validation ---- */

static int by_number(const void *a, const void *b)
{
    uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;
    return x < y ? -1 : x > y;
}

/* Rows that are not of an excluded class, ascending, to `kept`. */
static vae_status keep_rows(size_t *n, uint32_t *kept, const vae_dataset *set, const char *exclude,
                            vae_error *err)
{
    char text[VAE_CLASSES_TEXT];
    const char *unknown;
    bool *out = NULL;
    vae_status status = VAE_OK;
    *n = 0;
    if (exclude[0] != '\0') {
        if (set->labels == NULL) {
            TRY(vae_fail(err, VAE_ERR_USAGE, "--exclude-class %s has no effect: %s has no labels",
                         exclude, set->source));
        }
        out = calloc(set->classes.n, sizeof *out);
        if (out == NULL) {
            TRY(vae_fail_memory(err, set->classes.n, "classes"));
        }
        if (!vae_class_choose(out, &set->classes, exclude, &unknown)) {
            TRY(vae_fail(err, VAE_ERR_USAGE,
                         "--exclude-class %.40s has no effect: no row of %s has that label; there "
                         "are %s",
                         unknown, set->source, vae_classes_text(text, &set->classes)));
        }
    }
    for (size_t i = 0; i < set->n; i++) {
        if (out == NULL || set->labels[i] == VAE_NO_LABEL || !out[set->labels[i]]) {
            kept[(*n)++] = (uint32_t)i;
        }
    }
    if (out != NULL && *n == set->n) { /* the model knows the class, these data have none of it */
        TRY(vae_fail(err, VAE_ERR_USAGE,
                     "--exclude-class %.40s has no effect: no row of %s has that label", exclude,
                     set->source));
    }
done:
    free(out);
    return status;
}

/* Splits n kept rows: the first n_validation of a keyed order validate. Both lists ascending, so
 * that they are read in order; each epoch has an order of its own anyway. */
static void split_rows(vae_loop *l, const uint32_t *kept, size_t n)
{
    const uint64_t key = vae_order_key(l->config->seed, VAE_RNG_SPLIT, 0);
    const uint32_t bits = vae_shuffle_bits(n);
    if (l->n_validation == 0) {
        memcpy(l->rows, kept, n * sizeof *kept);
        return;
    }
    for (size_t i = 0; i < n; i++) {
        uint32_t row = kept[vae_shuffle(key, n, bits, i)];
        l->rows[i < l->n_validation ? l->n_train + i : i - l->n_validation] = row;
    }
    qsort(l->rows, l->n_train, sizeof *l->rows, by_number);
    qsort(l->rows + l->n_train, l->n_validation, sizeof *l->rows, by_number);
}

vae_status vae_loop_choose_rows(vae_loop *l, vae_error *err)
{
    const vae_config *c = l->config;
    const vae_dataset *set = l->train_set;
    if (set->n > UINT32_MAX) {
        return vae_fail(err, VAE_ERR_DATA, "%s: %zu rows; at most %u can be trained on",
                        set->source, set->n, UINT32_MAX);
    }
    size_t n = 0;
    vae_status status = VAE_OK;
    uint32_t *kept = malloc(set->n * sizeof *kept);
    l->rows = malloc(set->n * sizeof *kept);
    if (kept == NULL || l->rows == NULL) {
        TRY(vae_fail_memory(err, set->n * sizeof *kept, "row numbers"));
    }
    TRY(keep_rows(&n, kept, set, c->exclude_class, err));
    l->n_validation = (size_t)((double)n * c->validation + 0.5);
    l->n_train = n - l->n_validation;
    if (n == 0 || l->n_train == 0) {
        TRY(vae_fail(err, VAE_ERR_DATA, "%s: no rows are left to train on (of %zu)", set->source,
                     set->n));
    }
    if (c->validation > 0 && l->n_validation == 0) {
        TRY(vae_fail(err, VAE_ERR_USAGE,
                     "--validation %g of %zu rows is none: give a larger fraction", c->validation,
                     n));
    }
    split_rows(l, kept, n);
done:
    free(kept);
    return status;
}

vae_status vae_training_rows(uint32_t **rows, size_t *n, size_t *n_validation,
                             const vae_config *config, const vae_dataset *set, vae_error *err)
{
    /* choosing changes nothing in it */
    vae_loop l = {.config = config, .train_set = (vae_dataset *)set};
    vae_status status = vae_loop_choose_rows(&l, err);
    if (status != VAE_OK) {
        free(l.rows);
        l.rows = NULL;
    }
    *rows = l.rows;
    *n = l.n_train;
    *n_validation = l.n_validation;
    return status;
}

/* ---- labels ---- */

/* How many rows of class y are to be labelled: as even as can be, the first classes one more. */
static size_t quota(const vae_config *c, size_t y)
{
    return c->labelled / c->classes + (y < c->labelled % c->classes);
}

/* Marks the labelled among the n training rows: of each class the first ones of a keyed order. */
static vae_status mark(const vae_loop *l, bool *marked, size_t n, vae_error *err)
{
    const vae_config *c = l->config;
    const uint64_t key = vae_order_key(c->seed, VAE_RNG_SPLIT, 1);
    const uint32_t bits = vae_shuffle_bits(n);
    size_t *taken = calloc(c->classes, sizeof *taken);
    vae_status status = VAE_OK;
    if (taken == NULL) {
        TRY(vae_fail_memory(err, c->classes * sizeof *taken, "classes"));
    }
    for (size_t i = 0; i < n; i++) {
        const size_t place = (size_t)vae_shuffle(key, n, bits, i);
        const uint32_t y = l->train_set->labels[l->rows[place]];
        if (y != VAE_NO_LABEL) {
            marked[place] = taken[y] < quota(c, y);
            taken[y] += marked[place];
        }
    }
    for (size_t y = 0; y < c->classes; y++) {
        if (taken[y] < quota(c, y)) {
            TRY(vae_fail(err, VAE_ERR_DATA,
                         "%s: --labelled %zu takes %zu row%s of class %.40s, there are %zu",
                         l->train_set->source, c->labelled, quota(c, y), vae_s(quota(c, y)),
                         l->train_set->classes.name[y], taken[y]));
        }
    }
done:
    free(taken);
    return status;
}

vae_status vae_loop_choose_labelled(vae_loop *l, vae_error *err)
{
    const size_t n = l->n_train;
    if (!l->config->semi_supervised) {
        return VAE_OK;
    }
    if (l->config->labelled >= n) {
        return vae_fail(err, VAE_ERR_USAGE,
                        "--labelled %zu of %zu training rows leaves none without a label; "
                        "--condition labels trains with all of them",
                        l->config->labelled, n);
    }
    vae_status status = VAE_OK;
    bool *marked = calloc(n, sizeof *marked);
    uint32_t *rows = malloc(n * sizeof *rows);
    if (marked == NULL || rows == NULL) {
        TRY(vae_fail_memory(err, n * sizeof *rows, "labelled rows"));
    }
    TRY(mark(l, marked, n, err));
    l->n_labelled = l->config->labelled;
    l->n_train = n - l->n_labelled;
    size_t open = 0, labelled = l->n_train;
    for (size_t i = 0; i < n; i++) {
        rows[marked[i] ? labelled++ : open++] = l->rows[i];
    }
    memcpy(l->rows, rows, n * sizeof *rows);
done:
    free(marked);
    free(rows);
    return status;
}

void vae_loop_plan_labelled(const vae_loop *l, vae_plan *plan, size_t rows)
{
    const size_t batch = vae_config_labelled_batch(l->config);
    if (l->n_labelled == 0) {
        return;
    }
    plan->extra_n = (uint32_t)l->n_labelled;
    plan->extra_at = (uint32_t)rows;
    plan->extra_first = (plan->step - 1) * batch;
    plan->extra_key = vae_order_key(l->config->seed, VAE_RNG_SHUFFLE, UINT32_MAX);
    plan->labelled_share = (float)((double)l->n_labelled / (double)(l->n_train + l->n_labelled));
}

/* ---- averages ---- */

/* Shift and scale of the training rows, or the model's. */
static vae_status find_scales(vae_loop *l, const vae_checkpoint *from, vae_error *err)
{
    const size_t d = l->train_set->d, bytes = 2 * d * sizeof *l->now->standard;
    double *scales = malloc(bytes);
    if (scales == NULL) {
        return vae_fail_memory(err, bytes, "shift and scale");
    }
    l->now->standard = scales;
    if (from != NULL) {
        memcpy(scales, from->standard, bytes);
        return VAE_OK;
    }
    return vae_dataset_moments(l->train_set, l->rows, l->n_train, scales, scales + d, err);
}

/* The set's, or the model's where rows come without. */
static vae_status name_columns(vae_loop *l, const vae_checkpoint *from, vae_error *err)
{
    const vae_dataset *set = l->train_set;
    vae_status status = VAE_OK;
    if (set->column_names != NULL) {
        l->now->columns = vae_join_names((const char *const *)set->column_names, set->d);
    } else if (from != NULL && from->columns != NULL) {
        const size_t bytes = vae_names_bytes(from->columns, set->d);
        l->now->columns = malloc(bytes);
        if (l->now->columns != NULL) {
            memcpy(l->now->columns, from->columns, bytes);
        }
    } else {
        return VAE_OK;
    }
    if (l->now->columns == NULL) {
        TRY(vae_fail_memory(err, set->d, "the names of columns"));
    }
    TRY(l->test_set != NULL ? vae_checkpoint_check_set(l->now, l->test_set, err) : VAE_OK);
done:
    return status;
}

vae_status vae_loop_standardize(vae_loop *l, const vae_checkpoint *from, vae_error *err)
{
    vae_dataset *set = l->train_set;
    vae_checkpoint *now = l->now;
    vae_status status = VAE_OK;
    TRY(name_columns(l, from, err));
    if (from != NULL ? from->standard == NULL
                     : !vae_config_standardizes(l->config, set->kind == VAE_KIND_TABLE)) {
        return VAE_OK;
    }
    TRY(find_scales(l, from, err));
    TRY(vae_dataset_standardize(set, now->standard, now->standard + set->d, err));
    if (l->test_set != NULL) {
        TRY(vae_dataset_standardize(l->test_set, now->standard, now->standard + set->d, err));
    }
done:
    return status;
}

vae_status vae_loop_data_mean(const vae_loop *l, float *mean, vae_error *err)
{
    /* Static and dynamic draws have the grey value as their mean. */
    return vae_dataset_mean(l->train_set, l->rows, l->n_train,
                            l->config->binarize == VAE_BINARIZE_THRESHOLD, mean, err);
}
