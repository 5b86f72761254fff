/* Which rows train and which validate, and what they look like on average. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "philox.h"
#include "train/internal.h"

static int by_number(const void *a, const void *b)
{
    uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;
    return x < y ? -1 : x > y;
}

/* Rows that are not of the excluded class, ascending, to `kept`. */
static size_t keep_rows(const vae_dataset *set, int exclude_class, uint32_t *kept)
{
    size_t n = 0;
    for (size_t i = 0; i < set->n; i++) {
        if (exclude_class < 0 || set->labels[i] != exclude_class) {
            kept[n++] = (uint32_t)i;
        }
    }
    return n;
}

/* Splits n kept rows: the first n_validation of a keyed order validate. Both lists ascending, so
 * that they are read in order; each epoch has an order of its own anyway. */
static void split_rows(trainer *t, const uint32_t *kept, size_t n)
{
    const uint64_t key = vae_order_key(t->config->seed, VAE_RNG_SPLIT, 0);
    const uint32_t bits = vae_shuffle_bits(n);
    for (size_t i = 0; i < n; i++) {
        uint32_t row = kept[vae_shuffle(key, n, bits, i)];
        t->rows[i < t->n_validation ? t->n_train + i : i - t->n_validation] = row;
    }
    qsort(t->rows, t->n_train, sizeof *t->rows, by_number);
    qsort(t->rows + t->n_train, t->n_validation, sizeof *t->rows, by_number);
}

vae_status trainer_choose_rows(trainer *t, vae_error *err)
{
    const vae_config *c = t->config;
    const vae_dataset *set = t->train_set;
    if (set->n > UINT32_MAX) {
        return vae_fail(err, VAE_ERR_DATA, "%s: %zu rows; at most %u can be trained on",
                        set->source, set->n, UINT32_MAX);
    }
    if (c->exclude_class >= 0 && set->labels == NULL) {
        return vae_fail(err, VAE_ERR_USAGE, "--exclude-class %d has no effect: %s has no labels",
                        c->exclude_class, set->source);
    }
    uint32_t *kept = malloc(set->n * sizeof *kept);
    t->rows = malloc(set->n * sizeof *kept);
    if (kept == NULL || t->rows == NULL) {
        free(kept);
        return vae_fail_memory(err, set->n * sizeof *kept, "row numbers");
    }
    size_t n = keep_rows(set, c->exclude_class, kept);
    vae_status status = VAE_OK;
    t->n_validation = (size_t)((double)n * c->validation + 0.5);
    t->n_train = n - t->n_validation;
    if (n == 0 || t->n_train == 0) {
        status = vae_fail(err, VAE_ERR_DATA, "%s: no rows are left to train on (of %zu)",
                          set->source, set->n);
    } else if (c->exclude_class >= 0 && n == set->n) {
        status = vae_fail(err, VAE_ERR_USAGE,
                          "--exclude-class %d has no effect: no row of %s has that label",
                          c->exclude_class, set->source);
    } else if (c->validation > 0 && t->n_validation == 0) {
        status = vae_fail(err, VAE_ERR_USAGE,
                          "--validation %g of %zu rows is none: give a larger fraction",
                          c->validation, n);
    } else {
        split_rows(t, kept, n);
    }
    free(kept);
    return status;
}

vae_status vae_training_rows(uint32_t **rows, size_t *n, const vae_config *config,
                             const vae_dataset *set, vae_error *err)
{
    /* choosing changes nothing in it */
    trainer t = {.config = config, .train_set = (vae_dataset *)set};
    vae_status status = trainer_choose_rows(&t, err);
    if (status != VAE_OK) {
        free(t.rows);
        t.rows = NULL;
    }
    *rows = t.rows;
    *n = t.n_train;
    return status;
}

/* The names of a table's columns, a line each; NULL: out of memory. */
static char *join_names(const vae_dataset *set)
{
    size_t bytes = 1;
    for (size_t i = 0; i < set->d; i++) {
        bytes += strlen(set->column_names[i]) + 1;
    }
    char *text = malloc(bytes), *at = text;
    for (size_t i = 0; text != NULL && i < set->d; i++) {
        at = stpcpy(at, set->column_names[i]);
        *at++ = '\n';
    }
    if (text != NULL) {
        *at = '\0';
    }
    return text;
}

vae_status trainer_standardize(trainer *t, vae_error *err)
{
    const vae_config *c = t->config;
    vae_dataset *set = t->train_set;
    vae_status status = VAE_OK;
    if (set->column_names != NULL && (t->now.columns = join_names(set)) == NULL) {
        return vae_fail_memory(err, set->d, "the names of columns");
    }
    if (c->standardize == VAE_STANDARDIZE_NONE ||
        (c->standardize == VAE_STANDARDIZE_AUTO &&
         (set->kind != VAE_KIND_TABLE || vae_likelihood_of(c->likelihood)->unit))) {
        return VAE_OK;
    }
    t->now.standard = malloc(2 * set->d * sizeof *t->now.standard);
    if (t->now.standard == NULL) {
        return vae_fail_memory(err, 2 * set->d * sizeof *t->now.standard, "shift and scale");
    }
    float *shift = t->now.standard, *scale = shift + set->d;
    status = vae_dataset_moments(set, t->rows, t->n_train, shift, scale, err);
    if (status == VAE_OK) {
        status = vae_dataset_standardize(set, shift, scale, err);
    }
    if (status == VAE_OK && t->test_set != NULL) {
        status = vae_dataset_standardize(t->test_set, shift, scale, err);
    }
    return status;
}

vae_status trainer_data_mean(const trainer *t, float *mean, vae_error *err)
{
    /* Static and dynamic draws have the grey value as their mean. */
    return vae_dataset_mean(t->train_set, t->rows, t->n_train,
                            t->config->binarize == VAE_BINARIZE_THRESHOLD, mean, err);
}

void trainer_output_bias(const trainer *t, float *params, const float *mean)
{
    const param_layout *layout = vae_model_layout(t->model);
    /* the decoder's last tensor is the output's bias: D values, then raw log variances if learned
     */
    const size_t output = 2 * (layout->n_encoder + layout->n_decoder) - 1;
    float *bias = params;
    for (size_t i = 0; i < output; i++) {
        bias += layout->tensors[i].rows * layout->tensors[i].cols;
    }
    for (size_t j = 0; j < layout->d; j++) {
        float p = mean[j] < 0.001f ? 0.001f : mean[j] > 0.999f ? 0.999f : mean[j];
        bias[j] = vae_likelihood_of(t->config->likelihood)->sigmoid ? logf(p / (1 - p)) : mean[j];
    }
}
