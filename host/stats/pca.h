/* Principal components: where to look at many latents at once. */
#ifndef VAE_PCA_H
#define VAE_PCA_H

#include <stddef.h>

#include "base/status.h"

/* axis: (2,d) out, orthonormal: the two directions in which the rows x (n,d) vary most around
 * mean (d); the largest component of each is positive, so that a picture does not flip. share: (2)
 * out, each direction's share of the variance. By orthogonal iteration in double from the columns
 * start[0] and start[1], at best those that vary most; d is above 2. VAE_ERR_RUNTIME (memory). */
vae_status vae_pca_axes(float *axis, double share[2], const float *x, size_t n, size_t d,
                        const float *mean, const size_t start[2], vae_error *err);

/* xy: (n,2) out: the rows x (n,d) on the plane through mean along the axes. */
void vae_pca_project(float *xy, const float *x, size_t n, size_t d, const float *mean,
                     const float *axis);

/* xy: (n,2) out, the rows x (n,d) along the two directions of greatest variance, centred; d = 1 or
 * 2: the columns themselves (and 0). share as above. VAE_ERR_RUNTIME (memory). */
vae_status vae_pca_plane(float *xy, double share[2], const float *x, size_t n, size_t d,
                         vae_error *err);

#endif
