/* Pictures of a report: samples, reconstructions, interpolations, traversals. PNG, as base64. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/text.h"
#include "image/image.h"
#include "report/internal.h"
#include "stats/latent_walk.h"
#include "stats/mixture.h"

enum {
    SAMPLE_COLUMNS = 8, /* and lines; as many as classes, if these are neither few nor many */
    LEAST_COLUMNS = 6,
    MOST_COLUMNS = 12,
    RECONSTRUCTIONS = 20,
    COLUMNS = 10,
    PAIRS = 5,
    STEPS = 10,         /* of an interpolation */
    EXAMPLES = 64,      /* rows of the data that may be shown */
    LEAST_FITTED = 100, /* examples for Gaussians of q(z) ... */
    MOST_FITTED = 4000, /* ... which take no longer than the other pictures */
    MOST_FULL = 256,    /* latents with full covariances; above, diagonal ones */
    HELD_OUT = 10,
    TRAVERSED = 10,
    TRAVERSAL_STEPS = 11,
    GAP = 2,
    MOST_PIXELS = 1 << 22, /* of a picture: larger cells are fewer */
};
static const double traversal_range = 3;

/* How many cells of this shape a picture may have: at most `wanted`, in whole lines. */
static size_t cells_that_fit(const report *r, size_t wanted, size_t columns)
{
    const vae_checkpoint *c = r->about;
    const size_t zoom = c->width < 56 && c->height < 56 ? 2 : 1; /* about */
    const size_t pixels = c->width * c->height * zoom * zoom, fit = MOST_PIXELS / pixels;
    if (fit >= wanted) {
        return wanted;
    }
    return fit < columns ? columns : fit / columns * columns;
}

/* <img> of cells (n,D) in columns. band: lines that belong together; apart: the first and last
 * column stand apart. alt is plain text without markup. */
static vae_status put_grid(report *r, const float *rows, size_t n, size_t columns, size_t band,
                           bool apart, const char *alt, vae_error *err)
{
    const vae_checkpoint *c = r->about;
    vae_grid grid = {0};
    uint8_t *bytes = NULL;
    size_t n_bytes = 0;
    vae_grid_spec spec = {.cells = n,
                          .height = c->height,
                          .width = c->width,
                          .channels = c->channels,
                          .columns = columns,
                          .gap = GAP,
                          .band = band};
    vae_status status = VAE_OK;
    if (apart) {
        spec.apart[0] = 1;
        spec.apart[1] = columns - 1;
    }
    TRY(vae_grid_open(&grid, &spec, "report", err));
    for (size_t i = 0; i < n; i++) {
        vae_grid_draw(&grid, i, rows + i * c->d);
    }
    TRY(vae_png_pack(&bytes, &n_bytes, "report", grid.pixels, grid.width, grid.height, c->channels,
                     err));
    vae_text_add(&r->page, "<img width=\"%zu\" height=\"%zu\" alt=\"", grid.width, grid.height);
    vae_text_escaped(&r->page, alt);
    vae_text_add(&r->page, "\" src=\"data:image/png;base64,");
    report_base64(&r->page, bytes, n_bytes);
    vae_text_add(&r->page, "\">");
done:
    free(bytes);
    vae_grid_close(&grid);
    return status;
}

static size_t classes_of(const report *r)
{
    return vae_model_layout(r->on->model)->c;
}

/* label: (n), looked at in a model with classes only. */
static vae_status decode(const report *r, float *x_hat, const float *z, const uint32_t *label,
                         size_t n, vae_error *err)
{
    const vae_status status =
        vae_model_decode_classes(r->on->model, x_hat, z, classes_of(r) > 0 ? label : NULL, n, err);
    vae_checkpoint_units(r->about, x_hat, n);
    return status;
}

/* Room for n latents and their pictures. */
typedef struct {
    float *z, *x;
} cells;

static vae_status make_cells(cells *c, const report *r, size_t n, vae_error *err)
{
    const size_t D = r->about->d, Z = r->about->config.latent;
    c->z = calloc(n * Z, sizeof *c->z);
    c->x = calloc(n * D, sizeof *c->x);
    return c->z != NULL && c->x != NULL
               ? VAE_OK
               : vae_fail_memory(err, n * (Z + D) * sizeof *c->x, "pictures of the report");
}

static void free_cells(cells *c)
{
    free(c->z);
    free(c->x);
}

/* A grid of draws and the classes they are drawn as: few of them a column each. */
typedef struct {
    size_t n, columns, classes;
    uint32_t label[MOST_COLUMNS * MOST_COLUMNS];
} draws;

static draws plan_draws(const report *r)
{
    const vae_checkpoint *about = r->about;
    const size_t C = classes_of(r) > 0 ? vae_checkpoint_n_trained(about) : 0;
    const size_t columns = C >= LEAST_COLUMNS && C <= MOST_COLUMNS ? C : SAMPLE_COLUMNS;
    draws d = {
        .n = cells_that_fit(r, columns * columns, columns), .columns = columns, .classes = C};
    for (size_t i = 0; C > 0 && i < d.n; i++) {
        d.label[i] = (uint32_t)vae_checkpoint_trained_class(about, i % C);
    }
    return d;
}

/* from: what z is drawn from, a caption's beginning. */
static vae_status put_draws(report *r, const draws *d, const cells *c, const char *title,
                            const char *alt, const char *from, vae_error *err)
{
    const char *order = ",y), the classes y in turn";
    vae_status status = VAE_OK;
    TRY(decode(r, c->x, c->z, d->label, d->n, err));
    vae_text_add(&r->page, "<figure class=\"card tall\"><h3>%s</h3>", title);
    TRY(put_grid(r, c->x, d->n, d->columns, 0, false, alt, err));
    if (d->classes == 0) {
        order = ")";
    } else if (d->columns == d->classes) {
        order = ",y), a column for each class y";
    }
    vae_text_add(&r->page,
                 "<figcaption>%zu draw%s %s, decoded: the means of p(x|z%s.</figcaption>"
                 "</figure>\n",
                 d->n, vae_s(d->n), from, order);
done:
    return status;
}

static vae_status put_samples(report *r, vae_error *err)
{
    const draws d = plan_draws(r);
    cells c = {0};
    vae_status status = VAE_OK;
    TRY(make_cells(&c, r, d.n, err));
    vae_prior_rows(c.z, r->about->config.seed, 0, d.n, r->about->config.latent, 1);
    TRY(put_draws(r, &d, &c, "Samples from the prior",
                  "Grid of pictures decoded from draws of the prior", "z ~ N(0, I)", err));
done:
    free_cells(&c);
    return status;
}

/* Where the data lie in latent space is often far from the prior, and pictures of photographs that
 * are drawn from there are better: Gaussians fitted to z of the latents' examples, as many as fit
 * one in HELD_OUT that they are not fitted to. */
static vae_status put_posterior_samples(report *r, vae_error *err)
{
    const draws d = plan_draws(r);
    const size_t Z = r->about->config.latent;
    const size_t n = r->latents.n < MOST_FITTED ? r->latents.n : MOST_FITTED, held = n / HELD_OUT;
    const vae_plan plan = report_plan(r);
    const vae_mixture_options options = {.full = Z <= MOST_FULL,
                                         .seed = r->about->config.seed,
                                         .stop_signal = r->from->watch.stop_signal};
    vae_mixture mixture = {0};
    vae_mixture_report fit;
    double score;
    char from[160];
    cells c = {0};
    vae_status status = VAE_OK;
    float *z = malloc(n * Z * sizeof *z);
    if (z == NULL) {
        TRY(vae_fail_memory(err, n * Z * sizeof *z, "latents of the report"));
    }
    TRY(vae_trained_run(r->on, n, &plan, &r->from->watch, &(vae_batch_out){.z = z}, NULL, err));
    TRY(vae_mixture_choose(&mixture, z, n - held, z + (n - held) * Z, held, Z, &options, &fit,
                           &score, err));
    TRY(make_cells(&c, r, d.n, err));
    TRY(vae_mixture_draw(c.z, &mixture, r->about->config.seed, 0, d.n, 1, err));
    snprintf(from, sizeof from, "of %zu Gaussian%s fitted to z ~ q(z|x) of %zu %s examples",
             mixture.k, vae_s(mixture.k), n - held, r->on->split);
    TRY(put_draws(r, &d, &c, "Samples from where the data lie",
                  "Grid of pictures decoded from draws of Gaussians fitted to q(z)", from, err));
done:
    vae_mixture_clear(&mixture);
    free(z);
    free_cells(&c);
    return status;
}

/* ---- pictures of the data ---- */

/* The first n examples of the latents. */
typedef struct {
    float *x;                 /* (n,D) as the model sees them */
    uint32_t label[EXAMPLES]; /* (n) the class that a model with classes goes by; else 0 */
    size_t n;
} examples;

static vae_status fetch(const report *r, examples *e, vae_error *err)
{
    const vae_plan plan = report_plan(r);
    const vae_batch_out out = {.x = e->x, .label = e->label};
    vae_status status = VAE_OK;
    TRY(vae_trained_run(r->on, e->n, &plan, NULL, &out, NULL, err));
    vae_checkpoint_units(r->about, e->x, e->n);
done:
    return status;
}

/* Lines of data, each above the line of their reconstructions. */
static vae_status put_reconstructions(report *r, const examples *e, vae_error *err)
{
    const size_t D = r->about->d;
    const size_t n = cells_that_fit(r, e->n < RECONSTRUCTIONS ? e->n : RECONSTRUCTIONS,
                                    e->n < COLUMNS ? e->n : COLUMNS);
    const size_t columns = n < COLUMNS ? n : COLUMNS, lines = (n + columns - 1) / columns;
    cells c = {0}, grid = {0};
    vae_status status = VAE_OK;
    TRY(make_cells(&c, r, n, err));
    TRY(make_cells(&grid, r, 2 * lines * columns, err));
    TRY(decode(r, c.x, r->latents.mu, e->label, n, err));
    for (size_t i = 0; i < n; i++) {
        const size_t cell = 2 * (i / columns) * columns + i % columns;
        memcpy(grid.x + cell * D, e->x + i * D, D * sizeof *e->x);
        memcpy(grid.x + (cell + columns) * D, c.x + i * D, D * sizeof *c.x);
    }
    vae_text_add(&r->page, "<figure class=\"card\"><h3>Reconstructions</h3>");
    TRY(put_grid(r, grid.x, 2 * lines * columns, columns, 2, false,
                 "Examples of the data, each above its reconstruction", err));
    vae_text_add(&r->page,
                 "<figcaption>Examples (%s) above their reconstructions, decoded from the mean of "
                 "q(z|x).</figcaption></figure>\n",
                 r->on->split);
done:
    free_cells(&grid);
    free_cells(&c);
    return status;
}

/* Pairs of examples, of two classes where there are labels. Returns how many were found. */
static size_t choose_pairs(const report *r, size_t n, size_t pair[PAIRS][2])
{
    const uint32_t *labels = r->latents.labels;
    bool used[EXAMPLES] = {false};
    size_t n_pairs = 0;
    for (size_t i = 0; i < n && n_pairs < PAIRS; i++) {
        size_t j = i + 1;
        while (j < n && (used[j] || (labels != NULL && labels[j] == labels[i]))) {
            j++;
        }
        if (!used[i] && j < n) {
            used[i] = used[j] = true;
            pair[n_pairs][0] = i;
            pair[n_pairs++][1] = j;
        }
    }
    return n_pairs;
}

/* As the class of the example on the left. */
static vae_status put_interpolations(report *r, const examples *e, vae_error *err)
{
    const size_t D = r->about->d, Z = r->about->config.latent;
    size_t pair[PAIRS][2], most = cells_that_fit(r, PAIRS * (STEPS + 2), STEPS + 2) / (STEPS + 2);
    uint32_t label[PAIRS * STEPS];
    size_t n = choose_pairs(r, e->n, pair);
    cells way = {0}, grid = {0};
    vae_status status = VAE_OK;
    n = n < most ? n : most;
    if (n == 0) {
        return VAE_OK;
    }
    TRY(make_cells(&way, r, n * STEPS, err));
    TRY(make_cells(&grid, r, n * (STEPS + 2), err));
    for (size_t i = 0; i < n * STEPS; i++) {
        const size_t *ends = pair[i / STEPS];
        label[i] = e->label[ends[0]];
        vae_lerp(way.z + i * Z, r->latents.mu + ends[0] * Z, r->latents.mu + ends[1] * Z, Z,
                 (double)(i % STEPS) / (STEPS - 1));
    }
    TRY(decode(r, way.x, way.z, label, n * STEPS, err));
    for (size_t i = 0; i < n; i++) {
        float *line = grid.x + i * (STEPS + 2) * D;
        memcpy(line, e->x + pair[i][0] * D, D * sizeof *line);
        memcpy(line + D, way.x + i * STEPS * D, STEPS * D * sizeof *line);
        memcpy(line + (STEPS + 1) * D, e->x + pair[i][1] * D, D * sizeof *line);
    }
    vae_text_add(&r->page, "<figure class=\"card\"><h3>Interpolations</h3>");
    TRY(put_grid(r, grid.x, n * (STEPS + 2), STEPS + 2, 0, true,
                 "Lines of pictures that go from one example over into another", err));
    vae_text_add(&r->page,
                 "<figcaption>From one example (left) to another (right): straight lines between "
                 "their means in latent space, decoded%s.</figcaption></figure>\n",
                 classes_of(r) > 0 ? " as the class of the left one" : "");
done:
    free_cells(&grid);
    free_cells(&way);
    return status;
}

static vae_status put_traversal(report *r, size_t j, uint32_t label, cells *c, vae_error *err)
{
    const size_t Z = r->about->config.latent;
    char alt[96];
    uint32_t same[TRAVERSAL_STEPS];
    vae_status status = VAE_OK;
    memset(c->z, 0, TRAVERSAL_STEPS * Z * sizeof *c->z);
    for (size_t i = 0; i < TRAVERSAL_STEPS; i++) {
        same[i] = label;
        c->z[i * Z + j] = (float)(traversal_range * (2 * (double)i / (TRAVERSAL_STEPS - 1) - 1));
    }
    TRY(decode(r, c->x, c->z, same, TRAVERSAL_STEPS, err));
    vae_text_add(&r->page, "<li><span>z<sub>%zu</sub>", j);
    if (r->has_data) {
        vae_text_add(&r->page, " <small>%.2f</small>", r->latents.kl[j]);
    }
    vae_text_add(&r->page, "</span>");
    snprintf(alt, sizeof alt, "Pictures decoded as latent %zu goes from %g to %g", j,
             -traversal_range, traversal_range);
    TRY(put_grid(r, c->x, TRAVERSAL_STEPS, TRAVERSAL_STEPS, 0, false, alt, err));
    vae_text_add(&r->page, "</li>\n");
done:
    return status;
}

static vae_status put_traversals(report *r, uint32_t label, vae_error *err)
{
    const size_t Z = r->about->config.latent;
    const size_t fit = cells_that_fit(r, TRAVERSED * TRAVERSAL_STEPS, TRAVERSAL_STEPS);
    size_t n = fit / TRAVERSAL_STEPS < Z ? fit / TRAVERSAL_STEPS : Z;
    cells c = {0};
    vae_status status = VAE_OK;
    TRY(make_cells(&c, r, TRAVERSAL_STEPS, err));
    vae_text_add(&r->page,
                 "<figure class=\"card wide\"><h3>Traversals</h3><ul class=\"strips\">\n");
    for (size_t i = 0; i < n; i++) {
        TRY(put_traversal(r, r->order[i], label, &c, err));
    }
    vae_text_add(&r->page,
                 "</ul><figcaption>One latent goes from &minus;%g to %g, the others stay at 0: %s "
                 "%zu of %zu%s.",
                 traversal_range, traversal_range, n < Z ? "the first" : "all", n, Z,
                 r->has_data ? ", by the KL that is under its name" : "");
    if (classes_of(r) > 0) {
        vae_text_add(&r->page, " Decoded as class ");
        vae_text_escaped(&r->page, r->about->classes.name[label]);
        vae_text_add(&r->page, ".");
    }
    vae_text_add(&r->page, "</figcaption></figure>\n");
done:
    free_cells(&c);
    return status;
}

vae_status report_put_pictures(report *r, vae_error *err)
{
    const vae_checkpoint *c = r->about;
    examples e = {.n = r->latents.n < EXAMPLES ? r->latents.n : EXAMPLES};
    vae_status status = VAE_OK;
    vae_text_add(&r->page, "<section id=\"pictures\"><h2>Pictures</h2>\n");
    if (!r->picture) {
        report_note(r,
                    "The data are no pictures (%zu x %zu, %zu channel%s): samples, "
                    "reconstructions, interpolations and traversals are not drawn.",
                    c->height, c->width, c->channels, vae_s(c->channels));
        vae_text_add(&r->page, "</section>\n");
        return VAE_OK;
    }
    if (classes_of(r) > 0 && !r->has_data) {
        e.label[0] = (uint32_t)vae_checkpoint_trained_class(c, 0);
    }
    vae_text_add(&r->page, "<div class=\"cards\">\n");
    if (r->latents.n >= LEAST_FITTED) {
        TRY(put_posterior_samples(r, err));
    }
    TRY(put_samples(r, err));
    if (r->has_data) {
        e.x = calloc(e.n * c->d, sizeof *e.x);
        if (e.x == NULL) {
            TRY(vae_fail_memory(err, e.n * c->d * sizeof *e.x, "examples of the report"));
        }
        TRY(fetch(r, &e, err));
        TRY(put_reconstructions(r, &e, err));
        TRY(put_interpolations(r, &e, err));
    }
    TRY(put_traversals(r, e.label[0], err));
    vae_text_add(&r->page, "</div>\n");
    if (!r->has_data) {
        report_note(r, "Reconstructions and interpolations need data: %s.", r->from->missing);
    }
    vae_text_add(&r->page, "</section>\n");
done:
    free(e.x);
    return status;
}
