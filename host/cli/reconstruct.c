/* vae reconstruct. */
#include <stdlib.h>

#include "cli/draw.h"
#include "image/image.h"

static vae_status choose_rows(drawing *d, uint32_t **rows, size_t *n, vae_error *err)
{
    const char *list = cli_value(d->args, "rows");
    vae_status status = cli_size(d->args, "n", 20, 1, UINT32_MAX, n, err);
    if (status != VAE_OK || list == NULL) {
        return status;
    }
    static const char *const in_vain[] = {"n", NULL};
    status = draw_refuse(d->args, in_vain, "with --rows, which says how many", err);
    return status == VAE_OK ? draw_numbers(rows, n, "--rows", list, err) : status;
}

vae_status cli_reconstruct(const cli_args *args, vae_error *err)
{
    drawing d = {0};
    uint32_t *rows = NULL;
    size_t n, columns;
    static const char *const in_vain[] = {"columns", NULL};
    vae_status status = draw_begin(&d, args, "reconstructions.png", false, err);
    status =
        status == VAE_OK ? cli_size(args, "columns", 0, 1, VAE_PNG_SIDE, &columns, err) : status;
    if (status == VAE_OK && d.kind != VAE_SINK_PNG) {
        status = draw_refuse(args, in_vain, "where --out is no .png", err);
    }
    if (status == VAE_OK && (status = choose_rows(&d, &rows, &n, err)) == VAE_OK &&
        (status = cli_open_set(&d.m, args, err)) == VAE_OK) {
        n = rows != NULL || n < d.m.set->n ? n : d.m.set->n;
        status = rows != NULL ? draw_check_rows(&d.m, rows, n, "--rows", err) : VAE_OK;
    }
    if (status == VAE_OK && (status = draw_open_model(&d, err)) == VAE_OK &&
        (status = draw_open_rows(&d, rows, n, err)) == VAE_OK) {
        const bool mixed = rows == NULL && d.m.set->factor_sizes != NULL;
        status = vae_paint_reconstructions(&d.painter, d.out, d.m.data, n, mixed, columns, err);
    }
    if (status == VAE_OK) {
        cli_progress_clear(&d.progress);
        draw_report(&d, n, "reconstructions", NULL);
    }
    draw_close(&d);
    free(rows);
    return status;
}
