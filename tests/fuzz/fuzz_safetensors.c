/* Fuzz target: safetensors, the header parser in memory and the whole importer over a memory
 * file, which may be an NPZ, too. */
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "exchange/import_weights.h"
#include "input.h"

/* What a header that parses promises: the data used up, each byte once. */
static void check_header(const uint8_t *data, size_t size)
{
    if (size < 1) {
        return;
    }
    const uint64_t data_bytes = data[0]; /* small, so that offsets can fit */
    char *json = fuzz_text(data + 1, size - 1);
    vae_safetensors st;
    vae_error err = {0};
    if (fuzz_judge(vae_safetensors_parse(&st, json, size - 1, data_bytes, &err), &err)) {
        uint64_t sum = 0;
        for (size_t i = 0; i < st.n; i++) {
            const vae_st_tensor *t = &st.tensors[i];
            fuzz_must(t->begin == sum && t->end - t->begin == t->n_items * t->item_bytes);
            sum = t->end;
        }
        fuzz_must(sum == data_bytes);
        vae_safetensors_clear(&st);
    }
    free(json);
}

/* What comes in is a model: finite, of the size that its config gives. */
static void check_import(const vae_weights *w)
{
    static const vae_import_options options;
    vae_checkpoint *c;
    vae_error err = {0};
    fuzz_must(fuzz_judge(vae_import_weights(&c, w, &options, &err), &err) == (c != NULL));
    for (size_t i = 0; c != NULL && i < c->n_params; i++) {
        fuzz_must(isfinite(c->params[i]));
    }
    fuzz_must(c == NULL || c->height * c->width * c->channels == c->d);
    vae_checkpoint_free(c);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    vae_weights w;
    vae_error err = {0};
    check_header(data, size);
    const int fd = fuzz_fd(data, size);
    if (fuzz_judge(vae_weights_open_fd(&w, fd, "fuzz", &err), &err)) {
        check_import(&w);
        vae_weights_close(&w);
    }
    close(fd);
    return 0;
}
