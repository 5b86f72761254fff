/* In front of the C library's dlfcn.h: libcublasLt and libnccl are found in this program instead of on disk, so
 * that code which loads it at run time is run as it stands. VAE_SIMT_NO_CUBLASLT=1: it is not
 * found; =symbol (e.g. cublasLtMatmul): it is, but lacks that; VAE_SIMT_NO_NCCL alike. Other libraries load as always. */
#ifndef SIMT_DLFCN_H
#define SIMT_DLFCN_H

#pragma GCC system_header

#include_next <dlfcn.h>

#ifdef __cplusplus
extern "C" {
#endif
void *simt_dlopen(const char *name, int flags);
void *simt_dlsym(void *library, const char *symbol);
int simt_dlclose(void *library);
char *simt_dlerror(void);
#ifdef __cplusplus
}
#endif

#ifndef SIMT_REAL_DLFCN
#define dlopen  simt_dlopen
#define dlsym   simt_dlsym
#define dlclose simt_dlclose
#define dlerror simt_dlerror
#endif

#endif
