/* How many threads there are to be (base/pool.h). */
#include <pthread.h>
#include <sched.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <unistd.h>

#include "base/pool.h"

enum { PATH_BYTES = 4096 };

/* The first number of the file, or of the file's words the second; -1 if it has none ("max"). */
static bool read_quota(const char *folder, const char *name, double *first, double *second)
{
    char path[PATH_BYTES + 64];
    snprintf(path, sizeof path, "%s/%s", folder, name);
    FILE *file = fopen(path, "re");
    if (file == NULL) {
        return false;
    }
    *first = *second = -1;
    const int n = fscanf(file, "%lf %lf", first, second);
    fclose(file);
    return n >= 1;
}

/* least: processors so far, or 0 for no bound. */
static void at_most(double *least, double quota, double period)
{
    if (quota > 0 && period > 0 && (*least == 0 || quota / period < *least)) {
        *least = quota / period;
    }
}

static void look_at(const char *folder, double *least)
{
    double quota, period, unused;
    if (read_quota(folder, "cpu.max", &quota, &period)) {
        at_most(least, quota, period);
    }
    if (read_quota(folder, "cpu.cfs_quota_us", &quota, &unused) &&
        read_quota(folder, "cpu.cfs_period_us", &period, &unused)) {
        at_most(least, quota, period);
    }
}

/* A group and all above it: any may have a quota. In a container the path may be one of the host's,
 * of which only the root is there. */
static void look_up(const char *hierarchy, const char *group, double *least)
{
    char path[PATH_BYTES];
    const size_t root = strlen(hierarchy);
    if (snprintf(path, sizeof path, "%s%s", hierarchy, group) >= PATH_BYTES) {
        return;
    }
    look_at(path, least);
    while (strlen(path) > root) {
        *strrchr(path, '/') = '\0'; /* a group's name begins with one */
        look_at(path, least);
    }
}

/* True if `controllers`, a list with commas, has cpu. */
static bool has_cpu(const char *controllers)
{
    for (const char *at = controllers; at != NULL; at = strchr(at, ',')) {
        at += *at == ',';
        if (strncmp(at, "cpu", 3) == 0 && (at[3] == ',' || at[3] == '\0')) {
            return true;
        }
    }
    return false;
}

size_t vae_quota_processors(const char *membership, const char *root)
{
    char line[2 * PATH_BYTES], hierarchy[PATH_BYTES];
    double least = 0;
    FILE *file = fopen(membership, "re");
    while (file != NULL && fgets(line, sizeof line, file) != NULL) {
        /* number:controllers:path; no controllers are version 2 */
        line[strcspn(line, "\n")] = '\0';
        const char *controllers = strchr(line, ':');
        char *colon = controllers != NULL ? strchr(++controllers, ':') : NULL;
        if (colon == NULL) {
            continue;
        }
        *colon = '\0';
        const char *group = colon + 1;
        group = group[0] != '/' || group[1] == '\0' ? "" : group;
        if (controllers[0] == '\0') {
            look_up(root, group, &least);
        } else if (has_cpu(controllers) &&
                   snprintf(hierarchy, sizeof hierarchy, "%s/%s", root, controllers) < PATH_BYTES) {
            look_up(hierarchy, group, &least);
        }
    }
    if (file != NULL) {
        fclose(file);
    }
    const size_t whole = (size_t)least;
    return whole + ((double)whole < least);
}

static size_t own_quota; /* a file's worth of time to find out: once */

static void find_quota(void)
{
    own_quota = vae_quota_processors("/proc/self/cgroup", "/sys/fs/cgroup");
}

static size_t processors(void)
{
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    size_t n = 0;
    for (size_t room = CPU_SETSIZE; n == 0 && room <= (size_t)CPU_SETSIZE << 6; room *= 2) {
        cpu_set_t *set = CPU_ALLOC(room); /* a kernel for more of them wants a larger set */
        if (set != NULL && sched_getaffinity(0, CPU_ALLOC_SIZE(room), set) == 0) {
            n = (size_t)CPU_COUNT_S(CPU_ALLOC_SIZE(room), set);
        }
        CPU_FREE(set);
    }
    pthread_once(&once, find_quota);
    n = n > 0 ? n : 1;
    return own_quota > 0 && own_quota < n ? own_quota : n;
}

int vae_threads(size_t asked)
{
    const char *text = getenv("OMP_NUM_THREADS");
    if (asked == 0 && text != NULL) {
        const long number = strtol(text, NULL, 10); /* of "4,2" or " 4", 4 */
        asked = number > 0 ? (size_t)number : 0;
    }
    asked = asked > 0 ? asked : processors();
    return asked < VAE_MOST_THREADS ? (int)asked : VAE_MOST_THREADS;
}

bool vae_threads_vary(void)
{
    const char *text = getenv("OMP_DYNAMIC");
    return text == NULL || strcasecmp(text, "false") != 0;
}
