/* Training steps against the clock. */
#include "train/step_timer.h"

#include <stdlib.h>

#include "base/clock.h"
#include "ranks/ranks.h"
#include "train/loop.h"
#include "train/rows.h"
#include "train/schedule.h"

enum { AT_ONCE = 64 }; /* steps of one call */

/* The loop's model and rows, and steps without its epochs' ends. */
struct vae_step_timer {
    vae_loop loop;
    uint64_t step, per_epoch;
};

/* n rows of the set are trained on, as far as is known yet. */
static vae_status check_batch(const vae_config *config, const vae_dataset *set, size_t n,
                              vae_error *err)
{
    return config->batch_size <= n
               ? VAE_OK
               : vae_fail(err, VAE_ERR_USAGE, "a batch of %zu, but %s has %zu rows%s",
                          config->batch_size, set->source, n, n < set->n ? " to train on" : "");
}

vae_status vae_step_timer_open(vae_step_timer **out, const vae_config *config, vae_dataset *set,
                               const vae_ranks *ranks, vae_error *err)
{
    vae_status status = VAE_OK;
    *out = NULL;
    vae_step_timer *t = calloc(1, sizeof *t);
    if (t == NULL) {
        return vae_fail_memory(err, sizeof *t, "a timer");
    }
    TRY(check_batch(config, set, set->n, err)); /* before there is a model for them */
    TRY(vae_loop_open(&t->loop, config, set, NULL, NULL, ranks, NULL, NULL, err));
    TRY(check_batch(config, set, t->loop.n_train, err));
    TRY(vae_loop_begin(&t->loop, NULL, err));
    t->per_epoch = t->loop.n_train / config->batch_size;
    *out = t;
    t = NULL;
done:
    vae_step_timer_close(t);
    return status;
}

void vae_step_timer_close(vae_step_timer *t)
{
    if (t != NULL) {
        vae_loop_close(&t->loop);
    }
    free(t);
}

vae_status vae_step_timer_run(vae_step_timer *t, size_t n, double *seconds, vae_error *err)
{
    vae_plan plan[AT_ONCE];
    vae_totals totals;
    const vae_loop *l = &t->loop;
    const size_t rows = l->config->batch_size;
    const double begin = vae_clock();
    for (size_t done = 0, some; done < n; done += some) {
        some = n - done < AT_ONCE ? n - done : AT_ONCE;
        for (size_t i = 0; i < some; i++, t->step++) {
            vae_train_plan(&plan[i], l->config, t->step + 1, t->step / t->per_epoch,
                           t->step % t->per_epoch * rows, t->per_epoch);
            vae_loop_plan_labelled(l, &plan[i], rows);
        }
        vae_model_train(l->model, l->train, plan, some, rows);
    }
    vae_status status = vae_model_totals(l->model, &totals, true, err);
    *seconds = vae_clock() - begin;
    return status;
}

vae_status vae_step_timer_warm(vae_step_timer *t, uint64_t steps, double seconds, vae_error *err)
{
    vae_status status = VAE_OK;
    vae_pace pace = {1};
    for (double spent = 0; t->step < steps && spent < seconds;) {
        const size_t left = (size_t)(steps - t->step), n = left < pace.n ? left : pace.n;
        double took;
        TRY(vae_step_timer_run(t, n, &took, err));
        TRY(vae_ranks_slowest(t->loop.ranks, &took, err));
        vae_pace_adapt(&pace, n, took);
        spent += took;
    }
done:
    return status;
}

uint64_t vae_step_timer_steps(const vae_step_timer *t)
{
    return t->step;
}

vae_status vae_step_timer_calibrate(vae_step_timer *t, double seconds, size_t *n, vae_error *err)
{
    double took;
    vae_status status = VAE_OK;
    TRY(vae_step_timer_run(t, 2, &took, err));
    for (*n = 1;; *n *= 2) {
        TRY(vae_step_timer_run(t, *n, &took, err));
        TRY(vae_ranks_slowest(t->loop.ranks, &took, err));
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
    return t->loop.be;
}

const param_layout *vae_step_timer_layout(const vae_step_timer *t)
{
    return vae_model_layout(t->loop.model);
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
