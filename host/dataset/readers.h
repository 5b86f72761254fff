/* The readers of data sets, of which vae_dataset_open chooses one, and what they share. A new
 * format is a file with its vae_reader, and a place in open.c's list. */
#ifndef VAE_READERS_H
#define VAE_READERS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/status.h"
#include "base/stream.h"
#include "dataset/dataset.h"
#include "format/npy.h"

/* ---- readers ---- */

typedef enum { VAE_SOURCE_BUILT_IN, VAE_SOURCE_FILE, VAE_SOURCE_FOLDER } vae_source;

enum { VAE_READER_ENDINGS = 4 };

/* All there is to know of a way to hold data. */
typedef struct {
    const char *name; /* "digits", what the user says; "NPY", of the files it reads */
    vae_source source;
    vae_data_kind kind;
    const char *endings[VAE_READER_ENDINGS]; /* of a file's name, whatever their case; or NULL */
    const uint8_t *magic;       /* 2 bytes a file begins with; NULL: it is known by its ending */
    uint8_t more_magic;         /* the second may be greater by up to this */
    const uint8_t *other_magic; /* 2 others that do as well, or NULL */
    const char *const *options; /* of the config that no other kind of data takes, NULL behind the
                                 * last; or NULL */
    /* *has: does the file or folder hold a part of that split? May be NULL for a built-in set or a
     * file: there is no test split. That it cannot be known is an error, never "no". */
    vae_status (*has)(bool *has, const char *name, vae_split split, vae_error *err);
    /* Either fills an empty set, but for source, kind and sha256; load_stream from a
     * file's beginning. options->config is there. */
    vae_status (*load)(vae_dataset *set, const char *name, vae_split split,
                       const vae_data_options *options, vae_error *err);
    vae_status (*load_stream)(vae_dataset *set, vae_stream *s, const vae_data_options *options,
                              vae_error *err);
} vae_reader;

extern const vae_reader vae_digits_reader, vae_sprites_reader;
extern const vae_reader vae_npy_reader, vae_npz_reader, vae_csv_reader, vae_idx_file_reader;
extern const vae_reader vae_idx_folder_reader, vae_pictures_reader;
extern const vae_reader vae_png_reader, vae_jpeg_reader, vae_pnm_reader;
extern const vae_reader vae_bmp_reader, vae_webp_reader, vae_tiff_reader;

/* ---- what all sets get ---- */

/* Where a boolean is to be and there is another byte. */
vae_status vae_fail_boolean(vae_error *err, const char *name, size_t row, size_t column,
                            uint8_t found);

/* Sums of columns, of rows that come one after another. Zero-initialize; vae_sums_close in any
 * case. Those of bytes and bits are whole numbers, and exact. */
typedef struct {
    vae_dtype dtype;
    size_t d, few_rows; /* columns; rows in `few` */
    bool threshold;     /* values >= 1/2 are counted (of bytes 255 times); else values are added */
    double *sum;        /* (d) */
    void *few;          /* what is not yet in sum: counters of columns, as mean.c has them */
} vae_sums;

/* VAE_ERR_RUNTIME (memory). */
vae_status vae_sums_begin(vae_sums *s, const vae_dataset *set, bool threshold, vae_error *err);
/* n more rows: where vae_dataset_row gives them, `stride` bytes apart. */
void vae_sums_add(vae_sums *s, const void *rows, size_t n, size_t stride);
/* Makes s->sum the sums of all rows so far. */
void vae_sums_settle(vae_sums *s);
void vae_sums_close(vae_sums *s);

/* ---- doubles on their way to floats ---- */

/* A reader that finds doubles brings them to its set through this, row after row. Zero-initialize;
 * vae_narrow_close in any case. */
typedef struct {
    size_t d, n;     /* columns; values so far */
    double *extreme; /* (3,d): least value, greatest, largest rounding of each column */
    bool keep;
    double *wide; /* (n), if they are kept */
    size_t room;
} vae_narrowing;

/* keep: the set gets the doubles, too, if floats round any of them. VAE_ERR_RUNTIME (memory). */
vae_status vae_narrow_begin(vae_narrowing *w, size_t d, bool keep, vae_error *err);
/* The next n values to floats. VAE_ERR_RUNTIME (memory). */
vae_status vae_narrow(vae_narrowing *w, float *to, const double *from, size_t n, vae_error *err);
/* Hands what is kept to the set, whose columns may have names by now. Where nothing is kept, err's
 * notes hear of columns whose values are lost: floats round them by more than a hundredth of their
 * range. */
void vae_narrow_end(vae_narrowing *w, vae_dataset *set, const vae_error *err);
void vae_narrow_close(vae_narrowing *w);

/* ---- arrays and tables ---- */

enum { VAE_IDX_MAX_DIMS = 4 };

/* An IDX array in memory. */
typedef struct {
    vae_dtype dtype;
    size_t ndim;
    size_t dims[VAE_IDX_MAX_DIMS]; /* as the file says; all > 0 */
    size_t n_kept;                 /* leading rows held: min(dims[0], limit) */
    size_t row_items;              /* product of dims[1..] */
    uint8_t *data;                 /* (n_kept, row_items) uint8_t or float */
    vae_map *map;                  /* that holds data; NULL: they are malloc'ed */
    vae_narrowing narrowing;       /* of floats */
} vae_idx;

/* Reads a whole IDX stream, or maps it, and checks that it ends where its header says. Of options,
 * limit, in_memory and exact (doubles are kept) are looked at. On failure there is nothing to
 * clear. VAE_ERR_DATA, VAE_ERR_IO, VAE_ERR_RUNTIME. */
vae_status vae_idx_read(vae_stream *s, const vae_data_options *options, vae_idx *out,
                        vae_error *err);
void vae_idx_clear(vae_idx *idx);

/* The file that a stream delivers, mapped, where that is worth it: *map is NULL where `bytes` of
 * rows are to be in memory, where the stream is packed, or where what is next in it does not begin
 * at a multiple of `align`; else the caller's, and *data where that lies. Nothing is read.
 * VAE_ERR_IO (also: it has become shorter than the stream knew it), VAE_ERR_RUNTIME. */
vae_status vae_map_rows(vae_map **map, const void **data, const vae_stream *s, size_t bytes,
                        size_t align, const vae_data_options *options, vae_error *err);

/* What an array's header makes of the set: n, d, height, width, channels, dtype. Doubles become
 * VAE_F32. name: for messages. VAE_ERR_DATA: a shape or type that is not read. */
vae_status vae_npy_shape_set(vae_dataset *set, const npy_header *header, const char *name,
                             vae_error *err);

/* The set's labels and classes from set->n whole numbers, NaN: of no class; name: for messages.
 * VAE_ERR_DATA: a fraction, or not nearer to 0 than `below`, from where on their type can't tell
 * whole numbers apart. */
vae_status vae_labels_from_numbers(vae_dataset *set, const double *values, double below,
                                   const char *name, vae_error *err);
#define VAE_LABELS_F32 16777216.0         /* 2^24 */
#define VAE_LABELS_F64 9007199254740992.0 /* 2^53 */

/* ---- drawing ---- */

/* One point a stroke runs through, in a box 100 wide and 100 high, y downwards. */
typedef struct {
    int8_t x, y;
    uint8_t kind; /* a vae_node_kind */
} vae_glyph_node;

typedef enum {
    VAE_NODE_SMOOTH = 0, /* the curve passes smoothly */
    VAE_NODE_CORNER = 1, /* the curve may turn sharply */
    VAE_NODE_START = 2,  /* the pen is set down: first point of a stroke */
} vae_node_kind;

enum { VAE_GLYPH_MAX_NODES = 24 };

/* A way to write a digit. */
typedef struct {
    size_t n_nodes;
    const vae_glyph_node *nodes;
} vae_glyph;

/* Number of ways `digit` (0..9) is written, and one of them. Static storage. */
size_t vae_glyph_styles(unsigned digit);
vae_glyph vae_glyph_get(unsigned digit, size_t style);

/* Draws sample `index` of `split`: pixels (28,28), factors (VAE_DIGITS_FACTORS). Returns the
 * label. Pure: the same bytes on every machine. */
enum { VAE_DIGITS_SIDE = 28, VAE_DIGITS_FACTORS = 9 };
uint8_t vae_digits_sample(vae_split split, uint64_t index, uint8_t *pixels, float *factors);

/* Draws the sprite of these levels of the factors (see dataset.h) into bits. Pure: the same bytes
 * on every machine. */
enum {
    VAE_SPRITES_SIDE = 64,
    VAE_SPRITES_ROW_BYTES = VAE_SPRITES_SIDE * VAE_SPRITES_SIDE / 8,
    VAE_SPRITES_FACTORS = 5,
    VAE_SPRITES_N = 3 * 6 * 40 * 32 * 32,
};
void vae_sprites_sample(const size_t level[VAE_SPRITES_FACTORS],
                        uint8_t bits[VAE_SPRITES_ROW_BYTES]);

#endif
