/* vae export, vae import: weights and graphs out and in. */
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/version.h"
#include "cli/cli.h"
#include "exchange/exchange.h"
#include "image/image.h"
#include "run/folder.h"
#include "train/rows.h"

/* ---- export ---- */

/* The format asked for, or the one that the file's name tells. */
static vae_status choose_format(const cli_args *args, const char *out, const char **format,
                                vae_error *err)
{
    static const char *const formats[] = {"safetensors", "npz", "onnx"};
    const char *given = cli_value(args, "format");
    for (size_t i = 0; i < sizeof formats / sizeof formats[0]; i++) {
        char end[16];
        snprintf(end, sizeof end, ".%s", formats[i]);
        *format = formats[i];
        if (given != NULL ? strcmp(given, *format) == 0 : vae_ends_with(out, end)) {
            return VAE_OK;
        }
    }
    return given != NULL
               ? vae_fail(err, VAE_ERR_USAGE,
                          "--format: expected safetensors, npz or onnx, found '%s'", given)
               : vae_fail(err, VAE_ERR_USAGE,
                          "%s: which format? give --format safetensors|npz|onnx", out);
}

static void print_exported(const cli_args *args, const vae_trained *m, const char *format,
                           const char *const *files, size_t n)
{
    json_t *list = json_array();
    for (size_t i = 0; i < n; i++) {
        json_array_append_new(list, json_string(files[i]));
        if (!args->json) {
            cli_say(args, "%s: %s of %s", files[i], format, m->path);
        }
    }
    json_t *o = json_pack("{s:i, s:s, s:s, s:o, s:I}", "schema", 1, "checkpoint", m->path, "format",
                          format, "files", list, "parameters", (json_int_t)m->checkpoint->n_params);
    if (args->json) {
        cli_print_json(o, 0);
    } else {
        json_decref(o);
    }
}

static vae_status export_to(const cli_args *args, const vae_trained *m, const char *format,
                            const char *out, vae_error *err)
{
    vae_onnx_paths paths;
    const char *files[3] = {out};
    size_t n = 1;
    vae_status status = VAE_OK;
    if (strcmp(format, "safetensors") == 0) {
        TRY(vae_export_safetensors(out, m->checkpoint, err));
    } else if (strcmp(format, "npz") == 0) {
        TRY(vae_export_npz(out, m->checkpoint, err));
    } else {
        TRY(vae_export_onnx_paths(&paths, out, &m->checkpoint->config, err));
        TRY(vae_export_onnx(&paths, m->checkpoint, err));
        files[0] = paths.encoder;
        files[1] = paths.decoder;
        files[2] = paths.classifier;
        n = m->checkpoint->config.semi_supervised ? 3 : 2;
    }
    if (strcmp(out, "-") != 0) {
        print_exported(args, m, format, files, n);
    }
done:
    return status;
}

static vae_status run_export(const cli_args *args, vae_error *err)
{
    vae_trained m = {.own = NULL};
    const char *out = cli_value(args, "out"), *format;
    vae_status status = VAE_OK;
    if (out == NULL) {
        TRY(vae_fail(err, VAE_ERR_USAGE, "--out is missing: the file to write"));
    }
    TRY(choose_format(args, out, &format, err));
    TRY(cli_check_out(args, out, err));
    if (strcmp(out, "-") == 0 && strcmp(format, "onnx") == 0) {
        TRY(vae_fail(err, VAE_ERR_USAGE,
                     "--out -: an ONNX export is several files; name one or a folder"));
    }
    TRY(vae_trained_open(&m, args->words[0], cli_given(args, "best"), err));
    TRY(export_to(args, &m, format, out, err));
done:
    vae_trained_close(&m);
    return status;
}

static const cli_option export_options[] = {
    {"format", 'f', "safetensors|npz|onnx", "default: by the name of --out"},
    {"out", 'o', "FILE",
     "onnx writes FILE.encoder.onnx, FILE.decoder.onnx, if it classifies FILE.classifier.onnx; "
     "- is standard output"},
    {"best", 0, NULL, "of a run folder, take best.vae instead of the newest checkpoint"},
};

const cli_command cli_export_command = {
    .name = "export",
    .words = "RUN",
    .n_words = 1,
    .help = "Weights for PyTorch and NumPy, graphs for ONNX Runtime.",
    .examples =
        "  vae export runs/mnist --out model.safetensors     VAE().load_state_dict(load_file(F))\n"
        "  vae export runs/mnist --out model.npz             numpy.load\n"
        "  vae export runs/mnist --out model.onnx            model.encoder.onnx, "
        "model.decoder.onnx\n",
    CLI_OPTIONS(export_options),
    .run = run_export,
};

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

/* Shift and scale of the rows that would train. */
static vae_status measure_scales(vae_checkpoint *c, const vae_dataset *set, vae_error *err)
{
    uint32_t *rows = NULL;
    size_t n, n_validation;
    vae_status status = VAE_OK;
    TRY(vae_training_rows(&rows, &n, &n_validation, &c->config, set, err));
    c->standard = malloc(2 * c->d * sizeof *c->standard);
    if (c->standard == NULL) {
        TRY(vae_fail_memory(err, 2 * c->d * sizeof *c->standard, "shift and scale"));
    }
    TRY(vae_dataset_moments(set, rows, n, c->standard, c->standard + c->d, err));
done:
    free(rows);
    return status;
}

/* Names of classes come with the file, or else from the data, if these have as many. */
static vae_status settle_names(vae_checkpoint *c, vae_dataset *set, vae_error *err)
{
    const bool has = vae_config_has_classes(&c->config);
    vae_status status = VAE_OK;
    if (set->labels != NULL && !c->classes_known && (!has || set->classes.n == c->config.classes)) {
        vae_classes_clear(&c->classes);
        TRY(vae_classes_copy(&c->classes, &set->classes, err));
        c->classes_known = true;
    }
    TRY(vae_dataset_map_classes(set, &c->classes, err));
    if (has && set->labels != NULL) {
        TRY(vae_dataset_check_labels(set, c->config.classes, false, err));
    }
done:
    return status;
}

/* What training needs to know of the data that it will go on with. */
static vae_status attach_data(vae_checkpoint *c, bool measure, vae_error *err)
{
    vae_dataset *set;
    vae_data_options options = cli_data_options(&c->config, c->config.limit);
    vae_status status = VAE_OK;
    options.exact = c->standard != NULL;
    TRY(vae_dataset_open(&set, c->config.data, VAE_SPLIT_TRAIN, &options, err));
    if (set->kind == VAE_KIND_PICTURES && set->d != c->d &&
        vae_is_picture(c->height, c->width, c->channels)) {
        vae_dataset_free(set);
        options.channels = c->channels;
        options.of_model = true;
        TRY(vae_dataset_open(&set, c->config.data, VAE_SPLIT_TRAIN, &options, err));
    }
    if (set->d == c->d) { /* the file may not have said, or not in which shape */
        c->height = set->height;
        c->width = set->width;
        c->channels = set->channels;
    }
    TRY(vae_checkpoint_check_set(c, set, err));
    TRY(settle_names(c, set, err));
    TRY(measure ? measure_scales(c, set, err) : VAE_OK);
    if (c->standard != NULL) {
        TRY(vae_dataset_standardize(set, c->standard, c->standard + c->d, err));
    }
    c->data_mean = malloc(c->d * sizeof *c->data_mean);
    if (c->data_mean == NULL) {
        TRY(vae_fail_memory(err, c->d * sizeof *c->data_mean, "the mean of the data"));
    }
    TRY(vae_dataset_mean(set, NULL, 0, c->config.binarize == VAE_BINARIZE_THRESHOLD, c->data_mean,
                         err));
    memcpy(c->data_sha256, set->sha256, sizeof c->data_sha256);
done:
    vae_dataset_free(set);
    return status;
}

/* The weights were trained on values as they are, or as the file's shift and scale make them; which
 * of the two stays. *measure: the user says that they were standardized, and the data will tell. */
static vae_status settle_scales(vae_checkpoint *c, const cli_args *args,
                                const vae_option_set *given, bool with_data, bool *measure,
                                vae_error *err)
{
    const bool asked = vae_option_in(given, vae_config_find("standardize"));
    vae_standardize *how = &c->config.standardize;
    vae_status status = VAE_OK;
    *measure = false;
    if (c->standard != NULL) {
        if (asked && *how == VAE_STANDARDIZE_NONE) {
            TRY(vae_fail(err, VAE_ERR_USAGE,
                         "--standardize none: %s has data_shift and data_scale, which are part of "
                         "the model",
                         args->words[0]));
        }
        return VAE_OK;
    }
    *measure = asked && *how == VAE_STANDARDIZE_COLUMNS;
    if (*measure && !with_data) {
        TRY(vae_fail(
            err, VAE_ERR_USAGE,
            "--standardize columns: %s has no data_shift and data_scale; they are measured "
            "where --data names what it was trained on",
            args->words[0]));
    }
    if (!*measure && vae_config_standardizes(&c->config, true)) {
        *how = VAE_STANDARDIZE_NONE;
    }
done:
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

/* As a training run's, as far as there is anything to say. Returned text is malloc'ed; NULL: out of
 * memory. */
static char *describe_import(const cli_args *args, const vae_checkpoint *c)
{
    char now[VAE_TIME_TEXT], folder[VAE_PATH];
    vae_time_text(now);
    json_t *run = json_pack("{s:i, s:s, s:n, s:s, s:s, s:s, s:s, s:{s:s?, s:[I,I,I]}, s:o?, s:o?}",
                            "schema", 1, "status", "imported", "error", "version",
                            vae_build_version, "git", vae_build_git, "started", now, "updated", now,
                            "data", "path", cli_value(args, "data"), "shape", (json_int_t)c->height,
                            (json_int_t)c->width, (json_int_t)c->channels, "from",
                            json_string(args->words[0]), /* NULL where a name is not UTF-8 */
                            "folder", json_string(getcwd(folder, sizeof folder)));
    char *text = run != NULL ? json_dumps(run, JSON_INDENT(2)) : NULL;
    json_decref(run);
    return text;
}

static vae_status write_run(const cli_args *args, vae_checkpoint *c, vae_error *err)
{
    vae_run_folder folder;
    bool empty;
    char path[VAE_RUN_PATH], line[VAE_PATH + 64], *text = NULL, *run = NULL;
    vae_status status =
        vae_run_folder_open(&folder, c->config.out, false, cli_given(args, "force"), &empty, err);
    if (status != VAE_OK) {
        return status;
    }
    text = vae_config_to_json(&c->config);
    if (text == NULL) {
        TRY(vae_fail(err, VAE_ERR_RUNTIME, "out of memory for config.json"));
    }
    const struct iovec part = {text, strlen(text)};
    vae_run_folder_path(&folder, "config.json", path);
    TRY(vae_file_replace(path, &part, 1, err));
    vae_run_folder_path(&folder, "checkpoints/step-0000000000.vae", path);
    TRY(vae_checkpoint_write(path, c, err));
    run = describe_import(args, c);
    if (run == NULL) {
        TRY(vae_fail(err, VAE_ERR_RUNTIME, "out of memory for run.json"));
    }
    const struct iovec parts[2] = {{run, strlen(run)}, {(char[]){'\n'}, 1}};
    vae_run_folder_path(&folder, "run.json", path);
    TRY(vae_file_replace(path, parts, 2, err));
    snprintf(line, sizeof line, "imported from %s\n", args->words[0]);
    TRY(vae_run_folder_log(&folder, line, err));
done:
    free(text);
    free(run);
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
        cli_print_json(o, 0);
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

static vae_status run_import(const cli_args *args, vae_error *err)
{
    vae_config config;
    vae_import_options options = {.config = &config};
    vae_checkpoint *c = NULL;
    const bool with_data = cli_given(args, "data");
    bool measure;
    vae_status status = VAE_OK;
    vae_config_defaults(&config);
    TRY(cli_training_options(args, &config, &options.given, err));
    if (config.out[0] == '\0') {
        TRY(vae_fail(err, VAE_ERR_USAGE,
                     "--out is missing: the run folder, or the checkpoint file (.vae), to make"));
    }
    const bool file = vae_ends_with(config.out, ".vae");
    TRY(read_shape(args, &options, err));
    if (!file) {
        TRY(vae_run_folder_check(config.out, false, false, cli_given(args, "force"), err));
    }
    TRY(vae_import(&c, args->words[0], &options, err));
    memcpy(c->config.out, config.out, sizeof config.out);
    TRY(vae_config_check(&c->config, &options.given, err));
    TRY(settle_scales(c, args, &options.given, with_data, &measure, err));
    if (with_data) {
        TRY(attach_data(c, measure, err));
    }
    TRY(add_moments(c, err));
    TRY(file ? vae_checkpoint_write(config.out, c, err) : write_run(args, c, err));
    print_imported(args, c, with_data);
done:
    vae_checkpoint_free(c);
    return status;
}

static const cli_option import_options[] = {
    {"shape", 0, "HxW[x3]", "of a picture; default: from the file or --data, else a guess"},
    {"force", 0, NULL, "replace the run that is in --out"},
};

const cli_command cli_import_command = {
    .name = "import",
    .words = "FILE",
    .n_words = 1,
    .help =
        "Makes a run of weights trained elsewhere: safetensors or npz with the names that export "
        "writes.",
    .examples = "  vae import model.safetensors --data data/mnist --out runs/mine\n"
                "  vae train --resume --out runs/mine --epochs 5     trains on\n"
                "  vae import model.npz --activation tanh --likelihood gaussian --out mine.vae\n",
    CLI_OPTIONS(import_options),
    .trains = true,
    .run = run_import,
};
