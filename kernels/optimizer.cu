/* Adam over the flat buffer. */
#include "kernels.h"
#include "launch.h"
#include "vae_math.h"
#include "vector.h"

/* The squared norm, from its n partial sums, in every thread: the sum that grad_norm's last block
 * makes. Its results for totals are written here, bad_step by the block that comes last, when all
 * have looked at it. */
static __device__ __forceinline__ double squared_norm(vae_totals *totals,
                                                      const double *__restrict__ partial,
                                                      unsigned n, uint32_t *ticket, uint64_t step)
{
    __shared__ double part[VAE_BLOCK];
    double sum = threadIdx.x < n ? partial[threadIdx.x] : 0.0;
    block_sums(&sum, 1, part);
    __syncthreads();
    sum = part[0];
    if (blockIdx.x == 0 && threadIdx.x == 0) {
        totals->grad_norm = sqrt(sum);
    }
    if (!isfinite(sum) && last_block(ticket) && threadIdx.x == 0 && totals->bad_step == 0) {
        totals->bad_step = step;
    }
    return sum;
}

/* Four floats of each, as adam_kernel reads and writes them. */
struct adam_quad {
    float p[4], g[4], m[4], v[4];
};

/* Grid: a thread per four floats, striding over the rest; neighbours read neighbouring 16 bytes.
 * All four reads are under way before anything else is waited for: the norm, bad_step. */
template <bool SHADOW, bool NORM>
__global__ void __launch_bounds__(VAE_BLOCK)
    adam_kernel(float *__restrict__ p, const float *__restrict__ g, float *__restrict__ m,
                float *__restrict__ v, vae_bf16 *__restrict__ shadow, size_t n, vae_totals *totals,
                const double *__restrict__ partial, unsigned n_partial, uint32_t *ticket,
                vae_adam adam, float clip_norm, vae_now now)
{
    adam_quad q;
    size_t i = 4 * grid_thread();
    const bool any = i < n;
    if (any) {
        elem<float>::get4(q.p, p + i);
        elem<float>::get4(q.g, g + i);
        elem<float>::get4(q.m, m + i);
        elem<float>::get4(q.v, v + i);
    }
    const vae_plan *plan = plan_entry(now);
    const float lr = plan->lr, step_size = plan->step_size, rsqrt_c2 = plan->rsqrt_c2;
    bool bad = totals->bad_step != 0;
    float g_scale = 1.0f;
    if (NORM) {
        const double squared = squared_norm(totals, partial, n_partial, ticket, plan->step);
        bad = bad || !isfinite(squared);
        if (clip_norm > 0 && sqrt(squared) > (double)clip_norm) {
            g_scale = (float)((double)clip_norm / sqrt(squared));
        }
    } else if (clip_norm > 0 && totals->grad_norm > (double)clip_norm) {
        g_scale = (float)((double)clip_norm / totals->grad_norm);
    }
    if (bad || !any) {
        return;
    }
    for (;;) {
        VAE_UNROLL
        for (int e = 0; e < 4; e++) {
            q.p[e] = vae_adam_element(q.p[e], q.g[e] * g_scale, &q.m[e], &q.v[e], &adam, lr,
                                      step_size, rsqrt_c2);
        }
        elem<float>::put4(p + i, q.p);
        elem<float>::put4(m + i, q.m);
        elem<float>::put4(v + i, q.v);
        if (SHADOW) {
            elem<vae_bf16>::put4(shadow + i, q.p);
        }
        i += 4 * grid_threads();
        if (i >= n) {
            return;
        }
        elem<float>::get4(q.p, p + i);
        elem<float>::get4(q.g, g + i);
        elem<float>::get4(q.m, m + i);
        elem<float>::get4(q.v, v + i);
    }
}

template <bool SHADOW, bool NORM>
static void launch_adam(float *params, const float *g, float *m, float *v, void *shadow, size_t n,
                        vae_totals *totals, const void *partial, uint32_t *ticket, vae_adam adam,
                        float clip_norm, vae_now now, cudaStream_t stream)
{
    /* with the norm's end to make in every block, no more than what 132 multiprocessors hold */
    VAE_LAUNCH((adam_kernel<SHADOW, NORM>), vae_blocks(n / 4, NORM ? 640 : 4096), VAE_BLOCK, 0,
               stream, params, g, m, v, static_cast<vae_bf16 *>(shadow), n, totals,
               static_cast<const double *>(partial), vae_norm_blocks(n), ticket, adam, clip_norm,
               now);
}

extern "C" cudaError_t vae_adam_launch(float *params, const float *g, float *m, float *v,
                                       void *shadow, size_t n, vae_totals *totals,
                                       const void *partial, uint32_t *ticket, vae_adam adam,
                                       float clip_norm, vae_now now, cudaStream_t stream)
{
    const auto launch =
        shadow != NULL ? (partial != NULL ? launch_adam<true, true> : launch_adam<true, false>)
                       : (partial != NULL ? launch_adam<false, true> : launch_adam<false, false>);
    launch(params, g, m, v, shadow, n, totals, partial, ticket, adam, clip_norm, now, stream);
    return cudaGetLastError();
}
