/* The built-in look-alike of dSprites (Matthey et al., 2017): a square, an ellipse or a heart,
 * white on black, at every combination of scale, rotation and position. The outlines were fitted to
 * the original's pictures, so a few pixels of a rim may differ from it; the factors do not. A pixel
 * is white where its centre lies in the outline: no antialiasing.
 *
 * Which side of an outline a pixel is on is decided by integers. Sine and cosine come from libm,
 * rounded to 14 bits; none of them lies within 1/25 of a step of a tie, so that any libm
 * rounds them alike. Hence the bytes are the same on every machine and for any number of
 * threads. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/pool.h"
#include "dataset/readers.h"
#include "philox.h"

enum {
    SIDE = VAE_SPRITES_SIDE,
    N_ROTATIONS = 40,
    N_POSITIONS = 32,
    STEPS = N_POSITIONS - 1,
    ONE = 1 << 14,        /* 1.0 of sines and cosines */
    HALF = 2 * STEPS,     /* half a pixel is 31 of these, a step of position 64 */
    PIXEL = HALF * ONE,   /* a pixel in an outline's coordinates */
    PART_ROWS = 16,       /* that a thread draws at a time */
    REACH = 14,           /* pixels; no outline of scale 1 goes so far from its centre */
    ORDER_KEY = 20170601, /* of the order in which --limit takes rows */
};

enum { SHAPE_SQUARE, SHAPE_ELLIPSE, SHAPE_HEART };
enum { FACTOR_SHAPE, FACTOR_SCALE, FACTOR_ROTATION, FACTOR_X, FACTOR_Y };

static const char *const factor_names[VAE_SPRITES_FACTORS] = {"shape", "scale", "rotation", "x",
                                                              "y"};
static const size_t factor_sizes[VAE_SPRITES_FACTORS] = {3, 6, N_ROTATIONS, N_POSITIONS,
                                                         N_POSITIONS};

/* Hundredths of a pixel at scale 1 to outline coordinates, at a scale in tenths. */
static int64_t length(int64_t hundredths, int64_t tenths)
{
    return hundredths * PIXEL * tenths / 1000;
}

/* Half-side 9.6. */
static bool in_square(int64_t x, int64_t y, int64_t tenths)
{
    const int64_t half = length(960, tenths);
    return llabs(x) <= half && llabs(y) <= half;
}

/* Semi-axes 12.75 = 51/4 and 7.25 = 29/4: (29 x)^2 + (51 y)^2 <= (51*29/4)^2. */
static bool in_ellipse(int64_t x, int64_t y, int64_t tenths)
{
    const int64_t right = (int64_t)51 * 29 * PIXEL * tenths / 40;
    return 29 * x * (29 * x) + 51 * y * (51 * y) <= right * right;
}

/* Discs of radius 5.2 around (+-4.6, -4), and what lies between them and their outer tangents
 * through the tip (0, 8.5). With the left half folded over the right one, that is on the tip's side
 * of the chord between the points of contact: (p - tip).(centre - tip) <= |centre - tip|^2 - r^2
 * with centre - tip = (4.6, -12.5); and inside the tangent, whose unit normal
 * n = (0.729169, 0.684334) has n.(centre - tip) = -r. */
static bool in_heart(int64_t x, int64_t y, int64_t tenths)
{
    const int64_t radius = length(520, tenths), right = llabs(x);
    const int64_t dx = right - length(460, tenths), dy = y + length(400, tenths);
    const int64_t below = y - length(850, tenths); /* the tip; negative above it */
    if (dx * dx + dy * dy <= radius * radius) {
        return true;
    }
    return 729169 * right + 684334 * below <= 0 &&
           46 * right - 125 * below <= 10 * length(15037, tenths);
}

static bool inside(size_t shape, int64_t x, int64_t y, int64_t tenths)
{
    switch (shape) {
    case SHAPE_SQUARE:
        return in_square(x, y, tenths);
    case SHAPE_ELLIPSE:
        return in_ellipse(x, y, tenths);
    default:
        return in_heart(x, y, tenths);
    }
}

/* From the centre, 16 + 32/31 * level, to the middle of a pixel; a pixel is HALF = 62. */
static int64_t offset(int64_t pixel, size_t level)
{
    return (2 * pixel + 1) * STEPS - 16 * HALF - 64 * (int64_t)level;
}

static double angle_of(size_t level)
{
    return 6.283185307179586 * (double)level / (N_ROTATIONS - 1);
}

void vae_sprites_sample(const size_t level[VAE_SPRITES_FACTORS],
                        uint8_t bits[VAE_SPRITES_ROW_BYTES])
{
    const double angle = angle_of(level[FACTOR_ROTATION] % (N_ROTATIONS - 1));
    const int64_t cosine = lround(cos(angle) * ONE), sine = lround(sin(angle) * ONE);
    const int64_t tenths = 5 + (int64_t)level[FACTOR_SCALE], reach = (REACH * tenths + 9) / 10;
    const int64_t middle_x = 16 + 32 * (int64_t)level[FACTOR_X] / STEPS;
    const int64_t middle_y = 16 + 32 * (int64_t)level[FACTOR_Y] / STEPS;
    memset(bits, 0, VAE_SPRITES_ROW_BYTES);
    for (int64_t row = middle_y - reach; row <= middle_y + reach; row++) {
        const int64_t dy = offset(row, level[FACTOR_Y]);
        for (int64_t col = middle_x - reach; col <= middle_x + reach; col++) {
            /* Turning the pixel clockwise is turning the sprite counter-clockwise. */
            const int64_t dx = offset(col, level[FACTOR_X]);
            const int64_t x = cosine * dx - sine * dy, y = sine * dx + cosine * dy;
            const unsigned bit = inside(level[FACTOR_SHAPE], x, y, tenths);
            bits[row * (SIDE / 8) + col / 8] |= (uint8_t)(bit << col % 8);
        }
    }
}

static void write_factors(const size_t *level, float *factors)
{
    factors[FACTOR_SHAPE] = (float)level[FACTOR_SHAPE];
    factors[FACTOR_SCALE] = (float)(5 + level[FACTOR_SCALE]) / 10;
    factors[FACTOR_ROTATION] = (float)angle_of(level[FACTOR_ROTATION]);
    factors[FACTOR_X] = (float)level[FACTOR_X] / STEPS;
    factors[FACTOR_Y] = (float)level[FACTOR_Y] / STEPS;
}

/* Number in the grid of row i of n: the first n of a fixed random order, or the grid as it is. */
static size_t grid_place(size_t i, size_t n)
{
    return n < VAE_SPRITES_N
               ? vae_shuffle(ORDER_KEY, VAE_SPRITES_N, vae_shuffle_bits(VAE_SPRITES_N), i)
               : i;
}

static void draw_rows(void *ctx, int thread, size_t first, size_t end)
{
    vae_dataset *set = ctx;
    (void)thread;
    for (size_t i = first; i < end; i++) {
        size_t level[VAE_SPRITES_FACTORS];
        vae_grid_levels(level, factor_sizes, VAE_SPRITES_FACTORS, grid_place(i, set->n));
        vae_sprites_sample(level, (uint8_t *)set->rows + i * VAE_SPRITES_ROW_BYTES);
        set->labels[i] = (uint32_t)level[FACTOR_SHAPE];
        write_factors(level, set->factors + i * VAE_SPRITES_FACTORS);
    }
}

static vae_status draw(vae_dataset *set, const char *name, vae_split split,
                       const vae_data_options *options, vae_error *err)
{
    const size_t limit = options->limit;
    const size_t n = limit > 0 && limit < VAE_SPRITES_N ? limit : VAE_SPRITES_N;
    if (split == VAE_SPLIT_TEST) {
        return vae_fail(err, VAE_ERR_DATA,
                        "%s: the set is one grid without a test split; leave --split out "
                        "(--validation keeps rows back in training)",
                        name);
    }
    set->n = n;
    set->d = SIDE * SIDE;
    set->height = SIDE;
    set->width = SIDE;
    set->channels = 1;
    set->dtype = VAE_BITS;
    set->n_factors = VAE_SPRITES_FACTORS;
    set->factor_names = factor_names;
    set->factor_sizes = n == VAE_SPRITES_N ? factor_sizes : NULL;
    set->rows = malloc(n * VAE_SPRITES_ROW_BYTES);
    set->labels = malloc(n * sizeof *set->labels);
    set->factors = malloc(n * VAE_SPRITES_FACTORS * sizeof *set->factors);
    if (set->rows == NULL || set->labels == NULL || set->factors == NULL) {
        return vae_fail_memory(
            err, n * (VAE_SPRITES_ROW_BYTES + 4 + VAE_SPRITES_FACTORS * sizeof *set->factors),
            "the drawn sprites");
    }
    vae_parallel(vae_threads(0), n, PART_ROWS, draw_rows, set);
    return vae_classes_number(&set->classes, factor_sizes[FACTOR_SHAPE], err);
}

const vae_reader vae_sprites_reader = {
    .name = "sprites", .source = VAE_SOURCE_BUILT_IN, .load = draw};
