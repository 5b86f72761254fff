/* Bias and activation, and the derivative, where no matmul epilogue does them, with the bias
 * gradient in the same pass; the layer whose rows differ by their class only. */
#include "columns.h"
#include "kernels.h"
#include "launch.h"
#include "vae_math.h"
#include "vector.h"

/* The values of one row's vector: pre gets v, y its activation; columns from `cols` on are zero. */
template <typename T, vae_activation ACT>
static __device__ __forceinline__ void put_activated(T *y, T *pre, float *v, uint32_t c,
                                                     uint32_t cols)
{
    constexpr int N = elem<T>::N;
    VAE_UNROLL
    for (int e = 0; e < N; e++) {
        v[e] = c + e < cols ? v[e] : 0.0f;
    }
    if (pre != NULL) {
        store16(pre, elem<T>::pack(v));
    }
    VAE_UNROLL
    for (int e = 0; e < N; e++) {
        v[e] = c + e < cols ? vae_act(ACT, v[e]) : 0.0f;
    }
    store16(y, elem<T>::pack(v));
}

/* Grid: `lanes` neighbouring threads per row. The bias has as many floats as y has columns, and
 * room for a whole last vector (tensors are padded). */
template <typename T, vae_activation ACT>
__global__ void __launch_bounds__(VAE_BLOCK)
    bias_act_kernel(T *y, size_t ld, T *pre, size_t ldp, const float *__restrict__ b, uint32_t rows,
                    uint32_t cols, unsigned lanes)
{
    constexpr int N = elem<T>::N;
    const uint32_t r = group_row(lanes);
    for (uint32_t c = group_lane(lanes) * N; r < rows && c < cols; c += lanes * N) {
        float v[N], bias[N];
        elem<T>::unpack(v, load16(y + r * ld + c));
        VAE_UNROLL
        for (int e = 0; e < N; e += 4) {
            bias[e] = bias[e + 1] = bias[e + 2] = bias[e + 3] = 0.0f;
            if (b != NULL) {
                elem<float>::get4(bias + e, b + c + e);
            }
        }
        VAE_UNROLL
        for (int e = 0; e < N; e++) {
            v[e] += bias[e];
        }
        put_activated<T, ACT>(y + r * ld + c, pre != NULL ? pre + r * ldp + c : NULL, v, c, cols);
    }
}

/* Times act' of what `from` holds. */
template <typename T, vae_activation ACT> struct times_act_grad {
    const T *from;
    size_t ld;
    typedef vae_word4 with;
    __device__ __forceinline__ with fetch(uint32_t row, uint32_t c) const
    {
        return load16(from + row * ld + c);
    }
    __device__ __forceinline__ bool apply(float *v, with w) const
    {
        float y[elem<T>::N];
        elem<T>::unpack(y, w);
        VAE_UNROLL
        for (int e = 0; e < elem<T>::N; e++) {
            v[e] *= vae_act_grad(ACT, y[e]);
        }
        return true;
    }
};

enum { CLASS_LANES = 16, CLASS_TILE = 16, CLASS_TURNS = 4 };

/* Grid: (blocks of examples, tiles of columns); a block is CLASS_LANES vectors of columns by
 * VAE_BLOCK / CLASS_LANES examples, each thread taking CLASS_TURNS of these. The class columns of w
 * go through shared memory, CLASS_TILE at a time, as neighbours there lie ldw apart here. */
template <typename T, vae_activation ACT>
__global__ void __launch_bounds__(VAE_BLOCK)
    class_forward_kernel(T *y, size_t ld, T *pre, uint32_t *label, const T *__restrict__ h,
                         size_t ldh, const float *__restrict__ w, size_t ldw,
                         const uint32_t *__restrict__ label0, uint32_t n_open, uint32_t n_labelled,
                         uint32_t C, uint32_t cols)
{
    constexpr uint32_t N = elem<T>::N, WIDTH = CLASS_LANES * N, EXAMPLES = VAE_BLOCK / CLASS_LANES;
    __shared__ float column[CLASS_TILE][CLASS_LANES * N];
    const uint32_t lane = threadIdx.x % CLASS_LANES, first = blockIdx.y * WIDTH;
    const uint32_t at = first + lane * N;
    const uint32_t b0 = blockIdx.x * EXAMPLES * CLASS_TURNS + threadIdx.x / CLASS_LANES;
    for (uint32_t c0 = 0; c0 < C; c0 += CLASS_TILE) {
        for (uint32_t i = threadIdx.x; i < CLASS_TILE * WIDTH; i += VAE_BLOCK) {
            const uint32_t c = c0 + i % CLASS_TILE, j = i / CLASS_TILE;
            column[i % CLASS_TILE][j] =
                c < C && first + j < cols ? w[(size_t)(first + j) * ldw + c] : 0.0f;
        }
        __syncthreads();
        const uint32_t end = C - c0 < (uint32_t)CLASS_TILE ? C - c0 : (uint32_t)CLASS_TILE;
        for (uint32_t turn = 0; turn < CLASS_TURNS; turn++) {
            const uint32_t b = b0 + turn * EXAMPLES;
            if (b >= n_open + n_labelled || at >= cols) {
                continue;
            }
            const bool open = b < n_open;
            const vae_word4 from = load16(h + (size_t)b * ldh + at);
            const uint32_t known = open ? 0 : label0[b];
            for (uint32_t c = 0; c < end; c++) {
                /* a labelled example has one row, in the tile of its class; in the first one if
                 * its class is out of range */
                if (!open && known != c0 + c && !(known >= C && c0 + c == 0)) {
                    continue;
                }
                const size_t r = open ? (size_t)b * C + c0 + c : (size_t)n_open * C + b - n_open;
                float v[N];
                elem<T>::unpack(v, from);
                VAE_UNROLL
                for (uint32_t e = 0; e < N; e++) {
                    v[e] += open || known < C ? column[c][lane * N + e] : 0.0f;
                }
                put_activated<T, ACT>(y + r * ld + at, pre != NULL ? pre + r * ld + at : NULL, v,
                                      at, cols);
                if (at == 0) {
                    label[r] = open ? c0 + c : known;
                }
            }
        }
        __syncthreads();
    }
}

template <typename T, vae_activation ACT>
static cudaError_t class_forward(vae_mat y, vae_mat pre, uint32_t *label, vae_mat h, const float *w,
                                 size_t ldw, vae_class_rows of, size_t out, cudaStream_t stream)
{
    const size_t width = (size_t)CLASS_LANES * elem<T>::N;
    const size_t examples = (size_t)VAE_BLOCK / CLASS_LANES * CLASS_TURNS;
    const dim3 grid((unsigned)((of.n_open + of.n_labelled + examples - 1) / examples),
                    (unsigned)((out + width - 1) / width));
    VAE_LAUNCH((class_forward_kernel<T, ACT>), grid, VAE_BLOCK, 0, stream, static_cast<T *>(y.data),
               y.ld, static_cast<T *>(pre.data), label, static_cast<const T *>(h.data), h.ld, w,
               ldw, of.label, (uint32_t)of.n_open, (uint32_t)of.n_labelled, (uint32_t)of.C,
               (uint32_t)out);
    return cudaGetLastError();
}

template <typename T, vae_activation ACT>
static cudaError_t bias_act(vae_mat y, vae_mat pre, const float *b, size_t rows, size_t cols,
                            cudaStream_t stream)
{
    const unsigned lanes = lanes_for(rows, (cols + elem<T>::N - 1) / elem<T>::N, 8, VAE_BLOCK);
    VAE_LAUNCH((bias_act_kernel<T, ACT>), vae_blocks(rows * lanes, (size_t)-1), VAE_BLOCK, 0,
               stream, static_cast<T *>(y.data), y.ld, static_cast<T *>(pre.data), pre.ld, b,
               (uint32_t)rows, (uint32_t)cols, lanes);
    return cudaGetLastError();
}

template <vae_activation ACT> struct constant {
    static constexpr vae_activation act = ACT;
};

/* f of a constant that is the activation, which is known at run time only. */
#define ACT_CASE(ACT, ...)                                                                         \
    case VAE_ACT_##ACT:                                                                            \
        return f(constant<VAE_ACT_##ACT>());
template <typename F> static cudaError_t by_activation(vae_activation act, F f)
{
    switch (act) {
        VAE_ACTIVATIONS(ACT_CASE)
    case VAE_ACT_NONE:
        break;
    }
    return f(constant<VAE_ACT_NONE>());
}

template <typename T>
static cudaError_t bias_act_of(vae_mat y, vae_mat pre, const float *b, size_t rows, size_t cols,
                               vae_activation act, cudaStream_t stream)
{
    return by_activation(act, [=](auto known) {
        return bias_act<T, decltype(known)::act>(y, pre, b, rows, cols, stream);
    });
}

template <typename T>
static cudaError_t act_grad_of(float *db, vae_mat dx, vae_mat from, vae_sums scratch, size_t rows,
                               size_t cols, vae_activation act, cudaStream_t stream)
{
    return by_activation(act, [=](auto known) {
        const times_act_grad<T, decltype(known)::act> op = {static_cast<const T *>(from.data),
                                                            from.ld};
        return columns_pass<T>(db, dx, op, scratch, rows, cols, stream);
    });
}

template <typename T>
static cudaError_t class_forward_of(vae_mat y, vae_mat pre, uint32_t *label, vae_mat h,
                                    const float *w, size_t ldw, vae_class_rows of, size_t out,
                                    vae_activation act, cudaStream_t stream)
{
    return by_activation(act, [=](auto known) {
        return class_forward<T, decltype(known)::act>(y, pre, label, h, w, ldw, of, out, stream);
    });
}

extern "C" cudaError_t vae_bias_act_launch(vae_elem type, vae_mat y, vae_mat pre, const float *b,
                                           size_t rows, size_t cols, vae_activation act,
                                           cudaStream_t stream)
{
    return type == VAE_ELEM_F32 ? bias_act_of<float>(y, pre, b, rows, cols, act, stream)
                                : bias_act_of<vae_bf16>(y, pre, b, rows, cols, act, stream);
}

extern "C" cudaError_t vae_act_grad_launch(vae_elem type, float *db, vae_mat dx, vae_mat from,
                                           vae_sums scratch, size_t rows, size_t cols,
                                           vae_activation act, cudaStream_t stream)
{
    if (act == VAE_ACT_NONE && db == NULL) {
        return cudaSuccess;
    }
    if (act == VAE_ACT_NONE) {
        return vae_column_sums_launch(type, db, dx, scratch, rows, cols, stream);
    }
    return type == VAE_ELEM_F32
               ? act_grad_of<float>(db, dx, from, scratch, rows, cols, act, stream)
               : act_grad_of<vae_bf16>(db, dx, from, scratch, rows, cols, act, stream);
}

extern "C" cudaError_t vae_class_forward_launch(vae_elem type, vae_mat y, vae_mat pre,
                                                uint32_t *label, vae_mat h, const float *w,
                                                size_t ldw, vae_class_rows of, size_t out,
                                                vae_activation act, cudaStream_t stream)
{
    return type == VAE_ELEM_F32
               ? class_forward_of<float>(y, pre, label, h, w, ldw, of, out, act, stream)
               : class_forward_of<vae_bf16>(y, pre, label, h, w, ldw, of, out, act, stream);
}
