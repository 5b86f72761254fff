/* Fuzz target: what a run folder tells. An input is run.json, a zero byte, and metrics.jsonl, as
 * they are read when a folder is taken for a run, when a run is taken up again, and by its
 * report. */
#include <stdlib.h>
#include <string.h>

#include "input.h"
#include "report/internal.h"
#include "run/ours.h"
#include "train/run_parts.h"

enum { PARAMS = 64 };

/* Of rows that are no pictures: those of a report would take all the time. */
static vae_checkpoint c = {.d = 3, .height = 1, .width = 3, .channels = 1};
static vae_trained model;
static size_t n_metrics;

/* A small model, for the report to be of. */
static void make_model(void)
{
    static float params[PARAMS];
    param_layout layout;
    vae_config_defaults(&c.config);
    vae_config_set(&c.config, "hidden", "2", NULL);
    vae_config_set(&c.config, "latent", "1", NULL);
    vae_config_set(&c.config, "device", "cpu", NULL);
    vae_config_set(&c.config, "threads", "1", NULL);
    fuzz_must(vae_layout_build(&layout, &c.config, vae_checkpoint_shape(&c), NULL) == VAE_OK);
    c.n_params = layout.n_params;
    vae_layout_clear(&layout);
    fuzz_must(c.n_params <= PARAMS);
    c.params = params;
    c.state.step = 3;
    strcpy(c.summary, "{\"schema\":1,\"epoch\":1,\"train\":{\"elbo\":-9,\"recon\":8,\"kl\":1}}");
    vae_trained_of(&model, &c);
    fuzz_must(vae_trained_start(&model, 1, 1, NULL) == VAE_OK);
}

/* The file's size after it was opened for appending: lines past the step are gone, and what stays
 * stays the next time. */
static size_t take_up(uint64_t step)
{
    vae_run_folder folder = {.log = -1, .metrics = -1};
    char path[VAE_RUN_PATH], *text;
    vae_error err = {0};
    strcpy(folder.path, fuzz_folder());
    fuzz_judge(vae_run_folder_metrics(&folder, step, &err), &err);
    fuzz_must(err.status == VAE_OK && folder.metrics >= 0);
    vae_run_folder_close(&folder);
    vae_run_folder_path(&folder, "metrics.jsonl", path);
    fuzz_must(vae_file_read(&text, path, 1 << 20, &err) == VAE_OK);
    const size_t n = strlen(text);
    fuzz_must(n <= n_metrics && (n == 0 || n == n_metrics || text[n - 1] == '\n'));
    free(text);
    return n;
}

static void resume(void)
{
    vae_train_result result = {.checkpoint = ""};
    training_run t = {.loop.now = &c, .loop.config = &c.config, .result = &result};
    vae_config config = c.config;
    bool run, pictures, report;
    vae_error err = {0};
    strcpy(t.folder.path, fuzz_folder());
    strcpy(config.data, "input");
    fuzz_judge(vae_run_check_ours(fuzz_folder(), &err), &err);
    err = (vae_error){0};
    fuzz_must(fuzz_judge(vae_run_resolve_config(fuzz_folder(), &config, &err), &err));
    fuzz_must(fuzz_judge(vae_train_missing(&t, &run, &pictures, &report, &err), &err));
    fuzz_must(!pictures && report);
    const size_t all = take_up(UINT64_MAX >> 1), some = take_up(c.state.step);
    fuzz_must(some <= all && take_up(c.state.step) == some);
}

static void report_it(void)
{
    const vae_report_source source = {
        .on = &model, .name = "fuzz", .folder = fuzz_folder(), .missing = "there are none"};
    vae_report_result result;
    vae_error err = {0};
    fuzz_must(fuzz_judge(vae_report_write(&source, "/dev/null", &result, &err), &err));
    fuzz_must(result.bytes > 1000);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (model.be == NULL) {
        make_model();
    }
    const uint8_t *end = size > 0 ? memchr(data, 0, size) : NULL;
    const size_t n = end != NULL ? (size_t)(end - data) : size;
    n_metrics = end != NULL ? size - n - 1 : 0;
    fuzz_write("run.json", data, n);
    fuzz_write("metrics.jsonl", end != NULL ? end + 1 : data, n_metrics);
    report_it();
    resume();
    return 0;
}
