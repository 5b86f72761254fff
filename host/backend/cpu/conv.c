/* Convolutions on the CPU, and pictures mirrored. Convolutions are products whose operands are
 * gathered while they are packed: patches never lie in memory. With G a big side, Y a small one,
 * P(G) the patches (one row a small pixel):
 *   small from big   Y = P(G) W^T
 *   weight           dW = Y^T P(G)
 *   big from small   the adjoint, P's transpose applied to Y W, as a gather: big pixels whose
 *                    coordinates are alike modulo the stride meet the same places of the kernel, so
 *                    each such class is a product of its own, of patches of Y (stride 1) with those
 *                    places' weights. Every value is one sum in a fixed order. */
#include <string.h>

#include "backend/cpu/cpu.h"
#include "backend/cpu/matmul.h"
#include "philox.h"

enum { CHUNKS = 16 }; /* of examples, in the sums of bias gradients */

/* Rows of patches: row (b,i,j) of `out_h` x `out_w` a picture, columns (part, ky, kx, channel). */
typedef struct {
    const float *data;
    size_t ld; /* from one example's picture to the next */
    size_t H, W, C, parts;
    size_t taps_y, taps_x; /* of the window */
    size_t out_h, out_w, stride;
    ptrdiff_t off_y, off_x; /* where the window of (0,0) begins; may be outside */
} patches;

static inline void copy_floats(float *to, const float *from, size_t n)
{
    if (n >= 32) { /* worth the call */
        memcpy(to, from, n * sizeof *to);
        return;
    }
    for (; n >= 4; n -= 4, to += 4, from += 4) {
        memcpy(to, from, 4 * sizeof *to);
    }
    for (; n > 0; n--) {
        *to++ = *from++;
    }
}

static inline void zero_floats(float *to, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        to[i] = 0.0f;
    }
}

/* Floats from .. end-1 of a line of the window: taps_x pixels of C floats, beginning at pixel x0 of
 * a row of W pixels (NULL: outside). */
static inline void copy_line(const patches *p, float *to, const float *row, ptrdiff_t x0,
                             size_t from, size_t end)
{
    const ptrdiff_t W = (ptrdiff_t)p->W, taps = (ptrdiff_t)p->taps_x;
    ptrdiff_t first = x0 < 0 ? -x0 : 0, last = x0 + taps > W ? W - x0 : taps;
    if (row == NULL || first >= last) {
        zero_floats(to, end - from);
        return;
    }
    size_t a = (size_t)first * p->C, b = (size_t)last * p->C;
    a = a < from ? from : a > end ? end : a;
    b = b > end ? end : b < a ? a : b;
    zero_floats(to, a - from);
    copy_floats(to + (a - from), row + (x0 * (ptrdiff_t)p->C + (ptrdiff_t)a), b - a);
    zero_floats(to + (b - from), end - b);
}

static void gather_patches(const void *ctx, float *to, size_t ld, size_t row0, size_t rows,
                           size_t col0, size_t cols)
{
    const patches *p = ctx;
    const size_t line = p->taps_x * p->C, col1 = col0 + cols;
    if (cols == 0) {
        return; /* no place of the kernel meets these pixels */
    }
    size_t j = row0 % p->out_w, i = row0 / p->out_w % p->out_h;
    const float *picture = p->data + row0 / p->out_w / p->out_h * p->ld;
    for (size_t r = 0; r < rows; r++, to += ld) {
        const ptrdiff_t x0 = (ptrdiff_t)(j * p->stride) + p->off_x;
        const ptrdiff_t y0 = (ptrdiff_t)(i * p->stride) + p->off_y;
        size_t l = col0 / line, part = l / p->taps_y, ky = l % p->taps_y;
        for (size_t c = col0; c < col1;) {
            const size_t begin = c - c % line, end = begin + line < col1 ? begin + line : col1;
            const ptrdiff_t y = y0 + (ptrdiff_t)ky;
            const float *row = NULL;
            if (y >= 0 && y < (ptrdiff_t)p->H) {
                row = picture + (part * p->H + (size_t)y) * p->W * p->C;
            }
            copy_line(p, to + (c - col0), row, x0, c - begin, end - begin);
            c = end;
            if (++ky == p->taps_y) {
                ky = 0;
                part++;
            }
        }
        if (++j == p->out_w) {
            j = 0;
            if (++i == p->out_h) {
                i = 0;
                picture += p->ld;
            }
        }
    }
}

/* The pixels of a picture that a product makes: (i,j) of out_h x out_w is pixel (y + i*step,
 * x + j*step) of rows W pixels wide, of C channels. Then act and bias, or act's derivative. */
typedef struct {
    const cpu_kernels *k;
    float *to;
    size_t ld, out_h, out_w, step, y, x, W, C;
    const float *b;    /* forward; or NULL */
    float *pre;        /* forward: what backward needs; or NULL */
    const float *from; /* backward: what the derivative is taken from */
    vae_activation act;
} pixels;

static void finish_pixels(void *ctx, float *c, size_t ldc, size_t row0, size_t col0, size_t rows,
                          size_t cols)
{
    const pixels *e = ctx;
    const size_t stride = e->step * e->C;
    for (size_t n, r = 0; r < rows; r += n) {
        const size_t row = row0 + r, j = row % e->out_w, i = row / e->out_w % e->out_h;
        const size_t whole = e->step == 1 ? e->out_w * (e->out_h - i) - j : e->out_w - j;
        n = whole < rows - r ? whole : rows - r;
        const size_t at = row / e->out_w / e->out_h * e->ld +
                          ((e->y + i * e->step) * e->W + e->x + j * e->step) * e->C + col0;
        for (size_t q = 0; q < n; q++) {
            copy_floats(e->to + at + q * stride, c + (r + q) * ldc, cols);
        }
        if (e->b != NULL) {
            e->k->bias_act(e->to + at, e->pre != NULL ? e->pre + at : NULL, stride, e->b + col0, n,
                           cols, e->act);
        } else if (e->act != VAE_ACT_NONE) {
            e->k->act_grad(e->to + at, stride, e->from + at, stride, n, cols, e->act);
        }
    }
}

static patches big_patches(vae_conv g, vae_mat big)
{
    const ptrdiff_t pad = (ptrdiff_t)g.pad;
    return (patches){big.data, big.ld, g.H, g.W,      g.C,  g.parts, g.kernel,
                     g.kernel, g.h,    g.w, g.stride, -pad, -pad};
}

/* e: what to do with the results; its places are filled in here. */
static void small_from_big(cpu_backend *be, vae_mat small, vae_mat big, const float *w, size_t ldw,
                           size_t rows, vae_conv g, pixels e)
{
    const patches p = big_patches(g, big);
    const matmul_source source = {gather_patches, &p};
    e.k = be->k;
    e.to = small.data;
    e.ld = small.ld;
    e.out_h = g.h;
    e.out_w = e.W = g.w;
    e.step = 1;
    e.C = g.c;
    vae_cpu_matmul_gathered(MATMUL_NT, NULL, 0, &source, NULL, w, ldw, rows * g.h * g.w, g.c,
                            vae_conv_patch(g), finish_pixels, &e, be->threads, be->level);
}

/* The kernel's places along one axis that big coordinates a, a + stride, ... meet: first, first +
 * stride, ..., n of them. The small coordinate at the last of them (the lowest) for coordinate a is
 * `begin`. */
typedef struct {
    size_t first, n, count; /* count: of such coordinates */
    ptrdiff_t begin;
} taps;

static taps taps_of(size_t a, size_t size, vae_conv g)
{
    taps t = {.first = (a + g.pad) % g.stride, .count = (size - a + g.stride - 1) / g.stride};
    t.n = t.first < g.kernel ? (g.kernel - t.first + g.stride - 1) / g.stride : 0;
    t.begin = (ptrdiff_t)((a + g.pad) / g.stride) - (ptrdiff_t)t.n + 1;
    return t;
}

/* Rows (ty, tx, o) of the weights that one class meets: of places in descending order, as small
 * coordinates ascend. */
typedef struct {
    const float *w;
    size_t ldw;
    vae_conv g;
    taps y, x;
} class_weights;

static void gather_weights(const void *ctx, float *to, size_t ld, size_t row0, size_t rows,
                           size_t col0, size_t cols)
{
    const class_weights *cw = ctx;
    const vae_conv *g = &cw->g;
    for (size_t r = row0; r < row0 + rows; r++, to += ld) {
        const size_t o = r % g->c, tap = r / g->c;
        const size_t ky = cw->y.first + g->stride * (cw->y.n - 1 - tap / cw->x.n);
        const size_t kx = cw->x.first + g->stride * (cw->x.n - 1 - tap % cw->x.n);
        copy_floats(to, cw->w + o * cw->ldw + (ky * g->kernel + kx) * g->C + col0, cols);
    }
}

/* One part of the big side's pixels (y + i*stride, x + j*stride). */
static void big_class(cpu_backend *be, vae_mat small, size_t rows, pixels *e, class_weights *cw)
{
    const vae_conv g = cw->g;
    const patches p = {small.data, small.ld,    g.h,         g.w, g.c,         1,          cw->y.n,
                       cw->x.n,    cw->y.count, cw->x.count, 1,   cw->y.begin, cw->x.begin};
    const matmul_source a = {gather_patches, &p}, b = {gather_weights, cw};
    e->out_h = cw->y.count;
    e->out_w = cw->x.count;
    vae_cpu_matmul_gathered(MATMUL_NN, NULL, 0, &a, &b, NULL, 0, rows * e->out_h * e->out_w, g.C,
                            cw->y.n * cw->x.n * g.c, finish_pixels, e, be->threads, be->level);
}

static void big_from_small(cpu_backend *be, vae_mat big, vae_mat small, const float *w, size_t ldw,
                           size_t rows, vae_conv g, pixels all)
{
    const size_t plane = g.H * g.W * g.C;
    for (size_t part = 0; part < g.parts; part++) {
        pixels e = all;
        class_weights cw = {.w = w + part * g.kernel * g.kernel * g.C, .ldw = ldw, .g = g};
        e.k = be->k;
        e.to = (float *)big.data + part * plane;
        e.ld = big.ld;
        e.step = g.stride;
        e.W = g.W;
        e.C = g.C;
        e.b = all.b != NULL ? all.b + part * g.C : NULL;
        e.pre = all.pre != NULL ? all.pre + part * plane : NULL;
        e.from = all.from != NULL ? all.from + part * plane : NULL;
        for (e.y = 0; e.y < g.stride && e.y < g.H; e.y++) {
            for (e.x = 0; e.x < g.stride && e.x < g.W; e.x++) {
                cw.y = taps_of(e.y, g.H, g);
                cw.x = taps_of(e.x, g.W, g);
                big_class(be, small, rows, &e, &cw);
            }
        }
    }
}

void vae_cpu_conv_forward(vae_backend *base, vae_mat y, void *aux, vae_mat x, const float *w,
                          size_t ldw, const float *b, size_t rows, vae_conv g, vae_activation act,
                          void *scratch)
{
    (void)scratch;
    cpu_backend *be = vae_cpu_self(base);
    const pixels e = {.b = b, .pre = vae_act_keeps_input(act) ? aux : NULL, .act = act};
    if (g.transposed) {
        big_from_small(be, y, x, w, ldw, rows, g, e);
    } else {
        small_from_big(be, y, x, w, ldw, rows, g, e);
    }
}

void vae_cpu_conv_backward_input(vae_backend *base, vae_mat dx, vae_mat dy, const float *w,
                                 size_t ldw, vae_mat x, const void *aux, size_t rows, vae_conv g,
                                 vae_activation act, void *scratch)
{
    (void)scratch;
    cpu_backend *be = vae_cpu_self(base);
    const pixels e = {.from = vae_act_keeps_input(act) ? aux : x.data, .act = act};
    if (g.transposed) {
        small_from_big(be, dx, dy, w, ldw, rows, g, e);
    } else {
        big_from_small(be, dx, dy, w, ldw, rows, g, e);
    }
}

/* Sums over chunks of examples: of pictures of n pixels, C channels apart, columns 0 .. cols-1. */
typedef struct {
    const cpu_kernels *k;
    const float *data;
    size_t ld, n, C, rows, cols;
    double (*sum)[COLUMN_BLOCK]; /* (CHUNKS) zeros */
} channels;

static void chunk_sums(void *ctx, int thread, size_t first, size_t end)
{
    const channels *a = ctx;
    (void)thread;
    for (size_t i = first; i < end; i++) {
        for (size_t r = a->rows * i / CHUNKS; r < a->rows * (i + 1) / CHUNKS; r++) {
            float of_row[COLUMN_BLOCK];
            a->k->column_sums(of_row, a->data + r * a->ld, a->C, a->n, a->cols);
            for (size_t j = 0; j < a->cols; j++) {
                a->sum[i][j] += (double)of_row[j];
            }
        }
    }
}

/* db: (cols) of pictures of n pixels, C channels apart: sums over pixels and examples. Chunks of
 * examples that depend on their number alone, put together in order. */
static void channel_sums(const cpu_backend *be, float *db, const float *data, size_t ld, size_t n,
                         size_t C, size_t rows)
{
    for (size_t c = 0; c < C; c += COLUMN_BLOCK) {
        const size_t cols = C - c < COLUMN_BLOCK ? C - c : COLUMN_BLOCK;
        double sum[CHUNKS][COLUMN_BLOCK] = {{0}};
        channels a = {be->k, data + c, ld, n, C, rows, cols, sum};
        vae_cpu_parallel(be, CHUNKS, rows * n * cols / CHUNKS, chunk_sums, &a);
        for (size_t j = 0; j < cols; j++) {
            double total = 0;
            for (size_t i = 0; i < CHUNKS; i++) {
                total += sum[i][j];
            }
            db[c + j] = (float)total;
        }
    }
}

void vae_cpu_conv_backward_weight(vae_backend *base, float *dw, size_t ldw, float *db, vae_mat dy,
                                  vae_mat x, size_t rows, vae_conv g, void *scratch)
{
    (void)scratch;
    cpu_backend *be = vae_cpu_self(base);
    const vae_mat big = g.transposed ? dy : x, small = g.transposed ? x : dy;
    const size_t plane = g.H * g.W * g.C, patch = g.kernel * g.kernel * g.C;
    /* the small side's pixels, as windows of one */
    const patches s = {small.data, small.ld, g.h, g.w, g.c, 1, 1, 1, g.h, g.w, 1, 0, 0};
    const matmul_source a = {gather_patches, &s};
    for (size_t part = 0; part < g.parts; part++) {
        patches p = big_patches(g, big);
        const matmul_source b = {gather_patches, &p};
        p.data += part * plane;
        p.parts = 1;
        vae_cpu_matmul_gathered(MATMUL_TN, dw + part * patch, ldw, &a, &b, NULL, 0, g.c, patch,
                                rows * g.h * g.w, NULL, NULL, be->threads, be->level);
    }
    if (!g.transposed) {
        channel_sums(be, db, dy.data, dy.ld, g.h * g.w, g.c, rows);
        return;
    }
    for (size_t part = 0; part < g.parts; part++) {
        channel_sums(be, db + part * g.C, (const float *)dy.data + part * plane, dy.ld, g.H * g.W,
                     g.C, rows);
    }
}

typedef struct {
    vae_mat x;
    const vae_plan *plan;
    size_t h, w, c;
    uint64_t seed;
} pictures;

static void mirror_rows(void *ctx, int thread, size_t first, size_t end)
{
    const pictures *a = ctx;
    const size_t w = a->w, c = a->c;
    (void)thread;
    for (size_t r = first; r < end; r++) {
        float *row = vae_cpu_row(a->x, r);
        const int mirrored = vae_mirrored(a->seed, a->plan->first + r, a->plan->draw);
        for (size_t y = 0; mirrored && y < a->h; y++) {
            float *line = row + y * w * c;
            for (size_t i = 0; i < w / 2 * c; i++) {
                float *other = line + (w - 1 - i / c) * c + i % c, kept = line[i];
                line[i] = *other;
                *other = kept;
            }
        }
    }
}

void vae_cpu_mirror(vae_backend *base, vae_mat x, size_t B, size_t h, size_t w, size_t c,
                    uint64_t seed)
{
    cpu_backend *be = vae_cpu_self(base);
    pictures a = {x, vae_cpu_now(be), h, w, c, seed};
    vae_cpu_parallel(be, B, h * w * c, mirror_rows, &a);
}
