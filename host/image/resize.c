/* Colour to grey and back, and resizing by a triangle filter that widens with the reduction, so
 * that nothing is left out: what PIL calls BILINEAR with antialiasing. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "image/image.h"

void vae_image_convert(uint8_t *to, size_t to_channels, const uint8_t *from, size_t from_channels,
                       size_t pixels)
{
    for (size_t i = 0; i < pixels; i++) {
        const uint8_t *p = from + i * from_channels;
        uint8_t *q = to + i * to_channels;
        if (from_channels == to_channels) {
            memcpy(q, p, from_channels);
        } else if (to_channels == 1) { /* ITU-R 601-2 luma in 16 bits, as PIL rounds it */
            q[0] = (uint8_t)((p[0] * 19595u + p[1] * 38470u + p[2] * 7471u + 0x8000u) >> 16);
        } else {
            q[0] = q[1] = q[2] = p[0];
        }
    }
}

/* The weights of one output place: of inputs first .. first+n-1. */
typedef struct {
    size_t first, n;
    const float *w;
} taps;

typedef struct {
    taps *of; /* (out) */
    float *weights;
} kernel;

/* A triangle of half width max(1, in/out) around each output's centre, normalized, cut at the
 * edges. */
static int make_kernel(kernel *k, size_t in, size_t out)
{
    const double ratio = (double)in / (double)out, reach = ratio > 1 ? ratio : 1;
    const size_t most = (size_t)ceil(reach) * 2 + 1;
    k->of = malloc(out * sizeof *k->of);
    k->weights = malloc(out * most * sizeof *k->weights);
    if (k->of == NULL || k->weights == NULL) {
        return 0;
    }
    for (size_t i = 0; i < out; i++) {
        const double centre = ((double)i + 0.5) * ratio;
        double low = floor(centre - reach + 0.5), high = floor(centre + reach + 0.5), sum = 0;
        low = low < 0 ? 0 : low;
        high = high > (double)in ? (double)in : high;
        float *w = k->weights + i * most;
        const size_t first = (size_t)low, n = (size_t)(high - low);
        for (size_t j = 0; j < n; j++) {
            double v = 1 - fabs((low + (double)j + 0.5 - centre) / reach);
            w[j] = v > 0 ? (float)v : 0.0f;
            sum += (double)w[j];
        }
        for (size_t j = 0; j < n; j++) {
            w[j] = (float)((double)w[j] / sum);
        }
        k->of[i] = (taps){first, n, w};
    }
    return 1;
}

static void free_kernel(kernel *k)
{
    free(k->of);
    free(k->weights);
}

/* (height,width,channels) bytes to (height,out,channels) floats. */
static void across(float *to, const uint8_t *from, size_t height, size_t width, size_t out,
                   size_t channels, const kernel *k)
{
    for (size_t y = 0; y < height; y++) {
        const uint8_t *row = from + y * width * channels;
        for (size_t x = 0; x < out; x++) {
            const taps *t = &k->of[x];
            for (size_t c = 0; c < channels; c++) {
                float sum = 0;
                for (size_t j = 0; j < t->n; j++) {
                    sum += t->w[j] * (float)row[(t->first + j) * channels + c];
                }
                to[(y * out + x) * channels + c] = sum;
            }
        }
    }
}

static void down(uint8_t *to, const float *from, size_t out, size_t stride, const kernel *k)
{
    for (size_t y = 0; y < out; y++) {
        const taps *t = &k->of[y];
        for (size_t x = 0; x < stride; x++) {
            float sum = 0;
            for (size_t j = 0; j < t->n; j++) {
                sum += t->w[j] * from[(t->first + j) * stride + x];
            }
            sum = sum < 0 ? 0 : sum;
            to[y * stride + x] = (uint8_t)(sum > 255 ? 255 : sum + 0.5f);
        }
    }
}

vae_status vae_image_resize(uint8_t *to, size_t to_width, size_t to_height, const uint8_t *from,
                            size_t width, size_t height, size_t channels, vae_error *err)
{
    kernel kx = {0}, ky = {0};
    float *middle = malloc(height * to_width * channels * sizeof *middle);
    vae_status status = VAE_OK;
    if (middle == NULL || !make_kernel(&kx, width, to_width) ||
        !make_kernel(&ky, height, to_height)) {
        status = vae_fail_memory(err, height * to_width * channels * sizeof *middle, "a picture");
    } else {
        across(middle, from, height, width, to_width, channels, &kx);
        down(to, middle, to_height, to_width * channels, &ky);
    }
    free(middle);
    free_kernel(&kx);
    free_kernel(&ky);
    return status;
}

vae_status vae_image_square(uint8_t *to, size_t side, const uint8_t *from, size_t width,
                            size_t height, size_t channels, vae_error *err)
{
    const size_t shorter = width < height ? width : height;
    const size_t w = width == shorter ? side : width * side / shorter;
    const size_t h = height == shorter ? side : height * side / shorter;
    const size_t left = (size_t)nearbyint((double)(w - side) / 2);
    const size_t top = (size_t)nearbyint((double)(h - side) / 2);
    uint8_t *whole = malloc(w * h * channels);
    if (whole == NULL) {
        return vae_fail_memory(err, w * h * channels, "a picture");
    }
    vae_status status = vae_image_resize(whole, w, h, from, width, height, channels, err);
    for (size_t y = 0; status == VAE_OK && y < side; y++) {
        memcpy(to + y * side * channels, whole + ((top + y) * w + left) * channels,
               side * channels);
    }
    free(whole);
    return status;
}
