/* Instruction set levels of the CPU backend. */
#ifndef VAE_CPU_LEVEL_H
#define VAE_CPU_LEVEL_H

#include "base/status.h"

typedef enum {
    VAE_CPU_BASELINE = 0, /* what the compiler's target has; no fused multiply-add in products */
    VAE_CPU_AVX2,         /* with FMA */
    VAE_CPU_AVX512,       /* F, BW, DQ, VL */
} vae_cpu_level;

/* The best level of this processor, or the lower one that VAE_ISA names. VAE_ERR_USAGE if it names
 * none. */
vae_status vae_cpu_level_choose(vae_cpu_level *level, vae_error *err);

#endif
