/* Mixtures of Gaussians by expectation maximization. */
#include "stats/mixture.h"

#include <math.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#include "base/pool.h"
#include "philox.h"
#include "stats/latent_walk.h"

enum { LLOYD = 10, ITERATIONS = 500, PART_ROWS = 64 /* that a thread takes at a time */ };
static const double tolerance = 1e-3, floor_of_variance = 1e-6;
static const double log_2pi = 1.83787706640934548356;

/* A fit under way. */
typedef struct {
    vae_mixture *m;
    const float *rows; /* (n,Z) */
    size_t n;
    double *share;   /* (n,K) responsibilities */
    double *density; /* (n) log p(row) */
    size_t *nearest; /* (n) component of the start */
    double floor;    /* added to every variance */
    uint64_t seed;
} fit;

static size_t factor_size(const vae_mixture *m)
{
    return m->full ? m->z * m->z : m->z;
}

static bool allocate(vae_mixture *m, size_t k, size_t z, bool full)
{
    *m = (vae_mixture){.k = k, .z = z, .full = full};
    m->weight = calloc(k, sizeof *m->weight);
    m->mean = calloc(k * z, sizeof *m->mean);
    m->factor = calloc(k * z, full ? z * sizeof *m->factor : sizeof *m->factor);
    m->log_norm = calloc(k, sizeof *m->log_norm);
    return m->weight != NULL && m->mean != NULL && m->factor != NULL && m->log_norm != NULL;
}

void vae_mixture_clear(vae_mixture *m)
{
    free(m->weight);
    free(m->mean);
    free(m->factor);
    free(m->log_norm);
    *m = (vae_mixture){0};
}

/* ---- densities ---- */

/* log weight_k + log N(row; mean_k, covariance_k); room: (Z). */
static double log_term(const vae_mixture *m, size_t k, const float *row, double *room)
{
    const size_t Z = m->z;
    const double *mean = m->mean + k * Z, *factor = m->factor + k * factor_size(m);
    double square = 0;
    for (size_t i = 0; i < Z; i++) {
        double away = (double)row[i] - mean[i], scale = factor[i];
        if (m->full) { /* forward substitution */
            const double *line = factor + i * Z;
            for (size_t j = 0; j < i; j++) {
                away -= line[j] * room[j];
            }
            scale = line[i];
        }
        room[i] = away / scale;
        square += room[i] * room[i];
    }
    return m->log_norm[k] - 0.5 * square;
}

static void normalize(vae_mixture *m)
{
    for (size_t k = 0; k < m->k; k++) {
        const double *factor = m->factor + k * factor_size(m);
        m->log_norm[k] = -INFINITY;
        if (m->weight[k] > 0) {
            m->log_norm[k] = log(m->weight[k]) - 0.5 * (double)m->z * log_2pi;
            for (size_t i = 0; i < m->z; i++) {
                m->log_norm[k] -= log(factor[m->full ? i * m->z + i : i]);
            }
        }
    }
}

/* term: (K) out, log weight_k + log N_k; returns their log-sum-exp. */
static double log_density(const vae_mixture *m, const float *row, double *term, double *room)
{
    double most = -INFINITY, sum = 0;
    for (size_t k = 0; k < m->k; k++) {
        term[k] = m->weight[k] > 0 ? log_term(m, k, row, room) : -INFINITY;
        most = term[k] > most ? term[k] : most;
    }
    for (size_t k = 0; k < m->k; k++) {
        sum += exp(term[k] - most);
    }
    /* the largest term has added 1 */
    // cppcheck-suppress invalidFunctionArg
    return most + log(sum);
}

typedef struct {
    const vae_mixture *m;
    const float *rows;
    double *density, *share, *room; /* room: (threads,Z+K) */
} expectation;

static void expect_rows(void *ctx, int thread, size_t first, size_t end)
{
    const expectation *e = ctx;
    const vae_mixture *m = e->m;
    double *room = e->room + (size_t)thread * (m->z + m->k), *term = room + m->z;
    for (size_t i = first; i < end; i++) {
        e->density[i] = log_density(m, e->rows + i * m->z, term, room);
        for (size_t k = 0; e->share != NULL && k < m->k; k++) {
            e->share[i * m->k + k] = exp(term[k] - e->density[i]);
        }
    }
}

/* density: (n) out; share: (n,K) out, or NULL. False: no memory. */
static bool expect(const vae_mixture *m, const float *rows, size_t n, double *density,
                   double *share)
{
    const int threads = vae_threads(0);
    double *room = malloc((size_t)threads * (m->z + m->k) * sizeof *room);
    expectation e = {m, rows, density, share, room};
    if (room != NULL) {
        vae_parallel(threads, n, PART_ROWS, expect_rows, &e);
    }
    free(room);
    return room != NULL;
}

static double mean_of(const double *values, size_t n)
{
    double sum = 0;
    for (size_t i = 0; i < n; i++) {
        sum += values[i];
    }
    return sum / (double)n;
}

vae_status vae_mixture_score(double *mean, const vae_mixture *m, const float *rows, size_t n,
                             vae_error *err)
{
    double *density = malloc(n * sizeof *density);
    if (density == NULL || !expect(m, rows, n, density, NULL)) {
        free(density);
        return vae_fail_memory(err, n * sizeof *density, "log densities");
    }
    *mean = mean_of(density, n);
    free(density);
    return VAE_OK;
}

/* ---- the start ---- */

static double distance(const float *row, const double *centre, size_t Z)
{
    double sum = 0;
    for (size_t j = 0; j < Z; j++) {
        const double away = (double)row[j] - centre[j];
        sum += away * away;
    }
    return sum;
}

/* In [0,1). */
static double uniform(uint64_t seed, uint64_t element, uint64_t block)
{
    const vae_philox_words r = vae_philox(seed, vae_rng_stream(VAE_RNG_MIXTURE, element), block);
    return ((double)r.w[0] + (double)r.w[1] * 0x1p-32) * 0x1p-32;
}

static void take_centre(fit *f, size_t k, size_t row)
{
    for (size_t j = 0; j < f->m->z; j++) {
        f->m->mean[k * f->m->z + j] = (double)f->rows[row * f->m->z + j];
    }
}

/* k-means++: each next centre is a row drawn by its squared distance from those there are. Rows
 * that all lie on centres give no more. Uses f->density for the distances. */
static void choose_centres(fit *f)
{
    vae_mixture *m = f->m;
    const size_t first = (size_t)(uniform(f->seed, 0, 1) * (double)f->n);
    take_centre(f, 0, first);
    for (size_t i = 0; i < f->n; i++) {
        f->density[i] = INFINITY;
    }
    for (size_t k = 1; k < m->k; k++) {
        double sum = 0;
        for (size_t i = 0; i < f->n; i++) {
            const double d = distance(f->rows + i * m->z, m->mean + (k - 1) * m->z, m->z);
            f->density[i] = d < f->density[i] ? d : f->density[i];
            sum += f->density[i];
        }
        if (!(sum > 0)) {
            m->k = k;
            return;
        }
        double left = uniform(f->seed, k, 1) * sum;
        size_t chosen = f->n;
        for (size_t i = 0; i < f->n && (chosen == f->n || left >= 0); i++) {
            chosen = f->density[i] > 0 ? i : chosen; /* rounding: the last one that can be */
            left -= f->density[i];
        }
        take_centre(f, k, chosen);
    }
}

typedef struct {
    fit *f;
    atomic_bool changed;
} assignment;

static void assign_rows(void *ctx, int thread, size_t first, size_t end)
{
    assignment *a = ctx;
    fit *f = a->f;
    const vae_mixture *m = f->m;
    bool changed = false;
    (void)thread;
    for (size_t i = first; i < end; i++) {
        size_t best = 0;
        double least = INFINITY;
        for (size_t k = 0; k < m->k; k++) {
            const double d = distance(f->rows + i * m->z, m->mean + k * m->z, m->z);
            best = d < least ? k : best;
            least = d < least ? d : least;
        }
        changed = changed || f->nearest[i] != best;
        f->nearest[i] = best;
    }
    if (changed) {
        atomic_store(&a->changed, true);
    }
}

/* True if any row has changed its nearest centre. */
static bool assign(fit *f)
{
    assignment a = {.f = f};
    vae_parallel(vae_threads(0), f->n, PART_ROWS, assign_rows, &a);
    return atomic_load(&a.changed);
}

static void move_some(void *ctx, int thread, size_t first, size_t end)
{
    const fit *f = ctx;
    vae_mixture *m = f->m;
    (void)thread;
    for (size_t k = first; k < end; k++) {
        double *mean = m->mean + k * m->z;
        size_t count = 0;
        for (size_t i = 0; i < f->n; i++) {
            if (f->nearest[i] != k) {
                continue;
            }
            for (size_t j = 0; j < m->z; j++) {
                mean[j] = count == 0 ? (double)f->rows[i * m->z + j]
                                     : mean[j] + (double)f->rows[i * m->z + j];
            }
            count++;
        }
        for (size_t j = 0; j < m->z && count > 0; j++) {
            mean[j] /= (double)count;
        }
    }
}

static void move_centres(fit *f)
{
    vae_parallel(vae_threads(0), f->m->k, 1, move_some, f);
}

static void start(fit *f)
{
    choose_centres(f);
    for (size_t i = 0; i < f->n; i++) {
        f->nearest[i] = SIZE_MAX;
    }
    for (int i = 0; assign(f) && i < LLOYD; i++) {
        move_centres(f);
    }
    for (size_t i = 0; i < f->n; i++) {
        for (size_t k = 0; k < f->m->k; k++) {
            f->share[i * f->m->k + k] = f->nearest[i] == k;
        }
    }
}

/* ---- maximization ---- */

/* The lower Cholesky factor of a (Z,Z), in place, with `extra` added to the diagonal. False where a
 * is not positive definite; a is then spoilt. */
static bool cholesky(double *a, size_t Z, double extra)
{
    for (size_t i = 0; i < Z; i++) {
        for (size_t j = 0; j <= i; j++) {
            double sum = a[i * Z + j] + (i == j ? extra : 0);
            for (size_t l = 0; l < j; l++) {
                sum -= a[i * Z + l] * a[j * Z + l];
            }
            if (i == j && !(sum > 0)) {
                return false;
            }
            a[i * Z + j] = i == j ? sqrt(sum) : sum / a[j * Z + j];
        }
        for (size_t j = i + 1; j < Z; j++) {
            a[i * Z + j] = 0;
        }
    }
    return true;
}

/* to: the sums over rows of share_k * (row - mean)(row - mean)^T, its lower half, or diagonal. */
static void scatter(const fit *f, size_t k, double *to)
{
    const vae_mixture *m = f->m;
    const double *mean = m->mean + k * m->z;
    memset(to, 0, factor_size(m) * sizeof *to);
    for (size_t r = 0; r < f->n; r++) {
        const double share = f->share[r * m->k + k];
        const float *row = f->rows + r * m->z;
        if (share < 1e-12) {
            continue; /* most rows belong to few components */
        }
        for (size_t i = 0; i < m->z; i++) {
            const double away = share * ((double)row[i] - mean[i]);
            if (!m->full) {
                to[i] += away * ((double)row[i] - mean[i]);
                continue;
            }
            for (size_t j = 0; j <= i; j++) {
                to[i * m->z + j] += away * ((double)row[j] - mean[j]);
            }
        }
    }
}

/* Mean and covariance of component k from its share of the rows. One that has lost all its rows
 * keeps what it was, with weight 0. */
static void maximize_one(const fit *f, size_t k, double *room)
{
    vae_mixture *m = f->m;
    const size_t Z = m->z;
    double *mean = m->mean + k * Z, *factor = m->factor + k * factor_size(m), total = 0;
    for (size_t i = 0; i < f->n; i++) {
        total += f->share[i * m->k + k];
    }
    m->weight[k] = total > 1e-9 ? total / (double)f->n : 0;
    if (m->weight[k] == 0) {
        return;
    }
    memset(mean, 0, Z * sizeof *mean);
    for (size_t i = 0; i < f->n; i++) {
        for (size_t j = 0; j < Z; j++) {
            mean[j] += f->share[i * m->k + k] / total * (double)f->rows[i * Z + j];
        }
    }
    scatter(f, k, room);
    for (size_t i = 0; i < factor_size(m); i++) {
        room[i] /= total;
        if (!m->full) {
            factor[i] = sqrt(room[i] + f->floor);
        }
    }
    double extra = f->floor;
    do { /* rounding may leave less than the floor: raise it */
        if (m->full) {
            memcpy(factor, room, Z * Z * sizeof *factor);
        }
    } while (m->full && !cholesky(factor, Z, extra) && isfinite(extra *= 10));
}

typedef struct {
    const fit *f;
    double *room; /* (threads,factor_size) */
} maximization;

static void maximize_some(void *ctx, int thread, size_t first, size_t end)
{
    const maximization *a = ctx;
    for (size_t k = first; k < end; k++) {
        maximize_one(a->f, k, a->room + (size_t)thread * factor_size(a->f->m));
    }
}

/* False: no memory. */
static bool maximize(const fit *f)
{
    const int most = vae_threads(0), threads = (size_t)most < f->m->k ? most : (int)f->m->k;
    double *room = malloc((size_t)threads * factor_size(f->m) * sizeof *room);
    maximization a = {f, room};
    if (room == NULL) {
        return false;
    }
    vae_parallel(threads, f->m->k, 1, maximize_some, &a);
    free(room);
    double sum = 0;
    for (size_t k = 0; k < f->m->k; k++) {
        sum += f->m->weight[k];
    }
    for (size_t k = 0; k < f->m->k; k++) {
        f->m->weight[k] /= sum;
    }
    normalize(f->m);
    return true;
}

/* ---- the fit ---- */

static vae_status check_rows(const float *rows, size_t n, size_t z, vae_error *err)
{
    if (n == 0 || z == 0) {
        return vae_fail(err, VAE_ERR_DATA, "a mixture needs rows to fit to; there are none");
    }
    for (size_t i = 0; i < n * z; i++) {
        if (!isfinite(rows[i])) {
            return vae_fail(err, VAE_ERR_DATA,
                            "a mixture cannot be fitted: row %zu, dimension %zu is %g", i / z,
                            i % z, (double)rows[i]);
        }
    }
    return VAE_OK;
}

/* floor_of_variance of the mean over dimensions of the rows' variance. */
static double floor_for(const float *rows, size_t n, size_t z)
{
    double sum = 0;
    for (size_t j = 0; j < z; j++) {
        double mean = 0, square = 0;
        for (size_t i = 0; i < n; i++) {
            mean += (double)rows[i * z + j] / (double)n;
        }
        for (size_t i = 0; i < n; i++) {
            const double away = (double)rows[i * z + j] - mean;
            square += away * away;
        }
        sum += square / (double)n;
    }
    const double floor = floor_of_variance * sum / (double)z;
    return floor > 1e-12 ? floor : 1e-12;
}

static vae_status iterate(fit *f, const vae_mixture_options *o, vae_mixture_report *report,
                          vae_error *err)
{
    const size_t most = o->iterations > 0 ? o->iterations : ITERATIONS;
    const double least = o->tolerance > 0 ? o->tolerance : tolerance;
    double before = -INFINITY;
    for (*report = (vae_mixture_report){0}; report->iterations < most && !report->converged;) {
        if (vae_stopping(o->stop_signal)) {
            return vae_fail(err, VAE_ERR_INTERRUPTED, "interrupted");
        }
        if (!maximize(f) || !expect(f->m, f->rows, f->n, f->density, f->share)) {
            return vae_fail_memory(err, factor_size(f->m) * sizeof(double), "a covariance");
        }
        report->log_likelihood = mean_of(f->density, f->n);
        report->iterations++;
        report->converged = report->log_likelihood - before < least;
        before = report->log_likelihood;
        if (o->progress != NULL) {
            o->progress(o->ctx, report->iterations, report->log_likelihood);
        }
    }
    return VAE_OK;
}

vae_status vae_mixture_fit(vae_mixture *out, const float *rows, size_t n, size_t z,
                           const vae_mixture_options *options, vae_mixture_report *report,
                           vae_error *err)
{
    const size_t K = options->components < n ? options->components : n;
    fit f = {.m = out, .rows = rows, .n = n, .seed = options->seed};
    vae_status status = VAE_OK;
    *out = (vae_mixture){0};
    TRY(check_rows(rows, n, z, err));
    f.share = calloc(n, K * sizeof *f.share);
    f.density = malloc(n * sizeof *f.density);
    f.nearest = malloc(n * sizeof *f.nearest);
    if (!allocate(out, K, z, options->full) || f.share == NULL || f.density == NULL ||
        f.nearest == NULL) {
        TRY(vae_fail_memory(err, n * (K + 2) * sizeof *f.share, "a mixture of Gaussians"));
    }
    f.floor = floor_for(rows, n, z);
    start(&f);
    TRY(iterate(&f, options, report, err));
done:
    free(f.share);
    free(f.density);
    free(f.nearest);
    return status;
}

vae_status vae_mixture_choose(vae_mixture *out, const float *rows, size_t n, const float *held,
                              size_t n_held, size_t z, const vae_mixture_options *options,
                              vae_mixture_report *report, double *score, vae_error *err)
{
    static const size_t ladder[] = {1, 2, 5, 10, 20, 50};
    vae_mixture next = {0};
    vae_status status = VAE_OK;
    *out = (vae_mixture){0};
    *score = NAN;
    for (size_t i = 0; i < sizeof ladder / sizeof ladder[0] && (i == 0 || n_held > 0); i++) {
        vae_mixture_options o = *options;
        vae_mixture_report tried;
        double found = NAN;
        o.components = ladder[i];
        TRY(vae_mixture_fit(&next, rows, n, z, &o, &tried, err));
        if (n_held > 0) {
            TRY(vae_mixture_score(&found, &next, held, n_held, err));
        }
        if (i > 0 && !(found > *score)) {
            break;
        }
        vae_mixture_clear(out);
        *out = next, next = (vae_mixture){0};
        *report = tried;
        *score = found;
    }
done:
    vae_mixture_clear(&next);
    return status;
}

/* ---- draws ---- */

static size_t choose(const vae_mixture *m, double u)
{
    size_t last = 0;
    for (size_t k = 0; k < m->k; k++) {
        if (m->weight[k] > 0) {
            last = k;
            if (u < m->weight[k]) {
                break;
            }
            u -= m->weight[k];
        }
    }
    return last;
}

vae_status vae_mixture_draw(float *z, const vae_mixture *m, uint64_t seed, uint64_t first, size_t n,
                            double temperature, vae_error *err)
{
    const size_t Z = m->z;
    double *x = malloc(Z * sizeof *x);
    if (x == NULL) {
        return vae_fail_memory(err, Z * sizeof *x, "a draw");
    }
    vae_prior_rows(z, seed, first, n, Z, 1); /* eps, in place */
    for (size_t row = 0; row < n; row++) {
        const size_t k = choose(m, uniform(seed, first + row, 0));
        const double *mean = m->mean + k * Z, *factor = m->factor + k * factor_size(m);
        float *eps = z + row * Z;
        for (size_t i = 0; i < Z; i++) {
            double sum = m->full ? 0 : factor[i] * (double)eps[i];
            for (size_t j = 0; m->full && j <= i; j++) {
                sum += factor[i * Z + j] * (double)eps[j];
            }
            x[i] = mean[i] + temperature * sum;
        }
        for (size_t i = 0; i < Z; i++) {
            eps[i] = (float)x[i];
        }
    }
    free(x);
    return VAE_OK;
}
