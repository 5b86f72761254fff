/* `vae score` in two halves: options, data and passes (score.c); files and what is printed
 * (score_print.c). */
#ifndef VAE_CLI_SCORE_H
#define VAE_CLI_SCORE_H

#include "cli/cli.h"
#include "cli/progress.h"
#include "eval/score.h"
#include "stats/metrics.h"

/* A command under way. */
typedef struct {
    const cli_args *args;
    vae_trained m;
    cli_progress progress;
    /* options */
    const char *out, *contributions, *heatmap, *histogram;
    vae_score_kind by;
    size_t samples, reference;
    double contamination;
    bool threshold_given;
    const char *anomaly; /* names of the abnormal classes; NULL: none */
    /* the training rows that set the threshold */
    vae_dataset *train_set; /* NULL, or a set to be freed; the scored one may serve, too */
    uint32_t *reference_rows;
    size_t n_reference;
    /* results */
    vae_score_job job;
    vae_row_scores scores;
    float threshold;
    uint8_t *flag;
    bool *positive;    /* NULL without abnormal classes */
    bool *of_no_class; /* the same: rows that are neither normal nor abnormal */
    size_t n_of_no_class;
    size_t flagged, flagged_positives, flagged_of_no_class;
    vae_ranking ranking[VAE_SCORES];
} cli_scoring;

/* The files that were asked for. VAE_ERR_IO, VAE_ERR_RUNTIME, a backend's error (the heatmap). */
vae_status cli_score_write(const cli_scoring *s, vae_error *err);
/* The summary: JSON, or text; one line on stderr where standard output has the scores. */
void cli_score_print(const cli_scoring *s);

#endif
