/* Pictures: files of them read, PNG and animated GIF files written, and grids of data rows. */
#ifndef VAE_IMAGE_H
#define VAE_IMAGE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/status.h"

enum { VAE_PNG_SIDE = 16384 }; /* pixels, at most */

/* Writes an 8-bit PNG (channels 1 = grey, 3 = RGB), pixels (height,width,channels), atomically
 * (temp file in the same folder, fsync, rename; a device or pipe is written into). Sides 1 to
 * 16384. VAE_ERR_USAGE (sizes), VAE_ERR_IO (file), VAE_ERR_RUNTIME (memory). */
vae_status vae_png_write(const char *path, const uint8_t *pixels, size_t width, size_t height,
                         size_t channels, vae_error *err);

/* The same into memory: *bytes is malloc'ed, NULL on failure. path: for messages. */
vae_status vae_png_pack(uint8_t **bytes, size_t *n_bytes, const char *path, const uint8_t *pixels,
                        size_t width, size_t height, size_t channels, vae_error *err);

/* ---- reading (picture.c has the list of formats) ---- */

/* A picture as it was read: 8 bits a value, grey or RGB. */
typedef struct {
    uint8_t *pixels;                /* (height,width,channels), malloc'ed, the caller's; or NULL */
    size_t width, height, channels; /* channels: 1 grey, 3 RGB */
    unsigned orientation; /* of what lies in `pixels`, as EXIF numbers it: 1 upright, to 8 */
    bool more;            /* the file holds others, too, behind this one */
} vae_picture;

typedef enum {
    VAE_PICTURE_HEADER = 1,    /* all but the pixels, from the header alone */
    VAE_PICTURE_AS_STORED = 2, /* EXIF's orientation is told, not followed */
} vae_picture_how;

/* Reads a file of any of these formats, told apart by its first bytes:
 * - PNG: palettes, fewer bits and 16 bits are converted.
 * - JPEG: grey, YCbCr or RGB; damage that libjpeg would paint over is an error.
 * - PBM, PGM, PPM (Netpbm's P1 to P6, plain and binary; PBM's 1 is black), of values up to 65535,
 *   which are scaled to bytes. A file of several pictures is refused.
 * - BMP: 1 to 32 bits a pixel, masks, any order of lines; grey where its palette is. RLE is
 *   refused.
 * - WebP, by libwebp; of an animation the first frame.
 * - TIFF, by libtiff; of several pages the first. Grey, palette, RGB and YCbCr of 1 to 16 bits;
 *   values of 16 bits are scaled, as those of PNG are. Floats, signed values, CMYK and the like are
 *   refused.
 * Alpha is dropped; colours that were multiplied by it are divided by it first. The picture is
 * turned upright as EXIF's orientation says (of PNG, JPEG and WebP files; damaged EXIF says
 * nothing), and as the tag of a TIFF says, which is the format's own and holds as stored, too.
 * how: of vae_picture_how, or 0. Sides are 1 to VAE_PNG_SIDE, and sizes that the file is too small
 * to hold are refused before they cost memory, where the format knows a bound. On failure
 * picture->pixels is NULL. VAE_ERR_DATA (no picture, damaged, not read), VAE_ERR_IO,
 * VAE_ERR_RUNTIME (memory; a format whose library this program was built without). */
vae_status vae_picture_read(vae_picture *picture, const char *path, unsigned how, vae_error *err);

/* The formats, for messages and help. */
#define VAE_PICTURE_FORMATS "PNG, JPEG, PGM, PPM, PBM, BMP, WebP and TIFF"

/* Does the name end like that of a picture of one of these formats? */
bool vae_picture_is_named(const char *name);

/* Names and versions of the libraries that decide which pixels come out of a file. Returns text. */
enum { VAE_PICTURE_LIBRARIES = 160 };
const char *vae_picture_libraries(char text[VAE_PICTURE_LIBRARIES]);

/* Grey (1) to RGB (3) and back, by ITU-R 601-2 luma. RGB may become grey in place. */
void vae_image_convert(uint8_t *to, size_t to_channels, const uint8_t *from, size_t from_channels,
                       size_t pixels);

/* (height,width,channels) to (to_height,to_width,channels), all sides above 0: a triangle filter,
 * as wide as the reduction where there is one. VAE_ERR_RUNTIME (memory). */
vae_status vae_image_resize(uint8_t *to, size_t to_width, size_t to_height, const uint8_t *from,
                            size_t width, size_t height, size_t channels, vae_error *err);

/* The shorter side resized to `side`, the longer one in proportion, then the middle cut out, as
 * torchvision's Resize(side) and CenterCrop(side). to: (side,side,channels). */
vae_status vae_image_square(uint8_t *to, size_t side, const uint8_t *from, size_t width,
                            size_t height, size_t channels, vae_error *err);

/* Can rows of this shape be drawn? Sides above 1, 1 or 3 channels. */
bool vae_is_picture(size_t height, size_t width, size_t channels);

/* A byte of a PNG from a value nominally in [0,1], clamped; NaN is 0. */
uint8_t vae_pixel(float value);

/* A grid of pictures in the making: cells of height x width, HWC, magnified `zoom` times (nearest),
 * with a `gap`-pixel border of dark grey. It holds bytes, never the rows. */
typedef struct {
    size_t cells, height, width, channels;
    size_t columns; /* cut to `cells` */
    size_t zoom; /* 0: as makes a small picture about 56 pixels, or less where that is too large */
    size_t gap;
    size_t apart[2]; /* columns in front of which the border is wider; 0 = none */
    size_t band;     /* lines that belong together: the border after them is wider; 0 = none */
} vae_grid_spec;

typedef struct {
    vae_grid_spec spec; /* with zoom and columns resolved */
    uint8_t *pixels;    /* (height,width,spec.channels) */
    size_t width, height;
} vae_grid;

/* An empty grid; vae_grid_close in any case. path: for messages. VAE_ERR_USAGE if it would be empty
 * or above VAE_PNG_SIDE pixels a side, VAE_ERR_RUNTIME (memory). */
vae_status vae_grid_open(vae_grid *grid, const vae_grid_spec *spec, const char *path,
                         vae_error *err);
/* Draws a row of values (clamped to [0,1]; NaN is magenta in RGB, mid-grey in grey) into a cell,
 * counted from the left, then downwards. */
void vae_grid_draw(vae_grid *grid, size_t cell, const float *row);
vae_status vae_grid_write(const vae_grid *grid, const char *path, vae_error *err);
void vae_grid_close(vae_grid *grid);

/* n rows (n, height*width*channels) as such a grid, at once. */
vae_status vae_image_grid(const char *path, const float *rows, size_t n, size_t height,
                          size_t width, size_t channels, size_t columns, size_t zoom, size_t gap,
                          vae_error *err);

/* An animation that loops for ever. frames: (n_frames,height,width,channels), channels 1 or 3;
 * order: (n_order) frame numbers as they are shown; delay: (n_order) hundredths of a second. Grey
 * is exact; RGB gets one palette of 256 colours for all frames (exact where they have no more, else
 * by median cut, Heckbert 1982). Atomic. VAE_ERR_USAGE (sizes), VAE_ERR_IO, VAE_ERR_RUNTIME. */
vae_status vae_gif_write(const char *path, const uint8_t *frames, size_t n_frames, size_t width,
                         size_t height, size_t channels, const size_t *order, const unsigned *delay,
                         size_t n_order, vae_error *err);

#endif
