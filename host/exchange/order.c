/* The order of a convolutional model's parameters: this program's, channels last, and PyTorch's,
 * channels first. Tensors lie at the same places and are of the same sizes in both. */
#include <string.h>

#include "exchange/exchange.h"

/* One piece moved from or to the other order. */
static void move(float *ours, float *theirs, bool back)
{
    if (back) {
        *ours = *theirs;
    } else {
        *theirs = *ours;
    }
}

/* (c, part, ky, kx, C) and (c, part, C, ky, kx). */
static void order_kernel(float *ours, float *theirs, vae_conv g, bool back)
{
    const size_t window = g.kernel * g.kernel;
    for (size_t o = 0; o < g.c * g.parts; o++, ours += window * g.C, theirs += window * g.C) {
        for (size_t k = 0; k < window; k++) {
            for (size_t ch = 0; ch < g.C; ch++) {
                move(&ours[k * g.C + ch], &theirs[ch * window + k], back);
            }
        }
    }
}

/* Rows of `cols` values whose first h*w*c columns are a picture. */
static void order_columns(float *ours, float *theirs, vae_conv g, size_t rows, size_t cols,
                          bool back)
{
    const size_t pixels = g.h * g.w;
    for (size_t r = 0; r < rows; r++, ours += cols, theirs += cols) {
        for (size_t i = 0; i < pixels * g.c; i++) {
            move(&ours[i], &theirs[i % g.c * pixels + i / g.c], back);
        }
        for (size_t i = pixels * g.c; i < cols; i++) {
            move(&ours[i], &theirs[i], back);
        }
    }
}

/* Rows that are values of a picture. */
static void order_rows(float *ours, float *theirs, vae_conv g, size_t cols, bool back)
{
    const size_t pixels = g.h * g.w;
    for (size_t i = 0; i < pixels * g.c; i++) {
        float *other = theirs + (i % g.c * pixels + i / g.c) * cols;
        for (size_t j = 0; j < cols; j++) {
            move(&ours[i * cols + j], &other[j], back);
        }
    }
}

void vae_export_order(const param_layout *layout, float *ours, float *theirs, bool back)
{
    const size_t n_layers = layout->n / 2;
    for (size_t l = 0; l < n_layers; l++) {
        const layer_desc *layer = &layout->layers[l], *before = l > 0 ? layer - 1 : NULL;
        const tensor_desc *w = &layout->tensors[layer->weight];
        const size_t n = w->rows * w->cols, n_bias = layout->tensors[layer->bias].cols;
        const bool first =
            l == 0 || l == layout->n_encoder || l == layout->n_encoder + layout->n_decoder;
        float *bias = ours + n, *other = theirs + n;
        if (layer->is_conv) {
            order_kernel(ours, theirs, layer->conv, back);
        } else if (!first && before->is_conv) {
            order_columns(ours, theirs, before->conv, w->rows, w->cols, back);
        } else if (l + 1 < n_layers && layer[1].is_conv && layer[1].conv.transposed) {
            order_rows(ours, theirs, layer[1].conv, w->cols, back);
            order_rows(bias, other, layer[1].conv, 1, back);
            ours = bias + n_bias;
            theirs = other + n_bias;
            continue;
        } else {
            memcpy(back ? ours : theirs, back ? theirs : ours, n * sizeof *ours);
        }
        memcpy(back ? bias : other, back ? other : bias, n_bias * sizeof *bias);
        ours = bias + n_bias;
        theirs = other + n_bias;
    }
}
