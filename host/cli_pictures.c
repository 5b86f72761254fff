/* vae sample, vae reconstruct. */
#include <jansson.h>

#include "cli.h"
#include "trainer.h"

enum { BATCH = 256, MOST_PICTURES = 10000 };

static void print_result(const cli_args *args, const cli_model *m, const char *out, size_t n,
                         const char *what)
{
    if (!args->json) {
        cli_say(args, "%s: %zu %s of %s", out, n, what, m->path);
        return;
    }
    json_t *o = json_pack("{s:i, s:s, s:s, s:I}", "schema", 1, "checkpoint", m->path, "out", out,
                          "n", (json_int_t)n);
    json_dumpf(o, stdout, JSON_INDENT(2));
    putchar('\n');
    json_decref(o);
}

vae_status cli_sample(const cli_args *args, vae_error *err)
{
    cli_model m = {0};
    size_t n, seed;
    double temperature;
    const char *out = cli_value(args, "out");
    out = out != NULL ? out : "samples.png";
    vae_status status = cli_size(args, "n", 64, 1, MOST_PICTURES, &n, err);
    if (status == VAE_OK &&
        (status = cli_size(args, "seed", 1, 0, SIZE_MAX, &seed, err)) == VAE_OK &&
        (status = cli_real(args, "temperature", 1, 0, 1000, &temperature, err)) == VAE_OK &&
        (status = cli_open_checkpoint(&m, args, false, err)) == VAE_OK &&
        (status = cli_open_model(&m, BATCH, 1, err)) == VAE_OK &&
        (status = vae_draw_samples(m.model, m.checkpoint, n, seed, temperature, out, err)) ==
            VAE_OK) {
        print_result(args, &m, out, n, "samples");
    }
    cli_close(&m);
    return status;
}

vae_status cli_reconstruct(const cli_args *args, vae_error *err)
{
    cli_model m = {0};
    size_t n;
    const char *out = cli_value(args, "out");
    out = out != NULL ? out : "reconstructions.png";
    vae_status status = cli_size(args, "n", 20, 1, MOST_PICTURES, &n, err);
    if (status == VAE_OK && (status = cli_open_checkpoint(&m, args, false, err)) == VAE_OK &&
        (status = cli_open_set(&m, args, err)) == VAE_OK &&
        (status = cli_open_model(&m, BATCH, 1, err)) == VAE_OK &&
        (status = cli_open_data(&m, err)) == VAE_OK) {
        n = n < m.set->n ? n : m.set->n;
        status = vae_draw_reconstructions(m.model, m.checkpoint, m.data, n,
                                          m.set->factor_sizes != NULL, BATCH, out, err);
    }
    if (status == VAE_OK) {
        print_result(args, &m, out, n, "reconstructions");
    }
    cli_close(&m);
    return status;
}
