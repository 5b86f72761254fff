/* vae reconstruct: originals above what the model makes of them. */
#include <stdlib.h>

#include "cli/draw.h"
#include "image/image.h"

static vae_status choose_rows(drawing *d, uint32_t **rows, size_t *n, vae_error *err)
{
    static const char *const in_vain[] = {"n", NULL};
    const char *list = cli_value(d->args, "rows");
    vae_status status = VAE_OK;
    TRY(cli_size(d->args, "n", 20, 1, UINT32_MAX, n, err));
    if (list != NULL) {
        TRY(cli_refuse(d->args, in_vain, "with --rows, which says how many", err));
        TRY(draw_numbers(rows, n, "--rows", list, err));
    }
done:
    return status;
}

static vae_status run_reconstruct(const cli_args *args, vae_error *err)
{
    static const char *const in_vain[] = {"columns", NULL};
    drawing d = {0};
    uint32_t *rows = NULL;
    size_t n, columns;
    vae_status status = VAE_OK;
    TRY(draw_begin(&d, args, "reconstructions.png", false, err));
    TRY(cli_size(args, "columns", 0, 1, VAE_PNG_SIDE, &columns, err));
    if (d.kind != VAE_SINK_PNG) {
        TRY(cli_refuse(args, in_vain, "where --out is no .png", err));
    }
    TRY(choose_rows(&d, &rows, &n, err));
    TRY(cli_open_set(&d.m, args, err));
    if (rows != NULL) {
        TRY(draw_find_rows(&d.m, rows, n, "--rows", err));
    } else {
        n = n < d.m.set->n ? n : d.m.set->n;
    }
    TRY(draw_open_model(&d, err));
    TRY(vae_trained_put(&d.m, rows, n, err));
    const bool mixed = rows == NULL && d.m.set->factor_sizes != NULL;
    TRY(vae_paint_reconstructions(&d.painter, d.out, n, mixed, columns, err));
    draw_say(&d, n, "reconstruction", "", NULL);
done:
    draw_close(&d);
    free(rows);
    return status;
}

static const cli_option reconstruct_options[] = {
    CLI_DATA_OPTIONS,
    {"n", 'n', "N", "how many, from the first row on [20]"},
    {"rows", 0, "I,J,...", "which rows, from 0, in this order"},
    {"out", 'o', "FILE", ".png (a grid), a folder, .npy, or - [reconstructions.png]"},
    {"columns", 0, "N", "of a grid [10]"},
    CLI_MODEL_OPTIONS,
};

const cli_command cli_reconstruct_command = {
    .name = "reconstruct",
    .words = "RUN",
    .n_words = 1,
    .help = "A grid of originals above their reconstructions.",
    .examples = "  vae reconstruct runs/mnist --out recon.png\n"
                "  vae reconstruct runs/mnist --rows 3,14,159\n"
                "  vae reconstruct runs/mnist --data other.npy --split train -n 50\n",
    CLI_OPTIONS(reconstruct_options),
    .run = run_reconstruct,
};
