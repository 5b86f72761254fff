/* Latents into pictures: what makes them, decodes them and puts them into a sink. */
#include "infer/paint.h"

#include <float.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "stats/latent_walk.h"

enum { RECONSTRUCTION_COLUMNS = 10 };

vae_status vae_paint_decode(const vae_painter *p, float *x_hat, const float *z,
                            const uint32_t *label, size_t n, vae_error *err)
{
    vae_status status = VAE_OK;
    uint32_t *same = NULL;
    if (label == NULL && p->one_class != NULL) {
        same = malloc(n * sizeof *same);
        if (same == NULL) {
            TRY(vae_fail_memory(err, n * sizeof *same, "classes"));
        }
        for (size_t i = 0; i < n; i++) {
            same[i] = *p->one_class;
        }
        label = same;
    }
    TRY(vae_trained_decode(p->on, x_hat, z, label, n, err));
done:
    free(same);
    return status;
}

/* Is a column so far from 0 that floats are coarse for its spread? */
static bool needs_doubles(const vae_checkpoint *c)
{
    bool needs = false;
    for (size_t i = 0; c->standard != NULL && i < c->d; i++) {
        needs = needs || (double)FLT_EPSILON * fabs(c->standard[i]) > 0.01 * c->standard[c->d + i];
    }
    return needs;
}

vae_sink_spec vae_painter_spec(const vae_painter *p, size_t n)
{
    const vae_checkpoint *shape = vae_trained_shape(p->on);
    return (vae_sink_spec){.n = n,
                           .height = shape->height,
                           .width = shape->width,
                           .channels = shape->channels,
                           .wide = needs_doubles(shape)};
}

/* Into the sink, in the data's units; x_hat stays as the model has it. */
static vae_status put(const vae_painter *p, vae_row_sink *sink, const float *x_hat, size_t n,
                      vae_error *err)
{
    const vae_checkpoint *c = vae_trained_shape(p->on);
    const double *shift = c->standard;
    const size_t d = c->d;
    if (shift == NULL) {
        return vae_row_sink_put(sink, x_hat, n, err);
    }
    double *x = malloc(n * d * sizeof *x);
    if (x == NULL) {
        return vae_fail_memory(err, n * d * sizeof *x, "a batch");
    }
    for (size_t i = 0; i < n * d; i++) {
        x[i] = (double)x_hat[i] * shift[d + i % d] + shift[i % d];
    }
    const vae_status status = vae_row_sink_put_doubles(sink, x, n, err);
    free(x);
    return status;
}

/* Rows on their way into a sink. */
typedef struct {
    const vae_painter *p;
    const vae_latent_source *source;
    vae_row_sink *sink;
    float *z, *x_hat; /* room for a batch */
    uint32_t *label;  /* the same; NULL: the painter's class */
} painting;

static vae_status paint_batch(void *ctx, const vae_plan *plan, size_t rows, vae_error *err)
{
    const painting *w = ctx;
    const vae_latent_source *source = w->source;
    vae_status status = VAE_OK;
    TRY(source->make(source->ctx, w->z, plan->first, rows, err));
    if (w->label != NULL) {
        source->label(source->ctx, w->label, plan->first, rows);
    }
    TRY(vae_paint_decode(w->p, w->x_hat, w->z, w->label, rows, err));
    TRY(put(w->p, w->sink, w->x_hat, rows, err));
    if (source->seen != NULL) {
        source->seen(source->ctx, w->sink, w->x_hat, plan->first, rows);
    }
done:
    return status;
}

vae_status vae_paint(const vae_painter *p, const vae_latent_source *source, size_t n,
                     vae_row_sink *sink, vae_error *err)
{
    const vae_plan from_first = {.first = 0};
    const size_t D = vae_trained_shape(p->on)->d, Z = p->on->config.latent;
    const size_t batch = n < p->on->batch ? n : p->on->batch;
    const bool labelled = source->label != NULL && vae_model_layout(p->on->model)->c > 0;
    painting w = {.p = p, .source = source, .sink = sink};
    vae_status status = VAE_OK;
    w.z = malloc(batch * Z * sizeof *w.z);
    w.x_hat = malloc(batch * D * sizeof *w.x_hat);
    w.label = labelled ? malloc(batch * sizeof *w.label) : NULL;
    if (w.z == NULL || w.x_hat == NULL || (labelled && w.label == NULL)) {
        TRY(vae_fail_memory(err, batch * (Z + D) * sizeof *w.z, "a batch"));
    }
    TRY(vae_each_batch(&from_first, n, batch, &p->watch, paint_batch, &w, err));
done:
    free(w.label);
    free(w.x_hat);
    free(w.z);
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
    memcpy(z, from->z + first * from->latent, n * from->latent * sizeof *z);
    return VAE_OK;
}

vae_status vae_paint_latents(const vae_painter *p, const float *z, size_t n, vae_row_sink *sink,
                             vae_error *err)
{
    given from = {z, p->on->config.latent};
    const vae_latent_source source = {.make = make_given, .ctx = &from};
    return vae_paint(p, &source, n, sink, err);
}

typedef struct {
    uint64_t seed;
    size_t latent, each; /* each: of a line for one class */
    const vae_checkpoint *checkpoint;
} prior;

static vae_status make_prior(void *ctx, float *z, size_t first, size_t n, vae_error *err)
{
    const prior *from = ctx;
    (void)err;
    for (size_t i = 0; i < n; i++) {
        vae_prior_rows(z + i * from->latent, from->seed, (first + i) % from->each, 1, from->latent,
                       1);
    }
    return VAE_OK;
}

static void label_prior(void *ctx, uint32_t *label, size_t first, size_t n)
{
    const prior *from = ctx;
    for (size_t i = 0; i < n; i++) {
        label[i] =
            (uint32_t)vae_checkpoint_trained_class(from->checkpoint, (first + i) / from->each);
    }
}

/* Opens the sink, paints, closes it. */
static vae_status paint_to(const vae_painter *p, const char *path, const vae_sink_spec *spec,
                           const vae_latent_source *source, vae_error *err)
{
    vae_row_sink *sink = NULL;
    vae_status status = VAE_OK;
    TRY(vae_row_sink_open(&sink, path, spec, err));
    TRY(vae_paint(p, source, spec->n, sink, err));
done:
    return vae_row_sink_done(sink, status, err);
}

vae_status vae_paint_prior(const vae_painter *p, const char *path, size_t n, uint64_t seed,
                           vae_error *err)
{
    const vae_checkpoint *of = p->on->checkpoint;
    const bool lines = p->one_class == NULL && vae_model_layout(p->on->model)->c > 0;
    const size_t C = lines ? vae_checkpoint_n_trained(of) : 0;
    prior from = {seed, p->on->config.latent, C > 0 ? (n + C - 1) / C : n, of};
    const vae_latent_source source = {make_prior, NULL, &from, C > 0 ? label_prior : NULL};
    vae_sink_spec spec = vae_painter_spec(p, C > 0 ? from.each * C : n);
    spec.columns = C > 0 ? from.each : 0;
    return paint_to(p, path, &spec, &source, err);
}

typedef struct {
    const vae_trained *on;
    bool mixed;
    float *x;        /* (batch,D) of the batch under way */
    uint32_t *label; /* (batch) the same */
} encoded;

static vae_status make_encoded(void *ctx, float *z, size_t first, size_t n, vae_error *err)
{
    const encoded *from = ctx;
    vae_plan plan = vae_mixed_plan(from->mixed);
    vae_batch_out out = {.x = from->x, .mu = z, .label = from->label};
    plan.first = first;
    return vae_model_batch(from->on->model, from->on->data, &plan, n, 1, &out, err);
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
        vae_row_sink_beside(sink, first + i, 0, from->x + i * from->on->checkpoint->d);
    }
}

vae_status vae_paint_reconstructions(const vae_painter *p, const char *path, size_t n, bool mixed,
                                     size_t columns, vae_error *err)
{
    const size_t batch = p->on->batch, bytes = batch * p->on->checkpoint->d * sizeof(float);
    encoded from = {p->on, mixed, malloc(bytes), calloc(batch, sizeof(uint32_t))};
    const vae_latent_source source = {make_encoded, draw_originals, &from, label_encoded};
    vae_sink_spec spec = vae_painter_spec(p, n);
    vae_status status = VAE_OK;
    spec.columns = columns > 0 ? columns : RECONSTRUCTION_COLUMNS;
    spec.lines = 2;
    spec.line = 1;
    if (from.x == NULL || from.label == NULL) {
        TRY(vae_fail_memory(err, bytes, "a batch"));
    }
    TRY(paint_to(p, path, &spec, &source, err));
done:
    free(from.label);
    free(from.x);
    return status;
}
