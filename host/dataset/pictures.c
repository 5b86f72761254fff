/* Picture files and folders of them as data sets. */
#include <dirent.h>
#include <errno.h>
#include <search.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "base/file.h"
#include "base/pool.h"
#include "base/stream.h"
#include "base/text.h"
#include "config/config.h"
#include "dataset/readers.h"
#include "image/image.h"
#include "philox.h"

enum { PATH_BYTES = 4096, ORDER_KEY = 20091020 /* of what --limit takes */ };

enum { N_NAMED = 3 }; /* of files that are not read, so many are named */

/* Files that are not read: how many, and the first of them, for a message. */
typedef struct {
    size_t n;
    char named[N_NAMED][64];
} leftovers;

typedef struct {
    char **path; /* sorted within a class */
    uint32_t *label;
    size_t n, room;
    void *seen;                   /* tsearch's tree of folders and files: each is taken once */
    leftovers other;              /* pictures in formats that are not read */
    leftovers no_pictures, again; /* other files; links to what was there already */
    vae_labeller classes;         /* names of folders */
} file_list;

/* What a folder or file is, whatever the path to it. */
typedef struct {
    dev_t device;
    ino_t number;
} identity;

static bool is_picture(const char *name)
{
    return name[0] != '.' && vae_picture_is_named(name);
}

/* A picture in a format that is not read, as far as its name tells. */
static bool is_other_picture(const char *name)
{
    static const char *const endings[] = {".gif", ".heic", ".avif", ".jp2", ".tga", ".jfif"};
    bool is = false;
    for (size_t i = 0; i < sizeof endings / sizeof endings[0]; i++) {
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

/* *found: the folder that holds a split: <folder>/train, or the folder itself where there are no
 * splits. */
static vae_status split_folder(bool *found, const char *folder, vae_split split,
                               char path[PATH_BYTES], vae_error *err)
{
    static const char *const names[2][3] = {{"train", NULL, NULL}, {"test", "val", "valid"}};
    vae_status status = VAE_OK;
    *found = false;
    for (size_t i = 0; i < 3 && names[split][i] != NULL && !*found; i++) {
        int n = snprintf(path, PATH_BYTES, "%s/%s", folder, names[split][i]);
        if (n > 0 && n < PATH_BYTES) {
            TRY(vae_is_folder(found, path, err));
        }
    }
    if (!*found && split == VAE_SPLIT_TRAIN) {
        *found = snprintf(path, PATH_BYTES, "%s", folder) < PATH_BYTES;
    }
done:
    return status;
}

/* The names in a folder, *n of them, *entries the caller's: free_entries. */
static vae_status list_folder(struct dirent ***entries, int *n, const char *folder, vae_error *err)
{
    *n = scandir(folder, entries, wanted, by_bytes);
    if (*n >= 0) {
        return VAE_OK;
    }
    const bool memory = errno == ENOMEM;
    *entries = NULL;
    *n = 0;
    return vae_fail(err, memory ? VAE_ERR_RUNTIME : VAE_ERR_IO, "%s: cannot read the folder: %s",
                    folder, memory ? "out of memory" : strerror(errno));
}

/* Named with the folder it is in. */
static void leave(leftovers *l, const char *path)
{
    const char *name = strrchr(path, '/');
    while (name != NULL && name > path && name[-1] != '/') {
        name--;
    }
    if (l->n < N_NAMED) {
        snprintf(l->named[l->n], sizeof l->named[0], "%s", name != NULL ? name : path);
    }
    l->n++;
}

/* "a.pgm, b.pgm, c.pgm and 7 more" */
static const char *list_leftovers(const leftovers *l, char text[256])
{
    size_t used = 0;
    text[0] = '\0';
    for (size_t i = 0; i < l->n && i < N_NAMED; i++) {
        used += (size_t)snprintf(text + used, 256 - used, "%s%s", i > 0 ? ", " : "", l->named[i]);
    }
    if (l->n > N_NAMED) {
        snprintf(text + used, 256 - used, " and %zu more", l->n - N_NAMED);
    }
    return text;
}

/* What lies beside the splits is no part of them. */
static void tell_beside(const char *folder, const char *train, const char *test, vae_error *err)
{
    struct dirent **entries = NULL;
    leftovers beside = {.n = 0};
    char text[256];
    const int n = scandir(folder, &entries, wanted, by_bytes);
    for (int i = 0; i < n; i++) {
        const char *name = entries[i]->d_name;
        if (strcmp(name, train) != 0 && strcmp(name, test) != 0) {
            leave(&beside, name);
        }
    }
    if (beside.n > 0) {
        vae_note(err != NULL ? err->notes : NULL, "%s: not read, beside the folder%s %s%s%s: %s",
                 folder, test[0] != '\0' ? "s" : "", train, test[0] != '\0' ? " and " : "", test,
                 list_leftovers(&beside, text));
    }
    free_entries(entries, n);
}

static vae_status add_file(file_list *files, const char *path, uint32_t label, vae_error *err)
{
    if (files->n == files->room) {
        size_t room = files->room == 0 ? 1024 : 2 * files->room;
        char **paths = realloc(files->path, room * sizeof *paths);
        if (paths == NULL) {
            return vae_fail_memory(err, room * sizeof *paths, "the names of pictures");
        }
        files->path = paths;
        uint32_t *labels = realloc(files->label, room * sizeof *labels);
        if (labels == NULL) {
            return vae_fail_memory(err, room * sizeof *labels, "the labels of pictures");
        }
        files->label = labels;
        files->room = room;
    }
    files->path[files->n] = strdup(path);
    if (files->path[files->n] == NULL) {
        return vae_fail_memory(err, strlen(path), "the name of a picture");
    }
    files->label[files->n++] = label;
    return VAE_OK;
}

static int by_identity(const void *a, const void *b)
{
    const identity *x = a, *y = b;
    if (x->device != y->device) {
        return x->device < y->device ? -1 : 1;
    }
    return x->number < y->number ? -1 : x->number > y->number;
}

/* Is it the first time that this folder or file is met? One that is not there is for its reader to
 * tell. */
static vae_status meet(file_list *files, const char *path, bool *first, vae_error *err)
{
    struct stat info;
    *first = true;
    if (stat(path, &info) != 0) {
        return VAE_OK;
    }
    identity *me = malloc(sizeof *me), **there = NULL;
    if (me != NULL) {
        *me = (identity){info.st_dev, info.st_ino};
        there = tsearch(me, &files->seen, by_identity);
    }
    if (there == NULL) {
        free(me);
        return vae_fail_memory(err, sizeof *me, "the names of pictures");
    }
    *first = *there == me;
    if (!*first) {
        free(me);
        leave(&files->again, path);
    }
    return VAE_OK;
}

/* Adds the pictures of a folder, and of those in it if `deep`. */
static vae_status walk(file_list *files, const char *folder, uint32_t label, bool deep,
                       vae_error *err)
{
    struct dirent **entries = NULL;
    bool first = true;
    vae_status status = VAE_OK;
    int n = 0;
    TRY(meet(files, folder, &first, err));
    if (!first) {
        return VAE_OK;
    }
    TRY(list_folder(&entries, &n, folder, err));
    for (int i = 0; i < n; i++) {
        char path[PATH_BYTES];
        bool is;
        if (snprintf(path, sizeof path, "%s/%s", folder, entries[i]->d_name) >= PATH_BYTES) {
            TRY(vae_fail(err, VAE_ERR_DATA, "%s: a path of more than %d bytes", folder,
                         PATH_BYTES - 1));
        }
        TRY(vae_is_folder(&is, path, err));
        if (is) {
            if (deep) {
                TRY(walk(files, path, label, deep, err));
            }
        } else if (is_picture(entries[i]->d_name)) {
            TRY(meet(files, path, &first, err));
            TRY(first ? add_file(files, path, label, err) : VAE_OK);
        } else {
            leave(is_other_picture(path) ? &files->other : &files->no_pictures, path);
        }
    }
done:
    free_entries(entries, n);
    return status;
}

/* Those of a folder that is a class, named like it. */
static vae_status walk_class(file_list *files, const char *folder, const char *name, vae_error *err)
{
    uint32_t label;
    const char *fault = vae_class_fault(name);
    vae_status status = VAE_OK;
    if (fault != NULL) {
        TRY(vae_fail(err, VAE_ERR_DATA, "%s: a folder's name is that of a class: found %s", folder,
                     fault));
    }
    TRY(vae_labeller_take(&files->classes, name, &label, err));
    if (label == VAE_NO_LABEL) {
        TRY(vae_fail(err, VAE_ERR_DATA, "%s: more than %d classes (folders of pictures)", folder,
                     VAE_MAX_CLASSES));
    }
    TRY(walk(files, folder, label, true, err));
done:
    return status;
}

/* Pictures in the folder itself, or else those of its folders, each a class. */
static vae_status list_files(file_list *files, const char *folder, vae_error *err)
{
    struct dirent **entries = NULL;
    vae_status status = VAE_OK;
    int n = 0;
    TRY(walk(files, folder, VAE_NO_LABEL, false, err));
    const size_t in_itself = files->n;
    TRY(list_folder(&entries, &n, folder, err));
    for (int i = 0; i < n; i++) {
        char path[PATH_BYTES];
        const size_t before = files->n;
        bool is = false;
        if (snprintf(path, sizeof path, "%s/%s", folder, entries[i]->d_name) < PATH_BYTES) {
            TRY(vae_is_folder(&is, path, err));
        }
        if (!is) {
            continue;
        }
        TRY(walk_class(files, path, entries[i]->d_name, err));
        if (files->n > before && in_itself > 0) {
            TRY(vae_fail(err, VAE_ERR_DATA,
                         "%s: pictures lie in it (%s ...) and in its folder %s: put them all into "
                         "it, or all into folders, one for each class",
                         folder, files->path[0] + strlen(folder) + 1, entries[i]->d_name));
        }
    }
done:
    free_entries(entries, n);
    return status;
}

/* What lies beside the pictures: other pictures would be missed, the rest is told. */
static vae_status tell_leftovers(const file_list *files, const char *folder, vae_error *err)
{
    const leftovers *other = &files->other, *no = &files->no_pictures, *again = &files->again;
    const vae_notes *notes = err != NULL ? err->notes : NULL;
    char text[256];
    if (other->n > 0) {
        return vae_fail(err, VAE_ERR_DATA,
                        "%s: %zu picture%s, and %zu in %s that %s not read: %s; make "
                        "PNG files of them (ImageMagick: mogrify -format png FILES) or move them "
                        "elsewhere",
                        folder, files->n, vae_s(files->n), other->n,
                        other->n == 1 ? "a format" : "formats", other->n == 1 ? "is" : "are",
                        list_leftovers(other, text));
    }
    if (no->n > 0) {
        vae_note(notes, "%s: %zu file%s not read, only %s files are: %s", folder, no->n,
                 no->n == 1 ? " is" : "s are", VAE_PICTURE_FORMATS, list_leftovers(no, text));
    }
    if (again->n > 0) {
        vae_note(notes, "%s: %zu link%s to what is there already %s left out: %s", folder, again->n,
                 vae_s(again->n), again->n == 1 ? "is" : "are", list_leftovers(again, text));
    }
    return VAE_OK;
}

/* *found: is there a picture in the folder, or in one of its folders? */
static vae_status holds_pictures(bool *found, const char *folder, int depth, vae_error *err)
{
    struct dirent **entries = NULL;
    int n = 0;
    vae_status status = VAE_OK;
    *found = false;
    TRY(list_folder(&entries, &n, folder, err));
    for (int i = 0; i < n && !*found; i++) { /* files first: they are cheap */
        *found = is_picture(entries[i]->d_name);
    }
    for (int i = 0; i < n && !*found && depth < 2; i++) {
        char path[PATH_BYTES];
        bool is = false;
        if (snprintf(path, sizeof path, "%s/%s", folder, entries[i]->d_name) < PATH_BYTES) {
            TRY(vae_is_folder(&is, path, err));
        }
        if (is) {
            TRY(holds_pictures(found, path, depth + 1, err));
        }
    }
done:
    free_entries(entries, n);
    return status;
}

static vae_status has(bool *has, const char *folder, vae_split split, vae_error *err)
{
    char path[PATH_BYTES];
    vae_status status = VAE_OK;
    TRY(vae_is_folder(has, folder, err));
    TRY(*has ? split_folder(has, folder, split, path, err) : VAE_OK);
    TRY(*has ? holds_pictures(has, path, 0, err) : VAE_OK);
done:
    return status;
}

typedef struct {
    const file_list *files;
    const vae_data_options *options;
    size_t side, channels; /* side: 0 = as they are */
    size_t width, height;
    uint8_t *rows;
    size_t grey;           /* files that are grey */
    _Atomic size_t colour; /* those in colour that lose it */
    size_t many;           /* those of several pictures, of which the first is taken */
} job;

static unsigned reading(const job *j)
{
    return j->options->config->exif == VAE_EXIF_IGNORE ? VAE_PICTURE_AS_STORED : 0;
}

/* Shape of the rows, from the headers of all files, so that a misfit shows before the work. */
static vae_status choose_shape(job *j, vae_error *err)
{
    vae_status status = VAE_OK;
    for (size_t i = 0; i < j->files->n; i++) {
        vae_picture p;
        TRY(vae_picture_read(&p, j->files->path[i], reading(j) | VAE_PICTURE_HEADER, err));
        j->grey += p.channels == 1;
        j->many += p.more;
        if (i == 0) {
            j->width = p.width, j->height = p.height;
        }
        if (j->side == 0 && (p.width != j->width || p.height != j->height)) {
            TRY(vae_fail(err, VAE_ERR_DATA,
                         "%s: %zu x %zu pixels, but %s has %zu x %zu; --image-size N makes all of "
                         "them N x N",
                         j->files->path[i], p.width, p.height, j->files->path[0], j->width,
                         j->height));
        }
    }
    j->channels = j->options->config->image_channels;
    if (j->channels == 0) {
        j->channels = j->options->channels;
    }
    if (j->channels == 0) {
        j->channels = j->grey < j->files->n ? 3 : 1;
    }
    j->width = j->side > 0 ? j->side : j->width;
    j->height = j->side > 0 ? j->side : j->height;
done:
    return status;
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
static vae_status read_one(job *j, size_t i, vae_error *err)
{
    const size_t d = j->width * j->height * j->channels;
    const char *path = j->files->path[i];
    uint8_t *small = NULL, *row = j->rows + i * d;
    vae_picture p = {0};
    vae_status status = VAE_OK;
    TRY(vae_picture_read(&p, path, reading(j), err));
    const size_t n = p.width * p.height;
    if (p.channels == 3 && j->channels == 1) {
        if (is_coloured(p.pixels, n)) {
            atomic_fetch_add(&j->colour, 1);
        }
        vae_image_convert(p.pixels, 1, p.pixels, 3, n);
        p.channels = 1;
    }
    if (p.width == j->width && p.height == j->height) {
        vae_image_convert(row, j->channels, p.pixels, p.channels, n);
    } else if (j->side == 0) {
        TRY(vae_fail(err, VAE_ERR_DATA, "%s: its size changed while it was read", path));
    } else if (p.channels == j->channels) {
        TRY(vae_image_square(row, j->side, p.pixels, p.width, p.height, p.channels, err));
    } else {
        small = malloc(j->side * j->side);
        if (small == NULL) {
            TRY(vae_fail_memory(err, j->side * j->side, path));
        }
        TRY(vae_image_square(small, j->side, p.pixels, p.width, p.height, 1, err));
        vae_image_convert(row, 3, small, 1, j->side * j->side);
    }
done:
    free(small);
    free(p.pixels);
    return status;
}

/* Files from `at` on, each with its error. */
typedef struct {
    job *j;
    size_t at;
    vae_error *why;
} stretch;

static void read_some(void *ctx, int thread, size_t first, size_t end)
{
    const stretch *part = ctx;
    (void)thread;
    for (size_t i = first; i < end; i++) {
        read_one(part->j, part->at + i, &part->why[i]);
    }
}

/* All files on all cores, a stretch at a time; the first bad one in their order is reported. */
static vae_status read_all(job *j, vae_error *err)
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
        stretch part = {j, first, why};
        vae_parallel(vae_threads(0), n, 1, read_some, &part);
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

/* With 0 < limit < n, the first of a fixed random order of all: paths come by class. */
static vae_status take_some(file_list *files, size_t limit, vae_error *err)
{
    if (limit == 0 || limit >= files->n) {
        return VAE_OK;
    }
    const uint32_t bits = vae_shuffle_bits(files->n);
    char **path = calloc(files->n, sizeof *path);
    uint32_t *label = malloc(files->n * sizeof *label);
    if (path == NULL || label == NULL) {
        free(path);
        free(label);
        return vae_fail_memory(err, files->n * sizeof *path, "the names of pictures");
    }
    for (size_t i = 0; i < files->n; i++) {
        const size_t from = (size_t)vae_shuffle(ORDER_KEY, files->n, bits, i);
        path[i] = files->path[from];
        label[i] = files->label[from];
    }
    for (size_t i = limit; i < files->n; i++) {
        free(path[i]);
    }
    free(files->path);
    free(files->label);
    files->path = path;
    files->label = label;
    files->n = limit;
    return VAE_OK;
}

/* What nobody asked for: files made what others, or the model, are. */
static void announce(const job *j, const char *source, const vae_error *err)
{
    const vae_notes *notes = err != NULL ? err->notes : NULL;
    const size_t n = j->files->n, taken = j->options->channels;
    const char *whose = j->options->of_model ? "as the model has it" : "as the files to train on";
    if (j->many > 0) {
        vae_note(notes,
                 "%s: %zu file%s of several pictures (pages, or frames): the first of each "
                 "is taken",
                 source, j->many, vae_s(j->many));
    }
    if (j->options->config->image_channels > 0) {
        return;
    }
    if (j->channels == 3 && j->grey > 0) {
        vae_note(notes, "%s: %zu of %zu pictures are grey and become RGB, %s", source, j->grey, n,
                 taken > 0 ? whose : "as others are in colour (--image-channels 1: all grey)");
    }
    if (j->colour > 0) {
        vae_note(notes, "%s: %zu of %zu pictures are in colour and become grey, %s", source,
                 atomic_load(&j->colour), n, whose);
    }
}

static vae_status fill(vae_dataset *set, file_list *files, const vae_data_options *options,
                       vae_error *err)
{
    job j = {.files = files, .options = options, .side = options->config->image_size};
    size_t bytes;
    vae_status status = VAE_OK;
    TRY(take_some(files, options->limit, err));
    TRY(choose_shape(&j, err));
    set->dtype = VAE_U8;
    set->n = files->n;
    set->height = j.height, set->width = j.width, set->channels = j.channels;
    set->d = j.height * j.width * j.channels;
    if (!vae_checked_mul(set->n, set->d, &bytes) || (set->rows = malloc(bytes)) == NULL) {
        TRY(vae_fail_memory(err, (unsigned long long)set->n * set->d, "pictures"));
    }
    j.rows = set->rows;
    set->labels = files->label;
    files->label = NULL;
    TRY(vae_labeller_finish(&files->classes, &set->classes, set->labels, set->n, err));
    TRY(read_all(&j, err));
    announce(&j, set->source, err);
done:
    return status;
}

static vae_status load(vae_dataset *set, const char *folder, vae_split split,
                       const vae_data_options *options, vae_error *err)
{
    char path[PATH_BYTES], test[PATH_BYTES];
    file_list files = {0};
    bool found, has_test;
    vae_status status = VAE_OK;
    TRY(split_folder(&found, folder, split, path, err));
    if (!found) {
        TRY(vae_fail(err, VAE_ERR_DATA,
                     "%s: pictures, but no folder test, val or valid with more of them; "
                     "leave --split out",
                     folder));
    }
    if (split == VAE_SPLIT_TRAIN && strcmp(path, folder) != 0) {
        TRY(split_folder(&has_test, folder, VAE_SPLIT_TEST, test, err));
        tell_beside(folder, path + strlen(folder) + 1, has_test ? test + strlen(folder) + 1 : "",
                    err);
    }
    TRY(list_files(&files, path, err));
    TRY(tell_leftovers(&files, path, err));
    if (files.n == 0) {
        TRY(vae_fail(err, VAE_ERR_DATA, "%s: no %s files in it", path, VAE_PICTURE_FORMATS));
    }
    TRY(fill(set, &files, options, err));
done:
    for (size_t i = 0; i < files.n; i++) {
        free(files.path[i]);
    }
    free(files.path);
    free(files.label);
    tdestroy(files.seen, free);
    vae_labeller_clear(&files.classes);
    return status;
}

static vae_status load_file(vae_dataset *set, const char *path, vae_split split,
                            const vae_data_options *options, vae_error *err)
{
    file_list files = {0};
    vae_status status = VAE_OK;
    (void)split;
    TRY(add_file(&files, path, VAE_NO_LABEL, err));
    TRY(fill(set, &files, options, err));
done:
    if (files.n > 0) {
        free(files.path[0]);
    }
    free(files.path);
    free(files.label);
    vae_labeller_clear(&files.classes);
    return status;
}

static const char *const own_options[] = {"image-size", "image-channels", "exif", NULL};

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
