/* Products of bf16 for Hopper and many rows, with what the step does to their results in the same
 * kernel: bias and ReLU, the Bernoulli loss, ReLU's derivative, column sums. Tiles are made for
 * widths near 400 and 784; which sizes they serve, the functions ..._fits() say.
 *
 * All work alike: one thread of the first warpgroup asks for tiles (TMA) that go round a ring in
 * shared memory, two more warpgroups multiply (wgmma). `full` barriers tell that a slot's bytes are
 * there, `empty` ones that all have read it. Sums are in an order that depends on sizes only. */
#ifndef VAE_HOPPER_TILES_H
#define VAE_HOPPER_TILES_H

#include "kernels.h"
#include "launch.h"
#include "vae_math.h"
#include "vector.h"

/* Sizes of tiles. A chunk is 64 columns by 64 rows of bf16; weights take half of one at a time, as
 * their ring is the better the more of the memory's latency it covers. */
enum {
    CHUNK = 8192,
    HALF = CHUNK / 2,
    ROWS = 128, /* of the batch, a block's tile */
    COLS = 400, /* of the result, at most; a warpgroup makes 64 by 192 and 64 by 208 */
    COLS0 = 192,
    M_TILES = 7,  /* weights: tiles of 128 of m, half of the last one */
    SPLITS0 = 20, /* ... stretches of rows for each whole one, and for that: 6 * 20 + 12 = 132 */
    SPLITS1 = 12,
    N_UNITS = 132, /* narrow weights: stretches of rows */
    N_CHUNKS = 7,  /* ... chunks of m at most */
    L_COLS = 208,  /* loss: columns of a block */
    L_CHUNKS = 7,  /* ... chunks of k at most */
    BLOCKS = 132,  /* multiprocessors of an H100 or H200 */
};

/* What a weight's partial sums are made of. */
typedef struct {
    int m, n;      /* of the result; a is (rows,m), b (rows,n) */
    int splits[2]; /* of the whole tiles, of the last one; narrow: [0] */
    int sums_of_b; /* column sums are wanted of b, and the result lies transposed, (n,m) */
    float4 *partial;
    float *sums; /* (units, 128), or 64 used of b; narrow: (units, 448) */
} weight_parts;

static inline size_t ceil_div(size_t a, size_t b)
{
    return (a + b - 1) / b;
}

static inline size_t least_of(size_t a, size_t b)
{
    return a < b ? a : b;
}

#ifdef __CUDACC__
#include <cudaTypedefs.h>

#include "hopper.h"

/* Other targets get these kernels without a body: vae_hopper_built() and the device's compute
 * capability keep them from being launched. */
#if defined(__CUDA_ARCH_FEAT_SM90_ALL) || !defined(__CUDA_ARCH__)
#define ON_HOPPER
#define CLUSTERED __cluster_dims__(CLUSTER, 1, 1)
#else
#define CLUSTERED
#endif
#define HELPER [[maybe_unused]] static __device__ __forceinline__

HELPER float low_of(uint32_t w)
{
    return float_of(w << 16);
}
HELPER float high_of(uint32_t w)
{
    return float_of(w & 0xFFFF0000u);
}

/* Adds up the 32 rows of half a chunk: in a lane eight columns, from 8 * (lane % 8) on, of every
 * fourth row. And the whole, in the first eight lanes. */
HELPER void add_rows(float (&total)[8], uint32_t half_chunk, int lane)
{
#pragma unroll 4
    for (int i = 0; i < 8; i++) {
        const int r = 4 * i + lane / 8;
        vae_word4 v;
        asm volatile("ld.shared.v4.b32 {%0, %1, %2, %3}, [%4];"
                     : "=r"(v.w[0]), "=r"(v.w[1]), "=r"(v.w[2]), "=r"(v.w[3])
                     : "r"(half_chunk + (uint32_t)(r * 128 + ((lane % 8 ^ (r & 7)) << 4)))
                     : "memory");
        VAE_UNROLL
        for (int e = 0; e < 4; e++) {
            total[2 * e] += low_of(v.w[e]);
            total[2 * e + 1] += high_of(v.w[e]);
        }
    }
}
HELPER void put_sums(float *to, const float (&total)[8], int lane)
{
    VAE_UNROLL
    for (int e = 0; e < 8; e++) {
        float sum = total[e] + __shfl_xor_sync(0xFFFFFFFFu, total[e], 8);
        sum += __shfl_xor_sync(0xFFFFFFFFu, sum, 16);
        if (lane < 8) {
            to[8 * lane + e] = sum;
        }
    }
}

/* A ring of SLOTS slots, as one thread goes round it. */
template <int SLOTS> struct ring {
    int slot = 0;
    uint32_t phase = 0;
    __device__ __forceinline__ void next()
    {
        slot = slot + 1 == SLOTS ? 0 : slot + 1;
        phase ^= slot == 0;
    }
};

template <int N> struct number {
    static constexpr int value = N;
};

/* What a kernel makes; blocks of a cluster. */
enum { FORWARD, INPUT, WEIGHT, CLUSTER = 2 };

/* The sum of n partial sums, `stride` apart. */
[[maybe_unused]] static __device__ __forceinline__ float4 sum_of(const float4 *__restrict__ from,
                                                                 int n, size_t stride)
{
    constexpr int AHEAD = 10; /* on their way at once */
    float4 sum = make_float4(0, 0, 0, 0);
    for (int first = 0; first < n; first += AHEAD) {
        float4 v[AHEAD];
        VAE_UNROLL
        for (int i = 0; i < AHEAD; i++) {
            v[i] = first + i < n ? from[(size_t)(first + i) * stride] : make_float4(0, 0, 0, 0);
        }
        VAE_UNROLL
        for (int i = 0; i < AHEAD; i++) {
            sum.x += v[i].x;
            sum.y += v[i].y;
            sum.z += v[i].z;
            sum.w += v[i].w;
        }
    }
    return sum;
}

/* Two rows, m and m + 8, of two columns from n on. */
[[maybe_unused]] static __device__ __forceinline__ void
put_weights(float *dw, size_t ld, const weight_parts &g, int m, int n, float4 v)
{
    const float values[4] = {v.x, v.y, v.z, v.w};
    VAE_UNROLL
    for (int i = 0; i < 4; i++) {
        const int r = m + i / 2 * 8, c = n + i % 2;
        if (r < g.m && c < g.n) {
            dw[g.sums_of_b ? (size_t)c * ld + r : (size_t)r * ld + c] = values[i];
        }
    }
}

/* A matrix of bf16 as TMA sees it: boxes of 64 columns by `box` rows, zeros where it ends. */
static inline cudaError_t map_of(CUtensorMap *map, const void *data, size_t cols, size_t rows,
                                 size_t ld, unsigned box)
{
    static PFN_cuTensorMapEncodeTiled_v12000 encode;
    if (encode == NULL) {
        void *f = NULL;
        cudaDriverEntryPointQueryResult found;
        cudaError_t status = cudaGetDriverEntryPointByVersion("cuTensorMapEncodeTiled", &f, 12000,
                                                              cudaEnableDefault, &found);
        if (status != cudaSuccess || f == NULL) {
            return status != cudaSuccess ? status : cudaErrorSymbolNotFound;
        }
        encode = reinterpret_cast<PFN_cuTensorMapEncodeTiled_v12000>(f);
    }
    const cuuint64_t size[2] = {cols, rows}, pitch[1] = {ld * sizeof(vae_bf16)};
    const cuuint32_t boxes[2] = {64, box}, one[2] = {1, 1};
    const CUresult result =
        encode(map, CU_TENSOR_MAP_DATA_TYPE_BFLOAT16, 2, const_cast<void *>(data), size, pitch,
               boxes, one, CU_TENSOR_MAP_INTERLEAVE_NONE, CU_TENSOR_MAP_SWIZZLE_128B,
               CU_TENSOR_MAP_L2_PROMOTION_L2_256B, CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE);
    return result == CUDA_SUCCESS ? cudaSuccess : cudaErrorInvalidValue;
}

/* Launches a kernel of three warpgroups with so much dynamic shared memory. */
template <typename... PARAMS, typename... ARGS>
static cudaError_t launch(void (*kernel)(PARAMS...), size_t grid, int bytes, cudaStream_t stream,
                          const ARGS &...args)
{
    cudaError_t status =
        cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, bytes);
    if (status == cudaSuccess) {
        kernel<<<(unsigned)grid, 384, (size_t)bytes, stream>>>(args...);
        status = cudaGetLastError();
    }
    return status;
}

/* Steps of 16 in the last 64 of k. */
static inline int tail_of(size_t k)
{
    return (int)ceil_div((k - 1) % 64 + 1, 16);
}

/* sums_of_b: a is the layer's x and b its dy, else the other way round. */
static inline weight_parts parts_of(void *partial, size_t float4s, size_t m, size_t n,
                                    bool sums_of_b)
{
    weight_parts g = {};
    g.m = (int)m;
    g.n = (int)n;
    g.sums_of_b = sums_of_b;
    g.partial = static_cast<float4 *>(partial);
    g.sums = reinterpret_cast<float *>(g.partial + float4s);
    return g;
}

#define TRY_CUDA(call)                                                                             \
    do {                                                                                           \
        cudaError_t status_ = (call);                                                              \
        if (status_ != cudaSuccess) {                                                              \
            return status_;                                                                        \
        }                                                                                          \
    } while (0)

/* In hopper_narrow.cu. y: (rows,cols) out, x: (rows,k), k <= NARROW_K: x w' + b, at least `least`;
 * or, with a sign, x w where that is positive. */
enum { NARROW_K = 48 };
cudaError_t vae_hopper_narrow_rows(vae_mat y, vae_mat x, const void *w, size_t ldw, const float *b,
                                   vae_mat sign, size_t rows, size_t k, size_t cols, float least,
                                   cudaStream_t stream);
/* dw, db as of vae_hopper_weight_launch; a: (rows,m), b: (rows,n), n <= 64. */
cudaError_t vae_hopper_narrow_weight(float *dw, size_t ldw, float *db, vae_mat a, vae_mat b,
                                     void *partial, size_t rows, size_t m, size_t n, bool sums_of_b,
                                     cudaStream_t stream);

#else /* the emulation: plain kernels in their places, one thread per result */

static __device__ __forceinline__ float at(vae_mat m, size_t r, size_t c)
{
    return elem<vae_bf16>::get(static_cast<const vae_bf16 *>(m.data) + r * m.ld + c);
}
static __device__ __forceinline__ void put(vae_mat m, size_t r, size_t c, float v)
{
    elem<vae_bf16>::put(static_cast<vae_bf16 *>(m.data) + r * m.ld + c, v);
}
#endif

#endif
