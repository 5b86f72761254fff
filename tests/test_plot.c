/* Charts: well-formed, escaped, and every mark where its value belongs. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "plot.h"

static size_t count(const vae_text *t, const char *what)
{
    size_t n = 0;
    for (const char *p = t->data; (p = strstr(p, what)) != NULL; p++) {
        n++;
    }
    return n;
}

/* Tags close in order, and nothing but a number follows where coordinates are. */
static void assert_well_formed(const vae_text *t)
{
    char stack[32][16];
    int depth = 0;
    vae_error err = {0};
    assert_int_equal(vae_text_done(t, &err), VAE_OK);
    assert_int_equal(strlen(t->data), t->size);
    assert_null(strstr(t->data, "nan"));
    assert_null(strstr(t->data, "inf"));
    for (const char *p = t->data; (p = strchr(p, '<')) != NULL;) {
        const char *end = strchr(p, '>');
        assert_non_null(end);
        if (p[1] == '/') {
            assert_true(depth > 0);
            depth--;
            size_t n = strlen(stack[depth]);
            assert_int_equal(strncmp(p + 2, stack[depth], n), 0);
            assert_true(p[2 + n] == '>');
        } else if (end[-1] != '/') {
            assert_true(depth < 32);
            snprintf(stack[depth++], sizeof stack[0], "%.*s", (int)strcspn(p + 1, " >"), p + 1);
        }
        if (strncmp(p, "<style", 6) == 0) {
            end = strstr(p, "</style>") - 1;
        }
        p = end;
    }
    assert_int_equal(depth, 0);
    assert_int_equal(strncmp(t->data, "<svg", 4), 0);
}

static void text_grows_and_is_escaped(void **state)
{
    (void)state;
    vae_text t = {0};
    for (int i = 0; i < 10000; i++) {
        vae_text_add(&t, "%d,", i % 10);
    }
    assert_int_equal(t.size, 20000);
    assert_int_equal(strlen(t.data), 20000);
    vae_text_clear(&t);
    vae_text_escaped(&t, "</script><b a=\"1\" c='2'>&\x01\n");
    assert_string_equal(t.data, "&lt;/script&gt;&lt;b a=&quot;1&quot; c=&#39;2&#39;&gt;&amp;?\n");
    vae_text_clear(&t);
    t.failed = true;
    vae_text_add(&t, "x");
    vae_error err = {0};
    assert_int_equal(vae_text_done(&t, &err), VAE_ERR_RUNTIME);
    vae_text_clear(&t);
}

/* Places of the marks of class `mark`: attribute a and b. */
static size_t circles(const vae_text *t, double *x, double *y, size_t most)
{
    size_t n = 0;
    for (const char *p = t->data; (p = strstr(p, "<circle")) != NULL && n < most; p++, n++) {
        assert_int_equal(sscanf(strstr(p, "cx="), "cx=\"%lf\" cy=\"%lf\"", &x[n], &y[n]), 2);
    }
    return n;
}

static void points_lie_where_they_should(void **state)
{
    (void)state;
    const double x[] = {0, 1, 2, 4}, y[] = {10, 20, 30, 50};
    for (int log = 0; log < 2; log++) {
        vae_text t = {0};
        double cx[4], cy[4];
        plot_series s = {"a & b", x + log, y + log, 4 - (size_t)log, true};
        plot_lines(&t, (plot_axes){"<t>", "x", "y", log, false}, &s, 1);
        assert_well_formed(&t);
        assert_int_equal(count(&t, "a &amp; b"), 1);
        assert_int_equal(count(&t, "&lt;t&gt;"), 2);
        assert_int_equal(circles(&t, cx, cy, 4), 4 - log);
        double step = cx[1] - cx[0];
        assert_true(step > 20);
        /* 1, 2, 4 are evenly spaced by their logarithms */
        assert_true(fabs(cx[2] - cx[0] - 2 * step) < 0.3);
        assert_true(fabs((cy[0] - cy[1]) * (log ? 2 : 1) - (cy[1] - cy[2]) * 1) <
                    (log ? fabs(cy[0]) : 0.3));
        assert_true(cy[0] > cy[1] && cy[1] > cy[2]);
        vae_text_clear(&t);
    }
}

static void what_is_no_number_is_left_out(void **state)
{
    (void)state;
    const double x[] = {0, 1, 2, 3, 4}, y[] = {1, NAN, INFINITY, 2, 3};
    vae_text t = {0};
    plot_series s = {NULL, x, y, 5, false};
    plot_lines(&t, (plot_axes){0}, &s, 1);
    assert_well_formed(&t);
    const char *line = strstr(t.data, "class=\"l c0\" d=\"M");
    assert_non_null(line);
    line = strchr(line, 'd');
    size_t moves = 0, lines = 0;
    for (const char *p = strstr(line, "d=\"") + 3; *p != '"'; p++) {
        moves += *p == 'M';
        lines += *p == 'L';
    }
    assert_int_equal(moves, 2); /* the gap starts anew */
    assert_int_equal(lines, 1);
    vae_text_clear(&t);
}

static void odd_data_still_make_a_chart(void **state)
{
    (void)state;
    const double same[] = {5, 5, 5}, zero[] = {0, 0, 0}, huge[] = {-1e300, 0, 1e300};
    const double tiny[] = {1e-300, 2e-300, 3e-300};
    const double *all[] = {same, zero, huge, tiny};
    for (size_t i = 0; i < 4; i++) {
        for (size_t n = 0; n <= 3; n++) {
            for (int log = 0; log < 2; log++) {
                vae_text t = {0};
                plot_series s = {"s", all[i], all[i], n, n == 2};
                plot_lines(&t, (plot_axes){"t", NULL, NULL, log, log}, &s, n > 0);
                assert_well_formed(&t);
                vae_text_clear(&t);
                plot_histogram(&t, (plot_axes){"t", NULL, NULL, log, log}, &s, 1, 7, all[i], NULL,
                               n);
                assert_well_formed(&t);
                vae_text_clear(&t);
            }
            vae_text t = {0};
            plot_bars(&t, (plot_axes){0}, all[i], NULL, n);
            assert_well_formed(&t);
            vae_text_clear(&t);
        }
    }
}

static void bars_are_as_high_as_their_values(void **state)
{
    (void)state;
    const double v[] = {1, 2, -1, NAN};
    const char *const names[] = {"one", "<two>", "minus", "none"};
    vae_text t = {0};
    double high[3];
    plot_bars(&t, (plot_axes){"bars", "unit", "nats", false, false}, v, names, 4);
    assert_well_formed(&t);
    assert_int_equal(count(&t, "<rect class=\"f c0\""), 3);
    const char *p = t.data;
    for (int i = 0; i < 3; i++, p++) {
        p = strstr(p, "<rect class=\"f c0\"");
        assert_int_equal(sscanf(strstr(p, "height="), "height=\"%lf\"", &high[i]), 1);
    }
    assert_true(fabs(high[1] / high[0] - 2) < 0.01 && fabs(high[2] / high[0] - 1) < 0.01);
    assert_int_equal(count(&t, "&lt;two&gt;"), 2);
    vae_text_clear(&t);
}

static void histograms_count(void **state)
{
    (void)state;
    double v[100], w[10], mark[] = {0.5, 99};
    const char *const names[] = {"threshold", "outside"};
    for (int i = 0; i < 100; i++) {
        v[i] = i < 75 ? 0 : 1; /* three quarters left, one right */
    }
    for (int i = 0; i < 10; i++) {
        w[i] = i < 5 ? 0 : NAN;
    }
    vae_text t = {0};
    const plot_series groups[] = {{"normal", v, NULL, 100, false},
                                  {"abnormal", w, NULL, 10, false}};
    plot_histogram(&t, (plot_axes){"h", "score", "rows", false, false}, groups, 2, 2, mark, names,
                   2);
    assert_well_formed(&t);
    double left, at, top[2], to;
    const char *p = strstr(t.data, "class=\"h c0\" d=\"M");
    assert_non_null(p);
    assert_int_equal(
        sscanf(p, "class=\"h c0\" d=\"M%lf %lfV%lfH%lfV%lf", &left, &at, &top[0], &to, &top[1]), 5);
    assert_true(fabs((at - top[0]) / (at - top[1]) - 3) < 0.02);
    assert_int_equal(count(&t, "threshold"), 1);
    assert_int_equal(count(&t, "outside"), 0);
    vae_text_clear(&t);
}

static void scatters_colour_classes(void **state)
{
    (void)state;
    enum { N = 300 };
    float xy[2 * N];
    uint8_t labels[N];
    for (int i = 0; i < N; i++) {
        xy[2 * i] = (float)i, xy[2 * i + 1] = (float)(i * i);
        labels[i] = (uint8_t)(i % 12);
    }
    xy[7] = NAN;
    vae_text t = {0};
    plot_scatter(&t, (plot_axes){"s", "1", "2", false, false}, xy, labels, N, 12);
    assert_well_formed(&t);
    assert_int_equal(count(&t, "h0"), N - 1);
    assert_int_equal(count(&t, "<rect class=\"f c0\""), 2); /* colours begin anew after ten */
    vae_text_clear(&t);
    plot_scatter(&t, (plot_axes){"s", NULL, NULL, false, false}, xy, NULL, N, 0);
    assert_well_formed(&t);
    assert_int_equal(count(&t, "h0"), N - 1);
    vae_text_clear(&t);
}

static void files_are_written(void **state)
{
    (void)state;
    vae_text t = {0};
    vae_error err = {0};
    char path[] = "/tmp/plot-XXXXXX", back[16] = "";
    int fd = mkstemp(path);
    assert_true(fd >= 0);
    vae_text_add(&t, "<svg/>");
    assert_int_equal(vae_text_write(&t, path, &err), VAE_OK);
    FILE *f = fopen(path, "r");
    assert_non_null(f);
    assert_non_null(fgets(back, sizeof back, f));
    assert_string_equal(back, "<svg/>");
    fclose(f);
    remove(path);
    assert_int_equal(vae_text_write(&t, "/no/such/folder/x.svg", &err), VAE_ERR_IO);
    vae_text_clear(&t);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(text_grows_and_is_escaped),
        cmocka_unit_test(points_lie_where_they_should),
        cmocka_unit_test(what_is_no_number_is_left_out),
        cmocka_unit_test(odd_data_still_make_a_chart),
        cmocka_unit_test(bars_are_as_high_as_their_values),
        cmocka_unit_test(histograms_count),
        cmocka_unit_test(scatters_colour_classes),
        cmocka_unit_test(files_are_written),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
