/* What test_model.c and test_gradients.c share: a small model, its data and its plan. */
#ifndef VAE_TEST_MODEL_FIXTURE_H
#define VAE_TEST_MODEL_FIXTURE_H

#include "device.h"
#include "model/model.h"
#include "reference.h"

typedef struct {
    vae_config config;
    vae_dataset set;
    vae_backend *be;
    vae_model *model;
    vae_data *data;
    size_t max_batch, n_params;
    float *params; /* as set at the beginning */
} model_fixture;

/* A config without anything special: elbo, K = 1, beta = 1, Bernoulli, relu, hidden 6,5, Z = 3. */
vae_config small_config(void);
/* Rows of random values: in [0,1], or standard normal for Gaussians. dtype as asked. */
void fixture_open(model_fixture *f, const vae_config *config, vae_dtype dtype, size_t n, size_t D,
                  size_t max_batch, size_t threads);
void fixture_close(model_fixture *f);

/* Plan of a step that changes no parameter. */
vae_plan still_plan(uint64_t draw, uint64_t first, float beta);
/* The plan's noise: (B*K,Z), malloc'ed. */
double *fixture_eps(const model_fixture *f, const vae_plan *plan, size_t B, size_t K);
/* Rows first .. first+B-1 in order, (B,D), malloc'ed. */
double *fixture_x(const model_fixture *f, size_t first, size_t B);
/* Their labels, or zeros; malloc'ed. */
uint32_t *fixture_labels(const model_fixture *f, size_t first, size_t B);
double *to_doubles(const float *values, size_t n);
vae_totals fixture_totals(model_fixture *f);

#endif
