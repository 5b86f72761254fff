/* Which instruction set level the CPU backend uses. VAE_ISA in the environment, one of the names
 * below, lowers it, to compare levels or to test the lower ones; it never raises it above the
 * machine's. */
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#ifdef __linux__
#include <sys/syscall.h>
#include <unistd.h>
#endif

#include "backend/cpu/kernels.h"
#include "base/machine.h"

extern const cpu_kernels vae_cpu_kernels_baseline;
#ifdef __x86_64__
extern const cpu_kernels vae_cpu_kernels_avx2, vae_cpu_kernels_avx512;
#endif

#if defined(__x86_64__) && defined(__linux__)
/* Linux has room for tiles in the contexts of a process's threads once it was asked for it, which
 * costs nothing before a thread uses them. */
static bool tiles_granted(void)
{
    enum { ARCH_REQ_XCOMP_PERM = 0x1023, XFEATURE_XTILEDATA = 18 };
    char offers[128];
    vae_cpu_instructions(offers, sizeof offers);
    return strstr(offers, "amx_bf16") != NULL &&
           syscall(SYS_arch_prctl, ARCH_REQ_XCOMP_PERM, XFEATURE_XTILEDATA) == 0;
}
#else
static bool tiles_granted(void)
{
    return false;
}
#endif

static vae_cpu_level machine_level(void)
{
#ifdef __x86_64__
    __builtin_cpu_init();
    if (!__builtin_cpu_supports("avx2") || !__builtin_cpu_supports("fma")) {
        return VAE_CPU_BASELINE;
    }
    bool avx512 = __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
                  __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl");
    if (!avx512) {
        return VAE_CPU_AVX2;
    }
    if (!__builtin_cpu_supports("avx512bf16")) {
        return VAE_CPU_AVX512;
    }
    return tiles_granted() ? VAE_CPU_AMX_BF16 : VAE_CPU_AVX512_BF16;
#else
    return VAE_CPU_BASELINE;
#endif
}

static const char *const names[] = {"baseline", "avx2", "avx512", "avx512_bf16", "amx_bf16"};

const char *vae_cpu_level_name(vae_cpu_level level)
{
    return names[level];
}

vae_status vae_cpu_level_choose(vae_cpu_level *level, vae_error *err)
{
    *level = machine_level();
    const char *wish = getenv("VAE_ISA");
    if (wish == NULL || wish[0] == '\0') {
        return VAE_OK;
    }
    for (int i = 0; i <= VAE_CPU_AMX_BF16; i++) {
        if (strcmp(wish, names[i]) == 0) {
            *level = (vae_cpu_level)i < *level ? (vae_cpu_level)i : *level;
            return VAE_OK;
        }
    }
    return vae_fail(
        err, VAE_ERR_USAGE,
        "VAE_ISA=%s: expected baseline, avx2, avx512, avx512_bf16 or amx_bf16; unset it "
        "for the best",
        wish);
}

const cpu_kernels *vae_cpu_kernels(vae_cpu_level level)
{
#ifdef __x86_64__
    if (level >= VAE_CPU_AVX512) {
        return &vae_cpu_kernels_avx512;
    }
    if (level == VAE_CPU_AVX2) {
        return &vae_cpu_kernels_avx2;
    }
#endif
    (void)level;
    return &vae_cpu_kernels_baseline;
}
