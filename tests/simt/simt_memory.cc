/* Allocations: which memory is whose, how far it reaches, and who may touch it. Device memory is
 * host memory, filled with 0xFF (NaNs), hidden from the host by ASan's poison except while queued
 * work runs. Without ASan, guard bytes around it are checked instead. */
#include "simt_internal.h"

#include <map>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

namespace simt
{
namespace
{

struct block {
    size_t size;
    memory_kind kind;
    bool owned; /* false: the user's, registered */
};
typedef std::map<const char *, block> block_map;

block_map &blocks()
{
    static block_map *m = new block_map; /* never destroyed: programs free late */
    return *m;
}

#ifdef SIMT_ASAN
enum { GUARD = 0 }; /* ASan has its own */
#else
enum { GUARD = 256, GUARD_BYTE = 0xA5 };
#endif

int windows;
bool shown; /* device memory, to instrumented code */
size_t device_used;

block_map::iterator find(const void *p)
{
    block_map::iterator it = blocks().upper_bound((const char *)p);
    if (it == blocks().begin()) {
        return blocks().end();
    }
    --it;
    /* one past the end still belongs to it: a pointer may stand there */
    return (const char *)p <= it->first + it->second.size ? it : blocks().end();
}

void each_device_block(void (*f)(const void *p, size_t n))
{
    for (const auto &b : blocks()) {
        if (b.second.kind == DEVICE) {
            f(b.first, b.second.size);
        }
    }
}

cudaError_t allocate(void **p, size_t size, memory_kind kind)
{
    *p = nullptr;
    if (size == 0) {
        return cudaSuccess;
    }
    if (kind == DEVICE && (size > set.memory || device_used > set.memory - size)) {
        return cudaErrorMemoryAllocation;
    }
    void *raw = nullptr;
    if (size > SIZE_MAX / 2 || posix_memalign(&raw, 256, size + 2 * GUARD) != 0) {
        return cudaErrorMemoryAllocation;
    }
    char *base = (char *)raw + GUARD;
#ifndef SIMT_ASAN
    raw_fill(raw, GUARD_BYTE, GUARD);
    raw_fill(base + size, GUARD_BYTE, GUARD);
#endif
    raw_fill(base, 0xFF, size);
    blocks()[base] = block{size, kind, true};
    if (kind == DEVICE) {
        device_used += size;
        if (!shown) {
            hide(base, size);
        }
    }
    *p = base;
    return cudaSuccess;
}

cudaError_t release_block(void *p, memory_kind kind, const char *name)
{
    if (!p) {
        return cudaSuccess;
    }
    block_map::iterator it = blocks().find((const char *)p);
    if (it == blocks().end() || it->second.kind != kind || !it->second.owned) {
        return wrong(cudaErrorInvalidValue, "%s(%p): not the start of such an allocation", name, p);
    }
    check_guards(name);
    unhide(p, it->second.size);
    if (kind == DEVICE) {
        device_used -= it->second.size;
    }
    blocks().erase(it);
    free((char *)p - GUARD);
    return cudaSuccess;
}

} // namespace

memory_kind kind_of(const void *p)
{
    block_map::iterator it = find(p);
    return it == blocks().end() ? PAGEABLE : it->second.kind;
}

size_t room(const void *p)
{
    block_map::iterator it = find(p);
    return it == blocks().end() ? 0 : (size_t)(it->first + it->second.size - (const char *)p);
}

bool inside(const void *p, size_t n)
{
    return find(p) != blocks().end() && n <= room(p);
}

void hide(const void *p, size_t n)
{
#ifdef SIMT_ASAN
    __asan_poison_memory_region(p, n);
#else
    (void)p, (void)n;
#endif
}

void unhide(const void *p, size_t n)
{
#ifdef SIMT_ASAN
    __asan_unpoison_memory_region(p, n);
#else
    (void)p, (void)n;
#endif
}

device_window::device_window()
{
    windows++;
}

device_window::~device_window()
{
    if (--windows == 0) {
        if (shown) {
            each_device_block(hide);
            shown = false;
        }
        check_guards("queued work");
    }
}

void show_device_memory()
{
    if (!shown) {
        each_device_block(unhide);
        shown = true;
    }
}

void check_guards(const char *after)
{
#ifdef SIMT_ASAN
    (void)after;
#else
    for (const auto &b : blocks()) {
        for (int i = 0; b.second.owned && i < GUARD; i++) {
            if ((unsigned char)b.first[-1 - i] != GUARD_BYTE ||
                (unsigned char)b.first[b.second.size + (size_t)i] != GUARD_BYTE) {
                die("out-of-bounds write beside %p (%zu bytes), seen after %s",
                    (const void *)b.first, b.second.size, after);
            }
        }
    }
#endif
}

/* By instructions, not calls: memcpy() and memset() are looked over by the sanitizers, and these
 * may touch what is hidden from the host. */
void raw_copy(void *dst, const void *src, size_t n)
{
#ifdef __x86_64__
    asm volatile("rep movsb" : "+D"(dst), "+S"(src), "+c"(n) : : "memory");
#else
    memcpy(dst, src, n);
#endif
}

void raw_fill(void *dst, int byte, size_t n)
{
#ifdef __x86_64__
    asm volatile("rep stosb" : "+D"(dst), "+c"(n) : "a"(byte) : "memory");
#else
    memset(dst, byte, n);
#endif
}

__attribute__((no_sanitize_address)) uint64_t checksum(const void *p, size_t pitch, size_t width,
                                                       size_t height)
{
    uint64_t h = 0x9E3779B97F4A7C15u;
    for (size_t y = 0; y < height; y++) {
        const unsigned char *row = (const unsigned char *)p + y * pitch;
        size_t x = 0;
        for (; x + 8 <= width; x += 8) {
            uint64_t v;
            __builtin_memcpy(&v, row + x, 8);
            h = (h ^ v) * 0xD6E8FEB86659FD93u;
            h ^= h >> 32;
        }
        for (; x < width; x++) {
            h = (h ^ row[x]) * 0xD6E8FEB86659FD93u;
        }
    }
    return h;
}

size_t device_bytes_used()
{
    return device_used;
}

size_t memory_alive(bool list)
{
    for (const auto &b : blocks()) {
        if (list) {
            fprintf(stderr, "simt: alive: %s memory %p, %zu bytes\n",
                    b.second.kind == DEVICE ? "device" : "pinned", (const void *)b.first,
                    b.second.size);
        }
    }
    return blocks().size();
}

} // namespace simt

using simt::call;

extern "C" {

cudaError_t cudaMalloc(void **p, size_t size)
{
    call c("cudaMalloc", cudaErrorMemoryAllocation);
    cudaError_t e = c.refused() ? cudaSuccess : c.unsafe_in_capture();
    if (c.refused() || e != cudaSuccess) {
        return c.done(e);
    }
    return c.done(simt::allocate(p, size, simt::DEVICE));
}

cudaError_t cudaFree(void *p)
{
    call c("cudaFree", cudaErrorLaunchFailure);
    cudaError_t e = c.unsafe_in_capture();
    if (e == cudaSuccess && p) {
        simt::wait_for_all(); /* as CUDA: freeing waits for the device */
        e = simt::release_block(p, simt::DEVICE, c.name());
    }
    return c.done(e);
}

cudaError_t cudaHostAlloc(void **p, size_t size, unsigned)
{
    call c("cudaHostAlloc", cudaErrorMemoryAllocation);
    cudaError_t e = c.refused() ? cudaSuccess : c.unsafe_in_capture();
    if (c.refused() || e != cudaSuccess) {
        return c.done(e);
    }
    return c.done(simt::allocate(p, size, simt::PINNED));
}

cudaError_t cudaMallocHost(void **p, size_t size)
{
    call c("cudaMallocHost", cudaErrorMemoryAllocation);
    cudaError_t e = c.refused() ? cudaSuccess : c.unsafe_in_capture();
    if (c.refused() || e != cudaSuccess) {
        return c.done(e);
    }
    return c.done(simt::allocate(p, size, simt::PINNED));
}

cudaError_t cudaFreeHost(void *p)
{
    call c("cudaFreeHost", cudaErrorLaunchFailure);
    cudaError_t e = c.unsafe_in_capture();
    if (e == cudaSuccess && p) {
        simt::wait_for_all();
        e = simt::release_block(p, simt::PINNED, c.name());
    }
    return c.done(e);
}

cudaError_t cudaHostRegister(void *p, size_t size, unsigned)
{
    call c("cudaHostRegister", cudaErrorMemoryAllocation);
    if (c.refused()) {
        return c.done();
    }
    if (!p || size == 0) {
        return c.done(cudaErrorInvalidValue);
    }
    if (simt::kind_of(p) != simt::PAGEABLE ||
        simt::kind_of((char *)p + size - 1) != simt::PAGEABLE) {
        return c.done(cudaErrorHostMemoryAlreadyRegistered);
    }
    simt::blocks()[(const char *)p] = simt::block{size, simt::PINNED, false};
    return c.done();
}

cudaError_t cudaHostUnregister(void *p)
{
    call c("cudaHostUnregister", cudaErrorLaunchFailure);
    simt::block_map::iterator it = simt::blocks().find((const char *)p);
    if (it == simt::blocks().end() || it->second.owned) {
        return c.done(cudaErrorHostMemoryNotRegistered);
    }
    simt::wait_for_all();
    simt::unhide(p, it->second.size);
    simt::blocks().erase(it);
    return c.done();
}

cudaError_t cudaPointerGetAttributes(struct cudaPointerAttributes *a, const void *p)
{
    call c("cudaPointerGetAttributes", cudaErrorInvalidValue);
    if (c.refused()) {
        return c.done();
    }
    const simt::memory_kind kind = simt::kind_of(p);
    memset(a, 0, sizeof *a);
    a->type = kind == simt::DEVICE   ? cudaMemoryTypeDevice
              : kind == simt::PINNED ? cudaMemoryTypeHost
                                     : cudaMemoryTypeUnregistered;
    a->device = kind == simt::PAGEABLE ? -2 : 0;
    a->devicePointer = kind == simt::PAGEABLE ? nullptr : const_cast<void *>(p);
    a->hostPointer = kind == simt::DEVICE ? nullptr : const_cast<void *>(p);
    return c.done();
}

} // extern "C"
