/* Convolutions as products with patches, for any kernel and stride: those that winograd.c does not
 * take, as a layer of few channels. With P(G) the patches of the big pictures, a row for each pixel
 * of the small ones:
 *   small from big   Y = P(G) W^T
 *   big from small   Q = Y W, of which each big pixel sums the places that meet it
 *   weight           dW = Y^T P(G)
 * Patches are put together for some pixels at a time, which stay in L2; every value is one sum in a
 * fixed order, of its example alone but for the weight's. */
#include <string.h>

#include "backend/cpu/conv.h"
#include "backend/cpu/microkernels.h"
#include "backend/cpu/pack.h"
#include "backend/cpu/sizes.h"

enum {
    PANEL = MATMUL_PANEL,
    APART = 16,              /* floats beside a power of two, lest rows share a cache's lines */
    BLOCK_FLOATS = 48 << 10, /* of patches at a time */
    SUM_PIXELS = 256,        /* at most, of a block of the weight's sums: decides the bits */
    SUM_CHUNKS = 16,         /* of examples, summed apart in the weight's gradient, at most */
    SUM_FLOATS = 1 << 20,    /* that these take at most, if more than one */
    SUM_ROWS = 128,          /* of the weight, of a task */
};

typedef struct {
    cpu_backend *be;
    const conv_out *e;
    vae_conv g;
    vae_mat big, small;
    const float *w;
    size_t ldw, rows;
    size_t n, ld;        /* a patch; from one to the next */
    size_t block, tasks; /* pixels or lines at a time, of one picture; so many times */
    float *shared;       /* of scratch: what all threads use */
    float *room;         /* each thread's, room_floats apart */
    size_t room_floats;
} patching;

/* Floats from one patch to the next. */
static size_t patch_ld(vae_conv g)
{
    return ceil_div(vae_conv_patch(g), 16) * 16 + APART;
}

/* Floats lie in scratch: those that all threads share, then a room for each. */
static size_t shared_floats(vae_conv g);
static size_t room_floats(vae_conv g);

/* ---- patches ---- */

/* Copies of n floats, from + i*step to to + i*ld. */
static inline __attribute__((always_inline)) void copy_each(float *to, size_t ld, const float *from,
                                                            size_t step, size_t n, size_t count)
{
    for (size_t i = 0; i < count; i++, to += ld, from += step) {
        for (size_t j = 0; j < n / 4 * 4; j += 4) {
            memcpy(to + j, from + j, 4 * sizeof *to);
        }
        for (size_t j = n / 4 * 4; j < n; j++) {
            to[j] = from[j];
        }
    }
}

static void copy_runs(float *to, size_t ld, const float *from, size_t step, size_t n, size_t count)
{
    if (n == 12) { /* 4 places of 3 channels, and of 1 */
        copy_each(to, ld, from, step, 12, count);
    } else if (n == 4) {
        copy_each(to, ld, from, step, 4, count);
    } else {
        copy_each(to, ld, from, step, n, count);
    }
}

/* Line ky of a part of the patches of pixels (i, j0 .. j1-1): kernel * C floats of each. row: W
 * pixels, or NULL: outside the picture. */
static void put_line(vae_conv g, float *to, size_t ld, const float *row, size_t j0, size_t j1)
{
    const size_t line = g.kernel * g.C;
    for (size_t j = j0, n; j < j1; j += n, to += n * ld) {
        const ptrdiff_t x0 = (ptrdiff_t)(j * g.stride) - (ptrdiff_t)g.pad;
        const ptrdiff_t room = (ptrdiff_t)g.W - (ptrdiff_t)g.kernel - x0;
        n = 1;
        if (row != NULL && x0 >= 0 && room >= 0) {
            n = min_size(j1 - j, (size_t)room / g.stride + 1);
            copy_runs(to, ld, row + (size_t)x0 * g.C, g.stride * g.C, line, n);
            continue;
        }
        memset(to, 0, line * sizeof *to);
        const ptrdiff_t first = x0 < 0 ? -x0 : 0;
        const ptrdiff_t last = room < 0 ? (ptrdiff_t)g.W - x0 : (ptrdiff_t)g.kernel;
        if (row != NULL && first < last) {
            memcpy(to + (size_t)first * g.C, row + (x0 + first) * (ptrdiff_t)g.C,
                   (size_t)(last - first) * g.C * sizeof *to);
        }
    }
}

/* to: (n pixels, ld) = patches of one picture's pixels from `first` on; columns up to a multiple of
 * 8 are zero. */
static void put_patches(const patching *q, float *to, const float *picture, size_t first, size_t n)
{
    const vae_conv g = q->g;
    const size_t line = g.kernel * g.C;
    for (size_t l = 0; l < g.parts * g.kernel; l++) {
        for (size_t t = 0, run; t < n; t += run) {
            const size_t i = (first + t) / g.w, j = (first + t) % g.w;
            const size_t y = i * g.stride + l % g.kernel; /* pad lower */
            const bool inside = y >= g.pad && y - g.pad < g.H;
            run = min_size(n - t, g.w - j);
            put_line(g, to + t * q->ld + l * line, q->ld,
                     inside ? picture + (l / g.kernel * g.H + y - g.pad) * g.W * g.C : NULL, j,
                     j + run);
        }
    }
    for (size_t t = 0; q->n % 8 != 0 && t < n; t++) {
        memset(to + t * q->ld + q->n, 0, (8 - q->n % 8) * sizeof *to);
    }
}

/* ---- small pictures from big ones ---- */

static void pack_weights(void *ctx, int thread, size_t first, size_t end)
{
    const patching *q = ctx;
    (void)thread;
    for (size_t panel = first; panel < end; panel++) {
        vae_cpu_pack_transposed(q->shared + panel * q->n * PANEL, PANEL,
                                q->w + panel * PANEL * q->ldw, q->ldw,
                                min_size(q->g.c - panel * PANEL, PANEL), q->n, q->be->level);
    }
}

static void small_blocks(void *ctx, int thread, size_t first, size_t end)
{
    const patching *q = ctx;
    const size_t pixels = q->g.h * q->g.w, c = q->g.c, blocks = ceil_div(pixels, q->block);
    float *patches = q->room + (size_t)thread * q->room_floats;
    float *made = patches + q->block * q->ld; /* where a panel's columns are too many for the row */
    for (size_t task = first; task < end; task++) {
        const size_t r = task / blocks, p = task % blocks * q->block;
        const size_t n = min_size(pixels - p, q->block), at = r * q->e->ld + p * c;
        put_patches(q, patches, (const float *)q->big.data + r * q->big.ld, p, n);
        for (size_t o = 0; o < c; o += PANEL) {
            const size_t cols = min_size(c - o, PANEL);
            float *to = cols % 8 == 0 ? q->e->to + at + o : made;
            const size_t ldc = cols % 8 == 0 ? c : PANEL;
            vae_cpu_panel_product(0, to, ldc, patches, q->ld, q->shared + o * q->n, PANEL, n, cols,
                                  q->n, 0, q->be->level);
            for (size_t t = 0; to == made && t < n; t++) {
                memcpy(q->e->to + at + t * c + o, made + t * PANEL, cols * sizeof *made);
            }
        }
        for (size_t o = 0; o < c; o += PANEL) {
            vae_conv_finish(q->e, at + o, c, n, o, min_size(c - o, PANEL));
        }
    }
}

/* ---- big pictures from small ones ---- */

static inline void add_floats(float *restrict to, const float *restrict from, size_t n)
{
    typedef float vec4 __attribute__((vector_size(16), aligned(4), may_alias));
    size_t i = 0;
    for (; i + 4 <= n; i += 4) {
        *(vec4 *)(to + i) += *(const vec4 *)(from + i);
    }
    for (; i < n; i++) {
        to[i] += from[i];
    }
}

/* to: a line of the big picture's values, cleared, increased by the places ky of `made`, products
 * of a line of small pixels: pixel j's kernel * C values lie ld apart and go to x = j*stride - pad.
 * Pixels whose places don't overlap after one another, so that no sum waits for one before it. */
static void add_places(vae_conv g, float *to, const float *made, size_t ld)
{
    const size_t apart = ceil_div(g.kernel, g.stride);
    for (size_t q = 0; q < apart; q++) {
        for (size_t j = q; j < g.w; j += apart) {
            const ptrdiff_t x0 = (ptrdiff_t)(j * g.stride) - (ptrdiff_t)g.pad;
            const ptrdiff_t first = x0 < 0 ? -x0 : 0, room = (ptrdiff_t)g.W - x0;
            const ptrdiff_t last = room < (ptrdiff_t)g.kernel ? room : (ptrdiff_t)g.kernel;
            const float *from = made + j * ld + (size_t)first * g.C;
            if (first >= last) {
                continue;
            }
            add_floats(to + (x0 + first) * (ptrdiff_t)g.C, from, (size_t)(last - first) * g.C);
        }
    }
}

/* The small lines that meet big lines y0 .. y1-1: from .. end-1. */
static void lines_for(vae_conv g, size_t y0, size_t y1, size_t *from, size_t *end)
{
    *from = y0 + g.pad >= g.kernel ? (y0 + g.pad - g.kernel) / g.stride + 1 : 0;
    *end = min_size((y1 - 1 + g.pad) / g.stride + 1, g.h);
}

static void big_bands(void *ctx, int thread, size_t first, size_t end)
{
    const patching *q = ctx;
    const vae_conv g = q->g;
    const size_t bands = ceil_div(g.H, q->block), line = g.W * g.C;
    float *biases = q->room + (size_t)thread * q->room_floats, *made = biases + line;
    conv_out e = *q->e;
    for (size_t task = first; task < end; task++) {
        const size_t r = task / bands, y0 = task % bands * q->block;
        const size_t y1 = min_size(g.H, y0 + q->block);
        size_t i0, i1;
        lines_for(g, y0, y1, &i0, &i1);
        const float *a = (const float *)q->small.data + r * q->small.ld + i0 * g.w * g.c;
        for (size_t col = 0; col < q->n && i0 < i1; col += PANEL) {
            vae_cpu_panel_product(0, made + col, q->ld, a, g.c, q->w + col, q->ldw, (i1 - i0) * g.w,
                                  min_size(q->n - col, PANEL), g.c, 0, q->be->level);
        }
        for (size_t part = 0; part < g.parts; part++) {
            for (size_t x = 0; q->e->b != NULL && x < line; x++) {
                biases[x] = q->e->b[part * g.C + x % g.C];
            }
            e.b = q->e->b != NULL ? biases : NULL;
            for (size_t y = y0; y < y1; y++) {
                const size_t at = r * e.ld + (part * g.H + y) * line;
                memset(e.to + at, 0, line * sizeof *e.to);
                for (size_t ky = (y + g.pad) % g.stride; ky < g.kernel; ky += g.stride) {
                    const size_t i = (y + g.pad - ky) / g.stride;
                    if (y + g.pad >= ky && i < g.h) {
                        add_places(g, e.to + at,
                                   made + (i - i0) * g.w * q->ld +
                                       (part * g.kernel + ky) * g.kernel * g.C,
                                   q->ld);
                    }
                }
                vae_conv_finish(&e, at, line, 1, 0, line); /* all of a line as one pixel */
            }
        }
    }
}

/* ---- the weight's gradient ---- */

/* Chunks of examples that are summed apart. */
static size_t sum_chunks(vae_conv g, size_t rows)
{
    const size_t size = g.c * ceil_div(vae_conv_patch(g), 8) * 8, most = SUM_FLOATS / size;
    return min_size(min_size(rows, SUM_CHUNKS), most > 1 ? most : 1);
}

static void sum_chunk(void *ctx, int thread, size_t first, size_t end)
{
    const patching *q = ctx;
    const size_t pixels = q->g.h * q->g.w, c = q->g.c, ldc = ceil_div(q->n, 8) * 8;
    const size_t chunks = sum_chunks(q->g, q->rows), row_tasks = ceil_div(c, SUM_ROWS);
    float *patches = q->room + (size_t)thread * q->room_floats;
    for (size_t task = first; task < end; task++) {
        const size_t chunk = task / row_tasks, row = task % row_tasks * SUM_ROWS;
        const size_t r0 = q->rows * chunk / chunks, r1 = q->rows * (chunk + 1) / chunks;
        float *sums = q->shared + (chunk * c + row) * ldc;
        for (size_t r = r0; r < r1; r++) {
            const float *small = (const float *)q->small.data + r * q->small.ld + row;
            for (size_t p = 0; p < pixels; p += q->block) {
                const size_t n = min_size(pixels - p, q->block);
                put_patches(q, patches, (const float *)q->big.data + r * q->big.ld, p, n);
                for (size_t col = 0; col < q->n; col += PANEL) {
                    vae_cpu_panel_product(1, sums + col, ldc, small + p * c, c, patches + col,
                                          q->ld, min_size(c - row, SUM_ROWS),
                                          min_size(q->n - col, PANEL), n, r > r0 || p > 0,
                                          q->be->level);
                }
            }
        }
    }
}

typedef struct {
    float *dw;
    size_t ldw, n, rows, chunks;
    const float *sums;
} chunk_total;

static void add_chunks(void *ctx, int thread, size_t first, size_t end)
{
    const chunk_total *t = ctx;
    const size_t ldc = ceil_div(t->n, 8) * 8;
    (void)thread;
    for (size_t o = first; o < end; o++) {
        float *dw = t->dw + o * t->ldw;
        memcpy(dw, t->sums + o * ldc, t->n * sizeof *dw);
        for (size_t chunk = 1; chunk < t->chunks; chunk++) {
            const float *from = t->sums + (chunk * t->rows + o) * ldc;
            for (size_t i = 0; i < t->n; i++) {
                dw[i] += from[i];
            }
        }
    }
}

/* ---- what conv.c calls ---- */

static patching plan_of(cpu_backend *be, const conv_out *e, vae_mat big, vae_mat small,
                        const float *w, size_t ldw, size_t rows, vae_conv g, float *scratch)
{
    patching q = {.be = be,
                  .e = e,
                  .g = g,
                  .big = big,
                  .small = small,
                  .w = w,
                  .ldw = ldw,
                  .rows = rows,
                  .n = vae_conv_patch(g),
                  .shared = scratch,
                  .room = scratch + shared_floats(g),
                  .room_floats = room_floats(g)};
    q.ld = patch_ld(g);
    return q;
}

static size_t least_one(size_t n)
{
    return n > 0 ? n : 1;
}

/* Pixels at a time. */
static size_t block_of(vae_conv g)
{
    return min_size(least_one(BLOCK_FLOATS / patch_ld(g)), SUM_PIXELS);
}

/* Big lines at a time. */
static size_t band_of(vae_conv g)
{
    return least_one(BLOCK_FLOATS / (patch_ld(g) * g.w)) * g.stride;
}

static size_t shared_floats(vae_conv g)
{
    const size_t n = vae_conv_patch(g), weights = ceil_div(g.c, PANEL) * PANEL * n;
    const size_t sums = sum_chunks(g, SUM_CHUNKS) * g.c * ceil_div(n, 8) * 8;
    return ceil_div(weights > sums ? weights : sums, 16) * 16;
}

static size_t room_floats(vae_conv g)
{
    const size_t ld = patch_ld(g);
    const size_t patches = block_of(g) * (ld + PANEL);
    const size_t lines = (band_of(g) + g.kernel) / g.stride + 1;
    const size_t band = ceil_div(g.W * g.C, 16) * 16 + lines * g.w * ld;
    return ceil_div(patches > band ? patches : band, 16) * 16 + PANEL;
}

static size_t patches_bytes(vae_conv g, int threads)
{
    return (shared_floats(g) + (size_t)threads * room_floats(g)) * sizeof(float);
}

static void patches_make(cpu_backend *be, const conv_out *e, int big, vae_mat from, const float *w,
                         size_t ldw, size_t rows, vae_conv g, float *scratch)
{
    patching q = plan_of(be, e, from, from, w, ldw, rows, g, scratch);
    const size_t work = vae_conv_small(g) * q.n;
    if (big) {
        q.block = band_of(g);
        q.tasks = ceil_div(g.H, q.block);
        vae_cpu_parallel(be, rows * q.tasks, work / q.tasks, big_bands, &q);
        return;
    }
    q.block = block_of(g);
    q.tasks = ceil_div(g.h * g.w, q.block);
    vae_cpu_parallel(be, ceil_div(g.c, PANEL), PANEL * q.n, pack_weights, &q);
    vae_cpu_parallel(be, rows * q.tasks, work / q.tasks, small_blocks, &q);
}

static void patches_weight(cpu_backend *be, float *dw, size_t ldw, vae_mat big, vae_mat small,
                           size_t rows, vae_conv g, float *scratch)
{
    patching q = plan_of(be, NULL, big, small, NULL, 0, rows, g, scratch);
    const size_t chunks = sum_chunks(g, rows), tasks = chunks * ceil_div(g.c, SUM_ROWS);
    chunk_total t = {dw, ldw, q.n, g.c, chunks, q.shared};
    q.block = block_of(g);
    vae_cpu_parallel(be, tasks, rows * vae_conv_small(g) * q.n / least_one(tasks), sum_chunk, &q);
    vae_cpu_parallel(be, g.c, chunks * q.n, add_chunks, &t);
}

const conv_way vae_cpu_patches = {patches_bytes, patches_make, patches_weight};
