/* Backend selection: the only place that knows whether CUDA was built in. */
#include "backend/open.h"

#include <stdio.h>

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
#endif

vae_status vae_backend_open(vae_backend **out, const vae_backend_options *options, vae_error *err)
{
    char text[1024];
    switch (options->device) {
    case VAE_DEVICE_CUDA:
        return vae_backend_cuda_open(out, options, err);
    case VAE_DEVICE_AUTO:
        if (vae_cuda_devices(text, sizeof text) > 0) {
            return vae_backend_cuda_open(out, options, err);
        }
        return vae_backend_cpu_open(out, options, err);
    case VAE_DEVICE_CPU:
    default:
        return vae_backend_cpu_open(out, options, err);
    }
}
