/* Fuzz target: safetensors, the header parser in memory and the whole importer over a memory
 * file. */
#include <math.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "exchange/import_weights.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* What a header that parses promises: the data used up, each byte once. */
static void check_header(const uint8_t *data, size_t size)
{
    if (size < 1) {
        return;
    }
    const uint64_t data_bytes = data[0]; /* small, so that offsets can fit */
    char *json = malloc(size); /* an exact copy, so that ASan sees a read of one byte too many */
    if (json == NULL) {
        abort();
    }
    memcpy(json, data + 1, size - 1);
    vae_safetensors st;
    vae_error err = {0};
    if (vae_safetensors_parse(&st, json, size - 1, data_bytes, &err) == VAE_OK) {
        uint64_t sum = 0;
        for (size_t i = 0; i < st.n; i++) {
            const vae_st_tensor *t = &st.tensors[i];
            if (t->begin != sum || t->end - t->begin != t->n_items * t->item_bytes) {
                abort();
            }
            sum = t->end;
        }
        if (sum != data_bytes) {
            abort();
        }
        vae_safetensors_clear(&st);
    } else if (err.text[0] == '\0') {
        abort();
    }
    free(json);
}

/* What comes in is a model: finite, of the size that its config gives. */
static void check_import(const vae_weights *w)
{
    static const vae_import_options options;
    vae_checkpoint *c;
    vae_error err = {0};
    vae_status status = vae_import_weights(&c, w, &options, &err);
    if ((status == VAE_OK) != (err.text[0] == '\0') || (status == VAE_OK) != (c != NULL)) {
        abort();
    }
    for (size_t i = 0; c != NULL && i < c->n_params; i++) {
        if (!isfinite(c->params[i])) {
            abort();
        }
    }
    if (c != NULL && c->height * c->width * c->channels != c->d) {
        abort();
    }
    vae_checkpoint_free(c);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    check_header(data, size);
    int fd = memfd_create("fuzz", MFD_CLOEXEC);
    if (fd < 0 || write(fd, data, size) != (ssize_t)size) {
        abort();
    }
    vae_weights w;
    vae_error err = {0};
    vae_status status = vae_weights_open_fd(&w, fd, "fuzz", &err);
    if ((status == VAE_OK) != (err.text[0] == '\0')) {
        abort();
    }
    if (status == VAE_OK) {
        check_import(&w);
        vae_weights_close(&w);
    }
    close(fd);
    return 0;
}
