/* Reading PBM, PGM and PPM files (Netpbm), plain and binary: P1 to P6. */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>

#include "base/stream.h"
#include "image/formats.h"

typedef struct {
    vae_stream *s;
    const char *path;
    uint8_t buffer[4096];
    size_t at, n;
    /* the header */
    int kind; /* 1 to 6 */
    size_t width, height, channels;
    unsigned most; /* the value that is white; 1 of bits, where it is black */
} pnm;

/* The next byte, or -1 at the end. */
static vae_status next_byte(pnm *p, int *byte, vae_error *err)
{
    vae_status status = VAE_OK;
    if (p->at == p->n) {
        TRY(vae_stream_read(p->s, p->buffer, sizeof p->buffer, &p->n, err));
        p->at = 0;
    }
    *byte = p->at < p->n ? p->buffer[p->at++] : -1;
done:
    return status;
}

static bool is_space(int byte)
{
    return byte == ' ' || (byte >= '\t' && byte <= '\r');
}

/* The next byte that is neither white space nor in a comment, which lasts from # to the line's
 * end. */
static vae_status next_mark(pnm *p, int *byte, vae_error *err)
{
    bool comment = false;
    vae_status status = VAE_OK;
    do {
        TRY(next_byte(p, byte, err));
        comment = (comment && *byte != '\n' && *byte != '\r' && *byte != -1) || *byte == '#';
    } while (comment || is_space(*byte));
done:
    return status;
}

/* A whole number, and the one byte behind it. */
static vae_status next_number(pnm *p, unsigned most, const char *what, unsigned *number,
                              vae_error *err)
{
    int byte = 0;
    vae_status status = VAE_OK;
    *number = 0;
    TRY(next_mark(p, &byte, err));
    if (byte < '0' || byte > '9') {
        TRY(vae_fail(err, VAE_ERR_DATA, "%s: %s: expected a whole number, found %s", p->path, what,
                     byte == -1 ? "the end of the file" : "something else"));
    }
    while (byte >= '0' && byte <= '9') {
        *number = 10 * *number + (unsigned)(byte - '0');
        if (*number > most) { /* most is far below what would overflow */
            TRY(vae_fail(err, VAE_ERR_DATA, "%s: %s: expected at most %u", p->path, what, most));
        }
        TRY(next_byte(p, &byte, err));
    }
    if (byte != -1 && !is_space(byte) && byte != '#') {
        TRY(vae_fail(err, VAE_ERR_DATA, "%s: %s: a whole number runs into something else", p->path,
                     what));
    }
    while (byte == '#') { /* a comment straight behind it: its line's end is the byte */
        do {
            TRY(next_byte(p, &byte, err));
        } while (byte != '\n' && byte != '\r' && byte != -1);
    }
done:
    return status;
}

static vae_status read_header(pnm *p, vae_error *err)
{
    unsigned width = 0, height = 0;
    int letter = 0, digit = 0;
    vae_status status = VAE_OK;
    const uint64_t file_bytes = vae_stream_bound(p->s);
    TRY(next_byte(p, &letter, err));
    TRY(next_byte(p, &digit, err));
    p->kind = digit - '0';
    if (letter != 'P' || p->kind < 1 || p->kind > 6) {
        TRY(vae_fail(err, VAE_ERR_DATA, "%s: not a PBM, PGM or PPM picture: expected P1 to P6",
                     p->path));
    }
    TRY(next_number(p, VAE_PNG_SIDE, "width", &width, err));
    TRY(next_number(p, VAE_PNG_SIDE, "height", &height, err));
    p->most = 1;
    if (p->kind != 1 && p->kind != 4) {
        TRY(next_number(p, 65535, "largest value", &p->most, err));
    }
    if (width == 0 || height == 0 || p->most == 0) {
        TRY(vae_fail(err, VAE_ERR_DATA, "%s: %u x %u pixels of values up to %u: expected none 0",
                     p->path, width, height, p->most));
    }
    p->width = width, p->height = height, p->channels = p->kind == 3 || p->kind == 6 ? 3 : 1;
    if ((uint64_t)width * height * p->channels / 8 > file_bytes) {
        TRY(vae_fail(err, VAE_ERR_DATA,
                     "%s: header says %u x %u pixels, but %llu bytes cannot hold them", p->path,
                     width, height, (unsigned long long)file_bytes));
    }
done:
    return status;
}

/* The next value of the raster; of bits, those of a row fill bytes, the first in the highest bit:
 * bit is the place in the row, *held the byte. */
static vae_status next_value(pnm *p, size_t bit, int *held, unsigned *value, vae_error *err)
{
    int byte = 0;
    vae_status status = VAE_OK;
    if (p->kind == 1) { /* digits need no space between them */
        TRY(next_mark(p, &byte, err));
        *value = byte == '0' ? 0 : byte == '1' ? 1 : 2;
    } else if (p->kind < 4) {
        TRY(next_number(p, 65535, "a pixel", value, err));
    } else if (p->kind == 4) {
        if (bit % 8 == 0) {
            TRY(next_byte(p, held, err));
        }
        byte = *held;
        *value = (unsigned)*held >> (7 - bit % 8) & 1;
    } else {
        TRY(next_byte(p, &byte, err));
        *value = (unsigned)byte;
        if (p->most > 255) { /* two bytes, the higher first */
            TRY(next_byte(p, &byte, err));
            *value = *value << 8 | (unsigned)byte;
        }
    }
    if (byte == -1) {
        TRY(vae_fail(err, VAE_ERR_DATA, "%s: the file ends within its %zu x %zu pixels", p->path,
                     p->width, p->height));
    }
    if (*value > p->most) {
        TRY(vae_fail(err, VAE_ERR_DATA, "%s: a pixel: expected values up to %u", p->path, p->most));
    }
done:
    return status;
}

/* Other pictures may follow the first in such a file: they would be lost in silence. */
static vae_status expect_end(pnm *p, vae_error *err)
{
    int byte = 0;
    vae_status status = VAE_OK;
    do {
        TRY(next_byte(p, &byte, err));
    } while (is_space(byte));
    if (byte != -1) {
        TRY(vae_fail(err, VAE_ERR_DATA,
                     "%s: %zu x %zu pixels, and more behind them: expected one picture in a file",
                     p->path, p->width, p->height));
    }
done:
    return status;
}

static vae_status read_raster(pnm *p, uint8_t *pixels, vae_error *err)
{
    const size_t row = p->width * p->channels;
    const bool bits = p->kind == 1 || p->kind == 4;
    int held = 0;
    vae_status status = VAE_OK;
    for (size_t i = 0; i < row * p->height; i++) {
        unsigned value = 0;
        TRY(next_value(p, i % row, &held, &value, err));
        pixels[i] = (uint8_t)(bits ? 255 * (1 - value) : (255 * value + p->most / 2) / p->most);
    }
    TRY(expect_end(p, err));
done:
    return status;
}

vae_status vae_pnm_read(vae_picture *picture, const vae_picture_file *f, bool header,
                        vae_error *err)
{
    pnm *p = calloc(1, sizeof *p);
    uint8_t *read = NULL;
    vae_status status = VAE_OK;
    if (p == NULL) {
        return vae_fail_memory(err, sizeof *p, "a reader of pictures");
    }
    p->path = f->path;
    const int fd = fcntl(fileno(f->file), F_DUPFD_CLOEXEC, 0); /* nothing was read from it yet */
    if (fd < 0) {
        TRY(vae_fail(err, VAE_ERR_IO, "%s: cannot open: %s", f->path, strerror(errno)));
    }
    TRY(vae_stream_open_fd(&p->s, fd, f->path, err));
    TRY(read_header(p, err));
    if (!header) {
        const size_t n = p->width * p->height * p->channels;
        read = malloc(n);
        if (read == NULL) {
            TRY(vae_fail_memory(err, n, f->path));
        }
        TRY(read_raster(p, read, err));
        picture->pixels = read;
        read = NULL;
    }
    picture->width = p->width;
    picture->height = p->height;
    picture->channels = p->channels;
done:
    vae_stream_close(p->s);
    free(read);
    free(p);
    return status;
}
