/* TensorBoard's event files: their bytes, by what record_writer.h, event.proto and summary.proto
 * say. Its own reader looks at a run's in tests/roundtrip/check_commands.py. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <stdbool.h>
#include <string.h>

#include "format/tfevents.h"

/* CRC-32C with the highest bit first, as its definition has it: bits of bytes and of the result are
 * turned around. Then TensorFlow's mask. */
static uint32_t masked_crc(const uint8_t *bytes, size_t n)
{
    uint32_t crc = UINT32_MAX, turned = 0;
    for (size_t i = 0; i < 8 * n; i++) {
        const uint32_t bit = bytes[i / 8] >> i % 8 & 1;
        crc = crc >> 31 != bit ? crc << 1 ^ 0x1edc6f41 : crc << 1;
    }
    for (int i = 0; i < 32; i++) {
        turned |= (~crc >> i & 1) << (31 - i);
    }
    return (turned >> 15 | turned << 17) + 0xa282ead8;
}

static uint64_t number(const uint8_t *at, size_t n)
{
    uint64_t value = 0;
    for (size_t i = 0; i < n; i++) {
        value |= (uint64_t)at[i] << 8 * i;
    }
    return value;
}

typedef struct {
    const uint8_t *at;
    size_t n;
} span;

/* The event of a record that begins at r; its checksums must be right. */
static span event_of(const uint8_t *r, size_t n)
{
    assert_true(n >= 16);
    const size_t length = number(r, 8);
    assert_true(n >= 16 + length);
    assert_int_equal(number(r + 8, 4), masked_crc(r, 8));
    assert_int_equal(number(r + 12 + length, 4), masked_crc(r + 12, length));
    return (span){r + 12, length};
}

static uint64_t varint(span *s)
{
    uint64_t value = 0;
    for (unsigned shift = 0;; shift += 7) {
        assert_true(s->n > 0 && shift < 64);
        const uint8_t byte = *s->at++;
        s->n--;
        value |= (uint64_t)(byte & 0x7f) << shift;
        if (byte < 0x80) {
            return value;
        }
    }
}

/* The k-th field of this number, which must be of this wire type: its bytes, or a whole number's
 * value in n. */
static span field(span message, unsigned wanted, unsigned type, size_t k)
{
    static const size_t sizes[] = {0, 8, 0, 0, 0, 4};
    while (message.n > 0) {
        const uint64_t key = varint(&message);
        const unsigned is = key & 7;
        assert_true(is == 0 || is == 1 || is == 2 || is == 5);
        const uint64_t value = is == 0 || is == 2 ? varint(&message) : 0;
        const size_t size = is == 2 ? value : sizes[is];
        assert_true(size <= message.n);
        if (key >> 3 == wanted && k-- == 0) {
            assert_int_equal(is, type);
            return (span){message.at, is == 0 ? value : size};
        }
        message.at += size;
        message.n -= size;
    }
    fail_msg("no field %u", wanted);
    return message;
}

static double real(span message, unsigned wanted, size_t i)
{
    double value;
    const bool packed = wanted >= 6; /* of a histogram: limits and counts */
    const span s = field(message, wanted, packed ? 2 : 1, 0);
    assert_true(8 * i + 8 <= s.n);
    memcpy(&value, s.at + 8 * i, 8);
    return value;
}

static void assert_tag(span value, const char *tag)
{
    const span s = field(value, 1, 2, 0);
    assert_int_equal(s.n, strlen(tag));
    assert_memory_equal(s.at, tag, s.n);
}

static void first_records_name_the_format(void **state)
{
    (void)state;
    pb_buffer r = tf_first_record(1);
    assert_false(r.failed);
    assert_int_equal(r.n, 8 + 4 + 24 + 4);
    /* what every file of TensorFlow's begins with, up to the time */
    assert_memory_equal(r.bytes, "\x18\0\0\0\0\0\0\0\xa3\x7f\x4b\x22\x09", 13);
    const span event = event_of(r.bytes, r.n), text = field(event, 3, 2, 0);
    assert_true(real(event, 1, 0) == 1);
    assert_int_equal(text.n, 13);
    assert_memory_equal(text.at, "brain.Event:2", 13);
    pb_free(&r);
}

static void scalars_are_written(void **state)
{
    (void)state;
    static const uint64_t steps[] = {0, 1, 127, 128, 300, (uint64_t)1 << 39};
    for (size_t i = 0; i < sizeof steps / sizeof steps[0]; i++) {
        tf_event e = {0};
        tf_scalar(&e, "loss/train", -2.5);
        tf_scalar(&e, "kl", 7);
        pb_buffer r = tf_record(&e, 12.5, steps[i]);
        assert_false(r.failed);
        const span event = event_of(r.bytes, r.n), summary = field(event, 5, 2, 0);
        assert_true(real(event, 1, 0) == 12.5);
        assert_int_equal(field(event, 2, 0, 0).n, steps[i]);
        for (size_t k = 0; k < 2; k++) {
            const span value = field(summary, 1, 2, k), number = field(value, 2, 5, 0);
            float is;
            assert_tag(value, k == 0 ? "loss/train" : "kl");
            memcpy(&is, number.at, sizeof is);
            assert_true(is == (k == 0 ? -2.5f : 7.0f));
        }
        pb_free(&r);
    }
}

static void histograms_are_spread_evenly(void **state)
{
    (void)state;
    /* 30 buckets of width 1; one value between, the last at the very end; or all the same */
    static const double values[] = {1.5, 0, 29.5, 2, 30}, same[] = {4, 4};
    for (size_t k = 0; k < 2; k++) {
        tf_event e = {0};
        tf_histogram(&e, "h", k == 0 ? values : same, k == 0 ? 5 : 2);
        pb_buffer r = tf_record(&e, 0, 1);
        const span value = field(field(event_of(r.bytes, r.n), 5, 2, 0), 1, 2, 0);
        const span h = field(value, 5, 2, 0);
        assert_tag(value, "h");
        assert_true(real(h, 1, 0) == (k == 0 ? 0 : 4) && real(h, 2, 0) == (k == 0 ? 30 : 4));
        assert_true(real(h, 3, 0) == (k == 0 ? 5 : 2) && real(h, 4, 0) == (k == 0 ? 63 : 8));
        assert_true(real(h, 5, 0) == (k == 0 ? 1776.5 : 32));
        assert_true(field(h, 6, 2, 0).n == 240 && field(h, 7, 2, 0).n == 240);
        for (size_t b = 0; b < 30; b++) {
            const double n = k == 1 ? 2 * (b == 0) : b < 3 ? 1 : b == 29 ? 2 : 0;
            assert_true(real(h, 6, b) == (double)b + 1 + (k == 0 ? 0 : 4));
            assert_true(real(h, 7, b) == n);
        }
        pb_free(&r);
    }
}

static void pictures_are_described(void **state)
{
    (void)state;
    uint8_t png[64] = "\x89PNG\r\n\x1a\n\0\0\0\x0dIHDR\0\0\1\3\0\0\0\2\x08";
    for (uint8_t colour = 0; colour < 3; colour += 2) {
        tf_event e = {0};
        png[25] = colour;
        assert_true(tf_image(&e, "samples", png, sizeof png));
        pb_buffer r = tf_record(&e, 0, 1);
        const span value = field(field(event_of(r.bytes, r.n), 5, 2, 0), 1, 2, 0);
        const span image = field(value, 4, 2, 0), bytes = field(image, 4, 2, 0);
        assert_tag(value, "samples");
        assert_int_equal(field(image, 1, 0, 0).n, 2);   /* height */
        assert_int_equal(field(image, 2, 0, 0).n, 259); /* width */
        assert_int_equal(field(image, 3, 0, 0).n, colour == 0 ? 1 : 3);
        assert_int_equal(bytes.n, sizeof png);
        assert_memory_equal(bytes.at, png, sizeof png);
        pb_free(&r);
    }
    tf_event e = {0};
    assert_true(tf_image(&e, "x", png, 33));
    assert_false(tf_image(&e, "x", png, 32)); /* not all of its first chunk */
    png[1] = 'J';
    assert_false(tf_image(&e, "x", png, sizeof png));
    pb_free(&e.summary);
}

/* Whole records of steps up to the one that is asked for stay. */
static void files_are_cut(void **state)
{
    (void)state;
    static const uint64_t steps[] = {7, 300, 300, 70000};
    pb_buffer file = tf_first_record(1);
    size_t end[5] = {file.n};
    for (size_t i = 0; i < 4; i++) {
        tf_event e = {0};
        tf_scalar(&e, "x", 1);
        pb_buffer r = tf_record(&e, 2, steps[i]);
        pb_append(&file, r.bytes, r.n);
        end[i + 1] = file.n;
        pb_free(&r);
    }
    static const struct {
        uint64_t step;
        size_t kept;
    } cases[] = {{0, 0},   {6, 0},     {7, 1},     {299, 1},       {300, 3},
                 {301, 3}, {69999, 3}, {70000, 4}, {UINT64_MAX, 4}};
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        assert_int_equal(tf_until(file.bytes, file.n, cases[i].step), end[cases[i].kept]);
    }
    for (size_t n = 0, whole = 0; n <= file.n; n++) { /* torn anywhere */
        whole += whole < 5 && n == end[whole];
        assert_int_equal(tf_until(file.bytes, n, UINT64_MAX), whole > 0 ? end[whole - 1] : 0);
    }
    pb_free(&file);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(first_records_name_the_format),
        cmocka_unit_test(scalars_are_written),
        cmocka_unit_test(histograms_are_spread_evenly),
        cmocka_unit_test(pictures_are_described),
        cmocka_unit_test(files_are_cut),
    };
    return cmocka_run_group_tests_name("tfevents", tests, NULL, NULL);
}
