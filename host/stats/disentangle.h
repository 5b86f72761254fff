/* How far single latents stand for single factors of generation: scores of a representation, the
 * latents' mu (n,Z), against ground-truth factors (n,F), by the papers' definitions as far as a
 * finite data set allows.
 *
 * Factors are taken as levels. A factor with more distinct values than BINS (continuous ones) is
 * cut into BINS bins of equal count; so "one factor fixed" means "within one such bin". */
#ifndef VAE_DISENTANGLE_H
#define VAE_DISENTANGLE_H

#include <stddef.h>
#include <stdint.h>

#include "base/status.h"

typedef struct {
    const float *mu;      /* (n,z) */
    const float *factors; /* (n,f) */
    size_t n, z, f;
    uint64_t seed;
    int threads;
} vae_disentangle_data;

typedef struct {
    double mig; /* mutual information gap: Chen et al. 2018, section 4.1; 20 bins for each latent */
    double sap; /* separated attribute predictability, by the gap of squared correlations: Kumar et
                 * al. 2018, section 3 (its form for continuous factors, used for all) */
    double dci_disentanglement,
        dci_completeness; /* Eastwood & Williams 2018, section 2, by the mutual
                           * information of latent and factor as importance, as no predictor then
                           * needs tuning; rows and columns weighted as there */
    double
        dci_informativeness; /* mean over factors of the accuracy of 10 nearest neighbours on mu */
    double beta_vae;   /* Higgins et al. 2017, appendix A.4: accuracy of a linear classifier of the
                        * fixed   factor, on mean absolute differences of 64 pairs of rows */
    double factor_vae; /* Kim & Mnih 2018, section 4: accuracy of a majority vote on the latent of
                        * least normalized variance within 64 rows; latents with a deviation below
                        * 0.05 are left out */
    size_t active;     /* latents with a deviation of 0.05 or more */
    size_t factors;    /* that vary */
} vae_disentangle_scores;

/* VAE_ERR_DATA (fewer than two factors vary, fewer than 1,000 rows), VAE_ERR_RUNTIME (memory). */
vae_status vae_disentangle(vae_disentangle_scores *out, const vae_disentangle_data *data,
                           vae_error *err);

#endif
