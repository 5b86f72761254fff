/* vae complete: the missing part of pictures, by pseudo-Gibbs sampling (Rezende et al. 2014,
 * appendix F): from a start of noise in the missing part, encode, draw z, decode, put the decoded
 * mean there and the observed part back; again for so many rounds. In a model with classes the
 * class is held. What is shown is the last round's mean. */
#include <stdlib.h>
#include <string.h>

#include "cli/draw.h"
#include "image/image.h"
#include "philox.h"

enum { FIRST_ROWS = 8, MOST_ROWS = 1000, MOST_EACH = 100 };

/* observed: (d) 1 where a value is known. */
static void mask_side(bool *observed, const vae_checkpoint *c, const char *side)
{
    for (size_t i = 0; i < c->d; i++) {
        const size_t y = i / c->channels / c->width, x = i / c->channels % c->width;
        switch (side[0]) {
        case 'l':
            observed[i] = x >= c->width / 2;
            break;
        case 'r':
            observed[i] = x < c->width - c->width / 2;
            break;
        case 't':
            observed[i] = y >= c->height / 2;
            break;
        default:
            observed[i] = y < c->height - c->height / 2;
        }
    }
}

/* A value of a mask as it was written: bytes as they are, so that 1 and 255 both mean observed. */
static float mark(const vae_dataset *set, size_t i)
{
    return set->dtype == VAE_U8 ? ((const uint8_t *)set->rows)[i]
                                : vae_dataset_value(set, i / set->d, i % set->d);
}

/* A picture is read as those of the model are; greys that resizing leaves are cut in the middle. */
static vae_status mask_file(bool *observed, const vae_trained *m, const char *path, vae_error *err)
{
    const vae_checkpoint *c = m->checkpoint;
    vae_data_options how = vae_trained_reading(m, NULL);
    vae_dataset *set;
    vae_status status = VAE_OK;
    how.marks = true;
    TRY(vae_dataset_open(&set, path, VAE_SPLIT_TRAIN, &how, err));
    if (set->kind == VAE_KIND_PICTURES) {
        TRY(vae_checkpoint_check_set(c, set, err));
    }
    /* (1,d), or the picture's own rows: (h,w) */
    if (set->n * set->d != c->d || (set->n != 1 && set->n != c->height)) {
        TRY(vae_fail(err, VAE_ERR_DATA,
                     "%s: a mask of %zu x %zu values; expected %zu, as (1,%zu) or (%zu,%zu)", path,
                     set->n, set->d, c->d, c->d, c->height, c->width * c->channels));
    }
    for (size_t i = 0; i < c->d; i++) {
        const float v = mark(set, i);
        observed[i] = set->kind == VAE_KIND_PICTURES ? v >= 127.5f : v != 0.0f;
        if (set->kind != VAE_KIND_PICTURES && v != 0.0f && v != 1.0f && v != 255.0f) {
            TRY(vae_fail(err, VAE_ERR_DATA,
                         "%s: value %zu is %g; a mask has 0 (missing) and 1 (observed)", path, i,
                         (double)v));
        }
    }
done:
    vae_dataset_free(set);
    return status;
}

static vae_status read_mask(bool *observed, const vae_trained *m, const char *spec, vae_error *err)
{
    static const char *const sides[] = {"left", "right", "top", "bottom"};
    const vae_checkpoint *c = m->checkpoint;
    if (spec == NULL) {
        return vae_fail(err, VAE_ERR_USAGE, "--mask is missing: left, right, top, bottom or FILE");
    }
    for (size_t i = 0; i < 4; i++) {
        if (strcmp(spec, sides[i]) == 0) {
            mask_side(observed, c, spec);
            return VAE_OK;
        }
    }
    return mask_file(observed, m, spec, err);
}

/* The job: R rows, N completions of each. */
typedef struct {
    vae_trained *m;
    uint32_t *rows; /* (R) */
    size_t R, N, rounds, seed;
    int only; /* class, or -1 */
    bool *observed;
    float *x;        /* (R,D) as the model sees them */
    uint32_t *label; /* (R*N) */
    float *state;    /* (R*N,D) */
} completion;

/* One round: every row of the state through the model; the missing part is replaced. */
static vae_status one_round(completion *j, size_t round, float *x_hat, vae_error *err)
{
    const vae_trained *m = j->m;
    const size_t D = m->checkpoint->d, n = j->R * j->N;
    vae_dataset set = {
        .n = n, .d = D, .height = 1, .width = D, .channels = 1, .dtype = VAE_F32, .rows = j->state};
    const vae_batch_out out = {.x_hat = x_hat};
    set.labels = m->config.condition == VAE_CONDITION_LABELS ? j->label : NULL;
    vae_status status = vae_trained_run_set(m, &set, VAE_EVAL_DRAW(round), &out, err);
    for (size_t i = 0; i < n * D && status == VAE_OK; i++) {
        if (!j->observed[i % D]) {
            j->state[i] = x_hat[i];
        }
    }
    return status;
}

/* Missing values begin as uniform noise in the range of the data that is shown. */
static void begin_state(completion *j)
{
    const size_t D = j->m->checkpoint->d;
    for (size_t i = 0; i < j->R * j->N * D; i++) {
        const size_t r = i / D / j->N, d = i % D;
        const vae_philox_words w = vae_philox(j->seed, vae_rng_stream(VAE_RNG_PRIOR, i), 1);
        j->state[i] = j->observed[d] ? j->x[r * D + d] : (float)(w.w[0] >> 8) / 16777216.0f;
    }
}

static vae_status run(completion *j, float *x_hat, vae_error *err)
{
    const vae_dataset *set = j->m->set;
    vae_status status = VAE_OK;
    for (size_t i = 0; i < j->R; i++) {
        for (size_t d = 0; d < set->d; d++) {
            j->x[i * set->d + d] = vae_dataset_value(set, j->rows[i], d);
        }
    }
    TRY(vae_dataset_check_file(set, err));
    for (size_t i = 0; i < j->R * j->N; i++) {
        if (j->only >= 0) {
            j->label[i] = (uint32_t)j->only;
        } else {
            j->label[i] = set->labels != NULL ? set->labels[j->rows[i / j->N]] : 0;
        }
    }
    begin_state(j);
    for (size_t round = 0; round < j->rounds; round++) {
        TRY(one_round(j, round, x_hat, err));
    }
done:
    return status;
}

/* A line for each row: original, masked, completions. */
static vae_status draw(const completion *j, const char *out, vae_error *err)
{
    const vae_checkpoint *c = j->m->checkpoint;
    const size_t D = c->d, columns = j->N + 2, bytes = D * sizeof(float);
    float *grid = malloc(j->R * columns * bytes);
    if (grid == NULL) {
        return vae_fail_memory(err, j->R * columns * bytes, "the picture");
    }
    for (size_t r = 0; r < j->R; r++) {
        float *line = grid + r * columns * D;
        memcpy(line, j->x + r * D, bytes);
        for (size_t d = 0; d < D; d++) {
            line[D + d] = j->observed[d] ? j->x[r * D + d] : 0.5f;
        }
        memcpy(line + 2 * D, j->state + r * j->N * D, j->N * bytes);
    }
    vae_status status = vae_image_grid(out, grid, j->R * columns, c->height, c->width, c->channels,
                                       columns, 2, 2, err);
    free(grid);
    return status;
}

static vae_status check(const completion *j, vae_error *err)
{
    const vae_trained *m = j->m;
    const vae_checkpoint *c = m->checkpoint;
    if (!vae_is_picture(c->height, c->width, c->channels)) {
        return vae_fail(err, VAE_ERR_USAGE, "%s: its data are no pictures", m->path);
    }
    if (j->only >= 0 && m->config.semi_supervised) {
        return vae_fail(err, VAE_ERR_USAGE,
                        "--class: a semi-supervised model classifies for itself; it is for "
                        "conditional ones");
    }
    return VAE_OK;
}

static vae_status choose_rows(completion *j, const char *list, vae_error *err)
{
    const size_t n = j->m->set->n;
    vae_status status = VAE_OK;
    if (list != NULL) {
        TRY(draw_numbers(&j->rows, &j->R, "--rows", list, err));
        if (j->R > MOST_ROWS) {
            TRY(vae_fail(err, VAE_ERR_USAGE, "--rows: expected at most %d of them, found %zu",
                         MOST_ROWS, j->R));
        }
        TRY(draw_find_rows(j->m, j->rows, j->R, "--rows", err));
        return VAE_OK;
    }
    j->R = n < FIRST_ROWS ? n : FIRST_ROWS;
    j->rows = malloc(j->R * sizeof *j->rows);
    if (j->rows == NULL) {
        TRY(vae_fail_memory(err, j->R * sizeof *j->rows, "row numbers"));
    }
    for (uint32_t i = 0; i < j->R; i++) {
        j->rows[i] = i;
    }
done:
    return status;
}

static vae_status prepare(completion *j, const cli_args *args, vae_error *err)
{
    vae_trained *m = j->m;
    vae_status status = VAE_OK;
    TRY(cli_size(args, "n", 8, 1, MOST_EACH, &j->N, err));
    TRY(cli_size(args, "rounds", 50, 1, 1000000, &j->rounds, err));
    TRY(cli_size(args, "seed", 1, 0, SIZE_MAX, &j->seed, err));
    TRY(cli_open_checkpoint(m, args, err));
    TRY(cli_class(m, args, &j->only, err));
    TRY(check(j, err));
    j->observed = calloc(m->checkpoint->d, sizeof *j->observed);
    if (j->observed == NULL) {
        TRY(vae_fail_memory(err, m->checkpoint->d, "the mask"));
    }
    TRY(read_mask(j->observed, m, cli_value(args, "mask"), err));
    TRY(cli_open_set(m, args, err));
    TRY(choose_rows(j, cli_value(args, "rows"), err));
    m->config.seed = j->seed;
    m->config.binarize = VAE_BINARIZE_NONE; /* means go round, not draws */
    TRY(vae_trained_start(m, VAE_INFER_BATCH, 1, err));
done:
    return status;
}

static void print_result(const completion *j, const cli_args *args, const char *out)
{
    if (!args->json) {
        cli_say(args, "%s: %zu row%s of %s, %zu completion%s each", out, j->R, vae_s(j->R),
                j->m->set->source, j->N, vae_s(j->N));
        return;
    }
    json_t *rows = json_array();
    for (size_t i = 0; i < j->R; i++) {
        json_array_append_new(rows,
                              json_integer((json_int_t)vae_dataset_number(j->m->set, j->rows[i])));
    }
    cli_print_json(json_pack("{s:i, s:s, s:s, s:o, s:I, s:I}", "schema", 1, "checkpoint",
                             j->m->path, "out", out, "rows", rows, "n", (json_int_t)j->N, "rounds",
                             (json_int_t)j->rounds),
                   0);
}

static vae_status run_complete(const cli_args *args, vae_error *err)
{
    vae_trained m = {.own = NULL};
    completion j = {.m = &m};
    float *x_hat = NULL;
    vae_status status = VAE_OK;
    const char *out = cli_value(args, "out");
    out = out != NULL ? out : "completions.png";
    TRY(prepare(&j, args, err));
    const size_t D = m.checkpoint->d, n = j.R * j.N;
    j.x = malloc(j.R * D * sizeof *j.x);
    j.label = malloc(n * sizeof *j.label);
    j.state = malloc(n * D * sizeof *j.state);
    x_hat = malloc(n * D * sizeof *x_hat);
    if (j.x == NULL || j.label == NULL || j.state == NULL || x_hat == NULL) {
        TRY(vae_fail_memory(err, 3 * n * D * sizeof *x_hat, "completions"));
    }
    TRY(run(&j, x_hat, err));
    TRY(draw(&j, out, err));
    print_result(&j, args, out);
done:
    free(x_hat);
    free(j.state);
    free(j.label);
    free(j.x);
    free(j.observed);
    free(j.rows);
    vae_trained_close(&m);
    return status;
}

static const cli_option complete_options[] = {
    CLI_DATA_OPTIONS,
    {"mask", 'm', "left|right|top|bottom|FILE",
     "the missing half; or a picture, black where missing, or .npy of D zeros (missing) and ones"},
    {"rows", 0, "I,J,...", "which rows of the data, from 0; default: the first 8"},
    {"n", 'n', "N", "completions of each row [8]"},
    {"rounds", 0, "N", "pseudo-Gibbs rounds of encoding and decoding [50]"},
    {"class", 0, "NAME", "of a model with classes: fill in as this class; default: the row's own"},
    {"seed", 's', "N", "of the noise [1]"},
    {"out", 'o', "FILE", "the picture [completions.png]"},
    CLI_MODEL_OPTIONS,
};

const cli_command cli_complete_command = {
    .name = "complete",
    .words = "RUN",
    .n_words = 1,
    .help = "Fills in what a mask leaves out: a grid of completions.",
    .examples = "  vae complete runs/mnist --data data/mnist --mask left --out picture.png\n"
                "  vae complete runs/cvae --mask mask.npy --class 3 -n 10\n",
    CLI_OPTIONS(complete_options),
    .run = run_complete,
};
