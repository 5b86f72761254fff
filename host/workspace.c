#include "workspace.h"

#include <stdint.h>

static const size_t alignment = 256;

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

bool vae_workspace_plan(workspace_plan *plan, const param_layout *layout, size_t batch,
                        size_t particles, bool train, const vae_backend *be)
{
    const size_t act = be->ops->act_size(be), n_layers = layout->n_encoder + layout->n_decoder;
    size_t rows;
    bool ok = !__builtin_mul_overflow(batch, particles, &rows);
    *plan = (workspace_plan){.dz = SIZE_MAX};
    plan->x = take(plan, &ok, batch, vae_pad(layout->d), act);
    plan->z = take(plan, &ok, rows, vae_pad(layout->z), act);
    for (size_t l = 0; l < n_layers; l++) {
        const layer_desc *layer = &layout->layers[l];
        size_t n = l < layout->n_encoder ? batch : rows;
        plan->y[l] = take(plan, &ok, n, vae_pad(layer->out), act);
        plan->dy[l] = plan->aux[l] = SIZE_MAX;
        if (train) {
            bool last = l == n_layers - 1;
            plan->dy[l] = last ? plan->y[l] : take(plan, &ok, n, vae_pad(layer->out), act);
            size_t aux = be->ops->aux_bytes(be, layer->act, n, layer->out);
            plan->aux[l] = aux > 0 ? take(plan, &ok, 1, aux, 1) : SIZE_MAX;
        }
    }
    if (train) {
        plan->dz = take(plan, &ok, rows, vae_pad(layout->z), act);
    }
    plan->recon_row = take(plan, &ok, rows, 1, sizeof(float));
    plan->log_pq = take(plan, &ok, rows, 1, sizeof(float));
    plan->weight = take(plan, &ok, rows, 1, sizeof(float));
    plan->kl_row = take(plan, &ok, batch, 1, sizeof(float));
    plan->bound_row = take(plan, &ok, batch, 1, sizeof(float));
    plan->kl_dim = take(plan, &ok, layout->z, 1, sizeof(float));
    size_t decode_rows = rows < VAE_DECODE_ROWS ? rows : VAE_DECODE_ROWS;
    plan->x_hat = take(plan, &ok, decode_rows, layout->d, sizeof(float));
    return ok;
}
