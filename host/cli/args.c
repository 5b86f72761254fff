/* Reading argv by tables, and help from the same tables. */
#include <getopt.h>
#include <stdio.h>
#include <string.h>

#include "cli/cli.h"

static const cli_option common[] = {
    {"json", 0, NULL, "print one JSON object"},
    {"quiet", 'q', NULL, "no messages but errors and warnings"},
    {"help", 'h', NULL, "this text"},
};

enum { N_COMMON = sizeof common / sizeof common[0], FIRST_CODE = 256 };

static void collect_options(cli_args *args)
{
    size_t n;
    const vae_option *training = vae_config_options(&n);
    const cli_command *command = args->command;
    for (size_t i = 0; command->trains && i < n; i++) {
        args->options[args->n_options++] =
            (cli_option){training[i].name, training[i].letter, training[i].value, training[i].help};
    }
    for (size_t i = 0; i < command->n_options; i++) {
        args->options[args->n_options++] = command->options[i];
    }
    for (size_t i = 0; i < N_COMMON; i++) {
        args->options[args->n_options++] = common[i];
    }
}

static size_t find_name(const cli_args *args, const char *name)
{
    for (size_t i = 0; i < args->n_options; i++) {
        if (strcmp(args->options[i].name, name) == 0) {
            return i;
        }
    }
    return SIZE_MAX;
}

static size_t find_code(const cli_args *args, int code)
{
    for (size_t i = 0; i < args->n_options; i++) {
        if (code == FIRST_CODE + (int)i || (code != 0 && args->options[i].letter == code)) {
            return i;
        }
    }
    return SIZE_MAX;
}

/* getopt's tables. A training option that is a flag may have "=false" behind it. */
static void make_tables(const cli_args *args, struct option *longs, char *shorts)
{
    *shorts++ = ':'; /* tells a missing value from an unknown option */
    for (size_t i = 0; i < args->n_options; i++) {
        const cli_option *o = &args->options[i];
        int has = o->value != NULL ? required_argument : no_argument;
        if (o->value != NULL ? o->value[0] == '[' : vae_config_find(o->name) != SIZE_MAX) {
            has = optional_argument;
        }
        longs[i] = (struct option){o->name, has, NULL, FIRST_CODE + (int)i};
        if (o->letter != 0) {
            *shorts++ = o->letter;
            if (o->value != NULL) {
                *shorts++ = ':';
            }
        }
    }
    longs[args->n_options] = (struct option){0};
    *shorts = '\0';
}

static vae_status unknown(const cli_args *args, const char *word, int letter, vae_error *err)
{
    const char *command = args->command->name;
    if (letter != 0 && letter < FIRST_CODE) {
        return vae_fail(err, VAE_ERR_USAGE, "unknown option -%c; vae %s --help lists them", letter,
                        command);
    }
    if (letter >= FIRST_CODE) {
        return vae_fail(err, VAE_ERR_USAGE, "option --%s takes no value",
                        args->options[letter - FIRST_CODE].name);
    }
    char name[64];
    snprintf(name, sizeof name, "%.*s", (int)strcspn(word + 2, "="), word + 2);
    vae_nearest nearest = {.word = name};
    for (size_t i = 0; i < args->n_options; i++) {
        vae_nearest_offer(&nearest, args->options[i].name);
    }
    if (nearest.best != NULL) {
        return vae_fail(err, VAE_ERR_USAGE, "unknown option --%s; did you mean --%s?", name,
                        nearest.best);
    }
    return vae_fail(err, VAE_ERR_USAGE, "unknown option --%s; vae %s --help lists them", name,
                    command);
}

/* Whatever is no option. */
static vae_status read_words(cli_args *args, int argc, char **argv, int first, vae_error *err)
{
    const cli_command *command = args->command;
    const size_t most = command->most_words > 0 ? command->most_words : command->n_words;
    for (int i = first; i < argc; i++) {
        if (args->n_words == most || args->n_words == CLI_MAX_WORDS) {
            return vae_fail(err, VAE_ERR_USAGE,
                            "vae %s: unexpected '%s'; usage: vae %s%s%s [options]", command->name,
                            argv[i], command->name, command->n_words > 0 ? " " : "",
                            command->words);
        }
        args->words[args->n_words++] = argv[i];
    }
    if (args->n_words < command->n_words) {
        return vae_fail(err, VAE_ERR_USAGE, "vae %s: %s is missing; usage: vae %s %s [options]",
                        command->name, command->words, command->name, command->words);
    }
    return VAE_OK;
}

vae_status cli_read(cli_args *args, const cli_command *command, int argc, char **argv, bool *help,
                    vae_error *err)
{
    struct option longs[CLI_MAX_OPTIONS + 1];
    char shorts[2 * CLI_MAX_OPTIONS + 2];
    *args = (cli_args){.command = command};
    *help = false;
    collect_options(args);
    make_tables(args, longs, shorts);
    optind = 0; /* glibc: begin anew */
    opterr = 0;
    for (int code, at; at = optind > 0 ? optind : 1,
                       (code = getopt_long(argc, argv, shorts, longs, NULL)) != -1;) {
        if (code == '?') {
            return unknown(args, optopt == 0 ? argv[optind - 1] : argv[at], optopt, err);
        }
        if (code == ':') {
            size_t i = find_code(args, optopt);
            return vae_fail(err, VAE_ERR_USAGE, "option --%s wants a value: %s",
                            args->options[i].name, args->options[i].value);
        }
        size_t i = find_code(args, code);
        args->value[i] = optarg != NULL ? optarg : "";
        if (args->n_given == CLI_MAX_GIVEN) {
            return vae_fail(err, VAE_ERR_USAGE, "more than %d options", CLI_MAX_GIVEN);
        }
        args->given[args->n_given].option = i;
        args->given[args->n_given++].value = args->value[i];
    }
    args->quiet = cli_given(args, "quiet");
    args->json = cli_given(args, "json");
    *help = cli_given(args, "help");
    return *help ? VAE_OK : read_words(args, argc, argv, optind, err);
}

const char *cli_value(const cli_args *args, const char *name)
{
    size_t i = find_name(args, name);
    return i != SIZE_MAX ? args->value[i] : NULL;
}

bool cli_given(const cli_args *args, const char *name)
{
    return cli_value(args, name) != NULL;
}

cli_args cli_with(const cli_args *args, const char *name, const char *value)
{
    cli_args other = *args;
    other.value[find_name(args, name)] = value;
    return other;
}

vae_status cli_size(const cli_args *args, const char *name, size_t fallback, size_t min, size_t max,
                    size_t *out, vae_error *err)
{
    const char *text = cli_value(args, name);
    uint64_t value = fallback;
    if (text != NULL && !vae_parse_u64(text, min, max, &value)) {
        return vae_fail(err, VAE_ERR_USAGE,
                        "--%s: expected a whole number from %zu to %zu, found '%s'", name, min, max,
                        text);
    }
    *out = value;
    return VAE_OK;
}

vae_status cli_real(const cli_args *args, const char *name, double fallback, double min, double max,
                    double *out, vae_error *err)
{
    const char *text = cli_value(args, name);
    *out = fallback;
    if (text != NULL && (!vae_parse_real(text, out) || *out < min || *out > max)) {
        return vae_fail(err, VAE_ERR_USAGE, "--%s: expected a number from %g to %g, found '%s'",
                        name, min, max, text);
    }
    return VAE_OK;
}

vae_status cli_refuse(const cli_args *args, const char *const *names, const char *why,
                      vae_error *err)
{
    for (; *names != NULL; names++) {
        if (cli_given(args, *names)) {
            return vae_fail(err, VAE_ERR_USAGE, "--%s has no effect %s", *names, why);
        }
    }
    return VAE_OK;
}

/* ---- help ---- */

typedef struct {
    FILE *out;
    const char *section; /* of the option before */
} help_text;

static void option_help(void *ctx, const char *section, const cli_option *o, const char *usual)
{
    help_text *h = ctx;
    FILE *out = h->out;
    if (h->section == NULL || strcmp(h->section, section) != 0) {
        fprintf(out, "%s%s:\n", h->section != NULL ? "\n" : "", section);
        h->section = section;
    }
    char left[160];
    int n = o->letter != 0 ? snprintf(left, sizeof left, "  -%c, --%s", o->letter, o->name)
                           : snprintf(left, sizeof left, "      --%s", o->name);
    if (o->value != NULL) {
        snprintf(left + n, sizeof left - (size_t)n, o->value[0] == '[' ? "%s" : " %s", o->value);
    }
    if (strlen(left) > 31) {
        fprintf(out, "%s\n%32s%s", left, "", o->help);
    } else {
        fprintf(out, "%-32s%s", left, o->help);
    }
    fprintf(out, usual != NULL && usual[0] != '\0' ? " [%s]\n" : "%.0s\n",
            usual != NULL ? usual : "");
}

static void each_training_option(cli_option_fn *fn, void *ctx)
{
    static const char *const titles[] = {"the model", "training", "the data", "the run"};
    char kinds[VAE_DATASET_KINDS];
    size_t n;
    const vae_option *options = vae_config_options(&n);
    for (int scope = VAE_SCOPE_MODEL; scope <= VAE_SCOPE_RUN; scope++) {
        for (size_t i = 0; i < n; i++) {
            const vae_option *o = &options[i];
            const char *help = o->help[0] != '\0' ? o->help : vae_dataset_kinds(kinds);
            const cli_option plain = {o->name, o->letter, o->value, help};
            if ((int)o->scope == scope) {
                fn(ctx, titles[scope], &plain, o->kind == VAE_KIND_FLAG ? "" : o->default_value);
            }
        }
    }
}

void cli_each_option(const cli_command *command, cli_option_fn *fn, void *ctx)
{
    if (command->trains) {
        each_training_option(fn, ctx);
    }
    for (size_t i = 0; i < command->n_options; i++) {
        fn(ctx, "options", &command->options[i], NULL);
    }
    for (size_t i = 0; i < N_COMMON; i++) {
        fn(ctx, "options", &common[i], NULL);
    }
}

void cli_put_presets(FILE *out)
{
    for (int p = VAE_PRESET_NONE + 1; p < VAE_N_PRESETS; p++) {
        const vae_preset_row *row = vae_config_preset((vae_preset)p);
        int column = fprintf(out, "  %-10s%s:", row->name, row->about);
        for (size_t i = 0; i < row->n; i++) {
            const bool flag =
                vae_config_options(&(size_t){0})[vae_config_find(row->values[i].name)].kind ==
                VAE_KIND_FLAG;
            char text[96];
            const int n = snprintf(text, sizeof text, "--%s%s%s", row->values[i].name,
                                   flag ? "" : " ", flag ? "" : row->values[i].value);
            const bool fits = column + 1 + n <= 100;
            fprintf(out, fits ? " %s" : "\n            %s", text);
            column = fits ? column + 1 + n : 12 + n;
        }
        fputc('\n', out);
    }
}

void cli_help(const cli_command *command, FILE *out)
{
    help_text text = {out, NULL};
    fprintf(out, "usage: vae %s%s%s [options]\n\n%s\n\n", command->name,
            command->n_words > 0 ? " " : "", command->words, command->help);
    if (command->more != NULL) {
        fprintf(out, "%s\n", command->more);
    }
    cli_each_option(command, option_help, &text);
    if (command->trains) {
        fputs("\npresets:\n", out);
        cli_put_presets(out);
    }
    fprintf(out, "\nexamples:\n%s", command->examples);
}

vae_status cli_training_options(const cli_args *args, vae_config *config, vae_option_set *given,
                                vae_error *err)
{
    vae_status status = VAE_OK;
    *given = (vae_option_set){{0}};
    for (size_t i = 0; i < args->n_options && status == VAE_OK; i++) {
        const size_t row = vae_config_find(args->options[i].name);
        const char *value = args->value[i];
        if (row != SIZE_MAX && value != NULL) {
            const bool flag = args->options[i].value == NULL && value[0] == '\0';
            status = vae_config_set(config, args->options[i].name, flag ? "true" : value, err);
            vae_option_add(given, row);
        }
    }
    return status;
}
