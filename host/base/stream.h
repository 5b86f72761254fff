/* A byte stream over a file: read from its beginning, gunzipped if it starts with 1f 8b; and sizes
 * that a file claims, multiplied with care. */
#ifndef VAE_STREAM_H
#define VAE_STREAM_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/map.h"
#include "base/status.h"

/* *product = a*b; false, and *product untouched, if it does not fit. */
bool vae_checked_mul(size_t a, size_t b, size_t *product);

/* Refuses more bytes than this machine has memory, before any of them is read: whatever a header
 * says is allocated only within that. VAE_ERR_RUNTIME. */
vae_status vae_check_memory(uint64_t bytes, const char *what, vae_error *err);

typedef struct vae_stream vae_stream;

/* Opens a regular file. *out is the caller's: vae_stream_close. Errors name the path:
 * VAE_ERR_IO (cannot open), VAE_ERR_DATA (a directory, a device, a pipe). */
vae_status vae_stream_open(vae_stream **out, const char *path, vae_error *err);

/* The same for an open descriptor at its beginning (fuzz targets read memory files this way).
 * Takes fd over, whether it succeeds or not; `name` is for messages. */
vae_status vae_stream_open_fd(vae_stream **out, int fd, const char *name, vae_error *err);

void vae_stream_close(vae_stream *s);

/* The name for messages. */
const char *vae_stream_name(const vae_stream *s);

/* Bytes delivered so far: the offset, in the unpacked data. */
uint64_t vae_stream_offset(const vae_stream *s);

/* No more than this many bytes can follow: exact for a plain file, what deflate's best ratio would
 * give for a packed one. Compare with a header's claim before believing it. */
uint64_t vae_stream_bound(const vae_stream *s);

/* Reads up to n bytes, *got fewer only at the end or on failure. VAE_ERR_IO, or VAE_ERR_DATA where
 * the packed data is damaged, cut short or followed by something else. */
vae_status vae_stream_read(vae_stream *s, void *out, size_t n, size_t *got, vae_error *err);

/* Reads n bytes; fewer are VAE_ERR_DATA: "`what`: expected N bytes at offset O, found M". */
vae_status vae_stream_read_exact(vae_stream *s, void *out, size_t n, const char *what,
                                 vae_error *err);

/* Reads n bytes into a new buffer, *out, the caller's to free. Memory grows with what the file
 * really delivers, so that a header's lie costs no more than the file holds. */
vae_status vae_stream_read_new(vae_stream *s, uint8_t **out, size_t n, const char *what,
                               vae_error *err);

/* Reads n bytes and drops them. */
vae_status vae_stream_skip(vae_stream *s, size_t n, const char *what, vae_error *err);

/* The whole file, mapped: what follows is at the stream's offset. *out is NULL where that cannot
 * be, as the file is packed or its file system does not map; else the caller's. VAE_ERR_IO,
 * VAE_ERR_RUNTIME. */
vae_status vae_stream_map(const vae_stream *s, vae_map **out, vae_error *err);

/* VAE_ERR_DATA unless the stream ends here. */
vae_status vae_stream_expect_end(vae_stream *s, vae_error *err);

#endif
