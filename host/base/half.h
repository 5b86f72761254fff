/* Half floats (IEEE 754, binary16) as their bits. */
#ifndef VAE_HALF_H
#define VAE_HALF_H

#include <stdint.h>

float vae_half_to_float(uint16_t half);
/* To the nearest, ties to even; Inf where it is too large. */
uint16_t vae_float_to_half(float value);

#endif
