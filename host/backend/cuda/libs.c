/* Finding cuBLASLt and its functions. */
#include "backend/cuda/libs.h"

#include <dlfcn.h>
#include <stdio.h>
#include <string.h>

#define TEXT_(x) #x
#define TEXT(x)  TEXT_(x)

static void *open_library(char *why, size_t size)
{
    static const char *const names[] = {
        "libcublasLt.so." TEXT(CUBLAS_VER_MAJOR),
        "/usr/local/cuda/lib64/libcublasLt.so." TEXT(CUBLAS_VER_MAJOR),
    };
    void *library = NULL;
    for (size_t i = 0; library == NULL && i < sizeof names / sizeof *names; i++) {
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
        snprintf(why, size, "libcublasLt lacks %s", name);
        return false;
    }
    memcpy(function, &symbol, sizeof symbol); /* ISO C has no cast from object to function */
    return true;
}

bool vae_cublaslt_load(vae_cublaslt *lt, char *why, size_t size)
{
    void *library = open_library(why, size);
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
