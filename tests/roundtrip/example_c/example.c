/* Trains on rows in memory, finds the row that does not belong, and saves the model.
 *
 *   cc example.c -o example $(pkg-config --cflags --libs libvae) -lm && ./example model.safetensors
 */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#include <vae.h>

enum { N = 512, SIDE = 8, D = SIDE * SIDE };

static void check(vae *v, int result)
{
    if (result != VAE_RESULT_OK) {
        fprintf(stderr, "example: %s: %s\n", vae_result_text(result), vae_message(v));
        exit(result);
    }
}

static int tell(void *context, const struct vae_epoch *e)
{
    (void)context;
    printf("epoch %lu/%lu  elbo %.2f  (recon %.2f, kl %.2f)\n", e->number, e->of, e->elbo, e->recon,
           e->kl);
    return 0; /* go on */
}

int main(int argc, char **argv)
{
    static unsigned char x[N * D]; /* pictures of a bright bar, each at its own place */
    static float score[N], mu[N * 2], logvar[N * 2], x_hat[N * D];
    for (int i = 0; i < N * D; i++) {
        x[i] = i % SIDE == i / D % SIDE ? 255 : 0;
    }
    for (int i = 0; i < D; i++) {
        x[100 * D + i] = (unsigned char)(i * 4); /* and one that is none */
    }
    vae *v = vae_new();
    static const char *const options[][2] = {
        {"hidden", "64"}, {"latent", "2"}, {"epochs", "20"}, {"lr", "0.005"}};
    for (int i = 0; i < 4; i++) {
        check(v, vae_set_option(v, options[i][0], options[i][1]));
    }
    vae_on_epoch(v, tell, NULL);
    check(v, vae_fit(v, x, VAE_BYTES, N, SIDE, SIDE, 1));
    check(v, vae_score(v, x, VAE_BYTES, N, score, NULL, NULL));
    int odd = 0;
    for (int i = 1; i < N; i++) {
        odd = score[i] > score[odd] ? i : odd;
    }
    check(v, vae_encode(v, x, VAE_BYTES, N, mu, logvar, NULL));
    check(v, vae_reconstruct(v, x, VAE_BYTES, N, x_hat));
    printf("row %d stands out: -ELBO %.1f nats, z at (%.2f +- %.2f, %.2f +- %.2f)\n", odd,
           score[odd], mu[2 * odd], exp(logvar[2 * odd] / 2), mu[2 * odd + 1],
           exp(logvar[2 * odd + 1] / 2));
    if (argc > 1) {
        check(v, vae_save(v, argv[1]));
        check(v, vae_load(v, argv[1]));
    }
    vae_free(v);
    return odd == 100 ? 0 : 1;
}
