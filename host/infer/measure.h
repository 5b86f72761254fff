/* Measuring passes: mean losses over rows, added up where the model is, forward only. */
#ifndef VAE_MEASURE_H
#define VAE_MEASURE_H

#include "base/stop.h"
#include "model/model.h"

/* Mean losses over a data set, nats per example. bound: of what the objective minimizes, at beta 1
 * and without free bits: recon + kl for elbo, -log mean_k w_k for the others. */
typedef struct {
    double elbo, recon, kl, bound;
    size_t n; /* examples; 0 = there was no such data */
    /* of a semi-supervised model: examples whose label is known, and how many of them q(y|x) takes
     * for another class, as a fraction */
    size_t classified;
    double error;
} vae_measurement;

/* The batch of measuring passes: training's, of which there are `most` rows to be had, or a larger
 * one where that is small. */
size_t vae_measure_batch(const vae_config *config, size_t most);

/* Mean losses of `data` (n examples) under the model (of config): one pass in order, in batches of
 * which the model must take a rank's share, or all where there are no ranks; with noise of draw
 * `draw`. The model's totals must be clear, and are afterwards. Where its backend has ranks
 * all of them call it, and share each batch. stop_signal may be NULL; VAE_ERR_INTERRUPTED when it
 * is set. VAE_ERR_DIVERGED if the loss is not finite. */
vae_status vae_measure(vae_measurement *out, vae_model *model, const vae_config *config,
                       vae_data *data, size_t n, size_t batch, uint64_t draw,
                       const vae_stop_flag *stop_signal, vae_error *err);

/* How many steps to ask for at once: as many as take about 0.15 s, so that signals and progress are
 * served a few times a second and the waiting for totals costs nothing. Steps do not depend on it.
 */
typedef struct {
    size_t n;
} vae_pace;
enum { VAE_PACE_MOST = 1024 };
void vae_pace_adapt(vae_pace *p, size_t ran, double seconds);

#endif
