/* Models out: names, round trips, ONNX's bytes. Readers that this project did not write compare in
 * tests/roundtrip/; test_import.c has what comes in. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "dataset_fixture.h"
#include "exchange/exchange.h"
#include "export_fixture.h"

#define OPTIONS(...) ((const char *const[]){__VA_ARGS__, NULL})

static void assert_text(const vae_error *err, vae_status status, const char *says)
{
    if (err->status != status || strstr(err->text, says) == NULL) {
        fail_msg("status %d: %s (expected %d: %s)", (int)err->status, err->text, (int)status, says);
    }
}

/* ---- names ---- */

static void assert_names(size_t d, const char *const *options, const char *expected)
{
    vae_checkpoint *c = model_make(d, options);
    param_layout layout;
    vae_named_tensor t[VAE_EXPORT_TENSORS];
    char text[2048] = "";
    assert_int_equal(vae_layout_build(&layout, &c->config, vae_flat(d), NULL), VAE_OK);
    size_t n = vae_export_tensors(&layout, t), floats = 0;
    for (size_t i = 0; i < n; i++) {
        char one[64];
        snprintf(one, sizeof one, t[i].ndim == 2 ? "%s(%zu,%zu) " : "%s(%zu) ", t[i].name,
                 t[i].shape[0], t[i].shape[1]);
        strcat(text, one);
        floats += t[i].n;
    }
    assert_string_equal(text, expected);
    assert_int_equal(floats, layout.n_params);
    vae_layout_clear(&layout);
    vae_checkpoint_free(c);
}

static void test_names(void **state)
{
    (void)state;
    assert_names(784, OPTIONS("hidden", "400", "latent", "20"),
                 "fc1.weight(400,784) fc1.bias(400) fc21.weight(20,400) fc21.bias(20) "
                 "fc22.weight(20,400) fc22.bias(20) fc3.weight(400,20) fc3.bias(400) "
                 "fc4.weight(784,400) fc4.bias(784) ");
    assert_names(7, OPTIONS("hidden", "5", "latent", "2", "likelihood", "gaussian-learned"),
                 "fc1.weight(5,7) fc1.bias(5) fc21.weight(2,5) fc21.bias(2) fc22.weight(2,5) "
                 "fc22.bias(2) fc3.weight(5,2) fc3.bias(5) fc41.weight(7,5) fc41.bias(7) "
                 "fc42.weight(7,5) fc42.bias(7) ");
    assert_names(7, OPTIONS("hidden", "5,4", "latent", "2", "decoder-hidden", "3"),
                 "encoder.0.weight(5,7) encoder.0.bias(5) encoder.1.weight(4,5) encoder.1.bias(4) "
                 "mu.weight(2,4) mu.bias(2) logvar.weight(2,4) logvar.bias(2) "
                 "decoder.0.weight(3,2) decoder.0.bias(3) output.weight(7,3) output.bias(7) ");
    assert_names(2, OPTIONS("hidden", "3,3", "latent", "1", "likelihood", "gaussian-learned"),
                 "encoder.0.weight(3,2) encoder.0.bias(3) encoder.1.weight(3,3) encoder.1.bias(3) "
                 "mu.weight(1,3) mu.bias(1) logvar.weight(1,3) logvar.bias(1) "
                 "decoder.0.weight(3,1) decoder.0.bias(3) decoder.1.weight(3,3) decoder.1.bias(3) "
                 "output_mean.weight(2,3) output_mean.bias(2) output_logvar.weight(2,3) "
                 "output_logvar.bias(2) ");
}

/* ---- round trips ---- */

static vae_status export_as(const char *path, const vae_checkpoint *c, bool npz, vae_error *err)
{
    return npz ? vae_export_npz(path, c, err) : vae_export_safetensors(path, c, err);
}

/* Out and in again: same bits, same config; out once more: same file. */
static void assert_round_trip(scratch *s, size_t d, const char *const *options, bool npz)
{
    vae_checkpoint *c = model_make(d, options), *back;
    vae_error err = {0};
    static const vae_import_options none;
    size_t n1, n2;
    assert_int_equal(export_as(scratch_path(s, "a"), c, npz, &err), VAE_OK);
    if (vae_import(&back, s->path, &none, &err) != VAE_OK) {
        fail_msg("%s", err.text);
    }
    assert_int_equal(back->d, d);
    assert_int_equal(back->n_params, c->n_params);
    assert_memory_equal(back->params, c->params, c->n_params * sizeof(float));
    assert_int_equal(vae_config_difference(&back->config, &c->config, NULL), SIZE_MAX);
    assert_true(back->state.step == 0 && back->adam_m == NULL);
    assert_int_equal(export_as(scratch_path(s, "b"), back, npz, &err), VAE_OK);
    uint8_t *first = file_read(scratch_path(s, "a"), &n1);
    uint8_t *second = file_read(scratch_path(s, "b"), &n2);
    assert_int_equal(n1, n2);
    assert_memory_equal(first, second, n1);
    free(first);
    free(second);
    vae_checkpoint_free(back);
    vae_checkpoint_free(c);
}

static void test_round_trips(void **state)
{
    for (int npz = 0; npz < 2; npz++) {
        assert_round_trip(*state, 784, OPTIONS("hidden", "16"), npz);
        assert_round_trip(*state, 1, OPTIONS("hidden", "1", "latent", "1"), npz);
        assert_round_trip(*state, 9, OPTIONS("hidden", "5,17,3", "activation", "gelu"), npz);
        assert_round_trip(*state, 5,
                          OPTIONS("hidden", "4", "decoder-hidden", "3,2", "likelihood",
                                  "gaussian-learned", "activation", "leaky_relu"),
                          npz);
        assert_round_trip(
            *state, 5, OPTIONS("hidden", "4", "likelihood", "gaussian", "variance", "0.123"), npz);
        assert_round_trip(*state, 5,
                          OPTIONS("hidden", "4", "likelihood", "gaussian", "mean", "sigmoid"), npz);
    }
}

/* ---- ONNX ---- */

/* Walks protobuf fields; calls itself for messages on the path that `numbers` spells. Returns how
 * many fields are found there; *bytes adds up the lengths of those with a length. */
static size_t count_fields(const uint8_t *at, size_t n, const unsigned *numbers, size_t *bytes)
{
    const uint8_t *end = at + n;
    size_t found = 0;
    while (at < end) {
        uint64_t part[2] = {0, 0};
        for (int k = 0; k < 2; k++) {
            for (unsigned shift = 0;; shift += 7) {
                assert_true(at < end && shift < 64);
                part[k] |= (uint64_t)(*at & 0x7f) << shift;
                if ((*at++ & 0x80) == 0) {
                    break;
                }
            }
            if ((part[0] & 7) == 5) {
                at += 4; /* a float */
                break;
            }
        }
        const uint64_t length = (part[0] & 7) == 2 ? part[1] : 0;
        assert_true(length <= (uint64_t)(end - at));
        if (part[0] >> 3 == numbers[0]) {
            found += numbers[1] == 0 ? 1 : count_fields(at, length, numbers + 1, bytes);
            *bytes += numbers[1] == 0 ? length : 0;
        }
        at += length;
    }
    return found;
}

static size_t count(const char *path, size_t *bytes, unsigned a, unsigned b, unsigned c)
{
    size_t n, unused;
    uint8_t *file = file_read(path, &n);
    bytes = bytes != NULL ? bytes : &unused;
    *bytes = 0;
    size_t found = count_fields(file, n, (const unsigned[]){a, b, c, 0}, bytes);
    free(file);
    return found;
}

static void test_onnx(void **state)
{
    scratch *s = *state;
    vae_onnx_paths p;
    size_t bytes, all = 0;
    vae_checkpoint *c = model_make(7, OPTIONS("hidden", "5,4", "latent", "3", "activation", "gelu",
                                              "likelihood", "gaussian-learned"));
    assert_int_equal(vae_export_onnx_paths(&p, scratch_path(s, "m.onnx"), &c->config, NULL),
                     VAE_OK);
    assert_int_equal(vae_export_onnx(&p, c, NULL), VAE_OK);
    assert_int_equal(count(p.encoder, NULL, 7, 1, 0), 2 * (1 + 5) + 2); /* nodes */
    assert_int_equal(count(p.encoder, NULL, 7, 11, 0), 1);
    assert_int_equal(count(p.encoder, NULL, 7, 12, 0), 2);
    assert_int_equal(count(p.encoder, NULL, 14, 0, 0), 10);         /* metadata; no data hash */
    assert_int_equal(count(p.encoder, &bytes, 7, 5, 9), 2 * 4 + 3); /* weights, biases, constants */
    all += bytes - 3 * sizeof(float);
    assert_int_equal(count(p.decoder, NULL, 7, 1, 0), 2 * (1 + 5) + 2 + 3);
    assert_int_equal(count(p.decoder, NULL, 7, 12, 0), 2);
    count(p.decoder, &bytes, 7, 5, 9);
    all += bytes - 5 * sizeof(float);
    assert_int_equal(all, c->n_params * sizeof(float));
    c->config.mean = VAE_MEAN_SIGMOID; /* a node more */
    assert_int_equal(vae_export_onnx(&p, c, NULL), VAE_OK);
    assert_int_equal(count(p.decoder, NULL, 7, 1, 0), 2 * (1 + 5) + 2 + 3 + 1);
    assert_int_equal(count(p.decoder, NULL, 7, 12, 0), 2);
    vae_checkpoint_free(c);
}

static void test_onnx_paths(void **state)
{
    scratch *s = *state;
    vae_onnx_paths p;
    vae_config config = {0};
    char expected[VAE_PATH + 64];
    static char longest[2 * VAE_PATH];
    assert_int_equal(vae_export_onnx_paths(&p, "m.onnx", &config, NULL), VAE_OK);
    assert_string_equal(p.encoder, "m.encoder.onnx");
    assert_string_equal(p.decoder, "m.decoder.onnx");
    assert_string_equal(p.classifier, "");
    config.semi_supervised = true;
    assert_int_equal(vae_export_onnx_paths(&p, "m.onnx", &config, NULL), VAE_OK);
    assert_string_equal(p.classifier, "m.classifier.onnx");
    assert_int_equal(vae_export_onnx_paths(&p, "a/m", &config, NULL), VAE_OK);
    assert_string_equal(p.encoder, "a/m.encoder.onnx");
    assert_int_equal(vae_export_onnx_paths(&p, "new/", &config, NULL), VAE_OK);
    assert_string_equal(p.decoder, "new/decoder.onnx");
    assert_int_equal(vae_export_onnx_paths(&p, s->folder, &config, NULL), VAE_OK);
    snprintf(expected, sizeof expected, "%s/encoder.onnx", s->folder);
    assert_string_equal(p.encoder, expected);
    assert_int_equal(vae_export_onnx_paths(&p, "", &config, NULL), VAE_ERR_USAGE);
    memset(longest, 'a', sizeof longest - 1);
    assert_int_equal(vae_export_onnx_paths(&p, longest, &config, NULL), VAE_ERR_USAGE);
}

/* Nothing can be written: the old file stays. */
static void test_unwritable(void **state)
{
    scratch *s = *state;
    vae_error err = {0};
    vae_checkpoint *c = model_make(2, OPTIONS("hidden", "2", "latent", "1"));
    assert_int_equal(vae_export_npz("/dev/full", c, &err), VAE_ERR_IO);
    assert_text(&err, VAE_ERR_IO, "/dev/full: cannot write: No space left");
    assert_int_equal(vae_export_safetensors(scratch_path(s, "no/such"), c, NULL), VAE_ERR_IO);
    assert_int_equal(vae_export_safetensors(s->folder, c, NULL), VAE_ERR_IO);
    vae_checkpoint_free(c);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_names),      cmocka_unit_test(test_round_trips),
        cmocka_unit_test(test_onnx),       cmocka_unit_test(test_onnx_paths),
        cmocka_unit_test(test_unwritable),
    };
    return cmocka_run_group_tests(tests, scratch_setup, scratch_teardown);
}
