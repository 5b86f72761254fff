/* Pieces of the page: numbers, notes, bytes as text. */
#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

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

/* To the nearest, ties to even; Inf where it is too large (IEEE 754, binary16). */
uint16_t report_half(float value)
{
    uint32_t bits;
    memcpy(&bits, &value, sizeof bits);
    const uint32_t sign = bits >> 16 & 0x8000, size = bits & 0x7fffffff;
    if (size > 0x7f800000) {
        return (uint16_t)(sign | 0x7e00);
    }
    if (size >= 0x477ff000) { /* 65520: halfway to what would be the next */
        return (uint16_t)(sign | 0x7c00);
    }
    if (size < 0x38800000) { /* below 2^-14: a multiple of 2^-24 */
        return (uint16_t)(sign | (uint32_t)lrintf(fabsf(value) * 16777216.0f));
    }
    const uint32_t odd = size >> 13 & 1;
    return (uint16_t)(sign | ((size - 0x38000000 + 0xfff + odd) >> 13));
}

float report_from_half(uint16_t half)
{
    const int exponent = half >> 10 & 31, fraction = half & 1023;
    const float size = exponent == 0    ? ldexpf((float)fraction, -24)
                       : exponent == 31 ? (fraction != 0 ? NAN : INFINITY)
                                        : ldexpf((float)(1024 + fraction), exponent - 25);
    return (half & 0x8000) != 0 ? -size : size;
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

const char *report_count(char text[32], double number)
{
    char digits[32];
    size_t n = (size_t)snprintf(digits, sizeof digits, "%.0f", number), at = 0;
    for (size_t i = 0; i < n && at + 2 < 32; i++) {
        text[at++] = digits[i];
        if ((n - i) % 3 == 1 && i + 1 < n && digits[i] != '-') {
            text[at++] = ',';
        }
    }
    text[at] = '\0';
    return text;
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
