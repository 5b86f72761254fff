/* Fuzz target: CSV tables. */
#include <math.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "config/config.h"
#include "dataset/readers.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static vae_config config;
    snprintf(config.label_column, sizeof config.label_column, size % 5 == 0 ? "none" : "");
    const vae_data_options options = {.config = &config, .limit = size % 3};
    vae_dataset *set = calloc(1, sizeof *set);
    vae_stream *s;
    vae_error err = {0};
    int fd = memfd_create("fuzz", MFD_CLOEXEC);
    if (set == NULL || fd < 0 || write(fd, data, size) != (ssize_t)size ||
        lseek(fd, 0, SEEK_SET) != 0) {
        abort();
    }
    if (vae_stream_open_fd(&s, fd, "fuzz", &err) == VAE_OK) {
        vae_status status = vae_csv_reader.load_stream(set, s, &options, &err);
        if ((status == VAE_OK) != (err.text[0] == '\0')) {
            abort();
        }
        for (size_t i = 0; status == VAE_OK && i < set->n * set->d; i++) {
            if (!isfinite(((float *)set->rows)[i])) {
                abort();
            }
        }
        for (size_t i = 0; status == VAE_OK && i < set->d; i++) {
            if (set->column_names[i][0] == '\0') {
                abort();
            }
        }
        vae_stream_close(s);
    }
    vae_dataset_free(set);
    return 0;
}
