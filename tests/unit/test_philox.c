/* Philox, Box-Muller, binarization and the shuffle: known answers, definitions, distributions. The
 * draws are fixed by their seeds, so a statistical test passes always or never; its limits are at
 * five standard deviations or beyond. Against cuRAND itself: test_curand.c. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <math.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "philox.h"

static void assert_words(vae_philox_words got, uint32_t a, uint32_t b, uint32_t c, uint32_t d)
{
    assert_int_equal(got.w[0], a);
    assert_int_equal(got.w[1], b);
    assert_int_equal(got.w[2], c);
    assert_int_equal(got.w[3], d);
}

/* Random123's kat_vectors, philox4x32 10: counter c0 c1 c2 c3 and key k0 k1. Here the block is
 * c1:c0, the subsequence c3:c2 and the seed k1:k0. */
static void known_answers(void **state)
{
    (void)state;
    assert_words(vae_philox(0, 0, 0), 0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8);
    assert_words(vae_philox(UINT64_MAX, UINT64_MAX, UINT64_MAX), 0x408f276d, 0x41c83b0e, 0xa20bc7c6,
                 0x6d5451fd);
    assert_words(vae_philox(0x299f31d0a4093822u, 0x0370734413198a2eu, 0x85a308d3243f6a88u),
                 0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1);
}

static void streams_and_blocks_are_laid_out_as_said(void **state)
{
    (void)state;
    assert_true(vae_rng_stream(VAE_RNG_EPS, 0) == 0x0100000000000000u);
    assert_true(vae_rng_stream(VAE_RNG_SPLIT, 0xABCDEF0123u) == 0x060000ABCDEF0123u);
    assert_true(vae_rng_block(5, 0) == 5 && vae_rng_block(0, 1) == (uint64_t)1 << 40);
    assert_true(vae_rng_block(((uint64_t)1 << 40) - 1, ((uint32_t)1 << 22) - 1) ==
                ((uint64_t)1 << 62) - 1);
    /* eps4: quad q of row r is element r*n_quads + q; words 0,1 make the first two normals */
    for (uint64_t row = 0; row < 20; row++) {
        for (uint32_t quad = 0; quad < 5; quad++) {
            float eps[4], a, b;
            vae_eps4(77, VAE_RNG_PRIOR, row, 5, quad, 9, 3, eps);
            vae_philox_words w =
                vae_philox(77, ((uint64_t)4 << 56) + row * 5 + quad, ((uint64_t)3 << 40) + 9);
            vae_box_muller(w.w[0], w.w[1], &a, &b);
            assert_true(eps[0] == a && eps[1] == b);
            vae_box_muller(w.w[2], w.w[3], &a, &b);
            assert_true(eps[2] == a && eps[3] == b);
        }
    }
    /* rows do not wrap at 32 bits */
    float near[4], far[4];
    vae_eps4(1, VAE_RNG_EPS, 7, 1, 0, 0, 0, near);
    vae_eps4(1, VAE_RNG_EPS, 7 + ((uint64_t)1 << 32), 1, 0, 0, 0, far);
    assert_true(memcmp(near, far, sizeof near) != 0);
}

/* ---- normals ---- */

static void normals_are_box_mullers(void **state)
{
    (void)state;
    const uint32_t ends[] = {0, 1, 2, 0x7FFFFFFF, 0x80000000, 0xFFFFFF7F, 0xFFFFFFFE, 0xFFFFFFFF};
    for (uint64_t i = 0; i < 200000; i++) {
        vae_philox_words w = vae_philox(11, 0, i);
        if (i < 64) { /* the corners too */
            w.w[0] = ends[i / 8], w.w[1] = ends[i % 8];
        }
        float n0, n1;
        vae_box_muller(w.w[0], w.w[1], &n0, &n1);
        double u = ((double)w.w[0] + 0.5) / 4294967296.0, v = ((double)w.w[1] + 0.5) / 4294967296.0;
        double s = sqrt(-2 * log(u)), angle = 2 * M_PI * v;
        assert_true(fabs((double)n0) < 6.764 && fabs((double)n1) < 6.764);
        if (u < 0.999) {
            assert_true(fabs((double)n0 - s * sin(angle)) <= 1e-6 * (1 + s));
            assert_true(fabs((double)n1 - s * cos(angle)) <= 1e-6 * (1 + s));
        } else { /* u is a float: near 1 its rounding shows in the logarithm */
            assert_true(fabs((double)n0 - s * sin(angle)) < 4e-4);
            assert_true(fabs((double)n1 - s * cos(angle)) < 4e-4);
        }
    }
}

/* Cumulative normal counts in 64 equally likely bins, by quantiles. */
static double chi_square_normal(const float *x, size_t n)
{
    enum { BINS = 64 };
    size_t count[BINS] = {0};
    double chi2 = 0, expected = (double)n / BINS;
    for (size_t i = 0; i < n; i++) {
        double p = 0.5 * erfc(-(double)x[i] / sqrt(2.0));
        size_t bin = (size_t)(p * BINS);
        count[bin < BINS ? bin : BINS - 1]++;
    }
    for (size_t b = 0; b < BINS; b++) {
        double d = (double)count[b] - expected;
        chi2 += d * d / expected;
    }
    return chi2;
}

static int by_value(const void *a, const void *b)
{
    float x = *(const float *)a, y = *(const float *)b;
    return (x > y) - (x < y);
}

/* The largest distance between the empirical and the true distribution, times sqrt(n). */
static double kolmogorov(float *x, size_t n)
{
    double most = 0;
    qsort(x, n, sizeof *x, by_value);
    for (size_t i = 0; i < n; i++) {
        double p = 0.5 * erfc(-(double)x[i] / sqrt(2.0));
        most = fmax(most,
                    fmax(fabs(p - (double)i / (double)n), fabs(p - (double)(i + 1) / (double)n)));
    }
    return most * sqrt((double)n);
}

static void check_normals(float *x, size_t n)
{
    double m1 = 0, m2 = 0, m3 = 0, m4 = 0, root = sqrt((double)n), lag = 0;
    size_t tail = 0;
    for (size_t i = 0; i < n; i++) {
        double v = (double)x[i];
        m1 += v, m2 += v * v, m3 += v * v * v, m4 += v * v * v * v;
        lag += i > 0 ? v * (double)x[i - 1] : 0;
        tail += fabs(v) > 3;
    }
    assert_true(fabs(m1 / root) < 5);                              /* mean 0 */
    assert_true(fabs(m2 - (double)n) < 5 * sqrt(2.0) * root);      /* variance 1 */
    assert_true(fabs(m3) < 5 * sqrt(15.0) * root);                 /* no skew */
    assert_true(fabs(m4 - 3 * (double)n) < 5 * sqrt(96.0) * root); /* fourth moment 3 */
    assert_true(fabs(lag) < 5 * root);                             /* neighbours apart */
    const double outside = 0.0026997960632602 * (double)n;
    assert_true(fabs((double)tail - outside) < 5 * sqrt(outside));
    assert_true(chi_square_normal(x, n) < 63 + 5 * sqrt(2.0 * 63));
    assert_true(kolmogorov(x, n) < 2.2); /* passed once in 8,000 */
}

/* Along every axis of the counter: latents, rows, steps, particles, seeds. */
static void normals_are_normal(void **state)
{
    (void)state;
    enum { N = 1 << 16 };
    float *x = malloc(N * sizeof *x);
    assert_non_null(x);
    for (int axis = 0; axis < 5; axis++) {
        for (uint32_t i = 0; i < N / 4; i++) {
            uint64_t row = axis == 1 ? i : 3, draw = axis == 2 ? i : 1, seed = axis == 4 ? i : 1;
            vae_eps4(seed, VAE_RNG_EPS, row, 5, axis == 0 ? i : 2, draw, axis == 3 ? i : 0,
                     x + (size_t)4 * i);
        }
        check_normals(x, N);
    }
    free(x);
}

/* ---- binarization ---- */

static void bytes_are_binarized_exactly(void **state)
{
    (void)state;
    for (uint64_t i = 0; i < 4000; i++) {
        vae_philox_words w = vae_philox(2, 0, i);
        w.w[0] = i == 0 ? 0 : i == 1 ? UINT32_MAX : w.w[0];
        assert_int_equal(vae_binarize_u8(0, w.w[0]), 0);
        assert_int_equal(vae_binarize_u8(255, w.w[0]), 1);
        for (uint32_t byte = 1; byte < 255; byte += 11) {
            /* word / 2^32 < byte / 255, in exact arithmetic */
            bool want = (long double)w.w[0] * 255 < (long double)byte * 4294967296.0L;
            assert_int_equal(vae_binarize_u8(byte, w.w[0]), want);
        }
    }
    for (uint32_t byte = 1; byte < 255; byte++) { /* the words next to the threshold */
        uint32_t last = (uint32_t)((((uint64_t)byte << 32) - 1) / 255);
        assert_int_equal(vae_binarize_u8(byte, last), 1);
        assert_int_equal(vae_binarize_u8(byte, last + 1), 0);
    }
}

static void floats_are_binarized_exactly(void **state)
{
    (void)state;
    const uint32_t words[] = {0, 1, 0x7FFFFFFF, 0x80000000, 0xFFFFFF00, UINT32_MAX};
    for (size_t i = 0; i < sizeof words / sizeof words[0]; i++) {
        assert_int_equal(vae_binarize_f32(0.0f, words[i]), 0);
        assert_int_equal(vae_binarize_f32(1.0f, words[i]), 1);
        assert_int_equal(vae_binarize_f32(0.5f, words[i]), words[i] < 0x80000000u);
        assert_int_equal(vae_binarize_f32(0.25f, words[i]), words[i] < 0x40000000u);
        assert_int_equal(vae_binarize_f32(0.99999994f, words[i]), words[i] < 0xFFFFFF00u);
        assert_int_equal(vae_binarize_f32(2.3283064e-10f, words[i]), words[i] < 1);
        assert_int_equal(vae_binarize_f32(1e-12f, words[i]), 0);
    }
    for (uint32_t byte = 0; byte <= 255; byte++) { /* byte/255 as a float nearly agrees */
        size_t apart = 0;
        for (uint64_t i = 0; i < 500; i++) {
            uint32_t word = vae_philox(4, byte, i).w[0];
            apart += vae_binarize_f32((float)byte / 255.0f, word) != vae_binarize_u8(byte, word);
        }
        assert_int_equal(apart, 0);
    }
}

/* How often each byte fires, over all bytes: a sum of squares with 254 degrees of freedom. */
static void frequencies_are_the_bytes(void **state)
{
    (void)state;
    enum { N = 4000 };
    double chi2 = 0;
    for (uint32_t byte = 1; byte < 255; byte++) {
        size_t fired = 0;
        for (uint64_t i = 0; i < N / 4; i++) {
            vae_philox_words w = vae_philox(6, vae_rng_stream(VAE_RNG_BINARIZE, byte), i);
            for (int j = 0; j < 4; j++) {
                fired += vae_binarize_u8(byte, w.w[j]);
            }
        }
        double p = byte / 255.0, d = (double)fired - N * p;
        chi2 += d * d / (N * p * (1 - p));
    }
    assert_true(fabs(chi2 - 254) < 5 * sqrt(2.0 * 254));
}

/* ---- the shuffle ---- */

static void check_bijection(uint64_t key, uint64_t n, uint8_t *seen)
{
    const uint32_t bits = vae_shuffle_bits(n);
    assert_true((uint64_t)1 << (2 * bits) >= n);
    assert_true(bits == 1 || (uint64_t)1 << (2 * (bits - 1)) < n);
    memset(seen, 0, n);
    for (uint64_t i = 0; i < n; i++) {
        uint64_t row = vae_shuffle(key, n, bits, i);
        assert_true(row < n && !seen[row]);
        seen[row] = 1;
    }
}

static void shuffles_are_bijections(void **state)
{
    (void)state;
    const uint64_t more[] = {1000, 1023, 1024, 1025, 59999, 60000, 65535, 65536, 65537};
    uint8_t *seen = malloc(65537);
    for (uint64_t n = 1; n <= 300; n++) {
        check_bijection(n, n, seen);
        check_bijection(0, n, seen);
        check_bijection(0xFFFFFFFF00000000u + n, n, seen);
    }
    for (size_t i = 0; i < sizeof more / sizeof more[0]; i++) {
        check_bijection(more[i] * 0x9E3779B97F4A7C15u, more[i], seen);
    }
    free(seen);
    /* large sets: still inside, still apart */
    const uint64_t n = ((uint64_t)1 << 33) + 12345;
    uint64_t last = n;
    for (uint64_t i = 0; i < 2000; i++) {
        uint64_t row = vae_shuffle(5, n, vae_shuffle_bits(n), n - 1 - i);
        assert_true(row < n && row != last);
        last = row;
    }
}

/* Either half of the key makes another order, and so does one bit of it. */
static void keys_give_different_orders(void **state)
{
    (void)state;
    enum { N = 1000 };
    const uint32_t bits = vae_shuffle_bits(N);
    for (int bit = 0; bit < 64; bit++) {
        size_t same = 0, moved = 0;
        for (uint64_t i = 0; i < N; i++) {
            uint64_t a = vae_shuffle(7, N, bits, i);
            same += a == vae_shuffle(7 ^ (uint64_t)1 << bit, N, bits, i);
            moved += a != i;
        }
        assert_true(same < 12); /* 1 is expected */
        assert_true(moved > N - 12);
    }
}

/* Chi-square of where each position lands over many keys, for all positions at once. */
static void check_uniform(uint64_t n, uint64_t keys)
{
    uint32_t *count = calloc(n * n, sizeof *count);
    double chi2 = 0, expected = (double)keys / (double)n;
    assert_non_null(count);
    for (uint64_t k = 0; k < keys; k++) {
        vae_philox_words w = vae_philox(1, vae_rng_stream(VAE_RNG_SHUFFLE, 0), k);
        uint64_t key = (uint64_t)w.w[0] << 32 | w.w[1]; /* as the trainer draws them */
        for (uint64_t i = 0; i < n; i++) {
            count[i * n + vae_shuffle(key, n, vae_shuffle_bits(n), i)]++;
        }
    }
    for (uint64_t i = 0; i < n * n; i++) {
        double d = (double)count[i] - expected;
        chi2 += d * d / expected;
    }
    const double freedom = (double)((n - 1) * (n - 1));
    if (fabs(chi2 - freedom) > 5 * sqrt(2 * freedom)) {
        fail_msg("n=%llu: chi-square %.1f, %.0f expected", (unsigned long long)n, chi2, freedom);
    }
    free(count);
}

static void every_row_comes_everywhere(void **state)
{
    (void)state;
    check_uniform(2, 2000);
    check_uniform(3, 3000);
    check_uniform(10, 5000);
    check_uniform(31, 5000);
    check_uniform(100, 3000);
}

/* Nothing of the data's order is left: neighbours are as far apart as strangers, and the order does
 * not go along with the position. */
static void no_structure_is_left(void **state)
{
    (void)state;
    enum { N = 60000 };
    const uint32_t bits = vae_shuffle_bits(N);
    for (uint64_t epoch = 0; epoch < 4; epoch++) {
        vae_philox_words w = vae_philox(1, vae_rng_stream(VAE_RNG_SHUFFLE, epoch), 0);
        const uint64_t key = (uint64_t)w.w[0] << 32 | w.w[1];
        double step = 0, along = 0, low_bits = 0;
        size_t rising = 0;
        uint64_t before = vae_shuffle(key, N, bits, N - 1);
        for (uint64_t i = 0; i < N; i++) {
            uint64_t row = vae_shuffle(key, N, bits, i);
            step += fabs((double)row - (double)before) / N;
            along += ((double)row / N - 0.5) * ((double)i / N - 0.5);
            low_bits += (row & 1) == (i & 1) ? 1 : -1;
            rising += row > before;
            before = row;
        }
        const double root = sqrt((double)N);
        assert_true(fabs(step - N / 3.0) < 5 * root * sqrt(1.0 / 18) * 1.5);
        assert_true(fabs(along) < 5 * root / 12);
        assert_true(fabs(low_bits) < 5 * root);
        assert_true(fabs((double)rising - N / 2.0) < 5 * root * sqrt(1.0 / 12) * 1.5);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(known_answers),
        cmocka_unit_test(streams_and_blocks_are_laid_out_as_said),
        cmocka_unit_test(normals_are_box_mullers),
        cmocka_unit_test(normals_are_normal),
        cmocka_unit_test(bytes_are_binarized_exactly),
        cmocka_unit_test(floats_are_binarized_exactly),
        cmocka_unit_test(frequencies_are_the_bytes),
        cmocka_unit_test(shuffles_are_bijections),
        cmocka_unit_test(keys_give_different_orders),
        cmocka_unit_test(every_row_comes_everywhere),
        cmocka_unit_test(no_structure_is_left),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
