/* A clock for durations. */
#ifndef VAE_CLOCK_H
#define VAE_CLOCK_H

#include <time.h>

/* Seconds since some moment: never set back. */
static inline double vae_clock(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec + 1e-9 * (double)now.tv_nsec;
}

#endif
