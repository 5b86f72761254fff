/* What `vae eval` computes, where the answer is known: linear-Gaussian models, whose likelihood is
 * N(x; b, WW' + s^2 I), and batches made up by hand. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/machine.h"
#include "eval/bytes.h"
#include "eval/eval.h"
#include "model_fixture.h"

/* ---- the running sum ---- */

static void test_log_sum(void **state)
{
    (void)state;
    enum { N = 5000 };
    static double terms[N];
    uint64_t rng = 3;
    double most = -INFINITY, sum = 0;
    vae_log_sum s = {-INFINITY, 0};
    for (size_t i = 0; i < N; i++) {
        terms[i] = -1200 + 40 * (double)random_normal(&rng); /* exp of them is 0 */
        vae_log_sum_add(&s, terms[i]);
        most = terms[i] > most ? terms[i] : most;
    }
    for (size_t i = 0; i < N; i++) {
        sum += exp(terms[i] - most);
    }
    assert_true(fabs(vae_log_sum_value(&s) - (most + log(sum))) < 1e-10);
    s = (vae_log_sum){-INFINITY, 0};
    vae_log_sum_add(&s, -INFINITY); /* a weight of zero adds nothing */
    assert_true(vae_log_sum_value(&s) == -INFINITY);
    vae_log_sum_add(&s, 5);
    vae_log_sum_add(&s, -INFINITY);
    assert_true(vae_log_sum_value(&s) == 5);
    vae_log_sum_add(&s, NAN);
    assert_true(isnan(vae_log_sum_value(&s)));
}

/* ---- a linear-Gaussian VAE ---- */

enum { LINEAR_D = 5, LINEAR_Z = 2, LINEAR_N = 400 };
static const double variance = 0.3;

static vae_config linear_config(void)
{
    vae_config config = small_config();
    config.hidden.n = 0;
    config.latent = LINEAR_Z;
    config.likelihood = VAE_GAUSSIAN;
    config.variance = variance;
    config.particles = 64;
    return config;
}

/* The model's matrices, in double: encoder.head (2Z,D) and its bias, decoder.out (D,Z) and its. */
typedef struct {
    double w[LINEAR_D][LINEAR_Z], b[LINEAR_D];
    double inverse[LINEAR_D][LINEAR_D], log_det; /* of WW' + s^2 I */
} linear;

/* Gauss-Jordan without pivots: the matrix is positive definite. */
static void invert(linear *m)
{
    double a[LINEAR_D][LINEAR_D];
    m->log_det = 0;
    for (size_t i = 0; i < LINEAR_D; i++) {
        for (size_t j = 0; j < LINEAR_D; j++) {
            a[i][j] = i == j ? variance : 0;
            for (size_t k = 0; k < LINEAR_Z; k++) {
                a[i][j] += m->w[i][k] * m->w[j][k];
            }
            m->inverse[i][j] = i == j;
        }
    }
    for (size_t p = 0; p < LINEAR_D; p++) {
        const double pivot = a[p][p];
        m->log_det += log(pivot);
        for (size_t j = 0; j < LINEAR_D; j++) {
            a[p][j] /= pivot;
            m->inverse[p][j] /= pivot;
        }
        for (size_t i = 0; i < LINEAR_D; i++) {
            const double factor = a[i][p];
            for (size_t j = 0; j < LINEAR_D && i != p; j++) {
                a[i][j] -= factor * a[p][j];
                m->inverse[i][j] -= factor * m->inverse[p][j];
            }
        }
    }
}

/* Sets a decoder, and the encoder that belongs to it up to the posterior's correlation: W'C^-1(x-b)
 * as its mean, with a variance that is `wide` times too large in logarithm. */
static void set_linear(model_fixture *f, linear *m, double wide)
{
    uint64_t rng = 17;
    float *p = f->params, *head = p, *head_bias = head + (size_t)2 * LINEAR_Z * LINEAR_D;
    float *out = head_bias + (size_t)2 * LINEAR_Z, *out_bias = out + (size_t)LINEAR_D * LINEAR_Z;
    vae_error err = {0};
    for (size_t i = 0; i < LINEAR_D; i++) {
        for (size_t k = 0; k < LINEAR_Z; k++) {
            out[i * LINEAR_Z + k] = random_uniform(&rng, -1, 1);
            m->w[i][k] = (double)out[i * LINEAR_Z + k];
        }
        out_bias[i] = random_uniform(&rng, -0.5f, 0.5f);
        m->b[i] = (double)out_bias[i];
    }
    invert(m);
    memset(head, 0, (size_t)2 * LINEAR_Z * (LINEAR_D + 1) * sizeof *head);
    for (size_t k = 0; k < LINEAR_Z; k++) {
        double bias = 0, explained = 0;
        for (size_t i = 0; i < LINEAR_D; i++) {
            double gain = 0;
            for (size_t j = 0; j < LINEAR_D; j++) {
                gain += m->w[j][k] * m->inverse[j][i];
            }
            head[k * LINEAR_D + i] = (float)gain;
            bias -= gain * m->b[i];
            explained += gain * m->w[i][k];
        }
        head_bias[k] = (float)bias;
        head_bias[LINEAR_Z + k] = (float)(log(1 - explained) + wide);
    }
    assert_int_equal(vae_model_set(f->model, VAE_PARAMS, f->params, &err), VAE_OK);
}

static double exact_nll(const model_fixture *f, const linear *m, size_t row)
{
    const double log_2pi = 1.83787706640934548356;
    const float *x = (const float *)f->set.rows + row * LINEAR_D;
    double square = 0;
    for (size_t i = 0; i < LINEAR_D; i++) {
        for (size_t j = 0; j < LINEAR_D; j++) {
            square += ((double)x[i] - m->b[i]) * m->inverse[i][j] * ((double)x[j] - m->b[j]);
        }
    }
    return 0.5 * (LINEAR_D * log_2pi + m->log_det + square);
}

static vae_status from_model(void *ctx, const vae_plan *plan, size_t rows, size_t particles,
                             vae_batch_out *out, vae_error *err)
{
    model_fixture *f = ctx;
    return vae_model_batch(f->model, f->data, plan, rows, particles, out, err);
}

static void evaluate_linear(vae_evaluation *e, model_fixture *f, size_t samples, size_t aggregate)
{
    const vae_eval_job job = {.batch = from_model,
                              .ctx = f,
                              .n = LINEAR_N,
                              .z = LINEAR_Z,
                              .particles = 64,
                              .samples = samples,
                              .aggregate = aggregate,
                              .keep_examples = true};
    size_t rows, particles;
    vae_error err = {0};
    vae_eval_shape(&job, &rows, &particles);
    assert_true(rows <= f->max_batch && particles <= f->config.particles);
    if (vae_evaluate(e, &job, &err) != VAE_OK) {
        fail_msg("%s", err.text);
    }
}

/* Mean of a - b over n examples in its own standard errors. */
static double z_score(const double *a, const double *b, size_t n, double *mean)
{
    double squares = 0;
    *mean = 0;
    for (size_t i = 0; i < n; i++) {
        *mean += (a[i] - b[i]) / (double)n;
    }
    for (size_t i = 0; i < n; i++) {
        squares += (a[i] - b[i] - *mean) * (a[i] - b[i] - *mean);
    }
    return *mean / sqrt(squares / (double)n / (double)(n - 1));
}

/* The importance-sampled NLL against the exact one, example by example: the differences have the
 * noise of z only. wide: 0 is nearly the posterior, 1 a proposal 1.6 times too broad. */
static void check_nll(size_t samples, double wide)
{
    static double got[LINEAR_N], exact[LINEAR_N];
    vae_config config = linear_config();
    model_fixture f;
    linear m;
    vae_evaluation e;
    double mean, total = 0;
    fixture_open(&f, &config, VAE_F32, LINEAR_N, LINEAR_D, 512, 2);
    set_linear(&f, &m, wide);
    evaluate_linear(&e, &f, samples, 0);
    for (size_t i = 0; i < LINEAR_N; i++) {
        got[i] = (double)e.nll_of[i];
        exact[i] = exact_nll(&f, &m, i);
        total += exact[i] / LINEAR_N;
    }
    double z = z_score(got, exact, LINEAR_N, &mean);
    print_message("K %zu, wide %g: nll %.6f, exact %.6f, difference %.2e, %.2f of its standard "
                  "errors; nll_se %.4f, elbo %.4f\n",
                  samples, wide, e.nll, total, mean, z, e.nll_se, e.elbo);
    assert_true(fabs(z) < 3);
    assert_true(fabs(e.nll - total) < 3 * e.nll_se);
    assert_true(-e.elbo > total);
    assert_true(isnan(e.mi) && e.aggregate == 0);
    vae_evaluation_clear(&e);
    fixture_close(&f);
}

static void test_exact_likelihood(void **state)
{
    (void)state;
    check_nll(3000, 0);
    check_nll(3000, 1);
}

/* One importance sample: -log w is the ELBO's own loss, from another draw. */
static void test_one_sample(void **state)
{
    (void)state;
    static double one[LINEAR_N], loss[LINEAR_N];
    vae_config config = linear_config();
    model_fixture f;
    linear m;
    vae_evaluation e;
    double mean;
    fixture_open(&f, &config, VAE_F32, LINEAR_N, LINEAR_D, 512, 2);
    set_linear(&f, &m, 0.5);
    evaluate_linear(&e, &f, 1, 0);
    for (size_t i = 0; i < LINEAR_N; i++) {
        one[i] = (double)e.nll_of[i];
        loss[i] = (double)(e.recon_of[i] + e.kl_of[i]);
    }
    double z = z_score(one, loss, LINEAR_N, &mean);
    print_message("K 1: nll %.4f, -elbo %.4f, %.2f standard errors apart\n", e.nll, -e.elbo, z);
    assert_true(fabs(z) < 3);
    vae_evaluation_clear(&e);
    fixture_close(&f);
}

/* ---- made-up batches ---- */

enum { MADE_N = 1000, MADE_Z = 3, CLUSTERS = 4 };

typedef struct {
    double spread;                /* between clusters */
    size_t most_rows, most_cells; /* asked for at once */
    size_t cells;                 /* in all */
} made;

/* q(z|x_i) = N(mu of cluster i % 4, 0.01 I); latents 0 and 1 tell the same, 2 is the prior's.
 * Log-weights are those of a known sequence. */
static vae_status make_batch(void *ctx, const vae_plan *plan, size_t rows, size_t particles,
                             vae_batch_out *out, vae_error *err)
{
    made *m = ctx;
    (void)err;
    m->most_rows = rows > m->most_rows ? rows : m->most_rows;
    m->most_cells = rows * particles > m->most_cells ? rows * particles : m->most_cells;
    m->cells += rows * particles;
    for (size_t i = 0; i < rows; i++) {
        uint64_t rng = plan->first + i + 1;
        const double at = m->spread * (double)((plan->first + i) % CLUSTERS);
        for (size_t j = 0; j < MADE_Z && out->mu != NULL; j++) {
            const bool tells = j < 2;
            const float logvar = tells ? -4.6051702f : 0;
            out->mu[i * MADE_Z + j] = tells ? (float)at : 0;
            out->logvar[i * MADE_Z + j] = logvar;
            if (out->z != NULL) {
                out->z[i * particles * MADE_Z + j] =
                    out->mu[i * MADE_Z + j] + expf(logvar / 2) * random_normal(&rng);
            }
        }
        for (size_t k = 0; k < particles; k++) {
            out->recon[i * particles + k] = (float)((plan->particle0 + k) % 7);
            if (out->log_pq != NULL) {
                out->log_pq[i * particles + k] = -700;
            }
        }
        if (out->kl != NULL) {
            out->kl[i] = (float)(2 * 0.5 * (at * at + 0.01 - 1 + 4.6051702));
        }
    }
    for (size_t j = 0; j < MADE_Z && out->kl_dim != NULL; j++) {
        out->kl_dim[j] = (float)j;
    }
    return VAE_OK;
}

static void evaluate_made(vae_evaluation *e, made *m, size_t n, size_t samples, size_t aggregate)
{
    const vae_eval_job job = {.batch = make_batch,
                              .ctx = m,
                              .n = n,
                              .z = MADE_Z,
                              .particles = 1,
                              .samples = samples,
                              .aggregate = aggregate};
    vae_error err = {0};
    if (vae_evaluate(e, &job, &err) != VAE_OK) {
        fail_msg("%s", err.text);
    }
}

/* Four clusters far apart, told by two latents alike: I = log 4, TC = 2 log 4 - log 4. */
static void test_aggregate(void **state)
{
    (void)state;
    vae_evaluation e;
    made m = {.spread = 3};
    evaluate_made(&e, &m, MADE_N, 0, MADE_N);
    print_message("mi %.6f, tc %.6f, log 4 %.6f, marginal kl %.4f\n", e.mi, e.tc, log(CLUSTERS),
                  e.marginal_kl);
    assert_true(fabs(e.mi - log(CLUSTERS)) < 1e-9 && fabs(e.tc - log(CLUSTERS)) < 1e-9);
    assert_true(e.aggregate == MADE_N && fabs(e.mi_bound - log(MADE_N)) < 1e-12);
    assert_true(fabs(e.marginal_kl + e.mi - e.kl) < 1e-9);
    assert_true(fabs(e.dimwise_kl + e.tc - e.marginal_kl) < 1e-9);
    assert_true(e.active_units == 2 && isnan(e.nll));
    assert_true(fabs(e.kl_dim[2] - 2) < 1e-12);
    vae_evaluation_clear(&e);
    /* no cluster: x and z are independent, and so are the latents */
    m.spread = 0;
    evaluate_made(&e, &m, MADE_N, 0, 100);
    assert_true(fabs(e.mi) < 1e-9 && fabs(e.tc) < 1e-9 && e.active_units == 0);
    vae_evaluation_clear(&e);
    /* posteriors that never meet: mi is at its bound, log N, and no higher */
    m.spread = 3;
    evaluate_made(&e, &m, CLUSTERS, 0, MADE_N);
    assert_true(e.aggregate == CLUSTERS && fabs(e.mi - e.mi_bound) < 1e-9);
    vae_evaluation_clear(&e);
}

/* The same where densities overlap, against numerical integration: z = +-1 with variance s2. */
static void test_overlap(void **state)
{
    (void)state;
    enum { N = 4000 };
    static float mu[N], logvar[N], z[N];
    uint64_t rng = 9;
    vae_error err = {0};
    vae_evaluation e = {0};
    double exact = 0, step = 0.001;
    for (size_t i = 0; i < N; i++) {
        mu[i] = i % 2 == 0 ? 1 : -1;
        logvar[i] = 0;
        z[i] = mu[i] + random_normal(&rng);
    }
    for (double t = -10; t < 12; t += step) { /* E log q(z|x=1) - log q(z) */
        double own = exp(-0.5 * (t - 1) * (t - 1)), other = exp(-0.5 * (t + 1) * (t + 1));
        exact += step * own / sqrt(2 * 3.14159265358979) * log(2 * own / (own + other));
    }
    assert_int_equal(vae_eval_aggregate(&e, mu, logvar, z, N, 1, 0.5, &err), VAE_OK);
    print_message("mi %.5f +- %.5f, exact %.5f; tc of one latent %.1e\n", e.mi, e.mi_se, exact,
                  e.tc);
    assert_true(fabs(e.mi - exact) < 3 * e.mi_se && e.mi_se < 0.02);
    assert_true(fabs(e.tc) < 1e-12);
}

/* Blocks of particles give the one-shot sum, and what is asked for at once never grows. */
static void test_blocks(void **state)
{
    (void)state;
    static const size_t samples[] = {1, 63, 64, 65, 5000, 200000};
    for (size_t s = 0; s < sizeof samples / sizeof samples[0]; s++) {
        made m = {0};
        vae_evaluation e;
        const size_t K = samples[s], n = K > 10000 ? 3 : 130;
        double sum = 0;
        evaluate_made(&e, &m, n, K, 0);
        for (size_t k = 0; k < K; k++) {
            sum += exp(-(double)(k % 7));
        }
        double want = 700 - log(sum / (double)K);
        assert_true(fabs(e.nll - want) < 1e-9);
        assert_true(e.nll_se < 1e-9);
        assert_true(m.cells == n * (K + 1) && m.most_cells <= 4096 && m.most_rows <= 512);
        vae_evaluation_clear(&e);
    }
}

static vae_status bad_batch(void *ctx, const vae_plan *plan, size_t rows, size_t particles,
                            vae_batch_out *out, vae_error *err)
{
    vae_status status = make_batch(ctx, plan, rows, particles, out, err);
    out->recon[0] = NAN;
    return status;
}

static void test_failures(void **state)
{
    (void)state;
    made m = {0};
    vae_eval_job job = {.batch = bad_batch, .ctx = &m, .n = 10, .z = MADE_Z, .particles = 1};
    vae_evaluation e;
    vae_error err = {0};
    assert_int_equal(vae_evaluate(&e, &job, &err), VAE_ERR_DIVERGED);
    vae_evaluation_clear(&e);
    job.samples = 5;
    err = (vae_error){0};
    assert_int_equal(vae_evaluate(&e, &job, &err), VAE_ERR_DIVERGED);
    vae_evaluation_clear(&e);
    vae_evaluation_clear(&e);
}

/* ---- bytes ---- */

enum { BYTES_D = 5, BYTES_N = 37 };

/* The fixture's model, as a command has it. */
static vae_trained view_of(model_fixture *f, const vae_checkpoint *checkpoint)
{
    return (vae_trained){.checkpoint = checkpoint,
                         .config = f->config,
                         .be = f->be,
                         .model = f->model,
                         .batch = 8, /* does not divide the rows */
                         .set = &f->set,
                         .data = f->data,
                         .n = f->set.n};
}

static vae_byte_figures measure_bytes(model_fixture *f)
{
    const vae_checkpoint checkpoint = {.standard = NULL};
    const vae_trained m = view_of(f, &checkpoint);
    const vae_plan plan = vae_eval_plan(0, 0);
    vae_byte_figures got;
    vae_error err = {0};
    assert_true(vae_bytes_are(&m));
    if (vae_bytes_measure(&got, &m, f->set.n, &plan, NULL, &err) != VAE_OK) {
        fail_msg("%s", err.text);
    }
    assert_int_equal(got.n, f->set.n);
    return got;
}

static double bytes_loss(double x, double mean, double variance_of_x)
{
    return 0.5 *
           (log(2 * 3.14159265358979324 * variance_of_x) + (x - mean) * (x - mean) / variance_of_x);
}

/* E_u of the loss of x + u, u uniform in +-1/512, by the midpoint rule. */
static double noisy_loss(double x, double mean, double variance_of_x)
{
    enum { STEPS = 500 };
    double sum = 0;
    for (int i = 0; i < STEPS; i++) {
        sum += bytes_loss(x + ((i + 0.5) / STEPS - 0.5) / 256, mean, variance_of_x);
    }
    return sum / STEPS;
}

/* mu, its mean and all of the loss in double, from the parameters and the pass's own noise. */
static void check_bytes(vae_likelihood likelihood, double variance_of_x)
{
    vae_config config = small_config();
    model_fixture f;
    config.hidden.n = 0;
    config.latent = LINEAR_Z;
    config.likelihood = likelihood;
    config.variance = variance_of_x;
    fixture_open(&f, &config, VAE_U8, BYTES_N, BYTES_D, 8, 2);
    const size_t cols = vae_likelihood_of(likelihood)->outputs * BYTES_D;
    const float *head = f.params, *head_bias = head + (size_t)2 * LINEAR_Z * BYTES_D;
    const float *out = head_bias + (size_t)2 * LINEAR_Z, *out_bias = out + cols * LINEAR_Z;
    const vae_plan plan = vae_eval_plan(0, 0);
    double *eps = fixture_eps(&f, &plan, BYTES_N, 1), squares = 0, noisy = 0;
    for (size_t r = 0; r < BYTES_N; r++) {
        double mu[LINEAR_Z], z[LINEAR_Z], x[BYTES_D];
        for (size_t i = 0; i < BYTES_D; i++) {
            x[i] = ((uint8_t *)f.set.rows)[r * BYTES_D + i] / 255.0;
        }
        for (size_t j = 0; j < LINEAR_Z; j++) {
            double logvar = (double)head_bias[LINEAR_Z + j];
            mu[j] = (double)head_bias[j];
            for (size_t i = 0; i < BYTES_D; i++) {
                mu[j] += (double)head[j * BYTES_D + i] * x[i];
                logvar += (double)head[(LINEAR_Z + j) * BYTES_D + i] * x[i];
            }
            z[j] = mu[j] + exp(logvar / 2) * eps[r * LINEAR_Z + j];
            noisy += 0.5 * (exp(logvar) + mu[j] * mu[j] - 1 - logvar);
        }
        for (size_t i = 0; i < BYTES_D; i++) {
            double of_x = variance_of_x, at_mu = (double)out_bias[i], at_z = at_mu;
            for (size_t j = 0; j < LINEAR_Z; j++) {
                at_mu += (double)out[i * LINEAR_Z + j] * mu[j];
                at_z += (double)out[i * LINEAR_Z + j] * z[j];
            }
            if (likelihood == VAE_GAUSSIAN_LEARNED) {
                double raw = (double)out_bias[BYTES_D + i];
                for (size_t j = 0; j < LINEAR_Z; j++) {
                    raw += (double)out[(BYTES_D + i) * LINEAR_Z + j] * z[j];
                }
                of_x = exp(VAE_LOGVAR_MIN + log1p(exp(raw - VAE_LOGVAR_MIN)));
            }
            at_mu = likelihood == VAE_BERNOULLI ? 1 / (1 + exp(-at_mu)) : at_mu;
            squares += (x[i] - at_mu) * (x[i] - at_mu);
            noisy += noisy_loss(x[i], at_z, of_x);
        }
    }
    const vae_byte_figures got = measure_bytes(&f);
    const double psnr = 10 * log10(BYTES_N * BYTES_D / squares);
    const double bits = (noisy / BYTES_N / BYTES_D + log(256)) / log(2);
    print_message("%s: psnr %.6f, expected %.6f; bits %.7f, expected %.7f, of the noise %.1e\n",
                  vae_likelihood_of(likelihood)->unit ? "unit" : "density", got.psnr, psnr,
                  got.bits, bits, got.noise / BYTES_D / log(2));
    assert_true(fabs(got.psnr - psnr) < 1e-4);
    if (likelihood == VAE_BERNOULLI) {
        assert_true(isnan(got.bits) && isnan(got.noise));
    } else { /* finer than what the noise adds */
        assert_true(fabs(got.bits - bits) < 1e-6 * fabs(bits) + 0.01 * got.noise / BYTES_D);
    }
    free(eps);
    fixture_close(&f);
}

static void test_bytes(void **state)
{
    (void)state;
    check_bytes(VAE_GAUSSIAN, 2e-5);
    check_bytes(VAE_GAUSSIAN_LEARNED, 1);
    check_bytes(VAE_BERNOULLI, 1);
}

/* One byte that the model knows, and a density narrower than a byte: its value there promises fewer
 * bits than the mass around that byte has, and the noise makes them more. */
static void test_bytes_bound(void **state)
{
    (void)state;
    const double s = 0.4 / 256;
    vae_config config = small_config();
    vae_error err = {0};
    model_fixture f;
    config.hidden.n = 0;
    config.latent = LINEAR_Z;
    config.likelihood = VAE_GAUSSIAN;
    config.variance = s * s;
    fixture_open(&f, &config, VAE_U8, BYTES_N, BYTES_D, 8, 2);
    memset(f.params, 0, f.n_params * sizeof *f.params);
    for (size_t i = 0; i < BYTES_D; i++) {
        f.params[f.n_params - 1 - i] = 128 / 255.0f;
    }
    assert_int_equal(vae_model_set(f.model, VAE_PARAMS, f.params, &err), VAE_OK);
    memset(f.set.rows, 128, BYTES_N * BYTES_D);
    vae_trained m = view_of(&f, NULL);
    assert_int_equal(vae_trained_put(&m, NULL, 0, &err), VAE_OK);
    f.data = m.data;
    const vae_byte_figures got = measure_bytes(&f);
    const double mass = -log2(erf(1 / (512 * s * sqrt(2))));
    const double bare = vae_bits_per_dim(got.elbo, 0, BYTES_D);
    print_message("bits %.6f, of the mass %.6f, without noise %.6f; psnr %.1f\n", got.bits, mass,
                  bare, got.psnr);
    assert_true(bare < mass && mass < got.bits && got.bits < mass + 0.15);
    assert_true(got.psnr > 100);
    assert_true(fabs(got.noise - BYTES_D / (24 * 0.4 * 0.4)) < 1e-9);
    fixture_close(&f);
}

/* What PSNR and bits are not for. */
static void test_bytes_are(void **state)
{
    (void)state;
    double standard[2];
    vae_dataset set = {.dtype = VAE_U8};
    vae_checkpoint checkpoint = {.standard = NULL};
    vae_trained m = {.checkpoint = &checkpoint, .set = &set};
    assert_true(vae_bytes_are(&m));
    set.dtype = VAE_F32;
    assert_false(vae_bytes_are(&m));
    set.dtype = VAE_BITS;
    assert_false(vae_bytes_are(&m));
    set.dtype = VAE_U8;
    m.config.binarize = VAE_BINARIZE_THRESHOLD;
    assert_false(vae_bytes_are(&m));
    m.config.binarize = VAE_BINARIZE_NONE;
    checkpoint.standard = standard;
    assert_false(vae_bytes_are(&m));
}

/* What the machine has no memory for is not begun; once something was not to be had, nothing is. */
static void test_room(void **state)
{
    (void)state;
    const size_t memory = vae_machine_memory();
    size_t bytes = 0;
    double *some = vae_room(&bytes, 3, sizeof *some);
    assert_true(some != NULL && bytes == 0 && some[2] == 0);
    assert_null(vae_room(&bytes, memory / 8 + 1, 8));
    assert_int_equal(bytes, (memory / 8 + 1) * 8);
    assert_null(vae_room(&bytes, 1, 8));
    assert_int_equal(bytes, (memory / 8 + 1) * 8);
    free(some);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_log_sum),     cmocka_unit_test(test_exact_likelihood),
        cmocka_unit_test(test_one_sample),  cmocka_unit_test(test_aggregate),
        cmocka_unit_test(test_overlap),     cmocka_unit_test(test_blocks),
        cmocka_unit_test(test_failures),    cmocka_unit_test(test_bytes),
        cmocka_unit_test(test_bytes_bound), cmocka_unit_test(test_bytes_are),
        cmocka_unit_test(test_room),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
