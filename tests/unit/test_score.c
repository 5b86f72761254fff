/* Scores against the double reference's losses with the same noise, contributions against sums,
 * rows that overflow, and determinism. VAE_TEST_DEVICE chooses the backend. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "eval/eval.h"
#include "eval/score.h"
#include "eval/score_files.h"
#include "model_fixture.h"
#include "train/rows.h"

/* more rows and draws than one block has */
enum { N = 150, D = 7, L = 100, PART = 50 /* draws the reference takes at once */ };

enum { CASES = 5 };
static const vae_likelihood likelihoods[CASES] = {VAE_BERNOULLI, VAE_GAUSSIAN, VAE_GAUSSIAN_LEARNED,
                                                  VAE_GAUSSIAN, VAE_GAUSSIAN_LEARNED};
static const vae_mean means[CASES] = {[3] = VAE_MEAN_SIGMOID, [4] = VAE_MEAN_SIGMOID};

/* The fixture's model as an opened one; valid until the next. */
static vae_trained on;

static vae_score_job job_of(const model_fixture *f, size_t samples)
{
    on = (vae_trained){.be = f->be, .model = f->model, .config = f->config};
    on.config.threads = 2;
    return (vae_score_job){.on = &on, .data = f->data, .n = f->set.n, .samples = samples};
}

static void open_scored(model_fixture *f, vae_likelihood likelihood, vae_mean mean)
{
    vae_config config = small_config();
    size_t rows, particles;
    const vae_score_job job = {.samples = L};
    config.likelihood = likelihood;
    config.mean = mean;
    config.variance = likelihood == VAE_GAUSSIAN ? 0.5 : 1;
    vae_score_shape(&job, &rows, &particles);
    assert_true(rows < N && particles < L);
    config.particles = particles;
    fixture_open(f, &config, VAE_F32, N, D, rows, 2);
}

static vae_row_scores score(const vae_score_job *job)
{
    vae_row_scores s;
    vae_error err = {0};
    if (vae_score_rows(&s, job, &err) != VAE_OK) {
        fail_msg("%s", err.text);
    }
    return s;
}

static bool near(double got, double want, double scale)
{
    return fabs(got - want) <= 2e-5 * (scale + fabs(want));
}

/* The reference's results for all N rows and L draws of the passes' noise, or at z = mu, where
 * every draw is the same. */
typedef struct {
    double mu[N * 3], logvar[N * 3], recon[N][L], log_pq[N][L], x_hat[N][L][D];
} expected;

static void compute(expected *e, const model_fixture *f, bool at_mu)
{
    static double recon[N * PART], log_pq[N * PART], x_hat[N * PART * D];
    vae_config config = f->config;
    double *x = fixture_x(f, 0, N), *params = to_doubles(f->params, f->n_params);
    config.particles = PART;
    for (size_t first = 0; first < L; first += PART) {
        vae_plan plan = still_plan(VAE_EVAL_DRAW(1), 0, 1);
        plan.particle0 = (uint32_t)first;
        double *eps = fixture_eps(f, &plan, N, PART);
        if (at_mu) {
            memset(eps, 0, N * PART * config.latent * sizeof *eps);
        }
        const ref_batch batch = {
            .config = &config, .D = D, .B = N, .K = PART, .beta = 1, .x = x, .eps = eps};
        ref_result result = {
            .mu = e->mu, .logvar = e->logvar, .recon_row = recon, .log_pq = log_pq, .x_hat = x_hat};
        ref_forward(&result, &batch, params);
        for (size_t i = 0; i < N; i++) {
            memcpy(&e->recon[i][first], recon + i * PART, PART * sizeof *recon);
            memcpy(&e->log_pq[i][first], log_pq + i * PART, PART * sizeof *log_pq);
            memcpy(e->x_hat[i][first], x_hat + i * PART * D, PART * D * sizeof *x_hat);
        }
        free(eps);
    }
    free(x);
    free(params);
}

static double closed_kl(const expected *e, size_t row, size_t Z)
{
    double kl = 0;
    for (size_t j = row * Z; j < (row + 1) * Z; j++) {
        kl += 0.5 * (e->mu[j] * e->mu[j] + exp(e->logvar[j]) - 1 - e->logvar[j]);
    }
    return kl;
}

/* All four scores, written out in double. */
static void test_scores(void **state)
{
    (void)state;
    static expected e, mu;
    for (size_t c = 0; c < CASES; c++) {
        model_fixture f;
        open_scored(&f, likelihoods[c], means[c]);
        const vae_score_job job = job_of(&f, L);
        vae_row_scores s = score(&job);
        compute(&e, &f, false);
        compute(&mu, &f, true);
        for (size_t i = 0; i < N; i++) {
            double recon = 0, weights = 0;
            for (size_t k = 0; k < L; k++) {
                recon += e.recon[i][k] / L;
                weights += exp(e.log_pq[i][k] - e.recon[i][k]) / L;
            }
            assert_true(near((double)s.of[VAE_RECON_ERROR][i], mu.recon[i][0], 1));
            assert_true(near((double)s.of[VAE_RECON_PROB][i], recon, 1));
            assert_true(
                near((double)s.of[VAE_NEG_ELBO][i], recon + closed_kl(&e, i, f.config.latent), 1));
            assert_true(near((double)s.of[VAE_NLL][i], -log(weights), 1));
        }
        assert_int_equal(s.infinite, 0);
        assert_null(s.contributions);
        assert_null(s.top);
        vae_row_scores_clear(&s);
        fixture_close(&f);
    }
}

/* Each column's part: by the reference's means, and as a sum. */
static void test_contributions(void **state)
{
    (void)state;
    static expected e;
    for (size_t c = 0; c < 2 * CASES; c++) {
        model_fixture f;
        const bool at_mu = c >= CASES;
        const vae_likelihood likelihood = likelihoods[c % CASES];
        open_scored(&f, likelihood, means[c % CASES]);
        vae_score_job job = job_of(&f, L);
        job.contributions = true;
        job.at_mu = at_mu;
        vae_row_scores s = score(&job);
        compute(&e, &f, at_mu);
        const float *values = f.set.rows;
        for (size_t i = 0; i < N; i++) {
            double sum = 0;
            for (size_t d = 0; d < D; d++) {
                const double got = (double)s.contributions[i * D + d],
                             x = (double)values[i * D + d];
                double want = 0;
                sum += got;
                for (size_t k = 0; k < L; k++) {
                    const double m = e.x_hat[i][k][d];
                    want += likelihood == VAE_BERNOULLI ? -(x * log(m) + (1 - x) * log(1 - m)) / L
                                                        : ref_recon(likelihood, VAE_MEAN_LINEAR,
                                                                    f.config.variance, m, 0, x) /
                                                              L;
                }
                assert_true(likelihood == VAE_GAUSSIAN_LEARNED || near(got, want, 1));
            }
            assert_true(near(sum, (double)s.of[at_mu ? VAE_RECON_ERROR : VAE_RECON_PROB][i], 1));
        }
        vae_row_scores_clear(&s);
        fixture_close(&f);
    }
}

/* The columns of the three largest contributions, and one row computed again. */
static void test_top_and_row(void **state)
{
    (void)state;
    for (size_t c = 0; c < 2 * CASES; c++) {
        model_fixture f;
        open_scored(&f, likelihoods[c % CASES], means[c % CASES]);
        vae_score_job job = job_of(&f, L);
        vae_error err = {0};
        float x[D], x_hat[D], parts[D];
        job.contributions = true;
        job.at_mu = c >= CASES;
        job.top = 3;
        vae_row_scores s = score(&job);
        assert_int_equal(s.n_top, 3);
        for (size_t i = 0; i < N; i++) {
            const float *part = s.contributions + i * D;
            const uint32_t *top = s.top + i * 3;
            for (size_t k = 0; k < 3; k++) {
                size_t larger = 0;
                for (size_t d = 0; d < D; d++) {
                    larger += part[d] > part[top[k]];
                }
                assert_true(larger == k && s.top_value[i * 3 + k] == part[top[k]]);
            }
        }
        for (size_t i = 0; i < N; i += 49) {
            assert_int_equal(vae_score_row(x, x_hat, parts, &job, i, &err), VAE_OK);
            assert_memory_equal(x, (float *)f.set.rows + i * D, sizeof x);
            for (size_t d = 0; d < D; d++) {
                assert_true(near((double)parts[d], (double)s.contributions[i * D + d], 1));
                assert_true(isfinite(x_hat[d]));
            }
        }
        vae_row_scores_clear(&s);
        job.top = 20; /* more than there are columns */
        s = score(&job);
        assert_int_equal(s.n_top, D);
        vae_row_scores_clear(&s);
        fixture_close(&f);
    }
}

/* The same for any number of threads, and whether or not contributions are kept. */
static void test_same_bits(void **state)
{
    (void)state;
    model_fixture f;
    open_scored(&f, VAE_GAUSSIAN_LEARNED, VAE_MEAN_LINEAR);
    vae_score_job job = job_of(&f, L);
    job.contributions = true;
    vae_row_scores two = score(&job);
    on.config.threads = 1;
    vae_row_scores one = score(&job);
    for (int k = 0; k < VAE_SCORES; k++) {
        assert_memory_equal(one.of[k], two.of[k], N * sizeof(float));
    }
    assert_memory_equal(one.contributions, two.contributions, N * D * sizeof(float));
    job.contributions = false;
    vae_row_scores bare = score(&job);
    for (int k = 0; k < VAE_SCORES; k++) {
        assert_memory_equal(one.of[k], bare.of[k], N * sizeof(float));
    }
    vae_row_scores_clear(&one);
    vae_row_scores_clear(&two);
    vae_row_scores_clear(&bare);
    fixture_close(&f);
}

/* On a GPU a product of fewer rows may add in another order. */
static void assert_same(const float *got, const float *want, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        assert_true(device_is_cuda() ? near((double)got[i], (double)want[i], 1)
                                     : got[i] == want[i]);
    }
}

/* Where the model takes fewer rows at once, no more are asked of it; the scores are the same. */
static void test_few_at_once(void **state)
{
    (void)state;
    model_fixture f;
    open_scored(&f, VAE_BERNOULLI, VAE_MEAN_LINEAR);
    vae_score_job job = job_of(&f, L);
    job.contributions = true;
    vae_row_scores all = score(&job);
    on.batch = 2;
    size_t rows, particles;
    vae_score_shape(&job, &rows, &particles);
    assert_int_equal(rows, 2);
    vae_row_scores few = score(&job);
    for (int k = 0; k < VAE_SCORES; k++) {
        assert_same(few.of[k], all.of[k], N);
    }
    assert_same(few.contributions, all.contributions, N * D);
    vae_row_scores_clear(&few);
    vae_row_scores_clear(&all);
    fixture_close(&f);
}

/* Rows far out score +Inf, the others as without them; only if all do is it an error. */
static void test_overflow(void **state)
{
    (void)state;
    model_fixture f;
    vae_error err = {0};
    open_scored(&f, VAE_GAUSSIAN, VAE_MEAN_LINEAR);
    vae_score_job job = job_of(&f, L);
    vae_row_scores s = score(&job), far;
    float *rows = f.set.rows;
    job.contributions = true;
    job.top = 3;
    for (size_t d = 0; d < D; d++) {
        rows[5 * D + d] = 3e30f;
    }
    f.be->ops->data_close(f.be, f.data); /* a device has copied it */
    f.data = f.be->ops->data_open(f.be, &f.set, NULL, N);
    job.data = f.data;
    far = score(&job);
    assert_int_equal(far.infinite, 1);
    for (int k = 0; k < VAE_SCORES; k++) {
        assert_true(isinf(far.of[k][5]) && far.of[k][5] > 0);
        assert_memory_equal(far.of[k], s.of[k], 5 * sizeof(float));
        assert_memory_equal(far.of[k] + 6, s.of[k] + 6, (N - 6) * sizeof(float));
    }
    for (size_t i = 0; i < N * D; i++) {
        assert_true(far.contributions[i] == far.contributions[i]);
    }
    vae_row_scores_clear(&s);
    vae_row_scores_clear(&far);
    for (size_t i = 0; i < N * D; i++) {
        rows[i] = 3e30f;
    }
    f.be->ops->data_close(f.be, f.data);
    f.data = f.be->ops->data_open(f.be, &f.set, NULL, N);
    job.data = f.data;
    assert_int_equal(vae_score_rows(&s, &job, &err), VAE_ERR_DIVERGED);
    assert_non_null(strstr(err.text, "on every row"));
    vae_row_scores_clear(&s);
    fixture_close(&f);
}

/* Columns go by name where they have one, quoted as CSV wants it. */
static void test_column_names(void **state)
{
    (void)state;
    static const char *const names[] = {"age", "height, \"cm\"", "a;b"};
    static float values[] = {1, 2}, parts[] = {3, 0.5f, 2, 1.25f};
    uint32_t top[] = {1, 0, 2, 1};
    uint8_t flag[] = {1, 0};
    char path[] = "/tmp/vae-score-XXXXXX.csv", text[256] = "";
    vae_row_scores scores = {.n = 2, .d = 3, .top = top, .top_value = parts, .n_top = 2};
    const vae_dataset set = {.n = 2, .d = 3};
    vae_score_table table = {.scores = &scores, .set = &set, .flag = flag};
    vae_error err = {0};
    const int fd = mkstemps(path, 4);
    assert_true(fd >= 0);
    for (int k = 0; k < VAE_SCORES; k++) {
        scores.of[k] = values;
    }
    for (int named = 0; named < 2; named++) {
        table.column_names = named ? names : NULL;
        assert_int_equal(vae_scores_write(&table, path, &err), VAE_OK);
        FILE *file = fopen(path, "r");
        assert_non_null(file);
        text[fread(text, 1, sizeof text - 1, file)] = '\0';
        fclose(file);
        assert_string_equal(text, named ? "row,recon_error,recon_prob,neg_elbo,nll,flag,"
                                          "top_features\n"
                                          "0,1,1,1,1,1,\"height, \"\"cm\"\"=3;age=0.5\"\n"
                                          "1,2,2,2,2,0,\"a;b=2;height, \"\"cm\"\"=1.25\"\n"
                                        : "row,recon_error,recon_prob,neg_elbo,nll,flag,"
                                          "top_features\n"
                                          "0,1,1,1,1,1,1=3;0=0.5\n"
                                          "1,2,2,2,2,0,2=2;1=1.25\n");
    }
    close(fd);
    unlink(path);
}

/* The rows that training takes: none of the excluded class, none of validation. */
static void test_training_rows(void **state)
{
    (void)state;
    enum { ROWS = 200 };
    static uint32_t labels[ROWS];
    static uint8_t values[ROWS];
    vae_dataset set = {.n = ROWS, .d = 1, .dtype = VAE_U8, .rows = values, .labels = labels};
    assert_int_equal(vae_classes_number(&set.classes, 10, NULL), VAE_OK);
    vae_config config;
    vae_error err = {0};
    uint32_t *rows;
    size_t n, n_validation;
    vae_config_defaults(&config);
    for (size_t i = 0; i < ROWS; i++) {
        labels[i] = (uint32_t)(i % 10);
    }
    assert_int_equal(vae_training_rows(&rows, &n, &n_validation, &config, &set, &err), VAE_OK);
    assert_int_equal(n, ROWS);
    for (size_t i = 0; i < n; i++) {
        assert_int_equal(rows[i], i);
    }
    free(rows);
    assert_int_equal(vae_config_set(&config, "exclude-class", "3", NULL), VAE_OK);
    config.validation = 0.25;
    assert_int_equal(vae_training_rows(&rows, &n, &n_validation, &config, &set, &err), VAE_OK);
    assert_int_equal(n, 135);
    for (size_t i = 0; i < n; i++) {
        assert_true(labels[rows[i]] != 3 && (i == 0 || rows[i] > rows[i - 1]));
    }
    assert_int_equal(n_validation, 45); /* all others but those of class 3, each once */
    bool seen[ROWS] = {false};
    for (size_t i = 0; i < n + n_validation; i++) {
        assert_true(labels[rows[i]] != 3 && !seen[rows[i]]);
        seen[rows[i]] = true;
    }
    /* drawn from everywhere, of a table in order too, and by another seed other ones */
    uint32_t held[45];
    memcpy(held, rows + n, sizeof held);
    size_t early = 0;
    for (size_t i = 0; i < n_validation; i++) {
        early += held[i] < ROWS / 2;
        assert_true(i == 0 || held[i] > held[i - 1]);
    }
    assert_in_range(early, 10, 35);
    free(rows);
    config.seed++;
    assert_int_equal(vae_training_rows(&rows, &n, &n_validation, &config, &set, &err), VAE_OK);
    assert_memory_not_equal(rows + n, held, sizeof held);
    free(rows);
    set.labels = NULL;
    assert_int_equal(vae_training_rows(&rows, &n, &n_validation, &config, &set, &err),
                     VAE_ERR_USAGE);
    assert_null(rows);
    vae_classes_clear(&set.classes);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_scores),        cmocka_unit_test(test_contributions),
        cmocka_unit_test(test_top_and_row),   cmocka_unit_test(test_same_bits),
        cmocka_unit_test(test_few_at_once),   cmocka_unit_test(test_overflow),
        cmocka_unit_test(test_training_rows), cmocka_unit_test(test_column_names),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
