/* What the host asks of a model: totals, the details of a batch, decoding, its state. */
#include <assert.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "model/state.h"
#include "ranks/ranks.h"

/* With ranks: those of all of them, and the same error on each. */
static vae_status sum_totals(const vae_model *m, vae_totals *totals, vae_error *err)
{
    double sums[] = {totals->recon,    totals->kl,     totals->objective,
                     totals->examples, totals->errors, totals->classified};
    vae_status status = VAE_OK;
    if (m->be->ranks == NULL) {
        return VAE_OK;
    }
    TRY(vae_ranks_sum_doubles(m->be->ranks, sums, sizeof sums / sizeof *sums, err));
    TRY(vae_ranks_largest(m->be->ranks, &totals->bad_step, 1, err));
    totals->recon = sums[0];
    totals->kl = sums[1];
    totals->objective = sums[2];
    totals->examples = sums[3];
    totals->errors = sums[4];
    totals->classified = sums[5];
done:
    return status;
}

vae_status vae_model_totals(vae_model *model, vae_totals *totals, bool clear, vae_error *err)
{
    const vae_totals zero = {0};
    model->be->ops->download(model->be, totals, model->totals, sizeof *totals);
    if (clear) {
        model->be->ops->upload(model->be, model->totals, &zero, sizeof zero);
    }
    vae_status status = VAE_OK;
    TRY(model->be->ops->sync(model->be, err));
    TRY(sum_totals(model, totals, err));
    if (totals->bad_step != 0) {
        TRY(vae_fail(err, VAE_ERR_DIVERGED,
                     "the loss or its gradient became NaN or Inf in step %llu; the parameters "
                     "were not changed by it",
                     (unsigned long long)totals->bad_step));
    }
done:
    return status;
}

/* Decoder means of the rows*K logits that lie in the workspace, to the host. */
static void download_x_hat(vae_model *m, float *x_hat, size_t rows)
{
    const size_t D = m->layout.d, act = m->be->ops->act_size(m->be);
    vae_mat logits = y_of(m, m->n_layers - 1);
    for (size_t r = 0; r < rows; r += VAE_DECODE_ROWS) {
        size_t n = rows - r < VAE_DECODE_ROWS ? rows - r : VAE_DECODE_ROWS;
        vae_mat part = {(char *)logits.data + r * logits.ld * act, logits.ld};
        m->be->ops->decode(m->be, array(m, m->plan.x_hat), part, n, D, recon_of(m));
        m->be->ops->download(m->be, x_hat + r * D, array(m, m->plan.x_hat), n * D * sizeof(float));
    }
}

static void download_logits(vae_model *m, float *logits, size_t rows)
{
    const size_t last = m->n_layers - 1;
    m->be->ops->download_mat(m->be, logits, y_of(m, last), rows, m->layout.layers[last].out);
}

static void download_floats(vae_model *m, float *to, size_t offset, size_t n)
{
    if (to != NULL) {
        m->be->ops->download(m->be, to, array(m, offset), n * sizeof(float));
    }
}

/* mu and logvar lie side by side in the head; the host wants them apart. */
static vae_status download_head(vae_model *m, const vae_batch_out *out, size_t rows, vae_error *err)
{
    const size_t Z = m->layout.z;
    float *head = malloc(rows * 2 * Z * sizeof *head);
    if (head == NULL) {
        return vae_fail_memory(err, rows * 2 * Z * sizeof *head, "mu and logvar");
    }
    m->be->ops->download_mat(m->be, head, y_of(m, head_of(m)), rows, 2 * Z);
    for (size_t r = 0; r < rows; r++) {
        if (out->mu != NULL) {
            memcpy(out->mu + r * Z, head + r * 2 * Z, Z * sizeof *head);
        }
        if (out->logvar != NULL) {
            memcpy(out->logvar + r * Z, head + r * 2 * Z + Z, Z * sizeof *head);
        }
    }
    free(head);
    return VAE_OK;
}

vae_status vae_model_batch(vae_model *model, vae_data *data, const vae_plan *plan, size_t rows,
                           size_t particles, vae_batch_out *out, vae_error *err)
{
    vae_backend *be = model->be;
    vae_status status = VAE_OK;
    if (rows > model->max_batch || particles > model->max_particles) {
        TRY(vae_fail(err, VAE_ERR_RUNTIME,
                     "a batch of %zu examples x %zu particles, for a model made for %zu x %zu",
                     rows, particles, model->max_batch, model->max_particles));
    }
    bool whole = out->recon != NULL || out->x_hat != NULL || out->logits != NULL;
    vae_run_pass(model, whole ? PASS_BATCH : PASS_ENCODE, data, plan, 1, rows, particles, rows);
    if (out->x != NULL) {
        be->ops->download_mat(be, out->x, input_of(model, 0), rows, model->layout.d);
    }
    if (out->mu != NULL || out->logvar != NULL) {
        TRY(download_head(model, out, rows, err));
    }
    if (out->z != NULL) {
        be->ops->download_mat(be, out->z, input_of(model, model->layout.n_encoder),
                              rows * particles, model->layout.z);
    }
    download_floats(model, out->kl, model->plan.kl_row, rows);
    download_floats(model, out->kl_dim, model->plan.kl_dim, model->layout.z);
    download_floats(model, out->recon, model->plan.recon_row, rows * particles);
    download_floats(model, out->log_pq, model->plan.log_pq, rows * particles);
    if (out->x_hat != NULL) {
        download_x_hat(model, out->x_hat, rows * particles);
    }
    if (out->label != NULL && model->layout.c > 0) {
        be->ops->download(be, out->label, labels_at(model, model->plan.label),
                          rows * sizeof *out->label);
    }
    if (out->logits != NULL) {
        download_logits(model, out->logits, rows * particles);
    }
    status = be->ops->sync(be, err);
done:
    return status;
}

vae_status vae_model_classify(vae_model *model, vae_data *data, const vae_plan *plan, size_t rows,
                              float *probability, vae_error *err)
{
    const size_t C = model->layout.c;
    if (!is_semi(model)) {
        return vae_fail(err, VAE_ERR_USAGE,
                        "the model has no classifier: it was not trained with "
                        "--semi-supervised");
    }
    assert(rows <= model->max_batch);
    vae_run_pass(model, PASS_CLASSIFY, data, plan, 1, rows, 1, rows);
    model->be->ops->download_mat(model->be, probability,
                                 y_of(model, model->n_layers + model->layout.n_classifier - 1),
                                 rows, C);
    for (size_t r = 0; r < rows; r++) {
        float *p = probability + r * C;
        double most = (double)p[0], sum = 0;
        for (size_t c = 0; c < C; c++) {
            most = (double)p[c] > most ? (double)p[c] : most;
        }
        for (size_t c = 0; c < C; c++) {
            sum += exp((double)p[c] - most);
        }
        for (size_t c = 0; c < C; c++) {
            p[c] = (float)(exp((double)p[c] - most) / sum);
        }
    }
    return model->be->ops->sync(model->be, err);
}

/* The decoder alone on n rows of z, its means to x_hat, its whole output to logits; either may be
 * NULL. */
static vae_status decode_rows(vae_model *model, float *x_hat, float *logits, const float *z,
                              const uint32_t *label, size_t n, vae_error *err)
{
    if ((label != NULL) != (model->layout.c > 0)) {
        return vae_fail(err, VAE_ERR_USAGE,
                        label != NULL ? "the model is not conditional: it takes no class"
                                      : "the model has classes: decoding needs one");
    }
    const size_t Z = model->layout.z, D = model->layout.d;
    const size_t most = model->max_batch * model->max_particles;
    const size_t C = model->layout.layers[model->n_layers - 1].out;
    const vae_plan plan = {0};
    for (size_t r = 0; r < n; r += most) {
        size_t rows = n - r < most ? n - r : most;
        model->be->ops->upload_mat(model->be, input_of(model, model->layout.n_encoder), z + r * Z,
                                   rows, Z);
        if (label != NULL) {
            model->be->ops->upload(model->be, labels_at(model, model->plan.label), label + r,
                                   rows * sizeof *label);
        }
        vae_run_pass(model, PASS_DECODE, NULL, &plan, 1, rows, 1, rows);
        if (x_hat != NULL) {
            download_x_hat(model, x_hat + r * D, rows);
        }
        if (logits != NULL) {
            download_logits(model, logits + r * C, rows);
        }
    }
    return model->be->ops->sync(model->be, err);
}

vae_status vae_model_decode(vae_model *model, float *x_hat, const float *z, size_t n,
                            vae_error *err)
{
    return decode_rows(model, x_hat, NULL, z, NULL, n, err);
}

vae_status vae_model_decode_classes(vae_model *model, float *x_hat, const float *z,
                                    const uint32_t *label, size_t n, vae_error *err)
{
    return decode_rows(model, x_hat, NULL, z, label, n, err);
}

vae_status vae_model_logits(vae_model *model, float *logits, const float *z, const uint32_t *label,
                            size_t n, vae_error *err)
{
    return decode_rows(model, NULL, logits, z, label, n, err);
}

const vae_ranks *vae_model_ranks(const vae_model *model)
{
    return model->be->ranks;
}

const param_layout *vae_model_layout(const vae_model *model)
{
    return &model->layout;
}

static float *state_buffer(vae_model *model, vae_state which)
{
    switch (which) {
    case VAE_PARAMS:
        return model->params;
    case VAE_ADAM_M:
        return model->adam_m;
    case VAE_ADAM_V:
        return model->adam_v;
    case VAE_GRADS:
        return model->grads;
    }
    return NULL;
}

vae_status vae_model_get(vae_model *model, vae_state which, float *packed, vae_error *err)
{
    const float *from = state_buffer(model, which);
    model->be->ops->download(model->be, model->staging, from, model->layout.total * sizeof *from);
    vae_status status = model->be->ops->sync(model->be, err);
    if (status == VAE_OK) { /* after an error there is nothing to pack */
        vae_layout_pack(&model->layout, packed, model->staging);
    }
    return status;
}

vae_status vae_model_set(vae_model *model, vae_state which, const float *packed, vae_error *err)
{
    float *to = state_buffer(model, which);
    vae_layout_unpack(&model->layout, model->staging, packed);
    model->be->ops->upload(model->be, to, model->staging, model->layout.total * sizeof *to);
    if (which == VAE_PARAMS) {
        model->be->ops->bind_params(model->be, model->params, model->layout.total);
    }
    return model->be->ops->sync(model->be, err);
}
