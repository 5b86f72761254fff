/* Tensors of a safetensors or an NPZ file behind one face, for the importer. */
#ifndef VAE_IMPORT_WEIGHTS_H
#define VAE_IMPORT_WEIGHTS_H

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>

#include "base/status.h"
#include "exchange/exchange.h"
#include "format/npz.h"
#include "format/safetensors.h"

typedef struct {
    const char *name;  /* the file's, as all pointers here */
    const char *dtype; /* as the file spells it: "F32", "<f4" */
    bool is_float;     /* of a type that vae_weights_read takes */
    size_t ndim;
    const size_t *shape;
    size_t n_items;
    size_t source; /* index in the file's own table */
} vae_weight;

typedef struct {
    size_t n;
    vae_weight *tensors;
    char *metadata; /* JSON object of strings, or NULL */
    char *path;     /* for messages */
    int fd;
    bool is_npz;
    vae_safetensors st;
    vae_npz npz;
} vae_weights;

/* Opens a file and reads what it says of its tensors; no data yet. VAE_ERR_IO, VAE_ERR_DATA. */
vae_status vae_weights_open(vae_weights *out, const char *path, vae_error *err);
/* The same for an open descriptor, which stays the caller's. */
vae_status vae_weights_open_fd(vae_weights *out, int fd, const char *name, vae_error *err);
void vae_weights_close(vae_weights *w);

/* NULL if there is none of that name. */
const vae_weight *vae_weights_find(const vae_weights *w, const char *name);

/* Reads a tensor as n_items floats. VAE_ERR_DATA, VAE_ERR_IO. */
vae_status vae_weights_read(const vae_weights *w, const vae_weight *t, float *values,
                            vae_error *err);

/* vae_import from open weights. */
vae_status vae_import_weights(vae_checkpoint **out, const vae_weights *w,
                              const vae_import_options *options, vae_error *err);

/* The value of `key` in a file's metadata, or NULL. */
const char *vae_metadata_text(const json_t *metadata, const char *key);
/* The same as JSON; *out is the caller's, NULL where there is none or it is no JSON. Only that
 * there is no memory is an error. */
vae_status vae_metadata_json(json_t **out, const json_t *metadata, const char *key, vae_error *err);
/* Fills in c->height, width and channels as the metadata and the options say, or a guess; c->d is
 * known. VAE_ERR_DATA, VAE_ERR_USAGE, as vae_import. */
vae_status vae_import_shape(vae_checkpoint *c, const vae_weights *w, const json_t *metadata,
                            const vae_import_options *options, vae_error *err);
/* What else they say of the data: standard, columns, classes. VAE_ERR_DATA, VAE_ERR_USAGE, as
 * vae_import. */
vae_status vae_import_data(vae_checkpoint *c, const vae_weights *w, const json_t *metadata,
                           vae_error *err);

/* *is: is this a file that vae_weights_open would take? Not what is not there. VAE_ERR_IO: it
 * cannot be read. */
vae_status vae_weights_is_file(bool *is, const char *path, vae_error *err);

#endif
