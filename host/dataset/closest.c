/* The rows of a data set that are closest to given ones. */
#include "dataset/closest.h"

#include <math.h>
#include <string.h>

#include "base/pool.h"

enum {
    PART = 64,     /* columns between looks at whether the row can still win */
    A_LOOK = 1024, /* rows between looks at whether to stop */
};

/* Columns at .. at+n-1 of a row as floats. */
static void unpack(float *out, const vae_dataset *set, size_t row, size_t at, size_t n)
{
    const uint8_t *bytes = (const uint8_t *)set->rows + row * vae_dataset_stride(set);
    if (set->dtype == VAE_F32) {
        memcpy(out, bytes + at * sizeof *out, n * sizeof *out);
        return;
    }
    for (size_t j = 0; set->loose && j < n; j++) {
        out[j] = (float)bytes[at + j];
    }
    for (size_t j = 0; !set->loose && j < n; j++) {
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

typedef struct {
    size_t *row;
    double *distance;
    const float *x;
    const vae_dataset *set;
    const vae_stop_flag *stop;
} search;

static void search_rows(void *ctx, int thread, size_t first, size_t end)
{
    const search *s = ctx;
    (void)thread;
    for (size_t i = first; i < end; i++) {
        double least = INFINITY;
        s->row[i] = 0;
        for (size_t r = 0; r < s->set->n; r++) {
            if (r % A_LOOK == 0 && vae_stopping(s->stop)) {
                return;
            }
            const double away = away_from(s->x + i * s->set->d, s->set, r, least);
            if (away < least) {
                least = away;
                s->row[i] = r;
            }
        }
        s->distance[i] = sqrt(least);
    }
}

vae_status vae_closest_rows(size_t *row, double *distance, const float *x, size_t n,
                            const vae_dataset *set, const vae_stop_flag *stop, vae_error *err)
{
    search s = {row, distance, x, set, stop};
    vae_dataset_in_order(set, true);
    vae_parallel(vae_threads(0), n, 1, search_rows, &s);
    vae_dataset_in_order(set, false);
    return vae_stopping(stop) ? vae_fail(err, VAE_ERR_INTERRUPTED, "interrupted") : VAE_OK;
}
