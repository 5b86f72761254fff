/* Data sets as a trained model takes them. */
#include <string.h>

#include "base/text.h"
#include "image/image.h"
#include "infer/stack.h"
#include "infer/trained.h"

/* m->set as a stacked model's data, if it is one: latents of the run below, which is opened for
 * that where it is not open yet. */
static vae_status stack_set(vae_trained *m, vae_error *err)
{
    vae_trained own = {.own = NULL};
    vae_config config = m->config;
    vae_dataset *encoded;
    vae_status status = VAE_OK;
    if (config.stack[0] == '\0') {
        return VAE_OK;
    }
    if (m->below == NULL) {
        TRY(vae_stack_open(&own, &config, m->ranks, err));
    }
    TRY(vae_stack_encode(&encoded, m->below != NULL ? m->below : &own, m->set, err));
    vae_dataset_free(m->set);
    m->set = encoded;
done:
    vae_trained_close(&own);
    return status;
}

vae_status vae_trained_take_classes(const vae_trained *m, vae_dataset *set, vae_error *err)
{
    const vae_classes *known = &m->checkpoint->classes;
    char text[VAE_CLASSES_TEXT];
    vae_status status = VAE_OK;
    TRY(vae_dataset_map_classes(set, known, err));
    if (m->config.condition == VAE_CONDITION_LABELS) {
        TRY(vae_dataset_check_labels(set, m->config.classes, true, err));
    }
    if (known->n > 0 && set->classes.n > known->n) {
        const vae_classes others = {set->classes.name + known->n, set->classes.n - known->n};
        vae_note(err != NULL ? err->notes : NULL,
                 "note: %s: the model knows no class %s: it was trained on other labels",
                 set->source, vae_classes_text(text, &others));
    }
done:
    return status;
}

vae_data_options vae_trained_reading(const vae_trained *m, const vae_data_options *options)
{
    const vae_checkpoint *c = m->checkpoint;
    vae_data_options how = options != NULL ? *options : (vae_data_options){.config = &m->config};
    how.exact = c->standard != NULL;
    how.cache = m->config.cache[0] != '\0' ? m->config.cache : NULL; /* of what it trained on */
    how.of_model = true;
    how.channels = vae_is_picture(c->height, c->width, c->channels) ? c->channels : 0;
    return how;
}

/* To the model's scales, where its data have any. */
static vae_status scale(const vae_trained *m, vae_dataset *set, vae_error *err)
{
    const double *shift = m->checkpoint->standard;
    return shift != NULL ? vae_dataset_standardize(set, shift, shift + m->checkpoint->d, err)
                         : VAE_OK;
}

vae_status vae_trained_open_set(vae_trained *m, const char *name, vae_split split,
                                const vae_data_options *options, vae_error *err)
{
    const vae_data_options how = vae_trained_reading(m, options);
    vae_status status = VAE_OK;
    vae_trained_close_set(m);
    m->split = split == VAE_SPLIT_TEST ? "test" : "train";
    TRY(vae_dataset_open(&m->set, name, split, &how, err));
    TRY(stack_set(m, err));
    TRY(vae_checkpoint_check_set(m->checkpoint, m->set, err));
    TRY(vae_dataset_check_range(m->set, m->config.likelihood, m->config.mean, err));
    TRY(vae_trained_take_classes(m, m->set, err));
    TRY(scale(m, m->set, err));
done:
    return status;
}

vae_status vae_trained_open_row(const vae_trained *m, vae_dataset **out, const char *path,
                                vae_error *err)
{
    const vae_data_options how = vae_trained_reading(m, NULL);
    vae_dataset *set = NULL;
    vae_status status = VAE_OK;
    *out = NULL;
    TRY(vae_dataset_open(&set, path, VAE_SPLIT_TRAIN, &how, err));
    TRY(vae_checkpoint_check_set(m->checkpoint, set, err));
    if (set->n != 1) {
        TRY(vae_fail(err, VAE_ERR_DATA, "%s: expected a picture, or one row, found %zu rows", path,
                     set->n));
    }
    TRY(vae_dataset_check_range(set, m->config.likelihood, m->config.mean, err));
    TRY(scale(m, set, err));
    *out = set;
    set = NULL;
done:
    vae_dataset_free(set);
    return status;
}
