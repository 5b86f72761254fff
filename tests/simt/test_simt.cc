/* Runs the cases: test_simt [part of a name]... ; -v shows what each one wrote. */
#include "test_simt.h"

#include <sys/wait.h>
#include <unistd.h>

static test_case *all_cases, **tail = &all_cases;

test_case::test_case(const char *name_, const char *expected_, bool applies_, void (*run_)())
    : name(name_), expected(expected_), applies(applies_), run(run_), next(nullptr)
{
    *tail = this;
    tail = &next;
}

extern "C" const char *__asan_default_options()
{
    return "detect_leaks=0:abort_on_error=0:exitcode=65";
}
extern "C" const char *__ubsan_default_options()
{
    return "print_stacktrace=0:halt_on_error=1";
}
extern "C" const char *__tsan_default_options()
{
    return "halt_on_error=1:exitcode=66:atexit_sleep_ms=0";
}

float *device_floats(size_t n)
{
    float *p;
    OK(cudaMalloc(&p, n * sizeof *p));
    return p;
}

float *device_floats(size_t n, float (*f)(size_t))
{
    float *host = (float *)malloc(n * sizeof *host), *dev = device_floats(n);
    CHECK(host);
    for (size_t i = 0; i < n; i++) {
        host[i] = f(i);
    }
    OK(cudaMemcpy(dev, host, n * sizeof *host, cudaMemcpyHostToDevice));
    OK(cudaDeviceSynchronize());
    free(host);
    return dev;
}

float *pinned_floats(size_t n)
{
    float *p;
    OK(cudaMallocHost(&p, n * sizeof *p));
    return p;
}

void read_back(float *host, const float *dev, size_t n)
{
    OK(cudaDeviceSynchronize());
    OK(cudaMemcpy(host, dev, n * sizeof *host, cudaMemcpyDeviceToHost));
}

cudaStream_t new_stream()
{
    cudaStream_t s;
    OK(cudaStreamCreateWithFlags(&s, cudaStreamNonBlocking));
    return s;
}

/* Runs one case in a child; what it wrote to stderr goes to `text`. */
static int run_child(const test_case &t, char *text, size_t size)
{
    int ends[2];
    fflush(stdout);
    if (pipe(ends) != 0) {
        return -1;
    }
    const pid_t child = fork();
    if (child == 0) {
        close(ends[0]);
        dup2(ends[1], 2);
        close(ends[1]);
        alarm(60);
        t.run();
        _exit(0);
    }
    close(ends[1]);
    size_t n = 0;
    char drop[4096];
    for (;;) {
        const bool keep = n + 1 < size;
        const ssize_t got =
            read(ends[0], keep ? text + n : drop, keep ? size - 1 - n : sizeof drop);
        if (got <= 0) {
            break;
        }
        n += keep ? (size_t)got : 0;
    }
    text[n] = '\0';
    close(ends[0]);
    int status = -1;
    waitpid(child, &status, 0);
    return status;
}

int main(int argc, char **argv)
{
    const bool verbose = argc > 1 && strcmp(argv[1], "-v") == 0;
    int passed = 0, failed = 0, skipped = 0;
    static char text[1 << 16];
    for (const test_case *t = all_cases; t; t = t->next) {
        bool wanted = argc <= 1 + verbose;
        for (int i = 1 + verbose; i < argc; i++) {
            wanted = wanted || strstr(t->name, argv[i]);
        }
        if (!wanted || !t->applies) {
            skipped++;
            continue;
        }
        const int status = run_child(*t, text, sizeof text);
        const bool ended_well = WIFEXITED(status) && WEXITSTATUS(status) == 0;
        const bool good = t->expected ? !ended_well && strstr(text, t->expected) : ended_well;
        good ? passed++ : failed++;
        if (!good || verbose) {
            printf("%s %s%s%s (status %x)\n%s\n", good ? "ok  " : "FAIL", t->name,
                   t->expected ? ": expected " : "", t->expected ? t->expected : "", status, text);
        }
    }
    /* cases of another build (a race is ThreadSanitizer's to see) are not skipped tests */
    printf("%s build: %d cases are for another one\n",
           WITH_ASAN   ? "ASan"
           : WITH_TSAN ? "TSan"
                       : "plain",
           skipped);
    printf("%d passed, %d failed, 0 skipped\n", passed, failed);
    return failed > 0;
}
