/* bf16 on the CPU and on a GPU are twins: from the same parameters a step makes the same losses and
 * gradients, but for the last bit of what is rounded, whatever the model. Built for the emulation and
 * for a GPU only. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <math.h>
#include <stdlib.h>

#include "model_fixture.h"

enum { N = 120, D = 64, B = 29, STEPS = 5, TWINS = 2 };

static void assert_near(const char *name, const char *what, uint64_t step, double cpu, double gpu,
                        double most)
{
    if (!(fabs(cpu - gpu) <= most * (fabs(cpu) + 1e-2))) {
        fail_msg("%s, step %d: %s is %.7g on the CPU, %.7g on the GPU", name, (int)step, what, cpu,
                 gpu);
    }
}

/* One step of each, from the CPU's state. */
static void step(const char *name, model_fixture twins[TWINS], uint64_t t, double lr)
{
    const size_t n = twins[0].n_params;
    float *state = malloc(n * sizeof *state), *grads = malloc(n * sizeof *grads);
    assert_true(state != NULL && grads != NULL);
    vae_totals totals[TWINS];
    const vae_plan plan = {.draw = t,
                           .step = t,
                           .first = t * 7 % (N - B),
                           .order_key = 77,
                           .shuffle = 1,
                           .beta = 0.7f,
                           .lr = (float)lr,
                           .step_size = (float)(lr / (1 - pow(0.9, (double)t))),
                           .rsqrt_c2 = (float)(1 / sqrt(1 - pow(0.999, (double)t)))};
    for (int which = VAE_PARAMS; which <= VAE_ADAM_V; which++) {
        assert_int_equal(vae_model_get(twins[0].model, (vae_state)which, state, NULL), VAE_OK);
        assert_int_equal(vae_model_set(twins[1].model, (vae_state)which, state, NULL), VAE_OK);
    }
    for (int i = 0; i < TWINS; i++) {
        vae_model_train(twins[i].model, twins[i].data, &plan, 1, B);
        totals[i] = fixture_totals(&twins[i]);
    }
    assert_near(name, "recon", t, totals[0].recon, totals[1].recon, 2e-3);
    assert_near(name, "kl", t, totals[0].kl, totals[1].kl, 2e-2);
    assert_near(name, "the gradient's norm", t, totals[0].grad_norm, totals[1].grad_norm, 2e-2);
    assert_int_equal(vae_model_get(twins[0].model, VAE_GRADS, state, NULL), VAE_OK);
    assert_int_equal(vae_model_get(twins[1].model, VAE_GRADS, grads, NULL), VAE_OK);
    double *want = to_doubles(state, n), error = nmse(grads, want, n);
    if (!(error > 0 && error <= 2e-5)) { /* 0: both were made by one of them */
        fail_msg("%s, step %d: gradients' nmse is %.3g", name, (int)t, error);
    }
    free(want), free(state), free(grads);
}

static void compare(const char *name, const vae_config *config, vae_dtype dtype, double lr)
{
    model_fixture twins[TWINS];
    static const char *const devices[TWINS] = {"cpu", "cuda"};
    for (int i = 0; i < TWINS; i++) {
        device_keep_none();
        setenv("VAE_TEST_DEVICE", devices[i], 1);
        fixture_open(&twins[i], config, dtype, N, D, B, 2);
        assert_string_equal(twins[i].be->ops->name, devices[i]);
        for (size_t j = 0; j < twins[i].n_params; j++) {
            twins[i].params[j] *= 0.25f; /* large ones make variances that magnify any rounding */
        }
        assert_int_equal(vae_model_set(twins[i].model, VAE_PARAMS, twins[i].params, NULL), VAE_OK);
    }
    for (uint64_t t = 1; t <= STEPS; t++) {
        step(name, twins, t, lr);
    }
    for (int i = 0; i < TWINS; i++) {
        setenv("VAE_TEST_DEVICE", devices[i], 1);
        fixture_close(&twins[i]);
    }
}

static void every_kind_of_model(void **state)
{
    (void)state;
    vae_config config = small_config();
    config.hidden = (vae_sizes){2, {45, 20}};
    config.latent = 7;
    config.activation = VAE_ACT_TANH; /* relu's derivative jumps where a value is rounded to 0 */
    compare("bernoulli", &config, VAE_U8, 1e-2);
    config.binarize = VAE_BINARIZE_DYNAMIC;
    config.activation = VAE_ACT_GELU; /* keeps its input */
    config.clip_norm = 1;
    compare("dynamic, gelu, clipped", &config, VAE_U8, 1e-2);
    config.binarize = VAE_BINARIZE_NONE;
    config.activation = VAE_ACT_SOFTPLUS;
    config.likelihood = VAE_GAUSSIAN;
    compare("gaussian", &config, VAE_F32, 1e-2);
    config.likelihood = VAE_GAUSSIAN_LEARNED;
    compare("gaussian, learned", &config, VAE_F32, 1e-3);
    config.likelihood = VAE_BERNOULLI;
    config.particles = 3;
    config.objective = VAE_OBJ_IWAE;
    compare("iwae", &config, VAE_U8, 1e-2);
    config.objective = VAE_OBJ_DREG;
    compare("dreg", &config, VAE_U8, 1e-2);
    config.objective = VAE_OBJ_ELBO;
    config.particles = 2;
    config.free_bits = 0.1;
    compare("two particles, free bits", &config, VAE_U8, 1e-2);
}

static void convolutions_and_classes(void **state)
{
    (void)state;
    vae_config config = small_config();
    config.activation = VAE_ACT_TANH;
    config.hidden = (vae_sizes){1, {20}};
    config.latent = 5;
    config.classes = 3;
    config.condition = VAE_CONDITION_LABELS;
    compare("conditional", &config, VAE_U8, 1e-2);
    config.condition = VAE_CONDITION_NONE;
    config.classes = 0;
    config.conv = (vae_sizes){2, {6, 9}};
    config.flip = true;
    compare("convolutions", &config, VAE_U8, 1e-2);
    config.activation = VAE_ACT_SILU;
    compare("convolutions, silu", &config, VAE_U8, 1e-2);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(every_kind_of_model),
                                       cmocka_unit_test(convolutions_and_classes)};
    setenv("VAE_TEST_PRECISION", "bf16", 1);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
