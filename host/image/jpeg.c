/* Reading JPEG files, by libjpeg. */
#include <setjmp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <jpeglib.h>

#include <jerror.h>

#include "image/formats.h"

/* libjpeg's errors end in a longjmp, so what survives one lives here. */
typedef struct {
    struct jpeg_error_mgr manager; /* first: libjpeg hands back its address */
    jmp_buf jump;
    char text[JMSG_LENGTH_MAX];
    uint8_t *pixels;
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

/* Orientation, from the first marker APP1 that holds EXIF. */
static void find_exif(vae_picture *p, const struct jpeg_decompress_struct *jpeg)
{
    const struct jpeg_marker_struct *m = jpeg->marker_list;
    while (m != NULL && (m->data_length < 6 || memcmp(m->data, "Exif\0\0", 6) != 0)) {
        m = m->next;
    }
    if (m != NULL) {
        p->orientation = vae_exif_orientation(m->data, m->data_length);
    }
}

static vae_status decode(jpeg_reader *r, struct jpeg_decompress_struct *jpeg, vae_picture *p,
                         const vae_picture_file *f, bool header, vae_error *err)
{
    vae_status status = VAE_OK;
    if (setjmp(r->jump) != 0) {
        if (r->no_memory) {
            return vae_fail_memory(err, p->width * p->height * p->channels, f->path);
        }
        const bool disk = ferror(f->file) != 0; /* libjpeg takes what failed for the end */
        return vae_fail(err, disk ? VAE_ERR_IO : VAE_ERR_DATA, "%s: cannot read JPEG: %s", f->path,
                        disk ? "the disk fails" : r->text);
    }
    jpeg_create_decompress(jpeg); /* it allocates, so that it may jump, too */
    jpeg_stdio_src(jpeg, f->file);
    jpeg_save_markers(jpeg, JPEG_APP0 + 1, 0xffff);
    jpeg_read_header(jpeg, TRUE);
    p->width = jpeg->image_width, p->height = jpeg->image_height;
    TRY(vae_picture_check_sides(f, p->width, p->height, err));
    TRY(vae_picture_check_fit(f, p->width, p->height, p->width * p->height / 2048, err));
    if (jpeg->num_components != 1 && jpeg->num_components != 3) {
        TRY(vae_fail(err, VAE_ERR_DATA,
                     "%s: JPEG of %d colour components (CMYK?): expected grey or RGB; convert it",
                     f->path, jpeg->num_components));
    }
    p->channels = jpeg->num_components == 1 ? 1 : 3;
    find_exif(p, jpeg);
    if (header) {
        return VAE_OK;
    }
    jpeg->out_color_space = p->channels == 1 ? JCS_GRAYSCALE : JCS_RGB;
    r->pixels = malloc(p->width * p->height * p->channels);
    if (r->pixels == NULL) {
        r->no_memory = true;
        longjmp(r->jump, 1);
    }
    jpeg_start_decompress(jpeg);
    while (jpeg->output_scanline < jpeg->output_height) {
        JSAMPROW row = r->pixels + (size_t)jpeg->output_scanline * p->width * p->channels;
        jpeg_read_scanlines(jpeg, &row, 1);
    }
    jpeg_finish_decompress(jpeg);
done:
    return status;
}

#define TEXT(x)  #x
#define VALUE(x) TEXT(x)

const char *vae_jpeg_library(void)
{
#ifdef LIBJPEG_TURBO_VERSION
    return "libjpeg-turbo " VALUE(LIBJPEG_TURBO_VERSION);
#else
    return "libjpeg " VALUE(JPEG_LIB_VERSION);
#endif
}

vae_status vae_jpeg_read(vae_picture *p, const vae_picture_file *f, bool header, vae_error *err)
{
    struct jpeg_decompress_struct jpeg = {0};
    jpeg_reader *r = calloc(1, sizeof *r);
    if (r == NULL) {
        return vae_fail_memory(err, sizeof *r, "a JPEG reader");
    }
    jpeg.err = jpeg_std_error(&r->manager);
    r->manager.error_exit = on_error;
    r->manager.emit_message = on_message;
    const vae_status status = decode(r, &jpeg, p, f, header, err);
    jpeg_destroy_decompress(&jpeg);
    if (status == VAE_OK) {
        p->pixels = r->pixels;
    } else {
        free(r->pixels);
    }
    free(r);
    return status;
}
