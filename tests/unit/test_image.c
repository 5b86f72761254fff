/* PNG files and grids. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <dirent.h>
#include <fcntl.h>
#include <math.h>
#include <png.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "dataset_fixture.h"
#include "image/image.h"

typedef vae_picture picture;

static picture read_ok(const char *path)
{
    picture p;
    vae_error err = {0};
    if (vae_picture_read(&p, path, 0, &err) != VAE_OK) {
        fail_msg("%s", err.text);
    }
    return p;
}

static vae_status read_any(const char *path, vae_error *err)
{
    picture p = {0};
    vae_status status = vae_picture_read(&p, path, 0, err);
    assert_true((status == VAE_OK) == (p.pixels != NULL));
    free(p.pixels);
    return status;
}

static void write_bytes(const char *path, const void *bytes, size_t n)
{
    FILE *f = fopen(path, "wb");
    assert_non_null(f);
    assert_int_equal(fwrite(bytes, 1, n, f), n);
    assert_int_equal(fclose(f), 0);
}

static size_t read_bytes(const char *path, uint8_t *bytes, size_t size)
{
    FILE *f = fopen(path, "rb");
    assert_non_null(f);
    size_t n = fread(bytes, 1, size, f);
    assert_true(n < size);
    fclose(f);
    return n;
}

static size_t count_files(const char *folder)
{
    size_t n = 0;
    DIR *d = opendir(folder);
    assert_non_null(d);
    for (const struct dirent *e; (e = readdir(d)) != NULL;) {
        n += e->d_name[0] != '.';
    }
    closedir(d);
    return n;
}

static void pictures_come_back_as_written(void **state)
{
    scratch *s = *state;
    uint8_t pixels[7 * 5 * 3];
    for (size_t i = 0; i < sizeof pixels; i++) {
        pixels[i] = (uint8_t)(37 * i);
    }
    for (size_t channels = 1; channels <= 3; channels += 2) {
        scratch_path(s, "p.png");
        assert_int_equal(vae_png_write(s->path, pixels, 7, 5, channels, NULL), VAE_OK);
        picture p = read_ok(s->path);
        assert_int_equal(p.width, 7);
        assert_int_equal(p.height, 5);
        assert_int_equal(p.channels, channels);
        assert_memory_equal(p.pixels, pixels, 35 * channels);
        free(p.pixels);
    }
}

/* Writes with libpng a picture of 3 x 2 in another format, all samples `fill` bytes. */
static void write_foreign(const char *path, int type, int depth, int interlace, uint8_t fill)
{
    FILE *f = fopen(path, "wb");
    assert_non_null(f);
    png_structp png = png_create_write_struct(PNG_LIBPNG_VER_STRING, NULL, NULL, NULL);
    png_infop info = png_create_info_struct(png);
    assert_int_equal(setjmp(png_jmpbuf(png)), 0);
    png_init_io(png, f);
    png_set_IHDR(png, info, 3, 2, depth, type, interlace, PNG_COMPRESSION_TYPE_DEFAULT,
                 PNG_FILTER_TYPE_DEFAULT);
    if (type == PNG_COLOR_TYPE_PALETTE) {
        const png_color palette[2] = {{1, 2, 3}, {200, 100, 50}};
        png_set_PLTE(png, info, palette, 2);
        png_set_tRNS(png, info, (const png_byte[]){0, 255}, 2, NULL);
    }
    png_write_info(png, info);
    uint8_t row[64];
    memset(row, fill, sizeof row);
    png_bytep rows[2] = {row, row};
    png_write_image(png, rows);
    png_write_end(png, NULL);
    png_destroy_write_struct(&png, &info);
    fclose(f);
}

static void other_formats_are_converted(void **state)
{
    scratch *s = *state;
    static const struct {
        int type, depth, interlace;
        uint8_t fill;
        size_t channels;
        uint8_t expected[3];
    } cases[] = {
        {PNG_COLOR_TYPE_GRAY, 1, PNG_INTERLACE_NONE, 0xff, 1, {255, 0, 0}},
        {PNG_COLOR_TYPE_GRAY, 4, PNG_INTERLACE_NONE, 0x33, 1, {51, 0, 0}},
        {PNG_COLOR_TYPE_GRAY, 16, PNG_INTERLACE_NONE, 0x80, 1, {128, 0, 0}},
        {PNG_COLOR_TYPE_GRAY_ALPHA, 8, PNG_INTERLACE_NONE, 9, 1, {9, 0, 0}},
        {PNG_COLOR_TYPE_RGB, 16, PNG_INTERLACE_ADAM7, 0x40, 3, {64, 64, 64}},
        {PNG_COLOR_TYPE_RGB_ALPHA, 8, PNG_INTERLACE_ADAM7, 7, 3, {7, 7, 7}},
        {PNG_COLOR_TYPE_RGB_ALPHA, 16, PNG_INTERLACE_NONE, 7, 3, {7, 7, 7}},
        {PNG_COLOR_TYPE_PALETTE, 8, PNG_INTERLACE_NONE, 1, 3, {200, 100, 50}},
        {PNG_COLOR_TYPE_PALETTE, 1, PNG_INTERLACE_ADAM7, 0, 3, {1, 2, 3}},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        write_foreign(scratch_path(s, "f.png"), cases[i].type, cases[i].depth, cases[i].interlace,
                      cases[i].fill);
        picture p = read_ok(s->path);
        assert_int_equal(p.width, 3);
        assert_int_equal(p.height, 2);
        assert_int_equal(p.channels, cases[i].channels);
        for (size_t k = 0; k < 6; k++) {
            assert_memory_equal(p.pixels + k * p.channels, cases[i].expected, p.channels);
        }
        free(p.pixels);
    }
}

static void damaged_pictures_are_refused(void **state)
{
    scratch *s = *state;
    uint8_t good[512], bad[513];
    write_foreign(scratch_path(s, "g.png"), PNG_COLOR_TYPE_RGB, 8, PNG_INTERLACE_NONE, 5);
    size_t n = read_bytes(s->path, good, sizeof good);
    scratch_path(s, "b.png");
    for (size_t cut = 0; cut < n; cut++) {
        vae_error err = {0};
        write_bytes(s->path, good, cut);
        assert_int_equal(read_any(s->path, &err), VAE_ERR_DATA);
        assert_non_null(strstr(err.text, s->path));
    }
    for (size_t bit = 0; bit < n * 8; bit++) {
        memcpy(bad, good, n);
        bad[bit / 8] ^= (uint8_t)(1 << bit % 8);
        write_bytes(s->path, bad, n);
        vae_status status = read_any(s->path, NULL);
        assert_true(status == VAE_OK || status == VAE_ERR_DATA);
        assert_true(status != VAE_OK || bit >= 33 * 8); /* signature and header are all checked */
    }
}

/* A header that says 16384 x 16384 in a file of a few bytes costs no memory. */
static void sizes_the_file_cannot_hold_are_refused(void **state)
{
    scratch *s = *state;
    uint8_t head[33] = {0x89, 'P', 'N', 'G', '\r', '\n', 0x1a, '\n', 0, 0, 0,
                        13,   'I', 'H', 'D', 'R',  0,    0,    0x40, 0, 0, 0,
                        0x40, 0,   8,   2,   0,    0,    0,    0,    0, 0, 0};
    vae_error err = {0};
    write_bytes(scratch_path(s, "h.png"), head, sizeof head);
    assert_int_equal(read_any(s->path, &err), VAE_ERR_DATA);
    assert_non_null(strstr(err.text, "cannot hold"));
    head[18] = 0x41;
    err = (vae_error){0};
    write_bytes(s->path, head, sizeof head);
    assert_int_equal(read_any(s->path, &err), VAE_ERR_DATA);
    assert_non_null(strstr(err.text, "expected 1 to 16384"));
    /* nor where it is asked for its size first: with a header of millions a side, or of none, or
     * with half a signature */
    for (size_t k = 0; k < 4; k++) {
        static const char *const says[] = {"cannot hold", "65536 x 4294967295", "0 x 3",
                                           "not a PNG"};
        static const uint8_t sides[][8] = {{0, 0, 0x40, 0, 0, 0, 0x40, 0},
                                           {0, 1, 0, 0, 0xff, 0xff, 0xff, 0xff},
                                           {0, 0, 0, 0, 0, 0, 0, 3},
                                           {0, 0, 0, 9, 0, 0, 0, 9}};
        memcpy(head + 16, sides[k], sizeof sides[k]);
        head[5] = k == 3 ? ')' : '\n';
        write_bytes(s->path, head, sizeof head);
        picture p;
        err = (vae_error){0};
        assert_int_equal(vae_picture_read(&p, s->path, VAE_PICTURE_HEADER, &err), VAE_ERR_DATA);
        assert_set_refused(s->path, VAE_SPLIT_TRAIN, VAE_ERR_DATA, says[k]);
    }
}

/* A picture whose pixels are asked for knows its size from the header before. */
static void sizes_are_read_from_headers(void **state)
{
    scratch *s = *state;
    const struct {
        int type, channels;
    } cases[] = {{PNG_COLOR_TYPE_GRAY, 1}, {PNG_COLOR_TYPE_RGB, 3}, {PNG_COLOR_TYPE_PALETTE, 3}};
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        picture h;
        write_foreign(scratch_path(s, "h.png"), cases[i].type, 8, PNG_INTERLACE_NONE, 1);
        assert_int_equal(vae_picture_read(&h, s->path, VAE_PICTURE_HEADER, NULL), VAE_OK);
        const picture p = read_ok(s->path);
        assert_true(h.width == p.width && h.height == p.height && h.channels == p.channels);
        assert_true(h.pixels == NULL && h.channels == (size_t)cases[i].channels);
        free(p.pixels);
    }
}

static void what_is_no_picture_is_refused(void **state)
{
    scratch *s = *state;
    vae_error err = {0};
    assert_int_equal(read_any(scratch_path(s, "none.png"), &err), VAE_ERR_IO);
    assert_int_equal(read_any(s->folder, NULL), VAE_ERR_DATA);
    write_bytes(scratch_path(s, "t.png"), "this is not a picture, it is text", 33);
    err = (vae_error){0};
    assert_int_equal(read_any(s->path, &err), VAE_ERR_DATA);
    assert_non_null(strstr(err.text, "not a picture"));
}

/* Netpbm's own examples of what its formats allow: comments, any white space, bits without any. */
static void netpbm_is_read(void **state)
{
    scratch *s = *state;
    static const struct {
        const char *bytes;
        size_t n, channels;
        uint8_t pixels[6];
    } cases[] = {
        {"P1 # bits\n3 2\n011\n1 0 #x\n0", 0, 1, {255, 0, 0, 0, 255, 255}},
        {"P2\n3#wide\n2\n# a comment\n15\n0 5 10\n15 1\t 2\n", 0, 1, {0, 85, 170, 255, 17, 34}},
        {"P3 1 2 65535 65535 0 32768\r\n257 128 129", 0, 3, {255, 0, 128, 1, 0, 1}},
        {"P4 3 2\n\x6f\x80\n", 10, 1, {255, 0, 0, 0, 255, 255}},
        {"P5\n3 2\n255\n\0\1\n P#", 17, 1, {0, 1, 10, 32, 80, 35}},
        {"P6 1 2 1000\n\3\xe8\0\0\1\xf4\0\2\0\3\3\xe7", 24, 3, {255, 0, 128, 1, 1, 255}},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        picture p = {0}, header = {0};
        vae_error err = {0};
        const size_t n = cases[i].n > 0 ? cases[i].n : strlen(cases[i].bytes);
        write_bytes(scratch_path(s, "p.pnm"), cases[i].bytes, n);
        vae_status status = vae_picture_read(&header, s->path, VAE_PICTURE_HEADER, &err);
        if (status == VAE_OK) {
            status = vae_picture_read(&p, s->path, 0, &err);
        }
        if (status != VAE_OK) {
            fail_msg("case %zu: %s", i, err.text);
        }
        assert_int_equal(p.width, 3 / cases[i].channels);
        assert_int_equal(p.height, 2);
        assert_int_equal(p.channels, cases[i].channels);
        assert_true(header.width == p.width && header.height == p.height &&
                    header.channels == p.channels);
        assert_memory_equal(p.pixels, cases[i].pixels, 6);
        free(p.pixels);
        /* each byte less is an end too early, but for white space behind it */
        for (size_t cut = 0; cut < n - (cases[i].bytes[n - 1] == '\n'); cut++) {
            picture none = {0};
            write_bytes(s->path, cases[i].bytes, cut);
            status = vae_picture_read(&none, s->path, 0, NULL);
            /* a plain number that loses its last digit is another number */
            const bool number = (i == 1 || i == 2) && cut >= n - 2;
            assert_true((status == VAE_ERR_DATA && none.pixels == NULL) || number);
            free(none.pixels);
        }
    }
}

static void damaged_netpbm_is_refused(void **state)
{
    scratch *s = *state;
    static const char *const cases[][2] = {
        {"P5 16385 2 255\n", "width: expected at most 16384"},
        {"P5 2 99999999999999999999 255\n", "height: expected at most 16384"},
        {"P5 2 2 65536\n", "largest value: expected at most 65535"},
        {"P5 2 0 255\n", "2 x 0 pixels of values up to 255: expected none 0"},
        {"P2 1 1 0 0\n", "1 x 1 pixels of values up to 0"},
        {"P6 9000 9000 255\n", "but 17 bytes cannot hold them"},
        {"P5 two 2 255\n", "width: expected a whole number, found something else"},
        {"P5 2 2", "largest value: expected a whole number, found the end of the file"},
        {"P2 2 1 7 1.5 2", "a pixel: a whole number runs into something else"},
        {"P2 2 1 7 8 2", "a pixel: expected values up to 7"},
        {"P1 2 1 0 2", "a pixel: expected values up to 1"},
        {"P5 2 2 255\nabc", "the file ends within its 2 x 2 pixels"},
        {"P5 1 1 255\nab", "and more behind them: expected one picture in a file"},
        {"P7\nWIDTH 1\n", "expected one of PNG, JPEG, PGM, PPM, PBM"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        picture p = {0};
        vae_error err = {0};
        write_bytes(scratch_path(s, "bad.pnm"), cases[i][0], strlen(cases[i][0]));
        assert_int_equal(vae_picture_read(&p, s->path, 0, &err), VAE_ERR_DATA);
        assert_null(p.pixels);
        if (strstr(err.text, cases[i][1]) == NULL || strstr(err.text, "bad.pnm") == NULL) {
            fail_msg("case %zu: expected '%s', found '%s'", i, cases[i][1], err.text);
        }
    }
}

static void failed_writes_leave_nothing(void **state)
{
    scratch *s = *state;
    const uint8_t pixel = 1;
    vae_error err = {0};
    assert_int_equal(vae_png_write(scratch_path(s, "no/x.png"), &pixel, 1, 1, 1, &err), VAE_ERR_IO);
    assert_non_null(strstr(err.text, "no/x.png"));
    assert_int_equal(vae_png_write(s->folder, &pixel, 1, 1, 1, NULL), VAE_ERR_IO);
    size_t before = count_files(s->folder);
    assert_int_equal(vae_png_write(scratch_path(s, "x.png"), &pixel, 0, 1, 1, NULL), VAE_ERR_USAGE);
    assert_int_equal(vae_png_write(s->path, &pixel, 1, 16385, 1, NULL), VAE_ERR_USAGE);
    assert_int_equal(vae_png_write(s->path, &pixel, 1, 1, 2, NULL), VAE_ERR_USAGE);
    assert_int_equal(count_files(s->folder), before);
    assert_int_equal(vae_png_write(s->path, &pixel, 1, 1, 1, NULL), VAE_OK);
    assert_int_equal(vae_png_write(s->path, &pixel, 1, 1, 1, NULL), VAE_OK);
    assert_int_equal(count_files(s->folder), before + 1);
}

/* What is not a regular file is written into, not replaced; a full device is an error. */
static void devices_and_pipes_are_written_into(void **state)
{
    scratch *s = *state;
    const uint8_t pixel = 1;
    uint8_t signature[8];
    struct stat info;
    assert_int_equal(mkfifo(scratch_path(s, "pipe"), 0600), 0);
    int fd = open(s->path, O_RDWR | O_NONBLOCK);
    assert_int_equal(vae_png_write(s->path, &pixel, 1, 1, 1, NULL), VAE_OK);
    assert_true(stat(s->path, &info) == 0 && S_ISFIFO(info.st_mode));
    assert_int_equal(read(fd, signature, sizeof signature), sizeof signature);
    assert_memory_equal(signature, "\x89PNG\r\n\x1a\n", sizeof signature);
    close(fd);
    if (stat("/dev/full", &info) != 0) {
        print_message("SKIPPED: full device: there is no /dev/full\n");
        skip();
    }
    /* By a link, so that a writer that replaces its target harms no device. */
    vae_error err = {0};
    assert_int_equal(symlink("/dev/full", scratch_path(s, "full")), 0);
    assert_int_equal(vae_png_write(s->path, &pixel, 1, 1, 1, &err), VAE_ERR_IO);
    assert_non_null(strstr(err.text, "No space left"));
}

static void grids_have_cells_gaps_and_zoom(void **state)
{
    scratch *s = *state;
    /* three pictures of 1 x 2 in two columns, zoom 2, gap 1: 11 x 7 pixels */
    const float rows[6] = {0.0f, 1.0f, 0.5f, NAN, -3.0f, 7.0f};
    assert_int_equal(vae_image_grid(scratch_path(s, "g.png"), rows, 3, 1, 2, 1, 2, 2, 1, NULL),
                     VAE_OK);
    picture p = read_ok(s->path);
    assert_int_equal(p.width, 11);
    assert_int_equal(p.height, 7);
    static const uint8_t expected[7][11] = {
        {64, 64, 64, 64, 64, 64, 64, 64, 64, 64, 64},
        {64, 0, 0, 255, 255, 64, 128, 128, 128, 128, 64},
        {64, 0, 0, 255, 255, 64, 128, 128, 128, 128, 64},
        {64, 64, 64, 64, 64, 64, 64, 64, 64, 64, 64},
        {64, 0, 0, 255, 255, 64, 64, 64, 64, 64, 64},
        {64, 0, 0, 255, 255, 64, 64, 64, 64, 64, 64},
        {64, 64, 64, 64, 64, 64, 64, 64, 64, 64, 64},
    };
    assert_memory_equal(p.pixels, expected, sizeof expected);
    free(p.pixels);

    const float colours[6] = {0, 0.5f, 1, 0, NAN, 0};
    assert_int_equal(vae_image_grid(s->path, colours, 1, 1, 2, 3, 9, 1, 0, NULL), VAE_OK);
    p = read_ok(s->path);
    assert_int_equal(p.width, 2); /* 9 columns are cut to the one there is */
    assert_memory_equal(p.pixels, ((const uint8_t[]){0, 128, 255, 255, 0, 255}), 6);
    free(p.pixels);
}

/* Three cells set apart by their columns, in two bands of a line each; zoom by itself. */
static void grids_have_wide_borders_and_choose_their_zoom(void **state)
{
    scratch *s = *state;
    const vae_grid_spec spec = {.cells = 6,
                                .height = 28,
                                .width = 20,
                                .channels = 1,
                                .columns = 3,
                                .gap = 2,
                                .apart = {1, 2},
                                .band = 1};
    float row[28 * 20];
    for (size_t i = 0; i < 28 * 20; i++) {
        row[i] = 1;
    }
    vae_grid grid;
    assert_int_equal(vae_grid_open(&grid, &spec, scratch_path(s, "wide.png"), NULL), VAE_OK);
    assert_int_equal(grid.spec.zoom, 2);
    assert_int_equal(grid.width, 3 * 40 + 4 * 2 + 2 * 8);
    assert_int_equal(grid.height, 2 * 56 + 3 * 2 + 4);
    vae_grid_draw(&grid, 5, row); /* the last cell reaches the border at the right and below */
    size_t white = 0;
    for (size_t i = 0; i < grid.width * grid.height; i++) {
        white += grid.pixels[i] == 255;
    }
    assert_int_equal(white, 40 * 56);
    assert_int_equal(grid.pixels[(grid.height - 3) * grid.width + grid.width - 3], 255);
    assert_int_equal(grid.pixels[(grid.height - 2) * grid.width + grid.width - 3], 64);
    vae_grid_close(&grid);

    vae_grid_spec large = spec; /* 700 columns fit only as they are */
    large.cells = large.columns = 700;
    assert_int_equal(vae_grid_open(&grid, &large, s->path, NULL), VAE_OK);
    assert_int_equal(grid.spec.zoom, 1);
    vae_grid_close(&grid);
    large.cells = large.columns = 800;
    vae_error err = {0};
    assert_int_equal(vae_grid_open(&grid, &large, s->path, &err), VAE_ERR_USAGE);
    assert_non_null(strstr(err.text, "ask for fewer"));
    vae_grid_close(&grid);
}

static void impossible_grids_are_refused(void **state)
{
    scratch *s = *state;
    const float row[4] = {0};
    static const size_t cases[][6] = {
        /* n, height, width, columns, zoom, gap */
        {0, 2, 2, 1, 1, 1},        {1, 2, 2, 0, 1, 1},
        {1, 2, 0, 1, 1, 1},        {1, 0, 2, 1, 1, 1},
        {1, 2, 2, 1, 10000, 1},    {1, 2, 2, 1, SIZE_MAX, 1},
        {1, 2, 2, 1, 1, SIZE_MAX}, {SIZE_MAX, 2, 2, SIZE_MAX, 1, 1},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        const size_t *c = cases[i];
        vae_error err = {0};
        assert_int_equal(vae_image_grid(scratch_path(s, "i.png"), row, c[0], c[1], c[2], 1, c[3],
                                        c[4], c[5], &err),
                         VAE_ERR_USAGE);
        assert_non_null(strstr(err.text, "i.png"));
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(pictures_come_back_as_written),
        cmocka_unit_test(other_formats_are_converted),
        cmocka_unit_test(damaged_pictures_are_refused),
        cmocka_unit_test(sizes_the_file_cannot_hold_are_refused),
        cmocka_unit_test(sizes_are_read_from_headers),
        cmocka_unit_test(what_is_no_picture_is_refused),
        cmocka_unit_test(netpbm_is_read),
        cmocka_unit_test(damaged_netpbm_is_refused),
        cmocka_unit_test(failed_writes_leave_nothing),
        cmocka_unit_test(devices_and_pipes_are_written_into),
        cmocka_unit_test(grids_have_cells_gaps_and_zoom),
        cmocka_unit_test(grids_have_wide_borders_and_choose_their_zoom),
        cmocka_unit_test(impossible_grids_are_refused),
    };
    return cmocka_run_group_tests(tests, scratch_setup, scratch_teardown);
}
