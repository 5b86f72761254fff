/* Points of latent space: drawn, between two others, on a grid. */
#include "stats/latent_walk.h"

#include <math.h>
#include <string.h>

#include "philox.h"

void vae_prior_rows(float *z, uint64_t seed, uint64_t first, size_t n, size_t Z, double temperature)
{
    const uint32_t n_quads = (uint32_t)((Z + 3) / 4);
    for (size_t row = 0; row < n; row++) {
        for (uint32_t quad = 0; quad < n_quads; quad++) {
            float eps[4];
            vae_eps4(seed, VAE_RNG_PRIOR, first + row, n_quads, quad, 0, 0, eps);
            for (size_t j = 4 * (size_t)quad; j < Z && j < 4 * ((size_t)quad + 1); j++) {
                z[row * Z + j] = (float)temperature * eps[j % 4];
            }
        }
    }
}

static void combine(float *out, const float *a, const float *b, size_t Z, double of_a, double of_b)
{
    for (size_t j = 0; j < Z; j++) {
        out[j] = (float)(of_a * (double)a[j] + of_b * (double)b[j]);
    }
}

void vae_lerp(float *out, const float *a, const float *b, size_t Z, double t)
{
    combine(out, a, b, Z, 1 - t, t);
}

void vae_slerp(float *out, const float *a, const float *b, size_t Z, double t)
{
    const double least = 1e-6; /* radians from 0 or pi: below, the sines are mostly rounding */
    double aa = 0, bb = 0, ab = 0;
    for (size_t j = 0; j < Z; j++) {
        aa += (double)a[j] * (double)a[j];
        bb += (double)b[j] * (double)b[j];
        ab += (double)a[j] * (double)b[j];
    }
    const double cosine = aa > 0 && bb > 0 ? ab / sqrt(aa) / sqrt(bb) : 1;
    const double angle = acos(fmax(-1, fmin(cosine, 1)));
    if (t <= 0 || t >= 1) {
        memcpy(out, t <= 0 ? a : b, Z * sizeof *out);
    } else if (angle < least || M_PI - angle < least) {
        vae_lerp(out, a, b, Z, t);
    } else {
        combine(out, a, b, Z, sin((1 - t) * angle) / sin(angle), sin(t * angle) / sin(angle));
    }
}

/* By bisection on erfc: nothing to look up, and the grids that ask have a few dozen lines. */
double vae_normal_quantile(double p)
{
    /* the lower half is the accurate one: erfc there does not cancel */
    const double tail = p < 0.5 ? p : 1 - p;
    double low = -40, high = 0;
    if (p == 0.5) {
        return 0;
    }
    for (int i = 0; i < 80; i++) {
        const double middle = 0.5 * (low + high);
        if (0.5 * erfc(-middle / M_SQRT2) < tail) {
            low = middle;
        } else {
            high = middle;
        }
    }
    return p < 0.5 ? low : -low;
}

void vae_latent_axis(double *axis, size_t n, double range)
{
    for (size_t i = 0; i < n; i++) {
        const double step = n > 1 ? (double)i / (double)(n - 1) : 0.5;
        axis[i] =
            range > 0 ? range * (2 * step - 1) : vae_normal_quantile(((double)i + 0.5) / (double)n);
    }
}
