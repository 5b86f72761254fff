/* What the fuzz targets share: an input as a file, and what everything owes that reads one. */
#ifndef VAE_FUZZ_INPUT_H
#define VAE_FUZZ_INPUT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/status.h"

/* libFuzzer's. */
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* Ends the process with a stack trace, which is a finding, unless it holds. */
void fuzz_must(bool holds);

/* A call either succeeded and says nothing, or failed for one of the reasons that bad input can
 * have, and says why: a line without control characters. Returns: did it succeed? */
bool fuzz_judge(vae_status status, const vae_error *err);

/* The input as a memory file: a new descriptor at its beginning. There is one such file, written
 * over by the next call. */
int fuzz_fd(const uint8_t *data, size_t size);

/* The same by a name that ends so (".npz"; "": none). Good until the next call. */
const char *fuzz_file(const uint8_t *data, size_t size, const char *ending);

/* A folder in memory where the system has one, the same one always, removed at the end. */
const char *fuzz_folder(void);
/* Writes a file in it. Returns its path, good until the next call. */
const char *fuzz_write(const char *name, const void *bytes, size_t n);

/* The input as a string, malloc'ed to its size so that ASan sees what is read behind it. */
char *fuzz_text(const uint8_t *data, size_t size);

#endif
