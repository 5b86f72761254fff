/* Weights as safetensors and NPZ. */
#include <jansson.h>
#include <stdlib.h>
#include <string.h>

#include "exchange/exchange.h"
#include "format/npz.h"
#include "format/safetensors.h"

typedef void build_fn(vae_parts *out, const vae_named_tensor *tensors, size_t n,
                      const float *packed, const vae_metadata *metadata);

static vae_status export_file(const char *path, const vae_checkpoint *checkpoint, build_fn *build,
                              vae_error *err)
{
    param_layout layout = {0};
    vae_metadata metadata = {0};
    vae_named_tensor tensors[VAE_EXPORT_TENSORS];
    vae_parts parts = {0};
    float *params = NULL;
    vae_status status = VAE_OK;
    TRY(vae_layout_build(&layout, &checkpoint->config, vae_checkpoint_shape(checkpoint), err));
    TRY(vae_metadata_build(&metadata, checkpoint, err));
    params = malloc(layout.n_params * sizeof *params);
    if (params == NULL) {
        TRY(vae_fail_memory(err, layout.n_params * sizeof *params, "weights"));
    }
    vae_export_order(&layout, checkpoint->params, params, false);
    build(&parts, tensors, vae_export_tensors(&layout, tensors), params, &metadata);
    TRY(vae_parts_put(&parts, path, err));
done:
    free(params);
    vae_metadata_clear(&metadata);
    vae_layout_clear(&layout);
    return status;
}

vae_status vae_export_safetensors(const char *path, const vae_checkpoint *checkpoint,
                                  vae_error *err)
{
    return export_file(path, checkpoint, vae_safetensors_build, err);
}

/* The metadata as one JSON object in bytes: needs no pickle, and every NPY reader has u1.
 * json.loads(bytes(z["metadata"])) reads it. */
static char *metadata_text(const vae_metadata *metadata)
{
    json_t *object = json_object();
    bool good = object != NULL;
    for (size_t i = 0; good && i < metadata->n; i++) {
        const vae_metadata_pair *p = &metadata->pairs[i];
        good = json_object_set_new(object, p->key, json_string(p->value)) == 0;
    }
    char *text = good ? json_dumps(object, JSON_COMPACT) : NULL;
    json_decref(object);
    return text;
}

static void build_npz(vae_parts *out, const vae_named_tensor *tensors, size_t n,
                      const float *packed, const vae_metadata *metadata)
{
    vae_npz_writer w = {.n = 0};
    for (size_t i = 0; i < n; i++) {
        const vae_named_tensor *t = &tensors[i];
        vae_npz_add(&w, t->name, "<f4", sizeof(float), t->shape, t->ndim, packed + t->offset);
    }
    char *text = metadata_text(metadata);
    if (text != NULL) {
        const size_t size = strlen(text);
        vae_npz_add(&w, "metadata", "|u1", 1, &size, 1, text);
    }
    vae_npz_finish(&w);
    /* an empty part that keeps the text until the file is written */
    vae_parts_own(&w.parts, text, 0);
    w.parts.failed = w.parts.failed || text == NULL;
    *out = w.parts;
}

vae_status vae_export_npz(const char *path, const vae_checkpoint *checkpoint, vae_error *err)
{
    return export_file(path, checkpoint, build_npz, err);
}
