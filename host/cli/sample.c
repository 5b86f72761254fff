/* vae sample: new data, from the prior or from a density of where the training data lie. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "cli/draw.h"
#include "dataset/closest.h"
#include "image/image.h"
#include "philox.h"
#include "stats/latent_walk.h"
#include "stats/mixture.h"

enum { FIT_ROWS = 20000, HELD_OUT = 10 }; /* one row in HELD_OUT is not fitted to */

/* What was asked for, and what latents are made of. An option that conditions the decoder belongs
 * here, and into vae_paint. */
typedef struct {
    size_t n, columns, fit_rows;
    size_t components; /* 0: as fit the rows held out */
    uint64_t seed;
    double temperature;
    bool posterior, full, nearest;
    size_t each; /* draws of each class, in a model with classes and without --class */
    const vae_checkpoint *checkpoint; /* where it is above 0: of the model */
    vae_mixture mixture;              /* with posterior */
    vae_mixture_report fit;
    size_t n_fitted, n_held;
    double held_out, prior_held_out; /* mean log densities of the rows held out, nats */
    size_t latent;
    vae_dataset *set; /* with nearest */
    const vae_stop_flag *stop;
    size_t *nearest_row;
    double *distance;
    float *example; /* (D), of the set */
} sampling;

/* ---- options ---- */

static vae_status one_of(bool *second, const cli_args *args, const char *option, const char *first,
                         const char *other, vae_error *err)
{
    const char *value = cli_value(args, option);
    *second = value != NULL && strcmp(value, other) == 0;
    return value == NULL || *second || strcmp(value, first) == 0
               ? VAE_OK
               : vae_fail(err, VAE_ERR_USAGE, "--%s: expected %s or %s, found '%s'", option, first,
                          other, value);
}

static vae_status refuse_in_vain(const sampling *s, const drawing *d, vae_error *err)
{
    static const char *const of_fit[] = {"components", "covariance", "limit", NULL};
    static const char *const of_data[] = {"data", "split", NULL};
    static const char *const of_grid[] = {"columns", "nearest", NULL};
    vae_status status = VAE_OK;
    if (!s->posterior) {
        TRY(cli_refuse(d->args, of_fit, "without --from posterior", err));
    }
    if (!s->posterior && !s->nearest) {
        TRY(cli_refuse(d->args, of_data, "without --from posterior or --nearest", err));
    }
    if (d->kind != VAE_SINK_PNG) {
        TRY(cli_refuse(d->args, of_grid, "where --out is no .png", err));
    }
done:
    return status;
}

static vae_status read_options(sampling *s, const cli_args *args, vae_error *err)
{
    size_t seed;
    bool diagonal;
    vae_status status = VAE_OK;
    s->nearest = cli_given(args, "nearest");
    TRY(cli_size(args, "n", 64, 1, UINT32_MAX, &s->n, err));
    TRY(cli_size(args, "seed", 1, 0, SIZE_MAX, &seed, err));
    TRY(cli_real(args, "temperature", 1, 0, 1000, &s->temperature, err));
    TRY(cli_size(args, "columns", 0, 1, VAE_PNG_SIDE, &s->columns, err));
    TRY(cli_size(args, "components", 0, 1, VAE_MIXTURE_MOST, &s->components, err));
    TRY(cli_size(args, "limit", FIT_ROWS, 0, UINT32_MAX, &s->fit_rows, err));
    TRY(one_of(&diagonal, args, "covariance", "full", "diagonal", err));
    TRY(one_of(&s->posterior, args, "from", "prior", "posterior", err));
    s->full = !diagonal;
    s->seed = seed;
done:
    return status;
}

/* ---- where the training data lie ---- */

/* The training split, where --split does not say otherwise, whole: --limit is of the fit. */
static vae_status open_training_set(drawing *d, vae_error *err)
{
    const char *split = cli_value(d->args, "split");
    cli_args whole = cli_with(d->args, "limit", NULL);
    whole = cli_with(&whole, "split", split != NULL ? split : "train");
    return cli_open_set(&d->m, &whole, err);
}

/* z ~ q(z|x) of rows drawn from the set without replacement: a rule such as every third row might
 * agree with the order of the data. The last of them, one in HELD_OUT, are held out. */
static vae_status draw_posteriors(sampling *s, drawing *d, float **z, vae_error *err)
{
    const vae_plan plan = vae_eval_plan(0, 0);
    const size_t all = d->m.set->n;
    const size_t n = s->fit_rows > 0 && s->fit_rows < all ? s->fit_rows : all;
    const vae_watch until_stopped = {.stop_signal = d->painter.watch.stop_signal};
    vae_status status = VAE_OK;
    uint32_t *rows = malloc(n * sizeof *rows);
    *z = malloc(n * s->latent * sizeof **z);
    if (rows == NULL || *z == NULL) {
        TRY(vae_fail_memory(err, n * (s->latent + 1) * sizeof **z, "latents"));
    }
    s->n_held = n / HELD_OUT;
    s->n_fitted = n - s->n_held;
    const vae_philox_words r = vae_philox(d->m.config.seed, vae_rng_stream(VAE_RNG_MIXTURE, 0), 2);
    const uint64_t key = (uint64_t)r.w[0] << 32 | r.w[1];
    for (size_t i = 0; i < n; i++) {
        rows[i] = (uint32_t)vae_shuffle(key, all, vae_shuffle_bits(all), i);
    }
    TRY(vae_trained_put(&d->m, rows, n, err));
    TRY(vae_trained_run(&d->m, n, &plan, &until_stopped, &(vae_batch_out){.z = *z}, NULL, err));
done:
    free(rows);
    return status;
}

/* Mean log N(z; 0, I). */
static double prior_score(const float *z, size_t n, size_t latent)
{
    const double log_2pi = 1.83787706640934548356;
    double square = 0;
    for (size_t i = 0; i < n * latent; i++) {
        square += (double)z[i] * (double)z[i];
    }
    return -0.5 * (square / (double)n + (double)latent * log_2pi);
}

static void show_fit(void *ctx, size_t iteration, double log_likelihood)
{
    drawing *d = ctx;
    if (d->progress.terminal && !d->args->quiet) {
        const int n = fprintf(stderr, "\rfit: iteration %-4zu log density %.3f nats per row",
                              iteration, log_likelihood);
        fflush(stderr);
        d->progress.drawn = n > 0 ? (size_t)n : 0;
    }
}

static vae_status fit_posterior(sampling *s, drawing *d, vae_error *err)
{
    float *z = NULL;
    vae_status status = VAE_OK;
    /* its start is by the run's seed: --seed is of the samples, not of what they are drawn from */
    const vae_mixture_options options = {.components = s->components,
                                         .full = s->full,
                                         .seed = d->m.config.seed,
                                         .stop_signal = d->painter.watch.stop_signal,
                                         .progress = show_fit,
                                         .ctx = d};
    s->held_out = s->prior_held_out = NAN;
    TRY(draw_posteriors(s, d, &z, err));
    const float *held = z + s->n_fitted * s->latent;
    if (s->components == 0) {
        TRY(vae_mixture_choose(&s->mixture, z, s->n_fitted, held, s->n_held, s->latent, &options,
                               &s->fit, &s->held_out, err));
    } else {
        TRY(vae_mixture_fit(&s->mixture, z, s->n_fitted, s->latent, &options, &s->fit, err));
    }
    if (s->n_held > 0) {
        TRY(vae_mixture_score(&s->held_out, &s->mixture, held, s->n_held, err));
        s->prior_held_out = prior_score(held, s->n_held, s->latent);
    }
done:
    free(z);
    cli_progress_clear(&d->progress);
    cli_progress_open(&d->progress, d->args->quiet);
    d->progress.what = d->args->command->name;
    if (status == VAE_OK && !s->fit.converged) {
        cli_say(d->args, "warning: the mixture had not converged after %zu iterations",
                s->fit.iterations);
    }
    return status;
}

/* ---- samples ---- */

static vae_status make_latents(void *ctx, float *z, size_t first, size_t n, vae_error *err)
{
    const sampling *s = ctx;
    vae_status status = VAE_OK;
    /* with classes, the draws of a line come again in the next */
    const size_t turns = s->each > 0 ? n : 1, rows = s->each > 0 ? 1 : n;
    for (size_t i = 0; i < turns; i++) {
        const size_t row = s->each > 0 ? (first + i) % s->each : first;
        if (s->posterior) {
            TRY(vae_mixture_draw(z + i * s->latent, &s->mixture, s->seed, row, rows, s->temperature,
                                 err));
        } else {
            vae_prior_rows(z + i * s->latent, s->seed, row, rows, s->latent, s->temperature);
        }
    }
done:
    return status;
}

static void label_lines(void *ctx, uint32_t *label, size_t first, size_t n)
{
    const sampling *s = ctx;
    for (size_t i = 0; i < n; i++) {
        label[i] = (uint32_t)vae_checkpoint_trained_class(s->checkpoint, (first + i) / s->each);
    }
}

static void draw_nearest(void *ctx, vae_row_sink *sink, const float *x_hat, size_t first, size_t n)
{
    const sampling *s = ctx;
    vae_error unused = {.notes = NULL}; /* paint looks at the flag again */
    if (vae_closest_rows(s->nearest_row + first, s->distance + first, x_hat, n, s->set, s->stop,
                         &unused) != VAE_OK) {
        return;
    }
    for (size_t i = first; i < first + n; i++) {
        for (size_t j = 0; j < s->set->d; j++) {
            s->example[j] = vae_dataset_value(s->set, s->nearest_row[i], j);
        }
        vae_row_sink_beside(sink, i, 1, s->example);
    }
}

static vae_status paint(sampling *s, drawing *d, vae_error *err)
{
    const vae_latent_source source = {make_latents, s->nearest ? draw_nearest : NULL, s,
                                      s->each > 0 ? label_lines : NULL};
    vae_status status = VAE_OK;
    if (s->nearest) {
        s->set = d->m.set;
        s->stop = d->painter.watch.stop_signal;
        s->nearest_row = malloc(s->n * sizeof *s->nearest_row);
        s->distance = malloc(s->n * sizeof *s->distance);
        s->example = malloc(s->set->d * sizeof *s->example);
        if (s->nearest_row == NULL || s->distance == NULL || s->example == NULL) {
            TRY(vae_fail_memory(err, s->n * sizeof *s->distance, "distances"));
        }
    }
    TRY(vae_paint(&d->painter, &source, s->n, d->sink, err));
    if (s->nearest && vae_stopping(s->stop)) { /* the last of them were not looked for */
        TRY(vae_fail(err, VAE_ERR_INTERRUPTED, "interrupted"));
    }
    TRY(s->nearest ? vae_dataset_check_file(s->set, err) : VAE_OK);
    TRY(draw_finish(d, err));
done:
    return status;
}

/* ---- what is printed ---- */

static json_t *details(const sampling *s, const drawing *d)
{
    char seed[24]; /* a string, as in run.json: JSON's numbers lose digits of it */
    snprintf(seed, sizeof seed, "%llu", (unsigned long long)s->seed);
    json_t *o = json_pack("{s:s, s:s, s:f}", "from", s->posterior ? "posterior" : "prior", "seed",
                          seed, "temperature", s->temperature);
    if (s->posterior) {
        json_object_set_new(
            o, "mixture",
            json_pack(
                "{s:s, s:s, s:s, s:I, s:I, s:b, s:I, s:f, s:I, s:o, s:o}", "data", d->m.set->source,
                "split", d->m.split, "covariance", s->full ? "full" : "diagonal", "components",
                (json_int_t)s->mixture.k, "iterations", (json_int_t)s->fit.iterations, "converged",
                s->fit.converged ? 1 : 0, "n", (json_int_t)s->n_fitted, "log_likelihood",
                s->fit.log_likelihood, "held_out_n", (json_int_t)s->n_held, "held_out",
                cli_json_real(s->held_out), "prior_held_out", cli_json_real(s->prior_held_out)));
    }
    if (s->nearest) {
        json_t *rows = json_array(), *distances = json_array();
        for (size_t i = 0; i < s->n; i++) {
            json_array_append_new(
                rows, json_integer((json_int_t)vae_dataset_number(s->set, s->nearest_row[i])));
            json_array_append_new(distances, json_real(s->distance[i]));
        }
        json_object_set_new(o, "nearest_row", rows);
        json_object_set_new(o, "nearest_distance", distances);
    }
    return o;
}

static void say(const sampling *s, const drawing *d)
{
    if (s->posterior) {
        cli_say(d->args,
                "%zu Gaussian%s (%s) fitted to z of %zu row%s of %s (%s) in %zu iteration%s: log "
                "density %.3f nats per row",
                s->mixture.k, vae_s(s->mixture.k), s->full ? "full" : "diagonal", s->n_fitted,
                vae_s(s->n_fitted), d->m.set->source, d->m.split, s->fit.iterations,
                vae_s(s->fit.iterations), s->fit.log_likelihood);
    }
    if (s->posterior && s->n_held > 0) {
        cli_say(d->args, "of %zu row%s held out: %.3f; the prior's is %.3f", s->n_held,
                vae_s(s->n_held), s->held_out, s->prior_held_out);
    }
    if (s->nearest) {
        double sum = 0, least = INFINITY;
        for (size_t i = 0; i < s->n; i++) {
            sum += s->distance[i];
            least = s->distance[i] < least ? s->distance[i] : least;
        }
        cli_say(d->args, "nearest of %zu row%s of %s (%s): mean distance %.3f, least %.3f",
                d->m.set->n, vae_s(d->m.set->n), d->m.set->source, d->m.split, sum / (double)s->n,
                least);
    }
}

/* ---- the command ---- */

/* A line for each class, or one class. */
static vae_status prepare_classes(sampling *s, drawing *d, vae_error *err)
{
    static const char *const in_vain[] = {"nearest", NULL};
    const size_t C = vae_checkpoint_n_trained(d->m.checkpoint);
    vae_status status = VAE_OK;
    TRY(draw_open_classes(d, err));
    if (vae_config_has_classes(&d->m.config) && d->only < 0) {
        s->checkpoint = d->m.checkpoint;
        s->each = (s->n + C - 1) / C;
        s->n = s->each * C;
    }
    if (d->m.below != NULL) {
        TRY(cli_refuse(d->args, in_vain, "with a stacked model, whose data are latents", err));
    }
done:
    return status;
}

static vae_status sample(sampling *s, drawing *d, vae_error *err)
{
    vae_status status = VAE_OK;
    TRY(prepare_classes(s, d, err));
    s->latent = d->m.config.latent;
    vae_sink_spec spec = vae_painter_spec(&d->painter, s->n);
    spec.columns = s->columns > 0 ? s->columns : s->each;
    spec.lines = s->nearest ? 2 : 1;
    TRY(draw_open_sink(d, &spec, err));
    if (s->posterior || s->nearest) {
        TRY(open_training_set(d, err));
    }
    TRY(draw_open_model(d, err));
    if (s->posterior) {
        TRY(fit_posterior(s, d, err));
    }
    TRY(paint(s, d, err));
done:
    return status;
}

static vae_status run_sample(const cli_args *args, vae_error *err)
{
    drawing d = {0};
    sampling s = {0};
    vae_status status = VAE_OK;
    TRY(read_options(&s, args, err));
    TRY(draw_begin(&d, args, "samples.png", false, err));
    TRY(refuse_in_vain(&s, &d, err));
    TRY(sample(&s, &d, err));
    cli_progress_clear(&d.progress);
    say(&s, &d);
    draw_say(&d, s.n, "sample", "", details(&s, &d));
done:
    draw_close(&d);
    vae_mixture_clear(&s.mixture);
    free(s.nearest_row);
    free(s.distance);
    free(s.example);
    return status;
}

static const cli_option sample_options[] = {
    {"n", 'n', "N", "how many [64]"},
    {"out", 'o', "FILE", ".png (a grid), a folder (one PNG a sample), .npy, or - [samples.png]"},
    {"seed", 's', "N", "of z [1]"},
    {"temperature", 0, "T", "scales the noise of z: 0 = none, 1 = as the model has it [1]"},
    {"columns", 0, "N", "of a grid; default: as makes it square"},
    {"from", 0, "prior|posterior", "N(0,I), or Gaussians fitted to q(z) of training data [prior]"},
    {"components", 'k', "N",
     "how many Gaussians, with --from posterior; default: as fit one row in 10 that is held out"},
    {"covariance", 0, "full|diagonal", "of each of them [full]"},
    {"limit", 0, "N", "rows to fit them to, drawn from the data; 0 = all [20000]"},
    {"nearest", 0, NULL, "in a grid, each sample's nearest training example below it"},
    {"data", 'd', "DATA", "training data of the two; default: what it was trained on"},
    {"split", 0, "train|validation|test", "of the data [train]"},
    {"class", 0, "NAME", "of a model with classes: only this one; default: a line for each"},
    CLI_MODEL_OPTIONS,
};

const cli_command cli_sample_command = {
    .name = "sample",
    .words = "RUN",
    .n_words = 1,
    .help = "New data: draws of z, decoded.",
    .examples = "  vae sample runs/mnist -n 100 --out samples.png\n"
                "  vae sample runs/mnist -n 50000 --out samples/     one PNG each, for FID tools\n"
                "  vae sample runs/mnist --from posterior --nearest\n"
                "  vae sample runs/mnist --temperature 0.7 --seed 2\n",
    CLI_OPTIONS(sample_options),
    .run = run_sample,
};
