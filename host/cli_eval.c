/* vae eval: how good a trained model is.
 *
 * ELBO, recon and KL come from the noise of training's own measuring passes, so that they agree
 * with metrics.jsonl. The NLL is -log (1/K) sum_k w_k, w_k = p(x|z_k) p(z_k) / q(z_k|x) (Burda et
 * al. 2015, eq. 8), summed over blocks of particles by a running log-sum-exp in double. Active
 * units are the latents with Cov_x(E_q[z|x]) > 0.01 (the same, section 5.2). */
#include <jansson.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "cli.h"
#include "cli_progress.h"
#include "trainer.h"

enum { BLOCK = 64, ROWS = 4096, MOST_BATCH = 512 };

typedef struct {
    size_t n, d, z, samples;
    size_t particles; /* of the ELBO: those of training */
    size_t block;     /* of the NLL, at a time */
    size_t batch;
    /* sums over examples */
    double recon, kl, nll, nll_squares;
    double *kl_dim;        /* (Z) */
    double *mu, *mu_moved; /* (Z) running mean of mu, and sum of its squared deviations */
    size_t seen;
    /* room for a batch */
    float *mu_row, *kl_row, *kl_dim_row, *recon_row, *log_pq;
    double *most, *sum; /* (batch) log-sum-exp so far: most + log(sum) */
} evaluation;

static void clear(evaluation *e)
{
    void *all[] = {e->kl_dim,     e->mu,        e->mu_moved, e->mu_row, e->kl_row,
                   e->kl_dim_row, e->recon_row, e->log_pq,   e->most,   e->sum};
    for (size_t i = 0; i < sizeof all / sizeof all[0]; i++) {
        free(all[i]);
    }
}

static vae_status make_room(evaluation *e, vae_error *err)
{
    const size_t rows = e->batch * (e->block > e->particles ? e->block : e->particles);
    e->kl_dim = calloc(e->z, sizeof *e->kl_dim);
    e->mu = calloc(e->z, sizeof *e->mu);
    e->mu_moved = calloc(e->z, sizeof *e->mu_moved);
    e->mu_row = malloc(e->batch * e->z * sizeof *e->mu_row);
    e->kl_row = malloc(e->batch * sizeof *e->kl_row);
    e->kl_dim_row = malloc(e->z * sizeof *e->kl_dim_row);
    e->recon_row = malloc(rows * sizeof *e->recon_row);
    e->log_pq = malloc(rows * sizeof *e->log_pq);
    e->most = malloc(e->batch * sizeof *e->most);
    e->sum = malloc(e->batch * sizeof *e->sum);
    if (e->kl_dim == NULL || e->mu == NULL || e->mu_moved == NULL || e->mu_row == NULL ||
        e->kl_row == NULL || e->kl_dim_row == NULL || e->recon_row == NULL || e->log_pq == NULL ||
        e->most == NULL || e->sum == NULL) {
        return vae_fail_memory(err, e->batch * e->z * sizeof *e->mu_row + 2 * rows * sizeof(float),
                               "the evaluation");
    }
    return VAE_OK;
}

/* Welford's running mean and squared deviations. */
static void add_mu(evaluation *e, const float *mu)
{
    e->seen++;
    for (size_t j = 0; j < e->z; j++) {
        double away = (double)mu[j] - e->mu[j];
        e->mu[j] += away / (double)e->seen;
        e->mu_moved[j] += away * ((double)mu[j] - e->mu[j]);
    }
}

static vae_status add_elbo(evaluation *e, cli_model *m, size_t at, size_t rows, vae_error *err)
{
    const vae_plan plan = {.draw = VAE_EVAL_DRAW(0), .first = at, .beta = 1, .step = 1};
    vae_batch_out out = {
        .mu = e->mu_row, .kl = e->kl_row, .kl_dim = e->kl_dim_row, .recon = e->recon_row};
    vae_status status = vae_model_batch(m->model, m->data, &plan, rows, e->particles, &out, err);
    if (status != VAE_OK) {
        return status;
    }
    for (size_t i = 0; i < rows * e->particles; i++) {
        e->recon += (double)e->recon_row[i] / (double)e->particles;
    }
    for (size_t i = 0; i < rows; i++) {
        e->kl += (double)e->kl_row[i];
        add_mu(e, e->mu_row + i * e->z);
    }
    for (size_t j = 0; j < e->z; j++) {
        e->kl_dim[j] += (double)e->kl_dim_row[j] * (double)rows;
    }
    return VAE_OK;
}

/* Adds K log-weights of each row to its running log-sum-exp. */
static void add_weights(evaluation *e, size_t rows, size_t K)
{
    for (size_t i = 0; i < rows; i++) {
        for (size_t k = i * K; k < (i + 1) * K; k++) {
            double log_w = (double)e->log_pq[k] - (double)e->recon_row[k];
            if (log_w > e->most[i]) {
                e->sum[i] = e->sum[i] * exp(e->most[i] - log_w) + 1;
                e->most[i] = log_w;
            } else {
                e->sum[i] += exp(log_w - e->most[i]);
            }
        }
    }
}

static vae_status add_nll(evaluation *e, cli_model *m, size_t at, size_t rows, vae_error *err)
{
    for (size_t i = 0; i < rows; i++) {
        e->most[i] = -INFINITY;
        e->sum[i] = 0;
    }
    for (size_t k = 0; k < e->samples; k += e->block) {
        const size_t K = e->samples - k < e->block ? e->samples - k : e->block;
        const vae_plan plan = {
            .draw = VAE_EVAL_DRAW(1), .first = at, .beta = 1, .step = 1, .particle0 = (uint32_t)k};
        vae_batch_out out = {.recon = e->recon_row, .log_pq = e->log_pq};
        vae_status status = vae_model_batch(m->model, m->data, &plan, rows, K, &out, err);
        if (status != VAE_OK) {
            return status;
        }
        add_weights(e, rows, K);
    }
    for (size_t i = 0; i < rows; i++) {
        double nll = log((double)e->samples) - e->most[i] - log(e->sum[i]);
        e->nll += nll;
        e->nll_squares += nll * nll;
    }
    return VAE_OK;
}

static vae_status evaluate(evaluation *e, cli_model *m, const cli_args *args, vae_error *err)
{
    cli_progress progress;
    cli_progress_open(&progress, args->quiet);
    vae_status status = VAE_OK;
    for (size_t at = 0; at < e->n && status == VAE_OK; at += e->batch) {
        const size_t rows = e->n - at < e->batch ? e->n - at : e->batch;
        status = add_elbo(e, m, at, rows, err);
        if (status == VAE_OK && e->samples > 0) {
            status = add_nll(e, m, at, rows, err);
        }
        if (progress.terminal && !args->quiet) {
            int n = fprintf(stderr, "\rexample %zu of %zu", at + rows, e->n) - 1;
            progress.drawn = n > 0 ? (size_t)n : 0;
            fflush(stderr);
        }
    }
    cli_progress_clear(&progress);
    if (status == VAE_OK && !isfinite(e->recon + e->kl + e->nll)) {
        status = vae_fail(err, VAE_ERR_DIVERGED, "%s: the loss on %s is NaN or Inf", m->path,
                          m->set->source);
    }
    return status;
}

static double nll_se(const evaluation *e)
{
    double n = (double)e->n, mean = e->nll / n;
    double spread = e->nll_squares / n - mean * mean;
    return n > 1 && spread > 0 ? sqrt(spread / (n - 1)) : 0;
}

static size_t active_units(const evaluation *e)
{
    size_t active = 0;
    for (size_t j = 0; j < e->z; j++) {
        active += e->mu_moved[j] / (double)e->n > 0.01;
    }
    return active;
}

static void print_json(const evaluation *e, const cli_model *m, const char *binarize)
{
    const double n = (double)e->n;
    json_t *kl_dim = json_array();
    for (size_t j = 0; j < e->z; j++) {
        json_array_append_new(kl_dim, json_real(e->kl_dim[j] / n));
    }
    json_t *o = json_pack(
        "{s:i, s:s, s:s, s:s, s:I, s:I, s:s, s:f, s:f, s:f, s:o, s:o, s:I, s:I, s:o}", "schema", 1,
        "checkpoint", m->path, "data", m->set->source, "split", m->split, "n", (json_int_t)e->n,
        "epoch", (json_int_t)m->checkpoint->state.epoch, "binarize", binarize, "elbo",
        -(e->recon + e->kl) / n, "recon", e->recon / n, "kl", e->kl / n, "nll",
        e->samples > 0 ? json_real(e->nll / n) : json_null(), "nll_se",
        e->samples > 0 ? json_real(nll_se(e)) : json_null(), "samples", (json_int_t)e->samples,
        "active_units", (json_int_t)active_units(e), "kl_per_dim", kl_dim);
    json_dumpf(o, stdout, JSON_INDENT(2) | JSON_REAL_PRECISION(9));
    putchar('\n');
    json_decref(o);
}

static void print_text(const evaluation *e, const cli_model *m, const char *binarize)
{
    const double n = (double)e->n;
    printf("%s after epoch %llu, on %s (%s, %zu examples, binarize %s), nats per example\n",
           m->path, (unsigned long long)m->checkpoint->state.epoch, m->set->source, m->split, e->n,
           binarize);
    printf("elbo          %.4f\n", -(e->recon + e->kl) / n);
    printf("recon         %.4f\n", e->recon / n);
    printf("kl            %.4f\n", e->kl / n);
    if (e->samples > 0) {
        printf("nll           %.4f +- %.4f (%zu importance samples)\n", e->nll / n, nll_se(e),
               e->samples);
    }
    printf("active units  %zu of %zu\n", active_units(e), e->z);
    printf("kl per dim   ");
    for (size_t j = 0; j < e->z; j++) {
        printf(" %.3f", e->kl_dim[j] / n);
    }
    putchar('\n');
}

static vae_status prepare(evaluation *e, cli_model *m, vae_error *err)
{
    e->n = m->set->n;
    e->d = m->checkpoint->d;
    e->z = m->config.latent;
    e->particles = m->config.particles;
    e->block = e->samples < BLOCK ? e->samples : BLOCK;
    const size_t most = e->block > e->particles ? e->block : e->particles;
    e->batch = ROWS / most < 1 ? 1 : ROWS / most;
    e->batch = e->batch > MOST_BATCH ? MOST_BATCH : e->batch;
    vae_status status = make_room(e, err);
    if (status == VAE_OK) {
        status = cli_open_model(m, e->batch, most, err);
    }
    return status == VAE_OK ? cli_open_data(m, err) : status;
}

vae_status cli_eval(const cli_args *args, vae_error *err)
{
    cli_model m = {0};
    evaluation e = {0};
    char binarize[32];
    const char *mode = cli_value(args, "binarize");
    vae_status status = cli_size(args, "samples", 0, 0, 4000000, &e.samples, err);
    if (status == VAE_OK && (status = cli_open_checkpoint(&m, args, false, err)) == VAE_OK &&
        mode != NULL) {
        status = vae_config_set(&m.config, "binarize", mode, err);
        if (status == VAE_OK) {
            status = vae_config_check(&m.config, 0, err);
        }
    }
    if (status == VAE_OK && (status = cli_open_set(&m, args, err)) == VAE_OK &&
        (status = prepare(&e, &m, err)) == VAE_OK &&
        (status = evaluate(&e, &m, args, err)) == VAE_OK) {
        vae_config_get(&m.config, "binarize", binarize, sizeof binarize);
        (args->json ? print_json : print_text)(&e, &m, binarize);
    }
    clear(&e);
    cli_close(&m);
    return status;
}
