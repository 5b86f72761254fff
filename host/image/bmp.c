/* Reading BMP files: those of Windows and OS/2 of 1, 4, 8, 16, 24 and 32 bits a pixel, with
 * palettes or masks, bottom-up and top-down; not those that are packed (RLE). */
#include <stdlib.h>
#include <string.h>

#include "image/formats.h"

enum { FILE_HEADER = 14, CORE = 12, INFO = 40, MASKS = 12, LARGEST = 124, MOST_COLOURS = 256 };
enum { RGB = 0, BITFIELDS = 3, ALPHA_BITFIELDS = 6 }; /* compression; all others are packed */

typedef struct {
    const vae_picture_file *f;
    uint32_t info_bytes, compression, pixels_at, bits;
    bool top_down;
    size_t width, height, channels, stride; /* stride: bytes of a line, a multiple of 4 */
    uint32_t mask[3];                       /* of red, green, blue; 16 and 32 bits */
    size_t colours;                         /* in the palette */
    uint8_t palette[MOST_COLOURS][3];       /* RGB */
} bmp;

static uint32_t number(const uint8_t *bytes, size_t size)
{
    uint32_t value = 0;
    for (size_t i = 0; i < size; i++) {
        value |= (uint32_t)bytes[i] << 8 * i;
    }
    return value;
}

/* n bytes that must be there. */
static vae_status read_bytes(const bmp *b, void *to, size_t n, uint64_t at, const char *what,
                             vae_error *err)
{
    size_t got = 0;
    vae_status status = VAE_OK;
    TRY(vae_picture_bytes(b->f, to, n, at, &got, err));
    if (got < n) {
        TRY(vae_fail(err, VAE_ERR_DATA,
                     "%s: cannot read BMP: %s: expected %zu bytes at offset %llu, found %zu",
                     b->f->path, what, n, (unsigned long long)at, got));
    }
done:
    return status;
}

/* Colours of pictures of up to 8 bits a pixel, which are blue, green, red and, but for OS/2's, a
 * byte more. */
static vae_status read_palette(bmp *b, uint32_t colours, vae_error *err)
{
    const size_t size = b->info_bytes == CORE ? 3 : 4, most = (size_t)1 << b->bits;
    uint8_t bytes[MOST_COLOURS * 4];
    bool grey = true;
    vae_status status = VAE_OK;
    b->colours = colours == 0 || colours > most ? most : colours;
    TRY(read_bytes(b, bytes, b->colours * size, FILE_HEADER + (uint64_t)b->info_bytes, "colours",
                   err));
    for (size_t i = 0; i < b->colours; i++) {
        for (size_t c = 0; c < 3; c++) {
            b->palette[i][c] = bytes[i * size + 2 - c];
        }
        grey = grey && b->palette[i][0] == b->palette[i][1] && b->palette[i][1] == b->palette[i][2];
    }
    b->channels = grey ? 1 : 3; /* BMP knows grey no other way */
done:
    return status;
}

static vae_status read_masks(bmp *b, const uint8_t *info, vae_error *err)
{
    static const uint32_t usual[2][3] = {{0x7c00, 0x3e0, 0x1f}, {0xff0000, 0xff00, 0xff}};
    uint8_t behind[MASKS];
    const uint8_t *masks = info + INFO; /* in later headers */
    vae_status status = VAE_OK;
    memcpy(b->mask, usual[b->bits == 32], sizeof b->mask);
    if (b->compression == RGB) {
        return VAE_OK;
    }
    if (b->info_bytes == INFO) {
        TRY(read_bytes(b, behind, MASKS, FILE_HEADER + INFO, "masks", err));
        masks = behind;
    }
    for (size_t c = 0; c < 3; c++) {
        b->mask[c] = number(masks + 4 * c, 4);
        const uint32_t ones = b->mask[c] != 0 ? b->mask[c] >> __builtin_ctz(b->mask[c]) : 0;
        if (ones == 0 || (ones & (ones + 1)) != 0) {
            TRY(vae_fail(err, VAE_ERR_DATA,
                         "%s: cannot read BMP: the mask of a colour is %08x: expected ones side by "
                         "side",
                         b->f->path, b->mask[c]));
        }
    }
done:
    return status;
}

static vae_status read_header(bmp *b, vae_error *err)
{
    uint8_t head[FILE_HEADER + LARGEST] = {0};
    const uint8_t *info = head + FILE_HEADER;
    vae_status status = VAE_OK;
    TRY(read_bytes(b, head, FILE_HEADER + 4, 0, "header", err));
    b->pixels_at = number(head + 10, 4);
    b->info_bytes = number(info, 4);
    if (b->info_bytes != CORE && (b->info_bytes < INFO || b->info_bytes > LARGEST)) {
        TRY(vae_fail(err, VAE_ERR_DATA,
                     "%s: cannot read BMP: a header of %u bytes: expected %d, or %d to %d",
                     b->f->path, b->info_bytes, CORE, INFO, LARGEST));
    }
    TRY(read_bytes(b, head + FILE_HEADER, b->info_bytes, FILE_HEADER, "header", err));
    const size_t side = b->info_bytes == CORE ? 2 : 4;
    const uint32_t width = number(info + 4, side), height = number(info + 4 + side, side);
    b->top_down = side == 4 && height > INT32_MAX;
    b->bits = number(info + 6 + 2 * side, 2);
    b->compression = side == 4 ? number(info + 16, 4) : RGB;
    const uint32_t colours = side == 4 ? number(info + 32, 4) : 0;
    b->width = width, b->height = b->top_down ? -height : height;
    TRY(vae_picture_check_sides(b->f, b->width, b->height, err));
    const bool masks = b->bits == 16 || b->bits == 32;
    const bool few = b->bits == 1 || b->bits == 4 || b->bits == 8;
    const bool masked = b->compression == BITFIELDS || b->compression == ALPHA_BITFIELDS;
    if (!(masks || few || b->bits == 24) || (b->compression != RGB && !(masks && masked))) {
        TRY(vae_fail(err, VAE_ERR_DATA,
                     "%s: BMP of %u bits a pixel, compression %u (%s): expected 1, 4, 8, 16, 24 or "
                     "32 bits that are not packed; convert it",
                     b->f->path, b->bits, b->compression,
                     b->compression == 1 || b->compression == 2 ? "RLE"
                     : b->compression == RGB                    ? "none"
                                                                : "another"));
    }
    b->stride = (b->width * b->bits + 31) / 32 * 4;
    TRY(vae_picture_check_fit(b->f, b->width, b->height, (uint64_t)b->stride * b->height, err));
    b->channels = 3;
    TRY(few ? read_palette(b, colours, err) : VAE_OK);
    TRY(masks ? read_masks(b, info, err) : VAE_OK);
done:
    return status;
}

/* A colour of a pixel, its mask's ones scaled to a byte. */
static uint8_t masked(uint32_t pixel, uint32_t mask)
{
    const int shift = __builtin_ctz(mask);
    const uint64_t most = mask >> shift, value = (pixel & mask) >> shift;
    return (uint8_t)(value * 255 / most);
}

/* The colours of a pixel, b->channels of them; false: it has none in the palette. */
static bool put_pixel(const bmp *b, uint8_t *to, const uint8_t *line, size_t x)
{
    const uint8_t *p = line + x * b->bits / 8;
    if (b->bits == 24) {
        to[0] = p[2], to[1] = p[1], to[2] = p[0];
    } else if (b->bits > 8) {
        const uint32_t pixel = number(p, b->bits / 8);
        for (size_t c = 0; c < 3; c++) {
            to[c] = masked(pixel, b->mask[c]);
        }
    } else {
        const size_t left = 8 - b->bits - x * b->bits % 8; /* the first in the highest bits */
        const size_t colour = (size_t)(*p >> left) & (((size_t)1 << b->bits) - 1);
        if (colour >= b->colours) {
            return false;
        }
        memcpy(to, b->palette[colour], b->channels);
    }
    return true;
}

static vae_status read_lines(const bmp *b, uint8_t *pixels, uint8_t *line, vae_error *err)
{
    vae_status status = VAE_OK;
    for (size_t i = 0; i < b->height; i++) {
        const size_t y = b->top_down ? i : b->height - 1 - i;
        TRY(read_bytes(b, line, b->stride, b->pixels_at + (uint64_t)i * b->stride, "a line", err));
        for (size_t x = 0; x < b->width; x++) {
            if (!put_pixel(b, pixels + (y * b->width + x) * b->channels, line, x)) {
                TRY(vae_fail(err, VAE_ERR_DATA,
                             "%s: cannot read BMP: a pixel of a colour beyond the %zu there are",
                             b->f->path, b->colours));
            }
        }
    }
done:
    return status;
}

vae_status vae_bmp_read(vae_picture *p, const vae_picture_file *f, bool header, vae_error *err)
{
    bmp b = {.f = f};
    uint8_t *line = NULL;
    vae_status status = VAE_OK;
    TRY(read_header(&b, err));
    p->width = b.width, p->height = b.height, p->channels = b.channels;
    if (!header) {
        p->pixels = malloc(b.width * b.height * b.channels);
        line = malloc(b.stride);
        if (p->pixels == NULL || line == NULL) {
            TRY(vae_fail_memory(err, b.width * b.height * b.channels, f->path));
        }
        TRY(read_lines(&b, p->pixels, line, err));
    }
done:
    free(line);
    return status;
}
