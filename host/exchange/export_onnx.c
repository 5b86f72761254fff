/* Encoder, decoder and classifier as ONNX graphs. */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/file.h"
#include "base/text.h"
#include "base/version.h"
#include "exchange/exchange.h"
#include "format/onnx.h"
#include "vae_math.h"

/* A graph being written, with what its layers are made of. */
typedef struct {
    onnx_graph graph;
    const param_layout *layout;
    const float *params;
    const vae_named_tensor *tensors;
    size_t n_tensors;
    vae_activation act;
    const vae_likelihood_row *likelihood;
    bool sigmoid; /* the mean is the sigmoid of the last layer */
} builder;

static void add_scalar(builder *b, const char *name, float value)
{
    onnx_initializer(&b->graph, name, NULL, 0, &value, 1);
}

static void add_weights(builder *b, const char *name)
{
    for (size_t i = 0; i < b->n_tensors; i++) {
        const vae_named_tensor *t = &b->tensors[i];
        if (strcmp(t->name, name) == 0) {
            onnx_initializer(&b->graph, name, t->shape, t->ndim, b->params + t->offset, t->n);
        }
    }
}

/* Node `op` with integers as its second input. */
static void add_shaped(builder *b, const char *op, const char *input, const int64_t *integers,
                       size_t n, const char *output)
{
    char name[VAE_EXPORT_NAME + 8];
    snprintf(name, sizeof name, "%s.%s", output, n > 0 ? "shape" : "index");
    onnx_integers(&b->graph, name, integers, n);
    onnx_node(&b->graph, op, (const char *const[]){input, name, NULL}, output, NULL);
}

static void add_transpose(builder *b, const char *input, const int64_t *perm, size_t n,
                          const char *output)
{
    const onnx_attribute attribute = {.name = "perm", .ints = perm, .n_ints = n};
    onnx_node(&b->graph, "Transpose", (const char *const[]){input, NULL}, output, &attribute);
}

/* Rows (N, height*width*channels) to pictures (N, channels, height, width). */
static void add_picture(builder *b, const char *rows, vae_conv g, const char *output)
{
    static const int64_t perm[] = {0, 3, 1, 2};
    const int64_t shape[] = {0, (int64_t)g.H, (int64_t)g.W, (int64_t)g.C};
    char name[VAE_EXPORT_NAME + 8];
    snprintf(name, sizeof name, "%s.hwc", output);
    add_shaped(b, "Reshape", rows, shape, 4, name);
    add_transpose(b, name, perm, 4, output);
}

/* Values of each example in one row, as they lie. */
static void add_flatten(builder *b, const char *input, const char *output)
{
    static const int64_t shape[] = {0, -1};
    add_shaped(b, "Reshape", input, shape, 2, output);
}

/* output = input W^T + b */
static void add_linear(builder *b, size_t l, size_t half, const char *input, const char *output)
{
    static const onnx_attribute trans_b = {.name = "transB", .is_int = true, .i = 1};
    const layer_desc *of = &b->layout->layers[l];
    char layer[VAE_EXPORT_NAME], weight[VAE_EXPORT_NAME + 8], bias[VAE_EXPORT_NAME + 8];
    vae_export_layer_name(b->layout, l, half, layer);
    snprintf(weight, sizeof weight, "%s.weight", layer);
    snprintf(bias, sizeof bias, "%s.bias", layer);
    add_weights(b, weight);
    add_weights(b, bias);
    if (of->is_conv) {
        const int64_t stride = (int64_t)of->conv.stride, pad = (int64_t)of->conv.pad;
        const int64_t strides[] = {stride, stride}, pads[] = {pad, pad, pad, pad};
        const onnx_attribute attributes[] = {{.name = "strides", .ints = strides, .n_ints = 2},
                                             {.name = "pads", .ints = pads, .n_ints = 4}};
        onnx_node_with(&b->graph, of->conv.transposed ? "ConvTranspose" : "Conv",
                       (const char *const[]){input, weight, bias, NULL}, output, attributes, 2);
        return;
    }
    onnx_node(&b->graph, "Gemm", (const char *const[]){input, weight, bias, NULL}, output,
              &trans_b);
}

static void add_unary(builder *b, const char *op, const char *input, const char *output)
{
    onnx_node(&b->graph, op, (const char *const[]){input, NULL}, output, NULL);
}

static void add_binary(builder *b, const char *op, const char *left, const char *right,
                       const char *output)
{
    onnx_node(&b->graph, op, (const char *const[]){left, right, NULL}, output, NULL);
}

/* Opset 13 has no Gelu: x * 0.5 * (1 + erf(x / sqrt 2)). */
static void add_gelu(builder *b, const char *input, const char *output)
{
    char scaled[VAE_EXPORT_NAME + 8], erf[VAE_EXPORT_NAME + 8], cdf2[VAE_EXPORT_NAME + 8],
        half[VAE_EXPORT_NAME + 8];
    snprintf(scaled, sizeof scaled, "%s.scaled", output);
    snprintf(erf, sizeof erf, "%s.erf", output);
    snprintf(cdf2, sizeof cdf2, "%s.cdf2", output);
    snprintf(half, sizeof half, "%s.half", output);
    add_binary(b, "Mul", input, "sqrt_half", scaled);
    add_unary(b, "Erf", scaled, erf);
    add_binary(b, "Add", erf, "one", cdf2);
    add_binary(b, "Mul", input, "half", half);
    add_binary(b, "Mul", half, cdf2, output);
}

static void add_silu(builder *b, const char *input, const char *output)
{
    char sigmoid[VAE_EXPORT_NAME + 8];
    snprintf(sigmoid, sizeof sigmoid, "%s.sigmoid", output);
    add_unary(b, "Sigmoid", input, sigmoid);
    add_binary(b, "Mul", input, sigmoid, output);
}

static void add_activation(builder *b, const char *input, const char *output)
{
    static const onnx_attribute alpha = {.name = "alpha", .f = VAE_LEAKY_SLOPE};
    switch (b->act) {
    case VAE_ACT_RELU:
        add_unary(b, "Relu", input, output);
        break;
    case VAE_ACT_TANH:
        add_unary(b, "Tanh", input, output);
        break;
    case VAE_ACT_SOFTPLUS:
        add_unary(b, "Softplus", input, output);
        break;
    case VAE_ACT_LEAKY_RELU:
        onnx_node(&b->graph, "LeakyRelu", (const char *const[]){input, NULL}, output, &alpha);
        break;
    case VAE_ACT_GELU:
        add_gelu(b, input, output);
        break;
    case VAE_ACT_SILU:
        add_silu(b, input, output);
        break;
    case VAE_ACT_NONE:
    default:
        add_unary(b, "Identity", input, output);
    }
}

/* Between layers l-1 and l: what makes the one's output the other's input. `h` is its name. */
static void add_between(builder *b, size_t l, bool sees_class, char h[VAE_EXPORT_NAME])
{
    static const onnx_attribute axis = {.name = "axis", .is_int = true, .i = 1};
    const layer_desc *layer = &b->layout->layers[l];
    if (!layer->is_conv && layer[-1].is_conv) {
        add_flatten(b, h, "flat");
        snprintf(h, VAE_EXPORT_NAME, "flat");
        if (sees_class) {
            onnx_node(&b->graph, "Concat", (const char *const[]){h, "y", NULL}, "flat_y", &axis);
            snprintf(h, VAE_EXPORT_NAME, "flat_y");
        }
    } else if (layer->is_conv && !layer[-1].is_conv) {
        const vae_conv g = layer->conv;
        const int64_t shape[] = {0, (int64_t)g.c, (int64_t)g.h, (int64_t)g.w};
        add_shaped(b, "Reshape", h, shape, 4, "small");
        snprintf(h, VAE_EXPORT_NAME, "small");
    }
}

/* Hidden layers first..end-1, and what lies before layer `end`; `last` gets the name of what comes
 * out of them. */
static void add_hidden(builder *b, size_t first, size_t end, const char *input, bool sees_class,
                       char last[VAE_EXPORT_NAME])
{
    if (b->act == VAE_ACT_GELU && end > first) {
        add_scalar(b, "sqrt_half", 0.70710678f);
        add_scalar(b, "one", 1.0f);
        add_scalar(b, "half", 0.5f);
    }
    snprintf(last, VAE_EXPORT_NAME, "%s", input);
    if (b->layout->layers[first].is_conv) {
        add_picture(b, input, b->layout->layers[first].conv, "picture");
        snprintf(last, VAE_EXPORT_NAME, "picture");
    }
    for (size_t l = first; l < end; l++) {
        char pre[VAE_EXPORT_NAME], next[VAE_EXPORT_NAME];
        if (l > first) {
            add_between(b, l, sees_class, last);
        }
        snprintf(pre, sizeof pre, "pre%zu", l - first);
        snprintf(next, sizeof next, "h%zu", l - first);
        add_linear(b, l, 0, last, pre);
        add_activation(b, pre, next);
        memcpy(last, next, sizeof next);
    }
    if (end > first) {
        add_between(b, end, sees_class, last);
    }
}

/* The input of a first layer, with the class behind it where there is one; of a convolution, whose
 * class comes later, beside it. */
static const char *add_input(builder *b, const char *input, const char *joint, size_t cols)
{
    static const onnx_attribute axis = {.name = "axis", .is_int = true, .i = 1};
    onnx_input(&b->graph, input, cols);
    if (b->layout->c == 0) {
        return input;
    }
    onnx_input(&b->graph, "y", b->layout->c);
    if (strcmp(input, "x") == 0 && b->layout->n_conv > 0) {
        return input;
    }
    onnx_node(&b->graph, "Concat", (const char *const[]){input, "y", NULL}, joint, &axis);
    return joint;
}

static void build_encoder(builder *b)
{
    char h[VAE_EXPORT_NAME];
    const size_t head = b->layout->n_encoder - 1;
    add_hidden(b, 0, head, add_input(b, "x", "xy", b->layout->d), b->layout->c > 0, h);
    add_linear(b, head, 0, h, "mu");
    add_linear(b, head, 1, h, "logvar");
    onnx_output(&b->graph, "mu", b->layout->z);
    onnx_output(&b->graph, "logvar", b->layout->z);
}

/* logvar = MIN + softplus(raw - MIN), as vae_bounded_logvar. */
static void add_bounded_logvar(builder *b)
{
    add_scalar(b, "minus_logvar_min", -VAE_LOGVAR_MIN);
    add_scalar(b, "logvar_min", VAE_LOGVAR_MIN);
    add_binary(b, "Add", "logvar_raw", "minus_logvar_min", "logvar_shifted");
    add_unary(b, "Softplus", "logvar_shifted", "logvar_soft");
    add_binary(b, "Add", "logvar_soft", "logvar_min", "logvar");
    onnx_output(&b->graph, "logvar", b->layout->d);
}

/* The output of a decoder that ends in a convolution: pictures to rows, the mean's in `mean` and
 * the raw log variance's, where that is learned, in logvar_raw. */
static void add_rows(builder *b, const char *pictures, vae_conv g, const char *mean)
{
    static const int64_t one[] = {0, 2, 3, 1}, two[] = {1, 0, 3, 4, 2}, index[] = {0, 1};
    const int64_t shape[] = {0, 2, (int64_t)g.C, (int64_t)g.H, (int64_t)g.W};
    if (g.parts == 1) {
        add_transpose(b, pictures, one, 4, "hwc");
        add_flatten(b, "hwc", mean);
        return;
    }
    add_shaped(b, "Reshape", pictures, shape, 5, "parts");
    add_transpose(b, "parts", two, 5, "parts_hwc");
    add_shaped(b, "Gather", "parts_hwc", &index[0], 0, "mean_hwc");
    add_flatten(b, "mean_hwc", mean);
    add_shaped(b, "Gather", "parts_hwc", &index[1], 0, "logvar_hwc");
    add_flatten(b, "logvar_hwc", "logvar_raw");
}

static void build_decoder(builder *b)
{
    char h[VAE_EXPORT_NAME];
    const size_t first = b->layout->n_encoder, output = first + b->layout->n_decoder - 1;
    add_hidden(b, first, output, add_input(b, "z", "zy", b->layout->z), false, h);
    const layer_desc *last = &b->layout->layers[output];
    const char *mean = b->sigmoid ? "logits" : "mean";
    add_linear(b, output, 0, h, last->is_conv ? "pictures" : mean);
    if (last->is_conv) {
        add_rows(b, "pictures", last->conv, mean);
    }
    if (b->likelihood->sigmoid) {
        add_unary(b, "Sigmoid", "logits", "probabilities");
        onnx_output(&b->graph, "logits", b->layout->d);
        onnx_output(&b->graph, "probabilities", b->layout->d);
        return;
    }
    if (b->sigmoid) {
        add_unary(b, "Sigmoid", "logits", "mean");
    }
    onnx_output(&b->graph, "mean", b->layout->d);
    if (b->likelihood->outputs == 2) {
        if (!last->is_conv) {
            add_linear(b, output, 1, h, "logvar_raw");
        }
        add_bounded_logvar(b);
    }
}

static void build_classifier(builder *b)
{
    static const onnx_attribute axis = {.name = "axis", .is_int = true, .i = 1};
    char h[VAE_EXPORT_NAME];
    const size_t first = b->layout->n_encoder + b->layout->n_decoder;
    const size_t output = first + b->layout->n_classifier - 1;
    onnx_input(&b->graph, "x", b->layout->d);
    add_hidden(b, first, output, "x", false, h);
    add_linear(b, output, 0, h, "logits");
    onnx_node(&b->graph, "Softmax", (const char *const[]){"logits", NULL}, "probabilities", &axis);
    onnx_output(&b->graph, "logits", b->layout->c);
    onnx_output(&b->graph, "probabilities", b->layout->c);
}

/* Begins the file and fills it; vae_files_end puts all graphs in their places. */
static vae_status write_graph(vae_file *file, const char *path, const char *name,
                              void (*build)(builder *b), builder *b, const vae_metadata *metadata,
                              vae_error *err)
{
    vae_status status = VAE_OK;
    const char *pairs[VAE_METADATA_PAIRS][2];
    for (size_t i = 0; i < metadata->n; i++) {
        pairs[i][0] = metadata->pairs[i].key;
        pairs[i][1] = metadata->pairs[i].value;
    }
    b->graph = (onnx_graph){0};
    build(b);
    pb_buffer model =
        onnx_model(&b->graph, name, vae_build_version, (const char *const(*)[2])pairs, metadata->n);
    if (model.failed) {
        TRY(vae_fail(err, VAE_ERR_RUNTIME, "%s: out of memory", path));
    }
    if (model.n > INT32_MAX) {
        TRY(vae_fail(err, VAE_ERR_USAGE,
                     "%s: the model needs %zu bytes and an ONNX file holds 2 GiB; use "
                     "--format safetensors",
                     path, model.n));
    }
    TRY(vae_file_begin(file, path, err));
    TRY(vae_file_add(file, model.bytes, model.n, err));
done:
    pb_free(&model);
    return status;
}

vae_status vae_export_onnx_paths(vae_onnx_paths *paths, const char *out, const vae_config *config,
                                 vae_error *err)
{
    size_t n = strlen(out);
    bool folder;
    vae_status status = VAE_OK;
    *paths = (vae_onnx_paths){.encoder = ""};
    if (n == 0 || n >= VAE_PATH) {
        TRY(vae_fail(err, VAE_ERR_USAGE, "--out: expected a name of 1 to %d bytes, found %zu",
                     VAE_PATH - 1, n));
    }
    TRY(vae_is_folder(&folder, out, err));
    folder = folder || vae_ends_with(out, "/");
    if (n > 5 && !folder && strcmp(out + n - 5, ".onnx") == 0) {
        n -= 5;
    }
    const char *joint = folder ? "/" : ".";
    if (out[n - 1] == '/') {
        joint = "";
    }
    const int length = (int)n;
    snprintf(paths->encoder, sizeof paths->encoder, "%.*s%sencoder.onnx", length, out, joint);
    snprintf(paths->decoder, sizeof paths->decoder, "%.*s%sdecoder.onnx", length, out, joint);
    paths->classifier[0] = '\0';
    if (config->semi_supervised) {
        snprintf(paths->classifier, sizeof paths->classifier, "%.*s%sclassifier.onnx", length, out,
                 joint);
    }
done:
    return status;
}

static vae_status write_graphs(const vae_onnx_paths *paths, builder *b,
                               const vae_metadata *metadata, vae_error *err)
{
    enum { GRAPHS = 3 };
    vae_file files[GRAPHS] = {{.open = false}};
    vae_status status = VAE_OK;
    TRY(write_graph(&files[0], paths->encoder, "encoder", build_encoder, b, metadata, err));
    TRY(write_graph(&files[1], paths->decoder, "decoder", build_decoder, b, metadata, err));
    if (paths->classifier[0] != '\0') {
        TRY(write_graph(&files[2], paths->classifier, "classifier", build_classifier, b, metadata,
                        err));
    }
    return vae_files_end(files, GRAPHS, true, err);
done:
    vae_files_end(files, GRAPHS, false, NULL);
    return status;
}

vae_status vae_export_onnx(const vae_onnx_paths *paths, const vae_checkpoint *checkpoint,
                           vae_error *err)
{
    param_layout layout = {0};
    vae_metadata metadata = {0};
    vae_named_tensor tensors[VAE_EXPORT_TENSORS];
    float *params = NULL;
    vae_status status = VAE_OK;
    TRY(vae_layout_build(&layout, &checkpoint->config, vae_checkpoint_shape(checkpoint), err));
    TRY(vae_metadata_build(&metadata, checkpoint, err));
    params = malloc(layout.n_params * sizeof *params);
    if (params == NULL) {
        TRY(vae_fail_memory(err, layout.n_params * sizeof *params, "weights"));
    }
    vae_export_order(&layout, checkpoint->params, params, false);
    builder b = {.layout = &layout,
                 .params = params,
                 .tensors = tensors,
                 .n_tensors = vae_export_tensors(&layout, tensors),
                 .act = checkpoint->config.activation,
                 .likelihood = vae_likelihood_of(checkpoint->config.likelihood),
                 .sigmoid =
                     vae_mean_is_sigmoid(checkpoint->config.likelihood, checkpoint->config.mean)};
    TRY(write_graphs(paths, &b, &metadata, err));
done:
    free(params);
    vae_metadata_clear(&metadata);
    vae_layout_clear(&layout);
    return status;
}
