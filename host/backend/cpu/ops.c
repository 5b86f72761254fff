/* The CPU backend's operations of the step: matrix products from matmul.c, the loops of
 * kernels.c, spread over threads by rows. */
#include "backend/cpu/cpu.h"
#include "ranks/ranks.h"

#include <assert.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "backend/cpu/matmul.h"
#include "philox.h"

/* Values from j on of a row that is drawn: [mean | logvar] in the data set. */
static void draw_row(const cpu_backend *be, float *x, const vae_dataset *set, size_t row, size_t j0,
                     size_t end, uint64_t draw, uint64_t seed)
{
    const size_t D = set->d, quads = (D + 3) / 4;
    const float *mean = (const float *)set->rows + row * 2 * D, *logvar = mean + D;
    for (size_t j = j0; j < end; j += ROW_PIECE) {
        float eps[ROW_PIECE];
        const size_t n = end - j < ROW_PIECE ? end - j : ROW_PIECE;
        be->k->normals(eps, (n + 3) / 4, seed, vae_rng_stream(VAE_RNG_STACK, row * quads + j / 4),
                       vae_rng_block(draw, 0));
        be->k->latent_row(x + (j - j0), NULL, mean + j, logvar + j, eps, n);
    }
}

void vae_cpu_fetch(const vae_data *data, const vae_plan *plan, size_t first, size_t end)
{
    enum { SOME = 64 };
    uint32_t row[SOME];
    for (size_t at = first; at < end; at += SOME) {
        const size_t n = end - at < SOME ? end - at : SOME;
        for (size_t i = 0; i < n; i++) {
            row[i] = (uint32_t)vae_cpu_data_row(data, plan, at + i);
        }
        vae_dataset_fetch(data->set, row, n);
    }
}

/* Values from j0 on of a row of bits that lie as booleans: packed a piece at a time. */
static void unpack_loose(const cpu_backend *be, float *x, const vae_dataset *set, size_t row,
                         size_t j0, size_t end)
{
    const uint8_t *bools = (const uint8_t *)set->rows + row * set->d;
    uint8_t bits[ROW_PIECE / 8];
    for (size_t j = j0; j < end; j += ROW_PIECE) {
        const size_t n = end - j < ROW_PIECE ? end - j : ROW_PIECE;
        vae_pack_bools(bits, bools + j, n);
        be->k->convert_row(x + (j - j0), bits, VAE_BITS, n, VAE_BINARIZE_NONE, 0, 0, 0);
    }
}

typedef struct {
    const cpu_backend *be;
    vae_mat x;
    const vae_data *data;
    size_t D;
    vae_binarize binarize;
    uint64_t seed;
} gathering;

static void gather_rows(void *ctx, int thread, size_t first, size_t end)
{
    const gathering *a = ctx;
    const vae_plan *plan = vae_cpu_now(a->be);
    const vae_dataset *set = a->data->set;
    const uint64_t block = a->binarize == VAE_BINARIZE_DYNAMIC ? vae_rng_block(plan->draw, 0) : 0;
    const size_t quads = (a->D + 3) / 4, stride = vae_dataset_stride(set);
    (void)thread;
    if (a->data->fetch_ahead > 0 && a->be->cursor + a->data->fetch_ahead < a->be->plan_n) {
        vae_cpu_fetch(a->data, plan + a->data->fetch_ahead, first, end);
    }
    for (size_t r = first; r < end; r++) {
        const size_t row = vae_cpu_data_row(a->data, plan, r);
        if (r + 1 < end) { /* rows lie anywhere; of a long one the beginning will do */
            const size_t next = vae_cpu_data_row(a->data, plan, r + 1);
            vae_cpu_prefetch((const char *)set->rows + next * stride,
                             stride < ROW_PIECE ? stride : ROW_PIECE);
        }
        for (size_t j = 0, some; j < a->D; j += some) {
            float room[ROW_PIECE], *x = vae_cpu_make(a->be, room, a->x, r, j);
            some = vae_cpu_piece(a->be, a->D - j);
            if (set->draws) {
                draw_row(a->be, x, set, row, j, j + some, plan->draw, a->seed);
            } else if (set->loose) {
                unpack_loose(a->be, x, set, row, j, j + some);
            } else {
                const char *from = vae_dataset_row(set, row, NULL);
                a->be->k->convert_row(x, from + vae_row_bytes(set->dtype, j), set->dtype, some,
                                      a->binarize, a->seed,
                                      vae_rng_stream(VAE_RNG_BINARIZE, row * quads + j / 4), block);
            }
            vae_cpu_put(a->be, a->x, r, j, x, some);
        }
    }
}

void vae_cpu_gather(vae_backend *base, vae_mat x, vae_data *data, size_t B, size_t D,
                    vae_binarize binarize, uint64_t seed)
{
    cpu_backend *be = vae_cpu_self(base);
    gathering a = {be, x, data, D, binarize, seed};
    vae_cpu_parallel(be, B, D, gather_rows, &a);
}

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

/* ---- where weights lie ---- */

/* A product's shares are rows of the weight, of its gradient too: the first half of each weight is
 * one of two threads'. The loops over blocks of all parameters go in the order of blocks' places
 * within their weights, so that the first half of these loops is the first half of every weight,
 * and what a thread updates is in its caches when it next needs it. Where processors do not share a
 * cache, that is most of the traffic between them. */
typedef struct {
    double place; /* 0 .. 1 */
    size_t block;
} block_place;

static int by_place(const void *a, const void *b)
{
    const block_place *x = a, *y = b;
    const int before = (x->place > y->place) - (x->place < y->place);
    return before != 0 ? before : (x->block > y->block) - (x->block < y->block);
}

static double place_of(const cpu_backend *be, size_t block)
{
    const size_t middle = block * SUM_BLOCK + SUM_BLOCK / 2;
    for (size_t i = 0; i < be->n_weights; i++) {
        const vae_cpu_weight *w = &be->weight[i];
        if (middle >= w->first && middle - w->first < w->n) {
            return (double)(middle - w->first) / (double)w->n;
        }
    }
    return (double)middle / (double)(be->n_params + SUM_BLOCK);
}

static void order_blocks(cpu_backend *be)
{
    const size_t n = (be->n_params + SUM_BLOCK - 1) / SUM_BLOCK;
    block_place *places = malloc((n + 1) * sizeof *places);
    for (size_t i = 0; i < n; i++) {
        be->order[i] = i;
        if (places != NULL) {
            places[i] = (block_place){place_of(be, i), i};
        }
    }
    if (places != NULL) { /* without it, slower */
        qsort(places, n, sizeof *places, by_place);
        for (size_t i = 0; i < n; i++) {
            be->order[i] = places[i].block;
        }
    }
    free(places);
}

/* The i-th block of a flat buffer of n floats that a loop over them is to take. */
static size_t block_at(const cpu_backend *be, size_t n, size_t i)
{
    return be->n_weights > 0 && n == be->n_params ? be->order[i] : i;
}

/* w: n floats, the same at every step; its place is learnt when it is met first. */
static void meet_weight(cpu_backend *be, const float *w, size_t n)
{
    if (be->params == NULL || w < be->params || w >= be->params + be->n_params) {
        return;
    }
    const size_t first = (size_t)(w - be->params);
    size_t i = 0;
    while (i < be->n_weights && be->weight[i].first != first) {
        i++;
    }
    if (i == be->n_weights && i < MOST_WEIGHTS) {
        be->weight[be->n_weights++] = (vae_cpu_weight){first, n};
        order_blocks(be);
    }
}

/* ---- layers ---- */

static matmul_bf16 operand(vae_mat m)
{
    return (matmul_bf16){m.data, m.ld};
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
    meet_weight(be, w, out * ldw);
    if (be->bf16) {
        matmul_bf16 twin;
        bf16_epilogue to = {be, y, {vae_act_keeps_input(act) ? aux : NULL, y.ld}, b, act};
        if (vae_cpu_weights(be, &twin, w, ldw)) {
            vae_cpu_matmul_bf16(MATMUL_NT, operand(x), twin, rows, out, in, false,
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
        vae_cpu_matmul_bf16_tn(dw, ldw, db, operand(dy), operand(x), out, in, rows, be->threads,
                               be->level, be->room);
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
        vae_cpu_matmul_bf16(MATMUL_NN, operand(dy), twin, rows, in, out, false,
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

/* Normals of the row at hand, and of some after it: few latents fill a part of the kernel's lanes,
 * the next rows' the others. Begins with rows = 0. */
typedef struct {
    size_t row, rows;
    float eps[ROW_PIECE]; /* (rows,4*ceil(Z/4)), or a piece of one row */
} drawn_rows;

/* eps of one example and particle: (n), from latent `from` on, a multiple of 4; n <= ROW_PIECE. Good
 * until the next call. */
static const float *row_normals(const cpu_backend *be, drawn_rows *drawn, size_t from, size_t n,
                                size_t row, size_t k, size_t K, size_t Z, vae_noise noise)
{
    const vae_plan *plan = vae_cpu_now(be);
    const size_t quads = (Z + 3) / 4;
    if (drawn->rows > 0 && row >= drawn->row && row - drawn->row < drawn->rows) {
        return drawn->eps + (row - drawn->row) * 4 * quads;
    }
    size_t rows = 0, groups = (n + 3) / 4;
    if (K == 1 && quads <= NORMAL_GROUPS / 2) {
        rows = NORMAL_GROUPS / quads;
        if (row < plan->eps_at && plan->eps_at - row < rows) {
            rows = (size_t)plan->eps_at - row;
        }
        groups = rows * quads;
    }
    drawn->row = row;
    drawn->rows = rows;
    const uint64_t element = vae_plan_eps(plan, row) * quads + from / 4;
    be->k->normals(drawn->eps, groups, noise.seed, vae_rng_stream(VAE_RNG_EPS, element),
                   vae_rng_block(plan->draw, plan->particle0 + (uint32_t)k));
    return drawn->eps;
}

typedef struct {
    const cpu_backend *be;
    vae_mat z;
    float *kl_row, *log_pq;
    vae_mat head;
    size_t K, Z;
    vae_noise noise;
} latent_job;

static void latent_rows(void *ctx, int thread, size_t first, size_t end)
{
    const latent_job *a = ctx;
    const cpu_kernels *kernels = a->be->k;
    const size_t K = a->K, Z = a->Z;
    drawn_rows drawn;
    drawn.rows = 0;
    (void)thread;
    for (size_t r = first; r < end; r++) {
        float room[ROW_PIECE], mu_room[ROW_PIECE], logvar_room[ROW_PIECE], kl = 0;
        for (size_t j = 0, n; j < Z; j += n) {
            n = vae_cpu_piece(a->be, Z - j);
            kl += kernels->kl_row(vae_cpu_read(a->be, mu_room, a->head, r, j, n),
                                  vae_cpu_read(a->be, logvar_room, a->head, r, Z + j, n), n);
        }
        a->kl_row[r] = kl;
        for (size_t k = 0; k < K; k++) {
            float part, sum = 0;
            for (size_t j = 0; j < Z; j += ROW_PIECE) {
                size_t n = Z - j < ROW_PIECE ? Z - j : ROW_PIECE;
                float *z = vae_cpu_make(a->be, room, a->z, r * K + k, j);
                const float *eps = row_normals(a->be, &drawn, j, n, r, k, K, Z, a->noise);
                kernels->latent_row(z, a->log_pq != NULL ? &part : NULL,
                                    vae_cpu_read(a->be, mu_room, a->head, r, j, n),
                                    vae_cpu_read(a->be, logvar_room, a->head, r, Z + j, n), eps, n);
                vae_cpu_put(a->be, a->z, r * K + k, j, z, n);
                sum += a->log_pq != NULL ? part : 0.0f;
            }
            if (a->log_pq != NULL) {
                a->log_pq[r * K + k] = sum;
            }
        }
    }
}

void vae_cpu_latent_forward(vae_backend *base, vae_mat z, float *kl_row, float *log_pq,
                            vae_mat head, size_t B, size_t K, size_t Z, vae_noise noise)
{
    cpu_backend *be = vae_cpu_self(base);
    latent_job a = {be, z, kl_row, log_pq, head, K, Z, noise};
    vae_cpu_parallel(be, B, 8 * K * Z, latent_rows, &a);
}

typedef struct {
    const cpu_backend *be;
    float *kl_dim;
    vae_mat head;
    size_t B, over, Z;
} kl_job;

static void kl_of_dims(void *ctx, int thread, size_t first, size_t end)
{
    const kl_job *a = ctx;
    (void)thread;
    for (size_t j = first; j < end; j++) {
        double sum = 0;
        for (size_t r = 0; r < a->B; r++) {
            const float mu = vae_cpu_get(a->be, a->head, r, j);
            const float logvar = vae_cpu_get(a->be, a->head, r, a->Z + j);
            sum += (double)vae_kl(mu, logvar, vae_expf(logvar));
        }
        a->kl_dim[j] = (float)(sum / (double)a->over);
    }
}

void vae_cpu_kl_dims(vae_backend *base, float *kl_dim, vae_mat head, size_t B, size_t over,
                     size_t Z)
{
    cpu_backend *be = vae_cpu_self(base);
    kl_job a = {be, kl_dim, head, B, over, Z};
    vae_cpu_parallel(be, Z, 8 * B, kl_of_dims, &a);
}

static void add_kl_grad(float *dmu, float *dlogvar, const float *mu, const float *logvar,
                        const float *kl_dim, size_t Z, float weight, float free_bits)
{
    for (size_t j = 0; j < Z; j++) {
        float s = kl_dim != NULL && kl_dim[j] <= free_bits ? 0.0f : weight;
        dmu[j] += s * mu[j];
        dlogvar[j] += s * vae_dkl_dlogvar(vae_expf(logvar[j]));
    }
}

/* How many of n weights are not 0. */
static size_t count_live(const float *weight, size_t n)
{
    size_t live = 0;
    for (size_t i = 0; i < n; i++) {
        live += weight[i] != 0.0f;
    }
    return live;
}

typedef struct {
    const cpu_backend *be;
    vae_mat dhead, dz, head;
    const float *weight, *kl_dim;
    bool drops; /* dz lacks rows of weight 0 */
    size_t K, Z;
    vae_latent_grad grad;
    vae_noise noise;
} latent_grad_job;

/* Latents j .. j+n-1 of one example, n <= ROW_PIECE; its first row of dz. */
static void latent_grad_piece(const latent_grad_job *a, drawn_rows *drawn, size_t r, size_t dz_row,
                              size_t j, size_t n)
{
    const cpu_backend *be = a->be;
    const size_t K = a->K, Z = a->Z;
    float mu_room[ROW_PIECE], logvar_room[ROW_PIECE], dmu_room[ROW_PIECE], dlogvar_room[ROW_PIECE];
    const float *mu = vae_cpu_read(be, mu_room, a->head, r, j, n);
    const float *logvar = vae_cpu_read(be, logvar_room, a->head, r, Z + j, n);
    float *dmu = vae_cpu_make(be, dmu_room, a->dhead, r, j);
    float *dlogvar = vae_cpu_make(be, dlogvar_room, a->dhead, r, Z + j);
    memset(dmu, 0, n * sizeof *dmu);
    memset(dlogvar, 0, n * sizeof *dlogvar);
    for (size_t k = 0; k < K; k++) {
        float room[ROW_PIECE], w = a->weight != NULL ? a->weight[r * K + k] : 1.0f;
        if (a->drops && w == 0.0f) {
            continue;
        }
        const float *eps = row_normals(be, drawn, j, n, r, k, K, Z, a->noise);
        be->k->latent_grad_row(dmu, dlogvar, vae_cpu_read(be, room, a->dz, dz_row++, j, n), mu,
                               logvar, eps, n, w, a->grad.kl_scale, a->grad.objective);
    }
    if (a->grad.objective == VAE_OBJ_ELBO) {
        const float share = a->weight != NULL ? a->weight[r] : 1.0f;
        add_kl_grad(dmu, dlogvar, mu, logvar, a->kl_dim != NULL ? a->kl_dim + j : NULL, n,
                    a->grad.kl_scale * share * vae_cpu_now(be)->beta, a->grad.free_bits);
    }
    vae_cpu_put(be, a->dhead, r, j, dmu, n);
    vae_cpu_put(be, a->dhead, r, Z + j, dlogvar, n);
}

static void latent_grad_rows(void *ctx, int thread, size_t first, size_t end)
{
    const latent_grad_job *a = ctx;
    const size_t K = a->K;
    size_t dz_row = a->drops ? count_live(a->weight, first * K) : first * K;
    drawn_rows drawn;
    drawn.rows = 0;
    (void)thread;
    for (size_t r = first; r < end; r++) {
        for (size_t j = 0; j < a->Z; j += ROW_PIECE) {
            latent_grad_piece(a, &drawn, r, dz_row, j, a->Z - j < ROW_PIECE ? a->Z - j : ROW_PIECE);
        }
        dz_row += a->drops ? count_live(a->weight + r * K, K) : K;
    }
}

void vae_cpu_latent_backward(vae_backend *base, vae_mat dhead, vae_mat dz, vae_mat head,
                             const float *weight, const float *kl_dim, size_t B, size_t K, size_t Z,
                             vae_latent_grad grad, vae_noise noise)
{
    cpu_backend *be = vae_cpu_self(base);
    const bool drops = grad.objective != VAE_OBJ_ELBO;
    latent_grad_job a = {be, dhead, dz, head, weight, kl_dim, drops, K, Z, grad, noise};
    vae_cpu_parallel(be, B, 8 * K * Z, latent_grad_rows, &a);
}

typedef struct {
    const cpu_backend *be;
    float *recon_row;
    vae_mat dlogits, logits, x;
    size_t K, D;
    vae_recon recon;
    float scale;
} recon_job;

/* The loss of a row of bf16: pieces of every output of the decoder side by side. */
static float recon_of_bf16(const recon_job *a, size_t r)
{
    enum { MOST_OUTPUTS = 2 };
    const size_t outputs = vae_likelihood_of(a->recon.likelihood)->outputs;
    float l[MOST_OUTPUTS * ROW_PIECE], x[ROW_PIECE], sum = 0;
    for (size_t j = 0, n; j < a->D; j += n) {
        n = vae_cpu_piece(a->be, a->D - j);
        for (size_t i = 0; i < outputs; i++) {
            vae_cpu_read(a->be, l + i * n, a->logits, r, i * a->D + j, n);
        }
        sum += a->be->k->recon_row(a->dlogits.data != NULL ? l : NULL, l,
                                   vae_cpu_read(a->be, x, a->x, r / a->K, j, n), n, a->recon,
                                   a->scale);
        for (size_t i = 0; a->dlogits.data != NULL && i < outputs; i++) {
            vae_cpu_put(a->be, a->dlogits, r, i * a->D + j, l + i * n, n);
        }
    }
    return sum;
}

static void recon_rows(void *ctx, int thread, size_t first, size_t end)
{
    const recon_job *a = ctx;
    (void)thread;
    for (size_t r = first; r < end; r++) {
        a->recon_row[r] =
            a->be->bf16
                ? recon_of_bf16(a, r)
                : a->be->k->recon_row(a->dlogits.data != NULL ? vae_cpu_row(a->dlogits, r) : NULL,
                                      vae_cpu_row(a->logits, r), vae_cpu_row(a->x, r / a->K), a->D,
                                      a->recon, a->scale);
    }
}

void vae_cpu_recon_loss(vae_backend *base, float *recon_row, vae_mat dlogits, float *db,
                        vae_mat logits, vae_mat x, size_t B, size_t K, size_t D, vae_recon recon,
                        float scale)
{
    cpu_backend *be = vae_cpu_self(base);
    recon_job a = {be, recon_row, dlogits, logits, x, K, D, recon, scale};
    vae_cpu_parallel(be, B * K, D, recon_rows, &a);
    if (db != NULL) {
        vae_cpu_column_sums(be, db, dlogits, B * K,
                            vae_likelihood_of(recon.likelihood)->outputs * D);
    }
}

typedef struct {
    const recon_job *a;
    const float *b;
} loss_epilogue;

/* Of tiles in order: a row's loss is the sum of its tiles'. */
static void finish_loss_bf16(void *ctx, float *c, size_t ldc, size_t row0, size_t col0, size_t rows,
                             size_t cols)
{
    const loss_epilogue *e = ctx;
    const recon_job *a = e->a;
    for (size_t r = row0; r < row0 + rows; r++, c += ldc) {
        float room[MATMUL_BF16_COLS];
        const float *x = vae_cpu_read(a->be, room, a->x, r / a->K, col0, cols);
        if (r + 1 < row0 + rows) {
            vae_cpu_prefetch(vae_cpu_bf16(a->x, (r + 1) / a->K, col0), cols * sizeof(uint16_t));
        }
        a->be->k->bias_act(c, NULL, ldc, e->b + col0, 1, cols, VAE_ACT_NONE);
        const float part = a->be->k->recon_row(c, c, x, cols, a->recon, a->scale);
        a->recon_row[r] = col0 == 0 ? part : a->recon_row[r] + part;
        vae_cpu_put(a->be, a->dlogits, r, col0, c, cols);
    }
}

void vae_cpu_linear_recon_loss(vae_backend *base, float *recon_row, vae_mat logits, float *db,
                               vae_mat h, const float *w, size_t ldw, const float *b, vae_mat x,
                               size_t B, size_t K, size_t in, size_t D, vae_recon recon,
                               float scale)
{
    enum { ROWS_IN_ORDER = 256 }; /* fewer are shared among threads by columns */
    cpu_backend *be = vae_cpu_self(base);
    const size_t outputs = vae_likelihood_of(recon.likelihood)->outputs, out = outputs * D;
    if (be->bf16 && outputs == 1 && B * K >= ROWS_IN_ORDER) {
        matmul_bf16 twin;
        recon_job a = {be, recon_row, logits, {NULL, 0}, x, K, D, recon, scale};
        loss_epilogue e = {&a, b};
        if (!vae_cpu_weights(be, &twin, w, ldw)) {
            return;
        }
        vae_cpu_matmul_bf16(MATMUL_NT, operand(h), twin, B * K, out, in, true, finish_loss_bf16, &e,
                            be->threads, be->level, be->room);
        if (db != NULL) {
            vae_cpu_column_sums(be, db, logits, B * K, out);
        }
        return;
    }
    void *aux = h.data; /* not used; cppcheck would take a NULL for that of every operation */
    vae_cpu_linear_forward(base, logits, aux, h, w, ldw, b, B * K, in, out, VAE_ACT_NONE);
    vae_cpu_recon_loss(base, recon_row, logits, db, logits, x, B, K, D, recon, scale);
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

typedef struct {
    float *weight, *bound_row;
    const float *recon_row, *log_pq;
    size_t K;
} weight_job;

static void weigh_particles(void *ctx, int thread, size_t first, size_t end)
{
    const weight_job *a = ctx;
    const size_t K = a->K;
    const float floor = vae_weight_floor(K);
    (void)thread;
    for (size_t r = first; r < end; r++) {
        double most = -INFINITY, sum = 0;
        for (size_t i = r * K; i < (r + 1) * K; i++) {
            double log_w = (double)a->log_pq[i] - (double)a->recon_row[i];
            /* this way round a NaN is taken, not passed over */
            most = log_w <= most ? most : log_w;
        }
        for (size_t i = r * K; i < (r + 1) * K; i++) {
            sum += exp((double)a->log_pq[i] - (double)a->recon_row[i] - most);
        }
        a->bound_row[r] = (float)-(most + log(sum / (double)K));
        for (size_t i = r * K; i < (r + 1) * K; i++) {
            const float weight =
                (float)(exp((double)a->log_pq[i] - (double)a->recon_row[i] - most) / sum);
            a->weight[i] = weight < floor ? 0.0f : weight;
        }
    }
}

/* Rows of particles that no gradient passes are left out of the backward pass, two thirds of a step
 * with many particles: `weight` says which, and every matrix is moved together in the same way. */
typedef struct {
    const cpu_backend *be;
    vae_mat m;
    const float *weight;
    size_t rows, cols;
    bool scale; /* multiply by the weight, too */
} drop_job;

enum { DROP_COLS = 16 }; /* a thread takes a multiple of these columns, of all rows */

/* Columns c .. c+n-1, n <= ROW_PIECE with bf16; rows move up, so in their order. */
static void drop_in_columns(const drop_job *a, size_t c, size_t n)
{
    const size_t size = a->be->bf16 ? sizeof(uint16_t) : sizeof(float);
    char *const base = (char *)a->m.data + c * size;
    size_t to = 0;
    for (size_t r = 0; r < a->rows; r++) {
        const float weight = a->weight[r];
        if (weight == 0.0f) {
            continue;
        }
        if (a->scale) {
            float room[ROW_PIECE], made_room[ROW_PIECE];
            const float *from = vae_cpu_read(a->be, room, a->m, r, c, n);
            float *made = vae_cpu_make(a->be, made_room, a->m, to, c);
            for (size_t i = 0; i < n; i++) {
                made[i] = from[i] * weight;
            }
            vae_cpu_put(a->be, a->m, to, c, made, n);
        } else if (to < r) {
            memcpy(base + to * a->m.ld * size, base + r * a->m.ld * size, n * size);
        }
        to++;
    }
}

static void drop_columns(void *ctx, int thread, size_t first, size_t end)
{
    const drop_job *a = ctx;
    const size_t end_col = end * DROP_COLS < a->cols ? end * DROP_COLS : a->cols;
    (void)thread;
    for (size_t c = first * DROP_COLS, n; c < end_col; c += n) {
        n = vae_cpu_piece(a->be, end_col - c);
        drop_in_columns(a, c, n);
    }
}

static void drop(drop_job *a)
{
    const size_t n = (a->cols + DROP_COLS - 1) / DROP_COLS, threads = (size_t)a->be->threads;
    if (a->rows * a->cols < PARALLEL_FLOATS) {
        drop_columns(a, 0, 0, n);
    } else {
        vae_parallel(a->be->threads, n, (n + threads - 1) / threads, drop_columns, a);
    }
}

void vae_cpu_drop_rows(vae_backend *base, vae_mat m, const float *weight, size_t rows, size_t cols)
{
    drop_job a = {vae_cpu_self(base), m, weight, rows, cols, false};
    drop(&a);
}

size_t vae_cpu_particle_weights(vae_backend *base, float *weight, float *bound_row, vae_mat dlogits,
                                float *db, const float *recon_row, const float *log_pq, size_t B,
                                size_t K, size_t cols)
{
    cpu_backend *be = vae_cpu_self(base);
    weight_job a = {weight, bound_row, recon_row, log_pq, K};
    vae_cpu_parallel(be, B, 32 * K, weigh_particles, &a);
    const size_t live = count_live(weight, B * K);
    if (dlogits.data != NULL) {
        drop_job scaled = {be, dlogits, weight, B * K, cols, true};
        drop(&scaled);
    }
    if (db != NULL) {
        vae_cpu_column_sums(be, db, dlogits, live, cols);
    }
    return live;
}

void vae_cpu_accumulate(vae_backend *base, vae_totals *totals, const float *recon_row,
                        const float *kl_row, const float *bound_row, const float *kl_dim, size_t B,
                        size_t K, size_t Z, float free_bits)
{
    const vae_plan *plan = vae_cpu_now(vae_cpu_self(base));
    double recon = vae_cpu_sum(recon_row, B * K) / (double)K, kl = vae_cpu_sum(kl_row, B);
    double penalty = kl, objective;
    if (kl_dim != NULL) {
        penalty = 0;
        for (size_t j = 0; j < Z; j++) {
            penalty += (double)B * (double)(kl_dim[j] > free_bits ? kl_dim[j] : free_bits);
        }
    }
    objective =
        bound_row != NULL ? vae_cpu_sum(bound_row, B) : recon + (double)plan->beta * penalty;
    totals->recon += recon;
    totals->kl += kl;
    totals->objective += objective;
    totals->examples += (double)B;
    if (totals->bad_step == 0 && !isfinite(recon + kl + objective)) {
        totals->bad_step = plan->step;
    }
}

typedef struct {
    const cpu_backend *be;
    const float *g;
    size_t n;
} norm_job;

static void sum_blocks(void *ctx, int thread, size_t begin, size_t end)
{
    const norm_job *a = ctx;
    (void)thread;
    for (size_t at = begin; at < end; at++) {
        const size_t i = block_at(a->be, a->n, at);
        size_t first = i * SUM_BLOCK, most = a->n - first < SUM_BLOCK ? a->n - first : SUM_BLOCK;
        a->be->partial[i] = a->be->k->sum_squares(a->g + first, most);
    }
}

void vae_cpu_grad_norm(vae_backend *base, vae_totals *totals, const float *g, size_t n)
{
    cpu_backend *be = vae_cpu_self(base);
    const size_t blocks = (n + SUM_BLOCK - 1) / SUM_BLOCK;
    assert(blocks <= be->n_blocks);
    norm_job a = {be, g, n};
    vae_cpu_parallel(be, blocks, SUM_BLOCK, sum_blocks, &a);
    double sum = 0;
    for (size_t i = 0; i < blocks; i++) {
        sum += be->partial[i];
    }
    totals->grad_norm = sqrt(sum);
    if (totals->bad_step == 0 && !isfinite(sum)) {
        totals->bad_step = vae_cpu_now(be)->step;
    }
}

typedef struct {
    const cpu_backend *be;
    float *params;
    uint16_t *twin; /* of params, or NULL */
    const float *g;
    float *m, *v;
    size_t n;
    vae_adam adam;
    float scale;
} adam_job;

static void adam_blocks(void *ctx, int thread, size_t begin, size_t end)
{
    const adam_job *a = ctx;
    const vae_plan *plan = vae_cpu_now(a->be);
    (void)thread;
    for (size_t i = begin; i < end; i++) {
        const size_t first = block_at(a->be, a->n, i) * SUM_BLOCK;
        const size_t most = a->n - first < SUM_BLOCK ? a->n - first : SUM_BLOCK;
        a->be->k->adam(a->params + first, a->g + first, a->m + first, a->v + first, most, &a->adam,
                       a->scale, plan->lr, plan->step_size, plan->rsqrt_c2);
        if (a->twin != NULL) {
            a->be->k->narrow(a->twin + first, a->params + first, most);
        }
    }
}

void vae_cpu_adam(vae_backend *base, float *params, const float *g, float *m, float *v, size_t n,
                  const vae_totals *totals, vae_adam adam, float clip_norm)
{
    cpu_backend *be = vae_cpu_self(base);
    if (totals->bad_step != 0) {
        return;
    }
    bool clip = clip_norm > 0 && totals->grad_norm > (double)clip_norm;
    float scale = clip ? (float)((double)clip_norm / totals->grad_norm) : 1.0f;
    adam_job a = {be, params, vae_cpu_twin(be, params), g, m, v, n, adam, scale};
    vae_cpu_parallel(be, (n + SUM_BLOCK - 1) / SUM_BLOCK, SUM_BLOCK, adam_blocks, &a);
}

typedef struct {
    const cpu_backend *be;
    float *x_hat;
    vae_mat logits;
    size_t D;
    vae_recon recon;
} decode_job;

static void decode_rows(void *ctx, int thread, size_t first, size_t end)
{
    const decode_job *a = ctx;
    (void)thread;
    for (size_t r = first; r < end; r++) {
        for (size_t j = 0, n; j < a->D; j += n) {
            float room[ROW_PIECE];
            n = vae_cpu_piece(a->be, a->D - j);
            a->be->k->decode_row(a->x_hat + r * a->D + j,
                                 vae_cpu_read(a->be, room, a->logits, r, j, n), n, a->recon);
        }
    }
}

void vae_cpu_sum_ranks(vae_backend *base, float *v, size_t n, bool adds, bool later,
                       const vae_totals *totals)
{
    cpu_backend *be = vae_cpu_self(base);
    (void)later;
    if (be->err.status != VAE_OK) {
        return;
    }
    if (!adds) {
        memset(v, 0, n * sizeof *v);
    }
    if (totals != NULL && totals->bad_step != 0) {
        v[0] = NAN;
    }
    vae_ranks_sum_floats(base->ranks, v, n, &be->err);
}

void vae_cpu_decode(vae_backend *base, float *x_hat, vae_mat logits, size_t rows, size_t D,
                    vae_recon recon)
{
    cpu_backend *be = vae_cpu_self(base);
    decode_job a = {be, x_hat, logits, D, recon};
    vae_cpu_parallel(be, rows, D, decode_rows, &a);
}
