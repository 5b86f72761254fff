/* What ranks say to each other, over whatever carries it; alone, nothing. */
#include "ranks/ranks.h"

#include <limits.h>
#include <stdlib.h>
#include <string.h>

#include "base/sha256.h"

/* ---- shares ---- */

/* First row of rank r: r*all/n without a product that overflows. */
static size_t begin_of(size_t r, size_t n, size_t all)
{
    return r * (all / n) + r * (all % n) / n;
}

vae_share vae_ranks_share_of(const vae_ranks *ranks, size_t rank, size_t all)
{
    const size_t n = vae_ranks_n(ranks), first = begin_of(rank, n, all);
    return (vae_share){all, first, begin_of(rank + 1, n, all) - first};
}

vae_share vae_ranks_share(const vae_ranks *ranks, size_t all)
{
    return vae_ranks_share_of(ranks, vae_ranks_number(ranks), all);
}

size_t vae_ranks_most(const vae_ranks *ranks, size_t all)
{
    const size_t n = vae_ranks_n(ranks);
    return all / n + (all % n > 0);
}

/* ---- collective ---- */

vae_status vae_ranks_sum_floats(const vae_ranks *ranks, float *v, size_t n, vae_error *err)
{
    return ranks != NULL ? ranks->calls->sum_floats(ranks, v, n, err) : VAE_OK;
}

vae_status vae_ranks_sum_doubles(const vae_ranks *ranks, double *v, size_t n, vae_error *err)
{
    return ranks != NULL ? ranks->calls->sum_doubles(ranks, v, n, err) : VAE_OK;
}

vae_status vae_ranks_largest(const vae_ranks *ranks, uint64_t *v, size_t n, vae_error *err)
{
    return ranks != NULL ? ranks->calls->most(ranks, v, n, err) : VAE_OK;
}

vae_status vae_ranks_slowest(const vae_ranks *ranks, double *seconds, vae_error *err)
{
    uint64_t ns = (uint64_t)(*seconds * 1e9);
    vae_status status = VAE_OK;
    if (ranks == NULL) {
        return VAE_OK;
    }
    TRY(vae_ranks_largest(ranks, &ns, 1, err));
    *seconds = (double)ns / 1e9;
done:
    return status;
}

vae_status vae_ranks_broadcast(const vae_ranks *ranks, void *from_first, size_t bytes,
                               vae_error *err)
{
    return ranks != NULL ? ranks->calls->broadcast(ranks, from_first, bytes, 0, err) : VAE_OK;
}

/* Pieces of share(r) rows each, r's from row first(r) on. */
static vae_status gather_pieces(const vae_ranks *ranks, void *all, size_t rows, size_t row_bytes,
                                vae_error *err)
{
    vae_status status = VAE_OK;
    int *bytes = malloc(2 * ranks->n * sizeof *bytes);
    if (bytes == NULL) {
        TRY(vae_fail_memory(err, 2 * ranks->n * sizeof *bytes, "the ranks' shares"));
    }
    int *at = bytes + ranks->n;
    if (row_bytes > 0 && rows > (size_t)INT_MAX / row_bytes) {
        TRY(vae_fail(err, VAE_ERR_RUNTIME, "%zu rows of %zu bytes are too many for one message",
                     rows, row_bytes));
    }
    for (size_t r = 0; r < ranks->n; r++) {
        const vae_share share = vae_ranks_share_of(ranks, r, rows);
        bytes[r] = (int)(share.n * row_bytes);
        at[r] = (int)(share.first * row_bytes);
    }
    TRY(ranks->calls->gather(ranks, all, bytes, at, err));
done:
    free(bytes);
    return status;
}

vae_status vae_ranks_gather(const vae_ranks *ranks, void *all, size_t bytes, vae_error *err)
{
    return ranks != NULL ? gather_pieces(ranks, all, ranks->n, bytes, err) : VAE_OK;
}

vae_status vae_ranks_gather_rows(const vae_ranks *ranks, void *rows, size_t n, size_t row_bytes,
                                 vae_error *err)
{
    return ranks != NULL && rows != NULL ? gather_pieces(ranks, rows, n, row_bytes, err) : VAE_OK;
}

/* What a rank that failed tells the others. */
typedef struct {
    int status;
    char host[sizeof(((vae_ranks *)NULL)->host)];
    char text[VAE_ERROR_TEXT];
} failure;

vae_status vae_ranks_all_ok(const vae_ranks *ranks, vae_status status, vae_error *err)
{
    if (ranks == NULL) {
        return status;
    }
    /* the first that failed has the largest number here; and did any do well? */
    uint64_t v[2] = {status != VAE_OK ? ranks->n - ranks->rank : 0, status == VAE_OK};
    vae_error inner = {0};
    failure f = {.status = (int)status};
    if (ranks->calls->most(ranks, v, 2, &inner) != VAE_OK) {
        return vae_fail(err, inner.status, "%s", inner.text);
    }
    if (v[0] == 0) {
        return VAE_OK;
    }
    const size_t first = ranks->n - (size_t)v[0];
    memcpy(f.host, ranks->host, sizeof f.host);
    memcpy(f.text, err->text, sizeof f.text);
    if (ranks->calls->broadcast(ranks, &f, sizeof f, first, &inner) != VAE_OK) {
        return vae_fail(err, inner.status, "%s", inner.text);
    }
    err->status = VAE_OK; /* what the first says is what all say */
    return v[1] == 0 || first == 0 ? vae_fail(err, (vae_status)f.status, "%s", f.text)
                                   : vae_fail(err, (vae_status)f.status,
                                              "rank %zu on %.60s: %.900s", first, f.host, f.text);
}

vae_status vae_ranks_same(const vae_ranks *ranks, const void *here, size_t bytes, const char *what,
                          vae_error *err)
{
    typedef struct {
        uint8_t digest[VAE_SHA256_BYTES];
        char host[64];
    } piece;
    const struct iovec part = {(void *)(uintptr_t)here, bytes};
    vae_status status = VAE_OK;
    if (ranks == NULL) {
        return VAE_OK;
    }
    piece *all = calloc(ranks->n, sizeof *all);
    if (all == NULL) {
        TRY(vae_fail_memory(err, ranks->n * sizeof *all, "checksums"));
    }
    TRY(vae_sha256(all[ranks->rank].digest, &part, 1, err));
    memcpy(all[ranks->rank].host, ranks->host, sizeof all->host);
    TRY(vae_ranks_gather(ranks, all, sizeof *all, err));
    for (size_t r = 1; r < ranks->n; r++) {
        if (memcmp(all[r].digest, all[0].digest, sizeof all->digest) != 0) {
            TRY(vae_fail(err, VAE_ERR_RUNTIME, "%s: rank %zu on %s and rank 0 on %s differ", what,
                         r, all[r].host, all[0].host));
        }
    }
done:
    free(all);
    return status;
}
