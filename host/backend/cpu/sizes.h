/* Arithmetic of sizes that the CPU's products and convolutions share. */
#ifndef VAE_BACKEND_CPU_SIZES_H
#define VAE_BACKEND_CPU_SIZES_H

#include <stddef.h>

static inline size_t min_size(size_t a, size_t b)
{
    return a < b ? a : b;
}

static inline size_t max_size(size_t a, size_t b)
{
    return a > b ? a : b;
}

/* b > 0; a + b does not overflow. */
static inline size_t ceil_div(size_t a, size_t b)
{
    return (a + b - 1) / b;
}

/* Where the i-th of `parts` equal parts of n begins; n * parts does not overflow. */
static inline size_t part_begin(size_t n, size_t parts, size_t i)
{
    return n * i / parts;
}

#endif
