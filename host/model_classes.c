/* Models with classes, over the backend's operations.
 *
 * Conditional (Sohn et al. 2015): q(z|x,y) and p(x|z,y); encoder and decoder see the one-hot class
 * as further columns of their inputs, and the step is model.c's.
 *
 * Semi-supervised, M2 of Kingma et al. 2014 (https://arxiv.org/abs/1406.5298): p(y) uniform over C
 * classes, q(y|x) the classifier. With S(x,y) = -log p(x|y,z) + beta*KL(q(z|x,y)||p(z)), one z,
 *   L(x,y) = S(x,y) + log C                                                  eq. 6, labelled
 *   U(x)   = sum_y q(y|x) (S(x,y) + log q(y|x)) + log C                      eq. 7, unlabelled
 * A step has n_open unlabelled and n_labelled labelled examples. The paper minimizes the sum over
 * the data, sum L + sum U + alpha * (mean over labelled of -log q(y|x)), alpha = 0.1 N (eq. 9).
 * Here the same is divided by N, so that it does not depend on the batch; with f = N_labelled / N:
 *   loss = (1-f) mean U + f mean L + w mean(-log q(y|x)),  w = --classifier-weight = 0.1
 * the first mean over the step's unlabelled examples, the others over its labelled ones.
 *
 * Classes are particles with weights q(y|x): encoder and decoder run on n_open*C + n_labelled rows.
 * Row (b,c) has weight (1-f)/n_open * q(c|x_b), a labelled row f/n_labelled; recon's and the KL's
 * gradients are times that. The classifier's logits l get, with D_c = S_c + log q_c,
 *   unlabelled  dl_c = (1-f)/n_open * q_c (D_c - sum_j q_j D_j)
 *   labelled    dl_c = w/n_labelled * (q_c - [c = y])
 */
#include "model_internal.h"

/* Layers of the classifier, from the rows in x0. */
static void classifier_forward(vae_model *m, size_t rows, bool keep)
{
    vae_layers_forward(m, m->n_layers, m->n_layers + m->layout.n_classifier, rows, keep);
}

static vae_mat class_logits(const vae_model *m)
{
    return y_of(m, m->n_layers + m->layout.n_classifier - 1);
}

void vae_classes_encode(vae_model *m, const pass *p)
{
    const vae_backend_ops *ops = m->be->ops;
    uint32_t *label = labels_at(m, m->plan.label);
    const size_t D = m->layout.d, C = m->layout.c, B = p->rows;
    if (!is_semi(m)) {
        vae_gather(m, input_of(m, 0), p, B);
        ops->gather_labels(m->be, label, p->data, B, true);
        ops->one_hot(m->be, input_of(m, 0), label, B, 1, D, C);
        return;
    }
    uint32_t *chosen = labels_at(m, m->plan.label0);
    vae_gather(m, input_of(m, m->n_layers), p, B);
    classifier_forward(m, B, false);
    ops->classify(m->be, chosen, class_logits(m), B, C);
    ops->expand_classes(m->be, input_of(m, 0), label, input_of(m, m->n_layers), chosen, 0, B, D, C);
}

void vae_classes_decode(vae_model *m, size_t rows, size_t particles)
{
    m->be->ops->one_hot(m->be, input_of(m, m->layout.n_encoder), labels_at(m, m->plan.label), rows,
                        particles, m->layout.z, m->layout.c);
}

void vae_classify_step(void *ctx)
{
    const pass *p = ctx;
    vae_gather(p->model, input_of(p->model, p->model->n_layers), p, p->rows);
    classifier_forward(p->model, p->rows, false);
}

/* Forward, the loss over classes and the totals; with `keep`, the gradients of the outputs. Returns
 * the rows of encoder and decoder. */
static size_t semi_forward(vae_model *m, const pass *p, size_t n_labelled, bool keep)
{
    const vae_backend_ops *ops = m->be->ops;
    const size_t D = m->layout.d, C = m->layout.c, last = m->n_layers - 1;
    const size_t base = p->rows + n_labelled, rows = p->rows * C + n_labelled;
    uint32_t *label = labels_at(m, m->plan.label), *label0 = labels_at(m, m->plan.label0);
    float *recon_row = array(m, m->plan.recon_row), *kl_row = array(m, m->plan.kl_row);
    const vae_mat none = {NULL, 0};
    vae_gather(m, input_of(m, m->n_layers), p, base);
    ops->gather_labels(m->be, label0, p->data, base, n_labelled > 0);
    classifier_forward(m, base, keep);
    ops->expand_classes(m->be, input_of(m, 0), label, input_of(m, m->n_layers), label0, p->rows,
                        n_labelled, D, C);
    vae_layers_forward(m, 0, m->layout.n_encoder, rows, keep);
    ops->latent_forward(m->be, input_of(m, m->layout.n_encoder), kl_row, NULL, y_of(m, head_of(m)),
                        rows, 1, m->layout.z, noise_of(m));
    vae_classes_decode(m, rows, 1);
    vae_layers_forward(m, m->layout.n_encoder, m->n_layers, rows, keep);
    ops->recon_loss(m->be, recon_row, keep ? dy_of(m, last) : none, y_of(m, last), input_of(m, 0),
                    rows, 1, D, recon_of(m), 1.0f);
    ops->class_loss(m->be, array(m, m->plan.terms), keep ? array(m, m->plan.weight) : NULL,
                    keep ? class_logits(m) : none, class_logits(m), recon_row, kl_row, label0,
                    p->rows, n_labelled, C, (float)m->config.classifier_weight);
    ops->accumulate_classes(m->be, m->totals, array(m, m->plan.terms), p->rows, n_labelled);
    return rows;
}

void vae_semi_train_step(void *ctx)
{
    const pass *p = ctx;
    vae_model *m = p->model;
    const size_t head = head_of(m), last = m->n_layers - 1;
    const size_t rows = semi_forward(m, p, m->n_labelled, true);
    const float *weight = array(m, m->plan.weight);
    const vae_latent_grad grad = {.objective = VAE_OBJ_ELBO, .kl_scale = 1.0f};
    m->be->ops->scale_rows(m->be, dy_of(m, last), weight, rows, m->layout.layers[last].out);
    vae_layers_backward(m, m->layout.n_encoder, m->n_layers, rows);
    m->be->ops->latent_backward(
        m->be, dy_of(m, head), mat(m, m->plan.dz, m->layout.layers[m->layout.n_encoder].in),
        y_of(m, head), weight, NULL, rows, 1, m->layout.z, grad, noise_of(m));
    vae_layers_backward(m, 0, m->layout.n_encoder, rows);
    vae_layers_backward(m, m->n_layers, m->n_layers + m->layout.n_classifier,
                        p->rows + m->n_labelled);
    vae_optimize(m);
}

void vae_semi_measure_step(void *ctx)
{
    const pass *p = ctx;
    semi_forward(p->model, p, 0, false);
}
