#include "closest.h"

#include <math.h>

enum { PART = 64 }; /* columns between looks at whether the row can still win */

/* Squared distance, or something at least `most` where it is that much. */
static double away_from(const float *x, const vae_dataset *set, size_t row, double most)
{
    const size_t d = set->d;
    const uint8_t *bytes = set->dtype == VAE_U8 ? (const uint8_t *)set->rows + row * d : NULL;
    const float *values = set->dtype == VAE_U8 ? NULL : (const float *)set->rows + row * d;
    double total = 0;
    for (size_t at = 0; at < d && total < most; at += PART) {
        const size_t end = d - at < PART ? d : at + PART;
        float sum = 0; /* of few terms: float is exact enough, and in a fixed order */
        for (size_t j = at; j < end; j++) {
            const float value = bytes != NULL ? (float)bytes[j] * (1.0f / 255.0f) : values[j];
            sum += (x[j] - value) * (x[j] - value);
        }
        total += (double)sum;
    }
    return total;
}

void vae_closest_rows(size_t *row, double *distance, const float *x, size_t n,
                      const vae_dataset *set)
{
#pragma omp parallel for schedule(dynamic, 1)
    for (size_t i = 0; i < n; i++) {
        double least = INFINITY;
        row[i] = 0;
        for (size_t r = 0; r < set->n; r++) {
            const double away = away_from(x + i * set->d, set, r, least);
            if (away < least) {
                least = away;
                row[i] = r;
            }
        }
        distance[i] = sqrt(least);
    }
}
