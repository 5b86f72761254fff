/* From the words RUN and --data to a trained model and data that it is asked about. */
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "backend/open.h"
#include "cli/cli.h"

vae_status cli_open_checkpoint(vae_trained *m, const cli_args *args, vae_error *err)
{
    const char *device = cli_value(args, "device"), *threads = cli_value(args, "threads");
    vae_status status = VAE_OK;
    TRY(vae_trained_open(m, args->words[0], cli_given(args, "best"), err));
    TRY(vae_config_set(&m->config, "device", device != NULL ? device : "auto", err));
    TRY(vae_config_set(&m->config, "threads", threads != NULL ? threads : "0", err));
done:
    return status;
}

vae_status cli_binarize(vae_trained *m, const cli_args *args, vae_error *err)
{
    const char *mode = cli_value(args, "binarize");
    vae_status status = VAE_OK;
    if (mode != NULL) {
        TRY(vae_config_set(&m->config, "binarize", mode, err));
        TRY(vae_config_check(&m->config, 0, err));
    }
done:
    return status;
}

vae_status cli_class(const vae_trained *m, const cli_args *args, int *out, vae_error *err)
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

vae_status cli_open_named_set(vae_trained *m, const cli_args *args, const char *name,
                              vae_split split, vae_error *err)
{
    size_t limit;
    vae_status status = VAE_OK;
    TRY(cli_size(args, "limit", 0, 0, SIZE_MAX / 2, &limit, err));
    const vae_data_options options = cli_data_options(&m->config, limit);
    TRY(vae_trained_open_set(m, name, split, &options, err));
done:
    return status;
}

vae_status cli_open_set(vae_trained *m, const cli_args *args, vae_error *err)
{
    const char *data = cli_value(args, "data"), *split = cli_value(args, "split");
    const char *name = data != NULL ? data : m->config.data;
    if (split != NULL && strcmp(split, "train") != 0 && strcmp(split, "test") != 0) {
        return vae_fail(err, VAE_ERR_USAGE, "--split: expected train or test, found '%s'", split);
    }
    const bool test = split != NULL ? strcmp(split, "test") == 0 : vae_dataset_has_test(name);
    return cli_open_named_set(m, args, name, test ? VAE_SPLIT_TEST : VAE_SPLIT_TRAIN, err);
}

vae_status cli_open_set_if_there(vae_trained *m, const cli_args *args, const char *needed,
                                 vae_error *missing, vae_error *err)
{
    vae_status status = cli_open_set(m, args, missing);
    if (status == VAE_OK) {
        return VAE_OK;
    }
    vae_trained_close_set(m);
    return cli_given(args, "data") || cli_given(args, "split") || cli_given(args, "limit") ||
                   (needed != NULL && cli_given(args, needed)) || status == VAE_ERR_RUNTIME
               ? vae_fail(err, status, "%s", missing->text)
               : VAE_OK;
}
