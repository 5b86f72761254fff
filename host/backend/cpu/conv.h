/* What the CPU's two ways of convolving share: conv.c, winograd.c. */
#ifndef VAE_BACKEND_CPU_CONV_H
#define VAE_BACKEND_CPU_CONV_H

#include "backend/cpu/cpu.h"

/* Pictures that are made, and what becomes of a value of them: act of it plus bias, or times act's
 * derivative. */
typedef struct {
    const cpu_kernels *k;
    float *to;
    size_t ld;         /* from one example's picture to the next */
    const float *b;    /* forward, one a channel; or NULL */
    float *pre;        /* forward: what backward needs; or NULL */
    const float *from; /* backward: what the derivative is taken from */
    vae_activation act;
} conv_out;

/* For n pixels' channels col0 .. col0+cols-1, which lie `stride` apart from to + at on. */
static inline void vae_conv_finish(const conv_out *e, size_t at, size_t stride, size_t n,
                                   size_t col0, size_t cols)
{
    if (e->b != NULL) {
        e->k->bias_act(e->to + at, e->pre != NULL ? e->pre + at : NULL, stride, e->b + col0, n,
                       cols, e->act);
    } else if (e->act != VAE_ACT_NONE) {
        e->k->act_grad(e->to + at, stride, e->from + at, stride, n, cols, e->act);
    }
}

/* A way to do the operations, but for the bias. scratch: bytes() of memory. */
typedef struct {
    size_t (*bytes)(vae_conv g, int threads);
    /* The big pictures, or the small ones, of rows examples from the other side's; e: what to
     * make. */
    void (*make)(cpu_backend *be, const conv_out *e, int big, vae_mat from, const float *w,
                 size_t ldw, size_t rows, vae_conv g, float *scratch);
    /* dw: (c,patch) with ldw. */
    void (*weight)(cpu_backend *be, float *dw, size_t ldw, vae_mat big, vae_mat small, size_t rows,
                   vae_conv g, float *scratch);
} conv_way;

extern const conv_way vae_cpu_winograd; /* where that fits */
extern const conv_way vae_cpu_patches;  /* any */
bool vae_cpu_winograd_fits(vae_conv g);

#endif
