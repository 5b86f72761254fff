/* The table of commands. */
#include "cli/cli.h"

#include <stdint.h>
#include <string.h>

#include "base/version.h"
#include "cli/pages.h"
#include "config/config.h"

/* Every command, as help lists them; cli_NAME_command is in a file of its own. */
// clang-format off
#define COMMANDS(X) \
    X(train) \
    X(eval) \
    X(sample) \
    X(reconstruct) \
    X(interpolate) \
    X(traverse) \
    X(manifold) \
    X(encode) \
    X(decode) \
    X(classify) \
    X(complete) \
    X(score) \
    X(export) \
    X(import) \
    X(report) \
    X(compare) \
    X(info) \
    X(devices) \
    X(probe) \
    X(bench)
// clang-format on

#define DECLARE(name) extern const cli_command cli_##name##_command;
#define ROW(name)     &cli_##name##_command,
COMMANDS(DECLARE)
static const cli_command *const commands[] = {COMMANDS(ROW)};

enum { N_COMMANDS = sizeof commands / sizeof commands[0] };

static const cli_command *find_command(const char *name)
{
    for (size_t i = 0; i < N_COMMANDS; i++) {
        if (strcmp(commands[i]->name, name) == 0) {
            return commands[i];
        }
    }
    return NULL;
}

static void overview(FILE *out)
{
    fputs("usage: vae COMMAND [options]\n\nTrains variational autoencoders.\n\ncommands:\n", out);
    for (size_t i = 0; i < N_COMMANDS; i++) {
        fprintf(out, "  %-12s %-9s %s\n", commands[i]->name, commands[i]->words, commands[i]->help);
    }
    fprintf(out,
            "  help         [COMMAND] This text, or a command's options.\n\n%s"
            "exit codes:\n%s\nexamples:\n%s",
            cli_about, cli_exit_codes, cli_examples);
}

static vae_status unknown_command(const char *name, vae_error *err)
{
    vae_nearest nearest = {.word = name};
    for (size_t i = 0; i < N_COMMANDS; i++) {
        vae_nearest_offer(&nearest, commands[i]->name);
    }
    char text[64];
    return vae_fail(err, VAE_ERR_USAGE, "unknown command '%s'%s", name,
                    cli_meant(text, &nearest, "; vae --help lists them"));
}

/* help [COMMAND]; help --man [COMMAND] and --completion are what `make install` asks for. */
static vae_status help_command(int argc, char **argv, vae_error *err)
{
    if (argc < 3) {
        overview(stdout);
        return VAE_OK;
    }
    if (strcmp(argv[2], "--completion") == 0) {
        cli_completion(commands, N_COMMANDS, stdout);
        return VAE_OK;
    }
    const bool man = strcmp(argv[2], "--man") == 0;
    if (man && argc == 3) {
        cli_man(commands, N_COMMANDS, stdout);
        return VAE_OK;
    }
    const char *name = argv[man ? 3 : 2];
    const cli_command *command = find_command(name);
    if (command == NULL) {
        return unknown_command(name, err);
    }
    (man ? cli_man_of_command : cli_help)(command, stdout);
    return VAE_OK;
}

/* Under -q, what is no error but wrong is still told. */
static void tell_warning(void *ctx, const char *line)
{
    if (strncmp(line, "warning: ", strlen("warning: ")) == 0) {
        vae_note(ctx, "%s", line);
    }
}

vae_status vae_cli(int argc, char **argv, const vae_ranks *ranks, vae_error *err)
{
    if (argc < 2) {
        overview(stderr);
        return vae_fail(err, VAE_ERR_USAGE, "no command given");
    }
    const char *word = argv[1];
    if (strcmp(word, "--version") == 0 || strcmp(word, "-V") == 0) {
        printf("vae %s (%s)\n", vae_build_version, vae_build_git);
        return VAE_OK;
    }
    if (strcmp(word, "help") == 0 || strcmp(word, "--help") == 0 || strcmp(word, "-h") == 0) {
        return help_command(argc, argv, err);
    }
    if (word[0] == '-') {
        return vae_fail(err, VAE_ERR_USAGE, "%s: a command comes first; vae --help lists them",
                        word);
    }
    const cli_command *command = find_command(word);
    if (command == NULL) {
        return unknown_command(word, err);
    }
    cli_args args;
    bool help;
    vae_status status = cli_read(&args, command, argc - 1, argv + 1, &help, err);
    if (status == VAE_OK && help) {
        cli_help(command, stdout);
        return VAE_OK;
    }
    if (status != VAE_OK) {
        return status;
    }
    if (ranks != NULL && !command->shares) {
        return vae_fail(err, VAE_ERR_USAGE,
                        "vae %s works alone, not as %zu ranks: start it without mpirun or srun, or "
                        "with VAE_RANKS=0 for as many that know nothing of each other",
                        command->name, ranks->n);
    }
    args.ranks = ranks;
    const vae_notes *all = cli_writes(&args) ? err->notes : NULL;
    args.quiet = args.quiet || !cli_writes(&args);
    args.json = args.json && cli_writes(&args);
    const vae_notes warnings = {.tell = tell_warning, .ctx = (void *)(uintptr_t)all};
    err->notes = args.quiet ? &warnings : all;
    status = command->run(&args, err);
    err->notes = all;
    return status;
}
