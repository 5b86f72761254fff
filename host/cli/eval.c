/* vae eval: how good a trained model is. What the figures mean is in eval.h; ELBO, recon and KL
 * come from the noise of training's own measuring passes, so that they agree with metrics.jsonl. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "cli/cli.h"
#include "cli/progress.h"
#include "eval/eval.h"
#include "format/npz.h"
#include "infer/labels.h"

/* One split's figures, and what is shown meanwhile. */
typedef struct {
    vae_trained *m;
    const cli_args *args;
    vae_eval_job job;
    const char *split;
    char source[512], binarize[32];
    cli_progress progress;
    vae_evaluation e;
    vae_byte_figures bytes; /* n = 0: the data are none */
} evaluation;

static vae_status evaluate(evaluation *ev, vae_error *err)
{
    vae_trained *m = ev->m;
    vae_error inner = {0};
    ev->split = m->split;
    snprintf(ev->source, sizeof ev->source, "%s", m->set->source);
    vae_config_get(&m->config, "binarize", ev->binarize, sizeof ev->binarize);
    ev->job.batch = vae_trained_batch;
    ev->job.ctx = m;
    ev->job.n = m->n;
    ev->job.ranks = vae_ranks_n(m->ranks);
    cli_progress_open(&ev->progress, ev->args->quiet);
    ev->job.watch = cli_watch(&ev->progress, ev->split);
    vae_status status = vae_evaluate(&ev->e, &ev->job, &inner);
    if (status == VAE_OK) {
        const vae_plan plan = vae_eval_plan(ev->job.draws, 0);
        status = vae_bytes_measure(&ev->bytes, m, m->n, &plan, &ev->job.watch, &inner);
        /* of the ELBO that stands beside it, which may have more particles */
        ev->bytes.bits = vae_bits_per_dim(ev->e.elbo, ev->bytes.noise, m->checkpoint->d);
    }
    cli_progress_clear(&ev->progress);
    if (status == VAE_ERR_DIVERGED) {
        return vae_fail(err, status, "%s: the loss on %s is NaN or Inf", m->path, ev->source);
    }
    return status == VAE_OK ? VAE_OK : vae_fail(err, status, "%s", inner.text);
}

/* ---- what is printed ---- */

static json_t *figures(const evaluation *ev)
{
    const vae_evaluation *e = &ev->e;
    json_t *kl_dim = json_array();
    for (size_t j = 0; j < e->z; j++) {
        json_array_append_new(kl_dim, json_real(e->kl_dim[j]));
    }
    json_t *o =
        json_pack("{s:s, s:s, s:I, s:s, s:f, s:f, s:f, s:o, s:o, s:I, s:I, s:o}", "data",
                  ev->source, "split", ev->split, "n", (json_int_t)e->n, "binarize", ev->binarize,
                  "elbo", e->elbo, "recon", e->recon, "kl", e->kl, "nll", cli_json_real(e->nll),
                  "nll_se", cli_json_real(e->nll_se), "samples", (json_int_t)e->samples,
                  "active_units", (json_int_t)e->active_units, "kl_per_dim", kl_dim);
    json_t *aggregate =
        json_pack("{s:I, s:o, s:o, s:o, s:o, s:o, s:o, s:o}", "aggregate_n",
                  (json_int_t)e->aggregate, "mutual_information", cli_json_real(e->mi),
                  "mutual_information_se", cli_json_real(e->mi_se), "mutual_information_bound",
                  cli_json_real(e->mi_bound), "marginal_kl", cli_json_real(e->marginal_kl),
                  "total_correlation", cli_json_real(e->tc), "total_correlation_se",
                  cli_json_real(e->tc_se), "dimwise_kl", cli_json_real(e->dimwise_kl));
    json_object_update(o, aggregate);
    json_decref(aggregate);
    cli_json_bytes(o, &ev->bytes);
    return o;
}

static void print_json(const evaluation *ev, const evaluation *train)
{
    const vae_trained *m = ev->m;
    json_t *o = json_pack("{s:i, s:s, s:I}", "schema", 1, "checkpoint", m->path, "epoch",
                          (json_int_t)m->checkpoint->state.epoch);
    json_t *main = figures(ev);
    json_object_update(o, main);
    json_decref(main);
    if (train != NULL) {
        json_object_set_new(o, "train", figures(train));
        json_object_set_new(o, "gap",
                            json_pack("{s:f, s:o}", "elbo", train->e.elbo - ev->e.elbo, "nll",
                                      cli_json_real(ev->e.nll - train->e.nll)));
    }
    cli_print_json(o, 9);
}

static void print_text(const evaluation *ev)
{
    const vae_trained *m = ev->m;
    const vae_evaluation *e = &ev->e;
    cli_print("%s after epoch %llu, on %s (%s, %zu example%s, binarize %s), nats per example",
              m->path, (unsigned long long)m->checkpoint->state.epoch, ev->source, ev->split, e->n,
              vae_s(e->n), ev->binarize);
    printf("elbo          %.4f\nrecon         %.4f\nkl            %.4f\n", e->elbo, e->recon,
           e->kl);
    if (e->samples > 0) {
        printf("nll           %.4f +- %.4f (%zu importance sample%s)\n", e->nll, e->nll_se,
               e->samples, vae_s(e->samples));
    }
    cli_print_bytes(&ev->bytes, "z = mu");
    printf("active units  %zu of %zu\n", e->active_units, e->z);
    if (e->aggregate > 0) {
        printf("I(x;z)        %.4f +- %.4f (of %zu example%s: at most %.4f)\n", e->mi, e->mi_se,
               e->aggregate, vae_s(e->aggregate), e->mi_bound);
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
    vae_label_arrays labels = {0};
    vae_npz_writer w = {.n = 0};
    vae_status status = VAE_OK;
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
    TRY(vae_label_arrays_add(&labels, &w, ev->m->set, err));
    if (ev->m->set->picked != NULL) {
        vae_npz_add(&w, "row", "<u4", sizeof(uint32_t), &e->n, 1, ev->m->set->picked);
    }
    snprintf(descr, sizeof descr, "|S%zu", strlen(ev->binarize));
    vae_npz_add(&w, "binarize", descr, strlen(ev->binarize), &one, 1, ev->binarize);
    vae_npz_finish(&w);
    status = vae_parts_put(&w.parts, path, err);
done:
    vae_label_arrays_clear(&labels);
    free(elbo);
    return status;
}

/* ---- the command ---- */

/* The other split in place of the first: backend and model stay. */
static vae_status open_train_split(vae_trained *m, const cli_args *args, vae_error *err)
{
    const cli_args other = cli_with(args, "split", "train");
    vae_status status = VAE_OK;
    TRY(cli_open_set(m, &other, err));
    TRY(vae_trained_put(m, NULL, 0, err));
done:
    return status;
}

static vae_status check_options(const cli_args *args, const vae_trained *m, vae_error *err)
{
    const char *data = cli_value(args, "data"), *test = NULL;
    vae_split split;
    bool has_test = false;
    vae_status status = VAE_OK;
    if (!cli_given(args, "gap")) {
        return VAE_OK;
    }
    if (cli_given(args, "split")) {
        return vae_fail(err, VAE_ERR_USAGE, "--gap takes both splits: leave --split out");
    }
    TRY(data != NULL ? vae_dataset_has_test(&has_test, data, err)
                     : cli_test_data(&test, &split, &m->config, err));
    if (!has_test && test == NULL) {
        TRY(vae_fail(err, VAE_ERR_USAGE, "--gap: %s has no test split of its own",
                     data != NULL ? data : m->config.data));
    }
done:
    return status;
}

static vae_status prepare(vae_trained *m, const cli_args *args, vae_eval_job *job, vae_error *err)
{
    size_t rows, particles;
    vae_status status = VAE_OK;
    TRY(cli_binarize(m, args, err));
    TRY(check_options(args, m, err));
    TRY(cli_open_set(m, args, err));
    job->z = m->config.latent;
    job->particles = m->config.particles;
    job->keep_examples = cli_given(args, "per-example");
    vae_eval_shape(job, &rows, &particles);
    TRY(vae_trained_start(m, rows, particles, err));
    job->most = m->batch;
    TRY(vae_trained_put(m, NULL, 0, err));
done:
    return status;
}

static vae_status run_eval(const cli_args *args, vae_error *err)
{
    vae_trained m = {.own = NULL};
    evaluation ev = {.m = &m, .args = args}, train = ev;
    const bool gap = cli_given(args, "gap");
    const char *examples = cli_value(args, "per-example");
    vae_status status = VAE_OK;
    TRY(cli_size(args, "samples", 0, 0, 4000000, &ev.job.samples, err));
    TRY(cli_size(args, "aggregate", 2000, 0, 1000000, &ev.job.aggregate, err));
    TRY(cli_open_checkpoint(&m, args, err));
    if (m.config.semi_supervised) {
        TRY(cli_eval_semi(&m, args, err));
        goto done;
    }
    TRY(prepare(&m, args, &ev.job, err));
    TRY(evaluate(&ev, err));
    if (examples != NULL && cli_writes(args)) {
        TRY(write_examples(&ev, examples, err));
    }
    if (gap) {
        train.job = ev.job;
        train.job.keep_examples = false;
        TRY(open_train_split(&m, args, err));
        TRY(evaluate(&train, err));
    }
    if (args->json) {
        print_json(&ev, gap ? &train : NULL);
    } else {
        print_text(&ev);
        if (gap) {
            print_gap(&ev, &train);
        }
    }
done:
    vae_evaluation_clear(&ev.e);
    vae_evaluation_clear(&train.e);
    vae_trained_close(&m);
    return status;
}

static const cli_option eval_options[] = {
    CLI_DATA_OPTIONS,
    {"samples", 'K', "K", "importance samples of the NLL; 0 = no NLL, the ELBO only [0]"},
    {"aggregate", 0, "N", "examples of I(x;z), KL(q(z)||p), total correlation; 0 = none [2000]"},
    {"gap", 0, NULL, "the training split, too, and the gap between them"},
    {"per-example", 0, "FILE", ".npz: elbo, recon, kl, nll and labels of each example"},
    {"binarize", 0, "none|threshold|static|dynamic", "default: as it was trained"},
    CLI_MODEL_OPTIONS,
};

const cli_command cli_eval_command = {
    .name = "eval",
    .words = "RUN",
    .n_words = 1,
    .help = "ELBO, reconstruction and KL, active units; NLL by importance sampling.",
    .more =
        "For data of bytes, too: PSNR of the decoder's mean at z = mu, 10 log10(1/MSE), and for\n"
        "Gaussian likelihoods bits a dimension, (-ELBO/D + ln 256)/ln 2, with uniform noise of\n"
        "width 1/256 added to x, which makes them a bound on the bytes' code length. The noise\n"
        "counts by its expected value: none is drawn.\n",
    .examples = "  vae eval runs/mnist\n"
                "  vae eval runs/mnist --samples 5000 --json\n"
                "  vae eval runs/mnist --data more.npy --split train\n",
    CLI_OPTIONS(eval_options),
    .shares = true,
    .run = run_eval,
};
