/* The gradient of the whole step, for every likelihood, activation and objective, against central
 * differences in double of an independent model (reference.c) with the same noise and batch. */
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

enum { FLAT = 7, PICTURE = 64, B = 5, N = 12, FIRST = 4 };

/* Columns of the data: rows without a shape, or, for convolutions, pictures of 4 x 8 x 2. */
static size_t columns_of(const vae_config *config)
{
    return config->conv.n > 0 ? PICTURE : FLAT;
}

/* Relative error of a gradient's norm that a precision may show. Under a small variance losses are
 * some hundreds, and weights, powers of their differences, as exact as floats of some hundreds. */
static double gradient_bound(const vae_config *config)
{
    switch (device_precision()) {
    case VAE_BF16:
        return 1e-1;
    case VAE_TF32:
        return 5e-3;
    case VAE_FP32:
    default:
        return config->variance < 0.03 ? 1e-4 : 1e-5;
    }
}

static double norm_of(const double *v, size_t n)
{
    double sum = 0;
    for (size_t i = 0; i < n; i++) {
        sum += v[i] * v[i];
    }
    return sqrt(sum);
}

/* Tensor by tensor, so that a small one's error does not hide behind a large one. */
static void compare_gradients(const model_fixture *f, const float *got, const double *want)
{
    const param_layout *layout = vae_model_layout(f->model);
    const double all = norm_of(want, f->n_params), bound = gradient_bound(&f->config);
    /* in lower precisions kinks of relu move: a small tensor's error is measured by the whole */
    const double share = device_precision() == VAE_FP32 ? 1e-2 : 1;
    assert_true(all > 1e-3);
    size_t at = 0;
    for (size_t t = 0; t < layout->n; t++) {
        const size_t n = layout->tensors[t].rows * layout->tensors[t].cols;
        double error = 0, norm = norm_of(want + at, n);
        for (size_t i = at; i < at + n; i++) {
            error += ((double)got[i] - want[i]) * ((double)got[i] - want[i]);
        }
        if (!(sqrt(error) <= bound * (norm + share * all))) {
            fail_msg("%s: error %.3g of norm %.3g (likelihood %d, activation %d, objective %d, "
                     "K %zu)",
                     layout->tensors[t].name, sqrt(error), norm, f->config.likelihood,
                     f->config.activation, f->config.objective, f->config.particles);
        }
        at += n;
    }
}

static void assert_total(const char *what, double got, double want, double scale)
{
    double bound = device_precision() == VAE_FP32 ? 2e-6 : 2e-2;
    if (!(fabs(got - want) <= bound * (fabs(want) + scale))) {
        fail_msg("%s is %.9g, expected %.9g", what, got, want);
    }
}

static void check_gradient(const vae_config *config, vae_dtype dtype)
{
    const size_t D = columns_of(config);
    model_fixture f;
    ref_result want = {0};
    fixture_open(&f, config, dtype, N, D, B, 2);
    const vae_plan plan = still_plan(9, FIRST, (float)config->beta);
    double *x = fixture_x(&f, FIRST, B), *eps = fixture_eps(&f, &plan, B, config->particles);
    double *params = to_doubles(f.params, f.n_params);
    double *grad = malloc(f.n_params * sizeof *grad);
    float *got = malloc(f.n_params * sizeof *got);
    uint32_t *label = fixture_labels(&f, FIRST, B);
    ref_batch batch = {&f.config, D, B, config->particles, (double)plan.beta, x, eps, label};
    ref_gradient(grad, &batch, params);
    ref_forward(&want, &batch, params);
    vae_model_train(f.model, f.data, &plan, 1, B);
    vae_totals totals = fixture_totals(&f);
    assert_total("recon", totals.recon, want.recon, 1);
    assert_total("kl", totals.kl, want.kl, 1);
    assert_total("objective", totals.objective, want.objective, 1);
    assert_total("grad_norm", totals.grad_norm / norm_of(grad, f.n_params), 1, 4);
    assert_true(totals.examples == B && totals.bad_step == 0);
    assert_int_equal(vae_model_get(f.model, VAE_GRADS, got, NULL), VAE_OK);
    compare_gradients(&f, got, grad);
    assert_int_equal(vae_model_get(f.model, VAE_PARAMS, got, NULL), VAE_OK);
    assert_memory_equal(got, f.params, f.n_params * sizeof *got); /* lr = 0 */
    free(x), free(eps), free(params), free(grad), free(got), free(label);
    fixture_close(&f);
}

/* Free bits between the smallest and the largest KL: some latents are free, some are not. */
static double some_free(const vae_config *config)
{
    const size_t D = columns_of(config);
    model_fixture f;
    double kl_dim[16], low = INFINITY, high = 0;
    fixture_open(&f, config, VAE_F32, N, D, B, 1);
    double *x = fixture_x(&f, FIRST, B), *params = to_doubles(f.params, f.n_params);
    uint32_t *label = fixture_labels(&f, FIRST, B);
    ref_batch batch = {.config = config, .D = D, .B = B, .K = 1, .x = x, .label = label};
    ref_kl_dims(kl_dim, &batch, params);
    for (size_t j = 0; j < config->latent; j++) {
        low = fmin(low, kl_dim[j]), high = fmax(high, kl_dim[j]);
    }
    assert_true(high > 1.1 * low);
    free(x), free(params), free(label);
    fixture_close(&f);
    return (low + high) / 2;
}

static void check_all(vae_config config)
{
    const bool free_bits = config.free_bits > 0;
    for (int likelihood = 0; likelihood < VAE_N_IN_STEP; likelihood++) {
        for (int act = VAE_ACT_NONE + 1; act <= VAE_ACT_LAST; act++) {
            config.likelihood = (vae_likelihood)likelihood;
            config.activation = (vae_activation)act;
            bool kinked = act == VAE_ACT_RELU || act == VAE_ACT_LEAKY_RELU;
            /* tf32 moves some too, and convolutions have many units */
            const bool moved = device_precision() == VAE_BF16 ||
                               (device_precision() == VAE_TF32 && config.conv.n > 0);
            if (kinked && moved) {
                continue; /* a unit that falls on the other side of its kink is a whole derivative
                           */
            }
            config.variance = likelihood == VAE_GAUSSIAN ? 0.5 : 1;
            config.free_bits = free_bits ? some_free(&config) : 0;
            check_gradient(&config, VAE_F32);
        }
    }
}

static void elbo_with_beta(void **state)
{
    (void)state;
    vae_config config = small_config();
    config.beta = 0.7;
    check_all(config);
}

static void elbo_of_three_particles(void **state)
{
    (void)state;
    vae_config config = small_config();
    config.particles = 3;
    config.beta = 2.5;
    check_all(config);
}

static void elbo_with_free_bits(void **state)
{
    (void)state;
    vae_config config = small_config();
    config.latent = 5; /* so many that their KLs lie apart */
    config.particles = 2;
    config.free_bits = 1;
    config.beta = 1.5;
    check_all(config);
}

static void check_objective(vae_objective objective)
{
    vae_config config = small_config();
    config.objective = objective;
    for (config.particles = 1; config.particles <= 4; config.particles += 3) {
        check_all(config);
    }
}

static void iwae(void **state)
{
    (void)state;
    check_objective(VAE_OBJ_IWAE);
}

static void sticking_the_landing(void **state)
{
    (void)state;
    check_objective(VAE_OBJ_STL);
}

static void doubly_reparameterized(void **state)
{
    (void)state;
    check_objective(VAE_OBJ_DREG);
}

/* Other shapes: no hidden layer, one, a decoder of its own, sizes on the padding's edge, bytes. */
static void shapes(void **state)
{
    (void)state;
    static const struct {
        vae_sizes hidden, decoder;
        size_t latent;
    } cases[] = {
        {{0, {0}}, {0, {0}}, 2},        {{1, {16}}, {0, {0}}, 16}, {{1, {17}}, {2, {3, 9}}, 1},
        {{3, {4, 8, 5}}, {1, {15}}, 5}, {{1, {1}}, {0, {0}}, 4},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        vae_config config = small_config();
        config.hidden = cases[i].hidden;
        config.decoder_hidden = cases[i].decoder;
        config.latent = cases[i].latent;
        config.activation = VAE_ACT_TANH;
        config.objective = i % 2 == 1 ? VAE_OBJ_IWAE : VAE_OBJ_ELBO;
        config.particles = i % 2 == 1 ? 2 : 1;
        check_gradient(&config, VAE_U8);
    }
}

/* Encoder and decoder see the class. */
static void conditional(void **state)
{
    (void)state;
    vae_config config = small_config();
    config.condition = VAE_CONDITION_LABELS;
    config.classes = 3;
    config.beta = 0.7;
    check_all(config);
    config.free_bits = 1;
    config.particles = 2;
    check_all(config);
    config.free_bits = 0;
    config.beta = 1;
    config.objective = VAE_OBJ_DREG;
    check_all(config);
    config.objective = VAE_OBJ_IWAE;
    config.latent = 4; /* nothing between z and the class */
    config.classes = 17;
    check_all(config);
}

/* ---- semi-supervised ---- */

enum { EXTRA = 4, LABELLED = 3 };

static void check_semi(vae_config config, vae_dtype dtype)
{
    const size_t C = config.classes, rows = B * C + LABELLED, base = B + LABELLED;
    const size_t D = columns_of(&config);
    model_fixture f;
    config.semi_supervised = true;
    config.labelled = config.batch_size = LABELLED;
    fixture_open(&f, &config, dtype, N, D, B, 2);
    vae_plan plan = still_plan(9, 2, (float)config.beta);
    plan.extra_n = EXTRA, plan.extra_at = B, plan.extra_first = 6, plan.extra_key = 99;
    plan.labelled_share = 0.375f;
    double *x = malloc(base * D * sizeof *x), *eps = fixture_eps(&f, &plan, rows, 1);
    uint32_t label[B + LABELLED];
    for (size_t b = 0; b < base; b++) {
        const size_t row = (size_t)vae_plan_row(&plan, N, 2, b);
        assert_true(b < B ? row == 2 + b : row >= N - EXTRA && row < N);
        double *one = fixture_x(&f, row, 1);
        memcpy(x + b * D, one, D * sizeof *x);
        free(one);
        label[b] = f.set.labels[row];
    }
    const ref_batch batch = {&f.config, D, B, 1, (double)plan.beta, x, eps, label};
    double *params = to_doubles(f.params, f.n_params), *grad = malloc(f.n_params * sizeof *grad);
    float *got = malloc(f.n_params * sizeof *got);
    ref_result want = {0}, ignored;
    const double w = (double)(float)config.classifier_weight, h = 1e-5;
    for (size_t i = 0; i < f.n_params; i++) {
        const double at = params[i];
        params[i] = at + h;
        grad[i] = ref_semi_loss(&ignored, &batch, params, LABELLED, 0.375, w);
        params[i] = at - h;
        grad[i] = (grad[i] - ref_semi_loss(&ignored, &batch, params, LABELLED, 0.375, w)) / (2 * h);
        params[i] = at;
    }
    const double loss = ref_semi_loss(&want, &batch, params, LABELLED, 0.375, w);
    vae_model_train(f.model, f.data, &plan, 1, B);
    vae_totals totals = fixture_totals(&f);
    assert_total("recon", totals.recon, want.recon, 1);
    assert_total("kl", totals.kl, want.kl, 1);
    assert_total("objective", totals.objective, B * loss, 1);
    assert_true(totals.examples == B && totals.classified == (double)base && totals.bad_step == 0);
    assert_int_equal(vae_model_get(f.model, VAE_GRADS, got, NULL), VAE_OK);
    compare_gradients(&f, got, grad);
    /* measured: the unlabelled bound of every row, without what is for training only */
    const vae_plan still = still_plan(9, 2, 1);
    vae_model_measure(f.model, f.data, &still, 1, B);
    const ref_batch measured = {&f.config, D, B, 1, 1, x, eps, label};
    const double bound = ref_semi_loss(&want, &measured, params, 0, 0, 0);
    totals = fixture_totals(&f);
    assert_total("measured recon", totals.recon, want.recon, 1);
    assert_total("measured bound", totals.recon + totals.kl, B * bound, 1);
    assert_total("measured objective", totals.objective, B * bound, 1);
    free(x), free(eps), free(params), free(grad), free(got);
    fixture_close(&f);
}

static void semi_supervised(void **state)
{
    (void)state;
    for (int likelihood = 0; likelihood < VAE_N_IN_STEP; likelihood++) {
        for (int act = VAE_ACT_NONE + 1; act <= VAE_ACT_LAST; act++) {
            vae_config config = small_config();
            config.likelihood = (vae_likelihood)likelihood;
            config.activation = (vae_activation)act;
            bool kinked = act == VAE_ACT_RELU || act == VAE_ACT_LEAKY_RELU;
            if (kinked && device_precision() == VAE_BF16) {
                continue;
            }
            config.variance = likelihood == VAE_GAUSSIAN ? 0.5 : 1;
            config.beta = act == VAE_ACT_TANH ? 0.5 : 1;
            config.classifier_weight = act == VAE_ACT_SOFTPLUS ? 3 : 0.1;
            config.classes = act == VAE_ACT_GELU ? 16 : 3;
            config.hidden.n = act == VAE_ACT_TANH ? 1 : 2;
            check_semi(config, act == VAE_ACT_TANH ? VAE_U8 : VAE_F32);
        }
    }
}

/* ---- convolutions ---- */

/* Rows of the pictures between the layers have padding, or not; hidden layers follow, or not. */
static vae_config conv_config(size_t i)
{
    static const struct {
        vae_sizes conv, hidden, decoder;
    } cases[] = {{{2, {3, 5}}, {0, {0}}, {0, {0}}},
                 {{1, {4}}, {1, {6}}, {0, {0}}},
                 {{2, {2, 16}}, {2, {7, 5}}, {1, {3}}}};
    vae_config config = small_config();
    config.conv = cases[i % 3].conv;
    config.hidden = cases[i % 3].hidden;
    config.decoder_hidden = cases[i % 3].decoder;
    return config;
}

static void convolutions(void **state)
{
    (void)state;
    vae_config config = conv_config(0);
    config.beta = 0.7;
    check_all(config);
    for (size_t i = 1; i < 3; i++) {
        config = conv_config(i);
        config.activation = i == 1 ? VAE_ACT_GELU : VAE_ACT_TANH;
        config.particles = 2;
        config.objective = i == 1 ? VAE_OBJ_IWAE : VAE_OBJ_DREG;
        config.likelihood = i == 1 ? VAE_GAUSSIAN_LEARNED : VAE_BERNOULLI;
        check_gradient(&config, i == 1 ? VAE_F32 : VAE_U8);
    }
}

/* Of bytes, which lie in [0,1]; dense, convolutional, and under a bound of several particles. */
static void sigmoid_means(void **state)
{
    (void)state;
    static const vae_likelihood likelihoods[] = {VAE_GAUSSIAN, VAE_GAUSSIAN_LEARNED};
    for (size_t i = 0; i < 2; i++) {
        for (int objective = VAE_OBJ_ELBO; objective <= VAE_OBJ_STL; objective++) {
            vae_config config = small_config();
            config.activation = VAE_ACT_TANH;
            config.likelihood = likelihoods[i];
            config.mean = VAE_MEAN_SIGMOID;
            config.variance = i == 0 ? 0.05 : 1;
            config.objective = (vae_objective)objective;
            config.particles = objective == VAE_OBJ_ELBO ? 1 : 3;
            check_gradient(&config, VAE_U8);
            if (objective == VAE_OBJ_ELBO) {
                config.conv = conv_config(0).conv;
                check_gradient(&config, VAE_U8);
            }
        }
    }
}

static void convolutions_with_a_class(void **state)
{
    (void)state;
    for (size_t i = 0; i < 3; i++) {
        vae_config config = conv_config(i);
        config.condition = VAE_CONDITION_LABELS;
        config.classes = 3;
        config.activation = i == 1 ? VAE_ACT_SILU : VAE_ACT_TANH;
        check_gradient(&config, VAE_F32);
        config.condition = VAE_CONDITION_NONE;
        config.classifier_weight = 0.5;
        config.likelihood = i == 1 ? VAE_GAUSSIAN_LEARNED : VAE_BERNOULLI;
        check_semi(config, VAE_F32);
    }
}

/* Weights so unequal that most particles have no part in the gradient: their rows are left out of
 * the backward pass, of everything that the decoder's layers kept. */
static void particles_of_no_weight(void **state)
{
    (void)state;
    for (int objective = VAE_OBJ_IWAE; objective <= VAE_OBJ_STL; objective++) {
        for (size_t i = 0; i < 3; i++) {
            vae_config config = i == 2 ? conv_config(1) : small_config();
            config.objective = (vae_objective)objective;
            config.particles = 8;
            config.likelihood = VAE_GAUSSIAN;
            config.variance = 0.02;
            config.activation = i == 0 ? VAE_ACT_TANH : VAE_ACT_GELU;
            if (i == 1) {
                config.condition = VAE_CONDITION_LABELS;
                config.classes = 3;
            }
            check_gradient(&config, VAE_F32);
        }
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(sigmoid_means),
        cmocka_unit_test(elbo_with_beta),
        cmocka_unit_test(elbo_of_three_particles),
        cmocka_unit_test(elbo_with_free_bits),
        cmocka_unit_test(iwae),
        cmocka_unit_test(sticking_the_landing),
        cmocka_unit_test(doubly_reparameterized),
        cmocka_unit_test(particles_of_no_weight),
        cmocka_unit_test(shapes),
        cmocka_unit_test(conditional),
        cmocka_unit_test(semi_supervised),
        cmocka_unit_test(convolutions),
        cmocka_unit_test(convolutions_with_a_class),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
