/* Animated GIF (GIF89a with Netscape's loop extension). giflib packs; the palette is made here, as
 * where giflib keeps its quantizer changes from version to version. */
#include <gif_lib.h>
#include <stdlib.h>
#include <string.h>

#include "base/file.h"
#include "image/image.h"

enum {
    COLOURS = 256,
    BITS = 5, /* of a channel, in the histogram that is cut */
    LEVELS = 1 << BITS,
    BINS = LEVELS * LEVELS * LEVELS,
};

/* ---- the palette ---- */

/* How often each bin of colours occurs, and the sums of what fell into it. */
typedef struct {
    uint32_t count[BINS];
    uint64_t sum[BINS][3];
    uint8_t entry[BINS]; /* of the palette, in the end */
} histogram;

/* A box of bins, bounds inclusive, with what is in it. */
typedef struct {
    uint8_t low[3], high[3];
    uint64_t count;
} box;

typedef struct {
    uint8_t colour[COLOURS][3];
    size_t n;
} palette;

static size_t bin_at(size_t r, size_t g, size_t b)
{
    return (r * LEVELS + g) * LEVELS + b;
}

static size_t bin_of(const uint8_t *p)
{
    return bin_at(p[0] >> (8 - BITS), p[1] >> (8 - BITS), p[2] >> (8 - BITS));
}

/* The exact colours, if there are no more than the palette takes. */
static bool exact_palette(palette *out, const uint8_t *pixels, size_t n)
{
    out->n = 0;
    for (size_t i = 0, last = 0; i < n; i++) {
        const uint8_t *p = pixels + 3 * i;
        if (out->n > 0 && memcmp(out->colour[last], p, 3) == 0) {
            continue; /* flat areas */
        }
        for (last = 0; last < out->n && memcmp(out->colour[last], p, 3) != 0;) {
            last++;
        }
        if (last == COLOURS) {
            return false;
        }
        if (last == out->n) {
            memcpy(out->colour[out->n++], p, 3);
        }
    }
    return true;
}

/* Shrinks a box to the bins that have something in them, and counts that. */
static void shrink(const histogram *h, box *b)
{
    box s = {{LEVELS, LEVELS, LEVELS}, {0, 0, 0}, 0};
    uint8_t at[3];
    for (at[0] = b->low[0]; at[0] <= b->high[0]; at[0]++) {
        for (at[1] = b->low[1]; at[1] <= b->high[1]; at[1]++) {
            for (at[2] = b->low[2]; at[2] <= b->high[2]; at[2]++) {
                const uint32_t count = h->count[bin_at(at[0], at[1], at[2])];
                s.count += count;
                for (int c = 0; c < 3 && count > 0; c++) {
                    s.low[c] = at[c] < s.low[c] ? at[c] : s.low[c];
                    s.high[c] = at[c] > s.high[c] ? at[c] : s.high[c];
                }
            }
        }
    }
    *b = s;
}

static int longest_side(const box *b)
{
    int side = 0;
    for (int c = 1; c < 3; c++) {
        side = b->high[c] - b->low[c] > b->high[side] - b->low[side] ? c : side;
    }
    return side;
}

/* What lies in the slab of the box at `level` along axis `c`. */
static uint64_t slab(const histogram *h, const box *b, int c, uint8_t level)
{
    box thin = *b;
    thin.low[c] = thin.high[c] = level;
    shrink(h, &thin);
    return thin.count;
}

/* Cuts *b where half of its pixels are on each side; the upper half goes to *upper. */
static void cut(const histogram *h, box *b, box *upper)
{
    const int c = longest_side(b);
    uint64_t below = 0;
    uint8_t at = b->low[c];
    for (; at < b->high[c]; at++) {
        below += slab(h, b, c, at);
        if (2 * below >= b->count || at + 1 == b->high[c]) {
            break;
        }
    }
    *upper = *b;
    b->high[c] = at;
    upper->low[c] = (uint8_t)(at + 1);
    shrink(h, b);
    shrink(h, upper);
}

/* The box with most pixels that can still be cut; n if there is none. */
static size_t fullest(const box *boxes, size_t n)
{
    size_t best = n;
    for (size_t i = 0; i < n; i++) {
        const int c = longest_side(&boxes[i]);
        if (boxes[i].high[c] > boxes[i].low[c] &&
            (best == n || boxes[i].count > boxes[best].count)) {
            best = i;
        }
    }
    return best;
}

/* Sets the palette's entry to the box's mean, and the bins' to that entry. */
static void average(histogram *h, const box *b, palette *out)
{
    uint64_t sum[3] = {0};
    for (size_t r = b->low[0]; r <= b->high[0]; r++) {
        for (size_t g = b->low[1]; g <= b->high[1]; g++) {
            for (size_t blue = b->low[2]; blue <= b->high[2]; blue++) {
                const size_t bin = bin_at(r, g, blue);
                h->entry[bin] = (uint8_t)out->n;
                for (int c = 0; c < 3; c++) {
                    sum[c] += h->sum[bin][c];
                }
            }
        }
    }
    for (int c = 0; c < 3; c++) {
        out->colour[out->n][c] = (uint8_t)((sum[c] + b->count / 2) / b->count);
    }
    out->n++;
}

static void median_cut(histogram *h, palette *out, const uint8_t *pixels, size_t n)
{
    box boxes[COLOURS] = {{{0, 0, 0}, {LEVELS - 1, LEVELS - 1, LEVELS - 1}, 0}};
    size_t n_boxes = 1;
    for (size_t i = 0; i < n; i++) {
        const size_t bin = bin_of(pixels + 3 * i);
        h->count[bin]++;
        for (int c = 0; c < 3; c++) {
            h->sum[bin][c] += pixels[3 * i + (size_t)c];
        }
    }
    shrink(h, &boxes[0]);
    for (size_t at; n_boxes < COLOURS && (at = fullest(boxes, n_boxes)) < n_boxes;) {
        cut(h, &boxes[at], &boxes[n_boxes++]);
    }
    out->n = 0;
    for (size_t i = 0; i < n_boxes; i++) {
        average(h, &boxes[i], out);
    }
}

/* The palette of all frames, and their pixels as entries of it. */
static vae_status index_pixels(palette *colours, uint8_t *indices, const uint8_t *pixels, size_t n,
                               size_t channels, vae_error *err)
{
    if (channels == 1) {
        for (colours->n = 0; colours->n < COLOURS; colours->n++) {
            memset(colours->colour[colours->n], (int)colours->n, 3);
        }
        memcpy(indices, pixels, n);
        return VAE_OK;
    }
    if (exact_palette(colours, pixels, n)) {
        for (size_t i = 0, entry = 0; i < n; i++) {
            if (memcmp(colours->colour[entry], pixels + 3 * i, 3) != 0) {
                for (entry = 0; memcmp(colours->colour[entry], pixels + 3 * i, 3) != 0;) {
                    entry++;
                }
            }
            indices[i] = (uint8_t)entry;
        }
        return VAE_OK;
    }
    histogram *h = calloc(1, sizeof *h);
    if (h == NULL) {
        return vae_fail_memory(err, sizeof *h, "a palette");
    }
    median_cut(h, colours, pixels, n);
    for (size_t i = 0; i < n; i++) {
        indices[i] = h->entry[bin_of(pixels + 3 * i)];
    }
    free(h);
    return VAE_OK;
}

/* ---- the file ---- */

typedef struct {
    vae_file file;
    vae_error *err;
} sink;

static int on_write(GifFileType *gif, const GifByteType *bytes, int n)
{
    sink *to = gif->UserData;
    return vae_file_add(&to->file, bytes, (size_t)n, to->err) == VAE_OK ? n : 0;
}

static bool put_start(GifFileType *gif, const palette *colours, int width, int height)
{
    GifColorType entries[COLOURS] = {{0, 0, 0}};
    for (size_t i = 0; i < colours->n; i++) {
        const uint8_t *c = colours->colour[i];
        entries[i] = (GifColorType){c[0], c[1], c[2]};
    }
    ColorMapObject *map = GifMakeMapObject(COLOURS, entries);
    EGifSetGifVersion(gif, true);
    bool ok = map != NULL && EGifPutScreenDesc(gif, width, height, 8, 0, map) == GIF_OK;
    GifFreeMapObject(map);
    const uint8_t for_ever[3] = {1, 0, 0};
    return ok && EGifPutExtensionLeader(gif, APPLICATION_EXT_FUNC_CODE) == GIF_OK &&
           EGifPutExtensionBlock(gif, 11, "NETSCAPE2.0") == GIF_OK &&
           EGifPutExtensionBlock(gif, sizeof for_ever, for_ever) == GIF_OK &&
           EGifPutExtensionTrailer(gif) == GIF_OK;
}

static bool put_frame(GifFileType *gif, uint8_t *indices, int width, int height, unsigned delay)
{
    const GraphicsControlBlock control = {.DisposalMode = DISPOSE_DO_NOT,
                                          .DelayTime = (int)delay,
                                          .TransparentColor = NO_TRANSPARENT_COLOR};
    GifByteType bytes[4];
    const size_t n = EGifGCBToExtension(&control, bytes);
    bool ok = EGifPutExtension(gif, GRAPHICS_EXT_FUNC_CODE, (int)n, bytes) == GIF_OK &&
              EGifPutImageDesc(gif, 0, 0, width, height, false, NULL) == GIF_OK;
    for (int y = 0; y < height && ok; y++) {
        ok = EGifPutLine(gif, indices + (size_t)y * (size_t)width, width) == GIF_OK;
    }
    return ok;
}

static vae_status write_frames(const char *path, uint8_t *indices, const palette *colours,
                               size_t width, size_t height, const size_t *order,
                               const unsigned *delay, size_t n_order, vae_error *err)
{
    vae_error why = {0}; /* the file's own, if it is the file */
    sink to = {.err = &why};
    int reason = E_GIF_ERR_NOT_ENOUGH_MEM;
    vae_status status = vae_file_begin(&to.file, path, err);
    if (status != VAE_OK) {
        return status;
    }
    GifFileType *gif = EGifOpen(&to, on_write, &reason);
    bool ok = gif != NULL && put_start(gif, colours, (int)width, (int)height);
    for (size_t i = 0; i < n_order && ok; i++) {
        ok = put_frame(gif, indices + order[i] * width * height, (int)width, (int)height, delay[i]);
    }
    reason = gif != NULL && gif->Error != 0 ? gif->Error : reason;
    if (gif != NULL && EGifCloseFile(gif, NULL) != GIF_OK) {
        ok = false;
    }
    /* giflib goes on after a write that failed, and says nothing of it: the file itself knows */
    if (ok) {
        return vae_file_end(&to.file, true, err);
    }
    const char *text = GifErrorString(reason);
    vae_fail(&why, VAE_ERR_RUNTIME, "%s: cannot encode GIF: %s", path,
             text != NULL ? text : "giflib failed");
    vae_file_end(&to.file, false, NULL);
    return vae_fail(err, why.status, "%s", why.text);
}

vae_status vae_gif_write(const char *path, const uint8_t *frames, size_t n_frames, size_t width,
                         size_t height, size_t channels, const size_t *order, const unsigned *delay,
                         size_t n_order, vae_error *err)
{
    size_t n;
    if (width < 1 || width > VAE_PNG_SIDE || height < 1 || height > VAE_PNG_SIDE || n_frames < 1 ||
        n_order < 1 || (channels != 1 && channels != 3) ||
        __builtin_mul_overflow(width * height, n_frames, &n)) {
        return vae_fail(err, VAE_ERR_USAGE,
                        "%s: an animation of %zu pictures of %zu x %zu pixels with %zu channels "
                        "cannot be written",
                        path, n_frames, width, height, channels);
    }
    palette colours;
    vae_status status = VAE_OK;
    uint8_t *indices = malloc(n);
    if (indices == NULL) {
        TRY(vae_fail_memory(err, n, "an animation"));
    }
    TRY(index_pixels(&colours, indices, frames, n, channels, err));
    TRY(write_frames(path, indices, &colours, width, height, order, delay, n_order, err));
done:
    free(indices);
    return status;
}
