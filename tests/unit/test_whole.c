/* Whole steps by one kernel (backend/cuda/persistent.c) beside the ordinary ones: the same training,
 * the same bits however it is cut up, the same stop at a bad step; and who does not get them. Built for
 * the emulation and for a GPU only: the CPU has none. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "model_fixture.h"

enum { N = 90, D = 37, B = 19, STEPS = 4 };

/* blocks: as VAE_CUDA_PERSISTENT. */
static void open_model(model_fixture *f, const vae_config *config, vae_dtype dtype, size_t batch,
                       unsigned blocks)
{
    char text[16];
    snprintf(text, sizeof text, "%u", blocks);
    setenv("VAE_CUDA_PERSISTENT", text, 1);
    fixture_open(f, config, dtype, N > batch ? N : batch, D, batch, 1);
}

/* The backend with it: the next one may be opened otherwise. */
static void close_model(model_fixture *f)
{
    assert_int_equal(f->be->ops->sync(f->be, NULL), VAE_OK);
    f->be->ops->data_close(f->be, f->data);
    vae_model_free(f->model);
    f->be->ops->close(f->be);
    free(f->set.rows);
    free(f->set.labels);
    vae_classes_clear(&f->set.classes);
    free(f->params);
}

/* n steps from step `begun` on, at_once of them in a call. */
static void train(model_fixture *f, uint64_t begun, size_t n, size_t batch, size_t at_once)
{
    vae_plan plan[16];
    assert_true(at_once <= 16);
    for (size_t i = 0; i < n; i += at_once) {
        const size_t some = n - i < at_once ? n - i : at_once;
        for (size_t j = 0; j < some; j++) {
            const uint64_t t = begun + i + j + 1;
            plan[j] = (vae_plan){.draw = t,
                                 .step = t,
                                 .first = (t - 1) * batch % (f->set.n - batch + 1),
                                 .order_key = 77,
                                 .shuffle = 1,
                                 .beta = 0.7f,
                                 .lr = 1e-2f,
                                 .step_size = (float)(1e-2 / (1 - pow(0.9, (double)t))),
                                 .rsqrt_c2 = (float)(1 / sqrt(1 - pow(0.999, (double)t)))};
        }
        vae_model_train(f->model, f->data, plan, some, batch);
    }
}

static float *state_of(model_fixture *f, vae_state which)
{
    float *values = malloc(f->n_params * sizeof *values);
    assert_non_null(values);
    assert_int_equal(vae_model_get(f->model, which, values, NULL), VAE_OK);
    return values;
}

/* Did it train by the one kernel? */
static bool by_one_kernel(const model_fixture *f)
{
    char text[4096];
    f->be->ops->describe(f->be, text, sizeof text);
    return strstr(text, "whole steps by one kernel") != NULL;
}

static void assert_near(const char *what, double got, double want, double tolerance)
{
    if (!(fabs(got - want) <= tolerance * (fabs(want) + 1e-3))) {
        fail_msg("%s: %.9g, by ordinary steps %.9g", what, got, want);
    }
}

/* A few steps either way: totals, gradients of the last one, parameters and moments. */
static void compare(const char *name, const vae_config *config, vae_dtype dtype, size_t batch)
{
    float *got[4], *want[4];
    vae_totals totals[2];
    size_t n = 0;
    for (unsigned blocks = 0; blocks <= 3; blocks += 3) {
        model_fixture f;
        open_model(&f, config, dtype, batch, blocks);
        train(&f, 0, STEPS, batch, 3);
        totals[blocks / 3] = fixture_totals(&f);
        for (int which = VAE_PARAMS; which <= VAE_GRADS; which++) {
            (blocks > 0 ? got : want)[which] = state_of(&f, (vae_state)which);
        }
        n = f.n_params;
        if (by_one_kernel(&f) != (blocks > 0)) {
            fail_msg("%s: taken the other way", name);
        }
        close_model(&f);
    }
    const bool exact = device_precision() == VAE_FP32;
    const double few = exact ? 1e-5 : 0.02;
    assert_near("recon", totals[1].recon, totals[0].recon, few);
    assert_near("kl", totals[1].kl, totals[0].kl, few);
    assert_near("objective", totals[1].objective, totals[0].objective, few);
    assert_near("the gradient's norm", totals[1].grad_norm, totals[0].grad_norm, 10 * few);
    assert_true(totals[1].examples == (double)(STEPS * batch) && totals[1].bad_step == 0);
    for (int which = VAE_PARAMS; which <= VAE_GRADS; which++) {
        double *reference = to_doubles(want[which], n), error = nmse(got[which], reference, n);
        if (!(error <= (exact ? 1e-7 : 2e-2))) {
            fail_msg("%s, state %d: nmse %.3g", name, which, error);
        }
        free(reference), free(got[which]), free(want[which]);
    }
}

static void trains_as_ordinary_steps_do(void **state)
{
    (void)state;
    vae_config config = small_config();
    compare("plain", &config, VAE_U8, B);
    config.hidden = (vae_sizes){1, {40}}; /* more than a tile of columns; one layer a side */
    config.latent = 17;                   /* head of two tiles, no whole quads */
    compare("one layer", &config, VAE_F32, B);
    config.hidden = (vae_sizes){3, {33, 16, 7}};
    config.decoder_hidden = (vae_sizes){2, {5, 50}};
    config.latent = 4;
    config.activation = VAE_ACT_GELU; /* keeps its input */
    config.binarize = VAE_BINARIZE_DYNAMIC;
    compare("deep", &config, VAE_U8, 33);
    config.activation = VAE_ACT_TANH;
    config.binarize = VAE_BINARIZE_STATIC;
    compare("static", &config, VAE_F32, 5);
    config = small_config();
    config.likelihood = VAE_GAUSSIAN;
    config.variance = 0.3;
    config.activation = VAE_ACT_SILU;
    config.clip_norm = 0.5;
    config.optimizer = VAE_ADAMW;
    config.weight_decay = 0.1;
    compare("gaussian, clipped", &config, VAE_F32, B);
    config = small_config();
    config.binarize = VAE_BINARIZE_THRESHOLD;
    config.activation = VAE_ACT_LEAKY_RELU;
    compare("a single row", &config, VAE_U8, 1);
}

/* Blocks, and steps in a call. */
static void bits_do_not_depend_on_how_it_is_cut(void **state)
{
    (void)state;
    static const struct {
        unsigned blocks;
        size_t at_once;
    } cases[] = {{3, 1}, {2, 7}, {4, 7}, {1, 7}, {2, 3}};
    vae_config config = small_config();
    config.hidden = (vae_sizes){2, {45, 40}}; /* 40: two blocks do the same rows */
    config.clip_norm = 3;
    float *first[4];
    vae_totals first_totals;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        model_fixture f;
        open_model(&f, &config, VAE_U8, 35, cases[i].blocks);
        train(&f, 0, 7, 35, cases[i].at_once);
        vae_totals totals = fixture_totals(&f);
        first_totals = i == 0 ? totals : first_totals;
        assert_memory_equal(&totals, &first_totals, sizeof totals);
        for (int which = VAE_PARAMS; which <= VAE_GRADS; which++) {
            float *got = state_of(&f, (vae_state)which);
            if (i == 0) {
                first[which] = got;
                continue;
            }
            assert_memory_equal(got, first[which], f.n_params * sizeof *got);
            free(got);
        }
        assert_true(by_one_kernel(&f));
        close_model(&f);
    }
    for (int which = VAE_PARAMS; which <= VAE_GRADS; which++) {
        free(first[which]);
    }
}

/* Batches of two sizes, measuring between them, ordinary steps after them: the cursor, the batch's
 * two places and the twins of parameters serve all. */
static void goes_with_other_passes(void **state)
{
    (void)state;
    vae_config config = small_config();
    double loss[2];
    for (unsigned blocks = 0; blocks <= 2; blocks += 2) {
        model_fixture f;
        open_model(&f, &config, VAE_U8, B, blocks);
        const vae_plan plan[2] = {vae_eval_plan(0, 0), vae_eval_plan(0, B)};
        train(&f, 0, 3, B, 3);
        vae_model_measure(f.model, f.data, plan, 2, B);
        train(&f, 3, 2, B - 3, 2);
        vae_model_measure(f.model, f.data, plan, 2, B);
        loss[blocks / 2] = fixture_totals(&f).objective;
        close_model(&f);
    }
    assert_near("loss", loss[1], loss[0], device_precision() == VAE_FP32 ? 1e-5 : 0.02);
}

/* A loss that is not finite, or a gradient alone: nothing changes from that step on. */
static void bad_steps_change_nothing(void **state)
{
    (void)state;
    for (int kind = 0; kind < 3; kind++) {
        vae_config config = small_config();
        vae_totals totals;
        vae_error err = {0};
        model_fixture f;
        config.likelihood = VAE_GAUSSIAN;
        config.hidden = (vae_sizes){1, {6}};
        config.activation = VAE_ACT_TANH;
        open_model(&f, &config, VAE_F32, B, 3);
        if (kind == 2) { /* h = tanh(0) = 0, but its gradient goes through a head of huge weights */
            const size_t first = 6 * D + 6, head = 6 * 2 * config.latent;
            for (size_t i = 0; i < f.n_params; i++) {
                f.params[i] = i < first ? 0 : i < first + head ? 3e38f : 100 * f.params[i];
            }
            assert_int_equal(vae_model_set(f.model, VAE_PARAMS, f.params, NULL), VAE_OK);
        } else {
            train(&f, 0, 2, B, 2);
        }
        float *before = state_of(&f, VAE_PARAMS), *moments = state_of(&f, VAE_ADAM_V);
        if (kind < 2) { /* no row is safe */
            f.be->ops->data_close(f.be, f.data);
            for (size_t i = 0; i < f.set.n; i++) {
                ((float *)f.set.rows)[i * D + 3] = kind == 0 ? NAN : 3e38f;
            }
            f.data = f.be->ops->data_open(f.be, &f.set, NULL, f.set.n);
        }
        train(&f, 2, 3, B, 3);
        assert_int_equal(vae_model_totals(f.model, &totals, false, &err), VAE_ERR_DIVERGED);
        assert_int_equal(totals.bad_step, 3);
        assert_true(isfinite(totals.objective) == (kind == 2));
        float *after = state_of(&f, VAE_PARAMS), *later = state_of(&f, VAE_ADAM_V);
        assert_memory_equal(after, before, f.n_params * sizeof *after);
        assert_memory_equal(later, moments, f.n_params * sizeof *later);
        assert_true(by_one_kernel(&f));
        free(before), free(moments), free(after), free(later);
        close_model(&f);
    }
}

/* Who takes ordinary steps, whose bits are then those of a backend that has no others. */
static void not_for_everyone(void **state)
{
    (void)state;
    enum { ROWS, PARTICLES, IWAE, FREE_BITS, LEARNED, SIGMOID, CLASSES, STREAMED, REFUSALS };
    for (int why = 0; why < REFUSALS; why++) {
        vae_config config = small_config();
        const size_t batch = why == ROWS ? 257 : B;
        float *got[2];
        size_t n = 0;
        config.particles = why == PARTICLES ? 2 : 1;
        config.objective = why == IWAE ? VAE_OBJ_IWAE : VAE_OBJ_ELBO;
        config.free_bits = why == FREE_BITS ? 0.1 : 0;
        config.likelihood = why == LEARNED   ? VAE_GAUSSIAN_LEARNED
                            : why == SIGMOID ? VAE_GAUSSIAN
                                             : VAE_BERNOULLI;
        config.mean = why == SIGMOID ? VAE_MEAN_SIGMOID : VAE_MEAN_LINEAR;
        if (why == CLASSES) {
            config.condition = VAE_CONDITION_LABELS;
            config.classes = 4;
        }
        if (why == STREAMED) {
            setenv("VAE_CUDA_STREAM_DATA", "1", 1);
        }
        for (unsigned blocks = 0; blocks <= 2; blocks += 2) {
            model_fixture f;
            open_model(&f, &config, VAE_F32, batch, blocks);
            train(&f, 0, 1, batch, 1);
            got[blocks / 2] = state_of(&f, VAE_PARAMS);
            n = f.n_params;
            if (by_one_kernel(&f)) {
                fail_msg("refusal %d is none", why);
            }
            close_model(&f);
        }
        assert_memory_equal(got[0], got[1], n * sizeof *got[0]);
        free(got[0]), free(got[1]);
        unsetenv("VAE_CUDA_STREAM_DATA");
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(trains_as_ordinary_steps_do),
        cmocka_unit_test(bits_do_not_depend_on_how_it_is_cut),
        cmocka_unit_test(goes_with_other_passes),
        cmocka_unit_test(bad_steps_change_nothing),
        cmocka_unit_test(not_for_everyone),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
