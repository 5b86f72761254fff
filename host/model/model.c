/* The step, written once over the backend's operations.
 *
 * Notation (Kingma & Welling 2013; Burda et al. 2015): q(z|x) = N(mu, sigma^2), sigma^2 =
 * exp(logvar), z_k = mu + sigma*eps_k, k = 1..K; recon_k = -log p(x|z_k);
 * log w_k = -recon_k + log p(z_k) - log q(z_k|x).
 *
 * What is minimized, as the mean over the B examples of a batch:
 *   elbo  (1/K) sum_k recon_k + beta*KL(q||p), KL in closed form
 *   iwae  -log (1/K) sum_k w_k                                  (Burda et al. 2015, eq. 8)
 *   stl   the same value; gradient without the score of q       (Roeder et al. 2017)
 *   dreg  the same value; encoder's gradient doubly reparameterized (Tucker et al. 2018, eq. 8)
 *
 * With w~_k = w_k / sum w, s = 1/B, and dz_k the gradient that reaches z_k through the decoder when
 * dlogits of particle k are scaled by s/K (elbo) or s*w~_k (others), latent_backward gives
 *   elbo  dmu = sum_k dz_k + s*beta*mu
 *         dlogvar = sum_k dz_k*eps_k*sigma/2 + s*beta*(sigma^2 - 1)/2
 *   iwae  g_k = dz_k + s*w~_k*z_k;                dmu = sum_k g_k
 *         dlogvar = sum_k (g_k*eps_k*sigma/2 - s*w~_k/2)
 *   stl   g_k = dz_k + s*w~_k*(z_k - eps_k/sigma);  dmu = sum_k g_k
 *         dlogvar = sum_k g_k*eps_k*sigma/2
 *   dreg  as stl with g_k = w~_k*(dz_k + s*w~_k*(z_k - eps_k/sigma))
 * (z_k - eps_k/sigma is the derivative of -log p(z) + log q(z|x) along z.)
 */
#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "model/state.h"

static vae_mat no_mat(void)
{
    return (vae_mat){NULL, 0};
}

/* ---- the step ---- */

static void encode(vae_model *m, const pass *p, bool keep)
{
    if (m->layout.c > 0) {
        vae_classes_encode(m, p, keep);
        return;
    }
    vae_gather(m, input_of(m, 0), p, p->rows);
    vae_layers_forward(m, 0, m->layout.n_encoder, p->rows, keep);
}

/* z and both parts of the loss; with `keep`, dlogits in place of the logits. log_pq is wanted where
 * particles are weighted. */
static void decode_and_compare(vae_model *m, const pass *p, bool keep, bool log_pq)
{
    const size_t B = p->rows, K = p->particles, last = m->n_layers - 1;
    const bool weighted = m->config.objective != VAE_OBJ_ELBO;
    float scale = 1.0f / (float)(weighted ? p->all : p->all * K);
    const size_t rows = B * K, in = m->layout.layers[last].in;
    const tensor_desc *w = &m->layout.tensors[m->layout.layers[last].weight];
    const tensor_desc *b = &m->layout.tensors[m->layout.layers[last].bias];
    m->be->ops->latent_forward(m->be, input_of(m, m->layout.n_encoder), array(m, m->plan.kl_row),
                               log_pq ? array(m, m->plan.log_pq) : NULL, y_of(m, head_of(m)), B, K,
                               m->layout.z, noise_of(m));
    if (m->layout.c > 0) {
        vae_classes_decode(m, B, K);
    }
    if (keep && !m->layout.layers[last].is_conv) {
        vae_layers_forward(m, m->layout.n_encoder, last, rows, true);
        m->be->ops->linear_recon_loss(m->be, array(m, m->plan.recon_row), y_of(m, last),
                                      weighted ? NULL : vae_bias_early(m, last, rows),
                                      input_of(m, last), m->params + w->offset, w->ld,
                                      m->params + b->offset, input_of(m, 0), B, K, in, m->layout.d,
                                      recon_of(m), scale);
        return;
    }
    vae_layers_forward(m, m->layout.n_encoder, m->n_layers, rows, keep);
    m->be->ops->recon_loss(m->be, array(m, m->plan.recon_row), keep ? dy_of(m, last) : no_mat(),
                           NULL, y_of(m, last), input_of(m, 0), B, K, m->layout.d, recon_of(m),
                           scale);
}

/* The KL of each latent is a mean over the batch, so with ranks one over all of their rows. */
static void sum_kl_dims(vae_model *m, bool training, bool adds)
{
    if (training && vae_ranks_n(m->be->ranks) > 1) {
        m->be->ops->sum_ranks(m->be, array(m, m->plan.kl_dim), m->layout.z, adds, false, NULL);
    }
}

/* What the decoder's layers read, without the rows of particles that dlogits lack now. */
static void drop_inputs(vae_model *m, size_t rows)
{
    const float *weight = array(m, m->plan.weight);
    for (size_t l = m->layout.n_encoder; l < m->n_layers; l++) {
        m->be->ops->drop_rows(m->be, input_of(m, l), weight, rows, m->layout.layers[l].in);
        if (l > m->layout.n_encoder && aux_of(m, l - 1) != NULL) {
            const vae_mat aux = {aux_of(m, l - 1), y_of(m, l - 1).ld};
            m->be->ops->drop_rows(m->be, aux, weight, rows, m->layout.layers[l - 1].out);
        }
    }
}

/* Importance weights, free bits' averages, and the running totals. Returns the rows of dlogits. */
static size_t account(vae_model *m, const pass *p, bool keep)
{
    const size_t B = p->rows, K = p->particles, last = m->n_layers - 1;
    const bool weighted = m->config.objective != VAE_OBJ_ELBO;
    const bool free_bits = m->config.free_bits > 0;
    float *bound_row = weighted ? array(m, m->plan.bound_row) : NULL;
    float *kl_dim = free_bits ? array(m, m->plan.kl_dim) : NULL;
    size_t rows = B * K;
    if (weighted) {
        rows = m->be->ops->particle_weights(
            m->be, array(m, m->plan.weight), bound_row, keep ? dy_of(m, last) : no_mat(),
            keep ? vae_bias_early(m, last, B * K) : NULL, array(m, m->plan.recon_row),
            array(m, m->plan.log_pq), B, K, m->layout.layers[last].out);
    }
    if (keep && rows < B * K) {
        drop_inputs(m, B * K);
    }
    if (free_bits) {
        m->be->ops->kl_dims(m->be, kl_dim, y_of(m, head_of(m)), B, p->all, m->layout.z);
        sum_kl_dims(m, keep, true);
    }
    m->be->ops->accumulate(m->be, m->totals, array(m, m->plan.recon_row), array(m, m->plan.kl_row),
                           bound_row, kl_dim, B, K, m->layout.z, (float)m->config.free_bits);
    return rows;
}

/* The step of a rank that has no row of a batch smaller than the ranks: the others' sums, in the
 * order in which they come, and the same update. */
static void idle_step(void *ctx)
{
    vae_model *m = ((const pass *)ctx)->model;
    if (m->config.free_bits > 0) {
        sum_kl_dims(m, true, false);
    }
    for (size_t l = m->n_layers; l-- > 0;) {
        vae_sum_layer(m, l, false);
    }
    for (size_t l = m->n_layers + m->layout.n_classifier; l-- > m->n_layers;) {
        vae_sum_layer(m, l, false);
    }
    vae_optimize(m);
}

static void train_step(void *ctx)
{
    const pass *p = ctx;
    vae_model *m = p->model;
    const bool weighted = m->config.objective != VAE_OBJ_ELBO;
    const size_t head = head_of(m);
    encode(m, p, true);
    decode_and_compare(m, p, true, weighted);
    const size_t rows = account(m, p, true);
    vae_layers_backward(m, m->layout.n_encoder, m->n_layers, rows, true);
    vae_latent_grad grad = {.objective = m->config.objective,
                            .kl_scale = 1.0f / (float)p->all,
                            .free_bits = (float)m->config.free_bits};
    const float *weight = weighted ? array(m, m->plan.weight) : NULL;
    const float *kl_dim = grad.free_bits > 0 ? array(m, m->plan.kl_dim) : NULL;
    m->be->ops->latent_backward(
        m->be, dy_of(m, head), mat(m, m->plan.dz, m->layout.layers[m->layout.n_encoder].in),
        y_of(m, head), weight, kl_dim, p->rows, p->particles, m->layout.z, grad, noise_of(m));
    vae_layers_backward(m, 0, m->layout.n_encoder, p->rows, false);
    vae_optimize(m);
}

static void measure_step(void *ctx)
{
    const pass *p = ctx;
    encode(p->model, p, false);
    decode_and_compare(p->model, p, false, p->model->config.objective != VAE_OBJ_ELBO);
    account(p->model, p, false);
}

static void batch_step(void *ctx)
{
    const pass *p = ctx;
    vae_model *m = p->model;
    encode(m, p, false);
    m->be->ops->kl_dims(m->be, array(m, m->plan.kl_dim), y_of(m, head_of(m)), p->rows, p->rows,
                        m->layout.z);
    decode_and_compare(m, p, false, true);
}

/* Encoder and latent only: everything of batch_step that does not need the decoder. */
static void encode_step(void *ctx)
{
    const pass *p = ctx;
    vae_model *m = p->model;
    encode(m, p, false);
    m->be->ops->kl_dims(m->be, array(m, m->plan.kl_dim), y_of(m, head_of(m)), p->rows, p->rows,
                        m->layout.z);
    m->be->ops->latent_forward(m->be, input_of(m, m->layout.n_encoder), array(m, m->plan.kl_row),
                               array(m, m->plan.log_pq), y_of(m, head_of(m)), p->rows, p->particles,
                               m->layout.z, noise_of(m));
}

static void decode_step(void *ctx)
{
    const pass *p = ctx;
    if (p->model->layout.c > 0) {
        vae_classes_decode(p->model, p->rows, 1);
    }
    vae_layers_forward(p->model, p->model->layout.n_encoder, p->model->n_layers, p->rows, false);
}

static vae_step_fn *const steps[2][6] = {
    {[PASS_TRAIN] = train_step,
     [PASS_MEASURE] = measure_step,
     [PASS_BATCH] = batch_step,
     [PASS_ENCODE] = encode_step,
     [PASS_DECODE] = decode_step},
    /* a semi-supervised model's */
    {[PASS_TRAIN] = vae_semi_train_step,
     [PASS_MEASURE] = vae_semi_measure_step,
     [PASS_BATCH] = batch_step,
     [PASS_ENCODE] = encode_step,
     [PASS_DECODE] = decode_step,
     [PASS_CLASSIFY] = vae_classify_step},
};

void vae_run_pass(vae_model *m, pass_kind kind, vae_data *data, const vae_plan *plan, size_t n,
                  size_t rows, size_t particles, size_t all)
{
    const bool train = kind == PASS_TRAIN;
    const size_t gathered = rows + (train ? m->labelled.n : 0);
    assert(rows * particles <= m->max_batch * m->max_particles);
    pass want = {m, kind, data, rows, particles, all};
    int slot = -1;
    for (int i = 0; i < VAE_SLOTS && slot < 0; i++) {
        const pass *p = &m->passes[i];
        if (p->model != NULL && p->kind == kind && p->data == data && p->rows == rows &&
            p->particles == particles && p->all == all) {
            slot = i;
        }
    }
    if (slot < 0) {
        slot = m->next_slot;
        m->next_slot = (m->next_slot + 1) % VAE_SLOTS;
        m->be->ops->forget(m->be, slot);
        m->passes[slot] = want;
    }
    m->be->ops->plan(m->be, plan, n, gathered, gathered > 0 ? data : NULL);
    if (train && vae_run_whole(m, data, n, rows)) {
        return;
    }
    vae_step_fn *fn = train && gathered == 0 ? idle_step : steps[is_semi(m)][kind];
    m->be->ops->run(m->be, slot, n, fn, &m->passes[slot]);
}

/* ---- public ---- */

void vae_model_set_variance(vae_model *model, double variance)
{
    if (variance == model->config.variance) {
        return;
    }
    model->config.variance = variance;
    for (int slot = 0; slot < VAE_SLOTS; slot++) { /* what was captured has the old one */
        model->be->ops->forget(model->be, slot);
    }
}

/* An entry of the plan as this rank's share of its rows has it. What is drawn for a row goes by
 * where it stands in the whole batch: rows of z of a semi-supervised model, C for each unlabelled
 * example, then one for each labelled one. */
static vae_plan share_entry(const vae_model *m, const vae_plan *whole, vae_share rows)
{
    const uint64_t C = is_semi(m) ? m->layout.c : 1;
    const vae_share labelled = m->labelled;
    vae_plan own = *whole;
    own.first += rows.first;
    own.eps_at = rows.n * C;
    own.eps_skip[0] = rows.first * (C - 1);
    own.eps_skip[1] = rows.all * C + labelled.first - rows.first - own.eps_at;
    if (whole->extra_n > 0) {
        own.extra_at = (uint32_t)rows.n;
        own.extra_first += labelled.first;
        own.extra_skip = rows.all + labelled.first - rows.first - rows.n;
    }
    return own;
}

/* Runs a kind of step on this rank's share of each batch of `rows`. */
static void run_shared(vae_model *m, pass_kind kind, vae_data *data, const vae_plan *plan, size_t n,
                       size_t rows)
{
    const size_t K = m->config.particles;
    const vae_share share = vae_ranks_share(m->be->ranks, rows);
    if (m->shared == NULL) {
        vae_run_pass(m, kind, data, plan, n, rows, K, rows);
        return;
    }
    if (kind == PASS_MEASURE && share.n == 0) {
        return; /* there is nothing that the others wait for */
    }
    for (size_t i = 0, some; i < n; i += some) {
        some = n - i < VAE_SHARED_PLAN ? n - i : VAE_SHARED_PLAN;
        for (size_t j = 0; j < some; j++) {
            m->shared[j] = share_entry(m, &plan[i + j], share);
        }
        vae_run_pass(m, kind, data, m->shared, some, share.n, K, rows);
    }
}

void vae_model_train(vae_model *model, vae_data *data, const vae_plan *plan, size_t n, size_t rows)
{
    run_shared(model, PASS_TRAIN, data, plan, n, rows);
}

void vae_model_measure(vae_model *model, vae_data *data, const vae_plan *plan, size_t n,
                       size_t rows)
{
    run_shared(model, PASS_MEASURE, data, plan, n, rows);
}

/* Largest batch whose workspace fits in `room` bytes; 0 if none does. */
static size_t batch_that_fits(const vae_model *m, size_t room)
{
    size_t low = 0, high = m->max_batch;
    while (low < high) {
        size_t middle = low + (high - low + 1) / 2;
        workspace_plan plan;
        bool ok = vae_workspace_plan(&plan, &m->layout, middle, m->labelled.n, m->max_particles,
                                     m->train, m->be);
        if (ok && plan.bytes <= room) {
            low = middle;
        } else {
            high = middle - 1;
        }
    }
    return low;
}

/* Refuses what there is no room for before any of it is taken, which may be long after the start of
 * what takes it and, where the kernel overcommits, the end of the process. */
static vae_status check_room(const vae_model *m, vae_error *err)
{
    const vae_backend_ops *ops = m->be->ops;
    const size_t room = ops->free_bytes(m->be);
    const size_t flats = (m->train ? 4 : 1) * m->layout.total * sizeof(float);
    vae_status status = VAE_OK;
    if (room > 0 && flats > room) {
        TRY(vae_fail(err, VAE_ERR_RUNTIME,
                     "out of memory on %s: %zu parameters%s need %zu bytes, there are %zu",
                     ops->name, m->layout.n_params,
                     m->train ? ", their gradients and Adam's moments" : "", flats, room));
    }
    if (room > 0 && m->plan.bytes > room - flats) {
        const size_t left = room - flats, batch = batch_that_fits(m, left);
        char fits[64] = "";
        if (batch > 0) {
            snprintf(fits, sizeof fits, "; a batch of %zu would fit", batch);
        }
        TRY(vae_fail(err, VAE_ERR_RUNTIME,
                     "out of memory on %s: the activations of a batch of %zu%s need %zu bytes, %zu "
                     "are left%s",
                     ops->name, m->max_batch, m->max_particles > 1 ? " with so many particles" : "",
                     m->plan.bytes, left, fits));
    }
done:
    return status;
}

static vae_status allocate(vae_model *m, vae_error *err)
{
    const vae_backend_ops *ops = m->be->ops;
    const size_t flat = m->layout.total * sizeof(float);
    vae_status status = VAE_OK;
    if (!vae_workspace_plan(&m->plan, &m->layout, m->max_batch, m->labelled.n, m->max_particles,
                            m->train, m->be)) {
        TRY(vae_fail(err, VAE_ERR_USAGE, "a batch of %zu examples x %zu particles is too large",
                     m->max_batch, m->max_particles));
    }
    TRY(check_room(m, err));
    m->staging = malloc(flat);
    if (m->staging == NULL) {
        TRY(vae_fail_memory(err, flat, "a host copy of the parameters"));
    }
    if (vae_ranks_n(m->be->ranks) > 1) {
        m->shared = malloc(VAE_SHARED_PLAN * sizeof *m->shared);
        if (m->shared == NULL) {
            TRY(vae_fail_memory(err, VAE_SHARED_PLAN * sizeof *m->shared, "a rank's plan"));
        }
    }
    m->params = ops->alloc(m->be, flat, "parameters");
    if (m->train) {
        m->grads = ops->alloc(m->be, flat, "gradients");
        m->adam_m = ops->alloc(m->be, flat, "Adam's first moments");
        m->adam_v = ops->alloc(m->be, flat, "Adam's second moments");
    }
    m->totals = ops->alloc(m->be, sizeof *m->totals, "totals");
    m->workspace = ops->alloc(m->be, m->plan.bytes, "activations");
    ops->bind_params(m->be, m->params, m->layout.total);
    TRY(ops->sync(m->be, err));
done:
    return status;
}

vae_status vae_model_create(vae_model **out, const vae_config *config, row_shape shape,
                            size_t max_batch, bool train, vae_backend *be, vae_error *err)
{
    *out = NULL;
    vae_model *m = calloc(1, sizeof *m);
    if (m == NULL) {
        return vae_fail_memory(err, sizeof *m, "a model");
    }
    m->config = *config;
    m->be = be;
    m->max_batch = max_batch;
    m->max_particles = config->particles;
    m->train = train;
    m->labelled = vae_ranks_share(be->ranks, train ? vae_config_labelled_batch(config) : 0);
    vae_status status = VAE_OK;
    TRY(vae_layout_build(&m->layout, config, shape, err));
    m->n_layers = m->layout.n_encoder + m->layout.n_decoder;
    TRY(allocate(m, err));
    *out = m;
done:
    if (status != VAE_OK) {
        vae_model_free(m);
    }
    return status;
}

size_t vae_model_rows_at_once(const vae_config *config, row_shape shape, size_t least, size_t most)
{
    param_layout layout;
    vae_error unused = {.notes = NULL};
    if (vae_layout_build(&layout, config, shape, &unused) != VAE_OK) {
        return most;
    }
    most = vae_rows_at_once(&layout, config->particles, least, most);
    vae_layout_clear(&layout);
    return most;
}

void vae_model_free(vae_model *model)
{
    if (model == NULL) {
        return;
    }
    const vae_backend_ops *ops = model->be->ops;
    for (int slot = 0; slot < VAE_SLOTS; slot++) {
        ops->forget(model->be, slot);
    }
    ops->free(model->be, model->workspace);
    ops->free(model->be, model->totals);
    ops->free(model->be, model->adam_v);
    ops->free(model->be, model->adam_m);
    ops->free(model->be, model->grads);
    ops->free(model->be, model->params);
    free(model->staging);
    free(model->shared);
    vae_layout_clear(&model->layout);
    free(model);
}
