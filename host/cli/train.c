/* vae train. */
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/stream.h"
#include "cli/cli.h"
#include "cli/progress.h"
#include "cli/signals.h"
#include "cli/sweep.h"
#include "exchange/exchange.h"
#include "image/image.h"
#include "model/layout.h"
#include "ranks/ranks.h"
#include "run/folder.h"
#include "train/init.h"
#include "train/run.h"

enum { MAX_CONFIG_FILE = 1 << 20 };

static vae_status read_config_file(vae_config *config, const char *path, vae_error *err)
{
    char *text = NULL;
    vae_status status = VAE_OK;
    TRY(vae_file_read(&text, path, MAX_CONFIG_FILE, err));
    TRY(vae_config_from_json(config, text, path, err));
done:
    free(text);
    return status;
}

/* A resumed run has the options it had; what is given now comes on top. */
static vae_status start_from_run(vae_config *config, const char *out, bool anew, vae_error *err)
{
    char path[VAE_RUN_PATH];
    bool there = false;
    vae_status status = VAE_OK;
    if (out == NULL) {
        return vae_fail(err, VAE_ERR_USAGE, "--resume needs --out RUN, the run to go on with");
    }
    TRY(vae_run_folder_check(out, true, anew, false, err)); /* before a line of it is believed */
    if (snprintf(path, sizeof path, "%s/config.json", out) < (int)sizeof path) {
        TRY(vae_path_exists(&there, path, err));
    }
    if (there) { /* else it starts from the beginning */
        TRY(read_config_file(config, path, err));
        TRY(vae_run_resolve_config(out, config, err));
    }
done:
    return status;
}

/* What was written down for this training: --config's file, the command line, over what is there.
 */
static vae_status read_written(const cli_args *args, vae_config *config, vae_option_set *given,
                               vae_error *err)
{
    const char *file = cli_value(args, "config");
    vae_status status = VAE_OK;
    if (file != NULL) {
        TRY(read_config_file(config, file, err));
    }
    TRY(cli_training_options(args, config, given, err));
done:
    return status;
}

/* Defaults, the resumed run's options or those of the model to begin from, --config's, the command
 * line's: each over the one before. */
static vae_status read_config(const cli_args *args, vae_config *config,
                              const vae_train_options *options, vae_option_set *given,
                              vae_error *err)
{
    vae_status status = VAE_OK;
    vae_config_defaults(config);
    if (options->resume) {
        TRY(start_from_run(config, cli_value(args, "out"), options->anew, err));
    }
    TRY(read_written(args, config, given, err));
    if (!options->resume && config->init_from[0] != '\0') { /* that model's options come below */
        const vae_config asked = *config;
        vae_config_defaults(config);
        TRY(vae_init_options(config, &asked, NULL, err));
        TRY(read_written(args, config, given, err));
    }
    TRY(vae_config_check(config, given, err));
done:
    return status;
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
    json_t *o = json_pack("{s:f, s:f, s:f, s:f, s:I}", "elbo", m->elbo, "recon", m->recon, "kl",
                          m->kl, "bound", m->bound, "n", (json_int_t)m->n);
    if (m->classified > 0) {
        json_object_set_new(o, "error", json_real(m->error));
    }
    return o;
}

static void print_json(const vae_config *config, const vae_train_result *r)
{
    json_t *object = json_pack(
        "{s:i, s:s, s:I, s:I, s:b, s:f, s:f, s:o, s:o, s:o, s:o, s:o, s:o, s:o}", "schema", 1,
        "run", config->out, "epoch", (json_int_t)r->state.epoch, "step", (json_int_t)r->state.step,
        "had_finished", r->had_finished, "wall_s", r->state.wall_s, "examples_per_s",
        r->last.examples_per_s, "train", measurement(&r->last.train), "validation",
        measurement(&r->last.validation), "test", measurement(&r->last.test), "checkpoint",
        cli_json_text(r->checkpoint), "samples", cli_json_text(r->samples), "reconstruction",
        cli_json_text(r->reconstruction), "report", cli_json_text(r->report));
    cli_print_json(object, 9);
}

static void print_result(const cli_args *args, const vae_config *config, const vae_train_result *r)
{
    char time[32], bound[64] = "";
    if (args->json) {
        print_json(config, r);
    }
    if (args->quiet) {
        return;
    }
    if (r->had_finished) {
        cli_say(args,
                "%s: already finished after %" PRIu64
                " epoch%s; --resume with more --epochs goes on",
                config->out, r->state.epoch, vae_s(r->state.epoch));
        return;
    }
    const vae_measurement *m = r->last.test.n > 0 ? &r->last.test : &r->last.train;
    if (r->last.bounded) {
        snprintf(bound, sizeof bound, " bound %.2f,", -m->bound);
    }
    fprintf(stderr, "\ntrained %" PRIu64 " epoch%s in %s: %s%s elbo %.2f (recon %.2f, kl %.2f)\n",
            r->state.epoch, vae_s(r->state.epoch), cli_duration(time, r->state.wall_s),
            r->last.test.n > 0 ? "test" : "train", bound, m->elbo, m->recon, m->kl);
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

/* Channels of the pictures of a model, a run's or a file of weights; 0: there is none yet. */
static size_t channels_of(const char *model)
{
    char path[VAE_PATH];
    vae_error ignored = {0};
    vae_checkpoint *c;
    size_t channels = 0;
    if (vae_open_weights(&c, model, path, &ignored) == VAE_OK) {
        channels = vae_is_picture(c->height, c->width, c->channels) ? c->channels : 0;
        vae_checkpoint_free(c);
    }
    return channels;
}

/* channels: of the pictures of the model that trains on, or that is begun from; 0: none. */
static vae_status open_sets(const vae_config *config, bool resume, size_t channels,
                            const vae_option_set *given, vae_dataset **train, vae_dataset **test,
                            vae_error *err)
{
    vae_data_options options = cli_data_options(config, config->limit);
    const char *test_data;
    char test_cache[VAE_PATH + sizeof VAE_CACHE_TEST];
    vae_split split;
    vae_error why = {.notes = err->notes};
    vae_status status = VAE_OK;
    options.cache = config->cache[0] != '\0' ? config->cache : NULL;
    options.make_cache = options.cache != NULL;
    if (options.make_cache) { /* it takes long, and what was written so far is not to stay */
        vae_signals_install();
        options.stop = vae_signals_flag();
    }
    if (config->image_channels == 0) {
        options.channels = channels;
        options.of_model = options.channels > 0;
    }
    options.means = !resume;
    TRY(cli_from_run(resume && !vae_option_in(given, vae_config_find("data")),
                     vae_dataset_open(train, config->data, VAE_SPLIT_TRAIN, &options, &why), &why,
                     err));
    TRY(vae_dataset_check_options(*train, given, err));
    if (options.cache != NULL && (*train)->kind == VAE_KIND_PICTURES && (*train)->map == NULL) {
        TRY(vae_fail(err, VAE_ERR_USAGE,
                     "--cache has no effect on %s: it needs a folder of picture files",
                     (*train)->source));
    }
    options.means = false;
    if ((*train)->kind == VAE_KIND_PICTURES) {
        options.channels = (*train)->channels;
    }
    TRY(cli_test_data(&test_data, &split, config, err));
    if (test_data != NULL) {
        options.of_model = test_data != config->data;
        if (options.cache != NULL) {
            snprintf(test_cache, sizeof test_cache, "%s%s", config->cache, VAE_CACHE_TEST);
            options.cache = test_cache;
        }
        TRY(vae_dataset_open(test, test_data, split, &options, err));
    }
done:
    return status;
}

/* Is the model too large for this machine, whatever the data? A checkpoint of it is held:
 * parameters and two moments. */
static vae_status check_model(const vae_config *config, vae_error *err)
{
    param_layout layout = {0};
    vae_config least = *config;
    vae_status status = VAE_OK;
    least.classes = least.classes > 0 ? least.classes : 1; /* how many there are, the data tell */
    const size_t side = (size_t)1 << config->conv.n;       /* and how large the pictures are */
    TRY(vae_layout_build(&layout, &least, (row_shape){side, side, 1}, err));
    TRY(vae_check_memory(3 * sizeof(float) * (uint64_t)layout.n_params, "a model of these layers",
                         err));
done:
    vae_layout_clear(&layout);
    return status;
}

/* What the first rank, which has the run's folder, tells the others. */
typedef struct {
    vae_config config;
    vae_option_set given;
    size_t channels;
} command_line;

static vae_status read_options(const cli_args *args, const vae_train_options *options,
                               command_line *line, vae_error *err)
{
    vae_status status = VAE_OK;
    vae_config *c = &line->config;
    TRY(read_config(args, c, options, &line->given, err));
    if (c->out[0] != '\0') {
        TRY(vae_run_folder_check(c->out, options->resume, options->anew, options->force, err));
    }
    if (options->resume || c->init_from[0] != '\0') {
        line->channels = channels_of(options->resume ? c->out : c->init_from);
    }
    TRY(check_model(c, err));
done:
    return status;
}

/* Data of all ranks. Those that make a cache take turns, so that each finds what was made before
 * it: the first, then one on each other host, whose file it may be as well, then the rest. */
static vae_status open_by_turns(const vae_ranks *ranks, bool resume, const command_line *line,
                                vae_dataset **train, vae_dataset **test, vae_error *err)
{
    const size_t turns = ranks != NULL && line->config.cache[0] != '\0' ? 3 : 1;
    size_t mine = 0;
    vae_status status = VAE_OK;
    if (turns > 1 && ranks->rank > 0) {
        mine = ranks->local > 0 ? 2 : 1;
    }
    for (size_t turn = 0; turn < turns; turn++) {
        const vae_status opened = mine == turn ? open_sets(&line->config, resume, line->channels,
                                                           &line->given, train, test, err)
                                               : VAE_OK;
        TRY(vae_ranks_all_ok(ranks, opened, err));
    }
done:
    return status;
}

/* Data of all ranks and, where it is not given, a folder for the run. */
static vae_status open_data(const cli_args *args, bool resume, command_line *line,
                            vae_dataset **train, vae_dataset **test, vae_error *err)
{
    vae_config *c = &line->config;
    vae_status status = VAE_OK;
    TRY(open_by_turns(args->ranks, resume, line, train, test, err));
    if (c->out[0] != '\0') {
        return VAE_OK;
    }
    status = cli_writes(args) ? choose_out(c, err) : VAE_OK;
    TRY(vae_ranks_all_ok(args->ranks, status, err));
    TRY(vae_ranks_broadcast(args->ranks, c->out, sizeof c->out, err));
    cli_say(args, "no --out given: the run is in %s", c->out);
done:
    return status;
}

static vae_status run_train(const cli_args *args, vae_error *err)
{
    static command_line line;
    vae_dataset *train = NULL, *test = NULL;
    cli_progress progress;
    vae_train_result result = {0};
    const char *resume = cli_value(args, "resume");
    vae_train_options options = {.resume = resume != NULL,
                                 .anew = resume != NULL && strcmp(resume, "auto") == 0,
                                 .force = cli_given(args, "force"),
                                 .ranks = args->ranks,
                                 .stop_signal = vae_signals_flag()};
    vae_status status = VAE_OK;
    if (cli_given(args, "jobs") && !cli_sweeps(args)) {
        return vae_fail(err, VAE_ERR_USAGE, "--jobs has no effect without --sweep");
    }
    if (resume != NULL && resume[0] != '\0' && !options.anew) {
        return vae_fail(err, VAE_ERR_USAGE, "--resume: expected nothing or auto, found '%s'",
                        resume);
    }
    if (options.resume && options.force) {
        return vae_fail(err, VAE_ERR_USAGE,
                        "--resume goes on with a run, --force replaces it: give one of them");
    }
    if (cli_sweeps(args) && args->ranks != NULL) {
        return vae_fail(err, VAE_ERR_USAGE,
                        "--sweep starts processes of its own: start it without mpirun or srun");
    }
    if (cli_sweeps(args)) {
        return cli_sweep(args, err);
    }
    if (cli_writes(args)) {
        status = read_options(args, &options, &line, err);
    }
    TRY(vae_ranks_all_ok(args->ranks, status, err));
    TRY(vae_ranks_broadcast(args->ranks, &line, sizeof line, err));
    TRY(open_data(args, options.resume, &line, &train, &test, err));
    cli_progress_open(&progress, args->quiet);
    options.events = cli_progress_events(&progress);
    vae_signals_install();
    status = vae_train(&line.config, train, test, &options, &result, err);
    cli_progress_clear(&progress);
    if (status == VAE_OK || result.lost) {
        print_result(args, &line.config, &result);
    }
done:
    vae_dataset_free(test);
    vae_dataset_free(train);
    return status;
}

static const cli_option train_options[] = {
    {"config", 'c', "FILE", "options from a JSON file, such as a run's config.json"},
    {"resume", 0, "[=auto]",
     "go on with the run in --out; its options are taken over; auto: begin it if there is none"},
    {"force", 0, NULL, "replace the run that is in --out"},
    {"sweep", 0, "OPTION=V,V,...",
     "a run in --out for each value (or combination, if given again), then a comparison"},
    {"jobs", 'j', "N", "of a sweep: so many runs at a time [1]"},
};

const cli_command cli_train_command = {
    .name = "train",
    .words = "",
    .help = "Trains a VAE. An option that has no effect in the chosen mode is an error.",
    .examples =
        "  vae train                                    the built-in digits, ten epochs\n"
        "  vae train --data data/mnist --out runs/mnist MNIST, from its IDX files\n"
        "  vae train --preset photos --data photos/     PNG, JPEG, WebP ... files; or classes in "
        "folders\n"
        "  vae train --data table.csv --likelihood gaussian --hidden 64 --latent 4\n"
        "  vae train --hidden 500,200 --latent 40 --binarize dynamic --epochs 100\n"
        "  vae train --init-from runs/mnist --data mine/ --lr 3e-4   that model, adapted to other "
        "data\n"
        "  vae train --sweep beta=1,2,4 --sweep latent=10,20 --jobs 2 --out runs/sweep\n"
        "  vae train --resume --out runs/mnist --epochs 20\n"
        "  vae train --resume=auto --out runs/job --data x.npy   for a script that is started "
        "again\n",
    CLI_OPTIONS(train_options),
    .trains = true,
    .shares = true,
    .run = run_train,
};
