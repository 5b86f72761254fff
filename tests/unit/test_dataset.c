/* Data sets: the drawn digits, IDX, and what happens to files that are not what they say. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/sha256.h"
#include "config/config.h"
#include "dataset/dataset.h"
#include "dataset_fixture.h"

/* Of the first 1000 train rows. If it changes, so does every result recorded on `digits`. */
static const char golden_digits[] =
    "93f0c7b7336a30d5b33580ebda83bd8c18e105958aa579787dc5fd6908c80ec2";

/* ---- digits ---- */

static void assert_sha256(const vae_dataset *set, const char *expected)
{
    char hex[VAE_SHA256_HEX];
    vae_sha256_hex(set->sha256, hex);
    assert_string_equal(hex, expected);
}

static void sha256_gives_known_digests(void **state)
{
    (void)state;
    static const struct {
        const char *text, *hex;
    } cases[] = {
        {"", "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"},
        {"abc", "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"},
        {"abcdbcdecdefdefgefghfghighijhijkijkljklmklmnlmnomnopnopq",
         "248d6a61d20638b8e5c026930c3e6039a33ce45964ff2167f6ecedd419db06c1"},
    };
    for (size_t i = 0; i < 3; i++) {
        for (size_t piece = 1; piece < 60; piece += 7) {
            struct iovec parts[60];
            uint8_t digest[VAE_SHA256_BYTES];
            char hex[VAE_SHA256_HEX];
            size_t n = strlen(cases[i].text), n_parts = 0;
            for (size_t k = 0; k < n; k += piece) {
                parts[n_parts++] = (struct iovec){(void *)(uintptr_t)(cases[i].text + k),
                                                  n - k < piece ? n - k : piece};
            }
            assert_int_equal(vae_sha256(digest, parts, n_parts, NULL), VAE_OK);
            vae_sha256_hex(digest, hex);
            assert_string_equal(hex, cases[i].hex);
        }
    }
}

static void digits_are_the_same_everywhere(void **state)
{
    (void)state;
    static const char *const threads[] = {"1", "4", "7"};
    for (size_t i = 0; i < 3; i++) {
        setenv("OMP_NUM_THREADS", threads[i], 1);
        vae_dataset *set = dataset_open_ok("digits", VAE_SPLIT_TRAIN, 1000);
        assert_sha256(set, golden_digits);
        vae_dataset_free(set);
    }
    setenv("OMP_NUM_THREADS", "1", 1);
}

static void digits_have_balanced_labels_and_factors_in_range(void **state)
{
    (void)state;
    static const float low[] = {0, 0, -0.24f, -0.3f, 0.72f, 0.84f, 1.3f, -1.5f, -1.5f};
    static const float high[] = {9, 2, 0.24f, 0.7f, 1.28f, 1.1f, 3.6f, 1.5f, 1.5f};
    vae_dataset *set = dataset_open_ok("digits", VAE_SPLIT_TEST, 0);
    assert_int_equal(set->n, 10000);
    assert_int_equal(set->d, 784);
    assert_int_equal(set->classes.n, 10);
    assert_int_equal(set->n_factors, 9);
    assert_string_equal(set->factor_names[0], "digit");
    size_t counts[10] = {0};
    double sums[9] = {0};
    for (size_t i = 0; i < set->n; i++) {
        const float *f = set->factors + 9 * i;
        counts[set->labels[i]]++;
        assert_true(f[0] == (float)set->labels[i]);
        for (size_t k = 0; k < 9; k++) {
            assert_true(f[k] >= low[k] - 1e-4f && f[k] <= high[k] + 1e-4f);
            sums[k] += (double)f[k];
        }
        size_t inked = 0;
        for (size_t k = 0; k < set->d; k++) {
            inked += vae_dataset_value(set, i, k) > 0.5f;
        }
        assert_in_range(inked, 15, 400);
    }
    for (size_t digit = 0; digit < 10; digit++) {
        assert_int_equal(counts[digit], 1000);
    }
    for (size_t k = 2; k < 9; k++) {
        assert_true(fabs(sums[k] / 1e4 - (double)(low[k] + high[k]) / 2) < 0.05);
    }
    assert_int_equal(vae_dataset_check_range(set, VAE_BERNOULLI, VAE_MEAN_LINEAR, NULL), VAE_OK);
    vae_dataset_free(set);
}

static int compare_u64(const void *a, const void *b)
{
    uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;
    return (x > y) - (x < y);
}

/* No picture occurs twice, within a split or across: rows hashed by FNV-1a, sorted, compared. */
static void digits_train_and_test_are_disjoint(void **state)
{
    (void)state;
    enum { N = 6000 };
    uint64_t *hashes = test_calloc(2 * N, sizeof *hashes);
    for (size_t split = 0; split < 2; split++) {
        vae_dataset *set = dataset_open_ok("digits", (vae_split)split, N);
        const uint8_t *rows = set->rows;
        for (size_t i = 0; i < N; i++) {
            uint64_t h = 14695981039346656037u;
            for (size_t k = 0; k < set->d; k++) {
                h = (h ^ rows[i * set->d + k]) * 1099511628211u;
            }
            hashes[split * N + i] = h;
        }
        vae_dataset_free(set);
    }
    qsort(hashes, 2 * N, sizeof *hashes, compare_u64);
    for (size_t i = 1; i < 2 * N; i++) {
        assert_true(hashes[i] != hashes[i - 1]);
    }
    test_free(hashes);
}

/* ---- IDX ---- */

/* An IDX file in memory: header, then item i = (7*i + 250) mod 256. */
static blob make_idx(uint8_t type, size_t ndim, const uint32_t *dims)
{
    blob b = {.bytes = {0, 0, type, (uint8_t)ndim}, .n = 4};
    size_t items = type == 0x08 ? 1 : 4;
    for (size_t i = 0; i < ndim; i++) {
        items *= dims[i];
        for (int shift = 24; shift >= 0; shift -= 8) {
            b.bytes[b.n++] = (uint8_t)(dims[i] >> shift);
        }
    }
    for (size_t i = 0; i < items; i++) {
        b.bytes[b.n++] = (uint8_t)(7 * i + 250);
    }
    return b;
}

static blob make_images(uint32_t n, uint32_t height, uint32_t width)
{
    return make_idx(0x08, 3, (const uint32_t[]){n, height, width});
}

static blob make_labels(uint32_t n)
{
    return make_idx(0x08, 1, &n);
}

static void idx_folders_are_found_in_every_layout(void **state)
{
    static const char *const layouts[] = {"a/", "b/raw/", "c/MNIST/raw/", "d/FashionMNIST/raw/"};
    scratch *s = *state;
    blob train = make_images(6, 4, 5), test = make_images(3, 4, 5), labels = make_labels(6);
    blob packed = blob_gzip(&test);
    for (size_t i = 0; i < 4; i++) {
        char name[128], folder[512];
        const char *dot = i == 2 ? "." : "-";
        snprintf(name, sizeof name, "%strain-images%sidx3-ubyte", layouts[i], dot);
        scratch_write(s, name, train.bytes, train.n);
        snprintf(name, sizeof name, "%strain-labels%sidx1-ubyte", layouts[i], dot);
        scratch_write(s, name, labels.bytes, labels.n);
        snprintf(folder, sizeof folder, "%s/%c", s->folder, layouts[i][0]);
        assert_false(dataset_has_test(folder));
        assert_set_refused(folder, VAE_SPLIT_TEST, VAE_ERR_DATA, "no test split");
        snprintf(name, sizeof name, "%st10k-images%sidx3-ubyte.gz", layouts[i], dot);
        scratch_write(s, name, packed.bytes, packed.n);
        assert_true(dataset_has_test(folder));

        vae_dataset *set = dataset_open_ok(folder, VAE_SPLIT_TRAIN, 0);
        assert_int_equal(set->n, 6);
        assert_int_equal(set->height, 4);
        assert_int_equal(set->width, 5);
        assert_int_equal(set->classes.n, 6);
        assert_memory_equal(set->rows, train.bytes + 16, 120);
        for (size_t k = 0; k < 6; k++) { /* from 250 on, over the edge to 0: names are numbers */
            assert_int_equal(atoi(set->classes.name[set->labels[k]]), labels.bytes[8 + k]);
        }
        vae_dataset_free(set);
        set = dataset_open_ok(folder, VAE_SPLIT_TEST, 2);
        assert_int_equal(set->n, 2);
        assert_null(set->labels);
        assert_memory_equal(set->rows, test.bytes + 16, 40);
        vae_dataset_free(set);
    }
    scratch_write(s, "c/FashionMNIST/raw/train-images-idx3-ubyte", train.bytes, train.n);
    assert_set_refused(scratch_path(s, "c"), VAE_SPLIT_TRAIN, VAE_ERR_DATA, "several");
    mkdir(scratch_path(s, "empty"), 0777);
    assert_set_refused(s->path, VAE_SPLIT_TRAIN, VAE_ERR_DATA, "IDX files (train-images");
    assert_false(dataset_has_test(s->path));
}

static void idx_single_files_find_their_labels(void **state)
{
    scratch *s = *state;
    blob images = make_images(6, 2, 2), labels = make_labels(6);
    scratch_write(s, "my-labels-idx1-ubyte", labels.bytes, labels.n);
    scratch_write(s, "my-images-idx3-ubyte", images.bytes, images.n);
    vae_dataset *set = dataset_open_ok(s->path, VAE_SPLIT_TRAIN, 0);
    assert_non_null(set->labels);
    vae_dataset_free(set);
    assert_set_refused(s->path, VAE_SPLIT_TEST, VAE_ERR_DATA, "no test split");
    labels = make_labels(5);
    scratch_write(s, "my-labels-idx1-ubyte", labels.bytes, labels.n);
    assert_set_refused(scratch_path(s, "my-images-idx3-ubyte"), VAE_SPLIT_TRAIN, VAE_ERR_DATA,
                       "expected 6, one an image, found 5");
}

static void idx_rows_are_limited(void **state)
{
    const blob nine = make_images(9, 2, 3);
    const char *path = scratch_write(*state, "nine", nine.bytes, nine.n);
    for (size_t limit = 0; limit <= 10; limit++) { /* below the width, too, and above all */
        vae_dataset *set = dataset_open_ok(path, VAE_SPLIT_TRAIN, limit);
        assert_int_equal(set->n, limit > 0 && limit < 9 ? limit : 9);
        assert_memory_equal(set->rows, nine.bytes + 16, 6 * set->n);
        vae_dataset_free(set);
    }
}

static void idx_floats_are_big_endian(void **state)
{
    scratch *s = *state;
    static const uint8_t file[] = {0, 0, 0x0d, 2, 0, 0, 0,    1,    0, 0,
                                   0, 2, 0x3f, 0, 0, 0, 0x3e, 0x80, 0, 0}; /* 0.5, 0.25 */
    vae_dataset *set =
        dataset_open_ok(scratch_write(s, "f", file, sizeof file), VAE_SPLIT_TRAIN, 0);
    assert_int_equal(set->dtype, VAE_F32);
    assert_true(vae_dataset_value(set, 0, 0) == 0.5f && vae_dataset_value(set, 0, 1) == 0.25f);
    vae_dataset_free(set);
}

static void idx_damage_is_refused(void **state)
{
    scratch *s = *state;
    const blob good = make_images(3, 4, 5);
    for (size_t n = 0; n < good.n; n++) {
        blob cut = good;
        cut.n = n;
        assert_blob_refused(s, &cut, s->folder);
    }
    for (size_t bit = 0; bit < 16 * 8; bit++) {
        if (bit == 2 * 8) {
            continue; /* from unsigned to signed bytes: a good file */
        }
        blob flipped = good;
        flipped.bytes[bit / 8] ^= (uint8_t)(1 << bit % 8);
        assert_blob_refused(s, &flipped, s->folder);
    }
    blob longer = good;
    longer.n++;
    assert_blob_refused(s, &longer, "the file goes on");
    blob huge = good;
    memset(huge.bytes + 4, 0xff, 12);
    assert_blob_refused(s, &huge, "more than the file can hold");
    blob empty = make_images(0, 4, 5);
    assert_blob_refused(s, &empty, "dimension 0 is 0");
    blob labels = make_labels(9);
    assert_blob_refused(s, &labels, "labels file");
    blob no_type = make_idx(0x0a, 2, (const uint32_t[]){1, 2});
    assert_blob_refused(s, &no_type, "found 0x0a");
}

static void gzip_damage_is_refused(void **state)
{
    scratch *s = *state;
    const blob plain = make_images(3, 4, 5), good = blob_gzip(&plain);
    for (size_t n = 0; n < good.n; n++) {
        blob cut = good;
        cut.n = n;
        assert_blob_refused(s, &cut, s->folder);
    }
    for (size_t bit = 0; bit < good.n * 8; bit++) {
        blob flipped = good;
        flipped.bytes[bit / 8] ^= (uint8_t)(1 << bit % 8);
        vae_dataset *set;
        const char *path = scratch_write(s, "bad", flipped.bytes, flipped.n);
        allocations_start();
        vae_status status = vae_dataset_open(&set, path, VAE_SPLIT_TRAIN, NULL, NULL);
        assert_allocations_small();
        if (status == VAE_OK) { /* time stamp, operating system: no data */
            assert_memory_equal(set->rows, plain.bytes + 16, 60);
            vae_dataset_free(set);
        }
    }
    blob garbage = good;
    memcpy(garbage.bytes + garbage.n, "garbage", 7);
    garbage.n += 7;
    assert_blob_refused(s, &garbage, "not gzip data");
    blob twice = good;
    memcpy(twice.bytes + twice.n, good.bytes, good.n);
    twice.n *= 2;
    assert_blob_refused(s, &twice, "the file goes on");
    /* A claim of 4,000,000 bytes that the packed size does not rule out: 3,900 bytes that do not
     * compress are all there is. Memory must follow what is there. */
    blob liar = {.bytes = {0, 0, 8, 2, 0, 0, 0x0f, 0xa0, 0, 0, 0x03, 0xe8}, .n = 12};
    for (uint32_t x = 1; liar.n < 3912; x = x * 1664525u + 1013904223u) {
        liar.bytes[liar.n++] = (uint8_t)(x >> 24);
    }
    liar = blob_gzip(&liar);
    assert_blob_refused(s, &liar, "expected 4000000 bytes at offset 12, found 3900");
}

/* ---- other ---- */

static void what_is_no_data_set_is_refused(void **state)
{
    scratch *s = *state;
    assert_set_refused(scratch_path(s, "none"), VAE_SPLIT_TRAIN, VAE_ERR_IO, "cannot open");
    assert_set_refused(scratch_write(s, "e", "", 0), VAE_SPLIT_TRAIN, VAE_ERR_DATA, "is empty");
    assert_set_refused(scratch_write(s, "t", "text", 4), VAE_SPLIT_TRAIN, VAE_ERR_DATA,
                       "found 74 65");
    assert_int_equal(mkfifo(scratch_path(s, "pipe"), 0600), 0);
    assert_set_refused(s->path, VAE_SPLIT_TRAIN, VAE_ERR_DATA, "not a regular file");
    scratch_write(s, "folder/train-images-idx3-ubyte/x", "", 0);
    assert_set_refused(scratch_path(s, "folder"), VAE_SPLIT_TRAIN, VAE_ERR_DATA, "is a folder");
    /* what is found is told down to the third folder */
    scratch_write(s, "nested/a/b/x.txt", "", 0);
    scratch_write(s, "nested/a/b/c/y.txt", "", 0);
    scratch_write(s, "nested/a/b/c/d/z.txt", "", 0);
    assert_set_refused(scratch_path(s, "nested"), VAE_SPLIT_TRAIN, VAE_ERR_DATA,
                       "found 1 file (.txt: 1) in it and 3 folders;");
    vae_dataset_free(NULL);
}

static void unreadable_files_are_io_errors(void **state)
{
    scratch *s = *state;
    if (geteuid() == 0) {
        print_message("SKIPPED: unreadable files: root reads everything\n");
        skip();
    }
    blob images = make_images(3, 4, 5);
    scratch_write(s, "u", images.bytes, images.n);
    assert_int_equal(chmod(s->path, 0), 0);
    assert_set_refused(s->path, VAE_SPLIT_TRAIN, VAE_ERR_IO, "cannot open");
}

static void mnist_is_mnist(void **state)
{
    scratch *s = *state;
    const char *root = getenv("VAE_DATA_DIR");
    if (root == NULL) {
        print_message("SKIPPED: MNIST: VAE_DATA_DIR is not set\n");
        skip();
    }
    snprintf(s->path, sizeof s->path, "%s/mnist", root);
    vae_dataset *set = dataset_open_ok(s->path, VAE_SPLIT_TRAIN, 0);
    assert_int_equal(set->n, 60000);
    assert_int_equal(set->d, 784);
    assert_int_equal(set->classes.n, 10);
    assert_sha256(set, "7e006e4bb73ea5d321cd9c621ab514ec9893d2e8109a0798aec172a62d3dc265");
    vae_dataset_free(set);
    assert_true(dataset_has_test(s->path));
    set = dataset_open_ok(s->path, VAE_SPLIT_TEST, 0);
    assert_int_equal(set->n, 10000);
    assert_int_equal(set->labels[0], 7);
    vae_dataset_free(set);
}

/* Help and messages come from the list of readers. */
static void readers_are_named(void **state)
{
    char kinds[VAE_DATASET_KINDS];
    const uint8_t text[] = "hello";
    assert_string_equal(vae_dataset_kinds(kinds), "digits, sprites, a folder of IDX or picture "
                                                  "files, an .npy, .npz, .csv, .png, .jpg, .pgm, "
                                                  ".bmp, .webp or .tif file");
    assert_set_refused(
        scratch_path(*state, "nowhere"), VAE_SPLIT_TRAIN, VAE_ERR_IO,
        "; name an .npy, .npz, .csv, .png, .jpg, .pgm, .bmp, .webp, .tif or IDX file, a folder of "
        "IDX or picture files, or a built-in set, `digits` or `sprites`");
    assert_set_refused(scratch_write(*state, "text", text, 5), VAE_SPLIT_TRAIN, VAE_ERR_DATA,
                       "expected NPY (93 4e ...), PNG (89 50 ...), JPEG (ff d8 ...), PGM (50 31 "
                       "...), BMP (42 4d ...), WebP (52 49 ...), TIFF (49 49 ...), IDX (00 00 "
                       "...), or a name that "
                       "ends in .npz or .csv; found 68 65");
}

static void options_of_other_data_are_refused(void **state)
{
    static const struct {
        const char *option, *says;
    } cases[] = {
        {"image-size", "--image-size has no effect on digits: it needs a folder of picture files"},
        {"image-channels", "--image-channels has no effect on digits: it needs a folder of "},
        {"label-column", "--label-column has no effect on digits: it needs a .csv file"},
    };
    (void)state;
    vae_dataset *set = dataset_open_ok("digits", VAE_SPLIT_TRAIN, 10);
    assert_int_equal(vae_dataset_check_options(set, NULL, NULL), VAE_OK);
    for (size_t i = 0; i < 3; i++) {
        vae_option_set given = {{0}};
        vae_option_add(&given, vae_config_find(cases[i].option));
        vae_error err = {0};
        assert_int_equal(vae_dataset_check_options(set, &given, &err), VAE_ERR_USAGE);
        assert_non_null(strstr(err.text, cases[i].says));
    }
    set->kind = VAE_KIND_TABLE;
    vae_option_set column = {{0}};
    vae_option_add(&column, vae_config_find("label-column"));
    assert_int_equal(vae_dataset_check_options(set, &column, NULL), VAE_OK);
    vae_dataset_free(set);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(sha256_gives_known_digests),
        cmocka_unit_test(digits_are_the_same_everywhere),
        cmocka_unit_test(digits_have_balanced_labels_and_factors_in_range),
        cmocka_unit_test(digits_train_and_test_are_disjoint),
        cmocka_unit_test(idx_folders_are_found_in_every_layout),
        cmocka_unit_test(idx_single_files_find_their_labels),
        cmocka_unit_test(idx_rows_are_limited),
        cmocka_unit_test(idx_floats_are_big_endian),
        cmocka_unit_test(idx_damage_is_refused),
        cmocka_unit_test(gzip_damage_is_refused),
        cmocka_unit_test(what_is_no_data_set_is_refused),
        cmocka_unit_test(unreadable_files_are_io_errors),
        cmocka_unit_test(readers_are_named),
        cmocka_unit_test(options_of_other_data_are_refused),
        cmocka_unit_test(mnist_is_mnist),
    };
    return cmocka_run_group_tests(tests, scratch_setup, scratch_teardown);
}
