/* Stand-in for cuRAND's curand_kernel.h: the one generator and the two draws that vae uses, with
 * the bits that NVIDIA's header gives as host code (tests/unit/test_curand.c compares). Where the
 * toolkit is, kernels are emulated over NVIDIA's own: SIMT_CURAND says that it is further down the
 * include path. */
#ifndef SIMT_CURAND_KERNEL_H
#define SIMT_CURAND_KERNEL_H

#pragma GCC system_header

#include <assert.h>

#include "cuda_runtime.h"

#ifdef SIMT_CURAND
/* it declares these on a host, as constants; and it wants a few names of cuda_runtime.h */
#define blockDim  curand_blockDim
#define threadIdx curand_threadIdx
#define __NV_SILENCE_DEPRECATION_BEGIN
#define __NV_SILENCE_DEPRECATION_END
#include_next <curand_kernel.h>
#undef blockDim
#undef threadIdx
#else

typedef struct {
    uint4 ctr;
    uint2 key;
} curandStatePhilox4_32_10_t;

/* offset: a multiple of four, so that draws of four are whole blocks. */
static inline void curand_init(unsigned long long seed, unsigned long long subsequence,
                               unsigned long long offset, curandStatePhilox4_32_10_t *state)
{
    const unsigned long long block = offset / 4;
    assert(offset % 4 == 0);
    state->ctr = make_uint4((unsigned)block, (unsigned)(block >> 32), (unsigned)subsequence,
                            (unsigned)(subsequence >> 32));
    state->key = make_uint2((unsigned)seed, (unsigned)(seed >> 32));
}

/* Philox4x32-10 (Salmon et al., SC 2011) of the counter, which moves on by one. */
static inline uint4 curand4(curandStatePhilox4_32_10_t *state)
{
    uint4 c = state->ctr;
    uint2 k = state->key;
    for (int round = 0; round < 10; round++) {
        const unsigned long long a = 0xD2511F53ull * c.x, b = 0xCD9E8D57ull * c.z;
        c = make_uint4((unsigned)(b >> 32) ^ c.y ^ k.x, (unsigned)b,
                       (unsigned)(a >> 32) ^ c.w ^ k.y, (unsigned)a);
        k = make_uint2(k.x + 0x9E3779B9u, k.y + 0xBB67AE85u);
    }
    if (++state->ctr.x == 0 && ++state->ctr.y == 0 && ++state->ctr.z == 0) {
        state->ctr.w++;
    }
    return c;
}

/* Box-Muller with the C library's functions, sine first. */
static inline float2 simt_box_muller(unsigned a, unsigned b)
{
    const float unit = 2.3283064e-10f, turn = 2.3283064e-10f * 6.2831855f;
    const float u = (float)a * unit + unit / 2, v = (float)b * turn + turn / 2;
    const float s = sqrtf(-2.0f * logf(u));
    return make_float2(sinf(v) * s, cosf(v) * s);
}

static inline float4 curand_normal4(curandStatePhilox4_32_10_t *state)
{
    const uint4 w = curand4(state);
    const float2 a = simt_box_muller(w.x, w.y), b = simt_box_muller(w.z, w.w);
    return make_float4(a.x, a.y, b.x, b.y);
}

#endif

#endif
