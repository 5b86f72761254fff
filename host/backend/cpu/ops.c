/* The CPU backend's operations of the step: matrix products from matmul.c, the loops of
 * kernels.c, spread over threads by rows. */
#include "backend/cpu/cpu.h"
#include "ranks/ranks.h"

#include <assert.h>
#include <math.h>
#include <omp.h>
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

void vae_cpu_gather(vae_backend *base, vae_mat x, vae_data *data, size_t B, size_t D,
                    vae_binarize binarize, uint64_t seed)
{
    cpu_backend *be = vae_cpu_self(base);
    const vae_plan *plan = vae_cpu_now(be);
    const vae_dataset *set = data->set;
    const uint64_t block = binarize == VAE_BINARIZE_DYNAMIC ? vae_rng_block(plan->draw, 0) : 0;
    const size_t quads = (D + 3) / 4, row_bytes = vae_row_bytes(set->dtype, D);
#pragma omp parallel for num_threads(vae_cpu_threads(be, B *D)) schedule(static)
    for (size_t r = 0; r < B; r++) {
        size_t row = vae_cpu_data_row(data, plan, r);
        if (set->draws) {
            draw_row(be, vae_cpu_row(x, r), set, row, plan->draw, seed);
            continue;
        }
        be->k->convert_row(vae_cpu_row(x, r), (const char *)set->rows + row * row_bytes, set->dtype,
                           D, binarize, seed, vae_rng_stream(VAE_RNG_BINARIZE, row * quads), block);
    }
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

void vae_cpu_linear_forward(vae_backend *base, vae_mat y, void *aux, vae_mat x, const float *w,
                            size_t ldw, const float *b, size_t rows, size_t in, size_t out,
                            vae_activation act)
{
    cpu_backend *be = vae_cpu_self(base);
    forward_epilogue e = {be->k, vae_act_keeps_input(act) ? aux : NULL, y.ld, b, act};
    vae_cpu_matmul(MATMUL_NT, y.data, y.ld, x.data, x.ld, w, ldw, rows, out, in, finish_forward, &e,
                   be->threads, be->level);
}

void vae_cpu_column_sums(cpu_backend *be, float *sums, vae_mat m, size_t rows, size_t cols)
{
#pragma omp parallel for num_threads(vae_cpu_threads(be, rows *cols)) schedule(static)
    for (size_t c = 0; c < cols; c += COLUMN_BLOCK) {
        size_t some = cols - c < COLUMN_BLOCK ? cols - c : COLUMN_BLOCK;
        be->k->column_sums(sums + c, (const float *)m.data + c, m.ld, rows, some);
    }
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

void vae_cpu_latent_forward(vae_backend *base, vae_mat z, float *kl_row, float *log_pq,
                            vae_mat head, size_t B, size_t K, size_t Z, vae_noise noise)
{
    cpu_backend *be = vae_cpu_self(base);
#pragma omp parallel for num_threads(vae_cpu_threads(be, 8 * B * K * Z)) schedule(static)
    for (size_t r = 0; r < B; r++) {
        const float *mu = vae_cpu_row(head, r), *logvar = mu + Z;
        kl_row[r] = be->k->kl_row(mu, logvar, Z);
        for (size_t k = 0; k < K; k++) {
            float eps[ROW_EPS], part, sum = 0;
            for (size_t j = 0; j < Z; j += ROW_EPS) {
                size_t n = Z - j < ROW_EPS ? Z - j : ROW_EPS;
                row_normals(be, eps, j, n, r, k, Z, noise);
                be->k->latent_row(vae_cpu_row(z, r * K + k) + j, log_pq != NULL ? &part : NULL,
                                  mu + j, logvar + j, eps, n);
                sum += log_pq != NULL ? part : 0.0f;
            }
            if (log_pq != NULL) {
                log_pq[r * K + k] = sum;
            }
        }
    }
}

void vae_cpu_kl_dims(vae_backend *base, float *kl_dim, vae_mat head, size_t B, size_t over,
                     size_t Z)
{
    cpu_backend *be = vae_cpu_self(base);
#pragma omp parallel for num_threads(vae_cpu_threads(be, 8 * B * Z)) schedule(static)
    for (size_t j = 0; j < Z; j++) {
        double sum = 0;
        for (size_t r = 0; r < B; r++) {
            float mu = vae_cpu_row(head, r)[j], logvar = vae_cpu_row(head, r)[Z + j];
            sum += (double)vae_kl(mu, logvar, vae_expf(logvar));
        }
        kl_dim[j] = (float)(sum / (double)over);
    }
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

void vae_cpu_latent_backward(vae_backend *base, vae_mat dhead, vae_mat dz, vae_mat head,
                             const float *weight, const float *kl_dim, size_t B, size_t K, size_t Z,
                             vae_latent_grad grad, vae_noise noise)
{
    cpu_backend *be = vae_cpu_self(base);
    const float beta = vae_cpu_now(be)->beta;
#pragma omp parallel for num_threads(vae_cpu_threads(be, 8 * B * K * Z)) schedule(static)
    for (size_t r = 0; r < B; r++) {
        const float *mu = vae_cpu_row(head, r), *logvar = mu + Z;
        float *dmu = vae_cpu_row(dhead, r), *dlogvar = dmu + Z;
        memset(dmu, 0, 2 * Z * sizeof *dmu);
        for (size_t k = 0; k < K; k++) {
            float eps[ROW_EPS], w = weight != NULL ? weight[r * K + k] : 1.0f;
            for (size_t j = 0; j < Z; j += ROW_EPS) {
                size_t n = Z - j < ROW_EPS ? Z - j : ROW_EPS;
                row_normals(be, eps, j, n, r, k, Z, noise);
                be->k->latent_grad_row(dmu + j, dlogvar + j, vae_cpu_row(dz, r * K + k) + j, mu + j,
                                       logvar + j, eps, n, w, grad.kl_scale, grad.objective);
            }
        }
        if (grad.objective == VAE_OBJ_ELBO) {
            const float share = weight != NULL ? weight[r] : 1.0f;
            add_kl_grad(dmu, dlogvar, mu, logvar, kl_dim, Z, grad.kl_scale * share * beta,
                        grad.free_bits);
        }
    }
}

void vae_cpu_recon_loss(vae_backend *base, float *recon_row, vae_mat dlogits, float *db,
                        vae_mat logits, vae_mat x, size_t B, size_t K, size_t D, vae_recon recon,
                        float scale)
{
    cpu_backend *be = vae_cpu_self(base);
#pragma omp parallel for num_threads(vae_cpu_threads(be, B *K *D)) schedule(static)
    for (size_t r = 0; r < B * K; r++) {
        recon_row[r] =
            be->k->recon_row(dlogits.data != NULL ? vae_cpu_row(dlogits, r) : NULL,
                             vae_cpu_row(logits, r), vae_cpu_row(x, r / K), D, recon, scale);
    }
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

void vae_cpu_particle_weights(vae_backend *base, float *weight, float *bound_row, vae_mat dlogits,
                              float *db, const float *recon_row, const float *log_pq, size_t B,
                              size_t K, size_t cols)
{
    cpu_backend *be = vae_cpu_self(base);
#pragma omp parallel for num_threads(vae_cpu_threads(be, B *K *cols)) schedule(static)
    for (size_t r = 0; r < B; r++) {
        double most = -INFINITY, sum = 0;
        for (size_t i = r * K; i < (r + 1) * K; i++) {
            double log_w = (double)log_pq[i] - (double)recon_row[i];
            /* this way round a NaN is taken, not passed over */
            most = log_w <= most ? most : log_w;
        }
        for (size_t i = r * K; i < (r + 1) * K; i++) {
            sum += exp((double)log_pq[i] - (double)recon_row[i] - most);
        }
        bound_row[r] = (float)-(most + log(sum / (double)K));
        for (size_t i = r * K; i < (r + 1) * K; i++) {
            weight[i] = (float)(exp((double)log_pq[i] - (double)recon_row[i] - most) / sum);
            for (size_t c = 0; dlogits.data != NULL && c < cols; c++) {
                vae_cpu_row(dlogits, i)[c] *= weight[i];
            }
        }
    }
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

void vae_cpu_grad_norm(vae_backend *base, vae_totals *totals, const float *g, size_t n)
{
    cpu_backend *be = vae_cpu_self(base);
    const size_t blocks = (n + SUM_BLOCK - 1) / SUM_BLOCK;
    assert(blocks <= be->n_partial);
#pragma omp parallel for num_threads(vae_cpu_threads(be, n)) schedule(static)
    for (size_t i = 0; i < blocks; i++) {
        size_t first = i * SUM_BLOCK, most = n - first < SUM_BLOCK ? n - first : SUM_BLOCK;
        be->partial[i] = be->k->sum_squares(g + first, most);
    }
    double sum = 0;
    for (size_t i = 0; i < blocks; i++) {
        sum += be->partial[i];
    }
    totals->grad_norm = sqrt(sum);
    if (totals->bad_step == 0 && !isfinite(sum)) {
        totals->bad_step = vae_cpu_now(be)->step;
    }
}

void vae_cpu_adam(vae_backend *base, float *params, const float *g, float *m, float *v, size_t n,
                  const vae_totals *totals, vae_adam adam, float clip_norm)
{
    cpu_backend *be = vae_cpu_self(base);
    const vae_plan *plan = vae_cpu_now(be);
    if (totals->bad_step != 0) {
        return;
    }
    bool clip = clip_norm > 0 && totals->grad_norm > (double)clip_norm;
    float scale = clip ? (float)((double)clip_norm / totals->grad_norm) : 1.0f;
#pragma omp parallel for num_threads(vae_cpu_threads(be, n)) schedule(static)
    for (size_t i = 0; i < n; i += SUM_BLOCK) {
        size_t most = n - i < SUM_BLOCK ? n - i : SUM_BLOCK;
        be->k->adam(params + i, g + i, m + i, v + i, most, &adam, scale, plan->lr, plan->step_size,
                    plan->rsqrt_c2);
    }
}

void vae_cpu_sum_ranks(vae_backend *base, float *v, size_t n, bool adds, const vae_totals *totals)
{
    cpu_backend *be = vae_cpu_self(base);
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
#pragma omp parallel for num_threads(vae_cpu_threads(be, rows *D)) schedule(static)
    for (size_t r = 0; r < rows; r++) {
        be->k->decode_row(x_hat + r * D, vae_cpu_row(logits, r), D, recon);
    }
}
