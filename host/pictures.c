#include "pictures.h"

#include <stdlib.h>
#include <string.h>

#include "latent_walk.h"
#include "trainer.h"

enum {
    RECONSTRUCTION_COLUMNS = 10,
    MIXED_ORDER = 20140119, /* key of the order in which rows of a grid of factors are shown */
};

static vae_status stopped(const vae_painter *p, vae_error *err)
{
    return p->stop_signal != NULL && *p->stop_signal != 0
               ? vae_fail(err, VAE_ERR_INTERRUPTED, "interrupted")
               : VAE_OK;
}

vae_status vae_paint_decode(const vae_painter *p, float *x_hat, const float *z, size_t n,
                            vae_error *err)
{
    return vae_model_decode(p->model, x_hat, z, n, err);
}

/* Into the sink, in the data's units; x_hat stays as the model has it. */
static vae_status put(const vae_painter *p, vae_row_sink *sink, const float *x_hat, size_t n,
                      vae_error *err)
{
    const size_t bytes = n * p->shape->d * sizeof *x_hat;
    if (p->shape->standard == NULL) {
        return vae_row_sink_put(sink, x_hat, n, err);
    }
    float *x = malloc(bytes);
    if (x == NULL) {
        return vae_fail_memory(err, bytes, "a batch");
    }
    memcpy(x, x_hat, bytes);
    vae_checkpoint_units(p->shape, x, n);
    vae_status status = vae_row_sink_put(sink, x, n, err);
    free(x);
    return status;
}

vae_status vae_paint(const vae_painter *p, const vae_latent_source *source, size_t n,
                     vae_row_sink *sink, vae_error *err)
{
    const size_t D = p->shape->d, Z = p->shape->config.latent;
    const size_t batch = n < p->batch ? n : p->batch;
    float *z = malloc(batch * Z * sizeof *z), *x_hat = malloc(batch * D * sizeof *x_hat);
    vae_status status = z != NULL && x_hat != NULL
                            ? VAE_OK
                            : vae_fail_memory(err, batch * (Z + D) * sizeof *z, "a batch");
    for (size_t at = 0; at < n && status == VAE_OK;) {
        const size_t rows = n - at < batch ? n - at : batch;
        status = stopped(p, err);
        status = status == VAE_OK ? source->make(source->ctx, z, at, rows, err) : status;
        status = status == VAE_OK ? vae_paint_decode(p, x_hat, z, rows, err) : status;
        status = status == VAE_OK ? put(p, sink, x_hat, rows, err) : status;
        if (status == VAE_OK && source->seen != NULL) {
            source->seen(source->ctx, sink, x_hat, at, rows);
        }
        at += rows;
        if (status == VAE_OK && p->progress != NULL) {
            p->progress(p->ctx, at, n);
        }
    }
    free(x_hat);
    free(z);
    return status;
}

vae_sink_spec vae_painter_spec(const vae_painter *p, size_t n)
{
    return (vae_sink_spec){.n = n,
                           .height = p->shape->height,
                           .width = p->shape->width,
                           .channels = p->shape->channels};
}

vae_status vae_look(const vae_painter *p, vae_data *data, size_t n, float *x, float *mu, float *z,
                    vae_error *err)
{
    const size_t D = p->shape->d, Z = p->shape->config.latent;
    vae_status status = VAE_OK;
    for (size_t at = 0; at < n && status == VAE_OK; at += p->batch) {
        const vae_plan plan = {.draw = VAE_EVAL_DRAW(0), .first = at, .beta = 1, .step = 1};
        vae_batch_out out = {.x = x != NULL ? x + at * D : NULL,
                             .mu = mu != NULL ? mu + at * Z : NULL,
                             .z = z != NULL ? z + at * Z : NULL};
        status = stopped(p, err);
        if (status == VAE_OK) {
            status = vae_model_batch(p->model, data, &plan, n - at < p->batch ? n - at : p->batch,
                                     1, &out, err);
        }
    }
    return status;
}

/* ---- sources ---- */

typedef struct {
    const float *z;
    size_t latent;
} given;

static vae_status make_given(void *ctx, float *z, size_t first, size_t n, vae_error *err)
{
    const given *from = ctx;
    (void)err;
    for (size_t i = 0; i < n * from->latent; i++) {
        z[i] = from->z[first * from->latent + i];
    }
    return VAE_OK;
}

vae_status vae_paint_latents(const vae_painter *p, const float *z, size_t n, vae_row_sink *sink,
                             vae_error *err)
{
    given from = {z, p->shape->config.latent};
    const vae_latent_source source = {make_given, NULL, &from};
    return vae_paint(p, &source, n, sink, err);
}

typedef struct {
    uint64_t seed;
    double temperature;
    size_t latent;
} prior;

static vae_status make_prior(void *ctx, float *z, size_t first, size_t n, vae_error *err)
{
    const prior *from = ctx;
    (void)err;
    vae_prior_rows(z, from->seed, first, n, from->latent, from->temperature);
    return VAE_OK;
}

/* Opens the sink, paints, closes it. */
static vae_status paint_to(const vae_painter *p, const char *path, const vae_sink_spec *spec,
                           const vae_latent_source *source, vae_error *err)
{
    vae_row_sink *sink;
    vae_status status = vae_row_sink_open(&sink, path, spec, err);
    if (status != VAE_OK) {
        return status;
    }
    status = vae_paint(p, source, spec->n, sink, err);
    const vae_status closed = vae_row_sink_close(sink, status == VAE_OK, err);
    return status == VAE_OK ? closed : status;
}

vae_status vae_paint_prior(const vae_painter *p, const char *path, size_t n, size_t columns,
                           uint64_t seed, double temperature, vae_error *err)
{
    prior from = {seed, temperature, p->shape->config.latent};
    const vae_latent_source source = {make_prior, NULL, &from};
    vae_sink_spec spec = vae_painter_spec(p, n);
    spec.columns = columns;
    return paint_to(p, path, &spec, &source, err);
}

typedef struct {
    const vae_painter *p;
    vae_data *data;
    bool mixed;
    float *x; /* (batch,D) of the batch under way */
} encoded;

static vae_status make_encoded(void *ctx, float *z, size_t first, size_t n, vae_error *err)
{
    const encoded *from = ctx;
    const vae_plan plan = {.draw = VAE_EVAL_DRAW(0),
                           .first = first,
                           .order_key = MIXED_ORDER,
                           .shuffle = from->mixed,
                           .beta = 1,
                           .step = 1};
    vae_batch_out out = {.x = from->x, .mu = z};
    return vae_model_batch(from->p->model, from->data, &plan, n, 1, &out, err);
}

static void draw_originals(void *ctx, vae_row_sink *sink, const float *x_hat, size_t first,
                           size_t n)
{
    const encoded *from = ctx;
    (void)x_hat;
    for (size_t i = 0; i < n; i++) {
        vae_row_sink_beside(sink, first + i, 0, from->x + i * from->p->shape->d);
    }
}

vae_status vae_paint_reconstructions(const vae_painter *p, const char *path, vae_data *data,
                                     size_t n, bool mixed, size_t columns, vae_error *err)
{
    encoded from = {p, data, mixed, malloc(p->batch * p->shape->d * sizeof(float))};
    const vae_latent_source source = {make_encoded, draw_originals, &from};
    vae_sink_spec spec = vae_painter_spec(p, n);
    spec.columns = columns > 0 ? columns : RECONSTRUCTION_COLUMNS;
    spec.lines = 2;
    spec.line = 1;
    const vae_status status =
        from.x != NULL ? paint_to(p, path, &spec, &source, err)
                       : vae_fail_memory(err, p->batch * p->shape->d * sizeof(float), "a batch");
    free(from.x);
    return status;
}
