/* Data sets on the device: rows packed in the order of their index, in the type they are stored in,
 * where they fit; else a row_stream stands in. */
#include "backend/cuda/cuda.h"

#include <stdlib.h>
#include <string.h>

#include "philox.h"

enum { CHUNK = 8 << 20 }; /* bytes of a pinned buffer for sending rows, at least one row */

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

/* Rows first .. first+n-1 of the index into zeroed rows of row_bytes. */
static void pack(char *to, const vae_data *data, size_t first, size_t n)
{
    const vae_dataset *set = data->set;
    const size_t width = vae_dataset_row_bytes(set);
    for (size_t i = 0; i < n; i++) {
        size_t row = data->index != NULL ? data->index[first + i] : first + i;
        memcpy(to + i * data->row_bytes, (const char *)set->rows + row * width, width);
    }
}

/* Sends all rows through two pinned buffers, one filled while the other is on its way; through one
 * of their own size where that holds them all. */
static void send_rows(cuda_backend *be, const vae_data *data, char *rows_dev)
{
    cudaStream_t stream = be->lane[0].stream;
    const size_t most = data->row_bytes < CHUNK ? CHUNK / data->row_bytes : 1;
    const size_t per_chunk = data->n < most ? data->n : most;
    const size_t bytes = per_chunk * data->row_bytes;
    const int buffers = data->n > per_chunk ? 2 : 1;
    void *pinned[2] = {NULL, NULL};
    cudaEvent_t sent[2] = {NULL, NULL};
    bool good = true;
    for (int i = 0; good && i < buffers; i++) {
        good = CUDA_OK(be, cudaMallocHost(&pinned[i], bytes)) &&
               CUDA_OK(be, cudaEventCreateWithFlags(&sent[i], cudaEventDisableTiming));
        if (good) {
            memset(pinned[i], 0, bytes);
        }
    }
    for (size_t r = 0, turn = 0; good && r < data->n; r += per_chunk, turn++) {
        const size_t n = data->n - r < per_chunk ? data->n - r : per_chunk;
        char *buffer = pinned[turn % 2];
        good = turn < 2 || CUDA_OK(be, cudaEventSynchronize(sent[turn % 2]));
        if (good) {
            pack(buffer, data, r, n);
            good =
                CUDA_OK(be, cudaMemcpyAsync(rows_dev + r * data->row_bytes, buffer,
                                            n * data->row_bytes, cudaMemcpyHostToDevice, stream)) &&
                CUDA_OK(be, cudaEventRecord(sent[turn % 2], stream));
        }
    }
    CUDA_OK(be, cudaStreamSynchronize(stream));
    for (int i = 0; i < buffers; i++) {
        cudaFreeHost(pinned[i]);
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
