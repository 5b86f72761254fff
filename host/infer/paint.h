/* Pictures that a model makes, batch by batch: latents are made, decoded and handed to a sink. All
 * commands that draw go through here, and so does training. */
#ifndef VAE_PAINT_H
#define VAE_PAINT_H

#include "infer/row_sink.h"
#include "infer/trained.h"

/* A model to draw with, and what to do meanwhile. Where the run below a stacked model is open, it
 * makes pictures of what is decoded; else rows are drawn as they are. */
typedef struct {
    const vae_trained *on;
    const uint32_t *one_class; /* of every row, in a model with classes; NULL: the source knows */
    vae_watch watch;
} vae_painter;

/* Where latents come from. make: z (n,Z) out, rows first .. first+n-1. seen: x_hat (n,D), what they
 * were decoded to, once it is in the sink; may be NULL. label: (n) out, classes of the rows just
 * made; NULL: the painter's. */
typedef struct {
    vae_status (*make)(void *ctx, float *z, size_t first, size_t n, vae_error *err);
    void (*seen)(void *ctx, vae_row_sink *sink, const float *x_hat, size_t first, size_t n);
    void *ctx;
    void (*label)(void *ctx, uint32_t *label, size_t first, size_t n);
} vae_latent_source;

/* Decodes n rows of z from `source` into the sink. VAE_ERR_INTERRUPTED by the signal; what the
 * source, the model and the sink return. */
vae_status vae_paint(const vae_painter *p, const vae_latent_source *source, size_t n,
                     vae_row_sink *sink, vae_error *err);
/* The same for z: (n,Z) that are there. */
vae_status vae_paint_latents(const vae_painter *p, const float *z, size_t n, vae_row_sink *sink,
                             vae_error *err);

/* x_hat: (n,D) from z: (n,Z); what decodes for all of the above and below. label: (n) classes, or
 * NULL: the painter's. */
vae_status vae_paint_decode(const vae_painter *p, float *x_hat, const float *z,
                            const uint32_t *label, size_t n, vae_error *err);

/* Sink for n decoded rows. */
vae_sink_spec vae_painter_spec(const vae_painter *p, size_t n);

/* n draws from the prior by (seed, VAE_RNG_PRIOR), to `path`, as a square grid; of a model with
 * classes and without one_class, a line for each class, in which ceil(n / C) draws come again. */
vae_status vae_paint_prior(const vae_painter *p, const char *path, size_t n, uint64_t seed,
                           vae_error *err);

/* n rows of the model's data decoded from their mu, to `path`; in a grid the originals stand above
 * them. The first n, or with `mixed` the first of a fixed random order, for data whose neighbours
 * look alike (a grid of factors). columns: of a grid; 0 = 10. */
vae_status vae_paint_reconstructions(const vae_painter *p, const char *path, size_t n, bool mixed,
                                     size_t columns, vae_error *err);

#endif
