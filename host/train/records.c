/* What a run writes besides checkpoints and pictures: config.json, run.json, metrics.jsonl,
 * log.txt. */
#include <inttypes.h>
#include <jansson.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/utsname.h>
#include <unistd.h>
#include <zlib.h>

#include "base/json.h"
#include "base/machine.h"
#include "base/pool.h"
#include "base/sha256.h"
#include "base/version.h"
#include "ranks/ranks.h"
#include "train/run_parts.h"

#ifdef __clang__
#define COMPILER "clang " __clang_version__
#else
#define COMPILER "gcc " __VERSION__
#endif

void vae_train_lose(training_run *t, const vae_error *why)
{
    if (t->lost.status == VAE_OK && (why->status == VAE_ERR_IO || why->status == VAE_ERR_RUNTIME)) {
        t->lost = *why;
    }
    vae_note(&t->notes, "warning: %s", why->text);
}

void vae_train_log(training_run *t, const char *text)
{
    char line[VAE_ERROR_TEXT + 64], when[VAE_TIME_TEXT];
    vae_time_text(when);
    snprintf(line, sizeof line, "%s %s\n", when, text);
    vae_error err = {0};
    if (t->folder.log >= 0 && !t->log_lost &&
        vae_run_folder_log(&t->folder, line, &err) != VAE_OK) {
        t->log_lost = true; /* before it is told: what is told goes to the log, too */
        vae_train_lose(t, &err);
    }
}

/* ---- config.json and run.json ---- */

vae_status vae_train_write_config(training_run *t, vae_error *err)
{
    char path[VAE_RUN_PATH];
    char *text = vae_config_to_json(t->loop.config);
    if (text == NULL) {
        return vae_fail(err, VAE_ERR_RUNTIME, "out of memory for config.json");
    }
    struct iovec part = {text, strlen(text)};
    vae_run_folder_path(&t->folder, "config.json", path);
    vae_status status = vae_file_replace(path, &part, 1, err);
    free(text);
    return status;
}

/* A string, in which what is no UTF-8, as a file's name may be, becomes question marks. */
static json_t *describe_name(const char *name)
{
    json_t *string = json_string(name);
    char *plain = string == NULL ? strdup(name) : NULL;
    for (size_t i = 0; plain != NULL && plain[i] != '\0'; i++) {
        plain[i] = (unsigned char)plain[i] < 0x80 ? plain[i] : '?';
    }
    string = string != NULL || plain == NULL ? string : json_string(plain);
    free(plain);
    return string;
}

/* Picture files that are no rows, of both sets: how many, and the first of them (log.txt has all);
 * NULL: there are none. */
static json_t *describe_left_out(const training_run *t)
{
    enum { MOST = 200 };
    const vae_dataset *sets[2] = {t->loop.train_set, t->loop.test_set};
    json_t *files = json_array();
    size_t n = 0;
    for (size_t k = 0; k < 2 && sets[k] != NULL; k++) {
        for (size_t i = 0; i < sets[k]->n_left_out; i++) {
            const vae_left_out *out = &sets[k]->left_out[i];
            if (n++ < MOST) {
                json_array_append_new(files,
                                      json_pack("{s:o, s:o}", "file", describe_name(out->file),
                                                "why", describe_name(out->why)));
            }
        }
    }
    if (n == 0) {
        json_decref(files);
        return NULL;
    }
    return json_pack("{s:I, s:o}", "n", (json_int_t)n, "files", files);
}

void vae_train_log_left_out(training_run *t)
{
    const vae_dataset *sets[2] = {t->loop.train_set, t->loop.test_set};
    for (size_t k = 0; k < 2 && sets[k] != NULL; k++) {
        for (size_t i = 0; i < sets[k]->n_left_out; i++) {
            char line[VAE_ERROR_TEXT];
            const vae_left_out *out = &sets[k]->left_out[i];
            snprintf(line, sizeof line, "%s: left out: %s", out->file, out->why);
            vae_train_log(t, line);
        }
    }
}

static json_t *describe_data(const training_run *t)
{
    char hex[VAE_SHA256_HEX];
    const vae_dataset *set = t->loop.train_set;
    vae_sha256_hex(set->sha256, hex);
    return json_pack("{s:s, s:s, s:I, s:I, s:[I,I,I], s:I, s:I, s:I, s:I, s:s?, s:o*}", "path",
                     set->source, "sha256", hex, "rows", (json_int_t)set->n, "columns",
                     (json_int_t)set->d, "shape", (json_int_t)set->height, (json_int_t)set->width,
                     (json_int_t)set->channels, "train", (json_int_t)t->loop.n_train, "labelled",
                     (json_int_t)t->loop.n_labelled, "validation", (json_int_t)t->loop.n_validation,
                     "test", (json_int_t)(t->loop.test_set != NULL ? t->loop.test_set->n : 0),
                     "test_path", t->loop.test_set != NULL ? t->loop.test_set->source : NULL,
                     "left_out", describe_left_out(t));
}

static json_t *describe_host(void)
{
    struct utsname host;
    char cpu[200], instructions[128];
    if (uname(&host) != 0) {
        return json_null();
    }
    vae_cpu_name(cpu, sizeof cpu);
    vae_cpu_instructions(instructions, sizeof instructions);
    return json_pack("{s:s, s:s, s:s, s:I, s:i, s:s, s:s}", "name", host.nodename, "system",
                     host.sysname, "release", host.release, "cores",
                     (json_int_t)sysconf(_SC_NPROCESSORS_ONLN), "granted", vae_threads(0), "cpu",
                     cpu, "instructions", instructions);
}

/* The model whose weights it began with, or null. */
static json_t *describe_init(const vae_config *c)
{
    return c->init_from[0] != '\0'
               ? json_pack("{s:s, s:s}", "from", c->init_from, "sha256", c->init_weights)
               : json_null();
}

static json_t *describe_run(training_run *t, const char *status, const char *why)
{
    char seed[24], now[VAE_TIME_TEXT], device[512], folder[VAE_PATH], preset[32];
    struct rusage usage;
    snprintf(seed, sizeof seed, "%" PRIu64, t->loop.config->seed);
    vae_time_text(now);
    /* again, as a backend makes some of its choices at the first step */
    t->loop.be->ops->describe(t->loop.be, device, sizeof device);
    getrusage(RUSAGE_SELF, &usage);
    const vae_train_state *s = &t->loop.now->state;
    json_t *run = json_pack(
        "{s:i, s:s, s:s?, s:s, s:s, s:s, s:{s:s, s:s}, s:s, s:I, s:s, s:o, s:o, s:o}", "schema", 1,
        "status", status, "error", why, "version", vae_build_version, "git", vae_build_git,
        "compiler", COMPILER, "libraries", "zlib", zlibVersion(), "jansson", jansson_version_str(),
        "device", device, "threads", (json_int_t)t->loop.config->threads, "seed", seed, "host",
        describe_host(), "data", describe_data(t), "init", describe_init(t->loop.config));
    /* ru_maxrss is in KiB on Linux */
    json_t *more =
        json_pack("{s:s, s:s, s:I, s:I, s:I, s:f, s:I}", "started", t->start_time, "updated", now,
                  "epoch", (json_int_t)s->epoch, "epochs", (json_int_t)t->loop.config->epochs,
                  "step", (json_int_t)s->step, "wall_s", s->wall_s, "peak_rss_bytes",
                  (json_int_t)usage.ru_maxrss * 1024);
    if (run == NULL || more == NULL || json_object_update(run, more) != 0) {
        json_decref(run);
        run = NULL;
    }
    json_decref(more);
    const char *last = t->loop.now->summary;
    json_t *summary = NULL;
    bool good =
        run != NULL && vae_json_read(&summary, last, strlen(last), 0, NULL) != VAE_ERR_RUNTIME;
    vae_config_get(t->loop.config, "preset", preset, sizeof preset);
    if (good && strcmp(preset, "none") != 0) {
        good = json_object_set_new(run, "preset", json_string(preset)) == 0;
    }
    if (good && t->places != NULL) {
        good = json_object_set(run, "ranks", t->places) == 0 &&
               json_object_set_new(run, "mpi", json_string(t->options->ranks->library)) == 0;
    }
    if (good && getcwd(folder, sizeof folder) != NULL) { /* of relative paths */
        good = json_object_set_new(run, "folder", json_string(folder)) == 0;
    }
    if (good && summary != NULL) {
        good = json_object_set(run, "last", summary) == 0;
    }
    json_decref(summary);
    if (!good) {
        json_decref(run);
        run = NULL;
    }
    return run;
}

vae_status vae_train_write_run(training_run *t, const char *status, const char *why, vae_error *err)
{
    char path[VAE_RUN_PATH];
    if (t->start_time[0] == '\0') {
        vae_time_text(t->start_time);
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

static vae_status write_line(training_run *t, const vae_epoch_record *r, const char *split,
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

vae_status vae_train_write_metrics(training_run *t, const vae_epoch_record *r, vae_error *err)
{
    char line[256], bound[64] = "", test[64] = "";
    vae_status status = VAE_OK;
    if (r->bounded) {
        snprintf(bound, sizeof bound, " bound %.3f,", -r->train.bound);
    }
    if (r->test.n > 0) {
        snprintf(test, sizeof test, ", test %s %.3f", r->bounded ? "bound" : "elbo",
                 -r->test.bound);
    }
    snprintf(line, sizeof line, "epoch %llu: train%s elbo %.3f (recon %.3f, kl %.3f)%s",
             (unsigned long long)r->epoch, bound, r->train.elbo, r->train.recon, r->train.kl, test);
    vae_train_log(t, line);
    TRY(write_line(t, r, "train", &r->train, err));
    TRY(write_line(t, r, "validation", &r->validation, err));
    TRY(write_line(t, r, "test", &r->test, err));
done:
    return status;
}

/* JSON has no infinities. */
static json_t *real(double value)
{
    return isfinite(value) ? json_real(value) : json_null();
}

/* Adds the object `name` to the summary, if there is anything measured; false: no memory. */
static bool summarize(json_t *summary, const char *name, const vae_measurement *m, bool bounded)
{
    if (m->n == 0) {
        return true;
    }
    json_t *o = json_pack("{s:o, s:o, s:o, s:I}", "elbo", real(m->elbo), "recon", real(m->recon),
                          "kl", real(m->kl), "n", (json_int_t)m->n);
    bool good = o != NULL;
    if (bounded) { /* a loss, as in metrics.jsonl */
        good = json_object_set_new(o, "bound", real(m->bound)) == 0 && good;
    }
    if (m->classified > 0) {
        good = json_object_set_new(o, "error", real(m->error)) == 0 && good;
    }
    return json_object_set_new(summary, name, o) == 0 && good;
}

/* malloc'ed; NULL: no memory. */
static char *summary_text(const vae_epoch_record *r)
{
    json_t *summary = json_pack("{s:i, s:I, s:I}", "schema", 1, "epoch", (json_int_t)r->epoch,
                                "step", (json_int_t)r->step);
    const bool good = summary != NULL && summarize(summary, "train", &r->train, r->bounded) &&
                      summarize(summary, "validation", &r->validation, r->bounded) &&
                      summarize(summary, "test", &r->test, r->bounded);
    char *text = good ? json_dumps(summary, JSON_COMPACT | JSON_REAL_PRECISION(9)) : NULL;
    json_decref(summary);
    return text;
}

vae_status vae_train_summarize(vae_checkpoint *checkpoint, const vae_epoch_record *r,
                               vae_error *err)
{
    /* twice, as vae_json_read reads: jansson does not tell of every allocation that failed */
    char *text = summary_text(r), *again = summary_text(r);
    const bool good = text != NULL && again != NULL && strcmp(text, again) == 0;
    snprintf(checkpoint->summary, sizeof checkpoint->summary, "%s", good ? text : "");
    free(text);
    free(again);
    return good ? VAE_OK : vae_fail(err, VAE_ERR_RUNTIME, "out of memory for the epoch's summary");
}
