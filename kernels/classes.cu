/* Classes: labels of a batch, one-hot columns, rows for every class, the loss over classes. All of
 * it is small beside the matrix products. */
#include "kernels.h"
#include "launch.h"
#include "philox.h"
#include "vae_math.h"
#include "vector.h"

enum { TERMS = 5, MOST_BLOCKS = 128 };

/* Grid: a thread per row of the batch. */
__global__ void __launch_bounds__(VAE_BLOCK)
    gather_labels_kernel(uint32_t *label, vae_rows from, vae_now now, size_t B)
{
    const size_t r = grid_thread();
    if (r >= B) {
        return;
    }
    const vae_plan *plan = plan_entry(now);
    size_t place;
    if (from.n_slots > 0) {
        const uint32_t entry = (uint32_t)(*now.cursor + now.offset);
        place = entry % from.n_slots * from.slot_rows + r;
    } else {
        place = vae_plan_row(plan, from.n, from.half_bits, r);
    }
    const size_t number = from.number != NULL ? from.number[place] : place;
    label[r] = from.labels != NULL ? from.labels[number] : VAE_NO_LABEL;
}

/* Grid: a thread per value written. */
template <typename T>
__global__ void __launch_bounds__(VAE_BLOCK)
    one_hot_kernel(T *m, size_t ld, const uint32_t *__restrict__ label, size_t rows, uint32_t K,
                   size_t first, uint32_t C)
{
    const size_t i = grid_thread(), r = i / C;
    const uint32_t c = (uint32_t)(i - r * C);
    if (r < rows) {
        elem<T>::put(m + r * ld + first + c, label[r / K] == c ? 1.0f : 0.0f);
    }
}

/* Grid: `lanes` neighbouring threads per row of x. Whole vectors of data first, then the rest with
 * the class. */
template <typename T>
__global__ void __launch_bounds__(VAE_BLOCK)
    expand_classes_kernel(T *x, size_t ldx, uint32_t *label, const T *x0, size_t ld0,
                          const uint32_t *label0, uint32_t n_open, uint32_t n_labelled, uint32_t D,
                          uint32_t C, unsigned lanes)
{
    constexpr uint32_t N = elem<T>::N;
    const uint32_t r = group_row(lanes), lane = group_lane(lanes), open_rows = n_open * C;
    if (r >= open_rows + n_labelled) {
        return;
    }
    const uint32_t b = r < open_rows ? r / C : r - open_rows + n_open;
    const uint32_t y = r < open_rows ? r - b * C : label0[b];
    const uint32_t whole = D / N * N;
    const T *from = x0 + (size_t)b * ld0;
    T *to = x + (size_t)r * ldx;
    for (uint32_t d = lane * N; d < whole; d += lanes * N) {
        store16(to + d, load16(from + d));
    }
    for (uint32_t d = whole + lane; d < D + C; d += lanes) {
        elem<T>::put(to + d, d < D ? elem<T>::get(from + d) : d - D == y ? 1.0f : 0.0f);
    }
    if (lane == 0) {
        label[r] = y;
    }
}

template <typename T> static __device__ uint32_t best_class(const T *logits, uint32_t C)
{
    uint32_t best = 0;
    float most = elem<T>::get(logits);
    for (uint32_t c = 1; c < C; c++) {
        const float l = elem<T>::get(logits + c);
        best = l > most ? c : best;
        most = l > most ? l : most;
    }
    return best;
}

/* Grid: a thread per row. */
template <typename T>
__global__ void __launch_bounds__(VAE_BLOCK)
    classify_kernel(uint32_t *label, const T *logits, size_t ld, size_t B, uint32_t C)
{
    const size_t r = grid_thread();
    if (r < B) {
        label[r] = best_class(logits + r * ld, C);
    }
}

template <typename T> static __device__ double log_sum_exp(const T *logits, uint32_t C)
{
    const double most = (double)elem<T>::get(logits + best_class(logits, C));
    double sum = 0;
    for (uint32_t c = 0; c < C; c++) {
        sum += exp((double)elem<T>::get(logits + c) - most);
    }
    return most + log(sum);
}

/* Grid: a thread per example, classes one after the other; in double, as differences of large
 * losses decide. Formulas: model_classes.c. */
template <typename T>
__global__ void __launch_bounds__(VAE_BLOCK)
    class_loss_kernel(float *terms, float *weight, T *dlogits, size_t ldd, const T *logits,
                      size_t ldl, const float *recon_row, const float *kl_row,
                      const uint32_t *label0, vae_now now, size_t n_open, size_t n_labelled,
                      uint32_t C, float cross_entropy)
{
    const size_t b = grid_thread(), n = n_open + n_labelled;
    if (b >= n) {
        return;
    }
    const vae_plan *plan = plan_entry(now);
    const bool labelled = b >= n_open;
    const size_t first = labelled ? n_open * C + b - n_open : b * C;
    const uint32_t label = label0[b];
    const double share = (double)plan->labelled_share, beta = (double)plan->beta;
    const double scale = labelled ? share / (double)n_labelled : (1 - share) / (double)n_open;
    const double log_classes = log((double)C), log_sum = log_sum_exp(logits + b * ldl, C);
    double recon = 0, kl = 0, bound = log_classes;
    for (uint32_t c = 0; c < (labelled ? 1 : C); c++) {
        const double lq = labelled ? 0 : (double)elem<T>::get(logits + b * ldl + c) - log_sum;
        const double q = exp(lq), r = (double)recon_row[first + c], k = (double)kl_row[first + c];
        recon += q * r;
        kl += q * (k + lq);
        bound += q * (r + beta * k + lq);
        if (weight != NULL) {
            weight[first + c] = (float)(scale * q);
        }
    }
    double part = scale * bound;
    const double ce = labelled ? (double)cross_entropy / (double)n_labelled : 0;
    if (labelled) { /* of a label that is out of range, a NaN: it must not pass unseen */
        part += ce * (label < C ? log_sum - (double)elem<T>::get(logits + b * ldl + label)
                                : (double)NAN);
    }
    const bool wrong = label < C && best_class(logits + b * ldl, C) != label;
    /* last, as dlogits may be logits */
    for (uint32_t c = 0; dlogits != NULL && c < C; c++) {
        const double lq = (double)elem<T>::get(logits + b * ldl + c) - log_sum, q = exp(lq);
        double g = ce * (q - (c == label ? 1.0 : 0.0));
        if (!labelled) {
            const double s = (double)recon_row[first + c] + beta * (double)kl_row[first + c];
            g = scale * q * (s + lq + log_classes - bound);
        }
        elem<T>::put(dlogits + b * ldd + c, (float)g);
    }
    terms[b] = (float)recon;
    terms[n + b] = (float)(kl + log_classes);
    terms[2 * n + b] = (float)((double)n_open * part);
    terms[3 * n + b] = wrong ? 1.0f : 0.0f;
    terms[4 * n + b] = label < C ? 1.0f : 0.0f;
}

/* Grid: by size. partial: (grid,TERMS) doubles. */
__global__ void __launch_bounds__(VAE_BLOCK)
    accumulate_classes_kernel(vae_totals *totals, const float *terms, vae_now now, double *partial,
                              uint32_t *ticket, size_t n_open, size_t n_labelled)
{
    __shared__ double part[TERMS * VAE_BLOCK];
    const size_t n = n_open + n_labelled;
    double sum[TERMS];
    for (int t = 0; t < TERMS; t++) { /* one after the other, each in its own part: no spills */
        double one = 0;
        for (size_t i = grid_thread(); i < (t < 2 ? n_open : n); i += grid_threads()) {
            one += (double)terms[(size_t)t * n + i];
        }
        block_sums(&one, 1, part + t * VAE_BLOCK);
        if (threadIdx.x == 0) {
            partial[TERMS * (size_t)blockIdx.x + t] = one;
        }
    }
    if (!last_block(ticket)) {
        return;
    }
    for (int t = 0; t < TERMS; t++) {
        sum[t] = threadIdx.x < gridDim.x
                     ? ((volatile double *)partial)[TERMS * (size_t)threadIdx.x + t]
                     : 0.0;
        block_sums(&sum[t], 1, part + t * VAE_BLOCK);
    }
    if (threadIdx.x == 0) {
        totals->recon += sum[0];
        totals->kl += sum[1];
        totals->objective += sum[2];
        totals->examples += (double)n_open;
        totals->errors += sum[3];
        totals->classified += sum[4];
        if (totals->bad_step == 0 && !isfinite(sum[0] + sum[1] + sum[2])) {
            totals->bad_step = plan_entry(now)->step;
        }
    }
}

template <typename T>
static cudaError_t one_hot(vae_mat m, const uint32_t *label, size_t rows, size_t K, size_t first,
                           size_t C, cudaStream_t stream)
{
    VAE_LAUNCH((one_hot_kernel<T>), vae_blocks(rows * C, (size_t)-1), VAE_BLOCK, 0, stream,
               static_cast<T *>(m.data), m.ld, label, rows, (uint32_t)K, first, (uint32_t)C);
    return cudaGetLastError();
}

template <typename T>
static cudaError_t expand_classes(vae_mat x, uint32_t *label, vae_mat x0, const uint32_t *label0,
                                  size_t n_open, size_t n_labelled, size_t D, size_t C,
                                  cudaStream_t stream)
{
    const size_t rows = n_open * C + n_labelled;
    const unsigned lanes = lanes_for(rows, (D + elem<T>::N - 1) / elem<T>::N, 8, VAE_BLOCK);
    VAE_LAUNCH((expand_classes_kernel<T>), vae_blocks(rows * lanes, (size_t)-1), VAE_BLOCK, 0,
               stream, static_cast<T *>(x.data), x.ld, label, static_cast<const T *>(x0.data),
               x0.ld, label0, (uint32_t)n_open, (uint32_t)n_labelled, (uint32_t)D, (uint32_t)C,
               lanes);
    return cudaGetLastError();
}

template <typename T>
static cudaError_t classify(uint32_t *label, vae_mat logits, size_t B, size_t C,
                            cudaStream_t stream)
{
    VAE_LAUNCH((classify_kernel<T>), vae_blocks(B, (size_t)-1), VAE_BLOCK, 0, stream, label,
               static_cast<const T *>(logits.data), logits.ld, B, (uint32_t)C);
    return cudaGetLastError();
}

template <typename T>
static cudaError_t class_loss(float *terms, float *weight, vae_mat dlogits, vae_mat logits,
                              const float *recon_row, const float *kl_row, const uint32_t *label0,
                              vae_now now, size_t n_open, size_t n_labelled, size_t C,
                              float cross_entropy, cudaStream_t stream)
{
    VAE_LAUNCH((class_loss_kernel<T>), vae_blocks(n_open + n_labelled, (size_t)-1), VAE_BLOCK, 0,
               stream, terms, weight, static_cast<T *>(dlogits.data), dlogits.ld,
               static_cast<const T *>(logits.data), logits.ld, recon_row, kl_row, label0, now,
               n_open, n_labelled, (uint32_t)C, cross_entropy);
    return cudaGetLastError();
}

extern "C" cudaError_t vae_gather_labels_launch(uint32_t *label, vae_rows rows, vae_now now,
                                                size_t B, cudaStream_t stream)
{
    VAE_LAUNCH(gather_labels_kernel, vae_blocks(B, (size_t)-1), VAE_BLOCK, 0, stream, label, rows,
               now, B);
    return cudaGetLastError();
}

extern "C" cudaError_t vae_one_hot_launch(vae_elem type, vae_mat m, const uint32_t *label, size_t B,
                                          size_t K, size_t first, size_t C, cudaStream_t stream)
{
    return type == VAE_ELEM_F32 ? one_hot<float>(m, label, B * K, K, first, C, stream)
                                : one_hot<vae_bf16>(m, label, B * K, K, first, C, stream);
}

extern "C" cudaError_t vae_expand_classes_launch(vae_elem type, vae_mat x, uint32_t *label,
                                                 vae_mat x0, const uint32_t *label0, size_t n_open,
                                                 size_t n_labelled, size_t D, size_t C,
                                                 cudaStream_t stream)
{
    return type == VAE_ELEM_F32
               ? expand_classes<float>(x, label, x0, label0, n_open, n_labelled, D, C, stream)
               : expand_classes<vae_bf16>(x, label, x0, label0, n_open, n_labelled, D, C, stream);
}

extern "C" cudaError_t vae_classify_launch(vae_elem type, uint32_t *label, vae_mat logits, size_t B,
                                           size_t C, cudaStream_t stream)
{
    return type == VAE_ELEM_F32 ? classify<float>(label, logits, B, C, stream)
                                : classify<vae_bf16>(label, logits, B, C, stream);
}

extern "C" cudaError_t vae_class_loss_launch(vae_elem type, float *terms, float *weight,
                                             vae_mat dlogits, vae_mat logits,
                                             const float *recon_row, const float *kl_row,
                                             const uint32_t *label0, vae_now now, size_t n_open,
                                             size_t n_labelled, size_t C, float cross_entropy,
                                             cudaStream_t stream)
{
    return type == VAE_ELEM_F32
               ? class_loss<float>(terms, weight, dlogits, logits, recon_row, kl_row, label0, now,
                                   n_open, n_labelled, C, cross_entropy, stream)
               : class_loss<vae_bf16>(terms, weight, dlogits, logits, recon_row, kl_row, label0,
                                      now, n_open, n_labelled, C, cross_entropy, stream);
}

extern "C" cudaError_t vae_accumulate_classes_launch(vae_totals *totals, const float *terms,
                                                     vae_now now, void *partial, uint32_t *ticket,
                                                     size_t n_open, size_t n_labelled,
                                                     cudaStream_t stream)
{
    VAE_LAUNCH(accumulate_classes_kernel, vae_blocks((n_open + n_labelled + 15) / 16, MOST_BLOCKS),
               VAE_BLOCK, 0, stream, totals, terms, now, static_cast<double *>(partial), ticket,
               n_open, n_labelled);
    return cudaGetLastError();
}
