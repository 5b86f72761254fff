/* What has to be there before the first step: data, backend, model, initial parameters. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "backend/open.h"
#include "train/internal.h"

vae_status vae_train_check_set(const vae_config *config, const vae_dataset *set, vae_error *err)
{
    if (set->dtype == VAE_BITS && config->binarize != VAE_BINARIZE_NONE) {
        return vae_fail(
            err, VAE_ERR_USAGE,
            "--binarize has no effect: the values of %s are bits, 0 or 1 already; leave "
            "it out",
            set->source);
    }
    return vae_dataset_check_range(set, config->likelihood, err);
}

vae_status trainer_check_data(const trainer *t, vae_error *err)
{
    vae_status status = vae_train_check_set(t->config, t->train_set, err);
    if (status == VAE_OK && t->test_set != NULL) {
        status = vae_train_check_set(t->config, t->test_set, err);
        if (status == VAE_OK && t->test_set->d != t->train_set->d) {
            status = vae_fail(err, VAE_ERR_DATA, "%s: %zu columns for training, %zu for testing",
                              t->train_set->source, t->train_set->d, t->test_set->d);
        }
    }
    return status;
}

vae_status trainer_open_model(trainer *t, vae_error *err)
{
    const vae_config *c = t->config;
    vae_status status = vae_backend_for(&t->be, c, err);
    if (status != VAE_OK) {
        return status;
    }
    t->be->ops->describe(t->be, t->device, sizeof t->device);
    t->measure_batch = vae_measure_batch(c);
    status = vae_model_create(&t->model, c, t->train_set->d, t->measure_batch, true, t->be, err);
    if (status != VAE_OK) {
        return status;
    }
    /* with every row in place, no index is needed */
    const size_t n_rows = t->n_train + t->n_labelled;
    bool all = t->n_train == t->train_set->n;
    t->train = t->be->ops->data_open(t->be, t->train_set, all ? NULL : t->rows, n_rows);
    if (t->n_validation > 0) {
        t->validation =
            t->be->ops->data_open(t->be, t->train_set, t->rows + n_rows, t->n_validation);
    }
    if (t->test_set != NULL) {
        t->test = t->be->ops->data_open(t->be, t->test_set, NULL, t->test_set->n);
    }
    return t->be->ops->sync(t->be, err);
}

/* Room for a checkpoint's content, and all of it that does not change. */
vae_status trainer_make_room(trainer *t, vae_error *err)
{
    const vae_dataset *set = t->train_set;
    vae_checkpoint *now = &t->now;
    now->n_params = vae_model_layout(t->model)->n_params;
    now->params = malloc(now->n_params * sizeof(float));
    now->adam_m = calloc(now->n_params, sizeof(float));
    now->adam_v = calloc(now->n_params, sizeof(float));
    now->data_mean = calloc(set->d, sizeof(float));
    t->plan = malloc(PACE_MOST * sizeof *t->plan);
    if (now->params == NULL || now->adam_m == NULL || now->adam_v == NULL ||
        now->data_mean == NULL || t->plan == NULL) {
        return vae_fail_memory(err, 3 * now->n_params * sizeof(float), "a checkpoint");
    }
    now->config = *t->config;
    now->d = set->d;
    now->height = set->height;
    now->width = set->width;
    now->channels = set->channels;
    memcpy(now->data_sha256, set->sha256, sizeof now->data_sha256);
    now->state.best = INFINITY;
    return VAE_OK;
}

vae_status trainer_initialize(trainer *t, vae_error *err)
{
    const param_layout *layout = vae_model_layout(t->model);
    float *flat = calloc(layout->total, sizeof *flat);
    if (flat == NULL) {
        return vae_fail_memory(err, layout->total * sizeof *flat, "initial parameters");
    }
    vae_layout_init(layout, flat, t->config->init, t->config->seed);
    vae_layout_pack(layout, t->now.params, flat);
    free(flat);
    for (size_t i = 0; i < t->now.n_params; i++) {
        t->now.adam_v[i] = (float)t->config->adam_v0;
    }
    vae_status status = trainer_data_mean(t, t->now.data_mean, err);
    if (status == VAE_OK && t->config->output_bias_from_data) {
        trainer_output_bias(t, t->now.params, t->now.data_mean);
    }
    return status;
}

vae_status trainer_upload(trainer *t, vae_error *err)
{
    vae_status status = vae_model_set(t->model, VAE_PARAMS, t->now.params, err);
    if (status == VAE_OK) {
        status = vae_model_set(t->model, VAE_ADAM_M, t->now.adam_m, err);
    }
    return status == VAE_OK ? vae_model_set(t->model, VAE_ADAM_V, t->now.adam_v, err) : status;
}
