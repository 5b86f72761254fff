/* Products that leave out terms whose factor is zero: four fifths of MNIST's pixels are, and what
 * ReLU leaves.
 *
 * The operand with the zeros is taken ROWS rows at a time (of its transpose under TN: as many
 * pixels beside each other). The terms of which any of these rows has something lie packed, with
 * their numbers; for each, the kernel reads the other operand's row of that number. Fewer rows
 * share more zeros, but read more of the other operand: with four, 39% of MNIST's terms are left of
 * a layer's forward product and 28% of its weights' gradient, where 19% of the pixels are not
 * zero; with two 29 and 22%, at twice the reading.
 *
 * A task is some such tiles: their sums lie in a room of its own, (TILES*ROWS, columns), and become
 * C's rows, or under TN its columns, when all terms are in. */
#include "backend/cpu/sparse.h"

#include <stdint.h>
#include <string.h>

#include "backend/cpu/kernels.h"
#include "backend/cpu/pack.h"
#include "backend/cpu/sizes.h"
#include "backend/cpu/vec4.h"
#include "base/pool.h"

enum {
    ROWS = 4, /* of a tile */
    MOST_TERMS = SPARSE_TERMS,
    TILES = 16,           /* of a task at most: what they read stays in L2 */
    COLS = 512,           /* of C's columns, under TN of its rows, at a time */
    PITCH = COLS + 16,    /* rows a power of two apart would share few lines of L1 */
    LANES = 16,           /* of the widest vector */
    MOST_VECTORS = 6,     /* of a kernel */
    SOON = 6,             /* terms ahead, whose rows are asked for */
    AHEAD = 8,            /* rows, of a strided read */
    FEWEST_TILES = 8,     /* that pay for a task */
    FEWEST_ROWS = 32,     /* of a batch */
    PART_K = 1024,        /* terms that all threads sum up before any goes on, about */
    MOST_BLOCKS = 8,      /* of them */
    SUMS = 64,            /* columns that are added up at a time */
    SUMMED_ROWS = 1472,   /* under TN, of sums that lie beside a part's words */
    SAMPLED_TILES = 4,    /* of the operand, that are looked at */
    SAMPLED_WORDS = 8,    /* the same under TN */
    FEWEST_COLS = 64,     /* of the other operand: they pay for packing the terms */
    LEAST_WORK = 1 << 21, /* multiply-adds */
};
_Static_assert(SUMMED_ROWS *PITCH + PART_K / 2 * COLS <= SPARSE_SHARED && SUMMED_ROWS % ROWS == 0,
               "of pairs, a part's words fit in");

/* Terms of ROWS rows; `value` has them in the order of the sum, a term's factors side by side. */
typedef struct {
    float value[MOST_TERMS * ROWS];
    uint16_t index[MOST_TERMS + SOON];
    size_t n;
} tile_terms;

typedef struct {
    _Alignas(64) float c[TILES * ROWS * PITCH];
    float edge[MOST_TERMS * LANES]; /* columns of the other operand that are no whole vector */
    tile_terms tile[TILES];
} task_room;

/* C (ROWS, vectors wide) with pitch PITCH is increased by terms times rows of b. */
typedef void terms_kernel(size_t vectors, const tile_terms *t, const float *b, size_t ldb,
                          float *c);

/* clang-format off */
#define DEFINE_BODY(NAME, TARGET, VEC, WIDTH, SET1, FMA)                                           \
    TARGET INLINE void NAME##_body(int vectors, const tile_terms *t, const float *b, size_t ldb,   \
                                   float *c) {                                                     \
        typedef VEC unaligned __attribute__((aligned(4), may_alias));                              \
        VEC acc[ROWS][MOST_VECTORS], x, y[MOST_VECTORS];                                           \
        const float *value = t->value;                                                             \
        UNROLL for (int r = 0; r < ROWS; r++) {                                                    \
            UNROLL for (int v = 0; v < vectors; v++) {                                             \
                acc[r][v] = (VEC){0};                                                              \
            }                                                                                      \
        }                                                                                          \
        for (size_t i = 0; i < t->n; i++, value += ROWS) {                                         \
            const float *row = b + t->index[i] * ldb, *next = b + t->index[i + SOON] * ldb;        \
            UNROLL for (int v = 0; v < vectors; v++) {                                             \
                __builtin_prefetch(next + v * WIDTH);                                              \
            }                                                                                      \
            UNROLL for (int v = 0; v < vectors; v++) {                                             \
                y[v] = *(const unaligned *)(row + v * WIDTH);                                      \
            }                                                                                      \
            UNROLL for (int r = 0; r < ROWS; r++) {                                                \
                x = SET1(value[r]);                                                                \
                UNROLL for (int v = 0; v < vectors; v++) {                                         \
                    acc[r][v] = FMA(x, y[v], acc[r][v]);                                           \
                }                                                                                  \
            }                                                                                      \
        }                                                                                          \
        UNROLL for (int r = 0; r < ROWS; r++) {                                                    \
            UNROLL for (int v = 0; v < vectors; v++) {                                             \
                unaligned *to = (unaligned *)(c + r * PITCH + v * WIDTH);                          \
                *to = *to + acc[r][v];                                                             \
            }                                                                                      \
        }                                                                                          \
    }
/* clang-format on */
#define CASE(NAME, V)                                                                              \
    case V:                                                                                        \
        NAME##_body(V, t, b, ldb, c);                                                              \
        break;
#define CASES_2(NAME) CASE(NAME, 1) CASE(NAME, 2)
#define CASES_3(NAME) CASES_2(NAME) CASE(NAME, 3)
#define CASES_6(NAME) CASES_3(NAME) CASE(NAME, 4) CASE(NAME, 5) CASE(NAME, 6)
#define DEFINE_KERNEL(NAME, TARGET, VECTORS)                                                       \
    TARGET static void NAME(size_t vectors, const tile_terms *t, const float *b, size_t ldb,       \
                            float *c)                                                              \
    {                                                                                              \
        switch (vectors) {                                                                         \
            CASES_##VECTORS(NAME)                                                                  \
        }                                                                                          \
    }

typedef struct {
    size_t lanes, vectors; /* of a kernel's widest tile */
    terms_kernel *kernel;
} isa;

DEFINE_BODY(plain, NO_TARGET, vec4, 4, PLAIN_SET1, PLAIN_FMA)
DEFINE_KERNEL(plain, NO_TARGET, 2)
static const isa plain_isa = {4, 2, plain};

#if defined(__x86_64__)
DEFINE_BODY(fma8, AVX2, __m256, 8, _mm256_set1_ps, _mm256_fmadd_ps)
DEFINE_BODY(fma16, AVX512, __m512, 16, _mm512_set1_ps, _mm512_fmadd_ps)
DEFINE_KERNEL(fma8, AVX2, 3)
DEFINE_KERNEL(fma16, AVX512, 6)
static const isa avx2_isa = {8, 3, fma8};
static const isa avx512_isa = {16, 6, fma16};

/* Of words that are pairs of bf16: a float is moved, never computed with. */
DEFINE_BODY(dot16, AVX512_BF16, __m512, 16, _mm512_set1_ps, DOT)
DEFINE_KERNEL(dot16, AVX512_BF16, 6)
static const isa dot_isa = {16, 6, dot16};
#endif

static const isa *isa_of(const sparse_product *p)
{
#if defined(__x86_64__)
    if (p->bf16) {
        return &dot_isa;
    }
    if (p->level != VAE_CPU_BASELINE) {
        return p->level >= VAE_CPU_AVX512 ? &avx512_isa : &avx2_isa;
    }
#endif
    (void)p;
    return &plain_isa;
}

/* S: the operand with the zeros, (rows,k) or under TN (k,rows). D: the other one. Terms are words:
 * floats, or pairs of bf16. */
typedef struct {
    const sparse_product *p;
    const isa *isa;
    bool tn;
    size_t pair; /* terms in a word */
    const void *s, *d;
    size_t lds, ldd; /* in elements */
    size_t rows, k, k_step;
    /* What is summed now: rows of S from row0 on, D's columns, and words. */
    size_t row0, tiles, col0, cols, p0, p1;
    size_t row_tasks, col_tasks;
    bool packs;     /* D: else it is read where it lies */
    bool in_parts;  /* words are: sums lie in shared meanwhile */
    float *packed;  /* D's columns, strip after strip of (p1 - p0, a kernel's width) */
    float *partial; /* (blocks of k_step words, COLS): column sums of D, or NULL */
    task_room *rooms;
} job;

/* Vectors of the strip that begins where so many columns are left: as equal as can be. */
static size_t strip_vectors(const job *q, size_t left)
{
    const size_t vectors = ceil_div(left, q->isa->lanes);
    return ceil_div(vectors, ceil_div(vectors, q->isa->vectors));
}

/* Where columns of the i-th of all parts begin. */
static size_t part_column(const job *q, size_t i)
{
    const size_t vectors = ceil_div(q->cols, q->isa->lanes);
    return min_size(q->cols, part_begin(vectors, q->col_tasks, i) * q->isa->lanes);
}

/* ---- words of S ---- */

/* Appends a word of each row to the n that are there; returns how many there are then. */
INLINE size_t append(tile_terms *t, size_t n, size_t p, vec4 word)
{
    uint64_t half[2];
    memcpy(half, &word, sizeof half);
    *(vec4 *)(t->value + n * ROWS) = word;
    t->index[n] = (uint16_t)p;
    return n + ((half[0] | half[1]) != 0);
}

/* Words p0 .. p0+k-1 of ROWS rows of S, as far as there are. */
static void take_rows(tile_terms *t, const job *q, size_t row0, size_t p0, size_t k)
{
    static const float nothing[MOST_TERMS];
    const float *from[ROWS];
    for (size_t r = 0; r < ROWS; r++) {
        from[r] = row0 + r < q->rows ? (const float *)q->s + (row0 + r) * (q->lds / q->pair) + p0
                                     : nothing;
    }
    size_t p = 0, n = 0;
    for (; p + 4 <= k; p += 4) {
        vec4 word[4];
        UNROLL for (int r = 0; r < 4; r++)
        {
            word[r] = *(const vec4 *)(from[r] + p);
        }
        transpose_vec4(word);
        UNROLL for (size_t i = 0; i < 4; i++)
        {
            n = append(t, n, p + i, word[i]);
        }
    }
    for (; p < k; p++) {
        n = append(t, n, p, (vec4){from[0][p], from[1][p], from[2][p], from[3][p]});
    }
    t->n = n;
}

/* Word p of `rows` rows of S, which TN has beside each other from row0 on. */
INLINE vec4 word_of_columns(const job *q, int bf16, size_t p, size_t row0, size_t rows)
{
    if (!bf16) {
        const float *from = (const float *)q->s + p * q->lds + row0;
        vec4 word = {0};
        memcpy(&word, from, rows * sizeof *from);
        return word;
    }
    uint16_t first[ROWS] = {0}, second[ROWS] = {0};
    const uint16_t *from = (const uint16_t *)q->s + 2 * p * q->lds + row0;
    memcpy(first, from, rows * sizeof *from);
    if (2 * p + 1 < q->p->k) {
        memcpy(second, from + q->lds, rows * sizeof *from);
    }
    typedef uint16_t words __attribute__((vector_size(8)));
    typedef uint32_t pairs __attribute__((vector_size(16)));
    words low, high;
    memcpy(&low, first, sizeof low);
    memcpy(&high, second, sizeof high);
    const pairs both = __builtin_convertvector(low, pairs) | __builtin_convertvector(high, pairs)
                                                                 << 16;
    vec4 word;
    memcpy(&word, &both, sizeof word);
    return word;
}

INLINE void take_columns_of(tile_terms *t, const job *q, int bf16, size_t tiles, size_t row0,
                            size_t p0, size_t k)
{
    const size_t rows = min_size(q->rows - row0, tiles * ROWS), whole = rows / ROWS;
    const size_t line = bf16 ? 32 : 16, size = bf16 ? sizeof(uint16_t) : sizeof(float);
    for (size_t i = 0; i < tiles; i++) {
        t[i].n = 0;
    }
    for (size_t p = 0; p < k; p++) {
        for (size_t j = 0; j < rows && p + AHEAD < k; j += line) {
            const char *next =
                (const char *)q->s + ((p0 + p + AHEAD) * q->pair * q->lds + row0 + j) * size;
            __builtin_prefetch(next);
            if (bf16) {
                __builtin_prefetch(next + q->lds * size);
            }
        }
        for (size_t i = 0; i < whole; i++) {
            t[i].n =
                append(&t[i], t[i].n, p, word_of_columns(q, bf16, p0 + p, row0 + i * ROWS, ROWS));
        }
        if (whole < tiles) {
            t[whole].n =
                append(&t[whole], t[whole].n, p,
                       word_of_columns(q, bf16, p0 + p, row0 + whole * ROWS, rows - whole * ROWS));
        }
    }
}

/* The same as take_rows, of S as TN has it, for `tiles` tiles beside each other. */
static void take_columns(tile_terms *t, const job *q, size_t tiles, size_t row0, size_t p0,
                         size_t k)
{
    if (q->p->bf16) {
        take_columns_of(t, q, 1, tiles, row0, p0, k);
    } else {
        take_columns_of(t, q, 0, tiles, row0, p0, k);
    }
}

/* ---- words of D ---- */

static float *packed_strip(const job *q, size_t col, size_t width, size_t p0)
{
    return q->packed + col * (q->p1 - q->p0) + (p0 - q->p0) * width;
}

/* Words p0 .. p0+k-1 of a strip of `width` columns, of which `cols` are D's. */
static void pack_strip(const job *q, float *to, size_t width, size_t col, size_t cols, size_t p0,
                       size_t k)
{
    const size_t from = q->col0 + col;
    if (q->p->form == MATMUL_NT) {
        vae_cpu_pack_transposed(to, width, (const float *)q->d + from * (q->ldd / q->pair) + p0,
                                q->ldd / q->pair, cols, k, q->p->level);
    } else if (q->p->bf16) {
        const size_t terms = min_size(2 * k, q->p->k - 2 * p0);
        const uint16_t *d = (const uint16_t *)q->d + 2 * p0 * q->ldd + from;
        vae_cpu_pack_pairs(to, width, 32, d, q->ldd, cols, width, terms);
        for (size_t j = 0, some; q->partial != NULL && j < cols; j += some) {
            some = min_size(cols - j, SUMS);
            vae_cpu_kernels(q->p->level)
                ->column_sums_bf16(q->partial + (p0 - q->p0) / q->k_step * COLS + col + j, d + j,
                                   q->ldd, terms, some);
        }
    } else {
        vae_cpu_pack_rows(to, width, (const float *)q->d + p0 * q->ldd + from, q->ldd, cols, k);
    }
}

/* Items: strips of all columns of a task, those of the next, and so on; of all blocks. */
static void pack_strips(void *ctx, int thread, size_t first, size_t end)
{
    const job *q = ctx;
    size_t item = 0;
    (void)thread;
    for (size_t j = 0; j < q->col_tasks; j++) {
        const size_t right = part_column(q, j + 1);
        for (size_t col = part_column(q, j), width; col < right; col += width) {
            width = strip_vectors(q, right - col) * q->isa->lanes;
            for (size_t p0 = q->p0; p0 < q->p1; p0 += q->k_step, item++) {
                if (item >= first && item < end) {
                    pack_strip(q, packed_strip(q, col, width, p0), width, col,
                               min_size(right - col, width), p0, min_size(q->p1 - p0, q->k_step));
                }
            }
        }
    }
}

static size_t count_strips(const job *q, size_t left, size_t right)
{
    size_t n = 0;
    for (size_t col = left; col < right; n++) {
        col += strip_vectors(q, right - col) * q->isa->lanes;
    }
    return n;
}

/* ---- tasks ---- */

/* A part of C: what one thread does at a time, columns from `left` on of those that are summed. */
typedef struct {
    size_t row0, rows; /* of S */
    size_t left, right;
    float *sums; /* (rows,PITCH) */
} block;

/* C's rows from a block's sums; of bf16 what the epilogue makes of these, in tiles as matmul.h
 * promises them. */
static void put_rows(const job *q, const block *x)
{
    const size_t col0 = q->col0 + x->left, cols = x->right - x->left, ldc = q->p->ldc;
    float *c = x->sums + x->left;
    if (q->p->c == NULL) {
        for (size_t j = 0, some; j < cols; j += some) {
            some = min_size(cols - j, MATMUL_BF16_COLS);
            q->p->epilogue(q->p->ctx, c + j, PITCH, x->row0, col0 + j, x->rows, some);
        }
        return;
    }
    c = q->p->c + x->row0 * ldc + col0;
    for (size_t r = 0; r < x->rows; r++) {
        memcpy(c + r * ldc, x->sums + r * PITCH + x->left, cols * sizeof *c);
    }
    if (q->p->epilogue != NULL) {
        q->p->epilogue(q->p->ctx, c, ldc, x->row0, col0, x->rows, cols);
    }
}

/* C's columns, under TN. */
static void put_columns(const job *q, const block *x)
{
    const size_t col0 = q->col0 + x->left, cols = x->right - x->left, ldc = q->p->ldc;
    const float *sums = x->sums + x->left;
    float *c = q->p->c + col0 * ldc + x->row0;
    for (size_t i = 0; i < cols; i += 4) {
        for (size_t r = 0; r < x->rows; r += 4) {
            if (i + 4 <= cols && r + 4 <= x->rows) {
                transpose_4x4(c + i * ldc + r, ldc, sums + r * PITCH + i, PITCH);
                continue;
            }
            for (size_t j = i; j < min_size(cols, i + 4); j++) {
                for (size_t l = r; l < min_size(x->rows, r + 4); l++) {
                    c[j * ldc + l] = sums[l * PITCH + j];
                }
            }
        }
    }
    if (q->p->epilogue != NULL) {
        q->p->epilogue(q->p->ctx, c, ldc, col0, x->row0, cols, x->rows);
    }
}

/* Adds words p0 .. p0+k-1, which the room has, to a block's sums. */
static void add_terms(const job *q, const block *x, task_room *room, size_t p0, size_t k)
{
    const size_t lanes = q->isa->lanes;
    for (size_t col = x->left, width; col < x->right; col += width) {
        const size_t left = x->right - col;
        size_t vectors = strip_vectors(q, left), ldd = vectors * lanes;
        const float *d;
        if (q->packs) {
            d = packed_strip(q, col, ldd, p0);
        } else if (left < lanes) {
            pack_strip(q, room->edge, lanes, col, left, p0, k);
            d = room->edge;
        } else {
            vectors = min_size(vectors, left / lanes);
            ldd = q->ldd;
            d = (const float *)q->d + p0 * ldd + q->col0 + col;
        }
        width = vectors * lanes;
        for (size_t r = 0, i = 0; r < x->rows; r += ROWS, i++) {
            q->isa->kernel(vectors, &room->tile[i], d, ldd, x->sums + r * PITCH + col);
        }
    }
}

static void run_block(const job *q, const block *x, task_room *room)
{
    const size_t tiles = ceil_div(x->rows, ROWS);
    for (size_t r = 0; r < tiles * ROWS && q->p0 == 0; r++) {
        memset(x->sums + r * PITCH + x->left, 0,
               ceil_div(x->right - x->left, q->isa->lanes) * q->isa->lanes * sizeof(float));
    }
    for (size_t p0 = q->p0, k; p0 < q->p1; p0 += k) {
        k = min_size(q->p1 - p0, q->k_step);
        if (q->tn) {
            take_columns(room->tile, q, tiles, x->row0, p0, k);
        } else {
            for (size_t i = 0; i < tiles; i++) {
                take_rows(&room->tile[i], q, x->row0 + i * ROWS, p0, k);
            }
        }
        add_terms(q, x, room, p0, k);
    }
    if (q->p1 == q->k) {
        (q->tn ? put_columns : put_rows)(q, x);
    }
}

/* All rows of some columns, one after the other, or all columns of some rows. */
static void run_tasks(void *ctx, int thread, size_t first, size_t end)
{
    const job *q = ctx;
    task_room *room = q->rooms + thread;
    for (size_t task = first; task < end; task++) {
        const size_t i = task % q->row_tasks, j = task / q->row_tasks;
        const size_t tile1 = part_begin(q->tiles, q->row_tasks, i + 1);
        block x = {.left = part_column(q, j), .right = part_column(q, j + 1)};
        for (size_t tile = part_begin(q->tiles, q->row_tasks, i); tile < tile1; tile += TILES) {
            const size_t row = tile * ROWS;
            x.row0 = q->row0 + row;
            x.rows = min_size(q->rows - x.row0, min_size(tile1 - tile, TILES) * ROWS);
            x.sums = q->in_parts ? q->p->shared + row * PITCH : room->c;
            run_block(q, &x, room);
        }
    }
}

/* Whether three quarters of the words of tiles would be enough, by some of them. */
static bool mostly_zeros(const job *q)
{
    const size_t places = q->tn ? q->k : q->rows / ROWS;
    const size_t some = min_size(places, q->tn ? SAMPLED_WORDS : SAMPLED_TILES);
    size_t words = 0, most = 0;
    tile_terms *t = q->rooms->tile;
    for (size_t i = 0; i < some; i++) {
        const size_t at = part_begin(places, some, i);
        for (size_t j = 0, n; q->tn && j + ROWS <= q->rows; j += n * ROWS) {
            n = min_size((q->rows - j) / ROWS, TILES);
            take_columns(t, q, n, j, at, 1);
            for (size_t l = 0; l < n; l++) {
                words += t[l].n;
            }
            most += n;
        }
        for (size_t p0 = 0, n; !q->tn && p0 < q->k; p0 += n) {
            n = min_size(q->k - p0, q->k_step);
            take_rows(t, q, at * ROWS, p0, n);
            words += t->n;
            most += n;
        }
    }
    return words < most / 4 * 3;
}

/* Few rows of a batch: a thread has columns, as the optimizer's have weights. Many: a thread has
 * rows, which it had in the layers before. */
static void plan_tasks(job *q, size_t threads, size_t batch)
{
    const size_t vectors = ceil_div(q->cols, q->isa->lanes);
    if (batch <= MATMUL_FEW_ROWS && vectors >= 4 * threads) {
        q->row_tasks = 1;
        q->col_tasks = threads;
        return;
    }
    const size_t rounds = ceil_div(q->tiles, threads * TILES);
    q->row_tasks = min_size(rounds * threads, ceil_div(q->tiles, FEWEST_TILES));
    q->col_tasks = min_size(ceil_div(threads, q->row_tasks), vectors);
}

/* Adds the part's column sums of D to those before. */
static void add_sums(const job *q, double *total)
{
    for (size_t j = 0; j < q->cols; j++) {
        for (size_t p0 = q->p0; p0 < q->p1; p0 += q->k_step) {
            total[j] += (double)q->partial[(p0 - q->p0) / q->k_step * COLS + j];
        }
        q->p->sums[q->col0 + j] = (float)total[j];
    }
}

/* All words of the rows and columns that are summed now, `few` at a time. */
static void run_columns(job *q, size_t few)
{
    const int threads = q->p->threads;
    float partial[MOST_BLOCKS * COLS];
    double total[COLS] = {0};
    size_t strips = 0;
    for (size_t j = 0; q->packs && j < q->col_tasks; j++) {
        strips += count_strips(q, part_column(q, j), part_column(q, j + 1));
    }
    q->partial = q->p->sums != NULL && q->row0 == 0 ? partial : NULL;
    for (q->p0 = 0; q->p0 < q->k; q->p0 = q->p1) {
        q->p1 = min_size(q->k, q->p0 + few);
        if (q->packs) {
            vae_parallel(threads, strips * ceil_div(q->p1 - q->p0, q->k_step), 1, pack_strips, q);
        }
        if (q->partial != NULL) {
            add_sums(q, total);
        }
        vae_parallel(threads, q->row_tasks * q->col_tasks, 1, run_tasks, q);
    }
}

bool vae_cpu_sparse_product(const sparse_product *p)
{
    const bool tn = p->form == MATMUL_TN;
    const size_t pair = p->bf16 ? 2 : 1;
    job q = {.p = p,
             .isa = isa_of(p),
             .tn = tn,
             .pair = pair,
             .s = tn ? p->b : p->a,
             .d = tn ? p->a : p->b,
             .lds = tn ? p->ldb : p->lda,
             .ldd = tn ? p->lda : p->ldb,
             .rows = tn ? p->n : p->m,
             .k = ceil_div(p->k, pair),
             .k_step = p->k_step / pair,
             .packs = !tn || p->bf16,
             .packed = p->shared,
             .rooms = p->rooms};
    const size_t all = tn ? p->m : p->n, batch = tn ? p->k : p->m;
    if (p->threads < 1 || batch < FEWEST_ROWS || all < FEWEST_COLS ||
        p->m * p->n * p->k < LEAST_WORK || (!tn && q.k > SPARSE_SHARED / FEWEST_COLS) ||
        !mostly_zeros(&q)) {
        return false;
    }
    size_t few = q.k, fit = COLS, some = q.rows;
    if (tn) { /* the sums come first, what is packed behind them */
        few = PART_K / pair / q.k_step * q.k_step;
        some = SUMMED_ROWS;
        q.packed += SUMMED_ROWS * PITCH;
    } else {
        fit = min_size(COLS, SPARSE_SHARED / q.k / LANES * LANES);
    }
    q.in_parts = few < q.k;
    for (q.row0 = 0; q.row0 < q.rows; q.row0 += some) {
        q.tiles = ceil_div(min_size(q.rows - q.row0, some), ROWS);
        for (q.col0 = 0; q.col0 < all; q.col0 += q.cols) {
            q.cols = min_size(all - q.col0, fit);
            plan_tasks(&q, (size_t)p->threads, batch);
            run_columns(&q, few);
        }
    }
    return true;
}

size_t vae_cpu_sparse_room(int threads)
{
    return (threads > 1 ? (size_t)threads : 1) * sizeof(task_room);
}
