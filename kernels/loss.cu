/* The reconstruction loss and its gradient in one pass, importance weights, decoder means. */
#include "kernels.h"
#include "launch.h"
#include "vae_math.h"
#include "vector.h"

struct bernoulli_rule {
    __device__ __forceinline__ float operator()(float l, float x, float *dl) const
    {
        return vae_bernoulli(l, x, dl);
    }
};

struct gaussian_rule {
    float logvar, inv_var;
    __device__ __forceinline__ float operator()(float m, float x, float *dm) const
    {
        float unused;
        return vae_gaussian(m, x, logvar, inv_var, dm, &unused);
    }
};

/* Sum over a row's lanes (a power of two up to VAE_BLOCK); valid in lane 0 of the row. All threads
 * of the block must call. */
static __device__ __forceinline__ float row_sum(float v, unsigned lanes)
{
    __shared__ float part[VAE_BLOCK / 32];
    v = group_sum(v, lanes < 32 ? lanes : 32);
    if (lanes <= 32) {
        return v;
    }
    if (threadIdx.x % 32 == 0) {
        part[threadIdx.x / 32] = v;
    }
    __syncthreads();
    float sum = 0;
    for (unsigned i = 0; threadIdx.x % lanes == 0 && i < lanes / 32; i++) {
        sum += part[threadIdx.x / 32 + i];
    }
    return sum;
}

/* Grid: `lanes` neighbouring threads per row. AHEAD vectors of logits and of x are on their way at
 * once; all are read before the first is overwritten, as dlogits may be logits. WHOLE: D is a
 * multiple of a vector; otherwise columns from D to the end of the last vector get zeros. */
template <typename T, typename RULE, bool WHOLE>
__global__ void __launch_bounds__(VAE_BLOCK)
    recon_loss_kernel(float *recon_row, T *dlogits, size_t ldd, const T *logits, size_t ldl,
                      const T *x, size_t ldx, uint32_t rows, uint32_t K, uint32_t D, RULE rule,
                      float scale, unsigned lanes)
{
    constexpr int N = elem<T>::N, AHEAD = 4;
    const uint32_t lane = group_lane(lanes), n_vec = (D + N - 1) / N, r = group_row(lanes);
    logits += r * ldl;
    dlogits = dlogits != NULL ? dlogits + r * ldd : NULL;
    x += r / K * ldx;
    float sum = 0;
    for (uint32_t v0 = lane; r < rows && v0 < n_vec; v0 += AHEAD * lanes) {
        vae_word4 from[AHEAD], data[AHEAD];
        VAE_UNROLL
        for (int a = 0; a < AHEAD; a++) {
            const uint32_t v = v0 + (uint32_t)a * lanes;
            if (v < n_vec) {
                from[a] = load16(logits + v * N);
                data[a] = load16(x + v * N);
            }
        }
        VAE_UNROLL
        for (int a = 0; a < AHEAD; a++) {
            const uint32_t v = v0 + (uint32_t)a * lanes;
            if (v >= n_vec) {
                break;
            }
            const uint32_t left = D - v * N;
            float l[N], xs[N], part = 0;
            elem<T>::unpack(l, from[a]);
            elem<T>::unpack(xs, data[a]);
            VAE_UNROLL
            for (int i = 0; i < N; i++) {
                const bool real = WHOLE || (uint32_t)i < left;
                float dl;
                const float loss = rule(l[i], xs[i], &dl);
                part += real ? loss : 0.0f;
                l[i] = real ? dl * scale : 0.0f;
            }
            sum += part;
            if (dlogits != NULL) {
                store16(dlogits + v * N, elem<T>::pack(l));
            }
        }
    }
    sum = row_sum(sum, lanes);
    if (lane == 0 && r < rows) {
        recon_row[r] = sum;
    }
}

/* N values from p on, n of them real, at any alignment; `whole`: p is at a multiple of N and all N
 * exist. */
template <typename T>
static __device__ __forceinline__ void read_some(float *v, const T *p, uint32_t n, bool whole)
{
    if (whole) {
        elem<T>::unpack(v, load16(p));
        return;
    }
    VAE_UNROLL
    for (int i = 0; i < elem<T>::N; i++) {
        v[i] = (uint32_t)i < n ? elem<T>::get(p + i) : 0.0f;
    }
}

template <typename T>
static __device__ __forceinline__ void write_some(T *p, const float *v, uint32_t n, bool whole)
{
    if (whole) {
        store16(p, elem<T>::pack(v));
        return;
    }
    VAE_UNROLL
    for (int i = 0; i < elem<T>::N; i++) {
        if ((uint32_t)i < n) {
            elem<T>::put(p + i, v[i]);
        }
    }
}

/* The Gaussian with learned variance: logits (rows,2D) = [mean | raw log variance]. As above, but
 * the second half starts anywhere, so it goes by vectors only where D is a multiple of them. */
template <typename T>
__global__ void __launch_bounds__(VAE_BLOCK)
    recon_learned_kernel(float *recon_row, T *dlogits, size_t ldd, const T *logits, size_t ldl,
                         const T *x, size_t ldx, uint32_t rows, uint32_t K, uint32_t D, float scale,
                         unsigned lanes)
{
    constexpr int N = elem<T>::N;
    const uint32_t lane = group_lane(lanes), r = group_row(lanes);
    const bool whole = D % N == 0;
    float sum = 0;
    for (uint32_t d = lane * N; r < rows && d < D; d += lanes * N) {
        const uint32_t n = D - d;
        float mean[N], raw[N], xs[N], part = 0;
        read_some(mean, logits + r * ldl + d, n, whole);
        read_some(raw, logits + r * ldl + D + d, n, whole);
        elem<T>::unpack(xs, load16(x + r / K * ldx + d));
        VAE_UNROLL
        for (int i = 0; i < N; i++) {
            float draw, dm, dlogvar;
            const float logvar = vae_bounded_logvar(raw[i], &draw), inv_var = vae_expf(-logvar);
            const float loss = vae_gaussian(mean[i], xs[i], logvar, inv_var, &dm, &dlogvar);
            part += (uint32_t)i < n ? loss : 0.0f;
            mean[i] = dm * scale;
            raw[i] = dlogvar * draw * scale;
        }
        sum += part;
        if (dlogits != NULL) {
            write_some(dlogits + r * ldd + d, mean, n, whole);
            write_some(dlogits + r * ldd + D + d, raw, n, whole);
        }
    }
    sum = row_sum(sum, lanes);
    if (lane == 0 && r < rows) {
        recon_row[r] = sum;
    }
}

/* Grid: one warp per example, lanes over its particles. log w is a difference of two large numbers,
 * taken in double; the rest is relative to the largest, where floats do. A NaN goes into the sum.
 */
__global__ void __launch_bounds__(VAE_BLOCK)
    particle_weights_kernel(float *weight, float *bound_row, const float *recon_row,
                            const float *log_pq, size_t B, size_t K)
{
    const unsigned lane = group_lane(32);
    const size_t b = group_row(32);
    float most = -INFINITY, sum = 0;
    for (size_t k = lane; b < B && k < K; k += 32) {
        const size_t i = b * K + k;
        most = fmaxf(most, (float)((double)log_pq[i] - (double)recon_row[i]));
    }
    most = group_max(most, 32);
    for (size_t k = lane; b < B && k < K; k += 32) {
        const size_t i = b * K + k;
        sum += vae_expf((float)((double)log_pq[i] - (double)recon_row[i] - (double)most));
    }
    sum = group_sum(sum, 32);
    for (size_t k = lane; b < B && k < K; k += 32) {
        const size_t i = b * K + k;
        weight[i] =
            vae_expf((float)((double)log_pq[i] - (double)recon_row[i] - (double)most)) / sum;
    }
    if (lane == 0 && b < B) {
        bound_row[b] = -(most + vae_logf(sum / (float)K));
    }
}

/* Grid: `lanes` neighbouring threads per row. */
template <typename T>
__global__ void __launch_bounds__(VAE_BLOCK)
    scale_rows_kernel(T *m, size_t ld, const float *__restrict__ factor, uint32_t rows,
                      uint32_t cols, unsigned lanes)
{
    constexpr int N = elem<T>::N;
    const uint32_t r = group_row(lanes);
    const float w = r < rows ? factor[r] : 0.0f;
    for (uint32_t c = group_lane(lanes) * N; r < rows && c < cols; c += lanes * N) {
        float v[N];
        elem<T>::unpack(v, load16(m + r * ld + c));
        VAE_UNROLL
        for (int e = 0; e < N; e++) {
            v[e] = c + e < cols ? v[e] * w : 0.0f;
        }
        store16(m + r * ld + c, elem<T>::pack(v));
    }
}

/* Grid: `lanes` neighbouring threads per row; x_hat's rows are packed, so it goes by single values.
 */
template <typename T>
__global__ void __launch_bounds__(VAE_BLOCK)
    decode_kernel(float *x_hat, const T *logits, size_t ld, uint32_t rows, uint32_t D, bool sigmoid,
                  unsigned lanes)
{
    const uint32_t r = group_row(lanes);
    for (uint32_t d = group_lane(lanes); r < rows && d < D; d += lanes) {
        const float l = elem<T>::get(logits + r * ld + d);
        x_hat[(size_t)r * D + d] = sigmoid ? vae_sigmoidf(l) : l;
    }
}

/* One launch of the loss: the rule and the kernel for it. */
template <typename T, typename RULE>
static void recon_by_rule(float *recon_row, vae_mat dlogits, vae_mat logits, vae_mat x, size_t rows,
                          size_t K, size_t D, RULE rule, float scale, unsigned lanes,
                          cudaStream_t stream)
{
    const unsigned grid = vae_blocks(rows * lanes, (size_t)-1);
    T *dl = static_cast<T *>(dlogits.data);
    const T *l = static_cast<const T *>(logits.data), *data = static_cast<const T *>(x.data);
    if (D % elem<T>::N == 0) {
        VAE_LAUNCH((recon_loss_kernel<T, RULE, true>), grid, VAE_BLOCK, 0, stream, recon_row, dl,
                   dlogits.ld, l, logits.ld, data, x.ld, (uint32_t)rows, (uint32_t)K, (uint32_t)D,
                   rule, scale, lanes);
    } else {
        VAE_LAUNCH((recon_loss_kernel<T, RULE, false>), grid, VAE_BLOCK, 0, stream, recon_row, dl,
                   dlogits.ld, l, logits.ld, data, x.ld, (uint32_t)rows, (uint32_t)K, (uint32_t)D,
                   rule, scale, lanes);
    }
}

template <typename T>
static cudaError_t recon_loss(float *recon_row, vae_mat dlogits, vae_mat logits, vae_mat x,
                              size_t rows, size_t K, size_t D, vae_recon recon, float scale,
                              cudaStream_t stream)
{
    const unsigned lanes = lanes_for(rows, (D + elem<T>::N - 1) / elem<T>::N, 8, VAE_BLOCK);
    if (recon.likelihood == VAE_GAUSSIAN_LEARNED) {
        VAE_LAUNCH((recon_learned_kernel<T>), vae_blocks(rows * lanes, (size_t)-1), VAE_BLOCK, 0,
                   stream, recon_row, static_cast<T *>(dlogits.data), dlogits.ld,
                   static_cast<const T *>(logits.data), logits.ld, static_cast<const T *>(x.data),
                   x.ld, (uint32_t)rows, (uint32_t)K, (uint32_t)D, scale, lanes);
    } else if (recon.likelihood == VAE_GAUSSIAN) {
        const gaussian_rule rule = {logf(recon.variance), 1.0f / recon.variance};
        recon_by_rule<T>(recon_row, dlogits, logits, x, rows, K, D, rule, scale, lanes, stream);
    } else {
        recon_by_rule<T>(recon_row, dlogits, logits, x, rows, K, D, bernoulli_rule(), scale, lanes,
                         stream);
    }
    return cudaGetLastError();
}

template <typename T>
static cudaError_t scale_rows(vae_mat m, const float *factor, size_t rows, size_t cols,
                              cudaStream_t stream)
{
    const unsigned lanes = lanes_for(rows, (cols + elem<T>::N - 1) / elem<T>::N, 8, VAE_BLOCK);
    VAE_LAUNCH((scale_rows_kernel<T>), vae_blocks(rows * lanes, (size_t)-1), VAE_BLOCK, 0, stream,
               static_cast<T *>(m.data), m.ld, factor, (uint32_t)rows, (uint32_t)cols, lanes);
    return cudaGetLastError();
}

template <typename T>
static cudaError_t decode(float *x_hat, vae_mat logits, size_t rows, size_t D, vae_recon recon,
                          cudaStream_t stream)
{
    const unsigned lanes = lanes_for(rows, D, 32, VAE_BLOCK);
    VAE_LAUNCH((decode_kernel<T>), vae_blocks(rows * lanes, (size_t)-1), VAE_BLOCK, 0, stream,
               x_hat, static_cast<const T *>(logits.data), logits.ld, (uint32_t)rows, (uint32_t)D,
               vae_likelihood_of(recon.likelihood)->sigmoid != 0, lanes);
    return cudaGetLastError();
}

extern "C" cudaError_t vae_recon_loss_launch(vae_elem type, float *recon_row, vae_mat dlogits,
                                             vae_mat logits, vae_mat x, size_t B, size_t K,
                                             size_t D, vae_recon recon, float scale,
                                             cudaStream_t stream)
{
    return type == VAE_ELEM_F32
               ? recon_loss<float>(recon_row, dlogits, logits, x, B * K, K, D, recon, scale, stream)
               : recon_loss<vae_bf16>(recon_row, dlogits, logits, x, B * K, K, D, recon, scale,
                                      stream);
}

extern "C" cudaError_t vae_particle_weights_launch(vae_elem type, float *weight, float *bound_row,
                                                   vae_mat dlogits, const float *recon_row,
                                                   const float *log_pq, size_t B, size_t K,
                                                   size_t cols, cudaStream_t stream)
{
    VAE_LAUNCH(particle_weights_kernel, vae_blocks(B * 32, (size_t)-1), VAE_BLOCK, 0, stream,
               weight, bound_row, recon_row, log_pq, B, K);
    cudaError_t status = cudaGetLastError();
    if (status != cudaSuccess || dlogits.data == NULL) {
        return status;
    }
    return type == VAE_ELEM_F32 ? scale_rows<float>(dlogits, weight, B * K, cols, stream)
                                : scale_rows<vae_bf16>(dlogits, weight, B * K, cols, stream);
}

extern "C" cudaError_t vae_scale_rows_launch(vae_elem type, vae_mat m, const float *factor,
                                             size_t rows, size_t cols, cudaStream_t stream)
{
    return type == VAE_ELEM_F32 ? scale_rows<float>(m, factor, rows, cols, stream)
                                : scale_rows<vae_bf16>(m, factor, rows, cols, stream);
}

extern "C" cudaError_t vae_decode_launch(vae_elem type, float *x_hat, vae_mat logits, size_t rows,
                                         size_t D, vae_recon recon, cudaStream_t stream)
{
    return type == VAE_ELEM_F32 ? decode<float>(x_hat, logits, rows, D, recon, stream)
                                : decode<vae_bf16>(x_hat, logits, rows, D, recon, stream);
}
