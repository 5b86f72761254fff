/* A sink for rows: one of three kinds behind one face. */
#include "infer/row_sink.h"

#include <errno.h>
#include <fcntl.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/file.h"
#include "base/text.h"
#include "format/npy.h"
#include "image/image.h"

enum { GAP = 2, LEAST_DIGITS = 6 };

struct vae_row_sink {
    vae_sink_kind kind;
    vae_sink_spec spec;
    const char *path;
    size_t d, done;
    vae_grid grid;
    vae_file file;
    uint8_t *pixels; /* of one picture, in a folder */
    int digits;      /* of its name */
};

vae_status vae_sink_kind_of(vae_sink_kind *kind, const char *path, vae_error *err)
{
    bool folder;
    vae_status status = VAE_OK;
    TRY(vae_is_folder(&folder, path, err));
    if (vae_ends_with(path, "/") || folder) {
        *kind = VAE_SINK_FOLDER;
    } else if (vae_ends_with(path, ".png")) {
        *kind = VAE_SINK_PNG;
    } else if (vae_ends_with(path, ".gif")) {
        *kind = VAE_SINK_GIF;
    } else {
        const bool npy = vae_ends_with(path, ".npy") || strcmp(path, "-") == 0;
        *kind = npy ? VAE_SINK_NPY : VAE_SINK_NONE;
    }
done:
    return status;
}

/* ---- the three kinds ---- */

static size_t columns_of_grid(const vae_sink_spec *s)
{
    return s->columns + (s->ends ? 2 : 0);
}

/* The cell of companion `line` of row i; of the row itself with its own line. */
static size_t cell_of(const vae_sink_spec *s, size_t i, size_t line)
{
    return (i / s->columns * s->lines + line) * columns_of_grid(s) + i % s->columns +
           (s->ends ? 1 : 0);
}

static vae_status open_grid(vae_row_sink *sink, vae_error *err)
{
    vae_sink_spec *s = &sink->spec;
    s->columns = s->columns > 0 ? s->columns : (size_t)ceil(sqrt((double)s->n));
    s->columns = s->columns < s->n ? s->columns : s->n;
    s->lines = s->lines > 0 ? s->lines : 1;
    vae_grid_spec grid = {.cells = s->n,
                          .height = s->height,
                          .width = s->width,
                          .channels = s->channels,
                          .columns = columns_of_grid(s),
                          .gap = GAP,
                          .band = s->lines > 1 ? s->lines : 0};
    if (s->lines > 1 || s->ends) { /* whole lines */
        grid.cells = ((s->n - 1) / s->columns + 1) * s->lines * grid.columns;
    }
    if (s->ends) {
        grid.apart[0] = 1;
        grid.apart[1] = s->columns + 1;
    }
    return vae_grid_open(&sink->grid, &grid, sink->path, err);
}

/* The number in a name such as 000123.png; false for other names. */
static bool picture_number(const char *name, size_t *number)
{
    char *end;
    if (name[0] < '0' || name[0] > '9') {
        return false;
    }
    *number = strtoull(name, &end, 10);
    return strcmp(end, ".png") == 0;
}

static vae_status refuse_leftovers(const vae_row_sink *sink, vae_error *err)
{
    char **names;
    size_t n, number;
    vae_status status = vae_folder_names(&names, &n, sink->path, err);
    for (size_t i = 0; i < n && status == VAE_OK; i++) {
        if (picture_number(names[i], &number) && number >= sink->spec.n) {
            status = vae_fail(err, VAE_ERR_USAGE,
                              "%s: holds %s of an earlier set, which %zu pictures would not "
                              "replace; remove it or name another folder",
                              sink->path, names[i], sink->spec.n);
        }
    }
    vae_names_free(names, n);
    return status;
}

static vae_status open_folder(vae_row_sink *sink, vae_error *err)
{
    char last[32];
    const int digits = snprintf(last, sizeof last, "%zu", sink->spec.n - 1);
    sink->digits = digits > LEAST_DIGITS ? digits : LEAST_DIGITS;
    sink->pixels = malloc(sink->d);
    if (sink->pixels == NULL) {
        return vae_fail_memory(err, sink->d, "a picture");
    }
    if (mkdir(sink->path, 0777) != 0 && errno != EEXIST) {
        return vae_fail(err, VAE_ERR_IO, "%s: cannot make the folder: %s", sink->path,
                        strerror(errno));
    }
    return refuse_leftovers(sink, err);
}

/* The data's own shape: (n,d), (n,h,w) or (n,h,w,3), as vae_dataset_open reads it. */
static vae_status open_npy(vae_row_sink *sink, vae_error *err)
{
    const vae_sink_spec *s = &sink->spec;
    uint8_t header[VAE_NPY_WRITE_HEADER_MAX];
    const bool picture = s->height > 1;
    const size_t shape[4] = {s->n, picture ? s->height : sink->d, s->width, s->channels};
    const size_t of_picture = s->channels == 1 ? 3 : 4;
    const size_t bytes =
        vae_npy_format_header(header, s->wide ? "<f8" : "<f4", shape, picture ? of_picture : 2);
    vae_status status = VAE_OK;
    const size_t item = s->wide ? sizeof(double) : sizeof(float);
    uint64_t all;
    if (__builtin_mul_overflow((uint64_t)s->n, (uint64_t)(sink->d * item), &all) ||
        __builtin_add_overflow(all, (uint64_t)bytes, &all)) {
        all = UINT64_MAX;
    }
    TRY(vae_file_begin(&sink->file, sink->path, err));
    TRY(vae_file_expect(&sink->file, all, err));
    TRY(vae_file_add(&sink->file, header, bytes, err));
done:
    return status;
}

static vae_status open_kind(vae_row_sink *sink, vae_error *err)
{
    vae_status status = VAE_OK;
    if (sink->kind == VAE_SINK_NPY) {
        return open_npy(sink, err);
    }
    TRY(vae_row_sink_check(sink->path, &sink->spec, err));
    if (sink->kind == VAE_SINK_PNG) {
        TRY(open_grid(sink, err));
    } else if (sink->kind == VAE_SINK_FOLDER) {
        TRY(open_folder(sink, err));
    } else {
        TRY(vae_fail(err, VAE_ERR_USAGE,
                     "%s: expected a name that ends in .png, .npy or / (a folder), or -",
                     sink->path));
    }
done:
    return status;
}

vae_status vae_row_sink_check(const char *path, const vae_sink_spec *s, vae_error *err)
{
    if (vae_is_picture(s->height, s->width, s->channels)) {
        return VAE_OK;
    }
    return vae_fail(err, VAE_ERR_USAGE,
                    "%s: the model's data are no pictures: %zu x %zu, %zu channels, where 1 or 3 "
                    "channels and sides above 1 can be drawn; name an .npy file for the rows "
                    "themselves",
                    path, s->height, s->width, s->channels);
}

vae_status vae_row_sink_open(vae_row_sink **out, const char *path, const vae_sink_spec *spec,
                             vae_error *err)
{
    vae_row_sink *sink = calloc(1, sizeof *sink);
    vae_status status = VAE_OK;
    *out = NULL;
    if (sink == NULL) {
        TRY(vae_fail_memory(err, sizeof *sink, "a file"));
    }
    *sink = (vae_row_sink){.spec = *spec, .path = path};
    TRY(vae_sink_kind_of(&sink->kind, path, err));
    sink->d = spec->height * spec->width * spec->channels;
    TRY(open_kind(sink, err));
    *out = sink;
    sink = NULL;
done:
    vae_row_sink_close(sink, false, NULL);
    return status;
}

/* ---- rows ---- */

/* One PNG a row: 000000.png, 000001.png ... as tools that compare pictures (FID) take them. They
 * are not synced one by one: that takes longer than all the rest. */
static vae_status put_picture(vae_row_sink *sink, const float *row, vae_error *err)
{
    char path[VAE_PATH + 32];
    uint8_t *bytes = NULL;
    size_t n;
    for (size_t i = 0; i < sink->d; i++) {
        sink->pixels[i] = vae_pixel(row[i]);
    }
    const size_t length = strlen(sink->path);
    if ((size_t)snprintf(path, sizeof path, "%s%s%0*zu.png", sink->path,
                         sink->path[length - 1] == '/' ? "" : "/", sink->digits,
                         sink->done) >= sizeof path) {
        return vae_fail(err, VAE_ERR_USAGE, "%s: the folder's name is too long", sink->path);
    }
    vae_status status = vae_png_pack(&bytes, &n, path, sink->pixels, sink->spec.width,
                                     sink->spec.height, sink->spec.channels, err);
    if (status != VAE_OK) {
        return status;
    }
    vae_file file;
    TRY(vae_file_begin_new(&file, path, err));
    file.hasty = true;
    status = vae_file_add(&file, bytes, n, err);
    const vae_status ended = vae_file_end(&file, status == VAE_OK, err);
    status = status == VAE_OK ? ended : status;
done:
    free(bytes);
    return status;
}

vae_status vae_row_sink_put(vae_row_sink *sink, const float *rows, size_t n, vae_error *err)
{
    vae_status status = VAE_OK;
    if (sink->kind == VAE_SINK_NPY) {
        sink->done += n;
        return vae_file_add(&sink->file, rows, n * sink->d * sizeof *rows, err);
    }
    for (size_t i = 0; i < n; i++) {
        if (sink->kind == VAE_SINK_PNG) {
            vae_grid_draw(&sink->grid, cell_of(&sink->spec, sink->done, sink->spec.line),
                          rows + i * sink->d);
        } else {
            TRY(put_picture(sink, rows + i * sink->d, err));
        }
        sink->done++;
    }
done:
    return status;
}

vae_status vae_row_sink_put_doubles(vae_row_sink *sink, const double *rows, size_t n,
                                    vae_error *err)
{
    const size_t items = n * sink->d;
    if (sink->kind == VAE_SINK_NPY && sink->spec.wide) {
        sink->done += n;
        return vae_file_add(&sink->file, rows, items * sizeof *rows, err);
    }
    float *narrow = malloc(items * sizeof *narrow);
    if (narrow == NULL) {
        return vae_fail_memory(err, items * sizeof *narrow, "a batch");
    }
    for (size_t i = 0; i < items; i++) {
        narrow[i] = (float)rows[i];
    }
    const vae_status status = vae_row_sink_put(sink, narrow, n, err);
    free(narrow);
    return status;
}

void vae_row_sink_beside(vae_row_sink *sink, size_t i, size_t line, const float *row)
{
    if (sink->kind == VAE_SINK_PNG) {
        vae_grid_draw(&sink->grid, cell_of(&sink->spec, i, line), row);
    }
}

void vae_row_sink_end(vae_row_sink *sink, size_t i, bool last, const float *row)
{
    if (sink->kind == VAE_SINK_PNG) {
        const size_t columns = columns_of_grid(&sink->spec);
        const size_t first = cell_of(&sink->spec, i, sink->spec.line) / columns * columns;
        vae_grid_draw(&sink->grid, first + (last ? columns - 1 : 0), row);
    }
}

static vae_status finish(vae_row_sink *sink, bool keep, vae_error *err)
{
    vae_status status = VAE_OK;
    if (sink->kind == VAE_SINK_PNG && keep) {
        status = vae_grid_write(&sink->grid, sink->path, err);
    } else if (sink->kind == VAE_SINK_NPY) {
        status = vae_file_end(&sink->file, keep, err);
    }
    return status;
}

vae_status vae_row_sink_close(vae_row_sink *sink, bool keep, vae_error *err)
{
    if (sink == NULL) {
        return VAE_OK;
    }
    const vae_status status = finish(sink, keep, err);
    vae_grid_close(&sink->grid);
    free(sink->pixels);
    free(sink);
    return status;
}

vae_status vae_row_sink_done(vae_row_sink *sink, vae_status status, vae_error *err)
{
    const vae_status closed = vae_row_sink_close(sink, status == VAE_OK, err);
    return status == VAE_OK ? closed : status;
}
