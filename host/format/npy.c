/* NPY: numpy's header, parsed and written. */
#include "format/npy.h"

#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/file.h"
#include "base/stream.h"

static const char magic[6] = {'\x93', 'N', 'U', 'M', 'P', 'Y'};

/* Where the parser stands in the header's text. */
typedef struct {
    const char *at, *end;
    const char *text; /* its beginning, for offsets in messages */
    vae_error *err;
} cursor;

static vae_status fail_at(const cursor *c, const char *expected)
{
    if (c->at == c->end) {
        return vae_fail(c->err, VAE_ERR_DATA, "npy header: expected %s, found its end", expected);
    }
    unsigned char found = (unsigned char)*c->at;
    return vae_fail(c->err, VAE_ERR_DATA,
                    found >= ' ' && found < 127
                        ? "npy header: expected %s at character %zu, found '%c'"
                        : "npy header: expected %s at character %zu, "
                          "found byte 0x%02x",
                    expected, (size_t)(c->at - c->text), found);
}

static void skip_space(cursor *c)
{
    while (c->at < c->end && strchr(" \t\r\n", *c->at) != NULL && *c->at != '\0') {
        c->at++;
    }
}

/* Skips white space, then takes `wanted` if it comes next. */
static bool take(cursor *c, char wanted)
{
    skip_space(c);
    if (c->at < c->end && *c->at == wanted) {
        c->at++;
        return true;
    }
    return false;
}

/* A quoted string without escapes, into out (NUL-terminated). */
static vae_status parse_string(cursor *c, char *out, size_t size, const char *what)
{
    skip_space(c);
    if (c->at == c->end || (*c->at != '\'' && *c->at != '"')) {
        return fail_at(c, what);
    }
    char quote = *c->at++;
    size_t n = 0;
    while (c->at < c->end && *c->at != quote) {
        if (n + 1 == size || *c->at == '\\' || *c->at == '\n' || *c->at == '\0') {
            return fail_at(c, what);
        }
        out[n++] = *c->at++;
    }
    out[n] = '\0';
    return take(c, quote) ? VAE_OK : fail_at(c, "a closing quote");
}

static vae_status parse_bool(cursor *c, bool *out)
{
    static const char *const words[2] = {"False", "True"};
    skip_space(c);
    for (size_t i = 0; i < 2; i++) {
        size_t n = strlen(words[i]);
        if ((size_t)(c->end - c->at) >= n && memcmp(c->at, words[i], n) == 0) {
            c->at += n;
            *out = i == 1;
            return VAE_OK;
        }
    }
    return fail_at(c, "True or False");
}

static vae_status parse_size(cursor *c, size_t *out)
{
    skip_space(c);
    if (c->at == c->end || *c->at < '0' || *c->at > '9') {
        return fail_at(c, "a dimension");
    }
    size_t value = 0;
    const char *first = c->at;
    while (c->at < c->end && *c->at >= '0' && *c->at <= '9') {
        if (__builtin_mul_overflow(value, (size_t)10, &value) ||
            __builtin_add_overflow(value, (size_t)(*c->at - '0'), &value)) {
            return vae_fail(c->err, VAE_ERR_DATA, "npy header: a dimension is above 2^64");
        }
        c->at++;
    }
    /* Python refuses 010 as a number; a file that holds it was not written by numpy. */
    if (*first == '0' && c->at - first > 1) {
        c->at = first;
        return fail_at(c, "a dimension without leading zeros");
    }
    *out = value;
    return VAE_OK;
}

/* (), (6,), (2, 3), (2, 3,): but not (6), which is a number in Python. */
static vae_status parse_shape(cursor *c, npy_header *out)
{
    if (!take(c, '(')) {
        return fail_at(c, "'(' of the shape");
    }
    vae_status status = VAE_OK;
    bool comma = true;
    out->ndim = 0;
    while (!take(c, ')')) {
        if (!comma) {
            return fail_at(c, "',' or ')' in the shape");
        }
        if (out->ndim == VAE_NPY_MAX_DIMS) {
            return vae_fail(c->err, VAE_ERR_DATA, "npy header: shape has more than %d dimensions",
                            VAE_NPY_MAX_DIMS);
        }
        TRY(parse_size(c, &out->shape[out->ndim]));
        out->ndim++;
        comma = take(c, ',');
    }
    if (out->ndim == 1 && !comma) {
        return vae_fail(c->err, VAE_ERR_DATA,
                        "npy header: shape (%zu) is a number, not a tuple; expected (%zu,)",
                        out->shape[0], out->shape[0]);
    }
done:
    return status;
}

static const char *const keys[3] = {"descr", "fortran_order", "shape"};

static vae_status parse_entry(cursor *c, npy_header *out, unsigned *seen)
{
    char key[VAE_NPY_MAX_DESCR];
    vae_status status = VAE_OK;
    TRY(parse_string(c, key, sizeof key, "a key in quotes"));
    unsigned which = 0;
    while (which < 3 && strcmp(key, keys[which]) != 0) {
        which++;
    }
    if (which == 3 || (*seen & 1u << which) != 0) {
        return vae_fail(c->err, VAE_ERR_DATA, "npy header: key '%s' is %s", key,
                        which == 3 ? "unknown" : "there twice");
    }
    *seen |= 1u << which;
    if (!take(c, ':')) {
        return fail_at(c, "':'");
    }
    skip_space(c);
    if (which == 0 && c->at < c->end && *c->at == '[') {
        return vae_fail(c->err, VAE_ERR_DATA,
                        "npy header: structured types are not supported; save plain numbers");
    }
    if (which == 0) {
        TRY(parse_string(c, out->descr, sizeof out->descr, "a type in quotes"));
    } else if (which == 1) {
        TRY(parse_bool(c, &out->fortran_order));
    } else {
        TRY(parse_shape(c, out));
    }
done:
    return status;
}

static vae_status parse_dict(cursor *c, npy_header *out)
{
    vae_status status = VAE_OK;
    unsigned seen = 0;
    bool comma = true;
    if (!take(c, '{')) {
        return fail_at(c, "'{'");
    }
    while (!take(c, '}')) {
        if (!comma) {
            return fail_at(c, "',' or '}'");
        }
        TRY(parse_entry(c, out, &seen));
        comma = take(c, ',');
    }
    for (unsigned i = 0; i < 3; i++) {
        if ((seen >> i & 1) == 0) {
            return vae_fail(c->err, VAE_ERR_DATA, "npy header: key '%s' is missing", keys[i]);
        }
    }
    skip_space(c);
    if (c->at != c->end) {
        TRY(fail_at(c, "nothing after '}'"));
    }
done:
    return status;
}

/* Item size of "<f4" and the like: order, kind, digits. 0 if it is none of numpy's plain types. */
static size_t descr_item_bytes(const char *descr)
{
    if (*descr != '\0' && strchr("<>|=", *descr) != NULL) {
        descr++;
    }
    if (*descr == '\0' || strchr("?biufcSUVmM", *descr) == NULL) {
        return 0;
    }
    size_t unit = *descr == 'U' ? 4 : 1, n = 0;
    const char *digits = descr + 1;
    for (; *digits >= '0' && *digits <= '9'; digits++) {
        n = 10 * n + (size_t)(*digits - '0');
        if (n > 1u << 20) {
            return 0;
        }
    }
    /* m and M carry a unit: <M8[ns] */
    return *digits == '\0' || *digits == '[' ? n * unit : 0;
}

static vae_status check_sizes(npy_header *out, vae_error *err)
{
    out->item_bytes = descr_item_bytes(out->descr);
    if (out->item_bytes == 0) {
        return vae_fail(err, VAE_ERR_DATA,
                        "npy header: type '%s' is not supported; save numbers, for example "
                        "array.astype('float32')",
                        out->descr);
    }
    /* numpy multiplies all dimensions, so a 0 must not hide an overflow of the others. */
    size_t product = out->item_bytes;
    bool empty = false;
    for (size_t i = 0; i < out->ndim; i++) {
        empty = empty || out->shape[i] == 0;
        if (out->shape[i] != 0 && !vae_checked_mul(product, out->shape[i], &product)) {
            return vae_fail(err, VAE_ERR_DATA, "npy header: shape has more than 2^64 bytes");
        }
    }
    out->n_items = empty ? 0 : product / out->item_bytes;
    return VAE_OK;
}

vae_status vae_npy_header_size(const uint8_t *bytes, size_t n, size_t *header_bytes, vae_error *err)
{
    if (n < 10 || memcmp(bytes, magic, sizeof magic) != 0) {
        return vae_fail(err, VAE_ERR_DATA, "not an npy file: expected \\x93NUMPY at its beginning");
    }
    uint8_t major = bytes[6], minor = bytes[7];
    if (major < 1 || major > 3 || minor != 0) {
        return vae_fail(err, VAE_ERR_DATA, "npy version %u.%u: expected 1.0, 2.0 or 3.0", major,
                        minor);
    }
    size_t text = (size_t)bytes[8] | (size_t)bytes[9] << 8, prefix = 10;
    if (major > 1) {
        if (n < VAE_NPY_PREFIX) {
            return vae_fail(err, VAE_ERR_DATA, "npy header: expected 12 bytes, found %zu", n);
        }
        text |= (size_t)bytes[10] << 16 | (size_t)bytes[11] << 24;
        prefix = VAE_NPY_PREFIX;
    }
    if (text > VAE_NPY_MAX_HEADER) {
        return vae_fail(err, VAE_ERR_DATA, "npy header: says it is %zu bytes long; at most %d go",
                        text, VAE_NPY_MAX_HEADER);
    }
    *header_bytes = prefix + text;
    return VAE_OK;
}

vae_status vae_npy_parse_header(const uint8_t *bytes, size_t n, npy_header *out, vae_error *err)
{
    vae_status status = VAE_OK;
    size_t size;
    *out = (npy_header){0};
    TRY(vae_npy_header_size(bytes, n, &size, err));
    if (size > n) {
        return vae_fail(err, VAE_ERR_DATA, "npy header: expected %zu bytes, found %zu", size, n);
    }
    const char *text = (const char *)bytes + (bytes[6] == 1 ? 10 : VAE_NPY_PREFIX);
    cursor c = {.at = text, .end = (const char *)bytes + size, .text = text, .err = err};
    TRY(parse_dict(&c, out));
    out->header_bytes = size;
    TRY(check_sizes(out, err));
done:
    return status;
}

size_t vae_npy_format_header(uint8_t out[VAE_NPY_WRITE_HEADER_MAX], const char *descr,
                             const size_t *shape, size_t ndim)
{
    assert(ndim <= VAE_NPY_MAX_DIMS && strlen(descr) < VAE_NPY_MAX_DESCR);
    char *text = (char *)out + 10;
    const size_t room = VAE_NPY_WRITE_HEADER_MAX - 10;
    size_t n =
        (size_t)snprintf(text, room, "{'descr': '%s', 'fortran_order': False, 'shape': (", descr);
    for (size_t i = 0; i < ndim; i++) {
        n += (size_t)snprintf(text + n, room - n, "%s%zu", i > 0 ? ", " : "", shape[i]);
    }
    n += (size_t)snprintf(text + n, room - n, ndim == 1 ? ",), }" : "), }");
    size_t total = (10 + n + 1 + 63) / 64 * 64;
    assert(total <= VAE_NPY_WRITE_HEADER_MAX);
    memset(text + n, ' ', total - 10 - n - 1);
    out[total - 1] = '\n';
    memcpy(out, magic, sizeof magic);
    out[6] = 1;
    out[7] = 0;
    out[8] = (uint8_t)((total - 10) & 0xff);
    out[9] = (uint8_t)((total - 10) >> 8);
    return total;
}

vae_status vae_npy_write(const char *path, const char *descr, const size_t *shape, size_t ndim,
                         const void *data, vae_error *err)
{
    uint8_t header[VAE_NPY_WRITE_HEADER_MAX];
    size_t header_bytes = vae_npy_format_header(header, descr, shape, ndim);
    size_t n_bytes = descr_item_bytes(descr);
    assert(n_bytes > 0);
    for (size_t i = 0; i < ndim; i++) {
        n_bytes *= shape[i]; /* the array is in memory: it fits */
    }
    const struct iovec parts[2] = {{header, header_bytes}, {(void *)(uintptr_t)data, n_bytes}};
    return vae_file_put(path, parts, 2, err);
}
