/* Weights' gradients by tiles: C = A^T B, whose terms are the rows of a batch.
 *
 * Tiles want pairs of terms, of A turned over: words must be made of both. A task is a part of C,
 * whose sums and words stay in L2, and it makes all of these itself: another core's would take
 * longer to come than to make, and to wait for. Of A a strip is made when it is used, and stays in
 * L1 over its blocks, which B's words come to from L2. */
#include "backend/cpu/tiles_tn.h"

#include <string.h>

#include "backend/cpu/kernels.h"
#include "backend/cpu/pack.h"
#include "backend/cpu/sizes.h"
#include "backend/cpu/tiles.h"
#include "base/pool.h"

enum {
    SIDE = 2 * TILE_ROWS,       /* of a block of C: a strip's rows, a panel's columns */
    UNIT = 2 * TILE_WORDS,      /* terms that are made words at a time */
    WORDS = TILES_TN_TERMS / 2, /* of a strip and of a panel */
    MOST_PANELS = 32,           /* of a task, */
    MOST_WORDS = 16 * WORDS,    /* and words of their columns: they stay in L2, */
    MOST_BLOCKS = 208,          /* as C does */
    MOST_ROWS = 1920,           /* of C at a time */
    ROUND_TERMS = 4096,         /* that tasks sum up before all meet: 0.2 ms of 784 x 400 */
};

_Static_assert(SIDE <= (int)MOST_SUMS, "columns are summed up a strip at a time");

typedef struct {
    float a[SIDE * WORDS];         /* a strip's words (SIDE,WORDS) */
    float b[MOST_WORDS * SIDE];    /* panels' (k_step / 2,SIDE) */
    float flat[TILE_WORDS * SIDE]; /* what a unit of `a` is the transpose of */
} words_room;

typedef struct {
    matmul_bf16 a, b;
    float *c, *sums;
    double *totals; /* column sums so far, from row0 on */
    size_t ldc, n, k_step;
    const cpu_kernels *kernels;
    words_room *rooms;
    size_t row0, rows;     /* of C that are summed now */
    size_t p0, p1;         /* and terms */
    size_t strips, panels; /* of those rows; of all columns */
    size_t row_tasks, col_tasks;
} job;

/* So many terms from p0 on. */
typedef struct {
    size_t p0, k;
} terms;

static terms terms_from(const job *q, size_t p0)
{
    return (terms){p0, min_size(q->p1 - p0, q->k_step)};
}

static size_t strip_rows(const job *q, size_t strip)
{
    return min_size(q->rows - strip * SIDE, SIDE);
}

static size_t panel_cols(const job *q, size_t panel)
{
    return min_size(q->n - panel * SIDE, SIDE);
}

/* Where A has a strip's terms. */
static const uint16_t *a_from(const job *q, size_t strip, terms t)
{
    return q->a.data + t.p0 * q->a.ld + q->row0 + strip * SIDE;
}

/* A strip's words. */
static void make_a(const job *q, words_room *room, size_t strip, terms t)
{
    const size_t rows = strip_rows(q, strip);
    const uint16_t *a = a_from(q, strip, t);
    float *to = room->a;
    for (size_t p = 0; p < t.k; p += UNIT, a += UNIT * q->a.ld, to += TILE_WORDS) {
        const size_t k = min_size(t.k - p, UNIT);
        vae_cpu_pack_pairs(room->flat, SIDE, 0, a, q->a.ld, rows, SIDE, k);
        vae_cpu_pack_words(to, WORDS, room->flat, SIDE, ceil_div(k, 2), TILE_WORDS, SIDE);
    }
}

/* Words of a task's panels, of the same terms of all before the next, as B lies. */
static void make_b(const job *q, float *to, size_t panel0, size_t panels, terms t)
{
    const uint16_t *b = q->b.data + t.p0 * q->b.ld + panel0 * SIDE;
    const size_t cols = min_size(q->n - panel0 * SIDE, panels * SIDE);
    const size_t words = ceil_div(t.k, 2), apart = q->k_step / 2 * SIDE;
    vae_cpu_pack_pairs(to, SIDE, apart, b, q->b.ld, cols, panels * SIDE, t.k);
    for (size_t y = 0; y < panels; y++) {
        memset(to + y * apart + words * SIDE, 0, (tile_words(words) - words) * SIDE * sizeof *to);
    }
}

static void add_block(const job *q, const float *a, const float *b, size_t strip, size_t panel,
                      terms t)
{
    const size_t rows = strip_rows(q, strip), cols = panel_cols(q, panel);
    const size_t words = tile_words(ceil_div(t.k, 2));
    float *c = q->c + (q->row0 + strip * SIDE) * q->ldc + panel * SIDE;
    float edge[SIDE * SIDE];
    tile_ahead nothing = {NULL, NULL};
    if (rows == SIDE && cols == SIDE) {
        tile_block(c, q->ldc, a, WORDS, NULL, b, words, t.p0 > 0, &nothing);
        return;
    }
    /* Edges go on from C as whole blocks do: a tile's sums begin there. */
    if (t.p0 > 0) {
        vae_cpu_copy_block(edge, SIDE, c, q->ldc, rows, cols);
    }
    tile_block(edge, SIDE, a, WORDS, NULL, b, words, t.p0 > 0, &nothing);
    vae_cpu_copy_block(c, q->ldc, edge, SIDE, rows, cols);
}

static void run_task(const job *q, size_t task, words_room *room)
{
    const size_t i = task / q->col_tasks, j = task % q->col_tasks;
    const size_t strip0 = part_begin(q->strips, q->row_tasks, i);
    const size_t strips = part_begin(q->strips, q->row_tasks, i + 1) - strip0;
    const size_t panel0 = part_begin(q->panels, q->col_tasks, j);
    const size_t panels = part_begin(q->panels, q->col_tasks, j + 1) - panel0;
    terms t = terms_from(q, q->p0);
    do {
        make_b(q, room->b, panel0, panels, t);
        for (size_t x = 0; x < strips; x++) {
            make_a(q, room, strip0 + x, t);
            for (size_t y = 0; y < panels; y++) {
                add_block(q, room->a, room->b + y * (q->k_step / 2 * SIDE), strip0 + x, panel0 + y,
                          t);
            }
            if (q->sums != NULL && (strip0 + x) % q->col_tasks == j) {
                const size_t row = (strip0 + x) * SIDE;
                vae_cpu_add_column_sums(q->kernels, q->sums + q->row0 + row, q->totals + row,
                                        t.p0 > 0, a_from(q, strip0 + x, t), q->a.ld, t.k,
                                        strip_rows(q, strip0 + x));
            }
        }
        t = terms_from(q, t.p0 + t.k);
    } while (t.k > 0);
}

static void run_tasks(void *ctx, int thread, size_t first, size_t end)
{
    const job *q = ctx;
    tile_begin();
    for (size_t task = first; task < end; task++) {
        run_task(q, task, q->rooms + thread);
    }
    tile_end();
}

/* The tasks that end soonest, where a block takes so many times as long as words. Of few terms,
 * whose cost is C, a thread has rows, as the optimizer's loops have them (optimizer.c). */
static void plan_tasks(job *q, size_t k, size_t threads)
{
    enum { BLOCK = 8, STRIP = 2, PANEL = 1 };
    const size_t most = min_size(MOST_WORDS / (q->k_step / 2), MOST_PANELS);
    const size_t from_c = ceil_div(q->panels, most);
    const size_t to_c = k <= MATMUL_FEW_ROWS ? from_c : from_c + threads - 1;
    size_t best = SIZE_MAX;
    for (size_t c = from_c; c <= to_c && c <= q->panels; c++) {
        const size_t panels = ceil_div(q->panels, c);
        const size_t from_r = ceil_div(q->strips * panels, MOST_BLOCKS);
        for (size_t r = from_r; r < from_r + threads && r <= q->strips; r++) {
            const size_t strips = ceil_div(q->strips, r);
            const size_t cost = ceil_div(r * c, threads) *
                                (BLOCK * strips * panels + STRIP * strips + PANEL * panels);
            if (cost < best) {
                best = cost;
                q->row_tasks = r;
                q->col_tasks = c;
            }
        }
    }
}

size_t vae_cpu_tiles_tn_room(int threads)
{
    return MOST_ROWS * sizeof(double) + (size_t)(threads > 1 ? threads : 1) * sizeof(words_room);
}

void vae_cpu_tiles_tn(float *c, size_t ldc, float *sums, matmul_bf16 a, matmul_bf16 b, size_t m,
                      size_t n, size_t k, size_t k_step, int threads, void *room)
{
    const size_t round = max_size(ROUND_TERMS / k_step, 1) * k_step;
    job q = {.a = a,
             .b = b,
             .c = c,
             .sums = sums,
             .totals = room,
             .ldc = ldc,
             .n = n,
             .k_step = k_step,
             .kernels = vae_cpu_kernels(VAE_CPU_AMX_BF16),
             .rooms = (words_room *)(void *)((double *)room + MOST_ROWS),
             .panels = ceil_div(n, SIDE)};
    for (; q.row0 < m && n > 0; q.row0 += q.rows) {
        q.rows = min_size(m - q.row0, MOST_ROWS);
        q.strips = ceil_div(q.rows, SIDE);
        plan_tasks(&q, k, (size_t)threads);
        q.p0 = 0;
        do {
            q.p1 = min_size(k, q.p0 + round);
            vae_parallel(threads, q.row_tasks * q.col_tasks, 1, run_tasks, &q);
            q.p0 = q.p1;
        } while (q.p0 < k);
    }
}
