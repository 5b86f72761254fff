/* What a run writes besides checkpoints and pictures: config.json, run.json, metrics.jsonl,
 * log.txt. */
#include <inttypes.h>
#include <jansson.h>
#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/utsname.h>
#include <time.h>
#include <unistd.h>
#include <zlib.h>

#include "base/sha256.h"
#include "base/version.h"
#include "train/internal.h"

#ifdef __clang__
#define COMPILER "clang " __clang_version__
#else
#define COMPILER "gcc " __VERSION__
#endif

static void time_text(char text[32])
{
    time_t now = time(NULL);
    struct tm utc;
    gmtime_r(&now, &utc);
    strftime(text, 32, "%Y-%m-%dT%H:%M:%SZ", &utc);
}

static void log_line(trainer *t, const char *text)
{
    char line[VAE_ERROR_TEXT + 64], when[32];
    time_text(when);
    snprintf(line, sizeof line, "%s %s\n", when, text);
    vae_run_folder_log(&t->folder, line);
}

void trainer_note(trainer *t, const char *format, ...)
{
    char text[VAE_ERROR_TEXT];
    va_list args;
    va_start(args, format);
    vsnprintf(text, sizeof text, format, args);
    va_end(args);
    const vae_trainer_events *events = &t->options->events;
    if (events->note != NULL) {
        events->note(events->ctx, text);
    }
    log_line(t, text);
}

/* ---- config.json and run.json ---- */

vae_status trainer_write_config(trainer *t, vae_error *err)
{
    char path[VAE_RUN_PATH];
    char *text = vae_config_to_json(t->config);
    if (text == NULL) {
        return vae_fail(err, VAE_ERR_RUNTIME, "out of memory for config.json");
    }
    struct iovec part = {text, strlen(text)};
    vae_run_folder_path(&t->folder, "config.json", path);
    vae_status status = vae_file_replace(path, &part, 1, err);
    free(text);
    return status;
}

static json_t *describe_data(const trainer *t)
{
    char hex[VAE_SHA256_HEX];
    const vae_dataset *set = t->train_set;
    vae_sha256_hex(set->sha256, hex);
    return json_pack("{s:s, s:s, s:I, s:I, s:[I,I,I], s:I, s:I, s:I, s:I}", "path", set->source,
                     "sha256", hex, "rows", (json_int_t)set->n, "columns", (json_int_t)set->d,
                     "shape", (json_int_t)set->height, (json_int_t)set->width,
                     (json_int_t)set->channels, "train", (json_int_t)t->n_train, "labelled",
                     (json_int_t)t->n_labelled, "validation", (json_int_t)t->n_validation, "test",
                     (json_int_t)(t->test_set != NULL ? t->test_set->n : 0));
}

static json_t *describe_host(void)
{
    struct utsname host;
    if (uname(&host) != 0) {
        return json_null();
    }
    return json_pack("{s:s, s:s, s:s, s:I}", "name", host.nodename, "system", host.sysname,
                     "release", host.release, "cores", (json_int_t)sysconf(_SC_NPROCESSORS_ONLN));
}

static json_t *describe_run(trainer *t, const char *status, const char *why)
{
    char seed[24], now[32];
    struct rusage usage;
    snprintf(seed, sizeof seed, "%" PRIu64, t->config->seed);
    time_text(now);
    /* again, as a backend makes some of its choices at the first step */
    t->be->ops->describe(t->be, t->device, sizeof t->device);
    getrusage(RUSAGE_SELF, &usage);
    const vae_train_state *s = &t->now.state;
    json_t *run = json_pack(
        "{s:i, s:s, s:s?, s:s, s:s, s:s, s:{s:s, s:s}, s:s, s:I, s:s, s:o, s:o}", "schema", 1,
        "status", status, "error", why, "version", vae_build_version, "git", vae_build_git,
        "compiler", COMPILER, "libraries", "zlib", zlibVersion(), "jansson", jansson_version_str(),
        "device", t->device, "threads", (json_int_t)t->config->threads, "seed", seed, "host",
        describe_host(), "data", describe_data(t));
    /* ru_maxrss is in KiB on Linux */
    json_t *more = json_pack("{s:s, s:s, s:I, s:I, s:I, s:f, s:I}", "started", t->start_time,
                             "updated", now, "epoch", (json_int_t)s->epoch, "epochs",
                             (json_int_t)t->config->epochs, "step", (json_int_t)s->step, "wall_s",
                             s->wall_s, "peak_rss_bytes", (json_int_t)usage.ru_maxrss * 1024);
    if (run == NULL || more == NULL || json_object_update(run, more) != 0) {
        json_decref(run);
        run = NULL;
    }
    json_decref(more);
    json_t *summary = json_loads(t->now.summary, 0, NULL);
    if (run != NULL && summary != NULL) {
        json_object_set(run, "last", summary);
    }
    json_decref(summary);
    return run;
}

vae_status trainer_write_run(trainer *t, const char *status, const char *why, vae_error *err)
{
    char path[VAE_RUN_PATH];
    if (t->start_time[0] == '\0') {
        time_text(t->start_time);
    }
    json_t *run = describe_run(t, status, why);
    char *text = run != NULL ? json_dumps(run, JSON_INDENT(2) | JSON_REAL_PRECISION(9)) : NULL;
    json_decref(run);
    if (text == NULL) {
        return vae_fail(err, VAE_ERR_RUNTIME, "run.json cannot be put together");
    }
    struct iovec parts[2] = {{text, strlen(text)}, {(char[]){'\n'}, 1}};
    vae_run_folder_path(&t->folder, "run.json", path);
    vae_status result = vae_file_replace(path, parts, 2, err);
    free(text);
    return result;
}

/* ---- metrics ---- */

static vae_status write_line(trainer *t, const vae_epoch_report *r, const char *split,
                             const vae_measurement *m, vae_error *err)
{
    char line[512], error[64] = "";
    if (m->n == 0) {
        return VAE_OK;
    }
    if (m->classified > 0) {
        snprintf(error, sizeof error, "\"error\":%.9g,", m->error);
    }
    snprintf(line, sizeof line,
             "{\"schema\":1,\"epoch\":%llu,\"step\":%llu,\"split\":\"%s\",\"elbo\":%.9g,"
             "\"recon\":%.9g,\"kl\":%.9g,\"bound\":%.9g,%s\"n\":%zu,\"lr\":%.9g,\"beta\":%.9g,"
             "\"examples_per_s\":%.6g,\"wall_s\":%.6g}\n",
             (unsigned long long)r->epoch, (unsigned long long)r->step, split, m->elbo, m->recon,
             m->kl, m->bound, error, m->n, r->lr, r->beta, r->examples_per_s, r->wall_s);
    return vae_run_folder_metric(&t->folder, line, err);
}

vae_status trainer_write_metrics(trainer *t, const vae_epoch_report *report, vae_error *err)
{
    char line[256];
    int n = snprintf(line, sizeof line, "epoch %llu: train elbo %.3f (recon %.3f, kl %.3f)",
                     (unsigned long long)report->epoch, report->train.elbo, report->train.recon,
                     report->train.kl);
    if (report->test.n > 0) {
        snprintf(line + n, sizeof line - (size_t)n, ", test elbo %.3f", report->test.elbo);
    }
    log_line(t, line);
    vae_status status = write_line(t, report, "train", &report->train, err);
    if (status == VAE_OK) {
        status = write_line(t, report, "validation", &report->validation, err);
    }
    return status == VAE_OK ? write_line(t, report, "test", &report->test, err) : status;
}

static json_t *summarize(const vae_measurement *m)
{
    json_t *o = json_pack("{s:f, s:f, s:f, s:I}", "elbo", m->elbo, "recon", m->recon, "kl", m->kl,
                          "n", (json_int_t)m->n);
    if (m->classified > 0) {
        json_object_set_new(o, "error", json_real(m->error));
    }
    return o;
}

void trainer_summarize(trainer *t, const vae_epoch_report *report)
{
    json_t *summary =
        json_pack("{s:i, s:I, s:I, s:o}", "schema", 1, "epoch", (json_int_t)report->epoch, "step",
                  (json_int_t)report->step, "train", summarize(&report->train));
    if (report->validation.n > 0) {
        json_object_set_new(summary, "validation", summarize(&report->validation));
    }
    if (report->test.n > 0) {
        json_object_set_new(summary, "test", summarize(&report->test));
    }
    char *text = json_dumps(summary, JSON_COMPACT | JSON_REAL_PRECISION(9));
    json_decref(summary);
    snprintf(t->now.summary, sizeof t->now.summary, "%s", text != NULL ? text : "");
    free(text);
}
