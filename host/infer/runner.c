#include "infer/runner.h"

#include "stats/latent_walk.h"

vae_status vae_runner_open(vae_runner *out, const vae_checkpoint *checkpoint,
                           const vae_backend_options *options, size_t batch, vae_error *err)
{
    *out = (vae_runner){.config = checkpoint->config,
                        .d = checkpoint->d,
                        .z = checkpoint->config.latent,
                        .batch = batch};
    /* Particles and bounds are matters of training: their buffers need not be there. */
    out->config.particles = 1;
    out->config.objective = VAE_OBJ_ELBO;
    out->config.free_bits = 0;
    vae_status status = vae_backend_open(&out->be, options, err);
    if (status == VAE_OK) {
        status = vae_model_create(&out->model, &out->config, out->d, batch, false, out->be, err);
    }
    if (status == VAE_OK) {
        status = vae_model_set(out->model, VAE_PARAMS, checkpoint->params, err);
    }
    if (status != VAE_OK) {
        vae_runner_close(out);
    }
    return status;
}

void vae_runner_close(vae_runner *r)
{
    vae_model_free(r->model);
    if (r->be != NULL) {
        r->be->ops->close(r->be);
    }
    *r = (vae_runner){0};
}

/* Where row `first` begins in each array that is wanted. */
static vae_batch_out part_of(const vae_batch_out *out, size_t first, size_t d, size_t z)
{
    return (vae_batch_out){
        .x = out->x != NULL ? out->x + first * d : NULL,
        .mu = out->mu != NULL ? out->mu + first * z : NULL,
        .logvar = out->logvar != NULL ? out->logvar + first * z : NULL,
        .z = out->z != NULL ? out->z + first * z : NULL,
        .kl = out->kl != NULL ? out->kl + first : NULL,
        .recon = out->recon != NULL ? out->recon + first : NULL,
        .x_hat = out->x_hat != NULL ? out->x_hat + first * d : NULL,
        .label = out->label != NULL ? out->label + first : NULL,
    };
}

vae_status vae_runner_rows(vae_runner *r, const vae_dataset *set, uint64_t draw,
                           const vae_batch_out *out, vae_error *err)
{
    if (set->d != r->d) {
        return vae_fail(err, VAE_ERR_DATA,
                        "%s: rows of %zu values (%zu x %zu x %zu); the model takes %zu",
                        set->source, set->d, set->height, set->width, set->channels, r->d);
    }
    vae_status status = VAE_OK;
    if (vae_config_has_classes(&r->config)) {
        status = vae_dataset_check_labels(set, r->config.classes,
                                          r->config.condition == VAE_CONDITION_LABELS, err);
    }
    if (status != VAE_OK) {
        return status;
    }
    vae_data *data = r->be->ops->data_open(r->be, set, NULL, 0);
    status = r->be->ops->sync(r->be, err);
    for (size_t first = 0; first < set->n && status == VAE_OK; first += r->batch) {
        const size_t rows = set->n - first < r->batch ? set->n - first : r->batch;
        const vae_plan plan = {.draw = draw, .first = first, .beta = 1};
        vae_batch_out part = part_of(out, first, r->d, r->z);
        status = vae_model_batch(r->model, data, &plan, rows, 1, &part, err);
    }
    r->be->ops->data_close(r->be, data);
    return status;
}

vae_status vae_runner_decode(vae_runner *r, float *x_hat, const float *z, size_t n, vae_error *err)
{
    return vae_model_decode(r->model, x_hat, z, n, err);
}

void vae_runner_prior(const vae_runner *r, float *z, size_t n)
{
    vae_prior_rows(z, r->config.seed, 0, n, r->z, 1);
}
