/* Reading JPEG files, by libjpeg. */
#include <errno.h>
#include <setjmp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include <jpeglib.h>

#include <jerror.h>

#include "image/image.h"

/* libjpeg's errors end in a longjmp, so what survives one lives here. */
typedef struct {
    struct jpeg_error_mgr manager; /* first: libjpeg hands back its address */
    jmp_buf jump;
    char text[JMSG_LENGTH_MAX];
    FILE *file;
    uint8_t *pixels;
    size_t file_bytes;
    bool no_memory;
} jpeg_reader;

static void on_error(j_common_ptr jpeg)
{
    jpeg_reader *r = (jpeg_reader *)jpeg->err;
    r->no_memory = jpeg->err->msg_code == JERR_OUT_OF_MEMORY;
    jpeg->err->format_message(jpeg, r->text);
    longjmp(r->jump, 1);
}

/* libjpeg warns of damaged data and goes on with grey; here they are errors. */
static void on_message(j_common_ptr jpeg, int level)
{
    jpeg_reader *r = (jpeg_reader *)jpeg->err;
    if (level < 0) {
        jpeg->err->format_message(jpeg, r->text);
        longjmp(r->jump, 1);
    }
}

/* out: {width, height, channels}. pixels: NULL = only the header. */
static vae_status decode(jpeg_reader *r, struct jpeg_decompress_struct *jpeg, const char *path,
                         size_t out[3], bool header_only, vae_error *err)
{
    if (setjmp(r->jump) != 0) {
        if (r->no_memory) {
            return vae_fail_memory(err, out[0] * out[1] * out[2], path);
        }
        const bool disk = ferror(r->file) != 0; /* libjpeg takes what failed for the end */
        return vae_fail(err, disk ? VAE_ERR_IO : VAE_ERR_DATA, "%s: cannot read JPEG: %s", path,
                        disk ? "the disk fails" : r->text);
    }
    jpeg_create_decompress(jpeg); /* it allocates, so that it may jump, too */
    jpeg_stdio_src(jpeg, r->file);
    jpeg_read_header(jpeg, TRUE);
    if (jpeg->image_width > VAE_PNG_SIDE || jpeg->image_height > VAE_PNG_SIDE) {
        return vae_fail(err, VAE_ERR_DATA,
                        "%s: picture of %u x %u pixels: expected at most %d a side", path,
                        jpeg->image_width, jpeg->image_height, VAE_PNG_SIDE);
    }
    if ((double)jpeg->image_width * jpeg->image_height > 2048.0 * (double)r->file_bytes) {
        return vae_fail(err, VAE_ERR_DATA,
                        "%s: header says %u x %u pixels, but %zu bytes cannot hold them", path,
                        jpeg->image_width, jpeg->image_height, r->file_bytes);
    }
    if (jpeg->num_components != 1 && jpeg->num_components != 3) {
        return vae_fail(
            err, VAE_ERR_DATA,
            "%s: JPEG of %d colour components (CMYK?): expected grey or RGB; convert it", path,
            jpeg->num_components);
    }
    out[0] = jpeg->image_width;
    out[1] = jpeg->image_height;
    out[2] = jpeg->num_components == 1 ? 1 : 3;
    if (header_only) {
        return VAE_OK;
    }
    jpeg->out_color_space = out[2] == 1 ? JCS_GRAYSCALE : JCS_RGB;
    r->pixels = malloc(out[0] * out[1] * out[2]);
    if (r->pixels == NULL) {
        r->no_memory = true;
        longjmp(r->jump, 1);
    }
    jpeg_start_decompress(jpeg);
    while (jpeg->output_scanline < jpeg->output_height) {
        JSAMPROW row = r->pixels + (size_t)jpeg->output_scanline * out[0] * out[2];
        jpeg_read_scanlines(jpeg, &row, 1);
    }
    jpeg_finish_decompress(jpeg);
    return VAE_OK;
}

vae_status vae_jpeg_read(const char *path, uint8_t **pixels, size_t *width, size_t *height,
                         size_t *channels, vae_error *err)
{
    struct jpeg_decompress_struct jpeg = {0};
    size_t out[3] = {0};
    vae_status status = VAE_OK;
    jpeg_reader *r = calloc(1, sizeof *r);
    if (r == NULL) {
        return vae_fail_memory(err, sizeof *r, "a JPEG reader");
    }
    r->file = fopen(path, "rbe");
    if (r->file == NULL) {
        TRY(vae_fail(err, VAE_ERR_IO, "%s: cannot open: %s", path, strerror(errno)));
    }
    struct stat info;
    if (fstat(fileno(r->file), &info) != 0) {
        TRY(vae_fail(err, VAE_ERR_IO, "%s: cannot read: %s", path, strerror(errno)));
    }
    r->file_bytes = (size_t)info.st_size;
    jpeg.err = jpeg_std_error(&r->manager);
    r->manager.error_exit = on_error;
    r->manager.emit_message = on_message;
    status = decode(r, &jpeg, path, out, pixels == NULL, err);
    jpeg_destroy_decompress(&jpeg);
    TRY(status);
    if (pixels != NULL) {
        *pixels = r->pixels;
        r->pixels = NULL;
    }
    *width = out[0];
    *height = out[1];
    *channels = out[2];
done:
    if (r->file != NULL) {
        fclose(r->file);
    }
    free(r->pixels);
    free(r);
    return status;
}
