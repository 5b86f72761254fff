/* The training run: drives the loop, and writes what it tells.
 *
 * What is written at the end of an epoch is written in an order that lets a run that was killed at
 * any moment go on bit for bit from its newest checkpoint: pictures and metrics first, then
 * best.vae, then the checkpoint that says the epoch is over. On resume, metrics past the checkpoint
 * are dropped and come again. */
#include "train/run.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/clock.h"
#include "exchange/exchange.h"
#include "infer/stack.h"
#include "ranks/ranks.h"
#include "train/init.h"
#include "train/run_parts.h"

/* Epochs may last hours: within them, a checkpoint every so many seconds. */
static const double save_seconds = 600;

/* ---- checkpoints ---- */

static vae_status save(training_run *t, bool best, vae_error *err)
{
    char name[64], path[VAE_RUN_PATH];
    vae_status status = VAE_OK;
    TRY(vae_loop_capture(&t->loop, err));
    if (fdatasync(t->folder.metrics) != 0) {
        TRY(vae_fail(err, VAE_ERR_IO, "%s/metrics.jsonl: cannot write", t->folder.path));
    }
    if (best) {
        /* before the other one, which says that this is the best: killed in between, the epoch
         * comes again and writes both */
        vae_run_folder_path(&t->folder, "checkpoints/best.vae", path);
        TRY(vae_checkpoint_write(path, t->loop.now, err));
    }
    snprintf(name, sizeof name, "checkpoints/step-%010" PRIu64 ".vae", t->loop.now->state.step);
    vae_run_folder_path(&t->folder, name, path);
    TRY(vae_checkpoint_write(path, t->loop.now, err));
    memcpy(t->result->checkpoint, path, sizeof path);
    vae_checkpoint_rotate(t->folder.path, t->loop.now->state.step, t->loop.config->keep);
    t->saved = vae_clock();
done:
    return status;
}

/* Hours of training must not end in a file that cannot be read or exported: the first one is. */
static vae_status save_first(training_run *t, vae_error *err)
{
    vae_checkpoint *back = NULL;
    vae_metadata metadata = {0};
    vae_status status = VAE_OK;
    TRY(save(t, false, err));
    TRY(vae_checkpoint_read(&back, t->result->checkpoint, true, err));
    TRY(vae_metadata_build(&metadata, back, err));
done:
    vae_metadata_clear(&metadata);
    vae_checkpoint_free(back);
    return status;
}

static vae_status save_and_stop(training_run *t, vae_error *err)
{
    const vae_train_state *s = &t->loop.now->state;
    vae_status status = VAE_OK;
    vae_note(&t->notes, "interrupted: saving step %" PRIu64, s->step);
    TRY(save(t, false, err));
    TRY(vae_fail(err, VAE_ERR_INTERRUPTED,
                 "interrupted in epoch %" PRIu64 ", step %" PRIu64
                 "; --resume --out %s goes on from there",
                 s->epoch + 1, s->step, t->folder.path));
done:
    return status;
}

/* ---- events ---- */

static vae_status steps_done(training_run *t, vae_error *err)
{
    const vae_train_events *events = &t->options->events;
    if (events->progress != NULL) {
        const vae_progress progress = vae_loop_progress(&t->loop);
        events->progress(events->ctx, &progress);
    }
    return vae_clock() - t->saved > save_seconds ? save(t, false, err) : VAE_OK;
}

static vae_status epoch_done(training_run *t, vae_error *err)
{
    const vae_config *c = t->loop.config;
    const vae_epoch_record *r = &t->loop.last;
    const vae_train_events *events = &t->options->events;
    const bool finished = t->loop.now->state.finished;
    const bool draw = finished || (c->sample_every > 0 && r->epoch % c->sample_every == 0);
    vae_status status = VAE_OK;
    TRY(vae_train_summarize(t->loop.now, r, err));
    if (draw) {
        vae_train_draw(t, r->epoch);
    }
    TRY(vae_train_write_metrics(t, r, err));
    vae_board_epoch(t, r, draw);
    if (finished) {
        vae_board_projector(t);
    }
    if (finished || r->best || r->epoch % c->save_every == 0) {
        TRY(save(t, r->best, err));
    }
    if (draw && !finished && vae_train_report_due(t)) {
        vae_train_report(t, false);
    }
    if (events->epoch != NULL) {
        events->epoch(events->ctx, r);
    }
done:
    return status;
}

/* ---- a run ---- */

static vae_status open_folder(training_run *t, const char *path, vae_error *err)
{
    bool empty;
    return vae_run_folder_open(&t->folder, path, t->options->resume, t->options->force, &empty,
                               err);
}

static bool is_first(const training_run *t)
{
    return vae_ranks_number(t->options->ranks) == 0;
}

/* Does the folder take what is to come? */
static vae_status prepare(training_run *t, const vae_checkpoint *found, vae_error *err)
{
    vae_status status = VAE_OK;
    if (!t->options->resume) { /* data that do not suit leave no folder behind */
        TRY(open_folder(t, t->loop.config->out, err));
    }
    if (found != NULL) {
        TRY(vae_train_check_found(t, found, err));
    } else { /* before log.txt has a line, so that the folder is known as a run's */
        TRY(vae_train_write_config(t, err));
    }
    if (found == NULL && t->options->resume) {
        vae_note(&t->notes, "%s: no checkpoint to resume from: starting from the beginning",
                 t->folder.path);
    }
done:
    return status;
}

/* Goes on from what was found, or initializes, with another model's weights if they are there. */
static vae_status begin(training_run *t, const vae_checkpoint *found, const vae_checkpoint *source,
                        vae_error *err)
{
    const vae_ranks *ranks = t->options->ranks;
    const vae_train_state *s = &t->loop.now->state;
    vae_status status = is_first(t) ? prepare(t, found, err) : VAE_OK;
    TRY(vae_ranks_all_ok(ranks, status, err));
    TRY(vae_loop_begin(&t->loop, found != NULL ? found : source, err));
    if (is_first(t) && found != NULL && !s->finished) {
        TRY(vae_train_write_config(t, err));
        vae_note(&t->notes, "resuming from %s (epoch %" PRIu64 ", step %" PRIu64 ")",
                 t->result->checkpoint, s->epoch + (s->position > 0), s->step);
    }
    t->saved = t->loop.started;
done:
    return status;
}

/* The loop's next event; ranks that wait for one are told if there will be none. */
static vae_status drive_on(training_run *t, vae_status status, vae_loop_event *event,
                           vae_error *err)
{
    if (status != VAE_OK) {
        vae_loop_give_up(&t->loop, status);
        return status;
    }
    return vae_loop_next(&t->loop, event, err);
}

static vae_status begin_folder(training_run *t, vae_error *err)
{
    const vae_train_state *s = &t->loop.now->state;
    /* lines of the epoch that a checkpoint closes carry its step; one in mid-epoch closes none */
    const uint64_t last_line = s->position > 0 ? s->step - 1 : s->step;
    vae_status status = VAE_OK;
    TRY(vae_train_write_run(t, "running", NULL, err));
    TRY(vae_run_folder_metrics(&t->folder, last_line, err));
    TRY(vae_board_open(t, last_line, err));
    vae_loop_describe(&t->loop);
    vae_train_log_left_out(t);
    if (t->result->checkpoint[0] == '\0') {
        TRY(save_first(t, err)); /* from here on, a killed run can be resumed */
    }
done:
    return status;
}

static vae_status drive(training_run *t, vae_error *err)
{
    vae_loop_event event = VAE_LOOP_STEPS;
    vae_status status = begin_folder(t, err);
    do {
        TRY(drive_on(t, status, &event, err));
        switch (event) {
        case VAE_LOOP_STEPS:
            status = steps_done(t, err);
            break;
        case VAE_LOOP_EPOCH:
            status = epoch_done(t, err);
            break;
        case VAE_LOOP_STOPPED: /* the others have stopped, too */
            TRY(save_and_stop(t, err));
            break;
        case VAE_LOOP_DONE:
            break;
        }
    } while (event != VAE_LOOP_DONE);
done:
    return status;
}

static vae_status told_of_lost(training_run *t, vae_error *err)
{
    if (t->lost.status == VAE_OK) {
        return VAE_OK;
    }
    t->result->lost = true;
    return vae_fail(err, t->lost.status,
                    "%s; the training itself is done: %s holds it, and --resume --out %s draws the "
                    "last pictures and the report anew",
                    t->lost.text, t->result->checkpoint, t->folder.path);
}

/* The last files of a run that is over. What could not be written is the error of one that is
 * done. */
static vae_status write_end(training_run *t, const char *word, const char *why, bool report,
                            vae_error *err)
{
    vae_error lost = {0};
    if (vae_train_write_run(t, word, why, &lost) != VAE_OK) {
        vae_train_lose(t, &lost);
    }
    if (report) {
        vae_train_report(t, true);
    }
    return why == NULL ? told_of_lost(t, err) : VAE_OK;
}

static vae_status drive_to_the_end(training_run *t, vae_error *err)
{
    vae_error inner = {0};
    const char *checkpoint = t->result->checkpoint;
    const vae_status status = drive(t, &inner);
    t->loop.now->state.wall_s = vae_loop_wall(&t->loop);
    if (status == VAE_OK) {
        return write_end(t, "done", NULL, true, err);
    }
    if (status == VAE_ERR_DIVERGED) {
        vae_fail(err, status, "%s; last good checkpoint: %s", inner.text,
                 checkpoint[0] != '\0' ? checkpoint : "none");
    } else {
        vae_fail(err, status, "%s", inner.text);
    }
    const bool stopped = status == VAE_ERR_INTERRUPTED;
    const char *word = stopped ? "interrupted" : "failed";
    vae_note(&t->notes, "%s: %s", word, err->text);
    write_end(t, word, err->text, stopped, err);
    return status;
}

/* Of a run that had finished: what it was killed before. */
static vae_status complete(training_run *t, vae_error *err)
{
    bool run, pictures, report;
    vae_status status = VAE_OK;
    TRY(vae_train_missing(t, &run, &pictures, &report, err));
    if (!run && !pictures && !report) {
        return VAE_OK;
    }
    vae_note(&t->notes, "%s: trained to the end, but not all was written; now it is:%s%s%s",
             t->folder.path, pictures ? " pictures" : "", run ? " run.json" : "",
             report ? " report.html" : "");
    if (pictures) {
        vae_train_draw(t, t->loop.now->state.epoch);
    }
    if (run) {
        return write_end(t, "done", NULL, report, err);
    }
    if (report) {
        vae_train_report(t, true);
    }
    return told_of_lost(t, err);
done:
    return status;
}

/* With --stack, the latents of the run below take the data's place. */
static vae_status stack_data(training_run *t, vae_config *config, vae_dataset *sets[2],
                             vae_error *err)
{
    vae_trained below = {.own = NULL};
    vae_status status = VAE_OK;
    if (config->stack[0] == '\0') {
        return VAE_OK;
    }
    TRY(vae_stack_open(&below, config, t->options->ranks, err));
    for (int i = 0; i < 2 && sets[i] != NULL; i++) {
        TRY(vae_stack_encode(&t->stacked[i], &below, sets[i], err));
        sets[i] = t->stacked[i];
    }
done:
    vae_trained_close(&below);
    return status;
}

static void take_note(void *ctx, const char *line)
{
    training_run *t = ctx;
    const vae_train_events *events = &t->options->events;
    if (events->note != NULL) {
        events->note(events->ctx, line);
    }
    vae_train_log(t, line);
}

static vae_status check(const training_run *t, vae_config *config, vae_error *err)
{
    const vae_train_options *o = t->options;
    vae_status status = VAE_OK;
    TRY(vae_config_check(config, NULL, err));
    if (is_first(t)) {
        TRY(vae_run_folder_check(config->out, o->resume, o->anew, o->force, err));
    }
done:
    return status;
}

/* What there is to go on with. */
static vae_status look(training_run *t, const vae_config *config, vae_dataset *sets[2],
                       vae_checkpoint **found, vae_error *err)
{
    vae_status status = VAE_OK;
    TRY(open_folder(t, config->out, err));
    TRY(vae_train_find(t, sets[0], found, err));
done:
    return status;
}

vae_status vae_train(const vae_config *config, vae_dataset *train_set, vae_dataset *test_set,
                     const vae_train_options *options, vae_train_result *result, vae_error *err)
{
    vae_error own = {0};
    vae_config resolved = *config;
    vae_dataset *sets[2] = {train_set, test_set};
    training_run t = {
        .options = options, .result = result, .folder = {.log = -1, .metrics = -1}, .board = -1};
    vae_checkpoint *found = NULL, *source = NULL;
    vae_status status = VAE_OK;
    err = err != NULL ? err : &own;
    *result = (vae_train_result){0};
    t.notes = (vae_notes){take_note, &t};
    TRY(vae_ranks_all_ok(options->ranks, check(&t, &resolved, err), err));
    TRY(stack_data(&t, &resolved, sets, err));
    if (options->resume) { /* the model that is there says how its data are taken */
        TRY(vae_ranks_all_ok(options->ranks,
                             is_first(&t) ? look(&t, config, sets, &found, err) : VAE_OK, err));
        TRY(vae_train_share_found(&t, &found, err));
    }
    if (found == NULL) {
        status = vae_init_open(&source, &resolved, sets[0], err);
        TRY(vae_ranks_all_ok(options->ranks, status, err));
    }
    TRY(vae_loop_open(&t.loop, &resolved, sets[0], sets[1], found != NULL ? found : source,
                      options->ranks, options->stop_signal, &t.notes, err));
    TRY(vae_train_gather_places(&t, err));
    TRY(begin(&t, found, source, err));
    result->had_finished = t.loop.now->state.finished;
    if (!is_first(&t)) {
        TRY(vae_train_follow(&t, err));
    } else {
        TRY(result->had_finished ? complete(&t, err) : drive_to_the_end(&t, err));
    }
done:
    if (t.loop.now != NULL) {
        result->state = t.loop.now->state;
        result->last = t.loop.last;
    }
    vae_checkpoint_free(found);
    vae_checkpoint_free(source);
    vae_loop_close(&t.loop);
    vae_board_close(&t);
    vae_run_folder_close(&t.folder);
    json_decref(t.places);
    vae_dataset_free(t.stacked[0]);
    vae_dataset_free(t.stacked[1]);
    return status;
}
