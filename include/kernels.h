/* Launchers of the CUDA kernels: what backend/cuda asks of kernels/. Each one checks nothing but
 * its launch, adds work to `stream` and returns at once. Pointers are to device memory.
 *
 * Matrices are as in backend.h: rows of `ld` elements, ld a multiple of 16, bases at multiples of
 * 16 bytes, so rows can be read 16 bytes at a time; columns cols..ld-1 are zero and stay so. Sizes
 * of one operation are below 2^31 rows, and sums are in a fixed order that depends on sizes only.
 * Grids are chosen here, by size; a kernel needs no more shared memory than it declares.
 */
#ifndef VAE_KERNELS_H
#define VAE_KERNELS_H

#include <cuda_runtime_api.h>
#include <stdbool.h>

#include "step.h"

#ifdef __cplusplus
extern "C" {
#endif

/* Element type of activations. Math is in float for both. */
typedef enum { VAE_ELEM_F32 = 0, VAE_ELEM_BF16 = 1 } vae_elem;

/* Where [plan] kernels find their entry: plan[*cursor + offset]. The cursor is in device memory, so
 * that a replayed graph moves on; offset is the step's place in a graph of several. */
typedef struct {
    const vae_plan *plan;
    const uint64_t *cursor;
    uint64_t offset;
} vae_now;

/* Rows to gather from. A row is vae_pad(D) bytes (u8) or floats apart from the next, or ceil(D/32)
 * words of 32 bits (bits: on little-endian machines, the bytes of VAE_BITS), zero-padded.
 * Resident (n_slots = 0): (n) rows; position i of the order is row p = vae_shuffle(..., i) or i,
 * and its number in the data set is number[p], or p where number is NULL. Staged (n_slots > 0): the
 * batch of plan entry e lies in slot e % n_slots, slot_rows rows and numbers each, in the order
 * wanted. Without padding, in which the emulation would take leftovers for a host pointer. */
typedef struct {
    const void *rows;
    const uint32_t *number;
    const uint32_t *labels; /* of the whole data set, by number; NULL where it has none */
    uint64_t n;
    uint32_t half_bits;
    uint32_t n_slots;
    uint32_t slot_rows;
    vae_dtype dtype;
    uint64_t draws; /* 1: rows are [mean | logvar] floats, D of each */
} vae_rows;

/* What sums in two stages need: VAE_SUMS_SCRATCH bytes, and VAE_SUMS_TICKETS counters that are zero
 * before a launch and after it. Launches that may overlap need their own. `partial` and `ticket` of
 * accumulate and grad_norm are as much, and one counter. */
enum { VAE_SUMS_SCRATCH = 2 << 20, VAE_SUMS_TICKETS = 512 };
typedef struct {
    void *partial;
    uint32_t *ticket;
} vae_sums;

/* x: (B,D) out; backend.h's gather. A warp per stretch of x, across rows; one 16-byte store per
 * thread and turn. */
cudaError_t vae_gather_launch(vae_elem type, vae_mat x, vae_rows rows, vae_now now, size_t B,
                              size_t D, vae_binarize binarize, uint64_t seed, cudaStream_t stream);

/* head: (B,2Z); z: (B*K,Z) out, kl_row: (B) out, log_pq: (B*K) out or NULL.
 * z = mu + exp(logvar/2)*eps; kl = 1/2 sum(mu^2 + e^logvar - 1 - logvar);
 * log_pq = 1/2 sum(eps^2 + logvar - z^2). A lane per row and four latents, up to 32 per row. */
cudaError_t vae_latent_forward_launch(vae_elem type, vae_mat z, float *kl_row, float *log_pq,
                                      vae_mat head, vae_now now, size_t B, size_t K, size_t Z,
                                      vae_noise noise, cudaStream_t stream);
/* dhead: (B,2Z) out; formulas: model/model.c. A thread per example and four latents, and as many of
 * these as fill a large device share its particles. */
cudaError_t vae_latent_backward_launch(vae_elem type, vae_mat dhead, vae_mat dz, vae_mat head,
                                       const float *weight, const float *kl_dim, vae_now now,
                                       size_t B, size_t K, size_t Z, vae_latent_grad grad,
                                       vae_noise noise, cudaStream_t stream);

/* recon_row: (B*K) out, dlogits out times scale, may alias logits; data NULL = not wanted.
 * Bernoulli softplus(l) - x*l; Gaussians vae_gaussian() or
 * vae_gaussian_sigmoid(). A power of two of lanes per row. db: (D)
 * out, column sums of dlogits, only where vae_recon_loss_sums() says so, else NULL. */
cudaError_t vae_recon_loss_launch(vae_elem type, float *recon_row, vae_mat dlogits, float *db,
                                  vae_mat logits, vae_mat x, vae_sums scratch, size_t B, size_t K,
                                  size_t D, vae_recon recon, float scale, cudaStream_t stream);
/* 1: recon_loss of rows sums up dlogits on the way. Not for few rows, where that takes longer than
 * a launch beside the main chain; nor for very long ones, nor with a learned variance. */
int vae_recon_loss_sums(size_t rows, size_t D, vae_recon recon);
/* weight: (B*K), bound_row: (B) out: softmax over k and -log mean of w = exp(log_pq - recon_row).
 * dlogits: (B*K,cols) rows times their weight, in place; data NULL = not wanted. db: (cols) out,
 * column sums of dlogits then, or NULL. */
cudaError_t vae_particle_weights_launch(vae_elem type, float *weight, float *bound_row,
                                        vae_mat dlogits, float *db, const float *recon_row,
                                        const float *log_pq, vae_sums scratch, size_t B, size_t K,
                                        size_t cols, cudaStream_t stream);
/* x_hat: (rows,D) packed floats out: sigmoid(logits) or the mean. */
cudaError_t vae_decode_launch(vae_elem type, float *x_hat, vae_mat logits, size_t rows, size_t D,
                              vae_recon recon, cudaStream_t stream);

/* y: (rows,cols) in place: act(y + b), b may be NULL; pre gets y + b, where the activation keeps
 * its input; data NULL = not wanted. */
cudaError_t vae_bias_act_launch(vae_elem type, vae_mat y, vae_mat pre, const float *b, size_t rows,
                                size_t cols, vae_activation act, cudaStream_t stream);
/* dx: (rows,cols) in place: times act' from `from`, the activation's output, or its input
 * where it keeps that. db: (cols) out, column sums of dx then, or NULL. */
cudaError_t vae_act_grad_launch(vae_elem type, float *db, vae_mat dx, vae_mat from,
                                vae_sums scratch, size_t rows, size_t cols, vae_activation act,
                                cudaStream_t stream);
/* to: (n) bf16 out, from: (n) floats, rounded to nearest even. n a multiple of 16. */
cudaError_t vae_to_bf16_launch(void *to, const float *from, size_t n, cudaStream_t stream);

/* x: (B,h*w*c) in place: backend.h's mirror. A thread per pair of pixels. */
cudaError_t vae_mirror_launch(vae_elem type, vae_mat x, vae_now now, size_t B, size_t h, size_t w,
                              size_t c, uint64_t seed, cudaStream_t stream);

/* ---- convolutions (step.h: vae_conv) of `rows` pictures, below 2^32 values of one call; each sum
 * over pixels is in a fixed order ---- */

/* What becomes of a sum v: act(v + b[channel]), pre getting v + b unless NULL; or, where from is
 * given, v times act' of what it holds there. pre and from lie as what is made. */
typedef struct {
    const float *b;
    void *pre;
    const void *from;
    uint64_t act; /* a vae_activation; without padding, as vae_rows */
} vae_conv_finish;

/* p: (rows*h*w,patch) out, patches of big: (rows, the big side); its padding zero. */
cudaError_t vae_conv_patches_launch(vae_elem type, vae_mat p, vae_mat big, vae_conv g, size_t rows,
                                    cudaStream_t stream);
/* small: (rows, the small side) out, from t: (rows*h*w,c). */
cudaError_t vae_conv_small_launch(vae_elem type, vae_mat small, vae_mat t, vae_conv_finish f,
                                  vae_conv g, size_t rows, cudaStream_t stream);
/* big: (rows, the big side) out: of each value, the sum over the places of the kernel that reach
 * it, of t: (rows*h*w,patch) floats, so that sums are rounded once. */
cudaError_t vae_conv_big_launch(vae_elem type, vae_mat big, vae_mat t, vae_conv_finish f,
                                vae_conv g, size_t rows, cudaStream_t stream);
/* to: (n) = from, or += from unless it is the first. */
cudaError_t vae_add_launch(float *to, const float *from, size_t n, int first, cudaStream_t stream);

/* db: (cols) out: column sums of dy: (rows,cols). */
cudaError_t vae_column_sums_launch(vae_elem type, float *db, vae_mat dy, vae_sums scratch,
                                   size_t rows, size_t cols, cudaStream_t stream);
/* sums: (cols) out: column sums of partial: (n,cols) packed floats. */
cudaError_t vae_column_finish_launch(float *sums, const float *partial, size_t n, size_t cols,
                                     cudaStream_t stream);
/* kl_dim: (Z) out: means over rows of vae_kl. */
cudaError_t vae_kl_dims_launch(vae_elem type, float *kl_dim, vae_mat head, vae_sums scratch,
                               size_t B, size_t over, size_t Z, cudaStream_t stream);
/* v[0] becomes NaN if totals->bad_step is set: of a sum over ranks, so that all see it. */
cudaError_t vae_poison_launch(float *v, const vae_totals *totals, cudaStream_t stream);
/* totals +=, as backend.h's accumulate says. */
cudaError_t vae_accumulate_launch(vae_totals *totals, const float *recon_row, const float *kl_row,
                                  const float *bound_row, const float *kl_dim, vae_now now,
                                  void *partial, uint32_t *ticket, size_t B, size_t K, size_t Z,
                                  float free_bits, cudaStream_t stream);
/* totals->grad_norm = |g|, and bad_step. n a multiple of 4. ticket NULL: only the partial sums are
 * made, for adam, and totals is left alone. */
cudaError_t vae_grad_norm_launch(vae_totals *totals, const float *g, vae_now now, void *partial,
                                 uint32_t *ticket, size_t n, cudaStream_t stream);

/* One Adam step (vae_adam_element) over n floats, n a multiple of 16; shadow: (n) bf16 out or NULL.
 * Nothing is written if totals->bad_step. partial: what grad_norm made of g without a ticket, whose
 * end this does, for totals, too; NULL: the norm is in totals, which is left alone. */
cudaError_t vae_adam_launch(float *params, const float *g, float *m, float *v, void *shadow,
                            size_t n, vae_totals *totals, const void *partial, uint32_t *ticket,
                            vae_adam adam, float clip_norm, vae_now now, cudaStream_t stream);
/* Classes: as backend.h says. accumulate_classes' partial and ticket are as accumulate's. */
cudaError_t vae_gather_labels_launch(uint32_t *label, vae_rows rows, vae_now now, size_t B,
                                     cudaStream_t stream);
cudaError_t vae_one_hot_launch(vae_elem type, vae_mat m, const uint32_t *label, size_t B, size_t K,
                               size_t first, size_t C, cudaStream_t stream);
/* pre: NULL, or gets what y is the activation of. */
cudaError_t vae_class_forward_launch(vae_elem type, vae_mat y, vae_mat pre, uint32_t *label,
                                     vae_mat h, const float *w, size_t ldw, vae_class_rows of,
                                     size_t out, vae_activation act, cudaStream_t stream);
cudaError_t vae_class_sums_launch(vae_elem type, vae_mat dh, vae_mat dy, vae_class_rows of,
                                  size_t out, cudaStream_t stream);
/* open: (C*ld) floats of scratch, ld that of dy. */
cudaError_t vae_class_backward_weight_launch(vae_elem type, float *dw, size_t ldw, vae_mat dy,
                                             float *open, vae_sums scratch, vae_class_rows of,
                                             size_t out, cudaStream_t stream);
cudaError_t vae_classify_launch(vae_elem type, uint32_t *label, vae_mat logits, size_t B, size_t C,
                                cudaStream_t stream);
cudaError_t vae_class_loss_launch(vae_elem type, float *terms, float *weight, vae_mat dlogits,
                                  vae_mat logits, const float *recon_row, const float *kl_row,
                                  vae_class_rows of, vae_now now, float cross_entropy,
                                  cudaStream_t stream);
cudaError_t vae_accumulate_classes_launch(vae_totals *totals, const float *terms, vae_now now,
                                          void *partial, uint32_t *ticket, size_t n_open,
                                          size_t n_labelled, cudaStream_t stream);
/* m: (rows,cols) in place: row r times factor[r]. sums: (cols) out, its column sums, or NULL. */
cudaError_t vae_scale_rows_launch(vae_elem type, vae_mat m, float *sums, const float *factor,
                                  vae_sums scratch, size_t rows, size_t cols, cudaStream_t stream);

/* How the persistent kernel multiplies: three tf32 products for one in fp32 (kernels/mma.h). */
typedef enum { VAE_PRODUCT_FP32 = 0, VAE_PRODUCT_TF32, VAE_PRODUCT_BF16 } vae_product;

/* Many training steps in one launch (kernels/persistent.cu). weights: what products read, the bf16
 * twin of step.params, or these themselves. x_next: a second batch like step.layers[0].x, its
 * padding zero. scratch: vae_persistent_scratch() bytes, its first 8 zero. */
typedef struct {
    vae_whole_step step;
    vae_rows rows; /* resident, not drawn */
    vae_now now;
    uint64_t n_steps;
    void *weights, *x_next, *scratch;
    float logvar, inv_var; /* of a Gaussian's fixed variance; the launcher works them out */
    uint64_t in_shared;    /* 1: a block keeps its share of the state in shared memory */
    uint64_t spread;       /* how many blocks may do the same 16 rows, from 1 */
    uint32_t *times;       /* NULL, or (blocks,VAE_MARKS) out, zero before, see vae_mark */
} vae_persistent;
/* What `times` holds of a block: cycles of the last step. Phase p (one between two barriers; the
 * last is the update) worked 2p and then waited 2p + 1 for the others; what follows is since its
 * phase's start, where the block did it. The launch as a whole in nanoseconds and in cycles, which
 * tells the clock. */
typedef enum {
    VAE_MARK_PHASES = 0,
    VAE_MARK_HEAD = 2 * (2 * VAE_WHOLE_LAYERS - 1),
    VAE_MARK_LATENT,
    VAE_MARK_GATHER,
    VAE_MARK_DZ,
    VAE_MARK_DHEAD,
    VAE_MARK_TOTALS,
    VAE_MARK_NORM,
    VAE_MARK_LAUNCH_NS,
    VAE_MARK_LAUNCH_CYCLES,
    VAE_MARKS = 64
} vae_mark;
size_t vae_persistent_scratch(const vae_whole_step *step, uint32_t spread);
/* Bytes of shared memory of a block, with its share of parameters and moments or without. */
size_t vae_persistent_shared(size_t n, unsigned blocks, bool in_shared);
/* Blocks that a multiprocessor holds; also lets the kernel have that much shared memory. */
cudaError_t vae_persistent_occupancy(int *blocks, vae_product product, size_t shared);
/* One launch; results do not depend on `blocks`, all of which must be resident. */
cudaError_t vae_persistent_launch(const vae_persistent *job, vae_product product, unsigned blocks,
                                  size_t shared, cudaStream_t stream);

/* *cursor += steps. One thread. */
cudaError_t vae_advance_launch(uint64_t *cursor, uint64_t steps, cudaStream_t stream);

/* ---- kernels/hopper*.cu: products of bf16 with what follows them, for compute capability 9.0 ----
 * Where built() says that they were compiled, and fits() that the sizes are theirs. Matrices are
 * bf16, w: (out,in) too, biases floats; partial: VAE_HOPPER_SCRATCH bytes. fits() knows nothing of
 * the number of rows, but for the loss's: any number works, many are what they are made for. */
enum { VAE_HOPPER_SCRATCH = 32 << 20 };
int vae_hopper_built(void);
/* y: (rows,out) out = act(x w' + b), x: (rows,in). */
int vae_hopper_forward_fits(size_t in, size_t out, vae_activation act);
cudaError_t vae_hopper_forward_launch(vae_mat y, vae_mat x, const void *w, size_t ldw,
                                      const float *b, size_t rows, size_t in, size_t out,
                                      vae_activation act, cudaStream_t stream);
/* dx: (rows,in) out = (dy w) times the derivative of the ReLU that made x, dy: (rows,out). */
int vae_hopper_input_fits(size_t in, size_t out, vae_activation act);
cudaError_t vae_hopper_input_launch(vae_mat dx, vae_mat dy, const void *w, size_t ldw, vae_mat x,
                                    size_t rows, size_t in, size_t out, cudaStream_t stream);
/* dw: (out,in) out = dy' x; db: (out) out, column sums of dy, or NULL. */
int vae_hopper_weight_fits(size_t in, size_t out);
cudaError_t vae_hopper_weight_launch(float *dw, size_t ldw, float *db, vae_mat dy, vae_mat x,
                                     void *partial, size_t rows, size_t in, size_t out,
                                     cudaStream_t stream);
/* The last layer and recon_loss without logits between them: h: (B*K,in), w: (D,in), b: (D). */
int vae_hopper_loss_fits(size_t rows, size_t in, size_t D, vae_recon recon);
cudaError_t vae_hopper_loss_launch(float *recon_row, vae_mat dlogits, vae_mat h, const void *w,
                                   size_t ldw, const float *b, vae_mat x, void *partial, size_t B,
                                   size_t K, size_t in, size_t D, float scale, cudaStream_t stream);

#ifdef __cplusplus
}
#endif

#endif
