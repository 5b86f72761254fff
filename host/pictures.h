/* Pictures that a model makes, batch by batch: latents are made, decoded and handed to a sink. All
 * commands that draw go through here, and so does training. */
#ifndef VAE_PICTURES_H
#define VAE_PICTURES_H

#include <stddef.h>
#include <stdint.h>

#include "checkpoint.h"
#include "model.h"
#include "row_sink.h"

enum { VAE_PICTURE_BATCH = 256 };

/* A model to draw with, and what to do meanwhile. */
typedef struct {
    vae_model *model;
    const vae_checkpoint *shape; /* of the data; d, height, width, channels and the config */
    size_t batch;                /* at most the model's max_batch */
    void (*progress)(void *ctx, size_t done, size_t n); /* may be NULL */
    void *ctx;                                          /* of progress */
    const volatile int *stop_signal;                    /* may be NULL */
} vae_painter;

/* Where latents come from. make: z (n,Z) out, rows first .. first+n-1. seen: x_hat (n,D), what they
 * were decoded to, once it is in the sink; may be NULL. */
typedef struct {
    vae_status (*make)(void *ctx, float *z, size_t first, size_t n, vae_error *err);
    void (*seen)(void *ctx, vae_row_sink *sink, const float *x_hat, size_t first, size_t n);
    void *ctx;
} vae_latent_source;

/* Decodes n rows of z from `source` into the sink. VAE_ERR_INTERRUPTED by the signal; what the
 * source, the model and the sink return. */
vae_status vae_paint(const vae_painter *p, const vae_latent_source *source, size_t n,
                     vae_row_sink *sink, vae_error *err);
/* The same for z: (n,Z) that are there. */
vae_status vae_paint_latents(const vae_painter *p, const float *z, size_t n, vae_row_sink *sink,
                             vae_error *err);

/* x_hat: (n,D) from z: (n,Z); what decodes for all of the above and below. */
vae_status vae_paint_decode(const vae_painter *p, float *x_hat, const float *z, size_t n,
                            vae_error *err);

/* Sink for n rows of the painter's shape. */
vae_sink_spec vae_painter_spec(const vae_painter *p, size_t n);

/* x: (n,D) as the model sees them, mu, z: (n,Z) of the n rows of data; each NULL where not wanted.
 * The noise, of z and of a drawn binarization, is that of evaluation's first pass. */
vae_status vae_look(const vae_painter *p, vae_data *data, size_t n, float *x, float *mu, float *z,
                    vae_error *err);

/* n draws from the prior by (seed, VAE_RNG_PRIOR), to `path`. columns: of a grid; 0 = square. */
vae_status vae_paint_prior(const vae_painter *p, const char *path, size_t n, size_t columns,
                           uint64_t seed, double temperature, vae_error *err);

/* n rows of data decoded from their mu, to `path`; in a grid the originals stand above them. The
 * first n, or with `mixed` the first of a fixed random order, for data whose neighbours look alike
 * (a grid of factors). columns: of a grid; 0 = 10. */
vae_status vae_paint_reconstructions(const vae_painter *p, const char *path, vae_data *data,
                                     size_t n, bool mixed, size_t columns, vae_error *err);

#endif
