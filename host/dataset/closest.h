/* The rows of a data set closest to given ones: is a sample a memory of the training data? */
#ifndef VAE_CLOSEST_H
#define VAE_CLOSEST_H

#include "dataset/dataset.h"

/* For each row of x: (n, set->d), row[i]: the row of the set with least Euclidean distance, the
 * first of equals; distance[i]: that. The same for any number of threads. */
void vae_closest_rows(size_t *row, double *distance, const float *x, size_t n,
                      const vae_dataset *set);

#endif
