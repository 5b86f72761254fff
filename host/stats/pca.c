/* The two leading principal axes of rows. */
#include "stats/pca.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { ROUNDS = 60 };

static double dot(const double *a, const double *b, size_t n)
{
    double sum = 0;
    for (size_t i = 0; i < n; i++) {
        sum += a[i] * b[i];
    }
    return sum;
}

/* v of length 1; the unit vector `fallback` where it is 0. */
static void normalize(double *v, size_t n, size_t fallback)
{
    const double length = sqrt(dot(v, v, n));
    for (size_t j = 0; j < n; j++) {
        v[j] = length > 1e-30 ? v[j] / length : j == fallback % n;
    }
}

/* out: (2,d) = C v for both rows of v, C the covariance of the rows; never formed, as d may be
 * large. Returns the trace of C. */
static double multiply(double *out, const double *v, const float *x, size_t n, size_t d,
                       const float *mean)
{
    double trace = 0;
    memset(out, 0, 2 * d * sizeof *out);
    for (size_t i = 0; i < n; i++) {
        const float *row = x + i * d;
        double along[2] = {0, 0};
        for (size_t j = 0; j < d; j++) {
            const double away = (double)row[j] - (double)mean[j];
            along[0] += away * v[j];
            along[1] += away * v[d + j];
            trace += away * away / (double)n;
        }
        for (size_t j = 0; j < d; j++) {
            const double away = ((double)row[j] - (double)mean[j]) / (double)n;
            out[j] += away * along[0];
            out[d + j] += away * along[1];
        }
    }
    return trace;
}

static void make_orthonormal(double *v, size_t d)
{
    normalize(v, d, 0);
    const double common = dot(v, v + d, d);
    for (size_t j = 0; j < d; j++) {
        v[d + j] -= common * v[j];
    }
    normalize(v + d, d, 1);
}

/* Turns the pair v within its plane to the principal axes there (Rayleigh-Ritz); cv = C v. */
static void turn(double *v, const double *cv, size_t d)
{
    const double a = dot(v, cv, d), b = dot(v, cv + d, d), c = dot(v + d, cv + d, d);
    const double angle = 0.5 * atan2(2 * b, a - c);
    for (size_t j = 0; j < d; j++) {
        const double x = v[j], y = v[d + j];
        v[j] = cos(angle) * x + sin(angle) * y;
        v[d + j] = cos(angle) * y - sin(angle) * x;
    }
}

vae_status vae_pca_axes(float *axis, double share[2], const float *x, size_t n, size_t d,
                        const float *mean, const size_t start[2], vae_error *err)
{
    double *v = calloc(4 * d, sizeof *v), *cv, trace = 0;
    if (v == NULL) {
        return vae_fail_memory(err, 4 * d * sizeof *v, "principal components");
    }
    cv = v + 2 * d;
    /* not quite along the columns: those may be orthogonal to the plane */
    for (size_t j = 0; j < d; j++) {
        v[j] = (j == start[0]) + 1e-3;
        v[d + j] = (j == start[1]) + (j % 2 == 0 ? 1e-3 : -1e-3);
    }
    for (size_t round = 0; round < ROUNDS; round++) {
        make_orthonormal(v, d);
        trace = multiply(cv, v, x, n, d, mean);
        memcpy(v, cv, 2 * d * sizeof *v);
    }
    make_orthonormal(v, d);
    multiply(cv, v, x, n, d, mean);
    turn(v, cv, d);
    multiply(cv, v, x, n, d, mean);
    for (size_t k = 0; k < 2; k++) {
        double largest = 0;
        for (size_t j = 0; j < d; j++) {
            largest = fabs(v[k * d + j]) > fabs(largest) ? v[k * d + j] : largest;
        }
        for (size_t j = 0; j < d; j++) {
            axis[k * d + j] = (float)(largest < 0 ? -v[k * d + j] : v[k * d + j]);
        }
        share[k] = trace > 0 ? dot(v + k * d, cv + k * d, d) / trace : 0;
    }
    free(v);
    return VAE_OK;
}

void vae_pca_project(float *xy, const float *x, size_t n, size_t d, const float *mean,
                     const float *axis)
{
    for (size_t i = 0; i < n; i++) {
        for (size_t k = 0; k < 2; k++) {
            double sum = 0;
            for (size_t j = 0; j < d; j++) {
                sum += ((double)x[i * d + j] - (double)mean[j]) * (double)axis[k * d + j];
            }
            xy[2 * i + k] = (float)sum;
        }
    }
}

/* Means and variances of the columns. */
static void moments(float *mean, double *variance, const float *x, size_t n, size_t d)
{
    for (size_t j = 0; j < d; j++) {
        double middle = 0;
        for (size_t i = 0; i < n; i++) {
            const double away = (double)x[i * d + j] - middle;
            middle += away / (double)(i + 1);
            variance[j] += away * ((double)x[i * d + j] - middle) / (double)n;
        }
        mean[j] = (float)middle;
    }
}

vae_status vae_pca_plane(float *xy, double share[2], const float *x, size_t n, size_t d,
                         vae_error *err)
{
    float *mean = calloc(3 * d, sizeof *mean), *axis = mean != NULL ? mean + d : NULL;
    double *variance = calloc(d, sizeof *variance);
    vae_status status = VAE_OK;
    if (mean == NULL || variance == NULL) {
        TRY(vae_fail_memory(err, 5 * d * sizeof *mean, "principal components"));
    }
    moments(mean, variance, x, n, d);
    if (d > 2) {
        size_t start[2] = {variance[1] > variance[0], variance[1] <= variance[0]};
        for (size_t j = 2; j < d; j++) {
            if (variance[j] > variance[start[0]]) {
                start[1] = start[0];
                start[0] = j;
            } else if (variance[j] > variance[start[1]]) {
                start[1] = j;
            }
        }
        TRY(vae_pca_axes(axis, share, x, n, d, mean, start, err));
    } else {
        const double total = variance[0] + (d == 2 ? variance[1] : 0);
        for (size_t k = 0; k < 2; k++) {
            share[k] = k < d && total > 0 ? variance[k] / total : 0;
        }
        memset(mean, 0, d * sizeof *mean);
        axis[0] = 1;
        axis[2 * d - 1] = d == 2;
    }
    vae_pca_project(xy, x, n, d, mean, axis);
done:
    free(variance);
    free(mean);
    return status;
}
