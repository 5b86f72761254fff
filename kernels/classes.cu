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
    uint32_t number;
    row_place(&number, from, now.plan, plan_number(now), r);
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

/* Grid: `lanes` neighbouring threads per example, a vector of columns each. */
template <typename T>
__global__ void __launch_bounds__(VAE_BLOCK)
    class_sums_kernel(T *dh, size_t ldh, const T *__restrict__ dy, size_t ld, uint32_t n_open,
                      uint32_t n_labelled, uint32_t C, uint32_t cols, unsigned lanes)
{
    constexpr int N = elem<T>::N;
    const uint32_t b = group_row(lanes), n = b < n_open ? C : 1;
    const size_t first = b < n_open ? (size_t)b * C : (size_t)n_open * C + b - n_open;
    for (uint32_t j = group_lane(lanes) * N; b < n_open + n_labelled && j < cols; j += lanes * N) {
        float sum[N] = {0};
        for (uint32_t c = 0; c < n; c++) {
            float v[N];
            elem<T>::unpack(v, load16(dy + (first + c) * ld + j));
            VAE_UNROLL
            for (int e = 0; e < N; e++) {
                sum[e] += v[e];
            }
        }
        store16(dh + b * ldh + j, elem<T>::pack(sum));
    }
}

/* dw's values: open, the sums over open rows, (C,ld) or NULL, and the labelled rows of the class.
 * Grid: a thread per value. */
template <typename T>
__global__ void __launch_bounds__(VAE_BLOCK)
    class_weight_kernel(float *dw, size_t ldw, const float *__restrict__ open,
                        const T *__restrict__ dy, size_t ld, const uint32_t *__restrict__ label,
                        uint32_t n_labelled, uint32_t C, uint32_t out)
{
    const size_t i = grid_thread();
    const uint32_t c = (uint32_t)(i / out), j = (uint32_t)(i - (size_t)c * out);
    if (c >= C) {
        return;
    }
    float sum = open != NULL ? open[(size_t)c * ld + j] : 0.0f;
    for (uint32_t b = 0; b < n_labelled; b++) {
        if (label[b] == c) {
            sum += elem<T>::get(dy + (size_t)b * ld + j);
        }
    }
    dw[(size_t)j * ldw + c] = sum;
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
 * losses decide. Formulas: model/classes.c. */
template <typename T>
__global__ void __launch_bounds__(VAE_BLOCK)
    class_loss_kernel(float *terms, float *weight, T *dlogits, size_t ldd, const T *logits,
                      size_t ldl, const float *recon_row, const float *kl_row,
                      const uint32_t *label0, vae_now now, size_t n_open, size_t n_labelled,
                      double all_open, double all_labelled, uint32_t C, float cross_entropy)
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
    const double scale = labelled ? share / all_labelled : (1 - share) / all_open;
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
    const double ce = labelled ? (double)cross_entropy / all_labelled : 0;
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
    terms[2 * n + b] = (float)(all_open * part);
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
static cudaError_t class_sums(vae_mat dh, vae_mat dy, vae_class_rows of, size_t out,
                              cudaStream_t stream)
{
    const size_t examples = of.n_open + of.n_labelled;
    const unsigned lanes = lanes_for(examples, (out + elem<T>::N - 1) / elem<T>::N, 8, VAE_BLOCK);
    VAE_LAUNCH((class_sums_kernel<T>), vae_blocks(examples * lanes, (size_t)-1), VAE_BLOCK, 0,
               stream, static_cast<T *>(dh.data), dh.ld, static_cast<const T *>(dy.data), dy.ld,
               (uint32_t)of.n_open, (uint32_t)of.n_labelled, (uint32_t)of.C, (uint32_t)out, lanes);
    return cudaGetLastError();
}

/* The open rows of one class are C rows apart: seen as (n_open, C*ld), their sums are column sums.
 */
template <typename T>
static cudaError_t class_backward_weight(vae_elem type, float *dw, size_t ldw, vae_mat dy,
                                         float *open, vae_sums scratch, vae_class_rows of,
                                         size_t out, cudaStream_t stream)
{
    const size_t width = of.C * dy.ld;
    if (of.n_open > 0) {
        const vae_mat wide = {dy.data, width};
        cudaError_t status =
            vae_column_sums_launch(type, open, wide, scratch, of.n_open, width, stream);
        if (status != cudaSuccess) {
            return status;
        }
    }
    VAE_LAUNCH((class_weight_kernel<T>), vae_blocks(of.C * out, (size_t)-1), VAE_BLOCK, 0, stream,
               dw, ldw, of.n_open > 0 ? open : NULL,
               static_cast<const T *>(dy.data) + of.n_open * width, dy.ld, of.label + of.n_open,
               (uint32_t)of.n_labelled, (uint32_t)of.C, (uint32_t)out);
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
                              const float *recon_row, const float *kl_row, vae_class_rows of,
                              vae_now now, float cross_entropy, cudaStream_t stream)
{
    VAE_LAUNCH((class_loss_kernel<T>), vae_blocks(of.n_open + of.n_labelled, (size_t)-1), VAE_BLOCK,
               0, stream, terms, weight, static_cast<T *>(dlogits.data), dlogits.ld,
               static_cast<const T *>(logits.data), logits.ld, recon_row, kl_row, of.label, now,
               of.n_open, of.n_labelled, (double)of.all_open, (double)of.all_labelled,
               (uint32_t)of.C, cross_entropy);
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

extern "C" cudaError_t vae_class_sums_launch(vae_elem type, vae_mat dh, vae_mat dy,
                                             vae_class_rows of, size_t out, cudaStream_t stream)
{
    return type == VAE_ELEM_F32 ? class_sums<float>(dh, dy, of, out, stream)
                                : class_sums<vae_bf16>(dh, dy, of, out, stream);
}

extern "C" cudaError_t vae_class_backward_weight_launch(vae_elem type, float *dw, size_t ldw,
                                                        vae_mat dy, float *open, vae_sums scratch,
                                                        vae_class_rows of, size_t out,
                                                        cudaStream_t stream)
{
    return type == VAE_ELEM_F32
               ? class_backward_weight<float>(type, dw, ldw, dy, open, scratch, of, out, stream)
               : class_backward_weight<vae_bf16>(type, dw, ldw, dy, open, scratch, of, out, stream);
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
                                             vae_class_rows of, vae_now now, float cross_entropy,
                                             cudaStream_t stream)
{
    return type == VAE_ELEM_F32 ? class_loss<float>(terms, weight, dlogits, logits, recon_row,
                                                    kl_row, of, now, cross_entropy, stream)
                                : class_loss<vae_bf16>(terms, weight, dlogits, logits, recon_row,
                                                       kl_row, of, now, cross_entropy, stream);
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
