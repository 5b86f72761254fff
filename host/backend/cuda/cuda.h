/* Inside the CUDA backend: what its files share. backend_cuda.c opens, closes and describes;
 * backend_cuda_memory.c allocates and copies; _data.c keeps data sets resident, _stream.c streams
 * those that do not fit; _matmul.c chooses and runs matrix products; _linear.c and _ops.c are the
 * step's operations; _run.c is plans, graphs and replay.
 *
 * Everything goes to one stream, `stream`; while a step is being captured, sums over rows that
 * nothing waits for (weight gradients, totals) go to `side` and are joined before the next
 * operation that could disturb them.
 */
#ifndef VAE_BACKEND_CUDA_H
#define VAE_BACKEND_CUDA_H

#include "backend.h"
#include "backend/cuda/libs.h"
#include "backend/open.h"
#include "dataset/dataset.h"
#include "kernels.h"

enum {
    VAE_CUDA_WORKSPACE = 32 << 20, /* bytes for cuBLASLt, one per stream */
    VAE_CUDA_BOUNCE = 4 << 20,     /* bytes of the pinned memory that blocking copies go through */
    VAE_CUDA_MANY = 8,             /* steps of the larger graph */
    VAE_CUDA_PLAN_RING = 4,        /* pinned buffers that plans are sent from */
    VAE_CUDA_STAGES = 3,           /* staged batches of a streamed data set */
    VAE_CUDA_AUX = 64,             /* aux buffers remembered: more than a model has layers */
};

/* DIRECT: operations run at once. PLANNING: operations choose algorithms and take scratch memory,
 * and leave no trace that the step does not overwrite. CAPTURING: they become graph nodes. */
typedef enum { MODE_DIRECT = 0, MODE_PLANNING, MODE_CAPTURING } cuda_mode;

/* Per stream: 0 = stream, 1 = side. */
typedef struct {
    cudaStream_t stream;
    void *workspace; /* VAE_CUDA_WORKSPACE bytes */
    void *scratch;   /* partial sums */
    size_t scratch_bytes;
    uint32_t *ticket;
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
    const void *bias; /* in, or out for a bias gradient */
    void *aux;        /* mask of a ReLU */
    uint64_t ld_aux;  /* bits */
} matmul_args;

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

/* What the last linear_forward left in an aux buffer. */
typedef struct {
    const void *aux;
    bool has_mask;
} cuda_aux;

typedef struct {
    cudaGraphExec_t one, many;
    size_t nodes; /* of one step's graph */
} cuda_slot;

typedef struct {
    vae_plan *host; /* pinned */
    size_t room;
    cudaEvent_t sent;
} cuda_plan_buffer;

typedef struct row_stream row_stream;

struct vae_data {
    const vae_dataset *set;
    uint32_t *index; /* host copy, NULL = all rows */
    size_t n, row_bytes;
    vae_rows rows;      /* what gather reads */
    row_stream *stream; /* NULL = resident */
};

typedef struct {
    vae_backend base;
    vae_error err; /* sticky */
    int device;
    char name[256];
    int major, minor, multiprocessors, driver, runtime;
    vae_precision precision;
    vae_elem elem;
    size_t elem_bytes;
    bool graphs, tune, stream_data; /* VAE_CUDA_GRAPHS=0, VAE_CUDA_TUNE=1, VAE_CUDA_STREAM_DATA=1 */

    vae_cublaslt lt;
    cublasLtHandle_t handle;
    cuda_lane lane[2];
    cudaEvent_t fork, join, start, stop;
    char *bounce; /* pinned */
    size_t bounce_bytes;
    void **retired; /* scratch outgrown, which captured graphs may still name */
    size_t n_retired;

    cuda_mode mode;
    bool side_busy;
    const void *side_reads[64];
    size_t n_side_reads;

    matmul_plan *plans;
    size_t n_plans;
    cuda_params *params;
    size_t n_params;
    cuda_aux aux[VAE_CUDA_AUX];
    size_t n_aux;

    struct {
        uint64_t cursor;
        uint32_t ticket[2];
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
} cuda_backend;

/* ---- errors ---- */

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

/* ---- backend_cuda_memory.c ---- */

/* Device memory, not filled. NULL and an error that says how much, for what, and what is free. */
void *vae_cuda_take(cuda_backend *be, size_t bytes, const char *what);
/* At least `bytes` of scratch of a lane, good until the lane's next use; never while capturing. */
void *vae_cuda_scratch(cuda_backend *be, int lane, size_t bytes);
/* The bf16 twin of a place in bound parameters; the place itself in the other precisions. */
const void *vae_cuda_weights(cuda_backend *be, const float *w);
/* Start of the bf16 twin, NULL if there is none. */
void *vae_cuda_shadow(const cuda_backend *be, const float *params);
void *vae_cuda_alloc(vae_backend *base, size_t bytes, const char *what);
void vae_cuda_free(vae_backend *base, void *memory);
size_t vae_cuda_free_bytes(const vae_backend *base);
void vae_cuda_upload(vae_backend *base, void *dst_dev, const void *src, size_t bytes);
void vae_cuda_download(vae_backend *base, void *dst, const void *src_dev, size_t bytes);
void vae_cuda_upload_mat(vae_backend *base, vae_mat dst, const float *src, size_t rows,
                         size_t cols);
void vae_cuda_download_mat(vae_backend *base, float *dst, vae_mat src, size_t rows, size_t cols);
void vae_cuda_bind_params(vae_backend *base, float *params, size_t n);

/* ---- backend_cuda_data.c, backend_cuda_stream.c ---- */

vae_data *vae_cuda_data_open(vae_backend *base, const vae_dataset *set, const uint32_t *index,
                             size_t n_index);
void vae_cuda_data_close(vae_backend *base, vae_data *data);

/* A stream for data that stay on the host; NULL on failure (error recorded). */
row_stream *vae_row_stream_open(cuda_backend *be, const vae_data *data);
void vae_row_stream_close(cuda_backend *be, row_stream *stream);
/* Starts reading ahead for a new plan. May move the staging memory (then it forgets all graphs). */
void vae_row_stream_plan(cuda_backend *be, vae_data *data, const vae_plan *plan, size_t n,
                         size_t rows);
/* Makes the batch of entry `at` available to what is added to the compute stream from now on, and
 * says that what has been added reads no further. */
void vae_row_stream_stage(cuda_backend *be, row_stream *stream, size_t at);
void vae_row_stream_consumed(cuda_backend *be, row_stream *stream, size_t at);

/* ---- backend_cuda_matmul.c ---- */

/* Runs it in a lane (while planning: only prepares it, which may write to d). False, with no error,
 * if cuBLASLt has no algorithm for it; true also after an error. */
bool vae_cuda_matmul(cuda_backend *be, int lane, const matmul_key *key, const matmul_args *args);
void vae_cuda_matmul_close(cuda_backend *be);

/* ---- backend_cuda_run.c ---- */

void vae_cuda_plan(vae_backend *base, const vae_plan *plan, size_t n, size_t rows, vae_data *data);
void vae_cuda_run(vae_backend *base, int slot, size_t n, vae_step_fn *fn, void *ctx);
void vae_cuda_forget(vae_backend *base, int slot);
void vae_cuda_forget_all(cuda_backend *be);
vae_status vae_cuda_sync(vae_backend *base, vae_error *err);
void vae_cuda_run_close(cuda_backend *be);
/* What [plan] kernels are told. */
vae_now vae_cuda_now(const cuda_backend *be);
/* Before an operation on the compute stream that writes `out`: joins the side lane unless the
 * operation is known to leave what is under way alone (pass writes = what it writes; NULL = join).
 */
void vae_cuda_join(cuda_backend *be, const void *writes);
/* The lane for an operation nothing waits for, which reads a and b: side while capturing. */
int vae_cuda_fork(cuda_backend *be, const void *a, const void *b);

/* ---- backend_cuda_linear.c, backend_cuda_ops.c, backend_cuda_classes.c: the operations ---- */

size_t vae_cuda_aux_bytes(const vae_backend *base, vae_activation act, size_t rows, size_t cols);
void vae_cuda_linear_forward(vae_backend *base, vae_mat y, void *aux, vae_mat x, const float *w,
                             size_t ldw, const float *b, size_t rows, size_t in, size_t out,
                             vae_activation act);
void vae_cuda_linear_backward_weight(vae_backend *base, float *dw, size_t ldw, float *db,
                                     vae_mat dy, vae_mat x, size_t rows, size_t in, size_t out);
void vae_cuda_linear_backward_input(vae_backend *base, vae_mat dx, vae_mat dy, const float *w,
                                    size_t ldw, vae_mat x, const void *aux, size_t rows, size_t in,
                                    size_t out, vae_activation act);
void vae_cuda_gather_labels(vae_backend *base, uint32_t *label, vae_data *data, size_t B,
                            bool required);
void vae_cuda_one_hot(vae_backend *base, vae_mat m, const uint32_t *label, size_t B, size_t K,
                      size_t first, size_t C);
void vae_cuda_class_forward(vae_backend *base, vae_mat y, void *aux, uint32_t *label, vae_mat h,
                            const float *w, size_t ldw, vae_class_rows of, size_t out,
                            vae_activation act);
void vae_cuda_class_sums(vae_backend *base, vae_mat dh, vae_mat dy, vae_class_rows of, size_t out);
void vae_cuda_class_backward_weight(vae_backend *base, float *dw, size_t ldw, vae_mat dy,
                                    vae_class_rows of, size_t out);
void vae_cuda_classify(vae_backend *base, uint32_t *label, vae_mat logits, size_t B, size_t C);
void vae_cuda_class_loss(vae_backend *base, float *terms, float *weight, vae_mat dlogits,
                         vae_mat logits, const float *recon_row, const float *kl_row,
                         vae_class_rows of, float cross_entropy);
void vae_cuda_accumulate_classes(vae_backend *base, vae_totals *totals, const float *terms,
                                 size_t n_open, size_t n_labelled);
void vae_cuda_scale_rows(vae_backend *base, vae_mat m, const float *factor, size_t rows,
                         size_t cols);
extern const vae_backend_ops vae_cuda_ops; /* the table */

/* ---- backend_cuda.c ---- */

void vae_cuda_close(vae_backend *base);
void vae_cuda_describe(const vae_backend *base, char *text, size_t size);

#endif
