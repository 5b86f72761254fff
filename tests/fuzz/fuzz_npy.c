/* Fuzz target: NPY, the header parser in memory and the whole reader over a memory file. */
#include <stdlib.h>
#include <string.h>

#include "dataset/readers.h"
#include "format/npy.h"
#include "input.h"

/* A header that parses must be written and parsed back to the same. */
static void check_header(const uint8_t *data, size_t size)
{
    /* An exact copy, so that ASan sees a read of one byte too many. */
    uint8_t *copy = malloc(size > 0 ? size : 1), written[VAE_NPY_WRITE_HEADER_MAX];
    fuzz_must(copy != NULL);
    if (size > 0) {
        memcpy(copy, data, size);
    }
    npy_header first, second;
    if (vae_npy_parse_header(copy, size, &first, NULL) == VAE_OK) {
        size_t n = vae_npy_format_header(written, first.descr, first.shape, first.ndim);
        fuzz_must(n % 64 == 0 && vae_npy_parse_header(written, n, &second, NULL) == VAE_OK &&
                  strcmp(first.descr, second.descr) == 0 && first.ndim == second.ndim &&
                  first.n_items == second.n_items &&
                  memcmp(first.shape, second.shape, sizeof first.shape) == 0);
    }
    free(copy);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    vae_stream *s;
    vae_error err = {0};
    vae_dataset *set = calloc(1, sizeof *set);
    fuzz_must(set != NULL);
    check_header(data, size);
    vae_status status = vae_stream_open_fd(&s, fuzz_fd(data, size), "fuzz", &err);
    if (status == VAE_OK) {
        status = vae_npy_reader.load_stream(
            set, s, &(vae_data_options){.in_memory = size > 0 ? data[size - 1] % 2 : 0}, &err);
        vae_stream_close(s);
    }
    if (fuzz_judge(status, &err)) {
        volatile float last = vae_dataset_value(set, set->n - 1, set->d - 1);
        (void)last;
        vae_dataset_check_range(set, VAE_BERNOULLI, VAE_MEAN_LINEAR, NULL);
    }
    vae_dataset_free(set);
    return 0;
}
