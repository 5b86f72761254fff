/* What the machine's processors are and may do, and what memory there is. */
#ifndef VAE_MACHINE_H
#define VAE_MACHINE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* "AMD EPYC ..." as the system calls the CPU, or "unknown CPU". */
void vae_cpu_name(char *text, size_t size);

/* Those instruction sets that matter here and that processor and system offer, "avx2 fma avx512
 * avx512_bf16 amx_bf16", with a space between; "" if it has none of them. avx512 is F, BW, DQ and
 * VL together. */
void vae_cpu_instructions(char *text, size_t size);

/* Bytes of memory, used or not: the machine's, or what this process's control groups allow it, if
 * that is less; 0 = the system does not say. */
size_t vae_machine_memory(void);
/* Are count items no more than that? An overcommitting kernel gives what there is not, and kills
 * who then fills it. */
bool vae_machine_holds(uint64_t count, size_t item);

#endif
