/* The program: a command, its error and its exit code. */
#include <errno.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>

#include "cli/cli.h"
#include "cli/signals.h"

static void print_note(void *ctx, const char *line)
{
    (void)ctx;
    fprintf(stderr, "vae: %s\n", line);
}

int main(int argc, char **argv)
{
    const vae_notes notes = {.tell = print_note};
    vae_error err = {.notes = &notes};
    vae_status status = vae_cli(argc, argv, &err);
    /* a full disk shows only when the buffer is flushed, at the latest here */
    const bool lost_before = ferror(stdout) != 0;
    errno = 0;
    if (fclose(stdout) != 0 || lost_before) {
        vae_status lost = vae_fail(&err, VAE_ERR_IO, "stdout: cannot write: %s",
                                   errno != 0 ? strerror(errno) : "an earlier write failed");
        status = status == VAE_OK ? lost : status;
    }
    if (status != VAE_OK) {
        fprintf(stderr, "vae: %s\n", err.text);
    }
    if (status == VAE_ERR_INTERRUPTED) {
        vae_signals_reraise();
    }
    return (int)status;
}
