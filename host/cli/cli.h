/* The command line: one table of commands (cli.c), each with its options and a function. */
#ifndef VAE_CLI_H
#define VAE_CLI_H

#include <stdbool.h>
#include <stddef.h>
#include <stdio.h>

#include "backend.h"
#include "base/status.h"
#include "base/text.h"
#include "dataset/dataset.h"
#include "model/model.h"
#include "run/checkpoint.h"

enum { CLI_MAX_OPTIONS = 96, CLI_MAX_WORDS = 4 };

typedef struct {
    const char *name;
    char letter;       /* or 0 */
    const char *value; /* what its value is called in help; NULL = a flag */
    const char *help;
} cli_option;

typedef struct cli_args cli_args;

typedef struct {
    const char *name;
    const char *words; /* what stands beside options: "RUN", or "" */
    size_t n_words;    /* how many of them must be there, and at most are */
    const char *help;  /* one line */
    const char *examples;
    const cli_option *options;
    size_t n_options;
    bool trains; /* takes the options of training, too */
    vae_status (*run)(const cli_args *args, vae_error *err);
} cli_command;

/* A command line that was read. Strings are argv's. */
struct cli_args {
    const cli_command *command;
    cli_option options[CLI_MAX_OPTIONS]; /* all that the command takes */
    size_t n_options;
    const char *value[CLI_MAX_OPTIONS]; /* the last one given; "" for a flag; NULL = not given */
    const char *words[CLI_MAX_WORDS];
    size_t n_words;
    bool quiet, json;
};

/* Runs the command that argv names. The error, if any, is not printed yet. */
vae_status vae_cli(int argc, char **argv, vae_error *err);

/* Commands. */
vae_status cli_train(const cli_args *args, vae_error *err);
vae_status cli_eval(const cli_args *args, vae_error *err);
vae_status cli_sample(const cli_args *args, vae_error *err);
vae_status cli_reconstruct(const cli_args *args, vae_error *err);
vae_status cli_score(const cli_args *args, vae_error *err);
vae_status cli_traverse(const cli_args *args, vae_error *err);
vae_status cli_manifold(const cli_args *args, vae_error *err);
vae_status cli_interpolate(const cli_args *args, vae_error *err);
vae_status cli_encode(const cli_args *args, vae_error *err);
vae_status cli_decode(const cli_args *args, vae_error *err);
vae_status cli_classify(const cli_args *args, vae_error *err);
vae_status cli_complete(const cli_args *args, vae_error *err);
vae_status cli_export(const cli_args *args, vae_error *err);
vae_status cli_import(const cli_args *args, vae_error *err);
vae_status cli_report(const cli_args *args, vae_error *err);
vae_status cli_info(const cli_args *args, vae_error *err);
vae_status cli_devices(const cli_args *args, vae_error *err);
vae_status cli_bench(const cli_args *args, vae_error *err);
vae_status cli_probe(const cli_args *args, vae_error *err);

/* Reading argv (cli_args.c): *help is set by -h and --help. */
vae_status cli_read(cli_args *args, const cli_command *command, int argc, char **argv, bool *help,
                    vae_error *err);
/* Help of a command, to out. */
void cli_help(const cli_command *command, FILE *out);

/* Value of option `name`, or NULL if it was not given. */
const char *cli_value(const cli_args *args, const char *name);
/* Whole number and real number options; `fallback` where not given. VAE_ERR_USAGE. */
vae_status cli_size(const cli_args *args, const char *name, size_t fallback, size_t min, size_t max,
                    size_t *out, vae_error *err);
vae_status cli_real(const cli_args *args, const char *name, double fallback, double min, double max,
                    double *out, vae_error *err);
/* Sets the options of training that were given, of a command that takes them; *given: a bit per row
 * of the option table, as vae_config_check wants it. VAE_ERR_USAGE. */
vae_status cli_training_options(const cli_args *args, vae_config *config, uint64_t *given,
                                vae_error *err);
/* A line on stderr, "vae: " in front, unless -q. */
void cli_say(const cli_args *args, const char *format, ...) __attribute__((format(printf, 2, 3)));

/* A trained model, ready to be asked (cli_model.c). Zero-initialize; close in any case. */
typedef struct {
    vae_checkpoint *checkpoint;
    char path[VAE_PATH]; /* of the checkpoint */
    vae_config config;   /* the checkpoint's, with this command's device */
    vae_backend *be;
    vae_model *model;
    vae_dataset *set;
    vae_data *data;
    const char *split; /* "train" or "test" */
} cli_model;

/* Options that every command with a model takes; those for data. */
#define CLI_MODEL_OPTIONS                                                                          \
    {"best", 0, NULL, "of a run folder, take best.vae instead of the newest checkpoint"},          \
        {"device", 0, "auto|cpu|cuda[:N]", "where to compute"},                                    \
    {                                                                                              \
        "threads", 't', "N", "CPU threads; 0 = all cores"                                          \
    }
#define CLI_DATA_OPTIONS                                                                           \
    {"data", 'd', "DATA", "data set; default: the one it was trained on"},                         \
        {"split", 0, "train|test", "default: test where there is one"},                            \
    {                                                                                              \
        "limit", 0, "N", "only the first N rows; 0 = all"                                          \
    }

/* Reads the checkpoint that the first word names, and the options about devices. */
vae_status cli_open_checkpoint(cli_model *m, const cli_args *args, bool moments, vae_error *err);
/* Opens backend and model, with the checkpoint's parameters. */
vae_status cli_open_model(cli_model *m, size_t max_batch, size_t particles, vae_error *err);
/* m->set as a stacked model's data, if it is one: latents of the run below. */
vae_status cli_stack_set(cli_model *m, vae_error *err);
/* vae eval of a semi-supervised model: the bound over all classes, and the classifier's error. */
vae_status cli_eval_semi(cli_model *m, const cli_args *args, vae_error *err);
/* --class: -1 where it is not given. VAE_ERR_USAGE for a model without classes, or one not its own.
 */
vae_status cli_class(const cli_model *m, const cli_args *args, int *out, vae_error *err);
/* Opens the data: before the model `set`, whose range and columns are checked; then `data`. */
vae_status cli_open_set(cli_model *m, const cli_args *args, vae_error *err);
/* The same for a set named by the caller: as the model takes it, standardized where the model's
 * data were. An m->set that was there must be gone. */
vae_status cli_open_named_set(cli_model *m, const char *name, vae_split split, size_t limit,
                              vae_error *err);
/* How data are read, by the config; with progress on a terminal. */
vae_data_options cli_data_options(const vae_config *config, size_t limit);
vae_status cli_open_data(cli_model *m, vae_error *err);
void cli_close(cli_model *m);

#endif
