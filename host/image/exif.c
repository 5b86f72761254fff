/* EXIF's orientation: finding it, and turning a picture as it says (Exif 2.32, 4.6.4.A, and TIFF
 * 6.0, pages 13 to 16 and 36). */
#include <string.h>

#include "image/formats.h"

typedef struct {
    const uint8_t *bytes;
    size_t n;
    bool big; /* the most significant byte first */
} exif;

/* A number of 2 or 4 bytes; 0 where they are not there. */
static uint32_t number(const exif *e, uint64_t at, size_t size)
{
    uint32_t value = 0;
    for (size_t i = 0; at + size <= e->n && i < size; i++) {
        const uint32_t byte = e->bytes[at + i];
        value |= byte << 8 * (e->big ? size - 1 - i : i);
    }
    return value;
}

unsigned vae_exif_orientation(const uint8_t *bytes, size_t n)
{
    enum { TAG = 0x112, BYTE = 1, SHORT = 3, LONG = 4, ENTRY = 12 };
    unsigned orientation = 1;
    while (n >= 6 && memcmp(bytes, "Exif\0\0", 6) == 0) {
        bytes += 6, n -= 6;
    }
    const bool little = n >= 8 && bytes[0] == 'I' && bytes[1] == 'I';
    const exif e = {bytes, n, !little};
    if (n < 8 || (!little && (bytes[0] != 'M' || bytes[1] != 'M')) || number(&e, 2, 2) != 42) {
        return 1;
    }
    const uint64_t folder = number(&e, 4, 4);
    const uint32_t entries = number(&e, folder, 2);
    for (uint32_t i = 0; i < entries; i++) {
        const uint64_t at = folder + 2 + (uint64_t)i * ENTRY;
        const uint32_t type = number(&e, at + 2, 2);
        if (at + ENTRY > n) {
            break;
        }
        if (number(&e, at, 2) != TAG || number(&e, at + 4, 4) != 1 ||
            (type != BYTE && type != SHORT && type != LONG)) {
            continue;
        }
        const uint32_t value =
            type == BYTE ? bytes[at + 8] : number(&e, at + 8, type == SHORT ? 2 : 4);
        orientation = value >= 1 && value <= 8 ? value : 1;
    }
    return orientation;
}

void vae_picture_turn(uint8_t *to, const uint8_t *from, size_t width, size_t height,
                      size_t channels, unsigned orientation)
{
    /* which side of the picture the stored first row and first column are */
    const bool exchanged = orientation >= 5;
    const bool right = orientation == 2 || orientation == 3 || orientation == 7 || orientation == 8;
    const bool bottom =
        orientation == 3 || orientation == 4 || orientation == 6 || orientation == 7;
    const size_t w = exchanged ? height : width, h = exchanged ? width : height;
    for (size_t y = 0; y < h; y++) {
        for (size_t x = 0; x < w; x++) {
            /* the place in what is stored: column and row of it */
            const size_t u = exchanged ? y : x, v = exchanged ? x : y;
            const size_t column = right ? width - 1 - u : u, row = bottom ? height - 1 - v : v;
            memcpy(to, from + (row * width + column) * channels, channels);
            to += channels;
        }
    }
}
