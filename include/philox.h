/* Counter-based random numbers: Philox4x32-10 (Salmon et al., SC 2011), the integer binarization
 * and the keyed shuffle that are built on it. No generator state is stored anywhere: a number is a
 * function of (seed, purpose, element, offset), so it does not depend on batch split, thread count
 * or device. Words are those of cuRAND's device API:
 * curand_init(seed, subsequence, 4*block, &s); curand4(&s) gives vae_philox(seed, subsequence,
 * block).
 * So the kernels draw by cuRAND (kernels/random.h), and the CPU by these functions: the words are
 * the same, and so is what is made of them by integers. Normals come from the same Box-Muller, but
 * a device has a logarithm of its own and fast sines and cosines, the CPU polynomials that
 * vectorize: eps differ in the last bits, by 1e-6 or so. tests/unit/test_curand.c holds words and
 * normals against cuRAND's own.
 */
#ifndef VAE_PHILOX_H
#define VAE_PHILOX_H

#include <stdint.h>

#include "vae_math.h"

/* What a number is for; keeps the streams of one seed apart. */
enum {
    VAE_RNG_EPS = 1,      /* eps of the reparameterization */
    VAE_RNG_BINARIZE = 2, /* dynamic and static binarization of pixels */
    VAE_RNG_INIT = 3,     /* initial parameters */
    VAE_RNG_PRIOR = 4,    /* z ~ p(z) when sampling */
    VAE_RNG_SHUFFLE = 5,  /* keys of the epochs' orders */
    VAE_RNG_SPLIT = 6,    /* validation split, labelled subsets */
    VAE_RNG_MIXTURE = 7,  /* components of a mixture: its start, and which one a draw is of */
    VAE_RNG_STACK = 8,    /* rows that are drawn: z of the model below a stacked one */
    VAE_RNG_MIRROR = 9,   /* which pictures are mirrored */
};

typedef struct {
    uint32_t w[4];
} vae_philox_words;

/* The four words of block `block` (= cuRAND offset / 4) in stream `subsequence` of `seed`. */
VAE_HD vae_philox_words vae_philox(uint64_t seed, uint64_t subsequence, uint64_t block)
{
    uint32_t c0 = (uint32_t)block, c1 = (uint32_t)(block >> 32);
    uint32_t c2 = (uint32_t)subsequence, c3 = (uint32_t)(subsequence >> 32);
    uint32_t k0 = (uint32_t)seed, k1 = (uint32_t)(seed >> 32);
    for (int round = 0; round < 10; round++) {
        uint64_t p0 = (uint64_t)0xD2511F53u * c0, p1 = (uint64_t)0xCD9E8D57u * c2;
        uint32_t n0 = (uint32_t)(p1 >> 32) ^ c1 ^ k0, n2 = (uint32_t)(p0 >> 32) ^ c3 ^ k1;
        c1 = (uint32_t)p1;
        c3 = (uint32_t)p0;
        c0 = n0;
        c2 = n2;
        k0 += 0x9E3779B9u;
        k1 += 0xBB67AE85u;
    }
    vae_philox_words out = {{c0, c1, c2, c3}};
    return out;
}

/* Stream of (purpose, element): element < 2^56. */
VAE_HD uint64_t vae_rng_stream(uint32_t purpose, uint64_t element)
{
    return ((uint64_t)purpose << 56) | element;
}

/* Block of (draw, particle): draw < 2^40 (the step, or the number of an evaluation pass),
 * particle < 2^22. */
VAE_HD uint64_t vae_rng_block(uint64_t draw, uint32_t particle)
{
    return ((uint64_t)particle << 40) | draw;
}

/* Draws of evaluation passes are kept apart from those of training, whose draw is the step. */
#define VAE_EVAL_DRAW(k) (((uint64_t)1 << 39) | (uint64_t)(k))

/* Two standard normals from two words: cuRAND's Box-Muller (curand_normal.h), n[0] from the sine
 * and n[1] from the cosine. */
VAE_HD void vae_box_muller(uint32_t a, uint32_t b, float *n0, float *n1)
{
    const float two_pow_m32 = 2.3283064e-10f, two_pow_m32_2pi = 2.3283064e-10f * 6.2831855f;
    float u = (float)a * two_pow_m32 + two_pow_m32 * 0.5f;
    float v = (float)b * two_pow_m32_2pi + two_pow_m32_2pi * 0.5f;
    float s = vae_sqrtf(-2.0f * vae_logf(u));
    float sine, cosine;
    vae_sincosf(v, &sine, &cosine);
    *n0 = sine * s;
    *n1 = cosine * s;
}

/* eps of latents 4*quad .. 4*quad+3 of the example at position `row` (of the epoch's order or of
 * the data set), Z latents: four standard normals. One call serves four latents, so a row takes
 * ceil(Z/4) calls; the surplus of the last is dropped. */
VAE_HD void vae_eps4(uint64_t seed, uint32_t purpose, uint64_t row, uint32_t n_quads, uint32_t quad,
                     uint64_t draw, uint32_t particle, float eps[4])
{
    vae_philox_words r = vae_philox(seed, vae_rng_stream(purpose, row * n_quads + quad),
                                    vae_rng_block(draw, particle));
    vae_box_muller(r.w[0], r.w[1], &eps[0], &eps[1]);
    vae_box_muller(r.w[2], r.w[3], &eps[2], &eps[3]);
}

/* Bernoulli draw of a stored byte with probability byte/255, by integers alone: 1 iff
 * word / 2^32 < byte / 255. 0 never and 255 always fires. */
VAE_HD uint32_t vae_binarize_u8(uint32_t byte, uint32_t word)
{
    return (uint64_t)word * 255u < (uint64_t)byte << 32;
}

/* The same for a float probability p in [0,1]: p is made an integer of 2^-32 first. */
VAE_HD uint32_t vae_binarize_f32(float p, uint32_t word)
{
    return (uint64_t)word < (uint64_t)((double)p * 4294967296.0);
}

/* Is the picture at position `row` of the epoch's order mirrored in draw `draw`? Half are. */
VAE_HD int vae_mirrored(uint64_t seed, uint64_t row, uint64_t draw)
{
    return vae_philox(seed, vae_rng_stream(VAE_RNG_MIRROR, row), vae_rng_block(draw, 0)).w[0] & 1;
}

/* Mixing function of the shuffle's Feistel rounds (the finalizer of MurmurHash3). */
VAE_HD uint32_t vae_mix32(uint32_t x)
{
    x ^= x >> 16;
    x *= 0x85EBCA6Bu;
    x ^= x >> 13;
    x *= 0xC2B2AE35u;
    return x ^ (x >> 16);
}

/* Half the bits of the smallest even-width power of two >= n: what vae_shuffle wants. n >= 1. */
VAE_HD uint32_t vae_shuffle_bits(uint64_t n)
{
    uint32_t bits = 1;
    while (bits < 31 && ((uint64_t)1 << (2 * bits)) < n) {
        bits++;
    }
    return bits;
}

/* The keyed bijection of 0..n-1 that is an epoch's order: position i -> row. Six-round Feistel
 * network on 2*half_bits bits, walked until it lands inside (at most 4 tries on average; Black &
 * Rogaway 2002). i < n, half_bits = vae_shuffle_bits(n). */
VAE_HD uint64_t vae_shuffle(uint64_t key, uint64_t n, uint32_t half_bits, uint64_t i)
{
    const uint32_t mask = (uint32_t)(((uint64_t)1 << half_bits) - 1);
    const uint32_t k0 = (uint32_t)key, k1 = (uint32_t)(key >> 32);
    do {
        uint32_t left = (uint32_t)(i >> half_bits) & mask, right = (uint32_t)i & mask;
        for (uint32_t round = 0; round < 6; round++) {
            uint32_t f = vae_mix32(right ^ k0 ^ vae_mix32(k1 + 0x9E3779B9u * (round + 1)));
            uint32_t swap = right;
            right = (left ^ f) & mask;
            left = swap;
        }
        i = ((uint64_t)left << half_bits) | right;
    } while (i >= n);
    return i;
}

#endif
