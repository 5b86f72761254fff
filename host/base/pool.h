/* Threads that share loops, and how many there are to be. */
#ifndef VAE_POOL_H
#define VAE_POOL_H

#include <stdbool.h>
#include <stddef.h>

enum { VAE_MOST_THREADS = 1024 };

/* Items first .. end-1 of a loop; thread: 0 .. threads-1 of the call, each of which does one part
 * at a time, so that it may index room that every thread needs for itself. */
typedef void vae_part_fn(void *ctx, int thread, size_t first, size_t end);

/* fn over all of 0 .. n-1, in parts of some multiple of `grain` items (at least 1; the last part
 * may be shorter), on at most `threads` threads (1 ..  VAE_MOST_THREADS), of which the caller is
 * one. Returns when all is done, and what the parts wrote is seen by the caller. Never fails: with
 * no more threads to be had it does the work with those there are.
 *
 * The parts of one thread's share come first, so that in loop after loop it meets the same items in
 * its cache; then it takes parts of others' shares. So nobody waits for a thread that the system
 * does not run, but for the parts it is in the middle of: keep parts short (some microseconds), and
 * let no result depend on which thread does a part or where parts begin.
 *
 * Threads are made when first needed and kept, asleep after some microseconds without work. They
 * compute with the caller's floating-point control (rounding, denormals) and take no signals
 * but SIGBUS, which is of a thread's own doing. In a part, a call runs serially, as thread 0.
 * Several threads of a program may call at once: each call has threads of its own. A child made by
 * fork() gets new ones; in the middle of a part, fork() is for exec() only. */
void vae_parallel(int threads, size_t n, size_t grain, vae_part_fn *fn, void *ctx);

/* How many threads to use where `asked` are asked for: as many, VAE_MOST_THREADS at most. 0 means
 * all that may run at once: OMP_NUM_THREADS where the environment has it (its first number), else
 * the processors that this thread may run on (its affinity mask), but no more than the control
 * group's quota of processor time pays for (base/cgroup.h). */
int vae_threads(size_t asked);

/* False where the environment says OMP_DYNAMIC=false: then as many threads run as were asked for,
 * also where fewer are faster (base/team_size.h). */
bool vae_threads_vary(void);

#endif
