/* The CPU backend's operations on latents: reparameterization, the KL and their gradients.
 * Formulas: vae_math.h, model/model.c. */
#include "backend/cpu/cpu.h"

#include <string.h>

#include "philox.h"

/* Normals of the row at hand, and of some after it: few latents fill a part of the kernel's lanes,
 * the next rows' the others. Begins with rows = 0. */
typedef struct {
    size_t row, rows;
    float eps[ROW_PIECE]; /* (rows,4*ceil(Z/4)), or a piece of one row */
} drawn_rows;

/* eps of one example and particle: (n), from latent `from` on, a multiple of 4; n <= ROW_PIECE.
 * Good until the next call. */
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
    size_t dz_row = a->drops ? vae_cpu_count_live(a->weight, first * K) : first * K;
    drawn_rows drawn;
    drawn.rows = 0;
    (void)thread;
    for (size_t r = first; r < end; r++) {
        for (size_t j = 0; j < a->Z; j += ROW_PIECE) {
            latent_grad_piece(a, &drawn, r, dz_row, j, a->Z - j < ROW_PIECE ? a->Z - j : ROW_PIECE);
        }
        dz_row += a->drops ? vae_cpu_count_live(a->weight + r * K, K) : K;
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
