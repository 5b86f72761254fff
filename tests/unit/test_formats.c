/* Data from other places: IDX of every type, NPZ, CSV, folders of pictures, standardization. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>
#include <zip.h>
#include <zlib.h>

#include "config/config.h"
#include "dataset_fixture.h"
#include "format/npz.h"
#include "image/image.h"

static vae_dataset *open_with(const char *name, vae_split split, const vae_data_options *options)
{
    vae_error err = {0};
    vae_dataset *set;
    if (vae_dataset_open(&set, name, split, options, &err) != VAE_OK) {
        fail_msg("%s", err.text);
    }
    return set;
}

static void refused_with(const char *name, const vae_data_options *options, const char *says)
{
    vae_error err = {0};
    vae_dataset *set;
    vae_status status = vae_dataset_open(&set, name, VAE_SPLIT_TRAIN, options, &err);
    if (status != VAE_ERR_DATA || strstr(err.text, says) == NULL) {
        fail_msg("expected bad data and '%s', got %d: %s", says, (int)status, err.text);
    }
}

/* ---- IDX ---- */

static void idx_of_every_type(void **state)
{
    static const struct {
        uint8_t type, size, bytes[16];
        float value[2];
    } cases[] = {
        {0x09, 1, {0xff, 0x7f}, {-1, 127}},
        {0x0b, 2, {0x80, 0x00, 0x01, 0x02}, {-32768, 258}},
        {0x0c, 4, {0xff, 0xff, 0xff, 0xfe, 0x00, 0x01, 0x00, 0x00}, {-2, 65536}},
        {0x0d, 4, {0x3f, 0xc0, 0x00, 0x00, 0xc0, 0x00, 0x00, 0x00}, {1.5f, -2}},
        {0x0e, 8, {0x3f, 0xf8, 0, 0, 0, 0, 0, 0, 0xc0, 0x08, 0, 0, 0, 0, 0, 0}, {1.5f, -3}},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        blob b = {{0, 0, cases[i].type, 2, 0, 0, 0, 1, 0, 0, 0, 2}, 12};
        memcpy(b.bytes + 12, cases[i].bytes, 2 * (size_t)cases[i].size);
        b.n = 12 + 2 * (size_t)cases[i].size;
        const char *path = scratch_write(*state, "types", b.bytes, b.n);
        vae_dataset *set = dataset_open_ok(path, VAE_SPLIT_TRAIN, 0);
        assert_int_equal(set->dtype, VAE_F32);
        assert_true(vae_dataset_value(set, 0, 0) == cases[i].value[0]);
        assert_true(vae_dataset_value(set, 0, 1) == cases[i].value[1]);
        vae_dataset_free(set);
        b.n--;
        assert_blob_refused(*state, &b, "more than the file can hold");
    }
}

/* ---- CSV ---- */

static vae_dataset *csv(scratch *s, const char *text)
{
    return dataset_open_ok(scratch_write(s, "t.csv", text, strlen(text)), VAE_SPLIT_TRAIN, 0);
}

/* What the rows' labels are called, and all names in their order; with spaces between them, and -
 * for no class. */
static void assert_classes(const vae_dataset *set, const char *labels, const char *names)
{
    char text[512] = "";
    for (size_t i = 0; i < set->n; i++) {
        const uint32_t y = set->labels[i];
        snprintf(text + strlen(text), sizeof text - strlen(text), "%s%s", i > 0 ? " " : "",
                 y != VAE_NO_LABEL ? set->classes.name[y] : "-");
    }
    assert_string_equal(text, labels);
    text[0] = '\0';
    for (size_t i = 0; i < set->classes.n; i++) {
        snprintf(text + strlen(text), sizeof text - strlen(text), "%s%s", i > 0 ? " " : "",
                 set->classes.name[i]);
    }
    assert_string_equal(text, names);
}

static void tables_are_read(void **state)
{
    vae_dataset *set = csv(*state, "\xef\xbb\xbf"
                                   "a,\"b, \"\"c\"\"\",Label\r\n1,-2.5e1,3\r\n"
                                   "\"4\",.5,0\r\n");
    assert_int_equal(set->n, 2);
    assert_int_equal(set->d, 2);
    assert_int_equal(set->kind, VAE_KIND_TABLE);
    assert_string_equal(set->column_names[0], "a");
    assert_string_equal(set->column_names[1], "b, \"c\"");
    assert_true(vae_dataset_value(set, 0, 1) == -25 && vae_dataset_value(set, 1, 0) == 4);
    assert_classes(set, "3 0", "0 3");
    vae_dataset_free(set);
    /* texts are numbered in their order; no line feed at the end; a label column in the middle */
    set = csv(*state, "x,class,z\n1,dog,2\n3,cat,4\n5,dog,6");
    assert_int_equal(set->n, 3);
    assert_classes(set, "dog cat dog", "cat dog");
    assert_string_equal(set->column_names[1], "z");
    assert_true(vae_dataset_value(set, 2, 1) == 6);
    vae_dataset_free(set);
    set = csv(*state, "a,b\r\n1,2\r"); /* cut short within a line end */
    assert_true(set->n == 1 && vae_dataset_value(set, 0, 1) == 2);
    vae_dataset_free(set);
    /* doubles are kept for the sake of one that floats round, in whatever column and row */
    for (int i = 0; i < 2; i++) {
        const char *rows = i ? "a,b,c\n1,16777217,3\n4,5,6\n" : "a,b,c\n1,16777216,3\n4,5,6\n";
        set = open_with(scratch_write(*state, "t.csv", rows, strlen(rows)), VAE_SPLIT_TRAIN,
                        &(vae_data_options){.exact = true});
        assert_true(i ? set->wide[1] == 16777217 : set->wide == NULL);
        assert_true(vae_dataset_value(set, 0, 1) == 16777216);
        vae_dataset_free(set);
    }
    /* which column holds the labels */
    const char text[] = "y,q\n1,2\n3,4\n";
    const char *path = scratch_write(*state, "t.csv", text, sizeof text - 1);
    set = open_with(path, VAE_SPLIT_TRAIN,
                    &(vae_data_options){.config = &(vae_config){.label_column = "none"}});
    assert_true(set->d == 2 && set->labels == NULL);
    vae_dataset_free(set);
    set = open_with(path, VAE_SPLIT_TRAIN,
                    &(vae_data_options){.config = &(vae_config){.label_column = "q"}, .limit = 1});
    assert_true(set->n == 1 && set->d == 1);
    assert_classes(set, "2", "2");
    vae_dataset_free(set);
    refused_with(path, &(vae_data_options){.config = &(vae_config){.label_column = "nope"}},
                 "no column is called 'nope'");
    /* packed */
    blob plain = {.n = sizeof text - 1};
    memcpy(plain.bytes, text, plain.n);
    blob packed = blob_gzip(&plain);
    set = dataset_open_ok(scratch_write(*state, "t.csv.gz", packed.bytes, packed.n),
                          VAE_SPLIT_TRAIN, 0);
    assert_true(set->n == 2 && set->d == 1);
    assert_classes(set, "1 3", "1 3");
    vae_dataset_free(set);
}

/* Numbers mean themselves, however they are written and whatever else is in the file. */
static void labels_are_named(void **state)
{
    static const struct {
        const char *column, *labels, *names;
    } cases[] = {
        {"10.0|2.0|10|1e1", "10 2 10 10", "2 10"},
        {"300|-1|7", "300 -1 7", "-1 7 300"},
        {"1.0||2.0|", "1 - 2 -", "1 2"},
        {"b|10.0|a|9", "b 10 a 9", "9 10 a b"}, /* numbers by value, then texts */
        {"26|1|13", "26 1 13", "1 13 26"},
        {"caf\xc3\xa9|B|a", "caf\xc3\xa9 B a", "B a caf\xc3\xa9"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        char text[256] = "x,label\n";
        for (const char *at = cases[i].column;; at += strcspn(at, "|") + 1) {
            const int n = (int)strcspn(at, "|");
            snprintf(text + strlen(text), sizeof text - strlen(text), "1,%.*s\n", n, at);
            if (at[n] == '\0') {
                break;
            }
        }
        vae_dataset *set = csv(*state, text);
        assert_classes(set, cases[i].labels, cases[i].names);
        vae_dataset_free(set);
    }
    /* decimal commas, too, but not in texts */
    vae_dataset *other = csv(*state, "x;label\n1;10,0\n1;a,b\n");
    assert_classes(other, "10 a,b", "10 a,b");
    vae_dataset_free(other);
    /* none at all are no labels */
    vae_dataset *set = csv(*state, "x,label\n1,\n2,\n");
    assert_true(set->labels == NULL && set->d == 1);
    vae_dataset_free(set);
}

/* New data are mapped by name; what is not known stands behind what is. */
static void labels_are_mapped(void **state)
{
    vae_classes known = {0};
    vae_error err = {0};
    bool chosen[5] = {false};
    const char *unknown;
    assert_int_equal(vae_classes_read(&known, "cat\0dog\0emu", 12, &err), VAE_OK);
    vae_dataset *set = csv(*state, "x,label\n1,emu\n2,bee\n3,\n4,dog\n");
    assert_true(set->labels[0] == 2 && set->labels[1] == 0);
    assert_int_equal(vae_dataset_map_classes(set, &known, &err), VAE_OK);
    assert_true(set->labels[0] == 2 && set->labels[1] == 3 && set->labels[3] == 1);
    assert_classes(set, "emu bee - dog", "cat dog emu bee");
    assert_int_equal(vae_dataset_check_labels(set, 3, true, &err), VAE_ERR_DATA);
    assert_non_null(strstr(err.text, "row 1: class 'bee' is none of the model's 3: cat, dog, emu"));
    vae_classes_clear(&known);
    /* lists: the longest name that fits; numbers in any digits */
    assert_true(vae_class_choose(chosen, &set->classes, "emu,cat", &unknown));
    assert_true(chosen[0] && !chosen[1] && chosen[2] && !chosen[3]);
    assert_false(vae_class_choose(chosen, &set->classes, "cat,ape,dog", &unknown));
    assert_string_equal(unknown, "ape,dog");
    vae_dataset_free(set);
    assert_int_equal(vae_classes_read(&known, "10\0a\0a,b\0b", 11, &err), VAE_OK);
    memset(chosen, 0, sizeof chosen);
    assert_true(vae_class_choose(chosen, &known, "a,b,10.0", &unknown));
    assert_true(chosen[0] && !chosen[1] && chosen[2] && !chosen[3]);
    assert_int_equal(vae_class_find(&known, "10.00"), 0);
    assert_int_equal(vae_class_find(&known, "c"), SIZE_MAX);
    vae_classes_clear(&known);
    static const struct {
        const char *names;
        size_t bytes;
    } bad[] = {{"a\0", 3}, {"a\0b\0a", 6}, {"a\tb", 4}, {"\xff", 2}, {"", 1}};
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        err = (vae_error){0};
        assert_int_equal(vae_classes_read(&known, bad[i].names, bad[i].bytes, &err), VAE_ERR_DATA);
        assert_true(known.n == 0 && known.name == NULL);
    }
}

static void bad_tables_are_refused(void **state)
{
    static const struct {
        const char *text, *says;
    } cases[] = {
        {"", "is empty"},
        {"a,b", "a header, but no rows"},
        {"a,b\n", "a header, but no rows"},
        {"1,2\n3,4\n", "line 1: column 1: expected a name, found 1"},
        {"a,,c\n1,2,3\n", "column 2: expected a name, found nothing"},
        {"a,a\n1,2\n", "line 1: two columns are called 'a', column 1 and column 2"},
        {"a,b\n1,2\n3\n", "line 3: expected 2 fields, as in the header, found 1"},
        {"a,b\n1,2,3\n", "line 2: more than the header's 2 fields"},
        {"a,b\n1,two\n", "line 2, column 'b': expected a number, found 'two'"},
        {"a,b\n1,\n", "column 'b': expected a number, found ''"},
        {"a,b\n1,nan\n", "found 'nan'"},
        {"a,b\n1,1e99\n", "found '1e99'"},
        {"a,b\n1, 2\n", "found ' 2'"},
        {"a,b\n1,\"2\n", "the file ends within quotes"},
        {"a,b\n1,\"2\"3\n", "behind a closing quote"},
        {"a,b\n1,2\"3\n", "a quote within a field"},
        {"a,b\n1,2\r3,4\n", "a carriage return without a line feed"},
        {"a,b\n\n1,2\n", "line 2: a blank line between rows"},
        {"a;b\n1,5;2,5x\n", "line 2, column 'b': expected a number, found '2,5x'"},
        {"a;b\n1,5;2.5\n", "expected a number with a decimal comma, as before, found '2.5'"},
        {"a;b\n1.5;2,5\n", "expected a number with a decimal point, as before, found '2,5'"},
        {"label\n1\n", "no columns but the labels"},
        {"a,label\n1,2\n1,2.5\n",
         "line 3, column 'label': expected a label, a whole number or a text, found a fraction: "
         "'2.5'; if the column holds data, --label-column none"},
        {"a,label\n1,a\tb\n", "line 2, column 'label': expected a label, a whole number or a text, "
                              "found a control character"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        const char *path = scratch_write(*state, "t.csv", cases[i].text, strlen(cases[i].text));
        assert_set_refused(path, VAE_SPLIT_TRAIN, VAE_ERR_DATA, cases[i].says);
    }
    const char *path = scratch_write(*state, "t.csv", "a,b\n1,\0002\n", 9);
    assert_set_refused(path, VAE_SPLIT_TRAIN, VAE_ERR_DATA, "a zero byte");
    char *wide = calloc(1, 70000);
    memset(wide, 'x', 69999);
    path = scratch_write(*state, "t.csv", wide, 69999);
    assert_set_refused(path, VAE_SPLIT_TRAIN, VAE_ERR_DATA, "a field of more than 65,535 bytes");
    free(wide);
}

/* ---- NPZ ---- */

static const char *write_npz(scratch *s, vae_npz_writer *w)
{
    vae_npz_finish(w);
    vae_error err = {0};
    const char *path = scratch_path(s, "a.npz");
    assert_int_equal(vae_parts_put(&w->parts, path, &err), VAE_OK);
    free(w->members);
    *w = (vae_npz_writer){0};
    return path;
}

static void archives_are_read(void **state)
{
    const size_t images[3] = {3, 2, 2}, rows[2] = {2, 4}, n3 = 3, n2 = 2;
    const uint8_t x[12] = {0, 255, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12};
    const double t[8] = {0.5, 1, 0, 0.25, 1, 1, 1, 0};
    const int64_t y[3] = {7, 0, 255}, odd[3] = {70000, -1, 2};
    const double nan_y[3] = {3, NAN, -1}, bad[3] = {1, 2.5, 2};
    vae_npz_writer w = {0};
    vae_npz_add(&w, "y_train", "<i8", 8, &n3, 1, y);
    vae_npz_add(&w, "x_train", "|u1", 1, images, 3, x);
    vae_npz_add(&w, "x_test", "<f8", 8, rows, 2, t);
    const char *path = write_npz(*state, &w);
    assert_true(dataset_has_test(path));
    vae_dataset *set = dataset_open_ok(path, VAE_SPLIT_TRAIN, 2);
    assert_true(set->n == 2 && set->d == 4 && set->height == 2 && set->dtype == VAE_U8);
    assert_true(vae_dataset_value(set, 0, 1) == 1);
    assert_classes(set, "7 0", "0 7"); /* those of the rows that are kept */
    vae_dataset_free(set);
    set = dataset_open_ok(path, VAE_SPLIT_TEST, 0);
    assert_true(set->n == 2 && set->dtype == VAE_F32 && set->labels == NULL);
    assert_true(vae_dataset_value(set, 0, 3) == 0.25f);
    vae_dataset_free(set);
    /* the only array that is no label, whatever its name */
    vae_npz_add(&w, "faces", "|u1", 1, images, 3, x);
    vae_npz_add(&w, "labels", "<i8", 8, &n3, 1, y);
    path = write_npz(*state, &w);
    assert_false(dataset_has_test(path));
    set = dataset_open_ok(path, VAE_SPLIT_TRAIN, 0);
    assert_true(set->n == 3);
    assert_classes(set, "7 0 255", "0 7 255");
    vae_dataset_free(set);
    assert_set_refused(path, VAE_SPLIT_TEST, VAE_ERR_DATA, "no test split, an array x_test");
    vae_npz_add(&w, "a", "|u1", 1, images, 3, x);
    vae_npz_add(&w, "b", "|u1", 1, images, 3, x);
    assert_set_refused(write_npz(*state, &w), VAE_SPLIT_TRAIN, VAE_ERR_DATA,
                       "which of its 2 arrays");
    vae_npz_add(&w, "data", "|u1", 1, images, 3, x);
    vae_npz_add(&w, "y", "<i8", 8, &n2, 1, y);
    assert_set_refused(write_npz(*state, &w), VAE_SPLIT_TRAIN, VAE_ERR_DATA,
                       "expected 3 labels, one a row, found 2");
    vae_npz_add(&w, "x", "|u1", 1, images, 3, x);
    vae_npz_add(&w, "y", "<i8", 8, &n3, 1, odd);
    set = dataset_open_ok(write_npz(*state, &w), VAE_SPLIT_TRAIN, 0);
    assert_classes(set, "70000 -1 2", "-1 2 70000");
    vae_dataset_free(set);
    vae_npz_add(&w, "x", "|u1", 1, images, 3, x);
    vae_npz_add(&w, "y", "<f8", 8, &n3, 1, nan_y);
    set = dataset_open_ok(write_npz(*state, &w), VAE_SPLIT_TRAIN, 0);
    assert_classes(set, "3 - -1", "-1 3");
    vae_dataset_free(set);
    vae_npz_add(&w, "x", "|u1", 1, images, 3, x);
    vae_npz_add(&w, "y", "<f8", 8, &n3, 1, bad);
    assert_set_refused(write_npz(*state, &w), VAE_SPLIT_TRAIN, VAE_ERR_DATA, "label of row 1");
    vae_npz_add(&w, "x", "<i8", 8, &n3, 1, y);
    assert_set_refused(write_npz(*state, &w), VAE_SPLIT_TRAIN, VAE_ERR_DATA,
                       "a.npz: x: type '<i8'");
    assert_set_refused(scratch_write(*state, "b.npz", "PK no", 5), VAE_SPLIT_TRAIN, VAE_ERR_DATA,
                       "b.npz");
    /* booleans become bits, row by row; a byte that is none is named */
    const size_t masks[2] = {3, 11};
    uint8_t bools[33];
    for (size_t i = 0; i < sizeof bools; i++) {
        bools[i] = i % 3 == 0 || i % 7 == 1;
    }
    vae_npz_add(&w, "x", "|b1", 1, masks, 2, bools);
    set = dataset_open_ok(write_npz(*state, &w), VAE_SPLIT_TRAIN, 0);
    assert_true(set->dtype == VAE_BITS && set->n == 3 && set->d == 11);
    for (size_t i = 0; i < sizeof bools; i++) {
        assert_true(vae_dataset_value(set, i / 11, i % 11) == (float)bools[i]);
    }
    vae_dataset_free(set);
    bools[25] = 2;
    vae_npz_add(&w, "x", "|b1", 1, masks, 2, bools);
    assert_set_refused(write_npz(*state, &w), VAE_SPLIT_TRAIN, VAE_ERR_DATA,
                       "row 2, column 3: expected a boolean, 0 or 1, found byte 2");
    /* types that labels have not, whatever their size */
    const struct {
        const char *descr;
        size_t bytes;
    } types[] = {{"<U2", 8}, {"<U3", 12}, {"<f2", 2}, {">i4", 4}, {"<c16", 16}};
    const uint8_t zeros[48] = {0};
    for (size_t i = 0; i < sizeof types / sizeof types[0]; i++) {
        char says[64];
        snprintf(says, sizeof says, "labels: type '%s': expected whole numbers", types[i].descr);
        vae_npz_add(&w, "data", "|u1", 1, images, 3, x);
        vae_npz_add(&w, "labels", types[i].descr, types[i].bytes, &n3, 1, zeros);
        assert_set_refused(write_npz(*state, &w), VAE_SPLIT_TRAIN, VAE_ERR_DATA, says);
    }
}

static void put(uint8_t **at, uint64_t value, size_t bytes)
{
    for (size_t i = 0; i < bytes; i++) {
        *(*at)++ = (uint8_t)(i < 8 ? value >> 8 * i : 0);
    }
}

/* An archive whose only member holds rows of 2^20 zero bytes, but for the last byte, which is 9;
 * its data are a hole in the file. Sizes stand where zip64 has them. */
static void write_large_npz(const char *path, size_t n_rows)
{
    enum { COLUMNS = 1 << 20 };
    uint8_t header[VAE_NPY_WRITE_HEADER_MAX], head[1024], tail[512], *at = head;
    const size_t shape[2] = {n_rows, COLUMNS};
    const size_t n = vae_npy_format_header(header, "|u1", shape, 2);
    const uint64_t size = n + (uint64_t)n_rows * COLUMNS;
    uLong crc = crc32(0, header, (uInt)n);
    /* of zeros: of twice as many again and again */
    uLong zeros = crc32(0, (const Bytef[COLUMNS]){0}, COLUMNS);
    uint64_t length = COLUMNS;
    for (uint64_t left = n_rows; left > 0; left >>= 1) {
        if ((left & 1) != 0) {
            crc = crc32_combine(crc, zeros, (z_off_t)length);
        }
        zeros = crc32_combine(zeros, zeros, (z_off_t)length);
        length *= 2;
    }
    /* a last byte of 9 instead of 0: what it changes does not depend on what is before it */
    crc ^= crc32(0, (const Bytef[]){9}, 1) ^ crc32(0, (const Bytef[]){0}, 1);
    for (size_t central = 0; central < 2; central++) {
        put(&at, central ? 0x02014b50 : 0x04034b50, 4);
        put(&at, central ? 45 | 45 << 16 : 45, central ? 4 : 2);
        put(&at, 0, 4); /* flags, stored */
        put(&at, 0x00210000, 4);
        put(&at, crc, 4);
        put(&at, UINT64_MAX, 8);
        put(&at, sizeof "data.npy" - 1, 2);
        put(&at, 20, central ? 4 : 2); /* of the zip64 field; no comment */
        put(&at, 0, central ? 12 : 0);
        memcpy(at, "data.npy", 8), at += 8;
        put(&at, 1 | 16 << 16, 4);
        put(&at, size, 8), put(&at, size, 8);
        if (!central) {
            memcpy(at, header, n), at += n;
            FILE *f = fopen(path, "wb");
            assert_non_null(f);
            const size_t n_head = (size_t)(at - head);
            const uint64_t end = n_head - n + size;
            assert_int_equal(fwrite(head, 1, n_head, f), n_head);
            assert_int_equal(fseeko(f, (off_t)end - 1, SEEK_SET), 0);
            assert_int_equal(fputc(9, f), 9);
            fclose(f);
            at = tail;
        }
    }
    const uint64_t directory = (uint64_t)(at - tail), begins = 30 + 8 + 20 + size;
    put(&at, 0x06064b50, 4), put(&at, 44, 8), put(&at, 45 | 45 << 16, 4), put(&at, 0, 8);
    put(&at, 1, 8), put(&at, 1, 8), put(&at, directory, 8), put(&at, begins, 8);
    put(&at, 0x07064b50, 4), put(&at, 0, 4), put(&at, begins + directory, 8), put(&at, 1, 4);
    put(&at, 0x06054b50, 4), put(&at, 0, 4), put(&at, 1 | 1 << 16, 4), put(&at, UINT64_MAX, 8);
    put(&at, 0, 2);
    FILE *f = fopen(path, "ab");
    assert_non_null(f);
    assert_int_equal(fwrite(tail, 1, (size_t)(at - tail), f), (size_t)(at - tail));
    fclose(f);
}

/* More than 4 GiB in one array, of which two rows are wanted: it is read to its end, whose checksum
 * is right, and not held. */
static void arrays_above_4_gib_are_read(void **state)
{
    /* where holes are read at no cost, if there is such a place */
    char path[600] = "/dev/shm/vae-test-XXXXXX.npz";
    const int fd = mkstemps(path, 4);
    if (fd < 0) {
        snprintf(path, sizeof path, "%s", scratch_path(*state, "large.npz"));
    } else {
        close(fd);
    }
    write_large_npz(path, 4097);
    allocations_start();
    vae_dataset *set = dataset_open_ok(path, VAE_SPLIT_TRAIN, 2);
    unlink(path);
    assert_large_allocations(0);
    assert_true(set->n == 2 && set->d == 1 << 20 && vae_dataset_value(set, 1, 9) == 0);
    vae_dataset_free(set);
}

/* A member above 4 GiB and one that begins behind it, which libzip finds where ZIP64's fields say. */
static void archives_above_4_gib_are_written(void **state)
{
    const size_t n = ((size_t)1 << 32) + 5, few = 3;
    const float after[3] = {1, -2, 0.5f};
    char back[1024];
    /* memory of zeros that is none; a hole in the file */
    void *zeros = mmap(NULL, n, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    assert_true(zeros != MAP_FAILED);
    vae_npz_writer w = {0};
    vae_npz_add(&w, "big", "|u1", 1, &n, 1, zeros);
    vae_npz_add(&w, "after", "<f4", 4, &few, 1, after);
    vae_npz_finish(&w);
    const char *path = scratch_path(*state, "written.npz");
    FILE *f = fopen(path, "wb");
    assert_non_null(f);
    for (size_t i = 0; i < w.parts.n; i++) {
        const struct iovec *part = &w.parts.parts[i];
        if (part->iov_base == zeros) {
            assert_int_equal(part->iov_len, n);
            assert_int_equal(fseeko(f, (off_t)n, SEEK_CUR), 0);
        } else {
            assert_int_equal(fwrite(part->iov_base, 1, part->iov_len, f), part->iov_len);
        }
    }
    assert_int_equal((uint64_t)ftello(f), w.parts.bytes);
    fclose(f);
    /* ZIP64's end record, of 56 bytes, before its locator, of 20, and the plain one, of 22: version
     * 4.5, made by Unix; one disk; as many entries here as in all */
    const struct iovec *end = &w.parts.parts[w.parts.n - 1];
    assert_int_equal(end->iov_len, 56 + 20 + 22);
    assert_memory_equal(end->iov_base,
                        "PK\6\6\x2c\0\0\0\0\0\0\0\x2d\3\x2d\0\0\0\0\0\0\0\0\0"
                        "\2\0\0\0\0\0\0\0\2\0\0\0\0\0\0",
                        40);
    vae_parts_clear(&w.parts);
    munmap(zeros, n);
    zip_stat_t about;
    zip_t *archive = zip_open(path, ZIP_RDONLY | ZIP_CHECKCONS, NULL);
    assert_non_null(archive);
    assert_int_equal(zip_get_num_entries(archive, 0), 2);
    assert_int_equal(zip_stat(archive, "big.npy", 0, &about), 0);
    assert_true(about.size > n && about.size - n < 200 && about.comp_size == about.size);
    zip_file_t *member = zip_fopen(archive, "after.npy", 0);
    assert_non_null(member);
    const zip_int64_t got = zip_fread(member, back, sizeof back);
    assert_true(got > (zip_int64_t)sizeof after && got < 200);
    assert_memory_equal(back + got - sizeof after, after, sizeof after);
    assert_int_equal(zip_fclose(member), 0);
    zip_discard(archive);
    unlink(path);
}

/* ---- pictures ---- */

static void put_png(scratch *s, const char *name, size_t width, size_t height, size_t channels,
                    uint8_t value)
{
    vae_error err = {0};
    uint8_t *pixels = malloc(width * height * channels);
    memset(pixels, value, width * height * channels);
    scratch_write(s, name, "", 0); /* makes the folders */
    assert_int_equal(vae_png_write(scratch_path(s, name), pixels, width, height, channels, &err),
                     VAE_OK);
    free(pixels);
}

static void folders_of_pictures(void **state)
{
    scratch *s = *state;
    char folder[600];
    put_png(s, "pets/train/dog/b.png", 4, 3, 1, 20);
    put_png(s, "pets/train/cat/a.PNG", 4, 3, 1, 10);
    put_png(s, "pets/train/dog/deep/c.png", 4, 3, 1, 30);
    scratch_write(s, "pets/train/dog/notes.txt", "x", 1);
    scratch_write(s, "pets/train/dog/.hidden.png", "x", 1);
    scratch_write(s, "pets/train/an_empty_class/readme", "x", 1);
    snprintf(folder, sizeof folder, "%s/pets", s->folder);
    assert_false(dataset_has_test(folder));
    put_png(s, "pets/val/dog/d.png", 4, 3, 3, 40);
    assert_true(dataset_has_test(folder));
    vae_dataset *set = dataset_open_ok(folder, VAE_SPLIT_TRAIN, 0);
    assert_true(set->n == 3 && set->width == 4 && set->height == 3 && set->channels == 1);
    assert_int_equal(set->kind, VAE_KIND_PICTURES);
    const uint8_t *rows = set->rows;
    assert_true(rows[0] == 10 && rows[12] == 20 && rows[24] == 30); /* by path */
    assert_classes(set, "cat dog dog", "cat dog");
    vae_dataset_free(set);
    set = dataset_open_ok(folder, VAE_SPLIT_TEST, 0);
    assert_true(set->n == 1 && set->channels == 3); /* a colour file makes the set RGB */
    vae_dataset_free(set);
    set = open_with(
        folder, VAE_SPLIT_TEST,
        &(vae_data_options){.config = &(vae_config){.image_size = 2, .image_channels = 1}});
    assert_true(set->d == 4 && ((uint8_t *)set->rows)[3] == 40);
    vae_dataset_free(set);
    put_png(s, "pets/train/cat/odd.png", 5, 3, 3, 50);
    refused_with(folder, NULL, "odd.png: 5 x 3 pixels, but");
    refused_with(folder, NULL, "--image-size");
    set = open_with(folder, VAE_SPLIT_TRAIN,
                    &(vae_data_options){.config = &(vae_config){.image_size = 3}});
    assert_true(set->n == 4 && set->d == 27);
    rows = set->rows;
    assert_true(rows[0] == 10 && rows[27] == 50 && rows[54] == 20); /* flat stays flat */
    vae_dataset_free(set);
    scratch_write(s, "pets/train/dog/torn.jpg", "\xff\xd8\xff\xe0", 4);
    const vae_data_options three = {.config = &(vae_config){.image_size = 3}};
    refused_with(folder, &three, "torn.jpg: cannot read JPEG");
    scratch_write(s, "pets/train/dog/torn.jpg", "GIF89a", 6);
    refused_with(folder, &three, "torn.jpg: not a picture");
    /* files without classes have no labels */
    put_png(s, "flat/2.png", 2, 2, 1, 2);
    put_png(s, "flat/1.png", 2, 2, 1, 1);
    snprintf(folder, sizeof folder, "%s/flat", s->folder);
    set = dataset_open_ok(folder, VAE_SPLIT_TRAIN, 0);
    assert_true(set->n == 2 && set->labels == NULL && ((uint8_t *)set->rows)[0] == 1);
    vae_dataset_free(set);
    set = dataset_open_ok(folder, VAE_SPLIT_TRAIN, 1); /* one of them, at random */
    assert_true(set->n == 1 && set->labels == NULL);
    vae_dataset_free(set);
    assert_set_refused(folder, VAE_SPLIT_TEST, VAE_ERR_DATA, "no folder test, val or valid");
    scratch_write(s, "flat/3.gif", "GIF89a", 6);
    refused_with(folder, NULL, "2 pictures, and 1 in a format that is not read: flat/3.gif; make");
    scratch_write(s, "flat/4.gif", "GIF89a", 6);
    refused_with(folder, NULL,
                 "2 pictures, and 2 in formats that are not read: flat/3.gif, flat/4.gif; make");
}

/* Of a large picture there is one copy while it becomes small, whatever becomes of its colours; and
 * colours are the same whether they change before it is resized or after. */
static void large_pictures_are_held_once(void **state)
{
    enum { SIDE = 1600, SMALL = 5 };
    scratch *s = *state;
    uint8_t *pixels = malloc(SIDE * SIDE * 3), grey[SMALL * SMALL];
    assert_non_null(pixels);
    for (size_t i = 0; i < SIDE * SIDE * 3; i++) {
        pixels[i] = (uint8_t)(i / 999 * 7 + i % 3);
    }
    for (size_t k = 0; k < 4; k++) {
        const size_t from = k / 2 == 0 ? 1 : 3, to = k % 2 == 0 ? 1 : 3;
        assert_int_equal(
            vae_png_write(scratch_path(s, "large.png"), pixels, SIDE, SIDE, from, NULL), VAE_OK);
        allocations_start();
        vae_dataset *set =
            open_with(s->path, VAE_SPLIT_TRAIN,
                      &(vae_data_options){
                          .config = &(vae_config){.image_size = SMALL, .image_channels = to}});
        assert_large_allocations(1);
        assert_int_equal(set->d, SMALL * SMALL * to);
        const uint8_t *row = set->rows;
        if (k == 0) {
            memcpy(grey, row, sizeof grey);
        }
        for (size_t i = 0; k == 1 && i < set->d; i++) {
            assert_int_equal(row[i], grey[i / 3]);
        }
        vae_dataset_free(set);
    }
    free(pixels);
}

static void resizing_keeps_what_it_should(void **state)
{
    (void)state;
    vae_error err = {0};
    uint8_t ramp[64 * 48], out[64 * 48 * 3];
    for (size_t i = 0; i < sizeof ramp; i++) {
        ramp[i] = (uint8_t)(2 * (i % 64));
    }
    /* the same size: the same picture; half: the mean of a slope; twice: between its neighbours */
    assert_int_equal(vae_image_resize(out, 64, 48, ramp, 64, 48, 1, &err), VAE_OK);
    assert_memory_equal(out, ramp, sizeof ramp);
    assert_int_equal(vae_image_resize(out, 32, 24, ramp, 64, 48, 1, &err), VAE_OK);
    for (size_t x = 1; x < 31; x++) {
        assert_int_equal(out[5 * 32 + x], 4 * x + 1);
    }
    /* a grid of single bright lines, 8 to 1: averaging sees them, picking pixels would not */
    for (size_t i = 0; i < sizeof ramp; i++) {
        ramp[i] = i % 8 == 3 ? 240 : 0;
    }
    assert_int_equal(vae_image_resize(out, 8, 6, ramp, 64, 48, 1, &err), VAE_OK);
    for (size_t i = 0; i < 48; i++) {
        assert_true(out[i] >= 25 && out[i] <= 35);
    }
    /* the middle of the longer side */
    for (size_t i = 0; i < sizeof ramp; i++) {
        ramp[i] = (uint8_t)(i % 64);
    }
    assert_int_equal(vae_image_square(out, 48, ramp, 64, 48, 1, &err), VAE_OK);
    for (size_t x = 0; x < 48; x++) {
        assert_int_equal(out[7 * 48 + x], x + 8);
    }
    const uint8_t rgb[6] = {255, 0, 0, 0, 0, 255};
    uint8_t grey[2];
    vae_image_convert(grey, 1, rgb, 3, 2);
    assert_true(grey[0] == 76 && grey[1] == 29);
    vae_image_convert(out, 3, grey, 1, 2);
    assert_true(out[0] == 76 && out[2] == 76 && out[5] == 29);
}

/* ---- standardization ---- */

static void columns_are_standardized(void **state)
{
    vae_dataset *set = csv(*state, "a,b,c\n1,10,5\n3,30,5\n100,1000,5\n");
    const uint32_t index[2] = {0, 1};
    double shift[3] = {NAN, NAN, NAN}, scale[3] = {NAN, NAN, NAN}; /* whatever was there before */
    vae_error err = {0};
    uint8_t before[32];
    memcpy(before, set->sha256, 32);
    assert_int_equal(vae_dataset_moments(set, index, 2, shift, scale, &err), VAE_OK);
    assert_true(shift[0] == 2 && scale[0] == 1 && shift[1] == 20 && scale[1] == 10);
    assert_true(shift[2] == 5 && scale[2] == 1); /* does not vary */
    assert_int_equal(vae_dataset_standardize(set, shift, scale, &err), VAE_OK);
    assert_true(vae_dataset_value(set, 0, 0) == -1 && vae_dataset_value(set, 1, 1) == 1);
    assert_true(vae_dataset_value(set, 2, 0) == 98 && vae_dataset_value(set, 2, 2) == 0);
    assert_memory_equal(before, set->sha256, 32);
    vae_dataset_free(set);
    vae_dataset *digits = dataset_open_ok("digits", VAE_SPLIT_TEST, 10);
    assert_int_equal(vae_dataset_standardize(digits, shift, scale, &err), VAE_ERR_DATA);
    vae_dataset_free(digits);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(idx_of_every_type),
        cmocka_unit_test(tables_are_read),
        cmocka_unit_test(labels_are_named),
        cmocka_unit_test(labels_are_mapped),
        cmocka_unit_test(bad_tables_are_refused),
        cmocka_unit_test(archives_are_read),
        cmocka_unit_test(arrays_above_4_gib_are_read),
        cmocka_unit_test(archives_above_4_gib_are_written),
        cmocka_unit_test(folders_of_pictures),
        cmocka_unit_test(large_pictures_are_held_once),
        cmocka_unit_test(resizing_keeps_what_it_should),
        cmocka_unit_test(columns_are_standardized),
    };
    return cmocka_run_group_tests(tests, scratch_setup, scratch_teardown);
}
