/* Pictures of a run under way: samples from the prior, originals above reconstructions. */
#include <stdio.h>
#include <string.h>

#include "image/image.h"
#include "infer/pictures.h"
#include "train/internal.h"

enum { N_SAMPLES = 64, N_RECONSTRUCTIONS = 20 };

/* A picture that cannot be written is no reason to lose the training. */
void trainer_draw(trainer *t, uint64_t epoch)
{
    vae_error err = {0};
    char name[64], path[VAE_RUN_PATH];
    const vae_painter painter = {.model = t->model, .shape = &t->now, .batch = t->measure_batch};
    vae_data *data = t->test != NULL ? t->test : t->validation != NULL ? t->validation : t->train;
    const vae_dataset *set = t->test != NULL ? t->test_set : t->train_set;
    size_t n = t->test != NULL         ? t->test_set->n
               : t->validation != NULL ? t->n_validation
                                       : t->n_train;
    n = n < N_RECONSTRUCTIONS ? n : N_RECONSTRUCTIONS;
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
    if (vae_paint_reconstructions(&painter, path, data, n, set->factor_sizes != NULL, 0, &err) ==
        VAE_OK) {
        memcpy(t->result->reconstruction, path, sizeof path);
    }
    if (err.status != VAE_OK) {
        trainer_note(t, "warning: %s", err.text);
    }
}
