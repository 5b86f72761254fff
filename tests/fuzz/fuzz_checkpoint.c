/* libFuzzer target: a checkpoint from memory. The first byte of an input says what is done with the
 * rest: taken as it is; taken with its CRCs set right, as chance would not find them and everything
 * behind them would stay untested; or taken as edits (offset, length, bytes) of a good checkpoint,
 * with the CRCs set right or not. */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "model/layout.h"
#include "run/checkpoint_format.h"

enum { ROOM = 65536 };

int LLVMFuzzerInitialize(int *argc, char ***argv);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static uint8_t good[ROOM];
static size_t good_size;

/* A small checkpoint with every section, by way of a file. */
int LLVMFuzzerInitialize(int *argc, char ***argv)
{
    (void)argc;
    (void)argv;
    char folder[] = "/tmp/vae-fuzz-XXXXXX", path[64];
    static float floats[64], mean[4];
    param_layout layout;
    vae_checkpoint c = {.d = 4,
                        .height = 2,
                        .width = 2,
                        .channels = 1,
                        .params = floats,
                        .adam_m = floats,
                        .adam_v = floats,
                        .data_mean = mean,
                        .summary = "{\"epoch\":1}"};
    vae_config_defaults(&c.config);
    vae_config_set(&c.config, "hidden", "2", NULL);
    vae_config_set(&c.config, "latent", "1", NULL);
    if (vae_layout_build(&layout, &c.config, vae_checkpoint_shape(&c), NULL) != VAE_OK ||
        mkdtemp(folder) == NULL) {
        abort();
    }
    c.n_params = layout.n_params;
    vae_layout_clear(&layout);
    snprintf(path, sizeof path, "%s/good.vae", folder);
    FILE *in = NULL;
    if (c.n_params > 64 || vae_checkpoint_write(path, &c, NULL) != VAE_OK ||
        (in = fopen(path, "rb")) == NULL) {
        abort();
    }
    good_size = fread(good, 1, sizeof good, in);
    fclose(in);
    unlink(path);
    rmdir(folder);
    return 0;
}

static void mend(uint8_t *bytes, size_t size)
{
    uint32_t n, crc;
    uint64_t length = size, offset;
    if (size < HEADER_BYTES) {
        return;
    }
    memcpy(bytes, vae_checkpoint_magic, sizeof vae_checkpoint_magic);
    memcpy(bytes + 24, &length, 8);
    memcpy(&n, bytes + 16, 4);
    size_t header = HEADER_BYTES + (size_t)n * SECTION_BYTES;
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

/* data: (offset u16, length u8, bytes) again and again, onto the good checkpoint. */
static void edit(uint8_t *bytes, const uint8_t *data, size_t size)
{
    memcpy(bytes, good, good_size);
    while (size >= 3) {
        size_t at = (size_t)(data[0] | data[1] << 8) % good_size, n = data[2];
        data += 3;
        size -= 3;
        n = n < size ? n : size;
        n = n < good_size - at ? n : good_size - at;
        memcpy(bytes + at, data, n);
        data += n;
        size -= n;
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size == 0) {
        return 0;
    }
    const uint8_t mode = data[0];
    const size_t n = (mode & 2) != 0 ? good_size : size - 1;
    vae_error err = {0};
    vae_checkpoint *c;
    uint8_t *bytes = malloc(n + (n == 0)); /* of just that size: ASan sees what is behind it */
    if (bytes == NULL) {
        return 0;
    }
    if ((mode & 2) != 0) {
        edit(bytes, data + 1, size - 1);
    } else {
        memcpy(bytes, data + 1, size - 1);
    }
    if ((mode & 1) != 0) {
        mend(bytes, n);
    }
    if (vae_checkpoint_parse_memory(&c, bytes, n, "fuzz", true, &err) == VAE_OK) {
        /* what was accepted must be all there */
        volatile float sum = 0;
        for (size_t i = 0; i < c->n_params; i++) {
            sum += c->params[i];
        }
        vae_checkpoint_free(c);
    } else if (err.status == VAE_OK || c != NULL) {
        abort();
    }
    free(bytes);
    return 0;
}
