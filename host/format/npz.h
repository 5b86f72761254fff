/* NPZ, numpy's archive of arrays: a zip file whose members are NPY files. Read by libzip, stored or
 * deflated; written by hand, stored, with the dates that numpy writes, so that the same arrays give
 * the same bytes. */
#ifndef VAE_NPZ_H
#define VAE_NPZ_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/parts.h"
#include "base/status.h"
#include "format/npy.h"

enum { VAE_NPZ_MAX_MEMBERS = 4096, VAE_NPZ_NAME = 128 };

/* ---- reading ---- */

typedef struct {
    char name[VAE_NPZ_NAME]; /* without ".npy" */
    npy_header header;       /* checked against the member's size; all zero if there is a fault */
    uint64_t index;          /* of the member in the archive */
    char *fault;             /* why it cannot be read, or NULL */
} vae_npz_member;

typedef struct {
    size_t n;
    vae_npz_member *members; /* in the archive's order; those that are no .npy, and what
                              * macOS puts beside files (__MACOSX/, ._*), are left out */
    char *path;              /* for messages */
    void *zip;               /* libzip's zip_t */
} vae_npz;

/* Opens an archive and reads every member's header. No data is read, and no memory is taken on the
 * word of a header: a member's size must be what its header says, and no more than its packed bytes
 * can give. A member that is damaged, a pickled object, there twice or the like has a fault, which
 * matters to those who use it. VAE_ERR_IO, VAE_ERR_DATA (not an archive, damaged, too many
 * members). */
vae_status vae_npz_open(vae_npz *out, const char *path, vae_error *err);
/* The same for an open descriptor; it stays the caller's. */
vae_status vae_npz_open_fd(vae_npz *out, int fd, const char *name, vae_error *err);
void vae_npz_close(vae_npz *npz);

/* NULL if there is none of that name. */
const vae_npz_member *vae_npz_find(const vae_npz *npz, const char *name);

/* VAE_ERR_DATA if the member has a fault: to be asked before its header is looked at. */
vae_status vae_npz_check(const vae_npz *npz, const vae_npz_member *member, vae_error *err);

/* The members' names with commas between them, for messages: as many as there is room for. Returns
 * text. */
enum { VAE_NPZ_NAMES = 400 };
const char *vae_npz_names(const vae_npz *npz, char text[VAE_NPZ_NAMES]);

/* Reads a member's data as they are: header.n_items * header.item_bytes bytes into `data`. The
 * archive's CRC is checked. VAE_ERR_DATA. */
vae_status vae_npz_read(const vae_npz *npz, const vae_npz_member *member, void *data,
                        vae_error *err);

/* Reads a member of items of at most 8 bytes piece by piece: fn gets n of them as they are, in
 * their order; what it returns ends the reading. As vae_npz_read. */
typedef vae_status vae_npz_chunk_fn(void *ctx, const uint8_t *items, size_t n, vae_error *err);
vae_status vae_npz_read_chunks(const vae_npz *npz, const vae_npz_member *member,
                               vae_npz_chunk_fn *fn, void *ctx, vae_error *err);

/* Reads a member of f2, f4 or f8 (little-endian, C order) as float32. VAE_ERR_DATA. */
vae_status vae_npz_read_floats(const vae_npz *npz, const vae_npz_member *member, float *values,
                               vae_error *err);

/* ---- writing ---- */

/* An archive in the making. Zero-initialize it. Failed allocations stick in `parts`. */
typedef struct {
    vae_parts parts;
    size_t n;
    struct vae_npz_written {
        char name[VAE_NPZ_NAME];
        uint32_t crc;
        uint64_t bytes, offset;
    } * members;
} vae_npz_writer;

/* Adds an array: data (shape...) of descr's items of item_bytes each, borrowed until the file is
 * written. name: below VAE_NPZ_NAME - 4 bytes. */
void vae_npz_add(vae_npz_writer *w, const char *name, const char *descr, size_t item_bytes,
                 const size_t *shape, size_t ndim, const void *data);
/* Adds the directory, which ends the archive: w->parts is the file, to be put or cleared. */
void vae_npz_finish(vae_npz_writer *w);

#endif
