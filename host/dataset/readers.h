/* What the readers of data sets share: the IDX reader, and the fillers that vae_dataset_open chooses
 * from. */
#ifndef VAE_DATASET_INTERNAL_H
#define VAE_DATASET_INTERNAL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/status.h"
#include "base/stream.h"
#include "dataset/dataset.h"
#include "format/npy.h"

/* ---- IDX (dataset_idx.c) ---- */

enum { VAE_IDX_MAX_DIMS = 4 };

/* An IDX array in memory. */
typedef struct {
    vae_dtype dtype;
    size_t ndim;
    size_t dims[VAE_IDX_MAX_DIMS]; /* as the file says; all > 0 */
    size_t n_kept;                 /* leading rows held: min(dims[0], limit) */
    size_t row_items;              /* product of dims[1..] */
    uint8_t *data;                 /* (n_kept, row_items) uint8_t or float; free it */
} vae_idx;

/* Reads a whole IDX stream and checks that it ends where its header says. limit 0 keeps all.
 * On failure out->data is NULL. VAE_ERR_DATA, VAE_ERR_IO, VAE_ERR_RUNTIME. */
vae_status vae_idx_read(vae_stream *s, size_t limit, vae_idx *out, vae_error *err);

/* ---- fillers: each fills an empty set, except source, n_classes and sha256 ---- */

/* Draws the built-in digits (dataset_digits.c). */
vae_status vae_digits_draw(vae_dataset *set, vae_split split, size_t limit, vae_error *err);

/* Draws the built-in sprites (dataset_sprites.c). Fails for VAE_SPLIT_TEST. */
vae_status vae_sprites_draw(vae_dataset *set, vae_split split, size_t limit, vae_error *err);

/* Reads images and, where they are, labels from a folder of IDX files. */
vae_status vae_idx_load_folder(vae_dataset *set, const char *folder, vae_split split, size_t limit,
                               vae_error *err);

/* Does the folder hold IDX images of this split? Ambiguous folders count as holding none. */
bool vae_idx_folder_has(const char *folder, vae_split split);

/* Reads one IDX images file, and the labels file named like it if there is one. */
vae_status vae_idx_load_file(vae_dataset *set, const char *path, size_t limit, vae_error *err);

/* Reads an NPY stream; `s` is at its beginning. */
vae_status vae_npy_load_stream(vae_dataset *set, vae_stream *s, size_t limit, vae_error *err);

/* What an array's header makes of the set: n, d, height, width, channels, dtype. Doubles become
 * VAE_F32. name: for messages. VAE_ERR_DATA: a shape or type that is not read. */
vae_status vae_npy_shape_set(vae_dataset *set, const npy_header *header, const char *name,
                             vae_error *err);

/* Reads the arrays of an .npz file that make the split. */
vae_status vae_npz_load(vae_dataset *set, const char *path, vae_split split, size_t limit,
                        vae_error *err);
bool vae_npz_has_test(const char *path);

/* *labels: (n) bytes, malloc'ed, from whole numbers 0..255; name: for messages. VAE_ERR_DATA. */
vae_status vae_labels_from_floats(uint8_t **labels, const float *values, size_t n, const char *name,
                                  vae_error *err);

/* Reads a CSV stream; `s` is at its beginning. */
vae_status vae_csv_load_stream(vae_dataset *set, vae_stream *s, const vae_data_options *options,
                               vae_error *err);

/* Reads a folder of pictures. */
vae_status vae_pictures_load(vae_dataset *set, const char *folder, vae_split split,
                             const vae_data_options *options, vae_error *err);
/* Are there pictures for this split below the folder? */
bool vae_pictures_has(const char *folder, vae_split split);

/* ---- drawing (dataset_glyphs.c) ---- */

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
