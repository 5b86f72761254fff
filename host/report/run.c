/* What a run folder tells: metrics.jsonl and run.json. A report of what is there is better than
 * none, so that a file that is missing or damaged is taken as empty. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/file.h"
#include "base/json.h"
#include "report/internal.h"
#include "run/folder.h"

/* A line of metrics.jsonl is about 250 bytes. */
static const size_t most_metrics = (size_t)1 << 28, most_run = 1 << 20;

/* *text: the file, malloc'ed, or NULL where it is missing or no text. VAE_ERR_IO,
 * VAE_ERR_RUNTIME. */
static vae_status read_file(char **text, const char *folder, const char *name, size_t most,
                            vae_error *err)
{
    char path[VAE_RUN_PATH];
    vae_error why = {0};
    bool there = false;
    vae_status status = VAE_OK;
    *text = NULL;
    if (folder == NULL || snprintf(path, sizeof path, "%s/%s", folder, name) >= (int)sizeof path) {
        return VAE_OK;
    }
    TRY(vae_path_exists(&there, path, err));
    if (there && vae_file_read(text, path, most, &why) != VAE_OK && why.status != VAE_ERR_DATA) {
        TRY(vae_fail(err, why.status, "%s", why.text));
    }
done:
    return status;
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
    static const char *const names[] = {"elbo",  "recon", "kl",    "examples_per_s",
                                        "epoch", "bound", "wall_s"};
    const size_t split = split_of(line);
    if (split == REPORT_SPLITS) {
        return;
    }
    for (size_t c = 0; c < REPORT_COLUMNS; c++) {
        const json_t *value = json_object_get(line, names[c]);
        m->column[split][c][m->n[split]] = json_is_number(value) ? json_number_value(value) : NAN;
    }
    m->column[split][REPORT_BOUND][m->n[split]] *= -1; /* it is a loss there */
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
        json_t *object;
        if (vae_json_read(&object, line, n, 0, NULL) == VAE_ERR_RUNTIME) {
            return vae_fail(err, VAE_ERR_RUNTIME, "metrics.jsonl: out of memory");
        }
        add_line(m, object);
        json_decref(object);
    }
    return VAE_OK;
}

vae_status report_read_object(json_t **out, const char *text, const char *name, vae_error *err)
{
    *out = NULL;
    return text != NULL && vae_json_read(out, text, strlen(text), 0, NULL) == VAE_ERR_RUNTIME
               ? vae_fail(err, VAE_ERR_RUNTIME, "%s: out of memory", name)
               : VAE_OK;
}

void report_metrics_clear(report_metrics *m)
{
    free(m->room);
    *m = (report_metrics){.room = NULL};
}

vae_status report_read_run(report_metrics *m, json_t **run, const char *folder, vae_error *err)
{
    char *metrics = NULL, *text = NULL;
    vae_status status = VAE_OK;
    TRY(read_file(&metrics, folder, "metrics.jsonl", most_metrics, err));
    TRY(read_file(&text, folder, "run.json", most_run, err));
    if (metrics != NULL) {
        TRY(read_metrics(m, metrics, err));
    }
    TRY(report_read_object(run, text, "run.json", err));
done:
    free(text);
    free(metrics);
    return status;
}
