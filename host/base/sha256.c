/* SHA-256 by libcrypto, which uses the CPU's instructions for it. */
#include "base/sha256.h"

#include <openssl/evp.h>
#include <stdbool.h>
#include <stdlib.h>

struct vae_sha256_sum {
    EVP_MD_CTX *ctx;
    bool good;
};

void vae_sha256_drop(vae_sha256_sum *sum)
{
    if (sum != NULL) {
        EVP_MD_CTX_free(sum->ctx);
        free(sum);
    }
}

vae_status vae_sha256_begin(vae_sha256_sum **out, vae_error *err)
{
    vae_sha256_sum *sum = calloc(1, sizeof *sum);
    *out = sum;
    if (sum == NULL) {
        return vae_fail_memory(err, sizeof *sum, "a SHA-256");
    }
    sum->ctx = EVP_MD_CTX_new();
    sum->good = sum->ctx != NULL && EVP_DigestInit_ex(sum->ctx, EVP_sha256(), NULL);
    return VAE_OK;
}

void vae_sha256_add(vae_sha256_sum *sum, const void *bytes, size_t n)
{
    sum->good = sum->good && EVP_DigestUpdate(sum->ctx, bytes, n);
}

vae_status vae_sha256_end(vae_sha256_sum **sum, uint8_t digest[VAE_SHA256_BYTES], vae_error *err)
{
    const bool good = (*sum)->good && EVP_DigestFinal_ex((*sum)->ctx, digest, NULL);
    vae_sha256_drop(*sum);
    *sum = NULL;
    return good ? VAE_OK
                : vae_fail(err, VAE_ERR_RUNTIME,
                           "libcrypto cannot compute a SHA-256: it has no memory, or its "
                           "configuration does not allow it");
}

vae_status vae_sha256(uint8_t digest[VAE_SHA256_BYTES], const struct iovec *parts, size_t n,
                      vae_error *err)
{
    vae_sha256_sum *sum;
    const vae_status status = vae_sha256_begin(&sum, err);
    for (size_t i = 0; status == VAE_OK && i < n; i++) {
        vae_sha256_add(sum, parts[i].iov_base, parts[i].iov_len);
    }
    return status == VAE_OK ? vae_sha256_end(&sum, digest, err) : status;
}

void vae_sha256_hex(const uint8_t digest[VAE_SHA256_BYTES], char hex[VAE_SHA256_HEX])
{
    static const char digits[] = "0123456789abcdef";
    for (size_t i = 0; i < VAE_SHA256_BYTES; i++) {
        hex[2 * i] = digits[digest[i] >> 4];
        hex[2 * i + 1] = digits[digest[i] & 15];
    }
    hex[2 * VAE_SHA256_BYTES] = '\0';
}
