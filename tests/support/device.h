/* What the tests that run on any backend share: the backend, memory on it with a guard behind every
 * piece, and comparisons. One table of cases serves them all: VAE_TEST_DEVICE=cpu|cuda (default
 * cpu), VAE_TEST_PRECISION=fp32|tf32|bf16 (default fp32). */
#ifndef VAE_TEST_DEVICE_H
#define VAE_TEST_DEVICE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "backend/open.h"
#include "dataset/dataset.h"

enum { DEVICE_BLOCKS = 64 };

typedef struct {
    void *dev;
    size_t rows, cols, ld, size; /* size: bytes of an element */
    void *before;                /* host copy of an input, which must not change; else NULL */
} device_block;

/* A backend, and all that a test took from it. */
typedef struct {
    vae_backend *be;
    vae_precision precision;
    device_block blocks[DEVICE_BLOCKS];
    size_t n_blocks;
    void *host[4 * DEVICE_BLOCKS];
    size_t n_host;
    uint64_t hash; /* of everything read back */
} device;

bool device_is_cuda(void);
vae_precision device_precision(void);
/* A backend as the environment says; threads as in vae_backend_options. Fails the test if it does
 * not open. */
vae_backend *device_open_backend(size_t threads);
/* Gives it back: a CUDA device serves the tests after this one, unless an operation failed. */
void device_close_backend(vae_backend *be);
/* Closes what is kept for the next test, which then reads the environment anew. */
void device_keep_none(void);
void device_begin(device *d, size_t threads);
/* Gives everything back, the backend too. */
void device_end(device *d);
/* Checks every guard, every padding column and every input, and that no operation failed. */
void device_check(device *d);
/* The same, and gives back what was taken; the backend stays open. */
void device_clear(device *d);
/* cmocka fixtures of one test; *state is a device. */
int device_setup(void **state);
int device_teardown(void **state);
#define device_test(f) cmocka_unit_test_setup_teardown(f, device_setup, device_teardown)

/* Host floats, zero, until device_clear. */
float *device_host(device *d, size_t n);
double *device_host_doubles(device *d, size_t n);

/* Matrices in the activation type. An input's values are rounded to what the backend holds; an
 * output begins as NaN; an in-out matrix is an input that may change. */
vae_mat device_input(device *d, float *values, size_t rows, size_t cols);
vae_mat device_output(device *d, size_t rows, size_t cols);
vae_mat device_inout(device *d, float *values, size_t rows, size_t cols);
/* Rounds weights as matrix products of the backend's precision may see them: to bf16 or not. */
void device_round_weights(device *d, float *values, size_t n);
/* Floats: rows with padding to VAE_PAD (as tensors lie in a flat buffer), or an array (rows = 1
 * without padding). */
float *device_tensor_output(device *d, size_t rows, size_t cols);
float *device_array_input(device *d, const float *values, size_t n);
float *device_array_output(device *d, size_t n);
float *device_array_inout(device *d, const float *values, size_t n);
/* A flat buffer of one layer's parameters, bound: W (out,in) with ld vae_pad(in), then b. */
float *device_layer(device *d, const float *w, const float *b, size_t out, size_t in,
                    const float **b_dev);
vae_totals *device_totals(device *d, const vae_totals *values);

/* Read back, to host memory that lives until device_clear. */
float *device_get_mat(device *d, vae_mat m, size_t rows, size_t cols);
float *device_get_tensor(device *d, const float *dev, size_t rows, size_t cols);
float *device_get_array(device *d, const float *dev, size_t n);
vae_totals device_get_totals(device *d, const vae_totals *dev);

/* Runs fn once, for a one-entry plan, and waits. data may be NULL. */
void device_run(device *d, const vae_plan *plan, vae_data *data, size_t rows, vae_step_fn *fn,
                void *ctx);

/* Random numbers for inputs: splitmix64, uniform in [low,high), standard normal. */
uint64_t random_u64(uint64_t *state);
float random_uniform(uint64_t *state, float low, float high);
float random_normal(uint64_t *state);
/* n of the last, times scale, as device_host gives them. */
float *random_floats(device *d, uint64_t *state, size_t n, float scale);

/* Sums over the rows of m: (rows,cols); until device_clear. */
double *column_sums_of(device *d, const double *m, size_t rows, size_t cols);

/* sum (got-want)^2 / sum want^2; 0 if both vanish. NaN where either holds NaN. */
double nmse(const float *got, const double *want, size_t n);
/* The tolerance of the backend's precision: of values that went through a matrix product or are
 * stored in the activation type, or of values in float all the way. */
double nmse_bound(bool activation);
/* What results that are mathematically the same may differ by, relatively, where a matrix product
 * was asked for with another number of rows or another epilogue: a GPU's library chooses kernels
 * by those, and kernels add in their own order. 0 on the CPU, whose order is fixed. */
double kernel_bound(void);
/* nmse within the bound, and every element within 30 of its roots of the mean square. */
void assert_close_to(const char *what, const float *got, const double *want, size_t n,
                     bool activation);

#endif
