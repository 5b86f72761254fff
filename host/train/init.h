/* The weights that training begins with, where another model's are asked for (--init-from). */
#ifndef VAE_TRAIN_INIT_H
#define VAE_TRAIN_INIT_H

#include "run/checkpoint.h"

/* Where `asked` names a model to begin from, the options of config that are about the model become
 * that model's, and so do those that say how picture files are read; those of `given` aside. As
 * vae_init_open. */
vae_status vae_init_options(vae_config *config, const vae_config *asked,
                            const vae_option_set *given, vae_error *err);

/* That model to *out, without moments, NULL where config asks for none: what vae_loop_open and
 * vae_loop_begin take. config->init_weights is filled in, or compared. *out is the caller's.
 * VAE_ERR_USAGE: not the model that config describes, a stacked one; VAE_ERR_DATA: other weights
 * than config names, rows that are not the model's; as vae_open_weights. */
vae_status vae_init_open(vae_checkpoint **out, vae_config *config, const vae_dataset *set,
                         vae_error *err);

#endif
