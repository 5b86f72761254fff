/* Threads of a block as fibers. A fiber runs one CUDA thread after the other to its end and is only
 * left where a thread has to wait, so a kernel without barriers is a loop of calls on one stack.
 * The thread that completes a barrier or a warp's operation goes on without a switch.
 *
 * Under TSan every thread of a block has a fiber (and so a clock) of its own, and neighbouring
 * blocks have different sets of them: what two threads do is ordered only by barriers, __syncwarp,
 * fences with atomics, and the end of the kernel. */
#include "simt_block.h"
#include "simt_switch.h"

#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>

uint3 threadIdx, blockIdx;
dim3 blockDim, gridDim;
extern char __start_simt_shared[] __attribute__((weak));
extern char __stop_simt_shared[] __attribute__((weak));

namespace simt
{
block_state block;
alignas(1024) char dynamic_shared[MAX_DYNAMIC];
#ifdef SIMT_TSAN
block_tags *block_tag;
#endif

struct fiber {
    simt_context context;
    void *tsan = nullptr;
    int thread = -1; /* the CUDA thread on it, -1 = none */
};
} // namespace simt

using namespace simt;

namespace
{

/* Sets of fibers: two for each of two contexts, and one for each block of a cooperative grid. */
enum { SETS = 4 + MAX_RESIDENT };
#ifdef SIMT_ASAN
enum { STACK = 256 * 1024 };
#else
enum { STACK = 128 * 1024 };
#endif

fiber fibers[SETS * MAX_THREADS];
char *stacks[SETS];    /* of a set's fibers, one after the other */
int n_made[SETS];      /* fibers of each set that have a stack */
int idle[MAX_THREADS]; /* fibers without a thread, of the set in use */
int n_idle;
int n_started; /* of the threads in block.order */
int ready[MAX_THREADS], ready_head, n_ready;
fiber *current; /* NULL: the caller's stack */
fiber caller;   /* context of whoever launched */
#ifdef SIMT_ASAN
/* ASan is told of a switch from the caller's stack to a set's fibers and back, not of those among
 * them: to it the stacks of a set are one. There are hundreds of switches in a block. */
const void *caller_bottom;
size_t caller_size;
void *fake[SETS + 1]; /* ASan's, of a set's fibers; of the caller */
bool told;            /* of the switch that is going on */
#endif
int set_in_use;
unsigned context_in_use;
const simt_kernel *kernel;
#ifdef SIMT_TSAN
struct grid_tags {
    uint64_t start, end;
};
grid_tags *grid_tag;
#endif

inline void bind(int t)
{
    block.running = t;
    const unsigned u = (unsigned)t;
    if (blockDim.y == 1 && blockDim.z == 1) {
        threadIdx = uint3{u, 0, 0};
    } else {
        threadIdx =
            uint3{u % blockDim.x, u / blockDim.x % blockDim.y, u / (blockDim.x * blockDim.y)};
    }
}

#ifdef SIMT_ASAN
void tell_of_switch(const fiber *from, const fiber *to)
{
    told = !from || !to;
    if (told) {
        __sanitizer_start_switch_fiber(&fake[from ? set_in_use : SETS],
                                       to ? stacks[set_in_use] : caller_bottom,
                                       to ? (size_t)STACK * MAX_THREADS : caller_size);
    }
}
void tell_of_arrival(const fiber *at)
{
    if (told) {
        const void *bottom;
        size_t size;
        __sanitizer_finish_switch_fiber(fake[at ? set_in_use : SETS], &bottom, &size);
        /* the first switch of a grid comes from the caller's stack, whichever host thread's it is */
        if (!caller_bottom) {
            caller_bottom = bottom;
            caller_size = size;
        }
    }
}
#endif

/* Leaves the running fiber for `to` (NULL: the caller's stack), until something switches back. */
void switch_to(fiber *to)
{
    fiber *from = current ? current : &caller, *into = to ? to : &caller;
#ifdef SIMT_ASAN
    tell_of_switch(current, to);
#endif
    current = to;
    if (to && to->thread >= 0) {
        bind(to->thread);
        block.threads[to->thread].state = RUNNING;
    }
#ifdef SIMT_TSAN
    __tsan_switch_to_fiber(into->tsan, __tsan_switch_to_fiber_no_sync);
#endif
    from->context.swap_to(into->context);
#ifdef SIMT_ASAN
    tell_of_arrival(current);
#endif
}

int pop_ready()
{
    if (set.order == SIMT_SHUFFLED) {
        int &pick = ready[(ready_head + (int)random((uint32_t)n_ready)) % MAX_THREADS];
        int first = ready[ready_head];
        ready[ready_head] = pick;
        pick = first;
    }
    int t = ready[ready_head];
    ready_head = (ready_head + 1) % MAX_THREADS;
    n_ready--;
    return t;
}

/* Forward order wakes waiting threads first (one warp after the other gets to the barrier), reverse
 * order begins all threads first, shuffled order tosses a coin. */
bool wake_first()
{
    switch (set.order) {
    case SIMT_FORWARD:
        return true;
    case SIMT_REVERSE:
        return false;
    default:
        return random(2) == 0;
    }
}

fiber *make_fiber();

/* Where to go on: a fiber with a waiting thread, an idle one that will begin a new thread, or NULL.
 */
fiber *next_fiber()
{
    bool can_start = n_started<block.n_threads, can_wake = n_ready> 0;
    if (can_start && (!can_wake || !wake_first())) {
        return n_idle > 0 ? &fibers[idle[--n_idle]] : make_fiber();
    }
    return can_wake ? block.threads[pop_ready()].on : nullptr;
}

void exit_thread(int t)
{
    thread &me = block.threads[t];
    me.state = EXITED;
    block.n_exited++;
    warp &w = block.warps[t / WARP];
    const unsigned bit = 1u << (t % WARP);
    w.exited |= bit;
    for (unsigned left = w.waiting; left; left &= left - 1) {
        int u = t / WARP * WARP + __builtin_ctz(left);
        if (block.threads[u].mask & bit) {
            die_at("a lane that this warp operation waits for has exited", u);
        }
    }
    if (block.n_at_barrier > 0) {
        die_at("divergent barrier: some threads wait at it, others have exited",
               block.first_at_barrier);
    }
}

void fiber_main()
{
#ifdef SIMT_ASAN
    tell_of_arrival(current);
#endif
    for (;;) {
        fiber *me = current;
        do {
            const int t = block.order[n_started++];
            me->thread = t;
            block.threads[t].on = me;
            block.threads[t].state = RUNNING;
            bind(t);
#ifdef SIMT_TSAN
            __tsan_acquire(&grid_tag->start);
#endif
            kernel->run(kernel->closure);
            exit_thread(t);
#ifdef SIMT_TSAN
            __tsan_release(&grid_tag->end);
            break; /* a clock of its own for every thread */
#endif
        } while (n_started < block.n_threads && (n_ready == 0 || !wake_first()));
        me->thread = -1;
        fiber *to = next_fiber();
#ifndef SIMT_TSAN
        idle[n_idle++] = (int)(me - fibers);
#endif
        switch_to(to);
    }
}

fiber *make_fiber()
{
    char *&set_stacks = stacks[set_in_use];
    if (!set_stacks) {
        void *p = mmap(nullptr, (size_t)STACK * MAX_THREADS, PROT_READ | PROT_WRITE,
                       MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
        if (p == MAP_FAILED) {
            die("no memory for fibers' stacks");
        }
        set_stacks = (char *)p;
    }
    const int i = n_made[set_in_use]++;
    fiber *f = &fibers[set_in_use * MAX_THREADS + i];
    char *stack = set_stacks + (size_t)i * STACK;
    mprotect(stack, 4096, PROT_NONE); /* overflow is a crash, not a corruption */
    f->context.prepare(stack, STACK, fiber_main);
#ifdef SIMT_TSAN
    f->tsan = __tsan_create_fiber(0);
#endif
    return f;
}

void fill_shared(size_t dynamic)
{
    size_t n = __start_simt_shared ? (size_t)(__stop_simt_shared - __start_simt_shared) : 0;
    raw_fill(__start_simt_shared, 0xFF, n);
    raw_fill(dynamic_shared, 0xFF, dynamic);
#ifdef SIMT_TSAN
    /* the blocks share this memory one after the other, but only here: forget the last block's use
     */
    const uintptr_t begin = (uintptr_t)__start_simt_shared & ~(uintptr_t)7;
    if (n > 0) {
        __tsan_java_alloc(begin, ((uintptr_t)__stop_simt_shared - begin + 7) & ~(uintptr_t)7);
    }
    if (dynamic > 0) {
        __tsan_java_alloc((uintptr_t)dynamic_shared, (dynamic + 7) & ~(size_t)7);
    }
#endif
}

/* `own_set`: the set of fibers that the block is to have for itself, or -1. */
void begin_block(size_t number, int own_set)
{
    (void)number;
    block.n_exited = block.n_at_barrier = block.barrier_votes = n_started = n_ready = ready_head =
        0;
    block.n_at_grid = 0;
    const int n_warps = (block.n_threads + WARP - 1) / WARP;
    for (int w = 0; w < n_warps; w++) {
        int lanes = block.n_threads - w * WARP;
        block.warps[w] = warp{lanes >= WARP ? ~0u : (1u << lanes) - 1, 0, 0};
    }
    for (int t = 0; t < block.n_threads; t++) {
        block.threads[t].state = NEW;
        block.threads[t].file = nullptr;
        block.threads[t].fenced = false;
    }
    if (set.order == SIMT_SHUFFLED) {
        for (int i = block.n_threads - 1; i > 0; i--) {
            int j = (int)random((uint32_t)i + 1), t = block.order[i];
            block.order[i] = block.order[j];
            block.order[j] = t;
        }
    }
    if (own_set >= 0) {
        set_in_use = own_set;
        n_idle = 0;
#ifndef SIMT_TSAN
        for (int i = n_made[set_in_use]; i-- > 0;) {
            idle[n_idle++] = set_in_use * MAX_THREADS + i;
        }
#endif
    }
#ifdef SIMT_TSAN
    if (own_set < 0) {
        set_in_use = (int)(context_in_use % 2 * 2 + number % 2);
    }
    n_idle = 0;
    while (n_made[set_in_use] < block.n_threads) {
        make_fiber(); /* here: a fiber inherits the clock of who makes it */
    }
    for (int i = n_made[set_in_use]; i-- > 0;) {
        idle[n_idle++] = set_in_use * MAX_THREADS + i;
    }
    block_tag = new block_tags;
#endif
}

/* Until every thread has ended, or waits at the grid's barrier. */
void go_on(bool cooperative)
{
    switch_to(next_fiber());
    if (block.n_exited < block.n_threads) {
        if (cooperative && block.n_at_grid == block.n_threads) {
            return;
        }
        for (int t = 0; t < block.n_threads; t++) {
            if (block.threads[t].state == AT_WARP) {
                die_at("deadlock: lanes of a warp wait in different operations or for one another",
                       t);
            }
        }
        for (int t = 0; t < block.n_threads; t++) {
            if (block.threads[t].state == AT_GRID) {
                die_at("the grid's barrier: other threads of the block do not come to it", t);
            }
        }
        die_at("deadlock: a barrier that not every thread comes to", block.first_at_barrier);
    }
}

void run_block(size_t number)
{
    begin_block(number, -1);
    go_on(false);
#ifdef SIMT_TSAN
    delete block_tag;
#endif
}

/* A block of a cooperative grid while another one runs: it keeps its threads' fibers, and its shared
 * memory is put aside. */
struct resident {
    block_state state;
    int idle[MAX_THREADS], n_idle, n_started, set;
    uint3 index;
    char *shared; /* static, then dynamic */
#ifdef SIMT_TSAN
    block_tags *tag;
#endif
    bool started, ended;
};

void put_aside(resident &r, size_t dynamic)
{
    const size_t n = __start_simt_shared ? (size_t)(__stop_simt_shared - __start_simt_shared) : 0;
    r.shared = r.shared ? r.shared : (char *)malloc(n + dynamic + 1);
    if (!r.shared) {
        die("no memory for a block's shared memory");
    }
    raw_copy(r.shared, __start_simt_shared, n);
    raw_copy(r.shared + n, dynamic_shared, dynamic);
    raw_copy(&r.state, &block, sizeof block);
    raw_copy(r.idle, idle, sizeof idle);
    r.n_idle = n_idle;
    r.n_started = n_started;
#ifdef SIMT_TSAN
    r.tag = block_tag;
#endif
}

void take_up(const resident &r, size_t dynamic)
{
    const size_t n = __start_simt_shared ? (size_t)(__stop_simt_shared - __start_simt_shared) : 0;
    fill_shared(dynamic); /* forgets the other block's accesses */
    raw_copy(__start_simt_shared, r.shared, n);
    raw_copy(dynamic_shared, r.shared + n, dynamic);
    raw_copy(&block, &r.state, sizeof block);
    raw_copy(idle, r.idle, sizeof idle);
    n_idle = r.n_idle;
    n_started = r.n_started;
    set_in_use = r.set;
#ifdef SIMT_TSAN
    block_tag = r.tag;
#endif
}

#ifdef SIMT_TSAN
/* One for barriers of even, one for those of odd number: a block that leaves one is not to learn
 * what others did before they came to the next. */
uint64_t *grid_barrier_tag[2];
#endif
unsigned n_grid_barriers;

/* From one barrier of the grid to the next, block by block. */
void run_resident(resident *blocks, size_t n, size_t dynamic)
{
    size_t ended = 0;
    while (ended == 0) {
        int order[MAX_RESIDENT];
        for (size_t i = 0; i < n; i++) {
            order[i] = (int)(set.order == SIMT_REVERSE ? n - 1 - i : i);
        }
        for (size_t i = n; set.order == SIMT_SHUFFLED && i-- > 1;) {
            const size_t j = random((uint32_t)i + 1);
            const int b = order[i];
            order[i] = order[j];
            order[j] = b;
        }
        for (size_t i = 0; i < n; i++) {
            resident &r = blocks[order[i]];
            blockIdx = r.index;
            if (!r.started) {
                r.started = true;
                fill_shared(dynamic);
                begin_block((size_t)order[i], r.set);
            } else {
                take_up(r, dynamic);
                block.n_at_grid = 0;
                n_ready = ready_head = 0;
                for (int t = 0; t < block.n_threads; t++) {
                    push_ready(block.order[t]);
                }
            }
            go_on(true);
            r.ended = block.n_exited == block.n_threads;
            ended += r.ended;
            if (ended > 0 && ended <= i) { /* not all that came before it */
                for (int t = 0; t < block.n_threads; t++) {
                    if (block.threads[t].state == AT_GRID) {
                        die_at("the grid's barrier: other blocks have ended and do not come to it",
                               t);
                    }
                }
                die("kernel %s: the grid's barrier: a block ends, others wait at it", kernel->name);
            }
            put_aside(r, dynamic);
        }
        n_grid_barriers++;
    }
}

void run_cooperative(const simt_kernel &k, size_t n)
{
    resident *blocks = new resident[n]();
    for (size_t b = 0; b < n; b++) {
        blocks[b].set = 4 + (int)b;
        blocks[b].index = uint3{(unsigned)(b % k.grid.x), (unsigned)(b / k.grid.x % k.grid.y),
                                (unsigned)(b / ((size_t)k.grid.x * k.grid.y))};
    }
    resident *outside = new resident(); /* a launch may be made on a small stack */
    put_aside(*outside, 0);
    outside->set = set_in_use;
#ifdef SIMT_TSAN
    for (uint64_t *&tag : grid_barrier_tag) {
        tag = new uint64_t;
    }
#endif
    run_resident(blocks, n, k.shared);
    for (size_t b = 0; b < n; b++) {
        free(blocks[b].shared);
#ifdef SIMT_TSAN
        delete blocks[b].tag;
#endif
    }
#ifdef SIMT_TSAN
    for (uint64_t *tag : grid_barrier_tag) {
        delete tag;
    }
#endif
    take_up(*outside, 0);
    free(outside->shared);
    delete outside;
    delete[] blocks;
}

size_t common_divisor(size_t a, size_t b)
{
    return b == 0 ? a : common_divisor(b, a % b);
}

} // namespace

/* ---- called by the streams ---- */

namespace simt
{

void die_at(const char *what, int t)
{
    die("%s: kernel %s, block (%u,%u,%u), thread %d of %d, at %s:%d", what, kernel->name,
        blockIdx.x, blockIdx.y, blockIdx.z, t, block.n_threads,
        block.threads[t].file ? block.threads[t].file : "?", block.threads[t].line);
}

void push_ready(int t)
{
    block.threads[t].state = READY;
    ready[(ready_head + n_ready++) % MAX_THREADS] = t;
}

void wait_here()
{
    switch_to(next_fiber());
}

void wait_for_grid()
{
    const int t = block.running;
    if (!kernel->cooperative) {
        die_at("a barrier of the grid in a launch that is not cooperative", t);
    }
    if (block.n_exited > 0) {
        die_at("the grid's barrier: some threads have exited before it", t);
    }
    block.n_at_grid++;
    block.threads[t].state = AT_GRID;
    const unsigned number = n_grid_barriers;
    (void)number;
#ifdef SIMT_TSAN
    release(grid_barrier_tag[number % 2]);
#endif
    wait_here();
#ifdef SIMT_TSAN
    acquire(grid_barrier_tag[number % 2]);
#endif
}

void use_fibers_of(unsigned context)
{
    context_in_use = context;
}

void *context_create()
{
#ifdef SIMT_TSAN
    return __tsan_create_fiber(0);
#else
    return nullptr;
#endif
}

void context_run(void *context, void (*f)(void *), void *arg)
{
#ifdef SIMT_TSAN
    void *before = __tsan_get_current_fiber();
    __tsan_switch_to_fiber(context, __tsan_switch_to_fiber_no_sync);
    ignore_begin();
    f(arg);
    ignore_end();
    __tsan_switch_to_fiber(before, __tsan_switch_to_fiber_no_sync);
#else
    (void)context;
    f(arg);
#endif
}

void run_grid(const simt_kernel &k)
{
    kernel = &k;
    gridDim = k.grid;
    blockDim = k.block;
    block.n_threads = (int)(k.block.x * k.block.y * k.block.z);
    for (int t = 0; t < block.n_threads; t++) {
        block.order[t] = set.order == SIMT_REVERSE ? block.n_threads - 1 - t : t;
    }
#ifdef SIMT_ASAN
    caller_bottom = nullptr; /* learnt at the first switch: another host thread may have launched */
    __asan_poison_memory_region(dynamic_shared + k.shared, sizeof dynamic_shared - k.shared);
    __asan_unpoison_memory_region(dynamic_shared, k.shared);
#endif
#ifdef SIMT_TSAN
    caller.tsan = __tsan_get_current_fiber();
    grid_tag = new grid_tags;
    __tsan_release(&grid_tag->start);
#endif
    const size_t n = (size_t)k.grid.x * k.grid.y * k.grid.z;
    size_t step = 1, first = 0;
    if (k.cooperative) {
        run_cooperative(k, n);
    } else if (set.order == SIMT_SHUFFLED && n > 1) {
        first = random((uint32_t)(n < UINT32_MAX ? n : UINT32_MAX));
        for (step = 1 + random((uint32_t)(n < UINT32_MAX ? n : UINT32_MAX));
             common_divisor(n, step) != 1; step++) {
        }
    }
    for (size_t i = 0; !k.cooperative && i < n; i++) {
        size_t b = set.order == SIMT_REVERSE ? n - 1 - i : (first + i * step) % n;
        blockIdx = uint3{(unsigned)(b % k.grid.x), (unsigned)(b / k.grid.x % k.grid.y),
                         (unsigned)(b / ((size_t)k.grid.x * k.grid.y))};
        fill_shared(k.shared);
        run_block(i);
    }
    block.running = -1;
#ifdef SIMT_TSAN
    __tsan_acquire(&grid_tag->end);
    delete grid_tag;
#endif
}

} // namespace simt
