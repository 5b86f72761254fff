/* Checkpoints for tests of exporting and importing. */
#include "export_fixture.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "exchange/import_weights.h"

vae_checkpoint *model_make(size_t d, const char *const *options)
{
    param_layout layout;
    vae_checkpoint *c = calloc(1, sizeof *c);
    if (c == NULL) {
        abort();
    }
    vae_config_defaults(&c->config);
    for (; *options != NULL; options += 2) {
        if (vae_config_set(&c->config, options[0], options[1], NULL) != VAE_OK) {
            abort();
        }
    }
    c->d = c->width = d;
    c->height = c->channels = 1;
    c->state.best = INFINITY;
    if (vae_layout_build(&layout, &c->config, vae_flat(d), NULL) != VAE_OK) {
        abort();
    }
    float *flat = calloc(layout.total, sizeof *flat);
    c->n_params = layout.n_params;
    c->params = calloc(c->n_params, sizeof *c->params);
    if (flat == NULL || c->params == NULL) {
        abort();
    }
    vae_layout_init(&layout, flat, VAE_INIT_TORCH, 7);
    vae_layout_pack(&layout, c->params, flat);
    free(flat);
    vae_layout_clear(&layout);
    return c;
}

uint8_t *file_read(const char *path, size_t *n)
{
    FILE *f = fopen(path, "rb");
    if (f == NULL || fseek(f, 0, SEEK_END) != 0) {
        abort();
    }
    *n = (size_t)ftell(f);
    uint8_t *bytes = malloc(*n + 1);
    rewind(f);
    if (bytes == NULL || fread(bytes, 1, *n, f) != *n) {
        abort();
    }
    fclose(f);
    return bytes;
}

vae_checkpoint *import_bytes(const void *bytes, size_t n, vae_error *err)
{
    static const vae_import_options options;
    vae_weights w;
    vae_checkpoint *c = NULL;
    int fd = memfd_create("test", MFD_CLOEXEC);
    if (fd < 0 || write(fd, bytes, n) != (ssize_t)n) {
        abort();
    }
    if (vae_weights_open_fd(&w, fd, "file", err) == VAE_OK) {
        vae_import_weights(&c, &w, &options, err);
        vae_weights_close(&w);
    }
    close(fd);
    return c;
}

uint8_t *safetensors_make(const char *json, const void *data, size_t n_data, size_t *n)
{
    const uint64_t length = strlen(json);
    *n = 8 + length + n_data;
    uint8_t *bytes = malloc(*n);
    if (bytes == NULL) {
        abort();
    }
    memcpy(bytes, &length, 8);
    memcpy(bytes + 8, json, length);
    if (n_data > 0) {
        memcpy(bytes + 8 + length, data, n_data);
    }
    return bytes;
}
