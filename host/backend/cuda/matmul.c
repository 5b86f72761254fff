/* Matrix products: which cuBLASLt algorithm runs each of them, chosen once and kept. */
#include "backend/cuda/cuda.h"

#include <float.h>
#include <stdlib.h>
#include <string.h>

enum { CANDIDATES = 8, TIMED_RUNS = 5 };

static cublasComputeType_t compute_type(const cuda_backend *be)
{
    return be->precision == VAE_TF32 ? CUBLAS_COMPUTE_32F_FAST_TF32 : CUBLAS_COMPUTE_32F;
}

static bool set_desc(cuda_backend *be, matmul_plan *p, cublasLtMatmulDescAttributes_t what,
                     const void *value, size_t size)
{
    return CUBLAS_OK(be, be->lt.desc_set(p->desc, what, value, size));
}

/* The pointer that belongs to a call, not to a plan. The heuristic looks at its alignment. */
static bool set_bias(cuda_backend *be, matmul_plan *p, const matmul_args *args)
{
    return args->bias == NULL ||
           set_desc(be, p, CUBLASLT_MATMUL_DESC_BIAS_POINTER, &args->bias, sizeof args->bias);
}

static bool make_layout(cuda_backend *be, cublasLtMatrixLayout_t *layout, cudaDataType_t type,
                        cublasOperation_t op, uint64_t rows, uint64_t cols, uint64_t ld)
{
    if (op != CUBLAS_OP_N) {
        uint64_t swap = rows;
        rows = cols;
        cols = swap;
    }
    return CUBLAS_OK(be, be->lt.layout_create(layout, type, rows, cols, (int64_t)ld));
}

static bool describe_product(cuda_backend *be, matmul_plan *p, const matmul_args *args)
{
    const matmul_key *k = &p->key;
    return CUBLAS_OK(be, be->lt.desc_create(&p->desc, compute_type(be), CUDA_R_32F)) &&
           set_desc(be, p, CUBLASLT_MATMUL_DESC_TRANSA, &k->op_a, sizeof k->op_a) &&
           set_desc(be, p, CUBLASLT_MATMUL_DESC_TRANSB, &k->op_b, sizeof k->op_b) &&
           set_desc(be, p, CUBLASLT_MATMUL_DESC_EPILOGUE, &k->epilogue, sizeof k->epilogue) &&
           set_bias(be, p, args) &&
           make_layout(be, &p->a, k->type_ab, k->op_a, k->m, k->k, k->lda) &&
           make_layout(be, &p->b, k->type_ab, k->op_b, k->k, k->n, k->ldb) &&
           make_layout(be, &p->d, k->type_d, CUBLAS_OP_N, k->m, k->n, k->ldd);
}

/* Asks for algorithms, best guess first; how many. None is not an error. */
static int ask(cuda_backend *be, matmul_plan *p, cublasLtMatmulHeuristicResult_t *found)
{
    /* Partial sums of a split k go through the workspace and are added in a fixed order; in-place
     * reduction would add in the order blocks finish. */
    const uint32_t schemes = CUBLASLT_REDUCTION_SCHEME_COMPUTE_TYPE;
    const size_t workspace = VAE_CUDA_WORKSPACE;
    const struct {
        cublasLtMatmulPreferenceAttributes_t what;
        const void *value;
        size_t size;
    } wanted[] = {
        {CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES, &workspace, sizeof workspace},
        {CUBLASLT_MATMUL_PREF_REDUCTION_SCHEME_MASK, &schemes, sizeof schemes},
        {CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES, &p->key.align_a, sizeof p->key.align_a},
        {CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_B_BYTES, &p->key.align_b, sizeof p->key.align_b},
        {CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_C_BYTES, &p->key.align_d, sizeof p->key.align_d},
        {CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES, &p->key.align_d, sizeof p->key.align_d},
    };
    cublasLtMatmulPreference_t preference = NULL;
    int n = 0;
    bool good = CUBLAS_OK(be, be->lt.preference_create(&preference));
    for (size_t i = 0; good && i < sizeof wanted / sizeof *wanted; i++) {
        good = CUBLAS_OK(
            be, be->lt.preference_set(preference, wanted[i].what, wanted[i].value, wanted[i].size));
    }
    if (good) {
        cublasStatus_t status = be->lt.heuristic(be->handle, p->desc, p->a, p->b, p->d, p->d,
                                                 preference, CANDIDATES, found, &n);
        /* "not supported" is how an epilogue that does not exist for a type answers */
        if (status == CUBLAS_STATUS_NOT_SUPPORTED || status == CUBLAS_STATUS_INVALID_VALUE) {
            n = 0;
        } else {
            good = vae_cublas_check(be, status, "cublasLtMatmulAlgoGetHeuristic");
        }
    }
    if (preference != NULL) {
        be->lt.preference_destroy(preference);
    }
    return good ? n : 0;
}

static cublasStatus_t launch(cuda_backend *be, int lane, const matmul_plan *p,
                             const matmul_args *args, const cublasLtMatmulAlgo_t *algo)
{
    const float one = 1.0f, zero = 0.0f;
    return be->lt.matmul(be->handle, p->desc, &one, args->a, p->a, args->b, p->b, &zero, args->d,
                         p->d, args->d, p->d, algo, be->lane[lane].workspace, VAE_CUDA_WORKSPACE,
                         be->lane[lane].stream);
}

/* Milliseconds of a few runs after one to warm up; FLT_MAX if it does not run. */
static float time_of(cuda_backend *be, const matmul_plan *p, const matmul_args *args,
                     const cublasLtMatmulAlgo_t *algo)
{
    cudaStream_t stream = be->lane[0].stream;
    float ms = FLT_MAX;
    if (launch(be, 0, p, args, algo) != CUBLAS_STATUS_SUCCESS ||
        !CUDA_OK(be, cudaEventRecord(be->start, stream))) {
        return FLT_MAX;
    }
    for (int i = 0; i < TIMED_RUNS; i++) {
        if (launch(be, 0, p, args, algo) != CUBLAS_STATUS_SUCCESS) {
            return FLT_MAX;
        }
    }
    bool good = CUDA_OK(be, cudaEventRecord(be->stop, stream)) &&
                CUDA_OK(be, cudaEventSynchronize(be->stop)) &&
                CUDA_OK(be, cudaEventElapsedTime(&ms, be->start, be->stop));
    return good ? ms : FLT_MAX;
}

/* The first candidate that runs; when tuning, the fastest. The trial writes d, which the caller is
 * about to overwrite anyway, and loads the kernel before a capture needs it. -1: none runs. */
static int choose(cuda_backend *be, const matmul_plan *p, const matmul_args *args,
                  const cublasLtMatmulHeuristicResult_t *found, int n)
{
    int best = -1;
    float best_ms = FLT_MAX;
    for (int i = 0; i < n && vae_cuda_fine(be); i++) {
        if (found[i].state != CUBLAS_STATUS_SUCCESS) {
            continue;
        }
        if (be->mode == MODE_CAPTURING) {
            return i;
        }
        if (!be->tune) {
            if (launch(be, 0, p, args, &found[i].algo) == CUBLAS_STATUS_SUCCESS) {
                return i;
            }
            continue;
        }
        float ms = time_of(be, p, args, &found[i].algo);
        if (ms < best_ms) {
            best = i;
            best_ms = ms;
        }
    }
    return best;
}

static void destroy_plan(cuda_backend *be, matmul_plan *p)
{
    if (p->desc != NULL) {
        be->lt.desc_destroy(p->desc);
    }
    cublasLtMatrixLayout_t layouts[] = {p->a, p->b, p->d};
    for (size_t i = 0; i < sizeof layouts / sizeof *layouts; i++) {
        if (layouts[i] != NULL) {
            be->lt.layout_destroy(layouts[i]);
        }
    }
}

/* A new plan at the end of the list. NULL after an error. */
static matmul_plan *make_plan(cuda_backend *be, const matmul_key *key, const matmul_args *args)
{
    cublasLtMatmulHeuristicResult_t found[CANDIDATES];
    matmul_plan *more = realloc(be->plans, (be->n_plans + 1) * sizeof *more);
    if (more == NULL) {
        vae_fail_memory(&be->err, (be->n_plans + 1) * sizeof *more, "a list of matrix products");
        return NULL;
    }
    be->plans = more;
    matmul_plan *p = &more[be->n_plans++];
    memset(p, 0, sizeof *p);
    p->key = *key;
    memset(found, 0, sizeof found);
    if (!describe_product(be, p, args)) {
        return NULL;
    }
    int n = ask(be, p, found), best = choose(be, p, args, found, n);
    if (!vae_cuda_fine(be)) {
        return NULL;
    }
    p->usable = best >= 0;
    if (p->usable) {
        size_t written;
        p->algo = found[best].algo;
        CUBLAS_OK(be, be->lt.algo_get(&p->algo, CUBLASLT_ALGO_CONFIG_ID, &p->algo_id,
                                      sizeof p->algo_id, &written));
    }
    return vae_cuda_fine(be) ? p : NULL;
}

static matmul_plan *find_plan(cuda_backend *be, const matmul_key *key)
{
    for (size_t i = 0; i < be->n_plans; i++) {
        if (memcmp(&be->plans[i].key, key, sizeof *key) == 0) {
            return &be->plans[i];
        }
    }
    return NULL;
}

bool vae_cuda_matmul(cuda_backend *be, int lane, const matmul_key *key, const matmul_args *args)
{
    if (!vae_cuda_fine(be)) {
        return true;
    }
    matmul_plan *p = find_plan(be, key);
    if (p == NULL) {
        p = make_plan(be, key, args);
    }
    if (p == NULL) {
        return true;
    }
    if (p->usable && be->mode != MODE_PLANNING && set_bias(be, p, args)) {
        vae_cublas_check(be, launch(be, lane, p, args, &p->algo), "cublasLtMatmul");
    }
    return p->usable;
}

bool vae_cuda_multiply(cuda_backend *be, int lane, const matmul_key *key, const matmul_args *args)
{
    if (!vae_cuda_matmul(be, lane, key, args)) {
        vae_fail(&be->err, VAE_ERR_RUNTIME,
                 "cuBLASLt has no algorithm for a matrix product of %llu x %llu x %llu on %s",
                 (unsigned long long)key->m, (unsigned long long)key->n, (unsigned long long)key->k,
                 be->name);
    }
    return vae_cuda_fine(be) && be->mode != MODE_PLANNING;
}

void vae_cuda_matmul_close(cuda_backend *be)
{
    for (size_t i = 0; i < be->n_plans; i++) {
        destroy_plan(be, &be->plans[i]);
    }
    free(be->plans);
}
