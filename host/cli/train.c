/* vae train. */
#include <errno.h>
#include <inttypes.h>
#include <jansson.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "cli/cli.h"
#include "cli/progress.h"
#include "cli/signals.h"
#include "run/folder.h"
#include "train/trainer.h"

enum { MAX_CONFIG_FILE = 1 << 20 };

static vae_status read_config_file(vae_config *config, const char *path, vae_error *err)
{
    char *text;
    vae_status status = vae_file_read(&text, path, MAX_CONFIG_FILE, err);
    if (status == VAE_OK) {
        status = vae_config_from_json(config, text, path, err);
    }
    free(text);
    return status;
}

/* A resumed run has the options it had; what is given now comes on top. */
static vae_status start_from_run(vae_config *config, const char *out, vae_error *err)
{
    char path[VAE_RUN_PATH];
    if (out == NULL) {
        return vae_fail(err, VAE_ERR_USAGE, "--resume needs --out RUN, the run to go on with");
    }
    if (snprintf(path, sizeof path, "%s/config.json", out) >= (int)sizeof path ||
        access(path, F_OK) != 0) {
        return VAE_OK; /* nothing there: it starts from the beginning */
    }
    return read_config_file(config, path, err);
}

/* Defaults, the resumed run's options, --config's, the command line's: each over the one before. */
static vae_status read_config(const cli_args *args, vae_config *config, bool resume,
                              uint64_t *given, vae_error *err)
{
    vae_status status = VAE_OK;
    const char *file = cli_value(args, "config");
    vae_config_defaults(config);
    if (resume) {
        status = start_from_run(config, cli_value(args, "out"), err);
    }
    if (status == VAE_OK && file != NULL) {
        status = read_config_file(config, file, err);
    }
    if (status == VAE_OK) {
        status = cli_training_options(args, config, given, err);
    }
    return status == VAE_OK ? vae_config_check(config, *given, err) : status;
}

/* runs/<data>-<n>, made now so that two runs started together do not take the same one. */
static vae_status choose_out(vae_config *config, vae_error *err)
{
    char base[64];
    vae_base_name(base, sizeof base, config->data);
    base[strcspn(base, ".")] = '\0';
    if (mkdir("runs", 0777) != 0 && errno != EEXIST) {
        return vae_fail(err, VAE_ERR_IO, "runs: cannot make the folder: %s", strerror(errno));
    }
    for (unsigned n = 1; n < 1000000; n++) {
        snprintf(config->out, sizeof config->out, "runs/%s-%u", base[0] != '\0' ? base : "run", n);
        if (mkdir(config->out, 0777) == 0) {
            return VAE_OK;
        }
        if (errno != EEXIST) {
            break;
        }
    }
    return vae_fail(err, VAE_ERR_IO, "%s: cannot make the folder: %s", config->out,
                    strerror(errno));
}

static json_t *measurement(const vae_measurement *m)
{
    if (m->n == 0) {
        return json_null();
    }
    json_t *o = json_pack("{s:f, s:f, s:f, s:I}", "elbo", m->elbo, "recon", m->recon, "kl", m->kl,
                          "n", (json_int_t)m->n);
    if (m->classified > 0) {
        json_object_set_new(o, "error", json_real(m->error));
    }
    return o;
}

static json_t *path_or_null(const char *path)
{
    return path[0] != '\0' ? json_string(path) : json_null();
}

static void print_json(const vae_config *config, const vae_train_result *r)
{
    json_t *object = json_pack(
        "{s:i, s:s, s:I, s:I, s:b, s:f, s:f, s:o, s:o, s:o, s:o, s:o, s:o, s:o}", "schema", 1,
        "run", config->out, "epoch", (json_int_t)r->state.epoch, "step", (json_int_t)r->state.step,
        "had_finished", r->had_finished, "wall_s", r->state.wall_s, "examples_per_s",
        r->last.examples_per_s, "train", measurement(&r->last.train), "validation",
        measurement(&r->last.validation), "test", measurement(&r->last.test), "checkpoint",
        path_or_null(r->checkpoint), "samples", path_or_null(r->samples), "reconstruction",
        path_or_null(r->reconstruction), "report", path_or_null(r->report));
    json_dumpf(object, stdout, JSON_INDENT(2) | JSON_REAL_PRECISION(9));
    putchar('\n');
    json_decref(object);
}

static void print_result(const cli_args *args, const vae_config *config, const vae_train_result *r)
{
    char time[32];
    if (args->json) {
        print_json(config, r);
    }
    if (args->quiet) {
        return;
    }
    if (r->had_finished) {
        cli_say(args,
                "%s: already finished after %" PRIu64
                " epochs; --resume with more --epochs goes on",
                config->out, r->state.epoch);
        return;
    }
    const vae_measurement *m = r->last.test.n > 0 ? &r->last.test : &r->last.train;
    fprintf(stderr, "\ntrained %" PRIu64 " epochs in %s: %s elbo %.2f (recon %.2f, kl %.2f)\n",
            r->state.epoch, cli_duration(time, r->state.wall_s),
            r->last.test.n > 0 ? "test" : "train", m->elbo, m->recon, m->kl);
    if (r->samples[0] != '\0') {
        fprintf(stderr, "  samples          %s\n  reconstructions  %s\n", r->samples,
                r->reconstruction);
    }
    if (r->report[0] != '\0') {
        fprintf(stderr, "  report           %s\n", r->report);
    }
    fprintf(stderr, "  checkpoint       %s\n", r->checkpoint);
    fprintf(stderr,
            "try next:\n  vae eval %s --samples 500\n  vae sample %s -n 100 --out more.png\n"
            "  vae train --resume --out %s --epochs %zu\n",
            config->out, config->out, config->out, 2 * config->epochs);
}

static vae_status open_sets(const vae_config *config, uint64_t given, vae_dataset **train,
                            vae_dataset **test, vae_error *err)
{
    const vae_data_options options = cli_data_options(config, config->limit);
    vae_status status = vae_dataset_open(train, config->data, VAE_SPLIT_TRAIN, &options, err);
    if (status == VAE_OK && (status = vae_dataset_check_options(*train, given, err)) == VAE_OK &&
        vae_dataset_has_test(config->data)) {
        status = vae_dataset_open(test, config->data, VAE_SPLIT_TEST, &options, err);
    }
    return status;
}

vae_status cli_train(const cli_args *args, vae_error *err)
{
    vae_config config;
    uint64_t given;
    vae_dataset *train = NULL, *test = NULL;
    cli_progress progress;
    vae_train_result result = {0};
    vae_trainer_options options = {.resume = cli_value(args, "resume") != NULL,
                                   .force = cli_value(args, "force") != NULL,
                                   .stop_signal = vae_signals_flag()};
    if (options.resume && options.force) {
        return vae_fail(err, VAE_ERR_USAGE,
                        "--resume goes on with a run, --force replaces it: "
                        "give one of them");
    }
    vae_status status = read_config(args, &config, options.resume, &given, err);
    if (status == VAE_OK && config.out[0] != '\0') {
        status = vae_run_folder_check(config.out, options.resume, options.force, err);
    }
    if (status == VAE_OK) {
        status = open_sets(&config, given, &train, &test, err);
    }
    if (status == VAE_OK && config.out[0] == '\0') {
        status = choose_out(&config, err);
        if (status == VAE_OK) {
            cli_say(args, "no --out given: the run is in %s", config.out);
        }
    }
    if (status == VAE_OK) {
        cli_progress_open(&progress, args->quiet);
        options.events = cli_progress_events(&progress);
        vae_signals_install();
        status = vae_train(&config, train, test, &options, &result, err);
        cli_progress_clear(&progress);
    }
    if (status == VAE_OK) {
        print_result(args, &config, &result);
    }
    vae_dataset_free(test);
    vae_dataset_free(train);
    return status;
}
