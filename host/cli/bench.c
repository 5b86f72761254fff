/* vae bench: the training step against the clock, on the CPU and a GPU beside it. */
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "backend/open.h"
#include "base/version.h"
#include "cli/cli.h"
#include "ranks/ranks.h"
#include "train/rows.h"
#include "train/step_timer.h"

enum { DEVICES = 2, MAX_BATCHES = 16 };

typedef struct {
    vae_config config;
    vae_dataset *set;
    vae_sizes batches;
    size_t repeats;
    double seconds;
    vae_device_kind devices[DEVICES];
    size_t n_devices;
    const vae_ranks *ranks; /* that share each step; NULL: it is timed alone */
    json_t *rows;
} bench;

/* A device at one batch size. */
typedef struct {
    vae_step_timer *timer;
    size_t n; /* steps of one measurement */
    vae_series us;
    /* with ranks: the same of the first by itself, on a batch as large as the largest share */
    vae_step_timer *alone;
    size_t n_alone;
    vae_series alone_us;
} timing;

/* Options of training that say nothing about a step. */
static vae_status refuse_idle_options(const cli_args *args, vae_error *err)
{
    static const char *const idle[] = {"epochs",     "out",    "save-every",   "keep",
                                       "resume",     "force",  "patience",     "validation",
                                       "batch-size", "config", "sample-every", "test-data"};
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
    if (b->config.precision == VAE_FP32) {
        b->devices[b->n_devices++] = VAE_DEVICE_CPU;
    }
    if (b->config.precision != VAE_FP32 || !lacks) {
        b->devices[b->n_devices++] = VAE_DEVICE_CUDA;
    }
done:
    return status;
}

/* alone_us: of one rank by itself; 0: there are none. */
static void tell_row(const cli_args *args, const bench *b, size_t batch, const char *device,
                     const char *name, double flops, const double us[3], double cpu_us,
                     double alone_us)
{
    char rate[32], versus[64] = "";
    const double per_s = 1e6 * (double)batch / us[0];
    const size_t n = vae_ranks_n(b->ranks), part = vae_ranks_most(b->ranks, batch);
    const double alone_per_s = alone_us > 0 ? 1e6 * (double)part / alone_us : 0;
    const double share = alone_us > 0 ? per_s / (double)n / alone_per_s : 0;
    if (alone_us > 0) {
        snprintf(versus, sizeof versus, "  %.3f of %zu times one rank at %zu", share, n, part);
    } else if (cpu_us > 0 && strcmp(name, "cpu") != 0) {
        snprintf(versus, sizeof versus, "  %.1f times the CPU", cpu_us / us[0]);
    }
    if (!args->json) {
        printf("%8zu  %-5s %11.1f us (%.1f - %.1f)  %12s examples/s  %9.1f GFLOP/s%s\n", batch,
               name, us[0], us[1], us[2], vae_thousands(rate, per_s), 1e-3 * flops / us[0], versus);
        fflush(stdout);
    }
    json_t *row =
        json_pack("{s:I, s:s, s:s, s:f, s:f, s:f, s:f, s:f, s:I}", "batch", (json_int_t)batch,
                  "device", name, "describes", device, "step_us", us[0], "step_us_min", us[1],
                  "step_us_max", us[2], "examples_per_s", per_s, "gflop_per_s",
                  1e-3 * flops / us[0], "repeats", (json_int_t)b->repeats);
    if (alone_us > 0) {
        json_object_set_new(row, "ranks", json_integer((json_int_t)n));
        json_object_set_new(row, "alone_batch", json_integer((json_int_t)part));
        json_object_set_new(row, "alone_examples_per_s", json_real(alone_per_s));
        json_object_set_new(row, "share_of_n", json_real(share));
    }
    json_array_append_new(b->rows, row);
}

/* Has the first rank a measurement of its own? The others wait until it is done. */
static vae_status run_alone(const bench *b, timing *t, vae_error *err)
{
    double took;
    vae_status status = VAE_OK;
    if (t->alone != NULL) {
        status = vae_step_timer_run(t->alone, t->n_alone, &took, err);
        t->alone_us.v[t->alone_us.n++] = 1e6 * took / (double)t->n_alone;
    }
    return vae_ranks_all_ok(b->ranks, status, err);
}

static vae_status open_timing(const bench *b, timing *t, const vae_config *config, vae_error *err)
{
    vae_config part = *config;
    vae_status status = VAE_OK;
    TRY(vae_step_timer_open(&t->timer, config, b->set, b->ranks, err));
    TRY(vae_step_timer_calibrate(t->timer, b->seconds, &t->n, err));
    if (b->ranks != NULL && b->ranks->rank == 0) {
        part.batch_size = vae_ranks_most(b->ranks, config->batch_size);
        part.threads = part.threads > 0 ? part.threads : b->ranks->cores;
        status = vae_step_timer_open(&t->alone, &part, b->set, NULL, err);
        if (status == VAE_OK) {
            status = vae_step_timer_calibrate(t->alone, b->seconds, &t->n_alone, err);
        }
    }
    TRY(vae_ranks_all_ok(b->ranks, status, err));
done:
    return status;
}

/* All devices at one batch size, in turn, so that what disturbs the machine disturbs them alike. */
static vae_status run_batch(const cli_args *args, bench *b, size_t batch, vae_error *err)
{
    static timing t[DEVICES];
    double cpu_us = 0, took;
    vae_status status = VAE_OK;
    memset(t, 0, sizeof t);
    b->config.batch_size = batch;
    for (size_t i = 0; i < b->n_devices; i++) {
        vae_config config = b->config;
        config.device = b->devices[i];
        TRY(open_timing(b, &t[i], &config, err));
    }
    for (size_t r = 0; r < b->repeats; r++) {
        for (size_t i = 0; i < b->n_devices; i++) {
            TRY(vae_step_timer_run(t[i].timer, t[i].n, &took, err));
            t[i].us.v[t[i].us.n++] = 1e6 * took / (double)t[i].n;
            TRY(run_alone(b, &t[i], err));
        }
    }
    for (size_t i = 0; i < b->n_devices && cli_writes(args); i++) {
        char device[512];
        double us[3], alone[3] = {0};
        const vae_backend *be = vae_step_timer_backend(t[i].timer);
        be->ops->describe(be, device, sizeof device);
        us[0] = vae_series_median(&t[i].us, &us[1], &us[2]);
        if (t[i].alone != NULL) {
            alone[0] = vae_series_median(&t[i].alone_us, &alone[1], &alone[2]);
        }
        cpu_us = b->devices[i] == VAE_DEVICE_CPU ? us[0] : cpu_us;
        tell_row(args, b, batch, device, be->ops->name,
                 vae_step_flops(vae_step_timer_layout(t[i].timer), batch, b->config.particles), us,
                 cpu_us, alone[0]);
    }
done:
    for (size_t i = 0; i < b->n_devices; i++) {
        vae_step_timer_close(t[i].alone);
        vae_step_timer_close(t[i].timer);
    }
    return status;
}

static void print_json(const bench *b)
{
    char cpu[200], date[32];
    const time_t now = time(NULL);
    struct tm utc;
    char *text = vae_config_to_json(&b->config);
    vae_cpu_name(cpu, sizeof cpu);
    strftime(date, sizeof date, "%Y-%m-%dT%H:%M:%SZ", gmtime_r(&now, &utc));
    json_t *o =
        json_pack("{s:i, s:s, s:s, s:s, s:I, s:o*, s:O}", "schema", 1, "version", vae_build_version,
                  "date", date, "cpu", cpu, "cores", (json_int_t)sysconf(_SC_NPROCESSORS_ONLN),
                  "config", text != NULL ? json_loads(text, 0, NULL) : NULL, "rows", b->rows);
    cli_print_json(o, 9);
    free(text);
}

static vae_status open_rows(bench *b, vae_error *err)
{
    const vae_data_options options = cli_data_options(&b->config, b->config.limit);
    return vae_dataset_open(&b->set, b->config.data, VAE_SPLIT_TRAIN, &options, err);
}

static void announce(const cli_args *args, const bench *b)
{
    char cpu[200];
    const long cores = sysconf(_SC_NPROCESSORS_ONLN);
    vae_cpu_name(cpu, sizeof cpu);
    cli_say(args, "vae %s (%s), %s, %ld core%s", vae_build_version, vae_build_git, cpu, cores,
            vae_s((size_t)cores));
    if (b->ranks != NULL) {
        cli_say(args, "%zu ranks, %zu on this host, %s: batches are of all of them", b->ranks->n,
                b->ranks->n_local, b->ranks->library);
    }
    cli_say(args, "the whole training step on %s, %zu row%s of %zu; medians of %zu (least - most)",
            b->set->source, b->set->n, vae_s(b->set->n), b->set->d, b->repeats);
}

static vae_status run_bench(const cli_args *args, vae_error *err)
{
    bench b = {.ranks = args->ranks};
    uint64_t given;
    vae_status status = VAE_OK;
    vae_config_defaults(&b.config);
    TRY(refuse_idle_options(args, err));
    TRY(cli_training_options(args, &b.config, &given, err));
    TRY(vae_config_check(&b.config, given, err));
    TRY(read_batches(args, &b, err));
    TRY(cli_size(args, "repeats", 5, 1, VAE_SERIES_MAX, &b.repeats, err));
    TRY(cli_real(args, "seconds", 0.5, 1e-3, 3600, &b.seconds, err));
    TRY(open_rows(&b, err));
    TRY(vae_train_check_set(&b.config, b.set, err));
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
