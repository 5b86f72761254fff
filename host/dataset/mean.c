/* Column means of a data set, in one pass over its rows. */
#include <stdlib.h>
#include <string.h>

#include "dataset/dataset.h"

enum { PLANES = 8, MOST_ROWS = (1 << PLANES) - 1 };

/* Adds what the planes count to sum, and clears them. Plane p of word w holds digit p of 64 binary
 * counters, one for each bit of the word. */
static void flush_planes(uint64_t *planes, size_t n_words, size_t d, double *sum)
{
    for (size_t j = 0; j < d; j++) {
        const uint64_t *word = planes + j / 64 * PLANES;
        unsigned count = 0;
        for (unsigned p = 0; p < PLANES; p++) {
            count |= (unsigned)(word[p] >> j % 64 & 1) << p;
        }
        sum[j] += count;
    }
    memset(planes, 0, n_words * PLANES * sizeof *planes);
}

/* Bits are counted 64 columns at a time: a row is added to the counters' digits as a carry. */
static bool sum_bits(const vae_dataset *set, const uint32_t *rows, size_t n, double *sum)
{
    const size_t width = vae_row_bytes(VAE_BITS, set->d), n_words = (width + 7) / 8;
    uint64_t *planes = calloc(n_words, PLANES * sizeof *planes);
    if (planes == NULL) {
        return false;
    }
    for (size_t i = 0; i < n; i++) {
        const uint8_t *bits = (const uint8_t *)set->rows + (rows != NULL ? rows[i] : i) * width;
        for (size_t w = 0; w < n_words; w++) {
            uint64_t carry = 0;
            memcpy(&carry, bits + 8 * w, width - 8 * w < 8 ? width - 8 * w : 8);
            for (uint64_t *plane = planes + w * PLANES; carry != 0; plane++) {
                const uint64_t both = *plane & carry;
                *plane ^= carry;
                carry = both;
            }
        }
        if ((i + 1) % MOST_ROWS == 0) {
            flush_planes(planes, n_words, set->d, sum);
        }
    }
    flush_planes(planes, n_words, set->d, sum);
    free(planes);
    return true;
}

/* Sums of bytes (of 255 where thresholded) are whole numbers, and exact. */
static void add_row(const vae_dataset *set, size_t row, bool threshold, double *sum)
{
    const size_t d = set->d;
    if (set->dtype == VAE_U8) {
        const uint8_t *x = (const uint8_t *)set->rows + row * d;
        for (size_t j = 0; j < d; j++) {
            sum[j] += threshold ? 255.0 * (x[j] >= 128) : (double)x[j];
        }
        return;
    }
    const float *x = (const float *)set->rows + row * vae_dataset_width(set);
    for (size_t j = 0; j < d; j++) {
        sum[j] += threshold ? (double)(x[j] >= 0.5f) : (double)x[j];
    }
}

vae_status vae_dataset_mean(const vae_dataset *set, const uint32_t *rows, size_t n, bool threshold,
                            float *mean, vae_error *err)
{
    const double unit = set->dtype == VAE_U8 ? 255.0 : 1.0;
    double *sum = calloc(set->d, sizeof *sum);
    n = rows != NULL ? n : set->n;
    bool good = sum != NULL;
    if (good && set->dtype == VAE_BITS) {
        good = sum_bits(set, rows, n, sum);
    }
    for (size_t i = 0; i < n && good && set->dtype != VAE_BITS; i++) {
        add_row(set, rows != NULL ? rows[i] : i, threshold, sum);
    }
    for (size_t j = 0; j < set->d && good; j++) {
        mean[j] = (float)(sum[j] / ((double)n * unit));
    }
    free(sum);
    return good ? VAE_OK : vae_fail_memory(err, set->d * sizeof *sum, "the mean of the data");
}
