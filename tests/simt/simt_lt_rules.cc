/* Rules of the cuBLASLt stand-in. The rules are those of cublasLt.h's
 * comments, and where the header leaves freedom the stricter reading:
 * - column-major; A, B fp32 or bf16, C and D fp32, or bf16 with A, B; compute 32F or TF32 (fp32
 * only);
 * - the bias has D's type; its length is D's rows (BGRADB: D's columns);
 * - ReLU's mask: leading dimension in bits, divisible by 128; GELU's input: divisible by 8;
 * - bf16 operands at 16 bytes, leading dimensions in multiples of 8; pointers as aligned as the
 *   heuristic was told (16 bytes are the most that it makes use of);
 * - an algorithm is good for the problem that it was asked for, and for no other. */
#include "simt_lt.h"

#include <stdarg.h>
#include <stdio.h>
#include <strings.h>

namespace simt
{
namespace
{

struct epilogue_name {
    uint32_t epilogue;
    const char *name;
};
#define EPILOGUE(name)                                                                             \
    {                                                                                              \
        CUBLASLT_EPILOGUE_##name, #name                                                            \
    }
const epilogue_name epilogues[] = {
    EPILOGUE(DEFAULT),   EPILOGUE(RELU),          EPILOGUE(RELU_AUX),  EPILOGUE(BIAS),
    EPILOGUE(RELU_BIAS), EPILOGUE(RELU_AUX_BIAS), EPILOGUE(DRELU),     EPILOGUE(DRELU_BGRAD),
    EPILOGUE(GELU),      EPILOGUE(GELU_AUX),      EPILOGUE(GELU_BIAS), EPILOGUE(GELU_AUX_BIAS),
    EPILOGUE(DGELU),     EPILOGUE(DGELU_BGRAD),   EPILOGUE(BGRADA),    EPILOGUE(BGRADB),
};

/* Whether VAE_SIMT_LT_REFUSE names this epilogue (for this type of D). */
bool refused_epilogue(uint32_t epilogue, int32_t type)
{
    const char *name = "";
    for (const epilogue_name &e : epilogues) {
        name = e.epilogue == epilogue ? e.name : name;
    }
    for (const char *s = set.refuse; *s;) {
        const size_t n = strcspn(s, ","), word = strcspn(s, ",:");
        const bool bf16 = type == CUDA_R_16BF;
        const bool typed =
            word == n || strncasecmp(s + word, bf16 ? ":bf16" : ":f32", n - word) == 0;
        const bool match =
            (strlen(name) == word && strncasecmp(s, name, word) == 0) ||
            (word == 3 && strncasecmp(s, "aux", 3) == 0 && epilogue & HAS_AUX) ||
            (word == 5 && strncasecmp(s, "bgrad", 5) == 0 && epilogue & IS_BGRAD) ||
            (word == 3 && strncasecmp(s, "all", 3) == 0 && epilogue != CUBLASLT_EPILOGUE_DEFAULT);
        if (typed && match) {
            return true;
        }
        s += s[n] ? n + 1 : n;
    }
    return false;
}

cublasStatus_t check_layout(const simt_layout &l, const char *name)
{
    if (l.rows == 0 || l.cols == 0 || l.rows > INT32_MAX || l.cols > INT32_MAX) {
        return no(CUBLAS_STATUS_INVALID_VALUE, "%s is (%zu,%zu)", name, (size_t)l.rows,
                  (size_t)l.cols);
    }
    if (l.order != CUBLASLT_ORDER_COL || l.batch != 1) {
        return no(CUBLAS_STATUS_NOT_SUPPORTED, "%s: only column-major, one matrix", name);
    }
    if (l.ld < (int64_t)l.rows) {
        return no(CUBLAS_STATUS_INVALID_VALUE,
                  "%s: leading dimension %lld is less than its %llu rows", name, (long long)l.ld,
                  (unsigned long long)l.rows);
    }
    if (l.type != CUDA_R_32F && l.type != CUDA_R_16BF) {
        return no(CUBLAS_STATUS_NOT_SUPPORTED, "%s: type %d", name, l.type);
    }
    if (l.type == CUDA_R_16BF && l.ld % 8 != 0) {
        return no(CUBLAS_STATUS_NOT_SUPPORTED,
                  "%s: bf16 with leading dimension %lld, not a "
                  "multiple of 8",
                  name, (long long)l.ld);
    }
    return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t check_types(const problem &p)
{
    const int32_t t = p.a->type;
    if (p.desc->compute != CUBLAS_COMPUTE_32F && p.desc->compute != CUBLAS_COMPUTE_32F_PEDANTIC &&
        p.desc->compute != CUBLAS_COMPUTE_32F_FAST_TF32) {
        return no(CUBLAS_STATUS_NOT_SUPPORTED, "compute type %d", p.desc->compute);
    }
    if (p.desc->scale != CUDA_R_32F || p.b->type != t || p.c->type != p.d->type ||
        (t == CUDA_R_32F && p.d->type != CUDA_R_32F)) {
        return no(CUBLAS_STATUS_NOT_SUPPORTED, "types A %d, B %d, C %d, D %d, scale %d", t,
                  p.b->type, p.c->type, p.d->type, p.desc->scale);
    }
    if (t == CUDA_R_16BF && p.desc->compute == CUBLAS_COMPUTE_32F_FAST_TF32) {
        return no(CUBLAS_STATUS_NOT_SUPPORTED, "TF32 is for fp32 operands");
    }
    if (p.desc->bias_type != -1 && p.desc->bias_type != p.d->type) {
        return no(CUBLAS_STATUS_NOT_SUPPORTED, "bias of type %d, D of type %d", p.desc->bias_type,
                  p.d->type);
    }
    return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t check_epilogue(const problem &p)
{
    const simt_matmul_desc &e = *p.desc;
    bool there = false;
    for (const epilogue_name &n : epilogues) {
        there = there || n.epilogue == e.epilogue;
    }
    if (!there) {
        return no(CUBLAS_STATUS_INVALID_VALUE, "epilogue %u", e.epilogue);
    }
    if (refused_epilogue(e.epilogue, p.d->type)) {
        return CUBLAS_STATUS_NOT_SUPPORTED;
    }
    if (e.epilogue & HAS_AUX) {
        const int64_t unit = e.epilogue & IS_GELU ? 8 : 128;
        if (e.aux_ld % unit != 0 || e.aux_ld < (int64_t)p.m()) {
            return no(CUBLAS_STATUS_INVALID_VALUE,
                      "auxiliary leading dimension %lld: must be divisible by %lld and at least "
                      "D's %llu rows",
                      (long long)e.aux_ld, (long long)unit, (unsigned long long)p.m());
        }
        if (e.aux_type != -1 && (!(e.epilogue & IS_GELU) || e.aux_type != p.d->type)) {
            return no(CUBLAS_STATUS_NOT_SUPPORTED, "auxiliary type %d", e.aux_type);
        }
    }
    return CUBLAS_STATUS_SUCCESS;
}

/* An algorithm: what it is for, its workspace, and how aligned its pointers have to be. */
enum { ALGO_MAGIC, ALGO_PROBLEM, ALGO_WORKSPACE, ALGO_ALIGN };

uint64_t fingerprint(const problem &p)
{
    const int64_t v[] = {p.desc->compute,
                         p.desc->trans_a,
                         p.desc->trans_b,
                         (int64_t)p.desc->epilogue,
                         p.desc->pointer_mode,
                         p.a->type,
                         p.d->type,
                         (int64_t)p.m(),
                         (int64_t)p.n(),
                         (int64_t)p.k(),
                         p.a->ld,
                         p.b->ld,
                         p.c->ld,
                         p.d->ld,
                         p.desc->aux_ld};
    uint64_t h = 1469598103934665603u;
    for (int64_t x : v) {
        h = (h ^ (uint64_t)x) * 0x9E3779B97F4A7C15u;
        h ^= h >> 29;
    }
    return h;
}

/* Largest power of two up to 16 that divides it (NULL: 16). */
uint64_t alignment(const void *p)
{
    uint64_t a = 16;
    while ((uintptr_t)p % a != 0) {
        a /= 2;
    }
    return a;
}

uint64_t at_most_16(uint32_t align)
{
    return align < 16 ? align : 16;
}

/* `bytes` at p: in one device allocation, aligned. */
cublasStatus_t check_memory(const char *name, const void *p, uint64_t bytes, uint64_t align)
{
    if (kind_of(p) != DEVICE) {
        return no(CUBLAS_STATUS_INVALID_VALUE, "%s = %p is not device memory", name, p);
    }
    if (!inside(p, bytes)) {
        return no(CUBLAS_STATUS_INVALID_VALUE,
                  "%s needs %llu bytes, %zu are left in its allocation", name,
                  (unsigned long long)bytes, room(p));
    }
    if ((uintptr_t)p % align != 0) {
        return no(CUBLAS_STATUS_INVALID_VALUE,
                  "%s = %p is not aligned to the %llu bytes that the "
                  "algorithm was chosen for",
                  name, p, (unsigned long long)align);
    }
    return CUBLAS_STATUS_SUCCESS;
}

uint64_t matrix_bytes(const simt_layout &l)
{
    return ((l.cols - 1) * (uint64_t)l.ld + l.rows) * element_size(l.type);
}

bool overlap(const void *p, uint64_t np, const void *q, uint64_t nq)
{
    return (uintptr_t)p < (uintptr_t)q + nq && (uintptr_t)q < (uintptr_t)p + np;
}

} // namespace

cublasStatus_t no(cublasStatus_t status, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    fprintf(stderr, "simt: %s: ", cublasLtGetStatusName(status));
    vfprintf(stderr, format, args);
    fputc('\n', stderr);
    va_end(args);
    return status;
}

cublasStatus_t check_problem(const problem &p)
{
    const simt_layout *const layouts[] = {p.a, p.b, p.c, p.d};
    const char *const names[] = {"A", "B", "C", "D"};
    for (int i = 0; i < 4; i++) {
        cublasStatus_t s = check_layout(*layouts[i], names[i]);
        if (s != CUBLAS_STATUS_SUCCESS) {
            return s;
        }
    }
    const bool ta = p.desc->trans_a != CUBLAS_OP_N, tb = p.desc->trans_b != CUBLAS_OP_N;
    const uint64_t am = ta ? p.a->cols : p.a->rows, bk = tb ? p.b->cols : p.b->rows;
    const uint64_t bn = tb ? p.b->rows : p.b->cols;
    if (am != p.m() || bk != p.k() || bn != p.n() || p.c->rows != p.m() || p.c->cols != p.n() ||
        p.desc->trans_c != CUBLAS_OP_N) {
        return no(CUBLAS_STATUS_INVALID_VALUE,
                  "shapes: op(A) (%llu,%llu), op(B) (%llu,%llu), D (%llu,%llu)",
                  (unsigned long long)am, (unsigned long long)p.k(), (unsigned long long)bk,
                  (unsigned long long)bn, (unsigned long long)p.m(), (unsigned long long)p.n());
    }
    cublasStatus_t s = check_types(p);
    return s != CUBLAS_STATUS_SUCCESS ? s : check_epilogue(p);
}

cublasLtMatmulAlgo_t make_algo(const problem &p, const simt_preference &f, uint64_t id,
                               uint64_t workspace)
{
    cublasLtMatmulAlgo_t algo = {};
    algo.data[ALGO_MAGIC] = (uint64_t)0x51317A00u + id;
    algo.data[ALGO_PROBLEM] = fingerprint(p);
    algo.data[ALGO_WORKSPACE] = workspace;
    algo.data[ALGO_ALIGN] = at_most_16(f.align_a) | at_most_16(f.align_b) << 8 |
                            at_most_16(f.align_c) << 16 | at_most_16(f.align_d) << 24 |
                            alignment(p.desc->bias) << 32 | alignment(p.desc->aux) << 40;
    return algo;
}

bool algo_fits(const cublasLtMatmulAlgo_t &algo, const problem &p)
{
    return algo.data[ALGO_MAGIC] >> 8 == 0x51317Au && algo.data[ALGO_PROBLEM] == fingerprint(p);
}

uint64_t algo_workspace(const cublasLtMatmulAlgo_t &algo)
{
    return algo.data[ALGO_WORKSPACE];
}

#define CHECK(call)                                                                                \
    do {                                                                                           \
        cublasStatus_t status_ = (call);                                                           \
        if (status_ != CUBLAS_STATUS_SUCCESS) {                                                    \
            return status_;                                                                        \
        }                                                                                          \
    } while (0)

cublasStatus_t check_pointers(const matmul_work &w, const cublasLtMatmulAlgo_t &algo)
{
    const uint64_t align = algo.data[ALGO_ALIGN];
    const uint64_t size = element_size(w.d.type), m = w.d.rows, n = w.d.cols;
    CHECK(check_memory("A", w.A, matrix_bytes(w.a), align & 0xFF));
    CHECK(check_memory("B", w.B, matrix_bytes(w.b), align >> 8 & 0xFF));
    CHECK(check_memory("D", w.D, matrix_bytes(w.d), align >> 24 & 0xFF));
    if (w.beta != 0.0f || w.beta_dev) {
        CHECK(check_memory("C", w.C, matrix_bytes(w.c), align >> 16 & 0xFF));
        if (w.C != w.D && overlap(w.C, matrix_bytes(w.c), w.D, matrix_bytes(w.d))) {
            die("cublasLtMatmul: C and D overlap");
        }
    }
    if (overlap(w.A, matrix_bytes(w.a), w.D, matrix_bytes(w.d)) ||
        overlap(w.B, matrix_bytes(w.b), w.D, matrix_bytes(w.d))) {
        die("cublasLtMatmul: D overlaps an input");
    }
    if (w.desc.epilogue & (HAS_BIAS | IS_BGRAD)) {
        const uint64_t length = w.desc.epilogue == CUBLASLT_EPILOGUE_BGRADB ? n : m;
        CHECK(check_memory("the bias", w.desc.bias, length * size, align >> 32 & 0xFF));
    }
    if (w.desc.epilogue & HAS_AUX) {
        const uint64_t bits = w.desc.epilogue & IS_GELU ? 8 * size : 1;
        CHECK(check_memory("the auxiliary matrix", w.desc.aux,
                           n * (uint64_t)w.desc.aux_ld * bits / 8, align >> 40 & 0xFF));
        if ((uintptr_t)w.desc.aux % 16 != 0) {
            return no(CUBLAS_STATUS_INVALID_VALUE,
                      "the auxiliary matrix is not aligned to 16 bytes");
        }
    }
    if (w.workspace_used > 0) {
        CHECK(check_memory("the workspace", w.workspace, w.workspace_used, 16));
        if (overlap(w.workspace, w.workspace_used, w.D, matrix_bytes(w.d)) ||
            overlap(w.workspace, w.workspace_used, w.A, matrix_bytes(w.a)) ||
            overlap(w.workspace, w.workspace_used, w.B, matrix_bytes(w.b))) {
            die("cublasLtMatmul: the workspace overlaps a matrix");
        }
    }
    return CUBLAS_STATUS_SUCCESS;
}

} // namespace simt
