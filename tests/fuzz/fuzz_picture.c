/* Fuzz target: PNG, JPEG, PBM, PGM and PPM files, and resizing what comes of them. */
#include <stdlib.h>

#include "image/image.h"
#include "input.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    uint8_t *pixels = NULL, small[8 * 8 * 3];
    size_t w = 0, h = 0, c = 0;
    vae_error err = {0};
    const char *path = fuzz_file(data, size, "");
    if (fuzz_judge(vae_picture_read(path, NULL, &w, &h, &c, &err), &err) && w * h <= 1 << 16) {
        const vae_status status = vae_picture_read(path, &pixels, &w, &h, &c, &err);
        fuzz_must(fuzz_judge(status, &err) == (pixels != NULL));
        if (status == VAE_OK) {
            fuzz_must(w > 0 && h > 0 && (c == 1 || c == 3));
            volatile uint8_t last = pixels[w * h * c - 1];
            (void)last;
            if (w < 100 * h && h < 100 * w) {
                vae_image_square(small, 8, pixels, w, h, c, &err);
            }
        }
    }
    free(pixels);
    return 0;
}
