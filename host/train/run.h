/* A training run: the loop, and the folder that tells of it. */
#ifndef VAE_TRAIN_RUN_H
#define VAE_TRAIN_RUN_H

#include "run/folder.h"
#include "train/loop.h"

/* What a run tells as it goes; the command line turns it into a progress line or plain lines. Any
 * pointer may be NULL. */
typedef struct {
    void *ctx;
    void (*progress)(void *ctx, const vae_progress *progress); /* a few times a second */
    void (*epoch)(void *ctx, const vae_epoch_record *record);
    void (*note)(void *ctx, const char *line); /* something worth a line; no newline */
} vae_train_events;

typedef struct {
    bool resume, force;
    bool anew;                        /* with resume: begin a run where there is none */
    const vae_stop_flag *stop_signal; /* may be NULL */
    /* All of them call vae_train, with the same config and data. The first writes the folder, has
     * the events and the result; on the others config->out is not read. NULL: alone */
    const vae_ranks *ranks;
    vae_train_events events;
} vae_train_options;

typedef struct {
    vae_train_state state;
    vae_epoch_record last; /* the last whole epoch of this session; epoch == 0: there was none */
    bool had_finished; /* resumed a run with nothing left to train; what it lacked was written */
    bool lost; /* trained to the end and saved, but the folder lacks something: that is the error */
    /* the newest of each; "" if there is none */
    char checkpoint[VAE_RUN_PATH];
    char samples[VAE_RUN_PATH], reconstruction[VAE_RUN_PATH]; /* of data that are pictures */
    char report[VAE_RUN_PATH];
} vae_train_result;

/* Trains into config->out. train_set and test_set as in vae_loop_open. With options->resume the
 * newest good checkpoint is continued bit for bit; where there is none, `anew` starts from the
 * beginning (a note says so).
 * VAE_ERR_INTERRUPTED after a signal (state saved), VAE_ERR_DIVERGED (the last good checkpoint
 * stays), VAE_ERR_USAGE (non-empty folder without resume or force, resume with another model or
 * other data), VAE_ERR_DATA (values out of range, bad checkpoint), VAE_ERR_IO, VAE_ERR_RUNTIME. */
vae_status vae_train(const vae_config *config, vae_dataset *train_set, vae_dataset *test_set,
                     const vae_train_options *options, vae_train_result *result, vae_error *err);

/* The summary of a checkpoint: the last metrics as a JSON object, for `vae info` and export.
 * VAE_ERR_RUNTIME: no memory. */
vae_status vae_train_summarize(vae_checkpoint *checkpoint, const vae_epoch_record *record,
                               vae_error *err);

#endif
