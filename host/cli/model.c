/* From the words RUN and --data to a trained model and data that it is asked about. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "backend/open.h"
#include "cli/cli.h"
#include "philox.h"
#include "train/rows.h"

vae_status cli_open_checkpoint(vae_trained *m, const cli_args *args, vae_error *err)
{
    const char *device = cli_value(args, "device"), *threads = cli_value(args, "threads");
    vae_status status = VAE_OK;
    TRY(vae_trained_open(m, args->words[0], cli_given(args, "best"), err));
    m->ranks = args->ranks;
    TRY(vae_config_set(&m->config, "device", device != NULL ? device : "auto", err));
    TRY(vae_config_set(&m->config, "threads", threads != NULL ? threads : "0", err));
    if (m->ranks != NULL && m->config.threads == 0) {
        m->config.threads = m->ranks->cores; /* of loops of one's own, too */
    }
done:
    return status;
}

vae_status cli_binarize(vae_trained *m, const cli_args *args, vae_error *err)
{
    const char *mode = cli_value(args, "binarize");
    vae_status status = VAE_OK;
    if (mode != NULL) {
        TRY(vae_config_set(&m->config, "binarize", mode, err));
        TRY(vae_config_check(&m->config, NULL, err));
    }
done:
    return status;
}

vae_status cli_binarize_for_latents(vae_trained *m, const cli_args *args, vae_error *err)
{
    if (m->config.binarize == VAE_BINARIZE_DYNAMIC && !cli_given(args, "binarize")) {
        m->config.binarize = VAE_BINARIZE_NONE;
        cli_say(args,
                "latents of the data as they are; --binarize dynamic draws x as training did");
    }
    return cli_binarize(m, args, err);
}

vae_status cli_class(const vae_trained *m, const cli_args *args, int *out, vae_error *err)
{
    const char *text = cli_value(args, "class");
    const vae_classes *classes = &m->checkpoint->classes;
    char list[VAE_CLASSES_TEXT];
    *out = -1;
    if (text == NULL) {
        return VAE_OK;
    }
    if (!vae_config_has_classes(&m->config)) {
        return vae_fail(err, VAE_ERR_USAGE,
                        "--class has no effect: %s is not conditional and has no classes", m->path);
    }
    const size_t found = vae_class_find(classes, text);
    if (found == SIZE_MAX) {
        return vae_fail(err, VAE_ERR_USAGE, "--class: expected one of %s, found '%s'",
                        vae_classes_text(list, classes), text);
    }
    if (!vae_checkpoint_is_trained(m->checkpoint, found)) {
        return vae_fail(err, VAE_ERR_USAGE,
                        "--class %s: no row of that class was trained on: the model does not know "
                        "what it looks like",
                        text);
    }
    *out = (int)found;
    return VAE_OK;
}

static void show_progress(void *ctx, size_t done, size_t total)
{
    (void)ctx;
    fprintf(stderr, done < total ? "\rvae: reading row %zu of %zu" : "\r\033[K", done, total);
}

vae_data_options cli_data_options(const vae_config *config, size_t limit)
{
    return (vae_data_options){
        .config = config, .limit = limit, .progress = isatty(STDERR_FILENO) ? show_progress : NULL};
}

vae_status cli_from_run(bool from_run, vae_status status, const vae_error *why, vae_error *err)
{
    if (status == VAE_OK) {
        return status;
    }
    return vae_fail(err, status, "%s%s", why->text,
                    from_run ? " (that is what the run was trained on: --data names others)" : "");
}

/* Notes about standard input, on their way: they name what the user named. */
typedef struct {
    const cli_spool *spool;
    const vae_notes *to;
} spool_notes;

static void pass_on(void *ctx, const char *line)
{
    const spool_notes *n = ctx;
    const char *at = n->spool->fd >= 0 ? strstr(line, n->spool->path) : NULL;
    if (at == NULL) {
        vae_note(n->to, "%s", line);
    } else {
        vae_note(n->to, "%.*sstandard input%s", (int)(at - line), line,
                 at + strlen(n->spool->path));
    }
}

/* Standard input has no name to be known by: it is a table, if the model was trained on one. */
static vae_status open_named(vae_trained *m, const char *name, vae_split split, size_t limit,
                             vae_error *err)
{
    cli_spool spool = {.fd = -1};
    const bool from_stdin = strcmp(name, "-") == 0;
    vae_data_options options = cli_data_options(&m->config, limit);
    spool_notes notes = {&spool, err->notes};
    const vae_notes through = {pass_on, &notes};
    vae_status status = VAE_OK;
    err->notes = &through;
    if (from_stdin) {
        TRY(cli_spool_open(&spool, err));
        options.nameless = m->checkpoint->columns != NULL;
        name = spool.path;
    }
    TRY(vae_trained_open_set(m, name, split, &options, err));
    if (from_stdin) {
        snprintf(m->set->source, sizeof m->set->source, "standard input");
    }
done:
    err->notes = notes.to;
    cli_spool_rename(&spool, status, err);
    cli_spool_close(&spool);
    return status;
}

vae_status cli_open_named_set(vae_trained *m, const cli_args *args, const char *name,
                              vae_split split, vae_error *err)
{
    size_t limit;
    vae_error why = {.notes = err->notes};
    vae_status status = VAE_OK;
    if (m->ranks != NULL && strcmp(name, "-") == 0) {
        TRY(vae_fail(
            err, VAE_ERR_USAGE,
            "--data -: standard input reaches one rank alone: name a file that all %zu see",
            m->ranks->n));
    }
    TRY(cli_size(args, "limit", 0, 0, SIZE_MAX / 2, &limit, err));
    TRY(cli_from_run(!cli_given(args, "data"), open_named(m, name, split, limit, &why), &why, err));
done:
    return status;
}

vae_status cli_test_data(const char **name, vae_split *split, const vae_config *config,
                         vae_error *err)
{
    const bool named = config->test_data[0] != '\0';
    const char *data = named ? config->test_data : config->data;
    bool has;
    vae_status status = VAE_OK;
    TRY(vae_dataset_has_test(&has, data, err));
    *split = has ? VAE_SPLIT_TEST : VAE_SPLIT_TRAIN;
    *name = has || named ? data : NULL;
done:
    return status;
}

/* Is m->set what the model was trained on, by its checksum? */
static bool is_training_set(const vae_trained *m)
{
    return memcmp(m->checkpoint->data_sha256, m->set->sha256, sizeof m->set->sha256) == 0;
}

/* Does training take all rows that it reads? */
static bool takes_all(const vae_config *config)
{
    return config->validation == 0 && config->exclude_class[0] == '\0';
}

/* Keeps the rows of the training set that were trained on, or those held out, and of these no more
 * than `limit`, if that is above 0: the first, or where neighbours look alike, random ones. */
static vae_status pick_part(vae_trained *m, bool held_out, size_t limit, vae_error *err)
{
    const bool mixed = m->set->factor_sizes != NULL || m->set->kind == VAE_KIND_PICTURES;
    uint32_t *rows = NULL, *part, *taken = NULL;
    size_t n_train, n_held_out;
    vae_status status = VAE_OK;
    TRY(vae_training_rows(&rows, &n_train, &n_held_out, &m->config, m->set, err));
    part = held_out ? rows + n_train : rows;
    const size_t n = held_out ? n_held_out : n_train;
    const size_t kept = limit > 0 && limit < n ? limit : n;
    if (kept < n && mixed) {
        const uint32_t bits = vae_shuffle_bits(n);
        taken = malloc(kept * sizeof *taken);
        if (taken == NULL) {
            TRY(vae_fail_memory(err, kept * sizeof *taken, "row numbers"));
        }
        for (size_t i = 0; i < kept; i++) {
            taken[i] = part[vae_shuffle(VAE_MIXED_ORDER, n, bits, i)];
        }
    }
    TRY(vae_dataset_pick(m->set, taken != NULL ? taken : part, kept, err));
done:
    free(taken);
    free(rows);
    return status;
}

/* The rows that were trained on, or those held out then: of the run's own data, or of `data`, which
 * must be those for the latter. */
static vae_status open_part(vae_trained *m, const cli_args *args, bool held_out, vae_error *err)
{
    const char *data = cli_value(args, "data"), *name = data != NULL ? data : m->config.data;
    const vae_config *c = &m->config;
    size_t limit, read = c->limit;
    bool has_test;
    vae_error why = {.notes = err->notes};
    vae_status status = VAE_OK;
    TRY(cli_size(args, "limit", 0, 0, SIZE_MAX / 2, &limit, err));
    if (held_out && c->validation == 0) {
        TRY(vae_fail(err, VAE_ERR_USAGE,
                     "--split validation: %s held no rows out; training with --validation 0.1 does",
                     m->path));
    }
    if (data == NULL && takes_all(c) && limit > 0) {
        read = read == 0 || limit < read ? limit : read; /* fewer of them are the first of them */
    }
    TRY(cli_from_run(data == NULL, open_named(m, name, VAE_SPLIT_TRAIN, read, &why), &why, err));
    if (!is_training_set(m) && (held_out || (data == NULL && !takes_all(c)))) {
        TRY(vae_fail(err, VAE_ERR_DATA,
                     "%s: not what %s was trained on (by SHA-256), so which of its rows were %s is "
                     "not known; name the training data with --data, or leave --split out",
                     name, m->path, held_out ? "held out" : "trained on"));
    }
    if (is_training_set(m)) {
        if (!takes_all(c) || limit > 0) {
            TRY(pick_part(m, held_out, limit, err));
        }
        m->split = held_out ? "validation" : "train";
    } else if (data != NULL) {
        if (read != limit) { /* other data, of which the run's own --limit says nothing */
            TRY(cli_open_named_set(m, args, name, VAE_SPLIT_TRAIN, err));
        }
        TRY(vae_dataset_has_test(&has_test, name, err));
        m->split = has_test ? "train" : "data";
    }
done:
    return status;
}

/* All rows of data without splits: those that were trained on, if no others are among them. */
static vae_status open_all(vae_trained *m, const cli_args *args, const char *name, vae_error *err)
{
    const vae_config *c = &m->config;
    vae_status status = VAE_OK;
    TRY(cli_open_named_set(m, args, name, VAE_SPLIT_TRAIN, err));
    const bool own = strcmp(name, c->data) == 0 || is_training_set(m);
    m->split = own && takes_all(c) && (c->limit == 0 || m->set->n <= c->limit) ? "train" : "data";
done:
    return status;
}

vae_status cli_open_set(vae_trained *m, const cli_args *args, vae_error *err)
{
    const char *data = cli_value(args, "data"), *split = cli_value(args, "split");
    const char *test = data;
    vae_split of_test = VAE_SPLIT_TEST;
    bool has_test;
    vae_status status = VAE_OK;
    if (split != NULL && data != NULL && strcmp(data, "-") == 0) {
        return vae_fail(err, VAE_ERR_USAGE, "--split has no effect on standard input");
    }
    if (split != NULL && strcmp(split, "test") != 0) {
        const bool held_out = strcmp(split, "validation") == 0;
        return held_out || strcmp(split, "train") == 0
                   ? open_part(m, args, held_out, err)
                   : vae_fail(err, VAE_ERR_USAGE,
                              "--split: expected train, validation or test, found '%s'", split);
    }
    if (data == NULL) {
        TRY(cli_test_data(&test, &of_test, &m->config, err));
    } else if (split == NULL) {
        TRY(vae_dataset_has_test(&has_test, data, err));
        test = has_test ? data : NULL;
    }
    if (test == NULL && split == NULL) {
        return open_all(m, args, data != NULL ? data : m->config.data, err);
    }
    /* where there is none, the reader says what is missing */
    TRY(cli_open_named_set(m, args, test != NULL ? test : m->config.data,
                           test != NULL ? of_test : VAE_SPLIT_TEST, err));
    m->split = "test";
done:
    return status;
}

vae_status cli_open_set_if_there(vae_trained *m, const cli_args *args, const char *split,
                                 const char *needed, vae_error *missing, vae_error *err)
{
    const cli_args asked = cli_with(args, "split", split);
    vae_status status = cli_open_set(m, &asked, missing);
    if (status == VAE_OK) {
        return VAE_OK;
    }
    vae_trained_close_set(m);
    const vae_config *c = &m->config;
    const bool gone = vae_dataset_is_gone(c->data) ||
                      (c->test_data[0] != '\0' && vae_dataset_is_gone(c->test_data)) ||
                      (c->stack[0] != '\0' && vae_dataset_is_gone(c->stack));
    return cli_given(args, "data") || cli_given(args, "split") || cli_given(args, "limit") ||
                   (needed != NULL && cli_given(args, needed)) || status == VAE_ERR_RUNTIME ||
                   (status == VAE_ERR_IO && !gone)
               ? vae_fail(err, status, "%s", missing->text)
               : VAE_OK;
}

/* ---- standard input as a file ---- */

vae_status cli_spool_open(cli_spool *s, vae_error *err)
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

vae_status cli_spool_rename(const cli_spool *s, vae_status status, vae_error *err)
{
    const size_t n = strlen(s->path);
    if (status != VAE_OK && s->fd >= 0 && strncmp(err->text, s->path, n) == 0) {
        char text[VAE_ERROR_TEXT];
        snprintf(text, sizeof text, "standard input%s", err->text + n);
        memcpy(err->text, text, sizeof text);
    }
    return status;
}

void cli_spool_close(cli_spool *s)
{
    if (s->fd >= 0) {
        close(s->fd);
    }
}
