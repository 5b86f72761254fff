/* vae compare. */
#include <string.h>

#include "cli/cli.h"
#include "report/compare.h"

static vae_status run_compare(const cli_args *args, vae_error *err)
{
    vae_comparison *c = NULL;
    const char *out = cli_value(args, "out");
    vae_status status = VAE_OK;
    TRY(cli_check_out(args, out != NULL ? out : "", err));
    TRY(vae_comparison_open(&c, args->words, args->n_words, err));
    if (out != NULL) {
        TRY(vae_comparison_write(c, out, err));
        cli_say(args, "%s: %zu runs side by side", out, args->n_words);
    }
    if (args->json) {
        cli_print_json(vae_comparison_json(c), 9);
    } else if (out == NULL || strcmp(out, "-") != 0) {
        vae_comparison_print(c, stdout);
    }
done:
    vae_comparison_close(c);
    return status;
}

static const cli_option compare_options[] = {
    {"out", 'o', "FILE", "a page with curves and samples, too, or - for standard output"},
};

const cli_command cli_compare_command = {
    .name = "compare",
    .words = "RUN RUN ...",
    .n_words = 2,
    .most_words = CLI_MAX_WORDS,
    .help = "Several runs side by side: options that differ, figures, curves, samples.",
    .examples = "  vae compare runs/beta-1 runs/beta-4\n"
                "  vae compare runs/mnist-* --out compare.html\n",
    CLI_OPTIONS(compare_options),
    .run = run_compare,
};
