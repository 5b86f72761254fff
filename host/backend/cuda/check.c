/* What calls to CUDA and cuBLASLt answer: the first error is kept, and which call gave it. */
#include <string.h>

#include "backend/cuda/state.h"

static int name_length(const char *call)
{
    return (int)strcspn(call, "(");
}

bool vae_cuda_check(cuda_backend *be, cudaError_t status, const char *call)
{
    if (status != cudaSuccess) {
        vae_fail(&be->err, VAE_ERR_RUNTIME, "CUDA: %.*s failed on GPU %d: %s (%s)",
                 name_length(call), call, be->device, cudaGetErrorString(status),
                 cudaGetErrorName(status));
    }
    return status == cudaSuccess;
}

bool vae_cublas_check(cuda_backend *be, cublasStatus_t status, const char *call)
{
    if (status != CUBLAS_STATUS_SUCCESS) {
        vae_fail(&be->err, VAE_ERR_RUNTIME, "cuBLASLt: %.*s failed on GPU %d: %s",
                 name_length(call), call, be->device, be->lt.status_text(status));
    }
    return status == CUBLAS_STATUS_SUCCESS;
}
