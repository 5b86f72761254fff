/* Threads that share loops, and how many there are to be. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <errno.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "base/cgroup.h"
#include "base/float_control.h"
#include "base/pool.h"

/* A child that starts threads: the sanitizer for threads warns against it, but does it. */
const char *__tsan_default_options(void);
const char *__tsan_default_options(void)
{
    return "die_after_fork=0";
}

enum { PATIENCE = 60 /* seconds: what hangs has failed */ };

static double clock_of(clockid_t which)
{
    struct timespec t;
    clock_gettime(which, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

static void wait_a_little(void)
{
    nanosleep(&(struct timespec){.tv_nsec = 100000}, NULL);
}

/* ---- every item once ---- */

typedef struct {
    uint8_t *times; /* (n) */
    int threads;
    size_t grain, n;
    _Atomic size_t wrong;
} counting;

static void count(void *ctx, int thread, size_t first, size_t end)
{
    counting *c = ctx;
    const size_t whole = (end - first) % c->grain;
    if (thread < 0 || thread >= c->threads || first >= end || end > c->n || first % c->grain != 0 ||
        (whole != 0 && end != c->n)) {
        atomic_fetch_add(&c->wrong, 1);
    }
    for (size_t i = first; i < end; i++) {
        c->times[i]++; /* not atomic: the sanitizer would see it if two threads did */
    }
}

static size_t count_wrong(int threads, size_t n, size_t grain)
{
    counting c = {calloc(n + 1, 1), threads, grain, n, 0};
    vae_parallel(threads, n, grain, count, &c);
    for (size_t i = 0; i <= n; i++) {
        c.wrong += c.times[i] != (i < n);
    }
    free(c.times);
    return c.wrong;
}

static void every_item_is_done_once(void **state)
{
    (void)state;
    static const size_t sizes[] = {0, 1, 2, 3, 7, 64, 65, 1000, 4097},
                        grains[] = {1, 2, 5, 64, 9999};
    static const int threads[] = {1, 2, 3, 5, 8};
    for (size_t i = 0; i < sizeof sizes / sizeof sizes[0]; i++) {
        for (size_t j = 0; j < sizeof grains / sizeof grains[0]; j++) {
            for (size_t k = 0; k < sizeof threads / sizeof threads[0]; k++) {
                assert_int_equal(count_wrong(threads[k], sizes[i], grains[j]), 0);
            }
        }
    }
}

/* Loop upon loop, so that threads that wake up late meet other loops than they were called for. */
static void late_threads_do_no_harm(void **state)
{
    (void)state;
    for (size_t i = 0; i < 20000; i++) {
        assert_int_equal(count_wrong(2 + (int)(i % 3), 2 + i * 7 % 23, 1 + i % 4), 0);
        if (i % 500 == 0) {
            wait_a_little(); /* they go to sleep */
        }
    }
}

static void more_parts_than_a_share_counts(void **state)
{
    (void)state;
    assert_int_equal(count_wrong(2, (size_t)3 << 19, 1), 0);
}

/* ---- who does what ---- */

typedef struct {
    _Atomic size_t begun, done;
    size_t n;
    double until;
    _Atomic bool late;
    _Atomic unsigned threads; /* bits */
} meeting;

/* The first item waits for all others: they are done although the thread that has it does nothing. */
static void one_is_held_up(void *ctx, int thread, size_t first, size_t end)
{
    meeting *m = ctx;
    (void)thread;
    while (first == 0 && m->done < m->n - end && !m->late) {
        wait_a_little();
        m->late = clock_of(CLOCK_MONOTONIC) > m->until;
    }
    m->done += end - first;
}

static void nobody_waits_for_the_parts_of_one_that_is_held_up(void **state)
{
    (void)state;
    for (int threads = 2; threads <= 4; threads++) {
        meeting m = {.n = 40, .until = clock_of(CLOCK_MONOTONIC) + PATIENCE};
        vae_parallel(threads, m.n, 1, one_is_held_up, &m);
        assert_false(m.late);
        assert_int_equal(m.done, m.n);
    }
}

/* Every item waits until all have begun: as many threads as items, or it is late. */
static void meet(meeting *m, int thread)
{
    m->begun++;
    m->threads |= 1u << thread;
    while (m->begun < m->n && !m->late) {
        wait_a_little();
        m->late = clock_of(CLOCK_MONOTONIC) > m->until;
    }
}

static meeting meeting_of(size_t n)
{
    return (meeting){.n = n, .until = clock_of(CLOCK_MONOTONIC) + PATIENCE};
}

static void all_meet(void *ctx, int thread, size_t first, size_t end)
{
    (void)first;
    (void)end;
    meet(ctx, thread);
}

static void as_many_threads_as_asked_for(void **state)
{
    (void)state;
    for (int threads = 2; threads <= 5; threads++) {
        meeting m = meeting_of((size_t)threads);
        vae_parallel(threads, m.n, 1, all_meet, &m);
        assert_false(m.late);
        assert_int_equal(m.threads, (1u << threads) - 1);
    }
}

static void inner(void *ctx, int thread, size_t first, size_t end)
{
    meeting *m = ctx;
    m->late = m->late || thread != 0 || first != 0 || end != 9;
}

static void outer(void *ctx, int thread, size_t first, size_t end)
{
    (void)first;
    (void)end;
    meet(ctx, thread);
    vae_parallel(4, 9, 1, inner, ctx);
}

static void loops_within_loops_are_serial(void **state)
{
    (void)state;
    meeting m = meeting_of(3);
    vae_parallel(3, 3, 1, outer, &m);
    assert_false(m.late);
    m = meeting_of(2); /* and those after them are not */
    vae_parallel(2, 2, 1, all_meet, &m);
    assert_false(m.late);
}

static void *call(void *ctx)
{
    size_t *wrong = ctx;
    for (size_t i = 0; i < 300; i++) {
        meeting m = meeting_of(2);
        *wrong += count_wrong(3, 50 + i, 3);
        vae_parallel(2, 2, 1, all_meet, &m); /* two of its own, whatever others call */
        *wrong += m.late ? 1 : 0;
    }
    return NULL;
}

static void callers_do_not_meet(void **state)
{
    (void)state;
    pthread_t id[4];
    size_t wrong[4] = {0};
    for (int i = 0; i < 4; i++) {
        assert_int_equal(pthread_create(&id[i], NULL, call, &wrong[i]), 0);
    }
    for (int i = 0; i < 4; i++) {
        pthread_join(id[i], NULL);
        assert_int_equal(wrong[i], 0);
    }
}

/* The child has none of its parent's threads. */
static void a_child_has_threads_of_its_own(void **state)
{
    (void)state;
    assert_int_equal(count_wrong(3, 100, 1), 0);
    const pid_t child = fork();
    if (child == 0) {
        alarm(PATIENCE);
        meeting m = meeting_of(3);
        vae_parallel(3, 3, 1, all_meet, &m);
        _exit(m.late || count_wrong(3, 1000, 1) != 0);
    }
    assert_true(child > 0);
    int status = 0;
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_true(WIFEXITED(status) && WEXITSTATUS(status) == 0);
    assert_int_equal(count_wrong(3, 100, 1), 0);
}

/* ---- what threads do not use ---- */

static void idle_threads_use_no_processor(void **state)
{
    (void)state;
    assert_int_equal(count_wrong(4, 1000, 1), 0);
    const double before = clock_of(CLOCK_PROCESS_CPUTIME_ID);
    nanosleep(&(struct timespec){.tv_nsec = 200000000}, NULL);
    assert_true(clock_of(CLOCK_PROCESS_CPUTIME_ID) - before < 0.05);
}

static void sleep_in_one(void *ctx, int thread, size_t first, size_t end)
{
    (void)end;
    meet(ctx, thread);
    if (first == 1) {
        nanosleep(&(struct timespec){.tv_nsec = 200000000}, NULL);
    }
}

static void who_waits_for_a_part_uses_no_processor(void **state)
{
    (void)state;
    meeting m = meeting_of(2);
    const double before = clock_of(CLOCK_PROCESS_CPUTIME_ID);
    vae_parallel(2, 2, 1, sleep_in_one, &m);
    assert_false(m.late);
    assert_true(clock_of(CLOCK_PROCESS_CPUTIME_ID) - before < 0.05);
}

/* ---- what threads have of their caller ---- */

typedef struct {
    meeting m;
    float half[3];
} halving;

static void half_of_the_least(void *ctx, int thread, size_t first, size_t end)
{
    halving *h = ctx;
    volatile float least = 1.17549435e-38f;
    (void)end;
    meet(&h->m, thread);
    h->half[first] = least * 0.5f;
}

static void threads_compute_as_their_caller_does(void **state)
{
    (void)state;
    const uint64_t before = vae_float_control();
    for (int i = 0; i < 4; i++) {
        halving h = {.m = meeting_of(3)};
        const bool flushed = i % 2 == 1;
        vae_float_control_set(flushed ? before | vae_flush_to_zero : before);
        vae_parallel(3, 3, 1, half_of_the_least, &h);
        assert_int_equal(vae_float_control() != before, flushed);
        vae_float_control_set(before);
        assert_false(h.m.late);
        for (size_t j = 0; j < 3; j++) {
            assert_int_equal(h.half[j] == 0, flushed);
        }
    }
}

static void look_at_signals(void *ctx, int thread, size_t first, size_t end)
{
    meeting *m = ctx;
    sigset_t blocked;
    (void)first;
    (void)end;
    meet(m, thread);
    pthread_sigmask(SIG_BLOCK, NULL, &blocked);
    if (sigismember(&blocked, SIGINT) != (thread != 0)) {
        m->late = true;
    }
}

static void signals_are_the_callers(void **state)
{
    (void)state;
    meeting m = meeting_of(3);
    vae_parallel(3, 3, 1, look_at_signals, &m);
    assert_false(m.late);
}

/* ---- how many ---- */

static void threads_follow_what_is_asked_for(void **state)
{
    (void)state;
    unsetenv("OMP_NUM_THREADS");
    assert_int_equal(vae_threads(7), 7);
    assert_int_equal(vae_threads((size_t)1 << 40), VAE_MOST_THREADS);
    const int all = vae_threads(0);
    assert_true(all >= 1 && all <= sysconf(_SC_NPROCESSORS_ONLN));
    static const struct {
        const char *text;
        int threads;
    } cases[] = {{"3", 3}, {" 5,2", 5}, {"0", 0}, {"", 0}, {"-2", 0}, {"many", 0}};
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        setenv("OMP_NUM_THREADS", cases[i].text, 1);
        assert_int_equal(vae_threads(0), cases[i].threads > 0 ? cases[i].threads : all);
        assert_int_equal(vae_threads(2), 2);
    }
    unsetenv("OMP_NUM_THREADS");
}

static void threads_may_be_fixed(void **state)
{
    (void)state;
    unsetenv("OMP_DYNAMIC");
    assert_true(vae_threads_vary());
    setenv("OMP_DYNAMIC", "true", 1);
    assert_true(vae_threads_vary());
    setenv("OMP_DYNAMIC", "FALSE", 1);
    assert_false(vae_threads_vary());
    unsetenv("OMP_DYNAMIC");
}

static void threads_follow_the_affinity_mask(void **state)
{
    (void)state;
    cpu_set_t before, one;
    assert_int_equal(sched_getaffinity(0, sizeof before, &before), 0);
    CPU_ZERO(&one);
    for (size_t i = 0; CPU_COUNT(&one) == 0; i++) {
        if (CPU_ISSET(i, &before)) {
            CPU_SET(i, &one);
        }
    }
    assert_int_equal(sched_setaffinity(0, sizeof one, &one), 0);
    const int found = vae_threads(0);
    assert_int_equal(sched_setaffinity(0, sizeof before, &before), 0);
    assert_int_equal(found, 1);
}

static char root[] = "/tmp/vae-test-XXXXXX";

static void put(const char *name, const char *text)
{
    char path[256];
    snprintf(path, sizeof path, "%s/%s", root, name);
    for (char *slash = path + sizeof root; (slash = strchr(slash, '/')) != NULL; *slash++ = '/') {
        *slash = '\0';
        assert_true(mkdir(path, 0700) == 0 || errno == EEXIST);
    }
    FILE *file = fopen(path, "w");
    assert_non_null(file);
    fputs(text, file);
    fclose(file);
}

static size_t quota_of(const char *membership)
{
    char path[256];
    put("membership", membership);
    snprintf(path, sizeof path, "%s/membership", root);
    return vae_group_processors(path, root);
}

static size_t memory_of(const char *membership)
{
    char path[256];
    put("membership", membership);
    snprintf(path, sizeof path, "%s/membership", root);
    return vae_group_memory(path, root);
}

static void limits_are_those_of_the_control_groups(void **state)
{
    (void)state;
    assert_non_null(mkdtemp(root));
    put("a/cpu.max", "max 100000\n");
    put("a/b/cpu.max", "250000 100000\n");
    put("a/b/c/cpu.max", "800000 100000\n");
    put("d/cpu.max", "50000 100000\n");
    put("cpu,cpuacct/cpu.cfs_quota_us", "-1\n");
    put("cpu,cpuacct/cpu.cfs_period_us", "100000\n");
    put("cpu,cpuacct/job/cpu.cfs_quota_us", "300000\n");
    put("cpu,cpuacct/job/cpu.cfs_period_us", "100000\n");
    assert_int_equal(quota_of("0::/\n"), 0);
    assert_int_equal(quota_of("0::/a\n"), 0);
    assert_int_equal(quota_of("0::/a/b\n"), 3);          /* 2.5 */
    assert_int_equal(quota_of("0::/a/b/c\n"), 3);        /* the group above has less */
    assert_int_equal(quota_of("0::/a/b/unseen/x\n"), 3); /* only those above are there */
    assert_int_equal(quota_of("0::/d\n"), 1);
    assert_int_equal(quota_of("4:memory:/x\n3:cpu,cpuacct:/job\n0::/\n"), 3);
    assert_int_equal(quota_of("3:cpu,cpuacct:/\n"), 0);
    assert_int_equal(quota_of("3:cpuset,cpuacct:/job\n"), 0);
    assert_int_equal(quota_of("3:cpu,cpuacct:/job\n0::/d\n"), 1);
    assert_int_equal(quota_of("no colons\n"), 0);
    assert_int_equal(vae_group_processors("/no/such/file", root), 0);
    put("a/memory.max", "max\n");
    put("a/b/memory.max", "3221225472\n");
    put("a/b/c/memory.max", "8589934592\n");
    put("memory/memory.limit_in_bytes", "9223372036854771712\n"); /* none */
    put("memory/job/memory.limit_in_bytes", "1073741824\n");
    assert_int_equal(memory_of("0::/a\n"), 0);
    assert_int_equal(memory_of("0::/a/b/c\n"), 3221225472);
    assert_int_equal(memory_of("4:memory:/x\n3:cpu:/job\n"), 0);
    assert_int_equal(memory_of("4:memory:/job\n0::/a/b\n"), 1073741824);
    assert_int_equal(memory_of("4:cpu:/job\n"), 0);
    char command[64];
    snprintf(command, sizeof command, "rm -r %s", root);
    assert_int_equal(system(command), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_item_is_done_once),
        cmocka_unit_test(late_threads_do_no_harm),
        cmocka_unit_test(more_parts_than_a_share_counts),
        cmocka_unit_test(nobody_waits_for_the_parts_of_one_that_is_held_up),
        cmocka_unit_test(as_many_threads_as_asked_for),
        cmocka_unit_test(loops_within_loops_are_serial),
        cmocka_unit_test(callers_do_not_meet),
        cmocka_unit_test(a_child_has_threads_of_its_own),
        cmocka_unit_test(idle_threads_use_no_processor),
        cmocka_unit_test(who_waits_for_a_part_uses_no_processor),
        cmocka_unit_test(threads_compute_as_their_caller_does),
        cmocka_unit_test(signals_are_the_callers),
        cmocka_unit_test(threads_follow_what_is_asked_for),
        cmocka_unit_test(threads_may_be_fixed),
        cmocka_unit_test(threads_follow_the_affinity_mask),
        cmocka_unit_test(limits_are_those_of_the_control_groups),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
