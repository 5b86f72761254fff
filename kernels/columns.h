/* Passes over a matrix that also add up its columns, as bias gradients want it: every value is read
 * once, changed by an OP and stored where that says so, and goes into its column's sum.
 *
 * Order of the sums: floats over the rows of a thread and of a warp, doubles over warps and blocks,
 * in an order that depends on sizes only. Blocks are (tiles of columns, blocks of rows). Few rows
 * make one block of rows, which needs no second stage; of several, the last one to finish in a tile
 * adds up what all of them left.
 *
 * An OP has `with`, what it needs beside the value; fetch() for 16 bytes at (row,c), issued ahead;
 * and apply(), which changes the values and says whether to store them. */
#ifndef VAE_COLUMNS_H
#define VAE_COLUMNS_H

#include "vector.h"

enum {
    COLUMN_AHEAD = 4,       /* rows of a thread that are on their way at once */
    COLUMN_BLOCKS = 1024,   /* of a grid, about: enough for any device's multiprocessors */
    COLUMN_ROW_BLOCKS = 128 /* at most: the last block of a tile reads all they left */
};

/* Sums over the block's rows, of which each thread has those of N neighbouring columns, and then
 * over blocks: sums[column] = scale * all of it. The lanes of a row are `lanes` neighbouring
 * threads (a power of two, at most 32). partial: (tiles, row blocks, lanes*N). All threads must
 * call. */
template <int N>
static __device__ __forceinline__ void finish_columns(float *sums, float *sum, uint32_t cols,
                                                      unsigned lanes, double scale, float *partial,
                                                      uint32_t *ticket)
{
    __shared__ float part[VAE_BLOCK / 32][32 * N];
    __shared__ double share[VAE_BLOCK];
    const unsigned width = lanes * N, t = threadIdx.x;
    const uint32_t column = blockIdx.x * width + t;
    for (unsigned o = lanes; o < 32; o *= 2) {
        VAE_UNROLL
        for (int e = 0; e < N; e++) {
            sum[e] += __shfl_xor_sync(0xFFFFFFFFu, sum[e], o);
        }
    }
    if (t % 32 < lanes) {
        VAE_UNROLL
        for (int e = 0; e < N; e++) {
            part[t / 32][t % 32 * N + e] = sum[e];
        }
    }
    __syncthreads();
    double total = 0;
    for (int w = 0; t < width && w < VAE_BLOCK / 32; w++) {
        total += (double)part[w][t];
    }
    if (gridDim.y == 1) {
        if (t < width && column < cols) {
            sums[column] = (float)(scale * total);
        }
        return;
    }
    const uint32_t n = gridDim.y;
    volatile float *const tile = partial + (size_t)blockIdx.x * n * width;
    if (t < width) {
        tile[blockIdx.y * width + t] = (float)total;
    }
    if (!last_of(ticket + blockIdx.x, n)) {
        return;
    }
    const unsigned groups = VAE_BLOCK / width;
    total = 0;
    for (uint32_t i = t / width; i < n; i += 8 * groups) {
        float from[8];
        VAE_UNROLL
        for (uint32_t a = 0; a < 8; a++) {
            from[a] = i + a * groups < n ? tile[(i + a * groups) * width + t % width] : 0.0f;
        }
        VAE_UNROLL
        for (uint32_t a = 0; a < 8; a++) {
            total += (double)from[a];
        }
    }
    share[t] = total;
    __syncthreads();
    total = 0;
    for (unsigned g = 0; t < width && g < groups; g++) {
        total += share[g * width + t];
    }
    if (t < width && column < cols) {
        sums[column] = (float)(scale * total);
    }
}

/* m: (rows,cols); sums: (cols) out, or NULL. */
template <typename T, typename OP>
__global__ void __launch_bounds__(VAE_BLOCK)
    columns_kernel(float *sums, T *m, size_t ld, uint32_t rows, uint32_t cols, unsigned lanes,
                   OP op, float *partial, uint32_t *ticket)
{
    constexpr int N = elem<T>::N;
    const uint32_t c = (blockIdx.x * lanes + group_lane(lanes)) * N;
    const uint32_t row_lanes = VAE_BLOCK / lanes, step = gridDim.y * row_lanes;
    float sum[N];
    VAE_UNROLL
    for (int e = 0; e < N; e++) {
        sum[e] = 0;
    }
    for (uint32_t r = blockIdx.y * row_lanes + threadIdx.x / lanes; c < cols && r < rows;
         r += COLUMN_AHEAD * step) {
        vae_word4 from[COLUMN_AHEAD];
        typename OP::with with[COLUMN_AHEAD];
        VAE_UNROLL
        for (uint32_t a = 0; a < COLUMN_AHEAD; a++) {
            const uint32_t row = r + a * step;
            if (row < rows) {
                from[a] = load16(m + row * ld + c);
                with[a] = op.fetch(row, c);
            }
        }
        VAE_UNROLL
        for (uint32_t a = 0; a < COLUMN_AHEAD; a++) {
            const uint32_t row = r + a * step;
            if (row >= rows) {
                break;
            }
            float v[N];
            elem<T>::unpack(v, from[a]);
            if (op.apply(v, with[a])) {
                VAE_UNROLL
                for (int e = 0; e < N; e++) { /* padding stays zero */
                    v[e] = c + e < cols ? v[e] : 0.0f;
                }
                store16(m + row * ld + c, elem<T>::pack(v));
            }
            VAE_UNROLL
            for (int e = 0; e < N; e++) {
                sum[e] += v[e];
            }
        }
    }
    if (sums != NULL) {
        finish_columns<N>(sums, sum, cols, lanes, 1.0, partial, ticket);
    }
}

/* Lanes per row for n pieces of it, and the grid. Few rows: narrow tiles, so that one block has all
 * rows of its columns and enough blocks share the work. Many: rows of 128 bytes at a time. */
typedef struct {
    unsigned lanes;
    dim3 grid;
} column_grid;

static inline column_grid columns_of(size_t rows, size_t n, bool sums)
{
    const bool few = sums && rows <= 2048;
    unsigned lanes = few && rows > 256 ? 2 : few && rows > 128 ? 4 : 8;
    while (lanes > 1 && lanes / 2 >= n) {
        lanes /= 2;
    }
    const size_t tiles = (n + lanes - 1) / lanes, rows_once = VAE_BLOCK / lanes * COLUMN_AHEAD;
    size_t blocks = (rows + rows_once - 1) / rows_once;
    const size_t most = tiles <= COLUMN_BLOCKS / 2 ? COLUMN_BLOCKS / tiles : 1;
    blocks = blocks < COLUMN_ROW_BLOCKS ? blocks : (size_t)COLUMN_ROW_BLOCKS;
    blocks = few ? 1 : blocks < most ? blocks : most;
    return (column_grid){lanes, dim3((unsigned)tiles, (unsigned)blocks)};
}

template <typename T, typename OP>
static cudaError_t columns_pass(float *sums, vae_mat m, OP op, vae_sums scratch, size_t rows,
                                size_t cols, cudaStream_t stream)
{
    const column_grid g = columns_of(rows, (cols + elem<T>::N - 1) / elem<T>::N, sums != NULL);
    VAE_LAUNCH((columns_kernel<T, OP>), g.grid, VAE_BLOCK, 0, stream, sums,
               static_cast<T *>(m.data), m.ld, (uint32_t)rows, (uint32_t)cols, g.lanes, op,
               static_cast<float *>(scratch.partial), scratch.ticket);
    return cudaGetLastError();
}

#endif
