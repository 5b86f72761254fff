/* Pictures of a run: samples from the prior, originals above reconstructions. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "image.h"
#include "philox.h"
#include "trainer_internal.h"

enum {
    N_SAMPLES = 64,
    N_RECONSTRUCTIONS = 20,
    RECONSTRUCTION_COLUMNS = 10,
    MIXED_ORDER = 20140119, /* key of the order in which rows of a grid are shown */
};

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

vae_status vae_draw_samples(vae_model *model, const vae_checkpoint *shape, size_t n, uint64_t seed,
                            double temperature, const char *path, vae_error *err)
{
    const size_t Z = shape->config.latent, D = shape->d;
    const uint32_t quads = (uint32_t)((Z + 3) / 4);
    vae_status status = want_picture(shape, err);
    if (status != VAE_OK) {
        return status;
    }
    float *z = malloc(n * Z * sizeof *z), *x_hat = malloc(n * D * sizeof *x_hat);
    if (z == NULL || x_hat == NULL) {
        status = vae_fail_memory(err, n * (Z + D) * sizeof *z, "samples");
    }
    for (size_t i = 0; i < n * quads && status == VAE_OK; i++) {
        const size_t row = i / quads, first = i % quads * 4;
        float eps[4];
        vae_eps4(seed, VAE_RNG_PRIOR, row, quads, (uint32_t)(i % quads), 0, 0, eps);
        for (size_t j = first; j < Z && j < first + 4; j++) {
            z[row * Z + j] = (float)temperature * eps[j - first];
        }
    }
    if (status == VAE_OK) {
        status = vae_model_decode(model, x_hat, z, n, err);
    }
    if (status == VAE_OK) {
        status = draw_grid(shape, x_hat, n, (size_t)ceil(sqrt((double)n)), path, err);
    }
    free(x_hat);
    free(z);
    return status;
}

/* x and mu of n rows, batch by batch. */
static vae_status encode_rows(vae_model *model, vae_data *data, size_t n, bool mixed, size_t batch,
                              size_t D, size_t Z, float *x, float *mu, vae_error *err)
{
    for (size_t at = 0; at < n; at += batch) {
        const vae_plan plan = {.draw = VAE_EVAL_DRAW(0),
                               .first = at,
                               .order_key = MIXED_ORDER,
                               .shuffle = mixed,
                               .beta = 1,
                               .step = 1};
        vae_batch_out out = {.x = x + at * D, .mu = mu + at * Z};
        size_t rows = n - at < batch ? n - at : batch;
        vae_status status = vae_model_batch(model, data, &plan, rows, 1, &out, err);
        if (status != VAE_OK) {
            return status;
        }
    }
    return VAE_OK;
}

vae_status vae_draw_reconstructions(vae_model *model, const vae_checkpoint *shape, vae_data *data,
                                    size_t n, bool mixed, size_t batch, const char *path,
                                    vae_error *err)
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
    if (x == NULL || x_hat == NULL || mu == NULL || grid == NULL) {
        status = vae_fail_memory(err, (2 * n + cells) * D * sizeof *x, "reconstructions");
    }
    if (status == VAE_OK) {
        status = encode_rows(model, data, n, mixed, batch, D, Z, x, mu, err);
    }
    if (status == VAE_OK) {
        status = vae_model_decode(model, x_hat, mu, n, err);
    }
    for (size_t i = 0; i < n && status == VAE_OK; i++) {
        const size_t cell = 2 * (i / columns) * columns + i % columns;
        memcpy(grid + cell * D, x + i * D, D * sizeof *x);
        memcpy(grid + (cell + columns) * D, x_hat + i * D, D * sizeof *x);
    }
    if (status == VAE_OK) {
        status = draw_grid(shape, grid, cells, columns, path, err);
    }
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
    const vae_dataset *set = t->test != NULL ? t->test_set : t->train_set;
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
    if (vae_draw_reconstructions(t->model, &t->now, data, n, set->factor_sizes != NULL,
                                 t->measure_batch, path, &err) == VAE_OK) {
        memcpy(t->result->reconstruction, path, sizeof path);
    }
    if (err.status != VAE_OK) {
        trainer_note(t, "warning: %s", err.text);
    }
}
