// cuRAND's device functions, compiled for the host: what a kernel would draw, its sine and cosine
// aside (a device's are the fast ones). Only where the CUDA toolkit is.
#define QUALIFIERS static inline
#include <curand_kernel.h>

// words: the four of curand4() after curand_init(seed, subsequence, offset); normals: the four of
// curand_normal4() in the same place.
extern "C" void curand_device_draw(unsigned long long seed, unsigned long long subsequence,
                                   unsigned long long offset, unsigned words[4], float normals[4])
{
    curandStatePhilox4_32_10_t state, again;
    curand_init(seed, subsequence, offset, &state);
    again = state;
    uint4 w = curand4(&state);
    float4 n = curand_normal4(&again);
    words[0] = w.x, words[1] = w.y, words[2] = w.z, words[3] = w.w;
    normals[0] = n.x, normals[1] = n.y, normals[2] = n.z, normals[3] = n.w;
}
