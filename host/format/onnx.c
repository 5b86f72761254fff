/* ONNX: protobuf by hand, as little of it as a graph needs. */
#include "format/onnx.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* ---- protobuf ---- */

static void append(onnx_buffer *b, const void *bytes, size_t n)
{
    if (b->failed || n == 0) {
        return;
    }
    if (n > b->capacity - b->n) {
        size_t capacity = b->n + n > 2 * b->capacity ? b->n + n + 64 : 2 * b->capacity;
        uint8_t *more = realloc(b->bytes, capacity);
        if (more == NULL) {
            b->failed = true;
            return;
        }
        b->bytes = more;
        b->capacity = capacity;
    }
    memcpy(b->bytes + b->n, bytes, n);
    b->n += n;
}

static void put_varint(onnx_buffer *b, uint64_t value)
{
    uint8_t bytes[10];
    size_t n = 0;
    do {
        bytes[n++] = (uint8_t)((value & 0x7f) | (value > 0x7f ? 0x80 : 0));
        value >>= 7;
    } while (value > 0);
    append(b, bytes, n);
}

static void put_int(onnx_buffer *b, unsigned field, uint64_t value)
{
    put_varint(b, field << 3 | 0);
    put_varint(b, value);
}

static void put_bytes(onnx_buffer *b, unsigned field, const void *bytes, size_t n)
{
    put_varint(b, field << 3 | 2);
    put_varint(b, n);
    append(b, bytes, n);
}

static void put_text(onnx_buffer *b, unsigned field, const char *text)
{
    put_bytes(b, field, text, strlen(text));
}

/* A finished message as a field; it is freed. */
static void put_message(onnx_buffer *b, unsigned field, onnx_buffer *message)
{
    put_bytes(b, field, message->bytes, message->n);
    b->failed = b->failed || message->failed;
    onnx_free(message);
}

void onnx_free(onnx_buffer *b)
{
    free(b->bytes);
    *b = (onnx_buffer){0};
}

/* ---- ONNX; field numbers are onnx.proto3's ---- */

enum {
    TYPE_FLOAT = 1,
    TYPE_INT64 = 7,
    ATTRIBUTE_FLOAT = 1,
    ATTRIBUTE_INT = 2,
    ATTRIBUTE_INTS = 7,
    IR_VERSION = 8,
    OPSET = 13
};

static void put_attribute(onnx_buffer *node, const onnx_attribute *attribute)
{
    onnx_buffer a = {0};
    put_text(&a, 1, attribute->name);
    for (size_t i = 0; attribute->ints != NULL && i < attribute->n_ints; i++) {
        put_int(&a, 8, (uint64_t)attribute->ints[i]);
    }
    if (attribute->ints != NULL) {
        put_int(&a, 20, ATTRIBUTE_INTS);
        put_message(node, 5, &a);
        return;
    }
    if (attribute->is_int) {
        put_int(&a, 3, (uint64_t)attribute->i);
    } else {
        put_varint(&a, 2 << 3 | 5);
        append(&a, &attribute->f, sizeof attribute->f);
    }
    put_int(&a, 20, attribute->is_int ? ATTRIBUTE_INT : ATTRIBUTE_FLOAT);
    put_message(node, 5, &a);
}

void onnx_node_with(onnx_graph *g, const char *op, const char *const *inputs, const char *output,
                    const onnx_attribute *attributes, size_t n)
{
    onnx_buffer node = {0};
    char name[64];
    for (; *inputs != NULL; inputs++) {
        put_text(&node, 1, *inputs);
    }
    put_text(&node, 2, output);
    snprintf(name, sizeof name, "%s_%zu", op, g->n_nodes++);
    put_text(&node, 3, name);
    put_text(&node, 4, op);
    for (size_t i = 0; i < n; i++) {
        put_attribute(&node, &attributes[i]);
    }
    put_message(&g->body, 1, &node);
}

void onnx_node(onnx_graph *g, const char *op, const char *const *inputs, const char *output,
               const onnx_attribute *attribute)
{
    onnx_node_with(g, op, inputs, output, attribute, attribute != NULL ? 1 : 0);
}

void onnx_integers(onnx_graph *g, const char *name, const int64_t *values, size_t n)
{
    onnx_buffer tensor = {0};
    if (n > 0) {
        put_int(&tensor, 1, n);
    }
    put_int(&tensor, 2, TYPE_INT64);
    put_text(&tensor, 8, name);
    put_bytes(&tensor, 9, values, (n > 0 ? n : 1) * sizeof *values);
    put_message(&g->body, 5, &tensor);
}

void onnx_initializer(onnx_graph *g, const char *name, const size_t *shape, size_t ndim,
                      const float *values, size_t n)
{
    onnx_buffer tensor = {0};
    for (size_t i = 0; i < ndim; i++) {
        put_int(&tensor, 1, shape[i]);
    }
    put_int(&tensor, 2, TYPE_FLOAT);
    put_text(&tensor, 8, name);
    put_bytes(&tensor, 9, values, n * sizeof *values);
    put_message(&g->body, 5, &tensor);
}

/* ValueInfo -> TypeProto -> Tensor -> TensorShapeProto -> Dimension */
static void put_value_info(onnx_graph *g, unsigned field, const char *name, size_t cols)
{
    onnx_buffer batch = {0}, columns = {0}, shape = {0}, tensor = {0}, type = {0}, info = {0};
    put_text(&batch, 2, "N");
    put_int(&columns, 1, cols);
    put_message(&shape, 1, &batch);
    put_message(&shape, 1, &columns);
    put_int(&tensor, 1, TYPE_FLOAT);
    put_message(&tensor, 2, &shape);
    put_message(&type, 1, &tensor);
    put_text(&info, 1, name);
    put_message(&info, 2, &type);
    put_message(&g->body, field, &info);
}

void onnx_input(onnx_graph *g, const char *name, size_t cols)
{
    put_value_info(g, 11, name, cols);
}

void onnx_output(onnx_graph *g, const char *name, size_t cols)
{
    put_value_info(g, 12, name, cols);
}

onnx_buffer onnx_model(onnx_graph *g, const char *graph_name, const char *version,
                       const char *const (*metadata)[2], size_t n)
{
    onnx_buffer model = {0}, opset = {0};
    put_text(&g->body, 2, graph_name);
    put_int(&model, 1, IR_VERSION);
    put_text(&model, 2, "vae");
    put_text(&model, 3, version);
    put_message(&model, 7, &g->body);
    put_text(&opset, 1, "");
    put_int(&opset, 2, OPSET);
    put_message(&model, 8, &opset);
    for (size_t i = 0; i < n; i++) {
        onnx_buffer pair = {0};
        put_text(&pair, 1, metadata[i][0]);
        put_text(&pair, 2, metadata[i][1]);
        put_message(&model, 14, &pair);
    }
    return model;
}
