/* Fuzz target: command lines. The first byte of an input says which command, the lines that follow
 * are its words; what their values say is read in each of the ways that commands read them. */
#include "cli/cli.c" /* for its list of commands */

#include <math.h>
#include <stdlib.h>

#include "cli/draw.h"
#include "input.h"

enum { MOST_WORDS = 40 };

/* Numbers, lists of rows and of classes. */
static void read_value(const cli_args *args, const cli_option *o)
{
    static char *names[] = {"7", "8", "cat", "cat, dog", "dog"};
    static const vae_classes classes = {names, 5};
    const char *unknown = NULL, *text = cli_value(args, o->name);
    vae_error err = {0};
    uint32_t *list = NULL;
    size_t n;
    double real;
    bool chosen[5] = {false};
    char name[VAE_CLASS_NAME];
    if (fuzz_judge(draw_numbers(&list, &n, o->name, text, &err), &err)) {
        fuzz_must(n > 0 && list != NULL);
    }
    free(list);
    err = (vae_error){0};
    if (fuzz_judge(cli_size(args, o->name, 1, 1, 1000, &n, &err), &err)) {
        fuzz_must(n >= 1 && n <= 1000);
    }
    err = (vae_error){0};
    if (fuzz_judge(cli_real(args, o->name, 1, 0, 10, &real, &err), &err)) {
        fuzz_must(real >= 0 && real <= 10);
    }
    fuzz_must(vae_class_choose(chosen, &classes, text, &unknown) || unknown != NULL);
    if (vae_class_name(name, text) == NULL) {
        fuzz_must(vae_class_fault(name) == NULL);
    }
}

static void read_words(const cli_command *command, int argc, char **argv)
{
    cli_args args;
    vae_config config;
    vae_option_set given;
    bool help;
    vae_error err = {0};
    if (!fuzz_judge(cli_read(&args, command, argc, argv, &help, &err), &err) || help) {
        return;
    }
    for (size_t i = 0; i < args.n_options; i++) {
        if (args.value[i] != NULL) {
            read_value(&args, &args.options[i]);
        }
    }
    vae_config_defaults(&config);
    if (fuzz_judge(cli_training_options(&args, &config, &given, &err), &err)) {
        char *json = vae_config_to_json(&config);
        vae_config again;
        vae_error none = {0};
        vae_config_defaults(&again);
        fuzz_must(json != NULL && vae_config_from_json(&again, json, "again", &none) == VAE_OK);
        fuzz_must(vae_config_difference(&config, &again, NULL) == SIZE_MAX);
        free(json);
        fuzz_judge(vae_config_check(&config, &given, &err), &err);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    char *argv[MOST_WORDS + 2] = {"vae"};
    int argc = 1;
    if (size == 0) {
        return 0;
    }
    const cli_command *command = commands[data[0] % N_COMMANDS];
    for (size_t at = 1; at < size && argc <= MOST_WORDS; at++) {
        const uint8_t *end = memchr(data + at, '\n', size - at);
        const size_t n = end != NULL ? (size_t)(end - data) - at : size - at;
        argv[argc++] = fuzz_text(data + at, n);
        at += n;
    }
    char *words[MOST_WORDS + 2]; /* getopt moves argv's */
    memcpy(words, argv, sizeof words);
    read_words(command, argc, argv);
    for (int i = 1; i < argc; i++) {
        free(words[i]);
    }
    return 0;
}
