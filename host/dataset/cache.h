/* Rows of picture files, decoded and resized, kept in a file that is mapped afterwards. It holds
 * for the files it was made of, by their names, sizes and times, and for what else decides its
 * bytes; where these are others it is made anew. */
#ifndef VAE_CACHE_H
#define VAE_CACHE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/file.h"
#include "base/status.h"
#include "dataset/dataset.h"
#include "dataset/folder.h"

/* Of the pictures that were read: how many are grey, are in colour and lost it, lie in files of
 * several. */
typedef struct {
    uint64_t grey, colour, many;
} vae_picture_counts;

enum { VAE_CACHE_SETTINGS = 512 };

/* What a cache is of. */
typedef struct {
    const vae_folder *files;
    size_t channels;                   /* that are asked for; 0: those that the files have */
    char settings[VAE_CACHE_SETTINGS]; /* text of all else that decides the bytes */
} vae_cache_key;

/* Opens the cache, if it fits: *fits, and set's n, d, height, width, channels, rows, map, recorded
 * and left_out are filled in. Where it does not fit, or there is none, nothing is filled in, and
 * `why` is what is different ("": there is none). VAE_ERR_DATA: it is damaged, or no cache of this
 * program; VAE_ERR_IO, VAE_ERR_RUNTIME. */
vae_status vae_cache_open(vae_dataset *set, vae_picture_counts *counts, bool *fits, char why[256],
                          const char *path, const vae_cache_key *key, vae_error *err);

/* A cache in the making. It takes its place at vae_cache_end, at once and whole; until then what
 * was there stays. */
typedef struct {
    vae_file file;
} vae_cache_writer;

/* Who was killed while making one here has left a file beside it, which is removed and told of.
 * VAE_ERR_IO. */
vae_status vae_cache_begin(vae_cache_writer *w, const char *path, vae_error *err);
vae_status vae_cache_add(vae_cache_writer *w, const uint8_t *rows, size_t bytes, vae_error *err);
/* keep: of all that was added, set (n, d, height, width, channels, left_out) and counts tell; else
 * what was written is taken away. Must be called once begun. VAE_ERR_IO, VAE_ERR_RUNTIME. */
vae_status vae_cache_end(vae_cache_writer *w, bool keep, const vae_dataset *set,
                         const vae_picture_counts *counts, const vae_cache_key *key,
                         vae_error *err);

#endif
