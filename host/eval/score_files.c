/* The files that scores go into. */
#include "eval/score_files.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/parts.h"
#include "base/text.h"
#include "format/npz.h"
#include "image/image.h"
#include "infer/labels.h"

/* ---- CSV ---- */

/* Within quotes: a quote is written twice. */
static void put_quoted(FILE *out, const char *text)
{
    for (; *text != '\0'; text++) {
        fputs(*text == '"' ? "\"" : "", out);
        fputc(*text, out);
    }
}

static void put_top(FILE *out, const vae_score_table *t, size_t row)
{
    const vae_row_scores *s = t->scores;
    const char *quote = t->column_names != NULL ? "\"" : "";
    fprintf(out, ",%s", quote);
    for (size_t k = row * s->n_top; k < (row + 1) * s->n_top; k++) {
        fputs(k > row * s->n_top ? ";" : "", out);
        if (t->column_names != NULL) {
            put_quoted(out, t->column_names[s->top[k]]);
        } else {
            fprintf(out, "%u", s->top[k]);
        }
        fprintf(out, "=%.6g", (double)s->top_value[k]);
    }
    fputs(quote, out);
}

static void put_csv(FILE *out, const vae_score_table *t)
{
    const vae_row_scores *s = t->scores;
    const uint32_t *labels = t->set->labels;
    fputs(labels != NULL ? "row,label" : "row", out);
    for (int k = 0; k < VAE_SCORES; k++) {
        fprintf(out, ",%s", vae_score_name((vae_score_kind)k));
    }
    fputs(s->top != NULL ? ",flag,top_features\n" : ",flag\n", out);
    for (size_t i = 0; i < s->n; i++) {
        fprintf(out, "%zu", vae_dataset_number(t->set, i));
        if (labels != NULL) {
            fputc(',', out);
            vae_label_csv(out, t->set, i);
        }
        for (int k = 0; k < VAE_SCORES; k++) {
            fprintf(out, ",%.9g", (double)s->of[k][i]);
        }
        fprintf(out, ",%u", t->flag[i]);
        if (s->top != NULL) {
            put_top(out, t, i);
        }
        fputc('\n', out);
    }
}

static vae_status write_csv(const vae_score_table *t, const char *path, vae_error *err)
{
    char *text = NULL;
    size_t size = 0;
    vae_parts parts = {0};
    FILE *out = open_memstream(&text, &size);
    if (out != NULL) {
        put_csv(out, t);
    }
    if (out == NULL || ferror(out) != 0 || fclose(out) != 0) {
        free(text);
        return vae_fail(err, VAE_ERR_RUNTIME, "%s: out of memory", path);
    }
    vae_parts_own(&parts, text, size);
    return vae_parts_put(&parts, path, err);
}

/* ---- arrays ---- */

static vae_status write_npz(const vae_score_table *t, const char *path, vae_error *err)
{
    const vae_row_scores *s = t->scores;
    const size_t shape[2] = {s->n, s->n_top}, one = 1;
    const char *by = vae_score_name(t->by);
    char descr[24];
    vae_label_arrays labels = {0};
    vae_npz_writer w = {.n = 0};
    vae_status status = VAE_OK;
    for (int k = 0; k < VAE_SCORES; k++) {
        vae_npz_add(&w, vae_score_name((vae_score_kind)k), "<f4", sizeof(float), shape, 1,
                    s->of[k]);
    }
    vae_npz_add(&w, "flag", "|u1", 1, shape, 1, t->flag);
    TRY(vae_label_arrays_add(&labels, &w, t->set, err));
    if (t->set->picked != NULL) {
        vae_npz_add(&w, "row", "<u4", sizeof(uint32_t), shape, 1, t->set->picked);
    }
    if (s->top != NULL) {
        vae_npz_add(&w, "top_features", "<u4", sizeof(uint32_t), shape, 2, s->top);
    }
    vae_npz_add(&w, "threshold", "<f4", sizeof(float), &one, 1, &t->threshold);
    snprintf(descr, sizeof descr, "|S%zu", strlen(by));
    vae_npz_add(&w, "score", descr, strlen(by), &one, 1, by);
    vae_npz_finish(&w);
    status = vae_parts_put(&w.parts, path, err);
done:
    vae_label_arrays_clear(&labels);
    return status;
}

vae_status vae_scores_write(const vae_score_table *table, const char *path, vae_error *err)
{
    return vae_ends_with(path, ".npz") ? write_npz(table, path, err) : write_csv(table, path, err);
}

vae_status vae_contributions_write(const vae_score_table *table, const char *path, vae_error *err)
{
    const vae_row_scores *s = table->scores;
    const size_t shape[2] = {s->n, s->d};
    if (!vae_ends_with(path, ".npz")) {
        return vae_npy_write(path, "<f4", shape, 2, s->contributions, err);
    }
    vae_label_arrays labels = {0};
    vae_npz_writer w = {.n = 0};
    vae_status status = VAE_OK;
    vae_npz_add(&w, "contributions", "<f4", sizeof(float), shape, 2, s->contributions);
    TRY(vae_label_arrays_add(&labels, &w, table->set, err));
    if (table->set->picked != NULL) {
        vae_npz_add(&w, "row", "<u4", sizeof(uint32_t), shape, 1, table->set->picked);
    }
    vae_npz_finish(&w);
    status = vae_parts_put(&w.parts, path, err);
done:
    vae_label_arrays_clear(&labels);
    return status;
}

/* ---- pictures ---- */

/* Rows of highest score, highest first, the first of equals first. */
static size_t find_highest(size_t *rows, size_t most, const float *score, size_t n)
{
    size_t found = 0;
    for (size_t i = 0; i < n; i++) {
        size_t at = found;
        while (at > 0 && score[i] > score[rows[at - 1]]) {
            at--;
        }
        if (at < most) {
            found = found < most ? found + 1 : most;
            memmove(rows + at + 1, rows + at, (found - 1 - at) * sizeof *rows);
            rows[at] = i;
        }
    }
    return found;
}

static int by_value(const void *a, const void *b)
{
    const float x = *(const float *)a, y = *(const float *)b;
    return x < y ? -1 : x > y;
}

/* The ends of a picture's values but for the lowest and the highest in a hundred: cells (d),
 * `channels` alike. sorted: (d) room. false: none is finite. */
static bool ends_of(float *least, float *most, const float *cells, size_t d, size_t channels,
                    float *sorted)
{
    size_t n = 0;
    for (size_t i = 0; i < d; i += channels) {
        sorted[n] = cells[i];
        n += isfinite(cells[i]);
    }
    if (n == 0) {
        return false;
    }
    qsort(sorted, n, sizeof *sorted, by_value);
    *least = sorted[n / 100];
    *most = sorted[n - 1 - n / 100];
    return true;
}

/* Contributions (n,d) of the pictures as brightness; channels are added up. A few pixels are far
 * above the rest, and a few pictures above the others, which would be black beside them: the scale,
 * the same for all, is that of the middle one of the pictures' own. Infinite ones are white. */
static vae_status shade(float *cells, size_t n, size_t d, size_t channels, vae_error *err)
{
    float least[VAE_HEATMAP_ROWS], most[VAE_HEATMAP_ROWS], *sorted = malloc(d * sizeof *sorted);
    size_t known = 0;
    if (sorted == NULL) {
        return vae_fail_memory(err, d * sizeof *sorted, "contributions");
    }
    for (size_t i = 0; i < n * d; i += channels) {
        float sum = 0;
        for (size_t c = 0; c < channels; c++) {
            sum += cells[i + c];
        }
        for (size_t c = 0; c < channels; c++) {
            cells[i + c] = sum;
        }
    }
    for (size_t i = 0; i < n; i++) {
        known += ends_of(&least[known], &most[known], cells + i * d, d, channels, sorted);
    }
    free(sorted);
    qsort(least, known, sizeof *least, by_value);
    qsort(most, known, sizeof *most, by_value);
    const float low = known > 0 ? least[known / 2] : 0, high = known > 0 ? most[known / 2] : 0;
    for (size_t i = 0; i < n * d; i++) {
        if (!isfinite(cells[i]) || cells[i] > high) {
            cells[i] = 1;
        } else {
            cells[i] = cells[i] > low ? (cells[i] - low) / (high - low) : 0;
        }
    }
    return VAE_OK;
}

vae_status vae_heatmap_write(const vae_score_table *table, const vae_score_job *job,
                             const char *path, vae_error *err)
{
    const vae_checkpoint *shape = job->on->checkpoint;
    const size_t d = shape->d, side = shape->height > shape->width ? shape->height : shape->width;
    const size_t zoom = side >= 84 ? 1 : 84 / side;
    size_t rows[VAE_HEATMAP_ROWS];
    const size_t n = find_highest(rows, VAE_HEATMAP_ROWS, table->scores->of[table->by], job->n);
    float *cells = calloc(3 * n * d, sizeof *cells), *parts = malloc(n * d * sizeof *parts);
    vae_status status = VAE_OK;
    if (cells == NULL || parts == NULL) {
        TRY(vae_fail_memory(err, 4 * n * d * sizeof *cells, "pictures"));
    }
    for (size_t i = 0; i < n; i++) {
        float *line = cells + 3 * i * d;
        TRY(vae_score_row(line, line + d, parts + i * d, job, rows[i], err));
    }
    vae_checkpoint_units(shape, cells, 3 * n); /* the third of each is yet to come */
    TRY(shade(parts, n, d, shape->channels, err));
    for (size_t i = 0; i < n; i++) {
        memcpy(cells + (3 * i + 2) * d, parts + i * d, d * sizeof *cells);
    }
    TRY(vae_image_grid(path, cells, 3 * n, shape->height, shape->width, shape->channels, 3, zoom, 2,
                       err));
done:
    free(parts);
    free(cells);
    return status;
}
