/* Limits of control groups, of version 2 and 1, read from their folders. */
#include "base/cgroup.h"

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

enum { PATH_BYTES = 4096 };

/* What is limited: its controller's name in version 1, and what a group's folder says of it, which
 * lowers *least (0: no limit so far). */
typedef struct {
    const char *controller;
    void (*look_at)(const char *folder, double *least);
} resource;

/* The first number of the file, or of the file's words the second; -1 if it has none ("max"). */
static bool read_limit(const char *folder, const char *name, double *first, double *second)
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

static void at_most(double *least, double limit)
{
    if (limit > 0 && (*least == 0 || limit < *least)) {
        *least = limit;
    }
}

static void look_at_processors(const char *folder, double *least)
{
    double quota, period, unused;
    if (read_limit(folder, "cpu.max", &quota, &period) && period > 0) {
        at_most(least, quota / period);
    }
    if (read_limit(folder, "cpu.cfs_quota_us", &quota, &unused) &&
        read_limit(folder, "cpu.cfs_period_us", &period, &unused) && period > 0) {
        at_most(least, quota / period);
    }
}

static void look_at_memory(const char *folder, double *least)
{
    double bytes, unused;
    if (read_limit(folder, "memory.max", &bytes, &unused)) {
        at_most(least, bytes);
    }
    if (read_limit(folder, "memory.limit_in_bytes", &bytes, &unused)) {
        at_most(least, bytes);
    }
}

/* A group and all above it: any may have a limit. In a container the path may be one of the host's,
 * of which only the root is there. */
static void look_up(const resource *of, const char *hierarchy, const char *group, double *least)
{
    char path[PATH_BYTES];
    const size_t root = strlen(hierarchy);
    if (snprintf(path, sizeof path, "%s%s", hierarchy, group) >= PATH_BYTES) {
        return;
    }
    of->look_at(path, least);
    while (strlen(path) > root) {
        *strrchr(path, '/') = '\0'; /* a group's name begins with one */
        of->look_at(path, least);
    }
}

/* True if `controllers`, a list with commas, has that one. */
static bool lists(const char *controllers, const char *name)
{
    const size_t length = strlen(name);
    for (const char *at = controllers; at != NULL; at = strchr(at, ',')) {
        at += *at == ',';
        if (strncmp(at, name, length) == 0 && (at[length] == ',' || at[length] == '\0')) {
            return true;
        }
    }
    return false;
}

/* 0: no limit. */
static double least_of(const resource *of, const char *membership, const char *root)
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
            look_up(of, root, group, &least);
        } else if (lists(controllers, of->controller) &&
                   snprintf(hierarchy, sizeof hierarchy, "%s/%s", root, controllers) < PATH_BYTES) {
            look_up(of, hierarchy, group, &least);
        }
    }
    if (file != NULL) {
        fclose(file);
    }
    return least;
}

size_t vae_group_processors(const char *membership, const char *root)
{
    const double least = least_of(&(resource){"cpu", look_at_processors}, membership, root);
    const size_t whole = (size_t)least;
    return whole + ((double)whole < least);
}

size_t vae_group_memory(const char *membership, const char *root)
{
    const double least = least_of(&(resource){"memory", look_at_memory}, membership, root);
    return least < 0x1p62 ? (size_t)least : 0; /* version 1 writes no limit as more */
}
