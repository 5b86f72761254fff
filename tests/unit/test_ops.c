/* The backend's operations against plain double-precision loops, part 1: memory, running, batches,
 * layers and latents. Part 2, losses and the optimizer: test_ops_loss.c. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "device.h"
#include "model/layout.h"
#include "philox.h"
#include "reference.h"

/* The out-of-memory test asks for more than there can be. */
const char *__asan_default_options(void);
const char *__asan_default_options(void)
{
    return "allocator_may_return_null=1";
}

/* ---- memory and running ---- */

static void memory_comes_zeroed_and_copies_are_exact(void **state)
{
    device *d = *state;
    const size_t sizes[] = {1, 31, 33, 257};
    uint64_t rng = 1;
    for (size_t i = 0; i < 4; i++) {
        size_t rows = sizes[i], cols = sizes[3 - i], n = rows * cols;
        float *zero = d->be->ops->alloc(d->be, n * sizeof *zero, "a test");
        assert_non_null(zero);
        float *got = device_get_array(d, zero, n);
        for (size_t j = 0; j < n; j++) {
            assert_true(got[j] == 0.0f && !signbit(got[j]));
        }
        d->be->ops->free(d->be, zero);
        float *values = device_host(d, n), *twice = device_host(d, n);
        for (size_t j = 0; j < n; j++) {
            twice[j] = values[j] = random_normal(&rng);
        }
        vae_mat m = device_input(d, twice, rows, cols); /* rounds `twice` to the type held */
        for (size_t j = 0; j < n; j++) {
            float most = d->precision == VAE_BF16 ? fabsf(values[j]) / 256.0f : 0.0f;
            assert_true(fabsf(twice[j] - values[j]) <= most);
        }
        assert_memory_equal(device_get_mat(d, m, rows, cols), twice, n * sizeof *twice);
        device_clear(d);
    }
    d->be->ops->free(d->be, NULL);
}

static void description_names_the_device(void **state)
{
    device *d = *state;
    char text[1024] = "";
    d->be->ops->describe(d->be, text, sizeof text);
    assert_non_null(strstr(text, d->be->ops->name));
    assert_null(strchr(text, '\n'));
    assert_string_equal(d->be->ops->name, device_is_cuda() ? "cuda" : "cpu");
    d->be->ops->describe(d->be, text, 4); /* short room is not overrun */
    assert_true(strlen(text) < 4);
}

static void errors_stick_until_sync(void **state)
{
    device *d = *state;
    float value = 1, got = 2;
    float *dev = device_array_inout(d, &value, 1);
    assert_null(d->be->ops->alloc(d->be, SIZE_MAX / 4, "the moon"));
    vae_error err = {0};
    value = 3;
    d->be->ops->upload(d->be, dev, &value, sizeof value); /* does nothing */
    assert_int_equal(d->be->ops->sync(d->be, &err), VAE_ERR_RUNTIME);
    assert_non_null(strstr(err.text, "the moon"));
    assert_int_equal(d->be->ops->sync(d->be, NULL), VAE_OK);
    d->be->ops->download(d->be, &got, dev, sizeof got);
    assert_true(got == 1.0f);
    device_clear(d);
}

typedef struct {
    device *d;
    vae_totals *totals;
    const float *recon, *kl;
    size_t B;
} accumulate_call;

static void accumulate_step(void *ctx)
{
    accumulate_call *c = ctx;
    c->d->be->ops->accumulate(c->d->be, c->totals, c->recon, c->kl, NULL, NULL, c->B, 1, 1, 0);
}

/* Every step of a run sees its own entry of the plan, replayed or not. */
static void runs_move_along_the_plan(void **state)
{
    device *d = *state;
    enum { B = 3, N = 7 };
    const float recon[B] = {1, 2, 3}, kl[B] = {1, 1, 2};
    const vae_totals zero = {0};
    vae_plan plan[N] = {{0}};
    double objective = 0;
    accumulate_call c = {d, device_totals(d, &zero), device_array_input(d, recon, B),
                         device_array_input(d, kl, B), B};
    d->be->ops->forget(d->be, 3);
    for (size_t turn = 0; turn < 3; turn++) {
        for (size_t i = 0; i < N; i++) {
            plan[i].beta = 0.25f * (float)(i + 10 * turn);
            objective += 6 + (double)plan[i].beta * 4;
        }
        d->be->ops->plan(d->be, plan, N, B, NULL);
        d->be->ops->run(d->be, 3, 2, accumulate_step, &c); /* a run may take the plan in parts */
        d->be->ops->run(d->be, 3, N - 2, accumulate_step, &c);
        assert_int_equal(d->be->ops->sync(d->be, NULL), VAE_OK);
        vae_totals t = device_get_totals(d, c.totals);
        const double ran = N * (double)(turn + 1);
        assert_true(t.recon == 6 * ran && t.kl == 4 * ran && t.examples == 3 * ran);
        assert_true(fabs(t.objective - objective) < 1e-9);
        assert_int_equal(t.bad_step, 0);
    }
    device_clear(d);
}

/* ---- batches ---- */

typedef struct {
    device *d;
    vae_mat x;
    vae_data *data;
    size_t B, D;
    vae_binarize binarize;
    uint64_t seed;
} gather_call;

static void gather_step(void *ctx)
{
    gather_call *c = ctx;
    c->d->be->ops->gather(c->d->be, c->x, c->data, c->B, c->D, c->binarize, c->seed);
}

/* Value (row,col) of the set as the model must see it; words straight from the definition. */
static float expected_value(const vae_dataset *set, size_t row, size_t col, vae_binarize binarize,
                            uint64_t seed, uint64_t draw)
{
    const size_t quads = (set->d + 3) / 4;
    uint64_t block = binarize == VAE_BINARIZE_DYNAMIC ? draw : 0;
    uint32_t word =
        vae_philox(seed, ((uint64_t)2 << 56) | (row * quads + col / 4), block).w[col % 4];
    const uint8_t *bytes = set->rows;
    const float *floats = set->rows;
    if (set->dtype == VAE_BITS) { /* a probability of 0 or 1 draws itself */
        return (float)(bytes[row * ((set->d + 7) / 8) + col / 8] >> col % 8 & 1);
    }
    float value = set->dtype == VAE_U8 ? (float)bytes[row * set->d + col] / 255.0f
                                       : floats[row * set->d + col];
    bool u8 = set->dtype == VAE_U8;
    switch (binarize) {
    case VAE_BINARIZE_STATIC:
    case VAE_BINARIZE_DYNAMIC: /* exact: word/2^32 < byte/255, or < value */
        return u8 ? (uint64_t)word * 255 < (uint64_t)bytes[row * set->d + col] * 4294967296u
                  : (double)word < floor((double)value * 4294967296.0);
    case VAE_BINARIZE_THRESHOLD:
        return value >= 0.5f;
    case VAE_BINARIZE_NONE:
    default:
        return value;
    }
}

/* Bytes of all kinds, or floats in [0,1] with both ends and halves among them, or bits. */
static void fill_set(vae_dataset *set, vae_dtype dtype, size_t n, size_t D)
{
    uint64_t rng = n + D;
    *set = (vae_dataset){.n = n, .d = D, .height = 1, .width = D, .channels = 1, .dtype = dtype};
    set->rows = calloc(n * D, dtype == VAE_F32 ? sizeof(float) : 1);
    assert_non_null(set->rows);
    for (size_t i = 0; i < n * D; i++) {
        uint64_t word = random_u64(&rng);
        if (dtype == VAE_BITS) {
            uint8_t *at = (uint8_t *)set->rows + i / D * ((D + 7) / 8) + i % D / 8;
            *at |= (uint8_t)((word & 1) << i % D % 8);
            continue;
        }
        uint8_t byte = word % 4 == 0 ? 0 : word % 4 == 1 ? 255 : (uint8_t)(word >> 32);
        if (dtype == VAE_U8) {
            ((uint8_t *)set->rows)[i] = byte;
        } else {
            ((float *)set->rows)[i] = word % 7 == 0 ? 0.5f : (float)byte / 255.0f;
        }
    }
}

static void check_gather(device *d, const vae_dataset *set, const uint32_t *index, size_t n,
                         size_t first, size_t B, bool shuffle, vae_binarize binarize)
{
    const size_t D = set->d;
    const vae_plan plan = {.draw = 77 + first,
                           .first = first,
                           .order_key = 0x1234567887654321u + n,
                           .shuffle = shuffle};
    float *want = device_host(d, B * D);
    gather_call c = {d, {0}, NULL, B, D, binarize, 0xFEDCBA9876543210u};
    for (size_t r = 0; r < B; r++) {
        uint64_t i = first + r;
        i = shuffle ? vae_shuffle(plan.order_key, n, vae_shuffle_bits(n), i) : i;
        size_t row = index != NULL ? index[i] : (size_t)i;
        for (size_t col = 0; col < D; col++) {
            want[r * D + col] = expected_value(set, row, col, binarize, c.seed, plan.draw);
        }
    }
    (void)device_input(d, want, B, D); /* rounds to the type held */
    c.x = device_output(d, B, D);
    c.data = d->be->ops->data_open(d->be, set, index, n);
    assert_non_null(c.data);
    device_run(d, &plan, c.data, B, gather_step, &c);
    float *got = device_get_mat(d, c.x, B, D);
    for (size_t i = 0; i < B * D; i++) {
        if (got[i] != want[i]) {
            fail_msg("gather B=%zu D=%zu binarize=%d shuffle=%d: x[%zu] = %g, expected %g", B, D,
                     binarize, shuffle, i, (double)got[i], (double)want[i]);
        }
    }
    device_check(d);
    d->be->ops->data_close(d->be, c.data);
    device_clear(d);
}

static void batches_are_gathered_to_the_bit(void **state)
{
    device *d = *state;
    const size_t widths[] = {1, 2, 31, 33, 64, 100, 257, 784};
    const uint32_t index[] = {9, 3, 40, 7, 7, 0, 25, 36, 11, 2, 39, 18, 1};
    const size_t n_index = sizeof index / sizeof index[0];
    for (size_t w = 0; w < sizeof widths / sizeof widths[0]; w++) {
        for (int dtype = VAE_U8; dtype <= VAE_BITS; dtype++) {
            vae_dataset set;
            fill_set(&set, (vae_dtype)dtype, 41, widths[w]);
            for (int binarize = VAE_BINARIZE_NONE; binarize <= VAE_BINARIZE_DYNAMIC; binarize++) {
                vae_binarize b = (vae_binarize)binarize;
                check_gather(d, &set, NULL, 41, 0, 41, false, b);
                check_gather(d, &set, NULL, 41, 0, 33, true, b);
                check_gather(d, &set, NULL, 41, 33, 8, true, b); /* the last, partial batch */
                check_gather(d, &set, NULL, 41, 40, 1, true, b);
                check_gather(d, &set, index, n_index, 2, 5, false, b);
                check_gather(d, &set, index, n_index, 0, n_index, true, b);
            }
            free(set.rows);
        }
    }
}

/* More than is sent at once: 3 of the CUDA backend's pieces of 8 MiB, whose buffers are used again. */
static void large_data_are_gathered_too(void **state)
{
    enum { N = 20000, D = 1000 };
    vae_dataset set;
    fill_set(&set, VAE_U8, N, D);
    check_gather(*state, &set, NULL, N, N - 5, 5, false, VAE_BINARIZE_NONE);
    check_gather(*state, &set, NULL, N, 0, 64, true, VAE_BINARIZE_NONE);
    free(set.rows);
}

/* So many values that the CUDA backend's warps take several turns each, and many short rows. */
static void large_batches_are_gathered_too(void **state)
{
    static const struct {
        size_t B, D;
        vae_dtype dtype;
        vae_binarize binarize;
    } cases[] = {{9001, 257, VAE_U8, VAE_BINARIZE_NONE},
                 {9001, 257, VAE_BITS, VAE_BINARIZE_NONE},
                 {6007, 390, VAE_F32, VAE_BINARIZE_STATIC},
                 {18001, 120, VAE_U8, VAE_BINARIZE_DYNAMIC},
                 {3001, 3, VAE_U8, VAE_BINARIZE_THRESHOLD}};
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        vae_dataset set;
        fill_set(&set, cases[i].dtype, cases[i].B, cases[i].D);
        check_gather(*state, &set, NULL, cases[i].B, 0, cases[i].B, true, cases[i].binarize);
        free(set.rows);
    }
}

static void one_row_is_a_data_set(void **state)
{
    device *d = *state;
    vae_dataset set;
    const uint32_t last = 2;
    fill_set(&set, VAE_U8, 3, 5);
    check_gather(d, &set, &last, 1, 0, 1, true, VAE_BINARIZE_NONE);
    set.n = 1;
    check_gather(d, &set, NULL, 1, 0, 1, true, VAE_BINARIZE_STATIC);
    free(set.rows);
}

/* A row's static draw is the row's own, in whatever order, subset or pass it comes. */
static void static_draws_stay_and_dynamic_ones_change(void **state)
{
    device *d = *state;
    enum { N = 8, D = 200 };
    vae_dataset set;
    const uint32_t one[] = {5};
    fill_set(&set, VAE_U8, N, D);
    memset(set.rows, 128, (size_t)N * D);
    float *pass[3];
    for (int binarize = VAE_BINARIZE_STATIC; binarize <= VAE_BINARIZE_DYNAMIC; binarize++) {
        for (uint64_t i = 0; i < 3; i++) { /* whole set, whole set again, row 5 alone */
            gather_call c = {d, device_output(d, N, D), NULL, i == 2 ? 1 : N,
                             D, (vae_binarize)binarize, 3};
            vae_plan plan = {.draw = 10 + i};
            c.data = d->be->ops->data_open(d->be, &set, i == 2 ? one : NULL, i == 2 ? 1 : N);
            device_run(d, &plan, c.data, c.B, gather_step, &c);
            pass[i] = device_get_mat(d, c.x, c.B, D);
            d->be->ops->data_close(d->be, c.data);
        }
        bool stays = binarize == VAE_BINARIZE_STATIC;
        assert_int_equal(memcmp(pass[0], pass[1], sizeof(float) * N * D) == 0, stays);
        assert_int_equal(memcmp(pass[0] + 5 * D, pass[2], sizeof(float) * D) == 0, stays);
        device_clear(d);
    }
    free(set.rows);
}

/* ---- layers ---- */

typedef struct {
    device *d;
    vae_mat y, x, dy, dx;
    void *aux;
    const float *w, *b;
    float *dw, *db;
    size_t ldw, rows, in, out;
    vae_activation act;
} layer_call;

static void forward_step(void *ctx)
{
    layer_call *c = ctx;
    c->d->be->ops->linear_forward(c->d->be, c->y, c->aux, c->x, c->w, c->ldw, c->b, c->rows, c->in,
                                  c->out, c->act);
}

static void backward_weight_step(void *ctx)
{
    layer_call *c = ctx;
    c->d->be->ops->linear_backward_weight(c->d->be, c->dw, c->ldw, c->db, c->dy, c->x, c->rows,
                                          c->in, c->out);
}

static void check_forward(device *d, size_t rows, size_t in, size_t out, vae_activation act,
                          bool with_aux)
{
    uint64_t rng = rows + 1000 * in + 1000000 * out + act;
    float *x = random_floats(d, &rng, rows * in, 1), *b = random_floats(d, &rng, out, 1);
    float *w = random_floats(d, &rng, out * in, 1.5f / sqrtf((float)in));
    double *y = device_host_doubles(d, rows * out);
    device_round_weights(d, w, out * in);
    layer_call c = {.d = d, .x = device_input(d, x, rows, in), .y = device_output(d, rows, out)};
    c.w = device_layer(d, w, b, out, in, &c.b);
    c.ldw = vae_pad(in), c.rows = rows, c.in = in, c.out = out, c.act = act;
    size_t aux = d->be->ops->aux_bytes(d->be, act, rows, out);
    c.aux = with_aux && aux > 0 ? device_array_output(d, aux / sizeof(float)) : NULL;
    for (size_t r = 0; r < rows; r++) {
        for (size_t o = 0; o < out; o++) {
            double sum = (double)b[o];
            for (size_t i = 0; i < in; i++) {
                sum += (double)x[r * in + i] * (double)w[o * in + i];
            }
            y[r * out + o] = ref_act(act, sum);
        }
    }
    device_run(d, &(vae_plan){0}, NULL, rows, forward_step, &c);
    char what[96];
    snprintf(what, sizeof what, "linear_forward (%zu,%zu,%zu), activation %d", rows, in, out, act);
    assert_close_to(what, device_get_mat(d, c.y, rows, out), y, rows * out, true);
    device_clear(d);
}

static void check_backward_weight(device *d, size_t rows, size_t in, size_t out)
{
    uint64_t rng = rows + 1000 * in + 1000000 * out;
    float *x = random_floats(d, &rng, rows * in, 1), *dy = random_floats(d, &rng, rows * out, 1);
    double *dw = device_host_doubles(d, out * in), *db = device_host_doubles(d, out);
    layer_call c = {
        .d = d, .x = device_input(d, x, rows, in), .dy = device_input(d, dy, rows, out)};
    c.dw = device_tensor_output(d, out, in), c.db = device_tensor_output(d, 1, out);
    c.ldw = vae_pad(in), c.rows = rows, c.in = in, c.out = out;
    for (size_t r = 0; r < rows; r++) {
        for (size_t o = 0; o < out; o++) {
            db[o] += (double)dy[r * out + o];
            for (size_t i = 0; i < in; i++) {
                dw[o * in + i] += (double)dy[r * out + o] * (double)x[r * in + i];
            }
        }
    }
    device_run(d, &(vae_plan){0}, NULL, rows, backward_weight_step, &c);
    assert_close_to("linear_backward_weight: dw", device_get_tensor(d, c.dw, out, in), dw, out * in,
                    true);
    assert_close_to("linear_backward_weight: db", device_get_tensor(d, c.db, 1, out), db, out,
                    true);
    device_clear(d);
}

enum { FIRST = 19 }; /* inputs of the layer below in check_backward_input */

typedef struct {
    device *d;
    vae_mat x, y, dy, dx;
    void *aux;
    const float *w1, *b1, *w2;
    float *db;
    size_t rows, in, out;
    vae_activation act;
} two_layers_call;

/* y = act(x W1^T + b1): (rows,in); then the gradient of the layer above, W2 (out,in), into y. */
static void two_layers_step(void *ctx)
{
    two_layers_call *c = ctx;
    c->d->be->ops->linear_forward(c->d->be, c->y, c->aux, c->x, c->w1, vae_pad(FIRST), c->b1,
                                  c->rows, FIRST, c->in, c->act);
    c->d->be->ops->linear_backward_input(c->d->be, c->dx, c->db, c->dy, c->w2, vae_pad(c->in), c->y,
                                         c->aux, c->rows, c->in, c->out, c->act);
}

/* dx in double; w1, b1, w2 lie in `flat` one after the other as in a layout. y: as the backend has
 * it, for products of lower precision may fall on the other side of a kink. */
static void expect_backward_input(double *dx, const two_layers_call *c, const float *x,
                                  const float *dy, const float *flat, const float *y)
{
    const float *b1 = flat + c->in * vae_pad(FIRST), *w2 = b1 + vae_pad(c->in);
    const double unsure = c->d->precision == VAE_FP32 ? 1e-5 : 0.02;
    for (size_t r = 0; r < c->rows; r++) {
        for (size_t i = 0; i < c->in; i++) {
            double pre = (double)b1[i], back = 0;
            for (size_t f = 0; f < FIRST; f++) {
                pre += (double)x[r * FIRST + f] * (double)flat[i * vae_pad(FIRST) + f];
            }
            for (size_t o = 0; o < c->out; o++) {
                back += (double)dy[r * c->out + o] * (double)w2[o * vae_pad(c->in) + i];
            }
            bool kinked = c->act == VAE_ACT_RELU || c->act == VAE_ACT_LEAKY_RELU;
            pre = kinked && fabs(pre) < unsure ? (double)y[r * c->in + i] : pre;
            dx[r * c->in + i] = back * ref_dact(c->act, pre);
        }
    }
}

/* zeros: rows of zeros and biases of zero among the others, where ReLU's derivative is at 0. */
static void check_backward_input(device *d, size_t rows, size_t in, size_t out, vae_activation act,
                                 bool with_db, bool zeros)
{
    uint64_t rng = rows + 1000 * in + 1000000 * out + act;
    const size_t ld1 = vae_pad(FIRST), ld2 = vae_pad(in), b1 = in * ld1, w2 = b1 + ld2;
    float *flat = device_host(d, w2 + out * ld2);
    for (size_t i = 0; i < in; i++) {
        for (size_t f = 0; f < FIRST; f++) {
            flat[i * ld1 + f] = 0.3f * random_normal(&rng);
        }
        for (size_t o = 0; o < out; o++) {
            flat[w2 + o * ld2 + i] = random_normal(&rng);
        }
        flat[b1 + i] = zeros && i % 3 != 1 ? 0.0f : 0.5f * random_normal(&rng);
    }
    float *x = random_floats(d, &rng, rows * FIRST, 1), *dy = random_floats(d, &rng, rows * out, 1);
    for (size_t i = 0; zeros && i < rows * FIRST; i++) {
        x[i] = i / FIRST % 4 == 2 ? 0.0f : x[i];
    }
    device_round_weights(d, flat, b1);
    device_round_weights(d, flat + w2, out * ld2);
    float *params = device_array_inout(d, flat, w2 + out * ld2);
    d->be->ops->bind_params(d->be, params, w2 + out * ld2);
    two_layers_call c = {.d = d,
                         .w1 = params,
                         .b1 = params + b1,
                         .w2 = params + w2,
                         .rows = rows,
                         .in = in,
                         .out = out,
                         .act = act};
    c.x = device_input(d, x, rows, FIRST), c.dy = device_input(d, dy, rows, out);
    c.y = device_output(d, rows, in), c.dx = device_output(d, rows, in);
    size_t aux = d->be->ops->aux_bytes(d->be, act, rows, in);
    c.aux = aux > 0 ? device_array_output(d, (aux + 3) / 4) : NULL;
    c.db = with_db ? device_tensor_output(d, 1, in) : NULL;
    double *dx = device_host_doubles(d, rows * in);
    device_run(d, &(vae_plan){0}, NULL, rows, two_layers_step, &c);
    expect_backward_input(dx, &c, x, dy, flat, device_get_mat(d, c.y, rows, in));
    char what[96];
    snprintf(what, sizeof what, "linear_backward_input (%zu,%zu,%zu), activation %d", rows, in, out,
             act);
    float *got = device_get_mat(d, c.dx, rows, in);
    assert_close_to(what, got, dx, rows * in, true);
    for (size_t i = 0; zeros && act == VAE_ACT_RELU && i < rows * in; i++) {
        assert_true(got[i] == 0.0f || i / in % 4 != 2 || i % in % 3 == 1);
    }
    if (with_db) {
        assert_close_to("db of the layer below", device_get_tensor(d, c.db, 1, in),
                        column_sums_of(d, dx, rows, in), in, true);
    }
    device_clear(d);
}

static const struct {
    size_t rows, in, out;
} layer_cases[] = {{1, 1, 1},   {1, 31, 33},  {31, 33, 1},   {33, 257, 31},  {257, 31, 33},
                   {3, 1, 257}, {7, 784, 20}, {20, 400, 40}, {127, 130, 41}, {64, 20, 401}};
enum { N_LAYER_CASES = sizeof layer_cases / sizeof layer_cases[0] };

static void layers_forward(void **state)
{
    for (size_t i = 0; i < N_LAYER_CASES; i++) {
        for (int act = VAE_ACT_NONE; act <= VAE_ACT_LAST; act++) {
            check_forward(*state, layer_cases[i].rows, layer_cases[i].in, layer_cases[i].out,
                          (vae_activation)act, act % 2 == (int)(i % 2));
        }
    }
    check_forward(*state, 128, 784, 400, VAE_ACT_RELU, true);
}

static void layers_backward_to_weights(void **state)
{
    for (size_t i = 0; i < N_LAYER_CASES; i++) {
        check_backward_weight(*state, layer_cases[i].rows, layer_cases[i].in, layer_cases[i].out);
    }
    check_backward_weight(*state, 128, 784, 100);
    for (size_t rows = 200; rows < 30000; rows = 3 * rows - 7) { /* long sums over rows */
        check_backward_weight(*state, rows, 9, 33);
    }
    check_backward_weight(*state, 2500, 1, 700);
    /* more columns than a sum takes blocks of rows for */
    check_backward_weight(*state, 3, 1, 270000);
}

static void layers_backward_to_inputs(void **state)
{
    for (size_t i = 0; i < N_LAYER_CASES; i++) {
        for (int act = VAE_ACT_NONE; act <= VAE_ACT_LAST; act++) {
            check_backward_input(*state, layer_cases[i].rows, layer_cases[i].in, layer_cases[i].out,
                                 (vae_activation)act, act % 3 != (int)(i % 3), false);
        }
    }
    check_backward_input(*state, 128, 400, 784, VAE_ACT_RELU, true, false);
    for (int act = VAE_ACT_NONE; act <= VAE_ACT_LAST; act++) { /* sums in two stages */
        check_backward_input(*state, 2100 + 401 * (size_t)act, 41, 3, (vae_activation)act, true,
                             false);
    }
}

/* A pre-activation of exactly 0, as where biases begin at 0 and a row holds nothing: the derivative
 * of ReLU is 0 there, whoever computes it; the data set's other rows and units get theirs. */
static void relu_has_no_gradient_at_zero(void **state)
{
    for (int act = VAE_ACT_RELU; act <= VAE_ACT_LAST; act++) {
        check_backward_input(*state, 50, 70, 20, (vae_activation)act, true, true);
        check_backward_input(*state, 50, 70, 20, (vae_activation)act, false, true);
        check_backward_input(*state, 2500, 33, 2, (vae_activation)act, true, true);
    }
}

/* Sizes that a GPU of compute capability 9.0 has kernels of its own for in bf16, with any number of
 * rows (VAE_CUDA_HOPPER): tiles that are whole and not, fewer rows than there are blocks for. */
static void layers_of_784_400_20(void **state)
{
    const size_t rows[] = {1, 64, 200, 391};
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        check_forward(*state, rows[i], 784, 400, VAE_ACT_RELU, true);
        check_forward(*state, rows[i], 400 + 8 * i, 392, VAE_ACT_NONE, false);
        check_forward(*state, rows[i], 20, 400, VAE_ACT_RELU, true);
        check_forward(*state, rows[i], 12 * i + 9, 336, VAE_ACT_NONE, false);
        check_backward_weight(*state, rows[i], 784, 400);
        check_backward_weight(*state, rows[i], 392, 800);
        check_backward_weight(*state, rows[i], 20, 400);
        check_backward_weight(*state, rows[i], 400, 2 * i + 35);
        check_backward_input(*state, rows[i], 400, 784, VAE_ACT_RELU, i % 2 == 0, false);
        check_backward_input(*state, rows[i], 400, 16 * i + 40, VAE_ACT_RELU, false, i == 3);
    }
}

/* ---- latents ---- */

typedef struct {
    device *d;
    vae_mat z, head, dz, dhead;
    float *kl_row, *log_pq, *kl_dim;
    const float *weight, *kl_dim_in;
    size_t B, K, Z, over;
    vae_noise noise;
    vae_latent_grad grad;
} latent_call;

static void latent_forward_step(void *ctx)
{
    latent_call *c = ctx;
    c->d->be->ops->latent_forward(c->d->be, c->z, c->kl_row, c->log_pq, c->head, c->B, c->K, c->Z,
                                  c->noise);
    c->d->be->ops->kl_dims(c->d->be, c->kl_dim, c->head, c->B, c->over, c->Z);
}

static void latent_backward_step(void *ctx)
{
    latent_call *c = ctx;
    c->d->be->ops->latent_backward(c->d->be, c->dhead, c->dz, c->head, c->weight, c->kl_dim_in,
                                   c->B, c->K, c->Z, c->grad, c->noise);
}

static double eps_of(const latent_call *c, const vae_plan *plan, size_t row, size_t k, size_t j)
{
    float eps[4];
    vae_eps4(c->noise.seed, VAE_RNG_EPS,
             plan->first + row + (row < plan->eps_at ? plan->eps_skip[0] : plan->eps_skip[1]),
             (uint32_t)((c->Z + 3) / 4), (uint32_t)(j / 4), plan->draw,
             plan->particle0 + (uint32_t)k, eps);
    return (double)eps[j % 4];
}

static void check_latent_forward(device *d, size_t B, size_t K, size_t Z, const vae_plan *plan,
                                 bool log_pq)
{
    uint64_t rng = B + 100 * K + 10000 * Z;
    float *head = random_floats(d, &rng, B * 2 * Z, 1);
    double *z = device_host_doubles(d, B * K * Z), *kl_row = device_host_doubles(d, B);
    double *pq = device_host_doubles(d, B * K), *kl_dim = device_host_doubles(d, Z);
    latent_call c = {.d = d, .B = B, .K = K, .Z = Z, .noise = {0x0123456789ABCDEFu + Z}};
    c.over = B + Z % 3; /* of a batch that others share, or not */
    c.head = device_input(d, head, B, 2 * Z);
    c.z = device_output(d, B * K, Z);
    c.kl_row = device_array_output(d, B), c.kl_dim = device_array_output(d, Z);
    c.log_pq = log_pq ? device_array_output(d, B * K) : NULL;
    for (size_t r = 0; r < B; r++) {
        for (size_t j = 0; j < Z; j++) {
            double mu = (double)head[r * 2 * Z + j], logvar = (double)head[r * 2 * Z + Z + j];
            double kl = -0.5 * (1 + logvar - mu * mu - exp(logvar));
            kl_row[r] += kl;
            kl_dim[j] += kl / (double)c.over;
            for (size_t k = 0; k < K; k++) {
                double eps = eps_of(&c, plan, r, k, j), v = mu + exp(logvar / 2) * eps;
                z[(r * K + k) * Z + j] = v;
                /* log N(z;0,1) - log N(z;mu,sigma^2) */
                pq[r * K + k] += -v * v / 2 + (v - mu) * (v - mu) / (2 * exp(logvar)) + logvar / 2;
            }
        }
    }
    device_run(d, plan, NULL, B, latent_forward_step, &c);
    assert_close_to("z", device_get_mat(d, c.z, B * K, Z), z, B * K * Z, true);
    assert_close_to("kl_row", device_get_array(d, c.kl_row, B), kl_row, B, false);
    assert_close_to("kl_dim", device_get_array(d, c.kl_dim, Z), kl_dim, Z, false);
    if (log_pq) { /* from a z that may have been rounded already */
        assert_close_to("log_pq", device_get_array(d, c.log_pq, B * K), pq, B * K, true);
    }
    device_clear(d);
}

static const struct {
    size_t B, K, Z;
} latent_cases[] = {{1, 1, 1},   {1, 3, 2},    {5, 1, 3},    {4, 5, 4},    {33, 1, 20},
                    {31, 3, 20}, {2, 5, 31},   {257, 1, 5},  {9, 3, 33},   {128, 1, 50},
                    {3, 2, 257}, {2, 3, 1301}, {3, 50, 20},  {2, 50, 50},  {1, 300, 3},
                    {2, 7, 100}, {5, 64, 1},   {1, 2, 1024}, {700, 1, 20}, {3001, 1, 3}};
enum { N_LATENT_CASES = sizeof latent_cases / sizeof latent_cases[0] };

static const vae_plan latent_plans[] = {
    {.draw = 1, .beta = 0.75f},
    {.draw = 123456, .first = 640, .particle0 = 7, .beta = 1},
    {.draw = ((uint64_t)1 << 39) + 3, .first = 3000000000u, .particle0 = 5000, .beta = 4},
    /* a part of a batch whose first rows stand 20 further on in the whole, the others 1000 */
    {.draw = 5, .first = 100, .beta = 1, .eps_at = 2, .eps_skip = {20, 1000}},
};

static void latents_forward(void **state)
{
    for (size_t i = 0; i < N_LATENT_CASES; i++) {
        check_latent_forward(*state, latent_cases[i].B, latent_cases[i].K, latent_cases[i].Z,
                             &latent_plans[i % 4], i % 2 == 0 || latent_cases[i].Z > 1000);
    }
}

/* What latent_backward must give, by the formulas above model.c's step. */
static void expect_latent_backward(double *dhead, const latent_call *c, const vae_plan *plan,
                                   const float *head, const float *dz, const float *weight,
                                   const float *kl_dim)
{
    const size_t Z = c->Z;
    const double s = (double)c->grad.kl_scale;
    const vae_objective objective = c->grad.objective;
    for (size_t i = 0; i < c->B * Z; i++) {
        size_t r = i / Z, j = i % Z;
        double mu = (double)head[r * 2 * Z + j], logvar = (double)head[r * 2 * Z + Z + j];
        double sigma = exp(logvar / 2), dmu = 0, dlogvar = 0;
        bool free_latent = kl_dim != NULL && kl_dim[j] <= c->grad.free_bits;
        for (size_t k = 0; k < c->K; k++) {
            double eps = eps_of(c, plan, r, k, j), g = (double)dz[(r * c->K + k) * Z + j];
            double w = weight != NULL ? (double)weight[r * c->K + k] : 0, z = mu + sigma * eps;
            switch (objective) {
            case VAE_OBJ_ELBO:
                break;
            case VAE_OBJ_IWAE:
                g += s * w * z;
                dlogvar -= s * w / 2;
                break;
            case VAE_OBJ_STL:
                g += s * w * (z - eps / sigma);
                break;
            case VAE_OBJ_DREG:
                g = w * (g + s * w * (z - eps / sigma));
                break;
            }
            dmu += g;
            dlogvar += g * eps * sigma / 2;
        }
        if (objective == VAE_OBJ_ELBO && !free_latent) {
            dmu += s * (double)plan->beta * mu;
            dlogvar += s * (double)plan->beta * (exp(logvar) - 1) / 2;
        }
        dhead[r * 2 * Z + j] = dmu;
        dhead[r * 2 * Z + Z + j] = dlogvar;
    }
}

static void check_latent_backward(device *d, size_t B, size_t K, size_t Z, const vae_plan *plan,
                                  vae_objective objective, bool free_bits, bool drop)
{
    uint64_t rng = B + 100 * K + 10000 * Z;
    float *head = random_floats(d, &rng, B * 2 * Z, 1), *dz = random_floats(d, &rng, B * K * Z, 1);
    float *weight = device_host(d, B * K), *kl_dim = device_host(d, Z);
    double *dhead = device_host_doubles(d, B * 2 * Z);
    for (size_t i = 0; i < B * K; i++) {
        weight[i] = drop && i % 3 != 1 ? 0 : random_uniform(&rng, 0, 1);
        for (size_t j = 0; j < Z && weight[i] == 0; j++) {
            dz[i * Z + j] = 0;
        }
    }
    for (size_t j = 0; j < Z; j++) { /* on both sides of free_bits, and on it */
        kl_dim[j] = 0.25f * (float)(j % 5);
    }
    latent_call c = {.d = d, .B = B, .K = K, .Z = Z, .noise = {99}};
    c.grad = (vae_latent_grad){objective, 1.0f / (float)B, free_bits ? 0.5f : 0.0f};
    c.head = device_input(d, head, B, 2 * Z);
    float *rows = device_host(d, B * K * Z); /* of dz as particle_weights leaves it */
    const bool dropped = drop && d->be->ops->drop_rows != NULL;
    size_t left = 0;
    for (size_t i = 0; i < B * K; i++) {
        if (!dropped || weight[i] > 0) {
            memcpy(rows + left++ * Z, dz + i * Z, Z * sizeof *dz);
        }
    }
    c.dz = device_input(d, rows, left, Z);
    for (size_t i = B * K; i-- > 0;) { /* as rounded */
        if (!dropped || weight[i] > 0) {
            memcpy(dz + i * Z, rows + --left * Z, Z * sizeof *dz);
        }
    }
    c.dhead = device_output(d, B, 2 * Z);
    bool weighted = objective != VAE_OBJ_ELBO;
    c.weight = weighted ? device_array_input(d, weight, B * K) : NULL;
    c.kl_dim_in = free_bits ? device_array_input(d, kl_dim, Z) : NULL;
    expect_latent_backward(dhead, &c, plan, head, dz, weighted ? weight : NULL,
                           free_bits ? kl_dim : NULL);
    device_run(d, plan, NULL, B, latent_backward_step, &c);
    assert_close_to("dhead", device_get_mat(d, c.dhead, B, 2 * Z), dhead, B * 2 * Z, true);
    device_clear(d);
}

static void latents_backward(void **state)
{
    for (size_t i = 0; i < N_LATENT_CASES; i++) {
        for (int objective = VAE_OBJ_ELBO; objective <= VAE_OBJ_STL; objective++) {
            check_latent_backward(*state, latent_cases[i].B, latent_cases[i].K, latent_cases[i].Z,
                                  &latent_plans[i % 4], (vae_objective)objective, false, false);
            if (objective != VAE_OBJ_ELBO && latent_cases[i].B * latent_cases[i].K > 1) {
                check_latent_backward(*state, latent_cases[i].B, latent_cases[i].K,
                                      latent_cases[i].Z, &latent_plans[i % 4],
                                      (vae_objective)objective, false, true);
            }
        }
        check_latent_backward(*state, latent_cases[i].B, latent_cases[i].K, latent_cases[i].Z,
                              &latent_plans[i % 4], VAE_OBJ_ELBO, true, false);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        device_test(memory_comes_zeroed_and_copies_are_exact),
        device_test(description_names_the_device),
        device_test(errors_stick_until_sync),
        device_test(runs_move_along_the_plan),
        device_test(batches_are_gathered_to_the_bit),
        device_test(large_data_are_gathered_too),
        device_test(large_batches_are_gathered_too),
        device_test(one_row_is_a_data_set),
        device_test(static_draws_stay_and_dynamic_ones_change),
        device_test(layers_forward),
        device_test(layers_backward_to_weights),
        device_test(layers_backward_to_inputs),
        device_test(relu_has_no_gradient_at_zero),
        device_test(latents_forward),
        device_test(latents_backward),
    };
    const struct CMUnitTest large_layers[] = {device_test(layers_of_784_400_20)};
    int failed = cmocka_run_group_tests(tests, NULL, NULL);
    device_keep_none();
    setenv("VAE_CUDA_HOPPER", "1", 1);
    return failed + cmocka_run_group_tests(large_layers, NULL, NULL);
}
