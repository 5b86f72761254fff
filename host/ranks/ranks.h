/* Ranks: processes that a launcher (mpirun, srun) has started to do one job together. Who speaks to
 * them does so by this page; what carries it is MPI, which mpi.c alone knows.
 *
 * A `const vae_ranks *` that is NULL is a program that runs alone, and every function here takes
 * it: sums are what they were, everybody agrees. Functions said to be collective must be called by
 * all ranks, in the same order. Those that wait for the slowest rank sleep meanwhile. */
#ifndef VAE_RANKS_H
#define VAE_RANKS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/status.h"

typedef struct vae_ranks vae_ranks;

/* What carries messages; VAE_ERR_RUNTIME with its own words where it fails. In place, all of it. */
typedef struct {
    /* v: (n) becomes the sum over ranks, the same bits on all of them. At once: no sleep. */
    vae_status (*sum_floats)(const vae_ranks *ranks, float *v, size_t n, vae_error *err);
    vae_status (*sum_doubles)(const vae_ranks *ranks, double *v, size_t n, vae_error *err);
    vae_status (*most)(const vae_ranks *ranks, uint64_t *v, size_t n, vae_error *err);
    vae_status (*broadcast)(const vae_ranks *ranks, void *from, size_t bytes, size_t root,
                            vae_error *err);
    /* all: a piece of `bytes[r]` of each rank r at `at[r]`, this one's in place */
    vae_status (*gather)(const vae_ranks *ranks, void *all, const int *bytes, const int *at,
                         vae_error *err);
    /* Waits until all ranks have come here, but no longer than `patience` seconds (< 0: for good);
     * v as in `most`. False: somebody has not, or it failed, which err tells. */
    bool (*meet)(const vae_ranks *ranks, uint64_t *v, size_t n, double patience, vae_error *err);
    void (*leave)(vae_ranks *ranks);
    void (*abort)(const vae_ranks *ranks, int code);
} vae_rank_calls;

struct vae_ranks {
    size_t n, rank;        /* how many; this one's number */
    size_t n_local, local; /* the same on this host */
    size_t cores; /* this one's part of those it may run on, which ranks of this host may share */
    char host[64];
    char library[96]; /* what carries: "Open MPI v4.1.4" */
    const vae_rank_calls *calls;
};

/* ---- start and end: the program's main (launch.c, which is no part of libvae) ---- */

/* Are we one of several? By the launcher's environment: Open MPI, MPICH and what starts as it does
 * (PMI), Slurm with PMIx or PMI. *out: NULL where not, or where VAE_RANKS=0 says that each process
 * is on its own; else MPI is initialized. VAE_ERR_USAGE: started as one of several by a program
 * that was built without MPI; VAE_ERR_RUNTIME. */
vae_status vae_ranks_start(vae_ranks **out, vae_error *err);
/* "Open MPI v4.1.4", or why there is none: for `vae info`. */
const char *vae_ranks_built(void);
/* The end of the program: meets the others. status: how it ends here; *signal: the signal that it
 * dies of, 0 for none; afterwards, of any rank. *speaks: is this one to tell of the error, as the
 * first that has one? False: this one has failed and the others are still at work some seconds
 * later: it is to tell, and to call vae_ranks_abort. That the meeting itself fails is a failure,
 * too: err tells of it where it told of none. */
bool vae_ranks_meet(const vae_ranks *ranks, vae_status status, int *signal, bool *speaks,
                    vae_error *err);
/* After it has met them, and told what there is to tell: finalizes MPI, frees. */
void vae_ranks_leave(vae_ranks *ranks);
/* Ends all ranks; does not return. */
_Noreturn void vae_ranks_abort(const vae_ranks *ranks, int code);

/* ---- who ---- */

static inline size_t vae_ranks_n(const vae_ranks *ranks)
{
    return ranks != NULL ? ranks->n : 1;
}
static inline size_t vae_ranks_number(const vae_ranks *ranks)
{
    return ranks != NULL ? ranks->rank : 0;
}

/* The rows of `all` that are a rank's: `n` of them from `first` on. Shares differ by one row at
 * most, and the largest is the last rank's. */
typedef struct {
    size_t all, first, n;
} vae_share;
vae_share vae_ranks_share(const vae_ranks *ranks, size_t all);
vae_share vae_ranks_share_of(const vae_ranks *ranks, size_t rank, size_t all);
/* The largest share. */
size_t vae_ranks_most(const vae_ranks *ranks, size_t all);

/* ---- collective ---- */

vae_status vae_ranks_sum_floats(const vae_ranks *ranks, float *v, size_t n, vae_error *err);
vae_status vae_ranks_sum_doubles(const vae_ranks *ranks, double *v, size_t n, vae_error *err);
/* v: (n) becomes the largest over ranks, each by itself. */
vae_status vae_ranks_largest(const vae_ranks *ranks, uint64_t *v, size_t n, vae_error *err);
/* Seconds by the slowest rank's clock, which decides for all; alone, what they were. */
vae_status vae_ranks_slowest(const vae_ranks *ranks, double *seconds, vae_error *err);
vae_status vae_ranks_broadcast(const vae_ranks *ranks, void *from_first, size_t bytes,
                               vae_error *err);
/* all: (n ranks, bytes), a piece of each, this one's in place. */
vae_status vae_ranks_gather(const vae_ranks *ranks, void *all, size_t bytes, vae_error *err);
/* rows: (n, row_bytes): this rank has put its share in place; the others' come. NULL: nothing. */
vae_status vae_ranks_gather_rows(const vae_ranks *ranks, void *rows, size_t n, size_t row_bytes,
                                 vae_error *err);
/* Has it gone well everywhere? Where not, all ranks return the status and the text of the first
 * that failed; it is named where that is not rank 0 and others did well. */
vae_status vae_ranks_all_ok(const vae_ranks *ranks, vae_status status, vae_error *err);
/* Have all ranks the same `bytes` here? VAE_ERR_RUNTIME names the first that has not: "WHAT: rank 1
 * on host b and rank 0 on host a differ". */
vae_status vae_ranks_same(const vae_ranks *ranks, const void *here, size_t bytes, const char *what,
                          vae_error *err);

#endif
