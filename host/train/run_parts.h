/* What the files of a run share. run.c: the order of things; follow.c: what ranks but the first
 * do; resume.c: taking up what is there; records.c: config.json, run.json, metrics.jsonl, log.txt;
 * show.c: pictures and report.html. */
#ifndef VAE_TRAIN_RUN_PARTS_H
#define VAE_TRAIN_RUN_PARTS_H

#include <jansson.h>

#include "base/text.h"
#include "infer/trained.h"
#include "train/run.h"

typedef struct {
    vae_loop loop;
    const vae_train_options *options;
    vae_train_result *result;
    vae_run_folder folder;
    int board;                             /* TensorBoard's event file; -1: none */
    vae_notes notes;                       /* to the events and log.txt */
    vae_dataset *stacked[2];               /* with --stack: both sets, encoded; else NULL */
    double saved;                          /* monotonic time of the last checkpoint */
    double report_written, report_seconds; /* monotonic time of the last report; what it took */
    char start_time[VAE_TIME_TEXT];
    json_t *places; /* of the ranks, for run.json; NULL: it runs alone */
    bool log_lost;  /* log.txt could not be written: no more is */
    vae_error lost; /* the first thing that should be in the folder and could not be written */
} training_run;

/* Remembers what could not be written: no reason to end the training, but one to end it with that
 * error. What cannot be drawn at all is only told. */
void vae_train_lose(training_run *t, const vae_error *why);

/* The newest good checkpoint of the folder to *found, NULL if there is none at all. Refuses one of
 * other data than the set. */
vae_status vae_train_find(training_run *t, const vae_dataset *set, vae_checkpoint **found,
                          vae_error *err);
/* Can the loop, which is open, go on from it? Refuses one of another model. */
vae_status vae_train_check_found(training_run *t, const vae_checkpoint *found, vae_error *err);

/* With ranks, collective. What the first has found becomes all of theirs. */
vae_status vae_train_share_found(training_run *t, vae_checkpoint **found, vae_error *err);
/* Hosts and devices of all, to t->places; the loop is open. */
vae_status vae_train_gather_places(training_run *t, vae_error *err);
/* What ranks but the first do while that drives the loop. VAE_ERR_INTERRUPTED, and as
 * vae_loop_next. */
vae_status vae_train_follow(training_run *t, vae_error *err);

/* What does a run lack that has finished? run: a run.json that says done; pictures: those after its
 * last epoch; report: a report.html not older than run.json, if it is wanted. VAE_ERR_IO. */
vae_status vae_train_missing(const training_run *t, bool *run, bool *pictures, bool *report,
                             vae_error *err);

/* A line to log.txt, with the time in front. One that cannot be written is lost
 * (vae_train_lose). */
void vae_train_log(training_run *t, const char *line);
/* Lines of the picture files that are no rows. */
void vae_train_log_left_out(training_run *t);
vae_status vae_train_write_config(training_run *t, vae_error *err);
/* status: running, done, interrupted, failed; why: the error, or NULL. */
vae_status vae_train_write_run(training_run *t, const char *status, const char *why,
                               vae_error *err);
vae_status vae_train_write_metrics(training_run *t, const vae_epoch_record *r, vae_error *err);

/* The model under way as one that is trained, with the data it is shown on: test rows, or
 * validation rows, or those it trains on. Returns their numbers in the set, NULL = all. */
const uint32_t *vae_train_view(const vae_loop *l, vae_trained *on);

/* ---- TensorBoard (board.c): nothing, where it is not asked for ---- */

/* Makes a new event file, and takes events past `step` out of earlier ones. VAE_ERR_IO,
 * VAE_ERR_DATA. */
vae_status vae_board_open(training_run *t, uint64_t step, vae_error *err);
void vae_board_close(training_run *t);
/* Losses of an epoch, the KL of each latent dimension, and the pictures if they were drawn. */
void vae_board_epoch(training_run *t, const vae_epoch_record *r, bool drawn);
/* mu of the data shown, with labels and pictures. */
void vae_board_projector(training_run *t);

/* Pictures after an epoch, where data are pictures. */
void vae_train_draw(training_run *t, uint64_t epoch);
/* Are these there? VAE_ERR_IO. */
vae_status vae_train_drawn(const training_run *t, uint64_t epoch, bool *drawn, vae_error *err);
/* report.html, if it is wanted. Due: is it time for one while training goes on? last: the run is
 * over. */
bool vae_train_report_due(const training_run *t);
void vae_train_report(training_run *t, bool last);

#endif
