/* vae manifold: what two latents do together. */
#include <stdlib.h>
#include <string.h>

#include "base/text.h"
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
    vae_status status = VAE_OK;
    f->latent = d->m.config.latent;
    f->dim[0] = 0;
    f->dim[1] = 1;
    if (text == NULL && f->latent == 2) {
        return VAE_OK;
    }
    if (text == NULL) {
        return vae_fail(err, VAE_ERR_USAGE,
                        "the model has %zu latent%s, and a manifold is drawn of 2: train with "
                        "--latent 2%s",
                        f->latent, vae_s(f->latent),
                        f->latent == 1 ? ", or see vae traverse"
                                       : ", or pick two with --dims I,J (vae traverse tells "
                                         "which ones matter); the others are then 0");
    }
    TRY(draw_numbers(&list, &n, "--dims", text, err));
    if (n != 2 || list[0] == list[1] || list[0] >= f->latent || list[1] >= f->latent) {
        TRY(vae_fail(err, VAE_ERR_USAGE,
                     "--dims: expected two different numbers from 0 to %zu, as in 0,1; found '%s'",
                     f->latent - 1, text));
    }
    f->dim[0] = list[0];
    f->dim[1] = list[1];
done:
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
    const vae_latent_source source = {.make = make_grid, .ctx = f};
    vae_status status = VAE_OK;
    TRY(choose_dims(f, d, err));
    TRY(draw_open_classes(d, err));
    TRY(draw_need_class(d, NULL, err));
    f->axis = malloc(f->n * sizeof *f->axis);
    if (f->axis == NULL) {
        TRY(vae_fail_memory(err, f->n * sizeof *f->axis, "an axis"));
    }
    vae_latent_axis(f->axis, f->n, range);
    vae_sink_spec spec = vae_painter_spec(&d->painter, f->n * f->n);
    spec.columns = f->n;
    TRY(draw_open_sink(d, &spec, err));
    TRY(draw_open_model(d, err));
    TRY(vae_paint(&d->painter, &source, f->n * f->n, d->sink, err));
    TRY(draw_finish(d, err));
done:
    return status;
}

static vae_status run_manifold(const cli_args *args, vae_error *err)
{
    drawing d = {0};
    manifold f = {0};
    double range;
    vae_status status = VAE_OK;
    TRY(cli_size(args, "n", SIDE, 2, 10000, &f.n, err));
    TRY(cli_real(args, "range", 0, 1e-6, 1000, &range, err));
    TRY(draw_begin(&d, args, "manifold.png", false, err));
    TRY(draw_manifold(&f, &d, range, err));
    draw_say(&d, f.n * f.n, "picture", " of the manifold",
             json_pack("{s:[I,I], s:s, s:f, s:f}", "dims", (json_int_t)f.dim[0],
                       (json_int_t)f.dim[1], "spacing", range > 0 ? "even" : "quantiles", "from",
                       f.axis[0], "to", f.axis[f.n - 1]));
done:
    draw_close(&d);
    free(f.axis);
    return status;
}

static const cli_option manifold_options[] = {
    {"out", 'o', "FILE", ".png (a grid), a folder, .npy, or - [manifold.png]"},
    {"n", 'n', "N", "pictures a side [30]"},
    {"range", 0, "R", "evenly from -R to R; default: at the quantiles of N(0,1)"},
    {"dims", 0, "I,J", "which latents, to the right and upwards; the others are 0 [0,1]"},
    {"class", 0, "NAME", "of a model with classes: decode as this one"},
    CLI_MODEL_OPTIONS,
};

const cli_command cli_manifold_command = {
    .name = "manifold",
    .words = "RUN",
    .n_words = 1,
    .help = "What two latents do together: a map of pictures.",
    .examples = "  vae manifold runs/two --out manifold.png          trained with --latent 2\n"
                "  vae manifold runs/mnist --dims 4,11 -n 20 --range 3\n",
    CLI_OPTIONS(manifold_options),
    .run = run_manifold,
};
