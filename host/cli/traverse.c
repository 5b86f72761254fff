/* vae traverse: what each latent does. */
#include <stdlib.h>
#include <string.h>

#include "cli/draw.h"

enum { STEPS = 11 };

typedef struct {
    size_t latent, lines, steps;
    size_t *order; /* (latent) dimensions as they are drawn */
    double *kl;    /* (latent) mean over the data, nats; NULL = no data */
    size_t n_data; /* rows that kl is of */
    float *base;   /* (latent) where the walk passes through */
    double range;
} traverse;

/* The data say which latents matter. Without them, and without --data or --row that ask for them,
 * the picture is drawn all the same. */
static vae_status open_data(traverse *t, drawing *d, vae_error *err)
{
    vae_error missing = {0};
    vae_status status =
        cli_open_set_if_there(&d->m, d->args, cli_value(d->args, "split"), "row", &missing, err);
    if (d->m.set != NULL) {
        t->n_data = d->m.set->n;
    } else if (status == VAE_OK) {
        cli_say(d->args, "dimensions in their own order, not by KL: %s", missing.text);
    }
    return status;
}

/* kl: means over all rows; order by them. */
static vae_status measure(traverse *t, drawing *d, vae_error *err)
{
    const vae_plan plan = vae_eval_plan(0, 0);
    const vae_batch_out nothing_else = {.mu = NULL};
    vae_status status = VAE_OK;
    t->kl = calloc(t->latent, sizeof *t->kl);
    if (t->kl == NULL) {
        TRY(vae_fail_memory(err, t->latent * sizeof *t->kl, "KL by dimension"));
    }
    TRY(vae_trained_put(&d->m, NULL, 0, err));
    TRY(vae_trained_run(&d->m, d->m.n, &plan, &d->painter.watch, &nothing_else, t->kl, err));
    vae_order_by_kl(t->order, t->kl, t->latent);
done:
    return status;
}

/* mu of row --row of the data in place of 0, and its class where none is named. */
static vae_status take_base(traverse *t, drawing *d, vae_error *err)
{
    const vae_plan plan = vae_eval_plan(0, 0);
    const vae_batch_out out = {.mu = t->base, .label = d->only < 0 ? &d->label : NULL};
    size_t number;
    vae_status status = VAE_OK;
    TRY(cli_size(d->args, "row", 0, 0, UINT32_MAX - 1, &number, err));
    uint32_t row = (uint32_t)number;
    TRY(draw_find_rows(&d->m, &row, 1, "--row", err));
    TRY(vae_trained_put(&d->m, &row, 1, err));
    TRY(vae_trained_run(&d->m, 1, &plan, NULL, &out, NULL, err));
    d->painter.one_class = vae_config_has_classes(&d->m.config) ? &d->label : NULL;
done:
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
        printf("row  dimension  kl, nats (mean of %zu row%s of %s, %s)\n", t->n_data,
               vae_s(t->n_data), d->m.set->source, d->m.split);
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
    vae_status status = VAE_OK;
    t->latent = d->m.config.latent;
    TRY(cli_size(d->args, "top", 0, 1, t->latent, &t->lines, err));
    TRY(draw_open_classes(d, err));
    if (!cli_given(d->args, "row")) {
        TRY(draw_need_class(d, "a --row of the data", err));
    }
    t->lines = t->lines > 0 ? t->lines : t->latent;
    t->order = malloc(t->latent * sizeof *t->order);
    t->base = calloc(t->latent, sizeof *t->base);
    if (t->order == NULL || t->base == NULL) {
        TRY(vae_fail_memory(err, t->latent * sizeof *t->order, "dimensions"));
    }
    for (size_t j = 0; j < t->latent; j++) {
        t->order[j] = j;
    }
    vae_sink_spec spec = vae_painter_spec(&d->painter, t->lines * t->steps);
    spec.columns = t->steps;
    TRY(draw_open_sink(d, &spec, err));
    TRY(open_data(t, d, err));
    TRY(draw_open_model(d, err));
    if (d->m.set != NULL) {
        TRY(measure(t, d, err));
    }
    if (cli_given(d->args, "row")) {
        TRY(take_base(t, d, err));
    }
done:
    return status;
}

static vae_status run_traverse(const cli_args *args, vae_error *err)
{
    drawing d = {0};
    traverse t = {0};
    const vae_latent_source source = {.make = make_steps, .ctx = &t};
    vae_status status = VAE_OK;
    TRY(cli_size(args, "steps", STEPS, 2, 1000, &t.steps, err));
    TRY(cli_real(args, "range", 3, 1e-6, 1000, &t.range, err));
    TRY(draw_begin(&d, args, "traverse.png", false, err));
    TRY(prepare(&t, &d, err));
    TRY(vae_paint(&d.painter, &source, t.lines * t.steps, d.sink, err));
    TRY(draw_finish(&d, err));
    cli_progress_clear(&d.progress);
    print_order(&t, &d);
    draw_say(&d, t.lines * t.steps, "picture", " along the latents", traverse_details(&t, &d));
done:
    draw_close(&d);
    free(t.order);
    free(t.kl);
    free(t.base);
    return status;
}

static const cli_option traverse_options[] = {
    CLI_DATA_OPTIONS,
    {"out", 'o', "FILE", ".png (a line a latent), a folder, .npy, or - [traverse.png]"},
    {"range", 0, "R", "from -R to R [3]"},
    {"steps", 0, "N", "pictures of a line [11]"},
    {"top", 0, "N", "only the N latents of highest KL; default: all"},
    {"row", 0, "I", "start from mu of this row of the data; default: from 0"},
    {"class", 0, "NAME", "of a model with classes: decode as this one; default: the --row's"},
    CLI_MODEL_OPTIONS,
};

const cli_command cli_traverse_command = {
    .name = "traverse",
    .words = "RUN",
    .n_words = 1,
    .help = "What each latent does: a line each, highest KL first.",
    .examples = "  vae traverse runs/mnist --out traverse.png\n"
                "  vae traverse runs/mnist --top 10 --row 7 --range 2 --steps 9\n",
    CLI_OPTIONS(traverse_options),
    .run = run_traverse,
};
