/* From named tensors to a checkpoint: sizes from shapes, everything else from options, metadata or
 * defaults, in this order. import_weights.c reads the files, import_data.c
 * what they say of the data. */
#include <inttypes.h>
#include <jansson.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/json.h"
#include "base/text.h"
#include "exchange/exchange.h"
#include "exchange/import_weights.h"

/* What tensors' names and shapes tell. */
typedef struct {
    size_t d, z,
        c; /* c: classes, as the decoder's first layer has them beside z; d: as yet with them */
    vae_sizes conv, hidden, decoder;
    size_t channels; /* of the data, where there are convolutions */
    bool learned;    /* a learned variance */
    bool torch;      /* pytorch/examples' names */
} shape_facts;

/* ---- sizes ---- */

/* Weight NAME.weight, of two dimensions; NULL and a message otherwise. */
static const vae_weight *need_matrix(const vae_weights *w, const char *layer, vae_error *err)
{
    char name[VAE_EXPORT_NAME];
    snprintf(name, sizeof name, "%s.weight", layer);
    const vae_weight *t = vae_weights_find(w, name);
    if (t == NULL) {
        vae_fail(err, VAE_ERR_DATA,
                 "%s: tensor '%s' is missing; expected fc1 fc21 fc22 fc3 fc4 (one hidden layer) or "
                 "encoder.0 ... mu logvar decoder.0 ... output, each with .weight and .bias",
                 w->path, name);
        return NULL;
    }
    if (t->ndim != 2 || t->shape[0] == 0 || t->shape[1] == 0) {
        vae_fail(err, VAE_ERR_DATA,
                 "%s: tensor '%s': expected 2 dimensions (out,in) above 0, found %zu dimension%s",
                 w->path, name, t->ndim, vae_s(t->ndim));
        return NULL;
    }
    return t;
}

/* Weight SIDE.i, if it is there and has four dimensions: a convolution's. */
static const vae_weight *find_kernel(const vae_weights *w, const char *side, size_t i)
{
    char name[VAE_EXPORT_NAME];
    snprintf(name, sizeof name, "%.16s.%zu.weight", side, i);
    const vae_weight *t = vae_weights_find(w, name);
    return t != NULL && t->ndim == 4 ? t : NULL;
}

/* Sizes of SIDE.first, SIDE.first+1 ... as long as they follow each other and are linear. *in:
 * columns of the first. */
static vae_status read_hidden(const vae_weights *w, const char *side, size_t first,
                              vae_sizes *sizes, size_t *in, vae_error *err)
{
    char layer[VAE_EXPORT_NAME], name[VAE_EXPORT_NAME];
    *sizes = (vae_sizes){0};
    for (;; sizes->n++) {
        snprintf(layer, sizeof layer, "%.16s.%zu", side, first + sizes->n);
        snprintf(name, sizeof name, "%.30s.weight", layer);
        if (vae_weights_find(w, name) == NULL || find_kernel(w, side, first + sizes->n) != NULL) {
            return VAE_OK;
        }
        if (sizes->n == VAE_MAX_LAYERS) {
            return vae_fail(err, VAE_ERR_DATA, "%s: more than %d hidden layers named %s.N", w->path,
                            VAE_MAX_LAYERS, side);
        }
        const vae_weight *t = need_matrix(w, layer, err);
        if (t == NULL) {
            return VAE_ERR_DATA;
        }
        *in = sizes->n == 0 ? t->shape[1] : *in;
        sizes->size[sizes->n] = t->shape[0];
    }
}

static vae_status read_torch(const vae_weights *w, shape_facts *f, vae_error *err)
{
    const vae_weight *fc1 = need_matrix(w, "fc1", err);
    const vae_weight *fc21 = fc1 != NULL ? need_matrix(w, "fc21", err) : NULL;
    const vae_weight *fc3 = fc21 != NULL ? need_matrix(w, "fc3", err) : NULL;
    if (fc3 == NULL) {
        return VAE_ERR_DATA;
    }
    f->d = fc1->shape[1];
    f->z = fc21->shape[0];
    f->hidden = (vae_sizes){1, {fc1->shape[0]}};
    f->decoder = (vae_sizes){1, {fc3->shape[0]}};
    f->learned = vae_weights_find(w, "fc41.weight") != NULL;
    return VAE_OK;
}

/* Channels of the encoder's convolutions. */
static vae_status read_conv(const vae_weights *w, shape_facts *f, vae_error *err)
{
    for (const vae_weight *t; (t = find_kernel(w, "encoder", f->conv.n)) != NULL;) {
        if (f->conv.n == VAE_MAX_LAYERS || t->shape[0] == 0 || t->shape[1] == 0 ||
            t->shape[2] != 4 || t->shape[3] != 4) {
            return vae_fail(err, VAE_ERR_DATA,
                            "%s: tensor 'encoder.%zu.weight': expected (out,in,4,4) and at most %d "
                            "convolutions: stride 2, padding 1, each halving the picture",
                            w->path, f->conv.n, VAE_MAX_LAYERS);
        }
        f->channels = f->conv.n == 0 ? t->shape[1] : f->channels;
        f->conv.size[f->conv.n++] = t->shape[0];
    }
    return VAE_OK;
}

/* f->d is what the first linear layer takes of the smallest picture; then of the data. */
static vae_status enlarge(const vae_weights *w, shape_facts *f, vae_error *err)
{
    const size_t small = f->conv.n > 0 ? f->conv.size[f->conv.n - 1] : 1;
    size_t d = f->d / small;
    bool fits = f->d % small == 0;
    for (size_t i = 0; i < f->conv.n; i++) {
        fits = fits && !__builtin_mul_overflow(d, (size_t)4, &d);
    }
    fits = fits && (f->conv.n == 0 || !__builtin_mul_overflow(d, f->channels, &d));
    if (!fits) {
        return vae_fail(err, VAE_ERR_DATA,
                        "%s: the first linear layer takes %zu values, which are no pictures of %zu "
                        "channels",
                        w->path, f->d, small);
    }
    f->d = d;
    return VAE_OK;
}

static vae_status read_facts(const vae_weights *w, shape_facts *f, vae_error *err)
{
    *f = (shape_facts){.torch = vae_weights_find(w, "mu.weight") == NULL};
    if (f->torch) {
        return read_torch(w, f, err);
    }
    const vae_weight *mu = need_matrix(w, "mu", err);
    if (mu == NULL) {
        return VAE_ERR_DATA;
    }
    f->d = mu->shape[1];
    f->z = mu->shape[0];
    vae_status status = VAE_OK;
    TRY(read_conv(w, f, err));
    const vae_weight *kernel = vae_weights_find(w, "output.weight");
    size_t z_in = f->z;
    if (f->conv.n > 0) {
        f->learned = kernel != NULL && kernel->ndim == 4 && kernel->shape[1] == 2 * f->channels;
    } else {
        f->learned = vae_weights_find(w, "output_mean.weight") != NULL;
        const vae_weight *output = need_matrix(w, f->learned ? "output_mean" : "output", err);
        if (output == NULL) {
            return VAE_ERR_DATA;
        }
        z_in = output->shape[1]; /* where there are no hidden layers */
    }
    TRY(read_hidden(w, "encoder", f->conv.n, &f->hidden, &f->d, err));
    TRY(read_hidden(w, "decoder", 0, &f->decoder, &z_in, err));
    if (f->conv.n > 0 && f->decoder.n > 0) {
        f->decoder.n--; /* what makes the smallest picture */
    }
    f->c = z_in > f->z ? z_in - f->z : 0;
done:
    return status;
}

/* ---- config ---- */

static void sizes_text(const vae_sizes *sizes, char *text, size_t size)
{
    size_t used = 0;
    text[0] = '\0';
    for (size_t i = 0; i < sizes->n && used < size; i++) {
        used +=
            (size_t)snprintf(text + used, size - used, "%s%zu", i > 0 ? "," : "", sizes->size[i]);
    }
}

static bool same_sizes(const vae_sizes *a, const vae_sizes *b)
{
    return a->n == b->n && memcmp(a->size, b->size, a->n * sizeof a->size[0]) == 0;
}

static bool was_given(const vae_import_options *options, const char *name)
{
    return vae_option_in(&options->given, vae_config_find(name));
}

/* Options set by the user win over the file's. */
static vae_status choose_options(vae_config *config, bool *has_config, const vae_weights *w,
                                 const json_t *metadata, const vae_import_options *options,
                                 vae_error *err)
{
    const char *text = vae_metadata_text(metadata, "config");
    vae_config_defaults(config);
    *has_config = text != NULL;
    if (text != NULL) {
        vae_error why = {0};
        if (vae_config_from_json(config, text, "config", &why) != VAE_OK) {
            return vae_fail(err, why.status == VAE_ERR_USAGE ? VAE_ERR_DATA : why.status,
                            "%s: metadata: %s", w->path, why.text);
        }
        config->cache[0] = '\0'; /* a file of the machine it was trained on */
    } else if (options->config != NULL) {
        *config = *options->config;
    }
    size_t n;
    vae_status status = VAE_OK;
    const vae_option *table = vae_config_options(&n);
    for (size_t i = 0; text != NULL && options->config != NULL && i < n; i++) {
        char value[VAE_PATH];
        if (vae_option_in(&options->given, i)) {
            vae_config_get(options->config, table[i].name, value, sizeof value);
            TRY(vae_config_set(config, table[i].name, value, err));
        }
    }
    config->out[0] = '\0';
done:
    return status;
}

/* A contradiction is the user's (VAE_ERR_USAGE) or the file's (VAE_ERR_DATA). */
static vae_status contradiction(const vae_weights *w, const vae_import_options *options,
                                const char *option, const char *said, const char *found,
                                vae_error *err)
{
    return was_given(options, option)
               ? vae_fail(err, VAE_ERR_USAGE,
                          "--%s %s: but the tensors of %s have %s; leave it out", option, said,
                          w->path, found)
               : vae_fail(err, VAE_ERR_DATA, "%s: metadata says %s %s, but the tensors have %s",
                          w->path, option, said, found);
}

static vae_status check_sizes(const vae_config *config, const shape_facts *f, const vae_weights *w,
                              const vae_import_options *options, bool trusted, vae_error *err)
{
    char said[VAE_PATH], found[VAE_PATH];
    const vae_sizes decoder = vae_config_decoder(config);
    if ((trusted || was_given(options, "conv")) && !same_sizes(&config->conv, &f->conv)) {
        sizes_text(&config->conv, said, sizeof said);
        sizes_text(&f->conv, found, sizeof found);
        return contradiction(w, options, "conv", said, found, err);
    }
    if ((trusted || was_given(options, "hidden")) && !same_sizes(&config->hidden, &f->hidden)) {
        sizes_text(&config->hidden, said, sizeof said);
        sizes_text(&f->hidden, found, sizeof found);
        return contradiction(w, options, "hidden", said, found, err);
    }
    if ((trusted || was_given(options, "decoder-hidden")) && !same_sizes(&decoder, &f->decoder)) {
        sizes_text(&decoder, said, sizeof said);
        sizes_text(&f->decoder, found, sizeof found);
        return contradiction(w, options, "decoder-hidden", said, found, err);
    }
    if ((trusted || was_given(options, "latent")) && config->latent != f->z) {
        snprintf(said, sizeof said, "%zu", config->latent);
        snprintf(found, sizeof found, "%zu", f->z);
        return contradiction(w, options, "latent", said, found, err);
    }
    const bool learned = vae_likelihood_of(config->likelihood)->outputs == 2;
    if ((trusted || was_given(options, "likelihood") || learned) && learned != f->learned) {
        vae_config_get(config, "likelihood", said, sizeof said);
        return contradiction(w, options, "likelihood", said,
                             f->learned ? "a learned variance (gaussian-learned)"
                                        : "one output layer (bernoulli or gaussian)",
                             err);
    }
    return VAE_OK;
}

/* Classes that options or metadata speak of and those of the tensors. */
static vae_status settle_classes(vae_config *config, shape_facts *f, const vae_weights *w,
                                 const vae_import_options *options, vae_error *err)
{
    char said[24], found[24];
    if (config->stack[0] != '\0') {
        return vae_fail(err, VAE_ERR_USAGE,
                        "%s: a stacked model, whose data are another run's latents; keep its "
                        "checkpoint",
                        w->path);
    }
    if (!vae_config_has_classes(config)) {
        return f->c == 0 ? VAE_OK
                         : vae_fail(err, VAE_ERR_DATA,
                                    "%s: the decoder takes %zu columns beside the %zu latents: if "
                                    "they are classes, say --condition labels or --semi-supervised",
                                    w->path, f->c, f->z);
    }
    if (f->c == 0 || f->c >= f->d || (config->classes != 0 && config->classes != f->c)) {
        snprintf(said, sizeof said, "%zu", config->classes);
        snprintf(found, sizeof found, "%zu", f->c);
        return contradiction(w, options, "classes", said, found, err);
    }
    config->classes = f->c;
    f->d -= f->c;
    return VAE_OK;
}

static vae_status make_config(vae_config *config, shape_facts *f, const vae_weights *w,
                              const json_t *metadata, const vae_import_options *options,
                              vae_error *err)
{
    bool has_config;
    vae_status status = VAE_OK;
    TRY(choose_options(config, &has_config, w, metadata, options, err));
    TRY(settle_classes(config, f, w, options, err));
    TRY(enlarge(w, f, err));
    TRY(check_sizes(config, f, w, options, has_config, err));
    config->conv = f->conv;
    config->hidden = f->hidden;
    config->latent = f->z;
    config->decoder_hidden = (vae_sizes){0};
    const vae_sizes mirrored = vae_config_decoder(config);
    if (!same_sizes(&mirrored, &f->decoder)) {
        config->decoder_hidden = f->decoder;
    }
    if (f->learned) {
        config->likelihood = VAE_GAUSSIAN_LEARNED;
    }
done:
    return status;
}

/* ---- tensors ---- */

/* A file may spell a model of one hidden layer in the regular names, too. */
static void use_regular_names(vae_named_tensor *tensors, size_t n)
{
    static const char *const names[][2] = {{"fc1.", "encoder.0."},     {"fc21.", "mu."},
                                           {"fc22.", "logvar."},       {"fc3.", "decoder.0."},
                                           {"fc4.", "output."},        {"fc41.", "output_mean."},
                                           {"fc42.", "output_logvar."}};
    for (size_t i = 0; i < n; i++) {
        for (size_t k = 0; k < sizeof names / sizeof names[0]; k++) {
            const size_t length = strlen(names[k][0]);
            if (strncmp(tensors[i].name, names[k][0], length) == 0) {
                char kind[VAE_EXPORT_NAME];
                snprintf(kind, sizeof kind, "%s", tensors[i].name + length);
                snprintf(tensors[i].name, VAE_EXPORT_NAME, "%s%.16s", names[k][1], kind);
                break;
            }
        }
    }
}

static void shape_text(const size_t *shape, size_t ndim, char *text, size_t size)
{
    size_t used = (size_t)snprintf(text, size, "(");
    for (size_t i = 0; i < ndim && used < size; i++) {
        used += (size_t)snprintf(text + used, size - used, "%s%zu", i > 0 ? "," : "", shape[i]);
    }
    if (used < size) {
        snprintf(text + used, size - used, ")");
    }
}

static vae_status check_tensor(const vae_weights *w, const vae_named_tensor *want, vae_error *err)
{
    char expected[64], found[200];
    const vae_weight *t = vae_weights_find(w, want->name);
    shape_text(want->shape, want->ndim, expected, sizeof expected);
    if (t == NULL) {
        return vae_fail(err, VAE_ERR_DATA, "%s: tensor '%s' is missing; expected shape %s", w->path,
                        want->name, expected);
    }
    if (t->ndim != want->ndim || memcmp(t->shape, want->shape, t->ndim * sizeof t->shape[0]) != 0) {
        const bool turned = t->ndim == 2 && want->ndim == 2 && t->shape[0] == want->shape[1] &&
                            t->shape[1] == want->shape[0];
        shape_text(t->shape, t->ndim, found, sizeof found);
        return vae_fail(err, VAE_ERR_DATA, "%s: tensor '%s': expected shape %s, found %s%s",
                        w->path, want->name, expected, found,
                        turned ? "; it is transposed: weights are (out,in)" : "");
    }
    if (!t->is_float) {
        return vae_fail(err, VAE_ERR_DATA, "%s: tensor '%s': expected float32, found %s", w->path,
                        want->name, t->dtype);
    }
    return VAE_OK;
}

static vae_status check_tensors(const vae_weights *w, const vae_named_tensor *want, size_t n,
                                vae_error *err)
{
    vae_status status = VAE_OK;
    for (size_t i = 0; i < n; i++) {
        TRY(check_tensor(w, &want[i], err));
    }
    for (size_t i = 0; i < w->n; i++) {
        bool known = false;
        for (size_t k = 0; k < n && !known; k++) {
            known = strcmp(w->tensors[i].name, want[k].name) == 0;
        }
        if (!known) {
            TRY(vae_fail(err, VAE_ERR_DATA,
                         "%s: unexpected tensor '%.100s': expected the %zu tensors of this model, "
                         "%s to %s, and found %zu; leave out what is not the model's",
                         w->path, w->tensors[i].name, n, want[0].name, want[n - 1].name, w->n));
        }
    }
done:
    return status;
}

static vae_status read_tensors(float *params, const vae_weights *w, const vae_named_tensor *want,
                               size_t n, vae_error *err)
{
    vae_status status = VAE_OK;
    for (size_t i = 0; i < n; i++) {
        float *values = params + want[i].offset;
        TRY(vae_weights_read(w, vae_weights_find(w, want[i].name), values, err));
        const size_t cols = want[i].ndim > 1 ? want[i].n / want[i].shape[0] : 1;
        for (size_t k = 0; k < want[i].n; k++) {
            if (!isfinite(values[k])) {
                TRY(vae_fail(err, VAE_ERR_DATA,
                             "%s: tensor '%s': element (%zu,%zu) is %g; expected finite numbers",
                             w->path, want[i].name, k / cols, k % cols, (double)values[k]));
            }
        }
    }
done:
    return status;
}

/* ---- all of it ---- */

static vae_status fill(vae_checkpoint *c, const vae_weights *w, const json_t *metadata,
                       const vae_import_options *options, vae_error *err)
{
    shape_facts facts;
    param_layout layout = {0};
    vae_named_tensor want[VAE_EXPORT_TENSORS];
    vae_error why = {0};
    float *theirs = NULL;
    vae_status status = VAE_OK;
    TRY(read_facts(w, &facts, err));
    TRY(make_config(&c->config, &facts, w, metadata, options, err));
    c->d = facts.d;
    TRY(vae_import_shape(c, w, metadata, options, err));
    status = vae_layout_build(&layout, &c->config, vae_checkpoint_shape(c), &why);
    if (status != VAE_OK) {
        TRY(vae_fail(err, status == VAE_ERR_USAGE ? VAE_ERR_DATA : status, "%s: %s", w->path,
                     why.text));
    }
    const size_t n = vae_export_tensors(&layout, want);
    c->n_params = layout.n_params;
    if (!facts.torch) {
        use_regular_names(want, n);
    }
    TRY(check_tensors(w, want, n, err));
    TRY(vae_import_data(c, w, metadata, err));
    c->params = malloc(c->n_params * sizeof(float));
    if (c->params == NULL) {
        TRY(vae_fail_memory(err, c->n_params * sizeof(float), "weights"));
    }
    theirs = malloc(c->n_params * sizeof *theirs);
    if (theirs == NULL) {
        TRY(vae_fail_memory(err, c->n_params * sizeof *theirs, "weights"));
    }
    TRY(read_tensors(theirs, w, want, n, err));
    vae_export_order(&layout, c->params, theirs, true);
done:
    free(theirs);
    vae_layout_clear(&layout);
    return status;
}

vae_status vae_import_weights(vae_checkpoint **out, const vae_weights *w,
                              const vae_import_options *options, vae_error *err)
{
    vae_checkpoint *c = calloc(1, sizeof *c);
    json_t *metadata = NULL;
    vae_status status = VAE_OK;
    *out = NULL;
    if (c == NULL) {
        TRY(vae_fail_memory(err, sizeof *c, "a checkpoint"));
    }
    c->state.best = INFINITY;
    if (w->metadata != NULL) {
        const size_t n = strlen(w->metadata);
        if (vae_json_read(&metadata, w->metadata, n, JSON_REJECT_DUPLICATES, NULL) ==
            VAE_ERR_RUNTIME) {
            TRY(vae_fail(err, VAE_ERR_RUNTIME, "%s: out of memory for its metadata", w->path));
        }
        if (!json_is_object(metadata)) {
            TRY(vae_fail(err, VAE_ERR_DATA, "%s: metadata: expected a JSON object", w->path));
        }
    }
    TRY(fill(c, w, metadata, options, err));
    *out = c;
    c = NULL;
done:
    json_decref(metadata);
    vae_checkpoint_free(c);
    return status;
}

vae_status vae_import(vae_checkpoint **out, const char *path, const vae_import_options *options,
                      vae_error *err)
{
    vae_weights w;
    *out = NULL;
    vae_status status = vae_weights_open(&w, path, err);
    if (status == VAE_OK) {
        status = vae_import_weights(out, &w, options, err);
        vae_weights_close(&w);
    }
    return status;
}

vae_status vae_open_weights(vae_checkpoint **out, const char *path, char found[VAE_PATH],
                            vae_error *err)
{
    static const vae_import_options options;
    bool weights;
    vae_status status = VAE_OK;
    TRY(vae_weights_is_file(&weights, path, err));
    if (weights) {
        snprintf(found, VAE_PATH, "%s", path);
        TRY(vae_import(out, path, &options, err));
    } else {
        TRY(vae_checkpoint_open_run(out, path, false, false, found, err));
    }
done:
    return status;
}
