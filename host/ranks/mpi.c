/* Ranks over MPI: the one file that knows it. All calls are made by the thread that started MPI. */
#include "ranks/mpi.h"

#include <limits.h>
#include <mpi.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/text.h"

typedef struct {
    vae_ranks base;
    MPI_Comm farewell; /* of those who end: others may still be talking on the world's */
} mpi_ranks;

const char *vae_ranks_built(void)
{
    static char text[sizeof(((vae_ranks *)NULL)->library)];
    char version[MPI_MAX_LIBRARY_VERSION_STRING];
    int length = 0;
    if (MPI_Get_library_version(version, &length) == MPI_SUCCESS) { /* before MPI_Init, too */
        /* "Open MPI v4.1.4, package: ..."; "MPICH Version:\t4.0.2\nMPICH Release date: ..." */
        snprintf(text, sizeof text, "%.*s", (int)strcspn(version, ",\n"), version);
        for (char *c = text; *c != '\0'; c++) {
            *c = *c == '\t' ? ' ' : *c;
        }
    }
    return text;
}

static vae_status check(const vae_ranks *ranks, int code, const char *call, vae_error *err)
{
    char text[MPI_MAX_ERROR_STRING] = "";
    int length = 0;
    if (code == MPI_SUCCESS) {
        return VAE_OK;
    }
    int started = 0;
    if (MPI_Initialized(&started) == MPI_SUCCESS && started) { /* it has no words before that */
        MPI_Error_string(code, text, &length);
    } else {
        snprintf(text, sizeof text, "error %d", code);
    }
    if (ranks->n == 0) { /* which rank it is, MPI has not said */
        return vae_fail(err, VAE_ERR_RUNTIME, "MPI: %s failed on host %s: %s", call, ranks->host,
                        text);
    }
    return vae_fail(err, VAE_ERR_RUNTIME, "MPI: %s failed on rank %zu, host %s: %s", call,
                    ranks->rank, ranks->host, text);
}

/* ---- waiting ---- */

/* Waits for what may take long: another rank may be writing files. Polls for as long as a message
 * takes, then sleeps between looks. False: not done within `patience` seconds (< 0: for good). */
static bool wait_for(MPI_Request *request, int *code, double patience)
{
    const double begin = vae_clock(), eager = 1e-4;
    struct timespec nap = {0, 20000};
    int done = 0;
    for (;;) {
        *code = MPI_Test(request, &done, MPI_STATUS_IGNORE);
        if (*code != MPI_SUCCESS || done) {
            return true;
        }
        const double waited = vae_clock() - begin;
        if (patience >= 0 && waited > patience) {
            return false;
        }
        if (waited < eager) {
            sched_yield();
        } else {
            nanosleep(&nap, NULL);
            nap.tv_nsec = nap.tv_nsec < 1000000 ? 2 * nap.tv_nsec : nap.tv_nsec;
        }
    }
}

static vae_status finish(const vae_ranks *ranks, MPI_Request *request, int code, const char *call,
                         vae_error *err)
{
    if (code == MPI_SUCCESS) {
        wait_for(request, &code, -1);
    }
    return check(ranks, code, call, err);
}

/* ---- the calls ---- */

static vae_status sum_floats(const vae_ranks *ranks, float *v, size_t n, vae_error *err)
{
    vae_status status = VAE_OK;
    for (size_t i = 0; i < n; i += INT_MAX) {
        const int some = n - i < INT_MAX ? (int)(n - i) : INT_MAX;
        TRY(check(ranks,
                  MPI_Allreduce(MPI_IN_PLACE, v + i, some, MPI_FLOAT, MPI_SUM, MPI_COMM_WORLD),
                  "MPI_Allreduce", err));
    }
done:
    return status;
}

static vae_status reduce(const vae_ranks *ranks, void *v, size_t n, MPI_Datatype type, MPI_Op op,
                         vae_error *err)
{
    MPI_Request request;
    const int code = MPI_Iallreduce(MPI_IN_PLACE, v, (int)n, type, op, MPI_COMM_WORLD, &request);
    return finish(ranks, &request, code, "MPI_Iallreduce", err);
}

static vae_status sum_doubles(const vae_ranks *ranks, double *v, size_t n, vae_error *err)
{
    return reduce(ranks, v, n, MPI_DOUBLE, MPI_SUM, err);
}

static vae_status most(const vae_ranks *ranks, uint64_t *v, size_t n, vae_error *err)
{
    return reduce(ranks, v, n, MPI_UINT64_T, MPI_MAX, err);
}

static vae_status broadcast(const vae_ranks *ranks, void *from, size_t bytes, size_t root,
                            vae_error *err)
{
    vae_status status = VAE_OK;
    for (size_t i = 0; i < bytes; i += INT_MAX) {
        const int some = bytes - i < INT_MAX ? (int)(bytes - i) : INT_MAX;
        MPI_Request request;
        const int code =
            MPI_Ibcast((char *)from + i, some, MPI_BYTE, (int)root, MPI_COMM_WORLD, &request);
        TRY(finish(ranks, &request, code, "MPI_Ibcast", err));
    }
done:
    return status;
}

static vae_status gather(const vae_ranks *ranks, void *all, const int *bytes, const int *at,
                         vae_error *err)
{
    MPI_Request request;
    const int code = MPI_Iallgatherv(MPI_IN_PLACE, 0, MPI_BYTE, all, bytes, at, MPI_BYTE,
                                     MPI_COMM_WORLD, &request);
    return finish(ranks, &request, code, "MPI_Iallgatherv", err);
}

static bool meet(const vae_ranks *ranks, uint64_t *v, size_t n, double seconds, vae_error *err)
{
    const mpi_ranks *m = (const mpi_ranks *)ranks;
    MPI_Request request;
    int code =
        MPI_Iallreduce(MPI_IN_PLACE, v, (int)n, MPI_UINT64_T, MPI_MAX, m->farewell, &request);
    const bool here = code != MPI_SUCCESS || wait_for(&request, &code, seconds);
    return here && check(ranks, code, "MPI_Iallreduce", err) == VAE_OK;
}

static void leave(vae_ranks *ranks)
{
    mpi_ranks *m = (mpi_ranks *)ranks;
    MPI_Comm_free(&m->farewell); /* what fails now is no loss */
    MPI_Finalize();
}

static void abort_all(const vae_ranks *ranks, int code)
{
    (void)ranks;
    MPI_Abort(MPI_COMM_WORLD, code);
}

static const vae_rank_calls mpi_calls = {sum_floats, sum_doubles, most,  broadcast,
                                         gather,     meet,        leave, abort_all};

/* ---- start ---- */

/* This rank's part of the cores that it may run on. */
static vae_status count_cores(vae_ranks *ranks, MPI_Comm host, vae_error *err)
{
    vae_status status = VAE_OK;
    size_t sharing = 0;
    cpu_set_t mine, common, *all = calloc(ranks->n_local, sizeof *all);
    if (all == NULL) {
        TRY(vae_fail_memory(err, ranks->n_local * sizeof *all, "the ranks' cores"));
    }
    CPU_ZERO(&mine);
    sched_getaffinity(0, sizeof mine, &mine); /* fails: one core */
    TRY(check(ranks, MPI_Allgather(&mine, sizeof mine, MPI_BYTE, all, sizeof mine, MPI_BYTE, host),
              "MPI_Allgather", err));
    for (size_t r = 0; r < ranks->n_local; r++) {
        CPU_AND(&common, &mine, &all[r]);
        sharing += r == ranks->local || CPU_COUNT(&common) > 0;
    }
    ranks->cores = (size_t)CPU_COUNT(&mine) / sharing;
    ranks->cores += ranks->cores == 0;
done:
    free(all);
    return status;
}

/* Those of this host, by what memory they can share. */
static vae_status find_host(vae_ranks *ranks, vae_error *err)
{
    MPI_Comm host = MPI_COMM_NULL;
    int n = 1, rank = 0;
    vae_status status = VAE_OK;
    TRY(check(ranks,
              MPI_Comm_split_type(MPI_COMM_WORLD, MPI_COMM_TYPE_SHARED, (int)ranks->rank,
                                  MPI_INFO_NULL, &host),
              "MPI_Comm_split_type", err));
    TRY(check(ranks, MPI_Comm_set_errhandler(host, MPI_ERRORS_RETURN), "MPI_Comm_set_errhandler",
              err));
    TRY(check(ranks, MPI_Comm_size(host, &n), "MPI_Comm_size", err));
    TRY(check(ranks, MPI_Comm_rank(host, &rank), "MPI_Comm_rank", err));
    ranks->n_local = (size_t)n;
    ranks->local = (size_t)rank;
    TRY(count_cores(ranks, host, err));
done:
    if (host != MPI_COMM_NULL) {
        MPI_Comm_free(&host);
    }
    return status;
}

static vae_status join_world(mpi_ranks *m, vae_error *err)
{
    vae_ranks *ranks = &m->base;
    int n = 1, rank = 0;
    vae_status status = VAE_OK;
    /* errors come back, so that they are told as all others are */
    TRY(check(ranks, MPI_Comm_set_errhandler(MPI_COMM_WORLD, MPI_ERRORS_RETURN),
              "MPI_Comm_set_errhandler", err));
    TRY(check(ranks, MPI_Comm_size(MPI_COMM_WORLD, &n), "MPI_Comm_size", err));
    TRY(check(ranks, MPI_Comm_rank(MPI_COMM_WORLD, &rank), "MPI_Comm_rank", err));
    ranks->n = (size_t)n;
    ranks->rank = (size_t)rank;
    TRY(find_host(ranks, err));
    TRY(check(ranks, MPI_Comm_dup(MPI_COMM_WORLD, &m->farewell), "MPI_Comm_dup", err));
done:
    return status;
}

vae_status vae_mpi_start(vae_ranks **out, vae_error *err)
{
    int level;
    vae_status status = VAE_OK;
    *out = NULL;
    mpi_ranks *m = calloc(1, sizeof *m);
    if (m == NULL) {
        return vae_fail_memory(err, sizeof *m, "the ranks");
    }
    m->base = (vae_ranks){.n_local = 1, .cores = 1, .calls = &mpi_calls};
    m->farewell = MPI_COMM_NULL;
    gethostname(m->base.host, sizeof m->base.host - 1);
    snprintf(m->base.library, sizeof m->base.library, "%s", vae_ranks_built());
    /* Open MPI: a rank that waits for a sum gives its core to whoever can use it, another job's
     * too; on cores that nobody else wants it costs nothing */
    setenv("OMPI_MCA_mpi_yield_when_idle", "1", 0);
    TRY(check(&m->base, MPI_Init_thread(NULL, NULL, MPI_THREAD_FUNNELED, &level), "MPI_Init_thread",
              err));
    status = join_world(m, err);
    if (status != VAE_OK) { /* the others may be well, and would wait */
        fprintf(stderr, "vae: %s\n", err->text);
        MPI_Abort(MPI_COMM_WORLD, (int)status);
    }
    *out = &m->base;
    m = NULL;
done:
    free(m);
    return status;
}
