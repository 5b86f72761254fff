/* How well scores put abnormal rows before normal ones, and quantiles of scores. Higher scores are
 * more abnormal; +Inf is a score like any other, NaN is none. */
#ifndef VAE_METRICS_H
#define VAE_METRICS_H

#include <stdbool.h>
#include <stddef.h>

#include "base/status.h"

typedef struct {
    size_t n, positives;
    /* Area under the ROC curve: the probability that a positive scores above a negative, equal
     * scores counting half (the Mann-Whitney U of the positives over their number of pairs). */
    double auroc;
    /* Average precision: sum over the distinct scores, from the highest down, of (recall gained) *
     * (precision so far). A step function, without interpolation, as scikit-learn's
     * average_precision_score. */
    double auprc;
    /* Share of positives among the `positives` highest scores. Where equal scores stand on both
     * sides of that cut, its mean over all orders of them. */
    double precision_at_n;
} vae_ranking;

/* score, positive: (n). VAE_ERR_DATA unless there are both positives and negatives, or where a
 * score is NaN; VAE_ERR_RUNTIME (memory). n log n. */
vae_status vae_rank(vae_ranking *out, const float *score, const bool *positive, size_t n,
                    vae_error *err);

/* The q-quantile (0 <= q <= 1) of n >= 1 values without NaN: linear between the two nearest order
 * statistics, at q*(n-1) counted from 0, as numpy.quantile has it by default. Sorts `values`. */
double vae_quantile(float *values, size_t n, double q);

#endif
