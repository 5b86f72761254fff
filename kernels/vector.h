/* What kernels share: 16-byte accesses to rows of floats or bf16, and sums over lanes. */
#ifndef VAE_VECTOR_H
#define VAE_VECTOR_H

#include "kernels.h"
#include "launch.h"
#include "vae_math.h"

#ifdef __CUDACC__
#include <cuda_bf16.h>
#endif

/* A bf16 number: the upper half of a float. */
typedef struct {
    uint16_t bits;
} vae_bf16;

/* 16 and 8 bytes that may hold anything. */
struct __attribute__((aligned(16))) __attribute__((may_alias)) vae_word4 {
    uint32_t w[4];
};
struct __attribute__((aligned(8))) __attribute__((may_alias)) vae_word2 {
    uint32_t w[2];
};
struct __attribute__((aligned(4))) __attribute__((may_alias)) vae_word1 {
    uint32_t w[1];
};

static __device__ __forceinline__ vae_word4 load16(const void *p)
{
    return *static_cast<const vae_word4 *>(p);
}

static __device__ __forceinline__ void store16(void *p, vae_word4 v)
{
    *static_cast<vae_word4 *>(p) = v;
}

static __device__ __forceinline__ float float_of(uint32_t bits)
{
    return vae_float_of_bits((int32_t)bits);
}

/* Two floats to two bf16 in one word, the first in the low half; nearest even, NaN stays NaN. */
static __device__ __forceinline__ uint32_t bf16x2_of(float low, float high)
{
#ifdef __CUDA_ARCH__
    __nv_bfloat162 pair = __floats2bfloat162_rn(low, high);
    uint32_t bits;
    memcpy(&bits, &pair, sizeof bits);
    return bits;
#else
    uint32_t half[2];
    const float value[2] = {low, high};
    for (int i = 0; i < 2; i++) {
        uint32_t b = (uint32_t)vae_bits_of_float(value[i]);
        bool nan = (b & 0x7FFFFFFFu) > 0x7F800000u;
        half[i] = nan ? 0x7FFFu : (b + 0x7FFFu + (b >> 16 & 1u)) >> 16;
    }
    return half[0] | half[1] << 16;
#endif
}

/* Activation types: N values in 16 bytes, and single values. */
template <typename T> struct elem;

template <> struct elem<float> {
    static constexpr int N = 4;
    typedef vae_word4 quad; /* four values */
    static __device__ __forceinline__ void unpack(float *v, vae_word4 from)
    {
        VAE_UNROLL
        for (int i = 0; i < 4; i++) {
            v[i] = float_of(from.w[i]);
        }
    }
    static __device__ __forceinline__ vae_word4 pack(const float *v)
    {
        vae_word4 to;
        VAE_UNROLL
        for (int i = 0; i < 4; i++) {
            to.w[i] = (uint32_t)vae_bits_of_float(v[i]);
        }
        return to;
    }
    static __device__ __forceinline__ float get(const float *p)
    {
        return *p;
    }
    static __device__ __forceinline__ void put(float *p, float v)
    {
        *p = v;
    }
    static __device__ __forceinline__ void unpack4(float *v, quad from)
    {
        unpack(v, from);
    }
    /* four values at a multiple of four */
    static __device__ __forceinline__ void get4(float *v, const float *p)
    {
        unpack(v, load16(p));
    }
    static __device__ __forceinline__ void put4(float *p, const float *v)
    {
        store16(p, pack(v));
    }
};

template <> struct elem<vae_bf16> {
    static constexpr int N = 8;
    typedef vae_word2 quad;
    static __device__ __forceinline__ void unpack(float *v, vae_word4 from)
    {
        VAE_UNROLL
        for (int i = 0; i < 4; i++) {
            v[2 * i] = float_of(from.w[i] << 16);
            v[2 * i + 1] = float_of(from.w[i] & 0xFFFF0000u);
        }
    }
    static __device__ __forceinline__ vae_word4 pack(const float *v)
    {
        vae_word4 to;
        VAE_UNROLL
        for (int i = 0; i < 4; i++) {
            to.w[i] = bf16x2_of(v[2 * i], v[2 * i + 1]);
        }
        return to;
    }
    static __device__ __forceinline__ float get(const vae_bf16 *p)
    {
        return float_of((uint32_t)p->bits << 16);
    }
    static __device__ __forceinline__ void put(vae_bf16 *p, float v)
    {
        p->bits = (uint16_t)bf16x2_of(v, 0.0f);
    }
    static __device__ __forceinline__ void unpack4(float *v, quad from)
    {
        VAE_UNROLL
        for (int i = 0; i < 2; i++) {
            v[2 * i] = float_of(from.w[i] << 16);
            v[2 * i + 1] = float_of(from.w[i] & 0xFFFF0000u);
        }
    }
    static __device__ __forceinline__ void get4(float *v, const vae_bf16 *p)
    {
        unpack4(v, *reinterpret_cast<const quad *>(p));
    }
    static __device__ __forceinline__ void put4(vae_bf16 *p, const float *v)
    {
        vae_word2 to;
        to.w[0] = bf16x2_of(v[0], v[1]);
        to.w[1] = bf16x2_of(v[2], v[3]);
        *reinterpret_cast<vae_word2 *>(p) = to;
    }
};

/* Sum over a group of `lanes` neighbouring lanes (a power of two, at most 32), in every one of
 * them. All 32 lanes of the warp must call. */
static __device__ __forceinline__ float group_sum(float v, unsigned lanes)
{
    for (unsigned o = lanes / 2; o > 0; o /= 2) {
        v += __shfl_xor_sync(0xFFFFFFFFu, v, o);
    }
    return v;
}

static __device__ __forceinline__ float group_max(float v, unsigned lanes)
{
    for (unsigned o = lanes / 2; o > 0; o /= 2) {
        v = fmaxf(v, __shfl_xor_sync(0xFFFFFFFFu, v, o));
    }
    return v;
}

/* Sums of n doubles per thread over the block, in thread order by halves; the result is in v[] of
 * thread 0. part: n * VAE_BLOCK doubles of shared memory. All threads must call. */
static __device__ __forceinline__ void block_sums(double *v, int n, double *part)
{
    for (int i = 0; i < n; i++) {
        part[i * VAE_BLOCK + (int)threadIdx.x] = v[i];
    }
    for (unsigned half = VAE_BLOCK / 2; half > 0; half /= 2) {
        __syncthreads();
        for (int i = 0; threadIdx.x < half && i < n; i++) {
            part[i * VAE_BLOCK + (int)threadIdx.x] +=
                part[i * VAE_BLOCK + (int)(threadIdx.x + half)];
        }
    }
    for (int i = 0; threadIdx.x == 0 && i < n; i++) {
        v[i] = part[i * VAE_BLOCK];
    }
}

/* Blocks of the squared norm of n floats, each of which leaves a partial sum: at most VAE_BLOCK. */
static inline unsigned vae_norm_blocks(size_t n)
{
    return vae_blocks(n / 16, VAE_BLOCK);
}

/* True in all threads of the block that comes last of n that share a ticket; it then sees what
 * every one of them wrote. The ticket is left at zero. All threads must call. */
static __device__ __forceinline__ bool last_of(uint32_t *ticket, uint32_t n)
{
    __shared__ uint32_t is_last;
    __syncthreads();
    if (threadIdx.x == 0) {
        __threadfence();
        is_last = atomicAdd(ticket, 1u) == n - 1;
        if (is_last) {
            *ticket = 0;
            __threadfence();
        }
    }
    __syncthreads();
    return is_last != 0;
}

static __device__ __forceinline__ bool last_block(uint32_t *ticket)
{
    return last_of(ticket, gridDim.x);
}

/* The number of this thread in the grid, and of threads in it. */
static __device__ __forceinline__ size_t grid_thread(void)
{
    return (size_t)blockIdx.x * blockDim.x + threadIdx.x;
}

static __device__ __forceinline__ size_t grid_threads(void)
{
    return (size_t)gridDim.x * blockDim.x;
}

/* The row of this thread where `lanes` neighbouring threads (a power of two, at most VAE_BLOCK)
 * share one, and its place among them. */
static __device__ __forceinline__ uint32_t group_row(unsigned lanes)
{
    return blockIdx.x * (VAE_BLOCK / lanes) + threadIdx.x / lanes;
}

static __device__ __forceinline__ unsigned group_lane(unsigned lanes)
{
    return threadIdx.x & (lanes - 1);
}

/* Loads that stay where they are written. Left alone, the compiler moves a load to its first use,
 * behind branches and what they wait for; cursor, plan and rows come one after the other from L2,
 * and in a small batch that is most of what a kernel does. Not for what the kernel writes. */
static __device__ __forceinline__ uint64_t load_early(const uint64_t *p)
{
#ifdef __CUDA_ARCH__
    uint64_t v;
    asm volatile("ld.global.b64 %0, [%1];" : "=l"(v) : "l"(p));
    return v;
#else
    return *p;
#endif
}

static __device__ __forceinline__ uint32_t load_early(const uint32_t *p)
{
#ifdef __CUDA_ARCH__
    uint32_t v;
    asm volatile("ld.global.b32 %0, [%1];" : "=r"(v) : "l"(p));
    return v;
#else
    return *p;
#endif
}

/* The number of the plan's entry, and the entry. */
static __device__ __forceinline__ uint64_t plan_number(vae_now now)
{
    return load_early(now.cursor) + now.offset;
}

static __device__ __forceinline__ const vae_plan *plan_entry(vae_now now)
{
    return now.plan + plan_number(now);
}

/* Where row r of the batch lies among the rows it is gathered from, by entry `entry` of the plan;
 * its number in the data set. */
static __device__ __forceinline__ uint32_t row_place(uint32_t *number, const vae_rows &from,
                                                     const vae_plan *plan, uint64_t entry, size_t r)
{
    uint32_t place;
    if (from.n_slots > 0) {
        place = (uint32_t)((uint32_t)entry % from.n_slots * from.slot_rows + r);
    } else {
        vae_plan p = {};
        p.first = load_early(&plan[entry].first);
        p.order_key = load_early(&plan[entry].order_key);
        p.shuffle = load_early(&plan[entry].shuffle);
        p.extra_n = load_early(&plan[entry].extra_n);
        p.extra_at = load_early(&plan[entry].extra_at);
        p.extra_first = load_early(&plan[entry].extra_first);
        p.extra_key = load_early(&plan[entry].extra_key);
        place = (uint32_t)vae_plan_row(&p, from.n, from.half_bits, r);
    }
    *number = from.number != NULL ? from.number[place] : place;
    return place;
}

/* Lanes per row of `items` pieces of work: enough that `rows` rows fill a large device (a fixed
 * number, so that sums do not depend on the device), no more than there are pieces. */
static inline unsigned lanes_for(size_t rows, size_t items, unsigned least, unsigned most)
{
    const size_t full = (size_t)1 << 18;
    unsigned lanes = least;
    while (lanes < most && lanes < items && rows * lanes < full) {
        lanes *= 2;
    }
    return lanes;
}

#endif
