/* Opening a data set by its name: the list of readers, which of them the name is for, and what all
 * sets get. */
#include <dirent.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/file.h"
#include "base/map.h"
#include "base/stream.h"
#include "base/text.h"
#include "config/config.h"
#include "dataset/readers.h"

/* Messages name them in this order. Of a folder, the first that finds its files in it is taken. */
static const vae_reader *const readers[] = {
    &vae_digits_reader,     &vae_sprites_reader,  &vae_npy_reader,  &vae_npz_reader,
    &vae_csv_reader,        &vae_png_reader,      &vae_jpeg_reader, &vae_pnm_reader,
    &vae_bmp_reader,        &vae_webp_reader,     &vae_tiff_reader, &vae_idx_file_reader,
    &vae_idx_folder_reader, &vae_pictures_reader,
};
enum { N_READERS = sizeof readers / sizeof readers[0], LIST = 256 };

/* ---- what messages say of them ---- */

static const char *name_of(const vae_reader *r)
{
    return r->name;
}

static const char *ending_of(const vae_reader *r)
{
    return r->endings[0];
}

static const char *ending_or_name_of(const vae_reader *r)
{
    return r->endings[0] != NULL ? r->endings[0] : r->name;
}

/* The ending of files that have nothing else to be known by. */
static const char *telling_ending_of(const vae_reader *r)
{
    return r->magic == NULL ? r->endings[0] : NULL;
}

/* "a, b or c": the words of the readers of a source, but for NULL. */
static const char *list(char text[LIST], vae_source source, const char *(*word)(const vae_reader *),
                        const char *quote)
{
    const char *words[N_READERS];
    size_t n = 0, used = 0;
    for (size_t i = 0; i < N_READERS; i++) {
        words[n] = word(readers[i]);
        n += readers[i]->source == source && words[n] != NULL;
    }
    text[0] = '\0';
    for (size_t i = 0; i < n && used < LIST; i++) {
        const char *between = i + 1 < n ? ", " : " or ";
        used += (size_t)snprintf(text + used, LIST - used, "%s%s%s%s", i > 0 ? between : "", quote,
                                 words[i], quote);
    }
    return text;
}

const char *vae_dataset_kinds(char text[VAE_DATASET_KINDS])
{
    char files[LIST], folders[LIST];
    size_t used = 0;
    for (size_t i = 0; i < N_READERS && used < VAE_DATASET_KINDS; i++) {
        if (readers[i]->source == VAE_SOURCE_BUILT_IN) {
            used +=
                (size_t)snprintf(text + used, VAE_DATASET_KINDS - used, "%s, ", readers[i]->name);
        }
    }
    snprintf(text + used, VAE_DATASET_KINDS - used, "a folder of %s files, an %s file",
             list(folders, VAE_SOURCE_FOLDER, name_of, ""),
             list(files, VAE_SOURCE_FILE, ending_of, ""));
    return text;
}

static vae_status fail_missing(const char *name, vae_error *err)
{
    const int reason = errno;
    char files[LIST], folders[LIST], built_in[LIST];
    return vae_fail(err, VAE_ERR_IO,
                    "%s: cannot open: %s; name an %s file, a folder of %s files, or a built-in "
                    "set, %s",
                    name, strerror(reason), list(files, VAE_SOURCE_FILE, ending_or_name_of, ""),
                    list(folders, VAE_SOURCE_FOLDER, name_of, ""),
                    list(built_in, VAE_SOURCE_BUILT_IN, name_of, "`"));
}

static vae_status fail_unknown(const char *path, const uint8_t first[2], vae_error *err)
{
    char begins[LIST] = "", endings[LIST];
    for (size_t i = 0, used = 0; i < N_READERS && used < LIST; i++) {
        const uint8_t *magic = readers[i]->magic;
        if (magic != NULL) {
            used += (size_t)snprintf(begins + used, LIST - used, "%s (%02x %02x ...), ",
                                     readers[i]->name, magic[0], magic[1]);
        }
    }
    return vae_fail(err, VAE_ERR_DATA,
                    "%s: not a data set: expected %sor a name that ends in %s; found %02x %02x",
                    path, begins, list(endings, VAE_SOURCE_FILE, telling_ending_of, ""), first[0],
                    first[1]);
}

vae_status vae_dataset_check_options(const vae_dataset *set, const vae_option_set *given,
                                     vae_error *err)
{
    for (size_t i = 0; i < N_READERS; i++) {
        const vae_reader *r = readers[i];
        for (const char *const *name = r->options; name != NULL && *name != NULL; name++) {
            if (vae_option_in(given, vae_config_find(*name)) && set->kind != r->kind) {
                return vae_fail(err, VAE_ERR_USAGE,
                                r->source == VAE_SOURCE_FOLDER
                                    ? "--%s has no effect on %s: it needs a folder of %s files"
                                    : "--%s has no effect on %s: it needs a %s file",
                                *name, set->source, ending_or_name_of(r));
            }
        }
    }
    return VAE_OK;
}

/* ---- which of them ---- */

static bool has_ending(const vae_reader *r, const char *path)
{
    bool has = false;
    for (size_t i = 0; i < VAE_READER_ENDINGS && r->endings[i] != NULL; i++) {
        has = has || vae_ends_with_any_case(path, r->endings[i]);
    }
    return has;
}

static bool begins_with(const vae_reader *r, const uint8_t first[2])
{
    return (first[0] == r->magic[0] && first[1] >= r->magic[1] &&
            first[1] - r->magic[1] <= r->more_magic) ||
           (r->other_magic != NULL && memcmp(first, r->other_magic, 2) == 0);
}

/* A name that tells comes before first bytes that do. */
static vae_status find_for_file(const vae_reader **out, const char *path, bool nameless,
                                vae_error *err)
{
    uint8_t first[2] = {0};
    size_t got = 0;
    vae_stream *s = NULL;
    vae_status status = VAE_OK;
    TRY(vae_stream_open(&s, path, err));
    TRY(vae_stream_read(s, first, sizeof first, &got, err));
    if (got == 0) {
        TRY(vae_fail(err, VAE_ERR_DATA, "%s: is empty; expected a data set", path));
    }
    for (size_t i = 0; i < N_READERS && *out == NULL; i++) {
        if (readers[i]->magic == NULL && has_ending(readers[i], path)) {
            *out = readers[i];
        }
    }
    for (size_t i = 0; i < N_READERS && *out == NULL; i++) {
        if (readers[i]->magic != NULL && got == 2 && begins_with(readers[i], first)) {
            *out = readers[i];
        }
    }
    if (*out == NULL && nameless) {
        *out = &vae_csv_reader;
    }
    if (*out == NULL) {
        TRY(fail_unknown(path, first, err));
    }
done:
    vae_stream_close(s);
    return status;
}

/* What a folder holds, by the endings of names. */
enum { N_ENDINGS = 6 };
typedef struct {
    size_t files, folders, n;
    struct {
        char text[16];
        size_t files;
    } ending[N_ENDINGS];
} contents;

static void count_file(contents *found, const char *name)
{
    const char *dot = strrchr(name, '.');
    size_t i = 0;
    char text[sizeof found->ending[0].text];
    found->files++;
    snprintf(text, sizeof text, "%s", dot != NULL && dot > name ? dot : "no ending");
    while (i < found->n && strcmp(found->ending[i].text, text) != 0) {
        i++;
    }
    if (i < N_ENDINGS) {
        memcpy(found->ending[i].text, text, sizeof text);
        found->ending[i].files++;
        found->n += i == found->n;
    }
}

static void look_into(contents *found, const char *path, int depth)
{
    DIR *dir = opendir(path);
    for (struct dirent *entry; dir != NULL && (entry = readdir(dir)) != NULL;) {
        char inside[4096];
        if (entry->d_name[0] == '.' ||
            snprintf(inside, sizeof inside, "%s/%s", path, entry->d_name) >= (int)sizeof inside) {
            continue;
        }
        bool folder;
        if (vae_is_folder(&folder, inside, NULL) != VAE_OK || !folder) {
            count_file(found, entry->d_name);
        } else {
            found->folders++;
            if (depth > 0) {
                look_into(found, inside, depth - 1);
            }
        }
    }
    if (dir != NULL) {
        closedir(dir);
    }
}

static vae_status fail_folder(const char *path, vae_error *err)
{
    contents found = {0};
    char text[LIST] = "", files[LIST];
    size_t used = 0;
    look_into(&found, path, 2);
    for (size_t i = 0; i < found.n && used < sizeof text; i++) {
        used += (size_t)snprintf(text + used, sizeof text - used, "%s%s: %zu", i > 0 ? ", " : " (",
                                 found.ending[i].text, found.ending[i].files);
    }
    return vae_fail(
        err, VAE_ERR_DATA,
        "%s: no data set: expected pictures (PNG, JPEG ...) in it or in its folders, or IDX "
        "files (train-images-idx3-ubyte) in it, in raw/ or MNIST/raw/; found %zu file%s"
        "%s%s in it and %zu folder%s; name a file that ends in %s by itself, and "
        "make PNG files of other pictures",
        path, found.files, vae_s(found.files), text, found.n > 0 ? ")" : "", found.folders,
        vae_s(found.folders), list(files, VAE_SOURCE_FILE, ending_of, ""));
}

static vae_status find_for_folder(const vae_reader **out, const char *path, vae_error *err)
{
    vae_status status = VAE_OK;
    for (size_t i = 0; i < 2 * N_READERS && *out == NULL; i++) {
        const vae_reader *r = readers[i / 2];
        bool has = false;
        if (r->source == VAE_SOURCE_FOLDER) {
            TRY(r->has(&has, path, i % 2 == 0 ? VAE_SPLIT_TRAIN : VAE_SPLIT_TEST, err));
        }
        *out = has ? r : NULL;
    }
    TRY(*out != NULL ? VAE_OK : fail_folder(path, err));
done:
    return status;
}

static const vae_reader *find_built_in(const char *name)
{
    for (size_t i = 0; i < N_READERS; i++) {
        if (readers[i]->source == VAE_SOURCE_BUILT_IN && strcmp(name, readers[i]->name) == 0) {
            return readers[i];
        }
    }
    return NULL;
}

bool vae_dataset_is_built_in(const char *name)
{
    return find_built_in(name) != NULL;
}

static vae_status find_reader(const vae_reader **out, const char *name, bool nameless,
                              vae_error *err)
{
    struct stat info;
    *out = find_built_in(name);
    if (*out != NULL) {
        return VAE_OK;
    }
    if (stat(name, &info) != 0) {
        return fail_missing(name, err);
    }
    return S_ISDIR(info.st_mode) ? find_for_folder(out, name, err)
                                 : find_for_file(out, name, nameless, err);
}

bool vae_dataset_is_gone(const char *name)
{
    return !vae_dataset_is_built_in(name) && access(name, R_OK) != 0 &&
           (errno == ENOENT || errno == ENOTDIR || errno == EACCES);
}

vae_status vae_dataset_has_test(bool *has, const char *name, vae_error *err)
{
    const vae_reader *reader;
    vae_error why = {0};
    *has = false;
    const vae_status found = find_reader(&reader, name, false, &why);
    if (found == VAE_OK) {
        return reader->has != NULL ? reader->has(has, name, VAE_SPLIT_TEST, err) : VAE_OK;
    }
    return found == VAE_ERR_DATA || vae_dataset_is_gone(name)
               ? VAE_OK
               : vae_fail(err, found, "%s", why.text);
}

/* ---- what all sets get ---- */

/* Bytes mean value/255. A set whose largest byte is 1 is binary data stored as 0 and 1, which
 * would be learned as near-black without a word. */
static vae_status refuse_binary_bytes(const vae_dataset *set, vae_error *err)
{
    return set->facts.either != 1
               ? VAE_OK
               : vae_fail(err, VAE_ERR_DATA,
                          "%s: the largest byte is 1, but bytes are read as value/255; store 0 and "
                          "255, floats 0.0 and 1.0, or array.astype(bool)",
                          set->source);
}

/* Labels all of which say that there is none are none. */
static void drop_empty_labels(vae_dataset *set)
{
    if (set->classes.n == 0) {
        free(set->labels);
        set->labels = NULL;
    }
}

vae_status vae_dataset_open(vae_dataset **out, const char *name, vae_split split,
                            const vae_data_options *options, vae_error *err)
{
    static const vae_config unset;
    vae_data_options how = options != NULL ? *options : (vae_data_options){0};
    const vae_reader *reader;
    vae_stream *s = NULL;
    vae_status status = VAE_OK;
    *out = NULL;
    how.config = how.config != NULL ? how.config : &unset;
    vae_dataset *set = calloc(1, sizeof *set);
    if (set == NULL) {
        return vae_fail_memory(err, sizeof *set, "a data set");
    }
    snprintf(set->source, sizeof set->source, "%s", name);
    TRY(find_reader(&reader, name, how.nameless, err));
    if (split == VAE_SPLIT_TEST && reader->source == VAE_SOURCE_FILE && reader->has == NULL) {
        TRY(vae_fail(err, VAE_ERR_DATA,
                     "%s: a single file has no test split; leave --split out, or name a folder "
                     "that holds both, or train with --test-data",
                     name));
    }
    set->kind = reader->kind;
    how.exact = how.exact || vae_config_standardizes(how.config, set->kind == VAE_KIND_TABLE);
    if (reader->load_stream != NULL) {
        TRY(vae_stream_open(&s, name, err));
        TRY(reader->load_stream(set, s, &how, err));
    } else {
        TRY(reader->load(set, name, split, &how, err));
    }
    if (set->n > UINT32_MAX) {
        TRY(vae_fail(err, VAE_ERR_DATA, "%s: %zu rows; at most %u can be used", name, set->n,
                     UINT32_MAX));
    }
    TRY(vae_dataset_scan(set, &how, err));
    if (set->recorded != NULL && memcmp(set->recorded, set->sha256, sizeof set->sha256) != 0) {
        TRY(vae_fail(err, VAE_ERR_DATA,
                     "%s: damaged: the rows in it are not those that were written: remove it",
                     vae_map_name(set->map)));
    }
    set->recorded = NULL;
    if (reader->source != VAE_SOURCE_BUILT_IN && set->kind == VAE_KIND_ARRAY &&
        set->dtype == VAE_U8 && !how.marks) {
        TRY(refuse_binary_bytes(set, err));
    }
    drop_empty_labels(set);
    *out = set;
    set = NULL;
done:
    vae_stream_close(s);
    vae_dataset_free(set);
    return status;
}
