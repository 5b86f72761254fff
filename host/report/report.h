/* A run as one HTML file: curves, pictures, tables, and the decoder itself, run by the page's own
 * script. It needs no network and opens from a file system. */
#ifndef VAE_REPORT_H
#define VAE_REPORT_H

#include "dataset/dataset.h"
#include "model/model.h"
#include "run/checkpoint.h"

/* What a report is made of. What is NULL is left out of it, and a note says so. */
typedef struct {
    vae_model *model;            /* with the parameters that are shown */
    size_t batch;                /* at most the model's max_batch */
    const vae_checkpoint *about; /* config, shape, state, summary; its params are not read */
    const char *name;            /* of the run or the checkpoint, as the user knows it */
    const char *folder;          /* where metrics.jsonl and run.json are, or NULL */
    vae_data *data;              /* on the model's backend, n rows; or NULL */
    const vae_dataset *set;      /* they are of; with data */
    const uint32_t *rows;        /* (n) numbers of these rows in set; NULL = 0..n-1 */
    size_t n;
    const char *split;               /* train, validation or test; with data */
    const char *missing;             /* why there are no data, or NULL */
    const volatile int *stop_signal; /* may be NULL */
} vae_report_source;

typedef struct {
    size_t bytes;          /* of the file */
    size_t explorer_bytes; /* of the decoder's weights in it; 0 = the explorer was left out */
    bool half;             /* they are float16 */
    double seconds;        /* it took */
} vae_report_result;

/* Writes the report to `path`, atomically. It draws nothing from generators that training uses and
 * leaves parameters, moments and totals as they are. VAE_ERR_INTERRUPTED by the signal;
 * VAE_ERR_IO, VAE_ERR_RUNTIME, and what the model returns. */
vae_status vae_report_write(const vae_report_source *source, const char *path,
                            vae_report_result *result, vae_error *err);

#endif
