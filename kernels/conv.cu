/* Convolutions beside their matrix products: patches of the big side, and what is made of products:
 * the small side's values, or the big one's, each a sum over the places of the kernel that reach
 * it. */
#include "kernels.h"
#include "launch.h"
#include "vae_math.h"
#include "vector.h"

/* vae_conv in 32 bits, without padding; in this order no two fields look like a host pointer, for
 * which the emulation searches structs. */
typedef struct {
    uint32_t H, W, C, h, c, w, kernel, stride, pad, parts;
} dims;

static dims dims_of(vae_conv g)
{
    const dims d = {(uint32_t)g.H,   (uint32_t)g.W,    (uint32_t)g.C,      (uint32_t)g.h,
                    (uint32_t)g.c,   (uint32_t)g.w,    (uint32_t)g.kernel, (uint32_t)g.stride,
                    (uint32_t)g.pad, (uint32_t)g.parts};
    return d;
}

/* Place in a row of the big side that column `col` of the patch at pixel (i,j) shows; false where
 * that is outside. */
static __device__ __forceinline__ bool place_of(const dims &g, uint32_t i, uint32_t j, uint32_t col,
                                                size_t *at)
{
    const uint32_t channel = col % g.C, tap = col / g.C, kx = tap % g.kernel;
    const uint32_t ky = tap / g.kernel % g.kernel, part = tap / g.kernel / g.kernel;
    const uint32_t y = i * g.stride + ky - g.pad, x = j * g.stride + kx - g.pad; /* may wrap */
    *at = ((size_t)(part * g.H + y) * g.W + x) * g.C + channel;
    return y < g.H && x < g.W && part < g.parts;
}

/* A thread per 16 bytes of p. VECTOR: they are channels of one pixel. */
template <typename T, bool VECTOR>
__global__ void __launch_bounds__(VAE_BLOCK)
    patches_kernel(T *p, uint32_t ldp, const T *__restrict__ big, size_t ld, dims g, uint32_t n)
{
    constexpr uint32_t N = elem<T>::N;
    const uint32_t per_row = ldp / N;
    for (uint32_t v = blockIdx.x * VAE_BLOCK + threadIdx.x; v < n; v += gridDim.x * VAE_BLOCK) {
        const uint32_t row = v / per_row, col = v % per_row * N;
        const uint32_t j = row % g.w, i = row / g.w % g.h;
        const T *from = big + (size_t)(row / g.w / g.h) * ld;
        size_t at;
        vae_word4 word = {{0, 0, 0, 0}};
        if (VECTOR) {
            if (place_of(g, i, j, col, &at)) {
                word = load16(from + at);
            }
        } else {
            float value[N];
            VAE_UNROLL
            for (uint32_t e = 0; e < N; e++) {
                value[e] = place_of(g, i, j, col + e, &at) ? elem<T>::get(from + at) : 0.0f;
            }
            word = elem<T>::pack(value);
        }
        store16(p + (size_t)row * ldp + col, word);
    }
}

/* act(v + bias) with the pre-activation kept, or v times act' of what `from` holds. */
template <typename T>
static __device__ __forceinline__ float finished(float v, const vae_conv_finish &f, float bias,
                                                 size_t at)
{
    if (f.from != NULL) {
        return v * vae_act_grad((vae_activation)f.act,
                                elem<T>::get(static_cast<const T *>(f.from) + at));
    }
    v += bias;
    if (f.pre != NULL) {
        elem<T>::put(static_cast<T *>(f.pre) + at, v);
    }
    return vae_act((vae_activation)f.act, v);
}

/* A thread per value. */
template <typename T>
__global__ void __launch_bounds__(VAE_BLOCK)
    small_kernel(T *small, size_t ld, const T *__restrict__ t, size_t ldt, vae_conv_finish f,
                 dims g, uint32_t n)
{
    const uint32_t row = g.h * g.w * g.c;
    for (uint32_t v = blockIdx.x * VAE_BLOCK + threadIdx.x; v < n; v += gridDim.x * VAE_BLOCK) {
        const uint32_t b = v / row, value = v % row, channel = value % g.c;
        const size_t at = (size_t)b * ld + value;
        const float sum = elem<T>::get(t + (size_t)(v / g.c) * ldt + channel);
        elem<T>::put(small + at, finished<T>(sum, f, f.b != NULL ? f.b[channel] : 0.0f, at));
    }
}

/* A thread per N values of one pixel. */
template <typename T, uint32_t N>
__global__ void __launch_bounds__(VAE_BLOCK)
    big_kernel(T *big, size_t ld, const float *__restrict__ t, size_t ldt, vae_conv_finish f,
               dims g, uint32_t n)
{
    const uint32_t row = g.parts * g.H * g.W * g.C / N;
    for (uint32_t v = blockIdx.x * VAE_BLOCK + threadIdx.x; v < n; v += gridDim.x * VAE_BLOCK) {
        const uint32_t b = v / row, value = v % row * N, channel = value % g.C;
        const uint32_t pixel = value / g.C, x = pixel % g.W, y = pixel / g.W % g.H;
        const uint32_t part = pixel / g.W / g.H;
        float sum[N];
        VAE_UNROLL
        for (uint32_t e = 0; e < N; e++) {
            sum[e] = 0.0f;
        }
        for (uint32_t ky = (y + g.pad) % g.stride; ky < g.kernel && ky <= y + g.pad;
             ky += g.stride) {
            const uint32_t i = (y + g.pad - ky) / g.stride;
            for (uint32_t kx = (x + g.pad) % g.stride; kx < g.kernel && kx <= x + g.pad;
                 kx += g.stride) {
                const uint32_t j = (x + g.pad - kx) / g.stride;
                if (i >= g.h || j >= g.w) {
                    continue;
                }
                const uint32_t col = ((part * g.kernel + ky) * g.kernel + kx) * g.C + channel;
                const float *from = t + ((size_t)(b * g.h + i) * g.w + j) * ldt + col;
                float w[elem<T>::N];
                if (N == 1) {
                    w[0] = *from;
                }
                VAE_UNROLL
                for (uint32_t e = 0; N > 1 && e < N; e += 4) {
                    elem<float>::get4(w + e, from + e);
                }
                VAE_UNROLL
                for (uint32_t e = 0; e < N; e++) {
                    sum[e] += w[e];
                }
            }
        }
        const size_t at = (size_t)b * ld + value;
        VAE_UNROLL
        for (uint32_t e = 0; e < N; e++) {
            const float bias = f.b != NULL ? f.b[part * g.C + channel + e] : 0.0f;
            sum[e] = finished<T>(sum[e], f, bias, at + e);
        }
        if (N == 1) {
            elem<T>::put(big + at, sum[0]);
        } else {
            store16(big + at, elem<T>::pack(sum));
        }
    }
}

/* Pairs of pixels of a launch: counted in 32 bits, and a large batch of large pictures has more.
 * Emulated few, so that small ones take several launches, too. */
#ifdef __CUDACC__
enum : uint32_t { MIRROR_PAIRS = 1u << 31 };
#else
enum : uint32_t { MIRROR_PAIRS = 64 };
#endif

/* x: from row `row0` of the batch on. */
template <typename T>
__global__ void __launch_bounds__(VAE_BLOCK)
    mirror_kernel(T *x, size_t ld, vae_now now, uint64_t row0, uint32_t n, uint32_t h, uint32_t w,
                  uint32_t c, uint64_t seed)
{
    const vae_plan *entry = plan_entry(now);
    const uint64_t draw = load_early(&entry->draw);
    vae_plan plan = {};
    plan.first = load_early(&entry->first);
    plan.extra_n = load_early(&entry->extra_n);
    plan.extra_at = load_early(&entry->extra_at);
    plan.extra_skip = load_early(&entry->extra_skip);
    for (uint32_t v = blockIdx.x * VAE_BLOCK + threadIdx.x; v < n; v += gridDim.x * VAE_BLOCK) {
        const uint32_t j = v % (w / 2), y = v / (w / 2) % h, r = v / (w / 2) / h;
        if (!vae_mirrored(seed, vae_plan_position(&plan, row0 + r), draw)) {
            continue;
        }
        T *left = x + r * ld + ((size_t)y * w + j) * c;
        T *right = x + r * ld + ((size_t)y * w + w - 1 - j) * c;
        for (uint32_t i = 0; i < c; i++) {
            const T kept = left[i];
            left[i] = right[i];
            right[i] = kept;
        }
    }
}

__global__ void __launch_bounds__(VAE_BLOCK)
    add_kernel(float *to, const float *__restrict__ from, uint32_t n, int first)
{
    for (uint32_t i = blockIdx.x * VAE_BLOCK + threadIdx.x; i < n; i += gridDim.x * VAE_BLOCK) {
        to[i] = first ? from[i] : to[i] + from[i];
    }
}

template <typename T>
static cudaError_t patches_of(vae_mat p, vae_mat big, vae_conv g, size_t rows, cudaStream_t stream)
{
    const size_t n = rows * g.h * g.w * p.ld / elem<T>::N;
    if (g.C % elem<T>::N == 0) {
        VAE_LAUNCH((patches_kernel<T, true>), vae_blocks(n, 1u << 16), VAE_BLOCK, 0, stream,
                   static_cast<T *>(p.data), (uint32_t)p.ld, static_cast<const T *>(big.data),
                   big.ld, dims_of(g), (uint32_t)n);
    } else {
        VAE_LAUNCH((patches_kernel<T, false>), vae_blocks(n, 1u << 16), VAE_BLOCK, 0, stream,
                   static_cast<T *>(p.data), (uint32_t)p.ld, static_cast<const T *>(big.data),
                   big.ld, dims_of(g), (uint32_t)n);
    }
    return cudaGetLastError();
}

template <typename T>
static cudaError_t small_of(vae_mat small, vae_mat t, vae_conv_finish f, vae_conv g, size_t rows,
                            cudaStream_t stream)
{
    const size_t n = rows * vae_conv_small(g);
    VAE_LAUNCH((small_kernel<T>), vae_blocks(n, 1u << 16), VAE_BLOCK, 0, stream,
               static_cast<T *>(small.data), small.ld, static_cast<const T *>(t.data), t.ld, f,
               dims_of(g), (uint32_t)n);
    return cudaGetLastError();
}

template <typename T>
static cudaError_t big_of(vae_mat big, vae_mat t, vae_conv_finish f, vae_conv g, size_t rows,
                          cudaStream_t stream)
{
    const size_t n = rows * vae_conv_big(g);
    if (g.C % elem<T>::N == 0) {
        VAE_LAUNCH((big_kernel<T, elem<T>::N>), vae_blocks(n / elem<T>::N, 1u << 16), VAE_BLOCK, 0,
                   stream, static_cast<T *>(big.data), big.ld, static_cast<const float *>(t.data),
                   t.ld, f, dims_of(g), (uint32_t)(n / elem<T>::N));
    } else {
        VAE_LAUNCH((big_kernel<T, 1>), vae_blocks(n, 1u << 16), VAE_BLOCK, 0, stream,
                   static_cast<T *>(big.data), big.ld, static_cast<const float *>(t.data), t.ld, f,
                   dims_of(g), (uint32_t)n);
    }
    return cudaGetLastError();
}

extern "C" cudaError_t vae_conv_patches_launch(vae_elem type, vae_mat p, vae_mat big, vae_conv g,
                                               size_t rows, cudaStream_t stream)
{
    return type == VAE_ELEM_F32 ? patches_of<float>(p, big, g, rows, stream)
                                : patches_of<vae_bf16>(p, big, g, rows, stream);
}

extern "C" cudaError_t vae_conv_small_launch(vae_elem type, vae_mat small, vae_mat t,
                                             vae_conv_finish f, vae_conv g, size_t rows,
                                             cudaStream_t stream)
{
    return type == VAE_ELEM_F32 ? small_of<float>(small, t, f, g, rows, stream)
                                : small_of<vae_bf16>(small, t, f, g, rows, stream);
}

extern "C" cudaError_t vae_conv_big_launch(vae_elem type, vae_mat big, vae_mat t, vae_conv_finish f,
                                           vae_conv g, size_t rows, cudaStream_t stream)
{
    return type == VAE_ELEM_F32 ? big_of<float>(big, t, f, g, rows, stream)
                                : big_of<vae_bf16>(big, t, f, g, rows, stream);
}

template <typename T>
static cudaError_t mirror_of(vae_mat x, vae_now now, size_t B, size_t h, size_t w, size_t c,
                             uint64_t seed, cudaStream_t stream)
{
    const size_t pairs = h * (w / 2);
    const size_t most = pairs > 0 && pairs < MIRROR_PAIRS ? MIRROR_PAIRS / pairs : 1;
    for (size_t row = 0, rows; pairs > 0 && row < B; row += rows) {
        rows = B - row < most ? B - row : most;
        VAE_LAUNCH((mirror_kernel<T>), vae_blocks(rows * pairs, 1u << 16), VAE_BLOCK, 0, stream,
                   static_cast<T *>(x.data) + row * x.ld, x.ld, now, (uint64_t)row,
                   (uint32_t)(rows * pairs), (uint32_t)h, (uint32_t)w, (uint32_t)c, seed);
    }
    return cudaGetLastError();
}

extern "C" cudaError_t vae_mirror_launch(vae_elem type, vae_mat x, vae_now now, size_t B, size_t h,
                                         size_t w, size_t c, uint64_t seed, cudaStream_t stream)
{
    return type == VAE_ELEM_F32 ? mirror_of<float>(x, now, B, h, w, c, seed, stream)
                                : mirror_of<vae_bf16>(x, now, B, h, w, c, seed, stream);
}

extern "C" cudaError_t vae_add_launch(float *to, const float *from, size_t n, int first,
                                      cudaStream_t stream)
{
    VAE_LAUNCH(add_kernel, vae_blocks(n, 1u << 12), VAE_BLOCK, 0, stream, to, from, (uint32_t)n,
               first);
    return cudaGetLastError();
}
