/* Configuration as JSON: config.json, --config files, the checkpoint's section. The text is written
 * by hand so that numbers come out in their shortest lossless form; jansson reads it. */
#include "config/config.h"

#include <inttypes.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/json.h"
#include "base/text.h"

enum { CONFIG_SCHEMA = 1 };

/* ---- writing ---- */

static bool write_text(FILE *out, const char *text)
{
    json_t *string = json_string(text);
    char *quoted = string != NULL ? json_dumps(string, JSON_ENCODE_ANY) : NULL;
    bool ok = quoted != NULL && fputs(quoted, out) >= 0;
    free(quoted);
    json_decref(string);
    return ok;
}

static bool write_option(FILE *out, const vae_config *config, const vae_option *o)
{
    char text[VAE_PATH];
    uint64_t number;
    vae_config_get(config, o->name, text, sizeof text);
    fprintf(out, ",\n  \"%s\": ", o->name);
    switch (o->kind) {
    case VAE_KIND_SIZE:
    case VAE_KIND_REAL:
    case VAE_KIND_ABOVE:
    case VAE_KIND_FLAG:
        return fputs(text, out) >= 0;
    case VAE_KIND_CLASSES: /* as 1073072 wrote and reads it, where it could say it */
        if (text[0] == '\0' ||
            (vae_parse_u64(text, 0, 255, &number) && (text[0] != '0' || text[1] == '\0'))) {
            return fputs(text[0] != '\0' ? text : "-1", out) >= 0;
        }
        return write_text(out, text);
    case VAE_KIND_SIZES:
        return fprintf(out, "[%s]", text) >= 0;
    default:
        return write_text(out, text);
    }
}

char *vae_config_to_json(const vae_config *config)
{
    char *text = NULL;
    size_t size, n;
    const vae_option *options = vae_config_options(&n);
    FILE *out = open_memstream(&text, &size);
    if (out == NULL) {
        return NULL;
    }
    bool ok = fprintf(out, "{\n  \"schema\": %d", CONFIG_SCHEMA) >= 0;
    for (size_t i = 0; i < n && ok; i++) {
        ok = write_option(out, config, &options[i]);
    }
    ok = ok && fputs("\n}\n", out) >= 0;
    if (fclose(out) != 0 || !ok) {
        free(text);
        return NULL;
    }
    return text;
}

/* ---- reading ---- */

/* "400,200" from [400, 200]. */
static bool sizes_to_text(const json_t *array, char *text, size_t size)
{
    size_t used = 0;
    text[0] = '\0';
    for (size_t i = 0; i < json_array_size(array); i++) {
        const json_t *item = json_array_get(array, i);
        if (!json_is_integer(item)) {
            return false;
        }
        int n = snprintf(text + used, size - used, "%s%" JSON_INTEGER_FORMAT, i > 0 ? "," : "",
                         json_integer_value(item));
        if (n < 0 || (size_t)n >= size - used) {
            return false;
        }
        used += (size_t)n;
    }
    return true;
}

/* A JSON value as the text vae_config_set takes. False if its type does not fit the option. */
static bool value_to_text(const vae_option *o, const json_t *value, char *text, size_t size)
{
    const bool real = o->kind == VAE_KIND_REAL || o->kind == VAE_KIND_ABOVE;
    const bool whole = o->kind == VAE_KIND_SIZE || o->kind == VAE_KIND_U64;
    if (json_is_string(value)) {
        const char *string = json_string_value(value);
        bool fits = !real && o->kind != VAE_KIND_SIZE && o->kind != VAE_KIND_FLAG &&
                    strlen(string) == json_string_length(value);
        return fits && snprintf(text, size, "%s", string) < (int)size;
    }
    if (json_is_integer(value) && (whole || real || o->kind == VAE_KIND_SIZES)) {
        snprintf(text, size, "%" JSON_INTEGER_FORMAT, json_integer_value(value));
        return true;
    }
    if (json_is_integer(value) && o->kind == VAE_KIND_CLASSES) {
        const json_int_t label = json_integer_value(value); /* until 1073072 it was a number */
        text[0] = '\0';
        if (label != -1) {
            snprintf(text, size, "%" JSON_INTEGER_FORMAT, label);
        }
        return true;
    }
    if (json_is_real(value) && real) {
        vae_format_real(json_real_value(value), text, size);
        return true;
    }
    if (json_is_boolean(value) && o->kind == VAE_KIND_FLAG) {
        snprintf(text, size, "%s", json_is_true(value) ? "true" : "false");
        return true;
    }
    return json_is_array(value) && o->kind == VAE_KIND_SIZES && sizes_to_text(value, text, size);
}

static const char *type_wanted(vae_kind kind)
{
    switch (kind) {
    case VAE_KIND_SIZE:
        return "a whole number";
    case VAE_KIND_CLASSES:
        return "a string of names of classes, or a whole number";
    case VAE_KIND_U64:
        return "a whole number, or one in a string";
    case VAE_KIND_REAL:
    case VAE_KIND_ABOVE:
        return "a number";
    case VAE_KIND_SIZES:
        return "an array of whole numbers";
    case VAE_KIND_FLAG:
        return "true or false";
    default:
        return "a string";
    }
}

static vae_status set_from_json(vae_config *config, const char *key, const json_t *value,
                                const char *source, vae_error *err)
{
    char text[2 * VAE_PATH];
    size_t n, i = vae_config_find(key);
    const vae_option *options = vae_config_options(&n);
    if (i != SIZE_MAX && !value_to_text(&options[i], value, text, sizeof text)) {
        return vae_fail(err, VAE_ERR_USAGE, "%s: %s: expected %s", source, key,
                        type_wanted(options[i].kind));
    }
    vae_error inner = {0};
    if (vae_config_set(config, key, i == SIZE_MAX ? "" : text, &inner) != VAE_OK) {
        return vae_fail(err, VAE_ERR_USAGE, "%s: %.900s", source, inner.text);
    }
    return VAE_OK;
}

vae_status vae_config_from_json(vae_config *config, const char *text, const char *source,
                                vae_error *err)
{
    json_error_t at;
    vae_status status = VAE_OK;
    vae_config changed = *config; /* all or nothing */
    /* editors on Windows put a byte order mark in front */
    text += strncmp(text, "\xef\xbb\xbf", 3) == 0 ? 3 : 0;
    json_t *object;
    const size_t flags = JSON_REJECT_DUPLICATES | JSON_DECODE_ANY;
    const vae_status parsed = vae_json_read(&object, text, strlen(text), flags, &at);
    if (parsed == VAE_ERR_RUNTIME) {
        TRY(vae_fail(err, VAE_ERR_RUNTIME, "%s: out of memory", source));
    }
    if (parsed != VAE_OK) {
        TRY(vae_fail(err, VAE_ERR_USAGE, "%s: line %d: not JSON: %s", source, at.line, at.text));
    }
    if (!json_is_object(object)) {
        TRY(vae_fail(err, VAE_ERR_USAGE, "%s: expected an object of options and values", source));
    }
    const char *key;
    bool optimal = false;
    json_t *value = json_object_get(object, "preset");
    if (value != NULL) { /* wherever it stands: the others go over it */
        TRY(set_from_json(&changed, "preset", value, source, err));
    }
    json_object_foreach(object, key, value)
    {
        if (strcmp(key, "preset") == 0) {
            continue;
        }
        if (strcmp(key, "optimal-variance") == 0 && json_is_number(value)) {
            optimal = json_number_value(value) > 0; /* its name from 0ffd4b8 to b1063b0 */
            continue;
        }
        if (strcmp(key, "schema") != 0) {
            TRY(set_from_json(&changed, key, value, source, err));
        } else if (!json_is_integer(value) || json_integer_value(value) != CONFIG_SCHEMA) {
            TRY(vae_fail(err, VAE_ERR_USAGE, "%s: schema: this vae reads %d", source,
                         CONFIG_SCHEMA));
        }
    }
    if (json_object_get(object, "schema") != NULL && json_object_get(object, "exif") == NULL) {
        changed.exif = VAE_EXIF_IGNORE; /* what all versions did that had no such option */
    }
    if (optimal) {
        TRY(vae_config_set(&changed, "likelihood", "gaussian-optimal", err));
    }
    *config = changed;
done:
    json_decref(object);
    return status;
}
