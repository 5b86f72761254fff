/* Linear layers: matrix products, with bias and activation in cuBLASLt's epilogues where it has them
 * for the type, in kernels of our own where not; gradients of activation and bias in what the rule
 * below says.
 *
 * cuBLAS reads row-major (r,c) as column-major (c,r): with W (out,in), X (rows,in), Y (rows,out)
 *   forward  Y' (out,rows) = op_t(W' (in,out)) X' (in,rows)       k = in
 *   weight   dW' (in,out)  = X' (in,rows) op_t(dY' (out,rows))    k = rows
 *   input    dX' (in,rows) = W' (in,out) dY' (out,rows)           k = out
 * `in` is rounded up to a multiple of 8: the columns after it are zero in X, W and so in dX and dW,
 * and tensor cores read whole 16-byte pieces.
 */
#include "backend/cuda/cuda.h"

#include <stdlib.h>
#include <string.h>

/* ---- which epilogues ----
 *
 * Fixed by precision and compute capability: a choice that followed timing would lose equal bits
 * across runs. To be changed after measuring, here only. */
static unsigned usual_epilogues(vae_precision precision, int major)
{
    switch (precision) {
    case VAE_BF16: /* masks are part of the product; bias gradients a slow kernel after it */
        return major >= 8 ? EPILOGUE_MASK : 0;
    case VAE_TF32:
    case VAE_FP32: /* both are kernels after the product */
    default:
        return 0;
    }
}

static const struct {
    const char *name;
    unsigned epilogues;
} epilogue_choices[] = {
    {"none", 0},
    {"mask", EPILOGUE_MASK},
    {"bgrad", EPILOGUE_BGRAD},
    {"mask,bgrad", EPILOGUE_MASK | EPILOGUE_BGRAD},
    {"0", 0},
    {"1", EPILOGUE_MASK | EPILOGUE_BGRAD},
};

vae_status vae_cuda_choose_epilogues(cuda_backend *be, vae_error *err)
{
    const char *wish = getenv("VAE_CUDA_EPILOGUES");
    be->epilogues = usual_epilogues(be->precision, be->major);
    if (wish == NULL || *wish == '\0') {
        return VAE_OK;
    }
    for (size_t i = 0; i < sizeof epilogue_choices / sizeof *epilogue_choices; i++) {
        if (strcmp(wish, epilogue_choices[i].name) == 0) {
            be->epilogues = epilogue_choices[i].epilogues;
            return VAE_OK;
        }
    }
    return vae_fail(err, VAE_ERR_USAGE,
                    "VAE_CUDA_EPILOGUES=%s: expected none, mask, bgrad or mask,bgrad (0 and 1 are "
                    "none and all); unset it for the usual ones",
                    wish);
}

const char *vae_cuda_epilogue_names(unsigned epilogues)
{
    return epilogue_choices[epilogues].name;
}

bool vae_cuda_bias_with_weight(const vae_backend *base)
{
    return (((const cuda_backend *)base)->epilogues & EPILOGUE_BGRAD) != 0;
}

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

void vae_cuda_aux_holds(cuda_backend *be, const void *aux, const void *bias)
{
    const size_t room = sizeof be->aux / sizeof *be->aux;
    size_t i = 0;
    while (i < be->n_aux && be->aux[i].aux != aux) {
        i++;
    }
    if (i < be->n_aux) { /* what it held is gone */
        memmove(be->aux + i, be->aux + i + 1, (be->n_aux - i - 1) * sizeof *be->aux);
        be->n_aux--;
    }
    if (bias == NULL || aux == NULL) {
        return;
    }
    if (be->n_aux == room) {
        memmove(be->aux, be->aux + 1, (room - 1) * sizeof *be->aux);
        be->n_aux--;
    }
    be->aux[be->n_aux++] = (cuda_aux){aux, bias};
}

/* The bias of the layer whose mask aux holds; NULL if it holds none. */
static const void *mask_bias(const cuda_backend *be, const void *aux)
{
    for (size_t i = 0; aux != NULL && i < be->n_aux; i++) {
        if (be->aux[i].aux == aux) {
            return be->aux[i].bias;
        }
    }
    return NULL;
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
        if (aux != NULL && (be->epilogues & EPILOGUE_MASK) != 0) {
            args->aux = aux;
            args->ld_aux = mask_ld(out);
            key->epilogue = CUBLASLT_EPILOGUE_RELU_AUX_BIAS;
            if (vae_cuda_matmul(be, 0, key, args)) {
                vae_cuda_aux_holds(be, aux, args->bias);
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
    vae_cuda_aux_holds(be, aux, NULL);
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

/* A gradient by kernels of ours, whole or what an epilogue leaves of it. */
typedef struct {
    float *db;
    vae_mat dy, from;
    const void *bias;
    size_t rows, cols;
    vae_activation act;
    int lane;
} own_gradient;

static void sum_bias(cuda_backend *be, void *ctx, bool fused)
{
    const own_gradient *g = ctx;
    if (!fused && g->db != NULL) {
        CUDA_OK(be, vae_column_sums_launch(be->elem, g->db, g->dy, vae_cuda_sums(be, g->lane),
                                           g->rows, g->cols, be->lane[g->lane].stream));
    }
}

static void derive_and_sum(cuda_backend *be, void *ctx, bool fused)
{
    const own_gradient *g = ctx;
    const vae_sums scratch = vae_cuda_sums(be, g->lane);
    cudaStream_t stream = be->lane[g->lane].stream;
    if (fused) {
        CUDA_OK(be, vae_mask_sums_launch(be->elem, g->db, g->dy, g->from, g->bias, scratch, g->rows,
                                         g->cols, stream));
    } else {
        CUDA_OK(be, vae_act_grad_launch(be->elem, g->db, g->dy, g->from, scratch, g->rows, g->cols,
                                        g->act, stream));
    }
}

/* The product, with `epilogue` (args has what it needs) where that is not DEFAULT, is there and not
 * slower, then what it leaves to do. */
static void multiply_and_rest(cuda_backend *be, matmul_key *key, matmul_args *args,
                              cublasLtEpilogue_t epilogue, cuda_rest_fn *rest, own_gradient *own)
{
    bool fused = epilogue != CUBLASLT_EPILOGUE_DEFAULT;
    if (fused) {
        key->epilogue = epilogue;
        vae_cuda_matmul_contest(be, key, args, rest, own);
        fused = vae_cuda_matmul(be, own->lane, key, args);
    }
    if (!fused) {
        args->bias = NULL;
        args->aux = NULL;
        key->epilogue = CUBLASLT_EPILOGUE_DEFAULT;
        if (!vae_cuda_matmul(be, own->lane, key, args)) {
            no_algorithm(be, key);
        }
    }
    if (vae_cuda_fine(be) && be->mode != MODE_PLANNING) {
        rest(be, own, fused);
    }
}

void vae_cuda_linear_backward_weight(vae_backend *base, float *dw, size_t ldw, float *db,
                                     vae_mat dy, vae_mat x, size_t rows, size_t in, size_t out)
{
    cuda_backend *be = vae_cuda_self(base);
    if (!vae_cuda_fine(be)) {
        return;
    }
    const bool bgrad = db != NULL && (be->epilogues & EPILOGUE_BGRAD) != 0;
    own_gradient own = {.db = db, .dy = dy, .rows = rows, .cols = out};
    own.lane = vae_cuda_fork(be, dy.data, x.data);
    matmul_args args = {.a = x.data, .b = dy.data, .d = dw, .bias = bgrad ? db : NULL};
    matmul_key key = key_of(be, &args, CUDA_R_32F);
    key.op_a = CUBLAS_OP_N;
    key.op_b = CUBLAS_OP_T;
    key.m = whole(in);
    key.n = out;
    key.k = rows;
    key.lda = x.ld;
    key.ldb = dy.ld;
    key.ldd = ldw;
    multiply_and_rest(be, &key, &args, bgrad ? CUBLASLT_EPILOGUE_BGRADB : CUBLASLT_EPILOGUE_DEFAULT,
                      sum_bias, &own);
}

void vae_cuda_linear_backward_input(vae_backend *base, vae_mat dx, float *db, vae_mat dy,
                                    const float *w, size_t ldw, vae_mat x, const void *aux,
                                    size_t rows, size_t in, size_t out, vae_activation act)
{
    cuda_backend *be = vae_cuda_self(base);
    if (!vae_cuda_fine(be)) {
        return;
    }
    vae_cuda_join(be, dx.data);
    const vae_mat pre = {(void *)(uintptr_t)aux, vae_pad(in)};
    own_gradient own = {.db = db, .dy = dx, .rows = rows, .cols = in, .act = act};
    own.from = vae_act_keeps_input(act) ? pre : x;
    own.bias = act == VAE_ACT_RELU ? mask_bias(be, aux) : NULL;
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
    if (own.bias != NULL) {
        args.aux = (void *)(uintptr_t)aux;
        args.ld_aux = mask_ld(in);
    }
    multiply_and_rest(be, &key, &args,
                      own.bias != NULL ? CUBLASLT_EPILOGUE_DRELU : CUBLASLT_EPILOGUE_DEFAULT,
                      derive_and_sum, &own);
}
