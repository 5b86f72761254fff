/* The random numbers of the kernels: cuRAND's device API, Philox4x32-10. The only place in kernels/
 * that knows cuRAND. A number is a function of (seed, stream, block), as philox.h says, and no
 * state is kept: what curand_init works out beside the one Philox of the draw, the compiler drops.
 * The emulation brings a curand_kernel.h of its own, or takes the toolkit's. */
#ifndef VAE_RANDOM_H
#define VAE_RANDOM_H

#include <stdint.h>

#include "launch.h"
#include "philox.h"

#ifdef __CUDACC__
#if !__has_include(<curand_kernel.h>)
#error "cuRAND's headers are not beside nvcc's others: Debian's package is libcurand-dev-13-0"
#endif
#include <curand.h>
/* curand_kernel.h brings tables for XORWOW and MRG32k3a, 218 KB of device memory, and nvcc keeps
 * whatever is static, used or not. Neither generator is called here: names of one element take the
 * place of their tables. Only for versions with which it was tried (CUDA 11.8, 12.9, 13.0, 13.4);
 * with others the tables come along and nothing else changes. */
#if CURAND_VERSION >= 10300 && CURAND_VERSION < 10500
#define CURAND_XORWOW_PRECALCULATED_H_
#define CURAND_MRG32K3A_MATRICES_H_
#define PRECALC_NUM_MATRICES    (1)
#define PRECALC_BLOCK_SIZE      (2)
#define PRECALC_BLOCK_MASK      ((1 << PRECALC_BLOCK_SIZE) - 1)
#define XORWOW_SEQUENCE_SPACING (67)
#define VAE_NO_TABLE(name, host_name, ...)                                                         \
    static __device__ unsigned int name[1] __VA_ARGS__;                                            \
    static unsigned int host_name[1] __VA_ARGS__;
VAE_NO_TABLE(precalc_xorwow_matrix, precalc_xorwow_matrix_host, [1])
VAE_NO_TABLE(precalc_xorwow_offset_matrix, precalc_xorwow_offset_matrix_host, [1])
VAE_NO_TABLE(mrg32k3aM1, mrg32k3aM1Host, [3][3])
VAE_NO_TABLE(mrg32k3aM2, mrg32k3aM2Host, [3][3])
VAE_NO_TABLE(mrg32k3aM1SubSeq, mrg32k3aM1SubSeqHost, [3][3])
VAE_NO_TABLE(mrg32k3aM2SubSeq, mrg32k3aM2SubSeqHost, [3][3])
VAE_NO_TABLE(mrg32k3aM1Seq, mrg32k3aM1SeqHost, [3][3])
VAE_NO_TABLE(mrg32k3aM2Seq, mrg32k3aM2SeqHost, [3][3])
#undef VAE_NO_TABLE
#endif
#endif
#include <curand_kernel.h>

/* The state whose next draw is block `block` of stream `stream`. block < 2^62. */
static __device__ __forceinline__ curandStatePhilox4_32_10_t random_at(uint64_t seed,
                                                                       uint64_t stream,
                                                                       uint64_t block)
{
    curandStatePhilox4_32_10_t state;
    curand_init(seed, stream, 4 * block, &state);
    return state;
}

/* The four words of vae_philox(seed, stream, block). */
static __device__ __forceinline__ void random_words(uint32_t w[4], uint64_t seed, uint64_t stream,
                                                    uint64_t block)
{
    curandStatePhilox4_32_10_t state = random_at(seed, stream, block);
    const uint4 v = curand4(&state);
    w[0] = v.x;
    w[1] = v.y;
    w[2] = v.z;
    w[3] = v.w;
}

/* eps of vae_eps4 from the same words: four standard normals by curand_normal4. */
static __device__ __forceinline__ void random_eps4(float eps[4], uint64_t seed, uint32_t purpose,
                                                   uint64_t row, uint32_t n_quads, uint32_t quad,
                                                   uint64_t draw, uint32_t particle)
{
    curandStatePhilox4_32_10_t state = random_at(
        seed, vae_rng_stream(purpose, row * n_quads + quad), vae_rng_block(draw, particle));
    const float4 v = curand_normal4(&state);
    eps[0] = v.x;
    eps[1] = v.y;
    eps[2] = v.z;
    eps[3] = v.w;
}

#endif
