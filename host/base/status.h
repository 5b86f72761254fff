/* Errors. Every fallible function returns a vae_status and takes a vae_error to say why; the value
 * of a status is the exit code of the program. */
#ifndef VAE_STATUS_H
#define VAE_STATUS_H

#include <stdarg.h>
#include <stdbool.h>

#include "base/note.h"

typedef enum {
    VAE_OK = 0,
    VAE_ERR_RUNTIME = 1,     /* out of memory, a library failed */
    VAE_ERR_USAGE = 2,       /* bad option, bad combination of options */
    VAE_ERR_DATA = 3,        /* bad data set, checkpoint or weights file */
    VAE_ERR_IO = 4,          /* cannot open, read or write; disk full */
    VAE_ERR_DIVERGED = 5,    /* NaN or Inf in the loss or the gradient */
    VAE_ERR_NO_DEVICE = 6,   /* the GPU asked for is not there */
    VAE_ERR_INTERRUPTED = 7, /* SIGINT or SIGTERM: state is saved; main re-raises the signal */
} vae_status;

enum { VAE_ERROR_TEXT = 1024 };

/* The first error of an operation. Zero-initialize it; later errors do not replace the first. */
typedef struct {
    vae_status status;
    /* one line, lower case, no "vae: " in front, no newline; control characters are escaped */
    char text[VAE_ERROR_TEXT];
    const vae_notes *notes; /* told what is wrong but no failure; NULL: nobody is */
} vae_error;

/* Records status and a printf-style message unless err already holds an error. err may be NULL.
 * Returns status, so that `return vae_fail(err, VAE_ERR_IO, "%s: %s", ...)` reads well. */
vae_status vae_fail(vae_error *err, vae_status status, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

/* The way every function here that can fail in more than one place is written:
 *
 *     vae_status status = VAE_OK;
 *     char *text = NULL;
 *     TRY(read_text(&text, path, err));
 *     TRY(parse(out, text, err));
 *     if (out->n == 0) {
 *         TRY(vae_fail(err, VAE_ERR_DATA, "%s: no rows", path));
 *     }
 * done:
 *     free(text);
 *     return status;
 *
 * Each call says what it needs; the first that fails leads to `done`, where what was taken is given
 * back, on success too. So what `done` frees is declared, and empty, above the first TRY. Where
 * nothing is held and nothing follows, plain `return vae_fail(...)` and `return f(...)` are shorter
 * and as clear. */
#define TRY(call)                                                                                  \
    do {                                                                                           \
        status = (call);                                                                           \
        if (status != VAE_OK) {                                                                    \
            goto done;                                                                             \
        }                                                                                          \
    } while (0)

/* vae_fail for a failed allocation of n bytes for `what`. */
vae_status vae_fail_memory(vae_error *err, unsigned long long n, const char *what);

#endif
