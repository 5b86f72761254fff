/* Runs that are interrupted, killed and taken up again end as if they had been left alone: to the
 * last bit of parameters and moments, and in every number of metrics.jsonl. */
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

#include "base/clock.h"
#include "run/folder.h"
#include "trainer_fixture.h"

/* Interrupted after one to three chunks, again and again: the end is that of one session. */
static void check_exact(scratch *s, const char *likelihood)
{
    vae_dataset set, test;
    vae_config c;
    vae_train_result result;
    run_make_set(&set, ROWS, HEIGHT, WIDTH, 1);
    run_make_set(&test, 50, HEIGHT, WIDTH, 2);
    char parts_name[64];
    snprintf(parts_name, sizeof parts_name, "%s-parts", likelihood);
    const char *whole = run_folder_in(s, likelihood), *parts = run_folder_in(s, parts_name);
    run_small_config(&c, whole);
    run_set_option(&c, "validation", "0.1");
    run_set_option(&c, "patience", "3");
    run_set_option(&c, "kl-warmup", "2.5");
    run_set_option(&c, "lr-schedule", "cosine");
    run_set_option(&c, "particles", "2");
    run_set_option(&c, "likelihood", likelihood);
    if (!vae_likelihood_of(c.likelihood)->binarizable) {
        run_set_option(&c, "binarize", "none");
    }
    run_ok(&c, &set, &test, false, &result);
    assert_int_equal(result.state.step, 4 * 12); /* 180 rows in 12 batches, the last one of 4 */
    assert_int_equal(result.last.train.n, 180);
    assert_int_equal(result.last.validation.n, 20);
    assert_int_equal(result.last.test.n, 50);
    run_set_option(&c, "out", parts);
    size_t sessions = 0, mid_epoch = 0;
    vae_status status = VAE_ERR_INTERRUPTED;
    for (; status == VAE_ERR_INTERRUPTED && sessions < 200; sessions++) {
        vae_error err = {0};
        session one = {.after = 1 + sessions % 3};
        status = run_train(&c, &set, &test, sessions > 0, &one, &result, &err);
        if (status == VAE_ERR_INTERRUPTED) {
            mid_epoch += result.state.position > 0;
            assert_non_null(strstr(err.text, "--resume"));
        } else if (status != VAE_OK) {
            fail_msg("%s", err.text);
        }
    }
    assert_int_equal(status, VAE_OK);
    assert_true(sessions > 8 && mid_epoch > 6);
    assert_same_end(whole, parts);
    assert_same_metrics(whole, parts);
    run_free_set(&set);
    run_free_set(&test);
}

static void test_resume_is_exact(void **state)
{
    check_exact(*state, "bernoulli");
}

/* The variance's sums go on in the middle of the steps that it is taken of. */
static void test_resume_with_optimal_variance(void **state)
{
    check_exact(*state, "gaussian-optimal");
}

/* As if killed at any moment after a checkpoint: later files are there, metrics go further and end
 * in a torn line. */
static void test_resume_after_kill(void **state)
{
    scratch *s = *state;
    vae_dataset set;
    vae_config c;
    vae_train_result result;
    char path[600];
    run_make_set(&set, ROWS, HEIGHT, WIDTH, 1);
    const char *whole = run_folder_in(s, "unkilled"), *killed = run_folder_in(s, "killed");
    run_small_config(&c, whole);
    run_set_option(&c, "keep", "9");
    run_ok(&c, &set, NULL, false, &result);
    run_set_option(&c, "out", killed);
    run_ok(&c, &set, NULL, false, &result);
    /* the newest checkpoint is torn, the one before it is gone, temp files lie about */
    snprintf(path, sizeof path, "%s/checkpoints/step-%010d.vae", killed, 4 * 13);
    assert_int_equal(truncate(path, 1000), 0);
    snprintf(path, sizeof path, "%s/checkpoints/step-%010d.vae", killed, 3 * 13);
    assert_int_equal(unlink(path), 0);
    scratch_write(s, "killed/checkpoints/step-0000000060.vae.77-0.tmp", "x", 1);
    snprintf(path, sizeof path, "%s/metrics.jsonl", killed);
    FILE *metrics = fopen(path, "a");
    assert_true(metrics != NULL && fputs("{\"schema\":1,\"epoch\":5,\"st", metrics) >= 0);
    assert_int_equal(fclose(metrics), 0);
    run_ok(&c, &set, NULL, true, &result);
    assert_same_end(whole, killed);
    assert_same_metrics(whole, killed);
    snprintf(path, sizeof path, "%s/checkpoints/step-0000000060.vae.77-0.tmp", killed);
    assert_true(access(path, F_OK) != 0);
    run_free_set(&set);
}

/* Interrupted when the steps of an epoch are done but the epoch is not closed; then, with the next
 * checkpoint an epoch away, killed after it was closed: its metrics come once. */
static void test_resume_at_the_seam(void **state)
{
    scratch *s = *state;
    vae_dataset set;
    vae_config c;
    vae_train_result result;
    char from[800], to[800];
    run_make_set(&set, ROWS, HEIGHT, WIDTH, 1);
    const char *whole = run_folder_in(s, "seamless"), *seam = run_folder_in(s, "seam");
    run_small_config(&c, whole);
    run_set_option(&c, "save-every", "2");
    run_ok(&c, &set, NULL, false, &result);
    run_set_option(&c, "out", seam);
    run_set_option(&c, "keep", "99");
    vae_status status = VAE_ERR_INTERRUPTED;
    for (size_t i = 0; result.state.position != ROWS && status == VAE_ERR_INTERRUPTED; i++) {
        session one = {.after = 1};
        status = run_train(&c, &set, NULL, i > 0, &one, &result, NULL);
    }
    assert_true(result.state.position == ROWS && result.state.step == 13);
    snprintf(from, sizeof from, "%s/checkpoints/step-0000000013.vae", seam);
    run_ok(&c, &set, NULL, true, &result);
    for (int step = 26; step <= 52; step += 26) {
        snprintf(to, sizeof to, "%s/checkpoints/step-%010d.vae", seam, step);
        assert_int_equal(unlink(to), 0);
    }
    vae_checkpoint *k;
    assert_int_equal(vae_checkpoint_read(&k, from, true, NULL), VAE_OK);
    assert_int_equal(k->state.position, ROWS);
    vae_checkpoint_free(k);
    run_ok(&c, &set, NULL, true, &result);
    assert_same_end(whole, seam);
    assert_same_metrics(whole, seam);
    run_free_set(&set);
}

static void next_is(vae_loop *l, vae_loop_event wanted)
{
    vae_loop_event event;
    vae_error err = {0};
    if (vae_loop_next(l, &event, &err) != VAE_OK || event != wanted) {
        fail_msg("event %d, expected %d; %s", (int)event, (int)wanted, err.text);
    }
}

/* The loop alone, without any folder: stopped, it goes on; another one takes up what it captured. */
static void test_loop_in_memory(void **state)
{
    (void)state;
    vae_dataset set;
    vae_config c;
    vae_loop whole, first, second;
    vae_loop_event event;
    vae_stop_flag stop = 0;
    vae_error err = {0};
    run_make_set(&set, ROWS, HEIGHT, WIDTH, 1);
    run_small_config(&c, "");
    run_set_option(&c, "validation", "0.1");
    assert_int_equal(vae_loop_open(&whole, &c, &set, NULL, NULL, NULL, NULL, NULL, &err), VAE_OK);
    assert_int_equal(vae_loop_begin(&whole, NULL, &err), VAE_OK);
    size_t epochs = 0;
    do {
        assert_int_equal(vae_loop_next(&whole, &event, &err), VAE_OK);
        epochs += event == VAE_LOOP_EPOCH;
    } while (event != VAE_LOOP_DONE);
    assert_true(epochs == 4 && whole.last.epoch == 4 && whole.last.validation.n == 20);
    assert_int_equal(vae_loop_capture(&whole, &err), VAE_OK);

    assert_int_equal(vae_loop_open(&first, &c, &set, NULL, NULL, NULL, &stop, NULL, &err), VAE_OK);
    assert_int_equal(vae_loop_begin(&first, NULL, &err), VAE_OK);
    vae_progress p = vae_loop_progress(&first); /* nothing is known yet */
    assert_true(p.examples_per_s == 0 && p.seconds_left == 0);
    next_is(&first, VAE_LOOP_STEPS);
    stop = 15;
    next_is(&first, VAE_LOOP_STOPPED);
    next_is(&first, VAE_LOOP_STOPPED);
    stop = 0;
    next_is(&first, VAE_LOOP_STEPS);
    first.started = vae_clock() - 1000; /* for steps that took no time */
    first.epoch_seconds = 2;
    p = vae_loop_progress(&first);
    assert_true(p.epoch == 1 && p.position > 16 && p.n == 180 && p.elbo < 0);
    assert_true(p.examples_per_s == (double)p.position / 2);
    const double left = (4 * 180 - (double)p.position) * 1000 / (double)p.position;
    assert_true(p.seconds_left >= left && p.seconds_left < 1.1 * left);
    assert_int_equal(vae_loop_capture(&first, &err), VAE_OK);

    assert_int_equal(vae_loop_open(&second, &c, &set, NULL, first.now, NULL, NULL, NULL, &err),
                     VAE_OK);
    assert_true(vae_loop_fits(&second, &first.now->state));
    assert_int_equal(vae_loop_begin(&second, first.now, &err), VAE_OK);
    vae_loop_close(&first);
    do {
        assert_int_equal(vae_loop_next(&second, &event, &err), VAE_OK);
        if (event == VAE_LOOP_EPOCH && second.last.epoch == 3) { /* one of four is left */
            second.started = vae_clock() - 1000;
            p = vae_loop_progress(&second);
            assert_true(p.epoch == 4 && p.position == 0);
            const double rest = 180 * 1000 / (double)second.examples;
            assert_true(p.seconds_left >= rest && p.seconds_left < 1.1 * rest);
        }
    } while (event != VAE_LOOP_DONE);
    assert_true(vae_loop_progress(&second).seconds_left == 0);
    assert_int_equal(vae_loop_capture(&second, &err), VAE_OK);
    const size_t bytes = whole.now->n_params * sizeof(float);
    assert_memory_equal(whole.now->params, second.now->params, bytes);
    assert_memory_equal(whole.now->adam_m, second.now->adam_m, bytes);
    assert_memory_equal(whole.now->adam_v, second.now->adam_v, bytes);
    assert_memory_equal(&whole.last.train, &second.last.train, sizeof whole.last.train);
    assert_true(whole.now->state.best == second.now->state.best);
    vae_train_state wrong = second.now->state;
    wrong.step++;
    assert_false(vae_loop_fits(&second, &wrong));
    vae_loop_close(&whole);
    vae_loop_close(&second);
    run_free_set(&set);
}

/* It is the mean squared error of the steps since it was something else, which are few at first. */
static void test_optimal_variance(void **state)
{
    (void)state;
    enum { STEPS = 50 }; /* an epoch; 7 are an eighth */
    static const size_t ends[] = {1, 2, 4, 7, 14, 21, 28, 35, 42, 49, 50};
    vae_dataset set;
    vae_config c;
    vae_loop l;
    vae_loop_event event;
    vae_error err = {0};
    run_make_set(&set, ROWS, HEIGHT, WIDTH, 1);
    run_small_config(&c, "");
    run_set_option(&c, "binarize", "none");
    run_set_option(&c, "likelihood", "gaussian-optimal");
    run_set_option(&c, "batch-size", "4");
    run_set_option(&c, "epochs", "2");
    assert_int_equal(vae_loop_open(&l, &c, &set, NULL, NULL, NULL, NULL, NULL, &err), VAE_OK);
    assert_int_equal(vae_loop_begin(&l, NULL, &err), VAE_OK);
    double variance = 1, recon = 0;
    size_t n = 0, from = 0, epoch = 0;
    while (vae_loop_next(&l, &event, &err) == VAE_OK && event != VAE_LOOP_DONE) {
        if (event == VAE_LOOP_EPOCH) {
            assert_int_equal(n, sizeof ends / sizeof ends[0]);
            epoch++;
            n = 3, from = 0, recon = 0; /* later ones begin with an eighth */
            continue;
        }
        const vae_progress p = vae_loop_progress(&l);
        const size_t at = p.position / 4;
        if (at < ends[n]) {
            assert_true(l.now->config.variance == variance);
            continue;
        }
        assert_int_equal(at, ends[n++]);
        const double sum = p.recon * (double)p.position, values = (double)(4 * (at - from)) * D;
        const double squares =
            variance * (2 * (sum - recon) - values * log(2 * M_PI * variance)) / values;
        if (fabs(l.now->config.variance / squares - 1) > 1e-9) {
            fail_msg("step %zu: variance %g, expected %g", at, l.now->config.variance, squares);
        }
        assert_true(epoch > 0 || n > 1 || (squares > 0.01 && squares < 1));
        variance = l.now->config.variance, recon = sum, from = at;
    }
    assert_int_equal(err.status, VAE_OK);
    assert_int_equal(epoch, 2);
    vae_loop_close(&l);
    run_free_set(&set);
}

/* 2 epochs, then 2 more, are 4; a finished run has nothing to do. */
static void test_more_epochs(void **state)
{
    scratch *s = *state;
    vae_dataset set;
    vae_config c;
    vae_train_result result;
    run_make_set(&set, ROWS, HEIGHT, WIDTH, 1);
    const char *four = run_folder_in(s, "four"), *two = run_folder_in(s, "two");
    run_small_config(&c, four);
    run_ok(&c, &set, NULL, false, &result);
    run_set_option(&c, "out", two);
    run_set_option(&c, "epochs", "2");
    run_ok(&c, &set, NULL, false, &result);
    assert_true(result.state.finished && !result.had_finished);
    run_ok(&c, &set, NULL, true, &result);
    assert_true(result.had_finished);
    run_set_option(&c, "epochs", "4");
    run_ok(&c, &set, NULL, true, &result);
    assert_true(!result.had_finished);
    assert_same_end(four, two);
    assert_same_metrics(four, two);
    char **names;
    size_t n;
    assert_int_equal(vae_run_list(&names, &n, two, NULL), VAE_OK);
    assert_int_equal(n, 2); /* --keep 2 */
    assert_string_equal(names[0], "step-0000000052.vae");
    vae_run_list_free(names, n);
    run_free_set(&set);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_resume_is_exact),
        cmocka_unit_test(test_resume_after_kill),
        cmocka_unit_test(test_resume_at_the_seam),
        cmocka_unit_test(test_more_epochs),
        cmocka_unit_test(test_loop_in_memory),
        cmocka_unit_test(test_optimal_variance),
        cmocka_unit_test(test_resume_with_optimal_variance),
    };
    return cmocka_run_group_tests_name("resume", tests, scratch_setup, scratch_teardown);
}
