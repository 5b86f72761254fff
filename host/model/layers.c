/* Parts that the step of models with and without classes is made of: layers forward and backward,
 * the batch, the update. */
#include <string.h>

#include "model/state.h"

static vae_adam adam_of(const vae_model *m)
{
    const vae_config *c = &m->config;
    vae_adam adam = vae_adam_of(c->adam_beta1, c->adam_beta2, c->adam_eps);
    adam.weight_decay = (float)c->weight_decay;
    adam.decoupled = c->optimizer == VAE_ADAMW;
    return adam;
}

static void layer_forward(vae_model *m, size_t l, size_t rows, bool keep)
{
    const layer_desc *layer = &m->layout.layers[l];
    const tensor_desc *w = &m->layout.tensors[layer->weight];
    const float *weight = m->params + w->offset;
    const float *bias = m->params + m->layout.tensors[layer->bias].offset;
    void *aux = keep ? aux_of(m, l) : NULL;
    if (layer->is_conv) {
        m->be->ops->conv_forward(m->be, y_of(m, l), aux, input_of(m, l), weight, w->ld, bias, rows,
                                 layer->conv, layer->act, scratch_of(m));
    } else {
        m->be->ops->linear_forward(m->be, y_of(m, l), aux, input_of(m, l), weight, w->ld, bias,
                                   rows, layer->in, layer->out, layer->act);
    }
}

void vae_layers_forward(vae_model *m, size_t first, size_t end, size_t rows, bool keep)
{
    for (size_t l = first; l < end; l++) {
        layer_forward(m, l, rows, keep);
    }
}

float *vae_bias_early(const vae_model *m, size_t l, size_t rows)
{
    const layer_desc *layer = &m->layout.layers[l];
    const tensor_desc *b = &m->layout.tensors[layer->bias];
    /* a convolution's biases are sums over pixels too, and what it makes dy for gets none */
    const bool conv = layer->is_conv || (2 * l + 2 < m->layout.n && layer[1].is_conv);
    return conv || m->be->ops->bias_with_weight(m->be, rows) ? NULL : m->grads + b->offset;
}

void vae_layers_backward(vae_model *m, size_t first, size_t end, size_t rows, bool top)
{
    for (size_t l = end; l-- > first;) {
        const layer_desc *layer = &m->layout.layers[l];
        const tensor_desc *w = &m->layout.tensors[layer->weight];
        const tensor_desc *b = &m->layout.tensors[layer->bias];
        const bool made = (l < end - 1 || top) && vae_bias_early(m, l, rows) != NULL;
        if (layer->is_conv) {
            m->be->ops->conv_backward_weight(m->be, m->grads + w->offset, w->ld,
                                             m->grads + b->offset, dy_of(m, l), input_of(m, l),
                                             rows, layer->conv, scratch_of(m));
        } else {
            m->be->ops->linear_backward_weight(m->be, m->grads + w->offset, w->ld,
                                               made ? NULL : m->grads + b->offset, dy_of(m, l),
                                               input_of(m, l), rows, layer->in, layer->out);
        }
        vae_sum_layer(m, l, true);
        if (l == 0 || l == m->n_layers) {
            break; /* the data need no gradient */
        }
        bool to_z = l == m->layout.n_encoder;
        vae_mat dx = to_z ? mat(m, m->plan.dz, layer->in) : dy_of(m, l - 1);
        const void *aux = to_z ? NULL : aux_of(m, l - 1);
        vae_activation act = to_z ? VAE_ACT_NONE : m->layout.layers[l - 1].act;
        if (layer->is_conv) {
            m->be->ops->conv_backward_input(m->be, dx, dy_of(m, l), m->params + w->offset, w->ld,
                                            input_of(m, l), aux, rows, layer->conv, act,
                                            scratch_of(m));
            continue;
        }
        /* not of the class that lies beside the input of the first linear layer */
        const size_t in = to_z ? layer->in : m->layout.layers[l - 1].out;
        float *db = l > first ? vae_bias_early(m, l - 1, rows) : NULL;
        m->be->ops->linear_backward_input(m->be, dx, db, dy_of(m, l), m->params + w->offset, w->ld,
                                          input_of(m, l), aux, rows, in, layer->out, act);
    }
}

bool vae_run_whole(vae_model *m, vae_data *data, size_t n, size_t rows)
{
    const vae_config *c = &m->config;
    vae_whole_step step;
    if (m->be->ops->run_whole == NULL || m->shared != NULL || m->n_layers > VAE_WHOLE_LAYERS ||
        m->layout.c > 0 || m->layout.n_conv > 0 || c->flip || c->objective != VAE_OBJ_ELBO ||
        c->particles != 1 || c->free_bits > 0) {
        return false;
    }
    memset(&step, 0, sizeof step);
    for (size_t l = 0; l < m->n_layers; l++) {
        const layer_desc *from = &m->layout.layers[l];
        vae_whole_layer *to = &step.layers[l];
        to->x = input_of(m, l);
        to->y = y_of(m, l);
        to->dy = dy_of(m, l);
        if (l > 0) {
            to->dx = l == m->layout.n_encoder ? mat(m, m->plan.dz, from->in) : dy_of(m, l - 1);
        }
        to->aux = aux_of(m, l);
        to->in = from->in;
        to->out = from->out;
        to->weight = m->layout.tensors[from->weight].offset;
        to->bias = m->layout.tensors[from->bias].offset;
        to->ldw = m->layout.tensors[from->weight].ld;
        to->act = from->act;
    }
    step.n_layers = m->n_layers;
    step.n_encoder = m->layout.n_encoder;
    step.B = rows;
    step.D = m->layout.d;
    step.Z = m->layout.z;
    step.params = m->params;
    step.grads = m->grads;
    step.m = m->adam_m;
    step.v = m->adam_v;
    step.n = m->layout.total;
    step.kl_row = array(m, m->plan.kl_row);
    step.totals = m->totals;
    step.noise = noise_of(m);
    step.binarize = c->binarize;
    step.recon = recon_of(m);
    step.adam = adam_of(m);
    step.clip_norm = (float)c->clip_norm;
    return m->be->ops->run_whole(m->be, &step, data, n);
}

void vae_gather(vae_model *m, vae_mat x, const pass *p, size_t rows)
{
    m->be->ops->gather(m->be, x, p->data, rows, m->layout.d, m->config.binarize, m->config.seed);
    if (m->config.flip && p->kind == PASS_TRAIN) {
        const row_shape s = m->layout.shape;
        m->be->ops->mirror(m->be, x, rows, s.h, s.w, s.c, m->config.seed);
    }
}

void vae_sum_layer(vae_model *m, size_t l, bool adds)
{
    const param_layout *layout = &m->layout;
    if (m->shared == NULL) {
        return;
    }
    /* its weight, its bias and what pads them: from its weight to that of the layer behind */
    const size_t begin = layout->tensors[layout->layers[l].weight].offset;
    const size_t bias = layout->layers[l].bias;
    const size_t end = bias + 1 < layout->n ? layout->tensors[bias + 1].offset : layout->total;
    const size_t last = m->layout.n_classifier > 0 ? m->n_layers : 0; /* in a step's order */
    m->be->ops->sum_ranks(m->be, m->grads + begin, end - begin, adds, true,
                          l == last ? m->totals : NULL);
}

void vae_optimize(vae_model *m)
{
    m->be->ops->grad_norm(m->be, m->totals, m->grads, m->layout.total);
    m->be->ops->adam(m->be, m->params, m->grads, m->adam_m, m->adam_v, m->layout.total, m->totals,
                     adam_of(m), (float)m->config.clip_norm);
}
