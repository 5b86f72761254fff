/* The processor's control of floating-point arithmetic, of the thread that asks. */
#ifndef VAE_FLOAT_CONTROL_H
#define VAE_FLOAT_CONTROL_H

#include <stdint.h>
#ifdef __SSE__
#include <xmmintrin.h>
#endif

/* Rounding, denormals, masks of exceptions; not what exceptions there were. */
static inline uint64_t vae_float_control(void)
{
#if defined(__SSE__)
    return _mm_getcsr() & 0xffc0;
#elif defined(__aarch64__)
    uint64_t word;
    __asm__ volatile("mrs %0, fpcr" : "=r"(word));
    return word;
#else
    return 0;
#endif
}

static inline void vae_float_control_set(uint64_t word)
{
#if defined(__SSE__)
    _mm_setcsr((unsigned)word | (_mm_getcsr() & 0x3f));
#elif defined(__aarch64__)
    __asm__ volatile("msr fpcr, %0" : : "r"(word));
#else
    (void)word;
#endif
}

/* What makes denormal numbers zero, read or written. */
#if defined(__SSE__)
static const uint64_t vae_flush_to_zero = 0x8040; /* FTZ and DAZ */
#else
static const uint64_t vae_flush_to_zero = (uint64_t)1 << 24; /* FZ */
#endif

#endif
