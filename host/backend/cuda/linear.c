/* Linear layers: matrix products, with bias, activation and bias gradients in cuBLASLt's epilogues
 * where it has them for the type, in kernels of our own where not.
 *
 * cuBLAS reads row-major (r,c) as column-major (c,r): with W (out,in), X (rows,in), Y (rows,out)
 *   forward  Y' (out,rows) = op_t(W' (in,out)) X' (in,rows)       k = in
 *   weight   dW' (in,out)  = X' (in,rows) op_t(dY' (out,rows))    k = rows
 *   input    dX' (in,rows) = W' (in,out) dY' (out,rows)           k = out
 * `in` is rounded up to a multiple of 8: the columns after it are zero in X, W and so in dX and dW,
 * and tensor cores read whole 16-byte pieces.
 */
#include "backend/cuda/cuda.h"

#include <string.h>

static uint64_t whole(size_t n)
{
    return (n + 7) / 8 * 8;
}

/* Largest power of two, up to 256, that divides an address. */
static uint32_t alignment(const void *p)
{
    uintptr_t bits = (uintptr_t)p | 256u;
    return (uint32_t)(bits & (~bits + 1));
}

static cudaDataType_t act_type(const cuda_backend *be)
{
    return be->elem == VAE_ELEM_BF16 ? CUDA_R_16BF : CUDA_R_32F;
}

static matmul_key key_of(const cuda_backend *be, const matmul_args *args, cudaDataType_t type_d)
{
    matmul_key key;
    memset(&key, 0, sizeof key);
    key.type_ab = act_type(be);
    key.type_d = type_d;
    key.align_a = alignment(args->a);
    key.align_b = alignment(args->b);
    key.align_d = alignment(args->d);
    key.epilogue = CUBLASLT_EPILOGUE_DEFAULT;
    return key;
}

/* ---- ReLU's mask: a bit per output, rows 128 bits apart or a multiple ---- */

static uint64_t mask_ld(size_t cols)
{
    return (cols + 127) / 128 * 128;
}

size_t vae_cuda_aux_bytes(const vae_backend *base, vae_activation act, size_t rows, size_t cols)
{
    const cuda_backend *be = (const cuda_backend *)base;
    if (act == VAE_ACT_RELU) {
        return rows * mask_ld(cols) / 8;
    }
    return vae_act_keeps_input(act) ? rows * vae_pad(cols) * be->elem_bytes : 0;
}

static void remember_aux(cuda_backend *be, const void *aux, bool has_mask)
{
    const size_t room = sizeof be->aux / sizeof *be->aux;
    size_t i = 0;
    while (i < be->n_aux && be->aux[i].aux != aux) {
        i++;
    }
    if (i == room) { /* buffers of models long gone */
        memmove(be->aux, be->aux + 1, (room - 1) * sizeof *be->aux);
        i = room - 1;
    } else if (i == be->n_aux) {
        be->n_aux++;
    }
    be->aux[i] = (cuda_aux){aux, has_mask};
}

static bool has_mask(const cuda_backend *be, const void *aux)
{
    for (size_t i = 0; aux != NULL && i < be->n_aux; i++) {
        if (be->aux[i].aux == aux) {
            return be->aux[i].has_mask;
        }
    }
    return false;
}

/* ---- the operations ---- */

/* What an epilogue has done to y. */
typedef enum { DONE_NOTHING, DONE_BIAS, DONE_ALL } fused_part;

/* Tries the epilogues that serve `act`, best first: none may be there for this type. ReLU has some
 * of its own; any other activation works by the bias's and a kernel of ours. */
static fused_part forward_fused(cuda_backend *be, matmul_key *key, matmul_args *args, void *aux,
                                size_t out, vae_activation act)
{
    if (act == VAE_ACT_RELU) {
        if (aux != NULL) {
            args->aux = aux;
            args->ld_aux = mask_ld(out);
            key->epilogue = CUBLASLT_EPILOGUE_RELU_AUX_BIAS;
            bool masked = vae_cuda_matmul(be, 0, key, args);
            remember_aux(be, aux, masked);
            if (masked) {
                return DONE_ALL;
            }
            args->aux = NULL;
        }
        key->epilogue = CUBLASLT_EPILOGUE_RELU_BIAS;
        if (vae_cuda_matmul(be, 0, key, args)) {
            return DONE_ALL;
        }
    }
    /* the bias is added before the sum is rounded to the type of y */
    key->epilogue = CUBLASLT_EPILOGUE_BIAS;
    if (vae_cuda_matmul(be, 0, key, args)) {
        return act == VAE_ACT_NONE ? DONE_ALL : DONE_BIAS;
    }
    return DONE_NOTHING;
}

static void no_algorithm(cuda_backend *be, const matmul_key *key)
{
    vae_fail(&be->err, VAE_ERR_RUNTIME,
             "cuBLASLt has no algorithm for a matrix product of %llu x %llu x %llu on %s",
             (unsigned long long)key->m, (unsigned long long)key->n, (unsigned long long)key->k,
             be->name);
}

void vae_cuda_linear_forward(vae_backend *base, vae_mat y, void *aux, vae_mat x, const float *w,
                             size_t ldw, const float *b, size_t rows, size_t in, size_t out,
                             vae_activation act)
{
    cuda_backend *be = vae_cuda_self(base);
    if (!vae_cuda_fine(be)) {
        return;
    }
    vae_cuda_join(be, NULL);
    matmul_args args = {.a = vae_cuda_weights(be, w), .b = x.data, .d = y.data};
    args.bias = vae_cuda_weights(be, b);
    matmul_key key = key_of(be, &args, act_type(be));
    key.op_a = CUBLAS_OP_T;
    key.op_b = CUBLAS_OP_N;
    key.m = out;
    key.n = rows;
    key.k = whole(in);
    key.lda = ldw;
    key.ldb = x.ld;
    key.ldd = y.ld;
    if (!vae_cuda_fine(be)) {
        return;
    }
    fused_part done = forward_fused(be, &key, &args, aux, out, act);
    if (done == DONE_NOTHING) {
        args.bias = NULL;
        key.epilogue = CUBLASLT_EPILOGUE_DEFAULT;
        if (!vae_cuda_matmul(be, 0, &key, &args)) {
            no_algorithm(be, &key);
        }
    }
    if (done != DONE_ALL && vae_cuda_fine(be) && be->mode != MODE_PLANNING) {
        vae_mat pre = {vae_act_keeps_input(act) ? aux : NULL, vae_pad(out)};
        CUDA_OK(be, vae_bias_act_launch(be->elem, y, pre, done == DONE_BIAS ? NULL : b, rows, out,
                                        act, be->lane[0].stream));
    }
}

void vae_cuda_linear_backward_weight(vae_backend *base, float *dw, size_t ldw, float *db,
                                     vae_mat dy, vae_mat x, size_t rows, size_t in, size_t out)
{
    cuda_backend *be = vae_cuda_self(base);
    if (!vae_cuda_fine(be)) {
        return;
    }
    const int lane = vae_cuda_fork(be, dy.data, x.data);
    matmul_args args = {.a = x.data, .b = dy.data, .d = dw, .bias = db};
    matmul_key key = key_of(be, &args, CUDA_R_32F);
    key.op_a = CUBLAS_OP_N;
    key.op_b = CUBLAS_OP_T;
    key.m = whole(in);
    key.n = out;
    key.k = rows;
    key.lda = x.ld;
    key.ldb = dy.ld;
    key.ldd = ldw;
    key.epilogue = CUBLASLT_EPILOGUE_BGRADB;
    if (vae_cuda_matmul(be, lane, &key, &args)) {
        return;
    }
    args.bias = NULL;
    key.epilogue = CUBLASLT_EPILOGUE_DEFAULT;
    void *partial = vae_cuda_scratch(be, lane, vae_column_sums_scratch(rows, out));
    if (be->mode != MODE_DIRECT) { /* planned on one lane, captured on the other */
        vae_cuda_scratch(be, 1, vae_column_sums_scratch(rows, out));
    }
    if (!vae_cuda_matmul(be, lane, &key, &args)) {
        no_algorithm(be, &key);
    } else if (vae_cuda_fine(be) && be->mode != MODE_PLANNING) {
        CUDA_OK(be, vae_column_sums_launch(be->elem, db, dy, partial, rows, out,
                                           be->lane[lane].stream));
    }
}

void vae_cuda_linear_backward_input(vae_backend *base, vae_mat dx, vae_mat dy, const float *w,
                                    size_t ldw, vae_mat x, const void *aux, size_t rows, size_t in,
                                    size_t out, vae_activation act)
{
    cuda_backend *be = vae_cuda_self(base);
    if (!vae_cuda_fine(be)) {
        return;
    }
    vae_cuda_join(be, dx.data);
    matmul_args args = {.a = vae_cuda_weights(be, w), .b = dy.data, .d = dx.data};
    matmul_key key = key_of(be, &args, act_type(be));
    key.op_a = CUBLAS_OP_N;
    key.op_b = CUBLAS_OP_N;
    key.m = whole(in);
    key.n = rows;
    key.k = out;
    key.lda = ldw;
    key.ldb = dy.ld;
    key.ldd = dx.ld;
    if (vae_cuda_fine(be) && act == VAE_ACT_RELU && has_mask(be, aux)) {
        key.epilogue = CUBLASLT_EPILOGUE_DRELU;
        args.aux = (void *)(uintptr_t)aux;
        args.ld_aux = mask_ld(in);
        if (vae_cuda_matmul(be, 0, &key, &args)) {
            return;
        }
        args.aux = NULL;
        key.epilogue = CUBLASLT_EPILOGUE_DEFAULT;
    }
    if (!vae_cuda_matmul(be, 0, &key, &args)) {
        no_algorithm(be, &key);
    } else if (vae_cuda_fine(be) && be->mode != MODE_PLANNING) {
        const vae_mat pre = {(void *)(uintptr_t)aux, vae_pad(in)};
        const vae_mat from = vae_act_keeps_input(act) ? pre : x;
        CUDA_OK(be, vae_act_grad_launch(be->elem, dx, from, rows, in, act, be->lane[0].stream));
    }
}
