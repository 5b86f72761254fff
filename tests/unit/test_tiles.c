/* Products of bf16 by tiles (host/backend/cpu/tiles.h) where there are none: matmul_bf16.c is
 * compiled here anew with tiles that are arrays, and its products are those of the level below it
 * but for their rounding. */
#include "emulated_tiles.h"

#include <stdlib.h>

#include "backend/cpu/matmul.h"
#include "device.h"

#define vae_cpu_matmul_bf16      by_tiles
#define vae_cpu_matmul_bf16_tn   by_tiles_tn
#define vae_cpu_matmul_bf16_room room_of_tiles
void by_tiles(matmul_form form, matmul_bf16 a, matmul_bf16 b, size_t m, size_t n, size_t k,
              bool in_order, matmul_epilogue *epilogue, void *ctx, int threads, vae_cpu_level level,
              void *room);
void by_tiles_tn(float *c, size_t ldc, float *sums, matmul_bf16 a, matmul_bf16 b, size_t m,
                 size_t n, size_t k, int threads, vae_cpu_level level, void *room);
size_t room_of_tiles(int threads);
#include "backend/cpu/matmul_bf16.c"
#undef vae_cpu_matmul_bf16
#undef vae_cpu_matmul_bf16_tn
#undef vae_cpu_matmul_bf16_room

typedef struct {
    float *c;
    size_t n;
} whole;

static void copy_out(void *ctx, float *c, size_t ldc, size_t row0, size_t col0, size_t rows,
                     size_t cols)
{
    const whole *to = ctx;
    for (size_t r = 0; r < rows; r++) {
        memcpy(to->c + (row0 + r) * to->n + col0, c + r * ldc, cols * sizeof *c);
    }
}

/* rows x cols, each row with `extra` values behind it: an even number of them in all; the first is
 * zero and the others NaN. */
static matmul_bf16 operand(uint16_t **memory, size_t rows, size_t cols, uint64_t seed)
{
    const size_t ld = (cols + 3) / 2 * 2;
    *memory = malloc(rows * ld * sizeof **memory + 1);
    assert_non_null(*memory);
    for (size_t i = 0; i < rows * ld; i++) {
        const float value = i % ld < cols ? random_normal(&seed) : i % ld == cols ? 0.0f : NAN;
        vae_cpu_kernels(VAE_CPU_BASELINE)->narrow(*memory + i, &value, 1);
    }
    return (matmul_bf16){*memory, ld};
}

/* A product by tiles into c: (m,n), and under TN sums (m) of A's columns. */
static void run(matmul_form form, float *c, float *sums, matmul_bf16 a, matmul_bf16 b, size_t m,
                size_t n, size_t k, bool in_order, int threads, void *room)
{
    whole to = {c, n};
    if (form == MATMUL_TN) {
        by_tiles_tn(c, n, sums, a, b, m, n, k, threads, VAE_CPU_AMX_BF16, room);
    } else {
        by_tiles(form, a, b, m, n, k, in_order, copy_out, &to, threads, VAE_CPU_AMX_BF16, room);
    }
}

static void check(matmul_form form, size_t m, size_t n, size_t k)
{
    uint16_t *memory[2];
    const matmul_bf16 a =
        form == MATMUL_TN ? operand(&memory[0], k, m, m + k) : operand(&memory[0], m, k, m + k);
    const matmul_bf16 b = form == MATMUL_NT ? operand(&memory[1], n, k, n + 3 * k)
                                            : operand(&memory[1], k, n, n + 3 * k);
    const size_t all = m * n + m, bytes = room_of_tiles(3) > vae_cpu_matmul_bf16_room(1)
                                              ? room_of_tiles(3)
                                              : vae_cpu_matmul_bf16_room(1);
    float *got = calloc(3 * all + 1, sizeof *got);
    void *room = aligned_alloc(64, (bytes + 63) / 64 * 64);
    double error = 0, power = 1e-30;
    assert_true(got != NULL && room != NULL);
    memset(room, 0xFF, bytes); /* NaN */
    float *threads = got + all, *want = threads + all;
    whole to = {want, n};
    run(form, got, got + m * n, a, b, m, n, k, false, 1, room);
    run(form, threads, threads + m * n, a, b, m, n, k, true, 3, room);
    if (form == MATMUL_TN) {
        vae_cpu_matmul_bf16_tn(want, n, want + m * n, a, b, m, n, k, 1, VAE_CPU_BASELINE, room);
    } else {
        vae_cpu_matmul_bf16(form, a, b, m, n, k, false, copy_out, &to, 1, VAE_CPU_BASELINE, room);
    }
    assert_memory_equal(got, threads, all * sizeof *got);
    for (size_t i = 0; i < all; i++) {
        const double e = (double)got[i] - (double)want[i];
        error += e * e;
        power += (double)want[i] * (double)want[i];
    }
    if (!(error <= 1e-12 * power)) {
        fail_msg("form %d (%zu,%zu,%zu): nmse %g", form, m, n, k, error / power);
    }
    free(got), free(room), free(memory[0]), free(memory[1]);
}

static void skip_without_pairs(void)
{
#if defined(__x86_64__)
    __builtin_cpu_init();
    if (__builtin_cpu_supports("avx512bw")) {
        return;
    }
#endif
    print_message("skipped: rows are paired by avx512, which this machine lacks\n");
    skip();
}

static void tiles_make_the_same_products(void **state)
{
    (void)state;
    static const size_t sizes[][3] = {{1, 1, 1},     {32, 32, 32},   {33, 31, 0},
                                      {5, 70, 33},   {16, 17, 64},   {64, 40, 96},
                                      {47, 33, 543}, {200, 300, 70}, {64, 64, 1024},
                                      {40, 600, 50}, {1960, 40, 20}, {33, 40, 4300}};
    skip_without_pairs();
    for (size_t i = 0; i < sizeof sizes / sizeof sizes[0]; i++) {
        for (int form = MATMUL_NT; form <= MATMUL_TN; form++) {
            check((matmul_form)form, sizes[i][0], sizes[i][1], sizes[i][2]);
        }
    }
}

/* An element's bits do not depend on how many other rows and columns C has: of a smaller product, of
 * which other panels are whole, they are the same. */
static void other_rows_and_columns_change_no_bits(void **state)
{
    enum { M = 70, N = 70, K = 1100 };
    (void)state;
    skip_without_pairs();
    const size_t parts[][2] = {{64, 64}, {45, 37}, {34, 64}, {64, 33}, {20, 70}, {1, 1}};
    void *room = aligned_alloc(64, vae_cpu_matmul_bf16_room(1));
    float *all = malloc(2 * M * N * sizeof *all), *some = all + M * N;
    assert_true(room != NULL && all != NULL);
    for (int form = MATMUL_NT; form <= MATMUL_TN; form++) {
        uint16_t *memory[2];
        const matmul_bf16 a =
            form == MATMUL_TN ? operand(&memory[0], K, M, 1) : operand(&memory[0], M, K, 1);
        const matmul_bf16 b =
            form == MATMUL_NT ? operand(&memory[1], N, K, 2) : operand(&memory[1], K, N, 2);
        run((matmul_form)form, all, NULL, a, b, M, N, K, false, 1, room);
        for (size_t i = 0; i < sizeof parts / sizeof parts[0]; i++) {
            const size_t m = parts[i][0], n = parts[i][1];
            run((matmul_form)form, some, NULL, a, b, m, n, K, false, 1, room);
            for (size_t r = 0; r < m; r++) {
                if (memcmp(some + r * n, all + r * N, n * sizeof *some) != 0) {
                    fail_msg("form %d: row %zu of (%zu,%zu) differs", form, r, m, n);
                }
            }
        }
        free(memory[0]), free(memory[1]);
    }
    free(room), free(all);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(tiles_make_the_same_products),
                                       cmocka_unit_test(other_rows_and_columns_change_no_bits)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
