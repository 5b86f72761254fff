/* Reading pictures of any kind. */
#include <string.h>

#include "base/stream.h"
#include "image/image.h"

/* The first bytes of a regular file. */
static vae_status first_bytes(const char *path, uint8_t *bytes, size_t n, size_t *got,
                              vae_error *err)
{
    vae_stream *s;
    vae_status status = vae_stream_open(&s, path, err); /* refuses folders, pipes, devices */
    if (status == VAE_OK) {
        status = vae_stream_read(s, bytes, n, got, err);
        vae_stream_close(s);
    }
    return status;
}

vae_status vae_picture_read(const char *path, uint8_t **pixels, size_t *width, size_t *height,
                            size_t *channels, vae_error *err)
{
    static const uint8_t png[4] = {0x89, 'P', 'N', 'G'}, jpeg[3] = {0xff, 0xd8, 0xff};
    uint8_t head[4];
    size_t got = 0;
    vae_status status = VAE_OK;
    TRY(first_bytes(path, head, sizeof head, &got, err));
    if (got >= sizeof png && memcmp(head, png, sizeof png) == 0) {
        TRY(vae_png_read(path, pixels, width, height, channels, err));
    } else if (got >= sizeof jpeg && memcmp(head, jpeg, sizeof jpeg) == 0) {
        TRY(vae_jpeg_read(path, pixels, width, height, channels, err));
    } else if (got >= 2 && head[0] == 'P' && head[1] >= '1' && head[1] <= '6') {
        TRY(vae_pnm_read(path, pixels, width, height, channels, err));
    } else {
        TRY(vae_fail(err, VAE_ERR_DATA,
                     "%s: not a picture: expected a PNG, JPEG, PGM, PPM or PBM file", path));
    }
done:
    return status;
}
