/* Presets: options that go together, under a name. */
#include "config/config.h"

#define COUNT(rows) (sizeof rows / sizeof rows[0])

/* Photographs. bench/README.md has what was tried on flowers: GELU, one optimal variance, a sigmoid
 * mean and a falling rate each make better pictures at the same time. */
static const vae_preset_value photos[] = {
    {"image-size", "64"},      {"conv", "32,64,128,256"}, {"hidden", "none"},
    {"latent", "128"},         {"activation", "gelu"},    {"likelihood", "gaussian-optimal"},
    {"mean", "sigmoid"},       {"flip", "true"},          {"lr", "2e-3"},
    {"lr-schedule", "cosine"}, {"batch-size", "64"},      {"epochs", "24"},
    {"validation", "0.1"},
};

/* The network of Burgess et al. 2018 (Understanding disentangling in beta-VAE) on dSprites'
 * look-alike, as disentangling-vae trains it; its beta of 4 is Higgins et al.'s. */
static const vae_preset_value burgess[] = {
    {"data", "sprites"}, {"conv", "32,32,32,32"}, {"hidden", "256,256"},
    {"latent", "10"},    {"batch-size", "64"},    {"lr", "5e-4"},
    {"beta", "4"},       {"epochs", "30"},        {"sample-every", "0"},
};

static const vae_preset_row presets[] = {
    {"none", "", NULL, 0},
    {"photos", "a folder of photographs", photos, COUNT(photos)},
    {"burgess", "disentangled factors of 64 x 64 pictures", burgess, COUNT(burgess)},
};
_Static_assert(COUNT(presets) == VAE_N_PRESETS, "a row for each");

const vae_preset_row *vae_config_preset(vae_preset preset)
{
    return &presets[preset];
}
