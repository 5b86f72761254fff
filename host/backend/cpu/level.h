/* Instruction set levels of the CPU backend. */
#ifndef VAE_CPU_LEVEL_H
#define VAE_CPU_LEVEL_H

#include "base/status.h"

typedef enum {
    VAE_CPU_BASELINE = 0, /* what the compiler's target has; no fused multiply-add in products */
    VAE_CPU_AVX2,         /* with FMA */
    VAE_CPU_AVX512,       /* F, BW, DQ, VL */
    VAE_CPU_AVX512_BF16,  /* with products of pairs of bf16; as before in fp32 */
    VAE_CPU_AMX_BF16,     /* with products of tiles of these */
} vae_cpu_level;

/* The best level of this processor, or the lower one that VAE_ISA names. VAE_ERR_USAGE if it names
 * none. */
vae_status vae_cpu_level_choose(vae_cpu_level *level, vae_error *err);
/* "avx2": as VAE_ISA has it. */
const char *vae_cpu_level_name(vae_cpu_level level);

#endif
