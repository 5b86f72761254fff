/* Products of blocks by tiles of bf16 (Intel AMX): a tile is 16 rows of 64 bytes, of which a thread
 * has eight; one instruction adds to the tile C (16 x 16 floats) the product of A (16 rows of 16
 * pairs) and B (16 rows of pairs, each of 16 columns). Four of C, two of A and two of B are used at
 * a time.
 *
 * The things that are asked of a tile have a name each, so that test_tiles.c can prove the rest on
 * a machine that has none: with VAE_TILES_EMULATED they are that file's. */
#ifndef VAE_BACKEND_CPU_TILES_H
#define VAE_BACKEND_CPU_TILES_H

#include <stddef.h>
#include <stdint.h>

enum { TILE_ROWS = 16, TILE_WORDS = 16 };

/* Words that so many become, in whole tiles. */
static inline size_t tile_words(size_t words)
{
    return (words + TILE_WORDS - 1) / TILE_WORDS * TILE_WORDS;
}

#if defined(VAE_TILES_EMULATED)
#define TILE_TARGET
#define TILE_SEES(pointer) (void)(pointer)
#elif defined(__x86_64__)
#include <immintrin.h>
#define TILE_TARGET                     __attribute__((target("amx-tile,amx-bf16")))
#define TILE_ZERO(tile)                 _tile_zero(tile)
#define TILE_LOAD(tile, from, stride)   _tile_loadd(tile, from, (stride) * sizeof(float))
#define TILE_STREAM(tile, from, stride) _tile_stream_loadd(tile, from, (stride) * sizeof(float))
#define TILE_STORE(tile, to, stride)    _tile_stored(tile, to, (stride) * sizeof(float))
#define TILE_MULTIPLY(c, a, b)          _tile_dpbf16ps(c, a, b)
#define TILE_CONFIGURE(from)            _tile_loadconfig(from)
#define TILE_RELEASE()                  _tile_release()
/* The compiler's headers don't say which memory these read: it must have been written. */
#define TILE_SEES(pointer)              __asm__ volatile("" ::"r"(pointer) : "memory")
#else /* never asked for */
#define TILE_TARGET
#define TILE_ZERO(tile)               (void)0
#define TILE_LOAD(tile, from, stride) (void)(from)
#define TILE_STREAM                   TILE_LOAD
#define TILE_STORE(tile, to, stride)  (void)(to)
#define TILE_MULTIPLY(c, a, b)        (void)0
#define TILE_CONFIGURE(from)          (void)(from)
#define TILE_RELEASE()                (void)0
#define TILE_SEES(pointer)            (void)(pointer)
#endif

/* Before a thread's first tile_block, and after its last: all eight tiles are whole ones. */
TILE_TARGET static inline void tile_begin(void)
{
    struct {
        uint8_t palette, start_row, reserved[14];
        uint16_t row_bytes[16];
        uint8_t rows[16];
    } config = {.palette = 1};
    _Static_assert(sizeof config == 64, "Intel's SDM, volume 1, 18.2");
    for (int i = 0; i < 8; i++) {
        config.row_bytes[i] = TILE_WORDS * sizeof(float);
        config.rows[i] = TILE_ROWS;
    }
    TILE_SEES(&config);
    TILE_CONFIGURE(&config);
}

TILE_TARGET static inline void tile_end(void)
{
    TILE_RELEASE();
}

/* Memory that is asked for, to L2, while blocks are multiplied: what the next of them need. */
typedef struct {
    const char *at, *end;
} tile_ahead;

/* C (32,32) with ldc is set to, or with `add` increased by, A B. a: (32,words) with lda; `last`:
 * NULL, or (32,TILE_WORDS) words of A beyond those; b: (words,32), the same with those; words are
 * pairs, a multiple of TILE_WORDS.
 *
 * A is what stays in L1 over the blocks of a row of C, b comes from L2: loaded as a stream it
 * leaves A there (13 steps in a loop by themselves: 2.3 TFLOP/s, by plain loads 1.7). */
TILE_TARGET static inline void tile_block(float *c, size_t ldc, const float *a, size_t lda,
                                          const float *last, const float *b, size_t words, int add,
                                          tile_ahead *ahead)
{
    enum { WIDTH = 2 * TILE_WORDS, LINE = 64, LINES = 3 };
    const char *ask = ahead->at;
    float *bottom = c + TILE_ROWS * ldc;
    TILE_SEES(a);
    TILE_SEES(last);
    TILE_SEES(b);
    TILE_SEES(c);
    if (add) {
        TILE_LOAD(0, c, ldc);
        TILE_LOAD(1, c + TILE_WORDS, ldc);
        TILE_LOAD(2, bottom, ldc);
        TILE_LOAD(3, bottom + TILE_WORDS, ldc);
    } else {
        TILE_ZERO(0);
        TILE_ZERO(1);
        TILE_ZERO(2);
        TILE_ZERO(3);
    }
    for (size_t p = 0; p < words || last != NULL; p += TILE_WORDS, b += TILE_WORDS * WIDTH) {
        const float *low = a + p;
        if (p >= words) {
            low = last;
            lda = TILE_WORDS;
            last = NULL;
        }
        for (int i = 0; i < LINES && ask < ahead->end; i++, ask += LINE) {
            __builtin_prefetch(ask, 0, 2);
        }
        TILE_LOAD(4, low, lda);
        TILE_STREAM(6, b, WIDTH);
        TILE_MULTIPLY(0, 4, 6);
        TILE_LOAD(5, low + TILE_ROWS * lda, lda);
        TILE_STREAM(7, b + TILE_WORDS, WIDTH);
        TILE_MULTIPLY(2, 5, 6);
        TILE_MULTIPLY(3, 5, 7);
        TILE_MULTIPLY(1, 4, 7);
    }
    ahead->at = ask;
    TILE_STORE(0, c, ldc);
    TILE_STORE(1, c + TILE_WORDS, ldc);
    TILE_STORE(2, bottom, ldc);
    TILE_STORE(3, bottom + TILE_WORDS, ldc);
}

#endif
