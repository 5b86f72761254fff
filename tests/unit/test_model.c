/* The model as its callers use it: totals, details, state, slots, errors, training. The gradients
 * are in test_gradients.c. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "model_fixture.h"

/* Adam's corrections at step t, as the trainer's plan has them. */
static vae_plan train_plan(uint64_t t, uint64_t first, double lr)
{
    return (vae_plan){.draw = t,
                      .step = t,
                      .first = first,
                      .beta = 1,
                      .lr = (float)lr,
                      .step_size = (float)(lr / (1 - pow(0.9, (double)t))),
                      .rsqrt_c2 = (float)(1 / sqrt(1 - pow(0.999, (double)t)))};
}

static float *state_of(model_fixture *f, vae_state which)
{
    float *values = malloc(f->n_params * sizeof *values);
    vae_error err = {0};
    assert_non_null(values);
    assert_int_equal(vae_model_get(f->model, which, values, &err), VAE_OK);
    return values;
}

static void assert_floats(const char *what, const float *got, const double *want, size_t n)
{
    double bound = device_precision() == VAE_FP32 ? 1e-10 : 1e-3, error = nmse(got, want, n);
    if (!(error <= bound)) {
        fail_msg("%s: nmse %.3g", what, error);
    }
}

/* Every detail of a batch against the reference, for K below, at and beyond nothing special. */
static void check_batch(const vae_config *config, size_t rows, size_t K)
{
    enum { D = 9, N = 40, B = 33 };
    const size_t Z = config->latent;
    model_fixture f;
    fixture_open(&f, config, VAE_F32, N, D, B, 2);
    const vae_plan plan = {.draw = 3, .first = 6, .particle0 = 2};
    double *x = fixture_x(&f, 6, rows), *eps = fixture_eps(&f, &plan, rows, K);
    double *params = to_doubles(f.params, f.n_params), kl_dim[16], kl[B] = {0};
    ref_batch batch = {config, D, rows, K, 1, x, eps, NULL};
    double *want = calloc(rows * (2 * Z + K * (Z + 2 + D)), sizeof *want);
    float *got = calloc(rows * (1 + D + 2 * Z + K * (Z + 2 + D)) + Z, sizeof *got);
    ref_result r = {.mu = want};
    r.logvar = r.mu + rows * Z, r.z = r.logvar + rows * Z, r.recon_row = r.z + rows * K * Z;
    r.log_pq = r.recon_row + rows * K, r.x_hat = r.log_pq + rows * K;
    ref_forward(&r, &batch, params);
    ref_kl_dims(kl_dim, &batch, params);
    for (size_t i = 0; i < rows * Z; i++) {
        kl[i / Z] += 0.5 * (r.mu[i] * r.mu[i] + exp(r.logvar[i]) - 1 - r.logvar[i]);
    }
    vae_batch_out out = {.x = got};
    out.mu = out.x + rows * D, out.logvar = out.mu + rows * Z, out.z = out.logvar + rows * Z;
    out.kl = out.z + rows * K * Z, out.kl_dim = out.kl + rows, out.recon = out.kl_dim + Z;
    out.log_pq = out.recon + rows * K, out.x_hat = out.log_pq + rows * K;
    for (int whole = 1; whole >= 0; whole--) { /* then without what needs the decoder */
        memset(got, 0xFF, (rows * (1 + D + 2 * Z + K * (Z + 2)) + Z) * sizeof *got);
        vae_error err = {0};
        out.recon = whole ? out.recon : NULL;
        out.x_hat = whole ? out.x_hat : NULL;
        assert_int_equal(vae_model_batch(f.model, f.data, &plan, rows, K, &out, &err), VAE_OK);
        assert_floats("x", out.x, x, rows * D);
        assert_floats("mu", out.mu, r.mu, rows * Z);
        assert_floats("logvar", out.logvar, r.logvar, rows * Z);
        assert_floats("z", out.z, r.z, rows * K * Z);
        assert_floats("kl", out.kl, kl, rows);
        assert_floats("kl_dim", out.kl_dim, kl_dim, Z);
        assert_floats("log_pq", out.log_pq, r.log_pq, rows * K);
        if (whole) {
            assert_floats("recon", out.recon, r.recon_row, rows * K);
            assert_floats("x_hat", out.x_hat, r.x_hat, rows * K * D);
        }
    }
    assert_true(fixture_totals(&f).examples == 0); /* details count for nothing */
    free(x), free(eps), free(params), free(want), free(got);
    fixture_close(&f);
}

static void batches_in_detail(void **state)
{
    (void)state;
    vae_config config = small_config();
    config.particles = 20; /* 33 * 20 rows: x_hat comes in more than one piece */
    config.latent = 6;
    for (int likelihood = 0; likelihood < VAE_N_IN_STEP; likelihood++) {
        config.likelihood = (vae_likelihood)likelihood;
        config.activation = VAE_ACT_SOFTPLUS;
        config.objective = likelihood == VAE_GAUSSIAN ? VAE_OBJ_IWAE : VAE_OBJ_ELBO;
        check_batch(&config, 1, 1);
        check_batch(&config, 33, 20);
        check_batch(&config, 31, 3);
    }
}

static void single_details_may_be_asked_for(void **state)
{
    (void)state;
    vae_config config = small_config();
    model_fixture f;
    float all[4 * 3], one[4 * 3];
    const vae_plan plan = {.draw = 1};
    fixture_open(&f, &config, VAE_U8, 4, 5, 4, 1);
    vae_batch_out both = {.logvar = all, .mu = one}, alone = {.logvar = one}, none = {0};
    assert_int_equal(vae_model_batch(f.model, f.data, &plan, 4, 1, &both, NULL), VAE_OK);
    assert_int_equal(vae_model_batch(f.model, f.data, &plan, 4, 1, &alone, NULL), VAE_OK);
    assert_memory_equal(all, one, sizeof all);
    assert_int_equal(vae_model_batch(f.model, f.data, &plan, 4, 1, &none, NULL), VAE_OK);
    fixture_close(&f);
}

static void assert_same_totals(vae_totals a, vae_totals b)
{
    assert_true(a.recon == b.recon && a.kl == b.kl && a.objective == b.objective);
    assert_true(a.examples == b.examples);
}

/* Of steps whose matrix products are not asked for alike: rows, or what is kept for a backward. */
static void assert_equal_totals(vae_totals a, vae_totals b)
{
    const double x[] = {a.recon, a.kl, a.objective}, y[] = {b.recon, b.kl, b.objective};
    for (size_t i = 0; i < 3; i++) {
        assert_true(fabs(x[i] - y[i]) <= kernel_bound() * fabs(y[i]));
    }
    assert_true(a.examples == b.examples);
}

/* Measuring sees the losses that training sees, and a plan's steps add up. */
static void measuring_equals_training(void **state)
{
    (void)state;
    enum { N = 23, B = 8 };
    for (int objective = VAE_OBJ_ELBO; objective <= VAE_OBJ_STL; objective++) {
        vae_config config = small_config();
        model_fixture f;
        config.objective = (vae_objective)objective;
        config.particles = 3;
        config.free_bits = objective == VAE_OBJ_ELBO ? 0.5 : 0;
        config.binarize = VAE_BINARIZE_DYNAMIC;
        fixture_open(&f, &config, VAE_U8, N, 31, B, 2);
        vae_plan plan[3];
        vae_totals sum = {0}, part, all;
        for (size_t i = 0; i < 3; i++) {
            plan[i] = still_plan(i + 1, B * i, 0.6f);
            plan[i].shuffle = 1, plan[i].order_key = 99;
        }
        vae_model_train(f.model, f.data, plan, 2, B);
        vae_model_train(f.model, f.data, plan + 2, 1, N - 2 * B);
        vae_totals trained = fixture_totals(&f);
        assert_true(trained.grad_norm > 0);
        vae_model_measure(f.model, f.data, plan, 2, B);
        vae_model_measure(f.model, f.data, plan + 2, 1, N - 2 * B);
        all = fixture_totals(&f);
        assert_equal_totals(all, trained);
        for (size_t i = 0; i < 3; i++) {
            vae_model_measure(f.model, f.data, plan + i, 1, i < 2 ? B : N - 2 * B);
            part = fixture_totals(&f);
            sum.recon += part.recon, sum.kl += part.kl, sum.objective += part.objective;
            sum.examples += part.examples;
        }
        assert_true(fabs(sum.objective - all.objective) < 1e-9 * fabs(all.objective));
        assert_true(fabs(sum.recon - all.recon) < 1e-9 * all.recon && sum.examples == N);
        fixture_close(&f);
    }
}

/* A pass is told from another by each of its properties: right after each other on one model they
 * give what they give alone. */
static void passes_are_not_confused(void **state)
{
    (void)state;
    enum { N = 20, D = 9, Z = 3 };
    vae_config config = small_config();
    model_fixture f;
    float one[N * Z], two[2 * N * Z], other[N * Z], x_hat[2 * N * D];
    const vae_plan plan = still_plan(4, 0, 1);
    config.particles = 2;
    fixture_open(&f, &config, VAE_U8, N, D, N, 1);
    vae_data *half = f.be->ops->data_open(f.be, &f.set, (const uint32_t[]){7, 8, 9, 10}, 4);
    vae_batch_out out[] = {{.z = two}, {.z = one}, {.z = other}, {.z = one, .x_hat = x_hat}};
    assert_int_equal(vae_model_batch(f.model, f.data, &plan, 4, 2, &out[0], NULL), VAE_OK);
    assert_int_equal(vae_model_batch(f.model, f.data, &plan, 4, 1, &out[1], NULL), VAE_OK);
    assert_int_equal(vae_model_batch(f.model, half, &plan, 4, 1, &out[2], NULL), VAE_OK);
    for (size_t r = 0; r < 4; r++) { /* one particle's z is the first of two */
        assert_memory_equal(one + r * Z, two + 2 * r * Z, Z * sizeof *one);
        assert_memory_not_equal(one + r * Z, two + (2 * r + 1) * Z, Z * sizeof *one);
        assert_memory_not_equal(one + r * Z, other + r * Z, Z * sizeof *one);
    }
    assert_int_equal(vae_model_batch(f.model, f.data, &plan, 4, 2, &out[0], NULL), VAE_OK);
    for (size_t r = 0; r < 4; r++) {
        assert_memory_equal(one + r * Z, two + 2 * r * Z, Z * sizeof *one);
        assert_memory_not_equal(two + 2 * r * Z, two + (2 * r + 1) * Z, Z * sizeof *one);
    }
    assert_int_equal(vae_model_batch(f.model, f.data, &plan, 1, 1, &out[3], NULL), VAE_OK);
    assert_int_equal(vae_model_decode(f.model, x_hat + D, one, 1, NULL), VAE_OK);
    assert_memory_equal(x_hat, x_hat + D, D * sizeof *x_hat);
    f.be->ops->data_close(f.be, half);
    fixture_close(&f);
}

/* One particle's importance bound is recon - log p(z) + log q(z|x), whichever the estimator. */
static void bound_of_one_particle(void **state)
{
    (void)state;
    enum { N = 12 };
    for (int objective = VAE_OBJ_IWAE; objective <= VAE_OBJ_STL; objective++) {
        vae_config config = small_config();
        model_fixture f;
        float recon[N], log_pq[N];
        double bound = 0;
        const vae_plan plan = still_plan(1, 0, 1);
        config.objective = (vae_objective)objective;
        fixture_open(&f, &config, VAE_U8, N, 9, N, 1);
        vae_batch_out out = {.recon = recon, .log_pq = log_pq};
        assert_int_equal(vae_model_batch(f.model, f.data, &plan, N, 1, &out, NULL), VAE_OK);
        for (size_t i = 0; i < N; i++) {
            bound += (double)recon[i] - (double)log_pq[i];
        }
        vae_model_measure(f.model, f.data, &plan, 1, N);
        vae_totals totals = fixture_totals(&f);
        assert_true(fabs(totals.objective - bound) < 1e-5 * fabs(bound));
        fixture_close(&f);
    }
}

static void totals_clear_when_asked(void **state)
{
    (void)state;
    vae_config config = small_config();
    model_fixture f;
    vae_totals first, second;
    const vae_plan plan = still_plan(1, 0, 1);
    fixture_open(&f, &config, VAE_U8, 10, 9, 10, 1);
    vae_model_measure(f.model, f.data, &plan, 1, 10);
    assert_int_equal(vae_model_totals(f.model, &first, false, NULL), VAE_OK);
    second = fixture_totals(&f); /* clears */
    assert_same_totals(first, second);
    assert_true(first.examples == 10);
    second = fixture_totals(&f);
    assert_same_totals(second, (vae_totals){0});
    fixture_close(&f);
}

static void decoder_alone(void **state)
{
    (void)state;
    enum { N = 700, D = 9 };
    vae_config config = small_config();
    model_fixture f;
    uint64_t rng = 8;
    config.particles = 3;
    fixture_open(&f, &config, VAE_U8, 10, D, 100, 2);
    float *z = malloc(N * config.latent * sizeof *z), *x_hat = malloc(N * D * sizeof *x_hat);
    float *some = malloc(N * D * sizeof *some);
    for (size_t i = 0; i < N * config.latent; i++) {
        z[i] = random_normal(&rng);
    }
    assert_int_equal(vae_model_decode(f.model, x_hat, z, N, NULL), VAE_OK);
    assert_int_equal(vae_model_decode(f.model, some, z + 301 * config.latent, 5, NULL), VAE_OK);
    for (size_t i = 0; i < 5 * (size_t)D; i++) { /* 5 rows alone, or as rows 1 to 5 of 300 */
        assert_true(fabsf(some[i] - x_hat[301 * D + i]) <= (float)kernel_bound());
    }
    assert_int_equal(vae_model_decode(f.model, some, z, 0, NULL), VAE_OK);
    /* the same z through a batch, as the reference decodes it: no noise where sigma is 0 */
    double *params = to_doubles(f.params, f.n_params), *x = fixture_x(&f, 0, 1);
    double *want = malloc(N * D * sizeof *want), *latents = to_doubles(z, N * config.latent);
    for (size_t i = 0; i < ref_n_encoder(&config, D); i++) {
        params[i] = 0; /* mu = 0, logvar = 0: z = eps */
    }
    for (size_t i = 0; i < N; i++) {
        ref_batch batch = {&config, D, 1, 1, 1, x, latents + i * config.latent, NULL};
        ref_result r = {.x_hat = want + i * D};
        ref_forward(&r, &batch, params);
    }
    assert_floats("x_hat", x_hat, want, N * D);
    free(z), free(x_hat), free(some), free(params), free(x), free(want), free(latents);
    fixture_close(&f);
}

static void state_goes_in_and_out(void **state)
{
    (void)state;
    vae_config config = small_config();
    model_fixture f;
    uint64_t rng = 4;
    fixture_open(&f, &config, VAE_U8, 10, 9, 10, 1);
    float *values = malloc(f.n_params * sizeof *values);
    for (int which = VAE_PARAMS; which <= VAE_GRADS; which++) {
        for (size_t i = 0; i < f.n_params; i++) {
            values[i] = random_normal(&rng);
        }
        assert_int_equal(vae_model_set(f.model, (vae_state)which, values, NULL), VAE_OK);
        float *got = state_of(&f, (vae_state)which);
        assert_memory_equal(got, values, f.n_params * sizeof *values);
        free(got);
    }
    free(values);
    fixture_close(&f);
}

/* A model that is only used: nothing of training is allocated, everything else works. */
static void model_without_training(void **state)
{
    (void)state;
    vae_config config = small_config();
    model_fixture f;
    vae_model *model;
    float a[10 * 9], b[10 * 9];
    const vae_plan plan = still_plan(1, 0, 1);
    fixture_open(&f, &config, VAE_U8, 10, 9, 10, 1);
    assert_int_equal(vae_model_create(&model, &config, vae_flat(9), 10, false, f.be, NULL), VAE_OK);
    assert_int_equal(vae_model_set(model, VAE_PARAMS, f.params, NULL), VAE_OK);
    vae_batch_out out_a = {.x_hat = a}, out_b = {.x_hat = b};
    assert_int_equal(vae_model_batch(model, f.data, &plan, 10, 1, &out_a, NULL), VAE_OK);
    vae_totals used, trained;
    vae_model_measure(model, f.data, &plan, 1, 10);
    assert_int_equal(vae_model_totals(model, &used, true, NULL), VAE_OK);
    vae_model_free(model);
    /* two models on one backend: the other one's parameters are bound again */
    assert_int_equal(vae_model_set(f.model, VAE_PARAMS, f.params, NULL), VAE_OK);
    assert_int_equal(vae_model_batch(f.model, f.data, &plan, 10, 1, &out_b, NULL), VAE_OK);
    assert_memory_equal(a, b, sizeof a);
    vae_model_measure(f.model, f.data, &plan, 1, 10);
    trained = fixture_totals(&f);
    assert_same_totals(used, trained);
    fixture_close(&f);
    vae_model_free(NULL);
}

/* More shapes of a pass than there are slots, in turns: each gives what it gave at first. */
static void slots_are_taken_over(void **state)
{
    (void)state;
    enum { N = 30, D = 9, SHAPES = 3 * VAE_SLOTS };
    vae_config config = small_config();
    model_fixture f;
    vae_totals first[SHAPES];
    float batch[SHAPES][N * D], x_hat[N * D];
    config.particles = 2;
    fixture_open(&f, &config, VAE_U8, N, D, N, 2);
    vae_data *other = f.be->ops->data_open(f.be, &f.set, (const uint32_t[]){9, 8, 7, 6, 5, 4}, 6);
    for (int turn = 0; turn < 3; turn++) {
        for (size_t i = 0; i < SHAPES; i++) {
            const vae_plan plan = still_plan(i + 1, 0, 1);
            size_t rows = i / 3 % 5 + 2;
            vae_data *data = i % 2 == 0 ? f.data : other;
            if (i % 3 == 0) {
                vae_model_train(f.model, data, &plan, 1, rows);
            } else {
                vae_model_measure(f.model, data, &plan, 1, rows);
            }
            vae_totals totals = fixture_totals(&f);
            vae_batch_out out = {.x_hat = x_hat};
            assert_int_equal(vae_model_batch(f.model, data, &plan, rows, 1 + i % 2, &out, NULL),
                             VAE_OK);
            size_t n = rows * (1 + i % 2) * D;
            if (turn == 0) {
                first[i] = totals;
                memcpy(batch[i], x_hat, n * sizeof *x_hat);
            }
            assert_same_totals(totals, first[i]);
            assert_memory_equal(x_hat, batch[i], n * sizeof *x_hat);
        }
    }
    f.be->ops->data_close(f.be, other);
    fixture_close(&f);
}

static void too_much_is_refused(void **state)
{
    (void)state;
    vae_config config = small_config();
    model_fixture f;
    float mu[30 * 3];
    const vae_plan plan = {0};
    vae_batch_out out = {.mu = mu};
    config.particles = 2;
    fixture_open(&f, &config, VAE_U8, 30, 9, 10, 1);
    vae_error err = {0};
    assert_int_equal(vae_model_batch(f.model, f.data, &plan, 11, 1, &out, &err), VAE_ERR_RUNTIME);
    assert_non_null(strstr(err.text, "11"));
    err = (vae_error){0};
    assert_int_equal(vae_model_batch(f.model, f.data, &plan, 10, 3, &out, &err), VAE_ERR_RUNTIME);
    vae_model *model = f.model;
    err = (vae_error){0};
    assert_int_equal(vae_model_create(&model, &config, vae_flat(9), SIZE_MAX / 8, true, f.be, &err),
                     VAE_ERR_USAGE);
    assert_null(model);
    config.latent = (size_t)1 << 40;
    err = (vae_error){0};
    assert_int_equal(vae_model_create(&model, &config, vae_flat(9), 10, true, f.be, &err),
                     VAE_ERR_USAGE);
    assert_null(model);
    assert_int_equal(vae_model_batch(f.model, f.data, &plan, 10, 2, &out, NULL), VAE_OK);
    fixture_close(&f);
}

/* `steps` steps of Adam over a set, in an order that is shuffled anew each epoch. */
static void train(model_fixture *f, size_t steps, size_t rows, double lr, size_t at_once)
{
    vae_plan plan[80];
    const size_t labelled = vae_config_labelled_batch(&f->config);
    const size_t per_epoch = (f->set.n - labelled) / rows;
    for (size_t t = 0; t < steps; t += at_once) {
        size_t n = steps - t < at_once ? steps - t : at_once;
        for (size_t i = 0; i < n; i++) {
            plan[i] = train_plan(t + i + 1, (t + i) % per_epoch * rows, lr);
            plan[i].shuffle = 1;
            plan[i].order_key = (t + i) / per_epoch;
            plan[i].extra_n = (uint32_t)labelled, plan[i].extra_at = (uint32_t)rows;
            plan[i].extra_first = (t + i) * labelled, plan[i].labelled_share = 0.25f;
        }
        vae_model_train(f->model, f->data, plan, n, rows);
    }
}

/* Batches of 50 of 200, to the bit: whatever the number of threads and of steps asked for at once.
 */
static void check_repeats(const vae_config *config, size_t steps)
{
    static const struct {
        size_t threads, at_once;
    } cases[] = {{1, 1}, {2, 1}, {3, 16}, {8, 7}};
    float *first[3] = {NULL};
    vae_totals first_totals = {0};
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        model_fixture f;
        fixture_open(&f, config, VAE_U8, 200, 197, 50, cases[i].threads);
        train(&f, steps, 50, 1e-3, cases[i].at_once);
        vae_totals totals = fixture_totals(&f);
        first_totals = i == 0 ? totals : first_totals;
        assert_memory_equal(&totals, &first_totals, sizeof totals);
        for (int which = VAE_PARAMS; which <= VAE_ADAM_V; which++) {
            float *got = state_of(&f, (vae_state)which);
            if (i == 0) {
                first[which] = got;
            } else {
                assert_memory_equal(got, first[which], f.n_params * sizeof *got);
                free(got);
            }
        }
        fixture_close(&f);
    }
    for (int which = 0; which < 3; which++) {
        free(first[which]);
    }
}

static void training_repeats_to_the_bit(void **state)
{
    (void)state;
    vae_config config = small_config();
    config.hidden = (vae_sizes){2, {70, 33}};
    config.latent = 10;
    config.binarize = VAE_BINARIZE_DYNAMIC;
    config.optimizer = VAE_ADAMW;
    config.weight_decay = 0.01;
    config.clip_norm = 20;
    check_repeats(&config, 100);
}

/* The class of the next batch may be asked for while a step before it is under way. */
static void training_with_classes_repeats_to_the_bit(void **state)
{
    (void)state;
    vae_config config = small_config();
    config.classes = 3;
    config.condition = true;
    check_repeats(&config, 32);
    config.condition = false;
    config.semi_supervised = true;
    config.classifier_weight = 0.1;
    config.labelled = config.batch_size = 10;
    check_repeats(&config, 32);
}

/* Parameters after 67 steps asked for at once and 67 in small numbers; malloc'ed. */
static float *train_streamed(const vae_config *config, size_t n, size_t D, size_t rows,
                             const char *streamed)
{
    model_fixture f;
    setenv("VAE_CUDA_STREAM_DATA", streamed, 1);
    device_keep_none();
    fixture_open(&f, config, D > 1000 ? VAE_F32 : VAE_U8, n, D, rows, 4);
    const size_t steps = D > 1000 ? 7 : 67;
    train(&f, steps, rows, 1e-3, steps);
    train(&f, steps, rows, 1e-3, 5);
    float *got = state_of(&f, VAE_PARAMS);
    fixture_close(&f);
    device_keep_none();
    unsetenv("VAE_CUDA_STREAM_DATA");
    return got;
}

/* Rows that several threads read on the host are those that lie on the device: batches so small
 * that eight are staged at once, and batches of a MiB, each of which several threads read. */
static void streamed_rows_are_the_resident_ones(void **state)
{
    (void)state;
    static const struct {
        size_t n, D, rows;
    } cases[] = {{200, 197, 10}, {520, 2051, 129}};
    const vae_config config = small_config();
    if (!device_is_cuda()) {
        skip();
    }
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        const size_t n = cases[i].n, D = cases[i].D, rows = cases[i].rows;
        float *resident = train_streamed(&config, n, D, rows, "0");
        float *streamed = train_streamed(&config, n, D, rows, "1");
        assert_memory_equal(streamed, resident, ref_n_params(&config, D) * sizeof *resident);
        free(resident), free(streamed);
    }
}

/* What the largest step that was captured consists of, as describe() says. */
typedef struct {
    int nodes, chain, steps, chain_of_steps;
    bool emulated;
} graph_size;

static graph_size train_captured(model_fixture *f, size_t steps, size_t rows)
{
    graph_size size = {0};
    char text[4096];
    train(f, steps, rows, 1e-3, steps);
    f->be->ops->describe(f->be, text, sizeof text);
    const char *graphs = strstr(text, "graphs on (");
    assert_non_null(graphs);
    assert_int_equal(sscanf(graphs, "graphs on (%d nodes a step, %d in a chain; %d steps: %d)",
                            &size.nodes, &size.chain, &size.steps, &size.chain_of_steps),
                     4);
    size.emulated = strstr(text, "Emulated") != NULL && getenv("VAE_SIMT_LT_REFUSE") == NULL;
    return size;
}

/* What waits for what in a captured step. A chain goes from the batch to the update: a forward pass
 * and a gradient for every layer (of the first one the weights', of others that of the input), the
 * sampling and its gradient, the loss, the norm and the update; of hidden layers the activation's
 * gradient. The other sums are beside it, and the next step's batch is beside the update. A real
 * cuBLASLt may need more nodes for a product. */
static void little_waits_in_a_step(void **state)
{
    (void)state;
    if (!device_is_cuda()) {
        skip();
    }
    vae_config config = small_config();
    for (int classes = 0; classes < 2; classes++) {
        config.condition = classes ? VAE_CONDITION_LABELS : VAE_CONDITION_NONE;
        config.classes = classes ? 3 : 0;
        const int layers = 6, hidden = 4, batch = classes ? 3 : 1, advance = 1;
        model_fixture f;
        fixture_open(&f, &config, VAE_U8, 200, 20, 10, 1);
        const graph_size size = train_captured(&f, 16, 10);
        fixture_close(&f);
        const int step = size.chain - batch - advance;
        const int late = classes; /* nodes of the batch that outlast norm and update */
        assert_true(size.nodes >= size.chain + layers); /* weight gradients but one; totals */
        assert_true(size.chain_of_steps <= batch + size.steps * (step + late) - late + advance);
        /* z gets its class */
        assert_true(!size.emulated || step <= 2 * layers + hidden + 5 + classes);
    }
}

/* Convolutions of many pictures take turns: of a step of so many nodes no larger graph is made, and
 * one step after another does the same. */
static void large_steps_are_captured_alone(void **state)
{
    (void)state;
    enum { ROWS = 48, STEPS = 17, PICTURE = 64 };
    if (!device_is_cuda()) {
        skip();
    }
    vae_config config = small_config();
    model_fixture f;
    config.conv = (vae_sizes){1, {2}};
    fixture_open(&f, &config, VAE_U8, ROWS, PICTURE, ROWS, 1);
    const graph_size size = train_captured(&f, STEPS, ROWS);
    if (size.nodes <= 512) {
        fail_msg("a step of %d nodes: the case does not show what it is to", size.nodes);
    }
    assert_int_equal(size.chain_of_steps, 0);
    fixture_close(&f);
}

/* The optimizer that the config asks for, with its numbers: three steps beside Adam in double, fed
 * with the model's own gradients. */
static void check_optimizer(const vae_config *config)
{
    model_fixture f;
    const double b1 = config->adam_beta1, b2 = config->adam_beta2, lr = 0.01;
    const double decay = config->weight_decay;
    const bool decoupled = config->optimizer == VAE_ADAMW;
    fixture_open(&f, config, VAE_U8, 12, 9, 12, 1);
    double *p = to_doubles(f.params, f.n_params);
    double *m = calloc(f.n_params, sizeof *m), *v = calloc(f.n_params, sizeof *v);
    for (int t = 1; t <= 3; t++) {
        const double c1 = 1 - pow(b1, t), c2 = 1 - pow(b2, t);
        vae_plan plan = train_plan((uint64_t)t, 0, lr);
        plan.step_size = (float)(lr / c1), plan.rsqrt_c2 = (float)(1 / sqrt(c2));
        vae_model_train(f.model, f.data, &plan, 1, 12);
        const double norm = fixture_totals(&f).grad_norm;
        const double scale = config->clip_norm > 0 ? fmin(1, config->clip_norm / norm) : 1;
        float *g = state_of(&f, VAE_GRADS);
        for (size_t i = 0; i < f.n_params; i++) {
            double dg = scale * (double)g[i] + (decoupled ? 0 : decay * p[i]);
            m[i] = b1 * m[i] + (1 - b1) * dg;
            v[i] = b2 * v[i] + (1 - b2) * dg * dg;
            p[i] -= decoupled ? lr * decay * p[i] : 0;
            p[i] -= lr * (m[i] / c1) / (sqrt(v[i] / c2) + config->adam_eps);
        }
        free(g);
    }
    float *got[3] = {state_of(&f, VAE_PARAMS), state_of(&f, VAE_ADAM_M), state_of(&f, VAE_ADAM_V)};
    double *const want[3] = {p, m, v};
    for (int i = 0; i < 3; i++) {
        double error = nmse(got[i], want[i], f.n_params);
        if (!(error < 1e-11)) {
            fail_msg("state %d after three steps: nmse %.3g", i, error);
        }
        free(got[i]), free(want[i]);
    }
    fixture_close(&f);
}

static void optimizer_follows_the_config(void **state)
{
    (void)state;
    vae_config config = small_config();
    check_optimizer(&config);
    config.adam_beta1 = 0.7, config.adam_beta2 = 0.9, config.adam_eps = 0.01;
    config.clip_norm = 0.5;
    for (int optimizer = VAE_ADAM; optimizer <= VAE_ADAMW; optimizer++) {
        config.optimizer = (vae_optimizer)optimizer;
        config.weight_decay = 0.3;
        check_optimizer(&config);
    }
}

/* Two patterns with noise: every combination learns what it can. */
static void training_lowers_the_loss(void **state)
{
    (void)state;
    enum { N = 64, D = 32, STEPS = 100 };
    for (int objective = VAE_OBJ_ELBO; objective <= VAE_OBJ_STL; objective++) {
        for (int likelihood = 0; likelihood < VAE_N_IN_STEP; likelihood++) {
            vae_config config = small_config();
            model_fixture f;
            config.hidden = (vae_sizes){1, {16}};
            config.objective = (vae_objective)objective;
            config.particles = objective == VAE_OBJ_ELBO ? 1 : 2;
            config.likelihood = (vae_likelihood)likelihood;
            config.variance = 0.1;
            fixture_open(&f, &config, VAE_F32, N, D, N, 1);
            uint64_t rng = 77;
            float *rows = f.set.rows; /* changed before any gather: reopen the data */
            for (size_t i = 0; i < (size_t)N * D; i++) {
                bool on = i / D % 2 == i % D / 4 % 2;
                rows[i] = (on ? 0.9f : 0.1f) + random_uniform(&rng, -0.05f, 0.05f);
            }
            f.be->ops->data_close(f.be, f.data);
            f.data = f.be->ops->data_open(f.be, &f.set, NULL, N);
            const vae_plan plan = still_plan(1, 0, 1);
            vae_model_measure(f.model, f.data, &plan, 1, N);
            double before = fixture_totals(&f).objective / N;
            train(&f, STEPS, N, 1e-2, 16);
            assert_true(fixture_totals(&f).examples == (double)N * STEPS);
            vae_model_measure(f.model, f.data, &plan, 1, N);
            double after = fixture_totals(&f).objective / N;
            if (!(after < before - 2)) {
                fail_msg("objective %d likelihood %d: %.4f before, %.4f after", objective,
                         likelihood, before, after);
            }
            fixture_close(&f);
        }
    }
}

/* A NaN in the data of step 3: steps 1 and 2 count, nothing moves afterwards, the error says so. */
static void bad_step_changes_nothing(void **state)
{
    (void)state;
    enum { N = 20, D = 9, B = 4 };
    for (int kind = 0; kind < 2; kind++) { /* a NaN, or a value whose square overflows */
        vae_config config = small_config();
        model_fixture good, f;
        config.likelihood = VAE_GAUSSIAN;
        fixture_open(&good, &config, VAE_F32, N, D, B, 1);
        fixture_open(&f, &config, VAE_F32, N, D, B, 1);
        ((float *)f.set.rows)[(2 * B + 1) * D + 3] = kind == 0 ? NAN : 3e38f;
        f.be->ops->data_close(f.be, f.data);
        f.data = f.be->ops->data_open(f.be, &f.set, NULL, N);
        vae_plan plan[5];
        for (size_t i = 0; i < 5; i++) {
            plan[i] = train_plan(i + 1, B * i, 1e-3);
        }
        vae_model_train(good.model, good.data, plan, 2, B);
        vae_model_train(f.model, f.data, plan, 5, B);
        vae_totals totals = fixture_totals(&good);
        vae_error err = {0};
        assert_int_equal(vae_model_totals(f.model, &totals, false, &err), VAE_ERR_DIVERGED);
        assert_int_equal(totals.bad_step, 3);
        assert_non_null(strstr(err.text, "step 3"));
        for (int which = VAE_PARAMS; which <= VAE_ADAM_V; which++) {
            float *want = state_of(&good, (vae_state)which), *got = state_of(&f, (vae_state)which);
            assert_memory_equal(got, want, f.n_params * sizeof *got);
            free(want), free(got);
        }
        err = (vae_error){0};
        assert_int_equal(vae_model_totals(f.model, &totals, true, &err), VAE_ERR_DIVERGED);
        vae_model_train(f.model, f.data, plan + 3, 1, B); /* cleared: it may go on */
        assert_true(fixture_totals(&f).examples == B);
        fixture_close(&f);
        fixture_close(&good);
    }
}

/* Inf in a parameter, by whatever road, stops the step too. */
static void bad_parameters_are_noticed(void **state)
{
    (void)state;
    vae_config config = small_config();
    model_fixture f;
    vae_totals totals;
    fixture_open(&f, &config, VAE_U8, 10, 9, 10, 1);
    for (size_t i = 0; i < f.n_params; i += 13) {
        const float was = f.params[i];
        f.params[i] = NAN;
        assert_int_equal(vae_model_set(f.model, VAE_PARAMS, f.params, NULL), VAE_OK);
        const vae_plan plan = train_plan(7, 0, 1e-3);
        vae_model_train(f.model, f.data, &plan, 1, 10);
        vae_error err = {0};
        assert_int_equal(vae_model_totals(f.model, &totals, true, &err), VAE_ERR_DIVERGED);
        assert_int_equal(totals.bad_step, 7);
        f.params[i] = was;
    }
    fixture_close(&f);
}

int main(void)
{
    setenv("VAE_CUDA_PATCH_BYTES", "1", 0); /* convolutions take a turn for each picture */
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(batches_in_detail),
        cmocka_unit_test(single_details_may_be_asked_for),
        cmocka_unit_test(measuring_equals_training),
        cmocka_unit_test(passes_are_not_confused),
        cmocka_unit_test(bound_of_one_particle),
        cmocka_unit_test(totals_clear_when_asked),
        cmocka_unit_test(decoder_alone),
        cmocka_unit_test(state_goes_in_and_out),
        cmocka_unit_test(model_without_training),
        cmocka_unit_test(slots_are_taken_over),
        cmocka_unit_test(too_much_is_refused),
        cmocka_unit_test(training_repeats_to_the_bit),
        cmocka_unit_test(training_with_classes_repeats_to_the_bit),
        cmocka_unit_test(streamed_rows_are_the_resident_ones),
        cmocka_unit_test(little_waits_in_a_step),
        cmocka_unit_test(large_steps_are_captured_alone),
        cmocka_unit_test(optimizer_follows_the_config),
        cmocka_unit_test(training_lowers_the_loss),
        cmocka_unit_test(bad_step_changes_nothing),
        cmocka_unit_test(bad_parameters_are_noticed),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
