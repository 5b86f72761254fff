/* The decoder in the page: its weights, and what page.js needs to know of it. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/half.h"
#include "base/text.h"
#include "report/internal.h"
#include "stats/latent_walk.h"
#include "vae_math.h"

enum {
    MOST_BYTES = 16 << 20,     /* of weights in the page; base64 makes them a third longer */
    TRIALS = 32,               /* latents that a trial of float16 decodes ... */
    TRIAL_PRODUCTS = 40 << 20, /* ... as long as it takes no more multiplications than this */
};
/* Of a pixel of 1/255: what rounding the weights to float16 may cost. */
static const double most_half_error = 0.25;

/* ---- the decoder's own weights ---- */

/* The output layer of a learned variance gives log variances, too, which no picture shows. */
static void find_shape(report_decoder *d, const param_layout *layout)
{
    d->n_layers = layout->n_decoder;
    for (size_t i = 0; i < d->n_layers; i++) {
        const layer_desc *layer = &layout->layers[layout->n_encoder + i];
        d->in[i] = layer->in;
        d->out[i] = i + 1 < d->n_layers ? layer->out : layout->d;
        d->n[i] = d->in[i] * d->out[i];
        d->n_bias[i] = d->out[i];
        if (layer->is_conv) {
            vae_conv g = layer->conv;
            g.parts = 1;
            d->conv[i] = g;
            d->n[i] = g.c * vae_conv_patch(g);
            d->n_bias[i] = g.C;
        }
        d->n_weights += d->n[i] + d->n_bias[i];
        d->products += vae_layer_products(layer);
    }
    d->classes = d->in[0] - layout->z; /* of a conditional model: one-hot, behind z */
}

static void copy_weights(report_decoder *d, const param_layout *layout, const float *packed)
{
    size_t offset = 0;
    float *to = d->weights;
    for (size_t t = 0; t < layout->n; t++) {
        const tensor_desc *tensor = &layout->tensors[t];
        const size_t first = 2 * layout->n_encoder, i = (t - first) / 2;
        if (t >= first && i < d->n_layers) {
            const bool kernels = t % 2 == 0 && d->conv[i].kernel > 0;
            /* of kernels, those of the mean; else all rows of the mean lie first */
            const size_t row = kernels ? vae_conv_patch(d->conv[i]) : 0;
            for (size_t o = 0; kernels && o < tensor->rows; o++, to += row) {
                memcpy(to, packed + offset + o * tensor->cols, row * sizeof *to);
            }
            if (!kernels) {
                const size_t n = t % 2 == 0 ? d->n[i] : d->n_bias[i];
                memcpy(to, packed + offset, n * sizeof *to);
                to += n;
            }
        }
        offset += tensor->rows * tensor->cols;
    }
}

/* ---- a trial of float16 ---- */

static size_t widest_layer(const report_decoder *d)
{
    size_t widest = 0;
    for (size_t i = 0; i < d->n_layers; i++) {
        widest = d->in[i] > widest ? d->in[i] : widest;
        widest = d->out[i] > widest ? d->out[i] : widest;
    }
    return widest;
}

/* A transposed convolution as the page does it, in double; y: (H*W*C). */
static void put_up(double *y, const float *w, const float *x, vae_conv g)
{
    const float *bias = w + g.c * vae_conv_patch(g);
    for (size_t i = 0; i < g.H * g.W * g.C; i++) {
        y[i] = (double)bias[i % g.C];
    }
    for (size_t p = 0; p < g.h * g.w; p++) {
        for (size_t o = 0; o < g.c; o++) {
            const double v = (double)x[p * g.c + o];
            const float *row = w + o * vae_conv_patch(g);
            for (size_t k = 0; v != 0 && k < g.kernel * g.kernel; k++, row += g.C) {
                const size_t at_y = p / g.w * g.stride + k / g.kernel;
                const size_t at_x = p % g.w * g.stride + k % g.kernel;
                if (at_y < g.pad || at_y >= g.H + g.pad || at_x < g.pad || at_x >= g.W + g.pad) {
                    continue;
                }
                double *to = y + ((at_y - g.pad) * g.W + at_x - g.pad) * g.C;
                for (size_t c = 0; c < g.C; c++) {
                    to[c] += v * (double)row[c];
                }
            }
        }
    }
}

static float finish(const vae_config *c, double sum, bool last)
{
    if (!last) {
        return vae_act(c->activation, (float)sum);
    }
    return vae_mean_is_sigmoid(c->likelihood, c->mean) ? vae_sigmoidf((float)sum) : (float)sum;
}

/* As the page does it: h has room for two rows of the widest layer; the result is in its first. */
static void decode(const report_decoder *d, const vae_config *c, const float *z, float *h,
                   double *sums)
{
    float *in = h, *out = h + widest_layer(d);
    const float *w = d->weights;
    memset(in, 0, d->in[0] * sizeof *in);
    memcpy(in, z, c->latent * sizeof *in);
    for (size_t i = 0; i < d->n_layers; i++) {
        const float *bias = w + d->n[i];
        if (d->conv[i].kernel > 0) {
            put_up(sums, w, in, d->conv[i]);
        }
        for (size_t o = 0; d->conv[i].kernel == 0 && o < d->out[i]; o++) {
            sums[o] = (double)bias[o];
            for (size_t k = 0; k < d->in[i]; k++) {
                sums[o] += (double)w[o * d->in[i] + k] * (double)in[k];
            }
        }
        for (size_t o = 0; o < d->out[i]; o++) {
            out[o] = finish(c, sums[o], i + 1 == d->n_layers);
        }
        w += d->n[i] + d->n_bias[i];
        float *swap = in;
        in = out;
        out = swap;
    }
    if (in != h) {
        memcpy(h, in, d->out[d->n_layers - 1] * sizeof *h);
    }
}

static double pixel(float v)
{
    return 255 * fmin(fmax((double)v, 0), 1);
}

/* Rounds all weights to float16; the largest error of a pixel over a few latents then, INFINITY if
 * a weight does not fit. The weights are exact again afterwards unless it is small enough. */
static vae_status try_half(report *r, vae_error *err)
{
    report_decoder *d = &r->decoder;
    const vae_config *c = &r->about->config;
    const size_t Z = c->latent, D = r->about->d, N = d->n_weights;
    size_t n = (size_t)(TRIAL_PRODUCTS / (2 * d->products)) + 2;
    n = n < TRIALS ? n : TRIALS;
    double *sums = malloc(widest_layer(d) * sizeof *sums);
    float *z = malloc(n * Z * sizeof *z), *h = malloc(2 * widest_layer(d) * sizeof *h);
    float *exact = malloc(N * sizeof *exact), *x = malloc(n * D * sizeof *x);
    vae_status status = VAE_OK;
    if (z == NULL || h == NULL || sums == NULL || exact == NULL || x == NULL) {
        TRY(vae_fail_memory(err, N * sizeof *exact, "a trial of float16"));
    }
    vae_prior_rows(z, c->seed, 0, n, Z, 1.5);
    for (size_t i = 0; r->has_data && i < n / 2 && i < r->latents.n; i++) {
        memcpy(z + i * Z, r->latents.mu + i * Z, Z * sizeof *z);
    }
    for (size_t i = 0; i < n; i++) {
        decode(d, c, z + i * Z, h, sums);
        memcpy(x + i * D, h, D * sizeof *x);
    }
    memcpy(exact, d->weights, N * sizeof *exact);
    d->half_error = 0;
    for (size_t i = 0; i < N; i++) {
        d->weights[i] = vae_half_to_float(vae_float_to_half(exact[i]));
        d->half_error = isfinite(d->weights[i]) ? d->half_error : INFINITY;
    }
    for (size_t i = 0; i < n && d->half_error <= most_half_error; i++) {
        decode(d, c, z + i * Z, h, sums);
        for (size_t k = 0; k < D; k++) {
            d->half_error = fmax(d->half_error, fabs(pixel(h[k]) - pixel(x[i * D + k])));
        }
    }
    d->half = d->half_error <= most_half_error;
    if (!d->half) {
        memcpy(d->weights, exact, N * sizeof *exact);
    }
done:
    free(x);
    free(exact);
    free(sums);
    free(h);
    free(z);
    return status;
}

vae_status report_make_decoder(report *r, vae_error *err)
{
    const param_layout *layout = vae_model_layout(r->on->model);
    report_decoder *d = &r->decoder;
    float *packed = NULL;
    vae_status status = VAE_OK;
    find_shape(d, layout);
    d->half_error = NAN;
    /* pictures may become float16 */
    d->too_large = d->n_weights > MOST_BYTES / (r->picture ? 2 : 4);
    if (d->too_large) {
        return VAE_OK;
    }
    packed = malloc(layout->n_params * sizeof *packed);
    d->weights = malloc(d->n_weights * sizeof *d->weights);
    if (packed == NULL || d->weights == NULL) {
        TRY(vae_fail_memory(err, layout->n_params * sizeof *packed, "the decoder's weights"));
    }
    TRY(vae_model_get(r->on->model, VAE_PARAMS, packed, err));
    copy_weights(d, layout, packed);
    if (r->picture && r->about->standard == NULL) {
        TRY(try_half(r, err));
    }
    d->too_large = !d->half && d->n_weights > MOST_BYTES / 4;
done:
    free(packed);
    return status;
}

/* ---- what the script reads ---- */

static void put_weights(report *r)
{
    const report_decoder *d = &r->decoder;
    vae_text_add(&r->page, "<script type=\"application/octet-stream\" id=\"weights\">");
    if (!d->half) {
        report_base64(&r->page, d->weights, d->n_weights * sizeof *d->weights);
    } else {
        uint16_t block[3 * 256]; /* of bytes in threes: base64 in pieces is base64 of the whole */
        for (size_t at = 0, n; at < d->n_weights; at += n) {
            n = d->n_weights - at < 3 * 256 ? d->n_weights - at : 3 * 256;
            for (size_t i = 0; i < n; i++) {
                block[i] = vae_float_to_half(d->weights[at + i]);
            }
            report_base64(&r->page, block, n * sizeof *block);
        }
    }
    vae_text_add(&r->page, "</script>\n");
}

/* JSON numbers, with null for what JSON has no number for. */
static void put_floats(vae_text *out, const float *values, size_t n)
{
    vae_text_add(out, "[");
    for (size_t i = 0; i < n; i++) {
        vae_text_add(out, isfinite(values[i]) ? "%s%.9g" : "%snull", i > 0 ? "," : "",
                     (double)values[i]);
    }
    vae_text_add(out, "]");
}

static void put_doubles(vae_text *out, const double *values, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        vae_text_add(out, "%c%.17g", i == 0 ? '[' : ',', values[i]);
    }
    vae_text_add(out, "]");
}

/* A JSON string; no "</script>" can be in it. */
static void put_string(vae_text *out, const char *text)
{
    json_t *string = json_string(text);
    char *quoted = json_dumps(string, JSON_ENCODE_ANY | JSON_ENSURE_ASCII);
    if (quoted == NULL) {
        vae_text_add(out, "\"\"");
    }
    for (const char *at = quoted; at != NULL && *at != '\0'; at++) {
        if (*at == '<') {
            vae_text_add(out, "\\u003c");
        } else {
            vae_text_put(out, at, 1);
        }
    }
    free(quoted);
    json_decref(string);
}

/* Names of a table's columns, and what leads from the model's values to theirs. */
static void put_units(report *r)
{
    const vae_checkpoint *c = r->about;
    vae_text *page = &r->page;
    if (c->standard != NULL) {
        vae_text_add(page, ",\"shift\":");
        put_doubles(page, c->standard, c->d);
        vae_text_add(page, ",\"scale\":");
        put_doubles(page, c->standard + c->d, c->d);
    }
    if (c->columns != NULL) {
        vae_text_add(page, ",\"columns\":[");
        const char *name = c->columns;
        for (size_t i = 0; i < c->d; i++, name += strlen(name) + 1) {
            vae_text_add(page, "%s", i > 0 ? "," : "");
            put_string(page, name);
        }
        vae_text_add(page, "]");
    }
}

/* Names as JSON; null for those that `of`, if given, was not trained on. */
static void put_names(vae_text *page, const char *key, const vae_classes *classes,
                      const vae_checkpoint *of)
{
    vae_text_add(page, ",\"%s\":[", key);
    for (size_t i = 0; i < classes->n; i++) {
        vae_text_add(page, "%s", i > 0 ? "," : "");
        if (of == NULL || vae_checkpoint_is_trained(of, i)) {
            put_string(page, classes->name[i]);
        } else {
            vae_text_add(page, "null");
        }
    }
    vae_text_add(page, "]");
}

static void put_points(report *r)
{
    const report_latents *l = &r->latents;
    vae_text *page = &r->page;
    vae_text_add(page, ",\"kl\":[");
    for (size_t j = 0; j < l->z; j++) {
        vae_text_add(page, "%s%.4g", j > 0 ? "," : "", l->kl[j]);
    }
    vae_text_add(page, "],\"points\":%zu,\"row\":[", l->n_points);
    for (size_t i = 0; i < l->n_points; i++) {
        vae_text_add(page, "%s%u", i > 0 ? "," : "", l->row[i]);
    }
    vae_text_add(page, "]");
    if (l->labels != NULL) {
        vae_text_add(page, ",\"label\":[");
        for (size_t i = 0; i < l->n_points; i++) {
            vae_text_add(page, "%s%d", i > 0 ? "," : "",
                         l->labels[i] != VAE_NO_LABEL ? (int)l->labels[i] : -1);
        }
        vae_text_add(page, "]");
        put_names(page, "label_names", &r->on->set->classes, NULL);
    }
    vae_text_add(page, ",\"mean\":");
    put_floats(page, l->mean, l->z);
    vae_text_add(page, ",\"axis\":");
    put_floats(page, l->axis, 2 * l->z);
}

static void put_facts(report *r)
{
    const report_decoder *d = &r->decoder;
    const vae_checkpoint *c = r->about;
    char activation[32], likelihood[32];
    const bool sigmoid = vae_mean_is_sigmoid(c->config.likelihood, c->config.mean);
    vae_text *page = &r->page;
    vae_config_get(&c->config, "activation", activation, sizeof activation);
    vae_config_get(&c->config, "likelihood", likelihood, sizeof likelihood);
    vae_text_add(page,
                 "<script type=\"application/json\" id=\"facts\">{\"z\":%zu,\"classes\":%zu,"
                 "\"height\":%zu,\"width\":%zu,\"channels\":%zu,\"picture\":%s,\"half\":%s,"
                 "\"activation\":\"%s\",\"likelihood\":\"%s\",\"sigmoid\":%s,\"layers\":[",
                 c->config.latent, d->classes, c->height, c->width, c->channels,
                 r->picture ? "true" : "false", d->half ? "true" : "false", activation, likelihood,
                 sigmoid ? "true" : "false");
    for (size_t i = 0; i < d->n_layers; i++) {
        const vae_conv g = d->conv[i];
        vae_text_add(page, "%s[%zu,%zu", i > 0 ? "," : "", d->in[i], d->out[i]);
        if (g.kernel > 0) { /* small height, width, channels, large ones, kernel, stride, padding */
            vae_text_add(page, ",[%zu,%zu,%zu,%zu,%zu,%zu,%zu,%zu,%zu]", g.h, g.w, g.c, g.H, g.W,
                         g.C, g.kernel, g.stride, g.pad);
        }
        vae_text_add(page, "]");
    }
    vae_text_add(page, "],\"order\":[");
    for (size_t j = 0; j < c->config.latent; j++) {
        vae_text_add(page, "%s%zu", j > 0 ? "," : "", r->order[j]);
    }
    vae_text_add(page, "]");
    if (d->classes > 0) {
        put_names(page, "class_names", &c->classes, c);
    }
    put_units(r);
    if (r->has_data) {
        put_points(r);
    }
    vae_text_add(page, "}</script>\n");
}

static void put_size(report *r)
{
    const report_decoder *d = &r->decoder;
    char n[32], bytes[32];
    vae_text_add(&r->page,
                 "<p class=\"fine\">The decoder runs in this page: %s weights as %s, %s bytes",
                 vae_thousands(n, (double)d->n_weights), d->half ? "float16" : "float32",
                 vae_thousands(bytes, (double)(d->n_weights * (d->half ? 2 : 4))));
    if (d->half) {
        vae_text_add(&r->page,
                     "; against float32, no pixel of the pictures tried was off by more than "
                     "%.2f/255",
                     d->half_error);
    }
    vae_text_add(&r->page, ".</p>\n");
}

static void put_scatter(report *r)
{
    const report_latents *l = &r->latents;
    char x[64] = "z0", y[64] = "z1";
    if (l->z > 2) {
        snprintf(x, sizeof x, "first principal component of mu (%.0f%%)", 100 * l->share[0]);
        snprintf(y, sizeof y, "second (%.0f%%)", 100 * l->share[1]);
    }
    vae_text_add(&r->page, "<div id=\"scatter\">");
    plot_scatter(
        &r->page,
        (plot_axes){l->labels != NULL ? "Where the data lie, by label" : "Where the data lie", x,
                    l->z > 1 ? y : "", false, false},
        l->xy, l->labels, l->n_points, (const char *const *)r->on->set->classes.name,
        r->on->set->classes.n);
    char n[32];
    vae_text_add(&r->page,
                 "</div><p class=\"fine\">Means of q(z|x) of %s example%s (%s)%s. <span "
                 "class=\"live\">Click %s to decode it.</span></p>",
                 vae_thousands(n, (double)l->n_points), vae_s(l->n_points), r->on->split,
                 l->z > 2 ? ", on the plane of their two principal components" : "",
                 l->z == 2 ? "any place" : "a point");
}

void report_put_explorer(report *r)
{
    const report_decoder *d = &r->decoder;
    vae_text *page = &r->page;
    vae_text_add(page, "<section id=\"explorer\"><h2>Latent space</h2>\n");
    if (d->too_large) {
        char n[32], most[32];
        report_note(r,
                    "The explorer is left out: the decoder has %s weights, and a page holds at "
                    "most %s bytes of them.",
                    vae_thousands(n, (double)d->n_weights), vae_thousands(most, MOST_BYTES));
    }
    if (!r->has_data) {
        report_note(r, "There is no map of the latents: %s.", r->from->missing);
    }
    vae_text_add(page, "<div class=\"explore card\">\n");
    if (!d->too_large) {
        vae_text_add(page,
                     "<div class=\"stage\" id=\"stage\"><noscript><p class=\"fine\">The explorer "
                     "needs JavaScript, which is switched off here.</p></noscript></div>\n");
    }
    if (r->has_data) {
        vae_text_add(page, "<div class=\"map\">");
        put_scatter(r);
        vae_text_add(page, "</div>\n");
    }
    vae_text_add(page, "</div>\n");
    if (!d->too_large) {
        put_size(r);
        put_facts(r);
        if (r->has_data) {
            vae_text_add(page, "<script type=\"application/octet-stream\" id=\"mu\">");
            report_base64(page, r->latents.mu, r->latents.n_points * r->latents.z * sizeof(float));
            vae_text_add(page, "</script>\n");
        }
        put_weights(r);
    }
    vae_text_add(page, "</section>\n");
}
