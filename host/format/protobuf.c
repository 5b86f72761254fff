/* Protobuf's wire format. Little-endian machines only, as all of this program. */
#include "format/protobuf.h"

#include <stdlib.h>
#include <string.h>

enum { VARINT = 0, EIGHT_BYTES = 1, LENGTH = 2, FOUR_BYTES = 5 }; /* wire types */

void pb_append(pb_buffer *b, const void *bytes, size_t n)
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

static void varint(pb_buffer *b, uint64_t value)
{
    uint8_t bytes[10];
    size_t n = 0;
    do {
        bytes[n++] = (uint8_t)((value & 0x7f) | (value > 0x7f ? 0x80 : 0));
        value >>= 7;
    } while (value > 0);
    pb_append(b, bytes, n);
}

void pb_int(pb_buffer *b, unsigned field, uint64_t value)
{
    varint(b, field << 3 | VARINT);
    varint(b, value);
}

void pb_float(pb_buffer *b, unsigned field, float value)
{
    varint(b, field << 3 | FOUR_BYTES);
    pb_append(b, &value, sizeof value);
}

void pb_double(pb_buffer *b, unsigned field, double value)
{
    varint(b, field << 3 | EIGHT_BYTES);
    pb_append(b, &value, sizeof value);
}

void pb_doubles(pb_buffer *b, unsigned field, const double *values, size_t n)
{
    pb_bytes(b, field, values, n * sizeof *values);
}

void pb_bytes(pb_buffer *b, unsigned field, const void *bytes, size_t n)
{
    varint(b, field << 3 | LENGTH);
    varint(b, n);
    pb_append(b, bytes, n);
}

void pb_text(pb_buffer *b, unsigned field, const char *text)
{
    pb_bytes(b, field, text, strlen(text));
}

void pb_message(pb_buffer *b, unsigned field, pb_buffer *message)
{
    pb_bytes(b, field, message->bytes, message->n);
    b->failed = b->failed || message->failed;
    pb_free(message);
}

void pb_free(pb_buffer *b)
{
    free(b->bytes);
    *b = (pb_buffer){0};
}
