/* Times each operation of the training step by itself, through the backend table, beside what its
 * bytes and FLOPs allow at the ceilings measured in the same run.
 *
 *   bench_ops [--device cpu|cuda] [--precision P] [--hidden 400] [--latent 20] [--batch-size 65536]
 *             [--conv 32,64,128,256 [--side 64]] [--repeats 5] [--seconds 0.1] [--ceiling 8192]
 *             [--only TEXT] [--json F]
 *
 * Rows are of 784 values, or with --conv pictures of side x side x 3; --only: operations whose
 * names hold TEXT. Ceilings: bytes by Adam over ceiling^2 floats (16 bytes read and 12 written each,
 * far beyond any cache), FLOPs on the CPU by its multiply-add peak (peak.h), on a GPU by one
 * ceiling^3 product. Bytes of an operation are counted as in roofline.py: every operand read once,
 * every result written once. FLOPs of a convolution are those of its plain sums, of which the CPU
 * needs 9/16. An operation's inputs are those that the one before left, so small batches are timed
 * from the cache. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "backend/open.h"
#include "base/version.h"
#include "dataset/dataset.h"
#include "model/model.h"
#include "peak.h"

enum { MAX_OPS = 64, MAX_REPEATS = 99, CLASSES = 10 };

typedef struct ops_bench ops_bench;

/* One timed operation: fn runs it once inside backend->run(). */
typedef struct {
    char name[48];
    double bytes, flops;
    vae_step_fn *fn;
    ops_bench *bench;
    size_t layer;
} timed_op;

struct ops_bench {
    vae_backend *be;
    vae_config config;
    param_layout layout;
    size_t B, act;
    float *params, *grads, *m, *v, *recon_row, *kl_row;
    vae_totals *totals;
    vae_data *data;
    vae_mat x, z, dz, y[VAE_MAX_LAYER_ROWS], dy[VAE_MAX_LAYER_ROWS];
    void *aux[VAE_MAX_LAYER_ROWS];
    void *scratch; /* of convolutions */
    /* rows for every class */
    vae_mat yc;
    void *auxc;
    uint32_t *label;
    vae_class_rows of;
    timed_op ops[MAX_OPS];
    size_t n_ops, n_step; /* the first n_step make the plain step */
};

static double seconds_now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

static void check(vae_backend *be)
{
    vae_error err = {0};
    if (be->ops->sync(be, &err) != VAE_OK) {
        fprintf(stderr, "bench_ops: %s\n", err.text);
        exit(err.status);
    }
}

static vae_mat input_of(const ops_bench *b, size_t l)
{
    return l == 0 ? b->x : l == b->layout.n_encoder ? b->z : b->y[l - 1];
}

static const tensor_desc *weight_of(const ops_bench *b, size_t l)
{
    return &b->layout.tensors[b->layout.layers[l].weight];
}

static size_t bias_of(const ops_bench *b, size_t l)
{
    return b->layout.tensors[b->layout.layers[l].bias].offset;
}

/* The gradient of layer l's bias, where what makes the layer's gradient sums its columns, too: as
 * in a step (model/layers.c), not where convolutions are on either side. */
static float *bias_early(const ops_bench *b, size_t l)
{
    const layer_desc *y = b->layout.layers;
    const bool conv =
        y[l].is_conv || (l + 1 < b->layout.n_encoder + b->layout.n_decoder && y[l + 1].is_conv);
    return conv || b->be->ops->bias_with_weight(b->be, b->B) ? NULL : b->grads + bias_of(b, l);
}

/* ---- the operations, as model.c calls them ---- */

static void do_gather(void *ctx)
{
    ops_bench *b = ((timed_op *)ctx)->bench;
    b->be->ops->gather(b->be, b->x, b->data, b->B, b->layout.d, b->config.binarize, 1);
}

static void do_forward(void *ctx)
{
    const timed_op *op = ctx;
    ops_bench *b = op->bench;
    const layer_desc *y = &b->layout.layers[op->layer];
    const tensor_desc *w = weight_of(b, op->layer);
    if (y->is_conv) {
        b->be->ops->conv_forward(b->be, b->y[op->layer], b->aux[op->layer], input_of(b, op->layer),
                                 b->params + w->offset, w->ld, b->params + bias_of(b, op->layer),
                                 b->B, y->conv, y->act, b->scratch);
        return;
    }
    b->be->ops->linear_forward(b->be, b->y[op->layer], b->aux[op->layer], input_of(b, op->layer),
                               b->params + w->offset, w->ld, b->params + bias_of(b, op->layer),
                               b->B, y->in, y->out, y->act);
}

static void do_backward_weight(void *ctx)
{
    const timed_op *op = ctx;
    ops_bench *b = op->bench;
    const layer_desc *y = &b->layout.layers[op->layer];
    const tensor_desc *w = weight_of(b, op->layer);
    const bool head = op->layer == b->layout.n_encoder - 1;
    if (y->is_conv) {
        b->be->ops->conv_backward_weight(b->be, b->grads + w->offset, w->ld,
                                         b->grads + bias_of(b, op->layer), b->dy[op->layer],
                                         input_of(b, op->layer), b->B, y->conv, b->scratch);
        return;
    }
    float *db = head || bias_early(b, op->layer) == NULL ? b->grads + bias_of(b, op->layer) : NULL;
    b->be->ops->linear_backward_weight(b->be, b->grads + w->offset, w->ld, db, b->dy[op->layer],
                                       input_of(b, op->layer), b->B, y->in, y->out);
}

static void do_backward_input(void *ctx)
{
    const timed_op *op = ctx;
    ops_bench *b = op->bench;
    const layer_desc *y = &b->layout.layers[op->layer];
    const tensor_desc *w = weight_of(b, op->layer);
    const bool to_z = op->layer == b->layout.n_encoder;
    if (y->is_conv) { /* never the decoder's first */
        b->be->ops->conv_backward_input(b->be, b->dy[op->layer - 1], b->dy[op->layer],
                                        b->params + w->offset, w->ld, input_of(b, op->layer),
                                        b->aux[op->layer - 1], b->B, y->conv,
                                        b->layout.layers[op->layer - 1].act, b->scratch);
        return;
    }
    float *db = to_z ? NULL : bias_early(b, op->layer - 1);
    b->be->ops->linear_backward_input(
        b->be, to_z ? b->dz : b->dy[op->layer - 1], db, b->dy[op->layer], b->params + w->offset,
        w->ld, input_of(b, op->layer), to_z ? NULL : b->aux[op->layer - 1], b->B, y->in, y->out,
        to_z ? VAE_ACT_NONE : b->layout.layers[op->layer - 1].act);
}

static void do_latent_forward(void *ctx)
{
    ops_bench *b = ((timed_op *)ctx)->bench;
    b->be->ops->latent_forward(b->be, b->z, b->kl_row, NULL, b->y[b->layout.n_encoder - 1], b->B, 1,
                               b->layout.z, (vae_noise){1});
}

static void do_latent_backward(void *ctx)
{
    ops_bench *b = ((timed_op *)ctx)->bench;
    const size_t head = b->layout.n_encoder - 1;
    b->be->ops->latent_backward(b->be, b->dy[head], b->dz, b->y[head], NULL, NULL, b->B, 1,
                                b->layout.z, (vae_latent_grad){VAE_OBJ_ELBO, 1.0f, 0.0f},
                                (vae_noise){1});
}

static void do_loss(void *ctx)
{
    ops_bench *b = ((timed_op *)ctx)->bench;
    const size_t last = b->layout.n_encoder + b->layout.n_decoder - 1;
    float *db = bias_early(b, last);
    b->be->ops->recon_loss(
        b->be, b->recon_row, b->dy[last], db, b->y[last], b->x, b->B, 1, b->layout.d,
        (vae_recon){.likelihood = b->config.likelihood, .variance = 1}, 1.0f / (float)b->B);
}

/* The last layer and its loss, as a step has them. */
static void do_output(void *ctx)
{
    ops_bench *b = ((timed_op *)ctx)->bench;
    const size_t last = b->layout.n_encoder + b->layout.n_decoder - 1;
    const tensor_desc *w = weight_of(b, last);
    float *db = bias_early(b, last);
    b->be->ops->linear_recon_loss(
        b->be, b->recon_row, b->dy[last], db, input_of(b, last), b->params + w->offset, w->ld,
        b->params + bias_of(b, last), b->x, b->B, 1, b->layout.layers[last].in, b->layout.d,
        (vae_recon){.likelihood = b->config.likelihood, .variance = 1}, 1.0f / (float)b->B);
}

static void do_accumulate(void *ctx)
{
    ops_bench *b = ((timed_op *)ctx)->bench;
    b->be->ops->accumulate(b->be, b->totals, b->recon_row, b->kl_row, NULL, NULL, b->B, 1,
                           b->layout.z, 0.0f);
}

static void do_grad_norm(void *ctx)
{
    ops_bench *b = ((timed_op *)ctx)->bench;
    b->be->ops->grad_norm(b->be, b->totals, b->grads, b->layout.total);
}

static void do_adam(void *ctx)
{
    ops_bench *b = ((timed_op *)ctx)->bench;
    vae_adam adam = vae_adam_of(0.9, 0.999, 1e-8);
    b->be->ops->adam(b->be, b->params, b->grads, b->m, b->v, b->layout.total, b->totals, adam, 0);
}

/* On rows for every class: what a semi-supervised model's first layer does besides its product. The
 * layer's first columns stand in for those of the classes. */
static void do_class_forward(void *ctx)
{
    ops_bench *b = ((timed_op *)ctx)->bench;
    const layer_desc *first = &b->layout.layers[0];
    b->be->ops->class_forward(b->be, b->yc, b->auxc, b->label, b->dy[0],
                              b->params + weight_of(b, 0)->offset, weight_of(b, 0)->ld, b->of,
                              first->out, first->act);
}

static void do_class_sums(void *ctx)
{
    ops_bench *b = ((timed_op *)ctx)->bench;
    b->be->ops->class_sums(b->be, b->dy[0], b->yc, b->of, b->layout.layers[0].out);
}

static void do_class_backward_weight(void *ctx)
{
    ops_bench *b = ((timed_op *)ctx)->bench;
    b->be->ops->class_backward_weight(b->be, b->grads + weight_of(b, 0)->offset,
                                      weight_of(b, 0)->ld, b->yc, b->of, b->layout.layers[0].out);
}

/* ---- setting up ---- */

/* Values of a layer's weight, and multiplications of an example. */
static double weight_values(const layer_desc *y)
{
    return y->is_conv ? (double)(y->conv.c * vae_conv_patch(y->conv)) : (double)(y->in * y->out);
}

static double multiplications(const layer_desc *y)
{
    return weight_values(y) * (y->is_conv ? (double)(y->conv.h * y->conv.w) : 1.0);
}

static void add(ops_bench *b, const char *name, const char *what, vae_step_fn *fn, size_t layer,
                double bytes, double flops)
{
    if (b->n_ops == MAX_OPS) {
        return;
    }
    timed_op *op = &b->ops[b->n_ops++];
    *op = (timed_op){.bytes = bytes, .flops = flops, .fn = fn, .bench = b, .layer = layer};
    snprintf(op->name, sizeof op->name, "%s%s", name, what);
}

/* In the step's order, so that every operation finds what the one before left. */
static void list_ops(ops_bench *b)
{
    const param_layout *l = &b->layout;
    const double B = (double)b->B, a = (double)b->act, D = (double)l->d, Z = (double)l->z;
    const size_t layers = l->n_encoder + l->n_decoder;
    add(b, "gather", "", do_gather, 0, B * D + B * D * a, 0);
    for (size_t i = 0; i < layers; i++) {
        const double in = (double)l->layers[i].in, out = (double)l->layers[i].out;
        const double w = weight_values(&l->layers[i]), n = multiplications(&l->layers[i]);
        if (i == l->n_encoder) {
            add(b, "latent forward", "", do_latent_forward, i, 3 * B * Z * a + 4 * B, 0);
        }
        char name[VAE_TENSOR_NAME];
        snprintf(name, sizeof name, "%.*s",
                 (int)(strrchr(weight_of(b, i)->name, '.') - weight_of(b, i)->name),
                 weight_of(b, i)->name);
        add(b, name, " forward", do_forward, i, (B * in + w + B * out) * a, 2 * B * n);
    }
    add(b, "loss", "", do_loss, 0, 3 * B * D * a + 4 * B, 0);
    const double last_in = (double)l->layers[layers - 1].in;
    if (!l->layers[layers - 1].is_conv) {
        add(b, "last layer and loss", "", do_output, 0,
            (B * last_in + last_in * D + 2 * B * D) * a + 4 * B, 2 * B * last_in * D);
    }
    add(b, "totals", "", do_accumulate, 0, 8 * B, 0);
    for (size_t i = layers; i-- > 0;) {
        const double in = (double)l->layers[i].in, out = (double)l->layers[i].out;
        const double w = weight_values(&l->layers[i]), n = multiplications(&l->layers[i]);
        char name[VAE_TENSOR_NAME];
        snprintf(name, sizeof name, "%.*s",
                 (int)(strrchr(weight_of(b, i)->name, '.') - weight_of(b, i)->name),
                 weight_of(b, i)->name);
        add(b, name, " weight gradient", do_backward_weight, i, B * (in + out) * a + 4 * w,
            2 * B * n);
        if (i > 0) {
            add(b, name, " input gradient", do_backward_input, i, (B * out + w + B * in) * a,
                2 * B * n);
        }
        if (i == l->n_encoder) {
            add(b, "latent backward", "", do_latent_backward, i, 5 * B * Z * a, 0);
        }
    }
    add(b, "gradient norm", "", do_grad_norm, 0, 4.0 * (double)l->total, 0);
    add(b, "adam", "", do_adam, 0,
        (28.0 + (b->config.precision == VAE_BF16 ? 2.0 : 0.0)) * (double)l->total, 0);
    b->n_step = b->n_ops;
    if (l->layers[0].is_conv) {
        return; /* classes join at the first linear layer */
    }
    const double rows = B * CLASSES * (double)l->layers[0].out * a,
                 h = B * (double)l->layers[0].out * a;
    add(b, "class forward", "", do_class_forward, 0, h + rows, 0);
    add(b, "class sums", "", do_class_sums, 0, rows + h, 0);
    add(b, "class weight gradient", "", do_class_backward_weight, 0, rows, 0);
}

static vae_mat new_mat(ops_bench *b, size_t rows, size_t cols)
{
    vae_mat m = {b->be->ops->alloc(b->be, rows * vae_pad(cols) * b->act, "an operand"),
                 vae_pad(cols)};
    return m;
}

static float *new_floats(ops_bench *b, size_t n)
{
    return b->be->ops->alloc(b->be, n * sizeof(float), "an operand");
}

static void open_operands(ops_bench *b)
{
    const param_layout *l = &b->layout;
    const size_t layers = l->n_encoder + l->n_decoder;
    size_t scratch = 0;
    float *flat = malloc(l->total * sizeof *flat);
    if (flat == NULL) {
        exit(1);
    }
    b->act = b->be->ops->act_size(b->be);
    b->params = new_floats(b, l->total);
    b->grads = new_floats(b, l->total);
    b->m = new_floats(b, l->total);
    b->v = new_floats(b, l->total);
    b->recon_row = new_floats(b, b->B);
    b->kl_row = new_floats(b, b->B);
    b->totals = b->be->ops->alloc(b->be, sizeof *b->totals, "totals");
    b->x = new_mat(b, b->B, l->d);
    b->z = new_mat(b, b->B, l->z);
    b->dz = new_mat(b, b->B, l->z);
    for (size_t i = 0; i < layers; i++) {
        b->y[i] = new_mat(b, b->B, l->layers[i].out);
        b->dy[i] = new_mat(b, b->B, l->layers[i].out);
        size_t aux = b->be->ops->aux_bytes(b->be, l->layers[i].act, b->B, l->layers[i].out);
        b->aux[i] = aux > 0 ? b->be->ops->alloc(b->be, aux, "an operand") : NULL;
        const size_t room =
            l->layers[i].is_conv ? b->be->ops->conv_bytes(b->be, l->layers[i].conv, b->B) : 0;
        scratch = room > scratch ? room : scratch;
    }
    b->scratch = scratch > 0 ? b->be->ops->alloc(b->be, scratch, "scratch") : NULL;
    const size_t H = l->layers[0].out, rows = b->B * CLASSES;
    const size_t aux = b->be->ops->aux_bytes(b->be, l->layers[0].act, rows, H);
    b->yc = new_mat(b, rows, H);
    b->auxc = aux > 0 ? b->be->ops->alloc(b->be, aux, "an operand") : NULL;
    b->label = b->be->ops->alloc(b->be, rows * sizeof *b->label, "classes");
    b->of = (vae_class_rows){.label = b->label, .n_open = b->B, .C = CLASSES, .all_open = b->B};
    vae_layout_init(l, flat, VAE_INIT_TORCH, 1);
    b->be->ops->upload(b->be, b->params, flat, l->total * sizeof *flat);
    b->be->ops->bind_params(b->be, b->params, l->total);
    free(flat);
    check(b->be);
}

/* ---- timing ---- */

static int compare(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

/* Median seconds of one run of op, in slot 0; spread[0..1] get minimum and maximum. */
static double time_op(vae_backend *be, timed_op *op, vae_data *data, size_t rows, double seconds,
                      int repeats, double spread[2])
{
    static vae_plan plan[1024]; /* zeros: lr 0 leaves the parameters alone */
    double times[MAX_REPEATS];
    size_t n = 1;
    for (;; n = 2 * n > 1024 ? 1024 : 2 * n) {
        double t = seconds_now();
        be->ops->plan(be, plan, n, rows, data);
        be->ops->run(be, 0, n, op->fn, op);
        check(be);
        if (n == 1024 || (n > 1 && seconds_now() - t > seconds)) {
            break;
        }
        if (seconds_now() - t > 4 * seconds) {
            break;
        }
    }
    for (int r = 0; r < repeats; r++) {
        double t = seconds_now();
        be->ops->plan(be, plan, n, rows, data);
        be->ops->run(be, 0, n, op->fn, op);
        check(be);
        times[r] = (seconds_now() - t) / (double)n;
    }
    be->ops->forget(be, 0);
    qsort(times, (size_t)repeats, sizeof times[0], compare);
    spread[0] = times[0];
    spread[1] = times[repeats - 1];
    return times[repeats / 2];
}

typedef struct {
    const char *json, *only;
    size_t ceiling, side;
    double seconds;
    int repeats;
    vae_config config;
} options;

static void open_bench(ops_bench *b, const options *o, const vae_config *config, size_t B,
                       vae_backend *be, row_shape shape)
{
    vae_error err = {0};
    *b = (ops_bench){.be = be, .config = *config, .B = B};
    (void)o;
    if (vae_layout_build(&b->layout, config, shape, &err) != VAE_OK) {
        fprintf(stderr, "bench_ops: %s\n", err.text);
        exit(err.status);
    }
    open_operands(b);
}

static void close_bench(ops_bench *b)
{
    const vae_backend_ops *ops = b->be->ops;
    void *const memory[] = {b->params,  b->grads,  b->m,      b->v,      b->recon_row,
                            b->kl_row,  b->totals, b->x.data, b->z.data, b->dz.data,
                            b->yc.data, b->auxc,   b->label,  b->scratch};
    for (size_t i = 0; i < sizeof memory / sizeof *memory; i++) {
        ops->free(b->be, memory[i]);
    }
    for (size_t i = 0; i < b->layout.n_encoder + b->layout.n_decoder; i++) {
        ops->free(b->be, b->y[i].data);
        ops->free(b->be, b->dy[i].data);
        ops->free(b->be, b->aux[i]);
    }
    vae_layout_clear(&b->layout);
}

/* The two rates of this device: bytes by Adam, FLOPs by a square product. The model that serves
 * both has one layer of ceiling x ceiling each way. */
static void measure_ceilings(const options *o, vae_backend *be, double *bytes_rate,
                             double *flops_rate)
{
    ops_bench b;
    double spread[2];
    vae_config config = o->config;
    config.conv = (vae_sizes){0};
    config.hidden = (vae_sizes){1, {o->ceiling}};
    config.decoder_hidden = (vae_sizes){0};
    config.latent = 16;
    open_bench(&b, o, &config, o->ceiling, be, vae_flat(o->ceiling));
    const double n = (double)o->ceiling;
    timed_op product = {.fn = do_forward, .bench = &b, .layer = 0};
    timed_op adam = {.fn = do_adam, .bench = &b};
    float *x = malloc(o->ceiling * o->ceiling * sizeof *x);
    for (size_t i = 0; x != NULL && i < o->ceiling * o->ceiling; i++) {
        x[i] = (float)((i * 2654435761u) % 1000003) / 1000003.0f; /* zeros would run faster */
    }
    if (x != NULL) {
        be->ops->upload_mat(be, b.x, x, o->ceiling, o->ceiling);
    }
    free(x);
    vae_cpu_level level;
    vae_error err = {0};
    if (strcmp(be->ops->name, "cpu") != 0) {
        *flops_rate =
            2 * n * n * n / time_op(be, &product, NULL, o->ceiling, o->seconds, o->repeats, spread);
    } else if (vae_cpu_level_choose(&level, &err) != VAE_OK) {
        fprintf(stderr, "bench_ops: %s\n", err.text);
        exit(err.status);
    } else {
        *flops_rate =
            peak_flops(vae_threads(o->config.threads), level, o->config.precision == VAE_BF16);
    }
    *bytes_rate = (28.0 + (o->config.precision == VAE_BF16 ? 2.0 : 0.0)) * (double)b.layout.total /
                  time_op(be, &adam, NULL, o->ceiling, o->seconds, o->repeats, spread);
    close_bench(&b);
}

static void parse(options *o, int argc, char **argv)
{
    vae_error err = {0};
    for (int i = 1; i < argc; i += 2) {
        const char *name = argv[i] + (strncmp(argv[i], "--", 2) == 0 ? 2 : 0);
        const char *value = i + 1 < argc ? argv[i + 1] : "";
        if (strcmp(name, "json") == 0) {
            o->json = value;
        } else if (strcmp(name, "only") == 0) {
            o->only = value;
        } else if (strcmp(name, "repeats") == 0) {
            o->repeats = atoi(value);
        } else if (strcmp(name, "seconds") == 0) {
            o->seconds = atof(value);
        } else if (strcmp(name, "ceiling") == 0) {
            o->ceiling = (size_t)atol(value);
        } else if (strcmp(name, "side") == 0) {
            o->side = (size_t)atol(value);
        } else if (vae_config_set(&o->config, name, value, &err) != VAE_OK) {
            fprintf(stderr, "bench_ops: %s\n", err.text);
            exit(err.status);
        }
    }
    if (o->repeats < 1 || o->repeats > MAX_REPEATS || o->ceiling < 16) {
        fprintf(stderr, "bench_ops: --repeats wants 1 to %d, --ceiling 16 or more\n", MAX_REPEATS);
        exit(2);
    }
}

static void report_op(FILE *json, const timed_op *op, double t, const double spread[2],
                      double bytes_rate, double flops_rate)
{
    double bound = op->bytes / bytes_rate;
    bound = op->flops / flops_rate > bound ? op->flops / flops_rate : bound;
    printf("%-28s %10.3f %9.3f %10.2f %10.2f %6.1f%%\n", op->name, op->bytes / 1e6, op->flops / 1e9,
           1e6 * t, 1e6 * bound, 100 * bound / t);
    fprintf(json,
            "\"op\": \"%s\", \"bytes\": %.0f, \"flops\": %.0f, \"us\": {\"median\": %.3f, "
            "\"min\": %.3f, \"max\": %.3f}, \"us_bound\": %.3f}\n",
            op->name, op->bytes, op->flops, 1e6 * t, 1e6 * spread[0], 1e6 * spread[1], 1e6 * bound);
    fflush(json); /* a run may be cut off */
}

int main(int argc, char **argv)
{
    options o = {.only = "", .ceiling = 8192, .side = 64, .seconds = 0.1, .repeats = 5};
    vae_config_defaults(&o.config);
    o.config.device = VAE_DEVICE_CPU;
    o.config.batch_size = 65536;
    parse(&o, argc, argv);
    FILE *json = fopen(o.json != NULL ? o.json : "/dev/null", "a");
    vae_backend *be;
    vae_error err = {0};
    const vae_backend_options backend = {
        .device = o.config.device, .precision = o.config.precision, .threads = o.config.threads};
    if (json == NULL || vae_backend_open(&be, &backend, &err) != VAE_OK) {
        fprintf(stderr, "bench_ops: %s\n", json == NULL ? o.json : err.text);
        return json == NULL ? 4 : (int)err.status;
    }
    double bytes_rate, flops_rate;
    char text[512];
    measure_ceilings(&o, be, &bytes_rate, &flops_rate);
    be->ops->describe(be, text, sizeof text);
    printf(
        "%s\nceilings: %.1f GB/s by Adam over %zu^2 floats, %.4f TFLOP/s by a %zu^3 product, on a "
        "CPU by its multiply-add peak\n",
        text, bytes_rate / 1e9, o.ceiling, flops_rate / 1e12, o.ceiling);
    static ops_bench b;
    const bool pictures = o.config.conv.n > 0;
    const row_shape shape = pictures ? (row_shape){o.side, o.side, 3} : (row_shape){28, 28, 1};
    open_bench(&b, &o, &o.config, o.config.batch_size, be, shape);
    vae_dataset set = {
        .n = b.B, .d = b.layout.d, .height = shape.h, .width = shape.w, .channels = shape.c};
    uint8_t *rows = malloc(set.n * set.d);
    if (rows == NULL) {
        return 1;
    }
    for (size_t i = 0; i < set.n * set.d; i++) {
        rows[i] = (uint8_t)((i * 2654435761u) >> 24);
    }
    set.rows = rows;
    b.data = be->ops->data_open(be, &set, NULL, 0);
    list_ops(&b);
    printf("%-28s %10s %9s %10s %10s %7s\n", "operation", "MB", "GFLOP", "us", "us bound", "of it");
    static const char *const precisions[] = {"fp32", "tf32", "bf16"};
    double sum = 0;
    for (size_t i = 0; i < b.n_ops; i++) {
        double spread[2];
        if (strstr(b.ops[i].name, o.only) == NULL) {
            continue;
        }
        double t = time_op(be, &b.ops[i], b.data, b.B, o.seconds, o.repeats, spread);
        fprintf(json,
                "{\"schema\": 2, \"benchmark\": \"ops\", \"backend\": \"%.*s\", \"precision\": "
                "\"%s\", \"batch\": %zu, \"bytes_per_s\": %.4g, \"flops_per_s\": %.4g, "
                "\"commit\": \"%s\", \"repeats\": %d, ",
                (int)strcspn(text, "\"\\"), text, precisions[o.config.precision], b.B, bytes_rate,
                flops_rate, vae_build_git, o.repeats);
        report_op(json, &b.ops[i], t, spread, bytes_rate, flops_rate);
        sum += i < b.n_step ? t : 0;
    }
    printf("%-28s %10s %9s %10.2f\n", "sum of the plain step", "", "", 1e6 * sum);
    be->ops->data_close(be, b.data);
    close_bench(&b);
    be->ops->close(be);
    free(rows);
    return fclose(json) == 0 ? 0 : 4;
}
