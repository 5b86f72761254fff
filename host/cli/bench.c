/* vae bench: the training step against the clock, on the CPU and a GPU beside it. */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "backend/open.h"
#include "base/machine.h"
#include "base/pool.h"
#include "base/version.h"
#include "cli/cli.h"
#include "ranks/ranks.h"
#include "train/step_timer.h"

enum { DEVICES = 2, MAX_BATCHES = 16 };

typedef struct {
    vae_config config;
    vae_dataset *set;
    vae_sizes batches;
    size_t repeats, warm_up; /* steps */
    double seconds, warm_up_seconds;
    vae_device_kind devices[DEVICES];
    size_t n_devices;
    const vae_ranks *ranks; /* that share each step; NULL: it is timed alone */
    json_t *rows;
} bench;

/* Options of training that say nothing about a step. */
static vae_status refuse_idle_options(const cli_args *args, vae_error *err)
{
    static const char *const idle[] = {"epochs",      "out",    "save-every",   "keep",
                                       "resume",      "force",  "patience",     "validation",
                                       "batch-size",  "config", "sample-every", "test-data",
                                       "tensorboard", "report", "init-from",    "init-weights"};
    for (size_t i = 0; i < sizeof idle / sizeof idle[0]; i++) {
        if (cli_value(args, idle[i]) != NULL) {
            return vae_fail(err, VAE_ERR_USAGE, "--%s has no effect on bench%s", idle[i],
                            strcmp(idle[i], "batch-size") == 0 ? "; --batches says which" : "");
        }
    }
    return VAE_OK;
}

static vae_status read_batches(const cli_args *args, bench *b, vae_error *err)
{
    const char *text = cli_value(args, "batches");
    text = text != NULL ? text : "128,1024,8192";
    for (const char *p = text;; p++) {
        char number[24];
        const size_t n = strcspn(p, ",");
        uint64_t batch = 0;
        snprintf(number, sizeof number, "%.*s", (int)(n < 23 ? n : 23), p);
        if (b->batches.n == MAX_BATCHES || !vae_parse_u64(number, 1, UINT32_MAX, &batch)) {
            return vae_fail(err, VAE_ERR_USAGE,
                            "--batches: expected up to %d sizes such as 128,1024, found '%s'",
                            MAX_BATCHES, text);
        }
        b->batches.size[b->batches.n++] = (size_t)batch;
        p += n;
        if (*p == '\0') {
            return VAE_OK;
        }
    }
}

/* auto: the CPU and, where there is one, the GPU beside it. */
static vae_status choose_devices(bench *b, vae_error *err)
{
    char text[1024];
    vae_status status = VAE_OK;
    if (b->config.device != VAE_DEVICE_AUTO) {
        b->devices[b->n_devices++] = b->config.device;
        return VAE_OK;
    }
    uint64_t lacks = vae_cuda_devices(text, sizeof text) == 0; /* does any rank? */
    TRY(vae_ranks_largest(b->ranks, &lacks, 1, err));
    if (b->config.precision != VAE_TF32) {
        b->devices[b->n_devices++] = VAE_DEVICE_CPU;
    }
    if (b->config.precision == VAE_TF32 || !lacks) {
        b->devices[b->n_devices++] = VAE_DEVICE_CUDA;
    }
done:
    return status;
}

/* Microseconds of a step: median, least, most; measured when so many steps had been done. */
typedef struct {
    double us, least, most;
    uint64_t steps;
} timing;

/* alone_us: of one rank by itself on as much as the largest share; 0: there are no ranks. */
static void tell_row(const cli_args *args, const bench *b, size_t batch, const vae_backend *be,
                     double flops, timing fresh, timing steady, double cpu_us, double alone_us)
{
    char rate[32], of_fresh[32], device[512], versus[64] = "", products[32] = "";
    const size_t n = vae_ranks_n(b->ranks), part = vae_ranks_most(b->ranks, batch);
    const double alone_per_s = alone_us > 0 ? 1e6 * (double)part / alone_us : 0;
    const double per_s = 1e6 * (double)batch / steady.us;
    const double fresh_per_s = 1e6 * (double)batch / fresh.us;
    be->ops->describe(be, device, sizeof device);
    const double share = alone_us > 0 ? per_s / (double)n / alone_per_s : 0;
    if (alone_us > 0) {
        snprintf(versus, sizeof versus, "  %.3f of %zu times one rank at %zu", share, n, part);
    } else if (cpu_us > 0 && strcmp(be->ops->name, "cpu") != 0) {
        snprintf(versus, sizeof versus, "  %.1f times the CPU", cpu_us / steady.us);
    }
    if (flops > 0) {
        snprintf(products, sizeof products, "  %9.1f GFLOP/s", 1e-3 * flops / steady.us);
    }
    if (!args->json) {
        printf("%8zu  %-5s %11.1f us (%.1f - %.1f)  %12s examples/s after %llu steps, %s fresh"
               "%s%s\n",
               batch, be->ops->name, steady.us, steady.least, steady.most,
               vae_thousands(rate, per_s), (unsigned long long)steady.steps,
               vae_thousands(of_fresh, fresh_per_s), products, versus);
        fflush(stdout);
    }
    json_t *row =
        json_pack("{s:I, s:s, s:s, s:f, s:f, s:f, s:I, s:f, s:f, s:f, s:f, s:f, s:I}", "batch",
                  (json_int_t)batch, "device", be->ops->name, "describes", device, "step_us",
                  steady.us, "step_us_min", steady.least, "step_us_max", steady.most, "after_steps",
                  (json_int_t)steady.steps, "fresh_us", fresh.us, "fresh_us_min", fresh.least,
                  "fresh_us_max", fresh.most, "examples_per_s", per_s, "fresh_examples_per_s",
                  fresh_per_s, "repeats", (json_int_t)b->repeats);
    if (flops > 0) {
        json_object_set_new(row, "gflop_per_s", json_real(1e-3 * flops / steady.us));
    }
    if (alone_us > 0) {
        json_object_set_new(row, "ranks", json_integer((json_int_t)n));
        json_object_set_new(row, "alone_batch", json_integer((json_int_t)part));
        json_object_set_new(row, "alone_examples_per_s", json_real(alone_per_s));
        json_object_set_new(row, "share_of_n", json_real(share));
    }
    json_array_append_new(b->rows, row);
}

/* All devices in turn, so that what disturbs the machine disturbs them alike. */
static vae_status time_steps(const bench *b, vae_step_timer *const *timer, const size_t *n,
                             timing *out, vae_error *err)
{
    static vae_series series[DEVICES];
    double took;
    vae_status status = VAE_OK;
    for (size_t i = 0; i < b->n_devices; i++) {
        series[i].n = 0;
        out[i].steps = vae_step_timer_steps(timer[i]);
    }
    for (size_t r = 0; r < b->repeats; r++) {
        for (size_t i = 0; i < b->n_devices; i++) {
            TRY(vae_step_timer_run(timer[i], n[i], &took, err));
            series[i].v[series[i].n++] = 1e6 * took / (double)n[i];
        }
    }
    for (size_t i = 0; i < b->n_devices; i++) {
        out[i].us = vae_series_median(&series[i], &out[i].least, &out[i].most);
    }
done:
    return status;
}

/* With ranks: a step of the first by itself, on as much as the largest share, while the others
 * wait. */
static vae_status time_alone(const bench *b, const vae_config *config, double *us, vae_error *err)
{
    static vae_series series;
    vae_step_timer *timer = NULL;
    vae_config part = *config;
    size_t n;
    double took, least, most;
    vae_status status = VAE_OK;
    *us = 0;
    if (vae_ranks_number(b->ranks) > 0) {
        goto done;
    }
    part.batch_size = vae_ranks_most(b->ranks, config->batch_size);
    part.threads = part.threads > 0 ? part.threads : b->ranks->cores;
    TRY(vae_step_timer_open(&timer, &part, b->set, NULL, err));
    TRY(vae_step_timer_calibrate(timer, b->seconds, &n, err));
    TRY(vae_step_timer_warm(timer, b->warm_up, b->warm_up_seconds, err));
    for (series.n = 0; series.n < b->repeats;) {
        TRY(vae_step_timer_run(timer, n, &took, err));
        series.v[series.n++] = 1e6 * took / (double)n;
    }
    *us = vae_series_median(&series, &least, &most);
done:
    vae_step_timer_close(timer);
    return vae_ranks_all_ok(b->ranks, status, err);
}

/* All devices at one batch size, with fresh weights and in the state of a training that goes on. */
static vae_status run_batch(const cli_args *args, bench *b, size_t batch, vae_error *err)
{
    vae_step_timer *timer[DEVICES] = {0};
    size_t n[DEVICES] = {0};
    timing fresh[DEVICES], steady[DEVICES];
    double cpu_us = 0;
    vae_status status = VAE_OK;
    b->config.batch_size = batch;
    for (size_t i = 0; i < b->n_devices; i++) {
        vae_config config = b->config;
        config.device = b->devices[i];
        TRY(vae_step_timer_open(&timer[i], &config, b->set, b->ranks, err));
        TRY(vae_step_timer_calibrate(timer[i], b->seconds, &n[i], err));
    }
    TRY(time_steps(b, timer, n, fresh, err));
    for (size_t i = 0; i < b->n_devices; i++) {
        TRY(vae_step_timer_warm(timer[i], b->warm_up, b->warm_up_seconds, err));
    }
    TRY(time_steps(b, timer, n, steady, err));
    for (size_t i = 0; i < b->n_devices; i++) {
        /* not counted: M2's rows, of every class, or of one where the label is known; nor those of
         * particles, of which the CPU's backward pass leaves out what has no weight */
        const bool counted = !b->config.semi_supervised && (b->config.objective == VAE_OBJ_ELBO ||
                                                            b->devices[i] != VAE_DEVICE_CPU);
        const param_layout *layout = vae_step_timer_layout(timer[i]);
        const double flops = counted ? vae_step_flops(layout, batch, b->config.particles) : 0;
        vae_config config = b->config;
        double alone_us = 0;
        config.device = b->devices[i];
        if (b->ranks != NULL) {
            TRY(time_alone(b, &config, &alone_us, err));
        }
        cpu_us = b->devices[i] == VAE_DEVICE_CPU ? steady[i].us : cpu_us;
        if (cli_writes(args)) {
            tell_row(args, b, batch, vae_step_timer_backend(timer[i]), flops, fresh[i], steady[i],
                     cpu_us, alone_us);
        }
    }
done:
    for (size_t i = 0; i < b->n_devices; i++) {
        vae_step_timer_close(timer[i]);
    }
    return status;
}

static void print_json(const bench *b)
{
    char cpu[200], date[VAE_TIME_TEXT];
    char *text = vae_config_to_json(&b->config);
    vae_cpu_name(cpu, sizeof cpu);
    vae_time_text(date);
    json_t *o =
        json_pack("{s:i, s:s, s:s, s:s, s:I, s:o*, s:O}", "schema", 1, "version", vae_build_version,
                  "date", date, "cpu", cpu, "cores", (json_int_t)vae_threads(0), "config",
                  text != NULL ? json_loads(text, 0, NULL) : NULL, "rows", b->rows);
    cli_print_json(o, 9);
    free(text);
}

static vae_status open_rows(bench *b, const vae_option_set *given, vae_error *err)
{
    vae_status status = VAE_OK;
    vae_data_options options = cli_data_options(&b->config, b->config.limit);
    options.cache = b->config.cache[0] != '\0' ? b->config.cache : NULL; /* as it is there */
    TRY(vae_dataset_open(&b->set, b->config.data, VAE_SPLIT_TRAIN, &options, err));
    TRY(vae_dataset_check_options(b->set, given, err));
done:
    return status;
}

static void announce(const cli_args *args, const bench *b)
{
    char cpu[200];
    const int cores = vae_threads(0);
    vae_cpu_name(cpu, sizeof cpu);
    cli_say(args, "vae %s (%s), %s, %d core%s", vae_build_version, vae_build_git, cpu, cores,
            vae_s((size_t)cores));
    if (b->ranks != NULL) {
        cli_say(args, "%zu ranks, %zu on this host, %s: batches are of all of them", b->ranks->n,
                b->ranks->n_local, b->ranks->library);
    }
    cli_say(args, "the whole training step on %s, %zu row%s of %zu; medians of %zu (least - most)",
            b->set->source, b->set->n, vae_s(b->set->n), b->set->d, b->repeats);
    cli_say(
        args,
        "after %zu steps (or %g s of them), and with fresh weights; GFLOP/s are of all terms of "
        "the products, also of zeros that the CPU leaves out",
        b->warm_up, b->warm_up_seconds);
}

static vae_status run_bench(const cli_args *args, vae_error *err)
{
    bench b = {.ranks = args->ranks};
    vae_option_set given;
    vae_status status = VAE_OK;
    vae_config_defaults(&b.config);
    TRY(refuse_idle_options(args, err));
    TRY(cli_training_options(args, &b.config, &given, err));
    TRY(vae_config_check(&b.config, &given, err));
    TRY(read_batches(args, &b, err));
    TRY(cli_size(args, "repeats", 5, 1, VAE_SERIES_MAX, &b.repeats, err));
    TRY(cli_real(args, "seconds", 0.5, 1e-3, 3600, &b.seconds, err));
    TRY(cli_size(args, "warm-up", 2000, 0, SIZE_MAX, &b.warm_up, err));
    TRY(cli_real(args, "warm-up-seconds", 20, 0, 1e6, &b.warm_up_seconds, err));
    TRY(open_rows(&b, &given, err));
    b.rows = json_array();
    TRY(choose_devices(&b, err));
    announce(args, &b);
    for (size_t i = 0; i < b.batches.n; i++) {
        TRY(run_batch(args, &b, b.batches.size[i], err));
    }
    if (args->json) {
        print_json(&b);
    }
done:
    json_decref(b.rows);
    vae_dataset_free(b.set);
    return status;
}

static const cli_option bench_options[] = {
    {"batches", 0, "N,N,...", "batch sizes [128,1024,8192]"},
    {"repeats", 0, "N", "measurements of each; the median counts [5]"},
    {"seconds", 0, "S", "of each measurement [0.5]"},
    {"warm-up", 0, "STEPS", "trained before the rate that counts is measured [2000]"},
    {"warm-up-seconds", 0, "S", "but no longer than this, for huge batches [20]"},
};

const cli_command cli_bench_command = {
    .name = "bench",
    .words = "",
    .help = "Times the training step: on the CPU and, where there is one, the GPU beside it.",
    .examples = "  vae bench\n"
                "  vae bench --data data/mnist --hidden 512,512 --batches 100,10000 --json\n"
                "  vae bench --device cuda --precision bf16 --batches 65536\n",
    CLI_OPTIONS(bench_options),
    .trains = true,
    .shares = true,
    .run = run_bench,
};
