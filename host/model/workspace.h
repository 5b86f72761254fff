/* The workspace plan: every activation and per-row array of the step, placed in one allocation. */
#ifndef VAE_WORKSPACE_H
#define VAE_WORKSPACE_H

#include "backend.h"
#include "model/layout.h"

enum { VAE_DECODE_ROWS = 256 }; /* rows of x_hat computed at a time */

/* Byte offsets into the workspace; SIZE_MAX = not needed. mats are in the activation type with
 * leading dimension vae_pad(cols), the arrays are floats. `y[l]` is layer l's output (the last is
 * the logits, overwritten by dlogits), `dy[l]` the gradient of y[l], aux[l] what its forward keeps.
 */
typedef struct {
    size_t x, z, dz;
    size_t y[VAE_MAX_LAYER_ROWS], dy[VAE_MAX_LAYER_ROWS], aux[VAE_MAX_LAYER_ROWS];
    size_t recon_row, kl_row, log_pq, weight, bound_row, kl_dim, x_hat;
    size_t label; /* class of each row of layer 0's output, where the model has classes */
    /* semi-supervised: labels of the rows of x; what the first linear layer makes of its input
     * before it sees the class, and the gradient of that; the loss's parts */
    size_t label0, h, terms;
    size_t conv; /* what convolutions need for themselves, one after the other */
    size_t bytes;
} workspace_plan;

/* Plans for `batch` examples of `particles` particles, and in a semi-supervised model (particles 1)
 * `labelled` examples beside them: its encoder (convolutions aside) and decoder have
 * batch*C + labelled rows. `be` tells element and aux sizes. False if a size overflows. */
bool vae_workspace_plan(workspace_plan *plan, const param_layout *layout, size_t batch,
                        size_t labelled, size_t particles, bool train, const vae_backend *be);

/* Rows to pass at once where `most` would be best: fewer, but at least `least`, where activations
 * would take more than 256 MiB (a row of a picture's convolutions alone may take 10). It is a
 * matter of the layout alone, so that all ranks find the same. */
size_t vae_rows_at_once(const param_layout *layout, size_t particles, size_t least, size_t most);

#endif
