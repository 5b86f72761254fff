/* What `vae eval` computes, apart from models, files and the command line: examples come in batches
 * from a function, and every sum is in double.
 *
 * NLL: -log (1/K) sum_k w_k, w_k = p(x|z_k) p(z_k) / q(z_k|x) (Burda et al. 2015, eq. 8), over
 * blocks of particles with a running log-sum-exp: an upper bound on -log p(x) in expectation that
 * falls with K. nll_se is its standard error over examples.
 * Active units: latents with Cov_x(E_q[z|x]) > 0.01 (the same, section 5.2).
 *
 * The aggregate posterior q(z) = (1/N) sum_m q(z|x_m) is taken over N of the n examples, evenly
 * spread, and is then exact: with one z_i ~ q(z|x_i) for each,
 *   mi          mean_i log q(z_i|x_i) - log q(z_i)                   I(x;z) of these N examples
 *   marginal_kl (their mean KL, in closed form) - mi                 KL(q(z)||p(z))
 *   tc          mean_i log q(z_i) - sum_j log q_j(z_ij)              total correlation of q(z)
 *   dimwise_kl  marginal_kl - tc                                     sum_j KL(q_j||p_j)
 * (Hoffman & Johnson 2016; Chen et al. 2018, without their minibatch approximation). For these N
 * examples mi and tc have only the noise of z. mi never exceeds log N, so for more data than these
 * it is a lower bound in expectation, and says little where it comes close to log N: marginal_kl is
 * then too high by what mi is too low. mi_se and tc_se are standard errors over the N draws. */
#ifndef VAE_EVAL_H
#define VAE_EVAL_H

#include "infer/trained.h"

/* As vae_model_batch; usually vae_trained_batch. */
typedef vae_status vae_eval_batch(void *ctx, const vae_plan *plan, size_t rows, size_t particles,
                                  vae_batch_out *out, vae_error *err);

typedef struct {
    vae_eval_batch *batch;
    void *ctx;
    vae_watch watch;
    size_t n, z;
    size_t particles;   /* of the ELBO, >= 1 */
    size_t samples;     /* K of the NLL; 0 = no NLL */
    size_t aggregate;   /* N; taken as at most n; 0 = no aggregate posterior */
    uint64_t draws;     /* number of the first of two draws: the ELBO's noise, then the NLL's */
    size_t most;        /* rows that `batch` takes (for each of the ranks); 0: as it is best */
    size_t ranks;       /* that share the rows of each batch, so many times more of them; 0: as 1 */
    bool keep_examples; /* fill the per-example arrays */
    /* recon (and with it the ELBO) is the mean over the NLL's own `samples` draws, which come in
     * blocks, and no other draws are made: `particles` is not read, `aggregate` must be 0 */
    bool shared;
} vae_eval_job;

/* Means over examples in nats; NAN where not asked for. */
typedef struct {
    size_t n, z, samples, aggregate;
    double elbo, recon, kl, nll, nll_se;
    double *kl_dim; /* (Z) */
    size_t active_units;
    double mi, mi_se, mi_bound, marginal_kl, tc, tc_se, dimwise_kl; /* mi_bound: log N */
    /* (n) each, or NULL */
    float *recon_of, *kl_of, *nll_of;
} vae_evaluation;

/* Most examples (for each of the ranks) and most particles that a job asks `batch` for at once,
 * whatever K and n. */
void vae_eval_shape(const vae_eval_job *job, size_t *rows, size_t *particles);

/* VAE_ERR_DIVERGED where the loss is not finite, VAE_ERR_RUNTIME (memory), and what batch returns.
 * *out is to be cleared in any case. Memory: vae_eval_shape's batch, N*Z, and n if they are kept.
 */
vae_status vae_evaluate(vae_evaluation *out, const vae_eval_job *job, vae_error *err);
void vae_evaluation_clear(vae_evaluation *e);

/* An array of count items, zero; once one could not be had, or is more than this machine's memory,
 * *bytes says how much that was. */
void *vae_room(size_t *bytes, size_t count, size_t item);

/* A running log-sum-exp: zero terms are {-INFINITY, 0}. */
typedef struct {
    double most, sum; /* of the terms so far: most + log(sum) */
} vae_log_sum;
void vae_log_sum_add(vae_log_sum *s, double term);
double vae_log_sum_value(const vae_log_sum *s);

/* The aggregate posterior's figures of N examples: mu, logvar, z (N,Z) floats; kl: their mean KL.
 * Fills out->aggregate, mi .. dimwise_kl. The same numbers for any thread count. */
vae_status vae_eval_aggregate(vae_evaluation *out, const float *mu, const float *logvar,
                              const float *z, size_t n, size_t n_latents, double kl,
                              vae_error *err);

#endif
