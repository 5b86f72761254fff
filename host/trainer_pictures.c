/* Pictures of a run: samples from the prior, originals above reconstructions. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "image.h"
#include "philox.h"
#include "trainer_internal.h"

enum { N_SAMPLES = 64, N_RECONSTRUCTIONS = 20, RECONSTRUCTION_COLUMNS = 10 };

bool vae_is_picture(size_t height, size_t width, size_t channels)
{
    return height > 1 && width > 1 && (channels == 1 || channels == 3);
}

/* Small pictures are magnified so that a cell is about 56 pixels. */
static size_t zoom_for(const vae_checkpoint *shape)
{
    size_t side = shape->height > shape->width ? shape->height : shape->width;
    return side >= 56 ? 1 : 56 / side;
}

static vae_status draw_grid(const vae_checkpoint *shape, const float *rows, size_t n,
                            size_t columns, const char *path, vae_error *err)
{
    return vae_image_grid(path, rows, n, shape->height, shape->width, shape->channels, columns,
                          zoom_for(shape), 2, err);
}

static vae_status want_picture(const vae_checkpoint *shape, vae_error *err)
{
    if (vae_is_picture(shape->height, shape->width, shape->channels)) {
        return VAE_OK;
    }
    return vae_fail(err, VAE_ERR_USAGE,
                    "the model's data are no pictures: %zu x %zu, %zu channels, where 1 or 3 and "
                    "sides above 1 can be drawn",
                    shape->height, shape->width, shape->channels);
}

/* z: (n,Z) ~ temperature * N(0,I), rows by their number. */
static void draw_prior(float *z, size_t n, size_t Z, uint64_t seed, double temperature)
{
    const uint32_t quads = (uint32_t)((Z + 3) / 4);
    for (size_t i = 0; i < n * quads; i++) {
        const size_t row = i / quads, first = i % quads * 4;
        float eps[4];
        vae_eps4(seed, VAE_RNG_PRIOR, row, quads, (uint32_t)(i % quads), 0, 0, eps);
        for (size_t j = first; j < Z && j < first + 4; j++) {
            z[row * Z + j] = (float)temperature * eps[j - first];
        }
    }
}

vae_status vae_draw_samples(vae_model *model, const vae_checkpoint *shape, size_t n, uint64_t seed,
                            double temperature, const char *path, vae_error *err)
{
    return vae_draw_class_samples(model, shape, n, -1, seed, temperature, path, err);
}

vae_status vae_sample_classes(vae_model *model, const vae_config *config, size_t *n, int only,
                              uint64_t seed, double temperature, float **x_hat, size_t *columns,
                              vae_error *err)
{
    const param_layout *layout = vae_model_layout(model);
    const size_t Z = config->latent, C = layout->c, lines = C > 0 && only < 0 ? C : 1;
    const size_t each = (*n + lines - 1) / lines, all = each * lines;
    *x_hat = NULL;
    if (only >= 0 && (size_t)only >= C) {
        return C > 0 ? vae_fail(err, VAE_ERR_USAGE, "class %d: the model has 0 to %zu", only, C - 1)
                     : vae_fail(err, VAE_ERR_USAGE,
                                "class %d: the model is not conditional and has no classes", only);
    }
    vae_status status = VAE_OK;
    float *z = malloc(all * Z * sizeof *z);
    uint32_t *label = malloc(all * sizeof *label);
    *x_hat = malloc(all * layout->d * sizeof **x_hat);
    if (z == NULL || *x_hat == NULL || label == NULL) {
        status = vae_fail_memory(err, all * (Z + layout->d) * sizeof *z, "samples");
    } else {
        draw_prior(z, each, Z, seed, temperature);
        for (size_t line = 1; line < lines; line++) {
            memcpy(z + line * each * Z, z, each * Z * sizeof *z);
        }
        for (size_t i = 0; i < all; i++) {
            label[i] = only >= 0 ? (uint32_t)only : (uint32_t)(i / each);
        }
        status = vae_model_decode_classes(model, *x_hat, z, C > 0 ? label : NULL, all, err);
    }
    *n = all;
    *columns = lines > 1 ? each : (size_t)ceil(sqrt((double)all));
    free(label);
    free(z);
    return status;
}

vae_status vae_draw_rows(const vae_checkpoint *shape, const float *rows, size_t n, size_t columns,
                         const char *path, vae_error *err)
{
    vae_status status = want_picture(shape, err);
    return status == VAE_OK ? draw_grid(shape, rows, n, columns, path, err) : status;
}

vae_status vae_draw_class_samples(vae_model *model, const vae_checkpoint *shape, size_t n, int only,
                                  uint64_t seed, double temperature, const char *path,
                                  vae_error *err)
{
    float *x_hat = NULL;
    size_t columns;
    vae_status status = want_picture(shape, err);
    if (status == VAE_OK &&
        (status = vae_sample_classes(model, &shape->config, &n, only, seed, temperature, &x_hat,
                                     &columns, err)) == VAE_OK) {
        status = draw_grid(shape, x_hat, n, columns, path, err);
    }
    free(x_hat);
    return status;
}

/* x, mu and, where the model has classes, label of the first n rows, batch by batch. */
static vae_status encode_rows(vae_model *model, vae_data *data, size_t n, size_t batch, size_t D,
                              size_t Z, float *x, float *mu, uint32_t *label, vae_error *err)
{
    for (size_t at = 0; at < n; at += batch) {
        const vae_plan plan = {.draw = VAE_EVAL_DRAW(0), .first = at, .beta = 1, .step = 1};
        vae_batch_out out = {.x = x + at * D, .mu = mu + at * Z, .label = label + at};
        size_t rows = n - at < batch ? n - at : batch;
        vae_status status = vae_model_batch(model, data, &plan, rows, 1, &out, err);
        if (status != VAE_OK) {
            return status;
        }
    }
    return VAE_OK;
}

vae_status vae_draw_reconstructions(vae_model *model, const vae_checkpoint *shape, vae_data *data,
                                    size_t n, size_t batch, const char *path, vae_error *err)
{
    const size_t Z = shape->config.latent, D = shape->d;
    const size_t columns = n < RECONSTRUCTION_COLUMNS ? n : RECONSTRUCTION_COLUMNS;
    const size_t lines = (n + columns - 1) / columns, cells = 2 * lines * columns;
    vae_status status = want_picture(shape, err);
    if (status != VAE_OK) {
        return status;
    }
    float *x = malloc(n * D * sizeof *x), *x_hat = malloc(n * D * sizeof *x_hat);
    float *mu = malloc(n * Z * sizeof *mu), *grid = calloc(cells * D, sizeof *grid);
    uint32_t *label = calloc(n, sizeof *label);
    if (x == NULL || x_hat == NULL || mu == NULL || grid == NULL || label == NULL) {
        status = vae_fail_memory(err, (2 * n + cells) * D * sizeof *x, "reconstructions");
    }
    if (status == VAE_OK) {
        status = encode_rows(model, data, n, batch, D, Z, x, mu, label, err);
    }
    if (status == VAE_OK) {
        status = vae_model_decode_classes(model, x_hat, mu,
                                          vae_model_layout(model)->c > 0 ? label : NULL, n, err);
    }
    for (size_t i = 0; i < n && status == VAE_OK; i++) {
        const size_t cell = 2 * (i / columns) * columns + i % columns;
        memcpy(grid + cell * D, x + i * D, D * sizeof *x);
        memcpy(grid + (cell + columns) * D, x_hat + i * D, D * sizeof *x);
    }
    if (status == VAE_OK) {
        status = draw_grid(shape, grid, cells, columns, path, err);
    }
    free(label);
    free(grid);
    free(mu);
    free(x_hat);
    free(x);
    return status;
}

/* A picture that cannot be written is no reason to lose the training. */
void trainer_draw(trainer *t, uint64_t epoch)
{
    vae_error err = {0};
    char name[64], path[VAE_RUN_PATH];
    vae_data *data = t->test != NULL ? t->test : t->validation != NULL ? t->validation : t->train;
    size_t n = t->test != NULL         ? t->test_set->n
               : t->validation != NULL ? t->n_validation
                                       : t->n_train;
    n = n < N_RECONSTRUCTIONS ? n : N_RECONSTRUCTIONS;
    if (!vae_is_picture(t->now.height, t->now.width, t->now.channels)) {
        return;
    }
    snprintf(name, sizeof name, "samples/epoch-%03llu.png", (unsigned long long)epoch);
    vae_run_folder_path(&t->folder, name, path);
    if (vae_draw_samples(t->model, &t->now, N_SAMPLES, t->config->seed, 1, path, &err) == VAE_OK) {
        memcpy(t->result->samples, path, sizeof path);
    }
    snprintf(name, sizeof name, "samples/reconstruction-%03llu.png", (unsigned long long)epoch);
    vae_run_folder_path(&t->folder, name, path);
    if (vae_draw_reconstructions(t->model, &t->now, data, n, t->measure_batch, path, &err) ==
        VAE_OK) {
        memcpy(t->result->reconstruction, path, sizeof path);
    }
    if (err.status != VAE_OK) {
        trainer_note(t, "warning: %s", err.text);
    }
}
