/* Fuzz target: files of latents, as vae decode takes them, and decoding what they hold. The first
 * byte of an input says for which model; the rest is the file. */
#include "cli/latents.c" /* for its reader */

#include "input.h"
#include "models.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const uint32_t label[8] = {0, 1, 2, 0, 1, 2, 0, 1};
    float x_hat[8 * 16], *z = NULL;
    size_t n = 0;
    vae_error err = {0};
    if (size == 0) {
        return 0;
    }
    const vae_trained *m = fuzz_model(data[0] % FUZZ_MODELS);
    const bool classes = vae_config_has_classes(&m->config);
    const char *path = fuzz_file(data + 1, size - 1, data[0] & 128 ? ".csv" : "");
    if (fuzz_judge(read_latents(path, m->config.latent, &z, &n, &err), &err)) {
        fuzz_must(n > 0);
        for (size_t i = 0; i < n * m->config.latent; i++) {
            fuzz_must(isfinite(z[i]));
        }
        n = n < 8 ? n : 8;
        fuzz_must(vae_trained_decode(m, x_hat, z, classes ? label : NULL, n, &err) == VAE_OK);
    }
    free(z);
    return 0;
}
