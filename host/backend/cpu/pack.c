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

void vae_cpu_copy_block(float *to, size_t ldt, const float *from, size_t ldf, size_t rows,
                        size_t cols)
{
    for (size_t r = 0; r < rows; r++, to += ldt, from += ldf) {
        copy_row(to, from, cols);
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

/* One cache line of every row of b at a time, so that the lines of `to` are whole before they leave
 * L1. */
void vae_cpu_pack_transposed(float *to, size_t width, const float *b, size_t ldb, size_t cols,
                             size_t k, vae_cpu_level level)
{
    if (level >= VAE_CPU_AVX512 && width % 16 == 0) {
        vae_cpu_pack_words(to, width, b, ldb, cols, width, k);
        return;
    }
    for (size_t p0 = 0; p0 < k; p0 += 16) {
        size_t p1 = min_size(k, p0 + 16), j = 0;
        for (size_t i = 0; i < cols && p1 < k; i++) {
            __builtin_prefetch(b + i * ldb + min_size(k - 1, p0 + PREFETCH_TERMS));
        }
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
#define WIDE_TARGET __attribute__((target("avx512f,avx512bw")))

/* Words 4q .. 4q+3 of rows i, 4+i, 8+i, 12+i of b. */
WIDE_TARGET INLINE __m512i quads(const float *b, size_t ldb)
{
    __m512i x = _mm512_castsi128_si512(_mm_loadu_si128((const void *)b));
    x = _mm512_inserti32x4(x, _mm_loadu_si128((const void *)(b + 4 * ldb)), 1);
    x = _mm512_inserti32x4(x, _mm_loadu_si128((const void *)(b + 8 * ldb)), 2);
    return _mm512_inserti32x4(x, _mm_loadu_si128((const void *)(b + 12 * ldb)), 3);
}

/* to: (16,16) is the transpose of b: (16,16). */
WIDE_TARGET INLINE void transpose_16x16(float *to, size_t ldt, const float *b, size_t ldb)
{
    for (size_t q = 0; q < 16; q += 4, to += 4 * ldt, b += 4) {
        const __m512i x0 = quads(b, ldb), x1 = quads(b + ldb, ldb);
        const __m512i x2 = quads(b + 2 * ldb, ldb), x3 = quads(b + 3 * ldb, ldb);
        const __m512i a = _mm512_unpacklo_epi32(x0, x1), c = _mm512_unpacklo_epi32(x2, x3);
        const __m512i d = _mm512_unpackhi_epi32(x0, x1), e = _mm512_unpackhi_epi32(x2, x3);
        _mm512_storeu_si512(to, _mm512_unpacklo_epi64(a, c));
        _mm512_storeu_si512(to + ldt, _mm512_unpackhi_epi64(a, c));
        _mm512_storeu_si512(to + 2 * ldt, _mm512_unpacklo_epi64(d, e));
        _mm512_storeu_si512(to + 3 * ldt, _mm512_unpackhi_epi64(d, e));
    }
}

/* The same of what is left of b, (cols,k), filled up with zeros: k rows of `to` are written. */
WIDE_TARGET static void transpose_rest(float *to, size_t ldt, const float *b, size_t ldb,
                                       size_t cols, size_t k)
{
    float from[16 * 16], made[16 * 16];
    for (size_t i = 0; i < 16; i++) {
        const __mmask16 mask = (__mmask16)(i < cols ? (1u << k) - 1 : 0);
        _mm512_storeu_ps(from + 16 * i, _mm512_maskz_loadu_ps(mask, b + (i < cols ? i : 0) * ldb));
    }
    transpose_16x16(made, 16, from, 16);
    for (size_t i = 0; i < k; i++) {
        memcpy(to + i * ldt, made + 16 * i, 16 * sizeof *to);
    }
}

WIDE_TARGET void vae_cpu_pack_words(float *to, size_t ldt, const float *b, size_t ldb, size_t cols,
                                    size_t width, size_t k)
{
    for (size_t p = 0; p < k; p += 16) {
        const size_t some = min_size(k - p, 16);
        for (size_t j = 0; j < width; j += 16) {
            const float *from = b + j * ldb + p;
            float *at = to + p * ldt + j;
            for (size_t i = 0; j + i < cols && i < 16 && p + 16 < k; i++) {
                __builtin_prefetch(from + i * ldb + min_size(k - 1 - p, PREFETCH_TERMS));
            }
            if (some == 16 && j + 16 <= cols) {
                transpose_16x16(at, ldt, from, ldb);
            } else {
                transpose_rest(at, ldt, from, ldb, cols > j ? min_size(cols - j, 16) : 0, some);
            }
        }
    }
}

WIDE_TARGET void vae_cpu_pack_pairs(float *to, size_t ldt, size_t apart, const uint16_t *b,
                                    size_t ldb, size_t cols, size_t width, size_t k)
{
#define PAIR(i)  (i), 32 + (i)
#define PAIRS(i) PAIR(i), PAIR(i + 1), PAIR(i + 2), PAIR(i + 3)
    static const uint16_t order[2][32] = {{PAIRS(0), PAIRS(4), PAIRS(8), PAIRS(12)},
                                          {PAIRS(16), PAIRS(20), PAIRS(24), PAIRS(28)}};
    const __m512i low = _mm512_loadu_si512(order[0]), high = _mm512_loadu_si512(order[1]);
    const size_t whole = min_size(cols, width) / 32 * 32;
    for (size_t p = 0; p < k; p += 2, to += ldt, b += 2 * ldb) {
        const bool both = p + 1 < k;
        const uint16_t *next = both ? b + ldb : b;
        for (size_t j = 0; j < cols && p + PREFETCH_ROWS + 1 < k; j += 32) {
            __builtin_prefetch(b + PREFETCH_ROWS * ldb + j);
            __builtin_prefetch(b + (PREFETCH_ROWS + 1) * ldb + j);
        }
        size_t j = 0;
        float *at = to;
        for (; j < whole && both; j += 32, at += apart) {
            const __m512i x = _mm512_loadu_si512(b + j), y = _mm512_loadu_si512(next + j);
            _mm512_storeu_si512(at, _mm512_permutex2var_epi16(x, low, y));
            _mm512_storeu_si512(at + 16, _mm512_permutex2var_epi16(x, high, y));
        }
        for (; j < width; j += 32, at += apart) {
            const size_t some = min_size(cols > j ? cols - j : 0, 32), left = width - j;
            const __mmask32 mask = some < 32 ? (1u << some) - 1 : UINT32_MAX;
            const __m512i x = _mm512_maskz_loadu_epi16(mask, b + j);
            const __m512i y = _mm512_maskz_loadu_epi16(both ? mask : 0, next + j);
            _mm512_storeu_si512(at, _mm512_permutex2var_epi16(x, low, y));
            if (left > 16) {
                _mm512_storeu_si512(at + 16, _mm512_permutex2var_epi16(x, high, y));
            }
        }
    }
}
#else /* where words are no pairs */
void vae_cpu_pack_words(float *to, size_t ldt, const float *b, size_t ldb, size_t cols,
                        size_t width, size_t k)
{
    (void)to, (void)ldt, (void)b, (void)ldb, (void)cols, (void)width, (void)k;
}

void vae_cpu_pack_pairs(float *to, size_t ldt, size_t apart, const uint16_t *b, size_t ldb,
                        size_t cols, size_t width, size_t k)
{
    (void)to, (void)ldt, (void)apart, (void)b, (void)ldb, (void)cols, (void)width, (void)k;
}
#endif
