/* SHA-256 (FIPS 180-4), which names the content of a data set and the weights of a model. */
#ifndef VAE_SHA256_H
#define VAE_SHA256_H

#include <stddef.h>
#include <stdint.h>
#include <sys/uio.h>

#include "base/status.h"

enum { VAE_SHA256_BYTES = 32, VAE_SHA256_HEX = 65 };

/* The digest of the bytes of n parts, one after another. VAE_ERR_RUNTIME: libcrypto failed. */
vae_status vae_sha256(uint8_t digest[VAE_SHA256_BYTES], const struct iovec *parts, size_t n,
                      vae_error *err);

/* The same of bytes that come piece by piece. Failures stick and are told by vae_sha256_end, which
 * ends it and leaves NULL; vae_sha256_drop ends one that is not wanted any more, and is
 * NULL-safe. */
typedef struct vae_sha256_sum vae_sha256_sum;
vae_status vae_sha256_begin(vae_sha256_sum **out, vae_error *err);
void vae_sha256_add(vae_sha256_sum *sum, const void *bytes, size_t n);
vae_status vae_sha256_end(vae_sha256_sum **sum, uint8_t digest[VAE_SHA256_BYTES], vae_error *err);
void vae_sha256_drop(vae_sha256_sum *sum);

/* Writes the digest as 64 lower-case hex digits and a final NUL. */
void vae_sha256_hex(const uint8_t digest[VAE_SHA256_BYTES], char hex[VAE_SHA256_HEX]);

#endif
