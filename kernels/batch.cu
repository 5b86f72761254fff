/* The batch: rows of the data set to activations, and other conversions. */
#include "kernels.h"
#include "launch.h"
#include "random.h"
#include "rows.h"
#include "vae_math.h"
#include "vector.h"

/* Grid: a warp per `turns` times 32 neighbouring chunks of 16 bytes of x, across the ends of rows,
 * so that all lanes have work. Lane i works out where the i-th of the warp's rows comes from, since
 * the shuffle costs as much as a good part of a row; the warp has at most 32. Rows end in zeros, as
 * they are stored, and these come along. */
template <typename T, typename S>
__global__ void __launch_bounds__(VAE_SMALL_BLOCK)
    gather_kernel(T *x, size_t ld, vae_rows from, vae_now now, size_t B, size_t D, size_t src_ld,
                  vae_binarize binarize, uint64_t seed, unsigned turns)
{
    const uint64_t entry = plan_number(now);
    const uint64_t draw = load_early(&now.plan[entry].draw);
    const uint32_t chunks = (uint32_t)((D + elem<T>::N - 1) / elem<T>::N);
    const unsigned lane = threadIdx.x % 32;
    const size_t start = grid_thread() / 32 * turns * 32, first = start / chunks;
    const uint32_t offset = (uint32_t)(start - first * chunks);
    uint32_t place = 0, number = 0;
    if (first + lane < B && lane * chunks < offset + turns * 32) {
        place = row_place(&number, from, now.plan, entry, first + lane);
    }
    value_rule rule = {binarize, seed, 0,
                       binarize == VAE_BINARIZE_DYNAMIC ? vae_rng_block(draw, 0) : 0};
    uint32_t i = (offset + lane) / chunks, chunk = offset + lane - i * chunks; /* of this turn */
    const uint32_t row_step = 32 / chunks, chunk_step = 32 - row_step * chunks;
    for (unsigned turn = 0; turn < turns; turn++) {
        const size_t p = __shfl_sync(0xFFFFFFFFu, place, (int)i);
        if (binarize >= VAE_BINARIZE_STATIC) {
            const uint64_t row = __shfl_sync(0xFFFFFFFFu, number, (int)i);
            rule.stream = vae_rng_stream(VAE_RNG_BINARIZE, row * ((D + 3) / 4));
        }
        if (first + i < B) {
            float v[elem<T>::N];
            convert<T>(v, static_cast<const S *>(from.rows) + p * src_ld, chunk, rule);
            VAE_UNROLL
            for (int e = 0; binarize == VAE_BINARIZE_THRESHOLD && e < elem<T>::N; e++) {
                v[e] = v[e] >= 0.5f ? 1.0f : 0.0f;
            }
            store16(x + (first + i) * ld + (size_t)chunk * elem<T>::N, elem<T>::pack(v));
        }
        i += row_step;
        chunk += chunk_step;
        if (chunk >= chunks) {
            chunk -= chunks;
            i++;
        }
    }
}

template <typename T, typename S>
static cudaError_t gather(vae_mat x, vae_rows rows, size_t src_ld, vae_now now, size_t B, size_t D,
                          vae_binarize binarize, uint64_t seed, cudaStream_t stream)
{
    /* a turn each until a large device is full, then more, but 32 rows a warp at most */
    const size_t chunks = (D + elem<T>::N - 1) / elem<T>::N, all = (B * chunks + 31) / 32;
    const size_t full = 8192, most = 31 * chunks / 32;
    size_t turns = (all + full - 1) / full;
    turns = turns < most ? turns : most;
    turns = turns > 0 ? turns : 1;
    const size_t warps = (all + turns - 1) / turns, per_block = VAE_SMALL_BLOCK / 32;
    VAE_LAUNCH((gather_kernel<T, S>), (unsigned)((warps + per_block - 1) / per_block),
               VAE_SMALL_BLOCK, 0, stream, static_cast<T *>(x.data), x.ld, rows, now, B, D, src_ld,
               binarize, seed, (unsigned)turns);
    return cudaGetLastError();
}

/* Rows that are drawn. Grid: a thread per row of x and four of its values. */
template <typename T>
__global__ void __launch_bounds__(VAE_BLOCK)
    gather_draws_kernel(T *x, size_t ld, vae_rows from, vae_now now, size_t B, size_t D,
                        size_t src_ld, uint64_t seed)
{
    const uint64_t entry = plan_number(now), draw = load_early(&now.plan[entry].draw);
    const size_t quads = (D + 3) / 4, i = grid_thread(), r = i / quads, q = i - r * quads;
    if (r >= B) {
        return;
    }
    uint32_t number;
    const size_t place = row_place(&number, from, now.plan, entry, r);
    const float *mean = static_cast<const float *>(from.rows) + place * src_ld + 4 * q;
    float eps[4], v[4];
    random_eps4(eps, seed, VAE_RNG_STACK, number, (uint32_t)quads, (uint32_t)q, draw, 0);
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
