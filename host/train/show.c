/* What a run shows: samples from the prior, originals above reconstructions, report.html. What
 * cannot be written is no reason to lose the training: it is told, and the run's error at the
 * end. */
#include <stdio.h>
#include <string.h>

#include "base/clock.h"
#include "image/image.h"
#include "infer/paint.h"
#include "ranks/ranks.h"
#include "report/report.h"
#include "train/run_parts.h"

enum { N_SAMPLES = 64, N_RECONSTRUCTIONS = 20 };

/* While training goes on the page may take this share of the time, no more. */
static const double share = 0.05, first_guess = 1; /* of the seconds that writing it takes */

const uint32_t *vae_train_view(const vae_loop *l, vae_trained *on)
{
    vae_trained_of(on, l->now);
    on->be = l->be;
    on->model = l->model;
    on->batch = vae_ranks_most(l->ranks, l->measure_batch);
    if (l->test != NULL) {
        on->set = l->test_set;
        on->split = "test";
        on->data = l->test;
        on->n = l->test_set->n;
        return NULL;
    }
    on->set = l->train_set;
    if (l->validation != NULL) {
        on->split = "validation";
        on->data = l->validation;
        on->n = l->n_validation;
        return l->rows + l->n_train + l->n_labelled;
    }
    on->split = "train";
    on->data = l->train;
    on->n = l->n_train;
    return l->rows;
}

static void picture_name(char name[64], const char *kind, uint64_t epoch)
{
    snprintf(name, 64, "samples/%s-%03llu.png", kind, (unsigned long long)epoch);
}

vae_status vae_train_drawn(const training_run *t, uint64_t epoch, bool *drawn, vae_error *err)
{
    static const char *const kinds[] = {"epoch", "reconstruction"};
    const vae_checkpoint *c = t->loop.now;
    vae_status status = VAE_OK;
    *drawn = true;
    for (size_t i = 0; i < 2 && *drawn && vae_is_picture(c->height, c->width, c->channels); i++) {
        char name[64], path[VAE_RUN_PATH];
        picture_name(name, kinds[i], epoch);
        vae_run_folder_path(&t->folder, name, path);
        TRY(vae_path_exists(drawn, path, err));
    }
done:
    return status;
}

void vae_train_draw(training_run *t, uint64_t epoch)
{
    const vae_loop *l = &t->loop;
    vae_error err = {0};
    char name[64], path[VAE_RUN_PATH];
    vae_trained on;
    vae_train_view(l, &on);
    const vae_painter painter = {.on = &on};
    const size_t n = on.n < N_RECONSTRUCTIONS ? on.n : N_RECONSTRUCTIONS;
    const bool mixed = on.set->factor_sizes != NULL;
    if (!vae_is_picture(l->now->height, l->now->width, l->now->channels)) {
        return;
    }
    picture_name(name, "epoch", epoch);
    vae_run_folder_place(&t->folder, name, path);
    if (vae_paint_prior(&painter, path, N_SAMPLES, l->config->seed, &err) == VAE_OK) {
        memcpy(t->result->samples, path, sizeof path);
    }
    picture_name(name, "reconstruction", epoch);
    vae_run_folder_place(&t->folder, name, path);
    if (vae_paint_reconstructions(&painter, path, n, mixed, 0, &err) == VAE_OK) {
        memcpy(t->result->reconstruction, path, sizeof path);
    }
    if (err.status != VAE_OK) {
        vae_train_lose(t, &err);
    }
}

bool vae_train_report_due(const training_run *t)
{
    const double seconds = t->report_seconds > 0 ? t->report_seconds : first_guess;
    const double since = t->report_written > 0 ? t->report_written : t->loop.started;
    return t->loop.config->report && vae_clock() - since > seconds / share;
}

void vae_train_report(training_run *t, bool last)
{
    vae_error err = {0};
    vae_report_result result;
    char path[VAE_RUN_PATH];
    vae_trained on;
    const uint32_t *rows = vae_train_view(&t->loop, &on);
    const vae_report_source source = {
        .on = &on,
        .rows = rows,
        .name = t->folder.path,
        .folder = t->folder.path,
        /* at the end there is nothing to be interrupted but this; a signal did its work before */
        .watch = {.stop_signal = last ? NULL : t->loop.stop},
    };
    if (!t->loop.config->report) {
        return;
    }
    vae_run_folder_place(&t->folder, "report.html", path);
    vae_status status = vae_report_write(&source, path, &result, &err);
    t->report_written = vae_clock();
    if (status == VAE_OK) {
        t->report_seconds = result.seconds;
        memcpy(t->result->report, path, sizeof path);
    } else if (last) {
        vae_train_lose(t, &err);
    } else if (status != VAE_ERR_INTERRUPTED) { /* the last one may do better */
        vae_note(&t->notes, "warning: no report: %s", err.text);
    }
}
