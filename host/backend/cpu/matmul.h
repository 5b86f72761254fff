/* Matrix products of the CPU backend, the same bits for any number of threads: of floats, and of
 * bf16 (matmul_bf16.c). */
#ifndef VAE_CPU_MATMUL_H
#define VAE_CPU_MATMUL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "backend/cpu/level.h"

/* NT: C(M,N) = A(M,K) B(N,K)^T   (layer forward: Y = X W^T)
 * NN: C(M,N) = A(M,K) B(K,N)     (input gradient: dX = dY W)
 * TN: C(M,N) = A(K,M)^T B(K,N)   (weight gradient: dW = dY^T X) */
typedef enum { MATMUL_NT, MATMUL_NN, MATMUL_TN } matmul_form;

/* Called once for each finished tile of C by the thread that computed it, while the tile is in its
 * cache: c points at C[row0][col0], or of products of bf16 at a copy that the call may change. The
 * tiles cover C exactly once, in no fixed order. */
typedef void matmul_epilogue(void *ctx, float *c, size_t ldc, size_t row0, size_t col0, size_t rows,
                             size_t cols);

/* Row-major; leading dimensions in elements, at least the row length. C is overwritten and is not
 * read first (it may hold NaN); it must not overlap A or B. k = 0 gives zeros. epilogue may be
 * NULL. threads: 1 or more. room: vae_cpu_matmul_room bytes for as many threads, 64-byte aligned,
 * with which products of thousands of rows are some percent faster, and those of an operand that is
 * mostly zeros much (sparse.h); or NULL. Never fails.
 *
 * Each element of C is one chain of multiply-adds over k in increasing order, cut at multiples of
 * a constant: c[i][j] depends on row i of A, on column j of B and on K alone, so neither the number
 * of threads, nor the other rows of a batch, nor the room change its bits. (Machines with and
 * without FMA instructions differ.) With a room, where zeros are left out, that is so of finite
 * operands and but for the sign of a zero: 0 * NaN may be missing, and an underflow be +0. */
void vae_cpu_matmul(matmul_form form, float *c, size_t ldc, const float *a, size_t lda,
                    const float *b, size_t ldb, size_t m, size_t n, size_t k,
                    matmul_epilogue *epilogue, void *ctx, int threads, vae_cpu_level level,
                    void *room);
size_t vae_cpu_matmul_room(int threads);
/* Rows of a batch up to which threads have rows of weights, as the optimizer's loops have. */
enum { MATMUL_FEW_ROWS = 256 };

/* The same product of bf16, summed in floats: A and B as above, at 4-byte aligned addresses with
 * even leading dimensions. Rows of A under NT and NN, and of B under NT, are read to the next even
 * number of terms, where A or B must hold a zero and the other nothing that is not finite. room:
 * vae_cpu_matmul_bf16_room bytes, 64-byte aligned.
 *
 * NT, NN: C is what the epilogue makes of its tiles, which are at most MATMUL_BF16_COLS wide.
 * in_order: a row's tiles come one after another, from left to right, from one thread, and begin at
 * multiples of that; else more threads find work where there are few rows. TN: C is written, all of
 * it and nothing else; sums: (m) out, column sums of A, or NULL.
 *
 * At the levels below VAE_CPU_AVX512_BF16 the values are made floats and multiplied as such, which
 * is no faster than fp32. Bits follow the level, never the threads or the other rows. */
typedef struct {
    const uint16_t *data;
    size_t ld;
} matmul_bf16;
enum { MATMUL_BF16_COLS = 256 };
size_t vae_cpu_matmul_bf16_room(int threads);
void vae_cpu_matmul_bf16(matmul_form form, matmul_bf16 a, matmul_bf16 b, size_t m, size_t n,
                         size_t k, bool in_order, matmul_epilogue *epilogue, void *ctx, int threads,
                         vae_cpu_level level, void *room);
void vae_cpu_matmul_bf16_tn(float *c, size_t ldc, float *sums, matmul_bf16 a, matmul_bf16 b,
                            size_t m, size_t n, size_t k, int threads, vae_cpu_level level,
                            void *room);

#endif
