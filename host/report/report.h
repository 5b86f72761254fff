/* A run as one HTML file: curves, pictures, tables, and the decoder itself, run by the page's own
 * script. It needs no network and opens from a file system. */
#ifndef VAE_REPORT_H
#define VAE_REPORT_H

#include "infer/trained.h"

/* What a report is made of. What is NULL is left out of it, and a note says so. */
typedef struct {
    /* With the parameters that are shown; of its checkpoint all but those: config, shape, state,
     * summary. Its data, if it has any, are shown, too; split: train, validation or test. */
    const vae_trained *on;
    const uint32_t *rows; /* (n) numbers of these data's rows in the set; NULL = 0..n-1 */
    const char *name;     /* of the run or the checkpoint, as the user knows it */
    const char *folder;   /* where metrics.jsonl and run.json are, or NULL */
    const char *missing;  /* why there are no data, or NULL */
    vae_watch watch;
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
