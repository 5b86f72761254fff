/* The latent: reparameterization with noise drawn on the spot, its KL, and the way back. */
#include "kernels.h"
#include "launch.h"
#include "random.h"
#include "vae_math.h"
#include "vector.h"

/* Latents 4*quad .. of a row that starts at p; those from Z on come out as zero. `aligned`: p and
 * Z are multiples of four, so that every quad is whole. */
template <typename T>
static __device__ __forceinline__ void read_quad(float *v, const T *p, size_t quad, size_t Z,
                                                 bool aligned)
{
    if (aligned) {
        elem<T>::get4(v, p + 4 * quad);
        return;
    }
    VAE_UNROLL
    for (int i = 0; i < 4; i++) {
        v[i] = 4 * quad + i < Z ? elem<T>::get(p + 4 * quad + i) : 0.0f;
    }
}

template <typename T>
static __device__ __forceinline__ void write_quad(T *p, const float *v, size_t quad, size_t Z,
                                                  bool aligned)
{
    if (aligned) {
        elem<T>::put4(p + 4 * quad, v);
        return;
    }
    VAE_UNROLL
    for (int i = 0; i < 4; i++) {
        if (4 * quad + i < Z) {
            elem<T>::put(p + 4 * quad + i, v[i]);
        }
    }
}

/* Grid: `lanes` neighbouring lanes per row of z, a quad of latents per lane and turn. Every lane
 * stays to the end for the sums. */
template <typename T>
__global__ void __launch_bounds__(VAE_BLOCK)
    latent_forward_kernel(T *z, size_t ldz, float *kl_row, float *log_pq, const T *head, size_t ldh,
                          vae_now now, size_t B, size_t K, size_t Z, uint64_t seed, unsigned lanes)
{
    const vae_plan *plan = plan_entry(now);
    const unsigned quads = (unsigned)((Z + 3) / 4), lane = group_lane(lanes);
    const uint32_t r = group_row(lanes), b = r / (uint32_t)K, k = r - b * (uint32_t)K;
    const T *mu = head + b * ldh, *logvar = mu + Z;
    float kl = 0, pq = 0;
    for (unsigned q = lane; r < B * K && q < quads; q += lanes) {
        float m[4], l[4], eps[4], out[4];
        read_quad(m, mu, q, Z, Z % 4 == 0);
        read_quad(l, logvar, q, Z, Z % 4 == 0);
        random_eps4(eps, seed, VAE_RNG_EPS, plan->first + b, quads, q, plan->draw,
                    plan->particle0 + k);
        VAE_UNROLL
        for (int i = 0; i < 4; i++) {
            const bool real = (size_t)4 * q + i < Z;
            out[i] = real ? m[i] + vae_expf(0.5f * l[i]) * eps[i] : 0.0f;
            pq += real ? 0.5f * (eps[i] * eps[i] + l[i] - out[i] * out[i]) : 0.0f;
            kl += real && k == 0 ? vae_kl(m[i], l[i], vae_expf(l[i])) : 0.0f;
        }
        elem<T>::put4(z + r * ldz + (size_t)4 * q, out);
    }
    kl = group_sum(kl, lanes);
    pq = group_sum(pq, lanes);
    if (lane == 0 && r < B * K) {
        if (k == 0) {
            kl_row[b] = kl;
        }
        if (log_pq != NULL) {
            log_pq[r] = pq;
        }
    }
}

/* What one particle adds to dmu and dlogvar of one latent; sw = kl_scale * w. Formulas:
 * model/model.c. */
static __device__ __forceinline__ void particle_grad(float *dmu, float *dlogvar, float dz, float mu,
                                                     float logvar, float eps, float w, float sw,
                                                     vae_objective objective)
{
    const float sigma = vae_expf(0.5f * logvar);
    float g = dz, extra = 0.0f;
    if (objective != VAE_OBJ_ELBO) {
        const float z = mu + sigma * eps;
        const bool iwae = objective == VAE_OBJ_IWAE;
        g += sw * (iwae ? z : z - eps / sigma);
        g *= objective == VAE_OBJ_DREG ? w : 1.0f;
        extra = iwae ? -0.5f * sw : 0.0f;
    }
    *dmu += g;
    *dlogvar += 0.5f * g * eps * sigma + extra;
}

/* Grid: `lanes` neighbouring lanes per example, a quad of latents per lane and turn; particles one
 * after the other. */
template <typename T>
__global__ void __launch_bounds__(VAE_BLOCK)
    latent_backward_kernel(T *dhead, size_t ldd, const T *dz, size_t ldz, const T *head, size_t ldh,
                           const float *weight, const float *kl_dim, vae_now now, size_t B,
                           size_t K, size_t Z, vae_latent_grad grad, uint64_t seed, unsigned lanes)
{
    const vae_plan *plan = plan_entry(now);
    const unsigned quads = (unsigned)((Z + 3) / 4);
    const uint32_t b = group_row(lanes);
    const bool aligned = Z % 4 == 0;
    for (unsigned q = group_lane(lanes); b < B && q < quads; q += lanes) {
        float m[4], l[4], dmu[4] = {0, 0, 0, 0}, dlogvar[4] = {0, 0, 0, 0};
        read_quad(m, head + b * ldh, q, Z, aligned);
        read_quad(l, head + b * ldh + Z, q, Z, aligned);
        for (uint32_t k = 0; k < K; k++) {
            const size_t r = b * K + k;
            const float w = weight != NULL ? weight[r] : 1.0f;
            float eps[4], d[4];
            elem<T>::get4(d, dz + r * ldz + (size_t)4 * q);
            random_eps4(eps, seed, VAE_RNG_EPS, plan->first + b, quads, q, plan->draw,
                        plan->particle0 + k);
            VAE_UNROLL
            for (int i = 0; i < 4; i++) {
                particle_grad(&dmu[i], &dlogvar[i], d[i], m[i], l[i], eps[i], w, grad.kl_scale * w,
                              grad.objective);
            }
        }
        const float share = weight != NULL ? weight[b] : 1.0f; /* elbo: K = 1 */
        VAE_UNROLL
        for (int i = 0; grad.objective == VAE_OBJ_ELBO && i < 4; i++) {
            const size_t j = (size_t)4 * q + i;
            const bool free = kl_dim != NULL && j < Z && kl_dim[j] <= grad.free_bits;
            const float s = free ? 0.0f : grad.kl_scale * share * plan->beta;
            dmu[i] += s * m[i];
            dlogvar[i] += s * vae_dkl_dlogvar(vae_expf(l[i]));
        }
        write_quad(dhead + b * ldd, dmu, q, Z, aligned);
        write_quad(dhead + b * ldd + Z, dlogvar, q, Z, aligned);
    }
}

/* Lanes for one row of Z latents. */
static unsigned latent_lanes(size_t Z)
{
    unsigned lanes = 1;
    while (lanes < 32 && lanes < (Z + 3) / 4) {
        lanes *= 2;
    }
    return lanes;
}

template <typename T>
static cudaError_t latent_forward(vae_mat z, float *kl_row, float *log_pq, vae_mat head,
                                  vae_now now, size_t B, size_t K, size_t Z, uint64_t seed,
                                  cudaStream_t stream)
{
    const unsigned lanes = latent_lanes(Z);
    VAE_LAUNCH((latent_forward_kernel<T>), vae_blocks(B * K * lanes, (size_t)-1), VAE_BLOCK, 0,
               stream, static_cast<T *>(z.data), z.ld, kl_row, log_pq,
               static_cast<const T *>(head.data), head.ld, now, B, K, Z, seed, lanes);
    return cudaGetLastError();
}

template <typename T>
static cudaError_t latent_backward(vae_mat dhead, vae_mat dz, vae_mat head, const float *weight,
                                   const float *kl_dim, vae_now now, size_t B, size_t K, size_t Z,
                                   vae_latent_grad grad, uint64_t seed, cudaStream_t stream)
{
    const unsigned lanes = latent_lanes(Z);
    VAE_LAUNCH((latent_backward_kernel<T>), vae_blocks(B * lanes, (size_t)-1), VAE_BLOCK, 0, stream,
               static_cast<T *>(dhead.data), dhead.ld, static_cast<const T *>(dz.data), dz.ld,
               static_cast<const T *>(head.data), head.ld, weight, kl_dim, now, B, K, Z, grad, seed,
               lanes);
    return cudaGetLastError();
}

extern "C" cudaError_t vae_latent_forward_launch(vae_elem type, vae_mat z, float *kl_row,
                                                 float *log_pq, vae_mat head, vae_now now, size_t B,
                                                 size_t K, size_t Z, vae_noise noise,
                                                 cudaStream_t stream)
{
    return type == VAE_ELEM_F32
               ? latent_forward<float>(z, kl_row, log_pq, head, now, B, K, Z, noise.seed, stream)
               : latent_forward<vae_bf16>(z, kl_row, log_pq, head, now, B, K, Z, noise.seed,
                                          stream);
}

extern "C" cudaError_t vae_latent_backward_launch(vae_elem type, vae_mat dhead, vae_mat dz,
                                                  vae_mat head, const float *weight,
                                                  const float *kl_dim, vae_now now, size_t B,
                                                  size_t K, size_t Z, vae_latent_grad grad,
                                                  vae_noise noise, cudaStream_t stream)
{
    return type == VAE_ELEM_F32 ? latent_backward<float>(dhead, dz, head, weight, kl_dim, now, B, K,
                                                         Z, grad, noise.seed, stream)
                                : latent_backward<vae_bf16>(dhead, dz, head, weight, kl_dim, now, B,
                                                            K, Z, grad, noise.seed, stream);
}
