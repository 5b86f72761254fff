/* Rankings of scores and their quantiles. */
#include "stats/metrics.h"

#include <assert.h>
#include <math.h>
#include <stdlib.h>

typedef struct {
    float score;
    bool positive;
} item;

static int downwards(const void *a, const void *b)
{
    const float x = ((const item *)a)->score, y = ((const item *)b)->score;
    return (x < y) - (x > y);
}

static int upwards(const void *a, const void *b)
{
    const float x = *(const float *)a, y = *(const float *)b;
    return (x > y) - (x < y);
}

/* Over groups of equal scores, the highest first. */
static void rank_sorted(vae_ranking *out, const item *items)
{
    const double positives = (double)out->positives;
    const double pairs = positives * (double)(out->n - out->positives);
    size_t above_positive = 0; /* positives in the groups so far */
    double wins = 0, found = 0;
    for (size_t first = 0, end; first < out->n; first = end) {
        size_t hits = 0;
        for (end = first; end < out->n && items[end].score == items[first].score; end++) {
            hits += items[end].positive;
        }
        const double misses = (double)(end - first - hits);
        wins += misses * ((double)above_positive + (double)hits / 2);
        above_positive += hits;
        out->auprc += (double)hits / positives * ((double)above_positive / (double)end);
        if (first < out->positives) {
            const size_t inside = (end < out->positives ? end : out->positives) - first;
            found += (double)hits * (double)inside / (double)(end - first);
        }
    }
    out->auroc = wins / pairs;
    out->precision_at_n = found / positives;
}

vae_status vae_rank(vae_ranking *out, const float *score, const bool *positive, size_t n,
                    vae_error *err)
{
    *out = (vae_ranking){.n = n};
    item *items = malloc((n > 0 ? n : 1) * sizeof *items);
    if (items == NULL) {
        return vae_fail_memory(err, n * sizeof *items, "the ranking of scores");
    }
    for (size_t i = 0; i < n; i++) {
        if (isnan(score[i])) {
            free(items);
            return vae_fail(err, VAE_ERR_DATA, "row %zu: its score is NaN", i);
        }
        items[i] = (item){score[i], positive[i]};
        out->positives += positive[i];
    }
    if (out->positives == 0 || out->positives == n) {
        free(items);
        return vae_fail(err, VAE_ERR_DATA,
                        "expected both normal and abnormal rows, found %zu abnormal of %zu",
                        out->positives, n);
    }
    qsort(items, n, sizeof *items, downwards);
    rank_sorted(out, items);
    free(items);
    return VAE_OK;
}

double vae_quantile(float *values, size_t n, double q)
{
    assert(n > 0 && q >= 0 && q <= 1);
    qsort(values, n, sizeof *values, upwards);
    const double at = q * (double)(n - 1);
    const size_t below = (size_t)at < n - 1 ? (size_t)at : n - 1;
    const double part = at - (double)below;
    if (part <= 0) {
        return (double)values[below];
    }
    const double low = (double)values[below], high = (double)values[below + 1];
    return isinf(high) ? high : low + part * (high - low); /* no Inf - Inf */
}
