/* The CUDA backend's state, and how its calls are checked.
 *
 * Everything goes to one stream, the main lane's; while a step is being captured, what nothing
 * waits for until later (weight gradients, totals, the next batch) goes to other lanes and is
 * joined before the next operation that could disturb it or needs it. */
#ifndef VAE_BACKEND_CUDA_STATE_H
#define VAE_BACKEND_CUDA_STATE_H

#include "backend/cuda/libs.h"
#include "backend/open.h"
#include "dataset/dataset.h"
#include "kernels.h"

enum {
    VAE_CUDA_WORKSPACE = 32 << 20, /* bytes for cuBLASLt, one per stream */
    VAE_CUDA_PATCHES = 16 << 20,   /* bytes of patches at a time: they stay in L2 */
    VAE_CUDA_BOUNCE = 4 << 20,     /* bytes of the pinned memory that blocking copies go through */
    /* Steps of the larger graph. Between two graphs some 7 us are lost (launch, the counter, a
     * batch not gathered ahead), and as many in each step left over: least at sqrt(2n) for n
     * steps, 30 in an epoch of MNIST, and within 25% of that from 16 on. */
    VAE_CUDA_MANY = 16,
    /* Nodes of a step up to which that graph is made: in a step of more, which are milliseconds,
     * those 7 us are nothing, but the graph would be of ten thousands of nodes. */
    VAE_CUDA_MANY_NODES = 512,
    VAE_CUDA_PLAN_RING = 4, /* pinned buffers that plans are sent from */
    VAE_CUDA_STAGES = 3,    /* one is read, one copied, one computed on */
};

/* DIRECT: operations run at once. PLANNING: operations choose algorithms and take scratch memory,
 * and leave no trace that the step does not overwrite. CAPTURING: they become graph nodes. */
typedef enum { MODE_DIRECT = 0, MODE_PLANNING, MODE_CAPTURING } cuda_mode;

/* run.c says what they are for. */
enum { LANE_MAIN = 0, LANE_SIDE, LANE_AHEAD, LANE_RANKS, VAE_CUDA_LANES };

typedef struct {
    cudaStream_t stream;
    void *workspace; /* VAE_CUDA_WORKSPACE bytes; of LANE_MAIN and LANE_SIDE, which run products */
    void *scratch; /* partial sums; none for LANE_RANKS, whose stream alone is there, with ranks */
    size_t scratch_bytes;
    uint32_t *ticket; /* VAE_SUMS_TICKETS of them */
    bool busy;        /* the main lane has not waited for it yet */
} cuda_lane;

/* A matrix product in cuBLAS's column-major view: d (m,n) = op_a(a) op_b(b), k summed over. All
 * bytes are compared, so zero it before filling it. */
typedef struct {
    cublasOperation_t op_a, op_b;
    cublasLtEpilogue_t epilogue;
    cudaDataType_t type_ab, type_d;
    uint64_t m, n, k, lda, ldb, ldd;
    uint32_t align_a, align_b, align_d; /* bytes */
    uint32_t pad;
} matmul_key;

typedef struct {
    const void *a, *b;
    void *d;
    const void *bias;
} matmul_args;

typedef struct cuda_backend cuda_backend;

typedef struct {
    matmul_key key;
    bool usable;
    cublasLtMatmulDesc_t desc;
    cublasLtMatrixLayout_t a, b, d;
    cublasLtMatmulAlgo_t algo;
    int algo_id;
} matmul_plan;

/* A flat buffer of parameters and its bf16 twin. */
typedef struct {
    float *base;
    size_t n;
    void *shadow;
} cuda_params;

typedef struct {
    size_t nodes, chain; /* all, and the most that wait for each other in turn; 0 = not known */
} cuda_graph_size;

typedef struct {
    cudaGraphExec_t one, many;
    cuda_graph_size one_size, many_size;
} cuda_slot;

typedef struct {
    vae_plan *host; /* pinned */
    size_t room;
    cudaEvent_t sent;
} cuda_plan_buffer;

typedef struct row_readers row_readers;
typedef struct row_stream row_stream;

struct vae_data {
    const vae_dataset *set;
    uint32_t *index; /* host copy, NULL = all rows */
    size_t n, row_bytes;
    vae_rows rows;      /* what gather reads */
    row_stream *stream; /* NULL = resident */
};

struct cuda_backend {
    vae_backend base;
    vae_error err; /* sticky */
    int device;
    char name[256];
    int major, minor, multiprocessors, driver, runtime;
    vae_precision precision;
    vae_elem elem;
    size_t elem_bytes;
    size_t patch_bytes;             /* of a convolution's patches at a time: VAE_CUDA_PATCH_BYTES */
    size_t threads;                 /* of the host, for reading data; 0 = as vae_threads says */
    size_t hopper_rows;             /* from so many on, Hopper's products are our own; 0: never */
    bool graphs, tune, stream_data; /* VAE_CUDA_GRAPHS=0, VAE_CUDA_TUNE=1, VAE_CUDA_STREAM_DATA=1 */

    vae_cublaslt lt;
    cublasLtHandle_t handle;
    vae_nccl nccl;   /* where there are ranks */
    ncclComm_t comm; /* NULL: there are none, or they are lost */
    int nccl_version;
    double patience; /* seconds that the GPU may wait for those of other ranks */
    bool lost;       /* an error left the ranks behind */
    cuda_lane lane[VAE_CUDA_LANES];
    cudaEvent_t fork, join, settled, start, stop;
    char *bounce; /* pinned */
    size_t bounce_bytes;
    void **retired; /* scratch outgrown, which captured graphs may still name */
    size_t n_retired;

    cuda_mode mode;
    const void *side_reads[64];
    size_t n_side_reads;
    bool main_waits;   /* for the other lanes, whatever it does next */
    bool updating;     /* since `settled`, nothing but the update was added to the main lane */
    size_t n_forks;    /* of this step so far */
    size_t open_fork;  /* 1 + number of the last one, if the main lane has done nothing since */
    uint64_t in_chain; /* forks that stay on the main lane, a bit each */
    struct {
        const float *g; /* whose norm the main lane's last operation was, or NULL */
        size_t n;
        vae_totals *totals;
        bool in_update; /* its end is left to adam, which follows: so the dry pass found */
    } norm;

    matmul_plan *plans;
    size_t n_plans;
    cuda_params *params;
    size_t n_params;

    struct {
        uint64_t cursor;
        uint32_t ticket[VAE_CUDA_LANES][VAE_SUMS_TICKETS];
    } * clock;      /* device */
    vae_plan *plan; /* device */
    size_t plan_room, plan_n, plan_rows;
    size_t at; /* the cursor, as the host knows it */
    uint64_t offset;
    bool in_run;
    vae_data *plan_data;
    cuda_plan_buffer ring[VAE_CUDA_PLAN_RING];
    size_t ring_at;
    cuda_slot slots[VAE_SLOTS];

    struct {
        unsigned blocks;    /* 0: off */
        uint32_t spread;    /* blocks that may do the same rows */
        uint32_t *times;    /* (blocks,VAE_MARKS), device, NULL unless they are wanted */
        size_t most_shared; /* bytes that a block may have */
        void *scratch, *x_next;
        size_t scratch_bytes, x_bytes;
        bool used;
    } persistent;
};

/* ---- errors: check.c ---- */

/* Records a failed call; true if it succeeded. `call` is the source text, its name is reported. */
bool vae_cuda_check(cuda_backend *be, cudaError_t status, const char *call);
bool vae_cublas_check(cuda_backend *be, cublasStatus_t status, const char *call);
#define CUDA_OK(be, call)   vae_cuda_check((be), (call), #call)
#define CUBLAS_OK(be, call) vae_cublas_check((be), (call), #call)

static inline cuda_backend *vae_cuda_self(vae_backend *be)
{
    return (cuda_backend *)be;
}

static inline bool vae_cuda_fine(const cuda_backend *be)
{
    return be->err.status == VAE_OK;
}

#endif
