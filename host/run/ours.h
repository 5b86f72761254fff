/* Which files are a run's, so that nothing else is removed or written over. */
#ifndef VAE_RUN_OURS_H
#define VAE_RUN_OURS_H

#include <stdbool.h>

#include "base/status.h"

/* step-N.vae? */
bool vae_run_is_step(const char *name);

/* Removes the files that a run writes into its folder's `inside` ("": itself), by their names, or
 * the temp files of them. Not config.json (nor, where there is none, run.json): it tells whose the
 * folder is, until the next run's takes its place. VAE_ERR_IO: one cannot be removed. */
vae_status vae_run_remove_files(const char *run, const char *inside, bool temps, vae_error *err);

/* VAE_ERR_USAGE unless a folder that is not empty is a run, as vae_run_folder_open says. */
vae_status vae_run_check_ours(const char *run, vae_error *err);

#endif
