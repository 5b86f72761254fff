#include "infer/stack.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "backend/open.h"
#include "base/sha256.h"

enum { BATCH = 256 };

static vae_status check_weights(const vae_stack *stack, vae_config *config, vae_error *err)
{
    uint8_t digest[VAE_SHA256_BYTES];
    char hex[VAE_SHA256_HEX];
    const vae_config *below = &stack->checkpoint->config;
    if (vae_config_has_classes(below) || below->stack[0] != '\0') {
        return vae_fail(err, VAE_ERR_USAGE,
                        "--stack %s: a conditional, semi-supervised or stacked model; expected a "
                        "plain one",
                        config->stack);
    }
    if (stack->checkpoint->standard != NULL) {
        return vae_fail(err, VAE_ERR_USAGE,
                        "--stack %s: a model of standardized columns, which cannot be built upon",
                        config->stack);
    }
    vae_status status = vae_checkpoint_digest(stack->checkpoint, digest, err);
    if (status != VAE_OK) {
        return status;
    }
    vae_sha256_hex(digest, hex);
    if (config->stack_weights[0] == '\0') {
        memcpy(config->stack_weights, hex, sizeof hex);
    }
    return strcmp(config->stack_weights, hex) == 0
               ? VAE_OK
               : vae_fail(err, VAE_ERR_DATA,
                          "%s: its weights changed: SHA-256 %.16s..., the model on top was trained "
                          "with %.16s...",
                          stack->path, hex, config->stack_weights);
}

vae_status vae_stack_open(vae_stack *stack, vae_config *config, vae_error *err)
{
    *stack = (vae_stack){.checkpoint = NULL};
    vae_status status =
        vae_checkpoint_open_run(&stack->checkpoint, config->stack, false, false, stack->path, err);
    if (status == VAE_OK) {
        status = check_weights(stack, config, err);
    }
    if (status == VAE_OK) {
        const vae_backend_options options = {config->device, config->device_index,
                                             config->precision, config->threads};
        status = vae_runner_open(&stack->runner, stack->checkpoint, &options, BATCH, err);
    }
    return status;
}

void vae_stack_close(vae_stack *stack)
{
    vae_runner_close(&stack->runner);
    vae_checkpoint_free(stack->checkpoint);
    *stack = (vae_stack){.checkpoint = NULL};
}

/* Rows [mu | logvar] from mu and logvar apart. */
static vae_status encode_rows(vae_dataset *out, vae_stack *stack, const vae_dataset *set,
                              vae_error *err)
{
    const size_t n = set->n, Z = stack->runner.z, bytes = Z * sizeof(float);
    float *mu = malloc(n * bytes), *logvar = malloc(n * bytes), *rows = malloc(2 * n * bytes);
    const vae_batch_out parts = {.mu = mu, .logvar = logvar};
    vae_status status = mu != NULL && logvar != NULL && rows != NULL
                            ? vae_runner_rows(&stack->runner, set, 0, &parts, err)
                            : vae_fail_memory(err, 4 * n * bytes, "encoded rows");
    for (size_t r = 0; r < n && status == VAE_OK; r++) {
        memcpy(rows + 2 * r * Z, mu + r * Z, bytes);
        memcpy(rows + (2 * r + 1) * Z, logvar + r * Z, bytes);
    }
    free(mu);
    free(logvar);
    out->rows = rows;
    return status;
}

vae_status vae_stack_encode(vae_dataset **out, vae_stack *stack, const vae_dataset *set,
                            vae_error *err)
{
    const size_t Z = stack->runner.z;
    uint8_t both[2 * VAE_SHA256_BYTES], *digest = both + VAE_SHA256_BYTES;
    *out = NULL;
    vae_status status = vae_dataset_check_range(set, stack->checkpoint->config.likelihood, err);
    vae_dataset *to = status == VAE_OK ? calloc(1, sizeof *to) : NULL;
    if (to == NULL) {
        return status != VAE_OK ? status : vae_fail_memory(err, sizeof *to, "a data set");
    }
    *to = (vae_dataset){.n = set->n,
                        .d = Z,
                        .height = 1,
                        .width = Z,
                        .channels = 1,
                        .dtype = VAE_F32,
                        .draws = true,
                        .n_classes = set->n_classes};
    memcpy(to->source, set->source, sizeof to->source);
    status = encode_rows(to, stack, set, err);
    if (status == VAE_OK && set->labels != NULL) {
        to->labels = malloc(set->n);
        status = to->labels != NULL ? VAE_OK : vae_fail_memory(err, set->n, "labels");
    }
    if (status == VAE_OK) {
        status = vae_checkpoint_digest(stack->checkpoint, digest, err);
    }
    if (status == VAE_OK) {
        memcpy(both, set->sha256, sizeof set->sha256);
        const struct iovec part = {both, sizeof both};
        status = vae_sha256(to->sha256, &part, 1, err);
    }
    if (status != VAE_OK) {
        vae_dataset_free(to);
        return status;
    }
    if (set->labels != NULL) {
        memcpy(to->labels, set->labels, set->n);
    }
    *out = to;
    return VAE_OK;
}

vae_status vae_stack_decode(float **x, vae_stack *stack, const float *z, size_t n, vae_error *err)
{
    *x = malloc(n * stack->runner.d * sizeof **x);
    return *x != NULL ? vae_runner_decode(&stack->runner, *x, z, n, err)
                      : vae_fail_memory(err, n * stack->runner.d * sizeof **x, "decoded rows");
}
