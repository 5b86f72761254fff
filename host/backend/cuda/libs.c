/* Finding cuBLASLt and NCCL, and their functions. */
#include "backend/cuda/libs.h"

#include <dlfcn.h>
#include <stdio.h>
#include <string.h>

#define TEXT_(x) #x
#define TEXT(x)  TEXT_(x)

/* The first of n names that can be loaded; why the first could not. */
static void *open_library(const char *const *names, size_t n, char *why, size_t size)
{
    void *library = NULL;
    for (size_t i = 0; library == NULL && i < n; i++) {
        library = dlopen(names[i], RTLD_NOW | RTLD_LOCAL);
        if (library == NULL && i == 0) {
            const char *text = dlerror();
            snprintf(why, size, "%s", text != NULL ? text : names[i]);
        }
    }
    return library;
}

static bool find(void *library, const char *name, void *function, char *why, size_t size)
{
    void *symbol = dlsym(library, name);
    if (symbol == NULL) {
        snprintf(why, size, "the library lacks %s", name);
        return false;
    }
    memcpy(function, &symbol, sizeof symbol); /* ISO C has no cast from object to function */
    return true;
}

bool vae_cublaslt_load(vae_cublaslt *lt, char *why, size_t size)
{
    static const char *const names[] = {
        "libcublasLt.so." TEXT(CUBLAS_VER_MAJOR),
        "/usr/local/cuda/lib64/libcublasLt.so." TEXT(CUBLAS_VER_MAJOR),
    };
    void *library = open_library(names, sizeof names / sizeof *names, why, size);
    if (library == NULL) {
        return false;
    }
    lt->library = library;
#define FIND(member, function)                                                                     \
    if (!find(library, #function, &lt->member, why, size)) {                                       \
        return false;                                                                              \
    }
    VAE_CUBLASLT_FUNCTIONS(FIND)
#undef FIND
    return true;
}

bool vae_nccl_load(vae_nccl *nccl, char *why, size_t size)
{
    static const char *const names[] = {"libnccl.so.2", "/usr/local/cuda/lib64/libnccl.so.2"};
    void *library = open_library(names, sizeof names / sizeof *names, why, size);
    if (library == NULL) {
        return false;
    }
#define FIND(member, function)                                                                     \
    nccl->names.member = #function;                                                                \
    if (!find(library, #function, &nccl->member, why, size)) {                                     \
        return false;                                                                              \
    }
    VAE_NCCL_FUNCTIONS(FIND)
#undef FIND
    return true;
}
