/* The backend's own declarations of NCCL are NVIDIA's. This file is compiled (not run) with them and,
 * where it is installed, with NVIDIA's nccl.h: each line holds in both.
 *   cc -std=c11 -fsyntax-only -DOWN -Ihost -Itests/simt/include tests/simt/test_nccl.c
 *   cc -std=c11 -fsyntax-only -I/usr/local/cuda/include tests/simt/test_nccl.c */
#ifdef OWN
#include "backend/cuda/nccl.h"
#elif defined(__has_include)
#if __has_include(<nccl.h>)
#include <nccl.h>
#define REAL
#endif
#endif

#if defined(OWN) || defined(REAL)
#define SAME(name, value) _Static_assert((int)(name) == (value), #name);
SAME(ncclSuccess, 0)
SAME(ncclUnhandledCudaError, 1)
SAME(ncclSystemError, 2)
SAME(ncclInternalError, 3)
SAME(ncclInvalidArgument, 4)
SAME(ncclInvalidUsage, 5)
SAME(ncclRemoteError, 6)
SAME(ncclInProgress, 7)
SAME(ncclFloat, 7)
SAME(ncclSum, 0)
SAME(sizeof(ncclUniqueId), 128)

#define TYPE(name, ...)                                                                            \
    _Static_assert(_Generic(&name, __VA_ARGS__ : 1, default : 0), "the type of " #name);
TYPE(ncclGetVersion, ncclResult_t (*)(int *))
TYPE(ncclGetUniqueId, ncclResult_t (*)(ncclUniqueId *))
TYPE(ncclCommInitRank, ncclResult_t (*)(ncclComm_t *, int, ncclUniqueId, int))
TYPE(ncclCommDestroy, ncclResult_t (*)(ncclComm_t))
TYPE(ncclCommAbort, ncclResult_t (*)(ncclComm_t))
TYPE(ncclCommGetAsyncError, ncclResult_t (*)(ncclComm_t, ncclResult_t *))
TYPE(ncclGetErrorString, const char *(*)(ncclResult_t))
TYPE(ncclGetLastError, const char *(*)(ncclComm_t))
TYPE(ncclAllReduce, ncclResult_t (*)(const void *, void *, size_t, ncclDataType_t, ncclRedOp_t,
                                     ncclComm_t, cudaStream_t))
#endif
