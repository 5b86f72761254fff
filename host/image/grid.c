/* Rows of data as a grid of cells: the one place that does it. */
#include <stdlib.h>
#include <string.h>

#include "base/stream.h"
#include "image/image.h"

enum {
    PAPER = 64, /* the dark grey between cells */
    NAN_GREY = 128,
    CELL = 56, /* pixels that small pictures are magnified to, about */
    APART = 4, /* columns that stand apart do so by this many gaps more, */
    BAND = 2,  /* and bands of lines by this many */
};

bool vae_is_picture(size_t height, size_t width, size_t channels)
{
    return height > 1 && width > 1 && (channels == 1 || channels == 3);
}

uint8_t vae_pixel(float value)
{
    if (value >= 1.0f) {
        return 255;
    }
    return value > 0.0f ? (uint8_t)(value * 255.0f + 0.5f) : 0; /* NaN: 0 */
}

/* One pixel of a row, HWC. */
static void colour_of(const float *values, size_t channels, uint8_t *out)
{
    static const uint8_t magenta[3] = {255, 0, 255};
    bool nan = false;
    for (size_t c = 0; c < channels; c++) {
        nan = nan || values[c] != values[c];
        out[c] = vae_pixel(values[c]);
    }
    if (nan && channels == 3) {
        memcpy(out, magenta, sizeof magenta);
    } else if (nan) {
        out[0] = NAN_GREY;
    }
}

/* Pixels that wide borders add to the left of a column. */
static size_t apart_before(const vae_grid_spec *spec, size_t column)
{
    size_t pixels = 0;
    for (size_t i = 0; i < sizeof spec->apart / sizeof spec->apart[0]; i++) {
        pixels += spec->apart[i] > 0 && column >= spec->apart[i] ? APART * spec->gap : 0;
    }
    return pixels;
}

/* Pixels that wide borders add above a line. */
static size_t bands_before(const vae_grid_spec *spec, size_t line)
{
    return spec->band > 0 ? line / spec->band * BAND * spec->gap : 0;
}

/* cells*(size*zoom) + (cells+1)*gap + more, or 0 if it is above what a PNG may have. */
static size_t side_of(size_t cells, size_t size, size_t zoom, size_t gap, size_t more)
{
    size_t inner, cell, total;
    if (!vae_checked_mul(size, zoom, &inner) || __builtin_add_overflow(inner, gap, &cell) ||
        !vae_checked_mul(cell, cells, &total) || __builtin_add_overflow(total, gap, &total) ||
        __builtin_add_overflow(total, more, &total)) {
        return 0;
    }
    return total <= VAE_PNG_SIDE ? total : 0;
}

static bool measure(vae_grid *grid, size_t zoom)
{
    const vae_grid_spec *s = &grid->spec;
    grid->width = side_of(s->columns, s->width, zoom, s->gap, apart_before(s, s->columns - 1));
    const size_t lines = (s->cells - 1) / s->columns + 1;
    grid->height = side_of(lines, s->height, zoom, s->gap, bands_before(s, lines - 1));
    return grid->width > 0 && grid->height > 0;
}

/* The given zoom, or the largest that a small picture is magnified by and that fits. */
static bool choose_zoom(vae_grid *grid)
{
    vae_grid_spec *s = &grid->spec;
    if (s->zoom > 0) {
        return measure(grid, s->zoom);
    }
    const size_t side = s->height > s->width ? s->height : s->width;
    for (s->zoom = side >= CELL ? 1 : CELL / side; s->zoom > 1 && !measure(grid, s->zoom);) {
        s->zoom--;
    }
    return measure(grid, s->zoom);
}

vae_status vae_grid_open(vae_grid *grid, const vae_grid_spec *spec, const char *path,
                         vae_error *err)
{
    *grid = (vae_grid){.spec = *spec};
    vae_grid_spec *s = &grid->spec;
    s->columns = s->columns > s->cells ? s->cells : s->columns;
    if (s->cells < 1 || s->columns < 1 || s->height < 1 || s->width < 1 ||
        (s->channels != 1 && s->channels != 3)) {
        return vae_fail(err, VAE_ERR_USAGE,
                        "%s: a grid of %zu pictures of %zu x %zu x %zu in %zu columns cannot be "
                        "drawn",
                        path, s->cells, s->height, s->width, s->channels, s->columns);
    }
    if (!choose_zoom(grid)) {
        return vae_fail(
            err, VAE_ERR_USAGE,
            "%s: a grid of %zu pictures of %zu x %zu in %zu columns, zoom %zu, is above "
            "%d pixels a side; ask for fewer",
            path, s->cells, s->width, s->height, s->columns, s->zoom, VAE_PNG_SIDE);
    }
    const size_t n_bytes = grid->width * grid->height * s->channels;
    grid->pixels = malloc(n_bytes);
    if (grid->pixels == NULL) {
        return vae_fail_memory(err, n_bytes, "a grid of pictures");
    }
    memset(grid->pixels, PAPER, n_bytes);
    return VAE_OK;
}

void vae_grid_draw(vae_grid *grid, size_t cell, const float *row)
{
    const vae_grid_spec *s = &grid->spec;
    const size_t column = cell % s->columns;
    const size_t left = s->gap + column * (s->width * s->zoom + s->gap) + apart_before(s, column);
    const size_t line = cell / s->columns;
    const size_t top = s->gap + line * (s->height * s->zoom + s->gap) + bands_before(s, line);
    for (size_t y = 0; y < s->height * s->zoom; y++) {
        for (size_t x = 0; x < s->width * s->zoom; x++) {
            const float *values = row + (y / s->zoom * s->width + x / s->zoom) * s->channels;
            const size_t at = (top + y) * grid->width + left + x;
            colour_of(values, s->channels, grid->pixels + at * s->channels);
        }
    }
}

vae_status vae_grid_write(const vae_grid *grid, const char *path, vae_error *err)
{
    return vae_png_write(path, grid->pixels, grid->width, grid->height, grid->spec.channels, err);
}

void vae_grid_close(vae_grid *grid)
{
    free(grid->pixels);
    *grid = (vae_grid){0};
}

vae_status vae_image_grid(const char *path, const float *rows, size_t n, size_t height,
                          size_t width, size_t channels, size_t columns, size_t zoom, size_t gap,
                          vae_error *err)
{
    const vae_grid_spec spec = {n, height, width, channels, columns, zoom, gap, {0, 0}, 0};
    vae_grid grid;
    vae_status status = VAE_OK;
    TRY(vae_grid_open(&grid, &spec, path, err));
    for (size_t i = 0; i < n; i++) {
        vae_grid_draw(&grid, i, rows + i * height * width * channels);
    }
    TRY(vae_grid_write(&grid, path, err));
done:
    vae_grid_close(&grid);
    return status;
}
