/* vae manifold: what two latents do together. */
#include <stdlib.h>
#include <string.h>

#include "cli/draw.h"
#include "stats/latent_walk.h"

enum { SIDE = 30 };

typedef struct {
    size_t latent, n, dim[2]; /* dim[0] grows to the right, dim[1] upwards */
    double *axis;             /* (n) */
} manifold;

static vae_status choose_dims(manifold *f, const drawing *d, vae_error *err)
{
    const char *text = cli_value(d->args, "dims");
    uint32_t *list = NULL;
    size_t n = 0;
    f->latent = d->m.config.latent;
    f->dim[0] = 0;
    f->dim[1] = 1;
    if (text == NULL) {
        return f->latent == 2
                   ? VAE_OK
                   : vae_fail(
                         err, VAE_ERR_USAGE,
                         "the model has %zu latent%s, and a manifold is drawn of 2: train with "
                         "--latent 2%s",
                         f->latent, f->latent == 1 ? "" : "s",
                         f->latent == 1 ? ", or see vae traverse"
                                        : ", or pick two with --dims I,J (vae traverse tells "
                                          "which ones matter); the others are then 0");
    }
    vae_status status = draw_numbers(&list, &n, "--dims", text, err);
    if (status == VAE_OK &&
        (n != 2 || list[0] == list[1] || list[0] >= f->latent || list[1] >= f->latent)) {
        status = vae_fail(err, VAE_ERR_USAGE,
                          "--dims: expected two different numbers from 0 to %zu, as in 0,1; found "
                          "'%s'",
                          f->latent - 1, text);
    }
    if (status == VAE_OK) {
        f->dim[0] = list[0];
        f->dim[1] = list[1];
    }
    free(list);
    return status;
}

static vae_status make_grid(void *ctx, float *z, size_t first, size_t n, vae_error *err)
{
    const manifold *f = ctx;
    (void)err;
    memset(z, 0, n * f->latent * sizeof *z);
    for (size_t i = 0; i < n; i++) {
        float *row = z + i * f->latent;
        row[f->dim[0]] = (float)f->axis[(first + i) % f->n];
        row[f->dim[1]] = (float)f->axis[f->n - 1 - (first + i) / f->n];
    }
    return VAE_OK;
}

static vae_status draw_manifold(manifold *f, drawing *d, double range, vae_error *err)
{
    vae_status status = choose_dims(f, d, err);
    if (status != VAE_OK || (status = draw_open_classes(d, err)) != VAE_OK ||
        (status = draw_need_class(d, NULL, err)) != VAE_OK) {
        return status;
    }
    f->axis = malloc(f->n * sizeof *f->axis);
    if (f->axis == NULL) {
        return vae_fail_memory(err, f->n * sizeof *f->axis, "an axis");
    }
    vae_latent_axis(f->axis, f->n, range);
    const vae_latent_source source = {.make = make_grid, .ctx = f};
    vae_sink_spec spec = vae_painter_spec(&d->painter, f->n * f->n);
    spec.columns = f->n;
    status = draw_open_sink(d, &spec, err);
    status = status == VAE_OK ? draw_open_model(d, err) : status;
    status = status == VAE_OK ? vae_paint(&d->painter, &source, f->n * f->n, d->sink, err) : status;
    return status == VAE_OK ? draw_finish(d, err) : status;
}

vae_status cli_manifold(const cli_args *args, vae_error *err)
{
    drawing d = {0};
    manifold f = {0};
    double range;
    vae_status status = cli_size(args, "n", SIDE, 2, 10000, &f.n, err);
    if (status == VAE_OK &&
        (status = cli_real(args, "range", 0, 1e-6, 1000, &range, err)) == VAE_OK &&
        (status = draw_begin(&d, args, "manifold.png", false, err)) == VAE_OK &&
        (status = draw_manifold(&f, &d, range, err)) == VAE_OK) {
        cli_progress_clear(&d.progress);
        draw_report(&d, f.n * f.n, "pictures of the manifold",
                    json_pack("{s:[I,I], s:s, s:f, s:f}", "dims", (json_int_t)f.dim[0],
                              (json_int_t)f.dim[1], "spacing", range > 0 ? "even" : "quantiles",
                              "from", f.axis[0], "to", f.axis[f.n - 1]));
    }
    draw_close(&d);
    free(f.axis);
    return status;
}
