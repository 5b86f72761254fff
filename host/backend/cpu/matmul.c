/* Matrix products on the CPU.
 *
 * Why not OpenBLAS: it divides K and the edges by the number of threads, so its bits follow that
 * number, and it packs both operands on every call, which at batch 20 costs as much as the product.
 * Here one kernel holds a tile of C in registers for a whole block of K. Every element of C is the
 * same chain of multiply-adds whatever the tile, the task or the thread that it falls to: fused
 * ones at the levels avx2 and avx512, whose bits are the same; at baseline each rounds twice, and
 * its bits are its own. */
#include "backend/cpu/matmul.h"

#include <pthread.h>
#include <stdbool.h>
#include <string.h>
#include <unistd.h>

#include "backend/cpu/pack.h"
#include "backend/cpu/sizes.h"
#include "backend/cpu/sparse.h"
#include "backend/cpu/vec4.h"
#include "base/pool.h"

enum {
    K_BLOCK = 400,        /* the most terms summed in registers at a time: decides the bits */
    MAX_ROWS = 12,        /* of a kernel's tile */
    MAX_COLS = 32,        /* of a kernel's tile */
    TASK_ROWS = 192,      /* of A at least that share one packed strip of B, where A has as many */
    PART_K = 1024,        /* terms that all threads sum up before any goes on, about */
    ROOM = SPARSE_SHARED, /* floats in which operands are packed once */
    SHARED_ROWS = 2048,   /* of A from which B is packed once for all tasks */
    LONG_SUM = 64,        /* TN: terms from which A is */
    UNPACKED_ROWS = 36,   /* NN, TN: B is read in place up to here, for it is read 3 times */
    PREFETCH_A = 24,      /* terms ahead, of transposed A */
    PACKED_TERMS = 32,    /* of A and B, that a thread packs at a time */
    TERMS = 4,            /* of the sum, in a kernel's loop */
    SERIAL_WORK = 100000, /* multiply-adds that take less time than waking a thread (2 us) */
};

_Static_assert(K_BLOCK <= (int)SPARSE_TERMS, "zeros are left out of as many terms");

/* A tile of C (rows, the kernel's width) is set to, or with `add` increased by, the sum over k of
 * A's column times b's row; b (k,width). A's element is a[r * a_stride + p], or for the kernels of
 * transposed A a[p * a_stride + r]. */
typedef void tile_kernel(size_t rows, size_t k, const float *a, size_t a_stride, const float *b,
                         size_t ldb, float *c, size_t ldc, int add);

typedef struct {
    size_t rows, cols[3];      /* of a tile: the most rows; the three widths, ascending */
    tile_kernel *kernel[2][3]; /* [A transposed][width] */
} isa;

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
                                   VEC acc[MAX_ROWS][2]) {                                         \
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
        VEC acc[MAX_ROWS][2];                                                                      \
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
#define ISA(ROWS, W0, K0, W1, K1, W2, K2)                                                          \
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
static const isa plain_isa = ISA(6, 4, plain_1, 4, plain_1, 8, plain_2);

#if defined(__x86_64__)
DEFINE_BODY(fma4, AVX2, __m128, 4, VEX_SPREAD, VEX_ADD)
DEFINE_BODY(fma8, AVX2, __m256, 8, VEX_SPREAD, VEX_ADD)
DEFINE_BODY(fma16, AVX512, __m512, 16, VEX_SPREAD, VEX_ADD)
DEFINE_KERNELS(fma4, AVX2, 1, 6)
DEFINE_KERNELS(fma8, AVX2, 1, 12)
DEFINE_KERNELS(fma8, AVX2, 2, 6)
DEFINE_KERNELS(fma16, AVX512, 1, 12)
DEFINE_KERNELS(fma16, AVX512, 2, 12)
static const isa avx2_isa = ISA(6, 4, fma4_1, 8, fma8_1, 16, fma8_2);
static const isa avx512_isa = ISA(12, 8, fma8_1, 16, fma16_1, 32, fma16_2);

/* The same kernels with words that are pairs of bf16: a float is moved, never computed with. */
DEFINE_BODY(dot16, AVX512_BF16, __m512, 16, VEX_SPREAD, DOT_ADD)
DEFINE_KERNELS(dot16, AVX512_BF16, 1, 12)
DEFINE_KERNELS(dot16, AVX512_BF16, 2, 12)
static const isa dot_isa = ISA(12, 16, dot16_1, 16, dot16_1, 32, dot16_2);
#endif

static const isa *isa_of(vae_cpu_level level)
{
#if defined(__x86_64__)
    if (level != VAE_CPU_BASELINE) {
        return level >= VAE_CPU_AVX512 ? &avx512_isa : &avx2_isa;
    }
#endif
    (void)level;
    return &plain_isa;
}

typedef struct {
    matmul_form form;
    vae_cpu_level level;
    const isa *isa;
    float *c;
    const float *a, *b;
    size_t ldc, lda, ldb, m, n, k;
    matmul_epilogue *epilogue;
    void *ctx;
    size_t k_step;   /* terms summed in registers at a time */
    size_t row_step; /* a task's part of C: so many rows, a tile's width of columns */
    int threads;
    float *room; /* ROOM floats for what is packed once for all tasks, or NULL */
} matmul_job;

/* What all tasks are to do before any goes on: so many terms of the sum for a part of C. */
typedef struct {
    const matmul_job *job;
    size_t p0, k;
    size_t row0, rows, col0, cols;
    size_t col_tasks;
    /* Operands that are packed once for all tasks, or NULL: transposed A in strips of a tile's
     * rows, B in strips of the widest tile's columns, of the part's terms each. */
    float *a, *b;
} matmul_part;

/* One pass of kernels: `rows` rows by one tile's width over one block of K. */
typedef struct {
    size_t row0, rows, col0, cols; /* of C; cols <= width */
    size_t p0, k;                  /* of the sum */
    size_t width;
    tile_kernel *kernel;
    const float *b; /* (k,width) with row stride ldb */
    size_t ldb;
    const float *next; /* the rows of B that are read after these, next_k of them, next_ld apart */
    size_t next_k, next_ld;
} strip;

/* Asks for what is packed next, a part of it for each of a strip's tiles: with rows far apart the
 * hardware does not, and packing would wait for them. */
INLINE void fetch_next(const strip *s, size_t row, size_t rows)
{
    const size_t end = s->next_k * (row + rows) / s->rows;
    for (size_t p = s->next_k * row / s->rows; p < end; p++) {
        __builtin_prefetch(s->next + p * s->next_ld, 0, 2);
        __builtin_prefetch(s->next + p * s->next_ld + s->width - 1, 0, 2);
    }
}

/* Floats from a strip that is packed for all tasks to the next. Were it a power of two, a term of
 * all of them would share few lines of L1. */
static size_t strip_size(const matmul_part *part, size_t width)
{
    return part->k * width + 16;
}

/* Where such a strip has term p0 of row or column i, counted from the part's first. */
static float *place_of(const matmul_part *part, float *strips, size_t width, size_t i, size_t p0)
{
    return strips + i / width * strip_size(part, width) + (p0 - part->p0) * width + i % width;
}

static void run_strip(const matmul_part *part, const strip *s)
{
    const matmul_job *job = part->job;
    const int transposed = job->form == MATMUL_TN;
    /* 20 rows are faster as 10 + 10 */
    const size_t even = ceil_div(s->rows, ceil_div(s->rows, job->isa->rows));
    const size_t step = part->a != NULL ? job->isa->rows : even;
    const size_t lda = part->a != NULL ? step : job->lda;
    for (size_t r0 = 0; r0 < s->rows; r0 += step) {
        const size_t rows = min_size(s->rows - r0, step), row = s->row0 + r0;
        fetch_next(s, r0, rows);
        const float *a = part->a != NULL ? place_of(part, part->a, step, row - part->row0, s->p0)
                         : transposed    ? job->a + s->p0 * lda + row
                                         : job->a + row * lda + s->p0;
        float *c = job->c + row * job->ldc + s->col0;
        int add = s->p0 > 0;
        if (s->cols == s->width) {
            s->kernel(rows, s->k, a, lda, s->b, s->ldb, c, job->ldc, add);
            continue;
        }
        float tile[MAX_ROWS * MAX_COLS];
        s->kernel(rows, s->k, a, lda, s->b, s->ldb, tile, s->width, 0);
        for (size_t r = 0; r < rows; r++) {
            for (size_t j = 0; j < s->cols; j++) {
                float x = tile[r * s->width + j];
                c[r * job->ldc + j] = add ? c[r * job->ldc + j] + x : x;
            }
        }
    }
}

/* to: (k,width) is the strip's part of B. */
static void pack_strip(const matmul_job *job, const strip *s, float *to)
{
    if (job->form == MATMUL_NT) {
        vae_cpu_pack_transposed(to, s->width, job->b + s->col0 * job->ldb + s->p0, job->ldb,
                                s->cols, s->k, job->level);
    } else {
        vae_cpu_pack_rows(to, s->width, job->b + s->p0 * job->ldb + s->col0, job->ldb, s->cols,
                          s->k);
    }
}

/* Sets the strip's columns: those from col0 on up to col1, or a tile's width of them. */
static void choose_tile(const matmul_job *job, strip *s, size_t col1)
{
    const isa *set = job->isa;
    const size_t rest = col1 - s->col0;
    int tile = rest > set->cols[0];
    if (rest > set->cols[2] - set->cols[0]) {
        tile = 2;
    }
    s->width = set->cols[tile];
    s->cols = min_size(rest, s->width);
    s->kernel = set->kernel[job->form == MATMUL_TN][tile];
}

/* Sets s->b, ldb: the strip's columns of B, in `own` where each task packs and that pays. */
static void prepare_b(const matmul_part *part, strip *s, float *own)
{
    const matmul_job *job = part->job;
    s->b = own;
    s->ldb = s->width;
    if (part->b != NULL) {
        s->ldb = job->isa->cols[2];
        s->b = place_of(part, part->b, s->ldb, s->col0 - part->col0, s->p0);
    } else if (job->form != MATMUL_NT && s->cols == s->width && s->rows <= UNPACKED_ROWS) {
        s->b = job->b + s->p0 * job->ldb + s->col0;
        s->ldb = job->ldb;
    } else {
        pack_strip(job, s, own);
    }
}

/* Sets s->next, next_k, where rows are packed and strips are whole: those of the next terms of the
 * part, else the first of the next columns, which are the next task's. */
static void find_next(const matmul_part *part, strip *s)
{
    const matmul_job *job = part->job;
    const size_t end = part->p0 + part->k, whole = job->isa->cols[2];
    strip next = *s;
    s->next_k = 0;
    if ((part->b == NULL && (job->form == MATMUL_NT || s->rows <= UNPACKED_ROWS)) ||
        s->cols < whole) {
        return;
    }
    next.p0 += s->k;
    if (next.p0 == end) {
        next.p0 = part->p0;
        next.col0 += s->cols;
    }
    if (next.col0 + whole <= part->col0 + part->cols) {
        s->next_k = min_size(end - next.p0, job->k_step);
        s->next_ld = part->b != NULL ? whole : job->ldb;
        s->next = part->b != NULL ? place_of(part, part->b, whole, next.col0 - part->col0, next.p0)
                                  : job->b + next.p0 * job->ldb + next.col0;
    }
}

/* One task's part of C over the part's terms. */
static void run_task(const matmul_part *part, size_t task)
{
    float own[K_BLOCK * MAX_COLS] __attribute__((aligned(64)));
    const matmul_job *job = part->job;
    const size_t end = part->p0 + part->k, width = job->isa->cols[2];
    const size_t col0 = part->col0 + task % part->col_tasks * width;
    const size_t col1 = min_size(part->col0 + part->cols, col0 + width);
    strip s = {.row0 = part->row0 + task / part->col_tasks * job->row_step, .p0 = part->p0};
    s.rows = min_size(part->row0 + part->rows - s.row0, job->row_step);
    do {
        s.k = min_size(end - s.p0, job->k_step);
        for (s.col0 = col0; s.col0 < col1; s.col0 += s.cols) {
            choose_tile(job, &s, col1);
            prepare_b(part, &s, own);
            find_next(part, &s);
            run_strip(part, &s);
        }
        s.p0 += s.k;
    } while (s.p0 < end);
    if (job->epilogue && end == job->k) {
        job->epilogue(job->ctx, job->c + s.row0 * job->ldc + col0, job->ldc, s.row0, col0, s.rows,
                      col1 - col0);
    }
}

static void run_tasks(void *ctx, int thread, size_t first, size_t end)
{
    (void)thread;
    for (size_t task = first; task < end; task++) {
        run_task(ctx, task);
    }
}

/* Items: some terms of a thread's share of A's rows, share by share, read as they lie one after
 * another: what a thread packs is, as far as may be, what its tasks read. */
static void pack_terms(void *ctx, int thread, size_t first, size_t end)
{
    const matmul_part *part = ctx;
    const matmul_job *job = part->job;
    const size_t high = job->isa->rows, strips = ceil_div(part->rows, high);
    const size_t blocks = ceil_div(part->k, PACKED_TERMS), shares = (size_t)job->threads;
    (void)thread;
    for (size_t i = first; i < end; i++) {
        const size_t p = part->p0 + i % blocks * PACKED_TERMS, share = i / blocks;
        const size_t k = min_size(part->p0 + part->k - p, PACKED_TERMS);
        const size_t row = part_begin(strips, shares, share) * high;
        const size_t end_row = min_size(part->rows, part_begin(strips, shares, share + 1) * high);
        vae_cpu_pack_strips(place_of(part, part->a, high, row, p), high, strip_size(part, high),
                            job->a + p * job->lda + part->row0 + row, job->lda, end_row - row, k);
    }
}

/* Items: strips of B, all terms of the part. */
static void pack_columns(void *ctx, int thread, size_t first, size_t end)
{
    const matmul_part *part = ctx;
    const matmul_job *job = part->job;
    (void)thread;
    for (size_t i = first; i < end; i++) {
        strip s = {.col0 = part->col0 + i * job->isa->cols[2], .p0 = part->p0, .k = part->k};
        s.width = job->isa->cols[2];
        s.cols = min_size(part->col0 + part->cols - s.col0, s.width);
        pack_strip(job, &s, place_of(part, part->b, s.width, s.col0 - part->col0, s.p0));
    }
}

static size_t level2_bytes; /* of a processor's own cache; 0: not known */

static void find_level2(void)
{
#if defined(_SC_LEVEL2_CACHE_SIZE)
    const long bytes = sysconf(_SC_LEVEL2_CACHE_SIZE);
    level2_bytes = bytes > 0 ? (size_t)bytes : 0;
#endif
}

/* How many rows of n values each stay in L2 beside a strip of B and what is read next. */
static size_t rows_in_level2(size_t n)
{
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    pthread_once(&once, find_level2);
    return level2_bytes / 8 * 5 / (n * sizeof(float));
}

/* Terms that all threads sum up before any goes on, where they do: so few that what is packed of
 * transposed A stays in L2, for the rows of B are then read by all its tiles there. */
static size_t part_terms(const matmul_job *job)
{
    const size_t most = min_size(PART_K, max_size(rows_in_level2(job->m), job->k_step));
    return most / job->k_step * job->k_step;
}

/* Cuts C into tasks: rows that keep A in L2, as many tasks as keep the threads busy. No part of
 * this changes the bits, but k_step, which follows from K. Many tasks share the rows of B: those
 * are packed first, once, as many columns at a time as the room holds. Of a weight's gradient a
 * thread has rows, as the optimizer's loops have them (optimizer.c): where processors share no
 * cache it would wait for them. Of a large batch that is little beside what is read of the larger
 * operand: a thread has its rows of A or its columns of B. */
static void plan_tasks(matmul_job *job)
{
    const size_t threads = (size_t)job->threads;
    const size_t unit = job->isa->rows, col_tasks = ceil_div(job->n, job->isa->cols[2]);
    const size_t terms = job->form == MATMUL_TN ? min_size(job->k, part_terms(job)) : job->k;
    size_t rows = max_size(rows_in_level2(max_size(terms, 1)), TASK_ROWS);
    if (job->form == MATMUL_TN && (job->k <= MATMUL_FEW_ROWS || job->m >= job->n)) {
        rows = min_size(rows, max_size(ceil_div(job->m, threads), 4 * unit));
    }
    for (;; rows /= 2) {
        job->row_step = ceil_div(ceil_div(job->m, ceil_div(job->m, rows)), unit) * unit;
        if (ceil_div(job->m, job->row_step) * col_tasks >= 3 * threads || rows / 2 < 2 * unit) {
            break;
        }
    }
}

static void run_part(matmul_part *part)
{
    const matmul_job *job = part->job;
    const size_t shares = (size_t)job->threads;
    part->col_tasks = ceil_div(part->cols, job->isa->cols[2]);
    if (part->a != NULL) {
        vae_parallel(job->threads, shares * ceil_div(part->k, PACKED_TERMS), 1, pack_terms, part);
    } else if (part->b != NULL) {
        vae_parallel(job->threads, part->col_tasks, 1, pack_columns, part);
    }
    vae_parallel(job->threads, ceil_div(part->rows, job->row_step) * part->col_tasks, 1, run_tasks,
                 part);
}

/* Where the sums of a block of terms, for themselves, lie in the room. */
static float *block_sums(const matmul_job *job, size_t block)
{
    return job->room + block * job->m * job->n;
}

/* Items: a tile's width of columns of the first block of terms, of the next, and so on. */
static void run_blocks(void *ctx, int thread, size_t first, size_t end)
{
    const matmul_part *part = ctx;
    (void)thread;
    for (size_t task = first; task < end; task++) {
        matmul_job job = *part->job;
        const size_t block = task / part->col_tasks, p0 = block * job.k_step;
        job.a += p0;
        job.b += p0 * job.ldb;
        job.c = block_sums(part->job, block);
        job.ldc = job.n;
        job.row_step = ceil_div(job.m, job.isa->rows) * job.isa->rows;
        job.epilogue = NULL;
        matmul_part one = *part;
        one.job = &job;
        one.k = job.k = min_size(job.k - p0, job.k_step);
        run_task(&one, task % part->col_tasks);
    }
}

/* Items: a tile's width of columns, whose blocks become C. */
static void add_blocks(void *ctx, int thread, size_t first, size_t end)
{
    const matmul_part *part = ctx;
    const matmul_job *job = part->job;
    const size_t width = job->isa->cols[2], col0 = first * width;
    const size_t cols = min_size(job->n, end * width) - col0;
    float *c = job->c + col0;
    (void)thread;
    for (size_t r = 0; r < job->m; r++) {
        float *to = c + r * job->ldc;
        memcpy(to, block_sums(job, 0) + r * job->n + col0, cols * sizeof *to);
        for (size_t p0 = job->k_step, block = 1; p0 < job->k; p0 += job->k_step, block++) {
            const float *from = block_sums(job, block) + r * job->n + col0;
            for (size_t j = 0; j < cols; j++) {
                to[j] += from[j];
            }
        }
    }
    if (job->epilogue) {
        job->epilogue(job->ctx, c, job->ldc, 0, col0, job->m, cols);
    }
}

/* NN of few rows: B is a weight, of which the optimizer's loops give each thread some rows
 * (optimizer.c). So a thread takes all columns of some terms first, and reads what it wrote; where
 * processors share no cache, the other's would be to fetch, and to take back before Adam writes. */
static bool run_by_terms(const matmul_job *job)
{
    const size_t blocks = ceil_div(job->k, job->k_step);
    if (job->threads == 1 || job->form != MATMUL_NN || job->room == NULL || blocks < 2 ||
        job->m > MATMUL_FEW_ROWS || job->n > ROOM / blocks / job->m) {
        return false;
    }
    matmul_part part = {.job = job, .rows = job->m, .cols = job->n};
    part.col_tasks = ceil_div(job->n, job->isa->cols[2]);
    vae_parallel(job->threads, blocks * part.col_tasks, 1, run_blocks, &part);
    vae_parallel(job->threads, part.col_tasks, 1, add_blocks, &part);
    return true;
}

static void run_job(matmul_job *job)
{
    if (job->m == 0 || job->n == 0) {
        return;
    }
    job->isa = isa_of(job->level);
    if (job->threads < 1 || job->m * job->n * job->k < SERIAL_WORK) {
        job->threads = 1;
    }
    plan_tasks(job);
    if (run_by_terms(job)) {
        return;
    }
    /* Long sums: all threads stay in one part of K, so that A and B come from memory once and are
     * then in the caches; a part is several blocks, for the barrier after it waits for whichever
     * thread the system delays. */
    const bool tn = job->form == MATMUL_TN, room = job->room != NULL && job->k > 0;
    const bool a = tn && room && job->k >= LONG_SUM;
    const bool b = !tn && room && job->m >= SHARED_ROWS;
    const size_t step = tn ? part_terms(job) : b ? PART_K / job->k_step * job->k_step : job->k;
    const size_t high = job->isa->rows, wide = job->isa->cols[2];
    matmul_part part = {.job = job, .a = a ? job->room : NULL, .b = b ? job->room : NULL};
    do {
        part.k = min_size(job->k - part.p0, step);
        /* as many rows or columns at a time as the room holds of what is packed */
        const size_t rows = a ? ROOM / strip_size(&part, high) * high : job->m;
        const size_t cols = b ? ROOM / strip_size(&part, wide) * wide : job->n;
        for (part.row0 = 0; part.row0 < job->m; part.row0 += part.rows) {
            part.rows = min_size(job->m - part.row0, rows);
            for (part.col0 = 0; part.col0 < job->n; part.col0 += part.cols) {
                part.cols = min_size(job->n - part.col0, cols);
                run_part(&part);
            }
        }
        part.p0 += part.k;
    } while (part.p0 < job->k);
}

/* unit: what columns are rounded up to; the narrowest tile. */
static void panel_product(const isa *set, size_t unit, int transposed, float *c, size_t ldc,
                          const float *a, size_t lda, const float *b, size_t ldb, size_t rows,
                          size_t cols, size_t k, int add)
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
    panel_product(isa_of(level), 8, transposed, c, ldc, a, lda, b, ldb, rows, cols, k, add);
}

void vae_cpu_panel_dot(int transposed, float *c, size_t ldc, const float *a, size_t lda,
                       const float *b, size_t ldb, size_t rows, size_t cols, size_t k, int add)
{
#if defined(__x86_64__)
    panel_product(&dot_isa, 16, transposed, c, ldc, a, lda, b, ldb, rows, cols, k, add);
#else
    (void)transposed, (void)c, (void)ldc, (void)a, (void)lda, (void)b, (void)ldb;
    (void)rows, (void)cols, (void)k, (void)add; /* no such level */
#endif
}

void vae_cpu_matmul(matmul_form form, float *c, size_t ldc, const float *a, size_t lda,
                    const float *b, size_t ldb, size_t m, size_t n, size_t k,
                    matmul_epilogue *epilogue, void *ctx, int threads, vae_cpu_level level,
                    void *room)
{
    const size_t k_step = k > 0 ? ceil_div(k, ceil_div(k, K_BLOCK)) : 1;
    if (room != NULL) {
        const sparse_product p = {.form = form,
                                  .a = a,
                                  .b = b,
                                  .lda = lda,
                                  .ldb = ldb,
                                  .c = c,
                                  .ldc = ldc,
                                  .m = m,
                                  .n = n,
                                  .k = k,
                                  .k_step = k_step,
                                  .epilogue = epilogue,
                                  .ctx = ctx,
                                  .threads = threads,
                                  .level = level,
                                  .shared = room,
                                  .rooms = (float *)room + ROOM};
        if (vae_cpu_sparse_product(&p)) {
            return;
        }
    }
    matmul_job job = {.form = form,
                      .level = level,
                      .threads = threads,
                      .c = c,
                      .a = a,
                      .b = b,
                      .ldc = ldc,
                      .lda = lda,
                      .ldb = ldb,
                      .m = m,
                      .n = n,
                      .k = k,
                      .k_step = k_step,
                      .epilogue = epilogue,
                      .ctx = ctx,
                      .room = room};
    run_job(&job);
}

size_t vae_cpu_matmul_room(int threads)
{
    return ROOM * sizeof(float) + vae_cpu_sparse_room(threads);
}
