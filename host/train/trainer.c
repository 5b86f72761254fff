/* The training run: epochs of steps, measuring, stop rules, checkpoints.
 *
 * Every number that training depends on is in vae_train_state and the config, so that a run that
 * was interrupted, or killed, goes on bit for bit from its newest checkpoint. What is written at
 * the end of an epoch is written in an order that makes this true whenever the process dies:
 * pictures and metrics first, then best.vae, then the checkpoint that says the epoch is over. On
 * resume, metrics past the checkpoint are dropped and come again. */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/clock.h"
#include "infer/stack.h"
#include "philox.h"
#include "train/internal.h"

/* Epochs may last hours: within them, a checkpoint every so many seconds. */
static const double save_seconds = 600;

bool trainer_stopping(const trainer *t)
{
    return vae_stopping(t->options->stop_signal);
}

/* ---- checkpoints ---- */

static vae_status diverged(trainer *t, uint64_t step, const char *what, vae_error *err)
{
    const char *last = t->result->checkpoint[0] != '\0' ? t->result->checkpoint : "none";
    return vae_fail(err, VAE_ERR_DIVERGED,
                    "%s, in step %" PRIu64 " of epoch %" PRIu64
                    "; try a lower --lr (now %g), --clip-norm 100%s; last good checkpoint: %s",
                    what, step, t->now.state.epoch + 1, t->config->lr,
                    vae_likelihood_of(t->config->likelihood)->outputs == 2 ? ", or a fixed variance"
                                                                           : "",
                    last);
}

static bool all_finite(const float *v, size_t n)
{
    float sum = 0; /* of zeros, unless there is a NaN or Inf among v */
    for (size_t i = 0; i < n; i++) {
        sum += v[i] * 0.0f;
    }
    return sum == 0;
}

static vae_status download(trainer *t, vae_error *err)
{
    vae_status status = vae_model_get(t->model, VAE_PARAMS, t->now.params, err);
    /* a finite loss may still have given an update that overflows */
    if (status == VAE_OK && !all_finite(t->now.params, t->now.n_params)) {
        return diverged(t, t->now.state.step, "a parameter became NaN or Inf", err);
    }
    if (status == VAE_OK) {
        status = vae_model_get(t->model, VAE_ADAM_M, t->now.adam_m, err);
    }
    if (status == VAE_OK) {
        status = vae_model_get(t->model, VAE_ADAM_V, t->now.adam_v, err);
    }
    return status;
}

static void update_wall(trainer *t)
{
    t->now.state.wall_s = t->started_wall + (vae_clock() - t->started);
}

static vae_status save(trainer *t, bool best, vae_error *err)
{
    char name[64], path[VAE_RUN_PATH];
    update_wall(t);
    vae_status status = download(t, err);
    if (status == VAE_OK && fdatasync(t->folder.metrics) != 0) {
        status = vae_fail(err, VAE_ERR_IO, "%s/metrics.jsonl: cannot write", t->folder.path);
    }
    if (status == VAE_OK && best) {
        /* before the other one, which says that this is the best: killed in between, the epoch
         * comes again and writes both */
        vae_run_folder_path(&t->folder, "checkpoints/best.vae", path);
        status = vae_checkpoint_write(path, &t->now, err);
    }
    if (status != VAE_OK) {
        return status;
    }
    snprintf(name, sizeof name, "checkpoints/step-%010" PRIu64 ".vae", t->now.state.step);
    vae_run_folder_path(&t->folder, name, path);
    status = vae_checkpoint_write(path, &t->now, err);
    if (status == VAE_OK) {
        memcpy(t->result->checkpoint, path, sizeof path);
        vae_run_folder_rotate(&t->folder, t->config->keep);
        t->saved = vae_clock();
    }
    return status;
}

static vae_status save_and_stop(trainer *t, vae_error *err)
{
    trainer_note(t, "interrupted: saving step %" PRIu64, t->now.state.step);
    vae_status status = save(t, false, err);
    return status != VAE_OK ? status
                            : vae_fail(err, VAE_ERR_INTERRUPTED,
                                       "interrupted in epoch %" PRIu64 ", step %" PRIu64
                                       "; --resume --out %s goes on from there",
                                       t->now.state.epoch + 1, t->now.state.step, t->folder.path);
}

/* ---- an epoch ---- */

static double seconds_left(const trainer *t)
{
    const vae_train_state *s = &t->now.state;
    double done = (double)s->epoch * (double)t->n_train + (double)s->position;
    double left = (double)t->config->epochs * (double)t->n_train - done;
    double seconds = vae_clock() - t->started;
    return t->session_examples > 0 && left > 0 ? left * seconds / t->session_examples : 0;
}

static void tell_progress(trainer *t)
{
    const vae_train_state *s = &t->now.state;
    const vae_trainer_events *events = &t->options->events;
    if (events->progress == NULL) {
        return;
    }
    vae_progress p = {
        .epoch = s->epoch + 1,
        .epochs = t->config->epochs,
        .position = s->position,
        .n = t->n_train,
        .elbo = -(s->recon + s->kl) / s->examples,
        .recon = s->recon / s->examples,
        .kl = s->kl / s->examples,
        .examples_per_s = t->epoch_seconds > 0 ? t->epoch_examples / t->epoch_seconds : 0,
        .seconds_left = seconds_left(t),
    };
    events->progress(events->ctx, &p);
}

/* Runs as many steps of one size as the pace allows; totals and counters follow. */
static vae_status run_steps(trainer *t, vae_error *err)
{
    vae_train_state *s = &t->now.state;
    const size_t left = t->n_train - (size_t)s->position;
    const size_t rows = left < t->config->batch_size ? left : t->config->batch_size;
    const size_t n = left / rows < t->pace.n ? left / rows : t->pace.n;
    for (size_t i = 0; i < n; i++) {
        vae_train_plan(&t->plan[i], t->config, s->step + 1 + i, s->epoch, s->position + i * rows,
                       t->steps_per_epoch);
        trainer_plan_labelled(t, &t->plan[i], rows);
    }
    vae_totals totals;
    vae_error inner = {0};
    const double start = vae_clock();
    vae_model_train(t->model, t->train, t->plan, n, rows);
    /* not cleared within an epoch: the sums are those of its steps in order, however they are
     * grouped */
    vae_status status = vae_model_totals(t->model, &totals, false, &inner);
    const double seconds = vae_clock() - start;
    if (status == VAE_ERR_DIVERGED) {
        return diverged(t, totals.bad_step, "the loss or its gradient became NaN or Inf", err);
    }
    if (status != VAE_OK) {
        return vae_fail(err, status, "%s", inner.text);
    }
    if (rows == t->config->batch_size) {
        pace_adapt(&t->pace, n, seconds);
    }
    s->step += n;
    s->position += n * rows;
    s->recon = t->before.recon + totals.recon;
    s->kl = t->before.kl + totals.kl;
    s->objective = t->before.objective + totals.objective;
    s->examples = t->before.examples + totals.examples;
    t->session_examples += (double)(n * rows);
    t->epoch_examples += (double)(n * rows);
    t->epoch_seconds += seconds;
    tell_progress(t);
    return VAE_OK;
}

static vae_status measure(trainer *t, vae_measurement *out, vae_data *data, size_t n,
                          const char *what, vae_error *err)
{
    vae_error inner = {0};
    if (data == NULL) {
        return VAE_OK;
    }
    vae_status status = vae_measure(out, t->model, t->config, data, n, VAE_EVAL_DRAW(0),
                                    t->options->stop_signal, &inner);
    if (status == VAE_ERR_DIVERGED) {
        char text[VAE_ERROR_TEXT];
        snprintf(text, sizeof text, "%s: %.800s", what, inner.text);
        return diverged(t, t->now.state.step, text, err);
    }
    return status == VAE_OK ? VAE_OK : vae_fail(err, status, "%s", inner.text);
}

/* Fills the report of the epoch whose steps are all done. Changes no state: an interruption in here
 * leaves the epoch to be closed by the next session. */
static vae_status measure_epoch(trainer *t, vae_epoch_report *r, vae_error *err)
{
    const vae_train_state *s = &t->now.state;
    *r = (vae_epoch_report){
        .epoch = s->epoch + 1,
        .epochs = t->config->epochs,
        .step = s->step,
        .train = {.elbo = -(s->recon + s->kl) / s->examples,
                  .recon = s->recon / s->examples,
                  .kl = s->kl / s->examples,
                  .bound = s->objective / s->examples,
                  .n = t->n_train},
        .lr = vae_learning_rate(t->config, s->step, s->epoch, t->steps_per_epoch),
        .beta = vae_kl_weight(t->config, s->step, t->steps_per_epoch),
        .examples_per_s = t->epoch_seconds > 0 ? t->epoch_examples / t->epoch_seconds : 0,
    };
    if (t->config->objective == VAE_OBJ_ELBO) {
        r->train.bound = -r->train.elbo; /* without beta and free bits, as the others */
    }
    vae_totals ignored;
    vae_status status = vae_model_totals(t->model, &ignored, true, err);
    if (status == VAE_OK) {
        status = measure(t, &r->validation, t->validation, t->n_validation, "validation", err);
    }
    if (status == VAE_OK) {
        status =
            measure(t, &r->test, t->test, t->test_set != NULL ? t->test_set->n : 0, "test", err);
    }
    return status;
}

/* The epoch is over: best and stop rules. */
static void close_epoch(trainer *t, vae_epoch_report *r)
{
    vae_train_state *s = &t->now.state;
    s->epoch++;
    s->position = 0;
    s->recon = s->kl = s->objective = s->examples = 0;
    t->before = (vae_train_state){0};
    t->epoch_examples = t->epoch_seconds = 0;
    if (t->validation != NULL) {
        r->best = r->validation.bound < s->best;
        s->best = r->best ? r->validation.bound : s->best;
        s->best_epoch = r->best ? s->epoch : s->best_epoch;
        s->bad_epochs = r->best ? 0 : s->bad_epochs + 1;
    }
    s->finished = s->epoch >= t->config->epochs;
    if (t->config->patience > 0 && s->bad_epochs >= t->config->patience && !s->finished) {
        s->finished = true;
        trainer_note(t,
                     "stopped early: no better validation loss in %" PRIu64
                     " epochs; the best, %.3f, was after epoch %" PRIu64,
                     s->bad_epochs, s->best, s->best_epoch);
    }
}

static vae_status end_epoch(trainer *t, vae_error *err)
{
    const vae_config *c = t->config;
    vae_epoch_report *r = &t->result->last;
    vae_epoch_report report;
    vae_status status = measure_epoch(t, &report, err);
    if (status != VAE_OK) {
        return status;
    }
    *r = report;
    close_epoch(t, r);
    update_wall(t);
    r->wall_s = t->now.state.wall_s;
    r->seconds_left = seconds_left(t);
    trainer_summarize(t, r);
    const bool finished = t->now.state.finished;
    const bool draw = finished || (c->sample_every > 0 && r->epoch % c->sample_every == 0);
    if (draw) {
        trainer_draw(t, r->epoch);
    }
    status = trainer_write_metrics(t, r, err);
    if (status == VAE_OK && (finished || r->best || r->epoch % c->save_every == 0)) {
        status = save(t, r->best, err);
    }
    if (status == VAE_OK && draw && !finished && trainer_page_due(t)) {
        trainer_page(t, false);
    }
    if (status == VAE_OK && t->options->events.epoch != NULL) {
        t->options->events.epoch(t->options->events.ctx, r);
    }
    return status;
}

static vae_status run_epochs(trainer *t, vae_error *err)
{
    vae_status status = VAE_OK;
    while (status == VAE_OK && !t->now.state.finished) {
        while (status == VAE_OK && t->now.state.position < t->n_train && !trainer_stopping(t)) {
            status = run_steps(t, err);
            if (status == VAE_OK && vae_clock() - t->saved > save_seconds) {
                status = save(t, false, err);
            }
        }
        if (status == VAE_OK && !trainer_stopping(t)) {
            vae_error inner = {0};
            status = end_epoch(t, &inner);
            if (status == VAE_ERR_INTERRUPTED) {
                status = VAE_OK; /* while measuring: the epoch stays open */
            } else if (status != VAE_OK) {
                vae_fail(err, status, "%s", inner.text);
            }
        }
        if (status == VAE_OK && !t->now.state.finished && trainer_stopping(t)) {
            status = save_and_stop(t, err);
        }
    }
    return status;
}

/* ---- a run ---- */

/* Loads or initializes; t->now and the model are ready afterwards. */
static vae_status begin(trainer *t, bool empty, vae_error *err)
{
    bool found = false;
    vae_status status = VAE_OK;
    if (t->options->resume && !empty) {
        status = trainer_load(t, &found, err);
    }
    if (status == VAE_OK && !found) {
        status = trainer_initialize(t, err);
    }
    if (status == VAE_OK && t->options->resume && !found) {
        trainer_note(t, "%s: no checkpoint to resume from: starting from the beginning",
                     t->folder.path);
    } else if (status == VAE_OK && found && !t->now.state.finished) {
        trainer_note(t, "resuming from %s (epoch %" PRIu64 ", step %" PRIu64 ")",
                     t->result->checkpoint, t->now.state.epoch + (t->now.state.position > 0),
                     t->now.state.step);
    }
    t->before = t->now.state;
    t->started_wall = t->now.state.wall_s;
    t->started = t->saved = vae_clock();
    t->pace.n = 1;
    return status == VAE_OK ? trainer_upload(t, err) : status;
}

static vae_status run(trainer *t, vae_error *err)
{
    vae_train_state *s = &t->now.state;
    /* lines of the epoch that a checkpoint closes carry its step; one in mid-epoch closes none */
    uint64_t last_line = s->position > 0 ? s->step - 1 : s->step;
    vae_status status = trainer_write_config(t, err);
    if (status == VAE_OK) {
        status = trainer_write_run(t, "running", NULL, err);
    }
    if (status == VAE_OK) {
        status = vae_run_folder_metrics(&t->folder, last_line, err);
    }
    if (status == VAE_OK) {
        trainer_note(t, "%s: %zu rows to train on, %zu to validate, %zu to test; %zu parameters",
                     t->train_set->source, t->n_train, t->n_validation,
                     t->test_set != NULL ? t->test_set->n : 0, t->now.n_params);
        if (t->n_labelled > 0) {
            trainer_note(t, "%zu more training rows have a label, %zu of them in every step",
                         t->n_labelled, vae_config_labelled_batch(t->config));
        }
        trainer_note(t, "%s", t->device);
        vae_schedule_notes(t);
        if (t->result->checkpoint[0] == '\0') {
            status = save(t, false, err); /* from here on, a killed run can be resumed */
        }
    }
    return status == VAE_OK ? run_epochs(t, err) : status;
}

static void finish(trainer *t, vae_status status, const vae_error *err)
{
    vae_error ignored = {0};
    update_wall(t);
    if (status != VAE_OK) {
        trainer_note(t, "%s: %s", status == VAE_ERR_INTERRUPTED ? "interrupted" : "failed",
                     err->text);
    }
    trainer_write_run(t,
                      status == VAE_OK                ? "done"
                      : status == VAE_ERR_INTERRUPTED ? "interrupted"
                                                      : "failed",
                      status == VAE_OK ? NULL : err->text, &ignored);
    if (status == VAE_OK || status == VAE_ERR_INTERRUPTED) {
        trainer_page(t, true);
    }
}

static void clear(trainer *t)
{
    if (t->be != NULL) {
        vae_model_free(t->model);
        t->be->ops->data_close(t->be, t->test);
        t->be->ops->data_close(t->be, t->validation);
        t->be->ops->data_close(t->be, t->train);
        t->be->ops->close(t->be);
    }
    vae_run_folder_close(&t->folder);
    free(t->now.params);
    free(t->now.adam_m);
    free(t->now.adam_v);
    free(t->now.data_mean);
    free(t->now.standard);
    free(t->now.columns);
    free(t->plan);
    free(t->rows);
    vae_dataset_free(t->stacked[0]);
    vae_dataset_free(t->stacked[1]);
}

/* With --stack, the latents of the run below take the data's place. */
static vae_status stack_data(trainer *t, vae_config *config, vae_error *err)
{
    vae_dataset **sets[2] = {&t->train_set, &t->test_set};
    vae_trained below = {.own = NULL};
    if (config->stack[0] == '\0') {
        return VAE_OK;
    }
    vae_status status = vae_stack_open(&below, config, err);
    for (int i = 0; i < 2 && status == VAE_OK; i++) {
        if (*sets[i] != NULL) {
            status = vae_stack_encode(&t->stacked[i], &below, *sets[i], err);
            *sets[i] = t->stacked[i];
        }
    }
    vae_trained_close(&below);
    return status;
}

vae_status vae_train(const vae_config *config, vae_dataset *train_set, vae_dataset *test_set,
                     const vae_trainer_options *options, vae_train_result *result, vae_error *err)
{
    vae_error own = {0};
    err = err != NULL ? err : &own;
    *result = (vae_train_result){0};
    vae_config resolved = *config;
    trainer t = {.config = &resolved,
                 .train_set = train_set,
                 .test_set = test_set,
                 .options = options,
                 .result = result,
                 .folder = {.log = -1, .metrics = -1}};
    bool empty = true;
    vae_status status = vae_config_check(config, 0, err);
    if (status == VAE_OK) {
        status = vae_run_folder_check(config->out, options->resume, options->force, err);
    }
    if (status == VAE_OK && (status = stack_data(&t, &resolved, err)) == VAE_OK &&
        (status = trainer_check_data(&t, err)) == VAE_OK &&
        (status = trainer_resolve_classes(&resolved, train_set, test_set, err)) == VAE_OK &&
        (status = trainer_choose_rows(&t, err)) == VAE_OK &&
        (status = trainer_choose_labelled(&t, err)) == VAE_OK &&
        (status = trainer_standardize(&t, err)) == VAE_OK &&
        (status = trainer_open_model(&t, err)) == VAE_OK &&
        (status = trainer_make_room(&t, err)) == VAE_OK) {
        t.steps_per_epoch = (t.n_train + config->batch_size - 1) / config->batch_size;
        status = vae_run_folder_open(&t.folder, config->out, options->resume, options->force,
                                     &empty, err);
    }
    if (status == VAE_OK) {
        status = begin(&t, empty, err);
    }
    if (status == VAE_OK && t.now.state.finished) {
        result->had_finished = true;
    } else if (status == VAE_OK) {
        status = run(&t, err);
        finish(&t, status, err);
    }
    result->state = t.now.state;
    clear(&t);
    return status;
}
