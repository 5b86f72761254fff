/* Cases about copies, streams, graphs and failures: what the host may do and when. */
#include "test_simt.h"

#include <dlfcn.h>
#include <pthread.h>

static float index_value(size_t i)
{
    return (float)i;
}
static float zero(size_t)
{
    return 0.0f;
}

__global__ void add_kernel(float *y, const float *x, float a, int n)
{
    const int i = (int)(blockIdx.x * blockDim.x + threadIdx.x);
    if (i < n) {
        y[i] += a * x[i];
    }
}
__global__ void set_kernel(float *y, float a, int n)
{
    const int i = (int)(blockIdx.x * blockDim.x + threadIdx.x);
    if (i < n) {
        y[i] = a;
    }
}
static void add(float *y, const float *x, float a, int n, cudaStream_t s)
{
    SIMT_LAUNCH(add_kernel, (unsigned)(n + 63) / 64, 64, 0, s, y, x, a, n);
    LAUNCH_OK();
}
static void set_all(float *y, float a, int n, cudaStream_t s)
{
    SIMT_LAUNCH(set_kernel, (unsigned)(n + 63) / 64, 64, 0, s, y, a, n);
    LAUNCH_OK();
}

/* ---- pointer kinds ---- */

CASE(copy_kinds, nullptr, ALWAYS)
{
    float *dev = device_floats(8, index_value), *pinned = pinned_floats(8), host[8];
    IS(cudaMemcpy(host, dev, 32, cudaMemcpyHostToDevice), cudaErrorInvalidValue);
    IS(cudaMemcpy(dev, host, 32, cudaMemcpyDeviceToHost), cudaErrorInvalidValue);
    IS(cudaMemcpy(dev, host, 32, cudaMemcpyDeviceToDevice), cudaErrorInvalidValue);
    IS(cudaMemcpy(host, dev, 33, cudaMemcpyDeviceToHost), cudaErrorInvalidValue);
    IS(cudaMemcpy(host, dev + 1, 32, cudaMemcpyDeviceToHost), cudaErrorInvalidValue);
    IS(cudaMemcpyAsync(host, dev, 32, cudaMemcpyDeviceToHost), cudaErrorInvalidValue);
    IS(cudaMemset(host, 0, 32), cudaErrorInvalidValue);
    OK(cudaMemcpy(host, dev, 32, cudaMemcpyDefault));
    CHECK(host[7] == 7.0f);
    OK(cudaMemcpy2DAsync(pinned, 8, dev, 16, 8, 2, cudaMemcpyDeviceToHost));
    OK(cudaStreamSynchronize(nullptr));
    CHECK(pinned[2] == 4.0f && pinned[3] == 5.0f);
    IS(cudaMemcpy2DAsync(pinned, 4, dev, 16, 8, 2, cudaMemcpyDeviceToHost),
       cudaErrorInvalidPitchValue);
    IS(cudaFree(dev + 1), cudaErrorInvalidValue);
    IS(cudaFree(pinned), cudaErrorInvalidValue);
    OK(cudaFree(dev));
    IS(cudaFree(dev), cudaErrorInvalidValue);
}
CASE(host_reads_device_memory, "use-after-poison", WITH_ASAN)
{
    const float *dev = device_floats(8, index_value);
    printf("%f\n", (double)dev[0]);
}
CASE(host_writes_device_memory_while_queued, "use-after-poison", WITH_ASAN)
{
    float *dev = device_floats(8, index_value);
    set_all(dev, 1.0f, 8, new_stream());
    dev[0] = 2.0f;
}

/* ---- waiting ---- */

CASE(synchronized_read, nullptr, ALWAYS)
{
    cudaStream_t s = new_stream();
    float *dev = device_floats(8), *host = pinned_floats(8);
    set_all(dev, 3.0f, 8, s);
    OK(cudaMemcpyAsync(host, dev, 32, cudaMemcpyDeviceToHost, s));
    OK(cudaStreamSynchronize(s));
    CHECK(host[7] == 3.0f);
}
static float read_too_early()
{
    cudaStream_t s = new_stream();
    float *dev = device_floats(8), *host = pinned_floats(8);
    set_all(dev, 3.0f, 8, s);
    OK(cudaMemcpyAsync(host, dev, 32, cudaMemcpyDeviceToHost, s));
    return host[7];
}
CASE(missing_synchronize, "use-after-poison", WITH_ASAN)
{
    read_too_early();
}
CASE(missing_synchronize_reads_nan, nullptr, !WITH_ASAN && !WITH_TSAN)
{
    CHECK(isnan(read_too_early()));
}
CASE(missing_synchronize_is_a_race, "data race", WITH_TSAN)
{
    simt_set_eager(1);
    cudaStream_t s = new_stream();
    float *dev = device_floats(8), *host = pinned_floats(8);
    simt_set_eager(0);
    set_all(dev, 3.0f, 8, s);
    OK(cudaMemcpyAsync(host, dev, 32, cudaMemcpyDeviceToHost, s));
    cudaEvent_t e; /* something makes the device work, but the host waits for something else */
    OK(cudaEventCreate(&e));
    OK(cudaEventRecord(e, s));
    cudaStreamQuery(s), cudaStreamQuery(s);
    CHECK(host[7] != 2.0f);
}
CASE(source_changed_under_a_copy, "was changed after the copy was queued", ALWAYS)
{
    cudaStream_t s = new_stream();
    float *dev = device_floats(8), *host = pinned_floats(8);
    host[0] = 1;
    OK(cudaMemcpyAsync(dev, host, 32, cudaMemcpyHostToDevice, s));
    host[0] = 2;
    OK(cudaStreamSynchronize(s));
}

/* Producer on one stream, consumer on another; the event between them may be missing. */
static float pass_on(bool event, bool reuse)
{
    cudaStream_t first = new_stream(), second = new_stream();
    float *x = device_floats(256), *y = device_floats(256, zero), got[256];
    cudaEvent_t e;
    OK(cudaEventCreateWithFlags(&e, cudaEventDisableTiming));
    if (reuse) { /* second must not overwrite x before first has read it */
        set_all(x, 1.0f, 256, first);
        OK(cudaStreamSynchronize(first));
        add(y, x, 2.0f, 256, first);
    } else {
        set_all(x, 1.0f, 256, first);
    }
    OK(cudaEventRecord(e, first));
    if (event) {
        OK(cudaStreamWaitEvent(second, e));
    }
    if (reuse) {
        set_all(x, 100.0f, 256, second);
        OK(cudaStreamSynchronize(first));
        OK(cudaStreamSynchronize(second));
    } else {
        add(y, x, 2.0f, 256, second);
        OK(cudaStreamSynchronize(second));
        OK(cudaStreamSynchronize(first));
    }
    read_back(got, y, 256);
    return got[100];
}
CASE(event_between_streams, nullptr, ALWAYS)
{
    for (int policy = SIMT_LAZY; policy <= SIMT_RANDOM; policy++) {
        simt_set_streams((simt_streams)policy, 3);
        CHECK(pass_on(true, false) == 2.0f);
        CHECK(pass_on(true, true) == 2.0f);
    }
    simt_set_eager(1);
    CHECK(pass_on(true, false) == 2.0f);
}
CASE(event_missing_before_read, nullptr, !WITH_TSAN)
{
    CHECK(isnan(pass_on(false, false)));
}
CASE(event_missing_before_overwrite, nullptr, !WITH_TSAN)
{
    simt_set_streams(SIMT_LATEST, 1);
    CHECK(!(pass_on(false, true) == 2.0f));
}
CASE(event_missing_before_read_is_a_race, "data race", WITH_TSAN)
{
    simt_set_streams(SIMT_EARLIEST, 1); /* though the order happens to be right */
    pass_on(false, false);
}
CASE(event_missing_before_overwrite_is_a_race, "data race", WITH_TSAN)
{
    pass_on(false, true);
}
CASE(legacy_stream_does_not_order_others, nullptr, !WITH_TSAN)
{
    cudaStream_t s = new_stream();
    float *x = device_floats(8), *host = pinned_floats(8);
    OK(cudaMemset(x, 0, 32)); /* on the legacy stream, which s does not wait for */
    OK(cudaMemcpyAsync(host, x, 32, cudaMemcpyDeviceToHost, s));
    OK(cudaStreamSynchronize(s));
    CHECK(isnan(host[0]));
    cudaStream_t blocking;
    OK(cudaStreamCreate(&blocking));
    OK(cudaMemset(x, 0, 32));
    OK(cudaMemcpyAsync(host, x, 32, cudaMemcpyDeviceToHost, blocking));
    OK(cudaStreamSynchronize(blocking));
    CHECK(host[0] == 0.0f);
}
CASE(elapsed_time_repeats, nullptr, ALWAYS)
{
    cudaEvent_t a, b;
    float ms = -1;
    OK(cudaEventCreate(&a));
    OK(cudaEventCreate(&b));
    OK(cudaEventRecord(a));
    set_all(device_floats(8), 1.0f, 8, nullptr);
    OK(cudaEventRecord(b));
    IS(cudaEventElapsedTime(&ms, a, b), cudaErrorNotReady);
    OK(cudaEventSynchronize(b));
    OK(cudaEventElapsedTime(&ms, a, b));
    CHECK(ms > 0 && ms < 0.01f);
}

/* ---- graphs ---- */

static cudaGraphExec_t capture(cudaStream_t s, cudaStream_t side, float *x, float *y, float *z,
                               bool join_before)
{
    cudaGraph_t graph;
    cudaGraphExec_t exec;
    cudaEvent_t fork, join;
    OK(cudaEventCreateWithFlags(&fork, cudaEventDisableTiming));
    OK(cudaEventCreateWithFlags(&join, cudaEventDisableTiming));
    OK(cudaStreamBeginCapture(s, cudaStreamCaptureModeThreadLocal));
    add(x, z, 1.0f, 64, s);
    OK(cudaEventRecord(fork, s));
    OK(cudaStreamWaitEvent(side, fork));
    add(y, x, 1.0f, 64, side);
    OK(cudaEventRecord(join, side));
    if (join_before) {
        OK(cudaStreamWaitEvent(s, join));
    }
    add(x, y, 1.0f, 64, s);
    if (!join_before) {
        OK(cudaStreamWaitEvent(s, join));
    }
    OK(cudaStreamEndCapture(s, &graph));
    size_t nodes = 0;
    OK(cudaGraphGetNodes(graph, nullptr, &nodes));
    CHECK(nodes == 3);
    OK(cudaGraphInstantiate(&exec, graph));
    OK(cudaGraphDestroy(graph));
    return exec;
}
static float one(size_t)
{
    return 1.0f;
}
CASE(graph_replays, nullptr, ALWAYS)
{
    cudaStream_t s = new_stream(), side = new_stream();
    float *x = device_floats(64, zero), *y = device_floats(64, zero), *z = device_floats(64, one);
    cudaGraphExec_t exec = capture(s, side, x, y, z, true);
    float got[64];
    read_back(got, x, 64);
    CHECK(got[0] == 0.0f); /* nothing ran while it was captured */
    for (int i = 0; i < 3; i++) {
        OK(cudaGraphLaunch(exec, s));
    }
    OK(cudaStreamSynchronize(s));
    read_back(got, x, 64);
    CHECK(got[63] == 20.0f); /* x, y after each replay: 2 1, 7 4, 20 12 */
    OK(cudaGraphExecDestroy(exec));
}
CASE(graph_with_a_race, "data race", WITH_TSAN)
{
    cudaStream_t s = new_stream(), side = new_stream();
    float *x = device_floats(64, zero), *y = device_floats(64, zero), *z = device_floats(64, one);
    OK(cudaGraphLaunch(capture(s, side, x, y, z, false), s));
    OK(cudaStreamSynchronize(s));
}
CASE(graph_uses_freed_memory, "host (or freed) pointer", ALWAYS)
{
    cudaStream_t s = new_stream(), side = new_stream();
    float *x = device_floats(64, zero), *y = device_floats(64, zero), *z = device_floats(64, one);
    cudaGraphExec_t exec = capture(s, side, x, y, z, true);
    OK(cudaFree(z));
    OK(cudaGraphLaunch(exec, s));
    OK(cudaStreamSynchronize(s));
}

static void begin(cudaStream_t s)
{
    OK(cudaStreamBeginCapture(s, cudaStreamCaptureModeGlobal));
}
static void spoiled(cudaStream_t s)
{
    cudaGraph_t g = (cudaGraph_t)(void *)&g;
    IS(cudaStreamEndCapture(s, &g), cudaErrorStreamCaptureInvalidated);
    CHECK(g == nullptr);
}
CASE(capture_forbids, nullptr, ALWAYS)
{
    cudaStream_t s = new_stream(), side = new_stream();
    float *x = device_floats(64, zero), host[4], *p;
    cudaGraph_t g;
    cudaEvent_t e, out;
    OK(cudaEventCreate(&e));
    OK(cudaEventCreate(&out));
    OK(cudaEventRecord(out, side));
    begin(s);
    IS(cudaMalloc(&p, 4), cudaErrorStreamCaptureUnsupported);
    SIMT_LAUNCH(set_kernel, 1, 1, 0, s, x, 1.0f, 1);
    IS(cudaGetLastError(), cudaErrorStreamCaptureInvalidated);
    spoiled(s);
    begin(s);
    IS(cudaStreamSynchronize(s), cudaErrorStreamCaptureUnsupported);
    spoiled(s);
    begin(s);
    IS(cudaMemset(x, 0, 4), cudaErrorStreamCaptureImplicit);
    spoiled(s);
    begin(s);
    IS(cudaMemcpyAsync(host, x, 4, cudaMemcpyDeviceToHost, s), cudaErrorInvalidValue);
    spoiled(s);
    begin(s);
    IS(cudaStreamWaitEvent(s, out), cudaErrorStreamCaptureIsolation);
    spoiled(s);
    begin(s);
    OK(cudaEventRecord(e, s));
    IS(cudaEventSynchronize(e), cudaErrorCapturedEvent);
    cudaGetLastError();
    OK(cudaStreamWaitEvent(side, e));
    set_all(x, 1.0f, 1, side);
    IS(cudaStreamEndCapture(s, &g), cudaErrorStreamCaptureUnjoined);
    cudaGetLastError();
    set_all(x, 1.0f, 1, side); /* out of the capture again */
    OK(cudaStreamSynchronize(side));
    IS(cudaStreamBeginCapture(nullptr, cudaStreamCaptureModeRelaxed),
       cudaErrorStreamCaptureUnsupported);
}

/* ---- failures ---- */

/* A small program that gives everything back, whatever fails. */
static bool small_program()
{
    cudaStream_t s = nullptr;
    float *x = nullptr, *host = nullptr;
    cudaGraph_t g = nullptr;
    cudaGraphExec_t exec = nullptr;
    cublasLtHandle_t lt = nullptr;
    int n = 0;
    bool ok = cudaGetDeviceCount(&n) == cudaSuccess && cudaSetDevice(0) == cudaSuccess &&
              cudaStreamCreateWithFlags(&s, cudaStreamNonBlocking) == cudaSuccess &&
              cudaMalloc(&x, 256) == cudaSuccess && cudaMallocHost(&host, 256) == cudaSuccess &&
              cublasLtCreate(&lt) == CUBLAS_STATUS_SUCCESS &&
              cudaStreamBeginCapture(s, cudaStreamCaptureModeThreadLocal) == cudaSuccess;
    if (ok) {
        SIMT_LAUNCH(set_kernel, 1, 64, 0, s, x, 5.0f, 64);
        ok = cudaGetLastError() == cudaSuccess;
        ok = cudaMemcpyAsync(host, x, 256, cudaMemcpyDeviceToHost, s) == cudaSuccess && ok;
        ok = cudaStreamEndCapture(s, &g) == cudaSuccess && ok;
    }
    ok = ok && cudaGraphInstantiate(&exec, g) == cudaSuccess &&
         cudaGraphLaunch(exec, s) == cudaSuccess && cudaStreamSynchronize(s) == cudaSuccess &&
         host[63] == 5.0f;
    ok = (!exec || cudaGraphExecDestroy(exec) == cudaSuccess) && ok;
    ok = (!g || cudaGraphDestroy(g) == cudaSuccess) && ok;
    ok = (!lt || cublasLtDestroy(lt) == CUBLAS_STATUS_SUCCESS) && ok;
    ok = cudaFree(x) == cudaSuccess && ok;
    ok = cudaFreeHost(host) == cudaSuccess && ok;
    ok = (!s || cudaStreamDestroy(s) == cudaSuccess) && ok;
    return ok;
}
CASE(every_call_can_fail, nullptr, ALWAYS)
{
    CHECK(small_program());
    const unsigned long before = simt_calls();
    CHECK(small_program());
    const unsigned long calls = simt_calls() - before;
    CHECK(calls > 15);
    for (unsigned long n = 1; n <= calls; n++) {
        simt_fail_call(n, 0);
        CHECK(!small_program());
        CHECK(simt_failed() != nullptr);
        CHECK(simt_alive(1) == 0);
        cudaGetLastError();
    }
    simt_fail_call(0, 0);
    CHECK(small_program());
}
CASE(no_device, nullptr, ALWAYS)
{
    int n = -1, driver = -1;
    float *p;
    simt_set_no_device("1");
    IS(cudaGetDeviceCount(&n), cudaErrorNoDevice);
    CHECK(n == 0);
    IS(cudaMalloc(&p, 4), cudaErrorNoDevice);
    simt_set_no_device("driver");
    IS(cudaGetDeviceCount(&n), cudaErrorInsufficientDriver);
    OK(cudaDriverGetVersion(&driver));
    CHECK(driver == 0);
    simt_set_no_device(nullptr);
    OK(cudaGetDeviceCount(&n));
    CHECK(n == 1);
    IS(cudaSetDevice(1), cudaErrorInvalidDevice);
    CHECK(strcmp(cudaGetErrorName(cudaErrorInvalidDevice), "cudaErrorInvalidDevice") == 0);
}
CASE(out_of_memory, nullptr, ALWAYS)
{
    size_t free_now, total;
    float *p, *q;
    simt_set_memory(1000);
    OK(cudaMalloc(&p, 600));
    IS(cudaMalloc(&q, 600), cudaErrorMemoryAllocation);
    OK(cudaMemGetInfo(&free_now, &total));
    CHECK(free_now == 400 && total == 1000);
    OK(cudaFree(p));
    OK(cudaMalloc(&q, 600));
}

CASE(cublaslt_loads_from_the_program, nullptr, ALWAYS)
{
    void *lib = dlopen("libcublasLt.so.13", RTLD_NOW | RTLD_LOCAL);
    CHECK(lib && dlsym(lib, "cublasLtMatmul") == (void *)cublasLtMatmul);
    CHECK(!dlsym(lib, "cublasLtNothing") && strstr(dlerror(), "cublasLtNothing"));
    CHECK(dlclose(lib) == 0);
    setenv("VAE_SIMT_NO_CUBLASLT", "cublasLtMatmul", 1);
    CHECK(dlopen("/usr/local/cuda/lib64/libcublasLt.so.13", RTLD_NOW) == lib);
    CHECK(!dlsym(lib, "cublasLtMatmul") && dlsym(lib, "cublasLtCreate"));
    setenv("VAE_SIMT_NO_CUBLASLT", "1", 1);
    CHECK(!dlopen("libcublasLt.so.13", RTLD_NOW) && strstr(dlerror(), "libcublasLt"));
    CHECK(dlopen(nullptr, RTLD_NOW) != nullptr);
}

/* ---- host threads ---- */

struct reader {
    cudaStream_t s;
    float *dev, *host;
    cudaEvent_t done;
};
static void *read_ahead(void *arg)
{
    reader *r = (reader *)arg;
    for (int i = 0; i < 50; i++) {
        for (int j = 0; j < 64; j++) {
            r->host[j] = (float)i;
        }
        OK(cudaMemcpyAsync(r->dev, r->host, 256, cudaMemcpyHostToDevice, r->s));
        OK(cudaEventRecord(r->done, r->s));
        OK(cudaEventSynchronize(r->done));
    }
    return nullptr;
}
CASE(two_host_threads, nullptr, ALWAYS)
{
    reader r = {new_stream(), device_floats(64), pinned_floats(64), nullptr};
    OK(cudaEventCreateWithFlags(&r.done, cudaEventDisableTiming));
    cudaStream_t s = new_stream();
    float *x = device_floats(64, zero), *y = device_floats(64, one), got[64];
    pthread_t thread;
    CHECK(pthread_create(&thread, nullptr, read_ahead, &r) == 0);
    for (int i = 0; i < 50; i++) {
        add(x, y, 1.0f, 64, s);
        OK(cudaStreamSynchronize(s));
    }
    pthread_join(thread, nullptr);
    read_back(got, x, 64);
    CHECK(got[5] == 50.0f);
    read_back(got, r.dev, 64);
    CHECK(got[5] == 49.0f);
}
