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
/* A kernel of one argument whose blocks are all resident and may meet in grid_sync(). */
#define VAE_LAUNCH_COOPERATIVE(kernel, grid, block, shared_bytes, stream, argument)                \
    do {                                                                                           \
        void *vae_arguments[] = {(void *)&(argument)};                                             \
        cudaLaunchCooperativeKernel((const void *)(kernel), dim3(grid), dim3(block),               \
                                    vae_arguments, (shared_bytes), (stream));                      \
    } while (0)
#define VAE_DYNAMIC_SHARED(type, name) extern __shared__ __align__(16) type name[]
#define VAE_UNROLL                     _Pragma("unroll")
#define VAE_ROLLED                     _Pragma("unroll 1")

/* A barrier of all threads of all blocks, after which each sees what any wrote before it. arrived:
 * a counter in device memory, zero at launch; target: gridDim.x times the number of the barrier,
 * from 1. Thread 0 releases what its block wrote, of which the block's barrier makes it the
 * observer, and acquires for its block what the others released (PTX ISA, memory consistency model:
 * causality order goes through barriers). Own code, as grid.sync() of cooperative groups keeps its
 * counter behind a call and a lookup. */
static __device__ __forceinline__ void grid_sync(uint32_t *arrived, uint32_t target)
{
    __syncthreads();
    if (threadIdx.x == 0) {
        uint32_t seen;
        asm volatile("red.release.gpu.global.add.u32 [%0], 1;" : : "l"(arrived) : "memory");
        do {
            asm volatile("ld.acquire.gpu.global.u32 %0, [%1];"
                         : "=r"(seen)
                         : "l"(arrived)
                         : "memory");
        } while ((int32_t)(seen - target) < 0);
    }
    __syncthreads();
}

/* Cycles of this multiprocessor, and the device's nanoseconds (which may tick far more slowly). */
static __device__ __forceinline__ uint32_t ticks(void)
{
    uint32_t now;
    asm volatile("mov.u32 %0, %%clock;" : "=r"(now) : : "memory");
    return now;
}
static __device__ __forceinline__ uint32_t nanoseconds(void)
{
    uint32_t now;
    asm volatile("mov.u32 %0, %%globaltimer_lo;" : "=r"(now) : : "memory");
    return now;
}
#else
#include "simt.h"
#define VAE_LAUNCH             SIMT_LAUNCH
#define VAE_LAUNCH_COOPERATIVE SIMT_LAUNCH_COOPERATIVE
#define VAE_DYNAMIC_SHARED     SIMT_DYNAMIC_SHARED
#define VAE_UNROLL
#define VAE_ROLLED
#define grid_sync(arrived, target) ((void)(arrived), (void)(target), simt_grid_sync())
#define ticks()                    0u
#define nanoseconds()              0u
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
