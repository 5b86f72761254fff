/* Runs for tests of training: folders, data, what is in them. */
#include "trainer_fixture.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "philox.h"
#include "run/folder.h"

void run_make_set(vae_dataset *set, size_t n, size_t height, size_t width, uint64_t seed)
{
    *set = (vae_dataset){.n = n,
                         .d = height * width,
                         .height = height,
                         .width = width,
                         .channels = 1,
                         .dtype = VAE_U8};
    assert_int_equal(vae_classes_number(&set->classes, 10, NULL), VAE_OK);
    snprintf(set->source, sizeof set->source, "made up");
    uint8_t *x = malloc(n * set->d);
    set->labels = malloc(n * sizeof *set->labels);
    assert_true(x != NULL && set->labels != NULL);
    for (size_t i = 0; i < n; i++) {
        set->labels[i] = (uint32_t)(i % 10);
        for (size_t j = 0; j < set->d; j++) {
            uint32_t noise = vae_philox(seed, i, j).w[0] >> 25;
            x[i * set->d + j] = (uint8_t)((j % 5 == i % 5 ? 120 : 0) + noise);
        }
    }
    set->rows = x;
    memset(set->sha256, (int)seed, sizeof set->sha256);
}

void run_free_set(vae_dataset *set)
{
    free(set->rows);
    free(set->labels);
    vae_classes_clear(&set->classes);
}

void run_small_config(vae_config *c, const char *out)
{
    static const char *const values[][2] = {
        {"hidden", "8"},   {"latent", "3"},  {"batch-size", "16"},  {"epochs", "4"},
        {"device", "cpu"}, {"threads", "2"}, {"sample-every", "0"}, {"binarize", "dynamic"}};
    vae_config_defaults(c);
    for (size_t i = 0; i < sizeof values / sizeof values[0]; i++) {
        assert_int_equal(vae_config_set(c, values[i][0], values[i][1], NULL), VAE_OK);
    }
    assert_int_equal(vae_config_set(c, "out", out, NULL), VAE_OK);
}

void run_set_option(vae_config *c, const char *name, const char *value)
{
    vae_error err = {0};
    if (vae_config_set(c, name, value, &err) != VAE_OK) {
        fail_msg("%s", err.text);
    }
}

static void on_progress(void *ctx, const vae_progress *p)
{
    session *s = ctx;
    assert_true(p->position <= p->n && isfinite(p->elbo) && p->seconds_left >= 0);
    if (++s->calls == s->after) {
        s->stop = 15;
    }
}

static void on_epoch(void *ctx, const vae_epoch_record *r)
{
    session *s = ctx;
    assert_true(r->train.n > 0);
    s->epochs++;
}

static void on_note(void *ctx, const char *line)
{
    session *s = ctx;
    size_t used = strlen(s->notes);
    snprintf(s->notes + used, sizeof s->notes - used, "%s\n", line);
}

vae_status run_train(const vae_config *c, const vae_dataset *set, const vae_dataset *test,
                     bool resume, session *s, vae_train_result *result, vae_error *err)
{
    const vae_train_options options = {
        .resume = resume,
        .anew = true,
        .stop_signal = &s->stop,
        .events = {s, on_progress, on_epoch, on_note},
    };
    /* nothing here asks for standardization, the only thing that changes a set */
    return vae_train(c, (vae_dataset *)(uintptr_t)set, (vae_dataset *)(uintptr_t)test, &options,
                     result, err);
}

void run_ok(const vae_config *c, const vae_dataset *set, const vae_dataset *test, bool resume,
            vae_train_result *result)
{
    vae_error err = {0};
    session s = {0};
    if (run_train(c, set, test, resume, &s, result, &err) != VAE_OK) {
        fail_msg("%s", err.text);
    }
}

vae_checkpoint *run_checkpoint(const char *run)
{
    char path[VAE_PATH];
    vae_error err = {0};
    vae_checkpoint *c;
    if (vae_checkpoint_open_run(&c, run, false, true, path, &err) != VAE_OK) {
        fail_msg("%s", err.text);
    }
    return c;
}

void assert_same_end(const char *run_a, const char *run_b)
{
    vae_checkpoint *a = run_checkpoint(run_a), *b = run_checkpoint(run_b);
    assert_int_equal(a->n_params, b->n_params);
    const size_t bytes = a->n_params * sizeof(float);
    assert_memory_equal(a->params, b->params, bytes);
    assert_memory_equal(a->adam_m, b->adam_m, bytes);
    assert_memory_equal(a->adam_v, b->adam_v, bytes);
    assert_true(a->state.step == b->state.step && a->state.epoch == b->state.epoch &&
                a->state.best == b->state.best && a->state.best_epoch == b->state.best_epoch &&
                a->state.bad_epochs == b->state.bad_epochs &&
                a->state.finished == b->state.finished);
    assert_string_equal(a->summary, b->summary);
    vae_checkpoint_free(a);
    vae_checkpoint_free(b);
}

char *run_metrics_of(const char *run)
{
    char path[VAE_PATH + 16], *text;
    vae_error err = {0};
    snprintf(path, sizeof path, "%s/metrics.jsonl", run);
    if (vae_file_read(&text, path, 1 << 20, &err) != VAE_OK) {
        fail_msg("%s", err.text);
    }
    char *to = text;
    for (char *line = text, *end; (end = strchr(line, '\n')) != NULL; line = end + 1) {
        char *clock = strstr(line, ",\"examples_per_s\"");
        assert_non_null(clock);
        memmove(to, line, (size_t)(clock - line));
        to += clock - line;
        *to++ = '\n';
    }
    *to = '\0';
    return text;
}

void assert_same_metrics(const char *run_a, const char *run_b)
{
    char *a = run_metrics_of(run_a), *b = run_metrics_of(run_b);
    assert_string_equal(a, b);
    free(a);
    free(b);
}

const char *run_folder_in(scratch *s, const char *name)
{
    static char paths[4][512];
    static int next;
    char *path = paths[next++ % 4];
    snprintf(path, 512, "%s/%s", s->folder, name);
    return path;
}
