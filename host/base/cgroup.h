/* What the control groups of a process allow it. */
#ifndef VAE_CGROUP_H
#define VAE_CGROUP_H

#include <stddef.h>

#define VAE_GROUPS_OF_THIS "/proc/self/cgroup"
#define VAE_GROUPS_AT      "/sys/fs/cgroup"

/* The least of the limits of the groups that `membership` (VAE_GROUPS_OF_THIS) names and of all
 * above them, under `root` (VAE_GROUPS_AT), of version 2 and 1; 0: none. */

/* Processors whose time the quota pays for, rounded up (cpu.max; cpu.cfs_quota_us). */
size_t vae_group_processors(const char *membership, const char *root);
/* Bytes of memory (memory.max; memory.limit_in_bytes). */
size_t vae_group_memory(const char *membership, const char *root);

#endif
