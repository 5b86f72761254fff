/* Event files as TensorBoard reads them: records (length, checksum, bytes, checksum; tensorflow's
 * lib/io/record_writer.h) of Event messages (event.proto, summary.proto). */
#ifndef VAE_TFEVENTS_H
#define VAE_TFEVENTS_H

#include "format/protobuf.h"

/* The values of an event; they become fields of one Summary. */
typedef struct {
    pb_buffer summary;
} tf_event;

void tf_scalar(tf_event *e, const char *tag, double value);
/* A PNG file's bytes; false if they are not. */
bool tf_image(tf_event *e, const char *tag, const uint8_t *png, size_t n);
/* How n values are spread, in buckets of equal width. */
void tf_histogram(tf_event *e, const char *tag, const double *values, size_t n);

/* The record of an event, or of a file's first, which names the format. Time in seconds since 1970.
 * The event is consumed. Returned buffer: check `failed`. */
pb_buffer tf_record(tf_event *e, double time, uint64_t step);
pb_buffer tf_first_record(double time);

/* Bytes of a file (n of them) up to the first record that is of a later step than `step`, or not
 * whole: what stays of it. */
size_t tf_until(const uint8_t *file, size_t n, uint64_t step);

#endif
