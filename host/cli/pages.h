/* Manual pages and bash's completion, made of the tables of commands and options. */
#ifndef VAE_CLI_PAGES_H
#define VAE_CLI_PAGES_H

#include "cli/cli.h"

/* What the help says of the whole program: lines, and tables of them. */
extern const char cli_about[], cli_exit_codes[], cli_examples[];

/* vae-COMMAND(1), and vae(1) of all of them. */
void cli_man_of_command(const cli_command *command, FILE *out);
void cli_man(const cli_command *const *commands, size_t n, FILE *out);
/* A script for bash to source: commands, their options, values that are one of some words, files.
 */
void cli_completion(const cli_command *const *commands, size_t n, FILE *out);

#endif
