/* The VAE on a backend: parameters, workspace, and the step. Knows nothing of files, epochs or
 * schedules. */
#ifndef VAE_MODEL_H
#define VAE_MODEL_H

#include "backend.h"
#include "config/config.h"
#include "model/layout.h"

typedef struct vae_model vae_model;

typedef enum { VAE_PARAMS = 0, VAE_ADAM_M, VAE_ADAM_V, VAE_GRADS } vae_state;

/* A model for data of that shape, all of its memory allocated for batches of up to max_batch
 * examples (and config->particles particles). train: gradients and moments too. The parameters are
 * zero until set. Keeps the backend pointer and a copy of config; the backend must outlive it.
 * Errors: VAE_ERR_USAGE, VAE_ERR_RUNTIME (memory: says how much, and what batch would fit). */
vae_status vae_model_create(vae_model **out, const vae_config *config, row_shape shape,
                            size_t max_batch, bool train, vae_backend *be, vae_error *err);
/* vae_rows_at_once of such a model; most, where none can be created. */
size_t vae_model_rows_at_once(const vae_config *config, row_shape shape, size_t least, size_t most);
void vae_model_free(vae_model *model);
const param_layout *vae_model_layout(const vae_model *model);
/* Those of its backend. */
const vae_ranks *vae_model_ranks(const vae_model *model);

/* Packed host floats (layout->n_params) from and to the backend. */
vae_status vae_model_get(vae_model *model, vae_state which, float *packed, vae_error *err);
vae_status vae_model_set(vae_model *model, vae_state which, const float *packed, vae_error *err);

/* Runs n training steps on batches of `rows` examples, one per plan entry (plan[i].first etc. say
 * which). Asynchronous; totals pile up in the backend until vae_model_totals. Where the backend has
 * ranks all of them call it, with the same: each computes its share of every batch (max_batch need
 * be no larger), and gradients are summed, so that all ranks' parameters stay equal to the bit, and
 * those of one rank with the whole batch up to the order of the sums. */
void vae_model_train(vae_model *model, vae_data *data, const vae_plan *plan, size_t n, size_t rows);
/* The same without backward and update, for validation and eval; shared alike. */
void vae_model_measure(vae_model *model, vae_data *data, const vae_plan *plan, size_t n,
                       size_t rows);
/* Sets the variance of a likelihood that has a fixed one, for steps to come. */
void vae_model_set_variance(vae_model *model, double variance);
/* Waits, reads the totals, clears them if asked. VAE_ERR_DIVERGED if a step went bad (the message
 * names it; *totals is filled all the same); a backend's error otherwise. Where the backend has
 * ranks: collective, and those of all ranks together. */
vae_status vae_model_totals(vae_model *model, vae_totals *totals, bool clear, vae_error *err);

/* The plan entry of an evaluation pass from row `first` on, in the data's order: its noise is the
 * k-th that such passes draw. */
static inline vae_plan vae_eval_plan(uint64_t k, size_t first)
{
    return (vae_plan){.draw = VAE_EVAL_DRAW(k), .first = first, .beta = 1, .step = 1};
}

/* One batch's details, to the host; each pointer may be NULL. Rows as the plan entry says (one
 * entry). Blocking. */
typedef struct {
    float *x;        /* (rows,D) the batch as the model saw it */
    float *mu;       /* (rows,Z) */
    float *logvar;   /* (rows,Z) */
    float *z;        /* (rows*K,Z) */
    float *kl;       /* (rows) closed form, nats */
    float *kl_dim;   /* (Z) batch means */
    float *recon;    /* (rows*K) nats */
    float *log_pq;   /* (rows*K) log p(z) - log q(z|x) */
    float *x_hat;    /* (rows*K,D) decoder's means */
    float *logits;   /* (rows*K,C) what recon was computed from: see vae_model_logits */
    uint32_t *label; /* (rows) the class that the model went by: the data's, or in a semi-supervised
                      * model its own; left alone in one without classes */
} vae_batch_out;
/* particles: 1 .. config->particles, or as vae_model_create was told. encode_only stops before
 * the decoder. */
vae_status vae_model_batch(vae_model *model, vae_data *data, const vae_plan *plan, size_t rows,
                           size_t particles, vae_batch_out *out, vae_error *err);

/* x_hat: (n,D) host floats from z: (n,Z) host floats: the decoder alone, in batches. */
vae_status vae_model_decode(vae_model *model, float *x_hat, const float *z, size_t n,
                            vae_error *err);
/* The same for a model with classes: label (n) are those of the rows; NULL for one without.
 * VAE_ERR_USAGE where they do not fit together; vae_model_decode is for models without. */
vae_status vae_model_decode_classes(vae_model *model, float *x_hat, const float *z,
                                    const uint32_t *label, size_t n, vae_error *err);

/* The same, but the output as recon_loss reads it: logits (n,C) host floats. Bernoulli: C = D
 * logits; Gaussian: C = D means; learned variance: C = 2D, [mean | raw log variance]. */
vae_status vae_model_logits(vae_model *model, float *logits, const float *z, const uint32_t *label,
                            size_t n, vae_error *err);

/* probability: (rows,C) host floats: q(y|x) of a semi-supervised model. Rows as the plan entry
 * says. VAE_ERR_USAGE if it has no classifier. */
vae_status vae_model_classify(vae_model *model, vae_data *data, const vae_plan *plan, size_t rows,
                              float *probability, vae_error *err);
#endif
