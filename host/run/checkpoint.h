/* Checkpoints: one file that holds a model and, to continue training bit for bit, everything
 * training depends on. Written atomically, read with suspicion. Format: checkpoint.c. */
#ifndef VAE_CHECKPOINT_H
#define VAE_CHECKPOINT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/sha256.h"
#include "base/status.h"
#include "config/config.h"
#include "dataset/dataset.h"
#include "model/layout.h"

/* Where training stands. All of it is needed for a bit-exact continuation: noise, data order and
 * schedules are functions of these counters and the config. */
typedef struct {
    uint64_t step;     /* optimizer steps done */
    uint64_t epoch;    /* epochs done */
    uint64_t position; /* examples of the current epoch done; 0 between epochs */
    double recon, kl, objective, examples;    /* the current epoch's totals so far */
    double variance_recon, variance_examples; /* of them, before the likelihood's variance is what
                                               * it is now, where it moves (gaussian-optimal) */
    double best;         /* best validation loss so far, nats; INFINITY before the first */
    uint64_t best_epoch; /* its epoch */
    uint64_t bad_epochs; /* epochs since */
    double wall_s;       /* training time so far, sessions before this one included */
    bool finished;       /* stopped early or all epochs done */
} vae_train_state;

typedef struct {
    vae_config config;
    size_t d, height, width, channels; /* shape of the data */
    size_t n_params;
    float *params;          /* (n_params) packed in the layout's order */
    float *adam_m, *adam_v; /* the same, or NULL */
    float *data_mean;       /* (d) mean of the training rows, or NULL */
    double *standard; /* (2,d): shift, then scale; the model's x is (data - shift)/scale; or NULL */
    char *columns;    /* of a table: d names, each with a zero byte behind it, or NULL */
    vae_classes classes;  /* of the training data's labels */
    bool classes_known;   /* false: names were not kept; a model's classes are called by numbers */
    uint64_t *class_rows; /* (classes.n) rows of each that were trained on; NULL: not known */
    vae_train_state state;
    uint8_t data_sha256[32]; /* of the training set */
    char summary[1024];      /* JSON object: last metrics, for `vae info` and export; may be "" */
} vae_checkpoint;

/* The shape that the model's layout is built for; rows not known to be pictures are flat. */
static inline row_shape vae_checkpoint_shape(const vae_checkpoint *c)
{
    const row_shape shape = {c->height, c->width, c->channels};
    size_t d;
    if (__builtin_mul_overflow(shape.h, shape.w, &d) || __builtin_mul_overflow(d, shape.c, &d) ||
        d != c->d) {
        return vae_flat(c->d);
    }
    return shape;
}

/* Writes atomically: temp file beside it (O_EXCL), every byte checked, fsync, rename, fsync of the
 * folder. On failure the old file is untouched and the temp file is gone. VAE_ERR_IO. */
vae_status vae_checkpoint_write(const char *path, const vae_checkpoint *checkpoint, vae_error *err);

/* Reads a checkpoint; moments only if asked (they are skipped, not missing, otherwise). Every
 * length is checked against the file's size before memory is taken, every section against its CRC,
 * the tensors against the layout that the config gives. VAE_ERR_IO (cannot read), VAE_ERR_DATA
 * (not a checkpoint, damaged, of a newer format: says where, expected and found).
 * *out is the caller's: vae_checkpoint_free. */
vae_status vae_checkpoint_read(vae_checkpoint **out, const char *path, bool moments,
                               vae_error *err);
void vae_checkpoint_free(vae_checkpoint *checkpoint);

/* Are these rows of the model's shape, its columns in its order? VAE_ERR_DATA. */
vae_status vae_checkpoint_check_set(const vae_checkpoint *checkpoint, const vae_dataset *set,
                                    vae_error *err);

/* x: (n,d), values of the model, to the data's units in place: x * scale + shift. Nothing where
 * data are not standardized. */
void vae_checkpoint_units(const vae_checkpoint *checkpoint, float *x, size_t n);

/* Were rows of the class trained on, as far as is known? */
bool vae_checkpoint_is_trained(const vae_checkpoint *checkpoint, size_t class);
/* The k-th of the classes that were trained, or SIZE_MAX: there are no more. */
size_t vae_checkpoint_trained_class(const vae_checkpoint *checkpoint, size_t k);
size_t vae_checkpoint_n_trained(const vae_checkpoint *checkpoint);
/* A model with classes but without their names gets numbers; of names there must be as many as
 * classes. VAE_ERR_DATA, its text being what is wrong. */
vae_status vae_checkpoint_settle_classes(vae_checkpoint *checkpoint, vae_error *err);

/* digest: SHA-256 of the weights, which two runs share if they gave the same bits.
 * VAE_ERR_RUNTIME. */
vae_status vae_checkpoint_digest(const vae_checkpoint *checkpoint, uint8_t digest[32],
                                 vae_error *err);

/* Are the weights those of `recorded`, an option's SHA-256 in hexadecimal? An empty one is filled
 * in. found: the weights'. VAE_ERR_RUNTIME. */
vae_status vae_checkpoint_recognize(const vae_checkpoint *checkpoint, char recorded[VAE_PATH],
                                    char found[VAE_SHA256_HEX], bool *same, vae_error *err);

/* Finds the checkpoint that RUN means: the file itself, or in a run folder the newest good
 * checkpoints/step-*.vae (or checkpoints/best.vae if `best`). Where the newest file is damaged,
 * err's notes name it, and the one before it is taken; where it cannot be read for another reason
 * (the disk, permissions, memory), that is the error: it may be good. */
vae_status vae_checkpoint_open_run(vae_checkpoint **out, const char *run, bool best, bool moments,
                                   char path[VAE_PATH], vae_error *err);

/* Removes old checkpoints step-*.vae of a run that has just written the one of `step`: all but the
 * newest `keep` that are whole, by their header and their size. One that is not whole is neither
 * counted nor removed, nor is one of a later step: it was passed over as damaged when the run was
 * taken up. So the one just written stays in any case. Failures are no errors: the next one
 * retries. */
void vae_checkpoint_rotate(const char *run, uint64_t step, size_t keep);

#endif
