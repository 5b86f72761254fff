/* Scores of disentanglement, from rows, their latents and their factors. */
#include "stats/disentangle.h"

#include <math.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "philox.h"
#include "stats/classify.h"

enum {
    BINS = 20,
    MAX_LEVELS = 256,
    ROUND = 64,         /* rows or pairs behind one point of BetaVAE's and FactorVAE's scores */
    FIT_POINTS = 5000,  /* points to fit on; the papers' 10,000 change the third digit */
    TEST_POINTS = 2500, /* points to test on */
    LEAST_ROWS = 1000,
    NEIGHBOURS = 10,
};
#define LEAST_DEVIATION 0.05

/* The factors as levels, and the rows sorted by the level of each. */
typedef struct {
    uint16_t *level; /* (f,n) */
    size_t *levels;  /* (f) how many */
    uint32_t *rows;  /* (f,n) rows, those of level 0 first */
    size_t *begin;   /* (f,MAX_LEVELS+1) where each level begins in them */
    size_t *factor;  /* numbers of the factors that vary */
    size_t f, n;
} levels;

typedef struct {
    float value;
    uint32_t row;
} ranked;

static int by_value(const void *a, const void *b)
{
    const ranked *x = a, *y = b;
    return x->value != y->value ? (x->value > y->value) - (x->value < y->value)
                                : (x->row > y->row) - (x->row < y->row);
}

/* Levels of one column: its distinct values, or BINS bins of equal count if there are more. */
static size_t cut(uint16_t *level, const float *values, size_t stride, size_t n, ranked *room,
                  size_t most)
{
    size_t distinct = 1;
    for (size_t i = 0; i < n; i++) {
        room[i] = (ranked){values[i * stride], (uint32_t)i};
    }
    qsort(room, n, sizeof *room, by_value);
    for (size_t i = 1; i < n; i++) {
        distinct += room[i].value != room[i - 1].value;
    }
    const bool bins = distinct > most;
    size_t now = 0;
    for (size_t i = 0; i < n; i++) {
        now += !bins && i > 0 && room[i].value != room[i - 1].value;
        level[room[i].row] = (uint16_t)(bins ? i * BINS / n : now);
    }
    return bins ? BINS : distinct;
}

static void sort_rows(levels *l, size_t f)
{
    size_t *begin = l->begin + f * (MAX_LEVELS + 1), at[MAX_LEVELS];
    const uint16_t *level = l->level + f * l->n;
    memset(begin, 0, (MAX_LEVELS + 1) * sizeof *begin);
    for (size_t i = 0; i < l->n; i++) {
        begin[level[i] + 1]++;
    }
    for (size_t k = 0; k < MAX_LEVELS; k++) {
        begin[k + 1] += begin[k];
        at[k] = begin[k];
    }
    for (size_t i = 0; i < l->n; i++) {
        l->rows[f * l->n + at[level[i]]++] = (uint32_t)i;
    }
}

static void free_levels(levels *l)
{
    free(l->level);
    free(l->levels);
    free(l->rows);
    free(l->begin);
    free(l->factor);
}

static vae_status make_levels(levels *l, const vae_disentangle_data *data, vae_error *err)
{
    const size_t n = data->n;
    ranked *room = malloc(n * sizeof *room);
    *l = (levels){.level = malloc(data->f * n * sizeof *l->level),
                  .levels = malloc(data->f * sizeof *l->levels),
                  .rows = malloc(data->f * n * sizeof *l->rows),
                  .begin = malloc(data->f * (MAX_LEVELS + 1) * sizeof *l->begin),
                  .factor = malloc(data->f * sizeof *l->factor),
                  .n = n};
    vae_status status = VAE_OK;
    if (room == NULL || l->level == NULL || l->levels == NULL || l->rows == NULL ||
        l->begin == NULL || l->factor == NULL) {
        TRY(vae_fail_memory(err, data->f * n * 6, "levels of factors"));
    }
    for (size_t f = 0; f < data->f; f++) {
        l->levels[l->f] = cut(l->level + l->f * n, data->factors + f, data->f, n, room, MAX_LEVELS);
        if (l->levels[l->f] > 1) {
            sort_rows(l, l->f);
            l->factor[l->f++] = f;
        }
    }
    if (l->f < 2) {
        TRY(vae_fail(err, VAE_ERR_DATA,
                     "%zu factor%s, in these rows: disentanglement is about two or more that vary",
                     l->f, l->f == 1 ? " varies" : "s vary"));
    }
done:
    free(room);
    return status;
}

/* ---- mutual information ---- */

static double entropy_of(const uint32_t *counts, size_t n_counts, size_t n)
{
    double entropy = 0;
    for (size_t i = 0; i < n_counts; i++) {
        const double p = (double)counts[i] / (double)n;
        entropy -= p > 0 ? p * log(p) : 0;
    }
    return entropy;
}

/* I(a;b) and H(b) of levels, in nats. */
static double information(const uint16_t *a, size_t na, const uint16_t *b, size_t nb, size_t n,
                          uint32_t *table, double *entropy_b)
{
    double joint;
    memset(table, 0, (na * nb + na + nb) * sizeof *table);
    uint32_t *of_a = table + na * nb, *of_b = of_a + na;
    for (size_t i = 0; i < n; i++) {
        table[a[i] * nb + b[i]]++;
        of_a[a[i]]++;
        of_b[b[i]]++;
    }
    joint = entropy_of(table, na * nb, n);
    *entropy_b = entropy_of(of_b, nb, n);
    return entropy_of(of_a, na, n) + *entropy_b - joint;
}

/* Gap of the two largest of n values. */
static double gap(const double *v, size_t n, size_t stride)
{
    double first = 0, second = 0;
    for (size_t i = 0; i < n; i++) {
        const double x = v[i * stride];
        if (x > first) {
            second = first;
            first = x;
        } else if (x > second) {
            second = x;
        }
    }
    return first - second;
}

/* 1 - entropy / log(n) of n values, taken as weights; 0 if they are all 0. *weight: their sum. */
static double concentration(const double *v, size_t n, size_t stride, double *weight)
{
    double sum = 0, entropy = 0;
    for (size_t i = 0; i < n; i++) {
        sum += v[i * stride];
    }
    for (size_t i = 0; i < n && sum > 0; i++) {
        const double p = v[i * stride] / sum;
        entropy -= p > 0 ? p * log(p) : 0;
    }
    *weight = sum;
    return sum > 0 && n > 1 ? 1 - entropy / log((double)n) : 0;
}

/* MIG and DCI from the mutual information of every latent (by BINS equal steps of its range, as the
 * papers' code does) and factor. */
static vae_status by_information(vae_disentangle_scores *out, const vae_disentangle_data *data,
                                 const levels *l, const bool *active, vae_error *err)
{
    const size_t n = data->n, z = data->z;
    uint16_t *bin = malloc(n * sizeof *bin);
    uint32_t *table = malloc((BINS + 1) * (MAX_LEVELS + 1) * sizeof *table);
    double *mi = calloc(z * l->f, sizeof *mi), *entropy = calloc(l->f, sizeof *entropy);
    vae_status status = VAE_OK;
    if (bin == NULL || table == NULL || mi == NULL || entropy == NULL) {
        TRY(vae_fail_memory(err, n * sizeof *bin, "mutual information"));
    }
    for (size_t j = 0; j < z; j++) {
        float low = INFINITY, high = -INFINITY;
        for (size_t i = 0; i < n; i++) {
            const float v = data->mu[i * z + j];
            low = v < low ? v : low;
            high = v > high ? v : high;
        }
        for (size_t i = 0; i < n; i++) {
            const float at = high > low ? (data->mu[i * z + j] - low) / (high - low) * BINS : 0;
            bin[i] = (uint16_t)(at < BINS ? at : BINS - 1);
        }
        for (size_t f = 0; f < l->f; f++) {
            double found =
                information(bin, BINS, l->level + f * n, l->levels[f], n, table, &entropy[f]);
            mi[j * l->f + f] = active[j] && found > 0 ? found : 0;
        }
    }
    double total = 0, weight;
    for (size_t f = 0; f < l->f; f++) {
        out->mig += gap(mi + f, z, l->f) / entropy[f] / (double)l->f;
        /* a factor's completeness: how few latents it takes; equal weights, as in the paper */
        out->dci_completeness += concentration(mi + f, z, l->f, &weight) / (double)l->f;
    }
    for (size_t j = 0; j < z; j++) {
        double score = concentration(mi + j * l->f, l->f, 1, &weight);
        out->dci_disentanglement += weight * score;
        total += weight;
    }
    out->dci_disentanglement = total > 0 ? out->dci_disentanglement / total : 0;
done:
    free(entropy);
    free(mi);
    free(table);
    free(bin);
    return status;
}

static void by_correlation(vae_disentangle_scores *out, const vae_disentangle_data *data,
                           const levels *l, const bool *active)
{
    for (size_t f = 0; f < l->f; f++) {
        double first = 0, second = 0;
        for (size_t j = 0; j < data->z; j++) {
            double sx = 0, sy = 0, sxx = 0, syy = 0, sxy = 0;
            for (size_t i = 0; i < data->n; i++) {
                const double x = (double)data->mu[i * data->z + j];
                const double y = (double)data->factors[i * data->f + l->factor[f]];
                sx += x, sy += y, sxx += x * x, syy += y * y, sxy += x * y;
            }
            const double n = (double)data->n, cov = sxy - sx * sy / n;
            const double vx = sxx - sx * sx / n, vy = syy - sy * sy / n;
            const double r2 = active[j] && vx > 0 && vy > 0 ? cov * cov / (vx * vy) : 0;
            second = fmax(second, fmin(first, r2));
            first = fmax(first, r2);
        }
        out->sap += (first - second) / (double)l->f;
    }
}

/* ---- drawn rows ---- */

/* A sequence of whole numbers from Philox. */
typedef struct {
    uint64_t seed, at;
} draws;

static size_t draw(draws *d, size_t below)
{
    const vae_philox_words w =
        vae_philox(d->seed, vae_rng_stream(VAE_RNG_SPLIT, d->at / 4), vae_rng_block(1, 0));
    return (size_t)((uint64_t)w.w[d->at++ % 4] * below >> 32);
}

/* A row of factor f's level k. */
static size_t draw_row(draws *d, const levels *l, size_t f, size_t k)
{
    const size_t *begin = l->begin + f * (MAX_LEVELS + 1);
    return l->rows[f * l->n + begin[k] + draw(d, begin[k + 1] - begin[k])];
}

static size_t least_varying(const vae_disentangle_data *data, const levels *l, draws *d, size_t f,
                            const double *variance, const bool *active)
{
    const size_t z = data->z, k = draw(d, l->levels[f]);
    size_t best = 0;
    double least = INFINITY;
    size_t row[ROUND];
    for (size_t i = 0; i < ROUND; i++) {
        row[i] = draw_row(d, l, f, k);
    }
    for (size_t j = 0; j < z; j++) {
        double sum = 0, squares = 0;
        for (size_t i = 0; i < ROUND; i++) {
            const double v = (double)data->mu[row[i] * z + j];
            sum += v, squares += v * v;
        }
        const double here = (squares - sum * sum / ROUND) / (ROUND - 1);
        if (active[j] && here / variance[j] < least) {
            least = here / variance[j];
            best = j;
        }
    }
    return best;
}

static vae_status factor_vae(vae_disentangle_scores *out, const vae_disentangle_data *data,
                             const levels *l, const double *variance, const bool *active,
                             vae_error *err)
{
    uint32_t *votes = calloc(data->z * l->f, sizeof *votes);
    draws d = {.seed = data->seed};
    size_t right = 0;
    if (votes == NULL) {
        return vae_fail_memory(err, data->z * l->f * sizeof *votes, "votes");
    }
    for (size_t i = 0; i < FIT_POINTS; i++) {
        const size_t f = draw(&d, l->f);
        votes[least_varying(data, l, &d, f, variance, active) * l->f + f]++;
    }
    for (size_t i = 0; i < TEST_POINTS; i++) {
        const size_t f = draw(&d, l->f);
        const uint32_t *of = votes + least_varying(data, l, &d, f, variance, active) * l->f;
        size_t best = 0;
        for (size_t g = 1; g < l->f; g++) {
            best = of[g] > of[best] ? g : best;
        }
        right += best == f;
    }
    free(votes);
    out->factor_vae = (double)right / TEST_POINTS;
    return VAE_OK;
}

/* Mean absolute differences of ROUND pairs that share factor f's level. */
static void differences(float *x, const vae_disentangle_data *data, const levels *l, draws *d,
                        size_t f)
{
    const size_t z = data->z;
    memset(x, 0, z * sizeof *x);
    for (size_t i = 0; i < ROUND; i++) {
        const size_t k = draw(d, l->levels[f]);
        const float *a = data->mu + draw_row(d, l, f, k) * z,
                    *b = data->mu + draw_row(d, l, f, k) * z;
        for (size_t j = 0; j < z; j++) {
            x[j] += fabsf(a[j] - b[j]) / ROUND;
        }
    }
}

static vae_status beta_vae(vae_disentangle_scores *out, const vae_disentangle_data *data,
                           const levels *l, vae_error *err)
{
    const size_t all = FIT_POINTS + TEST_POINTS, z = data->z;
    float *x = malloc(all * z * sizeof *x), *weights = malloc(l->f * (z + 1) * sizeof *weights);
    uint32_t *y = malloc(all * sizeof *y), *guess = malloc(TEST_POINTS * sizeof *guess);
    draws d = {.seed = data->seed, .at = (uint64_t)1 << 40};
    vae_status status = VAE_OK;
    if (x == NULL || weights == NULL || y == NULL || guess == NULL) {
        TRY(vae_fail_memory(err, all * z * sizeof *x, "pairs of rows"));
    }
    for (size_t i = 0; i < all; i++) {
        y[i] = (uint32_t)draw(&d, l->f);
        differences(x + i * z, data, l, &d, y[i]);
    }
    const vae_labelled points = {x, y, FIT_POINTS, z, l->f, NULL};
    TRY(vae_logistic_fit(weights, &points, 1e-6, 500, data->threads, err));
    vae_logistic_guess(guess, weights, x + FIT_POINTS * z, TEST_POINTS, z, l->f, data->threads);
    out->beta_vae = 1 - vae_error_rate(guess, y + FIT_POINTS, TEST_POINTS);
done:
    free(guess);
    free(y);
    free(weights);
    free(x);
    return status;
}

/* Neighbours of the last fifth of the rows among the others, in the active latents. */
static vae_status informativeness(vae_disentangle_scores *out, const vae_disentangle_data *data,
                                  const levels *l, vae_error *err)
{
    const size_t n = data->n < 20000 ? data->n : 20000, held = n / 5, kept = n - held;
    uint32_t *y = malloc(n * sizeof *y), *guess = malloc(held * sizeof *guess);
    vae_status status = VAE_OK;
    if (y == NULL || guess == NULL) {
        TRY(vae_fail_memory(err, n, "levels"));
    }
    for (size_t f = 0; f < l->f; f++) {
        for (size_t i = 0; i < n; i++) {
            y[i] = (uint32_t)l->level[f * data->n + i];
        }
        const vae_labelled train = {data->mu, y, kept, data->z, l->levels[f], NULL};
        TRY(vae_knn(guess, data->mu + kept * data->z, held, &train, NEIGHBOURS, data->threads,
                    err));
        out->dci_informativeness += (1 - vae_error_rate(guess, y + kept, held)) / (double)l->f;
    }
done:
    free(guess);
    free(y);
    return status;
}

vae_status vae_disentangle(vae_disentangle_scores *out, const vae_disentangle_data *data,
                           vae_error *err)
{
    levels l = {0};
    double *variance = calloc(data->z, sizeof *variance);
    bool *active = calloc(data->z, sizeof *active);
    *out = (vae_disentangle_scores){0};
    vae_status status = VAE_OK;
    if (variance == NULL || active == NULL) {
        TRY(vae_fail_memory(err, data->z * sizeof *variance, "variances of latents"));
    }
    if (data->n < LEAST_ROWS) {
        TRY(vae_fail(err, VAE_ERR_DATA, "%zu rows: disentanglement needs %d or more", data->n,
                     LEAST_ROWS));
    }
    for (size_t j = 0; j < data->z; j++) {
        double sum = 0, squares = 0;
        for (size_t i = 0; i < data->n; i++) {
            const double v = (double)data->mu[i * data->z + j];
            sum += v, squares += v * v;
        }
        variance[j] = (squares - sum * sum / (double)data->n) / (double)data->n;
        active[j] = variance[j] >= LEAST_DEVIATION * LEAST_DEVIATION;
        out->active += active[j];
    }
    TRY(make_levels(&l, data, err));
    TRY(by_information(out, data, &l, active, err));
    TRY(beta_vae(out, data, &l, err));
    TRY(informativeness(out, data, &l, err));
    out->factors = l.f;
    by_correlation(out, data, &l, active);
    if (out->active > 0) {
        TRY(factor_vae(out, data, &l, variance, active, err));
    }
done:
    free_levels(&l);
    free(active);
    free(variance);
    return status;
}
