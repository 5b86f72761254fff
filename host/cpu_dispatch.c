#include "cpu_kernels.h"

extern const cpu_kernels vae_cpu_kernels_baseline;

#ifdef __x86_64__
extern const cpu_kernels vae_cpu_kernels_avx2, vae_cpu_kernels_avx512;

const cpu_kernels *vae_cpu_kernels(void)
{
    __builtin_cpu_init();
    if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
        __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl")) {
        return &vae_cpu_kernels_avx512;
    }
    return __builtin_cpu_supports("avx2") ? &vae_cpu_kernels_avx2 : &vae_cpu_kernels_baseline;
}
#else
const cpu_kernels *vae_cpu_kernels(void)
{
    return &vae_cpu_kernels_baseline;
}
#endif
