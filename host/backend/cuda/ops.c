/* The step's operations other than linear layers, and the table. */
#include "backend/cuda/cuda.h"

/* Ready to launch on the compute stream? An operation that writes NULL may disturb the side lane
 * and waits for it. */
static bool begin(cuda_backend *be, const void *writes)
{
    if (!vae_cuda_fine(be)) {
        return false;
    }
    vae_cuda_join(be, writes);
    return vae_cuda_fine(be) && be->mode != MODE_PLANNING;
}

static void cuda_gather(vae_backend *base, vae_mat x, vae_data *data, size_t B, size_t D,
                        vae_binarize binarize, uint64_t seed)
{
    cuda_backend *be = vae_cuda_self(base);
    if (!begin(be, NULL)) {
        return;
    }
    const bool staging = data->stream != NULL && !be->in_run; /* run() does it for its steps */
    if (staging) {
        vae_row_stream_stage(be, data->stream, be->at);
    }
    if (vae_cuda_fine(be)) {
        CUDA_OK(be, vae_gather_launch(be->elem, x, data->rows, vae_cuda_now(be), B, D, binarize,
                                      seed, be->lane[0].stream));
    }
    if (staging) {
        vae_row_stream_consumed(be, data->stream, be->at);
    }
}

static void cuda_latent_forward(vae_backend *base, vae_mat z, float *kl_row, float *log_pq,
                                vae_mat head, size_t B, size_t K, size_t Z, vae_noise noise)
{
    cuda_backend *be = vae_cuda_self(base);
    if (begin(be, NULL)) {
        CUDA_OK(be, vae_latent_forward_launch(be->elem, z, kl_row, log_pq, head, vae_cuda_now(be),
                                              B, K, Z, noise, be->lane[0].stream));
    }
}

static void cuda_kl_dims(vae_backend *base, float *kl_dim, vae_mat head, size_t B, size_t Z)
{
    cuda_backend *be = vae_cuda_self(base);
    void *partial = vae_cuda_scratch(be, 0, vae_kl_dims_scratch(B, Z));
    if (begin(be, NULL)) {
        CUDA_OK(be, vae_kl_dims_launch(be->elem, kl_dim, head, partial, B, Z, be->lane[0].stream));
    }
}

static void cuda_latent_backward(vae_backend *base, vae_mat dhead, vae_mat dz, vae_mat head,
                                 const float *weight, const float *kl_dim, size_t B, size_t K,
                                 size_t Z, vae_latent_grad grad, vae_noise noise)
{
    cuda_backend *be = vae_cuda_self(base);
    if (begin(be, dhead.data)) {
        CUDA_OK(be, vae_latent_backward_launch(be->elem, dhead, dz, head, weight, kl_dim,
                                               vae_cuda_now(be), B, K, Z, grad, noise,
                                               be->lane[0].stream));
    }
}

static void cuda_recon_loss(vae_backend *base, float *recon_row, vae_mat dlogits, vae_mat logits,
                            vae_mat x, size_t B, size_t K, size_t D, vae_recon recon, float scale)
{
    cuda_backend *be = vae_cuda_self(base);
    if (begin(be, NULL)) {
        CUDA_OK(be, vae_recon_loss_launch(be->elem, recon_row, dlogits, logits, x, B, K, D, recon,
                                          scale, be->lane[0].stream));
    }
}

static void cuda_particle_weights(vae_backend *base, float *weight, float *bound_row,
                                  vae_mat dlogits, const float *recon_row, const float *log_pq,
                                  size_t B, size_t K, size_t cols)
{
    cuda_backend *be = vae_cuda_self(base);
    if (begin(be, NULL)) {
        CUDA_OK(be, vae_particle_weights_launch(be->elem, weight, bound_row, dlogits, recon_row,
                                                log_pq, B, K, cols, be->lane[0].stream));
    }
}

static void cuda_accumulate(vae_backend *base, vae_totals *totals, const float *recon_row,
                            const float *kl_row, const float *bound_row, const float *kl_dim,
                            size_t B, size_t K, size_t Z, float free_bits)
{
    cuda_backend *be = vae_cuda_self(base);
    if (!vae_cuda_fine(be) || be->mode == MODE_PLANNING) {
        return;
    }
    cuda_lane *lane = &be->lane[vae_cuda_fork(be, recon_row, kl_row)];
    CUDA_OK(be,
            vae_accumulate_launch(totals, recon_row, kl_row, bound_row, kl_dim, vae_cuda_now(be),
                                  lane->scratch, lane->ticket, B, K, Z, free_bits, lane->stream));
}

static void cuda_grad_norm(vae_backend *base, vae_totals *totals, const float *g, size_t n)
{
    cuda_backend *be = vae_cuda_self(base);
    if (begin(be, NULL)) {
        CUDA_OK(be, vae_grad_norm_launch(totals, g, vae_cuda_now(be), be->lane[0].scratch,
                                         be->lane[0].ticket, n, be->lane[0].stream));
    }
}

static void cuda_adam(vae_backend *base, float *params, const float *g, float *m, float *v,
                      size_t n, const vae_totals *totals, vae_adam adam, float clip_norm)
{
    cuda_backend *be = vae_cuda_self(base);
    if (begin(be, NULL)) {
        CUDA_OK(be, vae_adam_launch(params, g, m, v, vae_cuda_shadow(be, params), n, totals, adam,
                                    clip_norm, vae_cuda_now(be), be->lane[0].stream));
    }
}

static void cuda_decode(vae_backend *base, float *x_hat, vae_mat logits, size_t rows, size_t D,
                        vae_recon recon)
{
    cuda_backend *be = vae_cuda_self(base);
    if (begin(be, NULL)) {
        CUDA_OK(be, vae_decode_launch(be->elem, x_hat, logits, rows, D, recon, be->lane[0].stream));
    }
}

static size_t cuda_act_size(const vae_backend *base)
{
    return ((const cuda_backend *)base)->elem_bytes;
}

const vae_backend_ops vae_cuda_ops = {
    .name = "cuda",
    .close = vae_cuda_close,
    .describe = vae_cuda_describe,
    .act_size = cuda_act_size,
    .aux_bytes = vae_cuda_aux_bytes,
    .alloc = vae_cuda_alloc,
    .free = vae_cuda_free,
    .free_bytes = vae_cuda_free_bytes,
    .upload = vae_cuda_upload,
    .download = vae_cuda_download,
    .upload_mat = vae_cuda_upload_mat,
    .download_mat = vae_cuda_download_mat,
    .bind_params = vae_cuda_bind_params,
    .data_open = vae_cuda_data_open,
    .data_close = vae_cuda_data_close,
    .plan = vae_cuda_plan,
    .run = vae_cuda_run,
    .forget = vae_cuda_forget,
    .sync = vae_cuda_sync,
    .gather = cuda_gather,
    .linear_forward = vae_cuda_linear_forward,
    .linear_backward_weight = vae_cuda_linear_backward_weight,
    .linear_backward_input = vae_cuda_linear_backward_input,
    .latent_forward = cuda_latent_forward,
    .kl_dims = cuda_kl_dims,
    .latent_backward = cuda_latent_backward,
    .recon_loss = cuda_recon_loss,
    .particle_weights = cuda_particle_weights,
    .accumulate = cuda_accumulate,
    .grad_norm = cuda_grad_norm,
    .adam = cuda_adam,
    .decode = cuda_decode,
    .gather_labels = vae_cuda_gather_labels,
    .one_hot = vae_cuda_one_hot,
    .class_forward = vae_cuda_class_forward,
    .class_sums = vae_cuda_class_sums,
    .class_backward_weight = vae_cuda_class_backward_weight,
    .classify = vae_cuda_classify,
    .class_loss = vae_cuda_class_loss,
    .accumulate_classes = vae_cuda_accumulate_classes,
    .scale_rows = vae_cuda_scale_rows,
};
