/* Pieces of the page: numbers, notes, bytes as text. */
#include <stdarg.h>
#include <stdio.h>

#include "report/internal.h"

void report_base64(vae_text *out, const void *bytes, size_t n)
{
    static const char digits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    const uint8_t *in = bytes;
    char block[4096];
    size_t used = 0;
    for (size_t i = 0; i < n; i += 3) {
        const size_t left = n - i < 3 ? n - i : 3;
        const uint32_t v = (uint32_t)in[i] << 16 | (left > 1 ? (uint32_t)in[i + 1] << 8 : 0) |
                           (left > 2 ? in[i + 2] : 0);
        block[used++] = digits[v >> 18];
        block[used++] = digits[v >> 12 & 63];
        block[used++] = left > 1 ? digits[v >> 6 & 63] : '=';
        block[used++] = left > 2 ? digits[v & 63] : '=';
        if (used == sizeof block) {
            vae_text_put(out, block, used);
            used = 0;
        }
    }
    vae_text_put(out, block, used);
}

void report_note(report *r, const char *format, ...)
{
    char text[2 * VAE_ERROR_TEXT];
    va_list args;
    va_start(args, format);
    vsnprintf(text, sizeof text, format, args);
    va_end(args);
    vae_text_add(&r->page, "<p class=\"note\">");
    vae_text_escaped(&r->page, text);
    vae_text_add(&r->page, "</p>\n");
}

const char *report_duration(char text[32], double seconds)
{
    const unsigned long whole = seconds > 0 && seconds < 1e12 ? (unsigned long)(seconds + 0.5) : 0;
    if (seconds < 60) {
        snprintf(text, 32, "%.1f s", seconds);
    } else if (whole < 3600) {
        snprintf(text, 32, "%lu min %02lu s", whole / 60, whole % 60);
    } else {
        snprintf(text, 32, "%lu h %02lu min", whole / 3600, whole / 60 % 60);
    }
    return text;
}

void report_row(report *r, const char *name, const char *value)
{
    vae_text_add(&r->page, "<tr><th scope=\"row\">");
    vae_text_escaped(&r->page, name);
    vae_text_add(&r->page, "</th><td>");
    vae_text_escaped(&r->page, value);
    vae_text_add(&r->page, "</td></tr>\n");
}
