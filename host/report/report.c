/* The page: its head, the figures on top, curves, and the order of the rest. */
#include "report/report.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "base/clock.h"
#include "base/text.h"
#include "base/version.h"
#include "image/image.h"
#include "report/internal.h"
#include "report_page.h" /* made by the Makefile of page.css and page.js */

static const char *const split_names[REPORT_SPLITS] = {"train", "validation", "test"};

/* ---- head ---- */

/* What a network could be asked for, the browser refuses: the page cannot even by mistake. */
static const char policy[] =
    "<meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; img-src data:; "
    "style-src 'unsafe-inline'; script-src 'unsafe-inline'\">\n";

void report_head(vae_text *page, const char *title, const char *over, const char *heading)
{
    vae_text_add(page,
                 "<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n%s"
                 "<meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n"
                 "<meta name=\"color-scheme\" content=\"light dark\">\n"
                 "<link rel=\"icon\" href=\"data:,\">\n<title>",
                 policy);
    vae_text_escaped(page, title);
    vae_text_add(page, "</title>\n<style>\n");
    vae_text_put(page, report_css, sizeof report_css - 1);
    vae_text_add(page, "</style>\n</head>\n<body>\n<header>\n<p class=\"over\">%s</p>\n<h1>", over);
    vae_text_escaped(page, heading);
    vae_text_add(page, "</h1>\n");
}

static void put_head(report *r)
{
    char name[VAE_PATH], title[VAE_PATH + 32];
    vae_base_name(name, sizeof name, r->from->name);
    snprintf(title, sizeof title, "%s – vae report", name);
    report_head(&r->page, title, "Report of a variational autoencoder", name);
}

static void put_layer_size(report *r, const layer_desc *layer)
{
    const vae_conv g = layer->conv;
    if (!layer->is_conv) {
        vae_text_add(&r->page, "–%zu", layer->out);
    } else if (g.transposed) {
        vae_text_add(&r->page, "–%zu×%zu×%zu", g.H, g.W, g.parts * g.C);
    } else {
        vae_text_add(&r->page, "–%zu×%zu×%zu", g.h, g.w, g.c);
    }
}

/* 784–400–20–400–784 */
static void put_sizes(report *r)
{
    const param_layout *layout = vae_model_layout(r->on->model);
    vae_text_add(&r->page, "%zu", layout->d);
    for (size_t i = 0; i + 1 < layout->n_encoder; i++) {
        put_layer_size(r, &layout->layers[i]);
    }
    vae_text_add(&r->page, "–<b>%zu</b>", layout->z);
    for (size_t i = 0; i + 1 < layout->n_decoder; i++) {
        put_layer_size(r, &layout->layers[layout->n_encoder + i]);
    }
    vae_text_add(&r->page, "–%zu", layout->d);
}

static void put_subtitle(report *r)
{
    const vae_config *c = &r->about->config;
    char activation[32], likelihood[32], n[32], time[32];
    vae_config_get(c, "activation", activation, sizeof activation);
    vae_config_get(c, "likelihood", likelihood, sizeof likelihood);
    vae_text_add(&r->page, "<p class=\"sub\">");
    put_sizes(r);
    vae_text_add(&r->page, " · %s · %s · %s parameters", activation, likelihood,
                 vae_thousands(n, (double)r->about->n_params));
    vae_text_add(&r->page, " · trained on ");
    vae_text_escaped(&r->page, c->data);
    vae_text_add(&r->page, ", %llu epoch%s in %s</p>\n", (unsigned long long)r->about->state.epoch,
                 vae_s(r->about->state.epoch), report_duration(time, r->about->state.wall_s));
    vae_text_add(&r->page, "<nav aria-label=\"Sections\"><a href=\"#explorer\">Latent space</a> "
                           "<a href=\"#training\">Training</a> "
                           "<a href=\"#pictures\">Pictures</a> <a href=\"#details\">Details</a>"
                           "</nav>\n</header>\n<main>\n");
}

/* ---- the figures on top ---- */

/* How x was taken: a number in nats means nothing without it. */
static void describe_x(const report *r, char text[200])
{
    const vae_config *c = &r->about->config;
    const bool bits = r->has_data && r->on->set->dtype == VAE_BITS;
    const vae_likelihood_row *likelihood = vae_likelihood_of(c->likelihood);
    char variance[32];
    if (!likelihood->unit) {
        vae_format_real(c->variance, variance, sizeof variance);
        snprintf(text, 200, "a density of the values %s, %s%s",
                 r->about->standard != NULL ? "after standardizing each column" : "as they are",
                 likelihood->variance ? "Gaussian of variance "
                                      : "Gaussian with a learned variance",
                 likelihood->variance ? variance : "");
        return;
    }
    const char *how[] = {
        bits ? "binary x, as it is"
             : "x as it is, values in [0,1] not binarized (a cross-entropy: to be compared only "
               "with figures for the same x)",
        "x binarized by a threshold of 1/2", "x binarized once, at random (static)",
        "x binarized anew at each use (dynamic)"};
    snprintf(text, 200, "%s", how[c->binarize]);
}

static void put_figure(report *r, const char *name, double value, const char *more)
{
    char text[32];
    const double size = fabs(value);
    snprintf(text, sizeof text, "%s%.*f", value < 0 ? "−" : "", size < 1000 ? 2 : 0, size);
    vae_text_add(&r->page,
                 "<div><dt>%s</dt><dd><data value=\"%.9g\">%s</data> <small>%s</small>"
                 "</dd></div>\n",
                 name, value, text, more);
}

/* What the figures of bytes are of. */
static void put_about_bytes(report *r)
{
    char n[32];
    if (r->bytes.n == 0) {
        return;
    }
    vae_text_add(&r->page,
                 "<p class=\"fine\">PSNR: of the decoder's mean at z = mu, over %s %s "
                 "example%s.%s</p>\n",
                 vae_thousands(n, (double)r->bytes.n), r->on->split, vae_s(r->bytes.n),
                 isnan(r->bytes.bits) ? ""
                                      : " Bits a dimension: of their ELBO, a bound for bytes by "
                                        "uniform noise of width 1/256 (its expected value).");
}

static void put_figures(report *r)
{
    const json_t *figures = NULL;
    const char *split = NULL;
    static const char *const keys[] = {"bound", "elbo", "recon", "kl"};
    static const char *const names[] = {"Maximized bound", "ELBO", "Reconstruction", "KL"};
    char x[200];
    for (size_t s = REPORT_SPLITS; s-- > 0 && figures == NULL;) { /* test, if there is one */
        split = split_names[s];
        figures = json_object_get(r->summary, split);
    }
    describe_x(r, x);
    vae_text_add(&r->page, "<section aria-label=\"Figures\">\n<dl class=\"figures\">\n");
    for (size_t i = 0; i < sizeof keys / sizeof keys[0]; i++) {
        const json_t *value = json_object_get(figures, keys[i]);
        if (json_is_number(value)) { /* the bound is a loss in the summary */
            put_figure(r, names[i], json_number_value(value) * (i == 0 ? -1 : 1), "nats");
        }
    }
    if (r->has_data) {
        vae_text_add(&r->page,
                     "<div><dt>Active latents</dt><dd><data value=\"%zu\">%zu</data> <small>of "
                     "%zu</small></dd></div>\n",
                     r->latents.n_active, r->latents.n_active, r->latents.z);
    }
    if (r->bytes.n > 0) {
        put_figure(r, "PSNR", r->bytes.psnr, "dB");
    }
    if (r->bytes.n > 0 && !isnan(r->bytes.bits)) {
        put_figure(r, "Bits a dimension", r->bytes.bits, "bits");
    }
    vae_text_add(&r->page, "</dl>\n");
    if (figures != NULL) {
        const json_t *epoch = json_object_get(r->summary, "epoch");
        char n[32];
        const double examples = json_number_value(json_object_get(figures, "n"));
        vae_text_add(&r->page,
                     "<p class=\"fine\">Means over the %s %s example%s after epoch %lld: ",
                     vae_thousands(n, examples), split, vae_s((size_t)examples),
                     (long long)json_integer_value(epoch));
        vae_text_escaped(&r->page, x);
        vae_text_add(&r->page, ".%s</p>\n",
                     strcmp(split, "train") == 0 ? " Taken while the parameters still moved." : "");
    } else {
        report_note(r, "No epoch is over yet: there are no figures.");
    }
    put_about_bytes(r);
    vae_text_add(&r->page, "</section>\n");
}

/* ---- curves ---- */

static void put_chart(report *r, plot_axes axes, size_t x, size_t y, bool one)
{
    const report_metrics *m = &r->metrics;
    plot_series series[REPORT_SPLITS];
    size_t n = 0;
    for (size_t s = 0; s < (one ? 1 : REPORT_SPLITS); s++) {
        if (m->n[s] > 0) {
            series[n] = (plot_series){.name = one ? NULL : split_names[s],
                                      .x = m->column[s][x],
                                      .y = m->column[s][y],
                                      .n = m->n[s]};
            n++;
        }
    }
    vae_text_add(&r->page, "<div class=\"card chart\">");
    plot_lines(&r->page, axes, series, n);
    vae_text_add(&r->page, "</div>\n");
}

/* Bars by KL, the units that carry nothing pale. */
static vae_status put_kl(report *r, vae_error *err)
{
    const report_latents *l = &r->latents;
    const size_t Z = l->z;
    char n[32];
    vae_status status = VAE_OK;
    double *kl = calloc(Z, sizeof *kl);
    bool *faded = calloc(Z, sizeof *faded);
    char(*names)[24] = calloc(Z, sizeof *names);
    const char **labels = calloc(Z, sizeof *labels);
    if (kl == NULL || faded == NULL || names == NULL || labels == NULL) {
        TRY(vae_fail_memory(err, Z * 48, "KL of the dimensions"));
    }
    for (size_t i = 0; i < Z; i++) {
        kl[i] = l->kl[r->order[i]];
        faded[i] = !l->active[r->order[i]];
        snprintf(names[i], sizeof names[i], "%zu", r->order[i]);
        labels[i] = names[i];
    }
    vae_text_add(&r->page, "<figure class=\"card chart\">");
    plot_bars_faded(&r->page,
                    (plot_axes){"KL of each latent", "latent, sorted by KL", "nats", false, false},
                    kl, labels, faded, Z);
    vae_text_add(&r->page,
                 "<figcaption>Of %s %s example%s. %zu of %zu latents are active (their mean "
                 "varies by more than 0.01 over the data); the others are pale.</figcaption>"
                 "</figure>\n",
                 vae_thousands(n, (double)l->n), r->on->split, vae_s(l->n), l->n_active, Z);
done:
    free(labels);
    free(names);
    free(faded);
    free(kl);
    return status;
}

static vae_status put_training(report *r, vae_error *err)
{
    const bool has_curves = r->metrics.n[REPORT_TRAIN] > 0;
    const vae_config *c = &r->about->config;
    char title[96], objective[32];
    vae_status status = VAE_OK;
    vae_text_add(&r->page,
                 "<section id=\"training\"><h2>Training</h2>\n<div class=\"cards charts\">\n");
    if (has_curves) {
        if (c->objective != VAE_OBJ_ELBO) {
            vae_config_get(c, "objective", objective, sizeof objective);
            snprintf(title, sizeof title, "The bound that is maximized (%s, %zu particle%s)",
                     objective, c->particles, vae_s(c->particles));
            put_chart(r, (plot_axes){title, "epoch", "nats", false, false}, REPORT_EPOCH,
                      REPORT_BOUND, false);
        }
        put_chart(r, (plot_axes){"ELBO", "epoch", "nats", false, false}, REPORT_EPOCH, REPORT_ELBO,
                  false);
        put_chart(r, (plot_axes){"Reconstruction", "epoch", "nats", false, false}, REPORT_EPOCH,
                  REPORT_RECON, false);
        put_chart(r, (plot_axes){"KL", "epoch", "nats", false, false}, REPORT_EPOCH, REPORT_KL,
                  false);
        put_chart(r,
                  (plot_axes){"Rate and distortion", "rate: KL, nats",
                              "distortion: reconstruction, nats", false, false},
                  REPORT_KL, REPORT_RECON, false);
    }
    if (r->has_data) {
        TRY(put_kl(r, err));
    }
    if (has_curves) {
        put_chart(r, (plot_axes){"Speed", "epoch", "training examples a second", false, false},
                  REPORT_EPOCH, REPORT_RATE, true);
    }
    vae_text_add(&r->page, "</div>\n");
    if (!has_curves) {
        report_note(r, "There are no curves: %s.",
                    r->from->folder == NULL ? "metrics.jsonl is not beside this checkpoint"
                                            : "metrics.jsonl has no line yet, or is not there");
    }
    if (!r->has_data) {
        report_note(r, "The KL of each latent needs data: %s.", r->from->missing);
    }
    vae_text_add(&r->page, "</section>\n");
done:
    return status;
}

/* ---- the whole ---- */

static void put_foot(report *r)
{
    char when[32];
    time_t now = time(NULL);
    struct tm utc;
    gmtime_r(&now, &utc);
    strftime(when, sizeof when, "%Y-%m-%d %H:%M UTC", &utc);
    vae_text_add(&r->page,
                 "</main>\n<footer><p>Written by vae %s (%s) on %s: one file, which "
                 "loads nothing from anywhere.</p></footer>\n",
                 vae_build_version, vae_build_git, when);
    if (!r->decoder.too_large) {
        vae_text_add(&r->page, "<script>\n");
        vae_text_put(&r->page, report_js, sizeof report_js - 1);
        vae_text_add(&r->page, "</script>\n");
    }
    vae_text_add(&r->page, "</body>\n</html>\n");
}

static vae_status put_page(report *r, vae_error *err)
{
    vae_status status = VAE_OK;
    put_head(r);
    put_subtitle(r);
    put_figures(r);
    report_put_explorer(r);
    TRY(put_training(r, err));
    TRY(report_put_pictures(r, err));
    report_put_tables(r);
    put_foot(r);
done:
    return status;
}

vae_status vae_report_write(const vae_report_source *source, const char *path,
                            vae_report_result *result, vae_error *err)
{
    const vae_checkpoint *about = source->on->checkpoint;
    const double began = vae_clock();
    report r = {.from = source,
                .on = source->on,
                .about = about,
                .picture = vae_is_picture(about->height, about->width, about->channels)};
    const report_decoder *d = &r.decoder;
    vae_status status = VAE_OK;
    TRY(report_read_run(&r.metrics, &r.run, source->folder, err));
    TRY(report_read_object(&r.summary, about->summary, "the summary", err));
    TRY(report_look(&r, err));
    TRY(report_make_decoder(&r, err));
    TRY(put_page(&r, err));
    TRY(vae_text_write(&r.page, path, err));
    *result = (vae_report_result){
        .bytes = r.page.size,
        .explorer_bytes = d->too_large ? 0 : d->n_weights * (d->half ? 2 : 4),
        .half = d->half,
        .seconds = vae_clock() - began,
    };
done:
    vae_text_clear(&r.page);
    report_latents_clear(&r.latents);
    report_metrics_clear(&r.metrics);
    free(r.order);
    free(r.decoder.weights);
    json_decref(r.run);
    json_decref(r.summary);
    return status;
}
