/* Times the training step of a model on a backend, beside the time of the step's matrix products
 * alone, in one run and interleaved, so that the ratios hold on a noisy machine.
 *
 *   bench_step [--device cpu|cuda] [--precision P] [--hidden 400] [--latent 20]
 *              [--batches 20,128,1024,8192] [--repeats 9] [--seconds 0.5] [--threads N] [--json F]
 *
 * For each batch: `step` is the whole step (gather, noise, forward, loss, backward, Adam);
 * `matmul` the same products by the backend's own routine; `openblas` the same by plain cblas_sgemm
 * with OpenBLAS' own threads. Medians over repeats, with minimum and maximum. */
#include <cblas.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/utsname.h>
#include <time.h>
#include <unistd.h>

#include "cpu_matmul.h"
#include "model.h"
#include "trainer.h"

enum { MAX_REPEATS = 99, MAX_BATCHES = 16 };

typedef struct {
    double v[MAX_REPEATS];
    int n;
} series;

static double seconds_now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

static int compare(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static double median(series *s)
{
    qsort(s->v, (size_t)s->n, sizeof s->v[0], compare);
    return s->n % 2 ? s->v[s->n / 2] : (s->v[s->n / 2 - 1] + s->v[s->n / 2]) / 2;
}

typedef struct {
    const param_layout *layout;
    vae_model *model;
    vae_data *data;
    vae_backend *be;
    size_t batch, n_rows;
    int threads;
    vae_cpu_level level;
    uint64_t step;
    vae_config config;
    float *w, *a, *b; /* operands of the products: weights, activations, gradients */
} bench;

static void die(const vae_error *err)
{
    fprintf(stderr, "bench_step: %s\n", err->text);
    exit(err->status);
}

static void run_steps(bench *x, size_t n)
{
    vae_error err = {0};
    vae_totals totals;
    vae_plan plan[64];
    size_t per_epoch = x->n_rows / x->batch;
    for (size_t done = 0; done < n;) {
        size_t most = n - done < 64 ? n - done : 64;
        for (size_t i = 0; i < most; i++) {
            x->step++;
            uint64_t epoch = x->step / per_epoch;
            vae_train_plan(&plan[i], &x->config, x->step, epoch, (x->step % per_epoch) * x->batch,
                           per_epoch);
        }
        vae_model_train(x->model, x->data, plan, most, x->batch);
        done += most;
    }
    if (vae_model_totals(x->model, &totals, true, &err) != VAE_OK) {
        die(&err);
    }
}

typedef void product(matmul_form form, float *c, size_t ldc, const float *a, size_t lda,
                     const float *b, size_t ldb, size_t m, size_t n, size_t k, const bench *x);

static void by_backend(matmul_form form, float *c, size_t ldc, const float *a, size_t lda,
                       const float *b, size_t ldb, size_t m, size_t n, size_t k, const bench *x)
{
    vae_cpu_matmul(form, c, ldc, a, lda, b, ldb, m, n, k, NULL, NULL, x->threads, x->level);
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

static void steps_once(bench *x, size_t n)
{
    run_steps(x, n);
}
static void backend_products(bench *x, size_t n)
{
    run_products(x, n, by_backend);
}
static void openblas_products(bench *x, size_t n)
{
    run_products(x, n, by_openblas);
}

/* How many runs fill `seconds`, after a warm-up. */
static size_t calibrate(bench *x, void (*work)(bench *, size_t), double seconds)
{
    work(x, 2);
    size_t n = 1;
    for (;; n *= 2) {
        double t = seconds_now();
        work(x, n);
        t = seconds_now() - t;
        if (t > seconds / 8) {
            n = (size_t)((double)n * seconds / t);
            return n > 0 ? n : 1;
        }
    }
}

static double flops_per_example(const param_layout *l)
{
    double mac = 0, first = (double)l->layers[0].in * (double)l->layers[0].out;
    for (size_t i = 0; i < l->n_encoder + l->n_decoder; i++) {
        mac += (double)l->layers[i].in * (double)l->layers[i].out;
    }
    return 2 * (3 * mac - first);
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
        *to[i] = aligned_alloc(256, (sizes[i] * sizeof(float) + 255) / 256 * 256);
        if (*to[i] == NULL) {
            fprintf(stderr, "bench_step: out of memory\n");
            exit(1);
        }
        for (size_t j = 0; j < sizes[i]; j++) {
            (*to[i])[j] = (float)((double)((j * 2654435761u) % 1000003) / 1000003.0 - 0.5) * 0.1f;
        }
    }
}

static void cpu_name(char *text, size_t size)
{
    snprintf(text, size, "unknown");
    FILE *f = fopen("/proc/cpuinfo", "r");
    char line[256];
    while (f != NULL && fgets(line, sizeof line, f) != NULL) {
        char *colon = strchr(line, ':');
        if (strncmp(line, "model name", 10) == 0 && colon != NULL) {
            line[strcspn(line, "\n")] = 0;
            snprintf(text, size, "%s", colon + 2);
            break;
        }
    }
    if (f != NULL) {
        fclose(f);
    }
}

typedef struct {
    const char *json, *device, *precision;
    size_t batches[MAX_BATCHES];
    int n_batches, repeats;
    double seconds;
    size_t rows;
    vae_config config;
} options;

static void write_header(FILE *json, const options *o, const char *backend)
{
    char cpu[200], date[32];
    struct utsname host;
    time_t now = time(NULL);
    cpu_name(cpu, sizeof cpu);
    uname(&host);
    strftime(date, sizeof date, "%Y-%m-%d", gmtime(&now));
    fprintf(json,
            "{\"schema\": 1, \"benchmark\": \"step\", \"date\": \"%s\", \"version\": \"%s\", "
            "\"commit\": \"%s\",\n \"cpu\": \"%s\", \"cores\": %ld, \"kernel\": \"%s %s\", "
            "\"compiler\": \"%s\",\n \"backend\": \"%s\", \"repeats\": %d, \"rows\": [",
            date, VAE_VERSION, VAE_GIT, cpu, sysconf(_SC_NPROCESSORS_ONLN), host.sysname,
            host.release, __VERSION__, backend, o->repeats);
}

static void spread(FILE *json, const char *name, series *s)
{
    double middle = median(s);
    fprintf(json, ", \"%s_us\": {\"median\": %.2f, \"min\": %.2f, \"max\": %.2f}", name,
            1e6 * middle, 1e6 * s->v[0], 1e6 * s->v[s->n - 1]);
}

static void measure_batch(bench *x, const options *o, FILE *json, const char *shape, bool first)
{
    void (*const work[3])(bench *, size_t) = {steps_once, backend_products, openblas_products};
    const int n_work = strcmp(x->be->ops->name, "cpu") == 0 ? 3 : 1;
    series s[3] = {0};
    size_t n[3];
    for (int i = 0; i < n_work; i++) {
        n[i] = calibrate(x, work[i], o->seconds);
    }
    for (int r = 0; r < o->repeats; r++) {
        for (int i = 0; i < n_work; i++) {
            double t = seconds_now();
            work[i](x, n[i]);
            s[i].v[s[i].n++] = (seconds_now() - t) / (double)n[i];
        }
    }
    double step = median(&s[0]), gflop = 1e-9 * flops_per_example(x->layout) * (double)x->batch;
    fprintf(json,
            "%s\n  {\"model\": \"%s\", \"device\": \"%s\", \"precision\": \"%s\", "
            "\"batch\": %zu, \"gflop_per_step\": %.4f, \"examples_per_s\": %.0f",
            first ? "" : ",", shape, x->be->ops->name, o->precision, x->batch, gflop,
            (double)x->batch / step);
    spread(json, "step", &s[0]);
    printf("%-18s %7zu %10.1f us  %10.0f examples/s  %8.1f GFLOP/s", shape, x->batch, 1e6 * step,
           (double)x->batch / step, gflop / step);
    if (n_work == 3) {
        double own = median(&s[1]), blas = median(&s[2]);
        spread(json, "matmul", &s[1]);
        spread(json, "openblas", &s[2]);
        fprintf(json, ", \"step_over_matmul_rate\": %.4f, \"step_over_openblas_rate\": %.4f",
                own / step, blas / step);
        printf("  %5.1f%% of its products' rate, %5.1f%% of OpenBLAS'", 100 * own / step,
               100 * blas / step);
    }
    fprintf(json, "}");
    printf("\n");
    fflush(stdout);
}

static void bench_batch(const options *o, size_t batch, FILE *json, bool first)
{
    vae_error err = {0};
    bench x = {.batch = batch, .n_rows = o->rows > batch ? o->rows : batch, .config = o->config};
    vae_dataset set = {.n = x.n_rows, .d = 784, .height = 28, .width = 28, .channels = 1};
    uint8_t *bytes = malloc(set.n * set.d);
    if (bytes == NULL) {
        exit(1);
    }
    for (size_t i = 0; i < set.n * set.d; i++) { /* a fifth is ink, as in digits */
        uint32_t r = (uint32_t)(i * 2654435761u) ^ (uint32_t)(i >> 7);
        bytes[i] = (uint8_t)(r % 5 == 0 ? r >> 24 : 0);
    }
    set.rows = bytes;
    vae_backend_options backend = {
        .device = o->config.device, .precision = o->config.precision, .threads = o->config.threads};
    if (vae_backend_open(&x.be, &backend, &err) != VAE_OK ||
        vae_model_create(&x.model, &x.config, set.d, batch, true, x.be, &err) != VAE_OK) {
        die(&err);
    }
    x.layout = vae_model_layout(x.model);
    x.threads =
        (int)(o->config.threads > 0 ? o->config.threads : (size_t)sysconf(_SC_NPROCESSORS_ONLN));
    float *flat = malloc(x.layout->total * sizeof *flat);
    float *packed = malloc(x.layout->n_params * sizeof *packed);
    if (flat == NULL || packed == NULL) {
        exit(1);
    }
    vae_layout_init(x.layout, flat, VAE_INIT_TORCH, 1);
    vae_layout_pack(x.layout, packed, flat);
    if (vae_model_set(x.model, VAE_PARAMS, packed, &err) != VAE_OK) {
        die(&err);
    }
    x.data = x.be->ops->data_open(x.be, &set, NULL, 0);
    if (strcmp(x.be->ops->name, "cpu") == 0) {
        open_operands(&x);
        if (vae_cpu_level_choose(&x.level, &err) != VAE_OK) {
            die(&err);
        }
    }
    char shape[128], text[400];
    int at = snprintf(shape, sizeof shape, "784");
    for (size_t i = 0; i < o->config.hidden.n; i++) {
        at += snprintf(shape + at, sizeof shape - (size_t)at, "-%zu", o->config.hidden.size[i]);
    }
    snprintf(shape + at, sizeof shape - (size_t)at, "-%zu", o->config.latent);
    if (first) {
        x.be->ops->describe(x.be, text, sizeof text);
        write_header(json, o, text);
        printf("%s\n", text);
    }
    measure_batch(&x, o, json, shape, first);
    free(x.w);
    free(x.a);
    free(x.b);
    free(flat);
    free(packed);
    x.be->ops->data_close(x.be, x.data);
    vae_model_free(x.model);
    x.be->ops->close(x.be);
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
        } else if (vae_config_set(&o->config, name, value, &err) != VAE_OK) {
            die(&err);
        } else if (strcmp(name, "device") == 0) {
            o->device = value;
        } else if (strcmp(name, "precision") == 0) {
            o->precision = value;
        }
    }
    if (o->repeats < 1 || o->repeats > MAX_REPEATS) {
        fprintf(stderr, "bench_step: --repeats wants 1 to %d\n", MAX_REPEATS);
        exit(2);
    }
}

int main(int argc, char **argv)
{
    options o = {.device = "cpu",
                 .precision = "fp32",
                 .batches = {20, 128, 1024, 8192},
                 .n_batches = 4,
                 .repeats = 9,
                 .seconds = 0.5,
                 .rows = 60000};
    vae_config_defaults(&o.config);
    o.config.device = VAE_DEVICE_CPU;
    parse(&o, argc, argv);
    FILE *json = fopen(o.json != NULL ? o.json : "/dev/null", "w");
    if (json == NULL) {
        perror(o.json);
        return 4;
    }
    for (int i = 0; i < o.n_batches; i++) {
        bench_batch(&o, o.batches[i], json, i == 0);
    }
    fprintf(json, "\n]}\n");
    return fclose(json) == 0 ? 0 : 4;
}
