/* Fuzz target: picture files of all formats, turned upright and as stored, and resizing what comes
 * of them. */
#include <stdlib.h>

#include "image/image.h"
#include "input.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    uint8_t small[8 * 8 * 3];
    vae_picture h, p;
    vae_error err = {0};
    const char *path = fuzz_file(data, size, "");
    const unsigned how = size % 2 == 0 ? 0 : VAE_PICTURE_AS_STORED;
    const vae_status seen = vae_picture_read(&h, path, how | VAE_PICTURE_HEADER, &err);
    if (!fuzz_judge(seen, &err) || h.width * h.height > 1 << 16) {
        return 0;
    }
    fuzz_must(h.pixels == NULL);
    const vae_status status = vae_picture_read(&p, path, how, &err);
    fuzz_must(fuzz_judge(status, &err) == (p.pixels != NULL));
    if (status == VAE_OK) {
        fuzz_must(p.width == h.width && p.height == h.height && p.channels == h.channels);
        fuzz_must(p.width > 0 && p.height > 0 && (p.channels == 1 || p.channels == 3));
        fuzz_must(p.orientation >= 1 && p.orientation <= (how == 0 ? 1 : 8));
        volatile uint8_t last = p.pixels[p.width * p.height * p.channels - 1];
        (void)last;
        if (p.width < 100 * p.height && p.height < 100 * p.width) {
            vae_image_square(small, 8, p.pixels, p.width, p.height, p.channels, &err);
        }
    }
    free(p.pixels);
    return 0;
}
