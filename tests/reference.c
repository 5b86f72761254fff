#include "reference.h"

#include <math.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

enum { WIDEST = 512 };

double ref_act(vae_activation act, double x)
{
    switch (act) {
    case VAE_ACT_RELU:
        return x > 0 ? x : 0;
    case VAE_ACT_TANH:
        return tanh(x);
    case VAE_ACT_SOFTPLUS:
        return x > 30 ? x : log1p(exp(x));
    case VAE_ACT_LEAKY_RELU:
        return x > 0 ? x : 0.01 * x;
    case VAE_ACT_GELU:
        return x * 0.5 * erfc(-x / sqrt(2.0));
    case VAE_ACT_NONE:
    default:
        return x;
    }
}

double ref_dact(vae_activation act, double x)
{
    switch (act) {
    case VAE_ACT_RELU:
        return x > 0;
    case VAE_ACT_TANH:
        return 1 / (cosh(x) * cosh(x));
    case VAE_ACT_SOFTPLUS:
        return 1 / (1 + exp(-x));
    case VAE_ACT_LEAKY_RELU:
        return x > 0 ? 1 : 0.01;
    case VAE_ACT_GELU:
        return 0.5 * erfc(-x / sqrt(2.0)) + x * exp(-x * x / 2) / sqrt(2 * M_PI);
    case VAE_ACT_NONE:
    default:
        return 1;
    }
}

double ref_recon(vae_likelihood likelihood, double variance, double m, double raw, double x)
{
    if (likelihood == VAE_BERNOULLI) {
        double p = 1 / (1 + exp(-m));
        return m > 30 ? (1 - x) * m : -x * log(p) - (1 - x) * log(1 - p);
    }
    if (likelihood == VAE_GAUSSIAN_LEARNED) {
        variance = exp(-8 + log1p(exp(raw + 8)));
    }
    return 0.5 * log(2 * M_PI * variance) + (x - m) * (x - m) / (2 * variance);
}

/* ---- the model ---- */

static size_t outputs(const vae_config *c, size_t D)
{
    return c->likelihood == VAE_GAUSSIAN_LEARNED ? 2 * D : D;
}

static vae_sizes decoder_sizes(const vae_config *c)
{
    vae_sizes sizes = c->decoder_hidden;
    if (sizes.n == 0) {
        for (size_t i = c->hidden.n; i-- > 0;) {
            sizes.size[sizes.n++] = c->hidden.size[i];
        }
    }
    return sizes;
}

static size_t n_of_mlp(size_t in, vae_sizes hidden, size_t out)
{
    size_t n = 0;
    for (size_t i = 0; i < hidden.n; i++) {
        n += (in + 1) * hidden.size[i];
        in = hidden.size[i];
    }
    return n + (in + 1) * out;
}

size_t ref_n_encoder(const vae_config *c, size_t D)
{
    return n_of_mlp(D, c->hidden, 2 * c->latent);
}

size_t ref_n_params(const vae_config *c, size_t D)
{
    return ref_n_encoder(c, D) + n_of_mlp(c->latent, decoder_sizes(c), outputs(c, D));
}

/* y = MLP(x); hidden layers by act, the last linear. */
static void mlp(double *y, const double *x, const double *params, size_t in, vae_sizes hidden,
                size_t out, vae_activation act)
{
    double a[WIDEST], b[WIDEST];
    memcpy(a, x, in * sizeof *a);
    for (size_t l = 0; l <= hidden.n; l++) {
        size_t n = l < hidden.n ? hidden.size[l] : out;
        const double *bias = params + n * in;
        for (size_t o = 0; o < n; o++) {
            double sum = bias[o];
            for (size_t i = 0; i < in; i++) {
                sum += params[o * in + i] * a[i];
            }
            b[o] = l < hidden.n ? ref_act(act, sum) : sum;
        }
        params = bias + n;
        memcpy(a, b, n * sizeof *a);
        in = n;
    }
    memcpy(y, a, out * sizeof *y);
}

/* What is held constant where an estimator says so: q's parameters and the weights. */
typedef struct {
    const double *params; /* NULL: nothing is held */
    bool dreg;            /* the objective is sum_k (w~_k)^2 log w_k, w~ held */
} held;

/* Everything of example b that the objective needs. */
typedef struct {
    double head[WIDEST], recon[64], log_pq[64], kl;
} example;

static void run_example(example *e, ref_result *out, const ref_batch *batch, const double *params,
                        const double *q_params, size_t b)
{
    const vae_config *c = batch->config;
    const size_t Z = c->latent, D = batch->D, K = batch->K;
    double q[WIDEST], z[WIDEST], logits[WIDEST];
    mlp(e->head, batch->x + b * D, params, D, c->hidden, 2 * Z, c->activation);
    mlp(q, batch->x + b * D, q_params, D, c->hidden, 2 * Z, c->activation);
    e->kl = 0;
    for (size_t j = 0; j < Z; j++) {
        double mu = e->head[j], logvar = e->head[Z + j];
        e->kl += 0.5 * (mu * mu + exp(logvar) - 1 - logvar);
    }
    for (size_t k = 0; k < K; k++) {
        size_t row = b * K + k;
        e->log_pq[k] = e->recon[k] = 0;
        for (size_t j = 0; j < Z; j++) {
            z[j] = e->head[j] + exp(e->head[Z + j] / 2) * batch->eps[row * Z + j];
            double standard = (z[j] - q[j]) / exp(q[Z + j] / 2);
            e->log_pq[k] += -z[j] * z[j] / 2 + standard * standard / 2 + q[Z + j] / 2;
        }
        mlp(logits, z, params + ref_n_encoder(c, D), Z, decoder_sizes(c), outputs(c, D),
            c->activation);
        for (size_t d = 0; d < D; d++) {
            double raw = c->likelihood == VAE_GAUSSIAN_LEARNED ? logits[D + d] : 0;
            e->recon[k] += ref_recon(c->likelihood, (double)(float)c->variance, logits[d], raw,
                                     batch->x[b * D + d]);
            if (out->x_hat != NULL) {
                out->x_hat[row * D + d] =
                    c->likelihood == VAE_BERNOULLI ? 1 / (1 + exp(-logits[d])) : logits[d];
            }
        }
        if (out->z != NULL) {
            memcpy(out->z + row * Z, z, Z * sizeof *z);
        }
    }
    if (out->mu != NULL) {
        memcpy(out->mu + b * Z, e->head, Z * sizeof *q);
        memcpy(out->logvar + b * Z, e->head + Z, Z * sizeof *q);
        memcpy(out->recon_row + b * K, e->recon, K * sizeof *q);
        memcpy(out->log_pq + b * K, e->log_pq, K * sizeof *q);
    }
}

static double log_mean_w(const example *e, size_t K)
{
    double most = -INFINITY, sum = 0;
    for (size_t k = 0; k < K; k++) {
        most = fmax(most, e->log_pq[k] - e->recon[k]);
    }
    for (size_t k = 0; k < K; k++) {
        sum += exp(e->log_pq[k] - e->recon[k] - most);
    }
    return most + log(sum / (double)K);
}

/* What one example adds to the objective, its KL penalty under elbo aside. */
static double example_objective(const example *e, const ref_batch *batch, held h, size_t b)
{
    const size_t K = batch->K;
    ref_result nothing = {0};
    double sum = 0;
    if (batch->config->objective == VAE_OBJ_ELBO) {
        for (size_t k = 0; k < K; k++) {
            sum += e->recon[k] / (double)K;
        }
        return sum;
    }
    if (!h.dreg) {
        return -log_mean_w(e, K);
    }
    example at;
    run_example(&at, &nothing, batch, h.params, h.params, b);
    for (size_t k = 0; k < K; k++) {
        double w = exp(at.log_pq[k] - at.recon[k] - log_mean_w(&at, K)) / (double)K;
        sum -= w * w * (e->log_pq[k] - e->recon[k]);
    }
    return sum;
}

void ref_kl_dims(double *kl_dim, const ref_batch *batch, const double *params)
{
    const vae_config *c = batch->config;
    const size_t Z = c->latent;
    memset(kl_dim, 0, Z * sizeof *kl_dim);
    for (size_t b = 0; b < batch->B; b++) {
        double head[WIDEST];
        mlp(head, batch->x + b * batch->D, params, batch->D, c->hidden, 2 * Z, c->activation);
        for (size_t j = 0; j < Z; j++) {
            kl_dim[j] +=
                0.5 * (head[j] * head[j] + exp(head[Z + j]) - 1 - head[Z + j]) / (double)batch->B;
        }
    }
}

static void forward(ref_result *out, const ref_batch *batch, const double *params, held h)
{
    const vae_config *c = batch->config;
    out->recon = out->kl = out->objective = 0;
    for (size_t b = 0; b < batch->B; b++) {
        example e;
        run_example(&e, out, batch, params, h.params != NULL ? h.params : params, b);
        for (size_t k = 0; k < batch->K; k++) {
            out->recon += e.recon[k] / (double)batch->K;
        }
        out->kl += e.kl;
        out->objective += example_objective(&e, batch, h, b);
    }
    if (c->objective == VAE_OBJ_ELBO) {
        double kl_dim[WIDEST], penalty = 0;
        ref_kl_dims(kl_dim, batch, params);
        for (size_t j = 0; j < c->latent; j++) {
            penalty += fmax(c->free_bits, kl_dim[j]);
        }
        out->objective += batch->beta * penalty * (double)batch->B;
    }
}

void ref_forward(ref_result *out, const ref_batch *batch, const double *params)
{
    forward(out, batch, params, (held){NULL, false});
}

/* STL holds log q's parameters everywhere; DReG's surrogate is for the encoder, the decoder's
 * gradient is IWAE's. */
void ref_gradient(double *grad, const ref_batch *batch, const double *params)
{
    const vae_objective objective = batch->config->objective;
    const size_t n = ref_n_params(batch->config, batch->D);
    const size_t n_encoder = ref_n_encoder(batch->config, batch->D);
    const double h = 1e-5;
    double *p = malloc(n * sizeof *p);
    memcpy(p, params, n * sizeof *p);
    for (size_t i = 0; i < n; i++) {
        bool holds = objective == VAE_OBJ_STL || (objective == VAE_OBJ_DREG && i < n_encoder);
        held keep = {holds ? params : NULL, holds && objective == VAE_OBJ_DREG};
        ref_result up = {0}, down = {0};
        p[i] = params[i] + h;
        forward(&up, batch, p, keep);
        p[i] = params[i] - h;
        forward(&down, batch, p, keep);
        p[i] = params[i];
        grad[i] = (up.objective - down.objective) / (2 * h) / (double)batch->B;
    }
    free(p);
}
