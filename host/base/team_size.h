/* How many threads a step is worth, found by trying. */
#ifndef VAE_TEAM_SIZE_H
#define VAE_TEAM_SIZE_H

#include <stdbool.h>

/* More threads are not always faster: another process may want their processors (then those that
 * share loops wait for each other's turns), processors may be far from each other's caches or two
 * of one core, a step may be too short to be shared by many. So now and then some steps run with
 * another number of threads, between others that don't, and what was faster by a twentieth stays.
 * Trials get rarer while nothing comes of them, and cost some hundredth of the time; there is one
 * soon when steps have become slower. For work whose result does not depend on the number of
 * threads. It begins with all of them: all is zero then but for `most` and `fixed`. */
typedef struct {
    int most;
    bool fixed;   /* it stays at that */
    int fewer;    /* how many of them are left out at present */
    int trial;    /* how many are tried; 0: no trial goes on */
    unsigned way; /* to which neighbouring number the next trial goes */
    int steps;    /* of the block that goes on */
    double took;  /* by those, seconds */
    double usual; /* a step of the last block with the present number; 0: there was none */
    double tried; /* a step of the trial, if that is over and the block after it is not; else 0 */
    double lost;  /* by the trial's slower steps */
    double known; /* a step's time when the last trial was judged */
    double since; /* that: seconds in steps */
    double wait;  /* until the next */
} vae_team_size;

/* Threads for the next step: 1 .. most. */
int vae_team_size_next(const vae_team_size *t);
/* It took so many seconds. */
void vae_team_size_took(vae_team_size *t, double seconds);

#endif
