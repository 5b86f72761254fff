/* Charts as SVG text: lines, bars, histograms, scatters. Each is one <svg> element that stands
 * alone as a file and works inside an HTML page: it carries its own style, light or dark as the
 * reader's system asks (prefers-color-scheme), scales to the width it is given, and has a <title>.
 * Axes get round tick values; NaN and Inf are left out. Text is escaped. */
#ifndef VAE_PLOT_H
#define VAE_PLOT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/status.h"

enum { VAE_PLOT_COLOURS = 10 }; /* series and classes beyond them begin anew */

/* Text that grows; zero-initialize, free with vae_text_clear. A failed allocation is kept and
 * reported once, by vae_text_done: nothing in between needs a check. */
typedef struct {
    char *data; /* NUL-terminated once something was added */
    size_t size, room;
    bool failed;
} vae_text;
void vae_text_add(vae_text *t, const char *format, ...) __attribute__((format(printf, 2, 3)));
void vae_text_put(vae_text *t, const char *bytes, size_t n);
/* With &, <, > and quotes as entities. */
void vae_text_escaped(vae_text *t, const char *text);
/* VAE_ERR_RUNTIME (memory) if an addition failed. */
vae_status vae_text_done(const vae_text *t, vae_error *err);
void vae_text_clear(vae_text *t);

typedef struct {
    const char *title, *x, *y; /* of the chart and its axes; NULL = none */
    bool log_x, log_y;         /* values <= 0 are then left out */
} plot_axes;

typedef struct {
    const char *name; /* in the legend; NULL = not there */
    const double *x, *y;
    size_t n;
    bool points; /* marks without a line between them */
} plot_series;

/* Lines and points through (x, y) of each series. */
void plot_lines(vae_text *out, plot_axes axes, const plot_series *series, size_t n);
/* One bar a value, labelled by its number, or by labels[i]. */
void plot_bars(vae_text *out, plot_axes axes, const double *values, const char *const *labels,
               size_t n);
/* The same with some bars pale (faded (n), NULL = none): those that do not count. */
void plot_bars_faded(vae_text *out, plot_axes axes, const double *values, const char *const *labels,
                     const bool *faded, size_t n);
/* Histograms of groups over common bins, drawn over each other: counts of each group's x (y is not
 * read, unless x is NULL); marks: vertical lines at values (a threshold), with their names. The
 * axis ends where almost all of the largest group's values do, if others lie so far out that these
 * would be a bar or two; how many lie beyond is said beside its name and in the legend. */
void plot_histogram(vae_text *out, plot_axes axes, const plot_series *groups, size_t n_groups,
                    size_t bins, const double *marks, const char *const *mark_names,
                    size_t n_marks);
/* Points (n,2) of floats, coloured by label (NULL = one colour), with a legend of the classes'
 * names; labels beyond them are called "no label". */
void plot_scatter(vae_text *out, plot_axes axes, const float *xy, const uint32_t *labels, size_t n,
                  const char *const *names, size_t n_classes);

/* Puts text into a file, atomically (vae_file_put). VAE_ERR_IO. */
vae_status vae_text_write(const vae_text *t, const char *path, vae_error *err);

#endif
