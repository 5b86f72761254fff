/* Products that leave out terms whose factor is zero (sparse.c). */
#ifndef VAE_BACKEND_CPU_SPARSE_H
#define VAE_BACKEND_CPU_SPARSE_H

#include <stdbool.h>
#include <stddef.h>

#include "backend/cpu/matmul.h"

/* A product of floats as vae_cpu_matmul has it, or at level VAE_CPU_AVX512_BF16 one of bf16. */
typedef struct {
    matmul_form form;
    bool bf16;
    const void *a, *b; /* as products of their type want them */
    size_t lda, ldb;
    float *c; /* of bf16 under NT and NN: NULL, C is what the epilogue gets */
    size_t ldc;
    float *sums; /* of bf16 under TN: (m) out, column sums of A, or NULL */
    size_t m, n, k;
    size_t k_step; /* terms that are summed in registers at a time: decides the bits. k cut into the
                    * fewest equal parts of at most SPARSE_TERMS words (of bf16: pairs of terms) */
    matmul_epilogue *epilogue; /* or NULL where C is written */
    void *ctx;
    int threads;
    vae_cpu_level level;
    float *shared; /* SPARSE_SHARED floats, 64-byte aligned */
    void *rooms;   /* vae_cpu_sparse_room bytes for as many threads, 64-byte aligned */
} sparse_product;

enum { SPARSE_SHARED = 1 << 20, SPARSE_TERMS = 400 };
size_t vae_cpu_sparse_room(int threads);

/* Does the product where A (NT, NN) or B (TN) holds so many zeros, and there is so much to do, that
 * it is faster so; else nothing, and false. That operand is looked at in some places.
 *
 * The bits are those of the product with all terms, if the other operand is finite: a term that is
 * zero leaves a sum as it is, but for one of -0, which only an underflow makes of one that began at
 * zero. What is not finite spoils fewer elements than there: those alone with whose zeros it is not
 * left out, which depends on up to three rows beside theirs. */
bool vae_cpu_sparse_product(const sparse_product *p);

#endif
