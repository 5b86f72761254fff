/* The weights that training begins with, where another model's are asked for. */
#include "train/init.h"

#include <string.h>

#include "exchange/exchange.h"

static vae_status open_source(vae_checkpoint **out, const vae_config *config, vae_error *err)
{
    char found[VAE_PATH];
    vae_checkpoint *c = NULL;
    vae_status status = VAE_OK;
    TRY(vae_open_weights(&c, config->init_from, found, err));
    if (c->config.stack[0] != '\0') {
        TRY(vae_fail(err, VAE_ERR_USAGE,
                     "--init-from %s: a stacked model, whose data are another run's latents",
                     config->init_from));
    }
    *out = c;
    c = NULL;
done:
    vae_checkpoint_free(c);
    return status;
}

/* What makes picture files the model's rows. */
static vae_status take_reading(vae_config *config, const vae_config *from,
                               const vae_option_set *given, vae_error *err)
{
    static const char *const names[] = {"image-size", "image-channels", "exif"};
    char value[VAE_PATH];
    vae_status status = VAE_OK;
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) {
        if (!vae_option_in(given, vae_config_find(names[i]))) {
            vae_config_get(from, names[i], value, sizeof value);
            TRY(vae_config_set(config, names[i], value, err));
        }
    }
done:
    return status;
}

vae_status vae_init_options(vae_config *config, const vae_config *asked,
                            const vae_option_set *given, vae_error *err)
{
    vae_checkpoint *c = NULL;
    vae_status status = VAE_OK;
    if (asked->init_from[0] == '\0') {
        return VAE_OK;
    }
    TRY(open_source(&c, asked, err));
    vae_config_take(config, &c->config, VAE_SCOPE_MODEL, given);
    TRY(take_reading(config, &c->config, given, err));
done:
    vae_checkpoint_free(c);
    return status;
}

/* Is it the model that config describes? */
static vae_status check_model(const vae_checkpoint *c, const vae_config *config, vae_error *err)
{
    char here[VAE_PATH], there[VAE_PATH];
    vae_config same = *config;
    vae_config_take(&same, &c->config, VAE_SCOPE_MODEL, NULL);
    same.variance = config->variance; /* no shape follows from it */
    const size_t i = vae_config_difference(config, &same, NULL);
    if (i == SIZE_MAX) {
        return VAE_OK;
    }
    size_t n;
    const char *name = vae_config_options(&n)[i].name;
    vae_config_get(config, name, here, sizeof here);
    vae_config_get(&same, name, there, sizeof there);
    return vae_fail(err, VAE_ERR_USAGE,
                    "--init-from %s: a model of --%s %s, not %s: leave --%s out, it is that "
                    "model's",
                    config->init_from, name, there[0] != '\0' ? there : "none",
                    here[0] != '\0' ? here : "none", name);
}

static vae_status check_weights(const vae_checkpoint *c, vae_config *config, vae_error *err)
{
    char hex[VAE_SHA256_HEX];
    bool same;
    vae_status status = VAE_OK;
    TRY(vae_checkpoint_recognize(c, config->init_weights, hex, &same, err));
    if (!same) {
        TRY(vae_fail(err, VAE_ERR_DATA,
                     "--init-from %s: its weights are others: SHA-256 %.16s..., expected %.16s...",
                     config->init_from, hex, config->init_weights));
    }
done:
    return status;
}

vae_status vae_init_open(vae_checkpoint **out, vae_config *config, const vae_dataset *set,
                         vae_error *err)
{
    vae_checkpoint *c = NULL;
    vae_status status = VAE_OK;
    *out = NULL;
    if (config->init_from[0] == '\0') {
        return VAE_OK;
    }
    TRY(open_source(&c, config, err));
    TRY(check_model(c, config, err));
    TRY(check_weights(c, config, err));
    TRY(vae_checkpoint_check_set(c, set, err));
    *out = c;
    c = NULL;
done:
    vae_checkpoint_free(c);
    return status;
}
