/* Pictures: PNG files and grids of data rows. */
#ifndef VAE_IMAGE_H
#define VAE_IMAGE_H

#include <stddef.h>
#include <stdint.h>

#include "status.h"

/* Writes an 8-bit PNG (channels 1 = grey, 3 = RGB), pixels (height,width,channels), atomically
 * (temp file in the same folder, fsync, rename; a device or pipe is written into). Sides 1 to
 * 16384. VAE_ERR_USAGE (sizes), VAE_ERR_IO (file), VAE_ERR_RUNTIME (memory). */
vae_status vae_png_write(const char *path, const uint8_t *pixels, size_t width, size_t height,
                         size_t channels, vae_error *err);

/* Reads a PNG as 8-bit grey or RGB (palette, fewer bits and 16 bits are converted; alpha is
 * dropped). *pixels is malloc'ed, (height,width,channels), NULL on failure. Refuses sides above
 * 16384, and sizes that the file is too small to hold. VAE_ERR_DATA (not a PNG, damaged),
 * VAE_ERR_IO, VAE_ERR_RUNTIME (memory). */
vae_status vae_png_read(const char *path, uint8_t **pixels, size_t *width, size_t *height,
                        size_t *channels, vae_error *err);

/* Reads a PNG or JPEG file, told apart by its first bytes, as vae_png_read does; with pixels NULL
 * only its size and channels (of a PNG with a palette: 3). JPEG: grey or YCbCr/RGB; damage that
 * libjpeg would paint over is an error. */
vae_status vae_picture_read(const char *path, uint8_t **pixels, size_t *width, size_t *height,
                            size_t *channels, vae_error *err);

/* Grey (1) to RGB (3) and back, by ITU-R 601-2 luma. */
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

/* Draws n rows (n, height*width*channels, HWC, values nominally in [0,1], clamped; NaN is drawn
 * magenta in RGB, mid-grey in grey) as a grid with `columns` columns and a `gap`-pixel border of
 * dark grey, magnified `zoom` times (nearest), and writes it as PNG. columns is cut to n.
 * VAE_ERR_USAGE if the picture would be empty or above 16384 pixels a side; else as
 * vae_png_write. */
vae_status vae_image_grid(const char *path, const float *rows, size_t n, size_t height,
                          size_t width, size_t channels, size_t columns, size_t zoom, size_t gap,
                          vae_error *err);

#endif
