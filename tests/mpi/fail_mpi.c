/* MPI calls that fail, for tests: put before the MPI library (LD_PRELOAD), it counts the calls that vae
 * makes and lets one of them return an error, by MPI's own profiling interface.
 *
 *   VAE_MPI_FAIL=N      the N-th call (from 1) fails, without having been made
 *   VAE_MPI_FAIL_RANK=R on rank R alone (default: all)
 *   VAE_MPI_COUNT=FILE  rank 0 writes how many calls there were to FILE.
 *   VAE_MPI_FLIP=N      the N-th MPI_Allreduce adds 1 to the first float of its sum, on rank 1 alone:
 *                       what a machine that computes wrong would do */
#include <mpi.h>
#include <stdio.h>
#include <stdlib.h>

static long calls, sums;
static int rank = -1;

static long number(const char *name, long otherwise)
{
    const char *value = getenv(name);
    return value != NULL ? atol(value) : otherwise;
}

/* The launcher says it before MPI does. */
static int own_rank(void)
{
    if (rank < 0) {
        rank = (int)number("OMPI_COMM_WORLD_RANK", number("PMI_RANK", 0));
    }
    return rank;
}

static int fails(const char *call)
{
    calls++;
    if (calls != number("VAE_MPI_FAIL", 0) ||
        own_rank() != number("VAE_MPI_FAIL_RANK", own_rank())) {
        return 0;
    }
    fprintf(stderr, "fail_mpi: call %ld, %s, fails on rank %d\n", calls, call, own_rank());
    return 1;
}

#define WRAP(name, params, args)                                                                   \
    int name params                                                                                \
    {                                                                                              \
        return fails(#name) ? MPI_ERR_OTHER : P##name args;                                        \
    }

WRAP(MPI_Init_thread, (int *c, char ***v, int want, int *got), (c, v, want, got))
WRAP(MPI_Comm_set_errhandler, (MPI_Comm c, MPI_Errhandler h), (c, h))
WRAP(MPI_Comm_size, (MPI_Comm c, int *n), (c, n))
WRAP(MPI_Comm_rank, (MPI_Comm c, int *n), (c, n))
WRAP(MPI_Comm_split_type, (MPI_Comm c, int type, int key, MPI_Info info, MPI_Comm *out),
     (c, type, key, info, out))
WRAP(MPI_Comm_dup, (MPI_Comm c, MPI_Comm *out), (c, out))
WRAP(MPI_Allgather,
     (const void *s, int ns, MPI_Datatype ts, void *r, int nr, MPI_Datatype tr, MPI_Comm c),
     (s, ns, ts, r, nr, tr, c))
WRAP(MPI_Iallgatherv,
     (const void *s, int ns, MPI_Datatype ts, void *r, const int nr[], const int at[],
      MPI_Datatype tr, MPI_Comm c, MPI_Request *q),
     (s, ns, ts, r, nr, at, tr, c, q))
WRAP(MPI_Ibcast, (void *b, int n, MPI_Datatype t, int root, MPI_Comm c, MPI_Request *q),
     (b, n, t, root, c, q))
WRAP(MPI_Iallreduce,
     (const void *s, void *r, int n, MPI_Datatype t, MPI_Op op, MPI_Comm c, MPI_Request *q),
     (s, r, n, t, op, c, q))

int MPI_Allreduce(const void *s, void *r, int n, MPI_Datatype t, MPI_Op op, MPI_Comm c)
{
    const int code = fails("MPI_Allreduce") ? MPI_ERR_OTHER : PMPI_Allreduce(s, r, n, t, op, c);
    if (++sums == number("VAE_MPI_FLIP", 0) && own_rank() == 1) {
        *(float *)r += 1;
    }
    return code;
}

int MPI_Finalize(void)
{
    const char *file = getenv("VAE_MPI_COUNT");
    FILE *f = file != NULL && own_rank() == 0 ? fopen(file, "w") : NULL;
    if (f != NULL) {
        fprintf(f, "%ld\n", calls);
        fclose(f);
    }
    return PMPI_Finalize();
}
