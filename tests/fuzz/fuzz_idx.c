/* Fuzz target: IDX streams, plain and gzip. */
#include "dataset/readers.h"
#include "input.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    vae_stream *s;
    vae_idx idx = {0};
    vae_error err = {0};
    vae_status status = vae_stream_open_fd(&s, fuzz_fd(data, size), "fuzz", &err);
    if (status == VAE_OK) {
        /* The last byte also chooses between reading everything and a few rows, in place or not. */
        const uint8_t last = size > 0 ? data[size - 1] : 0;
        const vae_data_options options = {
            .limit = last % 2 == 1 ? 2 : 0, .exact = size % 2 == 1, .in_memory = last / 2 % 2};
        status = vae_idx_read(s, &options, &idx, &err);
        vae_stream_close(s);
    }
    /* A reader that fails keeps nothing; one that succeeds has rows to touch. */
    fuzz_must(fuzz_judge(status, &err) == (idx.data != NULL));
    if (status == VAE_OK) {
        size_t n_bytes = idx.n_kept * idx.row_items * (idx.dtype == VAE_U8 ? 1 : 4);
        volatile uint8_t last = idx.data[n_bytes - 1];
        (void)last;
    }
    vae_idx_clear(&idx);
    return 0;
}
