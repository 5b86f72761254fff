/* What a representation says of labels: classifiers on features, with all labels and with few. */
#ifndef VAE_PROBE_H
#define VAE_PROBE_H

#include "stats/classify.h"

enum { VAE_PROBE_SEEDS = 100 };

/* Error rates of the two classifiers on the test rows; l2 and neighbours: what was used. */
typedef struct {
    double knn, logistic, l2;
    size_t neighbours;
} vae_probe_errors;

/* All labels. neighbours as given; l2 is the one of 1e-6, 1e-5 ... 1e-1 that does best on a fifth
 * of the training rows (of at most 10,000, evenly spread) when fitted on the rest, never by the
 * test rows; times the number it was fitted on over that of all, which keeps the prior on the
 * weights. */
vae_status vae_probe_all(vae_probe_errors *out, const vae_labelled *train, const vae_labelled *test,
                         size_t neighbours, int threads, vae_error *err);

/* n labels, as many of each class, chosen by seed; the other training rows are not used. l2 (1e-5
 * to 1e-1, taken over likewise) and the number of neighbours (1, 3, 5, 10) by five-fold
 * cross-validation on these n rows. VAE_ERR_USAGE (n no multiple of the classes), VAE_ERR_DATA (a
 * class has too few rows). */
vae_status vae_probe_few(vae_probe_errors *out, const vae_labelled *train, const vae_labelled *test,
                         size_t n, uint64_t seed, int threads, vae_error *err);

#endif
