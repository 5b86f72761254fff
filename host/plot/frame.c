/* Scales, ticks, and the frame around a chart's data. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "plot/frame.h"

#define FONT       12.5
#define TITLE_FONT 14.0

/* ---- scales ---- */

bool plot_usable(const plot_range *r, double v)
{
    return isfinite(v) && fabs(v) < 1e300 && (!r->log || v > 0);
}

void plot_range_add(plot_range *r, double v)
{
    if (!plot_usable(r, v)) {
        return;
    }
    double t = r->log ? log10(v) : v;
    r->whole = (r->whole || !r->any) && v == floor(v);
    r->lo = !r->any || t < r->lo ? t : r->lo;
    r->hi = !r->any || t > r->hi ? t : r->hi;
    r->any = true;
}

void plot_range_close(plot_range *r, double pad)
{
    if (!r->any) {
        r->lo = 0;
        r->hi = 1;
    }
    double size = fmax(fabs(r->lo), fabs(r->hi));
    if (r->hi - r->lo <= 1e-9 * size) { /* one value, or as good as one */
        double half = r->whole || size == 0 ? 1 : 0.05 * size;
        half = fmax(r->log ? 0.5 : half, 1e-9 * size);
        r->lo -= half;
        r->hi += half;
    }
    double room = pad * (r->hi - r->lo);
    r->lo -= room;
    r->hi += room;
}

double plot_place(const plot_range *r, double v)
{
    return ((r->log ? log10(v) : v) - r->lo) / (r->hi - r->lo);
}

/* ---- ticks ---- */

void plot_number(char text[PLOT_LABEL], double v, int digits)
{
    char plain[PLOT_LABEL - 12];
    snprintf(plain, sizeof plain, "%.*g", digits, v == 0 ? 0 : v);
    char *e = strchr(plain, 'e');
    if (e == NULL) {
        snprintf(text, PLOT_LABEL, "%s", plain);
        return;
    }
    int exponent = atoi(e + 1);
    *e = '\0';
    if (exponent > 0 && exponent < 6) { /* 1.2e+05: %g has fewer digits than the number */
        snprintf(text, PLOT_LABEL, "%.0f", v);
    } else {
        snprintf(text, PLOT_LABEL, "%se%d", plain, exponent);
    }
}

static void add_tick(plot_ticks *ticks, double value, int digits)
{
    if (ticks->n < PLOT_MAX_TICKS) {
        ticks->value[ticks->n] = value;
        plot_number(ticks->label[ticks->n++], value, digits);
    }
}

/* Multiples of 1, 2 or 5 times a power of ten between lo and hi. */
static void linear_ticks(plot_ticks *ticks, double lo, double hi, bool whole, size_t wanted)
{
    double raw = (hi - lo) / (double)wanted;
    double power = pow(10, floor(log10(raw)));
    static const double most[] = {1.4, 3.2, 7}, round[] = {1, 2, 5, 10};
    size_t fit = 0;
    while (fit < 3 && raw / power > most[fit]) {
        fit++;
    }
    double step = power * round[fit];
    if (whole && step < 1) {
        step = 1;
    }
    double first = ceil(lo / step - 1e-9);
    double largest = fmax(fabs(lo), fabs(hi));
    int digits = (int)fmin(15, fmax(1, floor(log10(largest)) - floor(log10(step) + 1e-9) + 1));
    for (size_t i = 0; i < PLOT_MAX_TICKS; i++) {
        double value = (first + (double)i) * step;
        if (value > hi + 1e-9 * step) {
            break;
        }
        add_tick(ticks, value, digits);
    }
}

/* Powers of ten between 10^lo and 10^hi; 2 and 5 of them, too, where there are few. */
static void log_ticks(plot_ticks *ticks, double lo, double hi, size_t wanted)
{
    double first = ceil(lo - 1e-9), last = floor(hi + 1e-9);
    double decades = last - first + 1;
    if (hi - lo >= 2.5) {
        double step = fmax(1, ceil(decades / (double)wanted));
        for (double e = first; e <= last && ticks->n < PLOT_MAX_TICKS; e += step) {
            add_tick(ticks, pow(10, e), 1);
        }
        return;
    }
    for (double e = floor(lo); e <= last; e++) {
        for (size_t i = 0; i < 3; i++) {
            double m = (const double[]){1, 2, 5}[i], at = e + log10(m);
            if (at >= lo - 1e-9 && at <= hi + 1e-9) {
                add_tick(ticks, m * pow(10, e), 1);
            }
        }
    }
    if (ticks->n < 3) {
        ticks->n = 0;
        linear_ticks(ticks, pow(10, lo), pow(10, hi), false, wanted);
    }
}

void plot_ticks_make(plot_ticks *ticks, const plot_range *r, size_t wanted)
{
    ticks->n = 0;
    if (r->log) {
        log_ticks(ticks, r->lo, r->hi, wanted);
    } else {
        linear_ticks(ticks, r->lo, r->hi, r->whole, wanted);
    }
    if (ticks->n == 0) { /* a whole-number range between two whole numbers */
        add_tick(ticks, r->log ? pow(10, r->lo) : r->lo, 6);
    }
}

/* ---- text ---- */

double plot_text_width(const char *text, double size)
{
    double width = 0;
    for (; *text != '\0'; text++) {
        if (((unsigned char)*text & 0xc0) != 0x80) { /* one a character */
            const double usual = *text >= 'A' && *text <= 'Z' ? 0.7 : 0.57;
            width += strchr("iljI.,:;|' ()[]", *text) != NULL ? 0.34 : usual;
        }
    }
    return width * size;
}

void plot_text_fitted(vae_text *out, const char *text, double size, double width)
{
    if (plot_text_width(text, size) <= width) {
        vae_text_escaped(out, text);
        return;
    }
    char part[256] = "";
    size_t n = 0;
    while (text[n] != '\0' && n + 5 < sizeof part) {
        size_t more = 1;
        while (((unsigned char)text[n + more] & 0xc0) == 0x80 && more < 4) {
            more++;
        }
        memcpy(part + n, text + n, more);
        part[n + more] = '\0';
        if (plot_text_width(part, size) > width - size) {
            part[n] = '\0';
            break;
        }
        n += more;
    }
    vae_text_escaped(out, part);
    vae_text_add(out, "\xe2\x80\xa6");
}

void plot_legend_add(plot_legend *legend, const char *name, size_t colour)
{
    if (name == NULL) {
        return;
    }
    if (legend->n == PLOT_MAX_LEGEND) {
        legend->more++;
        return;
    }
    snprintf(legend->item[legend->n].name, PLOT_LABEL, "%s", name);
    legend->item[legend->n++].colour = colour;
}

/* ---- the frame ---- */

/* The classes are the same in every chart of a page: whichever style comes last says the same. No
 * CSS variables: librsvg, Inkscape and the like do not know them. Colours have a contrast of 3:1
 * and more with their background. */
static const char style[] =
    "<style>.vp{font:12.5px system-ui,-apple-system,'Segoe UI',Roboto,'DejaVu Sans',sans-serif}"
    ".vp-bg{fill:#fff}.vp text{fill:#57606a}.vp .vp-t{fill:#1f2328;font-weight:600;font-size:14px}"
    ".vp "
    ".vp-k{fill:#1f2328}.vp-g{stroke:#e1e5ea;stroke-width:1}.vp-a{stroke:#8c959f;stroke-width:1}"
    ".vp-l{fill:none;stroke-width:2;stroke-linejoin:round;stroke-linecap:round}"
    ".vp-p{fill:none;stroke-width:5.5;stroke-linecap:round}"
    ".vp-s{fill:none;stroke-width:4;stroke-linecap:round;stroke-opacity:.75}"
    ".vp-h{fill-opacity:.28;stroke-width:1.5;stroke-linejoin:round}"
    ".vp-m{stroke:#1f2328;stroke-width:1.5;stroke-dasharray:5 3}.vp .vp-w{fill-opacity:.32}"
    ".vp .s0{stroke:#2f6fd0}.vp .f0{fill:#2f6fd0}.vp .s1{stroke:#d4500f}.vp .f1{fill:#d4500f}"
    ".vp .s2{stroke:#1a8f4d}.vp .f2{fill:#1a8f4d}.vp .s3{stroke:#c62f87}.vp .f3{fill:#c62f87}"
    ".vp .s4{stroke:#8250df}.vp .f4{fill:#8250df}.vp .s5{stroke:#a07400}.vp .f5{fill:#a07400}"
    ".vp .s6{stroke:#0b8ba3}.vp .f6{fill:#0b8ba3}.vp .s7{stroke:#c9252d}.vp .f7{fill:#c9252d}"
    ".vp .s8{stroke:#7d5a3c}.vp .f8{fill:#7d5a3c}.vp .s9{stroke:#6b7280}.vp .f9{fill:#6b7280}"
    "@media screen and (prefers-color-scheme:dark){.vp-bg{fill:#16191f}.vp text{fill:#a2acb8}"
    ".vp .vp-t,.vp .vp-k{fill:#e8ebef}.vp-g{stroke:#2b313a}.vp-a{stroke:#6b7583}"
    ".vp-m{stroke:#e8ebef}"
    ".vp .s0{stroke:#6ea8fe}.vp .f0{fill:#6ea8fe}.vp .s1{stroke:#ff9152}.vp .f1{fill:#ff9152}"
    ".vp .s2{stroke:#4fc98a}.vp .f2{fill:#4fc98a}.vp .s3{stroke:#f279b8}.vp .f3{fill:#f279b8}"
    ".vp .s4{stroke:#b794ff}.vp .f4{fill:#b794ff}.vp .s5{stroke:#e5b93c}.vp .f5{fill:#e5b93c}"
    ".vp .s6{stroke:#45c8de}.vp .f6{fill:#45c8de}.vp .s7{stroke:#ff6b73}.vp .f7{fill:#ff6b73}"
    ".vp .s8{stroke:#c39a7c}.vp .f8{fill:#c39a7c}.vp .s9{stroke:#a3acba}.vp .f9{fill:#a3acba}}"
    "</style>";

double plot_x(const plot_frame *f, double v)
{
    return f->left + plot_place(&f->x, v) * (f->right - f->left);
}

double plot_y(const plot_frame *f, double v)
{
    return f->bottom - plot_place(&f->y, v) * (f->bottom - f->top);
}

plot_frame plot_frame_new(plot_axes axes)
{
    return (plot_frame){.axes = axes,
                        .x = {.log = axes.log_x},
                        .y = {.log = axes.log_y},
                        .height = 200,
                        .below = 20};
}

const char *plot_dash(size_t series)
{
    static const char *const dashes[] = {"", " stroke-dasharray=\"7 4\"",
                                         " stroke-dasharray=\"1.5 4\""};
    return dashes[series % 3];
}

/* Writes the legend's rows from y on, or only measures them (out = NULL). Returns their height. */
static double put_legend(vae_text *out, const plot_legend *legend, double y)
{
    const double row = 18, gap = 16;
    double x = 0;
    size_t rows = legend->n > 0;
    for (size_t i = 0; i < legend->n + (legend->more > 0); i++) {
        char more[PLOT_LABEL];
        snprintf(more, sizeof more, "and %zu more", legend->more);
        const char *name = i < legend->n ? legend->item[i].name : more;
        double mark = legend->mark == '-' ? 26 : 15;
        mark = i < legend->n ? mark : 0;
        double width = mark + plot_text_width(name, FONT);
        if (x > 0 && x + width > PLOT_WIDTH - 20) {
            x = 0;
            rows++;
        }
        if (out != NULL) {
            double at = 10 + x, line = y + row * (double)rows - 5;
            size_t colour = i < legend->n ? legend->item[i].colour % VAE_PLOT_COLOURS : 0;
            if (mark == 26) {
                vae_text_add(out, "<path class=\"vp-l s%zu\" d=\"M%.1f %.1fh20\"%s/>", colour, at,
                             line - 4, plot_dash(legend->item[i].colour));
            } else if (mark > 0 && legend->mark == 'o') {
                vae_text_add(out, "<circle class=\"f%zu\" cx=\"%.1f\" cy=\"%.1f\" r=\"4.5\"/>",
                             colour, at + 5, line - 4);
            } else if (mark > 0) {
                vae_text_add(out,
                             "<rect class=\"f%zu\" x=\"%.1f\" y=\"%.1f\" width=\"10\" "
                             "height=\"10\" rx=\"2\"/>",
                             colour, at, line - 9);
            }
            vae_text_add(out, "<text class=\"vp-k\" x=\"%.1f\" y=\"%.1f\">", at + mark, line);
            plot_text_fitted(out, name, FONT, PLOT_WIDTH - 20 - mark);
            vae_text_add(out, "</text>");
        }
        x += width + gap;
    }
    return row * (double)rows;
}

static void put_text(vae_text *out, const char *kind, double x, double y, const char *anchor,
                     const char *text)
{
    vae_text_add(out, "<text class=\"%s\" x=\"%.1f\" y=\"%.1f\" text-anchor=\"%s\">", kind, x, y,
                 anchor);
    plot_text_fitted(out, text, FONT, PLOT_WIDTH - 20);
    vae_text_add(out, "</text>");
}

static void put_axes(vae_text *out, const plot_frame *f, const plot_ticks *x, const plot_ticks *y)
{
    for (size_t i = 0; i < y->n; i++) {
        double at = plot_y(f, y->value[i]);
        vae_text_add(out, "<path class=\"vp-g\" d=\"M%.1f %.1fH%.1f\"/>", f->left, at, f->right);
        put_text(out, "vp-n", f->left - 6, at + 4, "end", y->label[i]);
    }
    for (size_t i = 0; !f->hide_x && i < x->n; i++) {
        double at = plot_x(f, x->value[i]);
        vae_text_add(out, "<path class=\"vp-a\" d=\"M%.1f %.1fv4\"/>", at, f->bottom);
        put_text(out, "vp-n", at, f->bottom + 17, "middle", x->label[i]);
    }
    vae_text_add(out, "<path class=\"vp-a\" d=\"M%.1f %.1fH%.1f\"/>", f->left, f->bottom, f->right);
    if (f->axes.y != NULL) {
        put_text(out, "vp-n", 10, f->top - 9, "start", f->axes.y);
    }
    if (f->axes.x != NULL) {
        put_text(out, "vp-n", (f->left + f->right) / 2, f->bottom + f->below + 15, "middle",
                 f->axes.x);
    }
}

/* How many tick labels fit side by side. */
static size_t ticks_that_fit(const plot_ticks *ticks, double width)
{
    double widest = 0;
    for (size_t i = 0; i < ticks->n; i++) {
        widest = fmax(widest, plot_text_width(ticks->label[i], FONT));
    }
    return (size_t)fmax(2, width / (widest + 18));
}

void plot_open(vae_text *out, plot_frame *f, const plot_legend *legend)
{
    plot_ticks x, y;
    plot_ticks_make(&y, &f->y, (size_t)(f->height / 42));
    double widest = 12;
    for (size_t i = 0; i < y.n; i++) {
        widest = fmax(widest, plot_text_width(y.label[i], FONT));
    }
    f->left = 14 + widest;
    f->right = PLOT_WIDTH - 18;
    plot_ticks_make(&x, &f->x, 6);
    size_t fit = ticks_that_fit(&x, f->right - f->left);
    if (x.n > fit) {
        plot_ticks_make(&x, &f->x, fit > 2 ? fit - 1 : 2);
    }
    double head = f->axes.title != NULL ? 28 : 6;
    f->top = head + put_legend(NULL, legend, 0) + (f->axes.y != NULL ? 26 : 10);
    f->bottom = f->top + f->height;
    double bottom = f->bottom + f->below + (f->axes.x != NULL ? 22 : 6);

    /* data-*: what a page needs to turn a click into values */
    vae_text_add(out,
                 "<svg xmlns=\"http://www.w3.org/2000/svg\" class=\"vp\" role=\"img\" "
                 "viewBox=\"0 0 %d %.0f\" data-area=\"%.2f %.2f %.2f %.2f\" "
                 "data-range=\"%.9g %.9g %.9g %.9g\"><title>",
                 PLOT_WIDTH, bottom, f->left, f->top, f->right, f->bottom, f->x.lo, f->x.hi,
                 f->y.lo, f->y.hi);
    const char *usual = f->axes.y != NULL ? f->axes.y : "chart";
    vae_text_escaped(out, f->axes.title != NULL ? f->axes.title : usual);
    vae_text_add(out, "</title>%s<rect class=\"vp-bg\" width=\"%d\" height=\"%.0f\"/>", style,
                 PLOT_WIDTH, bottom);
    if (f->axes.title != NULL) {
        vae_text_add(out, "<text class=\"vp-t\" x=\"10\" y=\"20\">");
        plot_text_fitted(out, f->axes.title, TITLE_FONT * 1.06, PLOT_WIDTH - 20);
        vae_text_add(out, "</text>");
    }
    put_legend(out, legend, head);
    put_axes(out, f, &x, &y);
}

void plot_close(vae_text *out)
{
    vae_text_add(out, "</svg>\n");
}
