/* Version and commit, which the Makefile gives to this file alone: a commit rebuilds one object. */
#include "base/version.h"

const char vae_build_version[] = VAE_VERSION;
const char vae_build_git[] = VAE_GIT;
