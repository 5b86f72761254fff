/* Fuzz target: CSV tables. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#include "config/config.h"
#include "dataset/readers.h"
#include "input.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static vae_config config;
    snprintf(config.label_column, sizeof config.label_column, size % 5 == 0 ? "none" : "");
    const vae_data_options options = {.config = &config, .limit = size % 3};
    vae_dataset *set = calloc(1, sizeof *set);
    vae_stream *s;
    vae_error err = {0};
    fuzz_must(set != NULL);
    if (vae_stream_open_fd(&s, fuzz_fd(data, size), "fuzz", &err) == VAE_OK) {
        if (fuzz_judge(vae_csv_reader.load_stream(set, s, &options, &err), &err)) {
            for (size_t i = 0; i < set->n * set->d; i++) {
                fuzz_must(isfinite(((float *)set->rows)[i]));
            }
            for (size_t i = 0; i < set->d; i++) {
                fuzz_must(set->column_names[i][0] != '\0');
            }
        }
        vae_stream_close(s);
    }
    vae_dataset_free(set);
    return 0;
}
