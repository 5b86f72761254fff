/* vae report: the HTML page of a run or a checkpoint. */
#include <stdio.h>
#include <string.h>

#include "base/file.h"
#include "cli/cli.h"
#include "cli/signals.h"
#include "report/report.h"

static const char standard_output[] = "/dev/stdout";

/* The run folder of a run, or of a checkpoint in one; "" = there is none. */
static vae_status find_folder(const char *run, const char *checkpoint, char folder[VAE_PATH],
                              vae_error *err)
{
    static const char inside[] = "/checkpoints/";
    bool is;
    vae_status status = VAE_OK;
    folder[0] = '\0';
    TRY(vae_is_folder(&is, run, err));
    if (is) {
        snprintf(folder, VAE_PATH, "%s", run);
        return VAE_OK;
    }
    const char *slash = strrchr(checkpoint, '/');
    const size_t tail = sizeof inside - 1;
    if (slash != NULL && (size_t)(slash - checkpoint) + 1 >= tail &&
        strncmp(slash + 1 - tail, inside, tail) == 0) {
        snprintf(folder, VAE_PATH, "%.*s", (int)(slash + 1 - tail - checkpoint), checkpoint);
    } else if (strncmp(checkpoint, inside + 1, tail - 1) == 0) {
        snprintf(folder, VAE_PATH, ".");
    }
done:
    return status;
}

static void print_result(const cli_args *args, const vae_trained *m, const char *out,
                         const vae_report_result *r)
{
    char n[32];
    const char *format = r->half ? "float16" : "float32";
    if (args->json) {
        cli_print_json(json_pack("{s:i, s:s, s:s, s:I, s:b, s:{s:b, s:I, s:s?}, s:f}", "schema", 1,
                                 "checkpoint", m->path, "out", out, "bytes", (json_int_t)r->bytes,
                                 "data", m->set != NULL, "explorer", "included",
                                 r->explorer_bytes > 0, "weight_bytes",
                                 (json_int_t)r->explorer_bytes, "format",
                                 r->explorer_bytes > 0 ? format : NULL, "seconds", r->seconds),
                       6);
    } else if (strcmp(out, standard_output) != 0) { /* it has the report */
        cli_say(args, "%s: report of %s, %s bytes%s", out, m->path,
                vae_thousands(n, (double)r->bytes),
                r->explorer_bytes == 0 ? "; the decoder is too large for the explorer" : "");
    }
}

static vae_status choose_out(const cli_args *args, const char *folder, char path[VAE_PATH],
                             vae_error *err)
{
    const char *out = cli_value(args, "out");
    vae_status status = VAE_OK;
    int n;
    TRY(cli_check_out(args, out, err));
    if (out != NULL) {
        n = snprintf(path, VAE_PATH, "%s", strcmp(out, "-") == 0 ? standard_output : out);
    } else {
        n = snprintf(path, VAE_PATH, "%s%sreport.html", folder, folder[0] != '\0' ? "/" : "");
        vae_make_way(path); /* the run's own: nothing else is written into */
    }
    if (n >= VAE_PATH || n == 0) {
        TRY(vae_fail(err, VAE_ERR_USAGE, "--out: expected a name of 1 to %d bytes", VAE_PATH - 1));
    }
done:
    return status;
}

/* Where nothing else is asked for, what training's own report shows: the test split, or rows held
 * out, or those trained on. */
static vae_status choose_split(const char **split, const cli_args *args, const vae_config *config,
                               vae_error *err)
{
    vae_split of_test;
    const char *test = NULL;
    vae_status status = VAE_OK;
    *split = cli_value(args, "split");
    if (*split != NULL || cli_given(args, "data")) {
        return VAE_OK;
    }
    TRY(cli_test_data(&test, &of_test, config, err));
    if (test == NULL) {
        *split = config->validation > 0 ? "validation" : "train";
    }
done:
    return status;
}

static vae_status run_report(const cli_args *args, vae_error *err)
{
    vae_trained m = {.own = NULL};
    char folder[VAE_PATH] = "", out[VAE_PATH];
    vae_error missing = {0};
    vae_report_result result;
    const char *split;
    vae_status status = VAE_OK;
    TRY(cli_open_checkpoint(&m, args, err));
    TRY(find_folder(args->words[0], m.path, folder, err));
    TRY(choose_out(args, folder, out, err));
    const vae_status known = choose_split(&split, args, &m.config, &missing);
    if (known == VAE_OK) {
        TRY(cli_open_set_if_there(&m, args, split, NULL, &missing, err));
    } else if (known != VAE_ERR_DATA) { /* damaged data are as good as none */
        TRY(vae_fail(err, known, "%s", missing.text));
    }
    if (m.set == NULL) {
        cli_say(args, "without data: %s", missing.text);
    }
    TRY(vae_trained_start(&m, VAE_INFER_BATCH, 1, err));
    if (m.set != NULL) {
        TRY(vae_trained_put(&m, NULL, 0, err));
    }
    vae_signals_install();
    const vae_report_source source = {.on = &m,
                                      .name = args->words[0],
                                      .folder = folder[0] != '\0' ? folder : NULL,
                                      .missing = missing.text,
                                      .watch = {.stop_signal = vae_signals_flag()}};
    TRY(vae_report_write(&source, out, &result, err));
    print_result(args, &m, out, &result);
done:
    vae_trained_close(&m);
    return status;
}

static const cli_option report_options[] = {
    CLI_DATA_OPTIONS,
    {"out", 'o', "FILE", "the report, or - [RUN/report.html]"},
    CLI_MODEL_OPTIONS,
};

const cli_command cli_report_command = {
    .name = "report",
    .words = "RUN",
    .n_words = 1,
    .help = "One HTML file: curves, pictures, tables, and the decoder to play with.",
    .examples = "  vae report runs/mnist                        runs/mnist/report.html\n"
                "  vae report runs/mnist --best --out best.html\n"
                "  vae report model.vae --data data/mnist --out model.html\n",
    CLI_OPTIONS(report_options),
    .run = run_report,
};
