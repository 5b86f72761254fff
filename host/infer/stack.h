/* Models on models: the data of a stacked model are z ~ q(z|x) of a trained one (M1+M2, Kingma et
 * al. 2014, section 3.1.3). The run below encodes a data set once, to rows [mu | logvar]; gather
 * draws from them at every use. */
#ifndef VAE_STACK_H
#define VAE_STACK_H

#include "dataset/dataset.h"
#include "infer/runner.h"
#include "run/checkpoint.h"

/* The run below, opened. */
typedef struct {
    vae_checkpoint *checkpoint;
    char path[VAE_PATH];
    vae_runner runner;
} vae_stack;

/* Opens config->stack on config's device. Its weights must have the SHA-256 config->stack_weights,
 * which is filled in if it is empty. VAE_ERR_DATA if they are others, VAE_ERR_USAGE if that run is
 * conditional, semi-supervised or stacked itself, and as vae_checkpoint_open_run and
 * vae_runner_open. Close it in any case. */
vae_status vae_stack_open(vae_stack *stack, vae_config *config, vae_error *err);
void vae_stack_close(vae_stack *stack);

/* *out: `set` encoded, with its labels; the caller's. VAE_ERR_DATA if the rows are not of the run
 * below. Its SHA-256 is that of the set's and of the weights. */
vae_status vae_stack_encode(vae_dataset **out, vae_stack *stack, const vae_dataset *set,
                            vae_error *err);

/* *x: (n,d) decoded from z: (n,Z) of the run below; the caller's. */
vae_status vae_stack_decode(float **x, vae_stack *stack, const float *z, size_t n, vae_error *err);

#endif
