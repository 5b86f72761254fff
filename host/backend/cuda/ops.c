/* The step's operations other than linear layers. */
#include "backend/cuda/cuda.h"

void vae_cuda_gather(vae_backend *base, vae_mat x, vae_data *data, size_t B, size_t D,
                     vae_binarize binarize, uint64_t seed)
{
    cuda_backend *be = vae_cuda_self(base);
    cuda_lane *lane;
    if (!vae_cuda_begin_batch(be, &lane)) {
        return;
    }
    const bool staging = data->stream != NULL && !be->in_run; /* run() does it for its steps */
    if (staging) {
        vae_row_stream_stage(be, data->stream, be->at);
    }
    if (vae_cuda_fine(be)) {
        CUDA_OK(be, vae_gather_launch(be->elem, x, data->rows, vae_cuda_now(be), B, D, binarize,
                                      seed, lane->stream));
    }
    if (staging) {
        vae_row_stream_consumed(be, data->stream, be->at);
    }
}

void vae_cuda_latent_forward(vae_backend *base, vae_mat z, float *kl_row, float *log_pq,
                             vae_mat head, size_t B, size_t K, size_t Z, vae_noise noise)
{
    cuda_backend *be = vae_cuda_self(base);
    if (vae_cuda_begin(be, NULL)) {
        CUDA_OK(be, vae_latent_forward_launch(be->elem, z, kl_row, log_pq, head, vae_cuda_now(be),
                                              B, K, Z, noise, be->lane[0].stream));
    }
}

void vae_cuda_kl_dims(vae_backend *base, float *kl_dim, vae_mat head, size_t B, size_t over,
                      size_t Z)
{
    cuda_backend *be = vae_cuda_self(base);
    if (vae_cuda_begin(be, NULL)) {
        CUDA_OK(be, vae_kl_dims_launch(be->elem, kl_dim, head, vae_cuda_sums(be, 0), B, over, Z,
                                       be->lane[0].stream));
    }
}

void vae_cuda_latent_backward(vae_backend *base, vae_mat dhead, vae_mat dz, vae_mat head,
                              const float *weight, const float *kl_dim, size_t B, size_t K,
                              size_t Z, vae_latent_grad grad, vae_noise noise)
{
    cuda_backend *be = vae_cuda_self(base);
    if (vae_cuda_begin(be, dhead.data)) {
        CUDA_OK(be, vae_latent_backward_launch(be->elem, dhead, dz, head, weight, kl_dim,
                                               vae_cuda_now(be), B, K, Z, grad, noise,
                                               be->lane[0].stream));
    }
}

void vae_cuda_recon_loss(vae_backend *base, float *recon_row, vae_mat dlogits, float *db,
                         vae_mat logits, vae_mat x, size_t B, size_t K, size_t D, vae_recon recon,
                         float scale)
{
    cuda_backend *be = vae_cuda_self(base);
    const bool fused = db != NULL && vae_recon_loss_sums(B * K, D, recon);
    if (vae_cuda_begin(be, NULL)) {
        CUDA_OK(be, vae_recon_loss_launch(be->elem, recon_row, dlogits, fused ? db : NULL, logits,
                                          x, vae_cuda_sums(be, 0), B, K, D, recon, scale,
                                          be->lane[0].stream));
    }
    if (db == NULL || fused || !vae_cuda_fine(be)) {
        return;
    }
    const int lane = vae_cuda_fork_totals(be, dlogits.data, dlogits.data);
    if (vae_cuda_fine(be) && be->mode != MODE_PLANNING) {
        CUDA_OK(be, vae_column_sums_launch(be->elem, db, dlogits, vae_cuda_sums(be, lane), B * K,
                                           vae_likelihood_of(recon.likelihood)->outputs * D,
                                           be->lane[lane].stream));
    }
}

/* Drops no rows: a graph's sizes are fixed. */
size_t vae_cuda_particle_weights(vae_backend *base, float *weight, float *bound_row,
                                 vae_mat dlogits, float *db, const float *recon_row,
                                 const float *log_pq, size_t B, size_t K, size_t cols)
{
    cuda_backend *be = vae_cuda_self(base);
    if (vae_cuda_begin(be, NULL)) {
        CUDA_OK(be, vae_particle_weights_launch(be->elem, weight, bound_row, dlogits, db, recon_row,
                                                log_pq, vae_cuda_sums(be, 0), B, K, cols,
                                                be->lane[0].stream));
    }
    return B * K;
}

void vae_cuda_accumulate(vae_backend *base, vae_totals *totals, const float *recon_row,
                         const float *kl_row, const float *bound_row, const float *kl_dim, size_t B,
                         size_t K, size_t Z, float free_bits)
{
    cuda_backend *be = vae_cuda_self(base);
    cuda_lane *lane = &be->lane[vae_cuda_fork_totals(be, recon_row, kl_row)];
    if (!vae_cuda_fine(be) || be->mode == MODE_PLANNING) {
        return;
    }
    CUDA_OK(be,
            vae_accumulate_launch(totals, recon_row, kl_row, bound_row, kl_dim, vae_cuda_now(be),
                                  lane->scratch, lane->ticket, B, K, Z, free_bits, lane->stream));
}

/* Captured right before an update of the same gradients, the norm is only summed in parts: what its
 * last block would do alone, all blocks of the update do for themselves. */
void vae_cuda_grad_norm(vae_backend *base, vae_totals *totals, const float *g, size_t n)
{
    cuda_backend *be = vae_cuda_self(base);
    const bool begun = vae_cuda_begin_update(be);
    const bool parts = be->mode == MODE_CAPTURING && be->norm.in_update;
    be->norm.g = g;
    be->norm.n = n;
    be->norm.totals = totals;
    if (begun) {
        CUDA_OK(be, vae_grad_norm_launch(totals, g, vae_cuda_now(be), be->lane[LANE_MAIN].scratch,
                                         parts ? NULL : be->lane[LANE_MAIN].ticket, n,
                                         be->lane[LANE_MAIN].stream));
    }
}

void vae_cuda_adam(vae_backend *base, float *params, const float *g, float *m, float *v, size_t n,
                   const vae_totals *totals, vae_adam adam, float clip_norm)
{
    cuda_backend *be = vae_cuda_self(base);
    cuda_lane *lane = &be->lane[LANE_MAIN];
    if (be->mode == MODE_PLANNING) {
        be->norm.in_update = be->norm.g == g && be->norm.n == n && be->norm.totals == totals;
    }
    const bool parts = be->mode == MODE_CAPTURING && be->norm.in_update;
    if (vae_cuda_begin_update(be)) {
        CUDA_OK(be, vae_adam_launch(params, g, m, v, vae_cuda_shadow(be, params), n,
                                    (vae_totals *)(uintptr_t)totals, parts ? lane->scratch : NULL,
                                    lane->ticket, adam, clip_norm, vae_cuda_now(be), lane->stream));
    }
}

void vae_cuda_decode(vae_backend *base, float *x_hat, vae_mat logits, size_t rows, size_t D,
                     vae_recon recon)
{
    cuda_backend *be = vae_cuda_self(base);
    if (vae_cuda_begin(be, NULL)) {
        CUDA_OK(be, vae_decode_launch(be->elem, x_hat, logits, rows, D, recon, be->lane[0].stream));
    }
}
