/* The option table, JSON both ways, and refused combinations. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/text.h"
#include "config/config.h"

static void assert_says(vae_status got, vae_status want, const vae_error *err, const char *says)
{
    if (got != want || (want != VAE_OK && strstr(err->text, says) == NULL)) {
        fail_msg("status %d, expected %d; '%s', expected to hold '%s'", got, want, err->text, says);
    }
}

static void test_defaults(void **state)
{
    (void)state;
    vae_config c;
    vae_config_defaults(&c);
    assert_int_equal(c.hidden.n, 1);
    assert_int_equal(c.hidden.size[0], 400);
    assert_int_equal(c.decoder_hidden.n, 0);
    assert_int_equal(c.latent, 20);
    assert_int_equal(c.activation, VAE_ACT_RELU);
    assert_int_equal(c.batch_size, 128);
    assert_int_equal(c.epochs, 10);
    assert_true(c.lr == 1e-3 && c.beta == 1 && c.adam_eps == 1e-8 && c.adam_beta2 == 0.999);
    assert_int_equal(c.seed, 1);
    assert_string_equal(c.exclude_class, "");
    assert_string_equal(c.data, "digits");
    vae_error err = {0};
    assert_int_equal(vae_config_check(&c, NULL, &err), VAE_OK);
}

/* Every row of the table: its default is inside its own bounds, and is what get gives back. */
static void test_table(void **state)
{
    (void)state;
    size_t n;
    const vae_option *o = vae_config_options(&n);
    bool letters[256] = {false};
    for (size_t i = 0; i < n; i++) {
        vae_config c;
        vae_error err = {0};
        char text[VAE_PATH], again[VAE_PATH];
        vae_config_defaults(&c);
        assert_says(vae_config_set(&c, o[i].name, o[i].default_value, &err), VAE_OK, &err, "");
        vae_config_get(&c, o[i].name, text, sizeof text);
        assert_int_equal(vae_config_set(&c, o[i].name, text, &err), VAE_OK);
        vae_config_get(&c, o[i].name, again, sizeof again);
        assert_string_equal(text, again);
        assert_int_equal(vae_config_find(o[i].name), i);
        assert_true(o[i].help != NULL && strlen(o[i].name) < 32);
        assert_false(o[i].letter != 0 && letters[(unsigned char)o[i].letter]);
        letters[(unsigned char)o[i].letter] = true;
    }
    assert_true(vae_config_find("batch_size") == vae_config_find("batch-size"));
    assert_true(vae_config_find("nope") == SIZE_MAX);
}

typedef struct {
    const char *name, *value;
    vae_status status;
    const char *says; /* the error, or the value that get gives */
} set_case;

static const set_case set_cases[] = {
    {"hidden", "500,200,7", VAE_OK, "500,200,7"},
    {"hidden", "1", VAE_OK, "1"},
    {"hidden", "1,2,3,4,5,6,7,8,9,10,11,12,13,14,15,16", VAE_OK, NULL},
    {"hidden", "1,2,3,4,5,6,7,8,9,10,11,12,13,14,15,16,17", VAE_ERR_USAGE, "up to 16"},
    {"hidden", "0", VAE_ERR_USAGE, "from 1"},
    {"hidden", "400,", VAE_ERR_USAGE, "found '400,'"},
    {"hidden", ",400", VAE_ERR_USAGE, ""},
    {"hidden", "4 00", VAE_ERR_USAGE, ""},
    {"hidden", "99999999999999999999", VAE_ERR_USAGE, ""},
    {"latent", "0", VAE_ERR_USAGE, "from 1 to 1048576"},
    {"latent", " 3", VAE_ERR_USAGE, ""},
    {"latent", "3x", VAE_ERR_USAGE, ""},
    {"latent", "", VAE_ERR_USAGE, ""},
    {"latent", "-1", VAE_ERR_USAGE, ""},
    {"activation", "gelu", VAE_OK, "gelu"},
    {"activation", "none", VAE_ERR_USAGE, "relu|tanh"},
    {"activation", "rleu", VAE_ERR_USAGE, "did you mean 'relu'"},
    {"likelihood", "gaussian-learned", VAE_OK, "gaussian-learned"},
    {"likelihood", "gauss", VAE_ERR_USAGE, "did you mean 'gaussian'"},
    {"lr", "0", VAE_ERR_USAGE, "above 0"},
    {"lr", "nan", VAE_ERR_USAGE, ""},
    {"lr", "inf", VAE_ERR_USAGE, ""},
    {"lr", "1e999", VAE_ERR_USAGE, ""},
    {"lr", "3e-4", VAE_OK, "0.0003"},
    {"beta", "0", VAE_OK, "0"},
    {"beta", "-0", VAE_OK, "0"},
    {"beta", "-1", VAE_ERR_USAGE, "at least 0"},
    {"adam-beta1", "1", VAE_ERR_USAGE, ""},
    {"seed", "18446744073709551615", VAE_OK, "18446744073709551615"},
    {"seed", "18446744073709551616", VAE_ERR_USAGE, ""},
    {"exclude-class", "-1", VAE_OK, "-1"},
    {"exclude-class", "9,a cat", VAE_OK, "9,a cat"},
    {"device", "cuda:3", VAE_OK, "cuda:3"},
    {"device", "cuda", VAE_OK, "cuda"},
    {"device", "cuda:", VAE_ERR_USAGE, "cuda:N"},
    {"device", "gpu", VAE_ERR_USAGE, ""},
    {"output-bias-from-data", "true", VAE_OK, "true"},
    {"output-bias-from-data", "yes", VAE_ERR_USAGE, "true or false"},
    {"data", "a\xff", VAE_ERR_USAGE, "UTF-8"},
    {"data", "d\xc3\xa4ten/\"x\"", VAE_OK, "d\xc3\xa4ten/\"x\""},
    {"batchsize", "3", VAE_ERR_USAGE, "did you mean 'batch-size'"},
    {"xyzzy-foo", "3", VAE_ERR_USAGE, "unknown option 'xyzzy-foo'"},
};

static void test_set(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof set_cases / sizeof set_cases[0]; i++) {
        const set_case *t = &set_cases[i];
        vae_config c, before;
        vae_error err = {0};
        char text[VAE_PATH];
        vae_config_defaults(&c);
        before = c;
        vae_status status = vae_config_set(&c, t->name, t->value, &err);
        assert_says(status, t->status, &err, t->says);
        if (status != VAE_OK) {
            assert_memory_equal(&c, &before, sizeof c);
        } else if (t->says != NULL) {
            vae_config_get(&c, t->name, text, sizeof text);
            assert_string_equal(text, t->says);
        }
    }
    vae_config c;
    vae_error err = {0};
    char path[VAE_PATH + 1];
    memset(path, 'a', VAE_PATH);
    path[VAE_PATH] = '\0';
    vae_config_defaults(&c);
    assert_int_equal(vae_config_set(&c, "out", path, &err), VAE_ERR_USAGE);
    path[VAE_PATH - 1] = '\0';
    assert_int_equal(vae_config_set(&c, "out", path, NULL), VAE_OK);
}

/* Odd values of every kind survive JSON to the last bit. */
static void test_json_round_trip(void **state)
{
    (void)state;
    static const char *const values[][2] = {
        {"hidden", "500,200,7"},
        {"decoder-hidden", "3,4"},
        {"lr", "0.00072131415161718"},
        {"beta", "0.1"},
        {"adam-beta1", "0.999999"},
        {"seed", "18446744073709551615"},
        {"data", "a \"b\"\\\n\xc3\xa4"},
        {"exclude-class", "7"},
        {"device", "cuda:2"},
        {"limit", "999999999999999"},
        {"lr-schedule", "staged"},
        {"output-bias-from-data", "true"},
        {"kl-warmup", "2.5"},
        {"activation", "leaky_relu"},
        {"variance", "1e-300"},
    };
    vae_config c, back;
    vae_error err = {0};
    vae_config_defaults(&c);
    for (size_t i = 0; i < sizeof values / sizeof values[0]; i++) {
        assert_says(vae_config_set(&c, values[i][0], values[i][1], &err), VAE_OK, &err, "");
    }
    char *text = vae_config_to_json(&c);
    assert_non_null(text);
    assert_int_equal(text[strlen(text) - 1], '\n');
    assert_non_null(strstr(text, "\"seed\": \"18446744073709551615\""));
    assert_non_null(strstr(text, "\"hidden\": [500,200,7]"));
    assert_non_null(strstr(text, "\"beta\": 0.1,"));
    vae_config_defaults(&back);
    assert_says(vae_config_from_json(&back, text, "t", &err), VAE_OK, &err, "");
    assert_true(vae_config_difference(&c, &back, NULL) == SIZE_MAX);
    assert_memory_equal(&c.lr, &back.lr, sizeof c.lr);
    assert_true(c.variance == back.variance && c.seed == back.seed);
    free(text);
}

static void test_json_refused(void **state)
{
    (void)state;
    static const char *const cases[][2] = {
        {"{\"lrr\": 1}", "did you mean 'lr'"},
        {"{\"lr\": 1, \"lr\": 2}", "duplicate"},
        {"{\"lr\": \"1\"}", "lr: expected a number"},
        {"{\"lr\": null}", "expected a number"},
        {"{\"latent\": 1.5}", "expected a whole number"},
        {"{\"latent\": -3}", "found '-3'"},
        {"{\"hidden\": [1, \"2\"]}", "expected an array"},
        {"{\"hidden\": [[1]]}", "expected an array"},
        {"{\"hidden\": [1, -2]}", "found '1,-2'"},
        {"{\"output-bias-from-data\": 1}", "true or false"},
        {"{\"data\": 1}", "expected a string"},
        {"{\"data\": \"a\\u0000b\"}", ""},
        {"{\"schema\": 2}", "schema"},
        {"[1]", "expected an object"},
        {"3", "expected an object"},
        {"{\"lr\": NaN}", "not JSON"},
        {"{\"lr\": 1", "not JSON"},
        {"", "not JSON"},
        {"{} x", "not JSON"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        vae_config c, before;
        vae_error err = {0};
        vae_config_defaults(&c);
        before = c;
        assert_says(vae_config_from_json(&c, cases[i][0], "file.json", &err), VAE_ERR_USAGE, &err,
                    cases[i][1]);
        assert_non_null(strstr(err.text, "file.json: "));
        assert_memory_equal(&c, &before, sizeof c);
    }
    vae_config c;
    vae_config_defaults(&c);
    assert_int_equal(
        vae_config_from_json(&c, "{\"seed\": 7, \"hidden\": 9, \"batch_size\": 4}", "f", NULL),
        VAE_OK);
    assert_true(c.seed == 7 && c.hidden.size[0] == 9 && c.batch_size == 4 && c.latent == 20);
}

typedef struct {
    const char *set[4][2]; /* up to NULL */
    const char *says;      /* NULL = allowed */
} check_case;

static const check_case check_cases[] = {
    {{{"variance", "2"}}, "--variance has no effect"},
    {{{"variance", "2"}, {"likelihood", "gaussian"}}, NULL},
    {{{"variance", "2"}, {"likelihood", "gaussian-optimal"}}, NULL},
    {{{"variance", "2"}, {"likelihood", "gaussian-learned"}}, "--variance has no effect"},
    {{{"binarize", "dynamic"}}, NULL},
    {{{"binarize", "dynamic"}, {"likelihood", "gaussian"}}, "--binarize"},
    {{{"lr-gamma", "0.5"}}, "--lr-gamma has no effect"},
    {{{"lr-step-epochs", "3"}}, "--lr-step-epochs has no effect"},
    {{{"lr-gamma", "0.5"}, {"lr-step-epochs", "3"}, {"lr-schedule", "step"}}, NULL},
    {{{"lr-gamma", "1"}, {"lr-schedule", "step"}}, "no effect"},
    {{{"stages", "3"}, {"lr-schedule", "step"}}, "--stages has no effect"},
    {{{"stages", "3"}, {"lr-schedule", "staged"}}, NULL},
    {{{"patience", "3"}}, "--patience has no effect"},
    {{{"patience", "3"}, {"validation", "0.1"}}, NULL},
    {{{"validation", "0.1"}}, NULL},
    {{{"particles", "5"}}, NULL},
    {{{"particles", "5"}, {"objective", "iwae"}}, NULL},
    {{{"objective", "iwae"}, {"beta", "2"}}, "--beta has no effect"},
    {{{"objective", "dreg"}, {"free-bits", "0.1"}}, "--free-bits has no effect"},
    {{{"objective", "stl"}, {"kl-warmup", "1"}}, "--kl-warmup has no effect"},
    {{{"kl-warmup", "100"}}, NULL},
    {{{"kl-warmup", "1"}, {"beta", "0"}}, "--kl-warmup has no effect"},
    {{{"free-bits", "1"}, {"beta", "0"}}, "--free-bits has no effect"},
    {{{"weight-decay", "0"}}, NULL},
    {{{"precision", "tf32"}, {"device", "cpu"}}, "needs a GPU"},
    {{{"precision", "bf16"}, {"device", "cpu"}}, NULL},
    {{{"precision", "bf16"}, {"device", "cuda"}}, NULL},
    {{{"precision", "fp32"}, {"device", "cpu"}}, NULL},
};

static void test_check(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof check_cases / sizeof check_cases[0]; i++) {
        const check_case *t = &check_cases[i];
        vae_config c;
        vae_error err = {0};
        vae_config_defaults(&c);
        for (size_t j = 0; j < 4 && t->set[j][0] != NULL; j++) {
            assert_says(vae_config_set(&c, t->set[j][0], t->set[j][1], &err), VAE_OK, &err, "");
        }
        vae_status status = vae_config_check(&c, NULL, &err);
        assert_says(status, t->says == NULL ? VAE_OK : VAE_ERR_USAGE, &err,
                    t->says == NULL ? "" : t->says);
    }
    /* named on the command line, an option counts even at its default; in a config.json it does not
     */
    vae_config c;
    vae_error err = {0};
    vae_config_defaults(&c);
    vae_option_set variance = {{0}};
    vae_option_add(&variance, vae_config_find("variance"));
    assert_says(vae_config_check(&c, &variance, &err), VAE_ERR_USAGE, &err, "--variance");
}

static void test_texts(void **state)
{
    (void)state;
    static const double values[] = {
        0, 1, 0.1, 1e-3, 1.0 / 3, 5e-324, 1.7976931348623157e308, 123456789012345678.0, -2.5};
    for (size_t i = 0; i < sizeof values / sizeof values[0]; i++) {
        char text[40];
        double back;
        vae_format_real(values[i], text, sizeof text);
        assert_true(vae_parse_real(text, &back) && back == values[i]);
    }
    static const char *const no_numbers[] = {"",    " 1",  "1 ",       "0x10", "0x1p3", "1e400",
                                             "nan", "inf", "infinity", "+nan", "-inf",  "1,5",
                                             "1e",  "--1", ".",        "1_0"};
    for (size_t i = 0; i < sizeof no_numbers / sizeof no_numbers[0]; i++) {
        double back;
        assert_false(vae_parse_real(no_numbers[i], &back));
    }
    double back;
    assert_true(vae_parse_real("+.5e+1", &back) && back == 5);
    assert_true(vae_is_printable("Gr\xc3\xb6\xc3\x9f"
                                 "e\n(cm)\t\xc2\xa0") &&
                vae_is_printable(""));
    static const char *const unprintable[] = {"gr\xf6\xdf"
                                              "e",
                                              "\x1b[2J", "a\x7f",
                                              "\xc2\x9b"
                                              "2J",
                                              "\xc3"};
    for (size_t i = 0; i < sizeof unprintable / sizeof unprintable[0]; i++) {
        assert_false(vae_is_printable(unprintable[i]));
    }
    vae_nearest near = {.word = "epcohs"};
    vae_nearest_offer(&near, "epochs");
    vae_nearest_offer(&near, "device");
    assert_string_equal(near.best, "epochs");
    vae_nearest none = {.word = "zzz"};
    vae_nearest_offer(&none, "epochs");
    assert_null(none.best);
    vae_nearest beginning = {.word = "recon"};
    vae_nearest_offer(&beginning, "reconstruct");
    assert_string_equal(beginning.best, "reconstruct");
    char text[32];
    assert_string_equal(vae_base_name(text, sizeof text, "runs/first//"), "first");
    assert_string_equal(vae_base_name(text, sizeof text, "first"), "first");
    assert_string_equal(vae_base_name(text, 4, "/runs/first.vae"), "fir");
    assert_true(vae_ends_with("a.npz", ".npz") && !vae_ends_with("a.NPZ", ".npz"));
    assert_true(vae_ends_with_any_case("a.NPZ", ".npz") && !vae_ends_with_any_case("npz", ".npz"));
}

/* What checkpoints of some earlier versions say, who called an optimal variance otherwise. */
static void test_earlier_names(void **state)
{
    (void)state;
    vae_config c;
    vae_error err = {0};
    vae_config_defaults(&c);
    assert_says(vae_config_from_json(&c,
                                     "{\"likelihood\": \"gaussian\", \"variance\": 0.25, "
                                     "\"optimal-variance\": 0}",
                                     "json", &err),
                VAE_OK, &err, "");
    assert_true(c.likelihood == VAE_GAUSSIAN && c.variance == 0.25);
    assert_says(vae_config_from_json(&c,
                                     "{\"optimal-variance\": 0.1, \"likelihood\": \"gaussian\", "
                                     "\"variance\": 0.125}",
                                     "json", &err),
                VAE_OK, &err, "");
    assert_true(c.likelihood == VAE_GAUSSIAN_OPTIMAL && c.variance == 0.125);
    /* recorded before there was --exif: as it was then; written by hand: as it is now */
    assert_true(c.exif == VAE_EXIF_HONOUR);
    assert_int_equal(vae_config_from_json(&c, "{\"latent\": 9}", "json", &err), VAE_OK);
    assert_true(c.exif == VAE_EXIF_HONOUR);
    assert_int_equal(vae_config_from_json(&c, "{\"latent\": 9, \"schema\": 1}", "json", &err),
                     VAE_OK);
    assert_true(c.exif == VAE_EXIF_IGNORE);
    assert_int_equal(
        vae_config_from_json(&c, "{\"exif\": \"honour\", \"schema\": 1}", "json", &err), VAE_OK);
    assert_true(c.exif == VAE_EXIF_HONOUR);
    assert_says(vae_config_from_json(&c, "{\"optimal-variance\": \"much\"}", "json", &err),
                VAE_ERR_USAGE, &err, "optimal-variance");
}

/* What a preset sets is what it says, goes together, and gives way to what comes after it. */
static void test_presets(void **state)
{
    (void)state;
    for (int p = VAE_PRESET_NONE; p < VAE_N_PRESETS; p++) {
        const vae_preset_row *row = vae_config_preset((vae_preset)p);
        vae_config c, defaults, back;
        vae_error err = {0};
        char text[VAE_PATH];
        vae_config_defaults(&defaults);
        c = defaults;
        assert_says(vae_config_set(&c, "preset", row->name, &err), VAE_OK, &err, "");
        assert_int_equal(c.preset, p);
        for (size_t i = 0; i < row->n; i++) {
            vae_config one = defaults;
            char other[VAE_PATH];
            assert_says(vae_config_set(&one, row->values[i].name, row->values[i].value, &err),
                        VAE_OK, &err, "");
            vae_config_get(&one, row->values[i].name, other, sizeof other);
            vae_config_get(&c, row->values[i].name, text, sizeof text);
            assert_string_equal(text, other);
            vae_config_get(&defaults, row->values[i].name, other, sizeof other);
            assert_string_not_equal(text, other); /* else it says nothing */
        }
        assert_says(vae_config_check(&c, NULL, &err), VAE_OK, &err, "");
        assert_int_equal(vae_config_set(&c, "latent", "7", &err), VAE_OK);
        char *json = vae_config_to_json(&c);
        vae_config_defaults(&back);
        assert_says(vae_config_from_json(&back, json, "json", &err), VAE_OK, &err, "");
        assert_true(vae_config_difference(&c, &back, NULL) == SIZE_MAX && back.latent == 7);
        free(json);
    }
    vae_config c;
    vae_config_defaults(&c);
    vae_error err = {0};
    assert_int_equal(
        vae_config_from_json(&c, "{\"latent\": 9, \"preset\": \"photos\"}", "json", &err), VAE_OK);
    assert_true(c.latent == 9 && c.conv.n == 4 && c.image_size == 64); /* wherever it stands */
    assert_says(vae_config_set(&c, "preset", "photo", &err), VAE_ERR_USAGE, &err, "'photos'");
}

/* What a preset sets and another option leaves without effect is as if it had not been set. */
static void test_presets_yield(void **state)
{
    (void)state;
    vae_config c;
    vae_error err = {0};
    vae_config_defaults(&c);
    assert_int_equal(vae_config_set(&c, "preset", "photos", &err), VAE_OK);
    vae_option_set named = {{0}};
    assert_int_equal(vae_config_set(&c, "likelihood", "bernoulli", &err), VAE_OK);
    assert_true(c.mean == VAE_MEAN_SIGMOID);
    vae_option_add(&named, vae_config_find("mean"));
    assert_says(vae_config_check(&c, &named, &err), VAE_ERR_USAGE, &err, "--mean has no effect");
    assert_says(vae_config_check(&c, NULL, &err), VAE_OK, &err, "");
    assert_true(c.mean == VAE_MEAN_LINEAR && c.flip);
    err = (vae_error){0};
    assert_int_equal(vae_config_set(&c, "preset", "burgess", &err), VAE_OK);
    assert_int_equal(vae_config_set(&c, "objective", "iwae", &err), VAE_OK);
    assert_int_equal(vae_config_set(&c, "beta", "2", &err), VAE_OK); /* not as the preset has it */
    assert_says(vae_config_check(&c, NULL, &err), VAE_ERR_USAGE, &err, "--beta has no effect");
    assert_int_equal(vae_config_set(&c, "beta", "4", &err), VAE_OK);
    assert_says(vae_config_check(&c, NULL, &err), VAE_OK, &err, "");
    assert_true(c.beta == 1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_defaults),     cmocka_unit_test(test_table),
        cmocka_unit_test(test_set),          cmocka_unit_test(test_json_round_trip),
        cmocka_unit_test(test_json_refused), cmocka_unit_test(test_check),
        cmocka_unit_test(test_texts),        cmocka_unit_test(test_earlier_names),
        cmocka_unit_test(test_presets),      cmocka_unit_test(test_presets_yield),
    };
    return cmocka_run_group_tests_name("config", tests, NULL, NULL);
}
