/* Numbers of the checkpoint format (checkpoint.c describes it), and reading from anything that has
 * bytes: a file, or memory in tests and the fuzz target. */
#ifndef VAE_CHECKPOINT_FORMAT_H
#define VAE_CHECKPOINT_FORMAT_H

#include <stdint.h>

#include "run/checkpoint.h"

enum {
    FORMAT_VERSION = 1,
    ENDIAN_TAG = 0x01020304,
    HEADER_BYTES = 32,
    HEADER_CRC_AT = 20,
    SECTION_BYTES = 32,
    SECTION_TAG_BYTES = 12,
    MAX_SECTIONS = 32,
    ALIGNMENT = 64,
    TENSOR_NAME_BYTES = 32,
    TENSOR_BYTES = 56,
    SHAPE_BYTES = 72,
    STATE_BYTES = 96,
    VARIANCE_BYTES = 16,
    MAX_CONFIG_BYTES = 65536,
};

static const unsigned char vae_checkpoint_magic[8] = {0x89, 'V', 'A', 'E', 0x0D, 0x0A, 0x1A, 0x0A};

/* at < 2^64 - 64. */
static inline uint64_t vae_align(uint64_t at)
{
    return (at + (ALIGNMENT - 1)) / ALIGNMENT * ALIGNMENT;
}

uint32_t vae_crc32(uint32_t crc, const void *bytes, size_t n);

/* `size` bytes that read() copies from: n bytes at `offset`, offset + n <= size. */
typedef struct {
    void *ctx;
    uint64_t size;
    const char *name; /* for messages */
    vae_status (*read)(void *ctx, void *to, uint64_t offset, size_t n, vae_error *err);
} vae_checkpoint_source;

/* vae_checkpoint_read from any source. */
vae_status vae_checkpoint_parse(vae_checkpoint **out, const vae_checkpoint_source *source,
                                bool moments, vae_error *err);

/* Is there a checkpoint whose header is right and whose length is what it says? Nothing behind the
 * header is read. */
vae_status vae_checkpoint_peek(const vae_checkpoint_source *source, vae_error *err);

/* vae_checkpoint_parse from memory. */
vae_status vae_checkpoint_parse_memory(vae_checkpoint **out, const void *bytes, size_t n,
                                       const char *name, bool moments, vae_error *err);

#endif
