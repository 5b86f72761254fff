/* Ways through latent space, and the closest rows of a data set. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "dataset/closest.h"
#include "model_fixture.h"
#include "philox.h"
#include "stats/latent_walk.h"

static double norm(const float *a, size_t n)
{
    double sum = 0;
    for (size_t j = 0; j < n; j++) {
        sum += (double)a[j] * (double)a[j];
    }
    return sqrt(sum);
}

static double angle(const float *a, const float *b, size_t n)
{
    double dot = 0;
    for (size_t j = 0; j < n; j++) {
        dot += (double)a[j] * (double)b[j];
    }
    return acos(dot / norm(a, n) / norm(b, n));
}

static void slerp_goes_along_the_arc(void **state)
{
    (void)state;
    enum { Z = 20, STEPS = 9 };
    float a[Z], b[Z], at[Z], before[Z];
    uint64_t rng = 1;
    for (size_t j = 0; j < Z; j++) {
        a[j] = random_normal(&rng);
        b[j] = random_normal(&rng);
    }
    const double la = norm(a, Z), lb = norm(b, Z), whole = angle(a, b, Z);
    for (size_t j = 0; j < Z; j++) {
        b[j] *= (float)(la / lb);
    }
    memcpy(before, a, sizeof a);
    for (int step = 1; step < STEPS; step++) {
        vae_slerp(at, a, b, Z, (double)step / (STEPS - 1));
        assert_true(fabs(norm(at, Z) - la) < 1e-5);
        assert_true(fabs(angle(before, at, Z) - whole / (STEPS - 1)) < 1e-5);
        memcpy(before, at, sizeof at);
    }
    vae_slerp(at, a, b, Z, 0);
    assert_memory_equal(at, a, sizeof a);
    vae_slerp(at, a, b, Z, 1);
    assert_memory_equal(at, b, sizeof b);
    const float x[2] = {2, 0}, y[2] = {0, 1}; /* lengths that differ */
    vae_slerp(at, x, y, 2, 0.5);
    assert_true(fabs((double)at[0] - M_SQRT2) < 1e-6 && fabs((double)at[1] - M_SQRT1_2) < 1e-6);
}

static void slerp_without_an_arc_is_lerp(void **state)
{
    (void)state;
    static const float pairs[][2][3] = {
        {{1, 2, 3}, {2, 4, 6}},      {{1, 2, 3}, {-1, -2, -3}}, {{0, 0, 0}, {1, 2, 3}},
        {{1, 2, 3}, {0, 0, 0}},      {{0, 0, 0}, {0, 0, 0}},    {{1, 2, 3}, {1, 2, 3}},
        {{1e-30f, 0, 0}, {5, 0, 0}},
    };
    for (size_t i = 0; i < sizeof pairs / sizeof *pairs; i++) {
        float s[3], l[3];
        vae_slerp(s, pairs[i][0], pairs[i][1], 3, 0.25);
        vae_lerp(l, pairs[i][0], pairs[i][1], 3, 0.25);
        assert_memory_equal(s, l, sizeof s);
        for (size_t j = 0; j < 3; j++) {
            assert_true(l[j] == 0.75f * pairs[i][0][j] + 0.25f * pairs[i][1][j]);
        }
    }
}

static void quantiles_are_those_of_tables(void **state)
{
    (void)state;
    static const double known[][2] = {
        {0.5, 0},
        {0.975, 1.959963984540054},
        {0.025, -1.959963984540054},
        {0.841344746068543, 1},
        {1e-10, -6.361340902404056},
        {1.0 / 60, -2.128045234184984},
    };
    for (size_t i = 0; i < sizeof known / sizeof *known; i++) {
        assert_true(fabs(vae_normal_quantile(known[i][0]) - known[i][1]) < 1e-11);
    }
    for (double p = 0.001; p < 1; p += 0.007) {
        assert_true(fabs(0.5 * erfc(-vae_normal_quantile(p) / M_SQRT2) - p) < 1e-14);
    }
}

static void axes_are_even_or_of_even_mass(void **state)
{
    (void)state;
    double axis[30];
    vae_latent_axis(axis, 5, 2);
    for (size_t i = 0; i < 5; i++) {
        assert_true(axis[i] == (double)i - 2);
    }
    vae_latent_axis(axis, 1, 2);
    assert_true(axis[0] == 0);
    vae_latent_axis(axis, 30, 0);
    for (size_t i = 0; i < 30; i++) {
        assert_true(fabs(0.5 * erfc(-axis[i] / M_SQRT2) - ((double)i + 0.5) / 30) < 1e-14);
    }
}

static void prior_rows_do_not_depend_on_how_many(void **state)
{
    (void)state;
    enum { Z = 6, N = 20000 };
    static float all[N * Z];
    float part[3 * Z], eps[4];
    vae_prior_rows(all, 9, 0, N, Z, 1);
    vae_prior_rows(part, 9, 100, 3, Z, 1);
    assert_memory_equal(part, all + 100 * Z, sizeof part);
    vae_eps4(9, VAE_RNG_PRIOR, 101, 2, 1, 0, 0, eps);
    assert_true(all[101 * Z + 4] == eps[0] && all[101 * Z + 5] == eps[1]);
    vae_prior_rows(part, 9, 100, 3, Z, 0.5);
    assert_true(part[7] == 0.5f * all[100 * Z + 7]);
    double sum = 0, squares = 0;
    for (size_t i = 0; i < N * Z; i++) {
        sum += (double)all[i];
        squares += (double)all[i] * (double)all[i];
    }
    assert_true(fabs(sum / (N * Z)) < 0.015 && fabs(squares / (N * Z) - 1) < 0.02);
}

static void closest_rows_are_found(void **state)
{
    (void)state;
    enum { N = 50, D = 130 };
    static uint8_t bytes[N * D];
    static float values[N * D], x[3 * D];
    uint64_t rng = 2;
    for (size_t i = 0; i < N * D; i++) {
        values[i] = random_normal(&rng);
        bytes[i] = (uint8_t)(17 * i * i + i / 7);
    }
    memcpy(bytes + 31 * D, bytes + 30 * D, D); /* equals: the first one is meant */
    for (int type = 0; type < 3; type++) {
        const vae_dataset set = {.n = N,
                                 .d = D,
                                 .dtype = type == 0   ? VAE_U8
                                          : type == 1 ? VAE_BITS
                                                      : VAE_F32,
                                 .rows = type < 2 ? (void *)bytes : (void *)values};
        const size_t near[3] = {30, 0, N - 1};
        size_t row[3];
        double distance[3];
        for (size_t i = 0; i < 3; i++) {
            for (size_t j = 0; j < D; j++) {
                x[i * D + j] = vae_dataset_value(&set, near[i], j);
            }
            x[i * D + i] += 0.25f; /* a little away */
        }
        const vae_stop_flag go = 0, stop = 2;
        vae_error err = {0};
        assert_int_equal(vae_closest_rows(row, distance, x, 3, &set, &stop, &err),
                         VAE_ERR_INTERRUPTED);
        assert_int_equal(vae_closest_rows(row, distance, x, 3, &set, &go, &err), VAE_OK);
        for (size_t i = 0; i < 3; i++) {
            assert_int_equal(row[i], near[i]);
            assert_true(fabs(distance[i] - 0.25) < 1e-5);
        }
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(slerp_goes_along_the_arc),
        cmocka_unit_test(slerp_without_an_arc_is_lerp),
        cmocka_unit_test(quantiles_are_those_of_tables),
        cmocka_unit_test(axes_are_even_or_of_even_mass),
        cmocka_unit_test(prior_rows_do_not_depend_on_how_many),
        cmocka_unit_test(closest_rows_are_found),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
