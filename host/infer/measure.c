/* Measuring passes: forward only, in order, with a fixed draw. */
#include "infer/measure.h"

#include <stdlib.h>

#include "base/clock.h"
#include "ranks/ranks.h"

void vae_pace_adapt(vae_pace *p, size_t ran, double seconds)
{
    const double target = 0.15;
    const double most = 4.0 * (double)p->n; /* the first steps say little: they warm caches up */
    double want = seconds > 0 ? (double)ran * target / seconds : most;
    want = want > most ? most : want;
    want = want > VAE_PACE_MOST ? VAE_PACE_MOST : want;
    p->n = want < 1 ? 1 : (size_t)want;
}

size_t vae_measure_batch(const vae_config *config, size_t most)
{
    /* 1024 rows of the decoder keep matmuls efficient and cost a few MB; a row of a convolution is
     * a picture, so 64 are as good, and they may cost a MB each */
    const size_t rows = config->conv.n > 0 ? 64 : 1024;
    const size_t each = config->semi_supervised ? config->classes : config->particles;
    const size_t least = each < rows ? rows / each : 1;
    const size_t batch = config->batch_size < most ? config->batch_size : most;
    return batch > least ? batch : least;
}

/* Another rank's clock and signals count as much as one's own: all go on, or stop, together. */
static vae_status agree(const vae_ranks *ranks, double *seconds, const vae_stop_flag *stop_signal,
                        vae_error *err)
{
    uint64_t stopping = vae_stopping(stop_signal);
    vae_status status = VAE_OK;
    TRY(vae_ranks_slowest(ranks, seconds, err));
    TRY(vae_ranks_largest(ranks, &stopping, 1, err));
    if (stopping) {
        TRY(vae_fail(err, VAE_ERR_INTERRUPTED, "interrupted"));
    }
done:
    return status;
}

/* Runs the whole pass; totals pile up in the backend. */
static vae_status run_pass(vae_model *model, vae_data *data, size_t n, size_t batch, uint64_t draw,
                           vae_plan *plan, const vae_stop_flag *stop_signal, vae_error *err)
{
    vae_totals totals;
    vae_pace p = {1};
    vae_status status = VAE_OK;
    for (size_t at = 0, number = 0; at < n;) {
        size_t rows = n - at < batch ? n - at : batch;
        size_t steps = (n - at) / rows < p.n ? (n - at) / rows : p.n;
        for (size_t i = 0; i < steps; i++) {
            /* beta 1: the bound itself, whatever training weighs */
            plan[i] = (vae_plan){.draw = draw, .first = at + i * rows, .beta = 1, .step = ++number};
        }
        double start = vae_clock();
        vae_model_measure(model, data, plan, steps, rows);
        at += steps * rows;
        if (at < n) { /* waits, so that a signal need not */
            TRY(vae_model_totals(model, &totals, false, err));
            double seconds = vae_clock() - start;
            TRY(agree(vae_model_ranks(model), &seconds, stop_signal, err));
            vae_pace_adapt(&p, steps, seconds);
        }
    }
done:
    return status;
}

vae_status vae_measure(vae_measurement *out, vae_model *model, const vae_config *config,
                       vae_data *data, size_t n, size_t batch, uint64_t draw,
                       const vae_stop_flag *stop_signal, vae_error *err)
{
    *out = (vae_measurement){0};
    vae_plan *plan = malloc(VAE_PACE_MOST * sizeof *plan);
    if (plan == NULL) {
        return vae_fail_memory(err, VAE_PACE_MOST * sizeof *plan, "the plan of a measuring pass");
    }
    vae_error inner = {0};
    vae_totals totals = {0};
    vae_status status = run_pass(model, data, n, batch, draw, plan, stop_signal, &inner);
    free(plan);
    /* in any case, so that the totals are clear again; but after an error of this rank alone, the
     * others are not there to be summed with */
    if (status == VAE_OK || status == VAE_ERR_DIVERGED || status == VAE_ERR_INTERRUPTED) {
        vae_status last = vae_model_totals(model, &totals, true, &inner);
        status = status == VAE_OK ? last : status;
    }
    if (status == VAE_ERR_DIVERGED) {
        size_t first = (size_t)(totals.bad_step - 1) * batch;
        return vae_fail(err, VAE_ERR_DIVERGED,
                        "the loss of examples %zu to %zu is NaN or Inf in a measuring pass", first,
                        first + batch < n ? first + batch - 1 : n - 1);
    }
    if (status != VAE_OK) {
        return vae_fail(err, status, "%s", inner.text);
    }
    if (n > 0) {
        out->recon = totals.recon / totals.examples;
        out->kl = totals.kl / totals.examples;
        out->elbo = -(out->recon + out->kl);
        /* free bits are a matter of training: the ELBO's own sum is taken */
        out->bound =
            config->objective == VAE_OBJ_ELBO ? -out->elbo : totals.objective / totals.examples;
        out->n = n;
        out->classified = (size_t)totals.classified;
        out->error = out->classified > 0 ? totals.errors / totals.classified : 0;
    }
    return VAE_OK;
}
