/* vae score: how abnormal each row of a data set is under a trained model. What the scores mean is
 * in score.h. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "cli/score.h"
#include "image/image.h"
#include "train/rows.h"

enum { N_TOP = 3 };

/* ---- options ---- */

static vae_status read_score(const char *name, vae_score_kind *score, vae_error *err)
{
    vae_nearest nearest = {.word = name};
    char text[64];
    *score = VAE_NEG_ELBO;
    if (name == NULL) {
        return VAE_OK;
    }
    for (int k = 0; k < VAE_SCORES; k++) {
        if (strcmp(name, vae_score_name((vae_score_kind)k)) == 0) {
            *score = (vae_score_kind)k;
            return VAE_OK;
        }
        vae_nearest_offer(&nearest, vae_score_name((vae_score_kind)k));
    }
    return vae_fail(err, VAE_ERR_USAGE,
                    "--score: expected recon_error, recon_prob, neg_elbo or nll, found '%s'%s",
                    name, cli_meant(text, &nearest, ""));
}

static bool has_ending(const char *path, const char *a, const char *b)
{
    const size_t n = strlen(path);
    return (n > strlen(a) && strcmp(path + n - strlen(a), a) == 0) ||
           (n > strlen(b) && strcmp(path + n - strlen(b), b) == 0);
}

static vae_status check_file(const char *option, const char *path, const char *a, const char *b,
                             vae_error *err)
{
    if (path == NULL || has_ending(path, a, b)) {
        return VAE_OK;
    }
    return strcmp(a, b) == 0
               ? vae_fail(err, VAE_ERR_USAGE, "--%s: expected a name that ends in %s, found '%s'",
                          option, a, path)
               : vae_fail(err, VAE_ERR_USAGE,
                          "--%s: expected a name that ends in %s or %s, found '%s'", option, a, b,
                          path);
}

static vae_status check_files(const cli_scoring *s, vae_error *err)
{
    const bool to_stdout = s->out != NULL && strcmp(s->out, "-") == 0;
    vae_status status = VAE_OK;
    if (!to_stdout) {
        TRY(check_file("out", s->out, ".csv", ".npz", err));
    }
    TRY(cli_check_out(s->args, s->out, err));
    TRY(check_file("contributions", s->contributions, ".npy", ".npz", err));
    TRY(check_file("heatmap", s->heatmap, ".png", ".png", err));
    TRY(check_file("histogram", s->histogram, ".svg", ".svg", err));
    /* the other endings keep the others apart */
    if (s->out != NULL && s->contributions != NULL && strcmp(s->out, s->contributions) == 0) {
        TRY(vae_fail(err, VAE_ERR_USAGE, "--out and --contributions are one file: %s", s->out));
    }
done:
    return status;
}

static vae_status read_threshold(cli_scoring *s, vae_error *err)
{
    static const char *const in_vain[] = {"contamination", "reference", NULL};
    double threshold;
    vae_status status = VAE_OK;
    s->threshold_given = cli_given(s->args, "threshold");
    if (s->threshold_given) {
        TRY(cli_refuse(s->args, in_vain, "with --threshold", err));
    }
    TRY(cli_real(s->args, "threshold", 0, -1e30, 1e30, &threshold, err));
    s->threshold = (float)threshold; /* scores are floats, too: printed, they compare as here */
    TRY(cli_real(s->args, "contamination", 0.05, 0, 1, &s->contamination, err));
    if (s->contamination <= 0 || s->contamination >= 1) {
        TRY(vae_fail(err, VAE_ERR_USAGE,
                     "--contamination: expected a fraction between 0 and 1, found '%s'",
                     cli_value(s->args, "contamination")));
    }
    TRY(cli_size(s->args, "reference", 10000, 0, SIZE_MAX / 2, &s->reference, err));
done:
    return status;
}

static vae_status read_options(cli_scoring *s, vae_error *err)
{
    vae_status status = VAE_OK;
    s->out = cli_value(s->args, "out");
    s->contributions = cli_value(s->args, "contributions");
    s->heatmap = cli_value(s->args, "heatmap");
    s->histogram = cli_value(s->args, "histogram");
    TRY(read_score(cli_value(s->args, "score"), &s->by, err));
    TRY(cli_size(s->args, "samples", 32, 1, 4000000, &s->samples, err));
    TRY(read_threshold(s, err));
    s->anomaly = cli_value(s->args, "anomaly-class");
    TRY(check_files(s, err));
done:
    return status;
}

/* ---- data ---- */

/* chosen: (classes.n) which of the set's classes are abnormal. */
static vae_status choose_classes(bool *chosen, const cli_scoring *s, const char *names,
                                 vae_error *err)
{
    const vae_dataset *set = s->m.set;
    char text[VAE_CLASSES_TEXT];
    const char *unknown;
    if (vae_class_choose(chosen, &set->classes, names, &unknown) || s->anomaly == NULL) {
        return VAE_OK; /* these data need not have what was left out of training */
    }
    return vae_fail(err, VAE_ERR_DATA,
                    "--anomaly-class: expected classes that %s or the model has, %s; found '%.40s'",
                    set->source, vae_classes_text(text, &set->classes), unknown);
}

/* Which rows are positive; the excluded classes are, if none is named and they are there. */
static vae_status find_positives(cli_scoring *s, vae_error *err)
{
    const vae_dataset *set = s->m.set;
    const char *names = s->anomaly != NULL ? s->anomaly : s->m.config.exclude_class;
    size_t positives = 0;
    bool *chosen = NULL;
    vae_status status = VAE_OK;
    if (s->anomaly == NULL && (names[0] == '\0' || set->labels == NULL)) {
        return VAE_OK;
    }
    if (set->labels == NULL) {
        TRY(vae_fail(err, VAE_ERR_USAGE, "--anomaly-class has no effect: %s has no labels",
                     set->source));
    }
    chosen = calloc(set->classes.n, sizeof *chosen);
    s->positive = calloc(set->n, sizeof *s->positive);
    s->of_no_class = calloc(set->n, sizeof *s->of_no_class);
    if (chosen == NULL || s->positive == NULL || s->of_no_class == NULL) {
        TRY(vae_fail_memory(err, 2 * set->n * sizeof *s->positive, "labels"));
    }
    TRY(choose_classes(chosen, s, names, err));
    for (size_t i = 0; i < set->n; i++) {
        s->of_no_class[i] = set->labels[i] == VAE_NO_LABEL;
        s->positive[i] = !s->of_no_class[i] && chosen[set->labels[i]];
        s->n_of_no_class += s->of_no_class[i];
        positives += s->positive[i];
    }
    if (positives == 0 || positives + s->n_of_no_class == set->n) {
        free(s->positive);
        s->positive = NULL;
        if (s->anomaly != NULL) {
            TRY(vae_fail(err, VAE_ERR_DATA,
                         "--anomaly-class %s: expected rows with and without that label, found %zu "
                         "with it of %zu in %s",
                         names, positives, set->n - s->n_of_no_class, set->source));
        }
        const size_t n = set->n - s->n_of_no_class;
        cli_say(s->args, "no AUROC: of %zu row%s, %zu %s of the class left out of training", n,
                vae_s(n), positives, positives == 1 ? "is" : "are");
    }
    s->anomaly = names;
done:
    free(chosen);
    return status;
}

static bool is_training_set(const cli_scoring *s, const vae_dataset *set)
{
    return memcmp(s->m.checkpoint->data_sha256, set->sha256, sizeof set->sha256) == 0;
}

static vae_status no_training_data(vae_error *err, vae_status status, const char *why)
{
    return vae_fail(err, status,
                    "%s; the threshold is a quantile of the training rows' scores: where they are "
                    "not at hand, give --threshold",
                    why);
}

/* The set the model was trained on: the scored one itself, the training split beside it, or what
 * the run names, whichever has the checksum. */
static vae_status open_training_set(cli_scoring *s, const vae_dataset **set, vae_error *err)
{
    const char *names[] = {cli_value(s->args, "data"), s->m.config.data};
    static const uint8_t none[sizeof s->m.checkpoint->data_sha256] = {0};
    const vae_checkpoint *c = s->m.checkpoint;
    vae_error why = {0};
    if (names[0] != NULL && strcmp(names[0], "-") == 0) {
        names[0] = NULL;
    }
    *set = s->m.set;
    if (memcmp(c->data_sha256, none, sizeof none) == 0) {
        snprintf(why.text, sizeof why.text, "%s: does not say what it was trained on", s->m.path);
        return no_training_data(err, VAE_ERR_DATA, why.text);
    }
    if (s->m.set->picked == NULL && is_training_set(s, s->m.set)) {
        return VAE_OK;
    }
    for (size_t i = 0; i < 2; i++) {
        if (names[i] == NULL || (i == 1 && names[0] != NULL && strcmp(names[0], names[1]) == 0)) {
            continue;
        }
        why = (vae_error){0};
        const vae_data_options plain = cli_data_options(&s->m.config, s->m.config.limit);
        const vae_data_options options = vae_trained_reading(&s->m, &plain);
        vae_status status =
            vae_dataset_open(&s->train_set, names[i], VAE_SPLIT_TRAIN, &options, &why);
        if (status == VAE_OK && is_training_set(s, s->train_set)) {
            *set = s->train_set;
            status = vae_trained_take_classes(&s->m, s->train_set, err);
            if (status != VAE_OK) {
                return status;
            }
            return c->standard != NULL
                       ? vae_dataset_standardize(s->train_set, c->standard, c->standard + c->d, err)
                       : VAE_OK;
        }
        vae_fail(&why, VAE_ERR_DATA, "%s: not what the model was trained on (by SHA-256)",
                 names[i]);
        vae_dataset_free(s->train_set);
        s->train_set = NULL;
    }
    return no_training_data(err, why.status, why.text);
}

/* Which of its rows set the threshold: those that were trained on, evenly spread. */
static vae_status choose_reference(cli_scoring *s, const vae_dataset *set, vae_error *err)
{
    size_t n, n_validation;
    vae_error inner = {0};
    vae_status status =
        vae_training_rows(&s->reference_rows, &n, &n_validation, &s->m.config, set, &inner);
    if (status != VAE_OK) {
        return no_training_data(err, status, inner.text);
    }
    s->n_reference = s->reference > 0 && s->reference < n ? s->reference : n;
    for (size_t t = 0; t < s->n_reference; t++) {
        /* t*n/N without a product that overflows; never behind t, so in place */
        const size_t N = s->n_reference;
        s->reference_rows[t] = s->reference_rows[t * (n / N) + t * (n % N) / N];
    }
    return VAE_OK;
}

/* ---- passes ---- */

static vae_status pass(cli_scoring *s, vae_row_scores *out, vae_score_job *job, const char *what,
                       vae_error *err)
{
    vae_error inner = {0};
    cli_progress_open(&s->progress, s->args->quiet);
    job->watch = cli_watch(&s->progress, what);
    vae_status status = vae_score_rows(out, job, &inner);
    cli_progress_clear(&s->progress);
    if (status == VAE_ERR_DIVERGED) {
        return vae_fail(err, status, "%s on %s: %s", s->m.path, what, inner.text);
    }
    return status == VAE_OK ? VAE_OK : vae_fail(err, status, "%s", inner.text);
}

static vae_status score_reference(cli_scoring *s, const vae_dataset *set, vae_error *err)
{
    const vae_trained *m = &s->m;
    vae_score_job job = s->job;
    vae_row_scores scores = {0};
    vae_status status = VAE_OK;
    job.data = m->be->ops->data_open(m->be, set, s->reference_rows, s->n_reference);
    job.n = s->n_reference;
    job.contributions = false;
    job.top = 0;
    TRY(m->be->ops->sync(m->be, err));
    TRY(pass(s, &scores, &job, "training rows", err));
    s->threshold = (float)vae_quantile(scores.of[s->by], job.n, 1 - s->contamination);
    if (!isfinite(s->threshold)) {
        TRY(vae_fail(err, VAE_ERR_DIVERGED,
                     "%s: %s of %zu of %zu training rows is infinite, and the threshold with "
                     "it: give --threshold",
                     m->path, vae_score_name(s->by), scores.infinite, job.n));
    }
done:
    m->be->ops->data_close(m->be, job.data);
    vae_row_scores_clear(&scores);
    return status;
}

static bool has_pictures(const cli_scoring *s)
{
    const vae_checkpoint *c = s->m.checkpoint;
    return vae_is_picture(c->height, c->width, c->channels);
}

/* Rankings of the rows that have a class. */
static vae_status rank(cli_scoring *s, vae_error *err)
{
    const size_t n = s->scores.n;
    float *score = malloc(n * sizeof *score);
    bool *positive = malloc(n * sizeof *positive);
    vae_status status = VAE_OK;
    if (score == NULL || positive == NULL) {
        TRY(vae_fail_memory(err, n * sizeof *score, "scores"));
    }
    for (int k = 0; k < VAE_SCORES; k++) {
        size_t kept = 0;
        for (size_t i = 0; i < n; i++) {
            if (!s->of_no_class[i]) {
                score[kept] = s->scores.of[k][i];
                positive[kept++] = s->positive[i];
            }
        }
        TRY(vae_rank(&s->ranking[k], score, positive, kept, err));
    }
done:
    free(score);
    free(positive);
    return status;
}

static vae_status flag_rows(cli_scoring *s, vae_error *err)
{
    const float *score = s->scores.of[s->by];
    vae_status status = VAE_OK;
    s->flag = calloc(s->scores.n, sizeof *s->flag);
    if (s->flag == NULL) {
        TRY(vae_fail_memory(err, s->scores.n * sizeof *s->flag, "flags"));
    }
    for (size_t i = 0; i < s->scores.n; i++) {
        s->flag[i] = score[i] > s->threshold;
        s->flagged += s->flag[i];
        s->flagged_positives += s->positive != NULL && s->positive[i] && s->flag[i];
        s->flagged_of_no_class += s->positive != NULL && s->of_no_class[i] && s->flag[i];
    }
    if (s->positive != NULL) {
        TRY(rank(s, err));
    }
done:
    return status;
}

static vae_status run(cli_scoring *s, vae_error *err)
{
    vae_trained *m = &s->m;
    const vae_dataset *train = NULL;
    size_t rows, particles;
    vae_status status = VAE_OK;
    TRY(cli_open_checkpoint(m, s->args, err));
    if (m->config.semi_supervised) {
        TRY(vae_fail(err, VAE_ERR_USAGE,
                     "%s is semi-supervised: its density sums over classes, which no score "
                     "here does; train one without, or with --condition labels",
                     m->path));
    }
    if (s->heatmap != NULL && !has_pictures(s)) {
        TRY(vae_fail(err, VAE_ERR_USAGE, "--heatmap: the model's data are no pictures"));
    }
    TRY(cli_open_set(m, s->args, err));
    TRY(find_positives(s, err));
    if (!s->threshold_given) {
        TRY(open_training_set(s, &train, err));
        TRY(choose_reference(s, train, err));
    }
    s->job = (vae_score_job){
        .on = m,
        .n = m->set->n,
        .samples = s->samples,
        .contributions = s->contributions != NULL,
        .top = !has_pictures(s) && s->out != NULL ? N_TOP : 0,
        .at_mu = s->by == VAE_RECON_ERROR,
    };
    vae_score_shape(&s->job, &rows, &particles);
    TRY(vae_trained_start(m, rows, particles, err));
    if (train != NULL) {
        TRY(score_reference(s, train, err));
    }
    TRY(vae_trained_put(m, NULL, 0, err));
    s->job.data = m->data;
    TRY(pass(s, &s->scores, &s->job, m->split, err));
    TRY(flag_rows(s, err));
done:
    return status;
}

/* ---- the command ---- */

static vae_status run_score(const cli_args *args, vae_error *err)
{
    cli_scoring s = {.args = args};
    vae_status status = VAE_OK;
    TRY(read_options(&s, err));
    TRY(run(&s, err));
    s.m.ranks = NULL; /* what is left is the first's alone */
    if (cli_writes(args)) {
        TRY(cli_score_write(&s, err));
        cli_score_print(&s);
    }
done:
    vae_row_scores_clear(&s.scores);
    free(s.flag);
    free(s.positive);
    free(s.of_no_class);
    free(s.reference_rows);
    vae_trained_close(&s.m);
    vae_dataset_free(s.train_set);
    return status;
}

static const cli_option score_options[] = {
    CLI_DATA_OPTIONS,
    {"out", 'o', "FILE", "scores of each row: .csv or .npz; - is standard output, as CSV"},
    {"score", 0, "recon_error|recon_prob|neg_elbo|nll",
     "the one for threshold, flag and pictures [neg_elbo]"},
    {"samples", 'K', "L", "draws of z a row, of all scores but recon_error [32]"},
    {"contamination", 0, "P", "threshold: the 1-P quantile of the training rows' scores [0.05]"},
    {"reference", 0, "N", "training rows for that, evenly spread; 0 = all [10000]"},
    {"threshold", 0, "T", "flag scores above T; no training rows are needed"},
    {"anomaly-class", 0, "NAME,...", "abnormal classes, for AUROC; default: those left out"},
    {"contributions", 0, "FILE", ".npy or .npz (n,D): each column's part of the score"},
    {"heatmap", 0, "FILE", ".png: most abnormal rows, reconstructions, contributions"},
    {"histogram", 0, "FILE", ".svg: normal and abnormal scores, and the threshold"},
    CLI_MODEL_OPTIONS,
};

const cli_command cli_score_command = {
    .name = "score",
    .words = "RUN",
    .n_words = 1,
    .help =
        "How abnormal each row is: reconstruction error and probability, -ELBO, NLL; flags, AUROC.",
    .examples =
        "  vae score runs/mnist --data new.npy --out scores.csv\n"
        "  vae score runs/mnist --contamination 0.01 --heatmap worst.png --histogram scores.svg\n"
        "  vae train --data data/mnist --exclude-class 3 --out runs/no3\n"
        "  vae score runs/no3 --data data/mnist --anomaly-class 3\n",
    CLI_OPTIONS(score_options),
    .shares = true,
    .run = run_score,
};
