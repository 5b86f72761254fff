/* Figures of rows of bytes, x = byte/255, which mean the same for every model of the same data:
 *
 * PSNR, dB: 10 log10(1/MSE), the mean squared error over all values of all rows between x and the
 * decoder's mean at z = mu.
 *
 * Bits a dimension, of a Gaussian likelihood, where the ELBO bounds a density and not the
 * probability of bytes. With u uniform in [-1/512, 1/512)^D, the cubes x + u of different bytes
 * do not overlap, so the density's integrals over them are probabilities, and
 *   log P(x|z) >= E_u log p(x + u|z) - D ln 256        (Jensen; Theis et al. 2016),
 * thus bits = (-ELBO + noise + D ln 256) / (D ln 2) bounds -log2 P(x) / D from above, where
 *   noise = E_u[-log p(x + u|z)] + log p(x|z) = sum_d E[u_d^2] / (2 sigma_d^2),
 *   E[u_d^2] = 1 / (12 256^2).
 * q(z|x) is that of the bytes, without noise. The expectation is exact, so no noise is drawn. */
#ifndef VAE_EVAL_BYTES_H
#define VAE_EVAL_BYTES_H

#include "infer/trained.h"

/* NAN where there is none. */
typedef struct {
    size_t n;
    double mse, psnr;
    double elbo; /* of these rows: one draw of z each */
    double
        noise; /* nats per example; NAN: the likelihood is no density, or not one for all classes */
    double bits; /* by this elbo */
} vae_byte_figures;

/* Is m->set of bytes that the model takes as they are: neither made 0 or 1 nor standardized? */
bool vae_bytes_are(const vae_trained *m);

/* Measures the first n >= 1 rows of m->data in the plan's order; where they are not what
 * vae_bytes_are asks for, nothing: n = 0, NAN.
 * A semi-supervised model takes each row for its most probable class. Its elbo, a sum over all of
 * them, is not computed here (NAN, and bits with it: vae_bits_per_dim of vae_measure's), nor noise
 * where each class has variances of its own.
 * watch may be NULL. VAE_ERR_RUNTIME (memory: m->batch rows), VAE_ERR_INTERRUPTED, and what the
 * model returns. */
vae_status vae_bytes_measure(vae_byte_figures *out, const vae_trained *m, size_t n,
                             const vae_plan *plan, const vae_watch *watch, vae_error *err);

/* Bits a dimension of another estimate of the ELBO; NAN where noise is. */
double vae_bits_per_dim(double elbo, double noise, size_t d);

#endif
