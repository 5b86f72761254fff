/* Several runs side by side: what they were told, what came of it; as text, JSON or an HTML page.
 */
#ifndef VAE_COMPARE_H
#define VAE_COMPARE_H

#include <jansson.h>
#include <stdio.h>

#include "base/status.h"

typedef struct vae_comparison vae_comparison;

/* runs: n names of run folders; of each its newest checkpoint, metrics.jsonl, run.json and newest
 * sample picture are read. *out is the caller's: vae_comparison_close. As vae_checkpoint_open_run;
 * VAE_ERR_IO, VAE_ERR_RUNTIME. */
vae_status vae_comparison_open(vae_comparison **out, const char *const *runs, size_t n,
                               vae_error *err);
void vae_comparison_close(vae_comparison *c);

/* A table, a run a line: the options in which they differ, then figures. */
void vae_comparison_print(const vae_comparison *c, FILE *out);
/* The same as an object, which is the caller's. NULL: no memory. */
json_t *vae_comparison_json(const vae_comparison *c);
/* The page, with curves and pictures, atomically. VAE_ERR_IO, VAE_ERR_RUNTIME. */
vae_status vae_comparison_write(const vae_comparison *c, const char *path, vae_error *err);

#endif
