/* Small models of every kind, for targets that use one. */
#ifndef VAE_FUZZ_MODELS_H
#define VAE_FUZZ_MODELS_H

#include "infer/trained.h"

enum { FUZZ_MODELS = 6 };

/* Model k, of pictures of 4 x 4, or a table of three columns (the last one); the same one at every
 * call, started on the CPU for `batch` rows at a time by the first. */
vae_trained *fuzz_model(size_t k);

/* Are they small enough to be used hundreds of times a second? */
bool fuzz_is_small(const vae_checkpoint *c);
/* Rows through the model and back: encoded, decoded, scored; `twice` with the same bits. */
void fuzz_use(const vae_checkpoint *c, bool twice);

#endif
