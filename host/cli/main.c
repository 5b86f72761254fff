/* The program: a command, its error and its exit code. */
#include <errno.h>
#include <fcntl.h>
#include <jansson.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cli/cli.h"
#include "cli/signals.h"
#include "ranks/ranks.h"

static void print_note(void *ctx, const char *line)
{
    (void)ctx;
    fprintf(stderr, "vae: %s\n", line);
}

/* A descriptor that the shell closed (2>&-) would be the next file that is opened, and messages
 * would go into it. Modes are such that using it fails, as it should; but for messages. */
static void hold_descriptors(void)
{
    static const int modes[] = {O_WRONLY, O_RDONLY, O_WRONLY};
    for (int fd = 0; fd < 3; fd++) {
        if (fcntl(fd, F_GETFD) < 0 && errno == EBADF) {
            (void)!open("/dev/null", modes[fd]); /* the lowest that is free: this one */
        }
    }
}

/* jansson (2.14) does not always tell that it had no memory, and may crash of it: it takes the end
 * of a text for an error in it. So the program ends here. Files under way are temp files, which
 * the next run in that folder removes; what was there is untouched. */
static void *json_memory(size_t n)
{
    void *memory = malloc(n);
    if (memory == NULL) {
        cli_out_of_memory(n, "JSON");
    }
    return memory;
}

int main(int argc, char **argv)
{
    /* a file larger than `ulimit -f` allows is an error of write(), not the end */
    signal(SIGXFSZ, SIG_IGN);
    vae_signals_tell_faults();
    hold_descriptors();
    json_set_alloc_funcs(json_memory, free);
    const vae_notes notes = {.tell = print_note};
    vae_error err = {.notes = &notes};
    vae_ranks *ranks;
    vae_status status = vae_ranks_start(&ranks, &err);
    if (status == VAE_OK) {
        if (vae_ranks_number(ranks) > 0) { /* the first prints */
            (void)!freopen("/dev/null", "w", stdout);
        }
        status = vae_cli(argc, argv, ranks, &err);
    }
    /* a full disk shows only when the buffer is flushed, at the latest here */
    const bool lost_before = ferror(stdout) != 0;
    errno = 0;
    if (fclose(stdout) != 0 || lost_before) {
        vae_status lost = vae_fail(&err, VAE_ERR_IO, "stdout: cannot write: %s",
                                   errno != 0 ? strerror(errno) : "an earlier write failed");
        status = status == VAE_OK ? lost : status;
    }
    int number = *vae_signals_flag();
    bool speaks;
    const bool together = vae_ranks_meet(ranks, status, &number, &speaks, &err);
    if (!together) {
        status = status != VAE_OK ? status : err.status;
        fprintf(stderr, "vae: rank %zu of %zu, host %s: %s; the other ranks end with it\n",
                ranks->rank, ranks->n, ranks->host, err.text);
        vae_ranks_abort(ranks, (int)status);
    }
    if (status != VAE_OK && speaks) {
        fprintf(stderr, "vae: %s\n", err.text);
    }
    vae_ranks_leave(ranks); /* all go now: what is not told yet, a launcher may cut off */
    if (status == VAE_ERR_INTERRUPTED) {
        vae_signals_reraise(number);
    }
    return (int)status;
}
