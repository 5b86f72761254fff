/* Files that `vae score` writes; each atomically, "-" being standard output. */
#ifndef VAE_SCORE_FILES_H
#define VAE_SCORE_FILES_H

#include "dataset/dataset.h"
#include "eval/score.h"

/* Scores of a set's rows; everything is borrowed. */
typedef struct {
    const vae_row_scores *scores;
    const vae_dataset *set;
    const uint8_t *flag;             /* (n) 1: the score `by` is above the threshold */
    const char *const *column_names; /* (d), or NULL: columns go by their number, from 0 */
    vae_score_kind by;
    float threshold;
} vae_score_table;

/* A line a row, in the set's order, numbers with nine digits, which tell float32 apart:
 *   row,label,recon_error,recon_prob,neg_elbo,nll,flag,top_features
 * label where the set has labels; top_features where the scores have them: "column=contribution"
 * of each, largest first, with ";" between, in quotes where columns have names. An .npz has the
 * same as arrays of these names, f4, u1 and, of top_features, the columns' numbers, u4 (n,3); and
 * threshold, f4 (1), and score, the name of the flagged one. VAE_ERR_IO, VAE_ERR_RUNTIME. */
vae_status vae_scores_write(const vae_score_table *table, const char *path, vae_error *err);

/* scores->contributions, (n,d) f4: .npz with the arrays contributions and labels, or .npy. */
vae_status vae_contributions_write(const vae_score_table *table, const char *path, vae_error *err);

/* PNG of the rows of highest score `by`, a line each, highest first: the row, its reconstruction
 * (decoded from mu), the contributions of its pixels, from the least (black) to the largest (white)
 * of all lines. At most VAE_HEATMAP_ROWS. */
enum { VAE_HEATMAP_ROWS = 10 };
vae_status vae_heatmap_write(const vae_score_table *table, const vae_score_job *job,
                             const char *path, vae_error *err);

#endif
