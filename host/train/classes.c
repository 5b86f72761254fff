/* What training with classes needs of the data: how many classes, and which rows keep their label.
 */
#include <stdlib.h>
#include <string.h>

#include "philox.h"
#include "train/internal.h"

vae_status trainer_resolve_classes(vae_config *c, const vae_dataset *train_set,
                                   const vae_dataset *test_set, vae_error *err)
{
    if (!vae_config_has_classes(c)) {
        return VAE_OK;
    }
    if (c->classes == 0) {
        c->classes = train_set->n_classes;
    }
    vae_status status = vae_dataset_check_labels(train_set, c->classes, true, err);
    if (status == VAE_OK && test_set != NULL) {
        status = vae_dataset_check_labels(test_set, c->classes,
                                          c->condition == VAE_CONDITION_LABELS, err);
    }
    if (status == VAE_OK && c->classes < 2) {
        status = vae_fail(err, VAE_ERR_DATA, "%s: all rows have the same label; classes need two",
                          train_set->source);
    }
    return status;
}

/* How many rows of class y are to be labelled: as even as can be, the first classes one more. */
static size_t quota(const vae_config *c, size_t y)
{
    return c->labelled / c->classes + (y < c->labelled % c->classes);
}

/* Marks the labelled among the n training rows: of each class the first ones of a keyed order. */
static vae_status mark(const trainer *t, bool *marked, size_t n, vae_error *err)
{
    const vae_config *c = t->config;
    const uint64_t key = vae_order_key(c->seed, VAE_RNG_SPLIT, 1);
    const uint32_t bits = vae_shuffle_bits(n);
    size_t taken[256] = {0};
    for (size_t i = 0; i < n; i++) {
        const size_t place = (size_t)vae_shuffle(key, n, bits, i);
        const size_t y = t->train_set->labels[t->rows[place]];
        marked[place] = taken[y] < quota(c, y);
        taken[y] += marked[place];
    }
    for (size_t y = 0; y < c->classes; y++) {
        if (taken[y] < quota(c, y)) {
            return vae_fail(err, VAE_ERR_DATA,
                            "%s: --labelled %zu takes %zu rows of class %zu, there are %zu",
                            t->train_set->source, c->labelled, quota(c, y), y, taken[y]);
        }
    }
    return VAE_OK;
}

vae_status trainer_choose_labelled(trainer *t, vae_error *err)
{
    const size_t n = t->n_train;
    if (!t->config->semi_supervised) {
        return VAE_OK;
    }
    if (t->config->labelled >= n) {
        return vae_fail(err, VAE_ERR_USAGE,
                        "--labelled %zu of %zu training rows leaves none without a label; "
                        "--condition labels trains with all of them",
                        t->config->labelled, n);
    }
    bool *marked = calloc(n, sizeof *marked);
    uint32_t *rows = malloc(n * sizeof *rows);
    vae_status status = marked == NULL || rows == NULL
                            ? vae_fail_memory(err, n * sizeof *rows, "labelled rows")
                            : mark(t, marked, n, err);
    if (status == VAE_OK) {
        size_t open = 0, labelled = n - t->config->labelled;
        for (size_t i = 0; i < n; i++) {
            rows[marked[i] ? labelled++ : open++] = t->rows[i];
        }
        memcpy(t->rows, rows, n * sizeof *rows);
        t->n_labelled = t->config->labelled;
        t->n_train = n - t->n_labelled;
    }
    free(marked);
    free(rows);
    return status;
}

void trainer_plan_labelled(const trainer *t, vae_plan *plan, size_t rows)
{
    const size_t batch = vae_config_labelled_batch(t->config);
    if (t->n_labelled == 0) {
        return;
    }
    plan->extra_n = (uint32_t)t->n_labelled;
    plan->extra_at = (uint32_t)rows;
    plan->extra_first = (plan->step - 1) * batch;
    plan->extra_key = vae_order_key(t->config->seed, VAE_RNG_SHUFFLE, UINT32_MAX);
    plan->labelled_share = (float)((double)t->n_labelled / (double)(t->n_train + t->n_labelled));
}
