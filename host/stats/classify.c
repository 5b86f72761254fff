/* Nearest neighbours and logistic regression, over products of the CPU backend. */
#include "stats/classify.h"

#include <math.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "backend/cpu/level.h"
#include "backend/cpu/matmul.h"
#include "base/pool.h"
#include "vae_math.h"

enum {
    ASK = 256,      /* rows asked about at once */
    STORE = 4096,   /* rows compared with at once */
    PART_ROWS = 64, /* whose residuals a thread takes at a time */
    MEMORY = 10,    /* pairs that L-BFGS keeps */
    ROOM = 65536,   /* logits at once, and so the most classes */
};

static vae_cpu_level level(void)
{
    vae_cpu_level best = VAE_CPU_BASELINE;
    vae_cpu_level_choose(&best, NULL);
    return best;
}

double vae_error_rate(const uint32_t *guess, const uint32_t *y, size_t n)
{
    size_t wrong = 0;
    for (size_t i = 0; i < n; i++) {
        wrong += guess[i] != y[i];
    }
    return n > 0 ? (double)wrong / (double)n : NAN;
}

/* ---- nearest neighbours ---- */

typedef struct {
    float away;
    uint32_t row;
} neighbour;

static bool nearer(neighbour a, neighbour b)
{
    return a.away < b.away || (a.away == b.away && a.row < b.row);
}

/* near: the k nearest so far, sorted; n of them. Rows come in order. */
static void offer(neighbour *near, size_t *n, size_t k, neighbour one)
{
    if (*n == k && !nearer(one, near[k - 1])) {
        return;
    }
    size_t at = *n < k ? (*n)++ : k - 1;
    for (; at > 0 && nearer(one, near[at - 1]); at--) {
        near[at] = near[at - 1];
    }
    near[at] = one;
}

/* votes: (classes) zeros, before and after. */
static uint32_t vote(uint32_t *votes, const neighbour *near, size_t k, const uint32_t *y)
{
    uint32_t most = 0, best = 0;
    for (size_t i = 0; i < k; i++) {
        uint32_t v = ++votes[y[near[i].row]];
        most = v > most ? v : most;
    }
    for (size_t i = k; i-- > 0;) {
        best = votes[y[near[i].row]] == most ? y[near[i].row] : best;
    }
    for (size_t i = 0; i < k; i++) {
        votes[y[near[i].row]] = 0;
    }
    return best;
}

static void row_norms(float *norm, const float *x, size_t n, size_t d)
{
    for (size_t i = 0; i < n; i++) {
        double sum = 0;
        for (size_t j = 0; j < d; j++) {
            sum += (double)x[i * d + j] * (double)x[i * d + j];
        }
        norm[i] = (float)sum;
    }
}

/* Products of asked rows with `cols` stored ones from row `at`, to be offered to the nearest. */
typedef struct {
    neighbour *near; /* (asked,k) */
    size_t *found;   /* (asked) */
    const float *norm, *dots;
    size_t k, at, cols;
} offers;

static void offer_rows(void *ctx, int thread, size_t first, size_t end)
{
    const offers *o = ctx;
    (void)thread;
    for (size_t i = first; i < end; i++) {
        for (size_t j = 0; j < o->cols; j++) { /* |x|^2 is the same for all */
            const neighbour one = {o->norm[j] - 2 * o->dots[i * o->cols + j],
                                   (uint32_t)(o->at + j)};
            offer(o->near + i * o->k, &o->found[i], o->k, one);
        }
    }
}

vae_status vae_knn(uint32_t *guess, const float *x, size_t m, const vae_labelled *train, size_t k,
                   int threads, vae_error *err)
{
    const size_t d = train->d;
    const vae_cpu_level isa = level();
    float *dots = malloc(ASK * STORE * sizeof *dots);
    float *norm = malloc(train->n * sizeof *norm);
    neighbour *near = malloc(ASK * k * sizeof *near);
    uint32_t *votes = calloc(train->classes, sizeof *votes);
    vae_status status = VAE_OK;
    if (dots == NULL || norm == NULL || near == NULL || votes == NULL) {
        TRY(vae_fail_memory(err, ASK * STORE * sizeof *dots, "nearest neighbours"));
    }
    row_norms(norm, train->x, train->n, d);
    for (size_t first = 0; first < m; first += ASK) {
        const size_t rows = m - first < ASK ? m - first : ASK;
        size_t found[ASK] = {0};
        for (size_t at = 0; at < train->n; at += STORE) {
            const size_t cols = train->n - at < STORE ? train->n - at : STORE;
            vae_cpu_matmul(MATMUL_NT, dots, cols, x + first * d, d, train->x + at * d, d, rows,
                           cols, d, NULL, NULL, threads, isa, NULL);
            offers o = {near, found, norm + at, dots, k, at, cols};
            vae_parallel(threads, rows, 1, offer_rows, &o);
        }
        for (size_t i = 0; i < rows; i++) {
            guess[first + i] = vote(votes, near + i * k, k, train->y);
        }
    }
done:
    free(votes);
    free(near);
    free(norm);
    free(dots);
    return status;
}

/* ---- logistic regression ---- */

static void logits(float *out, const float *weights, const float *x, size_t n, size_t d,
                   size_t classes, int threads, vae_cpu_level isa)
{
    vae_cpu_matmul(MATMUL_NT, out, classes, x, d, weights, d, n, classes, d, NULL, NULL, threads,
                   isa, NULL);
    const float *bias = weights + classes * d;
    for (size_t i = 0; i < n; i++) {
        for (size_t c = 0; c < classes; c++) {
            out[i * classes + c] += bias[c];
        }
    }
}

/* Logits of a row become its residuals, softmax - one-hot; returns its cross entropy. */
static double residuals(float *row, size_t classes, uint32_t y)
{
    float most = row[0];
    for (size_t c = 1; c < classes; c++) {
        most = row[c] > most ? row[c] : most;
    }
    const double of_label = (double)row[y] - (double)most;
    row[0] = vae_expf(row[0] - most);
    double sum = (double)row[0];
    for (size_t c = 1; c < classes; c++) {
        row[c] = vae_expf(row[c] - most);
        sum += (double)row[c];
    }
    const float unit = (float)(1 / sum);
    for (size_t c = 0; c < classes; c++) {
        row[c] *= unit;
    }
    row[y] -= 1;
    return log(sum) - of_label;
}

typedef struct {
    float *logits, *losses;
    const uint32_t *y;
    size_t classes;
} residual_job;

static void residual_rows(void *ctx, int thread, size_t first, size_t end)
{
    const residual_job *job = ctx;
    (void)thread;
    for (size_t i = first; i < end; i++) {
        job->losses[i] = (float)residuals(job->logits + i * job->classes, job->classes, job->y[i]);
    }
}

double vae_logistic_objective(float *gradient, float *scratch, const float *weights,
                              const vae_labelled *train, double l2, int threads)
{
    const size_t n = train->n, d = train->d, classes = train->classes;
    float *losses = scratch + n * classes;
    const vae_cpu_level isa = level();
    double loss = 0, size = 0;
    logits(scratch, weights, train->x, n, d, classes, threads, isa);
    residual_job job = {scratch, losses, train->y, classes};
    vae_parallel(threads, n, PART_ROWS, residual_rows, &job);
    for (size_t i = 0; i < n; i++) {
        loss += (double)losses[i];
    }
    vae_cpu_matmul(MATMUL_TN, gradient, d, scratch, classes, train->x, d, classes, d, n, NULL, NULL,
                   threads, isa, NULL);
    float *bias = gradient + classes * d;
    for (size_t c = 0; c < classes; c++) {
        double sum = 0;
        for (size_t i = 0; i < n; i++) {
            sum += (double)scratch[i * classes + c];
        }
        bias[c] = (float)(sum / (double)n);
    }
    for (size_t i = 0; i < classes * d; i++) {
        gradient[i] = (float)((double)gradient[i] / (double)n + l2 * (double)weights[i]);
        size += (double)weights[i] * (double)weights[i];
    }
    return loss / (double)n + 0.5 * l2 * size;
}

void vae_logistic_guess(uint32_t *guess, const float *weights, const float *x, size_t m, size_t d,
                        size_t classes, int threads)
{
    float out[ROOM];
    const vae_cpu_level isa = level();
    const size_t most = ROOM / classes < ASK ? ROOM / classes : ASK;
    for (size_t first = 0; first < m; first += most) {
        const size_t rows = m - first < most ? m - first : most;
        logits(out, weights, x + first * d, rows, d, classes, threads, isa);
        for (size_t i = 0; i < rows; i++) {
            size_t best = 0;
            for (size_t c = 1; c < classes; c++) {
                best = out[i * classes + c] > out[i * classes + best] ? c : best;
            }
            guess[first + i] = (uint32_t)best;
        }
    }
}

static double dot(const float *a, const float *b, size_t n)
{
    double sum = 0;
    for (size_t i = 0; i < n; i++) {
        sum += (double)a[i] * (double)b[i];
    }
    return sum;
}

/* What L-BFGS keeps: the last steps s and changes of the gradient y, (MEMORY,n) each, as a ring. */
typedef struct {
    float *s, *y;
    double rho[MEMORY];
    size_t n, kept, next;
} history;

static const float *past(const history *h, const float *of, size_t age)
{
    return of + (h->next + MEMORY - 1 - age) % MEMORY * h->n;
}

/* direction: -H g by the two-loop recursion. */
static void descend(float *direction, const float *g, const history *h)
{
    double alpha[MEMORY] = {0};
    for (size_t i = 0; i < h->n; i++) {
        direction[i] = -g[i];
    }
    for (size_t age = 0; age < h->kept; age++) {
        const size_t slot = (h->next + MEMORY - 1 - age) % MEMORY;
        alpha[age] = h->rho[slot] * dot(past(h, h->s, age), direction, h->n);
        for (size_t i = 0; i < h->n; i++) {
            direction[i] -= (float)(alpha[age] * (double)past(h, h->y, age)[i]);
        }
    }
    if (h->kept > 0) {
        const float *s = past(h, h->s, 0), *y = past(h, h->y, 0);
        const float scale = (float)(dot(s, y, h->n) / dot(y, y, h->n));
        for (size_t i = 0; i < h->n; i++) {
            direction[i] *= scale;
        }
    }
    for (size_t age = h->kept; age-- > 0;) {
        const size_t slot = (h->next + MEMORY - 1 - age) % MEMORY;
        const double beta = h->rho[slot] * dot(past(h, h->y, age), direction, h->n);
        for (size_t i = 0; i < h->n; i++) {
            direction[i] += (float)((alpha[age] - beta) * (double)past(h, h->s, age)[i]);
        }
    }
}

typedef struct {
    const vae_labelled *train;
    double l2;
    int threads;
    float *w, *g, *trial, *trial_g, *direction, *scratch;
    double loss;
    history past;
} fit;

/* Goes along the direction until the loss falls enough (Armijo's condition); false: it does not. */
static bool line_search(fit *f, double slope)
{
    const size_t n = f->past.n;
    double step = f->past.kept > 0 ? 1 : 1 / (1 + sqrt(dot(f->g, f->g, n)));
    for (int tries = 0; tries < 30; tries++, step /= 2) {
        for (size_t i = 0; i < n; i++) {
            f->trial[i] = f->w[i] + (float)step * f->direction[i];
        }
        double loss =
            vae_logistic_objective(f->trial_g, f->scratch, f->trial, f->train, f->l2, f->threads);
        if (loss <= f->loss + 1e-4 * step * slope) {
            f->loss = loss;
            return true;
        }
    }
    return false;
}

/* Takes the trial point, and keeps the pair if it is of use. */
static void accept(fit *f)
{
    history *h = &f->past;
    float *s = h->s + h->next * h->n, *y = h->y + h->next * h->n;
    for (size_t i = 0; i < h->n; i++) {
        s[i] = f->trial[i] - f->w[i];
        y[i] = f->trial_g[i] - f->g[i];
        f->w[i] = f->trial[i];
        f->g[i] = f->trial_g[i];
    }
    const double sy = dot(s, y, h->n);
    if (sy > 1e-12 * dot(y, y, h->n)) {
        h->rho[h->next] = 1 / sy;
        h->next = (h->next + 1) % MEMORY;
        h->kept += h->kept < MEMORY;
    }
}

static void minimize(fit *f, size_t steps)
{
    const size_t n = f->past.n;
    f->loss = vae_logistic_objective(f->g, f->scratch, f->w, f->train, f->l2, f->threads);
    const double enough = 1e-3 * sqrt(dot(f->g, f->g, n));
    for (size_t step = 0; step < steps && sqrt(dot(f->g, f->g, n)) > enough; step++) {
        descend(f->direction, f->g, &f->past);
        double slope = dot(f->direction, f->g, n);
        if (!(slope < 0) || !line_search(f, slope)) {
            if (f->past.kept == 0) {
                return; /* as low as floats go */
            }
            f->past.kept = 0; /* once more, along the gradient */
            continue;
        }
        accept(f);
    }
}

vae_status vae_logistic_fit(float *weights, const vae_labelled *train, double l2, size_t steps,
                            int threads, vae_error *err)
{
    const size_t n = train->classes * (train->d + 1);
    float *room = calloc(4 * n + 2 * MEMORY * n + train->n * (train->classes + 1), sizeof *room);
    if (room == NULL) {
        return vae_fail_memory(err, train->n * train->classes * sizeof *room,
                               "logistic regression");
    }
    memset(weights, 0, n * sizeof *weights);
    fit f = {.train = train,
             .l2 = l2,
             .threads = threads,
             .w = weights,
             .g = room,
             .trial = room + n,
             .trial_g = room + 2 * n,
             .direction = room + 3 * n,
             .past = {.s = room + 4 * n, .y = room + (4 + MEMORY) * n, .n = n},
             .scratch = room + (4 + 2 * MEMORY) * n};
    minimize(&f, steps);
    free(room);
    return VAE_OK;
}
