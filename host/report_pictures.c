/* Pictures of a report: samples, reconstructions, interpolations, traversals. PNG, as base64. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "image.h"
#include "latent_walk.h"
#include "report_internal.h"

enum {
    SAMPLES = 64,
    RECONSTRUCTIONS = 20,
    COLUMNS = 10,
    PAIRS = 5,
    STEPS = 10,    /* of an interpolation */
    EXAMPLES = 64, /* rows of the data that may be shown */
    TRAVERSED = 10,
    TRAVERSAL_STEPS = 11,
    GAP = 2,
    MOST_PIXELS = 1 << 22, /* of a picture: larger cells are fewer */
};
static const double traversal_range = 3;

/* How many cells of this shape a picture may have: at most `wanted`, in whole lines. */
static size_t cells_that_fit(const report *r, size_t wanted, size_t columns)
{
    const vae_checkpoint *c = r->from->about;
    const size_t zoom = c->width < 56 && c->height < 56 ? 2 : 1; /* about */
    const size_t pixels = c->width * c->height * zoom * zoom, fit = MOST_PIXELS / pixels;
    return fit >= wanted ? wanted : fit < columns ? columns : fit / columns * columns;
}

/* <img> of cells (n,D) in columns. band: lines that belong together; apart: the first and last
 * column stand apart. alt is plain text without markup. */
static vae_status put_grid(report *r, const float *rows, size_t n, size_t columns, size_t band,
                           bool apart, const char *alt, vae_error *err)
{
    const vae_checkpoint *c = r->from->about;
    vae_grid grid;
    uint8_t *bytes = NULL;
    size_t n_bytes = 0;
    vae_grid_spec spec = {.cells = n,
                          .height = c->height,
                          .width = c->width,
                          .channels = c->channels,
                          .columns = columns,
                          .gap = GAP,
                          .band = band};
    if (apart) {
        spec.apart[0] = 1;
        spec.apart[1] = columns - 1;
    }
    vae_status status = vae_grid_open(&grid, &spec, "report", err);
    for (size_t i = 0; i < n && status == VAE_OK; i++) {
        vae_grid_draw(&grid, i, rows + i * c->d);
    }
    if (status == VAE_OK) {
        status = vae_png_pack(&bytes, &n_bytes, "report", grid.pixels, grid.width, grid.height,
                              c->channels, err);
    }
    if (status == VAE_OK) {
        vae_text_add(&r->page, "<img width=\"%zu\" height=\"%zu\" alt=\"", grid.width, grid.height);
        vae_text_escaped(&r->page, alt);
        vae_text_add(&r->page, "\" src=\"data:image/png;base64,");
        report_base64(&r->page, bytes, n_bytes);
        vae_text_add(&r->page, "\">");
    }
    free(bytes);
    vae_grid_close(&grid);
    return status;
}

/* In a model with classes, each of them in turn. */
static vae_status decode(const report *r, float *x_hat, const float *z, size_t n, vae_error *err)
{
    const size_t C = vae_model_layout(r->from->model)->c;
    uint32_t *label = malloc((n > 0 ? n : 1) * sizeof *label);
    if (label == NULL) {
        return vae_fail_memory(err, n * sizeof *label, "classes of the report");
    }
    for (size_t i = 0; C > 0 && i < n; i++) {
        label[i] = (uint32_t)(i % C);
    }
    vae_status status =
        vae_model_decode_classes(r->from->model, x_hat, z, C > 0 ? label : NULL, n, err);
    free(label);
    vae_checkpoint_units(r->from->about, x_hat, n);
    return status;
}

/* Room for n latents and their pictures. */
typedef struct {
    float *z, *x;
} cells;

static vae_status make_cells(cells *c, const report *r, size_t n, vae_error *err)
{
    const size_t D = r->from->about->d, Z = r->from->about->config.latent;
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

static vae_status put_samples(report *r, vae_error *err)
{
    const vae_checkpoint *about = r->from->about;
    const size_t columns = 8, n = cells_that_fit(r, SAMPLES, columns);
    cells c = {0};
    vae_status status = make_cells(&c, r, n, err);
    if (status == VAE_OK) {
        vae_prior_rows(c.z, about->config.seed, 0, n, about->config.latent, 1);
        status = decode(r, c.x, c.z, n, err);
    }
    vae_text_add(&r->page, "<figure class=\"card tall\"><h3>Samples</h3>");
    if (status == VAE_OK) {
        status = put_grid(r, c.x, n, columns, 0, false,
                          "Grid of pictures decoded from draws of the prior", err);
    }
    vae_text_add(&r->page,
                 "<figcaption>%zu draws z ~ N(0, I), decoded: the means of p(x|z%s.</figcaption>"
                 "</figure>\n",
                 n, vae_model_layout(r->from->model)->c > 0 ? ",y), the classes y in turn" : ")");
    free_cells(&c);
    return status;
}

/* ---- pictures of the data ---- */

/* x: (n,D), the first n examples of the latents as the model sees them. */
static vae_status fetch(const report *r, float *x, size_t n, vae_error *err)
{
    const size_t batch = r->from->batch, D = r->from->about->d;
    for (size_t at = 0; at < n; at += batch) {
        const vae_plan plan = report_plan(r, at);
        vae_batch_out out = {.x = x + at * D};
        vae_status status = vae_model_batch(r->from->model, r->from->data, &plan,
                                            n - at < batch ? n - at : batch, 1, &out, err);
        if (status != VAE_OK) {
            return status;
        }
    }
    vae_checkpoint_units(r->from->about, x, n);
    return VAE_OK;
}

/* Lines of data, each above the line of their reconstructions. */
static vae_status put_reconstructions(report *r, const float *x, size_t n_examples, vae_error *err)
{
    const size_t D = r->from->about->d;
    const size_t n = cells_that_fit(r, n_examples < RECONSTRUCTIONS ? n_examples : RECONSTRUCTIONS,
                                    n_examples < COLUMNS ? n_examples : COLUMNS);
    const size_t columns = n < COLUMNS ? n : COLUMNS, lines = (n + columns - 1) / columns;
    cells c = {0}, grid = {0};
    vae_status status = make_cells(&c, r, n, err);
    status = status == VAE_OK ? make_cells(&grid, r, 2 * lines * columns, err) : status;
    status = status == VAE_OK ? decode(r, c.x, r->latents.mu, n, err) : status;
    for (size_t i = 0; i < n && status == VAE_OK; i++) {
        const size_t cell = 2 * (i / columns) * columns + i % columns;
        memcpy(grid.x + cell * D, x + i * D, D * sizeof *x);
        memcpy(grid.x + (cell + columns) * D, c.x + i * D, D * sizeof *x);
    }
    vae_text_add(&r->page, "<figure class=\"card\"><h3>Reconstructions</h3>");
    if (status == VAE_OK) {
        status = put_grid(r, grid.x, 2 * lines * columns, columns, 2, false,
                          "Examples of the data, each above its reconstruction", err);
    }
    vae_text_add(&r->page,
                 "<figcaption>Examples (%s) above their reconstructions, decoded from the mean of "
                 "q(z|x).</figcaption></figure>\n",
                 r->from->split);
    free_cells(&grid);
    free_cells(&c);
    return status;
}

/* Pairs of examples, of two classes where there are labels. Returns how many were found. */
static size_t choose_pairs(const report *r, size_t n, size_t pair[PAIRS][2])
{
    const uint8_t *labels = r->latents.labels;
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

static vae_status put_interpolations(report *r, const float *x, size_t n_examples, vae_error *err)
{
    const size_t D = r->from->about->d, Z = r->from->about->config.latent;
    size_t pair[PAIRS][2], most = cells_that_fit(r, PAIRS * (STEPS + 2), STEPS + 2) / (STEPS + 2);
    size_t n = choose_pairs(r, n_examples, pair);
    n = n < most ? n : most;
    if (n == 0) {
        return VAE_OK;
    }
    cells way = {0}, grid = {0};
    vae_status status = make_cells(&way, r, n * STEPS, err);
    status = status == VAE_OK ? make_cells(&grid, r, n * (STEPS + 2), err) : status;
    for (size_t i = 0; i < n * STEPS && status == VAE_OK; i++) {
        const size_t *ends = pair[i / STEPS];
        vae_lerp(way.z + i * Z, r->latents.mu + ends[0] * Z, r->latents.mu + ends[1] * Z, Z,
                 (double)(i % STEPS) / (STEPS - 1));
    }
    status = status == VAE_OK ? decode(r, way.x, way.z, n * STEPS, err) : status;
    for (size_t i = 0; i < n && status == VAE_OK; i++) {
        float *line = grid.x + i * (STEPS + 2) * D;
        memcpy(line, x + pair[i][0] * D, D * sizeof *x);
        memcpy(line + D, way.x + i * STEPS * D, STEPS * D * sizeof *x);
        memcpy(line + (STEPS + 1) * D, x + pair[i][1] * D, D * sizeof *x);
    }
    vae_text_add(&r->page, "<figure class=\"card\"><h3>Interpolations</h3>");
    if (status == VAE_OK) {
        status = put_grid(r, grid.x, n * (STEPS + 2), STEPS + 2, 0, true,
                          "Lines of pictures that go from one example over into another", err);
    }
    vae_text_add(&r->page, "<figcaption>From one example (left) to another (right): straight lines "
                           "between their means in latent space, decoded.</figcaption></figure>\n");
    free_cells(&grid);
    free_cells(&way);
    return status;
}

static vae_status put_traversal(report *r, size_t j, cells *c, vae_error *err)
{
    const size_t Z = r->from->about->config.latent;
    char alt[96];
    for (size_t i = 0; i < TRAVERSAL_STEPS; i++) {
        c->z[i * Z + j] = (float)(traversal_range * (2 * (double)i / (TRAVERSAL_STEPS - 1) - 1));
    }
    vae_status status = decode(r, c->x, c->z, TRAVERSAL_STEPS, err);
    for (size_t i = 0; i < TRAVERSAL_STEPS; i++) {
        c->z[i * Z + j] = 0;
    }
    if (status != VAE_OK) {
        return status;
    }
    vae_text_add(&r->page, "<li><span>z<sub>%zu</sub>", j);
    if (r->has_data) {
        vae_text_add(&r->page, " <small>%.2f</small>", r->latents.kl[j]);
    }
    vae_text_add(&r->page, "</span>");
    snprintf(alt, sizeof alt, "Pictures decoded as latent %zu goes from %g to %g", j,
             -traversal_range, traversal_range);
    status = put_grid(r, c->x, TRAVERSAL_STEPS, TRAVERSAL_STEPS, 0, false, alt, err);
    vae_text_add(&r->page, "</li>\n");
    return status;
}

static vae_status put_traversals(report *r, vae_error *err)
{
    const size_t Z = r->from->about->config.latent;
    const size_t fit = cells_that_fit(r, TRAVERSED * TRAVERSAL_STEPS, TRAVERSAL_STEPS);
    size_t n = fit / TRAVERSAL_STEPS < Z ? fit / TRAVERSAL_STEPS : Z;
    cells c = {0};
    vae_status status = make_cells(&c, r, TRAVERSAL_STEPS, err);
    vae_text_add(&r->page,
                 "<figure class=\"card wide\"><h3>Traversals</h3><ul class=\"strips\">\n");
    for (size_t i = 0; i < n && status == VAE_OK; i++) {
        status = put_traversal(r, r->order[i], &c, err);
    }
    vae_text_add(&r->page,
                 "</ul><figcaption>One latent goes from &minus;%g to %g, the others stay at 0: %s "
                 "%zu of %zu%s.</figcaption></figure>\n",
                 traversal_range, traversal_range, n < Z ? "the first" : "all", n, Z,
                 r->has_data ? ", by the KL that is under its name" : "");
    free_cells(&c);
    return status;
}

vae_status report_put_pictures(report *r, vae_error *err)
{
    const size_t D = r->from->about->d;
    const size_t n = r->latents.n < EXAMPLES ? r->latents.n : EXAMPLES;
    vae_text_add(&r->page, "<section id=\"pictures\"><h2>Pictures</h2>\n");
    if (!r->picture) {
        const vae_checkpoint *c = r->from->about;
        report_note(r,
                    "The data are no pictures (%zu x %zu, %zu channel%s): samples, "
                    "reconstructions, interpolations and traversals are not drawn.",
                    c->height, c->width, c->channels, c->channels == 1 ? "" : "s");
        vae_text_add(&r->page, "</section>\n");
        return VAE_OK;
    }
    vae_text_add(&r->page, "<div class=\"cards\">\n");
    vae_status status = put_samples(r, err);
    if (vae_model_layout(r->from->model)->c > 0) {
        vae_text_add(&r->page, "</div>\n");
        report_note(r,
                    "The model has classes: vae reconstruct and vae complete draw its pictures of "
                    "data, vae sample a line for each class.");
        vae_text_add(&r->page, "</section>\n");
        return status;
    }
    if (status == VAE_OK && r->has_data) {
        float *x = calloc(n * D, sizeof *x);
        status = x != NULL ? fetch(r, x, n, err)
                           : vae_fail_memory(err, n * D * sizeof *x, "examples of the report");
        status = status == VAE_OK ? put_reconstructions(r, x, n, err) : status;
        status = status == VAE_OK ? put_interpolations(r, x, n, err) : status;
        free(x);
    }
    status = status == VAE_OK ? put_traversals(r, err) : status;
    vae_text_add(&r->page, "</div>\n");
    if (!r->has_data) {
        report_note(r, "Reconstructions and interpolations need data: %s.", r->from->missing);
    }
    vae_text_add(&r->page, "</section>\n");
    return status;
}
