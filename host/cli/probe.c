/* vae probe: what classifiers make of the latents, and of the data beside them. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "backend/open.h"
#include "base/pool.h"
#include "cli/cli.h"
#include "philox.h"
#include "plot/plot.h"
#include "stats/disentangle.h"
#include "stats/pca.h"
#include "stats/probe.h"

enum { SCATTER_ROWS = 5000, PART_ROWS = 16 /* that a thread takes at a time */ };

/* One set of rows in both representations. */
typedef struct {
    float *mu, *pixels; /* (n,Z), (n,D) */
    uint32_t *labels;   /* NULL: none; else each row has one */
    float *factors;     /* (n,f) or NULL */
    size_t n, f;
} features;

typedef struct {
    const cli_args *args;
    vae_trained m;
    features train, test;
    vae_classes names; /* of the labels */
    size_t neighbours, seeds, seed;
    double holdout;
    vae_sizes labels; /* --labels */
    bool disentangle;
    bool classify; /* there is something to measure on */
    const char *scatter;
    int threads;
    json_t *out;
} probe;

static void features_free(features *f)
{
    free(f->mu);
    free(f->pixels);
    free(f->labels);
    free(f->factors);
}

static vae_status read_labels_option(probe *p, vae_error *err)
{
    const char *text = cli_value(p->args, "labels");
    for (const char *at = text; at != NULL;
         at = strchr(at, ',') != NULL ? strchr(at, ',') + 1 : NULL) {
        char number[24];
        uint64_t n;
        snprintf(number, sizeof number, "%.*s", (int)strcspn(at, ","), at);
        if (p->labels.n == VAE_MAX_LAYERS || !vae_parse_u64(number, 1, 10000000, &n)) {
            return vae_fail(err, VAE_ERR_USAGE,
                            "--labels: expected numbers such as 100,600,1000, found '%s'", text);
        }
        p->labels.size[p->labels.n++] = (size_t)n;
    }
    return VAE_OK;
}

static vae_status read_options(probe *p, vae_error *err)
{
    const cli_args *args = p->args;
    vae_status status = VAE_OK;
    TRY(read_labels_option(p, err));
    p->disentangle = cli_given(args, "disentanglement");
    p->scatter = cli_value(args, "scatter");
    TRY(cli_size(args, "neighbours", 10, 1, 1000, &p->neighbours, err));
    TRY(cli_size(args, "seeds", 5, 1, VAE_PROBE_SEEDS, &p->seeds, err));
    TRY(cli_size(args, "seed", 1, 0, SIZE_MAX - VAE_PROBE_SEEDS, &p->seed, err));
    TRY(cli_real(args, "holdout", 0, 0, 0.9, &p->holdout, err));
    if (cli_given(args, "seeds") && p->labels.n == 0) {
        TRY(vae_fail(err, VAE_ERR_USAGE, "--seeds has no effect without --labels 100,600"));
    }
done:
    return status;
}

/* ---- rows ---- */

typedef struct {
    float *pixels; /* (n,D) */
    const vae_dataset *set;
} unpacking;

static void unpack_rows(void *ctx, int thread, size_t first, size_t end)
{
    const unpacking *a = ctx;
    const size_t d = a->set->d;
    (void)thread;
    for (size_t i = first; i < end; i++) {
        for (size_t j = 0; j < d; j++) {
            a->pixels[i * d + j] = vae_dataset_value(a->set, i, j);
        }
    }
}

/* mu of the set's rows, their values, labels and factors. The set stays the caller's. */
static vae_status take_features(probe *p, features *f, const vae_dataset *set, vae_error *err)
{
    const size_t Z = p->m.config.latent;
    f->n = set->n;
    f->f = set->n_factors;
    f->mu = malloc(set->n * Z * sizeof *f->mu);
    f->pixels = malloc(p->classify ? set->n * set->d * sizeof *f->pixels : 1);
    f->labels = set->labels != NULL ? malloc(set->n * sizeof *f->labels) : NULL;
    f->factors = set->factors != NULL ? malloc(set->n * set->n_factors * sizeof *f->factors) : NULL;
    if (f->mu == NULL || f->pixels == NULL || (set->labels != NULL && f->labels == NULL) ||
        (set->factors != NULL && f->factors == NULL)) {
        return vae_fail_memory(err, set->n * (Z + set->d) * sizeof(float), "features");
    }
    unpacking pixels = {f->pixels, set};
    vae_parallel(p->threads, p->classify ? set->n : 0, PART_ROWS, unpack_rows, &pixels);
    if (f->labels != NULL) {
        memcpy(f->labels, set->labels, set->n * sizeof *f->labels);
    }
    if (f->factors != NULL) {
        memcpy(f->factors, set->factors, set->n * set->n_factors * sizeof *f->factors);
    }
    const vae_batch_out out = {.mu = f->mu};
    return vae_trained_run_set(&p->m, set, VAE_EVAL_DRAW(0), &out, err);
}

/* Leaves out the rows of no class, of which nothing can be asked. */
static void drop_unlabelled(const probe *p, features *f)
{
    const size_t Z = p->m.config.latent, D = p->classify ? p->m.checkpoint->d : 0;
    size_t kept = 0;
    for (size_t i = 0; f->labels != NULL && i < f->n; i++) {
        if (f->labels[i] != VAE_NO_LABEL) {
            memmove(f->mu + kept * Z, f->mu + i * Z, Z * sizeof *f->mu);
            memmove(f->pixels + kept * D, f->pixels + i * D, D * sizeof *f->pixels);
            if (f->factors != NULL) {
                memmove(f->factors + kept * f->f, f->factors + i * f->f, f->f * sizeof *f->factors);
            }
            f->labels[kept++] = f->labels[i];
        }
    }
    f->n = f->labels != NULL ? kept : f->n;
}

/* Leaves out the classes that no row has: the model may know more. */
static vae_status drop_classes(probe *p, vae_error *err)
{
    features *both[2] = {&p->train, &p->test};
    uint32_t *place = calloc(p->names.n + 1, sizeof *place);
    size_t kept = 0;
    if (place == NULL) {
        return vae_fail_memory(err, p->names.n * sizeof *place, "classes");
    }
    for (size_t k = 0; k < 2; k++) {
        for (size_t i = 0; both[k]->labels != NULL && i < both[k]->n; i++) {
            place[both[k]->labels[i]] = 1;
        }
    }
    for (size_t c = 0; c < p->names.n; c++) {
        char *name = p->names.name[c];
        if (place[c] == 0) {
            free(name);
        } else {
            place[c] = (uint32_t)kept;
            p->names.name[kept++] = name;
        }
    }
    p->names.n = kept;
    for (size_t k = 0; k < 2; k++) {
        for (size_t i = 0; both[k]->labels != NULL && i < both[k]->n; i++) {
            both[k]->labels[i] = place[both[k]->labels[i]];
        }
    }
    free(place);
    return VAE_OK;
}

static vae_status open_split(probe *p, features *f, const char *name, vae_split split,
                             vae_error *err)
{
    vae_status status = VAE_OK;
    TRY(cli_open_named_set(&p->m, p->args, name, split, err));
    TRY(vae_dataset_map_classes(p->m.set, &p->names, err)); /* one numbering for both splits */
    vae_classes_clear(&p->names);
    TRY(vae_classes_copy(&p->names, &p->m.set->classes, err));
    TRY(take_features(p, f, p->m.set, err));
    drop_unlabelled(p, f);
    vae_trained_close_set(&p->m);
done:
    return status;
}

static void swap_rows(void *a, void *b, size_t bytes)
{
    unsigned char *x = a, *y = b;
    for (size_t i = 0; i < bytes; i++) {
        unsigned char t = x[i];
        x[i] = y[i];
        y[i] = t;
    }
}

/* Moves a fraction of the rows, drawn by seed, from train to test. */
static vae_status hold_out(probe *p, vae_error *err)
{
    features *a = &p->train, *b = &p->test;
    const size_t Z = p->m.config.latent, D = p->m.checkpoint->d;
    const size_t n = (size_t)((double)a->n * p->holdout + 0.5);
    if (n == 0 || n >= a->n) {
        return vae_fail(err, VAE_ERR_USAGE,
                        "--holdout %g of %zu rows is %zu: give another fraction", p->holdout, a->n,
                        n);
    }
    /* Fisher-Yates from the end */
    for (size_t i = 0; i < n; i++) {
        const vae_philox_words w =
            vae_philox(p->seed, vae_rng_stream(VAE_RNG_SPLIT, 2 + i), vae_rng_block(3, 0));
        const size_t last = a->n - 1 - i, k = (size_t)((uint64_t)w.w[0] * (last + 1) >> 32);
        swap_rows(a->mu + k * Z, a->mu + last * Z, k == last ? 0 : Z * sizeof *a->mu);
        swap_rows(a->pixels + k * D, a->pixels + last * D, k == last ? 0 : D * sizeof *a->pixels);
        if (a->labels != NULL) {
            swap_rows(a->labels + k, a->labels + last, k == last ? 0 : sizeof *a->labels);
        }
    }
    a->n -= n;
    *b = (features){.mu = malloc(n * Z * sizeof *b->mu),
                    .pixels = malloc(n * D * sizeof *b->pixels),
                    .labels = a->labels != NULL ? malloc(n * sizeof *b->labels) : NULL,
                    .n = n};
    if (b->mu == NULL || b->pixels == NULL || (a->labels != NULL && b->labels == NULL)) {
        return vae_fail_memory(err, n * (Z + D) * sizeof(float), "held-out rows");
    }
    memcpy(b->mu, a->mu + a->n * Z, n * Z * sizeof *b->mu);
    memcpy(b->pixels, a->pixels + a->n * D, n * D * sizeof *b->pixels);
    if (b->labels != NULL) {
        memcpy(b->labels, a->labels + a->n, n * sizeof *b->labels);
    }
    return VAE_OK;
}

static vae_status open_rows(probe *p, vae_error *err)
{
    const char *data = cli_value(p->args, "data");
    const char *name = data != NULL ? data : p->m.config.data;
    const char *test = NULL;
    vae_split of_test = VAE_SPLIT_TEST;
    bool has_test = false;
    vae_status status = VAE_OK;
    TRY(data == NULL ? cli_test_data(&test, &of_test, &p->m.config, err)
                     : vae_dataset_has_test(&has_test, data, err));
    test = has_test ? data : test;
    if (test != NULL && p->holdout > 0) {
        TRY(vae_fail(err, VAE_ERR_USAGE, "--holdout has no effect: %s has a test split", name));
    }
    p->classify = test != NULL || p->holdout > 0;
    TRY(open_split(p, &p->train, name, VAE_SPLIT_TRAIN, err));
    if (test != NULL) {
        TRY(open_split(p, &p->test, test, of_test, err));
    } else if (p->holdout > 0) {
        TRY(hold_out(p, err));
    }
    TRY(drop_classes(p, err));
    if (p->train.labels != NULL && !p->classify && !p->disentangle) {
        TRY(vae_fail(err, VAE_ERR_DATA,
                     "%s: no test split to measure on: name data that have one, or keep rows back "
                     "with --holdout 0.2",
                     name));
    }
    if (p->train.labels == NULL && !p->disentangle) {
        TRY(vae_fail(err, VAE_ERR_DATA, "%s: no labels to probe for", name));
    }
    if (p->train.factors == NULL && p->disentangle) {
        TRY(vae_fail(err, VAE_ERR_DATA,
                     "%s: no factors of generation to compare with; digits and sprites have them",
                     name));
    }
done:
    return status;
}

/* ---- classifiers ---- */

static vae_labelled view(const probe *p, const features *f, bool mu)
{
    return (vae_labelled){mu ? f->mu : f->pixels,
                          f->labels,
                          f->n,
                          mu ? p->m.config.latent : p->m.checkpoint->d,
                          p->names.n,
                          (const char *const *)p->names.name};
}

static vae_status probe_all(probe *p, vae_error *err)
{
    vae_probe_errors found[2];
    vae_status status = VAE_OK;
    for (int raw = 0; raw < 2; raw++) {
        const vae_labelled train = view(p, &p->train, !raw), test = view(p, &p->test, !raw);
        cli_say(p->args, "classifiers on %s: %zu row%s of %zu, tested on %zu",
                raw ? "the data" : "mu", train.n, vae_s(train.n), train.d, test.n);
        TRY(vae_probe_all(&found[raw], &train, &test, p->neighbours, p->threads, err));
    }
    if (!p->args->json) {
        printf("accuracy on the test split, all %zu labels     mu    the data\n", p->train.n);
        printf("  %4zu nearest neighbours               %8.2f%%   %8.2f%%\n", found[0].neighbours,
               100 * (1 - found[0].knn), 100 * (1 - found[1].knn));
        printf("  logistic regression                   %8.2f%%   %8.2f%%\n",
               100 * (1 - found[0].logistic), 100 * (1 - found[1].logistic));
    }
    json_object_set_new(p->out, "neighbours", json_integer((json_int_t)found[0].neighbours));
    for (int raw = 0; raw < 2; raw++) {
        json_object_set_new(p->out, raw ? "data" : "mu",
                            json_pack("{s:f, s:f, s:f}", "knn_accuracy", 1 - found[raw].knn,
                                      "logistic_accuracy", 1 - found[raw].logistic, "logistic_l2",
                                      found[raw].l2));
    }
done:
    return status;
}

typedef struct {
    double mean, sd;
} moments;

static moments moments_of(const double *v, size_t n)
{
    moments m = {0, 0};
    for (size_t i = 0; i < n; i++) {
        m.mean += v[i] / (double)n;
    }
    for (size_t i = 0; i < n; i++) {
        m.sd += (v[i] - m.mean) * (v[i] - m.mean);
    }
    m.sd = n > 1 ? sqrt(m.sd / (double)(n - 1)) : 0;
    return m;
}

static vae_status probe_few(probe *p, size_t n_labels, json_t *rows, vae_error *err)
{
    double error[2][2][VAE_PROBE_SEEDS]; /* [raw][classifier] */
    moments m[2][2];
    vae_status status = VAE_OK;
    for (int raw = 0; raw < 2; raw++) {
        const vae_labelled train = view(p, &p->train, !raw), test = view(p, &p->test, !raw);
        for (size_t s = 0; s < p->seeds; s++) {
            vae_probe_errors e = {0};
            TRY(vae_probe_few(&e, &train, &test, n_labels, p->seed + s, p->threads, err));
            error[raw][0][s] = e.knn;
            error[raw][1][s] = e.logistic;
        }
        for (int c = 0; c < 2; c++) {
            m[raw][c] = moments_of(error[raw][c], p->seeds);
        }
    }
    if (!p->args->json) {
        printf("%6zu  %6.2f ± %4.2f   %6.2f ± %4.2f   %6.2f ± %4.2f   %6.2f ± %4.2f\n", n_labels,
               100 * m[0][0].mean, 100 * m[0][0].sd, 100 * m[0][1].mean, 100 * m[0][1].sd,
               100 * m[1][0].mean, 100 * m[1][0].sd, 100 * m[1][1].mean, 100 * m[1][1].sd);
        fflush(stdout);
    }
    json_array_append_new(
        rows, json_pack("{s:I, s:I, s:{s:f, s:f, s:f, s:f}, s:{s:f, s:f, s:f, s:f}}", "labels",
                        (json_int_t)n_labels, "seeds", (json_int_t)p->seeds, "mu", "knn_error",
                        m[0][0].mean, "knn_sd", m[0][0].sd, "logistic_error", m[0][1].mean,
                        "logistic_sd", m[0][1].sd, "data", "knn_error", m[1][0].mean, "knn_sd",
                        m[1][0].sd, "logistic_error", m[1][1].mean, "logistic_sd", m[1][1].sd));
done:
    return status;
}

static vae_status probe_labels(probe *p, vae_error *err)
{
    json_t *rows;
    vae_status status = VAE_OK;
    TRY(probe_all(p, err));
    if (p->labels.n == 0) {
        return VAE_OK;
    }
    if (!p->args->json) {
        printf(
            "error in %% with few labels, as many of each class, mean ± deviation of %zu draw%s\n"
            "labels  mu: neighbours   mu: logistic    data: neighbours data: logistic\n",
            p->seeds, vae_s(p->seeds));
    }
    rows = json_array();
    json_object_set_new(p->out, "few_labels", rows);
    for (size_t i = 0; i < p->labels.n; i++) {
        TRY(probe_few(p, p->labels.size[i], rows, err));
    }
done:
    return status;
}

/* ---- disentanglement, scatter ---- */

static vae_status probe_factors(probe *p, vae_error *err)
{
    const features *f = &p->train;
    vae_disentangle_scores s;
    const vae_disentangle_data data = {f->mu, f->factors, f->n,      p->m.config.latent,
                                       f->f,  p->seed,    p->threads};
    vae_status status = vae_disentangle(&s, &data, err);
    if (status != VAE_OK) {
        return status;
    }
    if (!p->args->json) {
        printf("disentanglement of %zu factor%s by %zu active latent%s, on %zu row%s\n"
               "  MIG %.3f   SAP %.3f   BetaVAE %.3f   FactorVAE %.3f\n"
               "  DCI: disentanglement %.3f   completeness %.3f   informativeness %.3f\n",
               s.factors, vae_s(s.factors), s.active, vae_s(s.active), data.n, vae_s(data.n), s.mig,
               s.sap, s.beta_vae, s.factor_vae, s.dci_disentanglement, s.dci_completeness,
               s.dci_informativeness);
    }
    json_object_set_new(p->out, "disentanglement",
                        json_pack("{s:f, s:f, s:f, s:f, s:f, s:f, s:f, s:I, s:I, s:I}", "mig",
                                  s.mig, "sap", s.sap, "beta_vae", s.beta_vae, "factor_vae",
                                  s.factor_vae, "dci_disentanglement", s.dci_disentanglement,
                                  "dci_completeness", s.dci_completeness, "dci_informativeness",
                                  s.dci_informativeness, "active", (json_int_t)s.active, "factors",
                                  (json_int_t)s.factors, "rows", (json_int_t)data.n));
    return VAE_OK;
}

static vae_status draw_scatter(const probe *p, vae_error *err)
{
    const features *f = p->test.n > 0 ? &p->test : &p->train;
    const size_t n = f->n < SCATTER_ROWS ? f->n : SCATTER_ROWS, Z = p->m.config.latent;
    vae_text text = {0};
    double share[2];
    char x[64], y[64];
    vae_status status = VAE_OK;
    float *xy = malloc(n * 2 * sizeof *xy);
    if (xy == NULL) {
        TRY(vae_fail_memory(err, n * 2 * sizeof *xy, "a scatter"));
    }
    TRY(vae_pca_plane(xy, share, f->mu, n, Z, err));
    snprintf(x, sizeof x, Z <= 2 ? "latent 0" : "first component (%.0f%% of the variance)",
             100 * share[0]);
    snprintf(y, sizeof y, Z <= 2 ? "latent 1" : "second component (%.0f%%)", 100 * share[1]);
    plot_scatter(&text, (plot_axes){"Latents (mu) by label", x, y, false, false}, xy, f->labels, n,
                 (const char *const *)p->names.name, p->names.n);
    TRY(vae_text_write(&text, p->scatter, err));
done:
    vae_text_clear(&text);
    free(xy);
    return status;
}

static vae_status run_probe(const cli_args *args, vae_error *err)
{
    probe p = {.args = args};
    vae_status status = VAE_OK;
    TRY(read_options(&p, err));
    TRY(cli_open_checkpoint(&p.m, args, err));
    p.threads = vae_threads(p.m.config.threads);
    p.out = json_pack("{s:i, s:s}", "schema", 1, "checkpoint", p.m.path);
    TRY(cli_binarize_for_latents(&p.m, args, err));
    TRY(vae_trained_start(&p.m, VAE_INFER_BATCH, 1, err));
    TRY(open_rows(&p, err));
    if (p.train.labels != NULL && p.classify) {
        TRY(probe_labels(&p, err));
    }
    if (p.disentangle) {
        TRY(probe_factors(&p, err));
    }
    if (p.scatter != NULL) {
        TRY(draw_scatter(&p, err));
        cli_say(args, "scatter: %s", p.scatter);
    }
    if (args->json) {
        cli_print_json(json_incref(p.out), 9);
    }
done:
    json_decref(p.out);
    features_free(&p.train);
    features_free(&p.test);
    vae_classes_clear(&p.names);
    vae_trained_close(&p.m);
    return status;
}

static const cli_option probe_options[] = {
    {"data", 'd', "DATA", "data set with labels; default: the one it was trained on"},
    {"limit", 0, "N", "only the first N rows of each split; 0 = all"},
    {"neighbours", 'k', "K", "of the nearest-neighbour classifier [10]"},
    {"labels", 0, "N,N,...", "with so few labels, too: 100,600,1000,3000"},
    {"seeds", 0, "N", "draws of the few labels [5]"},
    {"seed", 's', "N", "of the draws [1]"},
    {"holdout", 0, "FRACTION", "of data without a test split, rows to measure on"},
    {"binarize", 0, "none|threshold|static|dynamic",
     "of what is encoded; default: as it was trained, but none in place of dynamic"},
    {"scatter", 0, "FILE", ".svg: latents by label in the plane of most variance"},
    {"disentanglement", 0, NULL, "MIG, SAP, DCI, BetaVAE, FactorVAE, where factors are known"},
    CLI_MODEL_OPTIONS,
};

const cli_command cli_probe_command = {
    .name = "probe",
    .words = "RUN",
    .n_words = 1,
    .help = "How much the latents say of labels and factors, beside the data themselves.",
    .examples = "  vae probe runs/mnist\n"
                "  vae probe runs/mnist --labels 100,600,1000,3000 --scatter latents.svg\n"
                "  vae probe runs/sprites --disentanglement --limit 50000\n",
    CLI_OPTIONS(probe_options),
    .run = run_probe,
};
