/* The readers of formats of pictures, which picture.c chooses among, and what they share. A new one
 * is a file with its reader, and a row in picture.c's list. */
#ifndef VAE_IMAGE_FORMATS_H
#define VAE_IMAGE_FORMATS_H

#include <stdio.h>

#include "image/image.h"

/* A regular file that is read from. */
typedef struct {
    FILE *file;       /* at its beginning: nothing was read through it */
    const char *path; /* for messages */
    uint64_t bytes;   /* its size */
} vae_picture_file;

/* Fills *p, whose orientation is 1 and all else 0; header: all but the pixels. What is in p->pixels
 * is the caller's, on failure NULL. Errors as vae_picture_read, but for VAE_ERR_USAGE. */
typedef vae_status vae_picture_reader(vae_picture *p, const vae_picture_file *f, bool header,
                                      vae_error *err);
vae_picture_reader vae_png_read, vae_jpeg_read, vae_pnm_read, vae_bmp_read;
const char *vae_jpeg_library(void); /* name and version of what decodes; static text */
#ifdef VAE_WITH_WEBP
vae_picture_reader vae_webp_read;
const char *vae_webp_library(void);
#endif
#ifdef VAE_WITH_TIFF
vae_picture_reader vae_tiff_read;
const char *vae_tiff_library(void);
#endif

/* Opens a regular file; f->file is the caller's, and stays NULL on failure. VAE_ERR_IO (cannot
 * open), VAE_ERR_DATA (a folder, a pipe, a device), VAE_ERR_RUNTIME. */
vae_status vae_picture_open(vae_picture_file *f, const char *path, vae_error *err);

/* Up to n bytes at an offset of the file, whatever was read through `file`: *got fewer only at its
 * end. VAE_ERR_IO. */
vae_status vae_picture_bytes(const vae_picture_file *f, void *to, size_t n, uint64_t offset,
                             size_t *got, vae_error *err);

/* VAE_ERR_DATA unless both sides are 1 to VAE_PNG_SIDE, and the file is one that can hold so many
 * pixels in any format. */
vae_status vae_picture_check_sides(const vae_picture_file *f, uint64_t width, uint64_t height,
                                   vae_error *err);
/* VAE_ERR_DATA if a picture of these sides needs more bytes than the file has. */
vae_status vae_picture_check_fit(const vae_picture_file *f, uint64_t width, uint64_t height,
                                 uint64_t needs, vae_error *err);

/* The orientation that n bytes of EXIF (TIFF's layout; "Exif" and two zeros may stand in front)
 * say: 1 to 8; 1 where they say none, or are damaged. */
unsigned vae_exif_orientation(const uint8_t *bytes, size_t n);

/* Turns (height,width,channels) upright: what lies in `from` as orientation 1 to 8 says goes to
 * `to`, of as many bytes and other memory, whose sides are exchanged from 5 on. */
void vae_picture_turn(uint8_t *to, const uint8_t *from, size_t width, size_t height,
                      size_t channels, unsigned orientation);

#endif
