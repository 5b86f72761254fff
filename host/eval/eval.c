/* ELBO and NLL of examples that come in batches. */
#include "eval/eval.h"

#include <assert.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/machine.h"

enum { BLOCK = 64, MOST_ROWS = 4096, MOST_BATCH = 512 };

/* An evaluation under way. */
typedef struct {
    const vae_eval_job *job;
    vae_evaluation *out;
    size_t batch, block;
    double recon, kl, nll, nll_squares; /* sums; the squares are of deviations */
    double nll_mean;
    double *mu_mean, *mu_moved; /* (Z) running mean of mu, sum of its squared deviations */
    size_t seen, nll_seen;
    /* room for a batch */
    float *mu, *logvar, *z, *kl_row, *kl_dim, *recon_row, *log_pq;
    double *recon_mean;   /* (batch) over particles */
    vae_log_sum *weights; /* (batch) */
    /* the N examples of the aggregate posterior */
    size_t n_chosen, taken;
    float *chosen_mu, *chosen_logvar, *chosen_z; /* (N,Z) */
    double chosen_kl;
} work;

void vae_log_sum_add(vae_log_sum *s, double term)
{
    if (term > s->most) {
        s->sum = s->sum * exp(s->most - term) + 1;
        s->most = term;
    } else if (term > -INFINITY) {
        s->sum += exp(term - s->most);
    } else if (isnan(term)) {
        s->sum = term;
    }
}

double vae_log_sum_value(const vae_log_sum *s)
{
    return s->most + log(s->sum);
}

void vae_eval_shape(const vae_eval_job *job, size_t *rows, size_t *particles)
{
    const size_t block = job->samples < BLOCK ? job->samples : BLOCK;
    *particles = block > job->particles || job->shared ? block : job->particles;
    *rows = MOST_ROWS / *particles < 1 ? 1 : MOST_ROWS / *particles;
    *rows = *rows > MOST_BATCH ? MOST_BATCH : *rows;
    *rows = job->most > 0 && *rows > job->most ? job->most : *rows;
}

static void clear_work(work *w)
{
    void *all[] = {w->mu_mean,       w->mu_moved,  w->mu,     w->logvar,  w->z,        w->kl_row,
                   w->kl_dim,        w->recon_row, w->log_pq, w->weights, w->chosen_z, w->chosen_mu,
                   w->chosen_logvar, w->recon_mean};
    for (size_t i = 0; i < sizeof all / sizeof all[0]; i++) {
        free(all[i]);
    }
}

void vae_evaluation_clear(vae_evaluation *e)
{
    free(e->kl_dim);
    free(e->recon_of);
    free(e->kl_of);
    free(e->nll_of);
    *e = (vae_evaluation){0};
}

void *vae_room(size_t *bytes, size_t count, size_t item)
{
    const bool fits = vae_machine_holds(count, item);
    void *p = *bytes == 0 && fits ? calloc(count > 0 ? count : 1, item) : NULL;
    if (p == NULL && *bytes == 0) {
        *bytes = count * item;
    }
    return p;
}

static vae_status make_room(work *w, vae_error *err)
{
    const vae_eval_job *job = w->job;
    const size_t Z = job->z, N = w->n_chosen, F = sizeof(float), D = sizeof(double);
    size_t particles, bytes = 0;
    vae_eval_shape(job, &w->batch, &particles);
    w->batch *= job->ranks > 0 ? job->ranks : 1;
    w->block = job->samples < BLOCK ? job->samples : BLOCK;
    w->out->kl_dim = vae_room(&bytes, Z, D);
    w->mu_mean = vae_room(&bytes, Z, D);
    w->mu_moved = vae_room(&bytes, Z, D);
    w->mu = vae_room(&bytes, w->batch * Z, F);
    w->logvar = vae_room(&bytes, w->batch * Z, F);
    w->z = vae_room(&bytes, N > 0 ? w->batch * job->particles * Z : 0, F);
    w->kl_row = vae_room(&bytes, w->batch, F);
    w->kl_dim = vae_room(&bytes, Z, F);
    w->recon_row = vae_room(&bytes, w->batch * particles, F);
    w->log_pq = vae_room(&bytes, w->batch * particles, F);
    w->weights = vae_room(&bytes, w->batch, sizeof *w->weights);
    w->recon_mean = vae_room(&bytes, w->batch, D);
    w->chosen_mu = vae_room(&bytes, N * Z, F);
    w->chosen_logvar = vae_room(&bytes, N * Z, F);
    w->chosen_z = vae_room(&bytes, N * Z, F);
    if (job->keep_examples) {
        w->out->recon_of = vae_room(&bytes, job->n, F);
        w->out->kl_of = vae_room(&bytes, job->n, F);
        w->out->nll_of = job->samples > 0 ? vae_room(&bytes, job->n, F) : NULL;
    }
    return bytes == 0 ? VAE_OK : vae_fail_memory(err, bytes, "the evaluation");
}

/* Welford's running mean and squared deviations. */
static void add_mu(work *w, const float *mu)
{
    w->seen++;
    for (size_t j = 0; j < w->job->z; j++) {
        double away = (double)mu[j] - w->mu_mean[j];
        w->mu_mean[j] += away / (double)w->seen;
        w->mu_moved[j] += away * ((double)mu[j] - w->mu_mean[j]);
    }
}

/* Keeps row i of the batch, example `at`, if it is among the N: number t is example t*n/N. */
static void choose(work *w, size_t i, size_t at)
{
    const size_t Z = w->job->z, bytes = Z * sizeof(float);
    /* t*n/N without a product that overflows */
    const size_t n = w->job->n, N = w->n_chosen, t = w->taken;
    if (t == N || at != t * (n / N) + t * (n % N) / N) {
        return;
    }
    memcpy(w->chosen_mu + t * Z, w->mu + i * Z, bytes);
    memcpy(w->chosen_logvar + t * Z, w->logvar + i * Z, bytes);
    memcpy(w->chosen_z + t * Z, w->z + i * w->job->particles * Z, bytes);
    w->chosen_kl += (double)w->kl_row[i];
    w->taken++;
}

/* Sums of a batch whose mu, kl_row, kl_dim and recon_mean are there. */
static void count_elbo(work *w, size_t at, size_t rows)
{
    const vae_eval_job *job = w->job;
    for (size_t i = 0; i < rows; i++) {
        w->recon += w->recon_mean[i];
        w->kl += (double)w->kl_row[i];
        add_mu(w, w->mu + i * job->z);
        choose(w, i, at + i);
        if (job->keep_examples) {
            w->out->recon_of[at + i] = (float)w->recon_mean[i];
            w->out->kl_of[at + i] = w->kl_row[i];
        }
    }
    for (size_t j = 0; j < job->z; j++) {
        w->out->kl_dim[j] += (double)w->kl_dim[j] * (double)rows;
    }
}

static vae_status add_elbo(work *w, size_t at, size_t rows, vae_error *err)
{
    const vae_eval_job *job = w->job;
    const size_t K = job->particles;
    const vae_plan plan = vae_eval_plan(job->draws, at);
    vae_batch_out out = {.mu = w->mu,
                         .logvar = w->logvar,
                         .z = w->n_chosen > 0 ? w->z : NULL,
                         .kl = w->kl_row,
                         .kl_dim = w->kl_dim,
                         .recon = w->recon_row};
    vae_status status = VAE_OK;
    TRY(job->batch(job->ctx, &plan, rows, K, &out, err));
    for (size_t i = 0; i < rows; i++) {
        double recon = 0;
        for (size_t k = i * K; k < (i + 1) * K; k++) {
            recon += (double)w->recon_row[k];
        }
        w->recon_mean[i] = recon / (double)K;
    }
    count_elbo(w, at, rows);
done:
    return status;
}

static void tell(const work *w, size_t at, size_t rows, double part)
{
    const vae_watch *watch = &w->job->watch;
    const size_t n = w->job->n;
    if (watch->progress != NULL) {
        watch->progress(watch->ctx, ((double)at + (double)rows * part) / (double)n, n);
    }
}

static void end_nll(work *w, size_t at, size_t rows)
{
    for (size_t i = 0; i < rows; i++) {
        double nll = log((double)w->job->samples) - vae_log_sum_value(&w->weights[i]);
        double away = nll - w->nll_mean;
        w->nll += nll;
        w->nll_seen++;
        w->nll_mean += away / (double)w->nll_seen;
        w->nll_squares += away * (nll - w->nll_mean);
        if (w->job->keep_examples) {
            w->out->nll_of[at + i] = (float)nll;
        }
    }
}

static vae_status add_nll(work *w, size_t at, size_t rows, vae_error *err)
{
    const vae_eval_job *job = w->job;
    vae_plan plan = vae_eval_plan(job->draws + 1, at);
    vae_status status = VAE_OK;
    for (size_t i = 0; i < rows; i++) {
        w->weights[i] = (vae_log_sum){-INFINITY, 0};
        w->recon_mean[i] = 0;
    }
    for (size_t k = 0; k < job->samples; k += w->block) {
        const size_t K = job->samples - k < w->block ? job->samples - k : w->block;
        const bool encoding = job->shared && k == 0; /* the same for every block */
        vae_batch_out out = {.mu = encoding ? w->mu : NULL,
                             .kl = encoding ? w->kl_row : NULL,
                             .kl_dim = encoding ? w->kl_dim : NULL,
                             .recon = w->recon_row,
                             .log_pq = w->log_pq};
        plan.particle0 = (uint32_t)k;
        TRY(job->batch(job->ctx, &plan, rows, K, &out, err));
        for (size_t r = 0; r < rows * K; r++) {
            vae_log_sum_add(&w->weights[r / K], (double)w->log_pq[r] - (double)w->recon_row[r]);
            w->recon_mean[r / K] += (double)w->recon_row[r] / (double)job->samples;
        }
        tell(w, at, rows, (double)(k + K) / (double)job->samples);
    }
    end_nll(w, at, rows);
    if (job->shared) {
        count_elbo(w, at, rows);
    }
done:
    return status;
}

static vae_status add_batch(void *ctx, const vae_plan *plan, size_t rows, vae_error *err)
{
    work *w = ctx;
    vae_status status = VAE_OK;
    if (!w->job->shared) {
        TRY(add_elbo(w, plan->first, rows, err));
    }
    if (w->job->samples > 0) {
        TRY(add_nll(w, plan->first, rows, err));
    }
done:
    return status;
}

static void summarize(work *w)
{
    vae_evaluation *e = w->out;
    const double n = (double)w->job->n;
    e->recon = w->recon / n;
    e->kl = w->kl / n;
    e->elbo = -(e->recon + e->kl);
    for (size_t j = 0; j < e->z; j++) {
        e->kl_dim[j] /= n;
        e->active_units += w->mu_moved[j] / n > 0.01;
    }
    if (w->job->samples > 0) {
        e->nll = w->nll / n;
        e->nll_se = n > 1 ? sqrt(w->nll_squares / n / (n - 1)) : 0;
    }
}

vae_status vae_evaluate(vae_evaluation *out, const vae_eval_job *job, vae_error *err)
{
    const vae_plan from_first = {.first = 0};
    work w = {.job = job, .out = out};
    vae_status status = VAE_OK;
    assert(!job->shared || (job->samples > 0 && job->aggregate == 0));
    *out = (vae_evaluation){.n = job->n,
                            .z = job->z,
                            .samples = job->samples,
                            .nll = NAN,
                            .nll_se = NAN,
                            .mi = NAN,
                            .mi_se = NAN,
                            .mi_bound = NAN,
                            .marginal_kl = NAN,
                            .tc = NAN,
                            .tc_se = NAN,
                            .dimwise_kl = NAN};
    w.n_chosen = job->aggregate < job->n ? job->aggregate : job->n;
    TRY(make_room(&w, err));
    TRY(vae_each_batch(&from_first, job->n, w.batch, &job->watch, add_batch, &w, err));
    summarize(&w);
    if (!isfinite(w.recon + w.kl + w.nll)) {
        TRY(vae_fail(err, VAE_ERR_DIVERGED, "the loss is NaN or Inf"));
    }
    if (w.n_chosen > 0) {
        TRY(vae_eval_aggregate(out, w.chosen_mu, w.chosen_logvar, w.chosen_z, w.n_chosen, job->z,
                               w.chosen_kl / (double)w.n_chosen, err));
    }
done:
    clear_work(&w);
    return status;
}
