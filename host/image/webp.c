/* Reading WebP files, by libwebp. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include <webp/decode.h>
#include <webp/demux.h>

#include "base/stream.h"
#include "image/formats.h"

enum { RIFF_HEAD = 12, CHUNK_HEAD = 8 };

const char *vae_webp_library(void)
{
    static char text[32]; /* the same, whoever writes it */
    const int v = WebPGetDecoderVersion();
    snprintf(text, sizeof text, "libwebp %d.%d.%d", v >> 16, v >> 8 & 255, v & 255);
    return text;
}

/* After a call with errno 0 before it: libwebp calls some failed allocations damage. */
static vae_status damaged(const vae_picture_file *f, VP8StatusCode code, vae_error *err)
{
    if (code == VP8_STATUS_OUT_OF_MEMORY || errno == ENOMEM) {
        return vae_fail(err, VAE_ERR_RUNTIME, "%s: libwebp is out of memory", f->path);
    }
    return vae_fail(err, VAE_ERR_DATA, "%s: cannot read WebP: %s", f->path,
                    code == VP8_STATUS_NOT_ENOUGH_DATA ? "the file is cut short"
                    : code == VP8_STATUS_UNSUPPORTED_FEATURE
                        ? "a feature that libwebp does not have"
                        : "the file is damaged");
}

static uint32_t little(const uint8_t *bytes)
{
    return bytes[0] | (uint32_t)bytes[1] << 8 | (uint32_t)bytes[2] << 16 | (uint32_t)bytes[3] << 24;
}

/* Orientation, from the chunk EXIF, which stands behind the picture (RIFF container of WebP). */
static vae_status find_exif(vae_picture *p, const vae_picture_file *f, vae_error *err)
{
    enum { MAX_EXIF = 1 << 16 };
    uint8_t head[CHUNK_HEAD], *exif = NULL;
    size_t got = CHUNK_HEAD;
    vae_status status = VAE_OK;
    for (uint64_t at = RIFF_HEAD; exif == NULL && got == CHUNK_HEAD;) {
        TRY(vae_picture_bytes(f, head, sizeof head, at, &got, err));
        const uint64_t n = got == CHUNK_HEAD ? little(head + 4) : 0;
        if (got == CHUNK_HEAD && memcmp(head, "EXIF", 4) == 0 && n > 0 && n <= MAX_EXIF) {
            exif = malloc(n);
            if (exif == NULL) {
                TRY(vae_fail_memory(err, n, f->path));
            }
            TRY(vae_picture_bytes(f, exif, n, at + CHUNK_HEAD, &got, err));
            p->orientation = got == n ? vae_exif_orientation(exif, n) : 1;
        }
        at += CHUNK_HEAD + n + n % 2;
    }
done:
    free(exif);
    return status;
}

/* The first frame, on its canvas. */
static vae_status decode_animation(vae_picture *p, const vae_picture_file *f, const WebPData *data,
                                   vae_error *err)
{
    WebPAnimDecoderOptions how;
    WebPAnimDecoder *decoder = NULL;
    uint8_t *canvas;
    int when;
    vae_status status = VAE_OK;
    if (WebPAnimDecoderOptionsInit(&how) == 0) {
        TRY(vae_fail(err, VAE_ERR_RUNTIME, "%s: libwebp is of another version", f->path));
    }
    how.color_mode = MODE_RGBA;
    errno = 0;
    decoder = WebPAnimDecoderNew(data, &how);
    if (decoder == NULL || WebPAnimDecoderGetNext(decoder, &canvas, &when) == 0) {
        TRY(damaged(f, VP8_STATUS_BITSTREAM_ERROR, err));
    }
    for (size_t i = 0; i < p->width * p->height; i++) {
        memcpy(p->pixels + 3 * i, canvas + 4 * i, 3);
    }
done:
    WebPAnimDecoderDelete(decoder);
    return status;
}

static vae_status decode(vae_picture *p, const vae_picture_file *f, const uint8_t *bytes, size_t n,
                         vae_error *err)
{
    WebPDecoderConfig config;
    if (WebPInitDecoderConfig(&config) == 0) {
        return vae_fail(err, VAE_ERR_RUNTIME, "%s: libwebp is of another version", f->path);
    }
    config.output.colorspace = MODE_RGB;
    config.output.is_external_memory = 1;
    config.output.u.RGBA = (WebPRGBABuffer){
        .rgba = p->pixels, .stride = (int)(3 * p->width), .size = 3 * p->width * p->height};
    errno = 0;
    const VP8StatusCode code = WebPDecode(bytes, n, &config);
    return code == VP8_STATUS_OK ? VAE_OK : damaged(f, code, err);
}

/* Size and kind, from n first bytes. */
static vae_status read_header(vae_picture *p, const vae_picture_file *f, const uint8_t *bytes,
                              size_t n, vae_error *err)
{
    WebPBitstreamFeatures features;
    vae_status status = VAE_OK;
    errno = 0;
    const VP8StatusCode code = WebPGetFeatures(bytes, n, &features);
    if (code != VP8_STATUS_OK) {
        TRY(damaged(f, code, err));
    }
    p->width = (size_t)features.width, p->height = (size_t)features.height;
    p->channels = 3;
    p->more = features.has_animation != 0;
    TRY(vae_picture_check_sides(f, p->width, p->height, err));
done:
    return status;
}

vae_status vae_webp_read(vae_picture *p, const vae_picture_file *f, bool header, vae_error *err)
{
    enum { FIRST = 64 }; /* bytes, which hold all headers */
    uint8_t first[FIRST], *bytes = NULL;
    size_t got;
    vae_status status = VAE_OK;
    TRY(vae_picture_bytes(f, first, FIRST, 0, &got, err));
    TRY(read_header(p, f, first, got, err));
    TRY(find_exif(p, f, err));
    if (header) {
        return VAE_OK;
    }
    const uint64_t claim = CHUNK_HEAD + (uint64_t)little(first + 4);
    const size_t n = claim < f->bytes ? claim : f->bytes;
    TRY(vae_check_memory(n, f->path, err));
    bytes = malloc(n);
    p->pixels = malloc(p->width * p->height * p->channels);
    if (bytes == NULL || p->pixels == NULL) {
        TRY(vae_fail_memory(err, n + p->width * p->height * p->channels, f->path));
    }
    TRY(vae_picture_bytes(f, bytes, n, 0, &got, err));
    const size_t width = p->width, height = p->height;
    TRY(read_header(p, f, bytes, got, err));
    if (p->width != width || p->height != height) { /* what the first bytes did not tell */
        errno = 0;
        TRY(damaged(f, VP8_STATUS_BITSTREAM_ERROR, err));
    }
    if (p->more) {
        TRY(decode_animation(p, f, &(WebPData){bytes, got}, err));
    } else {
        TRY(decode(p, f, bytes, got, err));
    }
done:
    free(bytes);
    return status;
}
