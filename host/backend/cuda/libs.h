/* cuBLASLt, loaded when a backend is opened, and NCCL where ranks share its work: the program
 * starts where there is no CUDA. */
#ifndef VAE_BACKEND_CUDA_LIBS_H
#define VAE_BACKEND_CUDA_LIBS_H

#include <cublasLt.h>
#include <stdbool.h>
#include <stddef.h>

#include "backend/cuda/nccl.h"

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

/* The same of NCCL. */
#define VAE_NCCL_FUNCTIONS(X)                                                                      \
    X(version, ncclGetVersion)                                                                     \
    X(unique_id, ncclGetUniqueId)                                                                  \
    X(init, ncclCommInitRank)                                                                      \
    X(destroy, ncclCommDestroy)                                                                    \
    X(abort, ncclCommAbort)                                                                        \
    X(async_error, ncclCommGetAsyncError)                                                          \
    X(text, ncclGetErrorString)                                                                    \
    X(last_error, ncclGetLastError)                                                                \
    X(sum, ncclAllReduce)

#define VAE_NCCL_MEMBER(member, function) __typeof__(function) *member;
#define VAE_NCCL_NAME(member, function)   const char *member;
typedef struct {
    VAE_NCCL_FUNCTIONS(VAE_NCCL_MEMBER)
    struct {
        VAE_NCCL_FUNCTIONS(VAE_NCCL_NAME)
    } names; /* as the library has them */
} vae_nccl;
#undef VAE_NCCL_MEMBER
#undef VAE_NCCL_NAME

bool vae_nccl_load(vae_nccl *nccl, char *why, size_t size);

#endif
