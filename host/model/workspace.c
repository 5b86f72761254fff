/* Placing what a step writes in one piece of memory. */
#include "model/workspace.h"

#include <math.h>
#include <stdint.h>

static const size_t alignment = 256;
static const double at_once = 256 << 20; /* bytes */

/* Takes rows*cols*size bytes; returns their offset. An overflow sticks in *ok. */
static size_t take(workspace_plan *plan, bool *ok, size_t rows, size_t cols, size_t size)
{
    size_t offset = plan->bytes, n;
    if (__builtin_mul_overflow(rows, cols, &n) || __builtin_mul_overflow(n, size, &n) ||
        n > SIZE_MAX / 4 - offset) {
        *ok = false;
        return 0;
    }
    plan->bytes = (offset + n + alignment - 1) / alignment * alignment;
    return offset;
}

/* One layer's output, gradient and aux; *conv: the most that a convolution needs so far. */
static void take_layer(workspace_plan *plan, bool *ok, const param_layout *layout, size_t l,
                       size_t rows, bool train, const vae_backend *be, size_t *conv)
{
    const size_t act = be->ops->act_size(be);
    const layer_desc *layer = &layout->layers[l];
    const size_t cols = layer->out + layer->beside;
    plan->y[l] = take(plan, ok, rows, vae_pad(cols), act);
    plan->dy[l] = plan->aux[l] = SIZE_MAX;
    if (layer->is_conv) {
        const size_t bytes = be->ops->conv_bytes(be, layer->conv, rows);
        *conv = bytes > *conv ? bytes : *conv;
    }
    if (train) {
        /* the outputs of decoder and classifier are overwritten by their gradients */
        const size_t n_vae = layout->n_encoder + layout->n_decoder;
        const bool last = l == n_vae - 1 || l == n_vae + layout->n_classifier - 1;
        plan->dy[l] = last ? plan->y[l] : take(plan, ok, rows, vae_pad(cols), act);
        size_t aux = be->ops->aux_bytes(be, layer->act, rows, cols);
        plan->aux[l] = aux > 0 ? take(plan, ok, 1, aux, 1) : SIZE_MAX;
    }
}

/* Rows of the encoder, and of z and what follows it. */
static bool count_rows(const param_layout *layout, size_t batch, size_t labelled, size_t particles,
                       size_t *q_rows, size_t *z_rows)
{
    if (layout->n_classifier > 0) {
        return !__builtin_mul_overflow(batch, layout->c, q_rows) &&
               !__builtin_add_overflow(*q_rows, labelled, q_rows) && (*z_rows = *q_rows) > 0;
    }
    *q_rows = batch;
    return !__builtin_mul_overflow(batch, particles, z_rows);
}

bool vae_workspace_plan(workspace_plan *plan, const param_layout *layout, size_t batch,
                        size_t labelled, size_t particles, bool train, const vae_backend *be)
{
    const size_t act = be->ops->act_size(be), n_vae = layout->n_encoder + layout->n_decoder;
    const size_t base = batch + labelled;
    size_t q_rows = 0, rows = 0, conv = 0;
    bool ok = count_rows(layout, batch, labelled, particles, &q_rows, &rows) && base >= batch;
    *plan = (workspace_plan){.dz = SIZE_MAX, .label = SIZE_MAX};
    const bool semi = layout->n_classifier > 0;
    plan->x = take(plan, &ok, base, vae_pad(semi ? layout->d : layout->layers[0].in), act);
    plan->z = take(plan, &ok, rows, vae_pad(layout->layers[layout->n_encoder].in), act);
    for (size_t l = 0; l < n_vae; l++) {
        /* convolutions see no class: once an example, not once a class */
        const size_t q = semi && l < layout->n_conv ? base : q_rows;
        take_layer(plan, &ok, layout, l, l < layout->n_encoder ? q : rows, train, be, &conv);
    }
    for (size_t l = n_vae; l < n_vae + layout->n_classifier; l++) {
        take_layer(plan, &ok, layout, l, base, train, be, &conv);
    }
    plan->conv = conv > 0 ? take(plan, &ok, 1, conv, 1) : SIZE_MAX;
    if (train) {
        plan->dz = take(plan, &ok, rows, vae_pad(layout->layers[layout->n_encoder].in), act);
    }
    plan->recon_row = take(plan, &ok, rows, 1, sizeof(float));
    plan->log_pq = take(plan, &ok, rows, 1, sizeof(float));
    plan->weight = take(plan, &ok, rows, 1, sizeof(float));
    plan->kl_row = take(plan, &ok, q_rows, 1, sizeof(float));
    plan->bound_row = take(plan, &ok, q_rows, 1, sizeof(float));
    plan->kl_dim = take(plan, &ok, layout->z, 1, sizeof(float));
    if (layout->c > 0) {
        plan->label = take(plan, &ok, rows, 1, sizeof(uint32_t));
    }
    if (semi) {
        plan->h = take(plan, &ok, base, vae_pad(layout->layers[layout->n_conv].out), act);
        plan->label0 = take(plan, &ok, base, 1, sizeof(uint32_t));
        plan->terms = take(plan, &ok, 5, base, sizeof(float));
    }
    size_t decode_rows = rows < VAE_DECODE_ROWS ? rows : VAE_DECODE_ROWS;
    plan->x_hat = take(plan, &ok, decode_rows, layout->d, sizeof(float));
    return ok;
}

size_t vae_rows_at_once(const param_layout *layout, size_t particles, size_t least, size_t most)
{
    const size_t n_vae = layout->n_encoder + layout->n_decoder;
    const bool semi = layout->n_classifier > 0;
    const double q = semi ? (double)layout->c : 1, z = semi ? q : (double)particles;
    /* x with the class beside it, which is as wide as there are classes */
    const size_t x = semi ? layout->d : layout->layers[0].in;
    double floats = (double)x + z * (double)layout->layers[layout->n_encoder].in;
    for (size_t l = 0; l < n_vae + layout->n_classifier; l++) {
        const layer_desc *layer = &layout->layers[l];
        const bool once = l >= n_vae || (semi && l < layout->n_conv);
        const double rows = once ? 1 : l < layout->n_encoder ? q : z;
        floats += rows * (double)(layer->out + layer->beside);
    }
    const double fit = floor(at_once / (floats * sizeof(float)));
    const size_t rows = fit < (double)most ? (size_t)fit : most;
    return rows > least ? rows : least;
}
