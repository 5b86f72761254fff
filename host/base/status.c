/* Errors: the first of them, as text. */
#include "base/status.h"

#include <stdio.h>

#include "base/text.h"

vae_status vae_fail(vae_error *err, vae_status status, const char *format, ...)
{
    if (err != NULL && err->status == VAE_OK) {
        va_list args;
        va_start(args, format);
        vsnprintf(err->text, sizeof err->text, format, args);
        va_end(args);
        vae_escape(err->text, sizeof err->text);
        err->status = status;
    }
    return status;
}

vae_status vae_fail_memory(vae_error *err, unsigned long long n, const char *what)
{
    return vae_fail(err, VAE_ERR_RUNTIME, "out of memory: %llu bytes for %s", n, what);
}
