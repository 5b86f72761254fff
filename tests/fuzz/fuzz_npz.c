/* Fuzz target: NPZ. libzip's CRCs stop most changes of the data; headers and the directory are what
 * is tried here. */
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "format/npz.h"
#include "input.h"

enum { MOST_BYTES = 1 << 22 };

static void read_member(const vae_npz *npz, const vae_npz_member *m, size_t file_bytes)
{
    const size_t bytes = m->header.n_items * m->header.item_bytes;
    fuzz_must(bytes <= 1040 * (file_bytes + 100)); /* no deflate gives more */
    if (bytes > MOST_BYTES) {
        return;
    }
    vae_error err = {0};
    uint8_t *values = malloc(bytes + 1);
    float *floats = malloc((m->header.n_items + 1) * sizeof *floats);
    fuzz_must(values != NULL && floats != NULL);
    fuzz_judge(vae_npz_read(npz, m, values, &err), &err);
    err = (vae_error){0};
    fuzz_judge(vae_npz_read_floats(npz, m, floats, &err), &err);
    free(values);
    free(floats);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    const int fd = fuzz_fd(data, size);
    vae_npz npz;
    vae_error err = {0};
    if (fuzz_judge(vae_npz_open_fd(&npz, fd, "fuzz", &err), &err)) {
        for (size_t i = 0; i < npz.n; i++) {
            fuzz_must(vae_npz_find(&npz, npz.members[i].name) == &npz.members[i]);
            read_member(&npz, &npz.members[i], size);
        }
    }
    vae_npz_close(&npz);
    close(fd);
    return 0;
}
