/* Convolutions of 4 x 4 kernels and stride 2 with 9/16 of the multiplications (Winograd's F(2,2)).
 *
 * Big pixels that the places (fy + 2t, fx + 2u) of the kernel meet, t, u = 0, 1, are a picture of
 * their own: a phase, f = 2 fy + fx of four, in which the kernel is a 2 x 2 one of stride 1. In it,
 * along one axis, two neighbouring sums of two products
 *     y0 = d0 g0 + d1 g1,  y1 = d1 g0 + d2 g1
 * are three products:
 *     m0 = (d0 - d1) g0,  m1 = d1 (g0 + g1),  m2 = (d1 - d2) g1;  y0 = m0 + m1,  y1 = m1 - m2.
 * Along both axes 3 x 3 pixels d (a window) and 2 x 2 weights g (a filter) give 2 x 2 sums (a tile)
 * by 9 products for 16, at 9 points. No factor but 1 and -1 is in it: errors stay those of fp32
 * sums. Each point is a product of matrices of its own:
 *   small from big   rows: tiles of the small picture; k: (phase, channel of the big one); of the
 *                    sums over k the 4 results
 *   big from small   the same for each phase of the big picture; k: channels of the small one; the
 *                    weights' places in descending order, as small coordinates ascend
 *   weight           the weight's 2 x 2 places of a phase are what is made, a tile of the small
 *                    picture is the filter, the window that of `small from big`; k: tiles of all
 *                    examples
 * Windows are transformed for a block of tiles that stays in L2, never for a whole picture. A value
 * depends on its example alone (but for the weight's), its bits not on how tiles are shared out. */
#include <string.h>

#include "backend/cpu/conv.h"
#include "backend/cpu/microkernels.h"
#include "backend/cpu/pack.h"
#include "backend/cpu/sizes.h"

enum {
    PANEL = MATMUL_PANEL,
    POINTS = 9,
    PHASES = 4,
    BLOCK_FLOATS = 48 << 10, /* of transformed windows: 192 KB of L2, beside weights */
    BLOCK_TILES = 144,       /* at most, in a block */
    SUMS_POINT = BLOCK_TILES * PANEL + 16,
    LEAST_CHANNELS = 8,
    FETCH_AHEAD = 2, /* tiles */
    CHUNK = 256,     /* channels transformed at a time */
    SUM_TILES = 192, /* tiles of a block of the weight's sums: decides the bits */
    SUM_ROWS = 128,  /* and the weight's rows and columns of a task */
    SUM_COLS = 128,
    SUM_PANEL = SUM_TILES * PANEL + 16,
    APART = 16, /* floats beside a power of two, lest what is used at once share a cache's lines */
};

static const float zeros[CHUNK];

bool vae_cpu_winograd_fits(vae_conv g)
{
    return g.kernel == 4 && g.stride == 2 && g.parts == 1 && g.C % LEAST_CHANNELS == 0;
}

/* Scratch: the weights' transform, or sums of the weight's gradient, which all threads share; then
 * a room for each thread. */
static size_t shared_floats(vae_conv g)
{
    const size_t by_small = g.C * ceil_div(g.c, PANEL), by_big = g.c * ceil_div(g.C, PANEL);
    const size_t filters = (by_small > by_big ? by_small : by_big) * PANEL + APART;
    const size_t sums = g.c * (PHASES * g.C + APART);
    return POINTS * (PHASES * filters > sums ? PHASES * filters : sums);
}

/* Tiles that are made at a time from windows of k values each, lda apart. */
static size_t block_of(size_t lda)
{
    const size_t n = min_size(BLOCK_FLOATS / POINTS / lda, BLOCK_TILES);
    return n >= 12 ? n / 12 * 12 : n + (n == 0);
}

static size_t room_floats(vae_conv g)
{
    const size_t small = PHASES * g.C + APART, big = g.c + APART;
    const size_t windows = block_of(small) * small, of_big = block_of(big) * big;
    const size_t make = POINTS * ((windows > of_big ? windows : of_big) + SUMS_POINT);
    const size_t weigh = 3 * (SUM_ROWS + SUM_COLS) / PANEL * SUM_PANEL;
    return make > weigh ? make : weigh;
}

static size_t winograd_bytes(vae_conv g, int threads)
{
    return (shared_floats(g) + (size_t)threads * room_floats(g)) * sizeof(float);
}

typedef struct {
    const float *data;
    size_t ld, H, W, C;
} pictures;

/* d: pointers to channel ch of the side x side pixels (y + i*step, x + j*step) of one picture. */
static inline void pixels_at(const float **d, size_t side, const pictures *p, size_t picture,
                             ptrdiff_t y, ptrdiff_t x, size_t step, size_t ch)
{
    for (size_t i = 0; i < side; i++, y += (ptrdiff_t)step) {
        const bool inside = y >= 0 && y < (ptrdiff_t)p->H;
        const float *line =
            inside ? p->data + picture * p->ld + (size_t)y * p->W * p->C + ch : zeros;
        for (size_t j = 0; j < side; j++) {
            const ptrdiff_t at = x + (ptrdiff_t)(j * step);
            *d++ = inside && at >= 0 && at < (ptrdiff_t)p->W ? line + (size_t)at * p->C : zeros;
        }
    }
}

/* Fetches what tile `tile` of tx by ty a picture brings: step x step pixels, but for an edge that
 * its neighbours have. */
static inline void fetch_tile(const pictures *p, size_t tile, size_t tx, size_t ty, size_t step)
{
    const size_t J = tile % tx, I = tile / tx % ty, x = J * step + 1;
    const float *picture = p->data + tile / tx / ty * p->ld;
    for (size_t y = I * step + 1; y <= (I + 1) * step && y < p->H; y++) {
        const float *line = picture + (y * p->W + x) * p->C;
        for (size_t i = 0; i < step * p->C; i += 16) {
            __builtin_prefetch(line + i);
        }
    }
}

/* ---- one side's pictures from the other's ---- */

/* What is made at once: of `windows` windows a tile, side by side in k. */
typedef struct {
    size_t windows;
    ptrdiff_t y[PHASES], x[PHASES]; /* of the first tile's windows */
    size_t out_y, out_x;            /* of the first tile's first pixel */
    const float *u;                 /* [point][panel of n][k][PANEL], points u_point apart */
} pass;

typedef struct {
    cpu_backend *be;
    const conv_out *e;
    pictures from;
    size_t in_step, tile_step; /* from pixel to pixel of a window, from tile to tile */
    size_t H, W, out_step;     /* of the pictures made; from pixel to pixel of a tile */
    size_t ty, tx, tiles;      /* a picture's, and all */
    size_t k, n;
    size_t lda, point, u_point;         /* of windows; of the weights' points */
    size_t block, groups, group_panels; /* a task: so many tiles, so many of n's panels */
    float *room;                        /* each thread's, room_floats apart */
    size_t room_floats;
    vae_conv g;
    const float *w;
    size_t ldw;
    float *u; /* all of the weights' transform */
    size_t n_passes;
    pass passes[PHASES];
} making;

static void transform_windows(const making *m, const pass *p, float *to, size_t first, size_t n)
{
    const size_t C = m->from.C, step = m->tile_step;
    for (size_t t = 0; t < n; t++, to += m->lda) {
        const size_t J = (first + t) % m->tx, I = (first + t) / m->tx % m->ty;
        const size_t picture = (first + t) / m->tx / m->ty;
        if (t + FETCH_AHEAD < n) {
            fetch_tile(&m->from, first + t + FETCH_AHEAD, m->tx, m->ty, step);
        }
        for (size_t f = 0; f < p->windows; f++) {
            for (size_t ch = 0; ch < C; ch += CHUNK) {
                const float *d[9];
                pixels_at(d, 3, &m->from, picture, p->y[f] + (ptrdiff_t)(I * step),
                          p->x[f] + (ptrdiff_t)(J * step), m->in_step, ch);
                m->be->k->window_9(to + f * C + ch, m->point, d, min_size(C - ch, CHUNK),
                                   ALL_LINES);
            }
        }
    }
}

/* sums: [point][block tiles][PANEL] of columns col0 .. of n tiles. */
static void put_results(const making *m, const pass *p, const float *sums, size_t first, size_t n,
                        size_t col0)
{
    const size_t cols = min_size(m->n - col0, PANEL), C = m->n, stride = m->out_step * C;
    for (size_t t = 0, run; t < n; t += run) { /* of tiles side by side */
        const size_t J = (first + t) % m->tx, I = (first + t) / m->tx % m->ty;
        const size_t picture = (first + t) / m->tx / m->ty;
        run = min_size(n - t, m->tx - J);
        const size_t y = p->out_y + 2 * I * m->out_step, x = p->out_x + 2 * J * m->out_step;
        const size_t at = picture * m->e->ld + (y * m->W + x) * C + col0;
        const bool two = y + m->out_step < m->H;
        if (y >= m->H || x >= m->W) {
            continue;
        }
        for (size_t i = 0; i < run; i++) {
            float nowhere[3][PANEL];
            float *to = m->e->to + at + 2 * i * stride, *below = to + m->out_step * m->W * C;
            const bool wide = x + (2 * i + 1) * m->out_step < m->W;
            if (x + 2 * i * m->out_step >= m->W) {
                break;
            }
            float *const four[4] = {to, wide ? to + stride : nowhere[0], two ? below : nowhere[1],
                                    two && wide ? below + stride : nowhere[2]};
            m->be->k->results_4(four, sums + (t + i) * PANEL, SUMS_POINT, cols);
        }
        const size_t pixels = min_size(2 * run, ceil_div(m->W - x, m->out_step));
        vae_conv_finish(m->e, at, stride, pixels, col0, cols);
        if (two) {
            vae_conv_finish(m->e, at + m->out_step * m->W * C, stride, pixels, col0, cols);
        }
    }
}

static void make_block(const making *m, size_t task, float *room)
{
    float *sums = room, *windows = room + POINTS * SUMS_POINT;
    const size_t panels = ceil_div(m->n, PANEL), k = m->k;
    const size_t panel0 = task % m->groups * m->group_panels;
    const size_t panel1 = min_size(panels, panel0 + m->group_panels);
    const size_t first = task / m->groups * m->block, n = min_size(m->tiles - first, m->block);
    for (size_t i = 0; i < m->n_passes; i++) {
        const pass *p = &m->passes[i];
        transform_windows(m, p, windows, first, n);
        for (size_t panel = panel0; panel < panel1; panel++) {
            for (size_t point = 0; point < POINTS; point++) {
                vae_cpu_panel_product(0, sums + point * SUMS_POINT, PANEL,
                                      windows + point * m->point, m->lda,
                                      p->u + point * m->u_point + panel * k * PANEL, PANEL, n,
                                      min_size(m->n - panel * PANEL, PANEL), k, 0, m->be->level);
            }
            put_results(m, p, sums, first, n, panel * PANEL);
        }
    }
}

static void make_blocks(void *ctx, int thread, size_t first, size_t end)
{
    const making *m = ctx;
    for (size_t task = first; task < end; task++) {
        make_block(m, task, m->room + (size_t)thread * m->room_floats);
    }
}

/* e: pointers to the 2 x 2 places of phase f in one row of the weight, from channel ch on,
 * ascending or descending. */
static void places_of(const float **e, const float *row, size_t f, size_t C, size_t ch,
                      int descending)
{
    for (size_t i = 0; i < 4; i++) {
        const size_t t = descending ? 3 - i : i;
        e[i] = row + ((f / 2 + t / 2 * 2) * 4 + f % 2 + t % 2 * 2) * C + ch;
    }
}

/* u: [point][panel of c][(phase, channel)][PANEL], columns beyond c 0; of one phase and panel. */
static void filters_to_small(const making *m, size_t f, size_t panel)
{
    const vae_conv g = m->g;
    float of_rows[POINTS * PANEL * CHUNK];
    const size_t k = m->k, rows = min_size(g.c - panel * PANEL, PANEL);
    for (size_t ch = 0; ch < g.C; ch += CHUNK) {
        const size_t n = min_size(g.C - ch, CHUNK);
        for (size_t o = 0; o < rows; o++) {
            const float *e[4];
            places_of(e, m->w + (panel * PANEL + o) * m->ldw, f, g.C, ch, 0);
            m->be->k->filter_9(of_rows + o * CHUNK, PANEL * CHUNK, e, n, ALL_LINES);
        }
        for (size_t p = 0; p < POINTS; p++) {
            vae_cpu_pack_transposed(m->u + p * m->u_point + (panel * k + f * g.C + ch) * PANEL,
                                    PANEL, of_rows + p * PANEL * CHUNK, CHUNK, rows, n,
                                    m->be->level);
        }
    }
}

/* u: [phase][point][panel of C][c][PANEL]; of one phase and row. */
static void filters_to_big(const making *m, size_t f, size_t o)
{
    const vae_conv g = m->g;
    for (size_t panel = 0; panel < ceil_div(g.C, PANEL); panel++) {
        const float *e[4];
        places_of(e, m->w + o * m->ldw, f, g.C, panel * PANEL, 1);
        m->be->k->filter_9(m->u + f * POINTS * m->u_point + (panel * g.c + o) * PANEL, m->u_point,
                           e, min_size(g.C - panel * PANEL, PANEL), ALL_LINES);
    }
}

static void to_small(void *ctx, int thread, size_t first, size_t end)
{
    (void)thread;
    for (size_t i = first; i < end; i++) {
        filters_to_small(ctx, i % PHASES, i / PHASES);
    }
}

static void to_big(void *ctx, int thread, size_t first, size_t end)
{
    const making *m = ctx;
    (void)thread;
    for (size_t i = first; i < end; i++) {
        filters_to_big(m, i / m->g.c, i % m->g.c);
    }
}

static making plan_making(cpu_backend *be, const conv_out *e, int big, vae_mat from, const float *w,
                          size_t ldw, size_t rows, vae_conv g, float *scratch)
{
    const ptrdiff_t pad = (ptrdiff_t)g.pad;
    making m = {.be = be,
                .e = e,
                .g = g,
                .w = w,
                .ldw = ldw,
                .u = scratch,
                .room = scratch + shared_floats(g),
                .room_floats = room_floats(g)};
    if (big) {
        m.from = (pictures){from.data, from.ld, g.h, g.w, g.c};
        m.in_step = 1, m.tile_step = 2, m.out_step = 2;
        m.H = g.H, m.W = g.W, m.k = g.c, m.n = g.C, m.n_passes = PHASES;
        m.u_point = ceil_div(m.n, PANEL) * m.k * PANEL + APART;
        /* pixel y meets fy + 2t with (y + pad - fy) / 2 - t */
        for (size_t f = 0; f < PHASES; f++) {
            pass *p = &m.passes[f];
            const size_t fy = f / 2, fx = f % 2;
            p->windows = 1;
            p->out_y = (fy + g.pad) % 2, p->out_x = (fx + g.pad) % 2;
            p->y[0] = (ptrdiff_t)(p->out_y + g.pad - fy) / 2 - 1;
            p->x[0] = (ptrdiff_t)(p->out_x + g.pad - fx) / 2 - 1;
            p->u = m.u + f * POINTS * m.u_point;
        }
    } else {
        pass *p = m.passes;
        m.from = (pictures){from.data, from.ld, g.H, g.W, g.C};
        m.in_step = 2, m.tile_step = 4, m.out_step = 1;
        m.H = g.h, m.W = g.w, m.k = PHASES * g.C, m.n = g.c, m.n_passes = 1;
        m.u_point = ceil_div(m.n, PANEL) * m.k * PANEL + APART;
        *p = (pass){.windows = PHASES, .u = m.u};
        for (size_t f = 0; f < PHASES; f++) {
            p->y[f] = (ptrdiff_t)(f / 2) - pad;
            p->x[f] = (ptrdiff_t)(f % 2) - pad;
        }
    }
    m.ty = ceil_div(ceil_div(m.H, m.out_step), 2);
    m.tx = ceil_div(ceil_div(m.W, m.out_step), 2);
    m.tiles = rows * m.ty * m.tx;
    m.lda = m.k + APART;
    m.block = block_of(m.lda);
    m.point = m.block * m.lda;
    /* as many tasks as keep the threads busy; a group transforms its windows anew */
    m.block = ceil_div(m.tiles, ceil_div(m.tiles, m.block)); /* no small one at the end */
    const size_t blocks = ceil_div(m.tiles, m.block), panels = ceil_div(m.n, PANEL);
    m.groups = min_size(ceil_div(3 * (size_t)be->threads, blocks), ceil_div(panels, 2));
    m.group_panels = ceil_div(panels, m.groups);
    m.groups = ceil_div(panels, m.group_panels);
    return m;
}

static void winograd_make(cpu_backend *be, const conv_out *e, int big, vae_mat from, const float *w,
                          size_t ldw, size_t rows, vae_conv g, float *scratch)
{
    if (rows == 0) {
        return;
    }
    making m = plan_making(be, e, big, from, w, ldw, rows, g, scratch);
    const size_t tasks = ceil_div(m.tiles, m.block) * m.groups;
    if (big) {
        vae_cpu_parallel(be, PHASES * g.c, POINTS * g.C, to_big, &m);
    } else {
        vae_cpu_parallel(be, PHASES * ceil_div(g.c, PANEL), POINTS * PANEL * g.C, to_small, &m);
    }
    vae_cpu_parallel(be, tasks, m.tiles * m.k * m.n, make_blocks, &m);
}

/* ---- the weight's gradient ---- */

typedef struct {
    cpu_backend *be;
    pictures big, small;
    vae_conv g;
    size_t ty, tx, tiles;
    size_t row_step, row_tasks, col_step, col_tasks;
    float *sums; /* [point][c][(phase, channel)], APART */
    float *room; /* each thread's, room_floats apart */
    size_t room_floats;
    float *dw;
    size_t ldw;
} weighing;

/* to: [point of the line][panel of columns][SUM_TILES][PANEL]: columns col0 .. col1-1, (phase,
 * channel), of n tiles' windows; or channels of their filters. */
static void weight_operand(const weighing *q, float *to, int windows, size_t line, size_t first,
                           size_t n, size_t col0, size_t col1)
{
    const size_t point = ceil_div(col1 - col0, PANEL) * SUM_PANEL;
    const size_t C = windows ? q->g.C : q->g.c;
    const ptrdiff_t pad = (ptrdiff_t)q->g.pad;
    for (size_t t = 0; t < n; t++) {
        const size_t J = (first + t) % q->tx, I = (first + t) / q->tx % q->ty;
        const size_t picture = (first + t) / q->tx / q->ty;
        if (t + FETCH_AHEAD < n) {
            fetch_tile(windows ? &q->big : &q->small, first + t + FETCH_AHEAD, q->tx, q->ty,
                       windows ? 4 : 2);
        }
        for (size_t col = col0, cols; col < col1; col += cols) {
            const size_t at = col - col0, f = col / C, ch = col % C;
            const float *d[9];
            float *out = to + at / PANEL * SUM_PANEL + t * PANEL + at % PANEL;
            cols = min_size(min_size(C - ch, PANEL - at % PANEL), col1 - col);
            if (windows) {
                pixels_at(d, 3, &q->big, picture, (ptrdiff_t)(4 * I + f / 2) - pad,
                          (ptrdiff_t)(4 * J + f % 2) - pad, 2, ch);
                q->be->k->window_9(out, point, d, cols, (int)line);
            } else {
                pixels_at(d, 2, &q->small, picture, (ptrdiff_t)(2 * I), (ptrdiff_t)(2 * J), 1, ch);
                q->be->k->filter_9(out, point, d, cols, (int)line);
            }
        }
    }
}

/* The sums of the three points of a line, of some rows and columns. */
static void weigh(const weighing *q, size_t task, float *room)
{
    float *filters = room, *windows = room + 3 * SUM_ROWS / PANEL * SUM_PANEL;
    const size_t col_task = task % q->col_tasks, row_task = task / q->col_tasks % q->row_tasks;
    const size_t line = task / q->col_tasks / q->row_tasks, N = PHASES * q->g.C, ldc = N + APART;
    const size_t row0 = row_task * q->row_step, row1 = min_size(q->g.c, row0 + q->row_step);
    const size_t col0 = col_task * q->col_step, col1 = min_size(N, col0 + q->col_step);
    for (size_t first = 0; first < q->tiles; first += SUM_TILES) {
        const size_t n = min_size(q->tiles - first, SUM_TILES);
        weight_operand(q, filters, 0, line, first, n, row0, row1);
        weight_operand(q, windows, 1, line, first, n, col0, col1);
        for (size_t p = 0; p < 3; p++) {
            const float *a = filters + p * ceil_div(row1 - row0, PANEL) * SUM_PANEL;
            const float *b = windows + p * ceil_div(col1 - col0, PANEL) * SUM_PANEL;
            for (size_t col = col0; col < col1; col += PANEL, b += SUM_PANEL) {
                for (size_t row = row0; row < row1; row += PANEL) {
                    vae_cpu_panel_product(1, q->sums + ((3 * line + p) * q->g.c + row) * ldc + col,
                                          ldc, a + (row - row0) / PANEL * SUM_PANEL, PANEL, b,
                                          PANEL, min_size(row1 - row, PANEL),
                                          min_size(col1 - col, PANEL), n, first > 0, q->be->level);
                }
            }
        }
    }
}

static void weigh_all(void *ctx, int thread, size_t first, size_t end)
{
    const weighing *q = ctx;
    for (size_t task = first; task < end; task++) {
        weigh(q, task, q->room + (size_t)thread * q->room_floats);
    }
}

static void put_weights(void *ctx, int thread, size_t first, size_t end)
{
    const weighing *q = ctx;
    const size_t C = q->g.C, ldc = PHASES * C + APART;
    (void)thread;
    for (size_t i = first; i < end; i++) {
        const float *e[4];
        float *four[4];
        const size_t o = i / PHASES, f = i % PHASES;
        places_of(e, q->dw, f, C, 0, 0);
        for (size_t t = 0; t < 4; t++) {
            four[t] = q->dw + (e[t] - q->dw) + o * q->ldw;
        }
        q->be->k->results_4(four, q->sums + o * ldc + f * C, q->g.c * ldc, C);
    }
}

static void winograd_weight(cpu_backend *be, float *dw, size_t ldw, vae_mat big, vae_mat small,
                            size_t rows, vae_conv g, float *scratch)
{
    weighing q = {.be = be,
                  .big = {big.data, big.ld, g.H, g.W, g.C},
                  .small = {small.data, small.ld, g.h, g.w, g.c},
                  .g = g,
                  .ty = ceil_div(g.h, 2),
                  .tx = ceil_div(g.w, 2),
                  .sums = scratch,
                  .room = scratch + shared_floats(g),
                  .room_floats = room_floats(g),
                  .dw = dw,
                  .ldw = ldw};
    const size_t N = PHASES * g.C;
    q.tiles = rows * q.ty * q.tx;
    q.row_step = SUM_ROWS;
    q.row_tasks = ceil_div(g.c, q.row_step);
    for (q.col_step = SUM_COLS;; q.col_step /= 2) {
        q.col_tasks = ceil_div(N, q.col_step);
        if (q.row_tasks * q.col_tasks >= (size_t)be->threads || q.col_step == PANEL) {
            break;
        }
    }
    const size_t tasks = 3 * q.row_tasks * q.col_tasks;
    vae_cpu_parallel(be, tasks, q.tiles * g.c * N / q.row_tasks / q.col_tasks, weigh_all, &q);
    vae_cpu_parallel(be, g.c * PHASES, POINTS * g.C, put_weights, &q);
}

const conv_way vae_cpu_winograd = {winograd_bytes, winograd_make, winograd_weight};
