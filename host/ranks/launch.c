/* Has a launcher started several of us? And the end, together. Part of the program alone: a library
 * must not take its host's MPI for its own. */
#include <ctype.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "ranks/mpi.h"

/* How long a rank that failed waits for the others to fail alike, before it ends them. */
static const double patience = 2;

#ifndef VAE_WITH_MPI
vae_status vae_mpi_start(vae_ranks **out, vae_error *err)
{
    *out = NULL;
    return vae_fail(err, VAE_ERR_USAGE,
                    "started as one of several ranks, but this vae was built without MPI: build it "
                    "where mpicc is (make says which it takes); VAE_RANKS=0 lets each process work "
                    "on its own");
}

const char *vae_ranks_built(void)
{
    return "built without MPI";
}
#endif

static long number_in(const char *name)
{
    const char *value = getenv(name);
    return value != NULL && isdigit((unsigned char)*value) ? strtol(value, NULL, 10) : -1;
}

/* Launchers and what they say. A job that Slurm runs without MPI's help (srun --mpi=none) is not
 * ranks, but N programs that know nothing of each other. */
typedef enum { ALONE, RANKS, STRANGERS } start;

static start started_as(void)
{
    if (number_in("VAE_RANKS") == 0) {
        return ALONE;
    }
    static const char *const sizes[] = {
        "OMPI_COMM_WORLD_SIZE", /* Open MPI's mpirun */
        "PMI_SIZE",             /* MPICH, Intel MPI, MVAPICH; Slurm's --mpi=pmi2 */
        "PALS_SIZE",            /* Cray's mpiexec */
    };
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
        if (number_in(sizes[i]) >= 0) {
            return number_in(sizes[i]) > 1 ? RANKS : ALONE;
        }
    }
    const bool several = number_in("SLURM_STEP_NUM_TASKS") > 1;
    if (getenv("PMIX_RANK") != NULL) { /* which has no size: MPI finds out */
        return number_in("SLURM_STEP_NUM_TASKS") == 1 ? ALONE : RANKS;
    }
    return several && getenv("SLURM_PROCID") != NULL ? STRANGERS : ALONE;
}

vae_status vae_ranks_start(vae_ranks **out, vae_error *err)
{
    *out = NULL;
    switch (started_as()) {
    case RANKS:
        return vae_mpi_start(out, err);
    case STRANGERS:
        return vae_fail(err, VAE_ERR_USAGE,
                        "srun has started %ld tasks without MPI: srun --mpi=pmix (srun --mpi=list "
                        "has what there is) makes ranks of them; VAE_RANKS=0 lets each work on its "
                        "own",
                        number_in("SLURM_STEP_NUM_TASKS"));
    case ALONE:
    default:
        return VAE_OK;
    }
}

bool vae_ranks_meet(const vae_ranks *ranks, vae_status status, int *signal, bool *speaks,
                    vae_error *err)
{
    vae_error why = {0};
    *speaks = true;
    if (ranks == NULL) {
        return true;
    }
    const bool failed = status != VAE_OK;
    uint64_t v[] = {failed ? ranks->n - ranks->rank : 0, (uint64_t)*signal};
    if (!ranks->calls->meet(ranks, v, 2, failed ? patience : -1, &why)) {
        if (!failed) {
            vae_fail(err, why.status, "%s", why.text);
        }
        return false;
    }
    *speaks = v[0] == ranks->n - ranks->rank;
    *signal = (int)v[1];
    return true;
}

void vae_ranks_leave(vae_ranks *ranks)
{
    if (ranks != NULL) {
        ranks->calls->leave(ranks);
        free(ranks);
    }
}

void vae_ranks_abort(const vae_ranks *ranks, int code)
{
    ranks->calls->abort(ranks, code);
    _exit(code); /* MPI_Abort does not return */
}
