/* A file put together from pieces of memory, most of them borrowed, and written at once. */
#ifndef VAE_PARTS_H
#define VAE_PARTS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/uio.h>

#include "base/status.h"

/* Zero-initialize it; clear it, or put it. Failed allocations stick and are told by put. */
typedef struct {
    struct iovec *parts;
    bool *owned;
    size_t n, capacity;
    uint64_t bytes; /* of all parts */
    bool failed;
} vae_parts;

/* Adds n bytes that stay where they are until the file is written. */
void vae_parts_borrow(vae_parts *p, const void *bytes, size_t n);
/* Adds a copy of n bytes. */
void vae_parts_copy(vae_parts *p, const void *bytes, size_t n);
/* Adds n malloc'ed bytes and takes them over; NULL counts as a failed allocation. */
void vae_parts_own(vae_parts *p, void *bytes, size_t n);

/* Writes the file: atomically, or into a device or pipe, or to standard output where path is "-".
 * Clears p in any case. VAE_ERR_IO, VAE_ERR_RUNTIME. */
vae_status vae_parts_put(vae_parts *p, const char *path, vae_error *err);
void vae_parts_clear(vae_parts *p);

#endif
