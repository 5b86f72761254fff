/* Stand-in for NVIDIA's cuda_runtime.h: the host API, and in C++ the device side as well. */
#ifndef SIMT_CUDA_RUNTIME_H
#define SIMT_CUDA_RUNTIME_H

#pragma GCC system_header

#include "cuda_runtime_api.h"

#ifdef __cplusplus
#include "simt.h"
#endif

#endif
