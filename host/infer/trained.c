/* The opened model: its backend, its passes over rows, its decoder. */
#include "infer/trained.h"

#include <stdlib.h>
#include <string.h>

#include "base/text.h"
#include "philox.h"
#include "run/folder.h"

vae_status vae_backend_for(vae_backend **out, const vae_config *config, const vae_ranks *ranks,
                           vae_error *err)
{
    const vae_backend_options options = {config->device, config->device_index, config->precision,
                                         config->threads, ranks};
    return vae_backend_open(out, &options, err);
}

void vae_trained_of(vae_trained *m, const vae_checkpoint *checkpoint)
{
    *m = (vae_trained){.checkpoint = checkpoint, .config = checkpoint->config};
    m->config.precision = VAE_FP32;
}

vae_status vae_trained_open(vae_trained *m, const char *run, bool best, vae_error *err)
{
    char path[VAE_PATH], folder[VAE_PATH];
    vae_checkpoint *checkpoint;
    vae_status status = VAE_OK;
    *m = (vae_trained){.own = NULL};
    TRY(vae_checkpoint_open_run(&checkpoint, run, best, false, path, err));
    vae_trained_of(m, checkpoint);
    m->own = checkpoint;
    memcpy(m->path, path, sizeof path);
    TRY(vae_run_of_checkpoint(path, folder, err));
    TRY(folder[0] != '\0' ? vae_run_resolve_config(folder, &m->config, err) : VAE_OK);
done:
    return status;
}

vae_status vae_trained_start(vae_trained *m, size_t batch, size_t particles, vae_error *err)
{
    vae_status status = VAE_OK;
    vae_config config = m->config;
    /* bounds are a matter of training */
    config.objective = VAE_OBJ_ELBO;
    config.free_bits = 0;
    config.particles = particles;
    const row_shape shape = vae_checkpoint_shape(m->checkpoint);
    batch = vae_model_rows_at_once(&config, shape, 1, batch);
    TRY(vae_backend_for(&m->be, &config, m->ranks, err));
    TRY(vae_model_create(&m->model, &config, shape, batch, false, m->be, err));
    TRY(vae_model_set(m->model, VAE_PARAMS, m->checkpoint->params, err));
    m->batch = batch;
done:
    return status;
}

void vae_trained_close(vae_trained *m)
{
    vae_trained_close_set(m);
    if (m->below != NULL) {
        vae_trained_close(m->below);
        free(m->below);
    }
    vae_model_free(m->model);
    if (m->be != NULL) {
        m->be->ops->close(m->be);
    }
    vae_checkpoint_free(m->own);
    *m = (vae_trained){.own = NULL};
}

/* ---- data ---- */

static void drop_data(vae_trained *m)
{
    if (m->be != NULL) {
        m->be->ops->data_close(m->be, m->data);
    }
    m->data = NULL;
    m->n = 0;
}

void vae_trained_close_set(vae_trained *m)
{
    drop_data(m);
    vae_dataset_free(m->set);
    m->set = NULL;
}

/* Rows of a set on the backend, all of them where rows is NULL. Of a set that was picked from
 * another, it is given that one: a row is binarized as it was in training. */
static vae_status open_rows(vae_backend *be, vae_data **data, const vae_dataset *set,
                            const uint32_t *rows, size_t n, vae_error *err)
{
    uint32_t *place = NULL;
    vae_status status = VAE_OK;
    *data = NULL;
    if (set->whole != NULL && rows != NULL) {
        place = malloc(n * sizeof *place);
        if (place == NULL) {
            TRY(vae_fail_memory(err, n * sizeof *place, "row numbers"));
        }
        for (size_t i = 0; i < n; i++) {
            place[i] = set->place[rows[i]];
        }
        rows = place;
    } else if (set->whole != NULL) {
        rows = set->place;
    }
    *data = be->ops->data_open(be, vae_dataset_whole(set), rows, n);
    TRY(be->ops->sync(be, err));
done:
    free(place);
    return status;
}

vae_status vae_trained_put(vae_trained *m, const uint32_t *rows, size_t n, vae_error *err)
{
    drop_data(m);
    m->n = rows != NULL ? n : m->set->n;
    return open_rows(m->be, &m->data, m->set, rows, m->n, err);
}

/* ---- passes ---- */

vae_plan vae_mixed_plan(bool mixed)
{
    vae_plan plan = vae_eval_plan(0, 0);
    plan.order_key = VAE_MIXED_ORDER;
    plan.shuffle = mixed;
    return plan;
}

vae_status vae_each_batch(const vae_plan *plan, size_t n, size_t batch, const vae_watch *watch,
                          vae_batch_fn *fn, void *ctx, vae_error *err)
{
    static const vae_watch nothing;
    vae_status status = VAE_OK;
    watch = watch != NULL ? watch : &nothing;
    for (size_t at = 0; at < n; at += batch) {
        const size_t rows = n - at < batch ? n - at : batch;
        vae_plan moved = *plan;
        moved.first += at;
        if (vae_stopping(watch->stop_signal)) {
            TRY(vae_fail(err, VAE_ERR_INTERRUPTED, "interrupted"));
        }
        TRY(fn(ctx, &moved, rows, err));
        if (watch->progress != NULL) {
            watch->progress(watch->ctx, (double)(at + rows) / (double)n, n);
        }
    }
done:
    return status;
}

vae_status vae_trained_batch(void *ctx, const vae_plan *plan, size_t rows, size_t particles,
                             vae_batch_out *out, vae_error *err)
{
    const vae_trained *m = ctx;
    return vae_trained_batch_of(m, m->data, plan, rows, particles, out, err);
}

/* A rank's rows of an array of a batch that is wanted, and how many floats each row is. */
static void *own_part(void *all, vae_share share, size_t cols)
{
    return all != NULL ? (float *)all + share.first * cols : NULL;
}

vae_status vae_trained_batch_of(const vae_trained *m, vae_data *data, const vae_plan *plan,
                                size_t rows, size_t particles, vae_batch_out *out, vae_error *err)
{
    if (m->ranks == NULL) {
        return vae_model_batch(m->model, data, plan, rows, particles, out, err);
    }
    const size_t K = particles, Z = m->config.latent, D = vae_model_layout(m->model)->d;
    const size_t C = vae_likelihood_of(m->config.likelihood)->outputs * D;
    const vae_share share = vae_ranks_share(m->ranks, rows);
    const size_t cols[] = {D, Z, Z, K * Z, 1, K, K, K * D, K * C, 1};
    void *const all[] = {out->x,     out->mu,     out->logvar, out->z,      out->kl,
                         out->recon, out->log_pq, out->x_hat,  out->logits, out->label};
    enum { N = sizeof all / sizeof *all };
    void *own[N];
    for (size_t i = 0; i < N; i++) {
        own[i] = own_part(all[i], share, cols[i]);
    }
    vae_batch_out part = {own[0], own[1], own[2], own[3], own[4], out->kl_dim,
                          own[5], own[6], own[7], own[8], own[9]};
    vae_plan moved = *plan;
    vae_status status = VAE_OK;
    moved.first += share.first;
    if (share.n > 0) {
        TRY(vae_model_batch(m->model, data, &moved, share.n, particles, &part, err));
    }
    for (size_t i = 0; i < N; i++) {
        TRY(vae_ranks_gather_rows(m->ranks, all[i], rows, cols[i] * sizeof(float), err));
    }
    for (size_t j = 0; out->kl_dim != NULL && j < Z; j++) {
        out->kl_dim[j] *= (float)share.n / (float)rows;
        out->kl_dim[j] = share.n > 0 ? out->kl_dim[j] : 0;
    }
    if (out->kl_dim != NULL) {
        TRY(vae_ranks_sum_floats(m->ranks, out->kl_dim, Z, err));
    }
done:
    return status;
}

/* A pass into arrays. */
typedef struct {
    const vae_trained *m;
    vae_data *data;
    size_t first, n; /* number of the pass's first row; how many there are */
    const vae_batch_out *out;
    double *kl_dim;      /* (Z), or NULL */
    float *kl_dim_batch; /* (Z) room for a batch's */
} run;

/* Where row `at` begins in each array that is wanted. */
static vae_batch_out part_of(const vae_batch_out *out, size_t at, size_t d, size_t z)
{
    return (vae_batch_out){
        .x = out->x != NULL ? out->x + at * d : NULL,
        .mu = out->mu != NULL ? out->mu + at * z : NULL,
        .logvar = out->logvar != NULL ? out->logvar + at * z : NULL,
        .z = out->z != NULL ? out->z + at * z : NULL,
        .kl = out->kl != NULL ? out->kl + at : NULL,
        .recon = out->recon != NULL ? out->recon + at : NULL,
        .x_hat = out->x_hat != NULL ? out->x_hat + at * d : NULL,
        .label = out->label != NULL ? out->label + at : NULL,
    };
}

static vae_status run_batch(void *ctx, const vae_plan *plan, size_t rows, vae_error *err)
{
    const run *r = ctx;
    const size_t Z = r->m->config.latent;
    vae_batch_out part = part_of(r->out, plan->first - r->first, r->m->checkpoint->d, Z);
    part.kl_dim = r->kl_dim_batch;
    vae_status status = vae_trained_batch_of(r->m, r->data, plan, rows, 1, &part, err);
    for (size_t j = 0; status == VAE_OK && r->kl_dim != NULL && j < Z; j++) {
        r->kl_dim[j] += (double)r->kl_dim_batch[j] * (double)rows / (double)r->n;
    }
    return status;
}

vae_status vae_trained_run(const vae_trained *m, size_t n, const vae_plan *plan,
                           const vae_watch *watch, const vae_batch_out *out, double *kl_dim,
                           vae_error *err)
{
    const size_t Z = m->config.latent;
    vae_status status = VAE_OK;
    run r = {m, m->data, plan->first, n, out, kl_dim, NULL};
    if (kl_dim != NULL) {
        memset(kl_dim, 0, Z * sizeof *kl_dim);
        r.kl_dim_batch = malloc(Z * sizeof *r.kl_dim_batch);
        if (r.kl_dim_batch == NULL) {
            TRY(vae_fail_memory(err, Z * sizeof *r.kl_dim_batch, "KL by dimension"));
        }
    }
    TRY(vae_each_batch(plan, n, vae_trained_at_once(m), watch, run_batch, &r, err));
done:
    free(r.kl_dim_batch);
    return status;
}

/* A set on the backend, if its rows are the model's. */
static vae_status put_set(const vae_trained *m, vae_data **data, const vae_dataset *set,
                          vae_error *err)
{
    vae_status status = VAE_OK;
    if (set->d != m->checkpoint->d) {
        TRY(vae_fail(err, VAE_ERR_DATA,
                     "%s: rows of %zu value%s (%zu x %zu x %zu); the model takes %zu", set->source,
                     set->d, vae_s(set->d), set->height, set->width, set->channels,
                     m->checkpoint->d));
    }
    if (m->config.condition == VAE_CONDITION_LABELS) {
        TRY(vae_dataset_check_labels(set, m->config.classes, true, err));
    }
    TRY(open_rows(m->be, data, set, NULL, set->n, err));
done:
    return status;
}

vae_status vae_trained_run_set(const vae_trained *m, const vae_dataset *set, uint64_t draw,
                               const vae_batch_out *out, vae_error *err)
{
    const vae_plan plan = {.draw = draw, .beta = 1};
    run r = {m, NULL, 0, set->n, out, NULL, NULL};
    vae_status status = VAE_OK;
    TRY(put_set(m, &r.data, set, err));
    TRY(vae_each_batch(&plan, set->n, vae_trained_at_once(m), NULL, run_batch, &r, err));
done:
    m->be->ops->data_close(m->be, r.data);
    return status;
}

/* A pass of the classifier. */
typedef struct {
    const vae_trained *m;
    vae_data *data;
    float *probability;
} classifier;

static vae_status classify_batch(void *ctx, const vae_plan *plan, size_t rows, vae_error *err)
{
    const classifier *c = ctx;
    return vae_model_classify(c->m->model, c->data, plan, rows,
                              c->probability + plan->first * c->m->config.classes, err);
}

vae_status vae_trained_classify(const vae_trained *m, const vae_dataset *set, float *probability,
                                vae_error *err)
{
    const vae_plan plan = vae_eval_plan(0, 0);
    classifier c = {m, m->data, probability};
    vae_data *own = NULL;
    vae_status status = VAE_OK;
    if (set != NULL) {
        TRY(put_set(m, &own, set, err));
        c.data = own;
    }
    TRY(vae_each_batch(&plan, set != NULL ? set->n : m->n, m->batch, NULL, classify_batch, &c,
                       err));
done:
    m->be->ops->data_close(m->be, own);
    return status;
}

static int by_kl(const void *a, const void *b, void *kl)
{
    const size_t i = *(const size_t *)a, j = *(const size_t *)b;
    const double x = ((const double *)kl)[i], y = ((const double *)kl)[j];
    if (x != y) {
        return x > y ? -1 : 1;
    }
    return i < j ? -1 : i > j;
}

void vae_order_by_kl(size_t *order, const double *kl, size_t n_latents)
{
    for (size_t j = 0; j < n_latents; j++) {
        order[j] = j;
    }
    qsort_r(order, n_latents, sizeof *order, by_kl, (void *)(uintptr_t)kl);
}

/* ---- decoding ---- */

const vae_checkpoint *vae_trained_shape(const vae_trained *m)
{
    return m->below != NULL ? m->below->checkpoint : m->checkpoint;
}

vae_status vae_trained_decode(const vae_trained *m, float *x_hat, const float *z,
                              const uint32_t *label, size_t n, vae_error *err)
{
    vae_status status = VAE_OK;
    float *latents = NULL;
    if (m->below == NULL) {
        return vae_model_decode_classes(m->model, x_hat, z, label, n, err);
    }
    /* rows of a stacked model's decoder are latents of the run below */
    latents = malloc(n * m->checkpoint->d * sizeof *latents);
    if (latents == NULL) {
        TRY(vae_fail_memory(err, n * m->checkpoint->d * sizeof *latents, "latents"));
    }
    TRY(vae_model_decode_classes(m->model, latents, z, label, n, err));
    TRY(vae_model_decode(m->below->model, x_hat, latents, n, err));
done:
    free(latents);
    return status;
}
