/* Whole training steps in one launch (kernels/persistent.cu): which models and batches take this
 * way, by a fixed rule, and the launch.
 *
 * The rule: a batch of at most MOST_ROWS and a model of at most MOST_PARAMS, for beyond these a
 * graph's products use the device better; at least one hidden layer a side; a likelihood with one
 * output a value; rows that are resident and not drawn. VAE_CUDA_PERSISTENT=0 turns it off, 1 on,
 * a larger number on with at most so many blocks. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "backend/cuda/cuda.h"

enum { BY_DEFAULT = 0 }; /* 1 once it has been measured on a device */
enum { MOST_ROWS = 256, MOST_PARAMS = 2 << 20 };
enum { SPREAD = 4, MOST_SPREAD = 16 }; /* blocks that do the same rows */

void vae_cuda_persistent_open(cuda_backend *be)
{
    const char *value = getenv("VAE_CUDA_PERSISTENT");
    const long blocks = value != NULL && *value != '\0' ? strtol(value, NULL, 10) : BY_DEFAULT;
    be->persistent.blocks = blocks == 1 ? (unsigned)be->multiprocessors : (unsigned)blocks;
    if (blocks < 0 || blocks > be->multiprocessors) {
        be->persistent.blocks = (unsigned)be->multiprocessors;
    }
    const char *spread = getenv("VAE_CUDA_PERSISTENT_SPREAD");
    const long wish = spread != NULL ? strtol(spread, NULL, 10) : 0;
    be->persistent.spread = wish > 0 && wish <= MOST_SPREAD ? (uint32_t)wish : SPREAD;
}

/* ---- where the time goes: VAE_CUDA_PERSISTENT_TIMES=1 prints it at the end ---- */

/* Room for the times of a launch, if they are wanted. */
static bool open_times(cuda_backend *be)
{
    const char *value = getenv("VAE_CUDA_PERSISTENT_TIMES");
    if (be->persistent.times == NULL && value != NULL && strcmp(value, "1") == 0) {
        be->persistent.times = vae_cuda_alloc(
            &be->base, be->persistent.blocks * VAE_MARKS * sizeof(uint32_t), "times of a step");
        return be->persistent.times != NULL;
    }
    return true;
}

static int ascending(const void *a, const void *b)
{
    const uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;
    return (x > y) - (x < y);
}

/* A line of microseconds over the blocks that wrote it. */
static void print_mark(const char *name, const uint32_t *times, unsigned blocks, unsigned mark,
                       double cycles_per_us)
{
    uint32_t *values = malloc(blocks * sizeof *values);
    unsigned n = 0;
    for (unsigned b = 0; values != NULL && b < blocks; b++) {
        if (times[b * VAE_MARKS + mark] != 0) {
            values[n++] = times[b * VAE_MARKS + mark];
        }
    }
    if (n > 0) {
        qsort(values, n, sizeof *values, ascending);
        fprintf(stderr, "  %-24s %4u blocks, us: least %6.2f, median %6.2f, most %6.2f\n", name, n,
                values[0] / cycles_per_us, values[n / 2] / cycles_per_us,
                values[n - 1] / cycles_per_us);
    }
    free(values);
}

static void print_times(cuda_backend *be)
{
    static const char *const name[] = {"  head",      "  and latent", "  (next batch)", "  dz",
                                       "  and dhead", "  (totals)",   "  norm"};
    const unsigned blocks = be->persistent.blocks;
    const size_t bytes = blocks * VAE_MARKS * sizeof(uint32_t);
    uint32_t *times = malloc(bytes);
    if (times == NULL || cudaMemcpy(times, be->persistent.times, bytes, cudaMemcpyDeviceToHost)) {
        free(times);
        return;
    }
    const double ns = times[VAE_MARK_LAUNCH_NS], cycles = times[VAE_MARK_LAUNCH_CYCLES];
    const double rate = ns > 0 && cycles > 0 ? cycles / ns * 1e3 : 1;
    fprintf(stderr,
            "whole steps by one kernel, the last of a launch of %.1f us (%.0f cycles a us):\n",
            ns / 1e3, rate);
    for (unsigned p = 0; p < VAE_MARK_HEAD / 2; p++) {
        char text[32];
        snprintf(text, sizeof text, "phase %u", p + 1);
        print_mark(text, times, blocks, VAE_MARK_PHASES + 2 * p, rate);
        print_mark("  and waited", times, blocks, VAE_MARK_PHASES + 2 * p + 1, rate);
    }
    for (unsigned i = VAE_MARK_HEAD; i <= VAE_MARK_NORM; i++) {
        print_mark(name[i - VAE_MARK_HEAD], times, blocks, i, rate);
    }
    free(times);
}

void vae_cuda_persistent_close(cuda_backend *be)
{
    cudaFree(be->persistent.scratch);
    cudaFree(be->persistent.x_next);
    if (be->persistent.times != NULL) {
        print_times(be);
    }
    cudaFree(be->persistent.times);
}

static bool fits(const cuda_backend *be, const vae_whole_step *step, const vae_data *data)
{
    return be->persistent.blocks > 0 && step->B <= MOST_ROWS && step->n <= MOST_PARAMS &&
           step->n_encoder >= 2 && step->n_layers >= step->n_encoder + 2 &&
           vae_likelihood_of(step->recon.likelihood)->outputs == 1 &&
           step->recon.mean == VAE_MEAN_LINEAR && data->stream == NULL && !data->rows.draws;
}

static vae_product product_of(const cuda_backend *be)
{
    return be->precision == VAE_BF16   ? VAE_PRODUCT_BF16
           : be->precision == VAE_TF32 ? VAE_PRODUCT_TF32
                                       : VAE_PRODUCT_FP32;
}

/* At least `bytes` at *memory, zero, which nothing queued uses any more. */
static bool grow(cuda_backend *be, void **memory, size_t *room, size_t bytes, const char *what)
{
    if (bytes <= *room) {
        return true;
    }
    if (!CUDA_OK(be, cudaStreamSynchronize(be->lane[LANE_MAIN].stream)) ||
        !CUDA_OK(be, cudaFree(*memory))) {
        return false;
    }
    *room = 0;
    *memory = vae_cuda_alloc(&be->base, bytes, what);
    *room = *memory != NULL ? bytes : 0;
    return *memory != NULL;
}

/* How the kernel is launched for this model: with the state in shared memory where there is room.
 * False if not even a block without it would be resident. */
static bool place(cuda_backend *be, vae_persistent *job, vae_product product, size_t *shared)
{
    const unsigned blocks = be->persistent.blocks;
    for (int in_shared = 1; vae_cuda_fine(be) && in_shared >= 0; in_shared--) {
        int resident = 0;
        *shared = vae_persistent_shared(job->step.n, blocks, in_shared != 0);
        job->in_shared = (uint64_t)in_shared;
        if (*shared <= be->persistent.most_shared &&
            CUDA_OK(be, vae_persistent_occupancy(&resident, product, *shared)) && resident > 0) {
            return true;
        }
    }
    return false;
}

bool vae_cuda_run_whole(vae_backend *base, const vae_whole_step *step, vae_data *data, size_t n)
{
    cuda_backend *be = vae_cuda_self(base);
    cudaStream_t stream = be->lane[LANE_MAIN].stream;
    const vae_product product = product_of(be);
    size_t shared = 0;
    if (!vae_cuda_fine(be) || n == 0 || !fits(be, step, data)) {
        return false;
    }
    vae_persistent job;
    memset(&job, 0, sizeof job); /* padding too: kernels.h, vae_rows */
    memcpy(&job.step, step, sizeof job.step);
    memcpy(&job.rows, &data->rows, sizeof job.rows);
    job.now = vae_cuda_now(be);
    job.n_steps = n;
    job.spread = be->persistent.spread;
    job.weights = (void *)(uintptr_t)vae_cuda_weights(be, step->params);
    if (!place(be, &job, product, &shared)) {
        return !vae_cuda_fine(be);
    }
    if (open_times(be) &&
        grow(be, &be->persistent.scratch, &be->persistent.scratch_bytes,
             vae_persistent_scratch(step, be->persistent.spread), "sums of whole steps") &&
        grow(be, &be->persistent.x_next, &be->persistent.x_bytes,
             step->B * step->layers[0].x.ld * be->elem_bytes, "the next step's batch")) {
        job.scratch = be->persistent.scratch;
        job.x_next = be->persistent.x_next;
        job.times = be->persistent.times;
        be->persistent.used = true;
        if (CUDA_OK(be, cudaMemsetAsync(job.scratch, 0, 2 * sizeof(uint32_t), stream)) &&
            CUDA_OK(be,
                    vae_persistent_launch(&job, product, be->persistent.blocks, shared, stream))) {
            CUDA_OK(be, vae_advance_launch(&be->clock->cursor, n, stream));
        }
        be->at += n;
    }
    return true; /* also after an error, which sticks */
}
