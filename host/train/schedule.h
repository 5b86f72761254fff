/* Schedules: learning rate, weight of the KL and order of the rows, all functions of the config and
 * a few counters. */
#ifndef VAE_SCHEDULE_H
#define VAE_SCHEDULE_H

#include <stdint.h>

#include "backend.h"
#include "base/note.h"
#include "config/config.h"

/* The plan of optimizer step `step` (from 1, over all epochs), which is in epoch `epoch` (from 0)
 * at example `position` of it: learning rate, beta and Adam's corrections by the schedules, in
 * double, and the epoch's order. steps_per_epoch counts the last partial batch.
 *
 *   cosine      lr * (1 + cos(pi * (step-1) / (epochs * steps_per_epoch))) / 2
 *   step        lr * lr_gamma^floor(epoch / lr_step_epochs)
 *   staged      stage i lasts 3^i epochs at lr * 10^(-i/(stages-1)), the last one for good (Burda
 *               et al. 2015)
 *   KL warm-up  beta * min(1, step / (kl_warmup * steps_per_epoch)) */
void vae_train_plan(vae_plan *plan, const vae_config *config, uint64_t step, uint64_t epoch,
                    uint64_t position, uint64_t steps_per_epoch);

/* Two numbers of that plan, in double. */
double vae_learning_rate(const vae_config *c, uint64_t step, uint64_t epoch,
                         uint64_t steps_per_epoch);
double vae_kl_weight(const vae_config *c, uint64_t step, uint64_t steps_per_epoch);

/* The key of a bijection of rows, from words of a stream that nothing else uses. */
uint64_t vae_order_key(uint64_t seed, uint32_t purpose, uint64_t number);

/* Says where schedules and number of epochs do not end together. */
void vae_schedule_notes(const vae_config *c, const vae_notes *notes);

#endif
