/* Files read in place: mapped, so that they may be larger than memory. */
#ifndef VAE_MAP_H
#define VAE_MAP_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/status.h"

/* A regular file's bytes, read-only. It holds the file's descriptor as long as it lives: the bytes
 * are those of the file that was opened, whatever takes its name later.
 *
 * Who writes into the file, or cuts it short, changes them under the reader. vae_map_check tells,
 * asked between pieces of work. What is gone cannot be read: the access raises SIGBUS, as it does
 * where the disk fails. A program that wants words for it has a handler that asks vae_map_blame;
 * libraries leave signals alone. */
typedef struct vae_map vae_map;

/* *out is the caller's: vae_map_close. An empty file has 0 bytes. Errors name the path: VAE_ERR_IO
 * (cannot open), VAE_ERR_DATA (a folder, a pipe, a device; more than addresses can tell),
 * VAE_ERR_RUNTIME (no memory; a file system whose files cannot be mapped). */
vae_status vae_map_open(vae_map **out, const char *path, vae_error *err);

/* The same for an open descriptor, of which it has a duplicate; `name` is for messages. A file
 * system whose files cannot be mapped gives *out NULL, and is no error. */
vae_status vae_map_open_fd(vae_map **out, int fd, const char *name, vae_error *err);

/* NULL-safe. */
void vae_map_close(vae_map *m);

/* By which it was opened; the map's own. */
const char *vae_map_name(const vae_map *m);

/* The first byte, at a page's beginning (NULL: there is none), and how many. */
const uint8_t *vae_map_bytes(const vae_map *m);
size_t vae_map_size(const vae_map *m);

/* Is the file what it was when it was opened, by its size and the time it was written last?
 * VAE_ERR_IO if not, naming it. */
vae_status vae_map_check(const vae_map *m, vae_error *err);

/* ---- advice, which changes no byte; offsets and lengths need not be those of pages ---- */

/* What is read next: all, one byte after another, the file is fetched ahead of them; or pieces from
 * anywhere, and only they are fetched. */
void vae_map_in_order(const vae_map *m);
void vae_map_at_random(const vae_map *m);
/* Begins fetching these bytes from the disk, where they are not in memory, and returns. */
void vae_map_fetch(const vae_map *m, size_t offset, size_t n);
/* Has this process read from a disk since *seen was set (0: ever)? Sets it. Fetching ahead costs a
 * system call a piece, so whoever reads at random asks now and then whether it is worth that. */
bool vae_map_disk_was_read(uint64_t *seen);
/* They are done with: they no longer count as memory of this process. (The system may keep them in
 * its cache of the file.) */
void vae_map_drop(const vae_map *m, size_t offset, size_t n);

/* ---- for a handler of SIGBUS: async-signal-safe ---- */

/* Does the address lie in a map that is open? If so a line that begins with `before`, names the
 * file and says why it could not be read is written to fd. Of more than 64 maps at once, the later
 * ones are not known. */
bool vae_map_blame(const void *address, int fd, const char *before);

#endif
