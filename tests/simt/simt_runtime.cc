/* The lock, errors, settings from the environment, injected failures, and device queries. */
#include "simt_internal.h"

#include <atomic>
#include <sched.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <strings.h>

namespace simt
{

settings set;

namespace
{

struct counter {
    char name[64];
    unsigned long n;
};
struct counters { /* a type of its own: see simt_internal.h */
    std::vector<counter> list;
};
counters &counts()
{
    static counters c;
    return c;
}

/* Not a mutex: TSan would take it for an order between host threads that CUDA does not promise. */
std::atomic_flag locked = ATOMIC_FLAG_INIT;
thread_local int depth;
thread_local cudaError_t last_error = cudaSuccess;
int current_device;
bool configured;
unsigned long n_calls, fail_at;
bool fail_sticky;
char failed_name[64];

void set_no_device(const char *how)
{
    set.no_device = !how || !*how || strcmp(how, "0") == 0 ? cudaSuccess
                    : strcmp(how, "driver") == 0           ? cudaErrorInsufficientDriver
                    : strcmp(how, "old") == 0              ? cudaErrorInsufficientDriver
                                                           : cudaErrorNoDevice;
}

const char *after_colon(const char *s, uint32_t *seed)
{
    const char *colon = s ? strchr(s, ':') : nullptr;
    if (colon) {
        *seed = (uint32_t)strtoul(colon + 1, nullptr, 10);
    }
    return s ? s : "";
}

bool starts(const char *s, const char *with)
{
    return strncasecmp(s, with, strlen(with)) == 0;
}

void configure()
{
    if (configured) {
        return;
    }
    configured = true;
    const char *s = after_colon(getenv("VAE_SIMT_ORDER"), &set.seed);
    set.order = starts(s, "rev") ? SIMT_REVERSE : starts(s, "shuf") ? SIMT_SHUFFLED : SIMT_FORWARD;
    s = after_colon(getenv("VAE_SIMT_STREAMS"), &set.seed);
    set.streams = starts(s, "latest")     ? SIMT_LATEST
                  : starts(s, "earliest") ? SIMT_EARLIEST
                  : starts(s, "random")   ? SIMT_RANDOM
                                          : SIMT_LAZY;
    set.seed = set.seed ? set.seed : 1;
    const char *v;
    set.eager = (v = getenv("VAE_SIMT_EAGER")) && *v && *v != '0';
    set.trace = (v = getenv("VAE_SIMT_TRACE")) && *v && *v != '0';
    set_no_device(getenv("VAE_SIMT_NO_DEVICE"));
    if ((v = getenv("VAE_SIMT_MEMORY")) && *v) {
        set.memory = strtoull(v, nullptr, 10);
    }
    if ((v = getenv("VAE_SIMT_DEVICES")) && *v) {
        set.devices = atoi(v);
    }
    if ((v = getenv("VAE_SIMT_ARCH")) && *v) {
        set.arch = atoi(v);
    }
    if ((v = getenv("VAE_SIMT_LT_REFUSE"))) {
        snprintf(set.refuse, sizeof set.refuse, "%s", v);
    }
    if ((v = getenv("VAE_SIMT_FAIL")) && *v) {
        fail_at = strtoul(v, nullptr, 10);
        fail_sticky = strchr(v, '+') != nullptr;
    }
}

void take()
{
    if (depth++ == 0) {
        while (locked.test_and_set(std::memory_order_acquire)) {
            sched_yield();
        }
        ignore_begin();
    }
    configure();
}

void give()
{
    if (--depth == 0) {
        ignore_end();
        locked.clear(std::memory_order_release);
    }
}

struct guard {
    guard()
    {
        take();
    }
    ~guard()
    {
        give();
    }
};

} // namespace

void count(const char *name)
{
    for (counter &c : counts().list) {
        if (strncmp(c.name, name, sizeof c.name - 1) == 0) {
            c.n++;
            return;
        }
    }
    counter c = {};
    snprintf(c.name, sizeof c.name, "%s", name);
    c.n = 1;
    counts().list.push_back(c);
}

uint32_t random(uint32_t below)
{
    set.seed ^= set.seed << 13; /* xorshift */
    set.seed ^= set.seed >> 17;
    set.seed ^= set.seed << 5;
    return (uint32_t)((uint64_t)set.seed * below >> 32);
}

void die(const char *format, ...)
{
    va_list args;
    va_start(args, format);
    fputs("simt: ", stderr);
    vfprintf(stderr, format, args);
    fputc('\n', stderr);
    va_end(args);
    abort();
}

cudaError_t wrong(cudaError_t error, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    fprintf(stderr, "simt: %s: ", cudaGetErrorName(error));
    vfprintf(stderr, format, args);
    fputc('\n', stderr);
    va_end(args);
    return error;
}

void trace(const char *format, ...)
{
    if (set.trace) {
        va_list args;
        va_start(args, format);
        fputs("simt| ", stderr);
        vfprintf(stderr, format, args);
        fputc('\n', stderr);
        va_end(args);
    }
}

void set_last_error(cudaError_t error)
{
    if (error != cudaSuccess && error != cudaErrorNotReady) {
        last_error = error;
    }
}

call::call(const char *name, cudaError_t injected, bool needs_device)
    : name_(name), error_(cudaSuccess)
{
    take();
    count(name);
    n_calls++;
    trace("%s", name);
    if (fail_at > 0 && (n_calls == fail_at || (fail_sticky && n_calls > fail_at))) {
        error_ = injected;
        snprintf(failed_name, sizeof failed_name, "%s", name);
        trace("call %lu, %s, made to fail", n_calls, name);
    }
    if (needs_device && set.no_device != cudaSuccess) {
        error_ = set.no_device;
    }
}

call::~call()
{
    give();
}

cudaError_t call::done(cudaError_t error)
{
    error = error_ != cudaSuccess ? error_ : error;
    set_last_error(error);
    return error;
}

cudaError_t call::unsafe_in_capture()
{
    return capture_forbids(false, name_);
}

} // namespace simt

using simt::call;

extern "C" {

/* ---- simt_control.h ---- */

void simt_set_order(simt_order order, unsigned seed)
{
    simt::guard g;
    simt::set.order = order;
    simt::set.seed = seed ? seed : 1;
}

void simt_set_streams(simt_streams policy, unsigned seed)
{
    simt::guard g;
    simt::set.streams = policy;
    simt::set.seed = seed ? seed : 1;
}

void simt_set_eager(int eager)
{
    simt::guard g;
    simt::set.eager = eager != 0;
}

void simt_fail_call(unsigned long n, int sticky)
{
    simt::guard g;
    simt::fail_at = n > 0 ? simt::n_calls + n : 0;
    simt::fail_sticky = sticky != 0;
    simt::failed_name[0] = '\0';
}

unsigned long simt_calls(void)
{
    simt::guard g;
    return simt::n_calls;
}

const char *simt_failed(void)
{
    simt::guard g;
    return simt::failed_name[0] ? simt::failed_name : nullptr;
}

unsigned long simt_count(const char *name)
{
    simt::guard g;
    for (const simt::counter &c : simt::counts().list) {
        if (strncmp(c.name, name, sizeof c.name - 1) == 0) {
            return c.n;
        }
    }
    return 0;
}

void simt_refuse_epilogues(const char *list)
{
    simt::guard g;
    snprintf(simt::set.refuse, sizeof simt::set.refuse, "%s", list ? list : "");
}

void simt_set_no_device(const char *how)
{
    simt::guard g;
    simt::set_no_device(how);
}

void simt_set_memory(unsigned long bytes)
{
    simt::guard g;
    simt::set.memory = bytes;
}

void simt_allow_pinned(int allow)
{
    simt::guard g;
    simt::set.allow_pinned = allow != 0;
}

unsigned long simt_alive(int list)
{
    simt::guard g;
    return simt::memory_alive(list != 0) + simt::streams_alive(list != 0) +
           simt::events_alive(list != 0) + simt::graphs_alive(list != 0) +
           simt::lt_alive(list != 0) + simt::nccl_alive(list != 0);
}

/* ---- device queries and errors ---- */

cudaError_t cudaGetDeviceCount(int *count)
{
    call c("cudaGetDeviceCount", cudaErrorNoDevice);
    *count = c.refused() ? 0 : simt::set.devices;
    return c.done(simt::set.devices > 0 ? cudaSuccess : cudaErrorNoDevice);
}

cudaError_t cudaSetDevice(int device)
{
    call c("cudaSetDevice", cudaErrorDevicesUnavailable);
    if (c.refused()) {
        return c.done();
    }
    if (device < 0 || device >= simt::set.devices) {
        return c.done(cudaErrorInvalidDevice);
    }
    simt::current_device = device;
    return c.done();
}

cudaError_t cudaGetDevice(int *device)
{
    call c("cudaGetDevice", cudaErrorInitializationError);
    *device = simt::current_device;
    return c.done();
}

cudaError_t cudaGetDeviceProperties(struct cudaDeviceProp *p, int device)
{
    call c("cudaGetDeviceProperties", cudaErrorInvalidDevice);
    if (c.refused()) {
        return c.done();
    }
    if (device < 0 || device >= simt::set.devices) {
        return c.done(cudaErrorInvalidDevice);
    }
    memset(p, 0, sizeof *p);
    snprintf(p->name, sizeof p->name, "Emulated device %d (host)", device);
    p->totalGlobalMem = simt::set.memory;
    p->sharedMemPerBlock = 48 * 1024;
    p->sharedMemPerBlockOptin = 227 * 1024;
    p->sharedMemPerMultiprocessor = 228 * 1024;
    p->regsPerBlock = 65536;
    p->warpSize = 32;
    p->maxThreadsPerBlock = 1024;
    p->maxThreadsDim[0] = p->maxThreadsDim[1] = 1024;
    p->maxThreadsDim[2] = 64;
    p->maxGridSize[0] = 2147483647;
    p->maxGridSize[1] = p->maxGridSize[2] = 65535;
    p->major = simt::set.arch / 10;
    p->minor = simt::set.arch % 10;
    p->multiProcessorCount = simt::MULTIPROCESSORS;
    p->cooperativeLaunch = 1;
    p->concurrentKernels = p->unifiedAddressing = 1;
    p->asyncEngineCount = 3;
    p->memoryBusWidth = 5120;
    p->l2CacheSize = 50 << 20;
    p->maxThreadsPerMultiProcessor = 2048;
    return c.done();
}

cudaError_t cudaDeviceGetAttribute(int *value, enum cudaDeviceAttr attr, int device)
{
    call c("cudaDeviceGetAttribute", cudaErrorInvalidDevice);
    if (c.refused()) {
        return c.done();
    }
    static const struct {
        cudaDeviceAttr attr;
        int value;
    } known[] = {{cudaDevAttrMaxThreadsPerBlock, 1024},
                 {cudaDevAttrMaxSharedMemoryPerBlock, 48 * 1024},
                 {cudaDevAttrWarpSize, 32},
                 {cudaDevAttrClockRate, 1980000},
                 {cudaDevAttrMultiProcessorCount, simt::MULTIPROCESSORS},
                 {cudaDevAttrMemoryClockRate, 3201000},
                 {cudaDevAttrGlobalMemoryBusWidth, 5120},
                 {cudaDevAttrL2CacheSize, 50 << 20},
                 {cudaDevAttrMaxThreadsPerMultiProcessor, 2048},
                 {cudaDevAttrCooperativeLaunch, 1},
                 {cudaDevAttrMaxSharedMemoryPerMultiprocessor, 228 * 1024},
                 {cudaDevAttrMaxSharedMemoryPerBlockOptin, 227 * 1024}};
    if (device < 0 || device >= simt::set.devices) {
        return c.done(cudaErrorInvalidDevice);
    }
    if (attr == cudaDevAttrComputeCapabilityMajor || attr == cudaDevAttrComputeCapabilityMinor) {
        *value =
            attr == cudaDevAttrComputeCapabilityMajor ? simt::set.arch / 10 : simt::set.arch % 10;
        return c.done();
    }
    for (const auto &k : known) {
        if (k.attr == attr) {
            *value = k.value;
            return c.done();
        }
    }
    return c.done(simt::wrong(cudaErrorInvalidValue, "device attribute %d is not emulated", attr));
}

cudaError_t cudaDriverGetVersion(int *version)
{
    call c("cudaDriverGetVersion", cudaErrorInvalidValue, false);
    const char *how = getenv("VAE_SIMT_NO_DEVICE"); /* no driver is version 0, an old one is old */
    bool none = simt::set.no_device == cudaErrorInsufficientDriver;
    *version = !none ? 13000 : how && strcmp(how, "old") == 0 ? 11040 : 0;
    return c.done();
}

cudaError_t cudaRuntimeGetVersion(int *version)
{
    call c("cudaRuntimeGetVersion", cudaErrorInvalidValue, false);
    *version = CUDART_VERSION;
    return c.done();
}

cudaError_t cudaMemGetInfo(size_t *free, size_t *total)
{
    call c("cudaMemGetInfo", cudaErrorInitializationError);
    *total = simt::set.memory;
    size_t used = simt::device_bytes_used();
    *free = used < *total ? *total - used : 0;
    return c.done();
}

cudaError_t cudaGetLastError(void)
{
    cudaError_t e = simt::last_error;
    simt::last_error = cudaSuccess;
    return e;
}

cudaError_t cudaPeekAtLastError(void)
{
    return simt::last_error;
}

} // extern "C"
