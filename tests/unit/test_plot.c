/* Charts: each is well-formed XML, shows the values it was given, and survives the odd ones. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <ctype.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "plot/frame.h"

/* ---- a reader of XML, as strict as SVG's readers ---- */

static bool entity(const char *at)
{
    static const char *const known[] = {"&amp;", "&lt;", "&gt;", "&quot;", "&#39;"};
    for (size_t i = 0; i < 5; i++) {
        if (strncmp(at, known[i], strlen(known[i])) == 0) {
            return true;
        }
    }
    return false;
}

/* Past the tag at `at`; pushes or pops its name. NULL = not well-formed. */
static const char *read_tag(const char *at, char names[16][16], size_t *depth)
{
    char name[16];
    bool closing = *++at == '/';
    at += closing;
    size_t n = strspn(at, "abcdefghijklmnopqrstuvwxyz");
    if (n == 0 || n >= sizeof name) {
        return NULL;
    }
    snprintf(name, sizeof name, "%.*s", (int)n, at);
    at += n;
    if (closing) {
        return *at == '>' && *depth > 0 && strcmp(names[--*depth], name) == 0 ? at + 1 : NULL;
    }
    while (*at == ' ') {
        at += 1 + strcspn(at + 1, "=\"<> ");
        if (at[0] != '=' || at[1] != '"') {
            return NULL;
        }
        for (at += 2; *at != '"'; at++) {
            if (*at == '\0' || *at == '<' || (*at == '&' && !entity(at))) {
                return NULL;
            }
        }
        at++;
    }
    if (*at == '/') {
        return at[1] == '>' ? at + 2 : NULL;
    }
    if (*at != '>' || *depth == 16) {
        return NULL;
    }
    memcpy(names[(*depth)++], name, sizeof name);
    return at + 1;
}

static bool well_formed(const char *text)
{
    char names[16][16];
    size_t depth = 0, roots = 0;
    while (*text != '\0') {
        if (*text == '<') {
            roots += depth == 0;
            text = read_tag(text, names, &depth);
            if (text == NULL) {
                return false;
            }
        } else if ((*text == '&' && !entity(text)) ||
                   ((unsigned char)*text < 0x20 && *text != '\n')) {
            return false;
        } else if (depth == 0 && !isspace((unsigned char)*text)) {
            return false;
        } else {
            text++;
        }
    }
    return depth == 0 && roots == 1;
}

static size_t count(const char *text, const char *word)
{
    size_t n = 0;
    for (; (text = strstr(text, word)) != NULL; text += strlen(word)) {
        n++;
    }
    return n;
}

/* Where VAE_PLOT_SHOW names a folder, charts are left there to be looked at. */
static void check(vae_text *t, const char *name)
{
    assert_int_equal(vae_text_done(t, NULL), VAE_OK);
    if (getenv("VAE_PLOT_SHOW") != NULL) {
        char path[512];
        snprintf(path, sizeof path, "%s/%s.svg", getenv("VAE_PLOT_SHOW"), name);
        assert_int_equal(vae_text_write(t, path, NULL), VAE_OK);
    }
    assert_int_equal(strncmp(t->data, "<svg xmlns=\"http://www.w3.org/2000/svg\"", 39), 0);
    assert_true(well_formed(t->data));
    const char *body = strstr(t->data, "</style>");
    assert_null(strstr(body, "nan"));
    assert_null(strstr(body, "inf"));
    assert_null(strstr(t->data, "<title></title>"));
}

static void the_reader_refuses_what_is_not_well_formed(void **state)
{
    (void)state;
    assert_true(well_formed("<a b=\"c\"><d/>&amp;</a>\n"));
    assert_false(well_formed("<a><d></a></d>"));
    assert_false(well_formed("<a>&</a>"));
    assert_false(well_formed("<a b=\"<\"/>"));
    assert_false(well_formed("<a/><a/>"));
    assert_false(well_formed("<a b=c/>"));
    assert_false(well_formed("<a>\x01</a>"));
}

/* ---- text ---- */

static void text_grows_and_escapes(void **state)
{
    (void)state;
    vae_text t = {0};
    vae_text_add(&t, "%d %s", 7, "seven");
    assert_string_equal(t.data, "7 seven");
    for (int i = 0; i < 5000; i++) {
        vae_text_put(&t, "abc", 3);
    }
    assert_int_equal(t.size, 7 + 15000);
    assert_int_equal(strlen(t.data), t.size);
    vae_text_clear(&t);
    assert_null(t.data);
    vae_text_escaped(&t, "</script>&\"'\xc3\xa9");
    assert_string_equal(t.data, "&lt;/script&gt;&amp;&quot;&#39;\xc3\xa9");
    vae_text_clear(&t);
    /* a control byte, a stray continuation, an overlong slash, a surrogate, a cut character */
    vae_text_escaped(&t, "\x01|\x80|\xc0\xaf|\xed\xa0\x80|\xe2\x82");
    assert_null(strpbrk(t.data, "\x01\x80/"));
    assert_int_equal(count(t.data, "\xef\xbf\xbd"), 1 + 1 + 2 + 3 + 2);
    vae_text_clear(&t);
}

static void a_failed_text_is_an_error_once(void **state)
{
    (void)state;
    vae_text t = {.failed = true};
    vae_text_add(&t, "x");
    vae_text_put(&t, "x", 1);
    vae_error err = {0};
    assert_int_equal(vae_text_done(&t, &err), VAE_ERR_RUNTIME);
    assert_int_equal(vae_text_write(&t, "/nowhere/x", &err), VAE_ERR_RUNTIME);
    vae_text ok = {0};
    vae_text_add(&ok, "x");
    err = (vae_error){0};
    assert_int_equal(vae_text_write(&ok, "/nowhere/x.svg", &err), VAE_ERR_IO);
    assert_non_null(strstr(err.text, "/nowhere/x.svg"));
    char path[] = "/tmp/plot-XXXXXX", back[4] = "";
    const int fd = mkstemp(path);
    assert_true(fd >= 0);
    err = (vae_error){0};
    assert_int_equal(vae_text_write(&ok, path, &err), VAE_OK);
    FILE *file = fopen(path, "r");
    assert_non_null(file);
    assert_int_equal(fread(back, 1, sizeof back, file), 1);
    assert_string_equal(back, "x");
    fclose(file);
    close(fd);
    unlink(path);
    vae_text_clear(&ok);
}

/* ---- ticks ---- */

static void expect_ticks(double lo, double hi, bool log, bool whole, const char *expected)
{
    plot_range r = {.log = log};
    plot_range_add(&r, lo);
    plot_range_add(&r, hi);
    r.whole = whole;
    plot_range_close(&r, 0);
    plot_ticks ticks;
    plot_ticks_make(&ticks, &r, 5);
    char text[1024] = "";
    for (size_t i = 0; i < ticks.n; i++) {
        assert_true(plot_place(&r, ticks.value[i]) > -1e-6);
        assert_true(plot_place(&r, ticks.value[i]) < 1 + 1e-6);
        snprintf(text + strlen(text), sizeof text - strlen(text), "%s%s", i > 0 ? " " : "",
                 ticks.label[i]);
    }
    assert_string_equal(text, expected);
}

static void ticks_are_round(void **state)
{
    (void)state;
    expect_ticks(0, 1, false, false, "0 0.2 0.4 0.6 0.8 1");
    expect_ticks(-1, 1, false, false, "-1 -0.5 0 0.5 1");
    expect_ticks(103.2, 117.9, false, false, "104 106 108 110 112 114 116");
    expect_ticks(1, 3, false, true, "1 2 3");
    expect_ticks(1, 3, false, false, "1 1.5 2 2.5 3");
    expect_ticks(0, 250000, false, false, "0 50000 100000 150000 200000 250000");
    expect_ticks(0, 5e7, false, false, "0 1e7 2e7 3e7 4e7 5e7");
    expect_ticks(1e-7, 5e-7, false, false, "1e-7 2e-7 3e-7 4e-7 5e-7");
    expect_ticks(1000.001, 1000.005, false, false, "1000.001 1000.002 1000.003 1000.004 1000.005");
    expect_ticks(4, 4, false, true, "3 4 5");
    expect_ticks(0.5, 0.5, false, false, "0.48 0.49 0.5 0.51 0.52");
    expect_ticks(1e-3, 1e3, true, false, "0.001 0.1 10 1000");
    expect_ticks(1, 100, true, false, "1 2 5 10 20 50 100");
    expect_ticks(300, 340, true, false, "300 310 320 330 340");
    expect_ticks(-1e299, 1e299, false, false, "-1e299 -5e298 0 5e298 1e299");
}

static void what_no_axis_can_show_is_not_usable(void **state)
{
    (void)state;
    const plot_range linear = {0}, log = {.log = true};
    assert_true(plot_usable(&linear, -3));
    assert_false(plot_usable(&linear, NAN));
    assert_false(plot_usable(&linear, INFINITY));
    assert_false(plot_usable(&linear, 1.7e308)); /* twice that is Inf */
    assert_false(plot_usable(&log, 0));
    assert_false(plot_usable(&log, -1));
    assert_true(plot_usable(&log, 1e-30));
}

static void long_text_is_cut(void **state)
{
    (void)state;
    vae_text t = {0};
    plot_text_fitted(&t, "short", 12, 100);
    assert_string_equal(t.data, "short");
    vae_text_clear(&t);
    char longer[2001];
    for (size_t i = 0; i + 1 < sizeof longer; i += 2) {
        memcpy(longer + i, "\xc3\xa9", 2); /* never cut in the middle of a character */
    }
    longer[2000] = '\0';
    plot_text_fitted(&t, longer, 12, 100);
    assert_true(t.size < 40);
    assert_int_equal(t.size % 2, 1); /* the ellipsis has three bytes */
    assert_null(strstr(t.data, "\xef\xbf\xbd"));
    vae_text_clear(&t);
}

/* ---- charts ---- */

static void lines_show_each_series(void **state)
{
    (void)state;
    double x[12], y[3][12];
    for (size_t i = 0; i < 12; i++) {
        x[i] = (double)(i + 1);
        y[0][i] = 103 + 40 / x[i];
        y[1][i] = 105 + 38 / x[i];
        y[2][i] = 104 + 39 / x[i] + (double)(i % 3) * 0.4;
    }
    const plot_series s[] = {{"train", x, y[0], 12, false},
                             {"validation <&>", x, y[1], 12, false},
                             {"test", x, y[2], 12, false},
                             {NULL, x, y[0], 12, true}};
    vae_text t = {0};
    plot_lines(&t, (plot_axes){"Loss over epochs", "epoch", "nats an example", false, false}, s, 4);
    check(&t, "lines");
    assert_non_null(strstr(t.data, ">Loss over epochs</text>"));
    assert_non_null(strstr(t.data, ">validation &lt;&amp;&gt;</text>"));
    assert_int_equal(count(t.data, "class=\"vp-l s"), 3 + 3); /* three lines, three in the legend */
    assert_int_equal(count(t.data, "h0"), 4 * 12);
    assert_int_equal(count(t.data, "stroke-dasharray=\"7 4\""), 2);
    vae_text_clear(&t);
}

static void what_is_not_finite_breaks_the_line(void **state)
{
    (void)state;
    double x[60], y[60];
    for (size_t i = 0; i < 60; i++) {
        x[i] = (double)i;
        y[i] = i == 20 || i == 22 ? NAN : i == 40 ? INFINITY : sin((double)i / 5);
    }
    const plot_series s[] = {{"wave", x, y, 60, false}};
    vae_text t = {0};
    plot_lines(&t, (plot_axes){"Gaps", "x", NULL, false, false}, s, 1);
    check(&t, "gaps");
    const char *line = strstr(strstr(t.data, "vp-l s0\" d=") + 10, "vp-l s0\" d=");
    assert_non_null(line);
    char d[4096];
    snprintf(d, sizeof d, "%.*s", (int)strcspn(line + 12, "\""), line + 12);
    assert_int_equal(count(d, "M"), 4);       /* 0-19, 21, 23-39, 41-59 */
    assert_int_equal(count(t.data, "h0"), 1); /* point 21, which has no neighbours */
    vae_text_clear(&t);
}

static void nothing_to_show_is_a_chart_all_the_same(void **state)
{
    (void)state;
    const double nothing[] = {NAN, -1};
    const plot_series empty[] = {{"none", nothing, nothing, 0, false},
                                 {"undefined", nothing, nothing, 2, false}};
    const float dots[] = {NAN, 1};
    for (int log = 0; log < 2; log++) {
        const plot_axes axes = {NULL, NULL, NULL, log, log};
        vae_text t[6] = {0};
        plot_lines(&t[0], axes, empty, 0);
        plot_lines(&t[1], axes, empty, 1 + (size_t)log);
        plot_bars(&t[2], axes, nothing, NULL, 0);
        plot_histogram(&t[3], axes, empty, 1 + (size_t)log, 0, NULL, NULL, 0);
        plot_scatter(&t[4], axes, dots, NULL, 1, NULL, 0);
        plot_bars(&t[5], axes, nothing, NULL, 1);
        for (size_t i = 0; i < 6; i++) {
            check(&t[i], "empty");
            assert_int_equal(count(t[i].data, "</title></rect>"), 0);
            vae_text_clear(&t[i]);
        }
    }
}

static void one_point_and_equal_values_have_a_range(void **state)
{
    (void)state;
    const double x[] = {1, 2, 3}, y[] = {7.25, 7.25, 7.25};
    for (int log = 0; log < 2; log++) {
        for (size_t n = 1; n <= 3; n += 2) {
            const plot_series s[] = {{"one", x, y, n, false}};
            const plot_axes axes = {"Constant", "epoch", "nats", false, log};
            vae_text t = {0};
            plot_lines(&t, axes, s, 1);
            check(&t, "constant");
            assert_int_equal(count(t.data, "h0"), n);
            vae_text_clear(&t);
            plot_histogram(&t, axes, s, 1, 10, NULL, NULL, 0);
            check(&t, "constant-histogram");
            vae_text_clear(&t);
            plot_bars(&t, axes, y, NULL, n);
            check(&t, "constant-bars");
            assert_int_equal(count(t.data, "<rect class=\"f0\""), n);
            vae_text_clear(&t);
        }
    }
}

static void log_axes_leave_out_what_has_no_logarithm(void **state)
{
    (void)state;
    const double x[] = {1, 10, 100, 1000, 10000}, y[] = {1e-4, 0, 1e-2, -1, 1};
    const plot_series s[] = {{"power", x, y, 5, true}};
    vae_text t = {0};
    plot_lines(&t, (plot_axes){"Log", "batch", "seconds", true, true}, s, 1);
    check(&t, "log");
    assert_int_equal(count(t.data, "h0"), 3);
    assert_non_null(strstr(t.data, ">0.01</text>"));
    vae_text_clear(&t);
    plot_bars(&t, (plot_axes){"Log", NULL, NULL, false, true}, y, NULL, 5);
    check(&t, "log-bars");
    assert_int_equal(count(t.data, "<rect class=\"f0\""), 3);
    vae_text_clear(&t);
}

static void odd_data_still_make_a_chart(void **state)
{
    (void)state;
    const double same[] = {5, 5, 5}, zero[] = {0, 0, 0}, huge[] = {-1e300, 0, 9e299};
    const double tiny[] = {1e-300, 2e-300, 3e-300}, minus[] = {-3, -2, -1};
    const double *all[] = {same, zero, huge, tiny, minus};
    for (size_t i = 0; i < 5 * 4 * 2; i++) {
        const double *v = all[i / 8];
        const size_t n = i / 2 % 4;
        const plot_axes axes = {"odd", NULL, NULL, i % 2, i % 2};
        const plot_series s = {"s", v, v, n, n == 2};
        vae_text t[3] = {0};
        plot_lines(&t[0], axes, &s, n > 0);
        plot_histogram(&t[1], axes, &s, 1, 7, v, NULL, n);
        plot_bars(&t[2], axes, v, NULL, n);
        for (size_t k = 0; k < 3; k++) {
            check(&t[k], "odd");
            vae_text_clear(&t[k]);
        }
    }
}

static void bars_are_as_high_as_their_values(void **state)
{
    (void)state;
    const double values[] = {1, 2, -1};
    double high[3];
    vae_text t = {0};
    plot_bars(&t, (plot_axes){0}, values, NULL, 3);
    check(&t, "bars-high");
    const char *at = t.data;
    for (size_t i = 0; i < 3; i++, at++) {
        at = strstr(at, "<rect class=\"f0\"");
        assert_int_equal(sscanf(strstr(at, "height="), "height=\"%lf", &high[i]), 1);
    }
    assert_true(fabs(high[1] / high[0] - 2) < 0.01 && fabs(high[2] / high[0] - 1) < 0.01);
    vae_text_clear(&t);
}

static void bars_have_names_and_values(void **state)
{
    (void)state;
    const double values[] = {3.5, -1.25, 0.5, NAN};
    const char *const names[] = {"a quite long name of <a bar>", "logistic regression", NULL,
                                 "nearest neighbours, k = 5"};
    const bool faded[] = {false, false, true, false};
    vae_text t = {0};
    plot_bars_faded(&t, (plot_axes){"Bars", NULL, "accuracy, %", false, false}, values, names,
                    faded, 4);
    check(&t, "bars-names");
    assert_int_equal(count(t.data, "<rect class=\"f0"), 3);
    assert_int_equal(count(t.data, "<rect class=\"f0 vp-w\""), 1);
    assert_non_null(strstr(t.data, "logistic regression: -1.25</title>"));
    assert_non_null(strstr(t.data, ">2: 0.5</title>")); /* no name: its number */
    assert_non_null(strstr(t.data, "rotate(-38)"));
    vae_text_clear(&t);
    double many[300];
    for (size_t i = 0; i < 300; i++) {
        many[i] = exp(-(double)i / 40) * 5;
    }
    plot_bars(&t, (plot_axes){"Many", "dimension", "KL", false, false}, many, NULL, 300);
    check(&t, "bars-many");
    assert_int_equal(count(t.data, "<rect class=\"f0\""), 300);
    assert_true(count(t.data, "text-anchor=\"middle\"") < 40); /* labels are thinned */
    vae_text_clear(&t);
    plot_bars(&t, (plot_axes){"Twenty", "dimension", "KL", false, false}, many, NULL, 20);
    check(&t, "bars-twenty");
    vae_text_clear(&t);
}

/* A value far out takes the rest of the chart to one bar: it is counted beside the axis instead. */
static void far_values_do_not_hide_the_rest(void **state)
{
    (void)state;
    double a[400], b[40], mark = 1e9;
    const char *name = "threshold";
    for (size_t i = 0; i < 400; i++) {
        a[i] = 100 + 10 * sin((double)i);
    }
    for (size_t i = 0; i < 40; i++) {
        b[i] = 150 + (double)(i % 7);
    }
    a[5] = 1e6;
    a[6] = -4000;
    a[7] = INFINITY;
    b[3] = 3e5;
    const plot_series groups[] = {{"in", a, NULL, 400, false}, {"out", b, NULL, 40, false}};
    vae_text t = {0};
    plot_histogram(&t, (plot_axes){"Scores", "nats", "rows", false, false}, groups, 2, 60, &mark,
                   &name, 1);
    check(&t, "histogram-far");
    assert_non_null(strstr(t.data, ">threshold 1e9 ▸</text>"));
    assert_non_null(strstr(t.data, ">in (3 not shown)<"));
    assert_non_null(strstr(t.data, ">out (1 not shown)<"));
    assert_non_null(strstr(t.data, "◂ 1 more to -4000 · nats · 1 not finite · 2 more to 1e6 ▸"));
    double left, top, right, bottom, level, x, last = 0;
    assert_int_equal(sscanf(strstr(t.data, "data-area=\""), "data-area=\"%lf %lf %lf %lf", &left,
                            &top, &right, &bottom),
                     4);
    size_t filled = 0; /* bars of the first group: 20 of 66 nats */
    const char *at = strchr(strstr(t.data, "class=\"vp-h"), 'V');
    for (; sscanf(at, "V%lfH%lf", &level, &x) == 2; at = strchr(at + 1, 'V')) {
        filled += level < bottom - 1;
        last = level < bottom - 1 ? x : last;
    }
    assert_in_range(filled, 15, 25);
    assert_true(last < left + (right - left) / 2);
    vae_text_clear(&t);
    /* values that are only spread are all shown */
    a[5] = 115;
    a[6] = 80;
    a[7] = 100;
    plot_histogram(&t, (plot_axes){0}, groups, 1, 60, NULL, NULL, 0);
    assert_null(strstr(t.data, " more to "));
    vae_text_clear(&t);
}

static void histograms_count(void **state)
{
    (void)state;
    double a[400], b[300];
    for (size_t i = 0; i < 400; i++) {
        a[i] = -100 - 20 * sqrt(-2 * log((double)(i + 1) / 401)) * cos((double)i * 2.4);
    }
    for (size_t i = 0; i < 300; i++) {
        b[i] = -180 - 30 * sqrt(-2 * log((double)(i + 1) / 301)) * cos((double)i * 2.4);
    }
    const plot_series groups[] = {{"in", a, NULL, 400, false}, {"out", b, NULL, 300, false}};
    const double marks[] = {-140, NAN};
    const char *const names[] = {"threshold", "nowhere"};
    vae_text t = {0};
    plot_histogram(&t, (plot_axes){"Scores", "log p(x)", "examples", false, false}, groups, 2, 40,
                   marks, names, 2);
    check(&t, "histogram");
    assert_non_null(strstr(t.data, ">threshold</text>"));
    assert_null(strstr(t.data, "nowhere"));
    assert_int_equal(count(t.data, "class=\"vp-h f"), 2);
    vae_text_clear(&t);

    /* four values in four bins, one of them twice: the top bin is twice as high */
    const double few[] = {0, 1, 2, 4, 4, NAN};
    const plot_series one[] = {{NULL, few, NULL, 6, false}};
    plot_histogram(&t, (plot_axes){0}, one, 1, 4, NULL, NULL, 0);
    check(&t, "histogram-few");
    double left, top, right, bottom, v[4];
    assert_int_equal(sscanf(strstr(t.data, "data-area=\""), "data-area=\"%lf %lf %lf %lf", &left,
                            &top, &right, &bottom),
                     4);
    const char *steps = strstr(t.data, "class=\"vp-h");
    assert_int_equal(
        sscanf(strchr(steps, 'V'), "V%lfH%*fV%lfH%*fV%lfH%*fV%lfH%*f", &v[0], &v[1], &v[2], &v[3]),
        4);
    for (size_t i = 0; i < 4; i++) {
        const double expected[] = {1, 1, 1, 2};
        assert_true(fabs((bottom - v[i]) / (bottom - v[0]) - expected[i]) < 0.01);
    }
    vae_text_clear(&t);
}

static void scatters_have_classes(void **state)
{
    (void)state;
    enum { N = 1200 };
    static float xy[2 * N];
    static uint32_t labels[N];
    static char digits[40][4];
    const char *names[40];
    for (size_t c = 0; c < 40; c++) {
        snprintf(digits[c], sizeof digits[c], "%zu", c);
        names[c] = digits[c];
    }
    for (size_t i = 0; i < N; i++) {
        double turn = (double)i * 2.399963, r = sqrt(-2 * log(((double)i + 1) / (N + 1)));
        labels[i] = (uint32_t)(i * 7 % 10);
        xy[2 * i] = (float)(cos(turn) * r * 0.6 + 3 * cos((double)labels[i] * 0.628));
        xy[2 * i + 1] = (float)(sin(turn) * r * 0.6 + 3 * sin((double)labels[i] * 0.628));
    }
    xy[0] = NAN;
    vae_text t = {0};
    plot_scatter(&t, (plot_axes){"Latents", "first component", "second component", false, false},
                 xy, labels, N, names, 10);
    check(&t, "scatter");
    assert_int_equal(count(t.data, "h0"), N - 1);
    assert_int_equal(count(t.data, "<circle"), 10);
    assert_int_equal(count(t.data, "class=\"vp-s s"), 10);
    vae_text_clear(&t);
    plot_scatter(&t, (plot_axes){0}, xy, NULL, N, NULL, 0);
    check(&t, "scatter-plain");
    assert_int_equal(count(t.data, "class=\"vp-s s"), 1);
    assert_int_equal(count(t.data, "<circle"), 0);
    vae_text_clear(&t);
    labels[5] = 200; /* beyond the classes */
    plot_scatter(&t, (plot_axes){0}, xy, labels, N, names, 40);
    check(&t, "scatter-many");
    assert_int_equal(count(t.data, "h0"), N - 1);
    assert_non_null(strstr(t.data, "and 17 more"));
    vae_text_clear(&t);
}

static void values_lie_where_the_axes_say(void **state)
{
    (void)state;
    const double x[] = {0, 5, 10}, y[] = {-2, 3, 8};
    const plot_series s[] = {{NULL, x, y, 3, true}};
    vae_text t = {0};
    plot_lines(&t, (plot_axes){0}, s, 1);
    double area[4], range[4];
    assert_int_equal(sscanf(strstr(t.data, "data-area"), "data-area=\"%lf %lf %lf %lf", &area[0],
                            &area[1], &area[2], &area[3]),
                     4);
    assert_int_equal(sscanf(strstr(t.data, "data-range"), "data-range=\"%lf %lf %lf %lf", &range[0],
                            &range[1], &range[2], &range[3]),
                     4);
    const char *at = strstr(strstr(t.data, "</style>"), "vp-p s0\" d=\"") + 12;
    for (size_t i = 0; i < 3; i++) {
        double px, py;
        assert_int_equal(sscanf(at, "M%lf %lfh0", &px, &py), 2);
        double vx = range[0] + (px - area[0]) / (area[2] - area[0]) * (range[1] - range[0]);
        double vy = range[3] - (py - area[1]) / (area[3] - area[1]) * (range[3] - range[2]);
        assert_true(fabs(vx - x[i]) < 0.01);
        assert_true(fabs(vy - y[i]) < 0.02);
        at = strstr(at, "h0") + 2;
    }
    vae_text_clear(&t);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_reader_refuses_what_is_not_well_formed),
        cmocka_unit_test(text_grows_and_escapes),
        cmocka_unit_test(a_failed_text_is_an_error_once),
        cmocka_unit_test(ticks_are_round),
        cmocka_unit_test(what_no_axis_can_show_is_not_usable),
        cmocka_unit_test(long_text_is_cut),
        cmocka_unit_test(lines_show_each_series),
        cmocka_unit_test(what_is_not_finite_breaks_the_line),
        cmocka_unit_test(nothing_to_show_is_a_chart_all_the_same),
        cmocka_unit_test(one_point_and_equal_values_have_a_range),
        cmocka_unit_test(log_axes_leave_out_what_has_no_logarithm),
        cmocka_unit_test(odd_data_still_make_a_chart),
        cmocka_unit_test(bars_are_as_high_as_their_values),
        cmocka_unit_test(bars_have_names_and_values),
        cmocka_unit_test(histograms_count),
        cmocka_unit_test(far_values_do_not_hide_the_rest),
        cmocka_unit_test(scatters_have_classes),
        cmocka_unit_test(values_lie_where_the_axes_say),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
