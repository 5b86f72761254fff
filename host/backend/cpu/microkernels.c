/* Microkernels: one body for every vector type, compiled for as many rows and widths as tiles have.
 *
 * Each keeps a tile of C in registers for all terms that it is given, so an element is one chain of
 * multiply-adds whatever the tile. */
#include "backend/cpu/microkernels.h"

#include <stdint.h>

#include "backend/cpu/sizes.h"
#include "backend/cpu/vec4.h"

enum {
    PREFETCH_A = 24, /* terms ahead, of transposed A */
    TERMS = 4,       /* of the sum, in a kernel's loop */
};

/* How many rows of C a kernel of k terms asks for in TERMS of them, in 1/65536; such that the last
 * is there in time. 0: all before. */
INLINE uint32_t ask_pace(int rows, size_t k)
{
    const size_t loops = k / TERMS, enough = 2 * (size_t)rows;
    return loops < enough ? 0 : ((uint32_t)rows << 16) * 5 / 4 / (uint32_t)min_size(loops, 1 << 16);
}

/* One kernel's body for one vector type. All loops over rows and vectors unroll: acc is registers.
 * A loop holds TERMS terms, as the steps of pointers and counters take the multipliers' time: three
 * pointers, offsets and constants reach them. C's lines, which come from far, are asked for while
 * the sum runs, now and then: asked for at once they take all the room that L1 has for what it
 * waits for, and A and B wait behind them (a tenth of the time where L3 is slow). A short sum
 * has no time for that, and they are its cost: weights' gradients of small batches. */
/* clang-format off */
#define DEFINE_BODY(NAME, TARGET, VEC, LANES, SPREAD, ADD)                                         \
    TARGET INLINE void NAME##_term(int rows, int vectors, int transposed, int later,               \
                                   const float *const a[3], const size_t next[4], const float *b,  \
                                   VEC acc[MICROKERNEL_ROWS][2]) {                                 \
        typedef VEC unaligned __attribute__((aligned(4), may_alias));                              \
        VEC x, y[2];                                                                               \
        UNROLL for (int v = 0; v < vectors; v++) {                                                 \
            y[v] = *(const unaligned *)(b + v * LANES);                                            \
        }                                                                                          \
        UNROLL for (int r = 0; r < rows; r++) {                                                    \
            if (transposed) {                                                                      \
                SPREAD(x, a[0], 0, r);                                                             \
            } else if (r % 4 == 0) {                                                               \
                SPREAD(x, a[r / 4], 0, later);                                                     \
            } else {                                                                               \
                SPREAD(x, a[r / 4], next[r % 4], later);                                           \
            }                                                                                      \
            UNROLL for (int v = 0; v < vectors; v++) {                                             \
                ADD(acc[r][v], x, y[v]);                                                           \
            }                                                                                      \
        }                                                                                          \
    }                                                                                              \
    TARGET INLINE void NAME##_body(int rows, int vectors, int transposed, size_t k,                \
                                   const float *a, size_t a_stride, const float *b, size_t ldb,    \
                                   float *c, size_t ldc, int add) {                                \
        typedef VEC unaligned __attribute__((aligned(4), may_alias));                              \
        VEC acc[MICROKERNEL_ROWS][2];                                                              \
        const float *at[3] = {a, a + 4 * a_stride, a + 8 * a_stride};                              \
        const size_t row = a_stride * sizeof *a, next[4] = {0, row, 2 * row, 3 * row};             \
        UNROLL for (int r = 0; r < rows; r++) {                                                    \
            UNROLL for (int v = 0; v < vectors; v++) {                                             \
                acc[r][v] = (VEC){0};                                                              \
            }                                                                                      \
        }                                                                                          \
        const uint32_t pace = ask_pace(rows, k);                                                   \
        for (int r = 0; r < rows && pace == 0; r++) {                                              \
            __builtin_prefetch(c + (size_t)r * ldc, 1);                                            \
            __builtin_prefetch(c + (size_t)r * ldc + vectors * LANES - 1, 1);                      \
        }                                                                                          \
        uint32_t asked = 0;                                                                        \
        for (; k >= TERMS; k -= TERMS) {                                                           \
            const float *ask = c + (asked >> 16) * ldc;                                            \
            asked = asked + pace < (uint32_t)rows << 16 ? asked + pace : 0;                        \
            __builtin_prefetch(ask, 1);                                                            \
            __builtin_prefetch(ask + vectors * LANES - 1, 1);                                      \
            UNROLL for (int later = 0; later < TERMS; later++) {                                   \
                NAME##_term(rows, vectors, transposed, later, at, next, b, acc);                   \
                if (transposed) {                                                                  \
                    __builtin_prefetch(at[0] + PREFETCH_A * a_stride);                             \
                    at[0] += a_stride;                                                             \
                }                                                                                  \
                b += ldb;                                                                          \
            }                                                                                      \
            UNROLL for (int i = 0; i < 3; i++) {                                                   \
                at[i] += transposed ? 0 : TERMS;                                                   \
            }                                                                                      \
        }                                                                                          \
        for (; k > 0; k--, b += ldb) {                                                             \
            NAME##_term(rows, vectors, transposed, 0, at, next, b, acc);                           \
            UNROLL for (int i = 0; i < 3; i++) {                                                   \
                at[i] += transposed ? a_stride : 1;                                                \
            }                                                                                      \
        }                                                                                          \
        UNROLL for (int r = 0; r < rows; r++) {                                                    \
            UNROLL for (int v = 0; v < vectors; v++) {                                             \
                unaligned *to = (unaligned *)(c + (size_t)r * ldc + v * LANES);                    \
                if (add) {                                                                         \
                    acc[r][v] = *to + acc[r][v];                                                   \
                }                                                                                  \
                *to = acc[r][v];                                                                   \
            }                                                                                      \
        }                                                                                          \
    }
/* clang-format on */

#define CASE(NAME, V, T, ROWS)                                                                     \
    case ROWS:                                                                                     \
        NAME##_body(ROWS, V, T, k, a, a_stride, b, ldb, c, ldc, add);                              \
        break;
#define CASES_3(NAME, V, T, FROM)                                                                  \
    CASE(NAME, V, T, FROM) CASE(NAME, V, T, FROM + 1) CASE(NAME, V, T, FROM + 2)
#define CASES_6(NAME, V, T)  CASES_3(NAME, V, T, 1) CASES_3(NAME, V, T, 4)
#define CASES_12(NAME, V, T) CASES_6(NAME, V, T) CASES_3(NAME, V, T, 7) CASES_3(NAME, V, T, 10)

#define DEFINE_KERNEL(NAME, TARGET, V, T, ROWS)                                                    \
    TARGET static void NAME##_##V##_##T(size_t rows, size_t k, const float *a, size_t a_stride,    \
                                        const float *b, size_t ldb, float *c, size_t ldc, int add) \
    {                                                                                              \
        switch (rows) {                                                                            \
            CASES_##ROWS(NAME, V, T)                                                               \
        }                                                                                          \
    }
/* Tiles V vectors wide with up to ROWS (6 or 12) rows. */
#define DEFINE_KERNELS(NAME, TARGET, V, ROWS)                                                      \
    DEFINE_KERNEL(NAME, TARGET, V, 0, ROWS)                                                        \
    DEFINE_KERNEL(NAME, TARGET, V, 1, ROWS)
#define KERNELS(ROWS, W0, K0, W1, K1, W2, K2)                                                      \
    {                                                                                              \
        ROWS, {W0, W1, W2},                                                                        \
        {                                                                                          \
            {K0##_0, K1##_0, K2##_0},                                                              \
            {                                                                                      \
                K0##_1, K1##_1, K2##_1                                                             \
            }                                                                                      \
        }                                                                                          \
    }

DEFINE_BODY(plain, NO_TARGET, vec4, 4, PLAIN_SPREAD, PLAIN_ADD)
DEFINE_KERNELS(plain, NO_TARGET, 1, 6)
DEFINE_KERNELS(plain, NO_TARGET, 2, 6)
static const microkernels plain_kernels = KERNELS(6, 4, plain_1, 4, plain_1, 8, plain_2);

#if defined(__x86_64__)
DEFINE_BODY(fma4, AVX2, __m128, 4, VEX_SPREAD, VEX_ADD)
DEFINE_BODY(fma8, AVX2, __m256, 8, VEX_SPREAD, VEX_ADD)
DEFINE_BODY(fma16, AVX512, __m512, 16, VEX_SPREAD, VEX_ADD)
DEFINE_KERNELS(fma4, AVX2, 1, 6)
DEFINE_KERNELS(fma8, AVX2, 1, 12)
DEFINE_KERNELS(fma8, AVX2, 2, 6)
DEFINE_KERNELS(fma16, AVX512, 1, 12)
DEFINE_KERNELS(fma16, AVX512, 2, 12)
static const microkernels avx2_kernels = KERNELS(6, 4, fma4_1, 8, fma8_1, 16, fma8_2);
static const microkernels avx512_kernels = KERNELS(12, 8, fma8_1, 16, fma16_1, 32, fma16_2);

/* The same kernels with words that are pairs of bf16: a float is moved, never computed with. */
DEFINE_BODY(dot16, AVX512_BF16, __m512, 16, VEX_SPREAD, DOT_ADD)
DEFINE_KERNELS(dot16, AVX512_BF16, 1, 12)
DEFINE_KERNELS(dot16, AVX512_BF16, 2, 12)
static const microkernels dot_kernels = KERNELS(12, 16, dot16_1, 16, dot16_1, 32, dot16_2);
#endif

const microkernels *vae_cpu_microkernels(vae_cpu_level level)
{
#if defined(__x86_64__)
    if (level != VAE_CPU_BASELINE) {
        return level >= VAE_CPU_AVX512 ? &avx512_kernels : &avx2_kernels;
    }
#endif
    (void)level;
    return &plain_kernels;
}

/* unit: what columns are rounded up to; the narrowest tile. */
static void panel_product(const microkernels *set, size_t unit, int transposed, float *c,
                          size_t ldc, const float *a, size_t lda, const float *b, size_t ldb,
                          size_t rows, size_t cols, size_t k, int add)
{
    const size_t step = ceil_div(rows, ceil_div(rows, set->rows));
    for (size_t j = 0, width; j < cols; j += width) {
        const size_t rest = ceil_div(cols - j, unit) * unit;
        int tile = 2;
        while (set->cols[tile] > rest) {
            tile--;
        }
        width = set->cols[tile];
        for (size_t r = 0; r < rows; r += step) {
            set->kernel[transposed][tile](min_size(rows - r, step), k,
                                          a + r * (transposed ? 1 : lda), lda, b + j, ldb,
                                          c + r * ldc + j, ldc, add);
        }
    }
}

void vae_cpu_panel_product(int transposed, float *c, size_t ldc, const float *a, size_t lda,
                           const float *b, size_t ldb, size_t rows, size_t cols, size_t k, int add,
                           vae_cpu_level level)
{
    panel_product(vae_cpu_microkernels(level), 8, transposed, c, ldc, a, lda, b, ldb, rows, cols, k,
                  add);
}

void vae_cpu_panel_dot(int transposed, float *c, size_t ldc, const float *a, size_t lda,
                       const float *b, size_t ldb, size_t rows, size_t cols, size_t k, int add)
{
#if defined(__x86_64__)
    panel_product(&dot_kernels, 16, transposed, c, ldc, a, lda, b, ldb, rows, cols, k, add);
#else
    (void)transposed, (void)c, (void)ldc, (void)a, (void)lda, (void)b, (void)ldb;
    (void)rows, (void)cols, (void)k, (void)add; /* no such level */
#endif
}
