/* Writing and reading PNG files, by libpng. */
#include <png.h>
#include <setjmp.h>
#include <stdlib.h>
#include <string.h>
#include <zlib.h>

#include "base/file.h"
#include "image/formats.h"

enum {
    MAX_SIDE = VAE_PNG_SIDE,
    MAX_CHUNK_BYTES =
        8 << 20, /* of an ancillary chunk; a picture's own data is not limited by it */
    SIGNATURE_BYTES = 8,
};

/* libpng's errors land here: the message is kept, then longjmp. */
static void on_error(png_structp png, png_const_charp message)
{
    char *text = png_get_error_ptr(png);
    snprintf(text, VAE_ERROR_TEXT / 2, "%s", message);
    png_longjmp(png, 1);
}

/* Warnings concern chunks that do not change the pixels (colour profiles and the like). */
static void on_warning(png_structp png, png_const_charp message)
{
    (void)png;
    (void)message;
}

/* ---- writing ---- */

/* The packed picture; libpng appends to it. */
typedef struct {
    uint8_t *bytes;
    size_t n, capacity;
} packed;

static void on_write(png_structp png, png_bytep data, size_t n)
{
    packed *out = png_get_io_ptr(png);
    if (n > out->capacity - out->n) {
        size_t capacity = 2 * out->capacity + n; /* n is a chunk's size, far below overflow */
        uint8_t *grown = realloc(out->bytes, capacity);
        if (grown == NULL) {
            png_error(png, "out of memory");
        }
        out->bytes = grown;
        out->capacity = capacity;
    }
    memcpy(out->bytes + out->n, data, n);
    out->n += n;
}

static void on_flush(png_structp png)
{
    (void)png;
}

/* A function of its own so that no local of it changes after setjmp. False if libpng failed. */
static bool encode(png_structp png, png_infop info, packed *out, const uint8_t *pixels,
                   size_t width, size_t height, size_t channels)
{
    if (setjmp(png_jmpbuf(png)) != 0) {
        return false;
    }
    png_set_write_fn(png, out, on_write, on_flush);
    png_set_IHDR(png, info, (png_uint_32)width, (png_uint_32)height, 8,
                 channels == 3 ? PNG_COLOR_TYPE_RGB : PNG_COLOR_TYPE_GRAY, PNG_INTERLACE_NONE,
                 PNG_COMPRESSION_TYPE_DEFAULT, PNG_FILTER_TYPE_DEFAULT);
    png_write_info(png, info);
    for (size_t y = 0; y < height; y++) {
        png_write_row(png, pixels + y * width * channels);
    }
    png_write_end(png, NULL);
    return true;
}

vae_status vae_png_pack(uint8_t **bytes, size_t *n_bytes, const char *path, const uint8_t *pixels,
                        size_t width, size_t height, size_t channels, vae_error *err)
{
    *bytes = NULL;
    if (width < 1 || width > MAX_SIDE || height < 1 || height > MAX_SIDE ||
        (channels != 1 && channels != 3)) {
        return vae_fail(err, VAE_ERR_USAGE,
                        "%s: a picture of %zu x %zu pixels with %zu channels cannot be written: "
                        "expected 1 to %d pixels a side, 1 or 3 channels",
                        path, width, height, channels, MAX_SIDE);
    }
    char reason[VAE_ERROR_TEXT / 2] = "libpng cannot start: out of memory";
    packed out = {0};
    vae_status status = VAE_OK;
    png_structp png = png_create_write_struct(PNG_LIBPNG_VER_STRING, reason, on_error, on_warning);
    png_infop info = png != NULL ? png_create_info_struct(png) : NULL;
    if (info != NULL && encode(png, info, &out, pixels, width, height, channels)) {
        *bytes = out.bytes;
        *n_bytes = out.n;
    } else {
        free(out.bytes);
        status = vae_fail(err, VAE_ERR_RUNTIME, "%s: cannot encode PNG: %s", path, reason);
    }
    png_destroy_write_struct(&png, &info);
    return status;
}

vae_status vae_png_write(const char *path, const uint8_t *pixels, size_t width, size_t height,
                         size_t channels, vae_error *err)
{
    uint8_t *bytes;
    size_t n;
    vae_status status = VAE_OK;
    TRY(vae_png_pack(&bytes, &n, path, pixels, width, height, channels, err));
    const struct iovec part = {bytes, n};
    TRY(vae_file_put(path, &part, 1, err));
done:
    free(bytes);
    return status;
}

/* ---- reading ---- */

/* The pixels are filled behind libpng's back, so what survives a longjmp lives here, not in
 * locals. */
typedef struct {
    uint8_t *pixels;
    png_bytep *rows;
    png_uint_32 width, height;
    size_t channels;
    bool out_of_memory;
} decoded;

/* libpng takes a failed allocation for an error in the file. */
static png_voidp on_malloc(png_structp png, png_alloc_size_t n)
{
    decoded *out = png_get_mem_ptr(png);
    void *memory = malloc(n);
    out->out_of_memory = out->out_of_memory || memory == NULL;
    return memory;
}

static void on_free(png_structp png, png_voidp memory)
{
    (void)png;
    free(memory);
}

/* Asks libpng to deliver 8-bit grey or RGB, whatever the file holds. */
static void set_conversions(png_structp png, png_infop info)
{
    int type = png_get_color_type(png, info);
    png_set_scale_16(png);
    png_set_expand(png); /* palette to RGB, fewer than 8 bits to 8, tRNS to alpha */
    if ((type & PNG_COLOR_MASK_ALPHA) != 0 || png_get_valid(png, info, PNG_INFO_tRNS) != 0) {
        png_set_strip_alpha(png);
    }
    png_set_interlace_handling(png);
    png_read_update_info(png, info);
}

static vae_status decode(png_structp png, png_infop info, FILE *stream, decoded *out)
{
    if (setjmp(png_jmpbuf(png)) != 0) {
        return out->out_of_memory ? VAE_ERR_RUNTIME : VAE_ERR_DATA;
    }
    png_init_io(png, stream);
    png_set_user_limits(png, MAX_SIDE, MAX_SIDE);
    png_set_chunk_malloc_max(png, MAX_CHUNK_BYTES);
    /* chunks that change no pixel: of some libpng allocates what their header claims (eXIf) */
    png_set_keep_unknown_chunks(png, PNG_HANDLE_CHUNK_NEVER, NULL, -1);
    png_read_info(png, info);
    set_conversions(png, info);
    out->width = png_get_image_width(png, info);
    out->height = png_get_image_height(png, info);
    out->channels = png_get_channels(png, info);
    size_t stride = png_get_rowbytes(png, info);
    if ((out->channels != 1 && out->channels != 3) || stride != out->width * out->channels) {
        png_error(png, "unexpected pixel layout");
    }
    out->pixels = calloc(out->height, stride);
    out->rows = malloc(out->height * sizeof *out->rows);
    if (out->pixels == NULL || out->rows == NULL) {
        out->out_of_memory = true;
        png_error(png, "out of memory");
    }
    for (size_t y = 0; y < out->height; y++) {
        out->rows[y] = out->pixels + y * stride;
    }
    png_read_image(png, out->rows);
    png_read_end(png, NULL);
    return VAE_OK;
}

/* Size and colours from the header. Deflate packs 1032 times at best, so the size that it claims is
 * checked against the file's before libpng or anybody else allocates it. */
static vae_status read_header(vae_picture *p, const vae_picture_file *f, vae_error *err)
{
    enum { HEADER = 26 }; /* signature, chunk length and name, width, height, depth, colour type */
    uint8_t head[HEADER];
    size_t got;
    vae_status status = VAE_OK;
    TRY(vae_picture_bytes(f, head, sizeof head, 0, &got, err));
    if (got < HEADER || png_sig_cmp(head, 0, SIGNATURE_BYTES) != 0) {
        TRY(vae_fail(err, VAE_ERR_DATA, "%s: not a PNG picture", f->path));
    }
    p->width = png_get_uint_32(head + 16), p->height = png_get_uint_32(head + 20);
    p->channels = (head[25] & PNG_COLOR_MASK_COLOR) != 0 ? 3 : 1;
    TRY(vae_picture_check_sides(f, p->width, p->height, err));
    /* at least one bit a pixel */
    TRY(vae_picture_check_fit(f, p->width, p->height, p->width * p->height / 8 / 1032, err));
done:
    return status;
}

/* Orientation, from the chunk eXIf, which may stand before the pixels or behind them (PNG, third
 * edition, 11.3.4.5). Where the chunks end early there is none: that is for libpng to tell. */
static vae_status find_exif(vae_picture *p, const vae_picture_file *f, vae_error *err)
{
    enum { MAX_EXIF = 1 << 16 };
    uint8_t head[8], *exif = NULL;
    size_t got;
    vae_status status = VAE_OK;
    for (uint64_t at = SIGNATURE_BYTES; exif == NULL;) {
        TRY(vae_picture_bytes(f, head, sizeof head, at, &got, err));
        const uint32_t n = got == sizeof head ? png_get_uint_32(head) : 0;
        if (got < sizeof head || memcmp(head + 4, "IEND", 4) == 0) {
            break;
        }
        if (memcmp(head + 4, "eXIf", 4) == 0 && n <= MAX_EXIF) {
            exif = malloc(n + 4);
            if (exif == NULL) {
                TRY(vae_fail_memory(err, n, f->path));
            }
            TRY(vae_picture_bytes(f, exif, n + 4, at + sizeof head, &got, err));
            const uLong crc = crc32(crc32(0, head + 4, 4), exif, n);
            if (got == n + 4 && crc == png_get_uint_32(exif + n)) {
                p->orientation = vae_exif_orientation(exif, n);
            }
        }
        at += sizeof head + n + 4;
    }
done:
    free(exif);
    return status;
}

vae_status vae_png_read(vae_picture *p, const vae_picture_file *f, bool header, vae_error *err)
{
    char reason[VAE_ERROR_TEXT / 2] = "";
    decoded picture = {0};
    png_structp png = NULL;
    png_infop info = NULL;
    vae_status status = VAE_OK;
    TRY(read_header(p, f, err));
    TRY(find_exif(p, f, err));
    if (header) {
        return VAE_OK;
    }
    png = png_create_read_struct_2(PNG_LIBPNG_VER_STRING, reason, on_error, on_warning, &picture,
                                   on_malloc, on_free);
    info = png != NULL ? png_create_info_struct(png) : NULL;
    if (info == NULL) {
        TRY(vae_fail(err, VAE_ERR_RUNTIME, "%s: libpng cannot start: out of memory", f->path));
    }
    status = decode(png, info, f->file, &picture);
    if (status != VAE_OK) {
        const char *why = picture.out_of_memory ? "out of memory" : reason;
        TRY(vae_fail(err, ferror(f->file) ? VAE_ERR_IO : status, "%s: cannot read PNG: %s", f->path,
                     ferror(f->file) ? "the disk fails" : why));
    }
    p->pixels = picture.pixels;
    p->width = picture.width;
    p->height = picture.height;
    p->channels = picture.channels;
    picture.pixels = NULL;
done:
    png_destroy_read_struct(&png, &info, NULL);
    free(picture.rows);
    free(picture.pixels);
    return status;
}
