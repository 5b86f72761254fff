/* Products of bf16 on the CPU, summed in floats.
 *
 * What is multiplied are words: at level avx512_bf16 pairs of bf16, two terms of the sum each, of
 * which one instruction adds both products to a float; at the levels below, the values as floats.
 * Then microkernels.c is used as it is. At level amx_bf16 the pairs are multiplied as tiles
 * (tiles.h), under TN by tiles_tn.c.
 *
 * Making words costs as much as some rows of the product, so it is done once and by all threads:
 * of B, where C has more rows than a task takes at once; under TN, whose sum is over the batch, of
 * A and B, so many terms at a time that what becomes of them stays in the caches. It lies in memory
 * that the threads share.
 *
 * NT, NN: a task is some rows of C, summed up in its own memory, MATMUL_BF16_COLS columns at a
 * time, and hands them to the epilogue as floats; by tiles 32 rows at a time, of which each panel
 * is handed over as soon as it is summed, unless they must come in order. TN: a task is a part of C
 * where it lies. */
#include <string.h>

#include "backend/cpu/kernels.h"
#include "backend/cpu/matmul.h"
#include "backend/cpu/microkernels.h"
#include "backend/cpu/pack.h"
#include "backend/cpu/sizes.h"
#include "backend/cpu/sparse.h"
#include "backend/cpu/tiles.h"
#include "backend/cpu/tiles_tn.h"
#include "base/pool.h"

enum {
    PANEL = MATMUL_PANEL,
    ROW_UNIT = 12,        /* of the kernels' tiles */
    ROWS = 16 * ROW_UNIT, /* of a task: what is read of A stays in L2 */
    COLS = MATMUL_BF16_COLS,
    WORDS = 256,                /* of the sum, at a time: a panel of B fills L1 */
    STRIP = 4 * ROW_UNIT,       /* rows of C whose words of A lie together under TN */
    TILE_STRIP = 2 * TILE_ROWS, /* rows of C by tiles at a time */
    FEW_TERMS = 128,            /* of so few, part tiles cost more than packing does */
    SERIAL_WORK = 100000,       /* multiply-adds that take less time than waking a thread (2 us) */
    SERIAL_WORDS = 16384,       /* the same of words to be made */
    SHARED = SPARSE_SHARED,     /* words that threads share */
    /* parts of C under TN, such that WORDS of A and B are SHARED at most */
    MOST_ROWS = 1920,
    MOST_COLS = 2048,
};
_Static_assert((MOST_ROWS + MOST_COLS) * WORDS <= SHARED && MOST_ROWS % STRIP == 0 &&
                   MOST_COLS % PANEL == 0,
               "parts are whole");
_Static_assert(STRIP <= (int)MOST_SUMS, "columns are summed up a strip at a time");
_Static_assert(WORDS <= (int)SPARSE_TERMS, "zeros are left out of as many words");
_Static_assert(2 * WORDS <= (int)TILES_TN_TERMS, "tiles sum up as many terms at a time");

/* A thread's room. */
typedef struct {
    float c[ROWS * COLS];
    float a[ROWS * WORDS];     /* (rows,words) */
    float b[PANEL * WORDS];    /* (words,PANEL) */
    float flat[STRIP * WORDS]; /* what either is the transpose of */
    float last[TILE_STRIP * TILE_WORDS];
} task_room;

/* Words of A. Of tiles `last` has those that fill no whole tile where they lie, or is NULL. */
typedef struct {
    const float *words, *last;
    size_t ld;
} left;

typedef struct {
    matmul_form form;
    matmul_bf16 a, b;
    size_t m, n, k;
    int threads;
    vae_cpu_level level;
    const cpu_kernels *kernels;
    size_t pair;   /* terms in a word */
    bool tiles;    /* words are filled up with zeros to whole tiles, rows of A with whatever */
    size_t k_step; /* terms at a time, a multiple of that: decides the bits */
    size_t deep;   /* words of as many, filled up */
    float *shared; /* SHARED words */
    double *sums;  /* MOST_ROWS */
    task_room *rooms;
    void *sparse_rooms; /* of products that leave out zeros */
} job;

size_t vae_cpu_matmul_bf16_room(int threads)
{
    return max_size(vae_cpu_tiles_tn_room(threads),
                    SHARED * sizeof(float) + vae_cpu_sparse_room(threads) +
                        MOST_ROWS * sizeof(double) + (size_t)threads * sizeof(task_room));
}

static job begin(matmul_form form, matmul_bf16 a, matmul_bf16 b, size_t m, size_t n, size_t k,
                 int threads, vae_cpu_level level, void *room)
{
    job q = {.form = form,
             .a = a,
             .b = b,
             .m = m,
             .n = n,
             .k = k,
             .threads = threads > 1 ? threads : 1,
             .level = level,
             .kernels = vae_cpu_kernels(level),
             .pair = level >= VAE_CPU_AVX512_BF16 ? 2 : 1,
             .tiles = level >= VAE_CPU_AMX_BF16,
             .shared = room,
             .sums = (double *)(void *)((float *)room + SHARED)};
    q.rooms = (task_room *)(void *)(q.sums + MOST_ROWS);
    q.sparse_rooms = q.rooms + q.threads;
    const size_t most = WORDS * q.pair, unit = q.tiles ? 2 * TILE_WORDS : q.pair;
    q.k_step = k > 0 ? ceil_div(ceil_div(k, ceil_div(k, most)), unit) * unit : unit;
    q.deep = q.k_step / q.pair;
    return q;
}

/* The product where zeros make it a faster one; of tiles, which are faster still, none is. */
static bool without_zeros(const job *q, float *c, size_t ldc, float *sums,
                          matmul_epilogue *epilogue, void *ctx)
{
    const sparse_product p = {.form = q->form,
                              .bf16 = true,
                              .a = q->a.data,
                              .b = q->b.data,
                              .lda = q->a.ld,
                              .ldb = q->b.ld,
                              .c = c,
                              .ldc = ldc,
                              .sums = sums,
                              .m = q->m,
                              .n = q->n,
                              .k = q->k,
                              .k_step = q->k_step,
                              .epilogue = epilogue,
                              .ctx = ctx,
                              .threads = q->threads,
                              .level = q->level,
                              .shared = q->shared,
                              .rooms = q->sparse_rooms};
    return q->level == VAE_CPU_AVX512_BF16 && vae_cpu_sparse_product(&p);
}

/* ---- words ---- */

/* to: (k,ldt) floats of b: (k,cols); columns up to `width` are zero. */
static void widen_rows(const job *q, float *to, size_t ldt, const uint16_t *b, size_t ldb,
                       size_t cols, size_t width, size_t k)
{
    for (size_t p = 0; p < k; p++, to += ldt, b += ldb) {
        q->kernels->widen(to, b, cols);
        memset(to + cols, 0, (width - cols) * sizeof *to);
    }
}

/* to: (rows,words) with ld of a: (rows,k), filled up with zeros to whole tiles. */
static void fill_tiles(float *to, size_t ld, const uint16_t *a, size_t lda, size_t rows, size_t k)
{
    enum { TERMS = 2 * TILE_WORDS };
    for (size_t r = 0; r < rows; r++, to += ld, a += lda) {
        size_t p = 0;
        for (; p + TERMS <= k; p += TERMS) {
            memcpy(to + p / 2, a + p, TERMS * sizeof *a); /* a constant: no loop */
        }
        if (p < k) {
            uint16_t last[TERMS] = {0};
            memcpy(last, a + p, (k - p) * sizeof *a);
            memcpy(to + p / 2, last, sizeof last);
        }
    }
}

/* Terms p0 .. p0+k-1 of `rows` rows from row0 on of m, A or what stands for it. */
static left words_of_rows(const job *q, matmul_bf16 m, task_room *room, size_t row0, size_t rows,
                          size_t p0, size_t k)
{
    const uint16_t *a = m.data + row0 * m.ld + p0;
    if (q->pair == 1) {
        widen_rows(q, room->a, WORDS, a, m.ld, k, k, rows);
        return (left){room->a, NULL, WORDS};
    }
    if (q->tiles && rows < TILE_STRIP) {
        fill_tiles(room->a, WORDS, a, m.ld, rows, k);
        return (left){room->a, NULL, WORDS};
    }
    const size_t part = q->tiles ? k % (2 * TILE_WORDS) : 0;
    if (part > 0) {
        fill_tiles(room->last, TILE_WORDS, a + k - part, m.ld, rows, part);
    }
    /* pairs lie there as they are */
    return (left){(const float *)(const void *)a, part > 0 ? room->last : NULL, m.ld / 2};
}

/* Fills so many words of B's panel up with zeros to whole tiles. */
static void fill_panel(float *panel, size_t words)
{
    memset(panel + words * PANEL, 0, (tile_words(words) - words) * PANEL * sizeof *panel);
}

/* to: (words,PANEL) of the same terms of columns col0 .. of B, of each PANEL of them, `apart` from
 * one to the next. flat: room. */
static void words_of_b(const job *q, float *to, size_t apart, float *flat, size_t col0, size_t cols,
                       size_t p0, size_t k)
{
    const size_t words = ceil_div(k, q->pair);
    if (q->form != MATMUL_NT && q->pair == 2) {
        vae_cpu_pack_pairs(to, PANEL, apart, q->b.data + p0 * q->b.ld + col0, q->b.ld, cols,
                           ceil_div(cols, PANEL) * PANEL, k);
    }
    for (size_t j = 0; j < cols; j += PANEL, to += apart) {
        const size_t some = min_size(cols - j, PANEL), col = col0 + j;
        if (q->form == MATMUL_NT) {
            const uint16_t *b = q->b.data + col * q->b.ld + p0;
            if (q->pair == 2) {
                vae_cpu_pack_words(to, PANEL, (const float *)(const void *)b, q->b.ld / 2, some,
                                   PANEL, words);
            } else {
                widen_rows(q, flat, WORDS, b, q->b.ld, k, k, some);
                vae_cpu_pack_transposed(to, PANEL, flat, WORDS, some, k, q->level);
            }
        } else if (q->pair == 1) {
            widen_rows(q, to, PANEL, q->b.data + p0 * q->b.ld + col, q->b.ld, some, PANEL, k);
        }
        if (q->tiles) {
            fill_panel(to, words);
        }
    }
}

/* Panels that a task packs at once: lines that lie side by side come in half the time that lines of
 * every row's same place take, where they come from memory. */
static size_t panels_at_once(const job *q, size_t panels)
{
    enum { MOST = 4 };
    const size_t share = panels / (size_t)q->threads;
    return q->pair == 1 || share == 0 ? 1 : min_size(share, MOST);
}

/* Of A under TN, rows <= STRIP of C. to: (words,STRIP). */
static void words_of_strip(const job *q, float *to, size_t row0, size_t rows, size_t p0, size_t k)
{
    const uint16_t *a = q->a.data + p0 * q->a.ld + row0;
    if (q->pair == 2) {
        vae_cpu_pack_pairs(to, STRIP, PANEL, a, q->a.ld, rows, STRIP, k);
    } else {
        widen_rows(q, to, STRIP, a, q->a.ld, rows, STRIP, k);
    }
}

/* Adds to, or sets, C (rows,cols <= PANEL) with ldc by k terms of words; of C as many columns are
 * written as the kernels round up to. */
static void multiply_words(const job *q, float *c, size_t ldc, const float *a, size_t lda,
                           const float *b, size_t rows, size_t cols, size_t k, bool add)
{
    const int transposed = q->form == MATMUL_TN;
    if (q->pair == 2) {
        vae_cpu_panel_dot(transposed, c, ldc, a, lda, b, PANEL, rows, cols, ceil_div(k, 2), add);
    } else {
        vae_cpu_panel_product(transposed, c, ldc, a, lda, b, PANEL, rows, cols, k, add, q->level);
    }
}

/* The same of tiles, too, rows <= TILE_STRIP: of C as many rows are written. Those ask for what is
 * `ahead`. */
static void multiply(const job *q, float *c, size_t ldc, left a, const float *b, size_t rows,
                     size_t cols, size_t k, bool add, tile_ahead *ahead)
{
    if (q->tiles) {
        const size_t whole = k / (2 * TILE_WORDS) * TILE_WORDS;
        tile_block(c, ldc, a.words, a.ld, a.last, b,
                   a.last != NULL ? whole : tile_words(ceil_div(k, 2)), add, ahead);
    } else {
        multiply_words(q, c, ldc, a.words, a.ld, b, rows, cols, k, add);
    }
}

/* ---- NT, NN ---- */

typedef struct {
    job q;
    matmul_epilogue *epilogue;
    void *ctx;
    bool in_order;
    bool packed;       /* B is, in shared: each panel of all terms */
    size_t deep;       /* words of such a panel */
    size_t at_once;    /* panels that are packed */
    size_t col0, cols; /* of C, whose B that is */
    size_t unit, step; /* of rows: a task has a multiple of unit, and makes step at a time */
    size_t step_cols;
    size_t row_tasks, col_tasks;
} rows_job;

/* Few rows under NT, C turned over: rows of B lie as tiles want them, and A is what is packed. The
 * sums are the same to the bit. */
static void run_turned(const rows_job *t, size_t col0, size_t cols, task_room *room)
{
    const job *q = &t->q;
    tile_ahead nothing = {NULL, NULL};
    size_t p0 = 0;
    do {
        const size_t k = min_size(q->k - p0, q->k_step), words = ceil_div(k, 2);
        vae_cpu_pack_words(room->b, PANEL, (const float *)(const void *)(q->a.data + p0),
                           q->a.ld / 2, q->m, PANEL, words);
        fill_panel(room->b, words);
        for (size_t j = 0; j < cols; j += PANEL) {
            const size_t some = min_size(cols - j, PANEL);
            float *c = room->c + j * TILE_STRIP;
            const left b = words_of_rows(q, q->b, room, col0 + j, some, p0, k);
            multiply(q, c, PANEL, b, room->b, some, q->m, k, p0 > 0, &nothing);
            if (p0 + k == q->k) {
                vae_cpu_pack_words(room->flat, PANEL, c, PANEL, PANEL, PANEL, q->m);
                t->epilogue(t->ctx, room->flat, PANEL, 0, col0 + j, q->m, some);
            }
        }
        p0 += k;
    } while (p0 < q->k);
}

/* next: rows that come afterwards. */
static void run_rows(const rows_job *t, size_t row0, size_t rows, size_t next, size_t col0,
                     size_t cols, task_room *room)
{
    const job *q = &t->q;
    const uint16_t *after = q->a.data + (row0 + rows) * q->a.ld;
    tile_ahead ahead = {(const char *)after, (const char *)(after + next * q->a.ld)};
    const bool by_panels = q->tiles && !t->in_order;
    if (by_panels && q->form == MATMUL_NT && q->m <= TILE_STRIP && q->k >= FEW_TERMS) {
        run_turned(t, col0, cols, room);
        return;
    }
    const size_t ldc = by_panels ? PANEL : COLS;
    const size_t apart = !by_panels ? 1 : q->k > q->k_step ? TILE_STRIP : 0;
    size_t p0 = 0;
    do {
        const size_t k = min_size(q->k - p0, q->k_step);
        const left a = words_of_rows(q, q->a, room, row0, rows, p0, k);
        for (size_t j = 0; j < cols; j += PANEL) {
            const size_t some = min_size(cols - j, PANEL), col = col0 + j;
            float *c = room->c + j * apart;
            const float *b = room->b;
            if (t->packed) {
                b = q->shared + ((col - t->col0) / PANEL * t->deep + p0 / q->pair) * PANEL;
            } else {
                words_of_b(q, room->b, 0, room->flat, col, some, p0, k);
            }
            multiply(q, c, ldc, a, b, rows, some, k, p0 > 0, &ahead);
            if (by_panels && p0 + k == q->k) {
                t->epilogue(t->ctx, c, ldc, row0, col, rows, some);
            }
        }
        p0 += k;
    } while (p0 < q->k);
    if (!by_panels) {
        t->epilogue(t->ctx, room->c, COLS, row0, col0, rows, cols);
    }
}

static void run_row_tasks(void *ctx, int thread, size_t first, size_t end)
{
    const rows_job *t = ctx;
    const size_t units = ceil_div(t->q.m, t->unit), panels = ceil_div(t->cols, PANEL);
    if (t->q.tiles) {
        tile_begin();
    }
    for (size_t task = first; task < end; task++) {
        const size_t i = task / t->col_tasks, j = task % t->col_tasks;
        const size_t row0 = part_begin(units, t->row_tasks, i) * t->unit;
        const size_t row1 = min_size(t->q.m, part_begin(units, t->row_tasks, i + 1) * t->unit);
        const size_t begin = part_begin(panels, t->col_tasks, j) * PANEL;
        const size_t end_col = min_size(t->cols, part_begin(panels, t->col_tasks, j + 1) * PANEL);
        for (size_t row = row0, rows; row < row1; row += rows) {
            rows = min_size(row1 - row, t->step);
            for (size_t col = begin; col < end_col; col += t->step_cols) {
                run_rows(t, row, rows, min_size(row1 - row - rows, t->step), t->col0 + col,
                         min_size(end_col - col, t->step_cols), t->q.rooms + thread);
            }
        }
    }
    if (t->q.tiles) {
        tile_end();
    }
}

static void pack_panels(void *ctx, int thread, size_t first, size_t end)
{
    const rows_job *t = ctx;
    for (size_t i = first; i < end; i++) {
        const size_t panel = i * t->at_once, j = panel * PANEL;
        const size_t cols = min_size(t->cols - j, t->at_once * PANEL);
        for (size_t p0 = 0; p0 < t->q.k; p0 += t->q.k_step) {
            words_of_b(&t->q, t->q.shared + (panel * t->deep + p0 / t->q.pair) * PANEL,
                       t->deep * PANEL, t->q.rooms[thread].flat, t->col0 + j, cols, p0,
                       min_size(t->q.k - p0, t->q.k_step));
        }
    }
}

/* Tasks: as many rows as fit, but as many tasks as keep the threads busy. Few rows are cut by
 * columns first: a task then packs its own. */
static void plan_rows(rows_job *t, size_t threads, bool in_order)
{
    const size_t units = ceil_div(t->q.m, t->unit), panels = ceil_div(t->cols, PANEL);
    const size_t many = threads > 1 ? 4 * threads : 1, fewest = ceil_div(t->q.m, ROWS);
    t->row_tasks = fewest;
    t->col_tasks = 1;
    if (!in_order && fewest == 1) {
        t->col_tasks = min_size(panels, many);
    }
    const size_t rows = ceil_div(many, t->col_tasks);
    if (rows > t->row_tasks) { /* but with some tiles each */
        t->row_tasks = min_size(rows, fewest > 1 ? ceil_div(units, 4) : units);
        t->row_tasks = t->row_tasks < fewest ? fewest : t->row_tasks;
    }
    if (!in_order && t->row_tasks * t->col_tasks < many) {
        t->col_tasks = min_size(panels, ceil_div(many, t->row_tasks));
    }
}

void vae_cpu_matmul_bf16(matmul_form form, matmul_bf16 a, matmul_bf16 b, size_t m, size_t n,
                         size_t k, bool in_order, matmul_epilogue *epilogue, void *ctx, int threads,
                         vae_cpu_level level, void *room)
{
    if (m == 0 || n == 0) {
        return;
    }
    rows_job t = {.q = begin(form, a, b, m, n, k, threads, level, room),
                  .epilogue = epilogue,
                  .ctx = ctx,
                  .in_order = in_order};
    if (!in_order && without_zeros(&t.q, NULL, 0, NULL, epilogue, ctx)) {
        return;
    }
    t.unit = t.q.tiles ? TILE_STRIP : ROW_UNIT;
    t.step = t.q.tiles ? TILE_STRIP : ROWS;
    t.step_cols = t.q.tiles && !in_order ? ROWS / TILE_STRIP * COLS : COLS;
    t.deep = ceil_div(k, t.q.k_step) * t.q.deep;
    /* as many columns at a time as can be packed */
    const size_t most = t.deep > 0 ? SHARED / (t.deep * PANEL) * PANEL / COLS * COLS : n;
    t.packed = m > t.step && most > 0;
    const size_t step = t.packed ? most : n;
    const int some = threads < 1 || m * n * k < SERIAL_WORK ? 1 : threads;
    for (t.col0 = 0; t.col0 < n; t.col0 += step) {
        t.cols = min_size(n - t.col0, step);
        if (t.packed) {
            t.at_once = panels_at_once(&t.q, ceil_div(t.cols, PANEL));
            vae_parallel(some, ceil_div(t.cols, t.at_once * PANEL), 1, pack_panels, &t);
        }
        plan_rows(&t, (size_t)some, in_order);
        vae_parallel(some, t.row_tasks * t.col_tasks, 1, run_row_tasks, &t);
    }
}

/* ---- TN ---- */

typedef struct {
    job q;
    float *c, *sums;
    size_t ldc;
    size_t row0, rows, col0, cols; /* the part of C */
    size_t p0, k;                  /* and of the sum */
    size_t strips, panels;         /* of that part */
    size_t at_once;                /* panels that are packed */
    size_t row_tasks, col_tasks;
} sum_job;

static float *a_words(const sum_job *t, size_t strip)
{
    return t->q.shared + strip * STRIP * t->q.deep;
}

static float *b_words(const sum_job *t, size_t panel)
{
    return a_words(t, t->strips) + panel * PANEL * t->q.deep;
}

/* Column sums of A are taken while a strip of it is in the cache: a thread has all of them for a
 * strip, and the next terms come when all have these. */
static void pack_both(void *ctx, int thread, size_t first, size_t end)
{
    const sum_job *t = ctx;
    for (size_t i = first; i < end; i++) {
        if (i < t->strips) {
            const size_t row = i * STRIP, rows = min_size(t->rows - row, STRIP);
            words_of_strip(&t->q, a_words(t, i), t->row0 + row, rows, t->p0, t->k);
            if (t->sums != NULL && t->col0 == 0) {
                const uint16_t *from = t->q.a.data + t->p0 * t->q.a.ld + t->row0 + row;
                vae_cpu_add_column_sums(t->q.kernels, t->sums + t->row0 + row, t->q.sums + row,
                                        t->p0 > 0, from, t->q.a.ld, t->k, rows);
            }
        } else {
            const size_t panel = (i - t->strips) * t->at_once, col = panel * PANEL;
            words_of_b(&t->q, b_words(t, panel), PANEL * t->q.deep, t->q.rooms[thread].flat,
                       t->col0 + col, min_size(t->cols - col, t->at_once * PANEL), t->p0, t->k);
        }
    }
}

/* A strip's rows and a panel's columns of C. */
static void add_product(const sum_job *t, size_t strip, size_t panel)
{
    const size_t row = strip * STRIP, col = panel * PANEL;
    const size_t rows = min_size(t->rows - row, STRIP), cols = min_size(t->cols - col, PANEL);
    const float *a = a_words(t, strip), *b = b_words(t, panel);
    const bool add = t->p0 > 0;
    float *c = t->c + (t->row0 + row) * t->ldc + t->col0 + col;
    if (cols == PANEL) {
        multiply_words(&t->q, c, t->ldc, a, STRIP, b, rows, cols, t->k, add);
        return;
    }
    float edge[STRIP * PANEL];
    if (add) {
        vae_cpu_copy_block(edge, PANEL, c, t->ldc, rows, cols);
    }
    multiply_words(&t->q, edge, PANEL, a, STRIP, b, rows, cols, t->k, add);
    vae_cpu_copy_block(c, t->ldc, edge, PANEL, rows, cols);
}

static void run_sum_tasks(void *ctx, int thread, size_t first, size_t end)
{
    const sum_job *t = ctx;
    (void)thread;
    for (size_t task = first; task < end; task++) {
        const size_t i = task / t->col_tasks, j = task % t->col_tasks;
        const size_t strip1 = part_begin(t->strips, t->row_tasks, i + 1);
        const size_t panel1 = part_begin(t->panels, t->col_tasks, j + 1);
        for (size_t y = part_begin(t->panels, t->col_tasks, j); y < panel1; y++) {
            for (size_t x = part_begin(t->strips, t->row_tasks, i); x < strip1; x++) {
                add_product(t, x, y);
            }
        }
    }
}

/* Tasks: parts of C that stay in L2 with their words, at least as many as keep the threads busy. */
static void plan_sum(sum_job *t, size_t threads)
{
    const size_t many = threads > 1 ? 4 * threads : 1;
    t->strips = ceil_div(t->rows, STRIP);
    t->panels = ceil_div(t->cols, PANEL);
    t->row_tasks = ceil_div(t->strips, ROWS / STRIP);
    t->col_tasks = ceil_div(t->panels, COLS / PANEL);
    while (t->row_tasks * t->col_tasks < many && t->row_tasks < t->strips) {
        t->row_tasks++;
    }
    while (t->row_tasks * t->col_tasks < many && t->col_tasks < t->panels) {
        t->col_tasks++;
    }
}

void vae_cpu_matmul_bf16_tn(float *c, size_t ldc, float *sums, matmul_bf16 a, matmul_bf16 b,
                            size_t m, size_t n, size_t k, int threads, vae_cpu_level level,
                            void *room)
{
    sum_job t = {.q = begin(MATMUL_TN, a, b, m, n, k, threads, level, room),
                 .c = c,
                 .ldc = ldc,
                 .sums = sums};
    if (without_zeros(&t.q, c, ldc, sums, NULL, NULL)) {
        return;
    }
    const int some = threads < 1 || m * n * k < SERIAL_WORK ? 1 : threads;
    if (t.q.tiles) {
        vae_cpu_tiles_tn(c, ldc, sums, a, b, m, n, k, t.q.k_step, some, room);
        return;
    }
    for (t.row0 = 0; t.row0 < m; t.row0 += MOST_ROWS) {
        for (t.col0 = 0; t.col0 < n; t.col0 += MOST_COLS) {
            t.rows = min_size(m - t.row0, MOST_ROWS);
            t.cols = min_size(n - t.col0, MOST_COLS);
            plan_sum(&t, (size_t)some);
            t.at_once = panels_at_once(&t.q, t.panels);
            t.p0 = 0;
            do {
                t.k = min_size(k - t.p0, t.q.k_step);
                const bool little = (t.rows + t.cols) * t.k < SERIAL_WORDS;
                vae_parallel(little ? 1 : some, t.strips + ceil_div(t.panels, t.at_once), 1,
                             pack_both, &t);
                vae_parallel(some, t.row_tasks * t.col_tasks, 1, run_sum_tasks, &t);
                t.p0 += t.k;
            } while (t.p0 < k);
        }
    }
}
