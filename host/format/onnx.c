/* ONNX: the messages of a graph. */
#include "format/onnx.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

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

static void put_attribute(pb_buffer *node, const onnx_attribute *attribute)
{
    pb_buffer a = {0};
    pb_text(&a, 1, attribute->name);
    for (size_t i = 0; attribute->ints != NULL && i < attribute->n_ints; i++) {
        pb_int(&a, 8, (uint64_t)attribute->ints[i]);
    }
    if (attribute->ints != NULL) {
        pb_int(&a, 20, ATTRIBUTE_INTS);
        pb_message(node, 5, &a);
        return;
    }
    if (attribute->is_int) {
        pb_int(&a, 3, (uint64_t)attribute->i);
    } else {
        pb_float(&a, 2, attribute->f);
    }
    pb_int(&a, 20, attribute->is_int ? ATTRIBUTE_INT : ATTRIBUTE_FLOAT);
    pb_message(node, 5, &a);
}

void onnx_node_with(onnx_graph *g, const char *op, const char *const *inputs, const char *output,
                    const onnx_attribute *attributes, size_t n)
{
    pb_buffer node = {0};
    char name[64];
    for (; *inputs != NULL; inputs++) {
        pb_text(&node, 1, *inputs);
    }
    pb_text(&node, 2, output);
    snprintf(name, sizeof name, "%s_%zu", op, g->n_nodes++);
    pb_text(&node, 3, name);
    pb_text(&node, 4, op);
    for (size_t i = 0; i < n; i++) {
        put_attribute(&node, &attributes[i]);
    }
    pb_message(&g->body, 1, &node);
}

void onnx_node(onnx_graph *g, const char *op, const char *const *inputs, const char *output,
               const onnx_attribute *attribute)
{
    onnx_node_with(g, op, inputs, output, attribute, attribute != NULL ? 1 : 0);
}

void onnx_integers(onnx_graph *g, const char *name, const int64_t *values, size_t n)
{
    pb_buffer tensor = {0};
    if (n > 0) {
        pb_int(&tensor, 1, n);
    }
    pb_int(&tensor, 2, TYPE_INT64);
    pb_text(&tensor, 8, name);
    pb_bytes(&tensor, 9, values, (n > 0 ? n : 1) * sizeof *values);
    pb_message(&g->body, 5, &tensor);
}

void onnx_initializer(onnx_graph *g, const char *name, const size_t *shape, size_t ndim,
                      const float *values, size_t n)
{
    pb_buffer tensor = {0};
    for (size_t i = 0; i < ndim; i++) {
        pb_int(&tensor, 1, shape[i]);
    }
    pb_int(&tensor, 2, TYPE_FLOAT);
    pb_text(&tensor, 8, name);
    pb_bytes(&tensor, 9, values, n * sizeof *values);
    pb_message(&g->body, 5, &tensor);
}

/* ValueInfo -> TypeProto -> Tensor -> TensorShapeProto -> Dimension */
static void put_value_info(onnx_graph *g, unsigned field, const char *name, size_t cols)
{
    pb_buffer batch = {0}, columns = {0}, shape = {0}, tensor = {0}, type = {0}, info = {0};
    pb_text(&batch, 2, "N");
    pb_int(&columns, 1, cols);
    pb_message(&shape, 1, &batch);
    pb_message(&shape, 1, &columns);
    pb_int(&tensor, 1, TYPE_FLOAT);
    pb_message(&tensor, 2, &shape);
    pb_message(&type, 1, &tensor);
    pb_text(&info, 1, name);
    pb_message(&info, 2, &type);
    pb_message(&g->body, field, &info);
}

void onnx_input(onnx_graph *g, const char *name, size_t cols)
{
    put_value_info(g, 11, name, cols);
}

void onnx_output(onnx_graph *g, const char *name, size_t cols)
{
    put_value_info(g, 12, name, cols);
}

pb_buffer onnx_model(onnx_graph *g, const char *graph_name, const char *version,
                     const char *const (*metadata)[2], size_t n)
{
    pb_buffer model = {0}, opset = {0};
    pb_text(&g->body, 2, graph_name);
    pb_int(&model, 1, IR_VERSION);
    pb_text(&model, 2, "vae");
    pb_text(&model, 3, version);
    pb_message(&model, 7, &g->body);
    pb_text(&opset, 1, "");
    pb_int(&opset, 2, OPSET);
    pb_message(&model, 8, &opset);
    for (size_t i = 0; i < n; i++) {
        pb_buffer pair = {0};
        pb_text(&pair, 1, metadata[i][0]);
        pb_text(&pair, 2, metadata[i][1]);
        pb_message(&model, 14, &pair);
    }
    return model;
}
