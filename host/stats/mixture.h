/* A mixture of Gaussians, fitted by expectation-maximization: a density of the aggregate posterior
 * q(z) to draw from in the prior's place (ex-post density estimation: Ghosh et al. 2020,
 * arXiv:1903.12436). */
#ifndef VAE_MIXTURE_H
#define VAE_MIXTURE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/status.h"
#include "base/stop.h"

enum { VAE_MIXTURE_MOST = 1000 }; /* components */

/* K components over Z dimensions. */
typedef struct {
    size_t k, z;
    bool full;      /* covariances; otherwise diagonal */
    double *weight; /* (K), sum 1 */
    double *mean;   /* (K,Z) */
    double *factor; /* full: (K,Z,Z), the covariances' lower Cholesky factors; else (K,Z), standard
                     * deviations */
    double *log_norm; /* (K) log of weight / ((2 pi)^(Z/2) sqrt(det covariance)) */
} vae_mixture;

typedef struct {
    size_t components; /* 1 .. VAE_MIXTURE_MOST; cut to the number of different rows */
    bool full;
    size_t iterations; /* at most; 0 = 500 */
    double tolerance;  /* nats per row: less gained in an iteration is the end; 0 = 1e-3 */
    uint64_t seed;     /* of the start */
    const vae_stop_flag *stop_signal; /* VAE_ERR_INTERRUPTED once it is set; may be NULL */
    void (*progress)(void *ctx, size_t iteration, double log_likelihood); /* may be NULL */
    void *ctx;                                                            /* of progress */
} vae_mixture_options;

typedef struct {
    size_t iterations;
    bool converged;
    double log_likelihood; /* of the rows fitted to, mean nats per row */
} vae_mixture_report;

/* Fits to rows (n,z). The start is k-means++ (Arthur & Vassilvitskii 2007) and a few of Lloyd's
 * iterations; then EM (Dempster, Laird & Rubin 1977). Each variance gets 1e-6 of the data's mean
 * variance added, so that components that shrink onto a point, or data on a line, keep a density.
 * The same bits for any number of threads. vae_mixture_clear in any case.
 * VAE_ERR_DATA (no rows; NaN or Inf: names the row), VAE_ERR_RUNTIME (memory: n*K doubles). */
vae_status vae_mixture_fit(vae_mixture *out, const float *rows, size_t n, size_t z,
                           const vae_mixture_options *options, vae_mixture_report *report,
                           vae_error *err);
/* The same with as many components (options->components is not looked at) as make other rows, held
 * (n_held,z), likeliest: 1, 2, 5, 10, 20 or 50, up to the first that does worse than the one before
 * it. *score: held's mean log density under what is kept. n_held = 0: one component, *score NAN. */
vae_status vae_mixture_choose(vae_mixture *out, const float *rows, size_t n, const float *held,
                              size_t n_held, size_t z, const vae_mixture_options *options,
                              vae_mixture_report *report, double *score, vae_error *err);
void vae_mixture_clear(vae_mixture *m);

/* Mean log density of rows (n,Z), n >= 1, nats per row. VAE_ERR_RUNTIME (memory). */
vae_status vae_mixture_score(double *mean, const vae_mixture *m, const float *rows, size_t n,
                             vae_error *err);

/* z: (n,Z) out, rows first .. first+n-1 of the draws of `seed`: mean_k + temperature * L_k eps,
 * with vae_prior_rows' eps and k by the weights. A row is the same however many are drawn at once.
 * VAE_ERR_RUNTIME (memory). */
vae_status vae_mixture_draw(float *z, const vae_mixture *m, uint64_t seed, uint64_t first, size_t n,
                            double temperature, vae_error *err);

#endif
