/* Taking up a run where its newest good checkpoint stands, or completing one that had finished. */
#include <inttypes.h>
#include <jansson.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "base/json.h"
#include "base/sha256.h"
#include "train/run_parts.h"

/* Options that a resumed run may have otherwise: those of the run, the number of epochs, what is
 * tested on, and paths of data and of the run below, as their content is compared. */
static vae_option_set may_differ(bool variance)
{
    size_t n;
    vae_option_set set = {{0}};
    const vae_option *options = vae_config_options(&n);
    for (size_t i = 0; i < n; i++) {
        bool may = options[i].scope == VAE_SCOPE_RUN || strcmp(options[i].name, "epochs") == 0 ||
                   strcmp(options[i].name, "data") == 0 || strcmp(options[i].name, "stack") == 0 ||
                   strcmp(options[i].name, "test-data") == 0 ||
                   strcmp(options[i].name, "init-from") == 0;
        may = may || (variance && strcmp(options[i].name, "variance") == 0);
        if (may) {
            vae_option_add(&set, i);
        }
    }
    return set;
}

static vae_status check_options(const vae_loop *l, const vae_checkpoint *c, const char *path,
                                vae_error *err)
{
    char here[VAE_PATH], there[VAE_PATH];
    /* an optimal variance goes on from the checkpoint's */
    const bool moves = vae_likelihood_of(c->config.likelihood)->optimal;
    const vae_option_set may = may_differ(moves);
    size_t n, i = vae_config_difference(&c->config, l->config, &may);
    if (i == SIZE_MAX) {
        return VAE_OK;
    }
    const char *name = vae_config_options(&n)[i].name;
    vae_config_get(l->config, name, here, sizeof here);
    vae_config_get(&c->config, name, there, sizeof there);
    return vae_fail(
        err, VAE_ERR_USAGE,
        "%s: it was trained with --%s %s, not %s: --resume may change only --epochs and "
        "where and how the run is kept; leave --%s out, or start a new run with "
        "another --out",
        path, name, there, here, name);
}

static vae_status check_data(const vae_dataset *set, const vae_checkpoint *c, const char *path,
                             vae_error *err)
{
    static const uint8_t none[sizeof c->data_sha256] = {0}; /* imported: it has seen no data here */
    char here[VAE_SHA256_HEX], there[VAE_SHA256_HEX];
    if (c->d != set->d) {
        return vae_fail(err, VAE_ERR_USAGE, "%s: it was trained on %zu columns, %s has %zu", path,
                        c->d, set->source, set->d);
    }
    if (memcmp(c->data_sha256, none, sizeof none) != 0 &&
        memcmp(c->data_sha256, set->sha256, sizeof c->data_sha256) != 0) {
        vae_sha256_hex(set->sha256, here);
        vae_sha256_hex(c->data_sha256, there);
        return vae_fail(err, VAE_ERR_USAGE,
                        "%s: it was trained on other data: SHA-256 %.16s..., %s has %.16s...; give "
                        "the --data and the --limit it was trained with",
                        path, there, set->source, here);
    }
    return vae_checkpoint_check_set(c, set, err);
}

/* The names of the model's classes: those of the data, in their order. Until 1073072 they were not
 * kept, and texts were numbered in the order of their bytes. */
static vae_status check_classes(const vae_loop *l, const vae_checkpoint *c, const char *path,
                                vae_error *err)
{
    const vae_classes *here = &l->now->classes, *there = &c->classes;
    char one[VAE_CLASSES_TEXT], other[VAE_CLASSES_TEXT];
    bool same = here->n == there->n, in_order = same;
    for (size_t i = 0; same && i < here->n; i++) {
        same = strcmp(here->name[i], there->name[i]) == 0;
    }
    for (size_t i = 1; in_order && i < here->n; i++) {
        in_order = strcmp(here->name[i - 1], here->name[i]) < 0;
    }
    if (!vae_config_has_classes(&c->config) || same || (!c->classes_known && in_order)) {
        return VAE_OK;
    }
    return vae_fail(err, VAE_ERR_USAGE, "%s: its classes are %s; those of %s are %s", path,
                    vae_classes_text(one, there), l->train_set->source,
                    vae_classes_text(other, here));
}

/* Numbers on another device or at another precision are not the same to the last bit. */
static void note_changes(training_run *t, const vae_config *old)
{
    const vae_config *c = t->loop.config;
    if (c->device != old->device || c->precision != old->precision) {
        vae_note(&t->notes,
                 "note: device or precision differ from the run's before: from here on the "
                 "numbers are not those of an uninterrupted run to the last bit");
    }
    if (c->epochs != old->epochs && c->lr_schedule == VAE_LR_COSINE) {
        vae_note(&t->notes,
                 "note: --epochs %zu instead of %zu: the cosine schedule is stretched from "
                 "here on",
                 c->epochs, old->epochs);
    }
}

vae_status vae_train_find(training_run *t, const vae_dataset *set, vae_checkpoint **found,
                          vae_error *err)
{
    char path[VAE_PATH], **names;
    size_t n;
    vae_checkpoint *c = NULL;
    vae_status status = VAE_OK;
    TRY(vae_run_list(&names, &n, t->folder.path, err));
    vae_run_list_free(names, n);
    if (n == 0) {
        return VAE_OK;
    }
    TRY(vae_checkpoint_open_run(&c, t->folder.path, false, true, path, err));
    TRY(check_data(set, c, path, err));
    memcpy(t->result->checkpoint, path, sizeof path);
    *found = c;
    c = NULL;
done:
    vae_checkpoint_free(c);
    return status;
}

vae_status vae_train_check_found(training_run *t, const vae_checkpoint *c, vae_error *err)
{
    const char *path = t->result->checkpoint;
    vae_status status = VAE_OK;
    TRY(check_options(&t->loop, c, path, err));
    TRY(check_classes(&t->loop, c, path, err));
    if (!vae_loop_fits(&t->loop, &c->state)) {
        TRY(vae_fail(err, VAE_ERR_DATA,
                     "%s: step %" PRIu64 ", epoch %" PRIu64 " and position %" PRIu64
                     " do not fit together",
                     path, c->state.step, c->state.epoch, c->state.position));
    }
    if (c->adam_m == NULL || c->adam_v == NULL) {
        TRY(vae_fail(err, VAE_ERR_DATA,
                     "%s: it has no moments of Adam, so training cannot continue from it", path));
    }
    note_changes(t, &c->config);
done:
    return status;
}

/* Does run.json say that the run is done? */
static vae_status says_done(const training_run *t, const char *path, bool *done, vae_error *err)
{
    enum { MOST = 1 << 20 };
    char *text = NULL;
    bool there;
    vae_error why = {0};
    vae_status status = VAE_OK;
    *done = false;
    TRY(vae_path_exists(&there, path, err));
    if (there && vae_file_read(&text, path, MOST, &why) != VAE_OK && why.status != VAE_ERR_DATA) {
        TRY(vae_fail(err, why.status, "%s", why.text));
    }
    json_t *run = NULL;
    if (text != NULL && vae_json_read(&run, text, strlen(text), 0, NULL) == VAE_ERR_RUNTIME) {
        TRY(vae_fail(err, VAE_ERR_RUNTIME, "%s: out of memory", path));
    }
    const char *word = json_string_value(json_object_get(run, "status"));
    const json_int_t step = json_integer_value(json_object_get(run, "step"));
    *done = word != NULL && strcmp(word, "done") == 0 && (uint64_t)step == t->loop.now->state.step;
    json_decref(run);
done:
    free(text);
    return status;
}

vae_status vae_train_missing(const training_run *t, bool *run, bool *pictures, bool *report,
                             vae_error *err)
{
    char path[VAE_RUN_PATH], page[VAE_RUN_PATH];
    struct stat of_run, of_page;
    bool done, drawn;
    vae_status status = VAE_OK;
    vae_run_folder_path(&t->folder, "run.json", path);
    vae_run_folder_path(&t->folder, "report.html", page);
    TRY(says_done(t, path, &done, err));
    TRY(vae_train_drawn(t, t->loop.now->state.epoch, &drawn, err));
    *run = !done;
    *pictures = !drawn;
    /* run.json is written first, as the report shows it */
    *report =
        t->loop.config->report && (!done || stat(path, &of_run) != 0 || stat(page, &of_page) != 0 ||
                                   of_page.st_mtim.tv_sec < of_run.st_mtim.tv_sec ||
                                   (of_page.st_mtim.tv_sec == of_run.st_mtim.tv_sec &&
                                    of_page.st_mtim.tv_nsec < of_run.st_mtim.tv_nsec));
done:
    return status;
}
