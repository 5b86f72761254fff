/* Fuzz target: a file as the cache of two pictures. The first byte of an input says whether its own
 * checksum is made right first; the rest is the file. */
#include "dataset/cache.c" /* for the layout of what ends it */

#include "input.h"

static void check(const vae_dataset *set, const vae_cache_key *key)
{
    const uint8_t *rows = set->rows;
    fuzz_must(set->n + set->n_left_out == key->files->n && set->n > 0 && set->d > 0);
    volatile uint8_t last = rows[set->n * set->d - 1];
    last = set->recorded[VAE_SHA256_BYTES - 1];
    (void)last;
    for (size_t i = 0; i < set->n_left_out; i++) {
        fuzz_must(set->left_out[i].number < key->files->n);
        fuzz_must(strlen(set->left_out[i].file) + strlen(set->left_out[i].why) < 1 << 20);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static vae_folder files = {.n = 3}; /* named so that it has a digest of zeros */
    const vae_cache_key key = {.files = &files, .channels = size % 2, .settings = "s"};
    vae_dataset set = {.n = 0};
    vae_picture_counts counts;
    vae_error err = {0};
    footer end;
    bool fits;
    char why[256];
    if (size < 1) {
        return 0;
    }
    uint8_t *bytes = malloc(size);
    fuzz_must(bytes != NULL);
    memcpy(bytes, data + 1, size - 1);
    if (data[0] % 2 == 0 && size - 1 >= HEAD + sizeof end) {
        uint8_t *at = bytes + size - 1 - sizeof end;
        memcpy(&end, at, sizeof end);
        if (end.list_bytes <= size - 1 - HEAD - sizeof end) {
            fuzz_must(check_of(at + offsetof(footer, check), at - end.list_bytes, &end, NULL) ==
                      VAE_OK);
        }
    }
    const char *path = fuzz_file(bytes, size - 1, "");
    if (fuzz_judge(vae_cache_open(&set, &counts, &fits, why, path, &key, &err), &err) && fits) {
        fuzz_must(why[0] == '\0');
        check(&set, &key);
    } else {
        fuzz_must(set.rows == NULL && set.map == NULL);
    }
    vae_map_close(set.map);
    vae_left_out_free(set.left_out, set.n_left_out);
    free(bytes);
    return 0;
}
