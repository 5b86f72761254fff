/* What the commands that make pictures share. */
#include "cli/draw.h"

#include <stdlib.h>
#include <string.h>

#include "cli/signals.h"
#include "infer/stack.h"

vae_status draw_begin(drawing *d, const cli_args *args, const char *fallback, bool gif,
                      vae_error *err)
{
    const char *out = cli_value(args, "out");
    vae_status status = VAE_OK;
    d->args = args;
    d->out = out != NULL ? out : fallback;
    if (strlen(d->out) >= VAE_PATH) {
        TRY(vae_fail(err, VAE_ERR_USAGE, "--out: the name is longer than %d bytes", VAE_PATH));
    }
    TRY(vae_sink_kind_of(&d->kind, d->out, err));
    if (d->kind == VAE_SINK_NONE || (d->kind == VAE_SINK_GIF && !gif)) {
        TRY(vae_fail(err, VAE_ERR_USAGE,
                     "%s: expected a name that ends in .png%s, .npy or / (a folder), or -", d->out,
                     gif ? ", .gif" : ""));
    }
    TRY(cli_check_out(args, d->out, err));
    TRY(cli_open_checkpoint(&d->m, args, err));
    d->painter.on = &d->m;
done:
    return status;
}

vae_status draw_open_classes(drawing *d, vae_error *err)
{
    vae_status status = VAE_OK;
    TRY(cli_class(&d->m, d->args, &d->only, err));
    if (d->only >= 0) {
        d->label = (uint32_t)d->only;
        d->painter.one_class = &d->label;
    }
    TRY(vae_stack_below(&d->m, err));
done:
    return status;
}

vae_status draw_need_class(const drawing *d, const char *besides, vae_error *err)
{
    if (!vae_config_has_classes(&d->m.config) || d->only >= 0) {
        return VAE_OK;
    }
    return vae_fail(err, VAE_ERR_USAGE, "%s has classes: name one with --class NAME%s%s", d->m.path,
                    besides != NULL ? ", or by " : "", besides != NULL ? besides : "");
}

vae_status draw_open_model(drawing *d, vae_error *err)
{
    vae_signals_install();
    cli_progress_open(&d->progress, d->args->quiet);
    d->painter.watch = cli_watch(&d->progress, d->args->command->name);
    d->painter.watch.stop_signal = vae_signals_flag();
    return vae_trained_start(&d->m, VAE_INFER_BATCH, 1, err);
}

vae_status draw_open_sink(drawing *d, const vae_sink_spec *spec, vae_error *err)
{
    return vae_row_sink_open(&d->sink, d->out, spec, err);
}

vae_status draw_finish(drawing *d, vae_error *err)
{
    vae_row_sink *sink = d->sink;
    d->sink = NULL;
    return vae_row_sink_close(sink, true, err);
}

void draw_close(drawing *d)
{
    cli_progress_clear(&d->progress);
    vae_row_sink_close(d->sink, false, NULL);
    vae_trained_close(&d->m);
}

vae_status draw_numbers(uint32_t **list, size_t *n, const char *option, const char *text,
                        vae_error *err)
{
    size_t most = 1;
    for (const char *at = text; (at = strchr(at, ',')) != NULL; at++) {
        most++;
    }
    *n = 0;
    *list = malloc(most * sizeof **list);
    if (*list == NULL) {
        return vae_fail_memory(err, most * sizeof **list, "row numbers");
    }
    for (const char *at = text;; at++) {
        char word[24];
        uint64_t value;
        const size_t length = strcspn(at, ",");
        snprintf(word, sizeof word, "%.*s", length < sizeof word ? (int)length : 0, at);
        if (!vae_parse_u64(word, 0, UINT32_MAX - 1, &value)) {
            return vae_fail(err, VAE_ERR_USAGE,
                            "%s: expected numbers from 0 with commas between them, as in 3,1,4; "
                            "found '%s'",
                            option, text);
        }
        (*list)[(*n)++] = (uint32_t)value;
        at += length;
        if (*at == '\0') {
            return VAE_OK;
        }
    }
}

vae_status draw_find_rows(const vae_trained *m, uint32_t *rows, size_t n, const char *option,
                          vae_error *err)
{
    const vae_dataset *set = m->set;
    for (size_t i = 0; i < n; i++) {
        size_t at = set->picked == NULL ? rows[i] : 0;
        while (set->picked != NULL && at < set->n && set->picked[at] != rows[i]) {
            at++;
        }
        if (at >= set->n) {
            return set->picked == NULL
                       ? vae_fail(err, VAE_ERR_USAGE,
                                  "%s: row %u is not there: %s (%s) has rows 0 to %zu", option,
                                  rows[i], set->source, m->split, set->n - 1)
                       : vae_fail(err, VAE_ERR_USAGE,
                                  "%s: row %u is not among the %zu rows of %s (%s), of which the "
                                  "first is %zu",
                                  option, rows[i], set->n, set->source, m->split,
                                  vae_dataset_number(set, 0));
        }
        rows[i] = (uint32_t)at;
    }
    return VAE_OK;
}

void draw_say(drawing *d, size_t n, const char *what, const char *rest, json_t *more)
{
    cli_progress_clear(&d->progress);
    if (!d->args->json) {
        cli_say(d->args, "%s: %zu %s%s%s of %s",
                strcmp(d->out, "-") == 0 ? "standard output" : d->out, n, what, vae_s(n), rest,
                d->m.path);
        json_decref(more);
        return;
    }
    json_t *o = json_pack("{s:i, s:s, s:s, s:I}", "schema", 1, "checkpoint", d->m.path, "out",
                          d->out, "n", (json_int_t)n);
    json_object_update(o, more);
    json_decref(more);
    cli_print_json(o, 9);
}
