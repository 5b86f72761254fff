/* Single-precision matrix products of the CPU backend, the same bits for any number of threads. */
#ifndef VAE_CPU_MATMUL_H
#define VAE_CPU_MATMUL_H

#include <stddef.h>

#include "backend/cpu/level.h"

/* NT: C(M,N) = A(M,K) B(N,K)^T   (layer forward: Y = X W^T)
 * NN: C(M,N) = A(M,K) B(K,N)     (input gradient: dX = dY W)
 * TN: C(M,N) = A(K,M)^T B(K,N)   (weight gradient: dW = dY^T X) */
typedef enum { MATMUL_NT, MATMUL_NN, MATMUL_TN } matmul_form;

/* Called once for each finished tile of C by the thread that computed it, while the tile is in its
 * cache: c points at C[row0][col0]. The tiles cover C exactly once, in no fixed order. */
typedef void matmul_epilogue(void *ctx, float *c, size_t ldc, size_t row0, size_t col0, size_t rows,
                             size_t cols);

/* Row-major; leading dimensions in elements, at least the row length. C is overwritten and is not
 * read first (it may hold NaN); it must not overlap A or B. k = 0 gives zeros. epilogue may be
 * NULL. threads: 1 or more. Never fails.
 *
 * Each element of C is one chain of multiply-adds over k in increasing order, cut at multiples of
 * a constant: c[i][j] depends on row i of A, on column j of B and on K alone, so neither the number
 * of threads nor the other rows of a batch change its bits. (Machines with and without FMA
 * instructions differ.) */
void vae_cpu_matmul(matmul_form form, float *c, size_t ldc, const float *a, size_t lda,
                    const float *b, size_t ldb, size_t m, size_t n, size_t k,
                    matmul_epilogue *epilogue, void *ctx, int threads, vae_cpu_level level);

/* An operand that lies nowhere as a matrix: gather puts rows row0 .. row0+rows-1 of its columns
 * col0 .. col0+cols-1 together at `to`, ld apart, when they are packed. Called by several threads
 * at once. */
typedef struct {
    void (*gather)(const void *ctx, float *to, size_t ld, size_t row0, size_t rows, size_t col0,
                   size_t cols);
    const void *ctx;
} matmul_source;

/* The same product, the same chains, of operands that are gathered while they are packed: A, and B
 * by from_b; or, in the form NT, from_b is NULL and B lies at b with ldb. With c NULL (not in the
 * form TN) a finished tile lies only in the memory that the epilogue is given. */
void vae_cpu_matmul_gathered(matmul_form form, float *c, size_t ldc, const matmul_source *a,
                             const matmul_source *from_b, const float *b, size_t ldb, size_t m,
                             size_t n, size_t k, matmul_epilogue *epilogue, void *ctx, int threads,
                             vae_cpu_level level);

#endif
