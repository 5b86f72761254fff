/* Pieces of a report that the page's script and Python's readers do not see: rounding to float16,
 * base64 of every length, numbers as text. What the whole says: tests/cli/test_report.py; what it
 * does: tests/report. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <math.h>
#include <string.h>

#include "base/half.h"
#include "base/text.h"
#include "report/internal.h"

static void halves_come_back(void **state)
{
    (void)state;
    for (uint32_t h = 0; h < 65536; h++) {
        const float value = vae_half_to_float((uint16_t)h);
        if ((h & 0x7fff) > 0x7c00) {
            assert_true(isnan(value));
            assert_true(isnan(vae_half_to_float(vae_float_to_half(value))));
        } else {
            assert_int_equal(vae_float_to_half(value), h);
        }
    }
    assert_true(vae_half_to_float(0x3c00) == 1 && vae_half_to_float(0xc000) == -2);
    assert_true(vae_half_to_float(0x0001) == 0x1p-24f && vae_half_to_float(0x7bff) == 65504);
}

/* Between each two neighbours: below, at and above the middle. */
static void floats_go_to_the_nearest_half(void **state)
{
    (void)state;
    for (uint16_t h = 0; h < 0x7bff; h++) {
        const float low = vae_half_to_float(h), high = vae_half_to_float((uint16_t)(h + 1));
        const float middle = 0.5f * (low + high); /* exact */
        const uint16_t even = (h & 1) == 0 ? h : (uint16_t)(h + 1);
        assert_int_equal(vae_float_to_half(middle), even);
        assert_int_equal(vae_float_to_half(nextafterf(middle, 0)), h);
        assert_int_equal(vae_float_to_half(nextafterf(middle, 1e9f)), h + 1);
        assert_int_equal(vae_float_to_half(-middle), even | 0x8000);
    }
    assert_int_equal(vae_float_to_half(65519.99f), 0x7bff);
    assert_int_equal(vae_float_to_half(65520), 0x7c00);
    assert_int_equal(vae_float_to_half(3e38f), 0x7c00);
    assert_int_equal(vae_float_to_half(-INFINITY), 0xfc00);
    assert_int_equal(vae_float_to_half(1e-30f), 0);
}

static void base64_has_its_vectors(void **state)
{
    (void)state;
    /* RFC 4648, section 10 */
    static const char *const vectors[] = {"",         "Zg==",     "Zm8=",    "Zm9v",
                                          "Zm9vYg==", "Zm9vYmE=", "Zm9vYmFy"};
    for (size_t n = 0; n <= 6; n++) {
        vae_text t = {0};
        report_base64(&t, "foobar", n);
        assert_string_equal(t.data, vectors[n]);
        vae_text_clear(&t);
    }
    uint8_t bytes[10000]; /* more than a block of it */
    for (size_t i = 0; i < sizeof bytes; i++) {
        bytes[i] = (uint8_t)(i * 37);
    }
    vae_text whole = {0}, parts = {0};
    report_base64(&whole, bytes, sizeof bytes);
    report_base64(&parts, bytes, 3 * 1500);
    report_base64(&parts, bytes + 3 * 1500, sizeof bytes - 3 * 1500);
    assert_int_equal(whole.size, 4 * ((sizeof bytes + 2) / 3));
    assert_string_equal(whole.data, parts.data);
    vae_text_clear(&whole);
    vae_text_clear(&parts);
}

static void numbers_read_well(void **state)
{
    (void)state;
    char text[32];
    assert_string_equal(vae_thousands(text, 0), "0");
    assert_string_equal(vae_thousands(text, 999), "999");
    assert_string_equal(vae_thousands(text, 1000), "1,000");
    assert_string_equal(vae_thousands(text, 12345678), "12,345,678");
    assert_string_equal(vae_thousands(text, -123456), "-123,456");
    assert_true(strlen(vae_thousands(text, 1e300)) < 32);
    assert_string_equal(report_duration(text, 0.26), "0.3 s");
    assert_string_equal(report_duration(text, 61), "1 min 01 s");
    assert_string_equal(report_duration(text, 3661), "1 h 01 min");
    assert_true(strlen(report_duration(text, 1e300)) < 32);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(halves_come_back),
        cmocka_unit_test(floats_go_to_the_nearest_half),
        cmocka_unit_test(base64_has_its_vectors),
        cmocka_unit_test(numbers_read_well),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
