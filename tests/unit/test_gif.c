/* Animated GIF, read back by giflib. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <gif_lib.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "dataset_fixture.h"
#include "image/image.h"

enum { W = 19, H = 11, FRAMES = 3, ORDER = 4 };
static const size_t order[ORDER] = {0, 1, 2, 1};
static const unsigned delay[ORDER] = {60, 10, 60, 10};

/* Writes frames (FRAMES,H,W,channels), reads them, and checks all but the colours. */
static GifFileType *round_trip(const char *path, const uint8_t *frames, size_t channels)
{
    vae_error err = {0};
    if (vae_gif_write(path, frames, FRAMES, W, H, channels, order, delay, ORDER, &err) != VAE_OK) {
        fail_msg("%s", err.text);
    }
    int reason;
    GifFileType *gif = DGifOpenFileName(path, &reason);
    assert_non_null(gif);
    assert_int_equal(DGifSlurp(gif), GIF_OK);
    assert_int_equal(gif->SWidth, W);
    assert_int_equal(gif->SHeight, H);
    assert_int_equal(gif->ImageCount, ORDER);
    const ExtensionBlock *loop = gif->SavedImages[0].ExtensionBlocks;
    assert_int_equal(loop[0].Function, APPLICATION_EXT_FUNC_CODE);
    assert_memory_equal(loop[0].Bytes, "NETSCAPE2.0", 11);
    assert_memory_equal(loop[1].Bytes, "\1\0\0", 3); /* for ever */
    for (int i = 0; i < ORDER; i++) {
        GraphicsControlBlock control;
        assert_int_equal(DGifSavedExtensionToGCB(gif, i, &control), GIF_OK);
        assert_int_equal(control.DelayTime, delay[i]);
        assert_int_equal(gif->SavedImages[i].ImageDesc.Width, W);
        assert_int_equal(gif->SavedImages[i].ImageDesc.Height, H);
    }
    return gif;
}

/* Largest and mean difference of a channel from what was written. */
static void compare(const GifFileType *gif, const uint8_t *frames, size_t channels, int *largest,
                    double *mean)
{
    *largest = 0;
    *mean = 0;
    for (size_t i = 0; i < ORDER; i++) {
        for (size_t p = 0; p < W * H; p++) {
            const GifColorType *c = &gif->SColorMap->Colors[gif->SavedImages[i].RasterBits[p]];
            const uint8_t found[3] = {c->Red, c->Green, c->Blue};
            for (size_t j = 0; j < 3; j++) {
                const size_t at = (order[i] * W * H + p) * channels + (channels == 3 ? j : 0);
                const int away = abs((int)found[j] - (int)frames[at]);
                *largest = away > *largest ? away : *largest;
                *mean += (double)away / (3.0 * ORDER * W * H);
            }
        }
    }
}

static void check_round_trip(scratch *s, const uint8_t *frames, size_t channels, int most,
                             double most_mean)
{
    int largest;
    double mean;
    GifFileType *gif = round_trip(scratch_path(s, "a.gif"), frames, channels);
    compare(gif, frames, channels, &largest, &mean);
    DGifCloseFile(gif, NULL);
    assert_true(largest <= most);
    assert_true(mean <= most_mean);
}

static void grey_is_exact(void **state)
{
    uint8_t frames[FRAMES * W * H];
    for (size_t i = 0; i < sizeof frames; i++) {
        frames[i] = (uint8_t)(i * 7 + i / W);
    }
    check_round_trip(*state, frames, 1, 0, 0);
}

static void few_colours_are_exact(void **state)
{
    uint8_t frames[FRAMES * W * H * 3];
    for (size_t i = 0; i < FRAMES * W * H; i++) { /* 256 colours, neighbours in one bin */
        frames[3 * i] = (uint8_t)(i % 256);
        frames[3 * i + 1] = (uint8_t)(i % 256 / 2);
        frames[3 * i + 2] = (uint8_t)(255 - i % 256);
    }
    check_round_trip(*state, frames, 3, 0, 0);
}

/* 627 colours, everywhere in the cube: as near as 256 entries can be expected to be. */
static void many_colours_are_close(void **state)
{
    uint8_t frames[FRAMES * W * H * 3];
    for (size_t i = 0; i < FRAMES * W * H; i++) {
        frames[3 * i] = (uint8_t)(i % 9 * 31);
        frames[3 * i + 1] = (uint8_t)(i / 9 % 9 * 31);
        frames[3 * i + 2] = (uint8_t)(i / 81 * 31);
    }
    check_round_trip(*state, frames, 3, 64, 12);
    /* all within a few bins: the palette is the bins' means */
    for (size_t i = 0; i < sizeof frames; i++) {
        frames[i] = (uint8_t)(128 + i % 251 % 8);
    }
    check_round_trip(*state, frames, 3, 8, 4);
}

static void what_cannot_be_written_is_refused(void **state)
{
    scratch *s = *state;
    uint8_t frames[FRAMES * W * H] = {0};
    vae_error err = {0};
    assert_int_equal(vae_gif_write(scratch_path(s, "no/a.gif"), frames, FRAMES, W, H, 1, order,
                                   delay, ORDER, &err),
                     VAE_ERR_IO);
    assert_non_null(strstr(err.text, "no/a.gif: cannot write: No such file"));
    err = (vae_error){0};
    assert_int_equal(symlink("/dev/full", scratch_path(s, "full.gif")), 0);
    assert_int_equal(vae_gif_write(s->path, frames, FRAMES, W, H, 1, order, delay, ORDER, &err),
                     VAE_ERR_IO);
    assert_non_null(strstr(err.text, "No space left"));
    static const size_t sizes[][3] = {{0, H, 1}, {W, 0, 1}, {W, H, 2}, {16385, 1, 1}};
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
        assert_int_equal(vae_gif_write(scratch_path(s, "b.gif"), frames, FRAMES, sizes[i][0],
                                       sizes[i][1], sizes[i][2], order, delay, ORDER, NULL),
                         VAE_ERR_USAGE);
        struct stat info;
        assert_true(stat(s->path, &info) != 0);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(grey_is_exact),
        cmocka_unit_test(few_colours_are_exact),
        cmocka_unit_test(many_colours_are_close),
        cmocka_unit_test(what_cannot_be_written_is_refused),
    };
    return cmocka_run_group_tests(tests, scratch_setup, scratch_teardown);
}
