/* What the parts of a report share. report.c: the page; run.c: metrics.jsonl and run.json;
 * latents.c: where the data lie in latent space; pictures.c; explorer.c: the decoder for the page's
 * script; tables.c; text.c. */
#ifndef VAE_REPORT_INTERNAL_H
#define VAE_REPORT_INTERNAL_H

#include <jansson.h>

#include "eval/bytes.h"
#include "plot/plot.h"
#include "report/report.h"

enum { REPORT_TRAIN, REPORT_VALIDATION, REPORT_TEST, REPORT_SPLITS };
enum {
    REPORT_ELBO,
    REPORT_RECON,
    REPORT_KL,
    REPORT_RATE,
    REPORT_EPOCH,
    REPORT_BOUND, /* what is maximized */
    REPORT_WALL,  /* seconds of training */
    REPORT_COLUMNS
};

/* metrics.jsonl: a column of values for each split and figure. */
typedef struct {
    size_t n[REPORT_SPLITS];
    double *column[REPORT_SPLITS][REPORT_COLUMNS]; /* (n) */
    double *room;
} report_metrics;

typedef struct {
    size_t n, z;
    float *mu;        /* (n,Z) */
    uint32_t *labels; /* (n), or NULL */
    uint32_t *row;    /* (n) numbers in the data set */
    double *kl;       /* (Z) means, nats */
    bool *active;     /* (Z) Var(mu) > 0.01 (Burda et al. 2015) */
    size_t n_active;
    /* the points of the scatter, the first of the n */
    size_t n_points;
    float *xy;          /* (n_points,2) on the plane through `mean` along `axis` */
    float *mean, *axis; /* (Z), (2,Z) orthonormal */
    double share[2];    /* of the variance of mu that lies along each axis */
} report_latents;

/* The decoder as the page's script takes it: layer after layer, weights (out,in), then biases; of a
 * transposed convolution (step.h) its kernels (c,ky,kx,C), then C biases. */
typedef struct {
    size_t n_layers, in[2 * VAE_MAX_LAYERS + 1], out[2 * VAE_MAX_LAYERS + 1];
    size_t n[2 * VAE_MAX_LAYERS + 1], n_bias[2 * VAE_MAX_LAYERS + 1]; /* weights, biases */
    vae_conv conv[2 * VAE_MAX_LAYERS + 1];                            /* kernel 0: a linear layer */
    double products; /* multiply-adds of a picture */
    float *weights;  /* (n_weights) */
    size_t n_weights, classes;
    bool half, too_large;
    double half_error; /* of a pixel, in a trial; NAN = none was made */
} report_decoder;

typedef struct {
    const vae_report_source *from;
    const vae_trained *on;       /* from's */
    const vae_checkpoint *about; /* on's */
    vae_text page;
    report_metrics metrics;
    json_t *run, *summary;  /* run.json; the checkpoint's last figures; NULL = none */
    bool has_data, picture; /* can anything be drawn of data, and of pictures? */
    size_t *order;          /* (Z) dimensions, by KL if there are data */
    report_latents latents;
    vae_byte_figures bytes; /* of the first of the latents' examples; n = 0: none */
    report_decoder decoder;
} report;

/* metrics.jsonl and run.json of a folder (NULL: none); what is missing or damaged stays empty.
 * VAE_ERR_IO, VAE_ERR_RUNTIME (memory). */
vae_status report_read_run(report_metrics *m, json_t **run, const char *folder, vae_error *err);
void report_metrics_clear(report_metrics *m);
/* *out: NULL where the text is NULL, or no JSON. name: for messages. VAE_ERR_RUNTIME (memory). */
vae_status report_read_object(json_t **out, const char *text, const char *name, vae_error *err);
/* A member of run.json by its path, "host.name"; NULL = there is none. */
const json_t *report_member(const json_t *object, const char *path);

/* Encodes the data; finds the scatter's plane. */
vae_status report_look(report *r, vae_error *err);
/* The plan of a pass over these latents' examples, in their order. */
vae_plan report_plan(const report *r);
void report_latents_clear(report_latents *l);

/* Takes the decoder from the model; decides on its format. */
vae_status report_make_decoder(report *r, vae_error *err);

/* Sections of the page. */
vae_status report_put_pictures(report *r, vae_error *err);
void report_put_explorer(report *r);
void report_put_tables(report *r);

/* ---- pieces of text ---- */

/* A page up to its heading. over: what stands above that. */
void report_head(vae_text *page, const char *title, const char *over, const char *heading);

void report_base64(vae_text *out, const void *bytes, size_t n);
/* A note that something is left out, and why (a printf's text). */
void report_note(report *r, const char *format, ...) __attribute__((format(printf, 2, 3)));
/* Seconds as 1 h 02 min. */
const char *report_duration(char text[32], double seconds);
/* A row of a table: a name, and a value that is escaped. */
void report_row(report *r, const char *name, const char *value);

#endif
