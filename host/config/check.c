/* Which options go together. */
#include "config/config.h"

#include <string.h>

/* Did the user ask for option `name`: named on the command line, or not at its default? */
static bool asked(const vae_config *config, const vae_config *defaults, const vae_option_set *given,
                  const char *name)
{
    char value[VAE_PATH], usual[VAE_PATH];
    if (vae_option_in(given, vae_config_find(name))) {
        return true;
    }
    vae_config_get(config, name, value, sizeof value);
    vae_config_get(defaults, name, usual, sizeof usual);
    return strcmp(value, usual) != 0;
}

/* One rule: option `name` does nothing unless `holds`; `wants` says what would make it count. */
typedef struct {
    const char *name;
    bool holds;
    const char *wants;
} need;

/* Is it the preset's word alone that `name` is what it is? Then it goes back to its default. */
static bool yields(vae_config *c, const vae_config *defaults, const vae_option_set *given,
                   const char *name)
{
    const vae_preset_row *preset = vae_config_preset(c->preset);
    for (size_t i = 0; i < preset->n; i++) {
        if (strcmp(preset->values[i].name, name) == 0 &&
            !vae_option_in(given, vae_config_find(name))) {
            vae_config said = *c;
            vae_config_set(&said, name, preset->values[i].value, NULL);
            if (vae_config_difference(c, &said, NULL) == SIZE_MAX) {
                char usual[VAE_PATH];
                vae_config_get(defaults, name, usual, sizeof usual);
                return vae_config_set(c, name, usual, NULL) == VAE_OK;
            }
        }
    }
    return false;
}

static vae_status check_needs(vae_config *c, const vae_option_set *given, vae_error *err)
{
    const bool elbo = c->objective == VAE_OBJ_ELBO;
    const bool semi = c->semi_supervised;
    const need needs[] = {
        {"mean", !vae_likelihood_of(c->likelihood)->unit,
         "--likelihood gaussian or gaussian-learned; bernoulli's mean is a sigmoid"},
        {"variance", vae_likelihood_of(c->likelihood)->variance,
         "--likelihood gaussian or gaussian-optimal"},
        {"lr-gamma", c->lr_schedule == VAE_LR_STEP, "--lr-schedule step"},
        {"lr-step-epochs", c->lr_schedule == VAE_LR_STEP, "--lr-schedule step"},
        {"lr-milestones", c->lr_schedule == VAE_LR_STEP, "--lr-schedule step"},
        {"lr-step-epochs", c->lr_milestones.n == 0, "no --lr-milestones, which replace it"},
        {"stages", c->lr_schedule == VAE_LR_STAGED, "--lr-schedule staged"},
        {"patience", c->validation > 0, "a validation split: --validation 0.1"},
        {"beta", elbo, "--objective elbo: other bounds have no separate KL"},
        {"kl-warmup", elbo, "--objective elbo: other bounds have no separate KL"},
        {"free-bits", elbo, "--objective elbo: other bounds have no separate KL"},
        {"kl-warmup", c->beta > 0, "a --beta above 0"},
        {"free-bits", c->beta > 0, "a --beta above 0"},
        {"labelled", semi, "--semi-supervised"},
        {"stack-weights", c->stack[0] != '\0', "--stack"},
        {"init-weights", c->init_from[0] != '\0', "--init-from"},
        {"init", c->init_from[0] == '\0', "no --init-from, which has the weights"},
        {"output-bias-from-data", c->init_from[0] == '\0', "no --init-from, which has the weights"},
        {"classifier-weight", semi, "--semi-supervised"},
        {"classes", vae_config_has_classes(c), "--condition labels or --semi-supervised"},
    };
    vae_config defaults;
    vae_config_defaults(&defaults);
    for (size_t i = 0; i < sizeof needs / sizeof needs[0]; i++) {
        if (!needs[i].holds && asked(c, &defaults, given, needs[i].name) &&
            !yields(c, &defaults, given, needs[i].name)) {
            return vae_fail(err, VAE_ERR_USAGE, "--%s has no effect here: it needs %s",
                            needs[i].name, needs[i].wants);
        }
    }
    return VAE_OK;
}

bool vae_config_has_classes(const vae_config *config)
{
    return config->condition == VAE_CONDITION_LABELS || config->semi_supervised;
}

bool vae_config_standardizes(const vae_config *config, bool table)
{
    return config->standardize == VAE_STANDARDIZE_COLUMNS ||
           (config->standardize == VAE_STANDARDIZE_AUTO && table && !vae_config_unit(config));
}

bool vae_config_unit(const vae_config *config)
{
    return vae_likelihood_of(config->likelihood)->unit || config->mean == VAE_MEAN_SIGMOID;
}

size_t vae_config_labelled_batch(const vae_config *config)
{
    const size_t n = config->labelled;
    if (!config->semi_supervised) {
        return 0;
    }
    return n < config->batch_size ? n : config->batch_size;
}

/* The sum over classes takes the place of particles, and the loss is a bound of its own. */
static vae_status check_semi(const vae_config *c, vae_error *err)
{
    const struct {
        bool given;
        const char *option;
    } clashes[] = {
        {c->condition != VAE_CONDITION_NONE, "--condition labels"},
        {c->objective != VAE_OBJ_ELBO, "--objective iwae, dreg or stl"},
        {c->particles > 1, "--particles above 1"},
        {c->free_bits > 0, "--free-bits"},
    };
    for (size_t i = 0; i < sizeof clashes / sizeof clashes[0]; i++) {
        if (clashes[i].given) {
            return vae_fail(err, VAE_ERR_USAGE, "--semi-supervised does not go with %s",
                            clashes[i].option);
        }
    }
    return c->labelled > 0
               ? VAE_OK
               : vae_fail(err, VAE_ERR_USAGE,
                          "--semi-supervised needs --labelled N: how many rows have a label");
}

vae_status vae_config_check(vae_config *config, const vae_option_set *given, vae_error *err)
{
    const vae_likelihood_row *likelihood = vae_likelihood_of(config->likelihood);
    if (config->semi_supervised && check_semi(config, err) != VAE_OK) {
        return VAE_ERR_USAGE;
    }
    if (config->stack[0] != '\0' && config->standardize == VAE_STANDARDIZE_COLUMNS) {
        return vae_fail(err, VAE_ERR_USAGE,
                        "--standardize does not go with --stack: latents are drawn anew at every "
                        "use");
    }
    if (config->mean == VAE_MEAN_SIGMOID &&
        (config->stack[0] != '\0' || config->standardize == VAE_STANDARDIZE_COLUMNS)) {
        return vae_fail(err, VAE_ERR_USAGE,
                        "--mean sigmoid is for values in [0,1], and %s real numbers: use --mean "
                        "linear",
                        config->stack[0] != '\0' ? "the latents of --stack are"
                                                 : "--standardize columns makes");
    }
    if (config->stack[0] != '\0' && likelihood->unit) {
        return vae_fail(err, VAE_ERR_USAGE,
                        "--stack: the data are latents, real numbers: give --likelihood "
                        "gaussian-learned or gaussian");
    }
    if (!likelihood->binarizable && config->binarize != VAE_BINARIZE_NONE) {
        return vae_fail(err, VAE_ERR_USAGE,
                        "--binarize makes x binary, and a Gaussian likelihood is a density: use "
                        "--likelihood bernoulli, or leave --binarize out");
    }
    if (config->standardize == VAE_STANDARDIZE_COLUMNS && likelihood->unit) {
        return vae_fail(
            err, VAE_ERR_USAGE,
            "--standardize columns needs a Gaussian likelihood: standardized values lie "
            "outside [0,1]; use --likelihood gaussian");
    }
    if (strcmp(config->cache, "-") == 0) {
        return vae_fail(
            err, VAE_ERR_USAGE,
            "--cache: expected the name of a file, which is kept and mapped, found '-'");
    }
    if (config->image_channels == 2) {
        return vae_fail(err, VAE_ERR_USAGE, "--image-channels: expected 1 or 3, found 2");
    }
    if (config->precision == VAE_TF32 && config->device == VAE_DEVICE_CPU) {
        return vae_fail(err, VAE_ERR_USAGE,
                        "--precision tf32 needs a GPU: use --device cuda, or --precision fp32 or "
                        "bf16");
    }
    if (config->lr_schedule == VAE_LR_STEP && config->lr_gamma >= 1) {
        return vae_fail(err, VAE_ERR_USAGE,
                        "--lr-schedule step has no effect with --lr-gamma 1: give one below 1");
    }
    return check_needs(config, given, err);
}
