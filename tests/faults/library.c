/* libvae as a program uses it, while something fails: each call must say so by its result and a
 * message, leave the handle as it was, and work when it is made again. Prints a hash of all that the
 * library gave, which must be that of an undisturbed run; ends with 1 where a rule is broken. Where
 * LASTING is in the environment what fails goes on failing: then calls need not work again, nor is
 * there a hash. */
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "vae.h"

enum { N = 12, SIDE = 4, D = SIDE * SIDE, Z = 2 };

static int broken, lasting;
static uint64_t hash = 0xcbf29ce484222325u; /* FNV-1a */

static void take(const void *bytes, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        hash = (hash ^ ((const unsigned char *)bytes)[i]) * 0x100000001b3u;
    }
}

/* Is the call to be made again? */
static int again(const char *what, int result, const vae *v, int *tries)
{
    if (result == VAE_RESULT_OK) {
        return 0;
    }
    fprintf(stderr, "%s: %d: %s\n", what, result, vae_message(v));
    /* without the model that was to be fitted the calls behind it are wrong */
    if (result != VAE_RESULT_RUNTIME && result != VAE_RESULT_IO &&
        !(lasting && result == VAE_RESULT_USAGE)) {
        fprintf(stderr, "vae: %s: result %d of what is no fault of the data\n", what, result);
        broken = 1;
    }
    if (vae_message(v)[0] == '\0') {
        fprintf(stderr, "vae: %s: no message\n", what);
        broken = 1;
    }
    if (++*tries > 1) {
        if (!lasting) {
            fprintf(stderr, "vae: %s: it does not work the second time\n", what);
            broken = 1;
        }
        return 0;
    }
    return 1;
}

#define CALL(what, call)                                                                           \
    do {                                                                                           \
        int tries_ = 0;                                                                            \
        while (again(what, (call), v, &tries_)) {                                                  \
        }                                                                                          \
    } while (0)

static void use(vae *v, const unsigned char *x)
{
    float mu[N * Z], logvar[N * Z], z[N * Z], x_hat[N * D], elbo[N], recon[N], kl[N];
    struct vae_shape shape = {0};
    CALL("vae_get_shape", vae_get_shape(v, &shape, sizeof shape));
    take(&shape, sizeof shape);
    memset(mu, 0, sizeof mu);
    CALL("vae_encode", vae_encode(v, x, VAE_BYTES, N, mu, logvar, z));
    take(mu, sizeof mu);
    take(logvar, sizeof logvar);
    take(z, sizeof z);
    CALL("vae_decode", vae_decode(v, z, N, x_hat));
    take(x_hat, sizeof x_hat);
    CALL("vae_reconstruct", vae_reconstruct(v, x, VAE_BYTES, N, x_hat));
    take(x_hat, sizeof x_hat);
    CALL("vae_sample", vae_sample(v, N, x_hat, z));
    take(x_hat, sizeof x_hat);
    CALL("vae_score", vae_score(v, x, VAE_BYTES, N, elbo, recon, kl));
    take(elbo, sizeof elbo);
}

static void log_line(void *context, const char *line)
{
    (void)context;
    (void)line;
}

int main(int argc, char **argv)
{
    static const char *const options[][2] = {{"hidden", "3"},   {"latent", "2"},
                                             {"epochs", "2"},   {"batch-size", "4"},
                                             {"device", "cpu"}, {"threads", "1"}};
    static const char *const names[] = {"w.safetensors", "w.npz", "w.vae"};
    unsigned char x[N * D];
    (void)argc;
    (void)argv;
    lasting = getenv("LASTING") != NULL;
    signal(SIGXFSZ, SIG_IGN); /* the program's to say, not the library's */
    for (size_t i = 0; i < sizeof x; i++) {
        x[i] = (unsigned char)(i * 37 % 251);
    }
    vae *v = vae_new();
    v = v != NULL ? v : vae_new();
    if (v == NULL) {
        fprintf(stderr, "vae_new: twice no memory\n");
        return !lasting;
    }
    vae_on_log(v, log_line, NULL);
    for (size_t i = 0; i < sizeof options / sizeof options[0]; i++) {
        CALL(options[i][0], vae_set_option(v, options[i][0], options[i][1]));
    }
    CALL("vae_fit", vae_fit(v, x, VAE_BYTES, N, SIDE, SIDE, 1));
    use(v, x);
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) {
        CALL(names[i], vae_save(v, names[i]));
        CALL(names[i], vae_load(v, names[i]));
        use(v, x);
    }
    if (vae_load(v, "nothing") == VAE_RESULT_OK) {
        fprintf(stderr, "vae: what is not there was loaded\n");
        broken = 1;
    }
    use(v, x);
    /* with a run folder; the second time another one, as the first is not empty */
    const char *folder = "run";
    for (int i = 0, result = 1; i < 2 && result != VAE_RESULT_OK; i++, folder = "run-2") {
        CALL("out", vae_set_option(v, "out", folder));
        result = vae_fit(v, x, VAE_BYTES, N, SIDE, SIDE, 1);
        if (result != VAE_RESULT_OK) {
            int tries = i;
            again("vae_fit in a folder", result, v, &tries);
            /* the report or a picture was lost, not the model */
            result = result == VAE_RESULT_IO && strstr(vae_message(v), "training itself is done")
                         ? 0
                         : result;
        }
    }
    use(v, x);
    vae_free(v);
    if (!lasting) {
        printf("%016llx\n", (unsigned long long)hash);
    }
    return broken;
}
