/* Training: epochs, schedules, logging, checkpoints, stop rules, and the run folder. */
#ifndef VAE_TRAINER_H
#define VAE_TRAINER_H

#include "backend.h"
#include "base/stop.h"
#include "config/config.h"
#include "dataset/dataset.h"
#include "model/model.h"
#include "run/checkpoint.h"

/* Mean losses over a data set, nats per example. bound: of what the objective minimizes, at beta 1
 * and without free bits: recon + kl for elbo, -log mean_k w_k for the others. */
typedef struct {
    double elbo, recon, kl, bound;
    size_t n; /* examples; 0 = there was no such data */
    /* of a semi-supervised model: examples whose label is known, and how many of them q(y|x) takes
     * for another class, as a fraction */
    size_t classified;
    double error;
} vae_measurement;

/* Where training stands, between two steps. */
typedef struct {
    uint64_t epoch, epochs; /* the current epoch, from 1 */
    uint64_t position, n;   /* examples of it that are done */
    double elbo, recon, kl; /* means of it so far, nats per example */
    double examples_per_s, seconds_left;
} vae_progress;

/* An epoch that is done. */
typedef struct {
    uint64_t epoch, epochs, step;
    vae_measurement train, validation, test; /* train: while its parameters still moved */
    double lr, beta, examples_per_s, wall_s, seconds_left;
    bool best; /* the best validation loss so far */
} vae_epoch_report;

/* What the trainer tells as it goes; the command line turns it into a progress line or plain
 * lines. Any pointer may be NULL. */
typedef struct {
    void *ctx;
    void (*progress)(void *ctx, const vae_progress *progress); /* a few times a second */
    void (*epoch)(void *ctx, const vae_epoch_report *report);
    void (*note)(void *ctx, const char *line); /* something worth a line; no newline */
} vae_trainer_events;

typedef struct {
    bool resume, force;
    const vae_stop_flag *stop_signal; /* set by a signal handler; 0 = go on. May be NULL */
    vae_trainer_events events;
} vae_trainer_options;

typedef struct {
    vae_train_state state;
    vae_epoch_report
        last;          /* the last whole epoch of this session; last.epoch == 0: there was none */
    bool had_finished; /* resumed a run with nothing left to do */
    char checkpoint[VAE_PATH + 64]; /* the newest; "" if there is none */
    char samples[VAE_PATH + 64];    /* the newest pictures; "" if the data are no pictures */
    char reconstruction[VAE_PATH + 64];
    char report[VAE_PATH + 64]; /* the newest; "" if there is none */
} vae_train_result;

/* Trains into config->out. Both sets are standardized in place where the config asks for it, by the
 * rows that train. train_set's rows may be split into training and validation;
 * test_set may be NULL; it is measured after every epoch. With options->resume, an empty or missing
 * folder, or one without a checkpoint, starts from the beginning (a note says so), else the newest
 * good checkpoint is continued bit for bit.
 * VAE_ERR_INTERRUPTED after a signal (state saved), VAE_ERR_DIVERGED (the last good checkpoint
 * stays), VAE_ERR_USAGE (non-empty folder without resume or force, resume with another model or
 * other data), VAE_ERR_DATA (values out of range, bad checkpoint), VAE_ERR_IO, VAE_ERR_RUNTIME. */
vae_status vae_train(const vae_config *config, vae_dataset *train_set, vae_dataset *test_set,
                     const vae_trainer_options *options, vae_train_result *result, vae_error *err);

/* Do these data suit these options? VAE_ERR_DATA for values that the likelihood does not take,
 * VAE_ERR_USAGE for --binarize on bits. vae_train asks it of its sets. */
vae_status vae_train_check_set(const vae_config *config, const vae_dataset *set, vae_error *err);

/* The plan of optimizer step `step` (from 1, over all epochs), which is in epoch `epoch` (from 0)
 * at example `position` of it: learning rate, beta and Adam's corrections by the schedules, in
 * double, and the epoch's order. steps_per_epoch counts the last partial batch.
 * cosine: lr * (1 + cos(pi * (step-1) / (epochs * steps_per_epoch))) / 2;
 * step: lr * lr_gamma^floor(epoch / lr_step_epochs);
 * staged: stage i lasts 3^i epochs at lr * 10^(-i/(stages-1)), the last one for good (Burda et al.
 * 2015); KL warm-up: beta * min(1, step / (kl_warmup * steps_per_epoch)). */
void vae_train_plan(vae_plan *plan, const vae_config *config, uint64_t step, uint64_t epoch,
                    uint64_t position, uint64_t steps_per_epoch);

/* The rows of `set` that training by config takes: all but those of the excluded class and those
 * kept for validation. *rows: (*n) row numbers, ascending, malloc'ed. Refuses what training would
 * refuse (VAE_ERR_USAGE, VAE_ERR_DATA); VAE_ERR_RUNTIME. */
vae_status vae_training_rows(uint32_t **rows, size_t *n, const vae_config *config,
                             const vae_dataset *set, vae_error *err);

/* The batch of measuring passes: larger than training's where that is small. What vae_measure's
 * model must have as its max_batch. */
size_t vae_measure_batch(const vae_config *config);

/* Mean losses of `data` (n examples) under the model (of config): one pass in order, with noise of
 * draw `draw`. The model's totals must be clear, and are afterwards. stop_signal may be NULL;
 * VAE_ERR_INTERRUPTED when it is set. VAE_ERR_DIVERGED if the loss is not finite. */
vae_status vae_measure(vae_measurement *out, vae_model *model, const vae_config *config,
                       vae_data *data, size_t n, uint64_t draw, const vae_stop_flag *stop_signal,
                       vae_error *err);

#endif
