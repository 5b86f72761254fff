/* Products of bf16 on the CPU, summed in floats.
 *
 * A task is a part of C, MATMUL_BF16_ROWS * MATMUL_BF16_COLS floats at most, summed up in its own
 * memory, some hundred terms at a time, and hands to the epilogue as floats. What it multiplies are
 * words: at level avx512_bf16 pairs of bf16, two terms of the sum each, of which one instruction
 * adds both products to a float; at the levels below, the values as floats. Then the kernels of
 * matmul.c are used as they are. At level amx_bf16 the pairs are multiplied as tiles (tiles.h). */
#include <string.h>

#include "backend/cpu/kernels.h"
#include "backend/cpu/matmul.h"
#include "backend/cpu/sizes.h"
#include "backend/cpu/tiles.h"
#include "base/pool.h"

#if defined(__x86_64__)
#include <immintrin.h>
#endif

enum {
    PANEL = MATMUL_PANEL,
    WORDS = MATMUL_BF16_WORDS,
    ROW_UNIT = 12,        /* of the kernels' tiles */
    AHEAD = 24,           /* rows, of a read across rows: the hardware stops at a page's end */
    SERIAL_WORK = 100000, /* multiply-adds that take less time than waking a thread (2 us) */
};

typedef struct {
    matmul_form form;
    matmul_bf16 a, b;
    size_t m, n, k;
    matmul_epilogue *epilogue;
    void *ctx;
    vae_cpu_level level;
    const cpu_kernels *kernels;
    size_t pair;   /* terms in a word */
    bool tiles;    /* words are filled up with zeros to whole tiles, rows of A with whatever */
    size_t k_step; /* terms at a time, a multiple of that: decides the bits */
    size_t row_step, col_step, col_tasks;
    char *room;
} job;

/* A thread's room. */
typedef struct {
    float c[MATMUL_BF16_ROWS * MATMUL_BF16_COLS];
    float a[MATMUL_BF16_ROWS * WORDS];    /* (rows,words), or under TN (words,rows) */
    float b[PANEL * WORDS];               /* (words,PANEL) */
    float flat[MATMUL_BF16_ROWS * WORDS]; /* what b, or of tiles a, is the transpose of */
} task_room;
_Static_assert(sizeof(task_room) == MATMUL_BF16_ROOM, "as matmul.h says");

/* ---- words ---- */

/* to: (words,ldt) of b: (k,cols), word j of a pair of rows being (first[j], second[j]), the second
 * zero where there is none; columns up to `width` are zero. */
#if defined(__x86_64__)
__attribute__((target("avx512f,avx512bw"))) static void
pair_rows(float *to, size_t ldt, const uint16_t *b, size_t ldb, size_t cols, size_t width, size_t k)
{
    uint16_t order[2][32];
    for (uint16_t j = 0; j < 64; j++) {
        order[j / 32][j % 32] = (uint16_t)(j / 2 + j % 2 * 32);
    }
    const __m512i low = _mm512_loadu_si512(order[0]), high = _mm512_loadu_si512(order[1]);
    for (size_t p = 0; p < k; p += 2, to += ldt, b += 2 * ldb) {
        for (size_t j = 0; j < width; j += 32) {
            if (p + AHEAD < k) {
                __builtin_prefetch(b + AHEAD * ldb + j);
                __builtin_prefetch(b + (AHEAD + 1) * ldb + j);
            }
            const size_t some = min_size(cols > j ? cols - j : 0, 32), left = width - j;
            const __mmask32 mask = (__mmask32)((1ull << some) - 1);
            const uint32_t out = left < 32 ? (1u << left) - 1 : UINT32_MAX;
            const __m512i x = _mm512_maskz_loadu_epi16(mask, b + j);
            const __m512i y = _mm512_maskz_loadu_epi16(p + 1 < k ? mask : 0, b + ldb + j);
            _mm512_mask_storeu_epi32(to + j, (__mmask16)out, _mm512_permutex2var_epi16(x, low, y));
            _mm512_mask_storeu_epi32(to + j + 16, (__mmask16)(out >> 16),
                                     _mm512_permutex2var_epi16(x, high, y));
        }
    }
}
#else /* where words are no pairs */
static void pair_rows(float *to, size_t ldt, const uint16_t *b, size_t ldb, size_t cols,
                      size_t width, size_t k)
{
    (void)to, (void)ldt, (void)b, (void)ldb, (void)cols, (void)width, (void)k;
}
#endif

/* to: (k,ldt) floats of b: (k,cols); columns up to `width` are zero. */
static void widen_rows(const job *q, float *to, size_t ldt, const uint16_t *b, size_t ldb,
                       size_t cols, size_t width, size_t k)
{
    for (size_t p = 0; p < k; p++, to += ldt, b += ldb) {
        q->kernels->widen(to, b, cols);
        memset(to + cols, 0, (width - cols) * sizeof *to);
    }
}

/* Terms p0 .. p0+k-1 of `rows` rows of A from row0 on, as words; *lda: from one row to the next,
 * under TN from one word to the next. */
static const float *words_of_a(const job *q, float *to, float *flat, size_t *lda, size_t row0,
                               size_t rows, size_t p0, size_t k)
{
    if (q->form == MATMUL_TN) {
        const uint16_t *a = q->a.data + p0 * q->a.ld + row0;
        *lda = rows;
        if (q->tiles) { /* their rows are A's */
            *lda = WORDS;
            pair_rows(flat, rows, a, q->a.ld, rows, rows, k);
            vae_cpu_pack_transposed(to, WORDS, flat, rows, ceil_div(k, 2), rows);
        } else if (q->pair == 2) {
            pair_rows(to, rows, a, q->a.ld, rows, rows, k);
        } else {
            widen_rows(q, to, rows, a, q->a.ld, rows, rows, k);
        }
        return to;
    }
    const uint16_t *a = q->a.data + row0 * q->a.ld + p0;
    const bool whole = !q->tiles || (k % (2 * TILE_WORDS) == 0 && rows % (2 * TILE_ROWS) == 0);
    if (q->pair == 2 && whole) { /* pairs lie there as they are */
        *lda = q->a.ld / 2;
        return (const float *)(const void *)a;
    }
    *lda = WORDS;
    if (q->pair == 2) {
        const size_t bytes = k * sizeof *a, most = tile_words(ceil_div(k, 2)) * sizeof *to;
        for (size_t r = 0; r < rows; r++) {
            char *row = (char *)(to + r * WORDS);
            memcpy(row, a + r * q->a.ld, bytes);
            memset(row + bytes, 0, most - bytes);
        }
    } else {
        widen_rows(q, to, WORDS, a, q->a.ld, k, k, rows);
    }
    return to;
}

/* The same of columns col0 .. of B, cols <= PANEL, to room->b. */
static void words_of_b(const job *q, task_room *room, size_t col0, size_t cols, size_t p0, size_t k)
{
    if (q->form == MATMUL_NT) {
        const uint16_t *b = q->b.data + col0 * q->b.ld + p0;
        if (q->pair == 2) {
            vae_cpu_pack_transposed(room->b, PANEL, (const float *)(const void *)b, q->b.ld / 2,
                                    cols, ceil_div(k, 2));
        } else {
            widen_rows(q, room->flat, WORDS, b, q->b.ld, k, k, cols);
            vae_cpu_pack_transposed(room->b, PANEL, room->flat, WORDS, cols, k);
        }
        return;
    }
    const uint16_t *b = q->b.data + p0 * q->b.ld + col0;
    if (q->pair == 2) {
        pair_rows(room->b, PANEL, b, q->b.ld, cols, PANEL, k);
    } else {
        widen_rows(q, room->b, PANEL, b, q->b.ld, cols, PANEL, k);
    }
}

/* ---- tasks ---- */

static void run_task(const job *q, size_t task, task_room *room)
{
    const int transposed = q->form == MATMUL_TN;
    const size_t row0 = task / q->col_tasks * q->row_step, col0 = task % q->col_tasks * q->col_step;
    const size_t rows = min_size(q->m - row0, q->row_step),
                 cols = min_size(q->n - col0, q->col_step);
    size_t p0 = 0, lda;
    do {
        const size_t k = min_size(q->k - p0, q->k_step), words = ceil_div(k, q->pair);
        const float *a = words_of_a(q, room->a, room->flat, &lda, row0, rows, p0, k);
        for (size_t j = 0; j < cols; j += PANEL) {
            const size_t some = min_size(cols - j, PANEL);
            words_of_b(q, room, col0 + j, some, p0, k);
            if (q->tiles) {
                const size_t whole = tile_words(words);
                memset(room->b + words * PANEL, 0, (whole - words) * PANEL * sizeof *room->b);
                tile_panel(room->c + j, q->col_step, a, lda, room->b, rows, whole, p0 > 0);
            } else if (q->pair == 2) {
                vae_cpu_panel_dot(transposed, room->c + j, q->col_step, a, lda, room->b, PANEL,
                                  rows, some, words, p0 > 0);
            } else {
                vae_cpu_panel_product(transposed, room->c + j, q->col_step, a, lda, room->b, PANEL,
                                      rows, some, words, p0 > 0, q->level);
            }
        }
        p0 += k;
    } while (p0 < q->k);
    q->epilogue(q->ctx, room->c, q->col_step, row0, col0, rows, cols);
}

static void run_tasks(void *ctx, int thread, size_t first, size_t end)
{
    const job *q = ctx;
    if (q->tiles) {
        tile_begin();
    }
    for (size_t task = first; task < end; task++) {
        run_task(q, task, (task_room *)(void *)(q->room + (size_t)thread * MATMUL_BF16_ROOM));
    }
    if (q->tiles) {
        tile_end();
    }
}

/* Parts of C: as large as the room, but as many as keep the threads busy, first by fewer columns:
 * those cost reading A again, fewer rows packing B again. Where A lies there as words, which costs
 * nothing, a part is narrow and high. */
static size_t plan_tasks(job *q, size_t threads)
{
    const size_t narrow = q->pair == 2 && !q->tiles && q->form != MATMUL_TN ? 2 : 1;
    const size_t unit = q->tiles ? 2 * TILE_ROWS : ROW_UNIT;
    size_t rows = MATMUL_BF16_ROWS * narrow, cols = MATMUL_BF16_COLS / narrow;
    for (;;) {
        q->row_step = ceil_div(ceil_div(q->m, ceil_div(q->m, rows)), unit) * unit;
        q->col_step = ceil_div(ceil_div(q->n, ceil_div(q->n, cols)), PANEL) * PANEL;
        q->col_tasks = ceil_div(q->n, q->col_step);
        const size_t tasks = ceil_div(q->m, q->row_step) * q->col_tasks;
        if (tasks >= 4 * threads || (cols == PANEL && rows <= 4 * ROW_UNIT)) {
            return tasks;
        }
        if (cols > PANEL) {
            cols /= 2;
        } else {
            rows /= 2;
        }
    }
}

void vae_cpu_matmul_bf16(matmul_form form, matmul_bf16 a, matmul_bf16 b, size_t m, size_t n,
                         size_t k, matmul_epilogue *epilogue, void *ctx, int threads,
                         vae_cpu_level level, void *room)
{
    if (m == 0 || n == 0) {
        return;
    }
    job q = {.form = form,
             .a = a,
             .b = b,
             .m = m,
             .n = n,
             .k = k,
             .epilogue = epilogue,
             .ctx = ctx,
             .level = level,
             .kernels = vae_cpu_kernels(level),
             .pair = level >= VAE_CPU_AVX512_BF16 ? 2 : 1,
             .tiles = level >= VAE_CPU_AMX_BF16,
             .room = room};
    const size_t most = WORDS * q.pair, unit = q.tiles ? 2 * TILE_WORDS : q.pair;
    q.k_step = k > 0 ? ceil_div(ceil_div(k, ceil_div(k, most)), unit) * unit : 1;
    const int some = threads < 1 || m * n * k < SERIAL_WORK ? 1 : threads;
    vae_parallel(some, plan_tasks(&q, (size_t)some), 1, run_tasks, &q);
}
