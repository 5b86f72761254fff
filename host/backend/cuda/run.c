/* Plans, and running steps: one dry pass to plan, one to capture, then replays; lanes. */
#include "backend/cuda/cuda.h"

#include <stdlib.h>
#include <string.h>

vae_now vae_cuda_now(const cuda_backend *be)
{
    return (vae_now){be->plan, &be->clock->cursor, be->offset};
}

/* ---- lanes ----
 *
 * A step is a chain, captured on LANE_MAIN, and sums that only the update waits for: weight
 * gradients on LANE_SIDE, totals and column sums on LANE_AHEAD. The last weight gradient before a
 * join would only be waited for, behind those before it, so it stays in the chain; the dry pass
 * finds out which those are. In a graph of several steps the batch of the next one is gathered on
 * LANE_AHEAD while the update is under way. With ranks a layer's gradient is summed over them on
 * LANE_RANKS as soon as it is there (ranks.c). */

/* A fork of the dry pass after which nothing was added to the main lane before the join. */
static void keep_in_chain(cuda_backend *be)
{
    if (be->open_fork > 0) {
        be->in_chain |= (uint64_t)1 << (be->open_fork - 1);
    }
}

static void join_lane(cuda_backend *be, int lane)
{
    be->lane[lane].busy = false;
    if (be->mode == MODE_CAPTURING &&
        CUDA_OK(be, cudaEventRecord(be->join, be->lane[lane].stream))) {
        CUDA_OK(be, cudaStreamWaitEvent(be->lane[LANE_MAIN].stream, be->join, 0));
    }
}

void vae_cuda_join(cuda_backend *be, const void *writes)
{
    bool disturbs = writes == NULL || be->main_waits;
    for (size_t i = 0; i < be->n_side_reads; i++) {
        disturbs = disturbs || be->side_reads[i] == writes;
    }
    if (disturbs) {
        keep_in_chain(be);
        for (int lane = LANE_MAIN + 1; lane < VAE_CUDA_LANES; lane++) {
            if (be->lane[lane].busy) {
                join_lane(be, lane);
            }
        }
        be->n_side_reads = 0;
        be->main_waits = false;
    }
    be->open_fork = 0;
    be->updating = false;
    be->norm.g = NULL;
}

/* Is the fork that comes now one that stays in the chain? */
static bool stays(cuda_backend *be)
{
    const size_t known = 8 * sizeof be->in_chain, number = be->n_forks++;
    if (be->mode == MODE_PLANNING) {
        be->open_fork = number < known ? number + 1 : 0;
        return false;
    }
    return number < known && (be->in_chain >> number & 1u) != 0;
}

/* What is added to the lane from now on waits for `event`, to be recorded on the main lane first
 * where `record` says so. */
static void branch_off(cuda_backend *be, int lane, cudaEvent_t event, bool record)
{
    be->lane[lane].busy = true;
    if (be->mode == MODE_CAPTURING &&
        (!record || CUDA_OK(be, cudaEventRecord(event, be->lane[LANE_MAIN].stream)))) {
        CUDA_OK(be, cudaStreamWaitEvent(be->lane[lane].stream, event, 0));
    }
}

static int fork_to(cuda_backend *be, int lane, const void *a, const void *b)
{
    const size_t room = sizeof be->side_reads / sizeof *be->side_reads;
    if (be->mode == MODE_DIRECT || !vae_cuda_fine(be)) {
        return LANE_MAIN;
    }
    if (be->n_side_reads + 2 > room) {
        vae_cuda_join(be, NULL);
    }
    if (stays(be)) {
        return LANE_MAIN;
    }
    be->side_reads[be->n_side_reads++] = a;
    be->side_reads[be->n_side_reads++] = b;
    branch_off(be, lane, be->fork, true);
    return be->mode == MODE_CAPTURING ? lane : LANE_MAIN;
}

int vae_cuda_fork(cuda_backend *be, const void *a, const void *b)
{
    return fork_to(be, LANE_SIDE, a, b);
}

int vae_cuda_fork_totals(cuda_backend *be, const void *a, const void *b)
{
    return fork_to(be, LANE_AHEAD, a, b);
}

bool vae_cuda_begin(cuda_backend *be, const void *writes)
{
    if (!vae_cuda_fine(be)) {
        return false;
    }
    vae_cuda_join(be, writes);
    return vae_cuda_fine(be) && be->mode != MODE_PLANNING;
}

bool vae_cuda_begin_update(cuda_backend *be)
{
    const bool under_way = be->updating;
    const bool begun = vae_cuda_begin(be, NULL);
    be->updating = begun && be->mode == MODE_CAPTURING;
    if (be->updating && !under_way) {
        CUDA_OK(be, cudaEventRecord(be->settled, be->lane[LANE_MAIN].stream));
    }
    return begun && vae_cuda_fine(be);
}

bool vae_cuda_begin_batch(cuda_backend *be, cuda_lane **lane)
{
    *lane = &be->lane[LANE_MAIN];
    if (!be->updating) {
        return vae_cuda_begin(be, NULL);
    }
    if (vae_cuda_fine(be) && !be->main_waits) {
        branch_off(be, LANE_AHEAD, be->settled, false);
        be->main_waits = true; /* whatever comes next reads the batch */
    }
    *lane = &be->lane[LANE_AHEAD];
    return vae_cuda_fine(be);
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
    if (data != NULL && data->stream != NULL &&
        vae_dataset_check_file(data->set, &be->err) != VAE_OK) {
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

typedef struct {
    cudaGraphNode_t node;
    size_t depth;     /* nodes before it in a chain */
    size_t waits_for; /* edges to it that have not been followed yet */
    size_t first, n;  /* of its edges, which are sorted by where they begin */
} chained;

typedef struct {
    cudaGraphNode_t from, to;
} edge;

static int compare(const void *a, const void *b)
{
    return (a > b) - (a < b);
}

static int by_node(const void *a, const void *b)
{
    return compare(((const chained *)a)->node, ((const chained *)b)->node);
}

static int by_from(const void *a, const void *b)
{
    return compare(((const edge *)a)->from, ((const edge *)b)->from);
}

static chained *find(chained *all, size_t n, cudaGraphNode_t node)
{
    const chained wanted = {.node = node};
    return bsearch(&wanted, all, n, sizeof *all, by_node);
}

/* Nodes of the longest chain through n nodes and their edges, which CUDA gives in any order and of
 * which there are tens of thousands where convolutions of many pictures take turns. next: room for
 * n. 0 if an edge is of none of these nodes. */
static size_t longest_chain(chained *all, size_t n, edge *edges, size_t n_edges, chained **next)
{
    size_t most = 0, ready = 0;
    qsort(all, n, sizeof *all, by_node);
    qsort(edges, n_edges, sizeof *edges, by_from);
    for (size_t e = 0; e < n_edges; e++) {
        chained *from = find(all, n, edges[e].from), *to = find(all, n, edges[e].to);
        if (from == NULL || to == NULL) {
            return 0;
        }
        from->first = from->n == 0 ? e : from->first;
        from->n++;
        to->waits_for++;
    }
    for (size_t i = 0; i < n; i++) {
        if (all[i].waits_for == 0) {
            next[ready++] = &all[i];
        }
    }
    for (size_t i = 0; i < ready; i++) {
        most = most > next[i]->depth + 1 ? most : next[i]->depth + 1;
        for (size_t e = next[i]->first; e < next[i]->first + next[i]->n; e++) {
            chained *to = find(all, n, edges[e].to);
            to->depth = to->depth > next[i]->depth + 1 ? to->depth : next[i]->depth + 1;
            if (--to->waits_for == 0) {
                next[ready++] = to;
            }
        }
    }
    return most;
}

/* For describe(): how many nodes, and how many of them one after another. Nothing depends on it, so
 * what it cannot find out stays 0. */
static cuda_graph_size size_of(cudaGraph_t graph)
{
    size_t n = 0, edges = 0;
    cuda_graph_size size = {0};
    if (cudaGraphGetNodes(graph, NULL, &n) != cudaSuccess ||
        cudaGraphGetEdges(graph, NULL, NULL, NULL, &edges) != cudaSuccess) {
        cudaGetLastError();
        return size;
    }
    cudaGraphNode_t *nodes = calloc(n + 2 * edges + 1, sizeof *nodes);
    cudaGraphEdgeData *data =
        calloc(edges + 1, sizeof *data); /* refused without, where it has any */
    chained *all = calloc(n + 1, sizeof *all), **next = calloc(n + 1, sizeof *next);
    edge *pairs = calloc(edges + 1, sizeof *pairs);
    size.nodes = n;
    if (nodes != NULL && data != NULL && all != NULL && next != NULL && pairs != NULL) {
        cudaGraphNode_t *from = nodes + n, *to = from + edges;
        if (cudaGraphGetNodes(graph, nodes, &n) == cudaSuccess &&
            cudaGraphGetEdges(graph, from, to, data, &edges) == cudaSuccess) {
            for (size_t i = 0; i < n; i++) {
                all[i].node = nodes[i];
            }
            for (size_t e = 0; e < edges; e++) {
                pairs[e] = (edge){from[e], to[e]};
            }
            size.chain = longest_chain(all, n, pairs, edges, next);
        }
        cudaGetLastError();
    }
    free(nodes);
    free(data);
    free(all);
    free(next);
    free(pairs);
    return size;
}

/* Captures `steps` steps. NULL on failure. */
static cudaGraphExec_t capture(cuda_backend *be, size_t steps, vae_step_fn *fn, void *ctx,
                               cuda_graph_size *size)
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
        be->n_forks = 0;
        fn(ctx);
    }
    vae_cuda_join(be, NULL);
    if (vae_cuda_fine(be)) {
        CUDA_OK(be, vae_advance_launch(&be->clock->cursor, steps, stream));
    }
    be->offset = 0;
    be->mode = MODE_DIRECT;
    /* also after an error, or the stream would stay in capture */
    CUDA_OK(be, cudaStreamEndCapture(stream, &graph));
    if (vae_cuda_fine(be)) {
        *size = size_of(graph);
        if (!CUDA_OK(be, cudaGraphInstantiate(&exec, graph, 0))) {
            exec = NULL;
        }
    }
    if (graph != NULL) {
        cudaGraphDestroy(graph);
    }
    return exec;
}

/* The dry pass: algorithms, scratch memory, and which forks are worth it. */
static void prepare(cuda_backend *be, vae_step_fn *fn, void *ctx)
{
    be->mode = MODE_PLANNING;
    be->n_forks = 0;
    be->in_chain = 0;
    be->norm.in_update = false;
    fn(ctx);
    vae_cuda_join(be, NULL);
    be->mode = MODE_DIRECT;
}

static void run_graphs(cuda_backend *be, cuda_slot *slot, size_t n, vae_step_fn *fn, void *ctx)
{
    const bool streamed = be->plan_data != NULL && be->plan_data->stream != NULL;
    cudaStream_t stream = be->lane[0].stream;
    if (slot->one == NULL) {
        prepare(be, fn, ctx);
        slot->one = capture(be, 1, fn, ctx, &slot->one_size);
    }
    const bool groups = !streamed || vae_row_stream_many(be->plan_data->stream, 0);
    const bool small = slot->one_size.nodes <= VAE_CUDA_MANY_NODES;
    if (groups && small && slot->many == NULL && n >= VAE_CUDA_MANY) {
        prepare(be, fn, ctx); /* another step may have been captured since */
        slot->many = capture(be, VAE_CUDA_MANY, fn, ctx, &slot->many_size);
    }
    for (size_t i = 0; vae_cuda_fine(be) && i < n;) {
        const bool whole = !streamed || vae_row_stream_many(be->plan_data->stream, be->at);
        const bool many = whole && slot->many != NULL && n - i >= VAE_CUDA_MANY;
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
    vae_cuda_drop(be, s);
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
    vae_cuda_wait(be);
    vae_error first = be->err;
    be->err = (vae_error){0};
    be->lost = be->lost || first.status != VAE_OK; /* the other ranks have no such error */
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
