/* What the files of the CPU backend share. */
#ifndef VAE_BACKEND_CPU_H
#define VAE_BACKEND_CPU_H

#include "backend.h"
#include "backend/cpu/kernels.h"
#include "dataset/dataset.h"

enum {
    PARALLEL_FLOATS = 1 << 13, /* less work than this is not worth waking threads for */
    SUM_BLOCK = 1 << 14,       /* floats of one partial sum of the gradient's norm */
    COLUMN_BLOCK = 64,         /* columns that a task over columns takes, column_sums' most */
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

static inline cpu_backend *vae_cpu_self(vae_backend *be)
{
    return (cpu_backend *)be;
}

static inline const vae_plan *vae_cpu_now(const cpu_backend *be)
{
    return &be->plan[be->cursor];
}

static inline int vae_cpu_threads(const cpu_backend *be, size_t floats)
{
    return floats < PARALLEL_FLOATS ? 1 : be->threads;
}

static inline float *vae_cpu_row(vae_mat m, size_t r)
{
    return (float *)m.data + r * m.ld;
}

/* Number, in the data set, of row r of the batch. */
static inline size_t vae_cpu_data_row(const vae_data *data, const vae_plan *plan, size_t r)
{
    const size_t i = (size_t)vae_plan_row(plan, data->n, data->half_bits, r);
    return data->index != NULL ? data->index[i] : i;
}

static inline double vae_cpu_sum(const float *v, size_t n)
{
    double sum = 0;
    for (size_t i = 0; i < n; i++) {
        sum += (double)v[i];
    }
    return sum;
}

/* ---- backend_cpu_ops.c, backend_cpu_classes.c: the operations, as backend.h says ---- */

void vae_cpu_gather(vae_backend *base, vae_mat x, vae_data *data, size_t B, size_t D,
                    vae_binarize binarize, uint64_t seed);
void vae_cpu_linear_forward(vae_backend *base, vae_mat y, void *aux, vae_mat x, const float *w,
                            size_t ldw, const float *b, size_t rows, size_t in, size_t out,
                            vae_activation act);
void vae_cpu_linear_backward_weight(vae_backend *base, float *dw, size_t ldw, float *db, vae_mat dy,
                                    vae_mat x, size_t rows, size_t in, size_t out);
void vae_cpu_linear_backward_input(vae_backend *base, vae_mat dx, vae_mat dy, const float *w,
                                   size_t ldw, vae_mat x, const void *aux, size_t rows, size_t in,
                                   size_t out, vae_activation act);
void vae_cpu_latent_forward(vae_backend *base, vae_mat z, float *kl_row, float *log_pq,
                            vae_mat head, size_t B, size_t K, size_t Z, vae_noise noise);
void vae_cpu_kl_dims(vae_backend *base, float *kl_dim, vae_mat head, size_t B, size_t Z);
void vae_cpu_latent_backward(vae_backend *base, vae_mat dhead, vae_mat dz, vae_mat head,
                             const float *weight, const float *kl_dim, size_t B, size_t K, size_t Z,
                             vae_latent_grad grad, vae_noise noise);
void vae_cpu_recon_loss(vae_backend *base, float *recon_row, vae_mat dlogits, vae_mat logits,
                        vae_mat x, size_t B, size_t K, size_t D, vae_recon recon, float scale);
void vae_cpu_particle_weights(vae_backend *base, float *weight, float *bound_row, vae_mat dlogits,
                              const float *recon_row, const float *log_pq, size_t B, size_t K,
                              size_t cols);
void vae_cpu_accumulate(vae_backend *base, vae_totals *totals, const float *recon_row,
                        const float *kl_row, const float *bound_row, const float *kl_dim, size_t B,
                        size_t K, size_t Z, float free_bits);
void vae_cpu_grad_norm(vae_backend *base, vae_totals *totals, const float *g, size_t n);
void vae_cpu_adam(vae_backend *base, float *params, const float *g, float *m, float *v, size_t n,
                  const vae_totals *totals, vae_adam adam, float clip_norm);
void vae_cpu_decode(vae_backend *base, float *x_hat, vae_mat logits, size_t rows, size_t D,
                    vae_recon recon);
void vae_cpu_gather_labels(vae_backend *base, uint32_t *label, vae_data *data, size_t B,
                           bool required);
void vae_cpu_one_hot(vae_backend *base, vae_mat m, const uint32_t *label, size_t B, size_t K,
                     size_t first, size_t C);
void vae_cpu_class_forward(vae_backend *base, vae_mat y, void *aux, uint32_t *label, vae_mat h,
                           const float *w, size_t ldw, vae_class_rows of, size_t out,
                           vae_activation act);
void vae_cpu_class_sums(vae_backend *base, vae_mat dh, vae_mat dy, vae_class_rows of, size_t out);
void vae_cpu_class_backward_weight(vae_backend *base, float *dw, size_t ldw, vae_mat dy,
                                   vae_class_rows of, size_t out);
void vae_cpu_classify(vae_backend *base, uint32_t *label, vae_mat logits, size_t B, size_t C);
void vae_cpu_class_loss(vae_backend *base, float *terms, float *weight, vae_mat dlogits,
                        vae_mat logits, const float *recon_row, const float *kl_row,
                        vae_class_rows of, float cross_entropy);
void vae_cpu_accumulate_classes(vae_backend *base, vae_totals *totals, const float *terms,
                                size_t n_open, size_t n_labelled);
void vae_cpu_scale_rows(vae_backend *base, vae_mat m, const float *factor, size_t rows,
                        size_t cols);

#endif
