/* Files written whole, atomically where that can be, and read whole. */
#ifndef VAE_FILE_H
#define VAE_FILE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/stat.h>
#include <sys/types.h>
#include <sys/uio.h>

#include "base/status.h"

/* Room for a path that a user names, its NUL included. */
enum { VAE_PATH = 512 };

/* A file written piece by piece: what is too large to hold, or comes batch by batch. It stands in
 * the place of `path` only once vae_file_end keeps it, as vae_file_replace does it; a device, a
 * pipe or standard output ("-") is written into. Zero-initialize. */
typedef struct {
    bool open, replaces;
    int failed; /* errno of the first write that failed; such a file is not kept */
    bool hasty; /* not synced: one of thousands, which are worth little one by one */
    int fd;
    const char *name; /* for messages; path, or "standard output" */
    const char *path; /* the caller's, until vae_file_end */
    char temp[VAE_PATH + 128];
} vae_file;

/* That belong together. */
enum { VAE_FILES = 4 };

/* VAE_ERR_IO: cannot write there, or it is a folder. */
vae_status vae_file_begin(vae_file *f, const char *path, vae_error *err);
/* The same, but whatever has this name is replaced and never written into: a link, a device,
 * too. */
vae_status vae_file_begin_new(vae_file *f, const char *path, vae_error *err);
/* Says how many bytes are to come. VAE_ERR_IO where the file system has no room for them, which
 * would otherwise show once it is full, to whoever else writes there too. */
vae_status vae_file_expect(const vae_file *f, uint64_t bytes, vae_error *err);
vae_status vae_file_add(vae_file *f, const void *bytes, size_t n, vae_error *err);
/* keep: syncs and renames; otherwise takes the temp file away. Must be called once begun. A file
 * that could not be added to is never kept, whether or not anyone looked at what vae_file_add said:
 * VAE_ERR_IO. */
vae_status vae_file_end(vae_file *f, bool keep, vae_error *err);
/* The same of n files (at most VAE_FILES) that belong together: all are synced before the first
 * takes its place, and where one cannot, those before it give way again to what was there. */
vae_status vae_files_end(vae_file *files, size_t n, bool keep, vae_error *err);

/* Puts a file with the bytes of n parts, one after another, in the place of `path`: a temp file
 * beside it (O_EXCL), every byte checked, fsync, rename, fsync of the folder. On failure the old
 * file is untouched and the temp file gone. VAE_ERR_IO. */
vae_status vae_file_replace(const char *path, const struct iovec *parts, size_t n, vae_error *err);

/* The same where `path` is a regular file or new. A device, a pipe or standard output ("-") is
 * written into, as a rename would replace it. VAE_ERR_IO. */
vae_status vae_file_put(const char *path, const struct iovec *parts, size_t n, vae_error *err);

/* Removes what is called `path` if it is neither a file nor a folder: a symbolic link (what it
 * points to stays), a pipe, a device. For names that are a run's own. */
void vae_make_way(const char *path);

/* Is there anything of this name? That it cannot be known (no permission, a failing disk) is
 * VAE_ERR_IO, never "no". */
vae_status vae_path_exists(bool *there, const char *path, vae_error *err);
/* The same of a folder. */
vae_status vae_is_folder(bool *is, const char *path, vae_error *err);

/* The names in a folder, "." and ".." left out, in the order of their bytes: n of them, malloc'ed,
 * to be freed with vae_names_free. No such folder: none. VAE_ERR_IO where it cannot be read to its
 * end. */
vae_status vae_folder_names(char ***names, size_t *n, const char *path, vae_error *err);
void vae_names_free(char **names, size_t n);

/* Reads n bytes from `offset` on, whatever pread() makes of it: fewer only at the end of the file,
 * -1 with errno. */
ssize_t vae_read_at(int fd, void *to, size_t n, uint64_t offset);

/* Writes n bytes whatever write() makes of it: short writes, EINTR. False with errno. */
bool vae_write_all(int fd, const void *bytes, size_t n);

/* What fstat says of an open file, `name` for messages. VAE_ERR_DATA: it is no regular file;
 * VAE_ERR_IO. */
vae_status vae_file_inspect(struct stat *info, int fd, const char *name, vae_error *err);

/* A whole file, at most `most` bytes: *n of them and a NUL behind; *bytes is malloc'ed. VAE_ERR_IO,
 * VAE_ERR_DATA (a folder, a pipe or a device, more bytes), VAE_ERR_RUNTIME. */
vae_status vae_file_bytes(char **bytes, size_t *n, const char *path, size_t most, vae_error *err);
/* The same as a string. */
vae_status vae_file_read(char **text, const char *path, size_t most, vae_error *err);

#endif
