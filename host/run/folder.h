/* The run folder and the files in it: locking, what --resume keeps. Their names are config.json,
 * run.json, metrics.jsonl, log.txt, report.html, checkpoints/, samples/, tensorboard/. */
#ifndef VAE_RUN_FOLDER_H
#define VAE_RUN_FOLDER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/file.h"
#include "base/status.h"
#include "config/config.h"

typedef struct {
    char path[VAE_PATH];
    int log; /* log.txt, locked: one process trains into a folder at a time */
    int metrics;
} vae_run_folder;

/* Room for a name inside a run folder. */
enum { VAE_RUN_PATH = VAE_PATH + 64 };

/* The refusals of vae_run_folder_open alone, before time is spent on anything else; nothing is
 * written. With resume, but not where it may begin `anew`, also that of a folder without a
 * checkpoint. */
vae_status vae_run_folder_check(const char *path, bool resume, bool anew, bool force,
                                vae_error *err);

/* Opens or makes the folder. Not empty: refused (VAE_ERR_USAGE) unless resume, or force, which
 * removes an earlier run's files (and nothing else). With these, a folder that is not recognisably
 * a run is refused all the same: it has a config.json or run.json of ours, and none of another
 * program, or a checkpoint, or no more than a run's first moments leave; and log.txt,
 * metrics.jsonl, checkpoints and samples are no links. The folder itself may be named by a link.
 * *empty tells that there is no earlier run to resume. metrics is opened by
 * vae_run_folder_metrics. */
vae_status vae_run_folder_open(vae_run_folder *folder, const char *path, bool resume, bool force,
                               bool *empty, vae_error *err);
void vae_run_folder_close(vae_run_folder *folder);

/* path of a file inside the folder, to be written with vae_file_replace. */
void vae_run_folder_path(const vae_run_folder *folder, const char *name, char out[VAE_RUN_PATH]);
/* The same of one that is written with vae_file_put, which writes into pipes and devices: one in
 * its place, or a link to one, is taken away first. */
void vae_run_folder_place(const vae_run_folder *folder, const char *name, char out[VAE_RUN_PATH]);

/* Relative paths of data and of the run below that were given where the run in `folder` began are
 * tried from there: they become whole ones where there is such a file or folder; that of a cache,
 * which is made where it is missing, also where it is neither there nor here. The working
 * directory it began in is run.json's "folder"; without a sound run.json they stay.
 * VAE_ERR_IO, VAE_ERR_RUNTIME: it is not known where they lead. */
vae_status vae_run_resolve_config(const char *folder, vae_config *config, vae_error *err);
/* The run folder of a checkpoint, RUN of RUN/checkpoints/NAME; "" if it lies elsewhere. VAE_ERR_IO,
 * VAE_ERR_RUNTIME: it is not known where. */
vae_status vae_run_of_checkpoint(const char *checkpoint, char folder[VAE_PATH], vae_error *err);

/* Opens metrics.jsonl for appending, without the lines past `step` and without a torn last one. */
vae_status vae_run_folder_metrics(vae_run_folder *folder, uint64_t step, vae_error *err);

/* Appends a line (with its newline) to metrics.jsonl, or to log.txt, in one write. */
vae_status vae_run_folder_metric(vae_run_folder *folder, const char *line, vae_error *err);
vae_status vae_run_folder_log(vae_run_folder *folder, const char *line, vae_error *err);

/* Names of the checkpoints step-*.vae in RUN, newest first, malloc'ed (n of them, to be freed with
 * vae_run_list_free). A missing folder has none. */
vae_status vae_run_list(char ***names, size_t *n, const char *run, vae_error *err);
void vae_run_list_free(char **names, size_t n);
/* The number in such a name. */
uint64_t vae_run_step_of(const char *name);

#endif
