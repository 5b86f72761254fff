/* Sums over ranks, by NCCL: one operation of a step. */
#include "backend/cuda/cuda.h"

/* Where a sum that nothing waits for until the update is added: behind all that was added so far,
 * on a lane of its own. */
static cuda_lane *branch_to_ranks(cuda_backend *be)
{
    cuda_lane *to = &be->lane[LANE_RANKS];
    for (int i = 0; i < LANE_RANKS && vae_cuda_fine(be); i++) {
        const cuda_lane *from = &be->lane[i];
        if ((i == LANE_MAIN || from->busy) &&
            CUDA_OK(be, cudaEventRecord(be->fork, from->stream))) {
            CUDA_OK(be, cudaStreamWaitEvent(to->stream, be->fork, 0));
        }
    }
    to->busy = true;
    return to;
}

void vae_cuda_sum_ranks(vae_backend *base, float *v, size_t n, bool adds, bool later,
                        const vae_totals *totals)
{
    cuda_backend *be = vae_cuda_self(base);
    cuda_lane *lane = &be->lane[LANE_MAIN];
    if (!vae_cuda_fine(be)) {
        return;
    }
    /* a bad step is known once the totals are there, on a lane of theirs */
    if ((!later || totals != NULL) && !vae_cuda_begin(be, NULL)) {
        return;
    }
    if (be->mode == MODE_PLANNING) {
        return;
    }
    if (later && be->mode == MODE_CAPTURING) {
        lane = branch_to_ranks(be);
    }
    if (!adds && vae_cuda_fine(be)) {
        CUDA_OK(be, cudaMemsetAsync(v, 0, n * sizeof *v, lane->stream));
    }
    if (totals != NULL && vae_cuda_fine(be)) {
        CUDA_OK(be, vae_poison_launch(v, totals, lane->stream));
    }
    if (vae_cuda_fine(be)) {
        NCCL_OK(be, sum, (v, v, n, ncclFloat, ncclSum, be->comm, lane->stream));
    }
}
