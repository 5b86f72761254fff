/* Launches: limits, pointer arguments, and the launch as a piece of queued work. */
#include "simt_internal.h"

#include <algorithm>
#include <map>
#include <stdio.h>
#include <sys/uio.h>
#include <unistd.h>

namespace simt
{
namespace
{

enum { STATIC_LIMIT = 48 * 1024, DYNAMIC_LIMIT = 227 * 1024 };

struct limit {
    int dynamic;
};
std::map<const void *, limit> &limits()
{
    static std::map<const void *, limit> *m = new std::map<const void *, limit>;
    return *m;
}

} // namespace

int blocks_per_multiprocessor(uint64_t threads, size_t dynamic)
{
    const uint64_t by_threads = 2048 / threads, by_shared = (228 * 1024) / (dynamic + 1024);
    const uint64_t n = by_threads < by_shared ? by_threads : by_shared;
    return n < 2 ? (int)n : 2;
}

namespace
{

struct pointer_argument {
    const void *p;
    bool sure; /* an argument of pointer type, not a word inside a struct */
};

/* A word of a struct is taken for a host pointer if it lies where programs, heaps and stacks do
 * (and the sanitizers' shadows do not), and can be read. */
bool looks_like_host_pointer(uint64_t v)
{
    if (v < 0x500000000000u || v >> 48) {
        return false;
    }
    char byte;
    struct iovec to = {&byte, 1}, from = {(void *)v, 1};
    return process_vm_readv(getpid(), &to, 1, &from, 1, 0) == 1; /* an error where nothing is */
}

} // namespace

struct kernel_work : work {
    simt_kernel k;
    std::vector<pointer_argument> pointers;
    char ran = 0; /* TSan's tag: a graph's closures are freed by the host */
    ~kernel_work() override
    {
        acquire(&ran);
        k.destroy(k.closure);
    }
    void check_pointers() const
    {
        for (const pointer_argument &a : pointers) {
            const memory_kind kind = a.p ? kind_of(a.p) : DEVICE;
            if (kind == DEVICE || (kind == PINNED && set.allow_pinned)) {
                continue;
            }
            if (a.sure || looks_like_host_pointer((uint64_t)(uintptr_t)a.p)) {
                die("%s:%d: kernel %s got %s pointer %p%s", k.file, k.line, k.name,
                    kind == PINNED ? "a pinned host" : "a host (or freed)", a.p,
                    a.sure ? "" : ", inside a struct");
            }
        }
    }
    void arm() override
    {
        check_pointers();
    }
    void run() override
    {
        check_pointers(); /* a graph may be launched long after its memory was freed */
        show_device_memory();
        run_grid(k);
        release(&ran);
    }
};

namespace
{

cudaError_t check_limits(const simt_kernel &k)
{
    const uint64_t threads = (uint64_t)k.block.x * k.block.y * k.block.z;
    const uint64_t blocks = (uint64_t)k.grid.x * k.grid.y * k.grid.z;
    if (threads == 0 || threads > 1024 || k.block.x > 1024 || k.block.y > 1024 || k.block.z > 64) {
        return wrong(cudaErrorInvalidConfiguration, "%s:%d: kernel %s: block (%u,%u,%u)", k.file,
                     k.line, k.name, k.block.x, k.block.y, k.block.z);
    }
    if (blocks == 0 || k.grid.x > 0x7FFFFFFFu || k.grid.y > 65535 || k.grid.z > 65535) {
        return wrong(cudaErrorInvalidConfiguration, "%s:%d: kernel %s: grid (%u,%u,%u)", k.file,
                     k.line, k.name, k.grid.x, k.grid.y, k.grid.z);
    }
    auto own = limits().find(k.kernel);
    const size_t dynamic =
        own == limits().end() ? (size_t)STATIC_LIMIT : (size_t)own->second.dynamic;
    if (k.shared > dynamic) {
        return wrong(cudaErrorInvalidValue,
                     "%s:%d: kernel %s: %zu bytes of dynamic shared memory, at most %zu", k.file,
                     k.line, k.name, k.shared, dynamic);
    }
    if (k.cooperative &&
        blocks > (uint64_t)(MULTIPROCESSORS * blocks_per_multiprocessor(threads, k.shared))) {
        return wrong(cudaErrorCooperativeLaunchTooLarge,
                     "%s:%d: kernel %s: %llu blocks cannot all be resident", k.file, k.line, k.name,
                     (unsigned long long)blocks);
    }
    return cudaSuccess;
}

void collect_pointers(kernel_work *w, const simt_kernel &k)
{
    for (size_t i = 0; i < k.n_args; i++) {
        const simt_arg &a = k.args[i];
        if (a.pointer) {
            w->pointers.push_back(pointer_argument{*(void *const *)a.value, true});
            continue;
        }
        for (size_t at = 0; a.size > 8 && at + 8 <= a.size; at += 8) { /* structs are aligned */
            uint64_t v;
            memcpy(&v, (const char *)a.value + at, 8);
            if (v) {
                w->pointers.push_back(pointer_argument{(const void *)(uintptr_t)v, false});
            }
        }
    }
}

} // namespace
} // namespace simt

void simt_launch(const simt_kernel &k)
{
    simt::call c("kernel launch", cudaErrorLaunchOutOfResources);
    auto w = std::make_shared<simt::kernel_work>();
    w->name = k.name;
    w->k = k;
    simt::count(k.name);
    simt::collect_pointers(w.get(), k);
    w->k.args = nullptr;
    w->k.n_args = 0;
    if (c.refused()) {
        c.done();
        return;
    }
    const cudaError_t e = simt::check_limits(k);
    c.done(e == cudaSuccess ? simt::submit(k.stream, w) : e);
}

using simt::call;

extern "C" {

cudaError_t cudaFuncSetAttribute(const void *kernel, enum cudaFuncAttribute attr, int value)
{
    call c("cudaFuncSetAttribute", cudaErrorInvalidDeviceFunction);
    if (c.refused()) {
        return c.done();
    }
    if (!kernel) {
        return c.done(cudaErrorInvalidDeviceFunction);
    }
    if (attr == cudaFuncAttributeMaxDynamicSharedMemorySize) {
        if (value < 0 || value > simt::DYNAMIC_LIMIT) {
            return c.done(cudaErrorInvalidValue);
        }
        simt::limits()[kernel] = simt::limit{value};
    }
    return c.done();
}

cudaError_t cudaFuncGetAttributes(struct cudaFuncAttributes *attr, const void *kernel)
{
    call c("cudaFuncGetAttributes", cudaErrorInvalidDeviceFunction);
    if (c.refused() || !kernel) {
        return c.done(cudaErrorInvalidDeviceFunction);
    }
    memset(attr, 0, sizeof *attr);
    attr->maxThreadsPerBlock = 1024;
    attr->numRegs = 32;
    attr->ptxVersion = attr->binaryVersion = simt::set.arch;
    auto own = simt::limits().find(kernel);
    attr->maxDynamicSharedSizeBytes =
        own == simt::limits().end() ? (int)simt::STATIC_LIMIT : own->second.dynamic;
    return c.done();
}

cudaError_t cudaOccupancyMaxActiveBlocksPerMultiprocessor(int *blocks, const void *kernel,
                                                          int threads, size_t shared)
{
    call c("cudaOccupancyMaxActiveBlocksPerMultiprocessor", cudaErrorInvalidDeviceFunction);
    if (c.refused() || !kernel || threads <= 0 || threads > 1024) {
        return c.done(cudaErrorInvalidValue);
    }
    *blocks = simt::blocks_per_multiprocessor((uint64_t)threads, shared);
    return c.done();
}

} // extern "C"
