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
 * Classes are particles with weights q(y|x): encoder and decoder run on n_open*C + n_labelled rows,
 * save for the convolutions and the part of the encoder's first linear layer that see x alone,
 * W_x x + b, and their gradients.
 * Row (b,c) has weight (1-f)/n_open * q(c|x_b), a labelled row f/n_labelled; recon's and the KL's
 * gradients are times that. The classifier's logits l get, with D_c = S_c + log q_c,
 *   unlabelled  dl_c = (1-f)/n_open * q_c (D_c - sum_j q_j D_j)
 *   labelled    dl_c = w/n_labelled * (q_c - [c = y])
 */
#include "model/state.h"

/* Layers of the classifier, from the rows in x0. */
static void classifier_forward(vae_model *m, size_t rows, bool keep)
{
    vae_layers_forward(m, m->n_layers, m->n_layers + m->layout.n_classifier, rows, keep);
}

static vae_mat class_logits(const vae_model *m)
{
    return y_of(m, m->n_layers + m->layout.n_classifier - 1);
}

/* The encoder's layers on rows for every class of the examples in x. */
static void encode_classes(vae_model *m, vae_class_rows of, bool keep)
{
    const vae_backend_ops *ops = m->be->ops;
    const size_t l = m->layout.n_conv, examples = of.n_open + of.n_labelled;
    const layer_desc *first = &m->layout.layers[l];
    const size_t in = first->in - of.C;
    const tensor_desc *w = &m->layout.tensors[first->weight];
    const float *weight = m->params + w->offset;
    const vae_mat h = mat(m, m->plan.h, first->out);
    vae_layers_forward(m, 0, l, examples, keep);
    ops->linear_forward(m->be, h, NULL, input_of(m, l), weight, w->ld,
                        m->params + m->layout.tensors[first->bias].offset, examples, in, first->out,
                        VAE_ACT_NONE);
    ops->class_forward(m->be, y_of(m, l), keep ? aux_of(m, l) : NULL, labels_at(m, m->plan.label),
                       h, weight + in, w->ld, of, first->out, first->act);
    vae_layers_forward(m, l + 1, m->layout.n_encoder, of.n_open * of.C + of.n_labelled, keep);
}

/* Its gradients; that of the head's output is in dy. */
static void encode_classes_backward(vae_model *m, vae_class_rows of)
{
    const vae_backend_ops *ops = m->be->ops;
    const size_t l = m->layout.n_conv, examples = of.n_open + of.n_labelled;
    const layer_desc *first = &m->layout.layers[l];
    const size_t in = first->in - of.C;
    const tensor_desc *w = &m->layout.tensors[first->weight];
    float *dw = m->grads + w->offset;
    const vae_mat dh = mat(m, m->plan.h, first->out);
    vae_layers_backward(m, l + 1, m->layout.n_encoder, of.n_open * of.C + of.n_labelled, false);
    ops->class_sums(m->be, dh, dy_of(m, l), of, first->out);
    ops->linear_backward_weight(m->be, dw, w->ld, m->grads + m->layout.tensors[first->bias].offset,
                                dh, input_of(m, l), examples, in, first->out);
    ops->class_backward_weight(m->be, dw + in, w->ld, dy_of(m, l), of, first->out);
    vae_sum_layer(m, l, true);
    if (l > 0) {
        ops->linear_backward_input(m->be, dy_of(m, l - 1), NULL, dh, m->params + w->offset, w->ld,
                                   input_of(m, l), aux_of(m, l - 1), examples, in, first->out,
                                   m->layout.layers[l - 1].act);
        vae_layers_backward(m, 0, l, examples, false);
    }
}

void vae_classes_encode(vae_model *m, const pass *p, bool keep)
{
    const vae_backend_ops *ops = m->be->ops;
    uint32_t *label = labels_at(m, m->plan.label);
    const size_t l = m->layout.n_conv, C = m->layout.c, B = p->rows;
    vae_gather(m, input_of(m, 0), p, B);
    if (!is_semi(m)) {
        ops->gather_labels(m->be, label, p->data, B, true);
        vae_layers_forward(m, 0, l, B, keep);
        ops->one_hot(m->be, input_of(m, l), label, B, 1, m->layout.layers[l].in - C, C);
        vae_layers_forward(m, l, m->layout.n_encoder, B, keep);
        return;
    }
    uint32_t *chosen = labels_at(m, m->plan.label0);
    classifier_forward(m, B, false);
    ops->classify(m->be, chosen, class_logits(m), B, C);
    encode_classes(m, (vae_class_rows){chosen, 0, B, C, 0, B}, keep);
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

/* A step's rows: p->rows of the data and n_labelled with a label. */
static vae_class_rows rows_of(const vae_model *m, const pass *p, size_t n_labelled)
{
    return (vae_class_rows){
        labels_at(m, m->plan.label0),        p->rows, n_labelled, m->layout.c, p->all,
        n_labelled > 0 ? m->labelled.all : 0};
}

/* Rows of a matrix from r on. */
static vae_mat from_row(const vae_model *m, vae_mat a, size_t r)
{
    return (vae_mat){(char *)a.data + r * a.ld * m->be->ops->act_size(m->be), a.ld};
}

/* recon of each row, and with `keep` dlogits in place of the logits: C rows against each of the
 * open examples, one against each labelled one. */
static void compare(vae_model *m, vae_class_rows of, bool keep)
{
    const vae_backend_ops *ops = m->be->ops;
    const size_t open_rows = of.n_open * of.C, D = m->layout.d;
    const vae_mat none = {NULL, 0}, x = input_of(m, 0), y = y_of(m, m->n_layers - 1);
    float *recon_row = array(m, m->plan.recon_row);
    if (of.n_open > 0) { /* a rank may have labelled ones alone */
        ops->recon_loss(m->be, recon_row, keep ? y : none, NULL, y, x, of.n_open, of.C, D,
                        recon_of(m), 1.0f);
    }
    if (of.n_labelled > 0) {
        const vae_mat rest = from_row(m, y, open_rows);
        ops->recon_loss(m->be, recon_row + open_rows, keep ? rest : none, NULL, rest,
                        from_row(m, x, of.n_open), of.n_labelled, 1, D, recon_of(m), 1.0f);
    }
}

/* Forward, the loss over classes and the totals; with `keep`, the gradients of the outputs. */
static void semi_forward(vae_model *m, const pass *p, vae_class_rows of, bool keep)
{
    const vae_backend_ops *ops = m->be->ops;
    const size_t examples = of.n_open + of.n_labelled, rows = of.n_open * of.C + of.n_labelled;
    float *recon_row = array(m, m->plan.recon_row), *kl_row = array(m, m->plan.kl_row);
    float *weight = keep ? array(m, m->plan.weight) : NULL;
    const vae_mat dlogits = keep ? class_logits(m) : (vae_mat){NULL, 0};
    vae_gather(m, input_of(m, 0), p, examples);
    ops->gather_labels(m->be, labels_at(m, m->plan.label0), p->data, examples, of.n_labelled > 0);
    classifier_forward(m, examples, keep);
    encode_classes(m, of, keep);
    ops->latent_forward(m->be, input_of(m, m->layout.n_encoder), kl_row, NULL, y_of(m, head_of(m)),
                        rows, 1, m->layout.z, noise_of(m));
    vae_classes_decode(m, rows, 1);
    vae_layers_forward(m, m->layout.n_encoder, m->n_layers, rows, keep);
    compare(m, of, keep);
    ops->class_loss(m->be, array(m, m->plan.terms), weight, dlogits, class_logits(m), recon_row,
                    kl_row, of, (float)m->config.classifier_weight);
    ops->accumulate_classes(m->be, m->totals, array(m, m->plan.terms), of.n_open, of.n_labelled);
}

void vae_semi_train_step(void *ctx)
{
    const pass *p = ctx;
    vae_model *m = p->model;
    const vae_class_rows of = rows_of(m, p, m->labelled.n);
    const size_t head = head_of(m), last = m->n_layers - 1;
    const size_t rows = of.n_open * of.C + of.n_labelled;
    const float *weight = array(m, m->plan.weight);
    const vae_latent_grad grad = {.objective = VAE_OBJ_ELBO, .kl_scale = 1.0f};
    semi_forward(m, p, of, true);
    m->be->ops->scale_rows(m->be, dy_of(m, last), vae_bias_early(m, last, rows), weight, rows,
                           m->layout.layers[last].out);
    vae_layers_backward(m, m->layout.n_encoder, m->n_layers, rows, true);
    m->be->ops->latent_backward(
        m->be, dy_of(m, head), mat(m, m->plan.dz, m->layout.layers[m->layout.n_encoder].in),
        y_of(m, head), weight, NULL, rows, 1, m->layout.z, grad, noise_of(m));
    encode_classes_backward(m, of);
    vae_layers_backward(m, m->n_layers, m->n_layers + m->layout.n_classifier,
                        of.n_open + of.n_labelled, false);
    vae_optimize(m);
}

void vae_semi_measure_step(void *ctx)
{
    const pass *p = ctx;
    semi_forward(p->model, p, rows_of(p->model, p, 0), false);
}
