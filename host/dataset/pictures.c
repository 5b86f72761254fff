/* Folders of picture files as data sets. */
#include <dirent.h>
#include <errno.h>
#include <omp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/file.h"
#include "base/stream.h"
#include "base/text.h"
#include "config/config.h"
#include "dataset/readers.h"
#include "image/image.h"

enum { PATH_BYTES = 4096, MAX_CLASSES = 256 };

typedef struct {
    char **path; /* sorted within a class */
    uint8_t *label;
    size_t n, room;
} file_list;

static bool is_picture(const char *name)
{
    static const char *const endings[] = {".png", ".jpg", ".jpeg"};
    bool is = false;
    for (size_t i = 0; name[0] != '.' && i < sizeof endings / sizeof endings[0]; i++) {
        is = is || vae_ends_with_any_case(name, endings[i]);
    }
    return is;
}

static int wanted(const struct dirent *entry)
{
    return entry->d_name[0] != '.';
}

static int by_bytes(const struct dirent **a, const struct dirent **b)
{
    return strcmp((*a)->d_name, (*b)->d_name); /* not by the locale */
}

static void free_entries(struct dirent **entries, int n)
{
    for (int i = 0; i < n; i++) {
        free(entries[i]);
    }
    free(entries);
}

/* The folder that holds a split: <folder>/train, or the folder itself where there are no splits. */
static bool split_folder(const char *folder, vae_split split, char path[PATH_BYTES])
{
    static const char *const names[2][3] = {{"train", NULL, NULL}, {"test", "val", "valid"}};
    for (size_t i = 0; i < 3 && names[split][i] != NULL; i++) {
        int n = snprintf(path, PATH_BYTES, "%s/%s", folder, names[split][i]);
        if (n > 0 && n < PATH_BYTES && vae_is_folder(path)) {
            return true;
        }
    }
    if (split == VAE_SPLIT_TEST) {
        return false;
    }
    return snprintf(path, PATH_BYTES, "%s", folder) < PATH_BYTES;
}

static vae_status add_file(file_list *files, const char *path, size_t label, vae_error *err)
{
    if (files->n == files->room) {
        size_t room = files->room == 0 ? 1024 : 2 * files->room;
        char **paths = realloc(files->path, room * sizeof *paths);
        if (paths == NULL) {
            return vae_fail_memory(err, room * sizeof *paths, "the names of pictures");
        }
        files->path = paths;
        uint8_t *labels = realloc(files->label, room);
        if (labels == NULL) {
            return vae_fail_memory(err, room, "the labels of pictures");
        }
        files->label = labels;
        files->room = room;
    }
    files->path[files->n] = strdup(path);
    if (files->path[files->n] == NULL) {
        return vae_fail_memory(err, strlen(path), "the name of a picture");
    }
    files->label[files->n++] = (uint8_t)label;
    return VAE_OK;
}

/* Adds the pictures of a folder, and of those in it if `deep`. */
static vae_status walk(file_list *files, const char *folder, size_t label, bool deep, int depth,
                       vae_error *err)
{
    struct dirent **entries;
    int n = scandir(folder, &entries, wanted, by_bytes);
    vae_status status = VAE_OK;
    if (n < 0) {
        return vae_fail(err, VAE_ERR_IO, "%s: cannot read the folder: %s", folder, strerror(errno));
    }
    for (int i = 0; i < n; i++) {
        char path[PATH_BYTES];
        if (snprintf(path, sizeof path, "%s/%s", folder, entries[i]->d_name) >= PATH_BYTES) {
            TRY(vae_fail(err, VAE_ERR_DATA, "%s: a path of more than %d bytes", folder,
                         PATH_BYTES - 1));
        }
        if (is_picture(entries[i]->d_name)) {
            TRY(add_file(files, path, label, err));
        } else if (deep && depth < 16 && vae_is_folder(path)) {
            TRY(walk(files, path, label, deep, depth + 1, err));
        }
    }
done:
    free_entries(entries, n);
    return status;
}

/* Pictures in the folder itself, or else those of its folders, each a class. *classes: how many. */
static vae_status list_files(file_list *files, const char *folder, size_t *classes, vae_error *err)
{
    struct dirent **entries = NULL;
    vae_status status = VAE_OK;
    int n = 0;
    *classes = 0;
    TRY(walk(files, folder, 0, false, 0, err));
    n = files->n == 0 ? scandir(folder, &entries, wanted, by_bytes) : 0;
    for (int i = 0; i < n; i++) {
        char path[PATH_BYTES];
        const size_t before = files->n;
        if (snprintf(path, sizeof path, "%s/%s", folder, entries[i]->d_name) >= PATH_BYTES ||
            !vae_is_folder(path)) {
            continue;
        }
        if (*classes == MAX_CLASSES) {
            TRY(vae_fail(err, VAE_ERR_DATA, "%s: more than %d classes (folders of pictures)",
                         folder, MAX_CLASSES));
        }
        TRY(walk(files, path, *classes, true, 0, err));
        *classes += files->n > before;
    }
done:
    free_entries(entries, n);
    return status;
}

/* Is there a picture in the folder, or in one of its folders? */
static bool holds_pictures(const char *folder, int depth)
{
    struct dirent **entries = NULL;
    int n = scandir(folder, &entries, wanted, by_bytes);
    bool found = false;
    for (int pass = 0; pass < 2 && !found; pass++) { /* files first: they are cheap */
        for (int i = 0; i < n && !found; i++) {
            char path[PATH_BYTES];
            found = pass == 0 ? is_picture(entries[i]->d_name)
                              : depth < 2 &&
                                    snprintf(path, sizeof path, "%s/%s", folder,
                                             entries[i]->d_name) < PATH_BYTES &&
                                    vae_is_folder(path) && holds_pictures(path, depth + 1);
        }
    }
    free_entries(entries, n);
    return found;
}

static bool has(const char *folder, vae_split split)
{
    char path[PATH_BYTES];
    return vae_is_folder(folder) && split_folder(folder, split, path) && holds_pictures(path, 0);
}

typedef struct {
    const file_list *files;
    const vae_data_options *options;
    size_t side, channels; /* side: 0 = as they are */
    size_t width, height;
    uint8_t *rows;
} job;

/* Shape of the rows, from the headers of all files, so that a misfit shows before the work. */
static vae_status choose_shape(job *j, vae_error *err)
{
    vae_status status = VAE_OK;
    size_t w, h, c;
    bool colour = false;
    for (size_t i = 0; i < j->files->n; i++) {
        TRY(vae_picture_read(j->files->path[i], NULL, &w, &h, &c, err));
        if (w == 0 || h == 0) {
            TRY(vae_fail(err, VAE_ERR_DATA, "%s: a picture without pixels", j->files->path[i]));
        }
        colour = colour || c == 3;
        if (i == 0) {
            j->width = w, j->height = h;
        }
        if (j->side == 0 && (w != j->width || h != j->height)) {
            TRY(vae_fail(err, VAE_ERR_DATA,
                         "%s: %zu x %zu pixels, but %s has %zu x %zu; --image-size N makes all of "
                         "them N x N",
                         j->files->path[i], w, h, j->files->path[0], j->width, j->height));
        }
    }
    const size_t wanted_channels = j->options->config->image_channels, found = colour ? 3 : 1;
    j->channels = wanted_channels > 0 ? wanted_channels : found;
    j->width = j->side > 0 ? j->side : j->width;
    j->height = j->side > 0 ? j->side : j->height;
done:
    return status;
}

static vae_status read_one(const job *j, size_t i, vae_error *err)
{
    const size_t d = j->width * j->height * j->channels;
    const char *path = j->files->path[i];
    uint8_t *pixels = NULL, *converted = NULL;
    size_t w, h, c;
    vae_status status = VAE_OK;
    TRY(vae_picture_read(path, &pixels, &w, &h, &c, err));
    converted = malloc(w * h * j->channels);
    if (converted == NULL) {
        TRY(vae_fail_memory(err, w * h * j->channels, path));
    }
    vae_image_convert(converted, j->channels, pixels, c, w * h);
    if (w == j->width && h == j->height) {
        memcpy(j->rows + i * d, converted, d);
    } else if (j->side == 0) {
        TRY(vae_fail(err, VAE_ERR_DATA, "%s: its size changed while it was read", path));
    } else {
        TRY(vae_image_square(j->rows + i * d, j->side, converted, w, h, j->channels, err));
    }
done:
    free(converted);
    free(pixels);
    return status;
}

/* All files on all cores, a stretch at a time; the first bad one in their order is reported. */
static vae_status read_all(const job *j, vae_error *err)
{
    enum { STRETCH = 256 };
    vae_error *why = calloc(STRETCH, sizeof *why);
    vae_status status = VAE_OK;
    if (why == NULL) {
        TRY(vae_fail_memory(err, STRETCH * sizeof *why, "errors"));
    }
    for (size_t first = 0; first < j->files->n; first += STRETCH) {
        size_t n = j->files->n - first < STRETCH ? j->files->n - first : STRETCH;
        memset(why, 0, STRETCH * sizeof *why);
#pragma omp parallel for schedule(dynamic)
        for (size_t i = 0; i < n; i++) {
            read_one(j, first + i, &why[i]);
        }
        for (size_t i = 0; i < n; i++) {
            if (why[i].status != VAE_OK) {
                TRY(vae_fail(err, why[i].status, "%s", why[i].text));
            }
        }
        if (j->options->progress != NULL) {
            j->options->progress(j->options->ctx, first + n, j->files->n);
        }
    }
done:
    free(why);
    return status;
}

static vae_status fill(vae_dataset *set, file_list *files, size_t classes,
                       const vae_data_options *options, vae_error *err)
{
    job j = {.files = files, .options = options, .side = options->config->image_size};
    size_t bytes;
    for (size_t i = options->limit; options->limit > 0 && i < files->n; i++) {
        free(files->path[i]);
    }
    files->n = options->limit > 0 && options->limit < files->n ? options->limit : files->n;
    vae_status status = VAE_OK;
    TRY(choose_shape(&j, err));
    set->dtype = VAE_U8;
    set->n = files->n;
    set->height = j.height, set->width = j.width, set->channels = j.channels;
    set->d = j.height * j.width * j.channels;
    if (!vae_checked_mul(set->n, set->d, &bytes) || (set->rows = malloc(bytes)) == NULL) {
        TRY(vae_fail_memory(err, (unsigned long long)set->n * set->d, "pictures"));
    }
    j.rows = set->rows;
    if (classes > 0) {
        set->labels = files->label;
        files->label = NULL;
    }
    TRY(read_all(&j, err));
done:
    return status;
}

static vae_status load(vae_dataset *set, const char *folder, vae_split split,
                       const vae_data_options *options, vae_error *err)
{
    char path[PATH_BYTES];
    file_list files = {0};
    size_t classes = 0;
    if (!split_folder(folder, split, path)) {
        return vae_fail(err, VAE_ERR_DATA,
                        "%s: pictures, but no folder test, val or valid with more of them; use "
                        "--split train",
                        folder);
    }
    vae_status status = VAE_OK;
    TRY(list_files(&files, path, &classes, err));
    if (files.n == 0) {
        TRY(vae_fail(err, VAE_ERR_DATA, "%s: no PNG or JPEG files in it", path));
    }
    TRY(fill(set, &files, classes, options, err));
done:
    for (size_t i = 0; i < files.n; i++) {
        free(files.path[i]);
    }
    free(files.path);
    free(files.label);
    return status;
}

static const char *const own_options[] = {"image-size", "image-channels", NULL};

const vae_reader vae_pictures_reader = {.name = "picture",
                                        .source = VAE_SOURCE_FOLDER,
                                        .kind = VAE_KIND_PICTURES,
                                        .options = own_options,
                                        .has = has,
                                        .load = load};
