/* Opening a backend. Only open.c, `vae info` and `vae bench` know that there is CUDA. */
#ifndef VAE_BACKEND_OPEN_H
#define VAE_BACKEND_OPEN_H

#include "backend.h"
#include "config/config.h"
#include "ranks/ranks.h"

typedef struct {
    vae_device_kind device;
    int device_index;
    vae_precision precision;
    size_t threads;         /* 0 = as vae_threads says, or this rank's part of the cores */
    const vae_ranks *ranks; /* which share batches on such backends; NULL: there are none */
} vae_backend_options;

/* Opens the backend that the options ask for; `auto` takes a GPU if there is one, else the CPU.
 * With ranks this is collective: a GPU is the one of the rank's number on its host, `auto` takes
 * GPUs if all ranks have one, and an error of one rank is that of all. Errors: VAE_ERR_NO_DEVICE
 * (cuda asked for and not there: says why), VAE_ERR_USAGE (a precision the device does not offer),
 * VAE_ERR_RUNTIME. Close with be->ops->close(be). */
vae_status vae_backend_open(vae_backend **out, const vae_backend_options *options, vae_error *err);
vae_status vae_backend_cpu_open(vae_backend **out, const vae_backend_options *options,
                                vae_error *err);
/* Only linked in builds with CUDA. */
vae_status vae_backend_cuda_open(vae_backend **out, const vae_backend_options *options,
                                 vae_error *err);

/* Only linked in builds with CUDA; collective: makes the ranks of such a backend, if it has any,
 * known to each other's GPUs. VAE_ERR_NO_DEVICE: no NCCL; VAE_ERR_RUNTIME. */
vae_status vae_cuda_join_ranks(vae_backend *be, vae_error *err);

/* One line per device for `vae info`: writes up to `size` bytes of text; returns how many
 * usable CUDA devices there are (0 with the reason in text if none). Without CUDA in the build:
 * 0 and "built without CUDA". */
int vae_cuda_devices(char *text, size_t size);

#endif
