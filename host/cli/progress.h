/* Progress of training on stderr: a line that is redrawn on a terminal, one line an epoch
 * elsewhere. No colours, so NO_COLOR has nothing to switch off. */
#ifndef VAE_CLI_PROGRESS_H
#define VAE_CLI_PROGRESS_H

#include "infer/trained.h"
#include "train/run.h"

typedef struct {
    bool quiet;
    bool terminal;      /* redraw */
    const char *what;   /* a pass is of; of cli_watch */
    size_t drawn;       /* columns of the line that stands there; 0 = none */
    double began, told; /* of cli_progress_part; monotonic time */
} cli_progress;

/* Is stderr a terminal on which lines can be drawn over? */
bool cli_on_terminal(void);

void cli_progress_open(cli_progress *progress, bool quiet);
/* The functions to hand to vae_train; ctx is the cli_progress. */
vae_train_events cli_progress_events(cli_progress *progress);
/* Takes the line away, so that something else can be printed. */
void cli_progress_clear(cli_progress *progress);

/* How far a pass over rows is: a line that is redrawn on a terminal, one a minute elsewhere. */
vae_watch cli_watch(cli_progress *progress, const char *what);

/* 3725 seconds as "1:02:05". */
const char *cli_duration(char text[32], double seconds);

#endif
