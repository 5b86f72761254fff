/* Fuzz target: a file as a data set: told apart by name and first bytes, read whole, in part, or as
 * the rows of a model. Two bytes of an input say how; the rest is the file. */
#include <math.h>
#include <stdio.h>

#include "input.h"
#include "models.h"

static void check(const vae_dataset *set, size_t limit)
{
    fuzz_must(set->n > 0 && set->d > 0 && set->height * set->width * set->channels == set->d);
    fuzz_must(limit == 0 || set->n <= limit);
    for (size_t i = 0; i < set->n && i < 64; i++) {
        for (size_t j = 0; j < set->d && j < 64; j++) {
            volatile float v = vae_dataset_value(set, i, j);
            (void)v;
        }
        fuzz_must(set->labels == NULL || set->labels[i] == VAE_NO_LABEL ||
                  set->labels[i] < set->classes.n);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const char *const endings[] = {"", ".npz", ".csv", ".tsv", ".gz", ".npy"};
    static vae_config config;
    if (size < 2) {
        return 0;
    }
    const uint8_t a = data[0], b = data[1];
    const char *path = fuzz_file(data + 2, size - 2, endings[a % 6]);
    const vae_split split = (b & 1) != 0 ? VAE_SPLIT_TEST : VAE_SPLIT_TRAIN;
    vae_error err = {0};
    if (a / 6 % 2 == 0) { /* on its own */
        const vae_data_options how = {.config = &config,
                                      .exact = (b & 2) != 0,
                                      .limit = b >> 4 & 3,
                                      .nameless = (b & 4) != 0};
        vae_dataset *set;
        snprintf(config.label_column, sizeof config.label_column, "%s", (b & 8) != 0 ? "b" : "");
        snprintf(config.drop_columns, sizeof config.drop_columns, "%s", (b & 64) != 0 ? "c" : "");
        config.image_size = (b & 128) != 0 ? 4 : 0;
        bool has_test;
        vae_error why = {0};
        fuzz_judge(vae_dataset_has_test(&has_test, path, &why), &why);
        if (fuzz_judge(vae_dataset_open(&set, path, split, &how, &err), &err)) {
            check(set, how.limit);
            vae_dataset_check_range(set, VAE_BERNOULLI, VAE_MEAN_LINEAR, NULL);
        }
        vae_dataset_free(set);
    } else { /* for a model */
        vae_trained *m = fuzz_model(b / 2 % FUZZ_MODELS);
        if (fuzz_judge(vae_trained_open_set(m, path, split, NULL, &err), &err)) {
            check(m->set, 0);
            fuzz_must(m->set->d == m->checkpoint->d);
        }
        vae_trained_close_set(m);
    }
    return 0;
}
