/* The CPU backend's inner loops. kernels.c is compiled once per instruction set level, the
 * level is chosen at open; without fused multiply-adds, so that every level gives the same bits.
 * All functions work on the part of an operation that one thread was given. */
#ifndef VAE_CPU_KERNELS_H
#define VAE_CPU_KERNELS_H

#include <stddef.h>
#include <stdint.h>

#include "backend/cpu/level.h"
#include "step.h"

enum { ALL_LINES = 3, NORMAL_GROUPS = 16 };

typedef struct {
    const char *isa;
    /* y: (rows,cols) with ldy, in place: act(y + b). pre: NULL, or gets y + b, with the same ld. */
    void (*bias_act)(float *y, float *pre, size_t ldy, const float *b, size_t rows, size_t cols,
                     vae_activation act);
    /* dx: (rows,cols) with ldx, in place: times the activation's derivative, from its output, or
     * its input where it keeps that, with ldf. */
    void (*act_grad)(float *dx, size_t ldx, const float *from, size_t ldf, size_t rows, size_t cols,
                     vae_activation act);
    /* db: (cols) = column sums of dy: (rows, cols) with ld. cols <= 64. */
    void (*column_sums)(float *db, const float *dy, size_t ld, size_t rows, size_t cols);
    void (*column_sums_bf16)(float *db, const uint16_t *dy, size_t ld, size_t rows, size_t cols);
    /* bf16, the upper halves of floats, to floats, and to the nearest bf16, ties to even; a NaN
     * stays one. */
    void (*widen)(float *to, const uint16_t *from, size_t n);
    void (*narrow)(uint16_t *to, const float *from, size_t n);
    /* bias_act and act_grad of a product's sums c: (rows,cols) with ldc, which become bf16 in one
     * pass. y, and pre: NULL or gets c + b, with ldy; from with ldf. */
    void (*bias_act_bf16)(uint16_t *y, uint16_t *pre, size_t ldy, const float *c, size_t ldc,
                          const float *b, size_t rows, size_t cols, vae_activation act);
    void (*act_grad_bf16)(uint16_t *dx, size_t ldx, const float *c, size_t ldc,
                          const uint16_t *from, size_t ldf, size_t rows, size_t cols,
                          vae_activation act);
    /* One row of n values of a data set to floats, binarized if asked: x = 0 or 1 by Philox words
     * of (seed, stream + i/4, block). Bits are 0 or 1 whatever is asked. */
    void (*convert_row)(float *x, const void *row, vae_dtype dtype, size_t n, vae_binarize binarize,
                        uint64_t seed, uint64_t stream, uint64_t block);
    /* n_quads groups of four standard normals: group i is vae_eps4's of stream + i. NORMAL_GROUPS
     * cost as much as one. */
    void (*normals)(float *eps, size_t n_quads, uint64_t seed, uint64_t stream, uint64_t block);
    /* One example, one particle: z, and log p(z) - log q(z|x) unless log_pq is NULL. */
    void (*latent_row)(float *z, float *log_pq, const float *mu, const float *logvar,
                       const float *eps, size_t Z);
    /* Closed-form KL of one example. */
    float (*kl_row)(const float *mu, const float *logvar, size_t Z);
    /* Adds one particle's share to dmu and dlogvar: (Z) each; w is its weight (1 for elbo). */
    void (*latent_grad_row)(float *dmu, float *dlogvar, const float *dz, const float *mu,
                            const float *logvar, const float *eps, size_t Z, float w, float scale,
                            vae_objective objective);
    /* -log p(x|logits) of one row; dl: (D) or (2D) gets the derivative times scale, may be logits
     * itself, NULL = not wanted. */
    float (*recon_row)(float *dl, const float *logits, const float *x, size_t D, vae_recon recon,
                       float scale);
    void (*decode_row)(float *x_hat, const float *logits, size_t D, vae_recon recon);
    /* The transforms of winograd.c for n channels; value p of 9 goes to (or lies at) p * point. d:
     * the 3 x 3 pixels of a window, e: the 2 x 2 of a filter, row by row. line: 0 .. 2, the three
     * values 3*line .. alone, at 0 .. 2 * point; or ALL_LINES. */
    void (*window_9)(float *to, size_t point, const float *const d[9], size_t n, int line);
    void (*filter_9)(float *to, size_t point, const float *const e[4], size_t n, int line);
    /* The 2 x 2 results of 9 sums, row by row; none of them may lie in m. */
    void (*results_4)(float *const to[4], const float *m, size_t point, size_t n);
    /* Sum of squares of n floats, in double, in fixed order. */
    double (*sum_squares)(const float *g, size_t n);
    void (*adam)(float *p, const float *g, float *m, float *v, size_t n, const vae_adam *adam,
                 float g_scale, float lr, float step_size, float rsqrt_c2);
} cpu_kernels;

/* The loops of a level that vae_cpu_level_choose gave. */
const cpu_kernels *vae_cpu_kernels(vae_cpu_level level);

/* Column sums of some rows of bf16, m: (rows,cols) with ld, at most MOST_SUMS columns: floats by
 * themselves, added up in totals; `more`: to what these have of the rows before. sums (cols) out:
 * those so far. */
enum { MOST_SUMS = 64 };
static inline void vae_cpu_add_column_sums(const cpu_kernels *k, float *sums, double *totals,
                                           int more, const uint16_t *m, size_t ld, size_t rows,
                                           size_t cols)
{
    float some[MOST_SUMS];
    k->column_sums_bf16(some, m, ld, rows, cols);
    for (size_t j = 0; j < cols; j++) {
        totals[j] = (double)some[j] + (more ? totals[j] : 0);
        sums[j] = (float)totals[j];
    }
}

#endif
