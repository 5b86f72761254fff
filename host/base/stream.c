/* Byte stream over plain and gzip files. It calls inflate itself instead of gzread, because gzread
 * silently drops whatever follows the packed data and reports a cut file only at gzclose. */
#include "base/stream.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include <zlib.h>

#include "base/file.h"
#include "base/machine.h"

enum {
    INPUT_BYTES = 1 << 16,
    FIRST_GROWTH = 1 << 20,
    /* No deflate stream unpacks to more than 1032 times its size (zlib's documentation). */
    DEFLATE_MAX_RATIO = 1032,
    GZIP_WINDOW = 15 + 16, /* largest window, gzip wrapper only */
};

struct vae_stream {
    int fd;
    char *name;
    uint64_t file_bytes; /* from fstat */
    uint64_t offset;     /* unpacked bytes delivered */
    bool gzip, ended;
    z_stream z; /* z.next_in, z.avail_in are the unread input, of plain files too */
    uint8_t input[INPUT_BYTES];
};

bool vae_checked_mul(size_t a, size_t b, size_t *product)
{
    return !__builtin_mul_overflow(a, b, product);
}

vae_status vae_check_memory(uint64_t bytes, const char *what, vae_error *err)
{
    return vae_machine_holds(bytes, 1)
               ? VAE_OK
               : vae_fail(err, VAE_ERR_RUNTIME,
                          "%s: %llu bytes, and %zu bytes of memory are to be had here", what,
                          (unsigned long long)bytes, vae_machine_memory());
}

const char *vae_stream_name(const vae_stream *s)
{
    return s->name;
}

uint64_t vae_stream_offset(const vae_stream *s)
{
    return s->offset;
}

uint64_t vae_stream_bound(const vae_stream *s)
{
    uint64_t most = s->file_bytes;
    if (s->gzip && __builtin_mul_overflow(most, (uint64_t)DEFLATE_MAX_RATIO, &most)) {
        most = UINT64_MAX;
    }
    return most > s->offset ? most - s->offset : 0;
}

/* Fills the input buffer if it is empty; avail_in stays 0 at the end of the file. */
static vae_status refill(vae_stream *s, vae_error *err)
{
    ssize_t got;
    if (s->z.avail_in > 0) {
        return VAE_OK;
    }
    do {
        got = read(s->fd, s->input, sizeof s->input);
    } while (got < 0 && errno == EINTR);
    if (got < 0) {
        return vae_fail(err, VAE_ERR_IO, "%s: cannot read: %s", s->name, strerror(errno));
    }
    s->z.next_in = s->input;
    s->z.avail_in = (uInt)got;
    return VAE_OK;
}

static vae_status detect_gzip(vae_stream *s, vae_error *err)
{
    vae_status status = VAE_OK;
    TRY(refill(s, err));
    s->gzip = s->z.avail_in >= 2 && s->input[0] == 0x1f && s->input[1] == 0x8b;
    if (s->gzip && inflateInit2(&s->z, GZIP_WINDOW) != Z_OK) {
        s->gzip = false; /* nothing to end */
        TRY(vae_fail(err, VAE_ERR_RUNTIME, "%s: zlib cannot start", s->name));
    }
done:
    return status;
}

vae_status vae_stream_open_fd(vae_stream **out, int fd, const char *name, vae_error *err)
{
    vae_status status = VAE_OK;
    struct stat info;
    *out = NULL;
    vae_stream *s = calloc(1, sizeof *s);
    if (s == NULL) {
        close(fd);
        return vae_fail_memory(err, sizeof *s, "a file's buffer");
    }
    s->fd = fd;
    s->name = strdup(name);
    if (s->name == NULL) {
        TRY(vae_fail_memory(err, strlen(name), "a file's name"));
    }
    TRY(vae_file_inspect(&info, fd, name, err));
    s->file_bytes = (uint64_t)info.st_size;
    TRY(detect_gzip(s, err));
    *out = s;
    s = NULL;
done:
    vae_stream_close(s);
    return status;
}

vae_status vae_stream_open(vae_stream **out, const char *path, vae_error *err)
{
    *out = NULL;
    /* O_NONBLOCK: a pipe without a writer must be refused, not waited for. */
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    if (fd < 0) {
        return vae_fail(err, VAE_ERR_IO, "%s: cannot open: %s", path, strerror(errno));
    }
    return vae_stream_open_fd(out, fd, path, err);
}

void vae_stream_close(vae_stream *s)
{
    if (s == NULL) {
        return;
    }
    if (s->gzip) {
        inflateEnd(&s->z);
    }
    close(s->fd);
    free(s->name);
    free(s);
}

/* After a packed member: another member may follow (RFC 1952), or nothing. */
static vae_status next_member(vae_stream *s, vae_error *err)
{
    vae_status status = VAE_OK;
    TRY(refill(s, err));
    if (s->z.avail_in == 0) {
        s->ended = true;
    } else if (s->z.next_in[0] != 0x1f) {
        TRY(vae_fail(err, VAE_ERR_DATA,
                     "%s: bytes that are not gzip data follow the packed data; get the file "
                     "again",
                     s->name));
    } else if (inflateReset(&s->z) != Z_OK) {
        TRY(vae_fail(err, VAE_ERR_RUNTIME, "%s: zlib cannot restart", s->name));
    }
done:
    return status;
}

/* One step of unpacking into z.next_out. */
static vae_status inflate_some(vae_stream *s, vae_error *err)
{
    vae_status status = VAE_OK;
    TRY(refill(s, err));
    if (s->z.avail_in == 0) {
        TRY(vae_fail(err, VAE_ERR_DATA,
                     "%s: gzip data is cut short after %llu packed bytes; get the file again",
                     s->name, (unsigned long long)s->file_bytes));
    }
    const int result = inflate(&s->z, Z_NO_FLUSH);
    if (result == Z_STREAM_END) {
        TRY(next_member(s, err));
    } else if (result == Z_MEM_ERROR) {
        TRY(vae_fail(err, VAE_ERR_RUNTIME, "%s: zlib is out of memory", s->name));
    } else if (result != Z_OK && result != Z_BUF_ERROR) {
        TRY(vae_fail(err, VAE_ERR_DATA, "%s: gzip data is damaged (%s); get the file again",
                     s->name, s->z.msg != NULL ? s->z.msg : "unexpected dictionary"));
    }
done:
    return status;
}

static vae_status copy_some(vae_stream *s, vae_error *err)
{
    vae_status status = VAE_OK;
    TRY(refill(s, err));
    s->ended = s->z.avail_in == 0;
    uInt n = s->z.avail_in < s->z.avail_out ? s->z.avail_in : s->z.avail_out;
    memcpy(s->z.next_out, s->z.next_in, n);
    s->z.next_in += n;
    s->z.avail_in -= n;
    s->z.next_out += n;
    s->z.avail_out -= n;
done:
    return status;
}

vae_status vae_stream_read(vae_stream *s, void *out, size_t n, size_t *got, vae_error *err)
{
    vae_status status = VAE_OK;
    *got = 0;
    while (*got < n && !s->ended) {
        size_t want = n - *got < FIRST_GROWTH ? n - *got : FIRST_GROWTH;
        s->z.next_out = (uint8_t *)out + *got;
        s->z.avail_out = (uInt)want;
        TRY(s->gzip ? inflate_some(s, err) : copy_some(s, err));
        *got += want - s->z.avail_out;
    }
    s->offset += *got;
done:
    return status;
}

static vae_status fail_short(const vae_stream *s, const char *what, size_t n, size_t got,
                             vae_error *err)
{
    return vae_fail(err, VAE_ERR_DATA,
                    "%s: %s: expected %zu bytes at offset %llu, found %zu; the file is cut short",
                    s->name, what, n, (unsigned long long)(s->offset - got), got);
}

vae_status vae_stream_read_exact(vae_stream *s, void *out, size_t n, const char *what,
                                 vae_error *err)
{
    vae_status status = VAE_OK;
    size_t got;
    TRY(vae_stream_read(s, out, n, &got, err));
    if (got < n) {
        TRY(fail_short(s, what, n, got, err));
    }
done:
    return status;
}

vae_status vae_stream_read_new(vae_stream *s, uint8_t **out, size_t n, const char *what,
                               vae_error *err)
{
    *out = NULL;
    if (n > vae_stream_bound(s)) {
        return vae_fail(err, VAE_ERR_DATA,
                        "%s: %s: expected %zu bytes at offset %llu, at most %llu remain; the file "
                        "is cut short or its header is wrong",
                        s->name, what, n, (unsigned long long)s->offset,
                        (unsigned long long)vae_stream_bound(s));
    }
    vae_status status = VAE_OK;
    uint8_t *bytes = NULL;
    TRY(vae_check_memory(n, s->name, err));
    for (size_t held = 0, capacity = 0, got; bytes == NULL || held < n; held += got) {
        const size_t least = s->gzip && n > FIRST_GROWTH ? FIRST_GROWTH : n;
        const size_t twice = capacity > n / 2 ? n : 2 * capacity;
        capacity = bytes == NULL ? least : twice;
        uint8_t *grown = realloc(bytes, capacity > 0 ? capacity : 1);
        if (grown == NULL) {
            TRY(vae_fail_memory(err, capacity, what));
        }
        bytes = grown;
        TRY(vae_stream_read(s, bytes + held, capacity - held, &got, err));
        if (held + got < capacity) {
            TRY(fail_short(s, what, n, held + got, err));
        }
    }
    *out = bytes;
    bytes = NULL;
done:
    free(bytes);
    return status;
}

vae_status vae_stream_skip(vae_stream *s, size_t n, const char *what, vae_error *err)
{
    uint8_t dropped[4096];
    vae_status status = VAE_OK;
    if (!s->gzip && n > s->z.avail_in) { /* by no reading */
        const uint64_t left = vae_stream_bound(s);
        if (n > left) {
            s->offset += left;
            TRY(fail_short(s, what, n, (size_t)left, err));
        }
        if (lseek(s->fd, (off_t)(n - s->z.avail_in), SEEK_CUR) < 0) {
            TRY(vae_fail(err, VAE_ERR_IO, "%s: cannot seek: %s", s->name, strerror(errno)));
        }
        s->offset += n;
        s->z.avail_in = 0;
        return VAE_OK;
    }
    for (size_t piece; n > 0; n -= piece) {
        piece = n < sizeof dropped ? n : sizeof dropped;
        TRY(vae_stream_read_exact(s, dropped, piece, what, err));
    }
done:
    return status;
}

vae_status vae_stream_map(const vae_stream *s, vae_map **out, vae_error *err)
{
    *out = NULL;
    return s->gzip ? VAE_OK : vae_map_open_fd(out, s->fd, s->name, err);
}

vae_status vae_stream_expect_end(vae_stream *s, vae_error *err)
{
    vae_status status = VAE_OK;
    uint8_t extra;
    size_t got;
    TRY(vae_stream_read(s, &extra, 1, &got, err));
    if (got > 0) {
        TRY(vae_fail(err, VAE_ERR_DATA,
                     "%s: data ends at offset %llu by the header, but the file goes on; it is "
                     "damaged or not what it seems",
                     s->name, (unsigned long long)(s->offset - 1)));
    }
done:
    return status;
}
