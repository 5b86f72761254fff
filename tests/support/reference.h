/* The VAE in double precision, written for clarity and apart from the code under test: the loss of
 * a small model as a plain function of its parameters, whose gradient is taken by finite
 * differences, and the surrogates whose gradients define the STL and DReG estimators. */
#ifndef VAE_TEST_REFERENCE_H
#define VAE_TEST_REFERENCE_H

#include <stddef.h>
#include <stdint.h>

#include "config/config.h"
#include "model/layout.h"

double ref_act(vae_activation act, double x);
/* By the pre-activation x. */
double ref_dact(vae_activation act, double x);
/* -log p(x|m, raw) of one value, nats; m is the logit or the mean, raw the decoder's log variance
 * where that is learned. */
double ref_recon(vae_likelihood likelihood, vae_mean mean, double variance, double m, double raw,
                 double x);

/* One batch under one model. Parameters are packed: layers in order, weight (out,in), then bias. */
typedef struct {
    const vae_config *config;
    size_t D, B, K;
    double beta;
    const double *x;       /* (B,D) */
    const double *eps;     /* (B*K,Z) */
    const uint32_t *label; /* (B), of a model with classes */
} ref_batch;

typedef struct {
    double recon, kl; /* sums over examples (of means over particles), nats */
    double objective; /* the same of what is minimized */
    double *mu, *logvar, *z, *recon_row, *log_pq, *x_hat; /* may be NULL; (B,Z) (B*K,Z) (B*K,D) */
} ref_result;

/* Rows of D values as tests take them: flat, or with convolutions 4 x 8 pixels. */
row_shape ref_shape(const vae_config *config, size_t D);
size_t ref_n_params(const vae_config *config, size_t D);
/* Size of the packed encoder: parameters before it are the encoder's. */
size_t ref_n_encoder(const vae_config *config, size_t D);
void ref_forward(ref_result *out, const ref_batch *batch, const double *params);
/* grad: (n_params) of the mean objective over the batch, as config->objective estimates it. */
void ref_gradient(double *grad, const ref_batch *batch, const double *params);
/* The semi-supervised loss of one step (Kingma et al. 2014): batch->B unlabelled rows of x, then
 * n_labelled ones, whose labels are batch->label[B], ...; eps of B*C + n_labelled rows. share: of
 * the labelled part of the bound, weight: of its mean cross-entropy. out->recon and kl: sums over
 * the unlabelled rows, kl that of (z,y). */
double ref_semi_loss(ref_result *out, const ref_batch *batch, const double *params,
                     size_t n_labelled, double share, double weight);
/* KL of each latent, averaged over the batch: (Z). */
void ref_kl_dims(double *kl_dim, const ref_batch *batch, const double *params);

#endif
