/* Bias and activation, and the derivative, where no matmul epilogue does them. */
#include "kernels.h"
#include "launch.h"
#include "vae_math.h"
#include "vector.h"

template <vae_activation ACT> static __device__ __forceinline__ float act_of(float v)
{
    switch (ACT) {
    case VAE_ACT_RELU:
        return vae_reluf(v);
    case VAE_ACT_TANH:
        return vae_tanhf(v);
    case VAE_ACT_SOFTPLUS:
        return vae_softplusf(v);
    case VAE_ACT_LEAKY_RELU:
        return vae_leaky_reluf(v);
    case VAE_ACT_GELU:
        return vae_geluf(v);
    default:
        return v;
    }
}

template <vae_activation ACT> static __device__ __forceinline__ float act_grad_of(float y)
{
    switch (ACT) {
    case VAE_ACT_RELU:
        return vae_drelu_y(y);
    case VAE_ACT_TANH:
        return vae_dtanh_y(y);
    case VAE_ACT_SOFTPLUS:
        return vae_dsoftplus_y(y);
    case VAE_ACT_LEAKY_RELU:
        return vae_dleaky_relu_y(y);
    case VAE_ACT_GELU:
        return vae_dgelu_x(y);
    default:
        return 1.0f;
    }
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
            v[e] = c + e < cols ? v[e] + bias[e] : 0.0f;
        }
        if (pre != NULL) {
            store16(pre + r * ldp + c, elem<T>::pack(v));
        }
        VAE_UNROLL
        for (int e = 0; e < N; e++) {
            v[e] = c + e < cols ? act_of<ACT>(v[e]) : 0.0f;
        }
        store16(y + r * ld + c, elem<T>::pack(v));
    }
}

/* Grid: `lanes` neighbouring threads per row. */
template <typename T, vae_activation ACT>
__global__ void __launch_bounds__(VAE_BLOCK)
    act_grad_kernel(T *dx, size_t ldx, const T *__restrict__ from, size_t ldf, uint32_t rows,
                    uint32_t cols, unsigned lanes)
{
    constexpr int N = elem<T>::N;
    const uint32_t r = group_row(lanes);
    for (uint32_t c = group_lane(lanes) * N; r < rows && c < cols; c += lanes * N) {
        float v[N], y[N];
        elem<T>::unpack(v, load16(dx + r * ldx + c));
        elem<T>::unpack(y, load16(from + r * ldf + c));
        VAE_UNROLL
        for (int e = 0; e < N; e++) {
            v[e] = c + e < cols ? v[e] * act_grad_of<ACT>(y[e]) : 0.0f;
        }
        store16(dx + r * ldx + c, elem<T>::pack(v));
    }
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

template <typename T, vae_activation ACT>
static cudaError_t act_grad(vae_mat dx, vae_mat from, size_t rows, size_t cols, cudaStream_t stream)
{
    const unsigned lanes = lanes_for(rows, (cols + elem<T>::N - 1) / elem<T>::N, 8, VAE_BLOCK);
    VAE_LAUNCH((act_grad_kernel<T, ACT>), vae_blocks(rows * lanes, (size_t)-1), VAE_BLOCK, 0,
               stream, static_cast<T *>(dx.data), dx.ld, static_cast<const T *>(from.data), from.ld,
               (uint32_t)rows, (uint32_t)cols, lanes);
    return cudaGetLastError();
}

template <typename T>
static cudaError_t bias_act_of(vae_mat y, vae_mat pre, const float *b, size_t rows, size_t cols,
                               vae_activation act, cudaStream_t stream)
{
    switch (act) {
    case VAE_ACT_RELU:
        return bias_act<T, VAE_ACT_RELU>(y, pre, b, rows, cols, stream);
    case VAE_ACT_TANH:
        return bias_act<T, VAE_ACT_TANH>(y, pre, b, rows, cols, stream);
    case VAE_ACT_SOFTPLUS:
        return bias_act<T, VAE_ACT_SOFTPLUS>(y, pre, b, rows, cols, stream);
    case VAE_ACT_LEAKY_RELU:
        return bias_act<T, VAE_ACT_LEAKY_RELU>(y, pre, b, rows, cols, stream);
    case VAE_ACT_GELU:
        return bias_act<T, VAE_ACT_GELU>(y, pre, b, rows, cols, stream);
    case VAE_ACT_NONE:
    default:
        return bias_act<T, VAE_ACT_NONE>(y, pre, b, rows, cols, stream);
    }
}

template <typename T>
static cudaError_t act_grad_by(vae_mat dx, vae_mat from, size_t rows, size_t cols,
                               vae_activation act, cudaStream_t stream)
{
    switch (act) {
    case VAE_ACT_RELU:
        return act_grad<T, VAE_ACT_RELU>(dx, from, rows, cols, stream);
    case VAE_ACT_TANH:
        return act_grad<T, VAE_ACT_TANH>(dx, from, rows, cols, stream);
    case VAE_ACT_SOFTPLUS:
        return act_grad<T, VAE_ACT_SOFTPLUS>(dx, from, rows, cols, stream);
    case VAE_ACT_LEAKY_RELU:
        return act_grad<T, VAE_ACT_LEAKY_RELU>(dx, from, rows, cols, stream);
    case VAE_ACT_GELU:
        return act_grad<T, VAE_ACT_GELU>(dx, from, rows, cols, stream);
    case VAE_ACT_NONE:
    default:
        return cudaSuccess;
    }
}

extern "C" cudaError_t vae_bias_act_launch(vae_elem type, vae_mat y, vae_mat pre, const float *b,
                                           size_t rows, size_t cols, vae_activation act,
                                           cudaStream_t stream)
{
    return type == VAE_ELEM_F32 ? bias_act_of<float>(y, pre, b, rows, cols, act, stream)
                                : bias_act_of<vae_bf16>(y, pre, b, rows, cols, act, stream);
}

extern "C" cudaError_t vae_act_grad_launch(vae_elem type, vae_mat dx, vae_mat from, size_t rows,
                                           size_t cols, vae_activation act, cudaStream_t stream)
{
    return type == VAE_ELEM_F32 ? act_grad_by<float>(dx, from, rows, cols, act, stream)
                                : act_grad_by<vae_bf16>(dx, from, rows, cols, act, stream);
}
