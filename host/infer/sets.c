/* Data sets as a trained model takes them. */
#include <string.h>

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

/* The columns that the model knows, in its order. */
static vae_status check_columns(const vae_trained *m, vae_error *err)
{
    const vae_dataset *set = m->set;
    const char *want = m->checkpoint->columns;
    if (set->d != m->checkpoint->d) {
        return vae_fail(err, VAE_ERR_DATA, "%s: %zu columns; the model was trained on %zu",
                        set->source, set->d, m->checkpoint->d);
    }
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

vae_status vae_trained_open_set(vae_trained *m, const char *name, vae_split split,
                                const vae_data_options *options, vae_error *err)
{
    const vae_checkpoint *c = m->checkpoint;
    vae_status status = VAE_OK;
    vae_trained_close_set(m);
    m->split = split == VAE_SPLIT_TEST ? "test" : "train";
    TRY(vae_dataset_open(&m->set, name, split, options, err));
    TRY(stack_set(m, err));
    TRY(check_columns(m, err));
    TRY(vae_dataset_check_range(m->set, m->config.likelihood, err));
    if (vae_config_has_classes(&m->config)) {
        TRY(vae_dataset_check_labels(m->set, m->config.classes,
                                     m->config.condition == VAE_CONDITION_LABELS, err));
    }
    if (c->standard != NULL) {
        TRY(vae_dataset_standardize(m->set, c->standard, c->standard + c->d, err));
    }
done:
    return status;
}
