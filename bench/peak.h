/* The multiply-add peak of this processor, measured: what a share of the peak is a share of. */
#ifndef VAE_BENCH_PEAK_H
#define VAE_BENCH_PEAK_H

#if defined(__x86_64__)
#include <immintrin.h>
#endif

#include "backend/cpu/level.h"
#include "backend/cpu/tiles.h"
#include "base/clock.h"
#include "base/pool.h"

enum { PEAK_SUMS = 12, PEAK_ROUNDS = 3000000, PEAK_RUNS = 3, PEAK_THREADS = 256 };

/* Sums in registers, more of them than latency times units. The empty statement keeps them there
 * and the loop from being foreseen; all stay 1. */
#define PEAK_EACH(DO) DO(0) DO(1) DO(2) DO(3) DO(4) DO(5) DO(6) DO(7) DO(8) DO(9) DO(10) DO(11)
#define PEAK_LOOP(NAME, TARGET, VEC, DO)                                                           \
    TARGET static inline double NAME(int rounds)                                                   \
    {                                                                                              \
        const VEC half = (VEC){0} + 0.5f, one = half + half;                                       \
        VEC s0 = one, s1 = one, s2 = one, s3 = one, s4 = one, s5 = one;                            \
        VEC s6 = one, s7 = one, s8 = one, s9 = one, s10 = one, s11 = one;                          \
        for (int round = 0; round < rounds; round++) {                                             \
            PEAK_EACH(DO)                                                                          \
        }                                                                                          \
        return 2.0 * rounds * PEAK_SUMS * (double)(sizeof(VEC) / sizeof(float));                   \
    }
typedef float peak_vec4 __attribute__((vector_size(16)));
#define PEAK_NO_TARGET
#if defined(__x86_64__)
#define PEAK_4(i)                                                                                  \
    s##i = s##i * half + half;                                                                     \
    __asm__ volatile("" : "+x"(s##i));
#define PEAK_8(i)                                                                                  \
    s##i = _mm256_fmadd_ps(s##i, half, half);                                                      \
    __asm__ volatile("" : "+x"(s##i));
#define PEAK_16(i)                                                                                 \
    s##i = _mm512_fmadd_ps(s##i, half, half);                                                      \
    __asm__ volatile("" : "+v"(s##i));
/* pairs of bf16: two products and two sums a float */
#define PEAK_PAIRS(i)                                                                              \
    s##i = _mm512_dpbf16_ps(s##i, (__m512bh)half, (__m512bh)half);                                 \
    __asm__ volatile("" : "+v"(s##i));
PEAK_LOOP(peak_avx2, __attribute__((target("avx2,fma"))), __m256, PEAK_8)
PEAK_LOOP(peak_avx512, __attribute__((target("avx512f"))), __m512, PEAK_16)
PEAK_LOOP(peak_pairs, __attribute__((target("avx512f,avx512bf16"))), __m512, PEAK_PAIRS)
/* Tiles of it: 16 x 16 sums of 32 products, four of them by turns as in tiles.h. */
TILE_TARGET static inline double peak_tiles(int rounds)
{
    const int fewer = rounds / 10;
    tile_begin();
    TILE_ZERO(0);
    TILE_ZERO(1);
    TILE_ZERO(2);
    TILE_ZERO(3);
    TILE_ZERO(4);
    TILE_ZERO(5);
    TILE_ZERO(6);
    TILE_ZERO(7);
    for (int round = 0; round < fewer; round++) {
        TILE_MULTIPLY(0, 4, 6);
        TILE_MULTIPLY(1, 4, 7);
        TILE_MULTIPLY(2, 5, 6);
        TILE_MULTIPLY(3, 5, 7);
    }
    tile_end();
    return 2.0 * fewer * 4 * TILE_ROWS * TILE_WORDS * 2 * TILE_WORDS;
}
#else
#define PEAK_4(i)                                                                                  \
    s##i = s##i * half + half;                                                                     \
    __asm__ volatile("" : "+w"(s##i));
#endif
PEAK_LOOP(peak_baseline, PEAK_NO_TARGET, peak_vec4, PEAK_4)

typedef struct {
    vae_cpu_level level;
    int bf16, rounds;
    double flops[PEAK_THREADS]; /* of each part of the work */
} peak_run;

static inline void peak_part(void *ctx, int thread, size_t first, size_t end)
{
    peak_run *run = ctx;
    (void)thread;
    for (size_t i = first; i < end; i++) {
#if defined(__x86_64__)
        if (run->bf16 && run->level >= VAE_CPU_AMX_BF16) {
            run->flops[i] = peak_tiles(run->rounds);
        } else if (run->bf16 && run->level >= VAE_CPU_AVX512_BF16) {
            run->flops[i] = 2 * peak_pairs(run->rounds);
        } else {
            run->flops[i] = run->level >= VAE_CPU_AVX512 ? peak_avx512(run->rounds)
                            : run->level == VAE_CPU_AVX2 ? peak_avx2(run->rounds)
                                                         : peak_baseline(run->rounds);
        }
#else
        run->flops[i] = peak_baseline(run->rounds);
#endif
    }
}

/* FLOP/s of so many threads (at most PEAK_THREADS) at once that only multiply and add, by the
 * vectors or tiles of a level, of bf16 or of floats. */
static inline double peak_once(int threads, vae_cpu_level level, int bf16, int rounds)
{
    const int n = threads < PEAK_THREADS ? threads : PEAK_THREADS;
    peak_run run = {.level = level, .bf16 = bf16, .rounds = rounds};
    const double begin = vae_clock();
    double flops = 0;
    vae_parallel(n, (size_t)n, 1, peak_part, &run);
    const double seconds = vae_clock() - begin;
    for (int i = 0; i < n; i++) {
        flops += run.flops[i];
    }
    return flops / seconds;
}

/* The best of PEAK_RUNS runs of some 10 milliseconds: shorter ones would see a rate that no product
 * can hold where others use the machine. */
static inline double peak_flops(int threads, vae_cpu_level level, int bf16)
{
    double best = 0;
    for (int r = 0; r < PEAK_RUNS; r++) {
        const double now = peak_once(threads, level, bf16, PEAK_ROUNDS);
        best = now > best ? now : best;
    }
    return best;
}

/* That of the next millisecond: after products, at the clock that they have left to the processor,
 * which some raise only after ten or more. */
static inline double peak_flops_now(int threads, vae_cpu_level level, int bf16)
{
    return peak_once(threads, level, bf16, PEAK_ROUNDS / 8);
}

#endif
