/* Pictures of a run under way: samples from the prior, originals above reconstructions. */
#include <stdio.h>
#include <string.h>

#include "image/image.h"
#include "infer/paint.h"
#include "train/internal.h"

enum { N_SAMPLES = 64, N_RECONSTRUCTIONS = 20 };

const uint32_t *trainer_view(const trainer *t, vae_trained *on)
{
    vae_trained_of(on, &t->now);
    on->be = t->be;
    on->model = t->model;
    on->batch = t->measure_batch;
    if (t->test != NULL) {
        on->set = t->test_set;
        on->split = "test";
        on->data = t->test;
        on->n = t->test_set->n;
        return NULL;
    }
    on->set = t->train_set;
    if (t->validation != NULL) {
        on->split = "validation";
        on->data = t->validation;
        on->n = t->n_validation;
        return t->rows + t->n_train + t->n_labelled;
    }
    on->split = "train";
    on->data = t->train;
    on->n = t->n_train;
    return t->rows;
}

/* A picture that cannot be written is no reason to lose the training. */
void trainer_draw(trainer *t, uint64_t epoch)
{
    vae_error err = {0};
    char name[64], path[VAE_RUN_PATH];
    vae_trained on;
    trainer_view(t, &on);
    const vae_painter painter = {.on = &on};
    const size_t n = on.n < N_RECONSTRUCTIONS ? on.n : N_RECONSTRUCTIONS;
    if (!vae_is_picture(t->now.height, t->now.width, t->now.channels)) {
        return;
    }
    snprintf(name, sizeof name, "samples/epoch-%03llu.png", (unsigned long long)epoch);
    vae_run_folder_path(&t->folder, name, path);
    if (vae_paint_prior(&painter, path, N_SAMPLES, 0, t->config->seed, 1, &err) == VAE_OK) {
        memcpy(t->result->samples, path, sizeof path);
    }
    snprintf(name, sizeof name, "samples/reconstruction-%03llu.png", (unsigned long long)epoch);
    vae_run_folder_path(&t->folder, name, path);
    if (vae_paint_reconstructions(&painter, path, n, on.set->factor_sizes != NULL, 0, &err) ==
        VAE_OK) {
        memcpy(t->result->reconstruction, path, sizeof path);
    }
    if (err.status != VAE_OK) {
        trainer_note(t, "warning: %s", err.text);
    }
}
