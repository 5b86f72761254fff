/* Small models, and the use of any model. */
#include "models.h"

#include <stdlib.h>
#include <string.h>

#include "eval/score.h"
#include "input.h"

enum { SIDE = 4, CLASSES = 3, ROWS = 3, MOST_VALUES = 4096, MOST_SIDE = 64, SAMPLES = 2 };

/* ---- six models ---- */

static vae_checkpoint checkpoints[FUZZ_MODELS];
static vae_trained models[FUZZ_MODELS];

/* Options of each, as NAME VALUE pairs. */
static const char *const options[FUZZ_MODELS][9] = {
    {"hidden", "3", "latent", "2"},
    {"conv", "2", "hidden", "none", "latent", "1", "likelihood", "gaussian-learned"},
    {"hidden", "3", "latent", "2", "condition", "labels", "classes", "3"},
    {"hidden", "3", "latent", "2", "semi-supervised", "true", "classes", "3"},
    {"hidden", "none", "latent", "3", "likelihood", "gaussian", "mean", "sigmoid"},
    {"hidden", "4,3", "latent", "1", "likelihood", "gaussian", "activation", "gelu"},
};

static void make_checkpoint(vae_checkpoint *c, size_t k)
{
    static double standard[6] = {1, 2, 3, 1, 0.5, 2};
    static char columns[] = "a\0b\0c";
    param_layout layout;
    const bool table = k == FUZZ_MODELS - 1;
    *c = (vae_checkpoint){.d = SIDE * SIDE, .height = SIDE, .width = SIDE, .channels = 1};
    if (table) {
        *c = (vae_checkpoint){.d = 3, .height = 1, .width = 3, .channels = 1};
        c->standard = standard;
        c->columns = columns;
    }
    vae_config_defaults(&c->config);
    for (const char *const *o = options[k]; *o != NULL; o += 2) {
        fuzz_must(vae_config_set(&c->config, o[0], o[1], NULL) == VAE_OK);
    }
    if (c->config.semi_supervised) {
        vae_config_set(&c->config, "labelled", "2", NULL);
    }
    if (vae_config_has_classes(&c->config)) {
        fuzz_must(vae_classes_number(&c->classes, CLASSES, NULL) == VAE_OK);
        c->classes_known = true;
    }
    fuzz_must(vae_layout_build(&layout, &c->config, vae_checkpoint_shape(c), NULL) == VAE_OK);
    float *flat = calloc(layout.total, sizeof *flat);
    c->n_params = layout.n_params;
    c->params = calloc(c->n_params, sizeof *c->params);
    fuzz_must(flat != NULL && c->params != NULL);
    vae_layout_init(&layout, flat, VAE_INIT_TORCH, k + 1);
    vae_layout_pack(&layout, c->params, flat);
    free(flat);
    vae_layout_clear(&layout);
}

/* On one thread of the CPU. */
static void of(vae_trained *m, const vae_checkpoint *c)
{
    vae_trained_of(m, c);
    fuzz_must(vae_config_set(&m->config, "device", "cpu", NULL) == VAE_OK &&
              vae_config_set(&m->config, "threads", "1", NULL) == VAE_OK);
}

vae_trained *fuzz_model(size_t k)
{
    if (models[k].model == NULL) {
        make_checkpoint(&checkpoints[k], k);
        of(&models[k], &checkpoints[k]);
        fuzz_must(vae_trained_start(&models[k], 8, 1, NULL) == VAE_OK);
    }
    return &models[k];
}

/* ---- any model ---- */

bool fuzz_is_small(const vae_checkpoint *c)
{
    bool small = c->d <= MOST_SIDE && c->n_params <= MOST_VALUES && c->config.latent <= MOST_SIDE &&
                 c->config.classes <= MOST_SIDE;
    /* what convolutions write */
    for (size_t i = 0; i < c->config.conv.n; i++) {
        small = small && c->config.conv.size[i] <= MOST_SIDE;
    }
    return small;
}

typedef struct {
    float mu[ROWS * MOST_SIDE], logvar[ROWS * MOST_SIDE], z[ROWS * MOST_SIDE];
    float x_hat[ROWS * MOST_SIDE], decoded[ROWS * MOST_SIDE];
    float scores[VAE_SCORES][ROWS];
    vae_status encoded_to, decoded_to, scored_to;
} results;

static void score(results *r, vae_trained *m, const vae_dataset *set)
{
    vae_row_scores scores = {0};
    vae_error err = {0};
    vae_data *data = m->be->ops->data_open(m->be, set, NULL, 0);
    const vae_score_job job = {.on = m, .data = data, .n = ROWS, .samples = SAMPLES};
    r->scored_to = m->be->ops->sync(m->be, &err);
    if (r->scored_to == VAE_OK) {
        r->scored_to = vae_score_rows(&scores, &job, &err);
    }
    /* weights may be any numbers: then no row has a finite score */
    fuzz_must(r->scored_to == VAE_OK || r->scored_to == VAE_ERR_DIVERGED);
    for (size_t k = 0; k < VAE_SCORES && r->scored_to == VAE_OK; k++) {
        memcpy(r->scores[k], scores.of[k], sizeof r->scores[k]);
    }
    vae_row_scores_clear(&scores);
    m->be->ops->data_close(m->be, data);
}

static void pass(results *r, const vae_checkpoint *c)
{
    static const uint32_t labels[ROWS] = {0, 1, 0};
    float rows[ROWS * MOST_SIDE];
    uint32_t label[ROWS];
    vae_trained m;
    vae_error err = {0};
    memset(r, 0, sizeof *r);
    for (size_t i = 0; i < ROWS; i++) {
        label[i] = labels[i] < c->config.classes ? labels[i] : 0;
    }
    for (size_t i = 0; i < ROWS * c->d; i++) {
        rows[i] = (float)(i % 7) / 7;
    }
    const vae_dataset set = {.source = "rows",
                             .n = ROWS,
                             .d = c->d,
                             .height = 1,
                             .width = c->d,
                             .channels = 1,
                             .dtype = VAE_F32,
                             .rows = rows,
                             .labels = vae_config_has_classes(&c->config) ? label : NULL};
    const vae_batch_out out = {.mu = r->mu, .logvar = r->logvar, .z = r->z, .x_hat = r->x_hat};
    of(&m, c);
    if (fuzz_judge(vae_trained_start(&m, ROWS, SAMPLES, &err), &err)) {
        r->encoded_to = vae_trained_run_set(&m, &set, 0, &out, &err);
        fuzz_judge(r->encoded_to, &err);
        err = (vae_error){0};
        r->decoded_to = vae_trained_decode(&m, r->decoded, r->z, set.labels, ROWS, &err);
        fuzz_judge(r->decoded_to, &err);
        score(r, &m, &set);
    }
    vae_trained_close(&m);
}

void fuzz_use(const vae_checkpoint *c, bool twice)
{
    static results first, second;
    pass(&first, c);
    if (twice) {
        pass(&second, c);
        fuzz_must(memcmp(&first, &second, sizeof first) == 0);
    }
}
