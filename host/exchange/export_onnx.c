/* Encoder, decoder and classifier as ONNX graphs. */
#include <stdint.h>
#include <stdio.h>
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

/* output = input W^T + b */
static void add_linear(builder *b, size_t l, size_t half, const char *input, const char *output)
{
    static const onnx_attribute trans_b = {.name = "transB", .is_int = true, .i = 1};
    char layer[VAE_EXPORT_NAME], weight[VAE_EXPORT_NAME + 8], bias[VAE_EXPORT_NAME + 8];
    vae_export_layer_name(b->layout, l, half, layer);
    snprintf(weight, sizeof weight, "%s.weight", layer);
    snprintf(bias, sizeof bias, "%s.bias", layer);
    add_weights(b, weight);
    add_weights(b, bias);
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

/* Hidden layers first..end-1; `last` gets the name of what comes out of them. */
static void add_hidden(builder *b, size_t first, size_t end, const char *input,
                       char last[VAE_EXPORT_NAME])
{
    if (b->act == VAE_ACT_GELU && end > first) {
        add_scalar(b, "sqrt_half", 0.70710678f);
        add_scalar(b, "one", 1.0f);
        add_scalar(b, "half", 0.5f);
    }
    snprintf(last, VAE_EXPORT_NAME, "%s", input);
    for (size_t l = first; l < end; l++) {
        char pre[VAE_EXPORT_NAME], next[VAE_EXPORT_NAME];
        snprintf(pre, sizeof pre, "pre%zu", l - first);
        snprintf(next, sizeof next, "h%zu", l - first);
        add_linear(b, l, 0, last, pre);
        add_activation(b, pre, next);
        memcpy(last, next, sizeof next);
    }
}

/* The input of a first layer, with the class behind it where there is one. */
static const char *add_input(builder *b, const char *input, const char *joint, size_t cols)
{
    static const onnx_attribute axis = {.name = "axis", .is_int = true, .i = 1};
    onnx_input(&b->graph, input, cols);
    if (b->layout->c == 0) {
        return input;
    }
    onnx_input(&b->graph, "y", b->layout->c);
    onnx_node(&b->graph, "Concat", (const char *const[]){input, "y", NULL}, joint, &axis);
    return joint;
}

static void build_encoder(builder *b)
{
    char h[VAE_EXPORT_NAME];
    const size_t head = b->layout->n_encoder - 1;
    add_hidden(b, 0, head, add_input(b, "x", "xy", b->layout->d), h);
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

static void build_decoder(builder *b)
{
    char h[VAE_EXPORT_NAME];
    const size_t first = b->layout->n_encoder, output = first + b->layout->n_decoder - 1;
    add_hidden(b, first, output, add_input(b, "z", "zy", b->layout->z), h);
    if (b->likelihood->sigmoid) {
        add_linear(b, output, 0, h, "logits");
        add_unary(b, "Sigmoid", "logits", "probabilities");
        onnx_output(&b->graph, "logits", b->layout->d);
        onnx_output(&b->graph, "probabilities", b->layout->d);
        return;
    }
    add_linear(b, output, 0, h, "mean");
    onnx_output(&b->graph, "mean", b->layout->d);
    if (b->likelihood->outputs == 2) {
        add_linear(b, output, 1, h, "logvar_raw");
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
    add_hidden(b, first, output, "x", h);
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
    onnx_buffer model =
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
    onnx_free(&model);
    return status;
}

vae_status vae_export_onnx_paths(vae_onnx_paths *paths, const char *out, const vae_config *config,
                                 vae_error *err)
{
    size_t n = strlen(out);
    const bool folder = vae_ends_with(out, "/") || vae_is_folder(out);
    if (n == 0 || n >= VAE_PATH) {
        return vae_fail(err, VAE_ERR_USAGE, "--out: expected a name of 1 to %d bytes, found %zu",
                        VAE_PATH - 1, n);
    }
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
    return VAE_OK;
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
    vae_status status = VAE_OK;
    TRY(vae_layout_build(&layout, &checkpoint->config, checkpoint->d, err));
    TRY(vae_metadata_build(&metadata, checkpoint, err));
    builder b = {.layout = &layout,
                 .params = checkpoint->params,
                 .tensors = tensors,
                 .n_tensors = vae_export_tensors(&layout, tensors),
                 .act = checkpoint->config.activation,
                 .likelihood = vae_likelihood_of(checkpoint->config.likelihood)};
    TRY(write_graphs(paths, &b, &metadata, err));
done:
    vae_metadata_clear(&metadata);
    vae_layout_clear(&layout);
    return status;
}
