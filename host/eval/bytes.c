/* PSNR and bits a dimension of rows of bytes: one pass. */
#include "eval/bytes.h"

#include <math.h>
#include <stdlib.h>

#include "eval/eval.h"
#include "vae_math.h"

static const double levels = 256;

typedef struct {
    const vae_trained *m;
    size_t d, cols; /* values of a row, of the decoder's output */
    double squares, loss, noise;
    /* room for a batch */
    float *x, *x_hat, *mu, *kl, *recon;
    float *logits;   /* (rows,cols) where variances are learned, else NULL */
    uint32_t *label; /* (rows) of a conditional model, else NULL */
} pass;

bool vae_bytes_are(const vae_trained *m)
{
    return m->set != NULL && m->set->dtype == VAE_U8 && m->checkpoint->standard == NULL &&
           m->config.binarize == VAE_BINARIZE_NONE;
}

double vae_bits_per_dim(double elbo, double noise, size_t d)
{
    return ((noise - elbo) / (double)d + log(levels)) / log(2);
}

/* sum_d E[u^2] / (2 sigma_d^2) of a row */
static double row_noise(const pass *p, const float *raw)
{
    const double half = 1 / (24 * levels * levels);
    double sum = 0;
    if (raw == NULL) {
        return (double)p->d * half / p->m->config.variance;
    }
    for (size_t i = 0; i < p->d; i++) {
        float unused;
        sum += half * exp(-(double)vae_bounded_logvar(raw[i], &unused));
    }
    return sum;
}

static vae_status add_batch(void *ctx, const vae_plan *plan, size_t rows, vae_error *err)
{
    pass *p = ctx;
    const size_t d = p->d;
    vae_batch_out out = {.x = p->x,
                         .mu = p->mu,
                         .kl = p->kl,
                         .recon = p->recon,
                         .logits = p->logits,
                         .label = p->label};
    vae_status status = VAE_OK;
    TRY(vae_trained_batch_of(p->m, p->m->data, plan, rows, 1, &out, err));
    TRY(vae_model_decode_classes(p->m->model, p->x_hat, p->mu, p->label, rows, err));
    for (size_t r = 0; r < rows; r++) {
        double squares = 0;
        for (size_t i = r * d; i < (r + 1) * d; i++) {
            const double away = (double)p->x[i] - (double)p->x_hat[i];
            squares += away * away;
        }
        p->squares += squares;
        p->loss += (double)p->recon[r] + (double)p->kl[r];
        p->noise += row_noise(p, p->logits != NULL ? p->logits + r * p->cols + d : NULL);
    }
done:
    return status;
}

static vae_status make_room(pass *p, vae_error *err)
{
    const vae_config *c = &p->m->config;
    const size_t rows = vae_trained_at_once(p->m), F = sizeof(float);
    size_t bytes = 0;
    p->x = vae_room(&bytes, rows * p->d, F);
    p->x_hat = vae_room(&bytes, rows * p->d, F);
    p->mu = vae_room(&bytes, rows * c->latent, F);
    p->kl = vae_room(&bytes, rows, F);
    p->recon = vae_room(&bytes, rows, F);
    if (p->cols > p->d) {
        p->logits = vae_room(&bytes, rows * p->cols, F);
    }
    if (vae_config_has_classes(c)) {
        p->label = vae_room(&bytes, rows, sizeof *p->label);
    }
    return bytes == 0 ? VAE_OK : vae_fail_memory(err, bytes, "PSNR");
}

vae_status vae_bytes_measure(vae_byte_figures *out, const vae_trained *m, size_t n,
                             const vae_plan *plan, const vae_watch *watch, vae_error *err)
{
    const vae_likelihood_row *likelihood = vae_likelihood_of(m->config.likelihood);
    const size_t d = vae_model_layout(m->model)->d;
    pass p = {.m = m, .d = d, .cols = likelihood->outputs * d};
    vae_status status = VAE_OK;
    *out = (vae_byte_figures){.mse = NAN, .psnr = NAN, .elbo = NAN, .noise = NAN, .bits = NAN};
    if (!vae_bytes_are(m)) {
        return VAE_OK;
    }
    TRY(make_room(&p, err));
    TRY(vae_each_batch(plan, n, vae_trained_at_once(m), watch, add_batch, &p, err));
    out->n = n;
    out->mse = p.squares / (double)n / (double)d;
    out->psnr = -10 * log10(out->mse);
    if (!m->config.semi_supervised) {
        out->elbo = -p.loss / (double)n;
    }
    if (!likelihood->unit && (likelihood->variance || !m->config.semi_supervised)) {
        out->noise = p.noise / (double)n;
        out->bits = vae_bits_per_dim(out->elbo, out->noise, d);
    }
done:
    free(p.x);
    free(p.x_hat);
    free(p.mu);
    free(p.kl);
    free(p.recon);
    free(p.logits);
    free(p.label);
    return status;
}
