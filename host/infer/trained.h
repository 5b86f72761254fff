/* A trained model put to use: opened once from what a run left, with the data it is asked about,
 * and rows pushed through it in input order. What commands, reports, training's own
 * pictures and libvae are made of. */
#ifndef VAE_TRAINED_H
#define VAE_TRAINED_H

#include "backend/open.h"
#include "base/stop.h"
#include "dataset/dataset.h"
#include "model/model.h"
#include "ranks/ranks.h"
#include "run/checkpoint.h"

enum { VAE_INFER_BATCH = 256 }; /* rows at once, where nothing asks for another number */

/* What is to happen while rows pass; all of it may be NULL. */
typedef struct {
    void (*progress)(void *ctx, double fraction, size_t n); /* of n rows */
    void *ctx;
    const vae_stop_flag *stop_signal; /* set: no further batch, VAE_ERR_INTERRUPTED */
} vae_watch;

/* Fill it by vae_trained_open or vae_trained_of; vae_trained_close in any case. A view of a model
 * that something else holds is filled by hand, and not closed. */
typedef struct vae_trained vae_trained;
struct vae_trained {
    /* Ranks that share the rows of its batches, all of them running the same passes; NULL: none. To
     * be set before vae_trained_start */
    const vae_ranks *ranks;
    const vae_checkpoint *checkpoint; /* shape of the data, classes, standardization, parameters */
    char path[VAE_PATH];              /* of it; "" = it was not read from a file here */
    vae_config config; /* the checkpoint's, with the device, seed, binarization of this use */
    /* from vae_trained_start on: */
    vae_backend *be;
    vae_model *model;
    size_t batch;       /* rows that the model takes at once */
    vae_trained *below; /* of a stacked model: the run whose latents its rows are, if opened */
    /* the data it is asked about, if any: */
    vae_dataset *set;  /* as the model takes them */
    const char *split; /* what is said of them: "train", "test" */
    vae_data *data;    /* n rows of them on the backend */
    size_t n;
    vae_checkpoint *own; /* what close frees */
};

/* Reads the checkpoint that `run` means, as vae_checkpoint_open_run does, whose errors it has.
 * Relative paths of its config that lead somewhere from where the run began become whole ones. The
 * config's device is as in training, its precision fp32: what the training machine had need not be
 * here. */
vae_status vae_trained_open(vae_trained *m, const char *run, bool best, vae_error *err);
/* The same of a checkpoint that was read, which must outlive it. */
void vae_trained_of(vae_trained *m, const vae_checkpoint *checkpoint);

/* Puts it on the config's device, without gradients, for batches of `batch` rows of up to
 * `particles` each; of fewer where their activations would be large (vae_rows_at_once): m->batch
 * says how many. Errors: as vae_backend_open and vae_model_create. */
vae_status vae_trained_start(vae_trained *m, size_t batch, size_t particles, vae_error *err);
void vae_trained_close(vae_trained *m);

/* A backend on the config's device, at its precision, on its threads, with these ranks or NULL. */
vae_status vae_backend_for(vae_backend **out, const vae_config *config, const vae_ranks *ranks,
                           vae_error *err);

/* ---- data (sets.c) ---- */

/* How data are read for the model: options, or without them what its config says, and what belongs
 * to the model. */
vae_data_options vae_trained_reading(const vae_trained *m, const vae_data_options *options);
/* Opens a set by name into m->set, in place of one that was there: as the model takes it, encoded
 * by the run below where it is stacked, standardized where the model's data were. VAE_ERR_DATA
 * where columns, values or labels are not the model's; as vae_dataset_open and vae_stack_open. */
vae_status vae_trained_open_set(vae_trained *m, const char *name, vae_split split,
                                const vae_data_options *options, vae_error *err);
/* The set's labels become the model's classes, by their names. One that it does not know stands
 * behind them and is told to err's notes; where the model needs each row's class, it is
 * VAE_ERR_DATA. */
vae_status vae_trained_take_classes(const vae_trained *m, vae_dataset *set, vae_error *err);
/* One row that is no part of m->set, from a picture file or any other that holds one, as the model
 * takes it; *out is the caller's. A stacked model has no such. As vae_trained_open_set. */
vae_status vae_trained_open_row(const vae_trained *m, vae_dataset **out, const char *path,
                                vae_error *err);
/* Takes set and data away. */
void vae_trained_close_set(vae_trained *m);

/* n rows of m->set on the backend, as m->data; those that were there make room. rows: (n) their
 * numbers; NULL: all, n is not read. */
vae_status vae_trained_put(vae_trained *m, const uint32_t *rows, size_t n, vae_error *err);

/* ---- passes ---- */

/* The plan of the first pass that evaluates; `mixed`: its rows not in order but in a fixed random
 * one, for data of which only some rows are shown and whose neighbours look alike: row i of the
 * pass is vae_shuffle(VAE_MIXED_ORDER, ...). */
vae_plan vae_mixed_plan(bool mixed);
enum { VAE_MIXED_ORDER = 20140119 };

typedef vae_status vae_batch_fn(void *ctx, const vae_plan *plan, size_t rows, vae_error *err);

/* Calls fn for n rows in order, `batch` of them at a time, the last time perhaps fewer: with the
 * plan, its `first` moved on. watch may be NULL. VAE_ERR_INTERRUPTED; what fn returns. */
vae_status vae_each_batch(const vae_plan *plan, size_t n, size_t batch, const vae_watch *watch,
                          vae_batch_fn *fn, void *ctx, vae_error *err);

/* vae_model_batch of m->data; ctx: a vae_trained. */
vae_status vae_trained_batch(void *ctx, const vae_plan *plan, size_t rows, size_t particles,
                             vae_batch_out *out, vae_error *err);
/* The same of any data on its backend. Its ranks, if any, share the rows: rows may be so many times
 * m->batch, each computes its part, and all get all of it. */
vae_status vae_trained_batch_of(const vae_trained *m, vae_data *data, const vae_plan *plan,
                                size_t rows, size_t particles, vae_batch_out *out, vae_error *err);
/* Rows that go through it best at once. */
static inline size_t vae_trained_at_once(const vae_trained *m)
{
    return m->batch * vae_ranks_n(m->ranks);
}

/* Runs the first n rows of m->data (by the plan's order) through the model. out's arrays are those
 * of all n rows: x, x_hat (n,D), mu, logvar, z (n,Z), kl, recon (n), label (n), each NULL where not
 * wanted; the others must be NULL. kl_dim: (Z) means over the rows, nats, or NULL. */
vae_status vae_trained_run(const vae_trained *m, size_t n, const vae_plan *plan,
                           const vae_watch *watch, const vae_batch_out *out, double *kl_dim,
                           vae_error *err);
/* The same for all rows of another set, which is as the model takes it; draw: as in vae_plan.
 * VAE_ERR_DATA if its rows or labels are not the model's. */
vae_status vae_trained_run_set(const vae_trained *m, const vae_dataset *set, uint64_t draw,
                               const vae_batch_out *out, vae_error *err);

/* probability: (n,C) q(y|x) of all rows of a set that is as the model takes it, or NULL: of those
 * of m->data. As vae_trained_run_set; VAE_ERR_USAGE if the model has no classifier. */
vae_status vae_trained_classify(const vae_trained *m, const vae_dataset *set, float *probability,
                                vae_error *err);

/* order: (Z) out: numbers of the latents, those of highest kl: (Z) first. */
void vae_order_by_kl(size_t *order, const double *kl, size_t n_latents);

/* ---- decoding ---- */

/* What decoded rows are: the model's data, or where the run below is open, those of it. */
const vae_checkpoint *vae_trained_shape(const vae_trained *m);
/* x_hat: (n,d of that shape) from z: (n,Z), as the model has its data; label: (n) of a model with
 * classes, else NULL. */
vae_status vae_trained_decode(const vae_trained *m, float *x_hat, const float *z,
                              const uint32_t *label, size_t n, vae_error *err);

#endif
