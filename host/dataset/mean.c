/* Column means of a data set: sums of rows that come one after another. */
#include <stdlib.h>
#include <string.h>

#include "dataset/readers.h"

enum {
    PLANES = 8,
    MOST_BITS = (1 << PLANES) - 1,       /* rows that counters of bits can take */
    MOST_BYTES = UINT16_MAX / UINT8_MAX, /* rows that counters of bytes can take */
};

/* ---- sums ---- */

static size_t words_of(const vae_sums *s)
{
    return (s->d + 63) / 64;
}

static size_t bytes_of_few(const vae_sums *s)
{
    return s->dtype == VAE_BITS ? words_of(s) * PLANES * sizeof(uint64_t) : (s->d + 7) / 8 * 16;
}

vae_status vae_sums_begin(vae_sums *s, const vae_dataset *set, bool threshold, vae_error *err)
{
    *s = (vae_sums){.dtype = set->dtype, .d = set->d, .threshold = threshold};
    s->sum = calloc(set->d, sizeof *s->sum);
    s->few = calloc(bytes_of_few(s), 1);
    return s->sum != NULL && s->few != NULL
               ? VAE_OK
               : vae_fail_memory(err, set->d * sizeof *s->sum, "the mean of the data");
}

void vae_sums_close(vae_sums *s)
{
    free(s->sum);
    free(s->few);
    *s = (vae_sums){.d = 0};
}

/* Adds what the planes count to sum, and clears them. Plane p of word w holds digit p of 64 binary
 * counters, one for each bit of the word. */
static void settle_planes(vae_sums *s)
{
    uint64_t *planes = s->few;
    for (size_t j = 0; j < s->d; j++) {
        const uint64_t *word = planes + j / 64 * PLANES;
        unsigned count = 0;
        for (unsigned p = 0; p < PLANES; p++) {
            count |= (unsigned)(word[p] >> j % 64 & 1) << p;
        }
        s->sum[j] += count;
    }
    memset(planes, 0, bytes_of_few(s));
}

/* Of every 8 columns, word 0 counts the even ones in its four parts, word 1 the odd ones. */
static void settle_bytes(vae_sums *s)
{
    uint64_t *few = s->few;
    const double unit = s->threshold ? 255.0 : 1.0;
    for (size_t j = 0; j < s->d; j++) {
        const uint64_t four = few[j / 8 * 2 + j % 2];
        s->sum[j] += unit * (double)(four >> j % 8 / 2 * 16 & UINT16_MAX);
    }
    memset(few, 0, bytes_of_few(s));
}

void vae_sums_settle(vae_sums *s)
{
    if (s->dtype == VAE_BITS) {
        settle_planes(s);
    } else if (s->dtype == VAE_U8) {
        settle_bytes(s);
    }
    s->few_rows = 0;
}

/* Bits are counted 64 columns at a time: a row is added to the counters' digits as a carry. */
static void add_bits(vae_sums *s, const uint8_t *bits)
{
    const size_t width = vae_row_bytes(VAE_BITS, s->d);
    for (size_t w = 0; w < words_of(s); w++) {
        uint64_t carry = 0;
        memcpy(&carry, bits + 8 * w, width - 8 * w < 8 ? width - 8 * w : 8);
        for (uint64_t *plane = (uint64_t *)s->few + w * PLANES; carry != 0; plane++) {
            const uint64_t both = *plane & carry;
            *plane ^= carry;
            carry = both;
        }
    }
}

static void add_bytes(vae_sums *s, const uint8_t *x)
{
    const uint64_t mask = s->threshold ? 0x0001000100010001u : 0x00ff00ff00ff00ffu;
    const unsigned shift = s->threshold ? 7 : 0;
    uint64_t *few = s->few, eight;
    size_t j = 0;
    for (; j + 8 <= s->d; j += 8, few += 2) {
        memcpy(&eight, x + j, 8);
        few[0] += eight >> shift & mask;
        few[1] += eight >> (shift + 8) & mask;
    }
    if (j < s->d) {
        eight = 0;
        memcpy(&eight, x + j, s->d - j);
        few[0] += eight >> shift & mask;
        few[1] += eight >> (shift + 8) & mask;
    }
}

static void add_floats(vae_sums *s, const float *x)
{
    for (size_t j = 0; s->threshold && j < s->d; j++) {
        s->sum[j] += (double)(x[j] >= 0.5f);
    }
    for (size_t j = 0; !s->threshold && j < s->d; j++) {
        s->sum[j] += (double)x[j];
    }
}

void vae_sums_add(vae_sums *s, const void *rows, size_t n, size_t stride)
{
    const size_t most = s->dtype == VAE_BITS ? MOST_BITS : MOST_BYTES;
    for (size_t i = 0; i < n; i++) {
        const void *row = (const char *)rows + i * stride;
        if (s->dtype == VAE_F32) {
            add_floats(s, row);
            continue;
        }
        if (s->dtype == VAE_BITS) {
            add_bits(s, row);
        } else {
            add_bytes(s, row);
        }
        if (++s->few_rows == most) {
            vae_sums_settle(s);
        }
    }
}

/* ---- means ---- */

/* Is each of the set's rows meant, in order? */
static bool all_in_order(const vae_dataset *set, const uint32_t *rows, size_t n)
{
    bool all = rows == NULL || n == set->n;
    for (size_t i = 0; rows != NULL && all && i < n; i++) {
        all = rows[i] == i;
    }
    return all;
}

/* The sums of these rows, in their order; rows NULL: of all; except: of all others. room: for a
 * row. */
static vae_status sum_rows(vae_sums *s, const vae_dataset *set, const uint32_t *rows, size_t n,
                           bool except, vae_error *err)
{
    uint8_t *room = set->loose ? malloc(vae_dataset_row_bytes(set)) : NULL;
    uint8_t *among = except ? calloc((set->n + 7) / 8, 1) : NULL; /* a bit a row */
    vae_status status = VAE_OK;
    if ((set->loose && room == NULL) || (except && among == NULL)) {
        TRY(vae_fail_memory(err, set->n / 8 + set->d, "the mean of the data"));
    }
    for (size_t i = 0; except && i < n; i++) {
        among[rows[i] / 8] |= (uint8_t)(1 << rows[i] % 8);
    }
    vae_dataset_in_order(set, true); /* rows mostly are */
    for (size_t i = 0; i < (except ? set->n : n); i++) {
        const size_t row = rows == NULL || except ? i : rows[i];
        if (!except || (among[i / 8] >> i % 8 & 1) == 0) {
            vae_sums_add(s, vae_dataset_row(set, row, room), 1, 0);
        }
    }
    vae_dataset_in_order(set, false);
    vae_sums_settle(s);
    TRY(vae_dataset_check_file(set, err));
done:
    free(room);
    free(among);
    return status;
}

vae_status vae_dataset_mean(const vae_dataset *set, const uint32_t *rows, size_t n, bool threshold,
                            float *mean, vae_error *err)
{
    const bool all = all_in_order(set, rows, n);
    const bool known = set->sums != NULL && set->summed_threshold == threshold;
    const bool whole = set->dtype != VAE_F32; /* whole numbers can be taken away again */
    const bool less = known && !all && whole && set->n - n < n;
    const double unit = set->dtype == VAE_U8 ? 255.0 : 1.0;
    vae_sums sums;
    vae_status status = VAE_OK;
    n = rows != NULL ? n : set->n;
    TRY(vae_sums_begin(&sums, set, threshold, err));
    if (!known || !all) {
        TRY(sum_rows(&sums, set, rows, n, less, err));
    }
    for (size_t j = 0; j < set->d; j++) {
        const double sum = known && (all || less) ? set->sums[j] - sums.sum[j] : sums.sum[j];
        mean[j] = (float)(sum / ((double)n * unit));
    }
done:
    vae_sums_close(&sums);
    return status;
}
