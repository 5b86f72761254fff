/* Convolutions on the CPU: winograd.c and patches.c make the pictures and the weights' gradients,
 * the biases' are summed here. Of bf16 they are made in floats, some examples at a time: what is
 * read and what is kept is bf16, and nothing between. And pictures mirrored. */
#include <string.h>

#include "backend/cpu/conv.h"
#include "backend/cpu/sizes.h"
#include "philox.h"

enum {
    CHUNKS = 16,           /* of examples, in the sums of bias gradients */
    SOME_FLOATS = 1 << 20, /* of pictures, both sides, that are made floats at a time */
};

static const conv_way *way_of(vae_conv g)
{
    return vae_cpu_winograd_fits(g) ? &vae_cpu_winograd : &vae_cpu_patches;
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
            /* pixels of few channels side by side, as many as a row of sums has room for */
            const size_t group = a->cols == a->C ? COLUMN_BLOCK / a->C : 1;
            const size_t whole = a->n / group, rest = a->n % group;
            const float *row = a->data + r * a->ld;
            float of_row[COLUMN_BLOCK];
            a->k->column_sums(of_row, row, group * a->C, whole, group * a->cols);
            for (size_t j = 0; j < group * a->cols; j++) {
                a->sum[i][j % a->cols] += (double)of_row[j];
            }
            a->k->column_sums(of_row, row + whole * group * a->C, a->C, rest, a->cols);
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

/* ---- the operations on floats ---- */

static void backward_weight(cpu_backend *be, float *dw, size_t ldw, float *db, vae_mat dy,
                            vae_mat x, size_t rows, vae_conv g, float *scratch)
{
    const vae_mat big = g.transposed ? dy : x, small = g.transposed ? x : dy;
    const size_t plane = g.H * g.W * g.C;
    way_of(g)->weight(be, dw, ldw, big, small, rows, g, scratch);
    if (!g.transposed) {
        channel_sums(be, db, dy.data, dy.ld, g.h * g.w, g.c, rows);
        return;
    }
    for (size_t part = 0; part < g.parts; part++) {
        channel_sums(be, db + part * g.C, (const float *)dy.data + part * plane, dy.ld, g.H * g.W,
                     g.C, rows);
    }
}

/* ---- bf16: floats of some examples at a time ---- */

/* A convolution's room: what it needs in floats, then the weight, its gradient and the bias's, then
 * pictures: of the big side and the small one, and of either what an activation's input or output
 * is. */
typedef struct {
    size_t rows; /* at a time: decides the bits of sums over them */
    size_t ldw, big, small, weight, channels;
    float *w, *dw, *db, *pictures[3];
    char *scratch;
} float_room;

static size_t way_bytes(const vae_backend *be, vae_conv g)
{
    return ceil_div(way_of(g)->bytes(g, ((const cpu_backend *)be)->most_threads), 64) * 64;
}

static float_room plan_room(const vae_backend *be, vae_conv g, char *scratch)
{
    float_room p = {.ldw = vae_pad(vae_conv_patch(g)),
                    .big = vae_pad(vae_conv_big(g)),
                    .small = vae_pad(vae_conv_small(g)),
                    .channels = vae_pad(g.transposed ? g.parts * g.C : g.c)};
    const size_t most = p.big > p.small ? p.big : p.small;
    p.weight = g.c * p.ldw;
    p.rows = SOME_FLOATS / (p.big + p.small) + 1;
    p.scratch = scratch;
    if (scratch != NULL) {
        p.w = (float *)(void *)(scratch + way_bytes(be, g));
        p.dw = p.w + p.weight;
        p.db = p.dw + p.weight;
        for (size_t i = 0; i < 3; i++) {
            p.pictures[i] = p.db + p.channels + i * p.rows * most;
        }
    }
    return p;
}

size_t vae_cpu_conv_bytes(const vae_backend *be, vae_conv g, size_t rows)
{
    (void)rows;
    if (!((const cpu_backend *)be)->bf16) {
        return way_of(g)->bytes(g, ((const cpu_backend *)be)->most_threads);
    }
    const float_room p = plan_room(be, g, NULL);
    const size_t most = p.big > p.small ? p.big : p.small;
    return way_bytes(be, g) + (2 * p.weight + p.channels + 3 * p.rows * most) * sizeof(float);
}

/* n values of rows of bf16 from `first` on to floats, ld apart; or back. */
typedef struct {
    const cpu_backend *be;
    vae_mat m;
    size_t first, n, ld;
    float *floats;
    bool back;
} change_job;

static void change_rows(void *ctx, int thread, size_t begin, size_t end)
{
    const change_job *a = ctx;
    (void)thread;
    for (size_t r = begin; r < end; r++) {
        if (a->back) {
            a->be->k->narrow(vae_cpu_bf16(a->m, a->first + r, 0), a->floats + r * a->ld, a->n);
        } else {
            a->be->k->widen(a->floats + r * a->ld, vae_cpu_bf16(a->m, a->first + r, 0), a->n);
        }
    }
}

static void change(const cpu_backend *be, float *floats, size_t ld, vae_mat m, size_t first,
                   size_t rows, size_t n, bool back)
{
    change_job a = {be, m, first, n, ld, floats, back};
    vae_cpu_parallel(be, rows, n, change_rows, &a);
}

/* Pictures that are made of bf16 and to bf16. e: as for floats, but for the pointers; `other`: e's
 * pre or from, data NULL = none. */
static void make_bf16(cpu_backend *be, conv_out e, vae_mat to, vae_mat other, int big, vae_mat from,
                      const float *w, size_t ldw, size_t rows, vae_conv g, void *scratch)
{
    const float_room p = plan_room(&be->base, g, scratch);
    matmul_bf16 twin;
    const size_t made = big ? vae_conv_big(g) : vae_conv_small(g);
    const size_t read = big ? vae_conv_small(g) : vae_conv_big(g);
    const size_t ld_made = big ? p.big : p.small, ld_read = big ? p.small : p.big;
    if (!vae_cpu_weights(be, &twin, w, ldw)) {
        return;
    }
    const bool forward = e.b != NULL, derivative = !forward && e.act != VAE_ACT_NONE;
    change(be, p.w, p.ldw, (vae_mat){(void *)(uintptr_t)twin.data, twin.ld}, 0, g.c,
           vae_conv_patch(g), false);
    e.to = p.pictures[1];
    e.ld = ld_made;
    e.pre = forward && other.data != NULL ? p.pictures[2] : NULL;
    e.from = p.pictures[2];
    for (size_t r = 0, n; r < rows; r += n) {
        n = min_size(rows - r, p.rows);
        change(be, p.pictures[0], ld_read, from, r, n, read, false);
        if (derivative) {
            change(be, p.pictures[2], ld_made, other, r, n, made, false);
        }
        way_of(g)->make(be, &e, big, (vae_mat){p.pictures[0], ld_read}, p.w, p.ldw, n, g, scratch);
        change(be, p.pictures[1], ld_made, to, r, n, made, true);
        if (e.pre != NULL) {
            change(be, p.pictures[2], ld_made, other, r, n, made, true);
        }
    }
}

static void backward_weight_bf16(cpu_backend *be, float *dw, size_t ldw, float *db, vae_mat dy,
                                 vae_mat x, size_t rows, vae_conv g, void *scratch)
{
    const float_room p = plan_room(&be->base, g, scratch);
    const size_t out = g.transposed ? vae_conv_big(g) : vae_conv_small(g);
    const size_t in = g.transposed ? vae_conv_small(g) : vae_conv_big(g);
    const size_t ldy = vae_pad(out), ldx = vae_pad(in), patch = vae_conv_patch(g);
    const size_t sums = g.transposed ? g.parts * g.C : g.c;
    for (size_t r = 0, n; r < rows; r += n) {
        n = min_size(rows - r, p.rows);
        change(be, p.pictures[0], ldx, x, r, n, in, false);
        change(be, p.pictures[1], ldy, dy, r, n, out, false);
        backward_weight(be, p.dw, p.ldw, p.db, (vae_mat){p.pictures[1], ldy},
                        (vae_mat){p.pictures[0], ldx}, n, g, scratch);
        for (size_t o = 0; o < g.c; o++) {
            for (size_t i = 0; i < patch; i++) {
                dw[o * ldw + i] = p.dw[o * p.ldw + i] + (r > 0 ? dw[o * ldw + i] : 0.0f);
            }
        }
        for (size_t i = 0; i < sums; i++) {
            db[i] = p.db[i] + (r > 0 ? db[i] : 0.0f);
        }
    }
}

/* ---- the operations ---- */

void vae_cpu_conv_forward(vae_backend *base, vae_mat y, void *aux, vae_mat x, const float *w,
                          size_t ldw, const float *b, size_t rows, vae_conv g, vae_activation act,
                          void *scratch)
{
    cpu_backend *be = vae_cpu_self(base);
    void *pre = vae_act_keeps_input(act) ? aux : NULL;
    conv_out out = {.k = be->k, .b = b, .act = act};
    if (be->bf16) {
        make_bf16(be, out, y, (vae_mat){pre, y.ld}, g.transposed, x, w, ldw, rows, g, scratch);
        return;
    }
    out.to = y.data;
    out.ld = y.ld;
    out.pre = pre;
    way_of(g)->make(be, &out, g.transposed, x, w, ldw, rows, g, scratch);
}

void vae_cpu_conv_backward_input(vae_backend *base, vae_mat dx, vae_mat dy, const float *w,
                                 size_t ldw, vae_mat x, const void *aux, size_t rows, vae_conv g,
                                 vae_activation act, void *scratch)
{
    cpu_backend *be = vae_cpu_self(base);
    const void *from = vae_act_keeps_input(act) ? aux : x.data;
    conv_out out = {.k = be->k, .act = act};
    if (be->bf16) {
        make_bf16(be, out, dx, (vae_mat){(void *)(uintptr_t)from, x.ld}, !g.transposed, dy, w, ldw,
                  rows, g, scratch);
        return;
    }
    out.to = dx.data;
    out.ld = dx.ld;
    out.from = from;
    way_of(g)->make(be, &out, !g.transposed, dy, w, ldw, rows, g, scratch);
}

void vae_cpu_conv_backward_weight(vae_backend *base, float *dw, size_t ldw, float *db, vae_mat dy,
                                  vae_mat x, size_t rows, vae_conv g, void *scratch)
{
    cpu_backend *be = vae_cpu_self(base);
    if (be->bf16) {
        backward_weight_bf16(be, dw, ldw, db, dy, x, rows, g, scratch);
    } else {
        backward_weight(be, dw, ldw, db, dy, x, rows, g, scratch);
    }
}

typedef struct {
    const cpu_backend *be;
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
        const int mirrored = vae_mirrored(a->seed, vae_plan_position(a->plan, r), a->plan->draw);
        for (size_t y = 0; mirrored && y < a->h; y++) {
            for (size_t i = 0; i < w / 2 * c; i++) {
                const size_t at = y * w * c + i, other = (y * w + w - 1 - i / c) * c + i % c;
                if (a->be->bf16) {
                    uint16_t *one = vae_cpu_bf16(a->x, r, at), kept = *one;
                    *one = *vae_cpu_bf16(a->x, r, other);
                    *vae_cpu_bf16(a->x, r, other) = kept;
                } else {
                    float *row = vae_cpu_row(a->x, r), kept = row[at];
                    row[at] = row[other];
                    row[other] = kept;
                }
            }
        }
    }
}

void vae_cpu_mirror(vae_backend *base, vae_mat x, size_t B, size_t h, size_t w, size_t c,
                    uint64_t seed)
{
    cpu_backend *be = vae_cpu_self(base);
    pictures a = {be, x, vae_cpu_now(be), h, w, c, seed};
    vae_cpu_parallel(be, B, h * w * c, mirror_rows, &a);
}
