/* Fuzz target: a model that is loaded and then used. The first byte of an input says which of six
 * small models begins it, and how it comes: a checkpoint with edits (offset, length, bytes) whose
 * checksums are set right; the same of its safetensors; or options of it set anew (lines
 * "name=value"), as any checkpoint may have them. Rows are encoded, decoded and scored, and its
 * weights go out and come back. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "checkpoint_edit.h"
#include "exchange/import_weights.h"
#include "input.h"
#include "models.h"

enum { ROOM = 16384 };

static struct {
    uint8_t bytes[ROOM];
    size_t n;
} saved[FUZZ_MODELS][2];

/* Model k as a checkpoint, or as safetensors. */
static void save(size_t k)
{
    for (size_t i = 0; i < 2 && saved[k][i].n == 0; i++) {
        char path[96];
        snprintf(path, sizeof path, "%s/model.%s", fuzz_folder(), i == 0 ? "vae" : "safetensors");
        const vae_checkpoint *c = fuzz_model(k)->checkpoint;
        fuzz_must((i == 0 ? vae_checkpoint_write(path, c, NULL)
                          : vae_export_safetensors(path, c, NULL)) == VAE_OK);
        FILE *in = fopen(path, "rb");
        fuzz_must(in != NULL);
        saved[k][i].n = fread(saved[k][i].bytes, 1, ROOM, in);
        fuzz_must(saved[k][i].n < ROOM);
        fclose(in);
        unlink(path);
    }
}

/* Out as safetensors and back: the same parameters, where all are finite. */
static void round_trip(const vae_checkpoint *c)
{
    char path[96];
    vae_checkpoint *back = NULL;
    const vae_import_options plain = {0};
    vae_error err = {0};
    bool finite = true;
    for (size_t i = 0; i < c->n_params; i++) {
        finite = finite && isfinite(c->params[i]);
    }
    snprintf(path, sizeof path, "%s/out.safetensors", fuzz_folder());
    if (!fuzz_judge(vae_export_safetensors(path, c, &err), &err)) {
        return;
    }
    const vae_status status = vae_import(&back, path, &plain, &err);
    fuzz_must(fuzz_judge(status, &err) == finite || status == VAE_ERR_USAGE);
    fuzz_must(back == NULL ||
              (back->n_params == c->n_params &&
               memcmp(back->params, c->params, c->n_params * sizeof *c->params) == 0));
    vae_checkpoint_free(back);
}

static void use(const vae_checkpoint *c)
{
    if (fuzz_is_small(c) && c->n_params > 0) {
        fuzz_use(c, c->params[0] < 0);
        round_trip(c);
    }
}

static void from_checkpoint(size_t k, const uint8_t *data, size_t size)
{
    const size_t n = saved[k][0].n;
    vae_checkpoint *c;
    vae_error err = {0};
    uint8_t *bytes = malloc(n);
    fuzz_must(bytes != NULL);
    memcpy(bytes, saved[k][0].bytes, n);
    fuzz_edit(bytes, n, data, size);
    fuzz_mend_checkpoint(bytes, n);
    if (fuzz_judge(vae_checkpoint_parse_memory(&c, bytes, n, "fuzz", true, &err), &err)) {
        use(c);
        vae_checkpoint_free(c);
    }
    free(bytes);
}

static void from_safetensors(size_t k, const uint8_t *data, size_t size)
{
    static uint8_t bytes[ROOM];
    static const vae_import_options plain;
    vae_weights w;
    vae_checkpoint *c;
    vae_error err = {0};
    memcpy(bytes, saved[k][1].bytes, saved[k][1].n);
    fuzz_edit(bytes, saved[k][1].n, data, size);
    const int fd = fuzz_fd(bytes, saved[k][1].n);
    if (fuzz_judge(vae_weights_open_fd(&w, fd, "fuzz", &err), &err)) {
        if (fuzz_judge(vae_import_weights(&c, &w, &plain, &err), &err)) {
            use(c);
            vae_checkpoint_free(c);
        }
        vae_weights_close(&w);
    }
    close(fd);
}

/* Other options, and parameters of as many as they ask for. */
static void from_options(size_t k, const uint8_t *data, size_t size)
{
    vae_checkpoint c = *fuzz_model(k)->checkpoint;
    char *text = fuzz_text(data, size), *rest = text;
    param_layout layout;
    vae_error err = {0};
    c.classes = (vae_classes){0};
    c.classes_known = false;
    for (char *line; (line = strsep(&rest, "\n")) != NULL;) {
        char *value = strchr(line, '=');
        if (value != NULL) {
            *value = '\0';
            vae_config_set(&c.config, line, value + 1, NULL);
        }
    }
    c.params = NULL;
    if (vae_config_check(&c.config, NULL, NULL) == VAE_OK && c.config.stack[0] == '\0' &&
        vae_config_has_classes(&c.config) == (c.config.classes > 0) &&
        fuzz_judge(vae_layout_build(&layout, &c.config, vae_checkpoint_shape(&c), &err), &err)) {
        c.n_params = layout.n_params;
        if (fuzz_is_small(&c)) {
            c.params = calloc(c.n_params, sizeof *c.params);
            fuzz_must(c.params != NULL && vae_checkpoint_settle_classes(&c, &err) == VAE_OK);
            for (size_t i = 0; i < c.n_params; i++) {
                c.params[i] = (float)((int)(i * 31 % 17) - 8) / 16;
            }
            use(&c);
        }
        vae_layout_clear(&layout);
    }
    free(c.params);
    vae_classes_clear(&c.classes);
    free(text);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size == 0) {
        return 0;
    }
    const size_t k = data[0] % FUZZ_MODELS, way = data[0] / FUZZ_MODELS % 3;
    save(k);
    (way == 0   ? from_checkpoint
     : way == 1 ? from_safetensors
                : from_options)(k, data + 1, size - 1);
    return 0;
}
