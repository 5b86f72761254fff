#include "cpu_classes.h"

#include <math.h>
#include <string.h>

enum { MOST_CLASSES = 256 };

void vae_cpu_one_hot(float *row, uint32_t label, size_t C)
{
    for (size_t c = 0; c < C; c++) {
        row[c] = c == label ? 1.0f : 0.0f;
    }
}

uint32_t vae_cpu_classify(const float *logits, size_t C)
{
    uint32_t best = 0;
    for (uint32_t c = 1; c < C; c++) {
        best = logits[c] > logits[best] ? c : best;
    }
    return best;
}

static double log_sum_exp(const float *logits, size_t C)
{
    double most = (double)logits[0];
    for (size_t c = 1; c < C; c++) {
        most = (double)logits[c] > most ? (double)logits[c] : most;
    }
    double sum = exp((double)logits[0] - most);
    for (size_t c = 1; c < C; c++) {
        sum += exp((double)logits[c] - most);
    }
    return most + log(sum);
}

void vae_cpu_class_loss_row(const vae_cpu_class_loss *loss, float *terms, size_t stride,
                            float *weight, float *dlogits, const float *logits,
                            const float *recon_row, const float *kl_row, uint32_t label,
                            bool labelled)
{
    const size_t C = loss->C, classes = labelled ? 1 : C;
    const double share = (double)loss->plan->labelled_share, beta = (double)loss->plan->beta;
    const double scale =
        labelled ? share / (double)loss->n_labelled : (1 - share) / (double)loss->n_open;
    const double log_sum = log_sum_exp(logits, C), log_classes = log((double)C);
    double q[MOST_CLASSES] = {0}, recon = 0, kl = 0, bound = log_classes;
    for (size_t c = 0; c < classes; c++) {
        const double log_q = labelled ? 0 : (double)logits[c] - log_sum;
        q[c] = exp(log_q);
        recon += q[c] * (double)recon_row[c];
        kl += q[c] * ((double)kl_row[c] + log_q);
        bound += q[c] * ((double)recon_row[c] + beta * (double)kl_row[c] + log_q);
        if (weight != NULL) {
            weight[c] = (float)(scale * q[c]);
        }
    }
    double part = scale * bound;
    const double ce = labelled ? (double)loss->cross_entropy / (double)loss->n_labelled : 0;
    if (labelled) { /* of a label that is out of range, a NaN: it must not pass unseen */
        part += ce * (label < C ? log_sum - (double)logits[label] : NAN);
    }
    const bool wrong = label < C && vae_cpu_classify(logits, C) != label;
    /* last, as dlogits may be logits */
    for (size_t c = 0; dlogits != NULL && c < C; c++) {
        const double log_q = (double)logits[c] - log_sum;
        dlogits[c] = labelled ? (float)(ce * (exp(log_q) - (c == label)))
                              : (float)(scale * q[c] *
                                        ((double)recon_row[c] + beta * (double)kl_row[c] + log_q +
                                         log_classes - bound));
    }
    terms[0] = (float)recon;
    terms[stride] = (float)(kl + log_classes);
    terms[2 * stride] = (float)((double)loss->n_open * part);
    terms[3 * stride] = wrong ? 1.0f : 0.0f;
    terms[4 * stride] = label < C ? 1.0f : 0.0f;
}
