/* Four floats at a time on any processor, and what kernels of products for wider vectors are made
 * with. */
#ifndef VAE_BACKEND_CPU_VEC4_H
#define VAE_BACKEND_CPU_VEC4_H

#include <stddef.h>
#if defined(__x86_64__)
#include <immintrin.h>
#endif

#define INLINE static inline __attribute__((always_inline))
#define UNROLL _Pragma("GCC unroll 16")

typedef float vec4 __attribute__((vector_size(16), aligned(4), may_alias));
typedef int index4 __attribute__((vector_size(16)));

#if defined(__clang__)
#define SHUFFLE(x, y, ...) __builtin_shufflevector((x), (y), __VA_ARGS__)
#else
#define SHUFFLE(x, y, ...) __builtin_shuffle((x), (y), (index4){__VA_ARGS__})
#endif

/* Of a kernel's macro: its target, a number in all lanes, x * y + z. */
#define NO_TARGET
#define PLAIN_SET1(x)      ((vec4){(x), (x), (x), (x)})
#define PLAIN_FMA(x, y, z) ((x) * (y) + (z))
#define AVX2               __attribute__((target("avx2,fma")))
#define AVX512             __attribute__((target("avx512f")))
#define AVX512_BF16        __attribute__((target("avx512f,avx512bw,avx512vl,avx512bf16")))
#define DOT(x, y, z)       _mm512_dpbf16_ps(z, (__m512bh)(x), (__m512bh)(y)) /* pairs of bf16 */

/* The float `bytes` and `terms` floats behind `row` in all lanes of x, and z += x * y, for kernels
 * whose loops hold several terms. GCC is told the instructions: left to itself it makes so many
 * addresses, and names for sums, of several terms that some live on the stack (GCC 12: a product
 * was at 0.86 of the peak for 0.90). `bytes`: 0 or a variable; `terms`: a constant once loops
 * unroll. */
#define PLAIN_SPREAD(x, row, bytes, terms)                                                         \
    ((x) = PLAIN_SET1((row)[(size_t)(terms) + (bytes) / sizeof(float)]))
#define PLAIN_ADD(z, x, y) ((z) = (x) * (y) + (z))
#if defined(__x86_64__)
#define VEX_OF(like, name)                                                                         \
    _Generic((like), __m128 : _mm_##name, __m256 : _mm256_##name, __m512 : _mm512_##name)
#define VEX_READ(x, row, bytes, terms)                                                             \
    ((x) = VEX_OF(x, set1_ps)((row)[(size_t)(terms) + (bytes) / sizeof(float)]))
#if defined(__clang__) || defined(__SANITIZE_ADDRESS__) /* which looks into no instruction */
#define VEX_SPREAD       VEX_READ
#define VEX_ADD(z, x, y) ((z) = VEX_OF(z, fmadd_ps)(x, y, z))
#define DOT_ADD(z, x, y) ((z) = DOT(x, y, z))
#else
#define VEX_SPREAD(x, row, bytes, terms)                                                           \
    do {                                                                                           \
        if (!__builtin_constant_p(terms)) {                                                        \
            VEX_READ(x, row, bytes, terms);                                                        \
        } else if (__builtin_constant_p(bytes)) {                                                  \
            __asm__("vbroadcastss %c2(%1), %0"                                                     \
                    : "=v"(x)                                                                      \
                    : "r"(row), "i"(4 * (terms) + (int)(bytes)), "m"(*(const float(*)[])(row)));   \
        } else {                                                                                   \
            __asm__("vbroadcastss %c3(%1,%2), %0"                                                  \
                    : "=v"(x)                                                                      \
                    : "r"(row), "r"(bytes), "i"(4 * (terms)), "m"(*(const float(*)[])(row)));      \
        }                                                                                          \
    } while (0)
#define VEX_ADD(z, x, y) __asm__("vfmadd231ps %2, %1, %0" : "+v"(z) : "v"(x), "v"(y))
#define DOT_ADD(z, x, y) __asm__("vdpbf16ps %2, %1, %0" : "+v"(z) : "v"(x), "v"(y))
#endif
#endif

/* x[i] becomes the i-th elements of all four. */
INLINE void transpose_vec4(vec4 x[4])
{
    vec4 y0 = SHUFFLE(x[0], x[1], 0, 4, 1, 5), y1 = SHUFFLE(x[2], x[3], 0, 4, 1, 5);
    vec4 y2 = SHUFFLE(x[0], x[1], 2, 6, 3, 7), y3 = SHUFFLE(x[2], x[3], 2, 6, 3, 7);
    x[0] = SHUFFLE(y0, y1, 0, 1, 4, 5);
    x[1] = SHUFFLE(y0, y1, 2, 3, 6, 7);
    x[2] = SHUFFLE(y2, y3, 0, 1, 4, 5);
    x[3] = SHUFFLE(y2, y3, 2, 3, 6, 7);
}

/* to: (4,4) is the transpose of b (4,4) */
INLINE void transpose_4x4(float *to, size_t ldt, const float *b, size_t ldb)
{
    vec4 x[4];
    UNROLL for (size_t i = 0; i < 4; i++)
    {
        x[i] = *(const vec4 *)(b + i * ldb);
    }
    transpose_vec4(x);
    UNROLL for (size_t i = 0; i < 4; i++)
    {
        *(vec4 *)(to + i * ldt) = x[i];
    }
}

#endif
