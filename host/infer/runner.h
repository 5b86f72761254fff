/* A trained model put to use, row by row in input order: what `vae encode`, `vae decode` and libvae
 * are made of. */
#ifndef VAE_EXPORT_LATENTS_H
#define VAE_EXPORT_LATENTS_H

#include "backend/open.h"
#include "dataset/dataset.h"
#include "model/model.h"
#include "run/checkpoint.h"

/* A model on a backend, without gradients, one particle. */
typedef struct {
    vae_backend *be;
    vae_model *model;
    vae_config config; /* the checkpoint's, with particles 1 and the plain ELBO */
    size_t d, z, batch;
} vae_runner;

/* Opens the backend and puts the checkpoint's parameters on it, for batches of `batch` rows. The
 * seed (of the noise of z, and of binarization) is the config's; change checkpoint->config.seed for
 * another. Errors: as vae_backend_open and vae_model_create. */
vae_status vae_runner_open(vae_runner *out, const vae_checkpoint *checkpoint,
                           const vae_backend_options *options, size_t batch, vae_error *err);
void vae_runner_close(vae_runner *r);

/* Runs all rows of `set` through the model; out's arrays are those of the whole set: x (n,d),
 * mu, logvar, z (n,Z), kl, recon (n), x_hat (n,d), each NULL where not wanted; kl_dim and log_pq
 * must be NULL. Noise: position in the set, draw `draw`. VAE_ERR_DATA if set->d is not the
 * model's. */
vae_status vae_runner_rows(vae_runner *r, const vae_dataset *set, uint64_t draw,
                           const vae_batch_out *out, vae_error *err);

/* x_hat: (n,d) from z: (n,Z). */
vae_status vae_runner_decode(vae_runner *r, float *x_hat, const float *z, size_t n, vae_error *err);

/* z: (n,Z) from the prior, by the config's seed: rows of the same seed and number are the same
 * however many are drawn. */
void vae_runner_prior(const vae_runner *r, float *z, size_t n);

#endif
