/* Data sets whose rows lie in a mapped file: they are those that reading brings, on any backend, of
 * any size; and what becomes of them when the file changes. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <fcntl.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "config/config.h"
#include "dataset/closest.h"
#include "dataset/readers.h"
#include "dataset_fixture.h"
#include "device.h"
#include "format/npy.h"
#include "model_fixture.h"
#include "philox.h"

static scratch files;

static int begin(void **state)
{
    void *fixture = NULL;
    (void)state;
    const int rc = scratch_setup(&fixture);
    files = *(scratch *)fixture;
    *state = fixture;
    return rc;
}

typedef enum { U1, F4, B1, IDX, N_KINDS } kind;

/* A file whose data begin at *at, and are `bytes` of `what`; the rest, to (n,d) of them, is a hole
 * that ends with them. */
static const char *write_file(kind of, size_t n, size_t d, const void *what, size_t bytes)
{
    static const char *const descr[] = {"|u1", "<f4", "|b1"};
    uint8_t header[VAE_NPY_WRITE_HEADER_MAX] = {0, 0, 8, 2};
    const size_t shape[] = {n, d}, whole = n * d * (of == F4 ? sizeof(float) : 1);
    size_t at = 12;
    if (of == IDX) {
        for (size_t i = 0; i < 4; i++) {
            header[4 + i] = (uint8_t)(n >> (24 - 8 * i));
            header[8 + i] = (uint8_t)(d >> (24 - 8 * i));
        }
    } else {
        at = vae_npy_format_header(header, descr[of], shape, 2);
    }
    const char *path = scratch_write(&files, of == IDX ? "x.idx" : "x.npy", header, at);
    const int fd = open(path, O_WRONLY);
    assert_true(pwrite(fd, what, bytes, (off_t)(at + whole - bytes)) == (ssize_t)bytes);
    close(fd);
    return path;
}

static vae_dataset *open_set(const char *path, bool mapped, const vae_data_options *options)
{
    vae_data_options how = options != NULL ? *options : (vae_data_options){.limit = 0};
    vae_error err = {0};
    vae_dataset *set;
    how.in_memory = mapped ? 1 : 0;
    if (vae_dataset_open(&set, path, VAE_SPLIT_TRAIN, &how, &err) != VAE_OK) {
        fail_msg("%s", err.text);
    }
    assert_true((set->map != NULL) == mapped);
    return set;
}

/* The same without the pass over all of its rows, for what is a hole of many GB. */
static vae_dataset *open_unread(kind of, const char *path)
{
    static const vae_config unset;
    const vae_data_options how = {.config = &unset};
    vae_error err = {0};
    vae_stream *s = NULL;
    vae_dataset *set = calloc(1, sizeof *set);
    assert_non_null(set);
    vae_status status;
    if (of == IDX) {
        status = vae_idx_file_reader.load(set, path, VAE_SPLIT_TRAIN, &how, &err);
    } else {
        assert_int_equal(vae_stream_open(&s, path, &err), VAE_OK);
        status = vae_npy_reader.load_stream(set, s, &how, &err);
        vae_stream_close(s);
    }
    if (status != VAE_OK) {
        fail_msg("%s", err.text);
    }
    assert_non_null(set->map);
    return set;
}

/* Random values of a kind: malloc'ed, *bytes of them. */
static void *some_values(kind of, size_t n, size_t *bytes)
{
    uint64_t rng = 7 + of;
    *bytes = n * (of == F4 ? sizeof(float) : 1);
    void *values = malloc(*bytes);
    assert_non_null(values);
    for (size_t i = 0; i < n; i++) {
        if (of == F4) {
            ((float *)values)[i] = random_uniform(&rng, 0, 1);
        } else {
            ((uint8_t *)values)[i] = (uint8_t)(random_u64(&rng) & (of == B1 ? 1 : 255));
        }
    }
    return values;
}

static const char *write_some(kind of, size_t n, size_t d)
{
    size_t bytes;
    void *values = some_values(of, n * d, &bytes);
    const char *path = write_file(of, n, d, values, bytes);
    free(values);
    return path;
}

/* ---- what is read ---- */

static void assert_same_rows(const vae_dataset *a, const vae_dataset *b)
{
    const size_t bytes = vae_dataset_row_bytes(a);
    uint8_t *room = malloc(2 * bytes);
    assert_non_null(room);
    assert_int_equal(a->n, b->n);
    assert_int_equal(a->d, b->d);
    assert_int_equal(a->dtype, b->dtype);
    for (size_t i = 0; i < a->n; i++) {
        assert_memory_equal(vae_dataset_row(a, i, room), vae_dataset_row(b, i, room + bytes),
                            bytes);
        assert_true(vae_dataset_value(a, i, i % a->d) == vae_dataset_value(b, i, i % a->d));
    }
    free(room);
}

/* Of all rows, of most and of few; as they were summed when the set was opened, and not so. */
static void assert_same_means(const vae_dataset *a, const vae_dataset *b)
{
    uint32_t rows[64];
    float *mean[2] = {malloc(a->d * sizeof(float)), malloc(a->d * sizeof(float))};
    for (size_t some = 0; some < 4; some++) {
        size_t n = 0;
        for (size_t i = 0; i < a->n && i < 64; i++) {
            const bool in = some < 2 || (some == 2 ? i % 5 != 2 : i % 5 == 2);
            rows[n] = (uint32_t)i;
            n += in;
        }
        for (int threshold = 0; threshold < 2; threshold++) {
            const uint32_t *of = some == 0 ? NULL : rows;
            assert_int_equal(vae_dataset_mean(a, of, n, threshold, mean[0], NULL), VAE_OK);
            assert_int_equal(vae_dataset_mean(b, of, n, threshold, mean[1], NULL), VAE_OK);
            assert_memory_equal(mean[0], mean[1], a->d * sizeof(float));
        }
    }
    free(mean[0]);
    free(mean[1]);
}

static void rows_are_those_that_are_read(void **state)
{
    const vae_config threshold = {.binarize = VAE_BINARIZE_THRESHOLD};
    const vae_data_options how[] = {
        {.limit = 0}, {.limit = 20}, {.means = true}, {.means = true, .config = &threshold}};
    (void)state;
    for (kind of = U1; of < N_KINDS; of++) {
        const size_t d = 1001; /* some blocks of bytes and bits have a part left over */
        const char *path = write_some(of, 41, d);
        for (size_t i = 0; i < 4; i++) {
            vae_dataset *read = open_set(path, false, &how[i == 1]);
            vae_dataset *mapped = open_set(path, true, &how[i]);
            assert_int_equal(mapped->n, i == 1 ? 20 : 41);
            assert_true(mapped->loose == (of == B1));
            assert_memory_equal(read->sha256, mapped->sha256, sizeof read->sha256);
            assert_true((mapped->sums != NULL) == (i > 1) && read->sums == NULL);
            assert_same_rows(read, mapped);
            assert_same_means(read, mapped);
            const uint32_t index[] = {3, 19, 0, 3};
            assert_int_equal(vae_dataset_pick(read, index, 4, NULL), VAE_OK);
            assert_int_equal(vae_dataset_pick(mapped, index, 4, NULL), VAE_OK);
            assert_null(mapped->map);
            assert_same_rows(read, mapped);
            assert_memory_equal(mapped->place, index, sizeof index);
            assert_int_equal(vae_dataset_whole(mapped)->n, mapped->whole->n);
            assert_non_null(mapped->whole->map);
            assert_int_equal(vae_dataset_pick(mapped, (uint32_t[]){2, 1}, 2, NULL), VAE_OK);
            assert_int_equal(vae_dataset_pick(read, (uint32_t[]){2, 1}, 2, NULL), VAE_OK);
            assert_memory_equal(mapped->place, ((uint32_t[]){0, 19}), 2 * sizeof(uint32_t));
            assert_non_null(mapped->whole->map);
            assert_null(mapped->whole->whole);
            assert_same_rows(read, mapped);
            assert_same_means(read, mapped);
            vae_dataset_free(read);
            vae_dataset_free(mapped);
        }
    }
}

/* Sums over many rows: counters of few rows that overflow many times. */
static void means_are_those_of_the_rows(void **state)
{
    enum { N = 3000, D = 19 };
    (void)state;
    for (kind of = U1; of < IDX; of++) {
        size_t bytes;
        float mean[D];
        void *values = some_values(of, (size_t)N * D, &bytes);
        if (of == U1) {
            memset(values, 255, bytes / 2); /* what a counter can take, and no less */
        }
        const char *path = write_file(of, N, D, values, bytes);
        vae_dataset *set = open_set(path, true, &(vae_data_options){.means = true});
        assert_int_equal(vae_dataset_mean(set, NULL, 0, false, mean, NULL), VAE_OK);
        for (size_t j = 0; j < D; j++) {
            double sum = 0;
            for (size_t i = 0; i < N; i++) {
                sum += of == F4 ? (double)((const float *)values)[i * D + j]
                                : ((const uint8_t *)values)[i * D + j];
            }
            assert_true(mean[j] == (float)(sum / (N * (of == U1 ? 255.0 : 1.0))));
        }
        vae_dataset_free(set);
        free(values);
    }
}

static void rows_come_into_memory_where_they_must(void **state)
{
    const double shift[] = {0.25, 1, 0}, scale[] = {2, 0.5, 1};
    void *rows;
    (void)state;
    const char *path = write_some(F4, 50, 3);
    vae_dataset *read = open_set(path, false, NULL), *mapped = open_set(path, true, NULL);
    assert_int_equal(vae_dataset_standardize(read, shift, scale, NULL), VAE_OK);
    assert_int_equal(vae_dataset_standardize(mapped, shift, scale, NULL), VAE_OK);
    assert_null(mapped->map);
    assert_same_rows(read, mapped);
    /* what was known of the values is no longer so */
    assert_int_equal(vae_dataset_check_range(mapped, VAE_BERNOULLI, VAE_MEAN_LINEAR, NULL),
                     VAE_ERR_DATA);
    vae_dataset_free(mapped);
    /* exact values are wanted, to be standardized: the file is read at once */
    const vae_data_options exact = {.exact = true, .in_memory = 1};
    assert_int_equal(vae_dataset_open(&mapped, path, VAE_SPLIT_TRAIN, &exact, NULL), VAE_OK);
    assert_null(mapped->map);
    vae_dataset_free(mapped);
    for (kind of = U1; of < IDX; of++) {
        path = write_some(of, 9, 70);
        vae_dataset *other = open_set(path, false, NULL);
        mapped = open_set(path, true, NULL);
        assert_int_equal(vae_dataset_take_rows(mapped, &rows, NULL), VAE_OK);
        assert_memory_equal(rows, other->rows, 9 * vae_dataset_row_bytes(other));
        free(rows);
        vae_dataset_free(mapped);
        vae_dataset_free(other);
    }
    vae_dataset_free(read);
}

static void closest_rows_are_the_same(void **state)
{
    enum { N = 30, D = 75 };
    size_t row[2][2];
    double distance[2][2];
    float x[2 * D];
    uint64_t rng = 3;
    (void)state;
    for (size_t i = 0; i < 2 * D; i++) {
        x[i] = random_uniform(&rng, 0, 1);
    }
    for (kind of = U1; of < IDX; of++) {
        const char *path = write_some(of, N, D);
        for (int mapped = 0; mapped < 2; mapped++) {
            vae_dataset *set = open_set(path, mapped, NULL);
            vae_closest_rows(row[mapped], distance[mapped], x, 2, set, NULL, NULL);
            vae_dataset_free(set);
        }
        assert_memory_equal(row[0], row[1], sizeof row[0]);
        assert_memory_equal(distance[0], distance[1], sizeof distance[0]);
    }
}

/* ---- values that are not as they should be: in blocks behind the first ---- */

static void assert_judged(const vae_dataset *set, vae_likelihood likelihood, const char *says)
{
    vae_error err = {0};
    const vae_status status = vae_dataset_check_range(set, likelihood, VAE_MEAN_LINEAR, &err);
    assert_int_equal(status, says != NULL ? VAE_ERR_DATA : VAE_OK);
    if (says != NULL && strstr(err.text, says) == NULL) {
        fail_msg("expected '%s', got '%s'", says, err.text);
    }
}

static void bad_values_are_named_by_place(void **state)
{
    enum { N = 800, D = 1000 }; /* 3 MB: four blocks, of 1049 rows or fewer */
    static const char outside[] = "row 797, column 998: value 1.5 is outside [0,1]";
    static const char wild[] = "row 799, column 999: value inf is not a finite number";
    float *x = calloc((size_t)N * D, sizeof *x);
    assert_non_null(x);
    (void)state;
    for (int mapped = 0; mapped < 2; mapped++) {
        memset(x, 0, (size_t)N * D * sizeof *x);
        x[7] = -0.0f;
        x[8] = 1.0f;
        vae_dataset *set = open_set(write_file(F4, N, D, x, sizeof *x * N * D), mapped, NULL);
        assert_judged(set, VAE_BERNOULLI, NULL);
        assert_judged(set, VAE_GAUSSIAN, NULL);
        vae_dataset_free(set);
        x[797 * D + 998] = 1.5f;
        x[799 * D + 999] = INFINITY;
        set = open_set(write_file(F4, N, D, x, sizeof *x * N * D), mapped, NULL);
        assert_true(set->facts.known);
        assert_judged(set, VAE_BERNOULLI, outside);
        assert_judged(set, VAE_GAUSSIAN, wild);
        set->facts.known = false; /* as of a set that nobody scanned */
        assert_judged(set, VAE_BERNOULLI, outside);
        assert_judged(set, VAE_GAUSSIAN, wild);
        vae_dataset_free(set);
        x[3] = NAN; /* in the first block, before all others */
        set = open_set(write_file(F4, N, D, x, sizeof *x * N * D), mapped, NULL);
        assert_judged(set, VAE_BERNOULLI, "row 0, column 3: value nan is not a finite number");
        assert_judged(set, VAE_GAUSSIAN, "row 0, column 3: value nan is not a finite number");
        const uint32_t others[] = {1, 799, 2}, first = 0;
        assert_int_equal(vae_dataset_pick(set, others, 3, NULL), VAE_OK);
        assert_judged(set, VAE_GAUSSIAN, "row 1, column 999: value inf is not a finite number");
        assert_int_equal(vae_dataset_pick(set, &first, 1, NULL), VAE_OK);
        assert_judged(set, VAE_GAUSSIAN, NULL);
        vae_dataset_free(set);
    }
    free(x);
    uint8_t *bytes = calloc(3000, 1000);
    assert_non_null(bytes);
    bytes[2999 * 1000 + 998] = 3;
    vae_error err = {0};
    vae_dataset *set;
    const vae_data_options in_place = {.in_memory = 1};
    assert_int_equal(vae_dataset_open(&set, write_file(B1, 3000, 1000, bytes, 3000000),
                                      VAE_SPLIT_TRAIN, &in_place, &err),
                     VAE_ERR_DATA);
    assert_non_null(strstr(err.text, "row 2999, column 998: expected a boolean, 0 or 1, found "
                                     "byte 3"));
    free(bytes);
    for (uint8_t i = 0; i < 3 * 19; i++) { /* only 1 is what binary data are stored as */
        uint8_t few[38] = {1};
        const uint8_t most = i % 3;
        few[0] = most < 1 ? most : 1;
        few[19 + i / 3] = most;
        err = (vae_error){0};
        assert_int_equal(vae_dataset_open(&set, write_file(U1, 2, 19, few, sizeof few),
                                          VAE_SPLIT_TRAIN, &in_place, &err),
                         most == 1 ? VAE_ERR_DATA : VAE_OK);
        assert_true((strstr(err.text, "the largest byte is 1") != NULL) == (most == 1));
        vae_dataset_free(set);
    }
}

static void files_of_another_length_are_refused(void **state)
{
    vae_dataset *set;
    (void)state;
    for (kind of = U1; of < N_KINDS; of++) {
        for (int longer = 0; longer < 2; longer++) {
            vae_error err = {0};
            const char *path = write_some(of, 100, 100);
            vae_map *m;
            assert_int_equal(vae_map_open(&m, path, NULL), VAE_OK);
            assert_int_equal(truncate(path, (off_t)vae_map_size(m) + (longer ? 1 : -1)), 0);
            vae_map_close(m);
            assert_int_equal(vae_dataset_open(&set, path, VAE_SPLIT_TRAIN,
                                              &(vae_data_options){.in_memory = 1}, &err),
                             VAE_ERR_DATA);
            assert_null(set);
            assert_non_null(strstr(err.text, longer ? "but the file goes on" : "cut short"));
            /* behind the rows that are kept, too */
            err = (vae_error){0};
            assert_int_equal(vae_dataset_open(&set, path, VAE_SPLIT_TRAIN,
                                              &(vae_data_options){.in_memory = 1, .limit = 2},
                                              &err),
                             VAE_ERR_DATA);
            assert_non_null(strstr(err.text, longer ? "but the file goes on" : "cut short"));
        }
    }
}

/* Between its header, which a stream has read, and its rows. */
static void a_file_cut_while_it_is_opened_is_refused(void **state)
{
    enum { N = 100, D = 1000 };
    static const vae_config unset;
    const vae_data_options how = {.config = &unset, .in_memory = 1};
    (void)state;
    for (kind of = U1; of < IDX; of++) {
        const char *path = write_some(of, N, D);
        vae_error err = {0};
        vae_dataset set = {.n = 0};
        vae_stream *s;
        assert_int_equal(vae_stream_open(&s, path, &err), VAE_OK);
        assert_int_equal(truncate(path, 4096), 0);
        assert_int_equal(vae_npy_reader.load_stream(&set, s, &how, &err), VAE_ERR_IO);
        assert_non_null(strstr(err.text, "x.npy: was cut short while it was opened: expected"));
        assert_non_null(strstr(err.text, "found 4096 bytes in all"));
        assert_null(set.map);
        vae_stream_close(s);
    }
}

/* Where rows are copied out of the map the file is then let go of: nobody could tell later. */
static void rows_of_a_file_that_changes_are_not_taken(void **state)
{
    static const uint32_t index[] = {1, 3};
    static const double shift[7] = {0}, scale[7] = {1, 1, 1, 1, 1, 1, 1};
    (void)state;
    float mean[7];
    for (int how = 0; how < 4; how++) {
        vae_error err = {0};
        const char *path = write_some(F4, 9, 7);
        vae_dataset *set = open_set(path, true, NULL);
        vae_map *m;
        void *rows = NULL;
        vae_status status = VAE_OK;
        assert_int_equal(vae_map_open(&m, path, NULL), VAE_OK);
        assert_int_equal(truncate(path, (off_t)vae_map_size(m) + 1), 0);
        vae_map_close(m);
        if (how == 0) {
            status = vae_dataset_pick(set, index, 2, &err);
        } else if (how == 1) {
            status = vae_dataset_take_rows(set, &rows, &err);
        } else if (how == 2) {
            status = vae_dataset_standardize(set, shift, scale, &err);
        } else {
            status = vae_dataset_mean(set, index, 2, false, mean, &err);
        }
        assert_int_equal(status, VAE_ERR_IO);
        assert_non_null(strstr(err.text, "it was changed while it was in use"));
        assert_null(rows);
        assert_int_equal(set->n, 9); /* as it was */
        vae_dataset_free(set);
    }
}

/* ---- the pass over a large file ---- */

/* Bytes of files that count as memory of this process. */
static size_t resident_of_files(void)
{
    char line[128];
    size_t kb = 0;
    FILE *file = fopen("/proc/self/status", "r");
    assert_non_null(file);
    while (fgets(line, sizeof line, file) != NULL) {
        sscanf(line, "RssFile: %zu", &kb);
    }
    fclose(file);
    return kb << 10;
}

typedef struct {
    size_t times, done, before, most;
} watch;

static void look_on(void *ctx, size_t done, size_t total)
{
    watch *w = ctx;
    const size_t now = resident_of_files();
    assert_int_equal(total, 300 << 8);
    assert_true(done > w->done && done <= total);
    w->times++;
    w->done = done;
    w->most = now > w->most ? now : w->most;
}

/* It says how far it is, and what it has read does not stay in memory. */
static void a_long_pass_tells_and_holds_little(void **state)
{
    const uint8_t last = 255;
    const char *path = write_file(U1, 300 << 8, 4096, &last, 1);
    watch w = {.before = resident_of_files()};
    vae_dataset *set;
    (void)state;
    assert_int_equal(vae_dataset_open(&set, path, VAE_SPLIT_TRAIN,
                                      &(vae_data_options){.progress = look_on, .ctx = &w}, NULL),
                     VAE_OK);
    assert_non_null(set->map);
    assert_in_range(w.times, 8, 12); /* every 32 MiB of 300 */
    assert_int_equal(w.done, set->n);
    assert_true(w.most < w.before + (8 << 20) && resident_of_files() < w.before + (8 << 20));
    vae_dataset_free(set);
}

/* ---- on a backend ---- */

typedef struct {
    device *d;
    vae_mat x;
    vae_data *data;
    size_t B, D;
} gather_call;

static void gather_step(void *ctx)
{
    gather_call *c = ctx;
    c->d->be->ops->gather(c->d->be, c->x, c->data, c->B, c->D, VAE_BINARIZE_NONE, 9);
}

/* A batch of the rows index names (NULL: all n), shuffled, is as their values say. */
static void check_batch(device *d, const vae_dataset *set, const uint32_t *index, size_t n,
                        size_t B)
{
    const size_t D = set->d;
    const vae_plan plan = {.order_key = 77, .shuffle = true};
    float *want = device_host(d, B * D);
    gather_call c = {d, {0}, NULL, B, D};
    for (size_t r = 0; r < B; r++) {
        const size_t i = (size_t)vae_shuffle(plan.order_key, n, vae_shuffle_bits(n), r);
        for (size_t col = 0; col < D; col++) {
            want[r * D + col] = vae_dataset_value(set, index != NULL ? index[i] : i, col);
        }
    }
    (void)device_input(d, want, B, D); /* rounds to the type held */
    c.x = device_output(d, B, D);
    c.data = d->be->ops->data_open(d->be, set, index, n);
    assert_non_null(c.data);
    device_run(d, &plan, c.data, B, gather_step, &c);
    assert_memory_equal(device_get_mat(d, c.x, B, D), want, B * D * sizeof *want);
    /* and in no run, as benchmarks of an operation do */
    c.x = device_output(d, B, D);
    d->be->ops->plan(d->be, &plan, 1, B, c.data);
    gather_step(&c);
    assert_memory_equal(device_get_mat(d, c.x, B, D), want, B * D * sizeof *want);
    device_check(d);
    d->be->ops->data_close(d->be, c.data);
    device_clear(d);
}

/* Resident and streamed where that is a difference. */
static void each_way(void (*check)(device *d))
{
    for (int streamed = 0; streamed <= device_is_cuda(); streamed++) {
        device d = {0};
        setenv("VAE_CUDA_STREAM_DATA", streamed ? "1" : "0", 1);
        device_keep_none();
        device_begin(&d, 2);
        check(&d);
        device_end(&d);
        device_keep_none();
        unsetenv("VAE_CUDA_STREAM_DATA");
    }
}

static void check_batches(device *d)
{
    const uint32_t index[] = {40, 2, 39, 7, 20, 0};
    for (kind of = U1; of < N_KINDS; of++) {
        vae_dataset *set = open_set(write_some(of, 41, 1037), true, NULL);
        check_batch(d, set, NULL, 41, 41);
        check_batch(d, set, NULL, 41, 5);
        check_batch(d, set, index, 6, 6);
        vae_dataset_free(set);
    }
    /* so much that several readers bring it where it is streamed */
    vae_dataset *set = open_set(write_some(B1, 150, 8192), true, NULL);
    check_batch(d, set, NULL, 150, 100);
    vae_dataset_free(set);
}

static void batches_are_gathered_from_a_map(void **state)
{
    (void)state;
    each_way(check_batches);
}

static bool page_is_there(const vae_dataset *set, size_t row)
{
    const size_t page = (size_t)sysconf(_SC_PAGESIZE);
    uint8_t *middle = (uint8_t *)set->rows + row * set->d + set->d / 2;
    unsigned char there;
    assert_int_equal(mincore(middle - (uintptr_t)middle % page, 1, &there), 0);
    return there & 1;
}

/* Rows that a plan names are on their way from the disk before a step asks for them, on the CPU
 * (on a GPU, readers run ahead); others are not. */
static void planned_rows_are_fetched(void **state)
{
    enum { N = 600, D = 8192, B = 10, STEPS = 300 };
    static vae_plan plan[STEPS];
    uint32_t index[N / 20];
    device d = {0};
    (void)state;
    if (device_is_cuda()) {
        return;
    }
    const char *path = write_some(U1, N, D);
    vae_dataset *set = open_set(path, true, NULL);
    const int fd = open(path, O_RDONLY);
    assert_int_equal(fsync(fd), 0);
    assert_int_equal(posix_fadvise(fd, 0, 0, POSIX_FADV_DONTNEED), 0);
    close(fd);
    if (page_is_there(set, 0) || page_is_there(set, 570)) {
        vae_dataset_free(set);
        print_message("SKIPPED: the scratch folder is in memory\n");
        skip();
    }
    for (size_t i = 0; i < N / 20; i++) {
        index[i] = (uint32_t)(20 * i);
    }
    for (size_t i = 0; i < STEPS; i++) { /* two entries with other rows than those before */
        plan[i].first = i < STEPS - 1 ? i % 2 * B : 2 * B;
    }
    device_begin(&d, 1);
    gather_call c = {&d, device_output(&d, B, D), NULL, B, D};
    c.data = d.be->ops->data_open(d.be, set, index, N / 20);
    for (int far = 0; far < 2; far++) { /* at once; and once the steps before have begun */
        bool all = false;
        if (far == 0) {
            d.be->ops->plan(d.be, plan, STEPS, B, c.data);
        } else {
            d.be->ops->run(d.be, 0, STEPS - 104, gather_step, &c);
            assert_false(page_is_there(set, index[2 * B]));
            d.be->ops->run(d.be, 0, 1, gather_step, &c);
        }
        for (int wait = 0; wait < 5000 && !all; wait++) {
            all = true;
            for (size_t i = 0; i < B; i++) {
                all = all &&
                      page_is_there(set, index[far == 0 ? i + B * (size_t)(wait % 2) : 2 * B + i]);
            }
            usleep(1000);
        }
        assert_true(all);
        assert_true(far == 1 || !page_is_there(set, index[2 * B]));
        assert_false(page_is_there(set, index[1] + 10));
    }
    assert_int_equal(d.be->ops->sync(d.be, NULL), VAE_OK);
    d.be->ops->data_close(d.be, c.data);
    device_end(&d);
    vae_dataset_free(set);
}

/* The last rows of files of more than 2^32 bytes, most of which are holes. */
static void batches_are_gathered_from_behind_4_gib(void **state)
{
    static const struct {
        kind of;
        size_t n, d;
    } cases[] = {{U1, (size_t)1 << 26, 67},        /* rows, bytes: beyond 2^32 */
                 {F4, ((size_t)1 << 24) + 3, 257}, /* values, too */
                 {B1, ((size_t)1 << 24) + 3, 257},
                 {IDX, ((size_t)1 << 24) + 3, 257}};
    (void)state;
    setenv("VAE_CUDA_STREAM_DATA", "1", 1);
    device_keep_none();
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        const size_t n = cases[i].n, d = cases[i].d, bytes = vae_row_bytes(VAE_F32, d);
        const uint32_t index[] = {(uint32_t)n - 1, (uint32_t)n - 2, 5, (uint32_t)n - 3};
        size_t value_bytes;
        uint8_t room[2048];
        device dev = {0};
        void *values = some_values(cases[i].of, 3 * d, &value_bytes);
        assert_true(n * d > UINT32_MAX && bytes <= sizeof room);
        vae_dataset *set =
            open_unread(cases[i].of, write_file(cases[i].of, n, d, values, value_bytes));
        const float last = vae_dataset_value(set, n - 1, d - 1);
        assert_true(last == (cases[i].of == F4   ? ((const float *)values)[3 * d - 1]
                             : cases[i].of == B1 ? (float)((const uint8_t *)values)[3 * d - 1]
                                                 : ((const uint8_t *)values)[3 * d - 1] / 255.0f));
        const uint8_t *row = vae_dataset_row(set, n - 3, room);
        if (cases[i].of == B1) {
            assert_int_equal(row[8] >> 3 & 1, ((const uint8_t *)values)[67]);
        } else {
            assert_memory_equal(row, values, value_bytes / 3);
        }
        device_begin(&dev, 2);
        check_batch(&dev, set, index, 4, 4);
        device_end(&dev);
        assert_int_equal(vae_dataset_pick(set, index, 2, NULL), VAE_OK);
        assert_true(vae_dataset_value(set, 0, d - 1) == last);
        vae_dataset_free(set);
        free(values);
    }
    device_keep_none();
    unsetenv("VAE_CUDA_STREAM_DATA");
}

/* Rows of a file beyond 4 GiB are scored as the same rows in memory. */
static void rows_behind_4_gib_are_scored(void **state)
{
    enum { N = 5, D = 67 };
    const size_t n = (size_t)1 << 26;
    const vae_config config = small_config();
    const vae_plan plan = still_plan(1, 0, 1);
    uint32_t index[N];
    model_fixture f;
    (void)state;
    setenv("VAE_CUDA_STREAM_DATA", "1", 1);
    device_keep_none();
    fixture_open(&f, &config, VAE_U8, N, D, N, 2);
    vae_dataset *set = open_unread(U1, write_file(U1, n, D, f.set.rows, (size_t)N * D));
    for (size_t i = 0; i < N; i++) {
        index[i] = (uint32_t)(n - N + i);
    }
    vae_model_measure(f.model, f.data, &plan, 1, N);
    const vae_totals want = fixture_totals(&f);
    vae_data *data = f.be->ops->data_open(f.be, set, index, N);
    vae_model_measure(f.model, data, &plan, 1, N);
    const vae_totals got = fixture_totals(&f);
    f.be->ops->data_close(f.be, data);
    assert_true(want.recon > 0 && want.examples == N);
    assert_true(want.recon == got.recon && want.kl == got.kl && want.examples == got.examples);
    vae_dataset_free(set);
    fixture_close(&f);
    device_keep_none();
    unsetenv("VAE_CUDA_STREAM_DATA");
}

/* ---- a file that changes ---- */

static void check_change(device *d)
{
    enum { D = 4096 };
    vae_error err = {0};
    const vae_plan plan = {.beta = 1};
    const char *path = write_some(U1, 50, D);
    vae_dataset *set = open_set(path, true, NULL);
    gather_call c = {d, device_output(d, 4, D), NULL, 4, D};
    c.data = d->be->ops->data_open(d->be, set, NULL, set->n);
    d->be->ops->plan(d->be, &plan, 1, 4, c.data);
    d->be->ops->run(d->be, 0, 1, gather_step, &c);
    assert_int_equal(d->be->ops->sync(d->be, NULL), VAE_OK);
    assert_int_equal(truncate(path, 30 * D), 0);
    d->be->ops->plan(d->be, &plan, 1, 4, c.data);
    d->be->ops->run(d->be, 0, 1, gather_step, &c);
    const vae_status status = d->be->ops->sync(d->be, &err);
    if (device_is_cuda() && strcmp(getenv("VAE_CUDA_STREAM_DATA"), "0") == 0) {
        assert_int_equal(status, VAE_OK); /* it has all rows */
        assert_int_equal(vae_dataset_check_file(set, &err), VAE_ERR_IO);
    } else {
        assert_int_equal(status, VAE_ERR_IO);
    }
    assert_non_null(strstr(err.text, path));
    assert_non_null(strstr(err.text, "has 122880 bytes, but had 204928 when it was opened"));
    d->be->ops->data_close(d->be, c.data);
    vae_dataset_free(set);
}

static void a_file_that_changes_ends_the_work(void **state)
{
    (void)state;
    each_way(check_change);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(rows_are_those_that_are_read),
        cmocka_unit_test(means_are_those_of_the_rows),
        cmocka_unit_test(rows_come_into_memory_where_they_must),
        cmocka_unit_test(closest_rows_are_the_same),
        cmocka_unit_test(bad_values_are_named_by_place),
        cmocka_unit_test(files_of_another_length_are_refused),
        cmocka_unit_test(a_file_cut_while_it_is_opened_is_refused),
        cmocka_unit_test(rows_of_a_file_that_changes_are_not_taken),
        cmocka_unit_test(a_long_pass_tells_and_holds_little),
        cmocka_unit_test(batches_are_gathered_from_a_map),
        cmocka_unit_test(planned_rows_are_fetched),
        cmocka_unit_test(batches_are_gathered_from_behind_4_gib),
        cmocka_unit_test(rows_behind_4_gib_are_scored),
        cmocka_unit_test(a_file_that_changes_ends_the_work),
    };
    return cmocka_run_group_tests(tests, begin, scratch_teardown);
}
