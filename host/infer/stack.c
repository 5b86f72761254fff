/* The run below a stacked model: opened with suspicion, and what it makes of a data set. */
#include "infer/stack.h"

#include <stdlib.h>
#include <string.h>

#include "base/sha256.h"

static vae_status check_weights(const vae_trained *below, vae_config *config, vae_error *err)
{
    char hex[VAE_SHA256_HEX];
    bool same;
    vae_status status = VAE_OK;
    if (vae_config_has_classes(&below->config) || below->config.stack[0] != '\0') {
        TRY(vae_fail(err, VAE_ERR_USAGE,
                     "--stack %s: a conditional, semi-supervised or stacked model; expected a "
                     "plain one",
                     config->stack));
    }
    if (below->checkpoint->standard != NULL) {
        TRY(vae_fail(err, VAE_ERR_USAGE,
                     "--stack %s: a model of standardized columns, which cannot be built upon",
                     config->stack));
    }
    TRY(vae_checkpoint_recognize(below->checkpoint, config->stack_weights, hex, &same, err));
    if (!same) {
        TRY(vae_fail(err, VAE_ERR_DATA,
                     "%s: its weights changed: SHA-256 %.16s..., the model on top was trained "
                     "with %.16s...",
                     below->path, hex, config->stack_weights));
    }
done:
    return status;
}

vae_status vae_stack_open(vae_trained *below, vae_config *config, const vae_ranks *ranks,
                          vae_error *err)
{
    vae_status status = VAE_OK;
    TRY(vae_trained_open(below, config->stack, false, err));
    TRY(check_weights(below, config, err));
    below->ranks = ranks;
    below->config.device = config->device;
    below->config.device_index = config->device_index;
    below->config.precision = config->precision;
    below->config.threads = config->threads;
    TRY(vae_trained_start(below, VAE_INFER_BATCH, 1, err));
done:
    return status;
}

vae_status vae_stack_below(vae_trained *m, vae_error *err)
{
    vae_config config = m->config; /* the weights below are compared, not filled in */
    if (config.stack[0] == '\0' || m->below != NULL) {
        return VAE_OK;
    }
    m->below = calloc(1, sizeof *m->below);
    return m->below != NULL ? vae_stack_open(m->below, &config, m->ranks, err)
                            : vae_fail_memory(err, sizeof *m->below, "the run below");
}

/* Rows [mu | logvar] from mu and logvar apart. */
static vae_status encode_rows(vae_dataset *out, const vae_trained *below, const vae_dataset *set,
                              vae_error *err)
{
    const size_t n = set->n, Z = below->config.latent, bytes = Z * sizeof(float);
    vae_status status = VAE_OK;
    float *mu = malloc(n * bytes), *logvar = malloc(n * bytes), *rows = malloc(2 * n * bytes);
    const vae_batch_out parts = {.mu = mu, .logvar = logvar};
    out->rows = rows;
    if (mu == NULL || logvar == NULL || rows == NULL) {
        TRY(vae_fail_memory(err, 4 * n * bytes, "encoded rows"));
    }
    TRY(vae_trained_run_set(below, set, 0, &parts, err));
    for (size_t r = 0; r < n; r++) {
        memcpy(rows + 2 * r * Z, mu + r * Z, bytes);
        memcpy(rows + (2 * r + 1) * Z, logvar + r * Z, bytes);
    }
done:
    free(mu);
    free(logvar);
    return status;
}

vae_status vae_stack_encode(vae_dataset **out, const vae_trained *below, const vae_dataset *set,
                            vae_error *err)
{
    const size_t Z = below->config.latent;
    uint8_t both[2 * VAE_SHA256_BYTES];
    vae_dataset *to = NULL;
    vae_status status = VAE_OK;
    *out = NULL;
    TRY(vae_dataset_check_range(set, below->config.likelihood, below->config.mean, err));
    to = calloc(1, sizeof *to);
    if (to == NULL) {
        TRY(vae_fail_memory(err, sizeof *to, "a data set"));
    }
    *to = (vae_dataset){.n = set->n,
                        .d = Z,
                        .height = 1,
                        .width = Z,
                        .channels = 1,
                        .dtype = VAE_F32,
                        .draws = true};
    memcpy(to->source, set->source, sizeof to->source);
    TRY(encode_rows(to, below, set, err));
    if (set->labels != NULL) {
        const size_t bytes = set->n * sizeof *set->labels;
        to->labels = malloc(bytes);
        if (to->labels == NULL) {
            TRY(vae_fail_memory(err, bytes, "labels"));
        }
        memcpy(to->labels, set->labels, bytes);
        TRY(vae_classes_copy(&to->classes, &set->classes, err));
    }
    memcpy(both, set->sha256, sizeof set->sha256);
    TRY(vae_checkpoint_digest(below->checkpoint, both + VAE_SHA256_BYTES, err));
    TRY(vae_sha256(to->sha256, &(struct iovec){both, sizeof both}, 1, err));
    *out = to;
    to = NULL;
done:
    vae_dataset_free(to);
    return status;
}
