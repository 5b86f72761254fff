/* What the machine's processors are and may do, and what memory there is. */
#include "base/machine.h"

#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>
#ifdef __x86_64__
#include <cpuid.h>
#endif

#include "base/cgroup.h"

void vae_cpu_name(char *text, size_t size)
{
    char line[256];
    FILE *f = fopen("/proc/cpuinfo", "r");
    snprintf(text, size, "unknown CPU");
    while (f != NULL && fgets(line, sizeof line, f) != NULL) {
        const char *colon = strchr(line, ':');
        if (strncmp(line, "model name", 10) == 0 && colon != NULL && colon[1] != '\0') {
            line[strcspn(line, "\n")] = '\0';
            snprintf(text, size, "%s", colon + 2);
            break;
        }
    }
    if (f != NULL) {
        fclose(f);
    }
}

#ifdef __x86_64__
/* Register states that the system saves: without that, what the processor offers is of no use. */
static uint64_t saved_state(void)
{
    uint32_t a, b, c, d, low, high;
    if (!__get_cpuid(1, &a, &b, &c, &d) || (c & bit_OSXSAVE) == 0) {
        return 0;
    }
    __asm__ volatile("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
    return (uint64_t)high << 32 | low;
}

static bool has(uint64_t word, uint64_t bits)
{
    return (word & bits) == bits;
}
#endif

void vae_cpu_instructions(char *text, size_t size)
{
    size_t at = 0;
    text[0] = '\0';
#ifdef __x86_64__
    enum { EBX, ECX, EDX, EAX1 };
    uint32_t leaf1[4] = {0}, word[4] = {0}, unused;
    const uint64_t state = saved_state(), avx = 0x6, avx512 = 0xe6, amx = 0x60000;
    __get_cpuid(1, &leaf1[0], &leaf1[1], &leaf1[2], &leaf1[3]);
    __get_cpuid_count(7, 0, &unused, &word[EBX], &word[ECX], &word[EDX]);
    __get_cpuid_count(7, 1, &word[EAX1], &unused, &unused, &unused);
    const struct {
        const char *name;
        uint32_t word, bits;
        uint64_t state;
    } sets[] = {
        {"avx2", word[EBX], 1u << 5, avx},
        {"fma", leaf1[2], 1u << 12, avx},
        {"avx512", word[EBX], 1u << 16 | 1u << 17 | 1u << 30 | 1u << 31, avx512},
        {"avx512_bf16", word[EAX1], 1u << 5, avx512},
        {"amx_bf16", word[EDX], 1u << 22 | 1u << 24, amx},
    };
    for (size_t i = 0; i < sizeof sets / sizeof sets[0]; i++) {
        if (has(sets[i].word, sets[i].bits) && has(state, sets[i].state) && at < size) {
            at += (size_t)snprintf(text + at, size - at, "%s%s", at > 0 ? " " : "", sets[i].name);
        }
    }
#else
    (void)at;
    (void)size;
#endif
}

static size_t memory; /* a few files' worth of time to find out: once */

static void find_memory(void)
{
    const long pages = sysconf(_SC_PHYS_PAGES), page = sysconf(_SC_PAGESIZE);
    const size_t limit = vae_group_memory(VAE_GROUPS_OF_THIS, VAE_GROUPS_AT);
    memory = pages > 0 && page > 0 ? (size_t)pages * (size_t)page : 0;
    if (limit > 0 && (memory == 0 || limit < memory)) {
        memory = limit;
    }
}

size_t vae_machine_memory(void)
{
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    pthread_once(&once, find_memory);
    return memory;
}

bool vae_machine_holds(uint64_t count, size_t item)
{
    const size_t all = vae_machine_memory();
    return all == 0 || count <= all / item;
}
