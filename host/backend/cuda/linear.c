/* Linear layers: matrix products, with bias and ReLU forward in cuBLASLt's epilogues where it has
 * them for the type, in kernels of our own where not. Gradients of activations and biases are one
 * pass of ours: with cuBLASLt's DRELU an input gradient of 65,536 rows in bf16 took 1.8 to 2.3
 * times as long on an H200, BGRADB and RELU_AUX_BIAS cost more than what they save
 * (bench/README.md), and its ReLU has another derivative at 0.
 *
 * cuBLAS reads row-major (r,c) as column-major (c,r): with W (out,in), X (rows,in), Y (rows,out)
 *   forward  Y' (out,rows) = op_t(W' (in,out)) X' (in,rows)       k = in
 *   weight   dW' (in,out)  = X' (in,rows) op_t(dY' (out,rows))    k = rows
 *   input    dX' (in,rows) = W' (in,out) dY' (out,rows)           k = out
 * `in` is rounded up to a multiple of 8: the columns after it are zero in X, W and so in dX and dW,
 * and tensor cores read whole 16-byte pieces. */
#include "backend/cuda/cuda.h"

#include <stdlib.h>
#include <string.h>

/* ---- Hopper's products ----
 *
 * A fixed rule, by rows and sizes: a choice that followed timing would lose equal bits across
 * runs. Their column sums cost nothing beside the weight's gradient. */
enum { HOPPER_ROWS = 8192 };

vae_status vae_cuda_choose_hopper(cuda_backend *be, vae_error *err)
{
    const char *wish = getenv("VAE_CUDA_HOPPER");
    const bool can =
        be->elem == VAE_ELEM_BF16 && be->major == 9 && be->minor == 0 && vae_hopper_built();
    be->hopper_rows = can ? HOPPER_ROWS : 0;
    if (wish != NULL && *wish != '\0' && can) {
        char *end;
        be->hopper_rows = strtoul(wish, &end, 10);
        if (*end != '\0') {
            return vae_fail(err, VAE_ERR_USAGE,
                            "VAE_CUDA_HOPPER=%s: expected the number of rows from which products "
                            "are made for Hopper, 0 for never",
                            wish);
        }
    }
    return VAE_OK;
}

static bool on_hopper(const cuda_backend *be, size_t rows)
{
    return be->hopper_rows > 0 && rows >= be->hopper_rows;
}

bool vae_cuda_bias_with_weight(const vae_backend *base, size_t rows)
{
    return on_hopper((const cuda_backend *)base, rows);
}

/* Largest power of two, up to 256, that divides an address. */
static uint32_t alignment(const void *p)
{
    uintptr_t bits = (uintptr_t)p | 256u;
    return (uint32_t)(bits & (~bits + 1));
}

matmul_key vae_cuda_matmul_key(const cuda_backend *be, const matmul_args *args,
                               cudaDataType_t type_d)
{
    matmul_key key;
    memset(&key, 0, sizeof key);
    key.type_ab = vae_cuda_act_type(be);
    key.type_d = type_d;
    key.align_a = alignment(args->a);
    key.align_b = alignment(args->b);
    key.align_d = alignment(args->d);
    key.epilogue = CUBLASLT_EPILOGUE_DEFAULT;
    return key;
}

size_t vae_cuda_aux_bytes(const vae_backend *base, vae_activation act, size_t rows, size_t cols)
{
    const cuda_backend *be = (const cuda_backend *)base;
    return vae_act_keeps_input(act) ? rows * vae_pad(cols) * be->elem_bytes : 0;
}

/* ---- the operations ---- */

/* What an epilogue has done to y. */
typedef enum { DONE_NOTHING, DONE_BIAS, DONE_ALL } fused_part;

/* Tries the epilogues that serve `act`, best first: none may be there for this type. ReLU has one
 * of its own; any other activation works by the bias's and a kernel of ours. */
static fused_part forward_fused(cuda_backend *be, matmul_key *key, matmul_args *args,
                                vae_activation act)
{
    if (act == VAE_ACT_RELU) {
        key->epilogue = CUBLASLT_EPILOGUE_RELU_BIAS;
        if (vae_cuda_matmul(be, LANE_MAIN, key, args)) {
            return DONE_ALL;
        }
    }
    /* the bias is added before the sum is rounded to the type of y */
    key->epilogue = CUBLASLT_EPILOGUE_BIAS;
    if (vae_cuda_matmul(be, LANE_MAIN, key, args)) {
        return act == VAE_ACT_NONE ? DONE_ALL : DONE_BIAS;
    }
    return DONE_NOTHING;
}

void vae_cuda_linear_forward(vae_backend *base, vae_mat y, void *aux, vae_mat x, const float *w,
                             size_t ldw, const float *b, size_t rows, size_t in, size_t out,
                             vae_activation act)
{
    cuda_backend *be = vae_cuda_self(base);
    if (!vae_cuda_fine(be)) {
        return;
    }
    /* of few rows come fewer tiles than there are multiprocessors, unless x is narrow */
    const size_t forward_rows = in <= 64 ? rows : rows / 2;
    if (on_hopper(be, forward_rows) && vae_hopper_forward_fits(in, out, act)) {
        if (vae_cuda_begin(be, NULL)) {
            CUDA_OK(be, vae_hopper_forward_launch(y, x, vae_cuda_weights(be, w), ldw, b, rows, in,
                                                  out, act, be->lane[LANE_MAIN].stream));
        }
        return;
    }
    vae_cuda_join(be, NULL);
    matmul_args args = {.a = vae_cuda_weights(be, w), .b = x.data, .d = y.data};
    args.bias = vae_cuda_weights(be, b);
    matmul_key key = vae_cuda_matmul_key(be, &args, vae_cuda_act_type(be));
    key.op_a = CUBLAS_OP_T;
    key.op_b = CUBLAS_OP_N;
    key.m = out;
    key.n = rows;
    key.k = vae_cuda_whole(in);
    key.lda = ldw;
    key.ldb = x.ld;
    key.ldd = y.ld;
    if (!vae_cuda_fine(be)) {
        return;
    }
    fused_part done = forward_fused(be, &key, &args, act);
    if (done == DONE_NOTHING) {
        args.bias = NULL;
        key.epilogue = CUBLASLT_EPILOGUE_DEFAULT;
        vae_cuda_multiply(be, LANE_MAIN, &key, &args);
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
    const bool own = on_hopper(be, rows) && vae_hopper_weight_fits(in, out);
    const bool apart = db != NULL && !own; /* column sums are a node of their own */
    const int sums = apart ? vae_cuda_fork_totals(be, dy.data, dy.data) : LANE_MAIN;
    const int lane = vae_cuda_fork(be, dy.data, x.data);
    if (own) {
        if (vae_cuda_fine(be) && be->mode != MODE_PLANNING) {
            CUDA_OK(be, vae_hopper_weight_launch(dw, ldw, db, dy, x, be->lane[lane].workspace, rows,
                                                 in, out, be->lane[lane].stream));
        }
        return;
    }
    matmul_args args = {.a = x.data, .b = dy.data, .d = dw};
    matmul_key key = vae_cuda_matmul_key(be, &args, CUDA_R_32F);
    key.op_a = CUBLAS_OP_N;
    key.op_b = CUBLAS_OP_T;
    key.m = vae_cuda_whole(in);
    key.n = out;
    key.k = rows;
    key.lda = x.ld;
    key.ldb = dy.ld;
    key.ldd = ldw;
    if (vae_cuda_multiply(be, lane, &key, &args) && apart) {
        CUDA_OK(be, vae_column_sums_launch(be->elem, db, dy, vae_cuda_sums(be, sums), rows, out,
                                           be->lane[sums].stream));
    }
}

void vae_cuda_linear_backward_input(vae_backend *base, vae_mat dx, float *db, vae_mat dy,
                                    const float *w, size_t ldw, vae_mat x, const void *aux,
                                    size_t rows, size_t in, size_t out, vae_activation act)
{
    cuda_backend *be = vae_cuda_self(base);
    if (!vae_cuda_fine(be)) {
        return;
    }
    if (on_hopper(be, rows) && vae_hopper_input_fits(in, out, act)) {
        if (vae_cuda_begin(be, dx.data)) {
            CUDA_OK(be, vae_hopper_input_launch(dx, dy, vae_cuda_weights(be, w), ldw, x, rows, in,
                                                out, be->lane[LANE_MAIN].stream));
            if (db != NULL) {
                CUDA_OK(be, vae_column_sums_launch(be->elem, db, dx, vae_cuda_sums(be, LANE_MAIN),
                                                   rows, in, be->lane[LANE_MAIN].stream));
            }
        }
        return;
    }
    vae_cuda_join(be, dx.data);
    matmul_args args = {.a = vae_cuda_weights(be, w), .b = dy.data, .d = dx.data};
    matmul_key key = vae_cuda_matmul_key(be, &args, vae_cuda_act_type(be));
    key.op_a = CUBLAS_OP_N;
    key.op_b = CUBLAS_OP_N;
    key.m = vae_cuda_whole(in);
    key.n = rows;
    key.k = out;
    key.lda = ldw;
    key.ldb = dy.ld;
    key.ldd = dx.ld;
    if (vae_cuda_multiply(be, LANE_MAIN, &key, &args)) {
        /* as what it led to, whose rows may be longer than `in`: a class beside it */
        const vae_mat pre = {(void *)(uintptr_t)aux, x.ld};
        CUDA_OK(be, vae_act_grad_launch(be->elem, db, dx, vae_act_keeps_input(act) ? pre : x,
                                        vae_cuda_sums(be, LANE_MAIN), rows, in, act,
                                        be->lane[LANE_MAIN].stream));
    }
}

void vae_cuda_linear_recon_loss(vae_backend *base, float *recon_row, vae_mat logits, float *db,
                                vae_mat h, const float *w, size_t ldw, const float *b, vae_mat x,
                                size_t B, size_t K, size_t in, size_t D, vae_recon recon,
                                float scale)
{
    cuda_backend *be = vae_cuda_self(base);
    const size_t rows = B * K, out = vae_likelihood_of(recon.likelihood)->outputs * D;
    cuda_lane *lane = &be->lane[LANE_MAIN];
    if (!on_hopper(be, rows) || !vae_hopper_loss_fits(rows, in, D, recon)) {
        vae_cuda_linear_forward(base, logits, NULL, h, w, ldw, b, rows, in, out, VAE_ACT_NONE);
        vae_cuda_recon_loss(base, recon_row, logits, db, logits, x, B, K, D, recon, scale);
    } else if (vae_cuda_begin(be, NULL)) {
        CUDA_OK(be, vae_hopper_loss_launch(recon_row, logits, h, vae_cuda_weights(be, w), ldw, b, x,
                                           lane->workspace, B, K, in, D, scale, lane->stream));
        if (db != NULL) {
            CUDA_OK(be, vae_column_sums_launch(be->elem, db, logits, vae_cuda_sums(be, LANE_MAIN),
                                               rows, D, lane->stream));
        }
    }
}
