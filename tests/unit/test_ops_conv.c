/* The convolutions against plain double-precision loops: both directions, every activation, kernels
 * and strides and sizes that do not fit each other, one part and two. */
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

static const struct {
    size_t rows;
    vae_conv g; /* h and w follow */
} cases[] = {
    {9, {2, 2, 1, 0, 0, 3, 4, 2, 1, 1, 0}},    {3, {4, 6, 3, 0, 0, 5, 4, 2, 1, 1, 0}},
    {5, {8, 8, 16, 0, 0, 32, 4, 2, 1, 1, 0}},  {2, {7, 5, 3, 0, 0, 4, 3, 2, 1, 1, 0}},
    {3, {5, 6, 2, 0, 0, 7, 3, 1, 1, 1, 0}},    {2, {9, 7, 4, 0, 0, 6, 2, 3, 0, 1, 0}},
    {2, {6, 6, 5, 0, 0, 3, 1, 2, 0, 1, 0}},    {7, {6, 4, 3, 0, 0, 33, 4, 2, 1, 2, 0}},
    {2, {10, 11, 1, 0, 0, 2, 5, 3, 2, 2, 0}},  {9, {14, 14, 8, 0, 0, 20, 4, 2, 1, 1, 0}},
    {2, {9, 11, 8, 0, 0, 9, 4, 2, 1, 1, 0}},   {3, {6, 5, 16, 0, 0, 8, 4, 2, 0, 1, 0}},
    {2, {5, 7, 8, 0, 0, 33, 4, 2, 3, 1, 0}},   {30, {4, 4, 40, 0, 0, 130, 4, 2, 1, 1, 0}},
    {19, {4, 3, 2, 0, 0, 5, 2, 1, 0, 1, 0}},   {2, {40, 42, 8, 0, 0, 3, 4, 2, 1, 1, 0}},
    {2, {20, 200, 3, 0, 0, 2, 4, 2, 1, 1, 0}},
};
/* The last ones are of several blocks of tiles, lines, pixels, examples: with few activations. */
enum { N_CASES = sizeof cases / sizeof cases[0], N_LARGE = 4 };

static vae_conv case_of(size_t i, int transposed)
{
    vae_conv g = cases[i].g;
    g.h = (g.H + 2 * g.pad - g.kernel) / g.stride + 1;
    g.w = (g.W + 2 * g.pad - g.kernel) / g.stride + 1;
    g.transposed = transposed;
    return g;
}

/* One row of what an operation reads and what is expected of it. */
typedef struct {
    const float *big, *small, *w;
    double *to_big, *to_small, *to_w;
} row_sums;

/* A pixel's window of one channel: C values that lie side by side in `big` and in the weight's row. */
static void add_meetings(const row_sums *s, size_t big, size_t small, size_t w, size_t C)
{
    for (size_t ch = 0; ch < C; ch++) {
        if (s->to_small != NULL) {
            s->to_small[small] += (double)s->big[big + ch] * (double)s->w[w + ch];
        }
        if (s->to_big != NULL) {
            s->to_big[big + ch] += (double)s->small[small] * (double)s->w[w + ch];
        }
        if (s->to_w != NULL) {
            s->to_w[w + ch] += (double)s->small[small] * (double)s->big[big + ch];
        }
    }
}

/* Adds up each pair of a big and a small value that meet. */
static void add_row(vae_conv g, const row_sums *s)
{
    for (size_t small = 0; small < g.h * g.w * g.c; small++) {
        const size_t o = small % g.c, j = small / g.c % g.w, i = small / g.c / g.w;
        for (size_t line = 0; line < g.parts * g.kernel; line++) {
            const size_t part = line / g.kernel, y = i * g.stride + line % g.kernel;
            for (size_t kx = 0; kx < g.kernel && y >= g.pad && y < g.H + g.pad; kx++) {
                const size_t x = j * g.stride + kx;
                if (x >= g.pad && x < g.W + g.pad) {
                    add_meetings(s, ((part * g.H + y - g.pad) * g.W + x - g.pad) * g.C, small,
                                 o * vae_conv_patch(g) + (line * g.kernel + kx) * g.C, g.C);
                }
            }
        }
    }
}

typedef struct {
    device *d;
    vae_mat x, y, dy, dx;
    void *aux, *scratch;
    const float *w, *b;
    float *dw, *db;
    size_t ldw, rows;
    vae_conv g;
    vae_activation act;
} conv_call;

static void forward_step(void *ctx)
{
    conv_call *c = ctx;
    c->d->be->ops->conv_forward(c->d->be, c->y, c->aux, c->x, c->w, c->ldw, c->b, c->rows, c->g,
                                c->act, c->scratch);
}

static void backward_weight_step(void *ctx)
{
    conv_call *c = ctx;
    c->d->be->ops->conv_backward_weight(c->d->be, c->dw, c->ldw, c->db, c->dy, c->x, c->rows, c->g,
                                        c->scratch);
}

/* What the operations need for themselves. */
static void *scratch_for(device *d, vae_conv g, size_t rows)
{
    const size_t bytes = d->be->ops->conv_bytes(d->be, g, rows);
    return bytes > 0 ? device_array_output(d, (bytes + 3) / sizeof(float)) : NULL;
}

static size_t in_of(vae_conv g)
{
    return g.transposed ? vae_conv_small(g) : vae_conv_big(g);
}

static size_t out_of(vae_conv g)
{
    return g.transposed ? vae_conv_big(g) : vae_conv_small(g);
}

/* Channels made; and of value i of a row made, its channel. */
static size_t channels_of(vae_conv g)
{
    return g.transposed ? g.parts * g.C : g.c;
}

static size_t channel_of(vae_conv g, size_t i)
{
    return g.transposed ? i / (g.H * g.W * g.C) * g.C + i % g.C : i % g.c;
}

static void check_forward(device *d, size_t rows, vae_conv g, vae_activation act, bool with_aux)
{
    const size_t in = in_of(g), out = out_of(g), patch = vae_conv_patch(g), ch = channels_of(g);
    uint64_t rng = rows + 1000 * in + 1000000 * out + act;
    float *x = random_floats(d, &rng, rows * in, 1), *b = random_floats(d, &rng, ch, 1);
    float *w = random_floats(d, &rng, g.c * patch, 1.5f / sqrtf((float)patch));
    double *y = device_host_doubles(d, rows * out);
    device_round_weights(d, w, g.c * patch);
    conv_call c = {.d = d, .x = device_input(d, x, rows, in), .y = device_output(d, rows, out)};
    c.ldw = vae_pad(patch), c.rows = rows, c.g = g, c.act = act;
    /* W and b as in a layout; b is no row of W's length here */
    float *flat = device_host(d, g.c * c.ldw + vae_pad(ch));
    for (size_t o = 0; o < g.c; o++) {
        memcpy(flat + o * c.ldw, w + o * patch, patch * sizeof *w);
    }
    memcpy(flat + g.c * c.ldw, b, ch * sizeof *b);
    float *bound = device_array_inout(d, flat, g.c * c.ldw + vae_pad(ch));
    d->be->ops->bind_params(d->be, bound, g.c * c.ldw + vae_pad(ch));
    c.w = bound, c.b = bound + g.c * c.ldw;
    size_t aux = d->be->ops->aux_bytes(d->be, act, rows, out);
    c.aux = with_aux && aux > 0 ? device_array_output(d, aux / sizeof(float)) : NULL;
    for (size_t r = 0; r < rows; r++) {
        row_sums s = {.w = w, .big = x + r * in, .small = x + r * in};
        *(g.transposed ? &s.to_big : &s.to_small) = y + r * out;
        add_row(g, &s);
        for (size_t i = 0; i < out; i++) {
            y[r * out + i] = ref_act(act, y[r * out + i] + (double)b[channel_of(g, i)]);
        }
    }
    c.scratch = scratch_for(d, g, rows);
    device_run(d, &(vae_plan){0}, NULL, rows, forward_step, &c);
    char what[96];
    snprintf(what, sizeof what, "conv_forward (%zu: %zux%zux%zu %zu k%zu s%zu%s), activation %d",
             rows, g.H, g.W, g.C, g.c, g.kernel, g.stride, g.transposed ? " transposed" : "", act);
    assert_close_to(what, device_get_mat(d, c.y, rows, out), y, rows * out, true);
    device_clear(d);
}

static void check_backward_weight(device *d, size_t rows, vae_conv g)
{
    const size_t in = in_of(g), out = out_of(g), patch = vae_conv_patch(g), ch = channels_of(g);
    uint64_t rng = rows + 1000 * in + 1000000 * out;
    float *x = random_floats(d, &rng, rows * in, 1), *dy = random_floats(d, &rng, rows * out, 1);
    double *dw = device_host_doubles(d, g.c * patch), *db = device_host_doubles(d, ch);
    conv_call c = {.d = d, .x = device_input(d, x, rows, in), .dy = device_input(d, dy, rows, out)};
    c.dw = device_tensor_output(d, g.c, patch), c.db = device_tensor_output(d, 1, ch);
    c.ldw = vae_pad(patch), c.rows = rows, c.g = g;
    for (size_t r = 0; r < rows; r++) {
        row_sums s = {.to_w = dw};
        s.big = g.transposed ? dy + r * out : x + r * in;
        s.small = g.transposed ? x + r * in : dy + r * out;
        add_row(g, &s);
        for (size_t i = 0; i < out; i++) {
            db[channel_of(g, i)] += (double)dy[r * out + i];
        }
    }
    c.scratch = scratch_for(d, g, rows);
    device_run(d, &(vae_plan){0}, NULL, rows, backward_weight_step, &c);
    assert_close_to("conv_backward_weight: dw", device_get_tensor(d, c.dw, g.c, patch), dw,
                    g.c * patch, true);
    assert_close_to("conv_backward_weight: db", device_get_tensor(d, c.db, 1, ch), db, ch, true);
    device_clear(d);
}

enum { FIRST = 19 }; /* inputs of the dense layer below in check_backward_input */

typedef struct {
    device *d;
    vae_mat x, y, dy, dx;
    void *aux, *scratch;
    const float *w1, *b1, *w2;
    size_t rows, in, ldw;
    vae_conv g;
    vae_activation act;
} two_layers_call;

/* y = act(x W1^T + b1): (rows,in); then the gradient of the convolution above it. */
static void two_layers_step(void *ctx)
{
    two_layers_call *c = ctx;
    c->d->be->ops->linear_forward(c->d->be, c->y, c->aux, c->x, c->w1, vae_pad(FIRST), c->b1,
                                  c->rows, FIRST, c->in, c->act);
    c->d->be->ops->conv_backward_input(c->d->be, c->dx, c->dy, c->w2, c->ldw, c->y, c->aux, c->rows,
                                       c->g, c->act, c->scratch);
}

static void check_backward_input(device *d, size_t rows, vae_conv g, vae_activation act)
{
    const size_t in = in_of(g), out = out_of(g), patch = vae_conv_patch(g);
    const size_t ld1 = vae_pad(FIRST), ld2 = vae_pad(patch), b1 = in * ld1, w2 = b1 + vae_pad(in);
    const size_t total = w2 + g.c * ld2;
    uint64_t rng = rows + 1000 * in + 1000000 * out + act;
    float *flat = device_host(d, total), *w = device_host(d, g.c * patch);
    for (size_t i = 0; i < in; i++) {
        for (size_t f = 0; f < FIRST; f++) {
            flat[i * ld1 + f] = 0.3f * random_normal(&rng);
        }
        flat[b1 + i] = 0.5f * random_normal(&rng);
    }
    for (size_t i = 0; i < g.c * patch; i++) {
        flat[w2 + i / patch * ld2 + i % patch] = random_normal(&rng);
    }
    device_round_weights(d, flat, b1);
    device_round_weights(d, flat + w2, g.c * ld2);
    for (size_t i = 0; i < g.c * patch; i++) {
        w[i] = flat[w2 + i / patch * ld2 + i % patch];
    }
    float *x = random_floats(d, &rng, rows * FIRST, 1);
    float *dy = random_floats(d, &rng, rows * out, 1);
    double *dx = device_host_doubles(d, rows * in);
    two_layers_call c = {.d = d, .rows = rows, .in = in, .ldw = ld2, .g = g, .act = act};
    c.x = device_input(d, x, rows, FIRST), c.dy = device_input(d, dy, rows, out);
    c.y = device_output(d, rows, in), c.dx = device_output(d, rows, in);
    float *bound = device_array_inout(d, flat, total);
    d->be->ops->bind_params(d->be, bound, total);
    c.w1 = bound, c.b1 = bound + b1, c.w2 = bound + w2;
    size_t aux = d->be->ops->aux_bytes(d->be, act, rows, in);
    c.aux = aux > 0 ? device_array_output(d, aux / sizeof(float)) : NULL;
    c.scratch = scratch_for(d, g, rows);
    device_run(d, &(vae_plan){0}, NULL, rows, two_layers_step, &c);
    const float *y = device_get_mat(d, c.y, rows, in);
    const double unsure = d->precision == VAE_FP32 ? 1e-5 : 0.02;
    for (size_t r = 0; r < rows; r++) {
        row_sums s = {.w = w, .big = dy + r * out, .small = dy + r * out};
        *(g.transposed ? &s.to_small : &s.to_big) = dx + r * in;
        add_row(g, &s);
        for (size_t i = 0; i < in; i++) {
            double pre = (double)flat[b1 + i];
            for (size_t f = 0; f < FIRST; f++) {
                pre += (double)x[r * FIRST + f] * (double)flat[i * ld1 + f];
            }
            bool kinked = act == VAE_ACT_RELU || act == VAE_ACT_LEAKY_RELU;
            pre = kinked && fabs(pre) < unsure ? (double)y[r * in + i] : pre;
            dx[r * in + i] *= ref_dact(act, pre);
        }
    }
    char what[96];
    snprintf(what, sizeof what, "conv_backward_input (%zu: %zux%zux%zu %zu k%zu%s), activation %d",
             rows, g.H, g.W, g.C, g.c, g.kernel, g.transposed ? " transposed" : "", act);
    assert_close_to(what, device_get_mat(d, c.dx, rows, in), dx, rows * in, true);
    device_clear(d);
}

static void convolutions_forward(void **state)
{
    for (size_t i = 0; i < N_CASES; i++) {
        for (int t = 0; t < 2; t++) {
            for (int act = VAE_ACT_NONE; act <= VAE_ACT_LAST; act++) {
                if (i < N_CASES - N_LARGE || act == VAE_ACT_RELU || act == VAE_ACT_SILU) {
                    check_forward(*state, cases[i].rows, case_of(i, t), (vae_activation)act,
                                  act % 2 == (int)(i % 2));
                }
            }
        }
    }
}

static void convolutions_backward_to_weights(void **state)
{
    for (size_t i = 0; i < N_CASES; i++) {
        check_backward_weight(*state, cases[i].rows, case_of(i, 0));
        check_backward_weight(*state, cases[i].rows, case_of(i, 1));
    }
}

static void convolutions_backward_to_inputs(void **state)
{
    for (size_t i = 0; i < N_CASES; i++) {
        for (int t = 0; t < 2; t++) {
            for (int act = VAE_ACT_NONE; act <= VAE_ACT_LAST; act++) {
                if (i < N_CASES - N_LARGE || act == VAE_ACT_RELU || act == VAE_ACT_SILU) {
                    check_backward_input(*state, cases[i].rows, case_of(i, t), (vae_activation)act);
                }
            }
        }
    }
}

/* ---- mirrored pictures ---- */

enum { PICTURES = 21, HIGH = 3, WIDE = 5, CHANNELS = 2, COLUMNS = HIGH * WIDE * CHANNELS };

typedef struct {
    device *d;
    vae_mat x;
} mirror_call;

/* On the CPU pictures of bf16 are made floats some examples at a time: ten of these. */
static void bf16_takes_several_turns(void **state)
{
    enum { ROWS = 12 };
    if (device_is_cuda() || device_precision() != VAE_BF16) {
        skip();
    }
    for (int transposed = 0; transposed < 2; transposed++) {
        const vae_conv g = {150, 150, 4, 75, 75, 3, 4, 2, 1, 1, transposed};
        check_forward(*state, ROWS, g, VAE_ACT_GELU, true);
        check_backward_weight(*state, ROWS, g);
        check_backward_input(*state, ROWS, g, VAE_ACT_GELU);
    }
}

static void mirror_step(void *ctx)
{
    mirror_call *c = ctx;
    c->d->be->ops->mirror(c->d->be, c->x, PICTURES, HIGH, WIDE, CHANNELS, 77);
}

static void pictures_are_mirrored_at_random(void **state)
{
    device *d = *state;
    uint64_t rng = 4;
    /* the last four stand elsewhere in the whole batch */
    const vae_plan plan = {
        .draw = 9, .first = 1000, .extra_n = 50, .extra_at = PICTURES - 4, .extra_skip = 77};
    float *x = random_floats(d, &rng, PICTURES * COLUMNS, 1);
    mirror_call c = {d, device_inout(d, x, PICTURES, COLUMNS)};
    device_run(d, &plan, NULL, PICTURES, mirror_step, &c);
    const float *got = device_get_mat(d, c.x, PICTURES, COLUMNS);
    size_t mirrored = 0;
    for (size_t r = 0; r < PICTURES; r++) {
        const int turned = vae_mirrored(77, 1000 + r + (r < PICTURES - 4 ? 0 : 77), 9);
        mirrored += turned != 0;
        for (size_t i = 0; i < COLUMNS; i++) {
            const size_t pixel = i / CHANNELS, at = pixel % WIDE, y = pixel / WIDE;
            const size_t from = turned ? WIDE - 1 - at : at;
            assert_true(got[r * COLUMNS + i] ==
                        x[r * COLUMNS + (y * WIDE + from) * CHANNELS + i % CHANNELS]);
        }
    }
    assert_in_range(mirrored, 4, 17);
}

/* A hash of everything the operations make. */
static uint64_t hash_of(size_t threads)
{
    device d;
    device_begin(&d, threads);
    for (size_t i = 0; i < N_CASES; i++) {
        for (int t = 0; t < 2; t++) {
            check_forward(&d, cases[i].rows, case_of(i, t), VAE_ACT_SILU, true);
            check_backward_weight(&d, cases[i].rows, case_of(i, t));
            check_backward_input(&d, cases[i].rows, case_of(i, t), VAE_ACT_SILU);
        }
    }
    uint64_t hash = d.hash;
    device_end(&d);
    return hash;
}

static void threads_do_not_change_bits(void **state)
{
    (void)state;
    const uint64_t one = hash_of(1);
    assert_true(hash_of(3) == one);
    assert_true(hash_of(7) == one);
}

int main(void)
{
    setenv("VAE_CUDA_PATCH_BYTES", "65536", 0); /* so that even these take several turns */
    const struct CMUnitTest tests[] = {
        device_test(convolutions_forward),
        device_test(convolutions_backward_to_weights),
        device_test(convolutions_backward_to_inputs),
        device_test(bf16_takes_several_turns),
        device_test(pictures_are_mirrored_at_random),
        cmocka_unit_test(threads_do_not_change_bits),
    };
    return cmocka_run_group_tests_name("ops_conv", tests, NULL, NULL);
}
