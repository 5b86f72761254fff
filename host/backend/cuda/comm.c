/* Ranks on GPUs, one each: NCCL started and ended, and waits that no lost rank makes endless. */
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "backend/cuda/cuda.h"
#include "backend/open.h"
#include "base/clock.h"

/* How long a GPU waits for those of other ranks, all of whose steps take as long:
 * VAE_RANKS_TIMEOUT, in seconds. A launcher that ends ranks whose fellow died is faster. */
static const double default_patience = 600;

bool vae_nccl_check(cuda_backend *be, ncclResult_t result, const char *call)
{
    if (result != ncclSuccess) {
        const char *more = be->nccl.last_error != NULL ? be->nccl.last_error(be->comm) : NULL;
        vae_fail(&be->err, VAE_ERR_RUNTIME,
                 "NCCL: %.*s failed on rank %zu, host %s, GPU %d: %s%s%.300s",
                 (int)strcspn(call, "("), call, be->base.ranks->rank, be->base.ranks->host,
                 be->device, be->nccl.text(result), more != NULL && *more != '\0' ? ": " : "",
                 more != NULL ? more : "");
    }
    return result == ncclSuccess;
}

/* ---- start and end ---- */

vae_status vae_cuda_join_ranks(vae_backend *base, vae_error *err)
{
    cuda_backend *be = vae_cuda_self(base);
    const vae_ranks *ranks = base->ranks;
    const char *patience = getenv("VAE_RANKS_TIMEOUT");
    char why[512];
    ncclUniqueId id;
    vae_status status = VAE_OK;
    if (vae_ranks_n(ranks) < 2) {
        return VAE_OK;
    }
    be->patience = patience != NULL && atof(patience) > 0 ? atof(patience) : default_patience;
    if (!vae_nccl_load(&be->nccl, why, sizeof why)) {
        status = vae_fail(err, VAE_ERR_NO_DEVICE,
                          "GPUs of several ranks need NCCL, and it is missing: %s", why);
    }
    TRY(vae_ranks_all_ok(ranks, status, err));
    memset(&id, 0, sizeof id);
    if (ranks->rank == 0 && !NCCL_OK(be, unique_id, (&id))) {
        status = vae_fail(err, be->err.status, "%s", be->err.text);
    }
    TRY(vae_ranks_all_ok(ranks, status, err));
    TRY(vae_ranks_broadcast(ranks, &id, sizeof id, err));
    if (!NCCL_OK(be, init, (&be->comm, (int)ranks->n, id, (int)ranks->rank))) {
        be->comm = NULL;
        TRY(vae_fail(err, be->err.status, "%s (%zu ranks on this host)", be->err.text,
                     ranks->n_local));
    }
    NCCL_OK(be, version, (&be->nccl_version));
    be->lane[LANE_RANKS].scratch_bytes = 0;
    CUDA_OK(be, cudaStreamCreateWithFlags(&be->lane[LANE_RANKS].stream, cudaStreamNonBlocking));
    if (!vae_cuda_fine(be)) {
        TRY(vae_fail(err, be->err.status, "%s", be->err.text));
    }
done:
    return status;
}

void vae_cuda_drop(cuda_backend *be, cuda_slot *slot)
{
    if (slot->one != NULL) {
        CUDA_OK(be, cudaGraphExecDestroy(slot->one));
    }
    if (slot->many != NULL) {
        CUDA_OK(be, cudaGraphExecDestroy(slot->many));
    }
    *slot = (cuda_slot){0};
}

void vae_cuda_leave_ranks(cuda_backend *be)
{
    if (be->comm != NULL) {
        /* NCCL waits, in either call, until all graphs with sums of it are destroyed */
        for (int i = 0; i < VAE_SLOTS; i++) {
            vae_cuda_drop(be, &be->slots[i]);
        }
        /* after an error of one rank the others may not come to an orderly end */
        (be->lost ? be->nccl.abort : be->nccl.destroy)(be->comm);
        be->comm = NULL;
    }
}

/* ---- waiting ---- */

/* What is the matter with the others? NULL: nothing. */
static void look_at_ranks(cuda_backend *be, double waited)
{
    ncclResult_t async = ncclSuccess;
    if (NCCL_OK(be, async_error, (be->comm, &async)) && async != ncclSuccess &&
        async != ncclInProgress) {
        vae_nccl_check(be, async, "a sum over ranks");
    }
    if (vae_cuda_fine(be) && waited > be->patience) {
        vae_fail(&be->err, VAE_ERR_RUNTIME,
                 "rank %zu, host %s: its GPU has waited %.0f s for other ranks (VAE_RANKS_TIMEOUT)",
                 be->base.ranks->rank, be->base.ranks->host, waited);
    }
    if (!vae_cuda_fine(be)) { /* its kernels end, so that the stream does */
        be->lost = true;
        vae_cuda_leave_ranks(be);
    }
}

bool vae_cuda_wait(cuda_backend *be)
{
    cudaStream_t stream = be->lane[LANE_MAIN].stream;
    if (be->comm == NULL) {
        return CUDA_OK(be, cudaStreamSynchronize(stream));
    }
    const double begin = vae_clock();
    const struct timespec nap = {0, 50000};
    cudaError_t status;
    while ((status = cudaStreamQuery(stream)) == cudaErrorNotReady && be->comm != NULL) {
        const double waited = vae_clock() - begin;
        if (waited < 1e-3) {
            sched_yield();
        } else {
            nanosleep(&nap, NULL);
            look_at_ranks(be, waited);
        }
    }
    cudaGetLastError(); /* "not ready" is no error to be found later */
    return be->comm != NULL && vae_cuda_check(be, status, "cudaStreamQuery");
}
