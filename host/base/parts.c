/* A file put together from pieces of memory. */
#include "base/parts.h"

#include <stdlib.h>
#include <string.h>

#include "base/file.h"

static bool make_room(vae_parts *p)
{
    if (p->failed || p->n < p->capacity) {
        return !p->failed;
    }
    size_t capacity = p->capacity == 0 ? 32 : 2 * p->capacity;
    struct iovec *parts = realloc(p->parts, capacity * sizeof *parts);
    if (parts == NULL) {
        p->failed = true;
        return false;
    }
    p->parts = parts;
    bool *owned = realloc(p->owned, capacity * sizeof *owned);
    if (owned == NULL) {
        p->failed = true;
        return false;
    }
    p->owned = owned;
    p->capacity = capacity;
    return true;
}

static void add(vae_parts *p, void *bytes, size_t n, bool owned)
{
    if (bytes == NULL && n > 0) {
        p->failed = true;
    }
    if (!make_room(p)) {
        if (owned) {
            free(bytes);
        }
        return;
    }
    p->parts[p->n] = (struct iovec){bytes, n};
    p->owned[p->n++] = owned;
    p->bytes += n;
}

void vae_parts_borrow(vae_parts *p, const void *bytes, size_t n)
{
    /* iovec is not const-correct; the bytes are only read */
    add(p, (void *)(uintptr_t)bytes, n, false);
}

void vae_parts_own(vae_parts *p, void *bytes, size_t n)
{
    add(p, bytes, n, true);
}

void vae_parts_copy(vae_parts *p, const void *bytes, size_t n)
{
    void *copy = malloc(n > 0 ? n : 1);
    if (copy != NULL && n > 0) {
        memcpy(copy, bytes, n);
    }
    p->failed = p->failed || copy == NULL;
    add(p, copy, n, true);
}

vae_status vae_parts_put(vae_parts *p, const char *path, vae_error *err)
{
    vae_status status = p->failed ? vae_fail(err, VAE_ERR_RUNTIME, "%s: out of memory", path)
                                  : vae_file_put(path, p->parts, p->n, err);
    vae_parts_clear(p);
    return status;
}

void vae_parts_clear(vae_parts *p)
{
    for (size_t i = 0; i < p->n; i++) {
        if (p->owned[i]) {
            free(p->parts[i].iov_base);
        }
    }
    free(p->parts);
    free(p->owned);
    *p = (vae_parts){0};
}
