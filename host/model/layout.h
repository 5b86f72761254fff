/* The parameter layout: one table, built once from the config, that initialization, forward,
 * optimizer, checkpoint, export and `vae info` all read. */
#ifndef VAE_LAYOUT_H
#define VAE_LAYOUT_H

#include <stddef.h>

#include "base/status.h"
#include "config/config.h"

enum { VAE_TENSOR_NAME = 32, VAE_MAX_LAYER_ROWS = 3 * VAE_MAX_LAYERS + 3 };

/* One tensor in a flat buffer of floats: element (r,c) is at offset + r*ld + c. Rows are padded
 * to VAE_PAD floats; padding is zero in parameters, gradients and moments alike, and stays so. */
typedef struct {
    char name[VAE_TENSOR_NAME]; /* "encoder.0.weight", "decoder.1.bias" ... */
    size_t rows, cols, ld, offset;
} tensor_desc;

/* A linear layer: y = act(x W^T + b), W (out,in), b (out). */
typedef struct {
    size_t in, out;
    size_t weight, bias; /* indices into tensors */
    vae_activation act;
} layer_desc;

/* Layers in order: encoder 0 .. n_encoder-1, the last being the head (2Z rows: mu, then logvar,
 * linear); then decoder 0 .. n_decoder-1, the last being the output (D rows, or 2D: mean, then
 * raw log variance, when the variance is learned; linear); then, in a semi-supervised model, the
 * classifier q(y|x) 0 .. n_classifier-1, the encoder's hidden sizes and C outputs. tensors[2*l] is
 * layer l's weight, tensors[2*l+1] its bias. A conditional model's first layers have C columns
 * more, for the one-hot class: encoder.0 takes [x | y], decoder.0 [z | y]. */
typedef struct {
    tensor_desc *tensors;
    size_t n;        /* tensors */
    size_t total;    /* floats of a flat buffer, padding included */
    size_t n_params; /* floats that mean something */
    layer_desc layers[VAE_MAX_LAYER_ROWS];
    size_t n_encoder, n_decoder, n_classifier;
    size_t d, z; /* data and latent size */
    size_t c;    /* classes that the model is conditioned on; 0 = none */
} param_layout;

/* Hidden sizes of the decoder, latent side first: decoder_hidden, or hidden mirrored. */
vae_sizes vae_config_decoder(const vae_config *config);

/* Builds the layout for data of d columns. Errors: VAE_ERR_USAGE (a size that overflows). */
vae_status vae_layout_build(param_layout *layout, const vae_config *config, size_t d,
                            vae_error *err);
void vae_layout_clear(param_layout *layout);

/* Copies between a padded flat buffer and a packed one (n_params floats, tensors in order). */
void vae_layout_pack(const param_layout *layout, float *packed, const float *flat);
void vae_layout_unpack(const param_layout *layout, float *flat, const float *packed);

/* Initial parameters into a padded flat buffer, by config->init from config->seed:
 * torch: W, b ~ U(+-1/sqrt(in)); glorot: W ~ U(+-sqrt(6/(in+out))), b = 0 (Glorot & Bengio 2010);
 * he: W ~ N(0, 2/in), b = 0 (He et al. 2015). */
void vae_layout_init(const param_layout *layout, float *flat, vae_init init, uint64_t seed);

#endif
