/* Data that do not fit on the device. Readers (readers.c) bring the batches of the plan, in its
 * order, into pinned buffers; the trainer's thread copies each buffer to a stage on the device, in
 * a stream of its own, while the steps before it compute. Rows and order are those of resident
 * data.
 *
 * A stage holds the batches of a group of plan entries: of VAE_CUDA_MANY, where they are small, so
 * that a copy and a graph serve all of them, else of one.
 *
 *   readers:  fill pinned buffer g % STAGES     once the copy of group g - STAGES is done
 *   trainer:  copies it to device stage g % STAGES, once group g - STAGES has been computed
 *   steps of group g:  wait (on the device) for that copy */
#include "backend/cuda/cuda.h"

#include <stdlib.h>

enum { STAGES = VAE_CUDA_STAGES, GROUP = 8 << 20 }; /* most bytes of a group of several batches */

struct row_stream {
    const vae_data *data;
    row_readers *readers;
    size_t room; /* rows that a stage has room for */
    char *dev;
    uint32_t *dev_number;
    cudaStream_t copies;
    cudaEvent_t copied[STAGES], consumed[STAGES];
    size_t entries;   /* of the plan in a group */
    size_t per_stage; /* rows of a group */
    size_t staged;    /* groups staged since the plan began */
};

/* Entries of a group, by the size of their batches alone: a captured step counts on it. */
static size_t entries_of(const row_stream *s, size_t rows)
{
    return rows <= GROUP / s->data->row_bytes / VAE_CUDA_MANY ? VAE_CUDA_MANY : 1;
}

static void free_staging(cuda_backend *be, row_stream *s)
{
    CUDA_OK(be, cudaFree(s->dev));
    CUDA_OK(be, cudaFree(s->dev_number));
    s->dev = NULL;
    s->dev_number = NULL;
    s->room = 0;
}

static void take_staging(cuda_backend *be, row_stream *s, size_t rows)
{
    s->dev =
        vae_cuda_take(be, STAGES * rows * s->data->row_bytes, "staged batches of streamed data");
    s->dev_number = vae_cuda_take(be, STAGES * rows * sizeof(uint32_t), "staged row numbers");
    s->room = vae_cuda_fine(be) ? rows : 0;
}

row_stream *vae_row_stream_open(cuda_backend *be, const vae_data *data)
{
    row_stream *s = calloc(1, sizeof *s);
    if (s == NULL) {
        vae_fail_memory(&be->err, sizeof *s, "a stream of rows");
        return NULL;
    }
    s->data = data;
    s->readers = vae_readers_open(be, data);
    CUDA_OK(be, cudaStreamCreateWithFlags(&s->copies, cudaStreamNonBlocking));
    for (int i = 0; i < STAGES && vae_cuda_fine(be); i++) {
        CUDA_OK(be, cudaEventCreateWithFlags(&s->copied[i], cudaEventDisableTiming));
        CUDA_OK(be, cudaEventCreateWithFlags(&s->consumed[i], cudaEventDisableTiming));
    }
    if (!vae_cuda_fine(be)) {
        vae_row_stream_close(be, s);
        return NULL;
    }
    return s;
}

void vae_row_stream_close(cuda_backend *be, row_stream *s)
{
    if (s->copies != NULL) {
        cudaStreamSynchronize(s->copies);
        cudaStreamDestroy(s->copies);
    }
    vae_readers_close(be, s->readers);
    free_staging(be, s);
    for (int i = 0; i < STAGES; i++) {
        if (s->copied[i] != NULL) {
            cudaEventDestroy(s->copied[i]);
        }
        if (s->consumed[i] != NULL) {
            cudaEventDestroy(s->consumed[i]);
        }
    }
    free(s);
}

bool vae_row_stream_fits(const row_stream *s, size_t rows)
{
    return entries_of(s, rows) * rows <= s->room;
}

void vae_row_stream_plan(cuda_backend *be, vae_data *data, const vae_plan *plan, size_t n,
                         size_t rows)
{
    row_stream *s = data->stream;
    if (!CUDA_OK(be, cudaStreamSynchronize(s->copies))) {
        return;
    }
    s->staged = 0;
    s->entries = entries_of(s, rows);
    s->per_stage = s->entries * rows;
    if (!vae_row_stream_fits(s, rows)) {
        /* the steps read what is freed now */
        if (CUDA_OK(be, cudaStreamSynchronize(be->lane[LANE_MAIN].stream))) {
            free_staging(be, s);
            take_staging(be, s, s->per_stage);
        }
    }
    data->rows.rows = s->dev;
    data->rows.number = s->dev_number;
    data->rows.n_slots = (uint32_t)(STAGES * s->entries);
    data->rows.slot_rows = (uint32_t)rows;
    /* stages begin elsewhere now: the first waits for all steps of the plan before */
    if (vae_cuda_fine(be) &&
        CUDA_OK(be, cudaEventRecord(s->consumed[0], be->lane[LANE_MAIN].stream)) &&
        CUDA_OK(be, cudaStreamWaitEvent(s->copies, s->consumed[0], 0))) {
        vae_readers_begin(be, s->readers, plan, n, rows, STAGES, s->per_stage);
    }
}

bool vae_row_stream_many(const row_stream *s, size_t at)
{
    return s->entries == VAE_CUDA_MANY && at % VAE_CUDA_MANY == 0;
}

void vae_row_stream_stage(cuda_backend *be, row_stream *s, size_t at)
{
    const size_t group = at / s->entries, stage = group % STAGES, place = stage * s->per_stage;
    const size_t row_bytes = s->data->row_bytes;
    const char *rows;
    const uint32_t *number;
    if (!vae_cuda_fine(be) || group < s->staged) {
        return;
    }
    const size_t n = vae_readers_wait(s->readers, group, &rows, &number);
    if (n <= (at - group * s->entries) * s->per_stage / s->entries) {
        vae_fail(&be->err, VAE_ERR_RUNTIME, "CUDA: step %zu of a plan that has fewer", at);
        return;
    }
    s->staged = group + 1;
    if (CUDA_OK(be, cudaStreamWaitEvent(s->copies, s->consumed[stage], 0)) &&
        CUDA_OK(be, cudaMemcpyAsync(s->dev + place * row_bytes, rows, n * row_bytes,
                                    cudaMemcpyHostToDevice, s->copies)) &&
        CUDA_OK(be, cudaMemcpyAsync(s->dev_number + place, number, n * sizeof *number,
                                    cudaMemcpyHostToDevice, s->copies)) &&
        CUDA_OK(be, cudaEventRecord(s->copied[stage], s->copies)) &&
        CUDA_OK(be, cudaStreamWaitEvent(be->lane[LANE_MAIN].stream, s->copied[stage], 0)) &&
        group > 0 && CUDA_OK(be, cudaEventSynchronize(s->copied[(group - 1) % STAGES]))) {
        vae_readers_release(s->readers, group);
    }
}

void vae_row_stream_consumed(cuda_backend *be, row_stream *s, size_t at)
{
    if (vae_cuda_fine(be)) {
        CUDA_OK(be,
                cudaEventRecord(s->consumed[at / s->entries % STAGES], be->lane[LANE_MAIN].stream));
    }
}
