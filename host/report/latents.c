/* Where the data lie in latent space: their means, the KL of each dimension, and a plane to look at
 * them on. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "philox.h"
#include "report/internal.h"
#include "stats/pca.h"
#include "train/trainer.h"

enum {
    MOST_ROWS = 10000,           /* that are encoded ... */
    MOST_FLOATS = 1 << 24,       /* ... as long as their mu is no larger than this */
    MOST_POINTS = 2000,          /* that are plotted, and whose mu is in the page ... */
    MOST_POINT_FLOATS = 1 << 18, /* ... as long as it is no larger than this */
    MIXED_ORDER = 20140119,      /* key of the order in which rows are taken where not all are */
};

static vae_status make_room(report_latents *l, size_t n, size_t Z, bool labels, vae_error *err)
{
    l->n = n;
    l->z = Z;
    l->mu = calloc(n * Z, sizeof *l->mu);
    l->row = calloc(n, sizeof *l->row);
    l->labels = labels ? calloc(n, 1) : NULL;
    l->kl = calloc(Z, sizeof *l->kl);
    l->active = calloc(Z, sizeof *l->active);
    l->mean = calloc(Z, sizeof *l->mean);
    l->axis = calloc(2 * Z, sizeof *l->axis);
    l->n_points = n < MOST_POINTS ? n : MOST_POINTS;
    const size_t fit = MOST_POINT_FLOATS / Z > 0 ? MOST_POINT_FLOATS / Z : 1;
    l->n_points = l->n_points < fit ? l->n_points : fit;
    l->xy = calloc(2 * l->n_points, sizeof *l->xy);
    return l->mu != NULL && l->row != NULL && (!labels || l->labels != NULL) && l->kl != NULL &&
                   l->active != NULL && l->mean != NULL && l->axis != NULL && l->xy != NULL
               ? VAE_OK
               : vae_fail_memory(err, n * Z * sizeof *l->mu, "latents of the report");
}

void report_latents_clear(report_latents *l)
{
    void *all[] = {l->mu, l->row, l->labels, l->kl, l->active, l->mean, l->axis, l->xy};
    for (size_t i = 0; i < sizeof all / sizeof all[0]; i++) {
        free(all[i]);
    }
    *l = (report_latents){0};
}

/* In order where all rows are taken: neighbours of a grid of factors look alike, and what comes
 * first need not be like the rest. */
static bool is_mixed(const report *r)
{
    return r->latents.n < r->from->n || r->from->set->factor_sizes != NULL;
}

vae_plan report_plan(const report *r, size_t first)
{
    vae_plan plan = vae_eval_plan(0, first);
    plan.order_key = MIXED_ORDER;
    plan.shuffle = is_mixed(r);
    return plan;
}

static vae_status encode(report *r, float *kl_dim, vae_error *err)
{
    const vae_report_source *from = r->from;
    report_latents *l = &r->latents;
    const bool mixed = is_mixed(r);
    const uint32_t bits = vae_shuffle_bits(from->n);
    for (size_t at = 0; at < l->n; at += from->batch) {
        const size_t rows = l->n - at < from->batch ? l->n - at : from->batch;
        const vae_plan plan = report_plan(r, at);
        vae_batch_out out = {.mu = l->mu + at * l->z, .kl_dim = kl_dim};
        if (from->stop_signal != NULL && *from->stop_signal != 0) {
            return vae_fail(err, VAE_ERR_INTERRUPTED, "interrupted");
        }
        vae_status status = vae_model_batch(from->model, from->data, &plan, rows, 1, &out, err);
        if (status != VAE_OK) {
            return status;
        }
        for (size_t j = 0; j < l->z; j++) {
            l->kl[j] += (double)kl_dim[j] * (double)rows / (double)l->n;
        }
    }
    for (size_t i = 0; i < l->n; i++) {
        const size_t at = mixed ? vae_shuffle(MIXED_ORDER, from->n, bits, i) : i;
        l->row[i] = from->rows != NULL ? from->rows[at] : (uint32_t)at;
        if (l->labels != NULL) {
            l->labels[i] = from->set->labels[l->row[i]];
        }
    }
    return VAE_OK;
}

/* mean, and which dimensions are in use. */
static void measure(report_latents *l)
{
    for (size_t j = 0; j < l->z; j++) {
        double mean = 0, moved = 0;
        for (size_t i = 0; i < l->n; i++) {
            const double away = (double)l->mu[i * l->z + j] - mean;
            mean += away / (double)(i + 1);
            moved += away * ((double)l->mu[i * l->z + j] - mean);
        }
        l->mean[j] = (float)mean;
        l->active[j] = moved / (double)l->n > 0.01;
        l->n_active += l->active[j];
    }
}

static int by_kl(const void *a, const void *b, void *kl)
{
    const size_t i = *(const size_t *)a, j = *(const size_t *)b;
    const double x = ((const double *)kl)[i], y = ((const double *)kl)[j];
    return x > y ? -1 : x < y ? 1 : i < j ? -1 : i > j;
}

vae_status report_look(report *r, vae_error *err)
{
    const vae_report_source *from = r->from;
    report_latents *l = &r->latents;
    const size_t Z = from->about->config.latent;
    r->order = calloc(Z, sizeof *r->order);
    float *kl_dim = calloc(Z, sizeof *kl_dim);
    vae_status status = r->order != NULL && kl_dim != NULL
                            ? VAE_OK
                            : vae_fail_memory(err, Z * sizeof *r->order, "dimensions");
    for (size_t j = 0; status == VAE_OK && j < Z; j++) {
        r->order[j] = j;
    }
    r->has_data = from->data != NULL && from->n > 0;
    if (status == VAE_OK && r->has_data) {
        const size_t fit = MOST_FLOATS / Z > 0 ? MOST_FLOATS / Z : 1;
        const size_t most = fit < MOST_ROWS ? fit : MOST_ROWS, n = from->n < most ? from->n : most;
        l->n_classes = from->set->n_classes;
        status = make_room(l, n, Z, from->set->labels != NULL, err);
        status = status == VAE_OK ? encode(r, kl_dim, err) : status;
    }
    if (status == VAE_OK && r->has_data) {
        measure(l);
        qsort_r(r->order, Z, sizeof *r->order, by_kl, l->kl);
        if (Z > 2) {
            status = vae_pca_axes(l->axis, l->share, l->mu, l->n_points, Z, l->mean, r->order, err);
        } else { /* the latents themselves */
            memset(l->mean, 0, Z * sizeof *l->mean);
            l->axis[0] = 1;
            l->axis[2 * Z - 1] = Z == 2;
        }
        vae_pca_project(l->xy, l->mu, l->n_points, Z, l->mean, l->axis);
    }
    free(kl_dim);
    return status;
}
