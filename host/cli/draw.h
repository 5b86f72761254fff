/* What the commands that make pictures share: the name of the output, lists of rows, the painter
 * with its progress line, what is printed. */
#ifndef VAE_CLI_DRAW_H
#define VAE_CLI_DRAW_H

#include "cli/cli.h"
#include "cli/progress.h"
#include "infer/paint.h"

/* A command that draws, under way. Zero-initialize; draw_close in any case. */
typedef struct {
    vae_trained m;
    const cli_args *args;
    const char *out;
    vae_sink_kind kind;
    vae_painter painter;
    cli_progress progress;
    vae_row_sink *sink;
    int only;       /* --class, or -1 */
    uint32_t label; /* the same, painter.one_class */
} drawing;

/* --out, or `fallback`; gif: may it be one? Then RUN's checkpoint. */
vae_status draw_begin(drawing *d, const cli_args *args, const char *fallback, bool gif,
                      vae_error *err);
/* Of a model with classes, --class; of a stacked one, the run below. For commands that decode. */
vae_status draw_open_classes(drawing *d, vae_error *err);
/* Refuses a model with classes for which no class was named; `besides`: what would have named one
 * besides --class, or NULL. */
vae_status draw_need_class(const drawing *d, const char *besides, vae_error *err);
/* Backend and model; the painter. From here on Ctrl-C ends it in order. */
vae_status draw_open_model(drawing *d, vae_error *err);
/* The sink, early: what cannot be written is refused before time is spent. */
vae_status draw_open_sink(drawing *d, const vae_sink_spec *spec, vae_error *err);
/* All rows are drawn: puts the file in its place. */
vae_status draw_finish(drawing *d, vae_error *err);
void draw_close(drawing *d);

/* A list of row numbers, "3,1,4"; *list is malloc'ed. What counts as too large is for later:
 * draw_find_rows names the set. VAE_ERR_USAGE. */
vae_status draw_numbers(uint32_t **list, size_t *n, const char *option, const char *text,
                        vae_error *err);
/* Numbers of rows to where these are in m->set, in place: the same, unless only some of what was
 * read is there. VAE_ERR_USAGE for one that is not there. */
vae_status draw_find_rows(const vae_trained *m, uint32_t *rows, size_t n, const char *option,
                          vae_error *err);

/* What was made: a line on stderr, or with --json an object that has the keys of `more`, which is
 * taken over and may be NULL, too. */
void draw_say(drawing *d, size_t n, const char *what, const char *rest, json_t *more);

#endif
