/* The rows of a data set that are closest to given ones. */
#include "dataset/closest.h"

#include <math.h>
#include <string.h>

enum { PART = 64 }; /* columns between looks at whether the row can still win */

/* Columns at .. at+n-1 of a row as floats. */
static void unpack(float *out, const vae_dataset *set, size_t row, size_t at, size_t n)
{
    const uint8_t *bytes = (const uint8_t *)set->rows + row * vae_row_bytes(set->dtype, set->d);
    if (set->dtype == VAE_F32) {
        memcpy(out, bytes + at * sizeof *out, n * sizeof *out);
        return;
    }
    for (size_t j = 0; j < n; j++) {
        out[j] = set->dtype == VAE_BITS ? (float)(bytes[(at + j) / 8] >> (at + j) % 8 & 1)
                                        : (float)bytes[at + j] * (1.0f / 255.0f);
    }
}

/* Squared distance, or something at least `most` where it is that much. */
static double away_from(const float *x, const vae_dataset *set, size_t row, double most)
{
    float part[PART];
    double total = 0;
    for (size_t at = 0; at < set->d && total < most; at += PART) {
        const size_t n = set->d - at < PART ? set->d - at : PART;
        float sum = 0; /* of few terms: float is exact enough, and in a fixed order */
        unpack(part, set, row, at, n);
        for (size_t j = 0; j < n; j++) {
            sum += (x[at + j] - part[j]) * (x[at + j] - part[j]);
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
