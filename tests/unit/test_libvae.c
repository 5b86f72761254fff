/* The library through its public header alone. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <math.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "dataset_fixture.h"
#include "vae.h"

enum { N = 70, SIDE = 4, D = SIDE * SIDE, Z = 2 };

static unsigned char bytes[N * D];
static float floats[N * D];

static void fill_rows(void)
{
    for (int i = 0; i < N * D; i++) {
        bytes[i] = (unsigned char)(i * 37 % 256);
        floats[i] = (float)bytes[i] / 255.0f;
    }
}

static void set(vae *v, const char *name, const char *value)
{
    if (vae_set_option(v, name, value) != 0) {
        fail_msg("%s", vae_message(v));
    }
}

/* A handle whose options make a small model. */
static vae *small(void)
{
    vae *v = vae_new();
    assert_non_null(v);
    set(v, "device", "cpu");
    set(v, "threads", "1");
    set(v, "hidden", "8");
    set(v, "latent", "2");
    set(v, "epochs", "2");
    return v;
}

static int fit(vae *v)
{
    return vae_fit(v, bytes, VAE_BYTES, N, SIDE, SIDE, 1);
}

static vae *fitted(void)
{
    vae *v = small();
    if (fit(v) != 0) {
        fail_msg("%s", vae_message(v));
    }
    return v;
}

static size_t latent_of(vae *v)
{
    struct vae_shape shape;
    assert_int_equal(vae_get_shape(v, &shape, sizeof shape), 0);
    return shape.latent;
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
    assert_int_equal(vae_get_shape(v, &shape, sizeof shape), 0);
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
    assert_int_equal(vae_fit(v, bits, VAE_PACKED_BITS, N, SIDE, SIDE, 1), 0);
    assert_int_equal(vae_encode(v, bits, VAE_PACKED_BITS, N, mu, NULL, NULL), 0);
    assert_int_equal(vae_fit(v, values, VAE_FLOATS, N, SIDE, SIDE, 1), 0);
    assert_int_equal(vae_encode(v, values, VAE_FLOATS, N, other, NULL, NULL), 0);
    assert_memory_equal(mu, other, sizeof mu);
    set(v, "binarize", "static");
    assert_says(v, vae_fit(v, bits, VAE_PACKED_BITS, N, SIDE, SIDE, 1), VAE_RESULT_USAGE,
                "--binarize has no effect");
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
        set(other, "device", "cpu");
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
    assert_says(v, vae_get_shape(v, &shape, sizeof shape), VAE_RESULT_USAGE, "no model");
    assert_says(v, vae_sample(v, 1, out, NULL), VAE_RESULT_USAGE, "no model");
    assert_says(v, vae_save(v, "x.npz"), VAE_RESULT_USAGE, "no model");
    assert_says(v, vae_set_option(v, "latnet", "3"), VAE_RESULT_USAGE, "latent");
    assert_says(v, vae_set_option(v, "limit", "3"), VAE_RESULT_USAGE, "'limit' is the program's");
    assert_says(v, vae_set_option(v, "cache", "x"), VAE_RESULT_USAGE, "'cache' is the program's");
    assert_says(v, vae_set_option(v, "exif", "ignore"), VAE_RESULT_USAGE, "'exif' is the program");
    assert_says(v, vae_set_option(v, "skip-bad", "1"), VAE_RESULT_USAGE, "'skip-bad' is the pro");
    assert_says(v, vae_set_option(v, "drop-columns", "a"), VAE_RESULT_USAGE, "'drop-columns' is");
    assert_says(v, vae_set_option(v, "threads", "many"), VAE_RESULT_USAGE, "--threads: expected");
    set(v, "lr-gamma", "0.5"); /* without a schedule that uses it: vae_fit says so */
    assert_says(v, fit(v), VAE_RESULT_USAGE, "--lr-gamma");
    vae_free(v);
    v = vae_new();
    assert_says(v, vae_fit(v, bytes, VAE_BYTES, 0, SIDE, SIDE, 1), VAE_RESULT_USAGE, "0 rows");
    assert_says(v, vae_fit(v, bytes, (enum vae_type)5, N, SIDE, SIDE, 1), VAE_RESULT_USAGE, "type");
    assert_says(v, vae_fit(v, bytes, VAE_BYTES, SIZE_MAX / 2, SIDE, SIDE, 1), VAE_RESULT_USAGE,
                "rows of");
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

/* ---- models with classes ---- */

/* Rows of two kinds, dark and light, called by these names in turn. */
static void two_kinds(const char *label[N], const char *dark, const char *light)
{
    for (int i = 0; i < N; i++) {
        label[i] = i % 2 == 0 ? dark : light;
        for (int j = 0; j < D; j++) {
            bytes[i * D + j] = (unsigned char)((i % 2 == 0 ? 20 : 200) + (i + j) % 40);
        }
    }
}

static void test_conditional(void **state)
{
    scratch *s = *state;
    static float mu[N * Z], other[N * Z], x_hat[N * D], again[N * D], score[N];
    const char *label[N], *swapped[N], *odd[N];
    struct vae_shape shape;
    vae *v = small();
    two_kinds(label, "night", "day");
    two_kinds(swapped, "day", "night");
    two_kinds(odd, "day", "dusk");
    set(v, "condition", "labels");
    set(v, "epochs", "40");
    set(v, "lr", "0.01");
    assert_says(v, fit(v), VAE_RESULT_DATA, "no labels");
    assert_int_equal(vae_set_labels(v, label, N - 1), 0);
    assert_says(v, fit(v), VAE_RESULT_USAGE, "70 rows and 69 labels");
    assert_int_equal(vae_set_labels(v, label, N), 0);
    assert_int_equal(fit(v), 0);
    assert_int_equal(vae_get_shape(v, &shape, sizeof shape), 0);
    assert_true(shape.classes == 2 && shape.conditional && !shape.classifies);
    assert_string_equal(vae_class(v, 0), "day"); /* by its bytes, not as it came */
    assert_string_equal(vae_class(v, 1), "night");
    assert_null(vae_class(v, 2));

    /* z = 0 is decoded as the class says */
    memset(mu, 0, sizeof mu);
    assert_int_equal(vae_decode(v, mu, N, x_hat), 0);
    assert_true(x_hat[0] < 0.4f && x_hat[D] > 0.6f);
    assert_int_equal(vae_set_labels(v, swapped, N), 0);
    assert_int_equal(vae_decode(v, mu, N, again), 0);
    assert_memory_equal(x_hat, again + D, D * sizeof *again);
    assert_int_equal(vae_sample(v, N, again, NULL), 0);
    assert_true(again[0] > 0.6f && again[D] < 0.4f);

    /* rows go with their classes, by name */
    assert_int_equal(vae_encode(v, bytes, VAE_BYTES, N, other, NULL, NULL), 0);
    assert_int_equal(vae_set_labels(v, label, N), 0);
    assert_int_equal(vae_encode(v, bytes, VAE_BYTES, N, mu, NULL, NULL), 0);
    assert_memory_not_equal(mu, other, sizeof mu);
    assert_int_equal(vae_score(v, bytes, VAE_BYTES, N, score, NULL, NULL), 0);
    assert_int_equal(vae_reconstruct(v, bytes, VAE_BYTES, N, x_hat), 0);
    assert_int_equal(vae_decode(v, mu, N, again), 0);
    assert_memory_equal(x_hat, again, sizeof again);

    /* and are kept with the model */
    const char *file = scratch_path(s, "kinds.vae");
    vae *w = vae_new();
    assert_int_equal(vae_save(v, file), 0);
    assert_int_equal(vae_load(w, file), 0);
    assert_string_equal(vae_class(w, 1), "night");
    assert_says(w, vae_decode(w, mu, N, again), VAE_RESULT_USAGE, "70 rows and 0 labels");
    assert_int_equal(vae_set_labels(w, label, N), 0);
    assert_int_equal(vae_decode(w, mu, N, again), 0);
    assert_memory_equal(x_hat, again, sizeof again);
    assert_int_equal(vae_set_labels(w, odd, N), 0);
    assert_says(w, vae_decode(w, mu, N, again), VAE_RESULT_DATA, "row 1: class 'dusk' is none");
    assert_says(w, vae_encode(w, bytes, VAE_BYTES, N, mu, NULL, NULL), VAE_RESULT_DATA, "dusk");
    odd[3] = NULL;
    odd[1] = "day";
    assert_int_equal(vae_set_labels(w, odd, 4), 0);
    assert_says(w, vae_decode(w, mu, 4, again), VAE_RESULT_DATA, "row 3: no label");
    assert_says(w, vae_classify(w, bytes, VAE_BYTES, N, again), VAE_RESULT_USAGE, "no classifier");
    odd[2] = "1.5";
    assert_says(w, vae_set_labels(w, odd, 4), VAE_RESULT_DATA, "row 2: '1.5'");
    assert_says(w, vae_decode(w, mu, 4, again), VAE_RESULT_USAGE, "4 rows and 0 labels");
    vae_free(w);
    vae_free(v);
    fill_rows();
}

static void test_semi_supervised(void **state)
{
    (void)state;
    static float mu[N * Z], x_hat[N * D], again[N * D], p[N * 2];
    const char *label[N], *known[N];
    struct vae_shape shape;
    vae *v = small();
    two_kinds(label, "7", "12");
    two_kinds(known, "7", "12");
    for (int i = 20; i < N; i++) {
        known[i] = NULL;
    }
    set(v, "semi-supervised", "true");
    set(v, "labelled", "20");
    set(v, "epochs", "40");
    set(v, "lr", "0.01");
    assert_int_equal(vae_set_labels(v, known, N), 0);
    if (fit(v) != 0) {
        fail_msg("%s", vae_message(v));
    }
    assert_int_equal(vae_get_shape(v, &shape, sizeof shape), 0);
    assert_true(shape.classes == 2 && !shape.conditional && shape.classifies);
    assert_string_equal(vae_class(v, 0), "7"); /* by its value */
    assert_int_equal(vae_set_labels(v, NULL, 0), 0);
    assert_int_equal(vae_classify(v, bytes, VAE_BYTES, N, p), 0);
    for (int i = 0; i < N; i++) {
        assert_true(p[2 * i + i % 2] > 0.9f);
        assert_float_equal(p[2 * i] + p[2 * i + 1], 1, 1e-5);
    }
    /* it goes by its own class in encoding, by the labels' in decoding */
    assert_int_equal(vae_encode(v, bytes, VAE_BYTES, N, mu, NULL, NULL), 0);
    assert_int_equal(vae_reconstruct(v, bytes, VAE_BYTES, N, x_hat), 0);
    assert_int_equal(vae_set_labels(v, label, N), 0);
    assert_int_equal(vae_decode(v, mu, N, again), 0);
    assert_memory_equal(x_hat, again, sizeof again);
    assert_says(v, vae_score(v, bytes, VAE_BYTES, N, mu, NULL, NULL), VAE_RESULT_USAGE,
                "semi-supervised");
    vae_free(v);
    fill_rows();
}

/* ---- training ---- */

static int stop_after(void *context, const struct vae_epoch *e)
{
    const unsigned long *most = context;
    assert_true(e->of == 1000 && isfinite(e->elbo) && fabs(e->elbo + e->recon + e->kl) < 1e-6);
    assert_true(e->number <= *most);
    return e->number == *most;
}

/* What is maximized: under iwae a bound of its own, which three particles make tighter. */
static int tighter(void *context, const struct vae_epoch *e)
{
    *(double *)context = e->bound;
    assert_true(isfinite(e->bound) && e->bound > e->elbo);
    return 0;
}

static int the_same(void *context, const struct vae_epoch *e)
{
    (void)context;
    assert_true(e->bound == e->elbo);
    return 0;
}

static void test_bound(void **state)
{
    (void)state;
    double bound = 0;
    vae *v = small();
    vae_on_epoch(v, the_same, NULL);
    assert_int_equal(fit(v), 0);
    set(v, "objective", "iwae");
    set(v, "particles", "3");
    vae_on_epoch(v, tighter, &bound);
    assert_int_equal(fit(v), 0);
    assert_true(bound < 0);
    vae_free(v);
}

/* Told to stop, the handle has the model of that moment: the same as that of a shorter training. */
static void test_stop(void **state)
{
    (void)state;
    static float stopped[N], whole[N];
    unsigned long most = 2;
    vae *v = fitted(), *other = fitted();
    set(v, "latent", "3");
    set(v, "epochs", "1000");
    vae_on_epoch(v, stop_after, &most);
    assert_says(v, fit(v), VAE_RESULT_INTERRUPTED, "interrupted in epoch 3");
    assert_int_equal(latent_of(v), 3);
    set(other, "latent", "3");
    assert_int_equal(fit(other), 0);
    assert_int_equal(vae_score(v, bytes, VAE_BYTES, N, stopped, NULL, NULL), 0);
    assert_int_equal(vae_score(other, bytes, VAE_BYTES, N, whole, NULL, NULL), 0);
    assert_memory_equal(stopped, whole, sizeof whole);
    /* anything else that fails leaves the model before it */
    set(v, "latent", "4");
    set(v, "lr", "1e30");
    vae_on_epoch(v, NULL, NULL);
    assert_says(v, fit(v), VAE_RESULT_DIVERGED, "in step 2 of epoch 2");
    assert_int_equal(latent_of(v), 3);
    vae_free(v);
    vae_free(other);
}

static void *stop_soon(void *handle)
{
    usleep(100000);
    vae_stop(handle);
    return NULL;
}

static void test_stop_from_a_thread(void **state)
{
    (void)state;
    pthread_t thread;
    vae *v = small();
    set(v, "epochs", "1000000");
    assert_int_equal(pthread_create(&thread, NULL, stop_soon, v), 0);
    assert_says(v, fit(v), VAE_RESULT_INTERRUPTED, "interrupted");
    pthread_join(thread, NULL);
    assert_int_equal(latent_of(v), Z);
    vae_free(v);
}

/* Where no file can be written or made: neither in the working folder nor in the temporary one. */
/* Trains a handle whose loops are worth several threads; its latents, or NULL if anything failed. */
static float *latents_of(vae *v)
{
    float *mu = calloc(N * Z, sizeof *mu);
    set(v, "threads", "3");
    set(v, "hidden", "400");
    if (mu == NULL || fit(v) != 0 || vae_encode(v, floats, VAE_FLOATS, N, mu, NULL, NULL) != 0) {
        free(mu);
        mu = NULL;
    }
    return mu;
}

static void *fit_beside(void *handle)
{
    return latents_of(handle);
}

static void test_handles_side_by_side(void **state)
{
    (void)state;
    vae *v[3] = {small(), small(), small()};
    pthread_t thread[2];
    float *mu[3];
    mu[2] = latents_of(v[2]);
    assert_non_null(mu[2]);
    for (int i = 0; i < 2; i++) {
        assert_int_equal(pthread_create(&thread[i], NULL, fit_beside, v[i]), 0);
    }
    for (int i = 0; i < 2; i++) {
        void *result = NULL;
        pthread_join(thread[i], &result);
        mu[i] = result;
        assert_non_null(mu[i]);
        assert_memory_equal(mu[i], mu[2], N * Z * sizeof(float));
    }
    for (int i = 0; i < 3; i++) {
        free(mu[i]);
        vae_free(v[i]);
    }
}

/* The child has none of the threads that its parent's handles computed on. */
static void test_a_child_computes(void **state)
{
    (void)state;
    vae *v = small();
    float *mu = latents_of(v);
    assert_non_null(mu);
    const pid_t child = fork();
    if (child == 0) {
        alarm(60);
        float *again = latents_of(v);
        _exit(again == NULL || memcmp(again, mu, N * Z * sizeof *mu) != 0);
    }
    assert_true(child > 0);
    int status = 0;
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_true(WIFEXITED(status) && WEXITSTATUS(status) == 0);
    free(mu);
    vae_free(v);
}

static void test_fit_writes_nothing(void **state)
{
    scratch *s = *state;
    struct rlimit old;
    char here[512];
    const char *empty = scratch_write(s, "empty/x", "", 0);
    assert_int_equal(getrlimit(RLIMIT_FSIZE, &old), 0);
    assert_int_equal(unlink(empty), 0);
    assert_non_null(getcwd(here, sizeof here));
    assert_int_equal(chdir(scratch_path(s, "empty")), 0);
    setenv("TMPDIR", scratch_path(s, "empty"), 1);
    const struct rlimit none = {0, old.rlim_max};
    signal(SIGXFSZ, SIG_IGN);
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &none), 0);
    vae *v = small();
    set(v, "validation", "0.2");
    const int result = fit(v);
    setrlimit(RLIMIT_FSIZE, &old);
    unsetenv("TMPDIR");
    assert_int_equal(chdir(here), 0);
    assert_int_equal(result, 0);
    assert_int_equal(rmdir(scratch_path(s, "empty")), 0); /* nothing was made there either */
    vae_free(v);
}

typedef struct {
    char text[4096];
} log_lines;

static void take_line(void *context, const char *line)
{
    log_lines *log = context;
    const size_t used = strlen(log->text);
    snprintf(log->text + used, sizeof log->text - used, "%s\n", line);
}

/* A run folder that is asked for is kept, and can be loaded. */
static void test_run_folder(void **state)
{
    scratch *s = *state;
    static float fitted_score[N], loaded_score[N];
    struct vae_shape shape;
    log_lines log = {""};
    vae *v = small();
    vae_on_log(v, take_line, &log);
    set(v, "epochs", "1");
    set(v, "out", scratch_path(s, "run"));
    assert_int_equal(vae_fit(v, bytes, VAE_BYTES, N, 1, D, 1), 0);
    assert_non_null(strstr(log.text, "70 rows to train on"));
    assert_int_equal(vae_score(v, bytes, VAE_BYTES, N, fitted_score, NULL, NULL), 0);
    assert_says(v, vae_fit(v, bytes, VAE_BYTES, N, 1, D, 1), VAE_RESULT_USAGE, "not empty");
    assert_int_equal(vae_load(v, scratch_path(s, "run")), 0);
    assert_int_equal(vae_score(v, bytes, VAE_BYTES, N, loaded_score, NULL, NULL), 0);
    assert_memory_equal(fitted_score, loaded_score, sizeof loaded_score);
    assert_int_equal(vae_get_shape(v, &shape, sizeof shape), 0);
    assert_true(shape.latent == Z && shape.height == 1 && shape.width == D);
    vae_free(v);
}

/* What says how a run folder is written is refused where none is. */
static void test_options_of_a_folder(void **state)
{
    scratch *s = *state;
    static const char *const options[][2] = {
        {"save-every", "2"}, {"keep", "3"}, {"sample-every", "0"}, {"report", "false"}};
    for (size_t i = 0; i < sizeof options / sizeof options[0]; i++) {
        char says[64];
        vae *v = small();
        set(v, options[i][0], options[i][1]);
        snprintf(says, sizeof says, "option '%s' has no effect here", options[i][0]);
        assert_says(v, fit(v), VAE_RESULT_USAGE, says);
        set(v, "out", scratch_path(s, options[i][0]));
        assert_int_equal(fit(v), 0);
        vae_free(v);
    }
}

/* Training is done, but a picture has no place: an error, and the handle has the model. */
static void test_a_folder_that_lacks_something(void **state)
{
    scratch *s = *state;
    static float lossy[N], whole[N];
    log_lines log = {""};
    vae *v = small(), *other = fitted();
    vae_on_log(v, take_line, &log);
    set(v, "out", scratch_path(s, "lossy"));
    set(v, "sample-every", "0");
    set(v, "seed", "1");
    struct rlimit old;
    assert_int_equal(getrlimit(RLIMIT_FSIZE, &old), 0);
    const struct rlimit less = {40000, old.rlim_max}; /* checkpoints fit, a report does not */
    signal(SIGXFSZ, SIG_IGN);
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &less), 0);
    const int result = fit(v);
    setrlimit(RLIMIT_FSIZE, &old);
    assert_says(v, result, VAE_RESULT_IO, "the training itself is done");
    assert_non_null(strstr(log.text, "warning: "));
    assert_int_equal(vae_score(v, bytes, VAE_BYTES, N, lossy, NULL, NULL), 0);
    assert_int_equal(vae_score(other, bytes, VAE_BYTES, N, whole, NULL, NULL), 0);
    assert_memory_equal(lossy, whole, sizeof whole);
    vae_free(v);
    vae_free(other);
}

/* Stopped with a run folder: interrupted as without one, and the handle has that moment's model. */
static void test_stop_with_a_folder(void **state)
{
    scratch *s = *state;
    static float stopped[N], whole[N];
    unsigned long most = 2;
    vae *v = small(), *other = fitted();
    set(v, "epochs", "1000");
    set(v, "report", "false");
    set(v, "out", scratch_path(s, "stopped"));
    vae_on_epoch(v, stop_after, &most);
    assert_says(v, fit(v), VAE_RESULT_INTERRUPTED, "interrupted in epoch 3");
    assert_int_equal(vae_score(v, bytes, VAE_BYTES, N, stopped, NULL, NULL), 0);
    assert_int_equal(vae_score(other, bytes, VAE_BYTES, N, whole, NULL, NULL), 0);
    assert_memory_equal(stopped, whole, sizeof whole);
    vae_free(v);
    vae_free(other);
}

/* What is damaged is told, and nothing is printed. */
static void test_log(void **state)
{
    scratch *s = *state;
    struct stat info;
    log_lines log = {""};
    vae *v = small();
    set(v, "epochs", "1");
    set(v, "out", scratch_path(s, "worn"));
    assert_int_equal(fit(v), 0);
    scratch_write(s, "worn/checkpoints/step-0000009999.vae", "torn", 4);
    vae_on_log(v, take_line, &log);
    const char *printed = scratch_write(s, "printed", "", 0);
    const int out = dup(1), err = dup(2);
    fflush(NULL);
    assert_true(freopen(printed, "a", stdout) != NULL && dup2(1, 2) == 2);
    const int result = vae_load(v, scratch_path(s, "worn"));
    fflush(NULL);
    assert_true(dup2(out, 1) == 1 && dup2(err, 2) == 2);
    close(out);
    close(err);
    assert_int_equal(result, 0);
    assert_true(stat(scratch_path(s, "printed"), &info) == 0 && info.st_size == 0);
    assert_non_null(strstr(log.text, "step-0000009999.vae: not a checkpoint"));
    assert_non_null(strstr(log.text, "taking the checkpoint before it"));
    vae_free(v);
}

static void test_words(void **state)
{
    (void)state;
    unsigned long major, minor, patch;
    assert_int_equal(sscanf(vae_version(), "%lu.%lu.%lu", &major, &minor, &patch), 3);
    assert_int_equal(vae_version_number(), 10000 * major + 100 * minor + patch);
    for (int i = VAE_RESULT_OK; i <= VAE_RESULT_INTERRUPTED; i++) {
        assert_true(strlen(vae_result_text(i)) > 5);
        assert_string_not_equal(vae_result_text(i), vae_result_text(99));
    }
    assert_string_equal(vae_result_text(99), "unknown result");
}

/* A program that was compiled when the struct was shorter, or will be when it is longer. */
static void test_structs_grow(void **state)
{
    (void)state;
    struct {
        struct vae_shape known;
        size_t later;
    } longer = {.later = 7};
    struct vae_shape shorter = {.latent = 7};
    vae *v = fitted();
    assert_int_equal(vae_get_shape(v, &longer.known, sizeof longer), 0);
    assert_true(longer.known.latent == Z && longer.later == 0);
    assert_int_equal(vae_get_shape(v, &shorter, offsetof(struct vae_shape, latent)), 0);
    assert_true(shorter.rows_of == D && shorter.latent == 7);
    vae_free(v);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_use),
        cmocka_unit_test(test_bits),
        cmocka_unit_test(test_files),
        cmocka_unit_test(test_refusals),
        cmocka_unit_test(test_conditional),
        cmocka_unit_test(test_semi_supervised),
        cmocka_unit_test(test_bound),
        cmocka_unit_test(test_stop),
        cmocka_unit_test(test_stop_from_a_thread),
        cmocka_unit_test(test_handles_side_by_side),
        cmocka_unit_test(test_a_child_computes),
        cmocka_unit_test(test_fit_writes_nothing),
        cmocka_unit_test(test_run_folder),
        cmocka_unit_test(test_stop_with_a_folder),
        cmocka_unit_test(test_options_of_a_folder),
        cmocka_unit_test(test_a_folder_that_lacks_something),
        cmocka_unit_test(test_log),
        cmocka_unit_test(test_words),
        cmocka_unit_test(test_structs_grow),
    };
    fill_rows();
    return cmocka_run_group_tests(tests, scratch_setup, scratch_teardown);
}
