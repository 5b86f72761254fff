/* Fuzz target: PNG, JPEG, PBM, PGM and PPM files, and resizing what comes of them. */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "image/image.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    char path[64];
    uint8_t *pixels = NULL, small[8 * 8 * 3];
    size_t w = 0, h = 0, c = 0;
    vae_error err = {0};
    int fd = memfd_create("fuzz", MFD_CLOEXEC);
    if (fd < 0 || write(fd, data, size) != (ssize_t)size) {
        abort();
    }
    snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
    vae_status status = vae_picture_read(path, NULL, &w, &h, &c, &err);
    if ((status == VAE_OK) != (err.text[0] == '\0')) {
        abort();
    }
    if (status == VAE_OK && w * h <= 1 << 20) {
        status = vae_picture_read(path, &pixels, &w, &h, &c, &err);
        if ((status == VAE_OK) != (pixels != NULL)) {
            abort();
        }
    } else {
        status = VAE_ERR_DATA;
    }
    if (status == VAE_OK && (w == 0 || h == 0 || (c != 1 && c != 3))) {
        abort();
    }
    if (status == VAE_OK && w < 100 * h && h < 100 * w) {
        vae_image_square(small, 8, pixels, w, h, c, &err);
    }
    free(pixels);
    close(fd);
    return 0;
}
