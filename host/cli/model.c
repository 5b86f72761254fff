/* From the words RUN and --data to a model and data on a backend. */
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "backend/open.h"
#include "cli/cli.h"
#include "infer/stack.h"

vae_status cli_open_checkpoint(cli_model *m, const cli_args *args, bool moments, vae_error *err)
{
    const char *device = cli_value(args, "device"), *threads = cli_value(args, "threads");
    const bool best = cli_value(args, "best") != NULL;
    vae_status status =
        vae_checkpoint_open_run(&m->checkpoint, args->words[0], best, moments, m->path, err);
    if (status != VAE_OK) {
        return status;
    }
    m->config = m->checkpoint->config;
    /* what the training machine had need not be here */
    m->config.precision = VAE_FP32;
    status = vae_config_set(&m->config, "device", device != NULL ? device : "auto", err);
    if (status == VAE_OK) {
        status = vae_config_set(&m->config, "threads", threads != NULL ? threads : "0", err);
    }
    return status;
}

vae_status cli_open_model(cli_model *m, size_t max_batch, size_t particles, vae_error *err)
{
    const vae_backend_options options = {m->config.device, m->config.device_index,
                                         m->config.precision, m->config.threads};
    vae_config config = m->config;
    config.particles = particles;
    vae_status status = vae_backend_open(&m->be, &options, err);
    if (status == VAE_OK) {
        status =
            vae_model_create(&m->model, &config, m->checkpoint->d, max_batch, false, m->be, err);
    }
    return status == VAE_OK ? vae_model_set(m->model, VAE_PARAMS, m->checkpoint->params, err)
                            : status;
}

vae_status cli_stack_set(cli_model *m, vae_error *err)
{
    vae_stack stack;
    vae_dataset *encoded = NULL;
    if (m->config.stack[0] == '\0') {
        return VAE_OK;
    }
    vae_status status = vae_stack_open(&stack, &m->config, err);
    if (status == VAE_OK) {
        status = vae_stack_encode(&encoded, &stack, m->set, err);
    }
    vae_stack_close(&stack);
    if (status == VAE_OK) {
        vae_dataset_free(m->set);
        m->set = encoded;
    }
    return status;
}

vae_status cli_class(const cli_model *m, const cli_args *args, int *out, vae_error *err)
{
    const char *text = cli_value(args, "class");
    const size_t n = m->config.classes;
    uint64_t value;
    *out = -1;
    if (text == NULL) {
        return VAE_OK;
    }
    if (!vae_config_has_classes(&m->config)) {
        return vae_fail(err, VAE_ERR_USAGE,
                        "--class has no effect: %s is not conditional and has no classes", m->path);
    }
    if (!vae_parse_u64(text, 0, n - 1, &value)) {
        return vae_fail(err, VAE_ERR_USAGE,
                        "--class: expected a whole number from 0 to %zu, found '%s'", n - 1, text);
    }
    *out = (int)value;
    return VAE_OK;
}

static void show_progress(void *ctx, size_t done, size_t total)
{
    (void)ctx;
    fprintf(stderr, done < total ? "\rvae: reading pictures: %zu of %zu" : "\r\033[K", done, total);
}

vae_data_options cli_data_options(const vae_config *config, size_t limit)
{
    return (vae_data_options){
        .config = config, .limit = limit, .progress = isatty(STDERR_FILENO) ? show_progress : NULL};
}

/* The columns that the model knows, in its order. */
static vae_status check_columns(const cli_model *m, vae_error *err)
{
    const vae_dataset *set = m->set;
    const char *want = m->checkpoint->columns;
    for (size_t i = 0; want != NULL && set->column_names != NULL && i < set->d; i++) {
        const size_t n = strcspn(want, "\n");
        if (strlen(set->column_names[i]) != n || strncmp(set->column_names[i], want, n) != 0) {
            return vae_fail(err, VAE_ERR_DATA,
                            "%s: column %zu is '%.40s'; the model was trained with '%.*s' there",
                            set->source, i + 1, set->column_names[i], (int)(n < 40 ? n : 40), want);
        }
        want += n + 1;
    }
    return VAE_OK;
}

vae_status cli_open_named_set(cli_model *m, const char *name, vae_split split, size_t limit,
                              vae_error *err)
{
    const vae_checkpoint *c = m->checkpoint;
    const vae_data_options options = cli_data_options(&m->config, limit);
    vae_status status = vae_dataset_open(&m->set, name, split, &options, err);
    if (status == VAE_OK) {
        status = cli_stack_set(m, err);
    }
    if (status == VAE_OK && m->set->d != c->d) {
        status = vae_fail(err, VAE_ERR_DATA, "%s: %zu columns; the model was trained on %zu",
                          m->set->source, m->set->d, c->d);
    }
    if (status == VAE_OK && (status = check_columns(m, err)) == VAE_OK) {
        status = vae_dataset_check_range(m->set, m->config.likelihood, err);
    }
    if (status == VAE_OK && vae_config_has_classes(&m->config)) {
        status = vae_dataset_check_labels(m->set, m->config.classes,
                                          m->config.condition == VAE_CONDITION_LABELS, err);
    }
    return status == VAE_OK && c->standard != NULL
               ? vae_dataset_standardize(m->set, c->standard, c->standard + c->d, err)
               : status;
}

vae_status cli_open_set(cli_model *m, const cli_args *args, vae_error *err)
{
    const char *name = cli_value(args, "data"), *split = cli_value(args, "split");
    size_t limit;
    vae_status status = cli_size(args, "limit", 0, 0, SIZE_MAX / 2, &limit, err);
    if (status != VAE_OK) {
        return status;
    }
    name = name != NULL ? name : m->config.data;
    if (split != NULL && strcmp(split, "train") != 0 && strcmp(split, "test") != 0) {
        return vae_fail(err, VAE_ERR_USAGE, "--split: expected train or test, found '%s'", split);
    }
    bool test = split != NULL ? strcmp(split, "test") == 0 : vae_dataset_has_test(name);
    m->split = test ? "test" : "train";
    return cli_open_named_set(m, name, test ? VAE_SPLIT_TEST : VAE_SPLIT_TRAIN, limit, err);
}

vae_status cli_open_data(cli_model *m, vae_error *err)
{
    m->data = m->be->ops->data_open(m->be, m->set, NULL, m->set->n);
    return m->be->ops->sync(m->be, err);
}

void cli_close(cli_model *m)
{
    if (m->be != NULL) {
        vae_model_free(m->model);
        m->be->ops->data_close(m->be, m->data);
        m->be->ops->close(m->be);
    }
    vae_dataset_free(m->set);
    vae_checkpoint_free(m->checkpoint);
}
