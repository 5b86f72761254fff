/* The reconstruction loss, its gradient and that one's column sums in one pass, importance weights,
 * decoder means. */
#include "columns.h"
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

struct gaussian_sigmoid_rule {
    float logvar, inv_var;
    __device__ __forceinline__ float operator()(float l, float x, float *dl) const
    {
        float unused;
        return vae_gaussian_sigmoid(l, x, logvar, inv_var, dl, &unused);
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

enum { SUMS_PIECES = 8, SUMS_AHEAD = 4, SUMS_WIDTH = SUMS_PIECES * 128, SUMS_BLOCKS = 512 };

/* The same with dlogits' column sums: grid of warps, which take rows in turn; lane i has quads i,
 * i+32 ... of all its rows, so that their sums stay in registers. D is at most SUMS_WIDTH. WHOLE: D
 * is a multiple of a quad. partial: (blocks,D) floats. */
template <typename T, typename RULE, bool WHOLE>
__global__ void __launch_bounds__(VAE_BLOCK)
    recon_sums_kernel(float *recon_row, T *dlogits, size_t ldd, const T *logits, size_t ldl,
                      const T *x, size_t ldx, uint32_t rows, uint32_t K, uint32_t D, RULE rule,
                      float scale, float *partial)
{
    typedef typename elem<T>::quad quad;
    constexpr uint32_t WARPS = VAE_BLOCK / 32;
    __shared__ float part[WARPS][SUMS_WIDTH];
    const uint32_t lane = threadIdx.x % 32, warp = threadIdx.x / 32, n_quad = (D + 3) / 4;
    float sums[SUMS_PIECES][4];
    VAE_UNROLL
    for (int i = 0; i < 4 * SUMS_PIECES; i++) {
        sums[i / 4][i % 4] = 0;
    }
    for (uint32_t r = blockIdx.x * WARPS + warp; r < rows; r += gridDim.x * WARPS) {
        const T *const l_row = logits + r * ldl, *const x_row = x + r / K * ldx;
        T *const d_row = dlogits + r * ldd;
        float loss = 0;
        VAE_UNROLL
        for (uint32_t p0 = 0; p0 < SUMS_PIECES; p0 += SUMS_AHEAD) {
            quad from[SUMS_AHEAD], data[SUMS_AHEAD];
            VAE_UNROLL
            for (uint32_t a = 0; a < SUMS_AHEAD; a++) {
                const uint32_t q = (p0 + a) * 32 + lane;
                if (q < n_quad) {
                    from[a] = *reinterpret_cast<const quad *>(l_row + 4 * q);
                    data[a] = *reinterpret_cast<const quad *>(x_row + 4 * q);
                }
            }
            VAE_UNROLL
            for (uint32_t a = 0; a < SUMS_AHEAD; a++) {
                const uint32_t q = (p0 + a) * 32 + lane;
                if (q < n_quad) {
                    float l[4], xs[4];
                    elem<T>::unpack4(l, from[a]);
                    elem<T>::unpack4(xs, data[a]);
                    VAE_UNROLL
                    for (uint32_t i = 0; i < 4; i++) {
                        const bool real = WHOLE || 4 * q + i < D;
                        float dl;
                        const float one = rule(l[i], xs[i], &dl);
                        loss += real ? one : 0.0f;
                        l[i] = real ? dl * scale : 0.0f;
                        sums[p0 + a][i] += l[i];
                    }
                    elem<T>::put4(d_row + 4 * q, l);
                }
            }
        }
        loss = group_sum(loss, 32);
        if (lane == 0) {
            recon_row[r] = loss;
        }
    }
    VAE_UNROLL
    for (uint32_t i = 0; i < 4 * SUMS_PIECES; i++) {
        part[warp][i / 4 * 128 + lane * 4 + i % 4] = sums[i / 4][i % 4];
    }
    __syncthreads();
    for (uint32_t c = threadIdx.x; c < D; c += VAE_BLOCK) {
        double sum = 0;
        for (uint32_t w = 0; w < WARPS; w++) {
            sum += (double)part[w][c];
        }
        partial[(size_t)blockIdx.x * D + c] = (float)sum;
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
template <typename T, bool SIGMOID>
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
            const float loss =
                SIGMOID ? vae_gaussian_sigmoid(mean[i], xs[i], logvar, inv_var, &dm, &dlogvar)
                        : vae_gaussian(mean[i], xs[i], logvar, inv_var, &dm, &dlogvar);
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

/* Rows times a factor each. */
struct times_factor {
    const float *factor;
    typedef float with;
    __device__ __forceinline__ with fetch(uint32_t row, uint32_t) const
    {
        return factor[row];
    }
    template <int N> __device__ __forceinline__ bool apply(float (&v)[N], with w) const
    {
        VAE_UNROLL
        for (int e = 0; e < N; e++) {
            v[e] *= w;
        }
        return true;
    }
};

/* Operands of the loss, as its launcher has them. */
struct loss_call {
    float *recon_row;
    vae_mat dlogits;
    float *db;
    vae_mat logits, x;
    float *partial;
    size_t rows, K, D;
    float scale;
    cudaStream_t stream;
};

/* One launch of the loss without column sums. */
template <typename T, typename RULE, bool WHOLE>
static void recon_alone(const loss_call &c, RULE rule)
{
    const unsigned lanes = lanes_for(c.rows, (c.D + elem<T>::N - 1) / elem<T>::N, 8, VAE_BLOCK);
    VAE_LAUNCH((recon_loss_kernel<T, RULE, WHOLE>), vae_blocks(c.rows * lanes, (size_t)-1),
               VAE_BLOCK, 0, c.stream, c.recon_row, static_cast<T *>(c.dlogits.data), c.dlogits.ld,
               static_cast<const T *>(c.logits.data), c.logits.ld, static_cast<const T *>(c.x.data),
               c.x.ld, (uint32_t)c.rows, (uint32_t)c.K, (uint32_t)c.D, rule, c.scale, lanes);
}

template <typename T, typename RULE, bool WHOLE>
static void recon_with_sums(const loss_call &c, RULE rule)
{
    const size_t rows_each = 8 * VAE_BLOCK / 32; /* of a block, at least: 8 a warp */
    const size_t most = c.rows / rows_each;
    const size_t n = most < SUMS_BLOCKS ? most : (size_t)SUMS_BLOCKS;
    VAE_LAUNCH((recon_sums_kernel<T, RULE, WHOLE>), (unsigned)n, VAE_BLOCK, 0, c.stream,
               c.recon_row, static_cast<T *>(c.dlogits.data), c.dlogits.ld,
               static_cast<const T *>(c.logits.data), c.logits.ld, static_cast<const T *>(c.x.data),
               c.x.ld, (uint32_t)c.rows, (uint32_t)c.K, (uint32_t)c.D, rule, c.scale, c.partial);
    if (cudaPeekAtLastError() == cudaSuccess) {
        vae_column_finish_launch(c.db, c.partial, n, c.D, c.stream);
    }
}

template <typename T, typename RULE> static void recon_by_rule(const loss_call &c, RULE rule)
{
    if (c.db != NULL) {
        c.D % 4 == 0 ? recon_with_sums<T, RULE, true>(c, rule)
                     : recon_with_sums<T, RULE, false>(c, rule);
    } else {
        c.D % elem<T>::N == 0 ? recon_alone<T, RULE, true>(c, rule)
                              : recon_alone<T, RULE, false>(c, rule);
    }
}

template <typename T, bool SIGMOID> static void recon_learned(const loss_call &c)
{
    const unsigned lanes = lanes_for(c.rows, (c.D + elem<T>::N - 1) / elem<T>::N, 8, VAE_BLOCK);
    VAE_LAUNCH((recon_learned_kernel<T, SIGMOID>), vae_blocks(c.rows * lanes, (size_t)-1),
               VAE_BLOCK, 0, c.stream, c.recon_row, static_cast<T *>(c.dlogits.data), c.dlogits.ld,
               static_cast<const T *>(c.logits.data), c.logits.ld, static_cast<const T *>(c.x.data),
               c.x.ld, (uint32_t)c.rows, (uint32_t)c.K, (uint32_t)c.D, c.scale, lanes);
}

template <typename T> static cudaError_t recon_loss(const loss_call &c, vae_recon recon)
{
    const bool sigmoid = recon.mean == VAE_MEAN_SIGMOID;
    if (recon.likelihood == VAE_GAUSSIAN_LEARNED) {
        sigmoid ? recon_learned<T, true>(c) : recon_learned<T, false>(c);
    } else if (recon.likelihood == VAE_GAUSSIAN && sigmoid) {
        recon_by_rule<T>(c, gaussian_sigmoid_rule{logf(recon.variance), 1.0f / recon.variance});
    } else if (recon.likelihood == VAE_GAUSSIAN) {
        recon_by_rule<T>(c, gaussian_rule{logf(recon.variance), 1.0f / recon.variance});
    } else {
        recon_by_rule<T>(c, bernoulli_rule());
    }
    return cudaGetLastError();
}

static cudaError_t scale_rows(vae_elem type, vae_mat m, float *sums, const float *factor,
                              vae_sums scratch, size_t rows, size_t cols, cudaStream_t stream)
{
    const times_factor op = {factor};
    return type == VAE_ELEM_F32 ? columns_pass<float>(sums, m, op, scratch, rows, cols, stream)
                                : columns_pass<vae_bf16>(sums, m, op, scratch, rows, cols, stream);
}

template <typename T>
static cudaError_t decode(float *x_hat, vae_mat logits, size_t rows, size_t D, vae_recon recon,
                          cudaStream_t stream)
{
    const unsigned lanes = lanes_for(rows, D, 32, VAE_BLOCK);
    VAE_LAUNCH((decode_kernel<T>), vae_blocks(rows * lanes, (size_t)-1), VAE_BLOCK, 0, stream,
               x_hat, static_cast<const T *>(logits.data), logits.ld, (uint32_t)rows, (uint32_t)D,
               vae_mean_is_sigmoid(recon.likelihood, recon.mean) != 0, lanes);
    return cudaGetLastError();
}

extern "C" int vae_recon_loss_sums(size_t rows, size_t D, vae_recon recon)
{
    return rows > 2048 && D <= SUMS_WIDTH && recon.likelihood != VAE_GAUSSIAN_LEARNED;
}

extern "C" cudaError_t vae_recon_loss_launch(vae_elem type, float *recon_row, vae_mat dlogits,
                                             float *db, vae_mat logits, vae_mat x, vae_sums scratch,
                                             size_t B, size_t K, size_t D, vae_recon recon,
                                             float scale, cudaStream_t stream)
{
    const loss_call c = {
        recon_row, dlogits, db, logits, x,     static_cast<float *>(scratch.partial),
        B * K,     K,       D,  scale,  stream};
    return type == VAE_ELEM_F32 ? recon_loss<float>(c, recon) : recon_loss<vae_bf16>(c, recon);
}

extern "C" cudaError_t vae_particle_weights_launch(vae_elem type, float *weight, float *bound_row,
                                                   vae_mat dlogits, float *db,
                                                   const float *recon_row, const float *log_pq,
                                                   vae_sums scratch, size_t B, size_t K,
                                                   size_t cols, cudaStream_t stream)
{
    VAE_LAUNCH(particle_weights_kernel, vae_blocks(B * 32, (size_t)-1), VAE_BLOCK, 0, stream,
               weight, bound_row, recon_row, log_pq, B, K);
    cudaError_t status = cudaGetLastError();
    if (status != cudaSuccess || dlogits.data == NULL) {
        return status;
    }
    return scale_rows(type, dlogits, db, weight, scratch, B * K, cols, stream);
}

extern "C" cudaError_t vae_scale_rows_launch(vae_elem type, vae_mat m, float *sums,
                                             const float *factor, vae_sums scratch, size_t rows,
                                             size_t cols, cudaStream_t stream)
{
    return scale_rows(type, m, sums, factor, scratch, rows, cols, stream);
}

extern "C" cudaError_t vae_decode_launch(vae_elem type, float *x_hat, vae_mat logits, size_t rows,
                                         size_t D, vae_recon recon, cudaStream_t stream)
{
    return type == VAE_ELEM_F32 ? decode<float>(x_hat, logits, rows, D, recon, stream)
                                : decode<vae_bf16>(x_hat, logits, rows, D, recon, stream);
}
