/* ONNX models as protobuf bytes: just the messages that a graph of a few operators needs
 * (onnx.proto3, IR version 8, opset 13). Failed allocations stick in a buffer and are asked for
 * once, at the end. */
#ifndef VAE_ONNX_H
#define VAE_ONNX_H

#include "format/protobuf.h"

/* A graph: its nodes, initializers, inputs and outputs are fields of one message. */
typedef struct {
    pb_buffer body;
    size_t n_nodes;
} onnx_graph;

/* An attribute: a float, an integer, or a list of n_ints integers. */
typedef struct {
    const char *name;
    bool is_int;
    float f;
    int64_t i;
    const int64_t *ints; /* NULL: no list */
    size_t n_ints;
} onnx_attribute;
/* A node NAME of operator `op` with n attributes; inputs end in NULL. */
void onnx_node_with(onnx_graph *g, const char *op, const char *const *inputs, const char *output,
                    const onnx_attribute *attributes, size_t n);
/* The same with one attribute, or none (NULL). */
void onnx_node(onnx_graph *g, const char *op, const char *const *inputs, const char *output,
               const onnx_attribute *attribute);

/* A float32 tensor of shape (shape...) named `name`. ndim 0 is a scalar. */
void onnx_initializer(onnx_graph *g, const char *name, const size_t *shape, size_t ndim,
                      const float *values, size_t n);

/* An int64 tensor of shape (n), or a scalar where n is 0, whose value is values[0]. */
void onnx_integers(onnx_graph *g, const char *name, const int64_t *values, size_t n);

/* float32 inputs and outputs of shape (N, cols), N any. */
void onnx_input(onnx_graph *g, const char *name, size_t cols);
void onnx_output(onnx_graph *g, const char *name, size_t cols);

/* The model of a graph. metadata: n key, value pairs. The graph's buffer is consumed.
 * Returned buffer: check `failed`. */
pb_buffer onnx_model(onnx_graph *g, const char *graph_name, const char *version,
                     const char *const (*metadata)[2], size_t n);

#endif
