/* What a representation says of labels: settings are chosen by cross-validation. */
#include "stats/probe.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "philox.h"

enum { FIT_STEPS = 200, CHOICE_ROWS = 10000, FOLDS = 5 };

static vae_status logistic_error(double *error, const vae_labelled *train, const vae_labelled *test,
                                 double l2, int threads, vae_error *err)
{
    float *weights = malloc(train->classes * (train->d + 1) * sizeof *weights);
    uint32_t *guess = malloc(test->n * sizeof *guess);
    vae_status status = VAE_OK;
    if (weights == NULL || guess == NULL) {
        TRY(vae_fail_memory(err, test->n, "a classifier"));
    }
    TRY(vae_logistic_fit(weights, train, l2, FIT_STEPS, threads, err));
    vae_logistic_guess(guess, weights, test->x, test->n, test->d, train->classes, threads);
    *error = vae_error_rate(guess, test->y, test->n);
done:
    free(guess);
    free(weights);
    return status;
}

static vae_status knn_error(double *error, const vae_labelled *train, const vae_labelled *test,
                            size_t k, int threads, vae_error *err)
{
    uint32_t *guess = malloc(test->n * sizeof *guess);
    k = k < train->n ? k : train->n;
    vae_status status = VAE_OK;
    if (guess == NULL) {
        TRY(vae_fail_memory(err, test->n, "a classifier"));
    }
    TRY(vae_knn(guess, test->x, test->n, train, k, threads, err));
    *error = vae_error_rate(guess, test->y, test->n);
done:
    free(guess);
    return status;
}

/* Room for a copy of some rows. */
static vae_status rows_open(vae_labelled *out, const vae_labelled *like, size_t n, vae_error *err)
{
    float *x = malloc(n * like->d * sizeof *x);
    uint32_t *y = malloc(n * sizeof *y);
    if (x == NULL || y == NULL) {
        free(x);
        free(y);
        *out = (vae_labelled){0};
        return vae_fail_memory(err, n * like->d * sizeof *x, "rows");
    }
    *out = (vae_labelled){.d = like->d, .classes = like->classes, .names = like->names};
    out->x = x;
    out->y = y;
    return VAE_OK;
}

static void rows_close(vae_labelled *rows)
{
    free((void *)(uintptr_t)rows->x);
    free((void *)(uintptr_t)rows->y);
}

static void rows_add(vae_labelled *rows, const vae_labelled *from, size_t row)
{
    memcpy((float *)(uintptr_t)rows->x + rows->n * rows->d, from->x + row * from->d,
           rows->d * sizeof *rows->x);
    ((uint32_t *)(uintptr_t)rows->y)[rows->n++] = from->y[row];
}

typedef vae_status trial_fn(double *error, const vae_labelled *train, const vae_labelled *test,
                            double candidate, int threads, vae_error *err);

static vae_status try_l2(double *error, const vae_labelled *train, const vae_labelled *test,
                         double candidate, int threads, vae_error *err)
{
    return logistic_error(error, train, test, candidate, threads, err);
}

static vae_status try_neighbours(double *error, const vae_labelled *train, const vae_labelled *test,
                                 double candidate, int threads, vae_error *err)
{
    return knn_error(error, train, test, (size_t)candidate, threads, err);
}

/* The candidate of least mean error when each of the first `folds` of `parts` is left out. */
static vae_status choose(double *best, const vae_labelled *rows, const double *candidates, size_t n,
                         size_t folds, size_t parts, trial_fn *trial, int threads, vae_error *err)
{
    double least = INFINITY;
    vae_labelled in = {0}, out = {0};
    vae_status status = VAE_OK;
    TRY(rows_open(&in, rows, rows->n, err));
    TRY(rows_open(&out, rows, rows->n, err));
    for (size_t c = 0; c < n; c++) {
        double sum = 0, error;
        for (size_t fold = 0; fold < folds; fold++) {
            in.n = out.n = 0;
            for (size_t i = 0; i < rows->n; i++) {
                rows_add(i / rows->classes % parts == fold ? &out : &in, rows, i);
            }
            TRY(trial(&error, &in, &out, candidates[c], threads, err));
            sum += error;
        }
        if (sum < least) {
            least = sum;
            *best = candidates[c];
        }
    }
done:
    rows_close(&in);
    rows_close(&out);
    return status;
}

/* An l2 that was chosen on some rows, for others: the penalty is a prior on the weights, so beside
 * the summed loss it stays what it was, and beside the mean it goes with 1/n. */
static double for_rows(double l2, size_t chosen_on, size_t n)
{
    return l2 * (double)chosen_on / (double)n;
}

vae_status vae_probe_all(vae_probe_errors *out, const vae_labelled *train, const vae_labelled *test,
                         size_t neighbours, int threads, vae_error *err)
{
    static const double candidates[] = {1e-6, 1e-5, 1e-4, 1e-3, 1e-2, 1e-1};
    const size_t n = train->n < CHOICE_ROWS ? train->n : CHOICE_ROWS;
    vae_labelled some;
    vae_status status = VAE_OK;
    TRY(rows_open(&some, train, n, err));
    for (size_t i = 0; i < n; i++) {
        rows_add(&some, train, (size_t)((double)i * (double)train->n / (double)n));
    }
    out->neighbours = neighbours < train->n ? neighbours : train->n;
    TRY(choose(&out->l2, &some, candidates, 6, 1, FOLDS, try_l2, threads, err));
    out->l2 = for_rows(out->l2, n - n / FOLDS, train->n);
    TRY(logistic_error(&out->logistic, train, test, out->l2, threads, err));
    TRY(knn_error(&out->knn, train, test, out->neighbours, threads, err));
done:
    rows_close(&some);
    return status;
}

/* As many rows of each class, in an order drawn by seed; class after class in turn, so that folds
 * taken by turns hold all classes. */
static vae_status draw_few(vae_labelled *out, const vae_labelled *train, size_t n, uint64_t seed,
                           vae_error *err)
{
    const size_t each = n / train->classes;
    const uint32_t half_bits = vae_shuffle_bits(train->n);
    const vae_philox_words w =
        vae_philox(seed, vae_rng_stream(VAE_RNG_SPLIT, 1), vae_rng_block(2, 0));
    const uint64_t key = (uint64_t)w.w[0] << 32 | w.w[1];
    uint32_t *row = malloc(n * sizeof *row);
    size_t *found = calloc(train->classes, sizeof *found);
    vae_status status = VAE_OK;
    if (row == NULL || found == NULL) {
        TRY(vae_fail_memory(err, n * sizeof *row, "labelled rows"));
    }
    for (uint64_t i = 0; i < train->n; i++) {
        const size_t r = (size_t)vae_shuffle(key, train->n, half_bits, i), c = train->y[r];
        if (found[c] < each) {
            row[found[c]++ * train->classes + c] = (uint32_t)r;
        }
    }
    for (size_t c = 0; c < train->classes; c++) {
        if (found[c] < each) {
            char number[24];
            snprintf(number, sizeof number, "%zu", c);
            TRY(vae_fail(err, VAE_ERR_DATA,
                         "class %.40s has %zu training rows; %zu labels ask for %zu of each",
                         train->names != NULL ? train->names[c] : number, found[c], n, each));
        }
    }
    for (size_t i = 0; i < n; i++) {
        rows_add(out, train, row[i]);
    }
done:
    free(found);
    free(row);
    return status;
}

vae_status vae_probe_few(vae_probe_errors *out, const vae_labelled *train, const vae_labelled *test,
                         size_t n, uint64_t seed, int threads, vae_error *err)
{
    static const double l2[] = {1e-5, 1e-4, 1e-3, 1e-2, 1e-1}, neighbours[] = {1, 3, 5, 10};
    double k = 1;
    vae_labelled few;
    vae_status status = VAE_OK;
    if (n == 0 || n % train->classes != 0) {
        return vae_fail(err, VAE_ERR_USAGE, "%zu labels: expected a multiple of the %zu classes", n,
                        train->classes);
    }
    const size_t each = n / train->classes, folds = each < FOLDS ? each : FOLDS;
    if (folds < 2) {
        return vae_fail(err, VAE_ERR_USAGE,
                        "%zu labels: expected two or more of each of the %zu classes, to choose by",
                        n, train->classes);
    }
    TRY(rows_open(&few, train, n, err));
    TRY(draw_few(&few, train, n, seed, err));
    TRY(choose(&out->l2, &few, l2, 5, folds, folds, try_l2, threads, err));
    TRY(choose(&k, &few, neighbours, 4, folds, folds, try_neighbours, threads, err));
    out->neighbours = (size_t)k;
    out->l2 = for_rows(out->l2, n - n / folds, n);
    TRY(logistic_error(&out->logistic, &few, test, out->l2, threads, err));
    TRY(knn_error(&out->knn, &few, test, out->neighbours, threads, err));
done:
    rows_close(&few);
    return status;
}
