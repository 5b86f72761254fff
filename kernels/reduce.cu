/* Sums, in two stages and a fixed order: no float atomics. The number of blocks depends on sizes
 * only; floats are added over a few values in a thread, doubles from there on. */
#include "columns.h"
#include "kernels.h"
#include "launch.h"
#include "vae_math.h"
#include "vector.h"

enum { MOST_BLOCKS = 256, KL_AHEAD = 8 };

/* A matrix whose columns are only added up. */
struct as_it_is {
    struct with {
    };
    __device__ __forceinline__ with fetch(uint32_t, uint32_t) const
    {
        return with();
    }
    __device__ __forceinline__ bool apply(float *, with) const
    {
        return false;
    }
};

/* Grid as of a pass over columns (columns.h), one latent a lane. */
template <typename T>
__global__ void __launch_bounds__(VAE_BLOCK)
    kl_dims_kernel(float *kl_dim, const T *__restrict__ head, size_t ld, uint32_t B, uint32_t Z,
                   unsigned lanes, double scale, float *partial, uint32_t *ticket)
{
    const uint32_t j = blockIdx.x * lanes + group_lane(lanes);
    const uint32_t row_lanes = VAE_BLOCK / lanes, step = gridDim.y * row_lanes;
    float sum[1] = {0};
    for (uint32_t r = blockIdx.y * row_lanes + threadIdx.x / lanes; j < Z && r < B;
         r += KL_AHEAD * step) {
        float mu[KL_AHEAD], logvar[KL_AHEAD];
        VAE_UNROLL
        for (uint32_t a = 0; a < KL_AHEAD; a++) { /* where there is no row, a KL of 0 */
            const uint32_t row = r + a * step;
            mu[a] = row < B ? elem<T>::get(head + row * ld + j) : 0.0f;
            logvar[a] = row < B ? elem<T>::get(head + row * ld + Z + j) : 0.0f;
        }
        VAE_UNROLL
        for (uint32_t a = 0; a < KL_AHEAD; a++) {
            sum[0] += vae_kl(mu[a], logvar[a], vae_expf(logvar[a]));
        }
    }
    finish_columns<1>(kl_dim, sum, Z, lanes, scale, partial, ticket);
}

/* Grid: FINISH_COLUMNS columns a block, whose threads share the n rows of partial: (n,cols). */
enum { FINISH_COLUMNS = 16, FINISH_ROWS = VAE_BLOCK / FINISH_COLUMNS };
__global__ void __launch_bounds__(VAE_BLOCK)
    column_finish_kernel(float *sums, const float *__restrict__ partial, uint32_t n, uint32_t cols)
{
    __shared__ double part[FINISH_ROWS][FINISH_COLUMNS];
    const unsigned lane = threadIdx.x % FINISH_COLUMNS, row_lane = threadIdx.x / FINISH_COLUMNS;
    const uint32_t c = blockIdx.x * FINISH_COLUMNS + lane;
    double sum = 0;
    for (uint32_t i = row_lane; c < cols && i < n; i += 8 * FINISH_ROWS) {
        float from[8];
        VAE_UNROLL
        for (uint32_t a = 0; a < 8; a++) {
            const uint32_t row = i + a * FINISH_ROWS;
            from[a] = row < n ? partial[(size_t)row * cols + c] : 0.0f;
        }
        VAE_UNROLL
        for (uint32_t a = 0; a < 8; a++) {
            sum += (double)from[a];
        }
    }
    part[row_lane][lane] = sum;
    __syncthreads();
    if (row_lane == 0 && c < cols) {
        sum = 0;
        for (int i = 0; i < FINISH_ROWS; i++) {
            sum += part[i][lane];
        }
        sums[c] = (float)sum;
    }
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

/* Grid: by size; 16 bytes per thread and turn. partial: (grid) doubles. ticket NULL: them alone. */
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
    if (ticket == NULL || !last_block(ticket)) {
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
static cudaError_t kl_dims(float *kl_dim, vae_mat head, vae_sums scratch, size_t B, size_t over,
                           size_t Z, cudaStream_t stream)
{
    unsigned lanes = 1;
    while (lanes < 32 && lanes < Z) {
        lanes *= 2;
    }
    /* two turns of a thread in one block of rows are faster than a second stage */
    const size_t tiles = (Z + lanes - 1) / lanes, rows_once = VAE_BLOCK / lanes * KL_AHEAD;
    const size_t most = tiles <= COLUMN_BLOCKS / 2 ? COLUMN_BLOCKS / tiles : 1;
    size_t blocks = B <= 2 * rows_once ? 1 : (B + rows_once - 1) / rows_once;
    blocks = blocks < MOST_BLOCKS ? blocks : (size_t)MOST_BLOCKS;
    blocks = blocks < most ? blocks : most;
    VAE_LAUNCH((kl_dims_kernel<T>), dim3((unsigned)tiles, (unsigned)blocks), VAE_BLOCK, 0, stream,
               kl_dim, static_cast<const T *>(head.data), head.ld, (uint32_t)B, (uint32_t)Z, lanes,
               1.0 / (double)over, static_cast<float *>(scratch.partial), scratch.ticket);
    return cudaGetLastError();
}

extern "C" cudaError_t vae_column_sums_launch(vae_elem type, float *db, vae_mat dy,
                                              vae_sums scratch, size_t rows, size_t cols,
                                              cudaStream_t stream)
{
    return type == VAE_ELEM_F32
               ? columns_pass<float>(db, dy, as_it_is(), scratch, rows, cols, stream)
               : columns_pass<vae_bf16>(db, dy, as_it_is(), scratch, rows, cols, stream);
}

extern "C" cudaError_t vae_column_finish_launch(float *sums, const float *partial, size_t n,
                                                size_t cols, cudaStream_t stream)
{
    VAE_LAUNCH(column_finish_kernel, (unsigned)((cols + FINISH_COLUMNS - 1) / FINISH_COLUMNS),
               VAE_BLOCK, 0, stream, sums, partial, (uint32_t)n, (uint32_t)cols);
    return cudaGetLastError();
}

extern "C" cudaError_t vae_kl_dims_launch(vae_elem type, float *kl_dim, vae_mat head,
                                          vae_sums scratch, size_t B, size_t over, size_t Z,
                                          cudaStream_t stream)
{
    return type == VAE_ELEM_F32 ? kl_dims<float>(kl_dim, head, scratch, B, over, Z, stream)
                                : kl_dims<vae_bf16>(kl_dim, head, scratch, B, over, Z, stream);
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
    VAE_LAUNCH(grad_norm_kernel, vae_norm_blocks(n), VAE_BLOCK, 0, stream, totals, g, now,
               static_cast<double *>(partial), ticket, n);
    return cudaGetLastError();
}

__global__ void poison_kernel(float *v, const vae_totals *totals)
{
    if (totals->bad_step != 0) {
        v[0] = NAN;
    }
}

extern "C" cudaError_t vae_poison_launch(float *v, const vae_totals *totals, cudaStream_t stream)
{
    VAE_LAUNCH(poison_kernel, 1, 1, 0, stream, v, totals);
    return cudaGetLastError();
}
