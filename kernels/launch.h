/* How kernels are launched: by nvcc's <<<>>>, or by the host emulation of tests/simt. The only
 * place in kernels/ that knows which. */
#ifndef VAE_LAUNCH_H
#define VAE_LAUNCH_H

#include <stddef.h>
#include <stdint.h>

#ifdef __CUDACC__
#include <cuda_runtime.h>
#define VAE_LAUNCH(kernel, grid, block, shared_bytes, stream, ...)                                 \
    kernel<<<(grid), (block), (shared_bytes), (stream)>>>(__VA_ARGS__)
#define VAE_UNROLL _Pragma("unroll")
#else
#include "simt.h"
#define VAE_LAUNCH SIMT_LAUNCH
#define VAE_UNROLL
#endif

/* Threads of a block, for every kernel that does not say otherwise. */
#define VAE_BLOCK 256

/* Of those that small batches wait for: a warp for each of a multiprocessor's four schedulers, so
 * that little work reaches many multiprocessors. */
#define VAE_SMALL_BLOCK 128

/* Blocks for `items` threads of work, at most `most`: kernels stride over what is left. */
static inline unsigned vae_blocks(size_t items, size_t most)
{
    size_t blocks = (items + VAE_BLOCK - 1) / VAE_BLOCK;
    blocks = blocks < most ? blocks : most;
    return (unsigned)(blocks > 0 ? blocks : 1);
}

#endif
