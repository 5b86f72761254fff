/* vae report. */
#include <jansson.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

#include "cli/cli.h"
#include "cli/signals.h"
#include "infer/pictures.h"
#include "report/report.h"

static const char standard_output[] = "/dev/stdout";

/* The run folder of a run, or of a checkpoint in one; "" = there is none. */
static void find_folder(const char *run, const char *checkpoint, char folder[VAE_PATH])
{
    static const char inside[] = "/checkpoints/";
    struct stat info;
    folder[0] = '\0';
    if (stat(run, &info) == 0 && S_ISDIR(info.st_mode)) {
        snprintf(folder, VAE_PATH, "%s", run);
        return;
    }
    const char *slash = strrchr(checkpoint, '/');
    const size_t tail = sizeof inside - 1;
    if (slash != NULL && (size_t)(slash - checkpoint) + 1 >= tail &&
        strncmp(slash + 1 - tail, inside, tail) == 0) {
        snprintf(folder, VAE_PATH, "%.*s", (int)(slash + 1 - tail - checkpoint), checkpoint);
    } else if (strncmp(checkpoint, inside + 1, tail - 1) == 0) {
        snprintf(folder, VAE_PATH, ".");
    }
}

/* Data that were asked for must be there; without those of the training, what needs them is left
 * out. */
static vae_status open_data(cli_model *m, const cli_args *args, char missing[VAE_ERROR_TEXT],
                            vae_error *err)
{
    vae_error inner = {0};
    vae_status status = cli_open_set(m, args, &inner);
    if (status == VAE_OK) {
        return VAE_OK;
    }
    if (cli_value(args, "data") != NULL || cli_value(args, "split") != NULL ||
        cli_value(args, "limit") != NULL || status == VAE_ERR_RUNTIME) {
        return vae_fail(err, status, "%s", inner.text);
    }
    snprintf(missing, VAE_ERROR_TEXT, "%s", inner.text);
    cli_say(args, "without data: %s", inner.text);
    vae_dataset_free(m->set);
    m->set = NULL;
    return VAE_OK;
}

static void print_result(const cli_args *args, const cli_model *m, const char *out,
                         const vae_report_result *r)
{
    char n[32];
    if (!args->json) {
        if (strcmp(out, standard_output) == 0) {
            return; /* it has the report */
        }
        cli_say(args, "%s: report of %s, %s bytes%s", out, m->path,
                vae_thousands(n, (double)r->bytes),
                r->explorer_bytes == 0 ? "; the decoder is too large for the explorer" : "");
        return;
    }
    json_t *o = json_pack("{s:i, s:s, s:s, s:I, s:b, s:{s:b, s:I, s:s?}, s:f}", "schema", 1,
                          "checkpoint", m->path, "out", out, "bytes", (json_int_t)r->bytes, "data",
                          m->set != NULL, "explorer", "included", r->explorer_bytes > 0,
                          "weight_bytes", (json_int_t)r->explorer_bytes, "format",
                          r->explorer_bytes == 0 ? NULL
                          : r->half              ? "float16"
                                                 : "float32",
                          "seconds", r->seconds);
    json_dumpf(o, stdout, JSON_INDENT(2) | JSON_REAL_PRECISION(6));
    putchar('\n');
    json_decref(o);
}

static vae_status choose_out(const cli_args *args, const char *folder, char path[VAE_PATH],
                             vae_error *err)
{
    const char *out = cli_value(args, "out");
    if (out != NULL && strcmp(out, "-") == 0) {
        if (args->json) {
            return vae_fail(err, VAE_ERR_USAGE, "--out -: --json has standard output; name a file");
        }
        out = standard_output;
    }
    int n = out != NULL         ? snprintf(path, VAE_PATH, "%s", out)
            : folder[0] != '\0' ? snprintf(path, VAE_PATH, "%s/report.html", folder)
                                : snprintf(path, VAE_PATH, "report.html");
    if (n >= VAE_PATH || n == 0) {
        return vae_fail(err, VAE_ERR_USAGE, "--out: expected a name of 1 to %d bytes",
                        VAE_PATH - 1);
    }
    return VAE_OK;
}

vae_status cli_report(const cli_args *args, vae_error *err)
{
    cli_model m = {0};
    char folder[VAE_PATH] = "", out[VAE_PATH], missing[VAE_ERROR_TEXT] = "";
    vae_report_result result;
    vae_status status = cli_open_checkpoint(&m, args, false, err);
    if (status == VAE_OK) {
        find_folder(args->words[0], m.path, folder);
        status = choose_out(args, folder, out, err);
    }
    if (status == VAE_OK && (status = open_data(&m, args, missing, err)) == VAE_OK &&
        (status = cli_open_model(&m, VAE_PICTURE_BATCH, 1, err)) == VAE_OK && m.set != NULL) {
        status = cli_open_data(&m, err);
    }
    if (status == VAE_OK) {
        vae_signals_install();
        const vae_report_source source = {
            .model = m.model,
            .batch = VAE_PICTURE_BATCH,
            .about = m.checkpoint,
            .name = args->words[0],
            .folder = folder[0] != '\0' ? folder : NULL,
            .data = m.data,
            .set = m.set,
            .n = m.set != NULL ? m.set->n : 0,
            .split = m.split,
            .missing = missing,
            .stop_signal = vae_signals_flag(),
        };
        status = vae_report_write(&source, out, &result, err);
    }
    if (status == VAE_OK) {
        print_result(args, &m, out, &result);
    }
    cli_close(&m);
    return status;
}
