/* Fuzz target: IDX streams, plain and gzip. The input is put into a memory file, because the
 * reader works on descriptors. */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "dataset/readers.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    int fd = memfd_create("fuzz", MFD_CLOEXEC);
    if (fd < 0 || write(fd, data, size) != (ssize_t)size || lseek(fd, 0, SEEK_SET) != 0) {
        abort();
    }
    vae_stream *s;
    vae_idx idx = {0};
    vae_error err = {0};
    vae_status status = vae_stream_open_fd(&s, fd, "fuzz", &err);
    if (status == VAE_OK) {
        /* The last byte also chooses between reading everything and a few rows. */
        status =
            vae_idx_read(s, size > 0 && data[size - 1] % 2 == 1 ? 2 : 0, size % 2 == 1, &idx, &err);
        vae_stream_close(s);
    }
    /* A reader that fails says why and keeps nothing; one that succeeds has rows to touch. */
    if ((status == VAE_OK) != (idx.data != NULL) || (status == VAE_OK) != (err.text[0] == '\0')) {
        abort();
    }
    if (status == VAE_OK) {
        size_t n_bytes = idx.n_kept * idx.row_items * (idx.dtype == VAE_U8 ? 1 : 4);
        volatile uint8_t last = idx.data[n_bytes - 1];
        (void)last;
    }
    vae_idx_clear(&idx);
    return 0;
}
