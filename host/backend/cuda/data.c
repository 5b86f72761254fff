/* Data sets on the device: rows packed in the order of their index, in the type they are stored in,
 * where they fit; else a row_stream stands in. */
#include "backend/cuda/cuda.h"

#include <stdlib.h>
#include <string.h>

#include "philox.h"

/* Bytes of a pinned buffer for sending rows, at least one row. Some 40 us over PCIe 5, beside which
 * a copy costs little; to pin more would take longer than to send MNIST. */
enum { CHUNK = 2 << 20 };

/* Does it fit beside what is still to come? A tenth of what is free, and up to 1 GiB, are left. */
static bool fits(cuda_backend *be, size_t bytes)
{
    size_t room = 0, total = 0;
    if (be->stream_data || !CUDA_OK(be, cudaMemGetInfo(&room, &total))) {
        return false;
    }
    size_t spare = room / 4 < ((size_t)1 << 30) ? room / 4 : (size_t)1 << 30;
    return bytes <= room - room / 10 && bytes <= room - spare;
}

/* Sends all rows through pinned buffers: the readers fill some while another is on its way. */
static void send_rows(cuda_backend *be, const vae_data *data, char *rows_dev)
{
    cudaStream_t stream = be->lane[LANE_MAIN].stream;
    const size_t most = data->row_bytes < CHUNK ? CHUNK / data->row_bytes : 1;
    const size_t per_slot = data->n < most ? data->n : most;
    const size_t fills = (data->n + per_slot - 1) / per_slot;
    const size_t slots = fills < VAE_CUDA_STAGES ? fills : VAE_CUDA_STAGES;
    const vae_plan in_order = {0};
    cudaEvent_t sent[2] = {NULL, NULL};
    row_readers *readers = vae_readers_open(be, data);
    bool good = readers != NULL;
    for (int i = 0; good && i < 2; i++) {
        good = CUDA_OK(be, cudaEventCreateWithFlags(&sent[i], cudaEventDisableTiming));
    }
    if (good) {
        vae_readers_begin(be, readers, &in_order, 1, data->n, slots, per_slot);
    }
    for (size_t k = 0; k < fills && vae_cuda_fine(be); k++) {
        const char *rows;
        const uint32_t *number;
        const size_t bytes = vae_readers_wait(readers, k, &rows, &number) * data->row_bytes;
        char *to = rows_dev + k * per_slot * data->row_bytes;
        if (CUDA_OK(be, cudaMemcpyAsync(to, rows, bytes, cudaMemcpyHostToDevice, stream)) &&
            CUDA_OK(be, cudaEventRecord(sent[k % 2], stream)) && k > 0 &&
            CUDA_OK(be, cudaEventSynchronize(sent[(k - 1) % 2]))) {
            vae_readers_release(readers, k);
        }
    }
    CUDA_OK(be, cudaStreamSynchronize(stream));
    vae_readers_close(be, readers);
    for (int i = 0; i < 2; i++) {
        if (sent[i] != NULL) {
            cudaEventDestroy(sent[i]);
        }
    }
}

static void make_resident(cuda_backend *be, vae_data *data)
{
    char *rows = vae_cuda_take(be, data->n * data->row_bytes, "the data set");
    uint32_t *number = NULL;
    if (rows != NULL && data->index != NULL) {
        number = vae_cuda_take(be, data->n * sizeof *number, "the data set's row numbers");
        if (number != NULL) {
            vae_cuda_upload(&be->base, number, data->index, data->n * sizeof *number);
        }
    }
    data->rows.rows = rows;
    data->rows.number = number;
    if (vae_cuda_fine(be)) {
        send_rows(be, data, rows);
        vae_dataset_check_file(data->set, &be->err); /* from now on it may change */
    }
}

static vae_data *describe(cuda_backend *be, const vae_dataset *set, const uint32_t *index,
                          size_t n_index)
{
    vae_data *data = calloc(1, sizeof *data);
    if (data == NULL) {
        vae_fail_memory(&be->err, sizeof *data, "a data set");
        return NULL;
    }
    data->set = set;
    data->n = index != NULL ? n_index : set->n;
    data->row_bytes = set->dtype == VAE_BITS
                          ? (set->d + 31) / 32 * sizeof(uint32_t)
                          : vae_row_bytes(set->dtype, vae_pad(vae_dataset_width(set)));
    data->rows.draws = set->draws;
    data->rows.n = data->n;
    data->rows.half_bits = vae_shuffle_bits(data->n);
    data->rows.dtype = set->dtype;
    if (index != NULL) {
        data->index = malloc(n_index * sizeof *index);
        if (data->index == NULL) {
            vae_fail_memory(&be->err, n_index * sizeof *index, "the index of a data set");
            free(data);
            return NULL;
        }
        memcpy(data->index, index, n_index * sizeof *index);
    }
    return data;
}

vae_data *vae_cuda_data_open(vae_backend *base, const vae_dataset *set, const uint32_t *index,
                             size_t n_index)
{
    cuda_backend *be = vae_cuda_self(base);
    if (!vae_cuda_fine(be)) {
        return NULL;
    }
    if (set->n > UINT32_MAX) {
        vae_fail(&be->err, VAE_ERR_RUNTIME, "CUDA: a data set of %zu rows; at most %u are possible",
                 set->n, UINT32_MAX);
        return NULL;
    }
    vae_data *data = describe(be, set, index, n_index);
    if (data == NULL) {
        return NULL;
    }
    if (set->labels != NULL) { /* on the device even where the rows are streamed: they are little */
        const size_t bytes = set->n * sizeof *set->labels;
        uint32_t *labels = vae_cuda_take(be, bytes, "the data set's labels");
        if (labels != NULL) {
            vae_cuda_upload(base, labels, set->labels, bytes);
        }
        data->rows.labels = labels;
    }
    if (fits(be, data->n * (data->row_bytes + sizeof(uint32_t)))) {
        make_resident(be, data);
    } else if (vae_cuda_fine(be)) {
        data->stream = vae_row_stream_open(be, data);
    }
    if (!vae_cuda_fine(be)) {
        vae_cuda_data_close(base, data);
        return NULL;
    }
    return data;
}

void vae_cuda_data_close(vae_backend *base, vae_data *data)
{
    cuda_backend *be = vae_cuda_self(base);
    if (data == NULL) {
        return;
    }
    cudaStreamSynchronize(be->lane[0].stream); /* an error shows at the next sync */
    vae_cuda_forget_all(be);
    if (be->plan_data == data) {
        be->plan_data = NULL;
    }
    if (data->stream != NULL) {
        vae_row_stream_close(be, data->stream);
    } else {
        CUDA_OK(be, cudaFree((void *)(uintptr_t)data->rows.rows));
        CUDA_OK(be, cudaFree((void *)(uintptr_t)data->rows.number));
    }
    CUDA_OK(be, cudaFree((void *)(uintptr_t)data->rows.labels));
    free(data->index);
    free(data);
}
