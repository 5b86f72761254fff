/* The plain types of a step: what host, backends and kernels say to each other. No functions but
 * those on the types themselves, and nothing of files, options or errors. */
#ifndef VAE_STEP_H
#define VAE_STEP_H

#include <stddef.h>
#include <stdint.h>

#include "philox.h"
#include "vae_math.h"

/* One row a likelihood p(x|z): its name in C and as an option, and what follows from it. Beside the
 * row it has its loops in both backends and in eval/score.c, and its outputs in the graphs of
 * exchange/export_onnx.c. */
#define VAE_LIKELIHOODS(ROW)                                                                       \
    /* name, outputs, unit, binarizable, sigmoid, variance, optimal, in_step */                    \
    ROW(VAE_BERNOULLI, "bernoulli", 1, 1, 1, 1, 0, 0, VAE_BERNOULLI)                               \
    ROW(VAE_GAUSSIAN, "gaussian", 1, 0, 0, 0, 1, 0, VAE_GAUSSIAN)                                  \
    ROW(VAE_GAUSSIAN_LEARNED, "gaussian-learned", 2, 0, 0, 0, 0, 0, VAE_GAUSSIAN_LEARNED)          \
    ROW(VAE_GAUSSIAN_OPTIMAL, "gaussian-optimal", 1, 0, 0, 0, 1, 1, VAE_GAUSSIAN)

#define VAE_LIKELIHOOD_NUMBER(ROW, ...)    ROW,
#define VAE_LIKELIHOOD_ROW(ROW, name, ...) {__VA_ARGS__},
#define VAE_LIKELIHOOD_COUNT(...)          +1
typedef enum { VAE_LIKELIHOODS(VAE_LIKELIHOOD_NUMBER) } vae_likelihood; /* from 0 */
enum { VAE_N_LIKELIHOODS = VAE_LIKELIHOODS(VAE_LIKELIHOOD_COUNT) };
enum { VAE_N_IN_STEP = VAE_GAUSSIAN_LEARNED + 1 }; /* rows up to here have loops of their own */

typedef struct {
    unsigned outputs; /* of the decoder for each value: 1, or 2 = [mean | raw log variance] */
    int unit;         /* takes values in [0,1], as probabilities; else it is a density of any */
    int binarizable;  /* values may be made 0 or 1 */
    int sigmoid;      /* the mean is the sigmoid of the output, a logit; else see vae_mean */
    int variance;     /* has one variance for all values, an option */
    int optimal;      /* which training sets to the mean squared error (sigma-VAE) */
    vae_likelihood in_step; /* what a step takes it for: the one whose loops it has */
} vae_likelihood_row;

static inline const vae_likelihood_row *vae_likelihood_of(vae_likelihood likelihood)
{
    static const vae_likelihood_row rows[] = {VAE_LIKELIHOODS(VAE_LIKELIHOOD_ROW)};
    return &rows[likelihood];
}

/* What a Gaussian's mean is of the decoder's output: itself, or its sigmoid, for values in [0,1].
 * Other likelihoods have it linear and go by their row. */
typedef enum { VAE_MEAN_LINEAR = 0, VAE_MEAN_SIGMOID } vae_mean;

static inline int vae_mean_is_sigmoid(vae_likelihood likelihood, vae_mean mean)
{
    return vae_likelihood_of(likelihood)->sigmoid || mean == VAE_MEAN_SIGMOID;
}

typedef enum {
    VAE_BINARIZE_NONE = 0,
    VAE_BINARIZE_THRESHOLD,
    VAE_BINARIZE_STATIC,
    VAE_BINARIZE_DYNAMIC
} vae_binarize;
typedef enum { VAE_OBJ_ELBO = 0, VAE_OBJ_IWAE, VAE_OBJ_DREG, VAE_OBJ_STL } vae_objective;

typedef enum {
    VAE_U8 = 0,  /* bytes; the value is byte/255 */
    VAE_F32 = 1, /* floats as they are */
    VAE_BITS = 2 /* bits; 0 or 1. Value j of a row is bit j%8, the least significant being bit 0, of
                  * its byte j/8; bits behind the last value are 0. As from
                  * numpy.packbits(x, axis=1, bitorder="little") */
} vae_dtype;

/* Rows of matrices and of parameters are a multiple of so many elements apart. */
enum { VAE_PAD = 16 };

/* Rounds n up to a multiple of VAE_PAD. */
static inline size_t vae_pad(size_t n)
{
    return (n + VAE_PAD - 1) / VAE_PAD * VAE_PAD;
}

/* A matrix in the backend's memory and activation type, row-major; ld in elements, a multiple of
 * VAE_PAD. Columns cols..ld-1 are zero and operations keep them so. */
typedef struct {
    void *data;
    size_t ld;
} vae_mat;

/* What changes from one step to the next. The host computes it, in double, for a run of steps
 * (plan); operations marked [plan] read the current entry from the backend's memory, so that a
 * captured graph draws fresh noise and follows the schedules when it is replayed. */
typedef struct {
    uint64_t draw;      /* block of the noise: the step, or the number of the evaluation pass */
    uint64_t first;     /* position of the batch's row 0 in the epoch's order */
    uint64_t order_key; /* key of the epoch's order */
    uint32_t shuffle;   /* 1: row of position i is vae_shuffle(order_key, n, ..., i); 0: i */
    uint32_t particle0; /* first particle's number, where particles come in blocks */
    float lr;
    float step_size; /* lr / (1 - beta1^t) */
    float rsqrt_c2;  /* 1 / sqrt(1 - beta2^t) */
    float beta;      /* weight of the KL */
    uint64_t step;   /* number of the optimizer step, from 1; named when a step goes bad */
    /* Semi-supervised training: the last extra_n rows of the data are labelled and lie outside the
     * order; they are cycled through, each cycle in an order of its own. Rows extra_at, ... of the
     * batch are numbers extra_first, ... of that endless sequence. extra_n = 0: there are none. */
    uint32_t extra_n, extra_at;
    uint64_t extra_first, extra_key;
    float labelled_share; /* of the training examples; the labelled ones' weight in the loss */
    /* Of a batch that ranks share, `first` is this rank's own first row. What is drawn for a row
     * goes by where it stands in the whole: labelled examples, behind all the others, are so much
     * further on, and so are rows of z of a semi-supervised model, up to number eps_at and from
     * there. */
    uint64_t extra_skip, eps_skip[2];
    uint64_t eps_at;
} vae_plan;

/* Position in the epoch's order, for what is drawn of it, of row r of the batch ... */
VAE_HD uint64_t vae_plan_position(const vae_plan *plan, uint64_t r)
{
    return plan->first + r + (plan->extra_n > 0 && r >= plan->extra_at ? plan->extra_skip : 0);
}
/* ... and of row b of z (of its first particle), for eps. */
VAE_HD uint64_t vae_plan_eps(const vae_plan *plan, uint64_t b)
{
    return plan->first + b + plan->eps_skip[b >= plan->eps_at];
}

/* Place, among the n rows of the data, of row r of the batch. half_bits = vae_shuffle_bits(n). */
VAE_HD uint64_t vae_plan_row(const vae_plan *plan, uint64_t n, uint32_t half_bits, uint64_t r)
{
    const uint64_t i = plan->first + r, plain = n - plan->extra_n;
    if (plan->extra_n > 0 && r >= plan->extra_at) {
        const uint64_t t = plan->extra_first + (r - plan->extra_at), cycle = t / plan->extra_n;
        return plain + vae_shuffle(plan->extra_key + cycle * 0x9E3779B97F4A7C15u, plan->extra_n,
                                   vae_shuffle_bits(plan->extra_n), t % plan->extra_n);
    }
    if (!plan->shuffle) {
        return i;
    }
    return vae_shuffle(plan->order_key, plain,
                       plan->extra_n > 0 ? vae_shuffle_bits(plain) : half_bits, i);
}

/* A label that is not known, or that the data set does not have. */
#define VAE_NO_LABEL UINT32_MAX

/* Running totals in the backend's memory, of all steps since they were last cleared. */
typedef struct {
    double recon, kl; /* sums over examples (of the mean over particles), nats */
    double objective; /* sum over examples of what is minimized, e.g. -log mean w; nats */
    double examples;
    double grad_norm;  /* of the last step, before clipping */
    uint64_t bad_step; /* 0, or the first step whose loss or gradient was NaN or Inf; from then on
                        * adam() changes nothing */
    double errors, classified; /* of examples with a label: misclassified ones, and all of them */
} vae_totals;

/* Rows for every class: the first n_open examples as each of the C classes, row b*C + c being
 * example b as class c, then one row for each of the n_labelled others, as its label says. So
 * examples = n_open + n_labelled, rows = n_open*C + n_labelled. label: (examples), in the backend's
 * memory. Means are over all_open and all_labelled: the same two numbers, of all ranks together. */
typedef struct {
    const uint32_t *label;
    size_t n_open, n_labelled, C;
    size_t all_open, all_labelled;
} vae_class_rows;

/* Where noise comes from: eps of (position, latent) by vae_eps4(seed, VAE_RNG_EPS, ...), with draw,
 * first and particle0 from the plan. */
typedef struct {
    uint64_t seed;
} vae_noise;

/* How recon_loss and decode read the decoder's output. */
typedef struct {
    vae_likelihood likelihood; /* an in_step of a row */
    float variance;            /* where it has one */
    vae_mean mean;
} vae_recon;

static inline vae_recon vae_recon_of(vae_likelihood likelihood, double variance, vae_mean mean)
{
    const vae_recon recon = {vae_likelihood_of(likelihood)->in_step, (float)variance, mean};
    return recon;
}

/* How latent_backward puts the gradient together. */
typedef struct {
    vae_objective objective;
    float kl_scale;  /* 1/B: of the KL's gradient, beside the plan's beta */
    float free_bits; /* > 0: latents whose kl_dim is at most this get no KL gradient */
} vae_latent_grad;

/* A whole training step, for a backend that runs it by itself: elbo, one particle, no classes, no
 * free bits. Pointers are to the backend's memory; layers are those of model/layout.h, encoder then
 * decoder, matrices those of model/workspace.h. Zero it before filling it. */
enum { VAE_WHOLE_LAYERS = 10 };
typedef struct {
    vae_mat x, y;   /* (B,in), (B,out): input and output */
    vae_mat dx, dy; /* their gradients; dx.data NULL in layer 0, dy = y in the last */
    void *aux;      /* linear_forward's, NULL for none */
    size_t in, out;
    size_t weight, bias, ldw; /* places in the flat buffers, in elements */
    vae_activation act;
} vae_whole_layer;

typedef struct {
    vae_whole_layer layers[VAE_WHOLE_LAYERS];
    size_t n_layers, n_encoder;
    size_t B, D, Z;
    float *params, *grads, *m, *v; /* (n) each; params are bound */
    size_t n;
    float *kl_row; /* (B) */
    vae_totals *totals;
    vae_noise noise;
    vae_binarize binarize;
    vae_recon recon;
    vae_adam adam;
    float clip_norm;
} vae_whole_step;

/* A convolution between a big picture (H,W,C) and a small one (h,w,c), both channels last:
 * h = (H + 2*pad - kernel) / stride + 1, w likewise. The weight is (c, parts*kernel*kernel*C), its
 * columns ordered (part, ky, kx, channel of C), and what meets pixel (i,j) of the small picture at
 * (ky,kx) is pixel (i*stride + ky - pad, j*stride + kx - pad) of the big one, zero outside it. A
 * layer makes the small picture of the big one; `transposed`, the big one of the small (the
 * adjoint). The big side may be several pictures one behind the other (parts): mean and raw log
 * variance. A row is one example's picture. */
typedef struct {
    size_t H, W, C, h, w, c;
    size_t kernel, stride, pad, parts;
    int transposed;
} vae_conv;

/* Values of a row on the big and the small side, and a row of the weight. */
static inline size_t vae_conv_big(vae_conv g)
{
    return g.parts * g.H * g.W * g.C;
}

static inline size_t vae_conv_small(vae_conv g)
{
    return g.h * g.w * g.c;
}

static inline size_t vae_conv_patch(vae_conv g)
{
    return g.parts * g.kernel * g.kernel * g.C;
}

#endif
