/* The cache of decoded pictures.
 *
 *   64 bytes     what it is: the magic bytes, the version, zeros
 *   rows         (n, height, width, channels) bytes
 *   left out     of each: its place in the list of files, two lengths (u64), its name, the reason
 *   footer       as below
 *
 * All numbers are little-endian, as this program's memory is. It is written from its beginning to
 * its end, so that no decoded rows are held. */
#include "dataset/cache.h"

#include <errno.h>
#include <fcntl.h>
#include <glob.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <unistd.h>

#include "base/map.h"
#include "base/stream.h"

enum { HEAD = 64, VERSION = 1, PIECE = 1 << 24 };
static const uint8_t magic[12] = {0x89, 'v', 'a', 'e', 'c', 'a', 'c', 'h', 'e', '\r', '\n', 0x1a};

typedef struct {
    uint64_t n, height, width, channels, asked, files, n_left_out, list_bytes;
    vae_picture_counts counts;
    uint8_t digest[VAE_SHA256_BYTES]; /* of the files, as vae_folder has it */
    uint8_t rows[VAE_SHA256_BYTES];   /* vae_dataset's sha256 */
    char settings[VAE_CACHE_SETTINGS];
    uint8_t check[VAE_SHA256_BYTES]; /* of the list and of all above */
} footer;
_Static_assert(sizeof(footer) == 11 * 8 + 3 * VAE_SHA256_BYTES + VAE_CACHE_SETTINGS, "no gaps");

/* ---- opening ---- */

static vae_status damaged(const char *path, const char *what, vae_error *err)
{
    return vae_fail(err, VAE_ERR_DATA, "%s: damaged cache of pictures (%s): remove it", path, what);
}

/* What begins like a cache. VAE_ERR_DATA: anything else, which is not ours to replace. */
static vae_status check_head(const vae_map *map, const char *path, uint32_t *version,
                             vae_error *err)
{
    const uint8_t *bytes = vae_map_bytes(map);
    if (vae_map_size(map) < sizeof magic + sizeof *version ||
        memcmp(bytes, magic, sizeof magic) != 0) {
        return vae_fail(err, VAE_ERR_DATA,
                        "%s: is there, and is no cache of pictures that this program made: name "
                        "another file",
                        path);
    }
    memcpy(version, bytes + sizeof magic, sizeof *version);
    return VAE_OK;
}

static vae_status check_of(uint8_t digest[VAE_SHA256_BYTES], const uint8_t *list, const footer *end,
                           vae_error *err)
{
    const struct iovec parts[2] = {{(void *)(uintptr_t)list, end->list_bytes},
                                   {(void *)(uintptr_t)end, offsetof(footer, check)}};
    return vae_sha256(digest, parts, 2, err);
}

/* The footer, in which all sizes are those of the file; *list: what was left out. */
static vae_status read_footer(footer *end, const uint8_t **list, const vae_map *map,
                              const char *path, vae_error *err)
{
    const size_t size = vae_map_size(map);
    uint8_t digest[VAE_SHA256_BYTES];
    size_t bytes;
    vae_status status = VAE_OK;
    if (size < HEAD + sizeof *end) {
        return damaged(path, "it is cut short", err);
    }
    memcpy(end, vae_map_bytes(map) + size - sizeof *end, sizeof *end);
    if (!vae_checked_mul(end->n, end->height, &bytes) ||
        !vae_checked_mul(bytes, end->width, &bytes) ||
        !vae_checked_mul(bytes, end->channels, &bytes) || bytes == 0 ||
        end->list_bytes > size - HEAD - sizeof *end ||
        bytes != size - HEAD - sizeof *end - end->list_bytes) {
        return damaged(path, "sizes in it are not those of the file", err);
    }
    *list = vae_map_bytes(map) + HEAD + bytes;
    TRY(check_of(digest, *list, end, err));
    if (memcmp(digest, end->check, sizeof digest) != 0 || end->n + end->n_left_out != end->files ||
        end->settings[VAE_CACHE_SETTINGS - 1] != '\0') {
        TRY(damaged(path, "its SHA-256 is another", err));
    }
done:
    return status;
}

/* Does it fit? If not, why. */
static bool is_of(char why[256], const footer *end, const vae_cache_key *key)
{
    const vae_folder *files = key->files;
    if (end->files != files->n) {
        snprintf(why, 256, "it is of %llu pictures, now there are %zu",
                 (unsigned long long)end->files, files->n);
    } else if (memcmp(end->digest, files->digest, sizeof files->digest) != 0) {
        snprintf(why, 256, "names, sizes or times of files are others");
    } else if (strcmp(end->settings, key->settings) != 0) {
        snprintf(why, 256, "it is of %.100s, now %.100s", end->settings, key->settings);
    } else if (end->asked != key->channels &&
               (key->channels == 0 || end->channels != key->channels)) {
        snprintf(why, 256, "it is of --image-channels %llu, now %zu",
                 (unsigned long long)(end->asked != 0 ? end->asked : end->channels), key->channels);
    } else {
        return true;
    }
    return false;
}

static char *copy_text(const uint8_t *from, size_t n)
{
    char *text = malloc(n + 1);
    if (text != NULL) {
        memcpy(text, from, n);
        text[n] = '\0';
    }
    return text;
}

/* The list of files that were left out. */
static vae_status read_list(vae_dataset *set, const uint8_t *list, const footer *end,
                            const char *path, vae_error *err)
{
    size_t left = end->list_bytes;
    vae_status status = VAE_OK;
    if (end->n_left_out == 0) {
        return VAE_OK;
    }
    if (end->n_left_out > left / 24) {
        return damaged(path, "its list of files", err);
    }
    set->left_out = calloc(end->n_left_out, sizeof *set->left_out);
    if (set->left_out == NULL) {
        TRY(vae_fail_memory(err, end->n_left_out * sizeof *set->left_out, path));
    }
    for (size_t i = 0; i < end->n_left_out; i++) {
        uint64_t place[3];
        if (left < sizeof place) {
            TRY(damaged(path, "its list of files", err));
        }
        memcpy(place, list, sizeof place);
        list += sizeof place, left -= sizeof place;
        if (place[0] >= end->files || (i > 0 && place[0] <= set->left_out[i - 1].number) ||
            place[1] > left || place[2] > left - place[1]) {
            TRY(damaged(path, "its list of files", err));
        }
        vae_left_out *out = &set->left_out[i];
        *out = (vae_left_out){.number = place[0],
                              .file = copy_text(list, place[1]),
                              .why = copy_text(list + place[1], place[2])};
        set->n_left_out = i + 1;
        if (out->file == NULL || out->why == NULL) {
            TRY(vae_fail_memory(err, place[1] + place[2], path));
        }
        list += place[1] + place[2], left -= place[1] + place[2];
    }
done:
    return status;
}

vae_status vae_cache_open(vae_dataset *set, vae_picture_counts *counts, bool *fits, char why[256],
                          const char *path, const vae_cache_key *key, vae_error *err)
{
    vae_map *map = NULL;
    footer end;
    const uint8_t *list = NULL;
    uint32_t version = 0;
    vae_status status = VAE_OK;
    *fits = false;
    why[0] = '\0';
    TRY(vae_path_exists(fits, path, err));
    if (!*fits) {
        return VAE_OK;
    }
    *fits = false;
    TRY(vae_map_open(&map, path, err));
    TRY(check_head(map, path, &version, err));
    if (version != VERSION) {
        snprintf(why, 256, "it is of format %u, this program's is %d", version, VERSION);
        goto done;
    }
    TRY(read_footer(&end, &list, map, path, err));
    if (!is_of(why, &end, key)) {
        goto done;
    }
    TRY(read_list(set, list, &end, path, err));
    set->n = end.n;
    set->height = end.height, set->width = end.width, set->channels = end.channels;
    set->d = end.height * end.width * end.channels;
    set->rows = (void *)(uintptr_t)(vae_map_bytes(map) + HEAD); /* not to be written: set->map */
    set->recorded = vae_map_bytes(map) + vae_map_size(map) - sizeof end + offsetof(footer, rows);
    set->map = map;
    map = NULL;
    *counts = end.counts;
    *fits = true;
done:
    vae_map_close(map);
    return status;
}

/* ---- making ---- */

/* Is it the beginning of a cache, or nothing yet? */
static bool is_begun(const char *path)
{
    vae_map *map = NULL;
    bool is = false;
    if (vae_map_open(&map, path, NULL) == VAE_OK) {
        const size_t n = vae_map_size(map) < sizeof magic ? vae_map_size(map) : sizeof magic;
        is = n == 0 || memcmp(vae_map_bytes(map), magic, n) == 0;
    }
    vae_map_close(map);
    return is;
}

/* Was it left by one who is gone? Who makes a cache holds a lock on it, which other hosts see, too;
 * and no process here has that number. */
static bool is_left(const char *path, const char *ending)
{
    long pid = 0;
    int place, end = 0;
    if (sscanf(ending, ".%ld-%d.tmp%n", &pid, &place, &end) != 2 || end == 0 ||
        ending[end] != '\0' || pid <= 0 || kill((pid_t)pid, 0) == 0 || errno != ESRCH) {
        return false;
    }
    const int fd = open(path, O_RDWR | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK);
    const bool left = fd >= 0 && flock(fd, LOCK_EX | LOCK_NB) == 0 && is_begun(path);
    if (fd >= 0) {
        close(fd);
    }
    return left;
}

/* Takes away what vae_file began beside `path` and somebody who was killed left: gigabytes,
 * perhaps. */
static void sweep(const char *path, const vae_error *err)
{
    char pattern[2 * VAE_PATH + 16];
    size_t used = 0;
    glob_t found;
    for (const char *c = path; *c != '\0'; c++) {
        if (strchr("*?[\\", *c) != NULL) {
            pattern[used++] = '\\';
        }
        pattern[used++] = *c;
    }
    snprintf(pattern + used, sizeof pattern - used, ".*-*.tmp");
    if (glob(pattern, GLOB_NOSORT, NULL, &found) != 0) {
        return;
    }
    for (size_t i = 0; i < found.gl_pathc; i++) {
        const char *name = found.gl_pathv[i];
        if (is_left(name, name + strlen(path)) && unlink(name) == 0) {
            vae_note(err != NULL ? err->notes : NULL,
                     "%s: removed: left by one who was killed while making %s", name, path);
        }
    }
    globfree(&found);
}

vae_status vae_cache_begin(vae_cache_writer *w, const char *path, vae_error *err)
{
    uint8_t head[HEAD] = {0};
    const uint32_t version = VERSION;
    vae_status status = VAE_OK;
    memcpy(head, magic, sizeof magic);
    memcpy(head + sizeof magic, &version, sizeof version);
    sweep(path, err);
    TRY(vae_file_begin(&w->file, path, err));
    flock(w->file.fd, LOCK_EX | LOCK_NB); /* for is_left; some file systems have none */
    TRY(vae_file_add(&w->file, head, sizeof head, err));
done:
    return status;
}

vae_status vae_cache_add(vae_cache_writer *w, const uint8_t *rows, size_t bytes, vae_error *err)
{
    return vae_file_add(&w->file, rows, bytes, err);
}

/* The rows' checksum, which begins with their number, from the file: that is known only now. */
static vae_status hash_rows(const vae_cache_writer *w, const vae_dataset *set,
                            uint8_t digest[VAE_SHA256_BYTES], vae_error *err)
{
    uint64_t head[3] = {set->n, set->d, VAE_U8};
    const size_t bytes = set->n * set->d;
    vae_sha256_sum *sum = NULL;
    vae_map *map = NULL;
    vae_status status = VAE_OK;
    TRY(vae_map_open(&map, w->file.temp, err));
    if (vae_map_size(map) != HEAD + bytes) {
        TRY(vae_fail(err, VAE_ERR_IO, "%s: changed while it was written", w->file.temp));
    }
    vae_map_in_order(map);
    TRY(vae_sha256_begin(&sum, err));
    vae_sha256_add(sum, head, sizeof head);
    for (size_t at = 0, n; at < bytes; at += n) {
        n = bytes - at < PIECE ? bytes - at : PIECE;
        vae_sha256_add(sum, vae_map_bytes(map) + HEAD + at, n);
        vae_map_drop(map, HEAD + at, n);
    }
    TRY(vae_sha256_end(&sum, digest, err));
done:
    vae_sha256_drop(sum);
    vae_map_close(map);
    return status;
}

/* Adds the list of what was left out. */
static vae_status add_list(vae_cache_writer *w, const vae_dataset *set, vae_sha256_sum *sum,
                           uint64_t *bytes, vae_error *err)
{
    vae_status status = VAE_OK;
    *bytes = 0;
    for (size_t i = 0; i < set->n_left_out; i++) {
        const vae_left_out *out = &set->left_out[i];
        const uint64_t place[3] = {out->number, strlen(out->file), strlen(out->why)};
        const struct iovec parts[3] = {
            {(void *)(uintptr_t)place, sizeof place}, {out->file, place[1]}, {out->why, place[2]}};
        for (size_t k = 0; k < 3; k++) {
            TRY(vae_file_add(&w->file, parts[k].iov_base, parts[k].iov_len, err));
            vae_sha256_add(sum, parts[k].iov_base, parts[k].iov_len);
            *bytes += parts[k].iov_len;
        }
    }
done:
    return status;
}

static vae_status add_end(vae_cache_writer *w, const vae_dataset *set,
                          const vae_picture_counts *counts, const vae_cache_key *key,
                          vae_error *err)
{
    footer end = {.n = set->n,
                  .height = set->height,
                  .width = set->width,
                  .channels = set->channels,
                  .asked = key->channels,
                  .files = key->files->n,
                  .n_left_out = set->n_left_out,
                  .counts = *counts};
    vae_sha256_sum *sum = NULL;
    vae_status status = VAE_OK;
    memcpy(end.digest, key->files->digest, sizeof end.digest);
    snprintf(end.settings, sizeof end.settings, "%s", key->settings);
    TRY(hash_rows(w, set, end.rows, err));
    TRY(vae_sha256_begin(&sum, err));
    TRY(add_list(w, set, sum, &end.list_bytes, err));
    vae_sha256_add(sum, &end, offsetof(footer, check));
    TRY(vae_sha256_end(&sum, end.check, err));
    TRY(vae_file_add(&w->file, &end, sizeof end, err));
done:
    vae_sha256_drop(sum);
    return status;
}

vae_status vae_cache_end(vae_cache_writer *w, bool keep, const vae_dataset *set,
                         const vae_picture_counts *counts, const vae_cache_key *key, vae_error *err)
{
    vae_status status = keep ? add_end(w, set, counts, key, err) : VAE_OK;
    if (!w->file.open) {
        return status;
    }
    const vae_status ended = vae_file_end(&w->file, keep && status == VAE_OK, err);
    return status == VAE_OK ? ended : status;
}
