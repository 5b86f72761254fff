/* What a command says: lines on stderr, JSON on standard output. */
#include <math.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include "base/text.h"
#include "cli/cli.h"

void cli_say(const cli_args *args, const char *format, ...)
{
    if (args->quiet) {
        return;
    }
    char line[VAE_ERROR_TEXT];
    va_list list;
    va_start(list, format);
    vsnprintf(line, sizeof line, format, list);
    va_end(list);
    vae_escape(line, sizeof line);
    fprintf(stderr, "vae: %s\n", line);
}

_Noreturn void cli_out_of_memory(size_t n, const char *what)
{
    fprintf(stderr, "vae: out of memory: %zu bytes for %s\n", n, what);
    exit(VAE_ERR_RUNTIME);
}

void cli_print(const char *format, ...)
{
    va_list list, again;
    va_start(list, format);
    va_copy(again, list);
    const int n = vsnprintf(NULL, 0, format, list);
    const size_t size = n > 0 ? 4 * (size_t)n + 1 : 1; /* were every byte escaped */
    char *line = malloc(size);
    if (line == NULL) {
        cli_out_of_memory(size, "a line");
    }
    vsnprintf(line, size, format, again);
    vae_escape(line, size);
    puts(line);
    free(line);
    va_end(again);
    va_end(list);
}

const char *cli_meant(char text[64], const vae_nearest *nearest, const char *otherwise)
{
    if (nearest->best != NULL) {
        snprintf(text, 64, "; did you mean '%.40s'?", nearest->best);
        return text;
    }
    return otherwise;
}

void cli_print_json(json_t *o, size_t digits)
{
    json_dumpf(o, stdout, JSON_INDENT(2) | JSON_REAL_PRECISION(digits));
    putchar('\n');
    json_decref(o);
}

json_t *cli_json_real(double value)
{
    return isfinite(value) ? json_real(value) : json_null();
}

json_t *cli_json_text(const char *text)
{
    return text != NULL && text[0] != '\0' ? json_string(text) : json_null();
}

vae_status cli_check_out(const cli_args *args, const char *out, vae_error *err)
{
    return args->json && out != NULL && strcmp(out, "-") == 0
               ? vae_fail(err, VAE_ERR_USAGE, "--out -: --json has standard output; name a file")
               : VAE_OK;
}

void cli_json_bytes(json_t *o, const vae_byte_figures *bytes)
{
    json_object_set_new(o, "psnr", cli_json_real(bytes->psnr));
    json_object_set_new(o, "bits_per_dim", cli_json_real(bytes->bits));
    json_object_set_new(o, "dequantization",
                        isnan(bytes->bits) ? json_null()
                                           : json_string("uniform, 1/256 wide, expected value"));
}

void cli_print_bytes(const vae_byte_figures *bytes, const char *where)
{
    if (!isnan(bytes->bits)) {
        printf("bits per dim  %.4f (ELBO's bound for bytes: uniform noise of width 1/256 added to "
               "x, its expected value)\n",
               bytes->bits);
    }
    if (bytes->n > 0) {
        printf("psnr          %.3f dB (mean at %s, one squared error over all values)\n",
               bytes->psnr, where);
    }
}
