/* The ranks' MPI, in programs that are built with it: mpi.c. */
#ifndef VAE_RANKS_MPI_H
#define VAE_RANKS_MPI_H

#include "ranks/ranks.h"

/* As vae_ranks_start, where a launcher has started several. */
vae_status vae_mpi_start(vae_ranks **out, vae_error *err);

#endif
