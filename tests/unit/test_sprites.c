/* The drawn sprites, against their geometry in plain floating point, and data sets of bits. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/sha256.h"
#include "dataset/dataset.h"
#include "dataset/readers.h"
#include "dataset_fixture.h"
#include "device.h"

enum { SIDE = VAE_SPRITES_SIDE, BYTES = VAE_SPRITES_ROW_BYTES, SHAPES = 3, FACTORS = 5 };
enum { SHAPE, SCALE, ROTATION, X, Y };

/* Of the first 1000 rows of the random order, and of the grid. If one changes, so does every result
 * recorded on `sprites`. */
static const char golden_part[] =
    "d94b5497f0bb441f33d7f7f711381c392d1c37ff7455af8c74e7846ca079b6b0";
static const char golden_grid[] =
    "f49dec621366fa2d3412250800ae2a7b52ba002ea4f17adeea8d91125fd630c3";

static bool white(const uint8_t *bits, size_t x, size_t y)
{
    return bits[(y * SIDE + x) / 8] >> (y * SIDE + x) % 8 & 1;
}

static double area(const uint8_t *bits)
{
    double n = 0;
    for (size_t i = 0; i < BYTES; i++) {
        n += __builtin_popcount(bits[i]);
    }
    return n;
}

/* Mean place of the white pixels, minus the place that the factors say. */
static void centroid(const uint8_t *bits, const size_t *level, double *dx, double *dy)
{
    *dx = *dy = 0;
    for (size_t y = 0; y < SIDE; y++) {
        for (size_t x = 0; x < SIDE; x++) {
            *dx += white(bits, x, y) ? (double)x + 0.5 : 0;
            *dy += white(bits, x, y) ? (double)y + 0.5 : 0;
        }
    }
    *dx = *dx / area(bits) - (16 + 32 * (double)level[X] / 31);
    *dy = *dy / area(bits) - (16 + 32 * (double)level[Y] / 31);
}

/* A shape of scale 1 as a set of points, the heart as a disc that shrinks on its way to the tip. */
static bool in_shape(size_t shape, double x, double y)
{
    if (shape < 2) {
        return shape == 0 ? fmax(fabs(x), fabs(y)) <= 9.6
                          : x * x / (12.75 * 12.75) + y * y / (7.25 * 7.25) <= 1;
    }
    for (int i = 0; i <= 100; i++) {
        const double t = i / 100.0;
        if (hypot(fabs(x) - 4.6 * t, y - 8.5 + 12.5 * t) <= 5.2 * t) {
            return true;
        }
    }
    return false;
}

/* ---- the pictures ---- */

/* Mean area over all rotations at four places, and the shape's own. */
static void areas_grow_with_the_square_of_the_scale(void **state)
{
    (void)state;
    for (size_t shape = 0; shape < SHAPES; shape++) {
        double real = 0;
        for (double x = -13.95; x < 14; x += 0.1) {
            for (double y = -13.95; y < 14; y += 0.1) {
                real += in_shape(shape, x, y) ? 0.01 : 0;
            }
        }
        for (size_t scale = 0; scale < 6; scale++) {
            double sum = 0;
            for (size_t i = 0; i < 39 * 4; i++) {
                uint8_t bits[BYTES];
                vae_sprites_sample((const size_t[]){shape, scale, i / 4, i % 4 * 9 + 2, i % 32},
                                   bits);
                sum += area(bits);
            }
            const double s = 0.5 + 0.1 * (double)scale, want = real * s * s;
            if (fabs(sum / (39 * 4) - want) > 0.01 * want) {
                fail_msg("shape %zu scale %.1f: %.2f pixels, expected %.2f", shape, s,
                         sum / (39 * 4), want);
            }
        }
    }
}

/* The heart's centre of mass lies off its middle, on its axis: that shows which way it turns. */
static void sprites_are_where_the_factors_say(void **state)
{
    (void)state;
    enum { N = 3000 };
    double mean_x = 0, mean_y = 0;
    for (size_t i = 0; i < N; i++) {
        size_t level[FACTORS];
        uint8_t bits[BYTES];
        double dx, dy, along = 0;
        vae_grid_levels(level, (const size_t[]){3, 6, 40, 32, 32}, FACTORS, i * 245 + i % 31);
        vae_sprites_sample(level, bits);
        centroid(bits, level, &dx, &dy);
        if (level[SHAPE] == 2) {
            along = -2.13 * (0.5 + 0.1 * (double)level[SCALE]);
        }
        const double angle = 2 * M_PI * (double)level[ROTATION] / 39;
        dx -= along * sin(angle);
        dy -= along * cos(angle);
        mean_x += dx / N;
        mean_y += dy / N;
        if (hypot(dx, dy) > 0.4) { /* a small upright square covers 9 or 10 columns */
            fail_msg("sprite %zu %zu %zu %zu %zu: %.2f, %.2f from its place", level[0], level[1],
                     level[2], level[3], level[4], dx, dy);
        }
    }
    if (hypot(mean_x, mean_y) > 0.02) {
        fail_msg("on average %.3f, %.3f from their places", mean_x, mean_y);
    }
}

static void pixels_are_those_inside(void **state)
{
    (void)state;
    size_t differ = 0, total = 0;
    for (size_t i = 0; i < 150; i++) {
        size_t level[FACTORS];
        uint8_t bits[BYTES];
        vae_grid_levels(level, (const size_t[]){3, 6, 40, 32, 32}, FACTORS, i * 4911 + 7);
        vae_sprites_sample(level, bits);
        const double s = 0.5 + 0.1 * (double)level[SCALE],
                     a = 2 * M_PI * (double)level[ROTATION] / 39;
        for (size_t p = 0; p < (size_t)SIDE * SIDE; p++) {
            const double x = (double)(p % SIDE) + 0.5 - 16 - 32 * (double)level[X] / 31;
            const double y = (double)(p / SIDE) + 0.5 - 16 - 32 * (double)level[Y] / 31;
            const bool in = in_shape(level[SHAPE], (x * cos(a) - y * sin(a)) / s,
                                     (x * sin(a) + y * cos(a)) / s);
            differ += in != white(bits, p % SIDE, p / SIDE);
            total += in;
        }
    }
    if (differ * 2000 > total) { /* centres that lie on the outline */
        fail_msg("%zu pixels of %zu differ", differ, total);
    }
}

static void sprites_are_told_apart_and_stay_in_the_frame(void **state)
{
    (void)state;
    static const size_t ends[] = {0, 31};
    for (size_t i = 0; i < 6 * 39 * 4; i++) {
        uint8_t bits[SHAPES][BYTES], turned[BYTES];
        for (size_t shape = 0; shape < SHAPES; shape++) {
            size_t level[FACTORS] = {shape, i / 4 / 39, i / 4 % 39, ends[i % 2], ends[i / 2 % 2]};
            vae_sprites_sample(level, bits[shape]);
            for (size_t k = 0; k < SIDE; k++) {
                for (size_t edge = 0; edge < 4; edge++) {
                    const size_t at = (const size_t[]){0, 1, SIDE - 2, SIDE - 1}[edge];
                    assert_false(white(bits[shape], at, k) || white(bits[shape], k, at));
                }
            }
            /* the 40 rotations of a heart differ, but for the last, which is the first */
            level[ROTATION]++;
            vae_sprites_sample(level, turned);
            assert_true(shape != 2 || memcmp(turned, bits[2], BYTES) != 0);
            if (i / 4 % 39 == 0) {
                level[ROTATION] = 39;
                vae_sprites_sample(level, turned);
                assert_memory_equal(turned, bits[shape], BYTES);
            }
        }
        assert_memory_not_equal(bits[0], bits[1], BYTES);
        assert_memory_not_equal(bits[1], bits[2], BYTES);
        assert_memory_not_equal(bits[0], bits[2], BYTES);
    }
}

/* ---- the set ---- */

static void assert_sha256(const vae_dataset *set, const char *expected)
{
    char hex[VAE_SHA256_HEX];
    vae_sha256_hex(set->sha256, hex);
    assert_string_equal(hex, expected);
}

/* Levels from a row's factors. */
static void levels_of(const vae_dataset *set, size_t row, size_t *level)
{
    static const double first[] = {0, 0.5, 0, 0, 0}, last[] = {2, 1, 2 * M_PI, 1, 1};
    static const size_t sizes[] = {3, 6, 40, 32, 32};
    for (size_t k = 0; k < FACTORS; k++) {
        const double f = (double)set->factors[row * FACTORS + k];
        const double at = (f - first[k]) / (last[k] - first[k]) * (double)(sizes[k] - 1);
        level[k] = (size_t)lround(at);
        assert_true(fabs(at - (double)level[k]) < 1e-5 && level[k] < sizes[k]);
    }
}

static void a_part_is_spread_over_the_grid(void **state)
{
    (void)state;
    vae_dataset *all = NULL;
    static const char *const threads[] = {"1", "3", "5"};
    for (size_t i = 0; i < 3; i++) {
        setenv("OMP_NUM_THREADS", threads[i], 1);
        vae_dataset_free(all);
        all = dataset_open_ok("sprites", VAE_SPLIT_TRAIN, 1000);
        assert_sha256(all, golden_part);
    }
    setenv("OMP_NUM_THREADS", "1", 1);
    vae_dataset *part = dataset_open_ok("sprites", VAE_SPLIT_TRAIN, 50);
    assert_memory_equal(part->rows, all->rows, 50 * BYTES);
    assert_null(part->factor_sizes);
    assert_true(part->dtype == VAE_BITS && part->d == 4096 && part->classes.n == 3);
    vae_dataset_free(part);
    double mean[FACTORS] = {0};
    for (size_t i = 0; i < all->n; i++) {
        size_t level[FACTORS];
        uint8_t bits[BYTES];
        levels_of(all, i, level);
        vae_sprites_sample(level, bits);
        assert_memory_equal(bits, (uint8_t *)all->rows + i * BYTES, BYTES);
        assert_int_equal(all->labels[i], level[SHAPE]);
        for (size_t k = 0; k < FACTORS; k++) {
            mean[k] += (double)level[k] / 1000;
        }
    }
    static const double middle[] = {1, 2.5, 19.5, 15.5, 15.5};
    for (size_t k = 0; k < FACTORS; k++) { /* four standard errors */
        assert_true(fabs(mean[k] - middle[k]) < 4 * middle[k] * 0.82 / sqrt(1000));
    }
    assert_int_equal(vae_dataset_check_range(all, VAE_BERNOULLI, VAE_MEAN_LINEAR, NULL), VAE_OK);
    vae_dataset_free(all);
}

static void all_of_them_are_a_grid(void **state)
{
    (void)state;
    assert_false(dataset_has_test("sprites"));
    assert_set_refused("sprites", VAE_SPLIT_TEST, VAE_ERR_DATA, "leave --split out");
    vae_dataset *set = dataset_open_ok("sprites", VAE_SPLIT_TRAIN, 0);
    assert_sha256(set, golden_grid);
    assert_int_equal(set->n, 737280);
    assert_int_equal(set->n_factors, FACTORS);
    assert_string_equal(set->factor_names[ROTATION], "rotation");
    for (size_t row = 0; row < set->n; row += row < 70 ? 1 : 997) {
        size_t level[FACTORS], again[FACTORS];
        uint8_t bits[BYTES];
        levels_of(set, row, level);
        assert_int_equal(vae_grid_row(set->factor_sizes, FACTORS, level), row);
        vae_grid_levels(again, set->factor_sizes, FACTORS, row);
        assert_memory_equal(again, level, sizeof level);
        vae_sprites_sample(level, bits);
        assert_memory_equal(bits, (uint8_t *)set->rows + row * BYTES, BYTES);
        assert_int_equal(set->labels[row], level[SHAPE]);
    }
    /* posY is fastest, then posX: a row's numbers say so without any helper */
    assert_true(set->factors[1 * FACTORS + Y] > 0 && set->factors[32 * FACTORS + X] > 0);
    assert_true(set->factors[31 * FACTORS + Y] == 1 && set->factors[32 * FACTORS + Y] == 0);
    vae_dataset_free(set);
}

/* ---- bits ---- */

static void means_of_bits_are_exact(void **state)
{
    (void)state;
    static const size_t widths[] = {1, 8, 63, 64, 71, 200};
    enum { N = 600 }; /* more than a counter of eight digits holds */
    for (size_t w = 0; w < sizeof widths / sizeof widths[0]; w++) {
        const size_t d = widths[w], width = vae_row_bytes(VAE_BITS, d);
        uint64_t rng = d;
        uint32_t rows[N / 2];
        float mean[200];
        vae_dataset set = {.n = N, .d = d, .dtype = VAE_BITS, .rows = test_calloc(N, width)};
        for (size_t i = 0; i < N * width; i++) {
            ((uint8_t *)set.rows)[i] = (uint8_t)(i % 3 == 0 ? 0xff : random_u64(&rng));
        }
        for (size_t i = 0; i < N / 2; i++) {
            rows[i] = (uint32_t)(i * 7 % N);
        }
        for (int part = 0; part < 2; part++) {
            const size_t n = part ? N / 2 : N;
            assert_int_equal(vae_dataset_mean(&set, part ? rows : NULL, n, part, mean, NULL),
                             VAE_OK);
            for (size_t j = 0; j < d; j++) {
                double sum = 0;
                for (size_t i = 0; i < n; i++) {
                    sum += (double)vae_dataset_value(&set, part ? rows[i] : i, j);
                }
                assert_true(mean[j] == (float)(sum / (double)n));
            }
        }
        test_free(set.rows);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(areas_grow_with_the_square_of_the_scale),
        cmocka_unit_test(sprites_are_where_the_factors_say),
        cmocka_unit_test(pixels_are_those_inside),
        cmocka_unit_test(sprites_are_told_apart_and_stay_in_the_frame),
        cmocka_unit_test(a_part_is_spread_over_the_grid),
        cmocka_unit_test(all_of_them_are_a_grid),
        cmocka_unit_test(means_of_bits_are_exact),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
