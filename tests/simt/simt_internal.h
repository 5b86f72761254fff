/* What the files of the emulation share. One lock guards everything: the stand-ins take it at entry
 * (simt::call), and kernels and copies run under it.
 *
 * In the TSan build these files are compiled without -fsanitize=thread, with -DSIMT_TSAN: the
 * bookkeeping stays invisible, and what happens-before what is said by the annotations below. No
 * template of the standard library over a built-in type is used here, lest the linker takes the
 * instrumented copy of a kernel's file. */
#ifndef SIMT_INTERNAL_H
#define SIMT_INTERNAL_H

#include <stddef.h>
#include <stdint.h>

#include <memory>
#include <vector>

#include "cublasLt.h"
#include "cuda_runtime_api.h"
#include "simt.h"

#ifndef __has_feature
#define __has_feature(x) 0
#endif
#if defined(__SANITIZE_ADDRESS__) || __has_feature(address_sanitizer)
#undef SIMT_ASAN
#define SIMT_ASAN /* else tests.mk says it, where a file of a program under ASan goes without */
#endif
#ifdef SIMT_ASAN
#include <sanitizer/asan_interface.h>
#include <sanitizer/common_interface_defs.h>
#endif
#ifdef SIMT_TSAN
#include <sanitizer/tsan_interface.h>
extern "C" {
void __tsan_read_range(void *p, unsigned long n);
void __tsan_write_range(void *p, unsigned long n);
void __tsan_java_alloc(unsigned long p,
                       unsigned long n); /* the one public way to forget accesses */
void AnnotateIgnoreReadsBegin(const char *file, int line);
void AnnotateIgnoreReadsEnd(const char *file, int line);
void AnnotateIgnoreWritesBegin(const char *file, int line);
void AnnotateIgnoreWritesEnd(const char *file, int line);
}
#endif

/* A number of its own type, so that no vector<int> is shared with instrumented files. */
struct simt_index {
    size_t i;
};

namespace simt
{

/* ---- simt_runtime.cc: lock, errors, settings, injected failures ---- */
struct settings {
    simt_order order = SIMT_FORWARD;
    simt_streams streams = SIMT_LAZY;
    uint32_t seed = 1;
    bool eager = false, trace = false, allow_pinned = false;
    int devices = 1, arch = 90;
    cudaError_t no_device = cudaSuccess;
    size_t memory = (size_t)8 << 30;
    char refuse[256] = "";
};
extern settings set;
uint32_t random(uint32_t below);
[[noreturn]] void die(const char *format, ...) __attribute__((format(printf, 1, 2)));
/* A mistake that CUDA reports by an error code: says what it was, and returns the code. */
cudaError_t wrong(cudaError_t error, const char *format, ...) __attribute__((format(printf, 2, 3)));
void trace(const char *format, ...) __attribute__((format(printf, 1, 2)));
void set_last_error(cudaError_t error);
void count(const char *name); /* for simt_count() */

/* One call of a stand-in: takes the lock, counts, decides whether to fail. Calls that free things
 * do their work all the same: in CUDA their errors are those of earlier asynchronous work. */
class call
{
  public:
    explicit call(const char *name, cudaError_t injected, bool needs_device = true);
    ~call();
    call(const call &) = delete;
    call &operator=(const call &) = delete;
    bool refused() const
    {
        return error_ != cudaSuccess;
    }
    cudaError_t done(cudaError_t error = cudaSuccess);
    /* For calls that are not allowed while a capture is on. */
    cudaError_t unsafe_in_capture();
    const char *name() const
    {
        return name_;
    }

  private:
    const char *name_;
    cudaError_t error_;
};

/* ---- simt_memory.cc: allocations, who may touch them ---- */
enum memory_kind { PAGEABLE, PINNED, DEVICE };
memory_kind kind_of(const void *p);
/* True if p .. p+n-1 lies inside one allocation. */
bool inside(const void *p, size_t n);
/* Bytes from p to the end of its allocation, 0 if it is not in one. */
size_t room(const void *p);
/* While it lives, queued work may run. What touches device memory with instrumented code calls
 * show_device_memory(); the end of the outermost window hides it again. Thousands of waits for copies,
 * which need it not, would else poison and clear shadow memory for megabytes. */
struct device_window {
    device_window();
    ~device_window();
};
void show_device_memory();
void hide(const void *p, size_t n);   /* host reads and writes abort under ASan ... */
void unhide(const void *p, size_t n); /* ... until this */
/* Seen by TSan, not by ASan (source or destination may be hidden from the host). */
void raw_copy(void *dst, const void *src, size_t n);
void raw_fill(void *dst, int byte, size_t n);
uint64_t checksum(const void *p, size_t pitch, size_t width, size_t height);
size_t device_bytes_used();
void check_guards(const char *after);
size_t memory_alive(bool list);

/* ---- simt_stream.cc, simt_graph.cc: queues, events, capture ---- */

/* An operation: run once from a queue, or many times from a graph. */
struct work {
    const char *name = "?";
    virtual ~work() = default;
    /* On the host, when it is queued or its graph is launched. */
    virtual void arm()
    {
    }
    virtual void run() = 0;
};
typedef std::shared_ptr<work> work_ref;

struct op {
    work_ref what;                          /* NULL: an event, or a wait */
    std::vector<std::shared_ptr<op>> after; /* on other streams */
    CUstream_st *stream = nullptr;
    uint64_t number = 0; /* order of completion, for elapsed times */
    bool done = false;
    char started = 0, ended = 0; /* TSan's tags */
};
typedef std::shared_ptr<op> op_ref;

struct capture;
struct graph_node {
    work_ref what;
    std::vector<simt_index> after;
    unsigned branch = 0;
};
struct graph_body {
    std::vector<graph_node> nodes;
};
typedef std::shared_ptr<graph_body> graph_ref;

/* Queues the work, or records it if the stream is being captured. */
cudaError_t submit(cudaStream_t stream, work_ref what);
/* Whether the stream is real; also resolves the legacy handles. */
CUstream_st *stream_of(cudaStream_t handle);
void wait_for(const op_ref &target);
void wait_for_stream(CUstream_st *stream);
void wait_for_all();
/* Waits as the legacy stream does: for all blocking streams. */
void wait_for_blocking();
size_t streams_alive(bool list);
size_t events_alive(bool list);
/* Adds an operation to a stream's queue; NULL: one that does nothing. */
op_ref append(CUstream_st *stream, work_ref what);
/* Runs the operation at the head of a stream, and before it those that it waits for. */
void step(CUstream_st *stream);
/* What else a device would have done while `target` was waited for: nothing, everything, or
 * something. */
void run_others(const CUstream_st *target);
/* Runs everything, if operations are to run at once. */
void eager();

/* simt_graph.cc */
cudaError_t capture_add(CUstream_st *stream, work_ref what);
cudaError_t capture_forbids(bool legacy_work, const char *what);
cudaError_t capture_record(CUstream_st *stream, cudaEvent_t event);
cudaError_t capture_wait(CUstream_st *stream, cudaEvent_t event);
size_t graphs_alive(bool list);
/* Does a graph that is not destroyed have a node that is this? */
bool in_graph(bool (*is)(const work &node, const void *what), const void *what);
void run_graph(const graph_body &body);

/* ---- simt_sched.cc: threads of a kernel ---- */
enum { MULTIPROCESSORS = 4, MAX_RESIDENT = 2 * MULTIPROCESSORS }; /* blocks of a cooperative grid */
/* Blocks of so many threads and bytes of dynamic shared memory that a multiprocessor holds. */
int blocks_per_multiprocessor(uint64_t threads, size_t dynamic);
struct kernel_work;
/* Runs a grid in the context (stream or branch of a graph) `context`. */
void run_grid(const simt_kernel &kernel);
/* Runs f in a TSan context of its own, `slot`; without TSan just runs it. */
void *context_create();
void context_run(void *context, void (*f)(void *), void *arg);
/* Which of the two sets of fibers kernels use from here on. */
void use_fibers_of(unsigned context);

size_t lt_alive(bool list);
size_t nccl_alive(bool list);

/* ---- happens-before, for TSan ---- */
static inline void release(void *tag)
{
#ifdef SIMT_TSAN
    __tsan_release(tag);
#else
    (void)tag;
#endif
}
static inline void acquire(void *tag)
{
#ifdef SIMT_TSAN
    __tsan_acquire(tag);
#else
    (void)tag;
#endif
}
/* Between these, what the running context does is the emulation's own business: memcpy() and free()
 * are seen by TSan wherever they are called from. */
static inline void ignore_begin()
{
#ifdef SIMT_TSAN
    AnnotateIgnoreReadsBegin(__FILE__, __LINE__);
    AnnotateIgnoreWritesBegin(__FILE__, __LINE__);
#endif
}
static inline void ignore_end()
{
#ifdef SIMT_TSAN
    AnnotateIgnoreReadsEnd(__FILE__, __LINE__);
    AnnotateIgnoreWritesEnd(__FILE__, __LINE__);
#endif
}
/* Accesses by copies and matmuls, called while ignoring. */
static inline void note_read(const void *p, size_t n)
{
#ifdef SIMT_TSAN
    ignore_end();
    __tsan_read_range(const_cast<void *>(p), n);
    ignore_begin();
#else
    (void)p, (void)n;
#endif
}
static inline void note_write(void *p, size_t n)
{
#ifdef SIMT_TSAN
    ignore_end();
    __tsan_write_range(p, n);
    ignore_begin();
#else
    (void)p, (void)n;
#endif
}

} // namespace simt

struct CUstream_st {
    std::vector<simt::op_ref> queue; /* from `head` on: not run yet */
    size_t head = 0;
    unsigned id = 0;
    bool blocking = true, running = false;
    std::shared_ptr<simt::capture> capturing;
    std::vector<simt_index> frontier; /* nodes that the next captured one comes after */
    void *context = nullptr;
    char tail = 0; /* TSan's tag: released after every operation */
};

struct CUevent_st {
    simt::op_ref op;
    std::shared_ptr<simt::capture> captured;
    std::vector<simt_index> frontier;
    bool timing = true;
};

#endif
