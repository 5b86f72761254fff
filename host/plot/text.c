/* Text that grows, and what of it may stand in XML and HTML. */
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/file.h"
#include "plot/plot.h"

static bool make_room(vae_text *t, size_t more)
{
    if (t->failed || more >= SIZE_MAX / 2 - t->size) {
        t->failed = true;
        return false;
    }
    size_t need = t->size + more + 1;
    if (need > t->room) {
        size_t room = need < 1024 ? 1024 : need + need / 2;
        char *data = realloc(t->data, room);
        if (data == NULL) {
            t->failed = true;
            return false;
        }
        t->data = data;
        t->room = room;
    }
    return true;
}

void vae_text_put(vae_text *t, const char *bytes, size_t n)
{
    if (!make_room(t, n)) {
        return;
    }
    if (n > 0) {
        memcpy(t->data + t->size, bytes, n);
    }
    t->size += n;
    t->data[t->size] = '\0';
}

void vae_text_add(vae_text *t, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    int n = vsnprintf(NULL, 0, format, args);
    va_end(args);
    if (n < 0) {
        t->failed = true;
        return;
    }
    if (!make_room(t, (size_t)n)) {
        return;
    }
    va_start(args, format);
    vsnprintf(t->data + t->size, (size_t)n + 1, format, args);
    va_end(args);
    t->size += (size_t)n;
}

/* Bytes of the UTF-8 character at `text` that XML 1.0 allows; 0 = none. */
static size_t character(const unsigned char *text)
{
    unsigned c = text[0];
    if (c < 0x80) {
        return c >= 0x20 || c == '\t' || c == '\n' || c == '\r' ? 1 : 0;
    }
    if (c < 0xc2 || c > 0xf4) {
        return 0;
    }
    size_t n = 2;
    n += c >= 0xe0;
    n += c >= 0xf0;
    unsigned code = c & 0x7fu >> n;  /* the first byte's share */
    for (size_t i = 1; i < n; i++) { /* stops at the terminating NUL, too */
        if ((text[i] & 0xc0) != 0x80) {
            return 0;
        }
        code = code << 6 | (text[i] & 0x3f);
    }
    bool overlong = (n == 3 && code < 0x800) || (n == 4 && code < 0x10000);
    bool forbidden =
        (code >= 0xd800 && code <= 0xdfff) || code > 0x10ffff || code == 0xfffe || code == 0xffff;
    return overlong || forbidden ? 0 : n;
}

static const char *entity_of(char c)
{
    switch (c) {
    case '&':
        return "&amp;";
    case '<':
        return "&lt;";
    case '>':
        return "&gt;";
    case '"':
        return "&quot;";
    case '\'':
        return "&#39;";
    default:
        return NULL;
    }
}

void vae_text_escaped(vae_text *t, const char *text)
{
    static const char replacement[] = "\xef\xbf\xbd"; /* U+FFFD */
    while (*text != '\0') {
        size_t n = character((const unsigned char *)text);
        const char *entity = entity_of(*text);
        entity = n == 0 ? replacement : entity;
        if (entity != NULL) {
            vae_text_put(t, entity, strlen(entity));
            text++;
        } else {
            vae_text_put(t, text, n);
            text += n;
        }
    }
}

vae_status vae_text_done(const vae_text *t, vae_error *err)
{
    return t->failed ? vae_fail_memory(err, t->size, "a chart or report") : VAE_OK;
}

void vae_text_clear(vae_text *t)
{
    free(t->data);
    *t = (vae_text){0};
}

vae_status vae_text_write(const vae_text *t, const char *path, vae_error *err)
{
    const struct iovec part = {t->data, t->size};
    vae_status status = VAE_OK;
    TRY(vae_text_done(t, err));
    TRY(vae_file_put(path, &part, 1, err));
done:
    return status;
}
