/* The command line: a command is a file that defines its cli_command, and a row in cli.c. */
#ifndef VAE_CLI_H
#define VAE_CLI_H

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdio.h>

#include "base/status.h"
#include "base/text.h"
#include "eval/bytes.h"
#include "infer/trained.h"

enum { CLI_MAX_OPTIONS = 96, CLI_MAX_WORDS = 32, CLI_MAX_GIVEN = 256 };

typedef struct {
    const char *name;
    char letter; /* or 0 */
    const char
        *value; /* what its value is called in help; NULL = a flag; "[=...]" = may have one */
    const char *help;
} cli_option;

typedef struct cli_args cli_args;

typedef struct {
    const char *name;
    const char *words; /* what stands beside options: "RUN", or "" */
    size_t n_words;    /* how many of them must be there, and at most are, ... */
    size_t most_words; /* ... unless this says how many there may be; 0: it does not */
    const char *help;  /* one line */
    const char *more;  /* lines that only the command's own help has; or NULL */
    const char *examples;
    const cli_option *options;
    size_t n_options;
    bool trains; /* takes the options of training, too */
    bool shares; /* works as several ranks */
    vae_status (*run)(const cli_args *args, vae_error *err);
} cli_command;

/* Both members about options, of a table. */
#define CLI_OPTIONS(table) .options = (table), .n_options = sizeof(table) / sizeof(table)[0]

/* A command line that was read. Strings are argv's. */
struct cli_args {
    const cli_command *command;
    cli_option options[CLI_MAX_OPTIONS]; /* all that the command takes */
    size_t n_options;
    const char *value[CLI_MAX_OPTIONS]; /* the last one given; "" for a flag; NULL = not given */
    struct {
        size_t option; /* its place in `options` */
        const char *value;
    } given[CLI_MAX_GIVEN]; /* every one, in order: for options that may come more than once */
    size_t n_given;
    const char *words[CLI_MAX_WORDS];
    size_t n_words;
    bool quiet, json;       /* of ranks but the first: quiet, no JSON */
    const vae_ranks *ranks; /* NULL: alone; else the command `shares` */
};

/* Runs the command that argv names, as one of these ranks or alone (NULL). The error, if any, is
 * not printed yet. */
vae_status vae_cli(int argc, char **argv, const vae_ranks *ranks, vae_error *err);

/* Is it this process that writes and prints? */
static inline bool cli_writes(const cli_args *args)
{
    return vae_ranks_number(args->ranks) == 0;
}

/* ---- what was given (args.c) ---- */

/* Reads argv: *help is set by -h and --help. */
vae_status cli_read(cli_args *args, const cli_command *command, int argc, char **argv, bool *help,
                    vae_error *err);
/* Help of a command, to out. */
void cli_help(const cli_command *command, FILE *out);
/* Calls fn for all options of a command, as its help lists them: section: "the model", "options";
 * usual: its default, or NULL. */
typedef void cli_option_fn(void *ctx, const char *section, const cli_option *option,
                           const char *usual);
void cli_each_option(const cli_command *command, cli_option_fn *fn, void *ctx);
/* Lines that name the presets of training, and the options each stands for. */
void cli_put_presets(FILE *out);

/* Value of option `name`, or NULL if it was not given. */
const char *cli_value(const cli_args *args, const char *name);
bool cli_given(const cli_args *args, const char *name);
/* The same command line with another value of option `name`, which it must have; NULL: not
 * given. */
cli_args cli_with(const cli_args *args, const char *name, const char *value);
/* Whole number and real number options; `fallback` where not given. VAE_ERR_USAGE. */
vae_status cli_size(const cli_args *args, const char *name, size_t fallback, size_t min, size_t max,
                    size_t *out, vae_error *err);
vae_status cli_real(const cli_args *args, const char *name, double fallback, double min, double max,
                    double *out, vae_error *err);
/* Refuses options that were given although they have no effect here: `names`, NULL at the end.
 * VAE_ERR_USAGE: "--name has no effect" and why. */
vae_status cli_refuse(const cli_args *args, const char *const *names, const char *why,
                      vae_error *err);
/* Sets the options of training that were given, of a command that takes them; *given: a bit per row
 * of the option table, as vae_config_check wants it. VAE_ERR_USAGE. */
vae_status cli_training_options(const cli_args *args, vae_config *config, vae_option_set *given,
                                vae_error *err);

/* ---- what is said (output.c) ---- */

/* A line on stderr, "vae: " in front, unless -q. */
void cli_say(const cli_args *args, const char *format, ...) __attribute__((format(printf, 2, 3)));
/* "; did you mean '...'?" where a word was near enough, else the other text. */
const char *cli_meant(char text[64], const vae_nearest *nearest, const char *otherwise);
/* An object to standard output, reals with so many digits; it is taken over. */
void cli_print_json(json_t *o, size_t digits);
/* A number, or null where it is not finite; a string, or null for NULL and "". */
json_t *cli_json_real(double value);
json_t *cli_json_text(const char *text);
/* VAE_ERR_USAGE where --out is - although --json has standard output. */
vae_status cli_check_out(const cli_args *args, const char *out, vae_error *err);

/* Ends the program where there is no memory and no way to tell the caller. */
_Noreturn void cli_out_of_memory(size_t n, const char *what);

/* A line on standard output, its newline added; text from files may be in it, which is escaped. */
void cli_print(const char *format, ...) __attribute__((format(printf, 1, 2)));

/* ---- a trained model and its data (model.c) ---- */

/* Options that every command with a model takes; those for data. */
#define CLI_MODEL_OPTIONS                                                                          \
    {"best", 0, NULL, "of a run folder, take best.vae instead of the newest checkpoint"},          \
        {"device", 0, "auto|cpu|cuda[:N]", "where to compute"},                                    \
    {                                                                                              \
        "threads", 't', "N",                                                                       \
            "CPU threads at most; 0 = OMP_NUM_THREADS, or cores that affinity and quota grant"     \
    }
#define CLI_DATA_OPTIONS                                                                           \
    {"data", 'd', "DATA", "data set, or - for standard input; default: what it was trained on"},   \
        {"split", 0, "train|validation|test",                                                      \
         "rows trained on, rows held out, or rows to test on [test, where there is one]"},         \
    {                                                                                              \
        "limit", 0, "N",                                                                           \
            "only N rows: the first, of sprites and picture files random ones; 0 = all"            \
    }

/* Reads the checkpoint that the first word names, and the options about devices. */
vae_status cli_open_checkpoint(vae_trained *m, const cli_args *args, vae_error *err);
/* --binarize over what the model was trained with. */
vae_status cli_binarize(vae_trained *m, const cli_args *args, vae_error *err);
/* The same for latents that stand for the data: where each use drew x anew (dynamic), the data
 * themselves are taken if --binarize does not say otherwise. */
vae_status cli_binarize_for_latents(vae_trained *m, const cli_args *args, vae_error *err);
/* --class by its name: -1 where it is not given. VAE_ERR_USAGE for a model without classes, or one
 * that is not its own or was never trained. */
vae_status cli_class(const vae_trained *m, const cli_args *args, int *out, vae_error *err);
/* Opens m->set: by --data (-: standard input), --split and --limit, or what it was trained on.
 * m->split says which rows they are: "test"; "train", those that were trained on, or the split of
 * that name that other data have; "validation", those held out; "data", all of a set that has no
 * splits. */
vae_status cli_open_set(vae_trained *m, const cli_args *args, vae_error *err);
/* The same for a name and a split that the caller has; --limit holds. */
vae_status cli_open_named_set(vae_trained *m, const cli_args *args, const char *name,
                              vae_split split, vae_error *err);
/* What a run is tested on, and which split of it; NULL: nothing. Errors: vae_dataset_has_test's. */
vae_status cli_test_data(const char **name, vae_split *split, const vae_config *config,
                         vae_error *err);
/* As cli_open_set, where those of the training may be missing, or others by now: then m->set is
 * NULL, and `missing` says why. That they cannot be read now is an error. split: in place of
 * --split; needed: another option that wants them as --data does; both or NULL. */
vae_status cli_open_set_if_there(vae_trained *m, const cli_args *args, const char *split,
                                 const char *needed, vae_error *missing, vae_error *err);
/* `why`, the failure to open data, as err; that they are the run's own is said. Returns status. */
vae_status cli_from_run(bool from_run, vae_status status, const vae_error *why, vae_error *err);

/* Readers want files they can measure: standard input is put into one that has no name. fd -1: not
 * in use. */
typedef struct {
    int fd;
    char path[40];
} cli_spool;
/* VAE_ERR_IO, VAE_ERR_RUNTIME; cli_spool_close in any case. */
vae_status cli_spool_open(cli_spool *s, vae_error *err);
/* An error about it names what the user named. Returns status. */
vae_status cli_spool_rename(const cli_spool *s, vae_status status, vae_error *err);
void cli_spool_close(cli_spool *s);

/* How data are read, by the config; with progress on a terminal. */
vae_data_options cli_data_options(const vae_config *config, size_t limit);
/* Adds psnr, bits_per_dim and dequantization, null where there are none; prints those there are,
 * saying at which z. */
void cli_json_bytes(json_t *o, const vae_byte_figures *bytes);
void cli_print_bytes(const vae_byte_figures *bytes, const char *where);
/* vae eval of a semi-supervised model (classify.c): the bound over all classes, and the
 * classifier's error. */
vae_status cli_eval_semi(vae_trained *m, const cli_args *args, vae_error *err);

#endif
