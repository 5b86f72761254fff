/* The training loop: epochs of steps, schedules, measuring, stop rules. It keeps its state in
 * memory and does no more than train: whoever drives it decides what to write, show or send.
 *
 *     TRY(vae_loop_open(&loop, &config, set, NULL, NULL, NULL, NULL, NULL, err));
 *     TRY(vae_loop_begin(&loop, NULL, err));
 *     do {
 *         TRY(vae_loop_next(&loop, &event, err));
 *     } while (event < VAE_LOOP_STOPPED);
 *     TRY(vae_loop_capture(&loop, err));
 *     ... loop.now is the model ...
 * done:
 *     vae_loop_close(&loop);
 *
 * Every number that training depends on is in the config and in vae_train_state, so that a loop
 * that begins from what another one captured goes on bit for bit. */
#ifndef VAE_TRAIN_LOOP_H
#define VAE_TRAIN_LOOP_H

#include "backend.h"
#include "base/note.h"
#include "base/stop.h"
#include "config/config.h"
#include "dataset/dataset.h"
#include "infer/measure.h"
#include "run/checkpoint.h"

/* Where training stands, between two steps. */
typedef struct {
    uint64_t epoch, epochs; /* the current epoch, from 1 */
    uint64_t position, n;   /* examples of it that are done */
    double elbo, recon, kl; /* means of it so far, nats per example */
    double bound;           /* the same of what is maximized, if that is not the ELBO */
    bool bounded;           /* it is not: iwae, dreg, stl */
    double examples_per_s, seconds_left;
} vae_progress;

/* An epoch that is done. */
typedef struct {
    uint64_t epoch, epochs, step;
    vae_measurement train, validation, test; /* train: while its parameters still moved */
    double lr, beta, examples_per_s, wall_s, seconds_left;
    bool best;    /* the best validation loss so far */
    bool bounded; /* what is maximized, each measurement's -bound, is not its elbo */
} vae_epoch_record;

typedef enum {
    VAE_LOOP_STEPS,   /* some steps of an epoch are done: vae_loop_progress tells */
    VAE_LOOP_EPOCH,   /* an epoch is done and measured: `last` tells */
    VAE_LOOP_STOPPED, /* asked to stop: nothing is lost, and `next` goes on once it may */
    VAE_LOOP_DONE,    /* all epochs are done, or the stop rule ended them */
} vae_loop_event;

/* Fields are for reading. */
typedef struct {
    /* What a checkpoint holds. config, shape and state are always up to date (but for wall_s),
     * parameters and moments after vae_loop_capture; whoever drives may fill in the summary.
     * Whoever needs it longer takes it and leaves NULL before vae_loop_close. */
    vae_checkpoint *now;
    const vae_config *config; /* now's: what was given, and the number of classes */
    vae_epoch_record last;    /* last.epoch == 0: none was done here */
    vae_dataset *train_set, *test_set;
    const vae_stop_flag *stop;
    const vae_ranks *ranks; /* NULL: alone */
    vae_notes notes;
    vae_backend *be;
    vae_model *model;
    vae_data *train, *validation, *test; /* on the backend; NULL: there are none */
    uint32_t *rows; /* of train_set, in this order: those that train, labelled ones, validation's */
    size_t n_train, n_labelled, n_validation;
    size_t measure_batch; /* of all ranks; the model takes a share */
    uint64_t steps_per_epoch;
    double started; /* monotonic time of vae_loop_begin */
    /* its own */
    vae_plan *plan; /* VAE_PACE_MOST */
    vae_pace pace;
    vae_train_state before; /* its totals: those of the epoch before this loop took it up */
    double wall_before;     /* now's wall_s at `started` */
    double examples;        /* trained here */
    double epoch_seconds, epoch_examples; /* of this epoch's steps here */
} vae_loop;

/* Everything that has to be there before the first step. Both sets are standardized in place:
 * where the config asks for it, by the rows that train, or as `from` has it, whose shift and scale
 * are the model's; they must outlive the loop. train_set's rows may be split into training and
 * validation; test_set, which may be NULL, is measured after every epoch. from: what
 * vae_loop_begin will begin from. from, ranks, stop and notes may be NULL. The config must have
 * passed vae_config_check. VAE_ERR_USAGE and VAE_ERR_DATA for data that do not suit the options or
 * `from`; as vae_backend_open and vae_model_create. After an error there is nothing to close. */
vae_status vae_loop_open(vae_loop *loop, const vae_config *config, vae_dataset *train_set,
                         vae_dataset *test_set, const vae_checkpoint *from, const vae_ranks *ranks,
                         const vae_stop_flag *stop, const vae_notes *notes, vae_error *err);
void vae_loop_close(vae_loop *loop);

/* With ranks, all of them run a loop of the same config and data, which is checked, and call the
 * same of vae_loop_open, _begin and _next, which are collective: events, errors, figures and
 * parameters are the same on all, and what one rank alone is told (a signal) counts for all. */

/* Begins anew, with the weights of `from` if it is there without moments; or where another loop of
 * this config was when it captured `from`: moments included, and counters that vae_loop_fits. Only
 * the number of epochs may be another: what was finished goes
 * on if it is larger. */
vae_status vae_loop_begin(vae_loop *loop, const vae_checkpoint *from, vae_error *err);
/* Do its counters fit together, and with this loop's data and batches? They may come from a
 * file. */
bool vae_loop_fits(const vae_loop *loop, const vae_train_state *state);

/* Tells the notes what there is to train, on what and where. */
void vae_loop_describe(const vae_loop *loop);

/* Goes on to the next event; within an epoch that is a fraction of a second. VAE_ERR_DIVERGED: a
 * loss, gradient or parameter became NaN or Inf. After an error the loop is of no more use. */
vae_status vae_loop_next(vae_loop *loop, vae_loop_event *event, vae_error *err);
/* Instead of a vae_loop_next: whoever drives has failed with this status, and the other ranks are
 * to end with it, too. */
void vae_loop_give_up(vae_loop *loop, vae_status status);
vae_progress vae_loop_progress(const vae_loop *loop);

/* Fetches parameters and moments, and sets wall_s: `now` is a checkpoint of this moment.
 * VAE_ERR_DIVERGED as above. */
vae_status vae_loop_capture(vae_loop *loop, vae_error *err);
/* Seconds of training so far, earlier loops included. */
double vae_loop_wall(const vae_loop *loop);

#endif
