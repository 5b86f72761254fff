/* Reading TIFF files, by libtiff: the first page, its values as bytes. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include <tiffio.h>

#include "image/formats.h"

enum { MOST_SAMPLES = 8, MOST_ALLOCATION = 1 << 28 };

typedef struct {
    const vae_picture_file *f;
    TIFF *tiff;
    uint64_t at;    /* where libtiff reads next */
    bool disk;      /* reading the file failed */
    bool memory;    /* the first error was one of malloc */
    bool decoding;  /* a warning is of damaged pixels, which libtiff paints over */
    char text[256]; /* the first error; "" */
    uint16_t bits, samples, colour, planar, compression, format;
    bool divided; /* the first extra sample is the alpha that colours were multiplied by */
    size_t width, channels;
    uint16_t *map[3]; /* palette: (2^bits) each, libtiff's */
    uint8_t *pixels;
} tiff;

const char *vae_tiff_library(void)
{
    static char text[48]; /* the same, whoever writes it */
    snprintf(text, sizeof text, "libtiff %d", TIFFLIB_VERSION);
    return text;
}

/* ---- what libtiff calls ---- */

static int on_error(TIFF *file, void *ctx, const char *module, const char *format, va_list ap)
{
    tiff *t = ctx;
    (void)file;
    (void)module;
    if (t->text[0] == '\0') {
        t->memory = errno == ENOMEM; /* libtiff has no code for it */
        vsnprintf(t->text, sizeof t->text, format, ap);
    }
    return 1; /* nobody else prints it */
}

static int on_warning(TIFF *file, void *ctx, const char *module, const char *format, va_list ap)
{
    const tiff *t = ctx;
    return t->decoding ? on_error(file, ctx, module, format, ap) : 1;
}

static tmsize_t on_read(thandle_t ctx, void *to, tmsize_t n)
{
    tiff *t = ctx;
    size_t got;
    if (vae_picture_bytes(t->f, to, (size_t)n, t->at, &got, NULL) != VAE_OK) {
        t->disk = true;
        return -1;
    }
    t->at += got;
    return (tmsize_t)got;
}

static tmsize_t on_write(thandle_t ctx, void *from, tmsize_t n)
{
    (void)ctx;
    (void)from;
    (void)n;
    return -1;
}

static toff_t on_seek(thandle_t ctx, toff_t to, int whence)
{
    tiff *t = ctx;
    t->at = to + (whence == SEEK_CUR ? t->at : whence == SEEK_END ? t->f->bytes : 0);
    return t->at;
}

static int on_close(thandle_t ctx)
{
    (void)ctx;
    return 0;
}

static toff_t on_size(thandle_t ctx)
{
    return ((const tiff *)ctx)->f->bytes;
}

static vae_status fail(const tiff *t, vae_error *err)
{
    if (t->disk) {
        return vae_fail(err, VAE_ERR_IO, "%s: cannot read TIFF: the disk fails", t->f->path);
    }
    return vae_fail(err, t->memory ? VAE_ERR_RUNTIME : VAE_ERR_DATA, "%s: cannot read TIFF: %s%s",
                    t->f->path, t->memory ? "out of memory: " : "",
                    t->text[0] != '\0' ? t->text : "the file is damaged");
}

static vae_status open_tiff(tiff *t, vae_error *err)
{
    const uint64_t most = t->f->bytes + MOST_ALLOCATION;
    TIFFOpenOptions *how = TIFFOpenOptionsAlloc();
    if (how == NULL) {
        return vae_fail_memory(err, sizeof *t, t->f->path);
    }
    TIFFOpenOptionsSetMaxSingleMemAlloc(how, most < INT64_MAX ? (tmsize_t)most : INT64_MAX);
    TIFFOpenOptionsSetErrorHandlerExtR(how, on_error, t);
    TIFFOpenOptionsSetWarningHandlerExtR(how, on_warning, t);
    t->tiff = TIFFClientOpenExt(t->f->path, "rm", t, on_read, on_write, on_seek, on_close, on_size,
                                NULL, NULL, how);
    TIFFOpenOptionsFree(how);
    return t->tiff != NULL ? VAE_OK : fail(t, err);
}

/* ---- the header ---- */

static const char *name_of_colour(uint16_t photometric)
{
    switch (photometric) {
    case PHOTOMETRIC_MASK:
        return "a mask";
    case PHOTOMETRIC_SEPARATED:
        return "CMYK";
    case PHOTOMETRIC_CIELAB:
    case PHOTOMETRIC_ICCLAB:
    case PHOTOMETRIC_ITULAB:
        return "L*a*b*";
    default:
        return "another";
    }
}

/* Colours that are read, and how many values each pixel has of them. */
static vae_status check_colours(const tiff *t, vae_error *err)
{
    static const char *const kinds[] = {"", "unsigned", "signed", "floating-point", "untyped"};
    const bool grey = t->colour == PHOTOMETRIC_MINISWHITE || t->colour == PHOTOMETRIC_MINISBLACK;
    const bool palette = t->colour == PHOTOMETRIC_PALETTE;
    const bool rgb = t->colour == PHOTOMETRIC_RGB || t->colour == PHOTOMETRIC_YCBCR;
    const bool few = t->bits == 1 || t->bits == 2 || t->bits == 4;
    const size_t least = rgb ? 3 : 1;
    vae_status status = VAE_OK;
    if (!grey && !palette && !rgb) {
        TRY(vae_fail(err, VAE_ERR_DATA,
                     "%s: TIFF of colours of kind %u (%s): expected grey, a palette, RGB or YCbCr; "
                     "convert it",
                     t->f->path, t->colour, name_of_colour(t->colour)));
    }
    if (t->format != SAMPLEFORMAT_UINT ||
        !(t->bits == 8 || (t->bits == 16 && !palette && t->colour != PHOTOMETRIC_YCBCR) ||
          (few && !rgb))) {
        TRY(vae_fail(err, VAE_ERR_DATA,
                     "%s: TIFF of %s values of %u bits: expected unsigned ones of 8 or 16 bits (1, "
                     "2 and 4 where they are grey or of a palette); convert it, or make an .npy "
                     "file of such data",
                     t->f->path, t->format < 5 ? kinds[t->format] : "other", t->bits));
    }
    if (t->samples < least || t->samples > MOST_SAMPLES || (few && t->samples > 1)) {
        TRY(vae_fail(err, VAE_ERR_DATA, "%s: TIFF of %u values a pixel: expected %zu to %d",
                     t->f->path, t->samples, least, few ? 1 : MOST_SAMPLES));
    }
    if (t->divided && t->planar == PLANARCONFIG_SEPARATE) {
        TRY(vae_fail(err, VAE_ERR_DATA,
                     "%s: TIFF of colours multiplied by alpha, in planes: expected them pixel by "
                     "pixel; convert it",
                     t->f->path));
    }
done:
    return status;
}

static vae_status read_header(tiff *t, vae_picture *p, vae_error *err)
{
    uint32_t width = 0, height = 0;
    uint16_t orientation = 1, n_extra = 0, *extra = NULL;
    vae_status status = VAE_OK;
    TIFFGetField(t->tiff, TIFFTAG_IMAGEWIDTH, &width);
    TIFFGetField(t->tiff, TIFFTAG_IMAGELENGTH, &height);
    TIFFGetFieldDefaulted(t->tiff, TIFFTAG_BITSPERSAMPLE, &t->bits);
    TIFFGetFieldDefaulted(t->tiff, TIFFTAG_SAMPLESPERPIXEL, &t->samples);
    TIFFGetFieldDefaulted(t->tiff, TIFFTAG_SAMPLEFORMAT, &t->format);
    TIFFGetFieldDefaulted(t->tiff, TIFFTAG_PLANARCONFIG, &t->planar);
    TIFFGetFieldDefaulted(t->tiff, TIFFTAG_COMPRESSION, &t->compression);
    TIFFGetFieldDefaulted(t->tiff, TIFFTAG_ORIENTATION, &orientation);
    TIFFGetFieldDefaulted(t->tiff, TIFFTAG_EXTRASAMPLES, &n_extra, &extra);
    t->colour = PHOTOMETRIC_MINISWHITE; /* of those who do not say */
    TIFFGetField(t->tiff, TIFFTAG_PHOTOMETRIC, &t->colour);
    t->divided = n_extra > 0 && extra[0] == EXTRASAMPLE_ASSOCALPHA;
    TRY(vae_picture_check_sides(t->f, width, height, err));
    TRY(check_colours(t, err));
    if (t->colour == PHOTOMETRIC_PALETTE &&
        TIFFGetField(t->tiff, TIFFTAG_COLORMAP, &t->map[0], &t->map[1], &t->map[2]) == 0) {
        TRY(vae_fail(err, VAE_ERR_DATA, "%s: cannot read TIFF: no palette in it", t->f->path));
    }
    if (t->compression == COMPRESSION_NONE) {
        TRY(vae_picture_check_fit(t->f, width, height,
                                  (uint64_t)width * height *
                                      (t->colour == PHOTOMETRIC_YCBCR ? 1 : t->samples) * t->bits /
                                      8,
                                  err));
    }
    t->width = p->width = width;
    p->height = height;
    t->channels = p->channels = t->colour <= PHOTOMETRIC_MINISBLACK ? 1 : 3;
    p->orientation = orientation >= 1 && orientation <= 8 ? orientation : 1;
    p->more = TIFFLastDirectory(t->tiff) == 0;
done:
    return status;
}

/* ---- the pixels ---- */

/* Value i of a line, as a byte but for those of palettes. */
static unsigned value_of(const tiff *t, const uint8_t *line, size_t i)
{
    if (t->bits == 8) {
        return line[i];
    }
    if (t->bits == 16) {
        uint16_t value;
        memcpy(&value, line + 2 * i, 2);
        return (value * 255u + 32767) / 65535;
    }
    const unsigned most = (1u << t->bits) - 1;
    const unsigned value =
        (unsigned)line[i * t->bits / 8] >> (8 - t->bits - i * t->bits % 8) & most;
    return t->map[0] != NULL ? value : value * 255 / most;
}

/* Where alpha is 0, nothing is left of the colour. */
static uint8_t divide(unsigned value, unsigned alpha)
{
    const unsigned full = alpha > 0 ? 255 * value / alpha : 0;
    return (uint8_t)(full < 255 ? full : 255);
}

/* n pixels of a line; of planes, their values of that one. */
static void put_pixels(const tiff *t, uint8_t *to, const uint8_t *line, size_t n, uint16_t plane)
{
    const bool separate = t->planar == PLANARCONFIG_SEPARATE;
    const size_t step = separate ? 1 : t->samples;
    for (size_t i = 0; i < n; i++, to += t->channels) {
        if (t->map[0] != NULL) {
            const unsigned colour = value_of(t, line, i * step);
            for (size_t c = 0; c < 3; c++) {
                to[c] = (uint8_t)(t->map[c][colour] >> 8);
            }
            continue;
        }
        for (size_t c = separate ? plane : 0; c < (separate ? plane + 1u : t->channels); c++) {
            unsigned value = value_of(t, line, i * step + (separate ? 0 : c));
            if (t->divided) {
                value = divide(value, value_of(t, line, i * step + t->channels));
            }
            to[c] = (uint8_t)(t->colour == PHOTOMETRIC_MINISWHITE ? 255 - value : value);
        }
    }
}

static bool read_tiles(tiff *t, const vae_picture *p, uint8_t *tile, uint16_t plane)
{
    uint32_t w = 0, h = 0;
    const size_t line = (size_t)TIFFTileRowSize(t->tiff);
    TIFFGetField(t->tiff, TIFFTAG_TILEWIDTH, &w);
    TIFFGetField(t->tiff, TIFFTAG_TILELENGTH, &h);
    for (uint32_t y = 0; y < p->height; y += h) {
        for (uint32_t x = 0; x < p->width; x += w) {
            const size_t lines = p->height - y < h ? p->height - y : h;
            const size_t n = p->width - x < w ? p->width - x : w;
            if (TIFFReadTile(t->tiff, tile, x, y, 0, plane) < 0 || t->text[0] != '\0') {
                return false;
            }
            for (size_t i = 0; i < lines; i++) {
                put_pixels(t, t->pixels + ((y + i) * p->width + x) * p->channels, tile + i * line,
                           n, plane);
            }
        }
    }
    return true;
}

static bool read_lines(tiff *t, const vae_picture *p, uint8_t *line, uint16_t plane)
{
    for (uint32_t y = 0; y < p->height; y++) {
        if (TIFFReadScanline(t->tiff, line, y, plane) < 0 || t->text[0] != '\0') {
            return false;
        }
        put_pixels(t, t->pixels + y * p->width * p->channels, line, p->width, plane);
    }
    return true;
}

/* Grey, palettes and RGB. */
static vae_status read_values(tiff *t, const vae_picture *p, vae_error *err)
{
    const bool tiles = TIFFIsTiled(t->tiff) != 0;
    const tmsize_t size = tiles ? TIFFTileSize(t->tiff) : TIFFScanlineSize(t->tiff);
    const tmsize_t line = tiles ? TIFFTileRowSize(t->tiff) : size;
    const bool separate = t->planar == PLANARCONFIG_SEPARATE;
    const uint16_t planes = separate && t->map[0] == NULL ? (uint16_t)p->channels : 1;
    const size_t bits = (size_t)t->bits * (separate ? 1 : t->samples);
    uint32_t wide = (uint32_t)p->width;
    uint8_t *buffer = NULL;
    vae_status status = VAE_OK;
    if (tiles && TIFFGetField(t->tiff, TIFFTAG_TILEWIDTH, &wide) == 0) {
        wide = 0;
    }
    if (size <= 0 || wide == 0 || (size_t)line < (wide * bits + 7) / 8 ||
        size > (tmsize_t)t->f->bytes + MOST_ALLOCATION) {
        TRY(fail(t, err));
    }
    buffer = malloc((size_t)size);
    if (buffer == NULL) {
        TRY(vae_fail_memory(err, (size_t)size, t->f->path));
    }
    for (uint16_t plane = 0; plane < planes; plane++) {
        if (!(tiles ? read_tiles : read_lines)(t, p, buffer, plane)) {
            TRY(fail(t, err));
        }
    }
done:
    free(buffer);
    return status;
}

/* YCbCr, whose colours may have fewer values: libtiff's way to RGB, lines as they are stored. */
static vae_status read_ycbcr(tiff *t, const vae_picture *p, vae_error *err)
{
    const size_t n = p->width * p->height;
    TIFFRGBAImage image = {0};
    uint32_t *raster = NULL;
    char why[1024] = "";
    bool begun = false;
    vae_status status = VAE_OK;
    begun = TIFFRGBAImageBegin(&image, t->tiff, 1, why) != 0;
    if (!begun) {
        snprintf(t->text, sizeof t->text, "%.250s", why);
        TRY(fail(t, err));
    }
    raster = malloc(n * sizeof *raster);
    if (raster == NULL) {
        TRY(vae_fail_memory(err, n * sizeof *raster, t->f->path));
    }
    image.req_orientation = image.orientation;
    if (TIFFRGBAImageGet(&image, raster, (uint32_t)p->width, (uint32_t)p->height) == 0 ||
        t->text[0] != '\0') {
        TRY(fail(t, err));
    }
    for (size_t i = 0; i < n; i++) {
        t->pixels[3 * i] = (uint8_t)TIFFGetR(raster[i]);
        t->pixels[3 * i + 1] = (uint8_t)TIFFGetG(raster[i]);
        t->pixels[3 * i + 2] = (uint8_t)TIFFGetB(raster[i]);
    }
done:
    free(raster);
    if (begun) {
        TIFFRGBAImageEnd(&image);
    }
    return status;
}

vae_status vae_tiff_read(vae_picture *p, const vae_picture_file *f, bool header, vae_error *err)
{
    tiff t = {.f = f};
    vae_status status = VAE_OK;
    errno = 0;
    TRY(open_tiff(&t, err));
    TRY(read_header(&t, p, err));
    if (header) {
        goto done;
    }
    t.pixels = malloc(p->width * p->height * p->channels);
    if (t.pixels == NULL) {
        TRY(vae_fail_memory(err, p->width * p->height * p->channels, f->path));
    }
    t.decoding = true;
    t.text[0] = '\0';
    bool ycbcr = t.colour == PHOTOMETRIC_YCBCR;
    if (ycbcr && t.compression == COMPRESSION_JPEG && t.planar == PLANARCONFIG_CONTIG) {
        TIFFSetField(t.tiff, TIFFTAG_JPEGCOLORMODE, JPEGCOLORMODE_RGB); /* libjpeg makes it RGB */
        ycbcr = false;
    }
    TRY(ycbcr ? read_ycbcr(&t, p, err) : read_values(&t, p, err));
    p->pixels = t.pixels;
    t.pixels = NULL;
done:
    if (t.tiff != NULL) {
        TIFFClose(t.tiff);
    }
    free(t.pixels);
    return status;
}
