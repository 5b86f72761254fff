/* The CUDA backend: devices, the table, open and close. cuda.h says what lies where. */
#include "backend/cuda/cuda.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* ---- devices ---- */

/* Number of devices, 0 with the reason. */
static int count_devices(char *why, size_t size)
{
    int n = 0, driver = 0;
    cudaError_t status = cudaGetDeviceCount(&n);
    if (status == cudaSuccess && n > 0) {
        return n;
    }
    cudaGetLastError();
    cudaDriverGetVersion(&driver); /* 0 where there is no driver */
    cudaGetLastError();
    if (driver == 0) {
        snprintf(why, size, "no NVIDIA driver is installed");
    } else if (status == cudaErrorInsufficientDriver) {
        snprintf(
            why, size, "the NVIDIA driver is for CUDA %d.%d, this program needs %d.%d: update it",
            driver / 1000, driver % 1000 / 10, CUDART_VERSION / 1000, CUDART_VERSION % 1000 / 10);
    } else if (status == cudaSuccess || status == cudaErrorNoDevice) {
        snprintf(why, size, "the NVIDIA driver finds no GPU");
    } else {
        snprintf(why, size, "CUDA does not start: %s (%s)", cudaGetErrorString(status),
                 cudaGetErrorName(status));
    }
    return 0;
}

/* Properties of device i; false with the reason if this program cannot use it. */
static bool usable(struct cudaDeviceProp *properties, int i, char *why, size_t size)
{
    cudaError_t status = cudaGetDeviceProperties(properties, i);
    if (status != cudaSuccess) {
        cudaGetLastError();
        snprintf(why, size, "GPU %d does not answer: %s (%s)", i, cudaGetErrorString(status),
                 cudaGetErrorName(status));
        return false;
    }
    if (properties->major < 8) {
        snprintf(why, size,
                 "GPU %d (%s) has compute capability %d.%d; this program needs 8.0 or newer", i,
                 properties->name, properties->major, properties->minor);
        return false;
    }
    return true;
}

int vae_cuda_devices(char *text, size_t size)
{
    char why[512];
    size_t used = 0;
    int n = count_devices(why, sizeof why), n_usable = 0;
    if (size > 0) {
        text[0] = '\0';
    }
    if (n == 0) {
        snprintf(text, size, "%s", why);
    }
    for (int i = 0; i < n; i++) {
        struct cudaDeviceProp p;
        char line[640];
        bool good = usable(&p, i, why, sizeof why);
        if (good) {
            snprintf(line, sizeof line,
                     "cuda:%d  %s, compute capability %d.%d, %d multiprocessors, %.1f GiB\n", i,
                     p.name, p.major, p.minor, p.multiProcessorCount,
                     (double)p.totalGlobalMem / 1073741824.0);
            n_usable++;
        } else {
            snprintf(line, sizeof line, "cuda:%d  not usable: %s\n", i, why);
        }
        int length = snprintf(text + used, size - used, "%s", line);
        used += (size_t)length < size - used ? (size_t)length : size - used;
    }
    return n_usable;
}

/* ---- open and close ---- */

static size_t bytes_of(const char *name, size_t fallback)
{
    const char *value = getenv(name);
    char *end;
    const unsigned long long bytes = value != NULL ? strtoull(value, &end, 10) : 0;
    return bytes > 0 && *end == '\0' ? (size_t)bytes : fallback;
}

static bool flag(const char *name, bool fallback)
{
    const char *value = getenv(name);
    return value == NULL || *value == '\0' ? fallback : strcmp(value, "0") != 0;
}

/* index: what was asked for; of several ranks on a host each takes the next GPU, of those that its
 * launcher lets it see. */
static vae_status choose_device(cuda_backend *be, int index, vae_error *err)
{
    char why[512];
    struct cudaDeviceProp p;
    int n = count_devices(why, sizeof why);
    if (n == 0) {
        return vae_fail(err, VAE_ERR_NO_DEVICE, "no GPU to run on: %s", why);
    }
    if (be->base.ranks != NULL && be->base.ranks->n_local > 1) {
        index = (int)(be->base.ranks->local % (size_t)n);
    }
    if (index < 0 || index >= n) {
        return vae_fail(err, VAE_ERR_NO_DEVICE, "there is no GPU %d: %d found, numbered from 0",
                        index, n);
    }
    if (!usable(&p, index, why, sizeof why)) {
        return vae_fail(err, VAE_ERR_NO_DEVICE, "no GPU to run on: %s", why);
    }
    be->device = index;
    be->major = p.major;
    be->minor = p.minor;
    be->multiprocessors = p.multiProcessorCount;
    be->persistent.most_shared = p.sharedMemPerBlockOptin;
    snprintf(be->name, sizeof be->name, "%s", p.name);
    if (!CUDA_OK(be, cudaSetDevice(index)) || !CUDA_OK(be, cudaDriverGetVersion(&be->driver)) ||
        !CUDA_OK(be, cudaRuntimeGetVersion(&be->runtime)) || !CUDA_OK(be, cudaFree(NULL))) {
        return vae_fail(err, VAE_ERR_NO_DEVICE, "%s", be->err.text);
    }
    return VAE_OK;
}

static bool open_lane(cuda_backend *be, cuda_lane *lane, bool products)
{
    lane->scratch_bytes = VAE_SUMS_SCRATCH;
    if (products) {
        lane->workspace = vae_cuda_take(be, VAE_CUDA_WORKSPACE, "cuBLASLt's workspace");
    }
    lane->scratch = vae_cuda_take(be, lane->scratch_bytes, "partial sums");
    return lane->scratch != NULL &&
           CUDA_OK(be, cudaStreamCreateWithFlags(&lane->stream, cudaStreamNonBlocking));
}

/* Everything on the device that does not depend on the model. */
static bool open_device(cuda_backend *be)
{
    for (int i = 0; i < LANE_RANKS; i++) { /* that one: ranks.c */
        if (!open_lane(be, &be->lane[i], i != LANE_AHEAD)) {
            return false;
        }
    }
    be->clock = vae_cuda_alloc(&be->base, sizeof *be->clock, "the step counter");
    if (be->clock == NULL) {
        return false;
    }
    for (int i = 0; i < VAE_CUDA_LANES; i++) {
        be->lane[i].ticket = be->clock->ticket[i];
    }
    return CUDA_OK(be, cudaEventCreateWithFlags(&be->fork, cudaEventDisableTiming)) &&
           CUDA_OK(be, cudaEventCreateWithFlags(&be->join, cudaEventDisableTiming)) &&
           CUDA_OK(be, cudaEventCreateWithFlags(&be->settled, cudaEventDisableTiming)) &&
           CUDA_OK(be, cudaEventCreateWithFlags(&be->start, cudaEventDefault)) &&
           CUDA_OK(be, cudaEventCreateWithFlags(&be->stop, cudaEventDefault)) &&
           CUBLAS_OK(be, be->lt.create(&be->handle)) &&
           CUDA_OK(be, cudaStreamSynchronize(be->lane[0].stream));
}

static void close_lane(cuda_lane *lane)
{
    cudaFree(lane->workspace);
    cudaFree(lane->scratch);
    if (lane->stream != NULL) {
        cudaStreamDestroy(lane->stream);
    }
}

static void cuda_close(vae_backend *base)
{
    cuda_backend *be = vae_cuda_self(base);
    cudaEvent_t events[] = {be->fork, be->join, be->settled, be->start, be->stop};
    if (be->lost ||
        !vae_cuda_fine(be)) { /* what it still has to do may wait for other ranks' GPUs */
        be->lost = true;
        vae_cuda_leave_ranks(be);
    }
    if (be->lane[0].stream != NULL) {
        cudaStreamSynchronize(be->lane[0].stream); /* too late to tell of an error */
    }
    vae_cuda_run_close(be); /* graphs that name its sums first */
    vae_cuda_leave_ranks(be);
    vae_cuda_persistent_close(be);
    vae_cuda_matmul_close(be);
    for (size_t i = 0; i < be->n_params; i++) {
        cudaFree(be->params[i].shadow);
    }
    for (size_t i = 0; i < be->n_retired; i++) {
        cudaFree(be->retired[i]);
    }
    for (size_t i = 0; i < sizeof events / sizeof *events; i++) {
        if (events[i] != NULL) {
            cudaEventDestroy(events[i]);
        }
    }
    if (be->handle != NULL) {
        be->lt.destroy(be->handle);
    }
    cudaFree(be->clock);
    cudaFreeHost(be->bounce);
    for (int i = 0; i < VAE_CUDA_LANES; i++) {
        close_lane(&be->lane[i]);
    }
    free(be->params);
    free(be->retired);
    free(be);
}

/* The algorithms chosen so far: m x n x k, epilogue, id. */
static void describe_plans(const cuda_backend *be, char *text, size_t size)
{
    size_t used = 0;
    for (size_t i = 0; i < be->n_plans && used < size; i++) {
        const matmul_plan *p = &be->plans[i];
        int n;
        if (p->usable) {
            n = snprintf(text + used, size - used, "%s%llux%llux%llu e%d a%d", i > 0 ? ", " : "",
                         (unsigned long long)p->key.m, (unsigned long long)p->key.n,
                         (unsigned long long)p->key.k, (int)p->key.epilogue, p->algo_id);
        } else {
            n = snprintf(text + used, size - used, "%s%llux%llux%llu e%d none", i > 0 ? ", " : "",
                         (unsigned long long)p->key.m, (unsigned long long)p->key.n,
                         (unsigned long long)p->key.k, (int)p->key.epilogue);
        }
        used += n > 0 ? (size_t)n : 0;
    }
}

static void cuda_describe(const vae_backend *base, char *text, size_t size)
{
    static const char *const precision[] = {"fp32", "tf32", "bf16"};
    const cuda_backend *be = (const cuda_backend *)base;
    char plans[2048] = "none yet";
    const cuda_slot *largest = &be->slots[0];
    for (int i = 1; i < VAE_SLOTS; i++) {
        largest = be->slots[i].one_size.nodes > largest->one_size.nodes ? &be->slots[i] : largest;
    }
    describe_plans(be, plans, sizeof plans);
    char whole[64] = "off";
    if (be->persistent.blocks > 0) {
        snprintf(whole, sizeof whole, "%s, %u blocks",
                 be->persistent.used ? "by one kernel" : "on but not run", be->persistent.blocks);
    }
    const char *graphs = be->graphs ? "on" : "off", *timed = be->tune ? " (timed)" : "";
    char ranks[32] = "", hopper[64] = "";
    if (be->comm != NULL) { /* 22809 is 2.28.9 */
        snprintf(ranks, sizeof ranks, ", NCCL %d.%d.%d", be->nccl_version / 10000,
                 be->nccl_version % 10000 / 100, be->nccl_version % 100);
    }
    if (be->hopper_rows > 0) {
        snprintf(hopper, sizeof hopper, "own products from %zu rows on, ", be->hopper_rows);
    }
    snprintf(text, size,
             "cuda:%d %s, compute capability %d.%d, %d multiprocessors, driver %d.%d, runtime "
             "%d.%d, cuBLASLt %zu%s, %s, whole steps %s, graphs %s (%zu nodes a step, %zu in a "
             "chain; %d steps: "
             "%zu), %smatmuls%s: %s",
             be->device, be->name, be->major, be->minor, be->multiprocessors, be->driver / 1000,
             be->driver % 1000 / 10, be->runtime / 1000, be->runtime % 1000 / 10, be->lt.version(),
             ranks, precision[be->precision], whole, graphs, largest->one_size.nodes,
             largest->one_size.chain, VAE_CUDA_MANY, largest->many_size.chain, hopper, timed,
             plans);
}

static size_t cuda_act_size(const vae_backend *base)
{
    return ((const cuda_backend *)base)->elem_bytes;
}

#define ENTRY(op) .op = vae_cuda_##op,
static const vae_backend_ops cuda_ops = {
    .name = "cuda",
    .close = cuda_close,
    .describe = cuda_describe,
    .act_size = cuda_act_size,
    .aux_bytes = vae_cuda_aux_bytes,
    .conv_bytes = vae_cuda_conv_bytes,
    .bias_with_weight = vae_cuda_bias_with_weight,
    .alloc = vae_cuda_alloc,
    .free = vae_cuda_free,
    .free_bytes = vae_cuda_free_bytes,
    .upload = vae_cuda_upload,
    .download = vae_cuda_download,
    .upload_mat = vae_cuda_upload_mat,
    .download_mat = vae_cuda_download_mat,
    .bind_params = vae_cuda_bind_params,
    .data_open = vae_cuda_data_open,
    .data_close = vae_cuda_data_close,
    .plan = vae_cuda_plan,
    .run = vae_cuda_run,
    .run_whole = vae_cuda_run_whole,
    .forget = vae_cuda_forget,
    .sync = vae_cuda_sync,
    VAE_STEP_OPS(ENTRY) /* ops.c, classes.c, linear.c, conv.c */
};
#undef ENTRY

vae_status vae_backend_cuda_open(vae_backend **out, const vae_backend_options *options,
                                 vae_error *err)
{
    vae_status status = VAE_OK;
    char why[512];
    *out = NULL;
    cuda_backend *be = calloc(1, sizeof *be);
    if (be == NULL) {
        return vae_fail_memory(err, sizeof *be, "the CUDA backend");
    }
    be->base.ops = &cuda_ops;
    be->base.ranks = options->ranks;
    be->precision = options->precision;
    be->elem = options->precision == VAE_BF16 ? VAE_ELEM_BF16 : VAE_ELEM_F32;
    be->elem_bytes = be->elem == VAE_ELEM_BF16 ? sizeof(uint16_t) : sizeof(float);
    be->threads = options->threads;
    be->graphs = flag("VAE_CUDA_GRAPHS", true);
    be->tune = flag("VAE_CUDA_TUNE", false);
    be->stream_data = flag("VAE_CUDA_STREAM_DATA", false);
    be->patch_bytes = bytes_of("VAE_CUDA_PATCH_BYTES", VAE_CUDA_PATCHES);
    TRY(choose_device(be, options->device_index, err));
    TRY(vae_cuda_choose_hopper(be, err));
    vae_cuda_persistent_open(be);
    if (!vae_cublaslt_load(&be->lt, why, sizeof why)) {
        TRY(vae_fail(err, VAE_ERR_NO_DEVICE, "no GPU to run on: cuBLASLt is missing: %s", why));
    }
    if (!open_device(be)) {
        TRY(vae_fail(err, be->err.status, "%s", be->err.text));
    }
    *out = &be->base;
done:
    if (status != VAE_OK) {
        cuda_close(&be->base);
    }
    return status;
}
