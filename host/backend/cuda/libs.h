/* cuBLASLt, loaded when a backend is opened: the program starts where there is no CUDA. */
#ifndef VAE_BACKEND_CUDA_LIBS_H
#define VAE_BACKEND_CUDA_LIBS_H

#include <cublasLt.h>
#include <stdbool.h>
#include <stddef.h>

/* The functions used: name in the table, name in the library. */
#define VAE_CUBLASLT_FUNCTIONS(X)                                                                  \
    X(create, cublasLtCreate)                                                                      \
    X(destroy, cublasLtDestroy)                                                                    \
    X(version, cublasLtGetVersion)                                                                 \
    X(status_text, cublasLtGetStatusString)                                                        \
    X(desc_create, cublasLtMatmulDescCreate)                                                       \
    X(desc_destroy, cublasLtMatmulDescDestroy)                                                     \
    X(desc_set, cublasLtMatmulDescSetAttribute)                                                    \
    X(layout_create, cublasLtMatrixLayoutCreate)                                                   \
    X(layout_destroy, cublasLtMatrixLayoutDestroy)                                                 \
    X(preference_create, cublasLtMatmulPreferenceCreate)                                           \
    X(preference_destroy, cublasLtMatmulPreferenceDestroy)                                         \
    X(preference_set, cublasLtMatmulPreferenceSetAttribute)                                        \
    X(heuristic, cublasLtMatmulAlgoGetHeuristic)                                                   \
    X(algo_get, cublasLtMatmulAlgoConfigGetAttribute)                                              \
    X(matmul, cublasLtMatmul)

#define VAE_CUBLASLT_MEMBER(member, function) __typeof__(function) *member;
typedef struct {
    void *library;
    VAE_CUBLASLT_FUNCTIONS(VAE_CUBLASLT_MEMBER)
} vae_cublaslt;
#undef VAE_CUBLASLT_MEMBER

/* Fills the table from the shared library of the major version this was compiled with. False with
 * the reason in `why`. The library stays loaded: CUDA does not care to be unloaded. */
bool vae_cublaslt_load(vae_cublaslt *lt, char *why, size_t size);

#endif
