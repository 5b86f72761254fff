/* Reading pictures of any kind: the list of formats, and what all of them get. */
#include <stdlib.h>
#include <string.h>

#include "base/text.h"
#include "image/formats.h"

enum { HEAD = 12, ENDINGS = 4 }; /* first bytes by which formats are told apart */

typedef struct {
    const char *name;
    const char *endings[ENDINGS]; /* of names of files, or NULL */
    bool (*begins)(const uint8_t head[HEAD]);
    vae_picture_reader *read; /* NULL: built without `library` */
    const char *library;
    const char *(*version)(void); /* of a library on which the pixels depend; or NULL */
    bool turns;                   /* orientation is a part of the format itself, not EXIF's word */
} format;

/* A file that is shorter has zeros there. */
static bool is_png(const uint8_t head[HEAD])
{
    return memcmp(head, "\x89PNG", 4) == 0;
}

static bool is_jpeg(const uint8_t head[HEAD])
{
    return memcmp(head, "\xff\xd8\xff", 3) == 0;
}

static bool is_pnm(const uint8_t head[HEAD])
{
    return head[0] == 'P' && head[1] >= '1' && head[1] <= '6';
}

static bool is_bmp(const uint8_t head[HEAD])
{
    return head[0] == 'B' && head[1] == 'M';
}

static bool is_webp(const uint8_t head[HEAD])
{
    return memcmp(head, "RIFF", 4) == 0 && memcmp(head + 8, "WEBP", 4) == 0;
}

/* 42, or 43 of those with offsets of 8 bytes. */
static bool is_tiff(const uint8_t head[HEAD])
{
    return (memcmp(head, "II", 2) == 0 && (head[2] == 42 || head[2] == 43) && head[3] == 0) ||
           (memcmp(head, "MM", 2) == 0 && head[2] == 0 && (head[3] == 42 || head[3] == 43));
}

#ifndef VAE_WITH_WEBP
#define vae_webp_read    NULL
#define vae_webp_library NULL
#endif
#ifndef VAE_WITH_TIFF
#define vae_tiff_read    NULL
#define vae_tiff_library NULL
#endif

static const format formats[] = {
    {"PNG", {".png"}, is_png, vae_png_read, "libpng", NULL, false},
    {"JPEG", {".jpg", ".jpeg"}, is_jpeg, vae_jpeg_read, "libjpeg", vae_jpeg_library, false},
    {"Netpbm", {".pgm", ".ppm", ".pbm", ".pnm"}, is_pnm, vae_pnm_read, NULL, NULL, false},
    {"BMP", {".bmp"}, is_bmp, vae_bmp_read, NULL, NULL, false},
    {"WebP", {".webp"}, is_webp, vae_webp_read, "libwebp", vae_webp_library, false},
    {"TIFF", {".tif", ".tiff"}, is_tiff, vae_tiff_read, "libtiff", vae_tiff_library, true},
};
enum { N_FORMATS = sizeof formats / sizeof formats[0] };

bool vae_picture_is_named(const char *name)
{
    bool is = false;
    for (size_t i = 0; i < N_FORMATS; i++) {
        for (size_t j = 0; j < ENDINGS && formats[i].endings[j] != NULL; j++) {
            is = is || vae_ends_with_any_case(name, formats[i].endings[j]);
        }
    }
    return is;
}

const char *vae_picture_libraries(char text[VAE_PICTURE_LIBRARIES])
{
    size_t used = 0;
    text[0] = '\0';
    for (size_t i = 0; i < N_FORMATS && used < VAE_PICTURE_LIBRARIES; i++) {
        if (formats[i].version != NULL) {
            used += (size_t)snprintf(text + used, VAE_PICTURE_LIBRARIES - used, "%s%s",
                                     used > 0 ? ", " : "", formats[i].version());
        }
    }
    return text;
}

/* ---- reading ---- */

static vae_status find_format(const format **found, const vae_picture_file *f, vae_error *err)
{
    uint8_t head[HEAD] = {0};
    size_t got;
    vae_status status = VAE_OK;
    TRY(vae_picture_bytes(f, head, sizeof head, 0, &got, err));
    *found = NULL;
    for (size_t i = 0; i < N_FORMATS && *found == NULL; i++) {
        *found = formats[i].begins(head) ? &formats[i] : NULL;
    }
    if (*found == NULL) {
        TRY(vae_fail(err, VAE_ERR_DATA, "%s: not a picture: expected one of %s", f->path,
                     VAE_PICTURE_FORMATS));
    }
    if ((*found)->read == NULL) { /* no fault of the file's */
        TRY(vae_fail(err, VAE_ERR_RUNTIME,
                     "%s: is a %s picture, and this program was built without %s", f->path,
                     (*found)->name, (*found)->library));
    }
done:
    return status;
}

static vae_status turn_upright(vae_picture *p, const char *path, vae_error *err)
{
    const size_t n = p->width * p->height * p->channels, width = p->width;
    if (p->orientation == 1) {
        return VAE_OK;
    }
    if (p->pixels != NULL) {
        uint8_t *upright = malloc(n);
        if (upright == NULL) {
            return vae_fail_memory(err, n, path);
        }
        vae_picture_turn(upright, p->pixels, p->width, p->height, p->channels, p->orientation);
        free(p->pixels);
        p->pixels = upright;
    }
    if (p->orientation >= 5) {
        p->width = p->height;
        p->height = width;
    }
    p->orientation = 1;
    return VAE_OK;
}

vae_status vae_picture_read(vae_picture *picture, const char *path, unsigned how, vae_error *err)
{
    const format *is;
    vae_picture_file f = {0};
    vae_status status = VAE_OK;
    *picture = (vae_picture){.orientation = 1};
    TRY(vae_picture_open(&f, path, err));
    TRY(find_format(&is, &f, err));
    TRY(is->read(picture, &f, (how & VAE_PICTURE_HEADER) != 0, err));
    if (is->turns || (how & VAE_PICTURE_AS_STORED) == 0) {
        TRY(turn_upright(picture, path, err));
    }
done:
    if (f.file != NULL) {
        fclose(f.file);
    }
    if (status != VAE_OK) {
        free(picture->pixels);
        picture->pixels = NULL;
    }
    return status;
}
