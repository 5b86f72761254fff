/* A device for tests: opened once, its memory watched by guards, results against double references. */
#include "device.h"

#include <setjmp.h>
#include <stdarg.h>

#include <cmocka.h>

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "model/layout.h"

enum { GUARD = 256, GUARD_BYTE = 0xA5 };

static const char *from_environment(const char *name, const char *otherwise)
{
    const char *value = getenv(name);
    return value != NULL && value[0] != '\0' ? value : otherwise;
}

bool device_is_cuda(void)
{
    const char *name = from_environment("VAE_TEST_DEVICE", "cpu");
    assert_true(strcmp(name, "cpu") == 0 || strcmp(name, "cuda") == 0);
    return strcmp(name, "cuda") == 0;
}

vae_precision device_precision(void)
{
    const char *name = from_environment("VAE_TEST_PRECISION", "fp32");
    if (strcmp(name, "tf32") == 0) {
        return VAE_TF32;
    }
    if (strcmp(name, "bf16") == 0) {
        return VAE_BF16;
    }
    assert_string_equal(name, "fp32");
    return VAE_FP32;
}

/* A CUDA device that a test was done with: opening one costs more than most tests (emulated: 64 MiB
 * are taken and filled). The next test has it, as a process that trains model after model would. */
static vae_backend *kept;

vae_backend *device_open_backend(size_t threads)
{
    vae_backend_options options = {.precision = device_precision(), .threads = threads};
    vae_backend *be = NULL;
    vae_error err = {0};
    if (kept != NULL) {
        be = kept;
        kept = NULL;
        return be;
    }
    options.device = device_is_cuda() ? VAE_DEVICE_CUDA : VAE_DEVICE_CPU;
    vae_status status = device_is_cuda() ? vae_backend_cuda_open(&be, &options, &err)
                                         : vae_backend_cpu_open(&be, &options, &err);
    if (status != VAE_OK) {
        fail_msg("the backend does not open: %s", err.text);
    }
    return be;
}

void device_close_backend(vae_backend *be)
{
    if (kept != NULL || !device_is_cuda() || be->ops->sync(be, NULL) != VAE_OK) {
        be->ops->close(be);
        return;
    }
    for (int slot = 0; slot < VAE_SLOTS; slot++) {
        be->ops->forget(be, slot);
    }
    kept = be;
}

void device_keep_none(void)
{
    if (kept != NULL) {
        kept->ops->close(kept);
        kept = NULL;
    }
}

void device_begin(device *d, size_t threads)
{
    *d = (device){.be = device_open_backend(threads), .precision = device_precision(), .hash = 1};
}

static void hash_bytes(device *d, const void *bytes, size_t n)
{
    for (size_t i = 0; i < n; i++) { /* FNV-1a */
        d->hash = (d->hash ^ ((const uint8_t *)bytes)[i]) * 0x100000001B3u;
    }
}

static void *host_bytes(device *d, size_t bytes)
{
    assert_true(d->n_host < sizeof d->host / sizeof d->host[0]);
    void *memory = calloc(bytes + 1, 1);
    assert_non_null(memory);
    d->host[d->n_host++] = memory;
    return memory;
}

float *device_host(device *d, size_t n)
{
    return host_bytes(d, n * sizeof(float));
}

double *device_host_doubles(device *d, size_t n)
{
    return host_bytes(d, n * sizeof(double));
}

static void assert_synced(device *d)
{
    vae_error err = {0};
    if (d->be->ops->sync(d->be, &err) != VAE_OK) {
        fail_msg("the backend says: %s", err.text);
    }
}

/* ---- memory with guards ---- */

static device_block *take(device *d, size_t rows, size_t cols, size_t ld, size_t size)
{
    uint8_t guard[GUARD];
    size_t bytes = rows * ld * size;
    assert_true(d->n_blocks < DEVICE_BLOCKS);
    device_block *b = &d->blocks[d->n_blocks++];
    *b = (device_block){
        d->be->ops->alloc(d->be, bytes + GUARD, "a test"), rows, cols, ld, size, NULL};
    assert_non_null(b->dev);
    assert_int_equal((uintptr_t)b->dev % 256, 0);
    memset(guard, GUARD_BYTE, sizeof guard);
    d->be->ops->upload(d->be, (uint8_t *)b->dev + bytes, guard, GUARD);
    return b;
}

static void remember(device *d, device_block *b)
{
    b->before = host_bytes(d, b->rows * b->ld * b->size);
    d->be->ops->download(d->be, b->before, b->dev, b->rows * b->ld * b->size);
}

static device_block *take_mat(device *d, size_t rows, size_t cols)
{
    return take(d, rows, cols, vae_pad(cols), d->be->ops->act_size(d->be));
}

static vae_mat view(const device_block *b)
{
    return (vae_mat){b->dev, b->ld};
}

vae_mat device_inout(device *d, float *values, size_t rows, size_t cols)
{
    device_block *b = take_mat(d, rows, cols);
    d->be->ops->upload_mat(d->be, view(b), values, rows, cols);
    d->be->ops->download_mat(d->be, values, view(b), rows, cols);
    return view(b);
}

vae_mat device_input(device *d, float *values, size_t rows, size_t cols)
{
    vae_mat m = device_inout(d, values, rows, cols);
    remember(d, &d->blocks[d->n_blocks - 1]);
    return m;
}

vae_mat device_output(device *d, size_t rows, size_t cols)
{
    float *nan = device_host(d, rows * cols);
    for (size_t i = 0; i < rows * cols; i++) {
        nan[i] = NAN;
    }
    device_block *b = take_mat(d, rows, cols);
    d->be->ops->upload_mat(d->be, view(b), nan, rows, cols);
    return view(b);
}

void device_round_weights(device *d, float *values, size_t n)
{
    (void)device_input(d, values, 1, n);
}

static float *upload_floats(device *d, const float *values, size_t rows, size_t cols, size_t ld)
{
    device_block *b = take(d, rows, cols, ld, sizeof(float));
    for (size_t r = 0; r < rows; r++) {
        d->be->ops->upload(d->be, (float *)b->dev + r * ld, values + r * cols,
                           cols * sizeof(float));
    }
    return b->dev;
}

static float *nan_floats(device *d, size_t rows, size_t cols, size_t ld)
{
    enum { SOME = 4096 }; /* an operation's scratch may be of megabytes */
    float nan[SOME];
    for (size_t i = 0; i < SOME; i++) {
        nan[i] = NAN;
    }
    device_block *b = take(d, rows, cols, ld, sizeof(float));
    for (size_t r = 0; r < rows; r++) {
        for (size_t i = 0; i < cols; i += SOME) {
            const size_t n = cols - i < SOME ? cols - i : SOME;
            d->be->ops->upload(d->be, (float *)b->dev + r * ld + i, nan, n * sizeof *nan);
        }
    }
    return b->dev;
}

float *device_tensor_output(device *d, size_t rows, size_t cols)
{
    return nan_floats(d, rows, cols, vae_pad(cols));
}

float *device_array_output(device *d, size_t n)
{
    return nan_floats(d, 1, n, n);
}

float *device_array_inout(device *d, const float *values, size_t n)
{
    return upload_floats(d, values, 1, n, n);
}

float *device_array_input(device *d, const float *values, size_t n)
{
    float *dev = device_array_inout(d, values, n);
    remember(d, &d->blocks[d->n_blocks - 1]);
    return dev;
}

float *device_layer(device *d, const float *w, const float *b, size_t out, size_t in,
                    const float **b_dev)
{
    const size_t ld = vae_pad(in), n = out * ld + vae_pad(out);
    float *flat = device_host(d, n);
    for (size_t r = 0; r < out; r++) {
        memcpy(flat + r * ld, w + r * in, in * sizeof *w);
    }
    memcpy(flat + out * ld, b, out * sizeof *b);
    float *dev = device_array_input(d, flat, n);
    d->be->ops->bind_params(d->be, dev, n);
    *b_dev = dev + out * ld;
    return dev;
}

vae_totals *device_totals(device *d, const vae_totals *values)
{
    device_block *b = take(d, 1, sizeof *values, sizeof *values, 1);
    d->be->ops->upload(d->be, b->dev, values, sizeof *values);
    return b->dev;
}

float *device_get_mat(device *d, vae_mat m, size_t rows, size_t cols)
{
    float *values = device_host(d, rows * cols);
    d->be->ops->download_mat(d->be, values, m, rows, cols);
    hash_bytes(d, values, rows * cols * sizeof *values);
    return values;
}

float *device_get_tensor(device *d, const float *dev, size_t rows, size_t cols)
{
    const size_t ld = vae_pad(cols);
    float *padded = device_host(d, rows * ld), *values = device_host(d, rows * cols);
    d->be->ops->download(d->be, padded, dev, rows * ld * sizeof *padded);
    for (size_t r = 0; r < rows; r++) {
        memcpy(values + r * cols, padded + r * ld, cols * sizeof *values);
    }
    hash_bytes(d, values, rows * cols * sizeof *values);
    return values;
}

float *device_get_array(device *d, const float *dev, size_t n)
{
    float *values = device_host(d, n);
    d->be->ops->download(d->be, values, dev, n * sizeof *values);
    hash_bytes(d, values, n * sizeof *values);
    return values;
}

vae_totals device_get_totals(device *d, const vae_totals *dev)
{
    vae_totals totals;
    d->be->ops->download(d->be, &totals, dev, sizeof totals);
    hash_bytes(d, &totals, sizeof totals);
    return totals;
}

static void check_block(device *d, const device_block *b)
{
    size_t bytes = b->rows * b->ld * b->size, row = b->ld * b->size, used = b->cols * b->size;
    uint8_t guard[GUARD];
    d->be->ops->download(d->be, guard, (uint8_t *)b->dev + bytes, GUARD);
    for (size_t i = 0; i < GUARD; i++) {
        if (guard[i] != GUARD_BYTE) {
            fail_msg("byte %zu behind a (%zu,%zu) block was written", i, b->rows, b->cols);
        }
    }
    if (used == row && b->before == NULL) {
        return;
    }
    uint8_t *now = malloc(bytes);
    assert_non_null(now);
    d->be->ops->download(d->be, now, b->dev, bytes);
    for (size_t r = 0; r < b->rows; r++) {
        for (size_t i = used; i < row; i++) {
            if (now[r * row + i] != 0) {
                fail_msg("padding of row %zu of a (%zu,%zu) block is not zero", r, b->rows,
                         b->cols);
            }
        }
    }
    if (b->before != NULL && memcmp(now, b->before, bytes) != 0) {
        fail_msg("an input (%zu,%zu) was changed", b->rows, b->cols);
    }
    free(now);
}

void device_check(device *d)
{
    assert_synced(d);
    for (size_t i = 0; i < d->n_blocks; i++) {
        check_block(d, &d->blocks[i]);
    }
    assert_synced(d);
}

static void give_back(device *d)
{
    for (size_t i = 0; i < d->n_blocks; i++) {
        d->be->ops->free(d->be, d->blocks[i].dev);
    }
    for (size_t i = 0; i < d->n_host; i++) {
        free(d->host[i]);
    }
    d->n_blocks = d->n_host = 0;
}

void device_clear(device *d)
{
    device_check(d);
    give_back(d);
}

void device_end(device *d)
{
    give_back(d);
    device_close_backend(d->be);
}

int device_setup(void **state)
{
    static device d;
    device_begin(&d, 2);
    *state = &d;
    return 0;
}

int device_teardown(void **state)
{
    device_end(*state);
    return 0;
}

void device_run(device *d, const vae_plan *plan, vae_data *data, size_t rows, vae_step_fn *fn,
                void *ctx)
{
    d->be->ops->plan(d->be, plan, 1, rows, data);
    d->be->ops->forget(d->be, 0);
    d->be->ops->run(d->be, 0, 1, fn, ctx);
    assert_synced(d);
}

/* ---- numbers ---- */

uint64_t random_u64(uint64_t *state)
{
    uint64_t x = *state += 0x9E3779B97F4A7C15u;
    x = (x ^ (x >> 30)) * 0xBF58476D1CE4E5B9u;
    x = (x ^ (x >> 27)) * 0x94D049BB133111EBu;
    return x ^ (x >> 31);
}

float random_uniform(uint64_t *state, float low, float high)
{
    return low + (high - low) * (float)(random_u64(state) >> 40) / 16777216.0f;
}

float random_normal(uint64_t *state)
{
    float sum = 0;
    for (int i = 0; i < 12; i++) {
        sum += random_uniform(state, -0.5f, 0.5f);
    }
    return sum;
}

float *random_floats(device *d, uint64_t *state, size_t n, float scale)
{
    float *values = device_host(d, n);
    for (size_t i = 0; i < n; i++) {
        values[i] = scale * random_normal(state);
    }
    return values;
}

double *column_sums_of(device *d, const double *m, size_t rows, size_t cols)
{
    double *sums = device_host_doubles(d, cols);
    for (size_t i = 0; i < rows * cols; i++) {
        sums[i % cols] += m[i];
    }
    return sums;
}

double nmse(const float *got, const double *want, size_t n)
{
    double error = 0, power = 0;
    for (size_t i = 0; i < n; i++) {
        double e = (double)got[i] - want[i];
        error += e * e;
        power += want[i] * want[i];
    }
    return error == 0 ? 0 : error / power;
}

double nmse_bound(bool activation)
{
    switch (activation ? device_precision() : VAE_FP32) {
    case VAE_BF16: /* operands and results rounded to 8 bits */
        return 1e-4;
    case VAE_TF32: /* operands rounded to 11 bits */
        return 2e-5;
    case VAE_FP32:
    default: /* float arithmetic does better than 1e-7, fast sines included */
        return device_is_cuda() ? 1e-9 : 1e-11;
    }
}

double kernel_bound(void)
{
    if (!device_is_cuda()) {
        return 0;
    }
    switch (device_precision()) {
    case VAE_BF16: /* a sum that lies between two stored values falls to either: 2^-8 apart */
        return 4e-3;
    case VAE_TF32: /* the same where the next product rounds its operand: 2^-10 */
        return 1e-3;
    case VAE_FP32:
    default:
        return 1e-6;
    }
}

void assert_close_to(const char *what, const float *got, const double *want, size_t n,
                     bool activation)
{
    double power = 0, error = nmse(got, want, n), bound = nmse_bound(activation);
    if (!(error <= bound)) {
        fail_msg("%s: nmse %.3g, expected at most %.3g", what, error, bound);
    }
    for (size_t i = 0; i < n; i++) {
        power += want[i] * want[i];
    }
    double most = 30 * sqrt(bound) * sqrt(power / (double)(n > 0 ? n : 1));
    for (size_t i = 0; i < n; i++) {
        if (!(fabs((double)got[i] - want[i]) <= most + 30 * sqrt(bound) * fabs(want[i]))) {
            fail_msg("%s: element %zu of %zu is %.9g, expected %.9g", what, i, n, (double)got[i],
                     want[i]);
        }
    }
}
