/* The rows of a data set closest to given ones: is a sample a memory of the training data? */
#ifndef VAE_CLOSEST_H
#define VAE_CLOSEST_H

#include "base/stop.h"
#include "dataset/dataset.h"

/* For each row of x: (n, set->d), row[i]: the row of the set with least Euclidean distance, the
 * first of equals; distance[i]: that. The same for any number of threads. stop may be NULL:
 * VAE_ERR_INTERRUPTED once it is set. */
vae_status vae_closest_rows(size_t *row, double *distance, const float *x, size_t n,
                            const vae_dataset *set, const vae_stop_flag *stop, vae_error *err);

#endif
