/* Names of classes. The labels of a data set are indices of its table of names, 0..n-1; what people
 * see and say is the name. A number is named by its digits and means itself: "10.0" is "10". */
#ifndef VAE_CLASSES_H
#define VAE_CLASSES_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/status.h"

enum {
    VAE_MAX_CLASSES = 65536,
    VAE_CLASS_NAME = 256,   /* bytes of a name, its NUL included */
    VAE_CLASSES_TEXT = 320, /* of a list in a message */
};

/* No two alike, UTF-8 without control characters. A data set's own: numbers by their value, then
 * texts by their bytes. All zero: no names are known. */
typedef struct {
    char **name; /* (n) */
    size_t n;
} vae_classes;

void vae_classes_clear(vae_classes *classes);
/* VAE_ERR_RUNTIME. */
vae_status vae_classes_copy(vae_classes *out, const vae_classes *from, vae_error *err);
/* "0" .. "n-1". VAE_ERR_RUNTIME. */
vae_status vae_classes_number(vae_classes *out, size_t n, vae_error *err);

/* NULL, or why it is no name: empty, a control character in it, no UTF-8, too long. */
const char *vae_class_fault(const char *name);
/* What a label is called: whole numbers by their digits, other texts as they are. Returns NULL, or
 * what is wrong with the text: a fraction, or as above. */
const char *vae_class_name(char name[VAE_CLASS_NAME], const char *text);
/* Is the name a whole number below 2^53, as vae_class_name writes it? */
bool vae_class_number(const char *name, int64_t *number);
bool vae_classes_are_numbers(const vae_classes *classes);

/* Which class the text means, as it stands or as a number; SIZE_MAX: none. */
size_t vae_class_find(const vae_classes *classes, const char *text);
/* chosen: (n) set true for each class of the list "a,b,c". A name may hold commas: the longest that
 * fits is taken. False: no class is called like what *unknown points at, in `text`. */
bool vae_class_choose(bool *chosen, const vae_classes *classes, const char *text,
                      const char **unknown);
/* "cat, dog, emu", or as many as fit and how many there are. Returns text. */
const char *vae_classes_text(char text[VAE_CLASSES_TEXT], const vae_classes *classes);

/* From names with a zero byte behind each, `bytes` in all. VAE_ERR_DATA, its text being what is
 * wrong: no names, or two alike. */
vae_status vae_classes_read(vae_classes *out, const char *names, size_t bytes, vae_error *err);

/* ---- labels in the making ---- */

/* Names in the order in which they came. Zero-initialize it. */
typedef struct {
    vae_classes seen;
    uint32_t *slot; /* (slots) of a hash table: index + 1 of a name, or 0 */
    size_t slots;
} vae_labeller;

/* *label: the place of the name, a new one where it is new; VAE_NO_LABEL: there are
 * VAE_MAX_CLASSES already. VAE_ERR_RUNTIME. */
vae_status vae_labeller_take(vae_labeller *l, const char *name, uint32_t *label, vae_error *err);
/* The names of which there are labels (n, or VAE_NO_LABEL) in order to `out`; labels become places
 * there. VAE_ERR_RUNTIME. */
vae_status vae_labeller_finish(vae_labeller *l, vae_classes *out, uint32_t *labels, size_t n,
                               vae_error *err);
void vae_labeller_clear(vae_labeller *l);

#endif
