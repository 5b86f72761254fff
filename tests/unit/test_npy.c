/* NPY files: header parser, writer, reader; and the range check, on floats read from them. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <math.h>
#include <stdio.h>
#include <string.h>

#include "dataset/dataset.h"
#include "dataset_fixture.h"
#include "format/npy.h"

static blob make_npy(const char *descr, const size_t *shape, size_t ndim, const void *data,
                     size_t data_bytes)
{
    blob b;
    b.n = vae_npy_format_header(b.bytes, descr, shape, ndim);
    memcpy(b.bytes + b.n, data, data_bytes);
    b.n += data_bytes;
    return b;
}

/* As NumPy writes it: the dictionary, spaces up to the next multiple of 64, a line feed. */
static void headers_are_as_short_as_they_can_be(void **state)
{
    (void)state;
    for (size_t ndim = 0, size = 1; ndim <= VAE_NPY_MAX_DIMS; ndim++) {
        for (size_t digits = 1; digits < 19; digits++) {
            uint8_t out[VAE_NPY_WRITE_HEADER_MAX];
            size_t shape[VAE_NPY_MAX_DIMS + 1];
            size = digits == 1 ? 1 : 10 * size;
            for (size_t i = 0; i < ndim; i++) {
                shape[i] = size;
            }
            const size_t n = vae_npy_format_header(out, "<f4", shape, ndim);
            const uint8_t *end = memchr(out + 10, '}', n - 10);
            assert_true(end != NULL && n % 64 == 0 && out[8] + 256 * out[9] == (int)n - 10);
            const size_t spaces = n - 1 - (size_t)(end + 1 - out);
            assert_true(spaces < 64 && out[n - 1] == '\n');
            for (size_t i = 0; i < spaces; i++) {
                assert_int_equal(end[1 + i], ' ');
            }
        }
    }
}

/* Where any dimension is 0 there are no items. */
static void empty_arrays_have_no_items(void **state)
{
    (void)state;
    for (size_t zero = 0; zero < 3; zero++) {
        uint8_t out[VAE_NPY_WRITE_HEADER_MAX];
        size_t shape[] = {2, 3, 5};
        npy_header header;
        vae_error err = {0};
        shape[zero] = 0;
        const size_t n = vae_npy_format_header(out, "<f4", shape, 3);
        assert_int_equal(vae_npy_parse_header(out, n, &header, &err), VAE_OK);
        assert_true(header.ndim == 3 && header.shape[zero] == 0 && header.n_items == 0);
    }
}

static void npy_shapes_and_types_are_read(void **state)
{
    scratch *s = *state;
    const size_t shape[] = {2, 2, 2, 3};
    uint8_t bytes[24];
    double doubles[24];
    float floats[24];
    for (size_t i = 0; i < 24; i++) {
        bytes[i] = (uint8_t)(10 * i);
        doubles[i] = (double)i / 24;
        floats[i] = (float)doubles[i];
    }
    for (size_t ndim = 2; ndim <= 4; ndim++) {
        const size_t n = (const size_t[]){4, 8, 24}[ndim - 2];
        const char *path = scratch_path(s, "x.npy");
        assert_int_equal(vae_npy_write(path, "|u1", shape, ndim, bytes, NULL), VAE_OK);
        vae_dataset *set = dataset_open_ok(path, VAE_SPLIT_TRAIN, 0);
        assert_int_equal(set->n * set->d, n);
        assert_int_equal(set->height * set->width * set->channels, set->d);
        assert_int_equal(set->channels, ndim == 4 ? 3 : 1);
        assert_memory_equal(set->rows, bytes, n);
        assert_true(vae_dataset_value(set, 0, 1) == 10.0f / 255.0f);
        vae_dataset_free(set);
        for (int wide = 0; wide < 2; wide++) {
            const void *data = wide ? (const void *)doubles : (const void *)floats;
            assert_int_equal(vae_npy_write(path, wide ? "<f8" : "<f4", shape, ndim, data, NULL),
                             VAE_OK);
            set = dataset_open_ok(path, VAE_SPLIT_TRAIN, 1);
            assert_int_equal(set->n, 1);
            assert_memory_equal(set->rows, floats, n / 2 * sizeof(float));
            vae_dataset_free(set);
        }
    }
}

/* Booleans become bits, in rows of whole bytes, the first value lowest; limit cuts as elsewhere. */
static void npy_booleans_become_bits(void **state)
{
    scratch *s = *state;
    static const uint8_t values[2][11] = {{1, 0, 1, 1, 0, 0, 0, 1, 0, 1, 1},
                                          {0, 1, 0, 0, 0, 0, 1, 0, 1, 0, 0}};
    static const uint8_t bits[4] = {0x8d, 0x06, 0x42, 0x01};
    const blob plain = make_npy("|b1", (const size_t[]){2, 11}, 2, values, sizeof values);
    const blob packed = blob_gzip(&plain);
    for (size_t limit = 0; limit <= 3; limit++) {
        const blob *b = limit % 2 ? &packed : &plain;
        const size_t n = limit == 1 ? 1 : 2;
        vae_dataset *set =
            dataset_open_ok(scratch_write(s, "b.npy", b->bytes, b->n), VAE_SPLIT_TRAIN, limit);
        assert_true(set->dtype == VAE_BITS && set->n == n && set->d == 11);
        assert_int_equal(vae_row_bytes(set->dtype, set->d), 2);
        assert_memory_equal(set->rows, bits, 2 * n);
        for (size_t i = 0; i < n * 11; i++) {
            assert_true(vae_dataset_value(set, i / 11, i % 11) == (float)values[i / 11][i % 11]);
        }
        vae_dataset_free(set);
    }
    blob bad = plain;
    bad.bytes[bad.n - 3] = 2;
    assert_blob_refused(s, &bad, "row 1, column 8: expected a boolean, 0 or 1, found byte 2");
    bad = plain;
    bad.n--;
    assert_blob_refused(s, &bad, "at most 21 remain");
}

static void npy_headers_are_parsed_strictly(void **state)
{
    (void)state;
    static const struct {
        const char *text, *says; /* says NULL: good */
    } cases[] = {
        {"{'descr': '<f4', 'fortran_order': False, 'shape': (2, 3), }\n", NULL},
        {"{'shape':(2,3),\"fortran_order\":False,'descr':\"<f4\"}", NULL},
        {" { 'descr' : '<f4' , 'fortran_order' : False , 'shape' : ( 2 , 3 , ) , } \n", NULL},
        {"{'descr': '<f4', 'fortran_order': False, 'shape': (6)}", "not a tuple"},
        {"{'descr': '<f4', 'fortran_order': False, 'shape': (2, 3), 'x': 1}", "'x' is unknown"},
        {"{'descr': '<f4', 'descr': '<f4', 'shape': (2, 3)}", "there twice"},
        {"{'descr': '<f4', 'fortran_order': False}", "'shape' is missing"},
        {"{'descr': '<f4', 'fortran_order': 0, 'shape': (2,)}", "True or False"},
        {"{'descr': '<f4', 'fortran_order': False, 'shape': (-2,)}", "a dimension"},
        {"{'descr': '<f4', 'fortran_order': False, 'shape': (2 3)}", "',' or ')'"},
        {"{'descr': '<f4', 'fortran_order': False, 'shape': (02,)}", "leading zeros"},
        {"{'descr': '<f4', 'fortran_order': False, 'shape': (2,)} x", "nothing after"},
        {"{'descr': '|O', 'fortran_order': False, 'shape': (2,)}", "'|O' is not supported"},
        {"{'descr': [('a', '<f4')], 'fortran_order': False, 'shape': (2,)}", "structured"},
        {"{'descr': '<f4', 'fortran_order': False, 'shape': (4294967296, 4294967296)}", "2^64"},
        {"{'descr': '<f4', 'fortran_order': False, 'shape': (99999999999999999999,)}", "2^64"},
        {"{'descr': '<f4', 'fortran_order': False, 'shape': (1,1,1,1,1,1,1,1,1)}", "more than 8"},
    };
    for (uint8_t version = 1; version <= 3; version++) {
        for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
            size_t text = strlen(cases[i].text), prefix = version == 1 ? 10 : 12;
            uint8_t file[256] = {0x93, 'N', 'U', 'M', 'P', 'Y', version, 0, (uint8_t)text};
            memcpy(file + prefix, cases[i].text, text);
            npy_header header;
            vae_error err = {0};
            vae_status status = vae_npy_parse_header(file, prefix + text, &header, &err);
            if (cases[i].says == NULL) {
                assert_int_equal(status, VAE_OK);
                assert_int_equal(header.n_items, 6);
                assert_int_equal(header.header_bytes, prefix + text);
            } else if (status != VAE_ERR_DATA || strstr(err.text, cases[i].says) == NULL) {
                fail_msg("%s: expected '%s', got '%s'", cases[i].text, cases[i].says, err.text);
            }
        }
    }
}

static void npy_damage_is_refused(void **state)
{
    scratch *s = *state;
    static const float data[6] = {0.1f, 0.2f, 0.3f, 0.4f, 0.5f, 0.6f};
    const blob good = make_npy("<f4", (const size_t[]){2, 3}, 2, data, sizeof data);
    for (size_t n = 0; n < good.n; n++) {
        blob cut = good;
        cut.n = n;
        assert_blob_refused(s, &cut, s->folder);
    }
    for (size_t bit = 0; bit < (good.n - sizeof data) * 8; bit++) {
        blob flipped = good;
        flipped.bytes[bit / 8] ^= (uint8_t)(1 << bit % 8);
        assert_blob_refused(s, &flipped, s->folder);
    }
    static const struct {
        const char *descr, *says;
        size_t ndim, shape[4];
    } cases[] = {
        {"<f4", "the file goes on", 2, {1, 3, 0, 0}},
        {"<f4", "cut short", 2, {1000000, 1000000, 0, 0}},
        {"<f8", "cut short", 2, {1000000, 1000000, 0, 0}},
        {"<f4", "found 1 dimension", 1, {6, 0, 0, 0}},
        {"<f4", "is 0", 2, {0, 3, 0, 0}},
        {"<f4", "found 2", 4, {1, 1, 3, 2}},
        {">f4", "big-endian", 2, {2, 3, 0, 0}},
        {"<i8", "integers", 2, {1, 3, 0, 0}},
        {"|b1", "row 0, column 0: expected a boolean, 0 or 1, found byte 205", 2, {8, 3, 0, 0}},
        {"|b1", "cut short", 2, {1000000, 1000000, 0, 0}},
        {"<f2", "another size", 2, {4, 3, 0, 0}},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        blob b = make_npy(cases[i].descr, cases[i].shape, cases[i].ndim, data, sizeof data);
        assert_blob_refused(s, &b, cases[i].says);
    }
    static const uint8_t binary[4] = {0, 1, 1, 0};
    blob b = make_npy("|u1", (const size_t[]){2, 2}, 2, binary, 4);
    assert_blob_refused(s, &b, "largest byte is 1");
}

static void npy_is_written_as_numpy_does(void **state)
{
    scratch *s = *state;
    static const float data[6] = {0};
    static const char text[] = "{'descr': '<f4', 'fortran_order': False, 'shape': (6,), }";
    assert_int_equal(
        vae_npy_write(scratch_path(s, "w.npy"), "<f4", (const size_t[]){6}, 1, data, NULL), VAE_OK);
    FILE *f = fopen(s->path, "rb");
    char bytes[256];
    assert_int_equal(fread(bytes, 1, sizeof bytes, f), 128 + 24);
    fclose(f);
    assert_memory_equal(bytes, "\x93NUMPY\x01\x00\x76\x00", 10);
    assert_memory_equal(bytes + 10, text, sizeof text - 1);
    assert_int_equal(bytes[126], ' ');
    assert_int_equal(bytes[127], '\n');
    vae_error err = {0};
    scratch_path(s, "no-such-folder/w.npy");
    assert_int_equal(vae_npy_write(s->path, "<f4", (const size_t[]){6}, 1, data, &err), VAE_ERR_IO);
    assert_non_null(strstr(err.text, "no-such-folder"));
}

static void range_errors_name_the_place(void **state)
{
    scratch *s = *state;
    static const struct {
        float bad;
        vae_likelihood likelihood;
        vae_mean mean;
        const char *says; /* NULL: accepted */
    } cases[] = {
        {1.25f, VAE_BERNOULLI, VAE_MEAN_LINEAR, "row 1, column 2: value 1.25 is outside [0,1]"},
        {-0.5f, VAE_BERNOULLI, VAE_MEAN_LINEAR, "row 1, column 2: value -0.5 is outside"},
        {1.25f, VAE_GAUSSIAN, VAE_MEAN_LINEAR, NULL},
        {NAN, VAE_BERNOULLI, VAE_MEAN_LINEAR, "row 1, column 2: value nan is not a finite"},
        {NAN, VAE_GAUSSIAN, VAE_MEAN_LINEAR, "not a finite"},
        {-INFINITY, VAE_GAUSSIAN, VAE_MEAN_LINEAR, "a finite number, or beyond a float's 3.4e38;"},
        {1.0f, VAE_BERNOULLI, VAE_MEAN_LINEAR, NULL},
        {1.25f, VAE_GAUSSIAN, VAE_MEAN_SIGMOID,
         "--mean sigmoid needs; scale the data or use --mean l"},
        {1.0f, VAE_GAUSSIAN, VAE_MEAN_SIGMOID, NULL},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        float data[6] = {0, 1, 0.5f, 0, 1, cases[i].bad};
        scratch_path(s, "r.npy");
        assert_int_equal(vae_npy_write(s->path, "<f4", (const size_t[]){2, 3}, 2, data, NULL), 0);
        vae_dataset *set = dataset_open_ok(s->path, VAE_SPLIT_TRAIN, 0);
        vae_error err = {0};
        vae_status status = vae_dataset_check_range(set, cases[i].likelihood, cases[i].mean, &err);
        assert_int_equal(status, cases[i].says == NULL ? VAE_OK : VAE_ERR_DATA);
        assert_true(cases[i].says == NULL || strstr(err.text, cases[i].says) != NULL);
        vae_dataset_free(set);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(headers_are_as_short_as_they_can_be),
        cmocka_unit_test(empty_arrays_have_no_items),
        cmocka_unit_test(npy_shapes_and_types_are_read),
        cmocka_unit_test(npy_booleans_become_bits),
        cmocka_unit_test(npy_headers_are_parsed_strictly),
        cmocka_unit_test(npy_damage_is_refused),
        cmocka_unit_test(npy_is_written_as_numpy_does),
        cmocka_unit_test(range_errors_name_the_place),
    };
    return cmocka_run_group_tests(tests, scratch_setup, scratch_teardown);
}
