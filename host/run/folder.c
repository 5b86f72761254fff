/* The run folder: its files, its lock, and which of them stay. */
#include "run/folder.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <jansson.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/json.h"
#include "base/text.h"
#include "dataset/dataset.h"
#include "run/ours.h"

/* Largest metrics.jsonl that is read: a line is about 250 bytes. */
static const size_t max_metrics = (size_t)1 << 30;
static const size_t max_run = (size_t)1 << 20;

void vae_run_folder_path(const vae_run_folder *folder, const char *name, char out[VAE_RUN_PATH])
{
    snprintf(out, VAE_RUN_PATH, "%s/%s", folder->path, name);
}

void vae_run_folder_place(const vae_run_folder *folder, const char *name, char out[VAE_RUN_PATH])
{
    vae_run_folder_path(folder, name, out);
    vae_make_way(out);
}

/* ---- names in a folder ---- */

uint64_t vae_run_step_of(const char *name)
{
    return strtoull(name + sizeof "step-" - 1, NULL, 10); /* too many digits: UINT64_MAX */
}

static int newest_first(const void *a, const void *b)
{
    const char *x = *(const char *const *)a, *y = *(const char *const *)b;
    /* numbers of more than ten digits are longer names */
    size_t n = strlen(x), m = strlen(y);
    return n != m ? (n < m ? 1 : -1) : strcmp(y, x);
}

void vae_run_list_free(char **names, size_t n)
{
    vae_names_free(names, n);
}

vae_status vae_run_list(char ***names, size_t *n, const char *run, vae_error *err)
{
    char path[VAE_RUN_PATH];
    size_t all, kept = 0;
    snprintf(path, sizeof path, "%s/checkpoints", run);
    const vae_status status = vae_folder_names(names, &all, path, err);
    for (size_t i = 0; i < all; i++) {
        char *name = (*names)[i];
        if (vae_run_is_step(name)) {
            (*names)[kept++] = name;
        } else {
            free(name);
        }
    }
    *n = kept;
    if (kept > 0) {
        qsort(*names, kept, sizeof **names, newest_first);
    }
    return status;
}

/* ---- opening ---- */

/* An earlier run's files, but the one that tells that they are a run: where this is cut short, it
 * can be said again. */
static vae_status remove_run(const vae_run_folder *folder, vae_error *err)
{
    vae_status status = VAE_OK;
    if (ftruncate(folder->log, 0) != 0) {
        TRY(vae_fail(err, VAE_ERR_IO, "%s/log.txt: cannot empty: %s", folder->path,
                     strerror(errno)));
    }
    TRY(vae_run_remove_files(folder->path, "samples", false, err));
    TRY(vae_run_remove_files(folder->path, "tensorboard", false, err));
    TRY(vae_run_remove_files(folder->path, "checkpoints", false, err));
    TRY(vae_run_remove_files(folder->path, "", false, err));
done:
    return status;
}

/* Temp files of a process that was killed while it wrote; nobody else writes here now. One that
 * stays does no harm. */
static void remove_temps(const vae_run_folder *folder)
{
    vae_error ignored = {0};
    vae_run_remove_files(folder->path, "", true, &ignored);
    vae_run_remove_files(folder->path, "checkpoints", true, &ignored);
    vae_run_remove_files(folder->path, "samples", true, &ignored);
    vae_run_remove_files(folder->path, "tensorboard", true, &ignored);
}

static vae_status make_folder(const char *path, vae_error *err)
{
    char part[VAE_RUN_PATH];
    snprintf(part, sizeof part, "%s", path);
    for (char *slash = part + 1;; slash++) {
        slash += strcspn(slash, "/");
        const char kept = *slash;
        *slash = '\0';
        if (mkdir(part, 0777) != 0 && errno != EEXIST) {
            return vae_fail(err, VAE_ERR_IO, "%s: cannot make the folder: %s", part,
                            strerror(errno));
        }
        *slash = kept;
        if (kept == '\0') {
            return VAE_OK;
        }
    }
}

/* Is there anything in the folder? */
static vae_status look_inside(const char *path, bool *empty, vae_error *err)
{
    char **names;
    size_t n;
    const vae_status status = vae_folder_names(&names, &n, path, err);
    vae_names_free(names, n);
    *empty = n == 0;
    return status;
}

/* A run that was never begun cannot be gone on with. */
static vae_status need_checkpoint(const char *path, vae_error *err)
{
    char **names;
    size_t n;
    vae_status status = VAE_OK;
    TRY(vae_run_list(&names, &n, path, err));
    vae_run_list_free(names, n);
    if (n == 0) {
        TRY(vae_fail(
            err, VAE_ERR_USAGE, "%s: there is no run to resume: %s; --resume=auto begins one", path,
            access(path, F_OK) == 0 ? "no checkpoints/step-*.vae in it" : "no such folder"));
    }
done:
    return status;
}

vae_status vae_run_folder_check(const char *path, bool resume, bool anew, bool force,
                                vae_error *err)
{
    bool empty;
    vae_status status = VAE_OK;
    TRY(look_inside(path, &empty, err));
    if (!empty && !resume && !force) {
        TRY(vae_fail(err, VAE_ERR_USAGE,
                     "%s: the folder is not empty: --resume continues the run in it, --force "
                     "replaces it, or give another --out",
                     path));
    }
    if (!empty) {
        TRY(vae_run_check_ours(path, err));
    }
    TRY(resume && !anew ? need_checkpoint(path, err) : VAE_OK);
done:
    return status;
}

/* Links are not followed, FIFOs not waited for. */
static const int own_file = O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK;

static vae_status lock_log(vae_run_folder *folder, vae_error *err)
{
    char path[VAE_RUN_PATH];
    vae_run_folder_path(folder, "log.txt", path);
    folder->log = open(path, own_file, 0666);
    if (folder->log < 0) {
        return vae_fail(err, VAE_ERR_IO, "%s: cannot open: %s", path, strerror(errno));
    }
    /* file systems that cannot lock are taken as they are */
    if (flock(folder->log, LOCK_EX | LOCK_NB) != 0 && errno == EWOULDBLOCK) {
        return vae_fail(err, VAE_ERR_USAGE,
                        "%s: another vae is training in this folder: wait for it, or give another "
                        "--out",
                        folder->path);
    }
    return VAE_OK;
}

vae_status vae_run_folder_open(vae_run_folder *folder, const char *path, bool resume, bool force,
                               bool *empty, vae_error *err)
{
    static const char *const inside[] = {"checkpoints", "samples"};
    char part[VAE_RUN_PATH];
    vae_status status = VAE_OK;
    folder->log = folder->metrics = -1;
    if (path[0] == '\0' || snprintf(folder->path, sizeof folder->path, "%s", path) >= VAE_PATH) {
        return vae_fail(err, VAE_ERR_USAGE, "--out: no name for the run folder, or too long a one");
    }
    TRY(vae_run_folder_check(path, resume, true, force, err));
    TRY(make_folder(path, err));
    TRY(look_inside(path, empty, err));
    TRY(lock_log(folder, err));
    if (force) {
        TRY(remove_run(folder, err));
        *empty = true;
    }
    for (size_t i = 0; i < sizeof inside / sizeof inside[0]; i++) {
        vae_run_folder_path(folder, inside[i], part);
        TRY(make_folder(part, err));
    }
    remove_temps(folder);
done:
    if (status != VAE_OK) {
        vae_run_folder_close(folder);
    }
    return status;
}

void vae_run_folder_close(vae_run_folder *folder)
{
    if (folder->metrics >= 0) {
        close(folder->metrics);
    }
    if (folder->log >= 0) {
        close(folder->log);
    }
    folder->metrics = folder->log = -1;
}

/* ---- paths in it ---- */

/* path: (VAE_PATH), from `began` where it leads somewhere from there, or where it is a file to be
 * made that is in neither place. */
static vae_status resolve(const char *began, char *path, bool made, vae_error *err)
{
    char found[2 * VAE_PATH];
    bool there = false, here = false;
    vae_status status = VAE_OK;
    if (path[0] != '/' && path[0] != '\0' && !vae_dataset_is_built_in(path) &&
        snprintf(found, sizeof found, "%s/%s", began, path) < VAE_PATH) {
        TRY(vae_path_exists(&there, found, err));
        if (made && !there) {
            TRY(vae_path_exists(&here, path, err));
            TRY(here ? VAE_OK : vae_is_folder(&there, began, err));
        }
    }
    if (there) {
        memcpy(path, found, strlen(found) + 1);
    }
done:
    return status;
}

vae_status vae_run_resolve_config(const char *folder, vae_config *config, vae_error *err)
{
    char name[VAE_RUN_PATH], here[VAE_PATH], *text = NULL;
    json_t *run = NULL;
    bool there;
    vae_error why = {0};
    vae_status status = VAE_OK;
    snprintf(name, sizeof name, "%s/run.json", folder);
    TRY(vae_path_exists(&there, name, err));
    if (there && vae_file_read(&text, name, max_run, &why) != VAE_OK &&
        why.status != VAE_ERR_DATA) {
        TRY(vae_fail(err, why.status, "%s", why.text));
    }
    if (text != NULL && vae_json_read(&run, text, strlen(text), 0, NULL) == VAE_ERR_RUNTIME) {
        TRY(vae_fail(err, VAE_ERR_RUNTIME, "%s: out of memory", name));
    }
    const char *began = json_string_value(json_object_get(run, "folder"));
    if (began != NULL && (getcwd(here, sizeof here) == NULL || strcmp(here, began) != 0)) {
        TRY(resolve(began, config->data, false, err));
        TRY(resolve(began, config->test_data, false, err));
        TRY(resolve(began, config->cache, true, err));
        TRY(resolve(began, config->stack, false, err));
        TRY(resolve(began, config->init_from, false, err));
    }
done:
    json_decref(run);
    free(text);
    return status;
}

vae_status vae_run_of_checkpoint(const char *checkpoint, char folder[VAE_PATH], vae_error *err)
{
    char *whole = realpath(checkpoint, NULL);
    folder[0] = '\0';
    if (whole == NULL) {
        return errno == ENOMEM ? vae_fail_memory(err, PATH_MAX, checkpoint)
                               : vae_fail(err, VAE_ERR_IO, "%s: cannot look at it: %s", checkpoint,
                                          strerror(errno));
    }
    char *inside = strrchr(whole, '/');
    *inside = '\0';
    if (vae_ends_with(whole, "/checkpoints") && inside - whole < VAE_PATH) {
        *strrchr(whole, '/') = '\0';
        snprintf(folder, VAE_PATH, "%s", whole);
    }
    free(whole);
    return VAE_OK;
}

/* ---- metrics and log ---- */

/* Does this line (n bytes, without newline) belong to step <= `step`? A line that is not JSON was
 * torn when a machine died. */
static bool keep_line(const char *line, size_t n, uint64_t step)
{
    json_t *object = json_loadb(line, n, 0, NULL);
    const json_t *at = json_object_get(object, "step");
    bool keep = json_is_integer(at) && json_integer_value(at) >= 0 &&
                (uint64_t)json_integer_value(at) <= step;
    json_decref(object);
    return keep;
}

/* Moves the lines to keep to the front of `text`; returns how many bytes they are. */
static size_t keep_lines(char *text, uint64_t step)
{
    size_t kept = 0;
    for (char *line = text, *end; (end = strchr(line, '\n')) != NULL; line = end + 1) {
        size_t n = (size_t)(end - line);
        if (keep_line(line, n, step)) {
            memmove(text + kept, line, n + 1);
            kept += n + 1;
        }
    }
    return kept;
}

vae_status vae_run_folder_metrics(vae_run_folder *folder, uint64_t step, vae_error *err)
{
    char path[VAE_RUN_PATH], *text = NULL;
    bool there;
    vae_run_folder_path(folder, "metrics.jsonl", path);
    vae_status status = VAE_OK;
    TRY(vae_path_exists(&there, path, err));
    if (there) {
        TRY(vae_file_read(&text, path, max_metrics, err));
        const size_t n = strlen(text), kept = keep_lines(text, step);
        const struct iovec part = {text, kept};
        if (kept < n) {
            TRY(vae_file_replace(path, &part, 1, err));
        }
    }
    folder->metrics = open(path, own_file, 0666);
    if (folder->metrics < 0) {
        TRY(vae_fail(err, VAE_ERR_IO, "%s: cannot open: %s", path, strerror(errno)));
    }
done:
    free(text);
    return status;
}

vae_status vae_run_folder_metric(vae_run_folder *folder, const char *line, vae_error *err)
{
    if (!vae_write_all(folder->metrics, line, strlen(line))) {
        return vae_fail(err, VAE_ERR_IO, "%s/metrics.jsonl: cannot write: %s", folder->path,
                        strerror(errno));
    }
    return VAE_OK;
}

vae_status vae_run_folder_log(vae_run_folder *folder, const char *line, vae_error *err)
{
    return vae_write_all(folder->log, line, strlen(line))
               ? VAE_OK
               : vae_fail(err, VAE_ERR_IO, "%s/log.txt: cannot write: %s", folder->path,
                          strerror(errno));
}
