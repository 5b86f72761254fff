/* Picture files and folders of them as data sets. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/file.h"
#include "base/pool.h"
#include "base/stream.h"
#include "base/text.h"
#include "config/config.h"
#include "dataset/cache.h"
#include "dataset/folder.h"
#include "dataset/readers.h"
#include "image/image.h"

enum {
    STRETCH = 256,         /* files that are read side by side */
    BLOCK_BYTES = 1 << 26, /* of rows on their way to a cache, unless one alone is larger */
    MOST_TOLD = 10,        /* files left out that are named in notes */
};

static vae_status has(bool *has, const char *folder, vae_split split, vae_error *err)
{
    char path[VAE_FOLDER_PATH];
    vae_status status = VAE_OK;
    TRY(vae_is_folder(has, folder, err));
    TRY(*has ? vae_folder_split(has, folder, split, path, err) : VAE_OK);
    TRY(*has ? vae_folder_has_pictures(has, path, err) : VAE_OK);
done:
    return status;
}

/* What became of one file. */
typedef struct {
    vae_picture picture; /* without pixels */
    bool loses_colour;
    vae_error why;
} item;

typedef struct {
    const vae_folder *files;
    const vae_data_options *options;
    vae_dataset *set;      /* takes what is left out */
    size_t side, channels; /* side: 0 = as they are */
    size_t width, height;
    vae_picture_counts counts;
    item *items; /* (STRETCH) of the files from `at` on */
    size_t at;
    uint8_t *rows; /* where the row of file `at` goes */
} job;

static unsigned reading(const job *j)
{
    return j->options->config->exif == VAE_EXIF_IGNORE ? VAE_PICTURE_AS_STORED : 0;
}

static bool is_coloured(const uint8_t *pixels, size_t n)
{
    bool coloured = false;
    for (size_t i = 0; i < n && !coloured; i++) {
        const uint8_t *p = pixels + 3 * i;
        coloured = p[0] != p[1] || p[1] != p[2];
    }
    return coloured;
}

/* Into its row. The picture is held once: colour becomes grey where it lies, and grey becomes
 * colour when it has its size, which gives the same bytes. */
static vae_status read_one(const job *j, item *it, const char *path, uint8_t *row, vae_error *err)
{
    uint8_t *small = NULL;
    vae_picture *p = &it->picture;
    vae_status status = VAE_OK;
    TRY(vae_picture_read(p, path, reading(j), err));
    const size_t n = p->width * p->height;
    size_t channels = p->channels;
    if (channels == 3 && j->channels == 1) {
        it->loses_colour = is_coloured(p->pixels, n);
        vae_image_convert(p->pixels, 1, p->pixels, 3, n);
        channels = 1;
    }
    if (p->width == j->width && p->height == j->height) {
        vae_image_convert(row, j->channels, p->pixels, channels, n);
    } else if (j->side == 0) {
        TRY(vae_fail(err, VAE_ERR_DATA, "%s: its size changed while it was read", path));
    } else if (channels == j->channels) {
        TRY(vae_image_square(row, j->side, p->pixels, p->width, p->height, channels, err));
    } else {
        small = malloc(j->side * j->side);
        if (small == NULL) {
            TRY(vae_fail_memory(err, j->side * j->side, path));
        }
        TRY(vae_image_square(small, j->side, p->pixels, p->width, p->height, 1, err));
        vae_image_convert(row, 3, small, 1, j->side * j->side);
    }
done:
    free(small);
    free(p->pixels);
    p->pixels = NULL;
    return status;
}

static void look_at_some(void *ctx, int thread, size_t first, size_t end)
{
    const job *j = ctx;
    char path[VAE_FOLDER_PATH];
    (void)thread;
    for (size_t i = first; i < end && !vae_stopping(j->options->stop); i++) {
        vae_picture_read(&j->items[i].picture, vae_folder_path(j->files, j->at + i, path),
                         reading(j) | VAE_PICTURE_HEADER, &j->items[i].why);
    }
}

static void read_some(void *ctx, int thread, size_t first, size_t end)
{
    const job *j = ctx;
    const size_t d = j->width * j->height * j->channels;
    char path[VAE_FOLDER_PATH];
    (void)thread;
    for (size_t i = first; i < end && !vae_stopping(j->options->stop); i++) {
        read_one(j, &j->items[i], vae_folder_path(j->files, j->at + i, path), j->rows + i * d,
                 &j->items[i].why);
    }
}

/* The n files from `at` on, on all cores: what becomes of each does not depend on how many. Large
 * ones take a while each, so that a stop is looked for before every one. */
static vae_status run_stretch(job *j, size_t n, vae_part_fn *work, vae_error *err)
{
    memset(j->items, 0, n * sizeof *j->items);
    vae_parallel(vae_threads(0), n, 1, work, j);
    return !vae_stopping(j->options->stop)
               ? VAE_OK
               : vae_fail(err, VAE_ERR_INTERRUPTED, "%s: stopped after %zu of %zu pictures",
                          j->set->source, j->at, j->files->n);
}

/* ---- files that are left out ---- */

static void forget_left_out(vae_dataset *set)
{
    vae_left_out_free(set->left_out, set->n_left_out);
    set->left_out = NULL;
    set->n_left_out = 0;
}

/* One more, file i of the list. why: begins with its path. */
static vae_status add_left_out(job *j, size_t i, const char *why, vae_error *err)
{
    vae_dataset *set = j->set;
    char path[VAE_FOLDER_PATH];
    vae_folder_path(j->files, i, path);
    const size_t n = strlen(path);
    if ((set->n_left_out & (set->n_left_out - 1)) == 0) {
        const size_t room = set->n_left_out > 0 ? 2 * set->n_left_out : 1;
        vae_left_out *more = realloc(set->left_out, room * sizeof *more);
        if (more == NULL) {
            return vae_fail_memory(err, room * sizeof *more, "a list of pictures");
        }
        set->left_out = more;
    }
    why += strncmp(why, path, n) == 0 && strncmp(why + n, ": ", 2) == 0 ? n + 2 : 0;
    vae_left_out *out = &set->left_out[set->n_left_out++];
    *out = (vae_left_out){.number = i, .file = strdup(path), .why = strdup(why)};
    return out->file != NULL && out->why != NULL ? VAE_OK : vae_fail_memory(err, strlen(why), path);
}

/* A file that could not be read is left out, if --skip-bad has one to spare. What is no fault of
 * the file's, memory or a library that is not there, is an error in any case. */
static vae_status spare(job *j, size_t i, vae_error *err)
{
    const vae_error *why = &j->items[i - j->at].why;
    const size_t most = j->options->config->skip_bad, n = j->set->n_left_out;
    if ((why->status != VAE_ERR_DATA && why->status != VAE_ERR_IO) || j->files->folder[0] == '\0') {
        return vae_fail(err, why->status, "%s", why->text);
    }
    if (n < most) {
        return add_left_out(j, i, why->text, err);
    }
    return most == 0 ? vae_fail(err, why->status,
                                "%.900s (--skip-bad N leaves up to N such files out)", why->text)
                     : vae_fail(err, why->status,
                                "%.800s; before it %zu other%s could not be read, as many as "
                                "--skip-bad %zu leaves out",
                                why->text, n, vae_s(n), most);
}

static void tell_left_out(const vae_dataset *set, const vae_error *err)
{
    const vae_notes *notes = err != NULL ? err->notes : NULL;
    for (size_t i = 0; i < set->n_left_out && i < MOST_TOLD; i++) {
        vae_note(notes, "warning: %s: left out: %s", set->left_out[i].file, set->left_out[i].why);
    }
    if (set->n_left_out > MOST_TOLD) {
        vae_note(notes, "warning: %s: %zu more pictures are left out", set->source,
                 set->n_left_out - MOST_TOLD);
    }
}

/* ---- all of them ---- */

/* Shape of the rows, from the headers of all files, so that a misfit shows before the work. Where
 * options say all, nothing is looked at. */
static vae_status choose_shape(job *j, vae_error *err)
{
    const vae_config *config = j->options->config;
    char path[VAE_FOLDER_PATH];
    size_t first = SIZE_MAX;
    bool colour = false;
    vae_status status = VAE_OK;
    j->channels = config->image_channels > 0 ? config->image_channels : j->options->channels;
    j->width = j->height = j->side;
    if (j->side > 0 && j->channels > 0) {
        return VAE_OK;
    }
    for (j->at = 0; j->at < j->files->n; j->at += STRETCH) {
        const size_t n = j->files->n - j->at < STRETCH ? j->files->n - j->at : STRETCH;
        TRY(run_stretch(j, n, look_at_some, err));
        for (size_t i = 0; i < n; i++) {
            const vae_picture *p = &j->items[i].picture;
            if (j->items[i].why.status != VAE_OK) {
                TRY(spare(j, j->at + i, err));
                continue;
            }
            colour = colour || p->channels == 3;
            if (first == SIZE_MAX && j->side == 0) {
                first = j->at + i;
                j->width = p->width, j->height = p->height;
            }
            if (j->side == 0 && (p->width != j->width || p->height != j->height)) {
                char other[VAE_FOLDER_PATH];
                TRY(vae_fail(err, VAE_ERR_DATA,
                             "%s: %zu x %zu pixels, but %s has %zu x %zu; --image-size N makes all "
                             "of them N x N",
                             vae_folder_path(j->files, j->at + i, path), p->width, p->height,
                             vae_folder_path(j->files, first, other), j->width, j->height));
            }
        }
    }
    if (j->channels == 0) {
        j->channels = colour ? 3 : 1;
    }
    forget_left_out(j->set); /* reading them finds these, and more perhaps */
done:
    return status;
}

/* Of the n files from `at` on, of which `before` have rows already, the rows of the good ones close
 * up, and so do their labels. */
static vae_status keep_good(job *j, size_t n, size_t before, size_t *good, vae_error *err)
{
    const size_t d = j->width * j->height * j->channels;
    vae_status status = VAE_OK;
    *good = 0;
    for (size_t i = 0; i < n; i++) {
        const item *it = &j->items[i];
        if (it->why.status != VAE_OK) {
            TRY(spare(j, j->at + i, err));
            continue;
        }
        j->counts.grey += it->picture.channels == 1;
        j->counts.colour += it->loses_colour;
        j->counts.many += it->picture.more;
        if (*good != i) {
            memmove(j->rows + *good * d, j->rows + i * d, d);
        }
        j->files->label[before + *good] = j->files->label[j->at + i];
        (*good)++;
    }
done:
    return status;
}

/* All files, a stretch at a time; the first bad one in their order is reported. Rows go to *rows,
 * which is malloc'ed, or if there is a writer to that. */
static vae_status read_all(job *j, vae_cache_writer *cache, uint8_t **rows, vae_error *err)
{
    const size_t d = j->width * j->height * j->channels, threads = (size_t)vae_threads(0);
    size_t most = STRETCH, bytes, good;
    uint8_t *block = NULL;
    vae_status status = VAE_OK;
    if (cache != NULL && BLOCK_BYTES / d < most) {
        most = BLOCK_BYTES / d > threads ? BLOCK_BYTES / d : threads;
        most = most < STRETCH ? most : STRETCH;
    }
    if (!vae_checked_mul(cache != NULL ? most : j->files->n, d, &bytes) ||
        (block = malloc(bytes)) == NULL) {
        TRY(vae_fail_memory(err, (unsigned long long)j->files->n * d, "pictures"));
    }
    for (j->at = 0; j->at < j->files->n; j->at += most) {
        const size_t n = j->files->n - j->at < most ? j->files->n - j->at : most;
        j->rows = cache != NULL ? block : block + j->set->n * d;
        TRY(run_stretch(j, n, read_some, err));
        TRY(keep_good(j, n, j->set->n, &good, err));
        TRY(cache != NULL ? vae_cache_add(cache, block, good * d, err) : VAE_OK);
        j->set->n += good;
        if (j->options->progress != NULL) {
            j->options->progress(j->options->ctx, j->at + n, j->files->n);
        }
    }
    if (j->set->n == 0) {
        TRY(vae_fail(err, VAE_ERR_DATA, "%s: none of its pictures can be read: %s: %s",
                     j->set->source, j->set->left_out[0].file, j->set->left_out[0].why));
    }
    if (cache == NULL) {
        uint8_t *fewer = j->set->n < j->files->n ? realloc(block, j->set->n * d) : block;
        *rows = fewer != NULL ? fewer : block;
        block = NULL;
    }
done:
    free(block);
    return status;
}

/* Reads the files into the set, or into a cache. */
static vae_status decode(job *j, vae_cache_writer *cache, vae_error *err)
{
    vae_dataset *set = j->set;
    uint8_t *rows = NULL;
    vae_status status = VAE_OK;
    j->items = malloc(STRETCH * sizeof *j->items);
    if (j->items == NULL) {
        TRY(vae_fail_memory(err, STRETCH * sizeof *j->items, "pictures"));
    }
    TRY(choose_shape(j, err));
    set->height = j->height, set->width = j->width, set->channels = j->channels;
    set->d = j->height * j->width * j->channels;
    TRY(read_all(j, cache, &rows, err));
    set->rows = rows;
done:
    free(j->items);
    j->items = NULL;
    return status;
}

/* ---- with a cache ---- */

static void make_key(const job *j, vae_cache_key *key)
{
    const vae_config *c = j->options->config;
    char libraries[VAE_PICTURE_LIBRARIES];
    key->files = j->files;
    key->channels = c->image_channels > 0 ? c->image_channels : j->options->channels;
    snprintf(key->settings, sizeof key->settings, "--image-size %zu --exif %s --limit %zu, %s",
             c->image_size, c->exif == VAE_EXIF_IGNORE ? "ignore" : "honour", j->options->limit,
             vae_picture_libraries(libraries));
}

/* Labels of the rows that a cache holds. */
static vae_status close_up_labels(job *j, vae_error *err)
{
    const vae_dataset *set = j->set;
    size_t out = 0;
    for (size_t i = 0; i < j->files->n; i++) {
        if (out < set->n_left_out && set->left_out[out].number == i) {
            out++;
        } else {
            j->files->label[i - out] = j->files->label[i];
        }
    }
    const size_t most = j->options->config->skip_bad;
    return set->n_left_out <= most
               ? VAE_OK
               : vae_fail(err, VAE_ERR_DATA, "%s: %s (%zu such files; --skip-bad leaves %zu out)",
                          set->left_out[0].file, set->left_out[0].why, set->n_left_out, most);
}

/* The cache that fits, if there is one: *fits. */
static vae_status open_cache(job *j, bool *fits, char why[256], const char *path,
                             const vae_cache_key *key, vae_error *err)
{
    vae_status status = VAE_OK;
    TRY(vae_cache_open(j->set, &j->counts, fits, why, path, key, err));
    TRY(*fits ? close_up_labels(j, err) : VAE_OK);
done:
    if (status != VAE_OK) {
        forget_left_out(j->set);
    }
    return status;
}

/* Opens the cache, which is made, or made anew, where it does not fit. */
static vae_status need_cache(job *j, const char *path, const vae_cache_key *key, vae_error *err)
{
    const vae_notes *notes = err != NULL ? err->notes : NULL;
    vae_cache_writer writer = {.file.open = false};
    char why[256];
    bool fits = false;
    vae_status status = VAE_OK;
    TRY(open_cache(j, &fits, why, path, key, err));
    if (fits) {
        return VAE_OK;
    }
    vae_note(notes, "%s: %zu pictures of %s are decoded into this cache%s%s", path, j->files->n,
             j->files->folder, why[0] != '\0' ? ", anew: " : "", why);
    status = vae_cache_begin(&writer, path, err);
    status = status == VAE_OK ? decode(j, &writer, err) : status;
    const bool good = status == VAE_OK;
    const vae_status ended = vae_cache_end(&writer, good, j->set, &j->counts, key, err);
    TRY(good ? ended : status);
    forget_left_out(j->set);
    TRY(vae_cache_open(j->set, &j->counts, &fits, why, path, key, err));
    if (!fits) {
        TRY(vae_fail(err, VAE_ERR_IO, "%s: another program writes it, too", path));
    }
done:
    return status;
}

/* Takes the cache of either split, if it fits; else there is none. */
static void try_cache(job *j, const char *path, const vae_cache_key *key, const vae_error *err)
{
    char test[VAE_PATH + 8];
    bool fits = false;
    snprintf(test, sizeof test, "%s%s", path, VAE_CACHE_TEST);
    for (size_t i = 0; i < 2 && !fits; i++) {
        char why[256];
        vae_error reason = {0};
        if (open_cache(j, &fits, why, i == 0 ? path : test, key, &reason) != VAE_OK) {
            vae_note(err != NULL ? err->notes : NULL, "warning: %s; it is not used", reason.text);
        }
    }
}

/* ---- sets ---- */

/* What nobody asked for: files made what others, or the model, are. */
static void announce(const job *j, const vae_error *err)
{
    const vae_notes *notes = err != NULL ? err->notes : NULL;
    const char *source = j->set->source;
    const size_t n = j->set->n, taken = j->options->channels;
    const size_t grey = j->counts.grey, colour = j->counts.colour, many = j->counts.many;
    const char *whose = j->options->of_model ? "as the model has it" : "as the files to train on";
    if (many > 0) {
        vae_note(
            notes,
            "%s: %zu file%s of several pictures (pages, or frames): the first of each is taken",
            source, many, vae_s(many));
    }
    if (j->options->config->image_channels > 0) {
        return;
    }
    if (j->set->channels == 3 && grey > 0) {
        vae_note(notes, "%s: %zu of %zu pictures are grey and become RGB, %s", source, grey, n,
                 taken > 0 ? whose : "as others are in colour (--image-channels 1: all grey)");
    }
    if (colour > 0) {
        vae_note(notes, "%s: %zu of %zu pictures are in colour and become grey, %s", source, colour,
                 n, whose);
    }
}

static vae_status fill(vae_dataset *set, vae_folder *files, const vae_data_options *options,
                       vae_error *err)
{
    job j = {.files = files, .options = options, .set = set, .side = options->config->image_size};
    const char *cache = files->folder[0] != '\0' ? options->cache : NULL;
    vae_cache_key key;
    vae_status status = VAE_OK;
    TRY(vae_folder_limit(files, options->limit, err));
    make_key(&j, &key);
    set->dtype = VAE_U8;
    if (cache != NULL && options->make_cache) {
        TRY(need_cache(&j, cache, &key, err));
    } else if (cache != NULL) {
        try_cache(&j, cache, &key, err);
    }
    TRY(set->map == NULL ? decode(&j, NULL, err) : VAE_OK);
    set->labels = files->label;
    files->label = NULL;
    TRY(vae_labeller_finish(&files->classes, &set->classes, set->labels, set->n, err));
    tell_left_out(set, err);
    announce(&j, err);
done:
    return status;
}

static vae_status load(vae_dataset *set, const char *folder, vae_split split,
                       const vae_data_options *options, vae_error *err)
{
    char path[VAE_FOLDER_PATH], test[VAE_FOLDER_PATH];
    vae_folder files = {0};
    bool found, has_test;
    vae_status status = VAE_OK;
    TRY(vae_folder_split(&found, folder, split, path, err));
    if (!found) {
        TRY(vae_fail(err, VAE_ERR_DATA,
                     "%s: pictures, but no folder test, val or valid with more of them; "
                     "leave --split out",
                     folder));
    }
    if (split == VAE_SPLIT_TRAIN && strcmp(path, folder) != 0) {
        TRY(vae_folder_split(&has_test, folder, VAE_SPLIT_TEST, test, err));
        vae_folder_tell_beside(folder, path + strlen(folder) + 1,
                               has_test ? test + strlen(folder) + 1 : "", err);
    }
    TRY(vae_folder_list(&files, path, err));
    TRY(fill(set, &files, options, err));
done:
    vae_folder_close(&files);
    return status;
}

static vae_status load_file(vae_dataset *set, const char *path, vae_split split,
                            const vae_data_options *options, vae_error *err)
{
    vae_folder files = {0};
    vae_status status = VAE_OK;
    (void)split;
    TRY(vae_folder_list_file(&files, path, err));
    TRY(fill(set, &files, options, err));
done:
    vae_folder_close(&files);
    return status;
}

static const char *const own_options[] = {"image-size", "image-channels", "exif",
                                          "skip-bad",   "cache",          NULL};

const vae_reader vae_pictures_reader = {.name = "picture",
                                        .source = VAE_SOURCE_FOLDER,
                                        .kind = VAE_KIND_PICTURES,
                                        .options = own_options,
                                        .has = has,
                                        .load = load};

static const uint8_t png_magic[2] = {0x89, 'P'}, jpeg_magic[2] = {0xff, 0xd8},
                     pnm_magic[2] = {'P', '1'} /* to P6 */, bmp_magic[2] = {'B', 'M'},
                     webp_magic[2] = {'R', 'I'}, tiff_magic[2] = {'I', 'I'},
                     tiff_other_magic[2] = {'M', 'M'};

const vae_reader vae_png_reader = {.name = "PNG",
                                   .source = VAE_SOURCE_FILE,
                                   .kind = VAE_KIND_PICTURES,
                                   .endings = {".png"},
                                   .magic = png_magic,
                                   .load = load_file};
const vae_reader vae_jpeg_reader = {.name = "JPEG",
                                    .source = VAE_SOURCE_FILE,
                                    .kind = VAE_KIND_PICTURES,
                                    .endings = {".jpg", ".jpeg"},
                                    .magic = jpeg_magic,
                                    .load = load_file};
const vae_reader vae_pnm_reader = {.name = "PGM",
                                   .source = VAE_SOURCE_FILE,
                                   .kind = VAE_KIND_PICTURES,
                                   .endings = {".pgm", ".ppm", ".pbm", ".pnm"},
                                   .magic = pnm_magic,
                                   .more_magic = 5,
                                   .load = load_file};
const vae_reader vae_bmp_reader = {.name = "BMP",
                                   .source = VAE_SOURCE_FILE,
                                   .kind = VAE_KIND_PICTURES,
                                   .endings = {".bmp"},
                                   .magic = bmp_magic,
                                   .load = load_file};
const vae_reader vae_webp_reader = {.name = "WebP",
                                    .source = VAE_SOURCE_FILE,
                                    .kind = VAE_KIND_PICTURES,
                                    .endings = {".webp"},
                                    .magic = webp_magic,
                                    .load = load_file};
const vae_reader vae_tiff_reader = {.name = "TIFF",
                                    .source = VAE_SOURCE_FILE,
                                    .kind = VAE_KIND_PICTURES,
                                    .endings = {".tif", ".tiff"},
                                    .magic = tiff_magic,
                                    .other_magic = tiff_other_magic,
                                    .load = load_file};
