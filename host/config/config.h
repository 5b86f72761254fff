/* Configuration: every option of training, resolved. One table in config.c gives each option its
 * name, type, default, bounds, help and scope; the command line, --config files, config.json, the
 * checkpoint and --help all go through it. */
#ifndef VAE_CONFIG_H
#define VAE_CONFIG_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/file.h"
#include "base/status.h"
#include "step.h"

enum { VAE_MAX_LAYERS = 16 };

typedef enum { VAE_CONDITION_NONE = 0, VAE_CONDITION_LABELS } vae_condition;
typedef enum { VAE_ADAM = 0, VAE_ADAMW } vae_optimizer;
typedef enum { VAE_LR_CONSTANT = 0, VAE_LR_COSINE, VAE_LR_STEP, VAE_LR_STAGED } vae_lr_schedule;
typedef enum { VAE_INIT_TORCH = 0, VAE_INIT_GLOROT, VAE_INIT_HE } vae_init;
typedef enum { VAE_FP32 = 0, VAE_TF32, VAE_BF16 } vae_precision;
/* Columns to mean 0 and deviation 1: auto does so to tables under a Gaussian likelihood. */
typedef enum {
    VAE_STANDARDIZE_AUTO = 0,
    VAE_STANDARDIZE_NONE,
    VAE_STANDARDIZE_COLUMNS
} vae_standardize;
/* EXIF's orientation of picture files. */
typedef enum { VAE_EXIF_HONOUR = 0, VAE_EXIF_IGNORE } vae_exif;
typedef enum { VAE_DEVICE_AUTO = 0, VAE_DEVICE_CPU, VAE_DEVICE_CUDA } vae_device_kind;

/* Options under a name (presets.c). To choose one sets them, over what they were. */
#define VAE_PRESETS "none|photos|burgess"
typedef enum {
    VAE_PRESET_NONE = 0,
    VAE_PRESET_PHOTOS,
    VAE_PRESET_BURGESS,
    VAE_N_PRESETS
} vae_preset;

typedef struct {
    size_t n;
    size_t size[VAE_MAX_LAYERS];
} vae_sizes;

typedef struct vae_config {
    vae_preset preset; /* which of the others it set, those below say */
    /* the model: fixed once trained */
    vae_sizes conv;           /* channels of the convolutions before them; n = 0: none */
    vae_sizes hidden;         /* encoder's hidden layers, data side first; n = 0: linear */
    vae_sizes decoder_hidden; /* decoder's, latent side first; n = 0: hidden, mirrored */
    size_t latent;            /* Z */
    vae_activation activation;
    vae_likelihood likelihood;
    vae_mean mean;   /* of a Gaussian likelihood */
    double variance; /* of a Gaussian with one; an optimal one begins here and moves */
    vae_binarize binarize;
    vae_condition condition; /* labels: encoder and decoder see the class (Sohn et al. 2015) */
    bool semi_supervised;    /* M2 (Kingma et al. 2014): q(y|x), and the class is a latent, too */
    size_t classes;          /* C of the labels; 0 until the training set has told */
    char stack[VAE_PATH];    /* run whose latents are the data (M1+M2); "" = none */
    char stack_weights[VAE_PATH]; /* SHA-256 of its weights, hex; "" until training fills it in */
    /* the objective */
    vae_objective objective;
    size_t particles; /* K */
    double beta;
    double kl_warmup; /* epochs over which beta rises linearly from 0; 0 = none */
    double free_bits; /* nats per latent dimension, on the minibatch mean (Kingma et al. 2016) */
    double classifier_weight; /* of the labelled examples' mean cross-entropy */
    /* optimization */
    vae_init init;
    char init_from[VAE_PATH];    /* run or file whose weights training begins with; "": init's */
    char init_weights[VAE_PATH]; /* SHA-256 of those, in hexadecimal; "" = not known */
    bool output_bias_from_data;  /* start the output bias at the data mean (its logit) */
    vae_optimizer optimizer;
    double lr, adam_beta1, adam_beta2, adam_eps, weight_decay;
    double adam_v0;   /* where Adam's second moments start; 0 is Adam's own */
    double clip_norm; /* 0 = off */
    vae_lr_schedule lr_schedule;
    size_t lr_step_epochs;   /* `step`: every so many epochs ... */
    vae_sizes lr_milestones; /* ... or, if n > 0, after each of these numbers of epochs ... */
    double lr_gamma;         /* ... lr is multiplied by this */
    size_t stages;           /* `staged`: stage i lasts 3^i epochs at lr*10^(-i/(stages-1)) */
    size_t batch_size, epochs;
    size_t patience;   /* epochs without a better validation loss before stopping; 0 = off */
    double validation; /* fraction of the training rows kept for validation; 0 = none */
    /* data */
    char data[VAE_PATH];
    char test_data[VAE_PATH]; /* set to test on; "": the test split of data, where it has one */
    size_t labelled;          /* semi-supervised: training rows whose label is used */
    size_t limit;             /* rows of each split; 0 = all */
    bool flip;                /* mirror pictures at random in training */
    size_t image_size, image_channels; /* of picture files; 0 = as they are */
    vae_exif exif;                     /* of picture files: are they turned as it says? */
    size_t skip_bad;                   /* so many picture files may be damaged */
    char cache[VAE_PATH];              /* file that keeps decoded picture files; "": none */
    char label_column[VAE_PATH];       /* of a table; "": the usual names */
    char drop_columns[VAE_PATH];       /* of a table, left out: names with commas between them */
    vae_standardize standardize;
    char exclude_class[VAE_PATH]; /* rows of these classes are left out of training; "" = none */
    /* the run */
    uint64_t seed;
    vae_device_kind device;
    int device_index;
    vae_precision precision;
    size_t threads; /* 0 = as vae_threads says */
    char out[VAE_PATH];
    size_t save_every;   /* epochs between checkpoints */
    size_t keep;         /* how many of the last checkpoints stay */
    size_t sample_every; /* epochs between sample grids; 0 = only at the end */
    bool tensorboard;    /* write tensorboard/ */
    bool report;         /* write report.html, at the end and now and then before */
} vae_config;

/* Fills in the defaults: pytorch/examples' VAE. */
void vae_config_defaults(vae_config *config);

/* A set of options: which rows of the table. All zero is empty; where a pointer is asked for, NULL
 * is, too. */
typedef struct vae_option_set {
    uint64_t rows[2];
} vae_option_set;

/* row < 128: vae_config_find's. */
void vae_option_add(vae_option_set *set, size_t row);
bool vae_option_in(const vae_option_set *set, size_t row);

/* What an option is about. Options of the model are fixed by a checkpoint; --resume may change
 * only those of the run and `epochs`. */
typedef enum { VAE_SCOPE_MODEL, VAE_SCOPE_TRAINING, VAE_SCOPE_DATA, VAE_SCOPE_RUN } vae_scope;

/* How an option's value is written and which type its field has. */
typedef enum {
    VAE_KIND_SIZE,    /* size_t */
    VAE_KIND_U64,     /* uint64_t; a string in JSON, whose numbers stop at 2^63 */
    VAE_KIND_REAL,    /* double */
    VAE_KIND_ABOVE,   /* double, the lower bound itself excluded */
    VAE_KIND_CHOICE,  /* an enum: the choices are those of `value`, from min upwards */
    VAE_KIND_SIZES,   /* vae_sizes: "400,200"; an array in JSON */
    VAE_KIND_TEXT,    /* char[VAE_PATH], UTF-8 */
    VAE_KIND_CLASSES, /* the same: names of classes; in JSON a number, too, and -1 for none */
    VAE_KIND_FLAG,    /* bool; on the command line --name, or --name=false */
    VAE_KIND_DEVICE,  /* device and device_index: auto, cpu, cuda, cuda:N */
} vae_kind;

/* One row of the option table: all there is to know about an option. */
typedef struct {
    const char *name;  /* long option without dashes: "batch-size" */
    char letter;       /* short option, or 0 */
    const char *value; /* what its value is called in help: "N", "FLOAT", "a|b|c"; NULL = a flag */
    const char *help;  /* one line, with units */
    vae_scope scope;
    vae_kind kind;
    size_t offset;             /* of its field in vae_config */
    const char *default_value; /* as vae_config_set reads it */
    double min, max;           /* bounds of a number, both included but for VAE_KIND_ABOVE */
} vae_option;

/* A preset: its options, as vae_config_set reads them. */
typedef struct {
    const char *name, *value;
} vae_preset_value;
typedef struct {
    const char *name, *about;
    const vae_preset_value *values;
    size_t n;
} vae_preset_row;

const vae_preset_row *vae_config_preset(vae_preset preset);

/* The table, n rows; n <= 64. */
const vae_option *vae_config_options(size_t *n);

/* Row of option `name`, or SIZE_MAX. Takes underscores for dashes. */
size_t vae_config_find(const char *name);

/* Sets option `name` from text, `preset` with all that it stands for: it is the table's first row,
 * so that those set in the table's order come over it. VAE_ERR_USAGE says what was expected and
 * found, the bounds or the choices; an unknown name gets the nearest known one suggested. */
vae_status vae_config_set(vae_config *config, const char *name, const char *value, vae_error *err);

/* Value of option `name` as text that vae_config_set reads back to the same bits. */
void vae_config_get(const vae_config *config, const char *name, char *text, size_t size);

/* JSON: an object of option names and values (numbers, booleans, strings; sizes as an array, seed
 * as a string), and "schema": 1. Both ways lossless. Returned text is malloc'ed, ends in a newline;
 * NULL = out of memory. */
char *vae_config_to_json(const vae_config *config);
/* Options present in the object `text` are set, `preset` first; others stay. But a config that was
 * recorded ("schema" is in it) by a version without `exif` means what it meant: it is `ignore`.
 * `source` names it in messages. VAE_ERR_USAGE on unknown keys, duplicates, wrong types. */
vae_status vae_config_from_json(vae_config *config, const char *text, const char *source,
                                vae_error *err);

/* Refuses combinations in which an option would have no effect or no meaning (VAE_ERR_USAGE).
 * given: what the user named on the command line; those count even if they say the default, all
 * others only if they differ from it. So a config.json, which holds every value, can be fed
 * back. What would have no effect and is only as the preset has it goes back to its default: a
 * preset gives way to what is set beside it. */
vae_status vae_config_check(vae_config *config, const vae_option_set *given, vae_error *err);

/* First option of the table for which a and b differ, `except` aside; SIZE_MAX if there is none. */
size_t vae_config_difference(const vae_config *a, const vae_config *b,
                             const vae_option_set *except);

/* Options of that scope as `from` has them, `except` aside. */
void vae_config_take(vae_config *config, const vae_config *from, vae_scope scope,
                     const vae_option_set *except);

/* Does the model see the class: conditional or semi-supervised? */
bool vae_config_has_classes(const vae_config *config);
/* Are columns to be standardized: of a table, or of other floats? */
bool vae_config_standardizes(const vae_config *config, bool table);
/* Must values of x lie in [0,1]: by the likelihood, or by its mean? */
bool vae_config_unit(const vae_config *config);
/* Labelled examples of a step: as many as unlabelled ones, if there are. */
size_t vae_config_labelled_batch(const vae_config *config);

#endif
