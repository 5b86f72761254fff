/* A model's state, and what its files ask of each other, each of those below it: host.c,
 * what the host asks besides steps; model.c, the step; classes.c, what conditional and
 * semi-supervised models do differently; layers.c, what both are made of. */
#ifndef VAE_MODEL_STATE_H
#define VAE_MODEL_STATE_H

#include "model/model.h"
#include "model/workspace.h"
#include "ranks/ranks.h"

typedef enum {
    PASS_TRAIN,
    PASS_MEASURE,
    PASS_BATCH,
    PASS_ENCODE,
    PASS_DECODE,
    PASS_CLASSIFY
} pass_kind;

/* One captured shape of the step: what a backend may replay as long as nothing here changes. */
typedef struct {
    vae_model *model;
    pass_kind kind;
    vae_data *data;
    size_t rows, particles;
    size_t all; /* of a training step: rows of all ranks, which its means are over; else rows */
} pass;

enum { VAE_SHARED_PLAN = 1024 };

struct vae_model {
    vae_config config;
    param_layout layout;
    vae_backend *be;
    size_t max_batch, max_particles;
    size_t n_layers;    /* of encoder and decoder */
    vae_share labelled; /* this rank's of a training step's examples beside its batch */
    vae_plan *shared; /* with ranks, VAE_SHARED_PLAN entries: a plan as this rank's share has it */
    bool train;
    float *params, *grads, *adam_m, *adam_v; /* flat, padded; the last three NULL unless train */
    float *staging;                          /* host: one flat buffer */
    vae_totals *totals;
    char *workspace;
    workspace_plan plan;
    pass passes[VAE_SLOTS];
    int next_slot;
};

/* ---- views of the workspace ---- */

static inline vae_mat mat(const vae_model *m, size_t offset, size_t cols)
{
    vae_mat view = {offset == SIZE_MAX ? NULL : m->workspace + offset, vae_pad(cols)};
    return view;
}

static inline uint32_t *labels_at(const vae_model *m, size_t offset)
{
    return (uint32_t *)(void *)(m->workspace + offset);
}

static inline float *array(const vae_model *m, size_t offset)
{
    return (float *)(void *)(m->workspace + offset);
}

static inline vae_mat y_of(const vae_model *m, size_t l)
{
    return mat(m, m->plan.y[l], m->layout.layers[l].out + m->layout.layers[l].beside);
}

static inline vae_mat dy_of(const vae_model *m, size_t l)
{
    return mat(m, m->plan.dy[l], m->layout.layers[l].out + m->layout.layers[l].beside);
}

static inline void *aux_of(const vae_model *m, size_t l)
{
    return m->plan.aux[l] == SIZE_MAX ? NULL : m->workspace + m->plan.aux[l];
}

static inline void *scratch_of(const vae_model *m)
{
    return m->plan.conv == SIZE_MAX ? NULL : m->workspace + m->plan.conv;
}

static inline vae_mat input_of(const vae_model *m, size_t l)
{
    const size_t in = m->layout.layers[l].in; /* the class included */
    if (l == 0 || l == m->n_layers) {
        /* a semi-supervised model's class is not in x: classes.c */
        return mat(m, m->plan.x, m->layout.n_classifier > 0 ? m->layout.d : in);
    }
    return l == m->layout.n_encoder ? mat(m, m->plan.z, in) : y_of(m, l - 1);
}

static inline size_t head_of(const vae_model *m)
{
    return m->layout.n_encoder - 1;
}

static inline vae_noise noise_of(const vae_model *m)
{
    return (vae_noise){m->config.seed};
}

static inline vae_recon recon_of(const vae_model *m)
{
    return vae_recon_of(m->config.likelihood, m->config.variance, m->config.mean);
}

static inline bool is_semi(const vae_model *m)
{
    return m->layout.n_classifier > 0;
}

/* ---- layers.c ---- */

/* y of layers first .. end-1; with `keep`, what backward needs. */
void vae_layers_forward(vae_model *m, size_t first, size_t end, size_t rows, bool keep);
/* Gradients of layers end-1 down to `first`; the gradient of layer end-1's output is in dy. top:
 * what made that also made layer end-1's bias gradient if it was asked to, by vae_bias_early(). */
void vae_layers_backward(vae_model *m, size_t first, size_t end, size_t rows, bool top);
/* Where the gradient of layer l's bias goes, if the operation that makes its dy of so many rows
 * should also make
 * that; else NULL. */
float *vae_bias_early(const vae_model *m, size_t l, size_t rows);
void vae_gather(vae_model *m, vae_mat x, const pass *p, size_t rows);
/* n whole steps of the plan at once, if the backend does that for this model; else false. */
bool vae_run_whole(vae_model *m, vae_data *data, size_t n, size_t rows);
/* Once layer l's gradients are there: with ranks, their sum. adds: have they anything to add? */
void vae_sum_layer(vae_model *m, size_t l, bool adds);
/* The update, from the gradients of all layers. */
void vae_optimize(vae_model *m);

/* ---- classes.c ---- */

/* The encoder of a model with classes on p->rows examples: of a conditional model with their
 * labels, of a semi-supervised one with the class that it takes them for, without backward. */
void vae_classes_encode(vae_model *m, const pass *p, bool keep);
/* The class beside z: rows*K rows. */
void vae_classes_decode(vae_model *m, size_t rows, size_t particles);
/* The semi-supervised step, with backward and update or without. */
vae_step_fn vae_semi_train_step, vae_semi_measure_step, vae_classify_step;

/* ---- model.c ---- */

/* Runs n steps of a kind, in the slot that holds this very pass, or in one taken over for it. */
void vae_run_pass(vae_model *m, pass_kind kind, vae_data *data, const vae_plan *plan, size_t n,
                  size_t rows, size_t particles, size_t all);

#endif
