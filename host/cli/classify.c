/* vae classify, and vae eval of a model that classifies. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/parts.h"
#include "cli/cli.h"
#include "infer/labels.h"
#include "infer/measure.h"
#include "ranks/ranks.h"

static size_t best_of(const float *p, size_t C)
{
    size_t best = 0;
    for (size_t c = 1; c < C; c++) {
        best = p[c] > p[best] ? c : best;
    }
    return best;
}

/* Rows whose class the model knows, and how many of these were missed. */
typedef struct {
    size_t known, missed;
} tally;

/* The head of the probabilities' columns: p0, p1 ... or p_cat, p_dog ... */
static void put_heads(FILE *file, const vae_classes *classes)
{
    const bool numbers = vae_classes_are_numbers(classes);
    for (size_t c = 0; c < classes->n; c++) {
        char head[VAE_CLASS_NAME + 2];
        snprintf(head, sizeof head, "%s%s", numbers ? "p" : "p_", classes->name[c]);
        fputc(',', file);
        vae_text_csv(file, head);
    }
    fputc('\n', file);
}

/* The CSV, and what there is to count. */
static vae_status write_csv(const vae_trained *m, const char *out, const float *probability,
                            tally *counts, vae_error *err)
{
    const vae_dataset *set = m->set;
    const size_t C = m->config.classes;
    char *text = NULL;
    size_t size = 0;
    vae_parts parts = {0};
    FILE *file = open_memstream(&text, &size);
    if (file == NULL) {
        return vae_fail(err, VAE_ERR_RUNTIME, "out of memory for %s", out);
    }
    const vae_classes *classes = &m->checkpoint->classes;
    fprintf(file, "row,%spredicted", set->labels != NULL ? "label," : "");
    put_heads(file, classes);
    for (size_t r = 0; r < set->n; r++) {
        const float *p = probability + r * C;
        const size_t best = best_of(p, C);
        fprintf(file, "%zu,", vae_dataset_number(set, r));
        if (set->labels != NULL) {
            vae_label_csv(file, set, r);
            fputc(',', file);
            counts->known += set->labels[r] < C;
            counts->missed += set->labels[r] < C && best != set->labels[r];
        }
        vae_text_csv(file, classes->name[best]);
        for (size_t c = 0; c < C; c++) {
            fprintf(file, ",%.6g", (double)p[c]);
        }
        fputc('\n', file);
    }
    if (fclose(file) != 0) {
        free(text);
        return vae_fail(err, VAE_ERR_RUNTIME, "out of memory for %s", out);
    }
    vae_parts_own(&parts, text, size);
    return vae_parts_put(&parts, out, err);
}

static void print_result(const cli_args *args, const vae_trained *m, const char *out, tally counts)
{
    const size_t n = m->set->n;
    const bool known = counts.known > 0;
    const double error = known ? (double)counts.missed / (double)counts.known : 0;
    if (!args->json) {
        if (known && counts.known < n) {
            cli_say(args, "%s: %zu row%s of %s, of %zu of a known class %.2f%% misclassified", out,
                    n, vae_s(n), m->set->source, counts.known, 100 * error);
        } else if (known) {
            cli_say(args, "%s: %zu row%s of %s, %.2f%% misclassified", out, n, vae_s(n),
                    m->set->source, 100 * error);
        } else {
            cli_say(args, "%s: %zu row%s of %s", out, n, vae_s(n), m->set->source);
        }
        return;
    }
    json_t *o = json_pack("{s:i, s:s, s:s, s:I, s:o}", "schema", 1, "checkpoint", m->path, "out",
                          out, "n", (json_int_t)n, "error", known ? json_real(error) : json_null());
    cli_print_json(o, 9);
}

static vae_status run_classify(const cli_args *args, vae_error *err)
{
    vae_trained m = {.own = NULL};
    float *probability = NULL;
    tally counts = {0};
    vae_status status = VAE_OK;
    const char *out = cli_value(args, "out");
    out = out != NULL ? out : "labels.csv";
    TRY(cli_open_checkpoint(&m, args, err));
    if (!m.config.semi_supervised) {
        TRY(vae_fail(err, VAE_ERR_USAGE,
                     "%s: no classifier: it was not trained with --semi-supervised", m.path));
    }
    TRY(cli_open_set(&m, args, err));
    TRY(vae_trained_start(&m, VAE_INFER_BATCH, 1, err));
    TRY(vae_trained_put(&m, NULL, 0, err));
    const size_t bytes = m.n * m.config.classes * sizeof *probability;
    probability = malloc(bytes);
    if (probability == NULL) {
        TRY(vae_fail_memory(err, bytes, "probabilities"));
    }
    TRY(vae_trained_classify(&m, NULL, probability, err));
    TRY(write_csv(&m, out, probability, &counts, err));
    print_result(args, &m, out, counts);
done:
    free(probability);
    vae_trained_close(&m);
    return status;
}

static const cli_option classify_options[] = {
    CLI_DATA_OPTIONS,
    {"out", 'o', "FILE", "CSV: row, label if known, predicted, p0 ... or p_NAME ... [labels.csv]"},
    CLI_MODEL_OPTIONS,
};

const cli_command cli_classify_command = {
    .name = "classify",
    .words = "RUN",
    .n_words = 1,
    .help = "Class probabilities q(y|x) of a semi-supervised model, as CSV.",
    .examples = "  vae classify runs/m2 --data data/mnist --out labels.csv\n",
    CLI_OPTIONS(classify_options),
    .run = run_classify,
};

/* ---- eval ---- */

static vae_status check_eval(const cli_args *args, vae_error *err)
{
    static const char *const in_vain[] = {"samples", "aggregate", "gap", "per-example", NULL};
    return cli_refuse(args, in_vain,
                      "here: of a semi-supervised model, eval computes the bound over its classes "
                      "and the classification error",
                      err);
}

static void print_eval(const cli_args *args, const vae_trained *m, const vae_measurement *r,
                       const vae_byte_figures *bytes)
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
        cli_json_bytes(o, bytes);
        cli_print_json(o, 9);
        return;
    }
    cli_print("%s after epoch %llu, on %s (%s, %zu example%s, binarize %s), nats per example",
              m->path, (unsigned long long)m->checkpoint->state.epoch, m->set->source, m->split,
              r->n, vae_s(r->n), binarize);
    printf("elbo          %.4f (summed over %zu classes)\nrecon         %.4f\nkl            %.4f\n",
           r->elbo, m->config.classes, r->recon, r->kl);
    if (r->classified > 0) {
        printf("error         %.2f%% of %zu misclassified\n", 100 * r->error, r->classified);
    }
    cli_print_bytes(bytes, "z = mu of the most probable class");
}

vae_status cli_eval_semi(vae_trained *m, const cli_args *args, vae_error *err)
{
    vae_measurement result;
    vae_byte_figures bytes;
    vae_status status = VAE_OK;
    TRY(check_eval(args, err));
    TRY(cli_binarize(m, args, err));
    TRY(cli_open_set(m, args, err));
    const size_t batch = vae_measure_batch(&m->config, m->n);
    TRY(vae_trained_start(m, vae_ranks_most(m->ranks, batch), 1, err));
    TRY(vae_trained_put(m, NULL, 0, err));
    TRY(vae_measure(&result, m->model, &m->config, m->data, m->n, batch, VAE_EVAL_DRAW(0), NULL,
                    err));
    const vae_plan plan = vae_eval_plan(VAE_EVAL_DRAW(0), 0);
    TRY(vae_bytes_measure(&bytes, m, m->n, &plan, NULL, err));
    bytes.bits = vae_bits_per_dim(result.elbo, bytes.noise, m->checkpoint->d);
    print_eval(args, m, &result, &bytes);
done:
    return status;
}
