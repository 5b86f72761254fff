/* Writing NPZ: a zip archive of stored members (APPNOTE.TXT 4.3). Sizes and offsets from 2^32 - 1
 * up go into zip64 fields; smaller archives have none. */
#include "format/npz.h"

#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <zlib.h>

enum { DATE_1980 = 0x0021 /* 1980-01-01, the first day of a zip, as numpy writes */ };
static const uint64_t max_32 = 0xffffffff;

typedef struct {
    uint8_t bytes[128];
    size_t n;
} record;

static void put(record *r, uint64_t value, size_t bytes)
{
    assert(r->n + bytes <= sizeof r->bytes);
    for (size_t i = 0; i < bytes; i++) {
        r->bytes[r->n++] = (uint8_t)(value >> 8 * i);
    }
}

static uint64_t or_max(uint64_t value)
{
    return value >= max_32 ? max_32 : value;
}

/* What local header and directory entry have in common, from "version needed" on. */
static void put_common(record *r, const struct vae_npz_written *m, bool zip64, size_t extra)
{
    put(r, zip64 ? 45 : 20, 2);
    put(r, 0, 2); /* flags */
    put(r, 0, 2); /* stored */
    put(r, 0, 2); /* midnight */
    put(r, DATE_1980, 2);
    put(r, m->crc, 4);
    put(r, or_max(m->bytes), 4);
    put(r, or_max(m->bytes), 4);
    put(r, strlen(m->name), 2);
    put(r, extra, 2);
}

static void write_local(vae_npz_writer *w, const struct vae_npz_written *m)
{
    const bool zip64 = m->bytes >= max_32;
    record r = {.n = 0};
    put(&r, 0x04034b50, 4);
    put_common(&r, m, zip64, zip64 ? 20 : 0);
    vae_parts_copy(&w->parts, r.bytes, r.n);
    vae_parts_copy(&w->parts, m->name, strlen(m->name));
    if (zip64) {
        record extra = {.n = 0};
        put(&extra, 0x0001, 2);
        put(&extra, 16, 2);
        put(&extra, m->bytes, 8);
        put(&extra, m->bytes, 8);
        vae_parts_copy(&w->parts, extra.bytes, extra.n);
    }
}

void vae_npz_add(vae_npz_writer *w, const char *name, const char *descr, size_t item_bytes,
                 const size_t *shape, size_t ndim, const void *data)
{
    assert(strlen(name) + 4 < VAE_NPZ_NAME);
    uint8_t header[VAE_NPY_WRITE_HEADER_MAX];
    const size_t header_bytes = vae_npy_format_header(header, descr, shape, ndim);
    size_t bytes = item_bytes;
    for (size_t i = 0; i < ndim; i++) {
        bytes *= shape[i]; /* the array is in memory: it fits */
    }
    struct vae_npz_written *more = realloc(w->members, (w->n + 1) * sizeof *more);
    if (more == NULL) {
        w->parts.failed = true;
        return;
    }
    w->members = more;
    struct vae_npz_written *m = &more[w->n++];
    *m = (struct vae_npz_written){.bytes = header_bytes + bytes, .offset = w->parts.bytes};
    snprintf(m->name, sizeof m->name, "%s.npy", name);
    const uLong crc = crc32_z(0, header, header_bytes);
    m->crc = (uint32_t)(bytes > 0 ? crc32_z(crc, data, bytes) : crc);
    write_local(w, m);
    vae_parts_copy(&w->parts, header, header_bytes);
    vae_parts_borrow(&w->parts, data, bytes);
}

static void write_entry(vae_npz_writer *w, const struct vae_npz_written *m)
{
    record extra = {.n = 0}, r = {.n = 0};
    const bool big = m->bytes >= max_32, far = m->offset >= max_32;
    if (big || far) {
        put(&extra, 0x0001, 2);
        put(&extra, 16u * big + 8u * far, 2);
        if (big) {
            put(&extra, m->bytes, 8);
            put(&extra, m->bytes, 8);
        }
        if (far) {
            put(&extra, m->offset, 8);
        }
    }
    put(&r, 0x02014b50, 4);
    put(&r, 3 << 8 | 45, 2); /* made by: Unix */
    put_common(&r, m, big || far, extra.n);
    put(&r, 0, 2 + 2 + 2);      /* comment, disk, internal attributes */
    put(&r, 0100600u << 16, 4); /* a file, -rw------- */
    put(&r, or_max(m->offset), 4);
    vae_parts_copy(&w->parts, r.bytes, r.n);
    vae_parts_copy(&w->parts, m->name, strlen(m->name));
    vae_parts_copy(&w->parts, extra.bytes, extra.n);
}

/* Entries are at most 0xffff in a plain end record; a model or a set of latents has a few dozen. */
void vae_npz_finish(vae_npz_writer *w)
{
    assert(w->n < 0xffff);
    const uint64_t start = w->parts.bytes;
    for (size_t i = 0; i < w->n; i++) {
        write_entry(w, &w->members[i]);
    }
    const uint64_t end = w->parts.bytes, size = end - start;
    record r = {.n = 0};
    if (start >= max_32 || size >= max_32) {
        put(&r, 0x06064b50, 4);
        put(&r, 44, 8);
        put(&r, 3 << 8 | 45, 2);
        put(&r, 45, 2);
        put(&r, 0, 4 + 4);
        put(&r, w->n, 8);
        put(&r, w->n, 8);
        put(&r, size, 8);
        put(&r, start, 8);
        put(&r, 0x07064b50, 4);
        put(&r, 0, 4);
        put(&r, end, 8);
        put(&r, 1, 4);
    }
    put(&r, 0x06054b50, 4);
    put(&r, 0, 2 + 2);
    put(&r, w->n, 2);
    put(&r, w->n, 2);
    put(&r, or_max(size), 4);
    put(&r, or_max(start), 4);
    put(&r, 0, 2);
    vae_parts_copy(&w->parts, r.bytes, r.n);
    free(w->members);
    w->members = NULL;
}
