#include "stats/pca.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { MOST_STEPS = 1000 };

static void covariance(double *cov, double *mean, const float *x, size_t n, size_t d)
{
    for (size_t i = 0; i < n; i++) {
        for (size_t j = 0; j < d; j++) {
            mean[j] += (double)x[i * d + j] / (double)n;
        }
    }
#pragma omp parallel for schedule(dynamic)
    for (size_t a = 0; a < d; a++) {
        for (size_t i = 0; i < n; i++) {
            const double va = (double)x[i * d + a] - mean[a];
            for (size_t b = a; b < d; b++) {
                cov[a * d + b] += va * ((double)x[i * d + b] - mean[b]) / (double)n;
            }
        }
    }
    for (size_t a = 0; a < d; a++) {
        for (size_t b = 0; b < a; b++) {
            cov[a * d + b] = cov[b * d + a];
        }
    }
}

static double dot(const double *a, const double *b, size_t d)
{
    double sum = 0;
    for (size_t j = 0; j < d; j++) {
        sum += a[j] * b[j];
    }
    return sum;
}

/* v minus its part along `base` (if any), of length 1; a zero vector becomes the unit vector `j`.
 */
static void normalize(double *v, const double *base, size_t d, size_t j)
{
    for (int twice = 0; twice < 2; twice++) {
        const double along = base != NULL ? dot(v, base, d) : 0;
        for (size_t k = 0; k < d; k++) {
            v[k] -= base != NULL ? along * base[k] : 0;
        }
        const double length = sqrt(dot(v, v, d));
        for (size_t k = 0; k < d; k++) {
            v[k] = length > 1e-300 ? v[k] / length : k == j;
        }
    }
}

/* v: (2,d), the two leading eigenvectors of cov. */
static void leading(double *v, double *room, const double *cov, size_t d)
{
    for (size_t j = 0; j < d; j++) { /* two directions that no symmetric data are orthogonal to */
        v[j] = 1 + 0.1 * sin((double)j + 1);
        v[d + j] = cos(1.7 * (double)j + 0.3);
    }
    normalize(v, NULL, d, 0);
    normalize(v + d, v, d, 1);
    for (int step = 0; step < MOST_STEPS; step++) {
        double moved = 0;
        memcpy(room, v, 2 * d * sizeof *room);
        for (size_t k = 0; k < 2; k++) {
            for (size_t j = 0; j < d; j++) {
                v[k * d + j] = dot(cov + j * d, room + k * d, d);
            }
            normalize(v + k * d, k > 0 ? v : NULL, d, k);
            moved += 1 - fabs(dot(v + k * d, room + k * d, d));
        }
        if (moved < 1e-14) {
            break;
        }
    }
    for (size_t k = 0; k < 2; k++) {
        size_t most = 0;
        for (size_t j = 1; j < d; j++) {
            most = fabs(v[k * d + j]) > fabs(v[k * d + most]) ? j : most;
        }
        const double sign = v[k * d + most] < 0 ? -1 : 1;
        for (size_t j = 0; j < d; j++) {
            v[k * d + j] *= sign;
        }
    }
}

vae_status vae_pca_plane(float *xy, double share[2], const float *x, size_t n, size_t d,
                         vae_error *err)
{
    double *cov = calloc(d * d + 5 * d, sizeof *cov);
    if (cov == NULL) {
        return vae_fail_memory(err, (d * d + 5 * d) * sizeof *cov, "principal components");
    }
    double *mean = cov + d * d, *v = mean + d, *room = v + 2 * d, total = 0;
    covariance(cov, mean, x, n, d);
    for (size_t j = 0; j < d; j++) {
        total += cov[j * d + j];
    }
    if (d <= 2) {
        for (size_t k = 0; k < d; k++) {
            v[k * d + k] = 1;
        }
    } else {
        leading(v, room, cov, d);
    }
    for (size_t k = 0; k < 2; k++) {
        double variance = 0;
        for (size_t j = 0; k < d && j < d; j++) {
            variance += v[k * d + j] * dot(cov + j * d, v + k * d, d);
        }
        share[k] = total > 0 ? variance / total : 0;
    }
    for (size_t i = 0; i < n; i++) {
        for (size_t k = 0; k < 2; k++) {
            double sum = 0;
            for (size_t j = 0; k < d && j < d; j++) {
                sum += v[k * d + j] * ((double)x[i * d + j] - (d <= 2 ? 0 : mean[j]));
            }
            xy[2 * i + k] = (float)sum;
        }
    }
    free(cov);
    return VAE_OK;
}
