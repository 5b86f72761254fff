/* Mixtures of Gaussians: known ones are found again, odd data do no harm. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "model_fixture.h"
#include "stats/mixture.h"

enum { N = 4000, K = 3 };

/* A known mixture in two dimensions. */
static const double weight[K] = {0.5, 0.3, 0.2};
static const double mean[K][2] = {{0, 0}, {4, 1}, {-3, 5}};
static const double lower[K][3] = {{1, 0.5, 0.8}, {0.4, 0, 0.4}, {1.5, -1, 0.3}}; /* Cholesky */

static void draw_known(float *rows, size_t n, uint64_t rng, bool diagonal)
{
    for (size_t i = 0; i < n; i++) {
        const double u = (double)(i % 10) / 10;
        const size_t k = u < weight[0] ? 0 : u < weight[0] + weight[1] ? 1 : 2;
        const double a = (double)random_normal(&rng), b = (double)random_normal(&rng);
        const double *l = lower[k];
        rows[2 * i] = (float)(mean[k][0] + l[0] * a);
        rows[2 * i + 1] = (float)(mean[k][1] + (diagonal ? 0 : l[1] * a) + l[2] * b);
    }
}

/* log density of the known mixture, by the textbook's formula with the inverse. */
static double known_density(const float *row, bool diagonal)
{
    double sum = 0;
    for (size_t k = 0; k < K; k++) {
        const double c = diagonal ? 0 : lower[k][1];
        const double xx = lower[k][0] * lower[k][0], xy = lower[k][0] * c,
                     yy = c * c + lower[k][2] * lower[k][2], det = xx * yy - xy * xy;
        const double dx = (double)row[0] - mean[k][0], dy = (double)row[1] - mean[k][1];
        const double square = (yy * dx * dx - 2 * xy * dx * dy + xx * dy * dy) / det;
        sum += weight[k] * exp(-0.5 * square) / (2 * M_PI * sqrt(det));
    }
    return log(sum);
}

static void fit_ok(vae_mixture *m, const float *rows, size_t n, size_t z, size_t components,
                   bool full, vae_mixture_report *report)
{
    const vae_mixture_options options = {
        .components = components, .full = full, .seed = 1, .tolerance = 1e-7};
    vae_error err = {0};
    if (vae_mixture_fit(m, rows, n, z, &options, report, &err) != VAE_OK) {
        fail_msg("%s", err.text);
    }
}

static double score_ok(const vae_mixture *m, const float *rows, size_t n)
{
    double score;
    assert_int_equal(vae_mixture_score(&score, m, rows, n, NULL), VAE_OK);
    return score;
}

/* The component whose mean is closest. */
static size_t component_at(const vae_mixture *m, const double *at)
{
    size_t best = 0;
    double least = INFINITY;
    for (size_t k = 0; k < m->k; k++) {
        const double away = hypot(m->mean[2 * k] - at[0], m->mean[2 * k + 1] - at[1]);
        best = away < least ? k : best;
        least = away < least ? away : least;
    }
    return best;
}

static void known_mixtures_are_found(void **state)
{
    (void)state;
    static float rows[2 * N], fresh[2 * N];
    for (int full = 0; full < 2; full++) {
        draw_known(rows, N, 5, full == 0);
        draw_known(fresh, N, 6, full == 0);
        vae_mixture m;
        vae_mixture_report report;
        fit_ok(&m, rows, N, 2, K, full, &report);
        assert_true(report.converged);
        assert_int_equal(m.k, K);
        for (size_t k = 0; k < K; k++) {
            const size_t c = component_at(&m, mean[k]);
            assert_true(fabs(m.weight[c] - weight[k]) < 0.03);
            assert_true(fabs(m.mean[2 * c] - mean[k][0]) < 0.15);
            assert_true(fabs(m.mean[2 * c + 1] - mean[k][1]) < 0.15);
            const double *f = m.factor + c * (full ? 4 : 2);
            assert_true(fabs(f[0] - lower[k][0]) < 0.08);
            if (full) {
                assert_true(fabs(f[2] - lower[k][1]) < 0.1);
                assert_true(f[1] == 0);
            }
            assert_true(fabs(f[full ? 3 : 1] - lower[k][2]) < 0.08);
        }
        double truth = 0;
        for (size_t i = 0; i < N; i++) {
            truth += known_density(fresh + 2 * i, full == 0) / N;
        }
        const double found = score_ok(&m, fresh, N);
        assert_true(found < truth + 1e-6 + 0.01 && found > truth - 0.02);
        assert_true(fabs(score_ok(&m, rows, N) - report.log_likelihood) < 1e-9);
        vae_mixture_clear(&m);
    }
}

/* With one component the maximum is the data's mean and covariance. */
static void one_component_is_the_moments(void **state)
{
    (void)state;
    static float rows[2 * N];
    draw_known(rows, N, 7, false);
    double m[2] = {0}, c[3] = {0};
    for (size_t i = 0; i < N; i++) {
        m[0] += (double)rows[2 * i] / N;
        m[1] += (double)rows[2 * i + 1] / N;
    }
    for (size_t i = 0; i < N; i++) {
        const double x = (double)rows[2 * i] - m[0], y = (double)rows[2 * i + 1] - m[1];
        c[0] += x * x / N;
        c[1] += x * y / N;
        c[2] += y * y / N;
    }
    vae_mixture fit;
    vae_mixture_report report;
    fit_ok(&fit, rows, N, 2, 1, true, &report);
    const double *l = fit.factor, floor = 1e-6 * (c[0] + c[2]) / 2;
    assert_true(fabs(fit.weight[0] - 1) < 1e-12);
    assert_true(fabs(fit.mean[0] - m[0]) < 1e-9 && fabs(fit.mean[1] - m[1]) < 1e-9);
    assert_true(fabs(l[0] * l[0] - c[0] - floor) < 1e-8);
    assert_true(fabs(l[0] * l[2] - c[1]) < 1e-8);
    assert_true(fabs(l[2] * l[2] + l[3] * l[3] - c[2] - floor) < 1e-8);
    /* -1/2 (log det(2 pi C) + 2), as the mean square distance is the dimension */
    const double det = c[0] * c[2] - c[1] * c[1];
    assert_true(fabs(report.log_likelihood + 0.5 * (log(4 * M_PI * M_PI * det) + 2)) < 1e-4);
    vae_mixture_clear(&fit);
}

/* As many as make other rows likeliest: of three known ones five are worth it, of one only one. */
static void number_is_chosen(void **state)
{
    (void)state;
    enum { HELD = 1000, FEW = 60, WIDE = 8 };
    static float rows[2 * N], held[2 * HELD], ball[FEW * WIDE];
    const vae_mixture_options options = {.full = true, .seed = 1};
    const size_t ladder[] = {1, 2, 5, 10};
    vae_mixture m;
    vae_mixture_report report;
    double score[4], chosen;
    draw_known(rows, N, 7, false);
    draw_known(held, HELD, 8, false);
    for (size_t i = 0; i < 4; i++) {
        vae_mixture_options o = options;
        o.components = ladder[i];
        assert_int_equal(vae_mixture_fit(&m, rows, N, 2, &o, &report, NULL), VAE_OK);
        assert_int_equal(vae_mixture_score(&score[i], &m, held, HELD, NULL), VAE_OK);
        vae_mixture_clear(&m);
    }
    size_t best = 0;
    while (best < 3 && score[best + 1] > score[best]) {
        best++;
    }
    assert_true(best >= 2 && score[best] > score[0] + 0.1);
    assert_int_equal(
        vae_mixture_choose(&m, rows, N, held, HELD, 2, &options, &report, &chosen, NULL), VAE_OK);
    assert_true(best == 3 ? m.k >= 10 : m.k == ladder[best]);
    assert_true(best == 3 ? chosen >= score[3] : chosen == score[best]);
    vae_mixture_clear(&m);
    uint64_t rng = 3;
    for (size_t i = 0; i < FEW * WIDE; i++) {
        ball[i] = random_normal(&rng);
    }
    assert_int_equal(vae_mixture_choose(&m, ball, FEW / 2, ball + FEW / 2 * WIDE, FEW / 2, WIDE,
                                        &options, &report, &chosen, NULL),
                     VAE_OK);
    assert_true(m.k == 1 && report.converged && isfinite(chosen));
    vae_mixture_clear(&m);
    assert_int_equal(
        vae_mixture_choose(&m, ball, FEW, NULL, 0, WIDE, &options, &report, &chosen, NULL), VAE_OK);
    assert_true(m.k == 1 && isnan(chosen));
    vae_mixture_clear(&m);
    ball[3] = NAN;
    vae_error err = {0};
    assert_int_equal(
        vae_mixture_choose(&m, ball, FEW, ball, 9, WIDE, &options, &report, &chosen, &err),
        VAE_ERR_DATA);
    vae_mixture_clear(&m);
}

typedef struct {
    size_t calls;
    double last;
} climb;

static void must_climb(void *ctx, size_t iteration, double log_likelihood)
{
    climb *c = ctx;
    assert_int_equal(iteration, ++c->calls);
    assert_true(iteration == 1 || log_likelihood > c->last - 1e-6);
    c->last = log_likelihood;
}

static void likelihood_climbs(void **state)
{
    (void)state;
    static float rows[2 * N];
    draw_known(rows, N, 8, false);
    climb c = {0};
    vae_mixture m;
    vae_mixture_report report;
    const vae_mixture_options options = {
        .components = 12, .full = true, .seed = 3, .progress = must_climb, .ctx = &c};
    assert_int_equal(vae_mixture_fit(&m, rows, N, 2, &options, &report, NULL), VAE_OK);
    assert_true(c.calls > 3 && c.calls == report.iterations && c.last == report.log_likelihood);
    vae_mixture_clear(&m);
}

static void threads_change_nothing(void **state)
{
    (void)state;
    static float rows[2 * N], z[2][2 * 100];
    draw_known(rows, N, 9, false);
    vae_mixture m[2];
    vae_mixture_report report[2];
    for (int i = 0; i < 2; i++) {
        setenv("OMP_NUM_THREADS", i == 0 ? "1" : "3", 1);
        fit_ok(&m[i], rows, N, 2, 7, true, &report[i]);
        assert_int_equal(vae_mixture_draw(z[i], &m[i], 4, 0, 100, 1, NULL), VAE_OK);
    }
    setenv("OMP_NUM_THREADS", "1", 1);
    assert_memory_equal(m[0].weight, m[1].weight, 7 * sizeof(double));
    assert_memory_equal(m[0].mean, m[1].mean, 14 * sizeof(double));
    assert_memory_equal(m[0].factor, m[1].factor, 28 * sizeof(double));
    assert_true(report[0].log_likelihood == report[1].log_likelihood);
    assert_memory_equal(z[0], z[1], sizeof z[0]);
    vae_mixture_clear(&m[0]);
    vae_mixture_clear(&m[1]);
}

/* Draws have the moments of what they are drawn from. */
static void draws_are_of_the_mixture(void **state)
{
    (void)state;
    enum { DRAWS = 40000 };
    static float rows[2 * N], z[2 * DRAWS], part[2 * 10];
    draw_known(rows, N, 10, false);
    vae_mixture m;
    vae_mixture_report report;
    fit_ok(&m, rows, N, 2, K, true, &report);
    assert_int_equal(vae_mixture_draw(z, &m, 11, 0, DRAWS, 1, NULL), VAE_OK);
    double of_rows[5] = {0}, of_draws[5] = {0};
    for (size_t set = 0; set < 2; set++) {
        const float *x = set == 0 ? rows : z;
        double *to = set == 0 ? of_rows : of_draws;
        const size_t n = set == 0 ? N : DRAWS;
        for (size_t i = 0; i < n; i++) {
            const double a = (double)x[2 * i], b = (double)x[2 * i + 1];
            const double terms[5] = {a, b, a * a, a * b, b * b};
            for (size_t j = 0; j < 5; j++) {
                to[j] += terms[j] / (double)n;
            }
        }
    }
    for (size_t j = 0; j < 5; j++) { /* EM keeps the first two moments of the data */
        assert_true(fabs(of_rows[j] - of_draws[j]) < (j < 2 ? 0.05 : 0.3));
    }
    assert_true(fabs(score_ok(&m, z, DRAWS) - report.log_likelihood) < 0.03);
    assert_int_equal(vae_mixture_draw(part, &m, 11, 777, 10, 1, NULL), VAE_OK);
    assert_memory_equal(part, z + 2 * 777, sizeof part);
    assert_int_equal(vae_mixture_draw(part, &m, 12, 777, 10, 1, NULL), VAE_OK);
    assert_memory_not_equal(part, z + 2 * 777, sizeof part);
    assert_int_equal(vae_mixture_draw(part, &m, 12, 0, 10, 0, NULL), VAE_OK);
    for (size_t i = 0; i < 10; i++) { /* without noise: the means themselves */
        const double at[2] = {(double)part[2 * i], (double)part[2 * i + 1]};
        const size_t k = component_at(&m, at);
        assert_true(part[2 * i] == (float)m.mean[2 * k]);
        assert_true(part[2 * i + 1] == (float)m.mean[2 * k + 1]);
    }
    vae_mixture_clear(&m);
}

static void check_sane(const vae_mixture *m, const vae_mixture_report *report, bool full)
{
    double sum = 0;
    assert_true(isfinite(report->log_likelihood));
    for (size_t k = 0; k < m->k; k++) {
        sum += m->weight[k];
        assert_true(m->weight[k] >= 0);
    }
    assert_true(fabs(sum - 1) < 1e-9);
    for (size_t i = 0; i < m->k * m->z; i++) {
        const double scale = full ? m->factor[i * m->z + i % m->z] : m->factor[i];
        assert_true(isfinite(m->mean[i]) && isfinite(scale) && scale > 0);
    }
}

/* One point; two points; a line; a dimension that is constant; huge and tiny numbers; fewer rows
 * than components. */
static void degenerate_data_do_no_harm(void **state)
{
    (void)state;
    enum { ROWS = 60, Z = 3 };
    float rows[ROWS * Z];
    for (int kind = 0; kind < 7; kind++) {
        size_t n = ROWS, expected = 10;
        uint64_t rng = 12;
        for (size_t i = 0; i < ROWS; i++) {
            const float t = random_normal(&rng), u = random_normal(&rng), v = random_normal(&rng);
            const float all[7][Z] = {
                {2, -1, 5}, {i % 2 == 0 ? 1.0f : -1.0f, 0, 0}, {t, 2 * t, -t},
                {t, 7, u},  {1e18f * t, 1e18f * u, 1e18f * v}, {1e-18f * t, 1e-18f * u, 1e-18f * v},
                {t, u, v}};
            memcpy(rows + i * Z, all[kind], sizeof all[kind]);
        }
        expected = kind == 0 ? 1 : kind == 1 ? 2 : 10;
        if (kind == 6) {
            n = expected = 4;
        }
        for (int full = 0; full < 2; full++) {
            vae_mixture m;
            vae_mixture_report report;
            float z[5 * Z];
            fit_ok(&m, rows, n, Z, 10, full, &report);
            assert_int_equal(m.k, expected);
            check_sane(&m, &report, full);
            assert_int_equal(vae_mixture_draw(z, &m, 1, 0, 5, 1, NULL), VAE_OK);
            for (size_t i = 0; i < 5 * Z; i++) {
                assert_true(isfinite(z[i]));
                assert_true(kind != 0 || fabsf(z[i] - rows[i % Z]) < 1e-4f);
                assert_true(kind != 3 || i % Z != 1 || fabsf(z[i] - 7) < 0.01f);
            }
            vae_mixture_clear(&m);
        }
    }
}

static void what_cannot_be_fitted_is_refused(void **state)
{
    (void)state;
    float rows[8] = {0, 1, 2, 3, 4, NAN, 6, 7};
    const vae_mixture_options options = {.components = 2, .full = true};
    vae_mixture m;
    vae_mixture_report report;
    vae_error err = {0};
    assert_int_equal(vae_mixture_fit(&m, rows, 4, 2, &options, &report, &err), VAE_ERR_DATA);
    assert_non_null(strstr(err.text, "row 2, dimension 1 is"));
    vae_mixture_clear(&m);
    assert_int_equal(vae_mixture_fit(&m, rows, 0, 2, &options, &report, NULL), VAE_ERR_DATA);
    vae_mixture_clear(&m);
    const vae_stop_flag stop = 15;
    const vae_mixture_options stopped = {.components = 2, .stop_signal = &stop};
    assert_int_equal(vae_mixture_fit(&m, rows, 2, 2, &stopped, &report, NULL), VAE_ERR_INTERRUPTED);
    vae_mixture_clear(&m);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(number_is_chosen),
        cmocka_unit_test(known_mixtures_are_found),
        cmocka_unit_test(one_component_is_the_moments),
        cmocka_unit_test(likelihood_climbs),
        cmocka_unit_test(threads_change_nothing),
        cmocka_unit_test(draws_are_of_the_mixture),
        cmocka_unit_test(degenerate_data_do_no_harm),
        cmocka_unit_test(what_cannot_be_fitted_is_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
