/* What every export shares: the tensors' names and the metadata. */
#include <jansson.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/json.h"
#include "base/sha256.h"
#include "base/text.h"
#include "base/version.h"
#include "exchange/exchange.h"
#include "vae_math.h"

/* ---- names ---- */

static size_t head_of(const param_layout *layout)
{
    return layout->n_encoder - 1;
}

static size_t output_of(const param_layout *layout)
{
    return layout->n_encoder + layout->n_decoder - 1;
}

/* The head, and the output of a learned variance, hold two layers; a convolution has channels of
 * both. */
static bool is_double(const param_layout *layout, size_t l)
{
    return l == head_of(layout) || (l == output_of(layout) && !layout->layers[l].is_conv &&
                                    layout->layers[l].out == 2 * layout->d);
}

void vae_export_layer_name(const param_layout *layout, size_t l, size_t half,
                           char name[VAE_EXPORT_NAME])
{
    const size_t n_vae = layout->n_encoder + layout->n_decoder;
    /* a conditional model's inputs are wider than those pytorch/examples' VAE has */
    const bool torch =
        layout->n_encoder == 2 && layout->n_decoder == 2 && layout->c == 0 && layout->n_conv == 0;
    static const char *const heads[2][2] = {{"mu", "logvar"}, {"fc21", "fc22"}};
    static const char *const outputs[2][2] = {{"output_mean", "output_logvar"}, {"fc41", "fc42"}};
    const char *fixed = NULL;
    if (l == head_of(layout)) {
        fixed = heads[torch][half];
    } else if (l == output_of(layout) && is_double(layout, l)) {
        fixed = outputs[torch][half];
    } else if (l == output_of(layout)) {
        fixed = torch ? "fc4" : "output";
    } else if (torch) {
        fixed = l == 0 ? "fc1" : "fc3";
    }
    if (fixed != NULL) {
        snprintf(name, VAE_EXPORT_NAME, "%s", fixed);
    } else if (l < layout->n_encoder) {
        snprintf(name, VAE_EXPORT_NAME, "encoder.%zu", l);
    } else if (l < n_vae) {
        snprintf(name, VAE_EXPORT_NAME, "decoder.%zu", l - layout->n_encoder);
    } else {
        snprintf(name, VAE_EXPORT_NAME, "classifier.%zu", l - n_vae);
    }
}

size_t vae_export_tensors(const param_layout *layout, vae_named_tensor tensors[VAE_EXPORT_TENSORS])
{
    size_t n = 0, offset = 0;
    for (size_t l = 0; l < layout->n / 2; l++) {
        const size_t halves = is_double(layout, l) ? 2 : 1;
        const tensor_desc *weight = &layout->tensors[2 * l];
        /* of a convolution: (c, patch), whose bias may be of the other side */
        const size_t in = weight->cols, out = weight->rows / halves;
        const size_t n_bias = layout->tensors[2 * l + 1].cols / halves;
        for (size_t half = 0; half < halves; half++) {
            char layer[VAE_EXPORT_NAME];
            vae_export_layer_name(layout, l, half, layer);
            vae_named_tensor *w = &tensors[n++], *b = &tensors[n++];
            *w = (vae_named_tensor){
                .ndim = 2, .shape = {out, in}, .offset = offset + half * out * in, .n = out * in};
            *b = (vae_named_tensor){.ndim = 1,
                                    .shape = {n_bias, 0},
                                    .offset = offset + halves * out * in + half * n_bias,
                                    .n = n_bias};
            if (layout->layers[l].is_conv) {
                const vae_conv g = layout->layers[l].conv;
                w->ndim = 4;
                w->shape[1] = g.parts * g.C;
                w->shape[2] = w->shape[3] = g.kernel;
            }
            snprintf(w->name, sizeof w->name, "%.30s.weight", layer);
            snprintf(b->name, sizeof b->name, "%.30s.bias", layer);
        }
        offset += halves * (out * in + n_bias);
    }
    return n;
}

/* ---- metadata ---- */

/* Adds key = value (malloc'ed, taken over). A NULL value is a failure that the end notices. */
static void add(vae_metadata *m, const char *key, char *value)
{
    m->pairs[m->n].key = key;
    m->pairs[m->n++].value = value;
}

static void add_option(vae_metadata *m, const char *key, const vae_config *config)
{
    char text[VAE_PATH];
    vae_config_get(config, key, text, sizeof text);
    add(m, key, strdup(text));
}

/* Without its line breaks: readers show metadata in a line. NULL if it is not UTF-8. */
static char *compact(char *text, size_t flags)
{
    json_t *value = NULL;
    if (text != NULL) {
        vae_json_read(&value, text, strlen(text), 0, NULL);
    }
    char *out = value != NULL ? json_dumps(value, JSON_COMPACT | flags) : NULL;
    json_decref(value);
    return out;
}

static char *data_shape(const vae_checkpoint *c)
{
    char text[80];
    snprintf(text, sizeof text, "[%zu,%zu,%zu]", c->height, c->width, c->channels);
    return strdup(text);
}

/* n numbers as a JSON array, each as short as reads back alike; NULL: out of memory. */
static char *numbers_text(const double *values, size_t n)
{
    char *text = NULL, number[40];
    size_t size;
    FILE *out = open_memstream(&text, &size);
    if (out == NULL) {
        return NULL;
    }
    for (size_t i = 0; i < n; i++) {
        vae_format_real(values[i], number, sizeof number);
        fprintf(out, "%c%s", i == 0 ? '[' : ',', number);
    }
    fputc(']', out);
    if (ferror(out) != 0 || fclose(out) != 0) {
        free(text);
        return NULL;
    }
    return text;
}

static char *counts_text(const uint64_t *counts, size_t n)
{
    json_t *array = json_array();
    bool good = array != NULL;
    for (size_t i = 0; good && i < n; i++) {
        good = json_array_append_new(array, json_integer((json_int_t)counts[i])) == 0;
    }
    char *text = good ? json_dumps(array, JSON_COMPACT) : NULL;
    json_decref(array);
    return text;
}

/* The names of a table's columns as a JSON array; NULL if they are not UTF-8, or no memory. */
static char *names_text(const char *names, size_t n)
{
    json_t *array = json_array();
    bool good = array != NULL;
    for (size_t i = 0; good && i < n; i++, names += strlen(names) + 1) {
        good = json_array_append_new(array, json_string(names)) == 0;
    }
    char *text = good ? json_dumps(array, JSON_COMPACT) : NULL;
    json_decref(array);
    return text;
}

static char *training(const vae_checkpoint *c)
{
    const vae_train_state *s = &c->state;
    json_t *summary = NULL;
    const bool starved =
        c->summary[0] != '\0' &&
        vae_json_read(&summary, c->summary, strlen(c->summary), 0, NULL) == VAE_ERR_RUNTIME;
    json_t *object = json_pack("{s:I, s:I, s:b}", "step", (json_int_t)s->step, "epoch",
                               (json_int_t)s->epoch, "finished", (int)s->finished);
    bool good = object != NULL && !starved;
    if (isfinite(s->best)) {
        good = json_object_set_new(object, "best", json_real(s->best)) == 0 && good;
    }
    if (isfinite(s->wall_s)) {
        good = json_object_set_new(object, "wall_s", json_real(s->wall_s)) == 0 && good;
    }
    if (summary != NULL) {
        good = json_object_set_new(object, "summary", summary) == 0 && good;
    }
    char *text = good ? json_dumps(object, JSON_COMPACT | JSON_REAL_PRECISION(9)) : NULL;
    json_decref(object);
    return text;
}

vae_status vae_metadata_build(vae_metadata *metadata, const vae_checkpoint *checkpoint,
                              vae_error *err)
{
    static const uint8_t unknown[sizeof checkpoint->data_sha256];
    const vae_config *config = &checkpoint->config;
    vae_metadata *m = metadata;
    *m = (vae_metadata){0};
    char *json = vae_config_to_json(config);
    add(m, "vae_schema", strdup("1"));
    add(m, "vae_version", strdup(vae_build_version));
    add(m, "config", compact(json, JSON_REAL_PRECISION(17)));
    free(json);
    add_option(m, "likelihood", config);
    add_option(m, "mean", config);
    add_option(m, "activation", config);
    add(m, "parameterization", strdup("logvar = log sigma^2"));
    if (vae_likelihood_of(config->likelihood)->outputs == 2) {
        char text[80];
        snprintf(text, sizeof text, "logvar = %g + softplus(raw + %g)", (double)VAE_LOGVAR_MIN,
                 -(double)VAE_LOGVAR_MIN);
        add(m, "output_logvar", strdup(text));
    }
    add(m, "data_shape", data_shape(checkpoint));
    if (memcmp(checkpoint->data_sha256, unknown, sizeof unknown) != 0) {
        char hex[VAE_SHA256_HEX];
        vae_sha256_hex(checkpoint->data_sha256, hex);
        add(m, "data_sha256", strdup(hex));
    }
    if (checkpoint->standard != NULL) { /* the model's x is (data - data_shift) / data_scale */
        add(m, "data_shift", numbers_text(checkpoint->standard, checkpoint->d));
        add(m, "data_scale", numbers_text(checkpoint->standard + checkpoint->d, checkpoint->d));
    }
    if (checkpoint->columns != NULL) {
        add(m, "columns", names_text(checkpoint->columns, checkpoint->d));
    }
    if (checkpoint->classes_known) { /* of the labels, in the order of the one-hot y */
        const char *const *list = (const char *const *)checkpoint->classes.name;
        char *names = vae_join_names(list, checkpoint->classes.n);
        add(m, "classes", names != NULL ? names_text(names, checkpoint->classes.n) : NULL);
        free(names);
    }
    if (checkpoint->classes_known && checkpoint->class_rows != NULL) {
        add(m, "class_rows", counts_text(checkpoint->class_rows, checkpoint->classes.n));
    }
    add(m, "training", training(checkpoint));
    for (size_t i = 0; i < m->n; i++) {
        if (m->pairs[i].value == NULL) {
            const char *key = m->pairs[i].key;
            vae_metadata_clear(m);
            return vae_fail(err, VAE_ERR_RUNTIME,
                            "cannot put together the metadata '%s': out of memory, or text that is "
                            "not UTF-8",
                            key);
        }
    }
    return VAE_OK;
}

void vae_metadata_clear(vae_metadata *metadata)
{
    for (size_t i = 0; i < metadata->n; i++) {
        free(metadata->pairs[i].value);
    }
    *metadata = (vae_metadata){0};
}
