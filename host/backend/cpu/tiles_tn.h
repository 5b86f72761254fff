/* Weights' gradients of bf16 by tiles (tiles_tn.c), at level VAE_CPU_AMX_BF16. */
#ifndef VAE_BACKEND_CPU_TILES_TN_H
#define VAE_BACKEND_CPU_TILES_TN_H

#include <stddef.h>

#include "backend/cpu/matmul.h"

/* C (m,n) = A (k,m)^T B (k,n), and sums (m) of A's columns, or NULL, as vae_cpu_matmul_bf16_tn has
 * them. k_step: terms, a multiple of 32, whose column sums are floats, which are added up in
 * doubles. threads: 1 or more. room: vae_cpu_tiles_tn_room bytes for as many, 64-byte aligned. */
void vae_cpu_tiles_tn(float *c, size_t ldc, float *sums, matmul_bf16 a, matmul_bf16 b, size_t m,
                      size_t n, size_t k, size_t k_step, int threads, void *room);
size_t vae_cpu_tiles_tn_room(int threads);
enum { TILES_TN_TERMS = 512 }; /* k_step at most */

#endif
