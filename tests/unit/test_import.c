/* Weights in: types, tensors that do not fit, and files that are not what they say. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <zip.h>

#include "base/text.h"
#include "dataset_fixture.h"
#include "exchange/exchange.h"
#include "exchange/import_weights.h"
#include "export_fixture.h"
#include "format/npz.h"

#define OPTIONS(...) ((const char *const[]){__VA_ARGS__, NULL})

static void assert_text(const vae_error *err, vae_status status, const char *says)
{
    if (err->status != status || strstr(err->text, says) == NULL) {
        fail_msg("status %d: %s (expected %d: %s)", (int)err->status, err->text, (int)status, says);
    }
}

/* Types other than float32, names in the regular spelling, and a guess at the data's shape. */
static void test_import_types(void **state)
{
    (void)state;
    const char *json =
        " {\"encoder.0.weight\":{\"dtype\":\"F16\",\"shape\":[1,1],\"data_offsets\":[0,2]},"
        "\"encoder.0.bias\":{\"dtype\":\"BF16\",\"shape\":[1],\"data_offsets\":[2,4]},"
        "\"mu.weight\":{\"dtype\":\"F64\",\"shape\":[1,1],\"data_offsets\":[4,12]},"
        "\"mu.bias\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[12,16]},"
        "\"logvar.weight\":{\"dtype\":\"F16\",\"shape\":[1,1],\"data_offsets\":[16,18]},"
        "\"logvar.bias\":{\"dtype\":\"F16\",\"shape\":[1],\"data_offsets\":[18,20]},"
        "\"decoder.0.weight\":{\"dtype\":\"F16\",\"shape\":[1,1],\"data_offsets\":[20,22]},"
        "\"decoder.0.bias\":{\"dtype\":\"F16\",\"shape\":[1],\"data_offsets\":[22,24]},"
        "\"output.weight\":{\"dtype\":\"F16\",\"shape\":[1,1],\"data_offsets\":[24,26]},"
        "\"output.bias\":{\"dtype\":\"F16\",\"shape\":[1],\"data_offsets\":[26,28]}}";
    /* 1.5, -2, 0.1, 3.25; then the largest half, the smallest, smallest normal, -0, 1, -1 */
    uint8_t data[28] = {0x00, 0x3e, 0x00, 0xc0};
    const double tenth = 0.1;
    const float more = 3.25f;
    const uint16_t halves[6] = {0x7bff, 0x0001, 0x0400, 0x8000, 0x3c00, 0xbc00};
    memcpy(data + 4, &tenth, 8);
    memcpy(data + 12, &more, 4);
    memcpy(data + 16, halves, sizeof halves);
    size_t n;
    vae_error err = {0};
    uint8_t *bytes = safetensors_make(json, data, sizeof data, &n);
    vae_checkpoint *c = import_bytes(bytes, n, &err);
    if (c == NULL) {
        fail_msg("%s", err.text);
    }
    /* packed: encoder.0.weight, .bias, mu.weight, logvar.weight, mu.bias, logvar.bias ... */
    const float expected[10] = {1.5f,     -2.0f,    0.1f,  65504.0f, 3.25f,
                                0x1p-24f, 0x1p-14f, -0.0f, 1.0f,     -1.0f};
    assert_memory_equal(c->params, expected, sizeof expected);
    vae_checkpoint_free(c);
    free(bytes);
}

/* ---- tensors that do not fit ---- */

static vae_status import_with(const vae_checkpoint *c, const vae_named_tensor *t, size_t n,
                              vae_error *err)
{
    vae_npz_writer w = {.n = 0};
    char path[64] = "/tmp/vae-test-XXXXXX";
    static const vae_import_options none;
    vae_checkpoint *back = NULL;
    int fd = mkstemp(path);
    assert_true(fd >= 0);
    close(fd);
    for (size_t i = 0; i < n; i++) {
        vae_npz_add(&w, t[i].name, "<f4", 4, t[i].shape, t[i].ndim, c->params + t[i].offset);
    }
    vae_npz_finish(&w);
    assert_int_equal(vae_parts_put(&w.parts, path, NULL), VAE_OK);
    vae_status status = vae_import(&back, path, &none, err);
    vae_checkpoint_free(back);
    unlink(path);
    return status;
}

static void test_misfits(void **state)
{
    (void)state;
    param_layout layout;
    vae_named_tensor t[VAE_EXPORT_TENSORS + 1], saved;
    vae_checkpoint *c = model_make(4, OPTIONS("hidden", "3", "latent", "2"));
    assert_int_equal(vae_layout_build(&layout, &c->config, vae_checkpoint_shape(c), NULL), VAE_OK);
    const size_t n = vae_export_tensors(&layout, t);
    vae_layout_clear(&layout);
    assert_int_equal(import_with(c, t, n, NULL), VAE_OK);
    for (size_t i = 0; i < n; i++) { /* each one missing */
        vae_error err = {0};
        saved = t[i];
        t[i] = t[n - 1];
        t[n - 1] = saved;
        assert_int_equal(import_with(c, t, n - 1, &err), VAE_ERR_DATA);
        assert_text(&err, VAE_ERR_DATA, "is missing");
        assert_non_null(strstr(err.text, saved.name));
        t[n - 1] = t[i];
        t[i] = saved;
    }
    vae_error err = {0};
    t[n] = t[0];
    strcpy(t[n].name, "fc5.weight");
    import_with(c, t, n + 1, &err);
    assert_text(&err, VAE_ERR_DATA, "unexpected tensor 'fc5.weight'");
    err = (vae_error){0};
    saved = t[6]; /* fc3.weight (3,2) */
    t[6].shape[0] = 2, t[6].shape[1] = 3;
    import_with(c, t, n, &err);
    assert_int_equal(err.status, VAE_ERR_DATA);
    err = (vae_error){0};
    t[6] = saved;
    saved = t[8]; /* fc4.weight (4,3) */
    t[8].shape[0] = 3, t[8].shape[1] = 4;
    import_with(c, t, n, &err);
    assert_text(&err, VAE_ERR_DATA, "expected shape (4,3), found (3,4); it is transposed");
    t[8] = saved;
    err = (vae_error){0};
    c->params[t[4].offset + 1] = NAN;
    import_with(c, t, n, &err);
    assert_text(&err, VAE_ERR_DATA, "tensor 'fc22.weight': element (0,1) is nan");
    vae_checkpoint_free(c);
}

/* The checkpoint as safetensors, with these metadata. */
static void write_with(scratch *s, const vae_checkpoint *c, const vae_metadata *metadata)
{
    param_layout layout;
    vae_named_tensor t[VAE_EXPORT_TENSORS];
    vae_parts parts = {0};
    assert_int_equal(vae_layout_build(&layout, &c->config, vae_checkpoint_shape(c), NULL), VAE_OK);
    vae_safetensors_build(&parts, t, vae_export_tensors(&layout, t), c->params, metadata);
    assert_int_equal(vae_parts_put(&parts, s->path, NULL), VAE_OK);
    vae_layout_clear(&layout);
}

static void test_contradictions(void **state)
{
    scratch *s = *state;
    vae_config config;
    vae_checkpoint *c = model_make(4, OPTIONS("hidden", "3", "latent", "2")), *back;
    vae_import_options options = {.config = &config};
    vae_error err = {0};
    assert_int_equal(vae_export_safetensors(scratch_path(s, "c"), c, NULL), VAE_OK);
    vae_config_defaults(&config);
    vae_config_set(&config, "latent", "3", NULL);
    vae_config_set(&config, "lr", "0.5", NULL);
    vae_option_add(&options.given, vae_config_find("latent"));
    vae_import(&back, s->path, &options, &err);
    assert_text(&err, VAE_ERR_USAGE, "--latent 3: but the tensors");
    options.given = (vae_option_set){{0}};
    vae_option_add(&options.given, vae_config_find("lr")); /* what is given wins over the file */
    assert_int_equal(vae_import(&back, s->path, &options, NULL), VAE_OK);
    assert_true(back->config.lr == 0.5 && back->config.latent == 2);
    vae_checkpoint_free(back);
    options = (vae_import_options){.height = 2, .width = 3, .channels = 1};
    err = (vae_error){0};
    vae_import(&back, s->path, &options, &err);
    assert_text(&err, VAE_ERR_USAGE, "2x3x1");
    c->config.latent = 5; /* metadata that lie */
    vae_metadata metadata;
    assert_int_equal(vae_metadata_build(&metadata, c, NULL), VAE_OK);
    c->config.latent = 2;
    write_with(s, c, &metadata);
    options = (vae_import_options){0};
    err = (vae_error){0};
    vae_import(&back, s->path, &options, &err);
    assert_text(&err, VAE_ERR_DATA, "metadata says latent 5, but the tensors have 2");
    vae_metadata_clear(&metadata);
    vae_checkpoint_free(c);
}

/* ---- malformed files ---- */

/* What the metadata say of the data is looked at, not believed. */
static void test_data_metadata(void **state)
{
    scratch *s = *state;
    static const struct {
        const char *key, *value, *says; /* says: NULL = it is taken */
    } cases[] = {
        {"data_shape", "[2,3]", "data_shape: expected [height,width,channels], found [2,3]"},
        {"data_shape", "[4,3,1]",
         "metadata says data_shape [4,3,1], but the tensors take 6 values"},
        {"data_shape", "[3,2,1]", NULL},
        {"data_scale", "[1,1,1,1,1,0]", "data_scale: expected an array of 6 numbers above 0"},
        {"data_shift", "[1,2,3]", "data_shift: expected an array of 6 numbers"},
        {"data_shift", "nothing", "data_shift: expected an array of 6 numbers"},
        {"data_shift", "[1,2,3,4,5,6]", NULL},
        {"columns", "[\"a\"]", "columns: expected an array of 6 names"},
        {"columns", "{", "columns: expected an array of 6 names"},
        {"columns", "[\"a\",\"b\",\"c\",\"d\",\"e\",6]", "columns: expected an array of 6 names"},
        {"columns", "[\"a\",\"b\",\"c\",\"d\",\"e\",\"f\\u0000g\"]", "columns: expected an array"},
        {"columns", "[\"a\",\"b\",\"c\",\"d\",\"e\",\"f\"]", NULL},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        vae_checkpoint *c = model_make(6, OPTIONS("hidden", "5", "latent", "2")), *back = NULL;
        vae_metadata metadata;
        vae_error err = {0};
        c->standard = calloc(2 * c->d, sizeof *c->standard);
        static const char *const names[] = {"u", "v", "w", "x", "y", "z"};
        c->columns = vae_join_names(names, c->d);
        for (size_t j = 0; j < c->d; j++) {
            c->standard[c->d + j] = 2;
        }
        assert_int_equal(vae_metadata_build(&metadata, c, NULL), VAE_OK);
        for (size_t k = 0; k < metadata.n; k++) {
            if (strcmp(metadata.pairs[k].key, cases[i].key) == 0) {
                free(metadata.pairs[k].value);
                metadata.pairs[k].value = strdup(cases[i].value);
            }
        }
        write_with(s, c, &metadata);
        const vae_import_options options = {0};
        vae_import(&back, s->path, &options, &err);
        if (cases[i].says != NULL) {
            assert_text(&err, VAE_ERR_DATA, cases[i].says);
        } else {
            const bool others = strcmp(cases[i].key, "columns") == 0;
            assert_non_null(back);
            assert_memory_equal(back->columns, others ? "a\0b\0c\0d\0e\0f" : c->columns, 12);
            assert_true(back->standard[c->d] == 2);
        }
        vae_checkpoint_free(back);
        vae_metadata_clear(&metadata);
        vae_checkpoint_free(c);
    }
}

static void assert_refused(const void *bytes, size_t n, const char *says)
{
    vae_error err = {0};
    allocations_start();
    vae_checkpoint *c = import_bytes(bytes, n, &err);
    assert_allocations_small();
    if (c != NULL || err.status != VAE_ERR_DATA || strstr(err.text, says) == NULL) {
        fail_msg("status %d: %s (expected: %s)", (int)err.status, err.text, says);
    }
}

#define TENSOR(shape, offsets)                                                                     \
    "{\"a\":{\"dtype\":\"F32\",\"shape\":" shape ",\"data_offsets\":" offsets "}}"

static void test_bad_headers(void **state)
{
    (void)state;
    static const char zeros[64];
    static const struct {
        const char *json;
        size_t data;
        const char *says;
    } cases[] = {
        {"[]", 0, "expected a safetensors"},
        {"{", 0, "expected a safetensors"},
        {"{       ", 0, "safetensors header"},
        {"{\"a\":1, \"a\":2}", 0, "duplicate"},
        {"{\"\xff\":1}        ", 0, "unable to decode byte 0xff"},
        {"{\"a\":[]}   ", 0, "tensor 'a': expected {"},
        {"{\"a\":{\"dtype\":\"F32\"}}", 0, "expected a list as its shape"},
        {"{\"a\":{\"dtype\":\"Q8\",\"shape\":[],\"data_offsets\":[0,4]}}", 4, "unknown dtype 'Q8'"},
        {TENSOR("[1]", "[0]"), 4, "expected data_offsets [begin, end]"},
        {TENSOR("[1]", "[0,5]"), 4, "outside the 4 bytes"},
        {TENSOR("[1]", "[4,0]"), 4, "outside the 4 bytes"},
        {TENSOR("[2]", "[0,4]"), 4, "need 2 items of 4 bytes"},
        {TENSOR("[1]", "[4,8]"), 8, "has a hole"},
        {TENSOR("[1]", "[0,4]"), 8, "describes 4 bytes of data, the file has 8"},
        {TENSOR("[-1]", "[0,4]"), 4, "is not a whole number"},
        {TENSOR("[1.0]", "[0,4]"), 4, "is not a whole number"},
        {TENSOR("[4294967296,4294967296,0]", "[0,0]"), 0, "overflows"},
        {TENSOR("[4611686018427387904,4]", "[0,0]"), 0, "overflows"},
        {TENSOR("[4611686018427387904]", "[0,0]"), 0, "need 4611686018427387904 items"},
        {TENSOR("[1,1,1,1,1,1,1,1,1]", "[0,4]"), 4, "at most 8 dimensions"},
        {TENSOR("[99999999999999999999]", "[0,4]"), 4, "safetensors header: too big"},
        {"{\"a\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[0,4]},"
         "\"b\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[0,4]}}",
         4, "overlaps"},
        {"{\"__metadata__\":{\"a\":1}}", 0, "'a' is not a string"},
        {"{\"__metadata__\":[]}", 0, "expected an object of strings"},
        {"{\"a\\u0000b\":{}}", 0, "safetensors header"},
        {"{}        ", 0, "tensor 'fc1.weight' is missing"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        size_t n;
        uint8_t *bytes = safetensors_make(cases[i].json, zeros, cases[i].data, &n);
        assert_refused(bytes, n, cases[i].says);
        free(bytes);
    }
    static const uint8_t huge[] = {0xff, 0xff, 0xff, 0xff, 0, 0, 0, 0, '{', '}'};
    assert_refused(huge, sizeof huge, "says its header is 4294967295 bytes long");
    assert_refused("", 0, "an empty file");
    assert_refused("\x80\x04stuff and more", 16, "a pickle");
    assert_refused("\x89VAE\r\n\x1a\n12345678", 16, "a checkpoint of this program");
}

/* Whatever is cut off or changed: refused with a message, or harmless; never more. */
static void assert_robust(const uint8_t *bytes, size_t n)
{
    uint8_t *copy = malloc(n);
    assert_non_null(copy);
    for (size_t length = 0; length < n; length++) {
        assert_refused(bytes, length, "file: ");
    }
    for (size_t i = 0; i < n; i++) {
        vae_error err = {0};
        memcpy(copy, bytes, n);
        copy[i] = (uint8_t)(copy[i] ^ 1u << i % 8);
        allocations_start();
        vae_checkpoint *c = import_bytes(copy, n, &err);
        assert_allocations_small();
        if (c == NULL && err.status != VAE_ERR_DATA) {
            fail_msg("byte %zu: status %d: %s", i, (int)err.status, err.text);
        }
        vae_checkpoint_free(c);
    }
    free(copy);
}

static void test_damage(void **state)
{
    scratch *s = *state;
    vae_checkpoint *c = model_make(2, OPTIONS("hidden", "2", "latent", "1"));
    for (int npz = 0; npz < 2; npz++) {
        size_t n;
        const char *path = scratch_path(s, "d");
        assert_int_equal(
            npz ? vae_export_npz(path, c, NULL) : vae_export_safetensors(path, c, NULL), VAE_OK);
        uint8_t *bytes = file_read(s->path, &n);
        assert_robust(bytes, n);
        free(bytes);
    }
    vae_checkpoint_free(c);
}

/* ---- NPZ ---- */

/* An archive that libzip writes, deflated. */
static void zip_member(const char *path, const char *name, const void *bytes, size_t n)
{
    zip_t *zip = zip_open(path, ZIP_CREATE, NULL);
    assert_non_null(zip);
    zip_source_t *source = zip_source_buffer(zip, bytes, n, 0);
    assert_true(zip_file_add(zip, name, source, 0) >= 0);
    assert_int_equal(zip_close(zip), 0);
}

static void test_npz(void **state)
{
    scratch *s = *state;
    uint8_t member[VAE_NPY_WRITE_HEADER_MAX + 4000];
    const size_t shape[2] = {10, 100};
    size_t header = vae_npy_format_header(member, "<f4", shape, 2);
    for (size_t i = 0; i < 1000; i++) {
        const float value = (float)(i / 10);
        memcpy(member + header + 4 * i, &value, 4);
    }
    float values[1000];
    vae_npz npz;
    vae_error err = {0};
    zip_member(scratch_path(s, "z.npz"), "a.npy", member, header + 4000);
    zip_member(s->path, "readme.txt", "not an array", 12);
    assert_int_equal(vae_npz_open(&npz, s->path, &err), VAE_OK);
    assert_int_equal(npz.n, 1);
    assert_string_equal(npz.members[0].name, "a");
    assert_int_equal(vae_npz_read_floats(&npz, vae_npz_find(&npz, "a"), values, &err), VAE_OK);
    assert_true(values[999] == 99.0f && values[10] == 1.0f);
    memset(values, 0, sizeof values);
    assert_int_equal(vae_npz_read(&npz, vae_npz_find(&npz, "a"), values, &err), VAE_OK);
    assert_true(values[999] == 99.0f);
    assert_null(vae_npz_find(&npz, "b"));
    vae_npz_close(&npz);
    /* a header that promises more than there is */
    zip_member(scratch_path(s, "w.npz"), "w.npy", member, header + 12);
    assert_int_equal(vae_npz_open(&npz, s->path, &err), VAE_OK); /* a matter of who uses it */
    assert_int_equal(vae_npz_read_floats(&npz, vae_npz_find(&npz, "w"), values, &err),
                     VAE_ERR_DATA);
    assert_text(&err, VAE_ERR_DATA, "w.npy: header says 4000 bytes, 12 remain");
    vae_npz_close(&npz);
    err = (vae_error){0};
    zip_member(scratch_path(s, "g.npz"), "g.npy", "garbage", 7);
    assert_int_equal(vae_npz_open(&npz, s->path, &err), VAE_OK);
    assert_int_equal(vae_npz_check(&npz, vae_npz_find(&npz, "g"), &err), VAE_ERR_DATA);
    assert_text(&err, VAE_ERR_DATA, "g.npy: not an npy file");
    vae_npz_close(&npz);
    err = (vae_error){0};
    zip_member(scratch_path(s, "t.npz"), "model/data.pkl", "pickle", 6);
    assert_int_equal(vae_npz_open(&npz, s->path, &err), VAE_OK);
    vae_npz_close(&npz);
    static const vae_import_options none;
    vae_checkpoint *c;
    vae_import(&c, s->path, &none, &err);
    assert_text(&err, VAE_ERR_DATA, "torch.save writes such");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_import_types),
        cmocka_unit_test(test_misfits),
        cmocka_unit_test(test_contradictions),
        cmocka_unit_test(test_data_metadata),
        cmocka_unit_test(test_bad_headers),
        cmocka_unit_test(test_damage),
        cmocka_unit_test(test_npz),
    };
    return cmocka_run_group_tests(tests, scratch_setup, scratch_teardown);
}
