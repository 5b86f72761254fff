/* vae classify, and vae eval of a model that classifies. */
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/file.h"
#include "cli/cli.h"
#include "train/trainer.h"

enum { BATCH = 256 };

/* q(y|x) of all rows: (n,C). */
static vae_status run_classifier(const cli_model *m, float *probability, vae_error *err)
{
    const size_t n = m->set->n, C = m->config.classes;
    vae_status status = VAE_OK;
    for (size_t at = 0; at < n && status == VAE_OK; at += BATCH) {
        const vae_plan plan = vae_eval_plan(0, at);
        const size_t rows = n - at < BATCH ? n - at : BATCH;
        status = vae_model_classify(m->model, m->data, &plan, rows, probability + at * C, err);
    }
    return status;
}

static size_t best_of(const float *p, size_t C)
{
    size_t best = 0;
    for (size_t c = 1; c < C; c++) {
        best = p[c] > p[best] ? c : best;
    }
    return best;
}

/* The CSV, and how many known labels were missed. */
static vae_status write_csv(const cli_model *m, const char *out, const float *probability,
                            size_t *errors, vae_error *err)
{
    const vae_dataset *set = m->set;
    const size_t C = m->config.classes;
    char *text = NULL;
    size_t size = 0;
    FILE *file = open_memstream(&text, &size);
    if (file == NULL) {
        return vae_fail(err, VAE_ERR_RUNTIME, "out of memory for %s", out);
    }
    *errors = 0;
    fprintf(file, "row,%spredicted", set->labels != NULL ? "label," : "");
    for (size_t c = 0; c < C; c++) {
        fprintf(file, ",p%zu", c);
    }
    fputc('\n', file);
    for (size_t r = 0; r < set->n; r++) {
        const float *p = probability + r * C;
        const size_t best = best_of(p, C);
        fprintf(file, "%zu,", r);
        if (set->labels != NULL) {
            fprintf(file, "%u,", (unsigned)set->labels[r]);
            *errors += best != set->labels[r];
        }
        fprintf(file, "%zu", best);
        for (size_t c = 0; c < C; c++) {
            fprintf(file, ",%.6g", (double)p[c]);
        }
        fputc('\n', file);
    }
    if (fclose(file) != 0) {
        free(text);
        return vae_fail(err, VAE_ERR_RUNTIME, "out of memory for %s", out);
    }
    const struct iovec part = {text, size};
    vae_status status = vae_file_put(out, &part, 1, err);
    free(text);
    return status;
}

static void print_result(const cli_args *args, const cli_model *m, const char *out, size_t errors)
{
    const size_t n = m->set->n;
    const bool known = m->set->labels != NULL;
    const double error = (double)errors / (double)n;
    if (!args->json) {
        if (known) {
            cli_say(args, "%s: %zu rows of %s, %.2f%% misclassified", out, n, m->set->source,
                    100 * error);
        } else {
            cli_say(args, "%s: %zu rows of %s", out, n, m->set->source);
        }
        return;
    }
    json_t *o = json_pack("{s:i, s:s, s:s, s:I, s:o}", "schema", 1, "checkpoint", m->path, "out",
                          out, "n", (json_int_t)n, "error", known ? json_real(error) : json_null());
    json_dumpf(o, stdout, JSON_INDENT(2) | JSON_REAL_PRECISION(9));
    putchar('\n');
    json_decref(o);
}

vae_status cli_classify(const cli_args *args, vae_error *err)
{
    cli_model m = {0};
    float *probability = NULL;
    size_t errors = 0;
    const char *out = cli_value(args, "out");
    out = out != NULL ? out : "labels.csv";
    vae_status status = cli_open_checkpoint(&m, args, false, err);
    if (status == VAE_OK && !m.config.semi_supervised) {
        status = vae_fail(err, VAE_ERR_USAGE,
                          "%s: no classifier: it was not trained with --semi-supervised", m.path);
    }
    if (status == VAE_OK && (status = cli_open_set(&m, args, err)) == VAE_OK &&
        (status = cli_open_model(&m, BATCH, 1, err)) == VAE_OK &&
        (status = cli_open_data(&m, err)) == VAE_OK) {
        probability = malloc(m.set->n * m.config.classes * sizeof *probability);
        status = probability != NULL
                     ? run_classifier(&m, probability, err)
                     : vae_fail_memory(err, m.set->n * m.config.classes * sizeof *probability,
                                       "probabilities");
    }
    if (status == VAE_OK && (status = write_csv(&m, out, probability, &errors, err)) == VAE_OK) {
        print_result(args, &m, out, errors);
    }
    free(probability);
    cli_close(&m);
    return status;
}

/* ---- eval ---- */

static vae_status check_eval(const cli_args *args, vae_error *err)
{
    static const char *const names[] = {"samples", "aggregate", "gap", "per-example"};
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) {
        if (cli_value(args, names[i]) != NULL) {
            return vae_fail(
                err, VAE_ERR_USAGE,
                "--%s has no effect here: of a semi-supervised model, eval computes the "
                "bound over its classes and the classification error",
                names[i]);
        }
    }
    return VAE_OK;
}

static void print_eval(const cli_args *args, const cli_model *m, const vae_measurement *r)
{
    char binarize[32];
    vae_config_get(&m->config, "binarize", binarize, sizeof binarize);
    if (args->json) {
        json_t *o =
            json_pack("{s:i, s:s, s:I, s:s, s:s, s:I, s:s, s:f, s:f, s:f, s:o}", "schema", 1,
                      "checkpoint", m->path, "epoch", (json_int_t)m->checkpoint->state.epoch,
                      "data", m->set->source, "split", m->split, "n", (json_int_t)r->n, "binarize",
                      binarize, "elbo", r->elbo, "recon", r->recon, "kl", r->kl, "error",
                      r->classified > 0 ? json_real(r->error) : json_null());
        json_dumpf(o, stdout, JSON_INDENT(2) | JSON_REAL_PRECISION(9));
        putchar('\n');
        json_decref(o);
        return;
    }
    printf("%s after epoch %llu, on %s (%s, %zu examples, binarize %s), nats per example\n",
           m->path, (unsigned long long)m->checkpoint->state.epoch, m->set->source, m->split, r->n,
           binarize);
    printf("elbo          %.4f (summed over %zu classes)\nrecon         %.4f\nkl            %.4f\n",
           r->elbo, m->config.classes, r->recon, r->kl);
    if (r->classified > 0) {
        printf("error         %.2f%% of %zu misclassified\n", 100 * r->error, r->classified);
    }
}

vae_status cli_eval_semi(cli_model *m, const cli_args *args, vae_error *err)
{
    const char *mode = cli_value(args, "binarize");
    vae_measurement result;
    vae_status status = check_eval(args, err);
    if (status == VAE_OK && mode != NULL &&
        (status = vae_config_set(&m->config, "binarize", mode, err)) == VAE_OK) {
        status = vae_config_check(&m->config, 0, err);
    }
    if (status == VAE_OK && (status = cli_open_set(m, args, err)) == VAE_OK &&
        (status = cli_open_model(m, vae_measure_batch(&m->config), 1, err)) == VAE_OK &&
        (status = cli_open_data(m, err)) == VAE_OK &&
        (status = vae_measure(&result, m->model, &m->config, m->data, m->set->n, VAE_EVAL_DRAW(0),
                              NULL, err)) == VAE_OK) {
        print_eval(args, m, &result);
    }
    return status;
}
