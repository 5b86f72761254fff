/* Writes random models in every export format, with the inputs and outputs of this program's own
 * encoder and decoder, for check_models.py to compare with other readers and engines.
 *
 *   random_model FOLDER FIRST COUNT SEED
 *
 * Model i leaves i.safetensors, i.npz, i.encoder.onnx, i.decoder.onnx and i.io.npz (x, mu, logvar,
 * z, x_hat, recon, kl) in FOLDER. Models depend on SEED and i alone. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "backend/open.h"
#include "exchange/exchange.h"
#include "format/npz.h"
#include "infer/trained.h"
#include "philox.h"

enum { MAX_SIZE = 300, MAX_LAYERS = 4, MAX_ROWS = 40 };

typedef struct {
    uint64_t seed, next;
} dice;

static uint32_t roll(dice *d, uint32_t below)
{
    return vae_philox(d->seed, 99, d->next++).w[0] % below;
}

static float uniform(dice *d)
{
    return ((float)roll(d, 1u << 24) + 0.5f) / (float)(1u << 24);
}

/* Half of the sizes are small or near a multiple of 16, where padding and tails are. */
static size_t any_size(dice *d)
{
    static const size_t edges[] = {1, 2, 3, 4, 7, 8, 15, 16, 17, 31, 32, 33, 64, 65, 255, 256, 257};
    return roll(d, 2) == 0 ? edges[roll(d, sizeof edges / sizeof edges[0])] : 1 + roll(d, MAX_SIZE);
}

static vae_sizes any_sizes(dice *d)
{
    vae_sizes sizes = {.n = 1 + roll(d, MAX_LAYERS)};
    for (size_t i = 0; i < sizes.n; i++) {
        sizes.size[i] = any_size(d);
    }
    return sizes;
}

/* Convolutions on pictures that they divide, with hidden layers between or without. */
static void any_pictures(vae_checkpoint *c, dice *d)
{
    c->config.conv.n = 1 + roll(d, 3);
    for (size_t i = 0; i < c->config.conv.n; i++) {
        c->config.conv.size[i] = 1 + roll(d, 18);
    }
    const size_t most = roll(d, 3);
    c->config.hidden.n = most < c->config.hidden.n ? most : c->config.hidden.n;
    c->config.decoder_hidden.n = c->config.hidden.n > 0 ? c->config.decoder_hidden.n : 0;
    c->height = (size_t)(1 + roll(d, 3)) << c->config.conv.n;
    c->width = (size_t)(1 + roll(d, 3)) << c->config.conv.n;
    c->channels = 1 + 2 * roll(d, 2);
    c->d = c->height * c->width * c->channels;
}

static void any_config(vae_checkpoint *c, dice *d)
{
    vae_config_defaults(&c->config);
    c->config.seed = d->seed;
    c->config.hidden = any_sizes(d);
    if (roll(d, 2) == 0) {
        c->config.decoder_hidden = any_sizes(d);
    }
    c->config.latent = any_size(d);
    c->config.activation = (vae_activation)(VAE_ACT_NONE + 1 + roll(d, VAE_ACT_LAST));
    c->config.likelihood = (vae_likelihood)roll(d, VAE_N_LIKELIHOODS);
    c->config.variance = 0.1 + (double)uniform(d);
    if (!vae_likelihood_of(c->config.likelihood)->unit) {
        c->config.mean = (vae_mean)roll(d, 2);
    }
    c->d = any_size(d);
    c->height = 1;
    c->width = c->d;
    c->channels = 1;
    c->state.best = INFINITY;
    if (roll(d, 4) == 0) {
        any_pictures(c, d);
    }
}

/* Untrained, sigma = exp(logvar/2) reaches the thousands, and float32 in any engine, numpy's too,
 * then loses the digits that are compared. A tenth of the weights gives sigmas as training does. */
static void calm_posterior(const param_layout *layout, float *flat)
{
    const layer_desc *head = &layout->layers[layout->n_encoder - 1];
    const tensor_desc *w = &layout->tensors[head->weight], *b = &layout->tensors[head->bias];
    for (size_t i = layout->z * w->ld; i < w->rows * w->ld; i++) {
        flat[w->offset + i] *= 0.1f;
    }
    for (size_t i = layout->z; i < b->cols; i++) {
        flat[b->offset + i] *= 0.1f;
    }
}

static vae_status any_params(vae_checkpoint *c, dice *d, vae_error *err)
{
    param_layout layout;
    vae_status status = vae_layout_build(&layout, &c->config, vae_checkpoint_shape(c), err);
    if (status != VAE_OK) {
        return status;
    }
    float *flat = malloc(layout.total * sizeof *flat);
    c->n_params = layout.n_params;
    c->params = malloc(c->n_params * sizeof *c->params);
    if (flat == NULL || c->params == NULL) {
        abort();
    }
    vae_layout_init(&layout, flat, (vae_init)roll(d, 3), d->seed);
    calm_posterior(&layout, flat);
    vae_layout_pack(&layout, c->params, flat);
    free(flat);
    vae_layout_clear(&layout);
    return VAE_OK;
}

typedef struct {
    size_t n;
    float *x, *mu, *logvar, *z, *x_hat, *recon, *kl;
} rows_out;

static float *floats(size_t n)
{
    float *p = calloc(n, sizeof *p);
    if (p == NULL) {
        abort();
    }
    return p;
}

static vae_status run(const vae_checkpoint *c, dice *d, rows_out *o, vae_error *err)
{
    const size_t D = c->d, Z = c->config.latent;
    *o = (rows_out){.n = 1 + roll(d, MAX_ROWS)};
    o->x = floats(o->n * D), o->x_hat = floats(o->n * D);
    o->mu = floats(o->n * Z), o->logvar = floats(o->n * Z), o->z = floats(o->n * Z);
    o->recon = floats(o->n), o->kl = floats(o->n);
    for (size_t i = 0; i < o->n * D; i++) {
        o->x[i] = uniform(d);
    }
    vae_dataset set = {.n = o->n,
                       .d = D,
                       .height = c->height,
                       .width = c->width,
                       .channels = c->channels,
                       .dtype = VAE_F32,
                       .rows = o->x};
    vae_trained m;
    vae_trained_of(&m, c);
    m.config.device = VAE_DEVICE_CPU;
    m.config.threads = 1;
    vae_status status = vae_trained_start(&m, 16, 1, err);
    if (status == VAE_OK) {
        const vae_batch_out out = {
            .mu = o->mu, .logvar = o->logvar, .z = o->z, .recon = o->recon, .kl = o->kl};
        status = vae_trained_run_set(&m, &set, 0, &out, err);
        if (status == VAE_OK) {
            status = vae_trained_decode(&m, o->x_hat, o->z, NULL, o->n, err);
        }
    }
    vae_trained_close(&m);
    return status;
}

static vae_status write_io(const char *path, const vae_checkpoint *c, rows_out *o, vae_error *err)
{
    const size_t xs[2] = {o->n, c->d}, zs[2] = {o->n, c->config.latent};
    vae_npz_writer w = {.n = 0};
    vae_npz_add(&w, "x", "<f4", 4, xs, 2, o->x);
    vae_npz_add(&w, "mu", "<f4", 4, zs, 2, o->mu);
    vae_npz_add(&w, "logvar", "<f4", 4, zs, 2, o->logvar);
    vae_npz_add(&w, "z", "<f4", 4, zs, 2, o->z);
    vae_npz_add(&w, "x_hat", "<f4", 4, xs, 2, o->x_hat);
    vae_npz_add(&w, "recon", "<f4", 4, xs, 1, o->recon);
    vae_npz_add(&w, "kl", "<f4", 4, xs, 1, o->kl);
    vae_npz_finish(&w);
    vae_status status = vae_parts_put(&w.parts, path, err);
    free(o->x), free(o->mu), free(o->logvar), free(o->z), free(o->x_hat);
    free(o->recon), free(o->kl);
    return status;
}

static vae_status write_model(const char *folder, size_t i, uint64_t seed, vae_error *err)
{
    char path[VAE_PATH];
    vae_onnx_paths graphs;
    dice d = {.seed = seed * 1000003 + i};
    vae_checkpoint *c = calloc(1, sizeof *c);
    rows_out o;
    if (c == NULL) {
        abort();
    }
    any_config(c, &d);
    vae_status status = any_params(c, &d, err);
    snprintf(path, sizeof path, "%s/%zu.safetensors", folder, i);
    status = status == VAE_OK ? vae_export_safetensors(path, c, err) : status;
    snprintf(path, sizeof path, "%s/%zu.npz", folder, i);
    status = status == VAE_OK ? vae_export_npz(path, c, err) : status;
    snprintf(path, sizeof path, "%s/%zu.onnx", folder, i);
    status = status == VAE_OK ? vae_export_onnx_paths(&graphs, path, &c->config, err) : status;
    status = status == VAE_OK ? vae_export_onnx(&graphs, c, err) : status;
    status = status == VAE_OK ? run(c, &d, &o, err) : status;
    snprintf(path, sizeof path, "%s/%zu.io.npz", folder, i);
    status = status == VAE_OK ? write_io(path, c, &o, err) : status;
    vae_checkpoint_free(c);
    return status;
}

int main(int argc, char **argv)
{
    if (argc != 5) {
        fprintf(stderr, "usage: random_model FOLDER FIRST COUNT SEED\n");
        return VAE_ERR_USAGE;
    }
    const size_t first = strtoul(argv[2], NULL, 10), count = strtoul(argv[3], NULL, 10);
    for (size_t i = first; i < first + count; i++) {
        vae_error err = {0};
        vae_status status = write_model(argv[1], i, strtoull(argv[4], NULL, 10), &err);
        if (status != VAE_OK) {
            fprintf(stderr, "random_model: model %zu: %s\n", i, err.text);
            return (int)status;
        }
    }
    return 0;
}
