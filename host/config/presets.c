/* Presets: options that go together, under a name. */
#include "config/config.h"

#define N(rows) sizeof rows / sizeof rows[0]

/* Photographs: measured on flowers and faces, bench/README.md says how. */
static const vae_preset_value photos[] = {
    {"image-size", "64"},
    {"conv", "32,64,128,256"},
    {"hidden", "none"},
    {"latent", "128"},
    {"likelihood", "gaussian-optimal"},
    {"mean", "sigmoid"},
    {"flip", "true"},
    {"batch-size", "64"},
    {"epochs", "12"},
    {"validation", "0.1"},
};

/* The network of Burgess et al. 2018 (Understanding disentangling in beta-VAE), section B. */
static const vae_preset_value burgess[] = {
    {"data", "sprites"}, {"conv", "32,32,32,32"}, {"hidden", "256,256"},
    {"latent", "10"},    {"batch-size", "64"},    {"lr", "5e-4"},
    {"beta", "4"},       {"epochs", "30"},        {"sample-every", "0"},
};

static const vae_preset_row presets[] = {
    {"none", "", NULL, 0},
    {"photos", "a folder of photographs", photos, N(photos)},
    {"burgess", "disentangled factors of 64 x 64 pictures", burgess, N(burgess)},
};
_Static_assert(N(presets) == VAE_N_PRESETS, "a row for each");

const vae_preset_row *vae_config_preset(vae_preset preset)
{
    return &presets[preset];
}
