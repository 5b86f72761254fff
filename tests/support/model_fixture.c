/* A small model, its data and its plan. */
#include "model_fixture.h"

#include <setjmp.h>
#include <stdarg.h>

#include <cmocka.h>

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "philox.h"

vae_config small_config(void)
{
    return (vae_config){.hidden = {2, {6, 5}},
                        .latent = 3,
                        .activation = VAE_ACT_RELU,
                        .likelihood = VAE_BERNOULLI,
                        .variance = 1,
                        .particles = 1,
                        .beta = 1,
                        .optimizer = VAE_ADAM,
                        .adam_beta1 = 0.9,
                        .adam_beta2 = 0.999,
                        .adam_eps = 1e-8,
                        .seed = 12345678901234567u};
}

static void fill(model_fixture *f, vae_dtype dtype, size_t n, size_t D)
{
    uint64_t rng = 5;
    bool real = !vae_likelihood_of(f->config.likelihood)->unit;
    const row_shape shape = ref_shape(&f->config, D);
    f->set = (vae_dataset){
        .n = n, .d = D, .height = shape.h, .width = shape.w, .channels = shape.c, .dtype = dtype};
    f->set.rows = malloc(n * D * (dtype == VAE_U8 ? 1 : sizeof(float)));
    assert_non_null(f->set.rows);
    if (vae_config_has_classes(&f->config)) {
        f->set.labels = malloc(n * sizeof *f->set.labels);
        assert_non_null(f->set.labels);
        assert_int_equal(vae_classes_number(&f->set.classes, f->config.classes, NULL), VAE_OK);
        for (size_t i = 0; i < n; i++) {
            f->set.labels[i] = (uint32_t)(random_u64(&rng) % f->config.classes);
        }
    }
    for (size_t i = 0; i < n * D; i++) {
        if (dtype == VAE_U8) {
            ((uint8_t *)f->set.rows)[i] = (uint8_t)random_u64(&rng);
        } else {
            ((float *)f->set.rows)[i] = real ? random_normal(&rng) : random_uniform(&rng, 0, 1);
        }
    }
}

void fixture_open(model_fixture *f, const vae_config *config, vae_dtype dtype, size_t n, size_t D,
                  size_t max_batch, size_t threads)
{
    vae_error err = {0};
    uint64_t rng = 11;
    *f = (model_fixture){.config = *config, .max_batch = max_batch};
    fill(f, dtype, n, D);
    f->be = device_open_backend(threads);
    if (vae_model_create(&f->model, config, ref_shape(config, D), max_batch, true, f->be, &err) !=
        VAE_OK) {
        fail_msg("vae_model_create: %s", err.text);
    }
    f->data = f->be->ops->data_open(f->be, &f->set, NULL, n);
    assert_non_null(f->data);
    f->n_params = ref_n_params(config, D);
    assert_int_equal(vae_model_layout(f->model)->n_params, f->n_params);
    f->params = malloc(f->n_params * sizeof *f->params);
    assert_non_null(f->params);
    for (size_t i = 0; i < f->n_params; i++) {
        f->params[i] = random_uniform(&rng, -0.5f, 0.5f);
    }
    assert_int_equal(vae_model_set(f->model, VAE_PARAMS, f->params, &err), VAE_OK);
}

void fixture_close(model_fixture *f)
{
    assert_int_equal(f->be->ops->sync(f->be, NULL), VAE_OK);
    f->be->ops->data_close(f->be, f->data);
    vae_model_free(f->model);
    device_close_backend(f->be);
    free(f->set.rows);
    free(f->set.labels);
    vae_classes_clear(&f->set.classes);
    free(f->params);
}

vae_plan still_plan(uint64_t draw, uint64_t first, float beta)
{
    return (vae_plan){.draw = draw, .first = first, .beta = beta, .rsqrt_c2 = 1, .step = draw};
}

double *fixture_eps(const model_fixture *f, const vae_plan *plan, size_t B, size_t K)
{
    const size_t Z = f->config.latent, quads = (Z + 3) / 4;
    double *eps = malloc(B * K * Z * sizeof *eps);
    assert_non_null(eps);
    for (size_t i = 0; i < B * K * Z; i++) {
        float four[4];
        size_t row = i / Z, j = i % Z;
        vae_eps4(f->config.seed, VAE_RNG_EPS, plan->first + row / K, (uint32_t)quads,
                 (uint32_t)(j / 4), plan->draw, plan->particle0 + (uint32_t)(row % K), four);
        eps[i] = (double)four[j % 4];
    }
    return eps;
}

double *fixture_x(const model_fixture *f, size_t first, size_t B)
{
    const size_t D = f->set.d;
    double *x = malloc(B * D * sizeof *x);
    assert_non_null(x);
    for (size_t i = 0; i < B * D; i++) {
        const uint8_t *bytes = f->set.rows;
        const float *floats = f->set.rows;
        x[i] =
            f->set.dtype == VAE_U8 ? bytes[first * D + i] / 255.0 : (double)floats[first * D + i];
    }
    return x;
}

uint32_t *fixture_labels(const model_fixture *f, size_t first, size_t B)
{
    uint32_t *labels = calloc(B, sizeof *labels);
    assert_non_null(labels);
    for (size_t i = 0; f->set.labels != NULL && i < B; i++) {
        labels[i] = f->set.labels[first + i];
    }
    return labels;
}

double *to_doubles(const float *values, size_t n)
{
    double *out = malloc(n * sizeof *out);
    assert_non_null(out);
    for (size_t i = 0; i < n; i++) {
        out[i] = (double)values[i];
    }
    return out;
}

vae_totals fixture_totals(model_fixture *f)
{
    vae_totals totals;
    vae_error err = {0};
    if (vae_model_totals(f->model, &totals, true, &err) != VAE_OK) {
        fail_msg("vae_model_totals: %s", err.text);
    }
    return totals;
}
