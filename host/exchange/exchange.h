/* Models out and in: safetensors, NPZ and ONNX. Exporters see a checkpoint (config, host floats)
 * and the layout that the config gives; nothing of backends.
 *
 * Names. A model with exactly one hidden layer on each side is exported with the names of
 * pytorch/examples' VAE, so that VAE().load_state_dict(load_file(f)) works:
 *   fc1 (D -> H)   fc21 (H -> Z, mu)   fc22 (H -> Z, logvar)   fc3 (Z -> H)   fc4 (H -> D)
 * and, where the variance is learned, fc41 (mean) and fc42 (raw log variance) in fc4's place.
 * Any other model:
 *   encoder.0, encoder.1 ...  mu  logvar  decoder.0, decoder.1 ...  output
 * and output_mean, output_logvar in output's place; a semi-supervised model's classifier q(y|x) is
 * classifier.0, classifier.1 ... (logits). A model with classes has these names whatever its
 * layers; encoder.0 (or mu, logvar) takes [x | onehot(y)], decoder.0 (or output) [z | onehot(y)].
 * Numbers count layers. Each name stands for NAME.weight, (out,in), and NAME.bias, (out), in
 * row-major float32, as torch.nn.Linear has.
 * A model with convolutions has the second set of names, with weights (out,in,4,4) as
 * torch.nn.Conv2d has and (in,out,4,4) as ConvTranspose2d; output makes the channels of the mean,
 * then those of the raw log variance, where that is learned. Pictures are (channels, height, width)
 * in it, and so are the columns of the linear layer behind the convolutions (the class behind them)
 * and the rows of the one before the transposed ones.
 *
 * Metadata, strings under these keys in all three formats (safetensors' __metadata__, ONNX's
 * metadata_props, a JSON object in the NPZ member `metadata`):
 *   vae_schema        "1"
 *   vae_version       version of the program that wrote the file
 *   config            JSON object of every option
 *   likelihood, mean, activation   as the options are spelled
 *   parameterization  "logvar = log sigma^2"
 *   output_logvar     how a learned variance is read off its layer (only there)
 *   data_shape        "[height,width,channels]", rows are HWC
 *   data_sha256       of the training set, if it is known
 *   data_shift, data_scale   arrays of D numbers: the model's x is (data - shift) / scale (only of
 *                     standardized data)
 *   columns           array of D names (only of tables)
 *   training          JSON object: step, epoch, finished, best, wall_s, summary
 */
#ifndef VAE_EXPORT_H
#define VAE_EXPORT_H

#include <stdbool.h>
#include <stddef.h>

#include "base/status.h"
#include "format/tensors.h"
#include "model/layout.h"
#include "run/checkpoint.h"

/* The head and the output may count twice. */
enum { VAE_EXPORT_TENSORS = 2 * (VAE_MAX_LAYER_ROWS + 2) };

/* Fills `tensors` in the layout's order; returns how many there are. */
size_t vae_export_tensors(const param_layout *layout, vae_named_tensor tensors[VAE_EXPORT_TENSORS]);

/* Parameters (n_params packed floats each) in the layout's order and in that of the tensors above:
 * from ours to theirs, or back. They differ where there are convolutions: kernels, and what the
 * linear layers beside them read or write, have channels first there. */
void vae_export_order(const param_layout *layout, float *ours, float *theirs, bool back);

/* Name of layer l without .weight or .bias; half: 1 for logvar's half of a layer that holds two,
 * else 0. */
void vae_export_layer_name(const param_layout *layout, size_t l, size_t half,
                           char name[VAE_EXPORT_NAME]);

/* The metadata above; free with vae_metadata_clear. VAE_ERR_RUNTIME (memory, or text in the config
 * that is not UTF-8). */
vae_status vae_metadata_build(vae_metadata *metadata, const vae_checkpoint *checkpoint,
                              vae_error *err);
void vae_metadata_clear(vae_metadata *metadata);

/* Each writes `path` atomically ("-" is standard output). VAE_ERR_IO, VAE_ERR_RUNTIME. */
vae_status vae_export_safetensors(const char *path, const vae_checkpoint *checkpoint,
                                  vae_error *err);
vae_status vae_export_npz(const char *path, const vae_checkpoint *checkpoint, vae_error *err);

/* Where the graphs go: OUT.onnx -> OUT.encoder.onnx, OUT.decoder.onnx and, of a model with a
 * classifier, OUT.classifier.onnx ("" if it has none); any other name the same way; in a folder
 * (one that exists, or a name that ends in '/') encoder.onnx ... VAE_ERR_USAGE: a name too long. */
typedef struct {
    char encoder[VAE_PATH + 24], decoder[VAE_PATH + 24], classifier[VAE_PATH + 24];
} vae_onnx_paths;
vae_status vae_export_onnx_paths(vae_onnx_paths *paths, const char *out, const vae_config *config,
                                 vae_error *err);

/* Writes the graphs, without random nodes and with a dynamic batch N:
 *   encoder  x (N,D) -> mu (N,Z), logvar (N,Z)
 *   decoder  z (N,Z) -> logits (N,D), probabilities (N,D)           bernoulli
 *            z (N,Z) -> mean (N,D)                                  gaussian
 *            z (N,Z) -> mean (N,D), logvar (N,D) (bounded)          gaussian-learned
 *   classifier  x (N,D) -> logits (N,C), probabilities (N,C)        semi-supervised
 * Encoder and decoder of a model with classes have a second input, y (N,C), the one-hot class.
 * All of them take their places together, or none does. VAE_ERR_USAGE (a model above ONNX's 2 GiB),
 * VAE_ERR_IO, VAE_ERR_RUNTIME. */
vae_status vae_export_onnx(const vae_onnx_paths *paths, const vae_checkpoint *checkpoint,
                           vae_error *err);

/* What vae_import needs to know that a file may not say. */
typedef struct {
    const vae_config *config; /* everything that tensors' shapes do not tell; NULL = defaults */
    vae_option_set given;     /* options set by the user: the file's metadata fills in the others */
    size_t height, width, channels; /* shape of the data; 0 = from metadata, else guessed: a square
                                     * picture if D is s*s or 3*s*s with s >= 8, else 1 x D x 1 */
} vae_import_options;

/* Reads weights from a safetensors or NPZ file (told apart by their first bytes) with the names
 * above into a checkpoint at step 0, without moments. Sizes come from the tensors' shapes. float64
 * is rounded; float16 and bfloat16 are widened. Errors: VAE_ERR_DATA (malformed file; missing,
 * extra or misshapen tensors; a type that is no float; NaN or Inf; metadata that contradicts the
 * tensors), VAE_ERR_IO, VAE_ERR_USAGE (an option that contradicts them), VAE_ERR_RUNTIME. *out is
 * the caller's: vae_checkpoint_free. */
vae_status vae_import(vae_checkpoint **out, const char *path, const vae_import_options *options,
                      vae_error *err);

/* The model of a run folder (its newest checkpoint), of a checkpoint, or of a file of weights, with
 * its name in `found`. As vae_checkpoint_open_run (without moments) and vae_import. */
vae_status vae_open_weights(vae_checkpoint **out, const char *path, char found[VAE_PATH],
                            vae_error *err);

#endif
