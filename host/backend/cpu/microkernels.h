/* The innermost loops of the CPU's products: a tile of C in registers for a block of terms. */
#ifndef VAE_BACKEND_CPU_MICROKERNELS_H
#define VAE_BACKEND_CPU_MICROKERNELS_H

#include <stddef.h>

#include "backend/cpu/level.h"

enum { MICROKERNEL_ROWS = 12, MICROKERNEL_COLS = 32 }; /* of a tile at most */

/* A tile of C (rows, the kernel's width) is set to, or with `add` increased by, the sum over k of
 * A's column times b's row; b (k,width). A's element is a[r * a_stride + p], or for the kernels of
 * transposed A a[p * a_stride + r]. */
typedef void microkernel(size_t rows, size_t k, const float *a, size_t a_stride, const float *b,
                         size_t ldb, float *c, size_t ldc, int add);

typedef struct {
    size_t rows, cols[3];      /* of a tile: the most rows; the three widths, ascending */
    microkernel *kernel[2][3]; /* [A transposed][width] */
} microkernels;

/* Those of a level, which multiply and add floats. */
const microkernels *vae_cpu_microkernels(vae_cpu_level level);

/* For products that the caller cuts and packs himself, on the calling thread: C (rows,cols), cols
 * at most MATMUL_PANEL, is set to, or with `add` increased by, A B, each element one chain of
 * multiply-adds over all of k. a: (rows,k) with lda; `transposed`: (k,rows). b: (k,cols) with ldb,
 * in rows that go on to the next multiple of 8 columns, as C's do: so many are read and written. */
enum { MATMUL_PANEL = MICROKERNEL_COLS };
void vae_cpu_panel_product(int transposed, float *c, size_t ldc, const float *a, size_t lda,
                           const float *b, size_t ldb, size_t rows, size_t cols, size_t k, int add,
                           vae_cpu_level level);
/* The same at level VAE_CPU_AVX512_BF16 and above of words that are pairs of bf16, two terms of the
 * sum each, the first in the low half: k, lda, ldb count words. Columns are rounded up to the next
 * multiple of 16. */
void vae_cpu_panel_dot(int transposed, float *c, size_t ldc, const float *a, size_t lda,
                       const float *b, size_t ldb, size_t rows, size_t cols, size_t k, int add);

#endif
