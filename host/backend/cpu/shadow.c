/* bf16 twins of parameters, where products of bf16 read weights: made when parameters are bound,
 * and kept by adam (optimizer.c). */
#include <stdlib.h>

#include "backend/cpu/cpu.h"

uint16_t *vae_cpu_twin(const cpu_backend *be, const float *w)
{
    for (size_t i = 0; i < be->n_shadows; i++) {
        const vae_cpu_shadow *s = &be->shadows[i];
        if (w >= s->base && w < s->base + s->n) {
            return s->twin + (w - s->base);
        }
    }
    return NULL;
}

bool vae_cpu_weights(cpu_backend *be, matmul_bf16 *twin, const float *w, size_t ldw)
{
    *twin = (matmul_bf16){vae_cpu_twin(be, w), ldw};
    if (twin->data == NULL) {
        vae_fail(&be->err, VAE_ERR_RUNTIME, "CPU: weights that bind_params was not told of");
    }
    return twin->data != NULL;
}

/* Takes a twin for a buffer seen for the first time. */
static uint16_t *add_twin(cpu_backend *be, const float *params, size_t n)
{
    vae_cpu_shadow *more = realloc(be->shadows, (be->n_shadows + 1) * sizeof *more);
    if (more == NULL) {
        vae_fail_memory(&be->err, (be->n_shadows + 1) * sizeof *more, "a list of parameters");
        return NULL;
    }
    be->shadows = more;
    uint16_t *twin = malloc(n * sizeof *twin);
    if (twin == NULL) {
        vae_fail_memory(&be->err, n * sizeof *twin, "bf16 parameters");
        return NULL;
    }
    be->shadows[be->n_shadows++] = (vae_cpu_shadow){params, n, twin};
    return twin;
}

void vae_cpu_shadow_params(cpu_backend *be, const float *params, size_t n)
{
    uint16_t *twin = vae_cpu_twin(be, params);
    twin = twin != NULL ? twin : add_twin(be, params, n);
    if (twin != NULL) {
        be->k->narrow(twin, params, n);
    }
}

void vae_cpu_forget_params(cpu_backend *be, const void *memory)
{
    for (size_t i = 0; memory != NULL && i < be->n_shadows; i++) {
        if (be->shadows[i].base == memory) {
            free(be->shadows[i].twin);
            be->shadows[i] = be->shadows[--be->n_shadows];
        }
    }
}
