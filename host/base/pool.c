/* Threads that share loops.
 *
 * Why not OpenMP: its loops end when every thread has come to their end. On a machine that others
 * use too, each loop would wait for the thread that shares its processor, by spinning
 * (milliseconds, by default) or by sleeping at every barrier. Here a loop ends when its parts are
 * done, whoever did them: a thread that is not being run holds up nothing but the part it is in.
 *
 * A team is the threads of one call at a time; calls from different threads have different teams. A
 * loop has a number, its turn. Each thread of it has a share of the parts, and a share has a
 * counter of parts taken, beside the turn that this is of: so a thread that wakes up late, with
 * what it read of an old loop, takes nothing of a new one. */
#include "base/pool.h"

#include <limits.h>
#include <linux/futex.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "base/float_control.h"

enum {
    SPIN_NS = 30000,       /* how long to look for work or for others' end before going to sleep */
    YIELD_NS = 1000000,    /* how long a thread takes part after part before it lets others run */
    LOOKS = 8,             /* between two looks at the clock */
    LINE = 64,             /* bytes of a cache line */
    STACK_BYTES = 8 << 20, /* of a thread: products keep packed operands there */
    TAKEN_BITS = 20,       /* of a share's counter; the others are the turn */
    MOST_PARTS = 1 << 19,  /* of a share */
};

/* Parts taken of a share: turn << TAKEN_BITS | number. Written by all, so on a line of its own. */
typedef struct {
    _Alignas(LINE) _Atomic uint64_t taken;
} share;

typedef struct team {
    struct team *next;
    _Atomic bool busy; /* with somebody's loop */
    int generation;    /* of the process that has the threads: a fork has none of them */
    int n_workers;     /* written by the one whose loop it is */
    /* The loop. All is written by the caller before `turn`, and before all `begun`; one who reads
     * it checks that begun is the same afterwards. */
    _Alignas(LINE) _Atomic uint64_t begun;
    _Atomic(vae_part_fn *) fn;
    _Atomic(void *) ctx;
    _Atomic size_t n, grain;
    _Atomic int threads;
    _Atomic uint64_t control; /* of floating-point arithmetic */
    _Atomic uint64_t turn;
    _Alignas(LINE) _Atomic uint32_t bell; /* turn's low bits, on which idle threads sleep */
    _Atomic uint32_t sleepers;
    _Alignas(LINE) _Atomic uint32_t done; /* parts; the caller sleeps on it */
    _Atomic bool waiting;                 /* the caller does */
    share of[VAE_MOST_THREADS];
} team;

/* What a thread knows of the loop that it takes part in. */
typedef struct {
    uint64_t turn;
    vae_part_fn *fn;
    void *ctx;
    size_t n, grain, parts;
    int threads;
    uint64_t control;
} loop;

static _Thread_local uint64_t yielded; /* when this thread last let others run */

static _Atomic(team *) teams;
static _Atomic int generation;
static _Thread_local bool in_a_part;

/* ---- waiting ---- */

static uint64_t now_ns(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

static void relax(void)
{
#if defined(__x86_64__) || defined(__i386__)
    __builtin_ia32_pause();
#elif defined(__aarch64__)
    __asm__ volatile("yield");
#endif
}

static void futex(_Atomic uint32_t *word, int what, uint32_t value)
{
    syscall(SYS_futex, (uint32_t *)word, what | FUTEX_PRIVATE_FLAG, value, NULL, NULL, 0);
}

/* Looks for a while whether *word is (equal) or is no longer (not equal) `value`. */
static bool seen(_Atomic uint32_t *word, uint32_t value, bool equal)
{
    uint64_t end = 0;
    for (unsigned i = 1;; i++) {
        if ((atomic_load_explicit(word, memory_order_acquire) == value) == equal) {
            return true;
        }
        relax();
        if (i % LOOKS == 0) {
            const uint64_t now = now_ns();
            end = end == 0 ? now + SPIN_NS : end;
            if (now >= end) {
                return false;
            }
        }
    }
}

/* ---- a loop ---- */

static size_t share_begin(const loop *l, int thread)
{
    return l->parts * (size_t)thread / (size_t)l->threads;
}

/* Takes the next part of a share, and says which of all it is. */
static bool take(team *t, const loop *l, int of, size_t *part)
{
    const size_t first = share_begin(l, of), n = share_begin(l, of + 1) - first;
    const uint64_t fresh = l->turn << TAKEN_BITS;
    uint64_t word = atomic_load_explicit(&t->of[of].taken, memory_order_acquire);
    for (;;) {
        /* older than this turn: nothing is taken of it yet; newer, and nothing will be */
        const bool older = (int64_t)(word - fresh) < 0;
        const uint64_t from = older ? fresh : word;
        if (from - fresh >= n) {
            return false;
        }
        if (atomic_compare_exchange_weak_explicit(&t->of[of].taken, &word, from + 1,
                                                  memory_order_acq_rel, memory_order_acquire)) {
            *part = first + (size_t)(from - fresh);
            return true;
        }
    }
}

/* Between parts, a few times in what the system runs a thread at a stretch: one that waits for this
 * processor has it now, and not in the middle of a part, for which all would wait. If none does,
 * this is next to nothing. */
static void let_others_run(void)
{
    const uint64_t now = now_ns();
    if (now - yielded > YIELD_NS) {
        sched_yield();
        yielded = now_ns();
    }
}

/* All parts that are left, one's own share first. Returns how many it did. */
static uint32_t work(team *t, const loop *l, int thread)
{
    uint32_t did = 0;
    for (int i = 0; i < l->threads; i++) {
        const int of = thread + i < l->threads ? thread + i : thread + i - l->threads;
        while (true) {
            size_t part;
            if (thread > 0) {
                let_others_run();
            }
            if (!take(t, l, of, &part)) {
                break;
            }
            did++;
            const size_t first = part * l->grain, left = l->n - first;
            l->fn(l->ctx, thread, first, first + (left < l->grain ? left : l->grain));
        }
    }
    return did;
}

/* The loop that is going on, or was last; false if it changes meanwhile. */
static bool read_loop(const team *t, loop *l)
{
    l->turn = atomic_load_explicit(&t->turn, memory_order_acquire);
    l->fn = atomic_load_explicit(&t->fn, memory_order_acquire);
    l->ctx = atomic_load_explicit(&t->ctx, memory_order_acquire);
    l->n = atomic_load_explicit(&t->n, memory_order_acquire);
    l->grain = atomic_load_explicit(&t->grain, memory_order_acquire);
    l->threads = atomic_load_explicit(&t->threads, memory_order_acquire);
    l->control = atomic_load_explicit(&t->control, memory_order_acquire);
    return atomic_load_explicit(&t->begun, memory_order_acquire) == l->turn;
}

/* ---- threads ---- */

typedef struct {
    team *t;
    int thread; /* 1 .. */
} worker;

static void *be_a_worker(void *arg)
{
    const worker self = *(worker *)arg;
    team *t = self.t;
    free(arg);
    in_a_part = true;
    for (uint32_t bell = atomic_load(&t->bell) - 1;;) { /* it may have come too late to hear it */
        if (!seen(&t->bell, bell, false)) {
            atomic_fetch_add(&t->sleepers, 1);
            while (atomic_load(&t->bell) == bell) {
                futex(&t->bell, FUTEX_WAIT, bell);
            }
            atomic_fetch_sub(&t->sleepers, 1);
        }
        bell = atomic_load_explicit(&t->bell, memory_order_acquire);
        loop l;
        if (!read_loop(t, &l) || self.thread >= l.threads) {
            continue;
        }
        l.parts = (l.n + l.grain - 1) / l.grain;
        if (vae_float_control() != l.control) {
            vae_float_control_set(l.control);
        }
        const uint32_t did = work(t, &l, self.thread);
        if (did > 0) {
            atomic_fetch_add(&t->done, did);
            if (atomic_load(&t->waiting)) {
                futex(&t->done, FUTEX_WAKE, 1);
            }
        }
    }
    return NULL;
}

/* One more worker, if one can be had. */
static bool add_worker(team *t)
{
    worker *self = malloc(sizeof *self);
    pthread_attr_t attr;
    sigset_t all, before;
    pthread_t id;
    bool ok = self != NULL && pthread_attr_init(&attr) == 0;
    if (ok) {
        *self = (worker){t, t->n_workers + 1};
        pthread_attr_setstacksize(&attr, STACK_BYTES);
        pthread_attr_setdetachstate(&attr, PTHREAD_CREATE_DETACHED);
        sigfillset(&all);
        sigdelset(&all, SIGBUS); /* of its own doing: a mapped file that cannot be read */
        pthread_sigmask(SIG_SETMASK, &all, &before);
        ok = pthread_create(&id, &attr, be_a_worker, self) == 0;
        pthread_sigmask(SIG_SETMASK, &before, NULL);
        pthread_attr_destroy(&attr);
    }
    if (!ok) {
        free(self);
        return false;
    }
    t->n_workers++;
    return true;
}

static void after_fork(void)
{
    atomic_fetch_add(&generation, 1);
}

static void watch_forks(void)
{
    pthread_atfork(NULL, NULL, after_fork);
}

/* A team that is free, or a new one; NULL: no memory. Teams are kept, one for each call that there
 * ever was at a time. */
static team *get_team(void)
{
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    const int mine = atomic_load(&generation);
    for (team *t = atomic_load(&teams); t != NULL; t = t->next) {
        if (t->generation == mine && !atomic_load_explicit(&t->busy, memory_order_relaxed) &&
            !atomic_exchange(&t->busy, true)) {
            return t;
        }
    }
    pthread_once(&once, watch_forks);
    team *t = aligned_alloc(LINE, sizeof *t);
    if (t == NULL) {
        return NULL;
    }
    memset(t, 0, sizeof *t);
    t->generation = mine;
    t->busy = true;
    t->next = atomic_load(&teams);
    while (!atomic_compare_exchange_weak(&teams, &t->next, t)) {
    }
    return t;
}

static void finish(team *t, uint32_t parts)
{
    if (seen(&t->done, parts, true)) {
        return;
    }
    atomic_store(&t->waiting, true);
    for (uint32_t done; (done = atomic_load(&t->done)) != parts;) {
        futex(&t->done, FUTEX_WAIT, done);
    }
    atomic_store_explicit(&t->waiting, false, memory_order_relaxed);
}

static void begin(team *t, loop *l)
{
    l->turn = atomic_load_explicit(&t->turn, memory_order_relaxed) + 1;
    atomic_store_explicit(&t->begun, l->turn, memory_order_relaxed);
    atomic_store_explicit(&t->fn, l->fn, memory_order_release);
    atomic_store_explicit(&t->ctx, l->ctx, memory_order_release);
    atomic_store_explicit(&t->n, l->n, memory_order_release);
    atomic_store_explicit(&t->grain, l->grain, memory_order_release);
    atomic_store_explicit(&t->threads, l->threads, memory_order_release);
    atomic_store_explicit(&t->control, vae_float_control(), memory_order_release);
    atomic_store_explicit(&t->done, 0, memory_order_release);
    atomic_store_explicit(&t->turn, l->turn, memory_order_release);
    atomic_store(&t->bell, (uint32_t)l->turn);
    if (atomic_load(&t->sleepers) > 0) {
        futex(&t->bell, FUTEX_WAKE, INT_MAX);
    }
}

void vae_parallel(int threads, size_t n, size_t grain, vae_part_fn *fn, void *ctx)
{
    loop l = {.fn = fn, .ctx = ctx, .n = n, .grain = grain};
    if (n == 0) {
        return;
    }
    l.parts = (n - 1) / grain + 1;
    l.threads = threads < VAE_MOST_THREADS ? threads : VAE_MOST_THREADS;
    l.threads = (size_t)l.threads < l.parts ? l.threads : (int)l.parts;
    team *t = l.threads > 1 && !in_a_part ? get_team() : NULL;
    while (t != NULL && t->n_workers < l.threads - 1 && add_worker(t)) {
    }
    if (t == NULL || t->n_workers == 0) {
        fn(ctx, 0, 0, n);
    } else {
        l.threads = l.threads < t->n_workers + 1 ? l.threads : t->n_workers + 1;
        for (; l.parts / (size_t)l.threads >= MOST_PARTS; l.parts = (n - 1) / l.grain + 1) {
            l.grain *= 2;
        }
        begin(t, &l);
        in_a_part = true;
        const uint32_t did = work(t, &l, 0);
        in_a_part = false;
        if (did < l.parts) {
            atomic_fetch_add(&t->done, did);
            finish(t, (uint32_t)l.parts);
        }
    }
    if (t != NULL) {
        atomic_store_explicit(&t->busy, false, memory_order_release);
    }
}
