/* The option table and everything that is derived from it: defaults, parsing, printing, bounds.
 * An option is one row here and a field in vae_config. JSON is json.c's, combinations check.c's. */
#include "config/config.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "base/text.h"

#define AT(field) offsetof(vae_config, field)

/* Reals become floats on a device: beyond this they would be Inf there. */
#define REAL_MAX  1e38
#define LAYER_MAX 1048576.0
#define COUNT_MAX 1e15

/* The names in a list of rows, a bar before each. */
#define CHOICE(row, name, ...) "|" name

static const vae_option options[] = {
    {"preset", 0, VAE_PRESETS, "options that go together, listed below; others given go over them",
     VAE_SCOPE_RUN, VAE_KIND_CHOICE, AT(preset), "none", VAE_PRESET_NONE, 0},
    {"data", 'd', "DATA", "", /* the list of readers says what (vae_dataset_kinds) */
     VAE_SCOPE_DATA, VAE_KIND_TEXT, AT(data), "digits", 0, 0},
    {"test-data", 0, "DATA",
     "data set to test on; default: the test split of --data, if it has one", VAE_SCOPE_DATA,
     VAE_KIND_TEXT, AT(test_data), "", 0, 0},
    {"out", 'o', "RUN", "run folder; default: runs/<data>-<n>, the next free n", VAE_SCOPE_RUN,
     VAE_KIND_TEXT, AT(out), "", 0, 0},
    {"conv", 0, "N,N,...",
     "channels of 4 x 4 convolutions before --hidden, each halving the picture, and mirrored",
     VAE_SCOPE_MODEL, VAE_KIND_SIZES, AT(conv), "", 1, 65536},
    {"hidden", 0, "N,N,...", "sizes of the encoder's hidden layers, data side first; or none",
     VAE_SCOPE_MODEL, VAE_KIND_SIZES, AT(hidden), "400", 1, LAYER_MAX},
    {"decoder-hidden", 0, "N,N,...", "the decoder's, latent side first; default: hidden, mirrored",
     VAE_SCOPE_MODEL, VAE_KIND_SIZES, AT(decoder_hidden), "", 1, LAYER_MAX},
    {"latent", 'z', "N", "size of the latent z", VAE_SCOPE_MODEL, VAE_KIND_SIZE, AT(latent), "20",
     1, LAYER_MAX},
    {"activation", 0, &("" VAE_ACTIVATIONS(CHOICE))[1], "of the hidden layers", VAE_SCOPE_MODEL,
     VAE_KIND_CHOICE, AT(activation), "relu", VAE_ACT_NONE + 1, 0},
    {"likelihood", 0, &("" VAE_LIKELIHOODS(CHOICE))[1],
     "p(x|z); gaussian: one fixed variance; -learned: one a value; -optimal: the squared error",
     VAE_SCOPE_MODEL, VAE_KIND_CHOICE, AT(likelihood), "bernoulli", VAE_BERNOULLI, 0},
    {"mean", 0, "linear|sigmoid",
     "of a Gaussian: the decoder's output, or its sigmoid, for values in [0,1]", VAE_SCOPE_MODEL,
     VAE_KIND_CHOICE, AT(mean), "linear", VAE_MEAN_LINEAR, 0},
    {"variance", 0, "FLOAT", "variance of gaussian; of gaussian-optimal, in the first step",
     VAE_SCOPE_MODEL, VAE_KIND_ABOVE, AT(variance), "1", 0, REAL_MAX},
    {"binarize", 0, "none|threshold|static|dynamic",
     "x under bernoulli: grey as it is, x >= 1/2, drawn once, or drawn anew at every use",
     VAE_SCOPE_MODEL, VAE_KIND_CHOICE, AT(binarize), "none", VAE_BINARIZE_NONE, 0},
    {"condition", 0, "none|labels", "labels: encoder and decoder see the class (a CVAE)",
     VAE_SCOPE_MODEL, VAE_KIND_CHOICE, AT(condition), "none", VAE_CONDITION_NONE, 0},
    {"semi-supervised", 0, NULL,
     "M2 of Kingma et al. 2014: the class is a latent, known for --labelled rows", VAE_SCOPE_MODEL,
     VAE_KIND_FLAG, AT(semi_supervised), "false", 0, 0},
    {"classes", 0, "N",
     "classes of the labels, with --condition or --semi-supervised; 0 = as in "
     "the training data",
     VAE_SCOPE_MODEL, VAE_KIND_SIZE, AT(classes), "0", 0, 65536},
    {"labelled", 0, "N", "semi-supervised: rows whose label is used, balanced over the classes",
     VAE_SCOPE_TRAINING, VAE_KIND_SIZE, AT(labelled), "0", 0, COUNT_MAX},
    {"classifier-weight", 0, "FLOAT",
     "semi-supervised: of the labelled rows' mean cross-entropy, beside the mean bound",
     VAE_SCOPE_TRAINING, VAE_KIND_REAL, AT(classifier_weight), "0.1", 0, REAL_MAX},
    {"stack", 0, "RUN", "train on z ~ q(z|x) of that run's model, drawn anew at every use (M1+M2)",
     VAE_SCOPE_MODEL, VAE_KIND_TEXT, AT(stack), "", 0, 0},
    {"stack-weights", 0, "SHA256",
     "refuse that run if its weights are others; training fills it in", VAE_SCOPE_MODEL,
     VAE_KIND_TEXT, AT(stack_weights), "", 0, 0},
    {"objective", 0, "elbo|iwae|dreg|stl", "the bound that is maximized", VAE_SCOPE_TRAINING,
     VAE_KIND_CHOICE, AT(objective), "elbo", VAE_OBJ_ELBO, 0},
    {"particles", 'k', "K", "samples of z for each example", VAE_SCOPE_TRAINING, VAE_KIND_SIZE,
     AT(particles), "1", 1, 4194303},
    {"beta", 0, "FLOAT", "weight of the KL", VAE_SCOPE_TRAINING, VAE_KIND_REAL, AT(beta), "1", 0,
     REAL_MAX},
    {"kl-warmup", 0, "EPOCHS", "beta rises linearly from 0 over so many epochs; 0 = no warm-up",
     VAE_SCOPE_TRAINING, VAE_KIND_REAL, AT(kl_warmup), "0", 0, 1e9},
    {"free-bits", 0, "NATS", "KL of each latent dimension that costs nothing; 0 = off",
     VAE_SCOPE_TRAINING, VAE_KIND_REAL, AT(free_bits), "0", 0, REAL_MAX},
    {"init", 0, "torch|glorot|he", "initial weights", VAE_SCOPE_TRAINING, VAE_KIND_CHOICE, AT(init),
     "torch", VAE_INIT_TORCH, 0},
    {"init-from", 0, "RUN|FILE",
     "begin with that model's weights, options and scales; the optimizer starts anew",
     VAE_SCOPE_TRAINING, VAE_KIND_TEXT, AT(init_from), "", 0, 0},
    {"init-weights", 0, "SHA256", "refuse weights other than these; training fills it in",
     VAE_SCOPE_TRAINING, VAE_KIND_TEXT, AT(init_weights), "", 0, 0},
    {"output-bias-from-data", 0, NULL, "start the output bias at the mean of the data",
     VAE_SCOPE_TRAINING, VAE_KIND_FLAG, AT(output_bias_from_data), "false", 0, 0},
    {"optimizer", 0, "adam|adamw", "adamw decouples the weight decay", VAE_SCOPE_TRAINING,
     VAE_KIND_CHOICE, AT(optimizer), "adam", VAE_ADAM, 0},
    {"lr", 0, "FLOAT", "learning rate", VAE_SCOPE_TRAINING, VAE_KIND_ABOVE, AT(lr), "1e-3", 0,
     REAL_MAX},
    {"adam-beta1", 0, "FLOAT", "decay of the first moment", VAE_SCOPE_TRAINING, VAE_KIND_REAL,
     AT(adam_beta1), "0.9", 0, 0.9999999},
    {"adam-beta2", 0, "FLOAT", "decay of the second moment", VAE_SCOPE_TRAINING, VAE_KIND_REAL,
     AT(adam_beta2), "0.999", 0, 0.9999999},
    {"adam-eps", 0, "FLOAT", "added to the root of the second moment", VAE_SCOPE_TRAINING,
     VAE_KIND_ABOVE, AT(adam_eps), "1e-8", 0, 1},
    {"adam-v0", 0, "FLOAT", "the second moment's value at the start, of every parameter",
     VAE_SCOPE_TRAINING, VAE_KIND_REAL, AT(adam_v0), "0", 0, REAL_MAX},
    {"weight-decay", 0, "FLOAT", "weight decay", VAE_SCOPE_TRAINING, VAE_KIND_REAL,
     AT(weight_decay), "0", 0, REAL_MAX},
    {"clip-norm", 0, "FLOAT", "largest norm of the gradient; 0 = no clipping", VAE_SCOPE_TRAINING,
     VAE_KIND_REAL, AT(clip_norm), "0", 0, REAL_MAX},
    {"lr-schedule", 0, "constant|cosine|step|staged",
     "cosine: to 0 over the epochs; staged: stage i is 3^i epochs at lr*10^(-i/(stages-1))",
     VAE_SCOPE_TRAINING, VAE_KIND_CHOICE, AT(lr_schedule), "constant", VAE_LR_CONSTANT, 0},
    {"lr-step-epochs", 0, "N", "step schedule: every N epochs ...", VAE_SCOPE_TRAINING,
     VAE_KIND_SIZE, AT(lr_step_epochs), "10", 1, 1e9},
    {"lr-milestones", 0, "N,N,...", "... or after so many epochs each, instead ...",
     VAE_SCOPE_TRAINING, VAE_KIND_SIZES, AT(lr_milestones), "", 1, 1e9},
    {"lr-gamma", 0, "FLOAT", "... the learning rate is multiplied by this", VAE_SCOPE_TRAINING,
     VAE_KIND_ABOVE, AT(lr_gamma), "0.1", 0, 1},
    {"stages", 0, "N", "staged schedule: number of stages", VAE_SCOPE_TRAINING, VAE_KIND_SIZE,
     AT(stages), "8", 2, 20},
    {"batch-size", 'b', "N", "examples in a step", VAE_SCOPE_TRAINING, VAE_KIND_SIZE,
     AT(batch_size), "128", 1, 16777216},
    {"epochs", 'e', "N", "passes over the training data", VAE_SCOPE_TRAINING, VAE_KIND_SIZE,
     AT(epochs), "10", 1, 1e9},
    {"validation", 0, "FRACTION", "part of the training rows kept for validation; 0 = none",
     VAE_SCOPE_DATA, VAE_KIND_REAL, AT(validation), "0", 0, 0.9},
    {"patience", 0, "EPOCHS", "stop after so many without a better validation loss; 0 = never",
     VAE_SCOPE_TRAINING, VAE_KIND_SIZE, AT(patience), "0", 0, 1e9},
    {"limit", 0, "N",
     "only N rows of each split: the first, of sprites and picture files random ones; 0 = all",
     VAE_SCOPE_DATA, VAE_KIND_SIZE, AT(limit), "0", 0, COUNT_MAX},
    {"image-size", 0, "N", "picture files become N x N: resized, then cut; 0 = as they are",
     VAE_SCOPE_DATA, VAE_KIND_SIZE, AT(image_size), "0", 0, 4096},
    {"image-channels", 0, "1|3", "picture files become grey or RGB; 0 = RGB if any has colour",
     VAE_SCOPE_DATA, VAE_KIND_SIZE, AT(image_channels), "0", 0, 3},
    {"exif", 0, "honour|ignore",
     "picture files: turned upright as EXIF says, or taken as they are stored, as torchvision does",
     VAE_SCOPE_DATA, VAE_KIND_CHOICE, AT(exif), "honour", VAE_EXIF_HONOUR, 0},
    {"skip-bad", 0, "N", "picture files: leave up to N out that are damaged or cannot be read",
     VAE_SCOPE_DATA, VAE_KIND_SIZE, AT(skip_bad), "0", 0, COUNT_MAX},
    {"cache", 0, "FILE",
     "picture files: keep them decoded in FILE (of a test set: FILE.test), made where it is not",
     VAE_SCOPE_RUN, VAE_KIND_TEXT, AT(cache), "", 0, 0},
    {"flip", 0, NULL, "mirror pictures left to right at random, anew at every use in training",
     VAE_SCOPE_TRAINING, VAE_KIND_FLAG, AT(flip), "false", 0, 0},
    {"label-column", 0, "NAME",
     "of a .csv; default: label, class, y or target; none = all are data", VAE_SCOPE_DATA,
     VAE_KIND_TEXT, AT(label_column), "", 0, 0},
    {"drop-columns", 0, "NAME,...", "of a .csv: leave these out (a name with a comma in quotes)",
     VAE_SCOPE_DATA, VAE_KIND_TEXT, AT(drop_columns), "", 0, 0},
    {"standardize", 0, "auto|none|columns",
     "columns to mean 0 and deviation 1; auto: those of a .csv under a gaussian likelihood",
     VAE_SCOPE_DATA, VAE_KIND_CHOICE, AT(standardize), "auto", VAE_STANDARDIZE_AUTO, 0},
    {"exclude-class", 0, "NAME,...", "leave rows of these classes out of training", VAE_SCOPE_DATA,
     VAE_KIND_CLASSES, AT(exclude_class), "", 0, 0},
    {"seed", 's', "N", "of weights, noise, binarization, order and split", VAE_SCOPE_TRAINING,
     VAE_KIND_U64, AT(seed), "1", 0, 0},
    {"device", 0, "auto|cpu|cuda[:N]", "where to compute; auto takes a GPU if there is one",
     VAE_SCOPE_RUN, VAE_KIND_DEVICE, AT(device), "auto", 0, 1024},
    {"precision", 0, "fp32|tf32|bf16", "of the matrix products and activations; tf32 on a GPU only",
     VAE_SCOPE_RUN, VAE_KIND_CHOICE, AT(precision), "fp32", VAE_FP32, 0},
    {"threads", 't', "N",
     "CPU threads at most; 0 = OMP_NUM_THREADS, or cores that affinity and quota grant",
     VAE_SCOPE_RUN, VAE_KIND_SIZE, AT(threads), "0", 0, 1024},
    {"save-every", 0, "EPOCHS", "epochs between checkpoints", VAE_SCOPE_RUN, VAE_KIND_SIZE,
     AT(save_every), "1", 1, 1e9},
    {"keep", 0, "N", "how many of the last checkpoints stay", VAE_SCOPE_RUN, VAE_KIND_SIZE,
     AT(keep), "2", 1, 1e6},
    {"sample-every", 0, "EPOCHS", "epochs between pictures; 0 = only at the end", VAE_SCOPE_RUN,
     VAE_KIND_SIZE, AT(sample_every), "1", 0, 1e9},
    {"tensorboard", 0, NULL, "write TensorBoard's events and projector into the run's tensorboard/",
     VAE_SCOPE_RUN, VAE_KIND_FLAG, AT(tensorboard), "false", 0, 0},
    {"report", 0, NULL, "write report.html beside the pictures (the default); --report=false: none",
     VAE_SCOPE_RUN, VAE_KIND_FLAG, AT(report), "true", 0, 0},
};

enum { N_OPTIONS = sizeof options / sizeof options[0] };
_Static_assert(N_OPTIONS <= 8 * sizeof(vae_option_set), "a set of options has a bit per row");

void vae_option_add(vae_option_set *set, size_t row)
{
    set->rows[row / 64] |= (uint64_t)1 << row % 64;
}

bool vae_option_in(const vae_option_set *set, size_t row)
{
    return set != NULL && (set->rows[row / 64] >> row % 64 & 1) != 0;
}

const vae_option *vae_config_options(size_t *n)
{
    *n = N_OPTIONS;
    return options;
}

static bool same_name(const char *a, const char *b)
{
    while (*a != '\0' && (*a == *b || (*a == '_' && *b == '-'))) {
        a++;
        b++;
    }
    return *a == *b;
}

size_t vae_config_find(const char *name)
{
    for (size_t i = 0; i < N_OPTIONS; i++) {
        if (same_name(name, options[i].name)) {
            return i;
        }
    }
    return SIZE_MAX;
}

static bool set_option(vae_config *config, const vae_option *o, const char *value);

void vae_config_defaults(vae_config *config)
{
    memset(config, 0, sizeof *config);
    for (size_t i = 0; i < N_OPTIONS; i++) {
        set_option(config, &options[i], options[i].default_value);
    }
}

/* ---- choices ---- */

/* Position of text among the choices of "a|b|c", or -1. */
static int choice_index(const char *choices, const char *text)
{
    size_t length = strlen(text);
    for (int i = 0;; i++) {
        size_t n = strcspn(choices, "|");
        if (n == length && memcmp(choices, text, n) == 0) {
            return i;
        }
        if (choices[n] == '\0') {
            return -1;
        }
        choices += n + 1;
    }
}

static void choice_name(const char *choices, int index, char *text, size_t size)
{
    for (int i = 0; i < index && strchr(choices, '|') != NULL; i++) {
        choices = strchr(choices, '|') + 1;
    }
    snprintf(text, size, "%.*s", (int)strcspn(choices, "|"), choices);
}

/* ---- setting ---- */

static vae_status unknown_option(const char *name, vae_error *err)
{
    vae_nearest nearest = {.word = name};
    for (size_t i = 0; i < N_OPTIONS; i++) {
        vae_nearest_offer(&nearest, options[i].name);
    }
    if (nearest.best != NULL) {
        return vae_fail(err, VAE_ERR_USAGE, "unknown option '%s'; did you mean '%s'?", name,
                        nearest.best);
    }
    return vae_fail(err, VAE_ERR_USAGE, "unknown option '%s'", name);
}

static vae_status bad_choice(const vae_option *o, const char *value, vae_error *err)
{
    char choice[32], best[32] = "";
    vae_nearest nearest = {.word = value};
    for (int i = 0; i < 8; i++) { /* past the last, choice_name repeats it */
        choice_name(o->value, i, choice, sizeof choice);
        vae_nearest_offer(&nearest, choice);
        if (nearest.best == choice) {
            memcpy(best, choice, sizeof best);
            nearest.best = best;
        }
    }
    if (nearest.best == NULL) {
        return vae_fail(err, VAE_ERR_USAGE, "--%s: expected one of %s, found '%s'", o->name,
                        o->value, value);
    }
    return vae_fail(err, VAE_ERR_USAGE, "--%s: expected one of %s, found '%s'; did you mean '%s'?",
                    o->name, o->value, value, best);
}

static vae_status bad_value(const vae_option *o, const char *value, vae_error *err)
{
    switch (o->kind) {
    case VAE_KIND_REAL:
    case VAE_KIND_ABOVE:
        return vae_fail(err, VAE_ERR_USAGE,
                        "--%s: expected a number %s %g and at most %g, found '%s'", o->name,
                        o->kind == VAE_KIND_ABOVE ? "above" : "of at least", o->min, o->max, value);
    case VAE_KIND_SIZES:
        return vae_fail(err, VAE_ERR_USAGE,
                        "--%s: expected up to %d numbers from %.0f to %.0f, as in 400,200; "
                        "found '%s'",
                        o->name, VAE_MAX_LAYERS, o->min, o->max, value);
    case VAE_KIND_CHOICE:
        return bad_choice(o, value, err);
    case VAE_KIND_FLAG:
        return vae_fail(err, VAE_ERR_USAGE, "--%s: expected true or false, found '%s'", o->name,
                        value);
    case VAE_KIND_DEVICE:
        return vae_fail(err, VAE_ERR_USAGE, "--%s: expected auto, cpu, cuda or cuda:N, found '%s'",
                        o->name, value);
    case VAE_KIND_TEXT:
    case VAE_KIND_CLASSES:
        return vae_fail(err, VAE_ERR_USAGE,
                        "--%s: expected at most %d bytes of UTF-8, found '%.100s'", o->name,
                        VAE_PATH - 1, value);
    case VAE_KIND_U64:
        return vae_fail(err, VAE_ERR_USAGE,
                        "--%s: expected a whole number from 0 to %" PRIu64 ", found '%s'", o->name,
                        UINT64_MAX, value);
    case VAE_KIND_SIZE:
        break;
    }
    return vae_fail(err, VAE_ERR_USAGE,
                    "--%s: expected a whole number from %.0f to %.0f, found '%s'", o->name, o->min,
                    o->max, value);
}

static bool set_sizes(vae_sizes *sizes, const vae_option *o, const char *value)
{
    vae_sizes read = {0};
    if (strcmp(value, "none") == 0 && o->offset == AT(hidden)) {
        value = ""; /* a decoder without any follows from an encoder without any */
    }
    while (*value != '\0') {
        char number[24];
        size_t length = strcspn(value, ",");
        uint64_t size;
        if (length >= sizeof number || read.n == VAE_MAX_LAYERS) {
            return false;
        }
        memcpy(number, value, length);
        number[length] = '\0';
        if (!vae_parse_u64(number, (uint64_t)o->min, (uint64_t)o->max, &size)) {
            return false;
        }
        read.size[read.n++] = size;
        value += length;
        if (*value == ',' && *++value == '\0') {
            return false; /* a comma with nothing behind it */
        }
    }
    *sizes = read;
    return true;
}

static bool set_device(vae_config *config, const vae_option *o, const char *value)
{
    static const char choices[] = "auto|cpu|cuda";
    uint64_t index = 0;
    int kind = choice_index(choices, value);
    if (kind < 0) {
        if (strncmp(value, "cuda:", 5) != 0 ||
            !vae_parse_u64(value + 5, 0, (uint64_t)o->max, &index)) {
            return false;
        }
        kind = VAE_DEVICE_CUDA;
    }
    config->device = (vae_device_kind)kind;
    config->device_index = (int)index;
    return true;
}

static bool set_number(const vae_option *o, void *field, const char *value)
{
    uint64_t whole;
    double real;
    switch (o->kind) {
    case VAE_KIND_SIZE:
        if (!vae_parse_u64(value, (uint64_t)o->min, (uint64_t)o->max, &whole)) {
            return false;
        }
        *(size_t *)field = whole;
        return true;
    case VAE_KIND_U64:
        return vae_parse_u64(value, 0, UINT64_MAX, field);
    default:
        if (!vae_parse_real(value, &real) || real < o->min || real > o->max ||
            (o->kind == VAE_KIND_ABOVE && real <= o->min)) {
            return false;
        }
        *(double *)field = real + 0.0; /* -0 becomes 0 */
        return true;
    }
}

static void set_preset(vae_config *config)
{
    const vae_preset_row *row = vae_config_preset(config->preset);
    for (size_t i = 0; i < row->n; i++) {
        vae_config_set(config, row->values[i].name, row->values[i].value, NULL);
    }
}

static bool set_option(vae_config *config, const vae_option *o, const char *value)
{
    void *field = (char *)config + o->offset;
    int choice;
    switch (o->kind) {
    case VAE_KIND_CHOICE:
        choice = choice_index(o->value, value);
        if (choice < 0) {
            return false;
        }
        /* every enum of vae_config has the size of an int: its members are small */
        *(int *)field = choice + (int)o->min;
        if (o->offset == AT(preset)) {
            set_preset(config);
        }
        return true;
    case VAE_KIND_SIZES:
        return set_sizes(field, o, value);
    case VAE_KIND_TEXT:
    case VAE_KIND_CLASSES:
        if (strlen(value) >= VAE_PATH || !vae_is_utf8(value)) {
            return false;
        }
        memset(field, 0, VAE_PATH);
        memcpy(field, value, strlen(value));
        return true;
    case VAE_KIND_FLAG:
        choice = choice_index("false|true", value);
        if (choice < 0) {
            return false;
        }
        *(bool *)field = choice != 0;
        return true;
    case VAE_KIND_DEVICE:
        return set_device(config, o, value);
    default:
        return set_number(o, field, value);
    }
}

vae_status vae_config_set(vae_config *config, const char *name, const char *value, vae_error *err)
{
    size_t i = vae_config_find(name);
    if (i == SIZE_MAX) {
        return unknown_option(name, err);
    }
    return set_option(config, &options[i], value) ? VAE_OK : bad_value(&options[i], value, err);
}

/* ---- getting ---- */

static void get_sizes(const vae_sizes *sizes, char *text, size_t size)
{
    size_t used = 0;
    text[0] = '\0';
    for (size_t i = 0; i < sizes->n && used < size; i++) {
        int n = snprintf(text + used, size - used, "%s%zu", i > 0 ? "," : "", sizes->size[i]);
        used += (size_t)n;
    }
}

void vae_config_get(const vae_config *config, const char *name, char *text, size_t size)
{
    size_t i = vae_config_find(name);
    if (i == SIZE_MAX) {
        snprintf(text, size, "%s", "");
        return;
    }
    const vae_option *o = &options[i];
    const void *field = (const char *)config + o->offset;
    switch (o->kind) {
    case VAE_KIND_SIZE:
        snprintf(text, size, "%zu", *(const size_t *)field);
        break;
    case VAE_KIND_U64:
        snprintf(text, size, "%" PRIu64, *(const uint64_t *)field);
        break;
    case VAE_KIND_REAL:
    case VAE_KIND_ABOVE:
        vae_format_real(*(const double *)field, text, size);
        break;
    case VAE_KIND_CHOICE:
        choice_name(o->value, *(const int *)field - (int)o->min, text, size);
        break;
    case VAE_KIND_SIZES:
        get_sizes(field, text, size);
        break;
    case VAE_KIND_TEXT:
    case VAE_KIND_CLASSES:
        snprintf(text, size, "%s", (const char *)field);
        break;
    case VAE_KIND_FLAG:
        snprintf(text, size, "%s", *(const bool *)field ? "true" : "false");
        break;
    case VAE_KIND_DEVICE:
        choice_name("auto|cpu|cuda", (int)config->device, text, size);
        if (config->device_index > 0) {
            snprintf(text, size, "cuda:%d", config->device_index);
        }
        break;
    }
}

size_t vae_config_difference(const vae_config *a, const vae_config *b, const vae_option_set *except)
{
    for (size_t i = 0; i < N_OPTIONS; i++) {
        char x[VAE_PATH], y[VAE_PATH];
        vae_config_get(a, options[i].name, x, sizeof x);
        vae_config_get(b, options[i].name, y, sizeof y);
        if (!vae_option_in(except, i) && strcmp(x, y) != 0) {
            return i;
        }
    }
    return SIZE_MAX;
}

void vae_config_take(vae_config *config, const vae_config *from, vae_scope scope,
                     const vae_option_set *except)
{
    vae_error never = {0}; /* what one config wrote, another reads */
    for (size_t i = 0; i < N_OPTIONS; i++) {
        char value[VAE_PATH];
        if (options[i].scope == scope && !vae_option_in(except, i)) {
            vae_config_get(from, options[i].name, value, sizeof value);
            vae_config_set(config, options[i].name, value, &never);
        }
    }
}
