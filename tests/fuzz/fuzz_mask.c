/* Fuzz target: masks, and single pictures beside a model (vae complete, vae interpolate). The first
 * byte of an input says for which model and by which name; the rest is the file. */
#include "cli/complete.c" /* for its reader of masks */

#include "input.h"
#include "models.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const char *const endings[] = {"", ".npz", ".csv", ".tsv"};
    bool observed[64];
    vae_dataset *row;
    vae_error err = {0};
    if (size == 0) {
        return 0;
    }
    const vae_trained *m = fuzz_model(data[0] % FUZZ_MODELS);
    const char *path = fuzz_file(data + 1, size - 1, endings[data[0] / FUZZ_MODELS % 4]);
    memset(observed, 2, sizeof observed);
    if (fuzz_judge(read_mask(observed, m, path, &err), &err)) {
        for (size_t i = 0; i < m->checkpoint->d; i++) {
            uint8_t byte;
            memcpy(&byte, &observed[i], 1);
            fuzz_must(byte <= 1);
        }
    }
    err = (vae_error){0};
    if (fuzz_judge(vae_trained_open_row(m, &row, path, &err), &err)) {
        fuzz_must(row->n == 1 && row->d == m->checkpoint->d);
        vae_dataset_free(row);
    }
    return 0;
}
