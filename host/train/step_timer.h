/* Training steps against the clock: what `vae bench` and bench/bench_step.c are made of. */
#ifndef VAE_STEP_TIMER_H
#define VAE_STEP_TIMER_H

#include "backend/open.h"
#include "config/config.h"
#include "dataset/dataset.h"
#include "model/layout.h"

typedef struct vae_step_timer vae_step_timer;

/* What training by config would have before its first step, on config's device: its model with
 * initial parameters, and the rows of `set` that it would train on, which are standardized in place
 * where it would standardize them, in batches of config->batch_size. The set must outlive it.
 * ranks: with which each step is shared, all of them doing the same with it; NULL: none.
 * Errors: as vae_loop_open; VAE_ERR_USAGE for a batch larger than the rows. */
vae_status vae_step_timer_open(vae_step_timer **out, const vae_config *config, vae_dataset *set,
                               const vae_ranks *ranks, vae_error *err);
void vae_step_timer_close(vae_step_timer *t);

/* Runs n whole training steps (gather, noise, forward, loss, backward, optimizer), waits for the
 * last; *seconds is what that took. VAE_ERR_DIVERGED and the backend's errors. */
vae_status vae_step_timer_run(vae_step_timer *t, size_t n, double *seconds, vae_error *err);

/* How many steps fill about `seconds`: at least 1; warms caches up. */
vae_status vae_step_timer_calibrate(vae_step_timer *t, double seconds, size_t *n, vae_error *err);

/* Trains until `steps` are done since the beginning, but for about `seconds` at most. */
vae_status vae_step_timer_warm(vae_step_timer *t, uint64_t steps, double seconds, vae_error *err);
/* Steps done since the beginning: what state the model is in. */
uint64_t vae_step_timer_steps(const vae_step_timer *t);

vae_backend *vae_step_timer_backend(const vae_step_timer *t);
const param_layout *vae_step_timer_layout(const vae_step_timer *t);

/* Floating-point operations of the matrix products of one step on B examples of K particles:
 * forward, both gradients, but no input gradient of the first layer. */
double vae_step_flops(const param_layout *layout, size_t B, size_t K);

enum { VAE_SERIES_MAX = 99 };

/* Times of one thing, repeated. */
typedef struct {
    double v[VAE_SERIES_MAX];
    size_t n;
} vae_series;
/* Sorts it; the middle one, the smallest and the largest. n > 0. */
double vae_series_median(vae_series *s, double *min, double *max);

#endif
