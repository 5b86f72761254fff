/* libFuzzer target: a checkpoint from memory. The first byte of an input says what is done with the
 * rest: taken as it is; taken with its CRCs set right, as chance would not find them and everything
 * behind them would stay untested; or taken as edits (offset, length, bytes) of a good checkpoint,
 * with the CRCs set right or not. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "checkpoint_edit.h"
#include "input.h"
#include "model/layout.h"

enum { ROOM = 65536 };

int LLVMFuzzerInitialize(int *argc, char ***argv);

static uint8_t good[ROOM];
static size_t good_size;

/* A small checkpoint with every section, by way of a file. */
int LLVMFuzzerInitialize(int *argc, char ***argv)
{
    (void)argc;
    (void)argv;
    char path[96];
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
    fuzz_must(vae_layout_build(&layout, &c.config, vae_checkpoint_shape(&c), NULL) == VAE_OK);
    c.n_params = layout.n_params;
    vae_layout_clear(&layout);
    snprintf(path, sizeof path, "%s/good.vae", fuzz_folder());
    fuzz_must(c.n_params <= 64 && vae_checkpoint_write(path, &c, NULL) == VAE_OK);
    FILE *in = fopen(path, "rb");
    fuzz_must(in != NULL);
    good_size = fread(good, 1, sizeof good, in);
    fclose(in);
    unlink(path);
    return 0;
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
    fuzz_must(bytes != NULL);
    if ((mode & 2) != 0) {
        memcpy(bytes, good, good_size);
        fuzz_edit(bytes, good_size, data + 1, size - 1);
    } else {
        memcpy(bytes, data + 1, size - 1);
    }
    if ((mode & 1) != 0) {
        fuzz_mend_checkpoint(bytes, n);
    }
    if (fuzz_judge(vae_checkpoint_parse_memory(&c, bytes, n, "fuzz", true, &err), &err)) {
        /* what was accepted must be all there */
        volatile float sum = 0;
        for (size_t i = 0; i < c->n_params; i++) {
            sum += c->params[i];
        }
        vae_checkpoint_free(c);
    } else {
        fuzz_must(c == NULL);
    }
    free(bytes);
    return 0;
}
