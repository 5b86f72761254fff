/* Where rows that the decoder made go, batch by batch, by the name of the file: a grid (.png), one
 * PNG a row (a folder), or the rows themselves (.npy, or - for standard output). Memory is that of
 * the picture, or of one row; never that of all rows. */
#ifndef VAE_ROW_SINK_H
#define VAE_ROW_SINK_H

#include <stdbool.h>
#include <stddef.h>

#include "base/status.h"

typedef enum {
    VAE_SINK_NONE = 0, /* no name that means one */
    VAE_SINK_PNG,      /* x.png */
    VAE_SINK_FOLDER,   /* x/, or a folder that is there */
    VAE_SINK_NPY,      /* x.npy, - */
    VAE_SINK_GIF,      /* x.gif: not written here, see vae_gif_write */
} vae_sink_kind;

/* By the name, and by whether it is a folder that is there. VAE_ERR_IO: that cannot be known. */
vae_status vae_sink_kind_of(vae_sink_kind *kind, const char *path, vae_error *err);

typedef struct {
    size_t n;                       /* rows that will be put; >= 1 */
    size_t height, width, channels; /* of one */
    bool wide;                      /* .npy: doubles, as floats would round the rows' values away */
    /* the grid alone: */
    size_t columns; /* rows in a line; 0 = as makes the grid square */
    size_t lines;   /* of the grid for each line of rows: 2 leaves room for a companion of each row;
                       0 = 1 */
    size_t line;    /* which of them holds the rows */
    bool ends;      /* one more column on each side, set apart, for companions */
} vae_sink_spec;

typedef struct vae_row_sink vae_row_sink;

/* VAE_ERR_USAGE where rows of that shape are no pictures: the message says what to do. */
vae_status vae_row_sink_check(const char *path, const vae_sink_spec *spec, vae_error *err);

/* VAE_ERR_USAGE (a shape that cannot be drawn, in .png and folders; a grid too large; a name that
 * means nothing), VAE_ERR_IO, VAE_ERR_RUNTIME. A folder is made where there is none; one that holds
 * pictures of an earlier, larger set is refused (VAE_ERR_USAGE), as tools that read whole folders
 * would mix them. *out is the caller's: vae_row_sink_close. */
vae_status vae_row_sink_open(vae_row_sink **out, const char *path, const vae_sink_spec *spec,
                             vae_error *err);

/* The next n rows, (n, height*width*channels) values. VAE_ERR_IO, VAE_ERR_RUNTIME. */
vae_status vae_row_sink_put(vae_row_sink *sink, const float *rows, size_t n, vae_error *err);

/* The same of doubles, which become floats unless the file is wide: that one takes no others. */
vae_status vae_row_sink_put_doubles(vae_row_sink *sink, const double *rows, size_t n,
                                    vae_error *err);

/* In a grid, draws a companion: of row i in line `line` of its own; or in the line of row i in the
 * first or last column. Elsewhere nothing happens. */
void vae_row_sink_beside(vae_row_sink *sink, size_t i, size_t line, const float *row);
void vae_row_sink_end(vae_row_sink *sink, size_t i, bool last, const float *row);

/* Takes the sink down. keep: all rows are there, the file takes its place; otherwise nothing is
 * left but pictures in a folder. VAE_ERR_IO. */
vae_status vae_row_sink_close(vae_row_sink *sink, bool keep, vae_error *err);
/* The same at the end of what filled it, kept where that went well: returns `status`, or what
 * closing gave. */
vae_status vae_row_sink_done(vae_row_sink *sink, vae_status status, vae_error *err);

#endif
