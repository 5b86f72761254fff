/* What the parts of the trainer share. trainer.c: the run; trainer_rows.c: which rows train;
 * trainer_classes.c: labels; trainer_schedule.c: the plan; trainer_measure.c: measuring passes;
 * trainer_report.c: what is written besides checkpoints; trainer_pictures.c; trainer_page.c;
 * trainer_setup.c;
 * trainer_resume.c. */
#ifndef VAE_TRAINER_INTERNAL_H
#define VAE_TRAINER_INTERNAL_H

#include "infer/trained.h"
#include "run/folder.h"
#include "train/trainer.h"

/* How many steps to ask for at once: as many as take about 0.15 s, so that signals and progress are
 * served a few times a second and the waiting for totals costs nothing. Steps do not depend on it.
 */
typedef struct {
    size_t n;
} pace;
enum { PACE_MOST = 1024 };
void pace_adapt(pace *p, size_t ran, double seconds);

typedef struct {
    const vae_config *config;
    vae_dataset *train_set, *test_set;
    vae_dataset *stacked[2]; /* with --stack: these two, encoded; else NULL */
    const vae_trainer_options *options;
    vae_train_result *result;
    vae_run_folder folder;
    vae_backend *be;
    vae_model *model;
    char device[512]; /* the backend's description */
    vae_data *train, *validation, *test;
    uint32_t *rows; /* the rows that take part: n_train of training, then n_validation */
    size_t n_train, n_validation, measure_batch;
    size_t n_labelled; /* semi-supervised: rows behind those n_train, which are without label */
    uint64_t steps_per_epoch;
    vae_plan *plan; /* PACE_MOST */
    pace pace;
    /* what a checkpoint holds: state and summary are always up to date, params and moments are
     * room for vae_model_get */
    vae_checkpoint now;
    vae_train_state before; /* its totals: those of the epoch before this session took it up */
    double started, started_wall;         /* monotonic time; state.wall_s at that time */
    double session_examples;              /* trained in this session */
    double epoch_seconds, epoch_examples; /* of this session's steps in this epoch */
    double saved;                         /* monotonic time of the last checkpoint */
    double grad_norm;
    double page_written, page_seconds; /* monotonic time of the last report; what it took */
    char start_time[32];
} trainer;

bool trainer_stopping(const trainer *t);
/* To the events and log.txt. */
void trainer_note(trainer *t, const char *format, ...) __attribute__((format(printf, 2, 3)));

/* The schedules, in double: see vae_train_plan. */
double vae_learning_rate(const vae_config *c, uint64_t step, uint64_t epoch,
                         uint64_t steps_per_epoch);
double vae_kl_weight(const vae_config *c, uint64_t step, uint64_t steps_per_epoch);
uint64_t vae_order_key(uint64_t seed, uint32_t purpose, uint64_t number);
void vae_schedule_notes(trainer *t);

/* Values in range, train and test alike in shape. */
vae_status trainer_check_data(const trainer *t, vae_error *err);
/* Backend, model and data on it. */
vae_status trainer_open_model(trainer *t, vae_error *err);
/* Room for a checkpoint's content, and all of it that does not change. */
vae_status trainer_make_room(trainer *t, vae_error *err);
/* t->now's parameters, from the seed, and the data's mean. */
vae_status trainer_initialize(trainer *t, vae_error *err);
/* t->now's parameters and moments into the model. */
vae_status trainer_upload(trainer *t, vae_error *err);

/* Rows of training and validation: class left out, split. */
vae_status trainer_choose_rows(trainer *t, vae_error *err);
/* Number of classes into the config, where it is left to the data; labels in range. */
vae_status trainer_resolve_classes(vae_config *config, const vae_dataset *train_set,
                                   const vae_dataset *test_set, vae_error *err);
/* Moves the rows that keep their label behind the others: n_train and n_labelled. */
vae_status trainer_choose_labelled(trainer *t, vae_error *err);
/* Which labelled rows a step of `rows` unlabelled ones takes. */
void trainer_plan_labelled(const trainer *t, vae_plan *plan, size_t rows);
/* Where the config asks for it: both sets to mean 0 and deviation 1 by the training rows, which
 * stay known in t->now. */
vae_status trainer_standardize(trainer *t, vae_error *err);
/* Mean of the training rows as the model sees them, (d) floats. VAE_ERR_RUNTIME (memory). */
vae_status trainer_data_mean(const trainer *t, float *mean, vae_error *err);
/* Sets the output layer's bias in packed parameters to give that mean. */
void trainer_output_bias(const trainer *t, float *params, const float *mean);

/* The newest good checkpoint of the folder into t->now; *found is false if there is none at all.
 * Refuses one of another model or other data. */
vae_status trainer_load(trainer *t, bool *found, vae_error *err);

vae_status trainer_write_config(trainer *t, vae_error *err);
/* status: running, done, interrupted, failed; why: the error, or NULL. */
vae_status trainer_write_run(trainer *t, const char *status, const char *why, vae_error *err);
vae_status trainer_write_metrics(trainer *t, const vae_epoch_report *report, vae_error *err);
void trainer_summarize(trainer *t, const vae_epoch_report *report);
/* The model under way as one that is trained, with the data it is shown on: test rows, or validation
 * rows, or those it trains on. Returns their numbers in the set, NULL = all. */
const uint32_t *trainer_view(const trainer *t, vae_trained *on);
void trainer_draw(trainer *t, uint64_t epoch);

/* report.html, if it is wanted. Due: is it time for one while training goes on? last: the run is
 * over. */
bool trainer_page_due(const trainer *t);
void trainer_page(trainer *t, bool last);

#endif
