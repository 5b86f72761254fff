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

#endif
