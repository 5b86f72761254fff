/* Tiles where there are none: arrays, which do what Intel's SDM says of TDPBF16PS. What is included
 * after this uses them (host/backend/cpu/tiles.h), under other names than the program's own, which
 * emulated_tiles.c and test_tiles.c give it. */
#ifndef VAE_TESTS_EMULATED_TILES_H
#define VAE_TESTS_EMULATED_TILES_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <math.h>
#include <stdbool.h>
#include <string.h>

enum { EMULATED_TILES = 8, TILE_SIDE = 16 };
static _Thread_local float tile[EMULATED_TILES][TILE_SIDE][TILE_SIDE];
static _Thread_local bool configured;

static inline void emulated_configure(const void *config)
{
    const uint8_t *bytes = config;
    assert_false(configured);
    assert_int_equal(bytes[0], 1); /* palette */
    for (int i = 0; i < EMULATED_TILES; i++) {
        assert_int_equal(bytes[16 + 2 * i] | bytes[17 + 2 * i] << 8, 64); /* bytes of a row */
        assert_int_equal(bytes[48 + i], TILE_SIDE);                       /* rows */
        for (int j = 0; j < TILE_SIDE * TILE_SIDE; j++) {
            tile[i][j / TILE_SIDE][j % TILE_SIDE] = NAN;
        }
    }
    configured = true;
}

static inline void emulated_load(int t, const float *from, size_t stride)
{
    assert_true(configured);
    for (int r = 0; r < TILE_SIDE; r++) {
        memcpy(tile[t][r], from + (size_t)r * stride, sizeof tile[t][r]);
    }
}

static inline void emulated_store(int t, float *to, size_t stride)
{
    for (int r = 0; r < TILE_SIDE; r++) {
        memcpy(to + (size_t)r * stride, tile[t][r], sizeof tile[t][r]);
    }
}

/* The first or second of a pair. */
static inline float of_pair(float word, int second)
{
    uint32_t bits;
    memcpy(&bits, &word, sizeof bits);
    bits = second ? bits & 0xFFFF0000u : bits << 16;
    memcpy(&word, &bits, sizeof word);
    return word;
}

static inline void emulated_multiply(int c, int a, int b)
{
    for (int m = 0; m < TILE_SIDE; m++) {
        for (int k = 0; k < TILE_SIDE; k++) {
            for (int n = 0; n < TILE_SIDE; n++) {
                for (int second = 0; second < 2; second++) {
                    tile[c][m][n] +=
                        of_pair(tile[a][m][k], second) * of_pair(tile[b][k][n], second);
                }
            }
        }
    }
}

static inline void emulated_zero(int t)
{
    memset(tile[t], 0, sizeof tile[t]);
}

#define VAE_TILES_EMULATED
#define TILE_ZERO(t)               emulated_zero(t)
#define TILE_LOAD(t, from, stride) emulated_load(t, from, stride)
#define TILE_STREAM                TILE_LOAD
#define TILE_STORE(t, to, stride)  emulated_store(t, to, stride)
#define TILE_MULTIPLY(c, a, b)     emulated_multiply(c, a, b)
#define TILE_CONFIGURE(from)       emulated_configure(from)
#define TILE_RELEASE()             (configured = false)
#define vae_cpu_tiles_tn           emulated_tiles_tn
#define vae_cpu_tiles_tn_room      emulated_tiles_tn_room

#endif
