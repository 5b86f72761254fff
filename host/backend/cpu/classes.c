/* The CPU backend's operations on classes. Small beside the matrix products; formulas:
 * model/classes.c. */
#include "backend/cpu/cpu.h"

#include <math.h>
#include <string.h>

enum { ROW_BLOCK = 64 }; /* examples of one task of class_forward */

void vae_cpu_gather_labels(vae_backend *base, uint32_t *label, vae_data *data, size_t B,
                           bool required)
{
    cpu_backend *be = vae_cpu_self(base);
    const uint32_t *labels = data->set->labels;
    if (labels == NULL && required && be->err.status == VAE_OK) {
        vae_fail(&be->err, VAE_ERR_DATA, "%s: no labels; the model needs the class of each row",
                 data->set->source);
    }
    for (size_t r = 0; r < B; r++) {
        label[r] =
            labels != NULL ? labels[vae_cpu_data_row(data, vae_cpu_now(be), r)] : VAE_NO_LABEL;
    }
}

void vae_cpu_one_hot(vae_backend *base, vae_mat m, const uint32_t *label, size_t B, size_t K,
                     size_t first, size_t C)
{
    const cpu_backend *be = vae_cpu_self(base);
    for (size_t r = 0; r < B * K; r++) {
        for (size_t j = 0, n; j < C; j += n) {
            float room[ROW_PIECE], *row = vae_cpu_make(be, room, m, r, first + j);
            n = vae_cpu_piece(be, C - j);
            for (size_t c = 0; c < n; c++) {
                row[c] = j + c == label[r / K] ? 1.0f : 0.0f;
            }
            vae_cpu_put(be, m, r, first + j, row, n);
        }
    }
}

/* ---- a layer on rows for every class ---- */

/* A part of class_forward's output: columns first .. first+cols-1. */
typedef struct {
    vae_mat y, pre, h;
    const float *w;
    size_t ldw, first, cols;
    vae_activation act;
} class_part;

/* n rows of y, `stride` apart from row r, as class c: of the examples from b on. */
static void forward_as(const cpu_backend *be, const class_part *p, size_t c, bool known, size_t r,
                       size_t stride, size_t b, size_t n)
{
    float column[COLUMN_BLOCK] = {0};
    for (size_t j = 0; known && j < p->cols; j++) {
        column[j] = p->w[(p->first + j) * p->ldw + c];
    }
    for (size_t i = 0; be->bf16 && i < n; i++) {
        float y[COLUMN_BLOCK], pre[COLUMN_BLOCK], *kept = p->pre.data != NULL ? pre : NULL;
        vae_cpu_read(be, y, p->h, b + i, p->first, p->cols);
        be->k->bias_act(y, kept, COLUMN_BLOCK, column, 1, p->cols, p->act);
        vae_cpu_put(be, p->y, r + i * stride, p->first, y, p->cols);
        if (kept != NULL) {
            vae_cpu_put(be, p->pre, r + i * stride, p->first, pre, p->cols);
        }
    }
    if (be->bf16) {
        return;
    }
    for (size_t i = 0; i < n; i++) {
        memcpy(vae_cpu_row(p->y, r + i * stride) + p->first, vae_cpu_row(p->h, b + i) + p->first,
               p->cols * sizeof(float));
    }
    be->k->bias_act(vae_cpu_row(p->y, r) + p->first,
                    p->pre.data != NULL ? vae_cpu_row(p->pre, r) + p->first : NULL,
                    p->y.ld * stride, column, n, p->cols, p->act);
}

typedef struct {
    const cpu_backend *be;
    vae_mat y, pre, h;
    const float *w;
    size_t ldw;
    vae_class_rows of;
    size_t out;
    vae_activation act;
} class_job;

static size_t column_tiles(size_t out)
{
    return (out + COLUMN_BLOCK - 1) / COLUMN_BLOCK;
}

static void forward_tiles(void *ctx, int thread, size_t begin, size_t last)
{
    const class_job *a = ctx;
    const vae_class_rows of = a->of;
    const size_t examples = of.n_open + of.n_labelled, C = of.C, open_rows = of.n_open * C;
    const size_t tiles = column_tiles(a->out);
    (void)thread;
    for (size_t t = begin; t < last; t++) {
        const size_t first = t % tiles * COLUMN_BLOCK, b = t / tiles * ROW_BLOCK;
        const size_t end = b + ROW_BLOCK < examples ? b + ROW_BLOCK : examples;
        const size_t open_end = end < of.n_open ? end : of.n_open;
        const size_t open = b < open_end ? open_end - b : 0;
        const size_t cols = a->out - first < COLUMN_BLOCK ? a->out - first : COLUMN_BLOCK;
        const class_part part = {a->y, a->pre, a->h, a->w, a->ldw, first, cols, a->act};
        for (size_t c = 0; open > 0 && c < C; c++) {
            forward_as(a->be, &part, c, true, b * C + c, C, b, open);
        }
        for (size_t i = b + open; i < end; i++) {
            forward_as(a->be, &part, of.label[i], of.label[i] < C, open_rows + i - of.n_open, 1, i,
                       1);
        }
    }
}

void vae_cpu_class_forward(vae_backend *base, vae_mat y, void *aux, uint32_t *label, vae_mat h,
                           const float *w, size_t ldw, vae_class_rows of, size_t out,
                           vae_activation act)
{
    const cpu_backend *be = vae_cpu_self(base);
    const size_t examples = of.n_open + of.n_labelled, C = of.C, open_rows = of.n_open * C;
    const size_t tasks = (examples + ROW_BLOCK - 1) / ROW_BLOCK * column_tiles(out);
    const vae_mat pre = {vae_act_keeps_input(act) ? aux : NULL, y.ld};
    for (size_t r = 0; r < open_rows + of.n_labelled; r++) {
        label[r] = r < open_rows ? (uint32_t)(r % C) : of.label[r - open_rows + of.n_open];
    }
    class_job a = {be, y, pre, h, w, ldw, of, out, act};
    const size_t each = tasks > 0 ? (open_rows + of.n_labelled) * out / tasks : 0;
    vae_cpu_parallel(be, tasks, each, forward_tiles, &a);
}

typedef struct {
    const cpu_backend *be;
    vae_mat dh, dy;
    vae_class_rows of;
    size_t out;
} class_sum_job;

static void sum_classes(void *ctx, int thread, size_t begin, size_t end)
{
    const class_sum_job *a = ctx;
    const cpu_backend *be = a->be;
    const size_t C = a->of.C, n_open = a->of.n_open, out = a->out;
    (void)thread;
    for (size_t b = begin; b < end; b++) {
        const bool open = b < n_open;
        const size_t first = open ? b * C : n_open * C + b - n_open;
        for (size_t j0 = 0, n; j0 < out; j0 += n) {
            float sum_room[ROW_PIECE], room[ROW_PIECE];
            float *restrict sum = vae_cpu_make(be, sum_room, a->dh, b, j0);
            n = vae_cpu_piece(be, out - j0);
            memcpy(sum, vae_cpu_read(be, room, a->dy, first, j0, n), n * sizeof *sum);
            for (size_t c = 1; open && c < C; c++) {
                const float *restrict row = vae_cpu_read(be, room, a->dy, first + c, j0, n);
                for (size_t j = 0; j < n; j++) {
                    sum[j] += row[j];
                }
            }
            vae_cpu_put(be, a->dh, b, j0, sum, n);
        }
    }
}

void vae_cpu_class_sums(vae_backend *base, vae_mat dh, vae_mat dy, vae_class_rows of, size_t out)
{
    const cpu_backend *be = vae_cpu_self(base);
    class_sum_job a = {be, dh, dy, of, out};
    vae_cpu_parallel(be, of.n_open + of.n_labelled, of.C * out, sum_classes, &a);
}

typedef struct {
    const cpu_backend *be;
    float *dw;
    size_t ldw;
    vae_mat dy;
    vae_class_rows of;
    size_t out;
} class_weight_job;

static void class_weight_tiles(void *ctx, int thread, size_t begin, size_t end)
{
    const class_weight_job *a = ctx;
    const vae_class_rows of = a->of;
    const size_t C = of.C;
    (void)thread;
    for (size_t t = begin; t < end; t++) {
        const size_t first = t / C * COLUMN_BLOCK, c = t % C;
        const size_t cols = a->out - first < COLUMN_BLOCK ? a->out - first : COLUMN_BLOCK;
        float sum[COLUMN_BLOCK];
        /* the open rows of one class are C rows apart */
        vae_cpu_some_sums(a->be, sum, a->dy, c, first, C, of.n_open, cols);
        for (size_t i = 0; i < of.n_labelled; i++) {
            float room[COLUMN_BLOCK];
            if (of.label[of.n_open + i] != c) {
                continue;
            }
            const float *row = vae_cpu_read(a->be, room, a->dy, of.n_open * C + i, first, cols);
            for (size_t j = 0; j < cols; j++) {
                sum[j] += row[j];
            }
        }
        for (size_t j = 0; j < cols; j++) {
            a->dw[(first + j) * a->ldw + c] = sum[j];
        }
    }
}

void vae_cpu_class_backward_weight(vae_backend *base, float *dw, size_t ldw, vae_mat dy,
                                   vae_class_rows of, size_t out)
{
    cpu_backend *be = vae_cpu_self(base);
    class_weight_job a = {be, dw, ldw, dy, of, out};
    vae_cpu_parallel(be, column_tiles(out) * of.C, (of.n_open + of.n_labelled) * COLUMN_BLOCK,
                     class_weight_tiles, &a);
}

/* ---- the loss ---- */

/* One example's logits, or their gradient. */
typedef struct {
    const cpu_backend *be;
    vae_mat m;
    size_t r;
} class_row;

static float logit(const class_row *row, size_t c)
{
    return vae_cpu_get(row->be, row->m, row->r, c);
}

static uint32_t best_class(const class_row *logits, size_t C)
{
    uint32_t best = 0;
    for (uint32_t c = 1; c < C; c++) {
        best = logit(logits, c) > logit(logits, best) ? c : best;
    }
    return best;
}

void vae_cpu_classify(vae_backend *base, uint32_t *label, vae_mat logits, size_t B, size_t C)
{
    for (size_t r = 0; r < B; r++) {
        const class_row row = {vae_cpu_self(base), logits, r};
        label[r] = best_class(&row, C);
    }
}

static double log_sum_exp(const class_row *logits, size_t C)
{
    double most = (double)logit(logits, 0);
    for (size_t c = 1; c < C; c++) {
        const double l = (double)logit(logits, c);
        most = l > most ? l : most;
    }
    double sum = exp((double)logit(logits, 0) - most);
    for (size_t c = 1; c < C; c++) {
        sum += exp((double)logit(logits, c) - most);
    }
    return most + log(sum);
}

/* What all examples of a step share. */
typedef struct {
    const vae_plan *plan;
    vae_class_rows of;
    float cross_entropy;
} class_loss;

/* What one example gives to the loss, from its C rows, or from its one row if it is labelled.
 * terms: five values, `stride` apart; weight: of its rows, or NULL, and dlogits' data with it. */
static void class_loss_row(const class_loss *loss, float *terms, size_t stride, float *weight,
                           const class_row *dlogits, const class_row *logits,
                           const float *recon_row, const float *kl_row, uint32_t label,
                           bool labelled)
{
    const size_t C = loss->of.C, classes = labelled ? 1 : C;
    const double share = (double)loss->plan->labelled_share, beta = (double)loss->plan->beta;
    const double scale =
        labelled ? share / (double)loss->of.all_labelled : (1 - share) / (double)loss->of.all_open;
    const double log_sum = log_sum_exp(logits, C), log_classes = log((double)C);
    double recon = 0, kl = 0, bound = log_classes;
    for (size_t c = 0; c < classes; c++) {
        const double log_q = labelled ? 0 : (double)logit(logits, c) - log_sum, q = exp(log_q);
        recon += q * (double)recon_row[c];
        kl += q * ((double)kl_row[c] + log_q);
        bound += q * ((double)recon_row[c] + beta * (double)kl_row[c] + log_q);
        if (weight != NULL) {
            weight[c] = (float)(scale * q);
        }
    }
    double part = scale * bound;
    const double ce = labelled ? (double)loss->cross_entropy / (double)loss->of.all_labelled : 0;
    if (labelled) { /* of a label that is out of range, a NaN: it must not pass unseen */
        part += ce * (label < C ? log_sum - (double)logit(logits, label) : NAN);
    }
    const bool wrong = label < C && best_class(logits, C) != label;
    /* last, as dlogits may be logits */
    for (size_t c = 0; dlogits->m.data != NULL && c < C; c++) {
        const double log_q = (double)logit(logits, c) - log_sum, q = exp(log_q);
        float room, *dl = vae_cpu_make(dlogits->be, &room, dlogits->m, dlogits->r, c);
        *dl = labelled ? (float)(ce * (q - (c == label)))
                       : (float)(scale * q *
                                 ((double)recon_row[c] + beta * (double)kl_row[c] + log_q +
                                  log_classes - bound));
        vae_cpu_put(dlogits->be, dlogits->m, dlogits->r, c, dl, 1);
    }
    terms[0] = (float)recon;
    terms[stride] = (float)(kl + log_classes);
    terms[2 * stride] = (float)((double)loss->of.all_open * part);
    terms[3 * stride] = wrong ? 1.0f : 0.0f;
    terms[4 * stride] = label < C ? 1.0f : 0.0f;
}

typedef struct {
    const cpu_backend *be;
    class_loss loss;
    float *terms, *weight;
    vae_mat dlogits, logits;
    const float *recon_row, *kl_row;
} class_loss_job;

static void class_loss_rows(void *ctx, int thread, size_t begin, size_t end)
{
    const class_loss_job *a = ctx;
    const vae_class_rows of = a->loss.of;
    (void)thread;
    for (size_t b = begin; b < end; b++) {
        const bool labelled = b >= of.n_open;
        const size_t first = labelled ? of.n_open * of.C + b - of.n_open : b * of.C;
        float *row_weight = a->weight != NULL ? a->weight + first : NULL;
        const class_row dlogits = {a->be, a->dlogits, b}, logits = {a->be, a->logits, b};
        class_loss_row(&a->loss, a->terms + b, of.n_open + of.n_labelled, row_weight, &dlogits,
                       &logits, a->recon_row + first, a->kl_row + first, of.label[b], labelled);
    }
}

void vae_cpu_class_loss(vae_backend *base, float *terms, float *weight, vae_mat dlogits,
                        vae_mat logits, const float *recon_row, const float *kl_row,
                        vae_class_rows of, float cross_entropy)
{
    cpu_backend *be = vae_cpu_self(base);
    class_loss_job a = {
        be,    {vae_cpu_now(be), of, cross_entropy}, terms, weight, dlogits, logits, recon_row,
        kl_row};
    vae_cpu_parallel(be, of.n_open + of.n_labelled, 32 * of.C, class_loss_rows, &a);
}

void vae_cpu_accumulate_classes(vae_backend *base, vae_totals *totals, const float *terms,
                                size_t n_open, size_t n_labelled)
{
    const vae_plan *plan = vae_cpu_now(vae_cpu_self(base));
    const size_t n = n_open + n_labelled;
    const double recon = vae_cpu_sum(terms, n_open), kl = vae_cpu_sum(terms + n, n_open);
    const double objective = vae_cpu_sum(terms + 2 * n, n);
    totals->recon += recon;
    totals->kl += kl;
    totals->objective += objective;
    totals->examples += (double)n_open;
    totals->errors += vae_cpu_sum(terms + 3 * n, n);
    totals->classified += vae_cpu_sum(terms + 4 * n, n);
    if (totals->bad_step == 0 && !isfinite(recon + kl + objective)) {
        totals->bad_step = plan->step;
    }
}

typedef struct {
    const cpu_backend *be;
    vae_mat m;
    const float *factor;
    size_t cols;
} scale_job;

static void scale_some(void *ctx, int thread, size_t first, size_t end)
{
    const scale_job *a = ctx;
    (void)thread;
    for (size_t r = first; r < end; r++) {
        vae_cpu_scale_row(a->be, a->m, r, a->factor[r], a->cols);
    }
}

void vae_cpu_scale_rows(vae_backend *base, vae_mat m, float *sums, const float *factor, size_t rows,
                        size_t cols)
{
    cpu_backend *be = vae_cpu_self(base);
    scale_job a = {be, m, factor, cols};
    vae_cpu_parallel(be, rows, cols, scale_some, &a);
    if (sums != NULL) {
        vae_cpu_column_sums(be, sums, m, rows, cols);
    }
}
