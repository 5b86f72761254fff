/* Building the parameter layout, packing by it, and initial parameters. */
#include "model/layout.h"

#include <math.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/text.h"
#include "philox.h"

vae_sizes vae_config_decoder(const vae_config *config)
{
    if (config->decoder_hidden.n > 0) {
        return config->decoder_hidden;
    }
    vae_sizes mirrored = {.n = config->hidden.n};
    for (size_t i = 0; i < mirrored.n; i++) {
        mirrored.size[i] = config->hidden.size[mirrored.n - 1 - i];
    }
    return mirrored;
}

/* Parameters are addressed by 32-bit numbers of four on the device, and a model beyond this is a
 * typing error, not a wish. */
static const size_t max_params = (size_t)1 << 32;

static vae_status add_tensor(param_layout *layout, size_t rows, size_t cols, const char *side,
                             const char *layer, const char *kind, vae_error *err)
{
    if (rows == 0 || cols == 0 || cols > max_params || rows > max_params / vae_pad(cols) ||
        layout->total + rows * vae_pad(cols) > max_params) {
        return vae_fail(err, VAE_ERR_USAGE,
                        "the model is too large: layer %s.%s is %zu x %zu and a model may have %zu "
                        "parameters",
                        side, layer, rows, cols, max_params);
    }
    tensor_desc *t = &layout->tensors[layout->n++];
    snprintf(t->name, sizeof t->name, "%s.%s.%s", side, layer, kind);
    t->rows = rows;
    t->cols = cols;
    t->ld = vae_pad(cols);
    t->offset = layout->total;
    layout->total += rows * t->ld;
    layout->n_params += rows * cols;
    return VAE_OK;
}

static vae_status add_layer(param_layout *layout, size_t in, size_t out, vae_activation act,
                            const char *side, const char *name, vae_error *err)
{
    layer_desc *layer = &layout->layers[layout->n / 2];
    *layer = (layer_desc){in, out, layout->n, layout->n + 1, act, .is_conv = false};
    vae_status status = VAE_OK;
    TRY(add_tensor(layout, out, in, side, name, "weight", err));
    TRY(add_tensor(layout, 1, out, side, name, "bias", err));
done:
    return status;
}

static vae_status add_conv(param_layout *layout, vae_conv g, vae_activation act, const char *side,
                           const char *name, vae_error *err)
{
    const size_t big = vae_conv_big(g), small = vae_conv_small(g);
    layer_desc *layer = &layout->layers[layout->n / 2];
    *layer = (layer_desc){.in = g.transposed ? small : big,
                          .out = g.transposed ? big : small,
                          .weight = layout->n,
                          .bias = layout->n + 1,
                          .act = act,
                          .is_conv = true,
                          .conv = g};
    vae_status status = VAE_OK;
    TRY(add_tensor(layout, g.c, vae_conv_patch(g), side, name, "weight", err));
    TRY(add_tensor(layout, 1, g.transposed ? g.parts * g.C : g.c, side, name, "bias", err));
done:
    return status;
}

/* The convolution between levels i and i+1 of the pictures: 4 x 4, halving. Kernels that are a
 * multiple of the stride leave no checkerboard when transposed. */
static vae_conv conv_of(const vae_config *config, row_shape shape, size_t i)
{
    const size_t h = shape.h >> i, w = shape.w >> i;
    return (vae_conv){.H = h,
                      .W = w,
                      .C = i == 0 ? shape.c : config->conv.size[i - 1],
                      .h = h / 2,
                      .w = w / 2,
                      .c = config->conv.size[i],
                      .kernel = 4,
                      .stride = 2,
                      .pad = 1,
                      .parts = 1};
}

/* Values of the smallest picture; of the data, where there are no convolutions. */
static size_t small_size(const vae_config *config, row_shape shape)
{
    const size_t n = config->conv.n;
    return n == 0 ? shape.h * shape.w * shape.c : vae_conv_small(conv_of(config, shape, n - 1));
}

/* Linear hidden layers behind `first` others. */
static vae_status add_hidden(param_layout *layout, const char *side, size_t first, size_t *in,
                             vae_sizes hidden, vae_activation act, vae_error *err)
{
    vae_status status = VAE_OK;
    for (size_t i = 0; i < hidden.n; i++) {
        char name[24];
        snprintf(name, sizeof name, "%zu", first + i);
        TRY(add_layer(layout, *in, hidden.size[i], act, side, name, err));
        *in = hidden.size[i];
    }
done:
    return status;
}

/* Convolutions, hidden layers, the first of which sees C columns of a class too, and the linear
 * layer that ends it. */
static vae_status add_encoder(param_layout *layout, const vae_config *config, row_shape shape,
                              const char *side, size_t C, bool beside, size_t out, const char *last,
                              vae_error *err)
{
    size_t in = small_size(config, shape) + C;
    vae_status status = VAE_OK;
    for (size_t i = 0; i < config->conv.n; i++) {
        char name[24];
        snprintf(name, sizeof name, "%zu", i);
        TRY(add_conv(layout, conv_of(config, shape, i), config->activation, side, name, err));
    }
    if (config->conv.n > 0 && beside) {
        layout->layers[layout->n / 2 - 1].beside = C;
    }
    TRY(add_hidden(layout, side, config->conv.n, &in, config->hidden, config->activation, err));
    TRY(add_layer(layout, in, out, VAE_ACT_NONE, side, last, err));
done:
    return status;
}

/* The mirror: of d*outputs values, pictures of the mean and of the rest one behind the other. */
static vae_status add_decoder(param_layout *layout, const vae_config *config, row_shape shape,
                              vae_error *err)
{
    const vae_sizes hidden = vae_config_decoder(config);
    const size_t outputs = vae_likelihood_of(config->likelihood)->outputs, n = config->conv.n;
    size_t in = config->latent + layout->c;
    vae_status status = VAE_OK;
    TRY(add_hidden(layout, "decoder", 0, &in, hidden, config->activation, err));
    if (n == 0) {
        return add_layer(layout, in, outputs * layout->d, VAE_ACT_NONE, "decoder", "out", err);
    }
    char name[24];
    snprintf(name, sizeof name, "%zu", hidden.n);
    TRY(add_layer(layout, in, small_size(config, shape), config->activation, "decoder", name, err));
    for (size_t i = n; i-- > 0;) {
        vae_conv g = conv_of(config, shape, i);
        g.transposed = 1;
        g.parts = i == 0 ? outputs : 1;
        snprintf(name, sizeof name, "%zu", hidden.n + n - i);
        TRY(add_conv(layout, g, i == 0 ? VAE_ACT_NONE : config->activation, "decoder",
                     i == 0 ? "out" : name, err));
    }
done:
    return status;
}

/* How many times a side can be halved. */
static size_t halvings(size_t side)
{
    size_t n = 0;
    for (; side > 0 && side % 2 == 0; side /= 2) {
        n++;
    }
    return n;
}

static vae_status check_shape(const vae_config *config, row_shape shape, vae_error *err)
{
    const size_t n = config->conv.n, by = (size_t)1 << n;
    const size_t most =
        halvings(shape.h) < halvings(shape.w) ? halvings(shape.h) : halvings(shape.w);
    if (config->flip && shape.h == 1 && shape.w > 1) {
        return vae_fail(
            err, VAE_ERR_USAGE,
            "--flip mirrors pictures, and the data are rows of %zu values: leave it out",
            shape.w * shape.c);
    }
    if (n == 0) {
        return VAE_OK;
    }
    if (shape.h == 1) {
        return vae_fail(
            err, VAE_ERR_USAGE,
            "--conv is for pictures, and the data are rows of %zu values: give a folder "
            "of pictures or an array (n, height, width[, channels]), or leave --conv "
            "out and use --hidden",
            shape.w * shape.c);
    }
    if (most >= n) {
        return VAE_OK;
    }
    const size_t side = shape.h < shape.w ? shape.h : shape.w;
    const size_t below = side / by * by, above = below + by;
    char smaller[32] = "", fewer[64] = "";
    if (below > 0) {
        snprintf(smaller, sizeof smaller, "%zu or ", below);
    }
    if (most > 0) {
        snprintf(fewer, sizeof fewer, ", or give --conv %zu layer%s", most, vae_s(most));
    }
    return vae_fail(err, VAE_ERR_USAGE,
                    "--conv: %zu layer%s need%s pictures whose height and width divide by %zu, and "
                    "these are %zu x %zu: resize them (picture files: --image-size %s%zu)%s",
                    n, vae_s(n), n > 1 ? "" : "s", by, shape.h, shape.w, smaller, above, fewer);
}

vae_status vae_layout_build(param_layout *layout, const vae_config *config, row_shape shape,
                            vae_error *err)
{
    const size_t C = vae_config_has_classes(config) ? config->classes : 0;
    const size_t d = shape.h * shape.w * shape.c, n_conv = config->conv.n;
    *layout = (param_layout){.d = d, .z = config->latent, .shape = shape, .c = C, .n_conv = n_conv};
    layout->n_encoder = n_conv + config->hidden.n + 1;
    layout->n_decoder = vae_config_decoder(config).n + 1 + n_conv;
    layout->n_classifier = config->semi_supervised ? n_conv + config->hidden.n + 1 : 0;
    if (check_shape(config, shape, err) != VAE_OK) {
        return VAE_ERR_USAGE;
    }
    if (vae_config_has_classes(config) && C == 0) {
        return vae_fail(err, VAE_ERR_USAGE, "a conditional model whose number of classes is 0");
    }
    layout->tensors = calloc(2 * VAE_MAX_LAYER_ROWS, sizeof(tensor_desc));
    if (layout->tensors == NULL) {
        return vae_fail_memory(err, 2 * VAE_MAX_LAYER_ROWS * sizeof(tensor_desc), "the layout");
    }
    vae_status status = VAE_OK;
    TRY(add_encoder(layout, config, shape, "encoder", C, !config->semi_supervised,
                    2 * config->latent, "head", err));
    TRY(add_decoder(layout, config, shape, err));
    if (layout->n_classifier > 0) {
        char last[24]; /* numbered like the others: it is no head with a name of its own */
        snprintf(last, sizeof last, "%zu", n_conv + config->hidden.n);
        TRY(add_encoder(layout, config, shape, "classifier", 0, false, C, last, err));
    }
done:
    if (status != VAE_OK) {
        vae_layout_clear(layout);
    }
    return status;
}

double vae_layer_products(const layer_desc *layer)
{
    const double out = (double)(layer->is_conv ? vae_conv_small(layer->conv) : layer->out);
    return out * (double)(layer->is_conv ? vae_conv_patch(layer->conv) : layer->in);
}

void vae_layout_clear(param_layout *layout)
{
    free(layout->tensors);
    *layout = (param_layout){0};
}

void vae_layout_pack(const param_layout *layout, float *packed, const float *flat)
{
    for (size_t i = 0; i < layout->n; i++) {
        const tensor_desc *t = &layout->tensors[i];
        for (size_t r = 0; r < t->rows; r++, packed += t->cols) {
            memcpy(packed, flat + t->offset + r * t->ld, t->cols * sizeof(float));
        }
    }
}

void vae_layout_unpack(const param_layout *layout, float *flat, const float *packed)
{
    for (size_t i = 0; i < layout->n; i++) {
        const tensor_desc *t = &layout->tensors[i];
        for (size_t r = 0; r < t->rows; r++, packed += t->cols) {
            float *row = flat + t->offset + r * t->ld;
            memcpy(row, packed, t->cols * sizeof(float));
            memset(row + t->cols, 0, (t->ld - t->cols) * sizeof(float));
        }
    }
}

/* Number `element` of tensor `tensor`: uniform in (-1,1), or standard normal. */
static float init_number(uint64_t seed, size_t tensor, size_t element, bool normal)
{
    vae_philox_words w = vae_philox(seed, vae_rng_stream(VAE_RNG_INIT, element), tensor);
    if (normal) {
        float a, b;
        vae_box_muller(w.w[0], w.w[1], &a, &b);
        return a;
    }
    return (float)(((double)w.w[0] + 0.5) / 2147483648.0 - 1.0);
}

static double weight_bound(vae_init init, size_t in, size_t out)
{
    switch (init) {
    case VAE_INIT_GLOROT:
        return sqrt(6.0 / (double)(in + out));
    case VAE_INIT_HE:
        return sqrt(2.0 / (double)in);
    case VAE_INIT_TORCH:
    default:
        return 1.0 / sqrt((double)in);
    }
}

/* Values that one output of a convolution is made of, and that one input reaches; a stride leaves
 * each only a part of the kernel. */
static void fans_of(const vae_conv *g, vae_init init, size_t *in, size_t *out)
{
    const size_t window = g->kernel * g->kernel, part = window / (g->stride * g->stride);
    *in = g->transposed ? g->c * part : g->C * window;
    *out = g->transposed ? g->C * window : g->c * part;
    if (g->transposed && init == VAE_INIT_TORCH) {
        *in = g->parts * g->C * window;
    }
}

void vae_layout_init(const param_layout *layout, float *flat, vae_init init, uint64_t seed)
{
    memset(flat, 0, layout->total * sizeof(float));
    for (size_t i = 0; i < layout->n; i++) {
        const tensor_desc *t = &layout->tensors[i];
        const layer_desc *layer = &layout->layers[i / 2];
        bool is_bias = i % 2 == 1;
        if (is_bias && init != VAE_INIT_TORCH) {
            continue;
        }
        /* The head and a learned-variance output are two layers in one matrix. */
        bool last = i / 2 == layout->n_encoder + layout->n_decoder - 1;
        bool two = i / 2 == layout->n_encoder - 1 || (last && layer->out == 2 * layout->d);
        size_t in = layer->in, out = two ? layer->out / 2 : layer->out;
        if (layer->is_conv) {
            fans_of(&layer->conv, init, &in, &out);
        }
        double bound = weight_bound(init, in, out);
        for (size_t e = 0; e < t->rows * t->cols; e++) {
            flat[t->offset + e / t->cols * t->ld + e % t->cols] =
                (float)(bound * init_number(seed, i, e, init == VAE_INIT_HE));
        }
    }
}
