/* The CPU backend's operations of dense layers: products of matmul.c, and what is done to their
 * tiles while these are in the cache. */
#include "backend/cpu/cpu.h"

#include "backend/cpu/matmul.h"

typedef struct {
    const cpu_kernels *k;
    float *pre;
    size_t ld;
    const float *b;
    vae_activation act;
} forward_epilogue;

static void finish_forward(void *ctx, float *c, size_t ldc, size_t row0, size_t col0, size_t rows,
                           size_t cols)
{
    const forward_epilogue *e = ctx;
    float *pre = e->pre != NULL ? e->pre + row0 * e->ld + col0 : NULL;
    e->k->bias_act(c, pre, ldc, e->b + col0, rows, cols, e->act);
}

/* What bf16 matrices get of a product's tiles. */
typedef struct {
    const cpu_backend *be;
    vae_mat to, other; /* other: forward the input of the activation, data NULL = not kept; backward
                        * what its derivative is taken from */
    const float *b;
    vae_activation act;
} bf16_epilogue;

static void finish_forward_bf16(void *ctx, float *c, size_t ldc, size_t row0, size_t col0,
                                size_t rows, size_t cols)
{
    const bf16_epilogue *e = ctx;
    uint16_t *pre = e->other.data != NULL ? vae_cpu_bf16(e->other, row0, col0) : NULL;
    e->be->k->bias_act_bf16(vae_cpu_bf16(e->to, row0, col0), pre, e->to.ld, c, ldc, e->b + col0,
                            rows, cols, e->act);
}

static void finish_backward_bf16(void *ctx, float *c, size_t ldc, size_t row0, size_t col0,
                                 size_t rows, size_t cols)
{
    const bf16_epilogue *e = ctx;
    const uint16_t *from = e->act != VAE_ACT_NONE ? vae_cpu_bf16(e->other, row0, col0) : NULL;
    e->be->k->act_grad_bf16(vae_cpu_bf16(e->to, row0, col0), e->to.ld, c, ldc, from, e->other.ld,
                            rows, cols, e->act);
}

void vae_cpu_linear_forward(vae_backend *base, vae_mat y, void *aux, vae_mat x, const float *w,
                            size_t ldw, const float *b, size_t rows, size_t in, size_t out,
                            vae_activation act)
{
    cpu_backend *be = vae_cpu_self(base);
    vae_cpu_meet_weight(be, w, out * ldw);
    if (be->bf16) {
        matmul_bf16 twin;
        bf16_epilogue to = {be, y, {vae_act_keeps_input(act) ? aux : NULL, y.ld}, b, act};
        if (vae_cpu_weights(be, &twin, w, ldw)) {
            vae_cpu_matmul_bf16(MATMUL_NT, vae_cpu_operand(x), twin, rows, out, in, false,
                                finish_forward_bf16, &to, be->threads, be->level, be->room);
        }
        return;
    }
    forward_epilogue e = {be->k, vae_act_keeps_input(act) ? aux : NULL, y.ld, b, act};
    vae_cpu_matmul(MATMUL_NT, y.data, y.ld, x.data, x.ld, w, ldw, rows, out, in, finish_forward, &e,
                   be->threads, be->level, be->room);
}

typedef struct {
    const cpu_backend *be;
    float *sums;
    vae_mat m;
    size_t rows, cols;
} column_job;

static void sum_columns(void *ctx, int thread, size_t first, size_t end)
{
    const column_job *a = ctx;
    (void)thread;
    for (size_t c = first * COLUMN_BLOCK; c < end * COLUMN_BLOCK && c < a->cols;
         c += COLUMN_BLOCK) {
        size_t some = a->cols - c < COLUMN_BLOCK ? a->cols - c : COLUMN_BLOCK;
        vae_cpu_some_sums(a->be, a->sums + c, a->m, 0, c, 1, a->rows, some);
    }
}

void vae_cpu_column_sums(cpu_backend *be, float *sums, vae_mat m, size_t rows, size_t cols)
{
    column_job a = {be, sums, m, rows, cols};
    vae_cpu_parallel(be, (cols + COLUMN_BLOCK - 1) / COLUMN_BLOCK, rows * COLUMN_BLOCK, sum_columns,
                     &a);
}

void vae_cpu_linear_backward_weight(vae_backend *base, float *dw, size_t ldw, float *db, vae_mat dy,
                                    vae_mat x, size_t rows, size_t in, size_t out)
{
    cpu_backend *be = vae_cpu_self(base);
    if (be->bf16) {
        vae_cpu_matmul_bf16_tn(dw, ldw, db, vae_cpu_operand(dy), vae_cpu_operand(x), out, in, rows,
                               be->threads, be->level, be->room);
    } else {
        vae_cpu_matmul(MATMUL_TN, dw, ldw, dy.data, dy.ld, x.data, x.ld, out, in, rows, NULL, NULL,
                       be->threads, be->level, be->room);
        if (db != NULL) {
            vae_cpu_column_sums(be, db, dy, rows, out);
        }
    }
}

typedef struct {
    const cpu_kernels *k;
    const float *from;
    size_t ld;
    vae_activation act;
} backward_epilogue;

static void finish_backward(void *ctx, float *c, size_t ldc, size_t row0, size_t col0, size_t rows,
                            size_t cols)
{
    const backward_epilogue *e = ctx;
    e->k->act_grad(c, ldc, e->from + row0 * e->ld + col0, e->ld, rows, cols, e->act);
}

void vae_cpu_linear_backward_input(vae_backend *base, vae_mat dx, float *db, vae_mat dy,
                                   const float *w, size_t ldw, vae_mat x, const void *aux,
                                   size_t rows, size_t in, size_t out, vae_activation act)
{
    cpu_backend *be = vae_cpu_self(base);
    const void *from = vae_act_keeps_input(act) ? aux : x.data;
    if (be->bf16) {
        matmul_bf16 twin;
        bf16_epilogue to = {be, dx, {(void *)(uintptr_t)from, x.ld}, NULL, act};
        if (!vae_cpu_weights(be, &twin, w, ldw)) {
            return;
        }
        vae_cpu_matmul_bf16(MATMUL_NN, vae_cpu_operand(dy), twin, rows, in, out, false,
                            finish_backward_bf16, &to, be->threads, be->level, be->room);
    } else {
        backward_epilogue e = {be->k, from, x.ld, act};
        vae_cpu_matmul(MATMUL_NN, dx.data, dx.ld, dy.data, dy.ld, w, ldw, rows, in, out,
                       act == VAE_ACT_NONE ? NULL : finish_backward, &e, be->threads, be->level,
                       be->room);
    }
    if (db != NULL) {
        vae_cpu_column_sums(be, db, dx, rows, in);
    }
}

void vae_cpu_scale_row(const cpu_backend *be, vae_mat m, size_t r, float factor, size_t cols)
{
    for (size_t j = 0, n; j < cols; j += n) {
        float room[ROW_PIECE], made_room[ROW_PIECE], *made = vae_cpu_make(be, made_room, m, r, j);
        n = vae_cpu_piece(be, cols - j);
        const float *row = vae_cpu_read(be, room, m, r, j, n);
        for (size_t i = 0; i < n; i++) {
            made[i] = row[i] * factor;
        }
        vae_cpu_put(be, m, r, j, made, n);
    }
}
