/* SHA-256 by libcrypto, which uses the CPU's instructions for it. */
#include "base/sha256.h"

#include <openssl/evp.h>

vae_status vae_sha256(uint8_t digest[VAE_SHA256_BYTES], const struct iovec *parts, size_t n,
                      vae_error *err)
{
    EVP_MD_CTX *ctx = EVP_MD_CTX_new();
    int ok = ctx != NULL && EVP_DigestInit_ex(ctx, EVP_sha256(), NULL);
    for (size_t i = 0; i < n && ok; i++) {
        ok = EVP_DigestUpdate(ctx, parts[i].iov_base, parts[i].iov_len);
    }
    ok = ok && EVP_DigestFinal_ex(ctx, digest, NULL);
    EVP_MD_CTX_free(ctx);
    return ok ? VAE_OK
              : vae_fail(err, VAE_ERR_RUNTIME,
                         "libcrypto cannot compute a SHA-256: it has no memory, or its "
                         "configuration does not allow it");
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
