/* vae eval: how good a trained model is. What the figures mean is in eval.h; ELBO, recon and KL
 * come from the noise of training's own measuring passes, so that they agree with metrics.jsonl. */
#include <jansson.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "cli.h"
#include "cli_progress.h"
#include "eval.h"
#include "npz.h"
#include "trainer.h"

/* One split's figures, and what is shown meanwhile. */
typedef struct {
    cli_model *model;
    const cli_args *args;
    vae_eval_job job;
    const char *split;
    char source[512], binarize[32];
    cli_progress progress;
    vae_evaluation e;
} evaluation;

static vae_status run_batch(void *ctx, const vae_plan *plan, size_t rows, size_t particles,
                            vae_batch_out *out, vae_error *err)
{
    const evaluation *ev = ctx;
    return vae_model_batch(ev->model->model, ev->model->data, plan, rows, particles, out, err);
}

static void show(void *ctx, double fraction)
{
    evaluation *ev = ctx;
    cli_progress_part(&ev->progress, ev->split, fraction, ev->job.n);
}

static vae_status evaluate(evaluation *ev, vae_error *err)
{
    const cli_model *m = ev->model;
    vae_error inner = {0};
    ev->split = m->split;
    snprintf(ev->source, sizeof ev->source, "%s", m->set->source);
    vae_config_get(&m->config, "binarize", ev->binarize, sizeof ev->binarize);
    ev->job.batch = run_batch;
    ev->job.progress = show;
    ev->job.ctx = ev;
    ev->job.n = m->set->n;
    cli_progress_open(&ev->progress, ev->args->quiet);
    vae_status status = vae_evaluate(&ev->e, &ev->job, &inner);
    cli_progress_clear(&ev->progress);
    if (status == VAE_ERR_DIVERGED) {
        return vae_fail(err, status, "%s: the loss on %s is NaN or Inf", m->path, ev->source);
    }
    return status == VAE_OK ? VAE_OK : vae_fail(err, status, "%s", inner.text);
}

/* ---- what is printed ---- */

static json_t *number(double value)
{
    return isfinite(value) ? json_real(value) : json_null();
}

static json_t *figures(const evaluation *ev)
{
    const vae_evaluation *e = &ev->e;
    json_t *kl_dim = json_array();
    for (size_t j = 0; j < e->z; j++) {
        json_array_append_new(kl_dim, json_real(e->kl_dim[j]));
    }
    json_t *o = json_pack(
        "{s:s, s:s, s:I, s:s, s:f, s:f, s:f, s:o, s:o, s:I, s:I, s:o}", "data", ev->source, "split",
        ev->split, "n", (json_int_t)e->n, "binarize", ev->binarize, "elbo", e->elbo, "recon",
        e->recon, "kl", e->kl, "nll", number(e->nll), "nll_se", number(e->nll_se), "samples",
        (json_int_t)e->samples, "active_units", (json_int_t)e->active_units, "kl_per_dim", kl_dim);
    json_t *aggregate = json_pack(
        "{s:I, s:o, s:o, s:o, s:o, s:o, s:o, s:o}", "aggregate_n", (json_int_t)e->aggregate,
        "mutual_information", number(e->mi), "mutual_information_se", number(e->mi_se),
        "mutual_information_bound", number(e->mi_bound), "marginal_kl", number(e->marginal_kl),
        "total_correlation", number(e->tc), "total_correlation_se", number(e->tc_se), "dimwise_kl",
        number(e->dimwise_kl));
    json_object_update(o, aggregate);
    json_decref(aggregate);
    return o;
}

static void print_json(const evaluation *ev, const evaluation *train)
{
    const cli_model *m = ev->model;
    json_t *o = json_pack("{s:i, s:s, s:I}", "schema", 1, "checkpoint", m->path, "epoch",
                          (json_int_t)m->checkpoint->state.epoch);
    json_t *main = figures(ev);
    json_object_update(o, main);
    json_decref(main);
    if (train != NULL) {
        json_object_set_new(o, "train", figures(train));
        json_object_set_new(o, "gap",
                            json_pack("{s:f, s:o}", "elbo", train->e.elbo - ev->e.elbo, "nll",
                                      number(ev->e.nll - train->e.nll)));
    }
    json_dumpf(o, stdout, JSON_INDENT(2) | JSON_REAL_PRECISION(9));
    putchar('\n');
    json_decref(o);
}

static void print_text(const evaluation *ev)
{
    const cli_model *m = ev->model;
    const vae_evaluation *e = &ev->e;
    printf("%s after epoch %llu, on %s (%s, %zu examples, binarize %s), nats per example\n",
           m->path, (unsigned long long)m->checkpoint->state.epoch, ev->source, ev->split, e->n,
           ev->binarize);
    printf("elbo          %.4f\nrecon         %.4f\nkl            %.4f\n", e->elbo, e->recon,
           e->kl);
    if (e->samples > 0) {
        printf("nll           %.4f +- %.4f (%zu importance samples)\n", e->nll, e->nll_se,
               e->samples);
    }
    printf("active units  %zu of %zu\n", e->active_units, e->z);
    if (e->aggregate > 0) {
        printf("I(x;z)        %.4f +- %.4f (of %zu examples: at most %.4f)\n", e->mi, e->mi_se,
               e->aggregate, e->mi_bound);
        printf("KL(q(z)||p)   %.4f: total correlation %.4f +- %.4f, dimensions' own %.4f\n",
               e->marginal_kl, e->tc, e->tc_se, e->dimwise_kl);
    }
    printf("kl per dim   ");
    for (size_t j = 0; j < e->z; j++) {
        printf(" %.3f", e->kl_dim[j]);
    }
    putchar('\n');
}

static void print_gap(const evaluation *test, const evaluation *train)
{
    printf("\n");
    print_text(train);
    printf("\ntrain/test gap  elbo %.4f", train->e.elbo - test->e.elbo);
    if (test->e.samples > 0) {
        printf("  nll %.4f", test->e.nll - train->e.nll);
    }
    putchar('\n');
}

/* elbo, recon, kl, nll (N,) f4; labels where there are any; binarize, one string. */
static vae_status write_examples(const evaluation *ev, const char *path, vae_error *err)
{
    const vae_evaluation *e = &ev->e;
    const size_t one = 1;
    char descr[24];
    vae_npz_writer w = {.n = 0};
    float *elbo = malloc(e->n * sizeof *elbo);
    if (elbo == NULL) {
        return vae_fail_memory(err, e->n * sizeof *elbo, "the examples' ELBO");
    }
    for (size_t i = 0; i < e->n; i++) {
        elbo[i] = -(e->recon_of[i] + e->kl_of[i]);
    }
    vae_npz_add(&w, "elbo", "<f4", sizeof(float), &e->n, 1, elbo);
    vae_npz_add(&w, "recon", "<f4", sizeof(float), &e->n, 1, e->recon_of);
    vae_npz_add(&w, "kl", "<f4", sizeof(float), &e->n, 1, e->kl_of);
    if (e->nll_of != NULL) {
        vae_npz_add(&w, "nll", "<f4", sizeof(float), &e->n, 1, e->nll_of);
    }
    if (ev->model->set->labels != NULL) {
        vae_npz_add(&w, "labels", "|u1", 1, &e->n, 1, ev->model->set->labels);
    }
    snprintf(descr, sizeof descr, "|S%zu", strlen(ev->binarize));
    vae_npz_add(&w, "binarize", descr, strlen(ev->binarize), &one, 1, ev->binarize);
    vae_npz_finish(&w);
    vae_status status = vae_parts_put(&w.parts, path, err);
    free(elbo);
    return status;
}

/* ---- the command ---- */

/* The other split in place of the first: backend and model stay. */
static vae_status open_train_split(cli_model *m, const cli_args *args, vae_error *err)
{
    char name[VAE_PATH];
    size_t limit;
    const char *data = cli_value(args, "data");
    vae_status status = cli_size(args, "limit", 0, 0, SIZE_MAX / 2, &limit, err);
    if (status != VAE_OK) {
        return status;
    }
    snprintf(name, sizeof name, "%s", data != NULL ? data : m->config.data);
    m->be->ops->data_close(m->be, m->data);
    m->data = NULL;
    vae_dataset_free(m->set);
    m->set = NULL;
    m->split = "train";
    status = cli_open_named_set(m, name, VAE_SPLIT_TRAIN, limit, err);
    return status == VAE_OK ? cli_open_data(m, err) : status;
}

static vae_status check_options(const cli_args *args, const cli_model *m, vae_error *err)
{
    const char *data = cli_value(args, "data");
    if (cli_value(args, "gap") == NULL) {
        return VAE_OK;
    }
    if (cli_value(args, "split") != NULL) {
        return vae_fail(err, VAE_ERR_USAGE, "--gap takes both splits: leave --split out");
    }
    data = data != NULL ? data : m->config.data;
    return vae_dataset_has_test(data)
               ? VAE_OK
               : vae_fail(err, VAE_ERR_USAGE, "--gap: %s has no test split of its own", data);
}

static vae_status prepare(cli_model *m, const cli_args *args, vae_eval_job *job, vae_error *err)
{
    const char *mode = cli_value(args, "binarize");
    size_t rows, particles;
    vae_status status = VAE_OK;
    if (mode != NULL && (status = vae_config_set(&m->config, "binarize", mode, err)) == VAE_OK) {
        status = vae_config_check(&m->config, 0, err);
    }
    if (status == VAE_OK && (status = check_options(args, m, err)) == VAE_OK) {
        status = cli_open_set(m, args, err);
    }
    if (status != VAE_OK) {
        return status;
    }
    job->z = m->config.latent;
    job->particles = m->config.particles;
    job->keep_examples = cli_value(args, "per-example") != NULL;
    vae_eval_shape(job, &rows, &particles);
    status = cli_open_model(m, rows, particles, err);
    return status == VAE_OK ? cli_open_data(m, err) : status;
}

vae_status cli_eval(const cli_args *args, vae_error *err)
{
    cli_model m = {0};
    evaluation ev = {.model = &m, .args = args}, train = ev;
    const bool gap = cli_value(args, "gap") != NULL;
    const char *examples = cli_value(args, "per-example");
    vae_status status = cli_size(args, "samples", 0, 0, 4000000, &ev.job.samples, err);
    if (status == VAE_OK) {
        status = cli_size(args, "aggregate", 2000, 0, 1000000, &ev.job.aggregate, err);
    }
    if (status == VAE_OK && (status = cli_open_checkpoint(&m, args, false, err)) == VAE_OK &&
        m.config.semi_supervised) {
        status = cli_eval_semi(&m, args, err);
        cli_close(&m);
        return status;
    }
    if (status == VAE_OK && (status = prepare(&m, args, &ev.job, err)) == VAE_OK) {
        status = evaluate(&ev, err);
    }
    if (status == VAE_OK && examples != NULL) {
        status = write_examples(&ev, examples, err);
    }
    if (status == VAE_OK && gap) {
        train.job = ev.job;
        train.job.keep_examples = false;
        status = open_train_split(&m, args, err);
        status = status == VAE_OK ? evaluate(&train, err) : status;
    }
    if (status == VAE_OK && args->json) {
        print_json(&ev, gap ? &train : NULL);
    } else if (status == VAE_OK) {
        print_text(&ev);
        if (gap) {
            print_gap(&ev, &train);
        }
    }
    vae_evaluation_clear(&ev.e);
    vae_evaluation_clear(&train.e);
    cli_close(&m);
    return status;
}
