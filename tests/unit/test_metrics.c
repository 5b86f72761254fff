/* Rankings and quantiles: cases worked out by hand, and brute force over pairs and thresholds. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "device.h"
#include "stats/metrics.h"

enum { MOST = 200 };

static vae_ranking rank(const float *score, const bool *positive, size_t n)
{
    vae_ranking r;
    vae_error err = {0};
    if (vae_rank(&r, score, positive, n, &err) != VAE_OK) {
        fail_msg("%s", err.text);
    }
    return r;
}

static void expect(vae_ranking r, double auroc, double auprc, double precision)
{
    if (fabs(r.auroc - auroc) > 1e-12 || fabs(r.auprc - auprc) > 1e-12 ||
        fabs(r.precision_at_n - precision) > 1e-12) {
        fail_msg("auroc %.15g, auprc %.15g, precision %.15g; expected %.15g %.15g %.15g", r.auroc,
                 r.auprc, r.precision_at_n, auroc, auprc, precision);
    }
}

static void test_by_hand(void **state)
{
    (void)state;
    /* scikit-learn's own example: roc_auc_score 0.75, average_precision_score 0.8333 */
    expect(rank((float[]){0.1f, 0.4f, 0.35f, 0.8f}, (bool[]){false, false, true, true}, 4), 0.75,
           5.0 / 6, 0.5);
    /* order + - + + - -: of nine pairs, 3 + 2 + 2 are won; precisions 1, 2/3, 3/4 */
    expect(rank((float[]){9, 8, 7, 6, 5, 4}, (bool[]){true, false, true, true, false, false}, 6),
           7.0 / 9, (1 + 2.0 / 3 + 3.0 / 4) / 3, 2.0 / 3);
    /* one positive tied with one negative, in the middle of four */
    expect(rank((float[]){3, 2, 2, 1}, (bool[]){false, true, false, false}, 4), 1.5 / 3, 1.0 / 3,
           0);
    /* the tie is at the cut: half of the positive is inside */
    expect(rank((float[]){2, 2, 1}, (bool[]){true, false, false}, 3), 1.5 / 2, 0.5, 0.5);
}

static void test_extremes(void **state)
{
    (void)state;
    const bool two[] = {true, true, false, false, false};
    expect(rank((float[]){5, 4, 3, 2, 1}, two, 5), 1, 1, 1);
    expect(rank((float[]){1, 2, 3, 4, 5}, two, 5), 0, (1.0 / 4 + 2.0 / 5) / 2, 0);
    /* nothing told apart: chance, and the share of positives */
    expect(rank((float[]){7, 7, 7, 7, 7}, two, 5), 0.5, 0.4, 0.4);
    /* +Inf is the most abnormal; -0 and 0 are equal */
    expect(rank((float[]){INFINITY, -INFINITY, 1, 2, 3}, two, 5), 0.5, (1 + 2.0 / 5) / 2, 0.5);
    expect(rank((float[]){INFINITY, INFINITY, INFINITY, 2, 3}, two, 5), 5.0 / 6, 2.0 / 3, 2.0 / 3);
    expect(rank((float[]){-0.0f, 0.0f}, (bool[]){true, false}, 2), 0.5, 0.5, 0.5);
    expect(rank((float[]){1, 0}, (bool[]){true, false}, 2), 1, 1, 1);
}

/* Every pair, every threshold, every row's chance to be among the first. */
static void brute(const float *score, const bool *positive, size_t n, vae_ranking *r)
{
    double pairs = 0, P = 0;
    *r = (vae_ranking){.n = n};
    for (size_t i = 0; i < n; i++) {
        P += positive[i];
    }
    for (size_t i = 0; i < n; i++) {
        size_t above = 0, at = 0, positives_at = 0, positives_from = 0;
        for (size_t j = 0; j < n; j++) {
            above += score[j] > score[i];
            at += score[j] == score[i];
            positives_at += score[j] == score[i] && positive[j];
            positives_from += score[j] >= score[i] && positive[j];
            if (positive[i] && !positive[j]) {
                pairs++;
                r->auroc += score[i] > score[j] ? 1 : score[i] == score[j] ? 0.5 : 0;
            }
        }
        /* a threshold at this score is gone through once a row: shared by the rows that have it */
        r->auprc +=
            (double)positives_at / P * (double)positives_from / (double)(above + at) / (double)at;
        const double inside = (P - (double)above) / (double)at;
        r->precision_at_n += positive[i] ? fmin(fmax(inside, 0), 1) / P : 0;
    }
    r->auroc /= pairs;
}

static void test_brute_force(void **state)
{
    (void)state;
    uint64_t rng = 4;
    static float score[MOST];
    static bool positive[MOST];
    size_t checked = 0;
    for (size_t round = 0; round < 400; round++) {
        const size_t n = 2 + random_u64(&rng) % (MOST - 1);
        const uint64_t values = 1 + random_u64(&rng) % (round % 2 == 0 ? 6 : 100000);
        const uint64_t odds = 1 + random_u64(&rng) % 9;
        size_t positives = 0;
        for (size_t i = 0; i < n; i++) {
            score[i] = (float)(random_u64(&rng) % values) - 3;
            positive[i] = random_u64(&rng) % 10 < odds;
            positives += positive[i];
        }
        if (positives == 0 || positives == n) {
            continue;
        }
        vae_ranking want;
        brute(score, positive, n, &want);
        expect(rank(score, positive, n), want.auroc, want.auprc, want.precision_at_n);
        checked++;
    }
    assert_true(checked > 300);
}

static void test_refusals(void **state)
{
    (void)state;
    vae_ranking r;
    vae_error err = {0};
    const float score[] = {1, 2, NAN};
    assert_int_equal(vae_rank(&r, score, (bool[]){true, true}, 2, &err), VAE_ERR_DATA);
    assert_string_equal(err.text, "expected both normal and abnormal rows, found 2 abnormal of 2");
    err = (vae_error){0};
    assert_int_equal(vae_rank(&r, score, (bool[]){false, false}, 2, &err), VAE_ERR_DATA);
    assert_int_equal(vae_rank(&r, score, (bool[]){false}, 0, &err), VAE_ERR_DATA);
    err = (vae_error){0};
    assert_int_equal(vae_rank(&r, score, (bool[]){true, false, false}, 3, &err), VAE_ERR_DATA);
    assert_string_equal(err.text, "row 2: its score is NaN");
}

static void expect_quantile(const float *values, size_t n, double q, double want)
{
    float copy[8];
    for (size_t i = 0; i < n; i++) {
        copy[i] = values[i];
    }
    const double got = vae_quantile(copy, n, q);
    if (got != want && fabs(got - want) > 1e-12) {
        fail_msg("quantile %g: %.15g, expected %.15g", q, got, want);
    }
}

static void test_quantile(void **state)
{
    (void)state;
    const float four[] = {3, 1, 4, 2};
    expect_quantile(four, 4, 0, 1);
    expect_quantile(four, 4, 1, 4);
    expect_quantile(four, 4, 0.5, 2.5);
    expect_quantile(four, 4, 0.95, 3.85);
    expect_quantile(four, 4, 1.0 / 3, 2);
    expect_quantile((float[]){-7}, 1, 0.3, -7);
    expect_quantile((float[]){5, 5, 5}, 3, 0.7, 5);
    expect_quantile((float[]){1, INFINITY, 2}, 3, 0.5, 2);
    expect_quantile((float[]){1, INFINITY, 2}, 3, 0.6, INFINITY);
    expect_quantile((float[]){INFINITY, INFINITY}, 2, 0.6, INFINITY);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_by_hand),     cmocka_unit_test(test_extremes),
        cmocka_unit_test(test_brute_force), cmocka_unit_test(test_refusals),
        cmocka_unit_test(test_quantile),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
