/* Text: numbers in it, what it may hold, and which word was meant. */
#include "base/text.h"

#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <time.h>

bool vae_parse_u64(const char *text, uint64_t min, uint64_t max, uint64_t *out)
{
    if (*text < '0' || *text > '9') {
        return false;
    }
    char *end;
    errno = 0;
    unsigned long long value = strtoull(text, &end, 10);
    if (errno != 0 || *end != '\0' || value < min || value > max) {
        return false;
    }
    *out = value;
    return true;
}

bool vae_parse_real(const char *text, double *out)
{
    /* strtod takes more: white space before it, "nan" and "inf", hexadecimal digits */
    const char *at = text + (*text == '-' || *text == '+');
    if (*text == '\0' || at[strspn(at, "0123456789.eE+-")] != '\0') {
        return false;
    }
    char *end;
    double value = strtod(text, &end);
    if (end == text || *end != '\0' || !isfinite(value)) {
        return false;
    }
    *out = value;
    return true;
}

void vae_format_real(double value, char *text, size_t size)
{
    for (int digits = 15; digits <= 17; digits++) {
        snprintf(text, size, "%.*g", digits, value);
        if (strtod(text, NULL) == value) {
            return;
        }
    }
}

const char *vae_thousands(char text[32], double number)
{
    char digits[32];
    size_t n = (size_t)snprintf(digits, sizeof digits, "%.0f", number), at = 0;
    if (!(fabs(number) < 1e15)) {
        snprintf(text, 32, "%g", number);
        return text;
    }
    for (size_t i = 0; i < n; i++) {
        text[at++] = digits[i];
        if ((n - i) % 3 == 1 && i + 1 < n && digits[i] != '-') {
            text[at++] = ',';
        }
    }
    text[at] = '\0';
    return text;
}

/* By hand, not by jansson, which says no where it has no memory: a name would be refused for it,
 * and a checkpoint with it taken for damaged. */
bool vae_is_utf8(const char *text)
{
    /* RFC 3629, 4: first bytes, how many follow, and what the first of these may be */
    static const struct {
        unsigned char from, to, more, least, most;
    } forms[] = {
        {0x01, 0x7f, 0, 0x00, 0x00}, {0xc2, 0xdf, 1, 0x80, 0xbf}, {0xe0, 0xe0, 2, 0xa0, 0xbf},
        {0xe1, 0xec, 2, 0x80, 0xbf}, {0xed, 0xed, 2, 0x80, 0x9f}, {0xee, 0xef, 2, 0x80, 0xbf},
        {0xf0, 0xf0, 3, 0x90, 0xbf}, {0xf1, 0xf3, 3, 0x80, 0xbf}, {0xf4, 0xf4, 3, 0x80, 0x8f},
    };
    enum { N = sizeof forms / sizeof forms[0] };
    const unsigned char *at = (const unsigned char *)text;
    while (*at != '\0') {
        size_t form = 0;
        while (form < N && (*at < forms[form].from || *at > forms[form].to)) {
            form++;
        }
        if (form == N) {
            return false;
        }
        at++;
        for (int i = 0; i < forms[form].more; i++, at++) {
            if (i == 0 ? *at < forms[form].least || *at > forms[form].most : (*at & 0xc0) != 0x80) {
                return false;
            }
        }
    }
    return true;
}

bool vae_is_printable(const char *text)
{
    for (const char *at = text; *at != '\0'; at++) {
        const unsigned char c = (unsigned char)at[0], next = (unsigned char)at[1];
        const bool blank = c == '\t' || c == '\n' || c == '\r';
        /* U+0080 to U+009F steer terminals, too */
        if ((c < 0x20 && !blank) || c == 0x7f || (c == 0xc2 && next < 0xa0)) {
            return false;
        }
    }
    return vae_is_utf8(text);
}

size_t vae_names_bytes(const char *names, size_t n)
{
    const char *at = names;
    for (size_t i = 0; i < n; i++) {
        at += strlen(at) + 1;
    }
    return (size_t)(at - names);
}

char *vae_join_names(const char *const *names, size_t n)
{
    size_t bytes = 0;
    for (size_t i = 0; i < n; i++) {
        bytes += strlen(names[i]) + 1;
    }
    char *text = malloc(bytes), *at = text;
    for (size_t i = 0; text != NULL && i < n; i++) {
        at = stpcpy(at, names[i]) + 1;
    }
    return text;
}

void vae_escape(char *text, size_t size)
{
    enum { CODE = 4 }; /* \x1b */
    for (char *at = text; *at != '\0'; at++) {
        const unsigned char c = (unsigned char)at[0], next = (unsigned char)at[1];
        const bool c1 = c == 0xc2 && next >= 0x80 && next < 0xa0; /* U+0080 to U+009F in UTF-8 */
        if (c >= 0x20 && c != 0x7f && !c1) {
            continue;
        }
        const size_t taken = c1 ? 2 : 1, left = size - (size_t)(at - text);
        if (left <= CODE) {
            *at = '\0';
            return;
        }
        const size_t tail = strlen(at + taken), room = left - CODE - 1;
        const size_t kept = tail < room ? tail : room;
        memmove(at + CODE, at + taken, kept);
        at[CODE + kept] = '\0';
        const unsigned char shown = c1 ? next : c;
        at[0] = '\\';
        at[1] = 'x';
        at[2] = "0123456789abcdef"[shown >> 4];
        at[3] = "0123456789abcdef"[shown & 15];
        at += CODE - 1;
    }
}

void vae_time_text(char text[VAE_TIME_TEXT])
{
    const time_t now = time(NULL);
    struct tm utc;
    strftime(text, VAE_TIME_TEXT, "%Y-%m-%dT%H:%M:%SZ", gmtime_r(&now, &utc));
}

const char *vae_base_name(char *text, size_t size, const char *path)
{
    const char *end = path + strlen(path);
    while (end > path + 1 && end[-1] == '/') {
        end--;
    }
    const char *begin = end;
    while (begin > path && begin[-1] != '/') {
        begin--;
    }
    snprintf(text, size, "%.*s", (int)(end - begin), begin);
    return text;
}

bool vae_ends_with(const char *name, const char *end)
{
    const size_t n = strlen(name), m = strlen(end);
    return n >= m && strcmp(name + n - m, end) == 0;
}

bool vae_ends_with_any_case(const char *name, const char *end)
{
    const size_t n = strlen(name), m = strlen(end);
    return n >= m && strcasecmp(name + n - m, end) == 0;
}

/* Levenshtein's distance with swapped neighbours as one error; words of up to 31 bytes. */
static size_t edit_distance(const char *a, const char *b)
{
    enum { LONGEST = 32 };
    size_t d[LONGEST][LONGEST], n = strlen(a), m = strlen(b);
    if (n >= LONGEST || m >= LONGEST) {
        return SIZE_MAX;
    }
    for (size_t i = 0; i <= n; i++) {
        for (size_t j = 0; j <= m; j++) {
            if (i == 0 || j == 0) {
                d[i][j] = i + j;
                continue;
            }
            size_t best = d[i - 1][j - 1] + (a[i - 1] != b[j - 1]);
            best = d[i - 1][j] + 1 < best ? d[i - 1][j] + 1 : best;
            best = d[i][j - 1] + 1 < best ? d[i][j - 1] + 1 : best;
            if (i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] &&
                d[i - 2][j - 2] + 1 < best) {
                best = d[i - 2][j - 2] + 1;
            }
            d[i][j] = best;
        }
    }
    return d[n][m];
}

void vae_nearest_offer(vae_nearest *nearest, const char *candidate)
{
    size_t length = strlen(nearest->word);
    size_t distance = edit_distance(nearest->word, candidate);
    if (length >= 3 && strncmp(nearest->word, candidate, length) == 0) {
        distance = 1; /* the beginning of it */
    }
    size_t near = length < 3 ? 1 : (length + 2) / 3;
    if (distance <= near && (nearest->best == NULL || distance < nearest->distance)) {
        nearest->best = candidate;
        nearest->distance = distance;
    }
}
