/* The backend table: what the step (host/model) may ask of a device. The step is written once over
 * these operations; backend/cpu and backend/cuda implement them, and nothing else differs.
 *
 * Contract of every operation:
 * - It may be asynchronous. Errors are sticky: the first one is kept in the backend, operations
 *   after it do nothing, and sync() returns it. So the step itself has no error handling.
 * - Outputs are overwritten, never accumulated into, except where "+=" is said.
 * - Outputs do not alias inputs unless "may alias" is said.
 * - Sums are deterministic: same backend, same seed, same bits, whatever the thread count.
 * - Nothing allocates, copies to the host or waits inside a step.
 *
 * Sizes: B examples, K particles, D data, Z latent. Rows of particles are example-major: row
 * b*K + k. "Activation type" is float, or bf16 on a backend opened in that precision.
 */
#ifndef VAE_BACKEND_H
#define VAE_BACKEND_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/status.h"
#include "step.h"

typedef struct vae_backend vae_backend; /* begins with `const vae_backend_ops *ops` */
typedef struct vae_dataset vae_dataset; /* dataset/dataset.h */
typedef struct vae_data vae_data;       /* a data set a backend can gather from */
typedef struct vae_ranks vae_ranks;     /* ranks/ranks.h */

typedef void vae_step_fn(void *ctx);

typedef void vae_close_fn(vae_backend *be);
/* One line about the device, libraries, threads and choices made, for logs and run.json. */
typedef void vae_describe_fn(const vae_backend *be, char *text, size_t size);

/* ---- memory: at open only ---- */

/* Bytes of one element of the activation type. */
typedef size_t vae_act_size_fn(const vae_backend *be);
/* Bytes of what linear_forward keeps for linear_backward_input, for (rows,cols) outputs;
 * 0 = nothing (pass NULL). */
typedef size_t vae_aux_bytes_fn(const vae_backend *be, vae_activation act, size_t rows,
                                size_t cols);
/* Zero-filled, 256-byte aligned; `what` names it in the out-of-memory message. */
typedef void *vae_alloc_fn(vae_backend *be, size_t bytes, const char *what);
typedef void vae_free_fn(vae_backend *be, void *memory);
/* Bytes that alloc could still give, at most; 0 = not known. */
typedef size_t vae_free_bytes_fn(const vae_backend *be);
/* Blocking copies between the host and the backend's memory, in bytes. */
typedef void vae_upload_fn(vae_backend *be, void *dst_dev, const void *src, size_t bytes);
typedef void vae_download_fn(vae_backend *be, void *dst, const void *src_dev, size_t bytes);
/* The same between packed host floats (rows,cols) and a matrix, converting the type. */
typedef void vae_upload_mat_fn(vae_backend *be, vae_mat dst, const float *src, size_t rows,
                               size_t cols);
typedef void vae_download_mat_fn(vae_backend *be, float *dst, vae_mat src, size_t rows,
                                 size_t cols);
/* params (a flat buffer of n floats from alloc) holds the weights that linear_* will be given
 * pointers into, and has just been changed by the host: makes shadows of them up to date. */
typedef void vae_bind_params_fn(vae_backend *be, float *params, size_t n);

/* ---- data ---- */

/* Makes `set` available to gather(); the set must outlive it. index: (n_index) rows that take
 * part, in order, copied; NULL = all. */
typedef vae_data *vae_data_open_fn(vae_backend *be, const vae_dataset *set, const uint32_t *index,
                                   size_t n_index);
/* Forgets all slots: other data may come to lie at these one's address, and nothing captured
 * may be replayed on them. NULL is allowed. */
typedef void vae_data_close_fn(vae_backend *be, vae_data *data);

/* ---- running ---- */

/* Sets the plan of the next n steps. rows: examples per step (for streaming ahead). */
typedef void vae_plan_fn(vae_backend *be, const vae_plan *plan, size_t n, size_t rows,
                         vae_data *data);
/* Runs fn(ctx) for the next n entries of the plan, the current entry moving on after each.
 * fn calls operations only, always the same ones with the same arguments for the same slot:
 * a backend may capture them once and replay. slot: 0 <= slot < VAE_SLOTS; forget(slot) when
 * the arguments change. */
typedef void vae_run_fn(vae_backend *be, int slot, size_t n, vae_step_fn *fn, void *ctx);
typedef void vae_forget_fn(vae_backend *be, int slot);
/* Runs the next n entries of the plan as run() would with the step's operations, all of it in one
 * go; false, having done nothing, where it has no such way for this step and data. What it writes
 * beside parameters, moments, gradients and totals is its own affair. Sums have an order of their
 * own, so bits differ from run()'s; which way is taken depends on sizes, options and device only,
 * never on timing. NULL: a backend that has none. */
typedef bool vae_run_whole_fn(vae_backend *be, const vae_whole_step *step, vae_data *data,
                              size_t n);
/* Waits for everything; the first error since the last sync. */
typedef vae_status vae_sync_fn(vae_backend *be, vae_error *err);

/* ---- the step's operations ---- */

/* [plan] x: (B,D) out: the rows at positions first .. first+B-1 of the plan's order, binarized
 * with (seed, VAE_RNG_BINARIZE, row * ceil(D/4) + d/4): static uses block 0, dynamic block
 * `draw`; threshold is value >= 1/2. Bits are taken as they are in any case. row is the row of
 * the data set, so that a row's static draw never changes. Data whose rows are drawn give
 * mean + exp(logvar/2)*eps, eps by vae_eps4(seed, VAE_RNG_STACK, row, ..., draw, 0); binarize
 * must be none. */
typedef void vae_gather_fn(vae_backend *be, vae_mat x, vae_data *data, size_t B, size_t D,
                           vae_binarize binarize, uint64_t seed);
/* [plan] x: (B,h*w*c) in place: pictures of h x w pixels of c channels, the row at position p of
 * the plan's order mirrored from left to right where vae_mirrored(seed, p, draw) says so. */
typedef void vae_mirror_fn(vae_backend *be, vae_mat x, size_t B, size_t h, size_t w, size_t c,
                           uint64_t seed);
/* y: (rows,out) out = act(x W^T + b). x: (rows,in); w: (out,in) with ldw, b: (out), in bound
 * params. aux: aux_bytes() of memory, or NULL when no backward will follow. */
typedef void vae_linear_forward_fn(vae_backend *be, vae_mat y, void *aux, vae_mat x, const float *w,
                                   size_t ldw, const float *b, size_t rows, size_t in, size_t out,
                                   vae_activation act);
/* Bias gradients are column sums of a layer's dy, which can be had where dy is made (by recon_loss,
 * linear_recon_loss, particle_weights, scale_rows or linear_backward_input) or where the weight's
 * gradient is. All of these take db: (columns of dy) out, NULL = not wanted. This tells what the
 * backend does faster with so many rows: true = in linear_backward_weight, false = where dy is
 * made, if an operation with db makes it. */
typedef bool vae_bias_with_weight_fn(const vae_backend *be, size_t rows);
/* dw: (out,in) with ldw, db: (out) out or NULL, sums over rows. dy: (rows,out); x: (rows,in).
 * Columns of dw up to the next multiple of 8 may be overwritten, with zeros. */
typedef void vae_linear_backward_weight_fn(vae_backend *be, float *dw, size_t ldw, float *db,
                                           vae_mat dy, vae_mat x, size_t rows, size_t in,
                                           size_t out);
/* dx: (rows,in) out = (dy W) * act'(...), the derivative of the activation that made x, from
 * x itself (its output) or aux (what its linear_forward kept). ReLU's at 0 is 0. db: (in) out or
 * NULL, column sums of dx: the bias gradient of the layer that made x. */
typedef void vae_linear_backward_input_fn(vae_backend *be, vae_mat dx, float *db, vae_mat dy,
                                          const float *w, size_t ldw, vae_mat x, const void *aux,
                                          size_t rows, size_t in, size_t out, vae_activation act);
/* Bytes of memory that a convolution's operations on so many rows need for themselves, bounded
 * whatever the rows; 0 = none (pass NULL). */
typedef size_t vae_conv_bytes_fn(const vae_backend *be, vae_conv g, size_t rows);
/* The same three of a convolution (step.h: vae_conv). y: (rows, one side) out =
 * act(conv(x; w) + b), x: (rows, the other side); w: (c,patch) with ldw, b: one for each channel
 * made (of all parts). scratch: conv_bytes() of memory, for this and the next two. */
typedef void vae_conv_forward_fn(vae_backend *be, vae_mat y, void *aux, vae_mat x, const float *w,
                                 size_t ldw, const float *b, size_t rows, vae_conv g,
                                 vae_activation act, void *scratch);
/* dw: (c,patch) with ldw; db: channels made, sums over rows and pixels; both out. */
typedef void vae_conv_backward_weight_fn(vae_backend *be, float *dw, size_t ldw, float *db,
                                         vae_mat dy, vae_mat x, size_t rows, vae_conv g,
                                         void *scratch);
/* dx: (rows, the side that x was) out, as linear_backward_input's. */
typedef void vae_conv_backward_input_fn(vae_backend *be, vae_mat dx, vae_mat dy, const float *w,
                                        size_t ldw, vae_mat x, const void *aux, size_t rows,
                                        vae_conv g, vae_activation act, void *scratch);
/* [plan] head: (B,2Z) = [mu | logvar]. z: (B*K,Z) out = mu + exp(logvar/2)*eps. kl_row: (B)
 * out, closed-form KL, nats. log_pq: (B*K) out = log p(z) - log q(z|x), or NULL. */
typedef void vae_latent_forward_fn(vae_backend *be, vae_mat z, float *kl_row, float *log_pq,
                                   vae_mat head, size_t B, size_t K, size_t Z, vae_noise noise);
/* kl_dim: (Z) out, the KL of each latent, nats: the sum over the B rows, divided by `over`; with
 * over = B their mean, with that of all ranks this one's part of their mean. */
typedef void vae_kl_dims_fn(vae_backend *be, float *kl_dim, vae_mat head, size_t B, size_t over,
                            size_t Z);
/* [plan] dhead: (B,2Z) out = [dmu | dlogvar], from dz: (B*K,Z), with the noise drawn again.
 * weight: (B*K) normalized importance weights (objectives other than elbo); under elbo NULL, or
 * with K = 1 (B): each row's share, by which its KL's gradient is multiplied, as the caller has
 * multiplied dz.
 * dz has no rows that particle_weights dropped.
 * kl_dim: (Z) or NULL (with free_bits). Formulas: model/model.c. */
typedef void vae_latent_backward_fn(vae_backend *be, vae_mat dhead, vae_mat dz, vae_mat head,
                                    const float *weight, const float *kl_dim, size_t B, size_t K,
                                    size_t Z, vae_latent_grad grad, vae_noise noise);
/* recon_row: (B*K) out = -log p(x|z), nats. dlogits: (B*K,D) (or (B*K,2D) = [mean | raw
 * log variance]) out = its derivative times `scale`; may alias logits; data NULL = not wanted.
 * Row r compares with row r/K of x: (B,D). db: column sums of dlogits, out or NULL. */
typedef void vae_recon_loss_fn(vae_backend *be, float *recon_row, vae_mat dlogits, float *db,
                               vae_mat logits, vae_mat x, size_t B, size_t K, size_t D,
                               vae_recon recon, float scale);
/* linear_forward without an activation, from h: (B*K,in) to logits, and recon_loss of these,
 * dlogits wanted and in their place: between the two a backend need not write them. w: (D or
 * 2D,in). */
typedef void vae_linear_recon_loss_fn(vae_backend *be, float *recon_row, vae_mat logits, float *db,
                                      vae_mat h, const float *w, size_t ldw, const float *b,
                                      vae_mat x, size_t B, size_t K, size_t in, size_t D,
                                      vae_recon recon, float scale);
/* weight: (B*K) out = softmax over k of log w = log_pq - recon_row; bound_row: (B) out =
 * -log mean_k w_k. dlogits: (B*K,cols) rows are multiplied by their weight, in place; data
 * NULL = not wanted. db: their column sums then, out or NULL. Returns how many rows dlogits has
 * then.
 *
 * That may be fewer than B*K: a backend may make a weight below vae_weight_floor(K) 0, and drop
 * its row of dlogits, those behind moving up. All that is dropped of an example is less than
 * 2^-24 of it, which is what rounding one float may lose, and less than what log w, a difference of
 * floats of some hundreds, is exact to; of 50 particles of a trained model it is more than half. A
 * backend that drops rows has drop_rows. */
typedef size_t vae_particle_weights_fn(vae_backend *be, float *weight, float *bound_row,
                                       vae_mat dlogits, float *db, const float *recon_row,
                                       const float *log_pq, size_t B, size_t K, size_t cols);
static inline float vae_weight_floor(size_t K)
{
    return 0x1p-24f / (float)K;
}
/* m: (rows,cols) in place: without the rows whose weight is 0, those behind moving up, as
 * particle_weights left dlogits: for what layers read whose dy lacks them. weight: (rows). NULL: a
 * backend that drops none. */
typedef void vae_drop_rows_fn(vae_backend *be, vae_mat m, const float *weight, size_t rows,
                              size_t cols);
/* [plan] totals +=: recon (mean over particles), kl, examples; objective: bound_row if given,
 * else recon + beta*(kl, or B*sum_j max(free_bits, kl_dim_j) if kl_dim is given). A sum that is
 * not finite sets bad_step. */
typedef void vae_accumulate_fn(vae_backend *be, vae_totals *totals, const float *recon_row,
                               const float *kl_row, const float *bound_row, const float *kl_dim,
                               size_t B, size_t K, size_t Z, float free_bits);
/* [plan] totals->grad_norm = |g|; sets bad_step if it is not finite. n floats,
 * a multiple of VAE_PAD. */
typedef void vae_grad_norm_fn(vae_backend *be, vae_totals *totals, const float *g, size_t n);
/* [plan] One Adam step over n floats, a multiple of VAE_PAD (and shadows), unless
 * totals->bad_step. clip_norm > 0 scales g by min(1, clip_norm/grad_norm). */
typedef void vae_adam_fn(vae_backend *be, float *params, const float *g, float *m, float *v,
                         size_t n, const vae_totals *totals, vae_adam adam, float clip_norm);
/* Only where the backend has ranks. [plan] v: (n) in place, floats of any meaning: becomes the sum
 * over ranks, with the same bits on all of them. adds: false: this rank has nothing to add, and
 * what is in v does not count. totals: NULL, or where any rank's bad_step is set, v[0] is NaN
 * afterwards on all of them, so that what follows goes bad everywhere. later: v is not read before
 * grad_norm, so that a backend may work on meanwhile. Collective: all ranks run the same of these
 * in the same order. */
typedef void vae_sum_ranks_fn(vae_backend *be, float *v, size_t n, bool adds, bool later,
                              const vae_totals *totals);
/* x_hat: (rows,D) out, the decoder's mean: sigmoid(logits) where vae_mean_is_sigmoid says so, else
 * the logits' first D. */
typedef void vae_decode_fn(vae_backend *be, float *x_hat, vae_mat logits, size_t rows, size_t D,
                           vae_recon recon);

/* ---- classes: conditional and semi-supervised models (model/classes.c) ---- */

/* [plan] label: (B) out: labels of the rows that gather takes, VAE_NO_LABEL where the data set
 * has none; that is an error if they are `required`. */
typedef void vae_gather_labels_fn(vae_backend *be, uint32_t *label, vae_data *data, size_t B,
                                  bool required);
/* Columns first .. first+C-1 of m: (B*K, first+C): 1 in column first + label[r/K] of row r,
 * 0 in the others. A label of C or more gives a row of zeros. */
typedef void vae_one_hot_fn(vae_backend *be, vae_mat m, const uint32_t *label, size_t B, size_t K,
                            size_t first, size_t C);
/* The end of a layer that sees [x | one-hot class]; the part of x is the same for all rows of
 * an example and computed once. y: (rows,out) out = act(h + w's column of the class).
 * h: (examples,out) = x W_x^T + b. w: (out,C) with ldw, in bound params. label: (rows) out, the
 * class of each row; one of C or more adds nothing. aux: as linear_forward's. */
typedef void vae_class_forward_fn(vae_backend *be, vae_mat y, void *aux, uint32_t *label, vae_mat h,
                                  const float *w, size_t ldw, vae_class_rows of, size_t out,
                                  vae_activation act);
/* dh: (examples,out) out: of each example, the sum over its rows of dy: (rows,out). */
typedef void vae_class_sums_fn(vae_backend *be, vae_mat dh, vae_mat dy, vae_class_rows of,
                               size_t out);
/* dw: (out,C) with ldw, out: of each class, the sum over its rows of dy: (rows,out). To be
 * called after linear_backward_weight of the columns to its left, which may clear it. */
typedef void vae_class_backward_weight_fn(vae_backend *be, float *dw, size_t ldw, vae_mat dy,
                                          vae_class_rows of, size_t out);
/* label: (B) out: the class with the largest logit, the first of equals. logits: (B,C). */
typedef void vae_classify_fn(vae_backend *be, uint32_t *label, vae_mat logits, size_t B, size_t C);
/* [plan] The loss over classes, Kingma et al. 2014, eqs. 6-9; formulas: model/classes.c.
 * logits: (examples,C) of q(y|x); recon_row, kl_row: (rows). terms: (5,examples) out: recon,
 * kl, all_open times the share of the loss, misclassified (0 or 1), label known (0 or 1). weight:
 * (rows) out, the loss's derivative by each row's recon; dlogits: (as logits) out, may alias
 * logits; both NULL where no gradient is wanted. */
typedef void vae_class_loss_fn(vae_backend *be, float *terms, float *weight, vae_mat dlogits,
                               vae_mat logits, const float *recon_row, const float *kl_row,
                               vae_class_rows of, float cross_entropy);
/* [plan] totals += class_loss's terms: recon, kl and examples of the n_open rows; objective,
 * errors and classified of all. A sum that is not finite sets bad_step. */
typedef void vae_accumulate_classes_fn(vae_backend *be, vae_totals *totals, const float *terms,
                                       size_t n_open, size_t n_labelled);
/* m: (rows,cols) in place: row r times factor[r]. sums: (cols) out, its column sums then, or
 * NULL. */
typedef void vae_scale_rows_fn(vae_backend *be, vae_mat m, float *sums, const float *factor,
                               size_t rows, size_t cols);

/* The step's operations: a new one is its type, its name here, and a function in each backend. */
#define VAE_STEP_OPS(OP)                                                                           \
    OP(gather)                                                                                     \
    OP(mirror)                                                                                     \
    OP(linear_forward)                                                                             \
    OP(linear_backward_weight)                                                                     \
    OP(linear_backward_input)                                                                      \
    OP(conv_forward)                                                                               \
    OP(conv_backward_weight)                                                                       \
    OP(conv_backward_input)                                                                        \
    OP(latent_forward)                                                                             \
    OP(kl_dims)                                                                                    \
    OP(latent_backward)                                                                            \
    OP(recon_loss)                                                                                 \
    OP(linear_recon_loss)                                                                          \
    OP(particle_weights)                                                                           \
    OP(accumulate)                                                                                 \
    OP(grad_norm)                                                                                  \
    OP(adam)                                                                                       \
    OP(sum_ranks)                                                                                  \
    OP(decode)                                                                                     \
    OP(gather_labels)                                                                              \
    OP(one_hot)                                                                                    \
    OP(class_forward)                                                                              \
    OP(class_sums)                                                                                 \
    OP(class_backward_weight)                                                                      \
    OP(classify)                                                                                   \
    OP(class_loss)                                                                                 \
    OP(accumulate_classes)                                                                         \
    OP(scale_rows)

#define VAE_OP_FIELD(op) vae_##op##_fn *op;
typedef struct {
    const char *name; /* "cpu", "cuda" */
    vae_close_fn *close;
    vae_describe_fn *describe;
    vae_act_size_fn *act_size;
    vae_aux_bytes_fn *aux_bytes;
    vae_conv_bytes_fn *conv_bytes;
    vae_bias_with_weight_fn *bias_with_weight;
    vae_alloc_fn *alloc;
    vae_free_fn *free;
    vae_free_bytes_fn *free_bytes;
    vae_upload_fn *upload;
    vae_download_fn *download;
    vae_upload_mat_fn *upload_mat;
    vae_download_mat_fn *download_mat;
    vae_bind_params_fn *bind_params;
    vae_data_open_fn *data_open;
    vae_data_close_fn *data_close;
    vae_plan_fn *plan;
    vae_run_fn *run;
    vae_run_whole_fn *run_whole;
    vae_forget_fn *forget;
    vae_sync_fn *sync;
    vae_drop_rows_fn *drop_rows;
    VAE_STEP_OPS(VAE_OP_FIELD)
} vae_backend_ops;
#undef VAE_OP_FIELD

enum { VAE_SLOTS = 8 };

struct vae_backend {
    const vae_backend_ops *ops;
    const vae_ranks *ranks; /* that share a training step's batch; NULL: it runs alone */
};

#endif
