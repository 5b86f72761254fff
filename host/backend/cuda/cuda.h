/* Inside the CUDA backend: what its files ask of each other, each of those below it. cuda.c opens,
 * closes, describes and has the table; ops.c, classes.c and linear.c are the step's operations;
 * data.c keeps data sets resident, run.c is plans, graphs and replay, persistent.c whole steps in
 * one launch; ranks.c is sums over ranks; stream.c streams data that do not fit, readers.c reads
 * rows for both; matmul.c chooses and runs matrix products; memory.c allocates and copies; check.c
 * looks at what CUDA's calls answer, libs.c loads cuBLASLt and NCCL. state.h is what they all work
 * on. */
#ifndef VAE_BACKEND_CUDA_H
#define VAE_BACKEND_CUDA_H

#include "backend/cuda/state.h"

/* ---- memory.c ---- */

/* Device memory, not filled. NULL and an error that says how much, for what, and what is free. */
void *vae_cuda_take(cuda_backend *be, size_t bytes, const char *what);
/* At least `bytes` of scratch of a lane, good until the lane's next use; never while capturing. */
void *vae_cuda_scratch(cuda_backend *be, int lane, size_t bytes);
/* A lane's scratch for sums, which every lane has. */
vae_sums vae_cuda_sums(const cuda_backend *be, int lane);
/* The bf16 twin of a place in bound parameters; the place itself in the other precisions. */
const void *vae_cuda_weights(cuda_backend *be, const float *w);
/* Start of the bf16 twin, NULL if there is none. */
void *vae_cuda_shadow(const cuda_backend *be, const float *params);
vae_alloc_fn vae_cuda_alloc;
vae_free_fn vae_cuda_free;
vae_free_bytes_fn vae_cuda_free_bytes;
vae_upload_fn vae_cuda_upload;
vae_download_fn vae_cuda_download;
vae_upload_mat_fn vae_cuda_upload_mat;
vae_download_mat_fn vae_cuda_download_mat;
vae_bind_params_fn vae_cuda_bind_params;

/* ---- data.c ---- */

vae_data_open_fn vae_cuda_data_open;
vae_data_close_fn vae_cuda_data_close;

/* ---- readers.c ---- */

/* NULL on failure (error recorded), as everywhere here. Closing NULL is allowed. */
row_readers *vae_readers_open(cuda_backend *be, const vae_data *data);
void vae_readers_close(cuda_backend *be, row_readers *readers);
/* Starts reading the rows of n plan entries, `rows` each, one entry after another, into `slots`
 * buffers in turn (at most VAE_CUDA_STAGES), per_slot rows in each. No copy from the buffers may be
 * under way. */
void vae_readers_begin(cuda_backend *be, row_readers *readers, const vae_plan *plan, size_t n,
                       size_t rows, size_t slots, size_t per_slot);
/* Waits until the k-th buffer full (from 0; those before k - slots + 1 have been released) is read.
 * Returns how many rows it holds, 0 past the end; *rows, *number: them and their numbers, pinned.
 */
size_t vae_readers_wait(row_readers *readers, size_t k, const char **rows, const uint32_t **number);
/* Buffers full before the k-th are done with. */
void vae_readers_release(row_readers *readers, size_t k);

/* ---- stream.c ---- */

/* A stream for data that stay on the host; NULL on failure (error recorded). */
row_stream *vae_row_stream_open(cuda_backend *be, const vae_data *data);
void vae_row_stream_close(cuda_backend *be, row_stream *stream);
/* Has it room for batches of so many rows? If not, a plan of them moves the staging memory. */
bool vae_row_stream_fits(const row_stream *stream, size_t rows);
/* Starts reading ahead for a new plan; sets data->rows to how batches of so many rows are staged.
 */
void vae_row_stream_plan(cuda_backend *be, vae_data *data, const vae_plan *plan, size_t n,
                         size_t rows);
/* Do VAE_CUDA_MANY steps from entry `at` on lie side by side, so that one graph can run them? */
bool vae_row_stream_many(const row_stream *stream, size_t at);
/* Makes the batch of entry `at`, and those side by side with it, available to what is added to the
 * compute stream from now on, and says that what has been added reads no further. */
void vae_row_stream_stage(cuda_backend *be, row_stream *stream, size_t at);
void vae_row_stream_consumed(cuda_backend *be, row_stream *stream, size_t at);

/* ---- matmul.c ---- */

/* Runs it in a lane (while planning: only prepares it, which may write to d). False, with no error,
 * if cuBLASLt has no algorithm for it; true also after an error. */
bool vae_cuda_matmul(cuda_backend *be, int lane, const matmul_key *key, const matmul_args *args);
/* The same where there has to be an algorithm: none is an error. Is there something to launch after
 * it, neither planning nor after an error? */
bool vae_cuda_multiply(cuda_backend *be, int lane, const matmul_key *key, const matmul_args *args);
/* k or m of a product, up to whole 16-byte pieces of bf16: there are zeros behind. */
static inline uint64_t vae_cuda_whole(size_t n)
{
    return (n + 7) / 8 * 8;
}
static inline cudaDataType_t vae_cuda_act_type(const cuda_backend *be)
{
    return be->elem == VAE_ELEM_BF16 ? CUDA_R_16BF : CUDA_R_32F;
}
void vae_cuda_matmul_close(cuda_backend *be);

/* ---- run.c ---- */

vae_plan_fn vae_cuda_plan;
vae_run_fn vae_cuda_run;
vae_forget_fn vae_cuda_forget;
void vae_cuda_forget_all(cuda_backend *be);
vae_sync_fn vae_cuda_sync;
void vae_cuda_run_close(cuda_backend *be);
/* What [plan] kernels are told. */
vae_now vae_cuda_now(const cuda_backend *be);
/* Before an operation on the main lane: joins the others unless the operation is known to leave
 * what is under way alone (pass writes = what it writes; NULL = join). */
void vae_cuda_join(cuda_backend *be, const void *writes);
/* The same; is there something to launch then, neither planning nor after an error? */
bool vae_cuda_begin(cuda_backend *be, const void *writes);
/* The same for an operation of the update, which leaves the batch alone and comes last in a step.
 */
bool vae_cuda_begin_update(cuda_backend *be);
/* The same for an operation that brings the batch, right after an update or anywhere; *lane: where
 * to launch it. */
bool vae_cuda_begin_batch(cuda_backend *be, cuda_lane **lane);
/* The lane for an operation nothing waits for before a join, which reads a and b: matrix products,
 * or totals and column sums. Other than the main lane only while capturing. */
int vae_cuda_fork(cuda_backend *be, const void *a, const void *b);
int vae_cuda_fork_totals(cuda_backend *be, const void *a, const void *b);

/* ---- comm.c ---- */

/* Waits for the main lane; with ranks, looks whether they are still there. False: an error. */
bool vae_cuda_wait(cuda_backend *be);
/* The status of a call of NCCL: false where it failed, which is then be's error. */
bool vae_nccl_check(cuda_backend *be, ncclResult_t result, const char *call);
#define NCCL_OK(be, name, args) vae_nccl_check(be, (be)->nccl.name args, (be)->nccl.names.name)
void vae_cuda_leave_ranks(cuda_backend *be);
/* Destroys a slot's graphs without waiting: one that is under way goes when it ends. */
void vae_cuda_drop(cuda_backend *be, cuda_slot *slot);

/* ---- persistent.c ---- */

vae_run_whole_fn vae_cuda_run_whole;
void vae_cuda_persistent_open(cuda_backend *be);
void vae_cuda_persistent_close(cuda_backend *be);

/* ---- linear.c, conv.c, ops.c, classes.c: the operations, as backend.h says ---- */

vae_aux_bytes_fn vae_cuda_aux_bytes;
/* Sets hopper_rows; VAE_CUDA_HOPPER has another number, for tests and measuring. */
vae_status vae_cuda_choose_hopper(cuda_backend *be, vae_error *err);
vae_conv_bytes_fn vae_cuda_conv_bytes;
/* A product's key but for its shape: types, alignment of what args has, no epilogue. */
matmul_key vae_cuda_matmul_key(const cuda_backend *be, const matmul_args *args,
                               cudaDataType_t type_d);
vae_bias_with_weight_fn vae_cuda_bias_with_weight;
#define VAE_CUDA_OP(op) vae_##op##_fn vae_cuda_##op;
VAE_STEP_OPS(VAE_CUDA_OP)
#undef VAE_CUDA_OP

#endif
