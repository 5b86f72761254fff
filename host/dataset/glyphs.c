/* The ways the ten digits are written: the points their strokes run through, drawn for this
 * project. The box is 100 x 100, y downwards; digits.c bends, scales and inks them. */
#include <assert.h>

#include "dataset/readers.h"

#define AT(x, y)                                                                                   \
    {                                                                                              \
        x, y, VAE_NODE_SMOOTH                                                                      \
    }
#define CORNER(x, y)                                                                               \
    {                                                                                              \
        x, y, VAE_NODE_CORNER                                                                      \
    }
#define START(x, y)                                                                                \
    {                                                                                              \
        x, y, VAE_NODE_START                                                                       \
    }

static const vae_glyph_node zero_oval[] = {
    START(54, 2), AT(34, 14), AT(22, 48), AT(30, 84), AT(50, 98),
    AT(70, 84),   AT(78, 50), AT(70, 16), AT(52, 2),
};
static const vae_glyph_node zero_round[] = {
    START(62, 6), AT(36, 4),  AT(14, 28), AT(12, 66), AT(34, 96),
    AT(64, 94),   AT(86, 66), AT(84, 28), AT(58, 3),  AT(46, 10),
};
static const vae_glyph_node one_bare[] = {START(52, 0), AT(51, 50), AT(49, 100)};
static const vae_glyph_node one_flag[] = {
    START(32, 22), AT(44, 12), CORNER(56, 0), AT(54, 50), AT(52, 100),
};
static const vae_glyph_node one_foot[] = {
    START(34, 20), CORNER(54, 0), AT(53, 50), AT(52, 98), START(30, 98), AT(52, 99), AT(74, 97),
};
static const vae_glyph_node two_angle[] = {
    START(22, 24), AT(34, 7),  AT(54, 1),      AT(72, 12), AT(72, 34), AT(54, 60),
    AT(34, 82),    AT(20, 97), CORNER(18, 98), AT(50, 95), AT(84, 96),
};
static const vae_glyph_node two_loop[] = {
    START(22, 20), AT(38, 4),  AT(58, 2),  AT(74, 18), AT(68, 46), AT(46, 76),
    AT(24, 92),    AT(16, 84), AT(28, 76), AT(50, 86), AT(66, 96), AT(86, 92),
};
static const vae_glyph_node three_round[] = {
    START(22, 14), AT(42, 1),  AT(64, 6),  AT(72, 24),  AT(60, 42), CORNER(42, 48),
    AT(64, 52),    AT(78, 70), AT(68, 92), AT(44, 100), AT(18, 88),
};
static const vae_glyph_node three_flat[] = {
    START(22, 4), AT(48, 3),  CORNER(76, 2), AT(60, 22), CORNER(44, 40),
    AT(68, 48),   AT(78, 70), AT(66, 94),    AT(42, 99), AT(18, 90),
};
static const vae_glyph_node four_open[] = {
    START(24, 4), AT(20, 26),   AT(18, 48), CORNER(20, 54), AT(48, 54),
    AT(80, 50),   START(74, 0), AT(72, 48), AT(68, 100),
};
static const vae_glyph_node four_closed[] = {
    START(62, 0), AT(40, 32),   CORNER(12, 66), AT(50, 67),
    AT(90, 65),   START(64, 0), AT(64, 50),     AT(62, 100),
};
static const vae_glyph_node four_hook[] = {
    START(26, 8), AT(18, 34),    AT(22, 52), AT(44, 54),
    AT(66, 38),   CORNER(78, 6), AT(74, 50), AT(66, 100),
};
static const vae_glyph_node five_cap[] = {
    START(34, 3), AT(31, 22), CORNER(27, 42), AT(50, 36),   AT(72, 48), AT(76, 72),
    AT(58, 95),   AT(36, 99), AT(16, 88),     START(34, 3), AT(56, 4),  AT(80, 2),
};
static const vae_glyph_node five_swing[] = {
    START(82, 4), AT(60, 2),  CORNER(38, 6), AT(34, 24), CORNER(28, 44),
    AT(52, 44),   AT(70, 58), AT(68, 82),    AT(46, 98), AT(18, 96),
};
static const vae_glyph_node six_round[] = {
    START(66, 2), AT(42, 20), AT(24, 52), AT(26, 84), AT(48, 100),
    AT(72, 86),   AT(72, 62), AT(50, 50), AT(30, 64), AT(26, 76),
};
static const vae_glyph_node six_straight[] = {
    START(52, 0), AT(36, 30), AT(26, 62), AT(32, 90), AT(54, 99),
    AT(74, 86),   AT(68, 68), AT(48, 66), AT(32, 82),
};
static const vae_glyph_node seven_plain[] = {
    START(16, 8), AT(48, 5), CORNER(82, 3), AT(64, 36), AT(50, 68), AT(44, 100),
};
static const vae_glyph_node seven_hook[] = {
    START(18, 24), AT(20, 8),  CORNER(24, 4), AT(52, 7),
    CORNER(80, 4), AT(66, 34), AT(50, 66),    AT(38, 100),
};
static const vae_glyph_node seven_bar[] = {
    START(18, 6), AT(46, 6),     CORNER(80, 3), AT(66, 34), AT(52, 66),
    AT(42, 100),  START(36, 52), AT(56, 50),    AT(78, 47),
};
static const vae_glyph_node eight_cross[] = {
    START(72, 14), AT(52, 0),  AT(30, 10), AT(32, 34), AT(52, 50), AT(72, 68), AT(70, 92),
    AT(48, 100),   AT(28, 90), AT(30, 68), AT(50, 48), AT(70, 32), AT(74, 12),
};
static const vae_glyph_node eight_rings[] = {
    START(50, 46), AT(32, 34), AT(34, 10),  AT(52, 0),  AT(68, 12), AT(68, 34), AT(50, 46),
    AT(28, 62),    AT(26, 86), AT(50, 100), AT(74, 86), AT(72, 62), AT(50, 46),
};
static const vae_glyph_node nine_straight[] = {
    START(74, 20), AT(58, 2),  AT(34, 8),      AT(24, 30), AT(36, 48),
    AT(58, 44),    AT(72, 24), CORNER(75, 16), AT(72, 56), AT(66, 100),
};
static const vae_glyph_node nine_curled[] = {
    START(72, 28), AT(64, 6),  AT(42, 1),  AT(26, 18), AT(32, 42), AT(54, 48),
    AT(70, 30),    AT(74, 22), AT(76, 52), AT(68, 84), AT(46, 99), AT(22, 90),
};

#define GLYPH(nodes)                                                                               \
    {                                                                                              \
        sizeof(nodes) / sizeof(nodes)[0], nodes                                                    \
    }

enum { MAX_STYLES = 3 };

static const vae_glyph glyphs[10][MAX_STYLES] = {
    {GLYPH(zero_oval), GLYPH(zero_round)},
    {GLYPH(one_bare), GLYPH(one_flag), GLYPH(one_foot)},
    {GLYPH(two_angle), GLYPH(two_loop)},
    {GLYPH(three_round), GLYPH(three_flat)},
    {GLYPH(four_open), GLYPH(four_closed), GLYPH(four_hook)},
    {GLYPH(five_cap), GLYPH(five_swing)},
    {GLYPH(six_round), GLYPH(six_straight)},
    {GLYPH(seven_plain), GLYPH(seven_hook), GLYPH(seven_bar)},
    {GLYPH(eight_cross), GLYPH(eight_rings)},
    {GLYPH(nine_straight), GLYPH(nine_curled)},
};

size_t vae_glyph_styles(unsigned digit)
{
    assert(digit < 10);
    size_t n = 0;
    while (n < MAX_STYLES && glyphs[digit][n].n_nodes > 0) {
        n++;
    }
    return n;
}

vae_glyph vae_glyph_get(unsigned digit, size_t style)
{
    assert(digit < 10 && style < vae_glyph_styles(digit));
    return glyphs[digit][style];
}
