/* Where the data lie in latent space: their means, the KL of each dimension, and a plane to look at
 * them on. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "philox.h"
#include "report/internal.h"
#include "stats/pca.h"

enum {
    MOST_ROWS = 10000,           /* that are encoded ... */
    MOST_FLOATS = 1 << 24,       /* ... as long as their mu is no larger than this */
    MOST_POINTS = 2000,          /* that are plotted, and whose mu is in the page ... */
    MOST_POINT_FLOATS = 1 << 18, /* ... as long as it is no larger than this */
    MOST_DECODED = 1000,         /* that are compared with their reconstructions */
};

static vae_status make_room(report_latents *l, size_t n, size_t Z, bool labels, vae_error *err)
{
    const size_t fit = MOST_POINT_FLOATS / Z > 0 ? MOST_POINT_FLOATS / Z : 1;
    l->n = n;
    l->z = Z;
    l->mu = calloc(n * Z, sizeof *l->mu);
    l->row = calloc(n, sizeof *l->row);
    l->labels = labels ? calloc(n, sizeof *l->labels) : NULL;
    l->kl = calloc(Z, sizeof *l->kl);
    l->active = calloc(Z, sizeof *l->active);
    l->mean = calloc(Z, sizeof *l->mean);
    l->axis = calloc(2 * Z, sizeof *l->axis);
    l->n_points = n < MOST_POINTS ? n : MOST_POINTS;
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
    return r->latents.n < r->on->n || r->on->set->factor_sizes != NULL;
}

vae_plan report_plan(const report *r)
{
    return vae_mixed_plan(is_mixed(r));
}

static vae_status encode(report *r, vae_error *err)
{
    report_latents *l = &r->latents;
    const size_t n = r->on->n;
    const bool mixed = is_mixed(r);
    const uint32_t bits = vae_shuffle_bits(n), *rows = r->from->rows;
    const vae_plan plan = report_plan(r);
    const vae_batch_out out = {.mu = l->mu};
    vae_status status = VAE_OK;
    TRY(vae_trained_run(r->on, l->n, &plan, &r->from->watch, &out, l->kl, err));
    for (size_t i = 0; i < l->n; i++) {
        const size_t at = mixed ? vae_shuffle(VAE_MIXED_ORDER, n, bits, i) : i;
        l->row[i] = rows != NULL ? rows[at] : (uint32_t)at;
        if (l->labels != NULL) {
            l->labels[i] = r->on->set->labels[l->row[i]];
        }
    }
done:
    return status;
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

vae_status report_look(report *r, vae_error *err)
{
    report_latents *l = &r->latents;
    const vae_dataset *set = r->on->set;
    const size_t Z = r->about->config.latent;
    vae_status status = VAE_OK;
    r->order = calloc(Z, sizeof *r->order);
    if (r->order == NULL) {
        TRY(vae_fail_memory(err, Z * sizeof *r->order, "dimensions"));
    }
    for (size_t j = 0; j < Z; j++) {
        r->order[j] = j;
    }
    r->has_data = r->on->data != NULL && r->on->n > 0;
    if (!r->has_data) {
        return VAE_OK;
    }
    const size_t fit = MOST_FLOATS / Z > 0 ? MOST_FLOATS / Z : 1;
    const size_t most = fit < MOST_ROWS ? fit : MOST_ROWS;
    TRY(make_room(l, r->on->n < most ? r->on->n : most, Z, set->labels != NULL, err));
    TRY(encode(r, err));
    measure(l);
    vae_order_by_kl(r->order, l->kl, Z);
    if (Z > 2) {
        TRY(vae_pca_axes(l->axis, l->share, l->mu, l->n_points, Z, l->mean, r->order, err));
    } else { /* the latents themselves */
        memset(l->mean, 0, Z * sizeof *l->mean);
        l->axis[0] = 1;
        l->axis[2 * Z - 1] = Z == 2;
    }
    if (vae_bytes_are(r->on)) {
        const vae_plan plan = report_plan(r);
        TRY(vae_bytes_measure(&r->bytes, r->on, l->n < MOST_DECODED ? l->n : MOST_DECODED, &plan,
                              &r->from->watch, err));
    }
    vae_pca_project(l->xy, l->mu, l->n_points, Z, l->mean, l->axis);
done:
    return status;
}
