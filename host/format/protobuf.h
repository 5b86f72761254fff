/* Protobuf bytes by hand: as much of its wire format as ONNX graphs and TensorBoard's events need.
 * Failed allocations stick in a buffer and are asked for once, at the end. */
#ifndef VAE_PROTOBUF_H
#define VAE_PROTOBUF_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* A message in the making. Zero-initialize it; pb_free. */
typedef struct {
    uint8_t *bytes;
    size_t n, capacity;
    bool failed; /* out of memory */
} pb_buffer;

void pb_free(pb_buffer *b);

/* Bytes as they are, no field. */
void pb_append(pb_buffer *b, const void *bytes, size_t n);
/* Fields; doubles: n of them, packed. */
void pb_int(pb_buffer *b, unsigned field, uint64_t value);
void pb_float(pb_buffer *b, unsigned field, float value);
void pb_double(pb_buffer *b, unsigned field, double value);
void pb_doubles(pb_buffer *b, unsigned field, const double *values, size_t n);
void pb_bytes(pb_buffer *b, unsigned field, const void *bytes, size_t n);
void pb_text(pb_buffer *b, unsigned field, const char *text);
/* A finished message as a field; it is freed. */
void pb_message(pb_buffer *b, unsigned field, pb_buffer *message);

#endif
