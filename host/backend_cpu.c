/* The CPU backend: matrix products from cpu_matmul, everything else in cpu_kernels' loops, spread
 * over OpenMP threads by rows. Work is cut at places that depend on sizes only and sums are put
 * together in fixed order, so the number of threads never shows in a result. */
#include <assert.h>
#include <math.h>
#include <omp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "backend.h"
#include "cpu_kernels.h"
#include "cpu_matmul.h"
#include "layout.h"
#include "philox.h"

enum {
    PARALLEL_FLOATS = 1 << 13, /* less work than this is not worth waking threads for */
    SUM_BLOCK = 1 << 14,       /* floats of one partial sum of the gradient's norm */
    COLUMN_BLOCK = 64,         /* columns of one bias gradient task */
    ROW_EPS = 1024,            /* latents whose noise is kept on the stack, per row */
};

typedef struct {
    vae_backend base;
    const cpu_kernels *k;
    vae_cpu_level level;
    int threads;
    vae_error err;
    vae_plan *plan;
    size_t plan_room, cursor;
    double *partial; /* sums of blocks of the gradient */
    size_t n_partial;
} cpu_backend;

struct vae_data {
    const vae_dataset *set;
    uint32_t *index; /* NULL = all rows */
    size_t n;
    uint32_t half_bits;
};

static cpu_backend *self(vae_backend *be)
{
    return (cpu_backend *)be;
}

static const vae_plan *now(const cpu_backend *be)
{
    return &be->plan[be->cursor];
}

static int threads_for(const cpu_backend *be, size_t floats)
{
    return floats < PARALLEL_FLOATS ? 1 : be->threads;
}

static float *row_of(vae_mat m, size_t r)
{
    return (float *)m.data + r * m.ld;
}

/* ---- memory and running ---- */

static void cpu_close(vae_backend *base)
{
    cpu_backend *be = self(base);
    free(be->plan);
    free(be->partial);
    free(be);
}

static void cpu_describe(const vae_backend *base, char *text, size_t size)
{
    const cpu_backend *be = (const cpu_backend *)base;
    snprintf(text, size, "cpu, %d thread%s, %s", be->threads, be->threads == 1 ? "" : "s",
             be->k->isa);
}

static size_t cpu_act_size(const vae_backend *be)
{
    (void)be;
    return sizeof(float);
}

static size_t cpu_aux_bytes(const vae_backend *be, vae_activation act, size_t rows, size_t cols)
{
    (void)be; /* only gelu's derivative needs its input */
    return act == VAE_ACT_GELU ? rows * vae_pad(cols) * sizeof(float) : 0;
}

static void *cpu_alloc(vae_backend *base, size_t bytes, const char *what)
{
    cpu_backend *be = self(base);
    if (be->err.status != VAE_OK) {
        return NULL;
    }
    size_t whole = (bytes + 255) / 256 * 256;
    void *memory = whole < bytes ? NULL : aligned_alloc(256, whole > 0 ? whole : 256);
    if (memory == NULL) {
        vae_fail_memory(&be->err, bytes, what);
        return NULL;
    }
    return memset(memory, 0, whole);
}

static void cpu_free(vae_backend *be, void *memory)
{
    (void)be;
    free(memory);
}

static size_t cpu_free_bytes(const vae_backend *be)
{
    (void)be; /* an overcommitting kernel does not say */
    return 0;
}

static void cpu_copy(vae_backend *base, void *dst, const void *src, size_t bytes)
{
    if (self(base)->err.status == VAE_OK) {
        memcpy(dst, src, bytes);
    }
}

static void cpu_upload_mat(vae_backend *base, vae_mat dst, const float *src, size_t rows,
                           size_t cols)
{
    for (size_t r = 0; self(base)->err.status == VAE_OK && r < rows; r++) {
        memcpy(row_of(dst, r), src + r * cols, cols * sizeof *src);
    }
}

static void cpu_download_mat(vae_backend *base, float *dst, vae_mat src, size_t rows, size_t cols)
{
    for (size_t r = 0; self(base)->err.status == VAE_OK && r < rows; r++) {
        memcpy(dst + r * cols, row_of(src, r), cols * sizeof *dst);
    }
}

static void cpu_bind_params(vae_backend *base, float *params, size_t n)
{
    cpu_backend *be = self(base);
    (void)params; /* the weights are used where they are */
    size_t n_partial = (n + SUM_BLOCK - 1) / SUM_BLOCK;
    if (be->err.status != VAE_OK || n_partial <= be->n_partial) {
        return;
    }
    free(be->partial);
    be->partial = malloc(n_partial * sizeof *be->partial);
    be->n_partial = be->partial == NULL ? 0 : n_partial;
    if (be->partial == NULL) {
        vae_fail_memory(&be->err, n_partial * sizeof *be->partial, "partial sums");
    }
}

static vae_data *cpu_data_open(vae_backend *base, const vae_dataset *set, const uint32_t *index,
                               size_t n_index)
{
    cpu_backend *be = self(base);
    vae_data *data = be->err.status == VAE_OK ? calloc(1, sizeof *data) : NULL;
    if (data == NULL) {
        vae_fail_memory(&be->err, sizeof *data, "a data set");
        return NULL;
    }
    data->set = set;
    data->n = index != NULL ? n_index : set->n;
    data->half_bits = vae_shuffle_bits(data->n);
    if (index != NULL) {
        data->index = malloc(n_index * sizeof *index);
        if (data->index == NULL) {
            vae_fail_memory(&be->err, n_index * sizeof *index, "the index of a data set");
            free(data);
            return NULL;
        }
        memcpy(data->index, index, n_index * sizeof *index);
    }
    return data;
}

static void cpu_data_close(vae_backend *be, vae_data *data)
{
    (void)be;
    if (data != NULL) {
        free(data->index);
        free(data);
    }
}

static void cpu_plan(vae_backend *base, const vae_plan *plan, size_t n, size_t rows, vae_data *data)
{
    cpu_backend *be = self(base);
    (void)rows;
    (void)data;
    if (be->err.status == VAE_OK && n > be->plan_room) {
        vae_plan *more = realloc(be->plan, n * sizeof *more);
        if (more == NULL) {
            vae_fail_memory(&be->err, n * sizeof *more, "the plan");
            return;
        }
        be->plan = more;
        be->plan_room = n;
    }
    if (be->err.status == VAE_OK) {
        memcpy(be->plan, plan, n * sizeof *plan);
        be->cursor = 0;
    }
}

static void cpu_run(vae_backend *base, int slot, size_t n, vae_step_fn *fn, void *ctx)
{
    cpu_backend *be = self(base);
    (void)slot;
    for (size_t i = 0; i < n && be->err.status == VAE_OK; i++, be->cursor++) {
        fn(ctx);
    }
}

static void cpu_forget(vae_backend *be, int slot)
{
    (void)be;
    (void)slot;
}

static vae_status cpu_sync(vae_backend *base, vae_error *err)
{
    cpu_backend *be = self(base);
    vae_error first = be->err;
    be->err = (vae_error){0};
    return first.status == VAE_OK ? VAE_OK : vae_fail(err, first.status, "%s", first.text);
}

/* ---- operations ---- */

static void cpu_gather(vae_backend *base, vae_mat x, vae_data *data, size_t B, size_t D,
                       vae_binarize binarize, uint64_t seed)
{
    cpu_backend *be = self(base);
    const vae_plan *plan = now(be);
    const vae_dataset *set = data->set;
    const uint64_t block = binarize == VAE_BINARIZE_DYNAMIC ? vae_rng_block(plan->draw, 0) : 0;
    const size_t quads = (D + 3) / 4, row_bytes = vae_row_bytes(set->dtype, D);
#pragma omp parallel for num_threads(threads_for(be, B *D)) schedule(static)
    for (size_t r = 0; r < B; r++) {
        uint64_t i = plan->first + r;
        i = plan->shuffle ? vae_shuffle(plan->order_key, data->n, data->half_bits, i) : i;
        size_t row = data->index != NULL ? data->index[i] : (size_t)i;
        be->k->convert_row(row_of(x, r), (const char *)set->rows + row * row_bytes, set->dtype, D,
                           binarize, seed, vae_rng_stream(VAE_RNG_BINARIZE, row * quads), block);
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

static void cpu_linear_forward(vae_backend *base, vae_mat y, void *aux, vae_mat x, const float *w,
                               size_t ldw, const float *b, size_t rows, size_t in, size_t out,
                               vae_activation act)
{
    cpu_backend *be = self(base);
    forward_epilogue e = {be->k, act == VAE_ACT_GELU ? aux : NULL, y.ld, b, act};
    vae_cpu_matmul(MATMUL_NT, y.data, y.ld, x.data, x.ld, w, ldw, rows, out, in, finish_forward, &e,
                   be->threads, be->level);
}

static void cpu_linear_backward_weight(vae_backend *base, float *dw, size_t ldw, float *db,
                                       vae_mat dy, vae_mat x, size_t rows, size_t in, size_t out)
{
    cpu_backend *be = self(base);
    vae_cpu_matmul(MATMUL_TN, dw, ldw, dy.data, dy.ld, x.data, x.ld, out, in, rows, NULL, NULL,
                   be->threads, be->level);
#pragma omp parallel for num_threads(threads_for(be, rows *out)) schedule(static)
    for (size_t c = 0; c < out; c += COLUMN_BLOCK) {
        size_t cols = out - c < COLUMN_BLOCK ? out - c : COLUMN_BLOCK;
        be->k->column_sums(db + c, (const float *)dy.data + c, dy.ld, rows, cols);
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

static void cpu_linear_backward_input(vae_backend *base, vae_mat dx, vae_mat dy, const float *w,
                                      size_t ldw, vae_mat x, const void *aux, size_t rows,
                                      size_t in, size_t out, vae_activation act)
{
    cpu_backend *be = self(base);
    backward_epilogue e = {be->k, act == VAE_ACT_GELU ? aux : x.data, x.ld, act};
    vae_cpu_matmul(MATMUL_NN, dx.data, dx.ld, dy.data, dy.ld, w, ldw, rows, in, out,
                   act == VAE_ACT_NONE ? NULL : finish_backward, &e, be->threads, be->level);
}

/* eps of one example and particle into eps: (4*ceil(Z/4)); in pieces of ROW_EPS where Z is larger,
 * so `from` is the first latent wanted (a multiple of 4). */
static void row_normals(const cpu_backend *be, float *eps, size_t from, size_t n, size_t row,
                        size_t k, size_t Z, vae_noise noise)
{
    const vae_plan *plan = now(be);
    const size_t quads = (Z + 3) / 4;
    uint64_t element = (plan->first + row) * quads + from / 4;
    be->k->normals(eps, (n + 3) / 4, noise.seed, vae_rng_stream(VAE_RNG_EPS, element),
                   vae_rng_block(plan->draw, plan->particle0 + (uint32_t)k));
}

static void cpu_latent_forward(vae_backend *base, vae_mat z, float *kl_row, float *log_pq,
                               vae_mat head, size_t B, size_t K, size_t Z, vae_noise noise)
{
    cpu_backend *be = self(base);
#pragma omp parallel for num_threads(threads_for(be, 8 * B * K * Z)) schedule(static)
    for (size_t r = 0; r < B; r++) {
        const float *mu = row_of(head, r), *logvar = mu + Z;
        kl_row[r] = be->k->kl_row(mu, logvar, Z);
        for (size_t k = 0; k < K; k++) {
            float eps[ROW_EPS], part, sum = 0;
            for (size_t j = 0; j < Z; j += ROW_EPS) {
                size_t n = Z - j < ROW_EPS ? Z - j : ROW_EPS;
                row_normals(be, eps, j, n, r, k, Z, noise);
                be->k->latent_row(row_of(z, r * K + k) + j, log_pq != NULL ? &part : NULL, mu + j,
                                  logvar + j, eps, n);
                sum += log_pq != NULL ? part : 0.0f;
            }
            if (log_pq != NULL) {
                log_pq[r * K + k] = sum;
            }
        }
    }
}

static void cpu_kl_dims(vae_backend *base, float *kl_dim, vae_mat head, size_t B, size_t Z)
{
    cpu_backend *be = self(base);
#pragma omp parallel for num_threads(threads_for(be, 8 * B * Z)) schedule(static)
    for (size_t j = 0; j < Z; j++) {
        double sum = 0;
        for (size_t r = 0; r < B; r++) {
            float mu = row_of(head, r)[j], logvar = row_of(head, r)[Z + j];
            sum += (double)vae_kl(mu, logvar, vae_expf(logvar));
        }
        kl_dim[j] = (float)(sum / (double)B);
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

static void cpu_latent_backward(vae_backend *base, vae_mat dhead, vae_mat dz, vae_mat head,
                                const float *weight, const float *kl_dim, size_t B, size_t K,
                                size_t Z, vae_latent_grad grad, vae_noise noise)
{
    cpu_backend *be = self(base);
    const float beta = now(be)->beta;
#pragma omp parallel for num_threads(threads_for(be, 8 * B * K * Z)) schedule(static)
    for (size_t r = 0; r < B; r++) {
        const float *mu = row_of(head, r), *logvar = mu + Z;
        float *dmu = row_of(dhead, r), *dlogvar = dmu + Z;
        memset(dmu, 0, 2 * Z * sizeof *dmu);
        for (size_t k = 0; k < K; k++) {
            float eps[ROW_EPS], w = weight != NULL ? weight[r * K + k] : 1.0f;
            for (size_t j = 0; j < Z; j += ROW_EPS) {
                size_t n = Z - j < ROW_EPS ? Z - j : ROW_EPS;
                row_normals(be, eps, j, n, r, k, Z, noise);
                be->k->latent_grad_row(dmu + j, dlogvar + j, row_of(dz, r * K + k) + j, mu + j,
                                       logvar + j, eps, n, w, grad.kl_scale, grad.objective);
            }
        }
        if (grad.objective == VAE_OBJ_ELBO) {
            add_kl_grad(dmu, dlogvar, mu, logvar, kl_dim, Z, grad.kl_scale * beta, grad.free_bits);
        }
    }
}

static void cpu_recon_loss(vae_backend *base, float *recon_row, vae_mat dlogits, vae_mat logits,
                           vae_mat x, size_t B, size_t K, size_t D, vae_recon recon, float scale)
{
    cpu_backend *be = self(base);
#pragma omp parallel for num_threads(threads_for(be, B *K *D)) schedule(static)
    for (size_t r = 0; r < B * K; r++) {
        recon_row[r] = be->k->recon_row(dlogits.data != NULL ? row_of(dlogits, r) : NULL,
                                        row_of(logits, r), row_of(x, r / K), D, recon, scale);
    }
}

static void cpu_particle_weights(vae_backend *base, float *weight, float *bound_row,
                                 vae_mat dlogits, const float *recon_row, const float *log_pq,
                                 size_t B, size_t K, size_t cols)
{
    cpu_backend *be = self(base);
#pragma omp parallel for num_threads(threads_for(be, B *K *cols)) schedule(static)
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
                row_of(dlogits, i)[c] *= weight[i];
            }
        }
    }
}

static double sum_of(const float *v, size_t n)
{
    double sum = 0;
    for (size_t i = 0; i < n; i++) {
        sum += (double)v[i];
    }
    return sum;
}

static void cpu_accumulate(vae_backend *base, vae_totals *totals, const float *recon_row,
                           const float *kl_row, const float *bound_row, const float *kl_dim,
                           size_t B, size_t K, size_t Z, float free_bits)
{
    const vae_plan *plan = now(self(base));
    double recon = sum_of(recon_row, B * K) / (double)K, kl = sum_of(kl_row, B);
    double penalty = kl, objective;
    if (kl_dim != NULL) {
        penalty = 0;
        for (size_t j = 0; j < Z; j++) {
            penalty += (double)B * (double)(kl_dim[j] > free_bits ? kl_dim[j] : free_bits);
        }
    }
    objective = bound_row != NULL ? sum_of(bound_row, B) : recon + (double)plan->beta * penalty;
    totals->recon += recon;
    totals->kl += kl;
    totals->objective += objective;
    totals->examples += (double)B;
    if (totals->bad_step == 0 && !isfinite(recon + kl + objective)) {
        totals->bad_step = plan->step;
    }
}

static void cpu_grad_norm(vae_backend *base, vae_totals *totals, const float *g, size_t n)
{
    cpu_backend *be = self(base);
    const size_t blocks = (n + SUM_BLOCK - 1) / SUM_BLOCK;
    assert(blocks <= be->n_partial);
#pragma omp parallel for num_threads(threads_for(be, n)) schedule(static)
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
        totals->bad_step = now(be)->step;
    }
}

static void cpu_adam(vae_backend *base, float *params, const float *g, float *m, float *v, size_t n,
                     const vae_totals *totals, vae_adam adam, float clip_norm)
{
    cpu_backend *be = self(base);
    const vae_plan *plan = now(be);
    if (totals->bad_step != 0) {
        return;
    }
    bool clip = clip_norm > 0 && totals->grad_norm > (double)clip_norm;
    float scale = clip ? (float)((double)clip_norm / totals->grad_norm) : 1.0f;
#pragma omp parallel for num_threads(threads_for(be, n)) schedule(static)
    for (size_t i = 0; i < n; i += SUM_BLOCK) {
        size_t most = n - i < SUM_BLOCK ? n - i : SUM_BLOCK;
        be->k->adam(params + i, g + i, m + i, v + i, most, &adam, scale, plan->lr, plan->step_size,
                    plan->rsqrt_c2);
    }
}

static void cpu_decode(vae_backend *base, float *x_hat, vae_mat logits, size_t rows, size_t D,
                       vae_recon recon)
{
    cpu_backend *be = self(base);
#pragma omp parallel for num_threads(threads_for(be, rows *D)) schedule(static)
    for (size_t r = 0; r < rows; r++) {
        be->k->decode_row(x_hat + r * D, row_of(logits, r), D, recon);
    }
}

static const vae_backend_ops cpu_ops = {
    .name = "cpu",
    .close = cpu_close,
    .describe = cpu_describe,
    .act_size = cpu_act_size,
    .aux_bytes = cpu_aux_bytes,
    .alloc = cpu_alloc,
    .free = cpu_free,
    .free_bytes = cpu_free_bytes,
    .upload = cpu_copy,
    .download = cpu_copy,
    .upload_mat = cpu_upload_mat,
    .download_mat = cpu_download_mat,
    .bind_params = cpu_bind_params,
    .data_open = cpu_data_open,
    .data_close = cpu_data_close,
    .plan = cpu_plan,
    .run = cpu_run,
    .forget = cpu_forget,
    .sync = cpu_sync,
    .gather = cpu_gather,
    .linear_forward = cpu_linear_forward,
    .linear_backward_weight = cpu_linear_backward_weight,
    .linear_backward_input = cpu_linear_backward_input,
    .latent_forward = cpu_latent_forward,
    .kl_dims = cpu_kl_dims,
    .latent_backward = cpu_latent_backward,
    .recon_loss = cpu_recon_loss,
    .particle_weights = cpu_particle_weights,
    .accumulate = cpu_accumulate,
    .grad_norm = cpu_grad_norm,
    .adam = cpu_adam,
    .decode = cpu_decode,
};

vae_status vae_backend_cpu_open(vae_backend **out, const vae_backend_options *options,
                                vae_error *err)
{
    *out = NULL;
    if (options->precision != VAE_FP32) {
        return vae_fail(err, VAE_ERR_USAGE, "the CPU computes in fp32 only: --precision fp32");
    }
    vae_cpu_level level;
    vae_status status = vae_cpu_level_choose(&level, err);
    if (status != VAE_OK) {
        return status;
    }
    cpu_backend *be = calloc(1, sizeof *be);
    if (be == NULL) {
        return vae_fail_memory(err, sizeof *be, "the CPU backend");
    }
    be->base.ops = &cpu_ops;
    be->level = level;
    be->k = vae_cpu_kernels(level);
    be->threads = options->threads > 0 ? (int)options->threads : omp_get_num_procs();
    *out = &be->base;
    return VAE_OK;
}
