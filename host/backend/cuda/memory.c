/* Device memory: allocation, copies, and the bf16 twins of parameters. */
#include "backend/cuda/cuda.h"

#include <stdlib.h>
#include <string.h>

void *vae_cuda_take(cuda_backend *be, size_t bytes, const char *what)
{
    void *memory = NULL;
    if (!vae_cuda_fine(be)) {
        return NULL;
    }
    cudaError_t status = cudaMalloc(&memory, bytes > 0 ? bytes : 1);
    if (status == cudaErrorMemoryAllocation) {
        size_t room = 0, total = 0;
        cudaGetLastError(); /* this error is not sticky: leave none behind */
        cudaMemGetInfo(&room, &total);
        vae_fail(&be->err, VAE_ERR_RUNTIME,
                 "out of memory on GPU %d (%s): %zu bytes for %s; %zu of %zu bytes are free",
                 be->device, be->name, bytes, what, room, total);
        return NULL;
    }
    return vae_cuda_check(be, status, "cudaMalloc") ? memory : NULL;
}

void *vae_cuda_alloc(vae_backend *base, size_t bytes, const char *what)
{
    cuda_backend *be = vae_cuda_self(base);
    void *memory = vae_cuda_take(be, bytes, what);
    if (memory != NULL && bytes > 0 &&
        !CUDA_OK(be, cudaMemsetAsync(memory, 0, bytes, be->lane[0].stream))) {
        cudaFree(memory);
        return NULL;
    }
    return memory;
}

static void forget_params(cuda_backend *be, const void *memory)
{
    for (size_t i = 0; i < be->n_params; i++) {
        if (be->params[i].base == memory) {
            cudaFree(be->params[i].shadow);
            be->params[i] = be->params[--be->n_params];
            return;
        }
    }
}

void vae_cuda_free(vae_backend *base, void *memory)
{
    cuda_backend *be = vae_cuda_self(base);
    if (memory == NULL) {
        return;
    }
    cudaStreamSynchronize(be->lane[0].stream); /* an error shows at the next sync */
    forget_params(be, memory);
    CUDA_OK(be, cudaFree(memory));
}

size_t vae_cuda_free_bytes(const vae_backend *base)
{
    size_t room = 0, total = 0;
    (void)base;
    if (cudaMemGetInfo(&room, &total) != cudaSuccess) {
        cudaGetLastError();
        return 0;
    }
    return room - room / 64; /* allocations are rounded up */
}

vae_sums vae_cuda_sums(const cuda_backend *be, int lane)
{
    return (vae_sums){be->lane[lane].scratch, be->lane[lane].ticket};
}

void *vae_cuda_scratch(cuda_backend *be, int lane, size_t bytes)
{
    cuda_lane *l = &be->lane[lane];
    if (bytes <= l->scratch_bytes || !vae_cuda_fine(be)) {
        return l->scratch;
    }
    if (be->mode == MODE_CAPTURING) {
        vae_fail(&be->err, VAE_ERR_RUNTIME,
                 "CUDA: a step needs %zu bytes of scratch it did not "
                 "plan for",
                 bytes);
        return l->scratch;
    }
    void **more = realloc(be->retired, (be->n_retired + 1) * sizeof *more);
    if (more == NULL) {
        vae_fail_memory(&be->err, (be->n_retired + 1) * sizeof *more, "a list of scratch memory");
        return l->scratch;
    }
    be->retired = more;
    void *scratch = vae_cuda_take(be, bytes, "partial sums");
    if (scratch == NULL) {
        return l->scratch;
    }
    be->retired[be->n_retired++] = l->scratch;
    l->scratch = scratch;
    l->scratch_bytes = bytes;
    return scratch;
}

/* ---- copies: blocking, in the order of the compute stream, through pinned memory ---- */

/* Pinned memory of at least `bytes`, NULL after an error. */
static char *bounce_of(cuda_backend *be, size_t bytes)
{
    if (!vae_cuda_fine(be) || be->bounce_bytes >= bytes) {
        return be->bounce;
    }
    void *memory = NULL;
    size_t whole = bytes > VAE_CUDA_BOUNCE ? bytes : VAE_CUDA_BOUNCE;
    if (!CUDA_OK(be, cudaFreeHost(be->bounce))) {
        return NULL;
    }
    be->bounce = NULL;
    be->bounce_bytes = 0;
    if (CUDA_OK(be, cudaMallocHost(&memory, whole))) {
        be->bounce = memory;
        be->bounce_bytes = whole;
    }
    return be->bounce;
}

/* True once a copy that was just added is done; `status` is what adding it gave. */
static bool finish(cuda_backend *be, cudaError_t status)
{
    return vae_cuda_check(be, status, "cudaMemcpyAsync") && vae_cuda_wait(be);
}

void vae_cuda_upload(vae_backend *base, void *dst_dev, const void *src, size_t bytes)
{
    cuda_backend *be = vae_cuda_self(base);
    char *bounce = bounce_of(be, 1);
    for (size_t i = 0; vae_cuda_fine(be) && i < bytes; i += be->bounce_bytes) {
        size_t n = bytes - i < be->bounce_bytes ? bytes - i : be->bounce_bytes;
        memcpy(bounce, (const char *)src + i, n);
        finish(be, cudaMemcpyAsync((char *)dst_dev + i, bounce, n, cudaMemcpyHostToDevice,
                                   be->lane[0].stream));
    }
}

void vae_cuda_download(vae_backend *base, void *dst, const void *src_dev, size_t bytes)
{
    cuda_backend *be = vae_cuda_self(base);
    char *bounce = bounce_of(be, 1);
    for (size_t i = 0; vae_cuda_fine(be) && i < bytes; i += be->bounce_bytes) {
        size_t n = bytes - i < be->bounce_bytes ? bytes - i : be->bounce_bytes;
        if (finish(be, cudaMemcpyAsync(bounce, (const char *)src_dev + i, n, cudaMemcpyDeviceToHost,
                                       be->lane[0].stream))) {
            memcpy((char *)dst + i, bounce, n);
        }
    }
}

static uint16_t bf16_of(float value)
{
    uint32_t bits;
    memcpy(&bits, &value, sizeof bits);
    if ((bits & 0x7FFFFFFFu) > 0x7F800000u) {
        return 0x7FFF;
    }
    return (uint16_t)((bits + 0x7FFFu + (bits >> 16 & 1u)) >> 16);
}

static float float_of_bf16(uint16_t half)
{
    uint32_t bits = (uint32_t)half << 16;
    float value;
    memcpy(&value, &bits, sizeof value);
    return value;
}

/* n floats to and from the activation type. */
static void to_elem(const cuda_backend *be, void *to, const float *from, size_t n)
{
    if (be->elem == VAE_ELEM_F32) {
        memcpy(to, from, n * sizeof *from);
        return;
    }
    for (size_t i = 0; i < n; i++) {
        ((uint16_t *)to)[i] = bf16_of(from[i]);
    }
}

static void from_elem(const cuda_backend *be, float *to, const void *from, size_t n)
{
    if (be->elem == VAE_ELEM_F32) {
        memcpy(to, from, n * sizeof *to);
        return;
    }
    for (size_t i = 0; i < n; i++) {
        to[i] = float_of_bf16(((const uint16_t *)from)[i]);
    }
}

void vae_cuda_upload_mat(vae_backend *base, vae_mat dst, const float *src, size_t rows, size_t cols)
{
    cuda_backend *be = vae_cuda_self(base);
    const size_t pitch = dst.ld * be->elem_bytes, width = cols * be->elem_bytes;
    char *bounce = bounce_of(be, width > 0 ? width : 1);
    const size_t turn = vae_cuda_fine(be) && width > 0 ? be->bounce_bytes / width : rows;
    for (size_t r = 0; vae_cuda_fine(be) && width > 0 && r < rows; r += turn) {
        size_t n = rows - r < turn ? rows - r : turn;
        to_elem(be, bounce, src + r * cols, n * cols);
        finish(be, cudaMemcpy2DAsync((char *)dst.data + r * pitch, pitch, bounce, width, width, n,
                                     cudaMemcpyHostToDevice, be->lane[0].stream));
    }
}

void vae_cuda_download_mat(vae_backend *base, float *dst, vae_mat src, size_t rows, size_t cols)
{
    cuda_backend *be = vae_cuda_self(base);
    const size_t pitch = src.ld * be->elem_bytes, width = cols * be->elem_bytes;
    char *bounce = bounce_of(be, width > 0 ? width : 1);
    const size_t turn = vae_cuda_fine(be) && width > 0 ? be->bounce_bytes / width : rows;
    for (size_t r = 0; vae_cuda_fine(be) && width > 0 && r < rows; r += turn) {
        size_t n = rows - r < turn ? rows - r : turn;
        if (finish(be, cudaMemcpy2DAsync(bounce, width, (const char *)src.data + r * pitch, pitch,
                                         width, n, cudaMemcpyDeviceToHost, be->lane[0].stream))) {
            from_elem(be, dst + r * cols, bounce, n * cols);
        }
    }
}

/* ---- parameters ---- */

static cuda_params *params_of(const cuda_backend *be, const float *w)
{
    for (size_t i = 0; i < be->n_params; i++) {
        if (w >= be->params[i].base && w < be->params[i].base + be->params[i].n) {
            return &be->params[i];
        }
    }
    return NULL;
}

void *vae_cuda_shadow(const cuda_backend *be, const float *params)
{
    const cuda_params *p = params_of(be, params);
    return p != NULL ? p->shadow : NULL;
}

const void *vae_cuda_weights(cuda_backend *be, const float *w)
{
    if (be->elem == VAE_ELEM_F32) {
        return w;
    }
    const cuda_params *p = params_of(be, w);
    if (p == NULL) {
        vae_fail(&be->err, VAE_ERR_RUNTIME, "CUDA: weights that bind_params was not told of");
        return NULL;
    }
    return (const uint16_t *)p->shadow + (w - p->base);
}

/* Takes a twin for a buffer seen for the first time. */
static cuda_params *add_params(cuda_backend *be, float *params, size_t n)
{
    cuda_params *more = realloc(be->params, (be->n_params + 1) * sizeof *more);
    if (more == NULL) {
        vae_fail_memory(&be->err, (be->n_params + 1) * sizeof *more, "a list of parameters");
        return NULL;
    }
    be->params = more;
    void *shadow = vae_cuda_take(be, n * sizeof(uint16_t), "bf16 parameters");
    if (shadow == NULL) {
        return NULL;
    }
    be->params[be->n_params] = (cuda_params){params, n, shadow};
    return &be->params[be->n_params++];
}

void vae_cuda_bind_params(vae_backend *base, float *params, size_t n)
{
    cuda_backend *be = vae_cuda_self(base);
    if (!vae_cuda_fine(be) || be->elem == VAE_ELEM_F32) {
        return;
    }
    cuda_params *p = params_of(be, params);
    if (p == NULL) {
        p = add_params(be, params, n);
    }
    if (p != NULL) {
        CUDA_OK(be, vae_to_bf16_launch(p->shadow, params, n, be->lane[0].stream));
    }
}
