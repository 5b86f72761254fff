/* What the charts of plot.c stand on: scales, ticks, and the frame of title, legend and axes. */
#ifndef VAE_FRAME_H
#define VAE_FRAME_H

#include "plot/plot.h"

enum { PLOT_MAX_TICKS = 24, PLOT_MAX_LEGEND = 24, PLOT_LABEL = 40 };

/* From the smallest to the largest value of an axis; of their log10 where log. */
typedef struct {
    double lo, hi;
    bool log;
    bool whole; /* only whole numbers were seen: ticks are whole, too */
    bool any;
} plot_range;

/* Whether a chart can show v: finite, of a size whose differences are finite, positive if log. */
bool plot_usable(const plot_range *r, double v);
void plot_range_add(plot_range *r, double v);
/* Settles the range: never empty; wider by the fraction `pad` at each end. */
void plot_range_close(plot_range *r, double pad);
/* Where v lies: 0 at lo, 1 at hi. */
double plot_place(const plot_range *r, double v);

typedef struct {
    size_t n;
    double value[PLOT_MAX_TICKS];
    char label[PLOT_MAX_TICKS][PLOT_LABEL];
} plot_ticks;

/* About `wanted` round values within the range, at least one. */
void plot_ticks_make(plot_ticks *ticks, const plot_range *r, size_t wanted);
/* v with `digits` significant digits, as short as can be: 0.5, 1e-7, 12000. */
void plot_number(char text[PLOT_LABEL], double v, int digits);

typedef struct {
    size_t n, more; /* more: how many names there were no room for */
    char mark;      /* '-' a line, 'o' a point, '#' a box */
    struct {
        char name[PLOT_LABEL];
        size_t colour;
    } item[PLOT_MAX_LEGEND];
} plot_legend;
/* name NULL: no entry. */
void plot_legend_add(plot_legend *legend, const char *name, size_t colour);

/* Pixels of the viewBox; y grows downwards. */
typedef struct {
    plot_axes axes;
    plot_range x, y;
    double height; /* of the plot area; set before plot_open */
    double below;  /* room for tick labels under it; set before plot_open */
    bool hide_x;   /* no ticks in x: the chart writes its own */
    double left, top, right, bottom;
} plot_frame;

enum { PLOT_WIDTH = 440 };

/* A frame with empty ranges, log as the axes say. */
plot_frame plot_frame_new(plot_axes axes);
/* Opens the <svg> and draws what surrounds the data. The ranges must be closed. */
void plot_open(vae_text *out, plot_frame *f, const plot_legend *legend);
void plot_close(vae_text *out);
double plot_x(const plot_frame *f, double v);
double plot_y(const plot_frame *f, double v);
/* Width of text in the charts' font of the given size, about: there is no font to ask. */
double plot_text_width(const char *text, double size);
/* Escaped, cut with an ellipsis where it would be wider than `width`. */
void plot_text_fitted(vae_text *out, const char *text, double size, double width);

/* The dash of the i-th line, an attribute with a space in front: lines differ without colours. */
const char *plot_dash(size_t series);

#endif
