/* The CPU backend's loops over classes; what they compute is said in backend.h and
 * model_classes.c. Small beside the matrix products, so they are compiled once. */
#ifndef VAE_CPU_CLASSES_H
#define VAE_CPU_CLASSES_H

#include "backend.h"

/* One row's class columns: C values. */
void vae_cpu_one_hot(float *row, uint32_t label, size_t C);
/* The largest of C logits, the first of equals. */
uint32_t vae_cpu_classify(const float *logits, size_t C);

/* What one example gives to the loss. share: its factor; recon_row, kl_row: of its C rows, or of
 * its one row if it is labelled. */
typedef struct {
    const vae_plan *plan;
    size_t n_open, n_labelled, C;
    float cross_entropy;
} vae_cpu_class_loss;
/* terms: five values, `stride` apart; weight: of its rows, dlogits: (C); both NULL, or given. */
void vae_cpu_class_loss_row(const vae_cpu_class_loss *loss, float *terms, size_t stride,
                            float *weight, float *dlogits, const float *logits,
                            const float *recon_row, const float *kl_row, uint32_t label,
                            bool labelled);

#endif
