/* A library to preload before a dynamically linked program, which it turns into a server: for each
 * request that comes on descriptor FAULTS_ASK it forks, and the child runs the program's main with
 * the arguments asked for, and with the one fault asked for: the n-th allocation, system call or
 * thread fails, is cut short, or brings a signal. Forking saves the dynamic loader, so that a run
 * costs little more than what main does.
 *
 * Allocations are taken from malloc and its kin, also where libraries and glibc itself call them.
 * System calls are taken from the kernel: a seccomp filter, installed in the child alone, turns
 * those of the table below into SIGSYS, whose handler counts, and then injects the fault or makes
 * the call itself from the one address that the filter lets through. So those that glibc makes
 * inside (stdio, opendir) are seen as well as the program's own. x86-64 only.
 *
 * server.py speaks to it. */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include <dlfcn.h>
#include <errno.h>
#include <execinfo.h>
#include <fcntl.h>
#include <linux/audit.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <pthread.h>
#include <signal.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <sys/wait.h>
#include <time.h>
#include <ucontext.h>
#include <unistd.h>

#define PUBLIC __attribute__((visibility("default")))

/* ---- what may be hit ---- */

enum { ALLOC, THREAD, ANY, FIRST_CALL }; /* ANY: system calls of all kinds, counted together */

/* What a call's first words are, to say which file it was about. */
enum { NO_FILE, OF_FD, OF_PATH, OF_AT, OF_TWO };

static const struct {
    const char *name; /* of the kind, which several calls may share */
    int number, about;
    int length;   /* the argument that says how many bytes; -1: it cannot be cut short */
    bool happens; /* a failure comes after it is done: a file that cannot be closed is closed */
} calls[] = {
    {"open", SYS_openat, OF_AT, -1, false},
    {"open", SYS_open, OF_PATH, -1, false},
    {"read", SYS_read, OF_FD, 2, false},
    {"read", SYS_pread64, OF_FD, 2, false},
    {"read", SYS_readv, OF_FD, -1, false},
    {"write", SYS_write, OF_FD, 2, false},
    {"write", SYS_pwrite64, OF_FD, 2, false},
    {"write", SYS_writev, OF_FD, -1, false},
    {"fsync", SYS_fsync, OF_FD, -1, false},
    {"fsync", SYS_fdatasync, OF_FD, -1, false},
    {"rename", SYS_rename, OF_TWO, -1, false},
    {"rename", SYS_renameat, OF_AT, -1, false},
    {"rename", SYS_renameat2, OF_AT, -1, false},
    {"close", SYS_close, OF_FD, -1, true},
    {"mkdir", SYS_mkdir, OF_PATH, -1, false},
    {"mkdir", SYS_mkdirat, OF_AT, -1, false},
    {"unlink", SYS_unlink, OF_PATH, -1, false},
    {"unlink", SYS_unlinkat, OF_AT, -1, false},
    {"unlink", SYS_rmdir, OF_PATH, -1, false},
    {"mmap", SYS_mmap, NO_FILE, -1, false},
    {"readdir", SYS_getdents64, OF_FD, -1, false},
    {"stat", SYS_newfstatat, OF_AT, -1, false},
    {"stat", SYS_fstat, OF_FD, -1, false},
    {"stat", SYS_stat, OF_PATH, -1, false},
    {"stat", SYS_lstat, OF_PATH, -1, false},
    {"stat", SYS_statx, OF_AT, -1, false},
    {"access", SYS_access, OF_PATH, -1, false},
    {"access", SYS_faccessat, OF_AT, -1, false},
    {"access", SYS_faccessat2, OF_AT, -1, false},
    {"access", SYS_readlink, OF_PATH, -1, false},
    {"seek", SYS_lseek, OF_FD, -1, false},
    {"truncate", SYS_ftruncate, OF_FD, -1, false},
    {"truncate", SYS_fallocate, OF_FD, -1, false},
    {"flock", SYS_flock, OF_FD, -1, false},
    {"fcntl", SYS_fcntl, OF_FD, -1, false},
    {"dup", SYS_dup, OF_FD, -1, false},
    {"dup", SYS_dup2, OF_FD, -1, false},
    {"memfd", SYS_memfd_create, NO_FILE, -1, false},
    {"random", SYS_getrandom, NO_FILE, -1, false},
    {"machine", SYS_getcwd, NO_FILE, -1, false},
    {"machine", SYS_uname, NO_FILE, -1, false},
    {"machine", SYS_sysinfo, NO_FILE, -1, false},
    {"machine", SYS_getrusage, NO_FILE, -1, false},
    {"machine", SYS_sched_getaffinity, NO_FILE, -1, false},
    {"machine", SYS_ioctl, OF_FD, -1, false},
};
enum {
    N_CALLS = sizeof calls / sizeof calls[0],
    MAX_KINDS = FIRST_CALL + N_CALLS,
    MAX_NUMBER = 512
};

static int kind_of_row[N_CALLS], row_of_number[MAX_NUMBER], n_kinds;
static const char *kind_names[MAX_KINDS] = {"alloc", "thread", "any"};

static void name_kinds(void)
{
    n_kinds = FIRST_CALL;
    memset(row_of_number, -1, sizeof row_of_number);
    for (int i = 0; i < N_CALLS; i++) {
        int k = FIRST_CALL;
        while (k < n_kinds && strcmp(kind_names[k], calls[i].name) != 0) {
            k++;
        }
        kind_names[k] = calls[i].name;
        n_kinds = k == n_kinds ? n_kinds + 1 : n_kinds;
        kind_of_row[i] = k;
        row_of_number[calls[i].number] = i;
    }
}

/* ---- the fault of this process ---- */

enum { COUNT, FAIL, SHORT, SIGNAL };

/* Shared with the one who asks, so that it is known even of a process that was killed. */
typedef struct {
    _Atomic uint64_t counts[64]; /* by kind */
    _Atomic uint64_t hits;
    char call[32];    /* the first hit's */
    char path[1024];  /* what it was about, or "" */
    char trace[4096]; /* MODULE+OFFSET, the innermost first, a space between */
} report;
_Static_assert(MAX_KINDS <= 64, "a count for each kind");

static struct {
    bool armed, filtered, frozen;
    int kind, action, value;
    uint64_t first, last;
    report *told;
} fault;

static void tell_trace(void)
{
    void *frames[48];
    const int n = backtrace(frames, 48);
    char *at = fault.told->trace, *end = at + sizeof fault.told->trace;
    for (int i = 2; i < n && end - at > 2; i++) {
        Dl_info info;
        if (dladdr(frames[i], &info) == 0 || info.dli_fname == NULL) {
            continue;
        }
        const char *slash = strrchr(info.dli_fname, '/');
        const int wrote = snprintf(at, (size_t)(end - at), "%s+0x%lx ",
                                   slash != NULL ? slash + 1 : info.dli_fname,
                                   (unsigned long)((char *)frames[i] - (char *)info.dli_fbase));
        at += wrote < end - at ? wrote : end - at - 1;
    }
}

/* Is it the turn of the fault? */
static bool hit(int kind, const char *call)
{
    /* initial-exec (tests.mk): a sanitizer's __tls_get_addr maps a page, which is trapped, too */
    static _Thread_local bool inside;
    if (!fault.armed || inside) {
        return false;
    }
    const uint64_t n = atomic_fetch_add(&fault.told->counts[kind], 1) + 1;
    if (kind != fault.kind || n < fault.first || n > fault.last || fault.action == COUNT) {
        return false;
    }
    if (atomic_fetch_add(&fault.told->hits, 1) == 0) {
        inside = true; /* what it takes to tell is not counted */
        snprintf(fault.told->call, sizeof fault.told->call, "%s", call);
        tell_trace();
        inside = false;
    }
    return true;
}

/* ---- allocations ---- */

void *__libc_malloc(size_t);
void *__libc_calloc(size_t, size_t);
void *__libc_realloc(void *, size_t);
void *__libc_memalign(size_t, size_t);
/* AddressSanitizer's, where the program has it */
void *__interceptor_malloc(size_t) __attribute__((weak));
void *__interceptor_calloc(size_t, size_t) __attribute__((weak));
void *__interceptor_realloc(void *, size_t) __attribute__((weak));
void *__interceptor_memalign(size_t, size_t) __attribute__((weak));

static bool starved(const char *call)
{
    const bool yes = fault.armed && hit(ALLOC, call);
    if (yes && fault.action == SIGNAL) {
        raise(fault.value);
        return false;
    }
    errno = yes ? ENOMEM : errno;
    return yes;
}

PUBLIC void *malloc(size_t n)
{
    return starved("malloc") ? NULL
                             : (__interceptor_malloc ? __interceptor_malloc : __libc_malloc)(n);
}

PUBLIC void *calloc(size_t n, size_t size)
{
    return starved("calloc")
               ? NULL
               : (__interceptor_calloc ? __interceptor_calloc : __libc_calloc)(n, size);
}

PUBLIC void *realloc(void *p, size_t n)
{
    return starved("realloc")
               ? NULL
               : (__interceptor_realloc ? __interceptor_realloc : __libc_realloc)(p, n);
}

static void *aligned(size_t alignment, size_t n)
{
    return (__interceptor_memalign ? __interceptor_memalign : __libc_memalign)(alignment, n);
}

PUBLIC void *memalign(size_t alignment, size_t n)
{
    return starved("memalign") ? NULL : aligned(alignment, n);
}

PUBLIC void *aligned_alloc(size_t alignment, size_t n)
{
    return starved("aligned_alloc") ? NULL : aligned(alignment, n);
}

PUBLIC int posix_memalign(void **out, size_t alignment, size_t n)
{
    void *got = starved("posix_memalign") ? NULL : aligned(alignment, n);
    if (got == NULL) {
        return ENOMEM;
    }
    *out = got;
    return 0;
}

/* ---- threads, masks and clocks ---- */

PUBLIC int pthread_create(pthread_t *thread, const pthread_attr_t *attr, void *(*start)(void *),
                          void *arg)
{
    static int (*real)(pthread_t *, const pthread_attr_t *, void *(*)(void *), void *);
    if (real == NULL) {
        *(void **)&real = dlsym(RTLD_NEXT, "pthread_create");
    }
    return fault.armed && hit(THREAD, "pthread_create") ? EAGAIN : real(thread, attr, start, arg);
}

/* A blocked SIGSYS would be the end. */
PUBLIC int pthread_sigmask(int how, const sigset_t *set, sigset_t *old)
{
    static int (*real)(int, const sigset_t *, sigset_t *);
    sigset_t ours;
    if (real == NULL) {
        *(void **)&real = dlsym(RTLD_NEXT, "pthread_sigmask");
    }
    if (set != NULL && how != SIG_UNBLOCK) {
        ours = *set;
        sigdelset(&ours, SIGSYS);
        set = &ours;
    }
    return real(how, set, old);
}

PUBLIC int sigprocmask(int how, const sigset_t *set, sigset_t *old)
{
    const int error = pthread_sigmask(how, set, old);
    errno = error != 0 ? error : errno;
    return error == 0 ? 0 : -1;
}

/* Frozen, so that the same run leaves the same bytes: a millisecond a call passes, and the calendar
 * stands still. */
static bool frozen_time(clockid_t clock, struct timespec *t)
{
    static _Atomic uint64_t ticks;
    if (!fault.frozen || clock == CLOCK_PROCESS_CPUTIME_ID || clock == CLOCK_THREAD_CPUTIME_ID) {
        return false;
    }
    if (clock == CLOCK_REALTIME || clock == CLOCK_REALTIME_COARSE) {
        *t = (struct timespec){1767225600, 0};
    } else {
        const uint64_t ms = atomic_fetch_add(&ticks, 1);
        *t = (struct timespec){(time_t)(1000 + ms / 1000), (long)(ms % 1000) * 1000000};
    }
    return true;
}

PUBLIC int clock_gettime(clockid_t clock, struct timespec *t)
{
    static int (*real)(clockid_t, struct timespec *);
    if (real == NULL) {
        *(void **)&real = dlsym(RTLD_NEXT, "clock_gettime");
    }
    return frozen_time(clock, t) ? 0 : real(clock, t);
}

PUBLIC time_t time(time_t *out)
{
    struct timespec t;
    clock_gettime(CLOCK_REALTIME, &t);
    if (out != NULL) {
        *out = t.tv_sec;
    }
    return t.tv_sec;
}

PUBLIC int gettimeofday(struct timeval *out, void *zone)
{
    struct timespec t;
    (void)zone;
    clock_gettime(CLOCK_REALTIME, &t);
    *out = (struct timeval){t.tv_sec, t.tv_nsec / 1000};
    return 0;
}

/* ---- system calls ---- */

#ifdef __x86_64__

long faults_call(long number, const long *args);
extern const char faults_call_begin[], faults_call_end[];
__asm__(".text\n"
        ".globl faults_call, faults_call_begin, faults_call_end\n"
        ".hidden faults_call, faults_call_begin, faults_call_end\n"
        ".type faults_call, @function\n"
        "faults_call:\n"
        "    mov %rdi, %rax\n"
        "    mov %rsi, %r11\n"
        "    mov 0(%r11), %rdi\n"
        "    mov 8(%r11), %rsi\n"
        "    mov 16(%r11), %rdx\n"
        "    mov 24(%r11), %r10\n"
        "    mov 32(%r11), %r8\n"
        "    mov 40(%r11), %r9\n"
        "faults_call_begin:\n"
        "    syscall\n"
        "faults_call_end:\n"
        "    ret\n"
        ".size faults_call, . - faults_call\n");

static void append(char *out, size_t size, const char *text)
{
    const size_t n = strlen(out);
    snprintf(out + n, size - n, "%s", text);
}

/* Which file the call is about. A path that is no good address is the program's fault, which shows. */
static void tell_file(int row, const long *args)
{
    char link[40], *path = fault.told->path;
    const size_t size = sizeof fault.told->path;
    const int about = calls[row].about;
    if (about == OF_PATH || about == OF_TWO) {
        append(path, size, (const char *)args[0]);
    } else if (about == OF_AT && args[1] != 0 && *(const char *)args[1] != '\0') {
        append(path, size, (const char *)args[1]);
    } else if (about == OF_FD || about == OF_AT) {
        snprintf(link, sizeof link, "/proc/self/fd/%d", (int)args[0]);
        const long words[6] = {(long)link, (long)path, (long)size - 1};
        const long n = faults_call(SYS_readlink, words);
        path[n > 0 ? n : 0] = '\0';
    }
}

static long make_call(long number, long *args)
{
    const int row = number >= 0 && number < MAX_NUMBER ? row_of_number[number] : -1;
    if (row < 0) {
        return faults_call(number, args);
    }
    const bool of_kind = hit(kind_of_row[row], calls[row].name);
    const bool of_any = hit(ANY, calls[row].name);
    if (!of_kind && !of_any) {
        return faults_call(number, args);
    }
    if (atomic_load(&fault.told->hits) == 1) {
        tell_file(row, args);
    }
    if (fault.action == SIGNAL) {
        const long words[6] = {getpid(), fault.value};
        faults_call(SYS_kill, words);
        return faults_call(number, args);
    }
    if (fault.action == SHORT) {
        if (calls[row].length >= 0 && args[calls[row].length] > 1) {
            args[calls[row].length] /= 2;
        }
        return faults_call(number, args);
    }
    if (calls[row].happens) {
        faults_call(number, args);
    }
    return -fault.value;
}

static void on_call(int number, siginfo_t *info, void *context)
{
    (void)number;
    const int kept = errno;
    greg_t *r = ((ucontext_t *)context)->uc_mcontext.gregs;
    long args[6] = {r[REG_RDI], r[REG_RSI], r[REG_RDX], r[REG_R10], r[REG_R8], r[REG_R9]};
    r[REG_RAX] = make_call(info->si_syscall, args);
    errno = kept;
}

/* Traps the calls of the table, but those made at faults_call_begin. */
static bool install_filter(void)
{
    struct sock_filter code[8 + N_CALLS];
    const uint64_t after = (uint64_t)(uintptr_t)faults_call_end;
    unsigned short n = 0;
#define ADD(...) code[n++] = (struct sock_filter)__VA_ARGS__
    ADD(BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, instruction_pointer)));
    ADD(BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, (uint32_t)after, 0, 2));
    ADD(BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, instruction_pointer) + 4));
    ADD(BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, (uint32_t)(after >> 32), N_CALLS + 1, 0));
    ADD(BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)));
    for (int i = 0; i < N_CALLS; i++) {
        ADD(BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, (uint32_t)calls[i].number,
                     (unsigned char)(N_CALLS - i), 0));
    }
    ADD(BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW));
    ADD(BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_TRAP));
#undef ADD
    const struct sock_fprog program = {n, code};
    struct sigaction action = {.sa_sigaction = on_call, .sa_flags = SA_SIGINFO | SA_NODEFER};
    sigemptyset(&action.sa_mask);
    return sigaction(SIGSYS, &action, NULL) == 0 && prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0 &&
           prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program) == 0;
}

#else

static bool install_filter(void)
{
    return false;
}

#endif

/* ---- the server ---- */

static int (*real_main)(int, char **, char **);

static bool read_all(int fd, void *to, size_t n)
{
    for (size_t done = 0; done < n;) {
        const ssize_t got = read(fd, (char *)to + done, n - done);
        if (got <= 0 && !(got < 0 && errno == EINTR)) {
            return false;
        }
        done += got > 0 ? (size_t)got : 0;
    }
    return true;
}

static void give_up(const char *what)
{
    fprintf(stderr, "faults: %s: %s\n", what, strerror(errno));
    _exit(125);
}

static void put_at(int fd, const char *path, int flags)
{
    const int opened = open(path, flags, 0666);
    if (opened < 0 || dup2(opened, fd) < 0) {
        give_up(path);
    }
    close(opened);
}

/* The words of a request, in order; server.py writes them. */
enum {
    CWD,
    INPUT,
    OUTPUT,
    ERRORS,
    KIND,
    FIRST,
    LAST,
    ACTION,
    VALUE,
    FILTER,
    FROZEN,
    AFTER,
    SIGNO,
    LIMIT,
    FSIZE,
    N_ENV,
    WORDS
};
enum { MAX_WORDS = 512 };

static char *words[MAX_WORDS + 1];

static long number(int word)
{
    return strtol(words[word], NULL, 10);
}

/* Does what was asked for; in the child. */
static _Noreturn void be_the_program(int n)
{
    const int n_env = (int)number(N_ENV);
    const rlim_t size = (rlim_t)number(FSIZE);
    if (chdir(words[CWD]) != 0) {
        give_up(words[CWD]);
    }
    put_at(0, words[INPUT], O_RDONLY);
    put_at(1, words[OUTPUT], O_WRONLY | O_CREAT | O_TRUNC);
    put_at(2, words[ERRORS], O_WRONLY | O_CREAT | O_TRUNC);
    /* nohup and a shell's & leave some ignored, which the program respects */
    signal(SIGINT, SIG_DFL);
    signal(SIGTERM, SIG_DFL);
    signal(SIGHUP, SIG_DFL);
    for (int i = 0; i < n_env; i++) {
        putenv(words[WORDS + i]);
    }
    if (size > 0 && setrlimit(RLIMIT_FSIZE, &(struct rlimit){size, size}) != 0) {
        give_up("setrlimit");
    }
    for (fault.kind = n_kinds;
         fault.kind-- > 0 && strcmp(words[KIND], kind_names[fault.kind]) != 0;) {
    }
    fault.first = (uint64_t)number(FIRST);
    fault.last = (uint64_t)number(LAST);
    fault.action = (int)number(ACTION);
    fault.value = (int)number(VALUE);
    fault.frozen = number(FROZEN) != 0;
    if (number(FILTER) != 0 && !install_filter()) {
        give_up("seccomp");
    }
    fault.armed = fault.kind >= 0;
    exit(real_main(n - WORDS - n_env, words + WORDS + n_env, environ));
}

/* Waits for the child; sends it a signal after so many microseconds, and the last one after so many
 * seconds, twice: a machine, or whoever stopped this process too, may have slept. *late: it had to. */
static int wait_for(pid_t pid, const sigset_t *child, int32_t *late)
{
    const long after = number(AFTER), limit = number(LIMIT);
    const struct timespec first = {after / 1000000, after % 1000000 * 1000}, rest = {limit, 0};
    int status = 0;
    *late = 0;
    if (after > 0 && sigtimedwait(child, NULL, &first) < 0) {
        kill(pid, (int)number(SIGNO));
    }
    for (int waits = 0; waitpid(pid, &status, WNOHANG) == 0;) {
        waits += sigtimedwait(child, NULL, &rest) < 0 && errno == EAGAIN;
        if (waits == 2 && waitpid(pid, &status, WNOHANG) == 0) {
            *late = 1;
            kill(pid, SIGKILL);
            waitpid(pid, &status, 0);
            break;
        }
    }
    while (sigtimedwait(child, NULL, &(struct timespec){0, 0}) > 0) {
    }
    return status;
}

static void put_text(int fd, const char *text)
{
    if (write(fd, text, strlen(text)) < 0) {
        _exit(0);
    }
}

static int serve(int argc, char **argv, char **envp)
{
    (void)envp;
    static char text[1 << 16];
    const char *ask_at = getenv("FAULTS_ASK"), *told_at = getenv("FAULTS_REPORT");
    if (argc < 1 || ask_at == NULL || told_at == NULL) {
        return real_main(argc, argv, envp);
    }
    int ask = 0, answer = 0;
    if (sscanf(ask_at, "%d,%d", &ask, &answer) != 2) {
        give_up("FAULTS_ASK");
    }
    const int shared = open(told_at, O_RDWR | O_CLOEXEC);
    fault.told = mmap(NULL, sizeof *fault.told, PROT_READ | PROT_WRITE, MAP_SHARED, shared, 0);
    if (shared < 0 || fault.told == MAP_FAILED) {
        give_up(told_at);
    }
    close(shared);
    unsetenv("FAULTS_ASK");
    unsetenv("FAULTS_REPORT");
    unsetenv("LD_PRELOAD");
    name_kinds();
    void *frame;
    backtrace(&frame, 1); /* loads what it needs */
    sigset_t child, before;
    sigemptyset(&child);
    sigaddset(&child, SIGCHLD);
    sigprocmask(SIG_BLOCK, &child, &before);
    /* what there is to count, once */
    for (int k = 0; k < n_kinds; k++) {
        put_text(answer, kind_names[k]);
        put_text(answer, k + 1 < n_kinds ? " " : "\n");
    }
    for (uint32_t size; read_all(ask, &size, sizeof size);) {
        if (size >= sizeof text || !read_all(ask, text, size)) {
            give_up("a request");
        }
        int n = 0;
        for (char *at = text; at < text + size && n < MAX_WORDS; at += strlen(at) + 1) {
            words[n++] = at;
        }
        words[n] = NULL;
        memset(fault.told, 0, sizeof *fault.told);
        const pid_t pid = fork();
        if (pid < 0) {
            give_up("fork");
        }
        if (pid == 0) {
            close(ask);
            close(answer);
            sigprocmask(SIG_SETMASK, &before, NULL);
            be_the_program(n);
        }
        int32_t reply[2];
        reply[0] = wait_for(pid, &child, &reply[1]);
        if (write(answer, reply, sizeof reply) != sizeof reply) {
            break;
        }
    }
    return 0;
}

PUBLIC int __libc_start_main(int (*main)(int, char **, char **), int argc, char **argv,
                             void (*init)(void), void (*fini)(void), void (*rtld_fini)(void),
                             void *stack_end);

PUBLIC int __libc_start_main(int (*main)(int, char **, char **), int argc, char **argv,
                             void (*init)(void), void (*fini)(void), void (*rtld_fini)(void),
                             void *stack_end)
{
    int (*real)(int (*)(int, char **, char **), int, char **, void (*)(void), void (*)(void),
                void (*)(void), void *);
    *(void **)&real = dlsym(RTLD_NEXT, "__libc_start_main");
    real_main = main;
    return real(serve, argc, argv, init, fini, rtld_fini, stack_end);
}
