/* Anomaly scores of rows under a trained model: nats, higher is more abnormal. With z_1..z_L drawn
 * from q(z|x) and mu its mean:
 *   recon_error  -log p(x|z=mu): the reconstruction error, without noise
 *   recon_prob   -(1/L) sum_l log p(x|z_l), the reconstruction probability of An & Cho (2015,
 *                algorithm 4), as a loss
 *   neg_elbo     recon_prob + KL(q(z|x)||p(z)), the KL in closed form: -ELBO
 *   nll          -log (1/L) sum_l p(x|z_l) p(z_l) / q(z_l|x): the bound of Burda et al. (2015) on
 *                -log p(x), from the same draws
 * For a Gaussian likelihood p(x|z) is a density, and scores may be below zero. x is as the model
 * takes it: where columns were standardized, the density is that of the standardized values.
 *
 * Contributions: what column d adds to the reconstruction part, -log p(x_d|z), either at z = mu (a
 * row's sum is recon_error) or averaged over the L draws (recon_prob), up to float32 rounding.
 *
 * A row so far out that the model overflows (NaN or Inf) scores +Inf. */
#ifndef VAE_SCORE_H
#define VAE_SCORE_H

#include "infer/trained.h"

typedef enum {
    VAE_RECON_ERROR = 0,
    VAE_RECON_PROB,
    VAE_NEG_ELBO,
    VAE_NLL,
    VAE_SCORES /* how many there are */
} vae_score_kind;

/* "recon_error" ... */
const char *vae_score_name(vae_score_kind score);

typedef struct {
    /* started for vae_score_shape's batches. Of a conditional model scores are of -log p(x|y), y
     * the row's label. The threads of the config are those of this pass's own loops, too */
    const vae_trained *on;
    vae_data *data; /* n rows on its backend */
    size_t n;
    size_t samples;     /* L, >= 1 */
    bool contributions; /* keep them: n*D floats */
    size_t top;         /* keep the columns of so many largest contributions of each row */
    bool at_mu;         /* contributions (and top) at mu; else averaged over the draws */
    vae_watch watch;
} vae_score_job;

typedef struct {
    size_t n, d, infinite; /* rows that scored +Inf in any of the four */
    float *of[VAE_SCORES]; /* (n) each */
    float *contributions;  /* (n,d) or NULL */
    uint32_t *top;         /* (n,n_top) columns of largest contribution, largest first, or NULL */
    float *top_value;      /* (n,n_top) what they contribute */
    size_t n_top;          /* job.top, cut to d */
} vae_row_scores;

/* What vae_score_rows asks of the model: the max_batch and particles it must be made with. */
void vae_score_shape(const vae_score_job *job, size_t *rows, size_t *particles);

/* Scores all n rows, in order, in blocks: memory beside the results is that of one block
 * (vae_score_shape's rows x particles, times D with contributions). Deterministic: noise is a
 * function of the config's seed and of the row's position in the data. VAE_ERR_DIVERGED if no row
 * has a finite score, VAE_ERR_RUNTIME (memory), the backend's errors. Clear *out in any case. */
vae_status vae_score_rows(vae_row_scores *out, const vae_score_job *job, vae_error *err);
void vae_row_scores_clear(vae_row_scores *s);

/* One row again, as vae_score_rows saw it: x and x_hat (decoded from mu): (d), contributions: (d).
 * Up to rounding, which may depend on how many rows are computed at once. */
vae_status vae_score_row(float *x, float *x_hat, float *contributions, const vae_score_job *job,
                         size_t row, vae_error *err);

#endif
