/* Which files are a run's, and whether a folder is one. */
#include "run/ours.h"

#include <errno.h>
#include <fcntl.h>
#include <jansson.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/json.h"
#include "base/text.h"
#include "run/checkpoint_format.h"
#include "run/folder.h"

/* ---- names ---- */

bool vae_run_is_step(const char *name)
{
    return strncmp(name, "step-", 5) == 0 && vae_ends_with(name, ".vae") &&
           strspn(name + 5, "0123456789") == strlen(name) - 9;
}

/* "epoch-" and digits and ".png". */
static bool is_picture(const char *name, const char *kind)
{
    const size_t n = strlen(kind), length = strlen(name);
    return strncmp(name, kind, n) == 0 && vae_ends_with(name, ".png") && length > n + 4 &&
           n + strspn(name + n, "0123456789") == length - 4;
}

/* Of the files that TensorBoard reads. */
static bool is_board(const char *name)
{
    static const char *const projector[] = {"projector_config.pbtxt", "mu.tsv", "labels.tsv",
                                            "sprite.png"};
    static const char events[] = "events.out.tfevents.";
    for (size_t i = 0; i < sizeof projector / sizeof projector[0]; i++) {
        if (strcmp(name, projector[i]) == 0) {
            return true;
        }
    }
    return strncmp(name, events, strlen(events)) == 0 && vae_ends_with(name, ".vae");
}

static const char *const of_a_run[] = {"config.json", "run.json", "metrics.jsonl", "report.html"};

/* Does a run write a file of this name into its folder `inside` ("": into itself)? */
static bool is_of_a_run(const char *inside, const char *name)
{
    if (strcmp(inside, "checkpoints") == 0) {
        return vae_run_is_step(name) || strcmp(name, "best.vae") == 0;
    }
    if (strcmp(inside, "samples") == 0) {
        return is_picture(name, "epoch-") || is_picture(name, "reconstruction-");
    }
    if (strcmp(inside, "tensorboard") == 0) {
        return is_board(name);
    }
    for (size_t i = 0; i < sizeof of_a_run / sizeof of_a_run[0]; i++) {
        if (strcmp(name, of_a_run[i]) == 0) {
            return true;
        }
    }
    return false;
}

/* The same of a temp file on the way there: NAME.PID-N.tmp. */
static bool is_temp_of_a_run(const char *inside, const char *temp)
{
    char name[NAME_MAX + 1];
    int end = 0;
    snprintf(name, sizeof name, "%s", temp);
    for (int dots = 0; dots < 2; dots++) { /* before .tmp, before .PID-N */
        char *dot = strrchr(name, '.');
        if (dot == NULL) {
            return false;
        }
        *dot = '\0';
    }
    const char *tail = temp + strlen(name);
    return sscanf(tail, ".%*[0-9]-%*[0-9].tmp%n", &end) == 0 && end > 0 && tail[end] == '\0' &&
           is_of_a_run(inside, name);
}

vae_status vae_run_remove_files(const char *path, const char *inside, bool temps, vae_error *err)
{
    char folder[VAE_RUN_PATH], file[VAE_RUN_PATH + NAME_MAX], **names;
    size_t n;
    vae_status status = VAE_OK;
    snprintf(folder, sizeof folder, "%s/%s", path, inside);
    TRY(vae_folder_names(&names, &n, folder, err));
    const char *kept = "run.json";
    for (size_t i = 0; i < n; i++) {
        kept = strcmp(names[i], of_a_run[0]) == 0 ? of_a_run[0] : kept;
    }
    for (size_t i = 0; i < n && status == VAE_OK; i++) {
        snprintf(file, sizeof file, "%s/%s", folder, names[i]);
        if ((temps ? is_temp_of_a_run : is_of_a_run)(inside, names[i]) &&
            strcmp(names[i], kept) != 0 && unlink(file) != 0) {
            status = vae_fail(err, VAE_ERR_IO, "%s: cannot remove: %s", file, strerror(errno));
        }
    }
    vae_names_free(names, n);
done:
    return status;
}

/* ---- whose folder is it? ---- */

/* *there: is there a file `name`, and is it, *ours, a JSON object with a schema and these
 * members? */
static vae_status look_at(bool *there, bool *ours, const char *folder, const char *name,
                          const char *const members[4], vae_error *err)
{
    enum { MOST = 1 << 20 };
    char path[VAE_RUN_PATH], *text = NULL;
    vae_error why = {0};
    json_t *object;
    vae_status status = VAE_OK;
    *ours = false;
    snprintf(path, sizeof path, "%s/%s", folder, name);
    TRY(vae_path_exists(there, path, err));
    if (!*there) {
        return VAE_OK;
    }
    if (vae_file_read(&text, path, MOST, &why) != VAE_OK) {
        return why.status == VAE_ERR_DATA ? VAE_OK : vae_fail(err, why.status, "%s", why.text);
    }
    if (vae_json_read(&object, text, strlen(text), 0, NULL) == VAE_ERR_RUNTIME) {
        TRY(vae_fail(err, VAE_ERR_RUNTIME, "%s: out of memory", path));
    }
    *ours = json_is_integer(json_object_get(object, "schema"));
    for (size_t i = 0; i < 4; i++) {
        *ours = *ours && json_object_get(object, members[i]) != NULL;
    }
    json_decref(object);
done:
    free(text);
    return status;
}

/* Does the file begin as our checkpoints do? VAE_ERR_IO: it cannot be known. */
static vae_status is_checkpoint(bool *is, const char *path, vae_error *err)
{
    unsigned char begin[sizeof vae_checkpoint_magic];
    const int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    if (fd < 0) {
        return vae_fail(err, VAE_ERR_IO, "%s: cannot open: %s", path, strerror(errno));
    }
    const ssize_t n = vae_read_at(fd, begin, sizeof begin, 0);
    const int error = errno;
    close(fd);
    *is = n == sizeof begin && memcmp(begin, vae_checkpoint_magic, sizeof begin) == 0;
    return n >= 0 || error == EISDIR
               ? VAE_OK
               : vae_fail(err, VAE_ERR_IO, "%s: cannot read: %s", path, strerror(error));
}

/* Is there one? Where one is, others that cannot be read do not matter. */
static vae_status has_checkpoint(bool *has, const char *folder, vae_error *err)
{
    char path[VAE_RUN_PATH + NAME_MAX], **names;
    size_t n;
    vae_error unknown = {0};
    vae_status status = VAE_OK;
    *has = false;
    snprintf(path, sizeof path, "%s/checkpoints", folder);
    TRY(vae_folder_names(&names, &n, path, err));
    for (size_t i = 0; i < n && !*has; i++) {
        snprintf(path, sizeof path, "%s/checkpoints/%s", folder, names[i]);
        if (is_of_a_run("checkpoints", names[i])) {
            is_checkpoint(has, path, &unknown);
        }
    }
    vae_names_free(names, n);
    if (!*has && unknown.status != VAE_OK) {
        TRY(vae_fail(err, unknown.status, "%s", unknown.text));
    }
done:
    return status;
}

/* All that a run leaves that was killed before its config.json: an empty log, empty folders and a
 * temp file. */
static vae_status is_newborn(bool *is, const char *folder, vae_error *err)
{
    char path[VAE_RUN_PATH + NAME_MAX], **names, **inside;
    size_t n, n_inside = 0;
    struct stat info;
    vae_status status = VAE_OK;
    TRY(vae_folder_names(&names, &n, folder, err));
    *is = true;
    bool locked = false;
    for (size_t i = 0; i < n && *is && status == VAE_OK; i++) {
        snprintf(path, sizeof path, "%s/%s", folder, names[i]);
        if (lstat(path, &info) != 0) {
            status = vae_fail(err, VAE_ERR_IO, "%s: cannot inspect: %s", path, strerror(errno));
        } else if (strcmp(names[i], "checkpoints") == 0 || strcmp(names[i], "samples") == 0) {
            *is = S_ISDIR(info.st_mode);
            status = *is ? vae_folder_names(&inside, &n_inside, path, err) : VAE_OK;
            if (*is && status == VAE_OK) {
                *is = n_inside == 0;
                vae_names_free(inside, n_inside);
            }
        } else {
            const bool log = strcmp(names[i], "log.txt") == 0 && info.st_size == 0;
            *is = S_ISREG(info.st_mode) && (log || is_temp_of_a_run("", names[i]));
            locked = locked || log;
        }
    }
    *is = *is && locked;
    vae_names_free(names, n);
done:
    return status;
}

static vae_status not_a_run(const char *path, const char *why, vae_error *err)
{
    return vae_fail(err, VAE_ERR_USAGE,
                    "%s: not a run of vae: %s; nothing in it was touched: give another --out", path,
                    why);
}

/* What a run writes into without replacing it must be its own, and no link to elsewhere. */
static vae_status check_links(const char *folder, vae_error *err)
{
    static const char *const names[] = {"log.txt", "metrics.jsonl", "checkpoints", "samples",
                                        "tensorboard"};
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) {
        char path[VAE_RUN_PATH];
        struct stat info;
        snprintf(path, sizeof path, "%s/%s", folder, names[i]);
        if (lstat(path, &info) == 0 && !(i < 2 ? S_ISREG(info.st_mode) : S_ISDIR(info.st_mode))) {
            return vae_fail(err, VAE_ERR_USAGE,
                            "%s: %s, expected a %s of the run: it is not written through; remove "
                            "it, or give another --out",
                            path, S_ISLNK(info.st_mode) ? "a symbolic link" : "something else",
                            i < 2 ? "file" : "folder");
        }
    }
    return VAE_OK;
}

/* Is the folder a run's, all of it? */
vae_status vae_run_check_ours(const char *path, vae_error *err)
{
    static const struct {
        const char *name, *members[4];
    } files[] = {{"config.json", {"data", "hidden", "latent", "likelihood"}},
                 {"run.json", {"status", "version", "started", "data"}}};
    bool any = false, there, ours;
    vae_status status = VAE_OK;
    for (size_t i = 0; i < sizeof files / sizeof files[0]; i++) {
        TRY(look_at(&there, &ours, path, files[i].name, files[i].members, err));
        if (there && !ours) {
            char why[64];
            snprintf(why, sizeof why, "its %s is another program's", files[i].name);
            return not_a_run(path, why, err);
        }
        any = any || ours;
    }
    if (!any) {
        TRY(has_checkpoint(&any, path, err));
    }
    if (!any) {
        TRY(is_newborn(&any, path, err));
    }
    if (!any) {
        TRY(not_a_run(path, "there is no config.json, run.json or checkpoint of one", err));
    }
    TRY(check_links(path, err));
done:
    return status;
}
