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

/* Sum over the `lanes` neighbouring lanes of a row, any number of them, in the first: by halves.
 * All 32 lanes of the warp must call. */
static __device__ __forceinline__ float row_sum(float v, unsigned lane, unsigned lanes)
{
    for (unsigned o = 16; o > 0; o /= 2) {
        const float other = __shfl_down_sync(0xFFFFFFFFu, v, o);
        v += lane + o < lanes ? other : 0.0f;
    }
    return v;
}

/* vae_plan_eps, its fields read early; no array of two, which would lie in local memory. */
struct eps_positions {
    uint64_t first, before, from, at;
    __device__ __forceinline__ uint64_t of(uint32_t b) const
    {
        return first + b + (b >= at ? from : before);
    }
};
static __device__ __forceinline__ eps_positions load_positions(const vae_plan *plan)
{
    return {load_early(&plan->first), load_early(&plan->eps_skip[0]),
            load_early(&plan->eps_skip[1]), load_early(&plan->eps_at)};
}

/* Grid: a warp per 32/lanes rows of z, `lanes` neighbouring lanes per row, a quad of latents per
 * lane and turn: with 20 latents five lanes a row and six rows a warp. Every lane stays to the end
 * for the sums. */
template <typename T>
__global__ void __launch_bounds__(VAE_SMALL_BLOCK)
    latent_forward_kernel(T *z, size_t ldz, float *kl_row, float *log_pq, const T *head, size_t ldh,
                          vae_now now, size_t B, size_t K, size_t Z, uint64_t seed, unsigned lanes)
{
    const vae_plan *plan = plan_entry(now);
    const uint64_t draw = load_early(&plan->draw);
    const eps_positions at = load_positions(plan);
    const uint32_t particle0 = load_early(&plan->particle0);
    const unsigned quads = (unsigned)((Z + 3) / 4), rows = 32 / lanes;
    const unsigned in_warp = threadIdx.x % 32 / lanes, lane = threadIdx.x % 32 - in_warp * lanes;
    const uint32_t r = (uint32_t)(grid_thread() / 32) * rows + in_warp;
    const bool real_row = in_warp < rows && r < B * K;
    const uint32_t b = r / (uint32_t)K, k = r - b * (uint32_t)K;
    const T *mu = head + b * ldh, *logvar = mu + Z;
    float kl = 0, pq = 0;
    for (unsigned q = lane; real_row && q < quads; q += lanes) {
        float m[4], l[4], eps[4], out[4];
        read_quad(m, mu, q, Z, Z % 4 == 0);
        read_quad(l, logvar, q, Z, Z % 4 == 0);
        random_eps4(eps, seed, VAE_RNG_EPS, at.of(b), quads, q, draw, particle0 + k);
        VAE_UNROLL
        for (int i = 0; i < 4; i++) {
            const bool real = (size_t)4 * q + i < Z;
            const float v = m[i] + vae_expf(0.5f * l[i]) * eps[i];
            pq += real ? 0.5f * (eps[i] * eps[i] + l[i] - v * v) : 0.0f;
            out[i] = real ? v : 0.0f;
        }
        /* latents that are not there are read as zero, and their KL is */
        VAE_UNROLL
        for (int i = 0; k == 0 && i < 4; i++) {
            kl += vae_kl(m[i], l[i], vae_expf(l[i]));
        }
        elem<T>::put4(z + r * ldz + (size_t)4 * q, out);
    }
    kl = row_sum(kl, lane, lanes);
    if (log_pq != NULL) {
        pq = row_sum(pq, lane, lanes);
    }
    if (lane == 0 && real_row) {
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

/* What the KL adds to dmu and dlogvar of a quad, times `scale`; latents whose kl_dim is at most
 * free_bits are left out. */
static __device__ __forceinline__ void kl_grad(float *dmu, float *dlogvar, const float *mu,
                                               const float *logvar, float scale,
                                               const float *kl_dim, size_t quad, size_t Z,
                                               float free_bits)
{
    VAE_UNROLL
    for (int i = 0; i < 4; i++) {
        const size_t j = 4 * quad + i;
        const bool free = kl_dim != NULL && j < Z && kl_dim[j] <= free_bits;
        const float s = free ? 0.0f : scale;
        dmu[i] += s * mu[i];
        dlogvar[i] += s * vae_dkl_dlogvar(vae_expf(logvar[i]));
    }
}

/* How latent_backward shares out a block: `lanes` neighbouring threads for the quads of an example,
 * times `parts` that share its particles, for `examples` examples; what is left over idles. */
struct backward_split {
    unsigned lanes, parts, examples;
};

/* Sums of v over the parts of a quad, in its part 0: by halves, in an order that depends on their
 * number only. All threads must call; `part` is out of range where a thread has no work. */
static __device__ __forceinline__ void sum_parts(float v[8], float (*sums)[VAE_BLOCK],
                                                 backward_split split, unsigned part)
{
    const unsigned me = threadIdx.x;
    VAE_UNROLL
    for (int i = 0; i < 8; i++) {
        sums[i][me] = v[i];
    }
    for (unsigned n = split.parts; n > 1; n = (n + 1) / 2) {
        const unsigned half = (n + 1) / 2;
        __syncthreads();
        if (part + half < n) {
            VAE_UNROLL
            for (int i = 0; i < 8; i++) {
                sums[i][me] += sums[i][me + half * split.lanes];
            }
        }
    }
    VAE_UNROLL
    for (int i = 0; i < 8; i++) {
        v[i] = sums[i][me];
    }
    __syncthreads();
}

/* Grid: a block per split.examples examples; a quad of latents and every parts-th particle per
 * thread and turn. */
template <typename T>
__global__ void __launch_bounds__(VAE_BLOCK)
    latent_backward_kernel(T *dhead, size_t ldd, const T *dz, size_t ldz, const T *head, size_t ldh,
                           const float *weight, const float *kl_dim, vae_now now, size_t B,
                           size_t K, size_t Z, vae_latent_grad grad, uint64_t seed,
                           backward_split split)
{
    __shared__ float sums[8][VAE_BLOCK];
    const vae_plan *plan = plan_entry(now);
    const uint64_t draw = load_early(&plan->draw);
    const eps_positions at = load_positions(plan);
    const uint32_t particle0 = load_early(&plan->particle0);
    const unsigned quads = (unsigned)((Z + 3) / 4), group = threadIdx.x / split.lanes;
    const unsigned example = group / split.parts;
    const uint32_t b = blockIdx.x * split.examples + example;
    const bool works = example < split.examples && b < B, aligned = Z % 4 == 0;
    const unsigned part = works ? group - example * split.parts : split.parts;
    for (unsigned q0 = 0; q0 < quads; q0 += split.lanes) {
        const unsigned q = q0 + threadIdx.x - group * split.lanes;
        float m[4], l[4], sum[8] = {0, 0, 0, 0, 0, 0, 0, 0};
        float *dmu = sum, *dlogvar = sum + 4;
        if (works && q < quads) {
            read_quad(m, head + b * ldh, q, Z, aligned);
            read_quad(l, head + b * ldh + Z, q, Z, aligned);
            if (part == 0 && grad.objective == VAE_OBJ_ELBO) {
                /* ahead of the particles, so that its loads don't wait for them; elbo: K = 1 */
                const float share = weight != NULL ? weight[b] : 1.0f;
                kl_grad(dmu, dlogvar, m, l, grad.kl_scale * share * plan->beta, kl_dim, q, Z,
                        grad.free_bits);
            }
            for (uint32_t k = part; k < K; k += split.parts) {
                const size_t r = b * K + k;
                const float w = weight != NULL ? weight[r] : 1.0f;
                float eps[4], d[4];
                elem<T>::get4(d, dz + r * ldz + (size_t)4 * q);
                random_eps4(eps, seed, VAE_RNG_EPS, at.of(b), quads, q, draw, particle0 + k);
                VAE_UNROLL
                for (int i = 0; i < 4; i++) {
                    particle_grad(&dmu[i], &dlogvar[i], d[i], m[i], l[i], eps[i], w,
                                  grad.kl_scale * w, grad.objective);
                }
            }
        }
        if (split.parts > 1) {
            sum_parts(sum, sums, split, part);
        }
        if (part != 0 || q >= quads) {
            continue;
        }
        write_quad(dhead + b * ldd, dmu, q, Z, aligned);
        write_quad(dhead + b * ldd + Z, dlogvar, q, Z, aligned);
    }
}

/* Particles are shared out until a large device is full or a block is; then as evenly as goes. */
static backward_split split_backward(size_t B, size_t K, size_t Z)
{
    const size_t full = (size_t)1 << 18, quads = (Z + 3) / 4;
    const size_t lanes = quads < VAE_BLOCK ? quads : VAE_BLOCK;
    size_t parts = (full + B * lanes - 1) / (B * lanes);
    parts = parts < VAE_BLOCK / lanes ? parts : VAE_BLOCK / lanes;
    parts = parts < K ? parts : K;
    const size_t turns = (K + parts - 1) / parts;
    parts = (K + turns - 1) / turns;
    return {(unsigned)lanes, (unsigned)parts, (unsigned)(VAE_BLOCK / (lanes * parts))};
}

template <typename T>
static cudaError_t latent_forward(vae_mat z, float *kl_row, float *log_pq, vae_mat head,
                                  vae_now now, size_t B, size_t K, size_t Z, uint64_t seed,
                                  cudaStream_t stream)
{
    const size_t quads = (Z + 3) / 4, lanes = quads < 32 ? quads : 32, rows = 32 / lanes;
    const size_t warps = (B * K + rows - 1) / rows, per_block = VAE_SMALL_BLOCK / 32;
    VAE_LAUNCH((latent_forward_kernel<T>), (unsigned)((warps + per_block - 1) / per_block),
               VAE_SMALL_BLOCK, 0, stream, static_cast<T *>(z.data), z.ld, kl_row, log_pq,
               static_cast<const T *>(head.data), head.ld, now, B, K, Z, seed, (unsigned)lanes);
    return cudaGetLastError();
}

template <typename T>
static cudaError_t latent_backward(vae_mat dhead, vae_mat dz, vae_mat head, const float *weight,
                                   const float *kl_dim, vae_now now, size_t B, size_t K, size_t Z,
                                   vae_latent_grad grad, uint64_t seed, cudaStream_t stream)
{
    const backward_split split = split_backward(B, K, Z);
    VAE_LAUNCH((latent_backward_kernel<T>), (unsigned)((B + split.examples - 1) / split.examples),
               VAE_BLOCK, 0, stream, static_cast<T *>(dhead.data), dhead.ld,
               static_cast<const T *>(dz.data), dz.ld, static_cast<const T *>(head.data), head.ld,
               weight, kl_dim, now, B, K, Z, grad, seed, split);
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
