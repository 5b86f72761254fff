/* TensorBoard's event files. */
#include "format/tfevents.h"

#include <math.h>
#include <string.h>

/* CRC-32C (Castagnoli), bit-reflected, as RFC 3720 has it; masked as tensorflow's lib/hash/crc32c.h
 * masks what is stored beside the data that it is of. */
static uint32_t masked_crc(const void *bytes, size_t n)
{
    const uint8_t *b = bytes;
    uint32_t crc = ~0u;
    for (size_t i = 0; i < n; i++) {
        crc ^= b[i];
        for (int k = 0; k < 8; k++) {
            crc = crc >> 1 ^ (crc & 1 ? 0x82f63b78u : 0);
        }
    }
    crc = ~crc;
    return (crc >> 15 | crc << 17) + 0xa282ead8u;
}

enum { HEAD = sizeof(uint64_t) + sizeof(uint32_t), TAIL = sizeof(uint32_t) };

static pb_buffer record(pb_buffer *event)
{
    pb_buffer r = {.failed = event->failed};
    const uint64_t length = event->n;
    const uint32_t of_length = masked_crc(&length, sizeof length);
    const uint32_t of_event = masked_crc(event->bytes, event->n);
    pb_append(&r, &length, sizeof length);
    pb_append(&r, &of_length, sizeof of_length);
    pb_append(&r, event->bytes, event->n);
    pb_append(&r, &of_event, sizeof of_event);
    pb_free(event);
    return r;
}

/* ---- values; field numbers are summary.proto's ---- */

void tf_scalar(tf_event *e, const char *tag, double value)
{
    pb_buffer v = {0};
    pb_text(&v, 1, tag);
    pb_float(&v, 2, (float)value);
    pb_message(&e->summary, 1, &v);
}

static uint32_t big_endian(const uint8_t *b)
{
    return (uint32_t)b[0] << 24 | (uint32_t)b[1] << 16 | (uint32_t)b[2] << 8 | b[3];
}

bool tf_image(tf_event *e, const char *tag, const uint8_t *png, size_t n)
{
    enum { WIDTH_AT = 16, HEIGHT_AT = 20, COLOUR_AT = 25, IHDR_END = 33 };
    static const uint8_t signature[8] = {0x89, 'P', 'N', 'G', '\r', '\n', 0x1a, '\n'};
    pb_buffer v = {0}, image = {0};
    if (n < IHDR_END || memcmp(png, signature, sizeof signature) != 0) {
        return false;
    }
    pb_int(&image, 1, big_endian(png + HEIGHT_AT));
    pb_int(&image, 2, big_endian(png + WIDTH_AT));
    pb_int(&image, 3, png[COLOUR_AT] == 0 ? 1 : 3); /* channels */
    pb_bytes(&image, 4, png, n);
    pb_text(&v, 1, tag);
    pb_message(&v, 4, &image);
    pb_message(&e->summary, 1, &v);
    return true;
}

void tf_histogram(tf_event *e, const char *tag, const double *values, size_t n)
{
    enum { BUCKETS = 30 };
    double limit[BUCKETS], count[BUCKETS] = {0}, sum = 0, squares = 0;
    double low = INFINITY, high = -INFINITY;
    pb_buffer v = {0}, h = {0};
    for (size_t i = 0; i < n; i++) {
        low = fmin(low, values[i]);
        high = fmax(high, values[i]);
        sum += values[i];
        squares += values[i] * values[i];
    }
    const double width = high > low ? (high - low) / BUCKETS : 1;
    for (int b = 0; b < BUCKETS; b++) {
        limit[b] = b < BUCKETS - 1 ? low + width * (b + 1) : fmax(high, low + width * BUCKETS);
    }
    for (size_t i = 0; i < n; i++) {
        const double at = (values[i] - low) / width;
        count[at < BUCKETS - 1 ? (int)at : BUCKETS - 1]++;
    }
    pb_double(&h, 1, low);
    pb_double(&h, 2, high);
    pb_double(&h, 3, (double)n);
    pb_double(&h, 4, sum);
    pb_double(&h, 5, squares);
    pb_doubles(&h, 6, limit, BUCKETS);
    pb_doubles(&h, 7, count, BUCKETS);
    pb_text(&v, 1, tag);
    pb_message(&v, 5, &h);
    pb_message(&e->summary, 1, &v);
}

/* ---- events; field numbers are event.proto's ---- */

enum { WALL_TIME = 1, STEP = 2, FILE_VERSION = 3, SUMMARY = 5 };

pb_buffer tf_record(tf_event *e, double time, uint64_t step)
{
    pb_buffer event = {0};
    pb_double(&event, WALL_TIME, time);
    pb_int(&event, STEP, step);
    pb_message(&event, SUMMARY, &e->summary);
    return record(&event);
}

pb_buffer tf_first_record(double time)
{
    pb_buffer event = {0};
    pb_double(&event, WALL_TIME, time);
    pb_text(&event, FILE_VERSION, "brain.Event:2");
    return record(&event);
}

/* The step of an event that was written here: its field comes second. */
static uint64_t step_of(const uint8_t *event, size_t n)
{
    uint64_t step = 0;
    size_t at = 1 + sizeof(double);
    if (n <= at || event[at++] != STEP << 3) {
        return 0;
    }
    for (unsigned shift = 0; at < n && shift < 64; shift += 7) {
        step |= (uint64_t)(event[at] & 0x7f) << shift;
        if (event[at++] < 0x80) {
            break;
        }
    }
    return step;
}

size_t tf_until(const uint8_t *file, size_t n, uint64_t step)
{
    size_t at = 0;
    while (n - at >= HEAD + TAIL) {
        uint64_t length;
        memcpy(&length, file + at, sizeof length);
        if (length > n - at - HEAD - TAIL || step_of(file + at + HEAD, length) > step) {
            break;
        }
        at += HEAD + length + TAIL;
    }
    return at;
}
