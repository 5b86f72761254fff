/* JSON from a text, by jansson. */
#ifndef VAE_JSON_H
#define VAE_JSON_H

#include <jansson.h>
#include <stddef.h>

#include "base/status.h"

/* *out: the value that n bytes stand for, the caller's (json_decref); NULL if it fails. flags:
 * jansson's. VAE_ERR_DATA: they are no JSON, `why` (or NULL) tells; VAE_ERR_RUNTIME: there is no
 * memory. */
vae_status vae_json_read(json_t **out, const char *text, size_t n, size_t flags, json_error_t *why);

#endif
