/* The parameter layout: what lies where, packing, and the initial parameters' distributions. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "backend/open.h"
#include "base/machine.h"
#include "model/model.h"
#include "model/workspace.h"

static vae_config config_of(vae_sizes hidden, vae_sizes decoder, size_t latent,
                            vae_likelihood likelihood)
{
    return (vae_config){.hidden = hidden,
                        .decoder_hidden = decoder,
                        .latent = latent,
                        .activation = VAE_ACT_TANH,
                        .likelihood = likelihood};
}

static param_layout build(const vae_config *config, size_t d)
{
    param_layout layout;
    vae_error err = {0};
    if (vae_layout_build(&layout, config, vae_flat(d), &err) != VAE_OK) {
        fail_msg("%s", err.text);
    }
    return layout;
}

typedef struct {
    const char *name;
    size_t rows, cols;
} expected_tensor;

/* Tensors in order, one behind the other, each row padded; layers that point at them. */
static void check_tensors(const param_layout *layout, const expected_tensor *want, size_t n)
{
    size_t at = 0, params = 0;
    assert_int_equal(layout->n, n);
    assert_int_equal(layout->n, 2 * (layout->n_encoder + layout->n_decoder));
    for (size_t i = 0; i < n; i++) {
        const tensor_desc *t = &layout->tensors[i];
        const layer_desc *layer = &layout->layers[i / 2];
        assert_string_equal(t->name, want[i].name);
        assert_int_equal(t->rows, want[i].rows);
        assert_int_equal(t->cols, want[i].cols);
        assert_int_equal(t->ld, (t->cols + 15) / 16 * 16);
        assert_int_equal(t->offset, at);
        at += t->rows * t->ld;
        params += t->rows * t->cols;
        assert_int_equal(i % 2 == 0 ? layer->weight : layer->bias, i);
        if (!layer->is_conv) {
            assert_int_equal(layer->out, i % 2 == 0 ? t->rows : t->cols);
            assert_int_equal(i % 2 == 0 ? layer->in : 1, i % 2 == 0 ? t->cols : t->rows);
        }
        bool linear = i / 2 == layout->n_encoder - 1 || i / 2 == n / 2 - 1;
        assert_int_equal(layer->act, linear ? VAE_ACT_NONE : VAE_ACT_TANH);
    }
    assert_int_equal(layout->total, at);
    assert_int_equal(layout->n_params, params);
}

static void tensors_of_the_default_model(void **state)
{
    (void)state;
    vae_config config = config_of((vae_sizes){1, {400}}, (vae_sizes){0}, 20, VAE_BERNOULLI);
    param_layout layout = build(&config, 784);
    const expected_tensor want[] = {{"encoder.0.weight", 400, 784},   {"encoder.0.bias", 1, 400},
                                    {"encoder.head.weight", 40, 400}, {"encoder.head.bias", 1, 40},
                                    {"decoder.0.weight", 400, 20},    {"decoder.0.bias", 1, 400},
                                    {"decoder.out.weight", 784, 400}, {"decoder.out.bias", 1, 784}};
    check_tensors(&layout, want, 8);
    assert_int_equal(layout.n_params, 652824); /* pytorch/examples' model */
    assert_int_equal(layout.d, 784);
    assert_int_equal(layout.z, 20);
    vae_layout_clear(&layout);
    assert_null(layout.tensors);
    vae_layout_clear(&layout);
}

static void decoders_mirror_or_are_their_own(void **state)
{
    (void)state;
    const vae_sizes hidden = {2, {300, 77}}, own = {1, {33}}, none = {0};
    vae_config config = config_of(hidden, none, 5, VAE_GAUSSIAN_LEARNED);
    param_layout layout = build(&config, 31);
    const expected_tensor mirrored[] = {
        {"encoder.0.weight", 300, 31},   {"encoder.0.bias", 1, 300},
        {"encoder.1.weight", 77, 300},   {"encoder.1.bias", 1, 77},
        {"encoder.head.weight", 10, 77}, {"encoder.head.bias", 1, 10},
        {"decoder.0.weight", 77, 5},     {"decoder.0.bias", 1, 77},
        {"decoder.1.weight", 300, 77},   {"decoder.1.bias", 1, 300},
        {"decoder.out.weight", 62, 300}, {"decoder.out.bias", 1, 62}};
    check_tensors(&layout, mirrored, 12);
    assert_int_equal(layout.n_encoder, 3);
    assert_int_equal(layout.n_decoder, 3);
    vae_layout_clear(&layout);

    config = config_of(hidden, own, 5, VAE_GAUSSIAN);
    layout = build(&config, 31);
    const expected_tensor apart[] = {{"encoder.0.weight", 300, 31},   {"encoder.0.bias", 1, 300},
                                     {"encoder.1.weight", 77, 300},   {"encoder.1.bias", 1, 77},
                                     {"encoder.head.weight", 10, 77}, {"encoder.head.bias", 1, 10},
                                     {"decoder.0.weight", 33, 5},     {"decoder.0.bias", 1, 33},
                                     {"decoder.out.weight", 31, 33},  {"decoder.out.bias", 1, 31}};
    check_tensors(&layout, apart, 10);
    vae_layout_clear(&layout);

    config = config_of(none, none, 1, VAE_BERNOULLI);
    layout = build(&config, 1);
    const expected_tensor linear[] = {{"encoder.head.weight", 2, 1},
                                      {"encoder.head.bias", 1, 2},
                                      {"decoder.out.weight", 1, 1},
                                      {"decoder.out.bias", 1, 1}};
    check_tensors(&layout, linear, 4);
    vae_layout_clear(&layout);
}

static void deepest_model(void **state)
{
    (void)state;
    vae_sizes most = {.n = VAE_MAX_LAYERS};
    for (size_t i = 0; i < VAE_MAX_LAYERS; i++) {
        most.size[i] = i + 1;
    }
    vae_config config = config_of(most, (vae_sizes){0}, 2, VAE_BERNOULLI);
    config.semi_supervised = true;
    config.classes = 2;
    param_layout layout = build(&config, 3);
    assert_int_equal(layout.n_encoder + layout.n_decoder + layout.n_classifier,
                     3 * VAE_MAX_LAYERS + 3);
    assert_int_equal(layout.n, 2 * (3 * VAE_MAX_LAYERS + 3));
    assert_string_equal(layout.tensors[101].name, "classifier.16.bias");
    assert_string_equal(layout.tensors[30].name, "encoder.15.weight");
    assert_string_equal(layout.tensors[65].name, "decoder.15.bias");
    assert_int_equal(layout.layers[17].out, 16);
    assert_int_equal(layout.layers[32].out, 1);
    vae_layout_clear(&layout);
    config.conv = most;
    const row_shape large = {65536, 65536, 1};
    assert_int_equal(vae_layout_build(&layout, &config, large, NULL), VAE_OK);
    assert_int_equal(layout.n_encoder + layout.n_decoder + layout.n_classifier, VAE_MAX_LAYER_ROWS);
    assert_int_equal(layout.layers[0].in, (size_t)1 << 32);
    assert_int_equal(layout.layers[16].in, 16 + 2);
    vae_layout_clear(&layout);
}

static void check_refusal(const vae_config *config, row_shape shape, const char *says)
{
    param_layout layout;
    vae_error err = {0};
    assert_int_equal(vae_layout_build(&layout, config, shape, &err), VAE_ERR_USAGE);
    if (strstr(err.text, says) == NULL) {
        fail_msg("'%s' does not say '%s'", err.text, says);
    }
}

static void convolutions_halve_pictures(void **state)
{
    (void)state;
    vae_config config = config_of((vae_sizes){1, {9}}, (vae_sizes){0}, 3, VAE_GAUSSIAN_LEARNED);
    config.conv = (vae_sizes){2, {5, 7}};
    config.condition = VAE_CONDITION_LABELS;
    config.classes = 4;
    param_layout layout;
    assert_int_equal(vae_layout_build(&layout, &config, (row_shape){12, 8, 3}, NULL), VAE_OK);
    const expected_tensor tensors[] = {
        {"encoder.0.weight", 5, 48},   {"encoder.0.bias", 1, 5},    {"encoder.1.weight", 7, 80},
        {"encoder.1.bias", 1, 7},      {"encoder.2.weight", 9, 46}, {"encoder.2.bias", 1, 9},
        {"encoder.head.weight", 6, 9}, {"encoder.head.bias", 1, 6}, {"decoder.0.weight", 9, 7},
        {"decoder.0.bias", 1, 9},      {"decoder.1.weight", 42, 9}, {"decoder.1.bias", 1, 42},
        {"decoder.2.weight", 7, 80},   {"decoder.2.bias", 1, 5},    {"decoder.out.weight", 5, 96},
        {"decoder.out.bias", 1, 6}};
    check_tensors(&layout, tensors, 16);
    assert_int_equal(layout.layers[1].beside, 4);
    assert_int_equal(layout.layers[layout.n_encoder + layout.n_decoder - 1].out, 2 * 12 * 8 * 3);
    assert_true(vae_layer_products(&layout.layers[0]) == 6 * 4 * 5 * 48);
    vae_layout_clear(&layout);
    check_refusal(&config, (row_shape){28, 30, 1},
                  "--image-size 28 or 32), or give --conv 1 layer");
    check_refusal(&config, (row_shape){3, 3, 1}, "--image-size 4)");
    check_refusal(&config, vae_flat(64), "--conv is for pictures");
}

static void classes_widen_the_first_layers(void **state)
{
    (void)state;
    vae_config config = config_of((vae_sizes){1, {8}}, (vae_sizes){0}, 3, VAE_GAUSSIAN_LEARNED);
    config.condition = VAE_CONDITION_LABELS;
    assert_int_equal(vae_layout_build(&(param_layout){0}, &config, vae_flat(6), NULL),
                     VAE_ERR_USAGE);
    config.classes = 10;
    param_layout layout = build(&config, 6);
    assert_int_equal(layout.n, 8);
    assert_int_equal(layout.c, 10);
    assert_int_equal(layout.tensors[0].cols, 16);
    assert_int_equal(layout.tensors[4].cols, 13);
    assert_int_equal(layout.layers[0].in, 16);
    assert_int_equal(layout.layers[3].out, 12);
    vae_layout_clear(&layout);
    config.condition = VAE_CONDITION_NONE;
    config.semi_supervised = true;
    layout = build(&config, 6);
    assert_int_equal(layout.n, 12);
    assert_string_equal(layout.tensors[8].name, "classifier.0.weight");
    assert_int_equal(layout.tensors[8].cols, 6);
    assert_string_equal(layout.tensors[10].name, "classifier.1.weight");
    assert_int_equal(layout.tensors[10].rows, 10);
    /* the two halves of a learned variance are the decoder's output alone */
    float *flat = calloc(layout.total, sizeof *flat);
    vae_layout_init(&layout, flat, VAE_INIT_GLOROT, 1);
    double most = 0;
    for (size_t i = 0; i < layout.tensors[10].rows * layout.tensors[10].ld; i++) {
        most = fmax(most, fabs((double)flat[layout.tensors[10].offset + i]));
    }
    assert_true(most > 0.8 * sqrt(6.0 / 18) && most <= sqrt(6.0 / 18));
    free(flat);
    vae_layout_clear(&layout);
    config.condition = VAE_CONDITION_NONE;
    config.semi_supervised = false; /* classes alone change nothing */
    layout = build(&config, 6);
    assert_int_equal(layout.c, 0);
    assert_int_equal(layout.tensors[0].cols, 6);
    vae_layout_clear(&layout);
}

static void sizes_beyond_memory_are_refused(void **state)
{
    (void)state;
    const size_t many[] = {SIZE_MAX, SIZE_MAX - 14, SIZE_MAX / 2 + 1, SIZE_MAX / 2 + 2,
                           (size_t)1 << 33};
    for (size_t i = 0; i < sizeof many / sizeof many[0]; i++) {
        for (int where = 0; where < 4; where++) {
            vae_config config = config_of((vae_sizes){1, {8}}, (vae_sizes){1, {8}}, 4,
                                          where == 3 ? VAE_GAUSSIAN_LEARNED : VAE_BERNOULLI);
            *(where == 0   ? &config.hidden.size[0]
              : where == 1 ? &config.latent
                           : &config.decoder_hidden.size[0]) = where == 3 ? 8 : many[i];
            param_layout layout;
            vae_error err = {0};
            assert_int_equal(
                vae_layout_build(&layout, &config, vae_flat(where == 3 ? many[i] : 5), &err),
                VAE_ERR_USAGE);
            assert_true(strlen(err.text) > 10);
            assert_null(layout.tensors);
        }
    }
    vae_config config = config_of((vae_sizes){1, {8}}, (vae_sizes){0}, 4, VAE_BERNOULLI);
    param_layout layout;
    vae_error err = {0};
    assert_int_equal(vae_layout_build(&layout, &config, vae_flat(0), &err), VAE_ERR_USAGE);
}

static void padding_sizes(void **state)
{
    (void)state;
    const size_t pairs[][2] = {{0, 0},   {1, 16},    {15, 16},  {16, 16},
                               {17, 32}, {784, 784}, {401, 416}};
    for (size_t i = 0; i < sizeof pairs / sizeof pairs[0]; i++) {
        assert_int_equal(vae_pad(pairs[i][0]), pairs[i][1]);
    }
}

static void packing_there_and_back(void **state)
{
    (void)state;
    vae_config config =
        config_of((vae_sizes){2, {33, 16}}, (vae_sizes){1, {1}}, 3, VAE_GAUSSIAN_LEARNED);
    param_layout layout = build(&config, 17);
    float *packed = malloc(layout.n_params * sizeof *packed),
          *again = malloc(layout.n_params * sizeof *again);
    float *flat = malloc(layout.total * sizeof *flat);
    for (size_t i = 0; i < layout.n_params; i++) {
        packed[i] = (float)(i + 1);
    }
    memset(flat, 0xFF, layout.total * sizeof *flat); /* NaN: padding must be set to zero */
    vae_layout_unpack(&layout, flat, packed);
    size_t n = 0, zeros = 0;
    for (size_t t = 0; t < layout.n; t++) {
        const tensor_desc *desc = &layout.tensors[t];
        for (size_t r = 0; r < desc->rows; r++) {
            for (size_t c = 0; c < desc->ld; c++) {
                float value = flat[desc->offset + r * desc->ld + c];
                assert_true(value == (c < desc->cols ? packed[n] : 0.0f));
                n += c < desc->cols;
                zeros += c >= desc->cols;
            }
        }
    }
    assert_int_equal(n, layout.n_params);
    assert_int_equal(n + zeros, layout.total);
    vae_layout_pack(&layout, again, flat);
    assert_memory_equal(again, packed, layout.n_params * sizeof *packed);
    free(packed), free(again), free(flat);
    vae_layout_clear(&layout);
}

/* ---- initial parameters ---- */

typedef struct {
    double mean, variance, least, most, fourth; /* fourth: moment over variance^2 */
    size_t n;
} moments;

static moments measure(const float *flat, const tensor_desc *t)
{
    moments m = {.least = INFINITY, .most = -INFINITY, .n = t->rows * t->cols};
    double n = (double)m.n;
    for (int pass = 0; pass < 2; pass++) {
        for (size_t i = 0; i < m.n; i++) {
            double v = (double)flat[t->offset + i / t->cols * t->ld + i % t->cols];
            m.least = fmin(m.least, v), m.most = fmax(m.most, v);
            m.mean += pass == 0 ? v / n : 0;
            m.variance += pass == 1 ? (v - m.mean) * (v - m.mean) / n : 0;
            m.fourth += pass == 1 ? pow(v - m.mean, 4) / n : 0;
        }
    }
    m.fourth /= m.variance * m.variance;
    return m;
}

/* Within five standard errors of U(-bound, bound), and inside it. */
static void assert_uniform(const char *name, moments m, double bound)
{
    const double n = (double)m.n, variance = bound * bound / 3;
    bool inside = m.least >= -bound && m.most <= bound;
    bool centred = fabs(m.mean) < 5 * sqrt(variance / n);
    bool spread = fabs(m.variance / variance - 1) < 5 * sqrt(0.8 / n);
    bool reaches = m.most > bound * (1 - 20 / n) && m.least < -bound * (1 - 20 / n);
    if (!inside || !centred || !spread || !reaches) {
        fail_msg("%s: mean %g, variance %g of %g, in [%g,%g] of +-%g", name, m.mean, m.variance,
                 variance, m.least, m.most, bound);
    }
}

static void assert_normal(const char *name, moments m, double variance)
{
    const double n = (double)m.n;
    if (fabs(m.mean) > 5 * sqrt(variance / n) ||
        fabs(m.variance / variance - 1) > 5 * sqrt(2 / n) ||
        fabs(m.fourth - 3) > 5 * sqrt(96 / n) || m.most < 2.5 * sqrt(variance)) {
        fail_msg("%s: mean %g, variance %g of %g, fourth %g, most %g", name, m.mean, m.variance,
                 variance, m.fourth, m.most);
    }
}

/* The head is two layers of Z in one matrix, a learned-variance output two of D: their bounds are
 * those of one. A hidden layer that happens to be as wide as such an output is one layer. */
static void check_init(vae_init init, vae_likelihood likelihood)
{
    enum { D = 60, Z = 40 };
    vae_config config = config_of((vae_sizes){2, {2 * D, 150}}, (vae_sizes){0}, Z, likelihood);
    param_layout layout = build(&config, D);
    float *flat = malloc(layout.total * sizeof *flat);
    memset(flat, 0xFF, layout.total * sizeof *flat);
    vae_layout_init(&layout, flat, init, 42);
    size_t padding = 0;
    for (size_t i = 0; i < layout.n; i++) {
        const tensor_desc *t = &layout.tensors[i];
        const layer_desc *layer = &layout.layers[i / 2];
        moments m = measure(flat, t);
        bool head = i / 2 == layout.n_encoder - 1, last = i / 2 == layout.n / 2 - 1;
        size_t out = head ? Z : last ? D : layer->out;
        double in = (double)layer->in;
        if (init == VAE_INIT_TORCH) {
            assert_uniform(t->name, m, 1 / sqrt(in));
        } else if (i % 2 == 1) {
            assert_true(m.least == 0 && m.most == 0);
        } else if (init == VAE_INIT_GLOROT) {
            assert_uniform(t->name, m, sqrt(6 / (in + (double)out)));
        } else {
            assert_normal(t->name, m, 2 / in);
        }
        for (size_t e = 0; e < t->rows * t->ld; e++) {
            bool pad = e % t->ld >= t->cols;
            padding += pad;
            assert_true(!pad || flat[t->offset + e] == 0.0f);
        }
    }
    assert_int_equal(padding, layout.total - layout.n_params);
    free(flat);
    vae_layout_clear(&layout);
}

static void initial_parameters(void **state)
{
    (void)state;
    for (int init = VAE_INIT_TORCH; init <= VAE_INIT_HE; init++) {
        check_init((vae_init)init, VAE_BERNOULLI);
        check_init((vae_init)init, VAE_GAUSSIAN_LEARNED);
    }
}

/* No tensor repeats another's numbers, no seed another's, and the same seed gives the same. */
static void initial_parameters_follow_the_seed(void **state)
{
    (void)state;
    vae_config config = config_of((vae_sizes){2, {20, 20}}, (vae_sizes){0}, 10, VAE_BERNOULLI);
    param_layout layout = build(&config, 20);
    float *a = malloc(layout.total * sizeof *a), *b = malloc(layout.total * sizeof *b);
    for (int init = VAE_INIT_TORCH; init <= VAE_INIT_HE; init++) {
        vae_layout_init(&layout, a, (vae_init)init, 1);
        vae_layout_init(&layout, b, (vae_init)init, 1);
        assert_memory_equal(a, b, layout.total * sizeof *a);
        vae_layout_init(&layout, b, (vae_init)init, (uint64_t)1 << 32 | 1);
        assert_true(a[0] != b[0] && a[1] != b[1]);
        const tensor_desc *first = &layout.tensors[0], *second = &layout.tensors[2];
        assert_int_equal(first->cols, second->cols);
        size_t same = 0;
        for (size_t i = 0; i < 400; i++) {
            size_t at = i / 20 * first->ld + i % 20;
            same += a[first->offset + at] == a[second->offset + at];
        }
        assert_int_equal(same, 0);
    }
    free(a), free(b);
    vae_layout_clear(&layout);
}

/* What passes at once holds 256 MiB of activations, unless more is asked for at least. */
static void rows_at_once(void **state)
{
    (void)state;
    vae_config config = config_of((vae_sizes){1, {400}}, (vae_sizes){0}, 20, VAE_BERNOULLI);
    config.particles = 1;
    assert_int_equal(vae_model_rows_at_once(&config, vae_flat(784), 1, 1024), 1024);
    /* x, z, 16, mu and logvar, 16, x_hat: 268435456 / 4 / 200038 */
    config = config_of((vae_sizes){1, {16}}, (vae_sizes){0}, 2, VAE_BERNOULLI);
    config.particles = 1;
    assert_int_equal(vae_model_rows_at_once(&config, vae_flat(100000), 1, 1024), 335);
    assert_int_equal(vae_model_rows_at_once(&config, vae_flat(100000), 400, 1024), 400);
    assert_int_equal(vae_model_rows_at_once(&config, vae_flat(100000), 1, 100), 100);
    assert_int_equal(vae_model_rows_at_once(&config, vae_flat(100000000), 1, 1024), 1);
    /* z, 16 and x_hat of ten: 100020 + 10 * 100018 */
    config.particles = 10;
    assert_int_equal(vae_model_rows_at_once(&config, vae_flat(100000), 1, 1024), 60);
    /* of 3 classes; z with the class beside it; the classifier's 16 and 3 once:
     * 100019 + 3 * (5 + 16 + 4 + 16 + 100000) */
    config.particles = 1;
    config.condition = VAE_CONDITION_LABELS;
    config.classes = 65536; /* beside x and beside z: 65636 + 65538 + 16 + 4 + 16 + 100 */
    assert_int_equal(vae_model_rows_at_once(&config, vae_flat(100), 1, 1024), 511);
    config.condition = VAE_CONDITION_NONE;
    config.semi_supervised = true;
    config.classes = 3;
    assert_int_equal(vae_model_rows_at_once(&config, vae_flat(100000), 1, 1024), 167);
}

/* A model that the machine has no memory for is refused before any of it is taken. */
static void models_beyond_memory_are_refused(void **state)
{
    (void)state;
    const vae_backend_options options = {.device = VAE_DEVICE_CPU, .threads = 1};
    const size_t memory = vae_machine_memory();
    vae_config config = config_of((vae_sizes){1, {16}}, (vae_sizes){0}, 2, VAE_BERNOULLI);
    vae_backend *be;
    vae_model *model;
    vae_error err = {0};
    char want[80];
    assert_int_equal(vae_backend_open(&be, &options, &err), VAE_OK);
    assert_true(memory > 1 << 28);
    config.particles = 1;
    const size_t batch = memory / 1600; /* x and x_hat of 100 floats, padded, are 896 bytes */
    assert_int_equal(vae_model_create(&model, &config, vae_flat(100), 2 * batch, false, be, &err),
                     VAE_ERR_RUNTIME);
    snprintf(want, sizeof want, "the activations of a batch of %zu need ", 2 * batch);
    assert_non_null(strstr(err.text, want));
    const char *fits = strstr(err.text, "; a batch of ");
    assert_non_null(fits);
    const size_t fit = strtoull(fits + strlen("; a batch of "), NULL, 10);
    assert_true(fit > batch / 2 && fit < 2 * batch);
    /* four times so many floats as half of the memory has */
    err = (vae_error){0};
    const size_t d = memory / 8 / 33;
    assert_int_equal(vae_model_create(&model, &config, vae_flat(d), 1, true, be, &err),
                     VAE_ERR_RUNTIME);
    assert_non_null(strstr(err.text, " parameters, their gradients and Adam's moments need "));
    snprintf(want, sizeof want, " bytes, there are %zu", memory);
    assert_non_null(strstr(err.text, want));
    be->ops->close(be);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(tensors_of_the_default_model),
        cmocka_unit_test(decoders_mirror_or_are_their_own),
        cmocka_unit_test(deepest_model),
        cmocka_unit_test(convolutions_halve_pictures),
        cmocka_unit_test(classes_widen_the_first_layers),
        cmocka_unit_test(sizes_beyond_memory_are_refused),
        cmocka_unit_test(rows_at_once),
        cmocka_unit_test(models_beyond_memory_are_refused),
        cmocka_unit_test(padding_sizes),
        cmocka_unit_test(packing_there_and_back),
        cmocka_unit_test(initial_parameters),
        cmocka_unit_test(initial_parameters_follow_the_seed),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
