/* The library's interface: vae.h over the checkpoint, the trained model and the training loop. */
#include "vae.h"

#include <inttypes.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "backend/open.h"
#include "base/text.h"
#include "base/version.h"
#include "exchange/exchange.h"
#include "infer/trained.h"
#include "run/folder.h"
#include "stats/latent_walk.h"
#include "train/init.h"
#include "train/run.h"

_Static_assert((int)VAE_RESULT_INTERRUPTED == (int)VAE_ERR_INTERRUPTED, "the same numbers");
_Static_assert((int)VAE_BYTES == (int)VAE_U8 && (int)VAE_FLOATS == (int)VAE_F32 &&
                   (int)VAE_PACKED_BITS == (int)VAE_BITS,
               "the same types");

struct vae {
    vae_error err;
    vae_config options;
    vae_option_set given;       /* options that were set */
    vae_checkpoint *checkpoint; /* NULL: no model */
    vae_trained trained;        /* of it; started if trained.model is there */
    vae_classes classes;        /* of the labels */
    uint32_t *labels;           /* (n_labels) places in them, or VAE_NO_LABEL; NULL: none */
    size_t n_labels;
    vae_notes notes;
    vae_epoch_fn *on_epoch;
    void *epoch_context;
    vae_stop_flag stop;
};

const char *vae_version(void)
{
    return vae_build_version;
}

unsigned long vae_version_number(void)
{
    unsigned long major = 0, minor = 0, patch = 0;
    sscanf(vae_build_version, "%lu.%lu.%lu", &major, &minor, &patch);
    return 10000 * major + 100 * minor + patch;
}

const char *vae_result_text(int result)
{
    switch ((enum vae_result)result) {
    case VAE_RESULT_OK:
        return "success";
    case VAE_RESULT_RUNTIME:
        return "out of memory, or a library failed";
    case VAE_RESULT_USAGE:
        return "an unknown option, a bad value or no model";
    case VAE_RESULT_DATA:
        return "data or a file that is not what it should be";
    case VAE_RESULT_IO:
        return "cannot open, read or write";
    case VAE_RESULT_DIVERGED:
        return "training met NaN or Inf";
    case VAE_RESULT_NO_DEVICE:
        return "the GPU asked for is not there";
    case VAE_RESULT_INTERRUPTED:
        return "training was stopped";
    }
    return "unknown result";
}

vae *vae_new(void)
{
    vae *v = calloc(1, sizeof *v);
    if (v != NULL) {
        vae_config_defaults(&v->options);
        snprintf(v->options.data, sizeof v->options.data, "(memory)");
    }
    return v;
}

/* The last call's message. */
static void forget(vae *v)
{
    v->err = (vae_error){.notes = &v->notes};
}

void vae_free(vae *v)
{
    if (v != NULL) {
        vae_trained_close(&v->trained);
        vae_checkpoint_free(v->checkpoint);
        vae_classes_clear(&v->classes);
        free(v->labels);
        free(v);
    }
}

const char *vae_message(const vae *v)
{
    return v->err.text;
}

/* Options about data that the program reads, and models that this library does not run. */
static bool is_the_programs(size_t row)
{
    static const char *const names[] = {"data",           "test-data",    "limit", "image-size",
                                        "image-channels", "exif",         "cache", "skip-bad",
                                        "label-column",   "drop-columns", "stack", "stack-weights"};
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) {
        if (row == vae_config_find(names[i])) {
            return true;
        }
    }
    return false;
}

int vae_set_option(vae *v, const char *name, const char *value)
{
    const size_t row = vae_config_find(name);
    vae_status status = VAE_OK;
    forget(v);
    if (row != SIZE_MAX && is_the_programs(row)) {
        TRY(vae_fail(&v->err, VAE_ERR_USAGE,
                     "option '%s' is the program's: this library trains on the rows that vae_fit "
                     "is given",
                     name));
    }
    TRY(vae_config_set(&v->options, name, value, &v->err));
    vae_option_add(&v->given, row);
    vae_trained_close(&v->trained);
done:
    return (int)status;
}

void vae_on_log(vae *v, vae_log_fn *fn, void *context)
{
    v->notes = (vae_notes){fn, context};
}

/* ---- models ---- */

static void take_checkpoint(vae *v, vae_checkpoint *checkpoint)
{
    vae_trained_close(&v->trained);
    vae_checkpoint_free(v->checkpoint);
    v->checkpoint = checkpoint;
}

int vae_load(vae *v, const char *path)
{
    char found[VAE_PATH];
    vae_checkpoint *c = NULL;
    vae_status status = VAE_OK;
    forget(v);
    TRY(vae_open_weights(&c, path, found, &v->err));
    if (c->config.stack[0] != '\0') {
        TRY(vae_fail(&v->err, VAE_ERR_USAGE,
                     "%s: a stacked model, which this library does not run; the program vae does",
                     path));
    }
    take_checkpoint(v, c);
    c = NULL;
done:
    vae_checkpoint_free(c);
    return (int)status;
}

static vae_status need_model(vae *v)
{
    forget(v);
    return v->checkpoint != NULL
               ? VAE_OK
               : vae_fail(&v->err, VAE_ERR_USAGE, "no model: vae_load or vae_fit comes first");
}

int vae_save(vae *v, const char *path)
{
    vae_status status = VAE_OK;
    TRY(need_model(v));
    if (vae_ends_with(path, ".safetensors")) {
        TRY(vae_export_safetensors(path, v->checkpoint, &v->err));
    } else if (vae_ends_with(path, ".npz")) {
        TRY(vae_export_npz(path, v->checkpoint, &v->err));
    } else {
        TRY(vae_checkpoint_write(path, v->checkpoint, &v->err));
    }
done:
    return (int)status;
}

int vae_get_shape(vae *v, struct vae_shape *shape, size_t size)
{
    const vae_status status = need_model(v);
    if (status == VAE_OK) {
        const vae_checkpoint *c = v->checkpoint;
        const bool classes = vae_config_has_classes(&c->config);
        const struct vae_shape all = {c->d,
                                      c->height,
                                      c->width,
                                      c->channels,
                                      c->config.latent,
                                      c->n_params,
                                      classes ? c->config.classes : 0,
                                      c->config.condition == VAE_CONDITION_LABELS,
                                      c->config.semi_supervised};
        memset(shape, 0, size);
        memcpy(shape, &all, size < sizeof all ? size : sizeof all);
    }
    return (int)status;
}

const char *vae_class(vae *v, size_t k)
{
    struct vae_shape shape;
    if (vae_get_shape(v, &shape, sizeof shape) != VAE_RESULT_OK || k >= shape.classes) {
        return NULL;
    }
    return v->checkpoint->classes.name[k];
}

/* ---- labels ---- */

static void clear_labels(vae *v)
{
    vae_classes_clear(&v->classes);
    free(v->labels);
    v->labels = NULL;
    v->n_labels = 0;
}

/* Labels of that text, places in the order of their names, to the handle. */
static vae_status take_labels(vae *v, vae_labeller *labeller, const char *const *text, size_t n)
{
    char name[VAE_CLASS_NAME];
    vae_status status = VAE_OK;
    v->labels = reallocarray(NULL, n, sizeof *v->labels);
    if (v->labels == NULL) {
        TRY(vae_fail(&v->err, VAE_ERR_RUNTIME, "out of memory: %zu labels", n));
    }
    v->n_labels = n;
    for (size_t i = 0; i < n; i++) {
        v->labels[i] = VAE_NO_LABEL;
        if (text[i] != NULL) {
            const char *fault = vae_class_name(name, text[i]);
            if (fault != NULL) {
                TRY(vae_fail(&v->err, VAE_ERR_DATA, "labels: row %zu: '%.40s' %s", i, text[i],
                             fault));
            }
            TRY(vae_labeller_take(labeller, name, &v->labels[i], &v->err));
        }
    }
    TRY(vae_labeller_finish(labeller, &v->classes, v->labels, n, &v->err));
done:
    return status;
}

int vae_set_labels(vae *v, const char *const *labels, size_t n)
{
    vae_labeller labeller = {.slots = 0};
    vae_status status = VAE_OK;
    forget(v);
    clear_labels(v);
    if (n > 0) {
        TRY(labels != NULL ? VAE_OK : vae_fail(&v->err, VAE_ERR_USAGE, "labels: %zu at NULL", n));
        TRY(take_labels(v, &labeller, labels, n));
    }
done:
    if (status != VAE_OK) {
        clear_labels(v);
    }
    vae_labeller_clear(&labeller);
    return (int)status;
}

/* The set gets a copy of the labels and of their names, which drop_labels frees. */
static vae_status lend_labels(vae *v, vae_dataset *set)
{
    const size_t bytes = v->n_labels * sizeof *v->labels;
    if (v->n_labels != set->n) {
        return vae_fail(&v->err, VAE_ERR_USAGE, "%zu row%s and %zu label%s (vae_set_labels)",
                        set->n, vae_s(set->n), v->n_labels, vae_s(v->n_labels));
    }
    set->labels = malloc(bytes);
    if (set->labels == NULL) {
        return vae_fail_memory(&v->err, bytes, "labels");
    }
    memcpy(set->labels, v->labels, bytes);
    return vae_classes_copy(&set->classes, &v->classes, &v->err);
}

static void drop_labels(vae_dataset *set)
{
    vae_classes_clear(&set->classes);
    free(set->labels);
}

/* ---- use ---- */

/* A model that is ready to compute, opened at the first use. */
static vae_status need_trained(vae *v)
{
    const vae_config *o = &v->options;
    vae_trained *m = &v->trained;
    vae_status status = VAE_OK;
    TRY(need_model(v));
    if (m->model != NULL) {
        return VAE_OK;
    }
    vae_trained_of(m, v->checkpoint);
    m->config.device = o->device;
    m->config.device_index = o->device_index;
    m->config.threads = o->threads;
    if (vae_option_in(&v->given, vae_config_find("seed"))) {
        m->config.seed = o->seed;
    }
    TRY(vae_trained_start(m, VAE_INFER_BATCH, 1, &v->err));
done:
    if (status != VAE_OK) {
        vae_trained_close(m);
    }
    return status;
}

/* The caller's rows as a data set; nothing is copied. */
static vae_status borrow_rows(vae_dataset *set, const void *x, enum vae_type type, size_t n,
                              size_t height, size_t width, size_t channels, vae_error *err)
{
    size_t d, bytes;
    *set = (vae_dataset){.source = "the rows given",
                         .n = n,
                         .height = height,
                         .width = width,
                         .channels = channels,
                         .dtype = (vae_dtype)type,
                         .rows = (void *)(uintptr_t)x}; /* only read */
    if (type != VAE_BYTES && type != VAE_FLOATS && type != VAE_PACKED_BITS) {
        return vae_fail(err, VAE_ERR_USAGE,
                        "type: expected VAE_BYTES, VAE_FLOATS or VAE_PACKED_BITS, found %d",
                        (int)type);
    }
    if (x == NULL || n == 0 || height == 0 || width == 0 || channels == 0 ||
        __builtin_mul_overflow(height, width, &d) || __builtin_mul_overflow(d, channels, &d) ||
        __builtin_mul_overflow(n, d, &bytes) || bytes > SIZE_MAX / 8) {
        return vae_fail(err, VAE_ERR_USAGE, "%zu rows of %zu x %zu x %zu values at %p", n, height,
                        width, channels, x);
    }
    set->d = d;
    return VAE_OK;
}

/* Gives the set a copy of its rows, to be changed in place. */
static vae_status own_rows(vae_dataset *set, float **copy, vae_error *err)
{
    const size_t bytes = set->n * set->d * sizeof **copy;
    if (set->dtype != VAE_F32) {
        return vae_fail(err, VAE_ERR_DATA,
                        "bytes, for a model of standardized columns: give floats");
    }
    *copy = malloc(bytes);
    if (*copy == NULL) {
        return vae_fail_memory(err, bytes, "a copy of the rows");
    }
    set->rows = memcpy(*copy, set->rows, bytes);
    return VAE_OK;
}

/* Rows as the model takes them; *copy is the caller's, and what drop_labels frees. */
static vae_status take_rows(vae *v, vae_dataset *set, float **copy, const void *x,
                            enum vae_type type, size_t n)
{
    vae_status status = VAE_OK;
    TRY(need_trained(v));
    const vae_checkpoint *c = v->checkpoint;
    TRY(borrow_rows(set, x, type, n, c->height, c->width, c->channels, &v->err));
    TRY(vae_dataset_check_range(set, c->config.likelihood, c->config.mean, &v->err));
    if (c->config.condition == VAE_CONDITION_LABELS) {
        TRY(lend_labels(v, set));
        TRY(vae_trained_take_classes(&v->trained, set, &v->err));
    }
    if (c->standard != NULL) {
        TRY(own_rows(set, copy, &v->err));
        TRY(vae_dataset_standardize(set, c->standard, c->standard + set->d, &v->err));
    }
done:
    return status;
}

/* Runs rows through the model; out as vae_trained_run's. */
static vae_status run_rows(vae *v, const void *x, enum vae_type type, size_t n,
                           const vae_batch_out *out)
{
    vae_dataset set = {.n = 0};
    float *copy = NULL;
    vae_status status = VAE_OK;
    TRY(take_rows(v, &set, &copy, x, type, n));
    TRY(vae_trained_run_set(&v->trained, &set, 0, out, &v->err));
done:
    drop_labels(&set);
    free(copy);
    return status;
}

int vae_encode(vae *v, const void *x, enum vae_type type, size_t n, float *mu, float *logvar,
               float *z)
{
    const vae_batch_out out = {.mu = mu, .logvar = logvar, .z = z};
    return (int)run_rows(v, x, type, n, &out);
}

/* label: as in vae_trained_decode. */
static vae_status decode(vae *v, const float *z, const uint32_t *label, size_t n, float *x_hat)
{
    vae_status status = VAE_OK;
    TRY(vae_trained_decode(&v->trained, x_hat, z, label, n, &v->err));
    vae_checkpoint_units(v->checkpoint, x_hat, n);
done:
    return status;
}

/* The same by the labels that were set, if the model has classes. */
static vae_status decode_labels(vae *v, const float *z, size_t n, float *x_hat)
{
    vae_dataset set = {.source = "z", .n = n};
    const vae_checkpoint *c = v->checkpoint;
    vae_status status = VAE_OK;
    if (vae_config_has_classes(&c->config)) {
        TRY(lend_labels(v, &set));
        TRY(vae_dataset_map_classes(&set, &c->classes, &v->err));
        TRY(vae_dataset_check_labels(&set, c->config.classes, true, &v->err));
    }
    TRY(decode(v, z, set.labels, n, x_hat));
done:
    drop_labels(&set);
    return status;
}

int vae_decode(vae *v, const float *z, size_t n, float *x_hat)
{
    vae_status status = VAE_OK;
    TRY(need_trained(v));
    TRY(decode_labels(v, z, n, x_hat));
done:
    return (int)status;
}

static vae_status room_for(vae *v, float **out, size_t n, size_t cols)
{
    size_t floats;
    if (!__builtin_mul_overflow(n, cols, &floats) && floats <= SIZE_MAX / sizeof **out) {
        *out = malloc((floats > 0 ? floats : 1) * sizeof **out);
    }
    return *out != NULL
               ? VAE_OK
               : vae_fail(&v->err, VAE_ERR_RUNTIME, "out of memory: %zu x %zu floats", n, cols);
}

int vae_reconstruct(vae *v, const void *x, enum vae_type type, size_t n, float *x_hat)
{
    float *mu = NULL;
    uint32_t *label = NULL;
    vae_status status = VAE_OK;
    TRY(need_trained(v));
    TRY(room_for(v, &mu, n, v->checkpoint->config.latent));
    if (vae_config_has_classes(&v->checkpoint->config)) {
        label = reallocarray(NULL, n, sizeof *label);
        TRY(label != NULL || n == 0
                ? VAE_OK
                : vae_fail(&v->err, VAE_ERR_RUNTIME, "out of memory: %zu labels", n));
    }
    const vae_batch_out out = {.mu = mu, .label = label};
    TRY(run_rows(v, x, type, n, &out));
    TRY(decode(v, mu, label, n, x_hat));
done:
    free(label);
    free(mu);
    return (int)status;
}

int vae_sample(vae *v, size_t n, float *x_hat, float *z)
{
    float *own = NULL;
    vae_status status = VAE_OK;
    TRY(need_trained(v));
    if (z == NULL) {
        TRY(room_for(v, &own, n, v->checkpoint->config.latent));
        z = own;
    }
    vae_prior_rows(z, v->trained.config.seed, 0, n, v->trained.config.latent, 1);
    TRY(decode_labels(v, z, n, x_hat));
done:
    free(own);
    return (int)status;
}

int vae_score(vae *v, const void *x, enum vae_type type, size_t n, float *negative_elbo,
              float *recon, float *kl)
{
    float *both = NULL;
    vae_status status = VAE_OK;
    TRY(need_model(v));
    if (v->checkpoint->config.semi_supervised) {
        TRY(vae_fail(&v->err, VAE_ERR_USAGE,
                     "a semi-supervised model: its density sums over classes, which no score here "
                     "does"));
    }
    TRY(room_for(v, &both, n, 2));
    const vae_batch_out out = {.recon = both, .kl = both + n};
    TRY(run_rows(v, x, type, n, &out));
    for (size_t i = 0; i < n; i++) {
        if (negative_elbo != NULL) {
            negative_elbo[i] = both[i] + both[n + i];
        }
        if (recon != NULL) {
            recon[i] = both[i];
        }
        if (kl != NULL) {
            kl[i] = both[n + i];
        }
    }
done:
    free(both);
    return (int)status;
}

int vae_classify(vae *v, const void *x, enum vae_type type, size_t n, float *probability)
{
    vae_dataset set = {.n = 0};
    float *copy = NULL;
    vae_status status = VAE_OK;
    TRY(need_model(v));
    if (!v->checkpoint->config.semi_supervised) {
        TRY(vae_fail(&v->err, VAE_ERR_USAGE,
                     "no classifier: the model was not trained semi-supervised"));
    }
    TRY(take_rows(v, &set, &copy, x, type, n));
    TRY(vae_trained_classify(&v->trained, &set, probability, &v->err));
done:
    drop_labels(&set);
    free(copy);
    return (int)status;
}

/* ---- training ---- */

void vae_on_epoch(vae *v, vae_epoch_fn *fn, void *context)
{
    v->on_epoch = fn;
    v->epoch_context = context;
}

void vae_stop(vae *v)
{
    v->stop = 1;
}

static void tell_epoch(void *ctx, const vae_epoch_record *r)
{
    vae *v = ctx;
    const struct vae_epoch epoch = {(unsigned long)r->epoch,
                                    (unsigned long)r->epochs,
                                    r->train.elbo,
                                    r->train.recon,
                                    r->train.kl,
                                    -r->train.bound};
    if (v->on_epoch != NULL && v->on_epoch(v->epoch_context, &epoch) != 0) {
        v->stop = 1;
    }
}

static void tell_note(void *ctx, const char *line)
{
    vae_note(&((vae *)ctx)->notes, "%s", line);
}

static vae_status fit_in_memory(vae *v, vae_config *config, vae_dataset *set)
{
    vae_loop loop = {.now = NULL};
    vae_loop_event event;
    vae_checkpoint *begin = NULL;
    vae_status status = VAE_OK;
    TRY(vae_init_open(&begin, config, set, &v->err));
    TRY(vae_loop_open(&loop, config, set, NULL, begin, NULL, &v->stop, &v->notes, &v->err));
    TRY(vae_loop_begin(&loop, begin, &v->err));
    vae_loop_describe(&loop);
    do {
        TRY(vae_loop_next(&loop, &event, &v->err));
        if (event == VAE_LOOP_EPOCH) {
            tell_epoch(v, &loop.last);
        }
    } while (event < VAE_LOOP_STOPPED);
    TRY(vae_loop_capture(&loop, &v->err));
    if (loop.last.epoch > 0) {
        TRY(vae_train_summarize(loop.now, &loop.last, &v->err));
    }
    if (event == VAE_LOOP_STOPPED) {
        status = vae_fail(&v->err, VAE_ERR_INTERRUPTED,
                          "interrupted in epoch %" PRIu64 ", step %" PRIu64,
                          loop.now->state.epoch + 1, loop.now->state.step);
    }
    free(loop.now->adam_m);
    free(loop.now->adam_v);
    loop.now->adam_m = loop.now->adam_v = NULL;
    take_checkpoint(v, loop.now);
    loop.now = NULL;
done:
    vae_loop_close(&loop);
    vae_checkpoint_free(begin);
    return status;
}

static vae_status fit_in_folder(vae *v, const vae_config *config, vae_dataset *set)
{
    const vae_train_options options = {
        .stop_signal = &v->stop, .events = {.ctx = v, .epoch = tell_epoch, .note = tell_note}};
    char path[VAE_PATH];
    vae_train_result result;
    vae_checkpoint *c;
    vae_error inner = {.notes = &v->notes};
    const vae_status trained = vae_train(config, set, NULL, &options, &result, &v->err);
    if (trained != VAE_OK && trained != VAE_ERR_INTERRUPTED && !result.lost) {
        return trained;
    }
    const vae_status opened = vae_checkpoint_open_run(&c, config->out, false, false, path, &inner);
    if (opened == VAE_OK) {
        take_checkpoint(v, c);
        return trained;
    }
    forget(v); /* that the handle has no such model weighs more than why the training ended */
    return vae_fail(&v->err, opened, "%s", inner.text);
}

/* What a run folder is written by: without one it would be ignored. */
static vae_status refuse_folder_options(vae *v)
{
    static const char *const names[] = {"save-every", "keep", "sample-every", "report",
                                        "tensorboard"};
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) {
        if (vae_option_in(&v->given, vae_config_find(names[i]))) {
            return vae_fail(
                &v->err, VAE_ERR_USAGE,
                "option '%s' has no effect here: it needs \"out\", the run folder to write",
                names[i]);
        }
    }
    return VAE_OK;
}

int vae_fit(vae *v, const void *x, enum vae_type type, size_t n, size_t height, size_t width,
            size_t channels)
{
    vae_dataset set = {.n = 0};
    vae_config config = v->options;
    float *copy = NULL;
    vae_status status = VAE_OK;
    forget(v);
    v->stop = 0;
    TRY(vae_init_options(&config, &config, &v->given, &v->err));
    TRY(borrow_rows(&set, x, type, n, height, width, channels, &v->err));
    TRY(v->labels != NULL ? lend_labels(v, &set) : VAE_OK);
    TRY(vae_config_check(&config, &v->given, &v->err));
    TRY(config.out[0] != '\0' ? VAE_OK : refuse_folder_options(v));
    TRY(vae_dataset_scan(&set, &(vae_data_options){.config = &config}, &v->err));
    if (config.standardize == VAE_STANDARDIZE_COLUMNS) {
        TRY(own_rows(&set, &copy, &v->err));
    }
    TRY(config.out[0] != '\0' ? fit_in_folder(v, &config, &set) : fit_in_memory(v, &config, &set));
done:
    drop_labels(&set);
    free(copy);
    return (int)status;
}
