/* Picture files of a folder: which there are, in which order, of which class. */
#ifndef VAE_FOLDER_H
#define VAE_FOLDER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/sha256.h"
#include "base/status.h"
#include "dataset/classes.h"
#include "dataset/dataset.h"

enum { VAE_FOLDER_PATH = 4096 }; /* room for a path, its NUL included */

/* n files, in the order of their paths. Room doubles: the list takes 12 to 24 bytes a file, and its
 * path once or twice; while it is made, 21 to 43 bytes more, by which files are known again. */
typedef struct {
    char *names; /* paths below the folder, a NUL behind each */
    size_t bytes, room_bytes;
    size_t *at;      /* (n) where each begins in names */
    uint32_t *label; /* (n) places in classes; VAE_NO_LABEL where there are none */
    size_t n, room;
    vae_labeller classes; /* names of folders */
    /* of all files found, in order: paths, sizes and times of their last change */
    uint8_t digest[VAE_SHA256_BYTES];
    char folder[VAE_FOLDER_PATH]; /* that holds them; "" of a single file */
} vae_folder;

/* *found: the folder that holds a split: <folder>/train, or the folder itself where there are no
 * splits, or <folder>/test, val or valid. VAE_ERR_IO. */
vae_status vae_folder_split(bool *found, const char *folder, vae_split split,
                            char path[VAE_FOLDER_PATH], vae_error *err);
/* *found: is there a picture in the folder, or in one of its folders? VAE_ERR_IO. */
vae_status vae_folder_has_pictures(bool *found, const char *folder, vae_error *err);
/* A note of what lies beside the folders of splits, which are called like this ("": there is none):
 * it is no part of them. */
void vae_folder_tell_beside(const char *folder, const char *train, const char *test,
                            const vae_error *err);

/* Fills an empty list with the pictures in the folder itself, or else those of its folders, each a
 * class. vae_folder_close in any case. Each file and folder is taken once, whatever links lead to
 * it. What is left aside is told to err's notes. VAE_ERR_DATA: no picture at all, pictures in both
 * places, in formats that are not read, a folder that cannot be called a class; VAE_ERR_IO,
 * VAE_ERR_RUNTIME. */
vae_status vae_folder_list(vae_folder *files, const char *folder, vae_error *err);
/* The same of one file, by its path. */
vae_status vae_folder_list_file(vae_folder *files, const char *path, vae_error *err);
void vae_folder_close(vae_folder *files);

/* Keeps, with 0 < limit < n, the first of a fixed random order of all: paths come by class.
 * VAE_ERR_RUNTIME. */
vae_status vae_folder_limit(vae_folder *files, size_t limit, vae_error *err);

/* The path of file i. Returns path. */
const char *vae_folder_path(const vae_folder *files, size_t i, char path[VAE_FOLDER_PATH]);

#endif
