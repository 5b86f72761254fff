/* The library through its public header alone. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <dirent.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "dataset_fixture.h"
#include "vae.h"

enum { N = 70, SIDE = 4, D = SIDE * SIDE, Z = 2 };

static const char small[] = "{\"hidden\": [8], \"latent\": 2, \"epochs\": 2, \"threads\": 1}";

static unsigned char bytes[N * D];
static float floats[N * D];

static void fill_rows(void)
{
    for (int i = 0; i < N * D; i++) {
        bytes[i] = (unsigned char)(i * 37 % 256);
        floats[i] = (float)bytes[i] / 255.0f;
    }
}

static vae *fitted(void)
{
    vae *v = vae_new();
    assert_non_null(v);
    assert_int_equal(vae_set_option(v, "device", "cpu"), 0);
    assert_int_equal(vae_set_option(v, "threads", "1"), 0);
    if (vae_fit(v, bytes, VAE_BYTES, N, SIDE, SIDE, 1, small) != 0) {
        fail_msg("%s", vae_message(v));
    }
    return v;
}

static void assert_says(const vae *v, int result, int expected, const char *says)
{
    if (result != expected || strstr(vae_message(v), says) == NULL) {
        fail_msg("%d: %s (expected %d: %s)", result, vae_message(v), expected, says);
    }
}

/* ---- tests ---- */

static void test_use(void **state)
{
    (void)state;
    static float mu[N * Z], logvar[N * Z], z[N * Z], other[N * Z], x_hat[N * D], again[N * D];
    static float score[N], recon[N], kl[N];
    struct vae_shape shape;
    vae *v = fitted();
    assert_int_equal(vae_get_shape(v, &shape), 0);
    assert_true(shape.rows_of == D && shape.height == SIDE && shape.channels == 1);
    assert_true(shape.latent == Z &&
                shape.parameters == D * 8 + 8 + 8 * 4 + 4 + Z * 8 + 8 + 8 * D + D);
    assert_int_equal(vae_encode(v, bytes, VAE_BYTES, N, mu, logvar, z), 0);
    assert_int_equal(vae_encode(v, floats, VAE_FLOATS, N, other, NULL, NULL), 0);
    assert_memory_equal(mu, other, sizeof mu);
    assert_memory_not_equal(mu, z, sizeof mu);
    assert_int_equal(vae_encode(v, bytes, VAE_BYTES, 3, other, NULL, NULL),
                     0); /* other rows, same slot */
    assert_memory_equal(mu, other, 3 * Z * sizeof *mu);
    assert_int_equal(vae_reconstruct(v, bytes, VAE_BYTES, N, x_hat), 0);
    assert_int_equal(vae_decode(v, mu, N, again), 0);
    assert_memory_equal(x_hat, again, sizeof again);
    assert_int_equal(vae_score(v, bytes, VAE_BYTES, N, score, recon, kl), 0);
    for (int i = 0; i < N; i++) {
        assert_true(score[i] == recon[i] + kl[i] && kl[i] >= 0 && recon[i] > 0);
    }
    assert_int_equal(vae_sample(v, N, x_hat, NULL), 0);
    assert_int_equal(vae_sample(v, 3, again, other), 0);
    assert_memory_equal(x_hat, again, 3 * D * sizeof *again);
    assert_int_equal(vae_set_option(v, "seed", "9"), 0);
    assert_int_equal(vae_sample(v, 3, again, NULL), 0);
    assert_memory_not_equal(x_hat, again, 3 * D * sizeof *again);
    vae_free(v);
}

/* The same black and white pixels as bits and as floats; D is a whole number of bytes. */
static void test_bits(void **state)
{
    (void)state;
    static unsigned char bits[N * D / 8];
    static float values[N * D], mu[N * Z], other[N * Z];
    for (int i = 0; i < N * D; i++) {
        const int bit = bytes[i] >> 4 & 1;
        values[i] = (float)bit;
        bits[i / 8] |= (unsigned char)(bit << i % 8);
    }
    vae *v = fitted();
    assert_int_equal(vae_fit(v, bits, VAE_PACKED_BITS, N, SIDE, SIDE, 1, small), 0);
    assert_int_equal(vae_encode(v, bits, VAE_PACKED_BITS, N, mu, NULL, NULL), 0);
    assert_int_equal(vae_fit(v, values, VAE_FLOATS, N, SIDE, SIDE, 1, small), 0);
    assert_int_equal(vae_encode(v, values, VAE_FLOATS, N, other, NULL, NULL), 0);
    assert_memory_equal(mu, other, sizeof mu);
    assert_says(v,
                vae_fit(v, bits, VAE_PACKED_BITS, N, SIDE, SIDE, 1, "{\"binarize\": \"static\"}"),
                VAE_RESULT_USAGE, "--binarize has no effect");
    vae_free(v);
}

static void test_files(void **state)
{
    static const char *const names[] = {"m.vae", "m.safetensors", "m.npz"};
    scratch *s = *state;
    static float before[N], after[N];
    vae *v = fitted();
    assert_int_equal(vae_score(v, bytes, VAE_BYTES, N, before, NULL, NULL), 0);
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) {
        vae *other = vae_new();
        assert_int_equal(vae_save(v, scratch_path(s, names[i])), 0);
        assert_int_equal(vae_load(other, s->path), 0);
        assert_int_equal(vae_score(other, bytes, VAE_BYTES, N, after, NULL, NULL), 0);
        assert_memory_equal(before, after, sizeof after);
        vae_free(other);
    }
    assert_says(v, vae_load(v, "/no/such/file"), VAE_RESULT_IO, "/no/such/file: cannot open");
    assert_says(v, vae_load(v, scratch_write(s, "bad", "0123456789abcdef", 16)), VAE_RESULT_DATA,
                "bad");
    /* a failed load leaves what was there */
    assert_int_equal(vae_score(v, bytes, VAE_BYTES, N, after, NULL, NULL), 0);
    assert_memory_equal(before, after, sizeof after);
    assert_says(v, vae_save(v, "/no/such/folder/m.npz"), VAE_RESULT_IO, "/no/such/folder");
    vae_free(v);
}

static void test_refusals(void **state)
{
    (void)state;
    static float out[N * D];
    vae *v = vae_new();
    struct vae_shape shape;
    assert_string_equal(vae_message(v), "");
    assert_says(v, vae_encode(v, bytes, VAE_BYTES, N, out, NULL, NULL), VAE_RESULT_USAGE,
                "no model");
    assert_says(v, vae_get_shape(v, &shape), VAE_RESULT_USAGE, "no model");
    assert_says(v, vae_sample(v, 1, out, NULL), VAE_RESULT_USAGE, "no model");
    assert_says(v, vae_save(v, "x.npz"), VAE_RESULT_USAGE, "no model");
    assert_says(v, vae_set_option(v, "lr", "1"), VAE_RESULT_USAGE,
                "expected device, threads or seed");
    assert_says(v, vae_set_option(v, "threads", "many"), VAE_RESULT_USAGE, "--threads: expected");
    assert_says(v, vae_fit(v, bytes, VAE_BYTES, N, SIDE, SIDE, 1, "{\"latnet\": 3}"),
                VAE_RESULT_USAGE, "latent");
    assert_says(v, vae_fit(v, bytes, VAE_BYTES, 0, SIDE, SIDE, 1, NULL), VAE_RESULT_USAGE,
                "0 rows");
    assert_says(v, vae_fit(v, bytes, (enum vae_type)5, N, SIDE, SIDE, 1, NULL), VAE_RESULT_USAGE,
                "type");
    assert_says(v, vae_fit(v, bytes, VAE_BYTES, SIZE_MAX / 2, SIDE, SIDE, 1, NULL),
                VAE_RESULT_USAGE, "rows of");
    vae_free(v);
    vae_free(NULL);
    v = fitted();
    floats[D + 3] = 1.5f;
    assert_says(v, vae_encode(v, floats, VAE_FLOATS, N, out, NULL, NULL), VAE_RESULT_DATA,
                "row 1, column 3: value 1.5 is outside [0,1]");
    floats[D + 3] = NAN;
    assert_says(v, vae_score(v, floats, VAE_FLOATS, N, out, NULL, NULL), VAE_RESULT_DATA, "row 1");
    fill_rows();
    vae_free(v);
}

typedef struct {
    vae *v;
    unsigned long epochs;
} watched;

static void stop_after_two(void *context, unsigned long epoch, unsigned long epochs, double elbo,
                           double recon, double kl)
{
    watched *w = context;
    assert_true(epochs == 1000 && isfinite(elbo) && fabs(elbo + recon + kl) < 1e-6);
    w->epochs = epoch;
    if (epoch == 2) {
        vae_stop(w->v);
    }
}

static size_t count_leftovers(const char *folder)
{
    size_t n = 0;
    DIR *dir = opendir(folder);
    assert_non_null(dir);
    for (struct dirent *entry; (entry = readdir(dir)) != NULL;) {
        n += strncmp(entry->d_name, "libvae-", 7) == 0;
    }
    closedir(dir);
    return n;
}

static void test_training(void **state)
{
    scratch *s = *state;
    char options[1024];
    setenv("TMPDIR", s->folder, 1);
    watched w = {.v = fitted()};
    vae_on_epoch(w.v, stop_after_two, &w);
    assert_says(w.v,
                vae_fit(w.v, bytes, VAE_BYTES, N, SIDE, SIDE, 1,
                        "{\"hidden\": [8], \"latent\": 3, \"epochs\": 1000}"),
                VAE_RESULT_INTERRUPTED, "interrupted");
    assert_int_equal(w.epochs, 2);
    struct vae_shape shape;
    assert_int_equal(vae_get_shape(w.v, &shape), 0);
    assert_int_equal(shape.latent, Z); /* the model before it stays */
    vae_on_epoch(w.v, NULL, NULL);
    assert_int_equal(count_leftovers(s->folder), 0);
    /* a run folder that is asked for is kept, and can be loaded */
    snprintf(options, sizeof options,
             "{\"hidden\": [8], \"latent\": 3, \"epochs\": 1, \"out\": \"%s\"}",
             scratch_path(s, "run"));
    assert_int_equal(vae_fit(w.v, bytes, VAE_BYTES, N, 1, D, 1, options), 0);
    assert_int_equal(vae_load(w.v, scratch_path(s, "run")), 0);
    assert_int_equal(vae_get_shape(w.v, &shape), 0);
    assert_true(shape.latent == 3 && shape.height == 1 && shape.width == D);
    unsetenv("TMPDIR");
    vae_free(w.v);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_use),      cmocka_unit_test(test_bits),
        cmocka_unit_test(test_files),    cmocka_unit_test(test_refusals),
        cmocka_unit_test(test_training),
    };
    fill_rows();
    return cmocka_run_group_tests(tests, scratch_setup, scratch_teardown);
}
