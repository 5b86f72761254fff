/* What a file of weights holds, whatever its format: named tensors and texts about them. */
#ifndef VAE_TENSORS_H
#define VAE_TENSORS_H

#include <stddef.h>

enum { VAE_EXPORT_NAME = 40, VAE_METADATA_PAIRS = 16 };

/* One tensor as other tools see it: a contiguous piece of the packed parameters. */
typedef struct {
    char name[VAE_EXPORT_NAME]; /* "fc21.weight" */
    size_t ndim, shape[4];      /* (out,in); (out); of a convolution (out,in,height,width) */
    size_t offset;              /* of its first float in the packed parameters */
    size_t n;                   /* floats */
} vae_named_tensor;

typedef struct {
    const char *key;
    char *value; /* UTF-8 */
} vae_metadata_pair;

typedef struct {
    size_t n;
    vae_metadata_pair pairs[VAE_METADATA_PAIRS];
} vae_metadata;

#endif
