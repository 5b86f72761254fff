/* SHA-256 (FIPS 180-4), for naming the content of a data set in run.json. No library the program
 * links offers it. Not for secrets: no constant-time claim. */
#ifndef VAE_SHA256_H
#define VAE_SHA256_H

#include <stddef.h>
#include <stdint.h>

enum { VAE_SHA256_BYTES = 32, VAE_SHA256_HEX = 65 };

/* Running state. Set it up with vae_sha256_init; it owns nothing. */
typedef struct {
    uint32_t h[8];
    uint64_t n_bytes;    /* taken so far */
    uint8_t partial[64]; /* the last n_bytes % 64 of them */
} vae_sha256;

void vae_sha256_init(vae_sha256 *state);

/* Takes n more bytes. data may be NULL if n is 0. */
void vae_sha256_update(vae_sha256 *state, const void *data, size_t n);

/* Writes the digest of all bytes taken; the state is spent. */
void vae_sha256_final(vae_sha256 *state, uint8_t digest[VAE_SHA256_BYTES]);

/* Writes the digest as 64 lower-case hex digits and a final NUL. */
void vae_sha256_hex(const uint8_t digest[VAE_SHA256_BYTES], char hex[VAE_SHA256_HEX]);

#endif
