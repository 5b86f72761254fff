/* The CPU backend's operations of the reconstruction loss, of particles' weights and of a step's
 * totals. Formulas: vae_math.h, model/model.c. */
#include "backend/cpu/cpu.h"

#include <math.h>
#include <string.h>

#include "backend/cpu/matmul.h"

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
        vae_cpu_matmul_bf16(MATMUL_NT, vae_cpu_operand(h), twin, B * K, out, in, true,
                            finish_loss_bf16, &e, be->threads, be->level, be->room);
        if (db != NULL) {
            vae_cpu_column_sums(be, db, logits, B * K, out);
        }
        return;
    }
    void *aux = h.data; /* not used; cppcheck would take a NULL for that of every operation */
    vae_cpu_linear_forward(base, logits, aux, h, w, ldw, b, B * K, in, out, VAE_ACT_NONE);
    vae_cpu_recon_loss(base, recon_row, logits, db, logits, x, B, K, D, recon, scale);
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
    const size_t live = vae_cpu_count_live(weight, B * K);
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

void vae_cpu_decode(vae_backend *base, float *x_hat, vae_mat logits, size_t rows, size_t D,
                    vae_recon recon)
{
    cpu_backend *be = vae_cpu_self(base);
    decode_job a = {be, x_hat, logits, D, recon};
    vae_cpu_parallel(be, rows, D, decode_rows, &a);
}
