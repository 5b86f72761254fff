/* The run folder and the files in it: atomic replacement, locking, rotation, what --resume keeps.
 * Names are fixed by DESIGN.md: config.json, run.json, metrics.jsonl, log.txt, checkpoints/,
 * samples/. */
#ifndef VAE_RUN_FOLDER_H
#define VAE_RUN_FOLDER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/uio.h>

#include "base/status.h"
#include "config/config.h"

/* Puts a file with the bytes of `parts`, one after another, in the place of `path`: a temp file
 * beside it (O_EXCL), every byte checked, fsync, rename, fsync of the folder. On failure the old
 * file is untouched and the temp file gone. VAE_ERR_IO. */
vae_status vae_file_replace(const char *path, const struct iovec *parts, size_t n, vae_error *err);

/* A file written piece by piece: what is too large to hold, or comes batch by batch. It stands in
 * the place of `path` only once vae_file_end keeps it, as vae_file_replace does it; a device, a
 * pipe or standard output ("-") is written into. Zero-initialize. */
typedef struct {
    bool open, replaces;
    int fd;
    const char *name; /* for messages; path, or "standard output" */
    const char *path; /* the caller's, until vae_file_end */
    char temp[VAE_PATH + 128];
} vae_file;

/* VAE_ERR_IO: cannot write there, or it is a folder. */
vae_status vae_file_begin(vae_file *f, const char *path, vae_error *err);
vae_status vae_file_add(vae_file *f, const void *bytes, size_t n, vae_error *err);
/* keep: syncs and renames; otherwise takes the temp file away. Must be called once begun. */
vae_status vae_file_end(vae_file *f, bool keep, vae_error *err);

/* Writes n bytes whatever write() makes of it: short writes, EINTR. False with errno. */
bool vae_write_all(int fd, const void *bytes, size_t n);

/* A whole file as a string, at most `most` bytes; *text is malloc'ed. */
vae_status vae_file_read(char **text, const char *path, size_t most, vae_error *err);

typedef struct {
    char path[VAE_PATH];
    int log; /* log.txt, locked: one process trains into a folder at a time */
    int metrics;
} vae_run_folder;

/* Room for a name inside a run folder. */
enum { VAE_RUN_PATH = VAE_PATH + 64 };

/* The refusal of vae_run_folder_open alone, before time is spent on anything else. */
vae_status vae_run_folder_check(const char *path, bool resume, bool force, vae_error *err);

/* Opens or makes the folder. Not empty: refused (VAE_ERR_USAGE) unless resume, or force, which
 * removes an earlier run's files (and nothing else). *empty tells that there is no earlier run to
 * resume. metrics is opened by vae_run_folder_metrics. */
vae_status vae_run_folder_open(vae_run_folder *folder, const char *path, bool resume, bool force,
                               bool *empty, vae_error *err);
void vae_run_folder_close(vae_run_folder *folder);

/* path of a file inside the folder. */
void vae_run_folder_path(const vae_run_folder *folder, const char *name, char out[VAE_RUN_PATH]);

/* Opens metrics.jsonl for appending, without the lines past `step` and without a torn last one. */
vae_status vae_run_folder_metrics(vae_run_folder *folder, uint64_t step, vae_error *err);

/* Appends a line (with its newline) to metrics.jsonl, or to log.txt, in one write. */
vae_status vae_run_folder_metric(vae_run_folder *folder, const char *line, vae_error *err);
void vae_run_folder_log(vae_run_folder *folder, const char *line);

/* Names of the checkpoints step-*.vae in RUN, newest first, malloc'ed (n of them, to be freed with
 * vae_run_list_free). A missing folder has none. */
vae_status vae_run_list(char ***names, size_t *n, const char *run, vae_error *err);
void vae_run_list_free(char **names, size_t n);

/* Removes all but the newest `keep` checkpoints. Failures are not errors: the next one retries. */
void vae_run_folder_rotate(const vae_run_folder *folder, size_t keep);

#endif
