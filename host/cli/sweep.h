/* vae train --sweep: a run for each combination of values, several at a time. */
#ifndef VAE_CLI_SWEEP_H
#define VAE_CLI_SWEEP_H

#include "cli/cli.h"

/* Is it asked for? */
bool cli_sweeps(const cli_args *args);
/* Trains all of them into folders of their own in --out, each by a process of its own, and ends
 * with a comparison. The status of the first run that failed, whose error says which;
 * VAE_ERR_INTERRUPTED by a signal, with which all were ended; VAE_ERR_USAGE before anything
 * starts. */
vae_status cli_sweep(const cli_args *args, vae_error *err);

#endif
