/* Colours: ten hues told apart by most readers with colour-blindness too, each in a tone for light
 * and one for dark backgrounds (after Okabe & Ito 2008 and Tableau's ten). */
#include "plot.h"

#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "dataset_internal.h"

/* ---- text ---- */

static bool reserve(vae_text *t, size_t more)
{
    if (t->failed || more > SIZE_MAX / 2 - t->size - 1) {
        t->failed = true;
        return false;
    }
    if (t->size + more + 1 > t->room) {
        size_t room = t->room < 512 ? 512 : t->room;
        while (room < t->size + more + 1) {
            room *= 2;
        }
        char *data = realloc(t->data, room);
        if (data == NULL) {
            t->failed = true;
            return false;
        }
        t->data = data;
        t->room = room;
    }
    return true;
}

void vae_text_put(vae_text *t, const char *bytes, size_t n)
{
    if (reserve(t, n)) {
        memcpy(t->data + t->size, bytes, n);
        t->size += n;
        t->data[t->size] = '\0';
    }
}

void vae_text_add(vae_text *t, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    int n = vsnprintf(NULL, 0, format, args);
    va_end(args);
    if (n < 0 || !reserve(t, (size_t)n)) {
        t->failed = true;
        return;
    }
    va_start(args, format);
    vsnprintf(t->data + t->size, (size_t)n + 1, format, args);
    va_end(args);
    t->size += (size_t)n;
}

void vae_text_escaped(vae_text *t, const char *text)
{
    static const char specials[] = "&<>\"'";
    static const char *const entity[] = {"&amp;", "&lt;", "&gt;", "&quot;", "&#39;"};
    for (const char *p = text; *p != '\0'; p++) {
        const char *special = strchr(specials, *p);
        if (special != NULL) {
            const char *e = entity[special - specials];
            vae_text_put(t, e, strlen(e));
        } else {
            /* control characters are no XML */
            char c = (unsigned char)*p < ' ' && *p != '\t' && *p != '\n' ? '?' : *p;
            vae_text_put(t, &c, 1);
        }
    }
}

vae_status vae_text_done(const vae_text *t, vae_error *err)
{
    return t->failed ? vae_fail_memory(err, t->room, "a text") : VAE_OK;
}

void vae_text_clear(vae_text *t)
{
    free(t->data);
    *t = (vae_text){0};
}

vae_status vae_text_write(const vae_text *t, const char *path, vae_error *err)
{
    const struct iovec part = {t->data, t->size};
    vae_status status = vae_text_done(t, err);
    return status == VAE_OK ? vae_file_put(path, &part, 1, err) : status;
}

/* ---- axes ---- */

enum { WIDTH = 640, HEIGHT = 360, LEFT = 64, RIGHT = 16, TOP = 36, BOTTOM = 48, MAX_TICKS = 12 };
enum { LEGEND_ROW = 18, LEGEND_COLUMN = 120 };

typedef struct {
    double low, high; /* of the data, or its logarithm; low < high */
    bool log;
} scale;

typedef struct {
    plot_axes axes;
    scale x, y;
    double left, right, top, bottom; /* of the plotting area, in the picture's units */
} frame;

/* NaN for what cannot be drawn: so large that the axis would overflow, or without a logarithm. */
static double scaled(double v, bool log)
{
    return fabs(v) > 1e300 || (log && !(v > 0)) ? NAN : log ? log10(v) : v;
}

static scale empty_scale(bool log)
{
    return (scale){INFINITY, -INFINITY, log};
}

static void widen(scale *s, double v)
{
    v = scaled(v, s->log);
    if (isfinite(v)) {
        s->low = v < s->low ? v : s->low;
        s->high = v > s->high ? v : s->high;
    }
}

/* Room around the data, and some width where all are equal or there are none. */
static void settle(scale *s, double margin)
{
    if (!(s->low <= s->high)) {
        s->low = 0, s->high = 1;
    }
    double room = (s->high - s->low) * margin;
    if (!(s->high - s->low > 1e-12 * (fabs(s->low) + fabs(s->high)))) {
        room = s->log ? 0.5 : s->low == 0 ? 1 : 0.1 * fabs(s->low);
    }
    s->low -= room;
    s->high += room;
}

static double at_x(const frame *f, double v)
{
    return f->left +
           (scaled(v, f->x.log) - f->x.low) / (f->x.high - f->x.low) * (f->right - f->left);
}

static double at_y(const frame *f, double v)
{
    return f->bottom -
           (scaled(v, f->y.log) - f->y.low) / (f->y.high - f->y.low) * (f->bottom - f->top);
}

/* 1, 2 or 5 times a power of ten, so that about `want` steps fit. */
static double round_step(double span, int want)
{
    double raw = span / want, power = pow(10, floor(log10(raw))), ratio = raw / power;
    return power * (ratio <= 1 ? 1 : ratio <= 2 ? 2 : ratio <= 5 ? 5 : 10);
}

/* Tick values in the scale's own units (logarithms where it is one). */
static int make_ticks(const scale *s, int want, double ticks[MAX_TICKS])
{
    double step = round_step(s->high - s->low, want);
    step = s->log && step < 1 && s->high - s->low > 1 ? 1 : step;
    int n = 0;
    for (double i = ceil(s->low / step - 1e-9); i * step <= s->high + 1e-9 * step; i++) {
        if (n < MAX_TICKS) {
            ticks[n++] = i == 0 ? 0 : i * step; /* no -0 */
        }
    }
    return n;
}

/* -1.5, 0, 20,000 as 20000, 1e+06 as 1e6. */
static void number(char *text, size_t size, double v)
{
    snprintf(text, size, "%.6g", v);
    char *e = strstr(text, "e+0");
    e = e != NULL ? e : strstr(text, "e+");
    if (e != NULL) {
        size_t skip = e[2] == '0' ? 3 : 2;
        memmove(e + 1, e + skip, strlen(e + skip) + 1);
    }
}

/* Colours by currentColor, for not every reader of SVG knows var(). */
static const char style[] =
    "<style>.vp{font:12px system-ui,sans-serif}.vp .b{fill:#fff}.vp text{fill:#1f2328}"
    ".vp .g{stroke:#d8dee4}.vp .a{stroke:#59636e;fill:none}"
    ".vp .v{stroke:#1f2328;stroke-dasharray:4 3}.vp text.t{fill:#59636e}"
    ".vp .n{font-weight:600;font-size:14px}"
    ".vp .l{fill:none;stroke:currentColor;stroke-width:2;stroke-linejoin:round}"
    ".vp .f{fill:currentColor}.vp .h{fill:currentColor;fill-opacity:.45;stroke:currentColor}"
    ".vp .d{stroke:currentColor;stroke-opacity:.6;stroke-linecap:round}.vp .c0{color:#0b62b8}"
    ".vp .c1{color:#c8500a}.vp .c2{color:#12805c}.vp .c3{color:#b2283a}.vp .c4{color:#7446b8}"
    ".vp .c5{color:#7a5230}.vp .c6{color:#c0388f}.vp .c7{color:#59636e}.vp .c8{color:#8a7a00}"
    ".vp .c9{color:#0a7f96}@media(prefers-color-scheme:dark){.vp .b{fill:#0d1117}"
    ".vp text{fill:#e6edf3}.vp .g{stroke:#30363d}.vp .a{stroke:#9aa5b1}.vp .v{stroke:#e6edf3}"
    ".vp text.t{fill:#9aa5b1}.vp .c0{color:#6cb2ff}.vp .c1{color:#ff9a57}.vp .c2{color:#4fd1a5}"
    ".vp .c3{color:#ff7b86}.vp .c4{color:#bd9bff}.vp .c5{color:#c9a27c}.vp .c6{color:#ff8ad0}"
    ".vp .c7{color:#aab4bf}.vp .c8{color:#e3d04b}.vp .c9{color:#59d0e6}}</style>";

static void open_svg(vae_text *out, const plot_axes *axes, double height)
{
    vae_text_add(out,
                 "<svg class=\"vp\" xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 %d %.0f\" "
                 "role=\"img\">",
                 WIDTH, height);
    vae_text_add(out, "<title>");
    vae_text_escaped(out, axes->title != NULL ? axes->title : "chart");
    vae_text_add(out, "</title>%s<rect class=\"b\" width=\"%d\" height=\"%.0f\"/>", style, WIDTH,
                 height);
}

static void label(vae_text *out, double x, double y, const char *anchor, const char *class,
                  const char *text)
{
    vae_text_add(out, "<text x=\"%.1f\" y=\"%.1f\" text-anchor=\"%s\" class=\"%s\">", x, y, anchor,
                 class);
    vae_text_escaped(out, text);
    vae_text_add(out, "</text>");
}

static void draw_ticks(vae_text *out, const frame *f, bool x_numbers)
{
    double ticks[MAX_TICKS];
    char text[40];
    int n = x_numbers ? make_ticks(&f->x, 6, ticks) : 0;
    for (int i = 0; i < n; i++) {
        double x = f->left + (ticks[i] - f->x.low) / (f->x.high - f->x.low) * (f->right - f->left);
        number(text, sizeof text, f->x.log ? pow(10, ticks[i]) : ticks[i]);
        vae_text_add(out, "<path class=\"g\" d=\"M%.1f %.1fV%.1f\"/>", x, f->top, f->bottom);
        label(out, x, f->bottom + 16, "middle", "t", text);
    }
    n = make_ticks(&f->y, 5, ticks);
    for (int i = 0; i < n; i++) {
        double y =
            f->bottom - (ticks[i] - f->y.low) / (f->y.high - f->y.low) * (f->bottom - f->top);
        number(text, sizeof text, f->y.log ? pow(10, ticks[i]) : ticks[i]);
        vae_text_add(out, "<path class=\"g\" d=\"M%.1f %.1fH%.1f\"/>", f->left, y, f->right);
        label(out, f->left - 6, y + 4, "end", "t", text);
    }
}

/* Names of series or classes in rows at the bottom; returns the height they take. */
static double legend_height(size_t names)
{
    const size_t columns = (WIDTH - LEFT) / LEGEND_COLUMN;
    return names > 0 ? (double)(LEGEND_ROW * ((names + columns - 1) / columns)) : 0;
}

static void legend_entry(vae_text *out, size_t place, size_t colour, const char *name, double top)
{
    const size_t columns = (WIDTH - LEFT) / LEGEND_COLUMN;
    double x = LEFT + (double)(place % columns * LEGEND_COLUMN);
    double y = top + (double)(place / columns * LEGEND_ROW);
    vae_text_add(out, "<rect class=\"f c%zu\" x=\"%.1f\" y=\"%.1f\" width=\"10\" height=\"10\"/>",
                 colour % VAE_PLOT_COLOURS, x, y);
    label(out, x + 15, y + 9, "start", "", name);
}

static frame open_chart(vae_text *out, plot_axes axes, scale x, scale y, size_t names,
                        bool x_numbers)
{
    frame f = {.axes = axes,
               .x = x,
               .y = y,
               .left = LEFT,
               .right = WIDTH - RIGHT,
               .top = axes.title != NULL ? TOP : 14,
               .bottom = HEIGHT - BOTTOM};
    open_svg(out, &axes, HEIGHT + legend_height(names));
    if (axes.title != NULL) {
        label(out, f.left, 20, "start", "n", axes.title);
    }
    draw_ticks(out, &f, x_numbers);
    vae_text_add(out, "<path class=\"a\" fill=\"none\" d=\"M%.1f %.1fV%.1fH%.1f\"/>", f.left, f.top,
                 f.bottom, f.right);
    if (axes.x != NULL) {
        label(out, (f.left + f.right) / 2, f.bottom + 34, "middle", "", axes.x);
    }
    if (axes.y != NULL) {
        double middle = (f.top + f.bottom) / 2;
        vae_text_add(out,
                     "<text transform=\"translate(14 %.1f) rotate(-90)\" "
                     "text-anchor=\"middle\">",
                     middle);
        vae_text_escaped(out, axes.y);
        vae_text_add(out, "</text>");
    }
    return f;
}

static void close_chart(vae_text *out)
{
    vae_text_add(out, "</svg>");
}

static size_t named(const plot_series *series, size_t n)
{
    size_t names = 0;
    for (size_t i = 0; i < n; i++) {
        names += series[i].name != NULL;
    }
    return names;
}

static void draw_legend(vae_text *out, const plot_series *series, size_t n)
{
    for (size_t i = 0, place = 0; i < n; i++) {
        if (series[i].name != NULL) {
            legend_entry(out, place++, i, series[i].name, HEIGHT);
        }
    }
}

/* ---- charts ---- */

static bool drawable(const frame *f, double x, double y)
{
    return isfinite(scaled(x, f->x.log)) && isfinite(scaled(y, f->y.log));
}

static void draw_series(vae_text *out, const frame *f, const plot_series *s, size_t colour)
{
    bool pen_down = false;
    size_t drawn = 0;
    if (!s->points) {
        vae_text_add(out, "<path class=\"l c%zu\" d=\"", colour % VAE_PLOT_COLOURS);
        for (size_t i = 0; i < s->n; i++) {
            bool good = drawable(f, s->x[i], s->y[i]);
            if (good) {
                vae_text_add(out, "%c%.1f %.1f", pen_down ? 'L' : 'M', at_x(f, s->x[i]),
                             at_y(f, s->y[i]));
                drawn++;
            }
            pen_down = good;
        }
        vae_text_add(out, "\"/>");
    }
    for (size_t i = 0; i < s->n && (s->points || drawn == 1); i++) {
        if (drawable(f, s->x[i], s->y[i])) {
            vae_text_add(out, "<circle class=\"f c%zu\" cx=\"%.1f\" cy=\"%.1f\" r=\"3\"/>",
                         colour % VAE_PLOT_COLOURS, at_x(f, s->x[i]), at_y(f, s->y[i]));
        }
    }
}

void plot_lines(vae_text *out, plot_axes axes, const plot_series *series, size_t n)
{
    scale x = empty_scale(axes.log_x), y = empty_scale(axes.log_y);
    for (size_t i = 0; i < n; i++) {
        for (size_t j = 0; j < series[i].n; j++) {
            if (isfinite(scaled(series[i].x[j], x.log)) &&
                isfinite(scaled(series[i].y[j], y.log))) {
                widen(&x, series[i].x[j]);
                widen(&y, series[i].y[j]);
            }
        }
    }
    settle(&x, 0.02);
    settle(&y, 0.05);
    frame f = open_chart(out, axes, x, y, named(series, n), true);
    for (size_t i = 0; i < n; i++) {
        draw_series(out, &f, &series[i], i);
    }
    draw_legend(out, series, n);
    close_chart(out);
}

void plot_bars(vae_text *out, plot_axes axes, const double *values, const char *const *labels,
               size_t n)
{
    scale x = {0, n > 0 ? (double)n : 1, false}, y = empty_scale(false);
    widen(&y, 0);
    for (size_t i = 0; i < n; i++) {
        widen(&y, values[i]);
    }
    bool above = y.low >= 0;
    settle(&y, 0.05);
    y.low = above ? 0 : y.low;
    frame f = open_chart(out, axes, x, y, 0, false);
    const double zero = at_y(&f, 0), step = (f.right - f.left) / x.high;
    const size_t every = (size_t)ceil(28 / step); /* labels that do not touch */
    for (size_t i = 0; i < n; i++) {
        char text[24];
        snprintf(text, sizeof text, "%zu", i);
        double at = f.left + step * (double)i;
        if (isfinite(values[i])) {
            double top = at_y(&f, values[i]), high = fabs(zero - top);
            vae_text_add(out,
                         "<rect class=\"f c0\" x=\"%.2f\" y=\"%.1f\" width=\"%.2f\" "
                         "height=\"%.1f\"><title>",
                         at + 0.1 * step, top < zero ? top : zero, 0.8 * step, high);
            vae_text_escaped(out, labels != NULL ? labels[i] : text);
            vae_text_add(out, ": %.4g</title></rect>", values[i]);
        }
        if (i % every == 0) {
            label(out, at + step / 2, f.bottom + 16, "middle", "t",
                  labels != NULL ? labels[i] : text);
        }
    }
    close_chart(out);
}

/* counts: (bins) of the group's finite values over low..high; returns the largest. */
static size_t count_bins(size_t *counts, size_t bins, const plot_series *g, const scale *s)
{
    size_t most = 0;
    memset(counts, 0, bins * sizeof *counts);
    for (size_t i = 0; i < g->n; i++) {
        double v = scaled(g->x[i], s->log);
        if (isfinite(v)) {
            double place = (v - s->low) / (s->high - s->low) * (double)bins;
            size_t bin = place < 0 ? 0 : place >= (double)bins ? bins - 1 : (size_t)place;
            counts[bin]++;
            most = counts[bin] > most ? counts[bin] : most;
        }
    }
    return most;
}

void plot_histogram(vae_text *out, plot_axes axes, const plot_series *groups, size_t n_groups,
                    size_t bins, const double *marks, const char *const *mark_names, size_t n_marks)
{
    scale x = empty_scale(axes.log_x), y = empty_scale(axes.log_y);
    bins = bins > 0 ? bins : 1;
    size_t *counts = malloc((n_groups > 0 ? n_groups : 1) * bins * sizeof *counts);
    if (counts == NULL) {
        out->failed = true;
        return;
    }
    for (size_t g = 0; g < n_groups; g++) {
        for (size_t i = 0; i < groups[g].n; i++) {
            widen(&x, groups[g].x[i]);
        }
    }
    settle(&x, 0);
    widen(&y, axes.log_y ? 0.5 : 0);
    for (size_t g = 0; g < n_groups; g++) {
        widen(&y, (double)count_bins(counts + g * bins, bins, &groups[g], &x));
    }
    const double base = axes.log_y ? 0.5 : 0;
    const double low = y.low;
    settle(&y, 0.05);
    y.low = isfinite(low) ? low : y.low;
    frame f = open_chart(out, axes, x, y, named(groups, n_groups), true);
    const double step = (f.right - f.left) / (double)bins, floor_y = at_y(&f, base);
    for (size_t g = 0; g < n_groups; g++) {
        vae_text_add(out, "<path class=\"h c%zu\" d=\"M%.2f %.1f", g % VAE_PLOT_COLOURS, f.left,
                     floor_y);
        for (size_t i = 0; i < bins; i++) {
            size_t count = counts[g * bins + i];
            vae_text_add(out, "V%.1fH%.2f", count > 0 ? at_y(&f, (double)count) : floor_y,
                         f.left + step * (double)(i + 1));
        }
        vae_text_add(out, "V%.1fZ\"/>", floor_y);
    }
    for (size_t i = 0; i < n_marks; i++) {
        double at = at_x(&f, marks[i]);
        if (isfinite(at) && at >= f.left && at <= f.right) {
            vae_text_add(out, "<path class=\"v\" d=\"M%.1f %.1fV%.1f\"/>", at, f.top, f.bottom);
            label(out, at + 4, f.top + 12 + 14 * (double)i, "start", "",
                  mark_names != NULL && mark_names[i] != NULL ? mark_names[i] : "");
        }
    }
    draw_legend(out, groups, n_groups);
    close_chart(out);
    free(counts);
}

void plot_scatter(vae_text *out, plot_axes axes, const float *xy, const uint8_t *labels, size_t n,
                  size_t n_classes)
{
    scale x = empty_scale(axes.log_x), y = empty_scale(axes.log_y);
    for (size_t i = 0; i < n; i++) {
        widen(&x, (double)xy[2 * i]);
        widen(&y, (double)xy[2 * i + 1]);
    }
    settle(&x, 0.03);
    settle(&y, 0.03);
    const size_t classes = labels != NULL ? n_classes : 0;
    frame f = open_chart(out, axes, x, y, classes, true);
    /* one path a class: a line of no length with round ends is a dot of a few bytes */
    for (size_t c = 0; c < (classes > 0 ? classes : 1); c++) {
        vae_text_add(out, "<path class=\"d c%zu\" stroke-width=\"%d\" d=\"", c % VAE_PLOT_COLOURS,
                     n > 5000 ? 3 : 4);
        for (size_t i = 0; i < n; i++) {
            double px = (double)xy[2 * i], py = (double)xy[2 * i + 1];
            if ((labels == NULL || labels[i] == c) && drawable(&f, px, py)) {
                vae_text_add(out, "M%.1f %.1fh0", at_x(&f, px), at_y(&f, py));
            }
        }
        vae_text_add(out, "\"/>");
    }
    for (size_t c = 0; c < classes; c++) {
        char name[24];
        snprintf(name, sizeof name, "%zu", c);
        legend_entry(out, c, c, name, HEIGHT);
    }
    close_chart(out);
}
