/* Times the training step of a model on a backend, beside the time of the step's matrix products
 * alone, in one run and interleaved, so that the ratios hold on a noisy machine.
 *
 *   bench_step [--device cpu|cuda] [--precision P] [--hidden 400] [--latent 20]
 *              [--batches 20,128,1024,8192] [--repeats 9] [--seconds 0.5] [--threads N] [--json F]
 *              [--data digits] [--warm-up 2000] [--warm-up-seconds 20] [--note TEXT]
 *              [--conv 32,64,128,256 [--rows 60000]]      on a GPU only
 *   bench_step --dump FILE [--data digits]     the rows as bytes, for the peers
 *
 * For each batch: `step` is the whole step (gather, noise, forward, loss, backward, Adam); `matmul`
 * the same products by the backend's own routine; `openblas` the same of floats by plain
 * cblas_sgemm with OpenBLAS' own threads; `peak` what as many threads multiply and add at most
 * (peak.h), by itself and in the millisecond after the products. Medians over repeats, with minimum
 * and maximum; the step's in the state of a training that has gone on for --warm-up steps (or
 * seconds), beside that with fresh weights. --json appends a line of JSON for each batch as soon as
 * it is measured. */
#include <cblas.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/uio.h>
#include <sys/utsname.h>
#include <time.h>
#include <unistd.h>

#include "backend/cpu/kernels.h"
#include "backend/cpu/matmul.h"
#include "base/file.h"
#include "base/machine.h"
#include "base/pool.h"
#include "base/version.h"
#include "peak.h"
#include "train/run.h"
#include "train/step_timer.h"

enum { MAX_BATCHES = 16 };

static double seconds_now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

typedef struct {
    vae_step_timer *timer;
    const param_layout *layout;
    vae_backend *be;
    size_t batch;
    int threads;
    vae_cpu_level level;
    float *w, *a, *b; /* operands of the products: weights, activations, gradients; in bf16 two
                       * in a float's place, rows as far apart in values */
    bool bf16;
    void *room; /* what products need */
} bench;

static void die(const vae_error *err)
{
    fprintf(stderr, "bench_step: %s\n", err->text);
    exit(err->status);
}

typedef void product(matmul_form form, float *c, size_t ldc, const float *a, size_t lda,
                     const float *b, size_t ldb, size_t m, size_t n, size_t k, const bench *x);

typedef struct {
    const bench *x;
    uint16_t *c;
    size_t ldc;
} bf16_result;

static void put_bf16(void *ctx, float *c, size_t ldc, size_t row0, size_t col0, size_t rows,
                     size_t cols)
{
    const bf16_result *to = ctx;
    for (size_t r = 0; r < rows; r++) {
        vae_cpu_kernels(to->x->level)
            ->narrow(to->c + (row0 + r) * to->ldc + col0, c + r * ldc, cols);
    }
}

static void by_backend(matmul_form form, float *c, size_t ldc, const float *a, size_t lda,
                       const float *b, size_t ldb, size_t m, size_t n, size_t k, const bench *x)
{
    if (x->bf16) {
        const matmul_bf16 left = {(const void *)a, lda}, right = {(const void *)b, ldb};
        bf16_result to = {x, (void *)c, ldc};
        if (form == MATMUL_TN) {
            vae_cpu_matmul_bf16_tn(c, ldc, NULL, left, right, m, n, k, x->threads, x->level,
                                   x->room);
        } else {
            vae_cpu_matmul_bf16(form, left, right, m, n, k, false, put_bf16, &to, x->threads,
                                x->level, x->room);
        }
        return;
    }
    vae_cpu_matmul(form, c, ldc, a, lda, b, ldb, m, n, k, NULL, NULL, x->threads, x->level,
                   x->room);
}

static void by_openblas(matmul_form form, float *c, size_t ldc, const float *a, size_t lda,
                        const float *b, size_t ldb, size_t m, size_t n, size_t k, const bench *x)
{
    (void)x; /* OpenBLAS' own threads */
    cblas_sgemm(CblasRowMajor, form == MATMUL_TN ? CblasTrans : CblasNoTrans,
                form == MATMUL_NT ? CblasTrans : CblasNoTrans, (int)m, (int)n, (int)k, 1.0f, a,
                (int)lda, b, (int)ldb, 0.0f, c, (int)ldc);
}

/* All products of one step, in its order, each on memory of its own shape. */
static void run_products(bench *x, size_t n, product *mul)
{
    const param_layout *l = x->layout;
    const size_t layers = l->n_encoder + l->n_decoder, B = x->batch;
    for (size_t rep = 0; rep < n; rep++) {
        float *a = x->a;
        for (size_t i = 0; i < layers; i++) {
            const layer_desc *y = &l->layers[i];
            float *out = a + B * vae_pad(y->in);
            mul(MATMUL_NT, out, vae_pad(y->out), a, vae_pad(y->in),
                x->w + l->tensors[y->weight].offset, vae_pad(y->in), B, y->out, y->in, x);
            a = out;
        }
        for (size_t i = layers; i-- > 0;) {
            const layer_desc *y = &l->layers[i];
            a -= B * vae_pad(y->in);
            const float *dy = a + B * vae_pad(y->in);
            mul(MATMUL_TN, x->b + l->tensors[y->weight].offset, vae_pad(y->in), dy, vae_pad(y->out),
                a, vae_pad(y->in), y->out, y->in, B, x);
            if (i > 0) {
                float *dx = x->b + l->total;
                mul(MATMUL_NN, dx, vae_pad(y->in), dy, vae_pad(y->out),
                    x->w + l->tensors[y->weight].offset, vae_pad(y->in), B, y->in, y->out, x);
            }
        }
    }
}

static double timed_steps(bench *x, size_t n)
{
    vae_error err = {0};
    double seconds;
    if (vae_step_timer_run(x->timer, n, &seconds, &err) != VAE_OK) {
        die(&err);
    }
    return seconds;
}
static double timed_products(bench *x, size_t n, product *mul)
{
    double begin = seconds_now();
    run_products(x, n, mul);
    return seconds_now() - begin;
}
static double backend_products(bench *x, size_t n)
{
    return timed_products(x, n, by_backend);
}
static double openblas_products(bench *x, size_t n)
{
    return timed_products(x, n, by_openblas);
}

/* How many runs fill `seconds`, after a warm-up. */
static size_t calibrate(bench *x, double (*work)(bench *, size_t), double seconds)
{
    work(x, 2);
    for (size_t n = 1;; n *= 2) {
        double t = work(x, n);
        if (t > seconds / 8) {
            double fill = (double)n * seconds / t;
            return fill > 1 ? (size_t)fill : 1;
        }
    }
}

static void open_operands(bench *x)
{
    const param_layout *l = x->layout;
    size_t floats = vae_pad(l->d), most = 0;
    for (size_t i = 0; i < l->n_encoder + l->n_decoder; i++) {
        floats += vae_pad(l->layers[i].out) + vae_pad(l->layers[i].in);
        most = vae_pad(l->layers[i].in) > most ? vae_pad(l->layers[i].in) : most;
    }
    size_t sizes[3] = {l->total, floats * x->batch, l->total + most * x->batch};
    float **to[3] = {&x->w, &x->a, &x->b};
    for (int i = 0; i < 3; i++) {
        *to[i] = x->be->ops->alloc(x->be, sizes[i] * sizeof(float), "operands"); /* as a step's */
        if (*to[i] == NULL) {
            fprintf(stderr, "bench_step: out of memory\n");
            exit(1);
        }
        for (size_t j = 0; j < sizes[i]; j++) {
            float value = (float)((double)((j * 2654435761u) % 1000003) / 1000003.0 - 0.5) * 0.1f;
            uint16_t bf16[2];
            if (x->bf16) {
                const float pair[2] = {value, -value};
                vae_cpu_kernels(x->level)->narrow(bf16, pair, 2);
                memcpy(&value, bf16, sizeof value);
            }
            (*to[i])[j] = value;
        }
    }
}

typedef struct {
    const char *json, *precision, *note, *dump;
    size_t batches[MAX_BATCHES];
    int n_batches, repeats;
    double seconds, warm_up_seconds;
    size_t rows, warm_up;
    vae_config config;
} options;

/* What every row says of where it was measured; text: the backend's description. */
static void write_origin(FILE *json, const options *o, const char *text)
{
    char cpu[200], date[32];
    struct utsname host;
    time_t now = time(NULL);
    vae_cpu_name(cpu, sizeof cpu);
    uname(&host);
    strftime(date, sizeof date, "%Y-%m-%d", gmtime(&now));
    fprintf(json,
            "{\"schema\": 2, \"benchmark\": \"step\", \"note\": \"%s\", \"date\": \"%s\", "
            "\"version\": \"%s\", \"commit\": \"%s\", \"cpu\": \"%s\", \"cores\": %ld, "
            "\"kernel\": \"%s %s\", \"compiler\": \"%s\", \"backend\": \"%s\", \"repeats\": %d, ",
            o->note, date, vae_build_version, vae_build_git, cpu, sysconf(_SC_NPROCESSORS_ONLN),
            host.sysname, host.release, __VERSION__, text, o->repeats);
}

static double spread(FILE *json, const char *name, vae_series *s)
{
    double min, max, middle = vae_series_median(s, &min, &max);
    fprintf(json, ", \"%s_us\": {\"median\": %.2f, \"min\": %.2f, \"max\": %.2f}", name,
            1e6 * middle, 1e6 * min, 1e6 * max);
    return middle;
}

static void measure_batch(bench *x, const options *o, FILE *json, const char *shape)
{
    char text[2600];
    double (*const work[3])(bench *, size_t) = {timed_steps, backend_products, openblas_products};
    const int n_work = strcmp(x->be->ops->name, "cpu") == 0 ? 3 : 1;
    static vae_series peak, after_products; /* FLOP/s, measured beside the rest */
    peak.n = after_products.n = 0;
    static vae_series s[3];
    size_t n[3];
    for (int i = 0; i < n_work; i++) {
        n[i] = calibrate(x, work[i], o->seconds);
        s[i].n = 0;
    }
    static vae_series fresh;
    vae_error err = {0};
    fresh.n = 0;
    for (int r = 0; r < o->repeats; r++) {
        fresh.v[fresh.n++] = timed_steps(x, n[0]) / (double)n[0];
    }
    if (vae_step_timer_warm(x->timer, o->warm_up, o->warm_up_seconds, &err) != VAE_OK) {
        die(&err);
    }
    const uint64_t after = vae_step_timer_steps(x->timer);
    for (int r = 0; r < o->repeats; r++) {
        if (n_work > 1) {
            peak.v[peak.n++] = peak_flops(x->threads, x->level, x->bf16);
        }
        for (int i = 0; i < n_work; i++) {
            s[i].v[s[i].n++] = work[i](x, n[i]) / (double)n[i];
            if (work[i] == backend_products) {
                after_products.v[after_products.n++] =
                    peak_flops_now(x->threads, x->level, x->bf16);
            }
        }
    }
    double least, most, step = vae_series_median(&s[0], &least, &most);
    double gflop = 1e-9 * vae_step_flops(x->layout, x->batch, o->config.particles);
    x->be->ops->describe(x->be, text, sizeof text); /* now it knows what it chose */
    write_origin(json, o, text);
    fprintf(json,
            "\"model\": \"%s\", \"device\": \"%s\", \"precision\": \"%s\", "
            "\"batch\": %zu, \"gflop_per_step\": %.4f, \"examples_per_s\": %.0f, "
            "\"data\": \"%s\", \"after_steps\": %llu",
            shape, x->be->ops->name, o->precision, x->batch, gflop, (double)x->batch / step,
            o->config.data, (unsigned long long)after);
    spread(json, "step", &s[0]);
    const double first = spread(json, "fresh", &fresh);
    printf("%-18s %7zu %10.1f us  %10.0f examples/s after %llu steps, %.0f fresh  %8.1f GFLOP/s",
           shape, x->batch, 1e6 * step, (double)x->batch / step, (unsigned long long)after,
           (double)x->batch / first, gflop / step);
    if (n_work == 3) {
        double own = spread(json, "matmul", &s[1]), blas = spread(json, "openblas", &s[2]);
        double slowest, fastest, flops = vae_series_median(&peak, &slowest, &fastest);
        double low, high, now = vae_series_median(&after_products, &low, &high);
        fprintf(json,
                ", \"peak_gflop_per_s\": {\"median\": %.1f, \"min\": %.1f, \"max\": %.1f}, "
                "\"matmul_over_peak\": %.4f, "
                "\"peak_after_products_gflop_per_s\": "
                "{\"median\": %.1f, \"min\": %.1f, \"max\": %.1f}, "
                "\"matmul_over_peak_after\": %.4f",
                1e-9 * flops, 1e-9 * slowest, 1e-9 * fastest, 1e9 * gflop / own / flops, 1e-9 * now,
                1e-9 * low, 1e-9 * high, 1e9 * gflop / own / now);
        fprintf(json, ", \"step_over_matmul_rate\": %.4f, \"step_over_openblas_rate\": %.4f",
                own / step, blas / step);
        printf("  %5.1f%% of the rate of its products with all terms, %5.1f%% of OpenBLAS'; those "
               "at %.1f%% of the peak, %.0f GFLOP/s, and %.1f%% of that of the millisecond after, "
               "%.0f",
               100 * own / step, 100 * blas / step, 1e11 * gflop / own / flops, 1e-9 * flops,
               1e11 * gflop / own / now, 1e-9 * now);
    }
    fprintf(json, "}\n");
    fflush(json); /* a run may be cut off */
    printf("%s%s\n", *o->note != '\0' ? "  " : "", o->note);
    fflush(stdout);
}

static void bench_batch(const options *o, const vae_dataset *rows, size_t batch, FILE *json)
{
    vae_error err = {0};
    bench x = {.batch = batch};
    vae_config config = o->config;
    config.batch_size = batch;
    vae_dataset set = *rows; /* as often as it takes to fill a batch */
    set.labels = NULL;
    set.n = o->rows > batch ? o->rows : batch;
    uint8_t *bytes = malloc(set.n * set.d);
    if (bytes == NULL) {
        exit(1);
    }
    for (size_t done = 0, some; done < set.n; done += some) {
        some = set.n - done < rows->n ? set.n - done : rows->n;
        memcpy(bytes + done * set.d, rows->rows, some * set.d);
    }
    set.rows = bytes;
    if (vae_step_timer_open(&x.timer, &config, &set, NULL, &err) != VAE_OK) {
        die(&err);
    }
    x.be = vae_step_timer_backend(x.timer);
    x.layout = vae_step_timer_layout(x.timer);
    x.threads = vae_threads(o->config.threads);
    if (strcmp(x.be->ops->name, "cpu") == 0) {
        if (vae_cpu_level_choose(&x.level, &err) != VAE_OK) {
            die(&err);
        }
        x.bf16 = config.precision == VAE_BF16;
        x.room = aligned_alloc(64, x.bf16 ? vae_cpu_matmul_bf16_room(x.threads)
                                          : vae_cpu_matmul_room(x.threads));
        if (x.room == NULL) {
            exit(1);
        }
        open_operands(&x);
    }
    char shape[256];
    int at = o->config.conv.n > 0
                 ? snprintf(shape, sizeof shape, "%zux%zux%zu", set.height, set.width, set.channels)
                 : snprintf(shape, sizeof shape, "%zu", set.d);
    for (size_t i = 0; i < o->config.conv.n; i++) {
        at += snprintf(shape + at, sizeof shape - (size_t)at, "-%zu", o->config.conv.size[i]);
    }
    for (size_t i = 0; i < o->config.hidden.n; i++) {
        at += snprintf(shape + at, sizeof shape - (size_t)at, "-%zu", o->config.hidden.size[i]);
    }
    snprintf(shape + at, sizeof shape - (size_t)at, "-%zu", o->config.latent);
    measure_batch(&x, o, json, shape);
    free(x.room);
    if (x.w != NULL) {
        x.be->ops->free(x.be, x.w);
        x.be->ops->free(x.be, x.a);
        x.be->ops->free(x.be, x.b);
    }
    vae_step_timer_close(x.timer);
    free(bytes);
}

static void parse(options *o, int argc, char **argv)
{
    vae_error err = {0};
    for (int i = 1; i < argc; i += 2) {
        const char *name = argv[i] + (strncmp(argv[i], "--", 2) == 0 ? 2 : 0);
        const char *value = i + 1 < argc ? argv[i + 1] : "";
        if (strcmp(name, "json") == 0) {
            o->json = value;
        } else if (strcmp(name, "dump") == 0) {
            o->dump = value;
        } else if (strcmp(name, "warm-up") == 0) {
            o->warm_up = (size_t)atol(value);
        } else if (strcmp(name, "warm-up-seconds") == 0) {
            o->warm_up_seconds = atof(value);
        } else if (strcmp(name, "note") == 0) {
            o->note = value;
        } else if (strcmp(name, "repeats") == 0) {
            o->repeats = atoi(value);
        } else if (strcmp(name, "seconds") == 0) {
            o->seconds = atof(value);
        } else if (strcmp(name, "rows") == 0) {
            o->rows = (size_t)atol(value);
        } else if (strcmp(name, "batches") == 0) {
            char *copy = strdup(value);
            o->n_batches = 0;
            for (char *t = strtok(copy, ","); t != NULL && o->n_batches < MAX_BATCHES;
                 t = strtok(NULL, ",")) {
                o->batches[o->n_batches++] = (size_t)atol(t);
            }
            free(copy);
        } else if (strcmp(name, "batch-size") == 0) {
            vae_fail(&err, VAE_ERR_USAGE, "--batches says which");
            die(&err);
        } else if (vae_config_set(&o->config, name, value, &err) != VAE_OK) {
            die(&err);
        } else if (strcmp(name, "precision") == 0) {
            o->precision = value;
        }
    }
    if (o->repeats < 1 || o->repeats > VAE_SERIES_MAX) {
        fprintf(stderr, "bench_step: --repeats wants 1 to %d\n", VAE_SERIES_MAX);
        exit(2);
    }
}

int main(int argc, char **argv)
{
    options o = {.precision = "fp32",
                 .note = "",
                 .batches = {20, 128, 1024, 8192},
                 .n_batches = 4,
                 .repeats = 9,
                 .seconds = 0.5,
                 .warm_up_seconds = 20,
                 .warm_up = 2000,
                 .rows = 60000};
    vae_config_defaults(&o.config);
    o.config.device = VAE_DEVICE_CPU;
    parse(&o, argc, argv);
    if (o.config.conv.n > 0 && o.config.device == VAE_DEVICE_CPU && o.dump == NULL) {
        fprintf(stderr,
                "bench_step: --conv: the products beside a step are those of linear layers; "
                "conv.py and vae bench time convolutions on a CPU\n");
        return 2;
    }
    vae_dataset *set = NULL;
    vae_error err = {0};
    const vae_data_options in_memory = {.in_memory = SIZE_MAX};
    if (vae_dataset_open(&set, o.config.data, VAE_SPLIT_TRAIN, &in_memory, &err) != VAE_OK) {
        die(&err);
    }
    if (set->dtype != VAE_U8) {
        fprintf(stderr, "bench_step: %s: expected rows of bytes\n", set->source);
        return 3;
    }
    if (o.dump != NULL) {
        const struct iovec rows = {set->rows, set->n * set->d};
        if (vae_file_replace(o.dump, &rows, 1, &err) != VAE_OK) {
            die(&err);
        }
        vae_dataset_free(set);
        return 0;
    }
    FILE *json = fopen(o.json != NULL ? o.json : "/dev/null", "a");
    if (json == NULL) {
        perror(o.json);
        return 4;
    }
    for (int i = 0; i < o.n_batches; i++) {
        bench_batch(&o, set, o.batches[i], json);
    }
    vae_dataset_free(set);
    return fclose(json) == 0 ? 0 : 4;
}
