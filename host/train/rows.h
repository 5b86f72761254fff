/* Which rows train, which of them keep their label, and which validate. */
#ifndef VAE_TRAIN_ROWS_H
#define VAE_TRAIN_ROWS_H

#include "train/loop.h"

/* Do these data suit these options? VAE_ERR_DATA for values that the likelihood does not take,
 * VAE_ERR_USAGE for --binarize on bits. The loop asks it of its sets. */
vae_status vae_train_check_set(const vae_config *config, const vae_dataset *set, vae_error *err);

/* The rows of `set` by what training by config does with them: it takes all but those of the
 * excluded class and those kept for validation. *rows: (*n + *n_validation) row numbers, malloc'ed:
 * those that train, ascending, then those that validate, ascending. Refuses what training would
 * refuse (VAE_ERR_USAGE, VAE_ERR_DATA); VAE_ERR_RUNTIME. */
vae_status vae_training_rows(uint32_t **rows, size_t *n, size_t *n_validation,
                             const vae_config *config, const vae_dataset *set, vae_error *err);

/* ---- for the loop ---- */

/* Values in range, train and test alike in shape. */
vae_status vae_loop_check_data(const vae_loop *loop, vae_error *err);
/* Names of the training set's classes into loop->now, and where it is left to the data their number
 * into its config; the test set's labels become places among them. from: what is gone on with,
 * whose classes come first, or NULL. VAE_ERR_DATA, VAE_ERR_USAGE. */
vae_status vae_loop_resolve_classes(vae_loop *loop, const vae_checkpoint *from, vae_error *err);
/* How many rows of each class train: now->class_rows. To follow the choice of rows. */
vae_status vae_loop_count_classes(vae_loop *loop, vae_error *err);
/* rows, n_train and n_validation: class left out, split. */
vae_status vae_loop_choose_rows(vae_loop *loop, vae_error *err);
/* Moves the rows that keep their label behind the others: n_train and n_labelled. */
vae_status vae_loop_choose_labelled(vae_loop *loop, vae_error *err);
/* Which labelled rows a step of `rows` unlabelled ones takes. */
void vae_loop_plan_labelled(const vae_loop *loop, vae_plan *plan, size_t rows);
/* Where the config asks for it: both sets to mean 0 and deviation 1 by the training rows, or where
 * there is a model to go on `from`, as that has it. What makes them so, and the names of columns,
 * stay known in loop->now. */
vae_status vae_loop_standardize(vae_loop *loop, const vae_checkpoint *from, vae_error *err);
/* Mean of the training rows as the model sees them, (d) floats. VAE_ERR_RUNTIME (memory). */
vae_status vae_loop_data_mean(const vae_loop *loop, float *mean, vae_error *err);

#endif
