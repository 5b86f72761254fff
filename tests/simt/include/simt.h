/* Device side of the emulation: what a .cu file needs to be compiled as C++17 for the host.
 *
 *   SIMT_LAUNCH(kernel, grid, block, shared_bytes, stream, args...)   kernel<<<...>>>(args...)
 *   SIMT_LAUNCH((kernel<float, 4>), ...)                              a template wants parentheses
 *   SIMT_LAUNCH_COOPERATIVE(...)          the same, all blocks resident: they may simt_grid_sync()
 *   SIMT_DYNAMIC_SHARED(type, name)       extern __shared__ type name[], of shared_bytes bytes
 *   __shared__ float part[32];            as in CUDA; filled with NaNs for every block
 *
 * Errors of a launch come from cudaGetLastError(), as in CUDA. Float atomics do not compile: sums
 * have a fixed order here. How threads are run, and what is checked: ../README.md. */
#ifndef SIMT_H
#define SIMT_H

#pragma GCC system_header

#include <math.h>
#include <stdint.h>
#include <string.h>

#include <tuple>
#include <type_traits>
#include <utility>

#include "cuda_runtime_api.h"
#include "simt_control.h"

#if defined(SIMT_TSAN) && !defined(__clang__)
#error "the TSan build wants clang++: gcc keeps the __shared__ variables of templates out of reach"
#endif

/* static: a template's variables would else be comdat, which share no section with plain ones */
#define __global__ static
#define __device__
#define __host__
#define __constant__
#define __forceinline__ inline __attribute__((always_inline))
#define __noinline__    __attribute__((noinline))
#define __launch_bounds__(...)
#define __grid_constant__
#define __align__(n) __attribute__((aligned(n)))
/* One section, so that it can be filled with NaNs per block. gcc before 14 ignores the attribute in
 * templates: there the fill is missing, and clang's build is the one that sees reads of what nobody
 * wrote. */
#define __shared__                   static __attribute__((section("simt_shared"), used))
#define SIMT_DYNAMIC_SHARED(T, name) T *name = (T *)simt_dynamic_shared()

extern uint3 threadIdx, blockIdx;
extern dim3 blockDim, gridDim;
enum { warpSize = 32 };

/* ---- what the runtime offers this header ---- */

typedef enum {
    SIMT_OP_SYNC,
    SIMT_OP_SHUFFLE,
    SIMT_OP_BALLOT,
    SIMT_OP_MATCH,
    SIMT_OP_ADD,
    SIMT_OP_MIN,
    SIMT_OP_MAX,
    SIMT_OP_AND,
    SIMT_OP_OR,
    SIMT_OP_XOR,
    SIMT_OP_MMA_TF32,
    SIMT_OP_MMA_BF16
} simt_warp_op;

typedef struct { /* one argument of a kernel; words that look like pointers are checked */
    const void *value;
    size_t size;
    bool pointer;
} simt_arg;

typedef struct {
    const char *name, *file;
    int line;
    const void *kernel;
    dim3 grid, block;
    size_t shared;
    cudaStream_t stream;
    bool cooperative;
    void (*run)(void *closure); /* one thread */
    void (*destroy)(void *closure);
    void *closure;
    const simt_arg *args;
    size_t n_args;
} simt_kernel;

/* Takes the closure over. */
void simt_launch(const simt_kernel &kernel);
void simt_barrier(const char *file, int line);
int simt_barrier_count(int predicate, const char *file, int line);
void simt_grid_barrier(const char *file, int line);
uint64_t simt_warp(simt_warp_op op, unsigned mask, uint64_t value, unsigned source,
                   const char *file, int line);
unsigned simt_lane(void);
unsigned simt_active(void);
void *simt_dynamic_shared(void);
void simt_fence(void);
void simt_after_atomic(void *p);
[[noreturn]] void simt_trap(const char *what, const char *file, int line);

static inline void simt_check_vector(const volatile void *p, size_t align, const char *file,
                                     int line)
{
    if ((uintptr_t)p % align != 0) {
        simt_trap("misaligned vector access", file, line);
    }
}

/* ---- launches ---- */

template <typename P, typename A> static inline P simt_convert(A &&a)
{
    return a; /* implicit, as in a call: what a call would refuse is refused */
}

template <typename T> static inline simt_arg simt_describe(const T &a)
{
    return simt_arg{&a, sizeof a, std::is_pointer_v<T>};
}

template <typename... P, typename... A>
static inline void simt_launch_as(const char *name, const char *file, int line, dim3 grid,
                                  dim3 block, size_t shared, cudaStream_t stream, bool cooperative,
                                  void (*kernel)(P...), A &&...a)
{
    static_assert(sizeof...(P) == sizeof...(A), "number of kernel arguments");
    static_assert((std::is_trivially_copyable_v<P> && ...), "kernel arguments are copied as bytes");
    struct closure {
        void (*kernel)(P...);
        std::tuple<P...> args;
    };
    closure *c = new closure{kernel, std::tuple<P...>(simt_convert<P>(std::forward<A>(a))...)};
    std::apply(
        [&](const P &...p) {
            const simt_arg args[sizeof...(P) + 1] = {simt_describe(p)..., simt_arg{}};
            simt_kernel k = {name,
                             file,
                             line,
                             (const void *)kernel,
                             grid,
                             block,
                             shared,
                             stream,
                             cooperative,
                             [](void *v) {
                                 closure *me = (closure *)v;
                                 std::apply(me->kernel, me->args);
                             },
                             [](void *v) { delete (closure *)v; },
                             c,
                             args,
                             sizeof...(P)};
            simt_launch(k);
        },
        c->args);
}

#define SIMT_LAUNCH(kernel, grid, block, shared_bytes, stream, ...)                                \
    simt_launch_as(#kernel, __FILE__, __LINE__, (grid), (block), (shared_bytes), (stream), false,  \
                   kernel, ##__VA_ARGS__)
#define SIMT_LAUNCH_COOPERATIVE(kernel, grid, block, shared_bytes, stream, ...)                    \
    simt_launch_as(#kernel, __FILE__, __LINE__, (grid), (block), (shared_bytes), (stream), true,   \
                   kernel, ##__VA_ARGS__)

/* ---- barriers, warps ---- */

#define SIMT_HERE const char *file = __builtin_FILE(), int line = __builtin_LINE()

static inline void __syncthreads(SIMT_HERE)
{
    simt_barrier(file, line);
}
static inline int __syncthreads_count(int p, SIMT_HERE)
{
    return simt_barrier_count(p != 0, file, line);
}
static inline int __syncthreads_or(int p, SIMT_HERE)
{
    return simt_barrier_count(p != 0, file, line) > 0;
}
static inline int __syncthreads_and(int p, SIMT_HERE)
{
    return simt_barrier_count(p == 0, file, line) == 0;
}
/* A barrier of the whole grid, as cooperative groups' grid.sync() or one made of atomics: every
 * thread of every block calls it, and it orders memory among them all. */
static inline void simt_grid_sync(SIMT_HERE)
{
    simt_grid_barrier(file, line);
}
static inline void __syncwarp(unsigned mask = 0xFFFFFFFFu, SIMT_HERE)
{
    simt_warp(SIMT_OP_SYNC, mask, 0, 0, file, line);
}
static inline unsigned __activemask(void)
{
    return simt_active();
}

template <typename T>
static inline T simt_shuffle(unsigned mask, T v, unsigned source, const char *file, int line)
{
    static_assert(sizeof(T) <= 8 && std::is_trivially_copyable_v<T>, "shuffles move 1 to 8 bytes");
    uint64_t bits = 0;
    memcpy(&bits, &v, sizeof v);
    bits = simt_warp(SIMT_OP_SHUFFLE, mask, bits, source, file, line);
    memcpy(&v, &bits, sizeof v);
    return v;
}
template <typename T> static inline T __shfl_sync(unsigned m, T v, int src, int w = 32, SIMT_HERE)
{
    unsigned lane = simt_lane(), low = lane & ~(unsigned)(w - 1);
    return simt_shuffle(m, v, low | ((unsigned)src & (unsigned)(w - 1)), file, line);
}
template <typename T>
static inline T __shfl_up_sync(unsigned m, T v, unsigned d, int w = 32, SIMT_HERE)
{
    unsigned lane = simt_lane(), low = lane & ~(unsigned)(w - 1);
    return simt_shuffle(m, v, lane >= low + d ? lane - d : lane, file, line);
}
template <typename T>
static inline T __shfl_down_sync(unsigned m, T v, unsigned d, int w = 32, SIMT_HERE)
{
    unsigned lane = simt_lane(), high = lane | (unsigned)(w - 1);
    return simt_shuffle(m, v, lane + d <= high ? lane + d : lane, file, line);
}
template <typename T> static inline T __shfl_xor_sync(unsigned m, T v, int x, int w = 32, SIMT_HERE)
{
    unsigned lane = simt_lane(), high = lane | (unsigned)(w - 1), to = lane ^ (unsigned)x;
    return simt_shuffle(m, v, to <= high ? to : lane, file, line);
}
static inline unsigned __ballot_sync(unsigned m, int p, SIMT_HERE)
{
    return (unsigned)simt_warp(SIMT_OP_BALLOT, m, p != 0, 0, file, line);
}
static inline int __any_sync(unsigned m, int p, SIMT_HERE)
{
    return simt_warp(SIMT_OP_BALLOT, m, p != 0, 0, file, line) != 0;
}
static inline int __all_sync(unsigned m, int p, SIMT_HERE)
{
    return simt_warp(SIMT_OP_BALLOT, m, p == 0, 0, file, line) == 0;
}
template <typename T> static inline unsigned __match_any_sync(unsigned m, T v, SIMT_HERE)
{
    uint64_t bits = 0;
    memcpy(&bits, &v, sizeof v);
    return (unsigned)simt_warp(SIMT_OP_MATCH, m, bits, 0, file, line);
}
#define SIMT_REDUCE(name, op, T)                                                                   \
    static inline T __reduce_##name##_sync(unsigned m, T v, SIMT_HERE)                             \
    {                                                                                              \
        return (T)(int64_t)simt_warp(op, m, (uint64_t)(int64_t)v, 0, file, line);                  \
    }
SIMT_REDUCE(add, SIMT_OP_ADD, unsigned)
SIMT_REDUCE(add, SIMT_OP_ADD, int)
SIMT_REDUCE(min, SIMT_OP_MIN, unsigned)
SIMT_REDUCE(min, SIMT_OP_MIN, int)
SIMT_REDUCE(max, SIMT_OP_MAX, unsigned)
SIMT_REDUCE(max, SIMT_OP_MAX, int)
SIMT_REDUCE(and, SIMT_OP_AND, unsigned)
SIMT_REDUCE(or, SIMT_OP_OR, unsigned)
SIMT_REDUCE(xor, SIMT_OP_XOR, unsigned)
#undef SIMT_REDUCE

/* ---- matrix products of a warp ---- */

/* d = a b + d by the warp, with PTX's fragments: mma.sync.aligned.row.col of m16n8k8 (tf32: the low
 * 13 bits of operands are ignored) or m16n8k16 (bf16, two to a word, the first in the low half).
 * d: 4 floats, a: 4 words, b: 2 words of each lane. */
typedef struct {
    float *d;
    const uint32_t *a, *b;
} simt_fragments;
static inline void simt_mma(simt_warp_op op, float *d, const uint32_t *a, const uint32_t *b,
                            SIMT_HERE)
{
    const simt_fragments mine = {d, a, b};
    simt_warp(op, 0xFFFFFFFFu, (uint64_t)(uintptr_t)&mine, 0, file, line);
}

#include "simt_device.h"

#endif
