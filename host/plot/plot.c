/* The charts. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "plot/frame.h"

enum { FEW_POINTS = 25 }; /* up to so many, each point of a line is marked */

static size_t colour_of(size_t i)
{
    return i % VAE_PLOT_COLOURS;
}

/* ---- lines ---- */

static bool point_at(const plot_frame *f, const plot_series *s, size_t i)
{
    return plot_usable(&f->x, s->x[i]) && plot_usable(&f->y, s->y[i]);
}

/* The line breaks where a point is left out. Points that fall on the pixel of the one before add
 * nothing. */
static void put_line(vae_text *out, const plot_frame *f, const plot_series *s, size_t colour)
{
    bool open = false, pen = false;
    double x0 = 0, y0 = 0;
    for (size_t i = 0; i < s->n; i++) {
        if (!point_at(f, s, i)) {
            pen = false;
            continue;
        }
        double x = plot_x(f, s->x[i]), y = plot_y(f, s->y[i]);
        if (pen && fabs(x - x0) < 0.05 && fabs(y - y0) < 0.05) {
            continue;
        }
        if (!open) {
            vae_text_add(out, "<path class=\"vp-l s%zu\"%s d=\"", colour_of(colour),
                         plot_dash(colour));
            open = true;
        }
        vae_text_add(out, "%c%.1f %.1f", pen ? 'L' : 'M', x, y);
        pen = true;
        x0 = x;
        y0 = y;
    }
    if (open) {
        vae_text_add(out, "\"/>");
    }
}

/* Round ends of lines of no length are the points: a few bytes each. */
static void put_points(vae_text *out, const plot_frame *f, const plot_series *s, size_t colour,
                       bool lonely)
{
    bool open = false;
    for (size_t i = 0; i < s->n; i++) {
        bool beside = (i > 0 && point_at(f, s, i - 1)) || (i + 1 < s->n && point_at(f, s, i + 1));
        if (!point_at(f, s, i) || (lonely && beside)) {
            continue;
        }
        if (!open) {
            vae_text_add(out, "<path class=\"vp-p s%zu\" d=\"", colour_of(colour));
            open = true;
        }
        vae_text_add(out, "M%.1f %.1fh0", plot_x(f, s->x[i]), plot_y(f, s->y[i]));
    }
    if (open) {
        vae_text_add(out, "\"/>");
    }
}

void plot_lines(vae_text *out, plot_axes axes, const plot_series *series, size_t n)
{
    plot_frame f = plot_frame_new(axes);
    plot_legend legend = {.mark = '-'};
    for (size_t i = 0; i < n; i++) {
        plot_legend_add(&legend, series[i].name, i);
        for (size_t k = 0; k < series[i].n; k++) {
            if (point_at(&f, &series[i], k)) {
                plot_range_add(&f.x, series[i].x[k]);
                plot_range_add(&f.y, series[i].y[k]);
            }
        }
    }
    plot_range_close(&f.x, 0.02);
    f.y.whole = false;
    plot_range_close(&f.y, 0.05);
    plot_open(out, &f, &legend);
    for (size_t i = 0; i < n; i++) {
        if (!series[i].points) {
            put_line(out, &f, &series[i], i);
        }
        bool all = series[i].points || series[i].n <= FEW_POINTS;
        put_points(out, &f, &series[i], i, !all);
    }
    plot_close(out);
}

/* ---- bars ---- */

typedef struct {
    double slot, widest; /* of a bar with its gap; of the labels */
    bool slanted;
    size_t every; /* label every so-many-th bar */
} bar_labels;

static const char *bar_label(const char *const *labels, size_t i, char number[PLOT_LABEL])
{
    snprintf(number, PLOT_LABEL, "%zu", i);
    return labels != NULL && labels[i] != NULL ? labels[i] : number;
}

/* The least of 1, 2, 5, 10, 20, 50 ... that is at least x. */
static size_t round_step(double x)
{
    for (size_t power = 1;; power *= 10) {
        for (size_t i = 0; i < 3; i++) {
            size_t step = power * (const size_t[]){1, 2, 5}[i];
            if ((double)step >= x) {
                return step;
            }
        }
    }
}

/* Names that do not fit side by side are slanted; numbers, and what does not fit then, thinned. */
static bar_labels fit_labels(const char *const *labels, size_t n, double width)
{
    bar_labels l = {.slot = width / (double)(n > 0 ? n : 1), .every = 1};
    for (size_t i = 0; i < n; i++) {
        char number[PLOT_LABEL];
        l.widest = fmax(l.widest, plot_text_width(bar_label(labels, i, number), 12.5));
    }
    if (l.widest + 3 > l.slot) {
        l.slanted = labels != NULL && l.widest > 30;
        double need = l.slanted ? 15 : l.widest + 10;
        l.every = round_step(need / l.slot);
    }
    return l;
}

static void put_bar_label(vae_text *out, const plot_frame *f, const bar_labels *l, const char *text,
                          double x)
{
    if (l->slanted) {
        vae_text_add(out,
                     "<text class=\"vp-n\" text-anchor=\"end\" transform=\"translate(%.1f %.1f) "
                     "rotate(-38)\">",
                     x + 4, f->bottom + 13);
        plot_text_fitted(out, text, 12.5, fmin(120, x / 0.79 - 4)); /* cos 38 degrees */
    } else {
        vae_text_add(out, "<text class=\"vp-n\" text-anchor=\"middle\" x=\"%.1f\" y=\"%.1f\">", x,
                     f->bottom + 17);
        plot_text_fitted(out, text, 12.5, fmax(l->slot * (double)l->every, 24));
    }
    vae_text_add(out, "</text>");
}

void plot_bars_faded(vae_text *out, plot_axes axes, const double *values, const char *const *labels,
                     const bool *faded, size_t n)
{
    plot_frame f = plot_frame_new(axes);
    plot_legend legend = {0};
    for (size_t i = 0; i < n; i++) {
        plot_range_add(&f.y, values[i]);
    }
    if (!axes.log_y) {
        plot_range_add(&f.y, 0);
    }
    f.y.whole = false;
    bool below = f.y.any && f.y.lo < 0 && !axes.log_y;
    bool above = f.y.hi > 0;
    plot_range_close(&f.y, 0);
    double room = 0.05 * (f.y.hi - f.y.lo);
    f.y.hi += above || axes.log_y ? room : 0;
    f.y.lo -= below || axes.log_y ? room : 0;
    f.x.log = false;
    plot_range_close(&f.x, 0);
    f.hide_x = true;
    bar_labels l = fit_labels(labels, n, PLOT_WIDTH - 70);
    f.below = l.slanted ? 20 + 0.62 * fmin(l.widest, 120) : 20;
    plot_open(out, &f, &legend);
    l.slot = (f.right - f.left) / (double)(n > 0 ? n : 1);
    double base = axes.log_y ? f.bottom : plot_y(&f, 0);
    for (size_t i = 0; i < n; i++) {
        char number[PLOT_LABEL], value[PLOT_LABEL];
        const char *label = bar_label(labels, i, number);
        double x = f.left + l.slot * (double)i;
        if (plot_usable(&f.y, values[i])) {
            double y = plot_y(&f, values[i]), gap = l.slot > 4 ? l.slot * 0.18 : 0.1 * l.slot;
            const char *pale = faded != NULL && faded[i] ? " vp-w" : "";
            plot_number(value, values[i], 6);
            vae_text_add(out,
                         "<rect class=\"f0%s\" x=\"%.2f\" y=\"%.2f\" width=\"%.2f\" "
                         "height=\"%.2f\"%s><title>",
                         pale, x + gap / 2, fmin(y, base), l.slot - gap, fabs(base - y),
                         l.slot > 12 ? " rx=\"1.5\"" : "");
            vae_text_escaped(out, label);
            vae_text_add(out, ": %s</title></rect>", value);
        }
        if (i % l.every == 0) {
            put_bar_label(out, &f, &l, label, x + l.slot / 2);
        }
    }
    if (below) {
        vae_text_add(out, "<path class=\"vp-a\" d=\"M%.1f %.1fH%.1f\"/>", f.left, base, f.right);
    }
    plot_close(out);
}

void plot_bars(vae_text *out, plot_axes axes, const double *values, const char *const *labels,
               size_t n)
{
    plot_bars_faded(out, axes, values, labels, NULL, n);
}

/* ---- histograms ---- */

enum { MAX_BINS = 400 };

/* counts (bins) of a group's values over the range of the axis. */
static void count_bins(double *counts, size_t bins, const plot_range *x, const plot_series *group)
{
    memset(counts, 0, bins * sizeof *counts);
    const double *values = group->x != NULL ? group->x : group->y;
    for (size_t i = 0; i < group->n; i++) {
        if (plot_usable(x, values[i])) {
            double at = plot_place(x, values[i]) * (double)bins;
            size_t bin = at > 0 ? (size_t)at : 0;
            counts[bin < bins ? bin : bins - 1]++;
        }
    }
}

static void put_steps(vae_text *out, const plot_frame *f, const double *counts, size_t bins,
                      size_t colour)
{
    double width = (f->right - f->left) / (double)bins;
    vae_text_add(out, "<path class=\"vp-h f%zu s%zu\" d=\"M%.1f %.1f", colour_of(colour),
                 colour_of(colour), f->left, f->bottom);
    for (size_t i = 0; i < bins; i++) {
        bool drawn = plot_usable(&f->y, counts[i]);
        double y = drawn ? fmin(plot_y(f, counts[i]), f->bottom) : f->bottom;
        vae_text_add(out, "V%.1fH%.1f", y, f->left + width * (double)(i + 1));
    }
    vae_text_add(out, "V%.1fZ\"/>", f->bottom);
}

static void put_marks(vae_text *out, const plot_frame *f, const double *marks,
                      const char *const *names, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        if (!plot_usable(&f->x, marks[i])) {
            continue;
        }
        double x = plot_x(f, marks[i]);
        bool right = x > (f->left + f->right) / 2; /* the name goes where there is more room */
        vae_text_add(out, "<path class=\"vp-m\" d=\"M%.1f %.1fV%.1f\"/>", x, f->top, f->bottom);
        if (names != NULL && names[i] != NULL) {
            const double beside = right ? x - 5 : x + 5, room = right ? x - f->left : f->right - x;
            vae_text_add(out, "<text class=\"vp-k\" x=\"%.1f\" y=\"%.1f\" text-anchor=\"%s\">",
                         beside, f->top + 12 + 16 * (double)(i % 4), right ? "end" : "start");
            plot_text_fitted(out, names[i], 12.5, room - 5);
            vae_text_add(out, "</text>");
        }
    }
}

void plot_histogram(vae_text *out, plot_axes axes, const plot_series *groups, size_t n_groups,
                    size_t bins, const double *marks, const char *const *mark_names, size_t n_marks)
{
    double counts[MAX_BINS];
    bins = bins < 1 ? 1 : bins;
    bins = bins > MAX_BINS ? MAX_BINS : bins;
    plot_frame f = plot_frame_new(axes);
    plot_legend legend = {.mark = '#'};
    for (size_t i = 0; i < n_groups; i++) {
        const double *values = groups[i].x != NULL ? groups[i].x : groups[i].y;
        plot_legend_add(&legend, groups[i].name, i);
        for (size_t k = 0; k < groups[i].n; k++) {
            plot_range_add(&f.x, values[k]);
        }
    }
    for (size_t i = 0; i < n_marks; i++) {
        plot_range_add(&f.x, marks[i]);
    }
    f.x.whole = false;
    plot_range_close(&f.x, 0);
    plot_range_add(&f.y, axes.log_y ? 0.5 : 0);
    plot_range_add(&f.y, 1);
    for (size_t i = 0; i < n_groups; i++) {
        count_bins(counts, bins, &f.x, &groups[i]);
        for (size_t k = 0; k < bins; k++) {
            plot_range_add(&f.y, counts[k]);
        }
    }
    f.y.whole = !axes.log_y;
    plot_range_close(&f.y, 0);
    f.y.hi += 0.05 * (f.y.hi - f.y.lo);
    plot_open(out, &f, &legend);
    for (size_t i = 0; i < n_groups; i++) {
        count_bins(counts, bins, &f.x, &groups[i]);
        put_steps(out, &f, counts, bins, i);
    }
    put_marks(out, &f, marks, mark_names, n_marks);
    plot_close(out);
}

/* ---- scatters ---- */

static void put_class(vae_text *out, const plot_frame *f, const float *xy, const uint8_t *labels,
                      size_t n, size_t label)
{
    bool open = false;
    for (size_t i = 0; i < n; i++) {
        double x = (double)xy[2 * i], y = (double)xy[2 * i + 1];
        if ((labels != NULL && labels[i] != label) || !plot_usable(&f->x, x) ||
            !plot_usable(&f->y, y)) {
            continue;
        }
        if (!open) {
            vae_text_add(out, "<path class=\"vp-s s%zu\" d=\"", colour_of(label));
            open = true;
        }
        vae_text_add(out, "M%.1f %.1fh0", plot_x(f, x), plot_y(f, y));
    }
    if (open) {
        vae_text_add(out, "\"/>");
    }
}

void plot_scatter(vae_text *out, plot_axes axes, const float *xy, const uint8_t *labels, size_t n,
                  size_t n_classes)
{
    plot_frame f = plot_frame_new(axes);
    plot_legend legend = {.mark = 'o'};
    f.height = 340;
    bool seen[256] = {false};
    for (size_t i = 0; i < n; i++) {
        double x = (double)xy[2 * i], y = (double)xy[2 * i + 1];
        if (plot_usable(&f.x, x) && plot_usable(&f.y, y)) {
            plot_range_add(&f.x, x);
            plot_range_add(&f.y, y);
            seen[labels != NULL ? labels[i] : 0] = true;
        }
    }
    for (size_t c = 0; labels != NULL && c < 256; c++) {
        char name[PLOT_LABEL];
        snprintf(name, sizeof name, "%zu", c);
        if (c < n_classes || seen[c]) { /* a label beyond the classes is shown all the same */
            plot_legend_add(&legend, name, c);
        }
    }
    f.x.whole = f.y.whole = false;
    plot_range_close(&f.x, 0.03);
    plot_range_close(&f.y, 0.03);
    plot_open(out, &f, &legend);
    for (size_t c = 0; c < (labels != NULL ? 256 : 1); c++) {
        if (seen[c]) {
            put_class(out, &f, xy, labels, n, c);
        }
    }
    plot_close(out);
}
