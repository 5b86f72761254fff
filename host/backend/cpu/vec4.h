/* Four floats at a time on any processor: what the packing of products and the leaving out of
 * their zeros share. */
#ifndef VAE_BACKEND_CPU_VEC4_H
#define VAE_BACKEND_CPU_VEC4_H

#include <stddef.h>

#define INLINE static inline __attribute__((always_inline))
#define UNROLL _Pragma("GCC unroll 16")

typedef float vec4 __attribute__((vector_size(16), aligned(4), may_alias));
typedef int index4 __attribute__((vector_size(16)));

#if defined(__clang__)
#define SHUFFLE(x, y, ...) __builtin_shufflevector((x), (y), __VA_ARGS__)
#else
#define SHUFFLE(x, y, ...) __builtin_shuffle((x), (y), (index4){__VA_ARGS__})
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
