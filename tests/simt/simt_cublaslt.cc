/* The calls of the cuBLASLt stand-in: descriptors, heuristics, and matmuls into a stream. */
#include "simt_lt.h"

#include <algorithm>
#include <stdio.h>

namespace simt
{
namespace
{

struct lt_handle {
    int unused;
};
struct lt_lists {
    std::vector<lt_handle *> handles;
    std::vector<simt_layout *> layouts;
    std::vector<simt_matmul_desc *> descs;
    std::vector<simt_preference *> preferences;
};
lt_lists &lists()
{
    static lt_lists *l = new lt_lists;
    return *l;
}

template <typename T> bool known(const std::vector<T *> &list, const T *p)
{
    return std::find(list.begin(), list.end(), p) != list.end();
}

template <typename T> cublasStatus_t destroy(std::vector<T *> *list, T *p)
{
    auto it = std::find(list->begin(), list->end(), p);
    if (it == list->end()) {
        return CUBLAS_STATUS_INVALID_VALUE;
    }
    list->erase(it);
    delete p;
    return CUBLAS_STATUS_SUCCESS;
}

bool all_known(const problem &p)
{
    return known(lists().descs, p.desc) && known(lists().layouts, p.a) &&
           known(lists().layouts, p.b) && known(lists().layouts, p.c) &&
           known(lists().layouts, p.d);
}

/* One call: the lock and the counting, cublas' way. */
struct lt_call : call {
    cublasStatus_t injected;
    lt_call(const char *name, cublasStatus_t fail) : call(name, cudaErrorUnknown), injected(fail)
    {
    }
    cublasStatus_t done(cublasStatus_t status)
    {
        return refused() ? injected : status;
    }
};

struct field {
    int attr;
    size_t offset, size;
};
#define FIELD(attr, type, member)                                                                  \
    {                                                                                              \
        attr, offsetof(type, member), sizeof(((type *)nullptr)->member)                            \
    }
#define DESC(attr, member)   FIELD(CUBLASLT_MATMUL_DESC_##attr, simt_matmul_desc, member)
#define LAYOUT(attr, member) FIELD(CUBLASLT_MATRIX_LAYOUT_##attr, simt_layout, member)
#define PREF(attr, member)   FIELD(CUBLASLT_MATMUL_PREF_##attr, simt_preference, member)

const field desc_fields[] = {
    DESC(COMPUTE_TYPE, compute),
    DESC(SCALE_TYPE, scale),
    DESC(POINTER_MODE, pointer_mode),
    DESC(TRANSA, trans_a),
    DESC(TRANSB, trans_b),
    DESC(TRANSC, trans_c),
    DESC(FILL_MODE, fill_mode),
    DESC(EPILOGUE, epilogue),
    DESC(BIAS_POINTER, bias),
    DESC(BIAS_BATCH_STRIDE, bias_stride),
    DESC(EPILOGUE_AUX_POINTER, aux),
    DESC(EPILOGUE_AUX_LD, aux_ld),
    DESC(EPILOGUE_AUX_BATCH_STRIDE, aux_stride),
    DESC(SM_COUNT_TARGET, sm_count),
    DESC(EPILOGUE_AUX_DATA_TYPE, aux_type),
    DESC(FAST_ACCUM, fast_accum),
    DESC(BIAS_DATA_TYPE, bias_type),
};
const field layout_fields[] = {
    LAYOUT(TYPE, type),
    LAYOUT(ORDER, order),
    LAYOUT(ROWS, rows),
    LAYOUT(COLS, cols),
    LAYOUT(LD, ld),
    LAYOUT(BATCH_COUNT, batch),
    LAYOUT(STRIDED_BATCH_OFFSET, batch_stride),
};
const field preference_fields[] = {
    PREF(SEARCH_MODE, search_mode),          PREF(MAX_WORKSPACE_BYTES, workspace),
    PREF(REDUCTION_SCHEME_MASK, reductions), PREF(MIN_ALIGNMENT_A_BYTES, align_a),
    PREF(MIN_ALIGNMENT_B_BYTES, align_b),    PREF(MIN_ALIGNMENT_C_BYTES, align_c),
    PREF(MIN_ALIGNMENT_D_BYTES, align_d),    PREF(MAX_WAVES_COUNT, waves),
    PREF(IMPL_MASK, implementations),
};

template <size_t N>
cublasStatus_t set_field(const field (&fields)[N], void *object, int attr, const void *value,
                         size_t size)
{
    for (const field &f : fields) {
        if (f.attr == attr) {
            if (!value || size != f.size) {
                return no(CUBLAS_STATUS_INVALID_VALUE, "attribute %d has %zu bytes, not %zu", attr,
                          f.size, size);
            }
            memcpy((char *)object + f.offset, value, size);
            return CUBLAS_STATUS_SUCCESS;
        }
    }
    return no(CUBLAS_STATUS_INVALID_VALUE, "attribute %d is not emulated", attr);
}

template <size_t N>
cublasStatus_t get_field(const field (&fields)[N], const void *object, int attr, void *value,
                         size_t size, size_t *written)
{
    for (const field &f : fields) {
        if (f.attr == attr) {
            if (size == 0 ? !written : !value || size != f.size) {
                return CUBLAS_STATUS_INVALID_VALUE;
            }
            if (written) {
                *written = f.size;
            }
            if (size > 0) {
                memcpy(value, (const char *)object + f.offset, size);
            }
            return CUBLAS_STATUS_SUCCESS;
        }
    }
    return CUBLAS_STATUS_INVALID_VALUE;
}

} // namespace

size_t lt_alive(bool list)
{
    const lt_lists &l = lists();
    const size_t n = l.handles.size() + l.layouts.size() + l.descs.size() + l.preferences.size();
    if (list && n > 0) {
        fprintf(stderr,
                "simt: alive: cuBLASLt: %zu handles, %zu layouts, %zu descriptors, %zu "
                "preferences\n",
                l.handles.size(), l.layouts.size(), l.descs.size(), l.preferences.size());
    }
    return n;
}

} // namespace simt

using namespace simt;

extern "C" {

cublasStatus_t cublasLtCreate(cublasLtHandle_t *handle)
{
    lt_call c("cublasLtCreate", CUBLAS_STATUS_NOT_INITIALIZED);
    if (!c.refused()) {
        lists().handles.push_back(new lt_handle{1});
        *handle = (cublasLtHandle_t)lists().handles.back();
    }
    return c.done(CUBLAS_STATUS_SUCCESS);
}

cublasStatus_t cublasLtDestroy(cublasLtHandle_t handle)
{
    lt_call c("cublasLtDestroy", CUBLAS_STATUS_NOT_INITIALIZED);
    return c.done(destroy(&lists().handles, (lt_handle *)handle));
}

size_t cublasLtGetVersion(void)
{
    return 130000;
}

size_t cublasLtGetCudartVersion(void)
{
    return CUDART_VERSION;
}

cublasStatus_t cublasLtGetProperty(libraryPropertyType type, int *value)
{
    *value = type == MAJOR_VERSION ? 13 : 0;
    return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasLtMatrixLayoutCreate(cublasLtMatrixLayout_t *layout, cudaDataType type,
                                          uint64_t rows, uint64_t cols, int64_t ld)
{
    lt_call c("cublasLtMatrixLayoutCreate", CUBLAS_STATUS_ALLOC_FAILED);
    if (!c.refused()) {
        *layout = new simt_layout{type, CUBLASLT_ORDER_COL, rows, cols, ld, 1, 0};
        lists().layouts.push_back(*layout);
    }
    return c.done(CUBLAS_STATUS_SUCCESS);
}

cublasStatus_t cublasLtMatrixLayoutDestroy(cublasLtMatrixLayout_t layout)
{
    lt_call c("cublasLtMatrixLayoutDestroy", CUBLAS_STATUS_INVALID_VALUE);
    return c.done(destroy(&lists().layouts, layout));
}

cublasStatus_t cublasLtMatrixLayoutSetAttribute(cublasLtMatrixLayout_t layout,
                                                cublasLtMatrixLayoutAttribute_t attr,
                                                const void *value, size_t size)
{
    lt_call c("cublasLtMatrixLayoutSetAttribute", CUBLAS_STATUS_INVALID_VALUE);
    return c.done(known(lists().layouts, layout)
                      ? set_field(layout_fields, layout, attr, value, size)
                      : CUBLAS_STATUS_INVALID_VALUE);
}

cublasStatus_t cublasLtMatrixLayoutGetAttribute(cublasLtMatrixLayout_t layout,
                                                cublasLtMatrixLayoutAttribute_t attr, void *value,
                                                size_t size, size_t *written)
{
    lt_call c("cublasLtMatrixLayoutGetAttribute", CUBLAS_STATUS_INVALID_VALUE);
    return c.done(known(lists().layouts, layout)
                      ? get_field(layout_fields, layout, attr, value, size, written)
                      : CUBLAS_STATUS_INVALID_VALUE);
}

cublasStatus_t cublasLtMatmulDescCreate(cublasLtMatmulDesc_t *desc, cublasComputeType_t compute,
                                        cudaDataType_t scale)
{
    lt_call c("cublasLtMatmulDescCreate", CUBLAS_STATUS_ALLOC_FAILED);
    if (!c.refused()) {
        *desc = new simt_matmul_desc();
        (*desc)->compute = compute;
        (*desc)->scale = scale;
        (*desc)->epilogue = CUBLASLT_EPILOGUE_DEFAULT;
        (*desc)->aux_type = (*desc)->bias_type = -1;
        (*desc)->fill_mode = 2; /* CUBLAS_FILL_MODE_FULL */
        lists().descs.push_back(*desc);
    }
    return c.done(CUBLAS_STATUS_SUCCESS);
}

cublasStatus_t cublasLtMatmulDescDestroy(cublasLtMatmulDesc_t desc)
{
    lt_call c("cublasLtMatmulDescDestroy", CUBLAS_STATUS_INVALID_VALUE);
    return c.done(destroy(&lists().descs, desc));
}

cublasStatus_t cublasLtMatmulDescSetAttribute(cublasLtMatmulDesc_t desc,
                                              cublasLtMatmulDescAttributes_t attr,
                                              const void *value, size_t size)
{
    lt_call c("cublasLtMatmulDescSetAttribute", CUBLAS_STATUS_INVALID_VALUE);
    if (c.refused() || !known(lists().descs, desc)) {
        return c.done(CUBLAS_STATUS_INVALID_VALUE);
    }
    return c.done(set_field(desc_fields, desc, attr, value, size));
}

cublasStatus_t cublasLtMatmulDescGetAttribute(cublasLtMatmulDesc_t desc,
                                              cublasLtMatmulDescAttributes_t attr, void *value,
                                              size_t size, size_t *written)
{
    lt_call c("cublasLtMatmulDescGetAttribute", CUBLAS_STATUS_INVALID_VALUE);
    return c.done(known(lists().descs, desc)
                      ? get_field(desc_fields, desc, attr, value, size, written)
                      : CUBLAS_STATUS_INVALID_VALUE);
}

cublasStatus_t cublasLtMatmulPreferenceCreate(cublasLtMatmulPreference_t *preference)
{
    lt_call c("cublasLtMatmulPreferenceCreate", CUBLAS_STATUS_ALLOC_FAILED);
    if (!c.refused()) {
        *preference = new simt_preference{0, 7, 256, 256, 256, 256, 0, ~(uint64_t)0, 0.0f};
        lists().preferences.push_back(*preference);
    }
    return c.done(CUBLAS_STATUS_SUCCESS);
}

cublasStatus_t cublasLtMatmulPreferenceDestroy(cublasLtMatmulPreference_t preference)
{
    lt_call c("cublasLtMatmulPreferenceDestroy", CUBLAS_STATUS_INVALID_VALUE);
    return c.done(destroy(&lists().preferences, preference));
}

cublasStatus_t cublasLtMatmulPreferenceSetAttribute(cublasLtMatmulPreference_t preference,
                                                    cublasLtMatmulPreferenceAttributes_t attr,
                                                    const void *value, size_t size)
{
    lt_call c("cublasLtMatmulPreferenceSetAttribute", CUBLAS_STATUS_INVALID_VALUE);
    if (c.refused() || !known(lists().preferences, preference)) {
        return c.done(CUBLAS_STATUS_INVALID_VALUE);
    }
    return c.done(set_field(preference_fields, preference, attr, value, size));
}

cublasStatus_t cublasLtMatmulAlgoGetHeuristic(cublasLtHandle_t handle, cublasLtMatmulDesc_t desc,
                                              cublasLtMatrixLayout_t a, cublasLtMatrixLayout_t b,
                                              cublasLtMatrixLayout_t c, cublasLtMatrixLayout_t d,
                                              cublasLtMatmulPreference_t preference, int asked,
                                              cublasLtMatmulHeuristicResult_t results[], int *found)
{
    lt_call call("cublasLtMatmulAlgoGetHeuristic", CUBLAS_STATUS_NOT_SUPPORTED);
    const problem p = {desc, a, b, c, d};
    if (found) {
        *found = 0;
    }
    if (call.refused() || !known(lists().handles, (lt_handle *)handle) || !all_known(p) ||
        !known(lists().preferences, preference) || asked <= 0 || !results || !found) {
        return call.done(CUBLAS_STATUS_INVALID_VALUE);
    }
    const cublasStatus_t s = check_problem(p);
    if (s != CUBLAS_STATUS_SUCCESS) {
        return call.done(s);
    }
    static const uint64_t workspaces[] = {256 * 1024, 0, 64 * 1024};
    for (uint64_t id = 0; id < 3 && *found < asked; id++) {
        if (workspaces[id] <= preference->workspace) {
            cublasLtMatmulHeuristicResult_t r = {};
            r.algo = make_algo(p, *preference, id, workspaces[id]);
            r.workspaceSize = workspaces[id];
            r.state = CUBLAS_STATUS_SUCCESS;
            r.wavesCount = 0.5f;
            results[(*found)++] = r;
        }
    }
    return call.done(CUBLAS_STATUS_SUCCESS);
}

cublasStatus_t cublasLtMatmulAlgoCheck(cublasLtHandle_t handle, cublasLtMatmulDesc_t desc,
                                       cublasLtMatrixLayout_t a, cublasLtMatrixLayout_t b,
                                       cublasLtMatrixLayout_t c, cublasLtMatrixLayout_t d,
                                       const cublasLtMatmulAlgo_t *algo,
                                       cublasLtMatmulHeuristicResult_t *result)
{
    lt_call call("cublasLtMatmulAlgoCheck", CUBLAS_STATUS_NOT_SUPPORTED);
    const problem p = {desc, a, b, c, d};
    if (call.refused() || !known(lists().handles, (lt_handle *)handle) || !all_known(p) || !algo ||
        !result) {
        return call.done(CUBLAS_STATUS_INVALID_VALUE);
    }
    const cublasStatus_t s = check_problem(p);
    if (s != CUBLAS_STATUS_SUCCESS || !algo_fits(*algo, p)) {
        return call.done(s != CUBLAS_STATUS_SUCCESS ? s : CUBLAS_STATUS_NOT_SUPPORTED);
    }
    memset(result, 0, sizeof *result);
    result->algo = *algo;
    result->workspaceSize = algo_workspace(*algo);
    return call.done(CUBLAS_STATUS_SUCCESS);
}

cublasStatus_t cublasLtMatmulAlgoConfigGetAttribute(const cublasLtMatmulAlgo_t *algo,
                                                    cublasLtMatmulAlgoConfigAttributes_t attr,
                                                    void *value, size_t size, size_t *written)
{
    lt_call call("cublasLtMatmulAlgoConfigGetAttribute", CUBLAS_STATUS_INVALID_VALUE);
    if (call.refused() || !algo || !value || size != sizeof(int32_t)) {
        return call.done(CUBLAS_STATUS_INVALID_VALUE);
    }
    const int32_t id = attr == CUBLASLT_ALGO_CONFIG_ID ? (int32_t)(algo->data[0] & 0xFF) : 0;
    memcpy(value, &id, sizeof id);
    if (written) {
        *written = sizeof id;
    }
    return call.done(CUBLAS_STATUS_SUCCESS);
}

cublasStatus_t cublasLtMatmul(cublasLtHandle_t handle, cublasLtMatmulDesc_t desc, const void *alpha,
                              const void *A, cublasLtMatrixLayout_t a, const void *B,
                              cublasLtMatrixLayout_t b, const void *beta, const void *C,
                              cublasLtMatrixLayout_t c, void *D, cublasLtMatrixLayout_t d,
                              const cublasLtMatmulAlgo_t *algo, void *workspace,
                              size_t workspace_size, cudaStream_t stream)
{
    lt_call call("cublasLtMatmul", CUBLAS_STATUS_EXECUTION_FAILED);
    const problem p = {desc, a, b, c, d};
    if (call.refused() || !known(lists().handles, (lt_handle *)handle) || !all_known(p) || !alpha ||
        !beta) {
        return call.done(CUBLAS_STATUS_INVALID_VALUE);
    }
    cublasStatus_t s = check_problem(p);
    if (s != CUBLAS_STATUS_SUCCESS) {
        return call.done(s);
    }
    const simt_preference whatever = {0, 7, 16, 16, 16, 16, 0, 0, 0.0f};
    const cublasLtMatmulAlgo_t used = algo ? *algo : make_algo(p, whatever, 1, 0);
    if (!algo_fits(used, p)) {
        return call.done(
            no(CUBLAS_STATUS_INVALID_VALUE, "the algorithm was chosen for another matmul"));
    }
    if (workspace_size < algo_workspace(used)) {
        return call.done(no(CUBLAS_STATUS_INVALID_VALUE,
                            "workspace of %zu bytes, the algorithm needs "
                            "%zu",
                            workspace_size, (size_t)algo_workspace(used)));
    }
    auto w = std::make_shared<matmul_work>();
    w->name = "cublasLtMatmul";
    w->desc = *desc;
    w->a = *a;
    w->b = *b;
    w->c = *c;
    w->d = *d;
    w->A = A;
    w->B = B;
    w->C = C;
    w->D = D;
    w->workspace = workspace;
    w->workspace_used = algo_workspace(used);
    if (desc->pointer_mode == CUBLASLT_POINTER_MODE_HOST) {
        memcpy(&w->alpha, alpha, sizeof w->alpha);
        memcpy(&w->beta, beta, sizeof w->beta);
    } else if (desc->pointer_mode == CUBLASLT_POINTER_MODE_DEVICE && inside(alpha, 4) &&
               inside(beta, 4)) {
        w->alpha_dev = alpha;
        w->beta_dev = beta;
    } else {
        return call.done(no(CUBLAS_STATUS_NOT_SUPPORTED, "pointer mode %d", desc->pointer_mode));
    }
    s = check_pointers(*w, used);
    if (s == CUBLAS_STATUS_SUCCESS && submit(stream, w) != cudaSuccess) {
        s = CUBLAS_STATUS_EXECUTION_FAILED;
    }
    return call.done(s);
}

} // extern "C"
