/* Training runs of a tiny model: schedules, stop rules, the run folder. */
#include <errno.h>
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cmocka.h>
#include <jansson.h>

#include "base/machine.h"
#include "run/folder.h"
#include "train/rows.h"
#include "train/schedule.h"
#include "train/step_timer.h"
#include "trainer_fixture.h"

/* ---- schedules ---- */

static void assert_close(double got, double want)
{
    if (!(fabs(got - want) <= 1e-12 * (1 + fabs(want)))) {
        fail_msg("%.17g, expected %.17g", got, want);
    }
}

static void test_learning_rates(void **state)
{
    (void)state;
    vae_config c;
    run_small_config(&c, "x");
    assert_close(vae_learning_rate(&c, 1000, 77, 13), 1e-3);
    run_set_option(&c, "lr-schedule", "cosine"); /* 4 epochs of 13 steps */
    assert_close(vae_learning_rate(&c, 1, 0, 13), 1e-3);
    assert_close(vae_learning_rate(&c, 27, 2, 13), 0.5e-3);
    assert_close(vae_learning_rate(&c, 53, 4, 13), 0);
    run_set_option(&c, "lr-schedule", "step");
    run_set_option(&c, "lr-step-epochs", "3");
    run_set_option(&c, "lr-gamma", "0.5");
    assert_close(vae_learning_rate(&c, 1, 2, 13), 1e-3);
    assert_close(vae_learning_rate(&c, 1, 3, 13), 0.5e-3);
    assert_close(vae_learning_rate(&c, 1, 6, 13), 0.25e-3);
    run_set_option(&c, "lr-milestones", "3,7"); /* epochs whose ends lower it */
    static const double at[] = {1, 1, 1, 0.5, 0.5, 0.5, 0.5, 0.25, 0.25};
    for (size_t i = 0; i < sizeof at / sizeof at[0]; i++) {
        assert_close(vae_learning_rate(&c, 1, i, 13), at[i] * 1e-3);
    }
    /* Burda et al. (2015): stages i = 0..7 of 3^i epochs, 3280 in all */
    run_set_option(&c, "lr-schedule", "staged");
    run_set_option(&c, "stages", "8");
    static const uint64_t begin[] = {0, 1, 4, 13, 40, 121, 364, 1093};
    for (size_t i = 0; i < 8; i++) {
        assert_close(vae_learning_rate(&c, 1, begin[i], 13), 1e-3 * pow(10, -(double)i / 7));
        if (i > 0) {
            assert_close(vae_learning_rate(&c, 1, begin[i] - 1, 13),
                         1e-3 * pow(10, -(double)(i - 1) / 7));
        }
    }
    assert_close(vae_learning_rate(&c, 1, 3280, 13), 1e-4);
    assert_close(vae_learning_rate(&c, 1, 1000000, 13), 1e-4);
}

static void test_plans(void **state)
{
    (void)state;
    vae_config c;
    vae_plan p, q;
    run_small_config(&c, "x");
    run_set_option(&c, "beta", "4");
    run_set_option(&c, "kl-warmup", "1.5"); /* 15 steps of 10 to an epoch */
    vae_train_plan(&p, &c, 1, 0, 32, 10);
    assert_true(p.draw == 1 && p.step == 1 && p.first == 32 && p.shuffle == 1 && p.particle0 == 0);
    assert_true(p.beta == (float)(4.0 / 15));
    /* the first step of Adam: both corrections undo the moments' start at zero */
    assert_true(p.step_size == (float)(1e-3 / (1 - 0.9)));
    assert_true(p.rsqrt_c2 == (float)(1 / sqrt(1 - 0.999)));
    vae_train_plan(&q, &c, 9, 0, 0, 10);
    assert_true(q.order_key == p.order_key);
    vae_train_plan(&q, &c, 15, 1, 0, 10);
    assert_true(q.beta == 4 && q.order_key != p.order_key);
    vae_train_plan(&q, &c, 1000000, 1, 0, 10);
    assert_true(q.beta == 4 && q.step_size == 1e-3f && q.rsqrt_c2 == 1);
    run_set_option(&c, "adam-beta1", "0");
    vae_train_plan(&q, &c, 1, 0, 0, 10);
    assert_true(q.step_size == 1e-3f);
    assert_true((VAE_EVAL_DRAW(7) >> 39) == 1 && VAE_EVAL_DRAW(7) < (uint64_t)1 << 40);
}

/* ---- rows ---- */

static void test_rows(void **state)
{
    (void)state;
    vae_dataset set;
    vae_config c;
    vae_error err = {0};
    run_make_set(&set, ROWS, HEIGHT, WIDTH, 1);
    run_small_config(&c, "x");
    run_set_option(&c, "validation", "0.25");
    run_set_option(&c, "exclude-class", "3");
    vae_loop l = {.config = &c, .train_set = &set};
    assert_int_equal(vae_loop_choose_rows(&l, &err), VAE_OK);
    assert_int_equal(l.n_train, 135); /* 180 rows are not 3s */
    assert_int_equal(l.n_validation, 45);
    size_t seen[ROWS] = {0};
    for (size_t i = 0; i < 180; i++) {
        assert_true(l.rows[i] < ROWS && set.labels[l.rows[i]] != 3);
        seen[l.rows[i]]++;
        assert_true(i == 0 || i == l.n_train || l.rows[i] > l.rows[i - 1]);
    }
    for (size_t i = 0; i < ROWS; i++) {
        assert_int_equal(seen[i], set.labels[i] != 3);
    }
    float mean[D];
    double sum = 0;
    assert_int_equal(vae_loop_data_mean(&l, mean, &err), VAE_OK);
    for (size_t i = 0; i < l.n_train; i++) {
        sum += (double)vae_dataset_value(&set, l.rows[i], 5);
    }
    assert_true(fabs((double)mean[5] - sum / 135) < 1e-6);
    free(l.rows);
    run_set_option(&c, "exclude-class", "12");
    assert_int_equal(vae_loop_choose_rows(&l, &err), VAE_ERR_USAGE);
    assert_non_null(strstr(err.text, "no row of"));
    free(l.rows);
    run_free_set(&set);
}

/* ---- measuring ---- */

/* A pass over several batches is the mean of single batches of another size with the same draw. */
static void test_measure(void **state)
{
    (void)state;
    enum { N = 2500, PART = 700 };
    vae_dataset set;
    vae_config c;
    vae_error err = {0};
    run_make_set(&set, N, HEIGHT, WIDTH, 1);
    run_small_config(&c, "x");
    vae_loop l;
    assert_int_equal(vae_loop_open(&l, &c, &set, NULL, NULL, NULL, NULL, NULL, &err), VAE_OK);
    assert_int_equal(l.measure_batch, 1024);
    assert_int_equal(vae_loop_begin(&l, NULL, &err), VAE_OK);
    vae_measurement m, again, other;
    const uint64_t draw = VAE_EVAL_DRAW(3);
    assert_int_equal(vae_measure(&m, l.model, &c, l.train, N, 1024, draw, NULL, &err), VAE_OK);
    assert_int_equal(vae_measure(&again, l.model, &c, l.train, N, 1024, draw, NULL, &err), VAE_OK);
    assert_int_equal(vae_measure(&other, l.model, &c, l.train, N, 1024, draw + 1, NULL, &err),
                     VAE_OK);
    assert_memory_equal(&m, &again, sizeof m);
    assert_true(m.recon != other.recon && m.kl != other.kl); /* x is drawn, too */
    double recon = 0, kl = 0;
    for (size_t at = 0; at < N; at += PART) {
        float recon_row[PART], kl_row[PART];
        const size_t rows = N - at < PART ? N - at : PART;
        const vae_plan plan = {.draw = draw, .first = at, .beta = 1, .step = 1};
        vae_batch_out out = {.recon = recon_row, .kl = kl_row};
        assert_int_equal(vae_model_batch(l.model, l.train, &plan, rows, 1, &out, &err), VAE_OK);
        for (size_t i = 0; i < rows; i++) {
            recon += (double)recon_row[i];
            kl += (double)kl_row[i];
        }
    }
    assert_true(fabs(recon / N - m.recon) < 1e-6 && fabs(kl / N - m.kl) < 1e-6);
    assert_true(m.n == N && m.bound == m.recon + m.kl && m.elbo == -m.bound);
    vae_stop_flag stop = 15;
    assert_int_equal(vae_measure(&m, l.model, &c, l.train, N, 1024, draw, &stop, &err),
                     VAE_ERR_INTERRUPTED);
    vae_loop_close(&l);
    run_free_set(&set);
}

/* A batch of more rows than there are takes the memory of those there are. */
static void test_batch_of_all(void **state)
{
    (void)state;
    enum { N = 1100 };
    vae_dataset set;
    vae_config c;
    vae_error err = {0};
    run_make_set(&set, N, HEIGHT, WIDTH, 1);
    run_small_config(&c, "x");
    run_set_option(&c, "batch-size", "16777216");
    run_set_option(&c, "epochs", "1");
    vae_loop l;
    assert_int_equal(vae_loop_open(&l, &c, &set, NULL, NULL, NULL, NULL, NULL, &err), VAE_OK);
    assert_int_equal(l.measure_batch, l.n_train);
    assert_int_equal(vae_loop_begin(&l, NULL, &err), VAE_OK);
    vae_loop_event event;
    do {
        assert_int_equal(vae_loop_next(&l, &event, &err), VAE_OK);
    } while (event != VAE_LOOP_DONE);
    assert_int_equal(l.now->state.step, 1);
    vae_loop_close(&l);
    run_free_set(&set);
}

/* ---- steps against the clock ---- */

static void test_step_timer(void **state)
{
    (void)state;
    vae_dataset set;
    vae_config c;
    vae_step_timer *t;
    vae_error err = {0};
    double seconds = -1;
    size_t n = 0;
    run_make_set(&set, ROWS, HEIGHT, WIDTH, 1);
    run_small_config(&c, "");
    run_set_option(&c, "semi-supervised", "true"); /* whose plans say more */
    run_set_option(&c, "labelled", "30");
    assert_int_equal(vae_step_timer_open(&t, &c, &set, NULL, &err), VAE_OK);
    assert_int_equal(vae_step_timer_run(t, 70, &seconds, &err), VAE_OK); /* more than go at once */
    assert_true(vae_step_timer_steps(t) == 70 && seconds > 0);
    assert_int_equal(vae_step_timer_warm(t, 90, 1e9, &err), VAE_OK);
    assert_int_equal(vae_step_timer_steps(t), 90);
    assert_int_equal(vae_step_timer_warm(t, 1000000, 0, &err), VAE_OK); /* no time left */
    assert_int_equal(vae_step_timer_steps(t), 90);
    assert_int_equal(vae_step_timer_calibrate(t, 1e-3, &n, &err), VAE_OK);
    assert_true(n >= 1 && vae_step_timer_steps(t) >= 90 + 2 + 1);
    vae_step_timer_close(t);
    run_set_option(&c, "batch-size", "171"); /* of 170 */
    assert_int_equal(vae_step_timer_open(&t, &c, &set, NULL, &err), VAE_ERR_USAGE);
    assert_non_null(strstr(err.text, "a batch of 171, but made up has 170 rows to train on"));
    assert_null(t);
    run_free_set(&set);
}

static void test_flops_and_medians(void **state)
{
    (void)state;
    vae_config c;
    param_layout layout;
    double min, max;
    vae_config_defaults(&c);
    run_set_option(&c, "hidden", "400");
    run_set_option(&c, "latent", "20");
    const row_shape mnist = {28, 28, 1};
    assert_int_equal(vae_layout_build(&layout, &c, mnist, NULL), VAE_OK);
    /* 784 x 400 and 400 x 40, then 20 x 400 and 400 x 784: each product thrice but the first twice */
    const double encoder = 784 * 400 + 400 * 40, decoder = 20 * 400 + 400 * 784;
    assert_true(vae_step_flops(&layout, 1, 1) == 2 * (3 * (encoder + decoder) - 784 * 400));
    assert_true(vae_step_flops(&layout, 128, 5) ==
                2 * 128 * (3 * (encoder + 5 * decoder) - 784 * 400));
    vae_layout_clear(&layout);
    vae_series odd = {.v = {3, 1, 2}, .n = 3}, even = {.v = {4, 1, 3, 2}, .n = 4};
    assert_true(vae_series_median(&odd, &min, &max) == 2 && min == 1 && max == 3);
    assert_true(vae_series_median(&even, &min, &max) == 2.5 && min == 1 && max == 4);
}

/* ---- runs ---- */

static void test_threads(void **state)
{
    scratch *s = *state;
    vae_dataset set;
    vae_config c;
    vae_train_result result;
    run_make_set(&set, 300, 28, 28, 1);
    static const char *const threads[] = {"1", "2", "3", "7"};
    char names[4][32];
    for (size_t i = 0; i < 4; i++) {
        snprintf(names[i], sizeof names[i], "threads-%s", threads[i]);
        run_small_config(&c, run_folder_in(s, names[i]));
        run_set_option(&c, "hidden", "64,33");
        run_set_option(&c, "batch-size", "128");
        run_set_option(&c, "epochs", "2");
        run_set_option(&c, "threads", threads[i]);
        run_ok(&c, &set, NULL, false, &result);
        if (i > 0) {
            assert_same_end(run_folder_in(s, names[0]), run_folder_in(s, names[i]));
            assert_same_metrics(run_folder_in(s, names[0]), run_folder_in(s, names[i]));
        }
    }
    run_free_set(&set);
}

/* Each mode trains an epoch, and gets better at it. */
static void test_modes(void **state)
{
    static const char *const modes[][6] = {
        {"binarize", "none", "objective", "elbo", "lr-schedule", "constant"},
        {"binarize", "threshold", "objective", "iwae", "particles", "3"},
        {"binarize", "static", "objective", "dreg", "particles", "3"},
        {"binarize", "dynamic", "objective", "stl", "optimizer", "adamw"},
        {"binarize", "none", "likelihood", "gaussian", "variance", "0.1"},
        {"binarize", "none", "likelihood", "gaussian-learned", "clip-norm", "5"},
        {"free-bits", "0.1", "lr-schedule", "staged", "activation", "gelu"},
        {"output-bias-from-data", "true", "lr-schedule", "step", "init", "he"},
        {"batch-size", "1000", "decoder-hidden", "5,9", "activation", "tanh"},
    };
    scratch *s = *state;
    vae_dataset set;
    run_make_set(&set, ROWS, HEIGHT, WIDTH, 1);
    for (size_t i = 0; i < sizeof modes / sizeof modes[0]; i++) {
        vae_config c;
        vae_train_result first, result;
        char name[32];
        snprintf(name, sizeof name, "mode-%zu", i);
        run_small_config(&c, run_folder_in(s, name));
        for (size_t j = 0; j < 6; j += 2) {
            run_set_option(&c, modes[i][j], modes[i][j + 1]);
        }
        run_set_option(&c, "lr", "0.003");
        run_set_option(&c, "epochs", "1");
        run_ok(&c, &set, NULL, false, &first);
        run_set_option(&c, "epochs", "12");
        run_ok(&c, &set, NULL, true, &result);
        if (!(result.last.train.bound < first.last.train.bound)) {
            fail_msg("mode %zu: from %g to %g", i, first.last.train.bound, result.last.train.bound);
        }
    }
    run_free_set(&set);
}

static void test_output_bias(void **state)
{
    scratch *s = *state;
    vae_dataset set;
    vae_config c;
    vae_train_result result;
    run_make_set(&set, ROWS, HEIGHT, WIDTH, 1);
    run_small_config(&c, run_folder_in(s, "bias"));
    run_set_option(&c, "output-bias-from-data", "true");
    run_set_option(&c, "lr", "1e-30"); /* nothing moves */
    run_set_option(&c, "epochs", "1");
    run_ok(&c, &set, NULL, false, &result);
    vae_checkpoint *k = run_checkpoint(c.out);
    assert_non_null(k->data_mean);
    for (size_t j = 0; j < D; j++) {
        double p = (double)k->data_mean[j], bias = (double)k->params[k->n_params - D + j];
        assert_true(fabs(bias - log(p / (1 - p))) < 1e-5);
    }
    vae_checkpoint_free(k);
    run_free_set(&set);
}

/* ---- stop rules ---- */

static void test_diverged(void **state)
{
    scratch *s = *state;
    vae_dataset set;
    vae_config c;
    vae_train_result result;
    vae_error err = {0};
    session one = {0};
    char path[600], *text;
    run_make_set(&set, ROWS, HEIGHT, WIDTH, 1);
    run_small_config(&c, run_folder_in(s, "diverged"));
    run_set_option(&c, "lr", "1e30");
    assert_int_equal(run_train(&c, &set, NULL, false, &one, &result, &err), VAE_ERR_DIVERGED);
    assert_non_null(strstr(err.text, "in step 2 of epoch 1"));
    assert_non_null(strstr(err.text, "lower --lr"));
    assert_non_null(strstr(err.text, "step-0000000000.vae"));
    vae_checkpoint *k = run_checkpoint(c.out);
    assert_int_equal(k->state.step, 0);
    for (size_t i = 0; i < k->n_params; i++) {
        assert_true(isfinite(k->params[i]));
    }
    snprintf(path, sizeof path, "%s/run.json", c.out);
    assert_int_equal(vae_file_read(&text, path, 1 << 16, NULL), VAE_OK);
    assert_non_null(strstr(text, "\"status\": \"failed\""));
    free(text);
    vae_checkpoint_free(k);
    run_free_set(&set);
}

static void test_early_stopping(void **state)
{
    scratch *s = *state;
    vae_dataset set;
    vae_config c;
    vae_train_result result;
    char path[600];
    run_make_set(&set, ROWS, HEIGHT, WIDTH, 1);
    run_small_config(&c, run_folder_in(s, "early"));
    run_set_option(&c, "lr", "1e-30"); /* never better than after the first epoch */
    run_set_option(&c, "validation", "0.2");
    run_set_option(&c, "patience", "2");
    run_set_option(&c, "epochs", "50");
    session one = {0};
    vae_error err = {0};
    char told[200];
    assert_int_equal(run_train(&c, &set, NULL, false, &one, &result, &err), VAE_OK);
    assert_true(result.state.finished && result.state.epoch == 3 && result.state.best_epoch == 1 &&
                result.state.bad_epochs == 2);
    assert_true(result.state.best == result.last.validation.bound);
    snprintf(told, sizeof told,
             "stopped early: no better validation elbo in 2 epochs; the best, %.3f, was after "
             "epoch 1",
             result.last.validation.elbo);
    assert_non_null(strstr(one.notes, told));
    snprintf(path, sizeof path, "%s/checkpoints/best.vae", c.out);
    vae_checkpoint *best;
    assert_int_equal(vae_checkpoint_read(&best, path, true, NULL), VAE_OK);
    assert_int_equal(best->state.epoch, 1);
    vae_checkpoint_free(best);
    run_ok(&c, &set, NULL, true, &result);
    assert_true(result.had_finished);
    run_free_set(&set);
}

static void test_warmup_note(void **state)
{
    scratch *s = *state;
    vae_dataset set;
    vae_config c;
    vae_train_result result;
    vae_error err = {0};
    session one = {0};
    run_make_set(&set, ROWS, HEIGHT, WIDTH, 1);
    run_small_config(&c, run_folder_in(s, "warm"));
    run_set_option(&c, "epochs", "1");
    run_set_option(&c, "kl-warmup", "10");
    assert_int_equal(run_train(&c, &set, NULL, false, &one, &result, &err), VAE_OK);
    assert_non_null(strstr(one.notes, "ends with beta = 0.1"));
    assert_true(result.last.beta == 0.1);
    run_free_set(&set);
}

static void hear(void *ctx, const char *line)
{
    snprintf(ctx, 300, "%s", line);
}

static void test_stages_note(void **state)
{
    (void)state;
    static const struct {
        const char *epochs, *note;
    } cases[] = {
        {"1", "note: 3 stages last 13 epochs; --epochs 1 ends in stage 1 of them"},
        {"4", "note: 3 stages last 13 epochs; --epochs 4 ends in stage 2 of them"},
        {"5", "note: 3 stages last 13 epochs; --epochs 5 ends in stage 3 of them"},
        {"13", ""}, /* as they should be */
        {"14", "note: 3 stages last 13 epochs; --epochs 14 ends in stage 3 of them, which goes on "
               "for longer"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        vae_config c;
        char told[300] = "";
        run_small_config(&c, "x");
        run_set_option(&c, "lr-schedule", "staged");
        run_set_option(&c, "stages", "3");
        run_set_option(&c, "epochs", cases[i].epochs);
        vae_schedule_notes(&c, &(vae_notes){hear, told});
        assert_string_equal(told, cases[i].note);
    }
}

/* ---- what is recorded ---- */

static json_t *read_object(const char *folder, const char *name)
{
    char path[600];
    snprintf(path, sizeof path, "%s/%s", folder, name);
    json_t *object = json_load_file(path, 0, NULL);
    assert_non_null(object);
    return object;
}

static const char *text_at(json_t *object, const char *name)
{
    const char *text = json_string_value(json_object_get(object, name));
    assert_non_null(text);
    return text;
}

/* run.json, metrics.jsonl and log.txt say what the result does. */
static void test_records(void **state)
{
    scratch *s = *state;
    vae_dataset set, test;
    vae_config c;
    vae_train_result r;
    char path[600], want[300], cpu[200], here[VAE_PATH], *log;
    run_make_set(&set, ROWS, HEIGHT, WIDTH, 0xA5);
    run_make_set(&test, 50, HEIGHT, WIDTH, 2);
    run_small_config(&c, run_folder_in(s, "records"));
    run_set_option(&c, "objective", "iwae");
    run_set_option(&c, "particles", "2");
    run_set_option(&c, "epochs", "2");
    run_ok(&c, &set, &test, false, &r);
    /* a bound of as many nats as the loss: not of a batch, nor of an epoch */
    assert_true(fabs(r.last.train.bound / (r.last.train.recon + r.last.train.kl) - 1) < 0.3);
    assert_true(fabs(r.last.test.bound / (r.last.test.recon + r.last.test.kl) - 1) < 0.3);

    json_t *run = read_object(c.out, "run.json");
    json_t *data = json_object_get(run, "data"), *host = json_object_get(run, "host");
    json_t *last = json_object_get(run, "last");
    vae_cpu_name(cpu, sizeof cpu);
    memset(want, 0, sizeof want);
    for (size_t i = 0; i < 32; i++) {
        memcpy(want + 2 * i, "a5", 2);
    }
    assert_string_equal(text_at(data, "sha256"), want);
    assert_string_equal(text_at(host, "cpu"), cpu);
    assert_string_equal(text_at(run, "folder"), getcwd(here, sizeof here));
    assert_string_equal(text_at(run, "status"), "done");
    assert_int_equal(json_integer_value(json_object_get(run, "step")), r.last.step);
    const double elbo = json_real_value(json_object_get(json_object_get(last, "test"), "elbo"));
    assert_true(fabs(elbo - r.last.test.elbo) < 1e-6);
    const double bound = json_real_value(json_object_get(json_object_get(last, "test"), "bound"));
    assert_true(fabs(bound - r.last.test.bound) < 1e-6);
    json_decref(run);

    snprintf(path, sizeof path, "%s/log.txt", c.out);
    assert_int_equal(vae_file_read(&log, path, 1 << 16, NULL), VAE_OK);
    snprintf(want, sizeof want,
             " epoch 2: train bound %.3f, elbo %.3f (recon %.3f, kl %.3f), test bound %.3f\n",
             -r.last.train.bound, r.last.train.elbo, r.last.train.recon, r.last.train.kl,
             -r.last.test.bound);
    assert_non_null(strstr(log, want));
    free(log);
    char *lines = run_metrics_of(c.out);
    snprintf(want, sizeof want,
             "\"epoch\":2,\"step\":%llu,\"split\":\"train\",\"elbo\":%.9g,\"recon\":%.9g,"
             "\"kl\":%.9g,\"bound\":%.9g,\"n\":200,",
             (unsigned long long)r.last.step, r.last.train.elbo, r.last.train.recon,
             r.last.train.kl, r.last.train.bound);
    assert_non_null(strstr(lines, want));
    free(lines);
    run_free_set(&set);
    run_free_set(&test);
}

/* Lines up to a step are kept, whole ones. */
static void test_metrics_up_to_a_step(void **state)
{
    scratch *s = *state;
    static const char lines[] = "{\"step\":0}\n{\"step\":5}\n{\"step\":6}\n{\"step\":-1}\n"
                                "{\"step\":\"5\"}\n{\"step\":2}\n{\"step\":4";
    vae_run_folder folder;
    bool empty;
    char *text;
    vae_error err = {0};
    const char *path = run_folder_in(s, "lines");
    assert_int_equal(vae_run_folder_open(&folder, path, false, false, &empty, &err), VAE_OK);
    scratch_write(s, "lines/metrics.jsonl", lines, sizeof lines - 1);
    assert_int_equal(vae_run_folder_metrics(&folder, 5, &err), VAE_OK);
    assert_int_equal(vae_run_folder_metric(&folder, "{\"step\":7}\n", &err), VAE_OK);
    vae_run_folder_close(&folder);
    assert_int_equal(vae_file_read(&text, scratch_path(s, "lines/metrics.jsonl"), 4096, &err),
                     VAE_OK);
    assert_string_equal(text, "{\"step\":0}\n{\"step\":5}\n{\"step\":2}\n{\"step\":7}\n");
    free(text);
}

/* Relative paths are those of the folder in which the run began, where they lead somewhere. */
static void test_paths_of_a_run(void **state)
{
    scratch *s = *state;
    vae_config c;
    char here[VAE_PATH], began[300],
        record[VAE_PATH + 40], *const fields[] = {c.data, c.test_data, c.stack, c.init_from};
    const char *run = run_folder_in(s, "moved");
    snprintf(began, sizeof began, "%s/began", s->folder);
    scratch_write(s, "began/rows.npy", "", 0);
    scratch_write(s, "began/digits", "", 0);
    assert_non_null(getcwd(here, sizeof here));
    for (size_t i = 0; i < 4; i++) {
        char want[400], longest[301];
        vae_error err = {0};
        scratch_write(s, "moved/run.json", record,
                      (size_t)snprintf(record, sizeof record, "{\"folder\": \"%s\"}", began));
        static const char *const stay[] = {"", "nowhere.npy", "/began/rows.npy", "digits"};
        for (size_t k = 0; k < 4; k++) {
            run_small_config(&c, "x");
            snprintf(fields[i], VAE_PATH, "%s", stay[k]);
            assert_int_equal(vae_run_resolve_config(run, &c, &err), VAE_OK);
            assert_string_equal(fields[i], stay[k]);
        }
        snprintf(fields[i], VAE_PATH, "rows.npy");
        snprintf(want, sizeof want, "%s/rows.npy", began);
        assert_int_equal(vae_run_resolve_config(run, &c, &err), VAE_OK);
        assert_string_equal(fields[i], want);
        memset(longest, 'x', 300); /* a name that no file system looks up */
        longest[300] = '\0';
        snprintf(fields[i], VAE_PATH, "%s", longest);
        assert_int_equal(vae_run_resolve_config(run, &c, &err), VAE_ERR_IO);
        assert_string_equal(fields[i], longest);
        /* it began here, or nobody says where */
        scratch_write(s, "moved/run.json", record,
                      (size_t)snprintf(record, sizeof record, "{\"folder\": \"%s\"}", here));
        assert_int_equal(vae_run_resolve_config(run, &c, NULL), VAE_OK);
        scratch_write(s, "moved/run.json", "{", 1);
        assert_int_equal(vae_run_resolve_config(run, &c, NULL), VAE_OK);
        assert_string_equal(fields[i], longest);
    }
}

/* ---- refusals ---- */

static void assert_refused(const vae_config *c, const vae_dataset *set, bool resume,
                           vae_status status, const char *says)
{
    vae_train_result result;
    vae_error err = {0};
    session one = {0};
    vae_status got = run_train(c, set, NULL, resume, &one, &result, &err);
    if (got != status || strstr(err.text, says) == NULL) {
        fail_msg("status %d, '%s'; expected %d and '%s'", got, err.text, status, says);
    }
}

static size_t count_lines(const char *text, const char *with)
{
    size_t n = 0;
    for (const char *line = text, *end; (end = strchr(line, '\n')) != NULL; line = end + 1) {
        const char *hit = strstr(line, with);
        n += hit != NULL && hit < end;
    }
    return n;
}

static void test_refusals(void **state)
{
    scratch *s = *state;
    vae_dataset set, other;
    vae_config c, changed;
    vae_train_result result;
    run_make_set(&set, ROWS, HEIGHT, WIDTH, 1);
    run_make_set(&other, ROWS, HEIGHT, WIDTH, 9);
    run_small_config(&c, run_folder_in(s, "refused"));
    run_set_option(&c, "epochs", "1");
    run_ok(&c, &set, NULL, false, &result);
    assert_refused(&c, &set, false, VAE_ERR_USAGE, "not empty");
    run_set_option(&c, "epochs", "2");
    assert_refused(&c, &other, true, VAE_ERR_USAGE, "other data");
    static const char *const changes[][2] = {
        {"latent", "4"},     {"hidden", "9"}, {"lr", "0.1"},         {"seed", "2"},
        {"batch-size", "8"}, {"beta", "2"},   {"validation", "0.1"}, {"binarize", "static"}};
    for (size_t i = 0; i < sizeof changes / sizeof changes[0]; i++) {
        changed = c;
        run_set_option(&changed, changes[i][0], changes[i][1]);
        assert_refused(&changed, &set, true, VAE_ERR_USAGE, changes[i][0]);
    }
    other.d = 6;
    other.height = 2;
    other.width = 3;
    assert_refused(&c, &other, true, VAE_ERR_USAGE, "12 columns");
    changed = c;
    run_set_option(&changed, "out", run_folder_in(s, "refused-2"));
    run_set_option(&changed, "exclude-class", "1");
    free(set.labels);
    set.labels = NULL;
    assert_refused(&changed, &set, false, VAE_ERR_USAGE, "no labels");
    run_set_option(&changed, "exclude-class", "");
    run_set_option(&changed, "validation", "0.001");
    assert_refused(&changed, &set, false, VAE_ERR_USAGE, "is none");
    assert_true(access(changed.out, F_OK) != 0); /* nothing was made */
    /* what is not a run's own is not written through */
    static const char *const links[][2] = {{"log.txt", "file"},
                                           {"metrics.jsonl", "file"},
                                           {"checkpoints", "folder"},
                                           {"samples", "folder"},
                                           {"tensorboard", "folder"}};
    for (size_t i = 0; i < sizeof links / sizeof links[0]; i++) {
        char path[600], kept[700], says[100];
        snprintf(path, sizeof path, "%s/%s", c.out, links[i][0]);
        snprintf(kept, sizeof kept, "%s.kept", path);
        snprintf(says, sizeof says, "%s: a symbolic link, expected a %s of the run", links[i][0],
                 links[i][1]);
        const bool there = rename(path, kept) == 0;
        assert_int_equal(symlink("/nowhere", path), 0);
        assert_refused(&c, &set, true, VAE_ERR_USAGE, says);
        assert_int_equal(unlink(path), 0);
        assert_true(!there || rename(kept, path) == 0);
    }
    changed = c;
    run_set_option(&changed, "tensorboard", "true");
    scratch_write(s, "refused/tensorboard/mine", "", 0);
    const char *events = scratch_path(s, "refused/tensorboard/events.out.tfevents.1.vae");
    assert_int_equal(mkdir(events, 0777), 0);
    assert_refused(&changed, &set, true, VAE_ERR_IO,
                   "/tensorboard/events.out.tfevents.1.vae: cannot open: Is a directory");
    assert_int_equal(rmdir(events), 0);
    /* --force replaces the run, and leaves foreign files alone */
    scratch_write(s, "refused/mine.txt", "x", 1);
    const vae_train_options force = {.force = true};
    c.latent = 5;
    assert_int_equal(vae_train(&c, &set, NULL, &force, &result, NULL), VAE_OK);
    char *lines = run_metrics_of(c.out);
    assert_int_equal(count_lines(lines, "\"split\":\"train\""), 2);
    free(lines);
    assert_int_equal(access(scratch_path(s, "refused/mine.txt"), F_OK), 0);
    run_free_set(&set);
    run_free_set(&other);
}

static int lock_fault; /* errno of file systems that cannot lock */

/* The C library's, but for that. */
int flock(int fd, int operation)
{
    errno = lock_fault;
    return lock_fault != 0 ? -1 : (int)syscall(SYS_flock, fd, operation);
}

static void test_one_at_a_time(void **state)
{
    scratch *s = *state;
    vae_run_folder one, two;
    bool empty;
    vae_error err = {0};
    const char *path = run_folder_in(s, "locked/deep/run");
    assert_int_equal(vae_run_folder_open(&one, path, false, false, &empty, &err), VAE_OK);
    assert_true(empty);
    assert_int_equal(vae_run_folder_open(&two, path, true, false, &empty, &err), VAE_ERR_USAGE);
    assert_non_null(strstr(err.text, "another vae"));
    vae_run_folder_close(&one);
    vae_error again = {0};
    assert_int_equal(vae_run_folder_open(&two, path, true, false, &empty, &again), VAE_OK);
    vae_run_folder_close(&two);
    lock_fault = ENOLCK;
    assert_int_equal(vae_run_folder_open(&two, path, true, false, &empty, &again), VAE_OK);
    lock_fault = 0;
    vae_run_folder_close(&two);
}

/* A folder that holds no checkpoint yet starts over with --resume=auto. */
static void test_resume_nothing(void **state)
{
    scratch *s = *state;
    vae_dataset set;
    vae_config c;
    vae_train_result result;
    vae_error err = {0};
    session one = {0};
    run_make_set(&set, ROWS, HEIGHT, WIDTH, 1);
    run_small_config(&c, run_folder_in(s, "nothing"));
    run_set_option(&c, "epochs", "1");
    assert_int_equal(run_train(&c, &set, NULL, true, &one, &result, &err), VAE_OK);
    assert_non_null(strstr(one.notes, "starting from the beginning"));
    run_set_option(&c, "out", run_folder_in(s, "nowhere"));
    assert_int_equal(vae_train(&c, &set, NULL, &(vae_train_options){.resume = true}, &result, &err),
                     VAE_ERR_USAGE);
    assert_non_null(strstr(err.text, "there is no run to resume: no such folder"));
    run_free_set(&set);
}

static void test_pictures(void **state)
{
    scratch *s = *state;
    vae_dataset set;
    vae_config c;
    vae_train_result result;
    struct stat info;
    run_make_set(&set, ROWS, HEIGHT, WIDTH, 1);
    run_small_config(&c, run_folder_in(s, "pictures"));
    run_set_option(&c, "epochs", "3");
    run_set_option(&c, "sample-every", "2");
    run_ok(&c, &set, NULL, false, &result);
    assert_non_null(strstr(result.samples, "samples/epoch-003.png"));
    assert_true(stat(result.samples, &info) == 0 && info.st_size > 100);
    assert_true(stat(result.reconstruction, &info) == 0 && info.st_size > 100);
    assert_true(stat(scratch_path(s, "pictures/samples/epoch-002.png"), &info) == 0);
    assert_true(stat(scratch_path(s, "pictures/samples/epoch-001.png"), &info) != 0);
    run_free_set(&set);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_learning_rates),
        cmocka_unit_test(test_plans),
        cmocka_unit_test(test_rows),
        cmocka_unit_test(test_measure),
        cmocka_unit_test(test_batch_of_all),
        cmocka_unit_test(test_step_timer),
        cmocka_unit_test(test_flops_and_medians),
        cmocka_unit_test(test_threads),
        cmocka_unit_test(test_modes),
        cmocka_unit_test(test_output_bias),
        cmocka_unit_test(test_diverged),
        cmocka_unit_test(test_early_stopping),
        cmocka_unit_test(test_warmup_note),
        cmocka_unit_test(test_stages_note),
        cmocka_unit_test(test_records),
        cmocka_unit_test(test_metrics_up_to_a_step),
        cmocka_unit_test(test_paths_of_a_run),
        cmocka_unit_test(test_refusals),
        cmocka_unit_test(test_one_at_a_time),
        cmocka_unit_test(test_resume_nothing),
        cmocka_unit_test(test_pictures),
    };
    return cmocka_run_group_tests_name("trainer", tests, scratch_setup, scratch_teardown);
}
