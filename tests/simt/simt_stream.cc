/* Streams. Operations are queued, and run when somebody waits for them: what nobody
 * waits for has not happened, so a missing synchronization is a wrong number instead of luck. */
#include "simt_internal.h"

#include <algorithm>
#include <stdio.h>
#include <stdlib.h>

namespace simt
{
namespace
{

struct stream_list {
    std::vector<CUstream_st *> all; /* [0] is the legacy stream */
    unsigned next_id = 0;
};
stream_list &streams()
{
    static stream_list *l = new stream_list;
    return *l;
}
uint64_t n_done;

CUstream_st *create_stream(bool blocking)
{
    CUstream_st *s = new CUstream_st;
    s->blocking = blocking;
    s->id = streams().next_id++;
    s->context = context_create();
    streams().all.push_back(s);
    return s;
}

CUstream_st *legacy()
{
    if (streams().all.empty()) {
        create_stream(true);
    }
    return streams().all[0];
}

bool empty(const CUstream_st *s)
{
    return s->head == s->queue.size();
}

void run_op(void *arg)
{
    op *o = (op *)arg;
    acquire(&o->started);
    for (const op_ref &before : o->after) {
        acquire(&before->ended);
    }
    if (o->what) {
        use_fibers_of(o->stream->id);
        o->what->run();
        o->what.reset(); /* here, where the stream's clock knows all that used it */
    }
    release(&o->ended);
    release(&o->stream->tail);
}

} // namespace

void step(CUstream_st *s)
{
    op_ref o = s->queue[s->head];
    for (const op_ref &before : o->after) {
        wait_for(before);
    }
    if (s->running || o->done) {
        die("operations of streams wait for one another");
    }
    s->running = true;
    s->queue[s->head++].reset();
    if (o->what) {
        trace("stream %u runs %s", s->id, o->what->name);
    }
    context_run(s->context, run_op, o.get());
    s->running = false;
    o->done = true;
    o->number = ++n_done;
    o->after.clear();
    if (empty(s)) {
        s->queue.clear();
        s->head = 0;
    }
}

static void finish(CUstream_st *s)
{
    while (!empty(s)) {
        step(s);
    }
}

void run_others(const CUstream_st *target)
{
    std::vector<CUstream_st *> &all = streams().all;
    switch (set.streams) {
    case SIMT_LAZY:
        break;
    case SIMT_LATEST:
        for (size_t i = all.size(); i-- > 0;) {
            if (all[i] != target) {
                finish(all[i]);
            }
        }
        break;
    case SIMT_EARLIEST:
        for (size_t i = 0; i < all.size(); i++) {
            if (all[i] != target) {
                finish(all[i]);
            }
        }
        break;
    case SIMT_RANDOM:
        while (!empty(target)) {
            CUstream_st *s = all[random((uint32_t)all.size())];
            if (!empty(s)) {
                step(s);
            }
        }
        break;
    }
}

op_ref append(CUstream_st *s, work_ref what)
{
    op_ref o = std::make_shared<op>();
    o->what = what;
    o->stream = s;
    if (s == legacy()) { /* comes after all that blocking streams have been given ... */
        for (CUstream_st *other : streams().all) {
            if (other != s && other->blocking && !empty(other)) {
                o->after.push_back(other->queue.back());
            }
        }
    } else if (s->blocking && !empty(legacy())) { /* ... and they after it */
        o->after.push_back(legacy()->queue.back());
    }
    release(&o->started);
    s->queue.push_back(o);
    return o;
}

void eager()
{
    if (set.eager) {
        wait_for_all();
    }
}

CUstream_st *stream_of(cudaStream_t handle)
{
    if (handle == nullptr || handle == cudaStreamLegacy) {
        return legacy();
    }
    legacy();
    for (CUstream_st *s : streams().all) {
        if (s == handle && s != streams().all[0]) {
            return s;
        }
    }
    return nullptr;
}

cudaError_t submit(cudaStream_t handle, work_ref what)
{
    CUstream_st *s = stream_of(handle);
    if (!s) {
        return wrong(cudaErrorInvalidResourceHandle, "%s: no such stream", what->name);
    }
    if (s->capturing) {
        return capture_add(s, what);
    }
    if (s == legacy()) {
        cudaError_t e = capture_forbids(true, what->name);
        if (e != cudaSuccess) {
            return e;
        }
    }
    what->arm();
    append(s, what);
    eager();
    return cudaSuccess;
}

void wait_for(const op_ref &target)
{
    device_window open;
    while (!target->done) {
        step(target->stream);
    }
    /* no acquire here: that is for who waits, host or stream */
}

void wait_for_stream(CUstream_st *s)
{
    device_window open;
    run_others(s);
    finish(s);
    acquire(&s->tail);
}

void wait_for_all()
{
    device_window open;
    std::vector<CUstream_st *> &all = streams().all;
    for (size_t i = 0; i < all.size(); i++) {
        finish(all[set.streams == SIMT_EARLIEST ? i : all.size() - 1 - i]);
    }
    for (CUstream_st *s : all) {
        acquire(&s->tail);
    }
}

void wait_for_blocking()
{
    device_window open;
    run_others(legacy());
    for (CUstream_st *s : streams().all) {
        if (s->blocking) {
            finish(s);
            acquire(&s->tail);
        }
    }
}

size_t streams_alive(bool list)
{
    size_t n = 0;
    for (size_t i = 1; i < streams().all.size(); i++, n++) {
        if (list) {
            fprintf(stderr, "simt: alive: stream %u\n", streams().all[i]->id);
        }
    }
    return n;
}

namespace
{
struct host_work : work {
    cudaHostFn_t fn;
    void *user;
    void run() override
    {
        ignore_end();
        fn(user);
        ignore_begin();
    }
};
} // namespace

} // namespace simt

using simt::call;

extern "C" {

cudaError_t cudaDeviceSynchronize(void)
{
    call c("cudaDeviceSynchronize", cudaErrorLaunchFailure);
    cudaError_t e = c.unsafe_in_capture();
    if (e == cudaSuccess) {
        simt::wait_for_all();
    }
    return c.done(e);
}

cudaError_t cudaDeviceReset(void)
{
    call c("cudaDeviceReset", cudaErrorLaunchFailure);
    simt::wait_for_all();
    return c.done();
}

cudaError_t cudaStreamCreateWithFlags(cudaStream_t *stream, unsigned flags)
{
    call c("cudaStreamCreateWithFlags", cudaErrorMemoryAllocation);
    if (!c.refused()) {
        simt::legacy();
        *stream = simt::create_stream(!(flags & cudaStreamNonBlocking));
    }
    return c.done();
}

cudaError_t cudaStreamCreateWithPriority(cudaStream_t *stream, unsigned flags, int)
{
    return cudaStreamCreateWithFlags(stream, flags);
}

cudaError_t cudaDeviceGetStreamPriorityRange(int *least, int *greatest)
{
    call c("cudaDeviceGetStreamPriorityRange", cudaErrorInitializationError);
    *least = 0;
    *greatest = -5;
    return c.done();
}

cudaError_t cudaStreamCreate(cudaStream_t *stream)
{
    return cudaStreamCreateWithFlags(stream, cudaStreamDefault);
}

cudaError_t cudaStreamDestroy(cudaStream_t handle)
{
    call c("cudaStreamDestroy", cudaErrorLaunchFailure);
    CUstream_st *s = handle ? simt::stream_of(handle) : nullptr;
    if (!s || s == simt::legacy()) {
        return c.done(cudaErrorInvalidResourceHandle);
    }
    if (s->capturing) {
        return c.done(c.unsafe_in_capture());
    }
    {
        simt::device_window open; /* CUDA lets the work finish; nobody waits for it here */
        simt::finish(s);
    }
    std::vector<CUstream_st *> &all = simt::streams().all;
    all.erase(std::find(all.begin(), all.end(), s));
    delete s;
    return c.done();
}

cudaError_t cudaStreamSynchronize(cudaStream_t handle)
{
    call c("cudaStreamSynchronize", cudaErrorLaunchFailure);
    CUstream_st *s = simt::stream_of(handle);
    if (!s) {
        return c.done(simt::wrong(cudaErrorInvalidResourceHandle, "%s: no such stream", c.name()));
    }
    cudaError_t e = c.unsafe_in_capture();
    if (e == cudaSuccess && s == simt::legacy()) {
        simt::wait_for_blocking();
    } else if (e == cudaSuccess) {
        simt::wait_for_stream(s);
    }
    return c.done(e);
}

cudaError_t cudaStreamQuery(cudaStream_t handle)
{
    call c("cudaStreamQuery", cudaErrorLaunchFailure);
    CUstream_st *s = simt::stream_of(handle);
    if (!s) {
        return c.done(cudaErrorInvalidResourceHandle);
    }
    cudaError_t e = c.unsafe_in_capture();
    if (e == cudaSuccess && !simt::empty(s)) {
        simt::device_window open; /* time passes between queries */
        simt::step(s);
        e = cudaErrorNotReady;
    } else if (e == cudaSuccess) {
        simt::acquire(&s->tail);
    }
    return c.done(e);
}

cudaError_t cudaLaunchHostFunc(cudaStream_t stream, cudaHostFn_t fn, void *user)
{
    call c("cudaLaunchHostFunc", cudaErrorInvalidValue);
    if (c.refused()) {
        return c.done();
    }
    auto w = std::make_shared<simt::host_work>();
    w->name = "host function";
    w->fn = fn;
    w->user = user;
    return c.done(simt::submit(stream, w));
}

} // extern "C"
