/* The CPU backend's operations on all parameters at once: the gradient's norm and sum over ranks,
 * Adam; and in which order these loops go. */
#include "backend/cpu/cpu.h"

#include <assert.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "ranks/ranks.h"

/* ---- where weights lie ---- */

/* A product's shares are rows of the weight, of its gradient too: the first half of each weight is
 * one of two threads'. The loops over blocks of all parameters go in the order of blocks' places
 * within their weights, so that the first half of these loops is the first half of every weight,
 * and what a thread updates is in its caches when it next needs it. Where processors do not share a
 * cache, that is most of the traffic between them. */
typedef struct {
    double place; /* 0 .. 1 */
    size_t block;
} block_place;

static int by_place(const void *a, const void *b)
{
    const block_place *x = a, *y = b;
    const int before = (x->place > y->place) - (x->place < y->place);
    return before != 0 ? before : (x->block > y->block) - (x->block < y->block);
}

static double place_of(const cpu_backend *be, size_t block)
{
    const size_t middle = block * SUM_BLOCK + SUM_BLOCK / 2;
    for (size_t i = 0; i < be->n_weights; i++) {
        const vae_cpu_weight *w = &be->weight[i];
        if (middle >= w->first && middle - w->first < w->n) {
            return (double)(middle - w->first) / (double)w->n;
        }
    }
    return (double)middle / (double)(be->n_params + SUM_BLOCK);
}

static void order_blocks(cpu_backend *be)
{
    const size_t n = (be->n_params + SUM_BLOCK - 1) / SUM_BLOCK;
    block_place *places = malloc((n + 1) * sizeof *places);
    for (size_t i = 0; i < n; i++) {
        be->order[i] = i;
        if (places != NULL) {
            places[i] = (block_place){place_of(be, i), i};
        }
    }
    if (places != NULL) { /* without it, slower */
        qsort(places, n, sizeof *places, by_place);
        for (size_t i = 0; i < n; i++) {
            be->order[i] = places[i].block;
        }
    }
    free(places);
}

/* The i-th block of a flat buffer of n floats that a loop over them is to take. */
static size_t block_at(const cpu_backend *be, size_t n, size_t i)
{
    return be->n_weights > 0 && n == be->n_params ? be->order[i] : i;
}

void vae_cpu_meet_weight(cpu_backend *be, const float *w, size_t n)
{
    if (be->params == NULL || w < be->params || w >= be->params + be->n_params) {
        return;
    }
    const size_t first = (size_t)(w - be->params);
    size_t i = 0;
    while (i < be->n_weights && be->weight[i].first != first) {
        i++;
    }
    if (i == be->n_weights && i < MOST_WEIGHTS) {
        be->weight[be->n_weights++] = (vae_cpu_weight){first, n};
        order_blocks(be);
    }
}

/* ---- gradients and Adam ---- */

typedef struct {
    const cpu_backend *be;
    const float *g;
    size_t n;
} norm_job;

static void sum_blocks(void *ctx, int thread, size_t begin, size_t end)
{
    const norm_job *a = ctx;
    (void)thread;
    for (size_t at = begin; at < end; at++) {
        const size_t i = block_at(a->be, a->n, at);
        size_t first = i * SUM_BLOCK, most = a->n - first < SUM_BLOCK ? a->n - first : SUM_BLOCK;
        a->be->partial[i] = a->be->k->sum_squares(a->g + first, most);
    }
}

void vae_cpu_grad_norm(vae_backend *base, vae_totals *totals, const float *g, size_t n)
{
    cpu_backend *be = vae_cpu_self(base);
    const size_t blocks = (n + SUM_BLOCK - 1) / SUM_BLOCK;
    assert(blocks <= be->n_blocks);
    norm_job a = {be, g, n};
    vae_cpu_parallel(be, blocks, SUM_BLOCK, sum_blocks, &a);
    double sum = 0;
    for (size_t i = 0; i < blocks; i++) {
        sum += be->partial[i];
    }
    totals->grad_norm = sqrt(sum);
    if (totals->bad_step == 0 && !isfinite(sum)) {
        totals->bad_step = vae_cpu_now(be)->step;
    }
}

typedef struct {
    const cpu_backend *be;
    float *params;
    uint16_t *twin; /* of params, or NULL */
    const float *g;
    float *m, *v;
    size_t n;
    vae_adam adam;
    float scale;
} adam_job;

static void adam_blocks(void *ctx, int thread, size_t begin, size_t end)
{
    const adam_job *a = ctx;
    const vae_plan *plan = vae_cpu_now(a->be);
    (void)thread;
    for (size_t i = begin; i < end; i++) {
        const size_t first = block_at(a->be, a->n, i) * SUM_BLOCK;
        const size_t most = a->n - first < SUM_BLOCK ? a->n - first : SUM_BLOCK;
        a->be->k->adam(a->params + first, a->g + first, a->m + first, a->v + first, most, &a->adam,
                       a->scale, plan->lr, plan->step_size, plan->rsqrt_c2);
        if (a->twin != NULL) {
            a->be->k->narrow(a->twin + first, a->params + first, most);
        }
    }
}

void vae_cpu_adam(vae_backend *base, float *params, const float *g, float *m, float *v, size_t n,
                  const vae_totals *totals, vae_adam adam, float clip_norm)
{
    cpu_backend *be = vae_cpu_self(base);
    if (totals->bad_step != 0) {
        return;
    }
    bool clip = clip_norm > 0 && totals->grad_norm > (double)clip_norm;
    float scale = clip ? (float)((double)clip_norm / totals->grad_norm) : 1.0f;
    adam_job a = {be, params, vae_cpu_twin(be, params), g, m, v, n, adam, scale};
    vae_cpu_parallel(be, (n + SUM_BLOCK - 1) / SUM_BLOCK, SUM_BLOCK, adam_blocks, &a);
}

void vae_cpu_sum_ranks(vae_backend *base, float *v, size_t n, bool adds, bool later,
                       const vae_totals *totals)
{
    cpu_backend *be = vae_cpu_self(base);
    (void)later;
    if (be->err.status != VAE_OK) {
        return;
    }
    if (!adds) {
        memset(v, 0, n * sizeof *v);
    }
    if (totals != NULL && totals->bad_step != 0) {
        v[0] = NAN;
    }
    vae_ranks_sum_floats(base->ranks, v, n, &be->err);
}
