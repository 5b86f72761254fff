/* Adam over the flat buffer. */
#include "kernels.h"
#include "launch.h"
#include "vae_math.h"
#include "vector.h"

/* Grid: a thread per four (shadow: eight) floats, striding over the rest. Four reads are under way
 * before the first use. bad_step is looked at after they were sent off, not before. */
template <int QUADS>
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
    constexpr int N = 4 * QUADS;
    for (size_t i = N * grid_thread(); i < n; i += N * grid_threads()) {
        float ps[N], gs[N], ms[N], vs[N];
        VAE_UNROLL
        for (int q = 0; q < N; q += 4) {
            elem<float>::get4(ps + q, p + i + q);
            elem<float>::get4(gs + q, g + i + q);
            elem<float>::get4(ms + q, m + i + q);
            elem<float>::get4(vs + q, v + i + q);
        }
        if (bad) {
            return;
        }
        VAE_UNROLL
        for (int e = 0; e < N; e++) {
            ps[e] = vae_adam_element(ps[e], gs[e] * g_scale, &ms[e], &vs[e], &adam, lr, step_size,
                                     rsqrt_c2);
        }
        VAE_UNROLL
        for (int q = 0; q < N; q += 4) {
            elem<float>::put4(p + i + q, ps + q);
            elem<float>::put4(m + i + q, ms + q);
            elem<float>::put4(v + i + q, vs + q);
        }
        if (QUADS == 2) {
            store16(shadow + i, elem<vae_bf16>::pack(ps));
        }
    }
}

extern "C" cudaError_t vae_adam_launch(float *params, const float *g, float *m, float *v,
                                       void *shadow, size_t n, const vae_totals *totals,
                                       vae_adam adam, float clip_norm, vae_now now,
                                       cudaStream_t stream)
{
    if (shadow != NULL) {
        VAE_LAUNCH((adam_kernel<2>), vae_blocks(n / 8, 4096), VAE_BLOCK, 0, stream, params, g, m, v,
                   static_cast<vae_bf16 *>(shadow), n, totals, adam, clip_norm, now);
    } else {
        VAE_LAUNCH((adam_kernel<1>), vae_blocks(n / 4, 4096), VAE_BLOCK, 0, stream, params, g, m, v,
                   static_cast<vae_bf16 *>(NULL), n, totals, adam, clip_norm, now);
    }
    return cudaGetLastError();
}
