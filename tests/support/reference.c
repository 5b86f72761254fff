/* The operations again, in double and as plainly as can be: what results are compared with. */
#include "reference.h"

#include <math.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { WIDEST = 512, PARTICLES = 64 };

/* No sanitizer sees the arrays below, or the tests would wait for the reference. */
static size_t fits(size_t n, size_t room)
{
    if (n > room) {
        fprintf(stderr, "the reference has room for %zu, not for %zu\n", room, n);
        abort();
    }
    return n;
}

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
    case VAE_ACT_SILU:
        return x / (1 + exp(-x));
    case VAE_ACT_NONE:
        break;
    }
    return x;
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
        return x < 0 ? 0.01 : 1;
    case VAE_ACT_GELU:
        return 0.5 * erfc(-x / sqrt(2.0)) + x * exp(-x * x / 2) / sqrt(2 * M_PI);
    case VAE_ACT_SILU:
        return (1 + x / (1 + exp(x))) / (1 + exp(-x));
    case VAE_ACT_NONE:
        break;
    }
    return 1;
}

double ref_recon(vae_likelihood likelihood, vae_mean mean, double variance, double m, double raw,
                 double x)
{
    if (mean == VAE_MEAN_SIGMOID) {
        m = 1 / (1 + exp(-m));
    }
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

row_shape ref_shape(const vae_config *c, size_t D)
{
    return c->conv.n > 0 ? (row_shape){4, 8, D / 32} : vae_flat(D);
}

/* Height and width of the picture behind `level` convolutions, and its channels. */
static row_shape level_of(const vae_config *c, size_t D, size_t level)
{
    row_shape s = ref_shape(c, D);
    for (size_t i = 0; i < level; i++) {
        s = (row_shape){s.h / 2, s.w / 2, c->conv.size[i]};
    }
    return s;
}

static size_t small_of(const vae_config *c, size_t D)
{
    const row_shape s = level_of(c, D, c->conv.n);
    return s.h * s.w * s.c;
}

/* Parameters of the convolutions of the encoder, or of the decoder, whose biases are those of the
 * larger pictures. */
static size_t n_of_convs(const vae_config *c, size_t D, bool decoder)
{
    size_t n = 0;
    for (size_t i = 0; i < c->conv.n; i++) {
        const size_t small = c->conv.size[i];
        const size_t big = level_of(c, D, i).c * (decoder && i == 0 ? outputs(c, D) / D : 1);
        n += 16 * big * small + (decoder ? big : small);
    }
    return n;
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

/* Columns of the class in the inputs. */
static size_t classes(const vae_config *c)
{
    return c->semi_supervised || c->condition == VAE_CONDITION_LABELS ? c->classes : 0;
}

size_t ref_n_encoder(const vae_config *c, size_t D)
{
    return n_of_convs(c, D, false) +
           n_of_mlp(small_of(c, D) + classes(c), c->hidden, 2 * c->latent);
}

/* The decoder's linear layers: with convolutions the last of them makes the smallest picture. */
static size_t n_of_dense_decoder(const vae_config *c, size_t D)
{
    const size_t out = c->conv.n > 0 ? small_of(c, D) : outputs(c, D);
    return n_of_mlp(c->latent + classes(c), decoder_sizes(c), out);
}

/* Of encoder and decoder. */
static size_t n_of_vae(const vae_config *c, size_t D)
{
    return ref_n_encoder(c, D) + n_of_dense_decoder(c, D) + n_of_convs(c, D, true);
}

size_t ref_n_params(const vae_config *c, size_t D)
{
    return n_of_vae(c, D) +
           (c->semi_supervised
                ? n_of_convs(c, D, false) + n_of_mlp(small_of(c, D), c->hidden, c->classes)
                : 0);
}

/* y = MLP(x); hidden layers by act, the last linear. */
static void mlp(double *y, const double *x, const double *params, size_t in, vae_sizes hidden,
                size_t out, vae_activation act)
{
    double a[WIDEST], b[WIDEST];
    memcpy(a, x, fits(in, WIDEST) * sizeof *a);
    for (size_t l = 0; l <= hidden.n; l++) {
        size_t n = fits(l < hidden.n ? hidden.size[l] : out, WIDEST);
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

/* For each (pixel of the big picture, pixel of the small one) that a 4 x 4 kernel of stride 2 brings
 * together, padding 1: to += weight times from. W is (small channels, part, ky, kx, channels). */
static void convolve(double *small, double *big, const double *w, row_shape s, size_t c,
                     size_t parts, bool up)
{
    for (size_t o = 0; o < c; o++) {
        for (size_t part = 0; part < parts; part++) {
            for (size_t k = 0; k < 16 * s.c; k++, w++) {
                const size_t ky = k / s.c / 4, kx = k / s.c % 4, ch = k % s.c;
                for (size_t i = ky == 0; i < s.h / 2 && i * 2 + ky <= s.h; i++) {
                    double *line = &big[(part * s.h + i * 2 + ky - 1) * s.w * s.c];
                    for (size_t j = kx == 0; j < s.w / 2 && j * 2 + kx <= s.w; j++) {
                        double *b = &line[(j * 2 + kx - 1) * s.c + ch];
                        double *a = &small[(i * (s.w / 2) + j) * c + o];
                        *(up ? b : a) += *w * (up ? *a : *b);
                    }
                }
            }
        }
    }
}

/* y: what the encoder's convolutions make of x. Returns the parameters behind theirs. */
static const double *convs_down(double *y, const vae_config *c, const double *x, size_t D,
                                const double *params)
{
    double a[WIDEST], b[WIDEST];
    memcpy(a, x, fits(D, WIDEST) * sizeof *a);
    for (size_t i = 0; i < c->conv.n; i++) {
        const row_shape s = level_of(c, D, i);
        const size_t n = c->conv.size[i], out = fits(s.h / 2 * (s.w / 2) * n, WIDEST);
        memset(b, 0, sizeof b);
        convolve(b, a, params, s, n, 1, false);
        params += 16 * s.c * n;
        for (size_t j = 0; j < out; j++) {
            a[j] = ref_act(c->activation, b[j] + params[j % n]);
        }
        params += n;
    }
    memcpy(y, a, small_of(c, D) * sizeof *y);
    return params;
}

/* y: what the decoder's make of the smallest picture, in place. */
static void convs_up(double *y, const vae_config *c, size_t D, const double *params)
{
    double b[WIDEST];
    for (size_t i = c->conv.n; i-- > 0;) {
        const row_shape s = level_of(c, D, i);
        const size_t n = c->conv.size[i], plane = s.h * s.w * s.c;
        const size_t parts = i == 0 ? outputs(c, D) / D : 1;
        fits(parts * plane, WIDEST);
        memset(b, 0, sizeof b);
        convolve(y, b, params, s, n, parts, true);
        params += 16 * s.c * n * parts;
        for (size_t j = 0; j < parts * plane; j++) {
            const double pre = b[j] + params[j / plane * s.c + j % s.c];
            y[j] = i == 0 ? pre : ref_act(c->activation, pre);
        }
        params += parts * s.c;
    }
}

/* to: [values | onehot(label)], n values. */
static void with_class(double *to, const double *values, size_t n, size_t C, size_t label)
{
    fits(n + C, WIDEST);
    memcpy(to, values, n * sizeof *to);
    for (size_t c = 0; c < C; c++) {
        to[n + c] = c == label;
    }
}

static void encode(double *head, const vae_config *c, const double *x, size_t D, size_t label,
                   const double *params)
{
    double in[WIDEST], seen[WIDEST];
    const size_t n = small_of(c, D);
    params = convs_down(seen, c, x, D, params);
    with_class(in, seen, n, classes(c), label);
    mlp(head, in, params, n + classes(c), c->hidden, 2 * c->latent, c->activation);
}

static void decode(double *logits, const vae_config *c, const double *z, size_t D, size_t label,
                   const double *params)
{
    double in[WIDEST];
    with_class(in, z, c->latent, classes(c), label);
    params += ref_n_encoder(c, D);
    if (c->conv.n == 0) {
        mlp(logits, in, params, c->latent + classes(c), decoder_sizes(c), outputs(c, D),
            c->activation);
        return;
    }
    mlp(logits, in, params, c->latent + classes(c), decoder_sizes(c), small_of(c, D),
        c->activation);
    for (size_t i = 0; i < small_of(c, D); i++) {
        logits[i] = ref_act(c->activation, logits[i]);
    }
    convs_up(logits, c, D, params + n_of_dense_decoder(c, D));
}

/* What is held constant where an estimator says so: q's parameters and the weights. */
typedef struct {
    const double *params; /* NULL: nothing is held */
    bool dreg;            /* the objective is sum_k (w~_k)^2 log w_k, w~ held */
} held;

/* Everything of example b that the objective needs. */
typedef struct {
    double head[WIDEST], recon[PARTICLES], log_pq[PARTICLES], kl;
} example;

static void run_example(example *e, ref_result *out, const ref_batch *batch, const double *params,
                        const double *q_params, size_t b)
{
    const vae_config *c = batch->config;
    const size_t Z = c->latent, D = batch->D, K = fits(batch->K, PARTICLES);
    const size_t label = batch->label != NULL ? batch->label[b] : 0;
    double q[WIDEST], z[WIDEST], logits[WIDEST];
    encode(e->head, c, batch->x + b * D, D, label, params);
    encode(q, c, batch->x + b * D, D, label, q_params);
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
        decode(logits, c, z, D, label, params);
        for (size_t d = 0; d < D; d++) {
            double raw = c->likelihood == VAE_GAUSSIAN_LEARNED ? logits[D + d] : 0;
            e->recon[k] += ref_recon(c->likelihood, c->mean, (double)(float)c->variance, logits[d],
                                     raw, batch->x[b * D + d]);
            if (out->x_hat != NULL) {
                out->x_hat[row * D + d] =
                    c->likelihood == VAE_BERNOULLI || c->mean == VAE_MEAN_SIGMOID
                        ? 1 / (1 + exp(-logits[d]))
                        : logits[d];
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
        encode(head, c, batch->x + b * batch->D, batch->D,
               batch->label != NULL ? batch->label[b] : 0, params);
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

/* recon and KL of one row as one class. */
static void one_class(double *recon, double *kl, const ref_batch *batch, const double *params,
                      const double *x, const double *eps, size_t label)
{
    const vae_config *c = batch->config;
    const size_t Z = c->latent, D = batch->D;
    double head[WIDEST], z[WIDEST], logits[WIDEST];
    encode(head, c, x, D, label, params);
    *recon = *kl = 0;
    for (size_t j = 0; j < Z; j++) {
        z[j] = head[j] + exp(head[Z + j] / 2) * eps[j];
        *kl += 0.5 * (head[j] * head[j] + exp(head[Z + j]) - 1 - head[Z + j]);
    }
    decode(logits, c, z, D, label, params);
    for (size_t d = 0; d < D; d++) {
        double raw = c->likelihood == VAE_GAUSSIAN_LEARNED ? logits[D + d] : 0;
        *recon +=
            ref_recon(c->likelihood, c->mean, (double)(float)c->variance, logits[d], raw, x[d]);
    }
}

double ref_semi_loss(ref_result *out, const ref_batch *batch, const double *params,
                     size_t n_labelled, double share, double weight)
{
    const vae_config *c = batch->config;
    const size_t C = c->classes, D = batch->D, B = batch->B;
    double loss = 0;
    out->recon = out->kl = 0;
    for (size_t b = 0; b < B + n_labelled; b++) {
        double q[WIDEST], sum = 0, recon, kl;
        const double *x = batch->x + b * D;
        double seen[WIDEST];
        const double *rest = convs_down(seen, c, x, D, params + n_of_vae(c, D));
        mlp(q, seen, rest, small_of(c, D), c->hidden, C, c->activation);
        for (size_t y = 0; y < C; y++) {
            sum += exp(q[y]);
        }
        if (b >= B) {
            const size_t y = batch->label[b];
            one_class(&recon, &kl, batch, params, x, batch->eps + (B * C + b - B) * c->latent, y);
            loss += (share * (recon + batch->beta * kl + log((double)C)) -
                     weight * log(exp(q[y]) / sum)) /
                    (double)n_labelled;
            continue;
        }
        for (size_t y = 0; y < C; y++) {
            const double p = exp(q[y]) / sum;
            one_class(&recon, &kl, batch, params, x, batch->eps + (b * C + y) * c->latent, y);
            loss +=
                (1 - share) / (double)B * p * (recon + batch->beta * kl + log((double)C) + log(p));
            out->recon += p * recon;
            out->kl += p * (kl + log((double)C) + log(p));
        }
    }
    return loss;
}
