/* TensorBoard's folder in a run, tensorboard/: event files (a new one each time that the run is
 * taken up), and at the end the projector's files. What cannot be written is the run's error at its
 * end. */
#include <errno.h>
#include <fcntl.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "base/text.h"
#include "format/tfevents.h"
#include "image/image.h"
#include "train/run_parts.h"

enum {
    MOST_ROWS = 1000,        /* that histograms and the projector are made of */
    MOST_FILE = 1 << 30,     /* of events that a resumed run looks through */
    SPRITE_SIDE = 8192,      /* TensorBoard takes no larger one */
    MOST_PICTURE = 64 << 20, /* bytes of a PNG file */
};

static const char events_name[] = "events.out.tfevents.";

static double now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_REALTIME, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

static void lose(training_run *t, const char *name, const char *why)
{
    vae_error err = {0};
    vae_fail(&err, VAE_ERR_IO, "%s/tensorboard/%s: cannot write: %s", t->folder.path, name, why);
    vae_train_lose(t, &err);
}

/* ---- event files ---- */

/* Takes away what an earlier session wrote past `step`: it comes again. */
static vae_status cut(const char *path, uint64_t step, vae_error *err)
{
    struct stat st;
    uint8_t *bytes = NULL;
    vae_status status = VAE_OK;
    const int fd = open(path, O_RDWR | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK);
    if (fd < 0 || fstat(fd, &st) != 0) {
        TRY(vae_fail(err, VAE_ERR_IO, "%s: cannot open: %s", path, strerror(errno)));
    }
    if (!S_ISREG(st.st_mode) || st.st_size > MOST_FILE) {
        TRY(vae_fail(err, VAE_ERR_DATA, "%s: expected a file of at most %d bytes", path,
                     MOST_FILE));
    }
    const size_t n = (size_t)st.st_size;
    bytes = malloc(n + 1);
    if (bytes == NULL) {
        TRY(vae_fail_memory(err, n, path));
    }
    if (vae_read_at(fd, bytes, n, 0) != (ssize_t)n) {
        TRY(vae_fail(err, VAE_ERR_IO, "%s: cannot read", path));
    }
    if (ftruncate(fd, (off_t)tf_until(bytes, n, step)) != 0) {
        TRY(vae_fail(err, VAE_ERR_IO, "%s: cannot cut: %s", path, strerror(errno)));
    }
done:
    free(bytes);
    if (fd >= 0) {
        close(fd);
    }
    return status;
}

/* Adds a record in one write; it is consumed. */
static void put(training_run *t, pb_buffer *record)
{
    if (record->failed) {
        lose(t, "events", "out of memory");
    } else if (t->board >= 0 && !vae_write_all(t->board, record->bytes, record->n)) {
        lose(t, "events", strerror(errno));
        close(t->board); /* the rest would come after a hole */
        t->board = -1;
    }
    pb_free(record);
}

vae_status vae_board_open(training_run *t, uint64_t step, vae_error *err)
{
    char folder[VAE_RUN_PATH], path[VAE_RUN_PATH + 128], **names = NULL;
    size_t n = 0;
    vae_status status = VAE_OK;
    if (!t->loop.config->tensorboard) {
        return VAE_OK;
    }
    vae_run_folder_path(&t->folder, "tensorboard", folder);
    if (mkdir(folder, 0777) != 0 && errno != EEXIST) {
        TRY(vae_fail(err, VAE_ERR_IO, "%s: cannot make the folder: %s", folder, strerror(errno)));
    }
    TRY(vae_folder_names(&names, &n, folder, err));
    for (size_t i = 0; i < n; i++) {
        if (strncmp(names[i], events_name, strlen(events_name)) == 0) {
            snprintf(path, sizeof path, "%s/%.100s", folder, names[i]);
            TRY(cut(path, step, err));
        }
    }
    for (unsigned k = 0; t->board < 0 && k < 1000; k++) { /* two sessions in one second */
        snprintf(path, sizeof path, "%s/%s%010lld.%u.vae", folder, events_name,
                 (long long)time(NULL), k);
        t->board = open(path, O_WRONLY | O_CREAT | O_EXCL | O_APPEND | O_CLOEXEC, 0666);
        if (t->board < 0 && errno != EEXIST) {
            break;
        }
    }
    if (t->board < 0) {
        TRY(vae_fail(err, VAE_ERR_IO, "%s: cannot make: %s", path, strerror(errno)));
    }
    pb_buffer first = tf_first_record(now());
    put(t, &first);
done:
    vae_names_free(names, n);
    return status;
}

void vae_board_close(training_run *t)
{
    if (t->board >= 0) {
        close(t->board);
        t->board = -1;
    }
}

/* ---- an epoch ---- */

static void put_measurement(tf_event *e, const vae_measurement *m, const char *split, bool bounded)
{
    char tag[64];
    const struct {
        const char *name;
        double value;
        bool there;
    } scalars[] = {{"elbo", m->elbo, true},
                   {"recon", m->recon, true},
                   {"kl", m->kl, true},
                   {"bound", -m->bound, bounded},
                   {"error", m->error, m->classified > 0}};
    for (size_t i = 0; m->n > 0 && i < sizeof scalars / sizeof scalars[0]; i++) {
        if (scalars[i].there) {
            snprintf(tag, sizeof tag, "%s/%s", scalars[i].name, split);
            tf_scalar(e, tag, scalars[i].value);
        }
    }
}

static void put_picture(training_run *t, tf_event *e, const char *tag, const char *path)
{
    char *bytes = NULL;
    size_t n;
    vae_error err = {0};
    if (path[0] == '\0' || vae_file_bytes(&bytes, &n, path, MOST_PICTURE, &err) != VAE_OK ||
        !tf_image(e, tag, (const uint8_t *)bytes, n)) {
        vae_note(&t->notes, "warning: %s: not in TensorBoard's events", path);
    }
    free(bytes);
}

/* mu: (n,Z), or NULL; kl: (Z). */
static vae_status latents(const vae_trained *on, size_t n, float *mu, double *kl, vae_error *err)
{
    const vae_plan plan = vae_eval_plan(0, 0);
    const vae_batch_out out = {.mu = mu};
    return vae_trained_run(on, n, &plan, NULL, &out, kl, err);
}

void vae_board_epoch(training_run *t, const vae_epoch_record *r, bool drawn)
{
    const size_t Z = t->loop.config->latent;
    tf_event e = {0};
    vae_error err = {0};
    vae_trained on;
    if (t->board < 0) {
        return;
    }
    put_measurement(&e, &r->train, "train", r->bounded);
    put_measurement(&e, &r->validation, "validation", r->bounded);
    put_measurement(&e, &r->test, "test", r->bounded);
    tf_scalar(&e, "training/lr", r->lr);
    tf_scalar(&e, "training/beta", r->beta);
    tf_scalar(&e, "training/examples_per_s", r->examples_per_s);
    if (drawn && vae_is_picture(t->loop.now->height, t->loop.now->width, t->loop.now->channels)) {
        put_picture(t, &e, "samples", t->result->samples);
        put_picture(t, &e, "reconstructions", t->result->reconstruction);
    }
    double *kl = malloc(Z * sizeof *kl);
    vae_train_view(&t->loop, &on);
    if (kl != NULL && latents(&on, on.n < MOST_ROWS ? on.n : MOST_ROWS, NULL, kl, &err) == VAE_OK) {
        tf_histogram(&e, "kl_of_dimensions", kl, Z);
    } else if (kl != NULL) {
        vae_note(&t->notes, "warning: no histogram of the KL: %s", err.text);
    }
    free(kl);
    pb_buffer record = tf_record(&e, now(), r->step);
    put(t, &record);
}

/* ---- the projector ---- */

/* What was printed into a stream from open_memstream, as a file; text is freed. */
static vae_status keep(FILE *file, char **text, const size_t *size, const char *path,
                       vae_error *err)
{
    vae_status status = VAE_OK;
    if (file == NULL || fclose(file) != 0) {
        TRY(vae_fail(err, VAE_ERR_RUNTIME, "out of memory for %s", path));
    }
    const struct iovec part = {*text, *size};
    TRY(vae_file_replace(path, &part, 1, err));
done:
    free(*text);
    return status;
}

static vae_status write_latents(const char *path, const float *mu, size_t n, size_t Z,
                                vae_error *err)
{
    char *text = NULL;
    size_t size = 0;
    FILE *file = open_memstream(&text, &size);
    for (size_t i = 0; file != NULL && i < n * Z; i++) {
        fprintf(file, "%.6g%c", (double)mu[i], i % Z == Z - 1 ? '\n' : '\t');
    }
    return keep(file, &text, &size, path, err);
}

static vae_status write_labels(const char *path, const vae_dataset *set, const uint32_t *rows,
                               size_t n, vae_error *err)
{
    char *text = NULL;
    size_t size = 0;
    FILE *file = open_memstream(&text, &size);
    for (size_t i = 0; file != NULL && i < n; i++) {
        const uint32_t y = set->labels[rows != NULL ? rows[i] : i];
        fprintf(file, "%s\n", y == VAE_NO_LABEL ? "" : set->classes.name[y]);
    }
    return keep(file, &text, &size, path, err);
}

static vae_status write_sprite(const char *path, const vae_dataset *set, const uint32_t *rows,
                               size_t n, vae_error *err)
{
    const vae_grid_spec spec = {.cells = n,
                                .height = set->height,
                                .width = set->width,
                                .channels = set->channels,
                                .columns = (size_t)ceil(sqrt((double)n)),
                                .zoom = 1};
    vae_grid grid;
    float *row = malloc(set->d * sizeof *row);
    vae_status status = vae_grid_open(&grid, &spec, path, err);
    if (status == VAE_OK && row == NULL) {
        status = vae_fail_memory(err, set->d * sizeof *row, path);
    }
    for (size_t i = 0; status == VAE_OK && i < n; i++) {
        for (size_t j = 0; j < set->d; j++) {
            row[j] = vae_dataset_value(set, rows != NULL ? rows[i] : i, j);
        }
        vae_grid_draw(&grid, i, row);
    }
    status = status == VAE_OK ? vae_grid_write(&grid, path, err) : status;
    vae_grid_close(&grid);
    free(row);
    return status;
}

static vae_status write_projector(training_run *t, const vae_trained *on, const uint32_t *rows,
                                  size_t n, float *mu, double *kl, vae_error *err)
{
    const vae_dataset *set = on->set;
    const bool pictures = vae_is_picture(set->height, set->width, set->channels);
    char path[VAE_RUN_PATH], text[512];
    vae_status status = VAE_OK;
    int length = snprintf(text, sizeof text,
                          "embeddings {\n  tensor_name: \"mu\"\n  tensor_path: \"mu.tsv\"\n");
    TRY(latents(on, n, mu, kl, err));
    vae_run_folder_path(&t->folder, "tensorboard/mu.tsv", path);
    TRY(write_latents(path, mu, n, t->loop.config->latent, err));
    if (set->labels != NULL) {
        vae_run_folder_path(&t->folder, "tensorboard/labels.tsv", path);
        TRY(write_labels(path, set, rows, n, err));
        length += snprintf(text + length, sizeof text - (size_t)length,
                           "  metadata_path: \"labels.tsv\"\n");
    }
    const size_t side = set->width > set->height ? set->width : set->height;
    if (pictures && side * (size_t)ceil(sqrt((double)n)) <= SPRITE_SIDE) {
        vae_run_folder_path(&t->folder, "tensorboard/sprite.png", path);
        TRY(write_sprite(path, set, rows, n, err));
        length += snprintf(text + length, sizeof text - (size_t)length,
                           "  sprite {\n    image_path: \"sprite.png\"\n    single_image_dim: %zu\n"
                           "    single_image_dim: %zu\n  }\n",
                           set->width, set->height);
    }
    length += snprintf(text + length, sizeof text - (size_t)length, "}\n");
    const struct iovec part = {text, (size_t)length};
    vae_run_folder_path(&t->folder, "tensorboard/projector_config.pbtxt", path);
    TRY(vae_file_replace(path, &part, 1, err)); /* last: it says that the others are there */
done:
    return status;
}

void vae_board_projector(training_run *t)
{
    vae_trained on;
    vae_error err = {0};
    const size_t Z = t->loop.config->latent;
    if (t->board < 0) {
        return;
    }
    const uint32_t *rows = vae_train_view(&t->loop, &on);
    const size_t n = on.n < MOST_ROWS ? on.n : MOST_ROWS;
    float *mu = malloc(n * Z * sizeof *mu);
    double *kl = malloc(Z * sizeof *kl);
    if (mu == NULL || kl == NULL) {
        vae_fail_memory(&err, n * Z * sizeof *mu, "the projector");
    } else {
        write_projector(t, &on, rows, n, mu, kl, &err);
    }
    if (err.status != VAE_OK) {
        vae_train_lose(t, &err);
    }
    free(kl);
    free(mu);
}
