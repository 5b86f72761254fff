/* How many threads there are to be (base/pool.h). */
#include <pthread.h>
#include <sched.h>
#include <stdbool.h>
#include <stdlib.h>
#include <strings.h>

#include "base/cgroup.h"
#include "base/pool.h"

static size_t own_quota; /* a file's worth of time to find out: once */

static void find_quota(void)
{
    own_quota = vae_group_processors(VAE_GROUPS_OF_THIS, VAE_GROUPS_AT);
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
