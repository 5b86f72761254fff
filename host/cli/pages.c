/* Manual pages and bash's completion, from the tables that the command line is read by. `make
 * install` puts them where man and bash look. */
#include "cli/pages.h"

#include <ctype.h>
#include <stdlib.h>
#include <string.h>

#include "base/version.h"

/* ---- what the help says of the whole program ---- */

const char cli_about[] =
    "RUN is a run folder or a checkpoint in it. vae COMMAND --help has options and examples.\n";
const char cli_exit_codes[] =
    "  0 ok, 1 runtime, 2 usage, 3 bad data or checkpoint, 4 I/O, 5 diverged (NaN),\n"
    "  6 no GPU; signals are passed on.\n";
const char cli_examples[] = "  vae train                           train on the built-in digits\n"
                            "  vae eval runs/digits-1 --samples 500\n"
                            "  vae sample runs/digits-1 --out samples.png\n";

/* ---- manual pages: man(7) ---- */

/* Text as roff has it: nothing in it is a request or an escape, and a dash is one that can be
 * copied. */
static void roff(FILE *out, const char *text)
{
    bool begins = true;
    for (; *text != '\0'; text++) {
        if (begins && (*text == '.' || *text == '\'')) {
            fputs("\\&", out);
        }
        fputs(*text == '\\' ? "\\e" : *text == '-' ? "\\-" : (char[]){*text, '\0'}, out);
        begins = *text == '\n';
    }
}

static void title(FILE *out, const char *command)
{
    fputs(".TH VAE", out);
    for (const char *c = command; *c != '\0'; c++) {
        fputs(c == command ? "\\-" : "", out);
        fputc(toupper((unsigned char)*c), out);
    }
    fprintf(out, " 1 \"\" \"vae %s\" \"vae\"\n.SH NAME\nvae%s%s \\- ", vae_build_version,
            command[0] != '\0' ? "\\-" : "", command);
}

typedef struct {
    FILE *out;
    const char *section;
} man_options;

static void man_option(void *ctx, const char *section, const cli_option *o, const char *usual)
{
    man_options *m = ctx;
    FILE *out = m->out;
    if (m->section == NULL || strcmp(m->section, section) != 0) {
        fprintf(out, ".SS %c%s\n", toupper((unsigned char)section[0]), section + 1);
        m->section = section;
    }
    fputs(".TP\n", out);
    if (o->letter != 0) {
        fprintf(out, "\\fB\\-%c\\fR, ", o->letter);
    }
    fputs("\\fB", out);
    roff(out, "--");
    roff(out, o->name);
    fputs("\\fR", out);
    if (o->value != NULL) {
        fputs(o->value[0] == '[' ? "\\fI" : " \\fI", out);
        roff(out, o->value);
        fputs("\\fR", out);
    }
    fputc('\n', out);
    roff(out, o->help);
    if (usual != NULL && usual[0] != '\0') {
        fputs(" [", out);
        roff(out, usual);
        fputc(']', out);
    }
    fputc('\n', out);
}

static void verbatim(FILE *out, const char *heading, const char *text)
{
    fprintf(out, ".SH %s\n.nf\n", heading);
    roff(out, text);
    fputs(".fi\n", out);
}

static void put_presets(FILE *out)
{
    char *text = NULL;
    size_t size;
    FILE *lines = open_memstream(&text, &size);
    if (lines != NULL) {
        cli_put_presets(lines);
    }
    if (lines != NULL && fclose(lines) == 0) {
        verbatim(out, "PRESETS", text);
    }
    free(text);
}

void cli_man_of_command(const cli_command *command, FILE *out)
{
    man_options m = {out, NULL};
    title(out, command->name);
    roff(out, command->help);
    fprintf(out, "\n.SH SYNOPSIS\n\\fBvae %s\\fR%s\\fI", command->name,
            command->n_words > 0 ? " " : "");
    roff(out, command->words);
    fputs("\\fR [\\fIoptions\\fR]\n", out);
    if (command->more != NULL) {
        verbatim(out, "DESCRIPTION", command->more);
    }
    fputs(".SH OPTIONS\n", out);
    cli_each_option(command, man_option, &m);
    if (command->trains) {
        put_presets(out);
    }
    verbatim(out, "EXAMPLES", command->examples);
    verbatim(out, "EXIT STATUS", cli_exit_codes);
    fputs(".SH SEE ALSO\n.BR vae (1)\n", out);
}

void cli_man(const cli_command *const *commands, size_t n, FILE *out)
{
    title(out, "");
    fputs("trains variational autoencoders\n.SH SYNOPSIS\n\\fBvae\\fR \\fICOMMAND\\fR "
          "[\\fIoptions\\fR]\n.SH DESCRIPTION\n",
          out);
    roff(out, cli_about);
    fputs(".SH COMMANDS\n", out);
    for (size_t i = 0; i < n; i++) {
        fprintf(out, ".TP\n\\fBvae\\-%s\\fR(1) \\fI", commands[i]->name);
        roff(out, commands[i]->words);
        fputs("\\fR\n", out);
        roff(out, commands[i]->help);
        fputc('\n', out);
    }
    verbatim(out, "EXAMPLES", cli_examples);
    verbatim(out, "EXIT STATUS", cli_exit_codes);
}

/* ---- completion ---- */

static void put_option(void *ctx, const char *section, const cli_option *o, const char *usual)
{
    (void)section;
    (void)usual;
    fprintf(ctx, " --%s", o->name);
}

typedef struct {
    FILE *out;
    const char *command;
} completion;

/* A line for each option whose value is one of some words or names a file: "a|b[:N]|FILE". */
static void put_values(void *ctx, const char *section, const cli_option *o, const char *usual)
{
    const completion *c = ctx;
    const char *at = o->value != NULL ? o->value : "";
    bool any = false;
    (void)section;
    (void)usual;
    at += strncmp(at, "[=", 2) == 0 ? 2 : 0;
    for (size_t n; *at != '\0'; at += n + (at[n] == '|')) {
        n = strcspn(at, "|");
        const size_t word = strcspn(at, "|[]");
        const bool is_word = islower((unsigned char)at[0]) || isdigit((unsigned char)at[0]);
        const bool is_file =
            word >= 3 && (strncmp(at, "RUN", 3) == 0 || strncmp(at, "DATA", 4) == 0 ||
                          memmem(at, word, "FILE", 4) != NULL);
        if (is_word || is_file) {
            fprintf(c->out, any ? " " : "    %s/--%s) echo '", c->command, o->name);
            fprintf(c->out, "%.*s", is_word ? (int)word : 1, is_word ? at : "/");
            any = true;
        }
    }
    fputs(any ? "' ;;\n" : "", c->out);
}

static const char completion_head[] = "# bash completion of vae, made by `vae help --completion`.\n"
                                      "_vae_options() { # COMMAND\n    case $1 in\n";
static const char completion_middle[] =
    "    esac\n}\n"
    "_vae_values() { # COMMAND/OPTION: what it may be; / stands for the name of a file\n"
    "    case $1 in\n";
static const char completion_tail[] =
    "_vae() {\n"
    "    local word=${COMP_WORDS[COMP_CWORD]} before=${COMP_WORDS[COMP_CWORD - 1]} values\n"
    "    local command=${COMP_WORDS[1]} i\n"
    "    COMPREPLY=()\n"
    "    if [ \"$COMP_CWORD\" -eq 1 ] || [ \"$command\" = help ]; then\n"
    "        mapfile -t COMPREPLY < <(compgen -W \"$_vae_commands\" -- \"$word\")\n"
    "        return\n"
    "    fi\n"
    "    # --option=value comes as three words\n"
    "    [ \"$before\" = = ] && before=${COMP_WORDS[COMP_CWORD - 2]}\n"
    "    [ \"$word\" = = ] && word=''\n"
    "    case $before in\n"
    "    --*) values=$(_vae_values \"$command/$before\") ;;\n"
    "    esac\n"
    "    if [ -n \"$values\" ]; then\n"
    "        for i in $values; do\n"
    "            if [ \"$i\" = / ]; then\n"
    "                compopt -o filenames 2>/dev/null\n"
    "                mapfile -t -O \"${#COMPREPLY[@]}\" COMPREPLY < <(compgen -f -- \"$word\")\n"
    "            else\n"
    "                mapfile -t -O \"${#COMPREPLY[@]}\" COMPREPLY < <(compgen -W \"$i\" -- "
    "\"$word\")\n"
    "            fi\n"
    "        done\n"
    "    elif [[ $word == -* ]]; then\n"
    "        mapfile -t COMPREPLY < <(compgen -W \"$(_vae_options \"$command\")\" -- \"$word\")\n"
    "    else\n"
    "        compopt -o filenames 2>/dev/null\n"
    "        mapfile -t COMPREPLY < <(compgen -f -- \"$word\")\n"
    "    fi\n"
    "}\n"
    "complete -F _vae vae\n";

void cli_completion(const cli_command *const *commands, size_t n, FILE *out)
{
    fputs(completion_head, out);
    for (size_t i = 0; i < n; i++) {
        fprintf(out, "    %s) echo '", commands[i]->name);
        cli_each_option(commands[i], put_option, out);
        fputs("' ;;\n", out);
    }
    fputs(completion_middle, out);
    for (size_t i = 0; i < n; i++) {
        completion c = {out, commands[i]->name};
        cli_each_option(commands[i], put_values, &c);
    }
    fputs("    esac\n}\n_vae_commands='help", out);
    for (size_t i = 0; i < n; i++) {
        fprintf(out, " %s", commands[i]->name);
    }
    fputs("'\n", out);
    fputs(completion_tail, out);
}
