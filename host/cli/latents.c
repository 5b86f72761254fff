/* vae encode, vae decode. */
#include <errno.h>
#include <fcntl.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/file.h"
#include "base/text.h"
#include "cli/cli.h"
#include "format/npz.h"
#include "infer/labels.h"
#include "infer/paint.h"

/* ---- shared ---- */

static vae_status new_floats(float **out, size_t n, const char *what, vae_error *err)
{
    *out = calloc(n > 0 ? n : 1, sizeof **out);
    return *out != NULL ? VAE_OK : vae_fail_memory(err, n * sizeof **out, what);
}

static void print_done(const cli_args *args, const vae_trained *m, const char *out, size_t n,
                       const char *what, const char *rest)
{
    char binarize[32];
    if (strcmp(out, "-") == 0) {
        return; /* standard output has the data */
    }
    if (!args->json) {
        cli_say(args, "%s: %zu %s%s%s of %s", out, n, what, vae_s(n), rest, m->path);
        return;
    }
    json_t *o = json_pack("{s:i, s:s, s:s, s:I, s:I}", "schema", 1, "checkpoint", m->path, "out",
                          out, "n", (json_int_t)n, "latent", (json_int_t)m->config.latent);
    if (m->set != NULL) { /* encoded */
        vae_config_get(&m->config, "binarize", binarize, sizeof binarize);
        json_object_set_new(o, "binarize", json_string(binarize));
        json_object_set_new(o, "split", json_string(m->split));
    }
    cli_print_json(o, 0);
}

static vae_status check_out(const cli_args *args, const char *out, vae_error *err)
{
    return out != NULL ? cli_check_out(args, out, err)
                       : vae_fail(err, VAE_ERR_USAGE, "--out is missing: the file to write, or -");
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
    vae_label_arrays labels = {0};
    vae_npz_writer w = {.n = 0};
    vae_status status = VAE_OK;
    vae_npz_add(&w, "mu", "<f4", sizeof(float), shape, 2, l->mu);
    vae_npz_add(&w, "logvar", "<f4", sizeof(float), shape, 2, l->logvar);
    if (l->z != NULL) {
        vae_npz_add(&w, "z", "<f4", sizeof(float), shape, 2, l->z);
    }
    TRY(vae_label_arrays_add(&labels, &w, set, err));
    if (set->picked != NULL) {
        vae_npz_add(&w, "row", "<u4", sizeof(uint32_t), shape, 1, set->picked);
    }
    vae_npz_finish(&w);
    status = vae_parts_put(&w.parts, out, err);
done:
    vae_label_arrays_clear(&labels);
    return status;
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
static vae_status set_seed_and_binarize(vae_trained *m, const cli_args *args, vae_error *err)
{
    const char *seed = cli_value(args, "seed");
    vae_status status = VAE_OK;
    TRY(cli_binarize_for_latents(m, args, err));
    const bool draws =
        m->config.binarize == VAE_BINARIZE_STATIC || m->config.binarize == VAE_BINARIZE_DYNAMIC;
    if (seed != NULL && !cli_given(args, "z") && !draws) {
        TRY(vae_fail(err, VAE_ERR_USAGE,
                     "--seed has no effect: mu and logvar need no noise; add --z"));
    }
    if (seed != NULL) {
        TRY(vae_config_set(&m->config, "seed", seed, err));
    }
done:
    return status;
}

static vae_status run_encoder(vae_trained *m, latents *l, bool want_z, vae_error *err)
{
    vae_status status = VAE_OK;
    size_t floats;
    l->n = m->set->n;
    l->latent = m->config.latent;
    if (__builtin_mul_overflow(l->n, l->latent, &floats)) {
        TRY(vae_fail(err, VAE_ERR_DATA, "%s: too many rows", m->set->source));
    }
    TRY(new_floats(&l->mu, floats, "mu", err));
    TRY(new_floats(&l->logvar, floats, "logvar", err));
    if (want_z) {
        TRY(new_floats(&l->z, floats, "z", err));
    }
    const vae_batch_out out = {.mu = l->mu, .logvar = l->logvar, .z = l->z};
    TRY(vae_trained_start(m, VAE_INFER_BATCH, 1, err));
    TRY(vae_trained_run_set(m, m->set, 0, &out, err));
done:
    return status;
}

static vae_status run_encode(const cli_args *args, vae_error *err)
{
    vae_trained m = {.own = NULL};
    latents l = {0};
    bool npz = false;
    vae_status status = VAE_OK;
    const char *out = cli_value(args, "out");
    const bool want_z = cli_given(args, "z");
    TRY(check_out(args, out, err));
    TRY(choose_npz(args, out, &npz, err));
    TRY(cli_open_checkpoint(&m, args, err));
    TRY(set_seed_and_binarize(&m, args, err));
    TRY(cli_open_set(&m, args, err));
    TRY(run_encoder(&m, &l, want_z, err));
    const size_t shape[2] = {l.n, l.latent};
    if (!cli_writes(args)) {
        goto done;
    }
    if (npz) {
        TRY(write_npz(out, &l, m.set, err));
        print_done(args, &m, out, l.n, "row", " of latents");
    } else {
        TRY(vae_npy_write(out, "<f4", shape, 2, want_z ? l.z : l.mu, err));
        print_done(args, &m, out, l.n, want_z ? "draw" : "mean", want_z ? " of z" : "");
    }
done:
    free(l.mu);
    free(l.logvar);
    free(l.z);
    vae_trained_close(&m);
    return status;
}

static const cli_option encode_options[] = {
    CLI_DATA_OPTIONS,
    {"out", 'o', "FILE", ".npz: mu, logvar, labels; .npy: mu; - is standard output"},
    {"format", 0, "npz|npy", "default: by the name of --out; npy for -"},
    {"z", 0, NULL, "draw z, too; an .npy then holds z"},
    {"seed", 's', "N", "of z and of a drawn binarization; default: the run's"},
    {"binarize", 0, "none|threshold|static|dynamic",
     "default: as it was trained, but none in place of dynamic"},
    CLI_MODEL_OPTIONS,
};

const cli_command cli_encode_command = {
    .name = "encode",
    .words = "RUN",
    .n_words = 1,
    .help = "Latents of a data set, in its order: mu, logvar, labels, and draws of z.",
    .examples =
        "  vae encode runs/mnist --data data/mnist --split train --out latents.npz\n"
        "  vae encode runs/mnist --data rows.npy --out mu.npy\n"
        "  cat rows.npy | vae encode runs/mnist --data - --out - | vae decode runs/mnist -l - -o "
        "x.npy\n",
    CLI_OPTIONS(encode_options),
    .shares = true,
    .run = run_encode,
};

/* ---- decode ---- */

/* An npz's z, or mu, or only array. */
static vae_status read_npz_latents(const char *path, float **z, size_t *n, size_t *cols,
                                   vae_error *err)
{
    vae_npz npz;
    char names[VAE_NPZ_NAMES];
    vae_status status = vae_npz_open(&npz, path, err);
    if (status != VAE_OK) {
        return status;
    }
    const vae_npz_member *m = vae_npz_find(&npz, "z");
    m = m == NULL ? vae_npz_find(&npz, "mu") : m;
    m = m == NULL && npz.n == 1 ? &npz.members[0] : m;
    if (m == NULL) {
        TRY(vae_fail(err, VAE_ERR_DATA,
                     "%s: expected an array named z or mu, or only one array; it has %s", path,
                     vae_npz_names(&npz, names)));
    }
    TRY(vae_npz_check(&npz, m, err));
    if (m->header.ndim != 2 || m->header.n_items == 0) {
        TRY(vae_fail(err, VAE_ERR_DATA, "%s: %s: expected latents of shape (n,Z)", path, m->name));
    }
    *n = m->header.shape[0];
    *cols = m->header.shape[1];
    TRY(new_floats(z, m->header.n_items, "latents", err));
    TRY(vae_npz_read_floats(&npz, m, *z, err));
done:
    vae_npz_close(&npz);
    return status;
}

static vae_status read_npy_latents(const char *path, float **z, size_t *n, size_t *cols,
                                   vae_error *err)
{
    vae_dataset *set;
    void *rows;
    vae_status status = VAE_OK;
    TRY(vae_dataset_open(&set, path, VAE_SPLIT_TRAIN, NULL, err));
    if (set->dtype != VAE_F32) {
        TRY(vae_fail(err, VAE_ERR_DATA, "%s: expected floats (f4 or f8), found %s", path,
                     set->dtype == VAE_BITS ? "booleans" : "bytes"));
    }
    *n = set->n;
    *cols = set->d;
    TRY(vae_dataset_take_rows(set, &rows, err));
    *z = rows;
done:
    vae_dataset_free(set);
    return status;
}

static vae_status read_latents(const char *path, size_t latent, float **z, size_t *n,
                               vae_error *err)
{
    unsigned char first[2] = {0};
    size_t cols = 0;
    vae_status status = VAE_OK;
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    if (fd < 0) {
        return vae_fail(err, VAE_ERR_IO, "%s: cannot open: %s", path, strerror(errno));
    }
    const ssize_t got = vae_read_at(fd, first, sizeof first, 0);
    const int reason = errno;
    close(fd);
    if (got < 0 && reason != EISDIR && reason != ESPIPE) { /* which the reader refuses */
        TRY(vae_fail(err, VAE_ERR_IO, "%s: cannot read: %s", path, strerror(reason)));
    }
    const bool npz = got == 2 && first[0] == 'P' && first[1] == 'K';
    TRY((npz ? read_npz_latents : read_npy_latents)(path, z, n, &cols, err));
    if (cols != latent) {
        TRY(vae_fail(err, VAE_ERR_DATA, "%s: rows of %zu values; the model's z has %zu", path, cols,
                     latent));
    }
    for (size_t i = 0; i < *n * cols; i++) {
        if (!isfinite((*z)[i])) {
            TRY(vae_fail(err, VAE_ERR_DATA, "%s: row %zu, column %zu: value %g is not finite%s",
                         path, i / cols, i % cols, (double)(*z)[i], vae_beyond_float((*z)[i])));
        }
    }
done:
    return status;
}

static vae_status decode_to(vae_trained *m, const char *out, const float *z, size_t n, int only,
                            vae_error *err)
{
    vae_row_sink *sink = NULL;
    const uint32_t label = only >= 0 ? (uint32_t)only : 0;
    const vae_painter painter = {.on = m, .one_class = only >= 0 ? &label : NULL};
    const vae_sink_spec spec = vae_painter_spec(&painter, n);
    vae_status status = VAE_OK;
    if (only < 0 && vae_config_has_classes(&m->config)) {
        TRY(vae_fail(err, VAE_ERR_USAGE, "%s has classes: decoding needs --class NAME", m->path));
    }
    TRY(vae_row_sink_open(&sink, out, &spec, err));
    TRY(vae_trained_start(m, VAE_INFER_BATCH, 1, err));
    TRY(vae_paint_latents(&painter, z, n, sink, err));
done:
    return vae_row_sink_done(sink, status, err);
}

static vae_status run_decode(const cli_args *args, vae_error *err)
{
    vae_trained m = {.own = NULL};
    cli_spool s = {.fd = -1};
    float *z = NULL;
    size_t n = 0;
    int only;
    vae_sink_kind kind;
    vae_status status = VAE_OK;
    const char *out = cli_value(args, "out"), *from = cli_value(args, "latents");
    TRY(check_out(args, out, err));
    TRY(vae_sink_kind_of(&kind, out, err));
    if (kind == VAE_SINK_NONE || kind == VAE_SINK_GIF) {
        TRY(vae_fail(err, VAE_ERR_USAGE,
                     "%s: expected a name that ends in .npy, .png or / (a folder), or -", out));
    }
    if (from == NULL) {
        TRY(vae_fail(err, VAE_ERR_USAGE,
                     "--latents is missing: an .npy or .npz file, or -; vae encode makes one"));
    }
    if (strcmp(from, "-") == 0) {
        TRY(cli_spool_open(&s, err));
        from = s.path;
    }
    TRY(cli_open_checkpoint(&m, args, err));
    TRY(cli_class(&m, args, &only, err));
    TRY(cli_spool_rename(&s, read_latents(from, m.config.latent, &z, &n, err), err));
    TRY(decode_to(&m, out, z, n, only, err));
    print_done(args, &m, out, n, "decoded row", "");
done:
    free(z);
    cli_spool_close(&s);
    vae_trained_close(&m);
    return status;
}

static const cli_option decode_options[] = {
    {"latents", 'l', "FILE", ".npy (n,Z), or .npz with z, mu or one array; - is standard input"},
    {"out", 'o', "FILE", ".npy, .png (a grid), a folder (one PNG a row), or -"},
    {"class", 0, "NAME", "of a model with classes: the class to decode as"},
    CLI_MODEL_OPTIONS,
};

const cli_command cli_decode_command = {
    .name = "decode",
    .words = "RUN",
    .n_words = 1,
    .help = "Latents back to data: the decoder's means.",
    .examples = "  vae decode runs/mnist --latents z.npy --out x.npy\n"
                "  vae decode runs/mnist --latents latents.npz --out pictures/\n",
    CLI_OPTIONS(decode_options),
    .run = run_decode,
};
