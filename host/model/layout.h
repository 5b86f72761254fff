/* The parameter layout: one table, built once from the config, that initialization, forward,
 * optimizer, checkpoint, export and `vae info` all read. */
#ifndef VAE_LAYOUT_H
#define VAE_LAYOUT_H

#include <stdbool.h>
#include <stddef.h>

#include "base/status.h"
#include "config/config.h"

enum { VAE_TENSOR_NAME = 32, VAE_MAX_LAYER_ROWS = 6 * VAE_MAX_LAYERS + 3 };

/* The data a model is for: rows of h*w*c values, pictures with the channel last; 1 x d x 1 where
 * they are none. */
typedef struct {
    size_t h, w, c;
} row_shape;

static inline row_shape vae_flat(size_t d)
{
    return (row_shape){1, d, 1};
}

/* One tensor in a flat buffer of floats: element (r,c) is at offset + r*ld + c. Rows are padded
 * to VAE_PAD floats; padding is zero in parameters, gradients and moments alike, and stays so. */
typedef struct {
    char name[VAE_TENSOR_NAME]; /* "encoder.0.weight", "decoder.1.bias" ... */
    size_t rows, cols, ld, offset;
} tensor_desc;

/* A layer of `in` values a row to `out`. Linear: y = act(x W^T + b), W (out,in), b (out). A
 * convolution, transposed or not: W (c,patch), b one for each channel it makes (step.h). */
typedef struct {
    size_t in, out;
    size_t weight, bias; /* indices into tensors */
    vae_activation act;
    bool is_conv;
    vae_conv conv;
    size_t beside; /* columns that lie behind its output, for the class that the next layer sees */
} layer_desc;

/* Layers in order: encoder 0 .. n_encoder-1, the last being the head (2Z rows: mu, then logvar,
 * linear); then decoder 0 .. n_decoder-1, the last being the output (D rows, or 2D: mean, then
 * raw log variance, when the variance is learned; linear); then, in a semi-supervised model, the
 * classifier q(y|x) 0 .. n_classifier-1, the encoder's hidden sizes and C outputs. tensors[2*l] is
 * layer l's weight, tensors[2*l+1] its bias.
 *
 * The encoder's and the classifier's first n_conv layers are convolutions, each halving height and
 * width, and the decoder's last n_conv are their mirror, transposed, behind a linear layer that
 * makes the smallest picture.
 *
 * A model with classes sees the one-hot class as C columns more of the input of its first linear
 * layers: encoder.n_conv takes [x | y], x being what the convolutions made of it, decoder.0
 * [z | y]. (Planes of it before the first convolution would say the same at every pixel at
 * (h*w*C)/C times the cost, and a semi-supervised model would convolve once for every class.) */
typedef struct {
    tensor_desc *tensors;
    size_t n;        /* tensors */
    size_t total;    /* floats of a flat buffer, padding included */
    size_t n_params; /* floats that mean something */
    layer_desc layers[VAE_MAX_LAYER_ROWS];
    size_t n_encoder, n_decoder, n_classifier;
    size_t n_conv;
    size_t d, z;     /* data and latent size */
    row_shape shape; /* of the data */
    size_t c;        /* classes that the model is conditioned on; 0 = none */
} param_layout;

/* Hidden sizes of the decoder, latent side first: decoder_hidden, or hidden mirrored. */
vae_sizes vae_config_decoder(const vae_config *config);

/* Builds the layout for data of that shape. Errors: VAE_ERR_USAGE (a size that overflows; rows that
 * are no pictures, or of a size that convolutions do not divide, which says what would work). */
vae_status vae_layout_build(param_layout *layout, const vae_config *config, row_shape shape,
                            vae_error *err);
void vae_layout_clear(param_layout *layout);

/* Multiply-adds of a layer for one row. */
double vae_layer_products(const layer_desc *layer);

/* Copies between a padded flat buffer and a packed one (n_params floats, tensors in order). */
void vae_layout_pack(const param_layout *layout, float *packed, const float *flat);
void vae_layout_unpack(const param_layout *layout, float *flat, const float *packed);

/* Initial parameters into a padded flat buffer, by config->init from config->seed:
 * torch: W, b ~ U(+-1/sqrt(in)); glorot: W ~ U(+-sqrt(6/(in+out))), b = 0 (Glorot & Bengio 2010);
 * he: W ~ N(0, 2/in), b = 0 (He et al. 2015). A convolution's in is the values that one output is
 * made of, its out those that one input reaches; but torch's in of a transposed one is as
 * torch.nn.ConvTranspose2d has it, made channels * kernel^2. */
void vae_layout_init(const param_layout *layout, float *flat, vae_init init, uint64_t seed);

#endif
