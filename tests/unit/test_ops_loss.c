/* The backend's operations against plain double-precision loops, part 2: losses, sums and the
 * optimizer. And a NaN anywhere must come to the totals' notice. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <float.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "device.h"
#include "reference.h"

typedef struct {
    device *d;
    size_t B, K, D, Z, n;
    vae_recon recon;
    float scale, free_bits, clip_norm;
    vae_mat x, logits, dlogits, z, head;
    float *db, *recon_row, *weight, *bound_row, *x_hat, *kl_out;
    const float *recon_in, *log_pq, *kl_in, *bound_in, *kl_dim, *g;
    float *p, *m, *v;
    vae_totals *totals;
    vae_adam adam;
    size_t cols, left;
} call;

/* ---- reconstruction ---- */

static void recon_step(void *ctx)
{
    call *c = ctx;
    c->d->be->ops->recon_loss(c->d->be, c->recon_row, c->dlogits, c->db, c->logits, c->x, c->B,
                              c->K, c->D, c->recon, c->scale);
}

/* Derivative of ref_recon by m (raw = 0) or by raw (raw = 1). */
static double drecon(vae_recon recon, double m, double raw, double x, bool by_raw)
{
    double variance = (double)recon.variance;
    if (recon.likelihood == VAE_BERNOULLI) {
        return 1 / (1 + exp(-m)) - x;
    }
    double dm = 1;
    if (recon.mean == VAE_MEAN_SIGMOID) {
        m = 1 / (1 + exp(-m)), dm = m * (1 - m);
    }
    if (recon.likelihood == VAE_GAUSSIAN_LEARNED) {
        variance = exp(-8 + log1p(exp(raw + 8)));
    }
    if (!by_raw) {
        return dm * (m - x) / variance;
    }
    return (0.5 - (m - x) * (m - x) / (2 * variance)) / (1 + exp(-raw - 8));
}

typedef enum { NOT_WANTED, APART, IN_PLACE } where;

static void check_recon(device *d, size_t B, size_t K, size_t D, vae_recon recon, where dlogits)
{
    const bool learned = recon.likelihood == VAE_GAUSSIAN_LEARNED;
    const size_t rows = B * K, cols = learned ? 2 * D : D;
    uint64_t rng = B + 100 * K + 10000 * D;
    float *x = device_host(d, B * D), *logits = random_floats(d, &rng, rows * cols, 2);
    double *row = device_host_doubles(d, rows), *dl = device_host_doubles(d, rows * cols);
    for (size_t i = 0; i < B * D; i++) {
        x[i] = i % 3 == 0 ? (float)(i % 2) : random_uniform(&rng, 0, 1);
    }
    call c = {.d = d, .B = B, .K = K, .D = D, .recon = recon, .scale = 0.37f};
    c.x = device_input(d, x, B, D);
    c.logits = dlogits == IN_PLACE ? device_inout(d, logits, rows, cols)
                                   : device_input(d, logits, rows, cols);
    c.dlogits = dlogits == APART ? device_output(d, rows, cols) : c.logits;
    c.dlogits.data = dlogits == NOT_WANTED ? NULL : c.dlogits.data;
    c.recon_row = device_array_output(d, rows);
    c.db = dlogits == NOT_WANTED ? NULL : device_tensor_output(d, 1, cols);
    for (size_t i = 0; i < rows * D; i++) {
        size_t r = i / D, j = i % D;
        double m = (double)logits[r * cols + j], value = (double)x[r / K * D + j];
        double raw = learned ? (double)logits[r * cols + D + j] : 0;
        row[r] += ref_recon(recon.likelihood, recon.mean, (double)recon.variance, m, raw, value);
        dl[r * cols + j] = (double)c.scale * drecon(recon, m, raw, value, false);
        if (learned) {
            dl[r * cols + D + j] = (double)c.scale * drecon(recon, m, raw, value, true);
        }
    }
    device_run(d, &(vae_plan){0}, NULL, B, recon_step, &c);
    assert_close_to("recon_row", device_get_array(d, c.recon_row, rows), row, rows, false);
    if (dlogits != NOT_WANTED) {
        assert_close_to("dlogits", device_get_mat(d, c.dlogits, rows, cols), dl, rows * cols, true);
        assert_close_to("db of dlogits", device_get_tensor(d, c.db, 1, cols),
                        column_sums_of(d, dl, rows, cols), cols, true);
    }
    device_clear(d);
}

static const vae_recon recons[] = {
    {VAE_BERNOULLI, 0, VAE_MEAN_LINEAR},     {VAE_GAUSSIAN, 1, VAE_MEAN_LINEAR},
    {VAE_GAUSSIAN, 0.04f, VAE_MEAN_LINEAR},  {VAE_GAUSSIAN_LEARNED, 1, VAE_MEAN_LINEAR},
    {VAE_GAUSSIAN, 0.04f, VAE_MEAN_SIGMOID}, {VAE_GAUSSIAN_LEARNED, 1, VAE_MEAN_SIGMOID}};

static void reconstruction_losses(void **state)
{
    static const size_t sizes[][3] = {{1, 1, 1},
                                      {1, 3, 31},
                                      {31, 1, 33},
                                      {33, 5, 2},
                                      {3, 3, 257},
                                      {257, 1, 16},
                                      {64, 1, 784},
                                      /* sums in two stages, in the loss and after it */
                                      {700, 3, 9},
                                      {2049, 1, 4},
                                      {520, 4, 131},
                                      {2100, 1, 1030}};
    for (size_t i = 0; i < sizeof sizes / sizeof sizes[0]; i++) {
        for (size_t r = 0; r < sizeof recons / sizeof recons[0]; r++) {
            for (int dlogits = NOT_WANTED; dlogits <= IN_PLACE; dlogits++) {
                check_recon(*state, sizes[i][0], sizes[i][1], sizes[i][2], recons[r],
                            (where)dlogits);
            }
        }
    }
}

/* Logits of any size give finite losses, and exact ones where the answer is certain. */
typedef struct {
    call c;
    vae_mat h;
    const float *w, *b;
    size_t in;
} last_layer_call;

static void last_layer_step(void *ctx)
{
    last_layer_call *l = ctx;
    call *c = &l->c;
    c->d->be->ops->linear_recon_loss(c->d->be, c->recon_row, c->dlogits, c->db, l->h, l->w,
                                     vae_pad(l->in), l->b, c->x, c->B, c->K, l->in, c->D, c->recon,
                                     c->scale);
}

static void check_last_layer(device *d, size_t B, size_t K, size_t in, size_t D, vae_recon recon)
{
    const size_t rows = B * K, cols = vae_likelihood_of(recon.likelihood)->outputs * D;
    uint64_t rng = B + 100 * K + 10000 * D + in;
    float *x = device_host(d, B * D), *h = random_floats(d, &rng, rows * in, 1);
    float *w = random_floats(d, &rng, cols * in, 1.5f / sqrtf((float)in));
    float *b = random_floats(d, &rng, cols, 1);
    double *row = device_host_doubles(d, rows), *dl = device_host_doubles(d, rows * cols);
    for (size_t i = 0; i < B * D; i++) {
        x[i] = i % 3 == 0 ? (float)(i % 2) : random_uniform(&rng, 0, 1);
    }
    device_round_weights(d, w, cols * in);
    last_layer_call l = {{.d = d, .B = B, .K = K, .D = D, .recon = recon, .scale = 0.37f},
                         .in = in};
    l.h = device_input(d, h, rows, in);
    l.w = device_layer(d, w, b, cols, in, &l.b);
    l.c.x = device_input(d, x, B, D), l.c.dlogits = device_output(d, rows, cols);
    l.c.recon_row = device_array_output(d, rows);
    l.c.db = K == 1 ? device_tensor_output(d, 1, cols) : NULL;
    for (size_t r = 0; r < rows; r++) {
        double *logits = dl + r * cols; /* until each is replaced by its derivative */
        for (size_t o = 0; o < cols; o++) {
            logits[o] = (double)b[o];
            for (size_t i = 0; i < in; i++) {
                logits[o] += (double)h[r * in + i] * (double)w[o * in + i];
            }
        }
        for (size_t j = 0; j < D; j++) {
            const double m = logits[j], raw = cols > D ? logits[D + j] : 0;
            const double value = (double)x[r / K * D + j];
            row[r] +=
                ref_recon(recon.likelihood, recon.mean, (double)recon.variance, m, raw, value);
            logits[j] = (double)l.c.scale * drecon(recon, m, raw, value, false);
            if (cols > D) {
                logits[D + j] = (double)l.c.scale * drecon(recon, m, raw, value, true);
            }
        }
    }
    device_run(d, &(vae_plan){0}, NULL, B, last_layer_step, &l);
    assert_close_to("recon_row", device_get_array(d, l.c.recon_row, rows), row, rows, true);
    assert_close_to("dlogits", device_get_mat(d, l.c.dlogits, rows, cols), dl, rows * cols, true);
    if (l.c.db != NULL) {
        assert_close_to("db of dlogits", device_get_tensor(d, l.c.db, 1, cols),
                        column_sums_of(d, dl, rows, cols), cols, true);
    }
    device_clear(d);
}

static void last_layer_and_loss(void **state)
{
    for (size_t i = 0; i < sizeof recons / sizeof recons[0]; i++) {
        check_last_layer(*state, 7, 3, 30, 21, recons[i]);
        check_last_layer(*state, 33, 1, 20, 64, recons[i]);
        check_last_layer(*state, 130, 2, 40, 300, recons[i]); /* in bf16 on the CPU one pass */
    }
}

/* Sizes that a GPU of compute capability 9.0 has a kernel of its own for (VAE_CUDA_HOPPER). */
static void last_layer_of_784_400_20(void **state)
{
    check_last_layer(*state, 1, 1, 400, 784, recons[0]);
    check_last_layer(*state, 131, 1, 400, 784, recons[0]);
    check_last_layer(*state, 45, 5, 304, 784, recons[0]);
    check_last_layer(*state, 20, 3, 441, 832, recons[0]);
}

static void large_logits_do_not_overflow(void **state)
{
    device *d = *state;
    enum { D = 6 };
    float x[D] = {0, 1, 0, 1, 0, 1};
    float logits[D] = {-1e4f, 1e4f, 88, -88, 104, -1e4f};
    call c = {.d = d, .B = 1, .K = 1, .D = D, .scale = 1};
    c.x = device_input(d, x, 1, D), c.logits = device_input(d, logits, 1, D);
    c.dlogits = device_output(d, 1, D), c.recon_row = device_array_output(d, 1);
    device_run(d, &(vae_plan){0}, NULL, 1, recon_step, &c);
    const double want = 88 + 88 + 104 + fabs((double)logits[5]);
    assert_true(fabs((double)device_get_array(d, c.recon_row, 1)[0] - want) < 1e-2);
    float *dl = device_get_mat(d, c.dlogits, 1, D);
    const float expected[D] = {0, 0, 1, -1, 1, -1};
    for (size_t i = 0; i < D; i++) {
        assert_true(fabsf(dl[i] - expected[i]) < 1e-6f);
    }
    device_clear(d);
}

static void decode_step(void *ctx)
{
    call *c = ctx;
    c->d->be->ops->decode(c->d->be, c->x_hat, c->logits, c->B, c->D, c->recon);
}

static void decoder_means(void **state)
{
    device *d = *state;
    static const size_t sizes[][2] = {{1, 1}, {1, 31}, {33, 33}, {5, 257}, {256, 7}, {20, 784}};
    for (size_t i = 0; i < sizeof sizes / sizeof sizes[0]; i++) {
        for (size_t r = 0; r < sizeof recons / sizeof recons[0]; r++) {
            const size_t rows = sizes[i][0], D = sizes[i][1];
            const size_t cols = vae_likelihood_of(recons[r].likelihood)->outputs * D;
            uint64_t rng = rows + D;
            float *logits = random_floats(d, &rng, rows * cols, 3);
            double *x_hat = device_host_doubles(d, rows * D);
            call c = {.d = d, .B = rows, .D = D, .recon = recons[r]};
            c.logits = device_input(d, logits, rows, cols);
            c.x_hat = device_array_output(d, rows * D);
            for (size_t e = 0; e < rows * D; e++) {
                double m = (double)logits[e / D * cols + e % D];
                const bool sigmoid =
                    recons[r].likelihood == VAE_BERNOULLI || recons[r].mean == VAE_MEAN_SIGMOID;
                x_hat[e] = sigmoid ? 1 / (1 + exp(-m)) : m;
            }
            device_run(d, &(vae_plan){0}, NULL, rows, decode_step, &c);
            assert_close_to("x_hat", device_get_array(d, c.x_hat, rows * D), x_hat, rows * D,
                            false);
            device_clear(d);
        }
    }
}

/* ---- importance weights ---- */

static void weights_step(void *ctx)
{
    call *c = ctx;
    c->left = c->d->be->ops->particle_weights(c->d->be, c->weight, c->bound_row, c->dlogits, c->db,
                                              c->recon_in, c->log_pq, c->B, c->K, c->cols);
}

/* Returns how many rows were dropped. */
static size_t check_weights(device *d, size_t B, size_t K, size_t cols, float spread, bool dlogits)
{
    const size_t rows = B * K;
    uint64_t rng = B + 100 * K + 10000 * cols;
    float *recon = random_floats(d, &rng, rows, spread), *pq = random_floats(d, &rng, rows, 3);
    float *dl = random_floats(d, &rng, rows * cols, 1);
    double *weight = device_host_doubles(d, rows), *bound = device_host_doubles(d, B);
    double *scaled = device_host_doubles(d, rows * cols);
    call c = {.d = d, .B = B, .K = K, .cols = cols};
    for (size_t r = 0; r < rows; r++) {
        recon[r] += 500; /* a usual loss: exp() of it would be 0 */
    }
    c.recon_in = device_array_input(d, recon, rows), c.log_pq = device_array_input(d, pq, rows);
    c.weight = device_array_output(d, rows), c.bound_row = device_array_output(d, B);
    c.dlogits = dlogits ? device_inout(d, dl, rows, cols) : (vae_mat){NULL, 0};
    c.db = dlogits ? device_tensor_output(d, 1, cols) : NULL;
    for (size_t b = 0; b < B; b++) {
        long double sum = 0, at = (long double)pq[b * K] - (long double)recon[b * K];
        for (size_t r = b * K; r < (b + 1) * K; r++) {
            sum += expl((long double)pq[r] - (long double)recon[r] - at);
        }
        bound[b] = (double)-(at + logl(sum / (long double)K));
        for (size_t r = b * K; r < (b + 1) * K; r++) {
            weight[r] = (double)(expl((long double)pq[r] - (long double)recon[r] - at) / sum);
            for (size_t i = 0; i < cols; i++) {
                scaled[r * cols + i] = weight[r] * (double)dl[r * cols + i];
            }
        }
    }
    device_run(d, &(vae_plan){0}, NULL, B, weights_step, &c);
    const float *got = device_get_array(d, c.weight, rows);
    assert_close_to("weight", got, weight, rows, false);
    assert_close_to("bound_row", device_get_array(d, c.bound_row, B), bound, B, false);
    size_t left = 0;
    for (size_t r = 0; r < rows; r++) {
        const bool dropped = d->be->ops->drop_rows != NULL && got[r] == 0.0f;
        const double floor =
            ldexp(1, -24) / (double)K; /* here where float and double agree on it */
        assert_true(fabs(weight[r] / floor - 1) < 1e-3 || dropped == (weight[r] < floor) ||
                    d->be->ops->drop_rows == NULL);
        if (!dropped) {
            memmove(scaled + left++ * cols, scaled + r * cols, cols * sizeof *scaled);
        }
    }
    assert_int_equal(c.left, left);
    if (dlogits) {
        assert_close_to("weighted dlogits", device_get_mat(d, c.dlogits, left, cols), scaled,
                        left * cols, true);
        assert_close_to("db of weighted dlogits", device_get_tensor(d, c.db, 1, cols),
                        column_sums_of(d, scaled, left, cols), cols, true);
    }
    device_clear(d);
    return rows - left;
}

static void particles_are_weighted(void **state)
{
    static const size_t sizes[][3] = {{1, 1, 1},   {1, 3, 31}, {31, 5, 33},  {33, 1, 257},
                                      {257, 3, 2}, {2, 64, 5}, {16, 5, 784}, {700, 3, 9}};
    device *d = *state;
    size_t dropped = 0;
    for (size_t i = 0; i < sizeof sizes / sizeof sizes[0]; i++) {
        for (int dlogits = 0; dlogits < 2; dlogits++) {
            check_weights(d, sizes[i][0], sizes[i][1], sizes[i][2], 2, dlogits);
            dropped += check_weights(d, sizes[i][0], sizes[i][1], sizes[i][2], 100, dlogits);
        }
    }
    assert_true((dropped > 1000) == (d->be->ops->drop_rows != NULL));
}

static void drop_step(void *ctx)
{
    call *c = ctx;
    c->d->be->ops->drop_rows(c->d->be, c->logits, c->weight, c->B, c->cols);
}

static void rows_of_no_weight_are_dropped(void **state)
{
    device *d = *state;
    static const size_t sizes[][2] = {{1, 1}, {5, 31}, {64, 33}, {500, 200}, {300, 1300}};
    for (size_t i = 0; i < sizeof sizes / sizeof sizes[0] && d->be->ops->drop_rows; i++) {
        const size_t rows = sizes[i][0], cols = sizes[i][1];
        for (uint64_t most = 0; most < 4; most++) { /* none, half, two thirds, all but few */
            uint64_t rng = rows + cols;
            float *m = random_floats(d, &rng, rows * cols, 1), *weight = device_host(d, rows);
            call c = {.d = d, .B = rows, .cols = cols};
            size_t left = 0;
            for (size_t r = 0; r < rows; r++) {
                weight[r] = random_u64(&rng) % (most == 3 ? 100 : most + 1) == 0 ? 0.5f : 0.0f;
            }
            weight[rows - 1] = 0.25f;
            c.logits = device_inout(d, m, rows, cols);
            c.weight = device_array_inout(d, weight, rows);
            device_run(d, &(vae_plan){0}, NULL, rows, drop_step, &c);
            for (size_t r = 0; r < rows; r++) {
                if (weight[r] > 0) {
                    memmove(m + left++ * cols, m + r * cols, cols * sizeof *m);
                }
            }
            assert_memory_equal(device_get_mat(d, c.logits, left, cols), m,
                                left * cols * sizeof *m);
            device_clear(d);
        }
    }
}

/* ---- totals ---- */

static void accumulate_step(void *ctx)
{
    call *c = ctx;
    c->d->be->ops->accumulate(c->d->be, c->totals, c->recon_in, c->kl_in, c->bound_in, c->kl_dim,
                              c->B, c->K, c->Z, c->free_bits);
}

static void assert_near(double got, double want, double relative)
{
    if (!(fabs(got - want) <= relative * fabs(want))) {
        fail_msg("%.17g, expected %.17g", got, want);
    }
}

static void check_accumulate(device *d, size_t B, size_t K, size_t Z, bool bound, float free_bits)
{
    uint64_t rng = B + K + Z;
    float *recon = random_floats(d, &rng, B * K, 50), *kl = random_floats(d, &rng, B, 5);
    float *bounds = random_floats(d, &rng, B, 50), *kl_dim = device_host(d, Z);
    const vae_totals before = {
        .recon = 10, .kl = 20, .objective = 30, .examples = 40, .grad_norm = 50};
    const vae_plan plan = {.beta = 0.3f, .step = 6};
    double sums[3] = {0}, penalty = 0;
    for (size_t i = 0; i < B * K; i++) {
        sums[0] += (double)recon[i] / (double)K;
    }
    for (size_t i = 0; i < B; i++) {
        sums[1] += (double)kl[i];
        sums[2] += (double)bounds[i];
    }
    for (size_t j = 0; j < Z; j++) {
        kl_dim[j] = 0.1f * (float)(j % 7);
        penalty += (double)B * (double)fmaxf(kl_dim[j], free_bits);
    }
    call c = {.d = d, .B = B, .K = K, .Z = Z, .free_bits = free_bits};
    c.recon_in = device_array_input(d, recon, B * K), c.kl_in = device_array_input(d, kl, B);
    c.bound_in = bound ? device_array_input(d, bounds, B) : NULL;
    c.kl_dim = free_bits > 0 ? device_array_input(d, kl_dim, Z) : NULL;
    c.totals = device_totals(d, &before);
    double objective = free_bits > 0 ? penalty : sums[1];
    objective = bound ? sums[2] : sums[0] + (double)plan.beta * objective;
    for (int turn = 1; turn <= 2; turn++) {
        device_run(d, &plan, NULL, B, accumulate_step, &c);
        vae_totals t = device_get_totals(d, c.totals);
        assert_near(t.recon, 10 + turn * sums[0], 1e-11);
        assert_near(t.kl, 20 + turn * sums[1], 1e-11);
        assert_near(t.objective, 30 + turn * objective, 1e-11);
        assert_near(t.examples, 40 + turn * (double)B, 0);
        assert_near(t.grad_norm, 50, 0);
        assert_int_equal(t.bad_step, 0);
    }
    device_clear(d);
}

static void totals_pile_up(void **state)
{
    static const size_t sizes[][3] = {
        {1, 1, 1}, {31, 3, 33}, {33, 5, 2}, {257, 1, 31}, {5000, 3, 20}};
    for (size_t i = 0; i < sizeof sizes / sizeof sizes[0]; i++) {
        const size_t *s = sizes[i];
        check_accumulate(*state, s[0], s[1], s[2], false, 0);
        check_accumulate(*state, s[0], s[1], s[2], false, 0.3f);
        check_accumulate(*state, s[0], s[1], s[2], true, 0);
    }
}

static void bad_sums_name_the_first_step(void **state)
{
    device *d = *state;
    enum { B = 300, K = 2 };
    float zero[B * K] = {0};
    for (int which = 0; which < 3; which++) {
        for (int kind = 0; kind < 3; kind++) {
            const float bad = kind == 0 ? NAN : kind == 1 ? INFINITY : -INFINITY;
            const vae_totals clear = {0};
            float values[B * K] = {0};
            values[which == 0 ? B * K - 1 : 257] = bad;
            call c = {.d = d, .B = B, .K = K, .Z = 1, .totals = device_totals(d, &clear)};
            const float *bads = device_array_input(d, values, B * K);
            const float *fine = device_array_input(d, zero, B * K);
            c.recon_in = c.kl_in = c.bound_in = fine;
            device_run(d, &(vae_plan){.step = 4}, NULL, B, accumulate_step, &c);
            assert_int_equal(device_get_totals(d, c.totals).bad_step, 0);
            c.recon_in = which == 0 ? bads : fine;
            c.kl_in = which == 1 ? bads : fine;
            c.bound_in = which == 2 ? bads : fine;
            for (uint64_t step = 5; step < 7; step++) {
                device_run(d, &(vae_plan){.step = step}, NULL, B, accumulate_step, &c);
                assert_int_equal(device_get_totals(d, c.totals).bad_step, 5);
            }
            device_clear(d);
        }
    }
}

static void grad_norm_step(void *ctx)
{
    call *c = ctx;
    c->d->be->ops->grad_norm(c->d->be, c->totals, c->g, c->n);
}

static void gradient_norms(void **state)
{
    device *d = *state;
    static const size_t sizes[] = {16, 48, 4096, 16384, 16400, 100000};
    const vae_totals before = {.recon = 1, .kl = 2, .objective = 3, .examples = 4, .grad_norm = 5};
    for (size_t i = 0; i < sizeof sizes / sizeof sizes[0]; i++) {
        for (int kind = 0; kind < 5; kind++) { /* as is, huge, then bad ones at the ends */
            const size_t n = sizes[i];
            uint64_t rng = n;
            double sum = 0;
            float *g = random_floats(d, &rng, n, kind == 1 ? 1e24f : 0.01f);
            g[n - 1] = kind == 2 ? NAN : kind == 3 ? INFINITY : g[n - 1];
            g[0] = kind == 4 ? -INFINITY : g[0];
            for (size_t j = 0; j < n; j++) {
                sum += (double)g[j] * (double)g[j];
            }
            call c = {.d = d, .n = n, .g = device_array_input(d, g, n)};
            c.totals = device_totals(d, &before);
            d->be->ops->bind_params(d->be, (float *)(uintptr_t)c.g, n); /* as the model does */
            device_run(d, &(vae_plan){.step = 8}, NULL, 1, grad_norm_step, &c);
            vae_totals t = device_get_totals(d, c.totals);
            assert_int_equal(t.bad_step, kind >= 2 ? 8 : 0);
            if (kind < 2) {
                assert_near(t.grad_norm, sqrt(sum), 1e-7);
            } else {
                assert_true(isfinite(t.grad_norm) == 0);
            }
            assert_true(t.recon == 1 && t.kl == 2 && t.objective == 3 && t.examples == 4);
            device_clear(d);
        }
    }
}

/* ---- the optimizer ---- */

static void adam_step(void *ctx)
{
    call *c = ctx;
    c->d->be->ops->adam(c->d->be, c->p, c->g, c->m, c->v, c->n, c->totals, c->adam, c->clip_norm);
}

/* Kingma & Ba's algorithm 1 as printed, with L2 or decoupled decay, in double. */
static void expect_adam(double *p, double *m, double *v, double g, const vae_adam *a, double lr,
                        int t)
{
    const double b1 = 1 - (double)a->rate1, b2 = (double)a->beta2;
    const double decay = (double)a->weight_decay;
    double before = *p;
    g += a->decoupled ? 0 : decay * before;
    *m = b1 * *m + (1 - b1) * g;
    *v = b2 * *v + (double)a->rate2 * g * g;
    *p -= lr * (*m / (1 - pow(b1, t))) / (sqrt(*v / (1 - pow(b2, t))) + (double)a->eps);
    *p -= a->decoupled ? lr * decay * before : 0;
}

static void check_adam(device *d, size_t n, vae_adam adam, float clip_norm, float norm)
{
    uint64_t rng = n + (size_t)adam.decoupled;
    float *p = random_floats(d, &rng, n, 1), *g = random_floats(d, &rng, n, 0.1f);
    float *zero = device_host(d, n);
    double *want = device_host_doubles(d, 3 * n), *m = want + n, *v = m + n;
    const vae_totals totals = {.grad_norm = (double)norm};
    const double scale = clip_norm > 0 && norm > clip_norm ? (double)clip_norm / (double)norm : 1;
    for (size_t i = n - n / 4; i < n; i++) {
        p[i] = g[i] = 0; /* padding stays zero */
    }
    for (size_t i = 0; i < n; i++) {
        want[i] = (double)p[i];
    }
    call c = {.d = d, .n = n, .adam = adam, .clip_norm = clip_norm};
    c.p = device_array_inout(d, p, n), c.g = device_array_input(d, g, n);
    c.m = device_array_inout(d, zero, n), c.v = device_array_inout(d, zero, n);
    c.totals = device_totals(d, &totals);
    d->be->ops->bind_params(d->be, c.p, n);
    for (int t = 1; t <= 5; t++) {
        const double lr = 0.01 / t, c1 = 1 - pow(1 - (double)adam.rate1, t);
        const vae_plan plan = {.lr = (float)lr,
                               .step_size = (float)(lr / c1),
                               .step = (uint64_t)t,
                               .rsqrt_c2 = (float)(1 / sqrt(1 - pow((double)adam.beta2, t)))};
        for (size_t i = 0; i < n; i++) {
            expect_adam(&want[i], &m[i], &v[i], scale * (double)g[i], &adam, lr, t);
        }
        device_run(d, &plan, NULL, 1, adam_step, &c);
    }
    float *got = device_get_array(d, c.p, n);
    assert_close_to("Adam's p", got, want, n, false);
    assert_close_to("Adam's m", device_get_array(d, c.m, n), m, n, false);
    assert_close_to("Adam's v", device_get_array(d, c.v, n), v, n, false);
    for (size_t i = n - n / 4; i < n; i++) {
        assert_true(got[i] == 0.0f);
    }
    /* from a bad step on nothing moves */
    const vae_totals bad = {.grad_norm = (double)norm, .bad_step = 3};
    d->be->ops->upload(d->be, c.totals, &bad, sizeof bad);
    float *was[3] = {got, device_get_array(d, c.m, n), device_get_array(d, c.v, n)};
    float *const now[3] = {c.p, c.m, c.v};
    device_run(d, &(vae_plan){.lr = 1, .step_size = 1, .rsqrt_c2 = 1}, NULL, 1, adam_step, &c);
    for (int i = 0; i < 3; i++) {
        assert_memory_equal(was[i], device_get_array(d, now[i], n), n * sizeof(float));
    }
    device_clear(d);
}

static void update_step(void *ctx)
{
    grad_norm_step(ctx);
    adam_step(ctx);
}

/* Norm and update in one step, where a backend may run them as one, are to the bit what they are one
 * by one: totals, and with a gradient or a step that is bad, too. kind: 0 fine, 1 clipped, 2 and 3 a
 * bad gradient, 4 a bad step before. */
static void check_update(device *d, size_t n, int kind)
{
    const vae_totals before = {.recon = 1, .examples = 4, .bad_step = kind == 4 ? 5 : 0};
    const vae_plan plan = {.lr = 0.01f, .step_size = 0.1f, .step = 7, .rsqrt_c2 = 30};
    uint64_t rng = n;
    float *p = random_floats(d, &rng, n, 1), *g = random_floats(d, &rng, n, 0.1f);
    float *m = random_floats(d, &rng, n, 0.1f), *v = device_host(d, n), *after[2][3];
    vae_totals totals[2];
    g[n / 3] = kind == 2 ? NAN : kind == 3 ? INFINITY : g[n / 3];
    for (int together = 0; together < 2; together++) {
        call c = {.d = d, .n = n, .adam = vae_adam_of(0.9, 0.999, 1e-8)};
        c.clip_norm = kind == 1 ? 0.01f : 0;
        c.g = device_array_input(d, g, n), c.p = device_array_inout(d, p, n);
        c.m = device_array_inout(d, m, n), c.v = device_array_inout(d, v, n);
        c.totals = device_totals(d, &before);
        d->be->ops->bind_params(d->be, c.p, n);
        if (together) {
            device_run(d, &plan, NULL, 1, update_step, &c);
        } else {
            device_run(d, &plan, NULL, 1, grad_norm_step, &c);
            device_run(d, &plan, NULL, 1, adam_step, &c);
        }
        totals[together] = device_get_totals(d, c.totals);
        after[together][0] = device_get_array(d, c.p, n);
        after[together][1] = device_get_array(d, c.m, n);
        after[together][2] = device_get_array(d, c.v, n);
    }
    assert_memory_equal(&totals[0], &totals[1], sizeof totals[0]);
    assert_int_equal(totals[1].bad_step, kind == 4 ? 5 : kind >= 2 ? 7 : 0);
    for (int i = 0; i < 3; i++) {
        assert_memory_equal(after[0][i], after[1][i], n * sizeof(float));
    }
    assert_true((memcmp(after[1][0], p, n * sizeof *p) != 0) == (kind < 2));
    device_clear(d);
}

static void norm_and_update_together(void **state)
{
    static const size_t sizes[] = {16, 4096, 100000, 700000};
    for (size_t i = 0; i < sizeof sizes / sizeof sizes[0]; i++) {
        for (int kind = 0; kind < 5; kind++) {
            check_update(*state, sizes[i], kind);
        }
    }
}

/* A CPU takes some 150 cycles for each denormal number, and moments decay into them; a GPU does not
 * mind. Every thread of the backend has its share. */
static void moments_do_not_stay_denormal(void **state)
{
    device *d = *state;
    enum { N = 1 << 16 };
    if (device_is_cuda()) {
        skip();
    }
    vae_backend *be = device_open_backend(3), *one = d->be;
    d->be = be;
    float *zero = device_host(d, N), *small = device_host(d, N), *p = device_host(d, N);
    for (size_t i = 0; i < N; i++) {
        small[i] = FLT_MIN;
        p[i] = 1;
    }
    call c = {
        .d = d, .n = N, .adam = {.rate1 = 0.1f, .beta2 = 0.999f, .rate2 = 0.001f, .eps = 1e-8f}};
    c.p = device_array_inout(d, p, N), c.g = device_array_input(d, zero, N);
    c.m = device_array_inout(d, small, N), c.v = device_array_inout(d, small, N);
    c.totals = device_totals(d, &(vae_totals){0});
    device_run(d, &(vae_plan){.lr = 1e-3f, .step_size = 1e-3f, .rsqrt_c2 = 1}, NULL, 1, adam_step,
               &c);
    const float *m = device_get_array(d, c.m, N), *v = device_get_array(d, c.v, N);
    for (size_t i = 0; i < N; i++) {
        assert_true(fpclassify(m[i]) != FP_SUBNORMAL && fpclassify(v[i]) != FP_SUBNORMAL);
    }
    /* and the caller's arithmetic is as it was */
    volatile float denormal = FLT_MIN;
    denormal *= 0.5f;
    assert_true(denormal > 0);
    device_clear(d);
    d->be = one;
    device_close_backend(be);
}

static void adam_follows_the_papers(void **state)
{
    static const size_t sizes[] = {16, 272, 16384, 16400, 40000};
    for (size_t i = 0; i < sizeof sizes / sizeof sizes[0]; i++) {
        for (int decoupled = 0; decoupled < 2; decoupled++) {
            vae_adam adam = vae_adam_of(0.9, 0.999, 1e-8);
            adam.decoupled = decoupled;
            check_adam(*state, sizes[i], adam, 0, 3);
            adam.weight_decay = 0.1f, adam.rate1 = 0.2f, adam.eps = 1e-3f;
            check_adam(*state, sizes[i], adam, 0, 3);
            check_adam(*state, sizes[i], adam, 5, 3);    /* below the threshold: as it is */
            check_adam(*state, sizes[i], adam, 0.5f, 3); /* above: scaled down */
        }
    }
}

/* ---- NaN ---- */

static void latent_step(void *ctx)
{
    call *c = ctx;
    c->d->be->ops->latent_forward(c->d->be, c->z, c->kl_out, NULL, c->head, c->B, 1, c->Z,
                                  (vae_noise){1});
    c->kl_in = c->kl_out;
    accumulate_step(c);
}

static void loss_step(void *ctx)
{
    recon_step(ctx);
    weights_step(ctx);
    accumulate_step(ctx);
}

/* One NaN in mu, logvar, logits or x, at any place, makes the step bad. */
static void nan_reaches_the_totals(void **state)
{
    device *d = *state;
    enum { B = 33, Z = 5, D = 37 };
    const vae_totals clear = {0};
    float zeros[B] = {0};
    for (size_t at = 0; at < (size_t)B * 2 * Z; at += 7) {
        float *head = device_host(d, (size_t)B * 2 * Z);
        head[at] = NAN;
        call c = {.d = d, .B = B, .K = 1, .Z = Z, .totals = device_totals(d, &clear)};
        c.head = device_inout(d, head, B, 2 * Z), c.z = device_output(d, B, Z);
        c.kl_out = device_array_output(d, B), c.recon_in = device_array_input(d, zeros, B);
        device_run(d, &(vae_plan){.step = 2, .beta = 1}, NULL, B, latent_step, &c);
        assert_int_equal(device_get_totals(d, c.totals).bad_step, 2);
        assert_true(isnan(device_get_mat(d, c.z, B, Z)[at / 10 * 5 + at % 5]));
        device_clear(d);
    }
    for (size_t r = 0; r < sizeof recons / sizeof recons[0]; r++) {
        const size_t cols = vae_likelihood_of(recons[r].likelihood)->outputs * D;
        for (size_t at = 0; at < B * cols + B * D; at += 23) {
            float *values = device_host(d, B * cols + (size_t)B * D);
            values[at] = NAN;
            call c = {.d = d, .B = B, .K = 1, .D = D, .Z = 1, .cols = cols, .recon = recons[r]};
            c.totals = device_totals(d, &clear), c.scale = 1;
            c.logits = c.dlogits = device_inout(d, values, B, cols);
            c.x = device_inout(d, values + B * cols, B, D);
            c.recon_row = device_array_output(d, B), c.recon_in = c.recon_row;
            c.log_pq = c.kl_in = device_array_input(d, zeros, B);
            c.weight = device_array_output(d, B), c.bound_row = device_array_output(d, B);
            c.bound_in = c.bound_row;
            device_run(d, &(vae_plan){.step = 2}, NULL, B, loss_step, &c);
            assert_int_equal(device_get_totals(d, c.totals).bad_step, 2);
            size_t row = at < B * cols ? at / cols : (at - B * cols) / D;
            assert_true(isnan(device_get_array(d, c.recon_row, B)[row]));
            assert_true(isnan(device_get_array(d, c.bound_row, B)[row]));
            device_clear(d);
        }
    }
}

/* One particle's NaN is not drowned by the others, wherever it stands. */
static void nan_reaches_the_bound(void **state)
{
    device *d = *state;
    enum { K = 5 };
    for (size_t at = 0; at < 2 * K; at++) {
        float values[2 * K] = {0};
        values[at] = NAN;
        call c = {.d = d, .B = 1, .K = K, .cols = 1};
        c.recon_in = device_array_input(d, values, K);
        c.log_pq = device_array_input(d, values + K, K);
        c.weight = device_array_output(d, K), c.bound_row = device_array_output(d, 1);
        device_run(d, &(vae_plan){0}, NULL, 1, weights_step, &c);
        assert_true(isnan(device_get_array(d, c.bound_row, 1)[0]));
        device_clear(d);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        device_test(reconstruction_losses),
        device_test(last_layer_and_loss),
        device_test(large_logits_do_not_overflow),
        device_test(decoder_means),
        device_test(particles_are_weighted),
        device_test(rows_of_no_weight_are_dropped),
        device_test(totals_pile_up),
        device_test(bad_sums_name_the_first_step),
        device_test(gradient_norms),
        device_test(adam_follows_the_papers),
        device_test(norm_and_update_together),
        device_test(moments_do_not_stay_denormal),
        device_test(nan_reaches_the_totals),
        device_test(nan_reaches_the_bound),
    };
    const struct CMUnitTest large_layers[] = {device_test(last_layer_of_784_400_20)};
    int failed = cmocka_run_group_tests(tests, NULL, NULL);
    device_keep_none();
    setenv("VAE_CUDA_HOPPER", "1", 1);
    return failed + cmocka_run_group_tests(large_layers, NULL, NULL);
}
