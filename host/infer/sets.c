/* Data sets as a trained model takes them. */
#include <string.h>

#include "base/text.h"
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
        TRY(vae_stack_open(&own, &config, err));
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

vae_status vae_trained_open_set(vae_trained *m, const char *name, vae_split split,
                                const vae_data_options *options, vae_error *err)
{
    const vae_checkpoint *c = m->checkpoint;
    vae_status status = VAE_OK;
    vae_data_options how = options != NULL ? *options : (vae_data_options){0};
    vae_trained_close_set(m);
    how.exact = c->standard != NULL;
    how.of_model = true;
    m->split = split == VAE_SPLIT_TEST ? "test" : "train";
    TRY(vae_dataset_open(&m->set, name, split, &how, err));
    TRY(stack_set(m, err));
    TRY(vae_checkpoint_check_set(c, m->set, err));
    TRY(vae_dataset_check_range(m->set, m->config.likelihood, err));
    TRY(vae_trained_take_classes(m, m->set, err));
    if (c->standard != NULL) {
        TRY(vae_dataset_standardize(m->set, c->standard, c->standard + c->d, err));
    }
done:
    return status;
}
