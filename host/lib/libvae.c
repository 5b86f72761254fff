/* The library's interface: vae.h over the checkpoint, the runner and the trainer. */
#include "vae.h"

#include <ftw.h>
#include <math.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "backend/open.h"
#include "base/text.h"
#include "base/version.h"
#include "exchange/exchange.h"
#include "exchange/import_weights.h"
#include "infer/trained.h"
#include "run/folder.h"
#include "stats/latent_walk.h"
#include "train/run.h"

_Static_assert((int)VAE_RESULT_INTERRUPTED == (int)VAE_ERR_INTERRUPTED, "the same numbers");
_Static_assert((int)VAE_BYTES == (int)VAE_U8 && (int)VAE_FLOATS == (int)VAE_F32 &&
                   (int)VAE_PACKED_BITS == (int)VAE_BITS,
               "the same types");

struct vae {
    vae_error err;
    vae_config options; /* device, threads, seed */
    bool seed_given;
    vae_checkpoint *checkpoint; /* NULL: no model */
    vae_trained trained;        /* of it; started if trained.model is there */
    vae_epoch_fn *on_epoch;
    void *context;
    vae_stop_flag stop;
};

const char *vae_version(void)
{
    return vae_build_version;
}

vae *vae_new(void)
{
    vae *v = calloc(1, sizeof *v);
    if (v != NULL) {
        vae_config_defaults(&v->options);
    }
    return v;
}

void vae_free(vae *v)
{
    if (v != NULL) {
        vae_trained_close(&v->trained);
        vae_checkpoint_free(v->checkpoint);
        free(v);
    }
}

const char *vae_message(const vae *v)
{
    return v->err.text;
}

int vae_set_option(vae *v, const char *name, const char *value)
{
    v->err = (vae_error){0};
    const bool seed = strcmp(name, "seed") == 0;
    if (!seed && strcmp(name, "device") != 0 && strcmp(name, "threads") != 0) {
        return (int)vae_fail(&v->err, VAE_ERR_USAGE,
                             "option '%s': expected device, threads or seed; options of training "
                             "go to vae_fit",
                             name);
    }
    vae_status status = vae_config_set(&v->options, name, value, &v->err);
    v->seed_given = v->seed_given || (seed && status == VAE_OK);
    vae_trained_close(&v->trained);
    return (int)status;
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
    static const vae_import_options options;
    char found[VAE_PATH];
    vae_checkpoint *c;
    v->err = (vae_error){0};
    vae_status status = vae_weights_is_file(path)
                            ? vae_import(&c, path, &options, &v->err)
                            : vae_checkpoint_open_run(&c, path, false, false, found, &v->err);
    if (status == VAE_OK && (vae_config_has_classes(&c->config) || c->config.stack[0] != '\0')) {
        vae_checkpoint_free(c);
        status = vae_fail(&v->err, VAE_ERR_USAGE,
                          "%s: a conditional, semi-supervised or stacked model, which this library "
                          "does not run; the program vae does",
                          path);
    } else if (status == VAE_OK) {
        take_checkpoint(v, c);
    }
    return (int)status;
}

static vae_status need_model(vae *v)
{
    v->err = (vae_error){0};
    return v->checkpoint != NULL
               ? VAE_OK
               : vae_fail(&v->err, VAE_ERR_USAGE, "no model: vae_load or vae_fit comes first");
}

int vae_save(vae *v, const char *path)
{
    vae_status status = need_model(v);
    if (status != VAE_OK) {
        return (int)status;
    }
    status = vae_ends_with(path, ".safetensors")
                 ? vae_export_safetensors(path, v->checkpoint, &v->err)
             : vae_ends_with(path, ".npz") ? vae_export_npz(path, v->checkpoint, &v->err)
                                           : vae_checkpoint_write(path, v->checkpoint, &v->err);
    return (int)status;
}

int vae_get_shape(vae *v, struct vae_shape *shape)
{
    vae_status status = need_model(v);
    if (status == VAE_OK) {
        const vae_checkpoint *c = v->checkpoint;
        *shape = (struct vae_shape){c->d,        c->height,        c->width,
                                    c->channels, c->config.latent, c->n_params};
    }
    return (int)status;
}

/* ---- use ---- */

/* A model that is ready to compute, opened at the first use. */
static vae_status need_runner(vae *v)
{
    vae_status status = need_model(v);
    if (status != VAE_OK || v->trained.model != NULL) {
        return status;
    }
    const vae_config *o = &v->options;
    vae_trained_of(&v->trained, v->checkpoint);
    v->trained.config.device = o->device;
    v->trained.config.device_index = o->device_index;
    v->trained.config.threads = o->threads;
    v->trained.config.seed = v->seed_given ? o->seed : v->trained.config.seed;
    status = vae_trained_start(&v->trained, VAE_INFER_BATCH, 1, &v->err);
    if (status != VAE_OK) {
        vae_trained_close(&v->trained);
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

/* Runs rows through the model; out as vae_trained_run's. */
static vae_status run_rows(vae *v, const void *x, enum vae_type type, size_t n,
                           const vae_batch_out *out)
{
    vae_dataset set = {.n = 0};
    vae_status status = need_runner(v);
    if (status == VAE_OK) {
        status = borrow_rows(&set, x, type, n, v->checkpoint->height, v->checkpoint->width,
                             v->checkpoint->channels, &v->err);
    }
    if (status == VAE_OK) {
        status = vae_dataset_check_range(&set, v->checkpoint->config.likelihood, &v->err);
    }
    float *copy = NULL;
    const float *standard = status == VAE_OK ? v->checkpoint->standard : NULL;
    if (standard != NULL && (status = own_rows(&set, &copy, &v->err)) == VAE_OK) {
        status = vae_dataset_standardize(&set, standard, standard + set.d, &v->err);
    }
    if (status == VAE_OK) {
        status = vae_trained_run_set(&v->trained, &set, 0, out, &v->err);
    }
    free(copy);
    return status;
}

int vae_encode(vae *v, const void *x, enum vae_type type, size_t n, float *mu, float *logvar,
               float *z)
{
    const vae_batch_out out = {.mu = mu, .logvar = logvar, .z = z};
    return (int)run_rows(v, x, type, n, &out);
}

int vae_decode(vae *v, const float *z, size_t n, float *x_hat)
{
    vae_status status = need_runner(v);
    if (status == VAE_OK &&
        (status = vae_trained_decode(&v->trained, x_hat, z, NULL, n, &v->err)) == VAE_OK) {
        vae_checkpoint_units(v->checkpoint, x_hat, n);
    }
    return (int)status;
}

static float *room_for(vae *v, size_t n, size_t cols)
{
    size_t floats;
    float *p = __builtin_mul_overflow(n, cols, &floats) || floats > SIZE_MAX / sizeof(float)
                   ? NULL
                   : malloc((floats > 0 ? floats : 1) * sizeof *p);
    if (p == NULL) {
        vae_fail(&v->err, VAE_ERR_RUNTIME, "out of memory: %zu x %zu floats", n, cols);
    }
    return p;
}

int vae_reconstruct(vae *v, const void *x, enum vae_type type, size_t n, float *x_hat)
{
    vae_status status = need_runner(v);
    if (status != VAE_OK) {
        return (int)status;
    }
    float *mu = room_for(v, n, v->checkpoint->config.latent);
    if (mu == NULL) {
        return (int)v->err.status;
    }
    status = (vae_status)vae_encode(v, x, type, n, mu, NULL, NULL);
    status = status == VAE_OK ? (vae_status)vae_decode(v, mu, n, x_hat) : status;
    free(mu);
    return (int)status;
}

int vae_sample(vae *v, size_t n, float *x_hat, float *z)
{
    vae_status status = need_runner(v);
    float *drawn = z;
    if (status == VAE_OK && z == NULL &&
        (drawn = room_for(v, n, v->checkpoint->config.latent)) == NULL) {
        status = v->err.status;
    }
    if (status == VAE_OK) {
        vae_prior_rows(drawn, v->trained.config.seed, 0, n, v->trained.config.latent, 1);
        status = (vae_status)vae_decode(v, drawn, n, x_hat);
    }
    if (drawn != z) {
        free(drawn);
    }
    return (int)status;
}

int vae_score(vae *v, const void *x, enum vae_type type, size_t n, float *negative_elbo,
              float *recon, float *kl)
{
    vae_status status = need_model(v);
    if (status != VAE_OK) {
        return (int)status;
    }
    float *both = room_for(v, n, 2);
    if (both == NULL) {
        return (int)v->err.status;
    }
    const vae_batch_out out = {.recon = both, .kl = both + n};
    status = run_rows(v, x, type, n, &out);
    for (size_t i = 0; status == VAE_OK && i < n; i++) {
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
    free(both);
    return (int)status;
}

/* ---- training ---- */

void vae_on_epoch(vae *v, vae_epoch_fn *fn, void *context)
{
    v->on_epoch = fn;
    v->context = context;
}

void vae_stop(vae *v)
{
    v->stop = 1;
}

static void tell_epoch(void *ctx, const vae_epoch_record *report)
{
    const vae *v = ctx;
    v->on_epoch(v->context, (unsigned long)report->epoch, (unsigned long)report->epochs,
                report->train.elbo, report->train.recon, report->train.kl);
}

static int remove_entry(const char *path, const struct stat *info, int type, struct FTW *ftw)
{
    (void)info;
    (void)type;
    (void)ftw;
    return remove(path);
}

/* The options of a fit: the JSON's over the handle's over the defaults. *temporary: the run folder
 * is to be removed. */
static vae_status fit_config(vae *v, vae_config *config, const char *options, bool *temporary)
{
    *config = v->options;
    vae_status status = VAE_OK;
    snprintf(config->data, sizeof config->data, "(memory)");
    if (options != NULL) {
        status = vae_config_from_json(config, options, "options", &v->err);
    }
    if (status == VAE_OK) {
        status = vae_config_check(config, 0, &v->err);
    }
    *temporary = status == VAE_OK && config->out[0] == '\0';
    if (*temporary) {
        const char *base = getenv("TMPDIR");
        config->sample_every = 0;
        config->report = false;
        snprintf(config->out, sizeof config->out, "%.400s/libvae-XXXXXX",
                 base != NULL && base[0] != '\0' ? base : "/tmp");
        if (mkdtemp(config->out) == NULL) {
            *temporary = false;
            status = vae_fail(&v->err, VAE_ERR_IO, "%s: cannot make a folder", config->out);
        }
    }
    return status;
}

int vae_fit(vae *v, const void *x, enum vae_type type, size_t n, size_t height, size_t width,
            size_t channels, const char *options)
{
    vae_config config;
    vae_dataset set;
    vae_checkpoint *c = NULL;
    bool temporary = false;
    v->err = (vae_error){0};
    v->stop = 0;
    vae_status status = borrow_rows(&set, x, type, n, height, width, channels, &v->err);
    if (status == VAE_OK) {
        status = fit_config(v, &config, options, &temporary);
    }
    float *copy = NULL;
    if (status == VAE_OK) {
        status = vae_dataset_hash(&set, &v->err);
    }
    if (status == VAE_OK) {
        status =
            config.standardize == VAE_STANDARDIZE_COLUMNS ? own_rows(&set, &copy, &v->err) : VAE_OK;
    }
    if (status == VAE_OK) {
        const vae_train_options trainer = {
            .force = temporary,
            .stop_signal = &v->stop,
            .events = {.ctx = v, .epoch = v->on_epoch != NULL ? tell_epoch : NULL}};
        vae_train_result result = {0};
        char found[VAE_PATH];
        status = vae_train(&config, &set, NULL, &trainer, &result, &v->err);
        if (status == VAE_OK) {
            status = vae_checkpoint_open_run(&c, config.out, false, false, found, &v->err);
        }
    }
    if (status == VAE_OK) {
        take_checkpoint(v, c);
    }
    free(copy);
    if (temporary) {
        if (c != NULL) {
            c->config.out[0] = '\0';
        }
        nftw(config.out, remove_entry, 16, FTW_DEPTH | FTW_PHYS);
    }
    return (int)status;
}
