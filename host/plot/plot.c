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

static const double *values_of(const plot_series *group)
{
    return group->x != NULL ? group->x : group->y;
}

/* counts (bins) of a group's values over the range of the axis. */
static void count_bins(double *counts, size_t bins, const plot_range *x, const plot_series *group)
{
    memset(counts, 0, bins * sizeof *counts);
    const double *values = values_of(group);
    for (size_t i = 0; i < group->n; i++) {
        const double at = plot_usable(x, values[i]) ? plot_place(x, values[i]) * (double)bins : -1;
        if (at >= 0 && at <= (double)bins) {
            const size_t bin = (size_t)at;
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

/* A mark that the axis does not reach is at its end, with its value and an arrow. */
static void put_marks(vae_text *out, const plot_frame *f, const double *marks,
                      const char *const *names, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        char value[PLOT_LABEL], text[2 * PLOT_LABEL];
        if (!plot_usable(&f->x, marks[i])) {
            continue;
        }
        const double place = plot_place(&f->x, marks[i]);
        const double x = f->left + fmin(fmax(place, 0), 1) * (f->right - f->left);
        bool right = x > (f->left + f->right) / 2; /* the name goes where there is more room */
        vae_text_add(out, "<path class=\"vp-m\" d=\"M%.1f %.1fV%.1f\"/>", x, f->top, f->bottom);
        if (names != NULL && names[i] != NULL) {
            const double beside = right ? x - 5 : x + 5, room = right ? x - f->left : f->right - x;
            plot_number(value, marks[i], 4);
            snprintf(text, sizeof text, place < 0 ? "◂ %s %s" : "%s %s ▸", names[i], value);
            vae_text_add(out, "<text class=\"vp-k\" x=\"%.1f\" y=\"%.1f\" text-anchor=\"%s\">",
                         beside, f->top + 12 + 16 * (double)(i % 4), right ? "end" : "start");
            plot_text_fitted(out, place >= 0 && place <= 1 ? names[i] : text, 12.5, room - 5);
            vae_text_add(out, "</text>");
        }
    }
}

static int by_value(const void *a, const void *b)
{
    const double x = *(const double *)a, y = *(const double *)b;
    return x < y ? -1 : x > y;
}

/* The group's values at the fractions p and 1 - p of their order; false: it has none, or there is
 * no memory for it. */
static bool middle_of(const plot_series *group, const plot_range *axis, double p, double ends[2])
{
    double *sorted = malloc((group->n + 1) * sizeof *sorted);
    size_t n = 0;
    for (size_t i = 0; sorted != NULL && i < group->n; i++) {
        sorted[n] = values_of(group)[i];
        n += plot_usable(axis, sorted[n]);
    }
    if (n > 0) {
        const size_t cut = (size_t)(p * (double)n);
        qsort(sorted, n, sizeof *sorted, by_value);
        ends[0] = sorted[cut];
        ends[1] = sorted[n - 1 - cut];
    }
    free(sorted);
    return n > 0;
}

/* Takes what lies so far out that the rest would be one bar out of the axis: more than three widths
 * of the largest group's middle 98% away from it. The middles of other groups, and marks, stay
 * unless they are farther than twelve. */
static void cut_far(plot_range *axis, const plot_series *groups, size_t n_groups,
                    const double *marks, size_t n_marks)
{
    const double all[2] = {axis->lo, axis->hi};
    double middle[2], other[2];
    size_t largest = 0;
    for (size_t i = 1; i < n_groups; i++) {
        largest = groups[i].n > groups[largest].n ? i : largest;
    }
    if (n_groups == 0 || axis->log || !middle_of(&groups[largest], axis, 0.01, middle)) {
        return;
    }
    const double width = middle[1] - middle[0];
    const double least = middle[0] - 12 * width, most = middle[1] + 12 * width;
    double near[2] = {middle[0] - width, middle[1] + width};
    for (size_t i = 0; i < n_groups + n_marks; i++) {
        const double mark = i < n_groups ? 0 : marks[i - n_groups];
        if (i < n_groups ? !middle_of(&groups[i], axis, 0.05, other) : !plot_usable(axis, mark)) {
            continue;
        }
        other[0] = i < n_groups ? other[0] : mark;
        other[1] = i < n_groups ? other[1] : mark;
        near[0] = other[0] < near[0] && other[0] >= least ? other[0] : near[0];
        near[1] = other[1] > near[1] && other[1] <= most ? other[1] : near[1];
    }
    const bool cut[2] = {width > 0 && all[0]<fmin(near[0], middle[0] - 3 * width), width> 0 &&
                         all[1] > fmax(near[1], middle[1] + 3 * width)};
    double ends[2] = {middle[0], middle[1]}; /* of what is left, which the axis fits */
    for (size_t i = 0; i <= n_groups; i++) {
        const size_t n = i < n_groups ? groups[i].n : n_marks;
        for (size_t k = 0; k < n; k++) {
            const double v = i < n_groups ? values_of(&groups[i])[k] : marks[k];
            ends[0] = v < ends[0] && v >= near[0] - width ? v : ends[0];
            ends[1] = v > ends[1] && v <= near[1] + width ? v : ends[1];
        }
    }
    axis->lo = cut[0] ? ends[0] : axis->lo;
    axis->hi = cut[1] ? ends[1] : axis->hi;
}

/* How many values of a group the axis does not show. */
typedef struct {
    size_t below, above, neither; /* NaN, Inf */
    double least, most;           /* of all that have a place */
} hidden;

static void count_hidden(hidden *h, const plot_range *axis, const plot_series *group)
{
    for (size_t i = 0; i < group->n; i++) {
        const double v = values_of(group)[i];
        const bool usable = plot_usable(axis, v);
        const double place = usable ? plot_place(axis, v) : 0;
        h->neither += !usable;
        h->below += place < 0;
        h->above += place > 1;
        h->least = place < 0 && v < h->least ? v : h->least;
        h->most = place > 1 && v > h->most ? v : h->most;
    }
}

/* The axis' name between what lies beyond its ends, so that nothing is left out in silence. */
static void caption(char *text, size_t size, const char *name, const hidden *h)
{
    char end[PLOT_LABEL];
    size_t used = 0;
    text[0] = '\0';
    if (h->below > 0) {
        plot_number(end, h->least, 3);
        used = (size_t)snprintf(text, size, "◂ %zu more to %s", h->below, end);
    }
    if (name != NULL && used < size) {
        used += (size_t)snprintf(text + used, size - used, "%s%s", used > 0 ? " · " : "", name);
    }
    if (h->neither > 0 && used < size) {
        used += (size_t)snprintf(text + used, size - used, "%s%zu not finite",
                                 used > 0 ? " · " : "", h->neither);
    }
    if (h->above > 0 && used < size) {
        plot_number(end, h->most, 3);
        snprintf(text + used, size - used, "%s%zu more to %s ▸", used > 0 ? " · " : "", h->above,
                 end);
    }
}

/* A group's name, with how many of it are not shown, where there are others. */
static void add_group(plot_legend *legend, const plot_series *group, size_t i, const hidden *h)
{
    char name[2 * PLOT_LABEL];
    const size_t n = h->below + h->above + h->neither;
    if (group->name != NULL && n > 0) {
        snprintf(name, sizeof name, "%.20s (%zu not shown)", group->name, n);
    }
    plot_legend_add(legend, group->name != NULL && n > 0 ? name : group->name, i);
}

void plot_histogram(vae_text *out, plot_axes axes, const plot_series *groups, size_t n_groups,
                    size_t bins, const double *marks, const char *const *mark_names, size_t n_marks)
{
    double counts[MAX_BINS];
    char text[200];
    hidden of_all = {.below = 0};
    bins = bins < 1 ? 1 : bins;
    bins = bins > MAX_BINS ? MAX_BINS : bins;
    plot_frame f = plot_frame_new(axes);
    plot_legend legend = {.mark = '#'};
    for (size_t i = 0; i < n_groups; i++) {
        for (size_t k = 0; k < groups[i].n; k++) {
            plot_range_add(&f.x, values_of(&groups[i])[k]);
        }
    }
    for (size_t i = 0; i < n_marks; i++) {
        plot_range_add(&f.x, marks[i]);
    }
    cut_far(&f.x, groups, n_groups, marks, n_marks);
    f.x.whole = false;
    plot_range_close(&f.x, 0);
    for (size_t i = 0; i < n_groups; i++) {
        hidden of_group = {.below = 0};
        count_hidden(&of_group, &f.x, &groups[i]);
        count_hidden(&of_all, &f.x, &groups[i]);
        add_group(&legend, &groups[i], i, &of_group);
    }
    caption(text, sizeof text, axes.x, &of_all);
    f.axes.x = text[0] != '\0' ? text : NULL;
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

/* The colour of a label; those beyond the classes have one. */
static size_t group_of(const uint32_t *labels, size_t i, size_t n_classes)
{
    return labels != NULL && labels[i] < n_classes ? labels[i] : n_classes;
}

static void put_class(vae_text *out, const plot_frame *f, const float *xy, const uint32_t *labels,
                      size_t n, size_t n_classes, size_t group)
{
    bool open = false;
    for (size_t i = 0; i < n; i++) {
        double x = (double)xy[2 * i], y = (double)xy[2 * i + 1];
        if (group_of(labels, i, n_classes) != group || !plot_usable(&f->x, x) ||
            !plot_usable(&f->y, y)) {
            continue;
        }
        if (!open) {
            vae_text_add(out, "<path class=\"vp-s s%zu\" d=\"",
                         colour_of(labels != NULL ? group : 0));
            open = true;
        }
        vae_text_add(out, "M%.1f %.1fh0", plot_x(f, x), plot_y(f, y));
    }
    if (open) {
        vae_text_add(out, "\"/>");
    }
}

void plot_scatter(vae_text *out, plot_axes axes, const float *xy, const uint32_t *labels, size_t n,
                  const char *const *names, size_t n_classes)
{
    plot_frame f = plot_frame_new(axes);
    plot_legend legend = {.mark = 'o'};
    f.height = 340;
    bool *seen = calloc(n_classes + 1, sizeof *seen);
    if (seen == NULL) {
        out->failed = true;
        return;
    }
    for (size_t i = 0; i < n; i++) {
        double x = (double)xy[2 * i], y = (double)xy[2 * i + 1];
        if (plot_usable(&f.x, x) && plot_usable(&f.y, y)) {
            plot_range_add(&f.x, x);
            plot_range_add(&f.y, y);
            seen[group_of(labels, i, n_classes)] = true;
        }
    }
    for (size_t c = 0; labels != NULL && c < n_classes; c++) {
        plot_legend_add(&legend, names[c], c);
    }
    if (labels != NULL && seen[n_classes]) {
        plot_legend_add(&legend, "no label", n_classes);
    }
    f.x.whole = f.y.whole = false;
    plot_range_close(&f.x, 0.03);
    plot_range_close(&f.y, 0.03);
    plot_open(out, &f, &legend);
    for (size_t c = 0; c <= n_classes; c++) {
        if (seen[c]) {
            put_class(out, &f, xy, labels, n, n_classes, c);
        }
    }
    plot_close(out);
    free(seen);
}
