/* How many threads a step is worth. */
#include "base/team_size.h"

static const double block_seconds = 0.025; /* others' turns on a processor are some 3 ms */
static const double blocks_between = 20;   /* trials, at least */
static const double longest_wait = 5, longest_with_fewer = 1;
static const double part_lost = 0.01; /* of the time, in trials that were slower */
static const double faster = 0.95, slower = 1.25;

int vae_team_size_next(const vae_team_size *t)
{
    return t->trial > 0 && t->tried == 0 ? t->trial : t->most - t->fewer;
}

/* Half, twice, one less, one more, in turns. */
static int neighbour(vae_team_size *t)
{
    const int now = t->most - t->fewer;
    for (int n;; t->way++) {
        const int near[] = {now / 2, 2 * now < t->most ? 2 * now : t->most, now - 1, now + 1};
        n = near[t->way % 4];
        if (n >= 1 && n <= t->most && n != now) {
            return n;
        }
    }
}

/* The trial against the blocks before and after it. */
static void judge(vae_team_size *t, double usual)
{
    if (t->tried < faster * usual) {
        t->fewer = t->most - t->trial; /* and further this way */
        t->known = t->usual = t->tried;
        t->wait = 0;
    } else {
        const double longest = t->fewer > 0 ? longest_with_fewer : longest_wait;
        t->known = usual;
        t->way++;
        t->wait = 2 * (t->wait > block_seconds ? t->wait : block_seconds);
        t->wait = t->wait < longest ? t->wait : longest;
        t->wait = t->wait > t->lost / part_lost ? t->wait : t->lost / part_lost;
    }
    t->trial = 0;
    t->tried = t->since = 0;
}

void vae_team_size_took(vae_team_size *t, double seconds)
{
    if (t->fixed || t->most < 2) {
        return;
    }
    t->steps++;
    t->took += seconds;
    if (t->took < block_seconds) {
        return;
    }
    const double block = t->took, step = block / t->steps;
    if (t->trial > 0 && t->tried == 0) {
        t->tried = step;
        t->lost = block - t->steps * t->usual;
    } else if (t->trial > 0) {
        judge(t, (t->usual + step) / 2);
    } else {
        const double much = slower * t->known;
        t->wait = t->known > 0 && step > much && t->usual > much ? 0 : t->wait;
        t->usual = step;
        t->since += block;
        if (t->since >= t->wait && t->since >= blocks_between * block) {
            t->trial = neighbour(t);
        }
    }
    t->steps = 0;
    t->took = 0;
}
