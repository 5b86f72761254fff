/* Formats of picture files and how they lie: BMP made here by its description, small files that
 * Pillow wrote, and EXIF. tests/roundtrip compares with what Pillow reads of many more. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "dataset_fixture.h"
#include "image/formats.h"

/* ---- orientation ---- */

static void exif_says_how_it_lies(void **state)
{
    (void)state;
    static const struct {
        const char *bytes; /* 8 of a header, 2: how many entries, 12 each */
        size_t n;
        unsigned is;
    } cases[] = {
        {"II*\0\x8\0\0\0\1\0\x12\1\3\0\1\0\0\0\6\0\0\0", 22, 6},
        {"MM\0*\0\0\0\x8\0\1\1\x12\0\3\0\0\0\1\0\x8\0\0", 22, 8},
        {"Exif\0\0II*\0\x8\0\0\0\1\0\x12\1\3\0\1\0\0\0\3\0\0\0", 28, 3},
        {"MM\0*\0\0\0\xa??\0\1\1\x12\0\4\0\0\0\1\0\0\0\2", 24, 2}, /* elsewhere, as a long */
        {"MM\0*\0\0\0\x8\0\2\1\x10\0\2\0\0\0\1X\0\0\0\1\x12\0\1\0\0\0\1\5\0\0\0", 34,
         5}, /* a byte */
        /* one that is none, of two values, text, of another layout, behind the end, cut short */
        {"II*\0\x8\0\0\0\1\0\x12\1\3\0\1\0\0\0\x9\0\0\0", 22, 1},
        {"II*\0\x8\0\0\0\1\0\x12\1\3\0\1\0\0\0\0\0\0\0", 22, 1},
        {"II*\0\x8\0\0\0\1\0\x12\1\3\0\2\0\0\0\6\0\0\0", 22, 1},
        {"II*\0\x8\0\0\0\1\0\x12\1\2\0\1\0\0\0\6\0\0\0", 22, 1},
        {"II+\0\x8\0\0\0\1\0\x12\1\3\0\1\0\0\0\6\0\0\0", 22, 1},
        {"II*\0\xff\xff\xff\xff\1\0\x12\1\3\0\1\0\0\0\6\0\0\0", 22, 1},
        {"II*\0\x8\0\0\0\1\0\x12\1\3\0\1\0\0\0\6\0\0", 21, 1},
        {"II*\0", 4, 1},
        {"Exif\0\0", 6, 1},
        {"", 0, 1},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        uint8_t *bytes = malloc(cases[i].n + 1); /* of its size: ASan sees what lies behind */
        assert_non_null(bytes);
        memcpy(bytes, cases[i].bytes, cases[i].n);
        uint8_t *exact = realloc(bytes, cases[i].n > 0 ? cases[i].n : 1);
        const unsigned is = vae_exif_orientation(exact, cases[i].n);
        if (is != cases[i].is) {
            fail_msg("case %zu: %u", i, is);
        }
        free(exact);
    }
}

/* Row 0 and column 0 lie where Exif 2.32 says: 1 top left, 2 top right, 3 bottom right, 4 bottom
 * left, 5 left top, 6 right top, 7 right bottom, 8 left bottom. */
static void pictures_are_turned_upright(void **state)
{
    (void)state;
    static const char *const upright[] = {"abcdef", "cbafed", "fedcba", "defabc",
                                          "adbecf", "daebfc", "fcebda", "cfbead"};
    uint8_t colour[18], turned[18];
    for (size_t i = 0; i < sizeof colour; i++) {
        colour[i] = (uint8_t)("abcdef"[i / 3] + 32 * (int)(i % 3));
    }
    for (unsigned o = 1; o <= 8; o++) {
        vae_picture_turn(turned, (const uint8_t *)"abcdef", 3, 2, 1, o);
        assert_memory_equal(turned, upright[o - 1], 6);
        vae_picture_turn(turned, colour, 3, 2, 3, o);
        for (size_t i = 0; i < sizeof turned; i++) {
            assert_int_equal(turned[i], upright[o - 1][i / 3] + 32 * (int)(i % 3));
        }
    }
}

/* ---- files that Pillow wrote ---- */

/* 3 x 2 pixels: red, green, blue; (10,20,30), (200,100,50), (7,7,7). In `turned` the first column
 * is to be the top (orientation 6). */
static const uint8_t stored[18] = {255, 0,  0,  0,   255, 0,  0, 0, 255,
                                   10,  20, 30, 200, 100, 50, 7, 7, 7};
static const uint8_t turned[18] = {10, 20,  30, 255, 0, 0, 200, 100, 50,
                                   0,  255, 0,  7,   7, 7, 0,   0,   255};

static const struct {
    const char *name, *hex;
    bool turned, own, more; /* own: the orientation is the format's own, not EXIF's */
} golden[] = {
    {"png",
     "89504e470d0a1a0a0000000d49484452000000030000000208020000001216f14d0000001a655849664d4d00"
     "2a00000008000101120003000000010006000000000000d6674b690000001749444154789c63f8cfc0c000c1"
     "5c227227528cd8d9d901364904adab1896e10000000049454e44ae426082",
     true, false, false},
    /* eXIf may stand behind the pixels, too */
    {"png-late",
     "89504e470d0a1a0a0000000d49484452000000030000000208020000001216f14d"
     "0000001749444154789c63f8cfc0c000c15c227227528cd8d9d901364904adab1896e1"
     "0000001a655849664d4d002a00000008000101120003000000010006000000000000d6674b69"
     "0000000049454e44ae426082",
     true, false, false},
#ifdef VAE_WITH_WEBP
    {"webp",
     "524946467a00000057454250565038580a000000080000000200000100005650384c3a0000002f024000002f"
     "40244002c9e437ff9ff18682b66d98be1dfe80466d6a021060b81458fd939aff007f900f59a967672010a08c"
     "150f6c13d1ff182f455849461a0000004d4d002a00000008000101120003000000010006000000000000",
     true, false, false},
    {"webp-frames",
     "52494646d600000057454250565038580a00000012000000020000010000414e494d06000000000000000000"
     "414e4d4656000000000000000000020000010000000000025650384c3d0000002f024000002fa0a88d14689f"
     "27de1088576c28681b05ba1724e11e6d6ada3660d4ab04167f42a5d4f90fe01fc0a571edcbdd404042a6e483"
     "4522fa1fb100414e4d464c000000000000000000020000010000000000005650384c330000002f0240001027"
     "20242034c9ff9306a96ddb8671cfffc76627cc36da7306f3573b919bff0000ef29e71f1048dae26d7f44ffc3"
     "3700",
     false, false, true},
#endif
#ifdef VAE_WITH_TIFF
    {"tiff",
     "49492a001a000000803fc01038141014140f320c83203c3602000b0000010300010000000300000001010300"
     "01000000020000000201030003000000a4000000030103000100000005000000060103000100000002000000"
     "1101040001000000080000001201030001000000060000001501030001000000030000001601030001000000"
     "020000001701040001000000110000001c010300010000000100000000000000080008000800",
     true, true, false},
    {"tiff-tiles", /* tiffcp -t -w 16 -l 16 -c lzw */
     "49492a0046000000803fc010381412070784426150b8642014140f320c83203c561b178c466351b8e4763d1f"
     "904864523924964d27944a6552b964b65d2f984c6653385404000c0000010300010000000300000001010300"
     "01000000020000000201030003000000dc000000030103000100000005000000060103000100000002000000"
     "1201030001000000010000001501030001000000030000001c01030001000000010000004201030001000000"
     "1000000043010300010000001000000044010400010000000800000045010400010000003d00000000000000"
     "080008000800",
     false, true, false},
    {"tiff-planes", /* tiffcp -p separate -c packbits */
     "49492a002000000000ffff00020ac8070200ff0002146407ff0000ff021e32070b0000010300010000000300"
     "00000101030001000000020000000201030003000000aa000000030103000100000005800000060103000100"
     "0000020000001101040003000000bc0000001201030001000000010000001501030001000000030000001601"
     "030001000000020000001701040003000000b00000001c010300010000000200000000000000080008000800"
     "080000000800000008000000080000001000000018000000",
     false, true, false},
#endif
};
enum { N_GOLDEN = sizeof golden / sizeof golden[0] };

static size_t from_hex(uint8_t bytes[512], const char *hex)
{
    size_t n = 0;
    for (unsigned byte; sscanf(hex + 2 * n, "%2x", &byte) == 1; n++) {
        assert_true(n < 512);
        bytes[n] = (uint8_t)byte;
    }
    return n;
}

static void is_picture(const vae_picture *p, bool upright, unsigned orientation, const char *name)
{
    const size_t w = upright ? 2 : 3;
    if (p->width != w || p->height != 5 - w || p->channels != 3 || p->orientation != orientation ||
        (p->pixels != NULL && memcmp(p->pixels, upright ? turned : stored, 18) != 0)) {
        fail_msg("%s: %zu x %zu x %zu, %u, or other pixels", name, p->width, p->height, p->channels,
                 p->orientation);
    }
}

static void files_of_pillow_are_read(void **state)
{
    scratch *s = *state;
    for (size_t i = 0; i < N_GOLDEN; i++) {
        uint8_t bytes[512];
        scratch_write(s, golden[i].name, bytes, from_hex(bytes, golden[i].hex));
        for (unsigned how = 0; how < 4; how++) {
            vae_error err = {0};
            vae_picture p;
            if (vae_picture_read(&p, s->path, how, &err) != VAE_OK) {
                fail_msg("%s", err.text);
            }
            const bool as_stored = (how & VAE_PICTURE_AS_STORED) != 0 && !golden[i].own;
            assert_true((p.pixels == NULL) == ((how & VAE_PICTURE_HEADER) != 0));
            is_picture(&p, golden[i].turned && !as_stored, golden[i].turned && as_stored ? 6 : 1,
                       golden[i].name);
            assert_true(p.more == golden[i].more);
            free(p.pixels);
        }
    }
}

/* Each byte less is refused; with a bit changed it is refused, or another picture. */
static void damaged_files_are_refused(void **state)
{
    scratch *s = *state;
    for (size_t i = 0; i < N_GOLDEN; i++) {
        uint8_t bytes[512];
        const size_t n = from_hex(bytes, golden[i].hex);
        for (size_t cut = 0; cut < n; cut++) {
            vae_error err = {0};
            vae_picture p;
            scratch_write(s, "cut", bytes, cut);
            if (vae_picture_read(&p, s->path, 0, &err) != VAE_ERR_DATA || p.pixels != NULL) {
                fail_msg("%s, %zu bytes: %s", golden[i].name, cut, err.text);
            }
            assert_non_null(strstr(err.text, s->path));
        }
        for (size_t bit = 0; bit < 8 * n; bit++) {
            vae_picture p;
            vae_error err = {0};
            bytes[bit / 8] ^= (uint8_t)(1 << bit % 8);
            scratch_write(s, "bit", bytes, n);
            const vae_status status = vae_picture_read(&p, s->path, 0, &err);
            if (status == VAE_OK ? p.pixels == NULL : status != VAE_ERR_DATA || p.pixels != NULL) {
                fail_msg("%s, bit %zu: %s", golden[i].name, bit, err.text);
            }
            free(p.pixels);
            bytes[bit / 8] ^= (uint8_t)(1 << bit % 8);
        }
    }
}

/* ---- BMP ---- */

typedef struct {
    uint8_t bytes[512];
    size_t n;
} bmp;

/* Headers that claim more pixels than any format packs into so few bytes are refused before anything
 * is allocated for them; a blank page is not. */
static void claims_are_judged(void **state)
{
    const uint8_t claims[] = "RIFF\x2a\0\0\0WEBPVP8 \x1e\0\0\0\xf0\x01\0\x9d\x01\x2a";
    scratch *s = *state;
    for (size_t side = 8192; side <= 16380; side += 8188) {
        uint8_t file[50] = {0};
        vae_picture p;
        vae_error err = {0};
        memcpy(file, claims, sizeof claims - 1);
        file[26] = file[28] = side & 0xff;
        file[27] = file[29] = (uint8_t)(side >> 8);
        scratch_write(s, "claims.webp", file, sizeof file);
        const vae_status status = vae_picture_read(&p, s->path, VAE_PICTURE_HEADER, &err);
        if (status == VAE_ERR_RUNTIME) {
            assert_non_null(strstr(err.text, "built without libwebp"));
        } else if (side == 8192) {
            assert_true(status == VAE_OK && p.width == side && p.height == side);
        } else {
            assert_int_equal(status, VAE_ERR_DATA);
            assert_non_null(strstr(err.text, "header says 16380 x 16380 pixels, but 50 bytes"));
        }
    }
}

static void put(bmp *b, uint32_t value, size_t size)
{
    for (size_t i = 0; i < size; i++) {
        b->bytes[b->n++] = (uint8_t)(i < 4 ? value >> 8 * i : 0);
    }
}

/* A file: info bytes of header (12 or more), palette or masks, and lines as they are to lie. */
static bmp make_bmp(uint32_t info, int32_t width, int32_t height, uint32_t bits,
                    uint32_t compression, uint32_t colours, const void *behind, size_t n_behind,
                    const void *lines, size_t n_lines)
{
    bmp b = {.n = 0};
    const size_t side = info == 12 ? 2 : 4;
    put(&b, 'B' | 'M' << 8, 2);
    put(&b, (uint32_t)(14 + info + n_behind + n_lines), 4);
    put(&b, 0, 4);
    put(&b, (uint32_t)(14 + info + n_behind), 4);
    put(&b, info, 4);
    put(&b, (uint32_t)width, side), put(&b, (uint32_t)height, side);
    put(&b, 1, 2), put(&b, bits, 2);
    if (info > 12) {
        put(&b, compression, 4), put(&b, (uint32_t)n_lines, 4), put(&b, 0, 8);
        put(&b, colours, 4), put(&b, 0, 4);
    }
    if (info > 40) { /* behind the first 40 bytes of it the masks */
        memcpy(b.bytes + b.n, behind, 12);
        b.n += info - 40;
        b.bytes[10] = (uint8_t)(14 + info);
        n_behind = 0;
    }
    memcpy(b.bytes + b.n, behind, n_behind);
    memcpy(b.bytes + b.n + n_behind, lines, n_lines);
    b.n += n_behind + n_lines;
    return b;
}

static void bmp_is(scratch *s, const bmp *b, size_t channels, const uint8_t *pixels)
{
    vae_picture p, h;
    vae_error err = {0};
    scratch_write(s, "a.bmp", b->bytes, b->n);
    if (vae_picture_read(&p, s->path, 0, &err) != VAE_OK ||
        vae_picture_read(&h, s->path, VAE_PICTURE_HEADER, &err) != VAE_OK) {
        fail_msg("%s", err.text);
    }
    assert_true(p.width == 3 && p.height == 2 && p.channels == channels && h.channels == channels);
    assert_memory_equal(p.pixels, pixels, 6 * channels);
    free(p.pixels);
}

static void bmp_is_read(void **state)
{
    scratch *s = *state;
    /* blue, green, red; the lower line first; each line a multiple of 4 bytes */
    static const uint8_t lines24[24] = {30, 20, 10,  50, 100, 200, 7,   7, 7, 9, 9, 9,
                                        0,  0,  255, 0,  255, 0,   255, 0, 0, 9, 9, 9};
    uint8_t lines32[24], top_down[24];
    memcpy(top_down, lines24 + 12, 12), memcpy(top_down + 12, lines24, 12);
    for (size_t i = 0; i < 6; i++) {
        memcpy(lines32 + 4 * i, lines24 + 12 * (i / 3) + 3 * (i % 3), 3);
        lines32[4 * i + 3] = (uint8_t)(40 * i); /* alpha */
    }
    bmp b = make_bmp(40, 3, 2, 24, 0, 0, "", 0, lines24, 24);
    bmp_is(s, &b, 3, stored);
    b = make_bmp(12, 3, 2, 24, 0, 0, "", 0, lines24, 24);
    bmp_is(s, &b, 3, stored);
    b = make_bmp(40, 3, -2, 24, 0, 0, "", 0, top_down, 24);
    bmp_is(s, &b, 3, stored);
    b = make_bmp(40, 3, 2, 32, 0, 0, "", 0, lines32, 24);
    bmp_is(s, &b, 3, stored);
    const uint32_t bgr[3] = {0xff0000, 0xff00, 0xff}, rgb[3] = {0xff, 0xff00, 0xff0000};
    b = make_bmp(40, 3, 2, 32, 3, 0, bgr, 12, lines32, 24);
    bmp_is(s, &b, 3, stored);
    b = make_bmp(108, 3, 2, 32, 3, 0, rgb, 12, lines32, 24); /* the other way round */
    static const uint8_t exchanged[18] = {0,  0,  255, 0,  255, 0,   255, 0, 0,
                                          30, 20, 10,  50, 100, 200, 7,   7, 7};
    bmp_is(s, &b, 3, exchanged);
    /* 5 bits a colour, and 5, 6, 5 */
    static const uint16_t lines16[8] = {0x7c00, 0x03e0, 0x001f, 0, 0x7fff, 0, 0x4210, 0};
    static const uint8_t from16[18] = {255, 255, 255, 0, 0,   0, 131, 131, 131,
                                       255, 0,   0,   0, 255, 0, 0,   0,   255};
    b = make_bmp(40, 3, 2, 16, 0, 0, "", 0, lines16, 16);
    bmp_is(s, &b, 3, from16);
    const uint32_t mask565[3] = {0xf800, 0x7e0, 0x1f};
    static const uint16_t lines565[8] = {0xf800, 0x07e0, 0x001f, 0, 0xffff, 0, 0x8410, 0};
    static const uint8_t from565[18] = {255, 255, 255, 0, 0,   0, 131, 129, 131,
                                        255, 0,   0,   0, 255, 0, 0,   0,   255};
    b = make_bmp(40, 3, 2, 16, 3, 0, mask565, 12, lines565, 16);
    bmp_is(s, &b, 3, from565);
    /* palettes, of 4 bytes a colour, and of 3 */
    static const uint8_t colours[24] = {0,  0,  255, 0, 0,  255, 0,   0, 255, 0, 0, 0,
                                        30, 20, 10,  0, 50, 100, 200, 0, 7,   7, 7, 0};
    b = make_bmp(40, 3, 2, 8, 0, 6, colours, 24, "\3\4\5\0\0\1\2\0", 8);
    bmp_is(s, &b, 3, stored);
    b = make_bmp(40, 3, 2, 4, 0, 6, colours, 24, "\x34\x50\0\0\x01\x20\0\0", 8);
    bmp_is(s, &b, 3, stored);
    static const uint8_t black_white[6] = {0, 0, 0, 255, 255, 255},
                         grey[6] = {255, 0, 255, 0, 255, 0};
    b = make_bmp(12, 3, 2, 1, 0, 0, black_white, 6, "\x40\0\0\0\xa0\0\0\0", 8);
    bmp_is(s, &b, 1, grey); /* for all its colours are */
}

static void damaged_bmp_is_refused(void **state)
{
    scratch *s = *state;
    static const uint8_t lines[24] = {0}, colours[8] = {0};
    const uint32_t hole[3] = {0xf0f, 0xf0, 0xf000}, none[3] = {0, 0xff, 0xff00};
    const bmp good = make_bmp(40, 3, 2, 24, 0, 0, "", 0, lines, 24);
    const struct {
        bmp file;
        const char *says;
    } cases[] = {
        {make_bmp(40, 3, 2, 8, 1, 2, colours, 8, lines, 8), "8 bits a pixel, compression 1 (RLE)"},
        {make_bmp(40, 3, 2, 4, 2, 2, colours, 8, lines, 8), "4 bits a pixel, compression 2 (RLE)"},
        {make_bmp(40, 3, 2, 24, 4, 0, "", 0, lines, 24),
         "24 bits a pixel, compression 4 (another)"},
        {make_bmp(40, 3, 2, 24, 3, 0, "", 0, lines, 24), "24 bits a pixel, compression 3"},
        {make_bmp(40, 3, 2, 2, 0, 2, colours, 8, lines, 8), "2 bits a pixel, compression 0 (none)"},
        {make_bmp(40, 0, 2, 24, 0, 0, "", 0, lines, 24), "0 x 2 pixels: expected 1 to 16384"},
        {make_bmp(40, -3, 2, 24, 0, 0, "", 0, lines, 24), "4294967293 x 2 pixels"},
        {make_bmp(40, 3, INT32_MIN, 24, 0, 0, "", 0, lines, 24), "3 x 2147483648 pixels"},
        {make_bmp(40, 9000, 9000, 24, 0, 0, "", 0, lines, 24), "but 78 bytes cannot hold them"},
        {make_bmp(20, 3, 2, 24, 0, 0, "", 0, lines, 24), "a header of 20 bytes: expected 12, or"},
        {make_bmp(40, 3, 2, 32, 3, 0, hole, 12, lines, 24), "mask of a colour is 00000f0f"},
        {make_bmp(40, 3, 2, 32, 3, 0, none, 12, lines, 24), "mask of a colour is 00000000"},
        {make_bmp(40, 3, 2, 8, 0, 2, colours, 8, "\1\1\1\0\1\1\2\0", 8),
         "a pixel of a colour beyond the 2 there are"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        vae_picture p;
        vae_error err = {0};
        scratch_write(s, "bad.bmp", cases[i].file.bytes, cases[i].file.n);
        assert_int_equal(vae_picture_read(&p, s->path, 0, &err), VAE_ERR_DATA);
        if (strstr(err.text, cases[i].says) == NULL || strstr(err.text, "bad.bmp") == NULL) {
            fail_msg("case %zu: expected '%s', found '%s'", i, cases[i].says, err.text);
        }
    }
    for (size_t cut = 0; cut < good.n; cut++) {
        vae_picture p;
        scratch_write(s, "bad.bmp", good.bytes, cut);
        assert_int_equal(vae_picture_read(&p, s->path, 0, NULL), VAE_ERR_DATA);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(exif_says_how_it_lies),    cmocka_unit_test(pictures_are_turned_upright),
        cmocka_unit_test(files_of_pillow_are_read), cmocka_unit_test(damaged_files_are_refused),
        cmocka_unit_test(claims_are_judged),        cmocka_unit_test(bmp_is_read),
        cmocka_unit_test(damaged_bmp_is_refused),
    };
    return cmocka_run_group_tests(tests, scratch_setup, scratch_teardown);
}
