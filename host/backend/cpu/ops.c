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

enum { ROW_EPS = 1024 }; /* latents whose noise is kept on the stack, per row */

/* A row that is drawn: [mean | logvar] in the data set. */
static void draw_row(const cpu_backend *be, float *x, const vae_dataset *set, size_t row,
                     uint64_t draw, uint64_t seed)
{
    const size_t D = set->d, quads = (D + 3) / 4;
    const float *mean = (const float *)set->rows + row * 2 * D, *logvar = mean + D;
    for (size_t j = 0; j < D; j += ROW_EPS) {
        float eps[ROW_EPS];
        const size_t n = D - j < ROW_EPS ? D - j : ROW_EPS;
        be->k->normals(eps, (n + 3) / 4, seed, vae_rng_stream(VAE_RNG_STACK, row * quads + j / 4),
                       vae_rng_block(draw, 0));
        be->k->latent_row(x + j, NULL, mean + j, logvar + j, eps, n);
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

/* A row of bits that lie as booleans: packed a piece at a time. */
static void unpack_loose(const cpu_backend *be, float *x, const vae_dataset *set, size_t row)
{
    const uint8_t *bools = (const uint8_t *)set->rows + row * set->d;
    uint8_t bits[ROW_EPS / 8];
    for (size_t j = 0; j < set->d; j += ROW_EPS) {
        const size_t n = set->d - j < ROW_EPS ? set->d - j : ROW_EPS;
        vae_pack_bools(bits, bools + j, n);
        be->k->convert_row(x + j, bits, VAE_BITS, n, VAE_BINARIZE_NONE, 0, 0, 0);
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
    const size_t quads = (a->D + 3) / 4;
    (void)thread;
    if (a->data->fetch_ahead > 0 && a->be->cursor + a->data->fetch_ahead < a->be->plan_n) {
        vae_cpu_fetch(a->data, plan + a->data->fetch_ahead, first, end);
    }
    for (size_t r = first; r < end; r++) {
        size_t row = vae_cpu_data_row(a->data, plan, r);
        if (set->draws) {
            draw_row(a->be, vae_cpu_row(a->x, r), set, row, plan->draw, a->seed);
            continue;
        }
        if (set->loose) {
            unpack_loose(a->be, vae_cpu_row(a->x, r), set, row);
            continue;
        }
        a->be->k->convert_row(vae_cpu_row(a->x, r), vae_dataset_row(set, row, NULL), set->dtype,
                              a->D, a->binarize, a->seed,
                              vae_rng_stream(VAE_RNG_BINARIZE, row * quads), block);
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

void vae_cpu_linear_forward(vae_backend *base, vae_mat y, void *aux, vae_mat x, const float *w,
                            size_t ldw, const float *b, size_t rows, size_t in, size_t out,
                            vae_activation act)
{
    cpu_backend *be = vae_cpu_self(base);
    meet_weight(be, w, out * ldw);
    forward_epilogue e = {be->k, vae_act_keeps_input(act) ? aux : NULL, y.ld, b, act};
    vae_cpu_matmul(MATMUL_NT, y.data, y.ld, x.data, x.ld, w, ldw, rows, out, in, finish_forward, &e,
                   be->threads, be->level);
}

typedef struct {
    const cpu_kernels *k;
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
        a->k->column_sums(a->sums + c, (const float *)a->m.data + c, a->m.ld, a->rows, some);
    }
}

void vae_cpu_column_sums(cpu_backend *be, float *sums, vae_mat m, size_t rows, size_t cols)
{
    column_job a = {be->k, sums, m, rows, cols};
    vae_cpu_parallel(be, (cols + COLUMN_BLOCK - 1) / COLUMN_BLOCK, rows * COLUMN_BLOCK, sum_columns,
                     &a);
}

void vae_cpu_linear_backward_weight(vae_backend *base, float *dw, size_t ldw, float *db, vae_mat dy,
                                    vae_mat x, size_t rows, size_t in, size_t out)
{
    cpu_backend *be = vae_cpu_self(base);
    vae_cpu_matmul(MATMUL_TN, dw, ldw, dy.data, dy.ld, x.data, x.ld, out, in, rows, NULL, NULL,
                   be->threads, be->level);
    if (db != NULL) {
        vae_cpu_column_sums(be, db, dy, rows, out);
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
    backward_epilogue e = {be->k, vae_act_keeps_input(act) ? aux : x.data, x.ld, act};
    vae_cpu_matmul(MATMUL_NN, dx.data, dx.ld, dy.data, dy.ld, w, ldw, rows, in, out,
                   act == VAE_ACT_NONE ? NULL : finish_backward, &e, be->threads, be->level);
    if (db != NULL) {
        vae_cpu_column_sums(be, db, dx, rows, in);
    }
}

/* eps of one example and particle into eps: (4*ceil(Z/4)); in pieces of ROW_EPS where Z is larger,
 * so `from` is the first latent wanted (a multiple of 4). */
static void row_normals(const cpu_backend *be, float *eps, size_t from, size_t n, size_t row,
                        size_t k, size_t Z, vae_noise noise)
{
    const vae_plan *plan = vae_cpu_now(be);
    const size_t quads = (Z + 3) / 4;
    uint64_t element = vae_plan_eps(plan, row) * quads + from / 4;
    be->k->normals(eps, (n + 3) / 4, noise.seed, vae_rng_stream(VAE_RNG_EPS, element),
                   vae_rng_block(plan->draw, plan->particle0 + (uint32_t)k));
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
    (void)thread;
    for (size_t r = first; r < end; r++) {
        const float *mu = vae_cpu_row(a->head, r), *logvar = mu + Z;
        a->kl_row[r] = kernels->kl_row(mu, logvar, Z);
        for (size_t k = 0; k < K; k++) {
            float eps[ROW_EPS], part, sum = 0;
            for (size_t j = 0; j < Z; j += ROW_EPS) {
                size_t n = Z - j < ROW_EPS ? Z - j : ROW_EPS;
                row_normals(a->be, eps, j, n, r, k, Z, a->noise);
                kernels->latent_row(vae_cpu_row(a->z, r * K + k) + j,
                                    a->log_pq != NULL ? &part : NULL, mu + j, logvar + j, eps, n);
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
            float mu = vae_cpu_row(a->head, r)[j], logvar = vae_cpu_row(a->head, r)[a->Z + j];
            sum += (double)vae_kl(mu, logvar, vae_expf(logvar));
        }
        a->kl_dim[j] = (float)(sum / (double)a->over);
    }
}

void vae_cpu_kl_dims(vae_backend *base, float *kl_dim, vae_mat head, size_t B, size_t over,
                     size_t Z)
{
    kl_job a = {kl_dim, head, B, over, Z};
    vae_cpu_parallel(vae_cpu_self(base), Z, 8 * B, kl_of_dims, &a);
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

typedef struct {
    const cpu_backend *be;
    vae_mat dhead, dz, head;
    const float *weight, *kl_dim;
    size_t K, Z;
    vae_latent_grad grad;
    vae_noise noise;
} latent_grad_job;

static void latent_grad_rows(void *ctx, int thread, size_t first, size_t end)
{
    const latent_grad_job *a = ctx;
    const float beta = vae_cpu_now(a->be)->beta;
    const size_t K = a->K, Z = a->Z;
    (void)thread;
    for (size_t r = first; r < end; r++) {
        const float *mu = vae_cpu_row(a->head, r), *logvar = mu + Z;
        float *dmu = vae_cpu_row(a->dhead, r), *dlogvar = dmu + Z;
        memset(dmu, 0, 2 * Z * sizeof *dmu);
        for (size_t k = 0; k < K; k++) {
            float eps[ROW_EPS], w = a->weight != NULL ? a->weight[r * K + k] : 1.0f;
            for (size_t j = 0; j < Z; j += ROW_EPS) {
                size_t n = Z - j < ROW_EPS ? Z - j : ROW_EPS;
                row_normals(a->be, eps, j, n, r, k, Z, a->noise);
                a->be->k->latent_grad_row(dmu + j, dlogvar + j, vae_cpu_row(a->dz, r * K + k) + j,
                                          mu + j, logvar + j, eps, n, w, a->grad.kl_scale,
                                          a->grad.objective);
            }
        }
        if (a->grad.objective == VAE_OBJ_ELBO) {
            const float share = a->weight != NULL ? a->weight[r] : 1.0f;
            add_kl_grad(dmu, dlogvar, mu, logvar, a->kl_dim, Z, a->grad.kl_scale * share * beta,
                        a->grad.free_bits);
        }
    }
}

void vae_cpu_latent_backward(vae_backend *base, vae_mat dhead, vae_mat dz, vae_mat head,
                             const float *weight, const float *kl_dim, size_t B, size_t K, size_t Z,
                             vae_latent_grad grad, vae_noise noise)
{
    cpu_backend *be = vae_cpu_self(base);
    latent_grad_job a = {be, dhead, dz, head, weight, kl_dim, K, Z, grad, noise};
    vae_cpu_parallel(be, B, 8 * K * Z, latent_grad_rows, &a);
}

typedef struct {
    const cpu_kernels *k;
    float *recon_row;
    vae_mat dlogits, logits, x;
    size_t K, D;
    vae_recon recon;
    float scale;
} recon_job;

static void recon_rows(void *ctx, int thread, size_t first, size_t end)
{
    const recon_job *a = ctx;
    (void)thread;
    for (size_t r = first; r < end; r++) {
        a->recon_row[r] = a->k->recon_row(
            a->dlogits.data != NULL ? vae_cpu_row(a->dlogits, r) : NULL, vae_cpu_row(a->logits, r),
            vae_cpu_row(a->x, r / a->K), a->D, a->recon, a->scale);
    }
}

void vae_cpu_recon_loss(vae_backend *base, float *recon_row, vae_mat dlogits, float *db,
                        vae_mat logits, vae_mat x, size_t B, size_t K, size_t D, vae_recon recon,
                        float scale)
{
    cpu_backend *be = vae_cpu_self(base);
    recon_job a = {be->k, recon_row, dlogits, logits, x, K, D, recon, scale};
    vae_cpu_parallel(be, B * K, D, recon_rows, &a);
    if (db != NULL) {
        vae_cpu_column_sums(be, db, dlogits, B * K,
                            vae_likelihood_of(recon.likelihood)->outputs * D);
    }
}

void vae_cpu_linear_recon_loss(vae_backend *base, float *recon_row, vae_mat logits, float *db,
                               vae_mat h, const float *w, size_t ldw, const float *b, vae_mat x,
                               size_t B, size_t K, size_t in, size_t D, vae_recon recon,
                               float scale)
{
    const size_t out = vae_likelihood_of(recon.likelihood)->outputs * D;
    void *aux = h.data; /* not used; cppcheck would take a NULL for that of every operation */
    vae_cpu_linear_forward(base, logits, aux, h, w, ldw, b, B * K, in, out, VAE_ACT_NONE);
    vae_cpu_recon_loss(base, recon_row, logits, db, logits, x, B, K, D, recon, scale);
}

typedef struct {
    float *weight, *bound_row;
    vae_mat dlogits;
    const float *recon_row, *log_pq;
    size_t K, cols;
} weight_job;

static void weigh_rows(void *ctx, int thread, size_t first, size_t end)
{
    const weight_job *a = ctx;
    const size_t K = a->K;
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
            a->weight[i] = weight;
            float *row = a->dlogits.data != NULL ? vae_cpu_row(a->dlogits, i) : NULL;
            for (size_t c = 0; row != NULL && c < a->cols; c++) {
                row[c] *= weight;
            }
        }
    }
}

void vae_cpu_particle_weights(vae_backend *base, float *weight, float *bound_row, vae_mat dlogits,
                              float *db, const float *recon_row, const float *log_pq, size_t B,
                              size_t K, size_t cols)
{
    cpu_backend *be = vae_cpu_self(base);
    weight_job a = {weight, bound_row, dlogits, recon_row, log_pq, K, cols};
    vae_cpu_parallel(be, B, K * cols, weigh_rows, &a);
    if (db != NULL) {
        vae_cpu_column_sums(be, db, dlogits, B * K, cols);
    }
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
    adam_job a = {be, params, g, m, v, n, adam, scale};
    vae_cpu_parallel(be, (n + SUM_BLOCK - 1) / SUM_BLOCK, SUM_BLOCK, adam_blocks, &a);
}

typedef struct {
    const cpu_kernels *k;
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
        a->k->decode_row(a->x_hat + r * a->D, vae_cpu_row(a->logits, r), a->D, a->recon);
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
    decode_job a = {be->k, x_hat, logits, D, recon};
    vae_cpu_parallel(be, rows, D, decode_rows, &a);
}
