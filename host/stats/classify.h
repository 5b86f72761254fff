/* Classifiers of rows of features, to measure how much a representation says: k nearest neighbours
 * and multinomial logistic regression. Both are deterministic, whatever the number of threads. */
#ifndef VAE_CLASSIFY_H
#define VAE_CLASSIFY_H

#include <stddef.h>
#include <stdint.h>

#include "base/status.h"

/* n rows of d features and their labels, 0..classes-1. Borrowed. */
typedef struct {
    const float *x;    /* (n,d) */
    const uint32_t *y; /* (n) */
    size_t n, d, classes;
    const char *const *names; /* (classes) for messages; NULL: numbers */
} vae_labelled;

/* guess: (m) out, for rows x (m,d): the label most frequent among the k nearest rows of `train` by
 * Euclidean distance; of equally frequent ones that of the nearest row. Rows at one distance count
 * in their order. k <= train->n. VAE_ERR_RUNTIME (memory: some 20 MB and the guesses). */
vae_status vae_knn(uint32_t *guess, const float *x, size_t m, const vae_labelled *train, size_t k,
                   int threads, vae_error *err);

/* Multinomial logistic regression: weights (classes,d), then biases (classes). Minimizes
 * mean cross entropy + l2/2 * |weights|^2 (biases are free) by L-BFGS (Nocedal & Wright 2006,
 * algorithm 7.5) until the gradient's norm falls below 1e-3 of its first, or `steps` were taken.
 * VAE_ERR_RUNTIME (memory). */
vae_status vae_logistic_fit(float *weights, const vae_labelled *train, double l2, size_t steps,
                            int threads, vae_error *err);
void vae_logistic_guess(uint32_t *guess, const float *weights, const float *x, size_t m, size_t d,
                        size_t classes, int threads);

/* Share of wrong guesses. */
double vae_error_rate(const uint32_t *guess, const uint32_t *y, size_t n);

/* The objective of vae_logistic_fit and its gradient, (classes*(d+1)) each; scratch:
 * (n,classes+1). For tests. */
double vae_logistic_objective(float *gradient, float *scratch, const float *weights,
                              const vae_labelled *train, double l2, int threads);

#endif
