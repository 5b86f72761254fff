/* Per-element math against libm in double: dense sweeps over the floats, special values, and
 * derivatives by central differences. Bounds are those that vae_math.h states. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <float.h>
#include <math.h>
#include <stdio.h>

#include "device.h"
#include "reference.h"
#include "vae_math.h"

typedef float unary(float x);
typedef double exact(double x);

/* Distance in units of want's last place as a float (of the smallest denormal near zero). */
static double ulps(float got, double want)
{
    float near = (float)want;
    if (isinf(near) || got == near) {
        return got == near ? 0 : INFINITY;
    }
    double unit = (double)nextafterf(fabsf(near), INFINITY) - (double)fabsf(near);
    return fabs((double)got - want) / unit;
}

/* Every `stride`-th float from low to high, both included. */
static void sweep(const char *name, unary *f, exact *want, float low, float high, int stride,
                  double max_ulps, double max_absolute, double max_relative)
{
    double worst = 0;
    size_t n = 0;
    for (float x = low;;) {
        double w = want((double)x), error = fabs((double)f(x) - w);
        double u = ulps(f(x), w);
        bool good = u <= max_ulps || error <= max_absolute || error <= max_relative * fabs(w);
        if (!good) {
            fail_msg("%s(%.9g) = %.9g, expected %.17g: %.3g ulp, absolute %.3g, relative %.3g",
                     name, (double)x, (double)f(x), w, u, error, error / fabs(w));
        }
        worst = fmax(worst, u);
        n++;
        if (x >= high) {
            break;
        }
        int32_t bits = vae_bits_of_float(x); /* towards +Inf on both sides of zero */
        if (bits < 0 && (bits & INT32_MAX) < stride) {
            x = 0.0f;
        } else if (bits >= 0 && bits > vae_bits_of_float(high) - stride) {
            x = high;
        } else {
            x = vae_float_of_bits(bits < 0 ? bits - stride : bits + stride);
        }
        x = x > high ? high : x;
    }
    assert_true(n > 1000);
    if (max_ulps > 0 && max_absolute == 0) {
        print_message("%s: %zu values, at most %.2f ulp\n", name, n, worst);
    }
}

static float exp_f(float x)
{
    return vae_expf(x);
}

static float log_f(float x)
{
    return vae_logf(x);
}

static float log1p_f(float x)
{
    return vae_log1p_unit(x);
}

static float tanh_f(float x)
{
    return vae_tanhf(x);
}

static float erf_f(float x)
{
    return vae_erff(x);
}

static float softplus_f(float x)
{
    return vae_softplusf(x);
}

static float sigmoid_f(float x)
{
    return vae_sigmoidf(x);
}

static float sqrt_f(float x)
{
    return vae_sqrtf(x);
}

static double softplus_exact(double x)
{
    return x > 0 ? x + log1p(exp(-x)) : log1p(exp(x));
}

static double sigmoid_exact(double x)
{
    return x > 0 ? 1 / (1 + exp(-x)) : exp(x) / (1 + exp(x));
}

/* ---- primitives ---- */

static void exponential(void **state)
{
    (void)state;
    sweep("exp", exp_f, exp, -110, 95, 997, 2, 0, 0);
    sweep("exp", exp_f, exp, -104.5f, -86, 1, 2, 0, 0); /* denormal results */
    sweep("exp", exp_f, exp, 88.5f, 89.5f, 1, 2, 0, 0); /* overflow */
    assert_true(vae_expf(0.0f) == 1.0f && vae_expf(-0.0f) == 1.0f);
    assert_true(vae_expf(-INFINITY) == 0.0f && vae_expf(INFINITY) == INFINITY);
    assert_true(vae_expf(-FLT_MAX) == 0.0f && vae_expf(FLT_MAX) == INFINITY);
    assert_true(vae_expf(-103.98f) == 0.0f && vae_expf(-103.97f) > 0.0f);
    assert_true(vae_expf(88.72f) < INFINITY && vae_expf(88.73f) == INFINITY);
    assert_true(isnan(vae_expf(NAN)) && isnan(vae_expf(-NAN)));
    for (float x = 0.0f; x >= -87.6f; x -= 0.0137f) {
        assert_true(vae_expf_negative(x) == vae_expf(x));
    }
    for (float x = -87.7f; x > -FLT_MAX / 2; x *= 1.0001f) {
        assert_true(vae_expf_negative(x) == 0.0f);
    }
    assert_true(vae_expf_negative(-INFINITY) == 0.0f);
    assert_true(isnan(vae_expf_negative(NAN)) && isnan(vae_expf_negative(-NAN)));
}

static void logarithm(void **state)
{
    (void)state;
    sweep("log", log_f, log, 1e-45f, FLT_MAX, 997, 2, 0, 0);
    sweep("log", log_f, log, 0.5f, 2, 7, 2, 0, 0);
    sweep("log", log_f, log, 1e-45f, 1.2e-38f, 13, 2, 0, 0); /* denormals */
    assert_true(vae_logf(1.0f) == 0.0f);
    assert_true(vae_logf(0.0f) == -INFINITY && vae_logf(-0.0f) == -INFINITY);
    assert_true(vae_logf(INFINITY) == INFINITY);
    assert_true(isnan(vae_logf(-1.0f)) && isnan(vae_logf(-1e-45f)) && isnan(vae_logf(-INFINITY)));
    assert_true(isnan(vae_logf(NAN)));
}

static void log_of_one_plus(void **state)
{
    (void)state;
    sweep("log1p", log1p_f, log1p, 0, 1, 499, 0, 0, 2e-7);
    assert_true(vae_log1p_unit(0.0f) == 0.0f);
    assert_true(isnan(vae_log1p_unit(NAN)));
}

static void sine_and_cosine(void **state)
{
    (void)state;
    double worst = 0;
    for (uint32_t i = 0; i <= 3000000; i++) {
        float v = 6.2831860f * (float)i / 3000000.0f, s, c;
        vae_sincosf(v, &s, &c);
        worst = fmax(worst, fabs((double)s - sin((double)v)));
        worst = fmax(worst, fabs((double)c - cos((double)v)));
    }
    assert_true(worst < 2e-7);
    float s, c;
    vae_sincosf(0.0f, &s, &c);
    assert_true(s == 0.0f && c == 1.0f);
}

static void hyperbolic_tangent(void **state)
{
    (void)state;
    sweep("tanh", tanh_f, tanh, -30, 30, 997, 4, 0, 0);
    sweep("tanh", tanh_f, tanh, 0.5f, 0.75f, 3, 4, 0, 0); /* where the two formulas meet */
    assert_true(vae_tanhf(INFINITY) == 1.0f && vae_tanhf(-INFINITY) == -1.0f);
    assert_true(vae_tanhf(0.0f) == 0.0f && isnan(vae_tanhf(NAN)));
    assert_true(vae_tanhf(1e-45f) == 1e-45f && vae_tanhf(FLT_MAX) == 1.0f);
}

static void error_function(void **state)
{
    (void)state;
    sweep("erf", erf_f, erf, -8, 8, 997, 0, 1.5e-7, 0);
    assert_true(vae_erff(INFINITY) == 1.0f && vae_erff(-INFINITY) == -1.0f);
    assert_true(vae_erff(0.0f) == 0.0f && isnan(vae_erff(NAN)));
}

static void square_root(void **state)
{
    (void)state;
    sweep("sqrt", sqrt_f, sqrt, 0, FLT_MAX, 99991, 0.5, 0, 0);
    assert_true(isnan(vae_sqrtf(NAN)) && vae_sqrtf(INFINITY) == INFINITY);
}

/* ---- activations ---- */

/* Each activation, its derivative as the backward pass has it, and what they are to be. */
#define ACTIVATION(ACT, name, f, df, keeps)                                                        \
    static float value_##ACT(float x)                                                              \
    {                                                                                              \
        return f(x);                                                                               \
    }                                                                                              \
    static float derivative_##ACT(float x)                                                         \
    {                                                                                              \
        return df(keeps ? x : f(x));                                                               \
    }                                                                                              \
    static double exact_##ACT(double x)                                                            \
    {                                                                                              \
        return ref_act(VAE_ACT_##ACT, x);                                                          \
    }                                                                                              \
    static double exact_derivative_##ACT(double x)                                                 \
    {                                                                                              \
        return ref_dact(VAE_ACT_##ACT, x);                                                         \
    }
VAE_ACTIVATIONS(ACTIVATION)

static const struct {
    const char *name;
    unary *value, *derivative;
    exact *want, *want_derivative;
    bool keeps_input;
} activations[] = {
#define ROW(ACT, name, f, df, keeps)                                                               \
    {name, value_##ACT, derivative_##ACT, exact_##ACT, exact_derivative_##ACT, keeps},
    {NULL, NULL, NULL, NULL, NULL, false}, VAE_ACTIVATIONS(ROW)};

static void activation_values(void **state)
{
    (void)state;
    sweep("softplus", softplus_f, softplus_exact, -110, 1e10f, 1999, 3, 0, 4e-7);
    sweep("sigmoid", sigmoid_f, sigmoid_exact, -100, 1e10f, 1999, 4, 0, 0);
    for (int a = VAE_ACT_NONE + 1; a <= VAE_ACT_LAST; a++) {
        /* an absolute bound, as gelu's 1 + erf cancels on the left */
        sweep(activations[a].name, activations[a].value, activations[a].want, -1e10f, 1e10f, 1999,
              4, 5e-7, 0);
        sweep(activations[a].name, activations[a].derivative, activations[a].want_derivative, -1e4f,
              1e4f, 1999, 4, 5e-7, 0);
        assert_true(isnan(activations[a].value(NAN)) && isnan(activations[a].value(-NAN)));
        assert_true(activations[a].value(INFINITY) == (a == VAE_ACT_TANH ? 1.0f : INFINITY));
        assert_true(vae_act((vae_activation)a, 0.7f) == activations[a].value(0.7f));
    }
    const float some[] = {0.0f, -0.0f, 1e-45f, -1e-45f, 0.5f, -0.5f, FLT_MAX, -FLT_MAX};
    for (size_t i = 0; i < sizeof some / sizeof some[0]; i++) {
        float x = some[i];
        assert_true(vae_reluf(x) == (x > 0 ? x : 0.0f));
        assert_true(vae_leaky_reluf(x) == (x > 0 ? x : 0.01f * x));
    }
    assert_true(vae_softplusf(-INFINITY) == 0.0f);
    assert_true(vae_sigmoidf(INFINITY) == 1.0f && vae_sigmoidf(-INFINITY) == 0.0f);
    assert_true(vae_sigmoidf(0.0f) == 0.5f && vae_geluf(0.0f) == 0.0f);
    assert_true(vae_reluf(-INFINITY) == 0.0f && vae_leaky_reluf(-INFINITY) == -INFINITY);
    assert_true(isnan(vae_sigmoidf(NAN)) && isnan(vae_sigmoidf(-NAN)));
    assert_true(isnan(vae_dgelu_x(NAN)) && isnan(vae_dgelu_x(-NAN)));
}

static void activation_derivatives(void **state)
{
    (void)state;
    const double h = 1e-5;
    for (int a = VAE_ACT_NONE + 1; a <= VAE_ACT_LAST; a++) {
        const vae_activation act = (vae_activation)a;
        const bool keeps = activations[a].keeps_input;
        for (float x = -20; x <= 20; x += 0.00137f) {
            double want = (ref_act(act, (double)x + h) - ref_act(act, (double)x - h)) / (2 * h);
            if (fabs((double)x) < 2 * h) {
                continue; /* the kinks */
            }
            assert_true(fabs(want - ref_dact(act, (double)x)) < 1e-8); /* the reference itself */
            double error = fabs((double)activations[a].derivative(x) - want);
            double most = act == VAE_ACT_TANH ? 2e-7 : 1e-9;
            if (!(error < (keeps ? 6e-7 : most + 4e-6 * fabs(want)))) {
                fail_msg("activation %d at %.9g: error %.3g of %.9g", a, (double)x, error, want);
            }
        }
    }
    assert_true(vae_drelu_y(0.0f) == 0.0f && vae_drelu_y(1e-45f) == 1.0f);
    assert_true(vae_dleaky_relu_y(-1e-45f) == 0.01f && vae_dleaky_relu_y(1e-45f) == 1.0f);
    assert_true(isnan(vae_dtanh_y(NAN)) && isnan(vae_dsoftplus_y(NAN)));
    assert_true(vae_dsoftplus_y(0.0f) == 0.0f && vae_dsoftplus_y(INFINITY) == 1.0f);
    /* small derivatives keep their relative precision: sigmoid(-15) = 3.06e-7 */
    assert_true(fabs((double)vae_dsoftplus_y(vae_softplusf(-15.0f)) / sigmoid_exact(-15) - 1) <
                1e-5);
}

/* ---- the VAE's formulas ---- */

static void kl_of_a_latent(void **state)
{
    (void)state;
    const double h = 1e-5;
    for (float mu = -5; mu <= 5; mu += 0.173f) {
        for (float logvar = -8; logvar <= 5; logvar += 0.0719f) {
            double m = (double)mu, l = (double)logvar;
            double want = -0.5 * (1 + l - m * m - exp(l));
            double up = -0.5 * (1 + l + h - exp(l + h)), down = -0.5 * (1 + l - h - exp(l - h));
            float sigma2 = vae_expf(logvar);
            assert_true(fabs((double)vae_kl(mu, logvar, sigma2) - want) <= 3e-7 * (want + 1));
            double slope = (up - down) / (2 * h);
            assert_true(fabs((double)vae_dkl_dlogvar(sigma2) - slope) < 3e-7 * (1 + fabs(slope)));
        }
    }
    assert_true(vae_kl(0, 0, 1) == 0.0f);
    assert_true(isnan(vae_kl(NAN, 0, 1)) && isnan(vae_kl(0, NAN, 1)) && isnan(vae_kl(0, 0, NAN)));
    assert_true(isnan(vae_dkl_dlogvar(NAN)) && vae_dkl_dlogvar(INFINITY) == INFINITY);
}

static void bernoulli(void **state)
{
    (void)state;
    for (int grey = 0; grey <= 16; grey++) {
        const float x = (float)grey / 16.0f;
        for (float l = -120; l <= 120; l += 0.0131f) {
            float dl, loss = vae_bernoulli(l, x, &dl);
            double d = (double)l, linear = d > 0 ? d * (1 - (double)x) : -d * (double)x;
            double want = linear + log1p(exp(-fabs(d))); /* softplus(l) - x*l without cancelling */
            assert_true(fabs((double)loss - want) <= 5e-7 * want + (double)FLT_MIN);
            assert_true(fabs((double)dl - (sigmoid_exact((double)l) - (double)x)) < 2e-7);
        }
    }
    float dl;
    assert_true(vae_bernoulli(1e30f, 1, &dl) == 0.0f && dl == 0.0f);
    assert_true(vae_bernoulli(-1e30f, 0, &dl) == 0.0f && dl == 0.0f);
    assert_true(vae_bernoulli(1e30f, 0, &dl) == 1e30f && dl == 1.0f);
    assert_true(vae_bernoulli(-1e30f, 1, &dl) == 1e30f && dl == -1.0f);
    assert_true(isnan(vae_bernoulli(NAN, 0, &dl)) && isnan(dl));
    assert_true(isnan(vae_bernoulli(0, NAN, &dl)) && isnan(dl));
    /* an infinite logit has overflowed: its loss is never finite, so that the step stops */
    for (int i = 0; i < 3; i++) {
        assert_true(isfinite(vae_bernoulli(INFINITY, 0.5f * (float)i, &dl)) == 0);
        assert_true(isfinite(vae_bernoulli(-INFINITY, 0.5f * (float)i, &dl)) == 0);
    }
}

static void gaussian(void **state)
{
    (void)state;
    const double h = 1e-5;
    for (float logvar = -6; logvar <= 4; logvar += 0.37f) {
        for (float m = -3; m <= 3; m += 0.0313f) {
            const float x = 0.7f;
            float dm, dl, loss = vae_gaussian(m, x, logvar, vae_expf(-logvar), &dm, &dl);
            double v = exp((double)logvar), diff = (double)m - (double)x;
            double want = 0.5 * log(2 * M_PI * v) + diff * diff / (2 * v);
            double scale = 1 + fabs(want);
            assert_true(fabs((double)loss - want) < 1e-6 * scale);
            double up = 0.5 * log(2 * M_PI * v) + (diff + h) * (diff + h) / (2 * v);
            assert_true(fabs((double)dm - (up - want) / h) < 1e-6 * fabs(diff / v) + 2e-5 / v);
            double v2 = v * exp(h), v1 = v * exp(-h);
            double slope = (0.5 * log(v2 / v1) + diff * diff * (0.5 / v2 - 0.5 / v1)) / (2 * h);
            assert_true(fabs((double)dl - slope) < 2e-6 * scale);
        }
    }
    float dm, dl;
    assert_true(isnan(vae_gaussian(NAN, 0, 0, 1, &dm, &dl)) && isnan(dm) && isnan(dl));
    assert_true(isnan(vae_gaussian(0, NAN, 0, 1, &dm, &dl)) && isnan(dm) && isnan(dl));
    assert_true(isnan(vae_gaussian(0, 0, NAN, NAN, &dm, &dl)));
    assert_true(isfinite(vae_gaussian(INFINITY, 0, 0, 1, &dm, &dl)) == 0);
}

/* Against the Gaussian of the sigmoid in double, and its slope; far out, too, where 1 - sigmoid is
 * nothing in float. */
static void gaussian_of_a_sigmoid(void **state)
{
    (void)state;
    for (float logvar = -6; logvar <= 4; logvar += 0.37f) {
        for (float l = -40; l <= 40; l += 0.313f) {
            const float x = 0.7f;
            float dl, dlogvar, unused, by_m;
            const float loss = vae_gaussian_sigmoid(l, x, logvar, vae_expf(-logvar), &dl, &dlogvar);
            const double v = exp((double)logvar), s = 1 / (1 + exp(-(double)l));
            const double slope = exp(-fabs((double)l)) / pow(1 + exp(-fabs((double)l)), 2);
            const double diff = s - (double)x,
                         want = 0.5 * log(2 * M_PI * v) + diff * diff / (2 * v);
            assert_true(fabs((double)loss - want) < 1e-6 * (1 + fabs(want) + 1 / v));
            assert_true(fabs((double)dl - diff / v * slope) < 1e-6 * slope / v);
            vae_gaussian((float)s, x, logvar, vae_expf(-logvar), &unused, &by_m);
            assert_true(fabsf(dlogvar - by_m) < 1e-6f * (1 + 1 / (float)v));
        }
    }
    float dl, unused;
    assert_true(isnan(vae_gaussian_sigmoid(NAN, 0, 0, 1, &dl, &unused)) && isnan(dl));
    assert_true(isnan(vae_gaussian_sigmoid(0, NAN, 0, 1, &dl, &unused)) && isnan(dl));
    /* it has overflowed: its loss is never finite, so that the step stops */
    assert_true(isfinite(vae_gaussian_sigmoid(INFINITY, 0.5f, 0, 1, &dl, &unused)) == 0);
    assert_true(isfinite(vae_gaussian_sigmoid(-INFINITY, 0.5f, 0, 1, &dl, &unused)) == 0);
}

static void bounded_log_variance(void **state)
{
    (void)state;
    const double h = 1e-5;
    for (float raw = -40; raw <= 20; raw += 0.00731f) {
        float draw, logvar = vae_bounded_logvar(raw, &draw);
        double want = -8 + softplus_exact((double)raw + 8);
        double slope = (softplus_exact((double)raw + 8 + h) - softplus_exact((double)raw + 8 - h));
        assert_true(fabs((double)logvar - want) < 2e-6 && logvar >= VAE_LOGVAR_MIN);
        assert_true(fabs((double)draw - slope / (2 * h)) < 1e-6);
    }
    float draw;
    assert_true(vae_bounded_logvar(-INFINITY, &draw) == VAE_LOGVAR_MIN && draw == 0.0f);
    assert_true(fabsf(vae_bounded_logvar(10, &draw) - 10.0f) < 1e-5f);
    assert_true(isnan(vae_bounded_logvar(NAN, &draw)) && isnan(draw));
}

/* ---- Adam ---- */

/* A thousand steps beside the algorithm as it is printed, in double. */
static void check_adam(vae_adam a, double lr)
{
    uint64_t rng = 3;
    float p = 0.7f, m = 0, v = 0;
    double dp = (double)p, dm = 0, dv = 0;
    const double r1 = (double)a.rate1, r2 = (double)a.rate2, b2 = (double)a.beta2;
    const double decay = (double)a.weight_decay;
    for (int t = 1; t <= 1000; t++) {
        const float g = 0.3f * random_normal(&rng) + 0.05f;
        double c1 = 1 - pow(1 - r1, t), c2 = 1 - pow(b2, t);
        p = vae_adam_element(p, g, &m, &v, &a, (float)lr, (float)(lr / c1), (float)(1 / sqrt(c2)));
        double dg = (double)g + (a.decoupled ? 0 : decay * dp);
        dp -= a.decoupled ? lr * decay * dp : 0;
        dm += r1 * (dg - dm);
        dv = b2 * dv + r2 * dg * dg;
        dp -= lr * (dm / c1) / (sqrt(dv / c2) + (double)a.eps);
        assert_true(fabs((double)p - dp) < 1e-5 * (fabs(dp) + (double)t * lr));
        assert_true(fabs((double)m - dm) < 1e-6 && fabs((double)v - dv) < 2e-6 * dv);
    }
}

static void adam_by_the_paper(void **state)
{
    (void)state;
    for (int decoupled = 0; decoupled < 2; decoupled++) {
        vae_adam a = vae_adam_of(0.9, 0.999, 1e-8), b = vae_adam_of(0.5, 0.9, 0.1);
        a.decoupled = b.decoupled = decoupled;
        check_adam(a, 1e-3);
        a.weight_decay = 0.05f, b.weight_decay = 0.3f;
        check_adam(a, 1e-2);
        check_adam(b, 1e-2);
    }
    /* the first step is lr against the gradient's sign, whatever its size */
    const vae_adam a = vae_adam_of(0.9, 0.999, 1e-8);
    assert_true(a.rate1 == 0.1f && a.rate2 == 0.001f);
    for (float g = 1e-3f; g < 1e4f; g *= 10) {
        float m = 0, v = 0, c2 = (float)(1 / sqrt(0.001));
        float p = vae_adam_element(0, g, &m, &v, &a, 1e-3f, 1e-3f / a.rate1, c2);
        assert_true(fabsf(p + 1e-3f) < 1e-7f);
    }
    float m = 0, v = 0;
    assert_true(vae_adam_element(0, 0, &m, &v, &a, 1, 1, 1) == 0.0f && m == 0.0f && v == 0.0f);
    assert_true(isnan(vae_adam_element(0, NAN, &m, &v, &a, 1, 1, 1)) && isnan(m) && isnan(v));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(exponential),
        cmocka_unit_test(logarithm),
        cmocka_unit_test(log_of_one_plus),
        cmocka_unit_test(sine_and_cosine),
        cmocka_unit_test(hyperbolic_tangent),
        cmocka_unit_test(error_function),
        cmocka_unit_test(square_root),
        cmocka_unit_test(activation_values),
        cmocka_unit_test(activation_derivatives),
        cmocka_unit_test(kl_of_a_latent),
        cmocka_unit_test(bernoulli),
        cmocka_unit_test(gaussian),
        cmocka_unit_test(gaussian_of_a_sigmoid),
        cmocka_unit_test(bounded_log_variance),
        cmocka_unit_test(adam_by_the_paper),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
