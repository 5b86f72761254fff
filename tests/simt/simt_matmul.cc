/* The arithmetic of the cuBLASLt stand-in: operands are unpacked to float (rounded to TF32 or from
 * bf16 where that is asked for), multiplied in register blocks, and the epilogue runs on the sums.
 * Not instrumented by the sanitizers: extents were checked when the call was made. */
#include "simt_lt.h"

#include <math.h>

#define PLAIN __attribute__((no_sanitize("address", "undefined")))

namespace simt
{
namespace
{

enum { MR = 16, NR = 4 }; /* register block */
typedef float vec __attribute__((vector_size(32), aligned(4), may_alias));

struct matrix { /* a packed operand or the sums, freed with it */
    float *v;
    explicit matrix(size_t n)
    {
        v = (float *)aligned_alloc(64, (n * sizeof(float) + 63) & ~(size_t)63);
        if (!v) {
            die("no memory for an emulated matmul");
        }
    }
    ~matrix()
    {
        free(v);
    }
    matrix(const matrix &) = delete;
    matrix &operator=(const matrix &) = delete;
};

PLAIN float read_value(const void *p, size_t i, int32_t type)
{
    uint32_t bits;
    if (type == CUDA_R_16BF) {
        bits = (uint32_t)((const uint16_t *)p)[i] << 16;
    } else {
        bits = ((const uint32_t *)p)[i];
    }
    float f;
    __builtin_memcpy(&f, &bits, 4);
    return f;
}

/* To the nearest float with `keep` bits of mantissa, ties to even; NaN and Inf stay. */
PLAIN uint32_t round_bits(float f, int keep)
{
    uint32_t bits;
    __builtin_memcpy(&bits, &f, 4);
    if ((bits & 0x7F800000u) == 0x7F800000u) {
        return bits & 0x007FFFFFu ? bits | 0x00400000u : bits;
    }
    const int drop = 23 - keep;
    bits += (1u << (drop - 1)) - 1 + (bits >> drop & 1u);
    return bits & ~((1u << drop) - 1);
}

PLAIN void write_value(void *p, size_t i, int32_t type, float f)
{
    if (type == CUDA_R_16BF) {
        ((uint16_t *)p)[i] = (uint16_t)(round_bits(f, 7) >> 16);
    } else {
        ((float *)p)[i] = f;
    }
}

/* out: panels of `width` outer indices, each (depth, width); outer index i and inner index j come
 * from element i + j*ld (along) or j + i*ld. */
PLAIN void pack(float *out, const void *p, const simt_layout &l, bool along, size_t outer,
                size_t depth, size_t width, bool tf32)
{
    const size_t ld = (size_t)l.ld;
    for (size_t i0 = 0; i0 < outer; i0 += width) {
        for (size_t j = 0; j < depth; j++) {
            for (size_t i = i0; i < i0 + width; i++) {
                float f = i < outer ? read_value(p, along ? i + j * ld : j + i * ld, l.type) : 0.0f;
                if (tf32) {
                    const uint32_t bits = round_bits(f, 10);
                    __builtin_memcpy(&f, &bits, 4);
                }
                *out++ = f;
            }
        }
    }
}

/* out (MR rows, NR columns with ld) += the products of two panels over `depth`. */
PLAIN inline __attribute__((always_inline)) void tile(float *out, size_t ld, const float *a,
                                                      const float *b, size_t depth, size_t run)
{
    for (size_t k0 = 0; k0 < depth; k0 += run) {
        const size_t end = k0 + run < depth ? k0 + run : depth;
        vec sum[NR][2] = {};
        for (size_t k = k0; k < end; k++) {
            const vec low = *(const vec *)(a + k * MR), high = *(const vec *)(a + k * MR + 8);
            for (int j = 0; j < NR; j++) {
                const float f = b[k * NR + (size_t)j];
                sum[j][0] += low * f;
                sum[j][1] += high * f;
            }
        }
        for (size_t j = 0; j < NR; j++) {
            *(vec *)(out + j * ld) += sum[j][0];
            *(vec *)(out + j * ld + 8) += sum[j][1];
        }
    }
}

PLAIN inline __attribute__((always_inline)) void multiply_panels(float *out, size_t m_padded,
                                                                 size_t n_padded, const float *a,
                                                                 const float *b, size_t depth,
                                                                 size_t run)
{
    for (size_t j = 0; j < n_padded; j += NR) {
        for (size_t i = 0; i < m_padded; i += MR) {
            tile(out + j * m_padded + i, m_padded, a + i * depth, b + j * depth, depth, run);
        }
    }
}

PLAIN void multiply_baseline(float *out, size_t m, size_t n, const float *a, const float *b,
                             size_t k, size_t run)
{
    multiply_panels(out, m, n, a, b, k, run);
}

#ifdef __x86_64__
PLAIN __attribute__((target("avx2,fma"))) void
multiply_avx2(float *out, size_t m, size_t n, const float *a, const float *b, size_t k, size_t run)
{
    multiply_panels(out, m, n, a, b, k, run);
}
#endif

/* run: terms between two additions to D. */
void multiply(float *out, size_t m, size_t n, const float *a, const float *b, size_t k, size_t run)
{
#ifdef __x86_64__
    if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma")) {
        multiply_avx2(out, m, n, a, b, k, run);
        return;
    }
#endif
    multiply_baseline(out, m, n, a, b, k, run);
}

/* The tanh form, as cuBLAS has it. */
float gelu(float x)
{
    return 0.5f * x * (1.0f + tanhf(0.7978845608f * (x + 0.044715f * x * x * x)));
}

float gelu_grad(float x)
{
    const float t = tanhf(0.7978845608f * (x + 0.044715f * x * x * x));
    return 0.5f * (1.0f + t) +
           0.5f * x * (1.0f - t * t) * 0.7978845608f * (1.0f + 3.0f * 0.044715f * x * x);
}

void note_columns(const void *p, const simt_layout &l, bool write)
{
    for (size_t j = 0; j < l.cols; j++) { /* not what lies between them */
        char *column = (char *)const_cast<void *>(p) + j * (size_t)l.ld * element_size(l.type);
        if (write) {
            note_write(column, l.rows * element_size(l.type));
        } else {
            note_read(column, l.rows * element_size(l.type));
        }
    }
}

/* The epilogue of one column: v (m) holds alpha*op(A)*op(B) + beta*C on entry. */
PLAIN void finish_column(const matmul_work &w, float *v, size_t j, double *bgrad)
{
    const uint32_t e = w.desc.epilogue;
    const size_t m = w.d.rows, ld = (size_t)w.desc.aux_ld;
    unsigned char *mask = (unsigned char *)w.desc.aux + j * ld / 8;
    for (size_t i = 0; i < m; i++) {
        float x = v[i];
        if (e & HAS_BIAS && e < CUBLASLT_EPILOGUE_BGRADA) {
            x += read_value(w.desc.bias, i, w.d.type);
        }
        if (e & CUBLASLT_EPILOGUE_RELU) {
            const bool on = x >= 0.0f; /* as sm_90's kernels of cuBLASLt 13.1 have it */
            if (e & HAS_AUX) {
                mask[i / 8] = (unsigned char)((mask[i / 8] & ~(1u << i % 8)) | on << i % 8);
            }
            x = x < 0.0f ? 0.0f : x; /* NaN stays */
        } else if (e & CUBLASLT_EPILOGUE_GELU) {
            if (e & HAS_AUX) {
                write_value(w.desc.aux, j * ld + i, w.d.type, x);
            }
            x = gelu(x);
        } else if (e & 8) { /* DRELU */
            x = mask[i / 8] >> i % 8 & 1 ? x : 0.0f;
        } else if (e & 64) { /* DGELU */
            x *= gelu_grad(read_value(w.desc.aux, j * ld + i, w.d.type));
        }
        if (e & 16) {
            bgrad[i] += (double)x;
        }
        write_value(w.D, j * (size_t)w.d.ld + i, w.d.type, x);
    }
}

/* Sums of an operand over k: BGRADA, BGRADB. */
PLAIN void operand_sums(const matmul_work &w, size_t k)
{
    const bool is_a = w.desc.epilogue == CUBLASLT_EPILOGUE_BGRADA;
    const simt_layout &l = is_a ? w.a : w.b;
    const void *p = is_a ? w.A : w.B;
    const bool along = (is_a ? w.desc.trans_a : w.desc.trans_b) == CUBLAS_OP_N ? is_a : !is_a;
    const size_t n = is_a ? w.d.rows : w.d.cols, ld = (size_t)l.ld;
    for (size_t i = 0; i < n; i++) {
        double sum = 0;
        for (size_t j = 0; j < k; j++) {
            sum += (double)read_value(p, along ? i + j * ld : j + i * ld, l.type);
        }
        write_value(w.desc.bias, i, w.d.type, (float)sum);
    }
}

/* What TSan is to see. */
void note_all(const matmul_work &w)
{
    const uint32_t e = w.desc.epilogue;
    const size_t size = element_size(w.d.type);
    note_columns(w.A, w.a, false);
    note_columns(w.B, w.b, false);
    if (w.beta != 0.0f) {
        note_columns(w.C, w.c, false);
    }
    note_columns(w.D, w.d, true);
    if (e & IS_BGRAD) {
        note_write(w.desc.bias, (e == CUBLASLT_EPILOGUE_BGRADB ? w.d.cols : w.d.rows) * size);
    } else if (e & HAS_BIAS) {
        note_read(w.desc.bias, w.d.rows * size);
    }
    if (e & HAS_AUX) {
        const size_t bytes = w.d.cols * (size_t)w.desc.aux_ld * (e & IS_GELU ? 8 * size : 1) / 8;
        if (e & (8 | 64)) {
            note_read(w.desc.aux, bytes);
        } else {
            note_write(w.desc.aux, bytes);
        }
    }
    if (w.workspace_used > 0) {
        note_write(w.workspace, w.workspace_used);
    }
}

} // namespace

PLAIN void matmul_work::run()
{
    const size_t m = d.rows, n = d.cols, depth = desc.trans_a == CUBLAS_OP_N ? a.cols : a.rows;
    const size_t m_padded = (m + MR - 1) / MR * MR, n_padded = (n + NR - 1) / NR * NR;
    const bool tf32 = desc.compute == CUBLAS_COMPUTE_32F_FAST_TF32;
    if (alpha_dev) {
        alpha = read_value(alpha_dev, 0, CUDA_R_32F);
        beta = read_value(beta_dev, 0, CUDA_R_32F);
    }
    note_all(*this);
    if (workspace_used > 0) {
        raw_fill(workspace, 0xFF, workspace_used); /* whose contents nobody may count on */
    }
    matrix left(m_padded * depth), right(n_padded * depth), sums(m_padded * n_padded), bias(2 * m);
    pack(left.v, A, a, desc.trans_a == CUBLAS_OP_N, m, depth, MR, tf32);
    pack(right.v, B, b, desc.trans_b != CUBLAS_OP_N, n, depth, NR, tf32);
    raw_fill(sums.v, 0, m_padded * n_padded * sizeof(float));
    /* another order of adding for other columns and epilogues, as the library chooses kernels by
     * them: whoever compares such products to the bit hears of it here */
    const size_t kind = n % 7 + (desc.epilogue & HAS_AUX ? 7 : 0);
    const size_t run = depth < 64 ? 2 + kind : 64 + 16 * kind;
    multiply(sums.v, m_padded, n_padded, left.v, right.v, depth, run);
    double *bgrad = (double *)(void *)bias.v;
    for (size_t i = 0; i < m; i++) {
        bgrad[i] = 0;
    }
    if (desc.epilogue & HAS_AUX && desc.epilogue & CUBLASLT_EPILOGUE_RELU) {
        raw_fill(desc.aux, 0xFF, n * (size_t)desc.aux_ld / 8); /* what pads the mask is undefined */
    }
    for (size_t j = 0; j < n; j++) {
        float *v = sums.v + j * m_padded;
        for (size_t i = 0; i < m; i++) {
            v[i] *= alpha;
            if (beta != 0.0f) {
                v[i] += beta * read_value(C, j * (size_t)c.ld + i, c.type);
            }
        }
        finish_column(*this, v, j, bgrad);
    }
    for (size_t i = 0; desc.epilogue & 16 && i < m; i++) {
        write_value(desc.bias, i, d.type, (float)bgrad[i]);
    }
    if (desc.epilogue >= CUBLASLT_EPILOGUE_BGRADA) {
        operand_sums(*this, depth);
    }
}

} // namespace simt
