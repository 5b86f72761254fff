/* What the parts of the cuBLASLt stand-in share: the calls (simt_cublaslt.cc), the rules
 * (simt_lt_rules.cc) and the arithmetic (simt_matmul.cc). */
#ifndef SIMT_LT_H
#define SIMT_LT_H

#include "simt_internal.h"

struct simt_layout {
    int32_t type, order;
    uint64_t rows, cols;
    int64_t ld;
    int32_t batch;
    int64_t batch_stride;
};

struct simt_matmul_desc {
    int32_t compute, scale, pointer_mode, trans_a, trans_b, trans_c, fill_mode;
    uint32_t epilogue;
    void *bias, *aux;
    int64_t bias_stride, aux_ld, aux_stride;
    int32_t sm_count, aux_type, bias_type;
    int8_t fast_accum;
};

struct simt_preference {
    uint32_t search_mode, reductions, align_a, align_b, align_c, align_d;
    uint64_t workspace, implementations;
    float waves;
};

namespace simt
{

/* D (m,n) = epilogue(alpha * op(A) (m,k) * op(B) (k,n) + beta * C), column-major. */
struct matmul_work : work {
    simt_matmul_desc desc;
    simt_layout a, b, c, d;
    const void *A, *B, *C;
    void *D, *workspace;
    size_t workspace_used;
    const void *alpha_dev = nullptr, *beta_dev = nullptr; /* pointer mode "device", else NULL */
    float alpha = 0, beta = 0;
    void run() override;
};

static inline size_t element_size(int32_t type)
{
    return type == CUDA_R_16BF ? 2 : 4;
}

enum { HAS_BIAS = 4, HAS_AUX = 128, IS_BGRAD = 16 | 256 | 512, IS_GELU = 32 | 64 };

struct problem {
    const simt_matmul_desc *desc;
    const simt_layout *a, *b, *c, *d;
    uint64_t m() const
    {
        return d->rows;
    }
    uint64_t n() const
    {
        return d->cols;
    }
    uint64_t k() const
    {
        return desc->trans_a == CUBLAS_OP_N ? a->cols : a->rows;
    }
};

/* Says why, and returns the status. */
cublasStatus_t no(cublasStatus_t status, const char *format, ...)
    __attribute__((format(printf, 2, 3)));
/* Whether the operation is one that the library would do. */
cublasStatus_t check_problem(const problem &p);
cublasLtMatmulAlgo_t make_algo(const problem &p, const simt_preference &preference, uint64_t id,
                               uint64_t workspace);
bool algo_fits(const cublasLtMatmulAlgo_t &algo, const problem &p);
uint64_t algo_workspace(const cublasLtMatmulAlgo_t &algo);
/* Kinds, extents and alignment of what the work will touch. */
cublasStatus_t check_pointers(const matmul_work &w, const cublasLtMatmulAlgo_t &algo);

} // namespace simt

#endif
