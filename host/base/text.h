/* Text: numbers in it, what it may hold, and which word was meant. */
#ifndef VAE_TEXT_H
#define VAE_TEXT_H

#include <math.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* A whole decimal number in min..max, nothing before or after it. */
bool vae_parse_u64(const char *text, uint64_t min, uint64_t max, uint64_t *out);
/* A finite decimal number, nothing before or after it: no "0x10", "nan" or "1e999". */
bool vae_parse_real(const char *text, double *out);
/* Shortest decimal text that reads back to the same double (as JSON wants it: finite). */
void vae_format_real(double value, char *text, size_t size);
/* 12345678 as "12,345,678". */
const char *vae_thousands(char text[32], double number);
/* What n things have at the end of their name: "s", but for 1. */
static inline const char *vae_s(size_t n)
{
    return n == 1 ? "" : "s";
}
/* Behind "not finite": what else an infinite float may have been in a file of doubles; or "". */
static inline const char *vae_beyond_float(float value)
{
    return isinf(value) ? ", or beyond a float's 3.4e38" : "";
}
/* True if text is valid UTF-8, as JSON wants it. */
bool vae_is_utf8(const char *text);
/* True if it may be shown: valid UTF-8 without control characters, of which tab, line feed and
 * carriage return are allowed, as spreadsheets put them into headers. */
bool vae_is_printable(const char *text);

/* Bytes of n names that lie one behind another, each with a zero byte behind it. */
size_t vae_names_bytes(const char *names, size_t n);
/* The same from an array of them; malloc'ed, NULL: out of memory. */
char *vae_join_names(const char *const *names, size_t n);

/* Makes text fit to be shown, in place: control characters (of a terminal's escape sequences, say),
 * which names and notes in files may hold, become \x1b and the like; cut to `size` - 1 bytes. */
void vae_escape(char *text, size_t size);

/* Now, as 2026-11-27T10:15:00Z. */
enum { VAE_TIME_TEXT = 32 };
void vae_time_text(char text[VAE_TIME_TEXT]);

/* The last part of a path, slashes behind it left out, cut to `size` - 1 bytes. Returns text. */
const char *vae_base_name(char *text, size_t size, const char *path);

/* Does the name end like that; with _any_case, whatever the case of its letters? */
bool vae_ends_with(const char *name, const char *end);
bool vae_ends_with_any_case(const char *name, const char *end);

/* The nearest of the words offered so far to `word`. Set word, leave the rest zero, offer every
 * candidate; best is then NULL where none is near enough to be a typing error. */
typedef struct {
    const char *word, *best;
    size_t distance;
} vae_nearest;
void vae_nearest_offer(vae_nearest *nearest, const char *candidate);

#endif
