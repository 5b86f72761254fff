/* Training with classes: which labels count, what is refused, and exact resumption. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "trainer_fixture.h"

/* As in test_resume.c: interrupted after one to three chunks, again and again. */
static void run_in_parts(const vae_config *c, const vae_dataset *set, const vae_dataset *test)
{
    vae_train_result result;
    vae_status status = VAE_ERR_INTERRUPTED;
    size_t sessions = 0;
    for (; status == VAE_ERR_INTERRUPTED && sessions < 200; sessions++) {
        vae_error err = {0};
        session one = {.after = 1 + sessions % 3};
        status = run_train(c, set, test, sessions > 0, &one, &result, &err);
        if (status != VAE_OK && status != VAE_ERR_INTERRUPTED) {
            fail_msg("%s", err.text);
        }
    }
    assert_int_equal(status, VAE_OK);
    assert_true(sessions > 6);
}

static void semi_config(vae_config *c, const char *out)
{
    run_small_config(c, out);
    run_set_option(c, "semi-supervised", "true");
    run_set_option(c, "labelled", "25");
}

static void test_resume_is_exact(void **state)
{
    scratch *s = *state;
    vae_dataset set, test;
    vae_config c;
    vae_train_result result;
    run_make_set(&set, ROWS, HEIGHT, WIDTH, 1);
    run_make_set(&test, 50, HEIGHT, WIDTH, 2);
    for (int semi = 0; semi < 2; semi++) {
        const char *whole = run_folder_in(s, semi ? "semi" : "cvae");
        const char *parts = run_folder_in(s, semi ? "semi-parts" : "cvae-parts");
        run_small_config(&c, whole);
        run_set_option(&c, semi ? "semi-supervised" : "condition", semi ? "true" : "labels");
        run_set_option(&c, "validation", "0.1");
        if (semi) {
            run_set_option(&c, "labelled", "25"); /* no multiple of the batch: cycles cross steps */
        }
        run_ok(&c, &set, &test, false, &result);
        /* every unlabelled row once an epoch */
        assert_int_equal(result.last.train.n, semi ? 155 : 180);
        assert_int_equal(result.state.step, semi ? 4 * 10 : 4 * 12);
        assert_int_equal(result.last.test.classified, semi ? 50 : 0);
        assert_int_equal(result.last.validation.classified, semi ? 20 : 0);
        run_set_option(&c, "out", parts);
        run_in_parts(&c, &set, &test);
        assert_same_end(whole, parts);
        assert_same_metrics(whole, parts);
        vae_checkpoint *end = run_checkpoint(whole);
        assert_int_equal(end->config.classes, 10);
        vae_checkpoint_free(end);
    }
    run_free_set(&set);
    run_free_set(&test);
}

static void train_into(vae_config *c, scratch *s, const char *name, const vae_dataset *set)
{
    vae_train_result result;
    run_set_option(c, "out", run_folder_in(s, name));
    run_ok(c, set, NULL, false, &result);
}

/* The labels of rows that are not among --labelled are never looked at; those of the others are. */
static void test_only_the_labelled_count(void **state)
{
    scratch *s = *state;
    vae_dataset set;
    vae_config c;
    run_make_set(&set, ROWS, HEIGHT, WIDTH, 1);
    const size_t bytes = ROWS * sizeof *set.labels;
    uint32_t *labels = malloc(bytes);
    memcpy(labels, set.labels, bytes);
    semi_config(&c, "");
    run_set_option(&c, "epochs", "1");
    train_into(&c, s, "as-is", &set);
    /* swapping two rows' labels tells whether either is used */
    size_t used = 0;
    for (size_t i = 0; i < 20; i += 2) {
        char name[32];
        snprintf(name, sizeof name, "swap-%zu", i);
        set.labels[i] = labels[i + 1], set.labels[i + 1] = labels[i];
        train_into(&c, s, name, &set);
        memcpy(set.labels, labels, bytes);
        vae_checkpoint *a = run_checkpoint(run_folder_in(s, "as-is"));
        vae_checkpoint *b = run_checkpoint(run_folder_in(s, name));
        used += memcmp(a->params, b->params, a->n_params * sizeof(float)) != 0;
        vae_checkpoint_free(a), vae_checkpoint_free(b);
    }
    assert_true(used >= 1 && used <= 8); /* of ten pairs, at 25 labelled among 200 */
    run_free_set(&set);
    free(labels);
}

static void expect_failure(vae_config *c, scratch *s, const vae_dataset *set, vae_status want,
                           const char *says)
{
    vae_error err = {0};
    vae_train_result result;
    session one = {.after = 0};
    run_set_option(c, "out", run_folder_in(s, "refused"));
    const vae_status got = run_train(c, set, NULL, false, &one, &result, &err);
    if (got != want || strstr(err.text, says) == NULL) {
        fail_msg("status %d, expected %d: %s", got, want, err.text);
    }
}

static void test_refusals(void **state)
{
    scratch *s = *state;
    vae_dataset set;
    vae_config c;
    run_make_set(&set, ROWS, HEIGHT, WIDTH, 1);
    semi_config(&c, "");
    run_set_option(&c, "labelled", "200");
    expect_failure(&c, s, &set, VAE_ERR_USAGE, "leaves none without a label");
    run_set_option(&c, "labelled", "199"); /* 20 of each class, of which there are 20 and 19 */
    set.labels[0] = 1;
    expect_failure(&c, s, &set, VAE_ERR_DATA, "rows of class 0, there are 19");
    run_set_option(&c, "labelled", "30");
    run_set_option(&c, "classes", "4");
    expect_failure(&c, s, &set, VAE_ERR_DATA,
                   "row 4: class '4' is none of the model's 4: 0, 1, 2, 3");
    uint32_t *labels = set.labels;
    set.labels = NULL;
    expect_failure(&c, s, &set, VAE_ERR_DATA, "made up: no labels");
    run_small_config(&c, "");
    run_set_option(&c, "condition", "labels");
    run_set_option(&c, "classes", "4");
    expect_failure(&c, s, &set, VAE_ERR_DATA, "made up: no labels");
    set.labels = labels;
    memset(labels, 0, ROWS * sizeof *labels);
    vae_classes_clear(&set.classes);
    assert_int_equal(vae_classes_number(&set.classes, 1, NULL), VAE_OK);
    run_set_option(&c, "classes", "0");
    expect_failure(&c, s, &set, VAE_ERR_DATA, "all rows have the same label");
    run_free_set(&set);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_resume_is_exact, scratch_setup, scratch_teardown),
        cmocka_unit_test_setup_teardown(test_only_the_labelled_count, scratch_setup,
                                        scratch_teardown),
        cmocka_unit_test_setup_teardown(test_refusals, scratch_setup, scratch_teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
