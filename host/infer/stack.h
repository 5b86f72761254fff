/* Models on models: the data of a stacked model are z ~ q(z|x) of a trained one (M1+M2, Kingma et
 * al. 2014, section 3.1.3). The run below encodes a data set once, to rows [mu | logvar]; gather
 * draws from them at every use. */
#ifndef VAE_STACK_H
#define VAE_STACK_H

#include "dataset/dataset.h"
#include "infer/trained.h"

/* Opens and starts config->stack on config's device. Its weights must have the SHA-256
 * config->stack_weights, which is filled in if it is empty. ranks: as in vae_trained. VAE_ERR_DATA
 * if they are others, VAE_ERR_USAGE if that run is conditional, semi-supervised or stacked itself,
 * and as vae_trained_open and vae_trained_start. */
vae_status vae_stack_open(vae_trained *below, vae_config *config, const vae_ranks *ranks,
                          vae_error *err);

/* Opens the run below a stacked model as m->below, to decode through; of another, does nothing. */
vae_status vae_stack_below(vae_trained *m, vae_error *err);

/* *out: `set` encoded, with its labels; the caller's. VAE_ERR_DATA if the rows are not of the run
 * below. Its SHA-256 is that of the set's and of the weights. */
vae_status vae_stack_encode(vae_dataset **out, const vae_trained *below, const vae_dataset *set,
                            vae_error *err);

#endif
