/* The operations of conditional and semi-supervised models. */
#include "backend/cuda/cuda.h"

void vae_cuda_gather_labels(vae_backend *base, uint32_t *label, vae_data *data, size_t B,
                            bool required)
{
    cuda_backend *be = vae_cuda_self(base);
    if (vae_cuda_fine(be) && data->rows.labels == NULL && required) {
        vae_fail(&be->err, VAE_ERR_DATA, "%s: no labels; the model needs the class of each row",
                 data->set->source);
    }
    cuda_lane *lane;
    if (vae_cuda_begin_batch(be, &lane)) {
        CUDA_OK(be, vae_gather_labels_launch(label, data->rows, vae_cuda_now(be), B, lane->stream));
    }
}

void vae_cuda_one_hot(vae_backend *base, vae_mat m, const uint32_t *label, size_t B, size_t K,
                      size_t first, size_t C)
{
    cuda_backend *be = vae_cuda_self(base);
    cuda_lane *lane;
    if (vae_cuda_begin_batch(be, &lane)) {
        CUDA_OK(be, vae_one_hot_launch(be->elem, m, label, B, K, first, C, lane->stream));
    }
}

void vae_cuda_class_forward(vae_backend *base, vae_mat y, void *aux, uint32_t *label, vae_mat h,
                            const float *w, size_t ldw, vae_class_rows of, size_t out,
                            vae_activation act)
{
    cuda_backend *be = vae_cuda_self(base);
    const vae_mat pre = {vae_act_keeps_input(act) ? aux : NULL, vae_pad(out)};
    if (vae_cuda_begin(be, NULL)) {
        CUDA_OK(be, vae_class_forward_launch(be->elem, y, pre, label, h, w, ldw, of, out, act,
                                             be->lane[0].stream));
    }
}

void vae_cuda_class_sums(vae_backend *base, vae_mat dh, vae_mat dy, vae_class_rows of, size_t out)
{
    cuda_backend *be = vae_cuda_self(base);
    if (vae_cuda_begin(be, dh.data)) {
        CUDA_OK(be, vae_class_sums_launch(be->elem, dh, dy, of, out, be->lane[0].stream));
    }
}

void vae_cuda_class_backward_weight(vae_backend *base, float *dw, size_t ldw, vae_mat dy,
                                    vae_class_rows of, size_t out)
{
    cuda_backend *be = vae_cuda_self(base);
    const size_t open = of.C * dy.ld * sizeof(float);
    char *scratch = vae_cuda_scratch(be, 0, VAE_SUMS_SCRATCH + open);
    if (vae_cuda_begin(be, NULL)) {
        CUDA_OK(be, vae_class_backward_weight_launch(
                        be->elem, dw, ldw, dy, (float *)(void *)(scratch + VAE_SUMS_SCRATCH),
                        vae_cuda_sums(be, 0), of, out, be->lane[0].stream));
    }
}

void vae_cuda_classify(vae_backend *base, uint32_t *label, vae_mat logits, size_t B, size_t C)
{
    cuda_backend *be = vae_cuda_self(base);
    if (vae_cuda_begin(be, NULL)) {
        CUDA_OK(be, vae_classify_launch(be->elem, label, logits, B, C, be->lane[0].stream));
    }
}

void vae_cuda_class_loss(vae_backend *base, float *terms, float *weight, vae_mat dlogits,
                         vae_mat logits, const float *recon_row, const float *kl_row,
                         vae_class_rows of, float cross_entropy)
{
    cuda_backend *be = vae_cuda_self(base);
    if (vae_cuda_begin(be, NULL)) {
        CUDA_OK(be,
                vae_class_loss_launch(be->elem, terms, weight, dlogits, logits, recon_row, kl_row,
                                      of, vae_cuda_now(be), cross_entropy, be->lane[0].stream));
    }
}

void vae_cuda_accumulate_classes(vae_backend *base, vae_totals *totals, const float *terms,
                                 size_t n_open, size_t n_labelled)
{
    cuda_backend *be = vae_cuda_self(base);
    if (vae_cuda_begin(be, NULL)) {
        CUDA_OK(be, vae_accumulate_classes_launch(totals, terms, vae_cuda_now(be),
                                                  be->lane[0].scratch, be->lane[0].ticket, n_open,
                                                  n_labelled, be->lane[0].stream));
    }
}

void vae_cuda_scale_rows(vae_backend *base, vae_mat m, float *sums, const float *factor,
                         size_t rows, size_t cols)
{
    cuda_backend *be = vae_cuda_self(base);
    if (vae_cuda_begin(be, NULL)) {
        CUDA_OK(be, vae_scale_rows_launch(be->elem, m, sums, factor, vae_cuda_sums(be, 0), rows,
                                          cols, be->lane[0].stream));
    }
}
