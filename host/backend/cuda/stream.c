/* Data that do not fit on the device. A reader thread gathers the batches of the plan, in its
 * order, into pinned buffers; the trainer's thread copies each to a stage on the device, in a
 * stream of its own, while the step before it computes. Rows and order are those of resident data.
 *
 *   reader:   fills pinned slot e % STAGES      once the copy of entry e - STAGES is done
 *   trainer:  copies it to device stage e % STAGES, once entry e - STAGES has been computed
 *   step e:   waits (on the device) for that copy
 *
 * The reader makes no CUDA calls. */
#include "backend/cuda/cuda.h"

#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "philox.h"

enum { STAGES = VAE_CUDA_STAGES };

struct row_stream {
    const vae_data *data;
    /* staging: rows of a batch, then their numbers; a slot holds slot_rows of them */
    size_t slot_rows;
    char *host[STAGES];
    uint32_t *host_number[STAGES];
    char *dev;
    uint32_t *dev_number;
    cudaStream_t copies;
    cudaEvent_t copied[STAGES], consumed[STAGES];
    size_t staged; /* entries staged since the plan began */

    pthread_t thread;
    bool thread_runs;
    pthread_mutex_t lock;
    pthread_cond_t changed;
    /* under lock */
    vae_plan *plan; /* own copy */
    size_t n, rows, plan_room;
    size_t filled;   /* entries that lie in pinned memory */
    size_t released; /* entries whose copy is done: slots of those before may be refilled */
    bool reading, quit;
};

static void fill(const row_stream *s, const vae_plan *entry, size_t rows, char *to,
                 uint32_t *number)
{
    const vae_data *data = s->data;
    const vae_dataset *set = data->set;
    const size_t width = vae_dataset_row_bytes(set);
    for (size_t r = 0; r < rows; r++) {
        const uint64_t i = vae_plan_row(entry, data->rows.n, data->rows.half_bits, r);
        number[r] = data->index != NULL ? data->index[i] : (uint32_t)i;
        memcpy(to + r * data->row_bytes, (const char *)set->rows + number[r] * width, width);
    }
}

static void *reader(void *arg)
{
    row_stream *s = arg;
    pthread_mutex_lock(&s->lock);
    while (!s->quit) {
        if (s->filled >= s->n || s->filled >= s->released + STAGES) {
            pthread_cond_wait(&s->changed, &s->lock);
            continue;
        }
        const size_t slot = s->filled % STAGES, rows = s->rows;
        const vae_plan entry = s->plan[s->filled];
        s->reading = true;
        pthread_mutex_unlock(&s->lock);
        fill(s, &entry, rows, s->host[slot], s->host_number[slot]);
        pthread_mutex_lock(&s->lock);
        s->reading = false;
        s->filled++;
        pthread_cond_broadcast(&s->changed);
    }
    pthread_mutex_unlock(&s->lock);
    return NULL;
}

/* Ends the work on the plan before; the reader is idle afterwards. */
static void stop_reading(row_stream *s)
{
    pthread_mutex_lock(&s->lock);
    s->n = 0;
    while (s->reading) {
        pthread_cond_wait(&s->changed, &s->lock);
    }
    pthread_mutex_unlock(&s->lock);
}

static void free_staging(cuda_backend *be, row_stream *s)
{
    for (int i = 0; i < STAGES; i++) {
        CUDA_OK(be, cudaFreeHost(s->host[i]));
        CUDA_OK(be, cudaFreeHost(s->host_number[i]));
        s->host[i] = NULL;
        s->host_number[i] = NULL;
    }
    CUDA_OK(be, cudaFree(s->dev));
    CUDA_OK(be, cudaFree(s->dev_number));
    s->dev = NULL;
    s->dev_number = NULL;
    s->slot_rows = 0;
}

/* Staging memory for batches of `rows`. Rows keep their zero padding, which copies bring along. */
static void take_staging(cuda_backend *be, row_stream *s, size_t rows)
{
    const size_t bytes = rows * s->data->row_bytes, number_bytes = rows * sizeof(uint32_t);
    for (int i = 0; i < STAGES && vae_cuda_fine(be); i++) {
        void *row_memory = NULL, *number_memory = NULL;
        if (CUDA_OK(be, cudaMallocHost(&row_memory, bytes))) {
            s->host[i] = memset(row_memory, 0, bytes);
        }
        if (CUDA_OK(be, cudaMallocHost(&number_memory, number_bytes))) {
            s->host_number[i] = number_memory;
        }
    }
    s->dev = vae_cuda_take(be, STAGES * bytes, "staged batches of streamed data");
    s->dev_number = vae_cuda_take(be, STAGES * number_bytes, "staged row numbers");
    s->slot_rows = vae_cuda_fine(be) ? rows : 0;
}

row_stream *vae_row_stream_open(cuda_backend *be, const vae_data *data)
{
    row_stream *s = calloc(1, sizeof *s);
    if (s == NULL) {
        vae_fail_memory(&be->err, sizeof *s, "a stream of rows");
        return NULL;
    }
    s->data = data;
    pthread_mutex_init(&s->lock, NULL);
    pthread_cond_init(&s->changed, NULL);
    CUDA_OK(be, cudaStreamCreateWithFlags(&s->copies, cudaStreamNonBlocking));
    for (int i = 0; i < STAGES && vae_cuda_fine(be); i++) {
        CUDA_OK(be, cudaEventCreateWithFlags(&s->copied[i], cudaEventDisableTiming));
        CUDA_OK(be, cudaEventCreateWithFlags(&s->consumed[i], cudaEventDisableTiming));
    }
    if (vae_cuda_fine(be)) {
        s->thread_runs = pthread_create(&s->thread, NULL, reader, s) == 0;
        if (!s->thread_runs) {
            vae_fail(&be->err, VAE_ERR_RUNTIME, "cannot start the thread that reads data ahead");
        }
    }
    if (!vae_cuda_fine(be)) {
        vae_row_stream_close(be, s);
        return NULL;
    }
    return s;
}

void vae_row_stream_close(cuda_backend *be, row_stream *s)
{
    if (s->thread_runs) {
        pthread_mutex_lock(&s->lock);
        s->quit = true;
        pthread_cond_broadcast(&s->changed);
        pthread_mutex_unlock(&s->lock);
        pthread_join(s->thread, NULL);
    }
    if (s->copies != NULL) {
        cudaStreamSynchronize(s->copies);
        cudaStreamDestroy(s->copies);
    }
    free_staging(be, s);
    for (int i = 0; i < STAGES; i++) {
        if (s->copied[i] != NULL) {
            cudaEventDestroy(s->copied[i]);
        }
        if (s->consumed[i] != NULL) {
            cudaEventDestroy(s->consumed[i]);
        }
    }
    pthread_cond_destroy(&s->changed);
    pthread_mutex_destroy(&s->lock);
    free(s->plan);
    free(s);
}

static bool copy_plan(cuda_backend *be, row_stream *s, const vae_plan *plan, size_t n)
{
    if (n > s->plan_room) {
        vae_plan *more = realloc(s->plan, n * sizeof *more);
        if (more == NULL) {
            vae_fail_memory(&be->err, n * sizeof *more, "the plan");
            return false;
        }
        s->plan = more;
        s->plan_room = n;
    }
    memcpy(s->plan, plan, n * sizeof *plan);
    return true;
}

bool vae_row_stream_fits(const row_stream *s, size_t rows)
{
    return rows <= s->slot_rows;
}

void vae_row_stream_plan(cuda_backend *be, vae_data *data, const vae_plan *plan, size_t n,
                         size_t rows)
{
    row_stream *s = data->stream;
    stop_reading(s);
    if (!CUDA_OK(be, cudaStreamSynchronize(s->copies)) || !copy_plan(be, s, plan, n)) {
        return;
    }
    if (!vae_row_stream_fits(s, rows)) {
        /* the steps read what is freed now */
        if (CUDA_OK(be, cudaStreamSynchronize(be->lane[0].stream))) {
            free_staging(be, s);
            take_staging(be, s, rows);
        }
        data->rows.rows = s->dev;
        data->rows.number = s->dev_number;
        data->rows.n_slots = STAGES;
        data->rows.slot_rows = (uint32_t)s->slot_rows;
    }
    if (!vae_cuda_fine(be)) {
        return;
    }
    s->staged = 0;
    pthread_mutex_lock(&s->lock);
    s->n = n;
    s->rows = rows;
    s->filled = 0;
    s->released = 0;
    pthread_cond_broadcast(&s->changed);
    pthread_mutex_unlock(&s->lock);
}

/* Waits until entry `at` lies in pinned memory; the number of its rows, 0 if it is not planned. */
static size_t wait_for_reader(row_stream *s, size_t at)
{
    pthread_mutex_lock(&s->lock);
    while (at < s->n && s->filled <= at) {
        pthread_cond_wait(&s->changed, &s->lock);
    }
    size_t rows = at < s->n ? s->rows : 0;
    pthread_mutex_unlock(&s->lock);
    return rows;
}

static void release(row_stream *s, size_t entries)
{
    pthread_mutex_lock(&s->lock);
    s->released = entries;
    pthread_cond_broadcast(&s->changed);
    pthread_mutex_unlock(&s->lock);
}

void vae_row_stream_stage(cuda_backend *be, row_stream *s, size_t at)
{
    const size_t slot = at % STAGES, slot_bytes = s->slot_rows * s->data->row_bytes;
    if (!vae_cuda_fine(be) || at < s->staged) {
        return;
    }
    const size_t rows = wait_for_reader(s, at);
    if (rows == 0) {
        vae_fail(&be->err, VAE_ERR_RUNTIME, "CUDA: step %zu of a plan that has fewer", at);
        return;
    }
    s->staged = at + 1;
    if (CUDA_OK(be, cudaStreamWaitEvent(s->copies, s->consumed[slot], 0)) &&
        CUDA_OK(be,
                cudaMemcpyAsync(s->dev + slot * slot_bytes, s->host[slot],
                                rows * s->data->row_bytes, cudaMemcpyHostToDevice, s->copies)) &&
        CUDA_OK(be, cudaMemcpyAsync(s->dev_number + slot * s->slot_rows, s->host_number[slot],
                                    rows * sizeof(uint32_t), cudaMemcpyHostToDevice, s->copies)) &&
        CUDA_OK(be, cudaEventRecord(s->copied[slot], s->copies)) &&
        CUDA_OK(be, cudaStreamWaitEvent(be->lane[0].stream, s->copied[slot], 0)) && at > 0 &&
        CUDA_OK(be, cudaEventSynchronize(s->copied[(at - 1) % STAGES]))) {
        release(s, at);
    }
}

void vae_row_stream_consumed(cuda_backend *be, row_stream *s, size_t at)
{
    if (vae_cuda_fine(be)) {
        CUDA_OK(be, cudaEventRecord(s->consumed[at % STAGES], be->lane[0].stream));
    }
}
