/* Schedules: everything that a step's plan holds is a function of the config and a few counters. */
#include "train/schedule.h"

#include <math.h>

#include "philox.h"

/* The stage of a staged schedule that `epoch` (from 0) is in: stage i lasts 3^i epochs. */
static size_t stage_of(uint64_t epoch, size_t stages)
{
    uint64_t length = 1, end = 1;
    size_t stage = 0;
    while (stage + 1 < stages && epoch >= end) {
        stage++;
        length *= 3;
        end += length;
    }
    return stage;
}

/* How often a step schedule has multiplied the rate by gamma when `epoch` (from 0) begins. */
static uint64_t steps_down(const vae_config *c, uint64_t epoch)
{
    uint64_t passed = 0;
    if (c->lr_milestones.n == 0) {
        return epoch / c->lr_step_epochs;
    }
    for (size_t i = 0; i < c->lr_milestones.n; i++) {
        passed += epoch >= c->lr_milestones.size[i];
    }
    return passed;
}

double vae_learning_rate(const vae_config *c, uint64_t step, uint64_t epoch,
                         uint64_t steps_per_epoch)
{
    const double pi = 3.14159265358979323846;
    switch (c->lr_schedule) {
    case VAE_LR_COSINE: {
        double total = (double)c->epochs * (double)steps_per_epoch;
        return c->lr * 0.5 * (1 + cos(pi * (double)(step - 1) / total));
    }
    case VAE_LR_STEP:
        return c->lr * pow(c->lr_gamma, (double)steps_down(c, epoch));
    case VAE_LR_STAGED:
        return c->lr * pow(10, -(double)stage_of(epoch, c->stages) / (double)(c->stages - 1));
    case VAE_LR_CONSTANT:
        break;
    }
    return c->lr;
}

double vae_kl_weight(const vae_config *c, uint64_t step, uint64_t steps_per_epoch)
{
    double warm = c->kl_warmup * (double)steps_per_epoch;
    return (double)step < warm ? c->beta * (double)step / warm : c->beta;
}

uint64_t vae_order_key(uint64_t seed, uint32_t purpose, uint64_t number)
{
    vae_philox_words r = vae_philox(seed, vae_rng_stream(purpose, number), 0);
    return (uint64_t)r.w[1] << 32 | r.w[0];
}

void vae_train_plan(vae_plan *plan, const vae_config *config, uint64_t step, uint64_t epoch,
                    uint64_t position, uint64_t steps_per_epoch)
{
    const double lr = vae_learning_rate(config, step, epoch, steps_per_epoch);
    const double t = (double)step;
    *plan = (vae_plan){
        .draw = step,
        .first = position,
        .order_key = vae_order_key(config->seed, VAE_RNG_SHUFFLE, epoch),
        .shuffle = 1,
        .lr = (float)lr,
        .step_size = (float)(lr / (1 - pow(config->adam_beta1, t))),
        .rsqrt_c2 = (float)(1 / sqrt(1 - pow(config->adam_beta2, t))),
        .beta = (float)vae_kl_weight(config, step, steps_per_epoch),
        .step = step,
    };
}

void vae_schedule_notes(const vae_config *c, const vae_notes *notes)
{
    if (c->kl_warmup > (double)c->epochs) {
        vae_note(notes,
                 "warning: the KL warm-up of %g epochs is longer than the training of %zu: it "
                 "ends with beta = %g, so the final model minimizes no ELBO at beta = %g",
                 c->kl_warmup, c->epochs, c->beta * (double)c->epochs / c->kl_warmup, c->beta);
    }
    if (c->lr_schedule == VAE_LR_STAGED) {
        uint64_t whole = 0, length = 1;
        for (size_t i = 0; i < c->stages; i++, length *= 3) {
            whole += length;
        }
        if (whole != c->epochs) {
            vae_note(notes,
                     "note: %zu stages last %llu epochs; --epochs %zu ends in stage %zu of "
                     "them%s",
                     c->stages, (unsigned long long)whole, c->epochs,
                     stage_of(c->epochs - 1, c->stages) + 1,
                     c->epochs > whole ? ", which goes on for longer" : "");
        }
    }
}
