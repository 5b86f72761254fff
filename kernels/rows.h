/* Stored values of the data set as the model sees them: what the kernels that gather share. */
#ifndef VAE_ROWS_H
#define VAE_ROWS_H

#include "kernels.h"
#include "launch.h"
#include "random.h"
#include "vector.h"

/* byte/255 as the division rounds it, without the division: 1/255 in two parts; and what is rounded
 * to bf16 afterwards comes out the same from the first part alone (all 256 tried for both). */
template <typename T> static __device__ __forceinline__ float unit_of(uint32_t byte)
{
    const float b = (float)byte, high = 1.0f / 255.0f, low = -0x1.fdfdfep-33f;
    return elem<T>::N == 8 ? b * high : fmaf(b, high, b * low);
}

/* How stored values are used, binarized or not. */
struct value_rule {
    vae_binarize binarize;
    uint64_t seed, stream, block; /* stream: of the row's first four values */
};

/* The values of a chunk, which is what 16 bytes of T hold, of the row that starts at `from`. */
template <typename T>
static __device__ __forceinline__ void convert(float *x, const uint8_t *from, uint32_t chunk,
                                               value_rule rule)
{
    constexpr int quads = elem<T>::N / 4;
    uint32_t word[quads];
    if constexpr (quads == 2) {
        const vae_word2 two = reinterpret_cast<const vae_word2 *>(from)[chunk];
        word[0] = two.w[0];
        word[1] = two.w[1];
    } else {
        word[0] = reinterpret_cast<const vae_word1 *>(from)[chunk].w[0];
    }
    VAE_UNROLL
    for (int q = 0; q < quads; q++) {
        uint32_t r[4];
        if (rule.binarize >= VAE_BINARIZE_STATIC) {
            random_words(r, rule.seed, rule.stream + (uint64_t)chunk * quads + q, rule.block);
        }
        VAE_UNROLL
        for (int i = 0; i < 4; i++) {
            const uint32_t byte = word[q] >> (8 * i) & 255u;
            x[4 * q + i] = rule.binarize >= VAE_BINARIZE_STATIC ? (float)vae_binarize_u8(byte, r[i])
                                                                : unit_of<T>(byte);
        }
    }
}

template <typename T>
static __device__ __forceinline__ void convert(float *x, const float *from, uint32_t chunk,
                                               value_rule rule)
{
    constexpr int quads = elem<T>::N / 4;
    VAE_UNROLL
    for (int q = 0; q < quads; q++) {
        const size_t quad = (size_t)chunk * quads + q;
        elem<float>::get4(x + 4 * q, from + 4 * quad);
        if (rule.binarize >= VAE_BINARIZE_STATIC) {
            uint32_t r[4];
            random_words(r, rule.seed, rule.stream + quad, rule.block);
            VAE_UNROLL
            for (int i = 0; i < 4; i++) {
                x[4 * q + i] = (float)vae_binarize_f32(x[4 * q + i], r[i]);
            }
        }
    }
}

/* Bits, in words of 32; binarized they are what they are. */
template <typename T>
static __device__ __forceinline__ void convert(float *x, const uint32_t *from, uint32_t chunk,
                                               value_rule rule)
{
    constexpr int N = elem<T>::N;
    (void)rule;
    const uint32_t bits = from[chunk / (32 / N)] >> (N * (chunk % (32 / N)));
    VAE_UNROLL
    for (int i = 0; i < N; i++) {
        x[i] = (float)(bits >> i & 1u);
    }
}

#endif
