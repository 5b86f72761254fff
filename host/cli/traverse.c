/* vae traverse: what each latent does. */
#include <stdlib.h>
#include <string.h>

#include "cli/draw.h"
#include "train/trainer.h"

enum { STEPS = 11 };

typedef struct {
    size_t latent, lines, steps;
    size_t *order; /* (latent) dimensions as they are drawn */
    double *kl;    /* (latent) mean over the data, nats; NULL = no data */
    size_t n_data; /* rows that kl is of */
    float *base;   /* (latent) where the walk passes through */
    double range;
} traverse;

static int by_kl(const void *a, const void *b, void *kl)
{
    const size_t i = *(const size_t *)a, j = *(const size_t *)b;
    const double x = ((const double *)kl)[i], y = ((const double *)kl)[j];
    return x > y ? -1 : x < y ? 1 : i < j ? -1 : i > j;
}

/* The data say which latents matter. Without them, and without --data or --row that ask for them,
 * the picture is drawn all the same. */
static vae_status open_data(traverse *t, drawing *d, vae_error *err)
{
    const cli_args *args = d->args;
    vae_error inner = {0};
    vae_status status = cli_open_set(&d->m, args, &inner);
    if (status == VAE_OK) {
        t->n_data = d->m.set->n;
        return VAE_OK;
    }
    if (cli_value(args, "data") != NULL || cli_value(args, "split") != NULL ||
        cli_value(args, "limit") != NULL || cli_value(args, "row") != NULL) {
        return vae_fail(err, status, "%s", inner.text);
    }
    cli_say(args, "dimensions in their own order, not by KL: %s", inner.text);
    vae_dataset_free(d->m.set);
    d->m.set = NULL;
    return VAE_OK;
}

/* kl: means over all rows; order by them. */
static vae_status measure(traverse *t, drawing *d, vae_error *err)
{
    float *batch = malloc(t->latent * sizeof *batch);
    t->kl = calloc(t->latent, sizeof *t->kl);
    vae_status status = batch != NULL && t->kl != NULL
                            ? draw_open_rows(d, NULL, t->n_data, err)
                            : vae_fail_memory(err, t->latent * sizeof *t->kl, "KL by dimension");
    for (size_t at = 0; at < t->n_data && status == VAE_OK; at += d->painter.batch) {
        const size_t left = t->n_data - at,
                     rows = left < d->painter.batch ? left : d->painter.batch;
        const vae_plan plan = vae_eval_plan(0, at);
        vae_batch_out out = {.kl_dim = batch};
        status = vae_model_batch(d->m.model, d->m.data, &plan, rows, 1, &out, err);
        for (size_t j = 0; j < t->latent && status == VAE_OK; j++) {
            t->kl[j] += (double)batch[j] * (double)rows / (double)t->n_data;
        }
        d->painter.progress(d->painter.ctx, at + rows, t->n_data);
        if (status == VAE_OK && *d->painter.stop_signal != 0) {
            status = vae_fail(err, VAE_ERR_INTERRUPTED, "interrupted");
        }
    }
    if (status == VAE_OK) {
        qsort_r(t->order, t->latent, sizeof *t->order, by_kl, t->kl);
    }
    free(batch);
    return status;
}

/* mu of row --row of the data in place of 0, and its class where none is named. */
static vae_status take_base(traverse *t, drawing *d, vae_error *err)
{
    size_t number;
    vae_status status = cli_size(d->args, "row", 0, 0, UINT32_MAX - 1, &number, err);
    const uint32_t row = (uint32_t)number;
    if (status == VAE_OK && (status = draw_check_rows(&d->m, &row, 1, "--row", err)) == VAE_OK) {
        status = draw_open_rows(d, &row, 1, err);
    }
    if (status == VAE_OK) {
        const vae_batch_out out = {.mu = t->base, .label = d->only < 0 ? &d->label : NULL};
        status = vae_look(&d->painter, d->m.data, 1, &out, err);
        d->painter.one_class = vae_config_has_classes(&d->m.config) ? &d->label : NULL;
    }
    return status;
}

static vae_status make_steps(void *ctx, float *z, size_t first, size_t n, vae_error *err)
{
    const traverse *t = ctx;
    (void)err;
    for (size_t i = 0; i < n; i++) {
        const size_t line = (first + i) / t->steps, step = (first + i) % t->steps;
        memcpy(z + i * t->latent, t->base, t->latent * sizeof *z);
        z[i * t->latent + t->order[line]] =
            (float)(t->steps > 1 ? t->range * (2 * (double)step / (double)(t->steps - 1) - 1) : 0);
    }
    return VAE_OK;
}

static void print_order(const traverse *t, const drawing *d)
{
    if (d->args->json || strcmp(d->out, "-") == 0) {
        return;
    }
    if (t->kl != NULL) {
        printf("row  dimension  kl, nats (mean of %zu rows of %s, %s)\n", t->n_data,
               d->m.set->source, d->m.split);
    } else {
        printf("row  dimension\n");
    }
    for (size_t i = 0; i < t->lines; i++) {
        printf("%3zu  %9zu", i, t->order[i]);
        if (t->kl != NULL) {
            printf("  %.4f", t->kl[t->order[i]]);
        }
        putchar('\n');
    }
}

static json_t *traverse_details(const traverse *t, const drawing *d)
{
    json_t *dims = json_array();
    for (size_t i = 0; i < t->lines; i++) {
        const size_t j = t->order[i];
        json_array_append_new(dims, json_pack("{s:I, s:o}", "dim", (json_int_t)j, "kl",
                                              t->kl != NULL ? json_real(t->kl[j]) : json_null()));
    }
    return json_pack("{s:s, s:o, s:I, s:f, s:I, s:o}", "order", t->kl != NULL ? "kl" : "index",
                     "data", t->kl != NULL ? json_string(d->m.set->source) : json_null(), "data_n",
                     (json_int_t)t->n_data, "range", t->range, "steps", (json_int_t)t->steps,
                     "dims", dims);
}

static vae_status prepare(traverse *t, drawing *d, vae_error *err)
{
    t->latent = d->m.config.latent;
    vae_status status = cli_size(d->args, "top", 0, 1, t->latent, &t->lines, err);
    status = status == VAE_OK ? draw_open_classes(d, err) : status;
    if (status == VAE_OK && cli_value(d->args, "row") == NULL) {
        status = draw_need_class(d, "a --row of the data", err);
    }
    if (status != VAE_OK) {
        return status;
    }
    t->lines = t->lines > 0 ? t->lines : t->latent;
    t->order = malloc(t->latent * sizeof *t->order);
    t->base = calloc(t->latent, sizeof *t->base);
    if (t->order == NULL || t->base == NULL) {
        return vae_fail_memory(err, t->latent * sizeof *t->order, "dimensions");
    }
    for (size_t j = 0; j < t->latent; j++) {
        t->order[j] = j;
    }
    vae_sink_spec spec = vae_painter_spec(&d->painter, t->lines * t->steps);
    spec.columns = t->steps;
    status = draw_open_sink(d, &spec, err);
    status = status == VAE_OK ? open_data(t, d, err) : status;
    status = status == VAE_OK ? draw_open_model(d, err) : status;
    status = status == VAE_OK && d->m.set != NULL ? measure(t, d, err) : status;
    return status == VAE_OK && cli_value(d->args, "row") != NULL ? take_base(t, d, err) : status;
}

vae_status cli_traverse(const cli_args *args, vae_error *err)
{
    drawing d = {0};
    traverse t = {0};
    vae_status status = cli_size(args, "steps", STEPS, 2, 1000, &t.steps, err);
    if (status == VAE_OK &&
        (status = cli_real(args, "range", 3, 1e-6, 1000, &t.range, err)) == VAE_OK &&
        (status = draw_begin(&d, args, "traverse.png", false, err)) == VAE_OK &&
        (status = prepare(&t, &d, err)) == VAE_OK) {
        const vae_latent_source source = {.make = make_steps, .ctx = &t};
        status = vae_paint(&d.painter, &source, t.lines * t.steps, d.sink, err);
    }
    status = status == VAE_OK ? draw_finish(&d, err) : status;
    if (status == VAE_OK) {
        cli_progress_clear(&d.progress);
        print_order(&t, &d);
        draw_report(&d, t.lines * t.steps, "pictures along the latents", traverse_details(&t, &d));
    }
    draw_close(&d);
    free(t.order);
    free(t.kl);
    free(t.base);
    return status;
}
