/* Convolutions on the CPU: winograd.c and patches.c make the pictures and the weights' gradients,
 * the biases' are summed here. And pictures mirrored. */
#include "backend/cpu/conv.h"
#include "philox.h"

enum { CHUNKS = 16 }; /* of examples, in the sums of bias gradients */

static const conv_way *way_of(vae_conv g)
{
    return vae_cpu_winograd_fits(g) ? &vae_cpu_winograd : &vae_cpu_patches;
}

size_t vae_cpu_conv_bytes(const vae_backend *be, vae_conv g, size_t rows)
{
    (void)rows;
    return way_of(g)->bytes(g, ((const cpu_backend *)be)->threads);
}

void vae_cpu_conv_forward(vae_backend *base, vae_mat y, void *aux, vae_mat x, const float *w,
                          size_t ldw, const float *b, size_t rows, vae_conv g, vae_activation act,
                          void *scratch)
{
    cpu_backend *be = vae_cpu_self(base);
    const conv_out out = {.k = be->k,
                          .to = y.data,
                          .ld = y.ld,
                          .b = b,
                          .pre = vae_act_keeps_input(act) ? aux : NULL,
                          .act = act};
    way_of(g)->make(be, &out, g.transposed, x, w, ldw, rows, g, scratch);
}

void vae_cpu_conv_backward_input(vae_backend *base, vae_mat dx, vae_mat dy, const float *w,
                                 size_t ldw, vae_mat x, const void *aux, size_t rows, vae_conv g,
                                 vae_activation act, void *scratch)
{
    cpu_backend *be = vae_cpu_self(base);
    const conv_out out = {.k = be->k,
                          .to = dx.data,
                          .ld = dx.ld,
                          .from = vae_act_keeps_input(act) ? aux : x.data,
                          .act = act};
    way_of(g)->make(be, &out, !g.transposed, dy, w, ldw, rows, g, scratch);
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

void vae_cpu_conv_backward_weight(vae_backend *base, float *dw, size_t ldw, float *db, vae_mat dy,
                                  vae_mat x, size_t rows, vae_conv g, void *scratch)
{
    cpu_backend *be = vae_cpu_self(base);
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
        const int mirrored = vae_mirrored(a->seed, vae_plan_position(a->plan, r), a->plan->draw);
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
