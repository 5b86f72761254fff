/* Listing the picture files of a folder. */
#include "dataset/folder.h"

#include <dirent.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "base/file.h"
#include "base/text.h"
#include "image/image.h"
#include "philox.h"

enum { PATH_BYTES = VAE_FOLDER_PATH, ORDER_KEY = 20091020 /* of what --limit takes */ };

enum { N_NAMED = 3 }; /* of files that are not read, so many are named */

/* Files that are not read: how many, and the first of them, for a message. */
typedef struct {
    size_t n;
    char named[N_NAMED][64];
} leftovers;

/* What a folder or file is, whatever the path to it; all zero is none. */
typedef struct {
    uint64_t device, number;
} identity;

/* Of a list in the making. */
typedef struct {
    vae_folder *files;
    identity *seen; /* (slots) of a hash table: folders and files, each is taken once */
    size_t n_seen, slots;
    vae_sha256_sum *sum;
    leftovers other;              /* pictures in formats that are not read */
    leftovers no_pictures, again; /* other files; links to what was there already */
} listing;

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

/* ---- folders ---- */

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

static vae_status fail_folder(const char *folder, vae_error *err)
{
    const bool memory = errno == ENOMEM;
    return vae_fail(err, memory ? VAE_ERR_RUNTIME : VAE_ERR_IO, "%s: cannot read the folder: %s",
                    folder, memory ? "out of memory" : strerror(errno));
}

/* The names in a folder, *n of them, *entries the caller's: free_entries. */
static vae_status list_folder(struct dirent ***entries, int *n, const char *folder, vae_error *err)
{
    *n = scandir(folder, entries, wanted, by_bytes);
    if (*n >= 0) {
        return VAE_OK;
    }
    *entries = NULL;
    *n = 0;
    return fail_folder(folder, err);
}

/* <folder>/<name> to path; *is: is that a folder? Most file systems say so with the name. */
static vae_status look_at(bool *is, char path[PATH_BYTES], const char *folder,
                          const struct dirent *entry, vae_error *err)
{
    *is = entry->d_type == DT_DIR;
    if (snprintf(path, PATH_BYTES, "%s/%s", folder, entry->d_name) >= PATH_BYTES) {
        return vae_fail(err, VAE_ERR_DATA, "%s: a path of more than %d bytes", folder,
                        PATH_BYTES - 1);
    }
    return entry->d_type == DT_DIR || entry->d_type == DT_REG ? VAE_OK
                                                              : vae_is_folder(is, path, err);
}

vae_status vae_folder_split(bool *found, const char *folder, vae_split split, char path[PATH_BYTES],
                            vae_error *err)
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

static vae_status has_pictures(bool *found, const char *folder, int depth, vae_error *err)
{
    DIR *dir = opendir(folder);
    vae_status status = VAE_OK;
    *found = false;
    if (dir == NULL) {
        return fail_folder(folder, err);
    }
    for (int pass = 0; pass < (depth < 2 ? 2 : 1) && !*found; pass++) { /* files are cheap: first */
        const struct dirent *entry;
        rewinddir(dir);
        while (errno = 0, !*found && (entry = readdir(dir)) != NULL) {
            char path[PATH_BYTES];
            bool is = false;
            if (pass == 0) {
                *found = is_picture(entry->d_name);
            } else if (wanted(entry) && strlen(folder) + strlen(entry->d_name) + 1 < PATH_BYTES) {
                TRY(look_at(&is, path, folder, entry, err));
                TRY(is ? has_pictures(found, path, depth + 1, err) : VAE_OK);
            }
        }
        if (!*found && errno != 0) {
            TRY(fail_folder(folder, err));
        }
    }
done:
    closedir(dir);
    return status;
}

vae_status vae_folder_has_pictures(bool *found, const char *folder, vae_error *err)
{
    return has_pictures(found, folder, 0, err);
}

/* ---- what is not read ---- */

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

void vae_folder_tell_beside(const char *folder, const char *train, const char *test,
                            const vae_error *err)
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

/* What lies beside the pictures: other pictures would be missed, the rest is told. */
static vae_status tell_leftovers(const listing *l, const char *folder, vae_error *err)
{
    const leftovers *other = &l->other, *no = &l->no_pictures, *again = &l->again;
    const vae_notes *notes = err != NULL ? err->notes : NULL;
    char text[256];
    if (other->n > 0) {
        return vae_fail(err, VAE_ERR_DATA,
                        "%s: %zu picture%s, and %zu in %s that %s not read: %s; make "
                        "PNG files of them (ImageMagick: mogrify -format png FILES) or move them "
                        "elsewhere",
                        folder, l->files->n, vae_s(l->files->n), other->n,
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

/* ---- the list ---- */

/* One more, by its path below the folder. */
static vae_status add_file(vae_folder *files, const char *name, uint32_t label, vae_error *err)
{
    const size_t bytes = strlen(name) + 1;
    if (files->n == files->room) {
        const size_t room = files->room == 0 ? 1024 : 2 * files->room;
        size_t *at = realloc(files->at, room * sizeof *at);
        if (at == NULL) {
            return vae_fail_memory(err, room * sizeof *at, "a list of pictures");
        }
        files->at = at;
        uint32_t *labels = realloc(files->label, room * sizeof *labels);
        if (labels == NULL) {
            return vae_fail_memory(err, room * sizeof *labels, "a list of pictures");
        }
        files->label = labels;
        files->room = room;
    }
    if (files->room_bytes - files->bytes < bytes) {
        const size_t room = 2 * files->room_bytes + bytes + 4096;
        char *names = realloc(files->names, room);
        if (names == NULL) {
            return vae_fail_memory(err, room, "the names of pictures");
        }
        files->names = names;
        files->room_bytes = room;
    }
    memcpy(files->names + files->bytes, name, bytes);
    files->at[files->n] = files->bytes;
    files->bytes += bytes;
    files->label[files->n++] = label;
    return VAE_OK;
}

static identity *slot_of(identity *slots, size_t n, identity me)
{
    size_t i = (me.number * 0x9e3779b97f4a7c15u ^ me.device * 0xc2b2ae3d27d4eb4fu) >> 20 & (n - 1);
    while ((slots[i].device != 0 || slots[i].number != 0) &&
           (slots[i].device != me.device || slots[i].number != me.number)) {
        i = (i + 1) & (n - 1);
    }
    return &slots[i];
}

/* Is it the first time that this is met? */
static vae_status remember(listing *l, const struct stat *info, bool *first, vae_error *err)
{
    const identity me = {(uint64_t)info->st_dev, (uint64_t)info->st_ino};
    if (4 * (l->n_seen + 1) > 3 * l->slots) {
        const size_t n = l->slots == 0 ? 1024 : 2 * l->slots; /* a power of 2 */
        identity *slots = calloc(n, sizeof *slots);
        if (slots == NULL) {
            return vae_fail_memory(err, n * sizeof *slots, "a list of pictures");
        }
        for (size_t i = 0; i < l->slots; i++) {
            if (l->seen[i].device != 0 || l->seen[i].number != 0) {
                *slot_of(slots, n, l->seen[i]) = l->seen[i];
            }
        }
        free(l->seen);
        l->seen = slots;
        l->slots = n;
    }
    identity *slot = slot_of(l->seen, l->slots, me);
    *first = slot->device == 0 && slot->number == 0;
    *slot = me;
    l->n_seen += *first;
    return VAE_OK;
}

/* A folder or file that is to be listed, unless it was already. One that is not there, as where a
 * link leads nowhere, is for its reader to tell. VAE_ERR_IO. */
static vae_status meet(listing *l, const char *path, struct stat *info, bool *first, vae_error *err)
{
    vae_status status = VAE_OK;
    *first = true;
    if (stat(path, info) != 0) {
        *info = (struct stat){.st_size = 0};
        return errno == ENOENT || errno == ELOOP || errno == ENOTDIR
                   ? VAE_OK
                   : vae_fail(err, VAE_ERR_IO, "%s: cannot look at it: %s", path, strerror(errno));
    }
    TRY(remember(l, info, first, err));
    if (!*first) {
        leave(&l->again, path);
    }
done:
    return status;
}

/* A picture, by its path, of which `below` is what stands below the folder. */
static vae_status take_file(listing *l, const char *path, size_t below, uint32_t label,
                            vae_error *err)
{
    struct stat info;
    bool first;
    vae_status status = VAE_OK;
    TRY(meet(l, path, &info, &first, err));
    if (first) {
        const int64_t facts[3] = {info.st_size, info.st_mtim.tv_sec, info.st_mtim.tv_nsec};
        vae_sha256_add(l->sum, path + below, strlen(path + below) + 1);
        vae_sha256_add(l->sum, facts, sizeof facts);
        TRY(add_file(l->files, path + below, label, err));
    }
done:
    return status;
}

/* Adds the pictures of a folder, and of those in it if `deep`. *folders: there are some in it. */
static vae_status walk(listing *l, const char *folder, uint32_t label, bool deep, bool *folders,
                       vae_error *err)
{
    const size_t below = strlen(l->files->folder) + 1;
    struct dirent **entries = NULL;
    struct stat info;
    bool first = true;
    vae_status status = VAE_OK;
    int n = 0;
    TRY(meet(l, folder, &info, &first, err));
    if (!first) {
        return VAE_OK;
    }
    TRY(list_folder(&entries, &n, folder, err));
    for (int i = 0; i < n; i++) {
        char path[PATH_BYTES];
        bool is;
        TRY(look_at(&is, path, folder, entries[i], err));
        *folders = *folders || is;
        if (is) {
            TRY(deep ? walk(l, path, label, deep, folders, err) : VAE_OK);
        } else if (is_picture(entries[i]->d_name)) {
            TRY(take_file(l, path, below, label, err));
        } else {
            leave(is_other_picture(path) ? &l->other : &l->no_pictures, path);
        }
    }
done:
    free_entries(entries, n);
    return status;
}

/* Those of a folder that is a class, named like it. */
static vae_status walk_class(listing *l, const char *folder, const char *name, vae_error *err)
{
    uint32_t label;
    bool folders = false;
    const char *fault = vae_class_fault(name);
    vae_status status = VAE_OK;
    if (fault != NULL) {
        TRY(vae_fail(err, VAE_ERR_DATA, "%s: a folder's name is that of a class: found %s", folder,
                     fault));
    }
    TRY(vae_labeller_take(&l->files->classes, name, &label, err));
    if (label == VAE_NO_LABEL) {
        TRY(vae_fail(err, VAE_ERR_DATA, "%s: more than %d classes (folders of pictures)", folder,
                     VAE_MAX_CLASSES));
    }
    TRY(walk(l, folder, label, true, &folders, err));
done:
    return status;
}

static vae_status walk_classes(listing *l, const char *folder, vae_error *err)
{
    const vae_folder *files = l->files;
    const size_t in_itself = files->n;
    struct dirent **entries = NULL;
    vae_status status = VAE_OK;
    int n = 0;
    TRY(list_folder(&entries, &n, folder, err));
    for (int i = 0; i < n; i++) {
        char path[PATH_BYTES];
        const size_t before = files->n;
        bool is = false;
        TRY(look_at(&is, path, folder, entries[i], err));
        if (!is) {
            continue;
        }
        TRY(walk_class(l, path, entries[i]->d_name, err));
        if (files->n > before && in_itself > 0) {
            TRY(vae_fail(err, VAE_ERR_DATA,
                         "%s: pictures lie in it (%s ...) and in its folder %s: put them all into "
                         "it, or all into folders, one for each class",
                         folder, files->names, entries[i]->d_name));
        }
    }
done:
    free_entries(entries, n);
    return status;
}

vae_status vae_folder_list(vae_folder *files, const char *folder, vae_error *err)
{
    listing l = {.files = files};
    bool folders = false;
    vae_status status = VAE_OK;
    if (snprintf(files->folder, sizeof files->folder, "%s", folder) >= PATH_BYTES) {
        TRY(vae_fail(err, VAE_ERR_DATA, "%s: a path of more than %d bytes", folder,
                     PATH_BYTES - 1));
    }
    TRY(vae_sha256_begin(&l.sum, err));
    TRY(walk(&l, folder, VAE_NO_LABEL, false, &folders, err));
    TRY(folders ? walk_classes(&l, folder, err) : VAE_OK);
    TRY(tell_leftovers(&l, folder, err));
    if (files->n == 0) {
        TRY(vae_fail(err, VAE_ERR_DATA, "%s: no %s files in it", folder, VAE_PICTURE_FORMATS));
    }
    TRY(vae_sha256_end(&l.sum, files->digest, err));
done:
    vae_sha256_drop(l.sum);
    free(l.seen);
    return status;
}

vae_status vae_folder_list_file(vae_folder *files, const char *path, vae_error *err)
{
    return add_file(files, path, VAE_NO_LABEL, err);
}

void vae_folder_close(vae_folder *files)
{
    free(files->names);
    free(files->at);
    free(files->label);
    vae_labeller_clear(&files->classes);
}

vae_status vae_folder_limit(vae_folder *files, size_t limit, vae_error *err)
{
    if (limit == 0 || limit >= files->n) {
        return VAE_OK;
    }
    const uint32_t bits = vae_shuffle_bits(files->n);
    size_t *at = malloc(limit * sizeof *at);
    uint32_t *label = malloc(limit * sizeof *label);
    if (at == NULL || label == NULL) {
        free(at);
        free(label);
        return vae_fail_memory(err, limit * sizeof *at, "a list of pictures");
    }
    for (size_t i = 0; i < limit; i++) {
        const size_t from = (size_t)vae_shuffle(ORDER_KEY, files->n, bits, i);
        at[i] = files->at[from];
        label[i] = files->label[from];
    }
    free(files->at);
    free(files->label);
    files->at = at;
    files->label = label;
    files->n = files->room = limit;
    return VAE_OK;
}

const char *vae_folder_path(const vae_folder *files, size_t i, char path[PATH_BYTES])
{
    const char *name = files->names + files->at[i];
    size_t n = strlen(files->folder);
    memcpy(path, files->folder, n);
    if (n > 0) {
        path[n++] = '/';
    }
    /* it was made of these when it was listed, and was short enough */
    snprintf(path + n, PATH_BYTES - n, "%s", name);
    return path;
}
