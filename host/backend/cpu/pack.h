/* An operand's rows as the kernels of products want them: columns side by side, term after term. */
#ifndef VAE_BACKEND_CPU_PACK_H
#define VAE_BACKEND_CPU_PACK_H

#include <stddef.h>
#include <stdint.h>

#include "backend/cpu/level.h"

/* (rows,cols) of floats. */
void vae_cpu_copy_block(float *to, size_t ldt, const float *from, size_t ldf, size_t rows,
                        size_t cols);
/* to: (k,width) is b (k,cols); columns beyond cols are zero. */
void vae_cpu_pack_rows(float *to, size_t width, const float *b, size_t ldb, size_t cols, size_t k);
/* to: strips of `width` columns of b (k,cols), `apart` floats from one to the next, each (k,width);
 * columns beyond cols are zero. The same as pack_rows of each, but b is read as it lies. */
void vae_cpu_pack_strips(float *to, size_t width, size_t apart, const float *b, size_t ldb,
                         size_t cols, size_t k);
/* to: (k,width) is the transpose of b (cols,k); columns beyond cols are zero. */
void vae_cpu_pack_transposed(float *to, size_t width, const float *b, size_t ldb, size_t cols,
                             size_t k, vae_cpu_level level);
/* The same for words of any kind, at level VAE_CPU_AVX512 or above; to: (k,ldt), of which columns
 * up to `width`, a multiple of 16, are written. */
void vae_cpu_pack_words(float *to, size_t ldt, const float *b, size_t ldb, size_t cols,
                        size_t width, size_t k);
/* to: (words,ldt) of b: (k,cols), word j of a pair of rows being (first[j], second[j]), the second
 * zero where there is none; columns up to `width`, a multiple of 16, are zero. Each 32 columns lie
 * `apart` words behind those before. Level VAE_CPU_AVX512 or above. */
void vae_cpu_pack_pairs(float *to, size_t ldt, size_t apart, const uint16_t *b, size_t ldb,
                        size_t cols, size_t width, size_t k);

#endif
