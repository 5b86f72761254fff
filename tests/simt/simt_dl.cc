/* libcublasLt and libnccl as something that can be loaded: include/dlfcn.h. */
#define SIMT_REAL_DLFCN
#include <dlfcn.h>

#include "../../host/backend/cuda/nccl.h"
#include "simt_internal.h"

#include <stdio.h>
#include <stdlib.h>

namespace
{

char library_handle; /* its address is the handle */
thread_local char message[200];

const struct {
    const char *name;
    void *address;
} symbols[] = {
#define SYMBOL(name)                                                                               \
    {                                                                                              \
#name, (void *)name                                                                        \
    }
    SYMBOL(cublasLtCreate),
    SYMBOL(cublasLtDestroy),
    SYMBOL(cublasLtGetVersion),
    SYMBOL(cublasLtGetCudartVersion),
    SYMBOL(cublasLtGetProperty),
    SYMBOL(cublasLtGetStatusName),
    SYMBOL(cublasLtGetStatusString),
    SYMBOL(cublasLtMatrixLayoutCreate),
    SYMBOL(cublasLtMatrixLayoutDestroy),
    SYMBOL(cublasLtMatrixLayoutSetAttribute),
    SYMBOL(cublasLtMatrixLayoutGetAttribute),
    SYMBOL(cublasLtMatmulDescCreate),
    SYMBOL(cublasLtMatmulDescDestroy),
    SYMBOL(cublasLtMatmulDescSetAttribute),
    SYMBOL(cublasLtMatmulDescGetAttribute),
    SYMBOL(cublasLtMatmulPreferenceCreate),
    SYMBOL(cublasLtMatmulPreferenceDestroy),
    SYMBOL(cublasLtMatmulPreferenceSetAttribute),
    SYMBOL(cublasLtMatmulAlgoGetHeuristic),
    SYMBOL(cublasLtMatmulAlgoCheck),
    SYMBOL(cublasLtMatmulAlgoConfigGetAttribute),
    SYMBOL(cublasLtMatmul),
    SYMBOL(ncclGetVersion),
    SYMBOL(ncclGetUniqueId),
    SYMBOL(ncclCommInitRank),
    SYMBOL(ncclCommDestroy),
    SYMBOL(ncclCommAbort),
    SYMBOL(ncclCommGetAsyncError),
    SYMBOL(ncclGetErrorString),
    SYMBOL(ncclGetLastError),
    SYMBOL(ncclAllReduce),
};

/* What of the library is not to be found. */
const char *missing(bool nccl)
{
    const char *v = getenv(nccl ? "VAE_SIMT_NO_NCCL" : "VAE_SIMT_NO_CUBLASLT");
    return v ? v : "";
}

} // namespace

extern "C" {

void *simt_dlopen(const char *name, int flags)
{
    const char *base = name && strrchr(name, '/') ? strrchr(name, '/') + 1 : name;
    const bool nccl = base && strncmp(base, "libnccl.so", 10) == 0;
    if (!base || (!nccl && strncmp(base, "libcublasLt.so", 14) != 0)) {
        return dlopen(name, flags);
    }
    if (strcmp(missing(nccl), "1") == 0) {
        snprintf(message, sizeof message, "%s: cannot open shared object file: No such file", name);
        return nullptr;
    }
    return &library_handle;
}

void *simt_dlsym(void *library, const char *symbol)
{
    if (library != &library_handle) {
        return dlsym(library, symbol);
    }
    for (const auto &s : symbols) {
        const bool nccl = strncmp(symbol, "nccl", 4) == 0;
        if (strcmp(s.name, symbol) == 0 && strcmp(missing(nccl), symbol) != 0) {
            return s.address;
        }
    }
    snprintf(message, sizeof message, "undefined symbol: %s", symbol);
    return nullptr;
}

int simt_dlclose(void *library)
{
    return library == &library_handle ? 0 : dlclose(library);
}

char *simt_dlerror(void)
{
    if (message[0]) {
        static thread_local char text[sizeof message];
        memcpy(text, message, sizeof text);
        message[0] = '\0';
        return text;
    }
    return dlerror();
}

} // extern "C"
