/* Names of error codes. */
#include "simt_internal.h"

namespace
{

struct error_name {
    int code;
    const char *name, *text;
};
#define NAME(code, text)                                                                           \
    {                                                                                              \
        code, #code, text                                                                          \
    }

const error_name cuda_names[] = {
    NAME(cudaSuccess, "no error"),
    NAME(cudaErrorInvalidValue, "invalid argument"),
    NAME(cudaErrorMemoryAllocation, "out of memory"),
    NAME(cudaErrorInitializationError, "initialization error"),
    NAME(cudaErrorCudartUnloading, "driver shutting down"),
    NAME(cudaErrorInvalidConfiguration, "invalid configuration argument"),
    NAME(cudaErrorInvalidPitchValue, "invalid pitch argument"),
    NAME(cudaErrorInvalidHostPointer, "invalid host pointer"),
    NAME(cudaErrorInvalidDevicePointer, "invalid device pointer"),
    NAME(cudaErrorInvalidMemcpyDirection, "invalid copy direction for memcpy"),
    NAME(cudaErrorInsufficientDriver,
         "CUDA driver version is insufficient for CUDA runtime version"),
    NAME(cudaErrorDevicesUnavailable, "CUDA-capable device(s) is/are busy or unavailable"),
    NAME(cudaErrorInvalidDeviceFunction, "invalid device function"),
    NAME(cudaErrorNoDevice, "no CUDA-capable device is detected"),
    NAME(cudaErrorInvalidDevice, "invalid device ordinal"),
    NAME(cudaErrorNoKernelImageForDevice,
         "no kernel image is available for execution on the device"),
    NAME(cudaErrorECCUncorrectable, "uncorrectable ECC error encountered"),
    NAME(cudaErrorOperatingSystem, "OS call failed or operation not supported on this OS"),
    NAME(cudaErrorInvalidResourceHandle, "invalid resource handle"),
    NAME(cudaErrorIllegalState, "the operation cannot be performed in the present state"),
    NAME(cudaErrorNotReady, "device not ready"),
    NAME(cudaErrorIllegalAddress, "an illegal memory access was encountered"),
    NAME(cudaErrorLaunchOutOfResources, "too many resources requested for launch"),
    NAME(cudaErrorHostMemoryAlreadyRegistered,
         "part or all of the requested memory range is mapped"),
    NAME(cudaErrorHostMemoryNotRegistered, "pointer does not correspond to a registered region"),
    NAME(cudaErrorMisalignedAddress, "misaligned address"),
    NAME(cudaErrorLaunchFailure, "unspecified launch failure"),
    NAME(cudaErrorCooperativeLaunchTooLarge, "too many blocks in cooperative launch"),
    NAME(cudaErrorNotPermitted, "operation not permitted"),
    NAME(cudaErrorNotSupported, "operation not supported"),
    NAME(cudaErrorStreamCaptureUnsupported, "operation not permitted when stream is capturing"),
    NAME(cudaErrorStreamCaptureInvalidated,
         "operation failed due to a previous error during capture"),
    NAME(cudaErrorStreamCaptureMerge,
         "operation would result in a merge of separate capture sequences"),
    NAME(cudaErrorStreamCaptureUnmatched, "capture was not ended in the same stream as it began"),
    NAME(cudaErrorStreamCaptureUnjoined, "capturing stream has unjoined work"),
    NAME(cudaErrorStreamCaptureIsolation,
         "dependency created on uncaptured work in another stream"),
    NAME(cudaErrorStreamCaptureImplicit,
         "operation would make the legacy stream depend on a capturing blocking stream"),
    NAME(cudaErrorCapturedEvent,
         "operation not permitted on an event last recorded in a capturing stream"),
    NAME(cudaErrorStreamCaptureWrongThread,
         "attempt to terminate a thread-local capture sequence from another thread"),
    NAME(cudaErrorUnknown, "unknown error"),
};

const error_name cublas_names[] = {
    NAME(CUBLAS_STATUS_SUCCESS, "success"),
    NAME(CUBLAS_STATUS_NOT_INITIALIZED, "the library was not initialized"),
    NAME(CUBLAS_STATUS_ALLOC_FAILED, "the resource allocation failed"),
    NAME(CUBLAS_STATUS_INVALID_VALUE, "an invalid value was used as an argument"),
    NAME(CUBLAS_STATUS_ARCH_MISMATCH, "an absent device architectural feature is required"),
    NAME(CUBLAS_STATUS_MAPPING_ERROR, "access to GPU memory space failed"),
    NAME(CUBLAS_STATUS_EXECUTION_FAILED, "the GPU program failed to execute"),
    NAME(CUBLAS_STATUS_INTERNAL_ERROR, "an internal operation failed"),
    NAME(CUBLAS_STATUS_NOT_SUPPORTED, "the functionality requested is not supported"),
    NAME(CUBLAS_STATUS_LICENSE_ERROR, "license error"),
};

template <size_t N> const error_name *find(const error_name (&names)[N], int code)
{
    for (const error_name &n : names) {
        if (n.code == code) {
            return &n;
        }
    }
    return nullptr;
}

} // namespace

extern "C" {

const char *cudaGetErrorName(cudaError_t error)
{
    const error_name *n = find(cuda_names, error);
    return n ? n->name : "unrecognized error code";
}

const char *cudaGetErrorString(cudaError_t error)
{
    const error_name *n = find(cuda_names, error);
    return n ? n->text : "unrecognized error code";
}

const char *cublasLtGetStatusName(cublasStatus_t status)
{
    const error_name *n = find(cublas_names, status);
    return n ? n->name : "CUBLAS_STATUS_UNKNOWN";
}

const char *cublasLtGetStatusString(cublasStatus_t status)
{
    const error_name *n = find(cublas_names, status);
    return n ? n->text : "unknown status";
}

} // extern "C"
