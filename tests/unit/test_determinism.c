/* The same bits whatever the number of threads, for every operation, and on the CPU whatever the
 * instruction set level, for every loop; a whole training has those of every level with fused
 * multiply-adds, and is close to them on baseline. In bf16 (VAE_TEST_PRECISION) those
 * of all levels but the ones that multiply pairs, whose bits are their own. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "backend/cpu/cpu.h"
#include "backend/cpu/kernels.h"
#include "device.h"
#include "model/layout.h"
#include "model_fixture.h"
#include "philox.h"

/* ---- threads ---- */

enum { B = 67, K = 3, D = 257, Z = 33, H = 130, N_FLAT = 1 << 17 };

typedef struct {
    device *d;
    vae_data *data;
    vae_activation act;
    vae_likelihood likelihood;
    vae_objective objective;
    vae_mat x, y, dy, dx, z, head, dhead, dz, logits;
    void *aux;
    const float *w, *b;
    float *db_in, *db_out; /* bias gradients of the layers below and above */
    float *dw, *db, *kl_row, *log_pq, *kl_dim, *recon_row, *weight, *bound_row, *x_hat;
    float *flat[4];
    vae_totals *totals;
} all_ops;

static void every_operation(void *ctx)
{
    all_ops *c = ctx;
    vae_backend *be = c->d->be;
    const vae_backend_ops *op = be->ops;
    const vae_recon recon = {c->likelihood, 0.5f, VAE_MEAN_LINEAR};
    const size_t cols = vae_likelihood_of(c->likelihood)->outputs * D;
    vae_adam adam = vae_adam_of(0.9, 0.999, 1e-8);
    adam.weight_decay = 0.01f, adam.decoupled = 1;
    op->gather(be, c->x, c->data, B, D, VAE_BINARIZE_DYNAMIC, 5);
    op->linear_forward(be, c->y, c->aux, c->x, c->w, vae_pad(D), c->b, B, D, H, c->act);
    op->linear_backward_weight(be, c->dw, vae_pad(D), c->db, c->dy, c->x, B, D, H);
    op->linear_backward_input(be, c->dx, c->db_in, c->dy, c->w, vae_pad(D), c->x, NULL, B, D, H,
                              VAE_ACT_NONE);
    op->latent_forward(be, c->z, c->kl_row, c->log_pq, c->head, B, K, Z, (vae_noise){3});
    op->kl_dims(be, c->kl_dim, c->head, B, B, Z);
    op->decode(be, c->x_hat, c->logits, B * K, D, recon);
    op->recon_loss(be, c->recon_row, c->logits, NULL, c->logits, c->x, B, K, D, recon, 0.1f);
    op->particle_weights(be, c->weight, c->bound_row, c->logits, c->db_out, c->recon_row, c->log_pq,
                         B, K, cols);
    op->latent_backward(be, c->dhead, c->dz, c->head,
                        c->objective == VAE_OBJ_ELBO ? NULL : c->weight, NULL, B, K, Z,
                        (vae_latent_grad){c->objective, 0.01f, 0}, (vae_noise){3});
    op->accumulate(be, c->totals, c->recon_row, c->kl_row, c->bound_row, NULL, B, K, Z, 0);
    op->grad_norm(be, c->totals, c->flat[1], N_FLAT);
    op->adam(be, c->flat[0], c->flat[1], c->flat[2], c->flat[3], N_FLAT, c->totals, adam, 1);
}

static float *random_values(device *d, uint64_t *rng, size_t n)
{
    float *values = device_host(d, n);
    for (size_t i = 0; i < n; i++) {
        values[i] = random_normal(rng);
    }
    return values;
}

static void prepare(all_ops *c, uint64_t *rng, const vae_dataset *set)
{
    device *d = c->d;
    const size_t cols = vae_likelihood_of(c->likelihood)->outputs * D;
    float *w = random_values(d, rng, H * D), *b = random_values(d, rng, H);
    const vae_totals zero = {0};
    c->data = d->be->ops->data_open(d->be, set, NULL, set->n);
    for (int i = 0; i < 4; i++) {
        float *values = random_values(d, rng, N_FLAT);
        for (size_t j = 0; i == 3 && j < N_FLAT; j++) {
            values[j] = fabsf(values[j]); /* second moments */
        }
        c->flat[i] = device_array_inout(d, values, N_FLAT);
    }
    d->be->ops->bind_params(d->be, c->flat[0], N_FLAT); /* room for the sums over all of it */
    c->w = device_layer(d, w, b, H, D, &c->b);
    size_t aux = d->be->ops->aux_bytes(d->be, c->act, B, H);
    c->aux = aux > 0 ? device_array_output(d, (aux + 3) / 4) : NULL;
    c->x = device_output(d, B, D), c->y = device_output(d, B, H), c->dx = device_output(d, B, D);
    c->dy = device_input(d, random_values(d, rng, B * H), B, H);
    c->dw = device_tensor_output(d, H, D), c->db = device_tensor_output(d, 1, H);
    c->db_in = device_tensor_output(d, 1, D), c->db_out = device_tensor_output(d, 1, cols);
    c->head = device_input(d, random_values(d, rng, B * 2 * Z), B, 2 * Z);
    c->dz = device_input(d, random_values(d, rng, B * K * Z), B * K, Z);
    c->z = device_output(d, B * K, Z), c->dhead = device_output(d, B, 2 * Z);
    c->logits = device_inout(d, random_values(d, rng, B * K * cols), B * K, cols);
    c->kl_row = device_array_output(d, B), c->log_pq = device_array_output(d, B * K);
    c->kl_dim = device_array_output(d, Z), c->recon_row = device_array_output(d, B * K);
    c->weight = device_array_output(d, B * K), c->bound_row = device_array_output(d, B);
    c->x_hat = device_array_output(d, (size_t)B * K * D);
    c->totals = device_totals(d, &zero);
}

/* A hash of all results. */
static uint64_t results(size_t threads, vae_activation act, vae_likelihood likelihood,
                        vae_objective objective, const vae_dataset *set)
{
    device d;
    uint64_t rng = 17;
    const vae_plan plan = {.draw = 5,
                           .first = 20,
                           .shuffle = 1,
                           .order_key = 9,
                           .step = 1,
                           .beta = 0.5f,
                           .lr = 1e-3f,
                           .step_size = 1e-2f,
                           .rsqrt_c2 = 31};
    const size_t cols = vae_likelihood_of(likelihood)->outputs * D;
    device_begin(&d, threads);
    all_ops c = {.d = &d, .act = act, .likelihood = likelihood, .objective = objective};
    prepare(&c, &rng, set);
    device_run(&d, &plan, c.data, B, every_operation, &c);
    device_get_mat(&d, c.x, B, D), device_get_mat(&d, c.y, B, H), device_get_mat(&d, c.dx, B, D);
    device_get_tensor(&d, c.dw, H, D), device_get_tensor(&d, c.db, 1, H);
    device_get_tensor(&d, c.db_in, 1, D), device_get_tensor(&d, c.db_out, 1, cols);
    device_get_mat(&d, c.z, B * K, Z), device_get_mat(&d, c.dhead, B, 2 * Z);
    device_get_mat(&d, c.logits, B * K, cols);
    device_get_array(&d, c.kl_row, B), device_get_array(&d, c.log_pq, B * K);
    device_get_array(&d, c.kl_dim, Z), device_get_array(&d, c.recon_row, B * K);
    device_get_array(&d, c.weight, B * K), device_get_array(&d, c.bound_row, B);
    device_get_array(&d, c.x_hat, (size_t)B * K * D);
    for (int i = 0; i < 4; i++) {
        device_get_array(&d, c.flat[i], N_FLAT);
    }
    vae_totals totals = device_get_totals(&d, c.totals);
    assert_true(totals.bad_step == 0 && totals.examples == B && totals.grad_norm > 1);
    d.be->ops->data_close(d.be, c.data);
    device_clear(&d);
    uint64_t hash = d.hash;
    device_end(&d);
    return hash;
}

static void threads_leave_no_trace(void **state)
{
    (void)state;
    static const struct {
        vae_activation act;
        vae_likelihood likelihood;
        vae_objective objective;
    } cases[] = {{VAE_ACT_RELU, VAE_BERNOULLI, VAE_OBJ_ELBO},
                 {VAE_ACT_GELU, VAE_GAUSSIAN, VAE_OBJ_IWAE},
                 {VAE_ACT_TANH, VAE_GAUSSIAN_LEARNED, VAE_OBJ_DREG},
                 {VAE_ACT_SOFTPLUS, VAE_BERNOULLI, VAE_OBJ_STL}};
    const size_t threads[] = {2, 3, 8};
    vae_dataset set = {.n = 200, .d = D, .height = 1, .width = D, .channels = 1, .dtype = VAE_U8};
    set.rows = malloc(set.n * D);
    for (size_t i = 0; i < set.n * D; i++) {
        ((uint8_t *)set.rows)[i] = (uint8_t)(i * 31 + i / 7);
    }
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        uint64_t one = results(1, cases[i].act, cases[i].likelihood, cases[i].objective, &set);
        for (size_t t = 0; t < sizeof threads / sizeof threads[0]; t++) {
            assert_true(one == results(threads[t], cases[i].act, cases[i].likelihood,
                                       cases[i].objective, &set));
        }
    }
    free(set.rows);
}

/* ---- instruction set levels ---- */

enum { MOST = 1500 };

/* What one level makes of one size; a..d are random, e positive. */
typedef struct {
    float *out; /* 4 * MOST */
    const float *a, *b, *c, *d, *e;
    const uint8_t *bytes;
    size_t n;
} loops_call;

static void run_layers(const cpu_kernels *k, const loops_call *c, int act)
{
    const size_t rows = 3, cols = c->n / 3;
    memcpy(c->out, c->a, rows * cols * sizeof *c->out);
    k->bias_act(c->out, vae_act_keeps_input((vae_activation)act) ? c->out + MOST : NULL, cols, c->b,
                rows, cols, (vae_activation)act);
    memcpy(c->out + 2 * MOST, c->c, rows * cols * sizeof *c->out);
    k->act_grad(c->out + 2 * MOST, cols, c->out, cols, rows, cols, (vae_activation)act);
    k->column_sums(c->out + 3 * MOST, c->d, c->n / 20, 20, c->n / 20 < 64 ? c->n / 20 : 64);
}

static void run_latents(const cpu_kernels *k, const loops_call *c, int objective)
{
    const size_t quads = c->n / 4;
    k->normals(c->out, quads, 7, vae_rng_stream(VAE_RNG_EPS, 5), vae_rng_block(3, 1));
    k->latent_row(c->out + MOST, c->out + 4 * MOST - 1, c->a, c->b, c->d, c->n);
    c->out[4 * MOST - 2] = k->kl_row(c->a, c->b, c->n);
    memcpy(c->out + 2 * MOST, c->c, c->n / 2 * sizeof *c->out);
    memcpy(c->out + 3 * MOST, c->d, c->n / 2 * sizeof *c->out);
    k->latent_grad_row(c->out + 2 * MOST, c->out + 3 * MOST, c->e, c->a, c->b, c->d, c->n / 2, 0.3f,
                       0.1f, (vae_objective)objective);
}

static void run_losses(const cpu_kernels *k, const loops_call *c, int likelihood)
{
    const vae_recon recon = {(vae_likelihood)likelihood, 0.3f, VAE_MEAN_LINEAR};
    const size_t n = c->n / 2;
    c->out[4 * MOST - 1] = k->recon_row(c->out, c->a, c->e, n, recon, 0.7f);
    c->out[4 * MOST - 2] = k->recon_row(NULL, c->a, c->e, n, recon, 0.7f);
    k->decode_row(c->out + 2 * MOST, c->b, n, recon);
    memcpy(c->out + 3 * MOST, c->a, c->n * sizeof *c->out); /* in place */
    c->out[4 * MOST - 3] =
        k->recon_row(c->out + 3 * MOST, c->out + 3 * MOST, c->e, n / 2, recon, 1);
}

static void run_data(const cpu_kernels *k, const loops_call *c, int binarize)
{
    const vae_binarize b = (vae_binarize)binarize;
    k->convert_row(c->out, c->bytes, VAE_U8, c->n, b, 3, 1 << 20, 7);
    k->convert_row(c->out + MOST, c->e, VAE_F32, c->n, b, 3, 1 << 20, 7);
    k->convert_row(c->out + 2 * MOST, c->bytes, VAE_BITS, c->n, b, 3, 1 << 20, 7);
}

static void run_optimizer(const cpu_kernels *k, const loops_call *c, int decoupled)
{
    vae_adam adam = vae_adam_of(0.9, 0.999, 1e-8);
    adam.weight_decay = 0.01f, adam.decoupled = decoupled;
    memcpy(c->out, c->a, c->n * sizeof *c->out);
    memcpy(c->out + MOST, c->b, c->n * sizeof *c->out);
    memcpy(c->out + 2 * MOST, c->e, c->n * sizeof *c->out);
    k->adam(c->out, c->d, c->out + MOST, c->out + 2 * MOST, c->n, &adam, 0.9f, 1e-3f, 1e-2f, 30);
    double sum = k->sum_squares(c->d, c->n);
    memcpy(c->out + 3 * MOST, &sum, sizeof sum);
}

/* of n / 9 channels, and that many results a place */
static void run_transforms(const cpu_kernels *k, const loops_call *c, int line)
{
    const size_t n = c->n / 9;
    const float *d[9], *e[4];
    float *results[4];
    for (size_t i = 0; i < 9; i++) {
        d[i] = c->a + i * n;
    }
    for (size_t i = 0; i < 4; i++) {
        e[i] = c->b + i * n;
        results[i] = c->out + 2 * MOST + i * n;
    }
    k->window_9(c->out, n, d, n, line);
    k->filter_9(c->out + MOST, n, e, n, line);
    k->results_4(results, c->c, n, n);
}

typedef void run_loops(const cpu_kernels *k, const loops_call *c, int variant);

static void levels_give_the_same_bits(void **state)
{
    (void)state;
    static run_loops *const loops[] = {run_layers, run_latents,   run_losses,
                                       run_data,   run_optimizer, run_transforms};
    const int variants[] = {VAE_ACT_LAST + 1, 4, VAE_N_IN_STEP, 4, 2, ALL_LINES + 1};
    const size_t sizes[] = {12, 31, 33, 64, 65, 257, 1203};
    static float values[5][MOST], out[2][4 * MOST];
    static uint8_t bytes[MOST];
    vae_cpu_level best;
    uint64_t rng = 1;
    assert_int_equal(vae_cpu_level_choose(&best, NULL), VAE_OK);
    for (size_t i = 0; i < MOST; i++) {
        for (int v = 0; v < 5; v++) { /* large ones too, and e in [0,1] */
            values[v][i] = random_normal(&rng) * (i % 17 == 0 ? 30.0f : 1.0f);
        }
        values[4][i] = random_uniform(&rng, 0, 1);
        bytes[i] = (uint8_t)random_u64(&rng);
    }
    for (size_t s = 0; s < sizeof sizes / sizeof sizes[0]; s++) {
        for (size_t l = 0; l < sizeof loops / sizeof loops[0]; l++) {
            for (int v = 0; v < variants[l]; v++) {
                for (int level = VAE_CPU_BASELINE; level <= (int)best; level++) {
                    float *to = out[level > 0];
                    loops_call c = {to,        values[0], values[1], values[2],
                                    values[3], values[4], bytes,     sizes[s]};
                    memset(to, 0xFF, sizeof out[0]);
                    loops[l](vae_cpu_kernels((vae_cpu_level)level), &c, v);
                    if (memcmp(to, out[0], sizeof out[0]) != 0) {
                        fail_msg("loops %zu, variant %d, size %zu: %s differs from baseline", l, v,
                                 sizes[s], vae_cpu_kernels((vae_cpu_level)level)->isa);
                    }
                }
            }
        }
    }
    print_message("levels up to %s\n", vae_cpu_kernels(best)->isa);
}

static void levels_can_be_named(void **state)
{
    (void)state;
    vae_cpu_level best, got;
    vae_error err = {0};
    const char *was = getenv("VAE_ISA");
    char kept[32] = "";
    snprintf(kept, sizeof kept, "%s", was != NULL ? was : "");
    unsetenv("VAE_ISA");
    assert_int_equal(vae_cpu_level_choose(&best, NULL), VAE_OK);
    const char *const names[] = {"baseline", "avx2", "avx512", "avx512_bf16", "amx_bf16"};
    for (int i = 0; i < 5; i++) {
        setenv("VAE_ISA", names[i], 1);
        assert_int_equal(vae_cpu_level_choose(&got, NULL), VAE_OK);
        assert_int_equal(got, i < (int)best ? i : (int)best);
        assert_string_equal(vae_cpu_level_name(got), names[got]);
        assert_string_equal(vae_cpu_kernels(got)->isa, names[got < 2 ? (int)got : 2]);
    }
    setenv("VAE_ISA", "sse9", 1);
    assert_int_equal(vae_cpu_level_choose(&got, &err), VAE_ERR_USAGE);
    assert_non_null(strstr(err.text, "sse9"));
    setenv("VAE_ISA", kept, 1);
}

/* Three weights, the last one small: once they have been met, loops over blocks of parameters take
 * each block once, and the first half of them is the first halves of the weights. */
static void blocks_go_by_their_place_in_a_weight(void **state)
{
    (void)state;
    enum { IN = 512, OUT = 320, BLOCKS = 2 * IN * OUT / SUM_BLOCK + 1 };
    device d;
    uint64_t rng = 3;
    device_begin(&d, 1);
    const cpu_backend *be = vae_cpu_self(d.be);
    const size_t n = 2 * IN * OUT + IN;
    float *w = device_array_input(&d, random_values(&d, &rng, n), n);
    vae_mat x = device_input(&d, random_values(&d, &rng, IN), 1, IN), y = device_output(&d, 1, OUT);
    d.be->ops->bind_params(d.be, w, n);
    for (size_t i = 0; i < 3; i++) {
        d.be->ops->linear_forward(d.be, y, NULL, x, w + i * IN * OUT, IN, w, 1, IN, i < 2 ? OUT : 1,
                                  VAE_ACT_NONE);
    }
    assert_int_equal(be->n_weights, 3);
    int times[BLOCKS] = {0};
    for (size_t i = 0; i < BLOCKS; i++) {
        const size_t block = be->order[i], half = BLOCKS / 2;
        assert_true(block < BLOCKS);
        times[block]++;
        if (block < BLOCKS - 1) {
            assert_int_equal(block % half < half / 2, i < half);
        }
    }
    for (size_t i = 0; i < BLOCKS; i++) {
        assert_int_equal(times[i], 1);
    }
    device_end(&d);
}

/* A hundred steps on threads, of which fewer take part in some if they vary; params: what they end
 * with. */
static vae_totals train(const vae_config *config, int threads, bool vary, float *params)
{
    enum { N = 200, ROWS = 40, COLUMNS = 70 };
    model_fixture f;
    fixture_open(&f, config, VAE_U8, N, COLUMNS, ROWS, (size_t)threads);
    for (size_t t = 0; t < 100; t++) {
        for (int slot = 0; slot < VAE_SLOTS; slot++) {
            vae_team_size *team = &vae_cpu_self(f.be)->team[slot];
            team->fixed = true;
            team->fewer = vary ? (int)(5 * t % (size_t)threads) : 0;
        }
        vae_plan plan = still_plan(t, t * ROWS % N, 1);
        const double bias1 = 1 - pow(0.9, (double)t + 1), bias2 = 1 - pow(0.999, (double)t + 1);
        plan.lr = 1e-3f;
        plan.step_size = (float)(1e-3 / bias1);
        plan.rsqrt_c2 = (float)(1 / sqrt(bias2));
        plan.step = t + 1;
        vae_model_train(f.model, f.data, &plan, 1, ROWS);
    }
    const vae_totals totals = fixture_totals(&f);
    assert_int_equal(vae_model_get(f.model, VAE_PARAMS, params, NULL), VAE_OK);
    assert_true(totals.bad_step == 0 && totals.examples == 100 * ROWS);
    fixture_close(&f);
    return totals;
}

static vae_totals train_at(const char *isa, const vae_config *config, float *params)
{
    setenv("VAE_ISA", isa, 1);
    return train(config, 1, false, params);
}

enum { MOST_PARAMS = 8192 };

static void threads_may_change_between_steps(void **state)
{
    (void)state;
    static float one[MOST_PARAMS], other[MOST_PARAMS];
    vae_config config = small_config();
    config.hidden = (vae_sizes){1, {33}};
    const size_t n = ref_n_params(&config, 70);
    assert_true(n <= MOST_PARAMS);
    train(&config, 1, false, one);
    for (int threads = 2; threads <= 8; threads += 3) {
        train(&config, threads, true, other);
        assert_memory_equal(other, one, n * sizeof *one);
    }
}

static void assert_near(vae_totals got, vae_totals want, double few)
{
    if (!(fabs(got.recon - want.recon) < few * want.recon) ||
        !(fabs(got.kl - want.kl) < 10 * few * want.kl)) {
        fail_msg("recon %.9g, kl %.9g; expected %.9g, %.9g", got.recon, got.kl, want.recon,
                 want.kl);
    }
}

/* Baseline has no fused multiply-add, so its products round twice: other bits, and no further from
 * the fused ones than they are from the truth. */
static void training_at_every_level(void **state)
{
    (void)state;
    static float fused[MOST_PARAMS], other[MOST_PARAMS];
    vae_config config = small_config();
    vae_cpu_level best;
    const char *was = getenv("VAE_ISA");
    char kept[32] = "";
    snprintf(kept, sizeof kept, "%s", was != NULL ? was : "");
    unsetenv("VAE_ISA");
    assert_int_equal(vae_cpu_level_choose(&best, NULL), VAE_OK);
    config.hidden = (vae_sizes){1, {33}};
    config.latent = 5;
    /* of bf16 a value between two falls to either, and then it is another one */
    const double few = device_precision() == VAE_BF16 ? 1e-3 : 1e-5;
    for (int a = 0; a <= VAE_ACT_LAST; a++) {
        config.activation = (vae_activation)a;
        if (a == VAE_ACT_NONE) {
            continue;
        }
        const size_t n = ref_n_params(&config, 70);
        assert_true(n <= MOST_PARAMS);
        const vae_totals at_avx2 = train_at("avx2", &config, fused);
        train_at("avx512", &config, other);
        assert_memory_equal(other, fused, n * sizeof *fused);
        if (device_precision() == VAE_BF16) {
            const vae_totals pairs = train_at("avx512_bf16", &config, other);
            assert_near(pairs, at_avx2, few);
            assert_int_equal(memcmp(other, fused, n * sizeof *fused) == 0,
                             best < VAE_CPU_AVX512_BF16);
        }
        assert_near(train_at("baseline", &config, other), at_avx2, few);
        /* a processor without them has one level: then all three are the same; and a product of two
         * bf16 is a float, which is rounded once either way */
        const bool same = memcmp(other, fused, n * sizeof *fused) == 0;
        assert_int_equal(same, best == VAE_CPU_BASELINE || device_precision() == VAE_BF16);
    }
    setenv("VAE_ISA", kept, 1);
    if (was == NULL) {
        unsetenv("VAE_ISA");
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(threads_leave_no_trace),
        cmocka_unit_test(threads_may_change_between_steps),
        cmocka_unit_test(blocks_go_by_their_place_in_a_weight),
        cmocka_unit_test(levels_give_the_same_bits),
        cmocka_unit_test(levels_can_be_named),
        cmocka_unit_test(training_at_every_level),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
