/* Several runs side by side. */
#include "report/compare.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/file.h"
#include "base/text.h"
#include "base/version.h"
#include "report/internal.h"
#include "run/folder.h"

enum { MOST_PICTURE = 64 << 20 };

typedef struct {
    char name[VAE_PATH]; /* the folder's own name, or the whole path if another has that, too */
    vae_checkpoint *checkpoint;
    report_metrics metrics;
    json_t *run;
    char *picture; /* newest of samples/epoch-N.png; NULL: there is none */
    size_t n_picture;
} entry;

struct vae_comparison {
    size_t n;
    entry *run;    /* (n) */
    bool *differs; /* by option: do the runs? */
    size_t n_options;
    size_t split;    /* the figures' */
    bool same_data;  /* all trained on the same rows */
    bool same_terms; /* and their ELBOs are of the same x under the same kind of likelihood */
};

/* What is said of a run after its last epoch, NAN if it was not measured. */
static double last_of(const vae_comparison *c, size_t i, size_t split, size_t column)
{
    const report_metrics *m = &c->run[i].metrics;
    return m->n[split] > 0 ? m->column[split][column][m->n[split] - 1] : NAN;
}

static const char *const split_names[REPORT_SPLITS] = {"train", "validation", "test"};

/* ---- reading ---- */

/* Options that say where and how a run is kept, or whose content is compared elsewhere. */
static bool is_told(const char *name, bool same_data)
{
    static const char *const kept[] = {"out",          "save-every",  "keep",   "sample-every",
                                       "report",       "tensorboard", "preset", "stack-weights",
                                       "init-weights", "test-data"};
    for (size_t i = 0; i < sizeof kept / sizeof kept[0]; i++) {
        if (strcmp(name, kept[i]) == 0) {
            return false;
        }
    }
    return !(same_data && strcmp(name, "data") == 0);
}

static vae_status find_differences(vae_comparison *c, vae_error *err)
{
    const vae_option *options = vae_config_options(&c->n_options);
    c->differs = calloc(c->n_options, sizeof *c->differs);
    if (c->differs == NULL) {
        return vae_fail_memory(err, c->n_options, "options");
    }
    const vae_config *first = &c->run[0].checkpoint->config;
    const bool moves = vae_likelihood_of(first->likelihood)->optimal;
    for (size_t o = 0; o < c->n_options; o++) {
        char here[VAE_PATH], there[VAE_PATH];
        vae_config_get(first, options[o].name, here, sizeof here);
        for (size_t i = 1; i < c->n; i++) {
            vae_config_get(&c->run[i].checkpoint->config, options[o].name, there, sizeof there);
            c->differs[o] = c->differs[o] || strcmp(here, there) != 0;
        }
        c->differs[o] = c->differs[o] && is_told(options[o].name, c->same_data) &&
                        !(moves && strcmp(options[o].name, "variance") == 0);
    }
    return VAE_OK;
}

static void find_terms(vae_comparison *c)
{
    const vae_checkpoint *a = c->run[0].checkpoint;
    c->same_data = c->same_terms = true;
    for (size_t i = 1; i < c->n; i++) {
        const vae_checkpoint *b = c->run[i].checkpoint;
        c->same_data =
            c->same_data && memcmp(a->data_sha256, b->data_sha256, sizeof a->data_sha256) == 0;
        c->same_terms = c->same_terms &&
                        vae_likelihood_of(a->config.likelihood)->unit ==
                            vae_likelihood_of(b->config.likelihood)->unit &&
                        a->config.binarize == b->config.binarize &&
                        (a->standard != NULL) == (b->standard != NULL);
    }
    c->same_terms = c->same_terms && c->same_data;
    /* test rows, if all have some; rows held out; else those of training */
    c->split = REPORT_TEST;
    for (size_t i = 0; i < c->n; i++) {
        while (c->split > REPORT_TRAIN && c->run[i].metrics.n[c->split] == 0) {
            c->split--;
        }
    }
}

static vae_status read_picture(entry *e, const char *run, vae_error *err)
{
    char folder[VAE_RUN_PATH], path[2 * VAE_RUN_PATH], **names = NULL;
    const char *newest = NULL;
    size_t n = 0;
    vae_status status = VAE_OK;
    snprintf(folder, sizeof folder, "%s/samples", run);
    TRY(vae_folder_names(&names, &n, folder, err));
    for (size_t i = 0; i < n; i++) { /* in the order of bytes: epoch-1000 before epoch-999 */
        const bool longer = newest == NULL || strlen(names[i]) >= strlen(newest);
        if (strncmp(names[i], "epoch-", 6) == 0 && vae_ends_with(names[i], ".png") && longer) {
            newest = names[i];
        }
    }
    if (newest != NULL) {
        snprintf(path, sizeof path, "%s/%s", folder, newest);
        TRY(vae_file_bytes(&e->picture, &e->n_picture, path, MOST_PICTURE, err));
    }
done:
    vae_names_free(names, n);
    return status;
}

static vae_status read_run(entry *e, const char *run, vae_error *err)
{
    char path[VAE_PATH];
    vae_status status = VAE_OK;
    TRY(vae_checkpoint_open_run(&e->checkpoint, run, false, false, path, err));
    free(e->checkpoint->params); /* many runs may be large ones */
    e->checkpoint->params = NULL;
    TRY(report_read_run(&e->metrics, &e->run, run, err));
    TRY(read_picture(e, run, err));
done:
    return status;
}

static void name_runs(vae_comparison *c, const char *const *runs)
{
    for (size_t i = 0; i < c->n; i++) {
        vae_base_name(c->run[i].name, sizeof c->run[i].name, runs[i]);
    }
    for (size_t i = 0; i < c->n; i++) {
        bool alone = true;
        char name[VAE_PATH];
        vae_base_name(name, sizeof name, runs[i]);
        for (size_t j = 0; j < c->n; j++) {
            char other[VAE_PATH];
            vae_base_name(other, sizeof other, runs[j]);
            alone = alone && (i == j || strcmp(name, other) != 0);
        }
        if (!alone) {
            snprintf(c->run[i].name, sizeof c->run[i].name, "%s", runs[i]);
        }
    }
}

vae_status vae_comparison_open(vae_comparison **out, const char *const *runs, size_t n,
                               vae_error *err)
{
    vae_comparison *c = calloc(1, sizeof *c);
    vae_status status = VAE_OK;
    *out = NULL;
    if (c == NULL || (c->run = calloc(n, sizeof *c->run)) == NULL) {
        TRY(vae_fail_memory(err, n * sizeof *c->run, "runs"));
    }
    c->n = n;
    for (size_t i = 0; i < n; i++) {
        TRY(read_run(&c->run[i], runs[i], err));
    }
    name_runs(c, runs);
    find_terms(c);
    TRY(find_differences(c, err));
    *out = c;
    c = NULL;
done:
    vae_comparison_close(c);
    return status;
}

void vae_comparison_close(vae_comparison *c)
{
    if (c == NULL) {
        return;
    }
    for (size_t i = 0; i < c->n; i++) {
        vae_checkpoint_free(c->run[i].checkpoint);
        report_metrics_clear(&c->run[i].metrics);
        json_decref(c->run[i].run);
        free(c->run[i].picture);
    }
    free(c->run);
    free(c->differs);
    free(c);
}

/* ---- figures ---- */

static const char *status_of(const entry *e)
{
    const char *word = json_string_value(json_object_get(e->run, "status"));
    return word != NULL ? word : "unknown";
}

/* Training rows a second, over all of the training. */
static double rate_of(const entry *e)
{
    const double rows = json_number_value(report_member(e->run, "data.train"));
    const vae_train_state *s = &e->checkpoint->state;
    return s->wall_s > 0 && rows > 0 ? rows * (double)s->epoch / s->wall_s : NAN;
}

enum { FIGURES = 7 };
static const char *const figure_names[FIGURES] = {
    "elbo", "recon", "kl", "epochs done", "parameters", "time", "examples_per_s"};

static const char *const figure_keys[FIGURES] = {
    "elbo", "recon", "kl", "epoch", "parameters", "wall_s", "examples_per_s"};

static double figure(const vae_comparison *c, size_t i, size_t f)
{
    const entry *e = &c->run[i];
    switch (f) {
    case 0:
        return last_of(c, i, c->split, REPORT_ELBO);
    case 1:
        return last_of(c, i, c->split, REPORT_RECON);
    case 2:
        return last_of(c, i, c->split, REPORT_KL);
    case 3:
        return (double)e->checkpoint->state.epoch;
    case 4:
        return (double)e->checkpoint->n_params;
    case 5:
        return e->checkpoint->state.wall_s;
    default:
        return rate_of(e);
    }
}

/* As people read it; "-" where it is not known. */
static const char *figure_text(const vae_comparison *c, size_t i, size_t f, char text[32])
{
    const double value = figure(c, i, f);
    if (!isfinite(value)) {
        return strcpy(text, "-");
    }
    if (f < 3) {
        snprintf(text, 32, "%.2f", value);
        return text;
    }
    return f == 5 ? report_duration(text, value) : vae_thousands(text, value);
}

/* A run's value of an option; `none` where it is empty. */
static const char *option_text(const vae_comparison *c, size_t run, size_t option, const char *none,
                               char text[VAE_PATH])
{
    size_t n;
    vae_config_get(&c->run[run].checkpoint->config, vae_config_options(&n)[option].name, text,
                   VAE_PATH);
    return text[0] != '\0' ? text : none;
}

/* The run of the highest ELBO; n: they cannot be compared. */
static size_t best_of(const vae_comparison *c)
{
    size_t best = c->n;
    for (size_t i = 0; c->same_terms && i < c->n; i++) {
        const double value = figure(c, i, 0);
        best = isfinite(value) && (best == c->n || value > figure(c, best, 0)) ? i : best;
    }
    return best;
}

static const char *why_not(const vae_comparison *c)
{
    return !c->same_data ? "They were trained on different rows: their ELBOs cannot be compared."
                         : "Their ELBOs cannot be compared: likelihoods of different kinds, or x "
                           "taken in other ways.";
}

/* ---- text and JSON ---- */

void vae_comparison_print(const vae_comparison *c, FILE *out)
{
    size_t wide = 3, n;
    char text[VAE_PATH], head[64];
    const vae_option *options = vae_config_options(&n);
    const size_t best = best_of(c);
    for (size_t i = 0; i < c->n; i++) {
        const size_t length = strlen(c->run[i].name);
        wide = length > wide ? length : wide;
    }
    for (size_t i = 0; i <= c->n; i++) { /* line 0: the head */
        const entry *e = i > 0 ? &c->run[i - 1] : NULL;
        fprintf(out, "%-*s", (int)wide, e != NULL ? e->name : "run");
        for (size_t o = 0; o < c->n_options; o++) {
            if (c->differs[o]) {
                const int column =
                    10 > (int)strlen(options[o].name) ? 10 : (int)strlen(options[o].name);
                fprintf(out, "  %*s", column,
                        e == NULL ? options[o].name : option_text(c, i - 1, o, "-", text));
            }
        }
        for (size_t f = 0; f < FIGURES; f++) {
            snprintf(head, sizeof head, f < 3 ? "%s %s" : "%.0s%s",
                     f < 3 ? split_names[c->split] : "", figure_names[f]);
            fprintf(out, "  %*s", (int)(strlen(head) > 9 ? strlen(head) : 9),
                    e == NULL ? head : figure_text(c, i - 1, f, text));
        }
        fprintf(out, "  %s%s\n", e == NULL ? "status" : status_of(e),
                e != NULL && i - 1 == best ? " (best)" : "");
    }
    if (!c->same_terms) {
        fprintf(out, "%s\n", why_not(c));
    }
}

json_t *vae_comparison_json(const vae_comparison *c)
{
    size_t n;
    const vae_option *options = vae_config_options(&n);
    json_t *runs = json_array();
    for (size_t i = 0; i < c->n; i++) {
        const entry *e = &c->run[i];
        json_t *differing = json_object();
        for (size_t o = 0; o < c->n_options; o++) {
            char text[VAE_PATH];
            if (c->differs[o]) {
                json_object_set_new(differing, options[o].name,
                                    json_string(option_text(c, i, o, "", text)));
            }
        }
        json_t *run = json_pack("{s:s, s:s, s:o}", "run", e->name, "status", status_of(e),
                                "options", differing);
        for (size_t f = 0; f < FIGURES; f++) {
            const double value = figure(c, i, f);
            json_object_set_new(run, figure_keys[f],
                                !isfinite(value)   ? json_null()
                                : f == 3 || f == 4 ? json_integer((json_int_t)value)
                                                   : json_real(value));
        }
        json_array_append_new(runs, run);
    }
    const size_t best = best_of(c);
    return json_pack("{s:i, s:s, s:b, s:s?, s:o}", "schema", 1, "split", split_names[c->split],
                     "comparable", c->same_terms, "best", best < c->n ? c->run[best].name : NULL,
                     "runs", runs);
}

/* ---- the page ---- */

static void put_cell(vae_text *page, const char *text)
{
    vae_text_add(page, "<td>");
    vae_text_escaped(page, text);
    vae_text_add(page, "</td>");
}

static void put_table(const vae_comparison *c, vae_text *page)
{
    size_t n;
    const vae_option *options = vae_config_options(&n);
    const size_t best = best_of(c);
    vae_text_add(page,
                 "<section id=\"figures\"><h2>Options that differ, and figures</h2>\n"
                 "<div class=\"card scroll\"><table class=\"runs\">\n<thead><tr><th>run</th>");
    for (size_t o = 0; o < c->n_options; o++) {
        if (c->differs[o]) {
            vae_text_add(page, "<th>%s</th>", options[o].name);
        }
    }
    for (size_t f = 0; f < FIGURES; f++) {
        vae_text_add(page, f < 3 ? "<th>%s<br>%s, nats</th>" : "<th>%s%.0s</th>", figure_names[f],
                     split_names[c->split]);
    }
    vae_text_add(page, "<th>status</th></tr></thead>\n<tbody>\n");
    for (size_t i = 0; i < c->n; i++) {
        char text[VAE_PATH];
        vae_text_add(page, "<tr%s><th scope=\"row\">", i == best ? " class=\"set\"" : "");
        vae_text_escaped(page, c->run[i].name);
        vae_text_add(page, "</th>");
        for (size_t o = 0; o < c->n_options; o++) {
            if (c->differs[o]) {
                put_cell(page, option_text(c, i, o, "–", text));
            }
        }
        for (size_t f = 0; f < FIGURES; f++) {
            put_cell(page, figure_text(c, i, f, text));
        }
        put_cell(page, status_of(&c->run[i]));
        vae_text_add(page, "</tr>\n");
    }
    vae_text_add(page, "</tbody></table></div>\n");
    if (c->same_terms) {
        vae_text_add(page, "<p class=\"fine\">In bold: the highest ELBO.</p>\n");
    } else {
        vae_text_add(page, "<p class=\"note\">%s</p>\n", why_not(c));
    }
    vae_text_add(page, "</section>\n");
}

static vae_status put_chart(const vae_comparison *c, vae_text *page, plot_axes axes, size_t split,
                            size_t x, size_t y, vae_error *err)
{
    plot_series *series = calloc(c->n, sizeof *series);
    size_t n = 0;
    if (series == NULL) {
        return vae_fail_memory(err, c->n * sizeof *series, "a chart");
    }
    for (size_t i = 0; i < c->n; i++) {
        const report_metrics *m = &c->run[i].metrics;
        if (m->n[split] > 0) {
            series[n] = (plot_series){.name = c->run[i].name,
                                      .x = m->column[split][x],
                                      .y = m->column[split][y],
                                      .n = m->n[split]};
            n++;
        }
    }
    if (n > 0) {
        vae_text_add(page, "<div class=\"card chart\">");
        plot_lines(page, axes, series, n);
        vae_text_add(page, "</div>\n");
    }
    free(series);
    return VAE_OK;
}

static vae_status put_charts(const vae_comparison *c, vae_text *page, vae_error *err)
{
    char title[4][64];
    static const char *const what[] = {"ELBO", "Reconstruction", "KL", "ELBO by time"};
    const size_t s = c->split;
    vae_status status = VAE_OK;
    for (size_t i = 0; i < 4; i++) {
        snprintf(title[i], sizeof title[i], "%s, %s", what[i], split_names[s]);
    }
    vae_text_add(page, "<section id=\"curves\"><h2>Curves</h2>\n<div class=\"cards charts\">\n");
    TRY(put_chart(c, page, (plot_axes){title[0], "epoch", "nats", false, false}, s, REPORT_EPOCH,
                  REPORT_ELBO, err));
    TRY(put_chart(c, page, (plot_axes){title[3], "seconds of training", "nats", false, false}, s,
                  REPORT_WALL, REPORT_ELBO, err));
    TRY(put_chart(c, page, (plot_axes){title[1], "epoch", "nats", false, false}, s, REPORT_EPOCH,
                  REPORT_RECON, err));
    TRY(put_chart(c, page, (plot_axes){title[2], "epoch", "nats", false, false}, s, REPORT_EPOCH,
                  REPORT_KL, err));
    TRY(put_chart(c, page,
                  (plot_axes){"Rate and distortion", "rate: KL, nats",
                              "distortion: reconstruction, nats", false, false},
                  s, REPORT_KL, REPORT_RECON, err));
    TRY(put_chart(c, page,
                  (plot_axes){"Speed", "epoch", "training examples a second", false, false},
                  REPORT_TRAIN, REPORT_EPOCH, REPORT_RATE, err));
    vae_text_add(page, "</div></section>\n");
done:
    return status;
}

static void put_pictures(const vae_comparison *c, vae_text *page)
{
    size_t n;
    const vae_option *options = vae_config_options(&n);
    bool any = false;
    for (size_t i = 0; i < c->n; i++) {
        any = any || c->run[i].picture != NULL;
    }
    if (!any) {
        return;
    }
    vae_text_add(page, "<section id=\"pictures\"><h2>Samples from the prior</h2>\n"
                       "<div class=\"cards\">\n");
    for (size_t i = 0; i < c->n; i++) {
        const entry *e = &c->run[i];
        if (e->picture != NULL) {
            vae_text_add(page, "<figure class=\"card\"><img alt=\"samples\" "
                               "src=\"data:image/png;base64,");
            report_base64(page, e->picture, e->n_picture);
            vae_text_add(page, "\"><figcaption>");
            vae_text_escaped(page, e->name);
            for (size_t o = 0; o < c->n_options; o++) {
                char text[VAE_PATH];
                if (c->differs[o]) {
                    vae_text_add(page, " · %s ", options[o].name);
                    vae_text_escaped(page, option_text(c, i, o, "–", text));
                }
            }
            vae_text_add(page, "</figcaption></figure>\n");
        }
    }
    vae_text_add(page, "</div></section>\n");
}

vae_status vae_comparison_write(const vae_comparison *c, const char *path, vae_error *err)
{
    vae_text page = {0};
    char heading[64];
    vae_status status = VAE_OK;
    snprintf(heading, sizeof heading, "%zu runs", c->n);
    report_head(&page, "Comparison – vae", "Variational autoencoders side by side", heading);
    vae_text_add(&page, "<p class=\"sub\">");
    for (size_t i = 0; i < c->n; i++) {
        vae_text_add(&page, "%s", i > 0 ? " · " : "");
        vae_text_escaped(&page, c->run[i].name);
    }
    vae_text_add(&page, "</p>\n</header>\n<main>\n");
    put_table(c, &page);
    TRY(put_charts(c, &page, err));
    put_pictures(c, &page);
    vae_text_add(&page,
                 "</main>\n<footer class=\"fine\"><p>vae %s</p></footer>\n</body>\n</html>\n",
                 vae_build_version);
    TRY(vae_text_write(&page, path, err));
done:
    vae_text_clear(&page);
    return status;
}
