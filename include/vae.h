/* libvae: variational autoencoders from C. This header is the library's whole public interface;
 * everything else is hidden in the shared library and local in the static one.
 *
 *   cc example.c $(pkg-config --cflags --libs libvae)
 *
 * A `vae` is a handle on one model. Functions that can fail return 0, or one of enum vae_result,
 * the exit codes of the program `vae`; vae_message then says why, in one line. Arrays are
 * row-major, the caller's, and no larger than said. Data are rows of D values: for pictures
 * D = height*width*channels, channels last.
 *
 * A handle may be used by one thread at a time; different handles are independent, and compute side
 * by side. After fork() the child may go on with a handle that computes on the CPU. Nothing is
 * printed: vae_on_log has what there is to say. */
#ifndef VAE_H
#define VAE_H

#include <stddef.h>

#ifdef __cplusplus
extern "C" {
#endif

/* Of this header, and the number in the library's name, libvae.so.2. It grows when a program would
 * have to change. Until then functions, results and options are only added, and structs grow only
 * at their end: a program runs with any later libvae.so of the same number. */
#define VAE_API_VERSION 2

typedef struct vae vae;

enum vae_result {
    VAE_RESULT_OK = 0,
    VAE_RESULT_RUNTIME = 1,     /* out of memory, a library failed */
    VAE_RESULT_USAGE = 2,       /* an unknown option, a bad value, no model loaded */
    VAE_RESULT_DATA = 3,        /* data or a file that is not what it should be */
    VAE_RESULT_IO = 4,          /* cannot open, read or write */
    VAE_RESULT_DIVERGED = 5,    /* training met NaN or Inf */
    VAE_RESULT_NO_DEVICE = 6,   /* the GPU asked for is not there */
    VAE_RESULT_INTERRUPTED = 7, /* training was stopped, see vae_fit */
};

/* What rows are made of. */
enum vae_type {
    VAE_BYTES = 0,  /* unsigned char; a byte means byte/255 */
    VAE_FLOATS = 1, /* float; within [0,1] under the Bernoulli likelihood */
    /* bits, 0 or 1: a row is ceil(D/8) bytes, value j bit j%8 of byte j/8, bit 0 the least
     * significant (numpy.packbits(x, axis=1, bitorder="little")) */
    VAE_PACKED_BITS = 2,
};

/* "0.1.0", and as a number to compare with: 10000 * major + 100 * minor + patch. */
const char *vae_version(void);
unsigned long vae_version_number(void);

/* What a result means, in a few words: "training met NaN or Inf". */
const char *vae_result_text(int result);

/* A handle without a model; NULL if there is no memory. */
vae *vae_new(void);
/* NULL is allowed. */
void vae_free(vae *v);

/* Why the last call on this handle failed; "" if it did not. Good until the next call. */
const char *vae_message(const vae *v);

/* Sets an option of `vae train --help` by its name there, to a value as it is written there; a flag
 * is "true" or "false". It holds for every later call on this handle. Most are about vae_fit; three
 * say where and how all functions compute:
 *
 *   "device"    "auto" (a GPU if there is one), "cpu", "cuda", "cuda:1"      [auto]
 *   "threads"   CPU threads at most; "0" = OMP_NUM_THREADS, or all cores granted     [0]
 *   "seed"      of all that is drawn: z, samples, drawn binarization   [the model's]
 *
 * VAE_RESULT_USAGE for an unknown name or a bad value, and for options that say where the program
 * gets its data and how it reads them. */
int vae_set_option(vae *v, const char *name, const char *value);

/* Told what a handle has to say: what is trained, warnings. `line` ends without a newline and is
 * good during the call, which must not use the handle, but for vae_stop. */
typedef void vae_log_fn(void *context, const char *line);
void vae_on_log(vae *v, vae_log_fn *fn, void *context);

/* ---- models ---- */

/* Loads a run folder (its newest checkpoint), a checkpoint, or weights from safetensors or npz with
 * the names that `vae export` writes (pytorch/examples' for one hidden layer). VAE_RESULT_USAGE for
 * a stacked model. A model that was there stays if this fails. */
int vae_load(vae *v, const char *path);

/* Writes the model: .safetensors, .npz, or a checkpoint by any other name. Atomic. */
int vae_save(vae *v, const char *path);

struct vae_shape {
    size_t rows_of;                 /* D, values of a row */
    size_t height, width, channels; /* D = height*width*channels; 1 x D x 1 if no picture */
    size_t latent;                  /* Z */
    size_t parameters;
    size_t classes;  /* C, of the model; 0: it knows none */
    int conditional; /* x and z go with the class of each row: vae_set_labels */
    int classifies;  /* semi-supervised: vae_classify tells the classes */
};
/* size: sizeof *shape, as the program was compiled; what a newer library would add stays away, what
 * an older one does not have is zero. */
int vae_get_shape(vae *v, struct vae_shape *shape, size_t size);

/* The k-th class's name, k < classes of the shape; NULL if there is none. The model's, good as long
 * as that is there. */
const char *vae_class(vae *v, size_t k);

/* ---- labels ---- */

/* The class of each of the n rows that the next calls are given: its name, or a whole number in
 * digits, which means itself; NULL: not known. They are copied, and hold until others are set; n =
 * 0 takes them away. vae_fit takes the model's classes from them, numbers by their value, then
 * names by their bytes; training with option "condition" "labels" needs all rows' classes, with
 * "semi-supervised" "true" those of as many rows as option "labelled" says.
 * A conditional model's rows, and the z of any model with classes, need them in every call, as many
 * as there are rows; other calls look at them not at all. VAE_RESULT_DATA for what is no name: an
 * empty text, a fraction, no UTF-8, control characters. */
int vae_set_labels(vae *v, const char *const *labels, size_t n);

/* ---- use; x: (n,D) of `type` ---- */

/* mu, logvar (log sigma^2), z (drawn): (n,Z), each NULL where not wanted. */
int vae_encode(vae *v, const void *x, enum vae_type type, size_t n, float *mu, float *logvar,
               float *z);

/* x_hat: (n,D), the means of p(x|z), from z: (n,Z). Of a model with classes, p(x|z,y). */
int vae_decode(vae *v, const float *z, size_t n, float *x_hat);

/* x_hat: (n,D) from x by way of mu; nothing is drawn. A semi-supervised model goes by the class
 * that it finds most probable, here and in vae_encode. */
int vae_reconstruct(vae *v, const void *x, enum vae_type type, size_t n, float *x_hat);

/* n draws from the prior, decoded. x_hat: (n,D); z: (n,Z) or NULL. The same seed gives the same. */
int vae_sample(vae *v, size_t n, float *x_hat, float *z);

/* For each row, in nats: recon = -log p(x|z) with one draw of z (that of vae_encode), kl, and
 * negative_elbo = recon + kl; higher is more abnormal. (n) each, NULL where not wanted.
 * VAE_RESULT_USAGE for a semi-supervised model, whose density sums over the classes. */
int vae_score(vae *v, const void *x, enum vae_type type, size_t n, float *negative_elbo,
              float *recon, float *kl);

/* probability: (n,C), q(y|x) of a semi-supervised model; VAE_RESULT_USAGE for any other. */
int vae_classify(vae *v, const void *x, enum vae_type type, size_t n, float *probability);

/* ---- training ---- */

/* An epoch that is done; losses are means over the training rows, in nats. */
struct vae_epoch {
    unsigned long number, of; /* from 1 */
    double elbo, recon, kl;
    double bound; /* what is maximized: the ELBO, or under iwae, dreg and stl their bound */
};
/* Told after each epoch; must not use the handle, but for vae_stop. Not 0: stop here. */
typedef int vae_epoch_fn(void *context, const struct vae_epoch *epoch);
void vae_on_epoch(vae *v, vae_epoch_fn *fn, void *context);

/* Trains a new model on n rows of height x width x channels values (1, D, 1 where they are no
 * pictures), by the handle's options. Nothing is written, unless option "out" names a run folder,
 * as the program would write it; options that say how ("save-every", "keep", "sample-every",
 * "report") are refused without it. VAE_RESULT_INTERRUPTED where the function told after each
 * epoch, or vae_stop, ended it: the handle then has the model as far as it was trained. With "out",
 * VAE_RESULT_IO where training was done but its report, a picture or a line of its log could not be
 * written: the handle has the model then, too. A model that was there stays if anything else
 * fails. */
int vae_fit(vae *v, const void *x, enum vae_type type, size_t n, size_t height, size_t width,
            size_t channels);

/* Makes a vae_fit under way stop soon, within a fraction of a second; the only call on a handle in
 * use that another thread, or a signal handler, may make. */
void vae_stop(vae *v);

#ifdef __cplusplus
}
#endif

#endif
