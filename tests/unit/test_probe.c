/* Classifiers, principal components, disentanglement scores: against brute force and known answers.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "philox.h"
#include "stats/disentangle.h"
#include "stats/pca.h"
#include "stats/probe.h"

static float normal(uint64_t *at)
{
    float eps[4];
    vae_eps4(77, VAE_RNG_EPS, (*at)++, 1, 0, 0, 0, eps);
    return eps[0];
}

static size_t below(uint64_t *at, size_t n)
{
    return vae_philox(5, (*at)++, 0).w[0] % n;
}

/* n rows around `classes` centres `apart` from each other. */
static vae_labelled clouds(size_t n, size_t d, size_t classes, float apart, uint64_t seed)
{
    float *x = malloc(n * d * sizeof *x);
    uint32_t *y = malloc(n * sizeof *y);
    uint64_t at = seed << 32;
    for (size_t i = 0; i < n; i++) {
        y[i] = (uint32_t)(i % classes);
        for (size_t j = 0; j < d; j++) {
            x[i * d + j] = normal(&at) + (j % classes == y[i] ? apart : 0);
        }
    }
    return (vae_labelled){x, y, n, d, classes, NULL};
}

static void drop(vae_labelled *l)
{
    free((void *)(uintptr_t)l->x);
    free((void *)(uintptr_t)l->y);
}

static void neighbours_by_brute_force(void **state)
{
    (void)state;
    enum { M = 300, D = 7, C = 4 };
    vae_labelled train = clouds(5000, D, C, 1, 1), test = clouds(M, D, C, 1, 2);
    uint32_t guess[M], again[M];
    for (size_t k = 1; k <= 9; k += 4) {
        assert_int_equal(vae_knn(guess, test.x, M, &train, k, 1, NULL), VAE_OK);
        assert_int_equal(vae_knn(again, test.x, M, &train, k, 3, NULL), VAE_OK);
        assert_memory_equal(guess, again, M);
        size_t differ = 0;
        for (size_t i = 0; i < M; i++) {
            double far[9];
            uint32_t label[9];
            size_t n = 0;
            for (size_t r = 0; r < train.n; r++) {
                double sum = 0;
                for (size_t j = 0; j < D; j++) {
                    double v = (double)test.x[i * D + j] - (double)train.x[r * D + j];
                    sum += v * v;
                }
                size_t p = n < k ? n++ : sum < far[k - 1] ? k - 1 : k;
                for (; p < k && p > 0 && far[p - 1] > sum; p--) {
                    far[p] = far[p - 1], label[p] = label[p - 1];
                }
                if (p < k) {
                    far[p] = sum, label[p] = train.y[r];
                }
            }
            size_t votes[C] = {0}, most = 0;
            for (size_t p = 0; p < k; p++) {
                most = ++votes[label[p]] > most ? votes[label[p]] : most;
            }
            size_t p = 0;
            while (votes[label[p]] != most) {
                p++;
            }
            differ += guess[i] != label[p];
        }
        assert_true(differ <= 1); /* two distances that floats do not tell apart */
    }
    drop(&train);
    drop(&test);
}

static void gradient_of_logistic_regression(void **state)
{
    (void)state;
    enum { N = 40, D = 3, C = 3, P = C * (D + 1) };
    vae_labelled train = clouds(N, D, C, 1, 3);
    float w[P], g[P], unused[P], scratch[N * (C + 1)];
    uint64_t at = 9;
    for (size_t i = 0; i < P; i++) {
        w[i] = 0.5f * normal(&at);
    }
    vae_logistic_objective(g, scratch, w, &train, 0.1, 1);
    for (size_t i = 0; i < P; i++) {
        const float was = w[i], h = 1e-2f;
        w[i] = was + h;
        double high = vae_logistic_objective(unused, scratch, w, &train, 0.1, 1);
        w[i] = was - h;
        double low = vae_logistic_objective(unused, scratch, w, &train, 0.1, 2);
        w[i] = was;
        assert_true(fabs((high - low) / (2 * (double)h) - (double)g[i]) < 2e-4);
    }
    drop(&train);
}

static void logistic_regression_finds_the_minimum(void **state)
{
    (void)state;
    enum { N = 600, D = 5, C = 3, P = C * (D + 1) };
    vae_labelled train = clouds(N, D, C, 2, 4), test = clouds(N, D, C, 2, 5);
    float w[P], g[P], *scratch = malloc(N * (C + 1) * sizeof *scratch);
    uint32_t guess[N];
    for (double l2 = 1e-4; l2 < 2; l2 *= 100) {
        assert_int_equal(vae_logistic_fit(w, &train, l2, 200, 2, NULL), VAE_OK);
        double least = vae_logistic_objective(g, scratch, w, &train, l2, 1), size = 0;
        for (size_t i = 0; i < P; i++) {
            size += (double)(g[i] * g[i]);
        }
        assert_true(sqrt(size) < 2e-3);
        uint64_t at = 1;
        for (int i = 0; i < 50; i++) { /* convex: nothing near is lower */
            float near[P];
            for (size_t j = 0; j < P; j++) {
                near[j] = w[j] + 0.1f * normal(&at);
            }
            assert_true(vae_logistic_objective(g, scratch, near, &train, l2, 1) > least);
        }
        vae_logistic_guess(guess, w, test.x, N, D, C, 1);
        assert_true(vae_error_rate(guess, test.y, N) < 0.12);
    }
    free(scratch);
    drop(&train);
    drop(&test);
}

/* More classes than a byte tells apart: each row is its own. */
static void many_classes(void **state)
{
    (void)state;
    enum { N = 400, P = N * 2 };
    static float x[N], w[P];
    static uint32_t y[N], guess[N];
    for (uint32_t i = 0; i < N; i++) {
        x[i] = (float)i;
        y[i] = i;
        /* the logit i x - i^2/2 is largest for the class nearest to x */
        w[i] = (float)i;
        w[N + i] = -(float)i * (float)i / 2;
    }
    const vae_labelled rows = {x, y, N, 1, N, NULL};
    assert_int_equal(vae_knn(guess, x, N, &rows, 1, 1, NULL), VAE_OK);
    assert_memory_equal(guess, y, sizeof y);
    memset(guess, 0, sizeof guess);
    vae_logistic_guess(guess, w, x, N, 1, N, 1);
    assert_memory_equal(guess, y, sizeof y);
}

static void few_labels(void **state)
{
    (void)state;
    vae_labelled train = clouds(2000, 8, 4, 3, 6), test = clouds(500, 8, 4, 3, 7);
    vae_probe_errors a, b, other, all;
    vae_error err = {0};
    assert_int_equal(vae_probe_few(&a, &train, &test, 40, 1, 1, &err), VAE_OK);
    assert_int_equal(vae_probe_few(&b, &train, &test, 40, 1, 3, &err), VAE_OK);
    assert_memory_equal(&a, &b, sizeof a);
    assert_int_equal(vae_probe_few(&other, &train, &test, 8, 2, 1, &err), VAE_OK);
    assert_int_equal(vae_probe_all(&all, &train, &test, 10, 2, &err), VAE_OK);
    assert_true(all.knn <= a.knn + 0.02 && all.logistic <= a.logistic + 0.02);
    assert_true(a.logistic < 0.2 && all.logistic < 0.05 && all.neighbours == 10);
    assert_true(other.logistic >= all.logistic);
    assert_int_equal(vae_probe_few(&a, &train, &test, 42, 1, 1, &err), VAE_ERR_USAGE);
    err = (vae_error){0};
    assert_int_equal(vae_probe_few(&a, &train, &test, 4, 1, 1, &err), VAE_ERR_USAGE);
    err = (vae_error){0};
    assert_int_equal(vae_probe_few(&a, &train, &test, 4000, 1, 1, &err), VAE_ERR_DATA);
    assert_non_null(strstr(err.text, "has 500 training rows"));
    drop(&train);
    drop(&test);
}

static void components_of_a_known_cloud(void **state)
{
    (void)state;
    enum { N = 4000, D = 6 };
    float *x = malloc(N * D * sizeof *x), *xy = malloc(2 * N * sizeof *xy);
    uint64_t at = 20;
    double share[2];
    for (size_t i = 0; i < N;
         i++) { /* deviations 5 along (3,4)/5 of 0 and 1, 3 along 2, else 0.5 */
        const float a = 5 * normal(&at), b = 0.5f * normal(&at);
        x[i * D] = 100 + 0.6f * a - 0.8f * b;
        x[i * D + 1] = 0.8f * a + 0.6f * b;
        x[i * D + 2] = 3 * normal(&at) - 7;
        for (size_t j = 3; j < D; j++) {
            x[i * D + j] = 0.5f * normal(&at);
        }
    }
    assert_int_equal(vae_pca_plane(xy, share, x, N, D, NULL), VAE_OK);
    assert_true(fabs(share[0] - 25 / 35.0) < 0.02 && fabs(share[1] - 9 / 35.0) < 0.02);
    for (size_t i = 0; i < N; i += 97) {
        const double a = 0.6 * ((double)x[i * D] - 100) + 0.8 * (double)x[i * D + 1];
        assert_true(fabs((double)xy[2 * i] - a) < 0.5);
        assert_true(fabs((double)xy[2 * i + 1] - ((double)x[i * D + 2] + 7)) < 0.5);
    }
    assert_int_equal(vae_pca_plane(xy, share, x, N / 2, 2, NULL), VAE_OK); /* two: as they are */
    assert_true(xy[0] == x[0] && xy[1] == x[1] && fabs(share[0] + share[1] - 1) < 1e-9);
    assert_int_equal(vae_pca_plane(xy, share, x, N, 1, NULL), VAE_OK);
    assert_true(xy[1] == 0 && share[1] == 0);
    free(x);
    free(xy);
}

/* ---- disentanglement ---- */

enum { ROWS = 4000, FACTORS = 3, LATENTS = 5 };

typedef struct {
    float factors[ROWS * FACTORS], mu[ROWS * LATENTS];
} code;

/* Factors of 3, 5 and continuous levels; latents all zero. */
static code *make_code(void)
{
    code *c = calloc(1, sizeof *c);
    uint64_t at = 100;
    for (size_t i = 0; i < ROWS; i++) {
        c->factors[i * FACTORS] = (float)below(&at, 3);
        c->factors[i * FACTORS + 1] = (float)below(&at, 5);
        c->factors[i * FACTORS + 2] = (float)below(&at, 1 << 20) / (1 << 20);
    }
    return c;
}

static vae_disentangle_scores score(const code *c)
{
    vae_disentangle_scores s;
    vae_error err = {0};
    const vae_disentangle_data data = {c->mu, c->factors, ROWS, LATENTS, FACTORS, 1, 2};
    if (vae_disentangle(&s, &data, &err) != VAE_OK) {
        fail_msg("%s", err.text);
    }
    return s;
}

static void a_perfect_code_scores_high(void **state)
{
    (void)state;
    code *c = make_code();
    for (size_t i = 0; i < ROWS; i++) {
        for (size_t f = 0; f < FACTORS; f++) {
            c->mu[i * LATENTS + f] = 2 * c->factors[i * FACTORS + f] - 1;
        }
    }
    vae_disentangle_scores s = score(c);
    assert_int_equal(s.active, FACTORS);
    assert_int_equal(s.factors, FACTORS);
    assert_true(s.mig > 0.9 && s.sap > 0.9 && s.factor_vae > 0.98 && s.beta_vae > 0.98);
    assert_true(s.dci_disentanglement > 0.9 && s.dci_completeness > 0.9);
    assert_true(s.dci_informativeness > 0.9);
    vae_disentangle_scores again = score(c);
    assert_memory_equal(&s, &again, sizeof s);
    free(c);
}

static void a_doubled_latent_has_no_gap(void **state)
{
    (void)state;
    code *c = make_code();
    for (size_t i = 0; i < ROWS; i++) {
        for (size_t j = 0; j < LATENTS; j++) {
            c->mu[i * LATENTS + j] = c->factors[i * FACTORS + j % 2]; /* factor 2 is nowhere */
        }
    }
    vae_disentangle_scores s = score(c);
    assert_true(s.mig < 0.02 && s.sap < 0.02);
    assert_true(s.dci_disentanglement > 0.9); /* each latent still is about one factor */
    assert_true(s.dci_completeness < 0.6);
    free(c);
}

static void a_rotated_code_scores_low(void **state)
{
    (void)state;
    code *c = make_code();
    for (size_t i = 0; i < ROWS; i++) {
        const float *f = c->factors + i * FACTORS;
        const float a = f[0] - 1, b = (f[1] - 2) / 1.7f, d = (f[2] - 0.5f) * 2.8f;
        c->mu[i * LATENTS] = a + b + d;
        c->mu[i * LATENTS + 1] = a - b + d;
        c->mu[i * LATENTS + 2] = a + b - d;
    }
    vae_disentangle_scores s = score(c);
    assert_true(s.mig < 0.2 && s.sap < 0.2 && s.dci_disentanglement < 0.4);
    assert_true(s.dci_informativeness > 0.7); /* it is all there, only mixed */
    free(c);
}

static void noise_and_silence_score_nothing(void **state)
{
    (void)state;
    code *c = make_code();
    uint64_t at = 1000;
    for (size_t i = 0; i < ROWS * LATENTS; i++) {
        c->mu[i] = normal(&at);
    }
    vae_disentangle_scores s = score(c);
    assert_true(s.mig < 0.03 && s.sap < 0.01 && s.factor_vae < 0.5 && s.beta_vae < 0.5);
    for (size_t i = 0; i < ROWS * LATENTS; i++) {
        c->mu[i] *= 0.01f; /* below the deviation that counts */
    }
    s = score(c);
    assert_true(s.active == 0 && s.mig == 0 && s.sap == 0 && s.factor_vae == 0);
    vae_error err = {0};
    vae_disentangle_data data = {c->mu, c->factors, 999, LATENTS, FACTORS, 1, 1};
    assert_int_equal(vae_disentangle(&s, &data, &err), VAE_ERR_DATA);
    for (size_t i = 0; i < ROWS; i++) {
        c->factors[i * FACTORS + 1] = c->factors[i * FACTORS + 2] = 7;
    }
    err = (vae_error){0};
    data.n = ROWS;
    assert_int_equal(vae_disentangle(&s, &data, &err), VAE_ERR_DATA);
    assert_non_null(strstr(err.text, "1 factor varies"));
    free(c);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(neighbours_by_brute_force),
        cmocka_unit_test(gradient_of_logistic_regression),
        cmocka_unit_test(logistic_regression_finds_the_minimum),
        cmocka_unit_test(many_classes),
        cmocka_unit_test(few_labels),
        cmocka_unit_test(components_of_a_known_cloud),
        cmocka_unit_test(a_perfect_code_scores_high),
        cmocka_unit_test(a_doubled_latent_has_no_gap),
        cmocka_unit_test(a_rotated_code_scores_low),
        cmocka_unit_test(noise_and_silence_score_nothing),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
