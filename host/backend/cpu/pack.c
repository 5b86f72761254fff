/* Packing: rows copied or transposed, four or more words at a time. */
#include "backend/cpu/pack.h"

#include <stdbool.h>
#include <string.h>

#include "backend/cpu/sizes.h"
#include "backend/cpu/vec4.h"

enum {
    PREFETCH_ROWS = 24,  /* how far ahead of a strided read: the hardware stops at a page's end */
    PREFETCH_TERMS = 48, /* the same along a row, where too many rows are read at once */
    WHOLE = 32,          /* columns that are most often packed */
};

INLINE void copy_row(float *to, const float *from, size_t n)
{
    size_t j = 0;
    for (; j + 4 <= n; j += 4) {
        *(vec4 *)(to + j) = *(const vec4 *)(from + j);
    }
    for (; j < n; j++) {
        to[j] = from[j];
    }
}

void vae_cpu_pack_rows(float *to, size_t width, const float *b, size_t ldb, size_t cols, size_t k)
{
    for (size_t p = 0; p < k; p++, to += width, b += ldb) {
        for (size_t j = 0; j < cols && p + PREFETCH_ROWS < k; j += 16) {
            __builtin_prefetch(b + PREFETCH_ROWS * ldb + j);
        }
        if (cols == WHOLE && width == WHOLE) {
            memcpy(to, b, WHOLE * sizeof *to); /* a constant: no loop */
            continue;
        }
        copy_row(to, b, cols);
        for (size_t j = cols; j < width; j++) {
            to[j] = 0.0f;
        }
    }
}

void vae_cpu_pack_strips(float *to, size_t width, size_t apart, const float *b, size_t ldb,
                         size_t cols, size_t k)
{
    const size_t whole = cols / width * width;
    for (size_t p = 0; p < k; p++, to += width, b += ldb) {
        float *at = to;
        for (size_t j = 0; j < whole; j += width, at += apart) {
            copy_row(at, b + j, width);
        }
        for (size_t j = whole; j < whole + width && whole < cols; j++) {
            at[j - whole] = j < cols ? b[j] : 0.0f;
        }
    }
}

/* to: (4,16) with ldt is the transpose of b (16,4): lane l of four registers gets four terms of rows
 * 4l .. 4l+3, and each lane is transposed by itself. */
#if defined(__x86_64__)
AVX512 INLINE void transpose_16x4(float *to, size_t ldt, const float *b, size_t ldb)
{
    __m512 x[4];
    UNROLL for (size_t i = 0; i < 4; i++)
    {
        x[i] = _mm512_castps128_ps512(_mm_loadu_ps(b + i * ldb));
        x[i] = _mm512_insertf32x4(x[i], _mm_loadu_ps(b + (4 + i) * ldb), 1);
        x[i] = _mm512_insertf32x4(x[i], _mm_loadu_ps(b + (8 + i) * ldb), 2);
        x[i] = _mm512_insertf32x4(x[i], _mm_loadu_ps(b + (12 + i) * ldb), 3);
    }
    const __m512 low0 = _mm512_unpacklo_ps(x[0], x[1]), low1 = _mm512_unpacklo_ps(x[2], x[3]);
    const __m512 high0 = _mm512_unpackhi_ps(x[0], x[1]), high1 = _mm512_unpackhi_ps(x[2], x[3]);
    _mm512_storeu_ps(to, _mm512_shuffle_ps(low0, low1, 0x44));
    _mm512_storeu_ps(to + ldt, _mm512_shuffle_ps(low0, low1, 0xEE));
    _mm512_storeu_ps(to + 2 * ldt, _mm512_shuffle_ps(high0, high1, 0x44));
    _mm512_storeu_ps(to + 3 * ldt, _mm512_shuffle_ps(high0, high1, 0xEE));
}

/* Of pack_transposed's columns as many as can be had sixteen at a time, terms p0 .. p1-1, at most a
 * line; returns how many. */
AVX512 static size_t transpose_16(float *to, size_t width, const float *b, size_t ldb, size_t cols,
                                  size_t p0, size_t p1)
{
    size_t j = 0;
    for (; j + 16 <= cols && p1 - p0 == 16; j += 16) {
        UNROLL for (size_t p = 0; p < 16; p += 4)
        {
            transpose_16x4(to + (p0 + p) * width + j, width, b + j * ldb + p0 + p, ldb);
        }
    }
    return j;
}
#else
static size_t transpose_16(float *to, size_t width, const float *b, size_t ldb, size_t cols,
                           size_t p0, size_t p1)
{
    (void)to, (void)width, (void)b, (void)ldb, (void)cols, (void)p0, (void)p1;
    return 0;
}
#endif

/* One cache line of every row of b at a time, so that the lines of `to` are whole before they leave
 * L1. */
void vae_cpu_pack_transposed(float *to, size_t width, const float *b, size_t ldb, size_t cols,
                             size_t k, vae_cpu_level level)
{
    for (size_t p0 = 0; p0 < k; p0 += 16) {
        const size_t p1 = min_size(k, p0 + 16);
        for (size_t i = 0; i < cols && p1 < k; i++) {
            __builtin_prefetch(b + i * ldb + min_size(k - 1, p0 + PREFETCH_TERMS));
        }
        size_t j = level >= VAE_CPU_AVX512 ? transpose_16(to, width, b, ldb, cols, p0, p1) : 0;
        for (; j + 4 <= cols; j += 4) {
            size_t p = p0;
            for (; p + 4 <= p1; p += 4) {
                transpose_4x4(to + p * width + j, width, b + j * ldb + p, ldb);
            }
            for (; p < p1; p++) {
                for (size_t i = j; i < j + 4; i++) {
                    to[p * width + i] = b[i * ldb + p];
                }
            }
        }
        for (; j < width; j++) {
            for (size_t p = p0; p < p1; p++) {
                to[p * width + j] = j < cols ? b[j * ldb + p] : 0.0f;
            }
        }
    }
}

#if defined(__x86_64__)
__attribute__((target("avx512f,avx512bw"))) void vae_cpu_pack_pairs(float *to, size_t ldt,
                                                                    const uint16_t *b, size_t ldb,
                                                                    size_t cols, size_t width,
                                                                    size_t k)
{
    uint16_t order[2][32];
    for (uint16_t j = 0; j < 64; j++) {
        order[j / 32][j % 32] = (uint16_t)(j / 2 + j % 2 * 32);
    }
    const __m512i low = _mm512_loadu_si512(order[0]), high = _mm512_loadu_si512(order[1]);
    for (size_t p = 0; p < k; p += 2, to += ldt, b += 2 * ldb) {
        const uint16_t *next = p + 1 < k ? b + ldb : b;
        const bool ahead = p + PREFETCH_ROWS + 1 < k;
        for (size_t j = 0; j < width; j += 32) {
            const size_t some = min_size(cols > j ? cols - j : 0, 32), left = width - j;
            const __mmask32 mask = some < 32 ? (1u << some) - 1 : UINT32_MAX;
            if (ahead) {
                __builtin_prefetch(b + PREFETCH_ROWS * ldb + j);
                __builtin_prefetch(b + (PREFETCH_ROWS + 1) * ldb + j);
            }
            const __m512i x = _mm512_maskz_loadu_epi16(mask, b + j);
            const __m512i y = _mm512_maskz_loadu_epi16(p + 1 < k ? mask : 0, next + j);
            _mm512_storeu_si512(to + j, _mm512_permutex2var_epi16(x, low, y));
            if (left > 16) {
                _mm512_storeu_si512(to + j + 16, _mm512_permutex2var_epi16(x, high, y));
            }
        }
    }
}
#else /* where words are no pairs */
void vae_cpu_pack_pairs(float *to, size_t ldt, const uint16_t *b, size_t ldb, size_t cols,
                        size_t width, size_t k)
{
    (void)to, (void)ldt, (void)b, (void)ldb, (void)cols, (void)width, (void)k;
}
#endif
