/* Files read in place: their bytes, what is refused, what is told of a file that changed. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/map.h"
#include "base/pool.h"
#include "dataset_fixture.h"

enum { PAGE = 4096, SIZE = 3 * PAGE + 5 };

static void assert_refused(const char *path, vae_status status, const char *says)
{
    vae_map *m = (vae_map *)&m;
    vae_error err = {0};
    assert_int_equal(vae_map_open(&m, path, &err), status);
    assert_null(m);
    assert_non_null(strstr(err.text, says));
    assert_non_null(strstr(err.text, path));
}

static const char *write_counted(scratch *s, const char *name)
{
    uint8_t bytes[SIZE];
    for (size_t i = 0; i < SIZE; i++) {
        bytes[i] = (uint8_t)(i * 7 + i / 251);
    }
    return scratch_write(s, name, bytes, SIZE);
}

static void bytes_are_those_of_the_file_that_was_opened(void **state)
{
    vae_map *m;
    const char *path = write_counted(*state, "counted");
    assert_int_equal(vae_map_open(&m, path, NULL), VAE_OK);
    assert_int_equal(vae_map_size(m), SIZE);
    const uint8_t *bytes = vae_map_bytes(m);
    unlink(path);
    scratch_write(*state, "counted", "another", 7);
    vae_map_in_order(m);
    vae_map_fetch(m, 1, SIZE);
    for (size_t i = 0; i < SIZE; i++) {
        assert_int_equal(bytes[i], (uint8_t)(i * 7 + i / 251));
    }
    vae_map_drop(m, 17, PAGE); /* from and to amid pages, beyond the end: the bytes are the same */
    vae_map_drop(m, 2 * PAGE, 10 * PAGE);
    vae_map_drop(m, 10 * PAGE, 1);
    vae_map_at_random(m);
    for (size_t i = 0; i < SIZE; i++) {
        assert_int_equal(bytes[i], (uint8_t)(i * 7 + i / 251));
    }
    assert_int_equal(vae_map_check(m, NULL), VAE_OK);
    vae_map_close(m);
    vae_map_close(NULL);
}

/* More than 32 bits count: a hole of 5 GiB and the bytes behind it. */
static void large_files_are_mapped(void **state)
{
    const off_t end = (off_t)5 << 30;
    vae_map *m;
    const char *path = scratch_write(*state, "large", "", 0);
    const int fd = open(path, O_WRONLY);
    assert_int_equal(pwrite(fd, "last", 4, end), 4);
    close(fd);
    assert_int_equal(vae_map_open(&m, path, NULL), VAE_OK);
    assert_true(vae_map_size(m) == (size_t)end + 4);
    assert_memory_equal(vae_map_bytes(m) + end, "last", 4);
    assert_int_equal(vae_map_bytes(m)[end - 1], 0);
    vae_map_close(m);
}

static void what_cannot_be_mapped_is_refused(void **state)
{
    scratch *s = *state;
    vae_map *m;
    assert_refused(scratch_path(s, "none"), VAE_ERR_IO, "cannot open: No such file");
    assert_refused(s->folder, VAE_ERR_DATA, "is a folder; expected a file");
    assert_refused("/dev/null", VAE_ERR_DATA, "not a regular file");
    assert_int_equal(mkfifo(scratch_path(s, "pipe"), 0600), 0);
    assert_refused(scratch_path(s, "pipe"), VAE_ERR_DATA, "not a regular file");
    assert_int_equal(vae_map_open(&m, scratch_write(s, "empty", "", 0), NULL), VAE_OK);
    assert_int_equal(vae_map_size(m), 0);
    vae_map_in_order(m);
    vae_map_drop(m, 0, 1);
    assert_int_equal(vae_map_check(m, NULL), VAE_OK);
    vae_map_close(m);
}

static void assert_changed(const vae_map *m, const char *path, const char *says)
{
    vae_error err = {0};
    assert_int_equal(vae_map_check(m, &err), VAE_ERR_IO);
    assert_non_null(strstr(err.text, path));
    assert_non_null(strstr(err.text, says));
}

static void a_change_is_told(void **state)
{
    vae_map *m;
    const char *path = write_counted(*state, "changing");
    const struct timespec then[2] = {{.tv_sec = 1000000000}, {.tv_sec = 1000000000}};
    assert_int_equal(utimensat(AT_FDCWD, path, then, 0), 0);
    assert_int_equal(vae_map_open(&m, path, NULL), VAE_OK);
    assert_int_equal(vae_map_check(m, NULL), VAE_OK);
    const int fd = open(path, O_WRONLY);
    assert_int_equal(pwrite(fd, "x", 1, 5), 1);
    close(fd);
    assert_changed(m, path, "was written to while it was in use");
    assert_int_equal(truncate(path, PAGE), 0);
    assert_changed(m, path, "has 4096 bytes, but had 12293 when it was opened");
    vae_map_close(m);
}

/* ---- advice ---- */

static bool resident(const vae_map *m, size_t page)
{
    unsigned char there;
    assert_int_equal(mincore((uint8_t *)(uintptr_t)vae_map_bytes(m) + page * PAGE, PAGE, &there),
                     0);
    return there & 1;
}

/* Of a file that is on a disk: what is fetched is brought, what is read at random brings nothing
 * else, and either shows. */
static void what_is_asked_for_is_fetched(void **state)
{
    enum { PAGES = 600, FIRST = 100, N = 70, OTHER = 400 };
    static uint8_t bytes[PAGES * PAGE];
    vae_map *m;
    uint64_t seen = 0;
    memset(bytes, 7, sizeof bytes);
    const char *path = scratch_write(*state, "fetched", bytes, sizeof bytes);
    const int fd = open(path, O_RDONLY);
    assert_int_equal(fsync(fd), 0);
    assert_int_equal(posix_fadvise(fd, 0, 0, POSIX_FADV_DONTNEED), 0);
    close(fd);
    assert_int_equal(vae_map_open(&m, path, NULL), VAE_OK);
    if (resident(m, FIRST) || resident(m, OTHER)) {
        vae_map_close(m);
        print_message("SKIPPED: the scratch folder is in memory\n");
        skip();
    }
    vae_map_at_random(m);
    vae_map_disk_was_read(&seen);
    assert_false(vae_map_disk_was_read(&seen));
    vae_map_fetch(m, FIRST * PAGE + 5, N * PAGE - 10); /* more than is asked for at once */
    bool all = false;
    for (int i = 0; i < 5000 && !all; i++) {
        all = true;
        for (size_t k = 0; k < N; k++) {
            all = all && resident(m, FIRST + k);
        }
        usleep(1000);
    }
    assert_true(all);
    assert_false(resident(m, FIRST - 1) || resident(m, FIRST + N));
    assert_true(vae_map_disk_was_read(&seen));
    assert_false(vae_map_disk_was_read(&seen));
    assert_int_equal(((volatile const uint8_t *)vae_map_bytes(m))[OTHER * PAGE], 7);
    assert_true(resident(m, OTHER));
    assert_false(resident(m, OTHER - 1) || resident(m, OTHER + 1) || resident(m, OTHER + 20));
    assert_true(vae_map_disk_was_read(&seen));
    vae_map_close(m);
}

/* ---- a file that is cut short under its reader ---- */

static void blame(int number, siginfo_t *info, void *context)
{
    (void)number;
    (void)context;
    _exit(vae_map_blame(info->si_addr, STDERR_FILENO, "test: ") ? 4 : 5);
}

static void read_pages(const vae_map *m)
{
    volatile const uint8_t *bytes = vae_map_bytes(m);
    for (size_t i = 0; i < 4; i++) {
        (void)bytes[i * PAGE];
    }
}

static pthread_t caller;

/* On another thread than the caller's, which waits for the end. */
static void read_elsewhere(void *ctx, int thread, size_t first, size_t end)
{
    (void)thread;
    (void)first;
    (void)end;
    if (pthread_equal(pthread_self(), caller)) {
        sleep(20);
        _exit(8);
    }
    read_pages(ctx);
}

/* A child maps the file, cuts it to a page and reads on, on threads of the pool or not, or reads
 * where nothing is mapped any more. Its exit code, and what it says. */
static int read_what_is_gone(const char *path, bool in_pool, bool closed, char said[256])
{
    int pipes[2], code;
    assert_int_equal(pipe(pipes), 0);
    const pid_t child = fork();
    if (child == 0) {
        const struct sigaction action = {.sa_sigaction = blame, .sa_flags = SA_SIGINFO};
        vae_map *m;
        dup2(pipes[1], STDERR_FILENO);
        sigaction(SIGBUS, &action, NULL);
        if (vae_map_open(&m, path, NULL) != VAE_OK || truncate(path, PAGE) != 0) {
            _exit(9);
        }
        if (closed) {
            const int fd = open(path, O_RDONLY);
            volatile const uint8_t *foreign = mmap(NULL, SIZE, PROT_READ, MAP_PRIVATE, fd, 0);
            vae_map_close(m);
            (void)foreign[2 * PAGE];
        } else if (in_pool) {
            caller = pthread_self();
            vae_parallel(2, 2, 1, read_elsewhere, m);
        } else {
            read_pages(m);
        }
        _exit(0);
    }
    close(pipes[1]);
    const ssize_t n = read(pipes[0], said, 255);
    said[n > 0 ? n : 0] = '\0';
    close(pipes[0]);
    waitpid(child, &code, 0);
    return WIFEXITED(code) ? WEXITSTATUS(code) : 128 + WTERMSIG(code);
}

static void a_reader_of_what_is_gone_can_say_so(void **state)
{
    char said[256], expected[640];
    for (int in_pool = 0; in_pool < 2; in_pool++) {
        const char *path = write_counted(*state, "cut");
        snprintf(expected, sizeof expected,
                 "test: %s: was cut short while it was in use: it has 4096 bytes, and had 12293\n",
                 path);
        assert_int_equal(read_what_is_gone(path, in_pool, false, said), 4);
        assert_string_equal(said, expected);
    }
    assert_int_equal(read_what_is_gone(write_counted(*state, "cut"), false, true, said), 5);
    assert_string_equal(said, ""); /* a map of somebody else's, and ours is closed */
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(bytes_are_those_of_the_file_that_was_opened),
        cmocka_unit_test(large_files_are_mapped),
        cmocka_unit_test(what_cannot_be_mapped_is_refused),
        cmocka_unit_test(a_change_is_told),
        cmocka_unit_test(what_is_asked_for_is_fetched),
        cmocka_unit_test(a_reader_of_what_is_gone_can_say_so),
    };
    return cmocka_run_group_tests(tests, scratch_setup, scratch_teardown);
}
