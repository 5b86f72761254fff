/* philox.h and the emulation's stand-in against cuRAND: its host generator (libcurand, which runs
 * without a GPU) and its device functions, compiled for the host (curand_device.cc). Only where the
 * CUDA toolkit is. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <curand.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#include "device.h"
#include "philox.h"

/* Eight words and normals in a row, by NVIDIA's header and by the stand-in. */
void curand_device_draw(unsigned long long seed, unsigned long long subsequence,
                        unsigned long long offset, unsigned words[8], float normals[8]);
void simt_curand_draw(unsigned long long seed, unsigned long long subsequence,
                      unsigned long long offset, unsigned words[8], float normals[8]);

static const uint64_t seeds[] = {0, 1, 0x123456789ABCDEFu, UINT64_MAX};
enum { N_SEEDS = sizeof seeds / sizeof seeds[0], STREAMS = 1 << 16 };

static curandGenerator_t open_generator(uint64_t seed, uint64_t offset)
{
    curandGenerator_t g;
    assert_int_equal(curandCreateGeneratorHost(&g, CURAND_RNG_PSEUDO_PHILOX4_32_10),
                     CURAND_STATUS_SUCCESS);
    assert_int_equal(curandSetPseudoRandomGeneratorSeed(g, seed), CURAND_STATUS_SUCCESS);
    assert_int_equal(curandSetGeneratorOffset(g, offset), CURAND_STATUS_SUCCESS);
    return g;
}

/* The host generator deals out its words four at a time over 65536 subsequences. */
static vae_philox_words words_at(uint64_t seed, uint64_t quad)
{
    return vae_philox(seed, quad % STREAMS, quad / STREAMS);
}

static void check_words(uint64_t seed, uint64_t offset, size_t n)
{
    unsigned *got = malloc(n * sizeof *got);
    assert_non_null(got);
    curandGenerator_t g = open_generator(seed, offset);
    assert_int_equal(curandGenerate(g, got, n), CURAND_STATUS_SUCCESS);
    for (size_t i = 0; i < n; i++) {
        uint64_t at = offset + i;
        if (got[i] != words_at(seed, at / 4).w[at % 4]) {
            fail_msg("seed %llx, word %llu: %08x, philox.h has %08x", (unsigned long long)seed,
                     (unsigned long long)at, got[i], words_at(seed, at / 4).w[at % 4]);
        }
    }
    curandDestroyGenerator(g);
    free(got);
}

static void words_of_the_host_generator(void **state)
{
    (void)state;
    for (size_t s = 0; s < N_SEEDS; s++) {
        check_words(seeds[s], 0, 10000);
        check_words(seeds[s], 3, 1001);
        check_words(seeds[s], 4 * (uint64_t)STREAMS - 500, 1000); /* into the second block */
        check_words(seeds[s], 4 * (uint64_t)STREAMS * 1000000007u + 12345, 1000);
        check_words(seeds[s], ((uint64_t)1 << 52) + 8, 1000); /* blocks beyond 32 bits */
    }
    check_words(42, 0, 8 * (size_t)STREAMS + 77);
}

static void assert_normals(const float *got, vae_philox_words w)
{
    float want[4];
    vae_box_muller(w.w[0], w.w[1], &want[0], &want[1]);
    vae_box_muller(w.w[2], w.w[3], &want[2], &want[3]);
    for (int j = 0; j < 4; j++) {
        if (!(fabsf(got[j] - want[j]) <= 1e-6f * (1 + fabsf(want[j])))) {
            fail_msg("normal %d is %.9g, philox.h has %.9g", j, (double)got[j], (double)want[j]);
        }
    }
}

static void normals_of_the_host_generator(void **state)
{
    (void)state;
    enum { N = 1 << 17 };
    float *got = malloc(N * sizeof *got);
    assert_non_null(got);
    for (size_t s = 0; s < N_SEEDS; s++) {
        curandGenerator_t g = open_generator(seeds[s], 0);
        assert_int_equal(curandGenerateNormal(g, got, N, 0, 1), CURAND_STATUS_SUCCESS);
        for (size_t q = 0; q < N / 4; q++) {
            assert_normals(got + 4 * q, words_at(seeds[s], q));
        }
        curandDestroyGenerator(g);
    }
    free(got);
}

/* curand_init(seed, subsequence, 4*block) and curand4: what the header of philox.h says. */
static void draws_of_the_device_functions(void **state)
{
    (void)state;
    uint64_t rng = 1;
    for (int i = 0; i < 40000; i++) {
        /* small, large and edge values of each */
        uint64_t seed = random_u64(&rng) >> (i % 64), stream = random_u64(&rng) >> (i / 64 % 64);
        uint64_t block = random_u64(&rng) >> (2 + i / 7 % 62);
        unsigned words[8];
        float normals[8];
        curand_device_draw(seed, stream, 4 * block, words, normals);
        vae_philox_words want = vae_philox(seed, stream, block);
        for (int j = 0; j < 4; j++) {
            assert_int_equal(words[j], want.w[j]);
        }
        assert_normals(normals, want);
    }
}

/* Bit for bit, the second draw of a state too, across the counter's carries. */
static void draws_of_the_stand_in(void **state)
{
    (void)state;
    uint64_t rng = 3;
    for (int i = 0; i < 100000; i++) {
        uint64_t seed = random_u64(&rng) >> (i % 64), stream = random_u64(&rng) >> (i / 64 % 64);
        uint64_t block = random_u64(&rng) >> (2 + i / 7 % 62);
        if (i % 16 == 0) { /* the next block carries */
            block = (block | 0xFFFFFFFFu) & (UINT64_MAX >> 2);
        }
        unsigned want[8], got[8];
        float want_normal[8], got_normal[8];
        curand_device_draw(seed, stream, 4 * block, want, want_normal);
        simt_curand_draw(seed, stream, 4 * block, got, got_normal);
        assert_memory_equal(got, want, sizeof want);
        assert_memory_equal(got_normal, want_normal, sizeof want_normal);
    }
}

/* eps as a kernel would draw it. */
static void eps_of_the_device_functions(void **state)
{
    (void)state;
    uint64_t rng = 2;
    for (int i = 0; i < 5000; i++) {
        uint64_t seed = random_u64(&rng), row = random_u64(&rng) >> 24,
                 draw = random_u64(&rng) >> 24;
        uint32_t quads = (uint32_t)(random_u64(&rng) % 32 + 1), quad = (uint32_t)i % quads;
        uint32_t particle = (uint32_t)(random_u64(&rng) >> 42);
        unsigned words[8];
        float normals[8], eps[4];
        row %= ((uint64_t)1 << 56) / quads;
        vae_eps4(seed, VAE_RNG_EPS, row, quads, quad, draw, particle, eps);
        curand_device_draw(seed, vae_rng_stream(VAE_RNG_EPS, row * quads + quad),
                           4 * vae_rng_block(draw, particle), words, normals);
        for (int j = 0; j < 4; j++) {
            assert_true(fabsf(eps[j] - normals[j]) <= 1e-6f * (1 + fabsf(eps[j])));
        }
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(words_of_the_host_generator),
        cmocka_unit_test(normals_of_the_host_generator),
        cmocka_unit_test(draws_of_the_device_functions),
        cmocka_unit_test(draws_of_the_stand_in),
        cmocka_unit_test(eps_of_the_device_functions),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
