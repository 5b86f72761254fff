/* Copies and fills. Kinds, extents and pinnedness are checked when they are asked for. From then
 * until a copy runs, its host side is not the program's: a destination is hidden (ASan), a source
 * must not change. */
#include "simt_internal.h"

#include <stdlib.h>

namespace simt
{
namespace
{

struct copy_work : work {
    char *dst;
    const char *src;
    size_t dpitch, spitch, width, height;
    bool to_host = false, from_host = false;
    struct sum {
        uint64_t v;
    };
    std::vector<sum> sums; /* of the source, for each time it was armed */
    std::unique_ptr<char[]> staged;

    void each_row(void (*f)(const void *, size_t), const char *base, size_t pitch) const
    {
        for (size_t y = 0; y < height; y++) {
            f(base + y * pitch, width);
        }
    }
    void arm() override
    {
        if (from_host) {
            sums.push_back(sum{checksum(src, spitch, width, height)});
        }
        if (to_host) {
            sums.push_back(sum{0});
            each_row(hide, dst, dpitch);
        }
    }
    void run() override
    {
        if (from_host && !sums.empty()) {
            if (checksum(src, spitch, width, height) != sums.front().v) {
                die("%s: the pinned source %p was changed after the copy was queued and before it "
                    "ran",
                    name, (const void *)src);
            }
            sums.erase(sums.begin());
        }
        if (to_host) {
            each_row(unhide, dst, dpitch);
        }
        for (size_t y = 0; y < height; y++) {
            if (!staged) {
                note_read(src + y * spitch, width);
            }
            note_write(dst + y * dpitch, width);
            raw_copy(dst + y * dpitch, src + y * spitch, width);
        }
        if (to_host) {
            sums.pop_back();
            if (!sums.empty()) { /* another copy to the same place is on its way */
                each_row(hide, dst, dpitch);
            }
        }
    }
};

struct fill_work : work {
    char *dst;
    size_t pitch, width, height;
    int value;
    void run() override
    {
        for (size_t y = 0; y < height; y++) {
            note_write(dst + y * pitch, width);
            raw_fill(dst + y * pitch, value, width);
        }
    }
};

struct shape {
    size_t dpitch, spitch, width, height;
};

const char *kind_name(memory_kind k)
{
    return k == DEVICE ? "device memory" : k == PINNED ? "pinned memory" : "pageable memory";
}

/* Checks a copy; `kind` becomes what it really is. */
cudaError_t check(const char *name, const void *dst, const void *src, const shape &s,
                  cudaMemcpyKind *kind, bool async)
{
    const memory_kind d = kind_of(dst), f = kind_of(src);
    const cudaMemcpyKind real =
        d == DEVICE   ? f == DEVICE ? cudaMemcpyDeviceToDevice : cudaMemcpyHostToDevice
        : f == DEVICE ? cudaMemcpyDeviceToHost
                      : cudaMemcpyHostToHost;
    if (*kind != cudaMemcpyDefault && *kind != real) {
        return wrong(cudaErrorInvalidValue, "%s: kind %d, but it goes from %s to %s", name, *kind,
                     kind_name(f), kind_name(d));
    }
    *kind = real;
    if (s.width > s.dpitch || s.width > s.spitch) {
        return wrong(cudaErrorInvalidPitchValue, "%s: rows of %zu bytes, pitches %zu and %zu", name,
                     s.width, s.dpitch, s.spitch);
    }
    const size_t d_bytes = (s.height - 1) * s.dpitch + s.width;
    const size_t s_bytes = (s.height - 1) * s.spitch + s.width;
    if ((d != PAGEABLE && !inside(dst, d_bytes)) || (f != PAGEABLE && !inside(src, s_bytes))) {
        return wrong(cudaErrorInvalidValue,
                     "%s: reaches past its allocation: needs %zu bytes of %zu (to), %zu of %zu "
                     "(from)",
                     name, d_bytes, room(dst), s_bytes, room(src));
    }
    if (async && (d == PAGEABLE || f == PAGEABLE)) {
        return wrong(cudaErrorInvalidValue, "%s: the host's side is not pinned memory", name);
    }
    return cudaSuccess;
}

std::shared_ptr<copy_work> make_copy(const char *name, void *dst, const void *src, const shape &s,
                                     cudaMemcpyKind kind)
{
    auto w = std::make_shared<copy_work>();
    w->name = name;
    w->dst = (char *)dst;
    w->src = (const char *)src;
    w->dpitch = s.dpitch;
    w->spitch = s.spitch;
    w->width = s.width;
    w->height = s.height;
    w->from_host = kind == cudaMemcpyHostToDevice || kind == cudaMemcpyHostToHost;
    w->to_host = kind == cudaMemcpyDeviceToHost || kind == cudaMemcpyHostToHost;
    return w;
}

/* The host's side of a synchronous copy, as the host's own code would touch it: ASan and TSan look.
 */
void touch(const void *p, size_t n, bool write)
{
#ifdef SIMT_ASAN
    if (void *bad = __asan_region_is_poisoned(const_cast<void *>(p), n)) {
        die("a copy's host side at %p is not the program's memory, or a copy to it is on its way",
            bad);
    }
#endif
    if (write) {
        note_write(const_cast<void *>(p), n);
    } else {
        note_read(p, n);
    }
}

cudaError_t copy_now(const char *name, void *dst, const void *src, const shape &s,
                     cudaMemcpyKind kind)
{
    cudaError_t e = check(name, dst, src, s, &kind, false);
    if (e == cudaSuccess) {
        e = capture_forbids(true, name);
    }
    if (e != cudaSuccess) {
        return e;
    }
    wait_for_blocking();
    std::shared_ptr<copy_work> w = make_copy(name, dst, src, s, kind);
    bool wait = kind != cudaMemcpyDeviceToDevice; /* those CUDA does not wait for */
    for (size_t y = 0; y < s.height; y++) {
        if (w->to_host) {
            touch(w->dst + y * s.dpitch, s.width, true);
        }
        if (w->from_host) {
            touch(w->src + y * s.spitch, s.width, false);
        }
    }
    if (kind == cudaMemcpyHostToDevice && kind_of(src) == PAGEABLE) {
        /* CUDA returns once the bytes are staged; when they arrive is known to who waits for the
         * legacy stream, and to nobody else */
        w->staged.reset(new char[s.width * s.height]);
        for (size_t y = 0; y < s.height; y++) {
            raw_copy(w->staged.get() + y * s.width, w->src + y * s.spitch, s.width);
        }
        w->src = w->staged.get();
        w->spitch = s.width;
        w->from_host = false;
        wait = false;
    }
    w->to_host = w->from_host = false;
    e = submit(nullptr, w);
    if (wait && e == cudaSuccess) {
        wait_for_stream(stream_of(nullptr));
    }
    return e;
}

cudaError_t copy_later(const char *name, void *dst, const void *src, const shape &s,
                       cudaMemcpyKind kind, cudaStream_t stream)
{
    cudaError_t e = check(name, dst, src, s, &kind, true);
    if (e != cudaSuccess) {
        CUstream_st *on = stream_of(stream);
        if (on && on->capturing) {
            capture_forbids(false, name); /* spoils the capture */
        }
        return e;
    }
    return submit(stream, make_copy(name, dst, src, s, kind));
}

cudaError_t fill(const char *name, void *dev, size_t pitch, int value, size_t width, size_t height,
                 cudaStream_t stream)
{
    const size_t bytes = (height - 1) * pitch + width;
    if (width > pitch) {
        return cudaErrorInvalidPitchValue;
    }
    if (kind_of(dev) != DEVICE || !inside(dev, bytes)) {
        return wrong(cudaErrorInvalidValue, "%s: %p, %zu bytes: not in one device allocation", name,
                     dev, bytes);
    }
    auto w = std::make_shared<fill_work>();
    w->name = name;
    w->dst = (char *)dev;
    w->pitch = pitch;
    w->width = width;
    w->height = height;
    w->value = value;
    return submit(stream, w);
}

} // namespace
} // namespace simt

using simt::call;

extern "C" {

cudaError_t cudaMemcpy(void *dst, const void *src, size_t n, enum cudaMemcpyKind kind)
{
    call c("cudaMemcpy", cudaErrorLaunchFailure);
    if (c.refused() || n == 0) {
        return c.done();
    }
    return c.done(simt::copy_now(c.name(), dst, src, simt::shape{n, n, n, 1}, kind));
}

cudaError_t cudaMemcpy2D(void *dst, size_t dpitch, const void *src, size_t spitch, size_t width,
                         size_t height, enum cudaMemcpyKind kind)
{
    call c("cudaMemcpy2D", cudaErrorLaunchFailure);
    if (c.refused() || width == 0 || height == 0) {
        return c.done();
    }
    const simt::shape s = {dpitch, spitch, width, height};
    return c.done(simt::copy_now(c.name(), dst, src, s, kind));
}

cudaError_t cudaMemcpyAsync(void *dst, const void *src, size_t n, enum cudaMemcpyKind kind,
                            cudaStream_t stream)
{
    call c("cudaMemcpyAsync", cudaErrorLaunchFailure);
    if (c.refused() || n == 0) {
        return c.done();
    }
    return c.done(simt::copy_later(c.name(), dst, src, simt::shape{n, n, n, 1}, kind, stream));
}

cudaError_t cudaMemcpy2DAsync(void *dst, size_t dpitch, const void *src, size_t spitch,
                              size_t width, size_t height, enum cudaMemcpyKind kind,
                              cudaStream_t stream)
{
    call c("cudaMemcpy2DAsync", cudaErrorLaunchFailure);
    if (c.refused() || width == 0 || height == 0) {
        return c.done();
    }
    const simt::shape s = {dpitch, spitch, width, height};
    return c.done(simt::copy_later(c.name(), dst, src, s, kind, stream));
}

cudaError_t cudaMemset(void *dev, int value, size_t n)
{
    call c("cudaMemset", cudaErrorLaunchFailure);
    if (c.refused() || n == 0) {
        return c.done();
    }
    return c.done(simt::fill(c.name(), dev, n, value, n, 1, nullptr));
}

cudaError_t cudaMemsetAsync(void *dev, int value, size_t n, cudaStream_t stream)
{
    call c("cudaMemsetAsync", cudaErrorLaunchFailure);
    if (c.refused() || n == 0) {
        return c.done();
    }
    return c.done(simt::fill(c.name(), dev, n, value, n, 1, stream));
}

cudaError_t cudaMemset2DAsync(void *dev, size_t pitch, int value, size_t width, size_t height,
                              cudaStream_t stream)
{
    call c("cudaMemset2DAsync", cudaErrorLaunchFailure);
    if (c.refused() || width == 0 || height == 0) {
        return c.done();
    }
    return c.done(simt::fill(c.name(), dev, pitch, value, width, height, stream));
}

} // extern "C"
