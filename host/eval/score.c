/* One pass of vae_evaluate over the rows; what it does not keep (the error at mu, each column's
 * part) is taken from the batches that it asks for as they pass by. */
#include "eval/score.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/pool.h"
#include "eval/eval.h"
#include "vae_math.h"

enum {
    DRAWS = 0,     /* of the evaluation's noise */
    PART_ROWS = 4, /* that a thread takes at a time */
};

const char *vae_score_name(vae_score_kind score)
{
    static const char *const names[] = {"recon_error", "recon_prob", "neg_elbo", "nll"};
    return names[score];
}

/* A pass under way. */
typedef struct {
    const vae_score_job *job;
    vae_row_scores *out;
    size_t first;      /* row 0 of out is row `first` of the data */
    size_t d, z, cols; /* columns of the data, latents; columns of the decoder's output */
    vae_recon recon;
    int threads;
    /* room for a batch */
    float *x, *logits;
    uint32_t *label; /* (rows), of a conditional model; else NULL */
    double *sums;    /* (rows,d) contributions; NULL = not wanted */
    double *error;   /* (rows) at mu */
} scoring;

/* ---- the likelihood, value by value ---- */

static double bernoulli_values(double *sum, const float *logits, const float *x, size_t d)
{
    double total = 0;
    for (size_t i = 0; i < d; i++) {
        float unused;
        const double v = (double)vae_bernoulli(logits[i], x[i], &unused);
        total += v;
        if (sum != NULL) {
            sum[i] += v;
        }
    }
    return total;
}

/* mean: where sigmoid, its logits; raw: raw log variances, or NULL where the variance is fixed at
 * e^logvar. */
static double gaussian_values(double *sum, const float *mean, const float *raw, const float *x,
                              size_t d, float logvar, float inv_var, bool sigmoid)
{
    double total = 0;
    for (size_t i = 0; i < d; i++) {
        float unused[3];
        if (raw != NULL) {
            logvar = vae_bounded_logvar(raw[i], &unused[2]);
            inv_var = vae_expf(-logvar);
        }
        const double v = (double)(sigmoid ? vae_gaussian_sigmoid : vae_gaussian)(
            mean[i], x[i], logvar, inv_var, &unused[0], &unused[1]);
        total += v;
        if (sum != NULL) {
            sum[i] += v;
        }
    }
    return total;
}

/* -log p(x|z) of a row as the sum of its values' -log p(x_d|z), by the functions that recon_loss
 * sums. logits: a row of vae_model_logits; x: (d). sum: (d), += each value's; or NULL. */
static double recon_values(double *sum, const float *logits, const float *x, size_t d,
                           vae_recon recon)
{
    const bool sigmoid = recon.mean == VAE_MEAN_SIGMOID;
    switch (recon.likelihood) {
    case VAE_GAUSSIAN:
        return gaussian_values(sum, logits, NULL, x, d, vae_logf(recon.variance),
                               1.0f / recon.variance, sigmoid);
    case VAE_GAUSSIAN_LEARNED:
        return gaussian_values(sum, logits, logits + d, x, d, 0, 1, sigmoid);
    case VAE_BERNOULLI:
    default:
        return bernoulli_values(sum, logits, x, d);
    }
}

/* ---- batches ---- */

/* An overflow on the way is what a row far from all others looks like. */
static float finite_or_far(double value)
{
    return isfinite(value) ? (float)value : INFINITY;
}

/* Columns of the largest contributions, largest first, the first of equals first. */
static void find_top(uint32_t *top, size_t n_top, const double *sum, size_t d)
{
    for (size_t found = 0, i = 0; i < d; i++) {
        const float v = finite_or_far(sum[i]);
        size_t at = found;
        while (at > 0 && v > finite_or_far(sum[top[at - 1]])) {
            at--;
        }
        if (at == n_top) {
            continue;
        }
        found = found < n_top ? found + 1 : n_top;
        memmove(top + at + 1, top + at, (found - 1 - at) * sizeof *top);
        top[at] = (uint32_t)i;
    }
}

typedef struct {
    const scoring *s;
    size_t at; /* row of the results of the batch's first */
    double scale;
} keeping;

static void keep_rows(void *ctx, int thread, size_t first, size_t end)
{
    const keeping *a = ctx;
    vae_row_scores *out = a->s->out;
    const size_t d = a->s->d;
    (void)thread;
    for (size_t r = first; r < end; r++) {
        double *sum = a->s->sums + r * d;
        for (size_t i = 0; i < d; i++) {
            sum[i] *= a->scale;
        }
        for (size_t i = 0; out->contributions != NULL && i < d; i++) {
            out->contributions[(a->at + r) * d + i] = finite_or_far(sum[i]);
        }
        if (out->top != NULL) {
            uint32_t *top = out->top + (a->at + r) * out->n_top;
            find_top(top, out->n_top, sum, d);
            for (size_t k = 0; k < out->n_top; k++) {
                out->top_value[(a->at + r) * out->n_top + k] = finite_or_far(sum[top[k]]);
            }
        }
    }
}

/* Rows first .. of the data have their sums: keeps what of them is wanted. */
static void keep_contributions(const scoring *s, size_t first, size_t rows, double scale)
{
    keeping a = {s, first - s->first, scale};
    vae_parallel(s->threads, rows, PART_ROWS, keep_rows, &a);
}

typedef struct {
    const scoring *s;
    size_t K;
    bool to_sums;
    double *error;
} adding;

static void add_rows(void *ctx, int thread, size_t first, size_t end)
{
    const adding *a = ctx;
    const scoring *s = a->s;
    const size_t d = s->d, K = a->K;
    (void)thread;
    for (size_t r = first; r < end; r++) {
        double total = 0;
        for (size_t k = r * K; k < (r + 1) * K; k++) {
            total += recon_values(a->to_sums ? s->sums + r * d : NULL, s->logits + k * s->cols,
                                  s->x + r * d, d, s->recon);
        }
        if (a->error != NULL) {
            a->error[r] = total;
        }
    }
}

/* -log p(x|z) of rows*K rows of logits, to sums, or, where there are none, to error. */
static void add_values(const scoring *s, size_t rows, size_t K, bool to_sums, double *error)
{
    adding a = {s, K, to_sums, error};
    vae_parallel(s->threads, rows, PART_ROWS, add_rows, &a);
}

/* vae_eval_batch: the model's batch, looked at in passing. */
static vae_status score_batch(void *ctx, const vae_plan *plan, size_t rows, size_t particles,
                              vae_batch_out *out, vae_error *err)
{
    scoring *s = ctx;
    const vae_score_job *job = s->job;
    const bool opening = plan->particle0 == 0, averaging = s->sums != NULL && !job->at_mu;
    const size_t done_draws = plan->particle0 + particles;
    vae_status status = VAE_OK;
    out->x = opening ? s->x : NULL;
    out->label = opening ? s->label : NULL;
    out->logits = averaging ? s->logits : NULL;
    TRY(vae_trained_batch_of(job->on, job->data, plan, rows, particles, out, err));
    if (opening && s->sums != NULL) {
        memset(s->sums, 0, rows * s->d * sizeof *s->sums);
    }
    if (averaging) {
        add_values(s, rows, particles, true, NULL);
    }
    if (averaging && done_draws == job->samples) {
        keep_contributions(s, plan->first, rows, 1 / (double)job->samples);
    }
    if (opening) {
        TRY(vae_model_logits(job->on->model, s->logits, out->mu, s->label, rows, err));
        add_values(s, rows, 1, s->sums != NULL && job->at_mu, s->error);
        for (size_t r = 0; r < rows; r++) {
            s->out->of[VAE_RECON_ERROR][plan->first - s->first + r] = finite_or_far(s->error[r]);
        }
        if (s->sums != NULL && job->at_mu) {
            keep_contributions(s, plan->first, rows, 1);
        }
    }
done:
    return status;
}

/* ---- the pass ---- */

static vae_eval_job eval_job(const vae_score_job *job)
{
    return (vae_eval_job){.batch = score_batch,
                          .watch = job->watch,
                          .n = job->n,
                          .samples = job->samples,
                          .draws = DRAWS,
                          .most = job->on != NULL ? job->on->batch : 0,
                          .ranks = job->on != NULL ? vae_ranks_n(job->on->ranks) : 1,
                          .keep_examples = true,
                          .shared = true};
}

void vae_score_shape(const vae_score_job *job, size_t *rows, size_t *particles)
{
    const vae_eval_job eval = eval_job(job);
    vae_eval_shape(&eval, rows, particles);
}

static void clear_scoring(scoring *s)
{
    free(s->x);
    free(s->label);
    free(s->logits);
    free(s->sums);
    free(s->error);
}

/* Room for the results, and for batches of `rows`. */
static vae_status open_scoring(scoring *s, const vae_score_job *job, vae_row_scores *out,
                               size_t rows, size_t particles, vae_error *err)
{
    const vae_config *c = &job->on->config;
    const bool averaging = (job->contributions || job->top > 0) && !job->at_mu;
    size_t bytes = 0, values;
    *s = (scoring){.job = job,
                   .out = out,
                   .d = vae_model_layout(job->on->model)->d,
                   .z = c->latent,
                   .recon = vae_recon_of(c->likelihood, c->variance, c->mean),
                   .threads = vae_threads(c->threads)};
    *out = (vae_row_scores){.n = job->n, .d = s->d, .n_top = job->top < s->d ? job->top : s->d};
    if (__builtin_mul_overflow(job->n, s->d, &values)) {
        return vae_fail(err, VAE_ERR_DATA, "%zu rows x %zu columns are too many", job->n, s->d);
    }
    out->of[VAE_RECON_ERROR] = vae_room(&bytes, job->n, sizeof(float));
    if (job->contributions) {
        out->contributions = vae_room(&bytes, values, sizeof(float));
    }
    if (out->n_top > 0) {
        out->top = vae_room(&bytes, job->n * out->n_top, sizeof(uint32_t));
        out->top_value = vae_room(&bytes, job->n * out->n_top, sizeof(float));
    }
    s->cols = vae_likelihood_of(c->likelihood)->outputs * s->d;
    s->x = vae_room(&bytes, rows * s->d, sizeof(float));
    if (vae_config_has_classes(c)) {
        s->label = vae_room(&bytes, rows, sizeof(uint32_t));
    }
    s->logits = vae_room(&bytes, rows * (averaging ? particles : 1) * s->cols, sizeof(float));
    if (job->contributions || out->n_top > 0) {
        s->sums = vae_room(&bytes, rows * s->d, sizeof(double));
    }
    s->error = vae_room(&bytes, rows, sizeof(double));
    return bytes == 0 ? VAE_OK : vae_fail_memory(err, bytes, "the scores");
}

/* The evaluation's arrays become scores. */
static vae_status take_scores(vae_row_scores *out, vae_evaluation *e, vae_error *err)
{
    for (size_t i = 0; i < out->n; i++) {
        const float recon = e->recon_of[i], kl = e->kl_of[i];
        const float values[] = {[VAE_RECON_ERROR] = out->of[VAE_RECON_ERROR][i],
                                [VAE_RECON_PROB] = finite_or_far((double)recon),
                                [VAE_NEG_ELBO] = finite_or_far((double)recon + (double)kl),
                                [VAE_NLL] = finite_or_far((double)e->nll_of[i])};
        bool infinite = false;
        for (int k = 0; k < VAE_SCORES; k++) {
            infinite = infinite || isinf(values[k]);
        }
        out->infinite += infinite;
        e->recon_of[i] = values[VAE_RECON_PROB];
        e->kl_of[i] = values[VAE_NEG_ELBO];
        e->nll_of[i] = values[VAE_NLL];
    }
    out->of[VAE_RECON_PROB] = e->recon_of;
    out->of[VAE_NEG_ELBO] = e->kl_of;
    out->of[VAE_NLL] = e->nll_of;
    e->recon_of = e->kl_of = e->nll_of = NULL;
    return out->infinite < out->n
               ? VAE_OK
               : vae_fail(err, VAE_ERR_DIVERGED, "the loss is NaN or Inf on every row");
}

vae_status vae_score_rows(vae_row_scores *out, const vae_score_job *job, vae_error *err)
{
    scoring s;
    vae_evaluation e = {0};
    vae_eval_job eval = eval_job(job);
    vae_error inner = {0};
    size_t rows, particles;
    vae_status status = VAE_OK;
    vae_eval_shape(&eval, &rows, &particles);
    TRY(open_scoring(&s, job, out, rows * eval.ranks, particles, err));
    eval.ctx = &s;
    eval.z = s.z;
    status = vae_evaluate(&e, &eval, &inner);
    /* one row out of range makes the mean so; the arrays are there all the same */
    if (status != VAE_OK && status != VAE_ERR_DIVERGED) {
        TRY(vae_fail(err, status, "%s", inner.text));
    }
    TRY(take_scores(out, &e, err));
done:
    vae_evaluation_clear(&e);
    clear_scoring(&s);
    return status;
}

void vae_row_scores_clear(vae_row_scores *s)
{
    for (int k = 0; k < VAE_SCORES; k++) {
        free(s->of[k]);
    }
    free(s->contributions);
    free(s->top);
    free(s->top_value);
    *s = (vae_row_scores){0};
}

/* ---- one row ---- */

vae_status vae_score_row(float *x, float *x_hat, float *contributions, const vae_score_job *job,
                         size_t row, vae_error *err)
{
    vae_score_job one = *job;
    vae_row_scores scores;
    scoring s;
    size_t rows, particles;
    float *mu = NULL;
    vae_status status = VAE_OK;
    one.n = 1;
    one.samples = job->at_mu ? 1 : job->samples;
    one.contributions = true;
    one.top = 0;
    vae_score_shape(&one, &rows, &particles);
    TRY(open_scoring(&s, &one, &scores, 1, particles, err));
    s.first = row;
    mu = malloc(s.z * sizeof *mu);
    if (mu == NULL) {
        TRY(vae_fail_memory(err, s.z * sizeof *mu, "a row"));
    }
    for (size_t k = 0; k < one.samples; k += particles) {
        vae_plan plan = vae_eval_plan(DRAWS + 1, row); /* of vae_evaluate's NLL */
        vae_batch_out out = {.mu = mu};
        plan.particle0 = (uint32_t)k;
        TRY(score_batch(&s, &plan, 1, one.samples - k < particles ? one.samples - k : particles,
                        &out, err));
    }
    memcpy(x, s.x, s.d * sizeof *x);
    memcpy(contributions, scores.contributions, s.d * sizeof *x);
    TRY(vae_model_decode_classes(job->on->model, x_hat, mu, s.label, 1, err));
done:
    free(mu);
    vae_row_scores_clear(&scores);
    clear_scoring(&s);
    return status;
}
