/* Plans, and running steps: one dry pass to plan, one to capture, then replays; the side lane. */
#include "backend/cuda/cuda.h"

#include <stdlib.h>
#include <string.h>

vae_now vae_cuda_now(const cuda_backend *be)
{
    return (vae_now){be->plan, &be->clock->cursor, be->offset};
}

/* ---- the side lane ---- */

void vae_cuda_join(cuda_backend *be, const void *writes)
{
    bool disturbs = writes == NULL;
    for (size_t i = 0; i < be->n_side_reads; i++) {
        disturbs = disturbs || be->side_reads[i] == writes;
    }
    if (!be->side_busy || !disturbs) {
        return;
    }
    be->side_busy = false;
    be->n_side_reads = 0;
    if (CUDA_OK(be, cudaEventRecord(be->join, be->lane[1].stream))) {
        CUDA_OK(be, cudaStreamWaitEvent(be->lane[0].stream, be->join, 0));
    }
}

int vae_cuda_fork(cuda_backend *be, const void *a, const void *b)
{
    const size_t room = sizeof be->side_reads / sizeof *be->side_reads;
    if (be->mode != MODE_CAPTURING || !vae_cuda_fine(be)) {
        return 0;
    }
    if (be->n_side_reads + 2 > room) {
        vae_cuda_join(be, NULL);
    }
    be->side_reads[be->n_side_reads++] = a;
    be->side_reads[be->n_side_reads++] = b;
    be->side_busy = true;
    if (CUDA_OK(be, cudaEventRecord(be->fork, be->lane[0].stream))) {
        CUDA_OK(be, cudaStreamWaitEvent(be->lane[1].stream, be->fork, 0));
    }
    return 1;
}

bool vae_cuda_begin(cuda_backend *be, const void *writes)
{
    if (!vae_cuda_fine(be)) {
        return false;
    }
    vae_cuda_join(be, writes);
    return vae_cuda_fine(be) && be->mode != MODE_PLANNING;
}

/* ---- plans ---- */

/* Device memory for n entries. Graphs know where it lies, so they go when it moves. */
static bool grow_plan(cuda_backend *be, size_t n)
{
    if (n <= be->plan_room) {
        return true;
    }
    size_t room = be->plan_room > 0 ? 2 * be->plan_room : (size_t)4096;
    room = room > n ? room : n;
    vae_cuda_forget_all(be);
    if (!CUDA_OK(be, cudaStreamSynchronize(be->lane[0].stream)) ||
        !CUDA_OK(be, cudaFree(be->plan))) {
        return false;
    }
    be->plan_room = 0;
    be->plan = vae_cuda_take(be, room * sizeof *be->plan, "the plan");
    be->plan_room = be->plan != NULL ? room : 0;
    return be->plan != NULL;
}

/* The next pinned buffer, once what was sent from it has arrived. */
static cuda_plan_buffer *next_buffer(cuda_backend *be, size_t n)
{
    cuda_plan_buffer *b = &be->ring[be->ring_at++ % VAE_CUDA_PLAN_RING];
    if (b->sent == NULL &&
        !CUDA_OK(be, cudaEventCreateWithFlags(&b->sent, cudaEventDisableTiming))) {
        return NULL;
    }
    if (b->host != NULL && !CUDA_OK(be, cudaEventSynchronize(b->sent))) {
        return NULL;
    }
    if (n > b->room) {
        if (!CUDA_OK(be, cudaFreeHost(b->host))) {
            return NULL;
        }
        *b = (cuda_plan_buffer){.sent = b->sent};
        size_t room = n > 256 ? n : 256;
        void *memory = NULL;
        if (!CUDA_OK(be, cudaMallocHost(&memory, room * sizeof *b->host))) {
            return NULL;
        }
        b->host = memory;
        b->room = room;
    }
    return b;
}

void vae_cuda_plan(vae_backend *base, const vae_plan *plan, size_t n, size_t rows, vae_data *data)
{
    cuda_backend *be = vae_cuda_self(base);
    cudaStream_t stream = be->lane[0].stream;
    if (!vae_cuda_fine(be) || n == 0 || !grow_plan(be, n)) {
        return;
    }
    cuda_plan_buffer *b = next_buffer(be, n);
    if (b == NULL) {
        return;
    }
    memcpy(b->host, plan, n * sizeof *plan);
    be->plan_n = n;
    be->plan_rows = rows;
    be->plan_data = data;
    be->at = 0;
    if (CUDA_OK(be, cudaMemcpyAsync(be->plan, b->host, n * sizeof *plan, cudaMemcpyHostToDevice,
                                    stream)) &&
        CUDA_OK(be, cudaEventRecord(b->sent, stream))) {
        CUDA_OK(be, cudaMemsetAsync(&be->clock->cursor, 0, sizeof be->clock->cursor, stream));
    }
    if (vae_cuda_fine(be) && data != NULL && data->stream != NULL) {
        if (!vae_row_stream_fits(data->stream, rows)) {
            vae_cuda_forget_all(be); /* graphs know where the staging memory lies */
        }
        vae_row_stream_plan(be, data, plan, n, rows);
    }
}

/* ---- graphs ---- */

/* Captures `steps` steps. NULL on failure. */
static cudaGraphExec_t capture(cuda_backend *be, size_t steps, vae_step_fn *fn, void *ctx,
                               size_t *nodes)
{
    cudaStream_t stream = be->lane[0].stream;
    cudaGraph_t graph = NULL;
    cudaGraphExec_t exec = NULL;
    if (!vae_cuda_fine(be) ||
        !CUDA_OK(be, cudaStreamBeginCapture(stream, cudaStreamCaptureModeThreadLocal))) {
        return NULL;
    }
    be->mode = MODE_CAPTURING;
    for (size_t s = 0; s < steps; s++) {
        be->offset = s;
        fn(ctx);
    }
    vae_cuda_join(be, NULL);
    if (vae_cuda_fine(be)) {
        CUDA_OK(be, vae_advance_launch(&be->clock->cursor, steps, stream));
    }
    be->offset = 0;
    be->mode = MODE_DIRECT;
    be->side_busy = false;
    be->n_side_reads = 0;
    /* also after an error, or the stream would stay in capture */
    CUDA_OK(be, cudaStreamEndCapture(stream, &graph));
    if (vae_cuda_fine(be)) {
        CUDA_OK(be, cudaGraphGetNodes(graph, NULL, nodes));
        if (vae_cuda_fine(be) && !CUDA_OK(be, cudaGraphInstantiate(&exec, graph, 0))) {
            exec = NULL;
        }
    }
    if (graph != NULL) {
        cudaGraphDestroy(graph);
    }
    return exec;
}

/* The dry pass: algorithms and scratch memory. */
static void prepare(cuda_backend *be, vae_step_fn *fn, void *ctx)
{
    be->mode = MODE_PLANNING;
    fn(ctx);
    be->mode = MODE_DIRECT;
}

static void run_graphs(cuda_backend *be, cuda_slot *slot, size_t n, vae_step_fn *fn, void *ctx)
{
    const bool streamed = be->plan_data != NULL && be->plan_data->stream != NULL;
    cudaStream_t stream = be->lane[0].stream;
    size_t nodes;
    if (slot->one == NULL) {
        prepare(be, fn, ctx);
        slot->one = capture(be, 1, fn, ctx, &slot->nodes);
    }
    if (!streamed && slot->many == NULL && n >= 2 * VAE_CUDA_MANY) {
        slot->many = capture(be, VAE_CUDA_MANY, fn, ctx, &nodes);
    }
    for (size_t i = 0; vae_cuda_fine(be) && i < n;) {
        const bool many = !streamed && slot->many != NULL && n - i >= VAE_CUDA_MANY;
        const size_t steps = many ? VAE_CUDA_MANY : 1;
        if (streamed) {
            vae_row_stream_stage(be, be->plan_data->stream, be->at);
        }
        if (vae_cuda_fine(be)) {
            CUDA_OK(be, cudaGraphLaunch(many ? slot->many : slot->one, stream));
        }
        if (streamed) {
            vae_row_stream_consumed(be, be->plan_data->stream, be->at);
        }
        i += steps;
        be->at += steps;
    }
}

static void run_directly(cuda_backend *be, size_t n, vae_step_fn *fn, void *ctx)
{
    const bool streamed = be->plan_data != NULL && be->plan_data->stream != NULL;
    for (size_t i = 0; vae_cuda_fine(be) && i < n; i++, be->at++) {
        if (streamed) {
            vae_row_stream_stage(be, be->plan_data->stream, be->at);
        }
        fn(ctx);
        if (vae_cuda_fine(be)) {
            CUDA_OK(be, vae_advance_launch(&be->clock->cursor, 1, be->lane[0].stream));
        }
        if (streamed) {
            vae_row_stream_consumed(be, be->plan_data->stream, be->at);
        }
    }
}

void vae_cuda_run(vae_backend *base, int slot, size_t n, vae_step_fn *fn, void *ctx)
{
    cuda_backend *be = vae_cuda_self(base);
    if (!vae_cuda_fine(be) || n == 0) {
        return;
    }
    be->in_run = true;
    if (be->graphs) {
        run_graphs(be, &be->slots[slot], n, fn, ctx);
    } else {
        run_directly(be, n, fn, ctx);
    }
    be->in_run = false;
}

void vae_cuda_forget(vae_backend *base, int slot)
{
    cuda_backend *be = vae_cuda_self(base);
    cuda_slot *s = &be->slots[slot];
    if (s->one == NULL && s->many == NULL) {
        return;
    }
    cudaStreamSynchronize(be->lane[0].stream); /* an error shows at the next sync */
    if (s->one != NULL) {
        CUDA_OK(be, cudaGraphExecDestroy(s->one));
    }
    if (s->many != NULL) {
        CUDA_OK(be, cudaGraphExecDestroy(s->many));
    }
    *s = (cuda_slot){0};
}

void vae_cuda_forget_all(cuda_backend *be)
{
    for (int i = 0; i < VAE_SLOTS; i++) {
        vae_cuda_forget(&be->base, i);
    }
}

vae_status vae_cuda_sync(vae_backend *base, vae_error *err)
{
    cuda_backend *be = vae_cuda_self(base);
    CUDA_OK(be, cudaStreamSynchronize(be->lane[0].stream));
    vae_error first = be->err;
    be->err = (vae_error){0};
    return first.status == VAE_OK ? VAE_OK : vae_fail(err, first.status, "%s", first.text);
}

void vae_cuda_run_close(cuda_backend *be)
{
    vae_cuda_forget_all(be);
    for (size_t i = 0; i < VAE_CUDA_PLAN_RING; i++) {
        cudaFreeHost(be->ring[i].host);
        if (be->ring[i].sent != NULL) {
            cudaEventDestroy(be->ring[i].sent);
        }
    }
    cudaFree(be->plan);
}
