/* Rows of a data set read ahead by several threads, into a ring of pinned buffers.
 *
 * Copying rows from random places is bound by the latency of memory, some 2 to 4 GB/s a thread,
 * while PCIe 5 takes 55: so there are as many threads as cores, but one. They take pieces of some
 * rows in turn and may be several buffers ahead. A row's place depends on the plan alone, so their
 * number never shows. They make no CUDA calls. */
#include "backend/cuda/cuda.h"

#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "base/pool.h"
#include "philox.h"

enum {
    PIECE = 128 << 10, /* bytes a reader takes at once, at least a row: some 40 us */
    MOST_READERS = 16,
    BLOCK = 32, /* rows looked up at once */
    NEAR = 2,   /* rows that are being fetched into the cache while one is copied */
    LINE = 64,  /* bytes of a line of the cache, or fewer */
};

struct row_readers {
    const vae_data *data;
    size_t room;    /* items that a buffer has room for */
    size_t n_slots; /* buffers there are */
    char *rows[VAE_CUDA_STAGES];
    uint32_t *number[VAE_CUDA_STAGES];

    pthread_t thread[MOST_READERS];
    size_t n_threads;
    pthread_mutex_t lock;
    pthread_cond_t work, progress; /* for readers; for who waits for them */
    /* under lock; the plan's part changes only while no reader is active */
    vae_plan *plan; /* own copy */
    size_t plan_room;
    size_t n, per_entry, per_slot; /* items in all, of a plan entry, of a buffer */
    size_t next;                   /* the first item that nobody has taken */
    size_t released;               /* fills of buffers that are done with */
    size_t done[VAE_CUDA_STAGES];  /* items that lie in a buffer */
    size_t active;                 /* readers under way */
    bool quit;
    bool fetch;         /* rows come from a disk: many are asked for at once */
    uint64_t disk_seen; /* of vae_map_disk_was_read */
};

/* Items first .. end-1, which lie in one buffer. */
static void fill(const row_readers *r, size_t first, size_t end)
{
    const vae_data *data = r->data;
    const vae_dataset *set = data->set;
    const size_t width = vae_dataset_row_bytes(set), stride = vae_dataset_stride(set);
    const size_t slot = first / r->per_slot % r->n_slots;
    const char *source = set->rows;
    for (size_t i = first; i < end; i += BLOCK) {
        const size_t n = end - i < BLOCK ? end - i : BLOCK, at = i % r->per_slot;
        uint32_t *number = r->number[slot] + at;
        char *to = r->rows[slot] + at * data->row_bytes;
        for (size_t j = 0; j < n; j++) {
            const vae_plan *entry = &r->plan[(i + j) / r->per_entry];
            const uint64_t row =
                vae_plan_row(entry, data->rows.n, data->rows.half_bits, (i + j) % r->per_entry);
            number[j] = data->index != NULL ? data->index[row] : (uint32_t)row;
            __builtin_prefetch(source + number[j] * stride); /* its page, too, is looked up */
        }
        if (r->fetch) {
            vae_dataset_fetch(set, number, n);
        }
        for (size_t j = 0; j < n; j++) {
            for (size_t b = LINE; j + NEAR < n && b < stride; b += LINE) {
                __builtin_prefetch(source + number[j + NEAR] * stride + b);
            }
            const void *row = vae_dataset_row(set, number[j], to + j * data->row_bytes);
            if (!set->loose) {
                memcpy(to + j * data->row_bytes, row, width);
            }
        }
    }
}

/* Items of the fill `k` of a buffer. */
static size_t items_of(const row_readers *r, size_t k)
{
    const size_t first = k * r->per_slot, left = first < r->n ? r->n - first : 0;
    return left < r->per_slot ? left : r->per_slot;
}

static void *reader(void *arg)
{
    row_readers *r = arg;
    pthread_mutex_lock(&r->lock);
    while (!r->quit) {
        const size_t first = r->next, k = r->n > 0 ? first / r->per_slot : 0;
        if (first >= r->n || k >= r->released + r->n_slots) {
            pthread_cond_wait(&r->work, &r->lock);
            continue;
        }
        const size_t most = r->data->row_bytes < PIECE ? PIECE / r->data->row_bytes : 1;
        const size_t left = k * r->per_slot + items_of(r, k) - first;
        const size_t n = left < most ? left : most;
        r->next += n;
        r->active++;
        pthread_mutex_unlock(&r->lock);
        fill(r, first, first + n);
        pthread_mutex_lock(&r->lock);
        r->active--;
        r->done[k % r->n_slots] += n;
        if (r->active == 0 || r->done[k % r->n_slots] == items_of(r, k)) {
            pthread_cond_broadcast(&r->progress);
        }
    }
    pthread_mutex_unlock(&r->lock);
    return NULL;
}

/* As many threads as there is work for, or as can be had. */
static void start_threads(cuda_backend *be, row_readers *r, size_t bytes)
{
    const size_t cores = (size_t)vae_threads(be->threads);
    const size_t pieces = bytes / PIECE + 1;
    size_t wanted = cores > 2 ? cores - 1 : 2; /* two even so: one may wait for a page */
    wanted = wanted < MOST_READERS ? wanted : MOST_READERS;
    wanted = wanted < pieces ? wanted : pieces;
    while (r->n_threads < wanted &&
           pthread_create(&r->thread[r->n_threads], NULL, reader, r) == 0) {
        r->n_threads++;
    }
    if (r->n_threads == 0) {
        vae_fail(&be->err, VAE_ERR_RUNTIME, "cannot start a thread that reads data ahead");
    }
}

row_readers *vae_readers_open(cuda_backend *be, const vae_data *data)
{
    row_readers *r = calloc(1, sizeof *r);
    if (r == NULL) {
        vae_fail_memory(&be->err, sizeof *r, "readers of rows");
        return NULL;
    }
    r->data = data;
    pthread_mutex_init(&r->lock, NULL);
    pthread_cond_init(&r->work, NULL);
    pthread_cond_init(&r->progress, NULL);
    return r;
}

static void free_buffers(cuda_backend *be, row_readers *r)
{
    for (size_t i = 0; i < r->n_slots; i++) {
        CUDA_OK(be, cudaFreeHost(r->rows[i]));
        CUDA_OK(be, cudaFreeHost(r->number[i]));
        r->rows[i] = NULL;
        r->number[i] = NULL;
    }
    r->room = r->n_slots = 0;
}

void vae_readers_close(cuda_backend *be, row_readers *r)
{
    if (r == NULL) {
        return;
    }
    pthread_mutex_lock(&r->lock);
    r->quit = true;
    pthread_cond_broadcast(&r->work);
    pthread_mutex_unlock(&r->lock);
    for (size_t i = 0; i < r->n_threads; i++) {
        pthread_join(r->thread[i], NULL);
    }
    free_buffers(be, r);
    pthread_cond_destroy(&r->work);
    pthread_cond_destroy(&r->progress);
    pthread_mutex_destroy(&r->lock);
    free(r->plan);
    free(r);
}

/* Ends the work on the plan before; the readers are idle afterwards. */
static void stop_reading(row_readers *r)
{
    pthread_mutex_lock(&r->lock);
    r->n = 0;
    while (r->active > 0) {
        pthread_cond_wait(&r->progress, &r->lock);
    }
    pthread_mutex_unlock(&r->lock);
}

/* Rows keep their zero padding, which copies bring along. */
static void take_buffers(cuda_backend *be, row_readers *r, size_t slots, size_t items)
{
    const size_t bytes = items * r->data->row_bytes;
    if (slots <= r->n_slots && items <= r->room) {
        return;
    }
    free_buffers(be, r);
    for (size_t i = 0; i < slots && vae_cuda_fine(be); i++) {
        void *rows = NULL, *number = NULL;
        r->n_slots = i + 1;
        if (CUDA_OK(be, cudaMallocHost(&rows, bytes))) {
            r->rows[i] = memset(rows, 0, bytes);
        }
        if (CUDA_OK(be, cudaMallocHost(&number, items * sizeof(uint32_t)))) {
            r->number[i] = number;
        }
    }
    r->room = vae_cuda_fine(be) ? items : 0;
}

static bool copy_plan(cuda_backend *be, row_readers *r, const vae_plan *plan, size_t n)
{
    if (n > r->plan_room) {
        vae_plan *more = realloc(r->plan, n * sizeof *more);
        if (more == NULL) {
            vae_fail_memory(&be->err, n * sizeof *more, "the plan");
            return false;
        }
        r->plan = more;
        r->plan_room = n;
    }
    memcpy(r->plan, plan, n * sizeof *plan);
    return true;
}

void vae_readers_begin(cuda_backend *be, row_readers *r, const vae_plan *plan, size_t n,
                       size_t rows, size_t slots, size_t per_slot)
{
    const size_t items = n * rows;
    stop_reading(r);
    take_buffers(be, r, slots, per_slot);
    if (vae_cuda_fine(be) && copy_plan(be, r, plan, n)) {
        start_threads(be, r, items * r->data->row_bytes);
    }
    if (!vae_cuda_fine(be)) {
        return;
    }
    pthread_mutex_lock(&r->lock);
    r->n = items;
    r->per_entry = rows;
    r->per_slot = per_slot;
    r->next = r->released = 0;
    r->fetch = r->data->set->map != NULL && vae_map_disk_was_read(&r->disk_seen);
    memset(r->done, 0, sizeof r->done);
    pthread_cond_broadcast(&r->work);
    pthread_mutex_unlock(&r->lock);
}

size_t vae_readers_wait(row_readers *r, size_t k, const char **rows, const uint32_t **number)
{
    pthread_mutex_lock(&r->lock);
    const size_t items = items_of(r, k), slot = items > 0 ? k % r->n_slots : 0;
    while (r->done[slot] < items) {
        pthread_cond_wait(&r->progress, &r->lock);
    }
    pthread_mutex_unlock(&r->lock);
    *rows = r->rows[slot];
    *number = r->number[slot];
    return items;
}

void vae_readers_release(row_readers *r, size_t k)
{
    pthread_mutex_lock(&r->lock);
    while (r->released < k) {
        r->done[r->released++ % r->n_slots] = 0;
    }
    pthread_cond_broadcast(&r->work);
    pthread_mutex_unlock(&r->lock);
}
