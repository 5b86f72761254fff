/* The emulation's own tests: every case runs in a child process, and is to end well or to be caught
 * with a certain message. Planted bugs are the point of it: a check that has never fired is a hope.
 */
#ifndef TEST_SIMT_H
#define TEST_SIMT_H

#include <cublasLt.h>
#include <cuda_bf16.h>
#include <cuda_runtime.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#ifndef __has_feature
#define __has_feature(x) 0
#endif
#if defined(__SANITIZE_ADDRESS__) || __has_feature(address_sanitizer)
#define WITH_ASAN 1
#else
#define WITH_ASAN 0
#endif
#if defined(__SANITIZE_THREAD__) || __has_feature(thread_sanitizer)
#define WITH_TSAN 1
#else
#define WITH_TSAN 0
#endif

struct test_case {
    const char *name, *expected; /* part of the message, NULL: the case succeeds */
    bool applies;                /* to this build */
    void (*run)();
    test_case *next;
    test_case(const char *name_, const char *expected_, bool applies_, void (*run_)());
};

/* CASE(name, expected message or NULL, in which builds) { ... } */
#define CASE(name, expected, applies)                                                              \
    static void name();                                                                            \
    static test_case case_##name(#name, expected, applies, name);                                  \
    static void name()

#define ALWAYS true

#define CHECK(condition)                                                                           \
    do {                                                                                           \
        if (!(condition)) {                                                                        \
            fprintf(stderr, "%s:%d: not so: %s\n", __FILE__, __LINE__, #condition);                \
            exit(1);                                                                               \
        }                                                                                          \
    } while (0)
#define OK(call)        CHECK((call) == cudaSuccess)
#define IS(call, error) CHECK((call) == (error))
#define LT_OK(call)     CHECK((call) == CUBLAS_STATUS_SUCCESS)
#define LAUNCH_OK()     OK(cudaGetLastError())

/* Device memory with n floats of f(i), by way of a blocking copy. */
float *device_floats(size_t n, float (*f)(size_t));
float *device_floats(size_t n); /* not set */
float *pinned_floats(size_t n);
void read_back(float *host, const float *dev, size_t n);
cudaStream_t new_stream();

#endif
