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
        return vae_fail(err, VAE_ERR_USAGE,
                        "%s is missing: a row number of the data, several (3,1,4), or a PNG file",
                        option);
    }
    e->file = text[strspn(text, "0123456789,")] != '\0';
    e->n = 1;
    return e->file ? VAE_OK : draw_numbers(&e->rows, &e->n, option, text, err);
}

/* The file as a data set of one row, of the model's shape. label: its class, or -1. */
static vae_status open_picture(vae_dataset **out, const vae_checkpoint *c, const char *path,
                               int label, vae_error *err)
{
    uint8_t *pixels;
    size_t width, height, channels;
    *out = NULL;
    vae_status status = vae_png_read(path, &pixels, &width, &height, &channels, err);
    if (status != VAE_OK) {
        return status;
    }
    vae_dataset *set = calloc(1, sizeof *set);
    uint8_t *row = malloc(c->d), *labels = malloc(1);
    if (width != c->width || height != c->height) {
        status =
            vae_fail(err, VAE_ERR_DATA,
                     "%s: %zu x %zu pixels; the model takes %zu x %zu (width x height): resize "
                     "it first",
                     path, width, height, c->width, c->height);
    } else if (set == NULL || row == NULL || labels == NULL) {
        status = vae_fail_memory(err, sizeof *set + c->d, path);
    } else {
        vae_image_convert(row, c->channels, pixels, channels, width * height);
        *set = (vae_dataset){.n = 1, .d = c->d, .height = height, .width = width};
        set->channels = c->channels;
        set->dtype = VAE_U8;
        set->rows = row;
        snprintf(set->source, sizeof set->source, "%s", path);
        if (label >= 0) {
            labels[0] = (uint8_t)label;
            set->labels = labels;
            labels = NULL;
        }
        *out = set;
        row = NULL;
        set = NULL;
    }
    free(set);
    free(row);
    free(labels);
    free(pixels);
    return status;
}

/* x and mu of an endpoint. */
static vae_status look_at(endpoint *e, drawing *d, vae_error *err)
{
    const vae_checkpoint *c = d->m.checkpoint;
    vae_dataset *data_set = d->m.set, *picture = NULL;
    e->x = malloc(e->n * c->d * sizeof *e->x);
    e->mu = malloc(e->n * c->config.latent * sizeof *e->mu);
    e->label = calloc(e->n, sizeof *e->label);
    vae_status status = e->x != NULL && e->mu != NULL && e->label != NULL
                            ? VAE_OK
                            : vae_fail_memory(err, e->n * c->d * sizeof *e->x, "examples");
    if (status == VAE_OK && e->file &&
        (status = open_picture(&picture, c, e->text, d->only, err)) == VAE_OK) {
        d->m.set = picture;
    }
    if (status == VAE_OK && (status = draw_open_rows(d, e->rows, e->n, err)) == VAE_OK) {
        const vae_batch_out out = {.x = e->x, .mu = e->mu, .label = e->label};
        status = vae_look(&d->painter, d->m.data, e->n, &out, err);
    }
    draw_close_rows(d);
    d->m.set = data_set;
    vae_dataset_free(picture);
    return status;
}

/* A picture file has no label for a conditional model's encoder, and no latents below. */
static vae_status check_files(const interpolation *p, const drawing *d, vae_error *err)
{
    if (!p->from.file && !p->to.file) {
        return VAE_OK;
    }
    if (d->painter.below != NULL) {
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
    vae_status status = check_files(p, d, err);
    if (status != VAE_OK) {
        return status;
    }
    if (p->from.file && p->to.file) {
        status = draw_refuse(d->args, of_data, "between two picture files", err);
    } else if ((status = cli_open_set(&d->m, d->args, err)) == VAE_OK) {
        status = draw_check_rows(&d->m, p->from.rows, p->from.file ? 0 : p->from.n, "--from", err);
        status = status == VAE_OK
                     ? draw_check_rows(&d->m, p->to.rows, p->to.file ? 0 : p->to.n, "--to", err)
                     : status;
    }
    status = status == VAE_OK ? draw_open_model(d, err) : status;
    status = status == VAE_OK ? look_at(&p->from, d, err) : status;
    return status == VAE_OK ? look_at(&p->to, d, err) : status;
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
    vae_sink_spec spec = vae_painter_spec(&d->painter, n);
    spec.columns = p->steps;
    spec.ends = d->painter.below == NULL; /* where rows are pictures */
    vae_status status = draw_open_sink(d, &spec, err);
    status = status == VAE_OK ? vae_paint(&d->painter, &source, n, d->sink, err) : status;
    for (size_t i = 0; i < p->pairs && status == VAE_OK && spec.ends; i++) {
        vae_row_sink_end(d->sink, i * p->steps, false, p->from.x + i * D);
        vae_row_sink_end(d->sink, i * p->steps, true, p->to.x + i * D);
    }
    return status == VAE_OK ? draw_finish(d, err) : status;
}

/* ---- the animation ---- */

/* There and back: each end once, each step between them twice. */
static vae_status write_animation(const interpolation *p, const drawing *d, const uint8_t *frames,
                                  const vae_grid *grid, vae_error *err)
{
    const size_t n = 2 * p->steps - 2;
    size_t *order = malloc(2 * p->steps * sizeof *order);
    unsigned *delay = malloc(2 * p->steps * sizeof *delay);
    vae_status status = VAE_OK;
    if (order == NULL || delay == NULL) {
        status = vae_fail_memory(err, n * sizeof *order, "an animation");
    }
    for (size_t i = 0; i < n && status == VAE_OK; i++) {
        order[i] = i < p->steps ? i : n - i;
        delay[i] = order[i] == 0 || order[i] + 1 == p->steps ? GIF_END : GIF_STEP;
    }
    if (status == VAE_OK) {
        status = vae_gif_write(d->out, frames, p->steps, grid->width, grid->height,
                               grid->spec.channels, order, delay, n, err);
    }
    free(order);
    free(delay);
    return status;
}

/* Every pair's picture at one step. */
static vae_status draw_frame(const interpolation *p, const drawing *d, vae_grid *grid, size_t step,
                             float *z, float *x_hat, vae_error *err)
{
    for (size_t i = 0; i < p->pairs; i++) {
        make_step(p, z + i * p->latent, i, step);
    }
    const uint32_t *label =
        vae_config_has_classes(&d->m.config) && d->only < 0 ? p->from.label : NULL;
    vae_status status = vae_paint_decode(&d->painter, x_hat, z, label, p->pairs, err);
    for (size_t i = 0; i < p->pairs && status == VAE_OK; i++) {
        vae_grid_draw(grid, i, x_hat + i * vae_painter_shape(&d->painter)->d);
    }
    d->painter.progress(d->painter.ctx, step + 1, p->steps);
    return *d->painter.stop_signal == 0 ? status
                                        : vae_fail(err, VAE_ERR_INTERRUPTED, "interrupted");
}

static vae_status open_frames(const interpolation *p, const drawing *d, vae_grid *grid,
                              uint8_t **frames, vae_error *err)
{
    const vae_checkpoint *c = vae_painter_shape(&d->painter);
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
    vae_grid grid;
    uint8_t *frames = NULL;
    float *z = malloc(p->pairs * p->latent * sizeof *z);
    const size_t D = vae_painter_shape(&d->painter)->d;
    float *x_hat = malloc(p->pairs * D * sizeof *x_hat);
    vae_status status = open_frames(p, d, &grid, &frames, err);
    if (status == VAE_OK && (z == NULL || x_hat == NULL)) {
        status = vae_fail_memory(err, p->pairs * D * sizeof *x_hat, "pictures");
    }
    for (size_t step = 0; step < p->steps && status == VAE_OK; step++) {
        const size_t bytes = grid.width * grid.height * grid.spec.channels;
        status = draw_frame(p, d, &grid, step, z, x_hat, err);
        memcpy(frames + step * bytes, grid.pixels, bytes);
    }
    status = status == VAE_OK ? write_animation(p, d, frames, &grid, err) : status;
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
    p->spherical = mode != NULL && strcmp(mode, "spherical") == 0;
    if (mode != NULL && !p->spherical && strcmp(mode, "linear") != 0) {
        return vae_fail(err, VAE_ERR_USAGE, "--mode: expected linear or spherical, found '%s'",
                        mode);
    }
    vae_status status = cli_size(args, "steps", STEPS, 2, 10000, &p->steps, err);
    status = status == VAE_OK ? read_endpoint(&p->from, args, "--from", err) : status;
    status = status == VAE_OK ? read_endpoint(&p->to, args, "--to", err) : status;
    p->pairs = p->from.n;
    if (status == VAE_OK && p->from.n != p->to.n) {
        status = vae_fail(err, VAE_ERR_USAGE,
                          "--from names %zu and --to %zu: pairs need as many of the one as of the "
                          "other",
                          p->from.n, p->to.n);
    }
    return status;
}

static vae_status want_picture(const drawing *d, vae_error *err)
{
    const vae_checkpoint *c = vae_painter_shape(&d->painter);
    vae_sink_spec spec = {.n = 1, .height = c->height, .width = c->width, .channels = c->channels};
    return d->kind == VAE_SINK_NPY ? VAE_OK : vae_row_sink_check(d->out, &spec, err);
}

static json_t *details(const interpolation *p)
{
    json_t *pairs = json_array();
    for (size_t i = 0; i < p->pairs; i++) {
        json_t *from =
            p->from.file ? json_string(p->from.text) : json_integer((json_int_t)p->from.rows[i]);
        json_t *to = p->to.file ? json_string(p->to.text) : json_integer((json_int_t)p->to.rows[i]);
        json_array_append_new(pairs, json_pack("{s:o, s:o}", "from", from, "to", to));
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

vae_status cli_interpolate(const cli_args *args, vae_error *err)
{
    drawing d = {0};
    interpolation p = {0};
    vae_status status = read_options(&p, args, err);
    if (status == VAE_OK &&
        (status = draw_begin(&d, args, "interpolation.png", true, err)) == VAE_OK &&
        (status = draw_open_classes(&d, err)) == VAE_OK &&
        (status = want_picture(&d, err)) == VAE_OK && (status = open_ends(&p, &d, err)) == VAE_OK) {
        p.latent = d.m.config.latent;
        status = d.kind == VAE_SINK_GIF ? draw_animation(&p, &d, err) : draw_lines(&p, &d, err);
    }
    if (status == VAE_OK) {
        cli_progress_clear(&d.progress);
        draw_report(&d, p.pairs * p.steps, "steps of interpolation", details(&p));
    }
    draw_close(&d);
    clear(&p.from);
    clear(&p.to);
    return status;
}
