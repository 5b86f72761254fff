/* safetensors: the file format of Hugging Face's library of that name.
 *
 *   u64 LE  n, length of the header
 *   n bytes JSON {"__metadata__": {"key": "text"}, "name": {"dtype": "F32", "shape": [2,3],
 *           "data_offsets": [begin, end]}, ...}, offsets from the end of the header
 *   data
 *
 * As strict as the reference reader: n <= 1e8, UTF-8, no key twice, data without holes or overlaps
 * from the first byte to the last, sizes that match dtype and shape. */
#ifndef VAE_SAFETENSORS_H
#define VAE_SAFETENSORS_H

#include <stddef.h>
#include <stdint.h>

#include "base/parts.h"
#include "base/status.h"
#include "format/tensors.h"

enum { VAE_ST_MAX_DIMS = 8, VAE_ST_DTYPE = 12, VAE_ST_MAX_HEADER = 100000000 };

typedef struct {
    char *name;
    char dtype[VAE_ST_DTYPE]; /* as the file spells it */
    size_t item_bytes;
    size_t ndim, shape[VAE_ST_MAX_DIMS];
    size_t n_items;
    uint64_t begin, end; /* bytes, from the start of the data */
} vae_st_tensor;

typedef struct {
    size_t n;
    vae_st_tensor *tensors; /* in the order of their data */
    char *metadata;         /* __metadata__ as a JSON object, or NULL */
    uint64_t data_offset;   /* of the data, in the file */
} vae_safetensors;

/* Parses a header: n bytes of JSON, followed by data_bytes of data. Clear with
 * vae_safetensors_clear. VAE_ERR_DATA; messages have no file name in front. */
vae_status vae_safetensors_parse(vae_safetensors *out, const char *json, size_t n,
                                 uint64_t data_bytes, vae_error *err);

/* Reads and parses the header of an open file of file_bytes bytes; name is for messages. */
vae_status vae_safetensors_read(vae_safetensors *out, int fd, uint64_t file_bytes, const char *name,
                                vae_error *err);
void vae_safetensors_clear(vae_safetensors *st);

/* Puts together a file of float32 tensors (pieces of packed, borrowed), ordered by name as the
 * reference writer does, the header padded to 8 bytes. A failed allocation sticks in `out`. */
void vae_safetensors_build(vae_parts *out, const vae_named_tensor *tensors, size_t n,
                           const float *packed, const vae_metadata *metadata);

#endif
