#include "infer/pictures.h"

#include <stdlib.h>
#include <string.h>

#include "stats/latent_walk.h"
#include "train/trainer.h"

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

const vae_checkpoint *vae_painter_shape(const vae_painter *p)
{
    return p->below != NULL ? p->below->checkpoint : p->shape;
}

/* Rows of a stacked model's decoder are latents of the run below. */
static vae_status decode_below(const vae_painter *p, float *x_hat, const float *z,
                               const uint32_t *label, size_t n, vae_error *err)
{
    float *latents = malloc(n * p->shape->d * sizeof *latents);
    if (latents == NULL) {
        return vae_fail_memory(err, n * p->shape->d * sizeof *latents, "latents");
    }
    vae_status status = vae_model_decode_classes(p->model, latents, z, label, n, err);
    if (status == VAE_OK) {
        status = vae_runner_decode(&p->below->runner, x_hat, latents, n, err);
    }
    free(latents);
    return status;
}

vae_status vae_paint_decode(const vae_painter *p, float *x_hat, const float *z,
                            const uint32_t *label, size_t n, vae_error *err)
{
    uint32_t *same = NULL;
    if (label == NULL && p->one_class != NULL) {
        same = malloc(n * sizeof *same);
        if (same == NULL) {
            return vae_fail_memory(err, n * sizeof *same, "classes");
        }
        for (size_t i = 0; i < n; i++) {
            same[i] = *p->one_class;
        }
        label = same;
    }
    vae_status status = p->below != NULL
                            ? decode_below(p, x_hat, z, label, n, err)
                            : vae_model_decode_classes(p->model, x_hat, z, label, n, err);
    free(same);
    return status;
}

size_t vae_paint_lines(const vae_painter *p, size_t n, size_t *columns)
{
    const size_t C = vae_model_layout(p->model)->c;
    if (C == 0 || p->one_class != NULL) {
        return n;
    }
    *columns = (n + C - 1) / C;
    return *columns * C;
}

/* Into the sink, in the data's units; x_hat stays as the model has it. */
static vae_status put(const vae_painter *p, vae_row_sink *sink, const float *x_hat, size_t n,
                      vae_error *err)
{
    const vae_checkpoint *c = vae_painter_shape(p);
    const size_t bytes = n * c->d * sizeof *x_hat;
    if (c->standard == NULL) {
        return vae_row_sink_put(sink, x_hat, n, err);
    }
    float *x = malloc(bytes);
    if (x == NULL) {
        return vae_fail_memory(err, bytes, "a batch");
    }
    memcpy(x, x_hat, bytes);
    vae_checkpoint_units(c, x, n);
    vae_status status = vae_row_sink_put(sink, x, n, err);
    free(x);
    return status;
}

vae_status vae_paint(const vae_painter *p, const vae_latent_source *source, size_t n,
                     vae_row_sink *sink, vae_error *err)
{
    const size_t D = vae_painter_shape(p)->d, Z = p->shape->config.latent;
    const size_t batch = n < p->batch ? n : p->batch;
    float *z = malloc(batch * Z * sizeof *z), *x_hat = malloc(batch * D * sizeof *x_hat);
    uint32_t *label = malloc((batch > 0 ? batch : 1) * sizeof *label);
    const bool labelled = source->label != NULL && vae_model_layout(p->model)->c > 0;
    vae_status status = z != NULL && x_hat != NULL && label != NULL
                            ? VAE_OK
                            : vae_fail_memory(err, batch * (Z + D) * sizeof *z, "a batch");
    for (size_t at = 0; at < n && status == VAE_OK;) {
        const size_t rows = n - at < batch ? n - at : batch;
        status = stopped(p, err);
        status = status == VAE_OK ? source->make(source->ctx, z, at, rows, err) : status;
        if (labelled) {
            source->label(source->ctx, label, at, rows);
        }
        status = status == VAE_OK
                     ? vae_paint_decode(p, x_hat, z, labelled ? label : NULL, rows, err)
                     : status;
        status = status == VAE_OK ? put(p, sink, x_hat, rows, err) : status;
        if (status == VAE_OK && source->seen != NULL) {
            source->seen(source->ctx, sink, x_hat, at, rows);
        }
        at += rows;
        if (status == VAE_OK && p->progress != NULL) {
            p->progress(p->ctx, at, n);
        }
    }
    free(label);
    free(x_hat);
    free(z);
    return status;
}

vae_sink_spec vae_painter_spec(const vae_painter *p, size_t n)
{
    return (vae_sink_spec){.n = n,
                           .height = vae_painter_shape(p)->height,
                           .width = vae_painter_shape(p)->width,
                           .channels = vae_painter_shape(p)->channels};
}

vae_status vae_look(const vae_painter *p, vae_data *data, size_t n, const vae_batch_out *out,
                    vae_error *err)
{
    const size_t D = p->shape->d, Z = p->shape->config.latent;
    vae_status status = VAE_OK;
    for (size_t at = 0; at < n && status == VAE_OK; at += p->batch) {
        const vae_plan plan = vae_eval_plan(0, at);
        vae_batch_out part = {.x = out->x != NULL ? out->x + at * D : NULL,
                              .mu = out->mu != NULL ? out->mu + at * Z : NULL,
                              .z = out->z != NULL ? out->z + at * Z : NULL,
                              .label = out->label != NULL ? out->label + at : NULL};
        status = stopped(p, err);
        if (status == VAE_OK) {
            status = vae_model_batch(p->model, data, &plan, n - at < p->batch ? n - at : p->batch,
                                     1, &part, err);
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
    const vae_latent_source source = {.make = make_given, .ctx = &from};
    return vae_paint(p, &source, n, sink, err);
}

typedef struct {
    uint64_t seed;
    double temperature;
    size_t latent, each; /* each: of a line for one class; 0 = no lines */
} prior;

static vae_status make_prior(void *ctx, float *z, size_t first, size_t n, vae_error *err)
{
    const prior *from = ctx;
    (void)err;
    for (size_t i = 0; from->each > 0 && i < n; i++) {
        vae_prior_rows(z + i * from->latent, from->seed, (first + i) % from->each, 1, from->latent,
                       from->temperature);
    }
    if (from->each == 0) {
        vae_prior_rows(z, from->seed, first, n, from->latent, from->temperature);
    }
    return VAE_OK;
}

static void label_prior(void *ctx, uint32_t *label, size_t first, size_t n)
{
    const prior *from = ctx;
    for (size_t i = 0; i < n; i++) {
        label[i] = (uint32_t)((first + i) / from->each);
    }
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
    prior from = {seed, temperature, p->shape->config.latent, 0};
    n = vae_paint_lines(p, n, &from.each);
    const vae_latent_source source = {make_prior, NULL, &from, from.each > 0 ? label_prior : NULL};
    vae_sink_spec spec = vae_painter_spec(p, n);
    spec.columns = columns > 0 ? columns : from.each;
    return paint_to(p, path, &spec, &source, err);
}

typedef struct {
    const vae_painter *p;
    vae_data *data;
    bool mixed;
    float *x;        /* (batch,D) of the batch under way */
    uint32_t *label; /* (batch) the same */
} encoded;

static vae_status make_encoded(void *ctx, float *z, size_t first, size_t n, vae_error *err)
{
    const encoded *from = ctx;
    vae_plan plan = vae_eval_plan(0, first);
    plan.order_key = MIXED_ORDER;
    plan.shuffle = from->mixed;
    vae_batch_out out = {.x = from->x, .mu = z, .label = from->label};
    return vae_model_batch(from->p->model, from->data, &plan, n, 1, &out, err);
}

static void label_encoded(void *ctx, uint32_t *label, size_t first, size_t n)
{
    const encoded *from = ctx;
    (void)first;
    memcpy(label, from->label, n * sizeof *label);
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
    encoded from = {p, data, mixed, malloc(p->batch * p->shape->d * sizeof(float)),
                    calloc(p->batch, sizeof(uint32_t))};
    const vae_latent_source source = {make_encoded, draw_originals, &from, label_encoded};
    vae_sink_spec spec = vae_painter_spec(p, n);
    spec.columns = columns > 0 ? columns : RECONSTRUCTION_COLUMNS;
    spec.lines = 2;
    spec.line = 1;
    const vae_status status =
        from.x != NULL && from.label != NULL
            ? paint_to(p, path, &spec, &source, err)
            : vae_fail_memory(err, p->batch * p->shape->d * sizeof(float), "a batch");
    free(from.label);
    free(from.x);
    return status;
}
