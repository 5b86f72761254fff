/* What was built. */
#ifndef VAE_BASE_VERSION_H
#define VAE_BASE_VERSION_H

extern const char vae_build_version[]; /* "0.1.0" */
extern const char vae_build_git[];     /* of the commit, "unknown" without git */

#endif
