/* What the tests of data files share: a scratch folder, files made in memory, and the two things a
 * test says of a data set: it opens, or it is refused properly. */
#ifndef VAE_TEST_DATASET_FIXTURE_H
#define VAE_TEST_DATASET_FIXTURE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "dataset/dataset.h"

/* A new folder under $TMPDIR, and the last path asked for in it. */
typedef struct {
    char folder[256];
    char path[512];
} scratch;

/* cmocka group fixtures; *state is a scratch. Teardown removes the folder and all in it. */
int scratch_setup(void **state);
int scratch_teardown(void **state);

/* <folder>/<name>; valid until the next call. */
const char *scratch_path(scratch *s, const char *name);

/* Writes the file, and the folders above it that are missing. Returns its path. */
const char *scratch_write(scratch *s, const char *name, const void *bytes, size_t n);

/* A small file in memory. */
typedef struct {
    uint8_t bytes[4096];
    size_t n;
} blob;

/* `plain`, packed as one gzip member. */
blob blob_gzip(const blob *plain);

/* Opens a set that must open. Free it. */
vae_dataset *dataset_open_ok(const char *name, vae_split split, size_t limit);

/* vae_dataset_has_test, which must know. */
bool dataset_has_test(const char *name);

/* Opening must fail so, with a message that holds `says` and, where ASan can tell, without an
 * allocation above 2 MiB. */
void assert_set_refused(const char *name, vae_split split, vae_status status, const char *says);

/* The same for a file of these bytes: VAE_ERR_DATA. */
void assert_blob_refused(scratch *s, const blob *b, const char *says);

/* Since allocations_start so many were above 2 MiB, or none (measured under ASan only). */
void allocations_start(void);
void assert_large_allocations(size_t n);
void assert_allocations_small(void);

#endif
