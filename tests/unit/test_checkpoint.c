/* Checkpoints: round trip, and refusal of everything that is not one. */
#include <fcntl.h>
#include <math.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "dataset_fixture.h"
#include "model/layout.h"
#include "run/checkpoint_format.h"
#include "run/folder.h"

/* A small model with everything in it. */
static vae_checkpoint *make(bool everything)
{
    vae_checkpoint *c = calloc(1, sizeof *c);
    param_layout layout;
    assert_non_null(c);
    vae_config_defaults(&c->config);
    vae_config_set(&c->config, "hidden", "3,2", NULL);
    vae_config_set(&c->config, "latent", "2", NULL);
    vae_config_set(&c->config, "lr", "0.00072131415161718", NULL);
    c->d = 6;
    c->height = 2;
    c->width = 3;
    c->channels = 1;
    assert_int_equal(vae_layout_build(&layout, &c->config, vae_checkpoint_shape(c), NULL), VAE_OK);
    c->n_params = layout.n_params;
    vae_layout_clear(&layout);
    c->params = malloc(c->n_params * sizeof(float));
    c->adam_m = everything ? malloc(c->n_params * sizeof(float)) : NULL;
    c->adam_v = everything ? malloc(c->n_params * sizeof(float)) : NULL;
    c->data_mean = everything ? malloc(c->d * sizeof(float)) : NULL;
    for (size_t i = 0; i < c->n_params; i++) {
        c->params[i] = (float)i * 0.1f - 1;
        if (everything) {
            c->adam_m[i] = (float)i * 1e-3f;
            c->adam_v[i] = (float)i * 1e-6f;
        }
    }
    for (size_t i = 0; everything && i < c->d; i++) {
        c->data_mean[i] = (float)i / 7;
    }
    c->state = (vae_train_state){.step = 12,
                                 .epoch = 2,
                                 .position = 256,
                                 .recon = 1.5,
                                 .kl = 0.25,
                                 .objective = 2,
                                 .examples = 256,
                                 .variance_recon = everything ? 0.75 : 0,
                                 .variance_examples = everything ? 128 : 0,
                                 .best = INFINITY,
                                 .best_epoch = 0,
                                 .bad_epochs = 1,
                                 .wall_s = 3.25};
    memset(c->data_sha256, 0xA5, sizeof c->data_sha256);
    snprintf(c->summary, sizeof c->summary, "%s", everything ? "{\"epoch\":2}" : "");
    return c;
}

static void assert_same(const vae_checkpoint *a, const vae_checkpoint *b, bool moments)
{
    assert_true(vae_config_difference(&a->config, &b->config, NULL) == SIZE_MAX);
    assert_true(a->d == b->d && a->height == b->height && a->width == b->width &&
                a->channels == b->channels && a->n_params == b->n_params);
    assert_memory_equal(a->params, b->params, a->n_params * sizeof(float));
    if (moments && a->adam_m != NULL) {
        assert_memory_equal(a->adam_m, b->adam_m, a->n_params * sizeof(float));
        assert_memory_equal(a->adam_v, b->adam_v, a->n_params * sizeof(float));
    } else {
        assert_true(b->adam_m == NULL && b->adam_v == NULL);
    }
    assert_true((a->data_mean == NULL) == (b->data_mean == NULL));
    assert_true(a->state.step == b->state.step && a->state.epoch == b->state.epoch &&
                a->state.position == b->state.position && a->state.recon == b->state.recon &&
                a->state.kl == b->state.kl && a->state.objective == b->state.objective &&
                a->state.examples == b->state.examples &&
                a->state.variance_recon == b->state.variance_recon &&
                a->state.variance_examples == b->state.variance_examples &&
                a->state.best == b->state.best && a->state.best_epoch == b->state.best_epoch &&
                a->state.bad_epochs == b->state.bad_epochs && a->state.wall_s == b->state.wall_s &&
                a->state.finished == b->state.finished);
    assert_memory_equal(a->data_sha256, b->data_sha256, sizeof a->data_sha256);
    assert_string_equal(a->summary, b->summary);
}

static void test_round_trip(void **state)
{
    scratch *s = *state;
    for (int i = 0; i < 4; i++) {
        const bool everything = (i & 1) != 0, moments = (i & 2) != 0;
        vae_error err = {0};
        vae_checkpoint *a = make(everything), *b;
        const char *path = scratch_path(s, "round.vae");
        assert_int_equal(vae_checkpoint_write(path, a, &err), VAE_OK);
        assert_int_equal(vae_checkpoint_read(&b, path, moments, &err), VAE_OK);
        assert_same(a, b, moments);
        vae_checkpoint_free(a);
        vae_checkpoint_free(b);
    }
}

/* The file of make(true). */
static uint8_t *file_bytes(scratch *s, size_t *n)
{
    vae_error err = {0};
    vae_checkpoint *c = make(true);
    const char *path = scratch_path(s, "bytes.vae");
    assert_int_equal(vae_checkpoint_write(path, c, &err), VAE_OK);
    vae_checkpoint_free(c);
    FILE *in = fopen(path, "rb");
    assert_non_null(in);
    uint8_t *bytes = malloc(1 << 16);
    *n = fread(bytes, 1, 1 << 16, in);
    fclose(in);
    assert_true(*n > 1000 && *n < 1 << 16);
    return bytes;
}

/* From memory of just that size, so that ASan sees a read behind it. */
static vae_status parse(const uint8_t *bytes, size_t n, vae_error *err)
{
    vae_checkpoint *c;
    uint8_t *copy = malloc(n > 0 ? n : 1);
    memcpy(copy, bytes, n);
    vae_status status = vae_checkpoint_parse_memory(&c, copy, n, "it", true, err);
    assert_true((status == VAE_OK) == (c != NULL));
    vae_checkpoint_free(c);
    free(copy);
    return status;
}

static void test_truncated_at_every_length(void **state)
{
    size_t n;
    uint8_t *bytes = file_bytes(*state, &n);
    for (size_t i = 0; i < n; i++) {
        vae_error err = {0};
        assert_int_equal(parse(bytes, i, &err), VAE_ERR_DATA);
        assert_true(strncmp(err.text, "it: ", 4) == 0);
    }
    vae_error err = {0};
    assert_int_equal(parse(bytes, n, &err), VAE_OK);
    free(bytes);
}

/* Any one bit of the whole file, header and all. */
static void test_every_bit_flipped(void **state)
{
    size_t n;
    uint8_t *bytes = file_bytes(*state, &n);
    for (size_t i = 0; i < 8 * n; i++) {
        vae_error err = {0};
        bytes[i / 8] ^= (uint8_t)(1 << i % 8);
        if (parse(bytes, n, &err) != VAE_ERR_DATA) {
            fail_msg("bit %zu of byte %zu flipped and accepted", i % 8, i / 8);
        }
        bytes[i / 8] ^= (uint8_t)(1 << i % 8);
    }
    free(bytes);
}

static void test_trailing_bytes(void **state)
{
    size_t n;
    uint8_t *bytes = file_bytes(*state, &n);
    vae_error err = {0};
    bytes[n] = 0;
    assert_int_equal(parse(bytes, n + 1, &err), VAE_ERR_DATA);
    free(bytes);
}

/* Puts CRCs right after an edit, so that what is behind them is reached. */
static void mend(uint8_t *bytes)
{
    uint32_t n, crc;
    memcpy(&n, bytes + 16, 4);
    for (uint32_t i = 0; i < n; i++) {
        uint8_t *entry = bytes + HEADER_BYTES + i * SECTION_BYTES;
        uint64_t offset, length;
        memcpy(&offset, entry + SECTION_TAG_BYTES + 4, 8);
        memcpy(&length, entry + SECTION_TAG_BYTES + 12, 8);
        crc = vae_crc32(0, bytes + offset, length);
        memcpy(entry + SECTION_TAG_BYTES, &crc, 4);
    }
    memset(bytes + HEADER_CRC_AT, 0, 4);
    crc = vae_crc32(0, bytes, HEADER_BYTES + n * SECTION_BYTES);
    memcpy(bytes + HEADER_CRC_AT, &crc, 4);
}

static uint8_t *section_at(uint8_t *bytes, const char *tag)
{
    for (uint8_t *entry = bytes + HEADER_BYTES;; entry += SECTION_BYTES) {
        if (strncmp((const char *)entry, tag, SECTION_TAG_BYTES) == 0) {
            uint64_t offset;
            memcpy(&offset, entry + SECTION_TAG_BYTES + 4, 8);
            return bytes + offset;
        }
    }
}

/* Sizes far beyond the file, with valid CRCs: refused, and without large allocations. */
static void test_huge_numbers(void **state)
{
    static const uint64_t huge[] = {
        0, 1, 7, 1u << 20, UINT32_MAX, (uint64_t)1 << 40, INT64_MAX, UINT64_MAX, UINT64_MAX - 7};
    size_t n;
    uint8_t *bytes = file_bytes(*state, &n), *copy = malloc(n);
    allocations_start();
    for (size_t field = 0; field < 5; field++) { /* d, height, width, channels, n_params */
        for (size_t i = 0; i < sizeof huge / sizeof huge[0]; i++) {
            vae_error err = {0};
            memcpy(copy, bytes, n);
            if (memcmp(section_at(copy, "shape") + 8 * field, &huge[i], 8) == 0) {
                continue; /* channels is 1 */
            }
            memcpy(section_at(copy, "shape") + 8 * field, &huge[i], 8);
            mend(copy);
            assert_int_equal(parse(copy, n, &err), VAE_ERR_DATA);
            if (field == 4) {
                assert_non_null(strstr(err.text, "parameters, the file says"));
            }
        }
    }
    for (size_t i = 0; i < 3; i++) { /* a tensor's rows, cols, offset */
        vae_error err = {0};
        memcpy(copy, bytes, n);
        memcpy(section_at(copy, "tensors") + TENSOR_NAME_BYTES + 8 * i, &huge[5], 8);
        mend(copy);
        assert_int_equal(parse(copy, n, &err), VAE_ERR_DATA);
        static const char *const said[] = {", 1099511627776 x ", " x 1099511627776, ", "tensor 0"};
        assert_non_null(strstr(err.text, "tensor 0"));
        assert_non_null(strstr(err.text, said[i]));
    }
    for (size_t i = 0; i < 2; i++) { /* a section's offset, length: CRCs cannot be put right */
        vae_error err = {0};
        memcpy(copy, bytes, n);
        memcpy(copy + HEADER_BYTES + SECTION_TAG_BYTES + 4 + 8 * i, &huge[7], 8);
        memset(copy + HEADER_CRC_AT, 0, 4);
        uint32_t sections, crc;
        memcpy(&sections, copy + 16, 4);
        crc = vae_crc32(0, copy, HEADER_BYTES + sections * SECTION_BYTES);
        memcpy(copy + HEADER_CRC_AT, &crc, 4);
        assert_int_equal(parse(copy, n, &err), VAE_ERR_DATA);
        assert_non_null(strstr(err.text, "section config"));
    }
    assert_allocations_small();
    free(copy);
    free(bytes);
}

/* Sections that lie, with valid CRCs. */
static void test_lies(void **state)
{
    size_t n;
    uint8_t *bytes = file_bytes(*state, &n), *copy = malloc(n);
    static const struct {
        const char *tag;
        size_t at;
        uint64_t value;
        const char *says;
    } cases[] = {
        {"state", 0, (uint64_t)1 << 39, "makes no sense"},   /* more steps than noise has */
        {"state", 8, 13, "makes no sense"},                  /* more epochs than steps */
        {"state", 24, 0x7FF8000000000000, "makes no sense"}, /* NaN */
        {"state", 56, 0x7FF8000000000000, "makes no sense"},
        {"state", 88, 2, "makes no sense"},
        {"variance", 0, 0x7FF8000000000000, "makes no sense"},
        {"variance", 8, 0x7FF8000000000000, "makes no sense"},
        {"variance", 8, 0x4340000000000000, "makes no sense"}, /* more than there were examples */
        {"config", 0, 0, "zero byte"},
        {"config", 0, 0x2020202020202020, "not JSON"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        vae_error err = {0};
        memcpy(copy, bytes, n);
        memcpy(section_at(copy, cases[i].tag) + cases[i].at, &cases[i].value, 8);
        mend(copy);
        assert_int_equal(parse(copy, n, &err), VAE_ERR_DATA);
        if (strstr(err.text, cases[i].says) == NULL) {
            fail_msg("case %zu: %s", i, err.text);
        }
    }
    /* a zero byte behind JSON that is whole */
    vae_error err = {0};
    memcpy(copy, bytes, n);
    char *end = strstr((char *)section_at(copy, "config"), "\n}\n");
    assert_non_null(end);
    end[2] = '\0';
    mend(copy);
    assert_int_equal(parse(copy, n, &err), VAE_ERR_DATA);
    assert_non_null(strstr(err.text, "zero byte"));
    /* a section twice, and one left out */
    err = (vae_error){0};
    memcpy(copy, bytes, n);
    memcpy(copy + HEADER_BYTES + 5 * SECTION_BYTES, "adam_m\0\0\0\0\0\0", SECTION_TAG_BYTES);
    mend(copy);
    assert_int_equal(parse(copy, n, &err), VAE_ERR_DATA);
    assert_non_null(strstr(err.text, "two sections"));
    uint32_t sections;
    memcpy(&sections, bytes + 16, 4);
    assert_true(sections > 5);
    for (uint32_t k = 0; k + 1 < sections; k++) { /* whichever it is */
        uint8_t *entry = copy + HEADER_BYTES + k * SECTION_BYTES;
        err = (vae_error){0};
        memcpy(copy, bytes, n);
        memcpy(entry + SECTION_BYTES, entry, SECTION_TAG_BYTES);
        mend(copy);
        assert_int_equal(parse(copy, n, &err), VAE_ERR_DATA);
        assert_non_null(strstr(err.text, "two sections"));
    }
    for (const char *odd = "/:@A`{ "; *odd != '\0'; odd++) { /* beside what is allowed */
        err = (vae_error){0};
        memcpy(copy, bytes, n);
        copy[HEADER_BYTES + 1] = (uint8_t)*odd;
        mend(copy);
        assert_int_equal(parse(copy, n, &err), VAE_ERR_DATA);
        assert_non_null(strstr(err.text, "odd characters"));
    }
    static const char *const needed[] = {"config", "shape", "tensors", "params", "state"};
    for (size_t i = 0; i < sizeof needed / sizeof needed[0]; i++) {
        vae_error missing = {0};
        memcpy(copy, bytes, n);
        for (uint8_t *entry = copy + HEADER_BYTES;; entry += SECTION_BYTES) {
            if (strncmp((char *)entry, needed[i], SECTION_TAG_BYTES) == 0) {
                entry[0] = 'x'; /* an unknown section, to be skipped */
                break;
            }
        }
        mend(copy);
        assert_int_equal(parse(copy, n, &missing), VAE_ERR_DATA);
        assert_non_null(strstr(missing.text, "no section"));
    }
    free(copy);
    free(bytes);
}

/* Shift and scale: doubles; floats in files of earlier versions. */
static void test_standard(void **state)
{
    scratch *s = *state;
    vae_error err = {0};
    uint8_t bytes[1 << 14];
    vae_checkpoint *c = make(false), *back;
    const size_t n = 2 * c->d;
    c->standard = malloc(n * sizeof *c->standard);
    for (size_t i = 0; i < n; i++) {
        c->standard[i] = 0.5 + (double)i / 4;
    }
    const char *path = scratch_path(s, "standard.vae");
    assert_int_equal(vae_checkpoint_write(path, c, &err), VAE_OK);
    FILE *in = fopen(path, "rb");
    assert_non_null(in);
    size_t size = fread(bytes, 1, sizeof bytes, in);
    fclose(in);
    for (int floats = 0; floats < 2; floats++) {
        if (floats) { /* the last section, half as long */
            uint8_t *at = section_at(bytes, "standard"), *entry = bytes + HEADER_BYTES;
            while (strncmp((const char *)entry, "standard", SECTION_TAG_BYTES) != 0) {
                entry += SECTION_BYTES;
            }
            for (size_t i = 0; i < n; i++) {
                const float value = (float)c->standard[i];
                memcpy(at + i * sizeof value, &value, sizeof value);
            }
            const uint64_t length = n * sizeof(float), whole = (uint64_t)(at - bytes) + length;
            assert_int_equal(size, whole + length);
            memcpy(entry + SECTION_TAG_BYTES + 12, &length, 8);
            memcpy(bytes + 24, &whole, 8);
            size = whole;
            mend(bytes);
        }
        assert_int_equal(vae_checkpoint_parse_memory(&back, bytes, size, "it", true, &err), VAE_OK);
        assert_memory_equal(back->standard, c->standard, n * sizeof *c->standard);
        vae_checkpoint_free(back);
    }
    vae_checkpoint_free(c);
}

static void test_other_versions(void **state)
{
    size_t n;
    uint8_t *bytes = file_bytes(*state, &n);
    vae_error newer = {0}, other = {0}, magic = {0};
    bytes[8] = 2;
    mend(bytes);
    assert_int_equal(parse(bytes, n, &newer), VAE_ERR_DATA);
    assert_non_null(strstr(newer.text, "format version 2, this vae reads version 1"));
    uint8_t swap = bytes[12];
    bytes[12] = bytes[15];
    bytes[15] = swap;
    mend(bytes);
    assert_int_equal(parse(bytes, n, &other), VAE_ERR_DATA);
    assert_non_null(strstr(other.text, "byte order"));
    memcpy(bytes, "\x93NUMPY", 6);
    assert_int_equal(parse(bytes, n, &magic), VAE_ERR_DATA);
    assert_non_null(strstr(magic.text, "not a checkpoint"));
    free(bytes);
}

static void assert_not_read(const char *path, vae_status status, const char *says)
{
    vae_checkpoint *c;
    vae_error err = {0};
    vae_status got = vae_checkpoint_read(&c, path, true, &err);
    if (got != status || strstr(err.text, says) == NULL || c != NULL) {
        fail_msg("%s: status %d, '%s'; expected %d and '%s'", path, got, err.text, status, says);
    }
}

static void test_not_files(void **state)
{
    scratch *s = *state;
    assert_not_read(s->folder, VAE_ERR_DATA, "a folder");
    assert_not_read(scratch_path(s, "nowhere.vae"), VAE_ERR_IO, "No such file");
    assert_not_read(scratch_write(s, "empty.vae", "", 0), VAE_ERR_DATA, "0 bytes");
    assert_not_read("/dev/null", VAE_ERR_DATA, "not a regular file");
    const char *fifo = scratch_path(s, "fifo");
    assert_int_equal(mkfifo(fifo, 0600), 0);
    assert_not_read(fifo, VAE_ERR_DATA, "not a regular file");
}

static void test_no_permission(void **state)
{
    scratch *s = *state;
    const uid_t me = geteuid();
    const char *path = scratch_write(s, "secret.vae", "x", 1);
    assert_int_equal(chmod(path, 0), 0);
    if (me == 0 && seteuid(65534) != 0) { /* root may read everything: be nobody for a while */
        print_message("SKIPPED: root may read everything, and cannot become nobody here\n");
        skip();
    }
    assert_not_read(path, VAE_ERR_IO, "Permission denied");
    assert_int_equal(seteuid(me), 0);
}

static size_t files_in(const char *folder)
{
    char command[600];
    size_t n = 0;
    snprintf(command, sizeof command, "ls -A '%s' | wc -l", folder);
    FILE *out = popen(command, "r");
    assert_int_equal(fscanf(out, "%zu", &n), 1);
    pclose(out);
    return n;
}

/* A write that fails leaves the old file and no other. */
static void test_failed_write(void **state)
{
    scratch *s = *state;
    vae_error err = {0}, missing = {0};
    vae_checkpoint *a = make(true), *b;
    char path[512];
    snprintf(path, sizeof path, "%s", scratch_path(s, "full/it.vae"));
    scratch_write(s, "full/it.vae", "", 0);
    assert_int_equal(vae_checkpoint_write(path, a, &err), VAE_OK);
    a->state.step++;
    struct rlimit old, small;
    assert_int_equal(getrlimit(RLIMIT_FSIZE, &old), 0);
    small = old;
    small.rlim_cur = 512; /* a disk that is full after 512 bytes */
    signal(SIGXFSZ, SIG_IGN);
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &small), 0);
    vae_status status = vae_checkpoint_write(path, a, &err);
    setrlimit(RLIMIT_FSIZE, &old);
    assert_int_equal(status, VAE_ERR_IO);
    assert_non_null(strstr(err.text, "it.vae: cannot write: File too large"));
    char folder[512];
    snprintf(folder, sizeof folder, "%.*s", (int)(strrchr(path, '/') - path), path);
    assert_int_equal(files_in(folder), 1);
    assert_int_equal(vae_checkpoint_read(&b, path, true, NULL), VAE_OK);
    a->state.step--;
    assert_same(a, b, true);
    assert_int_equal(vae_checkpoint_write(scratch_path(s, "no/such/x.vae"), a, &missing),
                     VAE_ERR_IO);
    vae_checkpoint_free(a);
    vae_checkpoint_free(b);
}

/* The newest good one of a run folder; a damaged one is passed over. */
static void test_open_run(void **state)
{
    scratch *s = *state;
    vae_error err = {0}, none = {0};
    char path[VAE_PATH], run[512];
    vae_checkpoint *c = make(true), *got;
    for (uint64_t step = 9; step <= 12; step++) {
        char name[64];
        snprintf(name, sizeof name, "run/checkpoints/step-%010llu.vae", (unsigned long long)step);
        scratch_write(s, name, "torn", 4);
        c->state.step = step;
        if (step < 12) {
            assert_int_equal(vae_checkpoint_write(scratch_path(s, name), c, &err), VAE_OK);
        }
    }
    scratch_write(s, "run/checkpoints/step-12x.vae", "", 0);
    snprintf(run, sizeof run, "%s", scratch_path(s, "run"));
    assert_int_equal(vae_checkpoint_open_run(&got, run, false, true, path, &err), VAE_OK);
    assert_int_equal(got->state.step, 11);
    assert_non_null(strstr(path, "step-0000000011.vae"));
    vae_checkpoint_free(got);
    assert_int_equal(vae_checkpoint_open_run(&got, run, true, true, path, &err), VAE_ERR_IO);
    assert_int_equal(vae_checkpoint_open_run(&got, s->folder, false, true, path, &none),
                     VAE_ERR_DATA);
    assert_non_null(strstr(none.text, "no checkpoints here"));
    vae_checkpoint_free(c);
}

/* Of a training run beside us: before `rotated` is opened, `renewed` becomes `newer`, and it goes. */
static char rotated[512], renewed[512], newer[512];

/* The C library's, but for that. */
int open(const char *path, int flags, ...)
{
    mode_t mode = 0;
    if ((flags & O_CREAT) != 0) {
        va_list rest;
        va_start(rest, flags);
        mode = va_arg(rest, mode_t);
        va_end(rest);
    }
    if (rotated[0] != '\0' && strcmp(path, rotated) == 0) {
        rotated[0] = '\0';
        assert_int_equal(rename(renewed, newer), 0);
        assert_int_equal(unlink(path), 0);
    }
    return openat(AT_FDCWD, path, flags, mode);
}

/* A checkpoint that is removed between the look at the folder and the opening: another look. */
static void test_open_run_while_it_goes_on(void **state)
{
    scratch *s = *state;
    vae_error err = {0};
    char path[VAE_PATH], run[512];
    vae_checkpoint *c = make(true), *got;
    scratch_write(s, "goes-on/checkpoints/step-0000000020.vae", "", 0);
    for (uint64_t step = 20; step <= 21; step++) {
        c->state.step = step;
        snprintf(step == 20 ? rotated : renewed, sizeof rotated, "%s",
                 scratch_path(s, step == 20 ? "goes-on/checkpoints/step-0000000020.vae" : "next"));
        assert_int_equal(vae_checkpoint_write(s->path, c, &err), VAE_OK);
    }
    snprintf(newer, sizeof newer, "%s", scratch_path(s, "goes-on/checkpoints/step-0000000021.vae"));
    snprintf(run, sizeof run, "%s", scratch_path(s, "goes-on"));
    assert_int_equal(vae_checkpoint_open_run(&got, run, false, true, path, &err), VAE_OK);
    assert_int_equal(got->state.step, 21);
    assert_string_equal(path, newer);
    assert_int_equal(rotated[0], '\0');
    vae_checkpoint_free(got);
    vae_checkpoint_free(c);
}

/* A table's columns are those the model was trained with, each of them, in their order. */
static void columns_are_compared_by_name(void **state)
{
    (void)state;
    static char columns[] = "a\0b\0c";
    char *names[][3] = {{"a", "b", "c"}, {"x", "b", "c"}, {"a", "x", "c"}, {"a", "b", "x"}};
    const vae_checkpoint c = {.d = 3, .height = 1, .width = 3, .channels = 1, .columns = columns};
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) {
        vae_error err = {0};
        char says[80];
        const vae_dataset set = {.source = "t.csv",
                                 .n = 1,
                                 .d = 3,
                                 .height = 1,
                                 .width = 3,
                                 .channels = 1,
                                 .dtype = VAE_F32,
                                 .kind = VAE_KIND_TABLE,
                                 .column_names = names[i]};
        assert_int_equal(vae_checkpoint_check_set(&c, &set, &err), i == 0 ? VAE_OK : VAE_ERR_DATA);
        snprintf(says, sizeof says, "t.csv: column %zu is 'x'; the model was trained with '%s'", i,
                 i > 0 ? names[0][i - 1] : "");
        assert_true(i == 0 || strstr(err.text, says) != NULL);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(columns_are_compared_by_name),
        cmocka_unit_test(test_round_trip),
        cmocka_unit_test(test_truncated_at_every_length),
        cmocka_unit_test(test_every_bit_flipped),
        cmocka_unit_test(test_trailing_bytes),
        cmocka_unit_test(test_huge_numbers),
        cmocka_unit_test(test_lies),
        cmocka_unit_test(test_standard),
        cmocka_unit_test(test_other_versions),
        cmocka_unit_test(test_not_files),
        cmocka_unit_test(test_no_permission),
        cmocka_unit_test(test_failed_write),
        cmocka_unit_test(test_open_run),
        cmocka_unit_test(test_open_run_while_it_goes_on),
    };
    return cmocka_run_group_tests_name("checkpoint", tests, scratch_setup, scratch_teardown);
}
