/* NPY, numpy's array file (NEP 1): header reader and writer, and a whole-file writer. The members
 * of an .npz are the same bytes. */
#ifndef VAE_NPY_H
#define VAE_NPY_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/status.h"

enum {
    VAE_NPY_MAX_DIMS = 8,
    VAE_NPY_MAX_DESCR = 16,
    VAE_NPY_PREFIX = 12,            /* bytes that always tell the header's size, see below */
    VAE_NPY_MAX_HEADER = 1 << 16,   /* no header that numpy writes comes near it */
    VAE_NPY_WRITE_HEADER_MAX = 320, /* no header that this writes is longer */
};

/* What a header says. */
typedef struct {
    char descr[VAE_NPY_MAX_DESCR]; /* numpy's type string as it stands: "<f4", "|u1" ... */
    bool fortran_order;
    size_t ndim; /* 0 for a scalar */
    size_t shape[VAE_NPY_MAX_DIMS];
    size_t n_items;      /* product of shape; it fits */
    size_t item_bytes;   /* from descr; n_items*item_bytes fits */
    size_t header_bytes; /* offset of the data */
} npy_header;

/* Size of the whole header, from the first bytes of a file (n >= VAE_NPY_PREFIX, or the whole
 * file if it is shorter). VAE_ERR_DATA: not NPY, an unknown version, a header too long. */
vae_status vae_npy_header_size(const uint8_t *bytes, size_t n, size_t *header_bytes,
                               vae_error *err);

/* Parses a header of versions 1, 2 or 3 at the start of n bytes in memory; the data need not be
 * there. As strict as numpy: exactly the keys descr, fortran_order and shape, in any order, either
 * quote, any white space, padding optional. Structured types and objects are refused.
 * VAE_ERR_DATA; messages have no file name in front: put it there. */
vae_status vae_npy_parse_header(const uint8_t *bytes, size_t n, npy_header *out, vae_error *err);

/* Writes a version 1 header as numpy would: C order, padded so that data starts at a multiple of
 * 64. descr such as "<f4"; ndim <= VAE_NPY_MAX_DIMS. Returns its length. */
size_t vae_npy_format_header(uint8_t out[VAE_NPY_WRITE_HEADER_MAX], const char *descr,
                             const size_t *shape, size_t ndim);

/* Writes an array to `path` atomically. data: (shape...) row-major items of descr's size, in the
 * byte order that descr says. VAE_ERR_IO, VAE_ERR_RUNTIME. */
vae_status vae_npy_write(const char *path, const char *descr, const size_t *shape, size_t ndim,
                         const void *data, vae_error *err);

#endif
