/* Reading checkpoints, which are untrusted: anyone may hand one over. The format is described in
 * checkpoint.c. Nothing is allocated before its size was compared with the file's, and every number
 * is checked before it is used. Opening files is checkpoint_file.c. */
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "model/layout.h"
#include "run/checkpoint_format.h"

typedef struct {
    char tag[SECTION_TAG_BYTES + 1];
    uint32_t crc;
    uint64_t offset, length;
} section;

typedef struct {
    const vae_checkpoint_source *source;
    section sections[MAX_SECTIONS];
    size_t n;
} reader;

static vae_status damaged(const reader *r, vae_error *err, const char *what)
{
    return vae_fail(err, VAE_ERR_DATA, "%s: damaged checkpoint: %s", r->source->name, what);
}

static uint32_t get_u32(const unsigned char *at)
{
    uint32_t value;
    memcpy(&value, at, sizeof value);
    return value;
}

static uint64_t get_u64(const unsigned char *at)
{
    uint64_t value;
    memcpy(&value, at, sizeof value);
    return value;
}

static double get_double(const unsigned char *at)
{
    double value;
    memcpy(&value, at, sizeof value);
    return value;
}

/* ---- header and table ---- */

static vae_status check_header(const reader *r, const unsigned char *header, vae_error *err)
{
    const char *name = r->source->name;
    if (memcmp(header, vae_checkpoint_magic, sizeof vae_checkpoint_magic) != 0) {
        return vae_fail(err, VAE_ERR_DATA,
                        "%s: not a checkpoint of vae: it begins with %02x %02x %02x %02x, expected "
                        "89 56 41 45",
                        name, header[0], header[1], header[2], header[3]);
    }
    if (get_u32(header + 12) != (uint32_t)ENDIAN_TAG) {
        return vae_fail(err, VAE_ERR_DATA,
                        "%s: offset 12: endian tag %08" PRIx32 ", expected %08x: damaged, or "
                        "written on a machine of another byte order",
                        name, get_u32(header + 12), ENDIAN_TAG);
    }
    if (get_u32(header + 8) != FORMAT_VERSION) {
        return vae_fail(err, VAE_ERR_DATA,
                        "%s: offset 8: format version %" PRIu32 ", this vae reads version %d: use "
                        "the vae that wrote it, or a newer one",
                        name, get_u32(header + 8), FORMAT_VERSION);
    }
    uint32_t n = get_u32(header + 16);
    if (n < 1 || n > MAX_SECTIONS) {
        return vae_fail(err, VAE_ERR_DATA, "%s: offset 16: %" PRIu32 " sections, expected 1 to %d",
                        name, n, MAX_SECTIONS);
    }
    if (get_u64(header + 24) != r->source->size) {
        return vae_fail(err, VAE_ERR_DATA,
                        "%s: the header says %" PRIu64 " bytes, the file has %" PRIu64 "%s", name,
                        get_u64(header + 24), r->source->size,
                        r->source->size < get_u64(header + 24) ? ": it is cut short" : "");
    }
    return VAE_OK;
}

/* Sections lie in the order of the table, 64-aligned, with nothing but zeros between them. */
static vae_status check_place(const reader *r, const section *s, uint64_t end, vae_error *err)
{
    const uint64_t size = r->source->size, start = vae_align(end);
    unsigned char gap[ALIGNMENT];
    if (s->offset != start || start > size || s->length > size - start) {
        return vae_fail(err, VAE_ERR_DATA,
                        "%s: section %s: offset %" PRIu64 " and length %" PRIu64
                        ", expected offset %" PRIu64 " and an end within %" PRIu64 " bytes",
                        r->source->name, s->tag, s->offset, s->length, start, size);
    }
    vae_status status = VAE_OK;
    if (start > end) {
        TRY(r->source->read(r->source->ctx, gap, end, start - end, err));
    }
    for (uint64_t i = 0; i < start - end; i++) {
        if (gap[i] != 0) {
            return vae_fail(err, VAE_ERR_DATA, "%s: offset %" PRIu64 ": byte %02x, expected 00",
                            r->source->name, end + i, gap[i]);
        }
    }
done:
    return status;
}

static vae_status read_entry(reader *r, section *s, const unsigned char *entry, vae_error *err)
{
    memcpy(s->tag, entry, SECTION_TAG_BYTES);
    s->tag[SECTION_TAG_BYTES] = '\0';
    s->crc = get_u32(entry + SECTION_TAG_BYTES);
    s->offset = get_u64(entry + SECTION_TAG_BYTES + 4);
    s->length = get_u64(entry + SECTION_TAG_BYTES + 12);
    for (const char *c = s->tag; *c != '\0'; c++) {
        if ((*c < 'a' || *c > 'z') && *c != '_' && (*c < '0' || *c > '9')) {
            return damaged(r, err, "a section's name has odd characters");
        }
    }
    for (size_t i = 0; i < r->n; i++) {
        if (strcmp(r->sections[i].tag, s->tag) == 0) {
            return damaged(r, err, "two sections of one name");
        }
    }
    return VAE_OK;
}

static vae_status read_table(reader *r, vae_error *err)
{
    const vae_checkpoint_source *source = r->source;
    unsigned char header[HEADER_BYTES + MAX_SECTIONS * SECTION_BYTES];
    vae_status status = VAE_OK;
    if (source->size < HEADER_BYTES) {
        return vae_fail(err, VAE_ERR_DATA,
                        "%s: not a checkpoint of vae: %" PRIu64 " bytes, its header alone has %d",
                        source->name, source->size, HEADER_BYTES);
    }
    TRY(source->read(source->ctx, header, 0, HEADER_BYTES, err));
    TRY(check_header(r, header, err));
    const size_t n = get_u32(header + 16), bytes = HEADER_BYTES + n * SECTION_BYTES;
    if (bytes > source->size) {
        return damaged(r, err, "the table of sections is cut short");
    }
    unsigned char *table = header + HEADER_BYTES;
    TRY(source->read(source->ctx, table, HEADER_BYTES, bytes - HEADER_BYTES, err));
    const uint32_t crc = get_u32(header + HEADER_CRC_AT);
    memset(header + HEADER_CRC_AT, 0, 4);
    if (vae_crc32(0, header, bytes) != crc) {
        return damaged(r, err, "the header's CRC does not match");
    }
    uint64_t end = bytes;
    for (size_t i = 0; i < n; i++) {
        section s;
        TRY(read_entry(r, &s, table + i * SECTION_BYTES, err));
        TRY(check_place(r, &s, end, err));
        end = s.offset + s.length;
        r->sections[r->n++] = s;
    }
    if (end != source->size) {
        return damaged(r, err, "bytes behind the last section");
    }
done:
    return status;
}

vae_status vae_checkpoint_peek(const vae_checkpoint_source *source, vae_error *err)
{
    reader r = {.source = source};
    return read_table(&r, err);
}

/* ---- sections ---- */

static const section *find(const reader *r, const char *tag)
{
    for (size_t i = 0; i < r->n; i++) {
        if (strcmp(r->sections[i].tag, tag) == 0) {
            return &r->sections[i];
        }
    }
    return NULL;
}

/* Reads section `tag`, which must have `length` bytes, to `to`. */
static vae_status read_into(const reader *r, const char *tag, void *to, uint64_t length,
                            vae_error *err)
{
    const section *s = find(r, tag);
    vae_status status = VAE_OK;
    if (s == NULL) {
        return vae_fail(err, VAE_ERR_DATA, "%s: damaged checkpoint: no section %s", r->source->name,
                        tag);
    }
    if (s->length != length) {
        return vae_fail(err, VAE_ERR_DATA,
                        "%s: section %s has %" PRIu64 " bytes, expected %" PRIu64, r->source->name,
                        tag, s->length, length);
    }
    TRY(r->source->read(r->source->ctx, to, s->offset, s->length, err));
    if (vae_crc32(0, to, s->length) != s->crc) {
        return vae_fail(err, VAE_ERR_DATA,
                        "%s: damaged checkpoint: the CRC of section %s (offset %" PRIu64
                        ") does not match",
                        r->source->name, s->tag, s->offset);
    }
done:
    return status;
}

/* The same into new memory, one zero byte longer. The length is the file's, so it is bounded by
 * what is there. An absent section is *out = NULL. */
static vae_status read_new(const reader *r, const char *tag, uint64_t length, void *out,
                           vae_error *err)
{
    const section *s = find(r, tag);
    vae_status status = VAE_OK;
    if (s == NULL) {
        return VAE_OK;
    }
    if (s->length != length || length > SIZE_MAX - 1) {
        return read_into(r, tag, NULL, length, err); /* says so */
    }
    char *bytes = malloc(length + 1);
    if (bytes == NULL) {
        return vae_fail_memory(err, length + 1, tag);
    }
    TRY(read_into(r, tag, bytes, length, err));
    bytes[length] = '\0';
    *(void **)out = bytes;
    bytes = NULL;
done:
    free(bytes);
    return status;
}

static vae_status read_config(const reader *r, vae_config *config, vae_error *err)
{
    char *text = NULL, where[VAE_PATH + 32];
    vae_error inner = {0};
    vae_status status = VAE_OK;
    const section *s = find(r, "config");
    if (s == NULL || s->length > MAX_CONFIG_BYTES) {
        return damaged(r, err, "no section config, or one that is too long");
    }
    TRY(read_new(r, "config", s->length, &text, err));
    vae_config_defaults(config);
    snprintf(where, sizeof where, "%.512s: config", r->source->name);
    if (strlen(text) != s->length) {
        TRY(damaged(r, err, "a zero byte in section config"));
    }
    if (vae_config_from_json(config, text, where, &inner) != VAE_OK) {
        /* what is wrong with the file is no wrong usage */
        TRY(vae_fail(err, inner.status == VAE_ERR_USAGE ? VAE_ERR_DATA : inner.status, "%s",
                     inner.text));
    }
done:
    free(text);
    return status;
}

static vae_status read_shape(const reader *r, vae_checkpoint *c, vae_error *err)
{
    unsigned char shape[SHAPE_BYTES];
    uint64_t size[5], product, values;
    vae_status status = VAE_OK;
    TRY(read_into(r, "shape", shape, sizeof shape, err));
    for (size_t i = 0; i < 5; i++) {
        size[i] = get_u64(shape + 8 * i);
    }
    /* d floats are in the file at least once: as biases of the decoder */
    if (size[0] == 0 || size[0] > r->source->size / sizeof(float) ||
        __builtin_mul_overflow(size[1], size[2], &product) ||
        __builtin_mul_overflow(product, size[3], &values) || values != size[0]) {
        return vae_fail(err, VAE_ERR_DATA,
                        "%s: data of %" PRIu64 " columns as %" PRIu64 " x %" PRIu64 " x %" PRIu64
                        ", in a file of %" PRIu64 " bytes",
                        r->source->name, size[0], size[1], size[2], size[3], r->source->size);
    }
    c->d = size[0];
    c->height = size[1];
    c->width = size[2];
    c->channels = size[3];
    c->n_params = size[4];
    memcpy(c->data_sha256, shape + 40, sizeof c->data_sha256);
done:
    return status;
}

/* The table of tensors must be what the config gives. */
static vae_status check_tensors(const reader *r, const vae_checkpoint *c, vae_error *err)
{
    unsigned char table[2 * VAE_MAX_LAYER_ROWS * TENSOR_BYTES];
    param_layout layout;
    vae_error inner = {0};
    vae_status status = VAE_OK;
    if (vae_layout_build(&layout, &c->config, vae_checkpoint_shape(c), &inner) != VAE_OK) {
        return vae_fail(err, inner.status == VAE_ERR_USAGE ? VAE_ERR_DATA : inner.status,
                        "%s: %.900s", r->source->name, inner.text);
    }
    if (layout.n_params != c->n_params) {
        TRY(vae_fail(err, VAE_ERR_DATA, "%s: the options give %zu parameters, the file says %zu",
                     r->source->name, layout.n_params, c->n_params));
    }
    TRY(read_into(r, "tensors", table, layout.n * TENSOR_BYTES, err));
    for (size_t i = 0, offset = 0; i < layout.n; i++) {
        const tensor_desc *t = &layout.tensors[i];
        const unsigned char *row = table + i * TENSOR_BYTES;
        if (memcmp(row, t->name, TENSOR_NAME_BYTES) != 0 || get_u64(row + 32) != t->rows ||
            get_u64(row + 40) != t->cols || get_u64(row + 48) != offset) {
            TRY(vae_fail(err, VAE_ERR_DATA,
                         "%s: tensor %zu is %.31s, %" PRIu64 " x %" PRIu64
                         ", expected %s, %zu x %zu",
                         r->source->name, i, (const char *)row, get_u64(row + 32),
                         get_u64(row + 40), t->name, t->rows, t->cols));
        }
        offset += t->rows * t->cols;
    }
done:
    vae_layout_clear(&layout);
    return status;
}

static vae_status read_state(const reader *r, vae_train_state *s, vae_error *err)
{
    unsigned char at[STATE_BYTES];
    vae_status status = VAE_OK;
    TRY(read_into(r, "state", at, sizeof at, err));
    s->step = get_u64(at);
    s->epoch = get_u64(at + 8);
    s->position = get_u64(at + 16);
    s->recon = get_double(at + 24);
    s->kl = get_double(at + 32);
    s->objective = get_double(at + 40);
    s->examples = get_double(at + 48);
    s->best = get_double(at + 56);
    s->best_epoch = get_u64(at + 64);
    s->bad_epochs = get_u64(at + 72);
    s->wall_s = get_double(at + 80);
    s->finished = get_u64(at + 88) != 0;
    /* noise counts steps in 40 bits, the upper half of which is for evaluation */
    if (s->step >= (uint64_t)1 << 39 || s->epoch > s->step || get_u64(at + 88) > 1 ||
        !isfinite(s->recon + s->kl + s->objective + s->examples + s->wall_s) || isnan(s->best)) {
        return damaged(r, err, "the state of training makes no sense");
    }
done:
    return status;
}

static vae_status read_variance(const reader *r, vae_train_state *s, vae_error *err)
{
    unsigned char at[VARIANCE_BYTES];
    vae_status status = VAE_OK;
    if (find(r, "variance") == NULL) {
        return VAE_OK;
    }
    TRY(read_into(r, "variance", at, sizeof at, err));
    s->variance_recon = get_double(at);
    s->variance_examples = get_double(at + 8);
    if (!isfinite(s->variance_recon) || !(s->variance_examples >= 0) ||
        s->variance_examples > s->examples) {
        return damaged(r, err, "the state of the variance makes no sense");
    }
done:
    return status;
}

static vae_status read_summary(const reader *r, vae_checkpoint *c, vae_error *err)
{
    const section *s = find(r, "summary");
    if (s == NULL) {
        return VAE_OK;
    }
    if (s->length >= sizeof c->summary) {
        return damaged(r, err, "section summary is too long");
    }
    return read_into(r, "summary", c->summary, s->length, err);
}

/* Doubles, or the floats of earlier versions. */
static vae_status read_standard(const reader *r, vae_checkpoint *c, vae_error *err)
{
    const section *s = find(r, "standard");
    const size_t n = 2 * c->d;
    float *floats = NULL;
    vae_status status = VAE_OK;
    if (s != NULL && s->length == n * sizeof *floats) {
        TRY(read_new(r, "standard", n * sizeof *floats, &floats, err));
        c->standard = malloc(n * sizeof *c->standard);
        if (c->standard == NULL) {
            TRY(vae_fail_memory(err, n * sizeof *c->standard, "shift and scale"));
        }
        for (size_t i = 0; i < n; i++) {
            c->standard[i] = (double)floats[i];
        }
    } else {
        TRY(read_new(r, "standard", n * sizeof *c->standard, &c->standard, err));
    }
    for (size_t i = 0; c->standard != NULL && i < n; i++) {
        if (!isfinite(c->standard[i]) || (i >= c->d && !(c->standard[i] > 0))) {
            TRY(damaged(r, err, "section standard holds no shift and scale"));
        }
    }
done:
    free(floats);
    return status;
}

/* As many names as there are values in a row. */
static vae_status read_columns(const reader *r, vae_checkpoint *c, vae_error *err)
{
    const section *s = find(r, "columns");
    vae_status status = VAE_OK;
    size_t names = 0;
    if (s == NULL) {
        return VAE_OK;
    }
    TRY(read_new(r, "columns", s->length, &c->columns, err));
    const char end = memchr(c->columns, '\0', s->length) != NULL ? '\0' : '\n';
    for (size_t i = 0; i < s->length; i++) {
        if (c->columns[i] == end) {
            c->columns[i] = '\0';
            names++;
        }
    }
    if (names != c->d || c->columns[s->length - 1] != '\0') {
        TRY(damaged(r, err, "section columns does not name each column"));
    }
done:
    return status;
}

static vae_status read_classes(const reader *r, vae_checkpoint *c, vae_error *err)
{
    const section *s = find(r, "classes");
    vae_error why = {0};
    char *names = NULL;
    vae_status status = VAE_OK;
    if (s != NULL) {
        TRY(read_new(r, "classes", s->length, &names, err));
        if (s->length == 0 || names[s->length - 1] != '\0' ||
            vae_classes_read(&c->classes, names, s->length, &why) == VAE_ERR_DATA) {
            TRY(damaged(r, err, "section classes does not name classes"));
        }
        if (why.status != VAE_OK) { /* no memory: that is no damage */
            TRY(vae_fail(err, why.status, "%s: %.900s", r->source->name, why.text));
        }
        c->classes_known = true;
        TRY(read_new(r, "class_rows", c->classes.n * sizeof *c->class_rows, &c->class_rows, err));
    }
    if (vae_checkpoint_settle_classes(c, &why) != VAE_OK) {
        TRY(vae_fail(err, why.status, "%s: %.900s", r->source->name, why.text));
    }
done:
    free(names);
    return status;
}

vae_status vae_checkpoint_parse(vae_checkpoint **out, const vae_checkpoint_source *source,
                                bool moments, vae_error *err)
{
    reader r = {.source = source};
    vae_status status = VAE_OK;
    *out = NULL;
    vae_checkpoint *c = calloc(1, sizeof *c);
    if (c == NULL) {
        return vae_fail_memory(err, sizeof *c, "a checkpoint");
    }
    TRY(read_table(&r, err));
    TRY(read_config(&r, &c->config, err));
    TRY(read_shape(&r, c, err));
    TRY(check_tensors(&r, c, err));
    TRY(read_state(&r, &c->state, err));
    TRY(read_variance(&r, &c->state, err));
    TRY(read_summary(&r, c, err));
    const uint64_t floats = (uint64_t)c->n_params * sizeof(float);
    TRY(read_new(&r, "params", floats, &c->params, err));
    if (c->params == NULL) {
        TRY(damaged(&r, err, "no section params"));
    }
    if (moments) {
        TRY(read_new(&r, "adam_m", floats, &c->adam_m, err));
        TRY(read_new(&r, "adam_v", floats, &c->adam_v, err));
    }
    TRY(read_new(&r, "data_mean", c->d * sizeof(float), &c->data_mean, err));
    TRY(read_standard(&r, c, err));
    TRY(read_columns(&r, c, err));
    TRY(read_classes(&r, c, err));
    *out = c;
    c = NULL;
done:
    vae_checkpoint_free(c);
    return status;
}

static vae_status read_memory(void *ctx, void *to, uint64_t offset, size_t n, vae_error *err)
{
    (void)err;
    memcpy(to, (const char *)ctx + offset, n);
    return VAE_OK;
}

vae_status vae_checkpoint_parse_memory(vae_checkpoint **out, const void *bytes, size_t n,
                                       const char *name, bool moments, vae_error *err)
{
    vae_checkpoint_source source = {.size = n, .name = name, .read = read_memory};
    memcpy(&source.ctx, &bytes, sizeof bytes); /* only read from */
    return vae_checkpoint_parse(out, &source, moments, err);
}
