/* Fuzz target: NPZ. libzip's CRCs stop most changes of the data; headers and the directory are what
 * is tried here. */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "format/npz.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

enum { MOST_BYTES = 1 << 24 };

static void read_member(const vae_npz *npz, const vae_npz_member *m, size_t file_bytes)
{
    const size_t bytes = m->header.n_items * m->header.item_bytes;
    if (bytes > 1040 * (file_bytes + 100)) {
        abort(); /* more than any deflate gives */
    }
    if (bytes > MOST_BYTES) {
        return;
    }
    vae_error err = {0};
    uint8_t *values = malloc(bytes + 1);
    float *floats = malloc((m->header.n_items + 1) * sizeof *floats);
    if (values == NULL || floats == NULL) {
        abort();
    }
    if ((vae_npz_read(npz, m, values, &err) == VAE_OK) != (err.text[0] == '\0')) {
        abort();
    }
    err = (vae_error){0};
    if ((vae_npz_read_floats(npz, m, floats, &err) == VAE_OK) != (err.text[0] == '\0')) {
        abort();
    }
    free(values);
    free(floats);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    int fd = memfd_create("fuzz", MFD_CLOEXEC);
    if (fd < 0 || write(fd, data, size) != (ssize_t)size) {
        abort();
    }
    vae_npz npz;
    vae_error err = {0};
    vae_status status = vae_npz_open_fd(&npz, fd, "fuzz", &err);
    if ((status == VAE_OK) != (err.text[0] == '\0')) {
        abort();
    }
    for (size_t i = 0; status == VAE_OK && i < npz.n; i++) {
        if (vae_npz_find(&npz, npz.members[i].name) != &npz.members[i]) {
            abort();
        }
        read_member(&npz, &npz.members[i], size);
    }
    vae_npz_close(&npz);
    close(fd);
    return 0;
}
