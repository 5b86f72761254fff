/* What a run folder tells: metrics.jsonl and run.json. A report of what is there is better than
 * none, so that a file that is missing or damaged is taken as empty. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/file.h"
#include "report/internal.h"
#include "run/folder.h"

/* A line of metrics.jsonl is about 250 bytes. */
static const size_t most_metrics = (size_t)1 << 28, most_run = 1 << 20;

static char *read_file(const report *r, const char *name, size_t most)
{
    char path[VAE_RUN_PATH], *text = NULL;
    vae_error ignored = {0};
    if (r->from->folder == NULL ||
        snprintf(path, sizeof path, "%s/%s", r->from->folder, name) >= (int)sizeof path ||
        access(path, R_OK) != 0) {
        return NULL;
    }
    return vae_file_read(&text, path, most, &ignored) == VAE_OK ? text : NULL;
}

const json_t *report_member(const json_t *object, const char *path)
{
    while (object != NULL && *path != '\0') {
        char key[40];
        const size_t n = strcspn(path, ".");
        snprintf(key, sizeof key, "%.*s", (int)n, path);
        object = json_object_get(object, key);
        path += n + (path[n] == '.');
    }
    return object;
}

static size_t split_of(const json_t *line)
{
    static const char *const names[] = {"train", "validation", "test"};
    const char *name = json_string_value(json_object_get(line, "split"));
    for (size_t s = 0; name != NULL && s < REPORT_SPLITS; s++) {
        if (strcmp(name, names[s]) == 0) {
            return s;
        }
    }
    return REPORT_SPLITS;
}

static void add_line(report_metrics *m, const json_t *line)
{
    static const char *const names[] = {"elbo", "recon", "kl", "examples_per_s", "epoch"};
    const size_t split = split_of(line);
    if (split == REPORT_SPLITS) {
        return;
    }
    for (size_t c = 0; c < REPORT_COLUMNS; c++) {
        const json_t *value = json_object_get(line, names[c]);
        m->column[split][c][m->n[split]] = json_is_number(value) ? json_number_value(value) : NAN;
    }
    m->n[split]++;
}

static vae_status read_metrics(report_metrics *m, char *text, vae_error *err)
{
    size_t lines = 1;
    for (const char *at = text; (at = strchr(at, '\n')) != NULL; at++) {
        lines++;
    }
    const size_t columns = REPORT_SPLITS * REPORT_COLUMNS;
    m->room = calloc(lines * columns, sizeof *m->room);
    if (m->room == NULL) {
        return vae_fail_memory(err, lines * columns * sizeof *m->room, "metrics");
    }
    for (size_t i = 0; i < columns; i++) {
        m->column[i / REPORT_COLUMNS][i % REPORT_COLUMNS] = m->room + i * lines;
    }
    for (char *line = text, *end; *line != '\0'; line = end) {
        const size_t n = strcspn(line, "\n");
        end = line + n + (line[n] == '\n');
        json_t *object = json_loadb(line, n, 0, NULL);
        add_line(m, object);
        json_decref(object);
    }
    return VAE_OK;
}

vae_status report_read_run(report *r, vae_error *err)
{
    char *metrics = read_file(r, "metrics.jsonl", most_metrics);
    char *run = read_file(r, "run.json", most_run);
    vae_status status = metrics != NULL ? read_metrics(&r->metrics, metrics, err) : VAE_OK;
    r->run = run != NULL ? json_loads(run, 0, NULL) : NULL;
    r->summary = json_loads(r->about->summary, 0, NULL);
    free(run);
    free(metrics);
    return status;
}
