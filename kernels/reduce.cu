/* Sums, in two stages and a fixed order: no float atomics. The number of blocks depends on sizes
 * only; floats are added over a few values in a thread, doubles from there on. */
#include "kernels.h"
#include "launch.h"
#include "vae_math.h"
#include "vector.h"

enum { ROW_LANES = 8, COLUMN_LANES = VAE_BLOCK / ROW_LANES, AHEAD = 4, MOST_BLOCKS = 256 };

/* Blocks along the rows of a column sum: fewer where columns alone make many. */
static size_t row_blocks(size_t rows, size_t cols)
{
    const size_t blocks = (rows + 16 * ROW_LANES - 1) / (16 * ROW_LANES);
    const size_t most = ((size_t)1 << 18) / (cols > 4096 ? cols : 4096);
    if (most == 0) {
        return 1;
    }
    return blocks < most ? blocks : most;
}

/* Grid: (column tiles, row blocks), blocks of COLUMN_LANES x ROW_LANES threads; a thread adds up N
 * neighbouring columns of every ROW_LANES-th row of its block. partial: (row blocks, ld) doubles.
 */
template <typename T>
__global__ void __launch_bounds__(VAE_BLOCK)
    column_sums_kernel(double *partial, const T *__restrict__ dy, size_t ld, size_t rows)
{
    constexpr int N = elem<T>::N;
    __shared__ double part[ROW_LANES][COLUMN_LANES * N];
    const unsigned lane = threadIdx.x % COLUMN_LANES, row_lane = threadIdx.x / COLUMN_LANES;
    const size_t c = ((size_t)blockIdx.x * COLUMN_LANES + lane) * N;
    const size_t step = (size_t)gridDim.y * ROW_LANES;
    double total[N];
    VAE_UNROLL
    for (int e = 0; e < N; e++) {
        total[e] = 0;
    }
    for (size_t r = (size_t)blockIdx.y * ROW_LANES + row_lane; c < ld && r < rows;
         r += AHEAD * step) {
        vae_word4 from[AHEAD];
        float sum[N];
        VAE_UNROLL
        for (int a = 0; a < AHEAD; a++) {
            const vae_word4 nothing = {{0, 0, 0, 0}};
            from[a] = r + a * step < rows ? load16(dy + (r + a * step) * ld + c) : nothing;
        }
        elem<T>::unpack(sum, from[0]);
        VAE_UNROLL
        for (int a = 1; a < AHEAD; a++) {
            float v[N];
            elem<T>::unpack(v, from[a]);
            VAE_UNROLL
            for (int e = 0; e < N; e++) {
                sum[e] += v[e];
            }
        }
        VAE_UNROLL
        for (int e = 0; e < N; e++) {
            total[e] += (double)sum[e];
        }
    }
    VAE_UNROLL
    for (int e = 0; e < N; e++) {
        part[row_lane][lane * N + e] = total[e];
    }
    __syncthreads();
    for (unsigned i = threadIdx.x; i < COLUMN_LANES * N; i += VAE_BLOCK) {
        const size_t column = (size_t)blockIdx.x * COLUMN_LANES * N + i;
        double sum = 0;
        for (int j = 0; j < ROW_LANES; j++) {
            sum += part[j][i];
        }
        if (column < ld) {
            partial[(size_t)blockIdx.y * ld + column] = sum;
        }
    }
}

/* Grid as above with one latent per lane. partial: (row blocks, Z) doubles. */
template <typename T>
__global__ void __launch_bounds__(VAE_BLOCK)
    kl_dims_kernel(double *partial, const T *__restrict__ head, size_t ld, size_t B, size_t Z)
{
    __shared__ double part[ROW_LANES][COLUMN_LANES];
    const unsigned lane = threadIdx.x % COLUMN_LANES, row_lane = threadIdx.x / COLUMN_LANES;
    const size_t j = (size_t)blockIdx.x * COLUMN_LANES + lane;
    const size_t step = (size_t)gridDim.y * ROW_LANES;
    double total = 0;
    for (size_t r = (size_t)blockIdx.y * ROW_LANES + row_lane; j < Z && r < B; r += step) {
        const float mu = elem<T>::get(head + r * ld + j);
        const float logvar = elem<T>::get(head + r * ld + Z + j);
        total += (double)vae_kl(mu, logvar, vae_expf(logvar));
    }
    part[row_lane][lane] = total;
    __syncthreads();
    if (row_lane == 0 && j < Z) {
        double sum = 0;
        for (int i = 0; i < ROW_LANES; i++) {
            sum += part[i][lane];
        }
        partial[(size_t)blockIdx.y * Z + j] = sum;
    }
}

/* out: (cols) = scale * sums over the (n,ld) partial sums. Grid: a thread per column. */
__global__ void __launch_bounds__(VAE_BLOCK)
    column_finish_kernel(float *out, const double *__restrict__ partial, size_t n, size_t ld,
                         size_t cols, double scale)
{
    const size_t c = grid_thread();
    if (c >= cols) {
        return;
    }
    double sum = 0;
    for (size_t i = 0; i < n; i++) {
        sum += partial[i * ld + c];
    }
    out[c] = (float)(scale * sum);
}

/* This thread's share of n floats: every grid_threads()-th, each in double. */
static __device__ __forceinline__ double share_of(const float *v, size_t n)
{
    double sum = 0;
    for (size_t i = grid_thread(); v != NULL && i < n; i += grid_threads()) {
        sum += (double)v[i];
    }
    return sum;
}

/* The last block's work: the sums into the totals. */
static __device__ void add_totals(vae_totals *totals, double recon, double kl, double bound,
                                  bool bounded, const float *kl_dim, const vae_plan *plan, size_t B,
                                  size_t K, size_t Z, float free_bits)
{
    double penalty = kl;
    recon /= (double)K;
    if (kl_dim != NULL) {
        penalty = 0;
        for (size_t j = 0; j < Z; j++) {
            penalty += (double)B * (double)(kl_dim[j] > free_bits ? kl_dim[j] : free_bits);
        }
    }
    const double objective = bounded ? bound : recon + (double)plan->beta * penalty;
    totals->recon += recon;
    totals->kl += kl;
    totals->objective += objective;
    totals->examples += (double)B;
    if (totals->bad_step == 0 && !isfinite(recon + kl + objective)) {
        totals->bad_step = plan->step;
    }
}

/* Grid: by size. partial: (grid,3) doubles. */
__global__ void __launch_bounds__(VAE_BLOCK)
    accumulate_kernel(vae_totals *totals, const float *recon_row, const float *kl_row,
                      const float *bound_row, const float *kl_dim, vae_now now, double *partial,
                      uint32_t *ticket, size_t B, size_t K, size_t Z, float free_bits)
{
    __shared__ double part[3 * VAE_BLOCK];
    double sum[3] = {share_of(recon_row, B * K), share_of(kl_row, B), share_of(bound_row, B)};
    block_sums(sum, 3, part);
    for (int i = 0; threadIdx.x == 0 && i < 3; i++) {
        partial[3 * (size_t)blockIdx.x + i] = sum[i];
    }
    if (!last_block(ticket)) {
        return;
    }
    for (int i = 0; i < 3; i++) {
        sum[i] = threadIdx.x < gridDim.x ? ((volatile double *)partial)[3 * (size_t)threadIdx.x + i]
                                         : 0.0;
    }
    block_sums(sum, 3, part);
    if (threadIdx.x == 0) {
        add_totals(totals, sum[0], sum[1], sum[2], bound_row != NULL, kl_dim, plan_entry(now), B, K,
                   Z, free_bits);
    }
}

/* Grid: by size; 16 bytes per thread and turn. partial: (grid) doubles. */
__global__ void __launch_bounds__(VAE_BLOCK)
    grad_norm_kernel(vae_totals *totals, const float *__restrict__ g, vae_now now, double *partial,
                     uint32_t *ticket, size_t n)
{
    __shared__ double part[VAE_BLOCK];
    double sum = 0;
    for (size_t i = 4 * grid_thread(); i < n; i += 4 * grid_threads()) {
        float v[4];
        elem<float>::get4(v, g + i);
        sum += ((double)v[0] * (double)v[0] + (double)v[1] * (double)v[1]) +
               ((double)v[2] * (double)v[2] + (double)v[3] * (double)v[3]);
    }
    block_sums(&sum, 1, part);
    if (threadIdx.x == 0) {
        partial[blockIdx.x] = sum;
    }
    if (!last_block(ticket)) {
        return;
    }
    sum = threadIdx.x < gridDim.x ? ((volatile double *)partial)[threadIdx.x] : 0.0;
    block_sums(&sum, 1, part);
    if (threadIdx.x == 0) {
        totals->grad_norm = sqrt(sum);
        if (totals->bad_step == 0 && !isfinite(sum)) {
            totals->bad_step = plan_entry(now)->step;
        }
    }
}

template <typename T>
static cudaError_t column_sums(float *db, vae_mat dy, double *partial, size_t rows, size_t cols,
                               cudaStream_t stream)
{
    /* whole vectors: the padding of dy holds zeros */
    const size_t tile = (size_t)COLUMN_LANES * elem<T>::N, n = row_blocks(rows, cols);
    const dim3 grid((unsigned)((cols + tile - 1) / tile), (unsigned)n);
    VAE_LAUNCH((column_sums_kernel<T>), grid, VAE_BLOCK, 0, stream, partial,
               static_cast<const T *>(dy.data), dy.ld, rows);
    cudaError_t status = cudaGetLastError();
    if (status != cudaSuccess) {
        return status;
    }
    VAE_LAUNCH(column_finish_kernel, vae_blocks(cols, (size_t)-1), VAE_BLOCK, 0, stream, db,
               partial, n, dy.ld, cols, 1.0);
    return cudaGetLastError();
}

template <typename T>
static cudaError_t kl_dims(float *kl_dim, vae_mat head, double *partial, size_t B, size_t Z,
                           cudaStream_t stream)
{
    const size_t n = row_blocks(B, Z);
    const dim3 grid((unsigned)((Z + COLUMN_LANES - 1) / COLUMN_LANES), (unsigned)n);
    VAE_LAUNCH((kl_dims_kernel<T>), grid, VAE_BLOCK, 0, stream, partial,
               static_cast<const T *>(head.data), head.ld, B, Z);
    cudaError_t status = cudaGetLastError();
    if (status != cudaSuccess) {
        return status;
    }
    VAE_LAUNCH(column_finish_kernel, vae_blocks(Z, (size_t)-1), VAE_BLOCK, 0, stream, kl_dim,
               partial, n, Z, Z, 1.0 / (double)B);
    return cudaGetLastError();
}

extern "C" size_t vae_column_sums_scratch(size_t rows, size_t cols)
{
    return row_blocks(rows, cols) * ((cols + 15) / 16 * 16) * sizeof(double);
}

extern "C" size_t vae_kl_dims_scratch(size_t B, size_t Z)
{
    return row_blocks(B, Z) * Z * sizeof(double);
}

extern "C" cudaError_t vae_column_sums_launch(vae_elem type, float *db, vae_mat dy, void *partial,
                                              size_t rows, size_t cols, cudaStream_t stream)
{
    return type == VAE_ELEM_F32
               ? column_sums<float>(db, dy, static_cast<double *>(partial), rows, cols, stream)
               : column_sums<vae_bf16>(db, dy, static_cast<double *>(partial), rows, cols, stream);
}

extern "C" cudaError_t vae_kl_dims_launch(vae_elem type, float *kl_dim, vae_mat head, void *partial,
                                          size_t B, size_t Z, cudaStream_t stream)
{
    return type == VAE_ELEM_F32
               ? kl_dims<float>(kl_dim, head, static_cast<double *>(partial), B, Z, stream)
               : kl_dims<vae_bf16>(kl_dim, head, static_cast<double *>(partial), B, Z, stream);
}

extern "C" cudaError_t vae_accumulate_launch(vae_totals *totals, const float *recon_row,
                                             const float *kl_row, const float *bound_row,
                                             const float *kl_dim, vae_now now, void *partial,
                                             uint32_t *ticket, size_t B, size_t K, size_t Z,
                                             float free_bits, cudaStream_t stream)
{
    VAE_LAUNCH(accumulate_kernel, vae_blocks((B * K + 15) / 16, MOST_BLOCKS), VAE_BLOCK, 0, stream,
               totals, recon_row, kl_row, bound_row, kl_dim, now, static_cast<double *>(partial),
               ticket, B, K, Z, free_bits);
    return cudaGetLastError();
}

extern "C" cudaError_t vae_grad_norm_launch(vae_totals *totals, const float *g, vae_now now,
                                            void *partial, uint32_t *ticket, size_t n,
                                            cudaStream_t stream)
{
    VAE_LAUNCH(grad_norm_kernel, vae_blocks(n / 16, MOST_BLOCKS), VAE_BLOCK, 0, stream, totals, g,
               now, static_cast<double *>(partial), ticket, n);
    return cudaGetLastError();
}
