/* Per-element math, written once: the CPU backend's loops and the CUDA kernels call the same
 * functions. The formulas below are shared; the primitives under them (exp, log ...) are
 * branch-free polynomials on the host, so that compilers vectorize them, and CUDA's own functions
 * on a device. NaN goes in, NaN comes out; nothing is clamped silently. */
#ifndef VAE_MATH_H
#define VAE_MATH_H

#include <math.h>
#include <stdint.h>
#include <string.h>

#ifdef __CUDACC__
#define VAE_HD static __host__ __device__ __forceinline__
#else
#define VAE_HD static inline __attribute__((always_inline, unused))
#endif

/* ---- primitives ---- */

VAE_HD float vae_float_of_bits(int32_t bits)
{
    float f;
    memcpy(&f, &bits, sizeof f);
    return f;
}

VAE_HD int32_t vae_bits_of_float(float f)
{
    int32_t bits;
    memcpy(&bits, &f, sizeof bits);
    return bits;
}

VAE_HD float vae_sqrtf(float x)
{
    return sqrtf(x);
}

/* e^x = p * 2^k, returns p, of x in [-105, 89] or NaN. Cephes' reduction and polynomial. */
VAE_HD float vae_exp_parts(float x, uint32_t *k)
{
    const float round = 12582912.0f; /* 1.5 * 2^23: adding it rounds to an integer */
    float shifted = x * 1.44269504f + round;
    float n = shifted - round;
    float r = x - n * 0.693359375f;
    r = r - n * -2.12194440e-4f;
    float p = 1.9875691500e-4f;
    p = p * r + 1.3981999507e-3f;
    p = p * r + 8.3334519073e-3f;
    p = p * r + 4.1665795894e-2f;
    p = p * r + 1.6666665459e-1f;
    p = p * r + 5.0000001201e-1f;
    /* The integer sits in the low bits of `shifted`; unsigned arithmetic, as NaN lands anywhere. */
    *k = (uint32_t)vae_bits_of_float(shifted) - 0x4B400000u;
    return p * (r * r) + r + 1.0f;
}

/* e^x within 2 ulp; 0 below -103.97, Inf above 88.72. */
VAE_HD float vae_expf(float x)
{
#ifdef __CUDA_ARCH__
    return expf(x);
#else
    float c = x < -105.0f ? -105.0f : x;
    c = c > 89.0f ? 89.0f : c;
    uint32_t k;
    float p = vae_exp_parts(c, &k);
    /* 2^n in two factors, so that results below 2^-126 and the overflow to Inf come out right. */
    int32_t half = (int32_t)k >> 1;
    uint32_t rest = k - (uint32_t)half;
    float s0 = vae_float_of_bits((int32_t)(((uint32_t)half + 127u) << 23));
    float s1 = vae_float_of_bits((int32_t)((rest + 127u) << 23));
    float y = p * s0 * s1;
    return x != x ? x : y;
#endif
}

/* ln x within 2 ulp for x > 0, denormals included; -Inf at 0, NaN below. Cephes' polynomial. */
VAE_HD float vae_logf(float x)
{
#ifdef __CUDA_ARCH__
    return logf(x);
#else
    int tiny = x < 1.17549435e-38f;
    float scaled = tiny ? x * 8388608.0f : x;
    uint32_t bits = (uint32_t)vae_bits_of_float(scaled);
    /* mantissa in [sqrt(1/2), sqrt(2)) */
    uint32_t shifted = bits - 0x3F3504F3u;
    int32_t e = (int32_t)shifted >> 23;
    float m = vae_float_of_bits((int32_t)(bits - ((uint32_t)e << 23)));
    float f = m - 1.0f, z = f * f;
    float p = 7.0376836292e-2f;
    p = p * f - 1.1514610310e-1f;
    p = p * f + 1.1676998740e-1f;
    p = p * f - 1.2420140846e-1f;
    p = p * f + 1.4249322787e-1f;
    p = p * f - 1.6668057665e-1f;
    p = p * f + 2.0000714765e-1f;
    p = p * f - 2.4999993993e-1f;
    p = p * f + 3.3333331174e-1f;
    float n = (float)e - (tiny ? 23.0f : 0.0f);
    float y = p * f * z + n * -2.12194440e-4f - 0.5f * z;
    y = f + y + n * 0.693359375f;
    y = x == 0.0f ? -INFINITY : y;
    y = x == INFINITY ? x : y;
    return x < 0.0f || x != x ? NAN : y;
#endif
}

/* ln(1+t) for t in [0,1], relative error below 2e-7: degree-9 Chebyshev fit of log1p(t)/t. On a
 * device too: log1pf takes some forty instructions more. */
VAE_HD float vae_log1p_unit(float t)
{
    float p = -0.003256378462538123f;
    p = p * t + 0.019907161593437195f;
    p = p * t - 0.057064201682806015f;
    p = p * t + 0.10614264756441116f;
    p = p * t - 0.15311862528324127f;
    p = p * t + 0.19678117334842682f;
    p = p * t - 0.24954558908939362f;
    p = p * t + 0.33330005407333374f;
    p = p * t - 0.4999990463256836f;
    p = p * t + 1.0f;
    return p * t;
}

/* sine and cosine of v in [0, 2pi+], absolute error below 2e-7 (Box-Muller's angles). Kernels have
 * cuRAND's. */
VAE_HD void vae_sincosf(float v, float *sine, float *cosine)
{
    int32_t q = (int32_t)(v * 0.636619772f + 0.5f);
    float n = (float)q;
    float r = v - n * 1.5703125f;
    r = r - n * 4.83751296997070312e-4f;
    r = r - n * 7.54978995489188e-8f;
    float z = r * r;
    float s = -1.9515295891e-4f;
    s = s * z + 8.3321608736e-3f;
    s = s * z - 1.6666654611e-1f;
    s = s * z * r + r;
    float c = 2.443315711809948e-5f;
    c = c * z - 1.388731625493765e-3f;
    c = c * z + 4.166664568298827e-2f;
    c = c * z * z - 0.5f * z + 1.0f;
    float a = (q & 1) ? c : s;
    float b = (q & 1) ? s : c;
    *sine = (q & 2) ? -a : a;
    *cosine = ((q + 1) & 2) ? -b : b;
}

/* e^x for x <= 0 and 1/x for x in [1,2], as the losses want them, once per value of the data: on a
 * device the fast instructions, whose error is 2 + 1.2|x| ulp and 2 ulp (CUDA C++ Programming
 * Guide, intrinsic functions): of e^-|l|, below 1e-7 of the loss it is added to. On the host
 * vae_expf's bits down to -87.6, and 0 where that is a denormal of less than 0.8 * 2^-126: at -88
 * the one factor, 2^-127, is no normal float and its bits are 0. */
VAE_HD float vae_expf_negative(float x)
{
#ifdef __CUDA_ARCH__
    return __expf(x);
#else
    uint32_t k;
    float p = vae_exp_parts(x < -88.0f ? -88.0f : x, &k);
    return p * vae_float_of_bits((int32_t)((k + 127u) << 23));
#endif
}

VAE_HD float vae_reciprocal(float x)
{
#ifdef __CUDA_ARCH__
    return __fdividef(1.0f, x);
#else
    return 1.0f / x;
#endif
}

/* tanh within 4 ulp: Cephes' odd polynomial near zero, (1-e)/(1+e) elsewhere. */
VAE_HD float vae_tanhf(float x)
{
#ifdef __CUDA_ARCH__
    return tanhf(x);
#else
    float a = fabsf(x), z = x * x;
    float p = -5.70498872745e-3f;
    p = p * z + 2.06390887954e-2f;
    p = p * z - 5.37397155531e-2f;
    p = p * z + 1.33314422036e-1f;
    p = p * z - 3.33332819422e-1f;
    float near = p * z * x + x;
    float e = vae_expf(-2.0f * a);
    float far = (1.0f - e) / (1.0f + e);
    far = x < 0.0f ? -far : far;
    return a < 0.625f ? near : far;
#endif
}

/* erf, absolute error below 1.5e-7: 1 - exp(-a*P(a)), P a degree-9 Chebyshev fit of
 * -ln(erfc(a))/a on [0,3.9]; 1 beyond, for gelu(-x) is x/2 times what is missing. */
VAE_HD float vae_erff(float x)
{
#ifdef __CUDA_ARCH__
    return erff(x);
#else
    float a = fabsf(x);
    float t = a > 3.9f ? 3.9f : a;
    float p = 5.749521392317547e-07f;
    p = p * t - 1.2244758181623183e-05f;
    p = p * t + 0.00011210591765120625f;
    p = p * t - 0.0005603369791060686f;
    p = p * t + 0.0014584065647795796f;
    p = p * t + 0.00012463342864066362f;
    p = p * t - 0.019352341070771217f;
    p = p * t + 0.10284419357776642f;
    p = p * t + 0.6366111040115356f;
    p = p * t + 1.1283793449401855f;
    float y = a > 3.9f ? 1.0f : 1.0f - vae_expf(-p * t);
    return x < 0.0f ? -y : y;
#endif
}

/* ---- activations ---- */

#define VAE_LEAKY_SLOPE 0.01f

VAE_HD float vae_softplusf(float l)
{
    return (l > 0.0f ? l : 0.0f) + vae_log1p_unit(vae_expf(-fabsf(l)));
}

VAE_HD float vae_sigmoidf(float l)
{
    float e = vae_expf(-fabsf(l));
    float s = 1.0f / (1.0f + e);
    return l < 0.0f ? e * s : s;
}

VAE_HD float vae_reluf(float x)
{
    return x < 0.0f ? 0.0f : x; /* this way round, so that NaN passes */
}

VAE_HD float vae_leaky_reluf(float x)
{
    return x < 0.0f ? VAE_LEAKY_SLOPE * x : x;
}

/* x * Phi(x) (Hendrycks & Gimpel 2016), the exact form. */
VAE_HD float vae_geluf(float x)
{
    return 0.5f * x * (1.0f + vae_erff(x * 0.70710678f));
}

/* x * sigmoid(x) (Elfwing et al. 2018), also called swish. */
VAE_HD float vae_siluf(float x)
{
    return x * vae_sigmoidf(x);
}

/* Derivatives with respect to the pre-activation; y is the activation's output, x its input. */
VAE_HD float vae_drelu_y(float y)
{
    return y > 0.0f ? 1.0f : 0.0f;
}

VAE_HD float vae_dleaky_relu_y(float y)
{
    return y < 0.0f ? VAE_LEAKY_SLOPE : 1.0f;
}

VAE_HD float vae_dtanh_y(float y)
{
    return 1.0f - y * y;
}

/* y = ln(1+e^x), so sigmoid(x) = 1 - e^-y; for small y by the series, which does not cancel. */
VAE_HD float vae_dsoftplus_y(float y)
{
    float series = y * (1.0f - y * (0.5f - y * (1.0f / 6.0f)));
    return y < 0.02f ? series : 1.0f - vae_expf(-y);
}

VAE_HD float vae_dgelu_x(float x)
{
    float density = 0.39894228f * vae_expf(-0.5f * x * x);
    return 0.5f * (1.0f + vae_erff(x * 0.70710678f)) + x * density;
}

/* s*(1 + x*(1-s)), s = sigmoid(x); 1-s is taken from e, too, as the difference would cancel. */
VAE_HD float vae_dsilu_x(float x)
{
    float e = vae_expf(-fabsf(x)), large = 1.0f / (1.0f + e), small = e * large;
    return x < 0.0f ? small * (1.0f + x * large) : large * (1.0f + x * small);
}

/* One row an activation: its name in C and as an option, its value of x, its derivative, and
 * whether that is computed from the input x, which forward then keeps (1), or from the output (0).
 * The option's choices, both backends, the report and the tests come from here. */
#define VAE_ACTIVATIONS(ROW)                                                                       \
    ROW(RELU, "relu", vae_reluf, vae_drelu_y, 0)                                                   \
    ROW(TANH, "tanh", vae_tanhf, vae_dtanh_y, 0)                                                   \
    ROW(SOFTPLUS, "softplus", vae_softplusf, vae_dsoftplus_y, 0)                                   \
    ROW(LEAKY_RELU, "leaky_relu", vae_leaky_reluf, vae_dleaky_relu_y, 0)                           \
    ROW(GELU, "gelu", vae_geluf, vae_dgelu_x, 1)                                                   \
    ROW(SILU, "silu", vae_siluf, vae_dsilu_x, 1)

#define VAE_ACT_NUMBER(ACT, ...) VAE_ACT_##ACT,
#define VAE_ACT_COUNT(...)       +1
typedef enum {
    VAE_ACT_NONE = 0,               /* linear: heads and outputs */
    VAE_ACTIVATIONS(VAE_ACT_NUMBER) /* from 1 to VAE_ACT_LAST */
} vae_activation;
enum { VAE_ACT_LAST = VAE_ACTIVATIONS(VAE_ACT_COUNT) };

/* Where act is a constant, the one function. */
#define VAE_ACT_VALUE(ACT, name, f, df, keeps)                                                     \
    case VAE_ACT_##ACT:                                                                            \
        return f(x);
#define VAE_ACT_DERIVATIVE(ACT, name, f, df, keeps)                                                \
    case VAE_ACT_##ACT:                                                                            \
        return df(from);
#define VAE_ACT_KEEPS(ACT, name, f, df, keeps)                                                     \
    case VAE_ACT_##ACT:                                                                            \
        return keeps;

VAE_HD float vae_act(vae_activation act, float x)
{
    switch (act) {
        VAE_ACTIVATIONS(VAE_ACT_VALUE)
    case VAE_ACT_NONE:
        break;
    }
    return x;
}

/* from: the input where the activation keeps it, else the output. */
VAE_HD float vae_act_grad(vae_activation act, float from)
{
    switch (act) {
        VAE_ACTIVATIONS(VAE_ACT_DERIVATIVE)
    case VAE_ACT_NONE:
        break;
    }
    return 1.0f;
}

VAE_HD int vae_act_keeps_input(vae_activation act)
{
    switch (act) {
        VAE_ACTIVATIONS(VAE_ACT_KEEPS)
    case VAE_ACT_NONE:
        break;
    }
    return 0;
}

/* ---- the VAE's own formulas (Kingma & Welling 2013) ---- */

/* Closed-form KL(N(mu, e^logvar) || N(0,1)) of one latent, nats (appendix B). sigma2 = e^logvar. */
VAE_HD float vae_kl(float mu, float logvar, float sigma2)
{
    return 0.5f * (mu * mu + (sigma2 - 1.0f - logvar));
}

/* d kl / d logvar = (e^logvar - 1)/2; d kl / d mu = mu. */
VAE_HD float vae_dkl_dlogvar(float sigma2)
{
    return 0.5f * (sigma2 - 1.0f);
}

/* -log p(x|l) of one Bernoulli value from its logit: softplus(l) - x*l, and its derivative
 * sigmoid(l) - x, from one exponential. */
VAE_HD float vae_bernoulli(float l, float x, float *dl)
{
    float e = vae_expf_negative(-fabsf(l));
    float s = vae_reciprocal(1.0f + e);
    *dl = (l < 0.0f ? e * s : s) - x;
    /* max(l,0) - x*l without the difference, which would cancel; an infinite logit, which only an
     * overflow can be, gives Inf or NaN, never a finite loss */
    float linear = l > 0.0f ? l * (1.0f - x) : -l * x;
    return linear + vae_log1p_unit(e);
}

#define VAE_LOG_2PI 1.8378770664093453f

/* -log N(x; m, e^logvar) of one value, nats, with its derivatives. inv_var = e^-logvar. */
VAE_HD float vae_gaussian(float m, float x, float logvar, float inv_var, float *dm, float *dlogvar)
{
    float diff = m - x, scaled = diff * inv_var, square = diff * scaled;
    *dm = scaled;
    *dlogvar = 0.5f * (1.0f - square);
    return 0.5f * (VAE_LOG_2PI + logvar + square);
}

/* The same of m = sigmoid(l), with the derivative by l. An infinite l, which only an overflow can
 * be, gives NaN, never a finite loss. */
VAE_HD float vae_gaussian_sigmoid(float l, float x, float logvar, float inv_var, float *dl,
                                  float *dlogvar)
{
    float e = vae_expf_negative(-fabsf(l));
    float s = vae_reciprocal(1.0f + e), dm;
    float loss = vae_gaussian(l < 0.0f ? e * s : s, x, logvar, inv_var, &dm, dlogvar);
    *dl = dm * (e * s * s);
    return loss + 0.0f * l;
}

/* A learned variance is bounded below, smoothly, or pixels that never change would drive the
 * density to infinity: logvar = MIN + softplus(raw - MIN) (the bound of Chua et al. 2018). */
#define VAE_LOGVAR_MIN (-8.0f)

VAE_HD float vae_bounded_logvar(float raw, float *draw)
{
    *draw = vae_sigmoidf(raw - VAE_LOGVAR_MIN);
    return VAE_LOGVAR_MIN + vae_softplusf(raw - VAE_LOGVAR_MIN);
}

/* ---- Adam (Kingma & Ba 2014, algorithm 1; AdamW: Loshchilov & Hutter 2017) ---- */

typedef struct {
    float rate1, beta2, rate2; /* 1 - beta1, beta2, 1 - beta2: each rounded from double once, as
                                * 1 - 0.999f is 1.3e-5 off */
    float eps;
    float weight_decay; /* of the gradient (Adam, L2) or of the parameter (AdamW) */
    int decoupled;      /* 1: AdamW */
} vae_adam;

/* The coefficients of beta1, beta2, eps, without weight decay. */
static inline vae_adam vae_adam_of(double beta1, double beta2, double eps)
{
    vae_adam a = {(float)(1 - beta1), (float)beta2, (float)(1 - beta2), (float)eps, 0, 0};
    return a;
}

/* One element. step_size = lr/(1-beta1^t), rsqrt_c2 = 1/sqrt(1-beta2^t). Returns the new p. */
VAE_HD float vae_adam_element(float p, float g, float *m, float *v, const vae_adam *a, float lr,
                              float step_size, float rsqrt_c2)
{
    float g_l2 = g + a->weight_decay * p, p_w = p - lr * a->weight_decay * p;
    g = a->decoupled ? g : g_l2;
    p = a->decoupled ? p_w : p;
    *m = *m + a->rate1 * (g - *m);
    *v = a->beta2 * *v + a->rate2 * (g * g);
    return p - step_size * *m / (vae_sqrtf(*v) * rsqrt_c2 + a->eps);
}

#endif
