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

#include "backend/cpu/microkernels.h"
#include "backend/cpu/pack.h"
#include "backend/cpu/sizes.h"
#include "backend/cpu/sparse.h"
#include "base/pool.h"

enum {
    K_BLOCK = 400,        /* the most terms summed in registers at a time: decides the bits */
    TASK_ROWS = 192,      /* of A at least that share one packed strip of B, where A has as many */
    PART_K = 1024,        /* terms that all threads sum up before any goes on, about */
    ROOM = SPARSE_SHARED, /* floats in which operands are packed once */
    SHARED_ROWS = 2048,   /* of A from which B is packed once for all tasks */
    LONG_SUM = 64,        /* TN: terms from which A is */
    UNPACKED_ROWS = 36,   /* NN, TN: B is read in place up to here, for it is read 3 times */
    PACKED_TERMS = 32,    /* of A, that a thread packs at a time */
    SERIAL_WORK = 100000, /* multiply-adds that take less time than waking a thread (2 us) */
};

_Static_assert(K_BLOCK <= (int)SPARSE_TERMS, "zeros are left out of as many terms");

typedef struct {
    matmul_form form;
    vae_cpu_level level;
    const microkernels *kernels;
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
    microkernel *kernel;
    const float *b; /* (k,width) with row stride ldb */
    size_t ldb;
    const float *next; /* the rows of B that are read after these, next_k of them, next_ld apart */
    size_t next_k, next_ld;
} strip;

/* Asks for what is packed next, a part of it for each of a strip's tiles: with rows far apart the
 * hardware does not, and packing would wait for them. */
static inline void fetch_next(const strip *s, size_t row, size_t rows)
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
    const size_t even = ceil_div(s->rows, ceil_div(s->rows, job->kernels->rows));
    const size_t step = part->a != NULL ? job->kernels->rows : even;
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
        float tile[MICROKERNEL_ROWS * MICROKERNEL_COLS];
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
    const microkernels *set = job->kernels;
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
        s->ldb = job->kernels->cols[2];
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
    const size_t end = part->p0 + part->k, whole = job->kernels->cols[2];
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
    float own[K_BLOCK * MICROKERNEL_COLS] __attribute__((aligned(64)));
    const matmul_job *job = part->job;
    const size_t end = part->p0 + part->k, width = job->kernels->cols[2];
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
    const size_t high = job->kernels->rows, strips = ceil_div(part->rows, high);
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
        strip s = {.col0 = part->col0 + i * job->kernels->cols[2], .p0 = part->p0, .k = part->k};
        s.width = job->kernels->cols[2];
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
    const size_t unit = job->kernels->rows, col_tasks = ceil_div(job->n, job->kernels->cols[2]);
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
    part->col_tasks = ceil_div(part->cols, job->kernels->cols[2]);
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
        job.row_step = ceil_div(job.m, job.kernels->rows) * job.kernels->rows;
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
    const size_t width = job->kernels->cols[2], col0 = first * width;
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
    part.col_tasks = ceil_div(job->n, job->kernels->cols[2]);
    vae_parallel(job->threads, blocks * part.col_tasks, 1, run_blocks, &part);
    vae_parallel(job->threads, part.col_tasks, 1, add_blocks, &part);
    return true;
}

static void run_job(matmul_job *job)
{
    if (job->m == 0 || job->n == 0) {
        return;
    }
    job->kernels = vae_cpu_microkernels(job->level);
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
    const size_t high = job->kernels->rows, wide = job->kernels->cols[2];
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
