/* report.html of a run under way, and at its end. */
#include <stdio.h>
#include <string.h>

#include "base/clock.h"
#include "report/report.h"
#include "train/internal.h"

/* While training goes on the page may take this share of the time, no more. */
static const double share = 0.05, first_guess = 1; /* of the seconds that writing it takes */

bool trainer_page_due(const trainer *t)
{
    const double seconds = t->page_seconds > 0 ? t->page_seconds : first_guess;
    const double since = t->page_written > 0 ? t->page_written : t->started;
    return t->config->report && vae_clock() - since > seconds / share;
}

/* A page that cannot be written is no reason to lose the training. */
void trainer_page(trainer *t, bool last)
{
    vae_error err = {0};
    vae_report_result result;
    char path[VAE_RUN_PATH];
    vae_trained on;
    const uint32_t *rows = trainer_view(t, &on);
    const vae_report_source source = {
        .on = &on,
        .rows = rows,
        .name = t->folder.path,
        .folder = t->folder.path,
        /* at the end there is nothing to be interrupted but this; a signal did its work before */
        .watch = {.stop_signal = last ? NULL : t->options->stop_signal},
    };
    if (!t->config->report) {
        return;
    }
    vae_run_folder_path(&t->folder, "report.html", path);
    vae_status status = vae_report_write(&source, path, &result, &err);
    t->page_written = vae_clock();
    if (status == VAE_OK) {
        t->page_seconds = result.seconds;
        memcpy(t->result->report, path, sizeof path);
    } else if (status != VAE_ERR_INTERRUPTED) {
        trainer_note(t, "warning: no report: %s", err.text);
    }
}
