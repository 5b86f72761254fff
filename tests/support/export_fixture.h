/* What the tests of exports share: a small model with random parameters, and importing from
 * memory. */
#ifndef VAE_TEST_EXPORT_FIXTURE_H
#define VAE_TEST_EXPORT_FIXTURE_H

#include <stddef.h>
#include <stdint.h>

#include "base/status.h"
#include "exchange/exchange.h"

/* A model of d columns with torch's initial parameters; options as pairs ("hidden", "5", ...), the
 * last one NULL. Free with vae_checkpoint_free. */
vae_checkpoint *model_make(size_t d, const char *const *options);

/* The whole file, malloc'ed. */
uint8_t *file_read(const char *path, size_t *n);

/* vae_import, with no options, of a file that holds these bytes; NULL if it fails. */
vae_checkpoint *import_bytes(const void *bytes, size_t n, vae_error *err);

/* A safetensors file in memory: this JSON, then n_data bytes. malloc'ed. */
uint8_t *safetensors_make(const char *json, const void *data, size_t n_data, size_t *n);

#endif
