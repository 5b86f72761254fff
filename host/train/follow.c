/* A run of several ranks: the first drives the loop and writes the folder (run.c), the others
 * follow it here. What the first alone knows, from the folder, it tells them, so that they need
 * not see it. */
#include <errno.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "base/file.h"
#include "ranks/ranks.h"
#include "train/run_parts.h"

/* ---- the checkpoint to go on from ---- */

/* A checkpoint from the bytes of its file: by way of a file that has no name. */
static vae_status read_back(vae_checkpoint **found, const char *bytes, uint64_t n, vae_error *err)
{
    char path[32];
    vae_status status = VAE_OK;
    const int fd = memfd_create("checkpoint", MFD_CLOEXEC);
    if (fd < 0 || !vae_write_all(fd, bytes, (size_t)n)) {
        TRY(vae_fail(err, VAE_ERR_RUNTIME, "cannot hold the first rank's checkpoint: %s",
                     strerror(errno)));
    }
    snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
    TRY(vae_checkpoint_read(found, path, true, err));
done:
    if (fd >= 0) {
        close(fd);
    }
    return status;
}

vae_status vae_train_share_found(training_run *t, vae_checkpoint **found, vae_error *err)
{
    const vae_ranks *ranks = t->options->ranks;
    const bool first = vae_ranks_number(ranks) == 0;
    char *bytes = NULL;
    uint64_t n = 0;
    vae_status status = VAE_OK;
    if (ranks == NULL) {
        return VAE_OK;
    }
    if (first && *found != NULL) {
        size_t size;
        status = vae_file_bytes(&bytes, &size, t->result->checkpoint, SIZE_MAX - 1, err);
        n = size;
    }
    TRY(vae_ranks_all_ok(ranks, status, err));
    TRY(vae_ranks_broadcast(ranks, &n, sizeof n, err));
    if (!first && n > 0) {
        bytes = malloc((size_t)n);
        status = bytes != NULL ? VAE_OK : vae_fail_memory(err, n, "a checkpoint");
    }
    TRY(vae_ranks_all_ok(ranks, status, err));
    TRY(vae_ranks_broadcast(ranks, bytes, (size_t)n, err));
    if (!first && n > 0) {
        status = read_back(found, bytes, n, err);
    }
    TRY(vae_ranks_all_ok(ranks, status, err));
done:
    free(bytes);
    return status;
}

/* ---- who takes part ---- */

vae_status vae_train_gather_places(training_run *t, vae_error *err)
{
    const vae_ranks *ranks = t->options->ranks;
    enum { DEVICE = 160 };
    typedef struct {
        char host[sizeof(((vae_ranks *)NULL)->host)], device[DEVICE];
    } place;
    vae_status status = VAE_OK;
    if (ranks == NULL) {
        return VAE_OK;
    }
    char device[1024];
    place *all = calloc(ranks->n, sizeof *all);
    if (all == NULL) {
        TRY(vae_fail_memory(err, ranks->n * sizeof *all, "the ranks' places"));
    }
    t->loop.be->ops->describe(t->loop.be, device, sizeof device);
    snprintf(all[ranks->rank].host, sizeof all->host, "%s", ranks->host);
    snprintf(all[ranks->rank].device, sizeof all->device, "%.*s", DEVICE - 1, device);
    TRY(vae_ranks_gather(ranks, all, sizeof *all, err));
    t->places = json_array();
    for (size_t r = 0; r < ranks->n; r++) {
        json_array_append_new(t->places, json_pack("{s:I, s:s, s:s}", "rank", (json_int_t)r, "host",
                                                   all[r].host, "device", all[r].device));
    }
done:
    free(all);
    return status;
}

/* ---- the others ---- */

vae_status vae_train_follow(training_run *t, vae_error *err)
{
    vae_loop_event event = VAE_LOOP_DONE;
    vae_status status = VAE_OK;
    do {
        TRY(vae_loop_next(&t->loop, &event, err));
    } while (event < VAE_LOOP_STOPPED);
    if (event == VAE_LOOP_STOPPED) {
        TRY(vae_fail(err, VAE_ERR_INTERRUPTED, "interrupted"));
    }
done:
    return status;
}
