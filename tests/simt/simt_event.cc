/* Events: marks in a stream's queue, for other streams and for the host to wait for. */
#include "simt_internal.h"

#include <algorithm>
#include <stdio.h>

namespace simt
{
namespace
{

struct event_list {
    std::vector<CUevent_st *> all;
};
event_list &events()
{
    static event_list *l = new event_list;
    return *l;
}

bool is_event(cudaEvent_t e)
{
    std::vector<CUevent_st *> &all = events().all;
    return std::find(all.begin(), all.end(), e) != all.end();
}

} // namespace

size_t events_alive(bool list)
{
    if (list && !events().all.empty()) {
        fprintf(stderr, "simt: alive: %zu events\n", events().all.size());
    }
    return events().all.size();
}

} // namespace simt

using simt::call;

extern "C" {

cudaError_t cudaStreamWaitEvent(cudaStream_t handle, cudaEvent_t event, unsigned)
{
    call c("cudaStreamWaitEvent", cudaErrorInvalidResourceHandle);
    CUstream_st *s = simt::stream_of(handle);
    if (c.refused() || !s || !simt::is_event(event)) {
        return c.done(cudaErrorInvalidResourceHandle);
    }
    if (s->capturing || event->captured) {
        return c.done(simt::capture_wait(s, event));
    }
    if (event->op &&
        !(event->op->done && simt::set.eager)) { /* never recorded: nothing to wait for */
        simt::op_ref o = simt::append(s, nullptr);
        o->after.push_back(event->op);
        simt::eager();
    }
    return c.done();
}

cudaError_t cudaEventCreateWithFlags(cudaEvent_t *event, unsigned flags)
{
    call c("cudaEventCreateWithFlags", cudaErrorMemoryAllocation);
    if (!c.refused()) {
        *event = new CUevent_st;
        (*event)->timing = !(flags & cudaEventDisableTiming);
        simt::events().all.push_back(*event);
    }
    return c.done();
}

cudaError_t cudaEventCreate(cudaEvent_t *event)
{
    return cudaEventCreateWithFlags(event, cudaEventDefault);
}

cudaError_t cudaEventDestroy(cudaEvent_t event)
{
    call c("cudaEventDestroy", cudaErrorLaunchFailure);
    if (!simt::is_event(event)) {
        return c.done(cudaErrorInvalidResourceHandle);
    }
    std::vector<CUevent_st *> &all = simt::events().all;
    all.erase(std::find(all.begin(), all.end(), event));
    delete event;
    return c.done();
}

cudaError_t cudaEventRecord(cudaEvent_t event, cudaStream_t handle)
{
    call c("cudaEventRecord", cudaErrorInvalidResourceHandle);
    CUstream_st *s = simt::stream_of(handle);
    if (c.refused() || !s || !simt::is_event(event)) {
        return c.done(cudaErrorInvalidResourceHandle);
    }
    if (s->capturing) {
        return c.done(simt::capture_record(s, event));
    }
    event->captured.reset();
    event->op = simt::append(s, nullptr);
    simt::eager();
    return c.done();
}

cudaError_t cudaEventSynchronize(cudaEvent_t event)
{
    call c("cudaEventSynchronize", cudaErrorLaunchFailure);
    if (!simt::is_event(event)) {
        return c.done(cudaErrorInvalidResourceHandle);
    }
    cudaError_t e = event->captured ? cudaErrorCapturedEvent : c.unsafe_in_capture();
    if (e == cudaSuccess && event->op) {
        if (!event->op->done) {
            simt::device_window open;
            if (simt::set.streams != SIMT_LAZY && simt::set.streams != SIMT_RANDOM) {
                simt::run_others(event->op->stream);
            }
            simt::wait_for(event->op);
        }
        simt::acquire(&event->op->ended);
    }
    return c.done(e);
}

cudaError_t cudaEventQuery(cudaEvent_t event)
{
    call c("cudaEventQuery", cudaErrorLaunchFailure);
    if (!simt::is_event(event)) {
        return c.done(cudaErrorInvalidResourceHandle);
    }
    cudaError_t e = event->captured ? cudaErrorCapturedEvent : c.unsafe_in_capture();
    if (e == cudaSuccess && event->op && !event->op->done) {
        simt::device_window open;
        simt::step(event->op->stream);
        e = cudaErrorNotReady;
    } else if (e == cudaSuccess && event->op) {
        simt::acquire(&event->op->ended);
    }
    return c.done(e);
}

/* No clock: a microsecond for every operation that ran in between, so that tests repeat. */
cudaError_t cudaEventElapsedTime(float *ms, cudaEvent_t start, cudaEvent_t end)
{
    call c("cudaEventElapsedTime", cudaErrorLaunchFailure);
    if (c.refused()) {
        return c.done();
    }
    if (!simt::is_event(start) || !simt::is_event(end) || !start->op || !end->op ||
        !start->timing || !end->timing) {
        return c.done(cudaErrorInvalidResourceHandle);
    }
    if (!start->op->done || !end->op->done) {
        return c.done(cudaErrorNotReady);
    }
    *ms = 0.001f * (float)(end->op->number - start->op->number);
    return c.done();
}

} // extern "C"
