/* vae interpolate: from one example to another, through latent space. */
#include <stdlib.h>
#include <string.h>

#include "cli/draw.h"
#include "image/image.h"
#include "stats/latent_walk.h"

enum {
    STEPS = 10,
    GIF_CELL = 112,     /* pixels that small pictures are magnified to, about */
    GIF_GAP = 2,        /* between several pairs */
    GIF_END = 60,       /* hundredths of a second that an end is shown */
    GIF_STEP = 10,      /* and a step between them */
    GIF_MOST = 1 << 30, /* bytes of all frames */
};

/* One side of the pairs: rows of the data, or a picture file. */
typedef struct {
    const char *option, *text;
    bool file;
    uint32_t *rows; /* (n), if no file */
    size_t n;
    float *x, *mu;   /* (n,D), (n,Z) */
    uint32_t *label; /* (n), of a model with classes; calloc'ed */
} endpoint;

typedef struct {
    endpoint from, to;
    size_t pairs, steps, latent;
    bool spherical;
} interpolation;

/* ---- the ends ---- */

static vae_status read_endpoint(endpoint *e, const cli_args *args, const char *option,
                                vae_error *err)
{
    const char *text = cli_value(args, option + 2);
    e->option = option;
    e->text = text;
    if (text == NULL || *text == '\0') {
        return vae_fail(
            err, VAE_ERR_USAGE,
            "%s is missing: a row number of the data, several (3,1,4), or a picture file", option);
    }
    e->file = text[strspn(text, "0123456789,")] != '\0';
    e->n = 1;
    return e->file ? VAE_OK : draw_numbers(&e->rows, &e->n, option, text, err);
}

/* The file as a data set of one row, of the class that was asked for, if any. */
static vae_status open_picture(vae_dataset **out, const drawing *d, const char *path,
                               vae_error *err)
{
    vae_dataset *set = NULL;
    vae_status status = VAE_OK;
    *out = NULL;
    TRY(vae_trained_open_row(&d->m, &set, path, err));
    if (d->only >= 0) {
        free(set->labels);
        set->labels = malloc(sizeof *set->labels);
        if (set->labels == NULL) {
            TRY(vae_fail_memory(err, sizeof *set->labels, path));
        }
        set->labels[0] = (uint32_t)d->only;
    }
    *out = set;
    set = NULL;
done:
    vae_dataset_free(set);
    return status;
}

/* x and mu of an endpoint. */
static vae_status look_at(endpoint *e, drawing *d, vae_error *err)
{
    const vae_checkpoint *c = d->m.checkpoint;
    const vae_plan plan = vae_eval_plan(0, 0);
    const vae_watch until_stopped = {.stop_signal = d->painter.watch.stop_signal};
    vae_dataset *picture = NULL;
    vae_status status = VAE_OK;
    e->x = malloc(e->n * c->d * sizeof *e->x);
    e->mu = malloc(e->n * c->config.latent * sizeof *e->mu);
    e->label = calloc(e->n, sizeof *e->label);
    const vae_batch_out out = {.x = e->x, .mu = e->mu, .label = e->label};
    if (e->x == NULL || e->mu == NULL || e->label == NULL) {
        TRY(vae_fail_memory(err, e->n * c->d * sizeof *e->x, "examples"));
    }
    if (e->file) {
        TRY(open_picture(&picture, d, e->text, err));
        TRY(vae_trained_run_set(&d->m, picture, plan.draw, &out, err));
    } else {
        TRY(vae_trained_put(&d->m, e->rows, e->n, err));
        TRY(vae_trained_run(&d->m, e->n, &plan, &until_stopped, &out, NULL, err));
    }
done:
    vae_dataset_free(picture);
    return status;
}

/* A picture file has no label for a conditional model's encoder, and no latents below. */
static vae_status check_files(const interpolation *p, const drawing *d, vae_error *err)
{
    if (!p->from.file && !p->to.file) {
        return VAE_OK;
    }
    if (d->m.below != NULL) {
        return vae_fail(err, VAE_ERR_USAGE,
                        "%s stands on another run, whose latents are its data: --from and --to "
                        "take row numbers, no picture files",
                        d->m.path);
    }
    return d->m.config.condition == VAE_CONDITION_LABELS
               ? draw_need_class(d, "row numbers of data with labels instead of files", err)
               : VAE_OK;
}

/* The data are opened only where row numbers want them. */
static vae_status open_ends(interpolation *p, drawing *d, vae_error *err)
{
    static const char *const of_data[] = {"data", "split", "limit", NULL};
    vae_status status = VAE_OK;
    TRY(check_files(p, d, err));
    if (p->from.file && p->to.file) {
        TRY(cli_refuse(d->args, of_data, "between two picture files", err));
    } else {
        TRY(cli_open_set(&d->m, d->args, err));
        TRY(draw_find_rows(&d->m, p->from.rows, p->from.file ? 0 : p->from.n, "--from", err));
        TRY(draw_find_rows(&d->m, p->to.rows, p->to.file ? 0 : p->to.n, "--to", err));
    }
    TRY(draw_open_model(d, err));
    TRY(look_at(&p->from, d, err));
    TRY(look_at(&p->to, d, err));
done:
    return status;
}

/* ---- the way ---- */

static void make_step(const interpolation *p, float *z, size_t pair, size_t step)
{
    const float *a = p->from.mu + pair * p->latent, *b = p->to.mu + pair * p->latent;
    const double t = (double)step / (double)(p->steps - 1);
    (p->spherical ? vae_slerp : vae_lerp)(z, a, b, p->latent, t);
}

static vae_status make_steps(void *ctx, float *z, size_t first, size_t n, vae_error *err)
{
    const interpolation *p = ctx;
    (void)err;
    for (size_t i = 0; i < n; i++) {
        make_step(p, z + i * p->latent, (first + i) / p->steps, (first + i) % p->steps);
    }
    return VAE_OK;
}

static void label_steps(void *ctx, uint32_t *label, size_t first, size_t n)
{
    const interpolation *p = ctx;
    for (size_t i = 0; i < n; i++) {
        label[i] = p->from.label[(first + i) / p->steps];
    }
}

/* A line a pair: the steps, and in a grid the originals at its ends. */
static vae_status draw_lines(interpolation *p, drawing *d, vae_error *err)
{
    const vae_latent_source source = {
        .make = make_steps, .ctx = p, .label = d->only < 0 ? label_steps : NULL};
    const size_t n = p->pairs * p->steps, D = d->m.checkpoint->d;
    vae_status status = VAE_OK;
    vae_sink_spec spec = vae_painter_spec(&d->painter, n);
    spec.columns = p->steps;
    spec.ends = d->m.below == NULL; /* where rows are pictures */
    TRY(draw_open_sink(d, &spec, err));
    TRY(vae_paint(&d->painter, &source, n, d->sink, err));
    for (size_t i = 0; i < p->pairs && spec.ends; i++) {
        vae_row_sink_end(d->sink, i * p->steps, false, p->from.x + i * D);
        vae_row_sink_end(d->sink, i * p->steps, true, p->to.x + i * D);
    }
    TRY(draw_finish(d, err));
done:
    return status;
}

/* ---- the animation ---- */

/* There and back: each end once, each step between them twice. */
static vae_status write_animation(const interpolation *p, const drawing *d, const uint8_t *frames,
                                  const vae_grid *grid, vae_error *err)
{
    const size_t n = 2 * p->steps - 2;
    vae_status status = VAE_OK;
    size_t *order = malloc(2 * p->steps * sizeof *order);
    unsigned *delay = malloc(2 * p->steps * sizeof *delay);
    if (order == NULL || delay == NULL) {
        TRY(vae_fail_memory(err, n * sizeof *order, "an animation"));
    }
    for (size_t i = 0; i < n; i++) {
        order[i] = i < p->steps ? i : n - i;
        delay[i] = order[i] == 0 || order[i] + 1 == p->steps ? GIF_END : GIF_STEP;
    }
    TRY(vae_gif_write(d->out, frames, p->steps, grid->width, grid->height, grid->spec.channels,
                      order, delay, n, err));
done:
    free(order);
    free(delay);
    return status;
}

/* Every pair's picture at one step. */
static vae_status draw_frame(const interpolation *p, const drawing *d, vae_grid *grid, size_t step,
                             float *z, float *x_hat, vae_error *err)
{
    const vae_watch *watch = &d->painter.watch;
    const bool by_row = vae_config_has_classes(&d->m.config) && d->only < 0;
    vae_status status = VAE_OK;
    for (size_t i = 0; i < p->pairs; i++) {
        make_step(p, z + i * p->latent, i, step);
    }
    TRY(vae_paint_decode(&d->painter, x_hat, z, by_row ? p->from.label : NULL, p->pairs, err));
    for (size_t i = 0; i < p->pairs; i++) {
        vae_grid_draw(grid, i, x_hat + i * vae_trained_shape(&d->m)->d);
    }
    watch->progress(watch->ctx, (double)(step + 1) / (double)p->steps, p->steps);
    if (vae_stopping(watch->stop_signal)) {
        TRY(vae_fail(err, VAE_ERR_INTERRUPTED, "interrupted"));
    }
done:
    return status;
}

static vae_status open_frames(const interpolation *p, const drawing *d, vae_grid *grid,
                              uint8_t **frames, vae_error *err)
{
    const vae_checkpoint *c = vae_trained_shape(&d->m);
    const size_t side = c->height > c->width ? c->height : c->width;
    vae_grid_spec spec = {.cells = p->pairs,
                          .height = c->height,
                          .width = c->width,
                          .channels = c->channels,
                          .columns = 1,
                          .zoom = side >= GIF_CELL ? 1 : GIF_CELL / side,
                          .gap = p->pairs > 1 ? GIF_GAP : 0};
    while (spec.columns * spec.columns < p->pairs) {
        spec.columns++;
    }
    vae_status status = vae_grid_open(grid, &spec, d->out, err);
    if (status != VAE_OK) {
        return status;
    }
    const size_t bytes = grid->width * grid->height * c->channels;
    if (bytes > GIF_MOST / p->steps) {
        return vae_fail(err, VAE_ERR_USAGE,
                        "%s: %zu frames of %zu x %zu pixels are more than an animation takes here "
                        "(%d bytes); ask for fewer",
                        d->out, p->steps, grid->width, grid->height, GIF_MOST);
    }
    *frames = malloc(bytes * p->steps);
    return *frames != NULL ? VAE_OK : vae_fail_memory(err, bytes * p->steps, "an animation");
}

static vae_status draw_animation(const interpolation *p, drawing *d, vae_error *err)
{
    vae_grid grid = {0};
    uint8_t *frames = NULL;
    const size_t D = vae_trained_shape(&d->m)->d;
    vae_status status = VAE_OK;
    float *z = malloc(p->pairs * p->latent * sizeof *z);
    float *x_hat = malloc(p->pairs * D * sizeof *x_hat);
    TRY(open_frames(p, d, &grid, &frames, err));
    if (z == NULL || x_hat == NULL) {
        TRY(vae_fail_memory(err, p->pairs * D * sizeof *x_hat, "pictures"));
    }
    const size_t bytes = grid.width * grid.height * grid.spec.channels;
    for (size_t step = 0; step < p->steps; step++) {
        TRY(draw_frame(p, d, &grid, step, z, x_hat, err));
        memcpy(frames + step * bytes, grid.pixels, bytes);
    }
    TRY(write_animation(p, d, frames, &grid, err));
done:
    vae_grid_close(&grid);
    free(frames);
    free(x_hat);
    free(z);
    return status;
}

/* ---- the command ---- */

static vae_status read_options(interpolation *p, const cli_args *args, vae_error *err)
{
    const char *mode = cli_value(args, "mode");
    vae_status status = VAE_OK;
    p->spherical = mode != NULL && strcmp(mode, "spherical") == 0;
    if (mode != NULL && !p->spherical && strcmp(mode, "linear") != 0) {
        TRY(vae_fail(err, VAE_ERR_USAGE, "--mode: expected linear or spherical, found '%s'", mode));
    }
    TRY(cli_size(args, "steps", STEPS, 2, 10000, &p->steps, err));
    TRY(read_endpoint(&p->from, args, "--from", err));
    TRY(read_endpoint(&p->to, args, "--to", err));
    p->pairs = p->from.n;
    if (p->from.n != p->to.n) {
        TRY(vae_fail(err, VAE_ERR_USAGE,
                     "--from names %zu and --to %zu: pairs need as many of the one as of the other",
                     p->from.n, p->to.n));
    }
done:
    return status;
}

static vae_status want_picture(const drawing *d, vae_error *err)
{
    const vae_sink_spec spec = vae_painter_spec(&d->painter, 1);
    return d->kind == VAE_SINK_NPY ? VAE_OK : vae_row_sink_check(d->out, &spec, err);
}

static json_t *end_of(const endpoint *e, size_t i, const vae_dataset *set)
{
    return e->file ? json_string(e->text)
                   : json_integer((json_int_t)vae_dataset_number(set, e->rows[i]));
}

static json_t *details(const interpolation *p, const vae_dataset *set)
{
    json_t *pairs = json_array();
    for (size_t i = 0; i < p->pairs; i++) {
        json_array_append_new(pairs, json_pack("{s:o, s:o}", "from", end_of(&p->from, i, set), "to",
                                               end_of(&p->to, i, set)));
    }
    return json_pack("{s:s, s:I, s:o}", "mode", p->spherical ? "spherical" : "linear", "steps",
                     (json_int_t)p->steps, "pairs", pairs);
}

static void clear(endpoint *e)
{
    free(e->rows);
    free(e->x);
    free(e->mu);
    free(e->label);
}

static vae_status run_interpolate(const cli_args *args, vae_error *err)
{
    drawing d = {0};
    interpolation p = {0};
    vae_status status = VAE_OK;
    TRY(read_options(&p, args, err));
    TRY(draw_begin(&d, args, "interpolation.png", true, err));
    TRY(draw_open_classes(&d, err));
    TRY(want_picture(&d, err));
    TRY(open_ends(&p, &d, err));
    p.latent = d.m.config.latent;
    TRY(d.kind == VAE_SINK_GIF ? draw_animation(&p, &d, err) : draw_lines(&p, &d, err));
    draw_say(&d, p.pairs * p.steps, "step", " of interpolation", details(&p, d.m.set));
done:
    draw_close(&d);
    clear(&p.from);
    clear(&p.to);
    return status;
}

static const cli_option interpolate_options[] = {
    CLI_DATA_OPTIONS,
    {"from", 0, "I,..|FILE", "row numbers, from 0, or a picture file"},
    {"to", 0, "J,..|FILE", "as many"},
    {"out", 'o', "FILE", ".png, .gif (there and back), a folder, .npy, or - [interpolation.png]"},
    {"steps", 0, "N", "both ends included [10]"},
    {"mode", 0, "linear|spherical", "straight, or along the arc between the two mu [linear]"},
    {"class", 0, "NAME", "of a model with classes: decode as this one; default: as --from's"},
    CLI_MODEL_OPTIONS,
};

const cli_command cli_interpolate_command = {
    .name = "interpolate",
    .words = "RUN",
    .n_words = 1,
    .help = "From one example to another through latent space.",
    .examples = "  vae interpolate runs/mnist --from 1,5,9 --to 2,6,10 --out strips.png\n"
                "  vae interpolate runs/mnist --from 1 --to 2 --steps 20 --out walk.gif\n"
                "  vae interpolate runs/mnist --from a.png --to b.png --mode spherical\n",
    CLI_OPTIONS(interpolate_options),
    .run = run_interpolate,
};
