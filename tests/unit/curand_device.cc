// cuRAND's device functions as host code: what a kernel would draw, its sine and cosine aside (a
// device's are the fast ones). Compiled twice where the CUDA toolkit is: over NVIDIA's header, and
// over the emulation's stand-in, which must give the same bits.
#define QUALIFIERS static inline
#include <curand_kernel.h>

#ifdef SIMT_CURAND_KERNEL_H
#define DRAW simt_curand_draw
#else
#define DRAW curand_device_draw
#endif

// words: the four of curand4() after curand_init(seed, subsequence, offset), then the next four;
// normals: those of curand_normal4() in the same places.
extern "C" void DRAW(unsigned long long seed, unsigned long long subsequence,
                     unsigned long long offset, unsigned words[8], float normals[8])
{
    curandStatePhilox4_32_10_t state, again;
    curand_init(seed, subsequence, offset, &state);
    again = state;
    for (int i = 0; i < 8; i += 4) {
        uint4 w = curand4(&state);
        float4 n = curand_normal4(&again);
        words[i] = w.x, words[i + 1] = w.y, words[i + 2] = w.z, words[i + 3] = w.w;
        normals[i] = n.x, normals[i + 1] = n.y, normals[i + 2] = n.z, normals[i + 3] = n.w;
    }
}
