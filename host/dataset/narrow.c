/* Doubles that a file holds become the floats of a set. A column far from zero with a narrow range,
 * such as seconds since 1970 within an hour, has no values left as floats: where columns are to be
 * standardized the doubles stay until they are. */
#include <math.h>
#include <stdlib.h>

#include "base/note.h"
#include "dataset/readers.h"

vae_status vae_narrow_begin(vae_narrowing *w, size_t d, bool keep, vae_error *err)
{
    *w = (vae_narrowing){.d = d, .keep = keep};
    w->extreme = malloc(3 * d * sizeof *w->extreme);
    if (w->extreme == NULL) {
        return vae_fail_memory(err, 3 * d * sizeof *w->extreme, "ranges of columns");
    }
    for (size_t i = 0; i < d; i++) {
        w->extreme[i] = INFINITY;
        w->extreme[d + i] = -INFINITY;
        w->extreme[2 * d + i] = 0;
    }
    return VAE_OK;
}

static vae_status make_room(vae_narrowing *w, size_t n, vae_error *err)
{
    size_t room = w->room, bytes;
    while (room < w->n + n) {
        room = room == 0 ? 1024 : 2 * room;
    }
    if (room == w->room) {
        return VAE_OK;
    }
    double *more = vae_checked_mul(room, sizeof *more, &bytes) ? realloc(w->wide, bytes) : NULL;
    if (more == NULL) {
        return vae_fail_memory(err, room * sizeof *more, "columns of doubles");
    }
    w->wide = more;
    w->room = room;
    return VAE_OK;
}

vae_status vae_narrow(vae_narrowing *w, float *to, const double *from, size_t n, vae_error *err)
{
    double *least = w->extreme, *greatest = least + w->d, *rounding = greatest + w->d;
    vae_status status = VAE_OK;
    if (w->keep) {
        TRY(make_room(w, n, err));
    }
    for (size_t i = 0, col = w->n % w->d; i < n; i++, col = col + 1 < w->d ? col + 1 : 0) {
        const double value = from[i], off = fabs(value - (double)(float)value);
        to[i] = (float)value;
        least[col] = value < least[col] ? value : least[col];
        greatest[col] = value > greatest[col] ? value : greatest[col];
        rounding[col] = off > rounding[col] ? off : rounding[col];
        if (w->keep) {
            w->wide[w->n + i] = value;
        }
    }
    w->n += n;
done:
    return status;
}

void vae_narrow_end(vae_narrowing *w, vae_dataset *set, const vae_error *err)
{
    const double *least = w->extreme, *greatest = least + w->d, *rounding = greatest + w->d;
    char name[64];
    for (size_t i = 0; i < w->d; i++) {
        if (w->keep && rounding[i] > 0) {
            set->wide = w->wide;
            w->wide = NULL;
            return;
        }
        if (rounding[i] > 0.01 * (greatest[i] - least[i]) && greatest[i] > least[i]) {
            vae_note(err != NULL ? err->notes : NULL,
                     "warning: %s: the values of column %s, from %.17g to %.17g, are rounded by up "
                     "to %g: subtract the least from the others, or let columns be standardized",
                     set->source, vae_dataset_column(set, i, name), least[i], greatest[i],
                     rounding[i]);
        }
    }
}

void vae_narrow_close(vae_narrowing *w)
{
    free(w->extreme);
    free(w->wide);
    *w = (vae_narrowing){0};
}
