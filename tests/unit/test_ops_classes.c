/* The backend's operations on classes against plain double-precision loops. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "device.h"
#include "model/layout.h"
#include "reference.h"

typedef struct {
    device *d;
    vae_mat x, y, h, logits, dlogits;
    void *aux;
    const float *w, *b;
    float *dw, *db;
    vae_class_rows of;
    vae_activation act;
    uint32_t *label;
    const uint32_t *label0;
    float *terms, *weight;
    const float *recon, *kl, *factor;
    vae_totals *totals;
    vae_data *data;
    size_t B, K, first, C, D, n, out, n_open, n_labelled, rows, all_open, all_labelled;
    float ce;
} call;

/* Labels travel in blocks of floats: 32 bits either way. */
static uint32_t *labels_in(device *d, const uint32_t *label, size_t n)
{
    float *bits = device_host(d, n);
    memcpy(bits, label, n * sizeof *label);
    return (uint32_t *)(void *)(uintptr_t)device_array_input(d, bits, n);
}

static uint32_t *labels_out(device *d, size_t n)
{
    return (uint32_t *)(void *)device_array_output(d, n);
}

static const uint32_t *labels_of(device *d, const uint32_t *dev, size_t n)
{
    uint32_t *label = (uint32_t *)(void *)device_host(d, n);
    d->be->ops->download(d->be, label, dev, n * sizeof *label);
    return label;
}

static void run(call *c, const vae_plan *plan, vae_step_fn *fn)
{
    device_run(c->d, plan, c->data, c->B > 0 ? c->B : 1, fn, c);
}

/* ---- rows of a batch beside the epoch's order ---- */

static void labelled_rows_are_cycled_through(void **state)
{
    (void)state;
    enum { N = 23, EXTRA = 7, CYCLES = 5 };
    vae_plan plan = {.extra_n = EXTRA, .extra_at = 3, .extra_key = 5, .shuffle = 1, .order_key = 8};
    size_t same = 0;
    uint64_t first[EXTRA];
    for (uint64_t t = 0; t < CYCLES * EXTRA; t++) {
        bool seen = false;
        plan.extra_first = t;
        const uint64_t row = vae_plan_row(&plan, N, vae_shuffle_bits(N), 3);
        assert_true(row >= N - EXTRA && row < N);
        plan.extra_first = t / EXTRA * EXTRA;
        for (uint64_t i = 0; i < t % EXTRA; i++) { /* each once in a cycle */
            seen = seen || vae_plan_row(&plan, N, vae_shuffle_bits(N), 3 + i) == row;
        }
        assert_false(seen);
        first[t % EXTRA] = t < EXTRA ? row : first[t % EXTRA];
        same += first[t % EXTRA] == row;
    }
    assert_true(same < CYCLES * EXTRA); /* in another order each time */
    bool taken[N] = {false};
    plan.extra_at = N - EXTRA;
    for (uint64_t i = 0; i < N - EXTRA; i++) {
        const uint64_t row = vae_plan_row(&plan, N, vae_shuffle_bits(N), i);
        assert_true(row < N - EXTRA && !taken[row]);
        taken[row] = true;
    }
    plan.extra_n = 0; /* the plain order, and none at all */
    for (uint64_t i = 0; i < N; i++) {
        assert_int_equal(vae_plan_row(&plan, N, vae_shuffle_bits(N), i),
                         vae_shuffle(8, N, vae_shuffle_bits(N), i));
    }
    plan.shuffle = 0, plan.first = 4;
    assert_int_equal(vae_plan_row(&plan, N, vae_shuffle_bits(N), 5), 9);
}

static void gather_step(void *ctx)
{
    call *c = ctx;
    c->d->be->ops->gather(c->d->be, c->x, c->data, c->B, c->D, VAE_BINARIZE_NONE, 1);
    c->d->be->ops->gather_labels(c->d->be, c->label, c->data, c->B, true);
}

/* Rows and labels belong together, with an index, with labelled rows, shuffled or not; where
 * VAE_CUDA_STREAM_DATA=1 is set, for streamed data as well. */
static void labels_come_with_their_rows(void **state)
{
    device *d = *state;
    enum { N = 300, D = 5, B = 70, INDEX = 200 };
    uint8_t rows[N * D];
    uint32_t labels[N], index[INDEX];
    for (size_t i = 0; i < N; i++) {
        labels[i] = (uint32_t)(1000 * (i % 251)); /* they are no bytes */
        memset(rows + i * D, (int)(i % 251), D);
    }
    for (size_t i = 0; i < INDEX; i++) {
        index[i] = (uint32_t)(N - 1 - i);
    }
    const vae_dataset set = {.source = "a test",
                             .n = N,
                             .d = D,
                             .height = 1,
                             .width = D,
                             .channels = 1,
                             .dtype = VAE_U8,
                             .rows = rows,
                             .labels = labels};
    for (int variant = 0; variant < 8; variant++) {
        const bool indexed = variant & 1, extra = variant & 4;
        vae_plan plan = {.first = 30, .shuffle = (variant & 2) != 0, .order_key = 77, .step = 1};
        if (extra) {
            plan.extra_n = 20, plan.extra_at = 50, plan.extra_first = 13, plan.extra_key = 3;
        }
        call c = {.d = d, .B = B, .D = D};
        c.data = d->be->ops->data_open(d->be, &set, indexed ? index : NULL, INDEX);
        assert_non_null(c.data);
        c.x = device_output(d, B, D);
        c.label = labels_out(d, B);
        run(&c, &plan, gather_step);
        const float *x = device_get_mat(d, c.x, B, D);
        const uint32_t *label = labels_of(d, c.label, B);
        const size_t n = indexed ? INDEX : N;
        for (size_t r = 0; r < B; r++) {
            size_t row = (size_t)vae_plan_row(&plan, n, vae_shuffle_bits(n), r);
            row = indexed ? index[row] : row;
            assert_int_equal(label[r], labels[row]);
            assert_true(fabsf(x[r * D] - (float)(labels[row] / 1000) / 255.0f) < 4e-3f);
        }
        d->be->ops->data_close(d->be, c.data);
        device_clear(d);
    }
}

static void want_labels_step(void *ctx)
{
    call *c = ctx;
    c->d->be->ops->gather_labels(c->d->be, c->label, c->data, c->B, c->K > 0);
}

static void missing_labels_are_told(void **state)
{
    device *d = *state;
    uint8_t rows[8] = {0};
    vae_error err = {0};
    const vae_plan plan = {0};
    const vae_dataset set = {.source = "the bare rows",
                             .n = 4,
                             .d = 2,
                             .height = 1,
                             .width = 2,
                             .channels = 1,
                             .dtype = VAE_U8,
                             .rows = rows};
    call c = {.d = d, .B = 4};
    c.data = d->be->ops->data_open(d->be, &set, NULL, 4);
    c.label = labels_out(d, 4);
    run(&c, &plan, want_labels_step);
    for (size_t r = 0; r < 4; r++) {
        assert_int_equal(labels_of(d, c.label, 4)[r], VAE_NO_LABEL);
    }
    c.K = 1; /* required */
    d->be->ops->plan(d->be, &plan, 1, 4, c.data);
    d->be->ops->forget(d->be, 0);
    d->be->ops->run(d->be, 0, 1, want_labels_step, &c);
    assert_int_equal(d->be->ops->sync(d->be, &err), VAE_ERR_DATA);
    assert_non_null(strstr(err.text, "the bare rows: no labels"));
    d->be->ops->data_close(d->be, c.data);
    device_clear(d);
}

/* ---- rows that are drawn ---- */

static void draw_step(void *ctx)
{
    call *c = ctx;
    c->d->be->ops->gather(c->d->be, c->x, c->data, c->B, c->D, VAE_BINARIZE_NONE, 21);
}

/* mean + sigma*eps, eps by the row's number and the draw: the same wherever the row stands. */
static void rows_are_drawn_anew(void **state)
{
    device *d = *state;
    enum { N = 40, B = 25, INDEX = 30 };
    for (size_t D = 1; D < 1100; D = 3 * D + 2) {
        uint64_t rng = D;
        float *rows = device_host(d, N * 2 * D);
        double *want = device_host_doubles(d, B * D);
        uint32_t index[INDEX];
        for (size_t i = 0; i < N * 2 * D; i++) {
            rows[i] = random_normal(&rng);
        }
        for (size_t i = 0; i < INDEX; i++) {
            index[i] = (uint32_t)(N - 1 - i);
        }
        const vae_dataset set = {.source = "a test",
                                 .n = N,
                                 .d = D,
                                 .height = 1,
                                 .width = D,
                                 .channels = 1,
                                 .dtype = VAE_F32,
                                 .draws = true,
                                 .rows = rows};
        const vae_plan plan = {.first = 2, .draw = 5 + D, .shuffle = 1, .order_key = 6};
        call c = {.d = d, .B = B, .D = D};
        c.data = d->be->ops->data_open(d->be, &set, index, INDEX);
        assert_non_null(c.data);
        c.x = device_output(d, B, D);
        run(&c, &plan, draw_step);
        for (size_t i = 0; i < B * D; i++) {
            const size_t j = i % D, quads = (D + 3) / 4;
            const size_t row = index[vae_plan_row(&plan, INDEX, vae_shuffle_bits(INDEX), i / D)];
            float eps[4];
            vae_eps4(21, VAE_RNG_STACK, row, (uint32_t)quads, (uint32_t)(j / 4), plan.draw, 0, eps);
            want[i] = (double)rows[row * 2 * D + j] +
                      exp((double)rows[row * 2 * D + D + j] / 2) * (double)eps[j % 4];
        }
        assert_close_to("drawn", device_get_mat(d, c.x, B, D), want, B * D, true);
        d->be->ops->data_close(d->be, c.data);
        device_clear(d);
    }
}

/* ---- columns ---- */

static void one_hot_step(void *ctx)
{
    call *c = ctx;
    c->d->be->ops->one_hot(c->d->be, c->x, c->label, c->B, c->K, c->first, c->C);
}

static void classes_become_columns(void **state)
{
    device *d = *state;
    static const size_t shapes[][4] = {
        {1, 1, 1, 2}, {5, 3, 7, 10}, {33, 2, 16, 17}, {600, 1, 3, 3}, {9, 2, 3, 300}};
    uint64_t rng = 3;
    for (size_t s = 0; s < 5; s++) {
        const size_t B = shapes[s][0], K = shapes[s][1], first = shapes[s][2], C = shapes[s][3];
        const size_t cols = first + C;
        float *values = device_host(d, B * K * cols);
        uint32_t label[600];
        for (size_t i = 0; i < B * K * cols; i++) {
            values[i] = random_normal(&rng);
        }
        for (size_t b = 0; b < B; b++) {
            label[b] = b == 2 ? VAE_NO_LABEL : (uint32_t)(random_u64(&rng) % C);
        }
        call c = {.d = d, .B = B, .K = K, .first = first, .C = C};
        c.x = device_inout(d, values, B * K, cols);
        c.label = labels_in(d, label, B);
        run(&c, &(vae_plan){0}, one_hot_step);
        const float *got = device_get_mat(d, c.x, B * K, cols);
        for (size_t i = 0; i < B * K * cols; i++) {
            const size_t r = i / cols, col = i % cols;
            assert_true(got[i] == (col < first                   ? values[i]
                                   : col - first == label[r / K] ? 1.0f
                                                                 : 0.0f));
        }
        device_clear(d);
    }
}

/* ---- a layer that sees [x | class], on rows for every class ---- */

static void class_layer_forward_step(void *ctx)
{
    call *c = ctx;
    c->d->be->ops->class_forward(c->d->be, c->y, c->aux, c->label, c->h, c->w + c->D,
                                 vae_pad(c->D + c->C), c->of, c->out, c->act);
}

static void class_layer_backward_step(void *ctx)
{
    call *c = ctx;
    const vae_backend_ops *ops = c->d->be->ops;
    const size_t ld = vae_pad(c->D + c->C);
    ops->class_sums(c->d->be, c->h, c->y, c->of, c->out);
    ops->linear_backward_weight(c->d->be, c->dw, ld, c->db, c->h, c->x, c->n, c->D, c->out);
    ops->class_backward_weight(c->d->be, c->dw + c->D, ld, c->y, c->of, c->out);
}

/* The example and the class of row r. */
static size_t example_of(const call *c, size_t r, const uint32_t *label, uint32_t *y)
{
    const size_t open_rows = c->of.n_open * c->of.C;
    const size_t b = r < open_rows ? r / c->of.C : c->of.n_open + r - open_rows;
    *y = r < open_rows ? (uint32_t)(r % c->of.C) : label[b];
    return b;
}

static float *random_matrix(device *d, uint64_t *rng, size_t n)
{
    float *values = device_host(d, n);
    for (size_t i = 0; i < n; i++) {
        values[i] = random_normal(rng);
    }
    return values;
}

/* A call on n_open and n_labelled random examples of D values; two labels are out of range. */
static call class_layer(device *d, uint64_t *rng, const size_t *shape, uint32_t *label)
{
    call c = {.d = d, .D = shape[2], .C = shape[3], .out = shape[4], .n = shape[0] + shape[1]};
    for (size_t b = 0; b < c.n; b++) {
        label[b] = (uint32_t)(random_u64(rng) % c.C);
    }
    if (shape[1] > 2) {
        label[shape[0] + 1] = VAE_NO_LABEL;
        label[shape[0] + 2] = (uint32_t)c.C;
    }
    c.of = (vae_class_rows){labels_in(d, label, c.n), shape[0], shape[1], c.C, shape[0], shape[1]};
    c.rows = shape[0] * c.C + shape[1];
    return c;
}

/* open, labelled, D, C, outputs: class columns that begin in, at and after a whole vector; more
 * classes than a tile of them; more columns and examples than a block takes. */
static const size_t layer_shapes[][5] = {
    {1, 0, 1, 2, 1},       {0, 5, 8, 10, 3},      {7, 3, 31, 3, 65}, {40, 9, 16, 40, 20},
    {300, 100, 5, 4, 140}, {3, 70, 785, 10, 500}, {3, 5, 4, 300, 7}};
enum { LAYER_SHAPES = sizeof layer_shapes / sizeof *layer_shapes };

static void a_layer_sees_every_class(void **state)
{
    device *d = *state;
    uint64_t rng = 4;
    for (size_t i = 0; i < LAYER_SHAPES * 6; i++) {
        uint32_t label[400];
        call c = class_layer(d, &rng, layer_shapes[i / 6], label);
        c.act = (vae_activation)(i % 6);
        float *h = random_matrix(d, &rng, c.n * c.out);
        float *w = random_matrix(d, &rng, c.out * (c.D + c.C)), *b = device_host(d, c.out);
        const float *unused;
        const size_t aux = d->be->ops->aux_bytes(d->be, c.act, c.rows, c.out);
        c.h = device_input(d, h, c.n, c.out);
        c.w = device_layer(d, w, b, c.out, c.D + c.C, &unused);
        c.aux = aux > 0 ? device_array_output(d, aux / sizeof(float)) : NULL;
        c.y = device_output(d, c.rows, c.out);
        c.label = labels_out(d, c.rows);
        run(&c, &(vae_plan){0}, class_layer_forward_step);
        const uint32_t *got = labels_of(d, c.label, c.rows);
        double *want = device_host_doubles(d, c.rows * c.out);
        for (size_t r = 0; r < c.rows; r++) {
            uint32_t y;
            const size_t from = example_of(&c, r, label, &y);
            assert_int_equal(got[r], y);
            for (size_t o = 0; o < c.out; o++) {
                const float added = y < c.C ? w[o * (c.D + c.C) + c.D + y] : 0.0f;
                want[r * c.out + o] = ref_act(c.act, (double)h[from * c.out + o] + (double)added);
            }
        }
        assert_close_to("class_forward", device_get_mat(d, c.y, c.rows, c.out), want,
                        c.rows * c.out, true);
        device_clear(d);
    }
}

static void a_layer_learns_from_every_class(void **state)
{
    device *d = *state;
    uint64_t rng = 5;
    for (size_t s = 0; s < LAYER_SHAPES; s++) {
        uint32_t label[400];
        call c = class_layer(d, &rng, layer_shapes[s], label);
        const size_t in = c.D + c.C;
        float *x = random_matrix(d, &rng, c.n * c.D), *dy = random_matrix(d, &rng, c.rows * c.out);
        c.x = device_input(d, x, c.n, c.D);
        c.y = device_input(d, dy, c.rows, c.out);
        c.h = device_output(d, c.n, c.out);
        c.dw = device_tensor_output(d, c.out, in), c.db = device_tensor_output(d, 1, c.out);
        run(&c, &(vae_plan){0}, class_layer_backward_step);
        double *dw = device_host_doubles(d, c.out * in), *db = device_host_doubles(d, c.out);
        for (size_t r = 0; r < c.rows; r++) {
            uint32_t y;
            const size_t from = example_of(&c, r, label, &y);
            for (size_t o = 0; o < c.out; o++) {
                const double g = (double)dy[r * c.out + o];
                db[o] += g;
                for (size_t i = 0; i < c.D; i++) {
                    dw[o * in + i] += g * (double)x[from * c.D + i];
                }
                if (y < c.C) {
                    dw[o * in + c.D + y] += g;
                }
            }
        }
        assert_close_to("dw of [x | class]", device_get_tensor(d, c.dw, c.out, in), dw, c.out * in,
                        true);
        assert_close_to("db of [x | class]", device_get_tensor(d, c.db, 1, c.out), db, c.out, true);
        device_clear(d);
    }
}

static void classify_step(void *ctx)
{
    call *c = ctx;
    c->d->be->ops->classify(c->d->be, c->label, c->logits, c->B, c->C);
}

static void the_largest_logit_wins(void **state)
{
    device *d = *state;
    float logits[4 * 5] = {0, 1, 2, 1, 0, 3, 3, 3, 3, 3, -9, -8, -8, -9, -9, 1, 0, 0, 0, 2};
    call c = {.d = d, .B = 4, .C = 5};
    c.logits = device_input(d, logits, 4, 5);
    c.label = labels_out(d, 4);
    run(&c, &(vae_plan){0}, classify_step);
    assert_memory_equal(labels_of(d, c.label, 4), ((uint32_t[]){2, 0, 1, 4}), 16);
    device_clear(d);
}

/* ---- the loss ---- */

static void loss_step(void *ctx)
{
    call *c = ctx;
    c->d->be->ops->class_loss(
        c->d->be, c->terms, c->weight, c->dlogits, c->logits, c->recon, c->kl,
        (vae_class_rows){c->label0, c->n_open, c->n_labelled, c->C, c->all_open, c->all_labelled},
        c->ce);
    c->d->be->ops->accumulate_classes(c->d->be, c->totals, c->terms, c->n_open, c->n_labelled);
}

typedef struct {
    double *terms, *weight, *dlogits;
} expected;

/* Straight from the formulas of model/classes.c. */
static void expect(expected *e, const call *c, const vae_plan *plan, const float *logits,
                   const float *recon, const float *kl, const uint32_t *label)
{
    const size_t C = c->C, n = c->n_open + c->n_labelled;
    const double f = (double)plan->labelled_share, beta = (double)plan->beta;
    for (size_t b = 0; b < n; b++) {
        double q[512], sum = 0, value = 0, r = 0, k = 0;
        const bool open = b < c->n_open;
        const size_t row = open ? b * C : c->n_open * C + b - c->n_open;
        for (size_t y = 0; y < C; y++) {
            sum += exp((double)logits[b * C + y]);
        }
        for (size_t y = 0; y < C; y++) {
            q[y] = exp((double)logits[b * C + y]) / sum;
        }
        for (size_t y = 0; open && y < C; y++) {
            r += q[y] * (double)recon[row + y];
            k += q[y] * ((double)kl[row + y] + log(q[y] * (double)C));
            value += q[y] * ((double)recon[row + y] + beta * (double)kl[row + y] + log(q[y]));
            e->weight[row + y] = (1 - f) / (double)c->all_open * q[y];
        }
        for (size_t y = 0; y < C; y++) {
            const double hit = y == label[b];
            e->dlogits[b * C + y] =
                open ? (1 - f) / (double)c->all_open * q[y] *
                           ((double)recon[row + y] + beta * (double)kl[row + y] + log(q[y]) - value)
                     : (double)c->ce / (double)c->all_labelled * (q[y] - hit);
        }
        double loss = (1 - f) / (double)c->all_open * (value + log((double)C));
        if (!open) {
            r = (double)recon[row], k = (double)kl[row] + log((double)C);
            e->weight[row] = f / (double)c->all_labelled;
            loss = e->weight[row] * (r + beta * (double)kl[row] + log((double)C)) -
                   (double)c->ce / (double)c->all_labelled * log(q[label[b]]);
        }
        e->terms[b] = r, e->terms[n + b] = k;
        e->terms[2 * n + b] = (double)c->all_open * loss;
        size_t best = 0;
        for (size_t y = 1; y < C; y++) {
            best = q[y] > q[best] ? y : best;
        }
        e->terms[3 * n + b] = label[b] < C && best != label[b];
        e->terms[4 * n + b] = label[b] < C;
    }
}

static void check_loss(device *d, size_t n_open, size_t n_labelled, size_t C, bool gradient)
{
    const size_t n = n_open + n_labelled, rows = n_open * C + n_labelled;
    uint64_t rng = n * 7 + C;
    float *logits = device_host(d, n * C), *recon = device_host(d, rows);
    float *kl = device_host(d, rows);
    uint32_t label[700];
    for (size_t i = 0; i < n * C; i++) {
        logits[i] = 3 * random_normal(&rng);
    }
    for (size_t i = 0; i < rows; i++) {
        recon[i] = 100 + 5 * random_normal(&rng), kl[i] = random_uniform(&rng, 0, 20);
    }
    for (size_t b = 0; b < n; b++) {
        label[b] = b == 1 && n_open > 1 ? VAE_NO_LABEL : (uint32_t)(random_u64(&rng) % C);
    }
    const vae_plan plan = {.beta = 0.75f, .labelled_share = n_labelled > 0 ? 0.25f : 0, .step = 3};
    call c = {.d = d, .n_open = n_open, .n_labelled = n_labelled, .C = C, .ce = 0.5f};
    c.all_open = n_open + C, c.all_labelled = 2 * n_labelled; /* other ranks have some, too */
    c.logits = device_inout(d, logits, n, C);
    c.dlogits = gradient ? c.logits : (vae_mat){NULL, 0}; /* in place */
    c.recon = device_array_input(d, recon, rows), c.kl = device_array_input(d, kl, rows);
    c.label0 = labels_in(d, label, n);
    c.terms = device_array_output(d, 5 * n);
    c.weight = gradient ? device_array_output(d, rows) : NULL;
    const vae_totals before = {.recon = 1, .errors = 2, .classified = 3, .examples = 4};
    c.totals = device_totals(d, &before);
    run(&c, &plan, loss_step);
    expected e = {device_host_doubles(d, 5 * n), device_host_doubles(d, rows),
                  device_host_doubles(d, n * C)};
    expect(&e, &c, &plan, logits, recon, kl, label);
    const float *terms = device_get_array(d, c.terms, 5 * n);
    for (int t = 0; t < 5; t++) {
        assert_close_to("terms", terms + (size_t)t * n, e.terms + (size_t)t * n, n, false);
    }
    if (gradient) {
        assert_close_to("weight", device_get_array(d, c.weight, rows), e.weight, rows, false);
        assert_close_to("dlogits", device_get_mat(d, c.dlogits, n, C), e.dlogits, n * C, true);
    }
    double sums[5] = {0};
    for (size_t i = 0; i < 5 * n; i++) {
        sums[i / n] += i / n < 2 && i % n >= n_open ? 0 : e.terms[i];
    }
    const vae_totals t = device_get_totals(d, c.totals);
    assert_true(fabs(t.recon - 1 - sums[0]) <= 1e-6 * fabs(sums[0]) + 1e-6);
    assert_true(fabs(t.kl - sums[1]) <= 1e-6 * fabs(sums[1]) + 1e-6);
    assert_true(fabs(t.objective - sums[2]) <= 1e-6 * fabs(sums[2]) + 1e-6);
    assert_true(t.errors == 2 + sums[3] && t.classified == 3 + sums[4]);
    assert_true(t.examples == 4 + (double)n_open && t.bad_step == 0);
    device_clear(d);
}

static void loss_over_classes(void **state)
{
    device *d = *state;
    for (int gradient = 0; gradient < 2; gradient++) {
        check_loss(d, 1, 0, 2, gradient);
        check_loss(d, 5, 3, 10, gradient);
        check_loss(d, 37, 11, 17, gradient);
        check_loss(d, 2, 1, 256, gradient);
        check_loss(d, 4, 3, 400, gradient);
        check_loss(d, 600, 90, 3, gradient);
    }
}

static void nan_in_the_loss_is_told(void **state)
{
    device *d = *state;
    enum { OPEN = 3, LABELLED = 2, C = 4, ROWS = OPEN * C + LABELLED, BASE = OPEN + LABELLED };
    for (size_t at = 0; at < 2 * ROWS + BASE * C; at++) {
        float recon[ROWS] = {0}, kl[ROWS] = {0}, logits[BASE * C] = {0};
        const uint32_t label[BASE] = {0, 1, 2, 3, 0};
        *(at < ROWS ? &recon[at] : at < 2 * ROWS ? &kl[at - ROWS] : &logits[at - 2 * ROWS]) = NAN;
        const vae_plan plan = {.beta = 1, .labelled_share = 0.5f, .step = 6};
        call c = {.d = d, .n_open = OPEN, .n_labelled = LABELLED, .C = C, .ce = 1};
        c.all_open = OPEN, c.all_labelled = LABELLED;
        c.logits = device_input(d, logits, BASE, C);
        c.recon = device_array_input(d, recon, ROWS), c.kl = device_array_input(d, kl, ROWS);
        c.label0 = labels_in(d, label, BASE);
        c.terms = device_array_output(d, 5 * BASE);
        c.totals = device_totals(d, &(vae_totals){0});
        run(&c, &plan, loss_step);
        assert_int_equal(device_get_totals(d, c.totals).bad_step, 6);
        device_clear(d);
    }
}

/* A layer of the classes' kind in an aux buffer where a plain one has been: the gradient is of the
 * activation that was last. */
static void stale_aux_step(void *ctx)
{
    call *c = ctx;
    const vae_backend_ops *ops = c->d->be->ops;
    ops->linear_forward(c->d->be, c->logits, c->aux, c->x, c->w, vae_pad(c->D), c->b, c->n, c->D,
                        c->out, c->act);
    ops->class_forward(c->d->be, c->y, c->aux, c->label, c->h, c->w, vae_pad(c->D), c->of, c->out,
                       c->act);
    ops->linear_backward_input(c->d->be, c->dlogits, c->db, c->x, c->w, vae_pad(c->out), c->y,
                               c->aux, c->n, c->out, c->D, c->act);
}

static void aux_is_of_the_layer_that_wrote_it_last(void **state)
{
    device *d = *state;
    enum { ROWS = 20, WIDTH = 32 };
    for (int act = VAE_ACT_RELU; act <= VAE_ACT_LAST; act++) {
        uint64_t rng = 5 + (uint64_t)act;
        call c = {.d = d, .D = WIDTH, .n = ROWS, .out = WIDTH, .C = 2, .act = (vae_activation)act};
        float *w = device_host(d, WIDTH * WIDTH), *x = random_matrix(d, &rng, ROWS * WIDTH);
        float *h = random_matrix(d, &rng, ROWS * WIDTH), *bias = device_host(d, WIDTH);
        double *want = device_host_doubles(d, ROWS * WIDTH);
        uint32_t label[ROWS];
        for (size_t i = 0; i < WIDTH; i++) { /* the identity: dx is x times the derivative */
            w[i * WIDTH + i] = 1;
        }
        for (size_t r = 0; r < ROWS; r++) {
            label[r] = 2; /* no class */
        }
        c.w = device_layer(d, w, bias, WIDTH, WIDTH, &c.b);
        c.x = device_input(d, x, ROWS, WIDTH), c.h = device_input(d, h, ROWS, WIDTH);
        c.y = device_output(d, ROWS, WIDTH), c.logits = device_output(d, ROWS, WIDTH);
        c.dlogits = device_output(d, ROWS, WIDTH), c.db = device_tensor_output(d, 1, WIDTH);
        c.of = (vae_class_rows){labels_in(d, label, ROWS), 0, ROWS, 2, 0, ROWS};
        c.label = labels_out(d, ROWS);
        size_t aux = d->be->ops->aux_bytes(d->be, c.act, ROWS, WIDTH);
        c.aux = aux > 0 ? device_array_output(d, (aux + 3) / 4) : NULL;
        run(&c, &(vae_plan){0}, stale_aux_step);
        for (size_t i = 0; i < ROWS * WIDTH; i++) {
            want[i] = (double)x[i] * ref_dact(c.act, (double)h[i]);
        }
        assert_close_to("dx", device_get_mat(d, c.dlogits, ROWS, WIDTH), want, ROWS * WIDTH, true);
        device_clear(d);
    }
}

static void scale_step(void *ctx)
{
    call *c = ctx;
    c->d->be->ops->scale_rows(c->d->be, c->x, c->db, c->factor, c->rows, c->D);
}

static void rows_are_scaled(void **state)
{
    device *d = *state;
    uint64_t rng = 8;
    for (size_t rows = 1; rows < 3000; rows = 3 * rows + 2) {
        const size_t D = rows % 217 + 3;
        float *values = device_host(d, rows * D), *factor = device_host(d, rows);
        double *want = device_host_doubles(d, rows * D);
        for (size_t i = 0; i < rows * D; i++) {
            values[i] = random_normal(&rng);
            factor[i / D] = (float)(i / D) * 0.25f;
        }
        call c = {.d = d, .rows = rows, .D = D};
        c.x = device_inout(d, values, rows, D);
        c.factor = device_array_input(d, factor, rows);
        c.db = rows % 3 != 0 ? device_tensor_output(d, 1, D) : NULL;
        run(&c, &(vae_plan){0}, scale_step);
        for (size_t i = 0; i < rows * D; i++) {
            want[i] = (double)values[i] * (double)factor[i / D];
        }
        assert_close_to("scaled", device_get_mat(d, c.x, rows, D), want, rows * D, true);
        if (c.db != NULL) {
            assert_close_to("sums of scaled rows", device_get_tensor(d, c.db, 1, D),
                            column_sums_of(d, want, rows, D), D, true);
        }
        device_clear(d);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(labelled_rows_are_cycled_through),
        device_test(labels_come_with_their_rows),
        device_test(missing_labels_are_told),
        device_test(rows_are_drawn_anew),
        device_test(classes_become_columns),
        device_test(a_layer_sees_every_class),
        device_test(a_layer_learns_from_every_class),
        device_test(the_largest_logit_wins),
        device_test(loss_over_classes),
        device_test(nan_in_the_loss_is_told),
        device_test(aux_is_of_the_layer_that_wrote_it_last),
        device_test(rows_are_scaled),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
