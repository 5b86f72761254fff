/* Principal components: where to look at many latents at once. */
#ifndef VAE_PCA_H
#define VAE_PCA_H

#include <stddef.h>

#include "base/status.h"

/* xy: (n,2) out, the rows x (n,d) along the two directions of greatest variance, centred; d = 1 or
 * 2: the columns themselves (and 0). share: (2) out, each direction's share of the variance. Each
 * direction's largest component is positive, so that the picture does not flip. By orthogonal
 * iteration in double from a fixed start. VAE_ERR_RUNTIME (memory). */
vae_status vae_pca_plane(float *xy, double share[2], const float *x, size_t n, size_t d,
                         vae_error *err);

#endif
