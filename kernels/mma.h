/* Matrix products of a warp on tensor cores, mma.sync: operands straight from global memory.
 *
 * The order in which k is summed is free, and so is which row of a tile is which. So a lane loads
 * whole 16-byte pieces, and the pieces of the four lanes t = lane%4 lie side by side; the same
 * mapping in both operands makes it a product. CHUNK = 64 bytes of k at a time: lane t holds words
 * 4t .. 4t+3 of it, step s of two multiplies words 4t+2s and 4t+2s+1 (m16n8k8 of tf32, a float a
 * word; m16n8k16 of bf16, two to a word). With g = lane/4, an operand of 32 rows or columns is four
 * groups q of eight: element 4g + q. Of the sum, a lane then holds eight neighbouring columns 8t ..
 * 8t+7, in two pieces of four. Fragments: PTX ISA, "Matrix Fragments for mma.m16n8k8" and
 * "mma.m16n8k16".
 *
 * fp32 is three products of tf32 numbers for one, x = hi + lo: lo*hi + hi*lo + hi*hi. What is left
 * out is 2^-22 of a product, about what rounding sums to fp32 leaves (the scheme of Markidis et al.
 * 2018, "NVIDIA Tensor Core Programmability, Performance & Precision"). */
#ifndef VAE_MMA_H
#define VAE_MMA_H

#include "kernels.h"
#include "launch.h"
#include "vector.h"

/* What products read, by how they are done. */
template <vae_product P> struct product_elem {
    typedef float type;
};
template <> struct product_elem<VAE_PRODUCT_BF16> {
    typedef vae_bf16 type;
};

/* Elements of k in a chunk, and those of one lane. */
template <typename T> constexpr uint32_t CHUNK = 64 / sizeof(T);
template <typename T> constexpr uint32_t PIECE = 16 / sizeof(T);

/* d += a b. */
static __device__ __forceinline__ void mma_tf32(float *d, const uint32_t *a, const uint32_t *b)
{
#ifdef __CUDACC__
    asm("mma.sync.aligned.m16n8k8.row.col.f32.tf32.tf32.f32 "
        "{%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
        : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
#else
    simt_mma(SIMT_OP_MMA_TF32, d, a, b);
#endif
}

static __device__ __forceinline__ void mma_bf16(float *d, const uint32_t *a, const uint32_t *b)
{
#ifdef __CUDACC__
    asm("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 "
        "{%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
        : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
#else
    simt_mma(SIMT_OP_MMA_BF16, d, a, b);
#endif
}

/* Rounded to tf32, halves away from zero; NaN stays NaN. The low 13 bits come out as zero. */
static __device__ __forceinline__ uint32_t tf32_of(uint32_t bits)
{
#ifdef __CUDACC__
    uint32_t rounded;
    asm("cvt.rna.tf32.f32 %0, %1;" : "=r"(rounded) : "f"(__uint_as_float(bits)));
    return rounded & 0xFFFFE000u;
#else
    const bool nan = (bits & 0x7FFFFFFFu) > 0x7F800000u;
    return (nan ? bits : bits + 0x1000u) & 0xFFFFE000u;
#endif
}

/* words to hi (in place) and lo. */
static __device__ __forceinline__ void split_tf32(uint32_t *hi, uint32_t *lo, int n)
{
    VAE_UNROLL
    for (int i = 0; i < n; i++) {
        const float x = float_of(hi[i]);
        hi[i] = tf32_of(hi[i]);
        lo[i] = (uint32_t)vae_bits_of_float(x - float_of(hi[i]));
    }
}

/* c += the product of a chunk. c[i][q]: the 16 x 8 tile of rows 2i and 2i+1 of a's groups, and of
 * b's group q. a: 2*MT rows of four words, b: four. */
template <vae_product P, int MT>
static __device__ __forceinline__ void multiply(float (*c)[4][4], const uint32_t (*a)[4],
                                                const uint32_t (*b)[4])
{
    VAE_UNROLL
    for (int s = 0; s < 2; s++) {
        uint32_t left[MT][4], right[4][2];
        VAE_UNROLL
        for (int i = 0; i < MT; i++) {
            left[i][0] = a[2 * i][2 * s];
            left[i][1] = a[2 * i + 1][2 * s];
            left[i][2] = a[2 * i][2 * s + 1];
            left[i][3] = a[2 * i + 1][2 * s + 1];
        }
        VAE_UNROLL
        for (int q = 0; q < 4; q++) {
            right[q][0] = b[q][2 * s];
            right[q][1] = b[q][2 * s + 1];
        }
        if (P == VAE_PRODUCT_FP32) {
            uint32_t left_lo[MT][4], right_lo[4][2];
            split_tf32(left[0], left_lo[0], 4 * MT);
            split_tf32(right[0], right_lo[0], 8);
            VAE_UNROLL
            for (int i = 0; i < 4 * MT; i++) {
                mma_tf32(c[i / 4][i % 4], left_lo[i / 4], right[i % 4]);
            }
            VAE_UNROLL
            for (int i = 0; i < 4 * MT; i++) {
                mma_tf32(c[i / 4][i % 4], left[i / 4], right_lo[i % 4]);
            }
        }
        if (P == VAE_PRODUCT_TF32) {
            VAE_UNROLL
            for (int i = 0; i < 4 * MT; i++) {
                left[i / 4][i % 4] = tf32_of(left[i / 4][i % 4]);
            }
            VAE_UNROLL
            for (int i = 0; i < 8; i++) {
                right[i / 2][i % 2] = tf32_of(right[i / 2][i % 2]);
            }
        }
        VAE_UNROLL
        for (int i = 0; i < 4 * MT; i++) {
            if (P == VAE_PRODUCT_BF16) {
                mma_bf16(c[i / 4][i % 4], left[i / 4], right[i % 4]);
            } else {
                mma_tf32(c[i / 4][i % 4], left[i / 4], right[i % 4]);
            }
        }
    }
}

/* A lane's words of one row, where k lies side by side; zeros from k = ld on, and if not `real`. */
template <typename T>
static __device__ __forceinline__ void fetch_row(uint32_t *w, const T *row, bool real, uint32_t k,
                                                 uint32_t ld)
{
    vae_word4 v = {{0, 0, 0, 0}};
    if (real && k < ld) {
        v = load16(row + k);
    }
    VAE_UNROLL
    for (int i = 0; i < 4; i++) {
        w[i] = v.w[i];
    }
}

/* A lane's words of four neighbouring columns, where rows are k: (K,ld), fewer than 2^32 elements,
 * from row k and column c; zeros outside. */
static __device__ __forceinline__ void fetch_columns(uint32_t (*w)[4], const float *m, uint32_t ld,
                                                     uint32_t c, uint32_t k, uint32_t K)
{
    VAE_UNROLL
    for (uint32_t i = 0; i < 4; i++) {
        vae_word4 v = {{0, 0, 0, 0}};
        if (k + i < K && c < ld) {
            v = load16(m + (k + i) * ld + c);
        }
        VAE_UNROLL
        for (int q = 0; q < 4; q++) {
            w[q][i] = v.w[q];
        }
    }
}

static __device__ __forceinline__ void
fetch_columns(uint32_t (*w)[4], const vae_bf16 *m, uint32_t ld, uint32_t c, uint32_t k, uint32_t K)
{
    vae_word2 v[8];
    VAE_UNROLL
    for (uint32_t i = 0; i < 8; i++) {
        v[i].w[0] = v[i].w[1] = 0;
        if (k + i < K && c < ld) {
            v[i] = *reinterpret_cast<const vae_word2 *>(m + (k + i) * ld + c);
        }
    }
    VAE_UNROLL
    for (int i = 0; i < 4; i++) {
        VAE_UNROLL
        for (int q = 0; q < 4; q++) {
            w[q][i] = __byte_perm(v[2 * i].w[q / 2], v[2 * i + 1].w[q / 2],
                                  q % 2 == 0 ? 0x5410u : 0x7632u);
        }
    }
}

#endif
