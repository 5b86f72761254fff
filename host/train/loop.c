/* The training loop: steps, the end of an epoch, stop rules. */
#include "train/loop.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/text.h"
#include "infer/trained.h"
#include "philox.h"
#include "ranks/ranks.h"
#include "train/rows.h"
#include "train/schedule.h"

/* ---- before the first step ---- */

/* Room for a checkpoint's content, and all of it that does not change. */
static vae_status make_room(vae_loop *l, const vae_config *config, vae_error *err)
{
    const vae_dataset *set = l->train_set;
    vae_checkpoint *now = calloc(1, sizeof *now);
    if (now == NULL) {
        return vae_fail_memory(err, sizeof *now, "a checkpoint");
    }
    l->now = now;
    l->config = &now->config;
    now->config = *config;
    now->d = set->d;
    now->height = set->height;
    now->width = set->width;
    now->channels = set->channels;
    memcpy(now->data_sha256, set->sha256, sizeof now->data_sha256);
    now->state.best = INFINITY;
    return VAE_OK;
}

static vae_status make_room_for_parameters(vae_loop *l, vae_error *err)
{
    vae_checkpoint *now = l->now;
    now->n_params = vae_model_layout(l->model)->n_params;
    now->params = malloc(now->n_params * sizeof(float));
    now->adam_m = calloc(now->n_params, sizeof(float));
    now->adam_v = calloc(now->n_params, sizeof(float));
    now->data_mean = calloc(now->d, sizeof(float));
    l->plan = malloc(VAE_PACE_MOST * sizeof *l->plan);
    if (now->params == NULL || now->adam_m == NULL || now->adam_v == NULL ||
        now->data_mean == NULL || l->plan == NULL) {
        return vae_fail_memory(err, 3 * now->n_params * sizeof(float), "a checkpoint");
    }
    return VAE_OK;
}

/* Is there something for every rank, and have all the same data? */
static vae_status check_ranks(const vae_loop *l, vae_error *err)
{
    const size_t n = vae_ranks_n(l->ranks), batch = l->config->batch_size;
    const vae_dataset *sets[] = {l->train_set, l->test_set};
    vae_status status = VAE_OK;
    if (n > l->n_train) {
        TRY(vae_fail(err, VAE_ERR_USAGE, "%s: %zu row%s to train on are fewer than the %zu ranks",
                     l->train_set->source, l->n_train, vae_s(l->n_train), n));
    }
    if (n > batch) {
        TRY(vae_fail(
            err, VAE_ERR_USAGE,
            "--batch-size %zu, of which each of %zu ranks is to have a part: give at least "
            "%zu",
            batch, n, n));
    }
    for (size_t i = 0; i < 2 && sets[i] != NULL; i++) {
        char what[300];
        snprintf(what, sizeof what, "the data %.200s, by SHA-256", sets[i]->source);
        TRY(vae_ranks_same(l->ranks, sets[i]->sha256, sizeof sets[i]->sha256, what, err));
    }
done:
    return status;
}

static vae_status open_model(vae_loop *l, row_shape shape, vae_error *err)
{
    const vae_config *c = l->config;
    const size_t n_rows = l->n_train + l->n_labelled;
    /* with every row in place, no index is needed */
    const uint32_t *index = l->n_train == l->train_set->n ? NULL : l->rows;
    vae_status status = VAE_OK;
    TRY(vae_backend_for(&l->be, c, l->ranks, err));
    l->measure_batch = vae_measure_batch(c, l->n_train);
    TRY(vae_model_create(&l->model, c, shape, vae_ranks_most(l->ranks, l->measure_batch), true,
                         l->be, err));
    l->train = l->be->ops->data_open(l->be, l->train_set, index, n_rows);
    if (l->n_validation > 0) {
        l->validation =
            l->be->ops->data_open(l->be, l->train_set, l->rows + n_rows, l->n_validation);
    }
    if (l->test_set != NULL) {
        l->test = l->be->ops->data_open(l->be, l->test_set, NULL, l->test_set->n);
    }
    TRY(l->be->ops->sync(l->be, err));
done:
    return status;
}

/* What does not need a device: which rows do what, as the model takes them. */
static vae_status choose_data(vae_loop *l, const vae_config *config, const vae_checkpoint *from,
                              vae_error *err)
{
    vae_status status = VAE_OK;
    TRY(make_room(l, config, err));
    TRY(vae_loop_check_data(l, err));
    TRY(vae_loop_resolve_classes(l, from, err));
    TRY(vae_loop_choose_rows(l, err));
    TRY(vae_loop_choose_labelled(l, err));
    TRY(vae_loop_count_classes(l, err));
    TRY(vae_loop_standardize(l, from, err));
done:
    return status;
}

vae_status vae_loop_open(vae_loop *l, const vae_config *config, vae_dataset *train_set,
                         vae_dataset *test_set, const vae_checkpoint *from, const vae_ranks *ranks,
                         const vae_stop_flag *stop, const vae_notes *notes, vae_error *err)
{
    vae_status status = VAE_OK;
    *l = (vae_loop){
        .train_set = train_set, .test_set = test_set, .ranks = ranks, .stop = stop, .pace = {1}};
    l->notes = notes != NULL ? *notes : l->notes;
    vae_error own = {.notes = err != NULL ? err->notes : NULL};
    status = choose_data(l, config, from, &own);
    if (vae_ranks_all_ok(ranks, status, &own) != VAE_OK) {
        TRY(vae_fail(err, own.status, "%s", own.text));
    }
    TRY(check_ranks(l, err));

    /* rows without a shape may be those of the pictures that training goes on with */
    const row_shape shape = {train_set->height, train_set->width, train_set->channels};
    own = (vae_error){.notes = own.notes};
    status = open_model(l, from != NULL ? vae_checkpoint_shape(from) : shape, &own);
    status = status == VAE_OK ? make_room_for_parameters(l, &own) : status;
    if (vae_ranks_all_ok(ranks, status, &own) != VAE_OK) {
        TRY(vae_fail(err, own.status, "%s", own.text));
    }
    l->steps_per_epoch = (l->n_train + config->batch_size - 1) / config->batch_size;
done:
    if (status != VAE_OK) {
        vae_loop_close(l);
    }
    return status;
}

void vae_loop_close(vae_loop *l)
{
    if (l->be != NULL) {
        vae_model_free(l->model);
        l->be->ops->data_close(l->be, l->test);
        l->be->ops->data_close(l->be, l->validation);
        l->be->ops->data_close(l->be, l->train);
        l->be->ops->close(l->be);
    }
    vae_checkpoint_free(l->now);
    free(l->plan);
    free(l->rows);
    *l = (vae_loop){.now = NULL};
}

/* Sets the output layer's bias in packed parameters to give the mean of the data. */
static void set_output_bias(vae_loop *l)
{
    const param_layout *layout = vae_model_layout(l->model);
    const float *mean = l->now->data_mean;
    /* the decoder's last tensor is the output's bias: D values, then raw log variances if
     * learned */
    const size_t output = 2 * (layout->n_encoder + layout->n_decoder) - 1;
    float *bias = l->now->params;
    for (size_t i = 0; i < output; i++) {
        bias += layout->tensors[i].rows * layout->tensors[i].cols;
    }
    /* one for each value, or, of a convolution, one for each channel */
    const layer_desc *last = &layout->layers[layout->n_encoder + layout->n_decoder - 1];
    const size_t n = last->is_conv ? last->conv.C : layout->d;
    for (size_t j = 0; j < n; j++) {
        double sum = 0;
        for (size_t i = j; i < layout->d; i += n) {
            sum += (double)mean[i];
        }
        const float average = (float)(sum / (double)(layout->d / n));
        const float p = fminf(fmaxf(average, 0.001f), 0.999f);
        bias[j] = vae_mean_is_sigmoid(l->config->likelihood, l->config->mean) ? logf(p / (1 - p))
                                                                              : average;
    }
}

/* ---- the likelihood's variance, where it follows the error ---- */

enum { LEAST_VARIANCE_INVERSE = 1000000 }; /* bytes as value/255 are rounded by that much */

/* It is the mean squared error of the steps before: of an eighth of an epoch, and at first, when it
 * falls quickly, of 1, 1, 2, 4 ... steps. sigma-VAE takes it of the step itself, which makes the
 * same gradient up to the little that it moves meanwhile, but needs every error twice. On a GPU a
 * change costs the capturing of a step, which these few are worth. */
static size_t variance_steps_left(const vae_loop *l)
{
    const vae_train_state *s = &l->now->state;
    const size_t at = (size_t)s->position / l->config->batch_size;
    const size_t every = (l->steps_per_epoch + 7) / 8;
    size_t end = (at / every + 1) * every;
    for (size_t early = 1; s->epoch == 0 && early < every; early *= 2) {
        if (early > at) {
            end = early < end ? early : end;
        }
    }
    return end - at;
}

/* Called after steps. recon of a value is log(2 pi v) / 2 + (x - mean)^2 / (2 v), which gives the
 * mean squared error, the best v. */
static void find_variance(vae_loop *l, size_t left)
{
    vae_config *c = &l->now->config;
    vae_train_state *s = &l->now->state;
    if (left > 0 && s->position < l->n_train) {
        return; /* more steps with this variance are to come */
    }
    const double examples = s->examples - s->variance_examples;
    const double of_value = (s->recon - s->variance_recon) / examples / (double)l->now->d;
    const double error = c->variance * (2 * of_value - log(2 * M_PI * c->variance));
    c->variance = fmax(error, 1.0 / LEAST_VARIANCE_INVERSE);
    vae_model_set_variance(l->model, c->variance);
    s->variance_recon = s->recon;
    s->variance_examples = s->examples;
}

/* Parameters from the seed, and the data's mean. */
static vae_status initialize(vae_loop *l, vae_error *err)
{
    const param_layout *layout = vae_model_layout(l->model);
    vae_status status = VAE_OK;
    float *flat = calloc(layout->total, sizeof *flat);
    if (flat == NULL) {
        return vae_fail_memory(err, layout->total * sizeof *flat, "initial parameters");
    }
    vae_layout_init(layout, flat, l->config->init, l->config->seed);
    vae_layout_pack(layout, l->now->params, flat);
    for (size_t i = 0; i < l->now->n_params; i++) {
        l->now->adam_v[i] = (float)l->config->adam_v0;
    }
    TRY(vae_loop_data_mean(l, l->now->data_mean, err));
    if (l->config->output_bias_from_data) {
        set_output_bias(l);
    }
done:
    free(flat);
    return status;
}

static void take_up(vae_loop *l, const vae_checkpoint *from)
{
    vae_checkpoint *now = l->now;
    const vae_train_state *s = &from->state;
    const size_t floats = from->n_params * sizeof(float), epochs = l->config->epochs;
    memcpy(now->params, from->params, floats);
    memcpy(now->adam_m, from->adam_m, floats);
    memcpy(now->adam_v, from->adam_v, floats);
    if (from->data_mean != NULL) {
        memcpy(now->data_mean, from->data_mean, from->d * sizeof(float));
    }
    memcpy(now->summary, from->summary, sizeof from->summary);
    now->height = from->height; /* rows without a shape may be those of pictures */
    now->width = from->width;
    now->channels = from->channels;
    now->state = *s;
    now->config.variance = from->config.variance; /* the same, unless it is an optimal one */
    /* stopping early is for good unless more epochs are asked for than it had */
    const bool early = s->finished && s->epoch < from->config.epochs;
    const bool for_good = s->finished && epochs <= (early ? from->config.epochs : s->epoch);
    now->state.finished = for_good || (s->epoch >= epochs && s->position == 0);
}

bool vae_loop_fits(const vae_loop *l, const vae_train_state *s)
{
    const size_t batch = l->config->batch_size;
    const uint64_t in_epoch = (s->position + batch - 1) / batch;
    return s->position <= l->n_train && (s->position % batch == 0 || s->position == l->n_train) &&
           s->epoch <= UINT64_MAX / 2 / l->steps_per_epoch &&
           s->step == s->epoch * l->steps_per_epoch + in_epoch;
}

void vae_loop_describe(const vae_loop *l)
{
    char device[512], objective[32];
    vae_note(&l->notes, "%s: %zu row%s to train on, %zu to validate, %zu to test; %zu parameters",
             l->train_set->source, l->n_train, vae_s(l->n_train), l->n_validation,
             l->test_set != NULL ? l->test_set->n : 0, l->now->n_params);
    if (l->n_labelled > 0) {
        vae_note(&l->notes, "%zu more training row%s a label, %zu of them in every step",
                 l->n_labelled, l->n_labelled == 1 ? " has" : "s have",
                 vae_config_labelled_batch(l->config));
    }
    l->be->ops->describe(l->be, device, sizeof device);
    vae_note(&l->notes, "%s", device);
    if (l->config->objective != VAE_OBJ_ELBO) {
        vae_config_get(l->config, "objective", objective, sizeof objective);
        vae_note(&l->notes,
                 "maximized is the bound of --objective %s with %zu particle%s: `bound` below, "
                 "which validation and early stopping judge by",
                 objective, l->config->particles, vae_s(l->config->particles));
    }
    vae_schedule_notes(l->config, &l->notes);
}

/* Do ranks stand in the same place with the same parameters? What makes them differ is a fault of a
 * machine or of this program, and training on would hide it. */
static vae_status same_state(const vae_loop *l, vae_error *err)
{
    const vae_train_state *s = &l->now->state;
    const uint64_t place[] = {s->step, s->epoch, s->position, s->bad_epochs, l->now->n_params};
    vae_status status = VAE_OK;
    TRY(vae_ranks_same(l->ranks, place, sizeof place, "where training stands", err));
    TRY(vae_ranks_same(l->ranks, l->now->params, l->now->n_params * sizeof *l->now->params,
                       "the parameters", err));
done:
    return status;
}

vae_status vae_loop_begin(vae_loop *l, const vae_checkpoint *from, vae_error *err)
{
    vae_status status = VAE_OK;
    if (from != NULL && from->adam_m != NULL) {
        take_up(l, from);
    } else {
        TRY(initialize(l, err));
        if (from != NULL) {
            memcpy(l->now->params, from->params, l->now->n_params * sizeof *from->params);
            vae_note(&l->notes, "beginning with the weights of %s (SHA-256 %.16s...)",
                     l->config->init_from, l->config->init_weights);
        }
    }
    l->before = l->now->state;
    l->wall_before = l->now->state.wall_s;
    l->started = vae_clock();
    vae_model_set_variance(l->model, l->now->config.variance);
    TRY(vae_model_set(l->model, VAE_PARAMS, l->now->params, err));
    TRY(vae_model_set(l->model, VAE_ADAM_M, l->now->adam_m, err));
    TRY(vae_model_set(l->model, VAE_ADAM_V, l->now->adam_v, err));
    TRY(same_state(l, err));
done:
    return status;
}

/* ---- where it stands ---- */

double vae_loop_wall(const vae_loop *l)
{
    return l->wall_before + (vae_clock() - l->started);
}

static double seconds_left(const vae_loop *l)
{
    const vae_train_state *s = &l->now->state;
    double done = (double)s->epoch * (double)l->n_train + (double)s->position;
    double left = (double)l->config->epochs * (double)l->n_train - done;
    double seconds = vae_clock() - l->started;
    return l->examples > 0 && left > 0 ? left * seconds / l->examples : 0;
}

static double examples_per_s(const vae_loop *l)
{
    return l->epoch_seconds > 0 ? l->epoch_examples / l->epoch_seconds : 0;
}

vae_progress vae_loop_progress(const vae_loop *l)
{
    const vae_train_state *s = &l->now->state;
    return (vae_progress){
        .epoch = s->epoch + 1,
        .epochs = l->config->epochs,
        .position = s->position,
        .n = l->n_train,
        .elbo = -(s->recon + s->kl) / s->examples,
        .recon = s->recon / s->examples,
        .kl = s->kl / s->examples,
        .bound = -s->objective / s->examples,
        .bounded = l->config->objective != VAE_OBJ_ELBO,
        .examples_per_s = examples_per_s(l),
        .seconds_left = seconds_left(l),
    };
}

static vae_status diverged(const vae_loop *l, uint64_t step, const char *what, vae_error *err)
{
    return vae_fail(err, VAE_ERR_DIVERGED,
                    "%s, in step %" PRIu64 " of epoch %" PRIu64
                    "; try a lower --lr (now %g), --clip-norm 100%s",
                    what, step, l->now->state.epoch + 1, l->config->lr,
                    vae_likelihood_of(l->config->likelihood)->outputs == 2 ? ", or a fixed variance"
                                                                           : "");
}

static bool all_finite(const float *v, size_t n)
{
    float sum = 0; /* of zeros, unless there is a NaN or Inf among v */
    for (size_t i = 0; i < n; i++) {
        sum += v[i] * 0.0f;
    }
    return sum == 0;
}

vae_status vae_loop_capture(vae_loop *l, vae_error *err)
{
    vae_checkpoint *now = l->now;
    vae_status status = VAE_OK;
    now->state.wall_s = vae_loop_wall(l);
    TRY(vae_model_get(l->model, VAE_PARAMS, now->params, err));
    /* a finite loss may still have given an update that overflows */
    if (!all_finite(now->params, now->n_params)) {
        TRY(diverged(l, now->state.step, "a parameter became NaN or Inf", err));
    }
    TRY(vae_model_get(l->model, VAE_ADAM_M, now->adam_m, err));
    TRY(vae_model_get(l->model, VAE_ADAM_V, now->adam_v, err));
done:
    return status;
}

/* ---- an epoch ---- */

/* Runs as many steps of one size as the pace allows; totals and counters follow. */
static vae_status run_steps(vae_loop *l, vae_error *err)
{
    vae_train_state *s = &l->now->state;
    const size_t left = l->n_train - (size_t)s->position;
    const size_t rows = left < l->config->batch_size ? left : l->config->batch_size;
    const bool optimal = vae_likelihood_of(l->config->likelihood)->optimal;
    const size_t few = optimal ? variance_steps_left(l) : SIZE_MAX; /* with this variance */
    size_t n = left / rows < l->pace.n ? left / rows : l->pace.n;
    n = n < few ? n : few;
    for (size_t i = 0; i < n; i++) {
        vae_train_plan(&l->plan[i], l->config, s->step + 1 + i, s->epoch, s->position + i * rows,
                       l->steps_per_epoch);
        vae_loop_plan_labelled(l, &l->plan[i], rows);
    }
    vae_totals totals;
    vae_error inner = {0};
    const double start = vae_clock();
    vae_model_train(l->model, l->train, l->plan, n, rows);
    /* not cleared within an epoch: the sums are those of its steps in order, however they are
     * grouped */
    vae_status status = vae_model_totals(l->model, &totals, false, &inner);
    double seconds = vae_clock() - start;
    if (status == VAE_ERR_DIVERGED) {
        return diverged(l, totals.bad_step, "the loss or its gradient became NaN or Inf", err);
    }
    if (status != VAE_OK) {
        return vae_fail(err, status, "%s", inner.text);
    }
    status = vae_ranks_slowest(l->ranks, &seconds, err);
    if (status != VAE_OK) {
        return status;
    }
    if (rows == l->config->batch_size) {
        vae_pace_adapt(&l->pace, n, seconds);
    }
    s->step += n;
    s->position += n * rows;
    s->recon = l->before.recon + totals.recon;
    s->kl = l->before.kl + totals.kl;
    s->objective = l->before.objective + totals.objective;
    s->examples = l->before.examples + totals.examples;
    l->examples += (double)(n * rows);
    l->epoch_examples += (double)(n * rows);
    l->epoch_seconds += seconds;
    if (optimal) {
        find_variance(l, few - n);
    }
    return VAE_OK;
}

static vae_status measure(vae_loop *l, vae_measurement *out, vae_data *data, size_t n,
                          const char *what, vae_error *err)
{
    vae_error inner = {0};
    if (data == NULL) {
        return VAE_OK;
    }
    vae_status status = vae_measure(out, l->model, l->config, data, n, l->measure_batch,
                                    VAE_EVAL_DRAW(0), l->stop, &inner);
    if (status == VAE_ERR_DIVERGED) {
        char text[VAE_ERROR_TEXT];
        snprintf(text, sizeof text, "%s: %.800s", what, inner.text);
        return diverged(l, l->now->state.step, text, err);
    }
    return status == VAE_OK ? VAE_OK : vae_fail(err, status, "%s", inner.text);
}

/* The record of the epoch whose steps are all done. Changes no state: stopped in here, the epoch
 * stays open, to be closed when the loop goes on. */
static vae_status measure_epoch(vae_loop *l, vae_epoch_record *r, vae_error *err)
{
    const vae_train_state *s = &l->now->state;
    vae_totals ignored;
    vae_status status = VAE_OK;
    *r = (vae_epoch_record){
        .epoch = s->epoch + 1,
        .epochs = l->config->epochs,
        .step = s->step,
        .train = {.elbo = -(s->recon + s->kl) / s->examples,
                  .recon = s->recon / s->examples,
                  .kl = s->kl / s->examples,
                  .bound = s->objective / s->examples,
                  .n = l->n_train},
        .lr = vae_learning_rate(l->config, s->step, s->epoch, l->steps_per_epoch),
        .beta = vae_kl_weight(l->config, s->step, l->steps_per_epoch),
        .bounded = l->config->objective != VAE_OBJ_ELBO,
        .examples_per_s = examples_per_s(l),
    };
    if (!r->bounded) {
        r->train.bound = -r->train.elbo; /* without beta and free bits, as the others */
    }
    TRY(vae_model_totals(l->model, &ignored, true, err));
    TRY(measure(l, &r->validation, l->validation, l->n_validation, "validation", err));
    TRY(measure(l, &r->test, l->test, l->test_set != NULL ? l->test_set->n : 0, "test", err));
done:
    return status;
}

/* The epoch is over: best and stop rules. */
static void close_epoch(vae_loop *l, vae_epoch_record *r)
{
    vae_train_state *s = &l->now->state;
    s->epoch++;
    s->position = 0;
    s->recon = s->kl = s->objective = s->examples = 0;
    s->variance_recon = s->variance_examples = 0;
    l->before = (vae_train_state){0};
    l->epoch_examples = l->epoch_seconds = 0;
    if (l->validation != NULL) {
        r->best = r->validation.bound < s->best;
        s->best = r->best ? r->validation.bound : s->best;
        s->best_epoch = r->best ? s->epoch : s->best_epoch;
        s->bad_epochs = r->best ? 0 : s->bad_epochs + 1;
    }
    s->finished = s->epoch >= l->config->epochs;
    if (l->config->patience > 0 && s->bad_epochs >= l->config->patience && !s->finished) {
        s->finished = true;
        vae_note(&l->notes,
                 "stopped early: no better validation %s in %" PRIu64
                 " epoch%s; the best, %.3f, was after epoch %" PRIu64,
                 r->bounded ? "bound" : "elbo", s->bad_epochs, vae_s(s->bad_epochs), -s->best,
                 s->best_epoch);
    }
    s->wall_s = vae_loop_wall(l);
    r->wall_s = s->wall_s;
    r->seconds_left = seconds_left(l);
}

/* What ranks tell each other before they go on: does any of them have a signal to stop; has whoever
 * drives one given up, and why? */
static vae_status agree_to_go_on(const vae_loop *l, bool *stopping, vae_error *err)
{
    uint64_t v[] = {vae_stopping(l->stop), VAE_OK};
    vae_status status = VAE_OK;
    TRY(vae_ranks_largest(l->ranks, v, 2, err));
    *stopping = v[0] != 0;
    if (v[1] != VAE_OK) {
        TRY(vae_fail(err, (vae_status)v[1], "another rank gave up"));
    }
done:
    return status;
}

void vae_loop_give_up(vae_loop *l, vae_status status)
{
    uint64_t v[] = {0, (uint64_t)status};
    vae_error ignored = {0};       /* this one fails as it is */
    if (!l->now->state.finished) { /* else the others are done */
        vae_ranks_largest(l->ranks, v, 2, &ignored);
    }
}

vae_status vae_loop_next(vae_loop *l, vae_loop_event *event, vae_error *err)
{
    vae_epoch_record record;
    vae_error inner = {0};
    if (l->now->state.finished) {
        *event = VAE_LOOP_DONE;
        return VAE_OK;
    }
    bool stopping;
    vae_status status = agree_to_go_on(l, &stopping, err);
    if (status != VAE_OK) {
        return status;
    }
    if (stopping) {
        *event = VAE_LOOP_STOPPED;
        return VAE_OK;
    }
    if (l->now->state.position < l->n_train) {
        *event = VAE_LOOP_STEPS;
        return run_steps(l, err);
    }
    status = measure_epoch(l, &record, &inner);
    if (status == VAE_ERR_INTERRUPTED) {
        *event = VAE_LOOP_STOPPED;
        return VAE_OK;
    }
    if (status != VAE_OK) {
        return vae_fail(err, status, "%s", inner.text);
    }
    if (l->ranks != NULL) {
        TRY(vae_model_get(l->model, VAE_PARAMS, l->now->params, err));
        TRY(same_state(l, err));
    }
    *event = VAE_LOOP_EPOCH;
    close_epoch(l, &record);
    l->last = record;
done:
    return status;
}
