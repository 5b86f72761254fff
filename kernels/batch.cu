/* The batch: rows of the data set to activations, and other conversions. */
#include "kernels.h"
#include "launch.h"
#include "random.h"
#include "vae_math.h"
#include "vector.h"

/* byte/255 rounded to nearest, as the division rounds it (all 256 tried), without the division. */
static __device__ __forceinline__ float unit_of(uint32_t byte)
{
    const float b = (float)byte, r = 1.0f / 255.0f;
    float q = b * r;
    return fmaf(fmaf(-q, 255.0f, b), r, q);
}

/* Four stored values as they are used, binarized or not. */
struct quad_rule {
    vae_binarize binarize;
    uint64_t seed, stream, block; /* stream: of the row's first four values */
};

static __device__ __forceinline__ void convert4(float *x, const uint8_t *from, size_t quad,
                                                quad_rule rule)
{
    const uint32_t four = reinterpret_cast<const vae_word1 *>(from)[quad].w[0];
    if (rule.binarize >= VAE_BINARIZE_STATIC) {
        uint32_t w[4];
        random_words(w, rule.seed, rule.stream + quad, rule.block);
        VAE_UNROLL
        for (int i = 0; i < 4; i++) {
            x[i] = (float)vae_binarize_u8(four >> (8 * i) & 255u, w[i]);
        }
        return;
    }
    VAE_UNROLL
    for (int i = 0; i < 4; i++) {
        x[i] = unit_of(four >> (8 * i) & 255u);
    }
}

static __device__ __forceinline__ void convert4(float *x, const float *from, size_t quad,
                                                quad_rule rule)
{
    elem<float>::get4(x, from + 4 * quad);
    if (rule.binarize >= VAE_BINARIZE_STATIC) {
        uint32_t w[4];
        random_words(w, rule.seed, rule.stream + quad, rule.block);
        VAE_UNROLL
        for (int i = 0; i < 4; i++) {
            x[i] = (float)vae_binarize_f32(x[i], w[i]);
        }
    }
}

/* Bits, in words of 32; binarized they are what they are. */
static __device__ __forceinline__ void convert4(float *x, const uint32_t *from, size_t quad,
                                                quad_rule rule)
{
    (void)rule;
    const uint32_t four = from[quad / 8] >> (4 * (quad % 8));
    VAE_UNROLL
    for (int i = 0; i < 4; i++) {
        x[i] = (float)(four >> i & 1u);
    }
}

/* Grid: one warp per rows_per_warp rows, which lie side by side. Lane i works out where row i comes
 * from, since the shuffle costs as much as a good part of a row; then the warp converts row by row.
 */
template <typename T, typename S>
__global__ void __launch_bounds__(VAE_BLOCK)
    gather_kernel(T *x, size_t ld, vae_rows from, vae_now now, size_t B, size_t D, size_t src_ld,
                  vae_binarize binarize, uint64_t seed, unsigned rows_per_warp)
{
    const vae_plan *plan = plan_entry(now);
    const unsigned lane = threadIdx.x % 32;
    const size_t first = grid_thread() / 32 * rows_per_warp;
    const size_t mine = first + lane;
    uint32_t place = 0, number = 0;
    if (lane < rows_per_warp && mine < B) {
        place = row_place(&number, from, now, mine);
    }
    const size_t quads = (D + 3) / 4;
    quad_rule rule = {binarize, seed, 0,
                      binarize == VAE_BINARIZE_DYNAMIC ? vae_rng_block(plan->draw, 0) : 0};
    for (unsigned i = 0; i < rows_per_warp && first + i < B; i++) {
        const size_t p = __shfl_sync(0xFFFFFFFFu, place, (int)i);
        const size_t row = __shfl_sync(0xFFFFFFFFu, number, (int)i);
        const S *src = static_cast<const S *>(from.rows) + p * src_ld;
        T *out = x + (first + i) * ld;
        rule.stream = vae_rng_stream(VAE_RNG_BINARIZE, row * quads);
        for (size_t d = (size_t)lane * elem<T>::N; d < D; d += (size_t)32 * elem<T>::N) {
            float v[elem<T>::N];
            VAE_UNROLL
            for (int q = 0; q < elem<T>::N / 4; q++) {
                convert4(v + 4 * q, src, d / 4 + q, rule);
            }
            VAE_UNROLL
            for (int e = 0; e < elem<T>::N; e++) {
                float value = v[e];
                if (binarize == VAE_BINARIZE_THRESHOLD) {
                    value = value >= 0.5f ? 1.0f : 0.0f;
                }
                v[e] = d + e < D ? value : 0.0f;
            }
            store16(out + d, elem<T>::pack(v));
        }
    }
}

template <typename T, typename S>
static cudaError_t gather(vae_mat x, vae_rows rows, size_t src_ld, vae_now now, size_t B, size_t D,
                          vae_binarize binarize, uint64_t seed, cudaStream_t stream)
{
    size_t per_warp = (B + 8191) / 8192;
    per_warp = per_warp < 32 ? per_warp : 32;
    const size_t warps = (B + per_warp - 1) / per_warp;
    VAE_LAUNCH((gather_kernel<T, S>), vae_blocks(warps * 32, (size_t)-1), VAE_BLOCK, 0, stream,
               static_cast<T *>(x.data), x.ld, rows, now, B, D, src_ld, binarize, seed,
               (unsigned)per_warp);
    return cudaGetLastError();
}

/* Rows that are drawn. Grid: a thread per row of x and four of its values. */
template <typename T>
__global__ void __launch_bounds__(VAE_BLOCK)
    gather_draws_kernel(T *x, size_t ld, vae_rows from, vae_now now, size_t B, size_t D,
                        size_t src_ld, uint64_t seed)
{
    const vae_plan *plan = plan_entry(now);
    const size_t quads = (D + 3) / 4, i = grid_thread(), r = i / quads, q = i - r * quads;
    if (r >= B) {
        return;
    }
    uint32_t number;
    const size_t place = row_place(&number, from, now, r);
    const float *mean = static_cast<const float *>(from.rows) + place * src_ld + 4 * q;
    float eps[4], v[4];
    random_eps4(eps, seed, VAE_RNG_STACK, number, (uint32_t)quads, (uint32_t)q, plan->draw, 0);
    VAE_UNROLL
    for (int e = 0; e < 4; e++) {
        const bool real = 4 * q + e < D;
        v[e] = real ? mean[e] + vae_expf(0.5f * mean[D + e]) * eps[e] : 0.0f;
    }
    elem<T>::put4(x + r * ld + 4 * q, v);
}

template <typename T>
static cudaError_t gather_draws(vae_mat x, vae_rows rows, vae_now now, size_t B, size_t D,
                                uint64_t seed, cudaStream_t stream)
{
    VAE_LAUNCH((gather_draws_kernel<T>), vae_blocks(B * ((D + 3) / 4), (size_t)-1), VAE_BLOCK, 0,
               stream, static_cast<T *>(x.data), x.ld, rows, now, B, D, (2 * D + 15) / 16 * 16,
               seed);
    return cudaGetLastError();
}

/* 16 values per thread: four 16-byte loads, two 16-byte stores. */
__global__ void __launch_bounds__(VAE_BLOCK)
    to_bf16_kernel(vae_bf16 *to, const float *__restrict__ from, size_t n)
{
    for (size_t i = 8 * grid_thread(); i < n; i += 8 * grid_threads()) {
        float v[8];
        elem<float>::get4(v, from + i);
        elem<float>::get4(v + 4, from + i + 4);
        store16(to + i, elem<vae_bf16>::pack(v));
    }
}

__global__ void advance_kernel(uint64_t *cursor, uint64_t steps)
{
    *cursor += steps;
}

template <typename T>
static cudaError_t gather_any(vae_mat x, vae_rows rows, vae_now now, size_t B, size_t D,
                              vae_binarize binarize, uint64_t seed, cudaStream_t stream)
{
    const size_t padded = (D + 15) / 16 * 16;
    switch (rows.dtype) {
    case VAE_U8:
        return gather<T, uint8_t>(x, rows, padded, now, B, D, binarize, seed, stream);
    case VAE_F32:
        return gather<T, float>(x, rows, padded, now, B, D, binarize, seed, stream);
    case VAE_BITS:
        return gather<T, uint32_t>(x, rows, (D + 31) / 32, now, B, D, binarize, seed, stream);
    }
    return cudaErrorInvalidValue;
}

extern "C" cudaError_t vae_gather_launch(vae_elem type, vae_mat x, vae_rows rows, vae_now now,
                                         size_t B, size_t D, vae_binarize binarize, uint64_t seed,
                                         cudaStream_t stream)
{
    if (rows.draws) {
        return type == VAE_ELEM_F32 ? gather_draws<float>(x, rows, now, B, D, seed, stream)
                                    : gather_draws<vae_bf16>(x, rows, now, B, D, seed, stream);
    }
    return type == VAE_ELEM_F32 ? gather_any<float>(x, rows, now, B, D, binarize, seed, stream)
                                : gather_any<vae_bf16>(x, rows, now, B, D, binarize, seed, stream);
}

extern "C" cudaError_t vae_to_bf16_launch(void *to, const float *from, size_t n,
                                          cudaStream_t stream)
{
    VAE_LAUNCH(to_bf16_kernel, vae_blocks(n / 8, 4096), VAE_BLOCK, 0, stream,
               static_cast<vae_bf16 *>(to), from, n);
    return cudaGetLastError();
}

extern "C" cudaError_t vae_advance_launch(uint64_t *cursor, uint64_t steps, cudaStream_t stream)
{
    VAE_LAUNCH(advance_kernel, 1, 1, 0, stream, cursor, steps);
    return cudaGetLastError();
}
