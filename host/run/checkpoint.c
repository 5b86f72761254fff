/* Checkpoint files. All numbers are little-endian, as the machine has them; the endian tag refuses
 * others. Every byte of a file is covered by a CRC-32 (zlib's) or must be zero:
 *
 *   0   magic      8 bytes  89 'V' 'A' 'E' 0D 0A 1A 0A (as PNG's: shows text-mode damage)
 *   8   version    u32      1; a higher one is refused
 *   12  endian     u32      0x01020304
 *   16  n_sections u32      1 .. 32
 *   20  header_crc u32      of bytes 0 .. 32 + 32*n_sections - 1, with these four taken as zero
 *   24  file_size  u64      in bytes
 *   32  sections   32 bytes each: tag (char[12], zero-padded), crc u32, offset u64, length u64
 *
 * Section 0 starts at the first multiple of 64 behind the table, each other one at the first
 * multiple of 64 behind the one before; the gaps are zero; the file ends where the last one does.
 *
 *   config     the options, as config.json
 *   shape      d, height, width, channels, n_params (u64), SHA-256 of the training set (32 bytes)
 *   tensors    for each tensor: name (char[32], zero-padded), rows, cols, offset (u64; floats,
 *              into params): what the config gives, so that other programs need not know how
 *   params     n_params floats, row-major, tensors one after another
 *   adam_m     the same (may be absent)
 *   adam_v     the same (may be absent)
 *   state      vae_train_state: step, epoch, position (u64), recon, kl, objective, examples, best
 *              (double), best_epoch, bad_epochs (u64), wall_s (double), finished (u64, 0 or 1)
 *   variance   variance_recon, variance_examples of the state (double; absent where both are 0)
 *   data_mean  d floats (may be absent)
 *   standard   d shifts, d scales: doubles (absent where data are not standardized); in older
 *              files, floats
 *   columns    names of a table's columns, UTF-8, each ended by a zero byte (absent if no table);
 *              in older files, by a line feed
 *   classes    names of the labels' classes, UTF-8, each ended by a zero byte, in the order of
 *              their indices (absent if there are no labels, and in older files)
 *   class_rows rows of each class that were trained on: a u64 a name (may be absent)
 *   summary    JSON object (may be absent)
 *
 * A reader skips sections that it does not know. checkpoint_read.c reads. */
#include "run/checkpoint.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <zlib.h>

#include "base/sha256.h"
#include "base/text.h"
#include "image/image.h"
#include "model/layout.h"
#include "run/checkpoint_format.h"
#include "run/folder.h"

uint32_t vae_crc32(uint32_t crc, const void *bytes, size_t n)
{
    return n > 0 ? (uint32_t)crc32_z(crc, bytes, n) : crc;
}

static void put(unsigned char **at, const void *bytes, size_t n)
{
    memcpy(*at, bytes, n);
    *at += n;
}

static void put_state(unsigned char *at, const vae_train_state *s)
{
    const uint64_t finished = s->finished;
    put(&at, &s->step, 8);
    put(&at, &s->epoch, 8);
    put(&at, &s->position, 8);
    put(&at, &s->recon, 8);
    put(&at, &s->kl, 8);
    put(&at, &s->objective, 8);
    put(&at, &s->examples, 8);
    put(&at, &s->best, 8);
    put(&at, &s->best_epoch, 8);
    put(&at, &s->bad_epochs, 8);
    put(&at, &s->wall_s, 8);
    put(&at, &finished, 8);
}

static void put_shape(unsigned char *at, const vae_checkpoint *c)
{
    const uint64_t sizes[5] = {c->d, c->height, c->width, c->channels, c->n_params};
    put(&at, sizes, sizeof sizes);
    put(&at, c->data_sha256, sizeof c->data_sha256);
}

/* The table of tensors; *out is malloc'ed. */
static vae_status make_tensors(unsigned char **out, size_t *size, const vae_checkpoint *c,
                               vae_error *err)
{
    param_layout layout = {.n = 0};
    uint64_t offset = 0;
    vae_status status = VAE_OK;
    TRY(vae_layout_build(&layout, &c->config, vae_checkpoint_shape(c), err));
    if (layout.n_params != c->n_params) {
        TRY(vae_fail(err, VAE_ERR_RUNTIME, "a checkpoint of %zu parameters for a model of %zu",
                     c->n_params, layout.n_params));
    }
    *size = layout.n * TENSOR_BYTES;
    *out = calloc(layout.n, TENSOR_BYTES);
    if (*out == NULL) {
        TRY(vae_fail_memory(err, *size, "the table of tensors"));
    }
    for (size_t i = 0; i < layout.n; i++) {
        const tensor_desc *t = &layout.tensors[i];
        const uint64_t row[3] = {t->rows, t->cols, offset};
        memcpy(*out + i * TENSOR_BYTES, t->name, sizeof t->name);
        memcpy(*out + i * TENSOR_BYTES + TENSOR_NAME_BYTES, row, sizeof row);
        offset += t->rows * t->cols;
    }
done:
    vae_layout_clear(&layout);
    return status;
}

/* A file in the making: parts alternate between a section and the zeros behind it. */
typedef struct {
    unsigned char header[HEADER_BYTES + MAX_SECTIONS * SECTION_BYTES];
    struct iovec parts[2 + 2 * MAX_SECTIONS];
    uint64_t size[MAX_SECTIONS];
    size_t n;
} draft;

static void add_section(draft *d, const char *tag, const void *bytes, size_t n)
{
    if (bytes == NULL) {
        return;
    }
    unsigned char *entry = d->header + HEADER_BYTES + d->n * SECTION_BYTES;
    uint32_t crc = vae_crc32(0, bytes, n);
    memcpy(entry, tag, strlen(tag));
    memcpy(entry + SECTION_TAG_BYTES, &crc, 4);
    d->size[d->n] = n;
    /* iovec is not const-correct; the bytes are only read */
    memcpy(&d->parts[2 + 2 * d->n].iov_base, &bytes, sizeof bytes);
    d->parts[2 + 2 * d->n].iov_len = n;
    d->n++;
}

/* Places the sections and fills in the header. Returns how many parts there are. */
static size_t finish_draft(draft *d)
{
    static const unsigned char zeros[ALIGNMENT];
    const uint32_t version = FORMAT_VERSION, endian = ENDIAN_TAG, n = (uint32_t)d->n;
    uint64_t at = HEADER_BYTES + d->n * SECTION_BYTES;
    d->parts[0] = (struct iovec){d->header, at};
    for (size_t i = 0; i < d->n; i++) {
        uint64_t start = vae_align(at);
        const void *gap = zeros;
        memcpy(&d->parts[1 + 2 * i].iov_base, &gap, sizeof gap);
        d->parts[1 + 2 * i].iov_len = start - at;
        unsigned char *entry = d->header + HEADER_BYTES + i * SECTION_BYTES;
        memcpy(entry + SECTION_TAG_BYTES + 4, &start, 8);
        memcpy(entry + SECTION_TAG_BYTES + 12, &d->size[i], 8);
        at = start + d->size[i];
    }
    memcpy(d->header, vae_checkpoint_magic, sizeof vae_checkpoint_magic);
    memcpy(d->header + 8, &version, 4);
    memcpy(d->header + 12, &endian, 4);
    memcpy(d->header + 16, &n, 4);
    memcpy(d->header + 24, &at, 8);
    uint32_t crc = vae_crc32(0, d->header, HEADER_BYTES + d->n * SECTION_BYTES);
    memcpy(d->header + HEADER_CRC_AT, &crc, 4);
    return 1 + 2 * d->n;
}

vae_status vae_checkpoint_write(const char *path, const vae_checkpoint *checkpoint, vae_error *err)
{
    const size_t floats = checkpoint->n_params * sizeof(float);
    unsigned char state[STATE_BYTES], shape[SHAPE_BYTES], *tensors = NULL;
    size_t tensor_bytes = 0;
    draft d = {.n = 0};
    char *config = vae_config_to_json(&checkpoint->config), *classes = NULL;
    vae_status status = VAE_OK;
    if (config == NULL) {
        TRY(vae_fail(err, VAE_ERR_RUNTIME, "out of memory for the checkpoint's options"));
    }
    TRY(make_tensors(&tensors, &tensor_bytes, checkpoint, err));
    put_state(state, &checkpoint->state);
    put_shape(shape, checkpoint);
    add_section(&d, "config", config, strlen(config));
    add_section(&d, "shape", shape, sizeof shape);
    add_section(&d, "tensors", tensors, tensor_bytes);
    add_section(&d, "params", checkpoint->params, floats);
    add_section(&d, "adam_m", checkpoint->adam_m, floats);
    add_section(&d, "adam_v", checkpoint->adam_v, floats);
    add_section(&d, "state", state, sizeof state);
    const double variance[2] = {checkpoint->state.variance_recon,
                                checkpoint->state.variance_examples};
    if (variance[1] != 0) {
        add_section(&d, "variance", variance, sizeof variance);
    }
    add_section(&d, "data_mean", checkpoint->data_mean, checkpoint->d * sizeof(float));
    add_section(&d, "standard", checkpoint->standard, 2 * checkpoint->d * sizeof(double));
    if (checkpoint->columns != NULL) {
        add_section(&d, "columns", checkpoint->columns,
                    vae_names_bytes(checkpoint->columns, checkpoint->d));
    }
    if (checkpoint->classes_known) {
        const char *const *names = (const char *const *)checkpoint->classes.name;
        classes = vae_join_names(names, checkpoint->classes.n);
        if (classes == NULL) {
            TRY(vae_fail(err, VAE_ERR_RUNTIME, "out of memory for the names of classes"));
        }
        add_section(&d, "classes", classes, vae_names_bytes(classes, checkpoint->classes.n));
        add_section(&d, "class_rows", checkpoint->class_rows,
                    checkpoint->classes.n * sizeof *checkpoint->class_rows);
    }
    if (checkpoint->summary[0] != '\0') {
        add_section(&d, "summary", checkpoint->summary, strlen(checkpoint->summary));
    }
    /* parts: header, then (gap, section) pairs; parts[1 + 2*i] is the gap before section i */
    TRY(vae_file_replace(path, d.parts, finish_draft(&d), err));
done:
    free(tensors);
    free(config);
    free(classes);
    return status;
}

void vae_checkpoint_free(vae_checkpoint *checkpoint)
{
    if (checkpoint == NULL) {
        return;
    }
    free(checkpoint->params);
    free(checkpoint->adam_m);
    free(checkpoint->adam_v);
    free(checkpoint->data_mean);
    free(checkpoint->standard);
    free(checkpoint->columns);
    vae_classes_clear(&checkpoint->classes);
    free(checkpoint->class_rows);
    free(checkpoint);
}

bool vae_checkpoint_is_trained(const vae_checkpoint *checkpoint, size_t class)
{
    return checkpoint->class_rows == NULL || checkpoint->class_rows[class] > 0;
}

size_t vae_checkpoint_trained_class(const vae_checkpoint *checkpoint, size_t k)
{
    size_t i = 0;
    while (i < checkpoint->classes.n && (!vae_checkpoint_is_trained(checkpoint, i) || k-- > 0)) {
        i++;
    }
    return i < checkpoint->classes.n ? i : SIZE_MAX;
}

size_t vae_checkpoint_n_trained(const vae_checkpoint *checkpoint)
{
    size_t n = 0;
    for (size_t i = 0; i < checkpoint->classes.n; i++) {
        n += vae_checkpoint_is_trained(checkpoint, i);
    }
    return n;
}

vae_status vae_checkpoint_settle_classes(vae_checkpoint *checkpoint, vae_error *err)
{
    const size_t C = checkpoint->config.classes;
    if (!vae_config_has_classes(&checkpoint->config)) {
        return VAE_OK;
    }
    if (!checkpoint->classes_known) {
        vae_classes_clear(&checkpoint->classes);
        return vae_classes_number(&checkpoint->classes, C, err);
    }
    return checkpoint->classes.n == C
               ? VAE_OK
               : vae_fail(err, VAE_ERR_DATA, "%zu names of classes for a model of %zu",
                          checkpoint->classes.n, C);
}

vae_status vae_checkpoint_digest(const vae_checkpoint *checkpoint, uint8_t digest[32],
                                 vae_error *err)
{
    const struct iovec params = {checkpoint->params,
                                 checkpoint->n_params * sizeof *checkpoint->params};
    return vae_sha256(digest, &params, 1, err);
}

vae_status vae_checkpoint_check_set(const vae_checkpoint *c, const vae_dataset *set, vae_error *err)
{
    const char *want = c->columns;
    /* rows that have no shape may be those of pictures; pictures of two shapes are not alike */
    const bool pictures = vae_is_picture(c->height, c->width, c->channels) &&
                          vae_is_picture(set->height, set->width, set->channels);
    if (pictures && (set->d != c->d || set->height != c->height || set->width != c->width)) {
        return vae_fail(
            err, VAE_ERR_DATA,
            "%s: pictures of %zu x %zu (width x height), %zu channel%s; the model takes "
            "%zu x %zu, %zu channel%s (%zu columns)%s",
            set->source, set->width, set->height, set->channels, vae_s(set->channels), c->width,
            c->height, c->channels, vae_s(c->channels), c->d,
            set->kind == VAE_KIND_PICTURES && c->config.image_size == 0
                ? ": resize them first, or train with --image-size N"
                : "");
    }
    if (set->d != c->d) {
        return vae_fail(err, VAE_ERR_DATA, "%s: %zu columns; the model was trained on %zu",
                        set->source, set->d, c->d);
    }
    for (size_t i = 0; want != NULL && set->column_names != NULL && i < set->d; i++) {
        if (strcmp(set->column_names[i], want) != 0) {
            return vae_fail(err, VAE_ERR_DATA,
                            "%s: column %zu is '%.40s'; the model was trained with '%.40s' there",
                            set->source, i + 1, set->column_names[i], want);
        }
        want += strlen(want) + 1;
    }
    return VAE_OK;
}

void vae_checkpoint_units(const vae_checkpoint *checkpoint, float *x, size_t n)
{
    const size_t d = checkpoint->d;
    const double *shift = checkpoint->standard;
    for (size_t i = 0; shift != NULL && i < n * d; i++) {
        x[i] = (float)((double)x[i] * shift[d + i % d] + shift[i % d]);
    }
}

vae_status vae_checkpoint_recognize(const vae_checkpoint *checkpoint, char recorded[VAE_PATH],
                                    char found[VAE_SHA256_HEX], bool *same, vae_error *err)
{
    uint8_t digest[VAE_SHA256_BYTES];
    vae_status status = VAE_OK;
    TRY(vae_checkpoint_digest(checkpoint, digest, err));
    vae_sha256_hex(digest, found);
    if (recorded[0] == '\0') {
        memcpy(recorded, found, VAE_SHA256_HEX);
    }
    *same = strcmp(recorded, found) == 0;
done:
    return status;
}
