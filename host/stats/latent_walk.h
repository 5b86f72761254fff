/* Where to look in latent space: draws from the prior, ways between two points, axes of grids. */
#ifndef VAE_LATENT_WALK_H
#define VAE_LATENT_WALK_H

#include <stddef.h>
#include <stdint.h>

/* z: (n,Z) out, rows first .. first+n-1 of the draws of `seed`: z ~ N(0, temperature^2 I). A row is
 * the same however many are drawn at once. */
void vae_prior_rows(float *z, uint64_t seed, uint64_t first, size_t n, size_t Z,
                    double temperature);

/* out: (Z) = (1-t) a + t b. */
void vae_lerp(float *out, const float *a, const float *b, size_t Z, double t);

/* out: (Z) = (sin((1-t) w) a + sin(t w) b) / sin w, w the angle between a and b (Shoemake 1985; for
 * latents White 2016, arXiv:1609.04468): along the arc, so that points between two of a length keep
 * that length, which is what the prior's mass has. Lengths that differ go over into each other.
 * Where no arc is defined (parallel, opposite or zero vectors) it is vae_lerp. Ends are exact. */
void vae_slerp(float *out, const float *a, const float *b, size_t Z, double t);

/* x with P(N(0,1) <= x) = p, 0 < p < 1, to about 1e-15. */
double vae_normal_quantile(double p);

/* axis: (n) out. range > 0: evenly from -range to range (0 where n is 1). range 0: the quantiles
 * (i + 1/2)/n of N(0,1), so that equal steps hold equal mass of the prior (Kingma & Welling 2013,
 * appendix A). */
void vae_latent_axis(double *axis, size_t n, double range);

#endif
