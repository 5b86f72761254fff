/* Stream capture and graphs. While a stream is captured nothing runs: work becomes nodes, in the
 * order that streams and events give. A replay takes any order that the graph allows; which, the
 * policy for streams decides (latest branch first unless told otherwise). */
#include "simt_internal.h"

#include <algorithm>
#include <pthread.h>
#include <stdio.h>

namespace simt
{

struct capture {
    cudaStreamCaptureMode mode;
    pthread_t owner;
    CUstream_st *origin;
    std::vector<CUstream_st *> streams;
    graph_ref graph = std::make_shared<graph_body>();
    bool spoiled = false;
};

} // namespace simt

struct CUgraph_st {
    simt::graph_ref body;
};
struct CUgraphExec_st {
    simt::graph_ref body;
};

namespace simt
{
namespace
{

struct graph_lists {
    std::vector<capture *> captures;
    std::vector<CUgraph_st *> graphs;
    std::vector<CUgraphExec_st *> execs;
    struct context {
        void *fiber;
    };
    std::vector<context> contexts; /* one per branch, for TSan */
};
graph_lists &lists()
{
    static graph_lists *l = new graph_lists;
    return *l;
}

void join(std::vector<simt_index> *into, const std::vector<simt_index> &from)
{
    for (const simt_index &n : from) {
        bool there = false;
        for (const simt_index &m : *into) {
            there = there || m.i == n.i;
        }
        if (!there) {
            into->push_back(n);
        }
    }
}

void end_capture(capture *cap)
{
    std::vector<capture *> &all = lists().captures;
    all.erase(std::find(all.begin(), all.end(), cap));
    for (CUstream_st *s : cap->streams) {
        s->frontier.clear();
        s->capturing.reset();
    }
}

/* Whether every stream that took part has been waited for by the origin. */
bool all_joined(const capture &cap)
{
    struct flag {
        bool reached = false;
    };
    std::vector<flag> before(cap.graph->nodes.size());
    std::vector<simt_index> todo = cap.origin->frontier;
    while (!todo.empty()) {
        size_t n = todo.back().i;
        todo.pop_back();
        if (!before[n].reached) {
            before[n].reached = true;
            join(&todo, cap.graph->nodes[n].after);
        }
    }
    for (const CUstream_st *s : cap.streams) {
        for (const simt_index &n : s->frontier) {
            if (!before[n.i].reached) {
                return false;
            }
        }
    }
    return true;
}

bool known(cudaGraph_t g)
{
    return std::find(lists().graphs.begin(), lists().graphs.end(), g) != lists().graphs.end();
}

bool known(cudaGraphExec_t x)
{
    return std::find(lists().execs.begin(), lists().execs.end(), x) != lists().execs.end();
}

struct node_state {
    size_t missing;
    bool done;
    uint64_t ended; /* TSan's tag */
};

struct node_run {
    const graph_node *node;
    std::vector<node_state> *states;
    size_t index;
    uint64_t *start;
};

void run_node(void *arg)
{
    node_run *r = (node_run *)arg;
    acquire(r->start);
    for (const simt_index &n : r->node->after) {
        acquire(&(*r->states)[n.i].ended);
    }
    use_fibers_of(r->node->branch);
    r->node->what->run();
    release(&(*r->states)[r->index].ended);
}

/* The next node whose predecessors are done. */
size_t pick(const graph_body &body, const std::vector<node_state> &states)
{
    size_t best = states.size(), n_ready = 0;
    for (size_t i = 0; i < states.size(); i++) {
        if (states[i].done || states[i].missing > 0) {
            continue;
        }
        n_ready++;
        bool take = best == states.size();
        if (!take && set.streams == SIMT_RANDOM) {
            take = random((uint32_t)n_ready) == 0;
        } else if (!take && set.streams != SIMT_EARLIEST) {
            take = body.nodes[i].branch > body.nodes[best].branch;
        }
        best = take ? i : best;
    }
    return best;
}

struct graph_work : work {
    graph_ref body;
    void arm() override
    {
        for (const graph_node &n : body->nodes) {
            n.what->arm();
        }
    }
    void run() override
    {
        run_graph(*body);
    }
};

} // namespace

void run_graph(const graph_body &body)
{
    std::vector<node_state> states(body.nodes.size());
    for (size_t i = 0; i < states.size(); i++) {
        states[i] = node_state{body.nodes[i].after.size(), false, 0};
    }
    uint64_t *start = new uint64_t;
    release(start);
    for (size_t n = 0; n < states.size(); n++) {
        const size_t i = pick(body, states);
        const graph_node &node = body.nodes[i];
        std::vector<graph_lists::context> &contexts = lists().contexts;
        while (contexts.size() <= node.branch) {
            contexts.push_back(graph_lists::context{context_create()});
        }
        trace("graph runs node %zu, %s (branch %u)", i, node.what->name, node.branch);
        node_run r = {&node, &states, i, start};
        context_run(contexts[node.branch].fiber, run_node, &r);
        states[i].done = true;
        for (size_t j = i + 1; j < states.size(); j++) {
            for (const simt_index &a : body.nodes[j].after) {
                states[j].missing -= a.i == i;
            }
        }
    }
    for (node_state &s : states) {
        acquire(&s.ended);
    }
    delete start;
}

bool in_graph(bool (*is)(const work &node, const void *what), const void *what)
{
    std::vector<graph_ref> all;
    for (const CUgraph_st *g : lists().graphs) {
        all.push_back(g->body);
    }
    for (const CUgraphExec_st *x : lists().execs) {
        all.push_back(x->body);
    }
    for (const graph_ref &body : all) {
        for (const graph_node &node : body->nodes) {
            if (is(*node.what, what)) {
                return true;
            }
        }
    }
    return false;
}

cudaError_t capture_add(CUstream_st *s, work_ref what)
{
    capture &cap = *s->capturing;
    if (cap.spoiled) {
        return cudaErrorStreamCaptureInvalidated;
    }
    graph_node n;
    n.what = what;
    n.after = s->frontier;
    for (size_t b = 0; b < cap.streams.size(); b++) {
        n.branch = cap.streams[b] == s ? (unsigned)b : n.branch;
    }
    cap.graph->nodes.push_back(n);
    s->frontier.assign(1, simt_index{cap.graph->nodes.size() - 1});
    return cudaSuccess;
}

/* A call that a capture does not allow, by its mode: fails, and spoils the captures concerned. */
cudaError_t capture_forbids(bool legacy_work, const char *what)
{
    cudaError_t e = cudaSuccess;
    for (capture *cap : lists().captures) {
        const bool own = pthread_equal(cap->owner, pthread_self());
        if (cap->mode == cudaStreamCaptureModeGlobal ||
            (cap->mode == cudaStreamCaptureModeThreadLocal && own) || (legacy_work && own)) {
            cap->spoiled = true;
            e = legacy_work ? cudaErrorStreamCaptureImplicit : cudaErrorStreamCaptureUnsupported;
        }
    }
    return e == cudaSuccess ? e : wrong(e, "%s while a stream is being captured", what);
}

cudaError_t capture_record(CUstream_st *s, cudaEvent_t event)
{
    if (s->capturing->spoiled) {
        return cudaErrorStreamCaptureInvalidated;
    }
    event->captured = s->capturing;
    event->frontier = s->frontier;
    event->op.reset();
    return cudaSuccess;
}

cudaError_t capture_wait(CUstream_st *s, cudaEvent_t event)
{
    if (s->capturing && s->capturing->spoiled) {
        return cudaErrorStreamCaptureInvalidated;
    }
    if (!event->captured) {
        s->capturing->spoiled = true;
        return wrong(cudaErrorStreamCaptureIsolation,
                     "a captured stream waits for an event that was recorded outside the capture");
    }
    std::vector<capture *> &all = lists().captures;
    if (std::find(all.begin(), all.end(), event->captured.get()) == all.end()) {
        if (s->capturing) {
            s->capturing->spoiled = true;
        }
        return wrong(cudaErrorCapturedEvent, "wait for an event of a capture that has ended");
    }
    if (s->capturing && s->capturing != event->captured) {
        s->capturing->spoiled = event->captured->spoiled = true;
        return wrong(cudaErrorStreamCaptureMerge, "a wait would merge two captures");
    }
    if (!s->capturing) {
        s->capturing = event->captured;
        s->frontier.clear();
        std::vector<CUstream_st *> &in = s->capturing->streams;
        if (std::find(in.begin(), in.end(), s) == in.end()) {
            in.push_back(s);
        }
    }
    join(&s->frontier, event->frontier);
    return cudaSuccess;
}

size_t graphs_alive(bool list)
{
    const size_t n = lists().graphs.size() + lists().execs.size();
    if (list && n > 0) {
        fprintf(stderr, "simt: alive: %zu graphs, %zu executable graphs\n", lists().graphs.size(),
                lists().execs.size());
    }
    return n;
}

} // namespace simt

using simt::call;

extern "C" {

cudaError_t cudaStreamBeginCapture(cudaStream_t handle, enum cudaStreamCaptureMode mode)
{
    call c("cudaStreamBeginCapture", cudaErrorStreamCaptureUnsupported);
    CUstream_st *s = simt::stream_of(handle);
    if (c.refused() || !s) {
        return c.done(cudaErrorInvalidResourceHandle);
    }
    if (s == simt::stream_of(nullptr)) {
        return c.done(
            simt::wrong(cudaErrorStreamCaptureUnsupported, "capture of the legacy stream"));
    }
    if (s->capturing) {
        return c.done(cudaErrorIllegalState);
    }
    auto cap = std::make_shared<simt::capture>();
    cap->mode = mode;
    cap->owner = pthread_self();
    cap->origin = s;
    cap->streams.push_back(s);
    s->capturing = cap;
    s->frontier.clear();
    simt::lists().captures.push_back(cap.get());
    return c.done();
}

cudaError_t cudaStreamEndCapture(cudaStream_t handle, cudaGraph_t *graph)
{
    call c("cudaStreamEndCapture", cudaErrorStreamCaptureInvalidated);
    CUstream_st *s = simt::stream_of(handle);
    if (graph) {
        *graph = nullptr;
    }
    if (!s || !s->capturing || !graph) {
        return c.done(cudaErrorIllegalState);
    }
    std::shared_ptr<simt::capture> cap = s->capturing;
    cudaError_t e = cudaSuccess;
    if (cap->origin != s) {
        cap->spoiled = true;
        return c.done(cudaErrorStreamCaptureUnmatched);
    }
    if (cap->mode == cudaStreamCaptureModeThreadLocal &&
        !pthread_equal(cap->owner, pthread_self())) {
        return c.done(cudaErrorStreamCaptureWrongThread);
    }
    if (cap->spoiled) {
        e = cudaErrorStreamCaptureInvalidated;
    } else if (!simt::all_joined(*cap)) {
        e = simt::wrong(cudaErrorStreamCaptureUnjoined, "a forked stream was not joined");
    }
    simt::end_capture(cap.get());
    if (e == cudaSuccess && !c.refused()) {
        CUgraph_st *g = new CUgraph_st{cap->graph};
        simt::lists().graphs.push_back(g);
        *graph = g;
    }
    return c.done(e);
}

cudaError_t cudaStreamIsCapturing(cudaStream_t handle, enum cudaStreamCaptureStatus *status)
{
    call c("cudaStreamIsCapturing", cudaErrorInvalidResourceHandle);
    CUstream_st *s = simt::stream_of(handle);
    if (!s || !status) {
        return c.done(cudaErrorInvalidResourceHandle);
    }
    *status = !s->capturing           ? cudaStreamCaptureStatusNone
              : s->capturing->spoiled ? cudaStreamCaptureStatusInvalidated
                                      : cudaStreamCaptureStatusActive;
    return c.done();
}

cudaError_t cudaGraphInstantiate(cudaGraphExec_t *exec, cudaGraph_t graph, unsigned long long)
{
    call c("cudaGraphInstantiate", cudaErrorMemoryAllocation);
    if (c.refused() || !simt::known(graph)) {
        return c.done(cudaErrorInvalidValue);
    }
    *exec = new CUgraphExec_st{graph->body};
    simt::lists().execs.push_back(*exec);
    return c.done();
}

cudaError_t cudaGraphInstantiateWithFlags(cudaGraphExec_t *exec, cudaGraph_t graph,
                                          unsigned long long flags)
{
    return cudaGraphInstantiate(exec, graph, flags);
}

cudaError_t cudaGraphUpload(cudaGraphExec_t exec, cudaStream_t stream)
{
    call c("cudaGraphUpload", cudaErrorMemoryAllocation);
    return c.done(simt::known(exec) && simt::stream_of(stream) ? cudaSuccess
                                                               : cudaErrorInvalidValue);
}

cudaError_t cudaGraphLaunch(cudaGraphExec_t exec, cudaStream_t stream)
{
    call c("cudaGraphLaunch", cudaErrorLaunchFailure);
    if (c.refused() || !simt::known(exec)) {
        return c.done(cudaErrorInvalidValue);
    }
    CUstream_st *s = simt::stream_of(stream);
    if (s && s->capturing) { /* CUDA would make it a child graph; vae has no use for that */
        s->capturing->spoiled = true;
        return c.done(cudaErrorStreamCaptureUnsupported);
    }
    auto w = std::make_shared<simt::graph_work>();
    w->name = "graph";
    w->body = exec->body;
    return c.done(simt::submit(stream, w));
}

cudaError_t cudaGraphGetNodes(cudaGraph_t graph, cudaGraphNode_t *nodes, size_t *n)
{
    call c("cudaGraphGetNodes", cudaErrorInvalidValue);
    if (c.refused() || !simt::known(graph)) {
        return c.done(cudaErrorInvalidValue);
    }
    std::vector<simt::graph_node> &all = graph->body->nodes;
    for (size_t i = 0; nodes && i < *n; i++) {
        nodes[i] = i < all.size() ? (cudaGraphNode_t)(void *)&all[i] : nullptr;
    }
    *n = all.size();
    return c.done();
}

cudaError_t cudaGraphGetEdges(cudaGraph_t graph, cudaGraphNode_t *from, cudaGraphNode_t *to,
                              cudaGraphEdgeData *data, size_t *n)
{
    call c("cudaGraphGetEdges", cudaErrorInvalidValue);
    if (c.refused() || !simt::known(graph)) {
        return c.done(cudaErrorInvalidValue);
    }
    std::vector<simt::graph_node> &all = graph->body->nodes;
    size_t edges = 0;
    for (size_t i = all.size(); i-- > 0;) { /* CUDA promises no order; this helps nobody */
        for (const simt_index &before : all[i].after) {
            if (from && to && edges < *n) {
                from[edges] = (cudaGraphNode_t)(void *)&all[before.i];
                to[edges] = (cudaGraphNode_t)(void *)&all[i];
                if (data) {
                    data[edges] = cudaGraphEdgeData{};
                }
            }
            edges++;
        }
    }
    *n = edges;
    return c.done();
}

cudaError_t cudaGraphDestroy(cudaGraph_t graph)
{
    call c("cudaGraphDestroy", cudaErrorLaunchFailure);
    if (!simt::known(graph)) {
        return c.done(cudaErrorInvalidValue);
    }
    std::vector<CUgraph_st *> &all = simt::lists().graphs;
    all.erase(std::find(all.begin(), all.end(), graph));
    delete graph;
    return c.done();
}

cudaError_t cudaGraphExecDestroy(cudaGraphExec_t exec)
{
    call c("cudaGraphExecDestroy", cudaErrorLaunchFailure);
    if (!simt::known(exec)) {
        return c.done(cudaErrorInvalidValue);
    }
    std::vector<CUgraphExec_st *> &all = simt::lists().execs;
    all.erase(std::find(all.begin(), all.end(), exec));
    delete exec;
    return c.done();
}

} // extern "C"
