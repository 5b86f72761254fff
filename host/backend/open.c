/* Backend selection: the only place that knows whether CUDA was built in. */
#include "backend/open.h"

#include <stdio.h>
#include <string.h>

#ifndef VAE_WITH_CUDA
int vae_cuda_devices(char *text, size_t size)
{
    snprintf(text, size, "built without CUDA");
    return 0;
}

vae_status vae_backend_cuda_open(vae_backend **out, const vae_backend_options *options,
                                 vae_error *err)
{
    (void)options;
    *out = NULL;
    return vae_fail(err, VAE_ERR_NO_DEVICE,
                    "this vae was built without CUDA: build it where nvcc is, or use --device cpu");
}

vae_status vae_cuda_join_ranks(vae_backend *be, vae_error *err)
{
    (void)be; /* there is none */
    (void)err;
    return VAE_OK;
}
#endif

/* The device of `auto`: a GPU if all ranks have one, the CPU if none has. */
static vae_status find_device(vae_device_kind *device, const vae_backend_options *options,
                              vae_error *err)
{
    char text[1024];
    vae_status status = VAE_OK;
    const bool there = vae_cuda_devices(text, sizeof text) > 0;
    uint64_t v[2] = {there, !there};
    TRY(vae_ranks_largest(options->ranks, v, 2, err));
    if (v[0] != 0 && v[1] != 0 && !there) {
        text[strcspn(text, "\n")] = '\0';
        TRY(vae_fail(err, VAE_ERR_NO_DEVICE,
                     "other ranks have a GPU, and this one has none (%.400s): give --device",
                     text));
    }
    *device = v[0] != 0 ? VAE_DEVICE_CUDA : VAE_DEVICE_CPU;
done:
    return status;
}

static vae_status open_one(vae_backend **out, const vae_backend_options *options, vae_error *err)
{
    const vae_ranks *ranks = options->ranks;
    vae_backend_options own = *options;
    vae_status status = VAE_OK;
    if (own.threads == 0 && ranks != NULL) {
        own.threads = ranks->cores;
    }
    if (own.device == VAE_DEVICE_AUTO) {
        TRY(find_device(&own.device, options, err));
    }
    if (own.device == VAE_DEVICE_CUDA) {
        if (ranks != NULL && ranks->n_local > 1 && own.device_index > 0) {
            TRY(vae_fail(err, VAE_ERR_USAGE,
                         "--device cuda:%d: %zu ranks of host %s would take one GPU: --device cuda "
                         "gives each its own",
                         own.device_index, ranks->n_local, ranks->host));
        }
        TRY(vae_backend_cuda_open(out, &own, err));
    } else {
        TRY(vae_backend_cpu_open(out, &own, err));
    }
done:
    return status;
}

vae_status vae_backend_open(vae_backend **out, const vae_backend_options *options, vae_error *err)
{
    vae_error own = {0};
    *out = NULL;
    vae_status status = vae_ranks_all_ok(options->ranks, open_one(out, options, &own), &own);
    if (status == VAE_OK && strcmp((*out)->ops->name, "cuda") == 0) {
        status = vae_ranks_all_ok(options->ranks, vae_cuda_join_ranks(*out, &own), &own);
    }
    if (status != VAE_OK) {
        if (*out != NULL) {
            (*out)->ops->close(*out);
            *out = NULL;
        }
        return vae_fail(err, status, "%s", own.text);
    }
    return VAE_OK;
}
