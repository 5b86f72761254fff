/* A request to stop something long, from a signal handler or another thread. Whoever works looks at
 * it a few times a second, and returns VAE_ERR_INTERRUPTED. */
#ifndef VAE_STOP_H
#define VAE_STOP_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>

/* 0: go on; else why not: the signal's number. Zero-initialize. */
typedef atomic_int vae_stop_flag;

_Static_assert(ATOMIC_INT_LOCK_FREE == 2, "a signal handler may set it");

/* stop may be NULL. */
static inline bool vae_stopping(const vae_stop_flag *stop)
{
    return stop != NULL && atomic_load_explicit(stop, memory_order_relaxed) != 0;
}

#endif
