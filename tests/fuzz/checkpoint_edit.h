/* Checkpoints that are wrong in all ways but their checksums, which chance would not get right, so
 * that everything behind them would stay untested. */
#ifndef VAE_FUZZ_CHECKPOINT_EDIT_H
#define VAE_FUZZ_CHECKPOINT_EDIT_H

#include <stdint.h>
#include <string.h>

#include "run/checkpoint_format.h"

/* data: (offset u16, length u8, bytes) again and again, onto n bytes. */
static inline void fuzz_edit(uint8_t *bytes, size_t n, const uint8_t *data, size_t size)
{
    while (size >= 3) {
        const size_t at = (size_t)(data[0] | data[1] << 8) % n;
        size_t length = data[2];
        data += 3;
        size -= 3;
        length = length < size ? length : size;
        length = length < n - at ? length : n - at;
        memcpy(bytes + at, data, length);
        data += length;
        size -= length;
    }
}

/* Magic, size and checksums as they should be. */
static inline void fuzz_mend_checkpoint(uint8_t *bytes, size_t size)
{
    uint32_t n, crc;
    uint64_t length = size, offset;
    if (size < HEADER_BYTES) {
        return;
    }
    memcpy(bytes, vae_checkpoint_magic, sizeof vae_checkpoint_magic);
    memcpy(bytes + 24, &length, 8);
    memcpy(&n, bytes + 16, 4);
    const size_t header = HEADER_BYTES + (size_t)n * SECTION_BYTES;
    if (n > MAX_SECTIONS || header > size) {
        return;
    }
    for (uint32_t i = 0; i < n; i++) {
        uint8_t *entry = bytes + HEADER_BYTES + i * SECTION_BYTES;
        memcpy(&offset, entry + SECTION_TAG_BYTES + 4, 8);
        memcpy(&length, entry + SECTION_TAG_BYTES + 12, 8);
        if (offset <= size && length <= size - offset) {
            crc = vae_crc32(0, bytes + offset, length);
            memcpy(entry + SECTION_TAG_BYTES, &crc, 4);
        }
    }
    memset(bytes + HEADER_CRC_AT, 0, 4);
    crc = vae_crc32(0, bytes, header);
    memcpy(bytes + HEADER_CRC_AT, &crc, 4);
}

#endif
