/* The CPU backend's products that leave out zeros, of floats and of bf16, against the same products
 * with all terms: the same bits at every level and for any number of threads, one epilogue call per
 * element, nothing read or written between the rows; and that dense or small ones are left alone. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <math.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "backend/cpu/kernels.h"
#include "backend/cpu/matmul.h"
#include "backend/cpu/sparse.h"
#include "device.h"

enum { MOST_THREADS = 3, EXTRA = 6, LONELY = 5 };

typedef struct {
    matmul_form form;
    size_t m, n, k;
    size_t lda, ldb, ldc, a_rows, b_rows, a_cols, b_cols;
    float *a, *b;
    uint16_t *a16, *b16; /* the same, rounded to bf16 */
} product;

/* `share` of the values are not zero: those beside each other, as strokes are. Where zeros are, one
 * row and one column have one value alone, a denormal. Between the rows lies NaN, but for a zero
 * behind an odd number of terms. */
static float *matrix(uint16_t **bf16, size_t rows, size_t cols, size_t ld, double share,
                     uint64_t seed)
{
    float *m = malloc(rows * ld * sizeof *m);
    *bf16 = malloc(rows * ld * sizeof **bf16);
    assert_non_null(m);
    assert_non_null(*bf16);
    bool ink = false;
    for (size_t i = 0; i < rows * ld; i++) {
        if (random_uniform(&seed, 0, 1) < 0.2f) {
            ink = random_uniform(&seed, 0, 1) < share;
        }
        const float value = random_normal(&seed);
        m[i] = i % ld < cols ? (ink || share >= 1 ? value : 0.0f) : i % ld == cols ? 0.0f : NAN;
    }
    for (size_t i = 0; share < 1 && i < cols; i++) {
        m[LONELY * ld + i] = 0;
    }
    for (size_t r = 0; share < 1 && r < rows; r++) {
        m[r * ld + LONELY] = r == LONELY ? 1e-39f : 0;
    }
    m[0] = -0.0f;
    vae_cpu_kernels(VAE_CPU_BASELINE)->narrow(*bf16, m, rows * ld);
    return m;
}

static product make_product(matmul_form form, size_t m, size_t n, size_t k, double share)
{
    product p = {.form = form, .m = m, .n = n, .k = k};
    const bool tn = form == MATMUL_TN;
    p.a_rows = tn ? k : m, p.a_cols = tn ? m : k;
    p.b_rows = form == MATMUL_NT ? n : k, p.b_cols = form == MATMUL_NT ? k : n;
    p.lda = (p.a_cols + EXTRA) / 2 * 2, p.ldb = (p.b_cols + EXTRA) / 2 * 2, p.ldc = n + EXTRA;
    p.a = matrix(&p.a16, p.a_rows, p.a_cols, p.lda, tn ? 1 : share, m + 31 * k);
    p.b = matrix(&p.b16, p.b_rows, p.b_cols, p.ldb, tn ? share : 1, n + 77 * k);
    return p;
}

static void free_product(product *p)
{
    free(p->a), free(p->b), free(p->a16), free(p->b16);
}

static void *new_room(size_t bytes)
{
    void *room = aligned_alloc(64, (bytes + 63) / 64 * 64);
    assert_non_null(room);
    return memset(room, 0xFF, bytes); /* NaN */
}

static float *new_c(const product *p)
{
    float *c = malloc(p->m * p->ldc * sizeof *c);
    assert_non_null(c);
    for (size_t i = 0; i < p->m * p->ldc; i++) {
        c[i] = NAN;
    }
    return c;
}

typedef struct {
    const product *p;
    float *c;
    uint8_t *seen; /* (m,n) how often */
} target;

/* C = 2 c; of bf16, whose tiles lie elsewhere, moved to C. */
static void finish(void *ctx, float *c, size_t ldc, size_t row0, size_t col0, size_t rows,
                   size_t cols)
{
    const target *to = ctx;
    assert_true(c == to->c + row0 * ldc + col0 || cols <= MATMUL_BF16_COLS);
    for (size_t r = 0; r < rows; r++) {
        for (size_t i = 0; i < cols; i++) {
            to->c[(row0 + r) * to->p->ldc + col0 + i] = 2 * c[r * ldc + i];
            to->seen[(row0 + r) * to->p->n + col0 + i]++;
        }
    }
}

/* With all terms: too little for anything else, some rows and columns at a time. */
static float *with_all_terms(const product *p, bool bf16, vae_cpu_level level)
{
    enum { ROWS = 24, COLS = 16 };
    void *room = bf16 ? new_room(vae_cpu_matmul_bf16_room(1)) : NULL;
    const bool tn = p->form == MATMUL_TN;
    float *c = new_c(p);
    target to = {p, c, calloc(p->m * p->n, 1)};
    if (!bf16) {
        vae_cpu_matmul(p->form, c, p->ldc, p->a, p->lda, p->b, p->ldb, p->m, p->n, p->k, finish,
                       &to, 1, level, NULL);
    }
    for (size_t r = 0; bf16 && r < p->m; r += ROWS) {
        for (size_t j = 0; j < p->n; j += COLS) {
            const matmul_bf16 a = {p->a16 + r * (tn ? 1 : p->lda), p->lda};
            const matmul_bf16 b = {p->b16 + j * (p->form == MATMUL_NT ? p->ldb : 1), p->ldb};
            const size_t m = p->m - r < ROWS ? p->m - r : ROWS;
            const size_t n = p->n - j < COLS ? p->n - j : COLS;
            target part = {p, c + r * p->ldc + j, to.seen};
            if (tn) {
                vae_cpu_matmul_bf16_tn(part.c, p->ldc, NULL, a, b, m, n, p->k, 1, level, room);
                finish(&part, part.c, p->ldc, 0, 0, m, n);
            } else {
                vae_cpu_matmul_bf16(p->form, a, b, m, n, p->k, false, finish, &part, 1, level,
                                    room);
            }
        }
    }
    free(to.seen);
    free(room);
    return c;
}

/* Without the zeros; NULL where that was refused, which must leave C alone. */
static float *without_zeros(const product *p, bool bf16, vae_cpu_level level, int threads,
                            float *sums)
{
    float *shared = new_room(SPARSE_SHARED * sizeof(float));
    void *rooms = new_room(vae_cpu_sparse_room(threads));
    float *c = new_c(p);
    const size_t block = bf16 ? 512 : 400, blocks = (p->k + block - 1) / block;
    target to = {p, c, calloc(p->m * p->n, 1)};
    const sparse_product q = {.form = p->form,
                              .bf16 = bf16,
                              .a = bf16 ? (const void *)p->a16 : p->a,
                              .b = bf16 ? (const void *)p->b16 : p->b,
                              .lda = p->lda,
                              .ldb = p->ldb,
                              .c = bf16 && p->form != MATMUL_TN ? NULL : c,
                              .ldc = p->ldc,
                              .sums = sums,
                              .m = p->m,
                              .n = p->n,
                              .k = p->k,
                              .k_step = bf16 ? ((p->k + blocks - 1) / blocks + 1) / 2 * 2
                                             : (p->k + blocks - 1) / blocks,
                              .epilogue = finish,
                              .ctx = &to,
                              .threads = threads,
                              .level = level,
                              .shared = shared,
                              .rooms = rooms};
    const bool done = vae_cpu_sparse_product(&q);
    for (size_t i = 0; i < p->m * p->n; i++) {
        if (to.seen[i] != done) {
            fail_msg("element %zu was finished %u times", i, to.seen[i]);
        }
    }
    for (size_t i = 0; i < p->m * p->ldc; i++) {
        if ((!done || i % p->ldc >= p->n) && !isnan(c[i])) {
            fail_msg("element %zu was written", i);
        }
    }
    free(to.seen), free(shared), free(rooms);
    if (!done) {
        free(c);
    }
    return done ? c : NULL;
}

static vae_cpu_level best(void)
{
    vae_cpu_level level;
    vae_error err;
    assert_int_equal(vae_cpu_level_choose(&level, &err), VAE_OK);
    return level;
}

static void compare(const product *p, bool bf16, vae_cpu_level level, int threads)
{
    float *sums = bf16 && p->form == MATMUL_TN ? malloc(p->m * sizeof *sums) : NULL;
    float *want = with_all_terms(p, bf16, level), *c = without_zeros(p, bf16, level, threads, sums);
    assert_non_null(c);
    for (size_t r = 0; r < p->m; r++) {
        if (memcmp(c + r * p->ldc, want + r * p->ldc, p->n * sizeof *c) != 0) {
            fail_msg("form %d (%zu,%zu,%zu), level %d, %d threads: row %zu differs", p->form, p->m,
                     p->n, p->k, level, threads, r);
        }
    }
    if (sums != NULL) { /* those of the product with all terms, whose C is too small for this one */
        void *room = new_room(vae_cpu_matmul_bf16_room(1));
        float some[16], *few = malloc(16 * sizeof *few);
        for (size_t r = 0; r < p->m; r += 16) {
            const size_t m = p->m - r < 16 ? p->m - r : 16;
            vae_cpu_matmul_bf16_tn(few, 1, some, (matmul_bf16){p->a16 + r, p->lda},
                                   (matmul_bf16){p->b16, p->ldb}, m, 1, p->k, 1, level, room);
            assert_memory_equal(sums + r, some, m * sizeof *some);
        }
        free(few), free(room);
    }
    free(sums), free(want), free(c);
}

/* Tiles that end early in rows and columns, vectors that do; one block of terms and several; more
 * columns than are summed at a time; under TN several parts, and more rows than have sums. */
static const size_t sizes[][3] = {{67, 400, 784},   {33, 65, 1203},  {300, 532, 100},
                                  {130, 1100, 401}, {537, 67, 2501}, {72, 1500, 1100}};

static void bits_are_those_of_all_terms(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof sizes / sizeof sizes[0]; i++) {
        for (int form = MATMUL_NT; form <= MATMUL_TN; form++) {
            const size_t *s = sizes[i];
            product p = s[0] < 64 && form == MATMUL_TN /* too few columns of what is dense */
                            ? make_product(MATMUL_TN, s[1], s[0], s[2], 0.15)
                            : make_product((matmul_form)form, s[0], s[1], s[2], 0.15);
            for (vae_cpu_level level = VAE_CPU_BASELINE; level <= best(); level++) {
                if (level <= VAE_CPU_AVX512) {
                    compare(&p, false, level, 1 + (int)(i + (size_t)level) % MOST_THREADS);
                } else if (level == VAE_CPU_AVX512_BF16) {
                    compare(&p, true, level, 1);
                    compare(&p, true, level, MOST_THREADS);
                }
            }
            free_product(&p);
        }
    }
}

/* The longest sums of which what is packed has room for the fewest columns; under TN longer ones. */
static void long_sums(void **state)
{
    (void)state;
    const vae_cpu_level level = best() < VAE_CPU_AVX512 ? best() : VAE_CPU_AVX512;
    const size_t longest = SPARSE_SHARED / 64;
    product few = make_product(MATMUL_NT, 32, 65, longest, 0.15);
    product more = make_product(MATMUL_NT, 32, 65, longest + 1, 0.15);
    product tn = make_product(MATMUL_TN, 64, 9, 2 * longest + 1, 0.15);
    compare(&few, false, level, MOST_THREADS);
    assert_null(without_zeros(&more, false, level, 1, NULL));
    compare(&tn, false, level, MOST_THREADS);
    if (best() >= VAE_CPU_AVX512_BF16) {
        compare(&tn, true, VAE_CPU_AVX512_BF16, MOST_THREADS);
    }
    free_product(&few), free_product(&more), free_product(&tn);
}

static void dense_and_small_ones_are_left_alone(void **state)
{
    (void)state;
    for (int form = MATMUL_NT; form <= MATMUL_TN; form++) {
        product dense = make_product((matmul_form)form, 100, 100, 500, 1);
        product small = make_product((matmul_form)form, 70, 70, 200, 0.1);
        product narrow = form == MATMUL_TN ? make_product(MATMUL_TN, 40, 400, 800, 0.1)
                                           : make_product((matmul_form)form, 400, 40, 800, 0.1);
        product few = form == MATMUL_TN ? make_product(MATMUL_TN, 260, 270, 31, 0.1)
                                        : make_product((matmul_form)form, 31, 260, 270, 0.1);
        assert_null(without_zeros(&few, false, best(), 2, NULL));
        assert_null(without_zeros(&dense, false, best(), 2, NULL));
        assert_null(without_zeros(&small, false, best(), 2, NULL));
        assert_null(without_zeros(&narrow, false, best(), 2, NULL));
        free_product(&dense), free_product(&small), free_product(&narrow), free_product(&few);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(bits_are_those_of_all_terms),
        cmocka_unit_test(long_sums),
        cmocka_unit_test(dense_and_small_ones_are_left_alone),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
