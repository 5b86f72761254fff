/* The threads of the block that runs, between the two files that move them: simt_sched.cc (fibers,
 * blocks, grids) and simt_warp.cc (barriers, warps, fences: what kernels call). */
#ifndef SIMT_BLOCK_H
#define SIMT_BLOCK_H

#include "simt_internal.h"

namespace simt
{

enum { MAX_THREADS = 1024, WARP = 32, MAX_DYNAMIC = 232448 };

struct fiber;

enum thread_state { NEW, RUNNING, READY, AT_BARRIER, AT_WARP, AT_GRID, EXITED };
struct thread {
    thread_state state;
    fiber *on;
    const char *file;
    int line;
    simt_warp_op op;
    unsigned mask, source;
    uint64_t value;
    bool fenced;
};

struct warp {
    unsigned present, exited, waiting; /* lanes */
};

struct block_state {
    thread threads[MAX_THREADS];
    warp warps[MAX_THREADS / WARP];
    int order[MAX_THREADS]; /* in which threads begin, and are woken */
    int n_threads, n_exited;
    int n_at_barrier, first_at_barrier, barrier_votes, barrier_result;
    int n_at_grid;    /* threads at the grid's barrier */
    int running = -1; /* thread, -1: none */
};
extern block_state block;
extern char dynamic_shared[MAX_DYNAMIC];

/* The thread may go on, when its turn comes. */
void push_ready(int t);
/* The running thread waits; returns when it is made to go on. */
void wait_here();
[[noreturn]] void die_at(const char *what, int t);
/* The running thread of a cooperative grid waits for all threads of all blocks. */
void wait_for_grid();

#ifdef SIMT_TSAN
/* On the heap: allocation and free reset what TSan knows about a tag. */
struct block_tags {
    uint64_t barrier, warp[MAX_THREADS / WARP];
};
extern block_tags *block_tag;
#define TAG_BARRIER (&block_tag->barrier)
#define TAG_WARP(w) (&block_tag->warp[w])
#else
#define TAG_BARRIER nullptr
#define TAG_WARP(w) nullptr
#endif

} // namespace simt

#endif
