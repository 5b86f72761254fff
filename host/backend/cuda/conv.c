/* Convolutions on a GPU, as matrix products of patches of a few pictures at a time, which stay in
 * L2.
 *
 * With the big side's patches P (pixels of the small side, patch), the small side's values S
 * (pixels, c) and W (c,patch), all row-major:
 *   small from big   S = P W^T        bias and activation in the epilogue or after it
 *   big from small   T = S W (float), then of each value of the big side the sum of what reaches it
 *   weight           dW = S^T P, one turn's after another's
 * S lies in a row as the product wants it where c is a multiple of VAE_PAD; else it is copied. */
#include "backend/cuda/cuda.h"

#include <stdlib.h>

/* A turn's pictures and where its matrices lie in the scratch memory. */
typedef struct {
    size_t images, patches, small, sums, bytes;
} room;

static size_t larger(size_t a, size_t b)
{
    return a > b ? a : b;
}

static size_t aligned(size_t bytes)
{
    return (bytes + 255) / 256 * 256;
}

static room room_of(const cuda_backend *be, vae_conv g, size_t rows)
{
    const size_t pixels = g.h * g.w, elem = be->elem_bytes;
    const size_t channels = g.transposed ? g.parts * g.C : g.c;
    /* patches, or products of their size in float; or, for sums of biases, the big side's channels
     * padded */
    const size_t one = larger(pixels * vae_pad(vae_conv_patch(g)) * sizeof(float),
                              g.H * g.W * vae_pad(g.C) * elem);
    room r = {.images = be->patch_bytes / one};
    r.images = r.images < 1 ? 1 : r.images;
    r.images = r.images > rows ? rows : r.images;
    r.patches = 0;
    r.small = aligned(r.images * one);
    r.sums = r.small + aligned(r.images * pixels * vae_pad(g.c) * elem);
    r.bytes = r.sums +
              aligned(larger(g.c * vae_pad(vae_conv_patch(g)), vae_pad(channels)) * sizeof(float));
    return r;
}

size_t vae_cuda_conv_bytes(const vae_backend *base, vae_conv g, size_t rows)
{
    return rows > 0 ? room_of((const cuda_backend *)base, g, rows).bytes : 0;
}

/* A call's turn: pictures first .. first+n-1. */
typedef struct {
    cuda_backend *be;
    vae_conv g;
    room at;
    char *scratch;
    size_t first, n;
} turn;

static cudaStream_t stream_of(const turn *t)
{
    return t->be->lane[0].stream;
}

/* Is there something to launch? */
static bool launches(const turn *t)
{
    return vae_cuda_fine(t->be) && t->be->mode != MODE_PLANNING;
}

static bool next_turn(turn *t, size_t rows)
{
    t->first += t->n;
    t->n = rows - t->first < t->at.images ? rows - t->first : t->at.images;
    return t->n > 0 && vae_cuda_fine(t->be);
}

static turn first_turn(vae_backend *base, vae_conv g, size_t rows, void *scratch)
{
    cuda_backend *be = vae_cuda_self(base);
    return (turn){.be = be, .g = g, .at = room_of(be, g, rows), .scratch = scratch};
}

static vae_mat rows_of(const turn *t, vae_mat m)
{
    return (vae_mat){(char *)m.data + t->first * m.ld * t->be->elem_bytes, m.ld};
}

static vae_mat patches_at(const turn *t)
{
    return (vae_mat){t->scratch + t->at.patches, vae_pad(vae_conv_patch(t->g))};
}

static vae_mat put_patches(const turn *t, vae_mat big)
{
    const vae_mat p = patches_at(t);
    if (launches(t)) {
        CUDA_OK(t->be,
                vae_conv_patches_launch(t->be->elem, p, rows_of(t, big), t->g, t->n, stream_of(t)));
    }
    return p;
}

/* Are its rows of pixels what a product takes as they are? */
static bool is_matrix(size_t pixels, size_t channels, size_t ld)
{
    return channels % VAE_PAD == 0 && ld == pixels * channels;
}

/* Channels of n pictures side by side, padded: (pixels, channels); itself where it lies so. */
static vae_mat put_channels(const turn *t, vae_mat m, size_t h, size_t w, size_t c, char *to)
{
    const vae_mat packed = {to, vae_pad(c)}, from = rows_of(t, m);
    const vae_conv each = {h, w, c, h, w, c, 1, 1, 0, 1, 0};
    if (is_matrix(h * w, c, m.ld)) {
        return (vae_mat){from.data, c};
    }
    if (launches(t)) {
        CUDA_OK(t->be,
                vae_conv_patches_launch(t->be->elem, packed, from, each, t->n, stream_of(t)));
    }
    return packed;
}

static vae_mat put_small(const turn *t, vae_mat small)
{
    return put_channels(t, small, t->g.h, t->g.w, t->g.c, t->scratch + t->at.small);
}

/* ---- the three products, in cuBLAS's view: rows are columns there ---- */

/* s = P W^T; with bias (of the type of activations, or NULL) and ReLU where there is an epilogue
 * for that. True if the bias has been added; *act is what is left to do. */
static bool multiply_down(const turn *t, vae_mat s, vae_mat p, const float *w, size_t ldw,
                          const float *b, vae_activation *act)
{
    matmul_args args = {.a = vae_cuda_weights(t->be, w), .b = p.data, .d = s.data};
    matmul_key key = vae_cuda_matmul_key(t->be, &args, vae_cuda_act_type(t->be));
    key.op_a = CUBLAS_OP_T;
    key.op_b = CUBLAS_OP_N;
    key.m = t->g.c;
    key.n = t->n * t->g.h * t->g.w;
    key.k = vae_cuda_whole(vae_conv_patch(t->g)); /* zeros behind the patch, in both */
    key.lda = ldw;
    key.ldb = p.ld;
    key.ldd = s.ld;
    if (b != NULL) {
        args.bias = vae_cuda_weights(t->be, b);
        key.epilogue = *act == VAE_ACT_RELU ? CUBLASLT_EPILOGUE_RELU_BIAS : CUBLASLT_EPILOGUE_BIAS;
        if (vae_cuda_matmul(t->be, 0, &key, &args)) {
            *act = *act == VAE_ACT_RELU ? VAE_ACT_NONE : *act;
            return true;
        }
        args.bias = NULL;
        key.epilogue = CUBLASLT_EPILOGUE_DEFAULT;
    }
    vae_cuda_multiply(t->be, LANE_MAIN, &key, &args);
    return false;
}

static void small_from_big(turn t, vae_mat small, vae_mat big, const float *w, size_t ldw,
                           size_t rows, vae_conv_finish f)
{
    const vae_conv g = t.g;
    const size_t pixels = g.h * g.w, elem = t.be->elem_bytes;
    const bool direct = is_matrix(pixels, g.c, small.ld);
    const vae_activation asked = (vae_activation)f.act;
    while (next_turn(&t, rows)) {
        const size_t skip = t.first * small.ld * elem;
        vae_conv_finish here = f;
        here.pre = f.pre != NULL ? (char *)f.pre + skip : NULL;
        here.from = f.from != NULL ? (const char *)f.from + skip : NULL;
        const vae_mat p = put_patches(&t, big);
        vae_activation act = asked;
        if (!direct) {
            const vae_mat s = {t.scratch + t.at.small, vae_pad(g.c)};
            multiply_down(&t, s, p, w, ldw, NULL, &act);
            if (launches(&t)) {
                CUDA_OK(t.be, vae_conv_small_launch(t.be->elem, rows_of(&t, small), s, here, g, t.n,
                                                    stream_of(&t)));
            }
            continue;
        }
        const vae_mat s = {rows_of(&t, small).data, g.c};
        const bool biased = multiply_down(&t, s, p, w, ldw, f.b, &act);
        if (!launches(&t)) {
            continue;
        }
        if (f.from != NULL) {
            const vae_mat from = {(void *)(uintptr_t)here.from, g.c};
            CUDA_OK(t.be, vae_act_grad_launch(t.be->elem, NULL, s, from, vae_cuda_sums(t.be, 0),
                                              t.n * pixels, g.c, act, stream_of(&t)));
        } else if (f.b != NULL && (!biased || act != VAE_ACT_NONE)) {
            const vae_mat pre = {here.pre, g.c};
            CUDA_OK(t.be, vae_bias_act_launch(t.be->elem, s, pre, biased ? NULL : f.b, t.n * pixels,
                                              g.c, act, stream_of(&t)));
        }
    }
}

static void big_from_small(turn t, vae_mat big, vae_mat small, const float *w, size_t ldw,
                           size_t rows, vae_conv_finish f)
{
    const vae_conv g = t.g;
    while (next_turn(&t, rows)) {
        const size_t skip = t.first * big.ld * t.be->elem_bytes;
        vae_conv_finish here = f;
        here.pre = f.pre != NULL ? (char *)f.pre + skip : NULL;
        here.from = f.from != NULL ? (const char *)f.from + skip : NULL;
        const vae_mat s = put_small(&t, small), p = patches_at(&t);
        matmul_args args = {.a = vae_cuda_weights(t.be, w), .b = s.data, .d = p.data};
        matmul_key key = vae_cuda_matmul_key(t.be, &args, CUDA_R_32F);
        key.op_a = CUBLAS_OP_N;
        key.op_b = CUBLAS_OP_N;
        key.m = vae_cuda_whole(vae_conv_patch(g));
        key.n = t.n * g.h * g.w;
        key.k = g.c;
        key.lda = ldw;
        key.ldb = s.ld;
        key.ldd = p.ld;
        vae_cuda_multiply(t.be, LANE_MAIN, &key, &args);
        if (launches(&t)) {
            CUDA_OK(t.be, vae_conv_big_launch(t.be->elem, rows_of(&t, big), p, here, g, t.n,
                                              stream_of(&t)));
        }
    }
}

void vae_cuda_conv_forward(vae_backend *base, vae_mat y, void *aux, vae_mat x, const float *w,
                           size_t ldw, const float *b, size_t rows, vae_conv g, vae_activation act,
                           void *scratch)
{
    cuda_backend *be = vae_cuda_self(base);
    const vae_conv_finish f = {.b = b, .pre = vae_act_keeps_input(act) ? aux : NULL, .act = act};
    if (!vae_cuda_fine(be)) {
        return;
    }
    vae_cuda_join(be, NULL);
    if (g.transposed) {
        big_from_small(first_turn(base, g, rows, scratch), y, x, w, ldw, rows, f);
    } else {
        small_from_big(first_turn(base, g, rows, scratch), y, x, w, ldw, rows, f);
    }
}

void vae_cuda_conv_backward_input(vae_backend *base, vae_mat dx, vae_mat dy, const float *w,
                                  size_t ldw, vae_mat x, const void *aux, size_t rows, vae_conv g,
                                  vae_activation act, void *scratch)
{
    cuda_backend *be = vae_cuda_self(base);
    const vae_conv_finish f = {.from = vae_act_keeps_input(act) ? aux : x.data, .act = act};
    if (!vae_cuda_fine(be)) {
        return;
    }
    vae_cuda_join(be, dx.data);
    if (g.transposed) {
        small_from_big(first_turn(base, g, rows, scratch), dx, dy, w, ldw, rows, f);
    } else {
        big_from_small(first_turn(base, g, rows, scratch), dx, dy, w, ldw, rows, f);
    }
}

/* to: (n) = what the turn left in the scratch's sums, or += that in later turns. */
static void add_sums(const turn *t, float *to, size_t n)
{
    if (launches(t)) {
        const float *sums = (const float *)(void *)(t->scratch + t->at.sums);
        CUDA_OK(t->be, vae_add_launch(to, sums, n, t->first == 0, stream_of(t)));
    }
}

/* db: (c) out: sums over pixels and pictures of m, pictures of h x w x c; room for a turn's
 * channels, padded. */
static void sum_channels(turn t, float *db, vae_mat m, size_t h, size_t w, size_t c, size_t rows,
                         char *room_for_channels)
{
    const vae_sums sums = vae_cuda_sums(t.be, 0);
    if (is_matrix(h * w, c, m.ld)) { /* at once */
        if (launches(&t)) {
            CUDA_OK(t.be, vae_column_sums_launch(t.be->elem, db, (vae_mat){m.data, c}, sums,
                                                 rows * h * w, c, stream_of(&t)));
        }
        return;
    }
    while (next_turn(&t, rows)) {
        const vae_mat packed = put_channels(&t, m, h, w, c, room_for_channels);
        if (launches(&t)) {
            CUDA_OK(t.be,
                    vae_column_sums_launch(t.be->elem, (float *)(void *)(t.scratch + t.at.sums),
                                           packed, sums, t.n * h * w, c, stream_of(&t)));
        }
        add_sums(&t, db, c);
    }
}

void vae_cuda_conv_backward_weight(vae_backend *base, float *dw, size_t ldw, float *db, vae_mat dy,
                                   vae_mat x, size_t rows, vae_conv g, void *scratch)
{
    cuda_backend *be = vae_cuda_self(base);
    const vae_mat big = g.transposed ? dy : x, small = g.transposed ? x : dy;
    if (!vae_cuda_fine(be)) {
        return;
    }
    vae_cuda_join(be, dw);
    turn t = first_turn(base, g, rows, scratch);
    while (next_turn(&t, rows)) {
        const vae_mat p = put_patches(&t, big), s = put_small(&t, small);
        void *to = t.first == 0 ? (void *)dw : t.scratch + t.at.sums;
        matmul_args args = {.a = p.data, .b = s.data, .d = to};
        matmul_key key = vae_cuda_matmul_key(be, &args, CUDA_R_32F);
        key.op_a = CUBLAS_OP_N;
        key.op_b = CUBLAS_OP_T;
        key.m = ldw; /* the padding too, so that sums of turns are of whole rows */
        key.n = g.c;
        key.k = t.n * g.h * g.w;
        key.lda = p.ld;
        key.ldb = s.ld;
        key.ldd = ldw;
        vae_cuda_multiply(t.be, LANE_MAIN, &key, &args);
        if (t.first > 0) {
            add_sums(&t, dw, g.c * ldw);
        }
    }
    t = first_turn(base, g, rows, scratch);
    if (!g.transposed) {
        sum_channels(t, db, dy, g.h, g.w, g.c, rows, t.scratch + t.at.small);
        return;
    }
    for (size_t part = 0; part < g.parts; part++) {
        const size_t skip = part * g.H * g.W * g.C * be->elem_bytes;
        const vae_mat plane = {(char *)dy.data + skip, dy.ld};
        sum_channels(t, db + part * g.C, plane, g.H, g.W, g.C, rows, t.scratch + t.at.patches);
    }
}

void vae_cuda_mirror(vae_backend *base, vae_mat x, size_t B, size_t h, size_t w, size_t c,
                     uint64_t seed)
{
    cuda_backend *be = vae_cuda_self(base);
    cuda_lane *lane;
    if (vae_cuda_begin_batch(be, &lane)) {
        CUDA_OK(be,
                vae_mirror_launch(be->elem, x, vae_cuda_now(be), B, h, w, c, seed, lane->stream));
    }
}
