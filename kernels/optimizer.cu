/* Adam over the flat buffer. */
#include "kernels.h"
#include "launch.h"
#include "vae_math.h"
#include "vector.h"

/* Grid: a thread per four floats, striding over the rest: neighbours read neighbouring 16 bytes.
 * All four reads are under way before the first use. bad_step is looked at after they were sent
 * off, not before. */
template <bool SHADOW>
__global__ void __launch_bounds__(VAE_BLOCK)
    adam_kernel(float *__restrict__ p, const float *__restrict__ g, float *__restrict__ m,
                float *__restrict__ v, vae_bf16 *__restrict__ shadow, size_t n,
                const vae_totals *__restrict__ totals, vae_adam adam, float clip_norm, vae_now now)
{
    const vae_plan *plan = plan_entry(now);
    const float lr = plan->lr, step_size = plan->step_size, rsqrt_c2 = plan->rsqrt_c2;
    const bool bad = totals->bad_step != 0;
    const double norm = totals->grad_norm;
    const float g_scale =
        clip_norm > 0 && norm > (double)clip_norm ? (float)((double)clip_norm / norm) : 1.0f;
    for (size_t i = 4 * grid_thread(); i < n; i += 4 * grid_threads()) {
        float ps[4], gs[4], ms[4], vs[4];
        elem<float>::get4(ps, p + i);
        elem<float>::get4(gs, g + i);
        elem<float>::get4(ms, m + i);
        elem<float>::get4(vs, v + i);
        if (bad) {
            return;
        }
        VAE_UNROLL
        for (int e = 0; e < 4; e++) {
            ps[e] = vae_adam_element(ps[e], gs[e] * g_scale, &ms[e], &vs[e], &adam, lr, step_size,
                                     rsqrt_c2);
        }
        elem<float>::put4(p + i, ps);
        elem<float>::put4(m + i, ms);
        elem<float>::put4(v + i, vs);
        if (SHADOW) {
            elem<vae_bf16>::put4(shadow + i, ps);
        }
    }
}

extern "C" cudaError_t vae_adam_launch(float *params, const float *g, float *m, float *v,
                                       void *shadow, size_t n, const vae_totals *totals,
                                       vae_adam adam, float clip_norm, vae_now now,
                                       cudaStream_t stream)
{
    const unsigned grid = vae_blocks(n / 4, 4096);
    if (shadow != NULL) {
        VAE_LAUNCH((adam_kernel<true>), grid, VAE_BLOCK, 0, stream, params, g, m, v,
                   static_cast<vae_bf16 *>(shadow), n, totals, adam, clip_norm, now);
    } else {
        VAE_LAUNCH((adam_kernel<false>), grid, VAE_BLOCK, 0, stream, params, g, m, v,
                   static_cast<vae_bf16 *>(NULL), n, totals, adam, clip_norm, now);
    }
    return cudaGetLastError();
}
