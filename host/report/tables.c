/* Tables of a report: options, data, machine. */
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "base/sha256.h"
#include "base/text.h"
#include "report/internal.h"

static void open_table(report *r, const char *title)
{
    vae_text_add(&r->page, "<div class=\"card\"><h3>%s</h3><table>\n", title);
}

static void close_table(report *r)
{
    vae_text_add(&r->page, "</table></div>\n");
}

/* ---- options ---- */

static void put_options(report *r, vae_scope scope, const char *title)
{
    const vae_config *config = &r->about->config;
    vae_config defaults;
    size_t n;
    const vae_option *options = vae_config_options(&n);
    vae_config_defaults(&defaults);
    open_table(r, title);
    for (size_t i = 0; i < n; i++) {
        char value[VAE_PATH], usual[VAE_PATH];
        if (options[i].scope != scope) {
            continue;
        }
        vae_config_get(config, options[i].name, value, sizeof value);
        vae_config_get(&defaults, options[i].name, usual, sizeof usual);
        vae_text_add(&r->page, "<tr%s><th scope=\"row\">%s</th><td>",
                     strcmp(value, usual) != 0 ? " class=\"set\"" : "", options[i].name);
        vae_text_escaped(&r->page, value[0] != '\0' ? value : "–");
        vae_text_add(&r->page, "</td></tr>\n");
    }
    close_table(r);
}

/* ---- run.json ---- */

/* A row with the member `path` of run.json, if it is there. */
static void put_member(report *r, const char *name, const char *path)
{
    char number[32];
    const json_t *value = report_member(r->run, path);
    if (json_is_string(value)) {
        report_row(r, name, json_string_value(value));
    } else if (json_is_number(value)) {
        report_row(r, name, vae_thousands(number, json_number_value(value)));
    }
}

static void put_data(report *r)
{
    const vae_checkpoint *c = r->about;
    char text[96], hex[VAE_SHA256_HEX];
    open_table(r, "Data");
    report_row(r, "source", c->config.data);
    snprintf(text, sizeof text, "%zu × %zu, %zu channel%s (%zu column%s)", c->height, c->width,
             c->channels, vae_s(c->channels), c->d, vae_s(c->d));
    report_row(r, "shape", text);
    vae_sha256_hex(c->data_sha256, hex);
    report_row(r, "training set's SHA-256", hex);
    put_member(r, "rows to train on", "data.train");
    put_member(r, "rows to validate", "data.validation");
    put_member(r, "rows to test", "data.test");
    if (r->has_data) {
        char n[32];
        report_row(r, "shown in this report", r->on->set->source);
        snprintf(text, sizeof text, "%s row%s (%s)", vae_thousands(n, (double)r->latents.n),
                 vae_s(r->latents.n), r->on->split);
        report_row(r, "of it", text);
    }
    close_table(r);
}

static void put_machine(report *r)
{
    char text[64];
    open_table(r, "Machine");
    put_member(r, "device", "device");
    put_member(r, "host", "host.name");
    put_member(r, "CPU", "host.cpu");
    put_member(r, "cores", "host.cores");
    put_member(r, "of them granted", "host.granted");
    put_member(r, "instruction sets", "host.instructions");
    put_member(r, "system", "host.system");
    put_member(r, "its release", "host.release");
    put_member(r, "version", "version");
    put_member(r, "commit", "git");
    put_member(r, "compiler", "compiler");
    put_member(r, "zlib", "libraries.zlib");
    put_member(r, "jansson", "libraries.jansson");
    put_member(r, "started", "started");
    put_member(r, "last written", "updated");
    put_member(r, "status", "status");
    put_member(r, "error", "error");
    report_row(r, "training time", report_duration(text, r->about->state.wall_s));
    const json_t *rss = report_member(r->run, "peak_rss_bytes");
    if (json_is_number(rss)) {
        snprintf(text, sizeof text, "%.1f MB", json_number_value(rss) / 1e6);
        report_row(r, "peak memory of the host", text);
    }
    close_table(r);
    if (r->run == NULL) {
        report_note(r, "There is no run.json beside this checkpoint: device, host and versions "
                       "are not known.");
    }
}

void report_put_tables(report *r)
{
    vae_text_add(&r->page, "<section id=\"details\"><h2>Details</h2>\n<div class=\"tables\">\n");
    put_data(r);
    put_machine(r);
    put_options(r, VAE_SCOPE_MODEL, "Options of the model");
    put_options(r, VAE_SCOPE_TRAINING, "Options of training");
    put_options(r, VAE_SCOPE_DATA, "Options of the data");
    put_options(r, VAE_SCOPE_RUN, "Options of the run");
    vae_text_add(&r->page, "</div>\n<p class=\"fine\">Options in bold are not at their default."
                           "</p></section>\n");
}
