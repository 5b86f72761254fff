/* Training steps against the clock. */
#include "train/step_timer.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "infer/trained.h"
#include "ranks/ranks.h"
#include "train/loop.h"
#include "train/schedule.h"

enum { AT_ONCE = 64 }; /* steps of one call */

struct vae_step_timer {
    vae_config config;
    vae_backend *be;
    vae_model *model;
    vae_data *data;
    uint64_t step, per_epoch;
};

static vae_status set_parameters(vae_step_timer *t, vae_error *err)
{
    const param_layout *layout = vae_model_layout(t->model);
    vae_status status = VAE_OK;
    float *flat = calloc(layout->total, sizeof *flat);
    float *packed = malloc(layout->n_params * sizeof *packed);
    if (flat == NULL || packed == NULL) {
        TRY(vae_fail_memory(err, layout->total * sizeof *flat, "the initial parameters"));
    }
    vae_layout_init(layout, flat, t->config.init, t->config.seed);
    vae_layout_pack(layout, packed, flat);
    TRY(vae_model_set(t->model, VAE_PARAMS, packed, err));
done:
    free(flat);
    free(packed);
    return status;
}

vae_status vae_step_timer_open(vae_step_timer **out, const vae_config *config,
                               const vae_dataset *set, const vae_ranks *ranks, vae_error *err)
{
    vae_status status = VAE_OK;
    *out = NULL;
    if (config->batch_size > set->n) {
        return vae_fail(err, VAE_ERR_USAGE, "a batch of %zu, but %s has %zu rows",
                        config->batch_size, set->source, set->n);
    }
    vae_step_timer *t = calloc(1, sizeof *t);
    if (t == NULL) {
        return vae_fail_memory(err, sizeof *t, "a timer");
    }
    t->config = *config;
    t->per_epoch = set->n / config->batch_size;
    TRY(vae_backend_for(&t->be, config, ranks, err));
    TRY(vae_model_create(&t->model, config, (row_shape){set->height, set->width, set->channels},
                         vae_ranks_most(ranks, config->batch_size), true, t->be, err));
    TRY(set_parameters(t, err));
    t->data = t->be->ops->data_open(t->be, set, NULL, set->n);
    TRY(t->be->ops->sync(t->be, err));
    *out = t;
    t = NULL;
done:
    vae_step_timer_close(t);
    return status;
}

void vae_step_timer_close(vae_step_timer *t)
{
    if (t != NULL && t->be != NULL) {
        vae_model_free(t->model);
        t->be->ops->data_close(t->be, t->data);
        t->be->ops->close(t->be);
    }
    free(t);
}

vae_status vae_step_timer_run(vae_step_timer *t, size_t n, double *seconds, vae_error *err)
{
    vae_plan plan[AT_ONCE];
    vae_totals totals;
    const double begin = vae_clock();
    for (size_t done = 0, some; done < n; done += some) {
        some = n - done < AT_ONCE ? n - done : AT_ONCE;
        for (size_t i = 0; i < some; i++, t->step++) {
            vae_train_plan(&plan[i], &t->config, t->step + 1, t->step / t->per_epoch,
                           t->step % t->per_epoch * t->config.batch_size, t->per_epoch);
        }
        vae_model_train(t->model, t->data, plan, some, t->config.batch_size);
    }
    vae_status status = vae_model_totals(t->model, &totals, true, err);
    *seconds = vae_clock() - begin;
    return status;
}

vae_status vae_step_timer_calibrate(vae_step_timer *t, double seconds, size_t *n, vae_error *err)
{
    double took;
    vae_status status = VAE_OK;
    TRY(vae_step_timer_run(t, 2, &took, err));
    for (*n = 1;; *n *= 2) {
        TRY(vae_step_timer_run(t, *n, &took, err));
        /* the slowest rank's clock decides, for all */
        uint64_t ns = (uint64_t)(took * 1e9);
        TRY(vae_ranks_largest(t->be->ranks, &ns, 1, err));
        took = (double)ns / 1e9;
        if (took > seconds / 8) {
            break;
        }
    }
    const double fill = (double)*n * seconds / took;
    *n = fill > 1 ? (size_t)fill : 1;
done:
    return status;
}

vae_backend *vae_step_timer_backend(const vae_step_timer *t)
{
    return t->be;
}

const param_layout *vae_step_timer_layout(const vae_step_timer *t)
{
    return vae_model_layout(t->model);
}

double vae_step_flops(const param_layout *l, size_t B, size_t K)
{
    double encoder = 0, decoder = 0;
    for (size_t i = 0; i < l->n_encoder + l->n_decoder; i++) {
        double mac = vae_layer_products(&l->layers[i]);
        *(i < l->n_encoder ? &encoder : &decoder) += mac;
    }
    const double first = vae_layer_products(&l->layers[0]);
    return 2 * (double)B * (3 * encoder - first + 3 * (double)K * decoder);
}

static int compare(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

double vae_series_median(vae_series *s, double *min, double *max)
{
    qsort(s->v, s->n, sizeof s->v[0], compare);
    *min = s->v[0];
    *max = s->v[s->n - 1];
    return s->n % 2 ? s->v[s->n / 2] : (s->v[s->n / 2 - 1] + s->v[s->n / 2]) / 2;
}

void vae_cpu_name(char *text, size_t size)
{
    char line[256];
    FILE *f = fopen("/proc/cpuinfo", "r");
    snprintf(text, size, "unknown CPU");
    while (f != NULL && fgets(line, sizeof line, f) != NULL) {
        const char *colon = strchr(line, ':');
        if (strncmp(line, "model name", 10) == 0 && colon != NULL && colon[1] != '\0') {
            line[strcspn(line, "\n")] = '\0';
            snprintf(text, size, "%s", colon + 2);
            break;
        }
    }
    if (f != NULL) {
        fclose(f);
    }
}
