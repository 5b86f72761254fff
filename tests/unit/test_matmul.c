/* The CPU backend's matrix products, of floats and of bf16, against double loops: all forms, odd
 * sizes, long rows between the elements, C full of NaN before, one epilogue call per element, the
 * same bits for any number of threads. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <math.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "backend/cpu/kernels.h"
#include "backend/cpu/matmul.h"
#include "device.h"

static vae_cpu_level level; /* that products run at: each of 0 .. best in turn */
static vae_cpu_level best;
static bool make_room;          /* for products to pack B in, once for all tasks */
static vae_cpu_level best_bf16; /* of products of bf16, which have levels that floats have not */

typedef struct {
    matmul_form form;
    size_t m, n, k;
    size_t extra; /* of every leading dimension */
    size_t lda, ldb, ldc, a_rows, b_rows;
    float *a, *b;
    double *want;
} product;

static float *random_matrix(size_t rows, size_t cols, size_t ld, uint64_t seed)
{
    float *m = malloc((rows * ld + 1) * sizeof *m);
    assert_non_null(m);
    for (size_t i = 0; i < rows * ld; i++) { /* what lies between the rows must not be read */
        m[i] = i % ld < cols ? random_normal(&seed) : NAN;
    }
    return m;
}

static product make_product(matmul_form form, size_t m, size_t n, size_t k, size_t extra)
{
    product p = {.form = form, .m = m, .n = n, .k = k, .extra = extra};
    size_t a_cols = form == MATMUL_TN ? m : k, b_cols = form == MATMUL_NT ? k : n;
    p.a_rows = form == MATMUL_TN ? k : m;
    p.b_rows = form == MATMUL_NT ? n : k;
    p.lda = a_cols + extra, p.ldb = b_cols + extra, p.ldc = n + extra;
    p.a = random_matrix(p.a_rows, a_cols, p.lda, m + 1000 * k);
    p.b = random_matrix(p.b_rows, b_cols, p.ldb, n + 777 * k);
    return p;
}

static void free_product(product *p)
{
    free(p->a), free(p->b), free(p->want);
}

static void expect(product *p)
{
    p->want = calloc(p->m * p->n + 1, sizeof *p->want);
    assert_non_null(p->want);
    for (size_t i = 0; i < p->m; i++) {
        for (size_t l = 0; l < p->k; l++) {
            double a = (double)(p->form == MATMUL_TN ? p->a[l * p->lda + i] : p->a[i * p->lda + l]);
            for (size_t j = 0; j < p->n; j++) {
                p->want[i * p->n + j] += a * (double)(p->form == MATMUL_NT ? p->b[j * p->ldb + l]
                                                                           : p->b[l * p->ldb + j]);
            }
        }
    }
}

typedef struct {
    const product *p;
    const float *c;
    uint8_t *seen; /* (m,n) how often */
    bool good;
} cover;

/* c = 2c + 1 on each element, once. Runs on several threads: they touch apart elements. */
static void epilogue(void *ctx, float *c, size_t ldc, size_t row0, size_t col0, size_t rows,
                     size_t cols)
{
    cover *v = ctx;
    if (c != v->c + row0 * ldc + col0 || ldc != v->p->ldc || row0 + rows > v->p->m ||
        col0 + cols > v->p->n) {
        v->good = false;
        return;
    }
    for (size_t r = 0; r < rows; r++) {
        for (size_t i = 0; i < cols; i++) {
            c[r * ldc + i] = 2 * c[r * ldc + i] + 1;
            v->seen[(row0 + r) * v->p->n + col0 + i]++;
        }
    }
}

/* C with a guard around it, NaN all over. */
static float *run_product(const product *p, bool with_epilogue, int threads)
{
    float *room = make_room ? aligned_alloc(64, vae_cpu_matmul_room(threads)) : NULL;
    const size_t size = p->m * p->ldc;
    float *c = malloc((size + 1) * sizeof *c);
    assert_non_null(c);
    for (size_t i = 0; i <= size; i++) {
        c[i] = NAN;
    }
    cover v = {p, c, calloc(p->m * p->n + 1, 1), true};
    vae_cpu_matmul(p->form, c, p->ldc, p->a, p->lda, p->b, p->ldb, p->m, p->n, p->k,
                   with_epilogue ? epilogue : NULL, &v, threads, level, room);
    free(room);
    assert_true(v.good);
    for (size_t i = 0; i < p->m * p->n; i++) {
        if (v.seen[i] != with_epilogue) {
            fail_msg("element %zu was finished %u times", i, v.seen[i]);
        }
    }
    free(v.seen);
    assert_true(isnan(c[size]));
    for (size_t i = 0; i < size; i++) { /* what lies between the rows stays */
        if (i % p->ldc >= p->n && !isnan(c[i])) {
            fail_msg("element %zu lies between the rows and was written", i);
        }
    }
    return c;
}

static void compare(const product *p, const float *c, bool with_epilogue)
{
    double error = 0, power = 0;
    for (size_t i = 0; i < p->m * p->n; i++) {
        double want = with_epilogue ? 2 * p->want[i] + 1 : p->want[i];
        double e = (double)c[i / p->n * p->ldc + i % p->n] - want;
        error += e * e;
        power += want * want + 1e-12;
        if (!(fabs(e) < 1e-6 * (2 + (double)p->k))) {
            fail_msg("form %d (%zu,%zu,%zu): element %zu is off by %g", p->form, p->m, p->n, p->k,
                     i, e);
        }
    }
    if (!(error <= 1e-12 * power)) {
        fail_msg("form %d (%zu,%zu,%zu): nmse %g", p->form, p->m, p->n, p->k, error / power);
    }
}

/* Every level is right, and those with fused multiply-adds are the same to the bit. */
static void check_product(matmul_form form, size_t m, size_t n, size_t k, size_t extra)
{
    product p = make_product(form, m, n, k, extra);
    float *fused = NULL;
    expect(&p);
    for (level = VAE_CPU_BASELINE; level <= best; level++) {
        bool with_epilogue = (m + n + (level > VAE_CPU_BASELINE)) % 2 == 1;
        float *c = run_product(&p, with_epilogue, 2);
        compare(&p, c, with_epilogue);
        for (size_t i = 0; fused != NULL && i < m; i++) {
            if (memcmp(c + i * p.ldc, fused + i * p.ldc, n * sizeof *c) != 0) {
                fail_msg("form %d (%zu,%zu,%zu): row %zu differs at avx512", form, m, n, k, i);
            }
        }
        if (level == VAE_CPU_AVX2) {
            fused = c;
        } else {
            free(c);
        }
    }
    free(fused);
    free_product(&p);
}

static const size_t odd_sizes[][3] = {
    {1, 1, 1},     {1, 1, 0},     {5, 7, 0},      {1, 31, 33},   {31, 1, 33},  {33, 31, 1},
    {2, 3, 5},     {7, 9, 257},   {257, 33, 7},   {13, 257, 31}, {12, 32, 16}, {24, 64, 400},
    {25, 65, 401}, {37, 47, 799}, {128, 100, 20}, {1, 784, 40},  {20, 40, 784}};

static void every_form_and_size(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof odd_sizes / sizeof odd_sizes[0]; i++) {
        const size_t *s = odd_sizes[i];
        for (int form = MATMUL_NT; form <= MATMUL_TN; form++) {
            check_product((matmul_form)form, s[0], s[1], s[2], 0);
            check_product((matmul_form)form, s[0], s[1], s[2], 1);
            check_product((matmul_form)form, s[0], s[1], s[2], 19);
        }
    }
    for (int form = MATMUL_NT; form <= MATMUL_TN; form++) { /* every small remainder of a tile */
        for (size_t m = 1; m <= 13; m++) {
            for (size_t n = m % 2 + 1; n <= 34; n += 2) {
                check_product((matmul_form)form, m, n, 3, 2);
            }
        }
    }
}

/* Past every threshold: blocks of K, packed operands, tasks of rows and columns. */
static const size_t large_sizes[][3] = {{200, 300, 401}, {193, 257, 60}, {40, 33, 1025},
                                        {19, 290, 3300}, {400, 70, 130}, {97, 384, 128}};
enum { N_LARGE = sizeof large_sizes / sizeof large_sizes[0] };

static void large_products(void **state)
{
    (void)state;
    for (size_t i = 0; i < N_LARGE; i++) {
        for (int form = MATMUL_NT; form <= MATMUL_TN; form++) {
            check_product((matmul_form)form, large_sizes[i][0], large_sizes[i][1],
                          large_sizes[i][2], i % 2 * 5);
        }
    }
}

/* Operands packed once: several parts of the sum, and more rows and columns than the room holds of
 * one; few rows, whose terms are summed up in blocks by themselves; few columns; edges. */
static void room_changes_no_bits(void **state)
{
    (void)state;
    const size_t sizes[][3] = {{2049, 45, 1203}, {2100, 1600, 1025}, {2048, 20, 3},
                               {5000, 7, 401},   {20, 400, 784},     {131, 45, 1203},
                               {256, 33, 801},   {401, 20, 1203}};
    for (size_t i = 0; i < sizeof sizes / sizeof sizes[0]; i++) {
        for (int form = MATMUL_NT; form <= MATMUL_TN; form++) {
            product p =
                make_product((matmul_form)form, sizes[i][0], sizes[i][1], sizes[i][2], i % 2 * 3);
            for (int j = i == 1 ? 2 * (int)best : 0; j < 2 * (int)(best + 1); j++) {
                const bool epilogue = j % 2 == 0;
                level = (vae_cpu_level)(j / 2);
                float *own = run_product(&p, epilogue, 3);
                make_room = true;
                float *shared = run_product(&p, epilogue, 3);
                make_room = false;
                for (size_t r = 0; r < p.m; r++) {
                    assert_memory_equal(shared + r * p.ldc, own + r * p.ldc, p.n * sizeof *own);
                }
                free(own), free(shared);
            }
            free_product(&p);
        }
    }
}

static void nothing_to_do(void **state)
{
    (void)state;
    float c = NAN, x = 1;
    for (int form = MATMUL_NT; form <= MATMUL_TN; form++) {
        vae_cpu_matmul((matmul_form)form, &c, 1, &x, 1, &x, 1, 0, 1, 1, NULL, NULL, 2, level, NULL);
        vae_cpu_matmul((matmul_form)form, &c, 1, &x, 1, &x, 1, 1, 0, 1, NULL, NULL, 2, level, NULL);
    }
    assert_true(isnan(c));
}

static void threads_leave_no_trace(void **state)
{
    (void)state;
    const int threads[] = {1, 2, 3, 8, 5};
    const size_t n_threads = sizeof threads / sizeof threads[0];
    for (size_t i = 0; i < N_LARGE; i++) {
        for (int form = MATMUL_NT; form <= MATMUL_TN; form++) {
            product p = make_product((matmul_form)form, large_sizes[i][0], large_sizes[i][1],
                                     large_sizes[i][2], 3);
            for (level = VAE_CPU_BASELINE; level <= best; level++) {
                if (level < best && (size_t)form != i % 3) {
                    continue; /* the lower levels share all but the innermost loop */
                }
                float *first = run_product(&p, true, 1);
                for (size_t t = level == best ? 1 : 3; t < n_threads; t++) {
                    float *c = run_product(&p, true, threads[t]);
                    for (size_t r = 0; r < p.m; r++) {
                        assert_memory_equal(c + r * p.ldc, first + r * p.ldc, p.n * sizeof *c);
                    }
                    free(c);
                }
                free(first);
            }
            free_product(&p);
        }
    }
}

/* A row's bits do not depend on the other rows of its batch (of C's columns: on the other ones). */
static void rows_do_not_see_each_other(void **state)
{
    (void)state;
    for (int i = 0; i < 3 * (int)(best + 1); i++) {
        const int form = i % 3;
        level = (vae_cpu_level)(i / 3);
        product p = make_product((matmul_form)form, 45, 70, 901, 3);
        float *all = run_product(&p, false, 2);
        for (size_t part = 1; part < 45; part += 11) {
            product q = p;
            q.m = part, q.n = 70 - part;
            float *some = run_product(&q, false, 2);
            for (size_t r = 0; r < q.m; r++) {
                assert_memory_equal(some + r * q.ldc, all + r * p.ldc, q.n * sizeof *some);
            }
            free(some);
        }
        free(all);
        free_product(&p);
    }
}

/* A NaN spoils its row (of A) or column (of B) and nothing else; infinities are not lost. */
static void nan_stays_in_its_lane(void **state)
{
    (void)state;
    for (int i = 0; i < 3 * (int)(best + 1); i++) {
        const int form = i % 3;
        level = (vae_cpu_level)(i / 3);
        product p = make_product((matmul_form)form, 30, 41, 500, 0);
        p.a[form == MATMUL_TN ? 400 * p.lda + 17 : 17 * p.lda + 400] = NAN;
        p.b[form == MATMUL_NT ? 23 * p.ldb + 3 : 3 * p.ldb + 23] = INFINITY;
        float *c = run_product(&p, false, 2);
        for (size_t e = 0; e < p.m * p.n; e++) {
            size_t r = e / p.n, j = e % p.n;
            float value = c[r * p.ldc + j];
            assert_true((isnan(value) != 0) == (r == 17));
            assert_true((isinf(value) != 0) == (j == 23 && r != 17));
        }
        free(c);
        free_product(&p);
    }
}

/* ---- bf16 ---- */

/* The operands of a product of floats, rounded to bf16 (a, b too): rows 2 or more values further
 * apart; between them NaN, or behind an odd number of terms what the contract wants, a zero. */
typedef struct {
    matmul_bf16 a, b;
    uint16_t *memory[2];
} bf16_operands;

static matmul_bf16 to_bf16(uint16_t **memory, float *from, size_t rows, size_t cols, size_t ld,
                           bool terms)
{
    const size_t ld16 = (cols + 3) / 2 * 2;
    *memory = malloc((rows * ld16 + 1) * sizeof **memory);
    assert_non_null(*memory);
    for (size_t r = 0; r < rows; r++) {
        for (size_t i = 0; i < ld16; i++) {
            const float nothing = terms && i == cols ? 0.0f : NAN;
            vae_cpu_kernels(VAE_CPU_BASELINE)
                ->narrow(*memory + r * ld16 + i, i < cols ? from + r * ld + i : &nothing, 1);
        }
        vae_cpu_kernels(VAE_CPU_BASELINE)->widen(from + r * ld, *memory + r * ld16, cols);
    }
    return (matmul_bf16){*memory, ld16};
}

static bf16_operands make_bf16(product *p)
{
    bf16_operands o;
    o.a = to_bf16(&o.memory[0], p->a, p->a_rows, p->lda - p->extra, p->lda, p->form != MATMUL_TN);
    o.b = to_bf16(&o.memory[1], p->b, p->b_rows, p->ldb - p->extra, p->ldb, p->form == MATMUL_NT);
    return o;
}

static void free_bf16(bf16_operands *o)
{
    free(o->memory[0]), free(o->memory[1]);
}

typedef struct {
    const product *p;
    float *c;
    size_t *done; /* columns of each row, where tiles come in order */
} copying;

static void copy_tile(void *ctx, float *c, size_t ldc, size_t row0, size_t col0, size_t rows,
                      size_t cols)
{
    const copying *to = ctx;
    for (size_t r = 0; r < rows; r++) {
        if (to->done != NULL) {
            assert_int_equal(col0, to->done[row0 + r]);
            assert_int_equal(col0 % MATMUL_BF16_COLS, 0);
            to->done[row0 + r] += cols;
        }
        for (size_t i = 0; i < cols; i++) {
            float *at = to->c + (row0 + r) * to->p->ldc + col0 + i;
            *at = isnan(*at) ? c[r * ldc + i] : INFINITY; /* once */
            c[r * ldc + i] = NAN;                         /* it may be changed */
        }
    }
}

enum { MOST_THREADS = 3 };

/* Memory for products, kept: it is large. All of it is NaN where `fresh`. */
static void *room_of_products(bool fresh)
{
    static void *room;
    const size_t bytes = vae_cpu_matmul_bf16_room(MOST_THREADS);
    if (room == NULL) {
        room = aligned_alloc(64, bytes);
        assert_non_null(room);
        fresh = true;
    }
    return fresh ? memset(room, 0xFF, bytes) : room;
}

/* Column sums of A, which lies as (k,m). */
static void check_sums(const bf16_operands *o, const float *sums, size_t m, size_t k)
{
    for (size_t i = 0; i < m; i++) {
        double sum = 0, size = 1e-30;
        for (size_t j = 0; j < k; j++) {
            float value;
            vae_cpu_kernels(VAE_CPU_BASELINE)->widen(&value, o->a.data + j * o->a.ld + i, 1);
            sum += (double)value;
            size += fabs((double)value);
        }
        assert_true(isnan(sum) ? isnan(sums[i]) : fabs((double)sums[i] - sum) <= 1e-5 * size);
    }
}

/* The first m rows and n columns; in_order: NULL, or a counter for each row. */
static float *run_bf16(const product *p, const bf16_operands *o, size_t m, size_t n, int threads,
                       size_t *in_order)
{
    const size_t size = p->m * p->ldc;
    float *c = malloc((size + 1) * sizeof *c);
    void *room = room_of_products(threads == 1);
    assert_non_null(c);
    for (size_t i = 0; i < size; i++) {
        c[i] = NAN;
    }
    copying to = {p, c, in_order};
    if (p->form == MATMUL_TN) {
        float *sums = threads > 1 ? malloc(m * sizeof *sums) : NULL;
        vae_cpu_matmul_bf16_tn(c, p->ldc, sums, o->a, o->b, m, n, p->k, threads, level, room);
        if (sums != NULL) {
            check_sums(o, sums, m, p->k);
        }
        free(sums);
    } else {
        vae_cpu_matmul_bf16(p->form, o->a, o->b, m, n, p->k, in_order != NULL, copy_tile, &to,
                            threads, level, room);
    }
    for (size_t i = 0; i < size; i++) { /* nothing else was written */
        assert_true((i / p->ldc < m && i % p->ldc < n) || isnan(c[i]));
    }
    return c;
}

static void check_bf16(matmul_form form, size_t m, size_t n, size_t k)
{
    product p = make_product(form, m, n, k, 1);
    bf16_operands o = make_bf16(&p);
    float *fused = NULL;
    expect(&p);
    for (level = VAE_CPU_BASELINE; level <= best_bf16; level++) {
        size_t *done = calloc(m, sizeof *done);
        assert_non_null(done);
        float *c = run_bf16(&p, &o, m, n, 1, NULL);
        float *other = run_bf16(&p, &o, m, n, MOST_THREADS, level % 2 == 0 ? done : NULL);
        free(done);
        compare(&p, c, false);
        for (size_t i = 0; i < m; i++) {
            assert_memory_equal(c + i * p.ldc, other + i * p.ldc, n * sizeof *c);
            if (fused != NULL && level <= VAE_CPU_AVX512) { /* as floats: the product is exact */
                assert_memory_equal(c + i * p.ldc, fused + i * p.ldc, n * sizeof *c);
            }
        }
        free(other);
        free(fused);
        fused = c;
    }
    free(fused);
    free_bf16(&o);
    free_product(&p);
}

static void bf16_every_form_and_size(void **state)
{
    (void)state;
    static const size_t sizes[][3] = {{1, 1, 1},      {5, 7, 0},      {33, 31, 2},
                                      {7, 9, 257},    {13, 17, 31},   {200, 300, 401},
                                      {37, 47, 1025}, {19, 290, 515}, {401, 20, 130}};
    for (size_t i = 0; i < sizeof sizes / sizeof sizes[0]; i++) {
        for (int form = MATMUL_NT; form <= MATMUL_TN; form++) {
            check_bf16((matmul_form)form, sizes[i][0], sizes[i][1], sizes[i][2]);
        }
    }
    /* more than is made words of at a time: columns of C, terms of the sum, rows, columns */
    check_bf16(MATMUL_NN, 193, 290, 4300);
    check_bf16(MATMUL_NT, 193, 9, 8200);
    check_bf16(MATMUL_TN, 1930, 40, 3);
    check_bf16(MATMUL_TN, 10, 2060, 3);
    for (int form = MATMUL_NT; form <= MATMUL_TN; form++) { /* every small remainder of a tile */
        for (size_t m = 1; m <= 13; m++) {
            for (size_t n = m % 3 + 1; n <= 34; n += 3) {
                check_bf16((matmul_form)form, m, n, 3);
            }
        }
    }
}

/* A row's bits do not depend on the other rows of its batch, and a NaN spoils its row alone. */
static void bf16_rows_do_not_see_each_other(void **state)
{
    (void)state;
    for (int i = 0; i < 3 * (int)(best_bf16 + 1); i++) {
        const matmul_form form = (matmul_form)(i % 3);
        level = (vae_cpu_level)(i / 3);
        product p = make_product(form, 45, 70, 901, 1);
        bf16_operands o = make_bf16(&p);
        float *all = run_bf16(&p, &o, 45, 70, 2, NULL);
        o.memory[0][form == MATMUL_TN ? 400 * o.a.ld + 17 : 17 * o.a.ld + 400] = 0x7FC0;
        float *some = run_bf16(&p, &o, 34, 37, 2, NULL);
        for (size_t r = 0; r < 34; r++) {
            for (size_t j = 0; j < 37; j++) {
                const float *one = some + r * p.ldc + j;
                assert_true(r == 17 ? isnan(*one)
                                    : memcmp(one, all + r * p.ldc + j, sizeof *one) == 0);
            }
        }
        free(some);
        some = run_bf16(&p, &o, 9, 70, 2, NULL); /* so few that tiles turn them over */
        for (size_t r = 0; r < 9; r++) {
            assert_memory_equal(some + r * p.ldc, all + r * p.ldc, 70 * sizeof *some);
        }
        free(some), free(all);
        free_bf16(&o);
        free_product(&p);
    }
}

static float float_of_bits(uint32_t bits)
{
    float f;
    memcpy(&f, &bits, sizeof f);
    return f;
}

/* To the nearest of the two that it lies between, ties to the even one; back exactly. */
static void bf16_is_rounded_to_nearest(void **state)
{
    (void)state;
    static const struct {
        uint32_t from;
        uint16_t to;
    } cases[] = {{0x3F800000, 0x3F80}, {0x3F807FFF, 0x3F80}, {0x3F808000, 0x3F80},
                 {0x3F808001, 0x3F81}, {0x3F818000, 0x3F82}, {0xBF818000, 0xBF82},
                 {0x7F7FFFFF, 0x7F80}, {0x7F800000, 0x7F80}, {0xFF800000, 0xFF80},
                 {0x00000001, 0x0000}, {0x00018000, 0x0002}, {0x80000000, 0x8000},
                 {0x7F800001, 0x7FFF}, {0xFFFFFFFF, 0x7FFF}};
    enum { N = sizeof cases / sizeof cases[0], REPEATED = 5 * N };
    for (vae_cpu_level l = VAE_CPU_BASELINE; l <= best_bf16; l++) {
        float values[REPEATED], back[REPEATED];
        uint16_t got[REPEATED];
        for (size_t i = 0; i < REPEATED; i++) {
            values[i] = float_of_bits(cases[i % N].from);
        }
        vae_cpu_kernels(l)->narrow(got, values, REPEATED);
        vae_cpu_kernels(l)->widen(back, got, REPEATED);
        for (size_t i = 0; i < REPEATED; i++) {
            uint32_t bits;
            memcpy(&bits, &back[i], sizeof bits);
            assert_int_equal(got[i], cases[i % N].to);
            assert_int_equal(bits, (uint32_t)cases[i % N].to << 16);
        }
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_form_and_size),
        cmocka_unit_test(large_products),
        cmocka_unit_test(room_changes_no_bits),
        cmocka_unit_test(nothing_to_do),
        cmocka_unit_test(threads_leave_no_trace),
        cmocka_unit_test(rows_do_not_see_each_other),
        cmocka_unit_test(nan_stays_in_its_lane),
        cmocka_unit_test(bf16_is_rounded_to_nearest),
        cmocka_unit_test(bf16_every_form_and_size),
        cmocka_unit_test(bf16_rows_do_not_see_each_other),
    };
    if (vae_cpu_level_choose(&best_bf16, NULL) != VAE_OK) {
        return 1;
    }
    best = best_bf16 < VAE_CPU_AVX512 ? best_bf16 : VAE_CPU_AVX512;
    print_message("levels up to %s; of bf16 up to %s\n", vae_cpu_kernels(best)->isa,
                  vae_cpu_level_name(best_bf16));
    return cmocka_run_group_tests(tests, NULL, NULL);
}
