/* What `vae score` writes and prints. */
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "cli/score.h"
#include "eval/score_files.h"
#include "plot/plot.h"

enum { HISTOGRAM_BINS = 60 };

/* Scores of the rows that are positive, or of another class, to values; returns how many. */
static size_t pick(double *values, const cli_scoring *s, bool positive)
{
    size_t n = 0;
    for (size_t i = 0; i < s->scores.n; i++) {
        if (s->positive == NULL || (s->positive[i] == positive && !s->of_no_class[i])) {
            values[n++] = (double)s->scores.of[s->by][i];
        }
    }
    return n;
}

static vae_status write_histogram(const cli_scoring *s, vae_error *err)
{
    const size_t n = s->scores.n;
    const double mark = (double)s->threshold;
    const char *mark_name = "threshold";
    char title[96], abnormal[64];
    double *values = malloc(2 * n * sizeof *values);
    vae_text text = {0};
    if (values == NULL) {
        return vae_fail_memory(err, 2 * n * sizeof *values, "a histogram");
    }
    snprintf(title, sizeof title, "%s of %zu row%s", vae_score_name(s->by), n, vae_s(n));
    snprintf(abnormal, sizeof abnormal, "label %.40s", s->anomaly != NULL ? s->anomaly : "");
    plot_series groups[2] = {{.name = s->positive != NULL ? "other labels" : NULL, .x = values},
                             {.name = abnormal, .x = values + n}};
    groups[0].n = pick(values, s, false);
    groups[1].n = s->positive != NULL ? pick(values + n, s, true) : 0;
    plot_histogram(&text, (plot_axes){.title = title, .x = "nats", .y = "rows"}, groups,
                   s->positive != NULL ? 2 : 1, HISTOGRAM_BINS, &mark, &mark_name, 1);
    vae_status status = vae_text_write(&text, s->histogram, err);
    vae_text_clear(&text);
    free(values);
    return status;
}

vae_status cli_score_write(const cli_scoring *s, vae_error *err)
{
    const vae_score_table table = {.scores = &s->scores,
                                   .set = s->m.set,
                                   .flag = s->flag,
                                   .by = s->by,
                                   .threshold = s->threshold,
                                   .column_names = (const char *const *)s->m.set->column_names};
    vae_status status = VAE_OK;
    if (s->contributions != NULL) {
        TRY(vae_contributions_write(&table, s->contributions, err));
    }
    if (s->heatmap != NULL) {
        TRY(vae_heatmap_write(&table, &s->job, s->heatmap, err));
    }
    if (s->histogram != NULL) {
        TRY(write_histogram(s, err));
    }
    if (s->out != NULL) {
        TRY(vae_scores_write(&table, s->out, err));
    }
done:
    return status;
}

/* Rows of a class that is not abnormal. */
static size_t others_of(const cli_scoring *s)
{
    return s->scores.n - s->ranking[0].positives - s->n_of_no_class;
}

static size_t flagged_others(const cli_scoring *s)
{
    return s->flagged - s->flagged_positives - s->flagged_of_no_class;
}

static json_t *metrics(const cli_scoring *s)
{
    if (s->positive == NULL) {
        return json_null();
    }
    const size_t positives = s->ranking[0].positives, negatives = others_of(s);
    int64_t number;
    json_t *name = vae_class_number(s->anomaly, &number) ? json_integer((json_int_t)number)
                                                         : json_string(s->anomaly);
    json_t *o =
        json_pack("{s:o, s:I, s:f, s:f}", "anomaly_class", name, "positives", (json_int_t)positives,
                  "flagged_of_positives", (double)s->flagged_positives / (double)positives,
                  "flagged_of_others", (double)flagged_others(s) / (double)negatives);
    if (s->n_of_no_class > 0) {
        json_object_set_new(o, "of_no_class", json_integer((json_int_t)s->n_of_no_class));
    }
    for (int k = 0; k < VAE_SCORES; k++) {
        const vae_ranking *r = &s->ranking[k];
        json_object_set_new(o, vae_score_name((vae_score_kind)k),
                            json_pack("{s:f, s:f, s:f}", "auroc", r->auroc, "auprc", r->auprc,
                                      "precision_at_n", r->precision_at_n));
    }
    return o;
}

static void print_json(const cli_scoring *s)
{
    const vae_trained *m = &s->m;
    json_t *o = json_pack(
        "{s:i, s:s, s:I, s:s, s:s, s:I, s:I, s:s, s:f, s:o, s:o, s:I, s:I, s:o, s:o, s:o, s:o, "
        "s:o}",
        "schema", 1, "checkpoint", m->path, "epoch", (json_int_t)m->checkpoint->state.epoch, "data",
        m->set->source, "split", m->split, "n", (json_int_t)s->scores.n, "samples",
        (json_int_t)s->samples, "score", vae_score_name(s->by), "threshold", (double)s->threshold,
        "contamination", s->threshold_given ? json_null() : json_real(s->contamination),
        "reference_n", s->threshold_given ? json_null() : json_integer((json_int_t)s->n_reference),
        "flagged", (json_int_t)s->flagged, "infinite", (json_int_t)s->scores.infinite, "metrics",
        metrics(s), "out", cli_json_text(s->out), "contributions", cli_json_text(s->contributions),
        "heatmap", cli_json_text(s->heatmap), "histogram", cli_json_text(s->histogram));
    cli_print_json(o, 9);
}

static void print_text(const cli_scoring *s)
{
    const vae_trained *m = &s->m;
    const size_t n = s->scores.n;
    cli_print("%s after epoch %" PRIu64 ", on %s (%s, %zu row%s, %zu draw%s of z each), nats",
              m->path, m->checkpoint->state.epoch, m->set->source, m->split, n, vae_s(n),
              s->samples, vae_s(s->samples));
    printf("threshold  %.6g of %s", (double)s->threshold, vae_score_name(s->by));
    if (!s->threshold_given) {
        printf(": the %.6g quantile of %zu training row%s", 1 - s->contamination, s->n_reference,
               vae_s(s->n_reference));
    }
    printf("\nabove it   %zu row%s (%.2f%%)\n", s->flagged, vae_s(s->flagged),
           100.0 * (double)s->flagged / (double)n);
    if (s->scores.infinite > 0) {
        printf("infinite   %zu row%s, too far out for the model to compute\n", s->scores.infinite,
               vae_s(s->scores.infinite));
    }
    if (s->positive == NULL) {
        return;
    }
    const size_t positives = s->ranking[0].positives;
    printf("label %s    %zu row%s, %.2f%% above the threshold; others %.2f%%\n", s->anomaly,
           positives, vae_s(positives), 100.0 * (double)s->flagged_positives / (double)positives,
           100.0 * (double)flagged_others(s) / (double)others_of(s));
    if (s->n_of_no_class > 0) {
        printf("no label   %zu row%s, %.2f%% above the threshold, not counted below\n",
               s->n_of_no_class, vae_s(s->n_of_no_class),
               100.0 * (double)s->flagged_of_no_class / (double)s->n_of_no_class);
    }
    puts("");
    printf("score         AUROC   AUPRC   precision at %zu\n", positives);
    for (int k = 0; k < VAE_SCORES; k++) {
        const vae_ranking *r = &s->ranking[k];
        printf("%-12s  %.4f  %.4f  %.4f\n", vae_score_name((vae_score_kind)k), r->auroc, r->auprc,
               r->precision_at_n);
    }
}

void cli_score_print(const cli_scoring *s)
{
    if (s->args->json) {
        print_json(s);
    } else if (s->out == NULL || strcmp(s->out, "-") != 0) {
        print_text(s);
    } else {
        cli_say(s->args, "%zu of %zu rows %s above the threshold, %.6g of %s", s->flagged,
                s->scores.n, s->flagged == 1 ? "is" : "are", (double)s->threshold,
                vae_score_name(s->by));
    }
}
