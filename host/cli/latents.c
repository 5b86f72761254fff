/* vae encode, vae decode. */
#include <errno.h>
#include <fcntl.h>
#include <jansson.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "backend/open.h"
#include "base/file.h"
#include "cli/cli.h"
#include "format/npz.h"
#include "infer/pictures.h"
#include "infer/runner.h"

enum { BATCH = 256 };

/* ---- standard input as a file ---- */

/* Readers want files they can measure: standard input is put into one that has no name. */
typedef struct {
    int fd; /* -1: not in use */
    char path[40];
} spool;

static vae_status spool_stdin(spool *s, vae_error *err)
{
    static char bytes[1 << 16];
    s->fd = memfd_create("stdin", MFD_CLOEXEC);
    if (s->fd < 0) {
        return vae_fail(err, VAE_ERR_RUNTIME, "standard input: cannot hold it: %s",
                        strerror(errno));
    }
    snprintf(s->path, sizeof s->path, "/proc/self/fd/%d", s->fd);
    for (;;) {
        ssize_t got = read(STDIN_FILENO, bytes, sizeof bytes);
        if (got < 0 && errno == EINTR) {
            continue;
        }
        if (got < 0 || (got > 0 && !vae_write_all(s->fd, bytes, (size_t)got))) {
            return vae_fail(err, VAE_ERR_IO, "standard input: %s", strerror(errno));
        }
        if (got == 0) {
            return VAE_OK;
        }
    }
}

/* Messages name what the user named. */
static vae_status rename_spool(const spool *s, vae_status status, vae_error *err)
{
    const size_t n = strlen(s->path);
    if (status != VAE_OK && s->fd >= 0 && strncmp(err->text, s->path, n) == 0) {
        char text[VAE_ERROR_TEXT];
        snprintf(text, sizeof text, "standard input%s", err->text + n);
        memcpy(err->text, text, sizeof text);
    }
    return status;
}

static void spool_close(spool *s)
{
    if (s->fd >= 0) {
        close(s->fd);
    }
}

/* ---- shared ---- */

static vae_status open_runner(vae_runner *r, const cli_model *m, vae_error *err)
{
    const vae_backend_options options = {m->config.device, m->config.device_index,
                                         m->config.precision, m->config.threads};
    vae_checkpoint view = *m->checkpoint; /* with the command's options */
    view.config = m->config;
    return vae_runner_open(r, &view, &options, BATCH, err);
}

static vae_status new_floats(float **out, size_t n, const char *what, vae_error *err)
{
    *out = calloc(n > 0 ? n : 1, sizeof **out);
    return *out != NULL ? VAE_OK : vae_fail_memory(err, n * sizeof **out, what);
}

static void print_done(const cli_args *args, const cli_model *m, const char *out, size_t n,
                       const char *what)
{
    if (strcmp(out, "-") == 0) {
        return; /* standard output has the data */
    }
    if (!args->json) {
        cli_say(args, "%s: %zu %s of %s", out, n, what, m->path);
        return;
    }
    json_t *o = json_pack("{s:i, s:s, s:s, s:I, s:I}", "schema", 1, "checkpoint", m->path, "out",
                          out, "n", (json_int_t)n, "latent", (json_int_t)m->config.latent);
    json_dumpf(o, stdout, JSON_INDENT(2));
    putchar('\n');
    json_decref(o);
}

static vae_status check_out(const cli_args *args, const char *out, vae_error *err)
{
    if (out == NULL) {
        return vae_fail(err, VAE_ERR_USAGE, "--out is missing: the file to write, or -");
    }
    return strcmp(out, "-") == 0 && args->json
               ? vae_fail(err, VAE_ERR_USAGE, "--out -: --json has standard output; name a file")
               : VAE_OK;
}

/* ---- encode ---- */

typedef struct {
    float *mu, *logvar, *z; /* (n,Z); z may be NULL */
    size_t n, latent;
} latents;

static vae_status write_npz(const char *out, const latents *l, const vae_dataset *set,
                            vae_error *err)
{
    const size_t shape[2] = {l->n, l->latent};
    vae_npz_writer w = {.n = 0};
    vae_npz_add(&w, "mu", "<f4", sizeof(float), shape, 2, l->mu);
    vae_npz_add(&w, "logvar", "<f4", sizeof(float), shape, 2, l->logvar);
    if (l->z != NULL) {
        vae_npz_add(&w, "z", "<f4", sizeof(float), shape, 2, l->z);
    }
    if (set->labels != NULL) {
        vae_npz_add(&w, "labels", "|u1", 1, shape, 1, set->labels);
    }
    vae_npz_finish(&w);
    return vae_parts_put(&w.parts, out, err);
}

static vae_status write_npy(const char *out, const float *values, const size_t *shape, size_t ndim,
                            vae_error *err)
{
    uint8_t header[VAE_NPY_WRITE_HEADER_MAX];
    size_t n = 1;
    for (size_t i = 0; i < ndim; i++) {
        n *= shape[i];
    }
    vae_parts parts = {0};
    vae_parts_copy(&parts, header, vae_npy_format_header(header, "<f4", shape, ndim));
    vae_parts_borrow(&parts, values, n * sizeof(float));
    return vae_parts_put(&parts, out, err);
}

static vae_status choose_npz(const cli_args *args, const char *out, bool *npz, vae_error *err)
{
    const char *format = cli_value(args, "format");
    *npz = format != NULL ? strcmp(format, "npz") == 0 : vae_ends_with(out, ".npz");
    if (format != NULL && !*npz && strcmp(format, "npy") != 0) {
        return vae_fail(err, VAE_ERR_USAGE, "--format: expected npz or npy, found '%s'", format);
    }
    if (format == NULL && !*npz && !vae_ends_with(out, ".npy") && strcmp(out, "-") != 0) {
        return vae_fail(err, VAE_ERR_USAGE,
                        "%s: which format? name it .npz or .npy, or give "
                        "--format npz|npy",
                        out);
    }
    return VAE_OK;
}

/* --seed and --binarize over what the model was trained with. */
static vae_status encode_options(cli_model *m, const cli_args *args, vae_error *err)
{
    const char *seed = cli_value(args, "seed"), *binarize = cli_value(args, "binarize");
    const bool draws =
        m->config.binarize == VAE_BINARIZE_STATIC || m->config.binarize == VAE_BINARIZE_DYNAMIC;
    vae_status status = VAE_OK;
    if (binarize != NULL) {
        status = vae_config_set(&m->config, "binarize", binarize, err);
    }
    if (status == VAE_OK && seed != NULL) {
        if (cli_value(args, "z") == NULL && !draws && binarize == NULL) {
            return vae_fail(err, VAE_ERR_USAGE,
                            "--seed has no effect: mu and logvar need no noise; add --z");
        }
        status = vae_config_set(&m->config, "seed", seed, err);
    }
    return status;
}

static vae_status run_encoder(const cli_model *m, latents *l, bool want_z, vae_error *err)
{
    vae_runner r;
    l->n = m->set->n;
    l->latent = m->config.latent;
    size_t floats;
    if (__builtin_mul_overflow(l->n, l->latent, &floats)) {
        return vae_fail(err, VAE_ERR_DATA, "%s: too many rows", m->set->source);
    }
    vae_status status = new_floats(&l->mu, floats, "mu", err);
    status = status == VAE_OK ? new_floats(&l->logvar, floats, "logvar", err) : status;
    status = status == VAE_OK && want_z ? new_floats(&l->z, floats, "z", err) : status;
    if (status == VAE_OK && (status = open_runner(&r, m, err)) == VAE_OK) {
        const vae_batch_out out = {.mu = l->mu, .logvar = l->logvar, .z = l->z};
        status = vae_runner_rows(&r, m->set, 0, &out, err);
        vae_runner_close(&r);
    }
    return status;
}

vae_status cli_encode(const cli_args *args, vae_error *err)
{
    cli_model m = {0};
    cli_args with_path = *args;
    spool s = {.fd = -1};
    latents l = {0};
    bool npz = false;
    const char *out = cli_value(args, "out"), *data = cli_value(args, "data");
    const bool want_z = cli_value(args, "z") != NULL;
    vae_status status = check_out(args, out, err);
    if (status == VAE_OK) {
        status = choose_npz(args, out, &npz, err);
    }
    if (status == VAE_OK && data != NULL && strcmp(data, "-") == 0) {
        status = spool_stdin(&s, err);
        for (size_t i = 0; i < with_path.n_options; i++) {
            if (with_path.value[i] == data) {
                with_path.value[i] = s.path;
            }
        }
    }
    if (status == VAE_OK && (status = cli_open_checkpoint(&m, args, false, err)) == VAE_OK &&
        (status = encode_options(&m, args, err)) == VAE_OK &&
        (status = rename_spool(&s, cli_open_set(&m, &with_path, err), err)) == VAE_OK &&
        (status = run_encoder(&m, &l, want_z, err)) == VAE_OK) {
        const size_t shape[2] = {l.n, l.latent};
        status = npz ? write_npz(out, &l, m.set, err)
                     : write_npy(out, want_z ? l.z : l.mu, shape, 2, err);
    }
    if (status == VAE_OK) {
        print_done(args, &m, out, l.n, npz ? "latents" : want_z ? "draws of z" : "means");
    }
    free(l.mu);
    free(l.logvar);
    free(l.z);
    spool_close(&s);
    cli_close(&m);
    return status;
}

/* ---- decode ---- */

/* An npz's z, or mu, or only array. */
static vae_status read_npz_latents(const char *path, float **z, size_t *n, size_t *cols,
                                   vae_error *err)
{
    vae_npz npz;
    vae_status status = vae_npz_open(&npz, path, err);
    if (status != VAE_OK) {
        return status;
    }
    const vae_npz_member *m = vae_npz_find(&npz, "z");
    m = m == NULL ? vae_npz_find(&npz, "mu") : m;
    m = m == NULL && npz.n == 1 ? &npz.members[0] : m;
    if (m == NULL || m->header.ndim != 2 || m->header.n_items == 0) {
        status = vae_fail(err, VAE_ERR_DATA,
                          m == NULL ? "%s: expected an array named z or mu, or only one array"
                                    : "%s: expected latents of shape (n,Z)",
                          path);
    } else {
        *n = m->header.shape[0];
        *cols = m->header.shape[1];
        status = new_floats(z, m->header.n_items, "latents", err);
        status = status == VAE_OK ? vae_npz_read_floats(&npz, m, *z, err) : status;
    }
    vae_npz_close(&npz);
    return status;
}

static vae_status read_npy_latents(const char *path, float **z, size_t *n, size_t *cols,
                                   vae_error *err)
{
    vae_dataset *set;
    vae_status status = vae_dataset_open(&set, path, VAE_SPLIT_TRAIN, NULL, err);
    if (status != VAE_OK) {
        return status;
    }
    if (set->dtype != VAE_F32) {
        status = vae_fail(err, VAE_ERR_DATA, "%s: expected floats (f4 or f8), found %s", path,
                          set->dtype == VAE_BITS ? "booleans" : "bytes");
    } else {
        *n = set->n;
        *cols = set->d;
        *z = set->rows; /* taken over */
        set->rows = NULL;
    }
    vae_dataset_free(set);
    return status;
}

static vae_status read_latents(const char *path, size_t latent, float **z, size_t *n,
                               vae_error *err)
{
    unsigned char first[2] = {0};
    size_t cols = 0;
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    if (fd < 0) {
        return vae_fail(err, VAE_ERR_IO, "%s: cannot open: %s", path, strerror(errno));
    }
    const bool npz = read(fd, first, sizeof first) == 2 && first[0] == 'P' && first[1] == 'K';
    close(fd);
    vae_status status =
        npz ? read_npz_latents(path, z, n, &cols, err) : read_npy_latents(path, z, n, &cols, err);
    if (status == VAE_OK && cols != latent) {
        return vae_fail(err, VAE_ERR_DATA, "%s: rows of %zu values; the model's z has %zu", path,
                        cols, latent);
    }
    for (size_t i = 0; status == VAE_OK && i < *n * cols; i++) {
        if (!isfinite((*z)[i])) {
            return vae_fail(err, VAE_ERR_DATA, "%s: row %zu, column %zu: value %g is not finite",
                            path, i / cols, i % cols, (double)(*z)[i]);
        }
    }
    return status;
}

static vae_status decode_to(const cli_model *m, const char *out, const float *z, size_t n, int only,
                            vae_error *err)
{
    vae_runner r;
    vae_row_sink *sink;
    const vae_checkpoint *c = m->checkpoint;
    const vae_sink_spec spec = {
        .n = n, .height = c->height, .width = c->width, .channels = c->channels};
    const uint32_t label = only >= 0 ? (uint32_t)only : 0;
    if (only < 0 && vae_config_has_classes(&m->config)) {
        return vae_fail(err, VAE_ERR_USAGE, "%s has classes: decoding needs --class K", m->path);
    }
    vae_status status = vae_row_sink_open(&sink, out, &spec, err);
    if (status != VAE_OK) {
        return status;
    }
    if ((status = open_runner(&r, m, err)) == VAE_OK) {
        const vae_painter painter = {
            .model = r.model, .shape = c, .batch = BATCH, .one_class = only >= 0 ? &label : NULL};
        status = vae_paint_latents(&painter, z, n, sink, err);
        vae_runner_close(&r);
    }
    const vae_status closed = vae_row_sink_close(sink, status == VAE_OK, err);
    return status == VAE_OK ? closed : status;
}

vae_status cli_decode(const cli_args *args, vae_error *err)
{
    cli_model m = {0};
    spool s = {.fd = -1};
    float *z = NULL;
    size_t n = 0;
    int only;
    const char *out = cli_value(args, "out"), *from = cli_value(args, "latents");
    vae_status status = check_out(args, out, err);
    if (status == VAE_OK) {
        const vae_sink_kind kind = vae_sink_kind_of(out);
        if (kind == VAE_SINK_NONE || kind == VAE_SINK_GIF) {
            status =
                vae_fail(err, VAE_ERR_USAGE,
                         "%s: expected a name that ends in .npy, .png or / (a folder), or -", out);
        }
    }
    if (status == VAE_OK && from == NULL) {
        status = vae_fail(err, VAE_ERR_USAGE,
                          "--latents is missing: an .npy or .npz file, or -; vae encode makes one");
    }
    if (status == VAE_OK && strcmp(from, "-") == 0) {
        status = spool_stdin(&s, err);
        from = s.path;
    }
    if (status == VAE_OK && (status = cli_open_checkpoint(&m, args, false, err)) == VAE_OK &&
        (status = cli_class(&m, args, &only, err)) == VAE_OK &&
        (status = rename_spool(&s, read_latents(from, m.config.latent, &z, &n, err), err)) ==
            VAE_OK) {
        status = decode_to(&m, out, z, n, only, err);
    }
    if (status == VAE_OK) {
        print_done(args, &m, out, n, "decoded rows");
    }
    free(z);
    spool_close(&s);
    cli_close(&m);
    return status;
}
