/* vae info, vae devices: what is in a file, what there is to compute on. */
#include <errno.h>
#include <inttypes.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "backend/open.h"
#include "base/machine.h"
#include "base/pool.h"
#include "base/sha256.h"
#include "cli/cli.h"
#include "exchange/import_weights.h"
#include "model/layout.h"
#include "ranks/ranks.h"
#include "train/run.h"

static json_t *describe_tensors(const param_layout *layout)
{
    json_t *tensors = json_array();
    size_t offset = 0;
    for (size_t i = 0; i < layout->n; i++) {
        const tensor_desc *t = &layout->tensors[i];
        json_array_append_new(tensors, json_pack("{s:s, s:I, s:I, s:I}", "name", t->name, "rows",
                                                 (json_int_t)t->rows, "cols", (json_int_t)t->cols,
                                                 "offset", (json_int_t)offset));
        offset += t->rows * t->cols;
    }
    return tensors;
}

static json_t *describe_state(const vae_train_state *s)
{
    return json_pack("{s:I, s:I, s:I, s:o, s:I, s:I, s:f, s:b}", "epoch", (json_int_t)s->epoch,
                     "step", (json_int_t)s->step, "position", (json_int_t)s->position, "best",
                     isfinite(s->best) ? json_real(s->best) : json_null(), "best_epoch",
                     (json_int_t)s->best_epoch, "bad_epochs", (json_int_t)s->bad_epochs, "wall_s",
                     s->wall_s, "finished", s->finished);
}

static json_t *parse_or_null(const char *text)
{
    json_t *value = text != NULL ? json_loads(text, 0, NULL) : NULL;
    return value != NULL ? value : json_null();
}

static vae_status print_json(const vae_checkpoint *c, const char *path, size_t bytes,
                             const param_layout *layout, const char *weights, vae_error *err)
{
    char hex[VAE_SHA256_HEX];
    char *config = vae_config_to_json(&c->config);
    if (config == NULL) {
        return vae_fail(err, VAE_ERR_RUNTIME, "out of memory for the options");
    }
    vae_sha256_hex(c->data_sha256, hex);
    json_t *o =
        json_pack("{s:i, s:s, s:I, s:I, s:[I,I,I], s:s, s:s, s:o, s:o, s:o, s:o}", "schema", 1,
                  "checkpoint", path, "bytes", (json_int_t)bytes, "parameters",
                  (json_int_t)c->n_params, "shape", (json_int_t)c->height, (json_int_t)c->width,
                  (json_int_t)c->channels, "data_sha256", hex, "weights_sha256", weights, "config",
                  parse_or_null(config), "tensors", describe_tensors(layout), "state",
                  describe_state(&c->state), "summary", parse_or_null(c->summary));
    if (c->standard != NULL) {
        json_t *shift = json_array(), *scale = json_array();
        for (size_t i = 0; i < c->d; i++) {
            json_array_append_new(shift, json_real(c->standard[i]));
            json_array_append_new(scale, json_real(c->standard[c->d + i]));
        }
        json_object_set_new(o, "data_shift", shift);
        json_object_set_new(o, "data_scale", scale);
    }
    if (c->classes_known) {
        json_t *names = json_array(), *rows = json_array();
        for (size_t i = 0; i < c->classes.n; i++) {
            json_array_append_new(names, json_string(c->classes.name[i]));
            json_array_append_new(rows, c->class_rows != NULL
                                            ? json_integer((json_int_t)c->class_rows[i])
                                            : json_null());
        }
        json_object_set_new(o, "classes", names);
        json_object_set_new(o, "class_rows", rows);
    }
    cli_print_json(o, 15);
    free(config);
    return VAE_OK;
}

static void print_config(const vae_config *config)
{
    size_t n;
    const vae_option *options = vae_config_options(&n);
    for (size_t i = 0; i < n; i++) {
        char value[VAE_PATH];
        vae_config_get(config, options[i].name, value, sizeof value);
        cli_print("  %-22s %s", options[i].name, value[0] != '\0' ? value : "-");
    }
}

/* The classes' names, all of them; where some were not trained on, which. */
static void print_classes(const vae_checkpoint *c)
{
    for (size_t i = 0; i < c->classes.n; i++) {
        printf("%s%s", i == 0 ? "classes      " : ", ", c->classes.name[i]);
    }
    if (c->classes.n > 0) {
        puts(c->classes_known ? "" : " (numbers: their names were not kept)");
    }
    size_t left_out = 0;
    for (size_t i = 0; i < c->classes.n; i++) {
        if (!vae_checkpoint_is_trained(c, i)) {
            printf("%s%s", left_out++ == 0 ? "not trained  " : ", ", c->classes.name[i]);
        }
    }
    fputs(left_out > 0 ? "\n" : "", stdout);
}

static void print_text(const vae_checkpoint *c, const char *path, size_t bytes,
                       const param_layout *layout, const char *weights)
{
    char n[32];
    const vae_train_state *s = &c->state;
    cli_print("checkpoint   %s, %s bytes", path, vae_thousands(n, (double)bytes));
    printf("data         %zu x %zu, %zu channel%s (%zu column%s)\n", c->height, c->width,
           c->channels, vae_s(c->channels), c->d, vae_s(c->d));
    printf("parameters   %s", vae_thousands(n, (double)c->n_params));
    printf(" (%s bytes; training takes four times that",
           vae_thousands(n, 4.0 * (double)c->n_params));
    puts(" for gradients and moments)");
    printf("weights      SHA-256 %s\n", weights);
    printf("training     epoch %" PRIu64 ", step %s, %.1f s%s\n", s->epoch,
           vae_thousands(n, (double)s->step), s->wall_s, s->finished ? ", finished" : "");
    if (isfinite(s->best)) {
        printf("validation   best %s %.4f nats, after epoch %" PRIu64 "; %" PRIu64
               " epoch%s since\n",
               c->config.objective == VAE_OBJ_ELBO ? "elbo" : "bound", -s->best, s->best_epoch,
               s->bad_epochs, vae_s(s->bad_epochs));
    }
    if (c->standard != NULL) {
        puts("columns      standardized: the model's x is (data - shift) / scale");
    }
    print_classes(c);
    if (c->summary[0] != '\0') {
        cli_print("last         %s", c->summary);
    }
    puts("tensors      name, shape, offset in floats");
    size_t offset = 0;
    for (size_t i = 0; i < layout->n; i++) {
        const tensor_desc *t = &layout->tensors[i];
        char shape[48];
        snprintf(shape, sizeof shape, "%zu x %zu", t->rows, t->cols);
        printf("  %-22s %-16s %zu\n", t->name, shape, offset);
        offset += t->rows * t->cols;
    }
    puts("options");
    print_config(&c->config);
}

/* A .safetensors or .npz file: its tensors as they stand there, and its metadata. */
static vae_status info_of_weights(const cli_args *args, const char *path, vae_error *err)
{
    vae_weights w;
    vae_status status = vae_weights_open(&w, path, err);
    if (status != VAE_OK) {
        return status;
    }
    json_t *metadata = parse_or_null(w.metadata), *tensors = json_array();
    for (size_t i = 0; i < w.n; i++) {
        const vae_weight *t = &w.tensors[i];
        json_t *shape = json_array();
        char text[160] = "";
        for (size_t j = 0; j < t->ndim; j++) {
            const size_t used = strlen(text);
            json_array_append_new(shape, json_integer((json_int_t)t->shape[j]));
            snprintf(text + used, sizeof text - used, "%s%zu", j > 0 ? " x " : "", t->shape[j]);
        }
        json_array_append_new(tensors, json_pack("{s:s, s:s, s:o}", "name", t->name, "dtype",
                                                 t->dtype, "shape", shape));
        if (!args->json) {
            cli_print("  %-28s %-8s %s", t->name, t->dtype, text);
        }
    }
    const char *key;
    json_t *value;
    json_object_foreach(metadata, key, value)
    {
        if (!args->json && json_is_string(value)) {
            cli_print("%-20s %s", key, json_string_value(value));
        }
    }
    if (args->json) {
        json_t *o = json_pack("{s:i, s:s, s:O, s:O}", "schema", 1, "file", path, "tensors", tensors,
                              "metadata", metadata);
        cli_print_json(o, 0);
    }
    json_decref(tensors);
    json_decref(metadata);
    vae_weights_close(&w);
    return VAE_OK;
}

static vae_status run_info(const cli_args *args, vae_error *err)
{
    vae_checkpoint *c = NULL;
    char path[VAE_PATH];
    param_layout layout = {0};
    struct stat info = {0};
    uint8_t digest[VAE_SHA256_BYTES];
    char weights[VAE_SHA256_HEX];
    bool weights_alone;
    vae_status status = VAE_OK;
    TRY(vae_weights_is_file(&weights_alone, args->words[0], err));
    if (weights_alone) {
        return info_of_weights(args, args->words[0], err);
    }
    TRY(vae_checkpoint_open_run(&c, args->words[0], cli_given(args, "best"), false, path, err));
    TRY(vae_layout_build(&layout, &c->config, vae_checkpoint_shape(c), err));
    TRY(vae_checkpoint_digest(c, digest, err));
    vae_sha256_hex(digest, weights);
    if (stat(path, &info) != 0) {
        TRY(vae_fail(err, VAE_ERR_IO, "%s: cannot look at it: %s", path, strerror(errno)));
    }
    const size_t bytes = (size_t)info.st_size;
    if (args->json) {
        TRY(print_json(c, path, bytes, &layout, weights, err));
    } else {
        print_text(c, path, bytes, &layout, weights);
    }
done:
    vae_layout_clear(&layout);
    vae_checkpoint_free(c);
    return status;
}

static const cli_option info_options[] = {
    {"best", 0, NULL, "of a run folder, take best.vae instead of the newest checkpoint"},
};

const cli_command cli_info_command = {
    .name = "info",
    .words = "RUN|FILE",
    .n_words = 1,
    .help = "What is in a run folder, a checkpoint, a .safetensors or .npz file.",
    .examples = "  vae info runs/mnist\n"
                "  vae info runs/mnist/checkpoints/best.vae --json\n",
    CLI_OPTIONS(info_options),
    .run = run_info,
};

/* ---- devices ---- */

/* What the CPU does in a precision. */
static vae_status describe_cpu(char *text, size_t size, vae_precision precision, vae_error *err)
{
    const vae_backend_options options = {.device = VAE_DEVICE_CPU, .precision = precision};
    vae_backend *be;
    vae_status status = VAE_OK;
    TRY(vae_backend_open(&be, &options, err));
    be->ops->describe(be, text, size);
    be->ops->close(be);
done:
    return status;
}

static vae_status run_devices(const cli_args *args, vae_error *err)
{
    char name[128], backend[512], bf16[512], instructions[128], cuda[4096] = "";
    const int n_cuda = vae_cuda_devices(cuda, sizeof cuda);
    vae_status status = VAE_OK;
    TRY(describe_cpu(backend, sizeof backend, VAE_FP32, err));
    TRY(describe_cpu(bf16, sizeof bf16, VAE_BF16, err));
    vae_cpu_name(name, sizeof name);
    vae_cpu_instructions(instructions, sizeof instructions);
    const long cores = sysconf(_SC_NPROCESSORS_ONLN);
    const int threads = vae_threads(0);
    if (args->json) {
        json_t *o =
            json_pack("{s:i, s:{s:s, s:I, s:i, s:s, s:s, s:s}, s:{s:i, s:s}, s:s}", "schema", 1,
                      "cpu", "name", name, "cores", (json_int_t)cores, "threads", threads,
                      "instructions", instructions, "backend", backend, "bf16", bf16, "cuda",
                      "devices", n_cuda, "text", cuda, "mpi", vae_ranks_built());
        cli_print_json(o, 0);
        goto done;
    }
    printf("cpu   %s, %ld cores: %s\n", name, cores, backend);
    printf("cpu   offers %s\n", instructions[0] != '\0' ? instructions : "no vector instructions");
    printf("cpu   in bf16: %s\n", bf16);
    printf("ranks %s\n", vae_ranks_built());
    for (const char *line = cuda; *line != '\0';) {
        size_t length = strcspn(line, "\n");
        printf("cuda  %.*s\n", (int)length, line);
        line += length + (line[length] == '\n');
    }
done:
    return status;
}

const cli_command cli_devices_command = {
    .name = "devices",
    .words = "",
    .help = "What there is to compute on.",
    .examples = "  vae devices\n",
    .run = run_devices,
};
