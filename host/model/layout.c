/* Building the parameter layout, packing by it, and initial parameters. */
#include "model/layout.h"

#include <math.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

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
    *layer = (layer_desc){in, out, layout->n, layout->n + 1, act};
    vae_status status = VAE_OK;
    TRY(add_tensor(layout, out, in, side, name, "weight", err));
    TRY(add_tensor(layout, 1, out, side, name, "bias", err));
done:
    return status;
}

/* The hidden layers of one side and the linear layer that ends it. */
static vae_status add_side(param_layout *layout, const char *side, size_t in, vae_sizes hidden,
                           size_t out, const char *last, vae_activation act, vae_error *err)
{
    vae_status status = VAE_OK;
    for (size_t i = 0; i < hidden.n; i++) {
        char name[24];
        snprintf(name, sizeof name, "%zu", i);
        TRY(add_layer(layout, in, hidden.size[i], act, side, name, err));
        in = hidden.size[i];
    }
    TRY(add_layer(layout, in, out, VAE_ACT_NONE, side, last, err));
done:
    return status;
}

vae_status vae_layout_build(param_layout *layout, const vae_config *config, size_t d,
                            vae_error *err)
{
    const size_t C = vae_config_has_classes(config) ? config->classes : 0;
    *layout = (param_layout){.d = d, .z = config->latent, .c = C};
    vae_sizes decoder = vae_config_decoder(config);
    layout->n_encoder = config->hidden.n + 1;
    layout->n_decoder = decoder.n + 1;
    layout->n_classifier = config->semi_supervised ? config->hidden.n + 1 : 0;
    if (vae_config_has_classes(config) && C == 0) {
        return vae_fail(err, VAE_ERR_USAGE, "a conditional model whose number of classes is 0");
    }
    layout->tensors = calloc(2 * VAE_MAX_LAYER_ROWS, sizeof(tensor_desc));
    if (layout->tensors == NULL) {
        return vae_fail_memory(err, 2 * VAE_MAX_LAYER_ROWS * sizeof(tensor_desc), "the layout");
    }
    const size_t outputs = vae_likelihood_of(config->likelihood)->outputs * d;
    vae_status status = VAE_OK;
    TRY(add_side(layout, "encoder", d + C, config->hidden, 2 * config->latent, "head",
                 config->activation, err));
    TRY(add_side(layout, "decoder", config->latent + C, decoder, outputs, "out", config->activation,
                 err));
    if (layout->n_classifier > 0) {
        char last[24]; /* numbered like the others: it is no head with a name of its own */
        snprintf(last, sizeof last, "%zu", config->hidden.n);
        TRY(add_side(layout, "classifier", d, config->hidden, C, last, config->activation, err));
    }
done:
    if (status != VAE_OK) {
        vae_layout_clear(layout);
    }
    return status;
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
        double bound = weight_bound(init, layer->in, two ? layer->out / 2 : layer->out);
        for (size_t e = 0; e < t->rows * t->cols; e++) {
            flat[t->offset + e / t->cols * t->ld + e % t->cols] =
                (float)(bound * init_number(seed, i, e, init == VAE_INIT_HE));
        }
    }
}
