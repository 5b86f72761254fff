/* The built-in data set: digits drawn as pen strokes. All arithmetic is on integers, so the bytes
 * are the same on every machine, with every compiler and any number of threads; the one square
 * root is IEEE's, which is exact to the last bit everywhere. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/pool.h"
#include "dataset/readers.h"
#include "philox.h"

enum {
    SIDE = VAE_DIGITS_SIDE,
    N_PIXELS = SIDE * SIDE,
    N_TRAIN = 60000,
    N_TEST = 10000,
    N_CLASSES = 10,
    ONE = 1 << 16,       /* 1.0 in the 16.16 fixed point of shapes and factors */
    PIXEL = 1 << 10,     /* a pixel in the finer steps of curves */
    MAX_POINTS = 2048,   /* of a flattened glyph; the longest takes about 400 */
    STEP = PIXEL / 5,    /* distance of the points of a flattened curve, at most */
    RIM = PIXEL * 9 / 8, /* width of the ramp from ink to paper */
    SEED = 20140119,     /* fixes the set; changing it changes every recorded result */
    /* Purposes of random streams below 64 are philox.h's. */
    RNG_SAMPLE = 64,
    RNG_ORDER = 65,
};

enum {
    FACTOR_DIGIT,
    FACTOR_STYLE,
    FACTOR_ROTATION,
    FACTOR_SLANT,
    FACTOR_SCALE_X,
    FACTOR_SCALE_Y,
    FACTOR_THICKNESS,
    FACTOR_OFFSET_X,
    FACTOR_OFFSET_Y,
};

static const char *const factor_names[VAE_DIGITS_FACTORS] = {"digit",     "style",    "rotation",
                                                             "slant",     "scale_x",  "scale_y",
                                                             "thickness", "offset_x", "offset_y"};

typedef struct {
    int32_t x, y;
} point;

/* ---- random numbers ---- */

typedef struct {
    uint64_t stream, block;
    vae_philox_words words;
    unsigned used;
} rng;

static rng rng_start(uint32_t purpose, vae_split split, uint64_t index)
{
    return (rng){.stream = vae_rng_stream(purpose, (uint64_t)split << 48 | index), .used = 4};
}

static uint32_t rng_word(rng *r)
{
    if (r->used == 4) {
        r->words = vae_philox(SEED, r->stream, r->block++);
        r->used = 0;
    }
    return r->words.w[r->used++];
}

/* Uniform in [low, high). */
static int32_t rng_uniform(rng *r, int32_t low, int32_t high)
{
    return low + (int32_t)((uint64_t)rng_word(r) * (uint32_t)(high - low) >> 32);
}

/* Triangular on (low, high): like handwriting, the middle is commoner than the ends. */
static int32_t rng_triangular(rng *r, int32_t low, int32_t high)
{
    return (rng_uniform(r, low, high) + rng_uniform(r, low, high)) / 2;
}

/* ---- fixed point ---- */

/* a*b for 16.16 numbers. Division, not shift: its rounding of negatives is defined. */
static int32_t fixed_mul(int32_t a, int32_t b)
{
    return (int32_t)((int64_t)a * b / ONE);
}

/* sin and cos of |angle| < 0.5 radians by Taylor's series, to the last of 16 bits. */
static void fixed_sincos(int32_t angle, int32_t *sine, int32_t *cosine)
{
    int32_t square = fixed_mul(angle, angle);
    int32_t fourth = fixed_mul(square, square);
    *sine = angle - fixed_mul(angle, square) / 6 + fixed_mul(angle, fourth) / 120;
    *cosine = ONE - square / 2 + fourth / 24 - fixed_mul(square, fourth) / 720;
}

/* ---- shape ---- */

/* How one sample is written; 16.16 fixed point. */
typedef struct {
    uint8_t digit;
    size_t style;
    int32_t rotation;           /* radians, clockwise on the picture */
    int32_t slant;              /* to the right, width by height */
    int32_t scale_x, scale_y;   /* 1 is the usual size */
    int32_t thickness;          /* of the pen, pixels */
    int32_t offset_x, offset_y; /* pixels from the middle */
    int32_t bend[2][4];         /* smooth bending, see bend_node */
} pose;

static pose draw_pose(rng *r, uint8_t digit)
{
    pose p = {.digit = digit};
    p.style = (size_t)rng_uniform(r, 0, (int32_t)vae_glyph_styles(digit));
    p.rotation = rng_triangular(r, -ONE * 24 / 100, ONE * 24 / 100);
    p.slant = rng_triangular(r, -ONE * 30 / 100, ONE * 70 / 100);
    p.scale_x = rng_triangular(r, ONE * 72 / 100, ONE * 128 / 100);
    p.scale_y = rng_triangular(r, ONE * 84 / 100, ONE * 110 / 100);
    p.thickness = rng_triangular(r, ONE * 13 / 10, ONE * 36 / 10);
    p.offset_x = rng_uniform(r, -ONE * 15 / 10, ONE * 15 / 10);
    p.offset_y = rng_uniform(r, -ONE * 15 / 10, ONE * 15 / 10);
    for (size_t axis = 0; axis < 2; axis++) {
        for (size_t i = 0; i < 4; i++) {
            p.bend[axis][i] = rng_triangular(r, -12 * ONE, 12 * ONE);
        }
    }
    return p;
}

/* A node of the glyph, bent and wobbled, in 16.16 units around the middle of the box. The bending
 * is a low polynomial of the place, so that it is smooth over the whole digit and strokes that
 * touch still do; the wobble is each node's own. */
static point bend_node(const pose *p, vae_glyph_node node, rng *r)
{
    int32_t u = (node.x - 50) * (ONE / 50), v = (node.y - 50) * (ONE / 50);
    int32_t uu = fixed_mul(u, u), vv = fixed_mul(v, v);
    const int32_t terms[4] = {fixed_mul(u, v), uu - ONE / 3, vv - ONE / 3, fixed_mul(vv, v) - v};
    int32_t shift[2];
    for (size_t axis = 0; axis < 2; axis++) {
        shift[axis] = rng_triangular(r, -4 * ONE, 4 * ONE);
        for (size_t i = 0; i < 4; i++) {
            shift[axis] += fixed_mul(p->bend[axis][i], terms[i]);
        }
    }
    return (point){(node.x - 50) * ONE + shift[0], (node.y - 50) * ONE + shift[1]};
}

/* Slant, scale, rotation: from 16.16 units to 1/PIXEL pixels. */
static point place(const pose *p, point q)
{
    int32_t sine, cosine;
    fixed_sincos(p->rotation, &sine, &cosine);
    int32_t slanted = q.x - fixed_mul(p->slant, q.y);
    /* A glyph is 18 pixels high where the scale is 1, which with the pen's width fills the 20
     * pixels that MNIST's digits have. 16.16 units to 1/PIXEL pixels: 18/100 * PIXEL / ONE. */
    int32_t x = fixed_mul(slanted, p->scale_x) / 100 * 18 / (ONE / PIXEL);
    int32_t y = fixed_mul(q.y, p->scale_y) / 100 * 18 / (ONE / PIXEL);
    return (point){fixed_mul(x, cosine) - fixed_mul(y, sine),
                   fixed_mul(x, sine) + fixed_mul(y, cosine)};
}

/* ---- curves ---- */

typedef struct {
    size_t n;
    point points[MAX_POINTS];
} path;

static point point_sub(point a, point b)
{
    return (point){a.x - b.x, a.y - b.y};
}

/* Adds the cubic from a to b with tangents s and t (Hermite), in steps short enough that their
 * dots run into one line; b itself is left to the next curve. */
static void add_curve(path *out, point a, point b, point s, point t)
{
    point chord = point_sub(b, a);
    int32_t span = abs(chord.x) + abs(chord.y) + (abs(s.x) + abs(s.y) + abs(t.x) + abs(t.y)) / 4;
    int64_t n = span / STEP + 1;
    for (int64_t i = 0; i < n && out->n < MAX_POINTS; i++) {
        int64_t j = n - i, cube = n * n * n;
        /* Hermite's basis with parameter i/n, times n^3 */
        int64_t wa = j * j * (n + 2 * i), wb = i * i * (n + 2 * j), ws = i * j * j, wt = -i * i * j;
        out->points[out->n].x = (int32_t)((wa * a.x + wb * b.x + ws * s.x + wt * t.x) / cube);
        out->points[out->n].y = (int32_t)((wa * a.y + wb * b.y + ws * s.y + wt * t.y) / cube);
        out->n++;
    }
}

/* Tangent at an end of a smooth run: the one that leaves the curve straight there, given the
 * chord from the end and the tangent at its other side. */
static point end_tangent(point chord, point other)
{
    return (point){(3 * chord.x - other.x) / 2, (3 * chord.y - other.y) / 2};
}

/* Adds a smooth curve (Catmull-Rom) through q[0..n-1]; n >= 1. */
static void add_smooth_run(path *out, const point *q, size_t n)
{
    point tangents[VAE_GLYPH_MAX_NODES];
    for (size_t i = 1; i + 1 < n; i++) {
        point across = point_sub(q[i + 1], q[i - 1]);
        tangents[i] = (point){across.x / 2, across.y / 2};
    }
    if (n == 2) {
        tangents[0] = tangents[1] = point_sub(q[1], q[0]);
    } else if (n > 2) {
        tangents[0] = end_tangent(point_sub(q[1], q[0]), tangents[1]);
        tangents[n - 1] = end_tangent(point_sub(q[n - 1], q[n - 2]), tangents[n - 2]);
    }
    for (size_t i = 0; i + 1 < n; i++) {
        add_curve(out, q[i], q[i + 1], tangents[i], tangents[i + 1]);
    }
    if (out->n < MAX_POINTS) {
        out->points[out->n++] = q[n - 1];
    }
}

static void flatten(path *out, const pose *p, rng *r)
{
    vae_glyph glyph = vae_glyph_get(p->digit, p->style);
    point q[VAE_GLYPH_MAX_NODES];
    for (size_t i = 0; i < glyph.n_nodes; i++) {
        q[i] = place(p, bend_node(p, glyph.nodes[i], r));
    }
    out->n = 0;
    size_t first = 0;
    for (size_t i = 1; i <= glyph.n_nodes; i++) {
        uint8_t kind = i < glyph.n_nodes ? glyph.nodes[i].kind : VAE_NODE_START;
        if (kind == VAE_NODE_CORNER) {
            add_smooth_run(out, q + first, i - first + 1);
            first = i;
        } else if (kind == VAE_NODE_START) {
            add_smooth_run(out, q + first, i - first);
            first = i;
        }
    }
}

/* Puts the middle of the path's box into the middle of the picture, plus the offset: whatever the
 * digit's shape, the offset factors are where it lies. */
static void centre(path *line, const pose *p)
{
    point low = {INT32_MAX, INT32_MAX}, high = {INT32_MIN, INT32_MIN};
    for (size_t i = 0; i < line->n; i++) {
        point q = line->points[i];
        low.x = q.x < low.x ? q.x : low.x;
        low.y = q.y < low.y ? q.y : low.y;
        high.x = q.x > high.x ? q.x : high.x;
        high.y = q.y > high.y ? q.y : high.y;
    }
    int32_t dx = SIDE * PIXEL / 2 - (low.x + high.x) / 2 + p->offset_x / (ONE / PIXEL);
    int32_t dy = SIDE * PIXEL / 2 - (low.y + high.y) / 2 + p->offset_y / (ONE / PIXEL);
    for (size_t i = 0; i < line->n; i++) {
        line->points[i].x += dx;
        line->points[i].y += dy;
    }
}

/* ---- ink ---- */

/* Pixels whose centres are within reach of coordinate c: [*first, *last]. */
static void reached(int32_t c, int32_t reach, int32_t *first, int32_t *last)
{
    int32_t low = c - reach - PIXEL / 2, high = c + reach - PIXEL / 2;
    *first = low <= 0 ? 0 : (low + PIXEL - 1) / PIXEL;
    *last = high < 0 ? -1 : high / PIXEL;
    *last = *last < SIDE ? *last : SIDE - 1;
}

/* Inks a pixel by its distance to the path: full within the pen, then a linear rim. */
static void ink(const path *line, int32_t thickness, uint8_t *pixels)
{
    int32_t reach = (thickness / (ONE / PIXEL) + RIM) / 2, nearest[N_PIXELS];
    for (size_t i = 0; i < N_PIXELS; i++) {
        nearest[i] = reach * reach;
    }
    for (size_t k = 0; k < line->n; k++) {
        int32_t x0, x1, y0, y1;
        reached(line->points[k].x, reach, &x0, &x1);
        reached(line->points[k].y, reach, &y0, &y1);
        for (int32_t y = y0; y <= y1; y++) {
            int32_t dy = y * PIXEL + PIXEL / 2 - line->points[k].y;
            for (int32_t x = x0; x <= x1; x++) {
                int32_t dx = x * PIXEL + PIXEL / 2 - line->points[k].x;
                int32_t square = dx * dx + dy * dy, *best = &nearest[y * SIDE + x];
                *best = square < *best ? square : *best;
            }
        }
    }
    for (size_t i = 0; i < N_PIXELS; i++) {
        pixels[i] = 0;
        if (nearest[i] < reach * reach) {
            int32_t value = (reach - (int32_t)sqrt((double)nearest[i])) * 255 / RIM;
            pixels[i] = (uint8_t)(value < 255 ? value : 255);
        }
    }
}

/* ---- the set ---- */

/* Every ten samples hold the ten digits once, in an order of their own, so that any leading part
 * of the set is balanced too. */
static uint8_t digit_of(vae_split split, uint64_t index)
{
    uint8_t order[N_CLASSES] = {0};
    rng r = rng_start(RNG_ORDER, split, index / N_CLASSES);
    for (int32_t i = 0; i < N_CLASSES; i++) {
        int32_t j = rng_uniform(&r, 0, i + 1);
        order[i] = order[j];
        order[j] = (uint8_t)i;
    }
    return order[index % N_CLASSES];
}

static void write_factors(const pose *p, float *factors)
{
    const float unit = 1.0f / (float)ONE; /* a power of two: exact */
    factors[FACTOR_DIGIT] = (float)p->digit;
    factors[FACTOR_STYLE] = (float)p->style;
    factors[FACTOR_ROTATION] = (float)p->rotation * unit;
    factors[FACTOR_SLANT] = (float)p->slant * unit;
    factors[FACTOR_SCALE_X] = (float)p->scale_x * unit;
    factors[FACTOR_SCALE_Y] = (float)p->scale_y * unit;
    factors[FACTOR_THICKNESS] = (float)p->thickness * unit;
    factors[FACTOR_OFFSET_X] = (float)p->offset_x * unit;
    factors[FACTOR_OFFSET_Y] = (float)p->offset_y * unit;
}

uint8_t vae_digits_sample(vae_split split, uint64_t index, uint8_t *pixels, float *factors)
{
    rng r = rng_start(RNG_SAMPLE, split, index);
    pose p = draw_pose(&r, digit_of(split, index));
    path line;
    flatten(&line, &p, &r);
    centre(&line, &p);
    ink(&line, p.thickness, pixels);
    write_factors(&p, factors);
    return p.digit;
}

typedef struct {
    vae_dataset *set;
    vae_split split;
} drawing;

static void draw_rows(void *ctx, int thread, size_t first, size_t end)
{
    const drawing *a = ctx;
    vae_dataset *set = a->set;
    (void)thread;
    for (size_t i = first; i < end; i++) {
        set->labels[i] = vae_digits_sample(a->split, i, (uint8_t *)set->rows + i * N_PIXELS,
                                           set->factors + i * VAE_DIGITS_FACTORS);
    }
}

static vae_status draw(vae_dataset *set, const char *name, vae_split split,
                       const vae_data_options *options, vae_error *err)
{
    (void)name;
    const size_t d = N_PIXELS;
    size_t n = split == VAE_SPLIT_TEST ? N_TEST : N_TRAIN;
    n = options->limit > 0 && options->limit < n ? options->limit : n;
    set->n = n;
    set->d = d;
    set->height = SIDE;
    set->width = SIDE;
    set->channels = 1;
    set->dtype = VAE_U8;
    set->n_factors = VAE_DIGITS_FACTORS;
    set->factor_names = factor_names;
    set->rows = malloc(n * d);
    set->labels = malloc(n * sizeof *set->labels);
    set->factors = malloc(n * VAE_DIGITS_FACTORS * sizeof *set->factors);
    if (set->rows == NULL || set->labels == NULL || set->factors == NULL) {
        return vae_fail_memory(err, n * (d + 4 + VAE_DIGITS_FACTORS * sizeof *set->factors),
                               "the drawn digits");
    }
    drawing a = {set, split};
    vae_parallel(vae_threads(0), n, 1, draw_rows, &a);
    return vae_classes_number(&set->classes, N_CLASSES, err);
}

static vae_status has(bool *has, const char *name, vae_split split, vae_error *err)
{
    (void)name;
    (void)split;
    (void)err;
    *has = true;
    return VAE_OK;
}

const vae_reader vae_digits_reader = {
    .name = "digits", .source = VAE_SOURCE_BUILT_IN, .has = has, .load = draw};
