/* vae export, vae import. */
#include <jansson.h>
#include <stdlib.h>
#include <string.h>

#include "cli/cli.h"
#include "exchange/exchange.h"
#include "run/folder.h"

/* ---- export ---- */

/* The format asked for, or the one that the file's name tells. */
static const char *choose_format(const cli_args *args, const char *out, vae_error *err)
{
    static const char *const formats[] = {"safetensors", "npz", "onnx"};
    const char *format = cli_value(args, "format");
    for (size_t i = 0; i < sizeof formats / sizeof formats[0]; i++) {
        char end[16];
        snprintf(end, sizeof end, ".%s", formats[i]);
        if (format != NULL ? strcmp(format, formats[i]) == 0 : vae_ends_with(out, end)) {
            return formats[i];
        }
    }
    if (format != NULL) {
        vae_fail(err, VAE_ERR_USAGE, "--format: expected safetensors, npz or onnx, found '%s'",
                 format);
    } else {
        vae_fail(err, VAE_ERR_USAGE, "%s: which format? give --format safetensors|npz|onnx", out);
    }
    return NULL;
}

static void print_exported(const cli_args *args, const cli_model *m, const char *format,
                           const char *const *files, size_t n)
{
    if (!args->json) {
        for (size_t i = 0; i < n; i++) {
            cli_say(args, "%s: %s of %s", files[i], format, m->path);
        }
        return;
    }
    json_t *list = json_array();
    for (size_t i = 0; i < n; i++) {
        json_array_append_new(list, json_string(files[i]));
    }
    json_t *o = json_pack("{s:i, s:s, s:s, s:o, s:I}", "schema", 1, "checkpoint", m->path, "format",
                          format, "files", list, "parameters", (json_int_t)m->checkpoint->n_params);
    json_dumpf(o, stdout, JSON_INDENT(2));
    putchar('\n');
    json_decref(o);
}

static vae_status export_to(const cli_args *args, const cli_model *m, const char *format,
                            const char *out, vae_error *err)
{
    vae_onnx_paths paths;
    const char *files[3] = {out};
    size_t n = 1;
    vae_status status;
    if (strcmp(format, "safetensors") == 0) {
        status = vae_export_safetensors(out, m->checkpoint, err);
    } else if (strcmp(format, "npz") == 0) {
        status = vae_export_npz(out, m->checkpoint, err);
    } else {
        status = vae_export_onnx_paths(&paths, out, &m->checkpoint->config, err);
        status = status == VAE_OK ? vae_export_onnx(&paths, m->checkpoint, err) : status;
        files[0] = paths.encoder;
        files[1] = paths.decoder;
        files[2] = paths.classifier;
        n = m->checkpoint->config.semi_supervised ? 3 : 2;
    }
    if (status == VAE_OK && strcmp(out, "-") != 0) {
        print_exported(args, m, format, files, n);
    }
    return status;
}

vae_status cli_export(const cli_args *args, vae_error *err)
{
    cli_model m = {0};
    const char *out = cli_value(args, "out");
    if (out == NULL) {
        return vae_fail(err, VAE_ERR_USAGE, "--out is missing: the file to write");
    }
    const char *format = choose_format(args, out, err);
    if (format == NULL) {
        return VAE_ERR_USAGE;
    }
    if (strcmp(out, "-") == 0 && (strcmp(format, "onnx") == 0 || args->json)) {
        return vae_fail(err, VAE_ERR_USAGE, "--out -: %s",
                        args->json ? "--json has standard output; name a file"
                                   : "an ONNX export is several files; name one or a folder");
    }
    vae_status status = vae_checkpoint_open_run(
        &m.checkpoint, args->words[0], cli_value(args, "best") != NULL, false, m.path, err);
    if (status == VAE_OK) {
        status = export_to(args, &m, format, out, err);
    }
    cli_close(&m);
    return status;
}

/* ---- import ---- */

/* HxWxC or HxW. */
static vae_status read_shape(const cli_args *args, vae_import_options *options, vae_error *err)
{
    const char *text = cli_value(args, "shape");
    char end;
    if (text == NULL) {
        return VAE_OK;
    }
    options->channels = 1;
    const int n = sscanf(text, "%5zux%5zux%1zu%c", &options->height, &options->width,
                         &options->channels, &end);
    if ((n != 2 && n != 3) || strspn(text, "0123456789x") != strlen(text) || options->height == 0 ||
        options->width == 0 || (options->channels != 1 && options->channels != 3)) {
        return vae_fail(err, VAE_ERR_USAGE,
                        "--shape: expected HEIGHTxWIDTH or HEIGHTxWIDTHx3, found '%s'", text);
    }
    return VAE_OK;
}

/* What training needs to know of the data that it will go on with. */
static vae_status attach_data(vae_checkpoint *c, vae_error *err)
{
    vae_dataset *set;
    const vae_data_options options = cli_data_options(&c->config, c->config.limit);
    vae_status status = vae_dataset_open(&set, c->config.data, VAE_SPLIT_TRAIN, &options, err);
    if (status != VAE_OK) {
        return status;
    }
    if (set->d != c->d) {
        status = vae_fail(err, VAE_ERR_DATA, "%s: %zu columns; the imported model takes %zu",
                          set->source, set->d, c->d);
    } else if ((c->data_mean = malloc(c->d * sizeof *c->data_mean)) == NULL) {
        status = vae_fail_memory(err, c->d * sizeof *c->data_mean, "the mean of the data");
    } else if ((status =
                    vae_dataset_mean(set, NULL, 0, c->config.binarize == VAE_BINARIZE_THRESHOLD,
                                     c->data_mean, err)) == VAE_OK) {
        memcpy(c->data_sha256, set->sha256, sizeof c->data_sha256);
        c->height = set->height;
        c->width = set->width;
        c->channels = set->channels;
    }
    vae_dataset_free(set);
    return status;
}

/* Adam begins with moments of zero at step 0, in a new run and in an imported one. */
static vae_status add_moments(vae_checkpoint *c, vae_error *err)
{
    c->adam_m = calloc(c->n_params, sizeof *c->adam_m);
    c->adam_v = calloc(c->n_params, sizeof *c->adam_v);
    return c->adam_m != NULL && c->adam_v != NULL
               ? VAE_OK
               : vae_fail_memory(err, 2 * c->n_params * sizeof(float), "Adam's moments");
}

static vae_status write_run(const cli_args *args, vae_checkpoint *c, vae_error *err)
{
    const bool force = cli_value(args, "force") != NULL;
    vae_run_folder folder;
    bool empty;
    char path[VAE_RUN_PATH];
    vae_status status = vae_run_folder_open(&folder, c->config.out, false, force, &empty, err);
    if (status != VAE_OK) {
        return status;
    }
    char *text = vae_config_to_json(&c->config), line[VAE_PATH + 64];
    if (text == NULL) {
        status = vae_fail(err, VAE_ERR_RUNTIME, "out of memory for config.json");
    } else {
        const struct iovec part = {text, strlen(text)};
        vae_run_folder_path(&folder, "config.json", path);
        status = vae_file_replace(path, &part, 1, err);
    }
    if (status == VAE_OK) {
        vae_run_folder_path(&folder, "checkpoints/step-0000000000.vae", path);
        status = vae_checkpoint_write(path, c, err);
    }
    snprintf(line, sizeof line, "imported from %s\n", args->words[0]);
    vae_run_folder_log(&folder, line);
    free(text);
    vae_run_folder_close(&folder);
    return status;
}

static void print_imported(const cli_args *args, const vae_checkpoint *c, bool with_data)
{
    char text[32];
    const char *out = c->config.out;
    if (args->json) {
        json_t *o = json_pack("{s:i, s:s, s:s, s:I, s:I, s:[I,I,I]}", "schema", 1, "out", out,
                              "from", args->words[0], "parameters", (json_int_t)c->n_params,
                              "latent", (json_int_t)c->config.latent, "data_shape",
                              (json_int_t)c->height, (json_int_t)c->width, (json_int_t)c->channels);
        json_dumpf(o, stdout, JSON_INDENT(2));
        putchar('\n');
        json_decref(o);
        return;
    }
    cli_say(args, "%s: %s parameters for data of %zu x %zu x %zu, from %s", out,
            vae_thousands(text, (double)c->n_params), c->height, c->width, c->channels,
            args->words[0]);
    if (!with_data) {
        cli_say(args, "no --data given: it can be evaluated, encoded with and exported; to train "
                      "on, import it with --data DATA");
    } else if (!vae_ends_with(out, ".vae")) {
        cli_say(args, "vae train --resume --out %s trains on", out);
    }
}

vae_status cli_import(const cli_args *args, vae_error *err)
{
    vae_config config;
    vae_import_options options = {.config = &config};
    vae_checkpoint *c = NULL;
    const bool with_data = cli_value(args, "data") != NULL;
    vae_config_defaults(&config);
    vae_status status = cli_training_options(args, &config, &options.given, err);
    if (status == VAE_OK && config.out[0] == '\0') {
        status =
            vae_fail(err, VAE_ERR_USAGE,
                     "--out is missing: the run folder, or the checkpoint file (.vae), to make");
    }
    const bool file = vae_ends_with(config.out, ".vae");
    if (status == VAE_OK && (status = read_shape(args, &options, err)) == VAE_OK && !file) {
        status = vae_run_folder_check(config.out, false, cli_value(args, "force") != NULL, err);
    }
    if (status == VAE_OK && (status = vae_import(&c, args->words[0], &options, err)) == VAE_OK) {
        memcpy(c->config.out, config.out, sizeof config.out);
        status = vae_config_check(&c->config, options.given, err);
    }
    if (status == VAE_OK && with_data) {
        status = attach_data(c, err);
    }
    if (status == VAE_OK && (status = add_moments(c, err)) == VAE_OK) {
        status = file ? vae_checkpoint_write(config.out, c, err) : write_run(args, c, err);
    }
    if (status == VAE_OK) {
        print_imported(args, c, with_data);
    }
    vae_checkpoint_free(c);
    return status;
}
